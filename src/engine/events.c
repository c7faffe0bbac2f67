/* SPDX-License-Identifier: Apache-2.0 */
/* Events, folded.
 *
 * A table of what was told lately: sets of a few places, of which an event may take any in its own.
 * Its first is told at once. One that follows within a second of the last that was told is counted,
 * and the count told by a timer, at most once a second. The timer is armed only while something was
 * counted and not told: places are not cleared but found to be old. So at most so many events a
 * second are told as there are places, twice. What finds its set full of others is lost; how many
 * were is told, too.
 *
 * Without memory for the table everything is told unfolded. */

#include "engine/events.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define SETS     128u /* a power of two */
#define PLACES   8u   /* in each */
#define INTERVAL SECOND_NS

struct place {
    struct event event;
    uint64_t told; /* when; 0: never used */
    uint64_t count;
};

struct events {
    struct timers *timers;
    struct counters *counters;
    uint64_t key[2];
    void (*tell)(void *ctx, const struct event *event, uint64_t count);
    void *ctx;
    struct place *places; /* NULL until the first event */
    uint64_t lost;        /* and not yet told */
    struct timer timer;
};

/* ---- what is alike ---- */

/* The guest's own address and port do not count, nor does the client's port. */
struct likeness {
    uint32_t kind, reason, rule, generation;
    struct ip_address remote;
    uint16_t port, question_type;
    uint8_t direction, protocol, name_len;
    uint8_t name[DNS_NAME_MAX];
};

static void fill_likeness(const struct event *event, struct likeness *ret)
{
    struct dns_name name = event->name;

    memset(ret, 0, sizeof *ret);
    dns_name_lower(&name);
    ret->kind = (uint32_t)event->kind;
    ret->reason = (uint32_t)event->reason;
    ret->rule = event->rule;
    ret->generation = event->generation;
    ret->remote = event->key.remote;
    ret->port = event->direction == POLICY_EGRESS ? event->key.remote_port : event->key.guest_port;
    ret->question_type = event->question_type;
    ret->direction = (uint8_t)event->direction;
    ret->protocol = event->key.protocol;
    ret->name_len = name.len;
    memcpy(ret->name, name.bytes, name.len);
}

static bool is_alike(const struct likeness *a, const struct event *event)
{
    struct likeness b;

    fill_likeness(event, &b);
    return memcmp(a, &b, sizeof b) == 0;
}

/* ---- the table ---- */

static bool is_free(const struct place *place, uint64_t now)
{
    return place->told == 0 || (place->count == 0 && now - place->told >= INTERVAL);
}

/* Where `event` is, or may be put; NULL: its set is full of others. */
static struct place *find_place(struct events *events, const struct event *event, uint64_t now,
                                bool *ret_known)
{
    struct likeness likeness;
    struct place *room = NULL;

    fill_likeness(event, &likeness);
    uint64_t set = hash_bytes(events->key, &likeness, sizeof likeness) % SETS;

    for (struct place *place = &events->places[set * PLACES], *end = place + PLACES; place < end;
         place++) {
        if (is_free(place, now)) {
            room = room ? room : place;
        } else if (is_alike(&likeness, &place->event)) {
            *ret_known = true;
            return place;
        }
    }
    *ret_known = false;
    return room;
}

/* ---- telling ---- */

static void tell_lost(struct events *events)
{
    const struct event lost = {
        .kind = CULVERT_EVENT_LOST, .reason = COUNTER_events_lost, .rule = UINT32_MAX};
    uint64_t count = events->lost;

    events->lost = 0;
    if (count > 0)
        events->tell(events->ctx, &lost, count);
}

static void tell_place(struct events *events, struct place *place, uint64_t now)
{
    uint64_t count = place->count;

    place->count = 0;
    place->told = now;
    events->tell(events->ctx, &place->event, count);
}

/* Tells what was counted and is `age` old. True: something is left. */
static bool tell_counted(struct events *events, uint64_t now, uint64_t age)
{
    bool left = false;

    for (struct place *place = events->places, *end = place + (size_t)SETS * PLACES; place < end;
         place++) {
        if (place->count == 0)
            continue;
        if (now - place->told >= age)
            tell_place(events, place, now);
        else
            left = true;
    }
    tell_lost(events);
    return left;
}

static void second_passed(void *arg, struct timer *timer, uint64_t now)
{
    struct events *events = (struct events *)((char *)timer - offsetof(struct events, timer));

    (void)arg;
    if (tell_counted(events, now, INTERVAL))
        timer_arm(events->timers, timer, now + INTERVAL);
}

static void tell_later(struct events *events, uint64_t now)
{
    if (!timer_armed(&events->timer))
        timer_arm(events->timers, &events->timer, now + INTERVAL);
}

void events_note(struct events *events, const struct event *event, uint64_t now)
{
    struct place *place;
    bool known;

    if (!events->places)
        events->places = calloc((size_t)SETS * PLACES, sizeof *events->places);
    if (!events->places) {
        events->tell(events->ctx, event, 1);
        return;
    }
    place = find_place(events, event, now, &known);
    if (!place) {
        count_shared(events->counters, COUNTER_events_lost, 1);
        events->lost++;
        tell_later(events, now);
        return;
    }
    if (known) {
        place->event = *event;
        place->count++;
        tell_later(events, now);
        return;
    }
    place->event = *event;
    place->count = 1;
    tell_place(events, place, now);
}

void events_flush(struct events *events, uint64_t now)
{
    if (events->places)
        tell_counted(events, now, 0);
    timer_cancel(events->timers, &events->timer);
}

/* ---- life ---- */

struct events *events_new(struct timers *timers, struct counters *counters, const uint64_t key[2],
                          void (*tell)(void *ctx, const struct event *event, uint64_t count),
                          void *ctx)
{
    struct events *events = calloc(1, sizeof *events);

    if (!events)
        return NULL;
    events->timers = timers;
    events->counters = counters;
    memcpy(events->key, key, sizeof events->key);
    events->tell = tell;
    events->ctx = ctx;
    timer_init(&events->timer, second_passed);
    return events;
}

struct events *events_free(struct events *events)
{
    if (!events)
        return NULL;
    timer_cancel(events->timers, &events->timer);
    free(events->places);
    free(events);
    return NULL;
}
