/* SPDX-License-Identifier: Apache-2.0 */
/* One attempt to have a question answered: one server, one socket, one id. Over UDP the socket has
 * a random port of the kernel's choice and hears that server alone. Over TCP it carries one message
 * each way. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "dns/internal.h"
#include "wire/bytes.h"

/* Answers read from one socket before others get their turn. */
#define READS_MAX 8

/* ---- the message ---- */

/* The question's name in random case: 0x20 of each letter is a coin's toss. */
static void randomise_case(struct dns *dns, struct dns_name *name)
{
    uint8_t coins[(DNS_NAME_MAX + 7) / 8];

    dns_random(dns, coins, (name->len + 7u) / 8u);
    for (size_t i = 0; i < name->len; i++) {
        uint8_t c = name->bytes[i];

        if (c >= 'a' && c <= 'z' && (coins[i / 8] >> (i % 8) & 1))
            name->bytes[i] = (uint8_t)(c & ~0x20);
    }
}

static bool is_loopback(const struct ip_address *address)
{
    static const struct ip_address loopback6 = {.bytes = {[15] = 1}};

    return ip_address_is_v4(address) ? address->bytes[12] == 127
                                     : ip_address_equal(address, &loopback6);
}

static size_t build_message(const struct dns_attempt *attempt, const struct dns_server *server,
                            uint8_t *to)
{
    const struct dns_query *query = attempt->query;
    struct dns_builder b = {.data = to, .capacity = DNS_QUERY_BYTES};
    struct dns_question question = query->key.question;
    bool local = is_loopback(&server->where.endpoint.address);

    question.name = attempt->name;
    dns_build_header(&b, &(struct dns_header){
                             .id = attempt->id,
                             .flags = query->key.flags,
                             .question_count = 1,
                             .record_count = {[DNS_ADDITIONAL] = attempt->edns},
                         });
    dns_build_question(&b, &question);
    dns_build_opt(&b, &(struct dns_edns){
                          .present = attempt->edns,
                          .dnssec_ok = query->key.dnssec_ok,
                          .size = local ? DNS_UPSTREAM_LOCAL_SIZE : DNS_UPSTREAM_UDP_SIZE,
                      });
    return b.len;
}

/* ---- the socket ---- */

/* A nonblocking socket connected (TCP: connecting) to `server`, or negative errno. */
static int open_socket(const struct dns_server *server, bool tcp)
{
    struct sockaddr_storage address;
    socklen_t len = ip_endpoint_to_sockaddr(&server->where.endpoint, &address);
    int type = (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
    _cleanup_close_ int fd = socket(address.ss_family, type, 0);

    if (fd < 0)
        return -errno;
    if (address.ss_family == AF_INET6) {
        static const int on = 1;

        ((struct sockaddr_in6 *)&address)->sin6_scope_id = server->scope_id;
        if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)
            return -errno;
    }
    if (connect(fd, (struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS)
        return -errno;
    return TAKE_FD(fd);
}

/* Sends what is left of a TCP attempt's message. 0, also when it must wait; or negative errno. */
static int send_more(struct dns_attempt *attempt)
{
    struct dns *dns = attempt->query->dns;
    ssize_t n = send(attempt->fd, attempt->out + attempt->out_sent,
                     attempt->out_len - attempt->out_sent, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    attempt->out_sent += (size_t)n;
    if (attempt->out_sent < attempt->out_len)
        return 0;
    return loop_modify(dns->loop, attempt->fd, EPOLLIN, dns->attempt_handler,
                       (uint32_t)(attempt - dns->attempts), attempt->generation);
}

static int send_question(struct dns_attempt *attempt, const struct dns_server *server)
{
    size_t len = build_message(attempt, server, attempt->out + 2);

    if (attempt->tcp) { /* sent when the connection stands */
        store_be16(attempt->out, (uint16_t)len);
        attempt->out_len = len + 2;
        return 0;
    }
    return send(attempt->fd, attempt->out + 2, len, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int attempt_open(struct dns_attempt *attempt, const struct dns_server *server)
{
    struct dns *dns = attempt->query->dns;
    int fd = open_socket(server, attempt->tcp), r;

    if (fd < 0)
        return fd;
    attempt->fd = fd;
    r = loop_add(dns->loop, fd, attempt->tcp ? EPOLLIN | EPOLLOUT : EPOLLIN, dns->attempt_handler,
                 (uint32_t)(attempt - dns->attempts), attempt->generation);
    return r < 0 ? r : send_question(attempt, server);
}

/* ---- attempts ---- */

static struct dns_attempt *attempt_take(struct dns *dns)
{
    struct list *link = list_pop_front(&dns->free_attempts);
    struct dns_attempt *attempt;

    if (link)
        return list_entry(link, struct dns_attempt, link);
    if (dns->attempts_touched == DNS_ATTEMPTS_MAX)
        return NULL;
    attempt = &dns->attempts[dns->attempts_touched++];
    list_init(&attempt->link);
    return attempt;
}

struct dns_server *attempt_server(const struct dns_attempt *attempt)
{
    struct dns_servers *servers = &attempt->query->dns->servers;

    return attempt->servers_generation == servers->generation ? &servers->list[attempt->server]
                                                              : NULL;
}

struct dns_attempt *attempt_start(struct dns_query *query, size_t index)
{
    struct dns *dns = query->dns;
    const struct dns_server *server = &dns->servers.list[index];
    struct dns_attempt *attempt = attempt_take(dns);

    if (!attempt) {
        count(dns->counters, COUNTER_dns_attempt_limit);
        return NULL;
    }
    attempt->query = query;
    attempt->server = index;
    attempt->servers_generation = dns->servers.generation;
    attempt->fd = -1;
    attempt->tcp = query->over_tcp || server->where.tcp_only;
    attempt->edns = !query->without_edns && !server->no_edns;
    attempt->name = query->key.question.name;
    attempt->out_len = attempt->out_sent = attempt->in_len = 0;
    dns_random(dns, &attempt->id, sizeof attempt->id);
    if (!server->folds_case)
        randomise_case(dns, &attempt->name);
    list_push_back(&query->attempts, &attempt->link);
    query->attempt_count++;
    count(dns->counters, attempt->tcp ? COUNTER_dns_upstream_tcp : COUNTER_dns_upstream_udp);
    if (attempt_open(attempt, server) < 0) {
        count(dns->counters, COUNTER_dns_socket_failed);
        attempt_free(attempt);
        return NULL;
    }
    return attempt;
}

void attempt_free(struct dns_attempt *attempt)
{
    struct dns *dns = attempt->query->dns;

    if (attempt->fd >= 0) {
        loop_remove(dns->loop, attempt->fd);
        close(attempt->fd);
    }
    free(attempt->in);
    attempt->in = NULL;
    attempt->generation = (attempt->generation + 1) & LOOP_GENERATION_MAX;
    attempt->query->attempt_count--;
    attempt->query = NULL;
    list_remove(&attempt->link);
    list_push_front(&dns->free_attempts, &attempt->link);
}

/* ---- what comes back ---- */

static void receive_udp(struct dns *dns, struct dns_attempt *attempt, uint64_t now)
{
    for (int i = 0; i < READS_MAX; i++) {
        ssize_t n = recv(attempt->fd, dns->received, sizeof dns->received, 0);

        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR)
                query_attempt_failed(attempt, now); /* as the ICMP error said */
            return;
        }
        if (!query_answer(attempt, dns->received, (size_t)n, now))
            return;
    }
}

/* The next bytes: of the length, then of the answer. As recv(). */
static ssize_t receive_piece(struct dns_attempt *attempt)
{
    size_t want;

    if (attempt->in_len < 2)
        return recv(attempt->fd, attempt->in_length + attempt->in_len, 2 - attempt->in_len, 0);
    want = load_be16(attempt->in_length);
    if (!attempt->in && !(attempt->in = malloc(want + 1)))
        return -1;
    return recv(attempt->fd, attempt->in + attempt->in_len - 2, want + 2 - attempt->in_len, 0);
}

static void receive_tcp(struct dns_attempt *attempt, uint64_t now)
{
    for (int i = 0; i < READS_MAX; i++) {
        ssize_t n = receive_piece(attempt);
        size_t want;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            query_attempt_failed(attempt, now);
            return;
        }
        attempt->in_len += (size_t)n;
        want = load_be16(attempt->in_length);
        if (attempt->in_len < 2)
            continue;
        if (want < DNS_HEADER_LEN) {
            query_attempt_failed(attempt, now);
            return;
        }
        if (attempt->in_len == want + 2) {
            if (query_answer(attempt, attempt->in, want, now))
                query_attempt_failed(attempt, now); /* there was one question on this connection */
            return;
        }
    }
}

void attempt_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct dns *dns = ctx;
    struct dns_attempt *attempt = &dns->attempts[index];
    uint64_t now = clock_now();

    if (!attempt->query || attempt->generation != generation)
        return;
    stack_set_now(dns->stack, now);
    if (!attempt->tcp)
        receive_udp(dns, attempt, now);
    else if (attempt->out_sent < attempt->out_len && send_more(attempt) < 0)
        query_attempt_failed(attempt, now);
    else if (attempt->out_sent == attempt->out_len && (events & ~(uint32_t)EPOLLOUT))
        receive_tcp(attempt, now);
    guest_settle_all(dns, now);
}
