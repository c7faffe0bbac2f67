/* SPDX-License-Identifier: Apache-2.0 */
/* From the guest's descriptors to frames.
 *
 * The first bytes of a frame are copied into the frame, and every check of headers is made on the
 * copy: the guest can change its memory while we read it. A small frame is copied whole and its
 * chain is free again at once. Of a large one the rest stays where it is, in the guest's memory,
 * until it has been sent; such a frame is marked `borrowed`, and whoever keeps it beyond the batch
 * copies it. What is in more pieces than a frame has segments is copied into a buffer. */
#include <errno.h>
#include <string.h>

#include "netdev/offload_check.h"
#include "netdev/vhost_user_internal.h"
#include "wire/ethernet.h"
#include "wire/virtio_net.h"

#define PIECES_MAX 256u

/* As in vhost_user.c's pools. */
#define HEADERS_LEN 256u /* copied of a frame that stays in place */

struct pieces {
    struct iovec *next;
    unsigned count;
};

/* Copies the next `len` bytes, which are there. */
static void take_bytes(struct pieces *pieces, uint8_t *to, size_t len)
{
    while (len != 0) {
        struct iovec *piece = pieces->next;
        size_t n = len < piece->iov_len ? len : piece->iov_len;

        memcpy(to, piece->iov_base, n);
        to += n;
        len -= n;
        piece->iov_base = (uint8_t *)piece->iov_base + n;
        piece->iov_len -= n;
        if (piece->iov_len == 0) {
            pieces->next++;
            pieces->count--;
        }
    }
}

/* The rest of the frame stays where it is. */
static void borrow_rest(struct culvert_frame *frame, const struct pieces *pieces,
                        struct vhost_flight *flight)
{
    for (unsigned i = 0; i < pieces->count; i++)
        (void)culvert_frame_append(frame, &flight->buffer, pieces->next[i].iov_base,
                                   pieces->next[i].iov_len);
    frame->borrowed = true;
}

static bool copy_rest(struct vhost_user *device, struct culvert_frame *frame, struct pieces *pieces,
                      size_t len)
{
    struct culvert_buffer *buffer = pool_take_buffer(device->copies);

    if (!buffer)
        return false;
    take_bytes(pieces, buffer->data, len);
    (void)culvert_frame_append(frame, buffer, buffer->data, len);
    culvert_buffer_unref(buffer); /* the frame's now */
    return true;
}

static struct culvert_frame *refuse(struct vhost_user *device, enum counter reason)
{
    count(device->netdev.counters, reason);
    return NULL;
}

/* The frame in a chain, or NULL: counted. */
static struct culvert_frame *frame_of_chain(struct vhost_user *device, struct pieces *pieces,
                                            size_t chain_len, struct vhost_flight *flight)
{
    uint8_t header[VIRTIO_NET_HEADER_LEN] = {0};
    struct culvert_frame *frame;
    size_t len, linear;

    if (chain_len < device->header_len + ETHERNET_HEADER_LEN)
        return refuse(device, COUNTER_netdev_runt);
    len = chain_len - device->header_len;
    if (len > CULVERT_FRAME_MAX)
        return refuse(device, COUNTER_netdev_oversize);
    frame = pool_take_frame(device->frames);
    if (!frame)
        return refuse(device, COUNTER_netdev_no_memory);

    take_bytes(pieces, header, device->header_len);
    virtio_net_read(header, &frame->offload);
    linear = len <= frame->capacity ? len : HEADERS_LEN;
    take_bytes(pieces, frame->data, linear);
    frame->len = linear;
    if (linear == len)
        return frame;
    if (pieces->count <= frame->segment_capacity) {
        borrow_rest(frame, pieces, flight);
    } else if (!copy_rest(device, frame, pieces, len - linear)) {
        culvert_frame_unref(frame);
        return refuse(device, COUNTER_netdev_no_memory);
    }
    return frame;
}

/* Takes one chain. 1: *ret_frame. 0: it held nothing of use (counted). Negative: a fault. */
static int take_chain(struct vhost_user *device, struct vhost_queue *queue,
                      struct culvert_frame **ret_frame)
{
    struct iovec iov[PIECES_MAX];
    struct vhost_chain chain;
    struct culvert_frame *frame = NULL;
    int r = vhost_ring_chain(&queue->ring, 0, VHOST_READABLE, iov, PIECES_MAX, &chain);

    if (r < 0 && r != -EMSGSIZE)
        return r;
    vhost_ring_take(&queue->ring, 1);

    struct vhost_flight *flight = vhost_flight_begin(device, queue, chain.head);
    if (!flight)
        return -ERANGE;
    if (r == -EMSGSIZE)
        count(device->netdev.counters, COUNTER_netdev_oversize);
    else if (!queue->enabled)
        count(device->netdev.counters, COUNTER_vhost_user_disabled);
    else
        frame = frame_of_chain(device, &(struct pieces){iov, chain.pieces}, chain.len, flight);
    culvert_buffer_unref(&flight->buffer); /* the frame's now, or back */
    if (frame && !offload_check(frame, device->netdev.counters))
        frame = culvert_frame_unref(frame);
    *ret_frame = frame;
    return frame != NULL;
}

int vhost_transmit(struct vhost_user *device, struct vhost_queue *queue,
                   struct culvert_frame **ret_frames, int max, uint64_t *bytes)
{
    unsigned pair = (unsigned)(queue - device->queues) / 2;
    int taken = 0;

    /* Chains, not frames, are bounded: a guest that sends nothing of use must not hold the poll
     * thread. */
    for (int chains = 0; chains < max; chains++) {
        int r = vhost_ring_available(&queue->ring);

        if (r > 0)
            r = take_chain(device, queue, &ret_frames[taken]);
        else if (r == 0)
            break;
        if (r < 0) {
            vhost_user_fail(device, vhost_ring_reason(r));
            break;
        }
        if (r == 0)
            continue;
        *bytes += culvert_frame_len(ret_frames[taken]);
        if (device->pairs > 1)
            vhost_steering_learn(device, ret_frames[taken], pair);
        taken++;
    }
    return taken;
}
