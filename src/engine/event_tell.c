/* SPDX-License-Identifier: Apache-2.0 */
/* From what the policy refused to those who want to know: the callback, and the file of --events.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/config.h"
#include "engine/event_text.h"
#include "engine/internal.h"

const char *culvert_event_kind_name(enum culvert_event_kind kind)
{
    static const char *const names[] = {
        [CULVERT_EVENT_DENIED] = "denied",
        [CULVERT_EVENT_DROPPED] = "dropped",
        [CULVERT_EVENT_WOULD_DENY] = "would_deny",
        [CULVERT_EVENT_DNS_DENIED] = "dns_denied",
        [CULVERT_EVENT_DNS_REMOVED] = "dns_removed",
        [CULVERT_EVENT_POLICY_REPLACED] = "policy_replaced",
        [CULVERT_EVENT_LOST] = "lost",
    };

    return (size_t)kind < sizeof names / sizeof names[0] ? names[kind] : NULL;
}

static void write_line(struct culvert_engine *engine, const struct culvert_event *event)
{
    char *line = event_json(event);

    if (line)
        event_file_put(engine->event_file, line, strlen(line));
    else
        count_shared(&engine->counters, COUNTER_events_lost, event->count);
    free(line);
}

static uint64_t wall_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* The events' `tell`. */
static void tell(void *ctx, const struct event *event, uint64_t count)
{
    struct culvert_engine *engine = ctx;
    struct event_texts texts;
    struct culvert_event told;

    event_describe(event, count, engine->policy, &engine->world, &texts, &told);
    if (told.time == 0)
        told.time = wall_clock();
    if (engine->event_callback)
        engine->event_callback(engine->event_callback_arg, &told);
    if (engine->event_file)
        write_line(engine, &told);
}

void tell_event(struct culvert_engine *engine, struct event *event)
{
    if (!engine->events)
        return;
    event->time = wall_clock();
    events_note(engine->events, event, engine->now);
}

static int begin(struct culvert_engine *engine)
{
    if (!engine->events)
        engine->events =
            events_new(engine->timers, &engine->counters, engine->addresses.hash_key, tell, engine);
    return engine->events ? 0 : -ENOMEM;
}

int events_open(struct culvert_engine *engine, const struct culvert_config *config,
                struct culvert_error *error)
{
    const char *path = config->events[0] ? config->events : NULL;

    if (!path && config->events_fd < 0)
        return 0;
    engine->event_file = event_file_new(path, config->events_fd, &engine->counters);
    if (engine->event_file)
        return begin(engine);
    int r = -errno;

    if (error)
        snprintf(error->message, sizeof error->message, "events %.300s: cannot be opened: %s; %s",
                 path ? path : "-", strerror(-r),
                 r == -ENXIO ? "start what reads the pipe first"
                             : "name a file in a folder that you may write to");
    return r;
}

void events_close(struct culvert_engine *engine)
{
    engine->events = events_free(engine->events);
    engine->event_file = event_file_free(engine->event_file);
}

int culvert_engine_set_event_callback(struct culvert_engine *engine,
                                      void (*callback)(void *arg,
                                                       const struct culvert_event *event),
                                      void *arg)
{
    if (engine->running)
        return -EBUSY;
    engine->event_callback = callback;
    engine->event_callback_arg = arg;
    return callback ? begin(engine) : 0;
}

int culvert_engine_reopen_events(struct culvert_engine *engine)
{
    return engine->event_file ? event_file_reopen(engine->event_file) : 0;
}
