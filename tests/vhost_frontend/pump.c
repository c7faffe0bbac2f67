/* SPDX-License-Identifier: Apache-2.0 */
/* A vhost-user front end whose guest is a Linux network namespace.
 *
 *     vhost-pump [OPTIONS] SOCKET -- COMMAND [ARG...]
 *
 * COMMAND runs in a network namespace of its own, with eth0, a TAP with virtio headers; what passes
 * there is put through virtqueues to the back end at SOCKET and back, as a machine's driver and
 * hypervisor together would. So the back end is tested and measured at full speed without a
 * machine. Exits with COMMAND's status, or 125.
 *
 *     --queue-size N     descriptors of each ring (256)
 *     --rx-buffer N      bytes of each receive buffer (4096)
 *     --mtu N            of eth0 (1500)
 *     --without NAME     leaves a feature out: mrg, event-idx, indirect, csum, tso, guest-csum,
 *                        guest-tso; repeatable
 *     --address A/P      of eth0 (10.0.2.100/24); --gateway A (10.0.2.2)
 *     --no-address       sets no address: the command asks DHCP
 *
 * One thread does all the moving, as vhost-net's does, and sleeps when both sides are quiet. When
 * the back end goes away, it is connected to again, and the rings go on where they stood. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frontend.h"
#include "netdev/tap.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef VIRTIO_NET_F_HOST_USO
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO   56
#endif

#define FEATURE(bit) (UINT64_C(1) << (bit))

#define RX          0
#define TX          1
#define FRAME_MAX   (12u + 65593u)
#define SLOT        (68u << 10) /* of a transmitted frame */
#define HEADERS_LEN (12u + 114u)
#define FRAGMENT    (32u << 10) /* as large as Linux makes them */
#define TX_PIECES   5u
#define RX_PIECES   128u
#define BATCH       64
#define RETRY_MS    50

enum { EVENT_TAP, EVENT_RX, EVENT_TX, EVENT_SOCKET, EVENT_SIGNAL };

struct options {
    const char *socket, *address, *gateway;
    char **command;
    uint64_t without;
    unsigned mtu, rx_buffer;
    uint16_t queue_size;
};

struct pump {
    struct frontend frontend;
    struct options options;
    int tap, epoll, signals;
    pid_t child;
    uint8_t **tx_slot;             /* by descriptor */
    struct vring_desc **tx_pieces; /* indirect tables, by descriptor */
    uint16_t *tx_free;
    unsigned tx_free_count;
    uint8_t **rx_slot;
    bool connected;
};

static void die(const char *what, int error)
{
    fprintf(stderr, "vhost-pump: %s: %s\n", what, strerror(error < 0 ? -error : error));
    exit(125);
}

/* ---- options ---- */

static uint64_t feature_named(const char *name)
{
    static const struct {
        const char *name;
        uint64_t bits;
    } table[] = {
        {"mrg", FEATURE(VIRTIO_NET_F_MRG_RXBUF)},
        {"event-idx", FEATURE(VIRTIO_RING_F_EVENT_IDX)},
        {"indirect", FEATURE(VIRTIO_RING_F_INDIRECT_DESC)},
        {"csum", FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_HOST_TSO4) |
                     FEATURE(VIRTIO_NET_F_HOST_TSO6) | FEATURE(VIRTIO_NET_F_HOST_ECN) |
                     FEATURE(VIRTIO_NET_F_HOST_USO)},
        {"tso", FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_HOST_TSO6) |
                    FEATURE(VIRTIO_NET_F_HOST_ECN) | FEATURE(VIRTIO_NET_F_HOST_USO)},
        {"guest-csum", FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
                           FEATURE(VIRTIO_NET_F_GUEST_TSO6) | FEATURE(VIRTIO_NET_F_GUEST_ECN) |
                           FEATURE(VIRTIO_NET_F_GUEST_USO4) | FEATURE(VIRTIO_NET_F_GUEST_USO6)},
        {"guest-tso", FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO6) |
                          FEATURE(VIRTIO_NET_F_GUEST_ECN) | FEATURE(VIRTIO_NET_F_GUEST_USO4) |
                          FEATURE(VIRTIO_NET_F_GUEST_USO6)},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].name, name) == 0)
            return table[i].bits;
    fprintf(stderr, "vhost-pump: --without %s: there is no such feature\n", name);
    exit(125);
}

static struct options parse(int argc, char **argv)
{
    static const struct option all[] = {
        {"queue-size", required_argument, NULL, 'q'}, {"rx-buffer", required_argument, NULL, 'b'},
        {"mtu", required_argument, NULL, 'm'},        {"without", required_argument, NULL, 'w'},
        {"address", required_argument, NULL, 'a'},    {"gateway", required_argument, NULL, 'g'},
        {"no-address", no_argument, NULL, 'n'},       {0},
    };
    struct options o = {.address = "10.0.2.100/24",
                        .gateway = "10.0.2.2",
                        .mtu = 1500,
                        .rx_buffer = 4096,
                        .queue_size = 256};
    int c;

    while ((c = getopt_long(argc, argv, "+", all, NULL)) != -1) {
        switch (c) {
        case 'q':
            o.queue_size = (uint16_t)atoi(optarg);
            break;
        case 'b':
            o.rx_buffer = (unsigned)atoi(optarg);
            break;
        case 'm':
            o.mtu = (unsigned)atoi(optarg);
            break;
        case 'w':
            o.without |= feature_named(optarg);
            break;
        case 'a':
            o.address = optarg;
            break;
        case 'g':
            o.gateway = optarg;
            break;
        case 'n':
            o.address = NULL;
            break;
        default:
            exit(125);
        }
    }
    if (argc - optind < 2) {
        fprintf(stderr, "usage: vhost-pump [OPTIONS] SOCKET -- COMMAND [ARG...]\n");
        exit(125);
    }
    o.socket = argv[optind];
    o.command = argv + optind + 1;
    if (strcmp(o.command[0], "--") == 0)
        o.command++;
    if (o.without & FEATURE(VIRTIO_NET_F_MRG_RXBUF))
        o.rx_buffer = o.without & FEATURE(VIRTIO_NET_F_GUEST_TSO4) ? o.mtu + 14 + 12 : SLOT;
    return o;
}

/* ---- the namespace ---- */

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path, errno);
    close(fd);
}

static void enter_namespace(void)
{
    char map[64];
    unsigned uid = getuid(), gid = getgid();

    if (unshare(uid == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) < 0)
        die("unshare", errno);
    if (uid == 0)
        return;
    snprintf(map, sizeof map, "0 %u 1", uid);
    write_text("/proc/self/uid_map", map);
    write_text("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", gid);
    write_text("/proc/self/gid_map", map);
}

static void configure_interface(const struct options *o)
{
    char script[512];
    int n = snprintf(script, sizeof script,
                     "ip link set lo up && ip link set eth0 mtu %u up txqueuelen 1000", o->mtu);

    if (o->address)
        snprintf(script + n, sizeof script - (size_t)n,
                 " && ip addr add %s dev eth0 && ip route add default via %s", o->address,
                 o->gateway);
    if (system(script) != 0) /* NOLINT: a test's tool */
        die("setting up eth0 by ip(8)", EINVAL);
}

/* What the "guest" may leave to the device is what was negotiated. */
static void limit_offloads(const struct pump *pump)
{
    uint64_t features = pump->frontend.features;
    unsigned long offloads = 0;

    if (features & FEATURE(VIRTIO_NET_F_CSUM))
        offloads |= TUN_F_CSUM;
    if (features & FEATURE(VIRTIO_NET_F_HOST_TSO4))
        offloads |= TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    if ((features & FEATURE(VIRTIO_NET_F_HOST_USO)) &&
        ioctl(pump->tap, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6) == 0)
        return;
    if (ioctl(pump->tap, TUNSETOFFLOAD, offloads) < 0)
        die("TUNSETOFFLOAD", errno);
}

static pid_t spawn(char **command, const sigset_t *mask)
{
    pid_t child = fork();

    if (child < 0)
        die("fork", errno);
    if (child == 0) {
        sigprocmask(SIG_SETMASK, mask, NULL);
        execvp(command[0], command);
        _exit(127);
    }
    return child;
}

/* ---- rings ---- */

static void *allocate(struct pump *pump, size_t len, size_t align)
{
    void *at = frontend_allocate(&pump->frontend, len, align);

    if (!at)
        die("the guest's memory", ENOMEM);
    return at;
}

static void rings_init(struct pump *pump)
{
    uint16_t n = pump->options.queue_size;

    pump->tx_slot = calloc(n, sizeof *pump->tx_slot);
    pump->tx_pieces = calloc(n, sizeof(void *));
    pump->tx_free = calloc(n, sizeof *pump->tx_free);
    pump->rx_slot = calloc(n, sizeof *pump->rx_slot);
    for (uint16_t i = 0; i < n; i++) {
        struct vring_desc *d = &pump->frontend.queues[RX].descriptors[i];

        pump->tx_slot[i] = allocate(pump, SLOT, 64);
        pump->tx_pieces[i] = allocate(pump, TX_PIECES * sizeof(struct vring_desc), 16);
        pump->tx_free[pump->tx_free_count++] = i;
        pump->rx_slot[i] = allocate(pump, pump->options.rx_buffer, 64);
        *d = (struct vring_desc){.addr =
                                     htole64(frontend_address(&pump->frontend, pump->rx_slot[i])),
                                 .len = htole32(pump->options.rx_buffer),
                                 .flags = htole16(VRING_DESC_F_WRITE)};
        frontend_add(&pump->frontend.queues[RX], i);
    }
}

/* Describes a frame of `len` bytes with its header: in one piece, or in those of a driver. */
static void describe(struct pump *pump, uint16_t slot, size_t len)
{
    struct frontend *f = &pump->frontend;
    struct vring_desc *d = &f->queues[TX].descriptors[slot], *table = pump->tx_pieces[slot];
    uint64_t at = frontend_address(f, pump->tx_slot[slot]);
    unsigned n = 0;

    if (!(f->features & FEATURE(VIRTIO_RING_F_INDIRECT_DESC))) {
        *d = (struct vring_desc){.addr = htole64(at), .len = htole32((uint32_t)len)};
        return;
    }
    for (size_t done = 0; done < len; n++) {
        size_t piece = n == 0 ? HEADERS_LEN : FRAGMENT;

        if (piece > len - done)
            piece = len - done;
        table[n] = (struct vring_desc){.addr = htole64(at + done),
                                       .len = htole32((uint32_t)piece),
                                       .next = htole16((uint16_t)(n + 1))};
        done += piece;
        table[n].flags = htole16(done < len ? VRING_DESC_F_NEXT : 0);
    }
    *d = (struct vring_desc){.addr = htole64(frontend_address(f, table)),
                             .len = htole32(n * (uint32_t)sizeof *table),
                             .flags = htole16(VRING_DESC_F_INDIRECT)};
}

static int reclaim(struct pump *pump)
{
    struct vring_used_elem element;
    int n = 0;

    for (; frontend_reap(&pump->frontend.queues[TX], &element); n++)
        pump->tx_free[pump->tx_free_count++] = (uint16_t)element.id;
    return n;
}

/* From the namespace to the back end. True: there may be more. */
static bool transmit(struct pump *pump)
{
    struct frontend_queue *queue = &pump->frontend.queues[TX];
    int n = 0;

    reclaim(pump);
    for (; n < BATCH && pump->tx_free_count > 0; n++) {
        uint16_t slot = pump->tx_free[pump->tx_free_count - 1];
        ssize_t len = read(pump->tap, pump->tx_slot[slot], FRAME_MAX);

        if (len <= 0)
            break;
        pump->tx_free_count--;
        describe(pump, slot, (size_t)len);
        frontend_add(queue, slot);
        if (n % 8 == 7)
            frontend_tell(&pump->frontend, queue);
    }
    frontend_tell(&pump->frontend, queue);
    return n == BATCH;
}

/* One frame from the back end. False: there is none. */
static bool receive_one(struct pump *pump)
{
    struct frontend_queue *queue = &pump->frontend.queues[RX];
    struct vring_used_elem element;
    struct iovec iov[RX_PIECES];
    uint16_t heads[RX_PIECES];
    unsigned n = 0, buffers = 1;

    while (n < buffers && frontend_reap(queue, &element)) {
        uint8_t *at = pump->rx_slot[element.id];

        if (n == 0 && (pump->frontend.features & FEATURE(VIRTIO_NET_F_MRG_RXBUF)))
            buffers = at[10] | (unsigned)at[11] << 8;
        if (buffers > RX_PIECES)
            die("a frame in too many buffers", EPROTO);
        iov[n] = (struct iovec){at, element.len};
        heads[n++] = (uint16_t)element.id;
    }
    if (n == 0)
        return false;
    if (n < buffers)
        die("a frame with too few buffers", EPROTO);
    if (writev(pump->tap, iov, (int)n) < 0 && errno != EIO)
        fprintf(stderr, "vhost-pump: eth0 refused a frame: %s\n", strerror(errno));
    for (unsigned i = 0; i < n; i++)
        frontend_add(queue, heads[i]);
    return true;
}

/* From the back end to the namespace. True: there may be more. */
static bool receive(struct pump *pump)
{
    int n = 0;

    while (n < BATCH && receive_one(pump))
        n++;
    frontend_tell(&pump->frontend, &pump->frontend.queues[RX]);
    return n == BATCH;
}

/* ---- the connection ---- */

static uint64_t wanted_features(const struct pump *pump)
{
    const uint64_t all = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
                         FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_NET_F_MRG_RXBUF) |
                         FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
                         FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_HOST_TSO6) |
                         FEATURE(VIRTIO_NET_F_HOST_ECN) | FEATURE(VIRTIO_NET_F_HOST_USO) |
                         FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO6) |
                         FEATURE(VIRTIO_NET_F_GUEST_ECN) | FEATURE(VIRTIO_NET_F_GUEST_USO4) |
                         FEATURE(VIRTIO_NET_F_GUEST_USO6);

    return all & ~pump->options.without;
}

static void watch(struct pump *pump, int fd, uint32_t events, uint32_t what)
{
    struct epoll_event event = {.events = events, .data.u32 = what};

    if (epoll_ctl(pump->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll", errno);
}

static bool try_connect(struct pump *pump)
{
    int r = frontend_connect(&pump->frontend, pump->options.socket);

    if (r == 0)
        r = frontend_start(&pump->frontend, wanted_features(pump));
    if (r < 0)
        return false;
    watch(pump, pump->frontend.socket, EPOLLIN, EVENT_SOCKET);
    limit_offloads(pump);
    pump->connected = true;
    return true;
}

/* ---- the loop ---- */

static int child_status(struct pump *pump)
{
    struct signalfd_siginfo info;
    int status;

    if (read(pump->signals, &info, sizeof info) < 0)
        return -1;
    if (waitpid(pump->child, &status, WNOHANG) <= 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* True: there is no need to sleep. */
static bool prepare_sleep(struct pump *pump)
{
    struct frontend *f = &pump->frontend;
    bool more = frontend_want_call(f, &f->queues[RX]);

    /* Used slots are of interest only when none is free. */
    if (pump->tx_free_count == 0)
        more |= frontend_want_call(f, &f->queues[TX]);
    return more;
}

/* Waits; the status of COMMAND when it has ended, or -1. */
static int wait_for_events(struct pump *pump, int timeout)
{
    struct epoll_event events[8];
    int n = epoll_wait(pump->epoll, events, 8, timeout);

    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == EVENT_SIGNAL) {
            int status = child_status(pump);
            if (status >= 0)
                return status;
        } else if (events[i].data.u32 == EVENT_SOCKET) {
            epoll_ctl(pump->epoll, EPOLL_CTL_DEL, pump->frontend.socket, NULL);
            pump->connected = false;
        }
    }
    return -1;
}

static int run(struct pump *pump)
{
    int status = -1;

    while (status < 0) {
        bool more;

        if (!pump->connected && !try_connect(pump)) {
            status = wait_for_events(pump, RETRY_MS);
            continue;
        }
        frontend_want_no_call(&pump->frontend, &pump->frontend.queues[RX]);
        frontend_want_no_call(&pump->frontend, &pump->frontend.queues[TX]);
        more = receive(pump);
        more |= transmit(pump);
        if (!more)
            more = prepare_sleep(pump);
        status = wait_for_events(pump, more ? 0 : -1);
    }
    return status;
}

int main(int argc, char **argv)
{
    struct pump pump = {.options = parse(argc, argv)};
    struct options *o = &pump.options;
    sigset_t child, before;
    int r;

    r = frontend_init(&pump.frontend,
                      (size_t)o->queue_size * (SLOT + o->rx_buffer + 512) + (1u << 20), 2,
                      o->queue_size);
    if (r < 0)
        die("the guest's memory", r);
    rings_init(&pump);
    for (int tries = 0; r = frontend_connect(&pump.frontend, o->socket), r < 0; tries++) {
        if (tries == 100)
            die(o->socket, r);
        usleep(20000);
    }
    enter_namespace();
    pump.tap = tap_open("eth0", 0, NULL);
    if (pump.tap < 0)
        die("eth0", pump.tap);
    r = frontend_start(&pump.frontend, wanted_features(&pump));
    if (r < 0)
        die("the back end", r);
    limit_offloads(&pump);
    pump.connected = true;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &before);
    pump.epoll = epoll_create1(EPOLL_CLOEXEC);
    pump.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    watch(&pump, pump.signals, EPOLLIN, EVENT_SIGNAL);
    /* Every frame that is added is an edge, and so is every call. */
    watch(&pump, pump.tap, EPOLLIN | EPOLLET, EVENT_TAP);
    watch(&pump, pump.frontend.queues[RX].call, EPOLLIN | EPOLLET, EVENT_RX);
    watch(&pump, pump.frontend.queues[TX].call, EPOLLIN | EPOLLET, EVENT_TX);
    watch(&pump, pump.frontend.socket, EPOLLIN, EVENT_SOCKET);
    configure_interface(o);
    sigprocmask(SIG_SETMASK, &child, NULL);
    pump.child = spawn(o->command, &before);
    return run(&pump);
}
