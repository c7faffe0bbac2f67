/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_NAMESPACES_H
#define HOST_NAMESPACES_H

/* A child in user, network, mount and PID namespaces of its own, made by root or by an ordinary
 * user. Functions return 0 or negative errno with `message` (size bytes) saying the fault and,
 * where there is one, the mend. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Like fork(): returns the child's PID to the caller and 0 to the child, which is PID 1 of its
 * namespaces, holds every capability in them, keeps its uid and gid, and is killed when the calling
 * thread ends. Both get their end of a SOCK_SEQPACKET pair. The caller must be single-threaded.
 * With `uts`, the host name is the child's own too. */
pid_t namespaces_clone(bool uts, int *ret_peer, char *message, size_t size);

/* In the child: a /proc that shows its own processes. -EPERM where the surrounding container
 * forbids it; the old one then stays. */
int namespaces_mount_proc(void);

/* In the child: set-uid bits and file capabilities are ignored on everything that is mounted, so
 * that programs which have them start without instead of failing. Needs Linux 5.12; without it they
 * fail to start. */
int namespaces_ignore_setuid(void);

#endif
