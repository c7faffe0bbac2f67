/* SPDX-License-Identifier: Apache-2.0 */

/* Compiling the rules by name.
 *
 * Where names come from is an origin: a rule that names them itself, or a set, which stands for all
 * rules that name the set. Origins are gone through one after the other. A name that is met gets a
 * link in a tree whose paths are sequences of origins: the first origin of a name is a child of the
 * root, the next one a child of that, and so on, so that names with the same origins end at the
 * same link, whatever their number. The links at which names ended become the bags. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/compile.h"

struct link {
    uint32_t parent, origin;
    uint32_t child, child_origin; /* the child made last */
    uint32_t bag;                 /* 0: none yet */
    bool used;
};

struct origin {
    size_t begin, count; /* in rule_numbers, ascending */
};

struct name_build {
    struct build *build;
    struct name_rules *names;
    struct link *links; /* the first is the root */
    uint32_t link_count, link_capacity;
    struct origin *origins; /* the first is none */
    uint32_t origin_count, origin_capacity;
    uint32_t *rule_numbers;
    size_t rule_number_count, rule_number_capacity;
    uint32_t *rule_widening; /* by rule: its number among the widenings */
    uint32_t *scratch;       /* the rules of one bag */
    size_t scratch_count, scratch_capacity;
    int error; /* of name_index_each()'s visitors */
};

/* Room for one more. */
static int grow(void *array, size_t count, size_t *capacity, size_t element)
{
    void **place = array;
    if (count < *capacity)
        return 0;
    size_t larger = *capacity ? *capacity * 2 : 16;
    void *moved = reallocarray(*place, larger, element);
    if (!moved)
        return -ENOMEM;
    *place = moved;
    *capacity = larger;
    return 0;
}

static int grow32(void *array, uint32_t count, uint32_t *capacity, size_t element)
{
    size_t wide = *capacity;
    if (count >= UINT32_MAX / 2 || grow(array, count, &wide, element) < 0)
        return -ENOMEM;
    *capacity = (uint32_t)wide;
    return 0;
}

/* ---- origins ---- */

static int begin_origin(struct name_build *nb, uint32_t *ret)
{
    if (grow32(&nb->origins, nb->origin_count, &nb->origin_capacity, sizeof *nb->origins) < 0)
        return -ENOMEM;
    nb->origins[nb->origin_count] = (struct origin){.begin = nb->rule_number_count};
    *ret = nb->origin_count++;
    return 0;
}

static int add_to_origin(struct name_build *nb, uint32_t origin, uint32_t rule)
{
    if (grow(&nb->rule_numbers, nb->rule_number_count, &nb->rule_number_capacity,
             sizeof *nb->rule_numbers) < 0)
        return -ENOMEM;
    nb->rule_numbers[nb->rule_number_count++] = rule;
    nb->origins[origin].count++;
    return 0;
}

/* The link for names of `from` that are of `origin` too. */
static int follow(struct name_build *nb, uint32_t from, uint32_t origin, uint32_t *ret)
{
    if (nb->links[from].child_origin == origin) {
        *ret = nb->links[from].child;
        return 0;
    }
    if (grow32(&nb->links, nb->link_count, &nb->link_capacity, sizeof *nb->links) < 0)
        return -ENOMEM;
    uint32_t child = nb->link_count++;
    nb->links[child] = (struct link){.parent = from, .origin = origin};
    nb->links[from].child = child;
    nb->links[from].child_origin = origin;
    *ret = child;
    return 0;
}

static int add_pattern(struct name_build *nb, uint32_t origin, const struct name_pattern *pattern)
{
    uint32_t *number;
    if (name_index_add(&nb->names->index, pattern, &number) < 0)
        return -ENOMEM;
    if (*number && nb->links[*number].origin == origin)
        return 0; /* written twice */
    return follow(nb, *number, origin, number);
}

static bool is_ours(const struct name_build *nb, uint32_t rule)
{
    const struct rule_summary *summary = &nb->build->summaries[rule];
    return summary->live && summary->names && nb->build->rules[rule].direction == POLICY_EGRESS;
}

static int add_rules_own_names(struct name_build *nb, uint32_t number)
{
    const struct rule *rule = &nb->build->rules[number];
    uint32_t origin;
    int r;

    if (!rule_has_name(rule))
        return 0;
    if ((r = begin_origin(nb, &origin)) < 0 || (r = add_to_origin(nb, origin, number)) < 0)
        return r;
    for (size_t i = 0; i < rule->target_count && r == 0; i++) {
        if (rule->targets[i].kind == RULE_TARGET_NAME)
            r = add_pattern(nb, origin, rule->targets[i].pattern);
    }
    return r;
}

/* A rule that names a set. */
struct set_use {
    const struct target_set *set;
    uint32_t rule;
};

static int compare_uses(const void *a, const void *b)
{
    const struct set_use *x = a, *y = b;
    if (x->set != y->set)
        return (uintptr_t)x->set < (uintptr_t)y->set ? -1 : 1;
    return (x->rule > y->rule) - (x->rule < y->rule);
}

static int collect_set_uses(const struct name_build *nb, struct set_use **uses, size_t *count)
{
    const struct build *build = nb->build;
    size_t capacity = 0;
    for (uint32_t i = 0; i < build->count; i++) {
        if (!is_ours(nb, i))
            continue;
        for (size_t j = 0; j < build->rules[i].target_count; j++) {
            const struct rule_target *target = &build->rules[i].targets[j];
            if (target->kind != RULE_TARGET_SET)
                continue;
            if (grow(uses, *count, &capacity, sizeof **uses) < 0)
                return -ENOMEM;
            (*uses)[(*count)++] =
                (struct set_use){builder_find_set(build->builder, target->set), i};
        }
    }
    return 0;
}

static int add_set(struct name_build *nb, const struct set_use *uses, size_t count)
{
    struct name_pattern pattern;
    uint32_t origin;
    size_t at = 0;
    int r = begin_origin(nb, &origin);

    for (size_t i = 0; i < count && r == 0; i++) {
        if (i == 0 || uses[i].rule != uses[i - 1].rule)
            r = add_to_origin(nb, origin, uses[i].rule);
    }
    while (r == 0 && target_set_next_name(uses->set, &at, &pattern))
        r = add_pattern(nb, origin, &pattern);
    return r;
}

static int add_sets(struct name_build *nb)
{
    struct set_use *uses = NULL;
    size_t count = 0;
    int r = collect_set_uses(nb, &uses, &count);

    if (r == 0 && count > 0)
        qsort(uses, count, sizeof *uses, compare_uses);
    for (size_t i = 0, end; i < count && r == 0; i = end) {
        for (end = i + 1; end < count && uses[end].set == uses[i].set;)
            end++;
        r = add_set(nb, uses + i, end - i);
    }
    free(uses);
    return r;
}

/* ---- widenings ---- */

static bool same_targets(const struct rule *a, const struct rule *b)
{
    if (a->widening_count != b->widening_count)
        return false;
    for (size_t i = 0; i < a->widening_count; i++) {
        const struct rule_target *x = &a->widening[i], *y = &b->widening[i];
        if (x->kind != y->kind || x->group != y->group || x->prefix.length != y->prefix.length ||
            !ip_address_equal(&x->prefix.address, &y->prefix.address) ||
            (x->kind == RULE_TARGET_SET && strcmp(x->set, y->set) != 0))
            return false;
    }
    return true;
}

static int add_widening_target(struct name_build *nb, struct widening *widening,
                               const struct rule_target *target)
{
    struct prefix_entries *entries = &nb->build->entries;
    const struct target_set *set;
    int r = 0;

    switch (target->kind) {
    case RULE_TARGET_ANY:
        widening->any = true;
        break;
    case RULE_TARGET_GROUP:
        widening->groups |= (unsigned)target->group;
        break;
    case RULE_TARGET_PREFIX:
        return prefix_entries_add(entries, &target->prefix, 0);
    case RULE_TARGET_SET:
        if (!(set = builder_find_set(nb->build->builder, target->set)))
            return -EINVAL;
        widening->any |= set->any;
        widening->groups |= set->groups;
        for (size_t i = 0; i < set->prefix_count && r == 0; i++)
            r = prefix_entries_add(entries, &set->prefixes[i], 0);
        break;
    case RULE_TARGET_NAME:
        break; /* the parser lets none in */
    }
    return r;
}

static int build_widening(struct name_build *nb, const struct rule *rule, struct widening *widening)
{
    static const struct rule every_service = {.protocols = POLICY_TCP | POLICY_UDP | POLICY_ICMP};
    struct build *build = nb->build;

    build->entries.count = 0;
    int r = build_borders(build, &build->entries);
    for (size_t i = 0; i < rule->widening_count && r == 0; i++)
        r = add_widening_target(nb, widening, &rule->widening[i]);
    return r < 0 ? r
                 : prefix_index_build(&widening->prefixes, &build->entries, &every_service,
                                      &build->services, &build->policy->pool);
}

static int build_widenings(struct name_build *nb)
{
    struct name_rules *names = nb->names;
    uint32_t capacity = 0;
    uint32_t *first_rule = calloc(nb->build->count + 1u, sizeof *first_rule); /* of each */
    if (!first_rule)
        return -ENOMEM;
    int r = grow32(&names->widenings, 0, &capacity, sizeof *names->widenings);

    if (r == 0)
        names->widenings[names->widening_count++] = (struct widening){0};
    for (uint32_t i = 0; i < nb->build->count && r == 0; i++) {
        const struct rule *rule = &nb->build->rules[i];
        uint32_t number = 1;
        if (rule->widening_count == 0 || !is_ours(nb, i))
            continue;
        while (number < names->widening_count &&
               !same_targets(rule, &nb->build->rules[first_rule[number]]))
            number++;
        nb->rule_widening[i] = number;
        if (number < names->widening_count)
            continue;
        if (grow32(&names->widenings, number, &capacity, sizeof *names->widenings) < 0) {
            r = -ENOMEM;
            break;
        }
        first_rule[number] = i;
        names->widenings[names->widening_count++] = (struct widening){0};
        r = build_widening(nb, rule, &names->widenings[number]);
    }
    free(first_rule);
    return r;
}

/* ---- bags ---- */

static int compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The rules of all origins on the way from `link` to the root, in order. */
static int collect_bag_rules(struct name_build *nb, uint32_t link)
{
    size_t distinct = 0;
    nb->scratch_count = 0;
    for (; link; link = nb->links[link].parent) {
        const struct origin *origin = &nb->origins[nb->links[link].origin];
        for (size_t i = 0; i < origin->count; i++) {
            if (grow(&nb->scratch, nb->scratch_count, &nb->scratch_capacity, sizeof *nb->scratch) <
                0)
                return -ENOMEM;
            nb->scratch[nb->scratch_count++] = nb->rule_numbers[origin->begin + i];
        }
    }
    qsort(nb->scratch, nb->scratch_count, sizeof *nb->scratch, compare_numbers);
    for (size_t i = 0; i < nb->scratch_count; i++) {
        if (distinct == 0 || nb->scratch[distinct - 1] != nb->scratch[i])
            nb->scratch[distinct++] = nb->scratch[i];
    }
    nb->scratch_count = distinct;
    return 0;
}

static const struct rule *scratch_rule(const struct name_build *nb, size_t i)
{
    return &nb->build->rules[nb->scratch[i]];
}

/* The table of the bag's rules from `first` on that allow, with the widening of that rule. */
static int add_bag_allow(struct name_build *nb, struct name_bag *bag, size_t first)
{
    struct name_rules *names = nb->names;
    struct build *build = nb->build;
    uint32_t widening = nb->rule_widening[nb->scratch[first]];

    for (uint32_t i = 0; i < bag->allow_count; i++) {
        if (names->allows[bag->allow_begin + i].widening == widening)
            return 0; /* it stands there already, with this rule in it */
    }
    for (size_t i = first; i < nb->scratch_count; i++) {
        const struct rule *rule = scratch_rule(nb, i);
        if (rule->action == POLICY_ALLOW && nb->rule_widening[nb->scratch[i]] == widening &&
            service_builder_add(&build->services, rule, nb->scratch[i]) < 0)
            return -ENOMEM;
    }
    if ((names->allow_count & (names->allow_count + 1)) == 0) { /* capacities are 2^n - 1 */
        void *larger = reallocarray(names->allows, ((size_t)names->allow_count + 1) * 2,
                                    sizeof *names->allows);
        if (!larger)
            return -ENOMEM;
        names->allows = larger;
    }
    struct bag_allow *allow = &names->allows[names->allow_count++];
    allow->widening = widening;
    bag->allow_count++;
    return service_builder_finish(&build->services, &build->policy->pool, &allow->services);
}

static int build_bag(struct name_build *nb, uint32_t link, struct name_bag *bag)
{
    struct build *build = nb->build;
    int r = collect_bag_rules(nb, link);
    *bag = (struct name_bag){
        .allow_begin = nb->names->allow_count, .query_allow = NO_RULE, .query_refuse = NO_RULE};
    for (size_t i = nb->scratch_count; i-- > 0;) {
        const struct rule *rule = scratch_rule(nb, i);
        if (rule->action == POLICY_ALLOW)
            bag->query_allow = nb->scratch[i];
        else if (rule_is_for_every_service(rule))
            bag->query_refuse = nb->scratch[i];
    }
    for (size_t i = 0; i < nb->scratch_count && r == 0; i++) {
        if (scratch_rule(nb, i)->action == POLICY_ALLOW)
            r = add_bag_allow(nb, bag, i);
    }
    for (size_t i = 0; i < nb->scratch_count && r == 0; i++) {
        if (scratch_rule(nb, i)->action != POLICY_ALLOW)
            r = service_builder_add(&build->services, scratch_rule(nb, i), nb->scratch[i]);
    }
    return r < 0 ? r : service_builder_finish(&build->services, &build->policy->pool, &bag->refuse);
}

static void mark_used(void *ctx, uint32_t *number)
{
    struct name_build *nb = ctx;
    nb->links[*number].used = true;
}

static void link_to_bag(void *ctx, uint32_t *number)
{
    const struct name_build *nb = ctx;
    *number = nb->links[*number].bag;
}

static int build_bags(struct name_build *nb)
{
    struct name_rules *names = nb->names;
    uint32_t used = 0;

    name_index_each(&names->index, mark_used, nb);
    for (uint32_t i = 1; i < nb->link_count; i++) {
        if (nb->links[i].used)
            nb->links[i].bag = ++used;
    }
    names->bags = calloc((size_t)used + 1, sizeof *names->bags);
    if (!names->bags)
        return -ENOMEM;
    names->bag_count = used + 1;
    for (uint32_t i = 1; i < nb->link_count; i++) {
        int r = nb->links[i].used ? build_bag(nb, i, &names->bags[nb->links[i].bag]) : 0;
        if (r < 0)
            return r;
    }
    name_index_each(&names->index, link_to_bag, nb);
    name_index_finish(&names->index);
    return 0;
}

/* ---- all of it ---- */

static int build_refuse_table(struct name_build *nb)
{
    struct build *build = nb->build;
    for (uint32_t i = 0; i < build->count; i++) {
        if (is_ours(nb, i) && build->rules[i].action != POLICY_ALLOW &&
            service_builder_add(&build->services, &build->rules[i], i) < 0)
            return -ENOMEM;
    }
    return service_builder_finish(&build->services, &build->policy->pool, &nb->names->refuse);
}

static int build_all(struct name_build *nb)
{
    uint32_t origin, root;
    int r = begin_origin(nb, &origin); /* 0, nobody's */

    if (r == 0)
        r = grow32(&nb->links, 0, &nb->link_capacity, sizeof *nb->links);
    if (r < 0)
        return r;
    root = nb->link_count++;
    nb->links[root] = (struct link){0};
    for (uint32_t i = 0; i < nb->build->count && r == 0; i++) {
        if (is_ours(nb, i))
            r = add_rules_own_names(nb, i);
    }
    if (r < 0 || (r = add_sets(nb)) < 0 || (r = build_widenings(nb)) < 0 ||
        (r = build_bags(nb)) < 0)
        return r;
    return build_refuse_table(nb);
}

int build_names(struct build *build)
{
    struct name_build nb = {.build = build, .names = &build->policy->names};

    nb.names->lowest = NO_RULE;
    for (uint32_t i = build->count; i-- > 0;) {
        if (is_ours(&nb, i))
            nb.names->lowest = i;
    }
    nb.names->present = nb.names->lowest != NO_RULE;
    if (!nb.names->present)
        return 0;
    nb.rule_widening = calloc(build->count, sizeof *nb.rule_widening);
    int r = nb.rule_widening ? build_all(&nb) : -ENOMEM;
    free(nb.links);
    free(nb.origins);
    free(nb.rule_numbers);
    free(nb.rule_widening);
    free(nb.scratch);
    return r;
}

void name_rules_clear(struct name_rules *rules)
{
    name_index_clear(&rules->index);
    for (uint32_t i = 0; i < rules->widening_count; i++)
        prefix_index_clear(&rules->widenings[i].prefixes);
    free(rules->widenings);
    free(rules->bags);
    free(rules->allows);
    free(rules->hosts);
    *rules = (struct name_rules){0};
}
