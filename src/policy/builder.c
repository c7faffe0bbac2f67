/* SPDX-License-Identifier: Apache-2.0 */

/* Collecting rules, and compiling them into a policy.
 *
 * The builder keeps rules as parsed. policy_build() numbers them (the profile's last) and sorts
 * each target of each rule into the form it is looked up in: prefixes into the prefix index of its
 * direction, groups and `any` into a table of services each. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/compiled.h"
#include "policy/rule.h"
#include "policy/suggest.h"

struct rule_list {
    struct rule *rules;
    size_t count, capacity;
};

struct policy_builder {
    struct rule_list rules;
    struct rule_list profile;
    struct ip_prefix *nat64;
    size_t nat64_count;
    struct ip_address *host_addresses;
    size_t host_address_count;
};

static const struct ip_prefix NAT64_WELL_KNOWN = {.address = {.bytes = {0x00, 0x64, 0xff, 0x9b}},
                                                  .length = 96}; /* RFC 6052, 2.1 */
static const struct ip_prefix ALL_IPV4 = {.address = {.bytes = {[10] = 0xff, [11] = 0xff}},
                                          .length = 96};

#define PROFILE_RULES_MAX 3

static const struct profile {
    const char *name;
    const char *rules[PROFILE_RULES_MAX]; /* NULL behind the last */
} PROFILES[] = {
    {"public", {"allow to dns", "allow to public"}},
    {"none", {NULL}},
    /* All of the floor but `metadata`; of the special ranges only what a rule names. */
    {"all", {"allow to any,host,link-local,multicast"}},
};

#define PROFILE_COUNT (sizeof PROFILES / sizeof PROFILES[0])

/* ---- the builder ---- */

struct policy_builder *policy_builder_new(void)
{
    struct policy_builder *builder = calloc(1, sizeof *builder);
    if (builder && policy_builder_nat64(builder, &NAT64_WELL_KNOWN) < 0)
        return policy_builder_free(builder);
    return builder;
}

static void rule_list_clear(struct rule_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        rule_clear(&list->rules[i]);
    free(list->rules);
    *list = (struct rule_list){0};
}

struct policy_builder *policy_builder_free(struct policy_builder *builder)
{
    if (!builder)
        return NULL;
    rule_list_clear(&builder->rules);
    rule_list_clear(&builder->profile);
    free(builder->nat64);
    free(builder->host_addresses);
    free(builder);
    return NULL;
}

/* Parses `text` to the end of `list`. As rule_parse(). */
static int rule_list_add(struct rule_list *list, const char *text, char *message, size_t size)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        struct rule *larger = reallocarray(list->rules, capacity, sizeof *larger);
        if (!larger)
            return -ENOMEM;
        list->rules = larger;
        list->capacity = capacity;
    }
    int r = rule_parse(text, &list->rules[list->count], message, size);
    if (r == 0)
        list->count++;
    return r;
}

int policy_builder_add(struct policy_builder *builder, const char *rule, const char *where,
                       char *message, size_t size)
{
    char fault[400];
    int r = rule_list_add(&builder->rules, rule, fault, sizeof fault);
    if (r == -EINVAL && size > 0)
        snprintf(message, size, "%s%s%s", where ? where : "", where ? ": " : "", fault);
    return r == -ENODATA ? 0 : r;
}

static int fail_profile(const char *name, char *message, size_t size)
{
    const char *names[PROFILE_COUNT];
    for (size_t i = 0; i < PROFILE_COUNT; i++)
        names[i] = PROFILES[i].name;
    const char *near = suggest_word(name, names, PROFILE_COUNT);
    if (size > 0 && near)
        snprintf(message, size, "unknown profile; did you mean \"%s\"?", near);
    else if (size > 0)
        snprintf(message, size, "unknown profile: write public, none or all");
    return -EINVAL;
}

int policy_builder_profile(struct policy_builder *builder, const char *name, char *message,
                           size_t size)
{
    const struct profile *profile = PROFILES;
    while (profile < PROFILES + PROFILE_COUNT && strcmp(profile->name, name) != 0)
        profile++;
    if (profile == PROFILES + PROFILE_COUNT)
        return fail_profile(name, message, size);

    struct rule_list list = {0};
    for (size_t i = 0; i < PROFILE_RULES_MAX && profile->rules[i]; i++) {
        int r = rule_list_add(&list, profile->rules[i], message, size);
        if (r < 0) {
            rule_list_clear(&list);
            return r;
        }
    }
    rule_list_clear(&builder->profile);
    builder->profile = list;
    return 0;
}

int policy_builder_host_address(struct policy_builder *builder, const struct ip_address *address)
{
    struct ip_address *larger =
        reallocarray(builder->host_addresses, builder->host_address_count + 1, sizeof *larger);
    if (!larger)
        return -ENOMEM;
    larger[builder->host_address_count++] = *address;
    builder->host_addresses = larger;
    return 0;
}

int policy_builder_nat64(struct policy_builder *builder, const struct ip_prefix *prefix)
{
    if (prefix->length != 96 || ip_address_is_v4(&prefix->address) || prefix->address.be32[3] != 0)
        return -EINVAL;
    struct ip_prefix *larger =
        reallocarray(builder->nat64, builder->nat64_count + 1, sizeof *larger);
    if (!larger)
        return -ENOMEM;
    larger[builder->nat64_count++] = *prefix;
    builder->nat64 = larger;
    return 0;
}

/* ---- compiling ---- */

struct build {
    struct policy *policy;
    const struct rule *rules; /* all of them, numbered */
    uint32_t count;
    struct service_builder services;
    struct prefix_entries entries;
};

static bool rule_has_kind(const struct rule *rule, unsigned kind)
{
    for (size_t i = 0; i < rule->target_count; i++) {
        const struct rule_target *target = &rule->targets[i];
        if (kind == TARGET_KIND_ANY
                ? target->kind == RULE_TARGET_ANY
                : target->kind == RULE_TARGET_GROUP && (unsigned)target->group == 1u << kind)
            return true;
    }
    return false;
}

static int build_kind(struct build *build, enum policy_direction direction, unsigned kind,
                      bool allow, struct service_table *ret)
{
    for (uint32_t i = 0; i < build->count; i++) {
        const struct rule *rule = &build->rules[i];
        if (rule->direction == direction && (rule->action == POLICY_ALLOW) == allow &&
            rule_has_kind(rule, kind) && service_builder_add(&build->services, rule, i) < 0)
            return -ENOMEM;
    }
    return service_builder_finish(&build->services, &build->policy->pool, ret);
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

static int collect_rule_prefixes(struct build *build, uint32_t number)
{
    const struct rule *rule = &build->rules[number];
    int r = 0;
    for (size_t i = 0; i < rule->target_count && r == 0; i++) {
        const struct rule_target *target = &rule->targets[i];
        if (target->kind != RULE_TARGET_PREFIX)
            continue;
        r = prefix_entries_add(&build->entries, &target->prefix, number);
        if (r == 0)
            r = add_nat64_refusals(build, &target->prefix, number);
    }
    return r;
}

static int build_prefixes(struct build *build, enum policy_direction direction,
                          struct prefix_index *index)
{
    build->entries.count = 0;
    int r = prefix_entries_add_border(&build->entries, &ALL_IPV4);
    for (size_t i = 0; i < build->policy->nat64_count && r == 0; i++)
        r = prefix_entries_add_border(&build->entries, &build->policy->nat64[i]);
    for (uint32_t i = 0; i < build->count && r == 0; i++) {
        if (build->rules[i].direction == direction)
            r = collect_rule_prefixes(build, i);
    }
    if (r < 0)
        return r;
    return prefix_index_build(index, &build->entries, build->rules, &build->services,
                              &build->policy->pool);
}

/* Published ports admit everyone until there is a `from` rule; egress needs a rule always. */
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

static void *copy_array(const void *array, size_t count, size_t element)
{
    void *copy = calloc(count ? count : 1, element);
    if (copy && count > 0)
        memcpy(copy, array, count * element);
    return copy;
}

/* What the policy keeps besides the compiled form. */
static int copy_facts(struct policy *policy, const struct policy_builder *builder,
                      const struct rule *rules, size_t count)
{
    policy->nat64 = copy_array(builder->nat64, builder->nat64_count, sizeof *policy->nat64);
    policy->host_addresses = copy_array(builder->host_addresses, builder->host_address_count,
                                        sizeof *policy->host_addresses);
    policy->rules = calloc(count + 1, sizeof *policy->rules);
    if (!policy->nat64 || !policy->host_addresses || !policy->rules)
        return -ENOMEM;
    policy->nat64_count = builder->nat64_count;
    policy->host_address_count = builder->host_address_count;
    for (size_t i = 0; i < count; i++) {
        policy->rules[i].action = rules[i].action;
        policy->rules[i].text = strdup(rules[i].text);
        if (!policy->rules[i].text)
            return -ENOMEM;
        policy->rule_count++;
    }
    return 0;
}

/* All rules in order, as a borrowed view: the rules stay the builder's. */
static struct rule *number_rules(const struct policy_builder *builder, size_t *ret_count)
{
    size_t own = builder->rules.count, profile = builder->profile.count;
    if (own + profile >= NO_RULE)
        return NULL;
    struct rule *rules = calloc(own + profile + 1, sizeof *rules);
    if (!rules)
        return NULL;
    if (own > 0)
        memcpy(rules, builder->rules.rules, own * sizeof *rules);
    if (profile > 0)
        memcpy(rules + own, builder->profile.rules, profile * sizeof *rules);
    *ret_count = own + profile;
    return rules;
}

static int compile(struct policy *policy, const struct policy_builder *builder)
{
    size_t count;
    struct rule *rules = number_rules(builder, &count);
    if (!rules)
        return -ENOMEM;
    struct build build = {.policy = policy, .rules = rules, .count = (uint32_t)count};
    int r = copy_facts(policy, builder, rules, count);
    if (r == 0)
        r = build_direction(&build, POLICY_EGRESS);
    if (r == 0)
        r = build_direction(&build, POLICY_INGRESS);
    service_builder_clear(&build.services);
    prefix_entries_clear(&build.entries);
    free(rules);
    return r;
}

struct policy *policy_build(const struct policy_builder *builder, uint32_t generation)
{
    struct policy *policy = calloc(1, sizeof *policy);
    if (!policy)
        return NULL;
    policy->generation = generation;
    if (compile(policy, builder) < 0) {
        errno = ENOMEM;
        return policy_free(policy);
    }
    return policy;
}

struct policy *policy_free(struct policy *policy)
{
    if (!policy)
        return NULL;
    for (uint32_t i = 0; i < policy->rule_count; i++)
        free(policy->rules[i].text);
    free(policy->rules);
    prefix_index_clear(&policy->directions[POLICY_EGRESS].prefixes);
    prefix_index_clear(&policy->directions[POLICY_INGRESS].prefixes);
    service_pool_clear(&policy->pool);
    free(policy->nat64);
    free(policy->host_addresses);
    free(policy);
    return NULL;
}
