/* SPDX-License-Identifier: Apache-2.0 */
/* The DHCPv4 server: one client, one address, one set of facts (RFC 2131).
 *
 * There is nothing to allocate and nothing to remember: whoever asks on this link is the guest, and
 * whatever it asks, the answer is the configured address or a refusal of any other. */

#include <netinet/in.h>
#include <string.h>

#include "stack/network.h"
#include "wire/dhcp.h"

#define REQUEST_MAX 1500u
#define LEASE       604800u /* s; long, as renewals only cost wake-ups */

static void send_reply(struct stack *stack, const struct dhcp_request *request,
                       struct dhcp_reply *reply)
{
    static const uint8_t broadcast_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    /* RFC 2131 4.1: to the client's address if it has one, else as it can take it. */
    const bool broadcast =
        reply->type == DHCP_NAK || (request->be_client == 0 && request->broadcast);
    const uint32_t be_to = broadcast            ? htonl(INADDR_BROADCAST)
                           : request->be_client ? request->be_client
                                                : reply->be_yours;
    const struct flow_key key = {
        .guest = ip_address_v4(be_to),
        .remote = stack->config.gateway4,
        .guest_port = DHCP_CLIENT_PORT,
        .remote_port = DHCP_SERVER_PORT,
        .protocol = IPPROTO_UDP,
    };
    uint8_t message[DHCP_REPLY_MAX];

    reply->transaction = request->transaction;
    reply->broadcast = request->broadcast;
    reply->be_server = stack->config.gateway4.be32[3];
    memcpy(reply->mac, request->mac, 6);
    reply->client_id = request->client_id;
    reply->client_id_len = request->client_id_len;
    udp_send_copy(stack, &key, message, dhcp_write(message, reply),
                  broadcast ? broadcast_mac : stack->guest_mac);
}

static void send_facts(struct stack *stack, const struct dhcp_request *request, enum dhcp_type type,
                       bool with_lease)
{
    const struct stack_config *config = &stack->config;
    const uint8_t prefix = config->prefix4;
    struct dhcp_reply reply = {
        .type = (uint8_t)type,
        .be_client = type == DHCP_ACK ? request->be_client : 0,
        .be_yours = with_lease ? config->guest4.be32[3] : 0,
        .lease = with_lease ? LEASE : 0,
        .be_mask = prefix ? htonl(UINT32_MAX << (32 - prefix)) : 0,
        .be_router = config->gateway4.be32[3],
        .be_dns = ip_address_is_v4(&config->dns4) ? config->dns4.be32[3] : 0,
        .be_broadcast = prefix < 31 ? stack->ip->be_broadcast4 : 0,
        .mtu = (uint16_t)stack->link.mtu,
        .hostname = config->hostname,
    };

    if (type == DHCP_ACK)
        count(stack->counters, COUNTER_dhcp_acks);
    send_reply(stack, request, &reply);
}

static void refuse(struct stack *stack, const struct dhcp_request *request)
{
    struct dhcp_reply reply = {.type = DHCP_NAK};

    count(stack->counters, COUNTER_dhcp_naks);
    send_reply(stack, request, &reply);
}

/* RFC 2131 4.3.2: selecting (names a server), init-reboot (names an address), renewing and
 * rebinding (have one). */
static void request_input(struct stack *stack, const struct dhcp_request *request)
{
    uint32_t be_wanted = request->be_requested ? request->be_requested : request->be_client;

    if (be_wanted == stack->config.guest4.be32[3])
        send_facts(stack, request, DHCP_ACK, true);
    else
        refuse(stack, request);
}

static void dispatch(struct stack *stack, const struct dhcp_request *request)
{
    if (request->be_server != 0 && request->be_server != stack->config.gateway4.be32[3]) {
        count(stack->counters, COUNTER_dhcp_ignored); /* it has chosen another server */
        return;
    }
    switch (request->type) {
    case DHCP_DISCOVER:
        send_facts(stack, request, DHCP_OFFER, true);
        break;
    case DHCP_REQUEST:
        request_input(stack, request);
        break;
    case DHCP_INFORM:
        if (request->be_client == stack->config.guest4.be32[3])
            send_facts(stack, request, DHCP_ACK, false);
        else
            count(stack->counters, COUNTER_dhcp_ignored);
        break;
    case DHCP_DECLINE:
        count(stack->counters, COUNTER_dhcp_declined);
        break;
    case DHCP_RELEASE: /* the address stays the guest's: there is nobody else to give it to */
        break;
    default:
        count(stack->counters, COUNTER_dhcp_ignored);
        break;
    }
}

void dhcp_input(struct stack *stack, const struct ip_packet *packet, size_t offset, size_t len)
{
    uint8_t message[REQUEST_MAX];
    struct dhcp_request request;

    if (len > sizeof message || !frame_copy(packet->frame, offset, len, message) ||
        !dhcp_parse(message, len, &request)) {
        count(stack->counters, COUNTER_dhcp_malformed);
        return;
    }
    if (request.be_relay != 0) { /* the guest is no relay */
        count(stack->counters, COUNTER_dhcp_ignored);
        return;
    }
    dispatch(stack, &request);
}
