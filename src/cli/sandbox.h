/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SANDBOX_H
#define CLI_SANDBOX_H

/* The command's side of `culvert run`: namespaces, a TAP device named eth0, addresses, files, and
 * the init that will start the command. */

#include <signal.h>
#include <sys/types.h>

#include "engine/config.h"

struct sandbox {
    pid_t init; /* PID 1 of the namespaces, as seen from here */
    int peer;
};

/* Begins, in a child that says itself on stderr what goes wrong. `config` is checked and has IPv6
 * on or off. 0, or negative errno with `error` filled. */
int sandbox_begin(struct sandbox *ret, const struct culvert_config *config, char *const *argv,
                  const sigset_t *mask, struct culvert_error *error);
/* Waits for the TAP device; the descriptor is the caller's. -EPIPE: the child failed, has said why,
 * and its exit status is to be awaited. */
int sandbox_take_tap(struct sandbox *sandbox);
/* The engine runs: the command may start. */
void sandbox_go(struct sandbox *sandbox);

#endif
