/* SPDX-License-Identifier: Apache-2.0 */
/* The way down: a frame with its Ethernet and IP headers, for a transport to complete. This is on
 * the path of every packet, so headers are stored as whole words and nothing is cleared first. */

#include <errno.h>
#include <string.h>

#include "stack/network.h"
#include "wire/checksum.h"
#include "wire/ip.h"

static inline void store_word(uint8_t *to, uint32_t host_order)
{
    host_order = htonl(host_order);
    memcpy(to, &host_order, sizeof host_order);
}

static inline uint32_t load_word(const uint8_t *from)
{
    uint32_t word;

    memcpy(&word, from, sizeof word);
    return word;
}

/* `id` matters only to fragments, which are given theirs in fragment.c (RFC 6864 4.1). */
static inline void write_ip4(uint8_t *to, const struct ip_header *header, size_t total_len)
{
    uint64_t sum;

    store_word(to, 0x45000000u | (uint32_t)header->tos << 16 | (uint32_t)total_len);
    store_word(to + 4, header->dont_fragment ? 0x4000u : 0);
    store_word(to + 8, (uint32_t)header->ttl << 24 | (uint32_t)header->protocol << 16);
    memcpy(to + 12, &header->source.be32[3], 4);
    memcpy(to + 16, &header->destination.be32[3], 4);
    sum = (uint64_t)load_word(to) + load_word(to + 4) + load_word(to + 8) + header->source.be32[3] +
          header->destination.be32[3];
    checksum_store(to + IPV4_CHECKSUM_OFFSET, checksum_finish(sum));
}

static inline void write_ip6(uint8_t *to, const struct ip_header *header, size_t payload_len)
{
    store_word(to, 0x60000000u | (uint32_t)header->tos << 20);
    store_word(to + 4, (uint32_t)payload_len << 16 | (uint32_t)header->protocol << 8 | header->ttl);
    memcpy(to + 8, header->source.bytes, 16);
    memcpy(to + 24, header->destination.bytes, 16);
}

struct culvert_frame *ip_frame_new(struct stack *stack, const struct ip_header *header,
                                   size_t transport_len)
{
    struct culvert_frame *frame = pool_take_frame(stack->frames);

    if (!frame)
        return NULL;
    if (ip_address_is_v4(&header->destination)) {
        memcpy(frame->data, stack->link_layer->ethernet4, ETHERNET_LEN);
        write_ip4(frame->data + ETHERNET_LEN, header, IPV4_HEADER_LEN + transport_len);
        frame->len = ETHERNET_LEN + IPV4_HEADER_LEN;
    } else {
        memcpy(frame->data, stack->link_layer->ethernet6, ETHERNET_LEN);
        write_ip6(frame->data + ETHERNET_LEN, header, transport_len);
        frame->len = ETHERNET_LEN + IPV6_HEADER_LEN;
    }
    return frame;
}

uint16_t ip_pseudo_sum(const struct ip_header *header, size_t transport_len)
{
    return checksum_fold(checksum_pseudo(&header->source, &header->destination, header->protocol,
                                         (uint32_t)transport_len));
}

int stack_send_frame(struct stack *stack, struct culvert_frame *frame)
{
    if (__builtin_expect(!stack->link.up, false)) {
        count(stack->counters, COUNTER_link_down);
        culvert_frame_unref(frame);
        return 0;
    }
    if (__builtin_expect(!stack->link_layer->guest_known, false))
        link_solicit_guest(stack, frame->data[12] == 0x86);
    return stack->ops.send(stack->ctx, frame);
}

struct culvert_buffer *ip_payload_buffer(struct stack *stack)
{
    return pool_take_buffer(stack->ip->payloads);
}

bool ip_frame_append_copy(struct stack *stack, struct culvert_frame *frame, const uint8_t *bytes,
                          size_t len)
{
    struct culvert_buffer *buffer;
    int failed;

    if (len == 0)
        return true;
    if (frame->segment_count == 0 && len <= frame->capacity - frame->len) {
        memcpy(frame->data + frame->len, bytes, len);
        frame->len += len;
        return true;
    }
    buffer = ip_payload_buffer(stack);
    if (!buffer)
        return false;
    if (len > buffer->capacity) {
        culvert_buffer_unref(buffer);
        return false;
    }
    memcpy(buffer->data, bytes, len);
    failed = culvert_frame_append(frame, buffer, buffer->data, len);
    culvert_buffer_unref(buffer); /* the frame holds its own reference */
    return failed == 0;
}
