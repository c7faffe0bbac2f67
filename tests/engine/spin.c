/* SPDX-License-Identifier: Apache-2.0 */
/* When the poll thread may look again before it sleeps (engine/spin.h), on a clock of the test's.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/spin.h"

#define US     UINT64_C(1000)
#define LENGTH (50 * US)

struct thread {
    struct spin spin;
    uint64_t now, moved;
    uint64_t spun; /* ns, in all */
};

static struct thread thread_new(uint64_t length)
{
    struct thread t = {.now = 1000 * US};

    spin_init(&t.spin, length);
    return t;
}

/* A turn that moves `bytes`, and the wait until the next event, `wait` ns later. True: it spun, for
 * a while at least. */
static bool turn(struct thread *t, uint64_t bytes, uint64_t wait)
{
    uint64_t until = t->now + wait;
    bool spun = false;

    t->moved += bytes;
    while (spin_due(&t->spin, t->now, t->moved) && t->now < until) {
        spin_idle(&t->spin, t->now);
        t->now += US;
        t->spun += US;
        spun = true;
    }
    spin_idle(&t->spin, t->now);
    t->now = until;
    spin_met(&t->spin, t->now);
    return spun;
}

static bool turns(struct thread *t, unsigned n, uint64_t bytes, uint64_t wait)
{
    bool spun = false;

    while (n-- > 0)
        spun |= turn(t, bytes, wait);
    return spun;
}

static void events_that_come_soon_are_spun_for(void **state)
{
    struct thread t = thread_new(LENGTH);

    (void)state;
    assert_false(turn(&t, 100, 10 * US)); /* nothing is known yet */
    assert_true(turn(&t, 100, 10 * US));
}

static void without_a_length_there_is_no_spin(void **state)
{
    struct thread t = thread_new(0);

    (void)state;
    assert_false(turns(&t, 1000, 100, 10 * US));
}

static void events_that_lie_apart_are_slept_for(void **state)
{
    struct thread t = thread_new(LENGTH);

    (void)state;
    assert_false(turns(&t, 1000, 100, 300 * US));
}

static void a_conversation_that_ends_costs_a_few_spins(void **state)
{
    struct thread t = thread_new(LENGTH);

    (void)state;
    turns(&t, 100, 100, 10 * US);
    t.spun = 0;
    turns(&t, 1000, 100, 300 * US);
    assert_in_range(t.spun, 1, 5 * LENGTH);
}

static void now_and_then_a_quick_event_does_not_pay_for_spins(void **state)
{
    struct thread t = thread_new(LENGTH);

    (void)state;
    for (int i = 0; i < 1000; i++) {
        turns(&t, 4, 100, 300 * US);
        turn(&t, 100, 10 * US);
    }
    assert_true(t.spun < 300 * LENGTH);
}

static void a_bulk_transfer_sleeps(void **state)
{
    struct thread t = thread_new(LENGTH);

    (void)state;
    turns(&t, 100, 100, 10 * US);
    assert_false(turns(&t, 1000, 128 << 10, 10 * US));
    for (int i = 0; i < 1000; i++) { /* its acknowledgements are small, but no conversation */
        assert_false(turns(&t, 3, 66, 10 * US));
        assert_false(turn(&t, 64 << 10, 10 * US));
    }
    assert_true(turns(&t, 2 * SPIN_CREDIT_MAX, 66, 10 * US));
}

static void more_than_half_a_core_is_not_spent(void **state)
{
    struct thread t = thread_new(LENGTH);
    uint64_t begin = t.now;

    (void)state;
    turns(&t, 100000, 100, 40 * US);
    assert_in_range(t.spun, (t.now - begin) / 4, (t.now - begin) / 2 + SPIN_ALLOWANCE);
}

/* The thread yields, and somebody else has the core for `held`. */
static void crowd(struct thread *t, uint64_t held)
{
    turns(t, SPIN_CREDIT_MAX, 100, 10 * US);
    spin_idle(&t->spin, t->now);
    t->now += held;
    spin_yielded(&t->spin, t->now - held, t->now);
    spin_met(&t->spin, t->now);
}

/* How long it sleeps for what it spun for before. */
static uint64_t rest(struct thread *t)
{
    uint64_t begin = t->now;

    while (!turn(t, 100, 10 * US))
        ;
    return t->now - begin;
}

static void who_wants_the_core_gets_it(void **state)
{
    struct thread t = thread_new(LENGTH);
    uint64_t first, second;

    (void)state;
    crowd(&t, 3000 * US);
    first = rest(&t);
    assert_in_range(first, SPIN_REST_MIN, 2 * SPIN_REST_MIN);
    crowd(&t, 3000 * US);
    second = rest(&t);
    assert_true(second >= 2 * SPIN_REST_MIN);
    for (int i = 0; i < 10; i++) {
        crowd(&t, 3000 * US);
        second = rest(&t);
    }
    assert_in_range(second, SPIN_REST_MAX, SPIN_REST_MAX + SPIN_REST_MIN);

    turns(&t, 10, 100, SPIN_REST_MAX); /* the crowd has gone */
    turns(&t, SPIN_CREDIT_MAX, 100, 10 * US);
    crowd(&t, 3000 * US);
    assert_in_range(rest(&t), SPIN_REST_MIN, 2 * SPIN_REST_MIN);
}

static void who_wants_it_shortly_does_not_end_the_spins(void **state)
{
    struct thread t = thread_new(LENGTH);

    (void)state;
    crowd(&t, 20 * US);
    assert_true(turn(&t, 100, 10 * US));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_that_come_soon_are_spun_for),
        cmocka_unit_test(without_a_length_there_is_no_spin),
        cmocka_unit_test(events_that_lie_apart_are_slept_for),
        cmocka_unit_test(a_conversation_that_ends_costs_a_few_spins),
        cmocka_unit_test(now_and_then_a_quick_event_does_not_pay_for_spins),
        cmocka_unit_test(a_bulk_transfer_sleeps),
        cmocka_unit_test(more_than_half_a_core_is_not_spent),
        cmocka_unit_test(who_wants_the_core_gets_it),
        cmocka_unit_test(who_wants_it_shortly_does_not_end_the_spins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
