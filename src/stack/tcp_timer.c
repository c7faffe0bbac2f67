/* SPDX-License-Identifier: Apache-2.0 */
/* Timers of TCP flows.
 *
 * A flow has one timer and two deadlines: retransmit_at (timeout, tail probe or persist, as the
 * send state says) and lifetime_at (the state's end, or the next look at an idle guest). Progress
 * moves a deadline without touching the timer; a timer that fires early looks at the deadlines and
 * sleeps on. So a busy flow arms its timer a few times a second, and an idle one has none but the
 * two-hour look. */

#include <assert.h>
#include <stddef.h>

#include "stack/tcp_internal.h"

#define TAIL_PROBE_MIN  (10 * MS_NS)
#define DELAYED_ACK_MAX (200 * MS_NS)

void tcp_timer_update(struct tcp *tcp, struct tcp_flow *flow)
{
    uint64_t due =
        flow->retransmit_at < flow->lifetime_at ? flow->retransmit_at : flow->lifetime_at;

    if (due == TIMERS_NEVER || (timer_armed(&flow->timer) && flow->timer.deadline <= due))
        return;
    timer_arm(tcp->stack->timers, &flow->timer, due);
}

static uint64_t backed_off(uint64_t base, uint8_t backoff, uint64_t most)
{
    return base > most >> backoff ? most : base << backoff;
}

/* RFC 8985, 7.2: never later than the timeout, in whose place the probe then goes. */
static uint64_t tail_probe_after(const struct tcp_flow *flow, uint64_t rto)
{
    uint64_t after = flow->srtt_us * UINT64_C(2000);

    if (after < TAIL_PROBE_MIN)
        after = TAIL_PROBE_MIN;
    if (flow->snd_max - flow->snd_una <= flow->mss)
        after += DELAYED_ACK_MAX;
    return after < rto ? after : rto;
}

/* Something waits for a window that is shut: only a probe can tell when it opens. */
static bool window_blocks(const struct tcp_flow *flow)
{
    bool unsent = seq_lt(flow->snd_nxt, flow->snd_end) || (flow->host_eof && !flow->fin_sent);

    if (flow->state != TCP_OPEN && flow->state != TCP_RESETTING)
        return false;
    return (unsent || flow->rx_paused) && flow->snd_max == flow->snd_una && !flow->waits_for_memory;
}

void tcp_timer_retransmit(struct tcp *tcp, struct tcp_flow *flow, bool restart)
{
    uint64_t now = tcp->stack->now;

    if (flow->snd_max == flow->snd_una && !window_blocks(flow)) {
        flow->retransmit_at = TIMERS_NEVER;
        flow->backoff = 0;
        return;
    }
    if (flow->retransmit_at != TIMERS_NEVER && !restart)
        return;
    flow->tail_probe = false;
    if (flow->snd_max == flow->snd_una) {
        flow->retransmit_at = now + backed_off(flow->rto, flow->backoff, TCP_PERSIST_MAX);
    } else {
        uint64_t rto = backed_off(flow->rto, flow->backoff, TCP_RTO_MAX);
        uint64_t probe = tail_probe_after(flow, rto);

        flow->tail_probe = flow->state == TCP_OPEN && flow->srtt_us != 0 && !flow->in_recovery &&
                           !flow->tail_probe_used && flow->backoff == 0 &&
                           seq_lt(flow->snd_una, flow->snd_end);
        flow->retransmit_at = now + (flow->tail_probe ? probe : rto);
    }
    tcp_timer_update(tcp, flow);
}

/* The last bytes that were sent, again. */
static void tail_probe_send(struct tcp *tcp, struct tcp_flow *flow)
{
    uint32_t end =
        seq_min(flow->snd_max, flow->snd_end); /* snd_max is behind FIN, snd_end before it */
    uint32_t len = end - flow->snd_una;

    if (len > flow->mss)
        len = flow->mss;
    flow->tail_probe_used = true;
    tcp_send_range(tcp, flow, end - len, len);
    count(tcp->stack->counters, COUNTER_tcp_tail_probes);
}

/* Nothing was heard for this many tries. */
static bool given_up(const struct tcp_flow *flow)
{
    bool opening = flow->state == TCP_SYN_RECEIVED || flow->state == TCP_SYN_SENT;

    return flow->tries > (opening ? TCP_SYN_TRIES_MAX : TCP_TRIES_MAX);
}

/* False: the flow is gone. */
static bool retransmit_due(struct tcp *tcp, struct tcp_flow *flow)
{
    flow->retransmit_at = TIMERS_NEVER;
    if (flow->waits_for_link) {
        tcp_timer_retransmit(tcp, flow, true); /* nothing was lost: it has not left yet */
        return true;
    }
    if (flow->tail_probe) {
        tail_probe_send(tcp, flow);
        tcp_timer_retransmit(tcp, flow, true);
        return true;
    }
    flow->tries++;
    if (given_up(flow)) {
        tcp_vanished(tcp, flow);
        return false;
    }
    if (flow->backoff < 31)
        flow->backoff++;
    if (flow->state == TCP_SYN_RECEIVED || flow->state == TCP_SYN_SENT) {
        count(tcp->stack->counters, COUNTER_tcp_timeouts);
        flow->rtt_timing = false;
        tcp_send_syn(tcp, flow);
    } else if (flow->snd_max == flow->snd_una) {
        tcp_send_window_probe(tcp, flow);
    } else {
        tcp_recovery_timeout(tcp, flow);
        if (flow->snd_wnd == 0)
            tcp_send_window_probe(tcp, flow);
        else
            tcp_output(tcp, flow);
    }
    tcp_timer_retransmit(tcp, flow, true);
    return true;
}

/* An open flow whose guest has said nothing for hours: is it there? False: the flow is gone. */
static bool idle_due(struct tcp *tcp, struct tcp_flow *flow, uint64_t now)
{
    uint64_t silence = now - flow->heard_at;

    if (tcp_guest_is_done(flow)) {
        flow->lifetime_at = flow->heard_at + TCP_FAREWELL;
        if (silence < TCP_FAREWELL)
            return true; /* it need not answer; the host side takes what it said */
        count(tcp->stack->counters, COUNTER_tcp_lingering_lost);
        tcp_end(tcp, flow, TCP_CLOSE_VANISHED);
        return false;
    }
    if (silence < TCP_IDLE_PROBE) {
        flow->lifetime_at = flow->heard_at + TCP_IDLE_PROBE;
        return true;
    }
    if (silence > TCP_IDLE_PROBE + TCP_IDLE_PROBES * TCP_IDLE_PROBE_EVERY) {
        tcp_vanished(tcp, flow);
        return false;
    }
    tcp_send_window_probe(tcp, flow);
    flow->lifetime_at = now + TCP_IDLE_PROBE_EVERY;
    return true;
}

/* False: the flow is gone. */
static bool lifetime_due(struct tcp *tcp, struct tcp_flow *flow, uint64_t now)
{
    flow->lifetime_at = TIMERS_NEVER;
    switch (flow->state) {
    case TCP_OPEN:
        return idle_due(tcp, flow, now);
    case TCP_TIME_WAIT:
        tcp_flow_free(tcp, flow);
        return false;
    case TCP_RESETTING:
        tcp_reset_guest(tcp, flow);
        return false;
    case TCP_DRAINING:
        count(tcp->stack->counters, COUNTER_tcp_lingering_lost);
        tcp_end(tcp, flow, TCP_CLOSE_RESET);
        return false;
    default:
        tcp_vanished(tcp, flow);
        return false;
    }
}

void tcp_timer_expired(void *arg, struct timer *timer, uint64_t now)
{
    struct tcp_flow *flow = (struct tcp_flow *)((char *)timer - offsetof(struct tcp_flow, timer));
    struct tcp *tcp = flow->tcp;

    (void)arg;
    if (now >= flow->retransmit_at && !retransmit_due(tcp, flow))
        return;
    if (now >= flow->lifetime_at && !lifetime_due(tcp, flow, now))
        return;
    tcp_timer_update(tcp, flow);
}
