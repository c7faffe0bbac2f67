/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CABLE_H
#define SIM_CABLE_H

/* One direction of a wire with faults: loss, delay, reordering, duplicates (some of them seconds
 * late), cutting of GSO frames, and losses picked by hand. */

#include "packet.h"
#include "schedule.h"

struct cable_config {
    uint64_t delay, jitter;   /* ns; jitter keeps the order */
    unsigned loss, duplicate; /* permille */
    unsigned reorder;         /* permille held back for up to reorder_delay */
    uint64_t reorder_delay;
    unsigned stale;   /* permille that come once more, up to two seconds late */
    bool split;       /* a device without TSO */
    size_t capacity;  /* packets in flight before cable_full(); 0: any */
    unsigned refusal; /* permille of moments at which it is full for no reason */
};

struct cable {
    struct schedule *schedule;
    struct rng rng;
    struct cable_config config;
    void (*deliver)(void *ctx, const struct packet *packet);
    void *ctx;
    /* True: this packet is lost (after cutting). For losses picked by hand; may be NULL. */
    bool (*pick)(void *ctx, const struct packet *packet);
    uint64_t last_due;
    size_t in_flight;
    unsigned sent, lost;
};

void cable_init(struct cable *cable, struct schedule *schedule, struct rng rng,
                const struct cable_config *config,
                void (*deliver)(void *ctx, const struct packet *packet), void *ctx);
bool cable_full(const struct cable *cable);
void cable_send(struct cable *cable, struct packet *take_packet);

#endif
