/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_EXPLAIN_H
#define CLI_EXPLAIN_H

#include "policy/builder.h"

/* Says on stdout which rule decides about "tcp github.com:443", and why, in each state of what can
 * be known. `world` is the guest's. 0; -EINVAL with `message` filled if `flow` is none; -ENOMEM. */
int explain(const struct policy_builder *builder, const struct policy *policy,
            const struct policy_world *world, const char *flow, char *message, size_t size);

/* "rule 3 (allow to public)", and where it stands. */
void explain_rule(const struct policy *policy, uint32_t rule);

#endif
