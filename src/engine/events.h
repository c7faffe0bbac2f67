/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_EVENTS_H
#define ENGINE_EVENTS_H

/* Events, folded: what is alike within a second is told once, with its count. Poll thread only. */

#include <culvert/events.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "base/timers.h"
#include "policy/policy.h"
#include "stack/stack.h"
#include "wire/dns.h"

struct events;

/* What happened, as it is kept until it is told. */
struct event {
    enum culvert_event_kind kind;
    enum counter reason;
    enum policy_direction direction;
    struct flow_key key; /* protocol 0: no flow; DNS_REMOVED: `remote` is the address */
    uint32_t rule;       /* UINT32_MAX: none */
    uint32_t generation;
    enum culvert_event_name_source name_source;
    struct dns_name name;
    bool name_admits; /* an allow by this name would let the flow pass */
    uint16_t question_type;
    uint64_t time; /* nanoseconds since 1970 */
};

/* `tell` is called with each event, or each batch of `count` alike; from within the calls below and
 * a timer. NULL: ENOMEM. `key` is secret and random: the guest chooses what is hashed. */
struct events *events_new(struct timers *timers, struct counters *counters, const uint64_t key[2],
                          void (*tell)(void *ctx, const struct event *event, uint64_t count),
                          void *ctx);
struct events *events_free(struct events *events);

void events_note(struct events *events, const struct event *event, uint64_t now);
/* Tells at once what was counted only: the policy whose rules they name is about to go, or the
 * engine ends. */
void events_flush(struct events *events, uint64_t now);

#endif
