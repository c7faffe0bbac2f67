/* SPDX-License-Identifier: Apache-2.0 */
#include "endpoint.h"

#include "complaint.h"

/* ---- small things ---- */

static uint64_t now(const struct endpoint *e)
{
    return e->schedule->now;
}

static uint32_t ts_now(const struct endpoint *e)
{
    return e->config.ts_offset + (uint32_t)(now(e) / MS);
}

/* Adds [from, to) to a sorted list of spans; false if there is no room. */
static bool spans_add(struct span *spans, unsigned *count, uint64_t from, uint64_t to)
{
    unsigned i = 0;
    while (i < *count && spans[i].to < from)
        i++;
    unsigned j = i;
    for (; j < *count && spans[j].from <= to; j++) {
        from = spans[j].from < from ? spans[j].from : from;
        to = spans[j].to > to ? spans[j].to : to;
    }
    if (i == j && *count == SPANS)
        return false;
    memmove(spans + i + 1, spans + j, (*count - j) * sizeof(*spans));
    spans[i] = (struct span){from, to};
    *count = *count - (j - i) + 1;
    return true;
}

static void spans_cut_below(struct span *spans, unsigned *count, uint64_t offset)
{
    unsigned i = 0;
    while (i < *count && spans[i].to <= offset)
        i++;
    memmove(spans, spans + i, (*count - i) * sizeof(*spans));
    *count -= i;
    if (*count && spans[0].from < offset)
        spans[0].from = offset;
}

static void finish(struct endpoint *e, enum endpoint_state state, enum endpoint_result result)
{
    e->state = state;
    if (e->result == RESULT_NONE) {
        e->result = result;
        if (e->changed)
            e->changed(e->ctx);
    }
    struct alarm *alarms[] = {&e->rto,    &e->persist, &e->delack,      &e->writer,
                              &e->reader, &e->closer,  &e->abort_alarm, &e->keepalive};
    for (size_t i = 0; i < sizeof(alarms) / sizeof(*alarms); i++)
        alarm_off(alarms[i]);
}

/* ---- sending ---- */

static size_t options_len(const struct endpoint *e)
{
    return e->ts_on ? 12 : 0;
}

static size_t largest_segment(const struct endpoint *e)
{
    size_t ip = ip_address_is_v4(&e->config.address) ? 20 : 40;
    size_t mss = e->config.mtu - ip - 20;
    if (e->peer_mss < mss)
        mss = e->peer_mss;
    return mss - options_len(e);
}

/* The window for the wire; moves the right edge, never to the left (RFC 9293, 3.8.6). */
static uint16_t window_now(struct endpoint *e, bool scaled)
{
    uint64_t unread = e->rcv_nxt - e->read_pos;
    uint64_t free_space = e->config.rcvbuf > unread ? e->config.rcvbuf - unread : 0;
    uint64_t wanted = e->rcv_nxt + free_space;
    uint64_t step = e->config.rcvbuf / 2 < 536 ? e->config.rcvbuf / 2 : 536;
    if (!e->config.silly_updates && wanted < e->edge + step)
        wanted = e->edge; /* RFC 9293, 3.8.6.2.2 */
    if (wanted < e->edge)
        wanted = e->edge;
    unsigned shift = scaled ? e->rcv_wscale : 0;
    uint64_t raw = (wanted - e->rcv_nxt) >> shift;
    if (raw > 65535)
        raw = 65535;
    if (e->rcv_nxt + (raw << shift) < e->edge && raw < 65535)
        raw++;
    if (e->rcv_nxt + (raw << shift) > e->edge)
        e->edge = e->rcv_nxt + (raw << shift);
    return (uint16_t)raw;
}

static struct segment blank(const struct endpoint *e)
{
    return (struct segment){
        .source = e->config.address,
        .destination = e->config.peer_address,
        .source_port = e->config.port,
        .destination_port = e->config.peer_port,
    };
}

static void emit(struct endpoint *e, const struct segment *segment)
{
    struct packet_style style = {.offload_checksum =
                                     e->config.offload_checksum && rng_chance(&e->rng, 800)};
    e->emit(e->ctx, segment, &style);
}

static void put_sacks(struct endpoint *e, struct segment *s)
{
    if (!e->sack_on)
        return;
    if (e->config.dsack && e->duplicate.to > e->duplicate.from) {
        s->sack[s->sack_count++] = (struct sack_range){endpoint_peer_seq(e, e->duplicate.from),
                                                       endpoint_peer_seq(e, e->duplicate.to)};
    }
    e->duplicate = (struct span){0, 0};
    unsigned limit = e->ts_on ? 3 : 4, first = 0;
    for (unsigned i = 0; i < e->kept_count; i++)
        if (e->kept[i].from <= e->latest && e->latest < e->kept[i].to)
            first = i;
    for (unsigned k = 0; k < e->kept_count && s->sack_count < limit; k++) {
        const struct span *span = &e->kept[(first + k) % e->kept_count];
        s->sack[s->sack_count++] =
            (struct sack_range){endpoint_peer_seq(e, span->from), endpoint_peer_seq(e, span->to)};
    }
}

/* A segment of the open connection with everything but seq, payload and further flags. */
static struct segment of_connection(struct endpoint *e)
{
    struct segment s = blank(e);
    s.flags = TCP_ACK;
    s.ack = endpoint_peer_seq(e, e->rcv_nxt + e->fin_received);
    s.window = window_now(e, true);
    if (e->ts_on) {
        s.has_timestamps = true;
        s.tsval = ts_now(e);
        s.tsecr = e->ts_recent;
    }
    put_sacks(e, &s);
    e->ack_owed = 0;
    alarm_off(&e->delack);
    return s;
}

static void send_ack(struct endpoint *e)
{
    struct segment s = of_connection(e);
    s.seq = endpoint_seq(e, e->max);
    emit(e, &s);
}

static void send_syn(struct endpoint *e)
{
    struct segment s = blank(e);
    s.flags = TCP_SYN;
    s.seq = e->iss;
    s.window = (uint16_t)(e->config.rcvbuf > 65535 ? 65535 : e->config.rcvbuf);
    if (e->edge < s.window)
        e->edge = s.window;
    bool answer = e->state == ENDPOINT_SYN_RECEIVED;
    if (answer) {
        s.flags |= TCP_ACK;
        s.ack = e->irs + 1;
    }
    s.has_mss = e->config.mss != 0;
    s.mss = e->config.mss;
    s.has_wscale = answer ? e->rcv_wscale || e->snd_wscale : e->config.wscale >= 0;
    s.wscale = (uint8_t)(e->config.wscale >= 0 ? e->config.wscale : 0);
    s.sack_permitted = answer ? e->sack_on : e->config.sack;
    s.has_timestamps = answer ? e->ts_on : e->config.timestamps;
    s.tsval = ts_now(e);
    s.tsecr = answer ? e->ts_recent : 0;
    if (e->config.syn_data && !answer && e->config.tx_total >= 8) {
        stream_fill(e->config.tx_key, 0, e->scratch, 8);
        s.payload = e->scratch;
        s.len = 8;
    }
    emit(e, &s);
}

static uint64_t rto_now(const struct endpoint *e)
{
    uint64_t rto = e->srtt ? e->srtt + (4 * e->rttvar > MS ? 4 * e->rttvar : MS) : SEC;
    if (rto < e->config.min_rto)
        rto = e->config.min_rto;
    rto <<= e->backoff < 10 ? e->backoff : 10;
    return rto > 60 * SEC ? 60 * SEC : rto;
}

static void send_rst(struct endpoint *e)
{
    struct segment s = of_connection(e);
    s.sack_count = 0;
    s.flags = TCP_RST | TCP_ACK;
    s.seq = endpoint_seq(e, e->max);
    emit(e, &s);
}

void endpoint_abort(struct endpoint *e)
{
    if (e->state == ENDPOINT_OPEN || e->state == ENDPOINT_SYN_RECEIVED)
        send_rst(e);
    finish(e, ENDPOINT_GONE, RESULT_ABORTED);
}

/* Segments that an attacker, a broken driver or an old route might produce. None may do harm. */
static void send_junk(struct endpoint *e)
{
    struct segment s = of_connection(e);
    struct packet_style style = {0};
    uint8_t *bytes = e->scratch;
    s.seq = endpoint_seq(e, e->max);
    switch (rng_between(&e->rng, 0, 11)) {
    case 0: /* bytes that were acknowledged long ago, now different */
        if (e->una < 100)
            return;
        memset(bytes, 0xee, 100);
        s.seq = endpoint_seq(e, e->una - rng_between(&e->rng, 100, e->una));
        s.payload = bytes;
        s.len = rng_between(&e->rng, 1, 100);
        break;
    case 1: /* damaged */
        memset(bytes, 0xdd, 50);
        s.payload = bytes;
        s.len = 50;
        s.seq = endpoint_seq(e, e->una);
        style.wrong_checksum = true;
        break;
    case 2: /* options that do not parse */
        style.options = OPTIONS_ZERO_LENGTH;
        break;
    case 3:
        style.options = OPTIONS_TOO_LONG;
        break;
    case 4:
        style.options = OPTIONS_UNKNOWN;
        break;
    case 5: /* far beyond any window */
        memset(bytes, 0xcc, 50);
        s.payload = bytes;
        s.len = 50;
        s.seq += 64u << 20;
        break;
    case 6: /* a reset that was guessed (RFC 5961, 3.2) */
        s.flags = TCP_RST | (rng_chance(&e->rng, 500) ? TCP_ACK : 0);
        s.seq += (uint32_t)rng_between(&e->rng, 2, 1000);
        s.sack_count = 0;
        break;
    case 7:
        s.flags = TCP_RST;
        s.seq = endpoint_seq(e, e->una) - (uint32_t)rng_between(&e->rng, 2, 100000);
        s.sack_count = 0;
        break;
    case 8: /* a SYN in the middle (RFC 5961, 4.2); after the end it would be a good one */
        if (e->may_close)
            return;
        s.flags = TCP_SYN;
        s.seq += (uint32_t)rng_between(&e->rng, 2, 1000000);
        s.sack_count = 0;
        break;
    case 9: /* acknowledges what was never sent (RFC 5961, 5.2) */
        s.ack += (uint32_t)rng_between(&e->rng, 64u << 20, 1u << 30);
        s.sack_count = 0;
        break;
    case 10: /* SACK ranges that lie */
        if (!e->sack_on)
            return;
        s.sack_count = 2;
        s.sack[0] = (struct sack_range){s.ack + (1u << 30), s.ack + (1u << 30) + 5};
        s.sack[1] = (struct sack_range){s.ack + 5, s.ack + 1};
        break;
    case 11: /* no flags at all, or all of them */
        s.flags = 0;
        break;
    }
    e->emit(e->ctx, &s, &style);
}

static void start_rto(struct endpoint *e)
{
    alarm_set(&e->rto, now(e) + rto_now(e));
}

/* Sends [offset, offset + len) and the FIN if it follows. */
static void send_range(struct endpoint *e, uint64_t offset, size_t len, bool fin)
{
    struct segment s = of_connection(e);
    size_t mss = largest_segment(e);
    s.seq = endpoint_seq(e, offset);
    stream_fill(e->config.tx_key, offset, e->scratch, len);
    s.payload = e->scratch;
    s.len = len;
    if (len > mss)
        s.gso_size = (uint16_t)mss;
    if (fin)
        s.flags |= TCP_FIN;
    if (len && (offset + len == e->tx_ready || rng_chance(&e->rng, 100)))
        s.flags |= TCP_PSH;
    if (e->config.junk && len && len <= mss && rng_chance(&e->rng, e->config.junk)) {
        s.flags |= TCP_URG; /* tolerated, delivered in band */
        s.urgent = (uint16_t)rng_between(&e->rng, 0, 65535);
    }
    if (offset < e->max) {
        e->retransmits++;
        if (e->rtt_offset > offset)
            e->rtt_start = 0; /* Karn */
    } else if (!e->rtt_start) {
        e->rtt_start = now(e);
        e->rtt_offset = offset + len;
    }
    uint64_t end = offset + len + fin;
    if (fin)
        e->fin_sent = true;
    if (end > e->max)
        e->max = end;
    emit(e, &s);
    if (!alarm_is_set(&e->rto))
        start_rto(e);
    if (rng_chance(&e->rng, e->config.junk))
        send_junk(e);
}

static size_t pick_len(struct endpoint *e, size_t room)
{
    size_t most = largest_segment(e);
    if (e->config.gso_max > most)
        most = e->config.gso_max;
    if (e->config.random_sizes)
        most = rng_scaled(&e->rng, 1, most);
    return room < most ? room : most;
}

/* Skips what the peer has SACKed; returns where the next such range begins. */
static uint64_t skip_sacked(struct endpoint *e)
{
    for (unsigned i = 0; i < e->sacked_count; i++) {
        if (e->sacked[i].from > e->nxt)
            return e->sacked[i].from;
        if (e->nxt < e->sacked[i].to)
            e->nxt = e->sacked[i].to;
    }
    return NEVER;
}

static bool all_sent(const struct endpoint *e)
{
    return e->nxt >= e->config.tx_total && e->tx_ready == e->config.tx_total;
}

static void output(struct endpoint *e)
{
    while (e->state == ENDPOINT_OPEN) {
        uint64_t limit = e->una + e->snd_wnd;
        uint64_t hole_end = skip_sacked(e);
        if (e->una + e->cwnd < limit)
            limit = e->una + e->cwnd;
        if (e->tx_ready < limit)
            limit = e->tx_ready;
        if (hole_end < limit)
            limit = hole_end;
        size_t room = limit > e->nxt ? limit - e->nxt : 0;
        size_t len = pick_len(e, room);
        bool fin = e->may_close && e->nxt <= e->config.tx_total &&
                   e->nxt + len == e->config.tx_total && !e->fin_acked &&
                   (e->snd_wnd > 0 || e->una == e->config.tx_total);
        if (len == 0 && !fin)
            break;
        send_range(e, e->nxt, len, fin);
        e->nxt += len + fin;
        if (fin)
            break;
    }
    bool waiting = e->nxt < e->tx_ready || (e->may_close && !e->fin_sent);
    if (e->state == ENDPOINT_OPEN && e->snd_wnd == 0 && e->una == e->max && waiting &&
        !alarm_is_set(&e->persist))
        alarm_set(&e->persist, now(e) + rto_now(e));
}

static void rto_rings(void *arg)
{
    struct endpoint *e = arg;
    unsigned limit = e->state == ENDPOINT_OPEN ? e->config.tries : e->config.syn_tries;
    if (e->tries++ >= limit) {
        if (e->state == ENDPOINT_OPEN)
            send_rst(e);
        finish(e, ENDPOINT_GONE, RESULT_TIMED_OUT);
        return;
    }
    e->backoff++;
    e->timeouts++;
    if (e->state == ENDPOINT_SYN_SENT || e->state == ENDPOINT_SYN_RECEIVED) {
        send_syn(e);
        start_rto(e);
        return;
    }
    e->nxt = e->una;
    e->sacked_count = 0; /* RFC 2018, 8 */
    e->dupacks = 0;
    e->cwnd = largest_segment(e);
    if (e->snd_wnd == 0) {
        /* A probe or a FIN against a shut window. */
        size_t len = e->una < e->config.tx_total ? 1 : 0;
        send_range(e, e->una, len, e->fin_sent && e->una + len == e->config.tx_total);
        e->nxt = e->max;
    } else {
        output(e);
    }
    start_rto(e);
}

static void persist_rings(void *arg)
{
    struct endpoint *e = arg;
    if (e->snd_wnd > 0 || e->una != e->max)
        return;
    if (e->backoff < 8)
        e->backoff++;
    alarm_set(&e->persist, now(e) + rto_now(e));
    if (e->config.probe_with_data && e->nxt < e->tx_ready) {
        send_range(e, e->nxt, 1, false);
        alarm_off(&e->rto);
        e->rtt_start = 0;
        e->max--; /* a probe's byte is not in flight until it is acknowledged */
        return;
    }
    struct segment s = of_connection(e);
    s.seq = endpoint_seq(e, e->una) - 1;
    emit(e, &s);
}

/* ---- the application ---- */

static void try_close(struct endpoint *e)
{
    if (e->may_close || alarm_is_set(&e->closer) || e->state != ENDPOINT_OPEN)
        return;
    if (e->tx_ready < e->config.tx_total)
        return;
    if (e->config.close_after_peer && !e->fin_received)
        return;
    if (!e->config.close_after_peer && !all_sent(e))
        return;
    alarm_set(&e->closer, now(e) + e->config.close_delay);
}

static void closer_rings(void *arg)
{
    struct endpoint *e = arg;
    e->may_close = true;
    output(e);
}

static void writer_rings(void *arg)
{
    struct endpoint *e = arg;
    uint64_t left = e->config.tx_total - e->tx_ready;
    uint64_t chunk =
        e->config.write_interval ? rng_between(&e->rng, 1, e->config.write_chunk) : left;
    e->tx_ready += chunk < left ? chunk : left;
    if (e->tx_ready < e->config.tx_total)
        alarm_set(&e->writer, now(e) + rng_between(&e->rng, 1, 2 * e->config.write_interval));
    output(e);
    try_close(e);
}

static void announce_window(struct endpoint *e)
{
    uint64_t unread = e->rcv_nxt - e->read_pos;
    uint64_t wanted = e->rcv_nxt + (e->config.rcvbuf > unread ? e->config.rcvbuf - unread : 0);
    uint64_t step = 2 * 1460;
    if (e->config.rcvbuf / 2 < step)
        step = e->config.rcvbuf / 2;
    if (e->config.silly_updates)
        step = 1;
    if (wanted >= e->edge + (step ? step : 1) && !e->fin_received)
        send_ack(e);
}

static void reader_rings(void *arg)
{
    struct endpoint *e = arg;
    uint64_t unread = e->rcv_nxt - e->read_pos;
    uint64_t n = e->config.read_interval ? rng_between(&e->rng, 1, e->config.read_chunk) : unread;
    e->read_pos += n < unread ? n : unread;
    if (e->read_pos < e->rcv_nxt) {
        uint64_t pause = rng_between(&e->rng, 1, 2 * e->config.read_interval);
        if (rng_chance(&e->rng, e->config.stall))
            pause += rng_between(&e->rng, 1, e->config.stall_time);
        alarm_set(&e->reader, now(e) + pause);
    }
    announce_window(e);
}

static void app_readable(struct endpoint *e)
{
    if (!e->config.read_interval)
        e->read_pos = e->rcv_nxt;
    else if (!alarm_is_set(&e->reader))
        alarm_set(&e->reader, now(e) + rng_between(&e->rng, 1, 2 * e->config.read_interval));
}

static void abort_rings(void *arg)
{
    struct endpoint *e = arg;
    if (now(e) >= e->config.vanish_time)
        finish(e, ENDPOINT_GONE, RESULT_VANISHED);
    else
        endpoint_abort(e);
}

static void check_abort(struct endpoint *e)
{
    if (e->state == ENDPOINT_OPEN &&
        (e->una >= e->config.abort_at_tx || e->rcv_nxt >= e->config.abort_at_rx))
        endpoint_abort(e);
}

static void keepalive_rings(void *arg)
{
    struct endpoint *e = arg;
    if (now(e) < e->last_heard + e->config.keepalive) {
        e->keepalives_unanswered = 0;
        alarm_set(&e->keepalive, e->last_heard + e->config.keepalive);
        return;
    }
    if (e->keepalives_unanswered++ >= 9) {
        send_rst(e);
        finish(e, ENDPOINT_GONE, RESULT_TIMED_OUT);
        return;
    }
    struct segment s = of_connection(e);
    s.seq = endpoint_seq(e, e->una) - 1;
    if (rng_chance(&e->rng, 300)) { /* the old kind, with a byte of garbage */
        e->scratch[0] = 0;
        s.payload = e->scratch;
        s.len = 1;
    }
    emit(e, &s);
    alarm_set(&e->keepalive, now(e) + e->config.keepalive / 2 + 1);
}

static void delack_rings(void *arg)
{
    struct endpoint *e = arg;
    if (e->ack_owed)
        send_ack(e);
}

static void linger_rings(void *arg)
{
    struct endpoint *e = arg;
    if (e->state == ENDPOINT_TIME_WAIT)
        e->state = ENDPOINT_GONE;
}

static void check_done(struct endpoint *e)
{
    if (e->state != ENDPOINT_OPEN || !e->fin_received || !e->fin_acked)
        return;
    if (e->config.close_after_peer) {
        finish(e, ENDPOINT_GONE, RESULT_DONE);
        return;
    }
    finish(e, ENDPOINT_TIME_WAIT, RESULT_DONE);
    alarm_set(&e->linger, now(e) + e->config.time_wait);
}

/* ---- receiving ---- */

static void answer_rst(struct endpoint *e, const struct segment *in)
{
    if (in->flags & TCP_RST)
        return;
    struct segment s = blank(e);
    s.flags = TCP_RST;
    if (in->flags & TCP_ACK) {
        s.seq = in->ack;
    } else {
        s.flags |= TCP_ACK;
        s.ack = in->seq + (uint32_t)in->len + !!(in->flags & TCP_SYN) + !!(in->flags & TCP_FIN);
    }
    emit(e, &s);
}

static void learn_options(struct endpoint *e, const struct segment *s)
{
    const struct endpoint_config *c = &e->config;
    bool answer = e->state == ENDPOINT_SYN_SENT;
    if (answer && s->has_wscale && c->wscale < 0)
        complain(e->wrong, e->ctx, "window scale in the SYN-ACK was not offered");
    if (answer && s->has_timestamps && !c->timestamps)
        complain(e->wrong, e->ctx, "timestamps in the SYN-ACK were not offered");
    if (answer && s->sack_permitted && !c->sack)
        complain(e->wrong, e->ctx, "SACK permitted in the SYN-ACK was not offered");
    if (s->has_wscale && s->wscale > 14)
        complain(e->wrong, e->ctx, "window scale %u", s->wscale);
    bool scale = s->has_wscale && c->wscale >= 0;
    e->snd_wscale = scale ? s->wscale : 0;
    e->rcv_wscale = scale ? (uint8_t)c->wscale : 0;
    e->sack_on = s->sack_permitted && c->sack;
    e->ts_on = s->has_timestamps && c->timestamps;
    e->peer_mss = s->has_mss ? s->mss : (ip_address_is_v4(&c->address) ? 536 : 1220);
    e->ts_recent = s->tsval;
    e->irs = s->seq;
    e->snd_wnd = s->window;
    e->wl_seq = 0;
    e->wl_ack = 0;
}

static void becomes_open(struct endpoint *e)
{
    e->state = ENDPOINT_OPEN;
    e->tries = e->backoff = 0;
    alarm_off(&e->rto);
    e->cwnd = e->config.cwnd;
    e->last_heard = now(e);
    if (e->config.keepalive)
        alarm_set(&e->keepalive, now(e) + e->config.keepalive);
    alarm_set(&e->writer, now(e));
    check_abort(e);
}

static void input_syn_sent(struct endpoint *e, const struct segment *s)
{
    bool acceptable = (s->flags & TCP_ACK) && s->ack == e->iss + 1;
    if (s->flags & TCP_RST) {
        if (acceptable)
            finish(e, ENDPOINT_GONE, RESULT_REFUSED);
        return;
    }
    if ((s->flags & TCP_ACK) && !acceptable) {
        if (e->config.syn_data && s->ack == e->iss + 9)
            complain(e->wrong, e->ctx, "the SYN-ACK acknowledges data on the SYN");
        answer_rst(e, s);
        return;
    }
    if ((s->flags & (TCP_SYN | TCP_ACK)) != (TCP_SYN | TCP_ACK))
        return;
    if (s->len || (s->flags & TCP_FIN))
        complain(e->wrong, e->ctx, "SYN-ACK with data or FIN");
    learn_options(e, s);
    becomes_open(e);
    send_ack(e);
}

static void input_listen(struct endpoint *e, const struct segment *s)
{
    if ((s->flags & (TCP_RST | TCP_ACK | TCP_SYN)) != TCP_SYN) {
        if (e->state == ENDPOINT_LISTEN)
            answer_rst(e, s);
        return;
    }
    if (e->state == ENDPOINT_LISTEN) {
        e->state = ENDPOINT_SYN_RECEIVED;
        learn_options(e, s);
        start_rto(e);
    }
    send_syn(e);
}

/* What the segment says of the peer's receiving: acknowledgment, window, SACK. False: drop it. */
static void take_sacks(struct endpoint *e, const struct segment *s)
{
    if (s->sack_count && !e->sack_on)
        complain(e->wrong, e->ctx, "SACK ranges without SACK permitted");
    for (unsigned i = 0; i < s->sack_count; i++) {
        int32_t from = (int32_t)(s->sack[i].from - endpoint_seq(e, e->una));
        int32_t to = (int32_t)(s->sack[i].to - endpoint_seq(e, e->una));
        if (to <= from)
            complain(e->wrong, e->ctx, "SACK range %u-%u is empty or reversed", s->sack[i].from,
                     s->sack[i].to);
        if (to > 0 && e->una + (uint64_t)to > e->max)
            complain(e->wrong, e->ctx, "SACK of what was never sent");
        if (from > 0)
            spans_add(e->sacked, &e->sacked_count, e->una + (uint64_t)from, e->una + (uint64_t)to);
    }
}

static void measure_rtt(struct endpoint *e)
{
    if (!e->rtt_start || e->una < e->rtt_offset)
        return;
    uint64_t rtt = now(e) - e->rtt_start;
    e->rtt_start = 0;
    if (!e->srtt) {
        e->srtt = rtt ? rtt : 1;
        e->rttvar = rtt / 2;
        return;
    }
    uint64_t error = rtt > e->srtt ? rtt - e->srtt : e->srtt - rtt;
    e->rttvar = (3 * e->rttvar + error) / 4;
    e->srtt = (7 * e->srtt + rtt) / 8;
}

static void acked(struct endpoint *e, uint64_t offset)
{
    e->una = offset;
    if (e->nxt < e->una)
        e->nxt = e->una;
    if (e->max < e->una)
        e->max = e->una;
    spans_cut_below(e->sacked, &e->sacked_count, e->una);
    e->dupacks = e->tries = e->backoff = 0;
    measure_rtt(e);
    e->cwnd = e->cwnd * 2 > e->config.cwnd ? e->config.cwnd : e->cwnd * 2;
    if (e->fin_sent && e->una == e->config.tx_total + 1)
        e->fin_acked = true;
    alarm_off(&e->rto);
    if (e->una < e->max)
        start_rto(e);
}

static void fast_retransmit(struct endpoint *e)
{
    uint64_t limit = e->una + largest_segment(e);
    if (limit > e->tx_ready)
        limit = e->tx_ready;
    if (e->sacked_count && e->sacked[0].from < limit)
        limit = e->sacked[0].from;
    size_t len = limit > e->una ? limit - e->una : 0;
    bool fin = e->fin_sent && e->una + len == e->config.tx_total;
    if (len || fin)
        send_range(e, e->una, len, fin);
}

static void take_ack(struct endpoint *e, const struct segment *s, uint64_t offset)
{
    int32_t ahead = (int32_t)(s->ack - endpoint_seq(e, e->una));
    uint64_t window = (uint64_t)s->window << e->snd_wscale;
    uint64_t sent = e->max;
    if (e->config.probe_with_data && e->max == e->nxt && e->max < e->tx_ready)
        sent++; /* a probe's byte */
    if (ahead > 0 && e->una + (uint64_t)ahead > sent) {
        complain(e->wrong, e->ctx, "ACK of offset %llu, but only %llu were ever sent",
                 (unsigned long long)(e->una + (uint64_t)ahead), (unsigned long long)sent);
        return;
    }
    if (ahead < 0)
        return;
    take_sacks(e, s);
    bool same_window = window == e->snd_wnd;
    if (offset > e->wl_seq || (offset == e->wl_seq && e->una + (uint64_t)ahead >= e->wl_ack)) {
        e->snd_wnd = window;
        e->wl_seq = offset;
        e->wl_ack = e->una + (uint64_t)ahead;
    }
    if (e->snd_wnd > 0 && alarm_is_set(&e->persist)) {
        alarm_off(&e->persist);
        e->backoff = 0;
    }
    if (ahead > 0)
        acked(e, e->una + (uint64_t)ahead);
    else if (s->len == 0 && same_window && e->una < e->max && ++e->dupacks == 3)
        fast_retransmit(e);
}

static void keep_out_of_order(struct endpoint *e, uint64_t from, uint64_t to)
{
    spans_add(e->kept, &e->kept_count, from, to);
    e->latest = from;
    if (rng_chance(&e->rng, e->config.renege))
        e->kept_count = 0;
}

static void advance(struct endpoint *e)
{
    for (unsigned i = 0; i < e->kept_count; i++)
        if (e->kept[i].from <= e->rcv_nxt && e->kept[i].to > e->rcv_nxt)
            e->rcv_nxt = e->kept[i].to;
    spans_cut_below(e->kept, &e->kept_count, e->rcv_nxt);
}

/* True: an ACK is due at once. */
static bool take_data(struct endpoint *e, const struct segment *s, uint64_t offset)
{
    uint64_t end = offset + s->len;
    size_t same = stream_matches(e->config.rx_key, offset, s->payload, s->len);
    if (same < s->len) {
        complain(e->wrong, e->ctx, "wrong byte from the engine at offset %llu",
                 (unsigned long long)(offset + same));
        return false;
    }
    if (e->fin_at != NEVER && end > e->fin_at)
        complain(e->wrong, e->ctx, "data beyond the FIN");
    if (end <= e->rcv_nxt) {
        e->duplicate = (struct span){offset, end};
        return true;
    }
    if (end > e->edge)
        end = e->edge;
    if (offset > e->rcv_nxt) {
        if (end > offset)
            keep_out_of_order(e, offset, end);
        return true;
    }
    bool holes = e->kept_count > 0;
    if (end > e->rcv_nxt)
        e->rcv_nxt = end;
    advance(e);
    app_readable(e);
    e->ack_owed += s->gso_size ? 2 : 1;
    return holes || e->ack_owed >= e->config.ack_every || e->config.delayed_ack == 0;
}

static bool take_fin(struct endpoint *e, uint64_t offset)
{
    if (e->fin_at != NEVER && e->fin_at != offset)
        complain(e->wrong, e->ctx, "FIN moved from offset %llu to %llu",
                 (unsigned long long)e->fin_at, (unsigned long long)offset);
    e->fin_at = offset;
    if (e->kept_count && e->kept[e->kept_count - 1].to > offset)
        complain(e->wrong, e->ctx, "FIN before data received earlier");
    return true;
}

static bool acceptable(const struct endpoint *e, const struct segment *s, uint64_t offset,
                       int64_t relative)
{
    if (relative < 0 && -relative > (int64_t)e->rcv_nxt + 1)
        return false; /* before the SYN */
    uint64_t len = s->len + !!(s->flags & TCP_FIN);
    if (offset + len < e->rcv_nxt)
        return false;
    return offset <= (e->edge > e->rcv_nxt ? e->edge : e->rcv_nxt);
}

static bool timestamps_ok(struct endpoint *e, const struct segment *s, uint64_t offset)
{
    if (!e->ts_on) {
        if (s->has_timestamps && !(s->flags & TCP_SYN))
            complain(e->wrong, e->ctx, "timestamps that were not negotiated");
        return true;
    }
    if (!s->has_timestamps) {
        if (!(s->flags & TCP_RST))
            complain(e->wrong, e->ctx, "a segment without timestamps though they were negotiated");
        return true;
    }
    if ((s->flags & TCP_ACK) && !(s->flags & TCP_RST)) {
        int32_t age = (int32_t)(ts_now(e) - s->tsecr);
        if (age < 0 || (uint64_t)age > now(e) / MS)
            complain(e->wrong, e->ctx, "timestamp echo %u was never sent", s->tsecr);
    }
    if ((int32_t)(s->tsval - e->ts_recent) < 0 && !(s->flags & TCP_RST)) {
        send_ack(e); /* PAWS */
        return false;
    }
    if (offset <= e->rcv_nxt)
        e->ts_recent = s->tsval;
    return true;
}

static void input_rst(struct endpoint *e, const struct segment *s)
{
    if (s->seq == endpoint_peer_seq(e, e->rcv_nxt + e->fin_received))
        finish(e, ENDPOINT_GONE, RESULT_RESET);
    else
        send_ack(e); /* RFC 5961, 3.2 */
}

static void input_open(struct endpoint *e, const struct segment *s)
{
    int64_t relative = (int32_t)(s->seq - endpoint_peer_seq(e, e->rcv_nxt));
    uint64_t offset = e->rcv_nxt + (uint64_t)relative;
    e->last_heard = now(e);
    e->keepalives_unanswered = 0;
    if (!timestamps_ok(e, s, offset))
        return;
    if (s->flags & TCP_SYN) {
        send_ack(e);
        return;
    }
    if (!acceptable(e, s, offset, relative)) {
        if (!(s->flags & TCP_RST))
            send_ack(e);
        return;
    }
    if (s->flags & TCP_RST) {
        input_rst(e, s);
        return;
    }
    if (!(s->flags & TCP_ACK))
        return;
    take_ack(e, s, offset);
    bool at_once = false;
    if (relative < 0 && -relative > (int64_t)e->rcv_nxt) {
        at_once = true; /* a keepalive of the peer's */
    } else {
        if (s->len)
            at_once = take_data(e, s, offset);
        if (s->flags & TCP_FIN)
            at_once = take_fin(e, offset + s->len);
    }
    if (s->len == 0 && relative < 0)
        at_once = true;
    if (e->fin_at == e->rcv_nxt && !e->fin_received) {
        e->fin_received = true;
        at_once = true;
    }
    if (e->state == ENDPOINT_TIME_WAIT && (s->flags & TCP_FIN))
        alarm_set(&e->linger, now(e) + e->config.time_wait);
    if (at_once)
        send_ack(e);
    else if (e->ack_owed && !alarm_is_set(&e->delack))
        alarm_set(&e->delack, now(e) + rng_between(&e->rng, 1, e->config.delayed_ack));
    if (e->state == ENDPOINT_TIME_WAIT)
        return;
    output(e);
    try_close(e);
    check_abort(e);
    check_done(e);
}

void endpoint_input(struct endpoint *e, const struct segment *s)
{
    switch (e->state) {
    case ENDPOINT_IDLE:
        break;
    case ENDPOINT_GONE:
        if (e->result != RESULT_VANISHED)
            answer_rst(e, s);
        break;
    case ENDPOINT_LISTEN:
        input_listen(e, s);
        break;
    case ENDPOINT_SYN_SENT:
        input_syn_sent(e, s);
        break;
    case ENDPOINT_SYN_RECEIVED:
        if ((s->flags & TCP_RST) && s->seq == e->irs + 1) {
            finish(e, ENDPOINT_GONE, RESULT_RESET);
        } else if ((s->flags & TCP_SYN)) {
            input_listen(e, s);
        } else if ((s->flags & TCP_ACK) && s->ack == e->iss + 1) {
            becomes_open(e);
            input_open(e, s);
        }
        break;
    case ENDPOINT_OPEN:
    case ENDPOINT_TIME_WAIT:
        input_open(e, s);
        break;
    }
}

void endpoint_icmp(struct endpoint *e, const struct icmp_error *error)
{
    if (e->state != ENDPOINT_SYN_SENT)
        return;
    if (error->quoted_seq != e->iss) {
        complain(e->wrong, e->ctx, "ICMP error quotes another sequence number than the SYN's");
        return;
    }
    e->icmp = (uint16_t)(error->type << 8 | error->code);
    finish(e, ENDPOINT_GONE, RESULT_UNREACHABLE);
}

void endpoint_init(struct endpoint *e, const struct endpoint_config *config,
                   struct schedule *schedule, struct rng rng)
{
    *e = (struct endpoint){
        .config = *config,
        .schedule = schedule,
        .rng = rng,
        .iss = config->iss,
        .fin_at = NEVER,
    };
    while (e->config.wscale > 0 && config->rcvbuf >> e->config.wscale < 8)
        e->config.wscale--; /* or every window would round to nothing */
    alarm_init(&e->rto, schedule, rto_rings, e);
    alarm_init(&e->persist, schedule, persist_rings, e);
    alarm_init(&e->delack, schedule, delack_rings, e);
    alarm_init(&e->writer, schedule, writer_rings, e);
    alarm_init(&e->reader, schedule, reader_rings, e);
    alarm_init(&e->closer, schedule, closer_rings, e);
    alarm_init(&e->abort_alarm, schedule, abort_rings, e);
    alarm_init(&e->keepalive, schedule, keepalive_rings, e);
    alarm_init(&e->linger, schedule, linger_rings, e);
}

void endpoint_start(struct endpoint *e)
{
    uint64_t end = e->config.abort_time;
    if (e->config.vanish_time < end)
        end = e->config.vanish_time;
    if (end != NEVER)
        alarm_set(&e->abort_alarm, end);
    if (e->config.passive) {
        e->state = ENDPOINT_LISTEN;
        return;
    }
    e->state = ENDPOINT_SYN_SENT;
    send_syn(e);
    start_rto(e);
}

const char *endpoint_result_name(enum endpoint_result result)
{
    static const char *const names[] = {"nothing yet", "done",    "refused",   "unreachable",
                                        "reset",       "aborted", "timed out", "vanished"};
    return names[result];
}
