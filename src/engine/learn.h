/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_LEARN_H
#define ENGINE_LEARN_H

/* What a guest uses, as the rules that would allow it and nothing else (--learn). Poll thread, then
 * whoever has stopped it. */

#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "wire/address.h"
#include "wire/dns.h"

struct learn;

#define LEARN_TARGETS_MAX   8192
#define LEARN_ADDRESSES_MAX 64 /* not public, that one name leads to */
#define LEARN_REFUSALS_MAX  256

/* `key` is secret and random: the guest chooses what is hashed. NULL: ENOMEM. */
struct learn *learn_new(struct counters *counters, const uint64_t key[2]);
struct learn *learn_free(struct learn *learn);

/* A flow that was let through. */
struct learn_flow {
    uint8_t protocol; /* IPPROTO_TCP, _UDP; all else is ICMP */
    uint16_t port;
    struct ip_address address;
    bool is_public;              /* the address; if not, a rule by name must be widened to it */
    const struct dns_name *name; /* admits the flow; NULL: the address must */
    const struct dns_name *seen; /* goes with the address, but admits nothing; or NULL */
};

/* What there is no room for is counted. */
void learn_flow(struct learn *learn, const struct learn_flow *flow);
/* The resolver was asked. */
void learn_lookup(struct learn *learn);
/* It was refused all the same: `remedy` is the rule that would allow it, or NULL; `what` is told to
 * a reader. */
void learn_refusal(struct learn *learn, const char *remedy, const char *what);

/* The policy document, by malloc(); NULL: ENOMEM. `*ret_rules` is the number of its rules. With
 * `wildcards` three names of one parent become "*.PARENT", if all of that has one owner. */
char *learn_document(const struct learn *learn, bool wildcards, size_t *ret_rules);

#endif
