/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/udp_flows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct timers *timers;
static struct udp_flows flows;
static unsigned impatient_count;

static void impatient(void *arg, struct timer *timer, uint64_t now)
{
    struct udp_flow *flow = list_entry(timer, struct udp_flow, patience);

    (void)arg, (void)now;
    impatient_count++;
    udp_flows_remove(&flows, flow);
}

static int begin(void **state)
{
    static const uint64_t key[2] = {1, 2};

    (void)state;
    impatient_count = 0;
    timers = timers_new(NULL, 0);
    return timers ? udp_flows_init(&flows, timers, key) : -1;
}

static int end(void **state)
{
    (void)state;
    udp_flows_fini(&flows);
    assert_int_equal(flows.count, 0);
    assert_int_equal(flows.bytes, 0);
    assert_true(timers_next(timers) == TIMERS_NEVER);
    timers_free(timers);
    return 0;
}

static struct flow_key key_of(unsigned number)
{
    return (struct flow_key){.guest = ip_address_v4(1),
                             .remote = ip_address_v4(2 + number / 50000),
                             .guest_port = (uint16_t)(1 + number % 50000),
                             .remote_port = 443,
                             .protocol = 17};
}

static struct udp_flow *add(unsigned number)
{
    const struct flow_key key = key_of(number);
    struct udp_flow *flow = udp_flows_add(&flows, &key, impatient);

    assert_non_null(flow);
    return flow;
}

static void hold(struct udp_flow *flow, size_t len)
{
    struct udp_datagram datagram = {.key = flow->key, .frame = culvert_frame_new(len)};

    assert_non_null(datagram.frame);
    datagram.frame->len = len;
    assert_int_equal(udp_flow_hold(&flows, flow, &datagram, 3 * SECOND_NS), 0);
}

static struct udp_flow *find(unsigned number)
{
    const struct flow_key key = key_of(number);

    return udp_flows_find(&flows, &key);
}

static void a_flow_is_found_until_it_is_removed(void **state)
{
    struct udp_flow *many[3000];

    (void)state;
    assert_null(find(0));
    for (unsigned i = 0; i < 3000; i++)
        many[i] = add(i);
    for (unsigned i = 0; i < 3000; i++)
        assert_ptr_equal(find(i), many[i]);
    for (unsigned i = 0; i < 3000; i += 2)
        udp_flows_remove(&flows, many[i]);
    for (unsigned i = 0; i < 3000; i++)
        assert_ptr_equal(find(i), i % 2 ? many[i] : NULL);
}

static void what_is_held_comes_out_in_order(void **state)
{
    struct udp_flow *flow = add(0);
    struct udp_held *held;

    (void)state;
    for (size_t i = 1; i <= 5; i++)
        hold(flow, i);
    assert_int_equal(flows.pending_count, 1);
    assert_true(flows.bytes > 15);
    held = udp_flow_take_held(&flows, flow);
    assert_int_equal(flows.bytes, 0);
    for (size_t i = 1; i <= 5; i++) {
        assert_int_equal(held->datagram.frame->len, i);
        held = udp_held_free(held);
    }
    assert_null(held);
    assert_null(udp_flow_take_held(&flows, flow));
    assert_int_equal(flows.pending_count, 0);
    assert_true(timers_next(timers) == TIMERS_NEVER); /* nobody waits */
}

static void patience_is_counted_from_the_first_datagram(void **state)
{
    struct udp_flow *flow = add(0);

    (void)state;
    hold(flow, 10);
    timers_expire(timers, 2 * SECOND_NS);
    hold(flow, 10);
    assert_int_equal(impatient_count, 0);
    timers_expire(timers, 3 * SECOND_NS + 2 * TIMERS_SLACK);
    assert_int_equal(impatient_count, 1);
    assert_null(find(0));
}

static void beyond_a_bound_the_oldest_gives_way(void **state)
{
    struct udp_flow *first = add(0), *second = add(1), *last = second;

    (void)state;
    for (unsigned i = 2; i < UDP_FLOWS_MAX; i++)
        last = add(i);
    assert_null(udp_flows_excess(&flows, last));
    last = add(UDP_FLOWS_MAX);
    assert_ptr_equal(udp_flows_excess(&flows, last), first);
    assert_ptr_equal(udp_flows_excess(&flows, first), second);
    udp_flows_touch(&flows, first); /* it was used */
    assert_ptr_equal(udp_flows_excess(&flows, last), second);
    udp_flows_remove(&flows, second);
    assert_null(udp_flows_excess(&flows, last));
}

static void of_those_that_wait_the_one_that_waits_longest_gives_way(void **state)
{
    struct udp_flow *idle = add(0), *first = add(1), *last = first;

    (void)state;
    hold(first, 10);
    for (unsigned i = 1; i <= UDP_FLOWS_PENDING; i++) {
        assert_null(udp_flows_excess(&flows, last));
        hold(last = add(1 + i), 10);
    }
    udp_flows_touch(&flows, first);
    assert_ptr_equal(udp_flows_excess(&flows, last), first);
    udp_flows_remove(&flows, first);
    assert_null(udp_flows_excess(&flows, last));
    assert_ptr_equal(find(0), idle);
}

static void bytes_are_bounded_too(void **state)
{
    struct udp_flow *idle = add(0), *large = add(1);

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        hold(large, UDP_FLOWS_BYTES / 10);
    assert_ptr_equal(udp_flows_excess(&flows, large), idle);
    udp_flows_remove(&flows, idle);
    assert_null(udp_flows_excess(&flows, large)); /* there is nobody else */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(a_flow_is_found_until_it_is_removed),
        TEST(what_is_held_comes_out_in_order),
        TEST(patience_is_counted_from_the_first_datagram),
        TEST(beyond_a_bound_the_oldest_gives_way),
        TEST(of_those_that_wait_the_one_that_waits_longest_gives_way),
        TEST(bytes_are_bounded_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
