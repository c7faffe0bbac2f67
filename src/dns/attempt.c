/* SPDX-License-Identifier: Apache-2.0 */
/* One attempt to have a question answered: one server, one id. Over UDP it has a socket of its own,
 * with a random port of the kernel's choice, that hears that server alone. Over TCP or TLS it
 * shares a connection with others (stream.c). */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

int socket_open(const struct ip_endpoint *endpoint, uint32_t scope_id, bool tcp)
{
    static const int on = 1;
    struct sockaddr_storage address;
    socklen_t len = ip_endpoint_to_sockaddr(endpoint, &address);
    int type = (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
    _cleanup_close_ int fd = socket(address.ss_family, type, 0);

    if (fd < 0)
        return -errno;
    if (address.ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)&address)->sin6_scope_id = scope_id;
        if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)
            return -errno;
    }
    if (tcp && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS)
        return -errno;
    return TAKE_FD(fd);
}

static int ask_by_udp(struct dns_attempt *attempt, const struct dns_server *server,
                      const uint8_t *message, size_t len)
{
    struct dns *dns = attempt->query->dns;
    int fd = socket_open(&server->where.endpoint, server->scope_id, false), r;

    if (fd < 0)
        return fd;
    attempt->fd = fd;
    r = loop_add(dns->loop, fd, EPOLLIN, dns->attempt_handler, (uint32_t)(attempt - dns->attempts),
                 attempt->generation);
    if (r < 0)
        return r;
    return send(fd, message, len, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int attempt_ask(struct dns_attempt *attempt, const struct dns_server *server)
{
    uint8_t message[DNS_QUERY_BYTES];

    if (attempt->tcp)
        return stream_ask(attempt, server, message, build_message(attempt, server, message));
    return ask_by_udp(attempt, server, message, build_message(attempt, server, message));
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
    list_init(&attempt->stream_link);
    return attempt;
}

struct dns_server *attempt_server(const struct dns_attempt *attempt)
{
    struct dns_servers *servers = attempt->query->servers;

    return attempt->servers_generation == servers->generation ? &servers->list[attempt->server]
                                                              : NULL;
}

struct dns_attempt *attempt_start(struct dns_query *query, size_t index)
{
    struct dns *dns = query->dns;
    const struct dns_server *server = &query->servers->list[index];
    struct dns_attempt *attempt = attempt_take(dns);

    if (!attempt) {
        count(dns->counters, COUNTER_dns_attempt_limit);
        return NULL;
    }
    attempt->query = query;
    attempt->server = index;
    attempt->servers_generation = query->servers->generation;
    attempt->fd = -1;
    attempt->tcp = query->over_tcp || server->where.tcp_only;
    attempt->edns = !query->without_edns && !server->no_edns;
    attempt->name = query->key.question.name;
    attempt->asked = clock_now();
    attempt->stream = NULL;
    dns_random(dns, &attempt->id, sizeof attempt->id);
    if (!server->folds_case)
        randomise_case(dns, &attempt->name);
    list_push_back(&query->attempts, &attempt->link);
    query->attempt_count++;
    count(dns->counters, attempt->tcp ? COUNTER_dns_upstream_tcp : COUNTER_dns_upstream_udp);
    if (attempt_ask(attempt, server) < 0) {
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
    stream_leave(attempt);
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

void attempt_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct dns *dns = ctx;
    struct dns_attempt *attempt = &dns->attempts[index];
    uint64_t now = clock_now();

    (void)events;
    if (!attempt->query || attempt->generation != generation)
        return;
    stack_set_now(dns->stack, now);
    receive_udp(dns, attempt, now);
    guest_settle_all(dns, now);
}
