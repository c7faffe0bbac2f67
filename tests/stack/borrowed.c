/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of frames that the guest can still change (culvert_frame.borrowed): what stays queued is
 * copied, and so is what somebody is going to judge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* behind the above */
#include <cmocka.h>

#include "stack/tcp_internal.h"

#define LEN 40000u

struct bench {
    struct timers *timers;
    struct counters counters;
    struct stack *stack;
    struct tcp *tcp;
};

static int no_send(void *ctx, struct culvert_frame *frame)
{
    (void)ctx;
    culvert_frame_unref(frame);
    return 0;
}

static struct bench *bench_new(void)
{
    static const struct stack_ops ops = {.send = no_send};
    const struct stack_config config = {.mtu = 1500,
                                        .guest4 = ip_address_v4(0x0a000264),
                                        .gateway4 = ip_address_v4(0x0a000202),
                                        .dns4 = ip_address_v4(0x0a000203),
                                        .prefix4 = 24,
                                        .max_flows = 16};
    struct bench *b = calloc(1, sizeof *b);

    assert_non_null(b);
    b->timers = timers_new(NULL, 0);
    b->stack = stack_new(&config, &ops, NULL, b->timers, &b->counters, 0);
    assert_non_null(b->stack);
    b->tcp = b->stack->tcp;
    return b;
}

static void bench_free(struct bench *b)
{
    stack_free(b->stack);
    timers_free(b->timers);
    free(b);
}

/* A frame all of whose bytes lie in one buffer, filled with `value`. */
static struct culvert_frame *frame_of(uint8_t value, bool borrowed)
{
    struct culvert_buffer *buffer = culvert_buffer_new(LEN);
    struct culvert_frame *frame = culvert_frame_new(64);

    assert_non_null(buffer);
    assert_non_null(frame);
    memset(buffer->data, value, LEN);
    assert_int_equal(culvert_frame_append(frame, buffer, buffer->data, LEN), 0);
    culvert_buffer_unref(buffer);
    frame->borrowed = borrowed;
    return frame;
}

static void assert_queue_is(const struct tcp_queue *queue, uint8_t value, uint32_t len)
{
    uint32_t seq = queue->head->seq, total = 0;

    for (const struct tcp_chunk *chunk = queue->head; chunk; chunk = chunk->next) {
        assert_int_equal(chunk->seq, seq + total);
        for (uint32_t i = 0; i < chunk->len; i++)
            assert_int_equal(chunk->base[i], value);
        total += chunk->len;
    }
    assert_int_equal(total, len);
    assert_int_equal(queue->bytes, len);
}

static void what_stays_queued_is_copied(void **state)
{
    struct bench *b = bench_new();
    struct tcp_queue queue = {0};
    struct culvert_frame *frame = frame_of(7, true);

    (void)state;
    assert_true(tcp_queue_append_frame(b->tcp, &queue, 100, frame, 0, LEN));
    tcp_queue_compact(b->tcp, &queue);
    assert_int_equal(frame->refs, 1); /* the descriptors are the guest's again */
    memset(frame->segments[0].base, 9, LEN);
    assert_queue_is(&queue, 7, LEN);
    tcp_queue_clear(b->tcp, &queue);
    culvert_frame_unref(frame);
    bench_free(b);
}

static void other_large_frames_are_not(void **state)
{
    struct bench *b = bench_new();
    struct tcp_queue queue = {0};
    struct culvert_frame *frame = frame_of(7, false);

    (void)state;
    assert_true(tcp_queue_append_frame(b->tcp, &queue, 100, frame, 0, LEN));
    tcp_queue_compact(b->tcp, &queue);
    assert_int_equal(frame->refs, 2);
    assert_true(tcp_queue_make_private(b->tcp, &queue));
    assert_int_equal(frame->refs, 2);
    tcp_queue_clear(b->tcp, &queue);
    culvert_frame_unref(frame);
    bench_free(b);
}

static void what_is_judged_cannot_change_any_more(void **state)
{
    struct bench *b = bench_new();
    struct tcp_queue queue = {0};
    struct culvert_frame *frame = frame_of(7, true);

    (void)state;
    assert_true(tcp_queue_append_frame(b->tcp, &queue, 100, frame, 10, 5000));
    assert_true(tcp_queue_append_frame(b->tcp, &queue, 5100, frame, 5010, 300));
    assert_true(tcp_queue_make_private(b->tcp, &queue));
    memset(frame->segments[0].base, 9, LEN);
    assert_queue_is(&queue, 7, 5300);
    tcp_queue_clear(b->tcp, &queue);
    culvert_frame_unref(frame);
    bench_free(b);
}

static void without_memory_it_is_said_to_be_changeable(void **state)
{
    struct bench *b = bench_new();
    struct tcp_queue queue = {0};
    struct culvert_frame *frame = frame_of(7, true);

    (void)state;
    assert_true(tcp_queue_append_frame(b->tcp, &queue, 100, frame, 0, LEN));
    pool_set_test_mode(b->tcp->small, false, 3);
    assert_false(tcp_queue_make_private(b->tcp, &queue));
    assert_queue_is(&queue, 7, LEN);
    tcp_queue_clear(b->tcp, &queue);
    culvert_frame_unref(frame);
    bench_free(b);
}

static void frame_in_many_pieces_is_queued_whole(void **state)
{
    struct bench *b = bench_new();
    struct tcp_queue queue = {0};
    struct culvert_frame *frame = culvert_frame_new(64), *piece = frame_of(7, true);
    struct culvert_segment segments[20];

    (void)state;
    frame->segments = segments; /* as many as a vhost-user frame may have */
    frame->segment_capacity = 20;
    frame->borrowed = true;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(culvert_frame_append(frame, piece->segments[0].buffer,
                                              piece->segments[0].base + i * 100, 90),
                         0);
    assert_true(tcp_queue_append_frame(b->tcp, &queue, 100, frame, 0, 1800));
    assert_true(tcp_queue_make_private(b->tcp, &queue));
    assert_queue_is(&queue, 7, 1800);
    tcp_queue_clear(b->tcp, &queue);
    culvert_frame_unref(frame);
    culvert_frame_unref(piece);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stays_queued_is_copied),
        cmocka_unit_test(other_large_frames_are_not),
        cmocka_unit_test(what_is_judged_cannot_change_any_more),
        cmocka_unit_test(without_memory_it_is_said_to_be_changeable),
        cmocka_unit_test(frame_in_many_pieces_is_queued_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
