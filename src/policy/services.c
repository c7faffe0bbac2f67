/* SPDX-License-Identifier: Apache-2.0 */

/* Painting spans: the edges of all ranges cut the line of services into pieces; the rules, first to
 * last, take those of their pieces that no earlier rule has. A piece that is taken is skipped for
 * good (`next` is a disjoint-set forest), so a table of n ranges costs n log n whatever overlaps.
 */

#include "policy/services.h"

#include <errno.h>
#include <stdlib.h>

#define SERVICE_END (3u << 16)

static uint32_t protocol_index(enum policy_protocol protocol)
{
    return protocol == POLICY_TCP ? 0 : protocol == POLICY_UDP ? 1 : 2;
}

uint32_t service_number(enum policy_protocol protocol, uint16_t port)
{
    return protocol_index(protocol) << 16 | port;
}

static int add_range(struct service_builder *builder, uint32_t first, uint32_t last, uint32_t rule)
{
    if (builder->count == builder->capacity) {
        size_t capacity = builder->capacity ? builder->capacity * 2 : 16;
        void *larger = reallocarray(builder->ranges, capacity, sizeof *builder->ranges);
        if (!larger)
            return -ENOMEM;
        builder->ranges = larger;
        builder->capacity = capacity;
    }
    builder->ranges[builder->count++] = (struct service_range){first, last, rule};
    return 0;
}

static int add_protocol(struct service_builder *builder, const struct rule *rule, uint32_t number,
                        enum policy_protocol protocol)
{
    if (!(rule->protocols & protocol))
        return 0;
    if (rule->port_count == 0)
        return add_range(builder, service_number(protocol, 0), service_number(protocol, UINT16_MAX),
                         number);
    int r = 0;
    for (size_t i = 0; i < rule->port_count && r == 0; i++)
        r = add_range(builder, service_number(protocol, rule->ports[i].low),
                      service_number(protocol, rule->ports[i].high), number);
    return r;
}

int service_builder_add(struct service_builder *builder, const struct rule *rule, uint32_t number)
{
    int r = add_protocol(builder, rule, number, POLICY_TCP);
    if (r == 0)
        r = add_protocol(builder, rule, number, POLICY_UDP);
    return r == 0 ? add_protocol(builder, rule, number, POLICY_ICMP) : r;
}

static int reserve_scratch(struct service_builder *builder, size_t edges)
{
    if (edges <= builder->edge_capacity)
        return 0;
    uint32_t **arrays[] = {&builder->edges, &builder->next, &builder->owner};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        uint32_t *larger = reallocarray(*arrays[i], edges * 2, sizeof *larger);
        if (!larger)
            return -ENOMEM;
        *arrays[i] = larger;
    }
    builder->edge_capacity = edges * 2;
    return 0;
}

static int compare_edges(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The distinct edges, sorted, 0 and SERVICE_END among them; returns how many. */
static size_t collect_edges(struct service_builder *builder)
{
    uint32_t *edges = builder->edges;
    size_t count = 0, distinct = 0;
    edges[count++] = 0;
    edges[count++] = SERVICE_END;
    for (size_t i = 0; i < builder->count; i++) {
        edges[count++] = builder->ranges[i].first;
        edges[count++] = builder->ranges[i].last + 1;
    }
    qsort(edges, count, sizeof *edges, compare_edges);
    for (size_t i = 0; i < count; i++) {
        if (distinct == 0 || edges[i] != edges[distinct - 1])
            edges[distinct++] = edges[i];
    }
    return distinct;
}

static uint32_t edge_index(const uint32_t *edges, size_t count, uint32_t edge)
{
    const uint32_t *found = bsearch(&edge, edges, count, sizeof *edges, compare_edges);
    return (uint32_t)(found - edges);
}

/* The first piece from `piece` on that has no rule; shortens the way for later calls. */
static uint32_t next_unowned(uint32_t *next, uint32_t piece)
{
    uint32_t root = piece;
    while (next[root] != root)
        root = next[root];
    while (next[piece] != root) {
        uint32_t following = next[piece];
        next[piece] = root;
        piece = following;
    }
    return root;
}

static void paint(struct service_builder *builder, size_t edge_count)
{
    for (uint32_t i = 0; i < edge_count; i++) {
        builder->next[i] = i;
        builder->owner[i] = NO_RULE;
    }
    for (size_t i = 0; i < builder->count; i++) {
        const struct service_range *range = &builder->ranges[i];
        uint32_t end = edge_index(builder->edges, edge_count, range->last + 1);
        uint32_t piece = edge_index(builder->edges, edge_count, range->first);
        while ((piece = next_unowned(builder->next, piece)) < end) {
            builder->owner[piece] = range->rule;
            builder->next[piece] = piece + 1;
        }
    }
}

static int reserve_spans(struct service_pool *pool, size_t more)
{
    if (pool->count + more > UINT32_MAX)
        return -ENOMEM;
    if (pool->count + more <= pool->capacity)
        return 0;
    size_t capacity = (pool->count + more) * 2;
    void *larger = reallocarray(pool->spans, capacity, sizeof *pool->spans);
    if (!larger)
        return -ENOMEM;
    pool->spans = larger;
    pool->capacity = capacity;
    return 0;
}

int service_builder_finish(struct service_builder *builder, struct service_pool *pool,
                           struct service_table *ret)
{
    struct service_table table = {.begin = (uint32_t)pool->count, .lowest = NO_RULE};
    if (builder->count > 0) {
        if (reserve_scratch(builder, 2 * builder->count + 2) < 0)
            return -ENOMEM;
        size_t edge_count = collect_edges(builder);
        if (reserve_spans(pool, edge_count) < 0)
            return -ENOMEM;
        paint(builder, edge_count);
        uint32_t last = NO_RULE;
        for (size_t i = 0; i + 1 < edge_count; i++) {
            if (i > 0 && builder->owner[i] == last)
                continue;
            last = builder->owner[i];
            pool->spans[pool->count++] = (struct service_span){builder->edges[i], last};
        }
        table.count = (uint32_t)pool->count - table.begin;
        table.lowest = builder->ranges[0].rule;
    }
    builder->count = 0;
    *ret = table;
    return 0;
}

uint32_t service_table_first(const struct service_pool *pool, const struct service_table *table,
                             uint32_t service, uint32_t best)
{
    if (table->count == 0 || table->lowest >= best)
        return best;
    /* The last span that begins at or before `service`; the first begins at 0. */
    const struct service_span *spans = pool->spans + table->begin;
    uint32_t low = 0, high = table->count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (spans[middle].first <= service)
            low = middle;
        else
            high = middle;
    }
    return spans[low].rule < best ? spans[low].rule : best;
}

void service_builder_clear(struct service_builder *builder)
{
    free(builder->ranges);
    free(builder->edges);
    free(builder->next);
    free(builder->owner);
    *builder = (struct service_builder){0};
}

void service_pool_clear(struct service_pool *pool)
{
    free(pool->spans);
    *pool = (struct service_pool){0};
}
