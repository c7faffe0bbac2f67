/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams from the guest that come in pieces. */

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "wire/bytes.h"
#include "wire/ip.h"

#define PIECES_MAX 128

/* A UDP datagram and its fragments. */
struct pieces {
    struct build whole;
    unsigned count;
    struct piece {
        uint8_t data[1600];
        size_t len;
    } piece[PIECES_MAX];
};

static struct pieces *datagram(bool v6, size_t payload_len)
{
    struct pieces *p = calloc(1, sizeof *p);

    assert_non_null(p);
    if (v6)
        build_ip6(&p->whole, GUEST6, REMOTE6, IPPROTO_UDP);
    else
        build_ip4(&p->whole, GUEST4, REMOTE4, IPPROTO_UDP);
    build_udp(&p->whole, 1000, 2000);
    build_pattern(&p->whole, payload_len, 5);
    build_finish(&p->whole);
    return p;
}

/* A fragment of bytes [offset, offset + len) behind the IP header. */
static void add_piece(struct pieces *p, uint32_t id, size_t offset, size_t len, bool more)
{
    const struct build *w = &p->whole;
    struct piece *piece = &p->piece[p->count++];
    size_t header = w->transport;

    assert_true(p->count <= PIECES_MAX);
    memcpy(piece->data, w->data, header);
    if (w->v6) {
        const struct ipv6_fragment fragment = {id, (uint16_t)offset, IPPROTO_UDP, more};

        piece->data[14 + 6] = IPPROTO_FRAGMENT;
        store_be16(piece->data + 14 + 4, (uint16_t)(len + 8));
        ipv6_fragment_write(piece->data + header, &fragment);
        header += 8;
    } else {
        struct ipv4_header h;

        assert_int_equal(ipv4_parse(w->data + 14, w->len - 14, w->len - 14, &h), IP_OK);
        h.id = (uint16_t)id;
        h.total_len = (uint16_t)(20 + len);
        h.fragment_offset = (uint16_t)offset;
        h.more_fragments = more;
        ipv4_write(piece->data + 14, &h);
    }
    memcpy(piece->data + header, w->data + w->transport + offset, len);
    piece->len = header + len;
}

static struct pieces *cut(bool v6, size_t payload_len, size_t size, uint32_t id)
{
    struct pieces *p = datagram(v6, payload_len);
    size_t total = payload_len + 8;

    for (size_t at = 0; at < total; at += size) {
        size_t len = total - at < size ? total - at : size;
        add_piece(p, id, at, len, at + len < total);
    }
    return p;
}

static void feed(struct lab *lab, const struct pieces *p, unsigned which)
{
    lab_input(lab, p->piece[which].data, p->piece[which].len);
}

static void assert_whole(struct lab *lab, size_t len)
{
    assert_int_equal(lab->udp_count, 1);
    assert_int_equal(lab->udp.payload_len, len);
    assert_int_equal(lab->udp.key.guest_port, 1000);
    lab_assert_pattern(lab->payload, len, 5);
    lab->udp_count = 0;
    memset(lab->payload, 0, sizeof lab->payload);
}

static void fragments_in_every_order_make_the_datagram(void **state)
{
    struct lab *lab = lab_new();
    uint32_t id = 1;

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        for (unsigned order = 0; order < 256; order++) {
            unsigned a = order & 3, b = order >> 2 & 3, c = order >> 4 & 3, d = order >> 6;
            struct pieces *p;

            if (a == b || a == c || a == d || b == c || b == d || c == d)
                continue;
            p = cut(v6, 4000, 1200, id++);
            assert_int_equal(p->count, 4);
            feed(lab, p, a);
            feed(lab, p, b);
            feed(lab, p, c);
            assert_int_equal(lab->udp_count, 0);
            feed(lab, p, d);
            assert_whole(lab, 4000);
            free(p);
        }
    }
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_done), 48);
    lab_free(lab);
}

static void largest_datagram_comes_whole(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        size_t len = v6 ? 65527 : 65507;
        struct pieces *p = cut(v6, len, 1448, 9);

        for (unsigned i = 0; i < p->count; i++)
            feed(lab, p, p->count - 1 - i);
        assert_whole(lab, len);
        free(p);
    }
    lab_free(lab);
}

static void fragments_beyond_the_largest_datagram_are_refused(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p = cut(false, 1000, 504, 3);

    (void)state;
    store_be16(p->piece[1].data + 14 + 6, 0x1fff);
    store_be16(p->piece[1].data + 14 + 10, 0);
    memcpy(p->whole.data, p->piece[1].data, p->piece[1].len);
    build_ip4_checksum(&p->whole);
    lab_input(lab, p->whole.data, p->piece[1].len);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_bad_fragment), 1);
    free(p);

    p = datagram(true, 1000);
    add_piece(p, 1, 0, 1008, false);
    store_be16(p->piece[0].data + 14 + 40 + 2, 0xfff8);
    feed(lab, p, 0);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_bad_fragment), 2);
    free(p);
    lab_free(lab);
}

static void duplicates_are_ignored(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p = cut(false, 4000, 1200, 4);

    (void)state;
    feed(lab, p, 2);
    feed(lab, p, 2);
    feed(lab, p, 0);
    feed(lab, p, 1);
    feed(lab, p, 0);
    feed(lab, p, 1);
    feed(lab, p, 2);
    feed(lab, p, 3);
    assert_whole(lab, 4000);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_duplicate), 4);
    free(p);
    lab_free(lab);
}

static void changed_duplicate_discards_the_datagram(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p = cut(false, 4000, 1200, 4);

    (void)state;
    feed(lab, p, 0);
    p->piece[0].data[800] ^= 1;
    feed(lab, p, 0);
    feed(lab, p, 1);
    feed(lab, p, 2);
    feed(lab, p, 3);
    assert_int_equal(lab->udp_count, 0);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_overlap), 1);
    free(p);
    lab_free(lab);
}

static void overlaps_discard_the_datagram(void **state)
{
    static const struct {
        size_t offset, len;
    } overlaps[] = {{400, 400}, {0, 1600}, {792, 16}, {0, 808}};
    struct lab *lab = lab_new();
    uint64_t expected = 0;

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        for (unsigned i = 0; i < 4; i++) {
            struct pieces *p = datagram(v6, 1800);

            add_piece(p, 100 + i, 0, 408, true);
            add_piece(p, 100 + i, 800, 400, true);
            add_piece(p, 100 + i, overlaps[i].offset,
                      overlaps[i].len > 1500 ? 1400 : overlaps[i].len, true);
            add_piece(p, 100 + i, 408, 392, true);
            add_piece(p, 100 + i, 1200, 608, false);
            for (unsigned n = 0; n < p->count; n++)
                feed(lab, p, n);
            assert_int_equal(lab->udp_count, 0);
            assert_int_equal(lab_counter(lab, COUNTER_reassembly_overlap), ++expected);
            free(p);
        }
    }
    lab_free(lab);
}

static void disagreement_about_the_end_discards_the_datagram(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p = datagram(false, 3000);

    (void)state;
    add_piece(p, 1, 0, 800, true);
    add_piece(p, 1, 1600, 800, false);
    add_piece(p, 1, 2400, 608, false); /* another end */
    add_piece(p, 2, 1600, 800, true);
    add_piece(p, 2, 800, 800, false); /* an end before what is there */
    add_piece(p, 3, 800, 800, false);
    add_piece(p, 3, 1600, 800, true); /* something behind the end */
    for (unsigned n = 0; n < p->count; n++)
        feed(lab, p, n);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_overlap), 3);
    free(p);
    lab_free(lab);
}

static void missing_fragments_time_out(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p4 = cut(false, 3000, 1200, 4), *p6 = cut(true, 3000, 1200, 4);

    (void)state;
    feed(lab, p4, 0);
    feed(lab, p6, 0);
    lab_advance(lab, 31 * SECOND_NS);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_timeout), 1);
    lab_advance(lab, 30 * SECOND_NS);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_timeout), 2);
    assert_int_equal(timers_next(lab->timers), TIMERS_NEVER);
    feed(lab, p4, 1);
    feed(lab, p4, 2);
    assert_int_equal(lab->udp_count, 0);
    feed(lab, p4, 0); /* begun anew by its late fragments */
    assert_whole(lab, 3000);
    free(p4);
    free(p6);
    lab_free(lab);
}

static void flood_of_beginnings_is_bounded(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p;

    (void)state;
    for (uint32_t id = 0; id < 500; id++) {
        p = cut(false, 3000, 1200, id);
        feed(lab, p, 0);
        free(p);
        lab_advance(lab, MS_NS);
    }
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_full), 500 - 32);
    p = cut(false, 3000, 1200, 499); /* the newest is still there */
    feed(lab, p, 1);
    feed(lab, p, 2);
    assert_whole(lab, 3000);
    free(p);
    lab_free(lab);
}

static void too_many_holes_discard_the_datagram(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p = datagram(false, 4000);

    (void)state;
    for (unsigned i = 0; i < 80; i++)
        add_piece(p, 1, 16 * i, 8, true);
    for (unsigned n = 0; n < p->count; n++)
        feed(lab, p, n);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_too_many_holes), 1);
    free(p);
    lab_free(lab);
}

static void atomic_fragments_are_whole_packets(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p = datagram(true, 300);

    (void)state;
    add_piece(p, 1, 0, 308, false);
    feed(lab, p, 0);
    assert_whole(lab, 300);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_done), 0);
    free(p);
    lab_free(lab);
}

static void fragment_within_a_fragment_is_refused(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p = datagram(true, 1600);
    const struct ipv6_fragment inner = {.id = 9, .next_header = IPPROTO_UDP};

    (void)state;
    ipv6_fragment_write(p->whole.data + p->whole.transport, &inner);
    add_piece(p, 1, 0, 800, true);
    add_piece(p, 1, 800, 808, false);
    for (unsigned i = 0; i < 2; i++)
        p->piece[i].data[14 + 40] = IPPROTO_FRAGMENT;
    feed(lab, p, 0);
    feed(lab, p, 1);
    assert_int_equal(lab->udp_count, 0);
    assert_int_equal(lab_counter(lab, COUNTER_reassembly_bad_fragment), 1);
    free(p);
    lab_free(lab);
}

static void wrong_checksum_of_the_whole_is_found(void **state)
{
    struct lab *lab = lab_new();
    struct pieces *p = cut(false, 3000, 1200, 4);

    (void)state;
    p->piece[1].data[500] ^= 4;
    for (unsigned n = 0; n < p->count; n++)
        feed(lab, p, n);
    assert_int_equal(lab->udp_count, 0);
    assert_int_equal(lab_counter(lab, COUNTER_udp_bad_checksum), 1);
    free(p);
    lab_free(lab);
}

static void refusal_of_a_reassembled_datagram_quotes_it(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    lab->refuse_udp = true;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct pieces *p = cut(v6, 3000, 1200, 4);
        const struct sent *s;

        for (unsigned n = 0; n < p->count; n++)
            feed(lab, p, n);
        s = lab_only(lab);
        assert_int_equal(load_be16(s->data + s->offset + 8 + ip_header_len(v6)), 1000);
        lab_forget(lab);
        free(p);
    }
    lab_free(lab);
}

static void no_change_or_truncation_does_harm(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct pieces *p = cut(v6, 100, 56, 4);

        for (unsigned n = 0; n < p->count; n++)
            lab_torture(lab, p->piece[n].data, p->piece[n].len);
        free(p);
    }
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fragments_in_every_order_make_the_datagram),
        cmocka_unit_test(largest_datagram_comes_whole),
        cmocka_unit_test(fragments_beyond_the_largest_datagram_are_refused),
        cmocka_unit_test(duplicates_are_ignored),
        cmocka_unit_test(changed_duplicate_discards_the_datagram),
        cmocka_unit_test(overlaps_discard_the_datagram),
        cmocka_unit_test(disagreement_about_the_end_discards_the_datagram),
        cmocka_unit_test(missing_fragments_time_out),
        cmocka_unit_test(flood_of_beginnings_is_bounded),
        cmocka_unit_test(too_many_holes_discard_the_datagram),
        cmocka_unit_test(atomic_fragments_are_whole_packets),
        cmocka_unit_test(fragment_within_a_fragment_is_refused),
        cmocka_unit_test(wrong_checksum_of_the_whole_is_found),
        cmocka_unit_test(refusal_of_a_reassembled_datagram_quotes_it),
        cmocka_unit_test(no_change_or_truncation_does_harm),
    };

    return RUN_TESTS(tests);
}
