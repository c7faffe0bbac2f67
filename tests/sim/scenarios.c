/* SPDX-License-Identifier: Apache-2.0 */
/* The scenarios: each begins with a calm world (calm_plan, calm_flow), in which the seed chooses
 * only what must never matter (sizes, options, families, timing within reason), and adds its own
 * trouble. */

#include "scenarios.h"

#include <stdlib.h>

static struct ip_address address(const char *text)
{
    struct ip_address a;
    if (!ip_address_parse(text, &a))
        abort();
    return a;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- the calm world ---- */

static void calm_plan(struct plan *p, struct rng *rng)
{
    static const uint32_t mtus[] = {576, 1280, 1400, 1500, 1500, 1500, 9000, 65520};
    p->flows = 1;
    p->mtu = mtus[rng_between(rng, 0, 7)];
    p->up.delay = p->down.delay = rng_scaled(rng, 1 * US, 50 * MS);
    p->verify_checksums = rng_chance(rng, 800);
    p->cut_frames = rng_chance(rng, 300);
    p->batch = (unsigned)rng_scaled(rng, 1, 64);
    p->defer = rng_chance(rng, 300) ? 500 : 0;
    p->up.split = rng_chance(rng, 300);
    p->down.split = rng_chance(rng, 300);
    p->idle_from = NEVER;
    p->done_by = NEVER;
    p->outage_at = NEVER;
    p->new_mtu_at = NEVER;
}

static void calm_guest(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    struct endpoint_config *g = &f->guest;
    bool v6 = p->mtu >= 1280 && rng_chance(rng, 400);
    g->address = address(v6 ? "fd63:756c:7665::64" : "10.0.2.100");
    g->peer_address = address(v6 ? "2606:4700::1111" : "93.184.216.34");
    g->peer_port = (uint16_t)rng_between(rng, 1, 65535);
    g->iss = (uint32_t)rng_next(rng);
    if (rng_chance(rng, 300)) /* wraps soon */
        g->iss = UINT32_MAX - (uint32_t)rng_scaled(rng, 0, 300000);
    g->ts_offset = (uint32_t)rng_next(rng);
    if (rng_chance(rng, 200))
        g->ts_offset = UINT32_MAX - (uint32_t)rng_scaled(rng, 0, 5000);
    unsigned header = v6 ? 60 : 40;
    uint16_t full = (uint16_t)(p->mtu - header);
    g->mtu = (uint16_t)p->mtu;
    g->mss = full;
    if (rng_chance(rng, 200) && full > 536)
        g->mss = (uint16_t)rng_between(rng, 536, full);
    if (rng_chance(rng, 50))
        g->mss = 0;
    g->wscale = rng_chance(rng, 850) ? (int)rng_between(rng, 0, 14) : -1;
    g->sack = rng_chance(rng, 850);
    g->dsack = rng_chance(rng, 500);
    g->timestamps = rng_chance(rng, 600);
    g->tx_total = rng_chance(rng, 100) ? 0 : rng_scaled(rng, 1, 300000);
    g->gso_max = rng_chance(rng, 500) ? rng_scaled(rng, full, 65000) : 0;
    g->random_sizes = rng_chance(rng, 300);
    g->cwnd = rng_scaled(rng, 2u * full, 1u << 20);
    g->offload_checksum = rng_chance(rng, 500);
    g->rcvbuf = rng_scaled(rng, 64 << 10, 4 << 20);
    g->delayed_ack = rng_chance(rng, 700) ? 40 * MS : 0;
    g->ack_every = (unsigned)rng_between(rng, 1, 3);
    g->abort_time = g->abort_at_tx = g->abort_at_rx = g->vanish_time = NEVER;
    g->min_rto = 300 * MS;
    g->syn_tries = 8;
    g->tries = 40;
    g->probe_with_data = rng_chance(rng, 500);
    g->time_wait = 300 * SEC; /* longer than anybody's RTO */
    g->close_after_peer = rng_chance(rng, 500);
    g->close_delay = rng_chance(rng, 300) ? rng_scaled(rng, 1 * US, 2 * SEC) : 0;
}

static void calm_host(struct flow_plan *f, struct rng *rng)
{
    struct host_config *h = &f->host;
    h->connect = HOST_CONNECTS;
    h->connect_delay = rng_chance(rng, 300) ? 0 : rng_scaled(rng, 1 * US, 200 * MS);
    h->early_upstream = rng_chance(rng, 500);
    h->tx_total = rng_chance(rng, 100) ? 0 : rng_scaled(rng, 1, 300000);
    h->send_buffer = 1 << 20;
    h->read_most = rng_chance(rng, 700) ? SIZE_MAX : rng_scaled(rng, 1500, 65536);
    h->eof_without_reserve = rng_chance(rng, 300);
    h->close_after_peer = !f->guest.close_after_peer && rng_chance(rng, 500);
    h->close_delay = rng_chance(rng, 300) ? rng_scaled(rng, 1 * US, 2 * SEC) : 0;
    h->reset_time = h->reset_at_tx = h->reset_at_rx = NEVER;
    h->give_up = NEVER;
    if (rng_chance(rng, 300)) {
        h->produce_interval = rng_scaled(rng, 1 * US, 20 * MS);
        h->produce_chunk = h->tx_total / 20 + 1;
    }
}

static void calm_flow(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    calm_guest(p, f, rng);
    calm_host(f, rng);
    if (rng_chance(rng, 300)) {
        f->guest.write_interval = rng_scaled(rng, 1 * US, 20 * MS);
        f->guest.write_chunk = f->guest.tx_total / 20 + 1;
    }
    f->start = p->flows > 1 ? rng_between(rng, 0, 500 * MS) : 0;
}

/* Nobody shall need more than a few hundred rounds for what there is to carry. */
static void be_patient(struct flow_plan *f)
{
    const struct endpoint_config *g = &f->guest;
    const struct host_config *h = &f->host;
    f->host.tx_total = least(f->host.tx_total, 300 * g->rcvbuf);
    if (g->read_interval)
        f->host.tx_total = least(f->host.tx_total, 200 * g->read_chunk);
    if (h->drain_interval)
        f->guest.tx_total = least(f->guest.tx_total, 200 * least(h->send_buffer, h->drain_chunk));
    if (g->write_interval)
        f->guest.write_chunk = f->guest.tx_total / 20 + 1;
    f->host.hold = least(h->hold, f->guest.tx_total);
    if (h->produce_interval)
        f->host.produce_chunk = f->host.tx_total / 20 + 1;
}

/* What each side must know of the other. */
static void introduce(struct flow_plan *f, struct rng *rng)
{
    be_patient(f);
    f->guest.tx_key = f->host.rx_key = rng_next(rng);
    f->guest.rx_key = f->host.tx_key = rng_next(rng);
    f->host.rx_total = f->guest.tx_total;
    /* Two sides that both wait for the other's FIN would wait for ever. */
    if (f->guest.close_after_peer)
        f->host.close_after_peer = false;
    f->guest.passive = f->from_host;
    if (f->guest_resets || f->guest_vanishes || f->may_time_out)
        f->host.give_up = 3600 * SEC / 2;
    if (f->host_resets)
        f->guest.keepalive = f->guest.keepalive ? f->guest.keepalive : 60 * SEC;
}

/* ---- troubles ---- */

static void lossy(struct plan *p, unsigned permille)
{
    p->up.loss = p->down.loss = permille;
}

static void disorder(struct plan *p, struct rng *rng)
{
    p->up.reorder = (unsigned)rng_between(rng, 0, 200);
    p->down.reorder = (unsigned)rng_between(rng, 0, 200);
    p->up.reorder_delay = p->down.reorder_delay = rng_scaled(rng, 10 * US, 100 * MS);
    p->up.duplicate = (unsigned)rng_between(rng, 0, 100);
    p->down.duplicate = (unsigned)rng_between(rng, 0, 100);
    p->up.jitter = p->down.jitter = rng_scaled(rng, 1 * US, 20 * MS);
}

static void small_mtu(struct plan *p)
{
    if (p->mtu > 9000)
        p->mtu = 1500;
}

static void clean_plan(struct plan *p, struct rng *rng)
{
    (void)rng;
    p->quiet = true;
    p->no_timeouts = true;
}

static void big_upload(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest.tx_total = rng_between(rng, 512 << 10, 4 << 20);
    f->guest.random_sizes = false;
    f->guest.cwnd = rng_between(rng, 256 << 10, 2 << 20);
    f->guest.ack_every = (unsigned)rng_between(rng, 1, 2);
    f->guest.write_interval = 0;
    f->host.tx_total = rng_between(rng, 0, 1000);
}

static void big_download(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->host.tx_total = rng_between(rng, 512 << 10, 4 << 20);
    f->host.produce_interval = 0;
    f->guest.ack_every = (unsigned)rng_between(rng, 1, 2); /* RFC 9293, 3.8.6.3 */
    f->guest.tx_total = rng_between(rng, 0, 1000);
}

static void big_both(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    big_upload(p, f, rng);
    f->host.tx_total = rng_between(rng, 512 << 10, 2 << 20);
}

static void loss_of_a_few_percent(struct plan *p, struct rng *rng)
{
    small_mtu(p);
    lossy(p, (unsigned)rng_between(rng, 1, 50));
}

static void loss_of_a_third(struct plan *p, struct rng *rng)
{
    small_mtu(p);
    lossy(p, (unsigned)rng_between(rng, 100, 300));
}

static void little_data(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest.tx_total = rng_scaled(rng, 0, 50000);
    f->host.tx_total = rng_scaled(rng, 0, 50000);
}

static void disorderly(struct plan *p, struct rng *rng)
{
    disorder(p, rng);
}

static void ghosts_of_packets(struct plan *p, struct rng *rng)
{
    disorder(p, rng);
    p->up.stale = (unsigned)rng_between(rng, 1, 100);
    p->down.stale = (unsigned)rng_between(rng, 1, 100);
    lossy(p, (unsigned)rng_between(rng, 0, 20));
}

static void full_link(struct plan *p, struct rng *rng)
{
    p->down.capacity = (size_t)rng_scaled(rng, 1, 64);
    p->down.refusal = (unsigned)rng_between(rng, 0, 300);
}

static void tiny_window(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest.rcvbuf = rng_scaled(rng, 1, 3000);
    f->guest.wscale = rng_chance(rng, 500) ? 0 : -1;
    f->host.tx_total = rng_scaled(rng, 1, 200 * f->guest.rcvbuf);
    f->guest.silly_updates = rng_chance(rng, 300);
}

static void slow_reader(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest.rcvbuf = rng_scaled(rng, 2000, 100000);
    f->guest.wscale = rng_chance(rng, 500) ? (int)rng_between(rng, 0, 7) : -1;
    f->host.tx_total = rng_scaled(rng, 1, 400000);
    f->guest.read_interval = rng_scaled(rng, 10 * US, 50 * MS);
    f->guest.read_chunk = rng_scaled(rng, 1000, 50000);
    f->guest.stall = (unsigned)rng_between(rng, 0, 100);
    f->guest.stall_time = rng_scaled(rng, 1 * MS, 100 * SEC);
    f->guest.silly_updates = rng_chance(rng, 200);
}

static void crumbs(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest.tx_total = rng_scaled(rng, 1, 1500000);
    f->host.send_buffer = rng_scaled(rng, 1, 100000);
    f->host.drain_interval = rng_scaled(rng, 1 * US, 20 * MS);
    f->host.drain_chunk = f->guest.tx_total / 100 + rng_scaled(rng, 1, 50000);
    f->host.short_write = (unsigned)rng_between(rng, 0, 300);
    f->host.read_most = rng_scaled(rng, 100, 65536);
    f->host.empty_read = (unsigned)rng_between(rng, 0, 200);
    f->host.resume_delay = rng_scaled(rng, 0, 5 * MS);
}

static void outage(struct plan *p, struct rng *rng)
{
    p->outage_at = rng_scaled(rng, SEC, 3 * SEC);
    p->outage_time = rng_scaled(rng, 1 * MS, 60 * SEC);
}

static void smaller_mtu(struct plan *p, struct rng *rng)
{
    p->mtu = (uint32_t)rng_between(rng, 1500, 9000);
    p->new_mtu = (uint32_t)rng_between(rng, 1280, p->mtu);
    p->new_mtu_at = rng_scaled(rng, SEC, 2 * SEC);
}

static void little_memory(struct plan *p, struct rng *rng)
{
    p->queue_budget = rng_scaled(rng, 64 << 10, 4 << 20);
    p->flows = (unsigned)rng_between(rng, 1, 10);
}

static void half_closed(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    bool guest_last = rng_chance(rng, 500);
    f->guest.close_after_peer = guest_last;
    f->host.close_after_peer = !guest_last;
    f->guest.tx_total = rng_scaled(rng, 0, 100000);
    f->host.tx_total = rng_scaled(rng, 0, 100000);
    /* The one that closes last goes on for long. */
    if (guest_last) {
        f->guest.write_interval = rng_scaled(rng, 1 * MS, 2 * SEC);
        f->guest.write_chunk = f->guest.tx_total / 10 + 1;
        f->guest.close_delay = rng_scaled(rng, 1 * MS, 600 * SEC);
    } else {
        f->host.produce_interval = rng_scaled(rng, 1 * MS, 2 * SEC);
        f->host.produce_chunk = f->host.tx_total / 10 + 1;
        f->host.close_delay = rng_scaled(rng, 1 * MS, 600 * SEC);
    }
}

static void guest_resets(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest_resets = true;
    switch (rng_between(rng, 0, 2)) {
    case 0:
        f->guest.abort_time = rng_scaled(rng, SEC, 3 * SEC);
        break;
    case 1:
        f->guest.abort_at_tx = rng_scaled(rng, 0, f->guest.tx_total);
        break;
    default:
        f->guest.abort_at_rx = rng_scaled(rng, 0, f->host.tx_total);
    }
    if (rng_chance(rng, 300))
        crumbs(p, f, rng);
}

static void host_resets(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    f->host_resets = true;
    if (rng_chance(rng, 300))
        slow_reader(p, f, rng);
    switch (rng_between(rng, 0, 2)) {
    case 0:
        f->host.reset_time = rng_scaled(rng, 0, 2 * SEC);
        break;
    case 1:
        f->host.reset_at_tx = rng_scaled(rng, 0, f->host.tx_total);
        break;
    default:
        f->host.reset_at_rx = rng_scaled(rng, 1, f->guest.tx_total + 1);
    }
    f->host.write_fails = rng_chance(rng, 300);
}

static void holding(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->host.hold = rng_scaled(rng, 1, least(f->guest.tx_total, 60000));
}

static void denied(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    host_resets(p, f, rng);
    f->host.denies = true;
    f->host.write_fails = false;
    if (rng_chance(rng, 500))
        holding(p, f, rng);
}

static void refused(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->host.connect = HOST_REFUSES;
    f->host.refusal = (enum tcp_refusal)rng_between(rng, 0, 4);
    if (f->host.refusal == TCP_REFUSE_SILENT) {
        f->may_time_out = true;
        f->guest.syn_tries = 3;
        f->host.connect_delay = rng_chance(rng, 500) ? 127 * SEC : f->host.connect_delay;
    }
}

static void late(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->host.connect_delay = rng_scaled(rng, 100 * MS, 60 * SEC);
    f->host.silent_first = (unsigned)rng_between(rng, 0, 2);
    if (f->host.silent_first)
        f->host.connect_delay = rng_scaled(rng, 0, 500 * MS);
}

static void junk(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest.junk = (unsigned)rng_between(rng, 20, 500);
    f->guest.syn_data = rng_chance(rng, 200);
}

static void verified(struct plan *p, struct rng *rng)
{
    (void)rng;
    p->verify_checksums = true;
}

static void reneging(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest.sack = true;
    f->guest.renege = (unsigned)rng_between(rng, 50, 500);
    f->host.tx_total = rng_scaled(rng, 10000, 300000);
}

static void crowd(struct plan *p, struct rng *rng)
{
    p->flows = (unsigned)rng_between(rng, 20, SCENARIO_FLOWS_MAX);
    lossy(p, rng_chance(rng, 500) ? (unsigned)rng_between(rng, 0, 50) : 0);
    p->batch = (unsigned)rng_between(rng, 1, 200);
}

static void anything_small(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    little_data(p, f, rng);
    switch (rng_between(rng, 0, 7)) {
    case 0:
        guest_resets(p, f, rng);
        break;
    case 1:
        host_resets(p, f, rng);
        break;
    case 2:
        refused(p, f, rng);
        break;
    case 3:
        half_closed(p, f, rng);
        break;
    default:
        break;
    }
}

static void idle_plan(struct plan *p, struct rng *rng)
{
    p->flows = (unsigned)rng_between(rng, 1, 50);
    p->quiet = true;
    p->idle_from = 20 * SEC;
    p->idle_until = 590 * SEC;
    p->idle_wakeups_most = 0;
}

/* Everybody talks for a moment, then all are silent until ten minutes later. */
static void idle_flow(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest.tx_total = rng_scaled(rng, 0, 1000);
    f->host.tx_total = rng_scaled(rng, 0, 1000);
    f->guest.close_after_peer = rng_chance(rng, 500);
    f->host.close_after_peer = !f->guest.close_after_peer;
    f->guest.write_interval = f->host.produce_interval = 0;
    f->guest.close_delay = f->host.close_delay = 600 * SEC;
}

static void keepalives(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    idle_flow(p, f, rng);
    f->guest.keepalive = rng_scaled(rng, SEC, 60 * SEC);
}

static void vanishing(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    f->guest_vanishes = true;
    f->guest.vanish_time = rng_scaled(rng, SEC, 3 * SEC);
    if (rng_chance(rng, 500))
        f->host.produce_interval = 100 * MS;
}

static void published(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)p;
    (void)rng;
    f->from_host = true;
}

static void one_loss(struct plan *p, struct rng *rng)
{
    p->mtu = 1500;
    p->down.split = true;
    p->up.delay = p->down.delay = rng_between(rng, 1 * MS, 40 * MS);
    p->drop_nth_data = (unsigned)rng_between(rng, 1, 100);
    p->drop_count = (unsigned)rng_between(rng, 1, 3);
    p->no_timeouts = true;
    p->fast_retransmit_wanted = true;
    /* Connecting, a round for each: handshake, data, repair, FIN; and as much again. */
    p->done_by = 210 * MS + 8 * (p->up.delay + p->down.delay);
}

/* Enough follows the loss for SACKs to tell of it. */
static void one_loss_flow(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    (void)rng;
    f->guest.sack = true;
    f->guest.tx_total = 0;
    f->guest.write_interval = 0;
    f->guest.close_after_peer = true;
    f->guest.close_delay = 0;
    f->guest.delayed_ack = 0;
    f->guest.ack_every = 1;
    f->guest.rcvbuf = 4 << 20;
    f->guest.wscale = 7;
    f->guest.mss = (uint16_t)(p->mtu - 60);
    f->host.tx_total = 400000;
    f->host.produce_interval = 0;
    f->host.read_most = SIZE_MAX;
    f->host.close_delay = 0;
}

static void tail_loss(struct plan *p, struct rng *rng)
{
    one_loss(p, rng);
    p->drop_nth_data = 0;
    p->fast_retransmit_wanted = false;
    p->done_by = NEVER;
    p->drop_last_data = true;
    p->tail_probe_wanted = true;
}

static void tail_loss_flow(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    one_loss_flow(p, f, rng);
    f->host.tx_total = rng_between(rng, 20000, 400000);
    f->host.close_after_peer = false;
    /* The FIN comes much later: nothing else tells of the loss. */
    f->host.close_delay = 30 * SEC;
}

static void everything_plan(struct plan *p, struct rng *rng)
{
    p->flows = (unsigned)rng_scaled(rng, 1, 8);
    small_mtu(p);
    if (rng_chance(rng, 500))
        lossy(p, (unsigned)rng_scaled(rng, 1, 150));
    if (rng_chance(rng, 500))
        disorder(p, rng);
    if (rng_chance(rng, 300))
        full_link(p, rng);
    if (rng_chance(rng, 200))
        p->down.stale = p->up.stale = 20;
    if (rng_chance(rng, 300))
        p->queue_budget = rng_scaled(rng, 64 << 10, 4 << 20);
    p->verify_checksums = true;
}

static void everything_flow(const struct plan *p, struct flow_plan *f, struct rng *rng)
{
    static void (*const troubles[])(const struct plan *, struct flow_plan *, struct rng *) = {
        tiny_window, slow_reader, crumbs,   half_closed, guest_resets, host_resets,
        refused,     late,        junk,     reneging,    keepalives,   vanishing,
        published,   little_data, big_both, little_data};
    for (int i = 0; i < 2; i++)
        troubles[rng_between(rng, 0, 15)](p, f, rng);
    if (f->from_host) {
        f->host.connect = HOST_CONNECTS;
        f->host.silent_first = 0;
        f->guest.syn_data = false;
    }
}

/* ---- the table ---- */

const struct scenario scenarios[] = {
    {"an_upload_on_a_clean_link", 4, clean_plan, big_upload},
    {"a_download_on_a_clean_link", 4, clean_plan, big_download},
    {"both_ways_on_a_clean_link", 4, clean_plan, big_both},
    {"small_exchanges_on_a_clean_link", 1, clean_plan, little_data},
    {"a_few_percent_are_lost", 1, loss_of_a_few_percent, NULL},
    {"up_to_a_third_is_lost", 2, loss_of_a_third, little_data},
    {"packets_overtake_and_come_twice", 1, disorderly, NULL},
    {"old_packets_come_back", 1, ghosts_of_packets, NULL},
    {"the_link_is_often_full", 1, full_link, NULL},
    {"the_link_is_down_for_a_while", 1, outage, NULL},
    {"the_mtu_becomes_smaller", 1, smaller_mtu, NULL},
    {"windows_are_tiny", 1, NULL, tiny_window},
    {"the_guest_reads_slowly", 1, NULL, slow_reader},
    {"the_host_takes_crumbs", 1, NULL, crumbs},
    {"the_host_takes_crumbs_and_memory_is_short", 4, little_memory, crumbs},
    {"half_closed_for_long_either_way", 1, NULL, half_closed},
    {"the_guest_resets", 1, NULL, guest_resets},
    {"the_guest_resets_on_a_lossy_link", 1, loss_of_a_few_percent, guest_resets},
    {"the_host_resets", 1, NULL, host_resets},
    {"the_host_resets_on_a_lossy_link", 1, loss_of_a_few_percent, host_resets},
    {"the_host_resets_on_a_full_link", 1, full_link, host_resets},
    {"the_host_holds_the_first_bytes", 1, NULL, holding},
    {"the_policy_denies_late", 1, NULL, denied},
    {"the_host_refuses", 1, NULL, refused},
    {"the_host_refuses_on_a_lossy_link", 1, loss_of_a_third, refused},
    {"the_host_connects_late", 1, NULL, late},
    {"junk_between_good_segments", 1, verified, junk},
    {"the_guest_reneges_on_its_sacks", 1, loss_of_a_few_percent, reneging},
    {"idle_flows_cause_no_wakeups", 2, idle_plan, idle_flow},
    {"keepalives_are_answered", 2, NULL, keepalives},
    {"the_guest_vanishes", 1, NULL, vanishing},
    {"flows_begin_at_the_host", 1, NULL, published},
    {"flows_begin_at_the_host_on_a_lossy_link", 1, loss_of_a_few_percent, published},
    {"a_single_loss_is_repaired_without_timeout", 1, one_loss, one_loss_flow},
    {"a_lost_tail_is_found_by_a_probe", 1, tail_loss, tail_loss_flow},
    {"a_crowd_of_flows", 8, crowd, anything_small},
    {"everything_at_once", 1, everything_plan, everything_flow},
};
const size_t scenario_count = sizeof(scenarios) / sizeof(*scenarios);

const struct scenario *scenario_find(const char *name)
{
    for (size_t i = 0; i < scenario_count; i++)
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
    return NULL;
}

void scenario_make(const struct scenario *scenario, uint64_t seed, struct plan *plan,
                   struct flow_plan *flows)
{
    struct rng rng = {.state = rng_mix(seed + 1) + (uint64_t)(scenario - scenarios)};
    rng_next(&rng);
    *plan = (struct plan){.scenario = scenario->name, .seed = seed};
    calm_plan(plan, &rng);
    if (scenario->plan)
        scenario->plan(plan, &rng);
    for (unsigned i = 0; i < plan->flows; i++) {
        flows[i] = (struct flow_plan){0};
        calm_flow(plan, &flows[i], &rng);
        if (scenario->flow)
            scenario->flow(plan, &flows[i], &rng);
        if (plan->quiet && flows[i].guest.ack_every > 2)
            flows[i].guest.ack_every = 2; /* RFC 9293, 3.8.6.3 */
        introduce(&flows[i], &rng);
    }
}
