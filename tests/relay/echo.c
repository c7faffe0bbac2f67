/* SPDX-License-Identifier: Apache-2.0 */
/* Echo over ping sockets and over raw sockets, to the loopback of a namespace. */

#include "fake_stack.h"

#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "namespace.h"
#include "wire/checksum.h"

#define HEADERS 42

static const struct ip_address guest4 = {
    .bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 2, 100}};
static const struct ip_address target4 = {
    .bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1}};
static const struct ip_address guest6 = {.bytes = {0xfd, 0x63, [15] = 0x64}};
static const struct ip_address target6 = {.bytes = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}};

static struct flow_key key_of(uint16_t identifier, bool v6)
{
    return (struct flow_key){.guest = v6 ? guest6 : guest4,
                             .remote = v6 ? target6 : target4,
                             .guest_port = identifier,
                             .protocol = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP};
}

static void guest_pings(struct bench *bench, struct flow_key key, uint16_t sequence, size_t len)
{
    struct echo_request request = {.key = key,
                                   .sequence = sequence,
                                   .frame = culvert_frame_new(HEADERS + len),
                                   .payload_offset = HEADERS,
                                   .payload_len = len,
                                   .ttl = 64};
    struct ip_address to =
        ip_address_is_v4(&key.guest) ? loopback4(0).address : loopback6(0).address;

    assert_non_null(request.frame);
    request.frame->len = HEADERS + len;
    for (size_t i = 0; i < len; i++)
        request.frame->data[HEADERS + i] = (uint8_t)(i + sequence);
    relay_echo_send(bench->relay, &request, &to, clock_now());
    culvert_frame_unref(request.frame);
}

/* A relay that finds ping sockets allowed or forbidden. */
static struct bench *bench_with(void **state, bool ping_sockets)
{
    struct bench *bench = *state;

    /* An unprivileged namespace cannot forbid ping sockets. */
    if (!namespace_of_its_own() || namespace_allow_ping_sockets(ping_sockets) < 0)
        skip();
    relay_free(bench->relay);
    bench->relay = relay_new(bench->stack, &bench->loop, bench->timers, bench->counters);
    assert_non_null(bench->relay);
    assert_int_equal(relay_echo_available(bench->relay, false), 0);
    assert_int_equal(relay_echo_available(bench->relay, true), 0);
    return bench;
}

static void replies_come_back(struct bench *bench, bool v6)
{
    struct flow_key first = key_of(77, v6), second = key_of(78, v6);

    guest_pings(bench, first, 1, 56);
    BENCH_UNTIL(bench, bench->stack->reply_count == 1);
    guest_pings(bench, first, 2, 0);
    BENCH_UNTIL(bench, bench->stack->reply_count == 2);
    guest_pings(bench, second, 3, 200);
    BENCH_UNTIL(bench, bench->stack->reply_count == 3);
    for (size_t i = 0; i < 3; i++) {
        const struct echo_reply *reply = &bench->stack->replies[i];

        assert_memory_equal(&reply->key, i < 2 ? &first : &second, sizeof first);
        assert_int_equal(reply->sequence, i + 1);
        assert_int_equal(reply->len, i == 0 ? 56 : i == 1 ? 0 : 200);
        assert_int_equal(reply->ttl, 64);
        for (size_t b = 0; b < reply->len; b++)
            assert_int_equal(bench->stack->reply_bytes[i][b], (uint8_t)(b + i + 1));
    }
}

static void ping_socket_replies_come_back(void **state)
{
    struct bench *bench = bench_with(state, true);

    replies_come_back(bench, false);
}

static void ping_socket_replies_come_back_over_ipv6(void **state)
{
    replies_come_back(bench_with(state, true), true);
}

static void raw_socket_replies_come_back(void **state)
{
    replies_come_back(bench_with(state, false), false);
}

static void raw_socket_replies_come_back_over_ipv6(void **state)
{
    replies_come_back(bench_with(state, false), true);
}

static bool denies_all(void *ctx, const struct flow_key *key)
{
    (void)ctx, (void)key;
    return false;
}

static void replies_of_whom_a_new_policy_denies_are_not_passed_on(void **state)
{
    struct bench *bench = bench_with(state, true);

    relay_set_judge(bench->relay, denies_all, NULL);
    guest_pings(bench, key_of(77, false), 1, 56);
    relay_policy_changed(bench->relay); /* while the reply is on its way */
    BENCH_UNTIL(bench, counted(bench, COUNTER_relay_answer_denied) == 1);
    assert_int_equal(bench->stack->reply_count, 0);
}

static void largest_echo_comes_back(void **state)
{
    struct bench *bench = bench_with(state, true);

    guest_pings(bench, key_of(77, false), 9, 65507);
    BENCH_UNTIL(bench, bench->stack->reply_count == 1);
    assert_int_equal(bench->stack->replies[0].len, 65507);
}

/* The next echo request on the wire, IP header included. */
static size_t overhear_request(int raw, uint8_t *buffer, size_t size)
{
    for (;;) {
        ssize_t n = recv(raw, buffer, size, 0);

        assert_true(n >= 28);
        if (buffer[(buffer[0] & 15) * 4] == ICMP_ECHO)
            return (size_t)n;
    }
}

/* As a router would, but from loopback. */
static void send_time_exceeded(int raw, const uint8_t *packet, size_t len)
{
    uint8_t message[8 + 128] = {ICMP_TIME_EXCEEDED};
    struct ip_endpoint router = {loopback4(0).address, 0};
    struct sockaddr_storage sa;
    socklen_t sa_len = ip_endpoint_to_sockaddr(&router, &sa);

    len = len < 128 ? len : 128;
    memcpy(message + 8, packet, len);
    checksum_store(message + 2, checksum_finish(checksum_add(0, message, 8 + len)));
    assert_int_equal(sendto(raw, message, 8 + len, 0, (struct sockaddr *)&sa, sa_len), 8 + len);
}

static void time_exceeded_is_reported(struct bench *bench)
{
    int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    struct flow_key key = key_of(77, false);
    uint8_t packet[2048];
    size_t len;

    assert_true(raw >= 0);
    guest_pings(bench, key, 5, 40);
    len = overhear_request(raw, packet, sizeof packet);
    send_time_exceeded(raw, packet, len);
    BENCH_UNTIL(bench, bench->stack->report_count == 1);

    const struct fake_report *r = &bench->stack->reports[0];

    assert_int_equal(r->report.problem, ICMP_PROBLEM_TIME_EXCEEDED);
    assert_memory_equal(&r->report.key, &key, sizeof key);
    assert_int_equal(r->report.sequence, 5);
    assert_int_equal(r->report.payload_len, 40);
    assert_int_equal(r->payload[1], 6);
    close(raw);
}

static void time_exceeded_reaches_a_ping_socket(void **state)
{
    time_exceeded_is_reported(bench_with(state, true));
}

static void time_exceeded_reaches_a_raw_socket(void **state)
{
    time_exceeded_is_reported(bench_with(state, false));
}

static void mappings_are_bounded(void **state)
{
    struct bench *bench = bench_with(state, true);

    for (uint16_t identifier = 0; identifier < 300; identifier++) {
        guest_pings(bench, key_of(identifier, false), 1, 8);
        bench_turn(bench, 0);
        bench->stack->reply_count = 0;
    }
    assert_int_equal(counted(bench, COUNTER_relay_mapping_evicted), 300 - 256);
}

static void echo_without_any_socket_is_refused(void **state)
{
    struct bench *bench = bench_with(state, false);

    assert_int_equal(namespace_allow_ping_sockets(false), 0);
    relay_free(bench->relay);
    if (setegid(65534) < 0 || seteuid(65534) < 0) { /* takes CAP_NET_RAW away for a while */
        bench->relay = NULL;
        skip();
    }
    bench->relay = relay_new(bench->stack, &bench->loop, bench->timers, bench->counters);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(setegid(0), 0);
    assert_true(relay_echo_available(bench->relay, false) < 0);
    guest_pings(bench, key_of(77, false), 1, 8);
    assert_int_equal(counted(bench, COUNTER_relay_echo_unavailable), 1);
    assert_int_equal(bench->stack->report_count, 1);
    assert_int_equal(bench->stack->reports[0].report.problem, ICMP_PROBLEM_PROHIBITED);
}

#define T(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(ping_socket_replies_come_back),
        T(ping_socket_replies_come_back_over_ipv6),
        T(raw_socket_replies_come_back),
        T(raw_socket_replies_come_back_over_ipv6),
        T(replies_of_whom_a_new_policy_denies_are_not_passed_on),
        T(largest_echo_comes_back),
        T(time_exceeded_reaches_a_ping_socket),
        T(time_exceeded_reaches_a_raw_socket),
        T(mappings_are_bounded),
        T(echo_without_any_socket_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
