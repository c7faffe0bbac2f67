/* SPDX-License-Identifier: Apache-2.0 */
/* Packets as they lie in frames: how their bytes are reached, and their headers read.
 *
 * Headers are read in place. A frame whose linear bytes end within its headers (segments may begin
 * anywhere) has the first HEADERS_MAX bytes gathered on the stack first; packets whose headers are
 * longer than that are refused. */

#include <netinet/in.h>
#include <string.h>

#include "stack/network.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"

#define HEADERS_MAX 256u

/* ---- bytes ---- */

size_t frame_chunk(const struct culvert_frame *frame, size_t offset, const uint8_t **ret_bytes)
{
    if (offset < frame->len) {
        *ret_bytes = frame->data + offset;
        return frame->len - offset;
    }
    offset -= frame->len;
    for (unsigned i = 0; i < frame->segment_count; i++) {
        const struct culvert_segment *segment = &frame->segments[i];

        if (offset < segment->len) {
            *ret_bytes = segment->base + offset;
            return segment->len - offset;
        }
        offset -= segment->len;
    }
    return 0;
}

bool frame_copy(const struct culvert_frame *frame, size_t offset, size_t len, uint8_t *to)
{
    while (len != 0) {
        const uint8_t *bytes;
        size_t n = frame_chunk(frame, offset, &bytes);

        if (n == 0)
            return false;
        if (n > len)
            n = len;
        memcpy(to, bytes, n);
        to += n;
        offset += n;
        len -= n;
    }
    return true;
}

const uint8_t *ip_packet_linear(const struct ip_packet *packet, size_t offset, size_t len,
                                uint8_t *scratch)
{
    const struct culvert_frame *frame = packet->frame;

    if (len > packet->offset + packet->len || offset > packet->offset + packet->len - len)
        return NULL;
    if (__builtin_expect(offset + len <= frame->len, true))
        return frame->data + offset;
    if (len > IP_SCRATCH_LEN || !frame_copy(frame, offset, len, scratch))
        return NULL;
    return scratch;
}

bool ip_packet_checksum_ok(const struct ip_packet *packet)
{
    uint64_t sum = 0;

    if (packet->checksum_known)
        return true;
    if (packet->v6 || packet->protocol != IPPROTO_ICMP) /* ICMPv4 has no pseudo header */
        sum = checksum_pseudo(&packet->source, &packet->destination, packet->protocol,
                              (uint32_t)packet->len);
    sum = checksum_add_frame(sum, packet->frame, packet->offset, packet->len);
    return checksum_fold(sum) == 0xffff;
}

/* The bytes that headers are read from. */
struct headers {
    const uint8_t *data;
    size_t linear, available;
    uint8_t scratch[HEADERS_MAX];
};

static inline void headers_in_place(struct headers *headers, const struct culvert_frame *frame)
{
    headers->data = frame->data + ETHERNET_LEN;
    headers->linear = frame->len - ETHERNET_LEN;
    headers->available = culvert_frame_len(frame) - ETHERNET_LEN;
}

/* After IP_FAULT_TRUNCATED: false if more linear bytes would not have helped. */
static bool headers_gather(struct headers *headers, const struct culvert_frame *frame)
{
    size_t wanted = headers->available < HEADERS_MAX ? headers->available : HEADERS_MAX;

    if (headers->linear >= wanted || !frame_copy(frame, ETHERNET_LEN, wanted, headers->scratch))
        return false;
    headers->data = headers->scratch;
    headers->linear = wanted;
    return true;
}

/* ---- IPv4 ---- */

enum ip_fault ip4_read(struct culvert_frame *frame, struct ipv4_header *ret_header,
                       struct ip_packet *ret)
{
    struct headers in;
    enum ip_fault fault;

    headers_in_place(&in, frame);
    fault = ipv4_parse(in.data, in.linear, in.available, ret_header);
    if (fault == IP_FAULT_TRUNCATED && headers_gather(&in, frame))
        fault = ipv4_parse(in.data, in.linear, in.available, ret_header);
    if (fault != IP_OK)
        return fault;
    *ret = (struct ip_packet){
        .frame = frame,
        .ip_offset = ETHERNET_LEN,
        .offset = ETHERNET_LEN + ret_header->header_len,
        .len = (size_t)ret_header->total_len - ret_header->header_len,
        .source = ret_header->source,
        .destination = ret_header->destination,
        .protocol = ret_header->protocol,
        .ttl = ret_header->ttl,
        .tos = ret_header->tos,
        .dont_fragment = ret_header->dont_fragment,
    };
    return IP_OK;
}

/* ---- IPv6 ---- */

/* Walks the chain; an "atomic" fragment, first and last at once, is none (RFC 6946). */
static enum ip_fault walk6(const uint8_t *data, size_t linear, uint8_t first, size_t end,
                           struct ipv6_chain *chain, struct ip6_packet *ret)
{
    enum ip_fault fault = ipv6_walk(data, linear, IPV6_HEADER_LEN, first, 6, chain);

    if (fault != IP_OK || chain->protocol != IPPROTO_FRAGMENT)
        return fault;
    if (chain->offset > end)
        return IP_FAULT_LENGTH;
    fault = ipv6_fragment_parse(data + chain->offset,
                                linear > chain->offset ? linear - chain->offset : 0,
                                end - chain->offset, &ret->fragment);
    if (fault != IP_OK)
        return fault;
    ret->packet.reassembled = true;
    if (ret->fragment.more || ret->fragment.offset != 0) {
        ret->fragmented = true;
        chain->offset += IPV6_FRAGMENT_HEADER_LEN;
        return IP_OK;
    }
    return ipv6_walk(data, linear, chain->offset + IPV6_FRAGMENT_HEADER_LEN,
                     ret->fragment.next_header, chain->offset, chain);
}

static enum ip_fault parse_packet6(const struct headers *in, struct culvert_frame *frame,
                                   struct ip6_packet *ret)
{
    struct ipv6_header header;
    struct ipv6_chain chain = {0};
    enum ip_fault fault = ipv6_parse(in->data, in->linear, in->available, &header);
    size_t end;

    if (fault != IP_OK)
        return fault;
    end = IPV6_HEADER_LEN + header.payload_len;
    ret->fragmented = false;
    ret->packet = (struct ip_packet){
        .frame = frame,
        .ip_offset = ETHERNET_LEN,
        .source = header.source,
        .destination = header.destination,
        .ttl = header.hop_limit,
        .tos = header.traffic_class,
        .v6 = true,
        .dont_fragment = true,
    };
    /* Headers may not reach into the link's padding. */
    fault =
        walk6(in->data, in->linear < end ? in->linear : end, header.next_header, end, &chain, ret);
    if (fault != IP_OK)
        return fault;
    if (chain.offset > end)
        return IP_FAULT_LENGTH;
    ret->packet.protocol = ret->fragmented ? ret->fragment.next_header : chain.protocol;
    ret->packet.offset = ETHERNET_LEN + chain.offset;
    ret->packet.len = end - chain.offset;
    return IP_OK;
}

enum ip_fault ip6_read(struct culvert_frame *frame, struct ip6_packet *ret)
{
    struct headers in;
    enum ip_fault fault;

    headers_in_place(&in, frame);
    fault = parse_packet6(&in, frame, ret);
    if (fault == IP_FAULT_TRUNCATED && headers_gather(&in, frame))
        fault = parse_packet6(&in, frame, ret);
    return fault;
}

bool ip_packet_of_frame(struct culvert_frame *frame, struct ip_packet *ret)
{
    struct ipv4_header header;
    struct ip6_packet in;

    if (frame->len < ETHERNET_LEN)
        return false;
    if (load_be16(frame->data + 12) == ETHERNET_IPV4)
        return ip4_read(frame, &header, ret) == IP_OK;
    if (ip6_read(frame, &in) != IP_OK)
        return false;
    *ret = in.packet;
    return true;
}
