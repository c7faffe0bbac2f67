/* SPDX-License-Identifier: Apache-2.0 */
/* What is let in, and why not. */

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "wire/bytes.h"

static void udp4(struct build *b, uint32_t source, uint32_t destination)
{
    build_ip4(b, source, destination, IPPROTO_UDP);
    build_udp(b, 1000, 53);
    build_pattern(b, 20, 1);
    build_finish(b);
}

static void udp6(struct build *b, const char *source, const char *destination)
{
    build_ip6(b, source, destination, IPPROTO_UDP);
    build_udp(b, 1000, 53);
    build_pattern(b, 20, 1);
    build_finish(b);
}

static void feed(struct lab *lab, const struct build *b)
{
    lab_input(lab, b->data, b->len);
}

static void spoofed_sources_are_dropped_and_counted(void **state)
{
    static const uint32_t v4[] = {0x0a000263, GATEWAY4,   DNS4,       0x7f000001, 0,
                                  0x08080808, 0xe0000001, 0xffffffff, 0xa9fe0001};
    static const char *const v6[] = {"::1",     GATEWAY6,  DNS6, LINK_LOCAL6, "fd63:756c:7666::64",
                                     "ff02::1", "2001::1", "::2"};
    struct lab *lab = lab_new();
    struct build b;
    uint64_t expected = 0;

    (void)state;
    for (size_t i = 0; i < sizeof v4 / sizeof *v4; i++) {
        udp4(&b, v4[i], REMOTE4);
        feed(lab, &b);
        assert_int_equal(lab_counter(lab, COUNTER_ip_spoofed_source), ++expected);
    }
    for (size_t i = 0; i < sizeof v6 / sizeof *v6; i++) {
        udp6(&b, "fd63:756c:7665::64", REMOTE6);
        memcpy(b.data + 22, lab_ip(v6[i]).bytes, 16);
        feed(lab, &b);
        assert_int_equal(lab_counter(lab, COUNTER_ip_spoofed_source), ++expected);
    }
    udp6(&b, GUEST6, REMOTE6);
    memcpy(b.data + 22, ip_address_v4(htonl(GUEST4)).bytes, 16);
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_spoofed_source), ++expected);
    assert_int_equal(lab->udp_count, 0);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void sources_of_the_guest_are_taken(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    udp4(&b, GUEST4, REMOTE4);
    feed(lab, &b);
    udp6(&b, GUEST6, REMOTE6);
    feed(lab, &b);
    udp6(&b, "fd63:756c:7665::1234:5678", REMOTE6);
    feed(lab, &b);
    udp6(&b, "fe80::77", LINK_LOCAL6);
    feed(lab, &b);
    assert_int_equal(lab->udp_count, 4);
    lab_free(lab);
}

static void destinations_that_cannot_be_meant_are_dropped(void **state)
{
    static const uint32_t v4[] = {0x7f000001, 0x7fffffff, 0x00000001, 0, GUEST4};
    static const char *const v6[] = {"::", "::1", "::7f00:1", "fe80::1", GUEST6};
    struct lab *lab = lab_new();
    struct build b;
    uint64_t expected = 0;

    (void)state;
    for (size_t i = 0; i < sizeof v4 / sizeof *v4; i++) {
        udp4(&b, GUEST4, v4[i]);
        feed(lab, &b);
        assert_int_equal(lab_counter(lab, COUNTER_ip_bad_destination), ++expected);
    }
    for (size_t i = 0; i < sizeof v6 / sizeof *v6; i++) {
        udp6(&b, i == 4 ? "fd63:756c:7665::65" : GUEST6, v6[i]);
        feed(lab, &b);
        assert_int_equal(lab_counter(lab, COUNTER_ip_bad_destination), ++expected);
    }
    udp6(&b, "fe80::5", REMOTE6); /* out of its scope */
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_bad_destination), ++expected);
    lab_assert_silent(lab);
    assert_int_equal(lab->udp_count, 0);
    lab_free(lab);
}

static void v4_mapped_destination_is_dropped(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    udp6(&b, GUEST6, REMOTE6);
    memcpy(b.data + 38, ip_address_v4(htonl(REMOTE4)).bytes, 16);
    feed(lab, &b);
    assert_int_equal(lab->udp_count, 0);
    lab_free(lab);
}

static void groups_are_for_dhcp_and_discovery_alone(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    udp4(&b, GUEST4, 0xe00000fb);
    feed(lab, &b);
    udp6(&b, GUEST6, "ff02::fb");
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_multicast), 2);
    udp4(&b, GUEST4, BROADCAST4);
    feed(lab, &b);
    udp4(&b, GUEST4, 0x0a0002ff);
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_broadcast), 2);
    build_ip4(&b, GUEST4, 0xe0000001, IPPROTO_TCP);
    build_pattern(&b, 20, 1);
    build_finish(&b);
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_multicast), 3);
    assert_int_equal(lab->udp_count + lab->tcp_count, 0);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void other_protocols_are_counted(void **state)
{
    static const uint8_t protocols[] = {2, 41, 47, 50, 51, 132, 255, IPPROTO_ICMPV6};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (size_t i = 0; i < sizeof protocols; i++) {
        build_ip4(&b, GUEST4, REMOTE4, protocols[i]);
        build_pattern(&b, 20, 1);
        build_finish(&b);
        feed(lab, &b);
    }
    assert_int_equal(lab_counter(lab, COUNTER_ip_unsupported_protocol), sizeof protocols);
    build_ip6(&b, GUEST6, REMOTE6, IPPROTO_NONE);
    build_finish(&b);
    feed(lab, &b);
    build_ip6(&b, GUEST6, REMOTE6, IPPROTO_ICMP);
    build_icmp(&b, 8, 0, 1);
    build_finish(&b);
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_unsupported_protocol), sizeof protocols + 2);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void gateway_counts_as_a_hop(void **state)
{
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;

    (void)state;
    udp4(&b, GUEST4, REMOTE4);
    b.data[14 + 8] = 1;
    build_ip4_checksum(&b);
    feed(lab, &b);
    assert_int_equal(lab->udp_count, 0);
    assert_int_equal(lab_counter(lab, COUNTER_ip_ttl_expired), 1);
    s = lab_only(lab);
    assert_int_equal(s->data[s->offset], 11);
    assert_int_equal(ntohl(s->source.be32[3]), GATEWAY4);
    assert_memory_equal(s->data + s->offset + 8, b.data + 14, 28);

    b.data[14 + 8] = 2;
    build_ip4_checksum(&b);
    feed(lab, &b);
    assert_int_equal(lab->udp_count, 1);
    assert_int_equal(lab->udp.ttl, 1);
    lab_free(lab);
}

static void hop_limit_of_one_ends_at_the_gateway(void **state)
{
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;

    (void)state;
    udp6(&b, GUEST6, REMOTE6);
    b.data[14 + 7] = 1;
    feed(lab, &b);
    s = lab_only(lab);
    assert_int_equal(s->data[s->offset], 3);
    assert_int_equal(s->data[s->offset + 1], 0);
    assert_memory_equal(s->source.bytes, lab_ip(GATEWAY6).bytes, 16);
    lab_free(lab);
}

static void ttl_of_one_reaches_the_gateway_itself(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    udp4(&b, GUEST4, DNS4);
    b.data[14 + 8] = 1;
    build_ip4_checksum(&b);
    feed(lab, &b);
    assert_int_equal(lab->udp_count, 1);
    lab_free(lab);
}

static void link_padding_is_not_payload(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    udp4(&b, GUEST4, REMOTE4);
    build_pattern(&b, 30, 9);
    feed(lab, &b);
    assert_int_equal(lab->udp.payload_len, 20);
    udp6(&b, GUEST6, REMOTE6);
    build_pattern(&b, 30, 9);
    feed(lab, &b);
    assert_int_equal(lab->udp.payload_len, 20);
    assert_int_equal(lab->udp_count, 2);
    lab_free(lab);
}

static void broken_headers_are_counted(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    udp4(&b, GUEST4, REMOTE4);
    b.data[24] ^= 1;
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_bad_checksum), 1);
    udp4(&b, GUEST4, REMOTE4);
    b.data[14] = 0x65;
    feed(lab, &b);
    udp4(&b, GUEST4, REMOTE4);
    b.data[14] = 0x44;
    feed(lab, &b);
    udp4(&b, GUEST4, REMOTE4);
    lab_input(lab, b.data, b.len - 1);
    udp6(&b, GUEST6, REMOTE6);
    lab_input(lab, b.data, b.len - 1);
    assert_int_equal(lab_counter(lab, COUNTER_ip_malformed), 4);
    assert_int_equal(lab->udp_count, 0);
    lab_free(lab);
}

static void source_routes_are_refused_and_other_options_are_not(void **state)
{
    static const uint8_t record_route[8] = {7, 7, 4, 0, 0, 0, 0, 0};
    static const uint8_t source_route[8] = {131, 7, 4, 8, 8, 8, 8, 0};
    static const uint8_t too_long[8] = {7, 40, 4, 0, 0, 0, 0, 0};
    const uint8_t *const options[] = {record_route, source_route, too_long};
    struct lab *lab = lab_new();

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct build b;

        build_ip4(&b, GUEST4, REMOTE4, IPPROTO_UDP);
        b.data[14] = 0x47;
        build_bytes(&b, options[i], 8);
        build_udp(&b, 1000, 53);
        build_finish(&b);
        feed(lab, &b);
    }
    assert_int_equal(lab->udp_count, 1);
    assert_int_equal(lab_counter(lab, COUNTER_ip_source_route), 1);
    assert_int_equal(lab_counter(lab, COUNTER_ip_bad_option), 1);
    lab_free(lab);
}

static void extension_headers_are_walked_and_bounded(void **state)
{
    uint8_t options[8] = {IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    build_ip6(&b, GUEST6, REMOTE6, IPPROTO_HOPOPTS);
    build_bytes(&b, options, 8);
    build_udp(&b, 1000, 53);
    b.data[20] = IPPROTO_UDP; /* so that build_finish() sums it */
    build_finish(&b);
    b.data[20] = IPPROTO_HOPOPTS;
    feed(lab, &b);
    lab_input_split(lab, b.data, b.len, 14, (struct culvert_offload){0});
    lab_input_split(lab, b.data, b.len, 57, (struct culvert_offload){0});
    assert_int_equal(lab->udp_count, 3);

    options[0] = IPPROTO_DSTOPTS;
    build_ip6(&b, GUEST6, REMOTE6, IPPROTO_DSTOPTS);
    for (int i = 0; i < 100; i++)
        build_bytes(&b, options, 8);
    build_finish(&b);
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_too_many_headers), 1);
    lab_free(lab);
}

static void headers_may_be_scattered_over_segments(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    udp4(&b, GUEST4, REMOTE4);
    for (size_t linear = 14; linear <= b.len; linear++) {
        lab_input_split(lab, b.data, b.len, linear, (struct culvert_offload){0});
        lab_assert_pattern(lab->payload, 20, 1);
        memset(lab->payload, 0, 20);
    }
    assert_int_equal(lab->udp_count, b.len - 13);
    lab_free(lab);
}

static void families_that_are_off_are_dropped(void **state)
{
    struct stack_config config = lab_config();
    struct lab *lab;
    struct build b;

    (void)state;
    config.ipv6 = false;
    memset(&config.guest4, 0, sizeof config.guest4);
    lab = lab_new_with(&config);
    udp4(&b, 0, BROADCAST4);
    feed(lab, &b);
    udp6(&b, GUEST6, REMOTE6);
    feed(lab, &b);
    assert_int_equal(lab_counter(lab, COUNTER_ip_family_off), 2);
    lab_free(lab);
}

static void no_change_or_truncation_does_harm(void **state)
{
    struct lab *lab = lab_new();
    uint8_t options[8] = {IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0};
    struct build b;

    (void)state;
    udp4(&b, GUEST4, REMOTE4);
    lab_torture(lab, b.data, b.len);
    build_ip4(&b, GUEST4, REMOTE4, IPPROTO_TCP);
    build_pattern(&b, 24, 3);
    build_finish(&b);
    lab_torture(lab, b.data, b.len);
    build_ip6(&b, GUEST6, REMOTE6, IPPROTO_HOPOPTS);
    build_bytes(&b, options, 8);
    build_udp(&b, 1000, 53);
    build_finish(&b);
    lab_torture(lab, b.data, b.len);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spoofed_sources_are_dropped_and_counted),
        cmocka_unit_test(sources_of_the_guest_are_taken),
        cmocka_unit_test(destinations_that_cannot_be_meant_are_dropped),
        cmocka_unit_test(v4_mapped_destination_is_dropped),
        cmocka_unit_test(groups_are_for_dhcp_and_discovery_alone),
        cmocka_unit_test(other_protocols_are_counted),
        cmocka_unit_test(gateway_counts_as_a_hop),
        cmocka_unit_test(hop_limit_of_one_ends_at_the_gateway),
        cmocka_unit_test(ttl_of_one_reaches_the_gateway_itself),
        cmocka_unit_test(link_padding_is_not_payload),
        cmocka_unit_test(broken_headers_are_counted),
        cmocka_unit_test(source_routes_are_refused_and_other_options_are_not),
        cmocka_unit_test(extension_headers_are_walked_and_bounded),
        cmocka_unit_test(headers_may_be_scattered_over_segments),
        cmocka_unit_test(families_that_are_off_are_dropped),
        cmocka_unit_test(no_change_or_truncation_does_harm),
    };

    return RUN_TESTS(tests);
}
