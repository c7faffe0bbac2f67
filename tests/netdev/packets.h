/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_NETDEV_PACKETS_H
#define TESTS_NETDEV_PACKETS_H

/* TCP and UDP frames of every shape for the tests of this folder. The includer has included
 * cmocka.h and what it needs. */

#include <culvert/frame.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/udp.h"

struct shape {
    bool v6;
    uint8_t protocol;
    size_t ip_options;  /* bytes: IPv4 options, or an IPv6 destination options header (0 or 8) */
    size_t tcp_options; /* bytes, a multiple of 4 */
    size_t payload;
    size_t linear;     /* payload bytes in the linear part */
    size_t piece;      /* payload bytes in each segment */
    uint16_t gso_size; /* 0: no GSO */
    uint8_t tcp_flags;
};

static inline size_t shape_transport(const struct shape *s)
{
    return ETHERNET_HEADER_LEN + (s->v6 ? IPV6_HEADER_LEN : IPV4_HEADER_LEN) + s->ip_options;
}

static inline size_t shape_header(const struct shape *s)
{
    return shape_transport(s) + (s->protocol == IPPROTO_TCP ? 20 + s->tcp_options : UDP_HEADER_LEN);
}

static inline uint8_t payload_byte(size_t i)
{
    return (uint8_t)(i * 131 + (i >> 8) * 17 + 5);
}

static inline void write_ip4(uint8_t *ip, const struct shape *s, size_t transport_len)
{
    struct ipv4_header h = {.id = 0xfffe, .ttl = 64, .protocol = s->protocol, .tos = 2};
    assert_true(ip_address_parse("192.0.2.1", &h.source));
    assert_true(ip_address_parse("10.0.2.100", &h.destination));
    h.total_len = (uint16_t)(IPV4_HEADER_LEN + s->ip_options + transport_len);
    ipv4_write(ip, &h);
    ip[0] = (uint8_t)(0x45 + s->ip_options / 4);
    memset(ip + 20, 1, s->ip_options);
    checksum_store(ip + 10, 0);
    checksum_store(ip + 10, checksum_finish(checksum_add(0, ip, 20 + s->ip_options)));
}

static inline void write_ip6(uint8_t *ip, const struct shape *s, size_t transport_len)
{
    struct ipv6_header h = {.hop_limit = 64, .next_header = s->protocol, .flow_label = 0x12345};
    assert_true(ip_address_parse("2001:db8::1", &h.source));
    assert_true(ip_address_parse("fd63:756c:7665::64", &h.destination));
    h.payload_len = (uint16_t)(s->ip_options + transport_len);
    if (s->ip_options) {
        const uint8_t extension[8] = {s->protocol, 0, 1, 4};
        assert_int_equal(s->ip_options, 8);
        h.next_header = IPPROTO_DSTOPTS;
        memcpy(ip + IPV6_HEADER_LEN, extension, 8);
    }
    ipv6_write(ip, &h);
}

static inline uint64_t packet_pseudo(const uint8_t *ip, bool v6, uint8_t protocol, size_t len)
{
    return v6 ? checksum_pseudo6(ip + 8, ip + 24, protocol, (uint32_t)len)
              : checksum_pseudo4(ip + 12, ip + 16, protocol, (uint32_t)len);
}

static inline void write_transport(uint8_t *to, const struct shape *s, size_t transport_len)
{
    memset(to, 0, shape_header(s) - shape_transport(s));
    if (s->protocol == IPPROTO_UDP) {
        udp_write(to, 4433, 40000, (uint16_t)transport_len);
        return;
    }
    store_be16(to, 443);
    store_be16(to + 2, 40000);
    store_be32(to + 4, 0xfffffff0);
    store_be32(to + 8, 77);
    to[12] = (uint8_t)((5 + s->tcp_options / 4) << 4);
    to[13] = s->tcp_flags;
    store_be16(to + 14, 500);
    memset(to + 20, 1, s->tcp_options);
}

/* A frame of the shape with its payload and the pseudo header's sum in place. */
static inline struct culvert_frame *frame_of_shape(const struct shape *s)
{
    size_t header = shape_header(s), transport = shape_transport(s), done = 0;
    size_t linear = s->linear < s->payload ? s->linear : s->payload;
    struct culvert_frame *frame = culvert_frame_new(header + linear);
    static const uint8_t to[6] = {2, 0, 0, 0, 0, 9}, from[6] = {2, 0x63, 0x75, 0x6c, 0x76, 2};
    uint8_t *ip;
    uint16_t place = s->protocol == IPPROTO_TCP ? 16 : 6;

    assert_non_null(frame);
    ip = frame->data + ETHERNET_HEADER_LEN;
    ethernet_write(frame->data, to, from, s->v6 ? ETHERNET_IPV6 : ETHERNET_IPV4);
    (s->v6 ? write_ip6 : write_ip4)(ip, s, header - transport + s->payload);
    write_transport(frame->data + transport, s, header - transport + s->payload);
    checksum_store(
        frame->data + transport + place,
        checksum_fold(packet_pseudo(ip, s->v6, s->protocol, header - transport + s->payload)));
    for (; done < linear; done++)
        frame->data[header + done] = payload_byte(done);
    frame->len = header + linear;
    while (done < s->payload) {
        size_t n = s->payload - done < s->piece ? s->payload - done : s->piece;
        struct culvert_buffer *buffer = culvert_buffer_new(n + 3);
        assert_non_null(buffer);
        for (size_t i = 0; i < n; i++)
            buffer->data[3 + i] = payload_byte(done + i);
        assert_int_equal(culvert_frame_append(frame, buffer, buffer->data + 3, n), 0);
        culvert_buffer_unref(buffer);
        done += n;
    }
    frame->offload.flags = CULVERT_OFFLOAD_NEEDS_CSUM;
    frame->offload.csum_start = (uint16_t)transport;
    frame->offload.csum_offset = place;
    frame->offload.hdr_len = (uint16_t)header;
    frame->offload.gso_size = s->gso_size;
    if (s->gso_size)
        frame->offload.gso_type = s->protocol == IPPROTO_UDP ? CULVERT_GSO_UDP_L4
                                  : s->v6                    ? CULVERT_GSO_TCPV6
                                                             : CULVERT_GSO_TCPV4;
    return frame;
}

/* Copies the whole frame to `to`; its length. */
static inline size_t frame_flatten(const struct culvert_frame *frame, uint8_t *to, size_t max)
{
    struct iovec iov[128];
    size_t count = culvert_frame_iov(frame, iov, 128), len = 0;

    assert_true(count <= 128);
    for (size_t i = 0; i < count; i++) {
        assert_true(iov[i].iov_len <= max - len);
        memcpy(to + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    return len;
}

#endif
