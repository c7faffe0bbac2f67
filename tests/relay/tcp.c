/* SPDX-License-Identifier: Apache-2.0 */
/* TCP flows over real loopback sockets. */

#include "fake_stack.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <linux/sockios.h>

static void connect_flow(struct bench *bench, uint32_t index, struct ip_endpoint to, size_t window)
{
    relay_tcp_connect(bench->relay, fake_flow_open(bench, index, window), &to, clock_now());
}

/* A connected flow; returns the server's end. */
static int established(struct bench *bench, uint32_t index, size_t window)
{
    uint16_t port;
    int listener = server_socket(AF_INET, SOCK_STREAM, &port), peer;

    connect_flow(bench, index, loopback4(port), window);
    peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    close(listener);
    BENCH_UNTIL(bench, fake_flow(bench, index)->connected);
    return peer;
}

static void reset_by_close(int fd)
{
    struct linger linger = {1, 0};

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(fd);
}

static ssize_t flow_write(struct fake_flow *f, const void *data, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};

    return f->upstream->write(f->ctx, f->token, &iov, 1);
}

static void write_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        assert_true(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

static void pattern_fill(uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 31 + (i >> 8));
}

static void loopback_connection_stands_without_a_turn_of_the_loop(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int listener = server_socket(AF_INET, SOCK_STREAM, &port);

    connect_flow(bench, 0, loopback4(port), 1000);
    assert_true(fake_flow(bench, 0)->connected);
    close(listener);
}

static void ipv6_connects_too(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int listener = server_socket(AF_INET6, SOCK_STREAM, &port);

    connect_flow(bench, 0, loopback6(port), 1000);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->connected);
    close(listener);
}

static void refused_port_is_answered_by_reset(void **state)
{
    struct bench *bench = *state;
    uint16_t port;

    close(server_socket(AF_INET, SOCK_STREAM, &port));
    connect_flow(bench, 0, loopback4(port), 1000);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->gone);
    assert_int_equal(fake_flow(bench, 0)->refused, TCP_REFUSE_RESET);
}

static void unspecified_address_does_not_reach_loopback(void **state)
{
    struct bench *bench = *state;
    uint16_t port;
    int listener = server_socket(AF_INET, SOCK_STREAM, &port);
    struct ip_endpoint any4 = {ip_address_v4(0), port}, any6 = {ip_address_v6(&in6addr_any), port};

    connect_flow(bench, 0, any4, 1000);
    assert_int_equal(fake_flow(bench, 0)->refused, TCP_REFUSE_PROHIBITED);
    connect_flow(bench, 1, any6, 1000);
    assert_int_equal(fake_flow(bench, 1)->refused, TCP_REFUSE_PROHIBITED);
    close(listener);
}

static void broadcast_address_is_refused_at_once(void **state)
{
    struct bench *bench = *state;
    struct ip_endpoint to = {ip_address_v4(htonl(INADDR_BROADCAST)), 80};

    connect_flow(bench, 0, to, 1000);
    assert_true(fake_flow(bench, 0)->gone);
}

static void no_descriptor_left_is_silence_and_counted(void **state)
{
    struct bench *bench = *state;
    struct rlimit limit, few = {0, 0};
    uint16_t port;
    int listener = server_socket(AF_INET, SOCK_STREAM, &port);

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few.rlim_max = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    connect_flow(bench, 0, loopback4(port), 1000);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(fake_flow(bench, 0)->refused, TCP_REFUSE_SILENT);
    assert_int_equal(counted(bench, COUNTER_relay_tcp_no_descriptor), 1);

    connect_flow(bench, 1, loopback4(port), 1000);
    BENCH_UNTIL(bench, fake_flow(bench, 1)->connected);
    close(listener);
}

static void server_that_speaks_first_is_heard(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);

    write_all(peer, "220 hello\r\n", 11);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->received == 11);
    assert_memory_equal(fake_flow(bench, 0)->bytes, "220 hello\r\n", 11);
    close(peer);
}

/* The relay's socket whose other end `peer` is. */
static int relays_end_of(int peer)
{
    struct sockaddr_in want, name;
    socklen_t len = sizeof want;

    assert_int_equal(getpeername(peer, (struct sockaddr *)&want, &len), 0);
    for (int fd = 3; fd < 1024; fd++) {
        len = sizeof name;
        if (getsockname(fd, (struct sockaddr *)&name, &len) == 0 && len == sizeof name &&
            name.sin_port == want.sin_port && fd != peer)
            return fd;
    }
    fail_msg("the relay has no such socket");
    return -1;
}

static bool may_be_held_back(int fd)
{
    int nodelay = 0;
    socklen_t len = sizeof nodelay;

    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len), 0);
    return !nodelay;
}

static void small_writes_do_not_wait_for_each_other(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    int fd = relays_end_of(peer);
    char buffer[16];

    assert_int_equal(flow_write(fake_flow(bench, 0), "a", 1), 1);
    assert_int_equal(recv(peer, buffer, sizeof buffer, 0), 1);
    assert_int_equal(flow_write(fake_flow(bench, 0), "b", 1), 1);
    assert_false(may_be_held_back(fd));
    assert_int_equal(recv(peer, buffer, sizeof buffer, 0), 1);
    close(peer);
}

static void first_write_leaves_at_once_as_it_is(void **state)
{
    struct bench *bench = *state;
    const size_t len = 70 * 1000 + 7; /* a full segment, and a small one */
    int peer = established(bench, 0, 1000), unsent = 0;
    uint8_t *data = calloc(1, len);

    assert_int_equal(flow_write(fake_flow(bench, 0), data, len), len);
    for (size_t got = 0; got < len;) {
        ssize_t n = recv(peer, data, len, 0);

        assert_true(n > 0);
        got += (size_t)n;
    }
    assert_int_equal(ioctl(relays_end_of(peer), SIOCOUTQNSD, &unsent), 0);
    assert_int_equal(unsent, 0);
    free(data);
    close(peer);
}

static void bulk_download_arrives_whole_then_eof(void **state)
{
    struct bench *bench = *state;
    const size_t len = 3u * 1024 * 1024;
    int peer = established(bench, 0, RECEIVED_MAX);
    uint8_t *data = malloc(len);
    size_t sent = 0;

    pattern_fill(data, len);
    while (sent < len) {
        ssize_t n = send(peer, data + sent, len - sent, MSG_DONTWAIT);

        if (n > 0)
            sent += (size_t)n;
        else
            bench_turn(bench, 1);
    }
    close(peer);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->eof);
    assert_int_equal(fake_flow(bench, 0)->received, len);
    assert_memory_equal(fake_flow(bench, 0)->bytes, data, len);
    assert_false(fake_flow(bench, 0)->host_reset);
    free(data);
}

static void short_read_needs_no_second(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 100000);

    write_all(peer, "x", 1);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->received == 1);
    bench_turn(bench, 1);
    assert_int_equal(fake_flow(bench, 0)->reads, 1);
    close(peer);
}

static void shut_window_pauses_and_resume_goes_on(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 10);

    write_all(peer, "0123456789abcdef", 16);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->received == 10);
    for (int i = 0; i < 3; i++)
        bench_turn(bench, 1);
    assert_false(relay_run(bench->relay, clock_now()));
    fake_flow_open_window(bench, 0, 100);
    assert_true(fake_flow(bench, 0)->received == 10); /* not from within resume() */
    BENCH_UNTIL(bench, fake_flow(bench, 0)->received == 16);
    assert_memory_equal(fake_flow(bench, 0)->bytes, "0123456789abcdef", 16);
    close(peer);
}

static void half_closed_by_the_peer_still_uploads(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    char buffer[16];

    write_all(peer, "bye", 3);
    shutdown(peer, SHUT_WR);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->eof);
    assert_int_equal(fake_flow(bench, 0)->received_before_eof, 3);
    assert_int_equal(flow_write(fake_flow(bench, 0), "still here", 10), 10);
    assert_int_equal(recv(peer, buffer, sizeof buffer, 0), 10);
    fake_flow_close(bench, 0, TCP_CLOSE_FINISHED);
    assert_int_equal(recv(peer, buffer, sizeof buffer, 0), 0);
    close(peer);
}

static void half_closed_by_the_guest_still_downloads(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    struct fake_flow *f = fake_flow(bench, 0);
    char buffer[16];

    assert_int_equal(flow_write(f, "question", 8), 8);
    f->upstream->shut_write(f->ctx, f->token);
    assert_int_equal(recv(peer, buffer, sizeof buffer, 0), 8);
    assert_int_equal(recv(peer, buffer, sizeof buffer, 0), 0);
    bench_turn(bench, 1);
    write_all(peer, "answer", 6);
    BENCH_UNTIL(bench, f->received == 6);
    assert_false(f->eof);
    close(peer);
    BENCH_UNTIL(bench, f->eof);
    assert_false(f->host_reset);
}

static void reset_delivers_the_bytes_before_it(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, RECEIVED_MAX);
    uint8_t *data = malloc(50000);

    pattern_fill(data, 50000);
    write_all(peer, data, 50000);
    reset_by_close(peer);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->host_reset);
    assert_int_equal(fake_flow(bench, 0)->received, 50000);
    assert_memory_equal(fake_flow(bench, 0)->bytes, data, 50000);
    assert_false(fake_flow(bench, 0)->eof);
    free(data);
}

static void reset_whose_error_a_write_consumed_is_no_fin(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    struct fake_flow *f = fake_flow(bench, 0);

    write_all(peer, "last words", 10);
    reset_by_close(peer);
    assert_true(flow_write(f, "x", 1) < 0);
    assert_false(f->host_reset); /* never from within write() */
    BENCH_UNTIL(bench, f->gone);
    assert_int_equal(f->received, 10);
    assert_true(f->host_reset);
    assert_false(f->eof);
}

static void reset_after_fin_is_a_reset(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);

    shutdown(peer, SHUT_WR);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->eof);
    reset_by_close(peer);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->host_reset);
}

static void reset_reaches_a_guest_whose_window_stays_shut(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 4);
    uint64_t begin;

    write_all(peer, "0123456789", 10);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->received == 4);
    bench_turn(bench, 1);
    begin = clock_now();
    reset_by_close(peer);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->host_reset);
    assert_true(clock_now() - begin < SECOND_NS);
    assert_int_equal(fake_flow(bench, 0)->received, 4);
}

static void reset_waits_for_a_guest_that_makes_room(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 4);

    write_all(peer, "0123456789", 10);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->received == 4);
    reset_by_close(peer);
    bench_turn(bench, 5);
    assert_false(fake_flow(bench, 0)->host_reset);
    fake_flow_open_window(bench, 0, 100);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->host_reset);
    assert_int_equal(fake_flow(bench, 0)->received, 10);
}

static void urgent_byte_is_delivered_in_band(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);

    write_all(peer, "ab", 2);
    assert_int_equal(send(peer, "!", 1, MSG_OOB), 1);
    write_all(peer, "cd", 2);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->received == 5);
    assert_memory_equal(fake_flow(bench, 0)->bytes, "ab!cd", 5);
    close(peer);
}

static void slow_reader_gets_every_byte(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    struct fake_flow *f = fake_flow(bench, 0);
    const size_t len = 16u * 1024 * 1024;
    uint8_t *data = malloc(len), *got = malloc(len);
    size_t sent = 0, read = 0;
    bool blocked = false;

    pattern_fill(data, len);
    while (read < len) {
        while (sent < len && !blocked) {
            ssize_t n = flow_write(f, data + sent, len - sent);

            assert_true(n >= 0);
            blocked = sent + (size_t)n < len;
            sent += (size_t)n;
        }
        ssize_t n = recv(peer, got + read, len - read, MSG_DONTWAIT);

        if (n > 0)
            read += (size_t)n;
        bench_turn(bench, 1);
        blocked &= !f->writable_again;
        f->writable_again = false;
    }
    assert_memory_equal(data, got, len);
    free(data);
    free(got);
    close(peer);
}

static void eight_bulk_flows_share_fairly(void **state)
{
    struct bench *bench = *state;
    uint8_t *data = calloc(1, 1024 * 1024);
    int peers[8];
    size_t least = SIZE_MAX, most = 0;

    for (uint32_t i = 0; i < 8; i++)
        peers[i] = established(bench, i, RECEIVED_MAX);
    for (int i = 0; i < 8; i++)
        while (send(peers[i], data, 1024 * 1024, MSG_DONTWAIT) > 0)
            ;
    for (int i = 0; i < 2; i++)
        bench_turn(bench, 1);
    for (uint32_t i = 0; i < 8; i++) {
        size_t n = fake_flow(bench, i)->received;

        least = n < least ? n : least;
        most = n > most ? n : most;
        close(peers[i]);
    }
    assert_true(least > 0);
    assert_true(most <= 2 * least);
    free(data);
}

static bool sees_reset(int peer)
{
    struct pollfd p = {.fd = peer, .events = POLLIN};
    char buffer[65536];

    if (poll(&p, 1, 0) <= 0)
        return false;
    while (recv(peer, buffer, sizeof buffer, MSG_DONTWAIT) > 0)
        ;
    return errno == ECONNRESET;
}

static void guest_reset_resets_the_peer_at_once_when_all_was_sent(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);

    fake_flow_close(bench, 0, TCP_CLOSE_RESET);
    assert_true(sees_reset(peer));
    close(peer);
}

static void guest_reset_waits_for_what_was_acknowledged(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    struct fake_flow *f = fake_flow(bench, 0);
    const size_t chunk = 65536;
    uint8_t *data = calloc(1, chunk);
    size_t sent = 0, got = 0;
    ssize_t n;

    while ((n = flow_write(f, data, chunk)) > 0)
        sent += (size_t)n;
    fake_flow_close(bench, 0, TCP_CLOSE_RESET);
    for (;;) {
        n = recv(peer, data, chunk, MSG_DONTWAIT);
        if (n > 0)
            got += (size_t)n;
        else if (n < 0 && errno == ECONNRESET)
            break;
        else
            assert_true(n < 0 && errno == EAGAIN);
        bench_turn(bench, 1);
    }
    assert_int_equal(got, sent);
    assert_int_equal(counted(bench, COUNTER_tcp_lingering_lost), 0);
    free(data);
    close(peer);
}

static void orphan_gives_its_descriptor_to_a_new_flow(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000), again, last;
    struct fake_flow *f = fake_flow(bench, 0);
    struct rlimit limit, few;
    uint8_t *data = calloc(1, 65536);
    uint16_t port;
    int listener = server_socket(AF_INET, SOCK_STREAM, &port);

    while (flow_write(f, data, 65536) > 0)
        ;
    fake_flow_close(bench, 0, TCP_CLOSE_RESET);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    last = dup(listener); /* the lowest free number: from it on none is to be had */
    few = (struct rlimit){(rlim_t)last, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    connect_flow(bench, 1, loopback4(port), 1000);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(fake_flow(bench, 1)->connected);
    again = accept(listener, NULL, NULL);
    close(again);
    close(last);
    close(listener);
    close(peer);
    free(data);
}

static void vanished_guest_resets_the_peer_at_once(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    struct fake_flow *f = fake_flow(bench, 0);
    uint8_t *data = calloc(1, 65536);

    while (flow_write(f, data, 65536) > 0)
        ;
    fake_flow_close(bench, 0, TCP_CLOSE_VANISHED);
    assert_true(sees_reset(peer));
    free(data);
    close(peer);
}

static void keepalive_is_turned_on(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    struct fake_flow *f = fake_flow(bench, 0);

    f->upstream->keepalive(f->ctx, f->token);
    f->upstream->keepalive(f->ctx, f->token);
    close(peer);
}

static void stale_token_does_nothing(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);
    struct fake_flow *f = fake_flow(bench, 0);

    fake_flow_close(bench, 0, TCP_CLOSE_FINISHED);
    assert_true(flow_write(f, "x", 1) < 0);
    f->upstream->resume(f->ctx, f->token);
    f->upstream->shut_write(f->ctx, f->token);
    f->upstream->keepalive(f->ctx, f->token);
    f->upstream->close(f->ctx, f->token, TCP_CLOSE_RESET);
    close(peer);
}

/* Keeps all but those of `denied`; nobody came by a published port. */
static bool keep_others(void *ctx, struct flow_handle flow, const struct ip_address *client)
{
    const uint32_t *denied = ctx;

    assert_null(client);
    return flow.index != *denied;
}

static void who_is_not_to_be_kept_is_reset_on_both_sides_and_nobody_else(void **state)
{
    struct bench *bench = *state;
    uint32_t denied = 1, at = 0, asked = 0;
    int peers[3];
    char byte;

    for (uint32_t i = 0; i < 3; i++)
        peers[i] = established(bench, i, 1024);
    for (; relay_tcp_review(bench->relay, &at, 1, keep_others, &denied); asked++)
        ;
    assert_true(asked >= 2); /* one place at a time, as was asked for */
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(fake_flow(bench, i)->aborted, i == denied);
    assert_int_equal(recv(peers[denied], &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    write_all(peers[0], "x", 1);
    BENCH_UNTIL(bench, fake_flow(bench, 0)->received == 1);
    for (uint32_t i = 0; i < 3; i++)
        close(peers[i]);
}

static void freeing_the_relay_resets_both_sides(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);

    bench->relay = relay_free(bench->relay);
    assert_true(fake_flow(bench, 0)->host_reset);
    assert_true(sees_reset(peer));
    close(peer);
}

static void idle_flows_cause_no_event(void **state)
{
    struct bench *bench = *state;
    int peer = established(bench, 0, 1000);

    bench_turn(bench, 0);
    assert_false(relay_run(bench->relay, clock_now()));
    assert_int_equal(loop_wait(&bench->loop, clock_now(), clock_now() + 20 * MS_NS), 0);
    assert_true(timers_next(bench->timers) == TIMERS_NEVER);
    close(peer);
}

#define T(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(loopback_connection_stands_without_a_turn_of_the_loop),
        T(ipv6_connects_too),
        T(refused_port_is_answered_by_reset),
        T(unspecified_address_does_not_reach_loopback),
        T(broadcast_address_is_refused_at_once),
        T(no_descriptor_left_is_silence_and_counted),
        T(server_that_speaks_first_is_heard),
        T(small_writes_do_not_wait_for_each_other),
        T(first_write_leaves_at_once_as_it_is),
        T(bulk_download_arrives_whole_then_eof),
        T(short_read_needs_no_second),
        T(shut_window_pauses_and_resume_goes_on),
        T(half_closed_by_the_peer_still_uploads),
        T(half_closed_by_the_guest_still_downloads),
        T(reset_delivers_the_bytes_before_it),
        T(reset_whose_error_a_write_consumed_is_no_fin),
        T(reset_after_fin_is_a_reset),
        T(reset_reaches_a_guest_whose_window_stays_shut),
        T(reset_waits_for_a_guest_that_makes_room),
        T(urgent_byte_is_delivered_in_band),
        T(slow_reader_gets_every_byte),
        T(eight_bulk_flows_share_fairly),
        T(guest_reset_resets_the_peer_at_once_when_all_was_sent),
        T(guest_reset_waits_for_what_was_acknowledged),
        T(orphan_gives_its_descriptor_to_a_new_flow),
        T(vanished_guest_resets_the_peer_at_once),
        T(keepalive_is_turned_on),
        T(stale_token_does_nothing),
        T(who_is_not_to_be_kept_is_reset_on_both_sides_and_nobody_else),
        T(freeing_the_relay_resets_both_sides),
        T(idle_flows_cause_no_event),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
