/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include <culvert/frame.h>

static size_t released;

static void count_release(struct culvert_buffer *buffer, void *arg)
{
    (void)buffer;
    ++*(size_t *)arg;
}

static void check_bytes(const struct culvert_frame *frame, size_t offset, size_t len,
                        const char *expected)
{
    struct iovec iov[8];
    char bytes[64];
    size_t n = culvert_frame_slice(frame, offset, len, iov, 8), at = 0;
    assert_true(n <= 8);
    for (size_t i = 0; i < n; i++) {
        assert_true(iov[i].iov_len > 0);
        memcpy(bytes + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    assert_int_equal(at, strlen(expected));
    assert_memory_equal(bytes, expected, at);
}

static struct culvert_frame *hello_world(struct culvert_buffer *buffer)
{
    struct culvert_frame *frame = culvert_frame_new(16);
    memcpy(frame->data, "hello", 5);
    frame->len = 5;
    assert_int_equal(culvert_frame_append(frame, buffer, buffer->data, 2), 0);
    assert_int_equal(culvert_frame_append(frame, buffer, buffer->data + 2, 0), 0);
    assert_int_equal(culvert_frame_append(frame, buffer, buffer->data + 2, 4), 0);
    return frame;
}

static void a_slice_shows_exactly_its_bytes_wherever_it_begins(void **state)
{
    (void)state;
    struct culvert_buffer *buffer = culvert_buffer_new(8);
    memcpy(buffer->data, ", worl", 6);
    struct culvert_frame *frame = hello_world(buffer);
    const char *whole = "hello, worl";
    assert_int_equal(culvert_frame_len(frame), strlen(whole));
    for (size_t offset = 0; offset <= strlen(whole) + 1; offset++) {
        for (size_t len = 0; len <= strlen(whole) + 1; len++) {
            char expected[16] = "";
            if (offset < strlen(whole))
                strncpy(expected, whole + offset, len < 15 ? len : 15);
            check_bytes(frame, offset, len, expected);
        }
    }
    check_bytes(frame, 0, SIZE_MAX, whole);
    culvert_frame_free(frame);
    culvert_buffer_unref(buffer);
}

static void a_view_that_does_not_fit_says_how_much_it_needs(void **state)
{
    (void)state;
    struct culvert_buffer *buffer = culvert_buffer_new(8);
    struct culvert_frame *frame = hello_world(buffer);
    struct iovec iov[2] = {0};
    assert_int_equal(culvert_frame_iov(frame, iov, 1), 3);
    assert_int_equal(iov[0].iov_len, 5);
    assert_null(iov[1].iov_base);
    assert_int_equal(culvert_frame_iov(frame, NULL, 0), 3);
    culvert_frame_free(frame);
    culvert_buffer_unref(buffer);
}

static void a_buffer_is_released_with_its_last_reference(void **state)
{
    (void)state;
    struct culvert_buffer buffer = {.data = (uint8_t *)"abc",
                                    .capacity = 3,
                                    .refs = 1,
                                    .release = count_release,
                                    .release_arg = &released};
    released = 0;
    struct culvert_frame *first = culvert_frame_new(0), *second = culvert_frame_new(0);
    culvert_frame_append(first, &buffer, buffer.data, 3);
    culvert_frame_append(second, &buffer, buffer.data, 3);
    culvert_buffer_unref(&buffer);
    assert_ptr_equal(culvert_frame_ref(first), first);
    assert_null(culvert_frame_unref(first));
    assert_null(culvert_frame_unref(first));
    assert_int_equal(released, 0);
    assert_null(culvert_frame_unref(second));
    assert_int_equal(released, 1);
}

static void a_frame_takes_as_many_segments_as_it_has_room_for(void **state)
{
    (void)state;
    struct culvert_buffer *buffer = culvert_buffer_new(1);
    struct culvert_frame *frame = culvert_frame_new(0);
    for (int i = 0; i < frame->segment_capacity; i++)
        assert_int_equal(culvert_frame_append(frame, buffer, buffer->data, 1), 0);
    assert_int_equal(culvert_frame_append(frame, buffer, buffer->data, 1), -ENOSPC);
    assert_int_equal(buffer->refs, 1 + frame->segment_capacity);
    culvert_frame_free(frame);
    culvert_buffer_unref(buffer);
}

static void impossible_sizes_and_null_are_harmless(void **state)
{
    (void)state;
    volatile size_t impossible = SIZE_MAX;
    errno = 0;
    assert_null(culvert_frame_new(impossible));
    assert_int_equal(errno, ENOMEM);
    assert_null(culvert_buffer_new(impossible - 8));
    assert_null(culvert_frame_unref(NULL));
    assert_null(culvert_frame_free(NULL));
    assert_null(culvert_buffer_unref(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slice_shows_exactly_its_bytes_wherever_it_begins),
        cmocka_unit_test(a_view_that_does_not_fit_says_how_much_it_needs),
        cmocka_unit_test(a_buffer_is_released_with_its_last_reference),
        cmocka_unit_test(a_frame_takes_as_many_segments_as_it_has_room_for),
        cmocka_unit_test(impossible_sizes_and_null_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
