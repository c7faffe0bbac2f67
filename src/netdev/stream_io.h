/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_STREAM_IO_H
#define NETDEV_STREAM_IO_H

/* Frames on a byte stream: a 32-bit big-endian length, then the frame. The length does not count
 * itself. No virtio header: the wire has no facts. */

#include <culvert/frame.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/counters.h"
#include "base/pool.h"

#define STREAM_LENGTH_LEN 4u
#define STREAM_QUEUE_MAX  256u

/* Reads much at a time and takes frames out of it, whichever bytes they come in. */
struct stream_reader {
    struct counters *counters;
    struct pool *frames, *buffers;
    struct culvert_buffer *buffer; /* what was read and not taken: [start, filled) */
    size_t start, filled;
    bool drained; /* the last read found less than it had room for: wait before the next */
};

int stream_reader_init(struct stream_reader *reader, struct counters *counters); /* 0 or -ENOMEM */
void stream_reader_fini(struct stream_reader *reader);
/* Forgets what is left of an earlier connection. */
void stream_reader_reset(struct stream_reader *reader);
/* 1: *ret_frame, one reference. 0: no whole frame is there now. -EPIPE: the peer is gone.
 * -EBADMSG: an impossible length; where the next frame begins is not known any more. Another
 * negative errno: the connection is broken. */
int stream_reader_next(struct stream_reader *reader, int fd, struct culvert_frame **ret_frame);

/* A bounded queue of frames that leave in as few writes as possible. */
struct stream_writer {
    struct culvert_frame *frames[STREAM_QUEUE_MAX]; /* a circle: `count` from `head` on */
    uint8_t lengths[STREAM_QUEUE_MAX][STREAM_LENGTH_LEN];
    unsigned head, count;
    size_t bytes; /* queued, lengths included, what was sent of the first one too */
    size_t done;  /* bytes of the first one, its length included, that were sent */
};

/* False: no room, the caller keeps the frame. */
bool stream_writer_put(struct stream_writer *writer, struct culvert_frame *take_frame);
/* 0: everything was sent. -EAGAIN: the peer does not read. Another negative errno: the connection
 * is broken. */
int stream_writer_flush(struct stream_writer *writer, int fd);
/* Releases what is queued. */
void stream_writer_reset(struct stream_writer *writer);

#endif
