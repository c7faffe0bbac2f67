/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_SYSCALLS_H
#define HOST_SYSCALLS_H

/* Takes from the calling thread, and from whatever it starts, the system calls that lead out of a
 * network namespace without a capability. no_new_privs must be set. 0 or negative errno. */
int syscalls_restrict(void);

#endif
