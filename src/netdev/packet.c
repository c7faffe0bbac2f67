/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A guest at the other end of an interface: a TAP that a VMM opened, a veth. A packet socket sees
 * what comes in there and sends what goes out, both with virtio headers, so that the kernel's
 * super-segments and unfinished checksums pass as they are; what the interface cannot take of ours
 * the kernel cuts and sums.
 *
 * A packet socket has no back pressure: what an interface's queue has no room for is lost, and TCP
 * slows down by it. Only its own buffer, where frames wait for a slow queue, is waited for
 * (EAGAIN). An interface that is down refuses frames; one that was deleted is the end. */
#include "netdev/packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netdev/intake.h"
#include "netdev/message_io.h"
#include "netdev/netdev.h"
#include "netdev/software_offload.h"

#define RECEIVE_BUFFER (16 << 20) /* a few hundred super-segments; as much as the kernel gives */
#define SEND_BUFFER    (4 << 20)
#define LOOK_AGAIN_NS  200000000 /* while the interface is down */

#ifndef PACKET_IGNORE_OUTGOING /* since Linux 4.20 */
#define PACKET_IGNORE_OUTGOING 23
#endif

struct packet {
    struct netdev netdev; /* first: ops are given this */
    int fd;
    struct loop *loop;
    unsigned handler;
    bool full, starved, gone;
    bool deleted; /* the interface; receive() has yet to say so */
    int timer;    /* looks whether the interface, which went down, is gone or up again */
    unsigned timer_handler;
    struct message_reader reader;
    struct message_writer writer;
    struct software_sender software;
};

/* ---- the socket ---- */

static void set_buffer(int fd, int force, int option, int size)
{
    if (setsockopt(fd, SOL_SOCKET, force, &size, sizeof size) < 0)
        (void)setsockopt(fd, SOL_SOCKET, option, &size, sizeof size);
}

static int set_options(int fd)
{
    int on = 1;

    set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, RECEIVE_BUFFER);
    set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, SEND_BUFFER);
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) < 0)
        return -errno;
    return 0;
}

int packet_open(const char *name, char *message, size_t size)
{
    /* Protocol 0: nothing arrives before the socket is bound to its one interface. */
    _cleanup_close_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = (int)if_nametoindex(name),
    };
    int r;

    if (fd < 0) {
        r = -errno;
        snprintf(message, size, "%s",
                 r == -EPERM ? "packet sockets need CAP_NET_RAW in the interface's namespace; run "
                               "as root, or with --netns in a namespace of your own"
                             : strerror(-r));
        return r;
    }
    r = address.sll_ifindex == 0 ? -ENODEV : set_options(fd);
    if (r == 0 && bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        r = -errno;
    if (r < 0) {
        snprintf(message, size, "%s",
                 r == -ENODEV ? "no such interface; make it first, or name its --netns"
                              : strerror(-r));
        return r;
    }
    return TAKE_FD(fd);
}

/* ---- from the guest ---- */

static struct packet *packet_of(struct netdev *netdev)
{
    return (struct packet *)netdev;
}

/* The kernel unbinds the socket when the interface is deleted. */
static bool interface_is_gone(int fd)
{
    struct sockaddr_ll address = {0};
    socklen_t len = sizeof address;

    return getsockname(fd, (struct sockaddr *)&address, &len) < 0 || address.sll_ifindex <= 0;
}

static bool interface_is_up(int fd)
{
    struct sockaddr_ll address = {0};
    struct ifreq interface = {0};
    socklen_t len = sizeof address;

    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        return false;
    interface.ifr_ifindex = address.sll_ifindex;
    return ioctl(fd, SIOCGIFNAME, &interface) == 0 && ioctl(fd, SIOCGIFFLAGS, &interface) == 0 &&
           (interface.ifr_flags & IFF_UP);
}

static void tell_readable(struct packet *packet)
{
    if (packet->netdev.readable)
        packet->netdev.readable(packet->netdev.ctx);
}

static void look_again_soon(struct packet *packet)
{
    const struct itimerspec soon = {.it_value.tv_nsec = LOOK_AGAIN_NS};

    (void)timerfd_settime(packet->timer, 0, &soon, NULL);
}

/* Deleting an interface takes it down first, and only that is told. */
static int note_error(struct packet *packet, int error)
{
    if (interface_is_gone(packet->fd)) {
        loop_remove(packet->loop, packet->fd);
        packet->gone = true;
        return -ENODEV;
    }
    if (error == -ENETDOWN)
        look_again_soon(packet);
    else
        count(packet->netdev.counters, COUNTER_netdev_read_error);
    return 0;
}

static void timer_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct packet *packet = ctx;
    uint64_t expirations;

    (void)index, (void)generation, (void)events;
    (void)!read(packet->timer, &expirations, sizeof expirations);
    packet->deleted = interface_is_gone(packet->fd);
    if (packet->deleted)
        tell_readable(packet); /* so that receive() is asked, and can say so */
    else if (!interface_is_up(packet->fd))
        look_again_soon(packet);
}

static int packet_receive(struct netdev *netdev, struct culvert_frame **ret_frames, int max)
{
    struct packet *packet = packet_of(netdev);
    struct intake intake = {.frames = ret_frames};
    struct culvert_frame *frame;
    int r = 0;

    for (int i = 0; i < max && !packet->gone; i++) {
        r = message_reader_next(&packet->reader, &frame, NULL);
        if (r <= 0)
            break;
        intake_check(&intake, netdev, frame);
    }
    if (intake.taken > 0) /* an error comes again with the next event */
        return intake_end(&intake, netdev);
    if (packet->deleted && !packet->gone)
        r = -ENODEV;
    return r < 0 ? note_error(packet, r) : 0;
}

/* The kernel drops what its buffer has no room for, and counts it until it is asked. */
static void packet_refresh_counters(struct netdev *netdev)
{
    struct tpacket_stats stats = {0};
    socklen_t len = sizeof stats;

    if (getsockopt(packet_of(netdev)->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) == 0 &&
        stats.tp_drops > 0)
        count_shared(netdev->counters, COUNTER_netdev_lost, stats.tp_drops);
}

/* ---- to the guest ---- */

static void watch(struct packet *packet, bool full)
{
    if (packet->full == full)
        return;
    packet->full = full;
    if (full)
        count(packet->netdev.counters, COUNTER_netdev_full);
    (void)loop_modify(packet->loop, packet->fd, full ? EPOLLIN | EPOLLOUT : EPOLLIN,
                      packet->handler, 0, 0);
}

/* A frame that is refused costs that frame. ENOBUFS: the interface's queue was full. */
static void send_queue(struct packet *packet)
{
    while (packet->writer.count != 0) {
        int r = message_writer_flush(&packet->writer, packet->fd, NULL);

        if (r == 0)
            break;
        if (r == -EAGAIN) {
            watch(packet, true);
            return;
        }
        count(packet->netdev.counters, COUNTER_netdev_write_error);
        message_writer_drop(&packet->writer);
    }
    watch(packet, false);
}

static int packet_put(void *ctx, struct culvert_frame *frame)
{
    struct packet *packet = ctx;
    size_t len = culvert_frame_len(frame); /* before it is queued: it may be sent and gone then */
    bool queued = message_writer_put(&packet->writer, frame);

    if (!queued && !packet->full) {
        send_queue(packet);
        queued = message_writer_put(&packet->writer, frame);
    }
    if (!queued) {
        packet->starved = true;
        return -EAGAIN;
    }
    count(packet->netdev.counters, COUNTER_netdev_frames_out);
    count_n(packet->netdev.counters, COUNTER_netdev_bytes_out, len);
    return 0;
}

static int packet_send(struct netdev *netdev, struct culvert_frame *frame)
{
    struct packet *packet = packet_of(netdev);

    if (packet->gone) {
        count(netdev->counters, COUNTER_netdev_link_down);
        culvert_frame_unref(frame);
        return 0;
    }
    return software_sender_send(&packet->software, &netdev->link, frame);
}

static void packet_flush(struct netdev *netdev)
{
    struct packet *packet = packet_of(netdev);

    if (!packet->full && packet->writer.count != 0)
        send_queue(packet);
}

static void packet_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct packet *packet = ctx;

    (void)index, (void)generation;
    if (packet->full && (events & EPOLLOUT)) {
        send_queue(packet);
        if (!packet->full && software_sender_resume(&packet->software) == 0 && packet->starved) {
            packet->starved = false;
            if (packet->netdev.writable)
                packet->netdev.writable(packet->netdev.ctx);
        }
        packet_flush(&packet->netdev);
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        tell_readable(packet);
}

/* ---- life ---- */

static void packet_free(struct netdev *netdev)
{
    struct packet *packet = packet_of(netdev);

    if (!packet->gone)
        loop_remove(packet->loop, packet->fd);
    software_sender_end(&packet->software);
    message_writer_reset(&packet->writer);
    message_reader_fini(&packet->reader);
    if (packet->timer >= 0) {
        loop_remove(packet->loop, packet->timer);
        close(packet->timer);
    }
    close(packet->fd);
    free(packet);
}

static const struct netdev_ops packet_ops = {
    .receive = packet_receive,
    .send = packet_send,
    .flush = packet_flush,
    .refresh_counters = packet_refresh_counters,
    .free = packet_free,
};

static int set_up(struct packet *packet, uint32_t mtu)
{
    int r;

    packet->netdev.ops = &packet_ops;
    packet->netdev.link = (struct culvert_link){
        .offloads = CULVERT_LINK_CSUM | CULVERT_LINK_TSO4 | CULVERT_LINK_TSO6 | CULVERT_LINK_ECN,
        .mtu = mtu,
        .up = true,
        .generation = 1,
    };
    packet->writer.has_headers = true;
    packet->writer.counters = packet->software.counters = packet->netdev.counters;
    packet->software.put = packet_put;
    packet->software.ctx = packet;
    packet->handler = loop_add_handler(packet->loop, packet_ready, packet);
    packet->timer_handler = loop_add_handler(packet->loop, timer_ready, packet);
    packet->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (packet->timer < 0)
        return -errno;
    r = message_reader_init(&packet->reader, packet->fd, true, packet->netdev.counters);
    if (r == 0)
        r = loop_add(packet->loop, packet->timer, EPOLLIN, packet->timer_handler, 0, 0);
    if (r == 0)
        r = loop_add(packet->loop, packet->fd, EPOLLIN, packet->handler, 0, 0);
    return r;
}

struct netdev *netdev_packet_new(int take_fd, uint32_t mtu, struct loop *loop,
                                 struct counters *counters)
{
    struct packet *packet = calloc(1, sizeof *packet);
    int r;

    if (!packet)
        return NULL;
    packet->fd = take_fd;
    packet->loop = loop;
    packet->netdev.counters = counters;
    r = set_up(packet, mtu);
    if (r < 0) {
        message_reader_fini(&packet->reader);
        close_fd(packet->timer); /* and so out of the loop */
        free(packet);
        errno = -r;
        return NULL;
    }
    return &packet->netdev;
}
