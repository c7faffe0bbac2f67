/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_stack.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the stack's functions ---- */

static struct fake_flow *live(struct stack *stack, struct flow_handle flow)
{
    struct fake_flow *f = &stack->flows[flow.index];

    return flow.index < FLOWS_MAX && !f->gone ? f : NULL;
}

static void end(struct fake_flow *f, enum tcp_close how)
{
    f->gone = true;
    f->close_how = (int)how;
    f->upstream->close(f->ctx, f->token, how);
}

bool tcp_set_upstream(struct stack *stack, struct flow_handle flow,
                      const struct tcp_upstream *upstream, void *ctx, uint64_t token)
{
    struct fake_flow *f = live(stack, flow);

    if (!f)
        return false;
    f->upstream = upstream;
    f->ctx = ctx;
    f->token = token;
    return true;
}

void tcp_connected(struct stack *stack, struct flow_handle flow)
{
    struct fake_flow *f = live(stack, flow);

    assert_non_null(f);
    assert_non_null(f->upstream);
    assert_false(f->connected);
    f->connected = true;
}

void tcp_refuse(struct stack *stack, struct flow_handle flow, enum tcp_refusal how)
{
    struct fake_flow *f = live(stack, flow);

    if (!f)
        return;
    assert_false(f->connected);
    f->refused = (int)how;
    f->gone = true;
}

bool tcp_key_in_use(struct stack *stack, const struct flow_key *key)
{
    for (size_t i = 0; i < FLOWS_MAX; i++) {
        const struct fake_flow *f = &stack->flows[i];

        if (f->to_guest && !f->gone && memcmp(&f->key, key, sizeof *key) == 0)
            return true;
    }
    return false;
}

struct ip_address stack_guest_address(struct stack *stack, bool v6)
{
    return v6 ? stack->guest6 : stack->guest4;
}

bool stack_guest_is_away(struct stack *stack, bool v6)
{
    (void)v6;
    return stack->away;
}

bool tcp_open_to_guest(struct stack *stack, const struct flow_key *key,
                       const struct tcp_upstream *upstream, void *ctx, uint64_t token,
                       struct flow_handle *ret_flow)
{
    uint32_t i = 0;

    while (i < FLOWS_MAX && stack->flows[i].bytes)
        i++;
    if (i == FLOWS_MAX || stack->refuses_to_open)
        return false;
    stack->flows[i] = (struct fake_flow){.refused = -1,
                                         .close_how = -1,
                                         .to_guest = true,
                                         .key = *key,
                                         .upstream = upstream,
                                         .ctx = ctx,
                                         .token = token,
                                         .bytes = malloc(RECEIVED_MAX)};
    assert_non_null(stack->flows[i].bytes);
    *ret_flow = (struct flow_handle){i, 1};
    return true;
}

int tcp_rx_reserve(struct stack *stack, struct flow_handle flow, struct iovec *iov)
{
    struct fake_flow *f = live(stack, flow);
    size_t n;

    assert_non_null(f);
    assert_false(f->reserved);
    if (!f->window)
        return 0;
    f->reserved = true;
    n = f->window < 65536 ? f->window : 65536;
    if (n == 1) {
        iov[0] = (struct iovec){f->bytes + f->received, 1};
        return 1;
    }
    iov[0] = (struct iovec){f->bytes + f->received, n / 2};
    iov[1] = (struct iovec){f->bytes + f->received + n / 2, n - n / 2};
    return 2;
}

void tcp_rx_commit(struct stack *stack, struct flow_handle flow, size_t n)
{
    struct fake_flow *f = live(stack, flow);

    assert_non_null(f);
    assert_true(f->reserved);
    assert_false(f->eof);
    f->reserved = false;
    f->received += n;
    f->window -= n;
    f->reads++;
}

void tcp_rx_eof(struct stack *stack, struct flow_handle flow)
{
    struct fake_flow *f = live(stack, flow);

    assert_non_null(f);
    assert_false(f->eof);
    f->eof = true;
    f->received_before_eof = f->received;
}

void tcp_host_reset(struct stack *stack, struct flow_handle flow)
{
    struct fake_flow *f = live(stack, flow);

    if (!f)
        return;
    f->host_reset = true;
    end(f, TCP_CLOSE_FINISHED);
}

void tcp_abort(struct stack *stack, struct flow_handle flow)
{
    struct fake_flow *f = live(stack, flow);

    if (!f)
        return;
    f->aborted = true;
    end(f, TCP_CLOSE_VANISHED);
}

void tcp_writable(struct stack *stack, struct flow_handle flow)
{
    struct fake_flow *f = live(stack, flow);

    assert_non_null(f);
    f->writable_again = true;
}

int stack_udp_output(struct stack *stack, const struct udp_output *output)
{
    struct fake_output *o = &stack->outputs[stack->output_count++];
    size_t at = 0;

    assert_true(stack->output_count <= DATAGRAMS_MAX);
    assert_true(output->segment_count <= 66);
    *o = (struct fake_output){.key = output->key,
                              .len = output->len,
                              .gso_size = output->gso_size,
                              .segment_count = output->segment_count,
                              .tos = output->tos,
                              .bytes = malloc(output->len + 1)};
    assert_non_null(o->bytes);
    for (uint16_t i = 0; i < output->segment_count; i++) {
        memcpy(o->bytes + at, output->segments[i].base, output->segments[i].len);
        at += output->segments[i].len;
    }
    assert_int_equal(at, output->len);
    if (stack->holds && output->segment_count > 0)
        stack->held[stack->held_count++] = culvert_buffer_ref(output->segments[0].buffer);
    return 0;
}

int stack_echo_output(struct stack *stack, const struct echo_reply *reply)
{
    size_t i = stack->reply_count++;

    assert_true(i < 16);
    stack->replies[i] = *reply;
    memcpy(stack->reply_bytes[i], reply->payload, reply->len < 256 ? reply->len : 256);
    return 0;
}

void stack_icmp_report(struct stack *stack, const struct icmp_report *report)
{
    struct fake_report *r = &stack->reports[stack->report_count++];

    assert_true(stack->report_count <= 64);
    *r = (struct fake_report){.report = *report};
    memcpy(r->payload, report->payload, report->payload_len < 256 ? report->payload_len : 256);
}

void stack_icmp_refuse(struct stack *stack, struct culvert_frame *frame, enum icmp_problem problem,
                       uint32_t mtu)
{
    struct fake_report *r = &stack->reports[stack->report_count++];

    assert_true(stack->report_count <= 64);
    *r = (struct fake_report){
        .report = {.problem = problem, .mtu = mtu}, .refusal = true, .frame = frame};
}

/* ---- around it ---- */

int bench_setup(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);

    assert_non_null(bench);
    bench->stack = calloc(1, sizeof *bench->stack);
    bench->counters = calloc(1, sizeof *bench->counters);
    bench->timers = timers_new(NULL, clock_now());
    assert_non_null(bench->stack);
    assert_non_null(bench->counters);
    assert_non_null(bench->timers);
    assert_int_equal(loop_init(&bench->loop), 0);
    bench->relay = relay_new(bench->stack, &bench->loop, bench->timers, bench->counters);
    assert_non_null(bench->relay);
    *state = bench;
    return 0;
}

int bench_teardown(void **state)
{
    struct bench *bench = *state;

    for (size_t i = 0; i < bench->stack->held_count; i++)
        culvert_buffer_unref(bench->stack->held[i]);
    relay_free(bench->relay);
    loop_fini(&bench->loop);
    timers_free(bench->timers);
    for (size_t i = 0; i < FLOWS_MAX; i++)
        free(bench->stack->flows[i].bytes);
    for (size_t i = 0; i < bench->stack->output_count; i++)
        free(bench->stack->outputs[i].bytes);
    free(bench->stack);
    free(bench->counters);
    free(bench);
    return 0;
}

void bench_turn(struct bench *bench, int ms)
{
    uint64_t now = clock_now(), deadline = now + (uint64_t)ms * MS_NS;
    uint64_t timer = timers_next(bench->timers);
    bool more = relay_run(bench->relay, now);

    assert_true(loop_wait(&bench->loop, now, more ? 0 : timer < deadline ? timer : deadline) >= 0);
    timers_expire(bench->timers, clock_now());
    relay_run(bench->relay, clock_now());
    relay_batch_end(bench->relay);
}

struct flow_handle fake_flow_open(struct bench *bench, uint32_t index, size_t window)
{
    struct fake_flow *f = &bench->stack->flows[index];

    free(f->bytes);
    *f = (struct fake_flow){.refused = -1, .close_how = -1, .window = window};
    f->bytes = malloc(RECEIVED_MAX);
    assert_non_null(f->bytes);
    return (struct flow_handle){index, 1};
}

struct fake_flow *fake_flow(struct bench *bench, uint32_t index)
{
    return &bench->stack->flows[index];
}

void fake_flow_close(struct bench *bench, uint32_t index, enum tcp_close how)
{
    end(&bench->stack->flows[index], how);
}

void fake_flow_open_window(struct bench *bench, uint32_t index, size_t more)
{
    struct fake_flow *f = &bench->stack->flows[index];

    f->window += more;
    f->upstream->resume(f->ctx, f->token);
}

struct ip_endpoint loopback4(uint16_t port)
{
    return (struct ip_endpoint){ip_address_v4(htonl(INADDR_LOOPBACK)), port};
}

struct ip_endpoint loopback6(uint16_t port)
{
    return (struct ip_endpoint){ip_address_v6(&in6addr_loopback), port};
}

int server_socket(int family, int type, uint16_t *ret_port)
{
    struct ip_endpoint endpoint = family == AF_INET ? loopback4(0) : loopback6(0);
    struct sockaddr_storage sa;
    socklen_t len = ip_endpoint_to_sockaddr(&endpoint, &sa);
    int fd = socket(family, type | SOCK_CLOEXEC, 0), buffer = 4 * 1024 * 1024;

    assert_true(fd >= 0);
    if (type == SOCK_DGRAM)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 64), 0);
    len = sizeof sa;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    assert_true(ip_endpoint_from_sockaddr((struct sockaddr *)&sa, &endpoint));
    *ret_port = endpoint.port;
    return fd;
}

uint64_t counted(struct bench *bench, enum counter which)
{
    return counter_value(bench->counters, which);
}
