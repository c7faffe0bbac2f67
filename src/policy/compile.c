/* SPDX-License-Identifier: Apache-2.0 */

/* Compiling rules into a policy.
 *
 * Rules are numbered in order, the profile's last, and each target of each rule is sorted into the
 * form it is looked up in: prefixes into the prefix index of their direction, groups and `any` into
 * a table of services each, names into name_rules (name_compile.c). A set counts as its content. */

#include "policy/compile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/copies.h"

static const struct ip_prefix ALL_IPV4 = {.address = {.bytes = {[10] = 0xff, [11] = 0xff}},
                                          .length = 96};

/* ---- what rules come to ---- */

static int summarise(const struct build *build, const struct rule *rule, int64_t wall_clock,
                     struct rule_summary *ret)
{
    struct rule_summary summary = {.live = rule->expires > wall_clock};
    for (size_t i = 0; i < rule->target_count; i++) {
        const struct rule_target *target = &rule->targets[i];
        const struct target_set *set = NULL;
        if (target->kind == RULE_TARGET_SET &&
            !(set = builder_find_set(build->builder, target->set)))
            return -EINVAL;
        summary.any |= target->kind == RULE_TARGET_ANY || (set && set->any);
        summary.names |= target->kind == RULE_TARGET_NAME || (set && set->name_count > 0);
        if (target->kind == RULE_TARGET_GROUP)
            summary.groups |= (unsigned)target->group;
        if (set)
            summary.groups |= set->groups;
    }
    *ret = summary;
    return 0;
}

static int summarise_all(struct build *build, int64_t wall_clock)
{
    build->policy->expires = RULE_NEVER_EXPIRES;
    build->summaries = calloc(build->count + 1u, sizeof *build->summaries);
    if (!build->summaries)
        return -ENOMEM;
    for (uint32_t i = 0; i < build->count; i++) {
        const struct rule *rule = &build->rules[i];
        int r = summarise(build, rule, wall_clock, &build->summaries[i]);
        if (r < 0)
            return r;
        if (build->summaries[i].live && rule->expires < build->policy->expires)
            build->policy->expires = rule->expires;
    }
    return 0;
}

static bool is_live(const struct build *build, enum policy_direction direction, uint32_t number)
{
    return build->rules[number].direction == direction && build->summaries[number].live;
}

/* ---- groups and `any` ---- */

static bool has_kind(const struct rule_summary *summary, unsigned kind)
{
    return kind == TARGET_KIND_ANY ? summary->any : (summary->groups >> kind & 1) != 0;
}

static int build_kind(struct build *build, enum policy_direction direction, unsigned kind,
                      bool allow, struct service_table *ret)
{
    for (uint32_t i = 0; i < build->count; i++) {
        const struct rule *rule = &build->rules[i];
        if (is_live(build, direction, i) && (rule->action == POLICY_ALLOW) == allow &&
            has_kind(&build->summaries[i], kind) &&
            service_builder_add(&build->services, rule, i) < 0)
            return -ENOMEM;
    }
    return service_builder_finish(&build->services, &build->policy->pool, ret);
}

/* ---- prefixes ---- */

int build_borders(const struct build *build, struct prefix_entries *entries)
{
    int r = prefix_entries_add_border(entries, &ALL_IPV4);
    for (size_t i = 0; i < build->policy->nat64_count && r == 0; i++)
        r = prefix_entries_add_border(entries, &build->policy->nat64[i]);
    return r;
}

/* A NAT64 address is judged as the IPv4 address it carries, so an allow for a larger IPv6 prefix
 * does not reach it; a refusal does. Hence a border at each NAT64 prefix, within which refusals are
 * repeated. */
static int add_nat64_refusals(struct build *build, const struct ip_prefix *prefix, uint32_t number)
{
    int r = 0;
    if (build->rules[number].action == POLICY_ALLOW)
        return 0;
    for (size_t i = 0; i < build->policy->nat64_count && r == 0; i++) {
        const struct ip_prefix *nat64 = &build->policy->nat64[i];
        if (prefix->length < 96 && ip_prefix_contains(prefix, &nat64->address))
            r = prefix_entries_add(&build->entries, nat64, number);
    }
    return r;
}

static int add_prefixes(struct build *build, const struct ip_prefix *prefixes, size_t count,
                        uint32_t number)
{
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i++) {
        r = prefix_entries_add(&build->entries, &prefixes[i], number);
        if (r == 0)
            r = add_nat64_refusals(build, &prefixes[i], number);
    }
    return r;
}

static int collect_rule_prefixes(struct build *build, uint32_t number)
{
    const struct rule *rule = &build->rules[number];
    int r = 0;
    for (size_t i = 0; i < rule->target_count && r == 0; i++) {
        const struct rule_target *target = &rule->targets[i];
        const struct target_set *set;
        if (target->kind == RULE_TARGET_PREFIX) {
            r = add_prefixes(build, &target->prefix, 1, number);
        } else if (target->kind == RULE_TARGET_SET) {
            set = builder_find_set(build->builder, target->set);
            r = add_prefixes(build, set->prefixes, set->prefix_count, number);
        }
    }
    return r;
}

static int build_prefixes(struct build *build, enum policy_direction direction,
                          struct prefix_index *index)
{
    build->entries.count = 0;
    int r = build_borders(build, &build->entries);
    for (uint32_t i = 0; i < build->count && r == 0; i++) {
        if (is_live(build, direction, i))
            r = collect_rule_prefixes(build, i);
    }
    if (r < 0)
        return r;
    return prefix_index_build(index, &build->entries, build->rules, &build->services,
                              &build->policy->pool);
}

/* ---- a direction ---- */

/* Published ports admit everyone until there is a `from` rule, and a rule that has expired opens
 * nothing; egress needs a rule always. */
static enum policy_action fallback_of(const struct build *build, enum policy_direction direction)
{
    if (direction == POLICY_EGRESS)
        return POLICY_DENY;
    for (uint32_t i = 0; i < build->count; i++) {
        if (build->rules[i].direction == POLICY_INGRESS)
            return POLICY_DENY;
    }
    return POLICY_ALLOW;
}

static int build_direction(struct build *build, enum policy_direction direction)
{
    struct direction *d = &build->policy->directions[direction];
    d->fallback = fallback_of(build, direction);
    int r = build_prefixes(build, direction, &d->prefixes);
    for (unsigned kind = 0; kind < TARGET_KINDS && r == 0; kind++) {
        r = build_kind(build, direction, kind, true, &d->allow[kind]);
        if (r == 0)
            r = build_kind(build, direction, kind, false, &d->refuse[kind]);
    }
    return r;
}

/* DESIGN §6, DNS: which rules are about every name. */
static void build_query_rules(struct build *build)
{
    struct policy *policy = build->policy;
    policy->query_allow = policy->query_refuse = NO_RULE;
    for (uint32_t i = build->count; i-- > 0;) {
        const struct rule *rule = &build->rules[i];
        const struct rule_summary *summary = &build->summaries[i];
        if (!is_live(build, POLICY_EGRESS, i))
            continue;
        if (rule->action == POLICY_ALLOW &&
            (summary->any || (summary->groups & RULE_GROUPS_WITH_NAMES)))
            policy->query_allow = i;
        if (rule->action != POLICY_ALLOW && summary->any && rule_is_for_every_service(rule))
            policy->query_refuse = i;
    }
}

/* ---- the policy ---- */

static int copy_rules(const struct build *build)
{
    struct policy *policy = build->policy;
    policy->rules = calloc(build->count + 1u, sizeof *policy->rules);
    if (!policy->rules)
        return -ENOMEM;
    for (uint32_t i = 0; i < build->count; i++) {
        const struct rule *rule = &build->rules[i];
        struct compiled_rule *to = &policy->rules[policy->rule_count++];
        to->action = rule->action;
        if (copy_text(rule->text, &to->text) < 0 || copy_text(rule->id, &to->id) < 0 ||
            copy_text(rule->where, &to->where) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* What the policy keeps besides the compiled form. */
static int copy_facts(const struct build *build)
{
    const struct policy_builder *builder = build->builder;
    struct policy *policy = build->policy;
    if (copy_array(builder->nat64, builder->nat64_count, sizeof *policy->nat64, &policy->nat64) <
            0 ||
        copy_array(builder->host_addresses, builder->host_address_count,
                   sizeof *policy->host_addresses, &policy->host_addresses) < 0 ||
        copy_array(builder->hosts, builder->host_count, sizeof *policy->names.hosts,
                   &policy->names.hosts) < 0)
        return -ENOMEM;
    policy->nat64_count = builder->nat64_count;
    policy->host_address_count = builder->host_address_count;
    policy->names.host_count = builder->host_count;
    return copy_rules(build);
}

static int compile(struct policy *policy, const struct policy_builder *builder, int64_t wall_clock)
{
    struct build build = {.builder = builder, .policy = policy};
    struct rule *rules = builder_rules(builder, &build.count);
    if (!rules)
        return -ENOMEM;
    build.rules = rules;
    int r = summarise_all(&build, wall_clock);
    if (r == 0)
        r = copy_facts(&build);
    if (r == 0)
        r = build_direction(&build, POLICY_EGRESS);
    if (r == 0)
        r = build_direction(&build, POLICY_INGRESS);
    if (r == 0)
        r = build_names(&build);
    if (r == 0)
        build_query_rules(&build);
    service_builder_clear(&build.services);
    prefix_entries_clear(&build.entries);
    free(build.summaries);
    free(rules);
    return r;
}

struct policy *policy_build_at(const struct policy_builder *builder, uint32_t generation,
                               int64_t wall_clock)
{
    struct policy *policy = calloc(1, sizeof *policy);
    if (!policy)
        return NULL;
    policy->generation = generation;
    int r = compile(policy, builder, wall_clock);
    if (r < 0) {
        policy_free(policy);
        errno = -r;
        return NULL;
    }
    return policy;
}

struct policy *policy_build(const struct policy_builder *builder, uint32_t generation)
{
    return policy_build_at(builder, generation, INT64_MIN);
}

void policy_set_generation(struct policy *policy, uint32_t generation)
{
    policy->generation = generation;
}

struct policy *policy_free(struct policy *policy)
{
    if (!policy)
        return NULL;
    for (uint32_t i = 0; i < policy->rule_count; i++) {
        free(policy->rules[i].text);
        free(policy->rules[i].id);
        free(policy->rules[i].where);
    }
    free(policy->rules);
    prefix_index_clear(&policy->directions[POLICY_EGRESS].prefixes);
    prefix_index_clear(&policy->directions[POLICY_INGRESS].prefixes);
    name_rules_clear(&policy->names);
    service_pool_clear(&policy->pool);
    free(policy->nat64);
    free(policy->host_addresses);
    free(policy);
    return NULL;
}
