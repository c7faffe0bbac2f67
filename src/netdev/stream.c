/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A guest at the other end of a stream socket, one at a time.
 *
 * | state   | there is           | watched                                    | next              |
 * |---------|--------------------|--------------------------------------------|-------------------|
 * | waiting | no connection      | the listener, or the timer of the next try | up, by a peer     |
 * | up      | a connection       | it, for reading; the listener              | full, waiting     |
 * | full    | a connection       | it, for reading and writing; the listener  | up, waiting       |
 * | gone    | nothing            | nothing                                    | –                 |
 *
 * The link is up in "up" and "full". "gone" comes after the guest of `once`, and after that of an
 * inherited connection, which cannot come again: receive() then says -EPIPE.
 *
 * A newcomer is refused while a guest is there. Whether it is there is asked when the newcomer
 * comes: the guest that ended a moment ago may not have been read to its end yet.
 *
 * Connections end in receive() and in event handlers only. A send that fails in the midst of a
 * batch shuts the socket, and the event of that ends it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netdev/intake.h"
#include "netdev/netdev.h"
#include "netdev/software_offload.h"
#include "netdev/stream_io.h"
#include "netdev/unix_socket.h"

#define SEND_BUFFER       (1 << 20) /* what the kernel allows of it */
#define RETRY_MS_MIN      20u
#define RETRY_MS_MAX      1000u
#define NEWCOMERS_AT_ONCE 4

struct stream {
    struct netdev netdev; /* first: ops are given this */
    struct loop *loop;
    unsigned listener_handler, connection_handler, timer_handler;
    struct unix_where where;
    struct unix_name name;
    bool once, gone;
    int listener; /* -1 but for UNIX_LISTEN and an inherited listener */
    int timer;    /* -1 but for UNIX_CONNECT */
    unsigned retry_ms;

    int connection;      /* -1: waiting, or gone */
    uint32_t generation; /* of the connection's events */
    bool full;           /* the peer does not read: the connection is watched for writing */
    bool starved;        /* somebody was told -EAGAIN and waits for writable() */
    bool broken;         /* a write failed: the connection's event will end it */
    struct stream_reader reader;
    struct stream_writer writer;
    struct software_sender sender;
};

static struct stream *stream_of(struct netdev *netdev)
{
    return (struct stream *)netdev;
}

/* ---- the link ---- */

static void set_link(struct stream *stream, bool up)
{
    stream->netdev.link.up = up;
    stream->netdev.link.generation++;
    if (stream->netdev.link_changed)
        stream->netdev.link_changed(stream->netdev.ctx);
}

static void tell_readable(struct stream *stream)
{
    if (stream->netdev.readable)
        stream->netdev.readable(stream->netdev.ctx);
}

static void tell_writable(struct stream *stream)
{
    if (!stream->starved)
        return;
    stream->starved = false;
    if (stream->netdev.writable)
        stream->netdev.writable(stream->netdev.ctx);
}

/* ---- a guest comes ---- */

static int take_connection(struct stream *stream, int take_fd)
{
    int size = SEND_BUFFER, r;

    (void)setsockopt(take_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    stream->generation = (stream->generation + 1) & LOOP_GENERATION_MAX;
    r = loop_add(stream->loop, take_fd, EPOLLIN, stream->connection_handler, 0, stream->generation);
    if (r < 0) {
        close(take_fd);
        return r;
    }
    stream->connection = take_fd;
    stream->retry_ms = RETRY_MS_MIN;
    count(stream->netdev.counters, COUNTER_netdev_guests);
    set_link(stream, true);
    return 0;
}

static void set_timer(struct stream *stream)
{
    struct itimerspec when = {
        .it_value = {.tv_sec = stream->retry_ms / 1000,
                     .tv_nsec = (long)(stream->retry_ms % 1000) * 1000000},
    };

    (void)timerfd_settime(stream->timer, 0, &when, NULL);
    stream->retry_ms *= 2;
    if (stream->retry_ms > RETRY_MS_MAX)
        stream->retry_ms = RETRY_MS_MAX;
}

/* 0, or why there is no connection; the next try is arranged for. */
static int try_to_connect(struct stream *stream)
{
    int fd = unix_socket_connect(&stream->where.address, sizeof stream->where.address, SOCK_STREAM);
    int r = fd < 0 ? fd : take_connection(stream, fd);

    if (r == 0)
        return 0;
    count(stream->netdev.counters, COUNTER_netdev_connect_failed);
    set_timer(stream);
    return r;
}

/* ---- a guest goes ---- */

static void finish(struct stream *stream)
{
    stream->gone = true;
    if (stream->listener >= 0) {
        loop_remove(stream->loop, stream->listener);
        stream->listener = close_fd(stream->listener);
    }
    tell_readable(stream); /* so that receive() is asked, and can say so */
}

static void drop_connection(struct stream *stream)
{
    loop_remove(stream->loop, stream->connection);
    stream->connection = close_fd(stream->connection);
    stream->full = stream->broken = false;
    stream_reader_reset(&stream->reader);
    stream_writer_reset(&stream->writer);
    software_sender_end(&stream->sender);
    set_link(stream, false);
    tell_writable(stream);
    if (stream->once || (stream->listener < 0 && stream->timer < 0))
        finish(stream);
    else if (stream->timer >= 0)
        set_timer(stream);
}

static bool guest_is_there(const struct stream *stream)
{
    struct pollfd connection = {.fd = stream->connection, .events = POLLRDHUP};

    return poll(&connection, 1, 0) == 0;
}

static void listener_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct stream *stream = ctx;

    (void)index, (void)generation, (void)events;
    for (int i = 0; i < NEWCOMERS_AT_ONCE && stream->listener >= 0; i++) {
        int fd = accept4(stream->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
            return;
        if (stream->connection >= 0 && !guest_is_there(stream))
            drop_connection(stream);
        if (stream->connection >= 0 || stream->gone) {
            count(stream->netdev.counters, COUNTER_netdev_guest_refused);
            close(fd);
        } else {
            (void)take_connection(stream, fd);
        }
    }
}

static void timer_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct stream *stream = ctx;
    uint64_t expirations;

    (void)index, (void)generation, (void)events;
    if (read(stream->timer, &expirations, sizeof expirations) > 0 && stream->connection < 0)
        (void)try_to_connect(stream);
}

/* ---- from the guest ---- */

static void lose_guest(struct stream *stream, int error)
{
    if (error == -EBADMSG)
        count(stream->netdev.counters, COUNTER_netdev_bad_length);
    else if (error != -EPIPE && error != -ECONNRESET)
        count(stream->netdev.counters, COUNTER_netdev_read_error);
    drop_connection(stream);
}

static int stream_receive(struct netdev *netdev, struct culvert_frame **ret_frames, int max)
{
    struct stream *stream = stream_of(netdev);
    struct intake intake = {.frames = ret_frames};
    struct culvert_frame *frame;
    int r = 0;

    while (intake.taken < max && stream->connection >= 0) {
        r = stream_reader_next(&stream->reader, stream->connection, &frame);
        if (r <= 0)
            break;
        intake_take(&intake, frame);
    }
    if (intake.taken > 0) {
        if (r < 0) /* what came before it first, and its answers; then the same error, by an event
                    */
            (void)shutdown(stream->connection, SHUT_RD);
        return intake_end(&intake, netdev);
    }
    if (r < 0)
        lose_guest(stream, r);
    return stream->gone ? -EPIPE : 0;
}

/* ---- to the guest ---- */

static void watch(struct stream *stream, bool full)
{
    if (stream->full == full)
        return;
    stream->full = full;
    if (full)
        count(stream->netdev.counters, COUNTER_netdev_full);
    (void)loop_modify(stream->loop, stream->connection, full ? EPOLLIN | EPOLLOUT : EPOLLIN,
                      stream->connection_handler, 0, stream->generation);
}

static void write_queue(struct stream *stream)
{
    int r = stream_writer_flush(&stream->writer, stream->connection);

    if (r < 0 && r != -EAGAIN) {
        if (r != -EPIPE && r != -ECONNRESET)
            count(stream->netdev.counters, COUNTER_netdev_write_error);
        stream->broken = true;
        stream_writer_reset(&stream->writer);
        (void)shutdown(stream->connection, SHUT_RDWR);
    }
    watch(stream, r == -EAGAIN);
}

/* False: no room, even after an attempt to make some; or broken. */
static bool queue_frame(struct stream *stream, struct culvert_frame *take_frame)
{
    if (stream->broken)
        return false;
    if (stream_writer_put(&stream->writer, take_frame))
        return true;
    if (!stream->full)
        write_queue(stream);
    return !stream->broken && stream_writer_put(&stream->writer, take_frame);
}

static int stream_put(void *ctx, struct culvert_frame *frame)
{
    struct stream *stream = ctx;
    size_t len = culvert_frame_len(frame); /* before it is queued: it may be sent and gone then */

    if (queue_frame(stream, frame)) {
        count(stream->netdev.counters, COUNTER_netdev_frames_out);
        count_n(stream->netdev.counters, COUNTER_netdev_bytes_out, len);
        return 0;
    }
    if (stream->broken) {
        count(stream->netdev.counters, COUNTER_netdev_link_down);
        culvert_frame_unref(frame);
        return 0;
    }
    stream->starved = true;
    return -EAGAIN;
}

static int stream_send(struct netdev *netdev, struct culvert_frame *frame)
{
    struct stream *stream = stream_of(netdev);

    if (stream->connection < 0) {
        count(netdev->counters, COUNTER_netdev_link_down);
        culvert_frame_unref(frame);
        return 0;
    }
    return software_sender_send(&stream->sender, &netdev->link, frame);
}

static void stream_flush(struct netdev *netdev)
{
    struct stream *stream = stream_of(netdev);

    if (stream->connection >= 0 && !stream->full && stream->writer.count != 0)
        write_queue(stream);
}

static void connection_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct stream *stream = ctx;

    (void)index;
    if (stream->connection < 0 || generation != stream->generation)
        return;
    if (stream->broken) {
        drop_connection(stream);
        return;
    }
    if (stream->full && (events & EPOLLOUT)) {
        write_queue(stream);
        if (!stream->full && software_sender_resume(&stream->sender) == 0)
            tell_writable(stream);
        stream_flush(&stream->netdev);
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        tell_readable(stream);
}

/* ---- life ---- */

static void stream_free(struct netdev *netdev)
{
    struct stream *stream = stream_of(netdev);
    int *fds[] = {&stream->connection, &stream->listener, &stream->timer};

    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (*fds[i] >= 0)
            loop_remove(stream->loop, *fds[i]);
        close_fd(*fds[i]);
    }
    unix_socket_unbind(&stream->name);
    software_sender_end(&stream->sender);
    stream_writer_reset(&stream->writer);
    stream_reader_fini(&stream->reader);
    free(stream);
}

static const struct netdev_ops stream_ops = {
    .receive = stream_receive,
    .send = stream_send,
    .flush = stream_flush,
    .free = stream_free,
};

static int watch_listener(struct stream *stream, int take_fd)
{
    stream->listener = take_fd;
    return loop_add(stream->loop, take_fd, EPOLLIN, stream->listener_handler, 0, 0);
}

static int begin_listening(struct stream *stream, char *message, size_t size)
{
    int fd = unix_socket_bind(&stream->where.address, SOCK_STREAM, &stream->name, message, size);

    return fd < 0 ? fd : watch_listener(stream, fd);
}

/* A peer that is not there yet is waited for, except with `once`: it would be waited for in vain.
 */
static int begin_connecting(struct stream *stream, char *message, size_t size)
{
    int r;

    stream->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (stream->timer < 0)
        return -errno;
    r = loop_add(stream->loop, stream->timer, EPOLLIN, stream->timer_handler, 0, 0);
    if (r < 0)
        return r;
    r = try_to_connect(stream);
    if (r < 0 && stream->once) {
        snprintf(message, size, "nobody can be connected to there: %s; start the VMM first",
                 strerror(-r));
        return r;
    }
    return 0;
}

static int begin_inherited(struct stream *stream, char *message, size_t size)
{
    int fd = unix_socket_inherit(stream->where.fd, SOCK_STREAM, message, size), listens = 0;
    socklen_t len = sizeof listens;

    if (fd < 0)
        return fd;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens)
        return watch_listener(stream, fd);
    return take_connection(stream, fd);
}

static int begin(struct stream *stream, const struct netdev_config *config, char *message,
                 size_t size)
{
    int r = unix_where_parse(config->where, &stream->where, message, size);

    if (r == 0)
        r = stream_reader_init(&stream->reader, stream->netdev.counters);
    if (r < 0)
        return r;
    switch (stream->where.how) {
    case UNIX_LISTEN:
        return begin_listening(stream, message, size);
    case UNIX_CONNECT:
        return begin_connecting(stream, message, size);
    case UNIX_FD:
        return begin_inherited(stream, message, size);
    }
    return -EINVAL;
}

static void set_up(struct stream *stream, const struct netdev_config *config, struct loop *loop,
                   struct counters *counters)
{
    stream->netdev.ops = &stream_ops;
    stream->netdev.counters = counters;
    /* The wire has no facts, and some VMMs put frames on it whose checksums they left undone. */
    stream->netdev.link =
        (struct culvert_link){.offloads = CULVERT_LINK_CSUM_UNKNOWN, .mtu = config->mtu};
    stream->loop = loop;
    stream->once = config->once;
    stream->listener = stream->timer = stream->connection = -1;
    stream->retry_ms = RETRY_MS_MIN;
    stream->listener_handler = loop_add_handler(loop, listener_ready, stream);
    stream->connection_handler = loop_add_handler(loop, connection_ready, stream);
    stream->timer_handler = loop_add_handler(loop, timer_ready, stream);
    stream->sender.put = stream_put;
    stream->sender.ctx = stream;
    stream->sender.counters = counters;
}

struct netdev *netdev_stream_new(const struct netdev_config *config, struct loop *loop,
                                 struct counters *counters, char *message, size_t size)
{
    struct stream *stream = calloc(1, sizeof *stream);
    int r;

    message[0] = '\0';
    if (!stream)
        return NULL;
    set_up(stream, config, loop, counters);
    r = begin(stream, config, message, size);
    if (r < 0) {
        if (message[0] == '\0')
            snprintf(message, size, "it cannot be set up: %s", strerror(-r));
        stream_free(&stream->netdev);
        errno = -r;
        return NULL;
    }
    return &stream->netdev;
}
