/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_PEEK_UDP_H
#define ENGINE_PEEK_UDP_H

/* Holding a UDP flow's first datagrams until they tell the name it is meant for. Theory of
 * operation: peek_udp.c. */

#include <stdbool.h>

#include "stack/stack.h"

struct culvert_engine;
struct peek_udp; /* of one engine */

/* NULL: ENOMEM, or ENOSYS where the TLS library cannot open Initials. Made before the relay has any
 * peer, freed after the relay. */
struct peek_udp *peek_udp_new(struct culvert_engine *engine);
struct peek_udp *peek_udp_free(struct peek_udp *peek);

/* A datagram of a flow that is, or was, looked into: it is sent, held or refused here. False: there
 * is no such flow. */
bool peek_udp_input(struct peek_udp *peek, const struct udp_datagram *datagram);
/* The first datagram of a flow whose verdict is POLICY_NEED_NAME. */
void peek_udp_begin(struct peek_udp *peek, const struct udp_datagram *datagram);
/* The policy was replaced. False: no flow under this key was looked into and admitted. True:
 * *ret_allowed tells whether what admitted it still does. */
bool peek_udp_rejudge(struct peek_udp *peek, const struct flow_key *key, bool *ret_allowed);

#endif
