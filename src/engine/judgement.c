/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/judgement.h"

#include <netinet/in.h>

#include "engine/internal.h"
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
    if (is_refusal(&verdict))
        refuse(engine, subject, policy_verdict_counter(&verdict));
    return verdict;
}

void refuse(struct culvert_engine *engine, const struct subject *subject, enum counter reason)
{
    (void)subject;
    count(&engine->counters, reason);
}
