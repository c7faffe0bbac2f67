/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_NDP_H
#define WIRE_NDP_H

/* Neighbour discovery messages (RFC 4861), as far as a router with one neighbour reads and writes
 * them; RDNSS as of RFC 8106. Lengths are of ICMPv6 messages, their first byte the type. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/address.h"

#define NDP_HOP_LIMIT                   255
#define NDP_NEIGHBOUR_ADVERTISEMENT_LEN 32u
#define NDP_NEIGHBOUR_SOLICITATION_LEN  32u
#define NDP_ROUTER_ADVERTISEMENT_LEN    88u /* with all the options below */
#define NDP_INFINITY                    UINT32_MAX

struct ndp_solicitation {
    struct ip_address target; /* neighbour solicitations only */
    bool has_source_mac;
    uint8_t source_mac[6];
};

/* False: too short, a code that is not 0, a multicast target, or an option that is none (RFC 4861
 * 6.1.1, 7.1.1). The rules about the IP header are the caller's. */
bool ndp_neighbour_solicitation_parse(const uint8_t *data, size_t len,
                                      struct ndp_solicitation *ret);
bool ndp_router_solicitation_parse(const uint8_t *data, size_t len, struct ndp_solicitation *ret);

struct ndp_neighbour_advertisement {
    bool router, solicited, override;
    struct ip_address target;
    uint8_t target_mac[6];
};

struct ndp_router_advertisement {
    uint8_t hop_limit;
    bool managed, other_configuration; /* DHCPv6 has addresses, or other facts */
    uint16_t router_lifetime;          /* s; at most 9000 */
    uint8_t source_mac[6];
    uint32_t mtu;
    struct ip_address prefix; /* on-link and autonomous */
    uint8_t prefix_length;
    uint32_t valid_lifetime, preferred_lifetime; /* s */
    struct ip_address dns;
    uint32_t dns_lifetime; /* s */
};

/* The writers fill exactly the lengths above; the checksum field is zero and the caller's to fill.
 */
void ndp_neighbour_advertisement_write(uint8_t *to,
                                       const struct ndp_neighbour_advertisement *message);
void ndp_neighbour_solicitation_write(uint8_t *to, const struct ip_address *target,
                                      const uint8_t source_mac[6]);
void ndp_router_advertisement_write(uint8_t *to, const struct ndp_router_advertisement *message);

/* ff02::1:ffXX:XXXX of `address` (RFC 4291 2.7.1). */
struct ip_address ndp_solicited_node(const struct ip_address *address);

#endif
