/* SPDX-License-Identifier: Apache-2.0 */
/* What the resolver refuses is told like what is refused elsewhere. */
#include "engine/internal.h"
#include "engine/learning.h"

static enum culvert_event_kind kind_of(const struct dns_refusal *refusal)
{
    if (refusal->passes)
        return CULVERT_EVENT_WOULD_DENY;
    return refusal->address ? CULVERT_EVENT_DNS_REMOVED : CULVERT_EVENT_DNS_DENIED;
}

void tell_dns_refusal(void *ctx, const struct dns_refusal *refusal)
{
    struct culvert_engine *engine = ctx;
    struct event event = {
        .kind = kind_of(refusal),
        .reason = refusal->reason,
        .rule = refusal->rule,
        .generation = policy_generation(engine->policy),
        .name = refusal->question->name,
        .name_source = CULVERT_EVENT_NAME_QUESTION,
        .question_type = refusal->question->type,
    };

    if (refusal->passes && engine->learn)
        return;
    if (refusal->address)
        event.key.remote = *refusal->address;
    tell_event(engine, &event);
    if (engine->learn && refusal->address)
        learn_refused(engine, &event);
}
