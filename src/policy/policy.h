/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

/* Rules, groups, the floor, names and the verdict: DESIGN §6. A policy is immutable once built; one
 * that replaces it has a higher generation. Verdicts are pure functions of (policy, pins, query).
 *
 * A flow is judged when it begins and, where the verdict is POLICY_NEED_NAME, once more when its
 * name is known: connect, answer the SYN, hold the guest's first bytes, then ask again with what
 * they told. When the policy is replaced, open flows are judged again with `held`. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/counters.h"
#include "wire/address.h"

struct dns_name; /* wire/dns.h */
struct pin;      /* policy/pins.h */
struct pins;
struct policy;
struct policy_builder;

enum policy_action {
    POLICY_ALLOW,
    POLICY_DENY,
    POLICY_DROP,
    /* No rule's action, a verdict only, and only for POLICY_NAME_PENDING: some of the rules that
     * may apply allow, others do not. */
    POLICY_NEED_NAME,
};
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

/* What is known about a flow's name. */
enum policy_name_state {
    POLICY_NAME_NAMELESS, /* a payload that bears none, FIN first, ICMP */
    POLICY_NAME_PENDING,  /* no payload yet */
    POLICY_NAME_NAMED,    /* SNI, or the authority of a plaintext HTTP request: a host name */
    POLICY_NAME_HIDDEN,   /* TLS or QUIC without a usable SNI */
};

struct policy_query {
    enum policy_direction direction;
    enum policy_protocol protocol;
    struct ip_address
        address;   /* egress: the destination as the guest wrote it; ingress: the real client */
    uint16_t port; /* egress: the destination's; ingress: the guest's; ICMP: 0 */

    /* Egress only; all zero: a flow that bears no name, to an address pinned to none. */
    enum policy_name_state name_state;
    const struct dns_name *name; /* POLICY_NAME_NAMED: by name_from_guest() */
    const struct pins *pins;     /* NULL: none */
    /* A flow that is judged again: the name of the pin that admitted it, which counts as pinned
     * even if the pin has expired. NULL: none. */
    const struct dns_name *held;
    uint64_t now; /* for the pins: clock_now() */
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
    /* No rule matched but an allow by name, `rule`, whose name the flow bears; but the address was
     * never answered for that name. */
    POLICY_REASON_UNPINNED,
    /* No rule matched but an allow by name, `rule`, that the address is pinned to; but the flow
     * does not bear the name where it must: hidden, nameless on 443 or on TCP 80, or another. */
    POLICY_REASON_UNNAMED,
};

struct policy_verdict {
    enum policy_action action;
    enum policy_reason reason;
    uint32_t rule; /* index into the policy's rules, profile's included; UINT32_MAX: none */
    /* An allow by name: the pin that admitted the flow, until the pins change; for pins_use(), and
     * to keep its name as `held`. NULL otherwise, and where `held` itself did it. */
    const struct pin *pin;
};

/* ---- building ---- */

/* How lists (`@file:PATH`) are read: the whole file, by malloc(), *ret_len bytes. 0 or negative
 * errno. */
typedef int policy_read_file(void *ctx, const char *path, char **ret, size_t *ret_len);

struct policy_builder *policy_builder_new(void);
struct policy_builder *policy_builder_free(struct policy_builder *builder);
/* Without this, rules that name `@file:` are refused. */
void policy_builder_files(struct policy_builder *builder, policy_read_file *read, void *ctx);
/* One line of the grammar; a line that is all comment adds nothing. `where` (or NULL) names its
 * origin for messages ("--rule 2", "file.json: rule 3"). 0; -EINVAL with `message` (size bytes)
 * filled: what is wrong, where in the line, and the mend; -ENOMEM. */
int policy_builder_add(struct policy_builder *builder, const char *rule, const char *where,
                       char *message, size_t size);
/* A policy document (JSON, `len` bytes). `path` (or NULL) names it in messages, and relative
 * `@file:` paths in it begin at its folder. Its rules come behind policy_builder_add()'s and before
 * the profile's, its sets may be named by either; a later document takes the place of an earlier
 * one. As policy_builder_add(); after a fault the builder is as it was. */
int policy_builder_document(struct policy_builder *builder, const char *text, size_t len,
                            const char *path, char *message, size_t size);
/* The profile the document asks for, or NULL. It is for the caller to hand it on: an option given
 * beside the document wins. */
const char *policy_builder_document_profile(const struct policy_builder *builder);
/* "public", "none", "all"; -EINVAL with a message on others. The profile's rules come last whenever
 * this is called; a later call replaces them. Without one: none. */
int policy_builder_profile(struct policy_builder *builder, const char *name, char *message,
                           size_t size);
/* Further addresses that belong to group host (--host-address), and NAT64 prefixes (/96, the
 * well-known one is there already; -EINVAL on others). 0 or -ENOMEM. */
int policy_builder_host_address(struct policy_builder *builder, const struct ip_address *address);
int policy_builder_nat64(struct policy_builder *builder, const struct ip_prefix *prefix);
/* --dns-host: an allow by this name reaches this address, whatever it is. 0 or -ENOMEM. */
int policy_builder_dns_host(struct policy_builder *builder, const struct dns_name *name,
                            const struct ip_address *address);
/* Does it all fit together: is every set that a rule names defined? As policy_builder_add(). To be
 * asked before policy_build(). */
int policy_builder_check(const struct policy_builder *builder, char *message, size_t size);
/* A builder of the same, to build from when the original is gone or has grown. NULL: ENOMEM. */
struct policy_builder *policy_builder_copy(const struct policy_builder *builder);
/* Has any rule an end? Then the policy must be built again, see policy_expires(). */
bool policy_builder_expires(const struct policy_builder *builder);

/* Compiles; the builder can be freed, or used on to build the policy that replaces this one. Rules
 * that have expired by `wall_clock` (seconds since 1970) keep their number and match nothing. NULL:
 * ENOMEM, or EINVAL where policy_builder_check() fails. */
struct policy *policy_build_at(const struct policy_builder *builder, uint32_t generation,
                               int64_t wall_clock);
/* The same, before any rule has expired. */
struct policy *policy_build(const struct policy_builder *builder, uint32_t generation);
struct policy *policy_free(struct policy *policy);
/* For who builds before it is known which policy this one follows: to be said before it is used. */
void policy_set_generation(struct policy *policy, uint32_t generation);

/* ---- judging ---- */

uint32_t policy_generation(const struct policy *policy);
/* When the next rule expires, in seconds since 1970: build again then. INT64_MAX: never. */
int64_t policy_expires(const struct policy *policy);
/* Is there any egress rule by name? If not, no flow's name makes a difference. */
bool policy_has_names(const struct policy *policy);

struct policy_verdict policy_judge(const struct policy *policy, const struct policy_world *world,
                                   const struct policy_query *query);
/* Would a client that is allowed by name have told it? If so, no allow by name admits a flow that
 * bears none. */
bool policy_name_is_due(enum policy_protocol protocol, uint16_t port);
/* What a refusal counts as; only for verdicts that are no allow. */
enum counter policy_verdict_counter(const struct policy_verdict *verdict);

/* A DNS query for `name`: POLICY_ALLOW: it may go upstream; else it is refused, NXDOMAIN. */
struct policy_verdict policy_judge_query(const struct policy *policy, const struct dns_name *name);
/* The answer to a query that was allowed by `query` leads through `owner` (a CNAME's target): the
 * same verdict, unless a rule that refuses this name stands before it. */
struct policy_verdict policy_judge_owner(const struct policy *policy, const struct dns_name *owner,
                                         const struct policy_verdict *query);
/* May `address` stand in an answer for `name` (the queried one)? It may if it is public, if some
 * rule allows the address itself, or if an allow by this name was widened to it; false: take it
 * out (rebinding). */
bool policy_admits_answer(const struct policy *policy, const struct policy_world *world,
                          const struct dns_name *name, const struct ip_address *address);

/* ---- what a policy tells about itself ---- */

uint32_t policy_rule_count(const struct policy *policy);
/* The rule's text as it was written, or NULL beyond the last. */
const char *policy_rule_text(const struct policy *policy, uint32_t rule);
/* Its "id" in the document, or NULL. */
const char *policy_rule_id(const struct policy *policy, uint32_t rule);
/* Where it was written ("--rule", "file.json:12", "profile public"), or NULL. */
const char *policy_rule_where(const struct policy *policy, uint32_t rule);
/* enum policy_group bits of an address. */
unsigned policy_groups_of(const struct policy *policy, const struct policy_world *world,
                          const struct ip_address *address);
/* Is it under the floor, or special: out of reach of whatever does not name it? */
bool policy_is_protected(const struct policy *policy, const struct policy_world *world,
                         const struct ip_address *address);
/* "public", "private", … */
const char *policy_group_name(enum policy_group group);

#endif
