/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP engine: the guest's peer for every connection it makes.
 *
 * Theory of operation. A flow joins two halves that run on their own: towards the guest (bytes that
 * the host side committed, until the guest acknowledges them) and towards the host (bytes from the
 * guest, until the upstream takes them). What the guest sees is what the host's peer did: its SYN
 * is answered once the host connected, FIN follows FIN, RST follows RST.
 *
 * States, and what may happen in each:
 *   CONNECTING    upstream: connected, refuse, host_reset.      guest: SYN again (ignored), RST
 *   SYN_RECEIVED  upstream: eof, host_reset; reserve gives 0.   guest: ACK opens, RST
 *   SYN_SENT      upstream: host_reset.                         guest: SYN-ACK opens, RST
 *   OPEN          everything; half-closes are flags: host_eof, fin_sent, fin_acked; guest_fin,
 *                 shut_write_done
 *   RESETTING     no upstream.  guest: ACKs; at the last one, or after 2 s, RST and free
 *   RESET_OWED    no upstream.  the link has no room for the RST: when it has, RST and free
 *   DRAINING      upstream: writable.  no guest (it reset); at the last byte, or after 2 s,
 *                 close(RESET) and free
 *   TIME_WAIT     no upstream.  guest: FIN again (ACKed), new SYN (replaces it)
 *
 * Within a batch segments only gather: an upload's frames are kept by reference in `for_host` and
 * written together when the batch ends or 60 KiB have come; then one ACK answers them all. What the
 * upstream does not take stays queued, and the window we offer shrinks by it: nothing that was
 * acknowledged is ever dropped.
 *
 * Bytes from the host land in 64 KiB buffers shared by all flows (`landing`), as many as four
 * frames need at a time, and are sent when the batch ends or 512 KiB have come: frames that follow
 * each other closely wake the guest's reader once. They are read only when the guest's window has
 * room for them, so there is no second queue and the host kernel's buffer pushes back on the peer.
 */

#include "stack/tcp_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define LANDING_MIN     4096 /* a rest of the landing buffer smaller than this is not used */
#define LANDING_ALIGN   64
#define WRITE_IOV_MAX   256
#define CHUNKS_A_COMMIT 40 /* more than a reservation can be cut into */

struct tcp *tcp_new(struct stack *stack)
{
    struct tcp *tcp = calloc(1, sizeof *tcp);

    if (!tcp)
        return NULL;
    tcp->stack = stack;
    tcp->queue_budget = stack->config.queue_budget ? stack->config.queue_budget : TCP_QUEUE_BUDGET;
    tcp->small = pool_new(&(struct pool_config){
        .buffer_capacity = TCP_SMALL_BUFFER, .max = TCP_SMALL_BUFFERS_MAX, .keep = 64});
    tcp->large = pool_new(&(struct pool_config){
        .buffer_capacity = TCP_LARGE_BUFFER, .max = TCP_LARGE_BUFFERS_MAX, .keep = 32});
    if (!tcp->small || !tcp->large || tcp_flows_init(tcp) < 0)
        return tcp_free(tcp);
    return tcp;
}

static void flow_visit(struct tcp *tcp, void (*visit)(struct tcp *, struct tcp_flow *, void *),
                       void *arg)
{
    for (uint32_t i = 0; i < tcp->block_count * TCP_FLOWS_PER_BLOCK; i++) {
        struct tcp_flow *flow = &tcp->blocks[i / TCP_FLOWS_PER_BLOCK][i % TCP_FLOWS_PER_BLOCK];

        if (flow->state != TCP_FREE)
            visit(tcp, flow, arg);
    }
}

static void flow_end(struct tcp *tcp, struct tcp_flow *flow, void *arg)
{
    (void)arg;
    tcp_end(tcp, flow, TCP_CLOSE_VANISHED);
}

struct tcp *tcp_free(struct tcp *tcp)
{
    if (!tcp)
        return NULL;
    flow_visit(tcp, flow_end, NULL);
    culvert_buffer_unref(tcp->landing);
    for (size_t i = 0; i < TCP_LANDING_MORE; i++)
        culvert_buffer_unref(tcp->landing_next[i]);
    pool_free(tcp->small);
    pool_free(tcp->large);
    for (size_t i = 0; i < tcp->chunk_slab_count; i++)
        free(tcp->chunk_slabs[i]);
    free(tcp->chunk_slabs);
    tcp_flows_fini(tcp);
    free(tcp);
    return NULL;
}

/* ---- ends
 * -------------------------------------------------------------------------------------------- */

static void upstream_close(struct tcp_flow *flow, enum tcp_close how)
{
    const struct tcp_upstream *upstream = flow->upstream;

    flow->upstream = NULL;
    if (upstream)
        upstream->close(flow->upstream_ctx, flow->token, how);
}

void tcp_end(struct tcp *tcp, struct tcp_flow *flow, enum tcp_close how)
{
    upstream_close(flow, how);
    tcp_flow_free(tcp, flow);
}

static void forget_bytes(struct tcp *tcp, struct tcp_flow *flow)
{
    tcp->queued -= flow->for_host.bytes + flow->out_of_order.bytes;
    tcp->promised -= flow->rcv_promised;
    flow->rcv_promised = 0;
    tcp_queue_clear(tcp, &flow->unacked);
    tcp_queue_clear(tcp, &flow->for_host);
    tcp_queue_clear(tcp, &flow->out_of_order);
    tcp_scoreboard_clear(flow);
    flow->send_cursor = NULL;
    flow->in_recovery = false;
}

/* Nothing else would tell a guest that only listens. */
bool tcp_reset_guest(struct tcp *tcp, struct tcp_flow *flow)
{
    if (tcp_send_reset(tcp, flow)) {
        tcp_flow_free(tcp, flow);
        return true;
    }
    forget_bytes(tcp, flow);
    flow->state = TCP_RESET_OWED;
    flow->ack_owed = false;
    flow->retransmit_at = TIMERS_NEVER;
    flow->lifetime_at = TIMERS_NEVER; /* the link's */
    tcp_flow_wait_for_link(tcp, flow);
    return false;
}

/* RST to both sides. */
static void flow_reset_both(struct tcp *tcp, struct tcp_flow *flow)
{
    if (flow->state != TCP_OPEN && flow->state != TCP_SYN_RECEIVED) {
        tcp_end(tcp, flow, TCP_CLOSE_VANISHED);
        return;
    }
    upstream_close(flow, TCP_CLOSE_VANISHED);
    tcp_reset_guest(tcp, flow);
}

void tcp_vanished(struct tcp *tcp, struct tcp_flow *flow)
{
    count(tcp->stack->counters, COUNTER_tcp_guest_vanished);
    flow_reset_both(tcp, flow);
}

void tcp_guest_reset(struct tcp *tcp, struct tcp_flow *flow)
{
    count(tcp->stack->counters, COUNTER_tcp_reset_by_guest);
    if (!flow->upstream || flow->for_host.bytes == 0) {
        tcp_end(tcp, flow, TCP_CLOSE_RESET);
        return;
    }
    tcp_flow_leave_table(tcp, flow); /* the guest may use the port again at once */
    flow->state = TCP_DRAINING;
    flow->ack_owed = false;
    flow->retransmit_at = TIMERS_NEVER;
    flow->lifetime_at = tcp->stack->now + TCP_RESET_LINGER;
    tcp_queue_clear(tcp, &flow->unacked);
    tcp_scoreboard_clear(flow);
    flow->send_cursor = NULL;
    flow->in_recovery = false;
    tcp_flow_touch(tcp, flow);
    tcp_timer_update(tcp, flow);
}

void tcp_farewell_begins(struct tcp *tcp, struct tcp_flow *flow)
{
    flow->heard_at = tcp->stack->now;
    flow->lifetime_at = tcp->stack->now + TCP_FAREWELL;
    tcp_timer_update(tcp, flow);
}

static void time_wait_enter(struct tcp *tcp, struct tcp_flow *flow)
{
    tcp_flow_stop_waiting(tcp, flow);
    flow->state = TCP_TIME_WAIT;
    TAILQ_INSERT_TAIL(&tcp->time_wait, flow, waiting_link);
    flow->retransmit_at = TIMERS_NEVER;
    flow->lifetime_at = tcp->stack->now + TCP_TIME_WAIT_LENGTH;
    tcp_timer_update(tcp, flow);
}

bool tcp_maybe_finish(struct tcp *tcp, struct tcp_flow *flow)
{
    if (flow->state != TCP_OPEN || !flow->fin_acked || !flow->shut_write_done)
        return false;
    upstream_close(flow, TCP_CLOSE_FINISHED);
    if (flow->time_wait_due && flow->in_table)
        time_wait_enter(tcp, flow);
    else
        tcp_flow_free(tcp, flow);
    return true;
}

/* ---- towards the host
 * -------------------------------------------------------------------------------- */

/* Offers the first chunks to the upstream; its answer, and how much was offered. */
static ssize_t write_some(struct tcp *tcp, struct tcp_flow *flow, size_t *ret_offered)
{
    struct iovec iov[WRITE_IOV_MAX];
    size_t offered = 0;
    int n = 0;

    assert(flow->for_host.head && "there is something to write");
    for (const struct tcp_chunk *chunk = flow->for_host.head; chunk && n < WRITE_IOV_MAX;
         chunk = chunk->next) {
        iov[n++] = (struct iovec){chunk->base, chunk->len};
        offered += chunk->len;
    }
    ssize_t taken = flow->upstream->write(flow->upstream_ctx, flow->token, iov, n);
    if (taken > 0) {
        uint32_t before = flow->for_host.bytes;

        tcp_queue_drop_until(tcp, &flow->for_host, flow->for_host.head->seq + (uint32_t)taken);
        tcp->queued -= before - flow->for_host.bytes;
        if (tcp_guest_is_done(flow))
            flow->heard_at = tcp->stack->now;
    }
    *ret_offered = offered;
    return taken;
}

/* Writes what the upstream takes. False: the flow is gone. */
static bool write_all(struct tcp *tcp, struct tcp_flow *flow)
{
    while (flow->for_host.head && !flow->write_blocked) {
        if (flow->upstream->reads && !tcp_queue_make_private(tcp, &flow->for_host)) {
            count(tcp->stack->counters, COUNTER_tcp_no_memory);
            flow_reset_both(tcp, flow);
            return false;
        }
        size_t offered;
        ssize_t taken = write_some(tcp, flow, &offered);

        if (taken == TCP_WRITE_REFUSED) {
            flow_reset_both(tcp, flow);
            return false;
        }
        if (taken >= 0 && (size_t)taken == offered)
            continue;
        flow->write_blocked = taken != TCP_WRITE_MORE;
        tcp_queue_compact(tcp, &flow->for_host);
        break;
    }
    return true;
}

void tcp_flush_to_host(struct tcp *tcp, struct tcp_flow *flow)
{
    if (!flow->upstream || (flow->state != TCP_OPEN && flow->state != TCP_DRAINING))
        return;
    if (!write_all(tcp, flow) || flow->for_host.head)
        return;
    if (flow->state == TCP_DRAINING) {
        tcp_end(tcp, flow, TCP_CLOSE_RESET);
    } else if (flow->guest_fin && !flow->shut_write_done) {
        flow->shut_write_done = true;
        flow->upstream->shut_write(flow->upstream_ctx, flow->token);
        tcp_maybe_finish(tcp, flow);
    }
}

void tcp_abort(struct stack *stack, struct flow_handle handle)
{
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || flow->state == TCP_RESET_OWED)
        return;
    if (flow->state == TCP_CONNECTING)
        tcp_send_reset(stack->tcp, flow); /* the answer to its SYN */
    flow_reset_both(stack->tcp, flow);
}

void tcp_writable(struct stack *stack, struct flow_handle handle)
{
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || !flow->write_blocked)
        return;
    flow->write_blocked = false;
    tcp_flow_touch(stack->tcp, flow);
}

void tcp_offer(struct stack *stack, struct flow_handle handle)
{
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow)
        return;
    flow->write_blocked = false;
    tcp_flow_touch(stack->tcp, flow);
}

/* ---- from the host
 * ----------------------------------------------------------------------------------- */

/* Bytes that may be committed now: what is committed is sent at once. */
static uint32_t reserve_room(const struct tcp_flow *flow)
{
    uint32_t window = tcp_send_window(flow);
    uint32_t used = flow->snd_end - flow->snd_una;

    if (flow->state != TCP_OPEN || flow->host_eof || flow->waits_for_link ||
        seq_lt(flow->snd_nxt, flow->snd_max) || window <= used)
        return 0;
    uint32_t room = window - used;
    /* No silly small segments: wait until a full one fits, or a good part of what the guest ever
     * offered. */
    if (used > 0 && room < flow->mss && room < flow->snd_wnd_max / 2)
        return 0;
    return room;
}

void tcp_maybe_resume(struct tcp *tcp, struct tcp_flow *flow)
{
    (void)tcp;
    if (!flow->rx_paused || !flow->upstream || reserve_room(flow) == 0)
        return;
    flow->rx_paused = false;
    flow->upstream->resume(flow->upstream_ctx, flow->token);
}

/* Done with what is left of the buffer: the next one is where bytes go. */
static void landing_shift(struct tcp *tcp)
{
    culvert_buffer_unref(tcp->landing);
    tcp->landing = tcp->landing_next[0] ? tcp->landing_next[0] : pool_take_buffer(tcp->large);
    tcp->landing_used = 0;
    memmove(tcp->landing_next, tcp->landing_next + 1, sizeof tcp->landing_next - sizeof(void *));
    tcp->landing_next[TCP_LANDING_MORE - 1] = NULL;
}

static bool landing_ready(struct tcp *tcp, size_t want)
{
    size_t room = tcp->landing ? tcp->landing->capacity - tcp->landing_used : 0;

    if (room < LANDING_MIN && room < want) {
        landing_shift(tcp);
        if (!tcp->landing)
            return false;
        room = tcp->landing->capacity;
    }
    for (size_t i = 0; i < TCP_LANDING_MORE && room < want; i++) {
        if (!tcp->landing_next[i])
            tcp->landing_next[i] = pool_take_buffer(tcp->large);
        if (!tcp->landing_next[i])
            break;
        room += tcp->landing_next[i]->capacity;
    }
    return tcp_chunks_ensure(tcp, CHUNKS_A_COMMIT);
}

/* [0, want) of the room, as far as there are buffers. */
static int landing_iov(const struct tcp *tcp, size_t want, struct iovec *iov)
{
    struct culvert_buffer *buffer = tcp->landing;
    size_t skip = tcp->landing_used;
    int n = 0;

    while (want > 0 && buffer) {
        size_t len = buffer->capacity - skip < want ? buffer->capacity - skip : want;

        iov[n++] = (struct iovec){buffer->data + skip, len};
        want -= len;
        skip = 0;
        buffer = n <= TCP_LANDING_MORE ? tcp->landing_next[n - 1] : NULL;
    }
    return n;
}

int tcp_rx_reserve(struct stack *stack, struct flow_handle handle, struct iovec *iov)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow)
        return 0;
    uint32_t want = reserve_room(flow);
    if (want == 0) {
        flow->rx_paused = true;
        if (flow->state == TCP_OPEN && flow->retransmit_at == TIMERS_NEVER)
            tcp_timer_retransmit(tcp, flow, false); /* the window may be shut: persist */
        return 0;
    }
    uint32_t most = TCP_RESERVE_FRAMES * tcp_frame_payload_max(tcp, flow);
    if (want > most)
        want = most;
    if (!landing_ready(tcp, want)) {
        count(stack->counters, COUNTER_tcp_no_memory);
        flow->rx_paused = true;
        tcp_flow_wait_for_memory(tcp, flow);
        return 0;
    }
    return landing_iov(tcp, want, iov);
}

/* Puts what landed at [base, base + len) of `buffer` behind `unacked`. Small pieces are copied, so
 * that they do not pin the buffer; if that fails for want of memory, they do. True: the buffer's
 * bytes are in use now. */
static bool commit_piece(struct tcp *tcp, struct tcp_flow *flow, struct culvert_buffer *buffer,
                         uint8_t *base, uint32_t len)
{
    uint32_t done = 0;

    if (len <= TCP_SMALL_BUFFER)
        done = tcp_queue_append_copy(tcp, &flow->unacked, flow->snd_end, base, len);
    if (done < len) {
        bool ok = tcp_queue_append_buffer(tcp, &flow->unacked, flow->snd_end + done, buffer,
                                          base + done, len - done);
        assert(ok && "tcp_rx_reserve() made sure of the chunks");
        (void)ok;
    }
    flow->snd_end += len;
    return done < len;
}

static size_t landing_step(size_t len)
{
    return (len + LANDING_ALIGN - 1) / LANDING_ALIGN * LANDING_ALIGN;
}

void tcp_rx_commit(struct stack *stack, struct flow_handle handle, size_t n)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || n == 0)
        return;
    for (;;) {
        size_t room = tcp->landing->capacity - tcp->landing_used;
        size_t len = n < room ? n : room;
        uint8_t *base = tcp->landing->data + tcp->landing_used;

        if (commit_piece(tcp, flow, tcp->landing, base, (uint32_t)len))
            tcp->landing_used += landing_step(len) < room ? landing_step(len) : room;
        n -= len;
        if (n == 0)
            break;
        landing_shift(tcp);
    }
    if (flow->snd_end - flow->snd_nxt >= TCP_OUTPUT_BYTES)
        tcp_output(tcp, flow);
    else
        tcp_flow_touch(tcp, flow);
}

void tcp_rx_eof(struct stack *stack, struct flow_handle handle)
{
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || flow->host_eof || !flow->upstream)
        return;
    flow->host_eof = true;
    tcp_output(stack->tcp, flow);
}

void tcp_host_reset(struct stack *stack, struct flow_handle handle)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || !flow->upstream)
        return;
    count(stack->counters, COUNTER_tcp_reset_by_host);
    upstream_close(flow, TCP_CLOSE_FINISHED);
    if (flow->state == TCP_DRAINING) {
        tcp_flow_free(tcp, flow);
        return;
    }
    if (flow->state == TCP_SYN_SENT) {
        tcp_flow_free(tcp, flow);
        return;
    }
    if (flow->state != TCP_OPEN || flow->unacked.bytes == 0 || flow->snd_wnd == 0) {
        tcp_reset_guest(tcp, flow);
        return;
    }
    tcp->queued -= flow->for_host.bytes;
    tcp_queue_clear(tcp, &flow->for_host);
    flow->state = TCP_RESETTING;
    flow->lifetime_at = stack->now + TCP_RESET_LINGER;
    tcp_output(tcp, flow);
    tcp_timer_update(tcp, flow);
}

/* ---- beginnings
 * -------------------------------------------------------------------------------------- */

bool tcp_set_upstream(struct stack *stack, struct flow_handle handle,
                      const struct tcp_upstream *upstream, void *ctx, uint64_t token)
{
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow)
        return false;
    flow->upstream = upstream;
    flow->upstream_ctx = ctx;
    flow->token = token;
    return true;
}

bool tcp_wrap_upstream(struct stack *stack, struct flow_handle handle,
                       const struct tcp_upstream_ref *wrapper, struct tcp_upstream_ref *ret_inner)
{
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || !flow->upstream)
        return false;
    *ret_inner = (struct tcp_upstream_ref){flow->upstream, flow->upstream_ctx, flow->token};
    return tcp_set_upstream(stack, handle, wrapper->upstream, wrapper->ctx, wrapper->token);
}

bool tcp_upstream_of(struct stack *stack, struct flow_handle handle, struct tcp_upstream_ref *ret)
{
    const struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || !flow->upstream)
        return false;
    *ret = (struct tcp_upstream_ref){flow->upstream, flow->upstream_ctx, flow->token};
    return true;
}

bool tcp_key_of(struct stack *stack, struct flow_handle handle, struct flow_key *ret_key)
{
    const struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow)
        return false;
    *ret_key = flow->key;
    return true;
}

bool tcp_is_unheard(struct stack *stack, struct flow_handle handle)
{
    const struct tcp_flow *flow = tcp_flow_of(stack, handle);

    return flow && flow->rcv_nxt == flow->irs + 1 && !flow->guest_fin;
}

bool tcp_guest_has_finished(struct stack *stack, struct flow_handle handle)
{
    const struct tcp_flow *flow = tcp_flow_of(stack, handle);

    return flow && flow->guest_fin;
}

void tcp_connected(struct stack *stack, struct flow_handle handle)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || flow->state != TCP_CONNECTING)
        return;
    tcp_flow_connect_ends(tcp, flow);
    flow->state = TCP_SYN_RECEIVED;
    flow->lifetime_at = TIMERS_NEVER;
    flow->rtt_timing = true;
    flow->rtt_seq = flow->iss;
    flow->rtt_start = stack->now;
    tcp_send_syn(tcp, flow);
    tcp_timer_retransmit(tcp, flow, true);
}

void tcp_refuse(struct stack *stack, struct flow_handle handle, enum tcp_refusal how)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_flow *flow = tcp_flow_of(stack, handle);

    if (!flow || flow->state != TCP_CONNECTING)
        return;
    count(stack->counters, COUNTER_tcp_refused);
    switch (how) {
    case TCP_REFUSE_RESET:
        tcp_send_reset(tcp, flow);
        break;
    case TCP_REFUSE_SILENT:
        break;
    case TCP_REFUSE_NET:
        icmp_refuse_syn(stack, &flow->key, flow->irs, ICMP_PROBLEM_NET_UNREACHABLE);
        break;
    case TCP_REFUSE_HOST:
        icmp_refuse_syn(stack, &flow->key, flow->irs, ICMP_PROBLEM_HOST_UNREACHABLE);
        break;
    case TCP_REFUSE_PROHIBITED:
        icmp_refuse_syn(stack, &flow->key, flow->irs, ICMP_PROBLEM_PROHIBITED);
        break;
    }
    if (flow->upstream && flow->upstream->refused)
        flow->upstream->refused(flow->upstream_ctx, flow->token);
    flow->upstream = NULL;
    tcp_flow_free(tcp, flow);
}

bool tcp_key_in_use(struct stack *stack, const struct flow_key *key)
{
    const struct tcp_flow *flow = tcp_flow_find(stack->tcp, key);

    return flow && flow->state != TCP_TIME_WAIT;
}

bool tcp_open_to_guest(struct stack *stack, const struct flow_key *key,
                       const struct tcp_upstream *upstream, void *ctx, uint64_t token,
                       struct flow_handle *ret_flow)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_flow *flow = tcp_flow_find(tcp, key);

    if (flow && flow->state == TCP_TIME_WAIT) {
        tcp_flow_free(tcp, flow);
        flow = NULL;
    }
    if (flow || !(flow = tcp_flow_new(tcp, key)))
        return false;
    flow->state = TCP_SYN_SENT;
    flow->upstream = upstream;
    flow->upstream_ctx = ctx;
    flow->token = token;
    flow->rx_paused = true; /* resume() tells that the guest has answered */
    flow->peer_mss = TCP_MSS_DEFAULT;
    tcp_send_state_init(tcp, flow);
    tcp_update_mss(tcp, flow);
    tcp_send_syn(tcp, flow);
    tcp_timer_retransmit(tcp, flow, true);
    neighbour_expect(stack, &key->guest);
    *ret_flow = tcp_flow_handle(flow);
    return true;
}

/* ---- batches
 * ----------------------------------------------------------------------------------------- */

/* A window that is used up by a quarter is told in any case: tcp_window_update_due(). */
static bool ack_may_wait(const struct tcp_flow *flow, enum stack_acks acks)
{
    if (acks == STACK_ACKS_OF_LITTLE_WAIT)
        return flow->rcv_nxt - flow->rcv_acked < flow->mss;
    return acks == STACK_ACKS_WAIT;
}

/* Looks at a flow that something happened to. True: it still owes an ACK that may wait. */
static bool batch_settle(struct tcp *tcp, struct tcp_flow *flow, enum stack_acks acks)
{
    uint32_t generation = flow->generation;

    tcp_output(tcp, flow);
    tcp_flush_to_host(tcp, flow);
    if (flow->generation != generation || flow->state == TCP_FREE ||
        (flow->state != TCP_OPEN && flow->state != TCP_TIME_WAIT))
        return false;
    if (flow->state == TCP_OPEN && tcp_window_update_due(flow))
        flow->ack_owed = true;
    else if (flow->ack_owed && ack_may_wait(flow, acks))
        return true;
    if (flow->ack_owed)
        tcp_send_ack(tcp, flow);
    return false;
}

static void memory_returned(struct tcp *tcp)
{
    while (!TAILQ_EMPTY(&tcp->waiting_for_memory) &&
           pool_in_use(tcp->large) < TCP_LARGE_BUFFERS_MAX) {
        struct tcp_flow *flow = TAILQ_FIRST(&tcp->waiting_for_memory);

        tcp_flow_stop_waiting(tcp, flow);
        tcp_maybe_resume(tcp, flow);
    }
}

void tcp_batch_end(struct stack *stack, enum stack_acks acks)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_flow_list owing = TAILQ_HEAD_INITIALIZER(owing);
    struct tcp_flow *flow;

    while ((flow = TAILQ_FIRST(&tcp->batch))) {
        TAILQ_REMOVE(&tcp->batch, flow, batch_link);
        flow->in_batch = false;
        if (batch_settle(tcp, flow, acks) && !flow->in_batch) {
            flow->in_batch = true;
            TAILQ_INSERT_TAIL(&owing, flow, batch_link);
        }
    }
    TAILQ_CONCAT(&tcp->batch, &owing, batch_link);
    if (!TAILQ_EMPTY(&tcp->waiting_for_memory))
        memory_returned(tcp);
}

/* The last ACK of a flow could not leave. Without it the guest repeats its FIN, at ever longer
 * intervals. */
static void acks_of_time_wait(struct tcp *tcp)
{
    struct tcp_flow *flow;

    tcp->time_wait_owes_ack = false;
    TAILQ_FOREACH(flow, &tcp->time_wait, waiting_link)
    if (flow->ack_owed)
        tcp_flow_touch(tcp, flow);
}

void tcp_link_writable(struct stack *stack)
{
    struct tcp *tcp = stack->tcp;
    struct tcp_flow *flow;

    if (tcp->time_wait_owes_ack)
        acks_of_time_wait(tcp);
    while ((flow = TAILQ_FIRST(&tcp->waiting_for_link))) {
        tcp_flow_stop_waiting(tcp, flow);
        if (flow->state == TCP_RESET_OWED) {
            if (!tcp_reset_guest(tcp, flow))
                return;
            continue;
        }
        if (flow->state == TCP_SYN_RECEIVED || flow->state == TCP_SYN_SENT)
            tcp_send_syn(tcp, flow);
        if (flow->in_recovery)
            tcp_recovery_continue(tcp, flow);
        tcp_output(tcp, flow);
        if (flow->ack_owed)
            tcp_flow_touch(tcp, flow);
        tcp_maybe_resume(tcp, flow);
        if (flow->waits_for_link)
            return; /* full again */
    }
}

/* A SYN that went out to everybody was not listened to. */
static void syn_again(struct tcp *tcp, struct tcp_flow *flow, void *arg)
{
    (void)arg;
    if (flow->state == TCP_SYN_SENT)
        tcp_send_syn(tcp, flow);
}

void tcp_guest_found(struct stack *stack)
{
    flow_visit(stack->tcp, syn_again, NULL);
}

static void end_if_unanswered(struct tcp *tcp, struct tcp_flow *flow, void *arg)
{
    if (flow->state == TCP_SYN_SENT && ip_address_equal(&flow->key.guest, arg))
        tcp_vanished(tcp, flow);
}

void tcp_neighbour_away(struct stack *stack, const struct ip_address *address)
{
    flow_visit(stack->tcp, end_if_unanswered, (void *)(uintptr_t)address);
}

static void mss_follow(struct tcp *tcp, struct tcp_flow *flow, void *arg)
{
    (void)arg;
    tcp_update_mss(tcp, flow);
}

void tcp_link_changed(struct stack *stack)
{
    flow_visit(stack->tcp, mss_follow, NULL);
}

uint32_t tcp_flow_count(const struct stack *stack)
{
    return stack->tcp->flow_count;
}

size_t tcp_queued_bytes(const struct stack *stack)
{
    return stack->tcp->queued;
}

/* ---- listing
 * ----------------------------------------------------------------------------------------- */

static const char *state_name(const struct tcp_flow *flow)
{
    static const char *const names[] = {
        [TCP_FREE] = "free",
        [TCP_CONNECTING] = "connecting",
        [TCP_SYN_RECEIVED] = "syn-received",
        [TCP_SYN_SENT] = "syn-sent",
        [TCP_OPEN] = "established",
        [TCP_RESETTING] = "resetting",
        [TCP_RESET_OWED] = "resetting",
        [TCP_DRAINING] = "draining",
        [TCP_TIME_WAIT] = "time-wait",
    };
    static_assert(sizeof names / sizeof *names == TCP_STATE_COUNT, "a name for each state");

    if (flow->state == TCP_OPEN && flow->guest_fin)
        return flow->fin_sent ? "closing" : "guest-closed";
    if (flow->state == TCP_OPEN && flow->fin_sent)
        return "host-closed";
    return names[flow->state];
}

struct listing {
    void (*visit)(void *, struct flow_handle, const struct flow_key *, const char *);
    void *arg;
};

static void list_flow(struct tcp *tcp, struct tcp_flow *flow, void *arg)
{
    const struct listing *listing = arg;

    (void)tcp;
    listing->visit(listing->arg, tcp_flow_handle(flow), &flow->key, state_name(flow));
}

void tcp_for_each(struct stack *stack,
                  void (*visit)(void *arg, struct flow_handle flow, const struct flow_key *key,
                                const char *state),
                  void *arg)
{
    struct listing listing = {visit, arg};

    flow_visit(stack->tcp, list_flow, &listing);
}
