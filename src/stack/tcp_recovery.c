/* SPDX-License-Identifier: Apache-2.0 */
/* What was lost on the way to the guest, and how it is repaired.
 *
 * The link is a queue in memory: it loses little, and when it does it is because the guest's own
 * queue was full. So the congestion window begins at its cap, halves when something was lost (RFC
 * 5681, 6675 in outline) and grows back quickly. Three ways to learn of a loss, in the order in
 * which they happen:
 *   - the guest SACKs beyond a hole, or acknowledges the same byte three times: the holes are sent
 * again;
 *   - silence after the last segment: a tail probe sends its end again (RFC 8985, 7), which brings
 * a SACK or an ACK;
 *   - silence after that: the timeout (RFC 6298). Everything from snd_una is sent again, and what
 *     was SACKed is forgotten, as a guest may have discarded it (RFC 2018, 8). */

#include <assert.h>
#include <stdlib.h>

#include "stack/tcp_internal.h"

#define CWND_MIN           (128u << 10)
#define RECOVERY_ROUND_MIN (10 * MS_NS)
#define DUPLICATE_ACKS     3

/* ---- round trip time
 * --------------------------------------------------------------------------------- */

void tcp_rtt_sample(struct tcp_flow *flow, uint64_t rtt_ns)
{
    uint64_t us = rtt_ns / 1000;
    uint32_t rtt = us > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)us;

    if (flow->srtt_us == 0) {
        flow->srtt_us = rtt ? rtt : 1;
        flow->rttvar_us = rtt / 2;
    } else {
        uint32_t off = flow->srtt_us > rtt ? flow->srtt_us - rtt : rtt - flow->srtt_us;

        flow->rttvar_us = flow->rttvar_us - flow->rttvar_us / 4 + off / 4;
        flow->srtt_us = flow->srtt_us - flow->srtt_us / 8 + rtt / 8;
        if (flow->srtt_us == 0)
            flow->srtt_us = 1;
    }
    /* The variance's floor, not the sum's, is 200 ms: guests delay ACKs by up to that, whatever the
     * distance. */
    uint64_t variance = (uint64_t)flow->rttvar_us * 4000;
    flow->rto = flow->srtt_us * UINT64_C(1000) + (variance < TCP_RTO_MIN ? TCP_RTO_MIN : variance);
    if (flow->rto > TCP_RTO_MAX)
        flow->rto = TCP_RTO_MAX;
}

/* ---- scoreboard
 * -------------------------------------------------------------------------------------- */

void tcp_scoreboard_clear(struct tcp_flow *flow)
{
    free(flow->sacked);
    flow->sacked = NULL;
}

static void scoreboard_count(struct tcp_scoreboard *board)
{
    board->bytes = 0;
    for (uint32_t i = 0; i < board->count; i++)
        board->bytes += board->range[i].end - board->range[i].start;
}

static void scoreboard_remove(struct tcp_scoreboard *board, uint32_t first, uint32_t n)
{
    memmove(&board->range[first], &board->range[first + n],
            (board->count - first - n) * sizeof board->range[0]);
    board->count -= n;
}

/* Adds a range, merging what it touches. A full board forgets its last range: that costs a
 * retransmission. */
static void scoreboard_add(struct tcp_scoreboard *board, struct tcp_sack_block block)
{
    uint32_t first = 0, n = 0;

    while (first < board->count && seq_lt(board->range[first].end, block.start))
        first++;
    while (first + n < board->count && seq_leq(board->range[first + n].start, block.end)) {
        block.start = seq_min(block.start, board->range[first + n].start);
        block.end = seq_max(block.end, board->range[first + n].end);
        n++;
    }
    if (n == 0) {
        if (first == TCP_SACKED_MAX)
            return;
        if (board->count == TCP_SACKED_MAX)
            board->count--;
        memmove(&board->range[first + 1], &board->range[first],
                (board->count - first) * sizeof board->range[0]);
        board->count++;
    } else {
        scoreboard_remove(board, first + 1, n - 1);
    }
    board->range[first] = block;
}

/* Drops what snd_una has passed. */
static void scoreboard_advance(struct tcp *tcp, struct tcp_flow *flow)
{
    struct tcp_scoreboard *board = flow->sacked;
    uint32_t passed = 0;

    if (!board)
        return;
    while (passed < board->count && seq_leq(board->range[passed].end, flow->snd_una))
        passed++;
    scoreboard_remove(board, 0, passed);
    if (board->count > 0 && seq_leq(board->range[0].start, flow->snd_una)) {
        /* It has the byte at snd_una and does not acknowledge it: it has thrown it away. */
        count(tcp->stack->counters, COUNTER_tcp_sack_reneges);
        board->count = 0;
        flow->retransmit_next = flow->snd_una;
    }
    if (board->count == 0)
        tcp_scoreboard_clear(flow);
    else
        scoreboard_count(board);
}

void tcp_sack_received(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_options *options)
{
    for (uint8_t i = 0; i < options->sack_count; i++) {
        struct tcp_sack_block block = options->sack[i];

        /* Duplicate SACKs (RFC 2883) and nonsense lie outside (snd_una, snd_max]. */
        if (!seq_lt(block.start, block.end) || seq_leq(block.start, flow->snd_una) ||
            seq_lt(flow->snd_max, block.end))
            continue;
        if (!flow->sacked && !(flow->sacked = calloc(1, sizeof *flow->sacked))) {
            count(tcp->stack->counters, COUNTER_tcp_no_memory);
            return; /* repaired by duplicate ACKs or the timeout */
        }
        scoreboard_add(flow->sacked, block);
    }
    if (flow->sacked)
        scoreboard_count(flow->sacked);
}

/* ---- recovery
 * ---------------------------------------------------------------------------------------- */

static uint32_t in_flight(const struct tcp_flow *flow)
{
    return flow->snd_max - flow->snd_una;
}

static void cwnd_after_loss(struct tcp_flow *flow)
{
    uint32_t half = in_flight(flow) / 2;

    flow->ssthresh = half > CWND_MIN ? half : CWND_MIN;
}

static void cwnd_grow(struct tcp_flow *flow, uint32_t acked)
{
    uint32_t step = acked;

    if (flow->cwnd >= TCP_SEND_CAP)
        return;
    if (flow->cwnd >= flow->ssthresh && acked / 16 >= flow->mss)
        step = acked / 16;
    else if (flow->cwnd >= flow->ssthresh)
        step = flow->mss;
    flow->cwnd = flow->cwnd + step > TCP_SEND_CAP ? TCP_SEND_CAP : flow->cwnd + step;
}

static bool loss_is_likely(const struct tcp_flow *flow)
{
    const struct tcp_scoreboard *board = flow->sacked;

    if (flow->duplicate_acks >= DUPLICATE_ACKS)
        return true;
    if (!board)
        return false;
    return flow->tail_probe_used || board->range[board->count - 1].end - flow->snd_una >
                                        (uint32_t)DUPLICATE_ACKS * flow->mss;
}

static void recovery_begin(struct tcp *tcp, struct tcp_flow *flow)
{
    count(tcp->stack->counters, COUNTER_tcp_fast_retransmits);
    flow->in_recovery = true;
    flow->recovery_point = flow->snd_max;
    flow->retransmit_next = flow->snd_una;
    flow->recovery_at = tcp->stack->now;
    cwnd_after_loss(flow);
    flow->cwnd = flow->ssthresh;
}

/* The data in [from, until) that the guest has not SACKed, first hole only. Empty: none. */
static struct tcp_sack_block first_hole(const struct tcp_flow *flow, uint32_t from, uint32_t until)
{
    const struct tcp_scoreboard *board = flow->sacked;

    for (uint32_t i = 0; board && i < board->count; i++) {
        if (seq_lt(from, board->range[i].start)) {
            until = seq_min(until, board->range[i].start);
            break;
        }
        from = seq_max(from, board->range[i].end);
    }
    return (struct tcp_sack_block){from, seq_lt(from, until) ? until : from};
}

void tcp_recovery_continue(struct tcp *tcp, struct tcp_flow *flow)
{
    uint64_t round = flow->srtt_us * UINT64_C(2000);
    uint32_t budget = flow->cwnd;
    uint32_t until;

    if (flow->sacked)
        until = flow->sacked->range[flow->sacked->count - 1].end;
    else
        until = flow->snd_una + tcp_frame_payload_max(tcp, flow);
    until = seq_min(until, flow->recovery_point);
    until = seq_min(until, flow->snd_end); /* not FIN, which the timeout repeats */

    if (round < RECOVERY_ROUND_MIN)
        round = RECOVERY_ROUND_MIN;
    if (tcp->stack->now - flow->recovery_at > round) {
        flow->retransmit_next = flow->snd_una; /* the repairs were lost too */
        flow->recovery_at = tcp->stack->now;
    }
    flow->retransmit_next = seq_max(flow->retransmit_next, flow->snd_una);
    while (seq_lt(flow->retransmit_next, until) && budget > 0) {
        struct tcp_sack_block hole = first_hole(flow, flow->retransmit_next, until);
        uint32_t len = hole.end - hole.start;

        if (len > budget)
            len = budget;
        if (len == 0 || !tcp_send_range(tcp, flow, hole.start, len))
            return;
        flow->retransmit_next = hole.start + len;
        budget -= len;
    }
}

void tcp_recovery_ack(struct tcp *tcp, struct tcp_flow *flow, uint32_t acked, bool duplicate)
{
    if (acked > 0) {
        flow->duplicate_acks = 0;
        flow->tail_probe_used = false;
        scoreboard_advance(tcp, flow);
        if (flow->in_recovery && seq_leq(flow->recovery_point, flow->snd_una))
            flow->in_recovery = false;
        if (!flow->in_recovery)
            cwnd_grow(flow, acked);
        else if (!flow->sacked)
            flow->retransmit_next = flow->snd_una; /* a partial ACK: the next hole (RFC 6582) */
    } else if (duplicate && flow->duplicate_acks < DUPLICATE_ACKS) {
        flow->duplicate_acks++;
    }
    if (!flow->in_recovery && in_flight(flow) > 0 && loss_is_likely(flow) &&
        seq_leq(flow->snd_max, flow->snd_nxt))
        recovery_begin(tcp, flow);
    if (flow->in_recovery)
        tcp_recovery_continue(tcp, flow);
}

void tcp_recovery_timeout(struct tcp *tcp, struct tcp_flow *flow)
{
    count(tcp->stack->counters, COUNTER_tcp_timeouts);
    if (flow->sacked)
        count(tcp->stack->counters, COUNTER_tcp_sack_reneges);
    tcp_scoreboard_clear(flow);
    cwnd_after_loss(flow);
    flow->cwnd = tcp_frame_payload_max(tcp, flow);
    flow->in_recovery = false;
    flow->duplicate_acks = 0;
    flow->tail_probe_used =
        true; /* the timeout is due again, not a probe, until there is progress */
    flow->rtt_timing = false;
    flow->snd_nxt = flow->snd_una;
    flow->send_cursor = NULL;
}
