/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_INTERFACE_H
#define HOST_INTERFACE_H

/* An interface of the caller's network namespace, and what the host's own stack sees of it.
 * Functions return 0 or negative errno with `message` (size bytes) saying the fault and the mend.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Brings it up, with this MTU (or, unless `exactly`, at least this one); changes only what is not
 * so already. */
int interface_prepare(const char *name, uint32_t mtu, bool exactly, char *message, size_t size);

/* Keeps what comes in at the interface from the host's own stack, while packet sockets still see
 * it: a rule of nftables drops it behind them. Where there is no nftables it is enough if the
 * namespace has no other interface that is up, for then there is nowhere to go. Otherwise
 * -EOPNOTSUPP; the loopback: -EINVAL. */
int interface_seal(const char *name, char *message, size_t size);
/* Takes the rule away. */
int interface_unseal(const char *name, char *message, size_t size);

#endif
