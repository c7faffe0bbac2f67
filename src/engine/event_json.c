/* SPDX-License-Identifier: Apache-2.0 */
/* Events as lines of JSON: the keys are a promise, documented in docs/policy.md. */
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/event_text.h"

static void put(json_t *object, const char *key, const char *text)
{
    if (text)
        json_object_set_new(object, key, json_string(text));
}

static void put_number(json_t *object, const char *key, uint64_t number)
{
    json_object_set_new(object, key, json_integer((json_int_t)number));
}

/* RFC 3339, in UTC, to the microsecond. */
static void put_time(json_t *object, uint64_t ns)
{
    time_t seconds = (time_t)(ns / 1000000000);
    struct tm utc;
    char date[32], text[64];

    gmtime_r(&seconds, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, sizeof text, "%s.%06uZ", date, (unsigned)(ns % 1000000000 / 1000));
    put(object, "time", text);
}

static void put_flow(json_t *object, const struct culvert_event *event)
{
    if (event->protocol != 0) {
        put(object, "direction", event->direction == CULVERT_EVENT_EGRESS ? "egress" : "ingress");
        put(object, "protocol", event_protocol(event->protocol));
        put(object, "guest", event->guest_address);
        if (event->protocol != IPPROTO_ICMP && event->guest_port != 0)
            put_number(object, "guest_port", event->guest_port);
    }
    put(object, "remote", event->remote_address);
    if (event->protocol == IPPROTO_TCP || event->protocol == IPPROTO_UDP)
        put_number(object, "remote_port", event->remote_port);
}

static void put_name(json_t *object, const struct culvert_event *event)
{
    static const char *const sources[] = {NULL, "flow", "answer", "question"};

    put(object, "name", event->name);
    put(object, "name_from", sources[event->name_source]);
    if (event->question_type != 0)
        put_number(object, "question_type", event->question_type);
}

static void put_rule(json_t *object, const struct culvert_event *event)
{
    if (event->rule == UINT32_MAX)
        return;
    put_number(object, "rule", event->rule);
    put(object, "rule_text", event->rule_text);
    put(object, "rule_id", event->rule_id);
    put(object, "rule_where", event->rule_where);
}

/* jansson has no way to append the newline itself. */
static char *dump_line(const json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
    size_t len = text ? strlen(text) : 0;
    char *line = text ? realloc(text, len + 2) : NULL;

    if (!line) {
        free(text);
        return NULL;
    }
    memcpy(line + len, "\n", 2);
    return line;
}

char *event_json(const struct culvert_event *event)
{
    json_t *object = json_object();
    char *line;

    if (!object)
        return NULL;
    put_time(object, event->time);
    put(object, "event", culvert_event_kind_name(event->kind));
    put_number(object, "count", event->count);
    put_flow(object, event);
    put_name(object, event);
    put(object, "reason", event->reason);
    put(object, "sentence", event->sentence);
    put_rule(object, event);
    if (event->generation != 0)
        put_number(object, "generation", event->generation);
    put(object, "allow", event->remedy);
    line = dump_line(object);
    json_decref(object);
    return line;
}
