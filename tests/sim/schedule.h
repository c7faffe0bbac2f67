/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_SCHEDULE_H
#define SIM_SCHEDULE_H

/* The virtual clock and what is to happen when. Events of one instant happen in the order in which
 * they were posted, so a run is a function of its seed alone. */

#include <stddef.h>
#include <stdint.h>

#define NEVER UINT64_MAX
#define US    UINT64_C(1000)
#define MS    UINT64_C(1000000)
#define SEC   UINT64_C(1000000000)

struct schedule_event {
    uint64_t time, order;
    void (*happen)(void *arg);
    void *arg;
};

struct schedule {
    uint64_t now, posted;
    struct schedule_event *heap;
    size_t count, capacity;
};

void schedule_init(struct schedule *schedule, uint64_t now);
void schedule_fini(struct schedule *schedule);
void schedule_post(struct schedule *schedule, uint64_t time, void (*happen)(void *), void *arg);
/* When the first event is due, or NEVER. */
uint64_t schedule_next(const struct schedule *schedule);
/* Takes the first event if it is due. */
int schedule_run_one(struct schedule *schedule);

/* A timer that can be moved and switched off. It may sit in the heap at an earlier time than it is
 * set to, and then moves on when that time comes; it must live as long as the schedule. */
struct alarm {
    struct schedule *schedule;
    uint64_t at, queued_at; /* NEVER: off, not in the heap */
    void (*ring)(void *arg);
    void *arg;
};

void alarm_init(struct alarm *alarm, struct schedule *schedule, void (*ring)(void *), void *arg);
void alarm_set(struct alarm *alarm, uint64_t at);
static inline void alarm_off(struct alarm *alarm)
{
    alarm->at = NEVER;
}
static inline int alarm_is_set(const struct alarm *alarm)
{
    return alarm->at != NEVER;
}

#endif
