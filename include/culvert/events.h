/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CULVERT_EVENTS_H
#define CULVERT_EVENTS_H

/** @file
 * What the policy refused, as it happens.
 *
 * One event tells of one refusal, or of several that were alike: of the same kind and reason, to
 * the same destination, by the same rule. The first is told at once; those that follow are counted
 * and told at most once a second, with their count. So a guest that tries again and again costs
 * little, and nothing is silent. The same events go to `--events FILE` as JSON: culvert(1).
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct culvert_engine;

/** Closed: a program may rely on these, and is to pass over numbers it does not know. */
enum culvert_event_kind {
    CULVERT_EVENT_DENIED = 1,  /**< refused, and the guest was told (RST, ICMP) */
    CULVERT_EVENT_DROPPED,     /**< refused in silence */
    CULVERT_EVENT_WOULD_DENY,  /**< let through by --audit, or a name that it let be asked for */
    CULVERT_EVENT_DNS_DENIED,  /**< a question was refused; or its answer, for a CNAME in it */
    CULVERT_EVENT_DNS_REMOVED, /**< an address was taken out of an answer (rebinding) */
    CULVERT_EVENT_POLICY_REPLACED, /**< `generation` is the new one's */
    CULVERT_EVENT_LOST,            /**< `count` events could not be told */
};

/** The kind as text: "denied", "dropped", "would_deny", "dns_denied", "dns_removed",
 * "policy_replaced", "lost"; NULL: no such kind. Any thread. */
const char *culvert_event_kind_name(enum culvert_event_kind kind);

enum culvert_event_direction {
    CULVERT_EVENT_NO_DIRECTION, /**< no flow: DNS, the policy itself */
    CULVERT_EVENT_EGRESS,       /**< begun by the guest */
    CULVERT_EVENT_INGRESS,      /**< begun by a client of a published port */
};

enum culvert_event_name_source {
    CULVERT_EVENT_NAME_NONE,     /**< no name is known */
    CULVERT_EVENT_NAME_FLOW,     /**< the flow bears it: SNI, or an HTTP request's host */
    CULVERT_EVENT_NAME_ANSWER,   /**< the address was answered when this name was asked for */
    CULVERT_EVENT_NAME_QUESTION, /**< it was asked for */
};

/** Texts are UTF-8 without control characters, and NULL where there is nothing to say. */
struct culvert_event {
    size_t size; /**< of the structure as the library knows it: what lies beyond is not there */
    enum culvert_event_kind kind;
    enum culvert_event_direction direction;
    uint64_t time;    /**< of the latest, nanoseconds since 1970 */
    uint64_t count;   /**< how many refusals this tells of, at least 1 */
    uint8_t protocol; /**< IPPROTO_TCP, _UDP, _ICMP (ICMPv6 too); 0: no flow */
    /** The destination as the guest wrote it; ingress: the real client. */
    const char *remote_address;
    uint16_t remote_port;
    const char *guest_address;
    uint16_t guest_port;
    /** Printable ASCII, whatever the guest put there: all else is escaped. */
    const char *name;
    enum culvert_event_name_source name_source;
    uint16_t question_type; /**< DNS: 1 for A, 28 for AAAA, …; else 0 */
    const char *reason;     /**< the counter that counts it: "policy_denied_floor" */
    const char *sentence;   /**< and what that counts */
    uint32_t rule;          /**< its number, from 0, profile's included; UINT32_MAX: none */
    const char *rule_text, *rule_id, *rule_where;
    uint32_t generation; /**< of the policy; 0: none has to do with it */
    /** A rule that would have allowed it, were it the first. NULL: none can. */
    const char *remedy;
};

/** Tells every event to `callback` (NULL: to nobody). It runs on the poll thread (what
 * culvert_engine_set_policy() brings about while the engine does not run: on that call's thread)
 * and must not block nor call the engine, culvert_engine_counters() excepted; `event` and its texts
 * are valid until it returns. When culvert_engine_stop() has returned everything has been told.
 * Before _start. 0, or -EBUSY: the engine is running. */
int culvert_engine_set_event_callback(struct culvert_engine *engine,
                                      void (*callback)(void *arg,
                                                       const struct culvert_event *event),
                                      void *arg);

/** Opens the file of option "events" anew, for whoever has renamed it. Any thread but the engine's.
 * 0 (also where there is none); or negative errno, and the old file stays. */
int culvert_engine_reopen_events(struct culvert_engine *engine);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
