/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_MESSAGE_IO_H
#define NETDEV_MESSAGE_IO_H

/* Frames on a socket that keeps messages apart, a frame a message, many in one call: datagrams, and
 * packets with a virtio-net header of 10 bytes in front (PACKET_VNET_HDR). */

#include <culvert/frame.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/counters.h"
#include "base/pool.h"
#include "wire/virtio_net.h"

#define MESSAGES_READ    32u
#define MESSAGES_QUEUED  64u
#define MESSAGES_IOV_MAX 1024u

/* Memory for one message. What a message did not touch serves the next. */
struct message_slot {
    struct culvert_frame *frame;     /* for the first bytes, */
    struct culvert_buffer *overflow; /* and for the rest of large ones */
    uint8_t header[VIRTIO_NET_HEADER_LEN_SHORT];
    struct sockaddr_un name; /* the sender's */
    struct iovec iov[3];
};

struct message_reader {
    int fd;
    bool has_headers;
    struct counters *counters;
    struct pool *frames, *buffers;
    struct message_slot slots[MESSAGES_READ];
    struct mmsghdr messages[MESSAGES_READ];
    unsigned next, count; /* messages read and not taken yet: [next, count) */
    bool drained;         /* the last read found less than it had room for */
};

/* 0 or -ENOMEM. */
int message_reader_init(struct message_reader *reader, int fd, bool has_headers,
                        struct counters *counters);
void message_reader_fini(struct message_reader *reader);
/* 1: *ret_frame, one reference, facts unchecked; *ret_name (may be NULL) its sender, until the next
 * call. 0: nothing is there now. Another negative errno: the socket's error. What cannot be taken
 * is counted and passed over. */
struct message_name {
    const struct sockaddr_un *address;
    socklen_t len;
};
int message_reader_next(struct message_reader *reader, struct culvert_frame **ret_frame,
                        struct message_name *ret_name);

/* A bounded queue of frames to be sent. */
struct message_writer {
    bool has_headers;
    struct counters *counters;
    struct culvert_frame *frames[MESSAGES_QUEUED]; /* a circle: `count` from `head` on */
    unsigned head, count;
    uint8_t headers[MESSAGES_QUEUED][VIRTIO_NET_HEADER_LEN_SHORT];
    struct mmsghdr messages[MESSAGES_QUEUED];
    struct iovec iov[MESSAGES_IOV_MAX];
};

/* False: no room, the caller keeps the frame. */
bool message_writer_put(struct message_writer *writer, struct culvert_frame *take_frame);
/* Sends the queue by `fd`, to `name` (NULL: the socket is connected or bound to an interface). 0:
 * all of it. -EAGAIN: full. Another negative errno: what the first frame left met with; it stays.
 * Frames that are too large are counted and dropped. */
int message_writer_flush(struct message_writer *writer, int fd, const struct message_name *name);
/* Drops the first frame of the queue. */
void message_writer_drop(struct message_writer *writer);
/* Drops them all. */
void message_writer_reset(struct message_writer *writer);

#endif
