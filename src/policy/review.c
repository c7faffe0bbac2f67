/* SPDX-License-Identifier: Apache-2.0 */

/* Rule i covers a later rule j if it holds for every service of j, and each target of j lies within
 * a target of i. Where a target's reach depends on more than the rules say (is this address one of
 * the host's?), it does not count as covered. */

#include "policy/review.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SET_LOOKED_THROUGH 1000 /* names and prefixes; larger sets count as a whole only */
#define SUFFIXES_SHOWN     3    /* of one set */

struct review {
    const struct policy_builder *builder;
    const struct rule *rules;
    uint32_t count;
    int64_t wall_clock;
    void (*found)(void *ctx, const struct review_finding *finding);
    void *ctx;
};

static void report(const struct review *review, enum review_kind kind, uint32_t rule, uint32_t by,
                   const char *text)
{
    struct review_finding finding = {kind, rule, by, text};
    review->found(review->ctx, &finding);
}

/* ---- services ---- */

static bool ports_cover(const struct rule *wide, const struct rule_ports *ports)
{
    for (size_t i = 0; i < wide->port_count; i++) {
        if (wide->ports[i].low <= ports->low && ports->high <= wide->ports[i].high)
            return true;
    }
    return false;
}

static bool services_cover(const struct rule *wide, const struct rule *narrow)
{
    if (wide->direction != narrow->direction || (narrow->protocols & ~wide->protocols))
        return false;
    if (wide->port_count == 0)
        return true;
    for (size_t i = 0; i < narrow->port_count; i++) {
        if (!ports_cover(wide, &narrow->ports[i]))
            return false;
    }
    return narrow->port_count > 0;
}

static bool ports_overlap(const struct rule *a, const struct rule *b)
{
    for (size_t i = 0; i < a->port_count; i++) {
        for (size_t j = 0; j < b->port_count; j++) {
            if (a->ports[i].low <= b->ports[j].high && b->ports[j].low <= a->ports[i].high)
                return true;
        }
    }
    return a->port_count == 0 || b->port_count == 0;
}

static bool services_overlap(const struct rule *a, const struct rule *b)
{
    return a->direction == b->direction && (a->protocols & b->protocols) && ports_overlap(a, b);
}

/* ---- targets ---- */

static bool pattern_covers(const struct name_pattern *wide, const struct name_pattern *narrow)
{
    if (wide->kind == NAME_PATTERN_GLOB && narrow->kind != NAME_PATTERN_EXACT)
        return narrow->kind == NAME_PATTERN_GLOB && dns_name_equal(&wide->name, &narrow->name);
    if (wide->kind == NAME_PATTERN_EXACT && narrow->kind != NAME_PATTERN_EXACT)
        return false;
    return name_pattern_matches(wide, &narrow->name);
}

static bool prefix_covers(const struct ip_prefix *wide, const struct ip_prefix *narrow)
{
    bool same_family = (wide->length >= 96 && ip_address_is_v4(&wide->address)) ==
                       (narrow->length >= 96 && ip_address_is_v4(&narrow->address));
    return same_family && wide->length <= narrow->length &&
           ip_prefix_contains(wide, &narrow->address);
}

static bool set_covers(const struct review *review, const char *name,
                       const struct rule_target *narrow)
{
    const struct target_set *set = builder_find_set(review->builder, name);
    struct name_pattern pattern;
    size_t at = 0;

    if (narrow->kind == RULE_TARGET_SET)
        return strcmp(name, narrow->set) == 0;
    if (!set || set->name_count + set->prefix_count > SET_LOOKED_THROUGH)
        return false;
    for (size_t i = 0; i < set->prefix_count && narrow->kind == RULE_TARGET_PREFIX; i++) {
        if (prefix_covers(&set->prefixes[i], &narrow->prefix))
            return true;
    }
    while (narrow->kind == RULE_TARGET_NAME && target_set_next_name(set, &at, &pattern)) {
        if (pattern_covers(&pattern, narrow->pattern))
            return true;
    }
    return narrow->kind == RULE_TARGET_GROUP && (set->groups & (unsigned)narrow->group);
}

/* Does a rule that allows `any` or `public` allow wherever `narrow` leads? */
static bool everywhere_covers(const struct rule *wide, const struct rule_target *target,
                              const struct rule *narrow, const struct rule_target *narrow_target)
{
    bool any = target->kind == RULE_TARGET_ANY;
    if (any && (wide->action != POLICY_ALLOW || wide->direction == POLICY_INGRESS))
        return true;
    if (narrow_target->kind == RULE_TARGET_GROUP)
        return any ? narrow_target->group == POLICY_PUBLIC ||
                         narrow_target->group == POLICY_PRIVATE ||
                         narrow_target->group == POLICY_DNS
                   : target->group == narrow_target->group;
    return wide->action == POLICY_ALLOW && narrow->action == POLICY_ALLOW &&
           (any || target->group == POLICY_PUBLIC) && narrow_target->kind == RULE_TARGET_NAME &&
           narrow->widening_count == 0;
}

static bool target_covers(const struct review *review, const struct rule *wide,
                          const struct rule_target *target, const struct rule *narrow,
                          const struct rule_target *narrow_target)
{
    switch (target->kind) {
    case RULE_TARGET_ANY:
    case RULE_TARGET_GROUP:
        return everywhere_covers(wide, target, narrow, narrow_target);
    case RULE_TARGET_PREFIX:
        return narrow_target->kind == RULE_TARGET_PREFIX &&
               prefix_covers(&target->prefix, &narrow_target->prefix);
    case RULE_TARGET_NAME:
        return narrow_target->kind == RULE_TARGET_NAME && narrow->widening_count == 0 &&
               pattern_covers(target->pattern, narrow_target->pattern);
    case RULE_TARGET_SET:
        return narrow->widening_count == 0 && set_covers(review, target->set, narrow_target);
    }
    return false;
}

static bool targets_cover(const struct review *review, const struct rule *wide,
                          const struct rule *narrow)
{
    for (size_t j = 0; j < narrow->target_count; j++) {
        bool covered = false;
        for (size_t i = 0; i < wide->target_count && !covered; i++)
            covered = target_covers(review, wide, &wide->targets[i], narrow, &narrow->targets[j]);
        if (!covered)
            return false;
    }
    return true;
}

static bool allows_everything_public(const struct rule *rule)
{
    for (size_t i = 0; i < rule->target_count; i++) {
        if (rule->targets[i].kind == RULE_TARGET_ANY ||
            (rule->targets[i].kind == RULE_TARGET_GROUP && rule->targets[i].group == POLICY_PUBLIC))
            return rule->action == POLICY_ALLOW;
    }
    return false;
}

/* ---- the review ---- */

static bool is_live(const struct review *review, uint32_t number)
{
    return review->rules[number].expires > review->wall_clock;
}

static bool is_by_name(const struct rule *rule)
{
    for (size_t i = 0; i < rule->target_count; i++) {
        if (rule->targets[i].kind != RULE_TARGET_NAME && rule->targets[i].kind != RULE_TARGET_SET)
            return false;
    }
    return true;
}

/* A refusal that stands behind a wider allow of some of its services is an exception that came too
 * late. (The other way round, a narrow rule before a wide one, is how exceptions are written.) */
static bool is_overtaken(const struct review *review, const struct rule *rule,
                         const struct rule *earlier)
{
    if (rule->action == POLICY_ALLOW || earlier->action != POLICY_ALLOW ||
        !services_overlap(earlier, rule))
        return false;
    return (targets_cover(review, earlier, rule) && !targets_cover(review, rule, earlier)) ||
           (is_by_name(rule) && allows_everything_public(earlier));
}

static void review_overtaken(const struct review *review, uint32_t number)
{
    for (uint32_t i = 0; i < number; i++) {
        if (is_live(review, i) && is_overtaken(review, &review->rules[number], &review->rules[i])) {
            report(review, REVIEW_OVERTAKEN, number, i, NULL);
            return;
        }
    }
}

static void review_against_earlier(const struct review *review, uint32_t number)
{
    const struct rule *rule = &review->rules[number];
    bool refuses = rule->action != POLICY_ALLOW;

    for (uint32_t i = 0; i < number; i++) {
        const struct rule *earlier = &review->rules[i];
        if (!is_live(review, i) || !services_cover(earlier, rule))
            continue;
        if (targets_cover(review, earlier, rule)) {
            bool opposite = (earlier->action != POLICY_ALLOW) != refuses;
            report(review,
                   !opposite                     ? REVIEW_NEVER_DECIDES
                   : refuses && is_by_name(rule) ? REVIEW_TOO_LATE
                                                 : REVIEW_CONTRADICTED,
                   number, i, NULL);
            return;
        }
        if (refuses && rule_has_name(rule) && allows_everything_public(earlier)) {
            report(review, REVIEW_PUBLIC_ALLOWED, number, i, NULL);
            return;
        }
    }
    review_overtaken(review, number);
}

static void review_pattern(const struct review *review, uint32_t number,
                           const struct name_pattern *pattern, size_t *shown)
{
    char text[NAME_SHOWN_MAX + 2];
    if (*shown >= SUFFIXES_SHOWN || name_pattern_breadth(pattern) != NAME_BREADTH_PRIVATE)
        return;
    report(review, REVIEW_PRIVATE_SUFFIX, number, number, name_pattern_show(pattern, text));
    (*shown)++;
}

static void review_wildcards(const struct review *review, uint32_t number)
{
    const struct rule *rule = &review->rules[number];
    size_t shown = 0;

    for (size_t i = 0; i < rule->target_count && rule->action == POLICY_ALLOW; i++) {
        const struct rule_target *target = &rule->targets[i];
        const struct target_set *set = NULL;
        struct name_pattern pattern;
        size_t at = 0;
        if (target->kind == RULE_TARGET_NAME)
            review_pattern(review, number, target->pattern, &shown);
        else if (target->kind == RULE_TARGET_SET)
            set = builder_find_set(review->builder, target->set);
        while (set && target_set_next_name(set, &at, &pattern) && shown < SUFFIXES_SHOWN)
            review_pattern(review, number, &pattern, &shown);
    }
}

static bool opens_lookups(const struct rule *rule)
{
    for (size_t i = 0; i < rule->target_count; i++) {
        if (rule->targets[i].kind == RULE_TARGET_ANY ||
            (rule->targets[i].kind == RULE_TARGET_GROUP &&
             ((unsigned)rule->targets[i].group & RULE_GROUPS_WITH_NAMES)))
            return rule->direction == POLICY_EGRESS && rule->action == POLICY_ALLOW;
    }
    return false;
}

static bool closes_lookups(const struct rule *rule)
{
    bool any = false;
    for (size_t i = 0; i < rule->target_count; i++)
        any |= rule->targets[i].kind == RULE_TARGET_ANY;
    return any && rule->direction == POLICY_EGRESS && rule->action != POLICY_ALLOW &&
           rule_is_for_every_service(rule);
}

/* An allow-list of names whose lookups are open all the same: the first rule that does it. */
static void review_lookups(const struct review *review)
{
    bool names = false;
    for (uint32_t i = 0; i < review->count; i++)
        names |= is_live(review, i) && rule_has_name(&review->rules[i]) &&
                 review->rules[i].action == POLICY_ALLOW;
    for (uint32_t i = 0; i < review->count && names; i++) {
        if (is_live(review, i) && closes_lookups(&review->rules[i]))
            return;
        if (is_live(review, i) && opens_lookups(&review->rules[i])) {
            report(review, REVIEW_LOOKUPS_OPEN, i, i, NULL);
            return;
        }
    }
}

static bool names_set(const struct rule_target *targets, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (targets[i].kind == RULE_TARGET_SET && strcmp(targets[i].set, name) == 0)
            return true;
    }
    return false;
}

static void review_sets(const struct review *review)
{
    const struct target_sets *sets = &review->builder->document.sets;

    for (size_t i = 0; i < sets->count; i++) {
        const char *name = sets->list[i]->name;
        bool used = false;

        for (uint32_t j = 0; j < review->count && !used; j++) {
            const struct rule *rule = &review->rules[j];
            used = names_set(rule->targets, rule->target_count, name) ||
                   names_set(rule->widening, rule->widening_count, name);
        }
        if (!used)
            report(review, REVIEW_UNUSED_SET, 0, 0, name);
    }
}

int policy_review(const struct policy_builder *builder, int64_t wall_clock,
                  void (*found)(void *ctx, const struct review_finding *finding), void *ctx)
{
    struct review review = {
        .builder = builder, .wall_clock = wall_clock, .found = found, .ctx = ctx};
    struct rule *rules = builder_rules(builder, &review.count);

    if (!rules)
        return -ENOMEM;
    review.rules = rules;
    for (uint32_t i = 0; i < review.count; i++) {
        if (!is_live(&review, i)) {
            report(&review, REVIEW_EXPIRED, i, i, NULL);
            continue;
        }
        if (i < review.count - builder->profile.rules.count) /* a profile is nobody's mistake */
            review_against_earlier(&review, i);
        review_wildcards(&review, i);
    }
    review_lookups(&review);
    review_sets(&review);
    free(rules);
    return 0;
}
