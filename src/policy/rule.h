/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_RULE_H
#define POLICY_RULE_H

/* One rule, parsed: DESIGN §6, grammar. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"
#include "wire/address.h"

enum rule_target_kind {
    RULE_TARGET_ANY,
    RULE_TARGET_GROUP,
    RULE_TARGET_PREFIX,
    /* Names and sets will stand here; until then the parser refuses them. */
};

struct rule_target {
    enum rule_target_kind kind;
    enum policy_group group; /* RULE_TARGET_GROUP */
    struct ip_prefix prefix; /* RULE_TARGET_PREFIX; no host bits */
};

struct rule_ports {
    uint16_t low, high; /* both included */
};

struct rule {
    enum policy_action action;
    enum policy_direction direction;
    unsigned protocols; /* enum policy_protocol bits; never ICMP where there are ports */
    struct rule_target *targets;
    size_t target_count; /* at least 1 */
    struct rule_ports *ports;
    size_t port_count; /* 0: every port */
    char *text;        /* as it was written */
};

/* 0; -ENODATA: the line holds only a comment; -EINVAL with `message` filled; -ENOMEM. *ret is
 * untouched but by 0. */
int rule_parse(const char *text, struct rule *ret, char *message, size_t size);
void rule_clear(struct rule *rule);

/* NULL: no such group. */
const char *rule_group_name(enum policy_group group);

#endif
