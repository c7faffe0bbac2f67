/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/offload_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "netdev/software_offload.h"
#include "packets.h"

static struct counters counters;

static bool check(struct culvert_frame *frame)
{
    return offload_check(frame, &counters);
}

/* Checks and releases. */
static bool check_once(struct culvert_frame *frame)
{
    bool good = check(frame);
    culvert_frame_unref(frame);
    return good;
}

static uint64_t bad(void)
{
    return counter_value(&counters, COUNTER_netdev_bad_offload);
}

static int reset_counters(void **state)
{
    (void)state;
    memset(&counters, 0, sizeof counters);
    return 0;
}

static struct shape tcp_shape(bool v6)
{
    return (struct shape){.v6 = v6,
                          .protocol = IPPROTO_TCP,
                          .tcp_options = 12,
                          .payload = 20000,
                          .linear = 100,
                          .piece = 19900,
                          .gso_size = 1448,
                          .tcp_flags = 0x10};
}

static struct shape udp_shape(bool v6)
{
    return (struct shape){
        .v6 = v6, .protocol = IPPROTO_UDP, .payload = 14000, .linear = 14000, .gso_size = 1400};
}

static void true_facts_are_accepted(void **state)
{
    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct shape shapes[] = {tcp_shape(v6), udp_shape(v6)};
        for (size_t i = 0; i < 2; i++) {
            assert_true(check_once(frame_of_shape(&shapes[i])));
            shapes[i].gso_size = 0;
            shapes[i].payload = 1000;
            assert_true(check_once(frame_of_shape(&shapes[i])));
            shapes[i].ip_options = 8;
            shapes[i].gso_size = 500;
            assert_true(check_once(frame_of_shape(&shapes[i])));
        }
    }
    assert_int_equal(bad(), 0);
}

static void plain_frames_are_not_looked_into(void **state)
{
    struct culvert_frame *frame = culvert_frame_new(60);

    (void)state;
    memset(frame->data, 0xff, 60);
    frame->len = 60;
    assert_true(check(frame));
    frame->offload.flags = CULVERT_OFFLOAD_DATA_VALID;
    assert_true(check(frame));
    frame->offload.hdr_len = 60000; /* a hint: nobody believes it */
    assert_true(check_once(frame));
}

static void runts_and_giants_are_counted(void **state)
{
    struct culvert_frame *frame = culvert_frame_new(CULVERT_FRAME_MAX + 1);

    (void)state;
    for (size_t len = 0; len < 14; len++) {
        frame->len = len;
        assert_false(check(frame));
    }
    assert_int_equal(counter_value(&counters, COUNTER_netdev_runt), 14);
    frame->len = 14;
    assert_true(check(frame));
    frame->len = CULVERT_FRAME_MAX;
    assert_true(check(frame));
    frame->len = CULVERT_FRAME_MAX + 1;
    assert_false(check(frame));
    assert_int_equal(counter_value(&counters, COUNTER_netdev_oversize), 1);
    culvert_frame_unref(frame);
}

static void an_ethernet_header_in_pieces_is_a_runt(void **state)
{
    struct culvert_frame *frame = culvert_frame_new(13);
    struct culvert_buffer *buffer = culvert_buffer_new(100);

    (void)state;
    frame->len = 13;
    assert_int_equal(culvert_frame_append(frame, buffer, buffer->data, 100), 0);
    culvert_buffer_unref(buffer);
    assert_false(check_once(frame));
    assert_int_equal(counter_value(&counters, COUNTER_netdev_runt), 1);
}

static bool check_checksum_place(uint16_t start, uint16_t offset)
{
    struct culvert_frame *frame = culvert_frame_new(60);

    memset(frame->data, 0, 60);
    frame->len = 60;
    frame->offload.flags = CULVERT_OFFLOAD_NEEDS_CSUM;
    frame->offload.csum_start = start;
    frame->offload.csum_offset = offset;
    return check_once(frame);
}

static void a_checksum_must_lie_in_the_frame(void **state)
{
    (void)state;
    assert_true(check_checksum_place(34, 16));
    assert_true(check_checksum_place(34, 24));
    assert_false(check_checksum_place(34, 25));
    assert_false(check_checksum_place(60, 0));
    assert_false(check_checksum_place(65535, 65535));
    assert_false(check_checksum_place(0, 40));
    assert_false(check_checksum_place(13, 0));
    assert_int_equal(bad(), 5);
}

static void gso_without_a_size_a_payload_or_a_checksum_is_refused(void **state)
{
    struct shape s = tcp_shape(false);
    struct culvert_frame *frame = frame_of_shape(&s);

    (void)state;
    frame->offload.gso_size = 0;
    assert_false(check(frame));
    frame->offload.gso_size = 1448;
    frame->offload.flags = 0;
    assert_false(check(frame));
    frame->offload.flags = CULVERT_OFFLOAD_DATA_VALID;
    assert_true(check_once(frame));
    s.payload = 0;
    assert_false(check_once(frame_of_shape(&s)));
}

static void a_gso_type_must_fit_the_packet(void **state)
{
    static const uint8_t types[] = {CULVERT_GSO_TCPV4,
                                    CULVERT_GSO_TCPV6,
                                    CULVERT_GSO_UDP,
                                    CULVERT_GSO_UDP_L4,
                                    CULVERT_GSO_TCPV4 | CULVERT_GSO_ECN,
                                    CULVERT_GSO_UDP_L4 | CULVERT_GSO_ECN,
                                    CULVERT_GSO_ECN,
                                    2,
                                    6,
                                    0x7f,
                                    0xff};
    static const struct {
        bool v6;
        uint8_t protocol;
        bool good[11];
    } cases[] = {{false, IPPROTO_TCP, {1, 0, 0, 0, 1}},
                 {true, IPPROTO_TCP, {0, 1}},
                 {false, IPPROTO_UDP, {0, 0, 1, 1}},
                 {true, IPPROTO_UDP, {0, 0, 1, 1}}};

    (void)state;
    for (size_t c = 0; c < 4; c++) {
        for (size_t t = 0; t < sizeof types; t++) {
            struct shape s =
                cases[c].protocol == IPPROTO_TCP ? tcp_shape(cases[c].v6) : udp_shape(cases[c].v6);
            struct culvert_frame *frame = frame_of_shape(&s);
            frame->offload.gso_type = types[t];
            assert_int_equal(check_once(frame), cases[c].good[t]);
        }
    }
}

static void gso_headers_must_be_true_and_linear(void **state)
{
    struct shape s = tcp_shape(true);
    struct culvert_frame *frame = frame_of_shape(&s);
    size_t header = shape_header(&s);

    (void)state;
    frame->len = header - 1; /* the rest of the frame moves up by what is missing */
    assert_false(check(frame));
    frame->len = header + 100;
    frame->data[shape_transport(&s) + 12] = 0x40;
    assert_false(check(frame));
    frame->data[shape_transport(&s) + 12] = 0x80;
    store_be16(frame->data + 18, 60000); /* payload length beyond the frame */
    assert_false(check_once(frame));

    s = tcp_shape(false);
    frame = frame_of_shape(&s);
    frame->offload.csum_start += 2;
    assert_false(check(frame));
    frame->offload.csum_start -= 2;
    frame->offload.csum_offset = 6;
    assert_false(check(frame));
    frame->offload.csum_offset = 16;
    assert_true(check(frame));
    store_be16(frame->data + 20, 0x2000); /* a fragment */
    checksum_store(frame->data + 24, 0);
    checksum_store(frame->data + 24, checksum_finish(checksum_add(0, frame->data + 14, 20)));
    assert_false(check_once(frame));
}

static void a_wrong_header_length_is_put_right(void **state)
{
    struct shape s = tcp_shape(true);
    struct culvert_frame *frame = frame_of_shape(&s);

    (void)state;
    frame->offload.hdr_len = 9999;
    assert_true(check(frame));
    assert_int_equal(frame->offload.hdr_len, shape_header(&s));
    culvert_frame_unref(frame);
}

static void ufo_becomes_one_large_datagram(void **state)
{
    struct shape s = udp_shape(false);
    struct culvert_frame *frame = frame_of_shape(&s);

    (void)state;
    frame->offload.gso_type = CULVERT_GSO_UDP;
    assert_true(check(frame));
    assert_int_equal(frame->offload.gso_type, CULVERT_GSO_NONE);
    assert_int_equal(frame->offload.gso_size, 0);
    culvert_frame_unref(frame);
}

static void datagrams_in_one_frame_are_bounded(void **state)
{
    struct shape s = udp_shape(false);

    (void)state;
    s.payload = 1280;
    s.gso_size = 10;
    assert_true(check_once(frame_of_shape(&s)));
    s.payload = 1281;
    assert_false(check_once(frame_of_shape(&s)));
}

static uint32_t random_below(uint64_t *seed, uint32_t bound)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(*seed >> 33) % bound;
}

/* A frame of a random shape with a few bytes of headers and facts changed at random. */
static struct culvert_frame *mutated_frame(uint64_t *seed)
{
    struct shape s = {.v6 = random_below(seed, 2),
                      .protocol = random_below(seed, 2) ? IPPROTO_TCP : IPPROTO_UDP,
                      .ip_options = 8 * random_below(seed, 2),
                      .tcp_options = 4 * random_below(seed, 11),
                      .payload = random_below(seed, 9000),
                      .linear = random_below(seed, 200),
                      .piece = 3000,
                      .gso_size = (uint16_t)random_below(seed, 3000)};
    struct culvert_frame *frame = frame_of_shape(&s);
    uint8_t *facts = (uint8_t *)&frame->offload;

    for (uint32_t n = random_below(seed, 4); n > 0; n--)
        frame->data[random_below(seed, (uint32_t)shape_header(&s))] ^=
            (uint8_t)(1u << random_below(seed, 8));
    if (random_below(seed, 2))
        facts[random_below(seed, sizeof frame->offload)] ^= (uint8_t)random_below(seed, 256);
    if (random_below(seed, 8) == 0)
        frame->len = random_below(seed, (uint32_t)frame->len + 1);
    return frame;
}

/* Cuts for a link that takes nothing; the payload bytes that came out. */
static size_t cut(struct culvert_frame *frame, struct pool *pool)
{
    static const struct culvert_link link = {.mtu = 1500, .up = true};
    struct software_offload work;
    struct culvert_frame *out;
    size_t bytes = 0;

    if (software_offload_unneeded(&link, &frame->offload)) {
        culvert_frame_unref(frame);
        return 0;
    }
    if (software_offload_begin(&work, &link, frame) < 0)
        return 0;
    while (software_offload_next(&work, pool, &out) == 1) {
        bytes += culvert_frame_len(out);
        culvert_frame_unref(out);
    }
    return bytes;
}

static void mutated_frames_are_refused_or_can_be_worked_on(void **state)
{
    const struct pool_config config = {
        .linear_capacity = 256, .segment_capacity = 4, .max = 300, .keep = 8};
    struct pool *pool = pool_new(&config);
    uint64_t seed = 1;
    unsigned good = 0;

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        struct culvert_frame *frame = mutated_frame(&seed);
        if (check(frame)) {
            cut(frame, pool);
            good++;
        } else {
            cut(frame, pool); /* must be safe all the same */
        }
    }
    assert_int_equal(pool_in_use(pool), 0);
    assert_in_range(good, 2000, 19000);
    pool_free(pool);
}

#define TEST(f) cmocka_unit_test_setup(f, reset_counters)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(true_facts_are_accepted),
        TEST(plain_frames_are_not_looked_into),
        TEST(runts_and_giants_are_counted),
        TEST(an_ethernet_header_in_pieces_is_a_runt),
        TEST(a_checksum_must_lie_in_the_frame),
        TEST(gso_without_a_size_a_payload_or_a_checksum_is_refused),
        TEST(a_gso_type_must_fit_the_packet),
        TEST(gso_headers_must_be_true_and_linear),
        TEST(a_wrong_header_length_is_put_right),
        TEST(ufo_becomes_one_large_datagram),
        TEST(datagrams_in_one_frame_are_bounded),
        TEST(mutated_frames_are_refused_or_can_be_worked_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
