/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

/* Rules, groups, the floor and the verdict: DESIGN §6. A policy is immutable once built; one that
 * replaces it has a higher generation. Verdicts are pure functions of (policy, query). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/address.h"

struct policy;
struct policy_builder;

enum policy_action { POLICY_ALLOW, POLICY_DENY, POLICY_DROP };
enum policy_direction { POLICY_EGRESS, POLICY_INGRESS };
enum policy_protocol { POLICY_TCP = 1, POLICY_UDP = 2, POLICY_ICMP = 4 };

/* What an address is, as a set: enum policy_group values or-ed. `public` and `special` stand alone;
 * a metadata address is link-local or private too, the host's own are often private.
 *
 * To refuse, a rule may name any group of the set. To allow (egress), it must name the strongest:
 * metadata, host, multicast, link-local, dns, private, public, in this order; or the address. */
enum policy_group {
    POLICY_PUBLIC = 1,
    POLICY_PRIVATE = 2,
    POLICY_LINK_LOCAL = 4,
    POLICY_METADATA = 8,
    POLICY_MULTICAST = 16,
    POLICY_HOST = 32,
    POLICY_DNS = 64,     /* culvert's own resolver addresses */
    POLICY_SPECIAL = 128 /* special-purpose, in no group: reached by address or CIDR only */
};

struct policy_query {
    enum policy_direction direction;
    enum policy_protocol protocol;
    struct ip_address
        address;   /* egress: the destination as the guest wrote it; ingress: the real client */
    uint16_t port; /* egress: the destination's; ingress: the guest's; ICMP: 0 */
};

/* What the policy cannot know by itself. */
struct policy_world {
    struct ip_address gateway4, gateway6, dns4, dns6;
    /* Is this address one of the host's own (route type local or broadcast)? NULL: none is. */
    bool (*is_host_address)(void *ctx, const struct ip_address *address);
    void *ctx;
};

enum policy_reason {
    POLICY_REASON_RULE,    /* rule `rule` decided */
    POLICY_REASON_DEFAULT, /* no rule matched */
    /* No rule matched but an allow, `rule`, that the address is out of reach of: it is under the
     * floor or special, and the rule does not name it. */
    POLICY_REASON_FLOOR,
};

struct policy_verdict {
    enum policy_action action;
    enum policy_reason reason;
    uint32_t rule; /* index into the policy's rules, profile's included; UINT32_MAX: none */
};

struct policy_builder *policy_builder_new(void);
struct policy_builder *policy_builder_free(struct policy_builder *builder);
/* One line of the grammar; a line that is all comment adds nothing. `where` (or NULL) names its
 * origin for messages ("--rule 2", "file.json: rule 3"). 0; -EINVAL with `message` (size bytes)
 * filled: what is wrong, where in the line, and the mend; -ENOMEM. */
int policy_builder_add(struct policy_builder *builder, const char *rule, const char *where,
                       char *message, size_t size);
/* "public", "none", "all"; -EINVAL with a message on others. The profile's rules come last whenever
 * this is called; a later call replaces them. Without one: none. */
int policy_builder_profile(struct policy_builder *builder, const char *name, char *message,
                           size_t size);
/* Further addresses that belong to group host (--host-address), and NAT64 prefixes (/96, the
 * well-known one is there already; -EINVAL on others). 0 or -ENOMEM. */
int policy_builder_host_address(struct policy_builder *builder, const struct ip_address *address);
int policy_builder_nat64(struct policy_builder *builder, const struct ip_prefix *prefix);
/* Compiles; the builder can be freed or used on. NULL: ENOMEM. */
struct policy *policy_build(const struct policy_builder *builder, uint32_t generation);
struct policy *policy_free(struct policy *policy);

uint32_t policy_generation(const struct policy *policy);
struct policy_verdict policy_judge(const struct policy *policy, const struct policy_world *world,
                                   const struct policy_query *query);
/* The rule's text as it was written, or NULL beyond the last. */
const char *policy_rule_text(const struct policy *policy, uint32_t rule);
/* enum policy_group bits of an address. */
unsigned policy_groups_of(const struct policy *policy, const struct policy_world *world,
                          const struct ip_address *address);
/* "public", "private", … */
const char *policy_group_name(enum policy_group group);

#endif
