/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * Echo requests leave from ping sockets, which need no privilege but the kernel's leave
 * (net.ipv4.ping_group_range): the kernel writes its own identifier and checksum, and hands each
 * socket only the replies with its identifier. Where ping sockets are forbidden and the process has
 * CAP_NET_RAW, a raw socket does: it sees every echo reply of the host, so the identifier is ours
 * to choose and to compare. Which of the two it is is tried once a family, at start.
 *
 * A socket is a mapping (mapping.c) by the guest's address and identifier; its peers have port 0.
 */

#include <errno.h>
#include <netinet/icmp6.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/internal.h"
#include "wire/checksum.h"

#include <linux/icmp.h>

#define ECHO_HEADER  8
#define ECHO_IOV     512
#define ECHOES_A_RUN 16
#define REPLY_MAX    (65536 + 60) /* a raw IPv4 socket shows the IP header too */

struct echo_buffer {
    uint8_t bytes[REPLY_MAX];
};

union echo_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int)) * 2];
};

static int ping_socket(bool v6)
{
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);

    return fd < 0 ? -errno : fd;
}

static int raw_socket(bool v6)
{
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);

    if (fd < 0)
        return -errno;
    if (v6) {
        struct icmp6_filter filter;

        ICMP6_FILTER_SETBLOCKALL(&filter);
        ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
        (void)setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter);
    } else {
        struct icmp_filter filter = {.data = ~(1u << ICMP_ECHOREPLY)};

        (void)setsockopt(fd, SOL_RAW, ICMP_FILTER, &filter, sizeof filter);
    }
    return fd;
}

static enum echo_mode probe_family(bool v6, int *ret_error)
{
    int fd = ping_socket(v6);
    enum echo_mode mode = ECHO_MODE_PING;

    if (fd < 0) {
        *ret_error = fd; /* what a user can mend is the ping sockets' reason */
        fd = raw_socket(v6);
        mode = ECHO_MODE_RAW;
    }
    if (fd < 0)
        return ECHO_MODE_NONE;
    close(fd);
    *ret_error = 0;
    return mode;
}

void echo_probe(struct relay *relay)
{
    relay->echo4 = probe_family(false, &relay->echo4_error);
    relay->echo6 = probe_family(true, &relay->echo6_error);
    if (getrandom(&relay->echo_identifier_base, sizeof relay->echo_identifier_base, 0) < 0)
        relay->echo_identifier_base = (uint16_t)getpid();
}

int relay_echo_available(const struct relay *relay, bool v6)
{
    return v6 ? relay->echo6_error : relay->echo4_error;
}

int echo_socket(struct relay *relay, bool v6)
{
    const int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
    int fd;

    switch (v6 ? relay->echo6 : relay->echo4) {
    case ECHO_MODE_PING:
        fd = ping_socket(v6);
        break;
    case ECHO_MODE_RAW:
        fd = raw_socket(v6);
        break;
    default:
        return v6 ? relay->echo6_error : relay->echo4_error;
    }
    if (fd >= 0)
        relay_set_option(fd, level, v6 ? IPV6_RECVHOPLIMIT : IP_RECVTTL, 1);
    return fd;
}

void echo_buffer_free(struct relay *relay)
{
    free(relay->echo_buffer);
    relay->echo_buffer = NULL;
}

/* ---- sending ---- */

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

/* The kernel sums what a ping socket or an ICMPv6 socket sends; a raw ICMP socket sums nothing. */
static void write_header(const struct mapping *mapping, const struct echo_request *request,
                         uint8_t header[ECHO_HEADER])
{
    memset(header, 0, ECHO_HEADER);
    header[0] = mapping->v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
    put16(header + 4, mapping->raw ? mapping->identifier : request->key.guest_port);
    put16(header + 6, request->sequence);
    if (mapping->raw && !mapping->v6) {
        uint64_t sum = checksum_add(0, header, ECHO_HEADER);

        sum = checksum_combine(sum, checksum_add_frame(0, request->frame, request->payload_offset,
                                                       request->payload_len));
        checksum_store(header + 2, checksum_finish(sum));
    }
}

static void echo_transmit(struct mapping *mapping, const struct echo_request *request,
                          const struct ip_address *to)
{
    const struct ip_endpoint endpoint = {.address = *to};
    uint8_t header[ECHO_HEADER];
    struct iovec iov[ECHO_IOV] = {{header, sizeof header}};
    struct sockaddr_storage sa;
    struct msghdr msg = {
        .msg_name = &sa, .msg_namelen = ip_endpoint_to_sockaddr(&endpoint, &sa), .msg_iov = iov};
    const size_t n = culvert_frame_slice(request->frame, request->payload_offset,
                                         request->payload_len, iov + 1, ECHO_IOV - 1);
    uint32_t mtu = 0;

    if (n > ECHO_IOV - 1) {
        count(mapping->relay->counters, COUNTER_relay_send_failed);
        return;
    }
    msg.msg_iovlen = n + 1;
    write_header(mapping, request, header);
    mapping_set_header(mapping, request->ttl, request->tos, request->dont_fragment);
    if (mapping->error_pending)
        mapping_drain_errors(mapping, NULL);
    for (int tries = 0;; tries++) {
        if (sendmsg(mapping->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return;
        if (tries > 0 || !mapping_error_is_borrowed(errno))
            break;
        mapping_drain_errors(mapping, &mtu);
    }

    const int error = errno;

    mapping_drain_errors(mapping, &mtu);
    mapping_send_failed(mapping, error, request->frame, mtu);
}

void relay_echo_send(struct relay *relay, const struct echo_request *request,
                     const struct ip_address *to, uint64_t now)
{
    const struct ip_endpoint real = {.address = *to};
    struct flow_key key = request->key;
    struct mapping *mapping;

    relay->now = now;
    key.remote_port = 0;
    if (relay_address_unspecified(to) || ip_address_is_v4(to) != ip_address_is_v4(&key.guest)) {
        count(relay->counters, COUNTER_relay_unspecified_address);
        return;
    }
    if (relay_echo_available(relay, !ip_address_is_v4(to)) < 0) {
        count(relay->counters, COUNTER_relay_echo_unavailable);
        stack_icmp_refuse(relay->stack, request->frame, ICMP_PROBLEM_PROHIBITED, 0);
        return;
    }
    mapping = mapping_obtain(relay, &key);
    if (!mapping || !mapping_peer_obtain(mapping, &key, &real))
        return; /* counted */
    mapping_touch(mapping, false);
    echo_transmit(mapping, request, to);
}

/* ---- receiving ---- */

bool echo_quoted(const struct mapping *mapping, const uint8_t *data, size_t len,
                 struct icmp_report *report)
{
    if (len < ECHO_HEADER || data[0] != (mapping->v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO))
        return false;
    if (mapping->raw && get16(data + 4) != mapping->identifier)
        return false;
    report->sequence = get16(data + 6);
    report->payload = data + ECHO_HEADER;
    report->payload_len = len - ECHO_HEADER;
    return true;
}

/* The ICMP message in what was received; false: not an echo reply to this mapping. */
static bool reply_parse(const struct mapping *mapping, const uint8_t *data, size_t len,
                        struct echo_reply *reply)
{
    size_t skip = 0;

    if (mapping->raw && !mapping->v6)
        skip = len ? (size_t)(data[0] & 0x0f) * 4 : 0;
    if (len < skip + ECHO_HEADER)
        return false;
    data += skip;
    len -= skip;
    if (data[0] != (mapping->v6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY) || data[1] != 0)
        return false;
    if (mapping->raw && get16(data + 4) != mapping->identifier)
        return false;
    reply->sequence = get16(data + 6);
    reply->payload = data + ECHO_HEADER;
    reply->len = len - ECHO_HEADER;
    return true;
}

static void parse_control(struct msghdr *msg, struct echo_reply *reply)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        int value = 0;

        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS && c->cmsg_len >= CMSG_LEN(1)) {
            reply->tos = *CMSG_DATA(c);
            continue;
        }
        if (c->cmsg_len < CMSG_LEN(sizeof value))
            continue;
        memcpy(&value, CMSG_DATA(c), sizeof value);
        if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
            (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT))
            reply->ttl = (uint8_t)value;
        else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS)
            reply->tos = (uint8_t)value;
    }
}

static void reply_arrived(struct mapping *mapping, struct msghdr *msg, const uint8_t *data,
                          size_t len)
{
    struct echo_reply reply = {0};
    struct ip_endpoint from;
    struct peer *peer = NULL;

    if (!reply_parse(mapping, data, len, &reply))
        return; /* a raw socket's: somebody else's ping */
    if (ip_endpoint_from_sockaddr(msg->msg_name, &from))
        peer = mapping_peer_of_real(mapping, &from.address, 0);
    if (!peer || !mapping_peer_may_answer(mapping, peer)) {
        count(mapping->relay->counters,
              peer ? COUNTER_relay_answer_denied : COUNTER_relay_echo_unknown_peer);
        return;
    }
    parse_control(msg, &reply);
    reply.key = mapping_key(mapping, peer);
    mapping_touch(mapping, true);
    (void)stack_echo_output(mapping->relay->stack, &reply); /* counts what it loses */
}

static ssize_t receive_one(struct mapping *mapping)
{
    struct echo_buffer *buffer = mapping->relay->echo_buffer;
    struct sockaddr_storage from;
    union echo_control control;
    struct iovec iov = {buffer->bytes, sizeof buffer->bytes};
    struct msghdr msg = {
        .msg_name = &from,
        .msg_namelen = sizeof from,
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    ssize_t got = recvmsg(mapping->fd, &msg, MSG_DONTWAIT);

    if (got < 0)
        return -errno;
    reply_arrived(mapping, &msg, buffer->bytes, (size_t)got);
    return got;
}

bool echo_receive(struct mapping *mapping)
{
    struct relay *relay = mapping->relay;

    if (!relay->echo_buffer)
        relay->echo_buffer = malloc(sizeof *relay->echo_buffer);
    if (!relay->echo_buffer) {
        count(relay->counters, COUNTER_relay_mapping_no_memory);
        return false;
    }
    for (int i = 0; i < ECHOES_A_RUN; i++) {
        ssize_t got = receive_one(mapping);

        if (got >= 0 || got == -EINTR)
            continue;
        if (!mapping_error_is_borrowed((int)-got))
            return false;
        mapping_drain_errors(mapping, NULL);
    }
    return true;
}
