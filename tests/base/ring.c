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
#include <sched.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/ring.h"
#include "base/wake.h"

static bool readable(const struct culvert_wake *wake)
{
    struct pollfd pollfd = {.fd = culvert_wake_fd(wake), .events = POLLIN};
    return poll(&pollfd, 1, 0) == 1;
}

static struct culvert_frame *frame_with(uint64_t user)
{
    struct culvert_frame *frame = culvert_frame_new(0);
    frame->user = user;
    return frame;
}

static void push_number(struct culvert_ring *ring, uint64_t number)
{
    assert_true(culvert_ring_push(ring, frame_with(number)));
}

static void pop_number(struct culvert_ring *ring, uint64_t number)
{
    struct culvert_frame *frame = culvert_ring_pop(ring);
    assert_non_null(frame);
    assert_int_equal(frame->user, number);
    culvert_frame_unref(frame);
}

static void ring_of_no_capacity_is_refused(void **state)
{
    (void)state;
    struct culvert_ring ring;
    assert_int_equal(ring_init(&ring, 0, NULL), -EINVAL);
}

static void ring_of_capacity_one_alternates_full_and_empty(void **state)
{
    (void)state;
    struct culvert_ring ring;
    struct culvert_frame *extra = frame_with(99);
    assert_int_equal(ring_init(&ring, 1, NULL), 0);
    assert_int_equal(culvert_ring_capacity(&ring), 1);
    for (uint64_t i = 0; i < 100; i++) {
        assert_null(culvert_ring_pop(&ring));
        assert_int_equal(culvert_ring_len(&ring), 0);
        push_number(&ring, i);
        assert_int_equal(culvert_ring_len(&ring), 1);
        assert_false(culvert_ring_push(&ring, extra));
        assert_false(culvert_ring_push(&ring, extra));
        pop_number(&ring, i);
    }
    assert_int_equal(extra->refs, 1);
    culvert_frame_unref(extra);
    ring_fini(&ring);
}

static void any_capacity_holds_exactly_that_many_in_order(void **state)
{
    (void)state;
    static const size_t capacities[] = {1, 2, 3, 4, 5, 7, 8, 9, 1000};
    for (size_t c = 0; c < sizeof capacities / sizeof capacities[0]; c++) {
        struct culvert_ring ring;
        struct culvert_frame *extra = frame_with(0);
        uint64_t pushed = 0, popped = 0;
        assert_int_equal(ring_init(&ring, capacities[c], NULL), 0);
        for (size_t lap = 0; lap < 5; lap++) {
            while (pushed - popped < capacities[c])
                push_number(&ring, pushed++);
            assert_int_equal(culvert_ring_len(&ring), capacities[c]);
            assert_false(culvert_ring_push(&ring, extra));
            for (size_t i = 0; i < (capacities[c] + 1) / 2; i++)
                pop_number(&ring, popped++);
            assert_int_equal(culvert_ring_len(&ring), pushed - popped);
        }
        culvert_frame_unref(extra);
        ring_fini(&ring); /* with frames inside: the leak checker says whether they were released */
    }
}

static void the_pop_that_makes_room_signals_a_starved_producer_once(void **state)
{
    (void)state;
    struct culvert_wake wake;
    struct culvert_ring ring;
    struct culvert_frame *extra = frame_with(9);
    assert_int_equal(wake_init(&wake), 0);
    assert_int_equal(ring_init(&ring, 2, &wake), 0);
    push_number(&ring, 0);
    pop_number(&ring, 0);
    push_number(&ring, 1);
    push_number(&ring, 2);
    assert_false(readable(&wake));
    assert_false(culvert_ring_push(&ring, extra));
    assert_false(readable(&wake));
    pop_number(&ring, 1);
    assert_true(readable(&wake));
    culvert_wake_drain(&wake);
    pop_number(&ring, 2);
    assert_false(readable(&wake));
    culvert_frame_unref(extra);
    ring_fini(&ring);
    wake_fini(&wake);
}

/* ---- torture: many producers, many consumers */

enum { PRODUCERS = 3, CONSUMERS = 3, PER_PRODUCER = 5000 };

struct torture {
    struct culvert_ring ring;
    struct producer {
        struct torture *torture;
        uint64_t number;
        struct culvert_frame *frames;
    } producers[PRODUCERS];
    uint32_t seen[PRODUCERS][PER_PRODUCER];
    uint64_t popped, disorder;
};

static void *produce(void *arg)
{
    struct producer *producer = arg;
    for (uint64_t i = 0; i < PER_PRODUCER; i++) {
        struct culvert_frame *frame = &producer->frames[i];
        frame->refs = 1;
        frame->user = producer->number << 32 | i;
        while (!culvert_ring_push(&producer->torture->ring, frame))
            sched_yield();
    }
    return NULL;
}

static void *consume(void *arg)
{
    struct torture *t = arg;
    int64_t last[PRODUCERS];
    for (int i = 0; i < PRODUCERS; i++)
        last[i] = -1;
    while (__atomic_load_n(&t->popped, __ATOMIC_RELAXED) < PRODUCERS * PER_PRODUCER) {
        struct culvert_frame *frame = culvert_ring_pop(&t->ring);
        if (!frame) {
            sched_yield();
            continue;
        }
        uint64_t producer = frame->user >> 32, i = frame->user & UINT32_MAX;
        if ((int64_t)i <= last[producer])
            __atomic_fetch_add(&t->disorder, 1, __ATOMIC_RELAXED);
        last[producer] = (int64_t)i;
        __atomic_fetch_add(&t->seen[producer][i], 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&t->popped, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void nothing_is_lost_doubled_or_reordered(size_t capacity)
{
    struct torture *t = calloc(1, sizeof *t);
    pthread_t threads[PRODUCERS + CONSUMERS];
    assert_int_equal(ring_init(&t->ring, capacity, NULL), 0);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        t->producers[i] =
            (struct producer){t, i, calloc(PER_PRODUCER, sizeof(struct culvert_frame))};
        pthread_create(&threads[i], NULL, produce, &t->producers[i]);
    }
    for (unsigned i = 0; i < CONSUMERS; i++)
        pthread_create(&threads[PRODUCERS + i], NULL, consume, t);
    for (unsigned i = 0; i < PRODUCERS + CONSUMERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(t->disorder, 0);
    assert_int_equal(t->popped, PRODUCERS * PER_PRODUCER);
    assert_int_equal(culvert_ring_len(&t->ring), 0);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        for (unsigned j = 0; j < PER_PRODUCER; j++)
            assert_int_equal(t->seen[i][j], 1);
        free(t->producers[i].frames);
    }
    ring_fini(&t->ring);
    free(t);
}

static void many_threads_lose_nothing_at_capacity_1(void **state)
{
    (void)state;
    nothing_is_lost_doubled_or_reordered(1);
}

static void many_threads_lose_nothing_at_capacity_2(void **state)
{
    (void)state;
    nothing_is_lost_doubled_or_reordered(2);
}

static void many_threads_lose_nothing_at_capacity_3(void **state)
{
    (void)state;
    nothing_is_lost_doubled_or_reordered(3);
}

static void many_threads_lose_nothing_at_capacity_1000(void **state)
{
    (void)state;
    nothing_is_lost_doubled_or_reordered(1000);
}

/* ---- torture: both sides sleep on their wakes, so a wake-up lost is a test that hangs */

struct sleepers {
    struct culvert_ring ring;
    struct culvert_wake data_wake, space_wake;
    bool with_awake; /* the consumer says when it is awake */
    unsigned count;
    unsigned timeouts, disorder;
    struct culvert_frame *frames;
};

/* Generous: is reached only when a wake-up was lost. */
#define LOST_AFTER_MS 1500

static bool sleep_on(struct sleepers *s, struct culvert_wake *wake)
{
    struct pollfd pollfd = {.fd = culvert_wake_fd(wake), .events = POLLIN};
    if (poll(&pollfd, 1, LOST_AFTER_MS) == 1)
        return true;
    __atomic_fetch_add(&s->timeouts, 1, __ATOMIC_RELAXED);
    return false;
}

static void *produce_and_sleep(void *arg)
{
    struct sleepers *s = arg;
    for (unsigned i = 0; i < s->count; i++) {
        struct culvert_frame *frame = &s->frames[i];
        frame->user = i;
        frame->refs = 1;
        for (;;) {
            culvert_wake_drain(&s->space_wake);
            if (culvert_ring_push(&s->ring, frame))
                break;
            if (!sleep_on(s, &s->space_wake))
                return NULL;
        }
        culvert_wake_signal(&s->data_wake);
    }
    return NULL;
}

static unsigned pop_all(struct sleepers *s, unsigned expected)
{
    struct culvert_frame *frame;
    while ((frame = culvert_ring_pop(&s->ring)))
        s->disorder += frame->user != expected++;
    return expected;
}

static void *consume_and_sleep(void *arg)
{
    struct sleepers *s = arg;
    unsigned got = 0;
    for (;;) {
        culvert_wake_drain(&s->data_wake);
        if (s->with_awake)
            culvert_wake_awake(&s->data_wake);
        do
            got = pop_all(s, got);
        while (s->with_awake && culvert_wake_will_sleep(&s->data_wake));
        if (got == s->count || !sleep_on(s, &s->data_wake))
            return NULL;
    }
}

static void no_wakeup_is_lost(size_t capacity, bool with_awake, unsigned count)
{
    struct sleepers s = {.with_awake = with_awake, .count = count};
    pthread_t producer, consumer;
    s.frames = calloc(count, sizeof *s.frames);
    assert_int_equal(wake_init(&s.data_wake), 0);
    assert_int_equal(wake_init(&s.space_wake), 0);
    assert_int_equal(ring_init(&s.ring, capacity, &s.space_wake), 0);
    pthread_create(&producer, NULL, produce_and_sleep, &s);
    pthread_create(&consumer, NULL, consume_and_sleep, &s);
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
    assert_int_equal(s.timeouts, 0);
    assert_int_equal(s.disorder, 0);
    ring_fini(&s.ring);
    wake_fini(&s.data_wake);
    wake_fini(&s.space_wake);
    free(s.frames);
}

static void sleepers_are_always_woken_at_capacity_1(void **state)
{
    (void)state;
    no_wakeup_is_lost(1, false, 4000);
    no_wakeup_is_lost(1, true, 4000);
}

static void sleepers_are_always_woken_at_capacity_2(void **state)
{
    (void)state;
    no_wakeup_is_lost(2, false, 4000);
    no_wakeup_is_lost(2, true, 4000);
}

static void sleepers_are_always_woken_at_capacity_3(void **state)
{
    (void)state;
    no_wakeup_is_lost(3, false, 4000);
    no_wakeup_is_lost(3, true, 4000);
}

static void sleepers_are_always_woken_at_capacity_1000(void **state)
{
    (void)state;
    no_wakeup_is_lost(1000, false, 30000);
    no_wakeup_is_lost(1000, true, 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_of_no_capacity_is_refused),
        cmocka_unit_test(ring_of_capacity_one_alternates_full_and_empty),
        cmocka_unit_test(any_capacity_holds_exactly_that_many_in_order),
        cmocka_unit_test(the_pop_that_makes_room_signals_a_starved_producer_once),
        cmocka_unit_test(many_threads_lose_nothing_at_capacity_1),
        cmocka_unit_test(many_threads_lose_nothing_at_capacity_2),
        cmocka_unit_test(many_threads_lose_nothing_at_capacity_3),
        cmocka_unit_test(many_threads_lose_nothing_at_capacity_1000),
        cmocka_unit_test(sleepers_are_always_woken_at_capacity_1),
        cmocka_unit_test(sleepers_are_always_woken_at_capacity_2),
        cmocka_unit_test(sleepers_are_always_woken_at_capacity_3),
        cmocka_unit_test(sleepers_are_always_woken_at_capacity_1000),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
