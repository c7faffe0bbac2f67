/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's TCP flows to the resolver (RFC 7766): messages with their length in front, any number
 * at a time, answered in the order in which answers come.
 *
 * A flow holds a buffer only while a message has arrived in part, and replies only while the
 * guest's window has no room. Once DNS_GUEST_PIPELINE messages are unanswered or unsent it takes no
 * more bytes; the stack shuts the window then. A flow without a question for DNS_GUEST_IDLE is
 * closed, one whose guest does not read for as long is reset.
 *
 * The stack calls write() and shut_write() from the middle of its own work, where the flow must not
 * be ended under it. So whatever goes towards the guest, replies too, is only queued, the flow is
 * put on dns->unsettled, and settled from outside the stack's calls: by the handler of the event
 * that brought the reply, or by a timer that is due at once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dns/internal.h"
#include "wire/bytes.h"

static uint64_t token_of(const struct guest_flow *guest)
{
    return (uint64_t)guest->generation << 32 | (uint32_t)(guest - guest->dns->guests);
}

static struct guest_flow *guest_find(struct dns *dns, uint32_t index, uint32_t generation)
{
    struct guest_flow *guest = index < dns->guests_touched ? &dns->guests[index] : NULL;

    return guest && guest->open && guest->generation == generation ? guest : NULL;
}

static struct guest_flow *guest_of_token(struct dns *dns, uint64_t token)
{
    return guest_find(dns, (uint32_t)token, (uint32_t)(token >> 32));
}

static void unsettle(struct guest_flow *guest)
{
    struct dns *dns = guest->dns;

    if (!list_empty(&guest->settle_link))
        return;
    if (list_empty(&dns->unsettled))
        timer_arm(dns->timers, &dns->settle, clock_now());
    list_push_back(&dns->unsettled, &guest->settle_link);
}

static void touch(struct guest_flow *guest, uint64_t now)
{
    timer_arm(guest->dns->timers, &guest->idle, now + DNS_GUEST_IDLE);
}

static void doom(struct guest_flow *guest)
{
    guest->doomed = true;
    unsettle(guest);
}

/* ---- what the guest says ---- */

static void message_input(struct guest_flow *guest, const uint8_t *message, size_t len)
{
    struct dns *dns = guest->dns;
    uint64_t now = clock_now();
    struct dns_asker asker = {
        .is_tcp = true,
        .guest = {(uint32_t)(guest - dns->guests), guest->generation},
    };

    count(dns->counters, COUNTER_dns_tcp_messages);
    touch(guest, now);
    guest->unanswered++; /* before the reply, which may come at once */
    if (!dns_message_input(dns, &asker, message, len, now))
        guest->unanswered--;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Bytes of the message at `length` that are kept: what is longer is malformed whatever follows. */
static size_t kept_len(const uint8_t length[2])
{
    return min_size(load_be16(length), DNS_GUEST_MESSAGE_MAX);
}

static void partial_message_end(struct guest_flow *guest)
{
    uint8_t *in = guest->in;

    guest->skip = load_be16(in) - kept_len(in);
    guest->in = NULL;
    guest->in_len = 0;
    message_input(guest, in + 2, kept_len(in));
    free(in);
}

/* Gathers a message that comes in pieces; returns what it takes. */
static size_t gather(struct guest_flow *guest, const uint8_t *bytes, size_t len)
{
    size_t want, taken;

    if (!guest->in && !(guest->in = malloc(2 + DNS_GUEST_MESSAGE_MAX))) {
        count(guest->dns->counters, COUNTER_dns_no_memory);
        doom(guest);
        return len;
    }
    want = guest->in_len < 2 ? 2 : 2 + kept_len(guest->in);
    taken = min_size(len, want - guest->in_len);
    memcpy(guest->in + guest->in_len, bytes, taken);
    guest->in_len += taken;
    if (guest->in_len >= 2 && guest->in_len == 2 + kept_len(guest->in))
        partial_message_end(guest);
    return taken;
}

/* One step: a whole message, or a piece of one. Returns what it takes, 0: nothing more now. */
static size_t take_bytes(struct guest_flow *guest, const uint8_t *bytes, size_t len)
{
    size_t message_len;

    if (guest->doomed || guest->eof)
        return len; /* nobody will read it */
    if (guest->skip != 0) {
        size_t skipped = min_size(guest->skip, len);

        guest->skip -= skipped;
        return skipped;
    }
    if (guest->in)
        return gather(guest, bytes, len);
    if (guest->unanswered + guest->queued >= DNS_GUEST_PIPELINE) {
        guest->blocked = true;
        return 0;
    }
    message_len = len < 2 ? 0 : load_be16(bytes);
    if (len < 2 || message_len > DNS_GUEST_MESSAGE_MAX || len - 2 < message_len)
        return gather(guest, bytes, len);
    message_input(guest, bytes + 2, message_len);
    return 2 + message_len;
}

static ssize_t guest_write(void *ctx, uint64_t token, const struct iovec *iov, int iov_count)
{
    struct guest_flow *guest = guest_of_token(ctx, token);
    ssize_t taken = 0;

    if (!guest)
        return -ECONNRESET;
    for (int i = 0; i < iov_count; i++) {
        const uint8_t *bytes = iov[i].iov_base;
        size_t done = 0;

        while (done < iov[i].iov_len) {
            size_t n = take_bytes(guest, bytes + done, iov[i].iov_len - done);

            if (n == 0)
                return taken;
            done += n;
            taken += (ssize_t)n;
        }
    }
    return taken;
}

static void guest_shut_write(void *ctx, uint64_t token)
{
    struct guest_flow *guest = guest_of_token(ctx, token);

    if (guest) {
        guest->finished = true;
        unsettle(guest);
    }
}

/* ---- what it gets ---- */

static void drop_answer(struct guest_flow *guest)
{
    struct guest_answer *answer = guest->head;

    guest->head = answer->next;
    if (!guest->head)
        guest->tail = &guest->head;
    guest->queued--;
    guest->dns->guest_answer_bytes -= answer->len;
    free(answer);
}

void guest_reply(struct dns *dns, struct guest_handle handle, uint8_t *bytes, size_t len)
{
    struct guest_flow *guest = guest_find(dns, handle.index, handle.generation);
    struct guest_answer *answer;

    if (!guest)
        return;
    guest->unanswered--;
    if (guest->doomed)
        return;
    answer = dns->guest_answer_bytes + len <= DNS_GUEST_ANSWERS_BYTES ? malloc(sizeof *answer + len)
                                                                      : NULL;
    if (!answer) {
        count(dns->counters, COUNTER_dns_no_memory);
        doom(guest);
        return;
    }
    *answer = (struct guest_answer){.len = len};
    memcpy(answer->bytes, bytes, len);
    *guest->tail = answer;
    guest->tail = &answer->next;
    guest->queued++;
    dns->guest_answer_bytes += len;
    unsettle(guest);
}

/* Fills `iov` from the queue; returns the bytes. */
static size_t copy_answers(struct guest_flow *guest, const struct iovec *iov, int iov_count)
{
    size_t total = 0;

    for (int i = 0; i < iov_count; i++) {
        uint8_t *to = iov[i].iov_base;
        size_t room = iov[i].iov_len;

        while (guest->head && room != 0) {
            struct guest_answer *answer = guest->head;
            size_t n = min_size(room, answer->len - answer->sent);

            memcpy(to, answer->bytes + answer->sent, n);
            to += n;
            room -= n;
            total += n;
            answer->sent += n;
            if (answer->sent == answer->len)
                drop_answer(guest);
        }
    }
    return total;
}

/* Sends what the window takes. False: the flow is gone. */
static bool flush(struct guest_flow *guest, uint64_t now)
{
    struct dns *dns = guest->dns;
    uint64_t token = token_of(guest);

    while (guest->head) {
        struct iovec iov[TCP_RESERVE_IOV];
        int n = tcp_rx_reserve(dns->stack, guest->flow, iov);

        if (n <= 0)
            break;
        touch(guest, now);
        tcp_rx_commit(dns->stack, guest->flow, copy_answers(guest, iov, n));
        if (!guest_of_token(dns, token))
            return false;
    }
    return true;
}

static void guest_resume(void *ctx, uint64_t token)
{
    struct guest_flow *guest = guest_of_token(ctx, token);

    if (guest)
        unsettle(guest);
}

/* ---- from outside the stack's calls ---- */

/* Each of the stack's functions may end the flow, so each is the last or is followed by a look. */
static void settle(struct guest_flow *guest, uint64_t now)
{
    struct dns *dns = guest->dns;
    uint64_t token = token_of(guest);

    if (guest->doomed) {
        tcp_host_reset(dns->stack, guest->flow);
        return;
    }
    if (!flush(guest, now))
        return;
    if (guest->blocked && guest->unanswered + guest->queued <= DNS_GUEST_PIPELINE / 2) {
        guest->blocked = false;
        tcp_writable(dns->stack, guest->flow);
        if (!guest_of_token(dns, token))
            return;
    }
    if (guest->finished && !guest->eof && guest->unanswered == 0 && !guest->head) {
        guest->eof = true;
        tcp_rx_eof(dns->stack, guest->flow);
    }
}

/* As many as there are now: what the stack unsettles meanwhile waits for the timer. */
void guest_settle_all(struct dns *dns, uint64_t now)
{
    struct list now_unsettled;

    if (list_empty(&dns->unsettled))
        return;
    timer_cancel(dns->timers, &dns->settle);
    list_init(&now_unsettled);
    list_splice_back(&now_unsettled, &dns->unsettled);
    while (!list_empty(&now_unsettled))
        settle(list_entry(list_pop_front(&now_unsettled), struct guest_flow, settle_link), now);
}

void guest_settle_expired(void *arg, struct timer *timer, uint64_t now)
{
    (void)arg;
    guest_settle_all(list_entry(timer, struct dns, settle), now);
}

/* Nothing was asked and nothing was read for a while. */
static void guest_idle(void *arg, struct timer *timer, uint64_t now)
{
    struct guest_flow *guest = list_entry(timer, struct guest_flow, idle);
    struct dns *dns = guest->dns;

    (void)arg;
    touch(guest, now);
    if (guest->unanswered != 0) /* that has deadlines of its own */
        return;
    if (guest->head || guest->eof) {
        count(dns->counters, COUNTER_dns_tcp_stalled);
        tcp_host_reset(dns->stack, guest->flow);
    } else {
        count(dns->counters, COUNTER_dns_tcp_idle);
        guest->eof = true;
        tcp_rx_eof(dns->stack, guest->flow);
    }
}

/* ---- beginning and end ---- */

static void guest_free(struct guest_flow *guest)
{
    struct dns *dns = guest->dns;

    while (guest->head)
        drop_answer(guest);
    free(guest->in);
    guest->in = NULL;
    timer_cancel(dns->timers, &guest->idle);
    list_remove(&guest->settle_link);
    guest->open = false;
    guest->generation++;
    list_push_front(&dns->free_guests, &guest->link);
}

static void guest_closed(void *ctx, uint64_t token, enum tcp_close how)
{
    struct guest_flow *guest = guest_of_token(ctx, token);

    (void)how;
    if (guest)
        guest_free(guest);
}

static void guest_keepalive(void *ctx, uint64_t token)
{
    (void)ctx;
    (void)token;
}

static struct guest_flow *guest_take(struct dns *dns)
{
    struct list *link = list_pop_front(&dns->free_guests);
    struct guest_flow *guest;

    if (link)
        return list_entry(link, struct guest_flow, link);
    if (dns->guests_touched == DNS_GUEST_FLOWS_MAX)
        return NULL;
    guest = &dns->guests[dns->guests_touched++];
    guest->dns = dns;
    list_init(&guest->link);
    list_init(&guest->settle_link);
    timer_init(&guest->idle, guest_idle);
    return guest;
}

static void guest_begin(struct guest_flow *guest, struct flow_handle flow)
{
    guest->open = true;
    guest->flow = flow;
    guest->in_len = guest->skip = 0;
    guest->unanswered = guest->queued = 0;
    guest->head = NULL;
    guest->tail = &guest->head;
    guest->blocked = guest->finished = guest->eof = guest->doomed = false;
}

void dns_tcp_open(struct dns *dns, struct flow_handle flow, const struct flow_key *key,
                  uint64_t now)
{
    static const struct tcp_upstream operations = {
        .reads = true,
        .write = guest_write,
        .shut_write = guest_shut_write,
        .resume = guest_resume,
        .keepalive = guest_keepalive,
        .close = guest_closed,
    };
    struct guest_flow *guest = guest_take(dns);

    (void)key;
    if (!guest) {
        count(dns->counters, COUNTER_dns_tcp_flow_limit);
        tcp_refuse(dns->stack, flow, TCP_REFUSE_RESET);
        return;
    }
    guest_begin(guest, flow);
    if (!tcp_set_upstream(dns->stack, flow, &operations, dns, token_of(guest))) {
        guest_free(guest);
        return;
    }
    count(dns->counters, COUNTER_dns_tcp_flows);
    touch(guest, now);
    tcp_connected(dns->stack, flow);
}

void guest_close_all(struct dns *dns)
{
    for (size_t i = 0; i < dns->guests_touched; i++) {
        struct guest_flow *guest = &dns->guests[i];

        if (guest->open)
            tcp_host_reset(dns->stack, guest->flow);
        if (guest->open) /* the stack did not know it any more */
            guest_free(guest);
    }
}
