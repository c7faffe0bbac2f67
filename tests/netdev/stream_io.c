/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/stream_io.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h> /* needs the headers above */

#include "wire/bytes.h"

struct pair {
    int ours, peer;
    struct counters counters;
    struct stream_reader reader;
    struct stream_writer writer;
};

static int set_up(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    int fds[2], size = 4 << 20;

    assert_non_null(pair);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    pair->ours = fds[0];
    pair->peer = fds[1];
    (void)setsockopt(pair->peer, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    assert_int_equal(stream_reader_init(&pair->reader, &pair->counters), 0);
    *state = pair;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *pair = *state;

    stream_writer_reset(&pair->writer);
    stream_reader_fini(&pair->reader);
    close(pair->ours);
    close(pair->peer);
    free(pair);
    return 0;
}

/* Byte `i` of frame `n`. */
static uint8_t byte_of(size_t n, size_t i)
{
    return (uint8_t)(n * 131 + i * 7 + (i >> 8));
}

static void send_bytes(struct pair *pair, const void *bytes, size_t len)
{
    assert_int_equal(send(pair->peer, bytes, len, MSG_NOSIGNAL), len);
}

static size_t make_message(uint8_t *to, size_t n, size_t len)
{
    store_be32(to, (uint32_t)len);
    for (size_t i = 0; i < len; i++)
        to[STREAM_LENGTH_LEN + i] = byte_of(n, i);
    return STREAM_LENGTH_LEN + len;
}

static void send_message(struct pair *pair, size_t n, size_t len)
{
    uint8_t *message = malloc(STREAM_LENGTH_LEN + len);

    assert_non_null(message);
    send_bytes(pair, message, make_message(message, n, len));
    free(message);
}

/* An empty socket takes two looks: the first remembers that the last read was short. */
static int next_frame(struct pair *pair, struct culvert_frame **ret)
{
    int r = stream_reader_next(&pair->reader, pair->ours, ret);
    return r != 0 ? r : stream_reader_next(&pair->reader, pair->ours, ret);
}

static void assert_frame(const struct culvert_frame *frame, size_t n, size_t len)
{
    struct iovec iov[4];
    size_t count = culvert_frame_iov(frame, iov, 4), at = 0;

    assert_int_equal(culvert_frame_len(frame), len);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < iov[i].iov_len; j++, at++)
            assert_int_equal(((uint8_t *)iov[i].iov_base)[j], byte_of(n, at));
}

static void take(struct pair *pair, size_t n, size_t len)
{
    struct culvert_frame *frame;

    assert_int_equal(next_frame(pair, &frame), 1);
    assert_frame(frame, n, len);
    culvert_frame_unref(frame);
}

/* ---- reading ---- */

static void a_frame_may_be_cut_at_every_byte(void **state)
{
    struct pair *pair = *state;
    uint8_t message[STREAM_LENGTH_LEN + 60];
    size_t len = make_message(message, 1, 60);
    struct culvert_frame *frame;

    for (size_t cut = 1; cut < len; cut++) {
        send_bytes(pair, message, cut);
        assert_int_equal(next_frame(pair, &frame), 0);
        send_bytes(pair, message + cut, len - cut);
        take(pair, 1, 60);
    }
    assert_int_equal(next_frame(pair, &frame), 0);
}

static void many_frames_are_taken_out_of_one_read(void **state)
{
    struct pair *pair = *state;
    struct culvert_frame *frame;

    for (size_t n = 0; n < 100; n++)
        send_message(pair, n, 14 + n * 10);
    for (size_t n = 0; n < 100; n++)
        take(pair, n, 14 + n * 10);
    assert_int_equal(next_frame(pair, &frame), 0);
}

static void the_largest_frame_is_taken_and_one_above_it_is_not(void **state)
{
    struct pair *pair = *state;
    uint8_t length[STREAM_LENGTH_LEN];
    struct culvert_frame *frame;

    send_message(pair, 3, CULVERT_FRAME_MAX);
    take(pair, 3, CULVERT_FRAME_MAX);
    store_be32(length, CULVERT_FRAME_MAX + 1);
    send_bytes(pair, length, sizeof length);
    assert_int_equal(next_frame(pair, &frame), -EBADMSG);
    assert_int_equal(next_frame(pair, &frame), -EBADMSG); /* there is no way on */
}

static void frames_that_are_held_are_not_overwritten(void **state)
{
    enum { HELD = 40 };
    struct pair *pair = *state;
    struct culvert_frame *held[HELD];

    for (size_t n = 0; n < HELD; n++) {
        send_message(pair, n, n % 3 == 0 ? 1514 : 30000 + n);
        assert_int_equal(next_frame(pair, &held[n]), 1);
    }
    for (size_t n = 0; n < HELD; n++) {
        assert_frame(held[n], n, n % 3 == 0 ? 1514 : 30000 + n);
        culvert_frame_unref(held[n]);
    }
}

/* Whatever lies at the end of the buffer when it has to make room. */
static void frames_cross_the_buffers_end_anywhere(void **state)
{
    struct pair *pair = *state;

    for (size_t n = 0; n < 600; n++) {
        size_t len = 14 + n * 7919 % 20000;

        send_message(pair, n, len);
        if (n % 3 != 0) { /* two at a time, so that reads end inside a frame's room */
            send_message(pair, n + 1000, 100);
            take(pair, n, len);
            take(pair, n + 1000, 100);
        } else {
            take(pair, n, len);
        }
    }
}

static void what_is_too_short_for_a_frame_is_counted_and_passed_over(void **state)
{
    struct pair *pair = *state;

    send_message(pair, 1, 0);
    send_message(pair, 2, 13);
    send_message(pair, 3, 14);
    take(pair, 3, 14);
    assert_int_equal(counter_value(&pair->counters, COUNTER_netdev_runt), 2);
}

static void the_end_comes_behind_the_last_whole_frame(void **state)
{
    struct pair *pair = *state;
    struct culvert_frame *frame;

    send_message(pair, 1, 60);
    send_bytes(pair, "\0\0", 2);
    shutdown(pair->peer, SHUT_WR);
    take(pair, 1, 60);
    assert_int_equal(next_frame(pair, &frame), -EPIPE);
}

static void a_reset_forgets_half_a_frame(void **state)
{
    struct pair *pair = *state;
    struct culvert_frame *frame;

    send_bytes(pair, "\0\0\0\x40half", 8);
    assert_int_equal(next_frame(pair, &frame), 0);
    stream_reader_reset(&pair->reader);
    send_message(pair, 5, 60);
    take(pair, 5, 60);
}

/* ---- writing ---- */

static struct culvert_frame *frame_of(size_t n, size_t linear, size_t rest)
{
    struct culvert_frame *frame = culvert_frame_new(linear);
    struct culvert_buffer *buffer = culvert_buffer_new(rest + 1);

    assert_non_null(frame);
    assert_non_null(buffer);
    frame->len = linear;
    for (size_t i = 0; i < linear; i++)
        frame->data[i] = byte_of(n, i);
    for (size_t i = 0; i < rest; i++)
        buffer->data[i] = byte_of(n, linear + i);
    if (rest != 0)
        assert_int_equal(culvert_frame_append(frame, buffer, buffer->data, rest), 0);
    culvert_buffer_unref(buffer);
    return frame;
}

/* Reads at most `max` bytes of what was written and checks them against the frames of `linear` and
 * `rest` bytes; `*at` goes on. */
static void check_written(struct pair *pair, size_t *at, size_t len, size_t max)
{
    uint8_t bytes[4096];
    ssize_t n = recv(pair->peer, bytes, max < sizeof bytes ? max : sizeof bytes, MSG_DONTWAIT);

    for (ssize_t i = 0; i < n; i++, (*at)++) {
        size_t number = *at / (STREAM_LENGTH_LEN + len), place = *at % (STREAM_LENGTH_LEN + len);
        uint8_t length[STREAM_LENGTH_LEN];

        store_be32(length, (uint32_t)len);
        assert_int_equal(bytes[i], place < STREAM_LENGTH_LEN
                                       ? length[place]
                                       : byte_of(number, place - STREAM_LENGTH_LEN));
    }
}

static void a_writer_goes_on_where_the_peer_stopped_reading(void **state)
{
    enum { FRAMES = 2000, LINEAR = 54, REST = 1457 };
    struct pair *pair = *state;
    size_t put = 0, at = 0, total = FRAMES * (STREAM_LENGTH_LEN + LINEAR + REST);
    unsigned full = 0;
    int size = 1; /* the smallest the kernel has */

    (void)setsockopt(pair->ours, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    while (at < total) {
        while (put < FRAMES) {
            struct culvert_frame *frame = frame_of(put, LINEAR, REST);

            if (!stream_writer_put(&pair->writer, frame)) {
                culvert_frame_unref(frame);
                break;
            }
            put++;
        }
        if (stream_writer_flush(&pair->writer, pair->ours) == -EAGAIN)
            full++;
        check_written(pair, &at, LINEAR + REST, 1 + put * 37 % 4096);
    }
    assert_true(full > 100);
    assert_int_equal(pair->writer.count, 0);
    assert_int_equal(pair->writer.bytes, 0);
}

static void a_queue_is_bounded_in_frames_and_in_bytes(void **state)
{
    struct pair *pair = *state;
    struct culvert_frame *frame = frame_of(0, 60, 0);
    unsigned put = 0;

    while (stream_writer_put(&pair->writer, culvert_frame_ref(frame)))
        put++;
    culvert_frame_unref(frame); /* the one that was not taken */
    assert_int_equal(put, STREAM_QUEUE_MAX);
    stream_writer_reset(&pair->writer);
    culvert_frame_unref(frame);

    frame = frame_of(0, 60, 65000);
    for (put = 0; stream_writer_put(&pair->writer, culvert_frame_ref(frame));)
        put++;
    culvert_frame_unref(frame);
    assert_in_range(put, 2, 40);
    assert_int_equal(frame->refs, put + 1);
    stream_writer_reset(&pair->writer);
    assert_int_equal(frame->refs, 1);
    culvert_frame_unref(frame);
}

static void a_broken_connection_is_told(void **state)
{
    struct pair *pair = *state;

    shutdown(pair->peer, SHUT_RDWR);
    assert_true(stream_writer_put(&pair->writer, frame_of(0, 60, 0)));
    assert_int_equal(stream_writer_flush(&pair->writer, pair->ours), -EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(a_frame_may_be_cut_at_every_byte),
        TEST(many_frames_are_taken_out_of_one_read),
        TEST(the_largest_frame_is_taken_and_one_above_it_is_not),
        TEST(frames_that_are_held_are_not_overwritten),
        TEST(frames_cross_the_buffers_end_anywhere),
        TEST(what_is_too_short_for_a_frame_is_counted_and_passed_over),
        TEST(the_end_comes_behind_the_last_whole_frame),
        TEST(a_reset_forgets_half_a_frame),
        TEST(a_writer_goes_on_where_the_peer_stopped_reading),
        TEST(a_queue_is_bounded_in_frames_and_in_bytes),
        TEST(a_broken_connection_is_told),
#undef TEST
    };

    return cmocka_run_group_tests_name("stream_io", tests, NULL, NULL);
}
