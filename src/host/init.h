/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_INIT_H
#define HOST_INIT_H

/* PID 1 of the command's namespaces: starts it, passes signals on, reaps, and ends everything when
 * the command ends. Exit statuses are a shell's. */

#include <signal.h>

enum init_status {
    INIT_FAILED = 125,         /* culvert itself */
    INIT_NOT_EXECUTABLE = 126, /* the command is there but cannot be started */
    INIT_NOT_FOUND = 127,
    INIT_SIGNALLED = 128, /* plus the signal's number */
};

struct init_command {
    char *const *argv;
    const sigset_t *mask; /* the signal mask it begins with */
};

/* Starts the command with stdin, stdout and stderr and nothing else, without any capability, and
 * waits for it. The calling process keeps no descriptor and never returns: it exits with the
 * command's status, which ends whatever is left in the PID namespace. SIGCHLD, SIGTERM and SIGHUP
 * must be blocked. */
_Noreturn void init_run(const struct init_command *command);

/* The exit status that stands for a wait status. */
int init_exit_status(int wait_status);

#endif
