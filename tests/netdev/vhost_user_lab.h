/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_NETDEV_VHOST_USER_LAB_H
#define TESTS_NETDEV_VHOST_USER_LAB_H

/* A vhost-user netdev and its front end in one thread, joined by a socket pair. The includer has
 * included cmocka.h. */

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "frontend.h"
#include "netdev/netdev.h"
#include "netdev/vhost_user_ring.h"
#include "packets.h"
#include "wire/virtio_net.h"

#define FEATURE(bit) (UINT64_C(1) << (bit))

#define QUEUE_SIZE  16u
#define MEMORY_SIZE (8u << 20)
#define RX          0
#define TX          1
#define CONTROL     2
#define FRAMES      64

#define ALL_FEATURES                                                                               \
    (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |                          \
     FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_NET_F_MRG_RXBUF) |                          \
     FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_CSUM) |                               \
     FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_HOST_TSO6) |                           \
     FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO6) |                         \
     FEATURE(VIRTIO_NET_F_GUEST_ECN) | FEATURE(VIRTIO_NET_F_CTRL_VQ))

struct lab {
    struct loop loop;
    struct counters counters;
    struct netdev *netdev;
    struct frontend front;
    unsigned readable, writable, link_changes;
};

static inline void lab_readable(void *ctx)
{
    ((struct lab *)ctx)->readable++;
}

static inline void lab_writable(void *ctx)
{
    ((struct lab *)ctx)->writable++;
}

static inline void lab_link_changed(void *ctx)
{
    ((struct lab *)ctx)->link_changes++;
}

/* Lets the netdev see what has come. */
static inline void lab_run(struct lab *lab)
{
    while (loop_wait(&lab->loop, clock_now(), 0) > 0)
        ;
}

static inline bool lab_wait(void *ctx)
{
    lab_run(ctx);
    return true;
}

static inline struct lab *lab_new(unsigned queues, bool once)
{
    struct lab *lab = calloc(1, sizeof *lab);
    char where[16], message[256];
    int pair[2];

    assert_non_null(lab);
    assert_int_equal(loop_init(&lab->loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    snprintf(where, sizeof where, "fd:%d", pair[0]);
    lab->netdev =
        netdev_vhost_user_new(&(struct netdev_config){.where = where, .mtu = 1500, .once = once},
                              &lab->loop, &lab->counters, message, sizeof message);
    assert_non_null(lab->netdev);
    lab->netdev->ctx = lab;
    lab->netdev->readable = lab_readable;
    lab->netdev->writable = lab_writable;
    lab->netdev->link_changed = lab_link_changed;
    assert_int_equal(frontend_init(&lab->front, MEMORY_SIZE, queues, QUEUE_SIZE), 0);
    lab->front.socket = pair[1];
    lab->front.wait = lab_wait;
    lab->front.wait_ctx = lab;
    return lab;
}

static inline struct lab *lab_started(unsigned queues, uint64_t features)
{
    struct lab *lab = lab_new(queues, false);

    assert_int_equal(frontend_start(&lab->front, features), 0);
    lab_run(lab);
    assert_true(lab->netdev->link.up);
    return lab;
}

static inline void lab_free(struct lab *lab)
{
    lab->netdev->ops->free(lab->netdev);
    frontend_fini(&lab->front);
    loop_fini(&lab->loop);
    free(lab);
}

static inline uint64_t lab_count(const struct lab *lab, enum counter which)
{
    return counter_value(&lab->counters, which);
}

/* Has an eventfd been written to since the last time? */
static inline bool event_taken(int fd)
{
    uint64_t n;
    return read(fd, &n, sizeof n) == sizeof n;
}

/* ---- descriptors ---- */

static inline void describe(struct lab *lab, unsigned queue, uint16_t index, const void *at,
                            uint32_t len, uint16_t flags, uint16_t next)
{
    lab->front.queues[queue].descriptors[index] =
        (struct vring_desc){.addr = htole64(frontend_address(&lab->front, at)),
                            .len = htole32(len),
                            .flags = htole16(flags),
                            .next = htole16(next)};
}

static inline void offer(struct lab *lab, unsigned queue, uint16_t head)
{
    frontend_add(&lab->front.queues[queue], head);
    frontend_tell(&lab->front, &lab->front.queues[queue]);
}

static inline uint8_t *guest_bytes(struct lab *lab, size_t len)
{
    uint8_t *at = frontend_allocate(&lab->front, len, 64);
    assert_non_null(at);
    return at;
}

/* A frame of the shape as a driver would lay it out, header first; its length. */
static inline size_t lay_out(const struct shape *shape, uint8_t *at)
{
    struct culvert_frame *frame = frame_of_shape(shape);
    size_t len = frame_flatten(frame, at + VIRTIO_NET_HEADER_LEN, 1 << 17);

    virtio_net_write(at, &frame->offload, 0);
    culvert_frame_unref(frame);
    return len + VIRTIO_NET_HEADER_LEN;
}

/* One descriptor of the guest's with a whole frame in it. Where the frame lies. */
static inline uint8_t *transmit(struct lab *lab, uint16_t head, const struct shape *shape)
{
    uint8_t *at = guest_bytes(lab, 1 << 17);
    size_t len = lay_out(shape, at);

    describe(lab, TX, head, at, (uint32_t)len, 0, 0);
    offer(lab, TX, head);
    return at;
}

static inline int take(struct lab *lab, struct culvert_frame **frames)
{
    return lab->netdev->ops->receive(lab->netdev, frames, FRAMES);
}

static inline struct culvert_frame *take_one(struct lab *lab)
{
    struct culvert_frame *frames[FRAMES];
    assert_int_equal(take(lab, frames), 1);
    return frames[0];
}

/* Gives the guest `count` receive buffers of `len` bytes; descriptors `first` and following. */
static inline void post(struct lab *lab, uint16_t first, unsigned count, uint32_t len)
{
    for (uint16_t i = first; i < first + count; i++) {
        describe(lab, RX, i, guest_bytes(lab, len), len, VRING_DESC_F_WRITE, 0);
        frontend_add(&lab->front.queues[RX], i);
    }
    frontend_tell(&lab->front, &lab->front.queues[RX]);
}

static inline void *descriptor_place(struct lab *lab, unsigned queue, uint16_t index)
{
    return lab->front.memory +
           (le64toh(lab->front.queues[queue].descriptors[index].addr) - FRONTEND_GUEST_BASE);
}

static const struct shape small_shape = {.protocol = IPPROTO_TCP, .payload = 100, .linear = 100};
static const struct shape large_shape = {
    .protocol = IPPROTO_TCP, .payload = 30000, .linear = 30000, .gso_size = 1448};

#endif
