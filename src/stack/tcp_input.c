/* SPDX-License-Identifier: Apache-2.0 */
/* Segments from the guest: RFC 9293, 3.10.7, with RFC 5961's checks, RFC 7323's timestamps and RFC
 * 2018's SACK.
 *
 * A segment is parsed and checked once, matched to its flow, trimmed to the window we offered, and
 * then gives in turn its ACK, its bytes and its FIN. */

#include "stack/tcp_internal.h"

#include "base/hash.h"

#define WINDOW_ACK_EVERY    (10 * MS_NS) /* answers to unacceptable segments without data, a flow */
#define CHALLENGES_A_SECOND 1000         /* RFC 5961, 7 */

static void drop(struct tcp *tcp, enum counter reason)
{
    count(tcp->stack->counters, reason);
}

/* ---- parsing
 * ----------------------------------------------------------------------------------------- */

static bool segment_parse(struct stack *stack, const struct ip_packet *packet,
                          struct tcp_segment *ret, struct flow_key *ret_key)
{
    uint8_t scratch[TCP_HEADER_MAX];
    const uint8_t *p = ip_packet_linear(packet, packet->offset, TCP_HEADER_MIN, scratch);

    if (!p || packet->len < TCP_HEADER_MIN || !tcp_header_parse(p, packet->len, &ret->header)) {
        count(stack->counters, COUNTER_tcp_malformed);
        return false;
    }
    if (!ip_packet_checksum_ok(packet)) {
        count(stack->counters, COUNTER_tcp_bad_checksum);
        return false;
    }
    size_t header_len = ret->header.header_len;
    p = ip_packet_linear(packet, packet->offset, header_len, scratch);
    /* A broken option ends the list; what stood before it counts (as Linux does). */
    if (!p) {
        count(stack->counters, COUNTER_tcp_malformed);
        return false;
    }
    tcp_options_parse(p + TCP_HEADER_MIN, header_len - TCP_HEADER_MIN, &ret->options);
    ret->packet = packet;
    ret->seq = ret->header.seq;
    ret->len = (uint32_t)(packet->len - header_len);
    ret->payload = packet->offset + header_len;
    ret->fin = ret->header.flags & TCP_FIN;
    *ret_key = (struct flow_key){.guest = packet->source,
                                 .remote = packet->destination,
                                 .guest_port = ret->header.source_port,
                                 .remote_port = ret->header.destination_port,
                                 .protocol = IPPROTO_TCP};
    return true;
}

/* ---- opening
 * ----------------------------------------------------------------------------------------- */

/* What the guest's SYN or SYN-ACK agrees on; our own SYN offers everything. */
static void syn_options(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_segment *segment)
{
    const struct tcp_options *options = &segment->options;
    bool v4 = ip_address_is_v4(&flow->key.guest);

    flow->irs = segment->seq;
    flow->rcv_nxt = flow->rcv_acked = flow->rcv_adv = segment->seq + 1;
    flow->rcv_grown_at = flow->rcv_nxt;
    flow->peer_mss = options->mss ? options->mss : v4 ? TCP_MSS_DEFAULT : 1220;
    flow->snd_shift = options->window_shift > 0 ? (uint8_t)options->window_shift : 0;
    flow->rcv_shift = options->window_shift >= 0 ? TCP_WINDOW_SHIFT : 0;
    flow->sack_ok = options->sack_permitted;
    flow->timestamps = options->timestamp;
    flow->ts_recent = options->timestamp ? options->ts_value : 0;
    flow->snd_wnd = segment->header.window; /* never scaled in a SYN */
    flow->snd_wnd_max = flow->snd_wnd;
    flow->snd_wl1 = segment->seq;
    tcp_update_mss(tcp, flow);
}

/* RFC 6528: a keyed hash of the flow, and a clock. */
void tcp_send_state_init(struct tcp *tcp, struct tcp_flow *flow)
{
    uint64_t hash = hash_bytes(tcp->stack->config.hash_key, &flow->key, sizeof flow->key);

    flow->ts_offset = (uint32_t)(hash >> 32) * 0x9e3779b1u;
    flow->iss = (uint32_t)(hash >> 16) * 0x85ebca6bu + (uint32_t)(tcp->stack->now / 4000);
    flow->snd_una = flow->iss;
    flow->snd_nxt = flow->snd_max = flow->snd_end = flow->iss + 1;
    flow->snd_wl2 = flow->iss;
    flow->cwnd = TCP_SEND_CAP;
    flow->ssthresh = TCP_SEND_CAP;
}

static void syn_input(struct tcp *tcp, const struct tcp_segment *segment,
                      const struct flow_key *key)
{
    struct stack *stack = tcp->stack;
    struct tcp_flow *flow = tcp_flow_new(tcp, key);

    if (!flow)
        return;
    count(stack->counters, COUNTER_tcp_flows_opened);
    if (segment->len > 0)
        count(stack->counters, COUNTER_tcp_syn_data);
    tcp_flow_connect_begins(tcp, flow);
    tcp_send_state_init(tcp, flow);
    syn_options(tcp, flow, segment);
    tcp_timer_update(tcp, flow);
    stack->ops.tcp_open(stack->ctx, tcp_flow_handle(flow), key); /* may end the flow */
}

/* The guest retries while the host connects. It may be another guest by now, with another ISN. */
static void connecting_input(struct tcp *tcp, struct tcp_flow *flow,
                             const struct tcp_segment *segment)
{
    uint8_t flags = segment->header.flags & (TCP_SYN | TCP_ACK | TCP_RST);

    if (flags == TCP_SYN)
        syn_options(tcp, flow, segment);
    else if ((flags & TCP_RST) && segment->seq == flow->rcv_nxt)
        tcp_guest_reset(tcp, flow);
}

static void flow_opened(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_segment *segment)
{
    count(tcp->stack->counters, COUNTER_tcp_flows_established);
    if (flow->rtt_timing)
        tcp_rtt_sample(flow, tcp->stack->now - flow->rtt_start);
    flow->rtt_timing = false;
    flow->state = TCP_OPEN;
    flow->snd_una = flow->iss + 1;
    flow->snd_wl1 = segment->seq;
    flow->snd_wl2 = segment->header.ack;
    flow->tries = 0;
    flow->backoff = 0;
    flow->lifetime_at = tcp->stack->now + TCP_IDLE_PROBE;
    tcp_timer_retransmit(tcp, flow, true);
    tcp_timer_update(tcp, flow);
}

/* The guest answers our SYN (published ports). */
static void syn_sent_input(struct tcp *tcp, struct tcp_flow *flow,
                           const struct tcp_segment *segment)
{
    uint8_t flags = segment->header.flags;

    if ((flags & TCP_ACK) && segment->header.ack != flow->iss + 1) {
        drop(tcp, COUNTER_tcp_bad_ack);
        if (!(flags & TCP_RST))
            tcp_answer_reset(tcp->stack, &flow->key, segment);
        return;
    }
    if (flags & TCP_RST) {
        if (flags & TCP_ACK)
            tcp_guest_reset(tcp, flow);
        return;
    }
    if ((flags & (TCP_SYN | TCP_ACK)) != (TCP_SYN | TCP_ACK))
        return; /* simultaneous opens do not happen here: the remote is ours */
    syn_options(tcp, flow, segment);
    flow_opened(tcp, flow, segment);
    flow->ack_owed = true; /* goes with the client's first bytes, if they are there */
    tcp_flow_touch(tcp, flow);
    tcp_maybe_resume(tcp, flow);
}

/* ---- acceptability
 * ----------------------------------------------------------------------------------- */

/* An ACK that says where we are, at most every 10 ms: two sides that both find the other's segments
 * unacceptable must not answer each other for ever. */
static void window_ack(struct tcp *tcp, struct tcp_flow *flow, bool limited)
{
    uint64_t now = tcp->stack->now;

    if (limited && flow->window_ack_at != 0 && now - flow->window_ack_at < WINDOW_ACK_EVERY)
        return;
    flow->window_ack_at = now;
    tcp_send_ack(tcp, flow);
}

static void challenge_ack(struct tcp *tcp, struct tcp_flow *flow)
{
    uint64_t window = tcp->stack->now / SECOND_NS;

    if (tcp->challenge_window != window) {
        tcp->challenge_window = window;
        tcp->challenges = 0;
    }
    if (tcp->challenges++ >= CHALLENGES_A_SECOND)
        return;
    count(tcp->stack->counters, COUNTER_tcp_challenge_ack);
    tcp_send_ack(tcp, flow);
}

/* RFC 7323, 5.3. False: too old. */
static bool timestamp_ok(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_segment *segment)
{
    const struct tcp_options *options = &segment->options;

    if (!flow->timestamps || !options->timestamp)
        return true;
    if (seq_lt(options->ts_value, flow->ts_recent)) {
        drop(tcp, COUNTER_tcp_paws);
        window_ack(tcp, flow, segment->len == 0);
        return false;
    }
    if (seq_leq(segment->seq, flow->rcv_acked))
        flow->ts_recent = options->ts_value;
    return true;
}

/* Cuts off what was received before. False: that is all of it. */
static bool trim_old(struct tcp *tcp, struct tcp_flow *flow, struct tcp_segment *segment)
{
    uint32_t old = flow->rcv_nxt - segment->seq;

    if (seq_leq(flow->rcv_nxt, segment->seq))
        return true;
    if (old >= segment->len + segment->fin) {
        bool probe =
            segment->len <= 1 && old == 1 && !segment->fin; /* a keepalive, RFC 9293, 3.8.4 */

        if (probe && !flow->keepalive_seen && flow->upstream && flow->upstream->keepalive) {
            flow->keepalive_seen = true;
            flow->upstream->keepalive(flow->upstream_ctx, flow->token);
        }
        if (!probe)
            drop(tcp, COUNTER_tcp_duplicate);
        window_ack(tcp, flow, segment->len == 0 && !segment->fin);
        segment->len = 0;
        segment->fin = false;
        return false;
    }
    if (old > segment->len)
        old = segment->len;
    segment->seq += old;
    segment->len -= old;
    segment->payload += old;
    return true;
}

/* RFC 9293, 3.10.7.4: what begins beyond the window is answered and dropped with all it says. */
static bool begins_beyond(const struct tcp_flow *flow, const struct tcp_segment *segment)
{
    return seq_lt(flow->rcv_adv, segment->seq);
}

/* Cuts off what lies beyond the window. False: that is all of it. */
static bool trim_beyond(struct tcp *tcp, struct tcp_flow *flow, struct tcp_segment *segment)
{
    uint32_t end = segment->seq + segment->len;

    if (seq_leq(end, flow->rcv_adv))
        return true;
    drop(tcp, COUNTER_tcp_beyond_window);
    segment->fin = false;
    if (!seq_lt(segment->seq, flow->rcv_adv)) {
        window_ack(tcp, flow, segment->len == 0);
        segment->len = 0;
        return segment->seq == flow->rcv_nxt; /* the window is shut, but its ACK counts */
    }
    segment->len = flow->rcv_adv - segment->seq;
    flow->ack_owed = true;
    tcp_flow_touch(tcp, flow);
    return true;
}

/* RST and SYN in a synchronised state (RFC 5961, 3 and 4). True: handled, the segment is done with.
 */
static bool control_input(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_segment *segment)
{
    if (segment->header.flags & TCP_RST) {
        if (segment->seq == flow->rcv_nxt) {
            tcp_guest_reset(tcp, flow);
        } else {
            drop(tcp, COUNTER_tcp_bad_rst);
            /* The edge too: the guest may have filled the window, and not all has arrived. */
            if (seq_lt(flow->rcv_nxt, segment->seq) && seq_leq(segment->seq, flow->rcv_adv))
                challenge_ack(tcp, flow);
        }
        return true;
    }
    if (!(segment->header.flags & TCP_SYN))
        return false;
    if (flow->state == TCP_SYN_RECEIVED && segment->seq == flow->irs &&
        !(segment->header.flags & TCP_ACK))
        tcp_send_syn(tcp, flow); /* our answer was lost */
    else
        challenge_ack(tcp, flow);
    return true;
}

/* ---- acknowledgements
 * -------------------------------------------------------------------------------- */

/* RFC 5961, 5.2. */
static bool ack_acceptable(struct tcp *tcp, struct tcp_flow *flow, uint32_t ack)
{
    if (seq_leq(ack, flow->snd_max) && seq_leq(flow->snd_una - flow->snd_wnd_max, ack))
        return true;
    drop(tcp, COUNTER_tcp_bad_ack);
    challenge_ack(tcp, flow);
    return false;
}

/* Takes what the guest acknowledges off the queue. */
static void ack_advance(struct tcp *tcp, struct tcp_flow *flow, uint32_t ack)
{
    if (flow->rtt_timing && seq_lt(flow->rtt_seq, ack)) {
        tcp_rtt_sample(flow, tcp->stack->now - flow->rtt_start);
        flow->rtt_timing = false;
    }
    flow->snd_una = ack;
    if (seq_lt(flow->snd_nxt, ack)) { /* sent before a timeout, arrived after all */
        flow->snd_nxt = ack;
        flow->send_cursor = NULL;
    }
    if (flow->send_cursor && seq_leq(flow->send_cursor->seq + flow->send_cursor->len, ack))
        flow->send_cursor = NULL;
    tcp_queue_drop_until(tcp, &flow->unacked, seq_min(ack, flow->snd_end));
    if (flow->fin_sent && ack == flow->snd_end + 1) {
        flow->fin_acked = true;
        if (tcp_guest_is_done(flow))
            tcp_farewell_begins(tcp, flow);
    }
    flow->backoff = 0;
}

/* Whether the window changed. RFC 9293, 3.10.7.4, but a repeated segment that acknowledges more
 * than was acknowledged also tells the window: the old one would reach beyond its right edge. */
static bool window_follow(struct tcp_flow *flow, const struct tcp_segment *segment)
{
    uint32_t ack = segment->header.ack;
    uint32_t window = (uint32_t)segment->header.window << flow->snd_shift;

    if (seq_lt(ack, flow->snd_una))
        return false;
    if (!seq_lt(flow->snd_una, ack) && !seq_lt(flow->snd_wl1, segment->seq) &&
        !(flow->snd_wl1 == segment->seq && seq_leq(flow->snd_wl2, ack)))
        return false;
    bool changed = window != flow->snd_wnd;
    flow->snd_wnd = window;
    flow->snd_wl1 = seq_max(flow->snd_wl1, segment->seq);
    flow->snd_wl2 = ack;
    if (window > flow->snd_wnd_max)
        flow->snd_wnd_max = window;
    return changed;
}

/* False: the flow is gone. */
static bool ack_input(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_segment *segment)
{
    uint32_t ack = segment->header.ack;
    uint32_t acked = seq_lt(flow->snd_una, ack) ? ack - flow->snd_una : 0;
    bool window_changed = window_follow(flow, segment);

    if (acked > 0)
        ack_advance(tcp, flow, ack);
    else if (window_changed && flow->snd_wnd > 0 && flow->snd_max == flow->snd_una)
        flow->backoff = 0; /* it was a probe's: nothing has been lost */
    if (flow->sack_ok && segment->options.sack_count > 0)
        tcp_sack_received(tcp, flow, &segment->options);
    bool duplicate = acked == 0 && ack == flow->snd_una && segment->len == 0 && !window_changed &&
                     !segment->fin && flow->snd_max != flow->snd_una;
    if (acked > 0 || duplicate || flow->in_recovery || flow->sacked)
        tcp_recovery_ack(tcp, flow, acked, duplicate);
    if (acked > 0 || window_changed)
        tcp_timer_retransmit(tcp, flow, true);

    if (flow->state == TCP_RESETTING) {
        tcp_output(tcp, flow);
        if (flow->unacked.bytes > 0 && flow->snd_wnd > 0)
            return true;
        tcp_reset_guest(tcp, flow);
        return false;
    }
    if (tcp_maybe_finish(tcp, flow))
        return false;
    if (acked > 0 || window_changed) {
        tcp_output(tcp, flow);
        tcp_maybe_resume(tcp, flow);
    }
    return true;
}

/* ---- data
 * -------------------------------------------------------------------------------------------- */

static void fin_take(struct tcp *tcp, struct tcp_flow *flow)
{
    flow->fin_pending = false;
    flow->guest_fin = true;
    flow->time_wait_due = flow->fin_sent;
    flow->rcv_nxt++;
    flow->rcv_adv = seq_max(flow->rcv_adv, flow->rcv_nxt);
    flow->ack_owed = true;
    tcp_flow_touch(tcp, flow);
    if (tcp_guest_is_done(flow))
        tcp_farewell_begins(tcp, flow);
}

/* A flow whose host takes everything is not held up by those whose hosts do not. What the host
 * takes may also end the flow. */
static bool budget_allows(struct tcp *tcp, struct tcp_flow *flow, uint32_t len)
{
    if (tcp->queued + len <= tcp->queue_budget)
        return true;
    if (flow->for_host.bytes > 0 && !flow->write_blocked)
        tcp_flush_to_host(tcp, flow);
    return flow->state == TCP_OPEN && flow->for_host.bytes == 0;
}

static void data_in_order(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_segment *segment)
{
    if (!budget_allows(tcp, flow, segment->len) ||
        !tcp_queue_append_frame(tcp, &flow->for_host, segment->seq, segment->packet->frame,
                                segment->payload, segment->len)) {
        if (flow->state == TCP_OPEN)
            drop(tcp, COUNTER_tcp_no_memory); /* not acknowledged, so it comes again */
        return;
    }
    tcp->queued += segment->len;
    flow->rcv_nxt += segment->len;
    if (flow->out_of_order.head)
        tcp_out_of_order_release(tcp, flow);
    flow->ack_owed = true;
    tcp_flow_touch(tcp, flow);
}

static void data_input(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_segment *segment)
{
    if (flow->state != TCP_OPEN || flow->guest_fin)
        return;
    if (segment->fin) {
        flow->fin_pending = true;
        flow->fin_seq = segment->seq + segment->len;
    }
    if (segment->len > 0 && segment->seq == flow->rcv_nxt) {
        data_in_order(tcp, flow, segment);
    } else if (segment->len > 0) {
        tcp_out_of_order_keep(tcp, flow, segment);
        tcp_send_ack(tcp, flow); /* at once: the guest counts these (RFC 5681, 4.2) */
    }
    if (flow->state != TCP_OPEN)
        return;
    if (flow->fin_pending && flow->fin_seq == flow->rcv_nxt)
        fin_take(tcp, flow);
    if (flow->for_host.bytes >= TCP_FLUSH_BYTES && !flow->write_blocked)
        tcp_flush_to_host(tcp, flow);
}

static void open_input(struct tcp *tcp, struct tcp_flow *flow, struct tcp_segment *segment)
{
    bool rst = segment->header.flags & TCP_RST;

    if (!rst && !timestamp_ok(tcp, flow, segment))
        return;
    if (control_input(tcp, flow, segment))
        return;
    flow->heard_at = tcp->stack->now;
    flow->tries = 0;
    if (!(segment->header.flags & TCP_ACK))
        return;
    if (begins_beyond(flow, segment)) {
        drop(tcp, COUNTER_tcp_beyond_window);
        window_ack(tcp, flow, segment->len == 0);
        return;
    }
    /* An old segment's ACK may still be new, as when the guest repeats a FIN. */
    bool acceptable = trim_old(tcp, flow, segment) && trim_beyond(tcp, flow, segment);
    if (flow->state == TCP_SYN_RECEIVED) {
        /* RFC 9293, 3.10.7.4. An old segment may open too: a keepalive, if the guest's ACK was
         * lost. */
        if (segment->header.ack != flow->iss + 1) {
            if (acceptable)
                tcp_answer_reset(tcp->stack, &flow->key, segment);
            return;
        }
        flow_opened(tcp, flow, segment);
        flow->snd_wnd = 0; /* until window_follow() has it scaled */
    }
    if (!ack_acceptable(tcp, flow, segment->header.ack))
        return;
    if (!ack_input(tcp, flow, segment))
        return;
    if (acceptable)
        data_input(tcp, flow, segment);
}

/* The guest has closed in both directions: its port is its own again. A RST means nothing any more
 * (what it sent still goes to the host, in order), and a new SYN begins a flow beside this one. */
static void closed_input(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_segment *segment,
                         const struct flow_key *key)
{
    uint8_t flags = segment->header.flags;
    bool newer =
        seq_lt(flow->rcv_nxt, segment->seq) || (flow->timestamps && segment->options.timestamp &&
                                                seq_lt(flow->ts_recent, segment->options.ts_value));

    if (segment->fin && flow->state == TCP_TIME_WAIT)
        flow->lifetime_at = tcp->stack->now + TCP_TIME_WAIT_LENGTH; /* our ACK was lost */
    if (flags & TCP_RST) {
        if (flow->state == TCP_TIME_WAIT && segment->seq == flow->rcv_nxt)
            tcp_flow_free(tcp, flow);
        else if (segment->seq == flow->rcv_nxt)
            tcp_flow_leave_table(tcp, flow); /* whatever its next SYN looks like */
    } else if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && newer) {
        /* RFC 9293, 3.6.1; RFC 6191 */
        if (flow->state == TCP_TIME_WAIT)
            tcp_flow_free(tcp, flow);
        else
            tcp_flow_leave_table(tcp, flow);
        syn_input(tcp, segment, key);
    } else {
        window_ack(tcp, flow, segment->len == 0 && !segment->fin);
    }
}

/* It is reset as soon as the link has room, unless it knows, or has begun anew. */
static void reset_owed_input(struct tcp *tcp, struct tcp_flow *flow,
                             const struct tcp_segment *segment, const struct flow_key *key)
{
    uint8_t flags = segment->header.flags & (TCP_SYN | TCP_ACK | TCP_RST);

    if (!(flags & TCP_RST) && flags != TCP_SYN)
        return;
    tcp_flow_free(tcp, flow);
    if (flags == TCP_SYN)
        syn_input(tcp, segment, key);
}

void tcp_input(struct stack *stack, const struct ip_packet *packet)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_segment segment;
    struct flow_key key;

    if (!segment_parse(stack, packet, &segment, &key))
        return;
    struct tcp_flow *flow = tcp_flow_find(tcp, &key);
    if (!flow) {
        uint8_t flags = segment.header.flags & (TCP_SYN | TCP_ACK | TCP_RST);

        if (flags == TCP_SYN) {
            syn_input(tcp, &segment, &key);
        } else if (!(flags & TCP_RST)) {
            drop(tcp, COUNTER_tcp_no_flow);
            tcp_answer_reset(stack, &key, &segment);
        }
        return;
    }
    switch (flow->state) {
    case TCP_CONNECTING:
        connecting_input(tcp, flow, &segment);
        break;
    case TCP_SYN_SENT:
        syn_sent_input(tcp, flow, &segment);
        break;
    case TCP_TIME_WAIT:
        closed_input(tcp, flow, &segment, &key);
        break;
    case TCP_RESET_OWED:
        reset_owed_input(tcp, flow, &segment, &key);
        break;
    default:
        if (tcp_guest_is_done(flow))
            closed_input(tcp, flow, &segment, &key);
        else
            open_input(tcp, flow, &segment);
        break;
    }
}
