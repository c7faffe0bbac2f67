/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_DHCPV6_H
#define WIRE_DHCPV6_H

/* DHCPv6 messages (RFC 8415), from a server's side: what clients send is read, replies written. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/address.h"

#define DHCPV6_CLIENT_PORT   546
#define DHCPV6_SERVER_PORT   547
#define DHCPV6_DUID_MAX      130u
#define DHCPV6_IA_MAX        4u
#define DHCPV6_ADDRESSES_MAX 4u
#define DHCPV6_REPLY_MAX     1024u

enum dhcpv6_type {
    DHCPV6_SOLICIT = 1,
    DHCPV6_ADVERTISE = 2,
    DHCPV6_REQUEST = 3,
    DHCPV6_CONFIRM = 4,
    DHCPV6_RENEW = 5,
    DHCPV6_REBIND = 6,
    DHCPV6_REPLY = 7,
    DHCPV6_RELEASE = 8,
    DHCPV6_DECLINE = 9,
    DHCPV6_INFORMATION_REQUEST = 11,
};

enum dhcpv6_status {
    DHCPV6_STATUS_SUCCESS = 0,
    DHCPV6_STATUS_NO_ADDRESS = 2,
    DHCPV6_STATUS_NOT_ON_LINK = 4,
    DHCPV6_STATUS_NONE = 0xffff, /* no status option is written */
};

struct dhcpv6_duid {
    uint16_t len; /* 0: absent */
    uint8_t bytes[DHCPV6_DUID_MAX];
};

/* An identity association for non-temporary addresses, with the addresses the client named. */
struct dhcpv6_ia {
    uint32_t id;
    unsigned address_count;
    struct ip_address addresses[DHCPV6_ADDRESSES_MAX];
};

struct dhcpv6_request {
    uint8_t type;         /* enum dhcpv6_type, or any other */
    uint32_t transaction; /* 24 bits */
    struct dhcpv6_duid client, server;
    bool rapid_commit;
    unsigned ia_count;
    struct dhcpv6_ia ias[DHCPV6_IA_MAX];
};

struct dhcpv6_lease {
    struct ip_address address;
    uint32_t preferred, valid; /* s; 0 takes the address away */
};

struct dhcpv6_reply_ia {
    uint32_t id;
    uint32_t t1, t2; /* s */
    unsigned lease_count;
    struct dhcpv6_lease leases[DHCPV6_ADDRESSES_MAX + 1];
    uint16_t status; /* enum dhcpv6_status */
};

struct dhcpv6_reply {
    uint8_t type;
    uint32_t transaction;
    const struct dhcpv6_duid *client; /* len 0: left out */
    const struct dhcpv6_duid *server;
    bool rapid_commit;
    uint16_t status; /* enum dhcpv6_status */
    unsigned ia_count;
    struct dhcpv6_reply_ia ias[DHCPV6_IA_MAX];
    const struct ip_address *dns; /* NULL: left out */
};

/* False: too short, an option that overruns, a DUID that is too long. More IAs or addresses than
 * there is room for are ignored. */
bool dhcpv6_parse(const uint8_t *data, size_t len, struct dhcpv6_request *ret);
/* Writes at most DHCPV6_REPLY_MAX bytes (of UDP payload) and returns how many; 0: no room. */
size_t dhcpv6_write(uint8_t to[DHCPV6_REPLY_MAX], const struct dhcpv6_reply *reply);
/* A DUID of the link-layer kind (RFC 8415 11.4). */
struct dhcpv6_duid dhcpv6_duid_of_mac(const uint8_t mac[6]);

#endif
