/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_PREFIXES_H
#define POLICY_PREFIXES_H

/* The compiled form of every rule that names an address or CIDR: from an address to the first rule
 * that holds for it and a service. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/services.h"
#include "wire/address.h"

typedef unsigned __int128 prefix_key; /* an address as a number */

/* One target of one rule, before compilation. */
struct prefix_entry {
    prefix_key first;
    uint32_t rule; /* or NO_RULE: a border only */
    uint8_t length;
    bool border;
};

struct prefix_entries {
    struct prefix_entry *list;
    size_t count, capacity;
};

/* A distinct prefix; the rules that name exactly it are its table. */
struct prefix_node {
    struct service_table services;
    uint32_t parent; /* the next larger prefix around it, or NO_NODE */
};

struct prefix_index {
    /* Sorted: from starts[i] to the next start, nodes_at[i] is the smallest prefix around. */
    prefix_key *starts;
    uint32_t *nodes_at;
    size_t start_count;
    struct prefix_node *nodes;
    size_t node_count;
};

prefix_key prefix_key_of(const struct ip_address *address);

/* 0 or -ENOMEM. */
int prefix_entries_add(struct prefix_entries *entries, const struct ip_prefix *prefix,
                       uint32_t rule);
/* Rules of larger prefixes do not hold within `prefix`. */
int prefix_entries_add_border(struct prefix_entries *entries, const struct ip_prefix *prefix);
void prefix_entries_clear(struct prefix_entries *entries);

/* Compiles (and sorts `entries`). 0 or -ENOMEM; prefix_index_clear() in any case. */
int prefix_index_build(struct prefix_index *index, struct prefix_entries *entries,
                       const struct rule *rules, struct service_builder *builder,
                       struct service_pool *pool);
void prefix_index_clear(struct prefix_index *index);

/* The first rule before `best` that holds for address and service, or `best`. */
uint32_t prefix_index_first(const struct prefix_index *index, const struct service_pool *pool,
                            const struct ip_address *address, uint32_t service, uint32_t best);
/* Does `test` hold for a rule that is the first of its prefix for some service, among the prefixes
 * around `address`? */
bool prefix_index_any(const struct prefix_index *index, const struct service_pool *pool,
                      const struct ip_address *address,
                      bool (*test)(const void *ctx, uint32_t rule), const void *ctx);

#endif
