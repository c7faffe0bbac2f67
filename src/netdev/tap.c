/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A TAP descriptor driven by the poll thread itself. It is watched level-triggered for reading and,
 * from a send that found it full until room is back, for writing.
 *
 * | state   | receive                  | send                         | watched for        |
 * |---------|--------------------------|------------------------------|--------------------|
 * | open    | frames, 0                | 0                            | reading            |
 * | full    | frames, 0                | -EAGAIN, the caller keeps it | reading, writing   |
 * | gone    | -ENODEV once, then 0     | dropped and counted          | nothing            |
 *
 * The device is gone when a read fails with anything but "not now": its namespace ended, or
 * somebody deleted it. While it is down it only refuses frames. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "netdev/intake.h"
#include "netdev/netdev.h"
#include "netdev/software_offload.h"
#include "netdev/tap.h"

struct tap {
    struct netdev netdev; /* first: ops are given this */
    int fd;
    struct loop *loop;
    unsigned handler;
    bool full, gone;
    struct tap_reader reader;
    struct software_sender sender;
};

static struct tap *tap_of(struct netdev *netdev)
{
    return (struct tap *)netdev;
}

/* ---- from the guest ---- */

static int device_gone(struct tap *tap)
{
    count(tap->netdev.counters, COUNTER_netdev_read_error);
    loop_remove(tap->loop, tap->fd);
    tap->gone = true;
    return -ENODEV;
}

/* Takes note of a frame that did not come whole. True: the device lives and may have more. */
static bool count_lost_frame(struct tap *tap, int error)
{
    switch (error) {
    case -ENOMEM:
        count(tap->netdev.counters, COUNTER_netdev_no_memory);
        return true;
    case -EMSGSIZE:
        count(tap->netdev.counters, COUNTER_netdev_oversize);
        return true;
    case -EBADMSG:
        count(tap->netdev.counters, COUNTER_netdev_runt);
        return true;
    default:
        return false;
    }
}

static int tap_receive(struct netdev *netdev, struct culvert_frame **ret_frames, int max)
{
    struct tap *tap = tap_of(netdev);
    struct intake intake = {.frames = ret_frames};

    /* Reads, not frames, are bounded: a guest that sends nothing but bad frames must not hold the
     * poll thread. */
    for (int reads = 0; reads < max && !tap->gone; reads++) {
        struct culvert_frame *frame;
        int r = tap_reader_next(&tap->reader, &frame);

        if (r == 0)
            break;
        if (r < 0) {
            if (count_lost_frame(tap, r))
                continue;
            r = device_gone(tap);
            if (intake.taken == 0)
                return r;
            break;
        }
        intake_check(&intake, netdev, frame);
    }
    return intake_end(&intake, netdev);
}

/* ---- to the guest ---- */

static void watch(struct tap *tap)
{
    uint32_t events = tap->full ? EPOLLIN | EPOLLOUT : EPOLLIN;
    (void)loop_modify(tap->loop, tap->fd, events, tap->handler, 0, 0);
}

static int tap_put(void *ctx, struct culvert_frame *frame)
{
    struct tap *tap = ctx;
    int r = tap_write(tap->fd, frame);

    if (r == -EAGAIN) {
        count(tap->netdev.counters, COUNTER_netdev_full);
        if (!tap->full) {
            tap->full = true;
            watch(tap);
        }
        return -EAGAIN;
    }
    if (r == 0) {
        count(tap->netdev.counters, COUNTER_netdev_frames_out);
        count_n(tap->netdev.counters, COUNTER_netdev_bytes_out, culvert_frame_len(frame));
    } else {
        count(tap->netdev.counters, COUNTER_netdev_write_error);
    }
    culvert_frame_unref(frame);
    return 0;
}

static int tap_send(struct netdev *netdev, struct culvert_frame *frame)
{
    struct tap *tap = tap_of(netdev);

    if (tap->gone) {
        count(netdev->counters, COUNTER_netdev_write_error);
        culvert_frame_unref(frame);
        return 0;
    }
    return software_sender_send(&tap->sender, &netdev->link, frame);
}

static void tap_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct tap *tap = ctx;

    (void)index;
    (void)generation;
    if (tap->full && (events & EPOLLOUT)) {
        tap->full = false;
        if (software_sender_resume(&tap->sender) == 0) {
            watch(tap);
            if (tap->netdev.writable)
                tap->netdev.writable(tap->netdev.ctx);
        }
    }
    /* An error is learnt of by reading. */
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) && tap->netdev.readable)
        tap->netdev.readable(tap->netdev.ctx);
}

/* ---- life ---- */

static void tap_free(struct netdev *netdev)
{
    struct tap *tap = tap_of(netdev);

    if (!tap->gone)
        loop_remove(tap->loop, tap->fd);
    software_sender_end(&tap->sender);
    tap_reader_fini(&tap->reader);
    close(tap->fd);
    free(tap);
}

static const struct netdev_ops tap_ops = {
    .receive = tap_receive,
    .send = tap_send,
    .free = tap_free,
};

static int tap_init(struct tap *tap, uint32_t mtu)
{
    uint32_t offloads;
    int r = tap_configure(tap->fd, &offloads);

    if (r < 0)
        return r;
    tap->netdev.link =
        (struct culvert_link){.offloads = offloads, .mtu = mtu, .up = true, .generation = 1};
    r = tap_reader_init(&tap->reader, tap->fd);
    if (r < 0)
        return r;
    tap->handler = loop_add_handler(tap->loop, tap_ready, tap);
    r = loop_add(tap->loop, tap->fd, EPOLLIN, tap->handler, 0, 0);
    if (r < 0)
        tap_reader_fini(&tap->reader);
    return r;
}

struct netdev *netdev_tap_new(int take_fd, uint32_t mtu, struct loop *loop,
                              struct counters *counters)
{
    struct tap *tap = calloc(1, sizeof *tap);
    int r;

    if (!tap)
        return NULL;
    tap->netdev.ops = &tap_ops;
    tap->netdev.counters = counters;
    tap->fd = take_fd;
    tap->loop = loop;
    tap->sender.put = tap_put;
    tap->sender.ctx = tap;
    tap->sender.counters = counters;
    r = tap_init(tap, mtu);
    if (r < 0) {
        free(tap);
        errno = -r;
        return NULL;
    }
    return &tap->netdev;
}
