/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_COMPILE_H
#define POLICY_COMPILE_H

/* A compilation under way. */

#include "policy/builder.h"
#include "policy/compiled.h"

/* What a rule's targets come to, its sets' content included. */
struct rule_summary {
    bool live; /* not expired */
    bool any, names;
    unsigned groups;
};

struct build {
    const struct policy_builder *builder;
    struct policy *policy;
    const struct rule *rules; /* all of them, numbered */
    struct rule_summary *summaries;
    uint32_t count;
    struct service_builder services;
    struct prefix_entries entries;
};

/* Keeps families and NAT64 apart in an index of prefixes. 0 or -ENOMEM. */
int build_borders(const struct build *build, struct prefix_entries *entries);
/* The rules by name. 0 or -ENOMEM. */
int build_names(struct build *build);

#endif
