/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_DHCP_H
#define WIRE_DHCP_H

/* DHCPv4 messages (RFC 2131, options RFC 2132), from a server's side: requests are read, replies
 * written. Addresses are in network order. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DHCP_SERVER_PORT 67
#define DHCP_CLIENT_PORT 68
#define DHCP_REPLY_MAX   576u /* every client takes so much (RFC 2131 2) */

enum dhcp_type {
    DHCP_DISCOVER = 1,
    DHCP_OFFER = 2,
    DHCP_REQUEST = 3,
    DHCP_DECLINE = 4,
    DHCP_ACK = 5,
    DHCP_NAK = 6,
    DHCP_RELEASE = 7,
    DHCP_INFORM = 8,
};

struct dhcp_request {
    uint8_t type; /* enum dhcp_type, or any other */
    uint32_t transaction;
    bool broadcast;     /* the client cannot take unicast yet */
    uint32_t be_client; /* ciaddr */
    uint32_t be_relay;  /* giaddr */
    uint8_t mac[6];
    uint32_t be_requested; /* 0: none */
    uint32_t be_server;    /* server identifier; 0: none */
    uint8_t client_id[255];
    uint8_t client_id_len;
};

struct dhcp_reply {
    uint8_t type; /* OFFER, ACK or NAK; a NAK has neither address nor facts */
    uint32_t transaction;
    bool broadcast;
    uint32_t be_client, be_yours, be_server;
    uint8_t mac[6];
    const uint8_t *client_id; /* echoed (RFC 6842); may be NULL with client_id_len 0 */
    uint8_t client_id_len;
    uint32_t lease; /* s; 0: no lease (the answer to INFORM) */
    uint32_t be_mask, be_router, be_dns, be_broadcast;
    uint16_t mtu;
    const char *hostname; /* "" for none; cut at 63 bytes */
};

/* False: not a request of an Ethernet client, too short, or an option that overruns. Options behind
 * "overload" are not read: no client of ours needs them. */
bool dhcp_parse(const uint8_t *data, size_t len, struct dhcp_request *ret);
/* Writes at most DHCP_REPLY_MAX bytes (of UDP payload) and returns how many. */
size_t dhcp_write(uint8_t to[DHCP_REPLY_MAX], const struct dhcp_reply *reply);

#endif
