/* SPDX-License-Identifier: Apache-2.0 */
#include "host/init.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/capabilities.h"
#include "host/drain.h"
#include "host/syscalls.h"

/* In the new child; stderr is the command's own. */
static _Noreturn void exec_command(const struct init_command *command)
{
    int r = capabilities_drop_all();

    if (r < 0) {
        dprintf(STDERR_FILENO, "culvert: cannot drop capabilities: %s\n", strerror(-r));
        _exit(INIT_FAILED);
    }
    r = syscalls_restrict();
    if (r < 0) {
        dprintf(STDERR_FILENO,
                "culvert: cannot keep the command from ways around its network: %s; the kernel "
                "needs CONFIG_SECCOMP_FILTER, and a surrounding container must allow seccomp(2)\n",
                strerror(-r));
        _exit(INIT_FAILED);
    }
    sigprocmask(SIG_SETMASK, command->mask, NULL);
    execvp(command->argv[0], command->argv);
    r = errno;
    dprintf(STDERR_FILENO, "culvert: %s: %s\n", command->argv[0],
            r == ENOENT ? "command not found" : strerror(r));
    _exit(r == ENOENT ? INIT_NOT_FOUND : INIT_NOT_EXECUTABLE);
}

int init_exit_status(int wait_status)
{
    return WIFSIGNALED(wait_status) ? INIT_SIGNALLED + WTERMSIG(wait_status)
                                    : WEXITSTATUS(wait_status);
}

/* Reaps what has ended. True when the command is among it. */
static bool reap(pid_t command, int *ret_status)
{
    bool ended = false;
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == command) {
            *ret_status = init_exit_status(status);
            ended = true;
        }
    }
    return ended;
}

static int supervise(pid_t command)
{
    sigset_t awaited;
    int status = INIT_FAILED;

    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGHUP);
    for (;;) {
        int signal = sigwaitinfo(&awaited, NULL);

        if (signal == SIGCHLD && reap(command, &status))
            return status;
        if (signal == SIGTERM || signal == SIGHUP)
            kill(command, signal);
    }
}

/* The command's leftovers end with it, and then their connections: what was written to a socket
 * before its owner exited is still delivered, as it would be without culvert. */
static void end_leftovers(void)
{
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    drain_tcp();
}

_Noreturn void init_run(const struct init_command *command)
{
    pid_t pid;
    int status;

    if (close_range(STDERR_FILENO + 1, UINT_MAX, 0) < 0) {
        dprintf(STDERR_FILENO, "culvert: cannot close descriptors: %s; Linux 5.9 is needed\n",
                strerror(errno));
        _exit(INIT_FAILED);
    }
    pid = fork();
    if (pid == 0)
        exec_command(command);
    if (pid < 0) {
        dprintf(STDERR_FILENO, "culvert: cannot start the command: %s\n", strerror(errno));
        _exit(INIT_FAILED);
    }
    prctl(PR_SET_NAME, "culvert-init");
    close_range(STDIN_FILENO, STDERR_FILENO, 0); /* the command alone decides when these end */
    status = supervise(pid);
    end_leftovers();
    _exit(status);
}
