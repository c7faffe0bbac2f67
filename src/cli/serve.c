/* SPDX-License-Identifier: Apache-2.0 */

/* Theory of operation
 *
 * The main thread sets up one engine with its front end, says that it is ready, and then waits for
 * signals; they are blocked everywhere else:
 *
 *     SIGTERM/INT  end: sockets and files that were made are removed, exit 0
 *     SIGHUP       read the policy's files again, open the file of --events anew (reload.c);
 *                  resolv.conf is followed without it
 *     SIGUSR1      the counters on stderr
 *     SIGPIPE      stays blocked: stdout and stderr may be pipes that nobody reads
 *     GUEST_GONE   from the engine's termination hook: with --once, or an inherited connection, the
 *                  end; otherwise the device itself is gone, which is a fault
 *
 * Exit statuses: 0, 1 (it cannot be served, or no longer), 2 (bad usage). */

#include "cli/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/options.h"
#include "cli/reload.h"
#include "cli/report.h"
#include "cli/summary.h"
#include "engine/config.h"

#define STATUS_FAILED 1
#define STATUS_USAGE  2
#define GUEST_GONE    SIGRTMIN

#define SYSTEMD_FIRST_FD 3 /* sd_listen_fds(3) */

struct serve {
    struct command_line line;
    struct culvert_config *config;
    struct culvert_engine *engine;
    pthread_t main_thread;
    bool pid_file_written;
    struct summary *summary; /* of what was refused; NULL: nobody wants it */
};

__attribute__((format(printf, 2, 3))) static int complain(int status, const char *format, ...)
{
    char message[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    dprintf(STDERR_FILENO, "culvert: %s\n", message);
    return status;
}

static void print_help(void)
{
    printf("usage: culvert serve [OPTIONS] FRONTEND\n"
           "Serves one guest. FRONTEND is one of --stream, --dgram, --vhost-user, --tap and\n"
           "--interface.\n\n");
    options_print(stdout, CONFIG_SERVE);
}

/* ---- before ---- */

/* A descriptor that systemd has not passed is a mistake in one of two files. */
static int check_activation(const struct config_frontend *frontend)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    long passed, number;

    if (!pid || !fds || strtol(pid, NULL, 10) != getpid() ||
        strncmp(frontend->where, "fd:", 3) != 0)
        return 0;
    passed = strtol(fds, NULL, 10);
    number = strtol(frontend->where + 3, NULL, 10);
    if (number >= SYSTEMD_FIRST_FD && number < SYSTEMD_FIRST_FD + passed)
        return 0;
    return complain(STATUS_USAGE,
                    "--%s %s: the service manager passed %ld sockets, from fd:%d on; name one of "
                    "them",
                    frontend->kind, frontend->where, passed, SYSTEMD_FIRST_FD);
}

static int check_frontend(const struct culvert_config *config)
{
    const struct config_frontend *frontend = &config->frontend;

    if (!frontend->kind)
        return complain(STATUS_USAGE, "serve: the front end is missing; write culvert serve "
                                      "--stream PATH, or one of --dgram, --vhost-user, --tap and "
                                      "--interface");
    if (config->publish_auto)
        return complain(STATUS_USAGE, "--publish auto: what a guest listens on is known to culvert "
                                      "run only; name the ports, as in --publish 8080:80");
    if (frontend->netns[0] && strcmp(frontend->kind, "tap") != 0 &&
        strcmp(frontend->kind, "interface") != 0)
        return complain(STATUS_USAGE,
                        "--netns %s: --%s is in no namespace; leave it out, or use --tap or "
                        "--interface",
                        frontend->netns, frontend->kind);
    if (config->ready_fd && fcntl(config->ready_fd, F_GETFD) < 0)
        return complain(STATUS_USAGE,
                        "--ready-fd %d: no such descriptor is open; open it as in %d>FILE",
                        config->ready_fd, config->ready_fd);
    return check_activation(frontend);
}

/* 0: go on. Otherwise `*ret_status` is the exit status. */
static int configure(struct serve *serve, int *ret_status)
{
    const struct command_line *line = &serve->line;
    struct culvert_config *config = serve->config;
    struct culvert_error error;
    int used = options_parse(line->argc, line->argv, line->command, config, &error);

    *ret_status = 0;
    if (used == OPTIONS_HELP) {
        print_help();
        return -1;
    }
    if (used < 0)
        *ret_status = complain(STATUS_USAGE, "%s", error.message);
    else if (used < line->argc)
        *ret_status =
            complain(STATUS_USAGE, "%s: serve takes options only; leave it out", line->argv[used]);
    else if (config_finish(config, &error) < 0)
        *ret_status = complain(STATUS_USAGE, "--%s", error.message);
    else
        *ret_status = check_frontend(config);
    if (*ret_status != 0)
        return -1;
    culvert_config_set(config, "ipv6", config_ipv6_offered(config) ? "on" : "off", NULL);
    return 0;
}

static void fill_signals(sigset_t *ret)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGPIPE};

    sigemptyset(ret);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaddset(ret, signals[i]);
    sigaddset(ret, GUEST_GONE);
}

static void block_signals(void)
{
    sigset_t signals;

    fill_signals(&signals);
    sigprocmask(SIG_BLOCK, &signals, NULL);
}

/* ---- ready ---- */

static int write_pid_file(struct serve *serve)
{
    const char *path = serve->config->pid_file;
    int fd;

    if (path[0] == '\0')
        return 0;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
        complain(0, "--pid-file %s: it cannot be written: %s", path, strerror(errno));
        close_fd(fd);
        return STATUS_FAILED;
    }
    close(fd);
    serve->pid_file_written = true;
    return 0;
}

/* sd_notify(3): a datagram to the socket the service manager names, '@' standing for an abstract
 * one. */
static void notify_service_manager(void)
{
    static const char text[] = "READY=1";
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    int fd;

    if (len < 2 || len > sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, len);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, text, sizeof text - 1, MSG_NOSIGNAL, (struct sockaddr *)&address,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}

static void say_ready(const struct culvert_config *config)
{
    static const char line[] = "ready\n";

    (void)!write(STDOUT_FILENO, line, sizeof line - 1);
    if (config->ready_fd) {
        (void)!write(config->ready_fd, line, sizeof line - 1);
        if (config->ready_fd > STDERR_FILENO)
            close(config->ready_fd);
    }
    notify_service_manager();
}

/* ---- the whole ---- */

/* The engine's termination hook, on its poll thread. */
static void guest_is_gone(void *arg)
{
    const struct serve *serve = arg;

    pthread_kill(serve->main_thread, GUEST_GONE);
}

/* Who learns wants to see what was refused even so. */
static void watch_refusals(struct serve *serve)
{
    if (serve->config->learn[0] == '\0' || serve->config->quiet)
        return;
    serve->summary = summary_new();
    if (serve->summary)
        culvert_engine_set_event_callback(serve->engine, summary_note, serve->summary);
}

static void tell_learnt(const struct serve *serve, int *status)
{
    report_summary(serve->summary);
    if (report_learnt(serve->engine, serve->config) < 0 && *status == 0)
        *status = STATUS_FAILED;
}

static int start(struct serve *serve)
{
    const struct config_frontend *frontend = &serve->config->frontend;
    struct culvert_error error;
    int r;

    serve->engine = culvert_engine_new(serve->config, &error);
    if (!serve->engine)
        return complain(STATUS_FAILED, "%s", error.message);
    watch_refusals(serve);
    r = culvert_engine_attach(serve->engine, frontend->kind, frontend->where, &error);
    if (r < 0)
        return complain(r == -EINVAL ? STATUS_USAGE : STATUS_FAILED, "--%s", error.message);
    culvert_shared_state_set_termination_hook(culvert_engine_shared_state(serve->engine),
                                              guest_is_gone, serve);
    r = culvert_engine_start(serve->engine);
    if (r < 0)
        return complain(STATUS_FAILED, "the engine cannot be started: %s", strerror(-r));
    return write_pid_file(serve);
}

static bool is_device(const struct config_frontend *frontend)
{
    return strcmp(frontend->kind, "tap") == 0 || strcmp(frontend->kind, "interface") == 0;
}

/* Until it is to end; the exit status. */
static int supervise(struct serve *serve)
{
    const struct config_frontend *frontend = &serve->config->frontend;
    sigset_t awaited;

    fill_signals(&awaited);
    sigdelset(&awaited, SIGPIPE);
    for (;;) {
        int signal = sigwaitinfo(&awaited, NULL);

        if (signal == SIGTERM || signal == SIGINT)
            return 0;
        if (signal == SIGHUP) {
            reopen_events(serve->engine);
            reload_policy(serve->engine, &serve->line, serve->config->quiet);
        }
        if (signal == SIGUSR1)
            report_counters(serve->engine);
        if (signal == GUEST_GONE && is_device(frontend))
            return complain(STATUS_FAILED, "--%s %s: the interface is gone", frontend->kind,
                            frontend->where);
        if (signal == GUEST_GONE)
            return 0;
    }
}

static int serve_guest(struct serve *serve)
{
    int status = start(serve);

    if (status != 0)
        return status;
    if (serve->config->verbose) {
        report_facts(serve->config);
        report_withheld(serve->engine);
    }
    say_ready(serve->config);
    status = supervise(serve);
    culvert_engine_drain(serve->engine, 2000);
    culvert_engine_stop(serve->engine);
    tell_learnt(serve, &status);
    if (serve->config->verbose)
        report_counters(serve->engine);
    return status;
}

int cli_serve(int argc, char **argv)
{
    struct serve serve = {
        .line = {argc, (const char *const *)argv, CONFIG_SERVE},
        .config = culvert_config_new(),
        .main_thread = pthread_self(),
    };
    int status;

    if (!serve.config)
        return complain(STATUS_FAILED, "%s", strerror(errno));
    if (configure(&serve, &status) == 0) {
        ensure_stdio();
        block_signals();
        raise_descriptor_limit();
        status = serve_guest(&serve);
    }
    culvert_engine_free(serve.engine);
    summary_free(serve.summary);
    if (serve.pid_file_written)
        unlink(serve.config->pid_file);
    culvert_config_free(serve.config);
    return status;
}
