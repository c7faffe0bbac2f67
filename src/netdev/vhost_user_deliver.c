/* SPDX-License-Identifier: Apache-2.0 */
/* From frames to the guest's receive buffers: one copy.
 *
 * A frame takes as many buffers as it needs (MRG_RXBUF), or one. They are looked through first, and
 * taken only if they are enough: where they are not, nothing has happened, and the frame waits for
 * the guest to add buffers. One that could not be held by
 * all the buffers that the guest ever posted at once is dropped, and larger ones than that are cut
 * into segments from then on. */
#include <errno.h>
#include <string.h>

#include "netdev/vhost_user_internal.h"
#include "wire/virtio_net.h"

#define PIECES_MAX 256u
#define CHAINS_MAX 128u

/* Buffers found for a frame, and how far they are filled. */
struct room {
    unsigned chains, pieces;
    size_t len;
    struct vhost_chain chain[CHAINS_MAX];
    struct iovec iov[PIECES_MAX];
    struct iovec *next; /* where the next byte goes */
};

/* Adds the next chain. 0, -EAGAIN: the guest has posted no more; -ENOSPC: no frame needs so many;
 * or a fault. */
static int add_chain(struct vhost_user *device, struct vhost_queue *queue, struct room *room)
{
    struct vhost_ring *ring = &queue->ring;
    struct vhost_chain *chain = &room->chain[room->chains];
    int r = (uint16_t)(ring->seen - ring->taken);

    if (room->chains == CHAINS_MAX || room->pieces == PIECES_MAX)
        return -ENOSPC;
    if (room->chains == (unsigned)r) {
        r = vhost_ring_look(ring);
        if (r < 0)
            return r;
        if (r > queue->most_posted) {
            queue->most_posted = (uint16_t)r;
            device->frame_max = SIZE_MAX;
        }
        if (room->chains ==
            (unsigned)r) /* waiting for more than there ever was would be for ever */
            return r != 0 && r == queue->most_posted ? -ENOSPC : -EAGAIN;
    }
    r = vhost_ring_chain(ring, (uint16_t)room->chains, VHOST_WRITABLE, room->iov + room->pieces,
                         PIECES_MAX - room->pieces, chain);
    if (r < 0)
        return r == -EMSGSIZE ? -ENOSPC : r;
    room->len += chain->len;
    room->pieces += chain->pieces;
    room->chains++;
    return 0;
}

static int find_room(struct vhost_user *device, struct vhost_queue *queue, size_t len,
                     struct room *room)
{
    bool mergeable = vhost_user_has(device, VIRTIO_NET_F_MRG_RXBUF);

    room->chains = room->pieces = 0;
    room->len = 0;
    room->next = room->iov;
    do {
        int r = room->chains == 0 || mergeable ? add_chain(device, queue, room) : -ENOSPC;
        if (r < 0)
            return r;
    } while (room->len < len);
    return 0;
}

static void put_bytes(struct room *room, const uint8_t *from, size_t len)
{
    while (len != 0) {
        struct iovec *piece = room->next;
        size_t n = len < piece->iov_len ? len : piece->iov_len;

        memcpy(piece->iov_base, from, n);
        from += n;
        len -= n;
        piece->iov_base = (uint8_t *)piece->iov_base + n;
        piece->iov_len -= n;
        if (piece->iov_len == 0)
            room->next++;
    }
}

static void put_frame(const struct vhost_user *device, struct room *room,
                      const struct culvert_frame *frame)
{
    uint8_t header[VIRTIO_NET_HEADER_LEN];

    virtio_net_write(header, &frame->offload, (uint16_t)room->chains);
    put_bytes(room, header, device->header_len);
    put_bytes(room, frame->data, frame->len);
    for (unsigned i = 0; i < frame->segment_count; i++)
        put_bytes(room, frame->segments[i].base, frame->segments[i].len);
}

static void give_back(struct vhost_ring *ring, const struct room *room, size_t len)
{
    vhost_ring_take(ring, (uint16_t)room->chains);
    for (unsigned i = 0; i < room->chains; i++) {
        size_t n = len < room->chain[i].len ? len : room->chain[i].len;

        vhost_ring_give_back(ring, room->chain[i].head, (uint32_t)n);
        len -= n;
    }
}

/* The pair that the flow uses, or the first. */
static struct vhost_queue *choose_queue(struct vhost_user *device,
                                        const struct culvert_frame *frame)
{
    if (device->pairs > 1) {
        struct vhost_queue *queue = &device->queues[2 * vhost_steering_find(device, frame)];

        if (vhost_queue_usable(queue))
            return queue;
    }
    return &device->queues[0];
}

static int drop(struct vhost_user *device, struct culvert_frame *frame, enum counter reason)
{
    count(device->netdev.counters, reason);
    culvert_frame_unref(frame);
    return 0;
}

int vhost_deliver(void *ctx, struct culvert_frame *frame)
{
    struct vhost_user *device = ctx;
    struct vhost_queue *queue = choose_queue(device, frame);
    size_t len = culvert_frame_len(frame);
    struct room room;
    int r;

    if (device->fault >= 0 || !vhost_queue_usable(queue))
        return drop(device, frame, COUNTER_netdev_link_down);
    r = find_room(device, queue, device->header_len + len, &room);
    switch (r) {
    case 0:
        break;
    case -EAGAIN:
        count(device->netdev.counters, COUNTER_netdev_full);
        queue->starved = true;
        queue->starved_seen = queue->ring.seen;
        return -EAGAIN;
    case -ENOSPC:
        device->frame_max = room.len > device->header_len ? room.len - device->header_len : 0;
        return drop(device, frame, COUNTER_vhost_user_small_buffers);
    default:
        vhost_user_fail(device, vhost_ring_reason(r));
        return drop(device, frame, COUNTER_netdev_link_down);
    }
    put_frame(device, &room, frame);
    give_back(&queue->ring, &room, device->header_len + len);
    count(device->netdev.counters, COUNTER_netdev_frames_out);
    count_n(device->netdev.counters, COUNTER_netdev_bytes_out, len);
    culvert_frame_unref(frame);
    return 0;
}

bool vhost_deliver_has_room(struct vhost_user *device)
{
    bool room = false;

    for (unsigned i = 0; i < device->queue_count; i += 2) {
        struct vhost_queue *queue = &device->queues[i];
        int r;

        if (!queue->starved)
            continue;
        if (!vhost_queue_usable(queue)) { /* what waits for it goes elsewhere */
            queue->starved = false;
            room = true;
            continue;
        }
        r = vhost_ring_look(&queue->ring);
        if (r < 0) {
            vhost_user_fail(device, vhost_ring_reason(r));
        } else if (queue->ring.seen != queue->starved_seen) {
            queue->starved = false;
            room = true;
        }
    }
    return room;
}
