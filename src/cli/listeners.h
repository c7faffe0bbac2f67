/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_LISTENERS_H
#define CLI_LISTENERS_H

/* What the processes of a network namespace listen on, for `-p auto`. */

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "engine/config.h"
#include "engine/ingress.h"

/* Reads a table of /proc/net ("tcp", "tcp6", "udp", "udp6") and appends what can be reached from
 * outside: bound to no address or to one of `guests`. Ports picked by the kernel for clients of UDP
 * are left out. */
void listeners_scan(FILE *table, uint8_t protocol, const struct ip_address guests[2],
                    struct ingress_listener *ret, size_t *count);
/* All of the namespace that `pid` is in, each once; INGRESS_LISTENERS_MAX at most. */
size_t listeners_of(pid_t pid, const struct culvert_config *config, struct ingress_listener *ret);

#endif
