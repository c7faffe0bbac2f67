/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SPIN_H
#define ENGINE_SPIN_H

/* Whether to look again for a few microseconds before sleeping (--spin-us).
 *
 * On a quiet machine most of a small request's time is waking sleeping cores. A spin saves that if
 * the next event comes within it, and if nobody else wanted the core meanwhile. So it is bought:
 *
 * - on credit, which events that come soon earn and a spin that ends in vain costs: an idle engine,
 *   or one whose events lie far apart, has none and sleeps at once;
 * - not by bulk transfers, which keep other cores busy and gain by sleeping (what comes meanwhile
 *   is read at once): a turn that moves much takes all credit away;
 * - not on a busy machine. Between two looks the thread yields. If it gets the core back late,
 *   somebody wanted it for longer than a request takes, and spinning rests, for longer each time;
 * - within an allowance of half a core.
 *
 * A wait begins with spin_idle() and ends with spin_met(). The clock is the caller's. */

#include <stdbool.h>
#include <stdint.h>

#define SPIN_CREDIT_MAX 16
#define SPIN_VAIN_COST  4
#define SPIN_BULK       (16u << 10) /* bytes in a turn: more are no small request's */
#define SPIN_ALLOWANCE  UINT64_C(1000000)
#define SPIN_CROWDED    UINT64_C(100000) /* a yield that took longer */
#define SPIN_REST_MIN   UINT64_C(10000000)
#define SPIN_REST_MAX   UINT64_C(1000000000)

struct spin {
    uint64_t length; /* ns; 0: never */
    uint64_t since;  /* when the thread ran out of work; 0: it has some */
    bool running;
    int credit;
    uint64_t moved;                 /* bytes, when last asked */
    uint64_t allowance, allowed_at; /* ns that may be spent; when that was last reckoned */
    uint64_t rest, rested_at;       /* the last rest's length and end */
};

static inline void spin_init(struct spin *spin, uint64_t length)
{
    *spin = (struct spin){.length = length, .allowance = SPIN_ALLOWANCE};
}

static inline bool spin_affordable(struct spin *spin, uint64_t now)
{
    if (spin->credit <= 0 || now < spin->rested_at)
        return false;
    spin->allowance += (now - spin->allowed_at) / 2;
    if (spin->allowance > SPIN_ALLOWANCE)
        spin->allowance = SPIN_ALLOWANCE;
    spin->allowed_at = now;
    return spin->allowance > spin->length;
}

/* Asked in every turn, when its work is nearly done: does a spin run, or begin now? `moved`: all
 * bytes ever moved. */
static inline bool spin_due(struct spin *spin, uint64_t now, uint64_t moved)
{
    if (spin->length == 0)
        return false;
    bool bulk = moved - spin->moved > SPIN_BULK;

    spin->moved = moved;
    if (bulk) {
        spin->credit = -SPIN_CREDIT_MAX;
        spin->running = false;
    } else if (spin->since == 0) {
        spin->running = spin_affordable(spin, now);
    } else if (spin->running && now - spin->since >= spin->length) {
        spin->credit -= SPIN_VAIN_COST;
        spin->allowance -= spin->length;
        spin->running = false;
    }
    return spin->running;
}

/* There is nothing to do at `now`. */
static inline void spin_idle(struct spin *spin, uint64_t now)
{
    if (spin->since == 0)
        spin->since = now;
}

/* Between two looks the thread yielded, and was back at `now`. */
static inline void spin_yielded(struct spin *spin, uint64_t before, uint64_t now)
{
    if (now - before < SPIN_CROWDED)
        return;
    bool again = spin->rest != 0 && now - spin->rested_at < spin->rest;

    spin->rest = !again                           ? SPIN_REST_MIN
                 : spin->rest * 2 < SPIN_REST_MAX ? spin->rest * 2
                                                  : SPIN_REST_MAX;
    spin->rested_at = now + spin->rest;
    spin->running = false;
}

/* Something happened at `now`. A sleeper hears of it late by about what a spin would have cost. */
static inline void spin_met(struct spin *spin, uint64_t now)
{
    if (spin->since == 0)
        return;
    uint64_t waited = now - spin->since;
    uint64_t soon = spin->running ? spin->length : 2 * spin->length;

    if (spin->running)
        spin->allowance -= waited < spin->allowance ? waited : spin->allowance;
    if (waited < soon && spin->credit < SPIN_CREDIT_MAX)
        spin->credit++;
    spin->since = 0;
    spin->running = false;
}

#endif
