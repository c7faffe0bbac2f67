/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/reader.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "wire/ethernet.h"
#include "wire/udp.h"
#include "wire/virtio_net.h"

static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void numbers_are_read_in_network_order(void **state)
{
    struct reader r = reader_of(bytes, sizeof bytes);

    (void)state;
    assert_int_equal(reader_u8(&r), 1);
    assert_int_equal(reader_be16(&r), 0x0203);
    assert_int_equal(reader_be32(&r), 0x04050607);
    assert_true(reader_be64(&r) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_true(reader_ok(&r));
    assert_true(reader_at_end(&r));
}

static void a_read_beyond_the_end_fails_for_good(void **state)
{
    struct reader r = reader_of(bytes, 3);

    (void)state;
    assert_int_equal(reader_be32(&r), 0);
    assert_false(reader_ok(&r));
    assert_int_equal(reader_u8(&r), 0);
    assert_null(reader_bytes(&r, 0));
    assert_true(reader_at_end(&r));
}

static void huge_lengths_do_not_wrap_around(void **state)
{
    struct reader r = reader_of(bytes, sizeof bytes);

    (void)state;
    reader_skip(&r, 1);
    assert_null(reader_bytes(&r, SIZE_MAX));
    assert_false(reader_ok(&r));
}

static void an_empty_reader_reads_nothing_well(void **state)
{
    struct reader r = reader_of(NULL, 0);

    (void)state;
    reader_skip(&r, 0);
    assert_true(reader_ok(&r));
    assert_int_equal(reader_u8(&r), 0);
    assert_false(reader_ok(&r));
}

static void a_failed_copy_leaves_zeros(void **state)
{
    struct reader r = reader_of(bytes, 2);
    uint8_t to[4] = {9, 9, 9, 9};

    (void)state;
    reader_copy(&r, to, 4);
    assert_int_equal(load_be32(to), 0);
    assert_false(reader_ok(&r));
}

static void a_reader_of_a_part_cannot_leave_it(void **state)
{
    struct reader r = reader_of(bytes, sizeof bytes), part = reader_sub(&r, 2);

    (void)state;
    assert_int_equal(reader_be16(&part), 0x0102);
    assert_int_equal(reader_u8(&part), 0);
    assert_false(reader_ok(&part));
    assert_true(reader_ok(&r));
    assert_int_equal(reader_u8(&r), 3);
    part = reader_sub(&r, 100);
    assert_false(reader_ok(&part));
    assert_false(reader_ok(&r));
}

static void an_ethernet_header_is_read_as_written(void **state)
{
    static const uint8_t to[6] = {0x33, 0x33, 0, 0, 0, 1}, from[6] = {2, 0x63, 0x75, 0x6c, 0x76, 2};
    uint8_t header[ETHERNET_HEADER_LEN];
    struct ethernet_header parsed;

    (void)state;
    ethernet_write(header, to, from, ETHERNET_IPV6);
    assert_true(ethernet_parse(header, sizeof header, &parsed));
    assert_memory_equal(parsed.destination, to, 6);
    assert_memory_equal(parsed.source, from, 6);
    assert_int_equal(parsed.type, ETHERNET_IPV6);
    assert_true(ethernet_is_multicast(parsed.destination));
    assert_false(ethernet_is_multicast(parsed.source));
    for (size_t len = 0; len < sizeof header; len++)
        assert_false(ethernet_parse(header, len, &parsed));
}

static void an_udp_length_must_fit_its_packet(void **state)
{
    uint8_t header[UDP_HEADER_LEN];
    struct udp_header parsed;

    (void)state;
    udp_write(header, 68, 67, 20);
    assert_true(udp_parse(header, 20, &parsed));
    assert_int_equal(parsed.source_port, 68);
    assert_int_equal(parsed.destination_port, 67);
    assert_int_equal(parsed.len, 20);
    assert_false(parsed.checksum_present);
    assert_true(udp_parse(header, 21, &parsed));
    assert_false(udp_parse(header, 19, &parsed));
    assert_false(udp_parse(header, 7, &parsed));
    store_be16(header + 4, 7);
    assert_false(udp_parse(header, 20, &parsed));
}

static void virtio_headers_are_little_endian(void **state)
{
    const struct culvert_offload offload = {.flags = CULVERT_OFFLOAD_NEEDS_CSUM,
                                            .gso_type = CULVERT_GSO_TCPV6 | CULVERT_GSO_ECN,
                                            .hdr_len = 0x0102,
                                            .gso_size = 0x0304,
                                            .csum_start = 0x0506,
                                            .csum_offset = 0x0708};
    static const uint8_t want[] = {1, 0x84, 2, 1, 4, 3, 6, 5, 8, 7, 1, 0};
    uint8_t header[VIRTIO_NET_HEADER_LEN];
    struct culvert_offload back;

    (void)state;
    virtio_net_write(header, &offload, 1);
    assert_memory_equal(header, want, sizeof want);
    virtio_net_read(header, &back);
    assert_memory_equal(&back, &offload, sizeof back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_read_in_network_order),
        cmocka_unit_test(a_read_beyond_the_end_fails_for_good),
        cmocka_unit_test(huge_lengths_do_not_wrap_around),
        cmocka_unit_test(an_empty_reader_reads_nothing_well),
        cmocka_unit_test(a_failed_copy_leaves_zeros),
        cmocka_unit_test(a_reader_of_a_part_cannot_leave_it),
        cmocka_unit_test(an_ethernet_header_is_read_as_written),
        cmocka_unit_test(an_udp_length_must_fit_its_packet),
        cmocka_unit_test(virtio_headers_are_little_endian),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
