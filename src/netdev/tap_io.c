/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "netdev/reader_pools.h"
#include "netdev/tap.h"
#include "wire/virtio_net.h"

/* One byte more than a frame may have, so that one above it shows. */
#define OVERFLOW_LEN (CULVERT_FRAME_MAX - READER_LINEAR_LEN + 1)

/* Above the budget of all upload queues together; what is over `kept` goes back to the system. */
#define BUFFERS_MAX  4096u
#define BUFFERS_KEPT 32u

/* Pieces of a frame towards the guest: its linear part and as many segments as a USO frame of the
 * stack can have. */
#define WRITE_IOV_MAX 128u

int tap_reader_init(struct tap_reader *reader, int fd)
{
    const struct pool_config buffers = {
        .buffer_capacity = OVERFLOW_LEN,
        .max = BUFFERS_MAX,
        .keep = BUFFERS_KEPT,
    };

    *reader = (struct tap_reader){.fd = fd};
    return reader_pools_new(&buffers, &reader->frames, &reader->buffers);
}

void tap_reader_fini(struct tap_reader *reader)
{
    reader->frame = culvert_frame_unref(reader->frame);
    reader->overflow = culvert_buffer_unref(reader->overflow);
    reader->frames = pool_free(reader->frames);
    reader->buffers = pool_free(reader->buffers);
}

static bool has_memory(struct tap_reader *reader)
{
    if (!reader->frame)
        reader->frame = pool_take_frame(reader->frames);
    if (!reader->overflow)
        reader->overflow = pool_take_buffer(reader->buffers);
    return reader->frame && reader->overflow;
}

/* A read with room for the header alone takes the whole frame out of the device; the kernel refuses
 * less. */
static int discard_one(struct tap_reader *reader)
{
    uint8_t header[VIRTIO_NET_HEADER_LEN];

    if (read(reader->fd, header, sizeof header) >= 0)
        return -ENOMEM;
    return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

int tap_reader_next(struct tap_reader *reader, struct culvert_frame **ret_frame)
{
    uint8_t header[VIRTIO_NET_HEADER_LEN];
    struct culvert_frame *frame;
    ssize_t n;

    if (!has_memory(reader))
        return discard_one(reader);
    frame = reader->frame;
    n = readv(reader->fd,
              (const struct iovec[]){{header, sizeof header},
                                     {frame->data, READER_LINEAR_LEN},
                                     {reader->overflow->data, OVERFLOW_LEN}},
              3);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if ((size_t)n < sizeof header)
        return -EBADMSG;
    if ((size_t)n - sizeof header > CULVERT_FRAME_MAX)
        return -EMSGSIZE;

    frame->len = (size_t)n - sizeof header;
    if (frame->len > READER_LINEAR_LEN) {
        culvert_frame_append(frame, reader->overflow, reader->overflow->data,
                             frame->len - READER_LINEAR_LEN);
        reader->overflow = culvert_buffer_unref(reader->overflow); /* the frame's now */
        frame->len = READER_LINEAR_LEN;
    }
    virtio_net_read(header, &frame->offload);
    reader->frame = NULL;
    *ret_frame = frame;
    return 1;
}

int tap_write(int fd, const struct culvert_frame *frame)
{
    uint8_t header[VIRTIO_NET_HEADER_LEN];
    struct iovec iov[WRITE_IOV_MAX + 1];
    size_t count = culvert_frame_iov(frame, iov + 1, WRITE_IOV_MAX);

    if (count > WRITE_IOV_MAX)
        return -EMSGSIZE;
    virtio_net_write(header, &frame->offload, 0);
    iov[0] = (struct iovec){header, sizeof header};
    return writev(fd, iov, (int)count + 1) < 0 ? -errno : 0;
}
