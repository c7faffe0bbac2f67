/* SPDX-License-Identifier: Apache-2.0 */

/* Prefixes either nest or lie apart. So the distinct prefixes that rules name form a forest, and
 * their ends cut the line of addresses into intervals, each with one smallest prefix around it. A
 * lookup is a binary search for the interval, then a walk up the parents (as many as prefixes
 * really nest there, seldom more than three), asking each prefix's services for its first rule.
 *
 * Borders keep families apart: IPv4 lives at ::ffff:0:0/96 of the same line, and ::/0 must not
 * reach into it. A border is a node without a parent. */

#include "policy/prefixes.h"

#include <errno.h>
#include <stdlib.h>

#define NO_NODE  UINT32_MAX
#define NEST_MAX 129 /* lengths 0 to 128 */

prefix_key prefix_key_of(const struct ip_address *address)
{
    prefix_key key = 0;
    for (size_t i = 0; i < 4; i++)
        key = key << 32 | ntohl(address->be32[i]);
    return key;
}

static prefix_key key_last(prefix_key first, uint8_t length)
{
    prefix_key host_bits = length == 0 ? ~(prefix_key)0 : ((prefix_key)1 << (128 - length)) - 1;
    return first | host_bits;
}

static int add_entry(struct prefix_entries *entries, struct prefix_entry entry)
{
    if (entries->count == entries->capacity) {
        size_t capacity = entries->capacity ? entries->capacity * 2 : 64;
        void *larger = reallocarray(entries->list, capacity, sizeof *entries->list);
        if (!larger)
            return -ENOMEM;
        entries->list = larger;
        entries->capacity = capacity;
    }
    entries->list[entries->count++] = entry;
    return 0;
}

int prefix_entries_add(struct prefix_entries *entries, const struct ip_prefix *prefix,
                       uint32_t rule)
{
    return add_entry(entries, (struct prefix_entry){.first = prefix_key_of(&prefix->address),
                                                    .length = prefix->length,
                                                    .rule = rule});
}

int prefix_entries_add_border(struct prefix_entries *entries, const struct ip_prefix *prefix)
{
    return add_entry(entries, (struct prefix_entry){.first = prefix_key_of(&prefix->address),
                                                    .length = prefix->length,
                                                    .rule = NO_RULE,
                                                    .border = true});
}

void prefix_entries_clear(struct prefix_entries *entries)
{
    free(entries->list);
    *entries = (struct prefix_entries){0};
}

/* Larger prefixes before those within them, the rules of one prefix in order. */
static int compare_entries(const void *a, const void *b)
{
    const struct prefix_entry *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return (x->rule > y->rule) - (x->rule < y->rule);
}

/* The forest being walked, from the outermost open prefix to the innermost. */
struct nest {
    struct {
        prefix_key last;
        uint32_t node;
    } open[NEST_MAX];
    size_t depth;
};

static uint32_t innermost(const struct nest *nest)
{
    return nest->depth ? nest->open[nest->depth - 1].node : NO_NODE;
}

static void mark_start(struct prefix_index *index, prefix_key start, uint32_t node)
{
    size_t count = index->start_count;
    if (count > 0 && index->starts[count - 1] == start)
        count--; /* what ends or begins here last is the innermost */
    index->starts[count] = start;
    index->nodes_at[count] = node;
    index->start_count = count + 1;
}

/* Closes the prefixes that end before `first`; all of them if `everything`. */
static void close_prefixes(struct prefix_index *index, struct nest *nest, prefix_key first,
                           bool everything)
{
    while (nest->depth > 0) {
        prefix_key last = nest->open[nest->depth - 1].last;
        if (!everything && last >= first)
            return;
        nest->depth--;
        if (last != ~(prefix_key)0)
            mark_start(index, last + 1, innermost(nest));
    }
}

static void open_prefix(struct prefix_index *index, struct nest *nest,
                        const struct prefix_entry *entry, uint32_t node)
{
    mark_start(index, entry->first, node);
    nest->open[nest->depth].last = key_last(entry->first, entry->length);
    nest->open[nest->depth].node = node;
    nest->depth++;
}

/* The entries of one prefix. */
struct group {
    const struct prefix_entry *begin, *end;
};

static bool same_rules(const struct group *a, const struct group *b)
{
    ptrdiff_t count = a->end - a->begin;
    if (count != b->end - b->begin)
        return false;
    for (ptrdiff_t i = 0; i < count; i++) {
        if (a->begin[i].rule != b->begin[i].rule)
            return false;
    }
    return true;
}

static int build_services(struct service_table *table, const struct group *group,
                          const struct rule *rules, struct service_builder *builder,
                          struct service_pool *pool)
{
    uint32_t last = NO_RULE; /* a prefix that a rule names twice counts once */
    for (const struct prefix_entry *entry = group->begin; entry < group->end; entry++) {
        if (entry->rule == last || entry->rule == NO_RULE)
            continue;
        last = entry->rule;
        if (service_builder_add(builder, &rules[entry->rule], entry->rule) < 0)
            return -ENOMEM;
    }
    return service_builder_finish(builder, pool, table);
}

static bool has_border(const struct group *group)
{
    for (const struct prefix_entry *entry = group->begin; entry < group->end; entry++) {
        if (entry->border)
            return true;
    }
    return false;
}

static int reserve_index(struct prefix_index *index, size_t entries)
{
    if (entries >= NO_NODE / 2)
        return -ENOMEM;
    /* At most two starts for each prefix: where it begins, and where it ends. */
    index->starts = calloc(2 * entries + 1, sizeof *index->starts);
    index->nodes_at = calloc(2 * entries + 1, sizeof *index->nodes_at);
    index->nodes = calloc(entries + 1, sizeof *index->nodes);
    return index->starts && index->nodes_at && index->nodes ? 0 : -ENOMEM;
}

int prefix_index_build(struct prefix_index *index, struct prefix_entries *entries,
                       const struct rule *rules, struct service_builder *builder,
                       struct service_pool *pool)
{
    struct nest nest = {.depth = 0};
    struct group group, before = {NULL, NULL};
    const struct prefix_entry *end = entries->list + entries->count;

    if (reserve_index(index, entries->count) < 0)
        return -ENOMEM;
    if (entries->count > 0)
        qsort(entries->list, entries->count, sizeof *entries->list, compare_entries);
    for (group.begin = entries->list; group.begin < end; group.begin = group.end) {
        const struct prefix_entry *first = group.begin;
        for (group.end = first + 1; group.end < end && group.end->first == first->first &&
                                    group.end->length == first->length;)
            group.end++;
        close_prefixes(index, &nest, first->first, false);
        uint32_t number = (uint32_t)index->node_count++;
        struct prefix_node *node = &index->nodes[number];
        node->parent = has_border(&group) ? NO_NODE : innermost(&nest);
        /* Of a long list, every prefix has the same table. */
        if (before.begin && same_rules(&group, &before))
            node->services = node[-1].services;
        else if (build_services(&node->services, &group, rules, builder, pool) < 0)
            return -ENOMEM;
        open_prefix(index, &nest, first, number);
        before = group;
    }
    close_prefixes(index, &nest, 0, true);
    return 0;
}

void prefix_index_clear(struct prefix_index *index)
{
    free(index->starts);
    free(index->nodes_at);
    free(index->nodes);
    *index = (struct prefix_index){0};
}

static uint32_t smallest_around(const struct prefix_index *index, prefix_key key)
{
    const prefix_key *starts = index->starts;
    size_t low = 0, high = index->start_count;
    if (high == 0 || key < starts[0])
        return NO_NODE;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (starts[middle] <= key)
            low = middle;
        else
            high = middle;
    }
    return index->nodes_at[low];
}

uint32_t prefix_index_first(const struct prefix_index *index, const struct service_pool *pool,
                            const struct ip_address *address, uint32_t service, uint32_t best)
{
    uint32_t node = smallest_around(index, prefix_key_of(address));
    while (node != NO_NODE) {
        best = service_table_first(pool, &index->nodes[node].services, service, best);
        node = index->nodes[node].parent;
    }
    return best;
}

bool prefix_index_any(const struct prefix_index *index, const struct service_pool *pool,
                      const struct ip_address *address,
                      bool (*test)(const void *ctx, uint32_t rule), const void *ctx)
{
    uint32_t node = smallest_around(index, prefix_key_of(address));
    for (; node != NO_NODE; node = index->nodes[node].parent) {
        const struct service_table *table = &index->nodes[node].services;
        for (uint32_t i = 0; i < table->count; i++) {
            uint32_t rule = pool->spans[table->begin + i].rule;
            if (rule != NO_RULE && test(ctx, rule))
                return true;
        }
    }
    return false;
}
