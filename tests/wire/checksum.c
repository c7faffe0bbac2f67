/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/checksum.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "wire/bytes.h"

/* RFC 1071 word for word: 16 bits at a time, in network order. */
static uint16_t naive(const uint8_t *p, size_t len)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < len; i++) {
        sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return htons((uint16_t)sum);
}

/* 0 and 0xffff are the same one's-complement number. */
static void assert_same_sum(uint16_t got, uint16_t want)
{
    if (got % 0xffff != want % 0xffff)
        assert_int_equal(got, want);
}

static void fill(uint8_t *p, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1103515245 + 12345;
        p[i] = (uint8_t)(seed >> 16);
    }
}

static void every_length_at_every_alignment_agrees_with_the_naive_sum(void **state)
{
    uint8_t bytes[700];

    (void)state;
    fill(bytes, sizeof bytes, 1);
    for (size_t align = 0; align < 40; align++) {
        for (size_t len = 0; len <= 600; len++) {
            uint16_t want = naive(bytes + align, len);
            assert_same_sum(checksum_fold(checksum_add(0, bytes + align, len)), want);
            assert_same_sum(checksum_fold(checksum_add_generic(0, bytes + align, len)), want);
        }
    }
}

static void large_and_extreme_bytes_do_not_overflow(void **state)
{
    size_t len = CULVERT_FRAME_MAX;
    uint8_t *bytes = malloc(len);

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 0xff, len);
    assert_same_sum(checksum_fold(checksum_add(UINT64_MAX, bytes, len)), naive(bytes, len));
    fill(bytes, len, 7);
    assert_same_sum(checksum_fold(checksum_add(0, bytes, len)), naive(bytes, len));
    free(bytes);
}

static void a_sum_of_zero_bytes_is_zero_and_of_something_never_is(void **state)
{
    uint8_t zeros[64] = {0}, one[64] = {[63] = 1};

    (void)state;
    assert_int_equal(checksum_fold(checksum_add(0, zeros, sizeof zeros)), 0);
    assert_int_not_equal(checksum_fold(checksum_add(0, one, sizeof one)), 0);
}

static void pieces_of_any_length_add_up_to_the_whole(void **state)
{
    uint8_t bytes[900];
    uint16_t want;

    (void)state;
    fill(bytes, sizeof bytes, 3);
    want = naive(bytes, sizeof bytes);
    for (size_t first = 0; first < 300; first++) {
        for (size_t second = 0; second < 300; second += 7) {
            struct iovec iov[] = {{bytes, first},
                                  {bytes + first, second},
                                  {bytes + first + second, 1},
                                  {bytes + first + second + 1, sizeof bytes - first - second - 1}};
            assert_same_sum(checksum_fold(checksum_add_iov(0, iov, 4)), want);
        }
    }
}

static void a_part_of_a_frame_is_summed_across_its_segments(void **state)
{
    uint8_t bytes[400];
    struct culvert_segment segments[] = {
        {NULL, bytes + 54, 101}, {NULL, bytes + 155, 0}, {NULL, bytes + 155, 245}};
    struct culvert_frame frame = {
        .data = bytes, .len = 54, .segments = segments, .segment_count = 3};

    (void)state;
    fill(bytes, sizeof bytes, 5);
    for (size_t offset = 0; offset <= sizeof bytes; offset += 3)
        for (size_t len = 0; len <= sizeof bytes - offset; len += 5)
            assert_same_sum(checksum_fold(checksum_add_frame(0, &frame, offset, len)),
                            naive(bytes + offset, len));
}

static void what_lies_beyond_a_frame_is_not_summed(void **state)
{
    uint8_t bytes[60];
    struct culvert_frame frame = {.data = bytes, .len = sizeof bytes};

    (void)state;
    fill(bytes, sizeof bytes, 6);
    assert_same_sum(checksum_fold(checksum_add_frame(0, &frame, 14, 1000)), naive(bytes + 14, 46));
    assert_int_equal(checksum_add_frame(0, &frame, 60, 1), 0);
    assert_int_equal(checksum_add_frame(0, &frame, 61, SIZE_MAX), 0);
}

static void pseudo_headers_are_those_of_the_rfcs(void **state)
{
    uint8_t v4[12] = {10, 0, 2, 100, 192, 0, 2, 1, 0, 6, 0x12, 0x34}, v6[40];
    struct ip_address source, destination;

    (void)state;
    assert_true(ip_address_parse("10.0.2.100", &source));
    assert_true(ip_address_parse("192.0.2.1", &destination));
    assert_same_sum(checksum_fold(checksum_pseudo(&source, &destination, 6, 0x1234)),
                    naive(v4, sizeof v4));

    assert_true(ip_address_parse("fd63:756c:7665::64", &source));
    assert_true(ip_address_parse("2001:db8::9", &destination));
    memcpy(v6, source.bytes, 16);
    memcpy(v6 + 16, destination.bytes, 16);
    store_be32(v6 + 32, 0x12345);
    store_be32(v6 + 36, 17);
    assert_same_sum(checksum_fold(checksum_pseudo(&source, &destination, 17, 0x12345)),
                    naive(v6, sizeof v6));
}

static void a_known_datagram_has_its_known_checksum(void **state)
{
    /* 10.0.2.100:1024 > 10.0.2.3:53, "abc"; the checksum was worked out by hand. */
    uint8_t udp[11] = {0x04, 0x00, 0x00, 0x35, 0x00, 0x0b, 0x00, 0x00, 'a', 'b', 'c'};
    uint8_t pseudo[23] = {10, 0, 2, 100, 10, 0, 2, 3, 0, 17, 0, 11};
    uint64_t sum = checksum_pseudo4(pseudo, pseudo + 4, 17, 11);

    (void)state;
    memcpy(pseudo + 12, udp, 11);
    checksum_store(udp + 6, checksum_finish_udp(checksum_add(sum, udp, 11)));
    assert_int_equal(load_be16(udp + 6), (uint16_t)~ntohs(naive(pseudo, 23)));
    assert_int_equal(checksum_fold(checksum_add(sum, udp, 11)), 0xffff);
}

static void an_udp_checksum_is_never_zero(void **state)
{
    (void)state;
    assert_int_equal(checksum_finish_udp(0xffff), 0xffff);
    assert_int_equal(checksum_finish(0xffff), 0);
    assert_int_equal(checksum_finish_udp(0), 0xffff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_at_every_alignment_agrees_with_the_naive_sum),
        cmocka_unit_test(large_and_extreme_bytes_do_not_overflow),
        cmocka_unit_test(a_sum_of_zero_bytes_is_zero_and_of_something_never_is),
        cmocka_unit_test(pieces_of_any_length_add_up_to_the_whole),
        cmocka_unit_test(a_part_of_a_frame_is_summed_across_its_segments),
        cmocka_unit_test(what_lies_beyond_a_frame_is_not_summed),
        cmocka_unit_test(pseudo_headers_are_those_of_the_rfcs),
        cmocka_unit_test(a_known_datagram_has_its_known_checksum),
        cmocka_unit_test(an_udp_checksum_is_never_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
