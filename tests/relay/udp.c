/* SPDX-License-Identifier: Apache-2.0 */
/* UDP mappings over real loopback sockets. */

#include "fake_stack.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "namespace.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define HEADERS 42

/* The guest's names for things. */
static const struct ip_address guest4 = {
    .bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 2, 100}};
static const struct ip_address gateway4 = {
    .bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 2, 2}};
static const struct ip_address guest6 = {.bytes = {0xfd, 0x63, [15] = 0x64}};
static const struct ip_address gateway6 = {.bytes = {0xfd, 0x63, [15] = 2}};

static struct flow_key key_of(uint16_t guest_port, uint16_t remote_port, bool v6)
{
    return (struct flow_key){.guest = v6 ? guest6 : guest4,
                             .remote = v6 ? gateway6 : gateway4,
                             .guest_port = guest_port,
                             .remote_port = remote_port,
                             .protocol = IPPROTO_UDP};
}

static void fill(uint8_t *data, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + seed + (i >> 8));
}

/* A datagram of the guest's in a frame of its own; `data` may be NULL. */
static struct udp_datagram datagram_new(struct flow_key key, const void *data, size_t len)
{
    struct udp_datagram d = {.key = key,
                             .frame = culvert_frame_new(HEADERS + len),
                             .payload_offset = HEADERS,
                             .payload_len = len,
                             .ttl = 64};

    assert_non_null(d.frame);
    memset(d.frame->data, 0xee, HEADERS);
    if (data && len)
        memcpy(d.frame->data + HEADERS, data, len);
    d.frame->len = HEADERS + len;
    return d;
}

static void send_datagram(struct bench *bench, struct udp_datagram *d, uint16_t server_port)
{
    struct ip_endpoint to =
        ip_address_is_v4(&d->key.guest) ? loopback4(server_port) : loopback6(server_port);

    relay_udp_send(bench->relay, d, &to, clock_now());
    culvert_frame_unref(d->frame);
}

static void guest_sends(struct bench *bench, struct flow_key key, const void *data, size_t len)
{
    struct udp_datagram d = datagram_new(key, data, len);

    send_datagram(bench, &d, key.remote_port);
}

/* The server's next datagram; from whom, for answers. */
static ssize_t server_receives(int fd, void *buffer, size_t size, struct sockaddr_storage *from)
{
    socklen_t len = sizeof *from;

    return recvfrom(fd, buffer, size, MSG_DONTWAIT, (struct sockaddr *)from, &len);
}

static void server_sends(int fd, const void *data, size_t len, const struct sockaddr_storage *to)
{
    socklen_t to_len =
        to->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

    assert_int_equal(sendto(fd, data, len, 0, (const struct sockaddr *)to, to_len), len);
}

static void echo_over(struct bench *bench, bool v6)
{
    uint16_t port;
    int server = server_socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, &port);
    struct flow_key key = key_of(5000, port, v6);
    struct sockaddr_storage from;
    char buffer[64];

    guest_sends(bench, key, "ping", 4);
    assert_int_equal(server_receives(server, buffer, sizeof buffer, &from), -1); /* gathered */
    relay_batch_end(bench->relay);
    assert_int_equal(server_receives(server, buffer, sizeof buffer, &from), 4);
    assert_memory_equal(buffer, "ping", 4);
    server_sends(server, "pong!", 5, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    assert_int_equal(bench->stack->outputs[0].len, 5);
    assert_memory_equal(bench->stack->outputs[0].bytes, "pong!", 5);
    assert_memory_equal(&bench->stack->outputs[0].key, &key, sizeof key);
    assert_int_equal(bench->stack->outputs[0].gso_size, 0);
    close(server);
}

static void datagram_comes_back_under_the_name_the_guest_used(void **state)
{
    echo_over(*state, false);
}

static void ipv6_datagram_comes_back_too(void **state)
{
    echo_over(*state, true);
}

static void empty_datagrams_pass_both_ways(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    struct sockaddr_storage from;
    char buffer[8];

    for (int i = 0; i < 3; i++)
        guest_sends(bench, key_of(5000, port, false), NULL, 0);
    relay_batch_end(bench->relay);
    for (int i = 0; i < 3; i++)
        assert_int_equal(server_receives(server, buffer, sizeof buffer, &from), 0);
    server_sends(server, "", 0, &from);
    server_sends(server, "a", 1, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 2);
    assert_int_equal(bench->stack->outputs[0].len, 0);
    assert_int_equal(bench->stack->outputs[1].len, 1);
    close(server);
}

static void largest_datagram_passes_both_ways(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    const size_t len = 65507;
    uint8_t *data = malloc(len), *got = malloc(len);
    struct sockaddr_storage from;

    fill(data, len, 3);
    guest_sends(bench, key_of(5000, port, false), data, len);
    relay_batch_end(bench->relay);
    assert_int_equal(server_receives(server, got, len, &from), len);
    assert_memory_equal(data, got, len);
    server_sends(server, data, len, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    assert_int_equal(bench->stack->outputs[0].len, len);
    assert_memory_equal(bench->stack->outputs[0].bytes, data, len);
    free(data);
    free(got);
    close(server);
}

static void stranger_is_not_let_in(void **state)
{
    struct bench *bench = *state;
    uint16_t port, other_port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    int stranger = server_socket(AF_INET, SOCK_DGRAM, &other_port);
    struct sockaddr_storage from;
    char buffer[8];

    guest_sends(bench, key_of(5000, port, false), "x", 1);
    relay_batch_end(bench->relay);
    assert_int_equal(server_receives(server, buffer, sizeof buffer, &from), 1);
    server_sends(stranger, "boo", 3, &from);
    server_sends(server, "hi", 2, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    assert_int_equal(bench->stack->outputs[0].len, 2);
    assert_int_equal(counted(bench, COUNTER_relay_udp_unknown_peer), 1);
    close(server);
    close(stranger);
}

static void one_guest_port_has_one_host_port_for_all_peers(void **state)
{
    struct bench *bench = *state;
    uint16_t port[2];
    int server[2] = {server_socket(AF_INET, SOCK_DGRAM, &port[0]),
                     server_socket(AF_INET, SOCK_DGRAM, &port[1])};
    struct sockaddr_storage from[2];
    char buffer[8];

    for (int i = 0; i < 2; i++) {
        guest_sends(bench, key_of(5000, port[i], false), "x", 1);
        relay_batch_end(bench->relay);
        assert_int_equal(server_receives(server[i], buffer, sizeof buffer, &from[i]), 1);
    }
    assert_int_equal(((struct sockaddr_in *)&from[0])->sin_port,
                     ((struct sockaddr_in *)&from[1])->sin_port);
    server_sends(server[0], "0", 1, &from[0]);
    server_sends(server[1], "1", 1, &from[1]);
    BENCH_UNTIL(bench, bench->stack->output_count == 2);
    assert_int_equal(bench->stack->outputs[0].key.remote_port, port[0]);
    assert_int_equal(bench->stack->outputs[1].key.remote_port, port[1]);
    close(server[0]);
    close(server[1]);
}

static void equal_datagrams_of_a_batch_keep_their_borders_and_order(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    uint8_t data[1400], got[2000];
    struct sockaddr_storage from;
    static const size_t sizes[] = {1400, 1400, 1400, 100, 1400, 200, 200, 300};

    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 8; i++) {
            fill(data, sizes[i], round * 8 + i);
            guest_sends(bench, key_of(5000, port, false), data, sizes[i]);
        }
    }
    relay_batch_end(bench->relay);
    for (unsigned n = 0; n < 80; n++) {
        fill(data, sizes[n % 8], n);
        assert_int_equal(server_receives(server, got, sizeof got, &from), sizes[n % 8]);
        assert_memory_equal(got, data, sizes[n % 8]);
    }
    assert_int_equal(counted(bench, COUNTER_relay_udp_segmentation_refused), 0);
    close(server);
}

static void several_mappings_and_peers_share_a_batch(void **state)
{
    struct bench *bench = *state;
    uint16_t port[2];
    int server[2] = {server_socket(AF_INET, SOCK_DGRAM, &port[0]),
                     server_socket(AF_INET, SOCK_DGRAM, &port[1])};
    struct sockaddr_storage from;
    uint8_t byte;

    for (unsigned i = 0; i < 90; i++) {
        byte = (uint8_t)i;
        guest_sends(bench, key_of((uint16_t)(5000 + i % 3), port[i / 3 % 2], false), &byte, 1);
    }
    relay_batch_end(bench->relay);
    for (int s = 0; s < 2; s++) {
        unsigned last[3] = {0}, seen = 0;

        while (server_receives(server[s], &byte, 1, &from) == 1) {
            assert_int_equal(byte / 3 % 2, s);
            assert_true(byte >= last[byte % 3]); /* in order from each guest port */
            last[byte % 3] = byte;
            seen++;
        }
        assert_int_equal(seen, 45);
        close(server[s]);
    }
}

static void more_than_a_batch_holds_is_flushed_on_the_way(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    struct sockaddr_storage from;
    uint8_t got[64];
    unsigned seen = 0, sent = 0;

    for (unsigned burst = 0; burst < 10; burst++) {
        for (unsigned i = 0; i < 300; i++) { /* sizes alternate: nothing can be put together */
            uint8_t data[3] = {(uint8_t)(sent >> 8), (uint8_t)sent};

            guest_sends(bench, key_of(5000, port, false), data, 2 + sent % 2);
            sent++;
        }
        relay_batch_end(bench->relay);
        ssize_t n;
        while ((n = server_receives(server, got, sizeof got, &from)) > 0) {
            assert_int_equal(got[0] << 8 | got[1], seen);
            seen++;
        }
    }
    assert_int_equal(seen, sent);
    close(server);
}

static void super_datagram_is_cut_in_datagrams(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    const size_t len = 100 * 300 + 77; /* more than 64 of them */
    uint8_t *data = malloc(len), got[2000];
    struct udp_datagram d;
    struct sockaddr_storage from;

    fill(data, len, 9);
    d = datagram_new(key_of(5000, port, false), data, len);
    d.gso_size = 300;
    send_datagram(bench, &d, port);
    relay_batch_end(bench->relay);
    for (size_t at = 0; at < len; at += 300) {
        const size_t size = len - at < 300 ? len - at : 300;

        assert_int_equal(server_receives(server, got, sizeof got, &from), size);
        assert_memory_equal(got, data + at, size);
    }
    assert_int_equal(server_receives(server, got, sizeof got, &from), -1);
    free(data);
    close(server);
}

static void datagram_over_many_segments_arrives_whole(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    struct udp_datagram d = datagram_new(key_of(5000, port, false), "0123", 4);
    struct culvert_buffer *buffer = culvert_buffer_new(300);
    struct sockaddr_storage from;
    uint8_t got[400];

    assert_non_null(buffer);
    fill(buffer->data, 300, 1);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(culvert_frame_append(d.frame, buffer, buffer->data + i * 100, 100), 0);
    d.payload_len = 304;
    send_datagram(bench, &d, port);
    relay_batch_end(bench->relay);
    assert_int_equal(server_receives(server, got, sizeof got, &from), 304);
    assert_memory_equal(got, "0123", 4);
    assert_memory_equal(got + 4, buffer->data, 300);
    culvert_buffer_unref(buffer);
    close(server);
}

/* A mapping the server can send to. */
static int reached_server(struct bench *bench, struct sockaddr_storage *from)
{
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    char buffer[8];

    guest_sends(bench, key_of(5000, port, false), "x", 1);
    relay_batch_end(bench->relay);
    assert_int_equal(server_receives(server, buffer, sizeof buffer, from), 1);
    return server;
}

static size_t bytes_out(const struct stack *stack)
{
    size_t bytes = 0;

    for (size_t i = 0; i < stack->output_count; i++)
        bytes += stack->outputs[i].len;
    return bytes;
}

static void equal_datagrams_go_to_the_guest_together(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_storage from;
    int server = reached_server(bench, &from);
    uint8_t data[1400];
    const struct stack *stack = bench->stack;

    /* The first turns offer few places; more are offered when they were all filled. */
    for (unsigned i = 0; i < 100; i++) {
        fill(data, sizeof data, i);
        server_sends(server, data, sizeof data, &from);
    }
    server_sends(server, data, 700, &from);
    BENCH_UNTIL(bench, bytes_out(stack) == 100 * sizeof data + 700);
    assert_true(stack->output_count <= 8);
    for (size_t i = 0, n = 0; i < stack->output_count; i++) {
        assert_true(stack->outputs[i].len <= 64 * sizeof data);
        assert_true(stack->outputs[i].gso_size == sizeof data || stack->outputs[i].len <= 1400);
        for (size_t at = 0; at < stack->outputs[i].len; at += sizeof data, n++) {
            fill(data, sizeof data, (unsigned)(n < 100 ? n : 99));
            assert_memory_equal(stack->outputs[i].bytes + at, data,
                                n < 100 ? sizeof data : (size_t)700);
        }
    }
    close(server);
}

static void server_sends_run(int server, const uint8_t *data, size_t len, uint16_t size,
                             const struct sockaddr_storage *to)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control = {.bytes = {0}};
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr msg = {.msg_name = (void *)(uintptr_t)to,
                         .msg_namelen = sizeof(struct sockaddr_in),
                         .msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(c), &size, sizeof size);
    assert_int_equal(sendmsg(server, &msg, 0), len);
}

static void many_mappings_have_datagrams_on_their_way_to_a_slow_guest(void **state)
{
    enum { MAPPINGS = 300 };
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    struct sockaddr_storage from[MAPPINGS];

    bench->stack->holds = true;
    for (uint16_t i = 0; i < MAPPINGS; i++) {
        char buffer[8];

        guest_sends(bench, key_of((uint16_t)(5000 + i), port, false), "x", 1);
        relay_batch_end(bench->relay);
        assert_int_equal(server_receives(server, buffer, sizeof buffer, &from[i]), 1);
    }
    for (int i = 0; i < MAPPINGS; i++)
        server_sends(server, &i, sizeof i, &from[i]);
    BENCH_UNTIL(bench, bench->stack->output_count == MAPPINGS);
    for (int i = 0; i < MAPPINGS; i++) {
        int value;

        memcpy(&value, bench->stack->outputs[i].bytes, sizeof value);
        assert_int_equal(bench->stack->outputs[i].key.guest_port, 5000 + value);
    }
    assert_int_equal(counted(bench, COUNTER_relay_udp_no_buffer), 0);
    close(server);
}

static void run_of_the_kernels_goes_on_as_it_is(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_storage from;
    int server = reached_server(bench, &from);
    const size_t len = 40 * 1400 + 5;
    uint8_t *data = malloc(len);

    fill(data, len, 5);
    server_sends_run(server, data, len, 1400, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    assert_int_equal(bench->stack->outputs[0].gso_size, 1400);
    assert_int_equal(bench->stack->outputs[0].len, len);
    assert_memory_equal(bench->stack->outputs[0].bytes, data, len);
    free(data);
    close(server);
}

static void run_above_the_guests_mtu_goes_singly(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_storage from;
    int server = reached_server(bench, &from);
    const size_t len = 4 * 1400 + 5;
    uint8_t *data = malloc(len);
    size_t at = 0;

    relay_set_mtu(bench->relay, 1280);
    fill(data, len, 5);
    server_sends_run(server, data, len, 1400, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(bench->stack->outputs[i].gso_size, 0);
        assert_int_equal(bench->stack->outputs[i].len, i < 4 ? 1400 : 5);
        assert_memory_equal(bench->stack->outputs[i].bytes, data + at,
                            bench->stack->outputs[i].len);
        at += bench->stack->outputs[i].len;
    }
    free(data);
    close(server);
}

static void closed_port_is_reported_with_the_guests_names(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    struct flow_key key;

    close(server_socket(AF_INET, SOCK_DGRAM, &port));
    key = key_of(5000, port, false);
    guest_sends(bench, key, "anybody?", 8);
    relay_batch_end(bench->relay);
    BENCH_UNTIL(bench, bench->stack->report_count == 1);

    const struct fake_report *r = &bench->stack->reports[0];

    assert_false(r->refusal);
    assert_int_equal(r->report.problem, ICMP_PROBLEM_PORT_UNREACHABLE);
    assert_memory_equal(&r->report.key, &key, sizeof key);
    assert_true(ip_address_equal(&r->report.reporter, &gateway4));
    assert_int_equal(r->report.payload_len, 8);
    assert_memory_equal(r->payload, "anybody?", 8);
}

static void closed_port_over_ipv6_is_reported_too(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    struct flow_key key;

    close(server_socket(AF_INET6, SOCK_DGRAM, &port));
    key = key_of(5000, port, true);
    guest_sends(bench, key, "anybody?", 8);
    relay_batch_end(bench->relay);
    BENCH_UNTIL(bench, bench->stack->report_count == 1);
    assert_int_equal(bench->stack->reports[0].report.problem, ICMP_PROBLEM_PORT_UNREACHABLE);
    assert_memory_equal(&bench->stack->reports[0].report.key, &key, sizeof key);
    assert_true(ip_address_equal(&bench->stack->reports[0].report.reporter, &gateway6));
}

static void error_of_one_peer_costs_another_nothing(void **state)
{
    struct bench *bench = *state;
    uint16_t dead, port;
    int server;
    struct sockaddr_storage from;
    char buffer[8];

    close(server_socket(AF_INET, SOCK_DGRAM, &dead));
    server = server_socket(AF_INET, SOCK_DGRAM, &port);
    for (int i = 0; i < 5; i++) {
        guest_sends(bench, key_of(5000, dead, false), "x", 1);
        relay_batch_end(bench->relay);
        guest_sends(bench, key_of(5000, port, false), "y", 1); /* no turn in between */
        relay_batch_end(bench->relay);
        assert_int_equal(server_receives(server, buffer, sizeof buffer, &from), 1);
    }
    BENCH_UNTIL(bench, bench->stack->report_count == 5);
    close(server);
}

static void error_within_a_batch_costs_another_nothing(void **state)
{
    struct bench *bench = *state;
    uint16_t dead, port;
    int server;
    struct sockaddr_storage from;
    char buffer[8];

    close(server_socket(AF_INET, SOCK_DGRAM, &dead));
    server = server_socket(AF_INET, SOCK_DGRAM, &port);
    for (int i = 0; i < 8; i++) {
        guest_sends(bench, key_of(5000, dead, false), "x", 1);
        guest_sends(bench, key_of(5000, port, false), "y", 1);
    }
    relay_batch_end(bench->relay);
    for (int i = 0; i < 8; i++)
        assert_int_equal(server_receives(server, buffer, sizeof buffer, &from), 1);
    BENCH_UNTIL(bench, bench->stack->report_count == 8);
    close(server);
}

static void datagram_above_the_paths_mtu_is_refused_with_it(void **state)
{
    struct bench *bench = *state;
    struct flow_key key = key_of(5000, 9, false);
    struct udp_datagram d;
    uint8_t data[2000] = {0};

    if (!namespace_of_its_own())
        skip();
    assert_int_equal(namespace_set_mtu("lo", 1500), 0);
    d = datagram_new(key, data, sizeof data);
    d.dont_fragment = true;
    send_datagram(bench, &d, 9);
    relay_batch_end(bench->relay);
    assert_int_equal(bench->stack->report_count, 1);
    assert_true(bench->stack->reports[0].refusal);
    assert_int_equal(bench->stack->reports[0].report.problem, ICMP_PROBLEM_TOO_BIG);
    assert_int_equal(bench->stack->reports[0].report.mtu, 1500);
}

static void oversize_super_datagram_is_sent_fragmented_when_allowed(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server;
    uint8_t data[8000], got[4000];
    struct sockaddr_storage from;
    struct udp_datagram d;

    if (!namespace_of_its_own())
        skip();
    assert_int_equal(namespace_set_mtu("lo", 1500), 0);
    server = server_socket(AF_INET, SOCK_DGRAM, &port);
    fill(data, sizeof data, 0);
    d = datagram_new(key_of(5000, port, false), data, sizeof data);
    d.gso_size = 2000;
    send_datagram(bench, &d, port);
    relay_batch_end(bench->relay);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(server_receives(server, got, sizeof got, &from), 2000);
        assert_memory_equal(got, data + i * 2000, 2000);
    }
    assert_int_equal(counted(bench, COUNTER_relay_udp_segmentation_refused), 1);
    close(server);
}

static void no_route_is_refused_as_unreachable(void **state)
{
    struct bench *bench = *state;
    struct ip_endpoint to = {ip_address_v4(htonl(0xc6336401)), 9}; /* 198.51.100.1 */
    struct udp_datagram d;

    if (!namespace_of_its_own())
        skip();
    d = datagram_new(key_of(5000, 9, false), "x", 1);
    relay_udp_send(bench->relay, &d, &to, clock_now());
    relay_batch_end(bench->relay);
    culvert_frame_unref(d.frame);
    assert_int_equal(bench->stack->report_count, 1);
    assert_int_equal(bench->stack->reports[0].report.problem, ICMP_PROBLEM_NET_UNREACHABLE);
}

static void unspecified_destination_is_refused(void **state)
{
    struct bench *bench = *state;
    struct ip_endpoint to = {ip_address_v4(0), 9};
    struct udp_datagram d = datagram_new(key_of(5000, 9, false), "x", 1);

    relay_udp_send(bench->relay, &d, &to, clock_now());
    culvert_frame_unref(d.frame);
    assert_int_equal(bench->stack->report_count, 1);
    assert_int_equal(counted(bench, COUNTER_relay_unspecified_address), 1);
}

static void verdict_is_remembered_until_the_policy_changes(void **state)
{
    struct bench *bench = *state;
    struct flow_key key = key_of(5000, 9, false);
    struct ip_endpoint to = loopback4(9), known;

    assert_false(relay_udp_peer_known(bench->relay, &key, 1, &known));
    relay_udp_peer_allow(bench->relay, &key, 1, &to, false, clock_now());
    assert_true(relay_udp_peer_known(bench->relay, &key, 1, &known));
    assert_int_equal(known.port, 9);
    assert_true(ip_address_equal(&known.address, &to.address));
    assert_false(relay_udp_peer_known(bench->relay, &key, 2, &known));
    key.remote_port = 10;
    assert_false(relay_udp_peer_known(bench->relay, &key, 1, &known));
}

static bool denies(void *ctx, const struct flow_key *key)
{
    uint16_t *denied = ctx;

    denied[1]++;
    return key->remote_port != denied[0];
}

static void who_is_denied_by_a_new_policy_is_not_heard_any_more(void **state)
{
    struct bench *bench = *state;
    uint16_t port, other_port, denied[2] = {0, 0};
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    int other = server_socket(AF_INET, SOCK_DGRAM, &other_port);
    struct sockaddr_storage from;
    char buffer[8];

    relay_set_judge(bench->relay, denies, denied);
    guest_sends(bench, key_of(5000, port, false), "x", 1);
    guest_sends(bench, key_of(5000, other_port, false), "x", 1);
    relay_batch_end(bench->relay);
    assert_int_equal(server_receives(server, buffer, sizeof buffer, &from), 1);
    server_sends(server, "a", 1, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    assert_int_equal(denied[1], 0); /* as long as the policy is the one that allowed it */

    denied[0] = port;
    relay_policy_changed(bench->relay);
    server_sends(server, "b", 1, &from); /* the guest sends nothing meanwhile */
    server_sends(server, "c", 1, &from);
    server_sends(other, "d", 1, &from);
    server_sends(other, "e", 1, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 2); /* both of one sender's go together */
    assert_int_equal(bench->stack->outputs[1].key.remote_port, other_port);
    assert_int_equal(counted(bench, COUNTER_relay_answer_denied), 2);
    assert_int_equal(denied[1], 2); /* once each */

    guest_sends(bench, key_of(5000, port, false), "x", 1); /* was judged, and allowed */
    relay_batch_end(bench->relay);
    server_sends(server, "f", 1, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 3);
    close(server);
    close(other);
}

static void peers_are_bounded_and_the_oldest_goes(void **state)
{
    struct bench *bench = *state;
    struct ip_endpoint to = loopback4(9), known;
    struct flow_key first = key_of(5000, 1000, false), last = key_of(5000, 1064, false);

    for (uint16_t port = 1000; port <= 1064; port++) {
        struct flow_key key = key_of(5000, port, false);

        relay_udp_peer_allow(bench->relay, &key, 1, &to, false, clock_now());
    }
    assert_false(relay_udp_peer_known(bench->relay, &first, 1, &known));
    assert_true(relay_udp_peer_known(bench->relay, &last, 1, &known));
    assert_int_equal(counted(bench, COUNTER_relay_peer_evicted), 1);
}

static unsigned gone_count;
static struct flow_key gone_last;

static void note_gone(void *ctx, const struct flow_key *key)
{
    (void)ctx;
    gone_count++;
    gone_last = *key;
}

static void the_end_of_a_watched_peer_is_told(void **state)
{
    struct bench *bench = *state;
    struct flow_key watched = key_of(5000, 9, false), other = key_of(5000, 10, false);
    struct flow_key crowded = key_of(6000, 999, false);
    struct ip_endpoint to = loopback4(9);
    uint64_t now = clock_now();

    gone_count = 0;
    relay_on_udp_peer_gone(bench->relay, note_gone, NULL);
    assert_true(relay_udp_peer_allow(bench->relay, &watched, 1, &to, true, now));
    assert_true(relay_udp_peer_allow(bench->relay, &other, 1, &to, false, now));
    assert_true(relay_udp_peer_watched(bench->relay, &watched));
    assert_false(relay_udp_peer_watched(bench->relay, &other));
    relay_udp_peer_allow(bench->relay, &crowded, 1, &to, true, now);
    for (uint16_t port = 1000; port < 1064; port++) {
        struct flow_key key = key_of(6000, port, false);

        relay_udp_peer_allow(bench->relay, &key, 1, &to, false, now);
    }
    assert_int_equal(gone_count, 1); /* one peer too many */
    assert_memory_equal(&gone_last, &crowded, sizeof crowded);
    timers_expire(bench->timers, now + 32 * SECOND_NS);
    assert_int_equal(gone_count, 2); /* the mapping was idle */
    assert_memory_equal(&gone_last, &watched, sizeof watched);
}

static void a_peer_that_is_forgotten_may_not_answer(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_storage from;
    int server = reached_server(bench, &from);
    uint16_t port;
    int second = server_socket(AF_INET, SOCK_DGRAM, &port);
    struct flow_key key = key_of(5000, port, false);
    struct ip_endpoint to = loopback4(port), known;

    gone_count = 0;
    relay_on_udp_peer_gone(bench->relay, note_gone, NULL);
    relay_udp_peer_allow(bench->relay, &key, 1, &to, true, clock_now());
    relay_udp_peer_forget(bench->relay, &key);
    assert_false(relay_udp_peer_known(bench->relay, &key, 1, &known));
    relay_udp_peer_forget(bench->relay, &key); /* harmless */
    assert_int_equal(gone_count, 0);
    server_sends(second, "x", 1, &from);
    server_sends(server, "y", 1, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    assert_memory_equal(bench->stack->outputs[0].bytes, "y", 1);
    assert_int_equal(counted(bench, COUNTER_relay_udp_unknown_peer), 1);
    close(server);
    close(second);
}

static void mapping_ends_when_idle(void **state)
{
    struct bench *bench = *state;
    struct flow_key key = key_of(5000, 9, false);
    struct ip_endpoint to = loopback4(9), known;
    uint64_t now = clock_now();

    relay_udp_peer_allow(bench->relay, &key, 1, &to, false, now);
    timers_expire(bench->timers, now + 29 * SECOND_NS);
    assert_true(relay_udp_peer_known(bench->relay, &key, 1, &known));
    timers_expire(bench->timers, now + 32 * SECOND_NS);
    assert_false(relay_udp_peer_known(bench->relay, &key, 1, &known));
    assert_true(timers_next(bench->timers) == TIMERS_NEVER);
}

static void mapping_that_was_answered_lives_longer(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_storage from;
    int server = reached_server(bench, &from);
    struct flow_key key = key_of(5000, ntohs(((struct sockaddr_in *)&from)->sin_port), false);
    struct ip_endpoint to = loopback4(9), known;
    uint64_t now;

    server_sends(server, "y", 1, &from);
    BENCH_UNTIL(bench, bench->stack->output_count == 1);
    now = clock_now();
    relay_udp_peer_allow(bench->relay, &key, 1, &to, false, now);
    timers_expire(bench->timers, now + 100 * SECOND_NS);
    assert_true(relay_udp_peer_known(bench->relay, &key, 1, &known));
    timers_expire(bench->timers, now + 130 * SECOND_NS);
    assert_false(relay_udp_peer_known(bench->relay, &key, 1, &known));
    close(server);
}

static void many_mappings_are_found_and_the_oldest_gives_way(void **state)
{
    struct bench *bench = *state;
    struct rlimit limit, few;
    struct ip_endpoint to = loopback4(9), known;
    struct flow_key key;
    uint64_t now = clock_now();
    unsigned found = 0;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = (struct rlimit){limit.rlim_max < 400 ? limit.rlim_max : 400, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    for (uint16_t port = 1; port <= 600; port++) {
        key = key_of(port, 9, false);
        relay_udp_peer_allow(bench->relay, &key, 1, &to, false, now);
        assert_true(relay_udp_peer_known(bench->relay, &key, 1, &known));
        now += SECOND_NS / 100;
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (uint16_t port = 1; port <= 600; port++) {
        key = key_of(port, 9, false);
        found += relay_udp_peer_known(bench->relay, &key, 1, &known);
    }
    assert_int_equal(found + counted(bench, COUNTER_relay_mapping_evicted), 600);
    assert_true(found > 300);
    key = key_of(1, 9, false);
    assert_false(relay_udp_peer_known(bench->relay, &key, 1, &known));
}

static void ttl_and_tos_are_carried(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port), on = 1;
    char data[8], control[128];
    struct iovec iov = {data, sizeof data};
    struct udp_datagram d = datagram_new(key_of(5000, port, false), "x", 1);
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int ttl = -1, tos = -1;

    assert_int_equal(setsockopt(server, IPPROTO_IP, IP_RECVTTL, &on, sizeof on), 0);
    assert_int_equal(setsockopt(server, IPPROTO_IP, IP_RECVTOS, &on, sizeof on), 0);
    d.ttl = 7;
    d.tos = 0x12;
    send_datagram(bench, &d, port);
    relay_batch_end(bench->relay);
    assert_int_equal(recvmsg(server, &msg, MSG_DONTWAIT), 1);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_type == IP_TTL)
            memcpy(&ttl, CMSG_DATA(c), sizeof ttl);
        if (c->cmsg_type == IP_TOS)
            tos = *CMSG_DATA(c);
    }
    assert_int_equal(ttl, 7);
    assert_int_equal(tos, 0x12);
    close(server);
}

static void freeing_the_relay_sends_what_is_gathered(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int server = server_socket(AF_INET, SOCK_DGRAM, &port);
    struct sockaddr_storage from;
    char buffer[8];

    guest_sends(bench, key_of(5000, port, false), "x", 1);
    bench->relay = relay_free(bench->relay);
    assert_int_equal(server_receives(server, buffer, sizeof buffer, &from), 1);
    close(server);
}

#define T(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(datagram_comes_back_under_the_name_the_guest_used),
        T(ipv6_datagram_comes_back_too),
        T(empty_datagrams_pass_both_ways),
        T(largest_datagram_passes_both_ways),
        T(stranger_is_not_let_in),
        T(one_guest_port_has_one_host_port_for_all_peers),
        T(equal_datagrams_of_a_batch_keep_their_borders_and_order),
        T(several_mappings_and_peers_share_a_batch),
        T(more_than_a_batch_holds_is_flushed_on_the_way),
        T(super_datagram_is_cut_in_datagrams),
        T(datagram_over_many_segments_arrives_whole),
        T(equal_datagrams_go_to_the_guest_together),
        T(many_mappings_have_datagrams_on_their_way_to_a_slow_guest),
        T(run_of_the_kernels_goes_on_as_it_is),
        T(run_above_the_guests_mtu_goes_singly),
        T(closed_port_is_reported_with_the_guests_names),
        T(closed_port_over_ipv6_is_reported_too),
        T(error_of_one_peer_costs_another_nothing),
        T(error_within_a_batch_costs_another_nothing),
        T(unspecified_destination_is_refused),
        T(verdict_is_remembered_until_the_policy_changes),
        T(who_is_denied_by_a_new_policy_is_not_heard_any_more),
        T(peers_are_bounded_and_the_oldest_goes),
        T(the_end_of_a_watched_peer_is_told),
        T(a_peer_that_is_forgotten_may_not_answer),
        T(mapping_ends_when_idle),
        T(mapping_that_was_answered_lives_longer),
        T(many_mappings_are_found_and_the_oldest_gives_way),
        T(ttl_and_tos_are_carried),
        T(freeing_the_relay_sends_what_is_gathered),
        /* From here on in a network namespace, where one may be had. */
        T(datagram_above_the_paths_mtu_is_refused_with_it),
        T(oversize_super_datagram_is_sent_fragmented_when_allowed),
        T(no_route_is_refused_as_unreachable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
