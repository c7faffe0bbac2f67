/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include <culvert/shared_state.h>

static bool readable(const struct culvert_wake *wake)
{
    struct pollfd pollfd = {.fd = culvert_wake_fd(wake), .events = POLLIN};
    return poll(&pollfd, 1, 0) == 1;
}

static int setup(void **state)
{
    *state = culvert_shared_state_new(2);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    culvert_shared_state_free(*state);
    return 0;
}

static void capacity_zero_is_refused(void **state)
{
    (void)state;
    errno = 0;
    assert_null(culvert_shared_state_new(0));
    assert_int_equal(errno, EINVAL);
    culvert_shared_state_free(NULL);
}

static void fill(struct culvert_ring *ring)
{
    for (int i = 0; i < 2; i++)
        assert_true(culvert_ring_push(ring, culvert_frame_new(60)));
    struct culvert_frame *extra = culvert_frame_new(60);
    assert_false(culvert_ring_push(ring, extra));
    culvert_frame_free(extra);
}

static void a_starved_ring_wakes_its_producer(void **state)
{
    struct culvert_shared_state *shared = *state;
    fill(&shared->tx_ring);
    culvert_frame_free(culvert_ring_pop(&shared->tx_ring));
    assert_true(readable(&shared->rx_wake));
    assert_false(readable(&shared->tx_wake));
    culvert_wake_drain(&shared->rx_wake);
    fill(&shared->rx_ring);
    culvert_frame_free(culvert_ring_pop(&shared->rx_ring));
    assert_true(readable(&shared->tx_wake));
    assert_false(readable(&shared->rx_wake));
    assert_false(readable(&shared->proxy_wake));
}

static void the_link_starts_down_and_is_replaced_whole(void **state)
{
    struct culvert_shared_state *shared = *state;
    struct culvert_link link;
    culvert_shared_state_link(shared, &link);
    assert_false(link.up);
    assert_int_equal(link.generation, 0);
    struct culvert_link next = {.offloads = CULVERT_LINK_CSUM | CULVERT_LINK_TSO4,
                                .mtu = 65520,
                                .mac = {2, 1, 2, 3, 4, 5},
                                .up = true,
                                .generation = 77};
    culvert_shared_state_set_link(shared, &next);
    assert_true(readable(&shared->tx_wake));
    culvert_shared_state_link(shared, &link);
    assert_int_equal(link.offloads, next.offloads);
    assert_int_equal(link.mtu, 65520);
    assert_memory_equal(link.mac, next.mac, 6);
    assert_true(link.up);
    assert_int_equal(link.generation, 1);
    culvert_shared_state_set_link(shared, &next);
    culvert_shared_state_link(shared, &link);
    assert_int_equal(link.generation, 2);
}

static void *set_links(void *arg)
{
    for (uint32_t i = 0; i < 20000; i++) {
        struct culvert_link link = {.offloads = i, .mtu = i};
        memset(link.mac, (int)i, sizeof link.mac);
        culvert_shared_state_set_link(arg, &link);
    }
    return NULL;
}

static void a_reader_never_sees_half_a_link(void **state)
{
    struct culvert_shared_state *shared = *state;
    pthread_t writers[2];
    struct culvert_link link;
    uint32_t generation = 0;
    for (int i = 0; i < 2; i++)
        pthread_create(&writers[i], NULL, set_links, shared);
    while (generation < 40000) {
        culvert_shared_state_link(shared, &link);
        assert_int_equal(link.offloads, link.mtu);
        assert_int_equal(link.mac[0], link.mtu & 0xff);
        assert_int_equal(link.mac[5], link.mtu & 0xff);
        assert_true(link.generation >= generation);
        generation = link.generation;
    }
    for (int i = 0; i < 2; i++)
        pthread_join(writers[i], NULL);
}

static void count_call(void *arg)
{
    __atomic_fetch_add((unsigned *)arg, 1, __ATOMIC_RELAXED);
}

static void the_hook_is_installed_replaced_and_removed(void **state)
{
    struct culvert_shared_state *shared = *state;
    unsigned first = 0, second = 0;
    culvert_shared_state_trigger_termination(shared); /* none: no effect */
    culvert_shared_state_set_termination_hook(shared, count_call, &first);
    culvert_shared_state_trigger_termination(shared);
    culvert_shared_state_trigger_termination(shared);
    assert_int_equal(first, 2);
    culvert_shared_state_set_termination_hook(shared, count_call, &second);
    culvert_shared_state_trigger_termination(shared);
    assert_int_equal(first, 2);
    assert_int_equal(second, 1);
    culvert_shared_state_set_termination_hook(shared, NULL, NULL);
    culvert_shared_state_trigger_termination(shared);
    assert_int_equal(second, 1);
}

static void hook_that_uses_everything(void *arg)
{
    struct culvert_shared_state *shared = arg;
    struct culvert_link link = {.mtu = 1280};
    culvert_shared_state_set_termination_hook(shared, NULL, NULL);
    culvert_shared_state_trigger_termination(shared);
    culvert_shared_state_set_link(shared, &link);
    culvert_shared_state_link(shared, &link);
}

static void the_hook_may_call_anything(void **state)
{
    culvert_shared_state_set_termination_hook(*state, hook_that_uses_everything, *state);
    culvert_shared_state_trigger_termination(*state);
}

static void *trigger_a_thousand_times(void *arg)
{
    for (int i = 0; i < 1000; i++)
        culvert_shared_state_trigger_termination(arg);
    return NULL;
}

static void the_hook_is_triggered_from_any_thread(void **state)
{
    pthread_t threads[3];
    unsigned calls = 0;
    culvert_shared_state_set_termination_hook(*state, count_call, &calls);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, trigger_a_thousand_times, *state);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(calls, 3000);
}

static void bytes_are_counted_beyond_32_bits(void **state)
{
    struct culvert_shared_state *shared = *state;
    culvert_shared_state_add_tx_bytes(shared, 5);
    culvert_shared_state_add_tx_bytes(shared, UINT64_C(1) << 40);
    culvert_shared_state_add_rx_bytes(shared, 7);
    assert_true(culvert_shared_state_tx_bytes(shared) == (UINT64_C(1) << 40) + 5);
    assert_int_equal(culvert_shared_state_rx_bytes(shared), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capacity_zero_is_refused),
        cmocka_unit_test_setup_teardown(a_starved_ring_wakes_its_producer, setup, teardown),
        cmocka_unit_test_setup_teardown(the_link_starts_down_and_is_replaced_whole, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_reader_never_sees_half_a_link, setup, teardown),
        cmocka_unit_test_setup_teardown(the_hook_is_installed_replaced_and_removed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_hook_may_call_anything, setup, teardown),
        cmocka_unit_test_setup_teardown(the_hook_is_triggered_from_any_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_are_counted_beyond_32_bits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
