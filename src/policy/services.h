/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_SERVICES_H
#define POLICY_SERVICES_H

/* The compiled form of "which of these rules is the first for this protocol and port".
 *
 * A service is protocol and port as one number, so a rule covers a few ranges of numbers, and a
 * list of rules becomes a table of spans, each with the first rule that covers it. */

#include <stddef.h>
#include <stdint.h>

#include "policy/rule.h"

#define NO_RULE UINT32_MAX

/* Rules by number, smallest first; the table is for those handed to service_builder_add(). */
struct service_span {
    uint32_t first; /* up to the next span's */
    uint32_t rule;  /* or NO_RULE */
};

/* All zero: a table with no rule. */
struct service_table {
    uint32_t begin, count; /* in the pool */
    uint32_t lowest;       /* a bound: no rule of this table has a smaller number */
};

/* Where all tables of a policy keep their spans. */
struct service_pool {
    struct service_span *spans;
    size_t count, capacity;
};

struct service_range {
    uint32_t first, last, rule;
};

/* Collects the rules of one table after the other; reused for all. */
struct service_builder {
    struct service_range *ranges;
    size_t count, capacity;
    uint32_t *edges; /* scratch: where spans begin */
    uint32_t *next;  /* scratch: the next span that has no rule yet */
    uint32_t *owner; /* scratch: the rule of each span */
    size_t edge_capacity;
};

uint32_t service_number(enum policy_protocol protocol, uint16_t port);

/* Rules must come in ascending order of number. 0 or -ENOMEM. */
int service_builder_add(struct service_builder *builder, const struct rule *rule, uint32_t number);
/* Makes the table of what was added since the last call. 0 or -ENOMEM. */
int service_builder_finish(struct service_builder *builder, struct service_pool *pool,
                           struct service_table *ret);
void service_builder_clear(struct service_builder *builder);
void service_pool_clear(struct service_pool *pool);

/* The first rule for `service`, or NO_RULE; `best` if no rule of the table comes before that. */
uint32_t service_table_first(const struct service_pool *pool, const struct service_table *table,
                             uint32_t service, uint32_t best);

#endif
