/* SPDX-License-Identifier: Apache-2.0 */
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "wire/bytes.h"

/* ---- the stack, faked ---- */

static struct world *world_of(struct stack *stack)
{
    return (struct world *)(void *)stack;
}

static struct guest *guest_of(struct stack *stack, struct flow_handle flow)
{
    struct guest *guest = &world_of(stack)->guests[flow.index];

    return guest->closed ? NULL : guest;
}

void stack_set_now(struct stack *stack, uint64_t now)
{
    (void)stack;
    assert_true(now != 0);
}

int stack_udp_output(struct stack *stack, const struct udp_output *output)
{
    struct world *w = world_of(stack);
    struct reply *reply = &w->replies[w->reply_count++];

    assert_true(w->reply_count <= REPLIES_MAX);
    assert_int_equal(output->segment_count, 1);
    assert_int_equal(output->segments[0].len, output->len);
    reply->bytes = malloc(output->len);
    reply->len = output->len;
    reply->key = output->key;
    memcpy(reply->bytes, output->segments[0].base, output->len);
    return 0;
}

bool tcp_set_upstream(struct stack *stack, struct flow_handle flow,
                      const struct tcp_upstream *upstream, void *ctx, uint64_t token)
{
    struct guest *guest = guest_of(stack, flow);

    guest->upstream = *upstream;
    guest->ctx = ctx;
    guest->token = token;
    return true;
}

void tcp_connected(struct stack *stack, struct flow_handle flow)
{
    guest_of(stack, flow)->connected = true;
}

void tcp_refuse(struct stack *stack, struct flow_handle flow, enum tcp_refusal how)
{
    struct guest *guest = guest_of(stack, flow);

    assert_int_equal(how, TCP_REFUSE_RESET);
    guest->refused = guest->closed = true;
}

int tcp_rx_reserve(struct stack *stack, struct flow_handle flow, struct iovec *iov)
{
    struct guest *guest = guest_of(stack, flow);
    size_t room = guest->window < 1000 ? guest->window : 1000;

    assert_false(guest->eof);
    if (room == 0)
        return 0;
    assert_true(guest->got_len + room <= sizeof guest->got);
    iov[0] = (struct iovec){guest->got + guest->got_len, (room + 1) / 2};
    iov[1] = (struct iovec){guest->got + guest->got_len + (room + 1) / 2, room / 2};
    return room > 1 ? 2 : 1;
}

void tcp_rx_commit(struct stack *stack, struct flow_handle flow, size_t n)
{
    struct guest *guest = guest_of(stack, flow);

    assert_true(n <= guest->window);
    guest->window -= n;
    guest->got_len += n;
}

void tcp_rx_eof(struct stack *stack, struct flow_handle flow)
{
    guest_of(stack, flow)->eof = true;
}

void tcp_host_reset(struct stack *stack, struct flow_handle flow)
{
    struct guest *guest = guest_of(stack, flow);

    guest->reset = guest->closed = true;
    guest->upstream.close(guest->ctx, guest->token, TCP_CLOSE_FINISHED);
}

void tcp_writable(struct stack *stack, struct flow_handle flow)
{
    guest_of(stack, flow)->offered = true;
}

/* ---- name servers, faked ---- */

enum kind { DATAGRAMS, LISTENER, CONNECTION };

static void take_question(struct server *server, struct asked *asked, bool tcp)
{
    assert_int_equal(dns_message_read(asked->bytes, asked->len, &asked->m), 0);
    assert_int_equal(asked->m.end, asked->len);
    server->last = *asked;
    if (tcp)
        server->asked_tcp++;
    else
        server->asked_udp++;
    if (server->script)
        server->script(server, asked);
}

static void receive_datagram(struct server *server)
{
    struct asked asked = {.tcp_fd = -1};
    socklen_t from_len = sizeof asked.from;
    ssize_t n = recvfrom(server->udp, asked.bytes, sizeof asked.bytes, MSG_DONTWAIT,
                         (struct sockaddr *)&asked.from, &from_len);

    if (n <= 0)
        return;
    asked.len = (size_t)n;
    take_question(server, &asked, false);
}

/* A connection carries one question, which the resolver writes in one go, or several such. */
static void receive_connection(struct server *server, int fd)
{
    struct asked asked = {.tcp_fd = fd};
    uint8_t length[2];
    bool more = recv(fd, length, 2, 0) == 2;

    if (more) {
        asked.len = load_be16(length);
        assert_int_equal(recv(fd, asked.bytes, asked.len, MSG_WAITALL), asked.len);
        take_question(server, &asked, true);
        if (server->keeps_open)
            return;
    }
    server->ended += !more;
    loop_remove(&server->world->loop, fd);
    close(fd);
}

static void accept_connection(struct server *server)
{
    struct world *w = server->world;
    int fd = accept4(server->tcp, NULL, NULL, SOCK_CLOEXEC);

    assert_true(fd >= 0);
    server->accepted++;
    assert_int_equal(loop_add(&w->loop, fd, EPOLLIN, w->server_handler,
                              server->index | (uint32_t)fd << 8, CONNECTION),
                     0);
}

static void server_ready(void *ctx, uint32_t index, uint32_t kind, uint32_t events)
{
    struct world *w = ctx;
    struct server *server = &w->servers[index & 0xff];

    (void)events;
    if (kind == CONNECTION)
        receive_connection(server, (int)(index >> 8));
    else if (kind == LISTENER)
        accept_connection(server);
    else
        receive_datagram(server);
}

static uint16_t bind_any(int fd, uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;

    if (bind(fd, (struct sockaddr *)&address, len) < 0)
        return 0;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    return ntohs(address.sin_port);
}

/* Both sockets on one port, which may take a few tries. */
static uint16_t server_bind(struct server *server)
{
    for (int i = 0; i < 50; i++) {
        uint16_t port;

        server->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        server->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        port = bind_any(server->tcp, 0);
        if (port != 0 && bind_any(server->udp, port) == port)
            return port;
        close(server->tcp);
        close(server->udp);
    }
    fail_msg("no port for both UDP and TCP");
    return 0;
}

struct server *world_add_server(struct world *w,
                                void (*script)(struct server *, const struct asked *))
{
    struct server *server = &w->servers[w->server_count];
    uint32_t index = (uint32_t)w->server_count++;

    server->world = w;
    server->index = index;
    server->script = script;
    server->where.endpoint.address = ip_address_v4(htonl(INADDR_LOOPBACK));
    server->where.endpoint.port = server_bind(server);
    assert_int_equal(listen(server->tcp, 64), 0);
    assert_int_equal(loop_add(&w->loop, server->udp, EPOLLIN, w->server_handler, index, DATAGRAMS),
                     0);
    assert_int_equal(loop_add(&w->loop, server->tcp, EPOLLIN, w->server_handler, index, LISTENER),
                     0);
    return server;
}

void server_send(struct server *server, const struct asked *asked, const uint8_t *bytes, size_t len)
{
    uint8_t length[2];

    if (asked->tcp_fd < 0) {
        assert_int_equal(sendto(server->udp, bytes, len, 0, (const struct sockaddr *)&asked->from,
                                sizeof asked->from),
                         len);
        return;
    }
    store_be16(length, (uint16_t)len);
    assert_int_equal(send(asked->tcp_fd, length, 2, MSG_MORE), 2);
    assert_int_equal(send(asked->tcp_fd, bytes, len, 0), len);
}

size_t answer_build(const struct asked *asked, unsigned rcode, unsigned records, uint8_t *to,
                    size_t capacity)
{
    struct dns_builder b = {.data = to, .capacity = capacity};
    struct dns_header header = {
        .id = asked->m.header.id,
        .flags = (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RA | (asked->m.header.flags & DNS_FLAG_RD) |
                            (rcode & DNS_RCODE_MASK)),
        .question_count = 1,
        .record_count = {(uint16_t)records, 0, asked->m.edns.present},
    };

    dns_build_header(&b, &header);
    dns_build_question(&b, &asked->m.question);
    for (unsigned i = 0; i < records; i++) {
        uint8_t address[4] = {192, 0, (uint8_t)(i >> 8), (uint8_t)i};

        dns_build_record(&b, DNS_TYPE_A, DNS_CLASS_IN, 300, address, 4);
    }
    dns_build_opt(&b, &(struct dns_edns){.present = asked->m.edns.present, .size = 1400});
    assert_false(b.overflow);
    return b.len;
}

void answer_one(struct server *server, const struct asked *asked)
{
    uint8_t bytes[512];

    server_send(server, asked, bytes, answer_build(asked, DNS_NOERROR, 1, bytes, sizeof bytes));
}

/* ---- the world ---- */

static void allow_many_descriptors(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
    setrlimit(RLIMIT_NOFILE, &limit);
}

struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof *w);

    assert_non_null(w);
    allow_many_descriptors();
    assert_int_equal(loop_init(&w->loop), 0);
    w->timers = timers_new(NULL, clock_now());
    assert_non_null(w->timers);
    w->server_handler = loop_add_handler(&w->loop, server_ready, w);
    return w;
}

void world_free(struct world *w)
{
    dns_free(w->dns);
    assert_int_equal(timers_next(w->timers), TIMERS_NEVER);
    timers_free(w->timers);
    for (size_t i = 0; i < w->server_count; i++) {
        close(w->servers[i].udp);
        close(w->servers[i].tcp);
    }
    for (size_t i = 0; i < w->reply_count; i++)
        free(w->replies[i].bytes);
    loop_fini(&w->loop);
    free(w);
}

static void start(struct world *w, const struct dns_config *config)
{
    w->dns = dns_new(config, (struct stack *)(void *)w, &w->loop, w->timers, &w->counters);
    assert_non_null(w->dns);
}

void world_start(struct world *w)
{
    world_start_cached(w, 0, 1); /* too small to keep anything */
}

void world_start_cached(struct world *w, size_t entries, size_t bytes)
{
    struct dns_config config = {.upstream_count = w->server_count,
                                .resolv_conf = "/nonexistent/resolv.conf",
                                .cache_entries = entries,
                                .cache_bytes = bytes};

    for (size_t i = 0; i < w->server_count; i++)
        config.upstreams[i] = w->servers[i].where;
    start(w, &config);
}

void world_start_resolv_conf(struct world *w, const char *path)
{
    start(w, &(struct dns_config){.resolv_conf = path});
}

uint64_t world_now(const struct world *w)
{
    return clock_now() + w->skipped;
}

void world_skip(struct world *w, uint64_t ms)
{
    w->skipped += ms * MS_NS + TIMERS_SLACK;
    timers_expire(w->timers, world_now(w));
}

static void step(struct world *w, uint64_t until)
{
    uint64_t now = world_now(w), next = timers_next(w->timers);

    assert_true(loop_wait(&w->loop, now, next < until ? next : until) >= 0);
    timers_expire(w->timers, world_now(w));
}

void world_run_until(struct world *w, bool (*done)(const struct world *))
{
    uint64_t until = world_now(w) + 2 * SECOND_NS;

    while (!done(w)) {
        assert_true(world_now(w) < until && "nothing came of it");
        step(w, until);
    }
}

void world_run_replies(struct world *w, size_t replies)
{
    uint64_t until = world_now(w) + 2 * SECOND_NS;

    while (w->reply_count < replies) {
        assert_true(world_now(w) < until && "no reply");
        step(w, until);
    }
}

void world_run_asked(struct world *w, const struct server *server, unsigned times)
{
    uint64_t until = world_now(w) + 2 * SECOND_NS;

    while (server->asked_udp + server->asked_tcp < times) {
        assert_true(world_now(w) < until && "not asked");
        step(w, until);
    }
}

void world_settle(struct world *w)
{
    uint64_t until = world_now(w) + 10 * MS_NS;

    while (world_now(w) < until)
        step(w, until);
}

/* ---- the guest ---- */

size_t question_build(const struct question *question, uint8_t to[512])
{
    struct dns_builder b = {.data = to, .capacity = 512};
    struct dns_question q = {.type = question->type, .qclass = DNS_CLASS_IN};

    assert_int_equal(dns_name_parse(question->name, &q.name), 0);
    dns_build_header(&b, &(struct dns_header){
                             .id = question->id,
                             .flags = question->flags ? question->flags : DNS_FLAG_RD,
                             .question_count = 1,
                             .record_count = {[DNS_ADDITIONAL] = question->edns != 0},
                         });
    dns_build_question(&b, &q);
    dns_build_opt(&b, &(struct dns_edns){.present = question->edns != 0, .size = question->edns});
    return b.len;
}

void guest_sends(struct world *w, uint16_t port, const uint8_t *bytes, size_t len)
{
    struct culvert_frame *frame = culvert_frame_new(len + 42);
    struct udp_datagram datagram = {
        .key = {.guest = ip_address_v4(htonl(0x0a000264)),
                .remote = ip_address_v4(htonl(0x0a000203)),
                .guest_port = port,
                .remote_port = 53,
                .protocol = IPPROTO_UDP},
        .frame = frame,
        .payload_offset = 42,
        .payload_len = len,
    };

    assert_non_null(frame);
    memset(frame->data, 0, 42);
    if (len != 0)
        memcpy(frame->data + 42, bytes, len);
    frame->len = len + 42;
    dns_udp_input(w->dns, &datagram, world_now(w));
    culvert_frame_unref(frame);
}

void guest_asks(struct world *w, uint16_t port, const struct question *question)
{
    uint8_t bytes[512];

    guest_sends(w, port, bytes, question_build(question, bytes));
}

struct dns_message reply_read(const struct world *w, size_t index)
{
    struct dns_message m;

    assert_true(index < w->reply_count);
    assert_int_equal(dns_message_read(w->replies[index].bytes, w->replies[index].len, &m), 0);
    assert_int_equal(m.end, w->replies[index].len);
    assert_true(m.header.flags & DNS_FLAG_QR);
    return m;
}

unsigned reply_rcode(const struct world *w, size_t index)
{
    assert_true(index < w->reply_count && w->replies[index].len >= DNS_HEADER_LEN);
    return w->replies[index].bytes[3] & DNS_RCODE_MASK;
}

struct guest *guest_connects(struct world *w)
{
    struct guest *guest = &w->guests[w->guest_count];
    struct flow_handle flow = {.index = (uint32_t)w->guest_count++};
    struct flow_key key = {.guest_port = 1000, .remote_port = 53, .protocol = IPPROTO_TCP};

    memset(guest, 0, sizeof *guest);
    guest->window = sizeof guest->got;
    dns_tcp_open(w->dns, flow, &key, world_now(w));
    return guest;
}

ssize_t guest_writes(struct guest *guest, const uint8_t *bytes, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, len};

    return guest->upstream.write(guest->ctx, guest->token, &iov, 1);
}

ssize_t guest_asks_tcp(struct guest *guest, const struct question *question)
{
    uint8_t bytes[514];
    size_t len = question_build(question, bytes + 2);

    store_be16(bytes, (uint16_t)len);
    return guest_writes(guest, bytes, len + 2);
}

const uint8_t *guest_message(const struct guest *guest, size_t n, size_t *ret_len)
{
    size_t at = 0;

    for (;; n--) {
        size_t len;

        if (guest->got_len - at < 2)
            return NULL;
        len = load_be16(guest->got + at);
        if (guest->got_len - at - 2 < len)
            return NULL;
        *ret_len = len;
        if (n == 0)
            return guest->got + at + 2;
        at += 2 + len;
    }
}

size_t guest_messages(const struct guest *guest)
{
    size_t n = 0, len;

    while (guest_message(guest, n, &len))
        n++;
    return n;
}
