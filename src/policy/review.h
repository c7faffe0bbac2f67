/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_REVIEW_H
#define POLICY_REVIEW_H

/* What is odd about a policy that is valid: rules that never decide, wildcards that reach far. It
 * looks at rules two by two, so rules that are covered only by several others together are not
 * found; what it reports is so. */

#include "policy/builder.h"

enum review_kind {
    REVIEW_EXPIRED,       /* the rule has expired */
    REVIEW_NEVER_DECIDES, /* rule `by` matches whatever this one matches, with the same action */
    REVIEW_CONTRADICTED,  /* the same, and `by` does the opposite */
    REVIEW_TOO_LATE,   /* a refusal by name behind an allow, `by`, that admits who bears the name */
    REVIEW_OVERTAKEN,  /* a refusal of less than an allow before it, `by`, which wins for some ports
                          or  protocols */
    REVIEW_UNUSED_SET, /* `text` is a set that no rule names; no rule has to do with it */
    REVIEW_PUBLIC_ALLOWED, /* a refusal by name behind an allow of everything public */
    REVIEW_PRIVATE_SUFFIX, /* `text` spans the customers of one service */
    REVIEW_LOOKUPS_OPEN,   /* an allow of a group lets every name be looked up, before rules by name
                            */
};

struct review_finding {
    enum review_kind kind;
    uint32_t rule, by;
    const char *text; /* during the call */
};

/* Reports what is found, rule by rule. The builder must have passed policy_builder_check(). 0 or
 * -ENOMEM. */
int policy_review(const struct policy_builder *builder, int64_t wall_clock,
                  void (*found)(void *ctx, const struct review_finding *finding), void *ctx);

#endif
