/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/eventfd.h>

#include "base/wake.h"

static bool readable(const struct culvert_wake *wake)
{
    struct pollfd pollfd = {.fd = culvert_wake_fd(wake), .events = POLLIN};
    return poll(&pollfd, 1, 0) == 1;
}

static int setup(void **state)
{
    static struct culvert_wake wake;
    *state = &wake;
    return wake_init(&wake);
}

static int teardown(void **state)
{
    wake_fini(*state);
    wake_fini(*state); /* once more is harmless */
    return 0;
}

static void a_signal_makes_it_readable_until_drained(void **state)
{
    struct culvert_wake *wake = *state;
    assert_false(readable(wake));
    culvert_wake_signal(wake);
    assert_true(readable(wake));
    assert_true(readable(wake));
    culvert_wake_drain(wake);
    assert_false(readable(wake));
    culvert_wake_drain(wake);
    culvert_wake_signal(wake);
    assert_true(readable(wake));
}

static void signals_coalesce_into_one_write(void **state)
{
    struct culvert_wake *wake = *state;
    eventfd_t writes;
    for (int i = 0; i < 100; i++)
        culvert_wake_signal(wake);
    assert_int_equal(eventfd_read(culvert_wake_fd(wake), &writes), 0);
    assert_int_equal(writes, 1);
}

static void an_awake_consumer_costs_no_write_and_is_told_before_it_sleeps(void **state)
{
    struct culvert_wake *wake = *state;
    culvert_wake_awake(wake);
    culvert_wake_signal(wake);
    culvert_wake_signal(wake);
    assert_false(readable(wake));
    assert_int_not_equal(culvert_wake_will_sleep(wake), 0);
    /* still awake: the promise holds until will_sleep() says 0 */
    culvert_wake_signal(wake);
    assert_false(readable(wake));
    assert_int_not_equal(culvert_wake_will_sleep(wake), 0);
    assert_int_equal(culvert_wake_will_sleep(wake), 0);
    culvert_wake_signal(wake);
    assert_true(readable(wake));
}

static void will_sleep_without_awake_tells_of_a_pending_signal(void **state)
{
    struct culvert_wake *wake = *state;
    assert_int_equal(culvert_wake_will_sleep(wake), 0);
    culvert_wake_signal(wake);
    assert_int_not_equal(culvert_wake_will_sleep(wake), 0);
    assert_int_equal(culvert_wake_will_sleep(wake), 0);
    culvert_wake_signal(wake);
    assert_true(readable(wake));
}

static void a_drain_while_awake_forgets_the_signal_only(void **state)
{
    struct culvert_wake *wake = *state;
    culvert_wake_awake(wake);
    culvert_wake_signal(wake);
    culvert_wake_drain(wake);
    culvert_wake_signal(wake);
    assert_false(readable(wake));
    assert_int_not_equal(culvert_wake_will_sleep(wake), 0);
    assert_int_equal(culvert_wake_will_sleep(wake), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_signal_makes_it_readable_until_drained, setup, teardown),
        cmocka_unit_test_setup_teardown(signals_coalesce_into_one_write, setup, teardown),
        cmocka_unit_test_setup_teardown(
            an_awake_consumer_costs_no_write_and_is_told_before_it_sleeps, setup, teardown),
        cmocka_unit_test_setup_teardown(will_sleep_without_awake_tells_of_a_pending_signal, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_drain_while_awake_forgets_the_signal_only, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
