/* SPDX-License-Identifier: Apache-2.0 */
/* The table of TCP flows.
 *
 * Flows live in blocks that are made when first needed and never move, so an index names a flow for
 * good and its generation says which life of it. They are found by a keyed hash of their addresses
 * and ports: the guest chooses these, so the key is secret. Freed slots are reused in the order of
 * their freeing, which makes a stale handle's generation long out of date before the slot lives
 * again. */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/hash.h"
#include "stack/tcp_internal.h"

#define TABLE_INITIAL 256u

int tcp_flows_init(struct tcp *tcp)
{
    tcp->table = calloc(TABLE_INITIAL, sizeof *tcp->table);
    if (!tcp->table)
        return -ENOMEM;
    tcp->table_mask = TABLE_INITIAL - 1;
    TAILQ_INIT(&tcp->batch);
    TAILQ_INIT(&tcp->waiting_for_link);
    TAILQ_INIT(&tcp->waiting_for_memory);
    TAILQ_INIT(&tcp->connecting);
    TAILQ_INIT(&tcp->time_wait);
    return 0;
}

void tcp_flows_fini(struct tcp *tcp)
{
    for (uint32_t i = 0; i < tcp->block_count; i++)
        free(tcp->blocks[i]);
    free(tcp->blocks);
    free(tcp->table);
}

static uint32_t bucket_of(const struct tcp *tcp, const struct flow_key *key)
{
    return (uint32_t)hash_bytes(tcp->stack->config.hash_key, key, sizeof *key) & tcp->table_mask;
}

static void table_grow(struct tcp *tcp)
{
    uint32_t old_mask = tcp->table_mask;
    struct tcp_flow **old = tcp->table;
    struct tcp_flow **table = calloc((size_t)(old_mask + 1) * 2, sizeof *table);

    if (!table)
        return; /* longer chains still work */
    tcp->table = table;
    tcp->table_mask = old_mask * 2 + 1;
    for (uint32_t i = 0; i <= old_mask; i++) {
        while (old[i]) {
            struct tcp_flow *flow = old[i];
            struct tcp_flow **to = &table[bucket_of(tcp, &flow->key)];

            old[i] = flow->hash_next;
            flow->hash_next = *to;
            *to = flow;
        }
    }
    free(old);
}

static bool block_add(struct tcp *tcp)
{
    struct tcp_flow **blocks = realloc(tcp->blocks, (tcp->block_count + 1) * sizeof *tcp->blocks);

    if (!blocks)
        return false;
    tcp->blocks = blocks;
    struct tcp_flow *block = calloc(TCP_FLOWS_PER_BLOCK, sizeof *block);
    if (!block)
        return false;
    blocks[tcp->block_count] = block;
    for (uint32_t i = 0; i < TCP_FLOWS_PER_BLOCK; i++) {
        struct tcp_flow *flow = &block[i];

        flow->index = tcp->block_count * TCP_FLOWS_PER_BLOCK + i;
        if (tcp->free_last)
            tcp->free_last->hash_next = flow;
        else
            tcp->free_first = flow;
        tcp->free_last = flow;
    }
    tcp->block_count++;
    return true;
}

static struct tcp_flow *slot_take(struct tcp *tcp)
{
    if (!tcp->free_first && !block_add(tcp))
        return NULL;
    struct tcp_flow *flow = tcp->free_first;
    tcp->free_first = flow->hash_next;
    if (!tcp->free_first)
        tcp->free_last = NULL;
    return flow;
}

/* At --max-flows: what has ended makes room, then whoever has waited long for a host that may never
 * answer (its guest's next SYN begins anew), so that a guest's scan cannot keep it from the net. */
static bool flow_yields(struct tcp *tcp)
{
    struct tcp_flow *oldest = TAILQ_FIRST(&tcp->time_wait);

    if (oldest) {
        tcp_flow_free(tcp, oldest);
        return true;
    }
    oldest = TAILQ_FIRST(&tcp->connecting);
    if (oldest && tcp->stack->now - oldest->heard_at >= TCP_CONNECT_YIELDS) {
        count(tcp->stack->counters, COUNTER_tcp_connect_yielded);
        tcp_end(tcp, oldest, TCP_CLOSE_VANISHED);
        return true;
    }
    count(tcp->stack->counters, COUNTER_tcp_flow_limit);
    return false;
}

struct tcp_flow *tcp_flow_new(struct tcp *tcp, const struct flow_key *key)
{
    if (tcp->flow_count >= tcp->stack->config.max_flows && !flow_yields(tcp))
        return NULL;
    struct tcp_flow *flow = slot_take(tcp);
    if (!flow) {
        count(tcp->stack->counters, COUNTER_tcp_no_memory);
        return NULL;
    }

    uint32_t index = flow->index, generation = flow->generation;
    *flow = (struct tcp_flow){.index = index, .generation = generation, .key = *key, .tcp = tcp};
    timer_init(&flow->timer, tcp_timer_expired);
    flow->retransmit_at = TIMERS_NEVER;
    flow->lifetime_at = TIMERS_NEVER;
    flow->heard_at = tcp->stack->now;
    flow->rto = TCP_RTO_INITIAL;
    flow->rcv_allowance = TCP_FLOW_QUEUE_LOW;

    if (tcp->flow_count > tcp->table_mask)
        table_grow(tcp);
    struct tcp_flow **bucket = &tcp->table[bucket_of(tcp, key)];
    flow->hash_next = *bucket;
    *bucket = flow;
    flow->in_table = true;
    tcp->flow_count++;
    return flow;
}

void tcp_flow_connect_begins(struct tcp *tcp, struct tcp_flow *flow)
{
    flow->state = TCP_CONNECTING;
    flow->lifetime_at = tcp->stack->now + TCP_CONNECT_LIFETIME;
    TAILQ_INSERT_TAIL(&tcp->connecting, flow, waiting_link);
}

void tcp_flow_connect_ends(struct tcp *tcp, struct tcp_flow *flow)
{
    if (flow->state == TCP_CONNECTING)
        TAILQ_REMOVE(&tcp->connecting, flow, waiting_link);
}

void tcp_flow_leave_table(struct tcp *tcp, struct tcp_flow *flow)
{
    if (!flow->in_table)
        return;
    struct tcp_flow **at = &tcp->table[bucket_of(tcp, &flow->key)];
    while (*at != flow)
        at = &(*at)->hash_next;
    *at = flow->hash_next;
    flow->hash_next = NULL;
    flow->in_table = false;
}

void tcp_flow_free(struct tcp *tcp, struct tcp_flow *flow)
{
    const struct stack *stack = tcp->stack;

    assert(flow->state != TCP_FREE && "a flow is freed once");
    if (stack->ops.tcp_closed)
        stack->ops.tcp_closed(stack->ctx, tcp_flow_handle(flow));
    tcp_flow_leave_table(tcp, flow);
    if (flow->in_batch)
        TAILQ_REMOVE(&tcp->batch, flow, batch_link);
    if (flow->state == TCP_TIME_WAIT)
        TAILQ_REMOVE(&tcp->time_wait, flow, waiting_link);
    else
        tcp_flow_stop_waiting(tcp, flow);
    tcp_flow_connect_ends(tcp, flow);
    timer_cancel(tcp->stack->timers, &flow->timer);
    tcp->queued -= flow->for_host.bytes + flow->out_of_order.bytes;
    tcp->promised -= flow->rcv_promised;
    tcp_queue_clear(tcp, &flow->unacked);
    tcp_queue_clear(tcp, &flow->for_host);
    tcp_queue_clear(tcp, &flow->out_of_order);
    tcp_scoreboard_clear(flow);

    flow->state = TCP_FREE;
    flow->in_batch = false;
    flow->generation = (flow->generation + 1) & 0xffffff;
    flow->hash_next = NULL;
    if (tcp->free_last)
        tcp->free_last->hash_next = flow;
    else
        tcp->free_first = flow;
    tcp->free_last = flow;
    tcp->flow_count--;
}

struct tcp_flow *tcp_flow_find(struct tcp *tcp, const struct flow_key *key)
{
    struct tcp_flow *flow = tcp->table[bucket_of(tcp, key)];

    while (flow && memcmp(&flow->key, key, sizeof *key) != 0)
        flow = flow->hash_next;
    return flow;
}

struct tcp_flow *tcp_flow_of(struct stack *stack, struct flow_handle handle)
{
    struct tcp *tcp = stack->tcp;

    if (handle.index >= tcp->block_count * TCP_FLOWS_PER_BLOCK)
        return NULL;
    struct tcp_flow *flow =
        &tcp->blocks[handle.index / TCP_FLOWS_PER_BLOCK][handle.index % TCP_FLOWS_PER_BLOCK];
    if (flow->generation != handle.generation || flow->state == TCP_FREE)
        return NULL;
    return flow;
}

struct flow_handle tcp_flow_handle(const struct tcp_flow *flow)
{
    return (struct flow_handle){flow->index, flow->generation};
}

void tcp_flow_touch(struct tcp *tcp, struct tcp_flow *flow)
{
    if (flow->in_batch)
        return;
    flow->in_batch = true;
    TAILQ_INSERT_TAIL(&tcp->batch, flow, batch_link);
}

void tcp_flow_wait_for_link(struct tcp *tcp, struct tcp_flow *flow)
{
    if (flow->state == TCP_TIME_WAIT)
        tcp->time_wait_owes_ack = true; /* its place in a list is taken */
    if (flow->waits_for_link || flow->state == TCP_TIME_WAIT)
        return;
    tcp_flow_stop_waiting(tcp, flow);
    flow->waits_for_link = true;
    TAILQ_INSERT_TAIL(&tcp->waiting_for_link, flow, waiting_link);
}

void tcp_flow_wait_for_memory(struct tcp *tcp, struct tcp_flow *flow)
{
    if (flow->waits_for_link || flow->waits_for_memory || flow->state == TCP_TIME_WAIT)
        return; /* whoever waits for the link looks at everything afterwards */
    flow->waits_for_memory = true;
    TAILQ_INSERT_TAIL(&tcp->waiting_for_memory, flow, waiting_link);
}

void tcp_flow_stop_waiting(struct tcp *tcp, struct tcp_flow *flow)
{
    if (flow->waits_for_link)
        TAILQ_REMOVE(&tcp->waiting_for_link, flow, waiting_link);
    if (flow->waits_for_memory)
        TAILQ_REMOVE(&tcp->waiting_for_memory, flow, waiting_link);
    flow->waits_for_link = false;
    flow->waits_for_memory = false;
}
