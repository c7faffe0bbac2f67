/* SPDX-License-Identifier: Apache-2.0 */
#include "cable.h"

#include <stdlib.h>

struct transit {
    struct cable *cable;
    struct packet *packet;
};

void cable_init(struct cable *cable, struct schedule *schedule, struct rng rng,
                const struct cable_config *config, void (*deliver)(void *, const struct packet *),
                void *ctx)
{
    *cable = (struct cable){
        .schedule = schedule, .rng = rng, .config = *config, .deliver = deliver, .ctx = ctx};
}

bool cable_full(const struct cable *cable)
{
    return cable->config.capacity && cable->in_flight >= cable->config.capacity;
}

static void arrive(void *arg)
{
    struct transit *transit = arg;
    struct cable *cable = transit->cable;
    cable->in_flight--;
    if (cable->deliver)
        cable->deliver(cable->ctx, transit->packet);
    packet_free(transit->packet);
    free(transit);
}

static void carry(struct cable *cable, struct packet *take_packet, uint64_t due)
{
    struct transit *transit = malloc(sizeof(*transit));
    if (!transit)
        abort();
    *transit = (struct transit){.cable = cable, .packet = take_packet};
    cable->in_flight++;
    schedule_post(cable->schedule, due, arrive, transit);
}

static uint64_t due_in_order(struct cable *cable)
{
    uint64_t due = cable->schedule->now + cable->config.delay;
    if (cable->config.jitter)
        due += rng_between(&cable->rng, 0, cable->config.jitter);
    if (due < cable->last_due)
        due = cable->last_due;
    cable->last_due = due;
    return due;
}

static void send_one(struct cable *cable, struct packet *take_packet)
{
    const struct cable_config *config = &cable->config;
    struct rng *rng = &cable->rng;
    if (rng_chance(rng, config->stale))
        carry(cable, packet_copy(take_packet),
              cable->schedule->now + config->delay + rng_scaled(rng, 1 * MS, 2 * SEC));
    if (rng_chance(rng, config->duplicate))
        carry(cable, packet_copy(take_packet),
              cable->schedule->now + config->delay + rng_scaled(rng, 0, 10 * MS));
    bool lost = rng_chance(rng, config->loss);
    if (cable->pick && cable->pick(cable->ctx, take_packet))
        lost = true;
    if (lost) {
        cable->lost++;
        packet_free(take_packet);
        return;
    }
    uint64_t due = due_in_order(cable);
    if (rng_chance(rng, config->reorder))
        due += rng_scaled(rng, 1, config->reorder_delay);
    carry(cable, take_packet, due);
}

void cable_send(struct cable *cable, struct packet *take_packet)
{
    take_packet->number = cable->sent++;
    struct packet *list = cable->config.split ? packet_split(take_packet) : take_packet;
    while (list) {
        struct packet *next = list->next;
        list->next = NULL;
        send_one(cable, list);
        list = next;
    }
}
