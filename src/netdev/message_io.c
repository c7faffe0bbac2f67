/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/message_io.h"

#include <errno.h>
#include <string.h>

#include "netdev/reader_pools.h"

/* One byte more than a frame may have, so that one above it shows. */
#define OVERFLOW_LEN (CULVERT_FRAME_MAX - READER_LINEAR_LEN + 1)

/* Above the budget of all upload queues together; what is over `kept` goes back to the system. */
#define BUFFERS_MAX  4096u
#define BUFFERS_KEPT 64u

/* ---- reading ---- */

int message_reader_init(struct message_reader *reader, int fd, bool has_headers,
                        struct counters *counters)
{
    const struct pool_config buffers = {
        .buffer_capacity = OVERFLOW_LEN,
        .max = BUFFERS_MAX,
        .keep = BUFFERS_KEPT,
    };

    *reader = (struct message_reader){
        .fd = fd,
        .has_headers = has_headers,
        .counters = counters,
    };
    return reader_pools_new(&buffers, &reader->frames, &reader->buffers);
}

void message_reader_fini(struct message_reader *reader)
{
    for (unsigned i = 0; i < MESSAGES_READ; i++) {
        culvert_frame_unref(reader->slots[i].frame);
        culvert_buffer_unref(reader->slots[i].overflow);
    }
    memset(reader->slots, 0, sizeof reader->slots);
    reader->frames = pool_free(reader->frames);
    reader->buffers = pool_free(reader->buffers);
    reader->next = reader->count = 0;
}

static bool prepare_slot(struct message_reader *reader, struct message_slot *slot,
                         struct msghdr *header)
{
    size_t pieces = 0;

    if (!slot->frame)
        slot->frame = pool_take_frame(reader->frames);
    if (!slot->overflow)
        slot->overflow = pool_take_buffer(reader->buffers);
    if (!slot->frame || !slot->overflow)
        return false;
    if (reader->has_headers)
        slot->iov[pieces++] = (struct iovec){slot->header, sizeof slot->header};
    slot->iov[pieces++] = (struct iovec){slot->frame->data, READER_LINEAR_LEN};
    slot->iov[pieces++] = (struct iovec){slot->overflow->data, OVERFLOW_LEN};
    *header = (struct msghdr){.msg_iov = slot->iov, .msg_iovlen = pieces};
    if (!reader->has_headers) {
        header->msg_name = &slot->name;
        header->msg_namelen = sizeof slot->name;
    }
    return true;
}

/* Without memory a message is taken out of the socket all the same, or it would be there for ever.
 */
static int discard_one(struct message_reader *reader)
{
    uint8_t byte;

    if (recv(reader->fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    count(reader->counters, COUNTER_netdev_no_memory);
    return 1;
}

/* 1: something was read. 0: nothing is there. */
static int read_messages(struct message_reader *reader)
{
    unsigned ready = 0;
    int n;

    if (reader->drained) {
        reader->drained = false;
        return 0;
    }
    while (ready < MESSAGES_READ &&
           prepare_slot(reader, &reader->slots[ready], &reader->messages[ready].msg_hdr))
        ready++;
    reader->next = reader->count = 0;
    if (ready == 0)
        return discard_one(reader);
    n = recvmmsg(reader->fd, reader->messages, ready, MSG_DONTWAIT, NULL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    reader->count = (unsigned)n;
    reader->drained = reader->count < ready;
    return 1;
}

/* The frame of a message; NULL: it cannot be one, and is counted. */
static struct culvert_frame *take_frame(struct message_reader *reader, unsigned index)
{
    struct message_slot *slot = &reader->slots[index];
    size_t header_len = reader->has_headers ? sizeof slot->header : 0;
    size_t len = reader->messages[index].msg_len;
    struct culvert_frame *frame = slot->frame;

    if (len < header_len) {
        count(reader->counters, COUNTER_netdev_runt);
        return NULL;
    }
    len -= header_len;
    if (len > CULVERT_FRAME_MAX || (reader->messages[index].msg_hdr.msg_flags & MSG_TRUNC)) {
        count(reader->counters, COUNTER_netdev_oversize);
        return NULL;
    }
    frame->len = len < READER_LINEAR_LEN ? len : READER_LINEAR_LEN;
    if (len > READER_LINEAR_LEN) {
        culvert_frame_append(frame, slot->overflow, slot->overflow->data, len - READER_LINEAR_LEN);
        slot->overflow = culvert_buffer_unref(slot->overflow); /* the frame's now */
    }
    if (reader->has_headers)
        virtio_net_read(slot->header, &frame->offload);
    slot->frame = NULL;
    return frame;
}

int message_reader_next(struct message_reader *reader, struct culvert_frame **ret_frame,
                        struct message_name *ret_name)
{
    for (;;) {
        unsigned index = reader->next;

        if (index == reader->count) {
            int r = read_messages(reader);

            if (r <= 0)
                return r;
            continue;
        }
        reader->next++;
        *ret_frame = take_frame(reader, index);
        if (!*ret_frame)
            continue;
        if (ret_name)
            *ret_name = (struct message_name){&reader->slots[index].name,
                                              reader->messages[index].msg_hdr.msg_namelen};
        return 1;
    }
}

/* ---- writing ---- */

bool message_writer_put(struct message_writer *writer, struct culvert_frame *take_frame)
{
    if (writer->count == MESSAGES_QUEUED)
        return false;
    writer->frames[(writer->head + writer->count) % MESSAGES_QUEUED] = take_frame;
    writer->count++;
    return true;
}

void message_writer_drop(struct message_writer *writer)
{
    struct culvert_frame *frame = writer->frames[writer->head];

    writer->head = (writer->head + 1) % MESSAGES_QUEUED;
    writer->count--;
    culvert_frame_unref(frame);
}

void message_writer_reset(struct message_writer *writer)
{
    while (writer->count != 0)
        message_writer_drop(writer);
}

/* The iovecs of one frame, as many as `room`. 0: too few. */
static size_t gather_frame(struct message_writer *writer, unsigned at, struct iovec *iov,
                           size_t room)
{
    size_t used = 0, pieces;

    if (writer->has_headers) {
        virtio_net_write_short(writer->headers[at], &writer->frames[at]->offload);
        iov[used++] = (struct iovec){writer->headers[at], sizeof writer->headers[at]};
    }
    pieces = culvert_frame_iov(writer->frames[at], iov + used, room - used);
    return used + pieces > room ? 0 : used + pieces;
}

/* As many messages of the queue as one call takes. */
static unsigned gather(struct message_writer *writer, const struct message_name *name)
{
    size_t used = 0;
    unsigned i;

    for (i = 0; i < writer->count && used + 1 < MESSAGES_IOV_MAX; i++) {
        unsigned at = (writer->head + i) % MESSAGES_QUEUED;
        size_t pieces = gather_frame(writer, at, writer->iov + used, MESSAGES_IOV_MAX - used);

        if (pieces == 0)
            break;
        writer->messages[i].msg_hdr = (struct msghdr){
            .msg_iov = writer->iov + used,
            .msg_iovlen = pieces,
            .msg_name = name ? (void *)name->address : NULL,
            .msg_namelen = name ? name->len : 0,
        };
        used += pieces;
    }
    return i;
}

int message_writer_flush(struct message_writer *writer, int fd, const struct message_name *name)
{
    while (writer->count != 0) {
        unsigned ready = gather(writer, name);
        int n = sendmmsg(fd, writer->messages, ready, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EMSGSIZE) {
            count(writer->counters, COUNTER_netdev_write_error);
            message_writer_drop(writer);
            continue;
        }
        if (n < 0)
            return errno == EINTR ? -EAGAIN : -errno;
        for (int i = 0; i < n; i++)
            message_writer_drop(writer);
    }
    return 0;
}
