/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_RELAY_FAKE_STACK_H
#define TESTS_RELAY_FAKE_STACK_H

/* What the relay calls of the stack, recording instead of doing; and what a test needs around it:
 * a loop, timers, a relay. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"
#include "base/timers.h"
#include "relay/relay.h"

#define FLOWS_MAX     64
#define RECEIVED_MAX  (4u * 1024 * 1024)
#define DATAGRAMS_MAX 512
#define DATAGRAM_MAX  65600

struct fake_flow {
    bool gone, connected, eof, host_reset, aborted, writable_again;
    int refused; /* -1, or enum tcp_refusal */
    const struct tcp_upstream *upstream;
    void *ctx;
    uint64_t token;
    size_t window; /* bytes tcp_rx_reserve() may still hand out */
    size_t received;
    size_t received_before_eof, reads;
    uint8_t *bytes;
    bool reserved;
    int close_how; /* -1, or enum tcp_close */
    bool to_guest; /* by tcp_open_to_guest() */
    struct flow_key key;
};

struct fake_output {
    struct flow_key key;
    size_t len;
    uint16_t gso_size, segment_count;
    uint8_t tos;
    uint8_t *bytes;
};

struct fake_report {
    struct icmp_report report;
    uint8_t payload[256];
    bool refusal; /* by stack_icmp_refuse() */
    struct culvert_frame *frame;
};

struct stack {
    bool refuses_to_open; /* tcp_open_to_guest() */
    bool away;            /* stack_guest_is_away() */
    struct ip_address guest4, guest6;
    struct fake_flow flows[FLOWS_MAX];
    struct fake_output outputs[DATAGRAMS_MAX];
    size_t output_count;
    bool holds; /* keeps the first buffer of each output, as a queue to the guest would */
    struct culvert_buffer *held[DATAGRAMS_MAX];
    size_t held_count;
    struct fake_report reports[64];
    size_t report_count;
    struct echo_reply replies[16];
    uint8_t reply_bytes[16][256];
    size_t reply_count;
};

struct bench {
    struct stack *stack;
    struct loop loop;
    struct timers *timers;
    struct counters *counters;
    struct relay *relay;
};

int bench_setup(void **state);
int bench_teardown(void **state);
/* One turn of an engine: waits at most `ms`. */
void bench_turn(struct bench *bench, int ms);
/* Turns until `condition` or 5 s; fails the test then. */
#define BENCH_UNTIL(bench, condition)                                                              \
    do {                                                                                           \
        uint64_t limit_ = clock_now() + 5 * SECOND_NS;                                             \
        while (!(condition)) {                                                                     \
            if (clock_now() > limit_)                                                              \
                fail_msg("still not: %s", #condition);                                             \
            bench_turn(bench, 10);                                                                 \
        }                                                                                          \
    } while (0)

struct flow_handle fake_flow_open(struct bench *bench, uint32_t index, size_t window);
struct fake_flow *fake_flow(struct bench *bench, uint32_t index);
/* The stack ends a flow of its own accord. */
void fake_flow_close(struct bench *bench, uint32_t index, enum tcp_close how);
void fake_flow_open_window(struct bench *bench, uint32_t index, size_t more);

struct ip_endpoint loopback4(uint16_t port);
struct ip_endpoint loopback6(uint16_t port);
/* A bound loopback socket; *ret_port its port. TCP sockets listen. */
int server_socket(int family, int type, uint16_t *ret_port);
uint64_t counted(struct bench *bench, enum counter which);

#endif
