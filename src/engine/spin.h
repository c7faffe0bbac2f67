/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SPIN_H
#define ENGINE_SPIN_H

/* Whether to look again for a few microseconds before sleeping (--spin-us).
 *
 * On a quiet machine most of a small request's time is waking sleeping cores. A spin pays only if
 * the next event comes within it, so it is bought on credit: a sleep that turns out shorter than a
 * spin earns credit, a spin that is met by an event earns more, one that ends in vain costs twice
 * as much. An idle engine, or one whose events lie far apart, has none and sleeps at once. Between
 * two looks the thread yields, so whoever else is runnable on this core goes first, and a busy
 * machine loses nothing but the looks. */

#include <stdbool.h>
#include <stdint.h>

#define SPIN_CREDIT_MAX 16

struct spin {
    uint64_t length; /* ns; 0: never */
    uint64_t until;  /* the running spin's end; 0: none runs */
    int credit;
};

/* Something happened at `now`: from here on a spin may run. */
static inline void spin_begin(struct spin *spin, uint64_t now)
{
    spin->until = spin->length != 0 && spin->credit > 0 ? now + spin->length : 0;
}

/* Is the spin on at `now`? One that has just ended in vain is paid for here. */
static inline bool spin_running(struct spin *spin, uint64_t now)
{
    if (spin->until == 0 || now < spin->until)
        return spin->until != 0;
    spin->until = 0;
    spin->credit -= 2;
    return false;
}

/* An event came after `waited` ns, in a spin or a sleep. */
static inline void spin_met(struct spin *spin, uint64_t waited)
{
    if (waited < spin->length && spin->credit < SPIN_CREDIT_MAX)
        spin->credit++;
    else if (waited >= spin->length && spin->credit < 0)
        spin->credit = 0;
}

#endif
