/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

struct seen {
    unsigned calls;
    uint32_t index, generation, events;
};

static void note(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct seen *seen = ctx;
    *seen = (struct seen){seen->calls + 1, index, generation, events};
}

static void an_event_names_handler_index_and_generation(void **state)
{
    (void)state;
    struct loop loop;
    struct seen first = {0}, second = {0};
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(loop_init(&loop), 0);
    loop_add_handler(&loop, note, &first);
    unsigned handler = loop_add_handler(&loop, note, &second);
    assert_int_equal(loop_add(&loop, fds[0], EPOLLIN, handler, UINT32_MAX, LOOP_GENERATION_MAX), 0);
    assert_int_equal(loop_wait(&loop, 0, 0), 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(loop_wait(&loop, 0, UINT64_MAX), 1);
    assert_int_equal(first.calls, 0);
    assert_int_equal(second.calls, 1);
    assert_int_equal(second.index, UINT32_MAX);
    assert_int_equal(second.generation, LOOP_GENERATION_MAX);
    assert_int_equal(second.events, EPOLLIN);

    assert_int_equal(loop_modify(&loop, fds[0], EPOLLIN, 0, 7, 9), 0);
    assert_int_equal(loop_wait(&loop, 0, UINT64_MAX), 1);
    assert_int_equal(first.index, 7);
    assert_int_equal(first.generation, 9);

    loop_remove(&loop, fds[0]);
    assert_int_equal(loop_wait(&loop, 0, 0), 0);
    close(fds[0]);
    close(fds[1]);
    loop_fini(&loop);
}

struct wakings {
    unsigned wakings, events, events_before_waking;
};

static void count_waking(void *ctx)
{
    ((struct wakings *)ctx)->wakings++;
}

static void count_event(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct wakings *seen = ctx;
    (void)index, (void)generation, (void)events;
    seen->events++;
    seen->events_before_waking += seen->wakings == 0;
}

static void a_wait_that_brought_events_tells_before_their_handlers(void **state)
{
    (void)state;
    struct loop loop;
    struct wakings seen = {0};
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(loop_init(&loop), 0);
    loop.woken = count_waking;
    loop.woken_ctx = &seen;
    unsigned handler = loop_add_handler(&loop, count_event, &seen);
    assert_int_equal(loop_add(&loop, fds[0], EPOLLIN, handler, 0, 0), 0);
    assert_int_equal(loop_wait(&loop, 0, 0), 0);
    assert_int_equal(seen.wakings, 0);
    assert_int_equal(loop_add(&loop, fds[1], EPOLLOUT, handler, 1, 0), 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(loop_wait(&loop, 0, UINT64_MAX), 2);
    assert_int_equal(seen.wakings, 1);
    assert_int_equal(seen.events, 2);
    assert_int_equal(seen.events_before_waking, 0);
    close(fds[0]);
    close(fds[1]);
    loop_fini(&loop);
}

static void sleep_one_ms(struct loop *loop)
{
    uint64_t start = clock_now();
    assert_int_equal(loop_wait(loop, start, start + 1000000), 0);
    assert_true(clock_now() >= start + 1000000);
}

static void a_wait_ends_at_its_deadline_and_not_before(void **state)
{
    (void)state;
    struct loop loop;
    assert_int_equal(loop_init(&loop), 0);
    sleep_one_ms(&loop);
    loop.only_ms = true; /* as on a kernel without epoll_pwait2() */
    sleep_one_ms(&loop);
    loop_fini(&loop);
}

static void a_bad_descriptor_is_an_error_not_a_crash(void **state)
{
    (void)state;
    struct loop loop;
    struct seen seen = {0};
    assert_int_equal(loop_init(&loop), 0);
    unsigned handler = loop_add_handler(&loop, note, &seen);
    assert_int_equal(loop_add(&loop, -1, EPOLLIN, handler, 0, 0), -EBADF);
    loop_remove(&loop, -1);
    loop_fini(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_names_handler_index_and_generation),
        cmocka_unit_test(a_wait_that_brought_events_tells_before_their_handlers),
        cmocka_unit_test(a_wait_ends_at_its_deadline_and_not_before),
        cmocka_unit_test(a_bad_descriptor_is_an_error_not_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
