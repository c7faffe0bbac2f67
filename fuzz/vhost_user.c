/* SPDX-License-Identifier: Apache-2.0 */
/* A front end and a driver that do whatever the input says to a vhost-user device that is up: pokes
 * into its rings and messages in any order, between frames in both directions. A step is a byte
 * that chooses and what belongs to it:
 *
 *     0 request flags size fds payload…   a message; `fds`: how many, or-ed with 0x80: eventfds
 *     1 offset16 len bytes…               bytes into the guest's memory, rings first
 *     2                                   frames are taken from the device, and held
 *     3 which                             a held frame is released
 *     4 which                             a frame is sent to the guest
 *     5                                   the batch ends, and the poll thread would sleep
 *     6 queue                             a kick
 *     7 queue n                           the available index moves by n
 *
 * Every byte of every frame is read, so a sanitizer sees a view of what is not mapped. */
#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frontend.h"
#include "netdev/netdev.h"
#include "wire/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* The memory: 4 KiB for each queue's rings, then buffers; at these addresses in the input. */
#define MEMORY_SIZE 0x20000u
#define GUEST_BASE  0x10000u
#define USER_BASE   0x4000000u
#define QUEUES      3u
#define QUEUE_SIZE  8u
#define QUEUE_STEP  0x1000u
#define AVAILABLE   0x800u
#define USED        0xc00u
#define HELD_MAX    32

struct target {
    struct loop loop;
    struct counters counters;
    struct netdev *netdev;
    struct frontend front; /* the socket alone */
    uint8_t *memory;
    int memory_fd, events[2];
    struct culvert_frame *held[HELD_MAX];
    int held_count;
    uint64_t sum; /* of what was read, for the sake of reading it */
};

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void ignore(void *ctx)
{
    (void)ctx;
}

static void run_loop(struct target *t)
{
    for (int i = 0; i < 8 && loop_wait(&t->loop, 0, 0) > 0; i++)
        ;
}

/* What the device answers is of no interest, but must not fill the socket. */
static void drain_answers(struct target *t)
{
    struct vhost_user_message answer = {0};

    for (int r = 1; r > 0; vhost_user_message_clear(&answer))
        r = vhost_user_message_read(t->front.socket, &answer);
}

static void message(struct target *t, uint32_t request, uint32_t flags, const void *payload,
                    uint32_t size, const int *fds, unsigned fd_count)
{
    (void)frontend_send(&t->front, request, flags, payload, size, fds, fd_count);
    run_loop(t);
    drain_answers(t);
}

/* ---- a device that is up ---- */

static void start_queue(struct target *t, unsigned index)
{
    const uint64_t at = USER_BASE + index * QUEUE_STEP, number = index;
    const struct vhost_vring_addr address = {.index = index,
                                             .desc_user_addr = at,
                                             .avail_user_addr = at + AVAILABLE,
                                             .used_user_addr = at + USED};

    message(t, VHOST_USER_SET_VRING_NUM, 0, &(struct vhost_vring_state){index, QUEUE_SIZE}, 8, NULL,
            0);
    message(t, VHOST_USER_SET_VRING_ADDR, 0, &address, sizeof address, NULL, 0);
    message(t, VHOST_USER_SET_VRING_CALL, 0, &number, 8, &t->events[1], 1);
    message(t, VHOST_USER_SET_VRING_KICK, 0, &number, 8, &t->events[0], 1);
    message(t, VHOST_USER_SET_VRING_ENABLE, 0, &(struct vhost_vring_state){index, 1}, 8, NULL, 0);
}

static void start(struct target *t)
{
    const struct vhost_user_memory_table table = {
        .count = 1,
        .regions = {{.guest = GUEST_BASE, .size = MEMORY_SIZE, .user = USER_BASE}},
    };
    const uint64_t features = FEATURE(VIRTIO_F_VERSION_1) |
                              FEATURE(VHOST_USER_F_PROTOCOL_FEATURES) |
                              FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
                              FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_NET_F_MRG_RXBUF) |
                              FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
                              FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_CTRL_VQ);

    message(t, VHOST_USER_SET_FEATURES, 0, &features, 8, NULL, 0);
    message(t, VHOST_USER_SET_MEM_TABLE, 0, &table,
            offsetof(struct vhost_user_memory_table, regions[1]), &t->memory_fd, 1);
    for (unsigned i = 0; i < QUEUES; i++)
        start_queue(t, i);
    check(t->netdev->link.up);
}

static void target_init(struct target *t)
{
    char where[16], message_text[256];
    int pair[2];

    check(loop_init(&t->loop) == 0);
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    snprintf(where, sizeof where, "fd:%d", pair[0]);
    t->netdev = netdev_vhost_user_new(&(struct netdev_config){.where = where, .mtu = 1500},
                                      &t->loop, &t->counters, message_text, sizeof message_text);
    check(t->netdev != NULL);
    t->netdev->readable = t->netdev->writable = t->netdev->link_changed = ignore;
    t->front = (struct frontend){.socket = pair[1]};
    t->memory_fd = memfd_create("guest", MFD_CLOEXEC);
    check(t->memory_fd >= 0 && ftruncate(t->memory_fd, MEMORY_SIZE) == 0);
    t->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, t->memory_fd, 0);
    check(t->memory != MAP_FAILED);
    for (int i = 0; i < 2; i++)
        check((t->events[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0);
    start(t);
}

static void target_fini(struct target *t)
{
    t->netdev->ops->free(t->netdev);
    while (t->held_count > 0)
        culvert_frame_unref(t->held[--t->held_count]);
    close(t->front.socket);
    close(t->memory_fd);
    close(t->events[0]);
    close(t->events[1]);
    munmap(t->memory, MEMORY_SIZE);
    loop_fini(&t->loop);
}

/* ---- steps ---- */

static void step_message(struct target *t, struct reader *r)
{
    uint32_t request = reader_u8(r), flags = reader_u8(r), size = reader_u8(r);
    unsigned fds = reader_u8(r), count = fds & 7;
    int all[8];
    const uint8_t *payload = reader_bytes(r, size);

    if (!payload)
        return;
    for (unsigned i = 0; i < count; i++)
        all[i] = fds & 0x80 ? t->events[i % 2] : t->memory_fd;
    message(t, request, flags & ~3u, payload, size, all, count);
}

static void step_poke(struct target *t, struct reader *r)
{
    size_t at = reader_be16(r), len = reader_u8(r);
    const uint8_t *bytes = reader_bytes(r, len);

    if (bytes)
        memcpy(t->memory + at, bytes, len);
}

static void read_frame(struct target *t, const struct culvert_frame *frame)
{
    struct iovec iov[64];
    size_t n = culvert_frame_iov(frame, iov, 64);

    check(n <= 64 && frame->len >= 14 && culvert_frame_len(frame) <= CULVERT_FRAME_MAX);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < iov[i].iov_len; k++)
            t->sum += ((const uint8_t *)iov[i].iov_base)[k];
}

static void step_take(struct target *t)
{
    struct culvert_frame *frames[8];
    int n = t->netdev->ops->receive(t->netdev, frames, 8);

    for (int i = 0; i < n; i++) {
        read_frame(t, frames[i]);
        if (t->held_count < HELD_MAX)
            t->held[t->held_count++] = frames[i];
        else
            culvert_frame_unref(frames[i]);
    }
}

static void step_release(struct target *t, unsigned which)
{
    if (t->held_count == 0)
        return;
    struct culvert_frame **slot = &t->held[which % (unsigned)t->held_count];

    read_frame(t, *slot);
    culvert_frame_unref(*slot);
    *slot = t->held[--t->held_count];
}

static void step_send(struct target *t, unsigned which)
{
    static const size_t lengths[] = {60, 1514, 4000, 65550};
    size_t len = lengths[which % 4];
    struct culvert_frame *frame = culvert_frame_new(len);

    check(frame != NULL);
    memset(frame->data, (int)which, len);
    frame->len = len;
    if (t->netdev->ops->send(t->netdev, frame) < 0)
        culvert_frame_unref(frame);
}

static void step_kick(struct target *t)
{
    check(write(t->events[0], &(uint64_t){1}, 8) == 8);
    run_loop(t);
}

static void step_advance(struct target *t, unsigned queue, unsigned n)
{
    uint8_t *at = t->memory + (size_t)(queue % QUEUES) * QUEUE_STEP + AVAILABLE + 2;
    uint16_t index;

    memcpy(&index, at, 2);
    index = htole16((uint16_t)(le16toh(index) + n));
    memcpy(at, &index, 2);
}

static void step(struct target *t, struct reader *r)
{
    unsigned what = reader_u8(r) % 8, first;

    switch (what) {
    case 0:
        step_message(t, r);
        break;
    case 1:
        step_poke(t, r);
        break;
    case 2:
        step_take(t);
        break;
    case 3:
        step_release(t, reader_u8(r));
        break;
    case 4:
        step_send(t, reader_u8(r));
        break;
    case 5:
        t->netdev->ops->flush(t->netdev);
        (void)t->netdev->ops->will_sleep(t->netdev);
        break;
    case 6:
        (void)reader_u8(r);
        step_kick(t);
        break;
    default:
        first = reader_u8(r);
        step_advance(t, first, reader_u8(r));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct target target = {.held_count = 0};
    struct reader r = reader_of(data, size);

    target_init(&target);
    while (r.left > 0 && reader_ok(&r))
        step(&target, &r);
    target_fini(&target);
    return 0;
}
