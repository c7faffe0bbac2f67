/* SPDX-License-Identifier: Apache-2.0 */
/* Queues: how rings start and stop, and how chains come back to them.
 *
 * | state              | transmit queue        | receive queue | left by |
 * |--------------------|-----------------------|---------------|-----------------------------------|
 * | stopped            | -                     | -             | SET_VRING_KICK | | started |
 * frames are discarded  | -             | SET_VRING_ENABLE, GET_VRING_BASE  | | started and
 * enabled| frames are taken      | frames go out | the same, a fault, a disconnection|
 *
 * A chain of a transmit queue is in flight from when it is taken until no frame points into it. It
 * goes back in the order of taking, so the front end can always tell from the used index alone
 * where the next back end has to go on. Frames may outlive their queue: what they hold then is the
 * memory, and nobody writes to the ring any more. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/cleanup.h"
#include "base/refs.h"
#include "netdev/vhost_user_internal.h"

/* ---- flights ---- */

static struct vhost_flights *flights_new(uint16_t size)
{
    struct vhost_flights *flights = calloc(1, sizeof *flights + size * sizeof(struct vhost_flight));

    if (!flights)
        return NULL;
    flights->refs = 1;
    flights->mask = (uint16_t)(size - 1);
    return flights;
}

static void flights_unref(struct vhost_flights *flights)
{
    if (flights && refs_drop(&flights->refs))
        free(flights);
}

/* The last frame that pointed into the chain is gone; in whichever thread. */
static void flight_end(struct culvert_buffer *buffer, void *arg)
{
    struct vhost_flight *flight = arg;
    struct vhost_flights *owner = flight->owner;

    (void)buffer;
    flight->memory = guest_memory_unref(flight->memory);
    __atomic_store_n(&flight->done, true, __ATOMIC_RELEASE); /* may be used anew from here on */
    flights_unref(owner);
}

struct vhost_flight *vhost_flight_begin(struct vhost_user *device, struct vhost_queue *queue,
                                        uint16_t head)
{
    struct vhost_flights *flights = queue->flights;
    struct vhost_flight *flight = &flights->flight[flights->next & flights->mask];

    if ((uint16_t)(flights->next - flights->first) > flights->mask)
        return NULL;
    flights->next++;
    refs_take(&flights->refs);
    *flight = (struct vhost_flight){
        .buffer = {.refs = 1, .release = flight_end, .release_arg = flight},
        .owner = flights,
        .memory = guest_memory_ref(device->memory),
        .head = head,
    };
    return flight;
}

static void give_back_landed(struct vhost_queue *queue)
{
    struct vhost_flights *flights = queue->flights;

    while (flights->first != flights->next) {
        struct vhost_flight *flight = &flights->flight[flights->first & flights->mask];

        if (!__atomic_load_n(&flight->done, __ATOMIC_ACQUIRE))
            return;
        vhost_ring_give_back(&queue->ring, flight->head, 0);
        flights->first++;
    }
}

/* ---- notifications ---- */

static void signal_event(int fd)
{
    const uint64_t one = 1;

    if (fd >= 0 && write(fd, &one, sizeof one) < 0)
        errno = 0; /* full: it is readable, which is all there is to say */
}

void vhost_queue_flush(struct vhost_queue *queue)
{
    if (queue->flights)
        give_back_landed(queue);
    if (vhost_ring_publish(&queue->ring))
        signal_event(queue->call);
}

/* ---- states ---- */

void vhost_queue_init(struct vhost_queue *queue)
{
    *queue = (struct vhost_queue){.kick = -1, .call = -1, .error = -1};
}

bool vhost_queue_is_control(const struct vhost_user *device, const struct vhost_queue *queue)
{
    size_t index = (size_t)(queue - device->queues);

    return vhost_user_has(device, VIRTIO_NET_F_CTRL_VQ) &&
           index == (vhost_user_has(device, VIRTIO_NET_F_MQ) ? 2 * VHOST_PAIRS : 2);
}

static bool place_ring(struct vhost_user *device, struct vhost_queue *queue)
{
    const struct vhost_vring_addr *address = &queue->address;

    queue->ring.size = queue->size;
    queue->ring.event_index = vhost_user_has(device, VIRTIO_RING_F_EVENT_IDX);
    queue->ring.indirect = vhost_user_has(device, VIRTIO_RING_F_INDIRECT_DESC);
    return device->memory && vhost_ring_place(&queue->ring, device->memory, address->desc_user_addr,
                                              address->avail_user_addr, address->used_user_addr);
}

static struct vhost_inflight_queue *inflight_of(const struct vhost_user *device,
                                                const struct vhost_queue *queue)
{
    size_t at = (size_t)(queue - device->queues) * device->inflight_stride;
    size_t len =
        sizeof(struct vhost_inflight_queue) + queue->size * sizeof(struct vhost_inflight_entry);

    if (!device->inflight || len > device->inflight_stride || len > device->inflight_len ||
        at > device->inflight_len - len)
        return NULL;
    return (struct vhost_inflight_queue *)((uint8_t *)device->inflight + at);
}

static bool is_transmit(const struct vhost_user *device, const struct vhost_queue *queue)
{
    return !vhost_queue_is_receive(device, queue) && !vhost_queue_is_control(device, queue);
}

static int begin_ring(struct vhost_user *device, struct vhost_queue *queue)
{
    int r;

    if (!place_ring(device, queue))
        return -EFAULT;
    queue->ring.inflight = inflight_of(device, queue);
    r = vhost_ring_begin(&queue->ring, queue->base);
    if (r < 0)
        return r;
    if (is_transmit(device, queue)) {
        queue->flights = flights_new(queue->size);
        if (!queue->flights)
            return -ENOMEM;
    }
    return 0;
}

/* Every write to an eventfd is an edge, so that it need not be read. */
static int watch_kick(struct vhost_user *device, struct vhost_queue *queue, int fd)
{
    return loop_add(device->loop, fd, EPOLLIN | EPOLLET, device->handler,
                    (uint32_t)(queue - device->queues), device->session);
}

/* With size, address and kick descriptor known. */
static int start(struct vhost_user *device, struct vhost_queue *queue)
{
    int r;

    if (!queue->placed || queue->size == 0 || queue->kick < 0)
        return -EINVAL;
    r = begin_ring(device, queue);
    if (r == 0)
        r = watch_kick(device, queue, queue->kick);
    if (r < 0) {
        vhost_ring_end(&queue->ring);
        flights_unref(queue->flights);
        queue->flights = NULL;
        return r;
    }
    queue->started = true;
    queue->most_posted = 0;
    /* A predecessor may have died between an element and its call; one call too many is harmless.
     */
    signal_event(queue->call);
    if (!device->awake && vhost_ring_arm(&queue->ring) && device->netdev.readable)
        device->netdev.readable(device->netdev.ctx);
    return 0;
}

int vhost_queue_kick_by(struct vhost_user *device, struct vhost_queue *queue, int take_fd)
{
    int r = queue->started ? watch_kick(device, queue, take_fd) : 0;

    if (r < 0) {
        close_fd(take_fd);
        return r;
    }
    if (queue->started)
        loop_remove(device->loop, queue->kick);
    close_fd(queue->kick);
    queue->kick = take_fd;
    return queue->started ? 0 : start(device, queue);
}

void vhost_queue_stop(struct vhost_user *device, struct vhost_queue *queue)
{
    if (!queue->started)
        return;
    loop_remove(device->loop, queue->kick);
    if (device->fault < 0)
        vhost_queue_flush(queue);
    queue->base = queue->ring.taken;
    if (queue->flights) { /* what has not been given back, the next back end takes again */
        queue->base = (uint16_t)(queue->base - (queue->flights->next - queue->flights->first));
        flights_unref(queue->flights);
        queue->flights = NULL;
    }
    vhost_ring_end(&queue->ring);
    queue->started = false;
}

void vhost_queue_reset(struct vhost_user *device, struct vhost_queue *queue)
{
    vhost_queue_stop(device, queue);
    if (device->fault >= 0)
        signal_event(queue->error);
    close_fd(queue->kick);
    close_fd(queue->call);
    close_fd(queue->error);
    vhost_queue_init(queue);
}

int vhost_queue_refresh(struct vhost_user *device, struct vhost_queue *queue)
{
    if (!queue->started || place_ring(device, queue))
        return 0;
    vhost_user_fail(device, COUNTER_vhost_user_bad_ring);
    return -EFAULT;
}
