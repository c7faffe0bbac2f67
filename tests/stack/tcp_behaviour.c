/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest sees of TCP, segment by segment: each row of DESIGN 4's table and each bullet
 * below it. */

#include <stdlib.h>

#include "script.h"

#define ACK TCP_ACK
#define FIN TCP_FIN
#define SYN TCP_SYN
#define RST TCP_RST
#define PSH TCP_PSH

static int make(void **state)
{
    *state = script_new();
    return 0;
}

static int unmake(void **state)
{
    script_free(*state);
    return 0;
}

/* ---- how a connection begins ---- */

static void a_syn_is_answered_only_after_the_host_connected(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 1);
    wait_ms(s, 5000);
    guest_segment(s, plain_syn(), NULL); /* the guest's retransmission changes nothing */
    assert_int_equal(s->opens, 1);
    expect_nothing(s);
    tcp_set_upstream(s->stack, s->flow, &script_upstream, s, 77);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
}

static void options_are_answered_only_where_offered(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    tcp_connected(s->stack, s->flow);
    struct segment plain = expect(s, SYN | ACK, 0, 1, 0);
    assert_true(plain.has_mss && plain.mss == 1460);
    assert_false(plain.has_wscale || plain.sack_permitted || plain.has_timestamps);
    s->guest_port++;
    guest_segment(s, modern_syn(), NULL);
    tcp_connected(s->stack, s->flow);
    struct segment modern = expect(s, SYN | ACK, 0, 1, 0);
    assert_true(modern.has_wscale && modern.sack_permitted && modern.has_timestamps);
    assert_int_equal(modern.tsecr, 5000);
}

static void the_mss_offered_follows_the_mtu(void **state)
{
    static const uint32_t mtus[] = {576, 1280, 1500, 9000, 65520};
    (void)state;
    for (size_t i = 0; i < 5; i++)
        for (int v6 = 0; v6 <= (mtus[i] >= 1280); v6++) {
            struct script *s = script_new_with(mtus[i], 10);
            s->v6 = v6;
            guest_segment(s, plain_syn(), NULL);
            tcp_connected(s->stack, s->flow);
            assert_int_equal(expect(s, SYN | ACK, 0, 1, 0).mss, mtus[i] - (v6 ? 60 : 40));
            script_free(s);
        }
}

static void a_refused_connection_is_a_reset(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    tcp_refuse(s->stack, s->flow, TCP_REFUSE_RESET);
    expect(s, RST | ACK, 0 - s->irs, 1, 0);
    expect_nothing(s);
    assert_int_equal(tcp_flow_count(s->stack), 0);
    assert_int_equal(s->closes, 0);
}

static void a_connection_under_way_that_the_policy_ends_is_a_reset(void **state)
{
    struct script *s = *state;
    struct flow_key key;
    guest_segment(s, plain_syn(), NULL);
    assert_true(tcp_set_upstream(s->stack, s->flow, &script_upstream, s, 77));
    assert_true(tcp_key_of(s->stack, s->flow, &key));
    assert_int_equal(key.guest_port, GUEST_PORT);
    tcp_abort(s->stack, s->flow);
    expect(s, RST | ACK, 0 - s->irs, 1, 0);
    expect_nothing(s);
    assert_int_equal(s->closes, 1);
    assert_false(tcp_key_of(s->stack, s->flow, &key));
}

static void an_open_flow_that_the_policy_ends_is_a_reset_for_both(void **state)
{
    struct script *s = *state;
    struct tcp_upstream_ref ref;
    open_flow(s, plain_syn());
    assert_true(tcp_upstream_of(s->stack, s->flow, &ref));
    assert_ptr_equal(ref.upstream, &script_upstream);
    assert_true(tcp_is_unheard(s->stack, s->flow));
    guest(s, ACK, 1, 1, 65535, 10);
    assert_false(tcp_is_unheard(s->stack, s->flow));
    forget(s);
    tcp_abort(s->stack, s->flow);
    assert_int_equal(expect_segment(s).flags, RST | ACK);
    expect_nothing(s);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void unreachable_hosts_are_icmp_errors_in_both_families(void **state)
{
    static const struct {
        enum tcp_refusal refusal;
        uint8_t code4, code6;
    } rows[] = {{TCP_REFUSE_NET, 0, 0}, {TCP_REFUSE_HOST, 1, 3}, {TCP_REFUSE_PROHIBITED, 13, 1}};
    struct script *s = *state;
    for (size_t i = 0; i < 3; i++)
        for (int v6 = 0; v6 < 2; v6++) {
            s->v6 = v6;
            guest_segment(s, plain_syn(), NULL);
            tcp_refuse(s->stack, s->flow, rows[i].refusal);
            struct icmp_error error = expect_icmp(s);
            assert_int_equal(error.type, v6 ? 1 : 3);
            assert_int_equal(error.code, v6 ? rows[i].code6 : rows[i].code4);
            assert_int_equal(error.quoted_seq, GUEST_ISS);
            assert_int_equal(error.quoted_source_port, GUEST_PORT);
            assert_int_equal(error.quoted_destination_port, REMOTE_PORT);
            assert_int_equal(tcp_flow_count(s->stack), 0);
        }
}

static void silence_leaves_the_retry_to_the_guest(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    tcp_refuse(s->stack, s->flow, TCP_REFUSE_SILENT);
    wait_ms(s, 1000);
    expect_nothing(s);
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 2);
}

static void data_on_a_syn_is_not_accepted(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    uint8_t bytes[10] = {0};
    syn.payload = bytes;
    syn.len = sizeof(bytes);
    guest_segment(s, syn, NULL);
    tcp_set_upstream(s->stack, s->flow, &script_upstream, s, 77);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
    guest(s, ACK, 1, 1, 65535, 10);
    expect(s, ACK, 1, 11, 0);
    assert_int_equal(s->written, 10);
    assert_int_equal(counted(s, COUNTER_tcp_syn_data), 1);
}

static void a_lost_syn_ack_is_sent_again(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
    guest_segment(s, plain_syn(), NULL);
    expect(s, SYN | ACK, 0, 1, 0);
    wait_ms(s, 900);
    expect_nothing(s);
    wait_ms(s, 300);
    expect(s, SYN | ACK, 0, 1, 0);
    wait_ms(s, 2100);
    expect(s, SYN | ACK, 0, 1, 0);
}

static void a_half_open_flow_ends(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    tcp_set_upstream(s->stack, s->flow, &script_upstream, s, 77);
    tcp_connected(s->stack, s->flow);
    wait_ms(s, 300 * 1000);
    assert_int_equal(tcp_flow_count(s->stack), 0);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    assert_true(s->sent_count <= 12);
}

static void a_connect_that_never_ends_has_a_lifetime(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    wait_ms(s, 600 * 1000);
    assert_int_equal(tcp_flow_count(s->stack), 0);
    expect_nothing(s);
}

static void the_answered_syn_opens_by_data_when_the_ack_was_lost(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    tcp_set_upstream(s->stack, s->flow, &script_upstream, s, 77);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
    guest(s, ACK, 1, 1, 65535, 5);
    expect(s, ACK, 1, 6, 0);
    assert_int_equal(s->written, 5);
}

static void an_answered_syn_opens_by_a_keepalive_too(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    tcp_set_upstream(s->stack, s->flow, &script_upstream, s, 77);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
    guest(s, ACK, 0, 1, 65535, 0);
    expect(s, ACK, 1, 1, 0);
    expect_nothing(s);
    assert_int_equal(host_sends(s, 10), 10);
    expect(s, ACK | PSH, 1, 1, 10);
}

static void a_wrong_ack_of_the_syn_ack_is_reset(void **state)
{
    struct script *s = *state;
    guest_segment(s, plain_syn(), NULL);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
    guest(s, ACK, 1, 500, 65535, 0);
    expect(s, RST, 500, 0, 0);
    guest(s, ACK, 1, 1, 65535, 0);
    expect_nothing(s);
}

static void above_the_flow_limit_a_syn_meets_counted_silence(void **state)
{
    (void)state;
    struct script *s = script_new_with(1500, 2);
    for (int i = 0; i < 3; i++, s->guest_port++)
        guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 2);
    assert_int_equal(counted(s, COUNTER_tcp_flow_limit), 1);
    expect_nothing(s);
    script_free(s);
}

static void at_the_limit_who_waits_long_for_a_silent_host_gives_way(void **state)
{
    (void)state;
    struct script *s = script_new_with(1500, 2);
    for (int i = 0; i < 2; i++, s->guest_port++) {
        guest_segment(s, plain_syn(), NULL);
        tcp_set_upstream(s->stack, s->flow, &script_upstream, s, 0);
    }
    wait_ms(s, 2999);
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 2);
    wait_ms(s, 1);
    for (int i = 0; i < 2; i++, s->guest_port++)
        guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 4);
    assert_int_equal(s->closes, 2);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    assert_int_equal(counted(s, COUNTER_tcp_connect_yielded), 2);
    assert_int_equal(counted(s, COUNTER_tcp_flow_limit), 1);
    guest_segment(s, plain_syn(), NULL); /* the newcomers may wait as long */
    assert_int_equal(s->opens, 4);
    expect_nothing(s);
    script_free(s);
}

/* ---- segments that belong to no flow, or are no segments ---- */

static void a_segment_for_no_flow_is_reset(void **state)
{
    struct script *s = *state;
    guest(s, ACK, 1, 4711, 100, 10);
    expect(s, RST, 4711, 0, 0);
    guest(s, FIN, 1, 0, 100, 10);
    struct segment rst = expect_segment(s);
    assert_int_equal(rst.flags, RST | ACK);
    assert_int_equal(rst.seq, 0);
    assert_int_equal(rst.ack, 12);
    guest(s, RST, 1, 0, 100, 0);
    guest(s, RST | ACK, 1, 1, 100, 0);
    expect_nothing(s);
    assert_int_equal(counted(s, COUNTER_tcp_no_flow), 2);
}

static void a_damaged_segment_is_dropped_and_counted(void **state)
{
    struct script *s = *state;
    struct packet_style damaged = {.wrong_checksum = true};
    struct segment data = {.flags = ACK, .seq = 1, .ack = 1, .window = 65535, .len = 10};
    open_flow(s, plain_syn());
    guest_segment(s, data, &damaged);
    expect_nothing(s);
    assert_int_equal(s->written, 0);
    assert_int_equal(counted(s, COUNTER_tcp_bad_checksum), 1);
    struct packet_style offloaded = {.offload_checksum = true};
    guest_segment(s, data, &offloaded);
    expect(s, ACK, 1, 11, 0);
}

static void impossible_options_do_no_harm(void **state)
{
    struct script *s = *state;
    struct packet_style zero = {.options = OPTIONS_ZERO_LENGTH};
    struct packet_style beyond = {.options = OPTIONS_TOO_LONG};
    struct packet_style unknown = {.options = OPTIONS_UNKNOWN};
    open_flow(s, plain_syn());
    struct segment empty = {.flags = ACK, .seq = 1, .ack = 1, .window = 65535};
    guest_segment(s, empty, &zero);
    guest_segment(s, empty, &beyond);
    empty.len = 10;
    guest_segment(s, empty, &unknown);
    expect(s, ACK, 1, 11, 0);
    assert_int_equal(s->written, 10);
}

/* ---- upload ---- */

static void one_ack_answers_a_batch(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    batch_begin(s);
    for (uint32_t i = 0; i < 10; i++)
        guest(s, ACK, 1 + 1000 * i, 1, 65535, 1000);
    expect_nothing(s);
    batch_end(s);
    expect(s, ACK, 1, 10001, 0);
    expect_nothing(s);
    assert_int_equal(s->written, 10000);
    assert_int_equal(s->writes, 1);
}

static void a_super_segment_is_one_write_and_one_ack(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    struct segment big = {
        .flags = ACK | PSH, .seq = 1, .ack = 1, .window = 65535, .len = 60000, .gso_size = 1460};
    guest_segment(s, big, NULL);
    expect(s, ACK, 1, 60001, 0);
    expect_nothing(s);
    assert_int_equal(s->writes, 1);
}

static void deferred_acks_are_sent_by_the_next_batch(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    batch_begin(s);
    guest(s, ACK, 1, 1, 65535, 100);
    s->batch_open = false;
    stack_batch_end(s->stack, STACK_ACKS_OF_LITTLE_WAIT);
    assert_int_equal(s->written, 100);
    expect_nothing(s);
    stack_batch_end(s->stack, STACK_ACKS_NOW);
    expect(s, ACK, 1, 101, 0);
}

static void acks_wait_for_frames_at_hand_but_not_beyond_a_quarter_of_the_window(void **state)
{
    struct script *s = *state;
    uint32_t sent = 0;

    open_flow(s, plain_syn());
    while (sent < 16 * 1024 - 1000) {
        batch_begin(s);
        guest(s, ACK, 1 + sent, 1, 65535, 1000);
        sent += 1000;
        s->batch_open = false;
        stack_batch_end(s->stack, STACK_ACKS_WAIT);
        assert_int_equal(s->written, sent);
        expect_nothing(s);
    }
    batch_begin(s);
    guest(s, ACK, 1 + sent, 1, 65535, 1000);
    s->batch_open = false;
    stack_batch_end(s->stack, STACK_ACKS_WAIT);
    expect(s, ACK, 1, 1 + sent + 1000, 0);
    stack_batch_end(s->stack, STACK_ACKS_NOW);
    expect_nothing(s);
}

static void what_the_host_does_not_take_shrinks_the_window_and_is_kept(void **state)
{
    struct script *s = *state;
    uint64_t edge = 0;
    uint32_t seq = 1, window = 1;
    open_flow(s, modern_syn());
    for (; seq < 1 << 20; seq += 1000) { /* a window that is made use of grows */
        guest(s, ACK, seq, 1, 512, 1000);
        expect(s, ACK, 1, seq + 1000, 0);
    }
    s->take = 0;
    const uint32_t start = seq;
    for (unsigned i = 0; i < 5000 && window > 0; i++) {
        guest(s, ACK, seq, 1, 512, 1000);
        seq += 1000;
        struct segment ack = expect(s, ACK, 1, seq, 0);
        window = (uint32_t)ack.window << 7;
        assert_true(ack.ack + (uint64_t)window >= edge); /* the right edge never moves left */
        edge = ack.ack + (uint64_t)window;
        if (window < 1000)
            break;
    }
    assert_true(seq - start > 256 * 1024 && seq - start < 2048 * 1024);
    assert_true(window < 1000);
    host_takes(s, SIZE_MAX);
    assert_int_equal(s->written, seq - 1);
    struct segment update = expect(s, ACK, 1, seq, 0); /* the window opens without being asked */
    assert_true((uint32_t)update.window << 7 >= 256 * 1024);
}

static ssize_t refuses_when_there_is_more(void *ctx, uint64_t token, const struct iovec *iov,
                                          int count)
{
    struct script *s = ctx;
    (void)token, (void)iov, (void)count;
    return s->writes++ == 0 ? TCP_WRITE_MORE : TCP_WRITE_REFUSED;
}

/* Where the budget is used up, what was held back is offered before the next segment is kept. */
static void a_flow_refused_while_its_segment_waits_for_room_is_gone(void **state)
{
    (void)state;
    struct tcp_upstream peek = script_upstream;
    struct script *s = script_new_within(3000);
    peek.write = refuses_when_there_is_more;
    open_flow(s, plain_syn());
    tcp_set_upstream(s->stack, s->flow, &peek, s, 77);
    guest(s, ACK, 1, 1, 65535, 1000);
    expect(s, ACK, 1, 1001, 0);
    guest(s, ACK | FIN, 1001, 1, 65535, 2500);
    expect(s, RST | ACK, 1, 1001, 0);
    expect_nothing(s);
    assert_int_equal(s->closes, 1);
    assert_int_equal(tcp_flow_count(s->stack), 0);
    assert_int_equal(tcp_queued_bytes(s->stack), 0);
    assert_int_equal(counted(s, COUNTER_tcp_no_memory), 0);
    script_free(s);
}

static void a_probe_of_our_shut_window_is_answered(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 0;
    uint32_t seq = 1;
    for (unsigned i = 0; i < 200; i++) {
        guest(s, ACK, seq, 1, 65535, 1000);
        struct segment ack = expect(s, ACK, 1, seq + 1000, 0);
        seq += 1000;
        if (ack.window < 1000)
            break;
    }
    struct segment full = {.flags = ACK, .seq = seq, .ack = 1, .window = 65535, .len = 1000};
    guest_segment(s, full, NULL); /* fills the rest, and beyond */
    struct segment shut = expect_segment(s);
    assert_int_equal(shut.window, 0);
    seq = shut.ack;
    wait_ms(s, 300);
    guest(s, ACK, seq, 1, 65535, 1);
    assert_int_equal(expect(s, ACK, 1, seq, 0).window, 0);
    wait_ms(s, 300);
    guest(s, ACK, seq - 1, 1, 65535, 0); /* the other kind */
    assert_int_equal(expect(s, ACK, 1, seq, 0).window, 0);
    s->take = SIZE_MAX;
    host_takes(s, SIZE_MAX);
    assert_int_equal(s->written, seq - 1);
}

static void the_window_does_not_open_by_crumbs(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 0;
    uint32_t seq = 1;
    for (unsigned i = 0; i < 65; i++, seq += 1000) {
        guest(s, ACK, seq, 1, 65535, 1000);
        expect(s, ACK, 1, seq + 1000, 0);
    }
    uint32_t edge = 0;
    for (unsigned i = 0; i < 5; i++, seq += 10) {
        s->take = 20;
        host_takes(s, 20);
        expect_nothing(s);
        guest(s, ACK, seq, 1, 65535, 10);
        struct segment ack = expect(s, ACK, 1, seq + 10, 0);
        assert_true(edge == 0 || ack.ack + ack.window == edge);
        edge = ack.ack + ack.window;
    }
}

static void a_segment_out_of_order_is_kept_and_sacked(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    guest(s, ACK, 1001, 1, 512, 1000);
    struct segment ack = expect(s, ACK, 1, 1, 0);
    assert_int_equal(ack.sack_count, 1);
    assert_int_equal(ack.sack[0].from - GUEST_ISS, 1001);
    assert_int_equal(ack.sack[0].to - GUEST_ISS, 2001);
    guest(s, ACK, 4001, 1, 512, 1000);
    ack = expect(s, ACK, 1, 1, 0);
    assert_int_equal(ack.sack_count, 2);
    assert_int_equal(ack.sack[0].from - GUEST_ISS, 4001); /* the newest first (RFC 2018, 4) */
    assert_int_equal(ack.sack[1].from - GUEST_ISS, 1001);
    assert_int_equal(s->written, 0);
    guest(s, ACK, 1, 1, 512, 1000);
    ack = expect(s, ACK, 1, 2001, 0);
    assert_int_equal(ack.sack_count, 1);
    assert_int_equal(s->written, 2000);
    guest(s, ACK, 2001, 1, 512, 2000);
    ack = expect(s, ACK, 1, 5001, 0);
    assert_int_equal(ack.sack_count, 0);
    assert_int_equal(s->written, 5000);
}

static void without_sack_permitted_there_are_no_sacks(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, ACK, 1001, 1, 65535, 1000);
    assert_int_equal(expect(s, ACK, 1, 1, 0).sack_count, 0);
}

static void sacks_never_make_a_segment_too_long(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    guest(s, ACK, 1001, 1, 512, 1000);
    guest(s, ACK, 4001, 1, 512, 1000);
    forget(s);
    host_sends(s, 1448);
    struct segment data = expect(s, ACK | PSH, 1, 1, 1448);
    assert_true(data.len + data.options_len <= 1460);
}

static void overlapping_segments_give_each_byte_once(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    guest(s, ACK, 501, 1, 512, 1000);
    guest(s, ACK, 401, 1, 512, 300);
    guest(s, ACK, 1201, 1, 512, 800);
    guest(s, ACK, 1, 1, 512, 600);
    guest(s, ACK, 301, 1, 512, 1700); /* old and new in one */
    assert_int_equal(s->written, 2000);
    guest(s, ACK, 1901, 1, 512, 200);
    assert_int_equal(s->written, 2100);
    forget(s);
    guest(s, ACK, 1, 1, 512, 2000);
    expect(s, ACK, 1, 2101, 0);
    assert_int_equal(s->written, 2100);
}

static void data_beyond_the_window_is_cut(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    open_flow(s, syn);
    s->take = 0;
    uint32_t seq = 1, edge = 65536;
    while (seq < 60001) {
        guest(s, ACK, seq, 1, 65535, 1000);
        struct segment ack = expect(s, ACK, 1, seq + 1000, 0);
        edge = ack.ack + ack.window;
        seq += 1000;
    }
    struct segment more = {.flags = ACK, .seq = seq, .ack = 1, .window = 65535, .len = 20000};
    more.gso_size = 1460;
    guest_segment(s, more, NULL);
    assert_int_equal(expect_segment(s).ack, edge);
    assert_int_equal(counted(s, COUNTER_tcp_beyond_window), 1);
    host_takes(s, SIZE_MAX);
    assert_int_equal(s->written, edge - 1);
}

static void what_begins_beyond_the_window_moves_nothing(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, ACK, 1 + (64u << 20), 1, 10, 10);
    expect(s, ACK, 1, 1, 0);
    /* Its window of 10 does not count, and does not keep later ones from counting. */
    guest(s, ACK, 1, 1, 20000, 0);
    forget(s);
    assert_int_equal(host_sends(s, 65000), 20000);
}

static void urgent_data_is_delivered_in_band(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    struct segment urgent = {
        .flags = ACK | TCP_URG, .seq = 1, .ack = 1, .window = 65535, .len = 100, .urgent = 65535};
    guest_segment(s, urgent, NULL);
    expect(s, ACK, 1, 101, 0);
    assert_int_equal(s->written, 100);
}

static void sequence_numbers_wrap(void **state)
{
    struct script *s = *state;
    s->guest_iss = UINT32_MAX - 1500;
    open_flow(s, modern_syn());
    guest(s, ACK, 1001, 1, 512, 1000); /* across the end, and out of order */
    assert_int_equal(expect(s, ACK, 1, 1, 0).sack_count, 1);
    guest(s, ACK, 1, 1, 512, 1000);
    expect(s, ACK, 1, 2001, 0);
    guest(s, ACK, 2001, 1, 512, 1000);
    expect(s, ACK, 1, 3001, 0);
    guest(s, ACK | FIN, 3001, 1, 512, 0);
    expect(s, ACK, 1, 3002, 0);
    assert_int_equal(s->written, 3000);
    assert_int_equal(s->shuts, 1);
}

/* ---- download ---- */

static void segments_respect_the_guests_mss(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.mss = 700;
    open_flow(s, syn);
    host_sends(s, 10000);
    struct segment data = expect(s, ACK, 1, 1, 10000);
    assert_int_equal(data.gso_size, 700);
}

static void without_an_mss_option_segments_are_small(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.has_mss = false;
    open_flow(s, syn);
    host_sends(s, 10000);
    assert_int_equal(expect_segment(s).gso_size, 536);
}

static void an_mss_above_the_mtu_is_cut_to_it(void **state)
{
    struct script *s = *state;
    struct segment syn = modern_syn();
    syn.mss = 9000;
    open_flow(s, syn);
    host_sends(s, 10000);
    assert_int_equal(expect_segment(s).gso_size, 1448);
}

static void the_hosts_bytes_leave_together_when_the_batch_ends(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    batch_begin(s);
    host_sends(s, 1);
    host_sends(s, 1);
    batch_end(s);
    expect(s, ACK | PSH, 1, 1, 2);
    host_sends(s, 1); /* no Nagle */
    expect(s, ACK | PSH, 3, 1, 1);
}

static void no_more_is_read_than_the_guests_window_takes(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.window = 5000;
    open_flow(s, syn);
    assert_int_equal(host_sends(s, 100000), 5000);
    forget(s);
    guest(s, ACK, 1, 5001, 5000, 0);
    assert_int_equal(s->resumes, 1);
    assert_int_equal(host_sends(s, 100000), 5000);
}

static void a_shut_window_is_probed_ever_more_rarely(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.window = 1000;
    open_flow(s, syn);
    assert_int_equal(host_sends(s, 5000), 1000);
    expect(s, ACK | PSH, 1, 1, 1000);
    guest(s, ACK, 1, 1001, 0, 0);
    unsigned probes = 0;
    for (unsigned second = 0; second < 120; second++) {
        wait_ms(s, 1000);
        while (s->sent_next < s->sent_count) {
            struct segment probe = expect_segment(s);
            assert_true(probe.len <= 1);
            probes++;
            guest(s, ACK, 1, 1001, 0, 0);
        }
    }
    assert_true(probes >= 3 && probes <= 12);
    assert_int_equal(s->resumes, 0);
    guest(s, ACK, 1, 1001, 1000, 0); /* no window update is missed */
    assert_int_equal(s->resumes, 1);
    assert_int_equal(host_sends(s, 5000), 1000);
    expect(s, ACK | PSH, 1001, 1, 1000);
}

static void a_shut_window_is_probed_for_as_long_as_it_is_answered(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.window = 1000;
    open_flow(s, syn);
    host_sends(s, 5000);
    guest(s, ACK, 1, 1001, 0, 0);
    for (unsigned minute = 0; minute < 120; minute++) {
        forget(s);
        wait_ms(s, 60000);
        if (s->sent_count)
            guest(s, ACK, 1, 1001, 0, 0);
    }
    assert_int_equal(tcp_flow_count(s->stack), 1);
    assert_int_equal(s->closes, 0);
}

/* What the silence of a shut window has taught is not true of an open one. */
static void what_is_lost_after_a_shut_window_is_repaired_as_quickly_as_ever(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.window = 1000;
    open_flow(s, syn);
    host_sends(s, 5000);
    forget(s);
    guest(s, ACK, 1, 1001, 0, 0);
    for (unsigned second = 0; second < 60; second++) {
        wait_ms(s, 1000);
        if (s->sent_next < s->sent_count)
            guest(s, ACK, 1, 1001, 0, 0);
        forget(s);
    }
    guest(s, ACK, 1, 1001, 1000, 0);
    assert_int_equal(host_sends(s, 5000), 1000);
    expect(s, ACK | PSH, 1001, 1, 1000);
    wait_ms(s, 1500);
    expect(s, ACK | PSH, 1001, 1, 1000);
}

static void three_duplicate_acks_bring_the_segment_again(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    for (int i = 0; i < 6; i++)
        host_sends(s, 1460);
    forget(s);
    guest(s, ACK, 1, 1461, 65535, 0);
    for (int i = 0; i < 2; i++) {
        guest(s, ACK, 1, 1461, 65535, 0);
        expect_nothing(s);
    }
    guest(s, ACK, 1, 1461, 65535, 0);
    struct segment again = expect_segment(s);
    assert_int_equal(again.seq, 1461);
    assert_true(again.len >= 1460);
    assert_int_equal(counted(s, COUNTER_tcp_fast_retransmits), 1);
    assert_int_equal(counted(s, COUNTER_tcp_timeouts), 0);
}

static void only_the_hole_is_sent_again(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    guest(s, ACK, 1, 1, 512, 0);
    host_sends(s, 20 * 1448);
    forget(s);
    struct segment ack = {.flags = ACK,
                          .seq = 1,
                          .ack = 1 + 1448,
                          .window = 512,
                          .has_timestamps = true,
                          .tsval = s->tsval,
                          .sack_count = 1};
    ack.sack[0] = (struct sack_range){1 + 3 * 1448, 1 + 20 * 1448};
    guest_segment(s, ack, NULL);
    expect(s, ACK, 1 + 1448, 1, 2 * 1448);
    expect_nothing(s);
    guest(s, ACK, 1, 1 + 20 * 1448, 512, 0);
    wait_ms(s, 5000);
    expect_nothing(s);
    assert_int_equal(counted(s, COUNTER_tcp_timeouts), 0);
}

static void a_lost_tail_is_probed_before_the_timeout(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    host_sends(s, 5 * 1448);
    forget(s);
    wait_ms(s, 150);
    expect_segment(s);
    assert_int_equal(counted(s, COUNTER_tcp_tail_probes), 1);
    assert_int_equal(counted(s, COUNTER_tcp_timeouts), 0);
}

static void timeouts_double_and_end_in_a_vanished_guest(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_sends(s, 100);
    forget(s);
    uint64_t last = s->now, gap = 0;
    unsigned sent = 0;
    for (unsigned tick = 0; tick < 400000 && s->closes == 0; tick++) {
        wait_ms(s, 10);
        if (s->sent_next == s->sent_count)
            continue;
        struct segment again = expect_segment(s);
        if (again.flags & RST)
            break;
        uint64_t this_gap = s->now - last;
        if (sent >= 2 && gap < 60000 * MSEC)
            assert_true(this_gap > gap * 3 / 2 && this_gap < gap * 5 / 2);
        gap = this_gap;
        last = s->now;
        sent++;
    }
    assert_true(sent >= 12 && sent <= 17);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void forgotten_sacks_are_sent_again_after_a_timeout(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    host_sends(s, 4 * 1448);
    forget(s);
    struct segment ack = {.flags = ACK,
                          .seq = 1,
                          .ack = 1,
                          .window = 512,
                          .has_timestamps = true,
                          .tsval = s->tsval,
                          .sack_count = 1};
    ack.sack[0] = (struct sack_range){1449, 1 + 4 * 1448};
    guest_segment(s, ack, NULL);
    wait_ms(s, 30000);
    uint32_t last_end = 0;
    while (s->sent_next < s->sent_count) {
        struct segment again = expect_segment(s);
        if (again.seq == 1)
            last_end = 0;
        if (again.seq + again.len > last_end)
            last_end = again.seq + (uint32_t)again.len;
    }
    assert_int_equal(last_end, 1 + 4 * 1448);
}

static void a_repeated_segment_that_acknowledges_more_tells_the_window(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.window = 1000;
    open_flow(s, syn);
    guest(s, ACK, 2001, 1, 1000, 100); /* newer in the sequence */
    forget(s);
    host_sends(s, 1000);
    expect(s, ACK | PSH, 1, 1, 1000);
    guest(s, ACK, 1, 1001, 0, 100); /* a retransmission, with the window shut */
    forget(s);
    assert_int_equal(host_sends(s, 1000), 0);
}

static void link_has_room(struct script *s)
{
    s->link_full = false;
    stack_link_writable(s->stack);
    stack_batch_end(s->stack, STACK_ACKS_NOW);
}

static void a_full_link_loses_nothing(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->link_full = true;
    host_sends(s, 3000);
    guest(s, ACK, 1, 1, 65535, 500);
    uint64_t committed = s->host_total;
    expect_nothing(s);
    assert_true(committed > 0);
    s->link_full = false;
    stack_link_writable(s->stack);
    stack_batch_end(s->stack, STACK_ACKS_NOW);
    uint64_t arrived = 0;
    uint32_t acked = 1;
    while (s->sent_next < s->sent_count) {
        struct segment got = expect_segment(s);
        arrived += got.len;
        acked = got.ack;
    }
    assert_int_equal(arrived, committed);
    assert_int_equal(acked, 501);
    assert_int_equal(counted(s, COUNTER_tcp_retransmits), 0);
}

/* ---- how a connection ends ---- */

static void the_hosts_fin_follows_its_last_byte_and_leaves_the_other_way_open(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_sends(s, 100);
    host_eof(s);
    expect(s, ACK, 1, 1, 100);
    expect(s, ACK | FIN, 101, 1, 0);
    guest(s, ACK, 1, 102, 65535, 0);
    wait_ms(s, 3600 * 1000);
    guest(s, ACK, 1, 102, 65535, 500);
    expect(s, ACK, 102, 501, 0);
    assert_int_equal(s->written, 500);
    guest(s, ACK | FIN, 501, 102, 65535, 0);
    expect(s, ACK, 102, 502, 0);
    assert_int_equal(s->shuts, 1);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_FINISHED);
}

static void the_hosts_fin_waits_for_the_guests_window(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.window = 1000;
    open_flow(s, syn);
    host_sends(s, 1000);
    host_eof(s);
    assert_int_equal(expect_segment(s).flags & FIN, 0);
    guest(s, ACK, 1, 1001, 1000, 0);
    expect(s, ACK | FIN, 1001, 1, 0);
}

static void a_lost_fin_is_sent_again(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_eof(s);
    expect(s, ACK | FIN, 1, 1, 0);
    wait_ms(s, 1500);
    expect(s, ACK | FIN, 1, 1, 0);
}

static void the_guests_fin_is_passed_on_after_its_last_byte(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 400;
    guest(s, ACK | FIN, 1, 1, 65535, 1000);
    expect(s, ACK, 1, 1002, 0);
    assert_int_equal(s->written, 400);
    assert_int_equal(s->shuts, 0);
    host_takes(s, SIZE_MAX);
    assert_int_equal(s->written, 1000);
    assert_int_equal(s->shuts, 1);
    assert_int_equal(s->closes, 0);
}

static void a_half_closed_guest_keeps_receiving(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, ACK | FIN, 1, 1, 65535, 0);
    expect(s, ACK, 1, 2, 0);
    assert_int_equal(s->shuts, 1);
    for (uint32_t i = 0; i < 10; i++) {
        wait_ms(s, 600 * 1000);
        assert_int_equal(host_sends(s, 1000), 1000);
        expect(s, ACK | PSH, 1 + 1000 * i, 2, 1000);
        guest(s, ACK, 2, 1001 + 1000 * i, 65535, 0);
    }
    host_eof(s);
    expect(s, ACK | FIN, 10001, 2, 0);
    guest(s, ACK, 2, 10002, 65535, 0);
    assert_int_equal(s->how, TCP_CLOSE_FINISHED);
    assert_int_equal(s->closes, 1);
    assert_int_equal(tcp_flow_count(s->stack), 0); /* the guest closed first: no TIME-WAIT here */
}

static void a_fin_out_of_order_waits_for_what_is_missing(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    guest(s, ACK | FIN, 1001, 1, 512, 1000);
    assert_int_equal(expect(s, ACK, 1, 1, 0).sack_count, 1);
    assert_int_equal(s->shuts, 0);
    guest(s, ACK, 1, 1, 512, 1000);
    expect(s, ACK, 1, 2002, 0);
    assert_int_equal(s->written, 2000);
    assert_int_equal(s->shuts, 1);
}

static void the_hosts_reset_follows_the_bytes_before_it(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_sends(s, 5000);
    host_resets(s);
    assert_int_equal(s->closes, 1);
    expect(s, ACK, 1, 1, 5000);
    guest(s, ACK, 1, 5001, 65535, 0);
    expect(s, RST | ACK, 5001, 1, 0);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void the_hosts_reset_does_not_wait_for_a_silent_guest(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_sends(s, 5000);
    host_resets(s);
    forget(s);
    wait_ms(s, 3000);
    assert_int_equal(tcp_flow_count(s->stack), 0);
    bool reset = false;
    while (s->sent_next < s->sent_count)
        reset = expect_segment(s).flags & RST;
    assert_true(reset);
}

static void the_hosts_reset_is_sent_at_once_when_the_window_is_shut(void **state)
{
    struct script *s = *state;
    struct segment syn = plain_syn();
    syn.window = 1000;
    open_flow(s, syn);
    host_sends(s, 5000);
    forget(s);
    guest(s, ACK, 1, 1001, 0, 0);
    host_resets(s);
    expect(s, RST | ACK, 1001, 1, 0);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void the_hosts_reset_of_an_idle_flow_is_sent_at_once(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_resets(s);
    expect(s, RST | ACK, 1, 1, 0);
    assert_int_equal(s->closes, 1);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

/* A guest that only listens has nothing to send that would bring the RST again. */
static void the_hosts_reset_waits_for_a_full_link(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->link_full = true;
    host_resets(s);
    assert_int_equal(s->closes, 1);
    wait_ms(s, 60000);
    link_has_room(s);
    expect(s, RST | ACK, 1, 1, 0);
    expect_nothing(s);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void so_does_a_reset_after_the_last_bytes(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_sends(s, 5000);
    host_resets(s);
    forget(s);
    s->link_full = true;
    guest(s, ACK, 1, 5001, 65535, 0);
    link_has_room(s);
    expect(s, RST | ACK, 5001, 1, 0);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void so_does_a_reset_that_the_policy_demands(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->link_full = true;
    host_sends(s, 5000);
    tcp_abort(s->stack, s->flow);
    assert_int_equal(s->closes, 1);
    tcp_abort(s->stack, s->flow);
    link_has_room(s);
    expect(s, RST | ACK, 1, 1, 0);
    expect_nothing(s);
    assert_int_equal(s->closes, 1);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void a_guest_that_calls_again_need_not_wait_for_an_owed_reset(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->link_full = true;
    host_resets(s);
    guest(s, ACK, 1, 1, 65535, 100);
    s->guest_iss += 100000;
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 2);
    link_has_room(s);
    expect_nothing(s);
    assert_int_equal(tcp_flow_count(s->stack), 1);
}

/* The ACKs of what it got may have been lost: a RST before them would be ignored. */
static void a_reset_stands_behind_all_that_was_sent(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    guest(s, ACK, 1, 1, 65535, 0);
    assert_int_equal(host_sends(s, 200000), 200000);
    forget(s);
    wait_ms(s, 1500); /* the timeout begins again with the first frame */
    forget(s);
    tcp_abort(s->stack, s->flow);
    expect(s, RST | ACK, 200001, 1, 0);
}

static void the_guests_reset_closes_with_reset(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, ACK, 1, 1, 65535, 100);
    forget(s);
    guest(s, RST, 101, 0, 0, 0);
    expect_nothing(s);
    assert_int_equal(s->written, 100);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_RESET);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void the_guests_reset_waits_for_what_was_acknowledged(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 100;
    guest(s, ACK, 1, 1, 65535, 1000);
    forget(s);
    guest(s, RST, 1001, 0, 0, 0);
    assert_int_equal(s->closes, 0);
    wait_ms(s, 1000);
    host_takes(s, SIZE_MAX);
    assert_int_equal(s->written, 1000);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_RESET);
}

static void the_guests_reset_waits_two_seconds_at_most(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 0;
    guest(s, ACK, 1, 1, 65535, 1000);
    guest(s, RST, 1001, 0, 0, 0);
    wait_ms(s, 1900);
    assert_int_equal(s->closes, 0);
    wait_ms(s, 200);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_RESET);
    assert_int_equal(counted(s, COUNTER_tcp_lingering_lost), 1);
}

/* The link may be full of what is to be repaired. */
static void a_guest_may_reset_while_repairs_wait_for_the_link(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    host_sends(s, 50000);
    s->take = 0;
    guest(s, ACK, 1, 1, 65535, 1000);
    forget(s);
    s->link_full = true;
    for (int i = 0; i < 3; i++)
        guest(s, ACK, 1001, 1, 65535, 0);
    guest(s, RST, 1001, 0, 0, 0);
    link_has_room(s);
    expect_nothing(s);
    host_takes(s, SIZE_MAX);
    assert_int_equal(s->written, 1000);
    assert_int_equal(s->closes, 1);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void a_resetting_guest_may_use_its_port_again_at_once(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 0;
    guest(s, ACK, 1, 1, 65535, 1000);
    guest(s, RST, 1001, 0, 0, 0);
    forget(s);
    s->guest_iss += 100000;
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 2);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
}

/* What was seen with slow hosts: the guest has closed both ways, its tail is still on its way. */
static void a_guest_that_closed_both_ways_gets_no_window_update(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 0;
    host_eof(s);
    for (uint32_t i = 0; i < 60; i++)
        guest(s, ACK, 1 + 1000 * i, 2, 65535, 1000);
    guest(s, ACK | FIN, 60001, 2, 65535, 0);
    forget(s);
    host_takes(s, 50000);
    expect_nothing(s);
    guest(s, RST, 60002, 0, 0, 0); /* means nothing any more */
    assert_int_equal(s->closes, 0);
    host_takes(s, SIZE_MAX);
    assert_int_equal(s->written, 60000);
    assert_int_equal(s->shuts, 1);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_FINISHED);
}

static void such_a_guest_may_use_its_port_again(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 0;
    host_eof(s);
    guest(s, ACK | FIN, 1, 2, 65535, 1000);
    forget(s);
    struct flow_handle old = s->flow;
    s->guest_iss += 100000;
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 2);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
    s->flow = old;
    s->take = SIZE_MAX;
    host_takes(s, SIZE_MAX);
    assert_int_equal(s->written, 1000);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_FINISHED);
}

/* Its sequence numbers may begin anywhere: our ACK then tells it to reset what we still know. */
static void such_a_guest_may_begin_with_an_older_sequence_number(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 0;
    host_eof(s);
    guest(s, ACK | FIN, 1, 2, 65535, 1000);
    forget(s);
    guest(s, SYN, (uint32_t)-100000, 0, 65535, 0);
    assert_int_equal(s->opens, 1);
    expect(s, ACK, 2, 1002, 0);
    guest(s, RST, 1002, 0, 0, 0);
    guest(s, SYN, (uint32_t)-100000, 0, 65535, 0);
    assert_int_equal(s->opens, 2);
    assert_int_equal(s->closes, 0);
}

static void a_host_that_takes_no_more_from_such_a_guest_is_given_up(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    s->take = 0;
    host_eof(s);
    guest(s, ACK | FIN, 1, 2, 65535, 1000);
    forget(s);
    wait_ms(s, 500 * 1000);
    host_takes(s, 500); /* it lives */
    wait_ms(s, 500 * 1000);
    assert_int_equal(s->closes, 0);
    wait_ms(s, 200 * 1000);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    assert_int_equal(counted(s, COUNTER_tcp_lingering_lost), 1);
    assert_int_equal(tcp_flow_count(s->stack), 0);
    assert_int_equal(tcp_queued_bytes(s->stack), 0);
    expect_nothing(s);
}

/* Leaves the flow in TIME-WAIT: the host closed first. */
static void close_host_first(struct script *s)
{
    host_eof(s);
    guest(s, ACK, 1, 2, 65535, 0);
    guest(s, ACK | FIN, 1, 2, 65535, 0);
    assert_int_equal(s->closes, 1);
    assert_int_equal(tcp_flow_count(s->stack), 1);
    forget(s);
}

static void the_last_ack_waits_for_a_full_link(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_eof(s);
    guest(s, ACK, 1, 2, 65535, 0);
    forget(s);
    s->link_full = true;
    guest(s, ACK | FIN, 1, 2, 65535, 0);
    assert_int_equal(s->closes, 1);
    expect_nothing(s);
    s->link_full = false;
    stack_link_writable(s->stack);
    stack_batch_end(s->stack, STACK_ACKS_NOW);
    expect(s, ACK, 2, 2, 0);
}

static void time_wait_answers_a_repeated_fin_and_ends(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    close_host_first(s);
    wait_ms(s, 1000);
    guest(s, ACK | FIN, 1, 2, 65535, 0);
    expect(s, ACK, 2, 2, 0);
    wait_ms(s, 240 * 1000);
    assert_int_equal(tcp_flow_count(s->stack), 0);
    expect_nothing(s);
}

static void a_repeated_fin_restarts_time_wait(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    close_host_first(s);
    for (int i = 0; i < 5; i++) {
        wait_ms(s, 9000);
        guest(s, ACK | FIN, 1, 2, 65535, 0);
        expect(s, ACK, 2, 2, 0);
    }
}

static void time_wait_yields_to_a_new_syn(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    close_host_first(s);
    s->guest_iss += 5000;
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 2);
    assert_int_equal(tcp_flow_count(s->stack), 1);
    tcp_connected(s->stack, s->flow);
    expect(s, SYN | ACK, 0, 1, 0);
}

static void time_wait_does_not_yield_to_an_old_syn(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    close_host_first(s);
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 1);
}

static void time_wait_yields_when_flows_run_out(void **state)
{
    (void)state;
    struct script *s = script_new_with(1500, 1);
    open_flow(s, plain_syn());
    close_host_first(s);
    s->guest_port++;
    guest_segment(s, plain_syn(), NULL);
    assert_int_equal(s->opens, 2);
    script_free(s);
}

/* ---- RFC 5961 ---- */

static void only_an_exact_reset_resets(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, RST, 100, 0, 0, 0);
    expect(s, ACK, 1, 1, 0); /* challenge */
    guest(s, RST, 1 + (1u << 30), 0, 0, 0);
    guest(s, RST, 0, 0, 0, 0);
    expect_nothing(s);
    assert_int_equal(s->closes, 0);
    guest(s, RST, 1, 0, 0, 0);
    assert_int_equal(s->closes, 1);
}

static void a_reset_at_the_edge_of_the_window_is_challenged(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, ACK, 1, 1, 65535, 1);
    struct segment ack = expect_segment(s);
    guest(s, RST, ack.ack + ack.window, 0, 0, 0); /* it filled the window; not all has arrived */
    expect(s, ACK, 1, 2, 0);
    guest(s, RST, 2, 0, 0, 0);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_RESET);
}

static void a_syn_in_an_open_flow_is_challenged(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, SYN, 500, 0, 100, 0);
    expect(s, ACK, 1, 1, 0);
    guest(s, SYN, 1u << 31, 0, 100, 0);
    expect(s, ACK, 1, 1, 0);
    assert_int_equal(s->closes, 0);
    assert_int_equal(s->opens, 1);
}

static void an_ack_of_what_was_never_sent_is_challenged(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, ACK, 1, 5000, 65535, 100);
    expect(s, ACK, 1, 1, 0);
    assert_int_equal(s->written, 0);
    assert_int_equal(counted(s, COUNTER_tcp_bad_ack), 1);
}

static void challenges_are_limited(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    unsigned sent = 0;
    for (int i = 0; i < 5000; i++) {
        guest(s, SYN, 500, 0, 100, 0);
        sent += s->sent_count - s->sent_next;
        forget(s);
    }
    assert_true(sent >= 1 && sent <= 1000);
}

static void two_confused_sides_do_not_answer_each_other_for_ever(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    unsigned sent = 0;
    for (int i = 0; i < 1000; i++) {
        guest(s, ACK, 1u << 30, 1, 100, 0); /* out of any window, without data */
        sent += s->sent_count - s->sent_next;
        forget(s);
    }
    assert_true(sent >= 1 && sent <= 20);
}

/* ---- keepalives, timestamps, idleness ---- */

static void a_keepalive_is_answered_and_passed_on_once(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    guest(s, ACK, 1, 1, 65535, 10);
    expect(s, ACK, 1, 11, 0);
    for (int i = 0; i < 3; i++) {
        wait_ms(s, 60000);
        guest(s, ACK, 10, 1, 65535, i == 1 ? 1 : 0);
        expect(s, ACK, 1, 11, 0);
    }
    assert_int_equal(s->keepalives, 1);
    assert_int_equal(s->written, 10);
}

static void timestamps_echo_the_segment_that_is_acknowledged(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    s->tsval = 6000;
    guest(s, ACK, 1, 1, 512, 100);
    assert_int_equal(expect(s, ACK, 1, 101, 0).tsecr, 6000);
    s->tsval = 7000; /* out of order: not echoed until the hole is filled (RFC 7323, 4.3) */
    guest(s, ACK, 201, 1, 512, 100);
    assert_int_equal(expect(s, ACK, 1, 101, 0).tsecr, 6000);
    s->tsval = 7100;
    guest(s, ACK, 101, 1, 512, 100);
    assert_int_equal(expect(s, ACK, 1, 301, 0).tsecr, 7100);
}

static void an_old_timestamp_is_refused_and_answered(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    s->tsval = 6000;
    guest(s, ACK, 1, 1, 512, 100);
    forget(s);
    s->tsval = 5999;
    guest(s, ACK, 101, 1, 512, 100);
    assert_int_equal(expect(s, ACK, 1, 101, 0).tsecr, 6000);
    assert_int_equal(s->written, 100);
    assert_int_equal(counted(s, COUNTER_tcp_paws), 1);
    guest(s, RST, 101, 0, 0, 0); /* a reset is not refused for it (RFC 7323, 5.2) */
    assert_int_equal(s->closes, 1);
}

static void timestamps_are_in_every_segment_once_agreed(void **state)
{
    struct script *s = *state;
    open_flow(s, modern_syn());
    host_sends(s, 10);
    assert_true(expect_segment(s).has_timestamps);
    guest(s, ACK, 1, 11, 512, 10);
    assert_true(expect_segment(s).has_timestamps);
    host_eof(s);
    assert_true(expect_segment(s).has_timestamps);
}

static void an_idle_flow_arms_no_timer_for_hours(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    host_sends(s, 10);
    guest(s, ACK, 1, 11, 65535, 10);
    forget(s);
    wait_ms(s, 60 * 1000);
    unsigned wakeups = 0;
    for (uint64_t next; (next = timers_next(s->timers)) < s->now + 3600 * 1000 * MSEC; wakeups++) {
        wait_ms(s, (next - s->now) / MSEC + 1);
        if (wakeups > 50)
            break;
    }
    expect_nothing(s);
    assert_true(wakeups <= 4); /* router advertisements are rare, too */
}

static void a_guest_that_vanished_idle_is_found_out(void **state)
{
    struct script *s = *state;
    open_flow(s, plain_syn());
    wait_ms(s, 4 * 3600 * 1000);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

/* ---- published ports ---- */

static void begin_at_host(struct script *s)
{
    struct flow_key key = {.guest_port = GUEST_PORT, .remote_port = REMOTE_PORT, .protocol = 6};
    assert_true(ip_address_parse("10.0.2.100", &key.guest));
    assert_true(ip_address_parse("93.184.216.34", &key.remote));
    assert_true(tcp_open_to_guest(s->stack, &key, &script_upstream, s, 77, &s->flow));
    assert_false(tcp_open_to_guest(s->stack, &key, &script_upstream, s, 77, &s->flow));
    stack_batch_end(s->stack, STACK_ACKS_NOW);
}

static void a_flow_from_the_host_opens_when_the_guest_answers(void **state)
{
    struct script *s = *state;
    begin_at_host(s);
    struct segment syn = expect_segment(s);
    assert_int_equal(syn.flags, SYN);
    assert_true(syn.has_mss && syn.mss == 1460);
    struct iovec iov[TCP_RESERVE_IOV];
    assert_int_equal(tcp_rx_reserve(s->stack, s->flow, iov), 0);
    struct segment answer = plain_syn();
    answer.flags = SYN | ACK;
    answer.ack = 1;
    guest_segment(s, answer, NULL);
    expect(s, ACK, 1, 1, 0);
    assert_int_equal(s->resumes, 1);
    assert_int_equal(host_sends(s, 100), 100);
    expect(s, ACK | PSH, 1, 1, 100);
    guest(s, ACK, 1, 101, 65535, 50);
    expect(s, ACK, 101, 51, 0);
    assert_int_equal(s->written, 50);
}

static void a_guest_that_refuses_a_flow_from_the_host_closes_it(void **state)
{
    struct script *s = *state;
    begin_at_host(s);
    expect_segment(s);
    guest(s, RST | ACK, 0, 1, 0, 0);
    assert_int_equal(s->closes, 1);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

static void a_guest_that_is_away_is_given_up_within_a_second(void **state)
{
    struct script *s = *state;
    begin_at_host(s);
    wait_ms(s, 900);
    assert_int_equal(s->closes, 0);
    wait_ms(s, 200);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    assert_int_equal(tcp_flow_count(s->stack), 0);
}

/* Whatever it says shows that it is there. */
static void a_guest_that_does_not_answer_is_asked_again_and_given_up(void **state)
{
    struct script *s = *state;
    const uint16_t port = s->guest_port;
    begin_at_host(s);
    wait_ms(s, 300);
    s->guest_port ^= 1;
    guest(s, ACK, 1, 1, 100, 0);
    s->guest_port = port;
    wait_ms(s, 300 * 1000);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    unsigned syns = 0;
    while (s->sent_next < s->sent_count)
        syns += !!(expect_segment(s).flags & SYN);
    assert_true(syns >= 4 && syns <= 8);
}

static void the_end_of_the_stack_closes_every_flow(void **state)
{
    (void)state;
    struct script *s = script_new();
    open_flow(s, plain_syn());
    host_sends(s, 5000);
    forget(s);
    s->stack = stack_free(s->stack);
    assert_int_equal(s->closes, 1);
    assert_int_equal(s->how, TCP_CLOSE_VANISHED);
    expect_nothing(s);
    script_free(s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, unmake)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_syn_is_answered_only_after_the_host_connected),
        TEST(options_are_answered_only_where_offered),
        cmocka_unit_test(the_mss_offered_follows_the_mtu),
        TEST(a_refused_connection_is_a_reset),
        TEST(a_connection_under_way_that_the_policy_ends_is_a_reset),
        TEST(an_open_flow_that_the_policy_ends_is_a_reset_for_both),
        TEST(unreachable_hosts_are_icmp_errors_in_both_families),
        TEST(silence_leaves_the_retry_to_the_guest),
        TEST(data_on_a_syn_is_not_accepted),
        TEST(a_lost_syn_ack_is_sent_again),
        TEST(a_half_open_flow_ends),
        TEST(a_connect_that_never_ends_has_a_lifetime),
        TEST(the_answered_syn_opens_by_data_when_the_ack_was_lost),
        TEST(an_answered_syn_opens_by_a_keepalive_too),
        TEST(a_wrong_ack_of_the_syn_ack_is_reset),
        cmocka_unit_test(above_the_flow_limit_a_syn_meets_counted_silence),
        cmocka_unit_test(at_the_limit_who_waits_long_for_a_silent_host_gives_way),
        TEST(a_segment_for_no_flow_is_reset),
        TEST(a_damaged_segment_is_dropped_and_counted),
        TEST(impossible_options_do_no_harm),
        TEST(one_ack_answers_a_batch),
        TEST(a_super_segment_is_one_write_and_one_ack),
        TEST(deferred_acks_are_sent_by_the_next_batch),
        TEST(acks_wait_for_frames_at_hand_but_not_beyond_a_quarter_of_the_window),
        TEST(what_the_host_does_not_take_shrinks_the_window_and_is_kept),
        cmocka_unit_test(a_flow_refused_while_its_segment_waits_for_room_is_gone),
        TEST(a_probe_of_our_shut_window_is_answered),
        TEST(the_window_does_not_open_by_crumbs),
        TEST(a_segment_out_of_order_is_kept_and_sacked),
        TEST(without_sack_permitted_there_are_no_sacks),
        TEST(sacks_never_make_a_segment_too_long),
        TEST(overlapping_segments_give_each_byte_once),
        TEST(data_beyond_the_window_is_cut),
        TEST(what_begins_beyond_the_window_moves_nothing),
        TEST(urgent_data_is_delivered_in_band),
        TEST(sequence_numbers_wrap),
        TEST(segments_respect_the_guests_mss),
        TEST(without_an_mss_option_segments_are_small),
        TEST(an_mss_above_the_mtu_is_cut_to_it),
        TEST(the_hosts_bytes_leave_together_when_the_batch_ends),
        TEST(no_more_is_read_than_the_guests_window_takes),
        TEST(a_shut_window_is_probed_ever_more_rarely),
        TEST(a_shut_window_is_probed_for_as_long_as_it_is_answered),
        TEST(what_is_lost_after_a_shut_window_is_repaired_as_quickly_as_ever),
        TEST(three_duplicate_acks_bring_the_segment_again),
        TEST(only_the_hole_is_sent_again),
        TEST(a_lost_tail_is_probed_before_the_timeout),
        TEST(timeouts_double_and_end_in_a_vanished_guest),
        TEST(forgotten_sacks_are_sent_again_after_a_timeout),
        TEST(a_repeated_segment_that_acknowledges_more_tells_the_window),
        TEST(a_full_link_loses_nothing),
        TEST(the_hosts_fin_follows_its_last_byte_and_leaves_the_other_way_open),
        TEST(the_hosts_fin_waits_for_the_guests_window),
        TEST(a_lost_fin_is_sent_again),
        TEST(the_guests_fin_is_passed_on_after_its_last_byte),
        TEST(a_half_closed_guest_keeps_receiving),
        TEST(a_fin_out_of_order_waits_for_what_is_missing),
        TEST(the_hosts_reset_follows_the_bytes_before_it),
        TEST(the_hosts_reset_does_not_wait_for_a_silent_guest),
        TEST(the_hosts_reset_is_sent_at_once_when_the_window_is_shut),
        TEST(the_hosts_reset_of_an_idle_flow_is_sent_at_once),
        TEST(the_hosts_reset_waits_for_a_full_link),
        TEST(so_does_a_reset_after_the_last_bytes),
        TEST(so_does_a_reset_that_the_policy_demands),
        TEST(a_guest_that_calls_again_need_not_wait_for_an_owed_reset),
        TEST(a_reset_stands_behind_all_that_was_sent),
        TEST(the_guests_reset_closes_with_reset),
        TEST(the_guests_reset_waits_for_what_was_acknowledged),
        TEST(the_guests_reset_waits_two_seconds_at_most),
        TEST(a_guest_may_reset_while_repairs_wait_for_the_link),
        TEST(a_resetting_guest_may_use_its_port_again_at_once),
        TEST(a_guest_that_closed_both_ways_gets_no_window_update),
        TEST(such_a_guest_may_use_its_port_again),
        TEST(such_a_guest_may_begin_with_an_older_sequence_number),
        TEST(a_host_that_takes_no_more_from_such_a_guest_is_given_up),
        TEST(the_last_ack_waits_for_a_full_link),
        TEST(time_wait_answers_a_repeated_fin_and_ends),
        TEST(a_repeated_fin_restarts_time_wait),
        TEST(time_wait_yields_to_a_new_syn),
        TEST(time_wait_does_not_yield_to_an_old_syn),
        cmocka_unit_test(time_wait_yields_when_flows_run_out),
        TEST(only_an_exact_reset_resets),
        TEST(a_reset_at_the_edge_of_the_window_is_challenged),
        TEST(a_syn_in_an_open_flow_is_challenged),
        TEST(an_ack_of_what_was_never_sent_is_challenged),
        TEST(challenges_are_limited),
        TEST(two_confused_sides_do_not_answer_each_other_for_ever),
        TEST(a_keepalive_is_answered_and_passed_on_once),
        TEST(timestamps_echo_the_segment_that_is_acknowledged),
        TEST(an_old_timestamp_is_refused_and_answered),
        TEST(timestamps_are_in_every_segment_once_agreed),
        TEST(an_idle_flow_arms_no_timer_for_hours),
        TEST(a_guest_that_vanished_idle_is_found_out),
        TEST(a_flow_from_the_host_opens_when_the_guest_answers),
        TEST(a_guest_that_refuses_a_flow_from_the_host_closes_it),
        TEST(a_guest_that_is_away_is_given_up_within_a_second),
        TEST(a_guest_that_does_not_answer_is_asked_again_and_given_up),
        cmocka_unit_test(the_end_of_the_stack_closes_every_flow),
    };
    return cmocka_run_group_tests_name("tcp-behaviour", tests, NULL, NULL);
}
