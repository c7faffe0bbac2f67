/* SPDX-License-Identifier: Apache-2.0 */
/* Published ports: their text, and clients over real loopback sockets. */

#include "fake_stack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "relay/publish.h"

/* ---- the text ---- */

static void parses(const char *text, const char *address, uint16_t host, uint16_t guest,
                   uint16_t count, uint8_t protocol)
{
    struct publish_spec spec;
    struct ip_address expected;
    char message[512] = "";

    assert_true(ip_address_parse(address, &expected));
    assert_int_equal(publish_parse(text, &spec, message, sizeof message), 0);
    assert_true(ip_address_equal(&spec.address, &expected));
    assert_int_equal(spec.host, host);
    assert_int_equal(spec.guest, guest);
    assert_int_equal(spec.count, count);
    assert_int_equal(spec.protocol, protocol);
}

static void the_text_of_a_port_is_read(void **state)
{
    (void)state;
    parses("8080:80", "127.0.0.1", 8080, 80, 1, IPPROTO_TCP);
    parses("8080:80/tcp", "127.0.0.1", 8080, 80, 1, IPPROTO_TCP);
    parses("53:5353/udp", "127.0.0.1", 53, 5353, 1, IPPROTO_UDP);
    parses("0.0.0.0:1:2", "0.0.0.0", 1, 2, 1, IPPROTO_TCP);
    parses("192.0.2.1:8000-8009:80-89", "192.0.2.1", 8000, 80, 10, IPPROTO_TCP);
    parses("[::]:1-65535:1-65535/udp", "::", 1, 1, 65535, IPPROTO_UDP);
    parses("[fe80::1]:7:7-7", "fe80::1", 7, 7, 1, IPPROTO_TCP);
}

static void refused(const char *text, const char *why)
{
    struct publish_spec spec;
    char message[512] = "";

    assert_int_equal(publish_parse(text, &spec, message, sizeof message), -EINVAL);
    if (!strstr(message, why))
        fail_msg("%s: '%s' does not say '%s'", text, message, why);
}

static void a_text_that_is_no_port_is_refused_with_the_mend(void **state)
{
    char endless[400];

    (void)state;
    refused("", "8080:80");
    refused("80", "the guest's port is missing");
    refused("80:", "of the guest: ''");
    refused(":80", "of the host: ''");
    refused("0:80", "of the host: '0'");
    refused("80:65536", "of the guest: '65536'");
    refused("80:99999999999999999999", "of the guest");
    refused("9-8:9-8", "of the host: '9-8'");
    refused("8-9:80", "2 ports of the host cannot lead to 1 of the guest");
    refused("80:80/", "tcp or udp");
    refused("80:80/sctp", "tcp or udp");
    refused("80:80/tcp/udp", "tcp or udp");
    refused("127.1:80:80", "not an IPv4 address: '127.1'");
    refused("[127.0.0.1]:80:80", "not an IPv6 address");
    refused("[::1:80:80", "']:'");
    refused("[::1]80:80", "']:'");
    refused("::1:80:80", "in brackets");
    refused("localhost:80:80", "not an IPv4 address: 'localhost'");
    refused("80 :80", "of the host");
    memset(endless, '1', sizeof endless);
    endless[sizeof endless - 1] = '\0';
    refused(endless, "too long");
}

/* ---- clients ---- */

static struct {
    bool refuse;
    bool everybody_is_local;
    unsigned asked;
} world;

static bool admit(void *ctx, uint8_t protocol, const struct ip_address *client, uint16_t port)
{
    (void)ctx, (void)protocol, (void)client, (void)port;
    world.asked++;
    return !world.refuse;
}

static bool is_local(void *ctx, const struct ip_address *address)
{
    (void)ctx, (void)address;
    return world.everybody_is_local;
}

static struct ip_address address(const char *text)
{
    struct ip_address a;

    assert_true(ip_address_parse(text, &a));
    return a;
}

static const uint16_t GUEST_PORT = 80;

static uint16_t free_port(int family, int type)
{
    uint16_t port;

    close(server_socket(family, type, &port));
    return port;
}

/* A port of loopback leads to the guest's port 80. */
static struct publish *publish_at(struct bench *bench, int family, int type, uint16_t *ret_port)
{
    static const struct publish_ops ops = {admit, is_local};
    const struct stack_config guest = {
        .guest4 = address("10.0.2.100"),
        .gateway4 = address("10.0.2.2"),
        .prefix4 = 24,
        .ipv6 = true,
        .guest6 = address("fd00::64"),
        .gateway6 = address("fd00::2"),
        .prefix6 = 64,
    };
    struct publish *publish = publish_new(bench->relay, &guest, &ops, NULL);
    struct publish_spec spec = {
        .address = family == AF_INET ? loopback4(0).address : loopback6(0).address,
        .guest = GUEST_PORT,
        .count = 1,
        .protocol = type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP,
    };
    char message[512];

    memset(&world, 0, sizeof world);
    assert_non_null(publish);
    bench->stack->guest4 = guest.guest4;
    bench->stack->guest6 = guest.guest6;
    spec.host = *ret_port = free_port(family, type);
    assert_int_equal(publish_open(publish, &spec, message, sizeof message), 0);
    return publish;
}

static int client_of(int family, int type, uint16_t port)
{
    struct ip_endpoint to = family == AF_INET ? loopback4(port) : loopback6(port);
    struct sockaddr_storage sa;
    socklen_t len = ip_endpoint_to_sockaddr(&to, &sa);
    struct timeval limit = {5, 0};
    int fd = socket(family, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

/* From this port of its own, which may be shared. */
static int client_from(uint16_t from, uint16_t to)
{
    const struct ip_endpoint ends[] = {loopback4(from), loopback4(to)};
    struct sockaddr_storage sa;
    socklen_t len = ip_endpoint_to_sockaddr(&ends[0], &sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    len = ip_endpoint_to_sockaddr(&ends[1], &sa);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

static uint16_t own_port(int fd)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    struct ip_endpoint own;

    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    assert_true(ip_endpoint_from_sockaddr((struct sockaddr *)&sa, &own));
    return own.port;
}

static void assert_reset(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

static void guest_answers(struct bench *bench, uint32_t index, size_t window)
{
    fake_flow_open_window(bench, index, window);
}

static void nothing_is_read_before_the_guest_has_answered(void **state)
{
    struct bench *bench = *state;
    struct fake_flow *flow = fake_flow(bench, 0);
    uint16_t port;
    int client;

    publish_at(bench, AF_INET, SOCK_STREAM, &port);
    client = client_of(AF_INET, SOCK_STREAM, port);
    assert_int_equal(send(client, "hello", 5, 0), 5);
    BENCH_UNTIL(bench, flow->to_guest);
    for (int i = 0; i < 3; i++)
        bench_turn(bench, 1);
    assert_int_equal(flow->reads, 0);
    guest_answers(bench, 0, 1000);
    BENCH_UNTIL(bench, flow->received == 5);
    assert_memory_equal(flow->bytes, "hello", 5);
    close(client);
    BENCH_UNTIL(bench, flow->eof);
}

static void clients_of_loopback_appear_as_the_gateway_with_their_own_port(void **state)
{
    struct bench *bench = *state;
    struct fake_flow *flow = fake_flow(bench, 0);
    const struct ip_address gateway = address("fd00::2"), guest = address("fd00::64");
    uint16_t port;
    int client;

    publish_at(bench, AF_INET6, SOCK_STREAM, &port);
    client = client_of(AF_INET6, SOCK_STREAM, port);
    BENCH_UNTIL(bench, flow->to_guest);
    assert_true(ip_address_equal(&flow->key.remote, &gateway));
    assert_true(ip_address_equal(&flow->key.guest, &guest));
    assert_int_equal(flow->key.guest_port, GUEST_PORT);
    assert_int_equal(flow->key.remote_port, own_port(client));
    close(client);
}

static void a_name_that_is_taken_gets_another_port(void **state)
{
    struct bench *bench = *state;
    struct publish_spec other = {.guest = 80, .count = 1, .protocol = IPPROTO_TCP};
    struct publish *publish;
    char message[512];
    uint16_t port;
    uint16_t from = free_port(AF_INET, SOCK_STREAM);
    int first, second;

    publish = publish_at(bench, AF_INET, SOCK_STREAM, &port);
    other.address = loopback4(0).address;
    other.host = free_port(AF_INET, SOCK_STREAM);
    assert_int_equal(publish_open(publish, &other, message, sizeof message), 0);
    first = client_from(from, port);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->to_guest);
    second = client_from(from, other.host);
    BENCH_UNTIL(bench, fake_flow(bench, 1)->to_guest);
    assert_int_equal(fake_flow(bench, 0)->key.remote_port, from);
    assert_int_not_equal(fake_flow(bench, 1)->key.remote_port, from);
    close(first);
    close(second);
}

static void a_guest_that_refuses_is_a_reset_for_the_client(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int client;

    publish_at(bench, AF_INET, SOCK_STREAM, &port);
    client = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->to_guest);
    fake_flow_close(bench, 0, TCP_CLOSE_RESET);
    assert_reset(client);
    assert_int_equal(counted(bench, COUNTER_publish_refused_by_guest), 1);
}

static void a_client_nobody_admits_is_reset_at_once(void **state)
{
    struct bench *bench = *state;
    struct publish *publish;
    uint16_t port;
    int client;

    publish = publish_at(bench, AF_INET, SOCK_STREAM, &port);
    world.refuse = true;
    client = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, world.asked == 1);
    assert_reset(client);
    assert_false(fake_flow(bench, 0)->to_guest);

    world.refuse = false;
    publish_set_link(publish, false);
    client = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, counted(bench, COUNTER_publish_link_down) == 1);
    assert_reset(client);

    publish_set_link(publish, true);
    bench->stack->refuses_to_open = true;
    client = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, counted(bench, COUNTER_publish_no_flow) == 1);
    assert_reset(client);
}

static void a_client_of_a_guest_that_is_away_is_reset_at_once(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int client;

    publish_at(bench, AF_INET, SOCK_STREAM, &port);
    bench->stack->away = true;
    client = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, counted(bench, COUNTER_publish_guest_away) == 1);
    assert_reset(client);
    assert_false(fake_flow(bench, 0)->to_guest);

    bench->stack->away = false;
    client = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->to_guest);
    fake_flow_close(bench, 0, TCP_CLOSE_VANISHED); /* found out while it waits */
    assert_reset(client);
    assert_int_equal(counted(bench, COUNTER_publish_guest_away), 2);
}

static void a_link_that_goes_down_resets_who_waits_and_nobody_else(void **state)
{
    struct bench *bench = *state;
    struct publish *publish;
    uint16_t port;
    int answered, waiting;
    char byte;

    publish = publish_at(bench, AF_INET, SOCK_STREAM, &port);
    answered = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->to_guest);
    guest_answers(bench, 0, 10);
    waiting = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, fake_flow(bench, 1)->to_guest);
    publish_set_link(publish, false);
    assert_reset(waiting);
    assert_true(fake_flow(bench, 1)->host_reset);
    assert_int_equal(recv(answered, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    close(answered);
}

static void a_client_that_resets_before_the_answer_ends_the_flow(void **state)
{
    struct bench *bench = *state;
    struct linger linger = {1, 0};
    uint16_t port;
    int client;

    publish_at(bench, AF_INET, SOCK_STREAM, &port);
    client = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->to_guest);
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(client);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->host_reset);
}

static void a_fin_before_the_answer_comes_behind_the_bytes(void **state)
{
    struct bench *bench = *state;
    struct fake_flow *flow = fake_flow(bench, 0);
    uint16_t port;
    int client;

    publish_at(bench, AF_INET, SOCK_STREAM, &port);
    client = client_of(AF_INET, SOCK_STREAM, port);
    assert_int_equal(send(client, "bye", 3, 0), 3);
    close(client);
    BENCH_UNTIL(bench, flow->to_guest);
    bench_turn(bench, 1);
    assert_false(flow->eof);
    guest_answers(bench, 0, 1000);
    BENCH_UNTIL(bench, flow->eof);
    assert_int_equal(flow->received_before_eof, 3);
}

static void without_descriptors_accepting_rests_and_goes_on(void **state)
{
    struct bench *bench = *state;
    struct rlimit limit, none;
    uint16_t port;
    uint64_t rests;
    int client;

    publish_at(bench, AF_INET, SOCK_STREAM, &port);
    client = client_of(AF_INET, SOCK_STREAM, port);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    BENCH_UNTIL(bench, counted(bench, COUNTER_publish_no_descriptor) == 1);
    for (int i = 0; i < 10; i++)
        bench_turn(bench, 1); /* a listener that is reported again and again would count */
    rests = counted(bench, COUNTER_publish_no_descriptor);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(rests <= 2);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->to_guest);
    close(client);
}

/* Listens on the port that follows *ret_port, which is free. */
static int listener_behind_a_free_port(uint16_t *ret_port)
{
    for (int tries = 0; tries < 100; tries++) {
        struct sockaddr_storage sa;
        struct ip_endpoint before;
        uint16_t port;
        int listener = server_socket(AF_INET, SOCK_STREAM, &port);
        int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r;
        socklen_t len;

        before = loopback4((uint16_t)(port - 1));
        len = ip_endpoint_to_sockaddr(&before, &sa);
        r = bind(probe, (struct sockaddr *)&sa, len);
        close(probe);
        *ret_port = before.port;
        if (r == 0)
            return listener;
        close(listener);
    }
    fail_msg("no two ports in a row are free");
    return -1;
}

static void a_port_that_is_taken_is_named_with_the_mend_and_none_is_left_open(void **state)
{
    struct bench *bench = *state;
    struct publish *publish;
    struct publish_spec spec = {.guest = 1, .count = 2, .protocol = IPPROTO_TCP};
    char message[512];
    uint16_t port;
    int taken;

    publish = publish_at(bench, AF_INET, SOCK_STREAM, &port);
    taken = listener_behind_a_free_port(&spec.host); /* the first may be opened, the second not */
    spec.address = loopback4(0).address;
    assert_true(publish_open(publish, &spec, message, sizeof message) < 0);
    assert_non_null(strstr(message, "publish 127.0.0.1:"));
    assert_non_null(strstr(message, "choose another port"));
    assert_false(publish_leads_to(publish, IPPROTO_TCP, 1));
    close(taken);
    assert_int_equal(publish_open(publish, &spec, message, sizeof message), 0);
    assert_true(publish_leads_to(publish, IPPROTO_TCP, 2));
    publish_close(publish, &spec);
    assert_false(publish_leads_to(publish, IPPROTO_TCP, 1));
}

static bool keep_nobody_of(void *ctx, struct flow_handle flow, const struct ip_address *client)
{
    const struct ip_address *denied = ctx;

    (void)flow;
    assert_non_null(client);
    return !ip_address_equal(client, denied);
}

static void clients_are_judged_again_by_their_own_address(void **state)
{
    struct bench *bench = *state;
    struct ip_address denied = address("192.0.2.1");
    uint16_t port;
    uint32_t at = 0;
    int answered, waiting;

    publish_at(bench, AF_INET, SOCK_STREAM, &port);
    answered = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->to_guest);
    guest_answers(bench, 0, 1024);
    waiting = client_of(AF_INET, SOCK_STREAM, port);
    BENCH_UNTIL(bench, fake_flow(bench, 1)->to_guest);
    assert_false(relay_tcp_review(bench->relay, &at, UINT32_MAX, keep_nobody_of, &denied));
    assert_false(fake_flow(bench, 0)->gone || fake_flow(bench, 1)->gone);
    denied = loopback4(0).address; /* the guest knows them as the gateway */
    at = 0;
    assert_false(relay_tcp_review(bench->relay, &at, UINT32_MAX, keep_nobody_of, &denied));
    assert_true(fake_flow(bench, 0)->aborted && fake_flow(bench, 1)->aborted);
    assert_reset(answered);
    assert_reset(waiting);
    assert_int_equal(counted(bench, COUNTER_publish_unanswered), 0);
}

/* ---- datagrams ---- */

/* The guest's answer to what it was sent last. */
static bool guest_replies(struct bench *bench, struct publish *publish, const char *text)
{
    const struct fake_output *last = &bench->stack->outputs[bench->stack->output_count - 1];
    struct culvert_frame *frame = culvert_frame_new(64);
    struct udp_datagram datagram = {
        .key = last->key, .frame = frame, .payload_len = strlen(text), .ttl = 64};
    bool taken;

    assert_non_null(frame);
    frame->len = strlen(text);
    memcpy(frame->data, text, frame->len);
    taken = publish_udp_reply(publish, &datagram, clock_now());
    culvert_frame_unref(frame);
    relay_batch_end(bench->relay);
    return taken;
}

static void datagrams_go_both_ways_and_clients_are_told_apart(void **state)
{
    struct bench *bench = *state;
    struct publish *publish;
    uint16_t port;
    int one, other;
    char text[16];

    publish = publish_at(bench, AF_INET, SOCK_DGRAM, &port);
    one = client_of(AF_INET, SOCK_DGRAM, port);
    other = client_of(AF_INET, SOCK_DGRAM, port);
    assert_int_equal(send(one, "one", 3, 0), 3);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    assert_int_equal(bench->stack->outputs[0].key.remote_port, own_port(one));
    assert_int_equal(bench->stack->outputs[0].key.guest_port, GUEST_PORT);
    assert_true(guest_replies(bench, publish, "to one"));
    assert_int_equal(recv(one, text, sizeof text, 0), 6);
    assert_memory_equal(text, "to one", 6);

    assert_int_equal(send(other, "other", 5, 0), 5);
    BENCH_UNTIL(bench, bench->stack->output_count == 2);
    assert_int_equal(bench->stack->outputs[1].key.remote_port, own_port(other));
    assert_true(guest_replies(bench, publish, "to other"));
    assert_int_equal(recv(other, text, sizeof text, 0), 8);
    assert_int_equal(recv(one, text, sizeof text, MSG_DONTWAIT), -1);
    assert_int_equal(counted(bench, COUNTER_publish_udp_clients), 2);
    assert_int_equal(world.asked, 2);
    close(one);
    close(other);
}

/* A client of a published UDP port, which the guest has heard from. */
static int heard_client(struct bench *bench, int family, struct publish **ret_publish)
{
    uint16_t port;
    int client;

    *ret_publish = publish_at(bench, family, SOCK_DGRAM, &port);
    client = client_of(family, SOCK_DGRAM, port);
    assert_int_equal(send(client, "x", 1, 0), 1);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    return client;
}

/* A client's socket at another address of loopback. */
static int client_at(const char *where, uint16_t port, uint16_t own)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(own)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    assert_int_equal(
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){5, 0}, sizeof(struct timeval)),
        0);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    sa.sin_addr.s_addr = address(where).be32[3];
    sa.sin_port = htons(port);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void answers_leave_from_the_address_that_the_client_sent_to(void **state)
{
    static const char *const places[] = {"127.0.0.1", "127.0.0.5", "127.0.0.6"};
    struct bench *bench = *state;
    struct publish_spec spec = {
        .address = address("0.0.0.0"), .guest = GUEST_PORT, .count = 1, .protocol = IPPROTO_UDP};
    struct publish *publish;
    char message[512];
    uint16_t port, own = free_port(AF_INET, SOCK_DGRAM);
    int clients[3];

    publish = publish_at(bench, AF_INET, SOCK_DGRAM, &port);
    spec.host = free_port(AF_INET, SOCK_DGRAM);
    assert_int_equal(publish_open(publish, &spec, message, sizeof message), 0);
    for (size_t i = 0; i < 3; i++) { /* one address and port outside, three of ours */
        clients[i] = client_at(places[i], spec.host, own);
        assert_int_equal(send(clients[i], "question", 8, 0), 8);
        BENCH_UNTIL(bench, bench->stack->output_count == i + 1);
        assert_true(guest_replies(bench, publish, "answer"));
    }
    for (size_t i = 0; i < 3; i++) {
        char text[16];

        assert_int_equal(recv(clients[i], text, sizeof text, 0), 6);
        close(clients[i]);
    }
    assert_int_equal(counted(bench, COUNTER_publish_udp_clients), 3);
}

static void a_client_follows_the_guest_to_another_address_until_it_is_answered(void **state)
{
    const struct ip_address other = address("fd00::65"), third = address("fd00::66");
    struct bench *bench = *state;
    struct fake_output *outputs = bench->stack->outputs;
    struct publish *publish;
    uint16_t port;
    int client;

    publish = publish_at(bench, AF_INET6, SOCK_DGRAM, &port);
    client = client_of(AF_INET6, SOCK_DGRAM, port);
    assert_int_equal(send(client, "x", 1, 0), 1);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    bench->stack->guest6 = other;
    assert_int_equal(send(client, "x", 1, 0), 1);
    BENCH_UNTIL(bench, bench->stack->output_count == 2);
    assert_true(ip_address_equal(&outputs[1].key.guest, &other));
    assert_int_equal(outputs[1].key.remote_port, outputs[0].key.remote_port);
    assert_true(guest_replies(bench, publish, "x"));
    bench->stack->guest6 = third;
    assert_int_equal(send(client, "x", 1, 0), 1);
    BENCH_UNTIL(bench, bench->stack->output_count == 3);
    assert_true(ip_address_equal(&outputs[2].key.guest, &other));
    assert_true(guest_replies(bench, publish, "x"));
    assert_int_equal(counted(bench, COUNTER_publish_udp_clients), 1);
    close(client);
}

static void what_answers_no_client_is_not_ours(void **state)
{
    struct bench *bench = *state;
    struct publish *publish;
    int client = heard_client(bench, AF_INET, &publish);

    bench->stack->outputs[0].key.remote_port ^= 1;
    assert_false(guest_replies(bench, publish, "x"));
    bench->stack->outputs[0].key.remote_port ^= 1;
    bench->stack->outputs[0].key.guest_port ^= 1;
    assert_false(guest_replies(bench, publish, "x"));
    close(client);
}

static void a_client_that_is_no_longer_admitted_is_not_heard(void **state)
{
    struct bench *bench = *state;
    struct publish *publish;
    int client = heard_client(bench, AF_INET6, &publish);

    world.refuse = true;
    assert_int_equal(send(client, "x", 1, 0), 1);
    BENCH_UNTIL(bench, bench->stack->output_count == 2); /* the verdict is kept … */
    publish_policy_changed(publish);                     /* … until the rules change */
    assert_int_equal(send(client, "x", 1, 0), 1);
    BENCH_UNTIL(bench, world.asked == 2);
    assert_int_equal(bench->stack->output_count, 2);
    assert_false(guest_replies(bench, publish, "x"));
    close(client);
}

static void the_guest_does_not_answer_a_client_that_is_no_longer_admitted(void **state)
{
    struct bench *bench = *state;
    struct publish *publish;
    int client = heard_client(bench, AF_INET, &publish);
    char byte;

    world.refuse = true;
    assert_true(guest_replies(bench, publish, "x"));
    assert_int_equal(recv(client, &byte, 1, 0), 1);
    publish_policy_changed(publish);
    assert_false(guest_replies(bench, publish, "x"));
    assert_int_equal(recv(client, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(world.asked, 2);
    close(client);
}

static void clients_that_fall_silent_are_forgotten(void **state)
{
    struct bench *bench = *state;
    struct publish *publish;
    int client = heard_client(bench, AF_INET, &publish);

    timers_expire(bench->timers, clock_now() + 29 * SECOND_NS);
    assert_true(guest_replies(bench, publish, "x"));
    timers_expire(bench->timers, clock_now() + 100 * SECOND_NS);
    assert_true(guest_replies(bench, publish, "x"));
    timers_expire(bench->timers, clock_now() + 121 * SECOND_NS);
    assert_false(guest_replies(bench, publish, "x"));
    close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)
        TEST(the_text_of_a_port_is_read),
        TEST(a_text_that_is_no_port_is_refused_with_the_mend),
        TEST(nothing_is_read_before_the_guest_has_answered),
        TEST(clients_of_loopback_appear_as_the_gateway_with_their_own_port),
        TEST(a_name_that_is_taken_gets_another_port),
        TEST(a_guest_that_refuses_is_a_reset_for_the_client),
        TEST(a_client_nobody_admits_is_reset_at_once),
        TEST(a_client_of_a_guest_that_is_away_is_reset_at_once),
        TEST(a_link_that_goes_down_resets_who_waits_and_nobody_else),
        TEST(a_client_that_resets_before_the_answer_ends_the_flow),
        TEST(a_fin_before_the_answer_comes_behind_the_bytes),
        TEST(without_descriptors_accepting_rests_and_goes_on),
        TEST(a_port_that_is_taken_is_named_with_the_mend_and_none_is_left_open),
        TEST(clients_are_judged_again_by_their_own_address),
        TEST(datagrams_go_both_ways_and_clients_are_told_apart),
        TEST(answers_leave_from_the_address_that_the_client_sent_to),
        TEST(a_client_follows_the_guest_to_another_address_until_it_is_answered),
        TEST(what_answers_no_client_is_not_ours),
        TEST(a_client_that_is_no_longer_admitted_is_not_heard),
        TEST(the_guest_does_not_answer_a_client_that_is_no_longer_admitted),
        TEST(clients_that_fall_silent_are_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
