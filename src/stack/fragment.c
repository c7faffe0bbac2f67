/* SPDX-License-Identifier: Apache-2.0 */
/* Packets towards the guest that exceed its MTU, cut into fragments (RFC 791 3.2, RFC 8200 4.5).
 *
 * Payload is never copied: every fragment is a frame over slices of the same buffers. Only the
 * transport's header, which stands in the first fragment, is private bytes. */

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "stack/network.h"
#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"

/* How far the payload has been handed out. */
struct cursor {
    const struct ip_payload *payload;
    unsigned segment;
    size_t within; /* of that segment */
    size_t done;   /* of header and segments together */
};

/* Appends the next `len` bytes of the segments. */
static int append_segments(struct culvert_frame *frame, struct cursor *at, size_t len)
{
    while (len != 0 && at->segment < at->payload->segment_count) {
        const struct culvert_segment *segment = &at->payload->segments[at->segment];
        size_t piece = segment->len - at->within;

        if (piece > len)
            piece = len;
        if (piece != 0) {
            int result =
                culvert_frame_append(frame, segment->buffer, segment->base + at->within, piece);
            if (result < 0)
                return result;
        }
        at->within += piece;
        len -= piece;
        if (at->within == segment->len) {
            at->segment++;
            at->within = 0;
        }
    }
    return len == 0 ? 0 : -EINVAL;
}

/* Appends the next `len` bytes of the packet. */
static int append(struct culvert_frame *frame, struct cursor *at, size_t len)
{
    const struct ip_payload *payload = at->payload;

    if (at->done < payload->header_len) { /* the first frame: it holds the header whole */
        memcpy(frame->data + frame->len, payload->header, payload->header_len);
        frame->len += payload->header_len;
        at->done = payload->header_len;
        len -= payload->header_len;
    }
    at->done += len;
    return append_segments(frame, at, len);
}

/* Makes the IPv4 header in `frame` that of a fragment. */
static void mark_fragment4(struct culvert_frame *frame, uint32_t id, size_t offset, bool more)
{
    uint8_t *ip = frame->data + ETHERNET_LEN;

    store_be16(ip + 4, (uint16_t)id);
    store_be16(ip + 6, (uint16_t)(offset / 8 | (more ? 0x2000u : 0)));
    checksum_store(ip + IPV4_CHECKSUM_OFFSET, 0);
    checksum_store(ip + IPV4_CHECKSUM_OFFSET,
                   checksum_finish(checksum_add(0, ip, IPV4_HEADER_LEN)));
}

/* A frame for `len` bytes at `offset` of the packet, its IP headers complete. */
static struct culvert_frame *fragment_frame(struct stack *stack, const struct ip_header *header,
                                            uint32_t id, size_t offset, size_t len, bool more)
{
    struct ip_header outer = *header;
    struct culvert_frame *frame;

    if (ip_address_is_v4(&header->destination)) {
        frame = ip_frame_new(stack, &outer, len);
        if (frame)
            mark_fragment4(frame, id, offset, more);
        return frame;
    }
    outer.protocol = IPPROTO_FRAGMENT;
    frame = ip_frame_new(stack, &outer, len + IPV6_FRAGMENT_HEADER_LEN);
    if (frame) {
        const struct ipv6_fragment fragment = {
            .id = id,
            .offset = (uint16_t)offset,
            .next_header = header->protocol,
            .more = more,
        };
        ipv6_fragment_write(frame->data + frame->len, &fragment);
        frame->len += IPV6_FRAGMENT_HEADER_LEN;
    }
    return frame;
}

static int send_appended(struct stack *stack, struct culvert_frame *take_frame, struct cursor *at,
                         size_t len)
{
    int result = append(take_frame, at, len);

    if (result == 0)
        result = stack_send_frame(stack, take_frame);
    if (result < 0)
        culvert_frame_unref(take_frame);
    return result;
}

static int send_fragments(struct stack *stack, const struct ip_header *header, struct cursor *at,
                          size_t total, size_t room)
{
    const uint32_t id = stack->ip->next_id++;

    for (size_t offset = 0; offset < total; offset = at->done) {
        size_t left = total - offset;
        bool more = left > room;
        size_t len = more ? room & ~(size_t)7 : left;
        struct culvert_frame *frame = fragment_frame(stack, header, id, offset, len, more);
        int result = frame ? send_appended(stack, frame, at, len) : -ENOMEM;

        if (result < 0)
            return result;
    }
    return 0;
}

int ip_output(struct stack *stack, const struct ip_header *header, const struct ip_payload *payload)
{
    const bool v6 = !ip_address_is_v4(&header->destination);
    const size_t total = payload->header_len + payload->len;
    const size_t room = stack->link.mtu - ip_header_len(v6);
    struct cursor at = {.payload = payload};

    if (total > (v6 ? 65535u : 65535u - IPV4_HEADER_LEN))
        return -EMSGSIZE;
    if (total <= room) {
        struct culvert_frame *frame = ip_frame_new(stack, header, total);
        return frame ? send_appended(stack, frame, &at, total) : -ENOMEM;
    }
    if (header->dont_fragment && !v6)
        return -EMSGSIZE;
    return send_fragments(stack, header, &at, total, v6 ? room - IPV6_FRAGMENT_HEADER_LEN : room);
}
