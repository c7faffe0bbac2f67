/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * The poll thread's end of a SharedState: the other end is a NetWorker, in whatever thread.
 *
 * Waking. The poll thread is "awake" from the first look at the rings until will_sleep(); meanwhile
 * signals to tx_wake cost the NetWorker no system call, and will_sleep() is what notices them.
 * Three things are signalled by tx_wake: frames in tx_ring, room in a starved rx_ring, a new link;
 * look_around() sees to all three.
 *
 * Frames pushed are announced by one signal at the end of the batch (flush), and at once when the
 * ring is full, so that the NetWorker makes room while we go on.
 *
 * Bytes are counted by whoever pushes: rx by us, tx by the NetWorker. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "netdev/intake.h"
#include "netdev/netdev.h"
#include "netdev/software_offload.h"

struct ring {
    struct netdev netdev; /* first: ops are given this */
    struct culvert_shared_state *state;
    struct loop *loop;
    unsigned handler;
    bool awake, full, unannounced;
    struct software_sender sender;
};

static struct ring *ring_of(struct netdev *netdev)
{
    return (struct ring *)netdev;
}

/* ---- to the guest ---- */

static void announce(struct ring *ring)
{
    if (!ring->unannounced)
        return;
    ring->unannounced = false;
    culvert_wake_signal(&ring->state->rx_wake);
}

static int ring_put(void *ctx, struct culvert_frame *frame)
{
    struct ring *ring = ctx;
    size_t len = culvert_frame_len(frame); /* before the push: the frame is another's after it */

    if (!culvert_ring_push(&ring->state->rx_ring, frame)) {
        count(ring->netdev.counters, COUNTER_netdev_full);
        ring->full = true;
        announce(ring);
        return -EAGAIN;
    }
    ring->unannounced = true;
    culvert_shared_state_add_rx_bytes(ring->state, len);
    count(ring->netdev.counters, COUNTER_netdev_frames_out);
    count_n(ring->netdev.counters, COUNTER_netdev_bytes_out, len);
    return 0;
}

/* A link that nobody has described yet may come up any moment: its frames wait in the ring. */
static bool is_down(const struct culvert_link *link)
{
    return link->generation != 0 && !link->up;
}

static int ring_send(struct netdev *netdev, struct culvert_frame *frame)
{
    if (is_down(&netdev->link)) {
        count(netdev->counters, COUNTER_netdev_link_down);
        culvert_frame_unref(frame);
        return 0;
    }
    return software_sender_send(&ring_of(netdev)->sender, &netdev->link, frame);
}

static void ring_flush(struct netdev *netdev)
{
    announce(ring_of(netdev));
}

/* ---- what a signal may have been about ---- */

static void look_at_link(struct ring *ring)
{
    struct culvert_link link;

    culvert_shared_state_link(ring->state, &link);
    if (link.generation == ring->netdev.link.generation)
        return;
    ring->netdev.link = link;
    if (ring->netdev.link_changed)
        ring->netdev.link_changed(ring->netdev.ctx);
}

static void look_for_room(struct ring *ring)
{
    struct culvert_ring *rx = &ring->state->rx_ring;

    if (!ring->full || culvert_ring_len(rx) == culvert_ring_capacity(rx))
        return;
    ring->full = false;
    if (software_sender_resume(&ring->sender) == 0 && ring->netdev.writable)
        ring->netdev.writable(ring->netdev.ctx);
}

static void look_around(struct ring *ring)
{
    if (!ring->awake) {
        ring->awake = true;
        culvert_wake_awake(&ring->state->tx_wake);
    }
    look_at_link(ring);
    look_for_room(ring);
}

/* ---- from the guest ---- */

static int ring_receive(struct netdev *netdev, struct culvert_frame **ret_frames, int max)
{
    struct ring *ring = ring_of(netdev);
    struct intake intake = {.frames = ret_frames};

    look_around(ring);
    for (int pops = 0; pops < max; pops++) {
        struct culvert_frame *frame = culvert_ring_pop(&ring->state->tx_ring);

        if (!frame)
            break;
        intake_check(&intake, netdev, frame);
    }
    return intake_end(&intake, netdev);
}

static bool ring_will_sleep(struct netdev *netdev)
{
    struct ring *ring = ring_of(netdev);

    announce(ring);
    if (!ring->awake)
        return false;
    if (culvert_ring_len(&ring->state->tx_ring) != 0)
        return true;
    if (culvert_wake_will_sleep(&ring->state->tx_wake))
        return true; /* and still awake */
    ring->awake = false;
    return false;
}

static void ring_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct ring *ring = ctx;

    (void)index;
    (void)generation;
    (void)events;
    culvert_wake_drain(&ring->state->tx_wake);
    look_around(ring);
    if (ring->netdev.readable)
        ring->netdev.readable(ring->netdev.ctx);
}

/* ---- life ---- */

static void ring_free(struct netdev *netdev)
{
    struct ring *ring = ring_of(netdev);

    loop_remove(ring->loop, culvert_wake_fd(&ring->state->tx_wake));
    if (ring->awake) /* later signals must be heard by whoever comes next */
        (void)culvert_wake_will_sleep(&ring->state->tx_wake);
    software_sender_end(&ring->sender);
    free(ring);
}

static const struct netdev_ops ring_ops = {
    .receive = ring_receive,
    .send = ring_send,
    .flush = ring_flush,
    .will_sleep = ring_will_sleep,
    .free = ring_free,
};

struct netdev *netdev_ring_new(struct culvert_shared_state *state, struct loop *loop,
                               struct counters *counters)
{
    struct ring *ring = calloc(1, sizeof *ring);
    int r;

    if (!ring)
        return NULL;
    ring->netdev.ops = &ring_ops;
    ring->netdev.counters = counters;
    ring->state = state;
    ring->loop = loop;
    ring->sender.put = ring_put;
    ring->sender.ctx = ring;
    ring->sender.counters = counters;
    culvert_shared_state_link(state, &ring->netdev.link);
    ring->handler = loop_add_handler(loop, ring_ready, ring);
    r = loop_add(loop, culvert_wake_fd(&state->tx_wake), EPOLLIN, ring->handler, 0, 0);
    if (r < 0) {
        free(ring);
        errno = -r;
        return NULL;
    }
    return &ring->netdev;
}
