/* SPDX-License-Identifier: Apache-2.0 */
#include "paper_guest.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const uint8_t GUEST_MAC[6] = {2, 0, 0, 0, 0, 0x64};
static const uint8_t GATEWAY_MAC[6] = {2, 0x63, 0x75, 0x6c, 0x76, 2};

uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static unsigned entries_of(const char *path)
{
    DIR *directory = opendir(path);
    unsigned count = 0;

    assert_non_null(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* ---- an engine and its guest ---- */

void guest_begin(struct guest *guest, uint8_t subnet, const char *publish)
{
    struct culvert_config *config = culvert_config_new();
    struct culvert_error error = {""};
    char address[32];

    assert_non_null(config);
    snprintf(address, sizeof address, "10.%d.2.100/24", subnet);
    assert_int_equal(culvert_config_set(config, "guest-ipv4", address, &error), 0);
    assert_int_equal(culvert_config_set(config, "ipv6", "off", &error), 0);
    assert_int_equal(culvert_config_set(config, "rule", "allow tcp to host", &error), 0);
    if (publish)
        assert_int_equal(culvert_config_set(config, "publish", publish, &error), 0);
    guest->engine = culvert_engine_new(config, &error);
    if (!guest->engine)
        fail_msg("%s", error.message);
    culvert_config_free(config);
    guest->state = culvert_engine_shared_state(guest->engine);
    guest->subnet = subnet;
}

void guest_plug(struct guest *guest)
{
    struct culvert_link link = {.offloads = CULVERT_LINK_CSUM, .mtu = 1500, .up = true};

    memcpy(link.mac, GUEST_MAC, 6);
    culvert_shared_state_set_link(guest->state, &link);
}

void guest_start(struct guest *guest, uint8_t subnet, const char *publish)
{
    guest_begin(guest, subnet, publish);
    guest_plug(guest);
    assert_int_equal(culvert_engine_start(guest->engine), 0);
}

void stops_promptly(struct guest *guest)
{
    uint64_t begun = now_ms();

    assert_int_equal(culvert_engine_stop(guest->engine), 0);
    assert_null(culvert_engine_free(guest->engine));
    assert_true(now_ms() - begun < PROMPT_MS);
}

/* ---- frames ---- */

static void write_ethernet(struct culvert_frame *frame, const uint8_t to[6], uint16_t type)
{
    memcpy(frame->data, to, 6);
    memcpy(frame->data + 6, GUEST_MAC, 6);
    frame->data[12] = (uint8_t)(type >> 8);
    frame->data[13] = (uint8_t)type;
    frame->len = 14;
}

static struct culvert_frame *ethernet(const uint8_t to[6], uint16_t type)
{
    struct culvert_frame *frame = culvert_frame_new(256);

    assert_non_null(frame);
    write_ethernet(frame, to, type);
    return frame;
}

bool guest_send(struct guest *guest, struct culvert_frame *frame)
{
    if (!culvert_ring_push(&guest->state->tx_ring, frame)) {
        culvert_frame_unref(frame);
        return false;
    }
    culvert_wake_signal(&guest->state->tx_wake);
    return true;
}

bool ask_for_gateway(struct guest *guest)
{
    static const uint8_t everybody[6] = {255, 255, 255, 255, 255, 255};
    const uint8_t arp[28] = {0,  1,
                             8,  0,
                             6,  4,
                             0,  1,
                             2,  0,
                             0,  0,
                             0,  0x64,
                             10, guest->subnet,
                             2,  100,
                             0,  0,
                             0,  0,
                             0,  0,
                             10, guest->subnet,
                             2,  2};
    struct culvert_frame *frame = ethernet(everybody, 0x0806);

    memcpy(frame->data + frame->len, arp, sizeof arp);
    frame->len += sizeof arp;
    return guest_send(guest, frame);
}

static unsigned internet_checksum(const uint8_t *data, size_t len)
{
    unsigned long sum = 0;

    for (size_t i = 0; i < len; i += 2)
        sum += (unsigned)(data[i] << 8 | data[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (unsigned)(~sum & 0xffff);
}

/* The IPv4 header of a packet to the gateway, and the ports behind it. */
static void write_ip(const struct guest *guest, uint8_t *ip, uint8_t protocol, uint16_t len,
                     uint16_t from, uint16_t to)
{
    unsigned sum;

    memset(ip, 0, 20);
    ip[0] = 0x45;
    ip[2] = (uint8_t)(len >> 8);
    ip[3] = (uint8_t)len;
    ip[8] = 64;
    ip[9] = protocol;
    memcpy(ip + 12, (uint8_t[]){10, guest->subnet, 2, 100, 10, guest->subnet, 2, 2}, 8);
    sum = internet_checksum(ip, 20);
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
    memcpy(ip + 20,
           (uint8_t[]){(uint8_t)(from >> 8), (uint8_t)from, (uint8_t)(to >> 8), (uint8_t)to}, 4);
}

void write_udp_headers(const struct guest *guest, struct culvert_frame *frame, uint16_t from,
                       uint16_t to, uint16_t len)
{
    write_ethernet(frame, GATEWAY_MAC, 0x0800);
    write_ip(guest, frame->data + 14, IPPROTO_UDP, (uint16_t)(20 + len), from, to);
    memcpy(frame->data + 38, (uint8_t[]){(uint8_t)(len >> 8), (uint8_t)len, 0, 0}, 4);
    frame->len = 42;
    frame->offload = (struct culvert_offload){
        .flags = CULVERT_OFFLOAD_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
}

/* A segment to the gateway, which stands for this host's loopback. */
void send_segment(struct guest *guest, uint16_t from, uint16_t to, uint8_t flags, uint32_t seq,
                  uint32_t ack)
{
    struct culvert_frame *frame = ethernet(GATEWAY_MAC, 0x0800);
    uint8_t *tcp = frame->data + 34;

    memset(tcp, 0, 20);
    write_ip(guest, frame->data + 14, IPPROTO_TCP, 40, from, to);
    memcpy(tcp + 4, &(uint32_t){htonl(seq)}, 4);
    memcpy(tcp + 8, &(uint32_t){htonl(ack)}, 4);
    tcp[12] = 0x50;
    tcp[13] = flags;
    tcp[14] = 0xff; /* window */
    frame->len += 40;
    frame->offload = (struct culvert_offload){
        .flags = CULVERT_OFFLOAD_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
    assert_true(guest_send(guest, frame));
}

/* The next frame for the guest that has this type; others are passed over. */
struct culvert_frame *await_frame(struct guest *guest, uint16_t type)
{
    struct pollfd wake = {.fd = culvert_wake_fd(&guest->state->rx_wake), .events = POLLIN};
    uint64_t limit = now_ms() + 5000;

    while (now_ms() < limit) {
        struct culvert_frame *frame = culvert_ring_pop(&guest->state->rx_ring);

        if (frame && (frame->data[12] << 8 | frame->data[13]) == type)
            return frame;
        culvert_frame_unref(frame);
        if (frame)
            continue;
        poll(&wake, 1, 100);
        culvert_wake_drain(&guest->state->rx_wake);
    }
    fail_msg("the guest waited in vain");
    return NULL;
}

void gateway_answers(struct guest *guest)
{
    struct culvert_frame *frame;

    assert_true(ask_for_gateway(guest));
    frame = await_frame(guest, 0x0806);
    assert_memory_equal(frame->data + 22, GATEWAY_MAC, 6);
    assert_int_equal(frame->data[29], guest->subnet);
    culvert_frame_unref(frame);
}

/* ---- the host ---- */

int listen_on_loopback(int backlog, uint16_t *ret_port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    *ret_port = ntohs(sa.sin_port);
    return fd;
}

int connect_to_loopback(uint16_t port, int flags)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        assert_int_equal(errno, EINPROGRESS);
    return fd;
}

uint16_t free_port(void)
{
    uint16_t port;

    close(listen_on_loopback(1, &port));
    return port;
}

/* ---- every test leaves nothing behind ---- */

static unsigned descriptors, threads;

int count_what_there_is(void **state)
{
    (void)state;
    descriptors = entries_of("/proc/self/fd");
    threads = entries_of("/proc/self/task");
    return 0;
}

int nothing_is_left(void **state)
{
    (void)state;
    assert_int_equal(entries_of("/proc/self/fd"), descriptors);
    /* A thread that was joined may take a moment to leave /proc. */
    for (int i = 0; i < 200 && entries_of("/proc/self/task") != threads; i++)
        usleep(5000);
    assert_int_equal(entries_of("/proc/self/task"), threads);
    return 0;
}
