/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_ETHERNET_H
#define WIRE_ETHERNET_H

/* Ethernet II headers. VLAN tags are nobody's: a tagged frame has the type ETHERNET_VLAN. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "wire/bytes.h"

#define ETHERNET_HEADER_LEN 14u

enum ethernet_type {
    ETHERNET_IPV4 = 0x0800,
    ETHERNET_ARP = 0x0806,
    ETHERNET_VLAN = 0x8100,
    ETHERNET_IPV6 = 0x86dd,
};

struct ethernet_header {
    uint8_t destination[6], source[6];
    uint16_t type; /* host order; enum ethernet_type, or any other */
};

static inline bool ethernet_parse(const uint8_t *data, size_t len, struct ethernet_header *ret)
{
    if (len < ETHERNET_HEADER_LEN)
        return false;
    memcpy(ret->destination, data, 6);
    memcpy(ret->source, data + 6, 6);
    ret->type = load_be16(data + 12);
    return true;
}

/* Writes ETHERNET_HEADER_LEN bytes. */
static inline void ethernet_write(uint8_t *to, const uint8_t destination[6],
                                  const uint8_t source[6], uint16_t type)
{
    memcpy(to, destination, 6);
    memcpy(to + 6, source, 6);
    store_be16(to + 12, type);
}

/* Group addresses, broadcast included. */
static inline bool ethernet_is_multicast(const uint8_t mac[6])
{
    return mac[0] & 1;
}

static inline bool ethernet_is_zero(const uint8_t mac[6])
{
    static const uint8_t zero[6];
    return memcmp(mac, zero, 6) == 0;
}

#endif
