/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams both ways, and the fragments of those too big for the guest's MTU. */

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"

/* ---- from the guest ---- */

static void datagram(struct build *b, bool v6, size_t len)
{
    if (v6)
        build_ip6(b, GUEST6, REMOTE6, IPPROTO_UDP);
    else
        build_ip4(b, GUEST4, REMOTE4, IPPROTO_UDP);
    build_udp(b, 4000, 53);
    build_pattern(b, len, 3);
    build_finish(b);
}

static void datagram_goes_up_where_it_lies(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        datagram(&b, v6, 1400);
        b.data[15] |= v6 ? 0 : 0xb8;
        if (!v6)
            build_ip4_checksum(&b);
        lab_input_split(lab, b.data, b.len, 100, (struct culvert_offload){0});
        assert_int_equal(lab->udp_count, v6 + 1);
        assert_int_equal(lab->udp.payload_len, 1400);
        assert_int_equal(lab->udp.payload_offset, b.transport + 8);
        assert_int_equal(lab->udp.key.guest_port, 4000);
        assert_int_equal(lab->udp.key.remote_port, 53);
        assert_int_equal(lab->udp.key.protocol, IPPROTO_UDP);
        assert_int_equal(lab->udp.tos, v6 ? 0 : 0xb8);
        assert_int_equal(lab->udp.gso_size, 0);
        lab_assert_pattern(lab->payload, 1400, 3);
    }
    lab_free(lab);
}

static void wrong_checksum_is_counted_unless_it_was_left_to_the_device(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    datagram(&b, false, 100);
    b.data[b.len - 1] ^= 1;
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab->udp_count, 0);
    assert_int_equal(lab_counter(lab, COUNTER_udp_bad_checksum), 1);
    lab_input_split(lab, b.data, b.len, SIZE_MAX,
                    (struct culvert_offload){.flags = CULVERT_OFFLOAD_NEEDS_CSUM});
    lab_input_split(lab, b.data, b.len, SIZE_MAX,
                    (struct culvert_offload){.flags = CULVERT_OFFLOAD_DATA_VALID});
    assert_int_equal(lab->udp_count, 2);
    lab_free(lab);
}

static void device_that_loses_the_fact_is_never_verified(void **state)
{
    const struct culvert_link link = {
        .mtu = 1500, .up = true, .offloads = CULVERT_LINK_CSUM_UNKNOWN};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    stack_set_link(lab->stack, &link);
    datagram(&b, false, 100);
    b.data[b.len - 1] ^= 1;
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab->udp_count, 1);
    lab_free(lab);
}

static void absent_checksum_is_legal_in_ipv4_alone(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        datagram(&b, v6, 100);
        store_be16(b.data + b.transport + 6, 0);
        lab_input(lab, b.data, b.len);
    }
    assert_int_equal(lab->udp_count, 1);
    assert_int_equal(lab_counter(lab, COUNTER_udp_no_checksum), 1);
    lab_free(lab);
}

static void impossible_lengths_and_ports_are_counted(void **state)
{
    static const uint16_t lengths[] = {0, 7, 109, 65535};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        datagram(&b, false, 100);
        store_be16(b.data + b.transport + 4, lengths[i]);
        lab_input(lab, b.data, b.len);
    }
    datagram(&b, false, 100);
    store_be16(b.data + b.transport + 2, 0);
    lab_input(lab, b.data, b.len);
    build_ip4(&b, GUEST4, REMOTE4, IPPROTO_UDP);
    build_pattern(&b, 7, 0);
    store_be16(b.data + 14 + 2, 27);
    build_ip4_checksum(&b);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_udp_malformed), 6);
    assert_int_equal(lab->udp_count, 0);
    lab_free(lab);
}

static void datagram_may_end_before_its_packet(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    datagram(&b, false, 100);
    build_pattern(&b, 10, 9);
    store_be16(b.data + 14 + 2, (uint16_t)(b.len - 14));
    build_ip4_checksum(&b);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab->udp_count, 1);
    assert_int_equal(lab->udp.payload_len, 100);
    lab_free(lab);
}

static void super_datagram_passes_with_its_cut(void **state)
{
    const struct culvert_offload offload = {
        .flags = CULVERT_OFFLOAD_NEEDS_CSUM, .gso_type = CULVERT_GSO_UDP_L4, .gso_size = 1400};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    datagram(&b, false, 30000);
    lab_input_split(lab, b.data, b.len, 128, offload);
    assert_int_equal(lab->udp.gso_size, 1400);
    assert_int_equal(lab->udp.payload_len, 30000);
    lab_assert_pattern(lab->payload, 30000, 3);
    datagram(&b, false, 1400); /* one only */
    lab_input_split(lab, b.data, b.len, 128, offload);
    assert_int_equal(lab->udp.gso_size, 0);
    lab_free(lab);
}

/* ---- towards the guest ---- */

struct outgoing {
    struct udp_output output;
    struct culvert_segment segments[8];
};

/* A payload of `len` bytes in `pieces` buffers of uneven size. */
static void outgoing(struct outgoing *o, bool v6, size_t len, unsigned pieces)
{
    size_t at = 0;

    *o = (struct outgoing){
        .output = {.key = {.guest = v6 ? lab_ip(GUEST6) : ip_address_v4(htonl(GUEST4)),
                           .remote = v6 ? lab_ip(REMOTE6) : ip_address_v4(htonl(REMOTE4)),
                           .guest_port = 4000,
                           .remote_port = 53,
                           .protocol = IPPROTO_UDP},
                   .segment_count = (uint16_t)pieces,
                   .len = len}};
    o->output.segments = o->segments;
    for (unsigned i = 0; i < pieces; i++) {
        size_t n = i + 1 == pieces ? len - at : (len / pieces) | 1;
        struct culvert_buffer *buffer = culvert_buffer_new(n ? n : 1);

        assert_non_null(buffer);
        for (size_t j = 0; j < n; j++)
            buffer->data[j] = lab_pattern(at + j, 3);
        o->segments[i] = (struct culvert_segment){buffer, buffer->data, n};
        at += n;
    }
}

static void release(struct outgoing *o)
{
    for (unsigned i = 0; i < o->output.segment_count; i++)
        culvert_buffer_unref(o->segments[i].buffer);
}

/* Puts the fragments sent together; returns the length behind the IP header. */
static size_t gather(struct lab *lab, uint8_t *to, size_t size)
{
    size_t total = 0, seen = 0;

    for (unsigned i = 0; i < lab->sent_count; i++) {
        const struct sent *s = &lab->sent[i];
        size_t header = s->offset + (s->v6 ? 8 : 0), len = s->len - header, offset;
        bool more;

        assert_true(s->fragment);
        if (s->v6) {
            struct ipv6_fragment f;
            assert_int_equal(ipv6_fragment_parse(s->data + s->offset, s->len - s->offset,
                                                 s->len - s->offset, &f),
                             IP_OK);
            assert_int_equal(f.next_header, IPPROTO_UDP);
            offset = f.offset;
            more = f.more;
        } else {
            struct ipv4_header h;
            assert_int_equal(ipv4_parse(s->data + 14, s->len - 14, s->len - 14, &h), IP_OK);
            offset = h.fragment_offset;
            more = h.more_fragments;
        }
        assert_int_equal(more, i + 1 != lab->sent_count);
        assert_true(offset + len <= size);
        memcpy(to + offset, s->data + header, len);
        seen += len;
        if (!more)
            total = offset + len;
    }
    assert_int_equal(seen, total);
    return total;
}

static void datagram_to_the_guest_is_one_frame(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        size_t len = 1500 - 8 - ip_header_len(v6);
        struct outgoing o;
        const struct sent *s;

        outgoing(&o, v6, len, 3);
        o.output.ttl = 9;
        o.output.tos = 2;
        assert_int_equal(stack_udp_output(lab->stack, &o.output), 0);
        release(&o);
        s = &lab->sent[lab->sent_count - 1];
        assert_int_equal(s->len, 1514);
        assert_int_equal(s->ttl, 9);
        assert_int_equal(load_be16(s->data + s->offset), 53);
        assert_int_equal(load_be16(s->data + s->offset + 2), 4000);
        assert_int_equal(s->offload.flags, CULVERT_OFFLOAD_NEEDS_CSUM);
        lab_assert_pattern(s->data + s->offset + 8, len, 3);
        lab_forget(lab);
    }
    lab_free(lab);
}

static void empty_datagram_is_sent(void **state)
{
    struct lab *lab = lab_new();
    struct outgoing o;
    struct build b;

    (void)state;
    datagram(&b, false, 0);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab->udp_count, 1);
    outgoing(&o, false, 0, 1);
    assert_int_equal(stack_udp_output(lab->stack, &o.output), 0);
    assert_int_equal(lab->sent[lab->sent_count - 1].len, 14 + 28);
    release(&o);
    lab_free(lab);
}

static void guest_known(struct lab *lab)
{
    const struct culvert_link link = {.mtu = 1500, .mac = {2, 0, 0, 0, 0, 0x64}, .up = true};

    stack_set_link(lab->stack, &link);
}

static void big_datagrams_are_fragmented(void **state)
{
    static const size_t lengths[] = {1473, 1481, 4000, 65507};
    static const uint32_t mtus[] = {1280, 1500, 1501, 9000, 65520};
    struct lab *lab = lab_new();
    uint8_t *whole = malloc(65536);

    (void)state;
    assert_non_null(whole);
    guest_known(lab);
    for (unsigned i = 0; i < 40; i++) {
        const struct culvert_link link = {
            .mtu = mtus[i % 5], .mac = {2, 0, 0, 0, 0, 0x64}, .up = true};
        size_t len = lengths[i / 5 % 4], n;
        bool v6 = i >= 20;
        struct ip_address source, destination;
        struct outgoing o;

        if (len + 8 + ip_header_len(v6) <= link.mtu)
            continue;
        stack_set_link(lab->stack, &link);
        outgoing(&o, v6, len, 1 + i % 8);
        assert_int_equal(stack_udp_output(lab->stack, &o.output), 0);
        n = gather(lab, whole, 65536);
        assert_int_equal(n, len + 8);
        lab_assert_pattern(whole + 8, len, 3);
        source = o.output.key.remote;
        destination = o.output.key.guest;
        assert_int_equal(
            checksum_fold(checksum_add(
                checksum_pseudo(&source, &destination, IPPROTO_UDP, (uint32_t)n), whole, n)),
            0xffff);
        release(&o);
        lab_forget(lab);
    }
    free(whole);
    lab_free(lab);
}

static void what_no_packet_can_hold_is_refused(void **state)
{
    struct lab *lab = lab_new();
    struct outgoing o;

    (void)state;
    guest_known(lab);
    outgoing(&o, false, 65508, 1);
    assert_int_equal(stack_udp_output(lab->stack, &o.output), -EMSGSIZE);
    assert_int_equal(lab_counter(lab, COUNTER_udp_oversize), 1);
    release(&o);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void many_datagrams_leave_as_one_frame(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    guest_known(lab);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct outgoing o;
        const struct sent *s;

        outgoing(&o, v6, 14000, 4);
        o.output.gso_size = 1400;
        assert_int_equal(stack_udp_output(lab->stack, &o.output), 0);
        s = lab_only(lab);
        assert_int_equal(s->offload.gso_type, CULVERT_GSO_UDP_L4);
        assert_int_equal(s->offload.gso_size, 1400);
        assert_int_equal(s->offload.flags, CULVERT_OFFLOAD_NEEDS_CSUM);
        assert_int_equal(s->offload.csum_start, s->offset);
        assert_int_equal(s->offload.hdr_len, s->offset + 8);
        lab_assert_pattern(s->data + s->offset + 8, 14000, 3);
        release(&o);
        lab_forget(lab);
    }
    lab_free(lab);
}

static void many_datagrams_above_the_mtu_leave_one_by_one(void **state)
{
    const struct culvert_link link = {.mtu = 1280, .mac = {2, 0, 0, 0, 0, 0x64}, .up = true};
    struct lab *lab = lab_new();
    struct outgoing o;

    (void)state;
    stack_set_link(lab->stack, &link);
    outgoing(&o, false, 4000, 4);
    o.output.gso_size = 1400; /* 1400, 1400, 1200: two fragments each, and a whole one */
    assert_int_equal(stack_udp_output(lab->stack, &o.output), 0);
    assert_int_equal(lab->sent_count, 5);
    assert_false(lab->sent[4].fragment);
    for (size_t i = 0; i < 1200; i++)
        assert_int_equal(lab->sent[4].data[lab->sent[4].offset + 8 + i], lab_pattern(2800 + i, 3));
    release(&o);
    lab_free(lab);
}

static void full_link_loses_datagrams_and_counts_them(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    guest_known(lab);
    lab->link_full = true;
    for (unsigned i = 0; i < 3; i++) {
        struct outgoing o;

        outgoing(&o, false, i == 1 ? 4000 : 100, 2);
        o.output.gso_size = i == 2 ? 50 : 0;
        assert_int_equal(stack_udp_output(lab->stack, &o.output), -EAGAIN);
        release(&o);
    }
    assert_int_equal(lab_counter(lab, COUNTER_udp_link_full), 3);
    assert_int_equal(pool_in_use(lab->stack->frames), 0);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(datagram_goes_up_where_it_lies),
        cmocka_unit_test(wrong_checksum_is_counted_unless_it_was_left_to_the_device),
        cmocka_unit_test(device_that_loses_the_fact_is_never_verified),
        cmocka_unit_test(absent_checksum_is_legal_in_ipv4_alone),
        cmocka_unit_test(impossible_lengths_and_ports_are_counted),
        cmocka_unit_test(datagram_may_end_before_its_packet),
        cmocka_unit_test(super_datagram_passes_with_its_cut),
        cmocka_unit_test(datagram_to_the_guest_is_one_frame),
        cmocka_unit_test(empty_datagram_is_sent),
        cmocka_unit_test(big_datagrams_are_fragmented),
        cmocka_unit_test(what_no_packet_can_hold_is_refused),
        cmocka_unit_test(many_datagrams_leave_as_one_frame),
        cmocka_unit_test(many_datagrams_above_the_mtu_leave_one_by_one),
        cmocka_unit_test(full_link_loses_datagrams_and_counts_them),
    };

    return RUN_TESTS(tests);
}
