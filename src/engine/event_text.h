/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_EVENT_TEXT_H
#define ENGINE_EVENT_TEXT_H

/* An event in words: as whoever embeds the engine gets it, and as a line of JSON. */

#include "engine/events.h"
#include "policy/names.h"

#define EVENT_RULE_MAX   1024
#define EVENT_WORD_MAX   256
#define EVENT_REMEDY_MAX 400

/* What the texts of a culvert_event lie in. */
struct event_texts {
    char remote[IP_ADDRESS_TEXT_MAX], guest[IP_ADDRESS_TEXT_MAX];
    char name[NAME_SHOWN_MAX];
    char rule[EVENT_RULE_MAX], rule_id[EVENT_WORD_MAX], rule_where[EVENT_WORD_MAX];
    char remedy[EVENT_REMEDY_MAX];
};

/* `policy` is the one that was asked: rules are named only if its generation is the event's. */
void event_describe(const struct event *event, uint64_t count, const struct policy *policy,
                    const struct policy_world *world, struct event_texts *texts,
                    struct culvert_event *ret);

/* A rule that would have allowed it, or NULL. */
const char *event_remedy(const struct event *event, const struct policy *policy,
                         const struct policy_world *world, char text[EVENT_REMEDY_MAX]);

/* As rules have it: "tcp", "udp"; all else is "icmp". */
const char *event_protocol(uint8_t protocol);

/* One line with its newline, by malloc(); NULL: ENOMEM. */
char *event_json(const struct culvert_event *event);

#endif
