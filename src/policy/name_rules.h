/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_NAME_RULES_H
#define POLICY_NAME_RULES_H

/* The compiled form of every egress rule by name.
 *
 * Names with the same rules share a bag: a set of a million names has one. A bag has a table of
 * services for the rules that refuse, and one for the rules that allow per widening, since an allow
 * by name leads to public addresses and wherever else its "in" says. */

#include <stdbool.h>
#include <stdint.h>

#include "policy/name_index.h"
#include "policy/prefixes.h"
#include "policy/services.h"

/* Where else than to public addresses an allow may lead. */
struct widening {
    bool any;
    unsigned groups;
    struct prefix_index prefixes; /* every rule of it is number 0 */
};

struct bag_allow {
    uint32_t widening; /* 0: none */
    struct service_table services;
};

struct name_bag {
    uint32_t allow_begin, allow_count; /* ascending by their first rule */
    struct service_table refuse;
    /* For DNS: the first rule that allows, whatever the service; the first that refuses without
     * protocol and ports. NO_RULE: none. */
    uint32_t query_allow, query_refuse;
};

struct name_host { /* --dns-host */
    struct dns_name name;
    struct ip_address address;
};

struct name_rules {
    bool present;            /* is there any? */
    struct name_index index; /* its numbers are bags'; 0 is none */
    struct name_bag *bags;
    uint32_t bag_count;
    struct bag_allow *allows;
    uint32_t allow_count;
    struct widening *widenings;
    uint32_t widening_count;
    struct service_table refuse; /* every rule that refuses by name, whatever the name */
    uint32_t lowest;             /* the first rule by name; NO_RULE: none */
    struct name_host *hosts;
    size_t host_count;
};

void name_rules_clear(struct name_rules *rules);

#endif
