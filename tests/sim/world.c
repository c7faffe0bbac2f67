/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation. Time jumps from event to event: arrivals on the wire and alarms of the
 * endpoints and hosts (schedule.h), and the stack's own timers. What is due at one instant is
 * handed to the stack in batches as a poll loop would, and stack_batch_end() ends each.
 *
 * Monitors sit where the stack sends (watch_sent) and know what the stack may know: they check
 * every frame against what the host side committed, what the guest has sent and what windows have
 * reached the stack. The endpoints check what arrives, the hosts what is written to them. The first
 * fault ends the run and is its result. When all flows have ended, nothing may be left. */

#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#define FLOW_LIMIT      (4 * 3600 * SEC)
#define FIRST_PORT      20000
#define STEPS_AN_MOMENT 200000

struct monitor {
    bool syn_seen; /* a SYN or SYN-ACK of the stack's has been seen: `irs` is known */
    uint32_t irs;
    uint64_t sent;        /* highest offset sent to the guest, FIN included */
    uint64_t acked;       /* highest offset acknowledged to the guest */
    uint64_t right_edge;  /* of the stack's window */
    uint64_t guest_edge;  /* right edge of the guest's window, as delivered to the stack */
    uint64_t guest_acked; /* highest offset of ours whose ACK has been delivered to the stack */
    uint8_t stack_wscale, guest_wscale;
    bool fin_sent, rst_sent;
    bool guest_rst_delivered;
    uint64_t frames, data_frames;
    bool last_dropped;
};

struct world;

struct flow {
    struct world *world;
    unsigned index;
    struct flow_key key;
    const struct flow_plan *plan;
    struct endpoint guest;
    struct host host;
    struct monitor monitor;
    bool started, haunted; /* by a SYN that came again after the end */
};

struct world {
    const struct plan *plan;
    const struct world_options *options;
    struct world_result *result;
    struct schedule schedule;
    struct rng rng;
    struct timers *timers;
    struct counters counters;
    struct stack *stack;
    struct cable up, down;
    struct flow *flows;
    uint8_t scratch[65536];
    uint8_t guest_mac[6], gateway_mac[6];
    bool refusing; /* the link has said -EAGAIN; writable is due */
    struct alarm writable, deferred, outage, new_mtu, neighbour;
    uint8_t question[128]; /* who has the guest's address? */
    size_t question_len;
    struct culvert_link link;
    unsigned dropped, wakeups;
    unsigned hinted;
};

static void fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fail(struct world *w, const char *format, ...)
{
    if (w->result->failed)
        return;
    w->result->failed = true;
    int n = snprintf(w->result->what, sizeof(w->result->what),
                     "at %.6f s: ", (double)w->schedule.now / 1e9);
    va_list args;
    va_start(args, format);
    vsnprintf(w->result->what + n, sizeof(w->result->what) - (size_t)n, format, args);
    va_end(args);
    if (w->options->verbose)
        fprintf(w->options->trace, "FAULT %s\n", w->result->what);
}

static void flow_wrong(void *ctx, const char *what)
{
    struct flow *f = ctx;
    if (!f->haunted)
        fail(f->world, "flow %u: %s", f->index, what);
}

static struct flow *flow_of_port(struct world *w, uint16_t port)
{
    unsigned index = (unsigned)port - FIRST_PORT;
    return port >= FIRST_PORT && index < w->plan->flows ? &w->flows[index] : NULL;
}

static void trace(struct world *w, const char *direction, const struct flow *f,
                  const struct segment *s, const char *remark)
{
    if (!w->options->verbose)
        return;
    bool to_guest = direction[0] == '>';
    uint32_t guest_base = f->guest.iss, stack_base = f->monitor.syn_seen ? f->monitor.irs : s->seq;
    fprintf(w->options->trace, "%12.6f %s #%u ", (double)w->schedule.now / 1e9, direction,
            f->index);
    packet_print(w->options->trace, s, to_guest ? stack_base : guest_base,
                 to_guest ? guest_base : stack_base);
    fprintf(w->options->trace, "%s\n", remark);
}

static void note(struct world *w, const struct flow *f, const char *what)
{
    if (w->options->verbose)
        fprintf(w->options->trace, "%12.6f    #%u %s\n", (double)w->schedule.now / 1e9, f->index,
                what);
}

/* ---- monitors: what the stack sends ---- */

static uint64_t unwrap(uint64_t near, uint32_t low, uint32_t value)
{
    return near + (uint64_t)(int64_t)(int32_t)(value - low);
}

static void watch_syn(struct world *w, struct flow *f, const struct segment *s)
{
    struct monitor *m = &f->monitor;
    bool answer = s->flags & TCP_ACK;
    if (answer == f->plan->from_host)
        fail(w, "flow %u: the wrong kind of SYN", f->index);
    if (answer && !f->host.connected)
        fail(w, "flow %u: SYN answered before the host connected", f->index);
    if (answer && s->ack != f->guest.iss + 1)
        fail(w, "flow %u: SYN-ACK acknowledges %u", f->index, s->ack - f->guest.iss);
    if (m->syn_seen && s->seq != m->irs)
        fail(w, "flow %u: initial sequence number changed", f->index);
    unsigned header = ip_address_is_v4(&s->source) ? 40 : 60;
    if (!s->has_mss || s->mss != w->link.mtu - header)
        fail(w, "flow %u: MSS option %u at MTU %u", f->index, s->mss, w->link.mtu);
    m->irs = s->seq;
    /* Scaling needs both sides (RFC 7323, 2.2). */
    m->stack_wscale = s->has_wscale && f->guest.config.wscale >= 0 ? s->wscale : 0;
    if (!m->syn_seen && answer)
        m->right_edge = s->window;
    m->syn_seen = true;
}

static void watch_ack(struct world *w, struct flow *f, const struct segment *s)
{
    struct monitor *m = &f->monitor;
    uint64_t ack = unwrap(m->acked, endpoint_seq(&f->guest, m->acked), s->ack);
    uint64_t edge = ack + ((uint64_t)s->window << m->stack_wscale);
    if ((int64_t)(ack - m->acked) < 0)
        fail(w, "flow %u: ACK went back from %llu to %llu", f->index, (unsigned long long)m->acked,
             (unsigned long long)ack);
    else if (edge < m->right_edge)
        fail(w, "flow %u: the window's right edge moved left, from %llu to %llu", f->index,
             (unsigned long long)m->right_edge, (unsigned long long)edge);
    m->acked = ack;
    m->right_edge = edge;
}

static void watch_sizes(struct world *w, struct flow *f, const struct segment *s,
                        const struct packet *packet)
{
    unsigned header = ip_address_is_v4(&s->source) ? 40 : 60;
    size_t mss = f->guest.config.mss ? f->guest.config.mss : header == 40 ? 536 : 1220;
    size_t unit = s->gso_size ? s->gso_size : s->len;
    if (!s->gso_size && packet->len - 14 > w->link.mtu)
        fail(w, "flow %u: %zu bytes of IP at MTU %u", f->index, packet->len - 14, w->link.mtu);
    if (unit && unit + s->options_len > mss)
        fail(w, "flow %u: %zu bytes of payload and %zu of options, but the guest's MSS is %zu",
             f->index, unit, s->options_len, mss);
    if (unit + s->options_len + header > w->link.mtu)
        fail(w, "flow %u: segments of %zu bytes exceed the MTU", f->index, unit);
}

static void watch_data(struct world *w, struct flow *f, const struct segment *s, uint64_t offset)
{
    struct monitor *m = &f->monitor;
    uint64_t end = offset + s->len;
    if (end > f->host.tx_pos)
        fail(w, "flow %u: bytes up to %llu sent, but only %llu were committed", f->index,
             (unsigned long long)end, (unsigned long long)f->host.tx_pos);
    else if (stream_matches(f->host.config.tx_key, offset, s->payload, s->len) < s->len)
        fail(w, "flow %u: wrong bytes sent at offset %llu", f->index, (unsigned long long)offset);
    bool probe = s->len == 1 && m->guest_edge <= m->guest_acked;
    if (end > m->guest_edge && !probe)
        fail(w, "flow %u: sent up to %llu, beyond the guest's window, which ends at %llu", f->index,
             (unsigned long long)end, (unsigned long long)m->guest_edge);
    m->data_frames++;
}

static void watch_fin(struct world *w, struct flow *f, uint64_t at)
{
    if (!f->host.eof_sent)
        fail(w, "flow %u: FIN, but the host has not closed", f->index);
    if (at != f->host.tx_pos)
        fail(w, "flow %u: FIN at offset %llu, but %llu bytes were committed", f->index,
             (unsigned long long)at, (unsigned long long)f->host.tx_pos);
    f->monitor.fin_sent = true;
}

static void watch_rst(struct world *w, struct flow *f, const struct segment *s)
{
    struct monitor *m = &f->monitor;
    bool cause = host_is_over(&f->host) || f->host.reset_sent || m->guest_rst_delivered ||
                 f->plan->guest_resets || f->plan->guest_vanishes || f->guest.result != RESULT_NONE;
    if (f->plan->from_host && f->guest.state < ENDPOINT_OPEN)
        cause = true;
    if (!(s->flags & TCP_ACK) && s->seq != endpoint_peer_seq(&f->guest, f->guest.rcv_nxt))
        cause = true; /* answers a bad ACK (RFC 9293, 3.10.7.4), and the guest will not mind */
    if (!f->started || !f->host.opened)
        cause = true; /* refused, or a stray before the SYN */
    if (!cause)
        fail(w, "flow %u: RST for no reason", f->index);
    if (f->plan->host_resets && f->host.reset_sent && !f->host.config.denies &&
        f->guest.state == ENDPOINT_OPEN && m->syn_seen && !m->rst_sent && (s->flags & TCP_ACK)) {
        /* A shut window excuses; otherwise what the host committed goes out first. */
        uint64_t at = unwrap(m->sent, m->irs + 1 + (uint32_t)m->sent, s->seq);
        if (at < f->host.tx_pos && m->guest_edge > at + f->guest.config.mss)
            fail(w, "flow %u: RST at %llu before the %llu bytes that preceded it", f->index,
                 (unsigned long long)at, (unsigned long long)f->host.tx_pos);
    }
    m->rst_sent = true;
}

static void watch_sent(struct world *w, struct flow *f, const struct segment *s,
                       const struct packet *packet)
{
    struct monitor *m = &f->monitor;
    m->frames++;
    if (f->haunted)
        return;
    if (s->flags & TCP_RST) {
        watch_rst(w, f, s);
        return;
    }
    if (s->flags & TCP_SYN) {
        watch_syn(w, f, s);
        return;
    }
    if (!m->syn_seen) {
        fail(w, "flow %u: a segment before the SYN", f->index);
        return;
    }
    if (!(s->flags & TCP_ACK))
        fail(w, "flow %u: a segment without ACK", f->index);
    uint64_t offset = unwrap(m->sent, m->irs + 1 + (uint32_t)m->sent, s->seq);
    bool keepalive = s->len <= 1 && (int64_t)offset == (int64_t)m->guest_acked - 1;
    if ((int64_t)offset < 0 && !keepalive)
        fail(w, "flow %u: a segment before the SYN's sequence number", f->index);
    watch_ack(w, f, s);
    watch_sizes(w, f, s, packet);
    if (s->len && !keepalive)
        watch_data(w, f, s, offset);
    if (s->flags & TCP_FIN)
        watch_fin(w, f, offset + s->len);
    uint64_t end = offset + s->len + !!(s->flags & TCP_FIN);
    if (!keepalive && (int64_t)end > (int64_t)m->sent)
        m->sent = end;
}

/* Two ICMP families, one table (DESIGN, 4). */
static void watch_icmp(struct world *w, const struct icmp_error *e)
{
    struct flow *f = flow_of_port(w, e->quoted_source_port);
    if (!f || e->quoted_protocol != 6) {
        fail(w, "ICMP error that quotes nothing of ours");
        return;
    }
    if (!ip_address_equal(&e->quoted_source, &f->key.guest) ||
        !ip_address_equal(&e->quoted_destination, &f->key.remote) ||
        e->quoted_destination_port != f->key.remote_port)
        fail(w, "flow %u: ICMP error quotes other addresses", f->index);
    if (f->host.config.connect != HOST_REFUSES)
        fail(w, "flow %u: ICMP error for a flow nobody refused", f->index);
    bool v4 = ip_address_is_v4(&f->key.guest);
    static const uint8_t code4[] = {
        [TCP_REFUSE_NET] = 0, [TCP_REFUSE_HOST] = 1, [TCP_REFUSE_PROHIBITED] = 13};
    static const uint8_t code6[] = {
        [TCP_REFUSE_NET] = 0, [TCP_REFUSE_HOST] = 3, [TCP_REFUSE_PROHIBITED] = 1};
    enum tcp_refusal refusal = f->host.config.refusal;
    if (refusal < TCP_REFUSE_NET)
        fail(w, "flow %u: ICMP error where RST or silence was asked for", f->index);
    else if (e->type != (v4 ? 3 : 1) || e->code != (v4 ? code4 : code6)[refusal])
        fail(w, "flow %u: ICMP type %u code %u for refusal %d", f->index, e->type, e->code,
             (int)refusal);
}

/* ---- the wire ---- */

static void writable_rings(void *arg)
{
    struct world *w = arg;
    w->refusing = false;
    stack_link_writable(w->stack);
}

static bool link_refuses(struct world *w)
{
    if (w->refusing)
        return true;
    if (!cable_full(&w->down) && !rng_chance(&w->down.rng, w->plan->down.refusal))
        return false;
    w->refusing = true;
    alarm_set(&w->writable, w->schedule.now + rng_scaled(&w->rng, 1, 2 * MS));
    return true;
}

/* A guest that is there says so: its kernel does, whatever becomes of its segments. */
static void neighbour_rings(void *arg)
{
    struct world *w = arg;
    struct culvert_frame *frame = culvert_frame_new(sizeof w->question);
    bool arp = w->question[13] == 0x06;
    if (!frame)
        abort();
    memcpy(frame->data, w->question, w->question_len);
    frame->len = w->question_len;
    memcpy(frame->data, w->gateway_mac, 6);
    memcpy(frame->data + 6, w->guest_mac, 6);
    if (arp) { /* sender and target change places */
        frame->data[21] = 2;
        memcpy(frame->data + 22, w->guest_mac, 6);
        memcpy(frame->data + 28, w->question + 38, 4);
        memcpy(frame->data + 32, w->question + 22, 10);
    } else { /* an advertisement, from the target to the asker */
        memcpy(frame->data + 22, w->question + 62, 16);
        memcpy(frame->data + 38, w->question + 22, 16);
        frame->data[54] = 136;
        frame->offload.flags = CULVERT_OFFLOAD_DATA_VALID;
    }
    stack_input(w->stack, frame);
    culvert_frame_unref(frame);
}

static void hear_question(struct world *w, const struct packet *packet)
{
    const uint8_t *bytes = packet->bytes;
    bool arp = packet->len >= 42 && bytes[12] == 0x08 && bytes[13] == 0x06;
    bool solicitation =
        packet->len >= 78 && bytes[12] == 0x86 && bytes[20] == 58 && bytes[54] == 135;
    if ((!arp && !solicitation) || packet->len > sizeof w->question)
        return;
    w->question_len = packet->len;
    memcpy(w->question, bytes, packet->len);
    alarm_set(&w->neighbour, w->schedule.now + MS);
}

static int stack_sends(void *ctx, struct culvert_frame *frame)
{
    struct world *w = ctx;
    if (link_refuses(w))
        return -EAGAIN;
    struct packet *packet = packet_of_frame(frame);
    struct segment s;
    struct icmp_error error;
    const char *what = NULL;
    enum packet_kind kind = packet_parse(packet, &s, &error, &what);
    struct flow *f = kind == PACKET_TCP ? flow_of_port(w, s.destination_port) : NULL;
    w->result->frames_down++;
    if (w->options->pcap)
        pcap_add(w->options->pcap, packet, w->schedule.now);
    if (kind == PACKET_BAD) {
        fail(w, "a bad frame from the stack: %s", what);
    } else if (kind == PACKET_ICMP_ERROR) {
        watch_icmp(w, &error);
    } else if (kind == PACKET_OTHER) {
        hear_question(w, packet);
    } else if (kind == PACKET_TCP && !f) {
        fail(w, "a segment to port %u", s.destination_port);
    } else if (f) {
        if (s.options_wrong)
            fail(w, "flow %u: %s", f->index, s.options_wrong);
        trace(w, "> sent", f, &s, "");
        watch_sent(w, f, &s, packet);
    }
    cable_send(&w->down, packet);
    return 0;
}

static bool picked(void *ctx, const struct packet *packet)
{
    struct world *w = ctx;
    const struct plan *plan = w->plan;
    if (!plan->drop_nth_data && !plan->drop_last_data)
        return false;
    struct segment s;
    struct icmp_error error;
    const char *what;
    if (packet_parse(packet, &s, &error, &what) != PACKET_TCP || s.len == 0)
        return false;
    struct flow *f = flow_of_port(w, s.destination_port);
    uint64_t end = f ? s.seq - f->monitor.irs - 1 + s.len : 0;
    w->hinted++;
    bool lose =
        plan->drop_nth_data && w->hinted >= plan->drop_nth_data && w->dropped < plan->drop_count;
    if (plan->drop_last_data && f && !f->monitor.last_dropped && end == f->plan->host.tx_total) {
        f->monitor.last_dropped = true;
        lose = true;
    }
    if (lose) {
        w->dropped++;
        trace(w, "> LOST", f, &s, "");
    }
    return lose;
}

static void arrives_at_guest(void *ctx, const struct packet *packet)
{
    struct world *w = ctx;
    struct segment s;
    struct icmp_error error;
    const char *what = NULL;
    if (!packet_frame_unchanged(packet))
        fail(w, "a frame was changed after it had been sent");
    switch (packet_parse(packet, &s, &error, &what)) {
    case PACKET_TCP: {
        struct flow *f = flow_of_port(w, s.destination_port);
        if (f) {
            trace(w, ">", f, &s, "");
            endpoint_input(&f->guest, &s);
        }
        break;
    }
    case PACKET_ICMP_ERROR: {
        struct flow *f = flow_of_port(w, error.quoted_source_port);
        if (f)
            endpoint_icmp(&f->guest, &error);
        break;
    }
    case PACKET_OTHER:
        break;
    case PACKET_BAD:
        fail(w, "cut into pieces, a frame is bad: %s", what);
        break;
    }
}

static void guest_emits(void *ctx, const struct segment *s, const struct packet_style *style)
{
    struct flow *f = ctx;
    struct world *w = f->world;
    struct packet_style complete = *style;
    memcpy(complete.source_mac, w->guest_mac, 6);
    memcpy(complete.destination_mac, w->gateway_mac, 6);
    trace(w, "< sent", f, s, style->wrong_checksum ? " bad checksum" : "");
    cable_send(&w->up, packet_build(s, &complete));
}

/* What the stack now knows of the guest. */
static void watch_delivered(struct flow *f, const struct segment *s)
{
    struct monitor *m = &f->monitor;
    if (s->flags & TCP_RST)
        m->guest_rst_delivered = true;
    if (s->flags & TCP_SYN) {
        m->guest_wscale = s->has_wscale ? s->wscale : 0;
        if (m->guest_edge < s->window)
            m->guest_edge = s->window;
        return;
    }
    if (!(s->flags & TCP_ACK) || (s->flags & TCP_RST) || !m->syn_seen)
        return;
    uint64_t ack = unwrap(m->guest_acked, m->irs + 1 + (uint32_t)m->guest_acked, s->ack);
    if ((int64_t)ack < 0 || ack > m->sent)
        return;
    /* Without window scaling on both sides the field is what it says. */
    unsigned shift = f->guest.rcv_wscale;
    uint64_t edge = ack + ((uint64_t)s->window << shift);
    if (ack > m->guest_acked)
        m->guest_acked = ack;
    if (edge > m->guest_edge)
        m->guest_edge = edge;
}

static void arrives_at_stack(void *ctx, const struct packet *packet)
{
    struct world *w = ctx;
    struct segment s;
    struct icmp_error error;
    const char *what = NULL;
    if (packet_parse(packet, &s, &error, &what) == PACKET_TCP) {
        struct flow *f = flow_of_port(w, s.source_port);
        if (f) {
            trace(w, "<", f, &s, "");
            watch_delivered(f, &s);
        }
    }
    if (w->options->pcap)
        pcap_add(w->options->pcap, packet, w->schedule.now);
    w->result->frames_up++;
    struct culvert_frame *frame = packet_to_frame(packet, w->plan->cut_frames ? &w->rng : NULL);
    stack_input(w->stack, frame);
    culvert_frame_unref(frame);
}

/* ---- what the stack asks ---- */

/* A SYN that comes after its flow has ended opens a flow that nobody wants. */
static ssize_t ghost_write(void *ctx, uint64_t token, const struct iovec *iov, int count)
{
    struct flow *f = ctx;
    (void)token;
    (void)iov;
    (void)count;
    fail(f->world, "flow %u: bytes for a connection that the guest never made", f->index);
    return -EPIPE;
}

static void ghost_nothing(void *ctx, uint64_t token)
{
    (void)ctx;
    (void)token;
}

static void ghost_close(void *ctx, uint64_t token, enum tcp_close how)
{
    (void)ctx;
    (void)token;
    (void)how;
}

static const struct tcp_upstream ghost = {
    .write = ghost_write,
    .shut_write = ghost_nothing,
    .resume = ghost_nothing,
    .keepalive = ghost_nothing,
    .close = ghost_close,
};

static void stack_opens(void *ctx, struct flow_handle handle, const struct flow_key *key)
{
    struct world *w = ctx;
    struct flow *f = flow_of_port(w, key->guest_port);
    if (!f || memcmp(&f->key, key, sizeof(*key)) != 0) {
        fail(w, "tcp_open for a flow that nobody began");
        return;
    }
    note(w, f, "tcp_open");
    bool again = f->host.opened && !f->host.refused;
    if (!again && f->guest.state == ENDPOINT_SYN_SENT) {
        host_open(&f->host, handle);
        return;
    }
    /* A port whose connection has ended both ways for the guest is free, and a SYN takes it. */
    bool port_is_free =
        f->monitor.guest_rst_delivered || (f->guest.fin_acked && f->guest.fin_received);
    if (again && !host_is_over(&f->host) && !port_is_free)
        fail(w, "flow %u: tcp_open while the flow is open", f->index);
    f->haunted = true;
    if (f->host.refused || f->guest.state == ENDPOINT_SYN_SENT || rng_chance(&w->rng, 500)) {
        tcp_refuse(w->stack, handle, TCP_REFUSE_RESET);
        return;
    }
    tcp_set_upstream(w->stack, handle, &ghost, f, 1);
    tcp_connected(w->stack, handle);
}

static void stack_udp(void *ctx, const struct udp_datagram *datagram)
{
    (void)datagram;
    fail(ctx, "udp_input, but nobody sent UDP");
}

static void stack_echo(void *ctx, const struct echo_request *request)
{
    (void)request;
    fail(ctx, "echo_input, but nobody sent an echo request");
}

/* ---- making a world ---- */

static void flow_starts(void *arg)
{
    struct flow *f = arg;
    if (!f->world->stack)
        return; /* the run has ended early */
    f->started = true;
    endpoint_start(&f->guest);
    if (f->plan->from_host && !host_open_to_guest(&f->host, &f->key))
        fail(f->world, "flow %u: tcp_open_to_guest() failed", f->index);
}

static void guest_changed(void *ctx)
{
    struct flow *f = ctx;
    char text[64];
    snprintf(text, sizeof(text), "guest: %s", endpoint_result_name(f->guest.result));
    note(f->world, f, text);
}

static void host_changed(void *ctx)
{
    struct flow *f = ctx;
    static const char *const names[] = {"finished", "reset", "vanished"};
    char text[64];
    snprintf(text, sizeof(text), "host: %s", f->host.closed ? names[f->host.how] : "refused");
    note(f->world, f, text);
}

static void make_flow(struct world *w, unsigned index, const struct flow_plan *plan)
{
    struct flow *f = &w->flows[index];
    const struct endpoint_config *g = &plan->guest;
    *f = (struct flow){.world = w, .index = index, .plan = plan};
    f->key = (struct flow_key){.guest = g->address,
                               .remote = g->peer_address,
                               .guest_port = (uint16_t)(FIRST_PORT + index),
                               .remote_port = g->peer_port,
                               .protocol = IPPROTO_TCP};
    endpoint_init(&f->guest, g, &w->schedule, rng_fork(&w->rng));
    f->guest.config.port = f->key.guest_port;
    f->guest.scratch = w->scratch;
    f->guest.emit = guest_emits;
    f->guest.wrong = flow_wrong;
    f->guest.changed = guest_changed;
    f->guest.ctx = f;
    host_init(&f->host, &plan->host, &w->schedule, rng_fork(&w->rng), w->stack);
    f->host.wrong = flow_wrong;
    f->host.changed = host_changed;
    f->host.ctx = f;
    schedule_post(&w->schedule, w->schedule.now + plan->start, flow_starts, f);
}

static struct ip_address address(const char *text)
{
    struct ip_address a;
    if (!ip_address_parse(text, &a))
        abort();
    return a;
}

static void deferred_rings(void *arg)
{
    (void)arg; /* the batch around this event sends what is owed */
}

static void outage_rings(void *arg)
{
    struct world *w = arg;
    w->link.up = !w->link.up;
    w->link.generation++;
    stack_set_link(w->stack, &w->link);
    if (!w->link.up)
        alarm_set(&w->outage, w->schedule.now + w->plan->outage_time);
}

static void new_mtu_rings(void *arg)
{
    struct world *w = arg;
    w->link.mtu = w->plan->new_mtu;
    w->link.generation++;
    stack_set_link(w->stack, &w->link);
}

static void make_stack(struct world *w)
{
    const struct plan *plan = w->plan;
    struct stack_config config = {
        .mtu = plan->mtu,
        .guest4 = address("10.0.2.100"),
        .gateway4 = address("10.0.2.2"),
        .dns4 = address("10.0.2.3"),
        .prefix4 = 24,
        .ipv6 = plan->mtu >= 1280,
        .guest6 = address("fd63:756c:7665::64"),
        .gateway6 = address("fd63:756c:7665::2"),
        .dns6 = address("fd63:756c:7665::3"),
        .link_local6 = address("fe80::2"),
        .prefix6 = 64,
        .max_flows = plan->max_flows ? plan->max_flows : plan->flows + 8,
        .queue_budget = plan->queue_budget,
        .hash_key = {plan->seed, ~plan->seed},
        .verify_checksums = plan->verify_checksums,
    };
    memcpy(config.gateway_mac, w->gateway_mac, 6);
    static const struct stack_ops ops = {
        .send = stack_sends,
        .tcp_open = stack_opens,
        .udp_input = stack_udp,
        .echo_input = stack_echo,
    };
    w->timers = timers_new(w, w->schedule.now);
    w->stack = stack_new(&config, &ops, w, w->timers, &w->counters, w->schedule.now);
    if (!w->timers || !w->stack)
        abort();
    w->link = (struct culvert_link){
        .offloads = CULVERT_LINK_CSUM | CULVERT_LINK_TSO4 | CULVERT_LINK_TSO6 | CULVERT_LINK_ECN,
        .mtu = plan->mtu,
        .up = true,
        .generation = 1,
    };
    memcpy(w->link.mac, w->guest_mac, 6);
    stack_set_link(w->stack, &w->link);
}

static void make_world(struct world *w, struct flow_plan *flows)
{
    static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 0x64},
                         gateway_mac[6] = {2, 0x63, 0x75, 0x6c, 0x76, 2};
    memcpy(w->guest_mac, guest_mac, 6);
    memcpy(w->gateway_mac, gateway_mac, 6);
    w->rng.state = w->plan->seed ^ UINT64_C(0x776f726c64);
    schedule_init(&w->schedule, SEC); /* not zero: zero is too often "never" */
    alarm_init(&w->writable, &w->schedule, writable_rings, w);
    alarm_init(&w->deferred, &w->schedule, deferred_rings, w);
    alarm_init(&w->outage, &w->schedule, outage_rings, w);
    alarm_init(&w->neighbour, &w->schedule, neighbour_rings, w);
    alarm_init(&w->new_mtu, &w->schedule, new_mtu_rings, w);
    if (w->plan->outage_at != NEVER)
        alarm_set(&w->outage, w->plan->outage_at);
    if (w->plan->new_mtu_at != NEVER)
        alarm_set(&w->new_mtu, w->plan->new_mtu_at);
    make_stack(w);
    cable_init(&w->up, &w->schedule, rng_fork(&w->rng), &w->plan->up, arrives_at_stack, w);
    cable_init(&w->down, &w->schedule, rng_fork(&w->rng), &w->plan->down, arrives_at_guest, w);
    w->down.pick = picked;
    w->flows = calloc(w->plan->flows, sizeof(*w->flows));
    if (!w->flows)
        abort();
    for (unsigned i = 0; i < w->plan->flows; i++)
        make_flow(w, i, &flows[i]);
}

/* Frees what is still on the wire. Alarms are off by now. */
static void drain_events(struct world *w)
{
    w->up.deliver = NULL;
    w->down.deliver = NULL;
    while (w->schedule.count > 0) {
        w->schedule.now = schedule_next(&w->schedule);
        schedule_run_one(&w->schedule);
    }
}

static void alarms_off(struct world *w)
{
    for (unsigned i = 0; i < w->plan->flows; i++) {
        struct endpoint *e = &w->flows[i].guest;
        struct host *h = &w->flows[i].host;
        struct alarm *all[] = {&e->rto,     &e->persist,    &e->delack,      &e->writer,
                               &e->reader,  &e->closer,     &e->abort_alarm, &e->keepalive,
                               &e->linger,  &h->connecting, &h->producer,    &h->reader,
                               &h->drainer, &h->closer,     &h->resetter,    &h->giving_up};
        for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++)
            alarm_off(all[k]);
    }
    alarm_off(&w->writable);
    alarm_off(&w->deferred);
    alarm_off(&w->outage);
    alarm_off(&w->neighbour);
    alarm_off(&w->new_mtu);
}

/* ---- running it ---- */

static bool flow_over(const struct flow *f)
{
    bool host_over = host_is_over(&f->host) || !f->host.opened;
    return f->started && f->guest.result != RESULT_NONE && host_over &&
           f->guest.state != ENDPOINT_TIME_WAIT;
}

static bool world_over(const struct world *w)
{
    if (tcp_flow_count(w->stack) > 0 || w->up.in_flight > 0 || w->down.in_flight > 0)
        return false;
    for (unsigned i = 0; i < w->plan->flows; i++)
        if (!flow_over(&w->flows[i]))
            return false;
    return true;
}

static void describe_stuck(struct world *w)
{
    for (unsigned i = 0; i < w->plan->flows; i++) {
        const struct flow *f = &w->flows[i];
        if (flow_over(f))
            continue;
        fail(
            w,
            "flow %u did not end: guest %s (state %d), sent %llu of %llu, acked %llu, window %llu, "
            "received %llu of %llu; host%s%s%s read %llu of %llu, committed %llu of %llu%s%s",
            i, endpoint_result_name(f->guest.result), f->guest.state,
            (unsigned long long)f->guest.max, (unsigned long long)f->guest.config.tx_total,
            (unsigned long long)f->guest.una, (unsigned long long)f->guest.snd_wnd,
            (unsigned long long)f->guest.rcv_nxt, (unsigned long long)f->host.config.tx_total,
            f->host.connected ? " connected" : "", f->host.closed ? " closed" : "",
            f->host.paused ? " paused" : "", (unsigned long long)f->host.rx_pos,
            (unsigned long long)f->host.config.rx_total, (unsigned long long)f->host.tx_pos,
            (unsigned long long)f->host.config.tx_total, f->host.shut_seen ? " shut" : "",
            f->host.eof_sent ? " eof" : "");
        return;
    }
    fail(w, "all flows are over, but the stack still holds %u", tcp_flow_count(w->stack));
}

static void one_batch(struct world *w)
{
    stack_set_now(w->stack, w->schedule.now);
    if (timers_next(w->timers) <= w->schedule.now) {
        timers_expire(w->timers, w->schedule.now);
        if (w->schedule.now >= w->plan->idle_from && w->schedule.now < w->plan->idle_until)
            w->wakeups++;
    }
    unsigned events = (unsigned)rng_between(&w->rng, 1, w->plan->batch);
    while (events-- > 0 && schedule_run_one(&w->schedule))
        ;
    enum stack_acks acks = STACK_ACKS_NOW;
    if (rng_chance(&w->rng, w->plan->defer))
        acks = rng_chance(&w->rng, 500) ? STACK_ACKS_WAIT : STACK_ACKS_OF_LITTLE_WAIT;
    stack_batch_end(w->stack, acks);
    if (acks != STACK_ACKS_NOW)
        alarm_set(&w->deferred, w->schedule.now + rng_between(&w->rng, 0, 20 * US));
}

static uint64_t next_moment(struct world *w)
{
    uint64_t events = schedule_next(&w->schedule), timers = timers_next(w->timers);
    return events < timers ? events : timers;
}

static void run(struct world *w)
{
    unsigned steps = 0;
    while (!w->result->failed && !world_over(w)) {
        uint64_t next = next_moment(w);
        if (next > w->schedule.now) {
            steps = 0;
            if (next == NEVER || next > FLOW_LIMIT) {
                describe_stuck(w);
                return;
            }
            w->schedule.now = next;
        }
        if (++steps > STEPS_AN_MOMENT) {
            fail(w, "a busy loop: %u steps at one instant", steps);
            return;
        }
        one_batch(w);
    }
}

/* ---- what must be true in the end ---- */

static void check_clean_end(struct world *w, struct flow *f)
{
    if (f->guest.result == RESULT_TIMED_OUT && f->plan->may_time_out)
        return;
    /* The stack does not wait for ever for a guest that is not told again and again. */
    const struct cable_config *down = &w->plan->down;
    bool deaf = w->plan->up.loss || down->loss || down->refusal || down->capacity ||
                w->plan->outage_at != NEVER;
    bool all_there = f->guest.fin_received && f->host.shut_seen;
    if (f->guest.result == RESULT_RESET && all_there && deaf)
        return;
    if (f->guest.result != RESULT_DONE)
        fail(w, "flow %u: the guest's connection ended as \"%s\"", f->index,
             endpoint_result_name(f->guest.result));
    else if (f->guest.rcv_nxt != f->host.config.tx_total)
        fail(w, "flow %u: the guest received %llu of %llu bytes", f->index,
             (unsigned long long)f->guest.rcv_nxt, (unsigned long long)f->host.config.tx_total);
    else if (f->host.rx_pos != f->host.config.rx_total || !f->host.shut_seen)
        fail(w, "flow %u: the host received %llu of %llu bytes%s", f->index,
             (unsigned long long)f->host.rx_pos, (unsigned long long)f->host.config.rx_total,
             f->host.shut_seen ? "" : " and no FIN");
    else if (f->host.how != TCP_CLOSE_FINISHED)
        fail(w, "flow %u: close() said %d after an orderly end", f->index, (int)f->host.how);
}

static void check_refused_end(struct world *w, struct flow *f)
{
    enum endpoint_result expected = RESULT_UNREACHABLE;
    if (f->host.config.refusal == TCP_REFUSE_RESET)
        expected = RESULT_REFUSED;
    if (f->host.config.refusal == TCP_REFUSE_SILENT)
        expected = RESULT_TIMED_OUT;
    /* An answer may be lost; then the guest's own patience ends it. */
    if (f->guest.result != expected && f->guest.result != RESULT_TIMED_OUT &&
        f->guest.result != RESULT_ABORTED && f->guest.result != RESULT_VANISHED)
        fail(w, "flow %u: refusal %d reached the guest as \"%s\"", f->index,
             (int)f->host.config.refusal, endpoint_result_name(f->guest.result));
}

static void check_guest_reset(struct world *w, struct flow *f)
{
    bool slow_host = f->host.config.drain_interval || f->host.config.short_write;
    if (f->host.closed && f->host.how == TCP_CLOSE_RESET && !slow_host &&
        f->host.rx_pos < f->monitor.acked && f->host.rx_pos < f->host.config.rx_total)
        fail(w, "flow %u: %llu bytes were acknowledged, but only %llu reached the host", f->index,
             (unsigned long long)f->monitor.acked, (unsigned long long)f->host.rx_pos);
}

static void check_host_reset(struct world *w, struct flow *f)
{
    const struct plan *p = w->plan;
    bool faultless = !p->up.loss && !p->down.loss && !p->up.reorder && !p->down.reorder;
    bool roomy =
        f->guest.config.read_interval == 0 && f->guest.config.rcvbuf >= f->host.config.tx_total;
    if (f->host.reset_sent && !p->down.loss && f->guest.result == RESULT_TIMED_OUT)
        fail(w, "flow %u: the host's RST did not reach the guest", f->index);
    if (f->host.config.denies)
        return;
    if (f->guest.result == RESULT_RESET && faultless && roomy && f->host.reset_sent &&
        f->guest.rcv_nxt != f->host.tx_pos)
        fail(w, "flow %u: RST after %llu bytes, but %llu preceded it", f->index,
             (unsigned long long)f->guest.rcv_nxt, (unsigned long long)f->host.tx_pos);
}

static void check_flow(struct world *w, struct flow *f)
{
    const struct flow_plan *plan = f->plan;
    bool guest_left = f->guest.result == RESULT_ABORTED || f->guest.result == RESULT_VANISHED;
    if (f->haunted && !f->host.shut_seen)
        ; /* whatever became of it when the ghost came */
    else if (plan->host.connect == HOST_REFUSES)
        check_refused_end(w, f);
    else if (plan->guest_resets && guest_left)
        check_guest_reset(w, f);
    else if (plan->host_resets && (f->host.reset_sent || f->host.broken))
        check_host_reset(w, f);
    else if (!plan->guest_vanishes || !guest_left)
        check_clean_end(w, f);
    w->result->bytes_up += f->host.rx_pos;
    w->result->bytes_down += f->guest.rcv_nxt;
}

static uint64_t counted(const struct world *w, enum counter which)
{
    return counter_value(&w->counters, which);
}

static void check_repairs(struct world *w)
{
    const struct plan *plan = w->plan;
    uint64_t again = counted(w, COUNTER_tcp_retransmits),
             probes = counted(w, COUNTER_tcp_tail_probes);
    uint64_t timeouts = counted(w, COUNTER_tcp_timeouts);
    if (plan->quiet && (again || timeouts))
        fail(w, "nothing was lost, but the stack sent %llu segments again (%llu timeouts)",
             (unsigned long long)again, (unsigned long long)timeouts);
    if (plan->quiet && counted(w, COUNTER_tcp_window_probes))
        fail(w, "no window was shut, but the stack probed one");
    if (plan->no_timeouts && timeouts)
        fail(w, "%llu retransmission timeouts", (unsigned long long)timeouts);
    if (plan->tail_probe_wanted && !probes)
        fail(w, "the tail was lost, but no probe was sent");
    if (plan->fast_retransmit_wanted && w->dropped && !counted(w, COUNTER_tcp_fast_retransmits))
        fail(w, "a loss was not repaired by fast retransmission");
    for (unsigned i = 0; plan->quiet && i < plan->flows; i++)
        if (w->flows[i].guest.retransmits)
            fail(w, "flow %u: nothing was lost, but the guest had to send %u segments again", i,
                 w->flows[i].guest.retransmits);
}

/* A frame towards the guest has a cause: bytes to carry, a frame of the guest's to answer, or a
 * timer. */
static void check_economy(struct world *w)
{
    uint64_t causes = 2 * w->result->frames_up + 60 * (uint64_t)w->plan->flows + 100;
    for (unsigned i = 0; i < w->plan->flows; i++) {
        const struct flow *f = &w->flows[i];
        causes += 8 * (f->host.tx_pos / 64) + 2 * (uint64_t)(f->host.writes + f->host.commits);
    }
    if (w->result->frames_down > causes)
        fail(w, "%llu frames towards the guest where %llu would be many",
             (unsigned long long)w->result->frames_down, (unsigned long long)causes);
}

static void check_end(struct world *w)
{
    for (unsigned i = 0; i < w->plan->flows; i++)
        check_flow(w, &w->flows[i]);
    check_repairs(w);
    check_economy(w);
    if (pool_in_use(w->stack->frames) != 0)
        fail(w, "%zu frames are still in use", pool_in_use(w->stack->frames));
    if (w->plan->done_by != NEVER && w->schedule.now > w->plan->done_by + SEC) {
        /* `done_by` counts from the beginning, which is at one second. */
        for (unsigned i = 0; i < w->plan->flows; i++)
            if (w->flows[i].host.closed_at > w->plan->done_by + SEC)
                fail(w, "flow %u ended at %.3f s, later than %.3f s", i,
                     (double)(w->flows[i].host.closed_at - SEC) / 1e9,
                     (double)w->plan->done_by / 1e9);
    }
    if (w->plan->idle_from != NEVER && w->wakeups > w->plan->idle_wakeups_most)
        fail(w, "%u wakeups while idle", w->wakeups);
    uint64_t next = timers_next(w->timers);
    if (next != NEVER && next < w->schedule.now + SEC)
        fail(w, "a timer is due %.6f s after everything has ended",
             (double)(next - w->schedule.now) / 1e9);
}

void world_run(const struct plan *plan, struct flow_plan *flows,
               const struct world_options *options, struct world_result *ret)
{
    struct world *w = calloc(1, sizeof(*w));
    if (!w)
        abort();
    *ret = (struct world_result){0};
    w->plan = plan;
    w->options = options;
    w->result = ret;
    if (options->pcap)
        pcap_begin(options->pcap);
    make_world(w, flows);
    run(w);
    if (!ret->failed)
        check_end(w);
    ret->ended_at = w->schedule.now;
    ret->counters = w->counters;
    w->stack = stack_free(w->stack);
    alarms_off(w);
    drain_events(w);
    timers_free(w->timers);
    schedule_fini(&w->schedule);
    free(w->flows);
    free(w);
}
