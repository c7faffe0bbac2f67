/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A guest that sends a frame a datagram, to a path of ours, or by an inherited pair.
 *
 * Nobody connects to a datagram socket in a way that shows. The guest is whoever sends first; it is
 * answered at the name it sent from. How depends on what it did:
 *
 * | way       | the guest                       | sent by                       | full, waited for
 * at |
 * |-----------|---------------------------------|-------------------------------|---------------------|
 * | nobody    | not seen yet, or gone           | –                             | – | | connected |
 * is not connected to us (QEMU)   | a second socket, connected    | that one            | | by name
 * | is connected to us (libkrun)    | the bound one, with its name  | the bound one       | | pair
 * | is the inherited pair's other end | the pair                    | the pair            |
 *
 * The bound socket itself is never connected: a guest that is killed does not show either, and the
 * kernel would refuse its successor's datagrams. A socket that is not connected waits for the
 * receiver's queue in vain, hence the second one; but a guest that is connected to the first takes
 * nothing from a second, hence the name. Which it is, connect() tells: EPERM.
 *
 * A guest is gone when sending to it fails and its name cannot be connected to any more. One that
 * was restarted in between has the same name and is found again so. Datagrams from another name are
 * a successor's if the guest is gone, else a stranger's, and dropped.
 *
 * The link changes in receive() and flush() only, never in the midst of a batch. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netdev/intake.h"
#include "netdev/message_io.h"
#include "netdev/netdev.h"
#include "netdev/software_offload.h"
#include "netdev/unix_socket.h"
#include "wire/ethernet.h"

#define BUFFERS      (1 << 20) /* what the kernel allows of it */
#define ATTEMPTS_MAX 3

static const uint8_t greeting[] = {'V', 'F', 'K', 'T'}; /* of libkrun and vfkit: a datagram of it */

enum way {
    WAY_NOBODY,
    WAY_CONNECTED,
    WAY_BY_NAME,
    WAY_PAIR,
};

struct dgram {
    struct netdev netdev; /* first: ops are given this */
    struct loop *loop;
    unsigned bound_handler, sender_handler;
    struct unix_name name; /* to be removed in the end */
    bool once, gone;
    int fd;     /* bound, or the pair */
    int sender; /* WAY_CONNECTED: the second socket; else -1 */

    enum way way;
    struct sockaddr_un guest; /* its name; WAY_CONNECTED, WAY_BY_NAME */
    socklen_t guest_len;
    bool full;    /* a send found no room; the way's socket is watched for writing */
    bool starved; /* somebody was told -EAGAIN and waits for writable() */
    int error;    /* of a send in the midst of a batch; flush() sees to it */
    struct message_reader reader;
    struct message_writer writer;
    struct software_sender software;
};

static struct dgram *dgram_of(struct netdev *netdev)
{
    return (struct dgram *)netdev;
}

/* ---- the link ---- */

static void set_link(struct dgram *dgram, bool up)
{
    if (dgram->netdev.link.up == up)
        return;
    dgram->netdev.link.up = up;
    dgram->netdev.link.generation++;
    if (up)
        count(dgram->netdev.counters, COUNTER_netdev_guests);
    if (dgram->netdev.link_changed)
        dgram->netdev.link_changed(dgram->netdev.ctx);
}

static void tell_readable(struct dgram *dgram)
{
    if (dgram->netdev.readable)
        dgram->netdev.readable(dgram->netdev.ctx);
}

static void tell_writable(struct dgram *dgram)
{
    if (!dgram->starved)
        return;
    dgram->starved = false;
    if (dgram->netdev.writable)
        dgram->netdev.writable(dgram->netdev.ctx);
}

/* Watches the socket that sends for room, or no more. The second socket is watched for nothing
 * else. */
static void watch(struct dgram *dgram, bool full)
{
    if (dgram->full == full)
        return;
    dgram->full = full;
    if (full)
        count(dgram->netdev.counters, COUNTER_netdev_full);
    if (dgram->way != WAY_CONNECTED)
        (void)loop_modify(dgram->loop, dgram->fd, full ? EPOLLIN | EPOLLOUT : EPOLLIN,
                          dgram->bound_handler, 0, 0);
    else if (full)
        (void)loop_add(dgram->loop, dgram->sender, EPOLLOUT, dgram->sender_handler, 0, 0);
    else
        loop_remove(dgram->loop, dgram->sender);
}

/* ---- the guest comes and goes ---- */

static void forget_way(struct dgram *dgram)
{
    watch(dgram, false);
    dgram->sender = close_fd(dgram->sender);
    dgram->way = WAY_NOBODY;
}

/* Finds the way to the guest's name. 0, or negative errno: it is not there. */
static int find_way(struct dgram *dgram)
{
    int fd = unix_socket_connect(&dgram->guest, dgram->guest_len, SOCK_DGRAM), size = BUFFERS;

    forget_way(dgram);
    if (fd == -EPERM) {
        dgram->way = WAY_BY_NAME;
        return 0;
    }
    if (fd < 0)
        return fd;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    dgram->sender = fd;
    dgram->way = WAY_CONNECTED;
    return 0;
}

static bool guest_is_there(const struct dgram *dgram)
{
    int fd = unix_socket_connect(&dgram->guest, dgram->guest_len, SOCK_DGRAM);

    close_fd(fd);
    return fd >= 0 || fd == -EPERM;
}

static void lose_guest(struct dgram *dgram)
{
    bool is_last = dgram->once || dgram->way == WAY_PAIR;

    forget_way(dgram);
    message_writer_reset(&dgram->writer);
    software_sender_end(&dgram->software);
    set_link(dgram, false);
    tell_writable(dgram);
    if (is_last) {
        dgram->gone = true;
        loop_remove(dgram->loop, dgram->fd);
        tell_readable(dgram); /* so that receive() is asked, and can say so */
    }
}

static bool is_guest(const struct dgram *dgram, const struct message_name *name)
{
    return name->len == dgram->guest_len && memcmp(name->address, &dgram->guest, name->len) == 0;
}

static int meet(struct dgram *dgram, const struct message_name *name)
{
    int r;

    memcpy(&dgram->guest, name->address, name->len);
    dgram->guest_len = name->len;
    r = find_way(dgram);
    if (r < 0) {
        count(dgram->netdev.counters, COUNTER_netdev_connect_failed);
        set_link(dgram, false);
        return r;
    }
    set_link(dgram, true);
    return 0;
}

/* Is a datagram from `name` the guest's? Whoever comes first, or after the guest has gone, is it.
 */
static bool admit(struct dgram *dgram, const struct message_name *name)
{
    if (dgram->way == WAY_PAIR)
        return true;
    if (name->len <= sizeof(sa_family_t) || name->len > sizeof dgram->guest) {
        count(dgram->netdev.counters, COUNTER_netdev_unnamed);
        return false;
    }
    if (dgram->way == WAY_NOBODY)
        return meet(dgram, name) == 0;
    if (is_guest(dgram, name))
        return true;
    if (!guest_is_there(dgram)) {
        if (!dgram->once) {
            lose_guest(dgram);
            return meet(dgram, name) == 0;
        }
        dgram->error = -ECONNREFUSED; /* the end, and flush() sees to it */
        return false;
    }
    count(dgram->netdev.counters, COUNTER_netdev_stranger);
    return false;
}

/* ---- from the guest ---- */

static bool is_greeting(const struct culvert_frame *frame)
{
    return frame->len == sizeof greeting && memcmp(frame->data, greeting, sizeof greeting) == 0;
}

/* False: not a frame of the guest's; it was counted where it is worth it. */
static bool accept_frame(struct dgram *dgram, const struct culvert_frame *frame,
                         const struct message_name *name)
{
    if (!admit(dgram, name) || is_greeting(frame))
        return false;
    if (frame->len < ETHERNET_HEADER_LEN) {
        count(dgram->netdev.counters, COUNTER_netdev_runt);
        return false;
    }
    return true;
}

static int dgram_receive(struct netdev *netdev, struct culvert_frame **ret_frames, int max)
{
    struct dgram *dgram = dgram_of(netdev);
    struct message_name name;
    struct intake intake = {.frames = ret_frames};
    struct culvert_frame *frame;
    int r = 1;

    for (int i = 0; i < max && !dgram->gone; i++) {
        r = message_reader_next(&dgram->reader, &frame, &name);
        if (r <= 0)
            break;
        if (accept_frame(dgram, frame, &name))
            intake_take(&intake, frame);
        else
            culvert_frame_unref(frame);
    }
    if (r < 0)
        count(netdev->counters, COUNTER_netdev_read_error);
    if (intake.taken > 0)
        return intake_end(&intake, netdev);
    return dgram->gone ? -EPIPE : 0;
}

/* ---- to the guest ---- */

static int send_queue(struct dgram *dgram)
{
    const struct message_name name = {&dgram->guest, dgram->guest_len};

    switch (dgram->way) {
    case WAY_CONNECTED:
        return message_writer_flush(&dgram->writer, dgram->sender, NULL);
    case WAY_BY_NAME:
        return message_writer_flush(&dgram->writer, dgram->fd, &name);
    case WAY_PAIR:
        return message_writer_flush(&dgram->writer, dgram->fd, NULL);
    case WAY_NOBODY:
        break;
    }
    message_writer_reset(&dgram->writer);
    return 0;
}

/* Sends what it can; an error other than "full" is kept for flush(). */
static void try_to_send(struct dgram *dgram)
{
    int r;

    if (dgram->full || dgram->error != 0)
        return;
    r = send_queue(dgram);
    if (r == -EAGAIN || r == -ENOBUFS)
        watch(dgram, true);
    else
        dgram->error = r;
}

static int dgram_put(void *ctx, struct culvert_frame *frame)
{
    struct dgram *dgram = ctx;
    size_t len = culvert_frame_len(frame); /* before it is queued: it may be sent and gone then */
    bool queued = message_writer_put(&dgram->writer, frame);

    if (!queued) {
        try_to_send(dgram);
        queued = message_writer_put(&dgram->writer, frame);
    }
    if (!queued) {
        dgram->starved = true;
        return -EAGAIN;
    }
    count(dgram->netdev.counters, COUNTER_netdev_frames_out);
    count_n(dgram->netdev.counters, COUNTER_netdev_bytes_out, len);
    return 0;
}

static int dgram_send(struct netdev *netdev, struct culvert_frame *frame)
{
    struct dgram *dgram = dgram_of(netdev);

    if (dgram->way == WAY_NOBODY) {
        count(netdev->counters, COUNTER_netdev_link_down);
        culvert_frame_unref(frame);
        return 0;
    }
    return software_sender_send(&dgram->software, &netdev->link, frame);
}

/* A send failed: the guest is at the same name again, wants another way, or is gone. */
static void repair(struct dgram *dgram)
{
    for (int i = 0; i < ATTEMPTS_MAX && dgram->error != 0; i++) {
        dgram->error = 0;
        if (dgram->way == WAY_PAIR || find_way(dgram) < 0) {
            lose_guest(dgram);
            return;
        }
        try_to_send(dgram);
    }
    if (dgram->error != 0) { /* found, and refusing: its frames are lost, it is not */
        count_n(dgram->netdev.counters, COUNTER_netdev_write_error, dgram->writer.count);
        message_writer_reset(&dgram->writer);
        dgram->error = 0;
    }
    if (!dgram->full && software_sender_resume(&dgram->software) == 0)
        tell_writable(dgram);
}

static void dgram_flush(struct netdev *netdev)
{
    struct dgram *dgram = dgram_of(netdev);

    if (dgram->writer.count != 0)
        try_to_send(dgram);
    if (dgram->error != 0)
        repair(dgram);
}

static void has_room(struct dgram *dgram)
{
    watch(dgram, false);
    try_to_send(dgram);
    if (!dgram->full && dgram->error == 0 && software_sender_resume(&dgram->software) == 0)
        tell_writable(dgram);
    dgram_flush(&dgram->netdev);
}

static void sender_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct dgram *dgram = ctx;

    (void)index, (void)generation, (void)events;
    if (dgram->full && dgram->way == WAY_CONNECTED)
        has_room(dgram);
}

static void bound_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct dgram *dgram = ctx;

    (void)index, (void)generation;
    if (dgram->gone)
        return;
    if (dgram->full && dgram->way != WAY_CONNECTED && (events & EPOLLOUT))
        has_room(dgram);
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        tell_readable(dgram);
}

/* ---- life ---- */

static void dgram_free(struct netdev *netdev)
{
    struct dgram *dgram = dgram_of(netdev);

    forget_way(dgram);
    if (dgram->fd >= 0) {
        loop_remove(dgram->loop, dgram->fd);
        close(dgram->fd);
    }
    unix_socket_unbind(&dgram->name);
    software_sender_end(&dgram->software);
    message_writer_reset(&dgram->writer);
    message_reader_fini(&dgram->reader);
    free(dgram);
}

static const struct netdev_ops dgram_ops = {
    .receive = dgram_receive,
    .send = dgram_send,
    .flush = dgram_flush,
    .free = dgram_free,
};

static int open_socket(struct dgram *dgram, const struct netdev_config *config, char *message,
                       size_t size)
{
    struct unix_where where;
    int r = unix_where_parse(config->where, &where, message, size);

    if (r < 0)
        return r;
    if (where.how == UNIX_CONNECT) {
        snprintf(message, size,
                 "datagram sockets answer whoever sends; give the PATH to listen at");
        return -EINVAL;
    }
    if (where.how == UNIX_FD)
        return unix_socket_inherit(where.fd, SOCK_DGRAM, message, size);
    return unix_socket_bind(&where.address, SOCK_DGRAM, &dgram->name, message, size);
}

static bool is_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;

    return getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
}

static int begin(struct dgram *dgram, const struct netdev_config *config, char *message,
                 size_t size)
{
    int fd = open_socket(dgram, config, message, size), buffers = BUFFERS, r;

    if (fd < 0)
        return fd;
    dgram->fd = fd;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffers, sizeof buffers);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffers, sizeof buffers);
    r = message_reader_init(&dgram->reader, fd, false, dgram->netdev.counters);
    if (r < 0)
        return r;
    if (is_connected(fd)) {
        dgram->way = WAY_PAIR;
        set_link(dgram, true);
    }
    return loop_add(dgram->loop, fd, EPOLLIN, dgram->bound_handler, 0, 0);
}

static void set_up(struct dgram *dgram, const struct netdev_config *config, struct loop *loop,
                   struct counters *counters)
{
    dgram->netdev.ops = &dgram_ops;
    dgram->netdev.counters = counters;
    /* The wire has no facts, and some VMMs put frames on it whose checksums they left undone. */
    dgram->netdev.link =
        (struct culvert_link){.offloads = CULVERT_LINK_CSUM_UNKNOWN, .mtu = config->mtu};
    dgram->loop = loop;
    dgram->once = config->once;
    dgram->fd = dgram->sender = -1;
    dgram->bound_handler = loop_add_handler(loop, bound_ready, dgram);
    dgram->sender_handler = loop_add_handler(loop, sender_ready, dgram);
    dgram->writer.counters = counters;
    dgram->software.put = dgram_put;
    dgram->software.ctx = dgram;
    dgram->software.counters = counters;
}

struct netdev *netdev_dgram_new(const struct netdev_config *config, struct loop *loop,
                                struct counters *counters, char *message, size_t size)
{
    struct dgram *dgram = calloc(1, sizeof *dgram);
    int r;

    message[0] = '\0';
    if (!dgram)
        return NULL;
    set_up(dgram, config, loop, counters);
    r = begin(dgram, config, message, size);
    if (r < 0) {
        if (message[0] == '\0')
            snprintf(message, size, "it cannot be set up: %s", strerror(-r));
        dgram_free(&dgram->netdev);
        errno = -r;
        return NULL;
    }
    return &dgram->netdev;
}
