/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_IP_H
#define WIRE_IP_H

/* IPv4 (RFC 791) and IPv6 (RFC 8200) headers: read with every check, and written.
 *
 * `linear` is how many bytes may be read at `data`; `available` how many the frame holds from there
 * on, behind the linear ones too. Headers must be linear, payload need not be. All numbers are in
 * host order, addresses in the one form of address.h. Outputs are untouched on failure unless said
 * otherwise. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/address.h"

#define IPV4_HEADER_LEN          20u
#define IPV4_HEADER_MAX          60u
#define IPV4_CHECKSUM_OFFSET     10u
#define IPV6_HEADER_LEN          40u
#define IPV6_FRAGMENT_HEADER_LEN 8u

enum ip_fault {
    IP_OK = 0,
    IP_FAULT_TRUNCATED, /* headers or packet longer than what is there */
    IP_FAULT_VERSION,
    IP_FAULT_HEADER_LENGTH,
    IP_FAULT_LENGTH, /* shorter than its own headers, or a jumbogram */
    IP_FAULT_CHECKSUM,
    IP_FAULT_OPTION,         /* an option with an impossible length, or in an impossible place */
    IP_FAULT_UNKNOWN_OPTION, /* IPv6: the sender asks for an ICMP about it (RFC 8200, 4.2) */
    IP_FAULT_DISCARD_OPTION, /* IPv6: unknown, to be dropped silently */
    IP_FAULT_ADDRESS,        /* a v4-mapped address in an IPv6 header */
    IP_FAULT_FRAGMENT,       /* a fragment reaching beyond 65,535, or of an impossible size */
    IP_FAULT_SOURCE_ROUTE,   /* IPv4 source routing, IPv6 routing headers with hops left */
    IP_FAULT_TOO_MANY,       /* more extension headers than anybody needs */
};

/* ---- IPv4 ---- */

struct ipv4_header {
    struct ip_address source, destination;
    uint16_t id;
    uint16_t header_len;      /* 20 to 60 */
    uint16_t total_len;       /* at least header_len, at most `available` */
    uint16_t fragment_offset; /* in bytes */
    bool dont_fragment, more_fragments;
    uint8_t tos, ttl, protocol;
};

static inline bool ipv4_is_fragment(const struct ipv4_header *h)
{
    return h->more_fragments || h->fragment_offset != 0;
}

/* Checks version, lengths, header checksum, options and fragment arithmetic. */
enum ip_fault ipv4_parse(const uint8_t *data, size_t linear, size_t available,
                         struct ipv4_header *ret);
/* Writes 20 bytes with their checksum. header_len is not looked at: options are never sent. */
void ipv4_write(uint8_t *to, const struct ipv4_header *header);

/* ---- IPv6 ---- */

struct ipv6_header {
    struct ip_address source, destination;
    uint32_t flow_label;
    uint16_t payload_len; /* behind the fixed header; at most `available` - 40 */
    uint8_t traffic_class, next_header, hop_limit;
};

/* The fixed header alone. */
enum ip_fault ipv6_parse(const uint8_t *data, size_t linear, size_t available,
                         struct ipv6_header *ret);
/* Writes 40 bytes. */
void ipv6_write(uint8_t *to, const struct ipv6_header *header);

/* Where a chain of extension headers ends. */
struct ipv6_chain {
    uint8_t protocol;           /* a transport, IPPROTO_FRAGMENT, IPPROTO_NONE, or an unknown one */
    size_t offset;              /* of that header, from `data` */
    size_t next_header_at;      /* offset of the byte that names it: 6, or in an extension header */
    size_t fault_at;            /* on IP_FAULT_UNKNOWN_OPTION and others: what an ICMP points at */
    bool fault_always_answered; /* IP_FAULT_UNKNOWN_OPTION: answered for multicast too (type 10) */
};

/* Walks over hop-by-hop, destination options and spent routing headers, from the header of type
 * `first` at data[offset], named by the byte at `named_at`. `linear` counts from `data`. Stops at a
 * fragment header (which is then `protocol`) as at any transport: call again with what it names
 * once the packet is whole. `ret` is filled on failure too, as far as was walked. Hop-by-hop
 * options count as misplaced unless offset is IPV6_HEADER_LEN. */
enum ip_fault ipv6_walk(const uint8_t *data, size_t linear, size_t offset, uint8_t first,
                        size_t named_at, struct ipv6_chain *ret);

struct ipv6_fragment {
    uint32_t id;
    uint16_t offset; /* in bytes, of the fragmentable part */
    uint8_t next_header;
    bool more;
};

/* `data` at the fragment header; `available` bytes of packet from there on. */
enum ip_fault ipv6_fragment_parse(const uint8_t *data, size_t linear, size_t available,
                                  struct ipv6_fragment *ret);
/* Writes 8 bytes. */
void ipv6_fragment_write(uint8_t *to, const struct ipv6_fragment *fragment);

#endif
