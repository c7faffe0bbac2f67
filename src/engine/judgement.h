/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_JUDGEMENT_H
#define ENGINE_JUDGEMENT_H

/* The one place where the engine asks the policy about a flow. What admits it is remembered (its
 * pin is used), what refuses it is counted and told. */

#include "base/counters.h"
#include "policy/policy.h"
#include "stack/stack.h"

struct culvert_engine;

/* A flow, and what is known about its name. */
struct subject {
    enum policy_direction direction;
    /* Egress: as the guest sees it. Ingress: `remote` is the real client; of the guest the port
     * alone counts. */
    struct flow_key key;
    enum policy_name_state name_state;
    const struct dns_name *name; /* POLICY_NAME_NAMED */
    const struct dns_name *held; /* judged again: the name of the pin that admitted it, or NULL */
};

/* The flow of the guest's under `key`, of which nothing is known but `state`. */
static inline struct subject subject_of(const struct flow_key *key, enum policy_name_state state)
{
    return (struct subject){.direction = POLICY_EGRESS, .key = *key, .name_state = state};
}

/* POLICY_NEED_NAME only for POLICY_NAME_PENDING. The verdict's pin is valid until the pins
 * change. Under --audit, what would be refused is POLICY_ALLOW, the floor excepted. */
struct policy_verdict judge(struct culvert_engine *engine, const struct subject *subject);

/* The flow is to be refused for a reason that is no rule's. True: it is, and that was counted and
 * told. False: it passes all the same (--audit), as judge() would have it. */
bool refuse(struct culvert_engine *engine, const struct subject *subject, enum counter reason);

#endif
