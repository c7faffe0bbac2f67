/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/software_offload.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "packets.h"
#include "wire/tcp.h"

static const struct culvert_link plain_link = {.mtu = 1500, .up = true};
static const struct culvert_link csum_link = {
    .offloads = CULVERT_LINK_CSUM, .mtu = 1500, .up = true};

static struct pool *new_pool(void)
{
    const struct pool_config config = {
        .linear_capacity = 256, .segment_capacity = 16, .max = 300, .keep = 8};
    struct pool *pool = pool_new(&config);
    assert_non_null(pool);
    return pool;
}

/* What is true of the segment at `done`, in frame bytes. */
static size_t check_segment(const struct shape *s, const struct culvert_frame *frame,
                            const uint8_t *bytes, size_t len, size_t done, unsigned index)
{
    size_t transport = shape_transport(s), header = shape_header(s), payload = len - header;
    const uint8_t *ip = bytes + ETHERNET_HEADER_LEN, *t = bytes + transport;
    bool last = done + payload == s->payload, partial = frame->offload.flags != 0;
    size_t place = s->protocol == IPPROTO_TCP ? 16 : 6;

    assert_true(payload <= s->gso_size && payload > 0);
    assert_true(last || payload == s->gso_size);
    if (s->v6) {
        struct ipv6_header h;
        assert_int_equal(ipv6_parse(ip, len - 14, len - 14, &h), IP_OK);
        assert_int_equal(h.payload_len + 40u + 14u, len);
        assert_int_equal(h.flow_label, 0x12345);
    } else {
        struct ipv4_header h;
        assert_int_equal(ipv4_parse(ip, len - 14, len - 14, &h), IP_OK);
        assert_int_equal(h.total_len + 14u, len);
        assert_int_equal(h.id, (uint16_t)(0xfffe + index));
        assert_int_equal(h.header_len, 20 + s->ip_options);
    }
    if (s->protocol == IPPROTO_TCP) {
        uint8_t flags = s->tcp_flags;
        if (!last)
            flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
        if (index != 0)
            flags &= (uint8_t)~TCP_CWR;
        assert_int_equal(load_be32(t + 4), (uint32_t)(0xfffffff0 + done));
        assert_int_equal(load_be32(t + 8), 77);
        assert_int_equal(t[13], flags);
    } else {
        assert_int_equal(load_be16(t + 4), len - transport);
        assert_int_not_equal(load_be16(t + 6), 0);
    }
    for (size_t i = 0; i < payload; i++)
        if (bytes[header + i] != payload_byte(done + i))
            assert_int_equal(bytes[header + i], payload_byte(done + i));

    uint64_t sum = packet_pseudo(ip, s->v6, s->protocol, len - transport);
    if (partial) {
        assert_int_equal(frame->offload.flags, CULVERT_OFFLOAD_NEEDS_CSUM);
        assert_int_equal(frame->offload.csum_start, transport);
        assert_int_equal(frame->offload.csum_offset, place);
        assert_int_equal(checksum_load(t + place), checksum_fold(sum));
    } else {
        assert_int_equal(checksum_fold(checksum_add(sum, t, len - transport)), 0xffff);
    }
    assert_int_equal(frame->offload.gso_type, CULVERT_GSO_NONE);
    return payload;
}

/* Cuts a frame of the shape and checks that all segments together are the whole. */
static void check_shape(const struct shape *s, const struct culvert_link *link, struct pool *pool)
{
    static uint8_t bytes[CULVERT_FRAME_MAX];
    struct software_offload work;
    struct culvert_frame *segment;
    size_t done = 0;
    unsigned index = 0;
    int r;

    assert_int_equal(software_offload_begin(&work, link, frame_of_shape(s)), 0);
    while ((r = software_offload_next(&work, pool, &segment)) == 1) {
        size_t len = frame_flatten(segment, bytes, sizeof bytes);
        assert_int_equal(segment->offload.flags != 0, link == &csum_link);
        done += check_segment(s, segment, bytes, len, done, index++);
        culvert_frame_unref(segment);
    }
    assert_int_equal(r, 0);
    assert_int_equal(done, s->payload);
    assert_int_equal(index, (s->payload + s->gso_size - 1) / s->gso_size);
    assert_null(work.frame);
    assert_int_equal(pool_in_use(pool), 0);
}

static void check_all_layouts(struct shape s, struct pool *pool)
{
    static const struct {
        size_t linear, piece;
    } layouts[] = {{0, 65536}, {0, 16000}, {1, 65536}, {77, 20001}, {150, 16384}, {65536, 1}};

    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        s.linear = layouts[i].linear;
        s.piece = layouts[i].piece;
        check_shape(&s, &plain_link, pool);
        check_shape(&s, &csum_link, pool);
    }
}

static void tcp_super_segments_of_every_shape_are_cut_right(void **state)
{
    static const size_t payloads[] = {1, 2, 1447, 1448, 1449, 2896, 30001, 63000};
    static const uint16_t sizes[] = {536, 1447, 1448, 9001};
    struct pool *pool = new_pool();

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++)
        for (size_t options = 0; options <= 40; options += 20)
            for (size_t p = 0; p < 8; p++)
                for (size_t z = 0; z < 4; z++)
                    check_all_layouts(
                        (struct shape){.v6 = v6,
                                       .protocol = IPPROTO_TCP,
                                       .tcp_options = options,
                                       .payload = payloads[p],
                                       .gso_size = sizes[z],
                                       .tcp_flags = TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR},
                        pool);
    pool_free(pool);
}

static void udp_super_frames_of_every_shape_are_cut_right(void **state)
{
    static const size_t payloads[] = {1, 2800, 2801, 63999};
    static const uint16_t sizes[] = {999, 1400, 1472};
    struct pool *pool = new_pool();

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++)
        for (size_t p = 0; p < 4; p++)
            for (size_t z = 0; z < 3; z++)
                check_all_layouts((struct shape){.v6 = v6,
                                                 .protocol = IPPROTO_UDP,
                                                 .payload = payloads[p],
                                                 .gso_size = sizes[z]},
                                  pool);
    pool_free(pool);
}

static void options_in_front_of_the_transport_stay_in_every_segment(void **state)
{
    struct pool *pool = new_pool();

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++)
        check_all_layouts((struct shape){.v6 = v6,
                                         .protocol = IPPROTO_TCP,
                                         .ip_options = v6 ? 8 : 40,
                                         .tcp_options = 40,
                                         .payload = 10000,
                                         .gso_size = 1400,
                                         .tcp_flags = TCP_ACK},
                          pool);
    pool_free(pool);
}

static void payload_is_not_copied(void **state)
{
    struct shape s = {.protocol = IPPROTO_TCP,
                      .payload = 60000,
                      .piece = 60000,
                      .gso_size = 1448,
                      .tcp_flags = TCP_ACK};
    struct culvert_frame *super = frame_of_shape(&s), *segment;
    uint8_t *base = super->segments[0].base;
    struct pool *pool = new_pool();
    struct software_offload work;
    size_t done = 0;

    (void)state;
    assert_int_equal(software_offload_begin(&work, &plain_link, super), 0);
    while (software_offload_next(&work, pool, &segment) == 1) {
        assert_int_equal(segment->segment_count, 1);
        assert_ptr_equal(segment->segments[0].base, base + done);
        done += segment->segments[0].len;
        culvert_frame_unref(segment);
    }
    assert_int_equal(done, 60000);
    pool_free(pool);
}

/* A payload of many small pieces is more than a pool's frame can view. */
static void many_pieces_are_copied_rather_than_lost(void **state)
{
    struct shape s = {.protocol = IPPROTO_TCP,
                      .payload = 4000,
                      .piece = 1000,
                      .gso_size = 4000,
                      .tcp_flags = TCP_ACK};
    const struct pool_config config = {
        .linear_capacity = 256, .segment_capacity = 2, .max = 300, .keep = 8};
    struct pool *pool = pool_new(&config);

    (void)state;
    assert_non_null(pool);
    check_shape(&s, &plain_link, pool);
    pool_free(pool);
}

static void check_whole(struct culvert_frame *frame, const struct shape *s, struct pool *pool)
{
    static uint8_t bytes[CULVERT_FRAME_MAX];
    struct software_offload work;
    struct culvert_frame *out;
    size_t len, transport = shape_transport(s);

    assert_int_equal(software_offload_begin(&work, &plain_link, frame), 0);
    assert_int_equal(software_offload_next(&work, pool, &out), 1);
    len = frame_flatten(out, bytes, sizeof bytes);
    assert_int_equal(len, shape_header(s) + s->payload);
    assert_int_equal(out->offload.flags, 0);
    assert_int_equal(
        checksum_fold(checksum_add(packet_pseudo(bytes + 14, s->v6, s->protocol, len - transport),
                                   bytes + transport, len - transport)),
        0xffff);
    for (size_t i = 0; i < s->payload; i++)
        if (bytes[shape_header(s) + i] != payload_byte(i))
            assert_int_equal(bytes[shape_header(s) + i], payload_byte(i));
    culvert_frame_unref(out);
    assert_int_equal(software_offload_next(&work, pool, &out), 0);
}

static void a_checksum_is_completed_without_gso(void **state)
{
    static const size_t linears[] = {0, 1, 99, 1460};
    struct pool *pool = new_pool();

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        for (size_t i = 0; i < 4; i++) {
            struct shape s = {.v6 = v6,
                              .protocol = i % 2 ? IPPROTO_UDP : IPPROTO_TCP,
                              .payload = 1400,
                              .linear = linears[i],
                              .piece = 601};
            check_whole(frame_of_shape(&s), &s, pool);
        }
    }
    assert_int_equal(pool_in_use(pool), 0);
    pool_free(pool);
}

static void a_frame_that_others_hold_is_not_touched(void **state)
{
    static uint8_t before[2000], after[2000];
    struct pool *pool = new_pool();

    (void)state;
    for (size_t linear = 0; linear <= 1400; linear += 700) {
        struct shape s = {
            .protocol = IPPROTO_TCP, .payload = 1400, .linear = linear, .piece = 1400};
        struct culvert_frame *frame = frame_of_shape(&s);
        size_t len = frame_flatten(frame, before, sizeof before);

        check_whole(culvert_frame_ref(frame), &s, pool);
        assert_int_equal(frame_flatten(frame, after, sizeof after), len);
        assert_memory_equal(before, after, len);
        assert_int_equal(frame->offload.flags, CULVERT_OFFLOAD_NEEDS_CSUM);
        culvert_frame_unref(frame);
    }
    pool_free(pool);
}

static void impossible_facts_are_refused(void **state)
{
    struct shape s = {.protocol = IPPROTO_TCP, .payload = 3000, .piece = 3000, .gso_size = 1448};
    struct software_offload work;
    struct culvert_frame *frame;

    (void)state;
    frame = frame_of_shape(&s);
    frame->offload.gso_size = 0;
    assert_int_equal(software_offload_begin(&work, &plain_link, frame), -EINVAL);
    assert_null(work.frame);
    frame = frame_of_shape(&s);
    frame->data[14] = 0x65;
    assert_int_equal(software_offload_begin(&work, &plain_link, frame), -EINVAL);
    s.gso_size = 0;
    frame = frame_of_shape(&s);
    frame->offload.csum_offset = 100;
    assert_int_equal(software_offload_begin(&work, &plain_link, frame), -EINVAL);
}

static void a_link_gets_as_it_is_what_it_accepts(void **state)
{
    struct culvert_link all = {.offloads = CULVERT_LINK_CSUM | CULVERT_LINK_TSO4 |
                                           CULVERT_LINK_TSO6 | CULVERT_LINK_USO};
    struct culvert_offload o = {0};

    (void)state;
    assert_true(software_offload_unneeded(&plain_link, &o));
    o.flags = CULVERT_OFFLOAD_DATA_VALID;
    assert_true(software_offload_unneeded(&plain_link, &o));
    o.flags = CULVERT_OFFLOAD_NEEDS_CSUM;
    assert_false(software_offload_unneeded(&plain_link, &o));
    assert_true(software_offload_unneeded(&csum_link, &o));
    o.gso_type = CULVERT_GSO_TCPV4;
    assert_false(software_offload_unneeded(&csum_link, &o));
    assert_true(software_offload_unneeded(&all, &o));
    o.gso_type = CULVERT_GSO_UDP_L4;
    assert_true(software_offload_unneeded(&all, &o));
    o.gso_type = CULVERT_GSO_TCPV6 | CULVERT_GSO_ECN;
    assert_false(software_offload_unneeded(&all, &o));
    all.offloads |= CULVERT_LINK_ECN;
    assert_true(software_offload_unneeded(&all, &o));
}

/* ---- the sender ---- */

struct sink {
    unsigned room;
    struct culvert_frame *frames[200];
    unsigned count;
};

static int put(void *ctx, struct culvert_frame *frame)
{
    struct sink *sink = ctx;

    if (sink->room == 0)
        return -EAGAIN;
    sink->room--;
    sink->frames[sink->count++] = frame;
    return 0;
}

static void sink_release(struct sink *sink)
{
    for (unsigned i = 0; i < sink->count; i++)
        culvert_frame_unref(sink->frames[i]);
    sink->count = 0;
}

static const struct shape forty_segments = {.protocol = IPPROTO_TCP,
                                            .payload = 40 * 1448,
                                            .piece = 40 * 1448,
                                            .gso_size = 1448,
                                            .tcp_flags = TCP_ACK};

static void a_full_device_stops_and_resumes_between_segments(void **state)
{
    static uint8_t bytes[2000];
    struct counters counters = {0};
    struct sink sink = {.room = 7};
    struct software_sender sender = {.put = put, .ctx = &sink, .counters = &counters};
    struct culvert_frame *next = frame_of_shape(&forty_segments);
    size_t done = 0;

    (void)state;
    assert_int_equal(software_sender_send(&sender, &plain_link, frame_of_shape(&forty_segments)),
                     0);
    assert_int_equal(sink.count, 7);
    assert_int_equal(software_sender_send(&sender, &plain_link, next), -EAGAIN);
    sink.room = 20;
    assert_int_equal(software_sender_resume(&sender), -EAGAIN);
    sink.room = 13;
    assert_int_equal(software_sender_resume(&sender), 0);
    assert_int_equal(sink.count, 40);
    for (unsigned i = 0; i < 40; i++) {
        size_t len = frame_flatten(sink.frames[i], bytes, sizeof bytes);
        done += check_segment(&forty_segments, sink.frames[i], bytes, len, done, i);
    }
    assert_int_equal(done, forty_segments.payload);
    sink_release(&sink);

    sink.room = 100;
    assert_int_equal(software_sender_send(&sender, &plain_link, next), 0);
    assert_int_equal(sink.count, 40);
    sink_release(&sink);
    software_sender_end(&sender);
}

static void a_full_device_leaves_an_accepted_frame_to_its_caller(void **state)
{
    struct counters counters = {0};
    struct sink sink = {0};
    struct software_sender sender = {.put = put, .ctx = &sink, .counters = &counters};
    struct culvert_frame *frame = culvert_frame_new(60);

    (void)state;
    assert_int_equal(software_sender_send(&sender, &plain_link, frame), -EAGAIN);
    sink.room = 1;
    assert_int_equal(software_sender_send(&sender, &plain_link, frame), 0);
    assert_int_equal(sink.count, 1);
    assert_null(sender.pool);
    sink_release(&sink);
    software_sender_end(&sender);
}

static void a_sender_that_ends_in_the_middle_leaks_nothing(void **state)
{
    struct counters counters = {0};
    struct sink sink = {.room = 3};
    struct software_sender sender = {.put = put, .ctx = &sink, .counters = &counters};

    (void)state;
    assert_int_equal(software_sender_send(&sender, &plain_link, frame_of_shape(&forty_segments)),
                     0);
    software_sender_end(&sender);
    sink_release(&sink); /* the pool outlives the sender until these are home */
}

static void a_sender_without_memory_drops_and_counts(void **state)
{
    struct counters counters = {0};
    struct sink sink = {.room = 100};
    struct software_sender sender = {
        .put = put, .ctx = &sink, .counters = &counters, .pool = new_pool()};

    (void)state;
    pool_set_test_mode(sender.pool, true, 6);
    assert_int_equal(software_sender_send(&sender, &plain_link, frame_of_shape(&forty_segments)),
                     0);
    assert_int_equal(sink.count, 5);
    assert_int_equal(counter_value(&counters, COUNTER_netdev_no_memory), 1);
    assert_null(sender.work.frame);
    sink_release(&sink);
    software_sender_end(&sender);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp_super_segments_of_every_shape_are_cut_right),
        cmocka_unit_test(udp_super_frames_of_every_shape_are_cut_right),
        cmocka_unit_test(options_in_front_of_the_transport_stay_in_every_segment),
        cmocka_unit_test(payload_is_not_copied),
        cmocka_unit_test(many_pieces_are_copied_rather_than_lost),
        cmocka_unit_test(a_checksum_is_completed_without_gso),
        cmocka_unit_test(a_frame_that_others_hold_is_not_touched),
        cmocka_unit_test(impossible_facts_are_refused),
        cmocka_unit_test(a_link_gets_as_it_is_what_it_accepts),
        cmocka_unit_test(a_full_device_stops_and_resumes_between_segments),
        cmocka_unit_test(a_full_device_leaves_an_accepted_frame_to_its_caller),
        cmocka_unit_test(a_sender_that_ends_in_the_middle_leaks_nothing),
        cmocka_unit_test(a_sender_without_memory_drops_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
