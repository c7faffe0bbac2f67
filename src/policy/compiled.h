/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_COMPILED_H
#define POLICY_COMPILED_H

/* A built policy, as the compiler makes it and the verdict reads it. Immutable once built. */

#include "policy/name_rules.h"
#include "policy/policy.h"
#include "policy/prefixes.h"
#include "policy/services.h"

#define TARGET_KINDS    9 /* the groups, by the number of their bit, and `any` */
#define TARGET_KIND_ANY 8

/* The rules of one direction.
 *
 * Rules that allow and rules that refuse stand apart where the floor makes a difference: for groups
 * and `any`. Rules that name addresses need no such care: whoever names an address means it. */
struct direction {
    struct prefix_index prefixes;
    struct service_table allow[TARGET_KINDS];
    struct service_table refuse[TARGET_KINDS];
    enum policy_action fallback; /* where no rule matches */
};

struct compiled_rule {
    enum policy_action action;
    char *text, *id, *where; /* id and where may be NULL */
};

struct policy {
    uint32_t generation;
    int64_t expires;
    uint32_t rule_count;
    struct compiled_rule *rules;
    struct direction directions[2]; /* by enum policy_direction */
    struct name_rules names;
    /* For DNS: the first egress rule that allows `any` or a group, and the first that refuses `any`
     * without protocol and ports. NO_RULE: none. */
    uint32_t query_allow, query_refuse;
    struct service_pool pool;
    struct ip_prefix *nat64; /* /96 each; the well-known one is the first */
    size_t nat64_count;
    struct ip_address *host_addresses;
    size_t host_address_count;
};

#endif
