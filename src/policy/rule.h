/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_RULE_H
#define POLICY_RULE_H

/* One rule, parsed: DESIGN §6, grammar. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/names.h"
#include "policy/policy.h"
#include "wire/address.h"

enum rule_target_kind {
    RULE_TARGET_ANY,
    RULE_TARGET_GROUP,
    RULE_TARGET_PREFIX,
    RULE_TARGET_NAME,
    RULE_TARGET_SET,
};

struct rule_target {
    enum rule_target_kind kind;
    enum policy_group group;      /* RULE_TARGET_GROUP */
    struct ip_prefix prefix;      /* RULE_TARGET_PREFIX; no host bits */
    struct name_pattern *pattern; /* RULE_TARGET_NAME; owned */
    char *set;                    /* RULE_TARGET_SET: "web", "file:/etc/list"; owned */
};

/* Where names lead: an allow of one of these groups lets every name be looked up. An allow of the
 * others (the gateway's, the resolver's, …) is about addresses only. */
#define RULE_GROUPS_WITH_NAMES ((unsigned)POLICY_PUBLIC | (unsigned)POLICY_PRIVATE)

struct rule_ports {
    uint16_t low, high; /* both included */
};

#define RULE_NEVER_EXPIRES INT64_MAX

struct rule {
    enum policy_action action;
    enum policy_direction direction;
    unsigned protocols; /* enum policy_protocol bits; never ICMP where there are ports */
    struct rule_target *targets;
    size_t target_count; /* at least 1 */
    struct rule_ports *ports;
    size_t port_count; /* 0: every port */
    /* "in": where else than to public addresses an allow by name may lead. No names among them. */
    struct rule_target *widening;
    size_t widening_count;
    char *text; /* as it was written */

    /* What stands beside the rule; the parser leaves it empty. NULL: nothing. */
    char *where, *id, *comment;
    int64_t expires; /* seconds since 1970 */
};

/* 0; -ENODATA: the line holds only a comment; -EINVAL with `message` filled; -ENOMEM. *ret is
 * untouched but by 0. */
int rule_parse(const char *text, struct rule *ret, char *message, size_t size);
void rule_clear(struct rule *rule);

/* Does it name a domain by itself, sets aside? */
bool rule_has_name(const struct rule *rule);
/* Neither protocol nor ports. */
bool rule_is_for_every_service(const struct rule *rule);
/* NULL: no such group. */
const char *rule_group_name(enum policy_group group);

#endif
