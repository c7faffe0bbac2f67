/* SPDX-License-Identifier: Apache-2.0 */
/* ARP, neighbour discovery, DHCP and DHCPv6: what is written can be read, and no truncation of any
 * sample is read as more than is there. Samples lie at the end of their allocation, so that the
 * sanitizer sees a read beyond them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "wire/arp.h"
#include "wire/bytes.h"
#include "wire/dhcp.h"
#include "wire/dhcpv6.h"
#include "wire/icmp.h"
#include "wire/ndp.h"
#include "wire/writer.h"

/* How many truncations of `data` `parse` accepts. */
static unsigned accepted(bool (*parse)(const uint8_t *, size_t), const uint8_t *data, size_t len)
{
    unsigned count = 0;

    for (size_t n = 0; n <= len; n++) {
        uint8_t *copy = malloc(n ? n : 1);

        assert_non_null(copy);
        memcpy(copy, data, n);
        count += parse(copy, n);
        free(copy);
    }
    return count;
}

static bool parse_arp(const uint8_t *data, size_t len)
{
    struct arp arp;

    return arp_parse(data, len, &arp);
}

static void arp_is_read_as_written(void **state)
{
    const struct arp arp = {ARP_REPLY, {1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 12}, 0x01020304, 5};
    struct arp read;
    uint8_t bytes[ARP_LEN];

    (void)state;
    arp_write(bytes, &arp);
    assert_true(arp_parse(bytes, sizeof bytes, &read));
    assert_int_equal(read.operation, arp.operation);
    assert_memory_equal(read.sender_mac, arp.sender_mac, 6);
    assert_memory_equal(read.target_mac, arp.target_mac, 6);
    assert_int_equal(read.be_sender, arp.be_sender);
    assert_int_equal(read.be_target, arp.be_target);
    assert_int_equal(accepted(parse_arp, bytes, sizeof bytes), 1);
    bytes[4] = 8; /* not Ethernet's addresses */
    assert_false(arp_parse(bytes, sizeof bytes, &read));
}

static bool parse_solicitation(const uint8_t *data, size_t len)
{
    struct ndp_solicitation s;

    return ndp_neighbour_solicitation_parse(data, len, &s);
}

static void neighbour_solicitation_is_read_as_written(void **state)
{
    static const uint8_t mac[6] = {2, 3, 4, 5, 6, 7};
    const struct ip_address target = {.bytes = {0xfd, 1, [15] = 9}};
    struct ndp_solicitation read;
    uint8_t bytes[NDP_NEIGHBOUR_SOLICITATION_LEN];

    (void)state;
    ndp_neighbour_solicitation_write(bytes, &target, mac);
    assert_true(ndp_neighbour_solicitation_parse(bytes, sizeof bytes, &read));
    assert_memory_equal(read.target.bytes, target.bytes, 16);
    assert_true(read.has_source_mac);
    assert_memory_equal(read.source_mac, mac, 6);
    assert_int_equal(accepted(parse_solicitation, bytes, sizeof bytes), 2); /* 24 and 32 bytes */
    bytes[25] = 0; /* an option of no length */
    assert_false(ndp_neighbour_solicitation_parse(bytes, sizeof bytes, &read));
    bytes[25] = 2; /* beyond the end */
    assert_false(ndp_neighbour_solicitation_parse(bytes, sizeof bytes, &read));
    bytes[25] = 1;
    bytes[8] = 0xff; /* a group for a target */
    assert_false(ndp_neighbour_solicitation_parse(bytes, sizeof bytes, &read));
}

static void solicited_node_group_has_the_last_three_bytes(void **state)
{
    const struct ip_address address = {.bytes = {0xfd, [13] = 1, [14] = 2, [15] = 3}};
    const struct ip_address group = ndp_solicited_node(&address);
    static const uint8_t expected[16] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 1, 2, 3};

    (void)state;
    assert_memory_equal(group.bytes, expected, 16);
}

static size_t dhcp_sample(uint8_t to[300])
{
    struct writer w = writer_of(to, 300);

    writer_bytes(&w, "\1\1\6\0\1\2\3\4\0\0\x80\0", 12);
    writer_zeros(&w, 16);
    writer_bytes(&w, "\2\3\4\5\6\7", 6);
    writer_zeros(&w, 10 + 64 + 128);
    writer_be32(&w, 0x63825363);
    writer_bytes(&w, "\0\x35\1\3", 4);
    writer_bytes(&w, "\x32\4\12\0\2\x64", 6);
    writer_bytes(&w, "\x3d\3abc", 5);
    writer_bytes(&w, "\x37\2\1\3", 4);
    writer_u8(&w, 255);
    assert_true(writer_ok(&w));
    return w.len;
}

static bool parse_dhcp(const uint8_t *data, size_t len)
{
    struct dhcp_request request;

    return dhcp_parse(data, len, &request);
}

static void dhcp_request_is_read(void **state)
{
    struct dhcp_request r;
    uint8_t bytes[300];
    size_t len = dhcp_sample(bytes);

    (void)state;
    assert_true(dhcp_parse(bytes, len, &r));
    assert_int_equal(r.type, DHCP_REQUEST);
    assert_int_equal(r.transaction, 0x01020304);
    assert_true(r.broadcast);
    assert_int_equal(ntohl(r.be_requested), 0x0a000264);
    assert_int_equal(r.client_id_len, 3);
    assert_memory_equal(r.client_id, "abc", 3);
    /* Between options, an end that is missing is forgiven: 240 bytes, a pad, and four options. */
    assert_int_equal(accepted(parse_dhcp, bytes, len), 7);
    bytes[0] = 2;
    assert_false(dhcp_parse(bytes, len, &r));
}

static void dhcp_options_too_short_for_their_meaning_are_refused(void **state)
{
    struct dhcp_request r;
    uint8_t bytes[300];

    (void)state;
    dhcp_sample(bytes);
    bytes[242] = 0; /* a type of no length */
    assert_false(dhcp_parse(bytes, 243, &r));
}

static void dhcp_reply_always_fits(void **state)
{
    static const char name[] =
        "a-name-that-is-far-longer-than-any-label-of-a-host-name-may-ever-be-"
        "and-longer-still";
    uint8_t id[255] = {0}, bytes[DHCP_REPLY_MAX];
    struct dhcp_reply reply = {
        .type = DHCP_ACK,
        .client_id = id,
        .client_id_len = 255,
        .lease = 1,
        .be_yours = 1,
        .be_server = 1,
        .be_mask = 1,
        .be_router = 1,
        .be_dns = 1,
        .be_broadcast = 1,
        .mtu = 1500,
        .hostname = name,
    };

    (void)state;
    for (unsigned n = 0; n <= 255; n++) {
        size_t len;

        reply.client_id_len = (uint8_t)n;
        len = dhcp_write(bytes, &reply);
        assert_true(len >= 300 && len <= DHCP_REPLY_MAX);
    }
    reply = (struct dhcp_reply){.type = DHCP_NAK};
    assert_int_equal(dhcp_write(bytes, &reply), 300);
}

static bool parse_dhcpv6(const uint8_t *data, size_t len)
{
    struct dhcpv6_request request;

    return dhcpv6_parse(data, len, &request);
}

static void dhcpv6_reply_is_read_as_written(void **state)
{
    const struct dhcpv6_duid client = {.len = 3, .bytes = "abc"},
                             server = {.len = 2, .bytes = "xy"};
    const struct dhcpv6_reply reply = {
        .type = DHCPV6_REPLY,
        .transaction = 0x112233,
        .client = &client,
        .server = &server,
        .rapid_commit = true,
        .status = DHCPV6_STATUS_NONE,
        .ia_count = 2,
        .ias = {{.id = 5,
                 .lease_count = 1,
                 .leases = {{.address = {.bytes = {0xfd, [15] = 1}}}},
                 .status = DHCPV6_STATUS_SUCCESS},
                {.id = 6, .status = DHCPV6_STATUS_NONE}},
    };
    struct dhcpv6_request read;
    uint8_t bytes[DHCPV6_REPLY_MAX];
    size_t len = dhcpv6_write(bytes, &reply);

    (void)state;
    assert_true(dhcpv6_parse(bytes, len, &read));
    assert_int_equal(read.type, DHCPV6_REPLY);
    assert_int_equal(read.transaction, 0x112233);
    assert_int_equal(read.client.len, 3);
    assert_int_equal(read.server.len, 2);
    assert_true(read.rapid_commit);
    assert_int_equal(read.ia_count, 2);
    assert_int_equal(read.ias[0].id, 5);
    assert_int_equal(read.ias[0].address_count, 1);
    assert_memory_equal(read.ias[0].addresses[0].bytes, reply.ias[0].leases[0].address.bytes, 16);
    assert_int_equal(read.ias[1].address_count, 0);
    /* the fixed part alone, and after each of five options */
    assert_int_equal(accepted(parse_dhcpv6, bytes, len), 6);
}

static void largest_dhcpv6_reply_fits(void **state)
{
    const struct dhcpv6_duid duid = {.len = DHCPV6_DUID_MAX};
    const struct ip_address dns = {.bytes = {0xfd}};
    struct dhcpv6_reply reply = {
        .client = &duid, .server = &duid, .ia_count = DHCPV6_IA_MAX, .dns = &dns};
    uint8_t bytes[DHCPV6_REPLY_MAX];

    (void)state;
    for (unsigned i = 0; i < DHCPV6_IA_MAX; i++)
        reply.ias[i].lease_count = DHCPV6_ADDRESSES_MAX + 1;
    assert_true(dhcpv6_write(bytes, &reply) > 0);
}

static void dhcpv6_limits_hold(void **state)
{
    struct dhcpv6_request read;
    uint8_t bytes[1000] = {DHCPV6_SOLICIT};
    size_t len = 4;

    (void)state;
    for (unsigned i = 0; i < 20; i++) { /* more IAs than are looked at */
        store_be16(bytes + len, 3);
        store_be16(bytes + len + 2, 12);
        len += 16;
    }
    assert_true(dhcpv6_parse(bytes, len, &read));
    assert_int_equal(read.ia_count, DHCPV6_IA_MAX);
    store_be16(bytes + 4, 1); /* a DUID that is too long */
    store_be16(bytes + 6, 131);
    assert_false(dhcpv6_parse(bytes, 4 + 4 + 131, &read));
    store_be16(bytes + 6, 0); /* and one of no length */
    assert_false(dhcpv6_parse(bytes, 8, &read));
}

static void writer_never_leaves_its_bytes(void **state)
{
    uint8_t bytes[4] = {9, 9, 9, 9};
    struct writer w = writer_of(bytes, 3);

    (void)state;
    writer_be16(&w, 0x0102);
    assert_true(writer_ok(&w));
    writer_be16(&w, 0x0304);
    assert_false(writer_ok(&w));
    writer_u8(&w, 5); /* failure is final */
    assert_int_equal(w.len, 2);
    assert_int_equal(bytes[2], 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arp_is_read_as_written),
        cmocka_unit_test(neighbour_solicitation_is_read_as_written),
        cmocka_unit_test(solicited_node_group_has_the_last_three_bytes),
        cmocka_unit_test(dhcp_request_is_read),
        cmocka_unit_test(dhcp_options_too_short_for_their_meaning_are_refused),
        cmocka_unit_test(dhcp_reply_always_fits),
        cmocka_unit_test(dhcpv6_reply_is_read_as_written),
        cmocka_unit_test(largest_dhcpv6_reply_fits),
        cmocka_unit_test(dhcpv6_limits_hold),
        cmocka_unit_test(writer_never_leaves_its_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
