/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_TIMERS_H
#define BASE_TIMERS_H

/* Timers of one thread: arming and cancelling in O(1), no tick when nothing is due.
 *
 * Time is nanoseconds of any monotonic clock that the caller passes in; timers never read one
 * themselves. A timer may fire up to TIMERS_SLACK later than asked, never earlier. */

#include <stdbool.h>
#include <stdint.h>

#define TIMERS_NEVER UINT64_MAX
#define TIMERS_SLACK                                                                               \
    UINT64_C(262144) /* ns; a power of two: wake-ups are gathered on its multiples */
#define MS_NS     UINT64_C(1000000)
#define SECOND_NS UINT64_C(1000000000)

struct timers;

/* Embedded in what it times; all zero: not armed. Must not move or be freed while armed. */
struct timer {
    struct timer *next, **prev_next, *child;
    uint64_t deadline;
    void (*expired)(void *arg, struct timer *timer,
                    uint64_t now); /* not armed any more when called; may arm again */
    uint32_t slot;                 /* the implementation's */
};

struct timers *timers_new(void *arg,
                          uint64_t now); /* arg is handed to every `expired`; NULL: ENOMEM */
struct timers *timers_free(struct timers *timers);

void timer_init(struct timer *timer, void (*expired)(void *, struct timer *, uint64_t));
/* Arms, or moves an armed timer. A deadline in the past fires at the next timers_expire(). */
void timer_arm(struct timers *timers, struct timer *timer, uint64_t deadline);
void timer_cancel(struct timers *timers, struct timer *timer); /* not armed: no effect */
static inline bool timer_armed(const struct timer *timer)
{
    return timer->prev_next != 0;
}

/* When timers_expire() must next be called at the latest: exact enough that a sleep until then is
 * followed by at least one timer firing except for cascades (rare, and never more than one per hour
 * of idleness). TIMERS_NEVER: nothing is armed. */
uint64_t timers_next(const struct timers *timers);
/* Fires everything due at `now`. Timers armed by a callback with a deadline <= now fire in a later
 * call. */
void timers_expire(struct timers *timers, uint64_t now);

#endif
