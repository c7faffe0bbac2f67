/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <stdlib.h>

#include "base/timers.h"

struct fixture {
    struct timers *timers;
    uint64_t now;
    unsigned fired;
};

struct alarm {
    struct timer timer;
    unsigned fired;
    struct alarm *cancels, *arms;
    uint64_t arms_at;
};

static void ring(void *arg, struct timer *timer, uint64_t now)
{
    struct fixture *f = arg;
    struct alarm *alarm = (struct alarm *)timer;
    assert_false(timer_armed(timer));
    assert_true(now >= timer->deadline);
    alarm->fired++;
    f->fired++;
    if (alarm->cancels)
        timer_cancel(f->timers, &alarm->cancels->timer);
    if (alarm->arms)
        timer_arm(f->timers, &alarm->arms->timer, alarm->arms_at);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->now = 12345678901;
    f->timers = timers_new(f, f->now);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    timers_free(f->timers);
    free(f);
    return 0;
}

static void nothing_armed_means_never(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(timers_next(f->timers), TIMERS_NEVER);
    timers_expire(f->timers, UINT64_MAX);
    assert_int_equal(f->fired, 0);
}

static void a_timer_fires_once_and_not_early(void **state)
{
    struct fixture *f = *state;
    struct alarm a = {0};
    timer_init(&a.timer, ring);
    assert_false(timer_armed(&a.timer));
    timer_arm(f->timers, &a.timer, f->now + 5 * MS_NS);
    assert_true(timer_armed(&a.timer));
    timers_expire(f->timers, f->now + 5 * MS_NS - 1);
    assert_int_equal(a.fired, 0);
    timers_expire(f->timers, f->now + 5 * MS_NS);
    timers_expire(f->timers, f->now + 500 * MS_NS);
    assert_int_equal(a.fired, 1);
    assert_int_equal(timers_next(f->timers), TIMERS_NEVER);
}

static void a_distant_timer_costs_one_wakeup(void **state)
{
    struct fixture *f = *state;
    static const uint64_t delays[] = {1, MS_NS, 33 * MS_NS, 30 * SECOND_NS, 7 * 86400 * SECOND_NS};
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        struct alarm a = {0};
        timer_init(&a.timer, ring);
        uint64_t deadline = f->now + delays[i];
        timer_arm(f->timers, &a.timer, deadline);
        uint64_t next = timers_next(f->timers);
        assert_in_range(next, deadline, deadline + TIMERS_SLACK);
        timers_expire(f->timers, next);
        assert_int_equal(a.fired, 1);
        f->now = next;
    }
}

static void a_cancelled_timer_leaves_no_wakeup_behind(void **state)
{
    struct fixture *f = *state;
    struct alarm early = {0}, late = {0};
    timer_init(&early.timer, ring);
    timer_init(&late.timer, ring);
    timer_arm(f->timers, &late.timer, f->now + 60 * SECOND_NS);
    timer_arm(f->timers, &early.timer, f->now + SECOND_NS);
    timer_cancel(f->timers, &early.timer);
    timer_cancel(f->timers, &early.timer);
    assert_true(timers_next(f->timers) >= f->now + 60 * SECOND_NS);
    timers_expire(f->timers, f->now + 59 * SECOND_NS);
    assert_int_equal(f->fired, 0);
    timer_cancel(f->timers, &late.timer);
    assert_int_equal(timers_next(f->timers), TIMERS_NEVER);
}

static void arming_an_armed_timer_moves_it(void **state)
{
    struct fixture *f = *state;
    struct alarm a = {0};
    timer_init(&a.timer, ring);
    timer_arm(f->timers, &a.timer, f->now + 10 * MS_NS);
    timer_arm(f->timers, &a.timer, f->now + 90 * MS_NS);
    timers_expire(f->timers, f->now + 80 * MS_NS);
    assert_int_equal(a.fired, 0);
    timer_arm(f->timers, &a.timer, f->now + 81 * MS_NS);
    timers_expire(f->timers, f->now + 82 * MS_NS);
    assert_int_equal(a.fired, 1);
}

static void a_deadline_in_the_past_fires_at_the_next_call(void **state)
{
    struct fixture *f = *state;
    struct alarm a = {0};
    timer_init(&a.timer, ring);
    timers_expire(f->timers, f->now);
    timer_arm(f->timers, &a.timer, 1);
    assert_true(timers_next(f->timers) <= f->now);
    timers_expire(f->timers, f->now);
    assert_int_equal(a.fired, 1);
}

static void a_timer_armed_by_a_callback_waits_for_the_next_call(void **state)
{
    struct fixture *f = *state;
    struct alarm a = {0}, b = {0};
    timer_init(&a.timer, ring);
    timer_init(&b.timer, ring);
    a.arms = &a;
    a.arms_at = f->now;
    timer_arm(f->timers, &a.timer, f->now);
    timer_arm(f->timers, &b.timer, f->now);
    timers_expire(f->timers, f->now);
    assert_int_equal(a.fired, 1);
    assert_int_equal(b.fired, 1);
    assert_true(timer_armed(&a.timer));
    timers_expire(f->timers, f->now);
    assert_int_equal(a.fired, 2);
}

static void a_callback_cancels_another_due_timer(void **state)
{
    struct fixture *f = *state;
    struct alarm a = {0}, b = {0}, c = {0};
    timer_init(&a.timer, ring);
    timer_init(&b.timer, ring);
    timer_init(&c.timer, ring);
    a.cancels = &b;
    timer_arm(f->timers, &a.timer, f->now + 1);
    timer_arm(f->timers, &b.timer, f->now + 2);
    timer_arm(f->timers, &c.timer, f->now + 3);
    timers_expire(f->timers, f->now + 10);
    assert_int_equal(a.fired, 1);
    assert_int_equal(b.fired, 0);
    assert_int_equal(c.fired, 1);
    assert_false(timer_armed(&b.timer));
}

static void a_callback_moves_another_due_timer(void **state)
{
    struct fixture *f = *state;
    struct alarm a = {0}, b = {0};
    timer_init(&a.timer, ring);
    timer_init(&b.timer, ring);
    a.arms = &b;
    a.arms_at = f->now + SECOND_NS;
    timer_arm(f->timers, &a.timer, f->now + 1);
    timer_arm(f->timers, &b.timer, f->now + 2);
    timers_expire(f->timers, f->now + 10);
    assert_int_equal(b.fired, 0);
    assert_true(timer_armed(&b.timer));
    timers_expire(f->timers, f->now + SECOND_NS);
    assert_int_equal(b.fired, 1);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Against a plain array: whatever is armed, moved and cancelled, the same timers fire. */
static void random_operations_agree_with_an_array(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 400, STEPS = 40000 };
    static struct alarm alarms[COUNT];
    static uint64_t expected[COUNT]; /* deadline, 0: not armed */
    uint64_t seed = 88172645463325252;

    for (size_t i = 0; i < COUNT; i++)
        timer_init(&alarms[i].timer, ring);
    for (unsigned step = 0; step < STEPS; step++) {
        size_t i = next_random(&seed) % COUNT;
        switch (next_random(&seed) % 8) {
        case 0:
            timer_cancel(f->timers, &alarms[i].timer);
            expected[i] = 0;
            break;
        case 1:
            f->now += next_random(&seed) % (20 * MS_NS);
            unsigned before = f->fired, due = 0;
            for (size_t j = 0; j < COUNT; j++) {
                due += expected[j] && expected[j] <= f->now;
                expected[j] = expected[j] > f->now ? expected[j] : 0;
            }
            timers_expire(f->timers, f->now);
            assert_int_equal(f->fired - before, due);
            break;
        default:
            expected[i] = f->now + 1 + next_random(&seed) % (UINT64_C(1) << (step % 34));
            timer_arm(f->timers, &alarms[i].timer, expected[i]);
        }
        assert_int_equal(timer_armed(&alarms[i].timer), expected[i] != 0);
        uint64_t first = TIMERS_NEVER;
        for (size_t j = 0; step % 16 == 0 && j < COUNT; j++)
            first = expected[j] && expected[j] < first ? expected[j] : first;
        if (step % 16 == 0 && first != TIMERS_NEVER)
            assert_in_range(timers_next(f->timers), first, first + TIMERS_SLACK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_armed_means_never, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_fires_once_and_not_early, setup, teardown),
        cmocka_unit_test_setup_teardown(a_distant_timer_costs_one_wakeup, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_timer_leaves_no_wakeup_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(arming_an_armed_timer_moves_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deadline_in_the_past_fires_at_the_next_call, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_timer_armed_by_a_callback_waits_for_the_next_call, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_callback_cancels_another_due_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_callback_moves_another_due_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(random_operations_agree_with_an_array, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
