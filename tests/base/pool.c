/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"

static struct pool *buffers_of(size_t capacity, size_t max, size_t keep)
{
    return pool_new(&(struct pool_config){.buffer_capacity = capacity, .max = max, .keep = keep});
}

static struct pool *frames_of(size_t linear, size_t max, size_t keep)
{
    return pool_new(&(struct pool_config){
        .linear_capacity = linear, .segment_capacity = 3, .max = max, .keep = keep});
}

static void a_taken_frame_is_fresh_every_time(void **state)
{
    (void)state;
    struct pool *pool = frames_of(256, 1, 1);
    for (int round = 0; round < 3; round++) {
        struct culvert_frame *frame = pool_take_frame(pool);
        assert_non_null(frame);
        assert_int_equal(frame->refs, 1);
        assert_int_equal(frame->len, 0);
        assert_int_equal(frame->capacity, 256);
        assert_int_equal(frame->segment_count, 0);
        assert_int_equal(frame->segment_capacity, 3);
        assert_int_equal(frame->offload.gso_size, 0);
        memset(frame->data, 1, 256);
        frame->data += 14;
        frame->len = 60;
        frame->offload.gso_size = 1460;
        struct culvert_buffer *buffer = culvert_buffer_new(10);
        assert_int_equal(culvert_frame_append(frame, buffer, buffer->data, 10), 0);
        culvert_buffer_unref(buffer);
        assert_int_equal(pool_in_use(pool), 1);
        culvert_frame_unref(frame);
        assert_int_equal(pool_in_use(pool), 0);
    }
    pool_free(pool);
}

static void no_more_than_max_exist(void **state)
{
    (void)state;
    struct pool *pool = buffers_of(2048, 3, 3);
    struct culvert_buffer *taken[3];
    for (int i = 0; i < 3; i++)
        assert_non_null(taken[i] = pool_take_buffer(pool));
    assert_null(pool_take_buffer(pool));
    culvert_buffer_unref(taken[1]);
    assert_non_null(taken[1] = pool_take_buffer(pool));
    for (int i = 0; i < 3; i++)
        culvert_buffer_unref(taken[i]);
    pool_free(pool);
}

static void what_exceeds_keep_goes_back_to_the_system(void **state)
{
    (void)state;
    struct pool *pool = buffers_of(65536, 8, 2);
    struct culvert_buffer *taken[8];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 8; i++) {
            assert_non_null(taken[i] = pool_take_buffer(pool));
            memset(taken[i]->data, i, taken[i]->capacity);
        }
        for (int i = 0; i < 8; i++)
            culvert_buffer_unref(taken[i]);
    }
    assert_int_equal(pool_in_use(pool), 0);
    pool_free(pool);
}

static void large_buffers_begin_in_different_cache_sets(void **state)
{
    (void)state;
    struct pool *pool = buffers_of(65536, 16, 16);
    struct culvert_buffer *taken[16];
    bool set_used[64] = {false};
    for (int i = 0; i < 16; i++) {
        taken[i] = pool_take_buffer(pool);
        size_t set = (uintptr_t)taken[i]->data / 64 % 64;
        assert_false(set_used[set]);
        set_used[set] = true;
    }
    for (int i = 0; i < 16; i++)
        culvert_buffer_unref(taken[i]);
    pool_free(pool);
}

static void *unref_buffer(void *buffer)
{
    return culvert_buffer_unref(buffer);
}

static void a_buffer_given_back_elsewhere_is_taken_again(void **state)
{
    (void)state;
    struct pool *pool = buffers_of(64, 1, 1);
    for (int round = 0; round < 3; round++) {
        struct culvert_buffer *buffer = pool_take_buffer(pool);
        assert_non_null(buffer);
        assert_null(pool_take_buffer(pool));
        pthread_t thread;
        pthread_create(&thread, NULL, unref_buffer, buffer);
        pthread_join(thread, NULL);
        assert_int_equal(pool_in_use(pool), 0);
    }
    pool_free(pool);
}

static void a_pool_outlives_its_free_until_the_last_object_is_home(void **state)
{
    (void)state;
    struct pool *pool = buffers_of(64, 4, 4);
    struct culvert_buffer *here = pool_take_buffer(pool), *there = pool_take_buffer(pool);
    culvert_buffer_unref(pool_take_buffer(pool));
    pool_free(pool);
    pthread_t thread;
    pthread_create(&thread, NULL, unref_buffer, there);
    memset(here->data, 1, here->capacity);
    culvert_buffer_unref(here);
    pthread_join(thread, NULL);
}

static void the_nth_take_fails_when_asked_to(void **state)
{
    (void)state;
    struct pool *pool = buffers_of(64, 4, 4);
    pool_set_test_mode(pool, true, 3);
    for (int i = 0; i < 2; i++) {
        struct culvert_buffer *buffer = pool_take_buffer(pool);
        assert_non_null(buffer);
        memset(buffer->data, 7, buffer->capacity);
        culvert_buffer_unref(buffer);
    }
    assert_null(pool_take_buffer(pool));
    assert_null(pool_take_buffer(pool));
    pool_free(pool);
}

/* The owner takes while two others give back, through a small mailbox. */
struct mailbox {
    struct culvert_buffer *slots[8];
    bool done;
};

static void *give_back_until_done(void *arg)
{
    struct mailbox *box = arg;
    while (!__atomic_load_n(&box->done, __ATOMIC_ACQUIRE)) {
        for (int i = 0; i < 8; i++)
            culvert_buffer_unref(__atomic_exchange_n(&box->slots[i], NULL, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

static void threads_give_back_while_the_owner_takes(void **state)
{
    (void)state;
    struct pool *pool = buffers_of(128, 32, 4);
    pool_set_test_mode(pool, true, 0);
    struct mailbox box = {0};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, give_back_until_done, &box);
    for (unsigned i = 0; i < 50000; i++) {
        struct culvert_buffer *buffer = pool_take_buffer(pool);
        if (!buffer)
            continue;
        memset(buffer->data, (int)i, buffer->capacity);
        culvert_buffer_unref(__atomic_exchange_n(&box.slots[i % 8], buffer, __ATOMIC_ACQ_REL));
    }
    pool_free(pool); /* with buffers still about */
    __atomic_store_n(&box.done, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 8; i++)
        culvert_buffer_unref(box.slots[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taken_frame_is_fresh_every_time),
        cmocka_unit_test(no_more_than_max_exist),
        cmocka_unit_test(what_exceeds_keep_goes_back_to_the_system),
        cmocka_unit_test(large_buffers_begin_in_different_cache_sets),
        cmocka_unit_test(a_buffer_given_back_elsewhere_is_taken_again),
        cmocka_unit_test(a_pool_outlives_its_free_until_the_last_object_is_home),
        cmocka_unit_test(the_nth_take_fails_when_asked_to),
        cmocka_unit_test(threads_give_back_while_the_owner_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
