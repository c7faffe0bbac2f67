/* SPDX-License-Identifier: Apache-2.0 */
/* Judging again what an earlier policy admitted.
 *
 * A flow is judged with all that was learnt about it: the name it bore, and the name of the pin
 * that admitted it, which counts as long as the flow lives. A flow that was never looked into bears
 * a name that nobody knows: what would depend on it is decided as if the flow hid its name, unless
 * the guest has not said anything yet. Then it is looked into from now on.
 *
 * Under rules by name, flows to other resolvers end: lookups are answered here. Flows to the
 * resolver itself, and to all else that culvert answers by itself, are none of the relay's
 * connections and stay. */

#include "engine/rejudge.h"

#include "engine/ingress.h"
#include "engine/internal.h"
#include "engine/peek.h"
#include "engine/peek_udp.h"

static bool is_diverted(struct culvert_engine *engine, const struct subject *subject)
{
    enum counter reason;

    return admission_diverts(engine, &subject->key, &reason) && refuse(engine, subject, reason);
}

/* The policy depends on a name that is not known. */
static bool may_stay_nameless(struct culvert_engine *engine, struct flow_handle flow,
                              struct subject *subject)
{
    if (peek_is_on(engine, flow))
        return true; /* and decides when it knows */
    if (tcp_is_unheard(engine->stack, flow)) {
        peek_tcp(engine, flow, &subject->key);
        return true;
    }
    subject->name_state = POLICY_NAME_HIDDEN;
    return judge(engine, subject).action == POLICY_ALLOW;
}

static bool may_stay(struct culvert_engine *engine, struct flow_handle flow,
                     const struct flow_key *key)
{
    struct subject subject = subject_of(key, POLICY_NAME_PENDING);
    struct flow_names names;
    enum policy_action action;

    if (is_diverted(engine, &subject))
        return false;
    (void)flow_records_find(&engine->records, flow, &names, &subject);
    action = judge(engine, &subject).action;
    return action == POLICY_NEED_NAME ? may_stay_nameless(engine, flow, &subject)
                                      : action == POLICY_ALLOW;
}

struct review {
    struct culvert_engine *engine;
    uint64_t *flows_reset;
};

static bool keep(void *ctx, struct flow_handle flow, const struct ip_address *client)
{
    const struct review *review = ctx;
    struct culvert_engine *engine = review->engine;
    struct flow_key key;

    if (!tcp_key_of(engine->stack, flow, &key))
        return true; /* it has ended by itself */
    if (client ? ingress_admits(engine, IPPROTO_TCP, client, key.guest_port)
               : may_stay(engine, flow, &key))
        return true;
    (*review->flows_reset)++;
    count(&engine->counters, COUNTER_policy_flows_reset);
    return false;
}

bool rejudge_connections(struct culvert_engine *engine, uint32_t *at, uint32_t max,
                         uint64_t *flows_reset)
{
    struct review review = {engine, flows_reset};

    return relay_tcp_review(engine->relay, at, max, keep, &review);
}

bool rejudge_peer(void *ctx, const struct flow_key *key)
{
    struct culvert_engine *engine = ctx;
    const struct subject subject = subject_of(key, POLICY_NAME_NAMELESS);
    bool allowed;

    if (engine->peek_udp && key->protocol == IPPROTO_UDP &&
        peek_udp_rejudge(engine->peek_udp, key, &allowed))
        return allowed;
    return !is_diverted(engine, &subject) && judge(engine, &subject).action == POLICY_ALLOW;
}
