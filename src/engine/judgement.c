/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/judgement.h"

#include <netinet/in.h>

#include "engine/flow_naming.h"
#include "engine/internal.h"
#include "engine/learning.h"
#include "policy/pins.h"

static enum policy_protocol protocol_of(const struct flow_key *key)
{
    switch (key->protocol) {
    case IPPROTO_TCP:
        return POLICY_TCP;
    case IPPROTO_UDP:
        return POLICY_UDP;
    default:
        return POLICY_ICMP;
    }
}

static uint16_t port_of(const struct subject *subject)
{
    if (protocol_of(&subject->key) == POLICY_ICMP)
        return 0;
    return subject->direction == POLICY_EGRESS ? subject->key.remote_port : subject->key.guest_port;
}

/* The flow lives on this pin, which may be that of the IPv4 address within a NAT64 one. */
static void use_pin(struct culvert_engine *engine, const struct pin *pin)
{
    struct ip_address address = *pin_address(pin);
    struct dns_name name;

    pin_name(pin, &name);
    pins_use(engine->pins, &name, &address, engine->now);
}

static bool is_refusal(const struct policy_verdict *verdict)
{
    return verdict->action == POLICY_DENY || verdict->action == POLICY_DROP;
}

/* ---- refusals ---- */

/* Does the refusal hold, or is it only to be recorded? */
static bool holds(const struct culvert_engine *engine, const struct subject *subject,
                  enum counter reason)
{
    if ((!engine->audit && !engine->learn) || reason == COUNTER_policy_no_memory)
        return true;
    /* What is learnt is for the guest's own flows, and could not hold for this one. */
    if (engine->learn &&
        (subject->direction == POLICY_INGRESS || reason == COUNTER_policy_denied_dns_tls))
        return true;
    return subject->direction == POLICY_EGRESS &&
           policy_is_protected(engine->policy, &engine->world, &subject->key.remote);
}

static struct event event_of(const struct culvert_engine *engine, const struct subject *subject,
                             enum counter reason)
{
    struct event event = {
        .reason = reason,
        .direction = subject->direction,
        .key = subject->key,
        .rule = UINT32_MAX,
        .generation = policy_generation(engine->policy),
    };
    struct flow_naming naming;

    if (subject->direction == POLICY_INGRESS) {
        event.key.guest = ip_address_is_v4(&subject->key.remote) ? engine->addresses.guest4
                                                                 : engine->addresses.guest6;
        return event;
    }
    flow_naming_of(engine->pins, subject, port_of(subject), engine->now, &naming);
    event.name = naming.name;
    event.name_source = naming.source;
    event.name_admits = naming.admits;
    return event;
}

/* `verdict` is NULL where no rule has to do with it. True: it holds. */
static bool refuse_by(struct culvert_engine *engine, const struct subject *subject,
                      enum counter reason, const struct policy_verdict *verdict)
{
    bool refused = holds(engine, subject, reason);

    if (!refused && engine->learn)
        return false;
    count(&engine->counters, refused ? reason : COUNTER_policy_would_deny);
    if (!engine->events && !engine->learn)
        return refused;
    struct event event = event_of(engine, subject, reason);

    event.kind = CULVERT_EVENT_DENIED;
    if (verdict) {
        event.rule = verdict->rule;
        if (verdict->action == POLICY_DROP)
            event.kind = CULVERT_EVENT_DROPPED;
    }
    if (!refused)
        event.kind = CULVERT_EVENT_WOULD_DENY;
    tell_event(engine, &event);
    if (engine->learn)
        learn_refused(engine, &event);
    return refused;
}

bool refuse(struct culvert_engine *engine, const struct subject *subject, enum counter reason)
{
    return refuse_by(engine, subject, reason, NULL);
}

/* ---- verdicts ---- */

/* What passes is noted once all is known. A TCP flow is watched while it goes on (watch_tcp.c); UDP
 * is held until its first datagrams have told the name, as those come without waiting. */
static void learn_from(struct culvert_engine *engine, const struct subject *subject,
                       struct policy_verdict *verdict)
{
    if (subject->direction != POLICY_EGRESS || is_refusal(verdict))
        return;
    if (subject->name_state != POLICY_NAME_PENDING) {
        learn_subject(engine, subject);
        return;
    }
    if (!policy_is_protected(engine->policy, &engine->world, &subject->key.remote))
        verdict->action = subject->key.protocol == IPPROTO_UDP ? POLICY_NEED_NAME : POLICY_ALLOW;
}

struct policy_verdict judge(struct culvert_engine *engine, const struct subject *subject)
{
    const struct policy_query query = {
        .direction = subject->direction,
        .protocol = protocol_of(&subject->key),
        .address = subject->key.remote,
        .port = port_of(subject),
        .name_state = subject->name_state,
        .name = subject->name,
        .held = subject->held,
        .pins = engine->pins,
        .now = engine->now,
    };
    struct policy_verdict verdict = policy_judge(engine->policy, &engine->world, &query);

    if (verdict.action == POLICY_ALLOW && verdict.pin)
        use_pin(engine, verdict.pin);
    if (is_refusal(&verdict) &&
        !refuse_by(engine, subject, policy_verdict_counter(&verdict), &verdict))
        verdict.action = POLICY_ALLOW;
    if (engine->learn)
        learn_from(engine, subject, &verdict);
    return verdict;
}
