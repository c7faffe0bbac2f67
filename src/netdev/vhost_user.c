/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * The back end of a vhost-user network device: a front end (QEMU, cloud-hypervisor, crosvm, DPDK)
 * connects to our socket, shares the guest's memory and says where the virtqueues lie in it; from
 * then on the guest's driver and the poll thread move frames without the front end.
 *
 *     vhost_user_socket.c     the socket                 vhost_user_memory.c    regions and
 * mappings vhost_user_message.c    messages on it             vhost_user_ring.c      a ring,
 * checked vhost_user_protocol.c   what they ask for          vhost_user_queue.c     starting and
 * stopping vhost_user_transmit.c   descriptors → frames       vhost_user_deliver.c   frames →
 * descriptors vhost_user_steering.c   a flow's pair of queues    vhost_user_control.c   the control
 * queue
 *
 * | state        | means                                   | left by                              |
 * |--------------|-----------------------------------------|--------------------------------------|
 * | listening    | nobody is there, the link is down       | a connection                         |
 * | connected    | messages come, rings may be started;    | the front end's going, a fault       |
 * |              | up while the first pair is usable       |                                      |
 * | ended        | with `once`, or without a listener:     | -                                    |
 * |              | receive() has returned -EPIPE           |                                      |
 *
 * While the poll thread is awake it looks at the rings in every turn and guests need not kick;
 * will_sleep() asks them to and looks once more. What a batch gave back is published, and the guest
 * called if it wants to be, once at its end (flush).
 *
 * A ring that lies makes the connection end, but not in the middle of the batch that found out:
 * vhost_user_fail() takes note of it, nothing more is read or written, and settle() does the rest
 * where the stack is not at work. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "netdev/vhost_user_internal.h"
#include "wire/virtio_net.h"

/* What descriptors stand for in the loop, beside the kicks of the queue of that number. */
#define INDEX_CONNECTION 0x100u
#define INDEX_LISTENER   0x101u

#define MESSAGES_AT_ONCE 64

/* Frames that are copied whole have no more bytes than this. */
#define LINEAR_LEN   2048u
#define SEGMENTS_MAX 20u
#define FRAMES_MAX   32768u
#define FRAMES_KEPT  256u
#define COPIES_MAX   1024u
#define COPIES_KEPT  8u

enum counter vhost_ring_reason(int fault)
{
    switch (fault) {
    case -ERANGE:
        return COUNTER_vhost_user_bad_index;
    case -EFAULT:
        return COUNTER_vhost_user_bad_address;
    default:
        return COUNTER_vhost_user_bad_chain;
    }
}

void vhost_user_fail(struct vhost_user *device, enum counter reason)
{
    if (device->fault >= 0)
        return;
    device->fault = (int)reason;
    count(device->netdev.counters, reason);
}

/* ---- the link ---- */

static uint32_t offloads_of(const struct vhost_user *device)
{
    static const struct {
        unsigned feature;
        uint32_t offload;
    } table[] = {
        {VIRTIO_NET_F_GUEST_CSUM, CULVERT_LINK_CSUM},
        {VIRTIO_NET_F_GUEST_TSO4, CULVERT_LINK_TSO4},
        {VIRTIO_NET_F_GUEST_TSO6, CULVERT_LINK_TSO6},
        {VIRTIO_NET_F_GUEST_ECN, CULVERT_LINK_ECN},
    };
    uint32_t offloads = 0;

    if (!vhost_user_has(device, VIRTIO_NET_F_GUEST_CSUM))
        return 0; /* the others stand on it (virtio 1.2, 5.1.3.1) */
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (vhost_user_has(device, table[i].feature))
            offloads |= table[i].offload;
    if (vhost_user_has(device, VIRTIO_NET_F_GUEST_USO4) &&
        vhost_user_has(device, VIRTIO_NET_F_GUEST_USO6))
        offloads |= CULVERT_LINK_USO;
    return offloads;
}

static unsigned usable_pairs(const struct vhost_user *device)
{
    unsigned pairs = 0;

    for (unsigned i = 0; i + 1 < device->queue_count; i += 2)
        pairs +=
            vhost_queue_usable(&device->queues[i]) && vhost_queue_usable(&device->queues[i + 1]);
    return pairs;
}

/* Computes what follows from features and queues, and tells the engine if the link has changed. */
static void refresh_link(struct vhost_user *device)
{
    struct netdev *netdev = &device->netdev;
    struct culvert_link link = netdev->link;

    device->pairs = usable_pairs(device);
    device->header_len =
        vhost_user_has(device, VIRTIO_F_VERSION_1) || vhost_user_has(device, VIRTIO_NET_F_MRG_RXBUF)
            ? VIRTIO_NET_HEADER_LEN
            : VIRTIO_NET_HEADER_LEN_SHORT;
    device->frame_max = SIZE_MAX;
    link.up = device->fault < 0 && vhost_queue_usable(&device->queues[0]) &&
              vhost_queue_usable(&device->queues[1]);
    link.offloads = link.up ? offloads_of(device) : 0;
    link.mtu =
        device->asked_mtu != 0 && device->asked_mtu < device->mtu ? device->asked_mtu : device->mtu;
    if (link.up == netdev->link.up && link.offloads == netdev->link.offloads &&
        link.mtu == netdev->link.mtu)
        return;
    bool came_up = link.up && !netdev->link.up;
    link.generation++;
    netdev->link = link;
    software_sender_end(&device->sender); /* what was begun for the link as it was */
    if (netdev->link_changed)
        netdev->link_changed(netdev->ctx);
    if (came_up && netdev->writable)
        netdev->writable(netdev->ctx);
}

/* ---- sessions ---- */

static int session_begin(struct vhost_user *device, int take_fd)
{
    int r;

    device->session = (device->session + 1) & LOOP_GENERATION_MAX;
    r = loop_add(device->loop, take_fd, EPOLLIN, device->handler, INDEX_CONNECTION,
                 device->session);
    if (r < 0) {
        close_fd(take_fd);
        return r;
    }
    device->connection = take_fd;
    count(device->netdev.counters, COUNTER_netdev_guests);
    return 0;
}

static void session_end(struct vhost_user *device)
{
    vhost_user_reset(device);
    loop_remove(device->loop, device->connection);
    device->connection = close_fd(device->connection);
    vhost_user_message_clear(&device->message);
    device->fault = -1;
    refresh_link(device);
    device->ended = device->listener < 0 || device->once;
    if (device->ended && device->netdev.readable)
        device->netdev.readable(device->netdev.ctx);
}

/* Where the stack is not at work: ends a session that has failed. */
static void settle(struct vhost_user *device)
{
    if (device->fault >= 0 && device->connection >= 0)
        session_end(device);
}

static void look_for_room(struct vhost_user *device)
{
    if (vhost_deliver_has_room(device) && software_sender_resume(&device->sender) == 0 &&
        device->netdev.writable)
        device->netdev.writable(device->netdev.ctx);
}

static void read_messages(struct vhost_user *device)
{
    for (int i = 0; i < MESSAGES_AT_ONCE && device->fault < 0; i++) {
        int r = vhost_user_message_read(device->connection, &device->message);

        if (r == 0)
            return;
        if (r < 0) {
            if (r == -EPROTO)
                vhost_user_fail(device, COUNTER_vhost_user_bad_message);
            session_end(device);
            return;
        }
        vhost_user_handle(device, &device->message);
        vhost_user_message_clear(&device->message);
        refresh_link(device);
        if (device->fault < 0)
            look_for_room(device); /* a queue that was waited for may have stopped */
    }
    settle(device);
}

/* Of a front end that died and its successor, the successor's event may be the first. */
static bool front_end_is_gone(const struct vhost_user *device)
{
    struct pollfd connection = {.fd = device->connection, .events = POLLRDHUP};

    return poll(&connection, 1, 0) == 1;
}

static void take_connection(struct vhost_user *device)
{
    int fd = accept4(device->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) /* it went away again, or there are no descriptors: it is still there then */
        return;
    if (device->connection >= 0 && front_end_is_gone(device))
        session_end(device);
    if (device->connection >= 0 || device->ended) {
        count(device->netdev.counters, COUNTER_netdev_guest_refused);
        close_fd(fd);
        return;
    }
    (void)session_begin(device, fd);
}

static void vhost_user_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct vhost_user *device = ctx;

    (void)events;
    if (index == INDEX_LISTENER) {
        take_connection(device);
    } else if (device->connection < 0 || generation != device->session) {
        return;
    } else if (index == INDEX_CONNECTION) {
        read_messages(device);
    } else if (device->netdev.readable) {
        device->netdev.readable(device->netdev.ctx);
    }
}

/* ---- from the guest ---- */

static void wake_up(struct vhost_user *device)
{
    if (device->awake)
        return;
    device->awake = true;
    for (unsigned i = 0; i < device->queue_count; i++)
        if (device->queues[i].started)
            vhost_ring_disarm(&device->queues[i].ring);
}

/* Frames of all transmit queues in turn. */
static int receive_from_queues(struct vhost_user *device, struct culvert_frame **ret_frames,
                               int max, uint64_t *bytes)
{
    int taken = 0;

    for (unsigned n = 0; n < device->queue_count && taken < max && device->fault < 0; n++) {
        struct vhost_queue *queue = &device->queues[device->next_transmit % device->queue_count];

        device->next_transmit = (device->next_transmit + 1) % device->queue_count;
        if (queue->flights)
            taken += vhost_transmit(device, queue, ret_frames + taken, max - taken, bytes);
        else if (queue->started && vhost_queue_is_control(device, queue))
            vhost_control(device, queue);
    }
    return taken;
}

static int vhost_user_receive(struct netdev *netdev, struct culvert_frame **ret_frames, int max)
{
    struct vhost_user *device = vhost_user_of(netdev);
    uint64_t bytes = 0;
    int taken;

    settle(device);
    if (device->ended && !device->end_reported) {
        device->end_reported = true;
        return -EPIPE;
    }
    wake_up(device);
    look_for_room(device);
    taken = receive_from_queues(device, ret_frames, max, &bytes);
    if (taken > 0) {
        count_n(netdev->counters, COUNTER_netdev_frames_in, (uint64_t)taken);
        count_n(netdev->counters, COUNTER_netdev_bytes_in, bytes);
    }
    return taken;
}

/* ---- to the guest ---- */

static int vhost_user_send(struct netdev *netdev, struct culvert_frame *frame)
{
    struct vhost_user *device = vhost_user_of(netdev);

    if (!netdev->link.up) {
        count(netdev->counters, COUNTER_netdev_link_down);
        culvert_frame_unref(frame);
        return 0;
    }
    if (__builtin_expect(device->frame_max != SIZE_MAX, false) &&
        culvert_frame_len(frame) > device->frame_max) {
        const struct culvert_link small = {.offloads = netdev->link.offloads & CULVERT_LINK_CSUM};

        return software_sender_send(&device->sender, &small, frame);
    }
    return software_sender_send(&device->sender, &netdev->link, frame);
}

static void vhost_user_flush(struct netdev *netdev)
{
    struct vhost_user *device = vhost_user_of(netdev);

    settle(device);
    for (unsigned i = 0; i < device->queue_count; i++)
        if (device->queues[i].started)
            vhost_queue_flush(&device->queues[i]);
}

/* ---- sleep ---- */

/* Asks for a kick where one would mean something. True: there is something already. */
static bool arm_queue(const struct vhost_user *device, struct vhost_queue *queue)
{
    if (!queue->started || (vhost_queue_is_receive(device, queue) && !queue->starved &&
                            !vhost_queue_is_control(device, queue)))
        return false;
    if (vhost_ring_arm(&queue->ring))
        return true;
    return !queue->starved && queue->ring.seen != queue->ring.taken;
}

static bool vhost_user_will_sleep(struct netdev *netdev)
{
    struct vhost_user *device = vhost_user_of(netdev);

    if (!device->awake)
        return false;
    device->awake = false;
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (arm_queue(device, &device->queues[i])) {
            wake_up(device);
            return true;
        }
    }
    return false;
}

/* ---- life ---- */

static void vhost_user_free(struct netdev *netdev)
{
    struct vhost_user *device = vhost_user_of(netdev);

    netdev->link_changed = netdev->readable = netdev->writable = NULL;
    if (device->connection >= 0)
        session_end(device);
    software_sender_end(&device->sender);
    if (device->listener >= 0) {
        loop_remove(device->loop, device->listener);
        close_fd(device->listener);
    }
    unix_socket_unbind(&device->name);
    pool_free(device->frames);
    pool_free(device->copies);
    free(device);
}

static const struct netdev_ops vhost_user_ops = {
    .receive = vhost_user_receive,
    .send = vhost_user_send,
    .flush = vhost_user_flush,
    .will_sleep = vhost_user_will_sleep,
    .free = vhost_user_free,
};

static bool make_pools(struct vhost_user *device)
{
    const struct pool_config frames = {
        .linear_capacity = LINEAR_LEN,
        .segment_capacity = SEGMENTS_MAX,
        .max = FRAMES_MAX,
        .keep = FRAMES_KEPT,
    };
    const struct pool_config copies = {
        .buffer_capacity = CULVERT_FRAME_MAX,
        .max = COPIES_MAX,
        .keep = COPIES_KEPT,
    };

    device->frames = pool_new(&frames);
    device->copies = pool_new(&copies);
    return device->frames && device->copies;
}

static struct vhost_user *device_new(const struct netdev_config *config, struct loop *loop,
                                     struct counters *counters)
{
    struct vhost_user *device = calloc(1, sizeof *device);

    if (!device)
        return NULL;
    device->netdev.ops = &vhost_user_ops;
    device->netdev.counters = counters;
    device->netdev.link = (struct culvert_link){.mtu = config->mtu, .generation = 1};
    device->loop = loop;
    device->listener = device->connection = -1;
    device->once = config->once;
    device->mtu = (uint16_t)config->mtu;
    device->fault = -1;
    for (unsigned i = 0; i < VHOST_QUEUES_MAX; i++)
        vhost_queue_init(&device->queues[i]);
    device->sender.put = vhost_deliver;
    device->sender.ctx = device;
    device->sender.counters = counters;
    if (!make_pools(device)) {
        vhost_user_free(&device->netdev);
        return NULL;
    }
    return device;
}

static int watch_listener(struct vhost_user *device, int take_fd)
{
    device->listener = take_fd;
    return loop_add(device->loop, take_fd, EPOLLIN, device->handler, INDEX_LISTENER, 0);
}

static int begin_listening(struct vhost_user *device, const struct unix_where *where, char *message,
                           size_t size)
{
    int fd = unix_socket_bind(&where->address, SOCK_STREAM, &device->name, message, size);

    if (fd < 0)
        return fd;
    return watch_listener(device, fd);
}

static int begin_inherited(struct vhost_user *device, int inherited, char *message, size_t size)
{
    int fd = unix_socket_inherit(inherited, SOCK_STREAM, message, size), listens = 0;
    socklen_t len = sizeof listens;

    if (fd < 0)
        return fd;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || !listens)
        return session_begin(device, fd);
    return watch_listener(device, fd);
}

static int begin(struct vhost_user *device, const char *where, char *message, size_t size)
{
    struct unix_where place;
    int r = unix_where_parse(where, &place, message, size);

    if (r < 0)
        return r;
    switch (place.how) {
    case UNIX_LISTEN:
        return begin_listening(device, &place, message, size);
    case UNIX_FD:
        return begin_inherited(device, place.fd, message, size);
    case UNIX_CONNECT:
        break;
    }
    snprintf(message, size,
             "a front end connects to culvert here; give the path alone, and let the "
             "front end be the client");
    return -EINVAL;
}

struct netdev *netdev_vhost_user_new(const struct netdev_config *config, struct loop *loop,
                                     struct counters *counters, char *message, size_t size)
{
    struct vhost_user *device = device_new(config, loop, counters);
    int r;

    message[0] = '\0';
    if (!device) {
        errno = ENOMEM;
        return NULL;
    }
    device->handler = loop_add_handler(loop, vhost_user_ready, device);
    r = begin(device, config->where, message, size);
    if (r < 0) {
        vhost_user_free(&device->netdev);
        errno = -r;
        return NULL;
    }
    return &device->netdev;
}
