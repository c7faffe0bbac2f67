/* SPDX-License-Identifier: Apache-2.0 */
/* The DHCPv6 server: as dhcp.c, one address for whoever asks (RFC 8415).
 *
 * The first IA of a message gets the guest's address, any other is told that there are no more.
 * Addresses that the client names and that are not its own come back with no lifetime. */

#include <netinet/in.h>
#include <string.h>

#include "stack/network.h"
#include "wire/dhcpv6.h"

#define REQUEST_MAX 1500u
#define PREFERRED   604800u /* s */
#define VALID       2592000u
#define T1          (PREFERRED / 2)
#define T2          (PREFERRED / 5 * 4)

static bool same_duid(const struct dhcpv6_duid *a, const struct dhcpv6_duid *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* Which of the two DUIDs a message must carry, and must not (RFC 8415 16). */
static bool is_addressed_right(const struct dhcpv6_request *request,
                               const struct dhcpv6_duid *server)
{
    const bool names_us = same_duid(&request->server, server);

    switch (request->type) {
    case DHCPV6_SOLICIT:
    case DHCPV6_CONFIRM:
    case DHCPV6_REBIND:
        return request->client.len != 0 && request->server.len == 0;
    case DHCPV6_REQUEST:
    case DHCPV6_RENEW:
    case DHCPV6_RELEASE:
    case DHCPV6_DECLINE:
        return request->client.len != 0 && names_us;
    case DHCPV6_INFORMATION_REQUEST:
        return request->ia_count == 0 && (request->server.len == 0 || names_us);
    default:
        return false;
    }
}

static void lease_ia(const struct stack *stack, const struct dhcpv6_ia *asked, bool first,
                     struct dhcpv6_reply_ia *ret)
{
    const struct ip_address *own = &stack->config.guest6;

    *ret = (struct dhcpv6_reply_ia){.id = asked->id, .status = DHCPV6_STATUS_NONE};
    if (first) {
        ret->t1 = T1;
        ret->t2 = T2;
        ret->leases[ret->lease_count++] =
            (struct dhcpv6_lease){.address = *own, .preferred = PREFERRED, .valid = VALID};
    } else {
        ret->status = DHCPV6_STATUS_NO_ADDRESS;
    }
    for (unsigned i = 0; i < asked->address_count; i++)
        if (!first || !ip_address_equal(&asked->addresses[i], own))
            ret->leases[ret->lease_count++] = (struct dhcpv6_lease){.address = asked->addresses[i]};
}

static void lease(const struct stack *stack, const struct dhcpv6_request *request,
                  struct dhcpv6_reply *reply)
{
    reply->ia_count = request->ia_count;
    for (unsigned i = 0; i < request->ia_count; i++)
        lease_ia(stack, &request->ias[i], i == 0, &reply->ias[i]);
}

/* Are all the addresses the client has still those of this link? */
static uint16_t confirm(const struct stack *stack, const struct dhcpv6_request *request)
{
    for (unsigned i = 0; i < request->ia_count; i++)
        for (unsigned j = 0; j < request->ias[i].address_count; j++)
            if (!ip_address_equal(&request->ias[i].addresses[j], &stack->config.guest6))
                return DHCPV6_STATUS_NOT_ON_LINK;
    return DHCPV6_STATUS_SUCCESS;
}

static void fill_reply(const struct stack *stack, const struct dhcpv6_request *request,
                       struct dhcpv6_reply *reply)
{
    reply->type = DHCPV6_REPLY;
    switch (request->type) {
    case DHCPV6_SOLICIT:
        reply->rapid_commit = request->rapid_commit;
        if (!request->rapid_commit)
            reply->type = DHCPV6_ADVERTISE;
        lease(stack, request, reply);
        break;
    case DHCPV6_REQUEST:
    case DHCPV6_RENEW:
    case DHCPV6_REBIND:
        lease(stack, request, reply);
        break;
    case DHCPV6_CONFIRM:
        reply->status = confirm(stack, request);
        break;
    case DHCPV6_RELEASE:
    case DHCPV6_DECLINE:
        reply->status = DHCPV6_STATUS_SUCCESS;
        break;
    default: /* an information request */
        break;
    }
}

static void send_reply(struct stack *stack, const struct ip_packet *packet,
                       const struct dhcpv6_reply *reply)
{
    const struct flow_key key = {
        .guest = packet->source,
        .remote = stack->config.link_local6,
        .guest_port = DHCPV6_CLIENT_PORT,
        .remote_port = DHCPV6_SERVER_PORT,
        .protocol = IPPROTO_UDP,
    };
    uint8_t message[DHCPV6_REPLY_MAX];
    size_t len = dhcpv6_write(message, reply);

    if (len == 0)
        return;
    count(stack->counters, COUNTER_dhcpv6_replies);
    udp_send_copy(stack, &key, message, len, stack->guest_mac);
}

void dhcpv6_input(struct stack *stack, const struct ip_packet *packet, size_t offset, size_t len)
{
    const struct dhcpv6_duid server = dhcpv6_duid_of_mac(stack->config.gateway_mac);
    uint8_t message[REQUEST_MAX];
    struct dhcpv6_request request;
    struct dhcpv6_reply reply = {
        .status = DHCPV6_STATUS_NONE,
        .client = &request.client,
        .server = &server,
        .dns = &stack->config.dns6,
    };

    if (len > sizeof message || !frame_copy(packet->frame, offset, len, message) ||
        !dhcpv6_parse(message, len, &request)) {
        count(stack->counters, COUNTER_dhcpv6_malformed);
        return;
    }
    if (!is_addressed_right(&request, &server)) {
        count(stack->counters, COUNTER_dhcpv6_ignored);
        return;
    }
    reply.transaction = request.transaction;
    fill_reply(stack, &request, &reply);
    send_reply(stack, packet, &reply);
}
