/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_DRAIN_H
#define HOST_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

/* Waits, after the last process of a network namespace has ended, until the bytes that its closed
 * TCP sockets still have to send are acknowledged. Gives up when nothing moves for two seconds, or
 * when SIGTERM or SIGHUP (blocked) comes. At once when there is nothing to wait for. */
void drain_tcp(void);

/* Of one line of /proc/net/tcp: has this socket been closed with bytes or a FIN unacknowledged, and
 * how many bytes? Anything else than such a line is false. */
bool drain_line_pending(const char *line, uint64_t *ret_bytes);

#endif
