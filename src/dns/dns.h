/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_DNS_H
#define DNS_DNS_H

/* The resolver the guest sees at 10.0.2.3 and its IPv6 twin: queries come in as datagrams or TCP
 * flows of the stack and are forwarded to the host's resolvers (or --dns). Poll thread only;
 * upstream sockets are nonblocking and live in the loop. */

#include "base/counters.h"
#include "base/loop.h"
#include "base/timers.h"
#include "policy/policy.h"
#include "stack/stack.h"
#include "wire/dns.h"

#define DNS_UPSTREAMS_MAX 16

struct dns;
struct pins; /* policy/pins.h */

#define DNS_TLS_NAME_MAX 253

struct dns_upstream {
    struct ip_endpoint endpoint;
    bool tcp_only; /* tcp://A:P, tls://… */
    bool tls;
    char tls_name[DNS_TLS_NAME_MAX + 1]; /* in its certificate; "": its address must be there */
    struct dns_name zone; /* asked about names in this zone only; len 0: about all others */
};

struct dns_config {
    /* Fixed upstreams (--dns). Where none serves names outside zones: follow resolv_conf. */
    struct dns_upstream upstreams[DNS_UPSTREAMS_MAX];
    size_t upstream_count;
    const char
        *resolv_conf; /* path; NULL: /etc/resolv.conf. Watched, and read again when it changes. */
    size_t cache_entries, cache_bytes; /* 0: the defaults */
};

struct dns *dns_new(const struct dns_config *config, struct stack *stack, struct loop *loop,
                    struct timers *timers, struct counters *counters);
struct dns *dns_free(struct dns *dns);

/* A name that is answered here and never asked upstream: host.culvert.internal, --dns-host. A and
 * AAAA of one name are two calls. */
int dns_add_host(struct dns *dns, const char *name, const struct ip_address *address);

/* What the guest gets for a name that the policy denies. */
enum dns_denied {
    DNS_DENIED_NXDOMAIN,
    DNS_DENIED_REFUSED,
    DNS_DENIED_ZERO, /* 0.0.0.0 and ::, no data of other types */
};

/* What was refused, and why. */
struct dns_refusal {
    const struct dns_question *question; /* or the CNAME's target that was denied */
    enum counter reason;
    uint32_t rule;                    /* UINT32_MAX: none */
    const struct ip_address *address; /* was taken out of the answer; NULL: all of it is refused */
    bool passes;                      /* it would have been: the guard is lenient */
};

/* The policy as the resolver enforces it. Everything is borrowed, and may be replaced at any time
 * by another call. Names matter only where the policy has rules by name; private addresses are
 * never asked about upstream (PTR) unless the policy lets the guest reach them. */
struct dns_guard {
    const struct policy *policy; /* NULL: everything passes */
    const struct policy_world *world;
    struct pins *pins; /* learns what is answered; may be NULL */
    enum dns_denied denied;
    /* Refuse nothing by name, tell it only; addresses under the floor excepted. */
    bool lenient;
    bool by_name; /* look at names even if no rule does: for the pins */
    void (*refused)(void *ctx, const struct dns_refusal *refusal); /* may be NULL */
    void *ctx;
};

void dns_set_guard(struct dns *dns, const struct dns_guard *guard);

/* A datagram of the guest's to port 53 of the resolver. */
void dns_udp_input(struct dns *dns, const struct udp_datagram *datagram, uint64_t now);
/* A TCP flow of the guest's to port 53: becomes its upstream and answers it at once. */
void dns_tcp_open(struct dns *dns, struct flow_handle flow, const struct flow_key *key,
                  uint64_t now);

/* Parses what --dns takes: "1.1.1.1", "A:P", "[v6]:P", "udp://A:P", "tcp://A:P", "tls://NAME@A:P",
 * and any of them behind "ZONE=". 0, or -EINVAL with a message. */
int dns_upstream_parse(const char *text, struct dns_upstream *ret, char *message, size_t size);

#endif
