/* SPDX-License-Identifier: Apache-2.0 */

/* Theory of operation
 *
 * The main thread puts the pieces together and then waits for signals; the engine's threads do the
 * rest. Signals are blocked before anything else happens and inherited so by every thread, which
 * makes sigwaitinfo() the only place where one is taken:
 *
 *     SIGCHLD      the init ended, and with it everything inside: exit with its status
 *     SIGTERM/HUP  passed on to the init, which passes them on to the command
 *     SIGUSR1      the counters on stderr
 *     SIGUSR2      read the policy's files again (reload.c): SIGHUP is the command's
 *     SIGINT/QUIT  stay blocked: the terminal sends them to the command as well, which decides
 *     SIGPIPE      stays blocked: stderr may be a pipe that nobody reads
 *
 * Dispositions are left as they are, since the command inherits them (nohup); except that of
 * SIGCHLD, which would never come if the caller had it ignored. */

#include "cli/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/listeners.h"
#include "cli/options.h"
#include "cli/reload.h"
#include "cli/report.h"
#include "cli/sandbox.h"
#include "cli/summary.h"
#include "engine/config.h"
#include "engine/ingress.h"
#include "host/init.h"
#include "netdev/net_worker.h"

#define FOLLOW_FIRST_NS 100000000 /* then once a second */

struct run {
    struct command_line line;
    struct culvert_config *config;
    char **argv; /* the command's */
    sigset_t original_mask;
    pid_t terminal_group; /* the terminal's foreground group at the start; -1: no terminal */
    struct sandbox sandbox;
    struct culvert_engine *engine;
    struct summary *summary;       /* of what was refused; NULL: nobody wants it */
    struct net_worker *net_worker; /* NULL: the engine drives the device itself */
    int tap;                       /* ours, to see whether the device is empty */
};

static int complain(const char *message)
{
    dprintf(STDERR_FILENO, "culvert: %s\n", message);
    return INIT_FAILED;
}

static void print_help(void)
{
    printf("usage: culvert run [OPTIONS] [--] COMMAND [ARG...]\n"
           "Runs COMMAND on a network of its own, and exits with its status.\n\n");
    options_print(stdout, CONFIG_RUN);
}

/* ---- before ---- */

/* 0: go on. Otherwise `*ret_status` is the exit status. */
static int configure(struct run *run, char **argv, int *ret_status)
{
    const struct command_line *line = &run->line;
    struct culvert_error error;
    int used = options_parse(line->argc, line->argv, line->command, run->config, &error);

    *ret_status = INIT_FAILED;
    if (used == OPTIONS_HELP) {
        print_help();
        *ret_status = 0;
        return -1;
    }
    if (used < 0)
        return complain(error.message);
    if (used == line->argc)
        return complain("run: the command is missing; write culvert run [OPTIONS] -- COMMAND");
    if (config_finish(run->config, &error) < 0) {
        dprintf(STDERR_FILENO, "culvert: --%s\n", error.message);
        return -1;
    }
    culvert_config_set(run->config, "ipv6", config_ipv6_offered(run->config) ? "on" : "off", NULL);
    run->argv = argv + used;
    return 0;
}

static void block_signals(sigset_t *ret_original)
{
    static const int signals[] = {SIGCHLD, SIGTERM, SIGHUP,  SIGUSR1,
                                  SIGUSR2, SIGINT,  SIGQUIT, SIGPIPE};
    sigset_t blocked;

    sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaddset(&blocked, signals[i]);
    sigprocmask(SIG_BLOCK, &blocked, ret_original);
    signal(SIGCHLD, SIG_DFL);
}

/* The command decides alone when its stdin and stdout end: culvert holds neither. */
static void release_stdio(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return;
    dup2(fd, STDIN_FILENO);
    dup2(fd, STDOUT_FILENO);
    close(fd);
}

/* ---- meanwhile ---- */

static void print_failure(void *arg, const char *message)
{
    (void)arg;
    dprintf(STDERR_FILENO, "culvert: note: %s\n", message);
}

/* -p auto: what the command listens on now is published. */
static void follow_listeners(struct run *run)
{
    struct ingress_listener listeners[INGRESS_LISTENERS_MAX];
    size_t count = listeners_of(run->sandbox.init, run->config, listeners);

    ingress_follow(run->engine, listeners, count);
    if (!run->config->quiet)
        ingress_failures(run->engine, print_failure, NULL);
}

/* The next signal; meanwhile listeners are followed, if that is wanted. */
static int await_signal(struct run *run, const sigset_t *awaited)
{
    struct timespec interval = {0, FOLLOW_FIRST_NS};

    if (!run->config->publish_auto)
        return sigwaitinfo(awaited, NULL);
    for (;;) {
        int signal = sigtimedwait(awaited, NULL, &interval);

        if (signal >= 0 || errno != EAGAIN)
            return signal;
        follow_listeners(run);
        interval = (struct timespec){1, 0};
    }
}

/* Until the init has ended; the command's exit status. */
static int supervise(struct run *run)
{
    sigset_t awaited;

    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGHUP);
    sigaddset(&awaited, SIGUSR1);
    sigaddset(&awaited, SIGUSR2);
    for (;;) {
        int signal = await_signal(run, &awaited), status;

        if (signal == SIGCHLD && waitpid(run->sandbox.init, &status, WNOHANG) == run->sandbox.init)
            return init_exit_status(status);
        if (signal == SIGTERM || signal == SIGHUP)
            kill(run->sandbox.init, signal);
        if (signal == SIGUSR1)
            report_counters(run->engine);
        if (signal == SIGUSR2) {
            reopen_events(run->engine);
            reload_policy(run->engine, &run->line, run->config->quiet);
        }
    }
}

/* ---- the whole ---- */

/* The device's descriptor (taken over) goes to the engine, or to a NetWorker between the two. 0 or
 * negative errno. */
static int attach(struct run *run, int take_tap)
{
    int r = 0;

    if (run->config->net_worker == CONFIG_NET_WORKER_THREAD) {
        run->net_worker =
            net_worker_start(culvert_engine_shared_state(run->engine), take_tap, run->config->mtu);
        r = run->net_worker ? 0 : -errno;
    } else {
        r = culvert_engine_attach_tap(run->engine, take_tap);
    }
    if (r < 0)
        close(take_tap);
    return r;
}

static void watch_refusals(struct run *run)
{
    run->summary = run->config->quiet ? NULL : summary_new();
    if (run->summary)
        culvert_engine_set_event_callback(run->engine, summary_note, run->summary);
}

/* Gives the guest's device to the engine and starts it. 0, or an exit status. */
static int start_engine(struct run *run)
{
    struct culvert_error error;
    int r;

    run->engine = culvert_engine_new(run->config, &error);
    if (!run->engine)
        return complain(error.message);
    watch_refusals(run);
    run->tap = sandbox_take_tap(&run->sandbox);
    if (run->tap < 0)
        return INIT_FAILED; /* the child has said why */
    r = fcntl(run->tap, F_DUPFD_CLOEXEC, 0);
    r = r < 0 ? -errno : attach(run, r);
    if (r < 0) {
        dprintf(STDERR_FILENO, "culvert: cannot drive the TAP device: %s\n", strerror(-r));
        return INIT_FAILED;
    }
    r = culvert_engine_start(run->engine);
    if (r < 0) {
        dprintf(STDERR_FILENO, "culvert: cannot start the engine: %s\n", strerror(-r));
        return INIT_FAILED;
    }
    return 0;
}

/* The last datagrams that the command sent leave before the engine ends. An engine that is too busy
 * for that within 20 ms loses them, as any network may. */
static void await_empty_device(int tap)
{
    struct pollfd poll_fd = {.fd = tap, .events = POLLIN};

    for (int i = 0; i < 100 && poll(&poll_fd, 1, 0) > 0; i++)
        usleep(200);
}

static void stop_engine(struct run *run)
{
    await_empty_device(run->tap);
    culvert_engine_drain(run->engine, 2000);
    run->net_worker = net_worker_stop(run->net_worker);
    culvert_engine_stop(run->engine);
}

/* An interactive shell inside takes the terminal's foreground, and cannot give it back to a group
 * it does not see. A foreground whose group has nobody left was inside; any other is somebody's
 * since, and culvert a job in the background. */
static void restore_terminal(pid_t group)
{
    pid_t now = tcgetpgrp(STDERR_FILENO);
    sigset_t ttou;

    if (group < 0 || now <= 1 || kill(-now, 0) == 0 || errno != ESRCH)
        return;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    sigprocmask(SIG_BLOCK, &ttou, NULL);
    tcsetpgrp(STDERR_FILENO, group);
}

static int run_sandboxed(struct run *run)
{
    struct culvert_error error;
    int status;

    if (sandbox_begin(&run->sandbox, run->config, run->argv, &run->original_mask, &error) < 0)
        return complain(error.message);
    release_stdio();
    raise_descriptor_limit(); /* the command, cloned before, keeps the limit it was given */
    status = start_engine(run);
    if (status != 0) {
        close(run->sandbox.peer); /* the child ends by itself */
        waitpid(run->sandbox.init, NULL, 0);
        return status;
    }
    if (run->config->verbose) {
        report_facts(run->config);
        report_withheld(run->engine);
    }
    sandbox_go(&run->sandbox);
    status = supervise(run);
    restore_terminal(run->terminal_group);
    stop_engine(run);
    report_summary(run->summary);
    (void)report_learnt(run->engine, run->config); /* the exit status is the command's */
    if (run->config->verbose)
        report_counters(run->engine);
    return status;
}

int cli_run(int argc, char **argv)
{
    struct run run = {
        .line = {argc, (const char *const *)argv, CONFIG_RUN},
        .config = culvert_config_new(),
        .tap = -1,
    };
    int status;

    if (!run.config)
        return complain(strerror(errno));
    if (configure(&run, argv, &status) == 0) {
        ensure_stdio();
        block_signals(&run.original_mask);
        run.terminal_group = tcgetpgrp(STDERR_FILENO);
        status = run_sandboxed(&run);
    }
    net_worker_stop(run.net_worker);
    culvert_engine_free(run.engine);
    summary_free(run.summary);
    close_fd(run.tap);
    culvert_config_free(run.config);
    return status;
}
