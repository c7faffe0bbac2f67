/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to servers, by TCP (RFC 7766) or TLS (RFC 7858).
 *
 * A connection is made when a question needs one, and carries as many questions at a time as come;
 * answers come in any order and find their question by its id. Without a question for
 * DNS_STREAM_IDLE it is closed. When it breaks, all that waited on it is asked again elsewhere, or
 * on a new connection if this one had been good: servers close connections as they like.
 *
 * A connection that is silent when an answer is overdue may be dead without our knowing. It is left
 * to those that wait on it, and new questions get another. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "dns/internal.h"
#include "wire/bytes.h"

/* Pieces of answers read from one connection before others get their turn; TLS may hold back
 * decrypted bytes, so that it is read to the end. */
#define READS_MAX     16
#define READS_MAX_TLS 4096

/* ---- beginning and end ---- */

static void idle_expired(void *arg, struct timer *timer, uint64_t now);

static struct dns_stream *stream_take(struct dns *dns)
{
    struct list *link = list_pop_front(&dns->free_streams);
    struct dns_stream *stream;

    if (link)
        return list_entry(link, struct dns_stream, link);
    if (dns->streams_touched == DNS_STREAMS_MAX)
        return NULL;
    stream = &dns->streams[dns->streams_touched++];
    list_init(&stream->link);
    list_init(&stream->attempts);
    timer_init(&stream->idle, idle_expired);
    stream->dns = dns;
    return stream;
}

static uint32_t index_of(const struct dns_stream *stream)
{
    return (uint32_t)(stream - stream->dns->streams);
}

/* Those that wait on it must have left. */
static void stream_close(struct dns_stream *stream)
{
    struct dns *dns = stream->dns;

    timer_cancel(dns->timers, &stream->idle);
    stream->tls = tls_free(stream->tls);
    if (stream->fd >= 0) {
        loop_remove(dns->loop, stream->fd);
        close(stream->fd);
    }
    free(stream->out);
    free(stream->in);
    stream->out = stream->in = NULL;
    stream->generation = (stream->generation + 1) & LOOP_GENERATION_MAX;
    list_remove(&stream->link);
    list_push_front(&dns->free_streams, &stream->link);
}

void stream_close_all(struct dns *dns)
{
    list_for_each_safe (link, &dns->open_streams)
        stream_close(list_entry(link, struct dns_stream, link));
}

static void idle_expired(void *arg, struct timer *timer, uint64_t now)
{
    (void)arg;
    (void)now;
    stream_close(list_entry(timer, struct dns_stream, idle));
}

/* It broke. Attempts may ask anew while they leave: never here, as this one is closed already. */
static void stream_fail(struct dns_stream *stream, uint64_t now)
{
    bool proved = stream->answered;
    struct list lost, *link;

    list_init(&lost);
    while ((link = list_pop_front(&stream->attempts)) != NULL) {
        list_entry(link, struct dns_attempt, stream_link)->stream = NULL;
        list_push_back(&lost, link);
    }
    stream->attempt_count = 0;
    stream_close(stream);
    while ((link = list_pop_front(&lost)) != NULL)
        query_attempt_lost(list_entry(link, struct dns_attempt, stream_link), proved, now);
}

static int start(struct dns_stream *stream)
{
    struct dns *dns = stream->dns;

    stream->out = malloc(DNS_STREAM_OUT);
    if (!stream->out)
        return -ENOMEM;
    stream->fd = socket_open(&stream->where.endpoint, stream->scope_id, true);
    if (stream->fd < 0)
        return stream->fd;
    if (stream->where.tls && !(stream->tls = tls_new(dns->tls, stream->fd, &stream->where)))
        return -ENOMEM;
    stream->events = EPOLLIN | EPOLLOUT;
    return loop_add(dns->loop, stream->fd, stream->events, dns->stream_handler, index_of(stream),
                    stream->generation);
}

static struct dns_stream *stream_open(struct dns *dns, const struct dns_server *server)
{
    struct dns_stream *stream = stream_take(dns);

    if (!stream) {
        count(dns->counters, COUNTER_dns_stream_limit);
        return NULL;
    }
    stream->where = server->where;
    stream->scope_id = server->scope_id;
    stream->fd = -1;
    stream->stale = stream->answered = false;
    stream->heard = 0;
    stream->attempt_count = 0;
    stream->out_len = stream->out_sent = stream->in_len = 0;
    list_push_back(&dns->open_streams, &stream->link);
    count(dns->counters, COUNTER_dns_streams);
    if (start(stream) < 0) {
        stream_close(stream);
        return NULL;
    }
    return stream;
}

/* ---- asking ---- */

static bool leads_to(const struct dns_stream *stream, const struct dns_server *server)
{
    const struct dns_upstream *a = &stream->where, *b = &server->where;

    return ip_address_equal(&a->endpoint.address, &b->endpoint.address) &&
           a->endpoint.port == b->endpoint.port && stream->scope_id == server->scope_id &&
           a->tls == b->tls && strcmp(a->tls_name, b->tls_name) == 0;
}

static bool has_room(const struct dns_stream *stream, size_t len)
{
    return !stream->stale && stream->attempt_count < DNS_STREAM_PIPELINE &&
           len + 2 <= DNS_STREAM_OUT - (stream->out_len - stream->out_sent);
}

static struct dns_stream *stream_for(struct dns *dns, const struct dns_server *server, size_t len)
{
    list_for_each (link, &dns->open_streams) {
        struct dns_stream *stream = list_entry(link, struct dns_stream, link);

        if (leads_to(stream, server) && has_room(stream, len))
            return stream;
    }
    return stream_open(dns, server);
}

static struct dns_attempt *find_attempt(const struct dns_stream *stream, uint16_t id)
{
    list_for_each (link, &stream->attempts) {
        struct dns_attempt *attempt = list_entry(link, struct dns_attempt, stream_link);

        if (attempt->id == id)
            return attempt;
    }
    return NULL;
}

static void append(struct dns_stream *stream, const uint8_t *message, size_t len)
{
    size_t waiting = stream->out_len - stream->out_sent;

    if (stream->out_sent > 0)
        memmove(stream->out, stream->out + stream->out_sent, waiting);
    stream->out_sent = 0;
    store_be16(stream->out + waiting, (uint16_t)len);
    memcpy(stream->out + waiting + 2, message, len);
    stream->out_len = waiting + 2 + len;
}

/* What the loop must tell: that it can be written to, as long as something waits for that. */
static int update_events(struct dns_stream *stream)
{
    bool waits = stream->tls ? tls_wants_to_write(stream->tls) : stream->out_sent < stream->out_len;
    uint32_t events = EPOLLIN | (waits ? EPOLLOUT : 0u);

    if (events == stream->events)
        return 0;
    stream->events = events;
    return loop_modify(stream->dns->loop, stream->fd, events, stream->dns->stream_handler,
                       index_of(stream), stream->generation);
}

static ssize_t send_some(struct dns_stream *stream)
{
    const uint8_t *from = stream->out + stream->out_sent;
    size_t len = stream->out_len - stream->out_sent;
    ssize_t n;

    if (stream->tls)
        return tls_send(stream->tls, from, len);
    n = send(stream->fd, from, len, MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

/* 0, also when some must wait; or negative errno. */
static int flush(struct dns_stream *stream)
{
    while (stream->out_sent < stream->out_len) {
        ssize_t n = send_some(stream);

        if (n == -EAGAIN || n == -EINTR)
            break;
        if (n < 0)
            return (int)n;
        stream->out_sent += (size_t)n;
    }
    return update_events(stream);
}

int stream_ask(struct dns_attempt *attempt, const struct dns_server *server, uint8_t *message,
               size_t len)
{
    struct dns *dns = attempt->query->dns;
    struct dns_stream *stream = stream_for(dns, server, len);

    if (!stream)
        return -ENOBUFS;
    while (find_attempt(stream, attempt->id))
        dns_random(dns, &attempt->id, sizeof attempt->id);
    store_be16(message, attempt->id);
    append(stream, message, len);
    attempt->stream = stream;
    list_push_back(&stream->attempts, &attempt->stream_link);
    stream->attempt_count++;
    timer_cancel(dns->timers, &stream->idle);
    /* sent when the loop says that it can be: an error would end attempts in their making */
    if (!(stream->events & EPOLLOUT)) {
        stream->events |= EPOLLOUT;
        return loop_modify(dns->loop, stream->fd, stream->events, dns->stream_handler,
                           index_of(stream), stream->generation);
    }
    return 0;
}

void stream_leave(struct dns_attempt *attempt)
{
    struct dns_stream *stream = attempt->stream;

    list_remove(&attempt->stream_link);
    attempt->stream = NULL;
    if (stream && --stream->attempt_count == 0)
        timer_arm(stream->dns->timers, &stream->idle,
                  stream->stale ? clock_now() : clock_now() + DNS_STREAM_IDLE);
}

void stream_doubt(struct dns_attempt *attempt)
{
    if (attempt->stream && attempt->stream->heard < attempt->asked)
        attempt->stream->stale = true;
}

/* ---- what comes back ---- */

/* The next bytes: of the length, then of the answer. 0: no more will come; or negative errno. */
static ssize_t receive_piece(struct dns_stream *stream)
{
    uint8_t *to = stream->in_length + stream->in_len;
    size_t want = 2 - stream->in_len;
    ssize_t n;

    if (stream->in_len >= 2) {
        want = load_be16(stream->in_length);
        if (!stream->in && !(stream->in = malloc(want + 1)))
            return -ENOMEM;
        to = stream->in + stream->in_len - 2;
        want = want + 2 - stream->in_len;
    }
    if (stream->tls)
        return tls_recv(stream->tls, to, want);
    n = recv(stream->fd, to, want, 0);
    return n < 0 ? -errno : n;
}

/* A whole answer is there. The stream stays whatever becomes of it. */
static void take_answer(struct dns_stream *stream, uint64_t now)
{
    size_t len = stream->in_len - 2;
    uint8_t *answer = stream->in;
    struct dns_attempt *attempt = find_attempt(stream, load_be16(answer));

    stream->in = NULL;
    stream->in_len = 0;
    if (!attempt)
        count(stream->dns->counters, COUNTER_dns_answer_mismatch);
    else if (query_answer(attempt, answer, len, now))
        query_attempt_failed(attempt, now); /* its id, but not its question */
    else
        stream->answered = true;
    free(answer);
}

/* 0: that was all for now; or negative errno, -EPIPE for the end. */
static int receive(struct dns_stream *stream, uint64_t now)
{
    int reads = stream->tls ? READS_MAX_TLS : READS_MAX;

    for (int i = 0; i < reads; i++) {
        ssize_t n = receive_piece(stream);

        if (n == -EAGAIN || n == -EINTR)
            return 0;
        if (n <= 0)
            return n == 0 ? -EPIPE : (int)n;
        stream->heard = now;
        stream->in_len += (size_t)n;
        if (stream->in_len >= 2 && load_be16(stream->in_length) < DNS_HEADER_LEN)
            return -EBADMSG;
        if (stream->in_len >= 2 && stream->in_len == load_be16(stream->in_length) + 2u)
            take_answer(stream, now);
    }
    return stream->tls ? -EMSGSIZE : 0;
}

void stream_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct dns *dns = ctx;
    struct dns_stream *stream = &dns->streams[index];
    uint64_t now = clock_now();
    int r;

    if (index >= dns->streams_touched || stream->generation != generation || stream->fd < 0)
        return;
    stack_set_now(dns->stack, now);
    r = flush(stream);
    if (r == 0 && (stream->tls || (events & ~(uint32_t)EPOLLOUT)))
        r = receive(stream, now);
    if (r == 0)
        r = flush(stream); /* TLS may have had to read first; answers may have brought questions */
    if (r == -EACCES && stream->tls)
        count(dns->counters, COUNTER_dns_tls_untrusted);
    if (r < 0)
        stream_fail(stream, now);
    guest_settle_all(dns, now);
}
