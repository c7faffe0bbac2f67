/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <errno.h>

#include "complaint.h"

static uint64_t now(const struct host *h)
{
    return h->schedule->now;
}

static bool live(const struct host *h)
{
    return h->connected && !h->closed;
}

/* ---- the upstream interface ---- */

static size_t room(struct host *h)
{
    if (!h->config.drain_interval)
        return SIZE_MAX;
    return h->config.send_buffer > h->buffered ? h->config.send_buffer - h->buffered : 0;
}

static bool check_bytes(struct host *h, const uint8_t *bytes, size_t len)
{
    if (h->rx_pos + len > h->config.rx_total) {
        complain(h->wrong, h->ctx, "write() beyond the guest's last byte");
        return false;
    }
    size_t same = stream_matches(h->config.rx_key, h->rx_pos, bytes, len);
    if (same == len)
        return true;
    complain(h->wrong, h->ctx, "wrong byte for the host at offset %llu",
             (unsigned long long)(h->rx_pos + same));
    return false;
}

static ssize_t upstream_write(void *ctx, uint64_t token, const struct iovec *iov, int count)
{
    struct host *h = ctx;
    (void)token;
    if (!h->connected || h->closed || h->shut_seen)
        complain(h->wrong, h->ctx, "write() on an upstream that is not connected, closed or shut");
    if (count <= 0 || iov[0].iov_len == 0)
        complain(h->wrong, h->ctx, "write() of nothing");
    h->writes++;
    if (h->broken)
        return -EPIPE;
    if (h->blocked)
        complain(h->wrong, h->ctx,
                 "write() before tcp_writable(), though the last took less than offered");
    size_t space = room(h), offered = 0, taken = 0;
    for (int i = 0; i < count; i++)
        offered += iov[i].iov_len;
    if (h->config.denies && h->rx_pos + offered >= h->config.reset_at_rx) {
        h->reset_sent = true;
        return TCP_WRITE_REFUSED;
    }
    if (h->rx_pos == 0 && offered < h->config.hold)
        return TCP_WRITE_MORE;
    if (space > offered)
        space = offered;
    if (space > 0 && rng_chance(&h->rng, h->config.short_write)) {
        space = rng_between(&h->rng, 0, space);
        if (!h->config.drain_interval)
            alarm_set(&h->drainer, now(h) + rng_scaled(&h->rng, 0, 20 * MS));
    }
    for (int i = 0; i < count && taken < space; i++) {
        size_t n = iov[i].iov_len < space - taken ? iov[i].iov_len : space - taken;
        if (!check_bytes(h, iov[i].iov_base, n))
            return -EPIPE;
        h->rx_pos += n;
        taken += n;
    }
    if (h->config.drain_interval) {
        h->buffered += taken;
        if (!alarm_is_set(&h->drainer))
            alarm_set(&h->drainer, now(h) + rng_between(&h->rng, 1, 2 * h->config.drain_interval));
    }
    h->blocked = taken < offered;
    if (h->rx_pos >= h->config.reset_at_rx && !h->reset_sent)
        alarm_set(&h->resetter, now(h));
    return (ssize_t)taken;
}

static void try_close(struct host *h)
{
    if (h->may_close || alarm_is_set(&h->closer) || h->tx_pos < h->config.tx_total)
        return;
    if (h->config.close_after_peer && !h->shut_seen)
        return;
    alarm_set(&h->closer, now(h) + h->config.close_delay);
}

static void upstream_shut_write(void *ctx, uint64_t token)
{
    struct host *h = ctx;
    (void)token;
    if (!live(h))
        complain(h->wrong, h->ctx, "shut_write() on an upstream that is not connected or closed");
    if (h->shut_seen)
        complain(h->wrong, h->ctx, "shut_write() twice");
    if (h->rx_pos != h->config.rx_total && !h->broken)
        complain(h->wrong, h->ctx, "shut_write() after %llu of %llu bytes",
                 (unsigned long long)h->rx_pos, (unsigned long long)h->config.rx_total);
    h->shut_seen = true;
    try_close(h);
}

static void upstream_resume(void *ctx, uint64_t token)
{
    struct host *h = ctx;
    (void)token;
    if (h->closed)
        complain(h->wrong, h->ctx, "resume() after close()");
    h->resumes++;
    if (!h->connected) { /* published port: the guest has answered */
        h->connected = true;
        alarm_set(&h->producer, now(h));
    }
    h->paused = false;
    uint64_t delay = h->config.resume_delay ? rng_between(&h->rng, 0, h->config.resume_delay) : 0;
    alarm_set(&h->reader, now(h) + delay);
}

static void upstream_keepalive(void *ctx, uint64_t token)
{
    struct host *h = ctx;
    (void)token;
    if (!live(h))
        complain(h->wrong, h->ctx, "keepalive() on an upstream that is not connected or closed");
    h->keepalives++;
}

static void upstream_close(void *ctx, uint64_t token, enum tcp_close how)
{
    struct host *h = ctx;
    (void)token;
    if (h->closed)
        complain(h->wrong, h->ctx, "close() twice");
    h->closed = true;
    h->closed_at = now(h);
    h->how = how;
    struct alarm *alarms[] = {&h->connecting, &h->producer, &h->reader,   &h->drainer,
                              &h->closer,     &h->resetter, &h->giving_up};
    for (size_t i = 0; i < sizeof(alarms) / sizeof(*alarms); i++)
        alarm_off(alarms[i]);
    if (h->changed)
        h->changed(h->ctx);
}

static const struct tcp_upstream upstream = {
    .write = upstream_write,
    .shut_write = upstream_shut_write,
    .resume = upstream_resume,
    .keepalive = upstream_keepalive,
    .close = upstream_close,
};

/* ---- reading: bytes for the guest ---- */

static size_t fill(struct host *h, struct iovec *iov, int count, size_t wanted)
{
    size_t filled = 0;
    for (int i = 0; i < count && filled < wanted; i++) {
        size_t n = iov[i].iov_len < wanted - filled ? iov[i].iov_len : wanted - filled;
        stream_fill(h->config.tx_key, h->tx_pos + filled, iov[i].iov_base, n);
        filled += n;
    }
    return filled;
}

/* One turn of a relay: reserve, "recv", commit. True: worth another turn. */
static bool read_once(struct host *h)
{
    if (!live(h) || h->eof_sent || h->paused)
        return false;
    bool at_end = h->tx_pos == h->config.tx_total && h->may_close;
    if (at_end && h->config.eof_without_reserve) {
        h->eof_sent = true;
        tcp_rx_eof(h->stack, h->flow);
        return false;
    }
    if (h->tx_pos == h->tx_ready && !at_end && !rng_chance(&h->rng, h->config.empty_read))
        return false;
    struct iovec iov[TCP_RESERVE_IOV];
    int count = tcp_rx_reserve(h->stack, h->flow, iov);
    if (count == 0) {
        h->paused = true;
        return false;
    }
    if (count < 0 || count > TCP_RESERVE_IOV || iov[0].iov_len == 0) {
        complain(h->wrong, h->ctx, "tcp_rx_reserve() returned %d", count);
        return false;
    }
    size_t wanted = h->tx_ready - h->tx_pos;
    if (wanted > h->config.read_most)
        wanted = rng_between(&h->rng, 1, h->config.read_most);
    if (rng_chance(&h->rng, h->config.empty_read))
        wanted = 0;
    size_t n = fill(h, iov, count, wanted);
    h->tx_pos += n;
    h->commits++;
    tcp_rx_commit(h->stack, h->flow, n);
    if (n == 0 && at_end && live(h)) {
        h->eof_sent = true;
        tcp_rx_eof(h->stack, h->flow);
        return false;
    }
    return n > 0;
}

static void reader_rings(void *arg)
{
    struct host *h = arg;
    for (int turn = 0; turn < 8; turn++)
        if (!read_once(h))
            break;
    if (!live(h))
        return;
    if (h->tx_pos >= h->config.reset_at_tx && !h->reset_sent)
        alarm_set(&h->resetter, now(h));
    try_close(h);
    bool more = h->tx_pos < h->tx_ready || (h->may_close && !h->eof_sent);
    if (more && !h->paused && !alarm_is_set(&h->reader))
        alarm_set(&h->reader, now(h));
}

static void producer_rings(void *arg)
{
    struct host *h = arg;
    uint64_t left = h->config.tx_total - h->tx_ready;
    uint64_t chunk =
        h->config.produce_interval ? rng_between(&h->rng, 1, h->config.produce_chunk) : left;
    h->tx_ready += chunk < left ? chunk : left;
    if (h->tx_ready < h->config.tx_total)
        alarm_set(&h->producer, now(h) + rng_between(&h->rng, 1, 2 * h->config.produce_interval));
    if (!alarm_is_set(&h->reader))
        alarm_set(&h->reader, now(h));
}

static void closer_rings(void *arg)
{
    struct host *h = arg;
    h->may_close = true;
    if (!alarm_is_set(&h->reader))
        alarm_set(&h->reader, now(h));
}

static void drainer_rings(void *arg)
{
    struct host *h = arg;
    if (h->config.drain_interval) {
        size_t n = rng_between(&h->rng, 1, h->config.drain_chunk);
        h->buffered -= n < h->buffered ? n : h->buffered;
        if (h->buffered)
            alarm_set(&h->drainer, now(h) + rng_between(&h->rng, 1, 2 * h->config.drain_interval));
    }
    if (h->blocked && live(h) && room(h) * 3 >= h->config.send_buffer) {
        h->blocked = false;
        tcp_writable(h->stack, h->flow);
    }
}

/* ---- the beginning and the end ---- */

static void resetter_rings(void *arg)
{
    struct host *h = arg;
    if (h->reset_sent || !live(h))
        return;
    if (h->config.write_fails && !h->broken) {
        h->broken = true; /* the next write fails; the event that says why comes a little later */
        alarm_set(&h->resetter, now(h) + rng_scaled(&h->rng, 1, 5 * MS));
        return;
    }
    h->reset_sent = true;
    if (h->config.denies)
        tcp_abort(h->stack, h->flow);
    else
        tcp_host_reset(h->stack, h->flow);
    if (!h->closed)
        complain(h->wrong, h->ctx, "close() did not follow the reset");
}

static void giving_up_rings(void *arg)
{
    struct host *h = arg;
    if (h->closed || h->reset_sent)
        return;
    if (!h->connected) {
        h->refused = true;
        tcp_refuse(h->stack, h->flow, TCP_REFUSE_SILENT);
        return;
    }
    h->reset_sent = true;
    tcp_host_reset(h->stack, h->flow);
}

static void now_connected(struct host *h)
{
    h->connected = true;
    tcp_connected(h->stack, h->flow);
    if (h->closed)
        return;
    alarm_set(&h->producer, now(h));
    if (h->config.reset_time != NEVER)
        alarm_set(&h->resetter, now(h) + h->config.reset_time);
}

static void connecting_rings(void *arg)
{
    struct host *h = arg;
    if (h->closed)
        return;
    if (h->attempts <= h->config.silent_first) {
        h->opened = false;
        tcp_refuse(h->stack, h->flow, TCP_REFUSE_SILENT);
    } else if (h->config.connect == HOST_REFUSES) {
        h->refused = true;
        tcp_refuse(h->stack, h->flow, h->config.refusal);
        if (h->changed)
            h->changed(h->ctx);
    } else {
        if (!h->config.early_upstream && !tcp_set_upstream(h->stack, h->flow, &upstream, h, 0)) {
            h->refused = true; /* the guest has given up meanwhile */
            if (h->changed)
                h->changed(h->ctx);
            return;
        }
        now_connected(h);
    }
}

void host_open(struct host *h, struct flow_handle flow)
{
    h->flow = flow;
    h->opened = true;
    h->attempts++;
    if (h->refused) { /* a SYN that comes again */
        tcp_refuse(h->stack, flow, h->config.refusal);
        return;
    }
    if (h->config.give_up != NEVER)
        alarm_set(&h->giving_up, now(h) + h->config.give_up);
    if (h->config.early_upstream && h->attempts > h->config.silent_first &&
        h->config.connect == HOST_CONNECTS && !tcp_set_upstream(h->stack, h->flow, &upstream, h, 0))
        complain(h->wrong, h->ctx, "tcp_set_upstream() refused in tcp_open");
    if (h->config.connect_delay == 0)
        connecting_rings(h);
    else
        alarm_set(&h->connecting, now(h) + h->config.connect_delay);
}

bool host_open_to_guest(struct host *h, const struct flow_key *key)
{
    if (!tcp_open_to_guest(h->stack, key, &upstream, h, 0, &h->flow))
        return false;
    h->opened = true;
    if (h->config.give_up != NEVER)
        alarm_set(&h->giving_up, now(h) + h->config.give_up);
    if (h->config.reset_time != NEVER)
        alarm_set(&h->resetter, now(h) + h->config.reset_time);
    return true;
}

void host_init(struct host *h, const struct host_config *config, struct schedule *schedule,
               struct rng rng, struct stack *stack)
{
    *h = (struct host){.config = *config, .schedule = schedule, .rng = rng, .stack = stack};
    alarm_init(&h->connecting, schedule, connecting_rings, h);
    alarm_init(&h->producer, schedule, producer_rings, h);
    alarm_init(&h->reader, schedule, reader_rings, h);
    alarm_init(&h->drainer, schedule, drainer_rings, h);
    alarm_init(&h->closer, schedule, closer_rings, h);
    alarm_init(&h->resetter, schedule, resetter_rings, h);
    alarm_init(&h->giving_up, schedule, giving_up_rings, h);
}
