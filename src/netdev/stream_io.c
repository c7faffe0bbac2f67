/* SPDX-License-Identifier: Apache-2.0 */
/* Reading. One recv() fills as much of a large buffer as there is. Small frames are copied out of
 * it, which costs less than what a view of them would keep alive; large ones are their headers and
 * a view of the rest, and keep the buffer until the stack has done with them. When the room behind
 * an unfinished frame could not hold the rest of the largest one, that frame moves to the front: of
 * the same buffer if no view is left, else of a new one. So there is always room to read into.
 *
 * Writing. Lengths and frames of the whole queue are gathered into one sendmsg(). What it did not
 * take stays, from the byte on where it stopped. */
#include "netdev/stream_io.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "netdev/reader_pools.h"
#include "wire/bytes.h"
#include "wire/ethernet.h"

/* Of a larger frame than a full one at the usual MTU, the headers lie in the linear part. */
#define HEADERS_LEN 512u
#define LARGEST     (STREAM_LENGTH_LEN + CULVERT_FRAME_MAX)
#define BUFFER_LEN  (256u << 10)

/* Above the budget of all upload queues together; what is over `kept` goes back to the system. */
#define BUFFERS_MAX  512u
#define BUFFERS_KEPT 4u

#define QUEUE_BYTES_MAX (1u << 20)
#define WRITE_IOV_MAX   1024 /* what the kernel takes (IOV_MAX) */

/* ---- reading ---- */

int stream_reader_init(struct stream_reader *reader, struct counters *counters)
{
    const struct pool_config buffers = {
        .buffer_capacity = BUFFER_LEN,
        .max = BUFFERS_MAX,
        .keep = BUFFERS_KEPT,
    };

    *reader = (struct stream_reader){.counters = counters};
    return reader_pools_new(&buffers, &reader->frames, &reader->buffers);
}

void stream_reader_reset(struct stream_reader *reader)
{
    reader->buffer = culvert_buffer_unref(reader->buffer);
    reader->start = reader->filled = 0;
    reader->drained = false;
}

void stream_reader_fini(struct stream_reader *reader)
{
    stream_reader_reset(reader);
    reader->frames = pool_free(reader->frames);
    reader->buffers = pool_free(reader->buffers);
}

static bool is_ours_alone(const struct culvert_buffer *buffer)
{
    return __atomic_load_n(&buffer->refs, __ATOMIC_ACQUIRE) == 1;
}

/* Room for the rest of the frame that begins at `start`, whatever its length. */
static int make_room(struct stream_reader *reader)
{
    size_t left = reader->filled - reader->start;

    if (reader->buffer && BUFFER_LEN - reader->start >= LARGEST &&
        (left != 0 || reader->start == 0 || !is_ours_alone(reader->buffer)))
        return 0;
    if (!reader->buffer || !is_ours_alone(reader->buffer)) {
        struct culvert_buffer *next = pool_take_buffer(reader->buffers);

        if (!next)
            return -ENOMEM;
        if (reader->buffer && left != 0)
            memcpy(next->data, reader->buffer->data + reader->start, left);
        culvert_buffer_unref(reader->buffer);
        reader->buffer = next;
    } else if (left != 0) {
        memmove(reader->buffer->data, reader->buffer->data + reader->start, left);
    }
    reader->start = 0;
    reader->filled = left;
    return 0;
}

/* 1: there are more bytes. 0: not now. */
static int fill(struct stream_reader *reader, int fd)
{
    size_t room;
    ssize_t n;

    if (reader->drained) {
        reader->drained = false;
        return 0;
    }
    if (make_room(reader) < 0) {
        count(reader->counters, COUNTER_netdev_no_memory);
        return 0;
    }
    room = BUFFER_LEN - reader->filled;
    n = recv(fd, reader->buffer->data + reader->filled, room, MSG_DONTWAIT);
    if (n == 0)
        return -EPIPE;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    reader->filled += (size_t)n;
    reader->drained = (size_t)n < room;
    return 1;
}

/* A frame of the `len` bytes at `bytes` in the buffer; NULL: no memory. */
static struct culvert_frame *frame_of(struct stream_reader *reader, uint8_t *bytes, size_t len)
{
    struct culvert_frame *frame = pool_take_frame(reader->frames);
    size_t linear = len <= READER_LINEAR_LEN ? len : HEADERS_LEN;

    if (!frame)
        return NULL;
    memcpy(frame->data, bytes, linear);
    frame->len = linear;
    if (linear < len)
        culvert_frame_append(frame, reader->buffer, bytes + linear, len - linear);
    return frame;
}

/* As stream_reader_next(), of what was read already. */
static int take_frame(struct stream_reader *reader, struct culvert_frame **ret_frame)
{
    while (reader->filled - reader->start >= STREAM_LENGTH_LEN) {
        uint8_t *at = reader->buffer->data + reader->start;
        uint32_t len = load_be32(at);

        if (len > CULVERT_FRAME_MAX)
            return -EBADMSG;
        if (reader->filled - reader->start - STREAM_LENGTH_LEN < len)
            return 0;
        reader->start += STREAM_LENGTH_LEN + len;
        if (len < ETHERNET_HEADER_LEN) {
            count(reader->counters, COUNTER_netdev_runt);
            continue;
        }
        *ret_frame = frame_of(reader, at + STREAM_LENGTH_LEN, len);
        if (*ret_frame)
            return 1;
        count(reader->counters, COUNTER_netdev_no_memory);
    }
    return 0;
}

int stream_reader_next(struct stream_reader *reader, int fd, struct culvert_frame **ret_frame)
{
    int r;

    do {
        r = take_frame(reader, ret_frame);
        if (r != 0)
            return r;
        r = fill(reader, fd);
    } while (r > 0);
    return r;
}

/* ---- writing ---- */

bool stream_writer_put(struct stream_writer *writer, struct culvert_frame *take_frame)
{
    unsigned at = (writer->head + writer->count) % STREAM_QUEUE_MAX;
    size_t len = culvert_frame_len(take_frame);

    if (writer->count == STREAM_QUEUE_MAX || writer->bytes >= QUEUE_BYTES_MAX)
        return false;
    writer->frames[at] = take_frame;
    store_be32(writer->lengths[at], (uint32_t)len);
    writer->bytes += STREAM_LENGTH_LEN + len;
    writer->count++;
    return true;
}

/* Takes `done` bytes off the front of an iovec. The entries left, moved to the front. */
static size_t skip(struct iovec *iov, size_t n, size_t done)
{
    size_t first = 0;

    while (first < n && done >= iov[first].iov_len)
        done -= iov[first++].iov_len;
    memmove(iov, iov + first, (n - first) * sizeof *iov);
    if (first < n) {
        iov[0].iov_base = (uint8_t *)iov[0].iov_base + done;
        iov[0].iov_len -= done;
    }
    return n - first;
}

/* As much of the queue as one call takes; at least the whole first frame, as no frame has so many
 * pieces. */
static size_t gather(struct stream_writer *writer, struct iovec *iov)
{
    size_t used = 0;

    for (unsigned i = 0; i < writer->count && used < WRITE_IOV_MAX; i++) {
        unsigned at = (writer->head + i) % STREAM_QUEUE_MAX;
        size_t room = WRITE_IOV_MAX - used - 1;
        size_t pieces = culvert_frame_iov(writer->frames[at], iov + used + 1, room);

        if (pieces > room)
            break;
        iov[used] = (struct iovec){writer->lengths[at], STREAM_LENGTH_LEN};
        used += 1 + pieces;
    }
    return skip(iov, used, writer->done);
}

/* `n` more bytes were sent: whole frames leave the queue. */
static void advance(struct stream_writer *writer, size_t n)
{
    writer->done += n;
    while (writer->count != 0) {
        struct culvert_frame *frame = writer->frames[writer->head];
        size_t len = STREAM_LENGTH_LEN + load_be32(writer->lengths[writer->head]);

        if (writer->done < len)
            return;
        writer->done -= len;
        writer->bytes -= len;
        writer->head = (writer->head + 1) % STREAM_QUEUE_MAX;
        writer->count--;
        culvert_frame_unref(frame);
    }
}

int stream_writer_flush(struct stream_writer *writer, int fd)
{
    struct iovec iov[WRITE_IOV_MAX];

    while (writer->count != 0) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = gather(writer, iov)};
        ssize_t n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0)
            return errno == EINTR ? -EAGAIN : -errno;
        advance(writer, (size_t)n);
    }
    return 0;
}

void stream_writer_reset(struct stream_writer *writer)
{
    while (writer->count != 0) {
        culvert_frame_unref(writer->frames[writer->head]);
        writer->head = (writer->head + 1) % STREAM_QUEUE_MAX;
        writer->count--;
    }
    *writer = (struct stream_writer){0};
}
