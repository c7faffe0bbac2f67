/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_JUDGING_H
#define POLICY_JUDGING_H

/* A verdict under way: what verdict.c has found out about a query when it asks name_verdict.c. */

#include "policy/compiled.h"

struct judging {
    const struct policy *policy;
    const struct policy_query *query;
    const struct direction *direction;
    uint32_t service;
    unsigned groups;   /* of the address */
    unsigned group;    /* the strongest of them: what an allow must name */
    bool is_protected; /* an allow of `any` does not hold */
    bool nat64;        /* then `carried` is the IPv4 address within */
    struct ip_address carried;
};

/* What the address is to an allow. Also used where there is no flow (query->name_state unused). */
struct judging judging_of(const struct policy *policy, const struct policy_world *world,
                          const struct policy_query *query);
/* The verdict of rule `rule`; NO_RULE: the default's, with the reason that can be found by address
 * alone. */
struct policy_verdict judging_verdict(const struct judging *judging, uint32_t rule);

/* The verdict where there are rules by name; `rule` is the first that matches by address. */
struct policy_verdict judge_by_name(const struct judging *judging, uint32_t rule);

#endif
