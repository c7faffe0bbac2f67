/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_LEARN_TABLE_H
#define ENGINE_LEARN_TABLE_H

/* What learn.c gathers and learn_document.c writes. */

#include "engine/learn.h"

struct learnt {
    struct learnt *next; /* in its bucket */
    uint8_t protocol;
    struct dns_name name; /* lower case; len 0: by address */
    struct ip_address address;
    struct dns_name seen; /* with the address; len 0: none */
    uint16_t *ports;      /* in order; 0 for ICMP: none */
    size_t port_count;
    struct ip_address *inside; /* where else than to public addresses the name led */
    size_t inside_count;
};

struct learnt_refusal {
    char *remedy, *what; /* remedy NULL: none */
    uint64_t count;
};

#define LEARN_BUCKETS 4096u /* a power of two */

struct learn {
    struct counters *counters;
    uint64_t key[2];
    struct learnt *buckets[LEARN_BUCKETS];
    size_t count;
    size_t port_count; /* of all */
    bool looked_up;
    struct learnt_refusal refusals[LEARN_REFUSALS_MAX];
    size_t refusal_count;
};

/* In order, without doubles. False: ENOMEM. */
bool learnt_add_port(struct learnt *learnt, uint16_t port);
bool learnt_add_address(struct learnt *learnt, const struct ip_address *address);

#endif
