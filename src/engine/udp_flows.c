/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/udp_flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define BUCKETS 1024u

/* ---- finding ---- */

static struct udp_flow **bucket_of(const struct udp_flows *flows, const struct flow_key *key)
{
    return &flows->buckets[hash_bytes(flows->hash_key, key, sizeof *key) % BUCKETS];
}

struct udp_flow *udp_flows_find(const struct udp_flows *flows, const struct flow_key *key)
{
    struct udp_flow *flow = flows->count ? *bucket_of(flows, key) : NULL;

    while (flow && memcmp(&flow->key, key, sizeof *key) != 0)
        flow = flow->next_in_bucket;
    return flow;
}

/* ---- life and death ---- */

int udp_flows_init(struct udp_flows *flows, struct timers *timers, const uint64_t hash_key[2])
{
    *flows = (struct udp_flows){.timers = timers, .hash_key = {hash_key[0], hash_key[1]}};
    list_init(&flows->by_use);
    list_init(&flows->pending);
    flows->buckets = calloc(BUCKETS, sizeof(*flows->buckets));
    return flows->buckets ? 0 : -ENOMEM;
}

void udp_flows_fini(struct udp_flows *flows)
{
    struct list *link;

    if (!flows->buckets)
        return;
    while ((link = list_first(&flows->by_use)))
        udp_flows_remove(flows, list_entry(link, struct udp_flow, by_use));
    free(flows->buckets);
    flows->buckets = NULL;
}

struct udp_flow *udp_flows_add(struct udp_flows *flows, const struct flow_key *key,
                               void (*impatient)(void *arg, struct timer *timer, uint64_t now))
{
    struct udp_flow **bucket = bucket_of(flows, key), *flow = calloc(1, sizeof *flow);

    if (!flow)
        return NULL;
    flow->key = *key;
    flow->next_in_bucket = *bucket;
    *bucket = flow;
    list_init(&flow->pending);
    list_push_back(&flows->by_use, &flow->by_use);
    timer_init(&flow->patience, impatient);
    flows->count++;
    return flow;
}

static void account(struct udp_flows *flows, struct udp_flow *flow)
{
    flows->bytes -= flow->bytes;
    flow->bytes = flow->held_bytes + quic_hello_bytes(&flow->hello);
    flows->bytes += flow->bytes;
}

void udp_flows_remove(struct udp_flows *flows, struct udp_flow *flow)
{
    struct udp_flow **at = bucket_of(flows, &flow->key);

    while (*at != flow)
        at = &(*at)->next_in_bucket;
    *at = flow->next_in_bucket;
    for (struct udp_held *held = udp_flow_take_held(flows, flow); held;)
        held = udp_held_free(held);
    quic_hello_reset(&flow->hello);
    account(flows, flow);
    udp_flow_forget_records(flow);
    list_remove(&flow->by_use);
    flows->count--;
    free(flow);
}

void udp_flow_forget_records(struct udp_flow *flow)
{
    while (flow->record_count > 0)
        free(flow->records[--flow->record_count]);
}

/* ---- bounds ---- */

void udp_flows_touch(struct udp_flows *flows, struct udp_flow *flow)
{
    account(flows, flow);
    list_remove(&flow->by_use);
    list_push_back(&flows->by_use, &flow->by_use);
}

static struct udp_flow *oldest(struct list *link, const struct list *head,
                               const struct udp_flow *but, bool pending)
{
    for (; link != head; link = link->next) {
        struct udp_flow *flow = pending ? list_entry(link, struct udp_flow, pending)
                                        : list_entry(link, struct udp_flow, by_use);

        if (flow != but)
            return flow;
    }
    return NULL;
}

struct udp_flow *udp_flows_excess(const struct udp_flows *flows, const struct udp_flow *but)
{
    if (flows->pending_count > UDP_FLOWS_PENDING)
        return oldest(flows->pending.next, &flows->pending, but, true);
    if (flows->count > UDP_FLOWS_MAX || flows->bytes > UDP_FLOWS_BYTES)
        return oldest(flows->by_use.next, &flows->by_use, but, false);
    return NULL;
}

/* ---- what waits ---- */

int udp_flow_hold(struct udp_flows *flows, struct udp_flow *flow,
                  const struct udp_datagram *datagram, uint64_t until)
{
    struct udp_held *held = malloc(sizeof *held);

    if (!held)
        return -ENOMEM;
    *held = (struct udp_held){.datagram = *datagram};
    if (flow->last_held) {
        flow->last_held->next = held;
    } else {
        flow->first_held = held;
        list_push_back(&flows->pending, &flow->pending);
        flows->pending_count++;
        timer_arm(flows->timers, &flow->patience, until);
    }
    flow->last_held = held;
    flow->held_count++;
    flow->held_bytes += sizeof *held + culvert_frame_len(datagram->frame);
    account(flows, flow);
    return 0;
}

struct udp_held *udp_flow_take_held(struct udp_flows *flows, struct udp_flow *flow)
{
    struct udp_held *first = flow->first_held;

    if (!first)
        return NULL;
    flow->first_held = flow->last_held = NULL;
    flow->held_count = 0;
    flow->held_bytes = 0;
    list_remove(&flow->pending);
    flows->pending_count--;
    timer_cancel(flows->timers, &flow->patience);
    account(flows, flow);
    return first;
}

struct udp_held *udp_held_free(struct udp_held *held)
{
    struct udp_held *next = held->next;

    culvert_frame_unref(held->datagram.frame);
    free(held);
    return next;
}
