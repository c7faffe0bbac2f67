/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/ip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "wire/bytes.h"
#include "wire/checksum.h"

static struct ip_address address(const char *text)
{
    struct ip_address a;
    assert_true(ip_address_parse(text, &a));
    return a;
}

/* ---- IPv4 ---- */

static void sign4(uint8_t *packet)
{
    size_t len = (packet[0] & 15u) * 4u;
    checksum_store(packet + 10, 0);
    checksum_store(packet + 10, checksum_finish(checksum_add(0, packet, len)));
}

static void sample4(uint8_t packet[100])
{
    struct ipv4_header h = {.source = address("10.0.2.100"),
                            .destination = address("192.0.2.1"),
                            .id = 0x1234,
                            .total_len = 100,
                            .dont_fragment = true,
                            .tos = 0x2e,
                            .ttl = 63,
                            .protocol = 17};
    memset(packet, 0, 100);
    ipv4_write(packet, &h);
}

static void an_ipv4_header_is_read_as_written(void **state)
{
    uint8_t packet[100];
    struct ipv4_header h;
    struct ip_address source = address("10.0.2.100"), destination = address("192.0.2.1");

    (void)state;
    sample4(packet);
    assert_int_equal(ipv4_parse(packet, 100, 100, &h), IP_OK);
    assert_true(ip_address_equal(&h.source, &source));
    assert_true(ip_address_equal(&h.destination, &destination));
    assert_int_equal(h.id, 0x1234);
    assert_int_equal(h.header_len, 20);
    assert_int_equal(h.total_len, 100);
    assert_true(h.dont_fragment);
    assert_false(ipv4_is_fragment(&h));
    assert_int_equal(h.tos, 0x2e);
    assert_int_equal(h.ttl, 63);
    assert_int_equal(h.protocol, 17);
}

static void every_truncation_of_an_ipv4_packet_is_seen(void **state)
{
    uint8_t packet[100];
    struct ipv4_header h;

    (void)state;
    sample4(packet);
    for (size_t len = 0; len < 100; len++)
        assert_int_equal(ipv4_parse(packet, len, len, &h), IP_FAULT_TRUNCATED);
    assert_int_equal(ipv4_parse(packet, 20, 100, &h), IP_OK);
    assert_int_equal(ipv4_parse(packet, 19, 100, &h), IP_FAULT_TRUNCATED);
    assert_int_equal(ipv4_parse(packet, 20, 1000, &h), IP_OK); /* link padding */
}

static void ipv4_headers_that_lie_are_refused(void **state)
{
    uint8_t packet[100];
    struct ipv4_header h;

    (void)state;
    sample4(packet);
    packet[8]--;
    assert_int_equal(ipv4_parse(packet, 100, 100, &h), IP_FAULT_CHECKSUM);
    sample4(packet);
    packet[0] = 0x65;
    assert_int_equal(ipv4_parse(packet, 100, 100, &h), IP_FAULT_VERSION);
    packet[0] = 0x44;
    assert_int_equal(ipv4_parse(packet, 100, 100, &h), IP_FAULT_HEADER_LENGTH);
    packet[0] = 0x46;
    assert_int_equal(ipv4_parse(packet, 20, 100, &h), IP_FAULT_TRUNCATED);
    packet[0] = 0x45;
    store_be16(packet + 2, 19);
    assert_int_equal(ipv4_parse(packet, 100, 100, &h), IP_FAULT_LENGTH);
}

static enum ip_fault parse_with_options(const uint8_t options[8])
{
    uint8_t packet[100];
    struct ipv4_header h;

    sample4(packet);
    packet[0] = 0x47;
    memcpy(packet + 20, options, 8);
    sign4(packet);
    return ipv4_parse(packet, 100, 100, &h);
}

static void ipv4_options_are_walked_within_their_bounds(void **state)
{
    (void)state;
    assert_int_equal(parse_with_options((uint8_t[8]){1, 1, 148, 4, 0, 0, 1, 1}), IP_OK);
    assert_int_equal(parse_with_options((uint8_t[8]){0, 131, 0, 0}), IP_OK);
    assert_int_equal(parse_with_options((uint8_t[8]){148, 8}), IP_OK);
    assert_int_equal(parse_with_options((uint8_t[8]){148, 9}), IP_FAULT_OPTION);
    assert_int_equal(parse_with_options((uint8_t[8]){148, 0}), IP_FAULT_OPTION);
    assert_int_equal(parse_with_options((uint8_t[8]){148, 1}), IP_FAULT_OPTION);
    assert_int_equal(parse_with_options((uint8_t[8]){1, 1, 1, 1, 1, 1, 1, 148}), IP_FAULT_OPTION);
    assert_int_equal(parse_with_options((uint8_t[8]){131, 7, 4}), IP_FAULT_SOURCE_ROUTE);
    assert_int_equal(parse_with_options((uint8_t[8]){1, 137, 7, 4}), IP_FAULT_SOURCE_ROUTE);
}

static enum ip_fault parse_fragment4(uint16_t field, uint16_t total_len)
{
    uint8_t packet[100];
    struct ipv4_header h;

    sample4(packet);
    store_be16(packet + 2, total_len);
    store_be16(packet + 6, field);
    sign4(packet);
    return ipv4_parse(packet, 100, 100, &h);
}

static void impossible_ipv4_fragments_are_refused(void **state)
{
    (void)state;
    assert_int_equal(parse_fragment4(0x2000, 100), IP_OK);
    assert_int_equal(parse_fragment4(0x2000, 99), IP_FAULT_FRAGMENT); /* not a multiple of 8 */
    assert_int_equal(parse_fragment4(0x0001, 99), IP_OK);             /* the last may be odd */
    assert_int_equal(parse_fragment4(0x2001, 20), IP_FAULT_FRAGMENT); /* empty */
    assert_int_equal(parse_fragment4(0x1fff, 100), IP_FAULT_FRAGMENT);
    assert_int_equal(parse_fragment4(0x1ff3, 100), IP_OK);
    assert_int_equal(parse_fragment4(0x1ff4, 100), IP_FAULT_FRAGMENT);
}

static void fragment_fields_are_written_as_read(void **state)
{
    uint8_t packet[100];
    struct ipv4_header h;

    (void)state;
    sample4(packet);
    assert_int_equal(ipv4_parse(packet, 100, 100, &h), IP_OK);
    h.dont_fragment = false;
    h.more_fragments = true;
    h.fragment_offset = 1480;
    ipv4_write(packet, &h);
    assert_int_equal(ipv4_parse(packet, 100, 100, &h), IP_OK);
    assert_true(h.more_fragments);
    assert_int_equal(h.fragment_offset, 1480);
    assert_false(h.dont_fragment);
}

/* ---- IPv6 ---- */

static void sample6(uint8_t *packet, uint8_t next_header, uint16_t payload_len)
{
    struct ipv6_header h = {.source = address("fd63:756c:7665::64"),
                            .destination = address("2001:db8::1"),
                            .flow_label = 0xabcde,
                            .payload_len = payload_len,
                            .traffic_class = 0x2e,
                            .next_header = next_header,
                            .hop_limit = 63};
    memset(packet, 0, 40u + payload_len);
    ipv6_write(packet, &h);
}

static void an_ipv6_header_is_read_as_written(void **state)
{
    uint8_t packet[100];
    struct ipv6_header h;
    struct ip_address source = address("fd63:756c:7665::64"), destination = address("2001:db8::1");

    (void)state;
    sample6(packet, 6, 60);
    assert_int_equal(ipv6_parse(packet, 100, 100, &h), IP_OK);
    assert_true(ip_address_equal(&h.source, &source));
    assert_true(ip_address_equal(&h.destination, &destination));
    assert_int_equal(h.flow_label, 0xabcde);
    assert_int_equal(h.traffic_class, 0x2e);
    assert_int_equal(h.payload_len, 60);
    assert_int_equal(h.next_header, 6);
    assert_int_equal(h.hop_limit, 63);
    for (size_t len = 0; len < 100; len++)
        assert_int_equal(ipv6_parse(packet, len, len, &h), IP_FAULT_TRUNCATED);
}

static void ipv6_headers_that_lie_are_refused(void **state)
{
    uint8_t packet[100];
    struct ipv6_header h;

    (void)state;
    sample6(packet, 6, 60);
    packet[0] = 0x45;
    assert_int_equal(ipv6_parse(packet, 100, 100, &h), IP_FAULT_VERSION);
    sample6(packet, IPPROTO_HOPOPTS, 0);
    assert_int_equal(ipv6_parse(packet, 100, 100, &h), IP_FAULT_LENGTH);
    sample6(packet, 6, 60);
    memset(packet + 24, 0, 10);
    packet[34] = packet[35] = 0xff;
    assert_int_equal(ipv6_parse(packet, 100, 100, &h), IP_FAULT_ADDRESS);
}

static enum ip_fault walk(const uint8_t *chain, size_t len, uint8_t first, struct ipv6_chain *ret)
{
    uint8_t packet[400];

    sample6(packet, first, (uint16_t)len);
    memcpy(packet + 40, chain, len);
    return ipv6_walk(packet, 40 + len, 40, first, 6, ret);
}

static void a_chain_without_extensions_ends_where_it_begins(void **state)
{
    struct ipv6_chain chain;

    (void)state;
    assert_int_equal(walk((uint8_t[8]){0}, 8, 6, &chain), IP_OK);
    assert_int_equal(chain.protocol, 6);
    assert_int_equal(chain.offset, 40);
    assert_int_equal(chain.next_header_at, 6);
}

static void a_chain_is_walked_to_its_transport(void **state)
{
    static const uint8_t headers[] = {60, 0, 5, 2,  0, 0, 1, 0, /* hop-by-hop */
                                      43, 1, 1, 12, 0, 0, 0, 0,
                                      0,  0, 0, 0,  0, 0, 0, 0, /* destination options, 16 bytes */
                                      17, 0, 0, 0,  0, 0, 0, 0, /* routing, nothing left */
                                      0,  0, 0, 0,  0, 8, 0, 0};
    struct ipv6_chain chain;

    (void)state;
    assert_int_equal(walk(headers, sizeof headers, 0, &chain), IP_OK);
    assert_int_equal(chain.protocol, 17);
    assert_int_equal(chain.offset, 40 + 32);
    assert_int_equal(chain.next_header_at, 40 + 24);
    for (size_t len = 0; len < 32; len++)
        assert_int_equal(walk(headers, len, 0, &chain), IP_FAULT_TRUNCATED);
    assert_int_equal(walk(headers, 32, 0, &chain), IP_OK);
}

static void a_walk_stops_at_a_fragment_header(void **state)
{
    static const uint8_t headers[] = {44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 9, 0, 0, 0, 7};
    struct ipv6_chain chain;

    (void)state;
    assert_int_equal(walk(headers, sizeof headers, 60, &chain), IP_OK);
    assert_int_equal(chain.protocol, IPPROTO_FRAGMENT);
    assert_int_equal(chain.offset, 48);
    assert_int_equal(chain.next_header_at, 40);
}

static void options_get_what_their_types_ask_for(void **state)
{
    uint8_t header[8] = {17, 0, 0x3e, 4};
    struct ipv6_chain chain;

    (void)state;
    assert_int_equal(walk(header, 8, 60, &chain), IP_OK); /* 00: skip */
    header[2] = 0x7e;
    assert_int_equal(walk(header, 8, 60, &chain), IP_FAULT_DISCARD_OPTION);
    header[2] = 0xbe;
    assert_int_equal(walk(header, 8, 60, &chain), IP_FAULT_UNKNOWN_OPTION);
    assert_true(chain.fault_always_answered);
    assert_int_equal(chain.fault_at, 42);
    header[2] = 0xfe;
    assert_int_equal(walk(header, 8, 60, &chain), IP_FAULT_UNKNOWN_OPTION);
    assert_false(chain.fault_always_answered);
    header[3] = 5;
    assert_int_equal(walk(header, 8, 60, &chain), IP_FAULT_OPTION);
    assert_int_equal(walk((uint8_t[8]){17, 0, 0, 0, 0, 0, 0, 1}, 8, 60, &chain), IP_FAULT_OPTION);
}

static void source_routes_and_misplaced_hop_by_hop_options_are_refused(void **state)
{
    static const uint8_t misplaced[] = {0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0};
    struct ipv6_chain chain;

    (void)state;
    assert_int_equal(walk((uint8_t[8]){17, 0, 0, 1}, 8, 43, &chain), IP_FAULT_SOURCE_ROUTE);
    assert_int_equal(chain.fault_at, 42);
    assert_int_equal(walk(misplaced, sizeof misplaced, 60, &chain), IP_FAULT_OPTION);
    assert_int_equal(chain.fault_at, 40);
}

static void an_endless_chain_ends(void **state)
{
    uint8_t headers[8 * 20] = {0};
    struct ipv6_chain chain;

    (void)state;
    for (size_t i = 0; i < 20; i++) {
        headers[8 * i] = 60;
        headers[8 * i + 2] = 1;
        headers[8 * i + 3] = 4;
    }
    assert_int_equal(walk(headers, sizeof headers, 60, &chain), IP_FAULT_TOO_MANY);
}

static void a_header_of_endless_padding_ends(void **state)
{
    uint8_t header[8 * 20] = {17, 19};
    struct ipv6_chain chain;

    (void)state;
    assert_int_equal(walk(header, sizeof header, 60, &chain), IP_FAULT_TOO_MANY);
}

static void ipv6_fragment_headers_are_checked(void **state)
{
    struct ipv6_fragment f = {.id = 0x01020304, .offset = 1448, .next_header = 17, .more = true};
    uint8_t header[8];

    (void)state;
    ipv6_fragment_write(header, &f);
    memset(&f, 0, sizeof f);
    assert_int_equal(ipv6_fragment_parse(header, 8, 8 + 16, &f), IP_OK);
    assert_int_equal(f.id, 0x01020304);
    assert_int_equal(f.offset, 1448);
    assert_int_equal(f.next_header, 17);
    assert_true(f.more);
    assert_int_equal(ipv6_fragment_parse(header, 7, 24, &f), IP_FAULT_TRUNCATED);
    assert_int_equal(ipv6_fragment_parse(header, 8, 7, &f), IP_FAULT_TRUNCATED);
    assert_int_equal(ipv6_fragment_parse(header, 8, 8 + 15, &f), IP_FAULT_FRAGMENT);
    assert_int_equal(ipv6_fragment_parse(header, 8, 8, &f), IP_FAULT_FRAGMENT);
    f.more = false;
    f.offset = 65528;
    ipv6_fragment_write(header, &f);
    assert_int_equal(ipv6_fragment_parse(header, 8, 8 + 7, &f), IP_OK);
    assert_int_equal(ipv6_fragment_parse(header, 8, 8 + 8, &f), IP_FAULT_FRAGMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ipv4_header_is_read_as_written),
        cmocka_unit_test(every_truncation_of_an_ipv4_packet_is_seen),
        cmocka_unit_test(ipv4_headers_that_lie_are_refused),
        cmocka_unit_test(ipv4_options_are_walked_within_their_bounds),
        cmocka_unit_test(impossible_ipv4_fragments_are_refused),
        cmocka_unit_test(fragment_fields_are_written_as_read),
        cmocka_unit_test(an_ipv6_header_is_read_as_written),
        cmocka_unit_test(ipv6_headers_that_lie_are_refused),
        cmocka_unit_test(a_chain_without_extensions_ends_where_it_begins),
        cmocka_unit_test(a_chain_is_walked_to_its_transport),
        cmocka_unit_test(a_walk_stops_at_a_fragment_header),
        cmocka_unit_test(options_get_what_their_types_ask_for),
        cmocka_unit_test(source_routes_and_misplaced_hop_by_hop_options_are_refused),
        cmocka_unit_test(an_endless_chain_ends),
        cmocka_unit_test(a_header_of_endless_padding_ends),
        cmocka_unit_test(ipv6_fragment_headers_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
