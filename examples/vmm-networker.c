/* SPDX-License-Identifier: Apache-2.0 */
/* A virtual machine monitor's side of libculvert, with a guest made of paper.
 *
 * A real monitor has a thread that serves the guest's virtio-net device: it takes the frames that
 * the guest transmits and puts them into the SharedState's tx_ring, and fills the guest's receive
 * buffers with frames from its rx_ring. This program does the same with a guest that is a short
 * script: it asks for the gateway's hardware address, pings the gateway, and asks the resolver for
 * a name. What is specific to a device are the two functions of "the guest"; all else can be taken
 * over as it stands.
 *
 *     cc vmm-networker.c $(pkg-config --cflags --libs culvert) -pthread
 *     ./a.out [NAME]                          (host.culvert.internal, which needs no internet)
 */

#include <arpa/inet.h>
#include <culvert/engine.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MTU         1500
#define PATIENCE_MS 5000

#define ETHERNET 14
#define IPV4     20
#define ARP      28
#define ICMP     8
#define UDP      8
#define DNS      12

static const uint8_t GUEST_MAC[6] = {0x02, 0, 0, 0, 0, 0x64};
static const uint8_t EVERYBODY[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t GUEST[4] = {10, 0, 2, 100}, GATEWAY[4] = {10, 0, 2, 2};
static const uint8_t RESOLVER[4] = {10, 0, 2, 3};

/* What the guest waits for. */
enum step { STEP_ARP, STEP_PING, STEP_DNS, STEP_DONE, STEP_FAILED };

struct guest {
    enum step step;
    uint8_t gateway_mac[6];
    const char *name; /* to be resolved */
};

struct net_worker {
    struct culvert_shared_state *state;
    struct culvert_frame *waiting; /* found no room in tx_ring */
    struct guest guest;
    pthread_t thread;
};

/* ---- the guest: bytes ---- */

static void put16(uint8_t *to, unsigned value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static unsigned get16(const uint8_t *from)
{
    return (unsigned)from[0] << 8 | from[1];
}

/* RFC 1071; `len` is even here. */
static unsigned checksum(const uint8_t *data, size_t len)
{
    unsigned long sum = 0;

    for (size_t i = 0; i < len; i += 2)
        sum += get16(data + i);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (unsigned)(~sum & 0xffff);
}

static size_t write_ethernet(uint8_t *to, const uint8_t destination[6], unsigned type)
{
    memcpy(to, destination, 6);
    memcpy(to + 6, GUEST_MAC, 6);
    put16(to + 12, type);
    return ETHERNET;
}

static size_t write_ipv4(uint8_t *to, const uint8_t destination[4], uint8_t protocol,
                         size_t payload)
{
    memset(to, 0, IPV4);
    to[0] = 0x45;
    put16(to + 2, (unsigned)(IPV4 + payload));
    to[8] = 64;
    to[9] = protocol;
    memcpy(to + 12, GUEST, 4);
    memcpy(to + 16, destination, 4);
    put16(to + 10, checksum(to, IPV4));
    return IPV4;
}

/* "a.bc" as 1 a 2 b c 0. */
static size_t write_name(uint8_t *to, const char *name)
{
    uint8_t *at = to;

    while (*name) {
        size_t label = strcspn(name, ".");

        *at++ = (uint8_t)label;
        memcpy(at, name, label);
        at += label;
        name += label + (name[label] == '.');
    }
    *at++ = 0;
    return (size_t)(at - to);
}

static size_t write_arp_request(uint8_t *to)
{
    static const uint8_t head[8] = {0, 1, 8, 0, 6, 4, 0, 1};
    size_t len = write_ethernet(to, EVERYBODY, 0x0806);

    memcpy(to + len, head, 8);
    memcpy(to + len + 8, GUEST_MAC, 6);
    memcpy(to + len + 14, GUEST, 4);
    memset(to + len + 18, 0, 6);
    memcpy(to + len + 24, GATEWAY, 4);
    return len + ARP;
}

static size_t write_ping(uint8_t *to, const uint8_t gateway_mac[6])
{
    static const uint8_t echo[ICMP + 8] = {8, 0, 0, 0, 0x12, 0x34, 0, 1, 'c', 'u', 'l', 'v', 'e'};
    size_t len = write_ethernet(to, gateway_mac, 0x0800);

    len += write_ipv4(to + len, GATEWAY, IPPROTO_ICMP, sizeof echo);
    memcpy(to + len, echo, sizeof echo);
    put16(to + len + 2, checksum(to + len, sizeof echo));
    return len + sizeof echo;
}

static size_t write_question(uint8_t *to, const uint8_t gateway_mac[6], const char *name)
{
    static const uint8_t head[DNS] = {0xab, 0xcd, 1, 0, 0, 1}, a_in[4] = {0, 1, 0, 1};
    uint8_t dns[512];
    size_t len = write_ethernet(to, gateway_mac, 0x0800), dns_len = DNS;

    memcpy(dns, head, DNS);
    dns_len += write_name(dns + dns_len, name);
    memcpy(dns + dns_len, a_in, sizeof a_in);
    dns_len += sizeof a_in;

    len += write_ipv4(to + len, RESOLVER, IPPROTO_UDP, UDP + dns_len);
    put16(to + len, 40000);
    put16(to + len + 2, 53);
    put16(to + len + 4, (unsigned)(UDP + dns_len));
    put16(to + len + 6, 0); /* no checksum: allowed over IPv4 */
    memcpy(to + len + UDP, dns, dns_len);
    return len + UDP + dns_len;
}

/* ---- the guest: what it transmits, what it receives ---- */

/* The next frame it has to transmit. */
static size_t guest_transmit(const struct guest *guest, uint8_t frame[ETHERNET + MTU])
{
    switch (guest->step) {
    case STEP_ARP:
        return write_arp_request(frame);
    case STEP_PING:
        return write_ping(frame, guest->gateway_mac);
    case STEP_DNS:
        return write_question(frame, guest->gateway_mac, guest->name);
    default:
        return 0;
    }
}

/* The answer's last record is the address, if there is one at all. */
static enum step read_dns_answer(const struct guest *guest, const uint8_t *dns, size_t len)
{
    const uint8_t *address = dns + len - 4;

    if (len < DNS + 4 || get16(dns) != 0xabcd)
        return guest->step;
    if ((dns[3] & 15) != 0 || get16(dns + 6) == 0) {
        printf("guest: %s does not resolve (rcode %d)\n", guest->name, dns[3] & 15);
        return STEP_FAILED;
    }
    printf("guest: %s is %d.%d.%d.%d\n", guest->name, address[0], address[1], address[2],
           address[3]);
    return STEP_DONE;
}

/* A frame has come. True: it was awaited, and the script goes on. */
static bool guest_receive(struct guest *guest, const uint8_t *frame, size_t len)
{
    const uint8_t *payload = frame + ETHERNET + IPV4;
    const enum step before = guest->step;
    unsigned type = len >= ETHERNET ? get16(frame + 12) : 0;

    if (before == STEP_ARP && type == 0x0806 && len >= ETHERNET + ARP && frame[ETHERNET + 7] == 2) {
        memcpy(guest->gateway_mac, frame + ETHERNET + 8, 6);
        printf("guest: the gateway is at %02x:%02x:%02x:%02x:%02x:%02x\n", frame[ETHERNET + 8],
               frame[ETHERNET + 9], frame[ETHERNET + 10], frame[ETHERNET + 11],
               frame[ETHERNET + 12], frame[ETHERNET + 13]);
        guest->step = STEP_PING;
    } else if (type != 0x0800 || len < ETHERNET + IPV4 + ICMP) {
        return false;
    } else if (before == STEP_PING && frame[ETHERNET + 9] == IPPROTO_ICMP && payload[0] == 0) {
        printf("guest: the gateway answers ping\n");
        guest->step = STEP_DNS;
    } else if (before == STEP_DNS && frame[ETHERNET + 9] == IPPROTO_UDP && get16(payload) == 53) {
        guest->step = read_dns_answer(guest, payload + UDP, len - (size_t)(payload + UDP - frame));
    }
    return guest->step != before;
}

/* ---- the device's thread ---- */

/* Frames to the engine. What finds the ring full is kept: rx_wake will tell when there is room. */
static void transmit(struct net_worker *worker)
{
    struct culvert_frame *frame = worker->waiting;
    size_t len;

    if (!frame) {
        frame = culvert_frame_new(ETHERNET + MTU);
        if (!frame)
            return;
        frame->len = guest_transmit(&worker->guest, frame->data);
    }
    len = culvert_frame_len(frame);
    worker->waiting = NULL;
    if (len == 0) {
        culvert_frame_unref(frame);
    } else if (!culvert_ring_push(&worker->state->tx_ring, frame)) {
        worker->waiting = frame;
    } else {
        culvert_shared_state_add_tx_bytes(worker->state, len);
        culvert_wake_signal(&worker->state->tx_wake);
    }
}

/* A frame from the engine, copied into the guest's buffer. */
static bool deliver(struct guest *guest, const struct culvert_frame *frame)
{
    uint8_t buffer[ETHERNET + MTU];
    struct iovec iov[8];
    size_t pieces = culvert_frame_iov(frame, iov, 8), len = 0;

    if (culvert_frame_len(frame) > sizeof buffer || pieces > 8)
        return false; /* cannot be: the link's MTU says what fits */
    for (size_t i = 0; i < pieces; i++) {
        memcpy(buffer + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    return guest_receive(guest, buffer, len);
}

static void receive(struct net_worker *worker)
{
    struct culvert_frame *frame;

    while ((frame = culvert_ring_pop(&worker->state->rx_ring))) {
        if (deliver(&worker->guest, frame))
            transmit(worker);
        culvert_frame_unref(frame);
    }
}

/* Drain the wake, do all there is to do, and only then sleep. */
static void *net_worker_thread(void *arg)
{
    struct net_worker *worker = arg;
    struct culvert_wake *wake = &worker->state->rx_wake;
    struct pollfd poll_fd = {.fd = culvert_wake_fd(wake), .events = POLLIN};

    transmit(worker);
    while (worker->guest.step < STEP_DONE) {
        if (poll(&poll_fd, 1, PATIENCE_MS) == 0) {
            printf("guest: no answer (step %d)\n", (int)worker->guest.step);
            worker->guest.step = STEP_FAILED;
            break;
        }
        culvert_wake_drain(wake);
        if (worker->waiting)
            transmit(worker);
        receive(worker);
    }
    culvert_frame_unref(worker->waiting);
    return NULL;
}

/* ---- the monitor ---- */

static void guest_must_end(void *arg)
{
    (void)arg;
    printf("monitor: the engine asks for the guest's end\n");
}

static struct culvert_engine *make_engine(void)
{
    static const char *const options[][2] = {
        {"mtu", "1500"},
        {"ipv6", "off"},
        {"rule", "deny tcp to any port 25"},
        {"profile", "public"},
    };
    struct culvert_config *config = culvert_config_new();
    struct culvert_engine *engine = NULL;
    struct culvert_error error = {"out of memory"};
    int r = config ? 0 : -1;

    for (size_t i = 0; r == 0 && i < sizeof options / sizeof options[0]; i++)
        r = culvert_config_set(config, options[i][0], options[i][1], &error);
    if (r == 0)
        engine = culvert_engine_new(config, &error);
    if (!engine)
        fprintf(stderr, "monitor: %s\n", error.message);
    culvert_config_free(config);
    return engine;
}

static void plug_in(struct culvert_shared_state *state)
{
    /* A device without offloads: every frame comes complete and no larger than the MTU. */
    struct culvert_link link = {.mtu = MTU, .up = true};

    memcpy(link.mac, GUEST_MAC, sizeof link.mac);
    culvert_shared_state_set_link(state, &link);
    culvert_shared_state_set_termination_hook(state, guest_must_end, NULL);
}

static void print_counter(void *arg, const char *name, const char *sentence, uint64_t value)
{
    (void)arg;
    printf("engine: %-24s %6llu  %s\n", name, (unsigned long long)value, sentence);
}

int main(int argc, char **argv)
{
    struct net_worker worker = {
        .guest = {.step = STEP_ARP, .name = argc > 1 ? argv[1] : "host.culvert.internal"}};
    struct culvert_engine *engine;

    if (strlen(worker.guest.name) > 253) {
        fprintf(stderr, "usage: vmm-networker [NAME]\n");
        return 2;
    }
    engine = make_engine();
    if (!engine)
        return 1;
    worker.state = culvert_engine_shared_state(engine);
    plug_in(worker.state);
    if (culvert_engine_start(engine) == 0 &&
        pthread_create(&worker.thread, NULL, net_worker_thread, &worker) == 0)
        pthread_join(worker.thread, NULL);

    /* The NetWorker is gone; now the engine may go. */
    culvert_engine_stop(engine);
    culvert_engine_counters(engine, print_counter, NULL);
    printf("monitor: %llu bytes from the guest, %llu to it\n",
           (unsigned long long)culvert_shared_state_tx_bytes(worker.state),
           (unsigned long long)culvert_shared_state_rx_bytes(worker.state));
    culvert_engine_free(engine);
    return worker.guest.step == STEP_DONE ? 0 : 1;
}
