/* SPDX-License-Identifier: Apache-2.0 */
/* Segments towards the guest.
 *
 * A segment is a frame whose headers are its own and whose payload is references into `unacked`:
 * sending again costs a header. Up to 64 KiB go out as one super-segment, whatever the MTU; a
 * netdev whose guest does not take these cuts them. Nothing is copied and no checksum is computed
 * here.
 *
 * When the link is full the flow waits (tcp_flow_wait_for_link) and nothing has changed: snd_nxt
 * moves only when a frame was taken. */

#include <assert.h>

#include "stack/tcp_internal.h"

#define SEGMENT_PIECES 64 /* views into buffers, a frame */
#define SACK_LEN_MAX   36 /* four blocks and padding */

struct piece_list {
    struct culvert_segment piece[SEGMENT_PIECES];
    uint16_t count;
    uint32_t bytes;
};

void tcp_update_mss(struct tcp *tcp, struct tcp_flow *flow)
{
    bool v4 = ip_address_is_v4(&flow->key.guest);
    uint32_t most = tcp->stack->link.mtu - (v4 ? 40 : 60);
    uint32_t mss = flow->peer_mss < most ? flow->peer_mss : most;

    if (mss < TCP_MSS_MIN)
        mss = TCP_MSS_MIN;
    flow->mss = (uint16_t)(mss - (flow->timestamps ? TCP_TIMESTAMP_LEN : 0));
}

uint32_t tcp_frame_payload_max(const struct tcp *tcp, const struct tcp_flow *flow)
{
    uint32_t most = 65535 - 20 - TCP_HEADER_MAX;

    (void)tcp;
    return flow->mss >= most ? flow->mss : most - most % flow->mss;
}

uint32_t tcp_send_window(const struct tcp_flow *flow)
{
    uint32_t cwnd = flow->cwnd + (flow->sacked ? flow->sacked->bytes : 0);

    return flow->snd_wnd < cwnd ? flow->snd_wnd : cwnd;
}

/* ---- the window we offer
 * ----------------------------------------------------------------------------- */

/* A window is a promise: what is dropped in spite of it comes again when the guest's RTO says so,
 * which doubles each time. So promises are made within the budget. Every flow has a small one, and
 * gets more while its guest makes use of it and its host takes everything; an eighth of what is
 * left at most, so that there is always something left, and a quarter of the budget stays for the
 * small ones. */
static void allowance_follow(const struct tcp *tcp, struct tcp_flow *flow)
{
    size_t budget = tcp->queue_budget / 4 * 3, taken = tcp->queued + tcp->promised;
    size_t most = taken < budget ? (budget - taken) / 8 : 0;

    if (flow->rcv_nxt - flow->rcv_grown_at < flow->rcv_allowance / 2 || flow->for_host.bytes > 0 ||
        flow->rcv_allowance >= TCP_FLOW_QUEUE_BYTES || flow->rcv_allowance * 2 > most)
        return;
    flow->rcv_allowance *= 2;
    flow->rcv_grown_at = flow->rcv_nxt;
}

static void promise_follow(struct tcp *tcp, struct tcp_flow *flow)
{
    uint32_t window = flow->guest_fin ? 0 : flow->rcv_adv - flow->rcv_nxt;
    uint32_t promised = window > TCP_FLOW_QUEUE_LOW ? window - TCP_FLOW_QUEUE_LOW : 0;

    tcp->promised = tcp->promised - flow->rcv_promised + promised;
    flow->rcv_promised = promised;
}

static uint32_t receive_window_max(const struct tcp_flow *flow)
{
    uint32_t scaled_max = 65535u << flow->rcv_shift;

    return flow->rcv_allowance < scaled_max ? flow->rcv_allowance : scaled_max;
}

uint32_t tcp_receive_window(const struct tcp_flow *flow)
{
    uint32_t most = receive_window_max(flow);

    return flow->for_host.bytes >= most ? 0 : most - flow->for_host.bytes;
}

bool tcp_window_update_due(const struct tcp_flow *flow)
{
    uint32_t known = flow->rcv_adv - flow->rcv_nxt;
    uint32_t window = tcp_receive_window(flow);
    uint32_t most = receive_window_max(flow);
    uint32_t worth = known < flow->mss && 2u * flow->mss < most / 4 ? 2u * flow->mss : most / 4;

    if (flow->guest_fin)
        return false; /* it has nothing more to send, and may be gone: it would answer with RST */
    /* RFC 9293, 3.8.6.2.2: not before it is worth a segment or a good part of the whole. */
    return window >= known + worth;
}

/* The header's window field; moves rcv_adv. The right edge never moves left, not even by the
 * rounding, and right by no crumbs (RFC 9293, 3.8.6.2.2). */
static uint16_t advertise(struct tcp *tcp, struct tcp_flow *flow, uint8_t shift)
{
    allowance_follow(tcp, flow);
    uint32_t known = flow->rcv_adv - flow->rcv_nxt;
    uint32_t window = tcp_receive_window(flow);
    uint32_t quarter = receive_window_max(flow) / 4;
    uint32_t worth = flow->mss < quarter ? flow->mss : quarter;
    uint32_t field = (window < known + worth ? known : window) >> shift;

    if (field << shift < known)
        field = (known + (1u << shift) - 1) >> shift;
    if (field > 65535)
        field = 65535;
    if (field == 0 && known != 0)
        count(tcp->stack->counters, COUNTER_tcp_window_closed);
    flow->rcv_adv = flow->rcv_nxt + (field << shift);
    promise_follow(tcp, flow);
    return (uint16_t)field;
}

/* ---- frames
 * ------------------------------------------------------------------------------------------ */

static uint32_t timestamp_now(const struct tcp *tcp, const struct tcp_flow *flow)
{
    return (uint32_t)(tcp->stack->now / MS_NS) + flow->ts_offset;
}

/* `mss` leaves room for timestamps; SACKs ride only where they fit too (RFC 6691, 2). They are
 * never lost by that: a segment out of order has an ACK of its own. */
static void fill_options(const struct tcp *tcp, const struct tcp_flow *flow, uint32_t payload_len,
                         struct tcp_options *ret)
{
    ret->mss = 0;
    ret->window_shift = -1;
    ret->sack_permitted = false;
    ret->sack_count = 0;
    ret->timestamp = flow->timestamps;
    if (flow->timestamps) {
        ret->ts_value = timestamp_now(tcp, flow);
        ret->ts_echo = flow->ts_recent;
    }
    if (flow->sack_ok && flow->out_of_order.head && payload_len + SACK_LEN_MAX <= flow->mss)
        tcp_out_of_order_sacks(flow, ret);
}

static void fill_ip_header(const struct flow_key *key, struct ip_header *ret)
{
    *ret = (struct ip_header){.source = key->remote,
                              .destination = key->guest,
                              .protocol = IPPROTO_TCP,
                              .ttl = 64,
                              .dont_fragment = true};
}

/* Builds and sends one frame. False: the link is full; nothing has changed. If no frame can be had
 * the segment is as good as lost on the link, and repaired as that is: nobody would tell when there
 * are frames again. */
static bool send_frame(struct stack *stack, const struct flow_key *key,
                       const struct tcp_header *header, const struct tcp_options *options,
                       const struct piece_list *payload, uint16_t mss)
{
    struct ip_header ip;
    uint32_t payload_len = payload ? payload->bytes : 0;
    size_t transport_len = tcp_header_size(options) + payload_len;

    fill_ip_header(key, &ip);
    struct culvert_frame *frame = ip_frame_new(stack, &ip, transport_len);
    if (!frame) {
        count(stack->counters, COUNTER_tcp_no_memory);
        return true;
    }
    frame->offload.flags = CULVERT_OFFLOAD_NEEDS_CSUM;
    frame->offload.csum_start = (uint16_t)frame->len;
    frame->offload.csum_offset = 16;
    frame->len += tcp_header_write(frame->data + frame->len, header, options,
                                   ip_pseudo_sum(&ip, transport_len));
    frame->offload.hdr_len = (uint16_t)frame->len;
    if (payload_len > mss) {
        frame->offload.gso_type =
            ip_address_is_v4(&key->guest) ? CULVERT_GSO_TCPV4 : CULVERT_GSO_TCPV6;
        frame->offload.gso_size = mss;
    }
    for (uint16_t i = 0; payload && i < payload->count; i++) {
        const struct culvert_segment *piece = &payload->piece[i];
        int r = culvert_frame_append(frame, piece->buffer, piece->base, piece->len);
        assert(r == 0 && "FRAME_SEGMENTS exceeds SEGMENT_PIECES");
        (void)r;
    }
    if (stack_send_frame(stack, frame) == 0)
        return true;
    culvert_frame_unref(frame);
    return false;
}

/* A segment of a flow; whatever it carries, it acknowledges too. */
static bool send_segment(struct tcp *tcp, struct tcp_flow *flow, uint32_t seq, uint8_t flags,
                         const struct piece_list *payload)
{
    struct tcp_options options;
    struct tcp_header header = {
        .source_port = flow->key.remote_port,
        .destination_port = flow->key.guest_port,
        .seq = seq,
        .ack = flow->rcv_nxt,
        .flags = flags | TCP_ACK,
    };
    uint32_t edge = flow->rcv_adv;

    fill_options(tcp, flow, payload ? payload->bytes : 0, &options);
    header.window = advertise(tcp, flow, flow->rcv_shift);
    if (!send_frame(tcp->stack, &flow->key, &header, &options, payload, flow->mss)) {
        flow->rcv_adv = edge;
        tcp_flow_wait_for_link(tcp, flow);
        return false;
    }
    flow->ack_owed = false;
    flow->rcv_acked = flow->rcv_nxt;
    return true;
}

bool tcp_send_syn(struct tcp *tcp, struct tcp_flow *flow)
{
    bool answer = flow->state == TCP_SYN_RECEIVED;
    uint32_t edge = flow->rcv_adv;
    bool v4 = ip_address_is_v4(&flow->key.guest);
    struct tcp_options options = {
        .mss = (uint16_t)(tcp->stack->link.mtu - (v4 ? 40 : 60)),
        .window_shift = (int8_t)(answer && flow->rcv_shift == 0 ? -1 : TCP_WINDOW_SHIFT),
        .sack_permitted = !answer || flow->sack_ok,
        .timestamp = !answer || flow->timestamps,
        .ts_value = timestamp_now(tcp, flow),
        .ts_echo = answer ? flow->ts_recent : 0,
    };
    struct tcp_header header = {
        .source_port = flow->key.remote_port,
        .destination_port = flow->key.guest_port,
        .seq = flow->iss,
        .ack = answer ? flow->rcv_nxt : 0,
        .flags = answer ? TCP_SYN | TCP_ACK : TCP_SYN,
    };
    header.window = answer ? advertise(tcp, flow, 0) : 65535;
    if (!send_frame(tcp->stack, &flow->key, &header, &options, NULL, flow->mss)) {
        flow->rcv_adv = edge;
        tcp_flow_wait_for_link(tcp, flow);
        return false;
    }
    return true;
}

void tcp_send_ack(struct tcp *tcp, struct tcp_flow *flow)
{
    flow->ack_owed = true; /* until it is sent */
    send_segment(tcp, flow, flow->snd_nxt, 0, NULL);
}

void tcp_send_window_probe(struct tcp *tcp, struct tcp_flow *flow)
{
    /* One below the window, without data: the guest must answer with its window (RFC 9293, 3.8.6.1
     * and 3.8.4). */
    count(tcp->stack->counters, COUNTER_tcp_window_probes);
    send_segment(tcp, flow, flow->snd_una - 1, 0, NULL);
}

/* Where a guest takes a RST: not before what it may have got, whose ACKs were lost, and not beyond
 * its window. One that expects it earlier asks (RFC 5961, 3.2), and is told. */
static uint32_t reset_seq(const struct tcp_flow *flow)
{
    uint32_t last = seq_min(flow->snd_max, flow->snd_una + flow->snd_wnd);

    return flow->state == TCP_CONNECTING ? 0 : seq_max(last, flow->iss + 1);
}

bool tcp_send_reset(struct tcp *tcp, struct tcp_flow *flow)
{
    struct tcp_options options = {.window_shift = -1};
    struct tcp_header header = {
        .source_port = flow->key.remote_port,
        .destination_port = flow->key.guest_port,
        .seq = reset_seq(flow),
        .ack = flow->rcv_nxt,
        .flags = TCP_RST | TCP_ACK,
    };

    return send_frame(tcp->stack, &flow->key, &header, &options, NULL, TCP_MSS_MIN);
}

void tcp_answer_reset(struct stack *stack, const struct flow_key *key,
                      const struct tcp_segment *segment)
{
    struct tcp_options options = {.window_shift = -1};
    struct tcp_header header = {
        .source_port = key->remote_port,
        .destination_port = key->guest_port,
    };

    if (segment->header.flags & TCP_ACK) {
        header.seq = segment->header.ack;
        header.flags = TCP_RST;
    } else {
        header.ack =
            segment->seq + segment->len + segment->fin + !!(segment->header.flags & TCP_SYN);
        header.flags = TCP_RST | TCP_ACK;
    }
    send_frame(stack, key, &header, &options, NULL, TCP_MSS_MIN);
}

/* ---- data
 * -------------------------------------------------------------------------------------------- */

/* Views of [seq, seq + len) of `unacked`; fewer bytes if it lies in more pieces than a frame takes.
 * Returns the chunk the last byte is in. */
static struct tcp_chunk *gather(const struct tcp_flow *flow, struct tcp_chunk *from, uint32_t seq,
                                uint32_t len, struct piece_list *ret)
{
    struct tcp_chunk *chunk = from && seq_leq(from->seq, seq) ? from : flow->unacked.head;

    ret->count = 0;
    ret->bytes = 0;
    while (chunk && seq_leq(chunk->seq + chunk->len, seq))
        chunk = chunk->next;
    for (;;) {
        assert(chunk && seq_leq(chunk->seq, seq) && "only what was committed is sent");
        uint32_t skip = seq - chunk->seq;
        uint32_t n = chunk->len - skip;

        if (n > len)
            n = len;
        ret->piece[ret->count++] =
            (struct culvert_segment){.buffer = chunk->buffer, .base = chunk->base + skip, .len = n};
        ret->bytes += n;
        seq += n;
        len -= n;
        if (len == 0 || ret->count == SEGMENT_PIECES)
            return chunk;
        chunk = chunk->next;
    }
}

bool tcp_send_range(struct tcp *tcp, struct tcp_flow *flow, uint32_t seq, uint32_t len)
{
    while (len > 0) {
        struct piece_list payload;
        uint32_t most = tcp_frame_payload_max(tcp, flow);

        gather(flow, NULL, seq, len < most ? len : most, &payload);
        bool last = seq + payload.bytes == flow->snd_end;
        bool fin = last && flow->fin_sent;
        if (!send_segment(tcp, flow, seq, (uint8_t)((last ? TCP_PSH : 0) | (fin ? TCP_FIN : 0)),
                          &payload))
            return false;
        count(tcp->stack->counters, COUNTER_tcp_retransmits);
        flow->rtt_timing = false; /* Karn: an ACK may now be for either */
        seq += payload.bytes;
        len -= payload.bytes;
    }
    return true;
}

/* RFC 9293, 3.8.6.2.1: no small segment only because the window leaves no more. */
static bool silly_segment(const struct tcp_flow *flow, uint32_t len)
{
    return len < flow->mss && seq_lt(flow->snd_nxt + len, flow->snd_end) &&
           flow->snd_nxt != flow->snd_una && len < flow->snd_wnd_max / 2;
}

/* Sends the next frame of new data and FIN. False: nothing to send, or not now. */
static bool output_next(struct tcp *tcp, struct tcp_flow *flow)
{
    uint32_t limit = flow->snd_una + tcp_send_window(flow);
    uint32_t most = tcp_frame_payload_max(tcp, flow);
    uint32_t end = seq_min(flow->snd_end, limit);
    uint32_t len = seq_lt(flow->snd_nxt, end) ? end - flow->snd_nxt : 0;
    struct piece_list payload = {.count = 0, .bytes = 0};
    uint8_t flags = 0;

    if (len > most)
        len = most;
    if (len > 0 && silly_segment(flow, len))
        return false;
    if (len > 0)
        flow->send_cursor = gather(flow, flow->send_cursor, flow->snd_nxt, len, &payload);
    if (flow->snd_nxt + payload.bytes == flow->snd_end) {
        flags |= payload.bytes ? TCP_PSH : 0;
        if (flow->host_eof && flow->state == TCP_OPEN && seq_lt(flow->snd_end, limit))
            flags |= TCP_FIN;
    }
    if (payload.bytes == 0 && !(flags & TCP_FIN))
        return false;
    if (!send_segment(tcp, flow, flow->snd_nxt, flags, &payload))
        return false;

    if (seq_lt(flow->snd_nxt, flow->snd_max)) {
        count(tcp->stack->counters, COUNTER_tcp_retransmits);
    } else if (!flow->rtt_timing) {
        flow->rtt_timing = true;
        flow->rtt_seq = flow->snd_nxt;
        flow->rtt_start = tcp->stack->now;
    }
    flow->snd_nxt += payload.bytes + !!(flags & TCP_FIN);
    flow->fin_sent |= !!(flags & TCP_FIN);
    flow->snd_max = seq_max(flow->snd_max, flow->snd_nxt);
    return true;
}

void tcp_output(struct tcp *tcp, struct tcp_flow *flow)
{
    uint32_t before = flow->snd_nxt;
    bool idle = flow->snd_una == flow->snd_max;

    if (flow->state != TCP_OPEN && flow->state != TCP_RESETTING)
        return;
    /* snd_nxt is one behind snd_end when FIN is out: then there is nothing new. */
    while (seq_leq(flow->snd_nxt, flow->snd_end) && output_next(tcp, flow))
        ;
    if (flow->snd_nxt != before || flow->retransmit_at == TIMERS_NEVER)
        tcp_timer_retransmit(tcp, flow, idle);
}
