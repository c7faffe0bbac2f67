/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_UDP_H
#define WIRE_UDP_H

/* UDP headers (RFC 768). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/bytes.h"

#define UDP_HEADER_LEN      8u
#define UDP_CHECKSUM_OFFSET 6u

struct udp_header {
    uint16_t source_port, destination_port; /* host order */
    uint16_t len;                           /* header and payload, at least UDP_HEADER_LEN */
    bool checksum_present;
};

/* `data`: UDP_HEADER_LEN linear bytes at least, of `available` (what the IP packet holds). False:
 * too short, or a length that is no length. A length below `available` is legal: the rest is not
 * UDP's. */
static inline bool udp_parse(const uint8_t *data, size_t available, struct udp_header *ret)
{
    uint16_t len;

    if (available < UDP_HEADER_LEN)
        return false;
    len = load_be16(data + 4);
    if (len < UDP_HEADER_LEN || len > available)
        return false;
    ret->source_port = load_be16(data);
    ret->destination_port = load_be16(data + 2);
    ret->len = len;
    ret->checksum_present = load_be16(data + 6) != 0;
    return true;
}

/* Writes UDP_HEADER_LEN bytes; the checksum field is zero and the caller's to fill. `len` counts
 * the header. */
static inline void udp_write(uint8_t *to, uint16_t source_port, uint16_t destination_port,
                             uint16_t len)
{
    store_be16(to, source_port);
    store_be16(to + 2, destination_port);
    store_be16(to + 4, len);
    store_be16(to + 6, 0);
}

#endif
