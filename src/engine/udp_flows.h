/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_UDP_FLOWS_H
#define ENGINE_UDP_FLOWS_H

/* The UDP flows that are, or were, looked into for the name they are meant for: what is known of
 * each, and the datagrams that wait for a verdict. Theory of operation: peek_udp.c.
 *
 * A flow is here from the first datagram that is held back until its peer ends in the relay. There
 * are at most UDP_FLOWS_MAX, UDP_FLOWS_BYTES and UDP_FLOWS_PENDING of them; whose bound is exceeded
 * is for the caller to ask, and to mend. One thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/timers.h"
#include "engine/flow_records.h"
#include "inspect/quic_hello.h"
#include "stack/stack.h"

#define UDP_FLOWS_MAX     4096u
#define UDP_FLOWS_BYTES   ((size_t)8 << 20) /* of hellos and held datagrams */
#define UDP_FLOWS_PENDING 256u              /* with datagrams held */
#define UDP_FLOW_RECORDS  8u                /* names that one flow may bear */

struct udp_held {
    struct udp_held *next;
    struct udp_datagram datagram; /* holds a reference on its frame, which is nobody else's */
};

struct udp_flow {
    struct udp_flow *next_in_bucket;
    struct list by_use, pending; /* pending: on no list if nothing is held */
    struct flow_key key;
    bool admitted;                                 /* the relay knows the peer, and watches it */
    bool bears_none;                               /* it was admitted as bearing no name */
    uint32_t generation;                           /* of the policy that admitted it */
    struct flow_record *records[UDP_FLOW_RECORDS]; /* what admitted it */
    unsigned record_count;

    struct quic_hello hello;
    struct udp_held *first_held, *last_held;
    unsigned held_count;
    size_t held_bytes, bytes; /* bytes: as accounted for */
    struct timer patience;    /* from the first datagram held on */
};

struct udp_flows {
    struct udp_flow **buckets;
    uint32_t count, pending_count;
    size_t bytes;
    struct list by_use, pending; /* oldest first */
    uint64_t hash_key[2];
    struct timers *timers;
};

/* 0 or -ENOMEM. `hash_key` is secret: the guest chooses what is hashed. */
int udp_flows_init(struct udp_flows *flows, struct timers *timers, const uint64_t hash_key[2]);
/* All flows are removed. */
void udp_flows_fini(struct udp_flows *flows);

/* NULL: none. */
struct udp_flow *udp_flows_find(const struct udp_flows *flows, const struct flow_key *key);
/* A new one, with its timer set to call `impatient`. NULL: ENOMEM. */
struct udp_flow *udp_flows_add(struct udp_flows *flows, const struct flow_key *key,
                               void (*impatient)(void *arg, struct timer *timer, uint64_t now));
/* What it holds is dropped. */
void udp_flows_remove(struct udp_flows *flows, struct udp_flow *flow);
/* It was used: it is the youngest now. Accounts for what its hello holds, too. */
void udp_flows_touch(struct udp_flows *flows, struct udp_flow *flow);
/* The one to give way so that the bounds are kept; NULL: they are. Never `but`. */
struct udp_flow *udp_flows_excess(const struct udp_flows *flows, const struct udp_flow *but);

/* Holds `datagram`, whose frame the flow takes over. 0 or -ENOMEM (nothing is taken). */
int udp_flow_hold(struct udp_flows *flows, struct udp_flow *flow,
                  const struct udp_datagram *datagram, uint64_t until);
/* All that is held, in order, for the caller to free by udp_held_free(). */
struct udp_held *udp_flow_take_held(struct udp_flows *flows, struct udp_flow *flow);
/* One; returns the next. */
struct udp_held *udp_held_free(struct udp_held *held);
/* Forgets what admitted it. */
void udp_flow_forget_records(struct udp_flow *flow);

#endif
