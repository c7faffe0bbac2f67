/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/ndp.h"

#include <string.h>

#include "wire/icmp.h"
#include "wire/reader.h"

enum ndp_option {
    NDP_OPTION_SOURCE_MAC = 1,
    NDP_OPTION_TARGET_MAC = 2,
    NDP_OPTION_PREFIX = 3,
    NDP_OPTION_MTU = 5,
    NDP_OPTION_RDNSS = 25,
};

/* Options count their length in units of 8 bytes, the type and length included. */
static void read_options(struct reader *r, struct ndp_solicitation *ret)
{
    while (reader_ok(r) && !reader_at_end(r)) {
        uint8_t type = reader_u8(r);
        size_t len = reader_u8(r) * 8u;

        if (len == 0) {
            reader_fail(r);
            return;
        }
        if (type == NDP_OPTION_SOURCE_MAC && len == 8 && !ret->has_source_mac) {
            reader_copy(r, ret->source_mac, 6);
            ret->has_source_mac = true;
        } else {
            reader_skip(r, len - 2);
        }
    }
}

bool ndp_neighbour_solicitation_parse(const uint8_t *data, size_t len, struct ndp_solicitation *ret)
{
    struct reader r = reader_of(data, len);
    struct ndp_solicitation parsed = {0};

    reader_skip(&r, 1);
    if (reader_u8(&r) != 0)
        return false;
    reader_skip(&r, 6); /* checksum and reserved */
    reader_copy(&r, parsed.target.bytes, 16);
    if (parsed.target.bytes[0] == 0xff)
        return false;
    read_options(&r, &parsed);
    if (!reader_ok(&r))
        return false;
    *ret = parsed;
    return true;
}

bool ndp_router_solicitation_parse(const uint8_t *data, size_t len, struct ndp_solicitation *ret)
{
    struct reader r = reader_of(data, len);
    struct ndp_solicitation parsed = {0};

    reader_skip(&r, 1);
    if (reader_u8(&r) != 0)
        return false;
    reader_skip(&r, 6);
    read_options(&r, &parsed);
    if (!reader_ok(&r))
        return false;
    *ret = parsed;
    return true;
}

static void write_mac_option(uint8_t *to, enum ndp_option type, const uint8_t mac[6])
{
    to[0] = (uint8_t)type;
    to[1] = 1;
    memcpy(to + 2, mac, 6);
}

void ndp_neighbour_advertisement_write(uint8_t *to,
                                       const struct ndp_neighbour_advertisement *message)
{
    const struct icmp_header header = {
        .type = ICMP6_NEIGHBOUR_ADVERTISEMENT,
        .rest = (message->router ? 0x80000000u : 0) | (message->solicited ? 0x40000000u : 0) |
                (message->override ? 0x20000000u : 0),
    };

    icmp_write(to, &header);
    memcpy(to + 8, message->target.bytes, 16);
    write_mac_option(to + 24, NDP_OPTION_TARGET_MAC, message->target_mac);
}

void ndp_neighbour_solicitation_write(uint8_t *to, const struct ip_address *target,
                                      const uint8_t source_mac[6])
{
    const struct icmp_header header = {.type = ICMP6_NEIGHBOUR_SOLICITATION};

    icmp_write(to, &header);
    memcpy(to + 8, target->bytes, 16);
    write_mac_option(to + 24, NDP_OPTION_SOURCE_MAC, source_mac);
}

/* RFC 4861 4.6.2 */
static void write_prefix_option(uint8_t *to, const struct ndp_router_advertisement *message)
{
    to[0] = NDP_OPTION_PREFIX;
    to[1] = 4;
    to[2] = message->prefix_length;
    to[3] = 0xc0; /* L: on-link, A: autonomous */
    store_be32(to + 4, message->valid_lifetime);
    store_be32(to + 8, message->preferred_lifetime);
    store_be32(to + 12, 0);
    memcpy(to + 16, message->prefix.bytes, 16);
}

/* RFC 8106 5.1, one server */
static void write_rdnss_option(uint8_t *to, const struct ndp_router_advertisement *message)
{
    to[0] = NDP_OPTION_RDNSS;
    to[1] = 3;
    store_be16(to + 2, 0);
    store_be32(to + 4, message->dns_lifetime);
    memcpy(to + 8, message->dns.bytes, 16);
}

void ndp_router_advertisement_write(uint8_t *to, const struct ndp_router_advertisement *message)
{
    const struct icmp_header header = {
        .type = ICMP6_ROUTER_ADVERTISEMENT,
        .rest = (uint32_t)message->hop_limit << 24 | (message->managed ? 0x800000u : 0) |
                (message->other_configuration ? 0x400000u : 0) | message->router_lifetime,
    };

    icmp_write(to, &header);
    store_be32(to + 8, 0);  /* reachable time: unspecified */
    store_be32(to + 12, 0); /* retransmission timer: unspecified */
    write_mac_option(to + 16, NDP_OPTION_SOURCE_MAC, message->source_mac);
    to[24] = NDP_OPTION_MTU;
    to[25] = 1;
    store_be16(to + 26, 0);
    store_be32(to + 28, message->mtu);
    write_prefix_option(to + 32, message);
    write_rdnss_option(to + 64, message);
}

struct ip_address ndp_solicited_node(const struct ip_address *address)
{
    struct ip_address group = {.bytes = {0xff, 2, [11] = 1, [12] = 0xff}};

    memcpy(group.bytes + 13, address->bytes + 13, 3);
    return group;
}
