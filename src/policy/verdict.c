/* SPDX-License-Identifier: Apache-2.0 */

/* The verdict: the smallest number among the rules that match.
 *
 * Every kind of target gives the first of its rules that holds for the service; the smallest of
 * those numbers decides. What the floor keeps out is never asked: an `allow` by group counts only
 * for the address's strongest group, an `allow` of `any` only where nothing protects the address.
 * Refusals count for every group the address has. Rules by name come in last, in name_verdict.c. */

#include "policy/address_groups.h"
#include "policy/judging.h"
#include "policy/rule.h"

/* From the one that must be named above all others downwards. */
static const enum policy_group STRONGEST_FIRST[] = {
    POLICY_METADATA, POLICY_HOST,    POLICY_MULTICAST, POLICY_LINK_LOCAL,
    POLICY_DNS,      POLICY_PRIVATE, POLICY_PUBLIC,    POLICY_SPECIAL,
};

#define FLOOR (POLICY_METADATA | POLICY_HOST | POLICY_MULTICAST | POLICY_LINK_LOCAL)

/* ---- what an address is ---- */

static bool is_zero(const struct ip_address *address)
{
    return address->be64[0] == 0 && address->be64[1] == 0;
}

/* A zero address in the world means that there is none. */
static bool is_one_of(const struct ip_address *address, const struct ip_address *a,
                      const struct ip_address *b)
{
    return !is_zero(address) && (ip_address_equal(address, a) || ip_address_equal(address, b));
}

static bool is_host_address(const struct policy *policy, const struct policy_world *world,
                            const struct ip_address *address)
{
    if (address_is_loopback_or_unspecified(address))
        return false;
    for (size_t i = 0; i < policy->host_address_count; i++) {
        if (ip_address_equal(&policy->host_addresses[i], address))
            return true;
    }
    return world->is_host_address && world->is_host_address(world->ctx, address);
}

/* The IPv4 address within a NAT64 address. False: it is none. */
static bool nat64_carries(const struct policy *policy, const struct ip_address *address,
                          struct ip_address *ret)
{
    for (size_t i = 0; i < policy->nat64_count; i++) {
        const struct ip_address *prefix = &policy->nat64[i].address;
        if (address->be64[0] == prefix->be64[0] && address->be32[2] == prefix->be32[2]) {
            *ret = ip_address_v4(address->be32[3]);
            return true;
        }
    }
    return false;
}

/* `carried`: the IPv4 address within, or NULL. Gateway and resolver are addresses on the guest's
 * own link: an address that merely carries theirs leads elsewhere. */
static unsigned groups_of(const struct policy *policy, const struct policy_world *world,
                          const struct ip_address *address, const struct ip_address *carried)
{
    unsigned groups = address_groups(carried ? carried : address);
    if (is_one_of(address, &world->gateway4, &world->gateway6))
        groups |= POLICY_HOST;
    else if (is_one_of(address, &world->dns4, &world->dns6))
        groups |= POLICY_DNS;
    else if (is_host_address(policy, world, address) ||
             (carried && is_host_address(policy, world, carried)))
        groups |= POLICY_HOST;
    return address_groups_normalise(groups);
}

unsigned policy_groups_of(const struct policy *policy, const struct policy_world *world,
                          const struct ip_address *address)
{
    struct ip_address carried;
    bool nat64 = nat64_carries(policy, address, &carried);
    return groups_of(policy, world, address, nat64 ? &carried : NULL);
}

bool policy_is_protected(const struct policy *policy, const struct policy_world *world,
                         const struct ip_address *address)
{
    return (policy_groups_of(policy, world, address) & (FLOOR | POLICY_SPECIAL)) != 0;
}

/* ---- which rule ---- */

static uint32_t first_of_groups(const struct judging *judging, const struct service_table *tables,
                                unsigned groups, uint32_t best)
{
    for (; groups; groups &= groups - 1) {
        unsigned kind = (unsigned)__builtin_ctz(groups);
        best = service_table_first(&judging->policy->pool, &tables[kind], judging->service, best);
    }
    return best;
}

static uint32_t first_of_any(const struct judging *judging, const struct service_table *tables,
                             uint32_t best)
{
    return service_table_first(&judging->policy->pool, &tables[TARGET_KIND_ANY], judging->service,
                               best);
}

static unsigned strongest_of(unsigned groups)
{
    size_t i = 0;
    while (!(groups & (unsigned)STRONGEST_FIRST[i]))
        i++;
    return (unsigned)STRONGEST_FIRST[i];
}

struct judging judging_of(const struct policy *policy, const struct policy_world *world,
                          const struct policy_query *query)
{
    struct judging judging = {
        .policy = policy,
        .query = query,
        .direction = &policy->directions[query->direction],
        .service = service_number(query->protocol, query->port),
    };
    judging.nat64 = nat64_carries(policy, &query->address, &judging.carried);
    judging.groups =
        groups_of(policy, world, &query->address, judging.nat64 ? &judging.carried : NULL);
    if (query->direction == POLICY_INGRESS && address_is_loopback_or_unspecified(&query->address))
        judging.groups = POLICY_HOST; /* a client on the host itself */
    judging.group = judging.groups;
    /* The floor is about where a guest may go; who comes to a published port is not under it. */
    if (query->direction == POLICY_EGRESS) {
        judging.group = strongest_of(judging.groups);
        judging.is_protected = (judging.groups & (FLOOR | POLICY_SPECIAL)) != 0;
    }
    return judging;
}

struct policy_verdict judging_verdict(const struct judging *judging, uint32_t rule)
{
    const struct direction *direction = judging->direction;
    if (rule != NO_RULE)
        return (struct policy_verdict){.action = judging->policy->rules[rule].action,
                                       .reason = POLICY_REASON_RULE,
                                       .rule = rule};
    struct policy_verdict verdict = {
        .action = direction->fallback, .reason = POLICY_REASON_DEFAULT, .rule = NO_RULE};
    /* Only an allow that the floor kept from matching is left to be found now. */
    uint32_t kept = first_of_groups(judging, direction->allow, judging->groups, NO_RULE);
    kept = first_of_any(judging, direction->allow, kept);
    if (kept != NO_RULE) {
        verdict.reason = POLICY_REASON_FLOOR;
        verdict.rule = kept;
    }
    return verdict;
}

/* The first rule that matches by address. */
static uint32_t first_by_address(const struct judging *judging)
{
    const struct direction *direction = judging->direction;
    const struct service_pool *pool = &judging->policy->pool;
    uint32_t rule = prefix_index_first(&direction->prefixes, pool, &judging->query->address,
                                       judging->service, NO_RULE);
    if (judging->nat64)
        rule = prefix_index_first(&direction->prefixes, pool, &judging->carried, judging->service,
                                  rule);
    rule = first_of_groups(judging, direction->refuse, judging->groups, rule);
    rule = first_of_any(judging, direction->refuse, rule);
    rule = first_of_groups(judging, direction->allow, judging->group, rule);
    return judging->is_protected ? rule : first_of_any(judging, direction->allow, rule);
}

struct policy_verdict policy_judge(const struct policy *policy, const struct policy_world *world,
                                   const struct policy_query *query)
{
    struct judging judging = judging_of(policy, world, query);
    uint32_t rule = first_by_address(&judging);
    if (query->direction == POLICY_EGRESS && policy->names.present)
        return judge_by_name(&judging, rule);
    return judging_verdict(&judging, rule);
}

/* ---- what a policy tells about itself ---- */

uint32_t policy_generation(const struct policy *policy)
{
    return policy->generation;
}

int64_t policy_expires(const struct policy *policy)
{
    return policy->expires;
}

bool policy_has_names(const struct policy *policy)
{
    return policy->names.present;
}

uint32_t policy_rule_count(const struct policy *policy)
{
    return policy->rule_count;
}

const char *policy_rule_text(const struct policy *policy, uint32_t rule)
{
    return rule < policy->rule_count ? policy->rules[rule].text : NULL;
}

const char *policy_rule_id(const struct policy *policy, uint32_t rule)
{
    return rule < policy->rule_count ? policy->rules[rule].id : NULL;
}

const char *policy_rule_where(const struct policy *policy, uint32_t rule)
{
    return rule < policy->rule_count ? policy->rules[rule].where : NULL;
}

const char *policy_group_name(enum policy_group group)
{
    return rule_group_name(group);
}

enum counter policy_verdict_counter(const struct policy_verdict *verdict)
{
    switch (verdict->reason) {
    case POLICY_REASON_DEFAULT:
        return COUNTER_policy_denied_default;
    case POLICY_REASON_FLOOR:
        return COUNTER_policy_denied_floor;
    case POLICY_REASON_UNPINNED:
        return COUNTER_policy_denied_unpinned;
    case POLICY_REASON_UNNAMED:
        return COUNTER_policy_denied_unnamed;
    default:
        return verdict->action == POLICY_DROP ? COUNTER_policy_dropped_rule
                                              : COUNTER_policy_denied_rule;
    }
}
