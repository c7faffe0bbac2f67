/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/ip.h"

#include "wire/bytes.h"
#include "wire/checksum.h"

#define IP_PACKET_MAX 65535u

/* ---- IPv4 ---- */

#define IPV4_DONT_FRAGMENT  0x4000
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET_MASK    0x1fff

enum ipv4_option {
    IPV4_OPTION_END = 0,
    IPV4_OPTION_NOP = 1,
    IPV4_OPTION_LOOSE_SOURCE_ROUTE = 131,
    IPV4_OPTION_STRICT_SOURCE_ROUTE = 137,
};

static enum ip_fault ipv4_check_options(const uint8_t *option, size_t len)
{
    size_t n;

    for (; len != 0; option += n, len -= n) {
        if (option[0] == IPV4_OPTION_END)
            return IP_OK;
        n = 1;
        if (option[0] == IPV4_OPTION_NOP)
            continue;
        if (len < 2 || option[1] < 2 || option[1] > len)
            return IP_FAULT_OPTION;
        n = option[1];
        if (option[0] == IPV4_OPTION_LOOSE_SOURCE_ROUTE ||
            option[0] == IPV4_OPTION_STRICT_SOURCE_ROUTE)
            return IP_FAULT_SOURCE_ROUTE;
    }
    return IP_OK;
}

static enum ip_fault ipv4_check_fragment(const struct ipv4_header *h)
{
    unsigned payload = (unsigned)h->total_len - h->header_len;

    if (!ipv4_is_fragment(h))
        return IP_OK;
    if (payload == 0 || (h->more_fragments && payload % 8 != 0))
        return IP_FAULT_FRAGMENT;
    if ((unsigned)h->fragment_offset + payload > IP_PACKET_MAX - h->header_len)
        return IP_FAULT_FRAGMENT;
    return IP_OK;
}

enum ip_fault ipv4_parse(const uint8_t *data, size_t linear, size_t available,
                         struct ipv4_header *ret)
{
    struct ipv4_header h;
    enum ip_fault fault;
    uint16_t fragment;
    uint32_t be;

    if (linear < IPV4_HEADER_LEN)
        return IP_FAULT_TRUNCATED;
    if (data[0] >> 4 != 4)
        return IP_FAULT_VERSION;
    h.header_len = (uint16_t)((data[0] & 15) * 4);
    if (h.header_len < IPV4_HEADER_LEN)
        return IP_FAULT_HEADER_LENGTH;
    h.total_len = load_be16(data + 2);
    if (h.total_len < h.header_len)
        return IP_FAULT_LENGTH;
    if (h.header_len > linear || h.total_len > available)
        return IP_FAULT_TRUNCATED;
    if (checksum_fold(checksum_add_generic(0, data, h.header_len)) != 0xffff)
        return IP_FAULT_CHECKSUM;

    h.tos = data[1];
    h.id = load_be16(data + 4);
    fragment = load_be16(data + 6);
    h.dont_fragment = fragment & IPV4_DONT_FRAGMENT;
    h.more_fragments = fragment & IPV4_MORE_FRAGMENTS;
    h.fragment_offset = (uint16_t)((fragment & IPV4_OFFSET_MASK) * 8);
    h.ttl = data[8];
    h.protocol = data[9];
    memcpy(&be, data + 12, sizeof be);
    h.source = ip_address_v4(be);
    memcpy(&be, data + 16, sizeof be);
    h.destination = ip_address_v4(be);

    fault = ipv4_check_options(data + IPV4_HEADER_LEN, h.header_len - IPV4_HEADER_LEN);
    if (fault == IP_OK)
        fault = ipv4_check_fragment(&h);
    if (fault == IP_OK)
        *ret = h;
    return fault;
}

void ipv4_write(uint8_t *to, const struct ipv4_header *header)
{
    uint16_t fragment = (uint16_t)(header->fragment_offset / 8);

    if (header->dont_fragment)
        fragment |= IPV4_DONT_FRAGMENT;
    if (header->more_fragments)
        fragment |= IPV4_MORE_FRAGMENTS;
    to[0] = 0x45;
    to[1] = header->tos;
    store_be16(to + 2, header->total_len);
    store_be16(to + 4, header->id);
    store_be16(to + 6, fragment);
    to[8] = header->ttl;
    to[9] = header->protocol;
    store_be16(to + IPV4_CHECKSUM_OFFSET, 0);
    memcpy(to + 12, &header->source.be32[3], 4);
    memcpy(to + 16, &header->destination.be32[3], 4);
    checksum_store(to + IPV4_CHECKSUM_OFFSET,
                   checksum_finish(checksum_add_generic(0, to, IPV4_HEADER_LEN)));
}

/* ---- IPv6 ---- */

#define IPV6_EXTENSIONS_MAX 8  /* headers in one chain */
#define IPV6_OPTIONS_MAX    64 /* options in one header; padding counts */

enum ip_fault ipv6_parse(const uint8_t *data, size_t linear, size_t available,
                         struct ipv6_header *ret)
{
    struct ipv6_header h;
    uint32_t word;

    if (linear < IPV6_HEADER_LEN || available < IPV6_HEADER_LEN)
        return IP_FAULT_TRUNCATED;
    word = load_be32(data);
    if (word >> 28 != 6)
        return IP_FAULT_VERSION;
    h.traffic_class = (uint8_t)(word >> 20);
    h.flow_label = word & 0xfffff;
    h.payload_len = load_be16(data + 4);
    if (h.payload_len > available - IPV6_HEADER_LEN)
        return IP_FAULT_TRUNCATED;
    h.next_header = data[6];
    if (h.payload_len == 0 && h.next_header == IPPROTO_HOPOPTS) /* a jumbogram (RFC 2675) */
        return IP_FAULT_LENGTH;
    h.hop_limit = data[7];
    h.source = ip_address_v6(data + 8);
    h.destination = ip_address_v6(data + 24);
    if (ip_address_is_v4(&h.source) || ip_address_is_v4(&h.destination))
        return IP_FAULT_ADDRESS;
    *ret = h;
    return IP_OK;
}

void ipv6_write(uint8_t *to, const struct ipv6_header *header)
{
    store_be32(to,
               6u << 28 | (uint32_t)header->traffic_class << 20 | (header->flow_label & 0xfffff));
    store_be16(to + 4, header->payload_len);
    to[6] = header->next_header;
    to[7] = header->hop_limit;
    memcpy(to + 8, header->source.bytes, 16);
    memcpy(to + 24, header->destination.bytes, 16);
}

/* Options that mean nothing to the engine and may be stepped over (RFC 8200, 4.2; router alert is
 * RFC 2711). */
static bool ipv6_option_known(uint8_t type)
{
    enum { PADN = 1, ROUTER_ALERT = 5 };
    return type == PADN || type == ROUTER_ALERT;
}

/* The top bits of an unknown option's type say what its sender wants. */
static enum ip_fault ipv6_unknown_option(uint8_t type, size_t at, struct ipv6_chain *ret)
{
    switch (type >> 6) {
    case 0:
        return IP_OK;
    case 1:
        return IP_FAULT_DISCARD_OPTION;
    default:
        ret->fault_at = at;
        ret->fault_always_answered = type >> 6 == 2;
        return IP_FAULT_UNKNOWN_OPTION;
    }
}

/* Hop-by-hop and destination options in [at, end). */
static enum ip_fault ipv6_check_options(const uint8_t *data, size_t at, size_t end,
                                        struct ipv6_chain *ret)
{
    enum ip_fault fault;

    for (unsigned count = 0; at < end; count++) {
        if (count == IPV6_OPTIONS_MAX)
            return IP_FAULT_TOO_MANY;
        if (data[at] == 0) { /* Pad1 */
            at++;
            continue;
        }
        if (end - at < 2 || data[at + 1] > end - at - 2) {
            ret->fault_at = at;
            return IP_FAULT_OPTION;
        }
        if (!ipv6_option_known(data[at])) {
            fault = ipv6_unknown_option(data[at], at, ret);
            if (fault != IP_OK)
                return fault;
        }
        at += 2u + data[at + 1];
    }
    return IP_OK;
}

static bool ipv6_is_extension(uint8_t type)
{
    return type == IPPROTO_HOPOPTS || type == IPPROTO_DSTOPTS || type == IPPROTO_ROUTING;
}

/* One extension header, of `len` bytes at ret->offset. */
static enum ip_fault ipv6_check_extension(const uint8_t *data, size_t len, struct ipv6_chain *ret)
{
    size_t at = ret->offset;

    switch (ret->protocol) {
    case IPPROTO_HOPOPTS:
        if (at != IPV6_HEADER_LEN) { /* first or not at all (RFC 8200, 4.1) */
            ret->fault_at = ret->next_header_at;
            return IP_FAULT_OPTION;
        }
        return ipv6_check_options(data, at + 2, at + len, ret);
    case IPPROTO_DSTOPTS:
        return ipv6_check_options(data, at + 2, at + len, ret);
    default: /* routing: nothing left to visit, or refused (RFC 5095, RFC 8200 4.4) */
        if (data[at + 3] == 0)
            return IP_OK;
        ret->fault_at = at + 2;
        return IP_FAULT_SOURCE_ROUTE;
    }
}

enum ip_fault ipv6_walk(const uint8_t *data, size_t linear, size_t offset, uint8_t first,
                        size_t named_at, struct ipv6_chain *ret)
{
    enum ip_fault fault;

    *ret = (struct ipv6_chain){.protocol = first, .offset = offset, .next_header_at = named_at};
    for (unsigned count = 0; ipv6_is_extension(ret->protocol); count++) {
        size_t len;

        if (count == IPV6_EXTENSIONS_MAX)
            return IP_FAULT_TOO_MANY;
        if (ret->offset > linear || linear - ret->offset < 8)
            return IP_FAULT_TRUNCATED;
        len = 8u + 8u * data[ret->offset + 1];
        if (len > linear - ret->offset)
            return IP_FAULT_TRUNCATED;
        fault = ipv6_check_extension(data, len, ret);
        if (fault != IP_OK)
            return fault;
        ret->protocol = data[ret->offset];
        ret->next_header_at = ret->offset;
        ret->offset += len;
    }
    return IP_OK;
}

enum ip_fault ipv6_fragment_parse(const uint8_t *data, size_t linear, size_t available,
                                  struct ipv6_fragment *ret)
{
    struct ipv6_fragment f;
    size_t payload;
    uint16_t word;

    if (linear < IPV6_FRAGMENT_HEADER_LEN || available < IPV6_FRAGMENT_HEADER_LEN)
        return IP_FAULT_TRUNCATED;
    payload = available - IPV6_FRAGMENT_HEADER_LEN;
    word = load_be16(data + 2);
    f.next_header = data[0];
    f.offset = word & 0xfff8;
    f.more = word & 1;
    f.id = load_be32(data + 4);
    if (f.more && (payload == 0 || payload % 8 != 0))
        return IP_FAULT_FRAGMENT;
    if (f.offset + payload > IP_PACKET_MAX)
        return IP_FAULT_FRAGMENT;
    *ret = f;
    return IP_OK;
}

void ipv6_fragment_write(uint8_t *to, const struct ipv6_fragment *fragment)
{
    to[0] = fragment->next_header;
    to[1] = 0;
    store_be16(to + 2, (uint16_t)((fragment->offset & 0xfff8) | (fragment->more ? 1 : 0)));
    store_be32(to + 4, fragment->id);
}
