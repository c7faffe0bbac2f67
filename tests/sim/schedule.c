/* SPDX-License-Identifier: Apache-2.0 */
#include "schedule.h"

#include <stdlib.h>

void schedule_init(struct schedule *schedule, uint64_t now)
{
    *schedule = (struct schedule){.now = now};
}

void schedule_fini(struct schedule *schedule)
{
    free(schedule->heap);
    *schedule = (struct schedule){0};
}

static int earlier(const struct schedule_event *a, const struct schedule_event *b)
{
    return a->time != b->time ? a->time < b->time : a->order < b->order;
}

void schedule_post(struct schedule *schedule, uint64_t time, void (*happen)(void *), void *arg)
{
    if (schedule->count == schedule->capacity) {
        schedule->capacity = schedule->capacity ? 2 * schedule->capacity : 256;
        schedule->heap =
            realloc(schedule->heap, schedule->capacity * sizeof(struct schedule_event));
        if (!schedule->heap)
            abort();
    }
    struct schedule_event event = {
        .time = time < schedule->now ? schedule->now : time,
        .order = schedule->posted++,
        .happen = happen,
        .arg = arg,
    };
    size_t i = schedule->count++;
    for (; i > 0 && earlier(&event, &schedule->heap[(i - 1) / 2]); i = (i - 1) / 2)
        schedule->heap[i] = schedule->heap[(i - 1) / 2];
    schedule->heap[i] = event;
}

uint64_t schedule_next(const struct schedule *schedule)
{
    return schedule->count ? schedule->heap[0].time : NEVER;
}

static void take_first(struct schedule *schedule)
{
    struct schedule_event last = schedule->heap[--schedule->count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= schedule->count)
            break;
        if (child + 1 < schedule->count &&
            earlier(&schedule->heap[child + 1], &schedule->heap[child]))
            child++;
        if (!earlier(&schedule->heap[child], &last))
            break;
        schedule->heap[i] = schedule->heap[child];
        i = child;
    }
    schedule->heap[i] = last;
}

int schedule_run_one(struct schedule *schedule)
{
    if (schedule_next(schedule) > schedule->now)
        return 0;
    struct schedule_event event = schedule->heap[0];
    take_first(schedule);
    event.happen(event.arg);
    return 1;
}

static void alarm_due(void *arg)
{
    struct alarm *alarm = arg;
    uint64_t now = alarm->schedule->now;
    if (alarm->queued_at > now)
        return; /* superseded by an earlier entry that has rung and been set again */
    alarm->queued_at = NEVER;
    if (alarm->at == NEVER)
        return;
    if (alarm->at > now) {
        alarm_set(alarm, alarm->at);
        return;
    }
    alarm->at = NEVER;
    alarm->ring(alarm->arg);
}

void alarm_init(struct alarm *alarm, struct schedule *schedule, void (*ring)(void *), void *arg)
{
    *alarm = (struct alarm){
        .schedule = schedule, .at = NEVER, .queued_at = NEVER, .ring = ring, .arg = arg};
}

void alarm_set(struct alarm *alarm, uint64_t at)
{
    if (at < alarm->schedule->now)
        at = alarm->schedule->now;
    alarm->at = at;
    if (at >= alarm->queued_at)
        return;
    alarm->queued_at = at;
    schedule_post(alarm->schedule, at, alarm_due, alarm);
}
