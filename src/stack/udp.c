/* SPDX-License-Identifier: Apache-2.0 */
/* UDP between the guest and whoever relays it.
 *
 * From the guest, a datagram is checked and handed up where it lies; one that still holds many
 * (segmentation offload) goes up whole, with the size at which to cut. Towards the guest, datagrams
 * are frames over the relay's buffers: whole, with the checksum left to the device; many at once
 * where the relay received them so; in fragments, then with a checksum, where they exceed the MTU.
 * The stack keeps nothing between two datagrams. DHCP is answered here and goes no further. */

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "stack/network.h"
#include "wire/checksum.h"
#include "wire/dhcp.h"
#include "wire/dhcpv6.h"
#include "wire/udp.h"

#define DEFAULT_TTL 64

/* ---- from the guest ---- */

/* ff02::1:2, "all DHCP relay agents and servers" */
static bool is_dhcpv6_group(const struct ip_address *address)
{
    static const uint8_t group[16] = {0xff, 2, [13] = 1, [15] = 2};

    return memcmp(address->bytes, group, 16) == 0;
}

static bool is_dhcp(const struct stack *stack, const struct ip_packet *packet, uint16_t port)
{
    if (packet->v6)
        return port == DHCPV6_SERVER_PORT && is_dhcpv6_group(&packet->destination);
    return port == DHCP_SERVER_PORT &&
           (ip_address_is_broadcast(stack, &packet->destination) ||
            ip_address_equal(&packet->destination, &stack->config.gateway4));
}

/* Neither for DHCP nor for anybody: group addresses, and sources that are none. */
static bool is_deliverable(struct stack *stack, const struct ip_packet *packet)
{
    if (ip_address_is_multicast(&packet->destination)) {
        count(stack->counters, COUNTER_ip_multicast);
        return false;
    }
    if (!packet->v6 && ip_address_is_broadcast(stack, &packet->destination)) {
        count(stack->counters, COUNTER_ip_broadcast);
        return false;
    }
    return true;
}

/* The header of a super-datagram counts all its payload or none of it: the IP length decides. */
static bool read_header(struct stack *stack, const struct ip_packet *packet, bool gso,
                        struct udp_header *ret)
{
    uint8_t scratch[IP_SCRATCH_LEN];
    const uint8_t *bytes = ip_packet_linear(packet, packet->offset, UDP_HEADER_LEN, scratch);

    if (!bytes || !udp_parse(bytes, packet->len, ret) || ret->destination_port == 0) {
        count(stack->counters, COUNTER_udp_malformed);
        return false;
    }
    if (gso)
        ret->len = (uint16_t)packet->len;
    return true;
}

static bool checksum_acceptable(struct stack *stack, const struct ip_packet *packet,
                                const struct udp_header *header)
{
    struct ip_packet datagram = *packet;

    if (packet->checksum_known)
        return true;
    if (!header->checksum_present) {
        if (!packet->v6)
            return true;
        count(stack->counters, COUNTER_udp_no_checksum); /* RFC 8200 8.1 */
        return false;
    }
    datagram.len = header->len;
    if (ip_packet_checksum_ok(&datagram))
        return true;
    count(stack->counters, COUNTER_udp_bad_checksum);
    return false;
}

static void deliver(struct stack *stack, const struct ip_packet *packet,
                    const struct udp_header *header, bool gso)
{
    const size_t payload_len = header->len - UDP_HEADER_LEN;
    const uint16_t gso_size = packet->frame->offload.gso_size;
    const struct udp_datagram datagram = {
        .key =
            {
                .guest = packet->source,
                .remote = packet->destination,
                .guest_port = header->source_port,
                .remote_port = header->destination_port,
                .protocol = IPPROTO_UDP,
            },
        .frame = packet->frame,
        .payload_offset = packet->offset + UDP_HEADER_LEN,
        .payload_len = payload_len,
        .gso_size = gso && gso_size != 0 && payload_len > gso_size ? gso_size : 0,
        .ttl = packet->ttl,
        .tos = packet->tos,
        .dont_fragment = packet->dont_fragment,
    };

    stack->ops.udp_input(stack->ctx, &datagram);
}

void udp_input(struct stack *stack, const struct ip_packet *packet)
{
    const bool gso = packet->frame->offload.gso_type == CULVERT_GSO_UDP_L4;
    struct udp_header header;

    if (!read_header(stack, packet, gso, &header) || !checksum_acceptable(stack, packet, &header))
        return;
    if (__builtin_expect(is_dhcp(stack, packet, header.destination_port), false)) {
        size_t offset = packet->offset + UDP_HEADER_LEN, len = header.len - UDP_HEADER_LEN;

        if (packet->v6)
            dhcpv6_input(stack, packet, offset, len);
        else
            dhcp_input(stack, packet, offset, len);
        return;
    }
    if (is_deliverable(stack, packet))
        deliver(stack, packet, &header, gso);
}

/* ---- towards the guest ---- */

/* Some of an output's payload, in the same buffers. */
struct slice {
    const struct culvert_segment *segments;
    unsigned count;
    size_t len;
};

static int append_slice(struct culvert_frame *frame, const struct slice *slice)
{
    for (unsigned i = 0; i < slice->count; i++) {
        const struct culvert_segment *segment = &slice->segments[i];
        int result;

        if (segment->len == 0)
            continue;
        result = culvert_frame_append(frame, segment->buffer, segment->base, segment->len);
        if (result < 0)
            return result;
    }
    return 0;
}

/* One frame, a datagram or (gso_size) many; the device sums. */
static int send_whole(struct stack *stack, const struct ip_header *header,
                      const struct flow_key *key, const struct slice *slice, uint16_t gso_size)
{
    const size_t len = UDP_HEADER_LEN + slice->len;
    struct culvert_frame *frame = ip_frame_new(stack, header, len);
    uint8_t *udp;
    int result;

    if (!frame)
        return -ENOMEM;
    udp = frame->data + frame->len;
    udp_write(udp, key->remote_port, key->guest_port, (uint16_t)len);
    checksum_store(udp + UDP_CHECKSUM_OFFSET, ip_pseudo_sum(header, len));
    frame->offload = (struct culvert_offload){
        .flags = CULVERT_OFFLOAD_NEEDS_CSUM,
        .gso_type = gso_size ? CULVERT_GSO_UDP_L4 : CULVERT_GSO_NONE,
        .gso_size = gso_size,
        .hdr_len = (uint16_t)(frame->len + UDP_HEADER_LEN),
        .csum_start = (uint16_t)frame->len,
        .csum_offset = UDP_CHECKSUM_OFFSET,
    };
    frame->len += UDP_HEADER_LEN;
    result = append_slice(frame, slice);
    if (result == 0)
        result = stack_send_frame(stack, frame);
    if (result < 0)
        culvert_frame_unref(frame);
    return result;
}

static int send_fragmented(struct stack *stack, const struct ip_header *header,
                           const struct flow_key *key, const struct slice *slice)
{
    const size_t len = UDP_HEADER_LEN + slice->len;
    uint8_t udp[UDP_HEADER_LEN];
    struct iovec iov[FRAME_SEGMENTS + 1] = {{.iov_base = udp, .iov_len = sizeof udp}};
    const struct ip_payload payload = {
        .header = udp,
        .header_len = sizeof udp,
        .segments = slice->segments,
        .segment_count = slice->count,
        .len = slice->len,
    };

    if (slice->count > FRAME_SEGMENTS)
        return -ENOSPC;
    for (unsigned i = 0; i < slice->count; i++)
        iov[i + 1] = (struct iovec){slice->segments[i].base, slice->segments[i].len};
    udp_write(udp, key->remote_port, key->guest_port, (uint16_t)len);
    checksum_store(
        udp + UDP_CHECKSUM_OFFSET,
        checksum_finish_udp(checksum_add_iov(
            checksum_pseudo(&header->source, &header->destination, IPPROTO_UDP, (uint32_t)len), iov,
            slice->count + 1)));
    return ip_output(stack, header, &payload);
}

static size_t payload_room(const struct stack *stack, const struct flow_key *key)
{
    return stack->link.mtu - ip_header_len(!ip_address_is_v4(&key->guest)) - UDP_HEADER_LEN;
}

static int send_datagram(struct stack *stack, struct ip_header *header, const struct flow_key *key,
                         const struct slice *slice)
{
    if (slice->len <= payload_room(stack, key)) {
        header->dont_fragment = true; /* atomic: its identification needs no thought (RFC 6864) */
        return send_whole(stack, header, key, slice, 0);
    }
    header->dont_fragment = false;
    return send_fragmented(stack, header, key, slice);
}

/* Views of the bytes [offset, offset + len) of `output`, into `segments`. */
static struct slice slice_of(const struct udp_output *output, size_t offset, size_t len,
                             struct culvert_segment segments[FRAME_SEGMENTS])
{
    struct slice slice = {.segments = segments, .len = len};

    for (unsigned i = 0; i < output->segment_count && len != 0 && slice.count < FRAME_SEGMENTS;
         i++) {
        const struct culvert_segment *from = &output->segments[i];
        size_t piece;

        if (offset >= from->len) {
            offset -= from->len;
            continue;
        }
        piece = from->len - offset < len ? from->len - offset : len;
        segments[slice.count++] =
            (struct culvert_segment){from->buffer, from->base + offset, piece};
        offset = 0;
        len -= piece;
    }
    slice.len -= len;
    return slice;
}

/* Datagrams that came as one, too big to go on as one. */
static int send_each(struct stack *stack, struct ip_header *header, const struct udp_output *output)
{
    struct culvert_segment segments[FRAME_SEGMENTS];

    for (size_t offset = 0; offset < output->len; offset += output->gso_size) {
        size_t left = output->len - offset;
        size_t len = left < output->gso_size ? left : output->gso_size;
        struct slice slice = slice_of(output, offset, len, segments);
        int result =
            slice.len == len ? send_datagram(stack, header, &output->key, &slice) : -ENOSPC;

        if (result < 0)
            return result;
    }
    return 0;
}

static int send_output(struct stack *stack, struct ip_header *header,
                       const struct udp_output *output)
{
    const struct slice all = {output->segments, output->segment_count, output->len};
    const size_t packet_len =
        ip_header_len(!ip_address_is_v4(&output->key.guest)) + UDP_HEADER_LEN + output->len;

    if (output->gso_size == 0 || output->len <= output->gso_size)
        return send_datagram(stack, header, &output->key, &all);
    if (output->gso_size > payload_room(stack, &output->key) || packet_len > 65535)
        return send_each(stack, header, output);
    header->dont_fragment = true;
    return send_whole(stack, header, &output->key, &all, output->gso_size);
}

int stack_udp_output(struct stack *stack, const struct udp_output *output)
{
    struct ip_header header = {
        .source = output->key.remote,
        .destination = output->key.guest,
        .protocol = IPPROTO_UDP,
        .ttl = output->ttl ? output->ttl : DEFAULT_TTL,
        .tos = output->tos,
    };
    int result = send_output(stack, &header, output);

    if (__builtin_expect(result < 0, false))
        count(stack->counters, result == -EAGAIN     ? COUNTER_udp_link_full
                               : result == -EMSGSIZE ? COUNTER_udp_oversize
                                                     : COUNTER_udp_no_memory);
    return result;
}

void udp_send_copy(struct stack *stack, const struct flow_key *key, const uint8_t *payload,
                   size_t len, const uint8_t destination_mac[6])
{
    const struct ip_header header = {
        .source = key->remote,
        .destination = key->guest,
        .protocol = IPPROTO_UDP,
        .ttl = DEFAULT_TTL,
    };
    uint64_t sum = checksum_pseudo(&header.source, &header.destination, IPPROTO_UDP,
                                   (uint32_t)(UDP_HEADER_LEN + len));
    struct culvert_frame *frame = ip_frame_new(stack, &header, UDP_HEADER_LEN + len);
    uint8_t *udp;

    if (!frame) {
        count(stack->counters, COUNTER_udp_no_memory);
        return;
    }
    memcpy(frame->data, destination_mac, 6);
    udp = frame->data + frame->len;
    udp_write(udp, key->remote_port, key->guest_port, (uint16_t)(UDP_HEADER_LEN + len));
    sum = checksum_add(checksum_add(sum, udp, UDP_HEADER_LEN), payload, len);
    checksum_store(udp + UDP_CHECKSUM_OFFSET, checksum_finish_udp(sum));
    frame->len += UDP_HEADER_LEN;
    if (!ip_frame_append_copy(stack, frame, payload, len)) {
        count(stack->counters, COUNTER_udp_no_memory);
        culvert_frame_unref(frame);
        return;
    }
    link_send(stack, frame);
}
