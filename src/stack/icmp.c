/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP from the guest, and echo of both families.
 *
 * An echo request to an address of culvert's own is answered here; any other goes up, and what
 * comes of it returns by stack_echo_output(). The guest's errors are counted and used for nothing:
 * it has only its own word for them, and the host's kernel hears of the real path by itself. */

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "stack/network.h"
#include "wire/checksum.h"
#include "wire/icmp.h"

#define DEFAULT_TTL 64

void icmp_finish(struct stack *stack, const struct ip_header *header, size_t message_offset,
                 struct culvert_frame *take_frame)
{
    const size_t len = culvert_frame_len(take_frame) - message_offset;
    uint64_t sum = 0;

    if (header->protocol == IPPROTO_ICMPV6)
        sum = checksum_pseudo(&header->source, &header->destination, IPPROTO_ICMPV6, (uint32_t)len);
    sum = checksum_add_frame(sum, take_frame, message_offset, len);
    checksum_store(take_frame->data + message_offset + ICMP_CHECKSUM_OFFSET, checksum_finish(sum));
    link_send(stack, take_frame);
}

/* Sends an echo reply whose payload is the first `len` bytes of `buffer`. */
static int send_echo_reply(struct stack *stack, const struct ip_header *header, uint32_t rest,
                           struct culvert_buffer *buffer, size_t len)
{
    const bool v6 = header->protocol == IPPROTO_ICMPV6;
    const struct icmp_header icmp = {
        .type = v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY,
        .rest = rest,
    };
    const struct culvert_segment segment = {buffer, buffer->data, len};
    uint8_t message[ICMP_HEADER_LEN];
    const struct ip_payload payload = {
        .header = message,
        .header_len = sizeof message,
        .segments = &segment,
        .segment_count = 1,
        .len = len,
    };
    uint64_t sum = 0;

    icmp_write(message, &icmp);
    if (v6)
        sum = checksum_pseudo(&header->source, &header->destination, IPPROTO_ICMPV6,
                              (uint32_t)(ICMP_HEADER_LEN + len));
    sum = checksum_add(checksum_add(sum, message, sizeof message), buffer->data, len);
    checksum_store(message + ICMP_CHECKSUM_OFFSET, checksum_finish(sum));
    return ip_output(stack, header, &payload);
}

static int count_output(struct stack *stack, int result)
{
    if (result < 0)
        count(stack->counters, result == -EAGAIN ? COUNTER_link_full : COUNTER_icmp_no_memory);
    return result;
}

int stack_echo_output(struct stack *stack, const struct echo_reply *reply)
{
    const struct ip_header header = {
        .source = reply->key.remote,
        .destination = reply->key.guest,
        .protocol = ip_address_is_v4(&reply->key.guest) ? IPPROTO_ICMP : IPPROTO_ICMPV6,
        .ttl = reply->ttl ? reply->ttl : DEFAULT_TTL,
        .tos = reply->tos,
    };
    struct culvert_buffer *buffer = ip_payload_buffer(stack);
    int result = -ENOMEM;

    if (buffer && reply->len <= buffer->capacity) {
        if (reply->len != 0)
            memcpy(buffer->data, reply->payload, reply->len);
        result =
            send_echo_reply(stack, &header, (uint32_t)reply->key.guest_port << 16 | reply->sequence,
                            buffer, reply->len);
    }
    culvert_buffer_unref(buffer);
    return count_output(stack, result);
}

/* For an address of our own. */
static void answer_echo(struct stack *stack, const struct ip_packet *packet, uint32_t rest)
{
    const struct ip_header header = {
        .source = packet->destination,
        .destination = packet->source,
        .protocol = packet->protocol,
        .ttl = DEFAULT_TTL,
        .tos = packet->tos,
    };
    const size_t len = packet->len - ICMP_HEADER_LEN;
    struct culvert_buffer *buffer = ip_payload_buffer(stack);
    int result = -ENOMEM;

    if (buffer && len <= buffer->capacity &&
        frame_copy(packet->frame, packet->offset + ICMP_HEADER_LEN, len, buffer->data))
        result = send_echo_reply(stack, &header, rest, buffer, len);
    culvert_buffer_unref(buffer);
    if (count_output(stack, result) == 0)
        count(stack->counters, COUNTER_icmp_echo_answered);
}

void icmp_echo_request(struct stack *stack, const struct ip_packet *packet, uint32_t rest)
{
    const struct echo_request request = {
        .key =
            {
                .guest = packet->source,
                .remote = packet->destination,
                .guest_port = (uint16_t)(rest >> 16),
                .protocol = packet->protocol,
            },
        .sequence = (uint16_t)rest,
        .frame = packet->frame,
        .payload_offset = packet->offset + ICMP_HEADER_LEN,
        .payload_len = packet->len - ICMP_HEADER_LEN,
        .ttl = packet->ttl,
        .tos = packet->tos,
        .dont_fragment = packet->dont_fragment,
    };

    if (ip_address_owned(stack, &packet->destination))
        answer_echo(stack, packet, rest);
    else
        stack->ops.echo_input(stack->ctx, &request);
}

void icmp_input(struct stack *stack, const struct ip_packet *packet)
{
    uint8_t scratch[IP_SCRATCH_LEN];
    const uint8_t *bytes = ip_packet_linear(packet, packet->offset, ICMP_HEADER_LEN, scratch);
    struct icmp_header header;

    if (!bytes || !icmp_parse(bytes, packet->len, &header)) {
        count(stack->counters, COUNTER_icmp_malformed);
        return;
    }
    if (!ip_packet_checksum_ok(packet)) {
        count(stack->counters, COUNTER_icmp_bad_checksum);
        return;
    }
    if (header.type == ICMP4_ECHO_REQUEST && header.code == 0)
        icmp_echo_request(stack, packet, header.rest);
    else if (icmp4_is_error(header.type))
        count(stack->counters, COUNTER_icmp_errors_from_guest);
    else
        count(stack->counters, COUNTER_icmp_unsupported);
}
