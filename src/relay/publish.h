/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_PUBLISH_H
#define RELAY_PUBLISH_H

/* Published ports: sockets of the host by which the outside reaches services of the guest. They
 * belong to the relay and end with it. Poll thread only, but for publish_parse(). */

#include "relay/relay.h"

struct publish;

/* `count` ports of the host from `host` on lead to as many of the guest's from `guest` on. */
struct publish_spec {
    struct ip_address address; /* where the host listens */
    uint16_t host, guest, count;
    uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
};

/* "[ADDR:]HOST[-END]:GUEST[-END][/tcp|/udp]"; an IPv6 address stands in brackets, without one it is
 * 127.0.0.1. 0, or -EINVAL with `message` (size bytes) telling the fault and the mend. */
int publish_parse(const char *text, struct publish_spec *ret, char *message, size_t size);

struct publish_ops {
    /* May `client` reach the guest's `port`? Refusals are counted by whoever answers. */
    bool (*admit)(void *ctx, uint8_t protocol, const struct ip_address *client, uint16_t port);
    /* Is it one of the host's own addresses? */
    bool (*is_local)(void *ctx, const struct ip_address *address);
};

/* For the relay (which frees it), once. `guest`: the addresses of the guest's network, copied.
 * NULL, errno. */
struct publish *publish_new(struct relay *relay, const struct stack_config *guest,
                            const struct publish_ops *ops, void *ctx);
struct publish *publish_free(struct publish *publish);

/* Opens all ports of `spec`, or none: negative errno, and `message` says which, why, and the mend.
 */
int publish_open(struct publish *publish, const struct publish_spec *spec, char *message,
                 size_t size);
/* Closes the one port of the host; who is connected stays so. */
void publish_close(struct publish *publish, const struct publish_spec *spec);
/* Does any port of the host's lead to this one of the guest's? */
bool publish_leads_to(const struct publish *publish, uint8_t protocol, uint16_t guest_port);

/* While the guest's link is down, clients are reset. */
void publish_set_link(struct publish *publish, bool up);
/* Clients of UDP ports are judged again, as they or the guest's answers to them are met. */
void publish_policy_changed(struct publish *publish);

/* Sends the guest's datagram from a published port if it answers a client of that. False: it does
 * not, and is somebody else's to judge and send. */
bool publish_udp_reply(struct publish *publish, const struct udp_datagram *datagram, uint64_t now);

#endif
