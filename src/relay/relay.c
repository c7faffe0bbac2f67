/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "relay/internal.h"
#include "relay/publish.h"

#define MTU_DEFAULT 1500

struct relay *relay_new(struct stack *stack, struct loop *loop, struct timers *timers,
                        struct counters *counters)
{
    struct relay *relay = calloc(1, sizeof *relay);
    int r;

    if (!relay)
        return NULL;
    relay->stack = stack;
    relay->loop = loop;
    relay->timers = timers;
    relay->counters = counters;
    relay->mtu = MTU_DEFAULT;
    r = mapping_init(relay);
    if (r < 0) {
        free(relay);
        errno = -r;
        return NULL;
    }
    relay_tcp_init(relay);
    echo_probe(relay);
    return relay;
}

struct relay *relay_free(struct relay *relay)
{
    if (!relay)
        return NULL;
    publish_free(relay->publish);
    relay_tcp_fini(relay);
    mapping_fini(relay);
    udp_batch_free(relay);
    udp_receiver_free(relay);
    echo_buffer_free(relay);
    free(relay);
    return NULL;
}

void relay_set_mtu(struct relay *relay, uint32_t mtu)
{
    relay->mtu = mtu;
}

void relay_set_judge(struct relay *relay, relay_judge *judge, void *ctx)
{
    relay->judge = judge;
    relay->judge_ctx = ctx;
}

void relay_policy_changed(struct relay *relay)
{
    relay->policies++;
}

bool relay_run(struct relay *relay, uint64_t now)
{
    bool datagrams, bytes;

    relay->now = now;
    datagrams = mapping_run(relay); /* first: what waits there is lost when its queue is full */
    bytes = relay_tcp_run(relay);
    return datagrams || bytes;
}

bool relay_pending(const struct relay *relay)
{
    return !list_empty(&relay->ready_flows) || !list_empty(&relay->ready_mappings);
}
