/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/software_offload.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp.h"
#include "wire/udp.h"

#define TCP_CHECKSUM_OFFSET 16u

/* Of a segment's frame: all headers with options, and views on a payload that came in pieces. */
#define SEGMENT_LINEAR   256u
#define SEGMENT_PIECES   16u
#define SEGMENTS_MAX     4096u
#define SEGMENTS_KEPT    128u
#define SLICE_PIECES_MAX 80u

bool software_offload_unneeded(const struct culvert_link *link,
                               const struct culvert_offload *offload)
{
    uint32_t needed = 0;

    if (offload->flags & CULVERT_OFFLOAD_NEEDS_CSUM)
        needed |= CULVERT_LINK_CSUM;
    if (offload->gso_type & CULVERT_GSO_ECN)
        needed |= CULVERT_LINK_ECN;
    switch (offload->gso_type & ~CULVERT_GSO_ECN) {
    case CULVERT_GSO_NONE:
        break;
    case CULVERT_GSO_TCPV4:
        needed |= CULVERT_LINK_TSO4;
        break;
    case CULVERT_GSO_TCPV6:
        needed |= CULVERT_LINK_TSO6;
        break;
    case CULVERT_GSO_UDP_L4:
        needed |= CULVERT_LINK_USO;
        break;
    default:
        return false;
    }
    return (link->offloads & needed) == needed;
}

/* ---- frames made from frames ---- */

/* How many of the bytes [offset, offset + len) are linear in the frame. */
static size_t linear_part(const struct culvert_frame *frame, size_t offset, size_t len)
{
    if (offset >= frame->len)
        return 0;
    return len < frame->len - offset ? len : frame->len - offset;
}

/* Appends views on the bytes [offset, offset + len) of `from` to `to`; what is linear there becomes
 * linear here, behind the headers. -ENOSPC: it does not fit. */
static int append_views(struct culvert_frame *to, const struct culvert_frame *from, size_t offset,
                        size_t len)
{
    size_t n = linear_part(from, offset, len), at = from->len;

    if (n > to->capacity - to->len)
        return -ENOSPC;
    if (n != 0)
        memcpy(to->data + to->len, from->data + offset, n);
    to->len += n;
    offset += n;
    len -= n;
    for (size_t i = 0; i < from->segment_count && len != 0; i++) {
        const struct culvert_segment *s = &from->segments[i];
        size_t skip = offset - at;

        if (skip < s->len) {
            n = len < s->len - skip ? len : s->len - skip;
            if (culvert_frame_append(to, s->buffer, s->base + skip, n) < 0)
                return -ENOSPC;
            offset += n;
            len -= n;
        }
        at += s->len;
    }
    return 0;
}

/* A frame of its own memory: the first `headers` bytes of `from`, then [offset, offset + len). */
static struct culvert_frame *copy_frame(const struct culvert_frame *from, size_t headers,
                                        size_t offset, size_t len)
{
    struct culvert_frame *to = culvert_frame_new(headers + len);
    struct iovec iov[SLICE_PIECES_MAX];

    if (!to)
        return NULL;
    memcpy(to->data, from->data, headers);
    to->len = headers;
    while (len != 0) {
        size_t count = culvert_frame_slice(from, offset, len, iov, SLICE_PIECES_MAX);
        if (count > SLICE_PIECES_MAX)
            count = SLICE_PIECES_MAX;
        for (size_t i = 0; i < count; i++) {
            memcpy(to->data + to->len, iov[i].iov_base, iov[i].iov_len);
            to->len += iov[i].iov_len;
            offset += iov[i].iov_len;
            len -= iov[i].iov_len;
        }
    }
    return to;
}

/* The same with views in place of copies, as long as a frame of the pool can hold them. */
static struct culvert_frame *frame_of_part(struct pool *pool, const struct culvert_frame *from,
                                           size_t headers, size_t offset, size_t len)
{
    struct culvert_frame *to;

    if (headers + linear_part(from, offset, len) > SEGMENT_LINEAR)
        return copy_frame(from, headers, offset, len);
    to = pool_take_frame(pool);
    if (!to)
        return NULL;
    memcpy(to->data, from->data, headers);
    to->len = headers;
    if (append_views(to, from, offset, len) == 0)
        return to;
    culvert_frame_unref(to);
    return copy_frame(from, headers, offset, len);
}

/* ---- checksums ---- */

static bool checksum_place_is_linear(const struct culvert_frame *frame)
{
    const struct culvert_offload *o = &frame->offload;
    return (size_t)o->csum_start + o->csum_offset + 2 <= frame->len;
}

/* Does what the facts ask for: the field holds the pseudo header's sum. A sum of zero means "none"
 * in UDP, and is as good as its other form in TCP's eyes: both are written as 0xffff. */
static void complete_checksum(struct culvert_frame *frame)
{
    size_t start = frame->offload.csum_start;
    uint64_t sum = checksum_add_frame(0, frame, start, SIZE_MAX);

    checksum_store(frame->data + start + frame->offload.csum_offset, checksum_finish_udp(sum));
    frame->offload = (struct culvert_offload){0};
}

/* ---- headers of segments ---- */

static uint64_t pseudo_sum(const uint8_t *ip, const struct frame_layout *layout, size_t len)
{
    if (layout->v6)
        return checksum_pseudo6(ip + 8, ip + 24, layout->protocol, (uint32_t)len);
    return checksum_pseudo4(ip + 12, ip + 16, layout->protocol, (uint32_t)len);
}

static void write_ip_lengths(uint8_t *ip, const struct frame_layout *layout, uint16_t index,
                             size_t packet_len)
{
    size_t header_len = layout->transport - layout->ip;

    if (layout->v6) {
        store_be16(ip + 4, (uint16_t)(packet_len - IPV6_HEADER_LEN));
        return;
    }
    store_be16(ip + 2, (uint16_t)packet_len);
    store_be16(ip + 4, (uint16_t)(load_be16(ip + 4) + index));
    checksum_store(ip + IPV4_CHECKSUM_OFFSET, 0);
    checksum_store(ip + IPV4_CHECKSUM_OFFSET, checksum_finish(checksum_add(0, ip, header_len)));
}

/* FIN and PSH belong to the last byte, CWR to the first segment alone (RFC 3168, 6.1.2). */
static void write_tcp_position(uint8_t *tcp, size_t done, bool last)
{
    store_be32(tcp + 4, load_be32(tcp + 4) + (uint32_t)done);
    if (!last)
        tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (done != 0)
        tcp[13] &= (uint8_t)~TCP_CWR;
}

/* The segment's own headers, its payload being in place. */
static void write_headers(const struct software_offload *work, struct culvert_frame *segment,
                          size_t payload_len, bool last)
{
    const struct frame_layout *layout = &work->layout;
    bool is_tcp = layout->protocol == IPPROTO_TCP;
    uint8_t *ip = segment->data + layout->ip, *transport = segment->data + layout->transport;
    uint16_t csum_offset = is_tcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;
    size_t transport_len = layout->payload - layout->transport + payload_len;

    write_ip_lengths(ip, layout, work->index, layout->payload - layout->ip + payload_len);
    if (is_tcp)
        write_tcp_position(transport, work->done, last);
    else
        store_be16(transport + 4, (uint16_t)transport_len);
    checksum_store(transport + csum_offset, checksum_fold(pseudo_sum(ip, layout, transport_len)));
    segment->offload = (struct culvert_offload){
        .flags = CULVERT_OFFLOAD_NEEDS_CSUM,
        .hdr_len = (uint16_t)layout->payload,
        .csum_start = (uint16_t)layout->transport,
        .csum_offset = csum_offset,
    };
    if (!work->leave_checksums)
        complete_checksum(segment);
}

/* ---- a frame in progress ---- */

static bool is_gso(const struct culvert_frame *frame)
{
    return frame->offload.gso_type != CULVERT_GSO_NONE;
}

static bool can_segment(const struct culvert_frame *frame, struct frame_layout *ret_layout)
{
    return frame->offload.gso_size != 0 && frame_layout_find(frame, ret_layout) &&
           ret_layout->payload <= SEGMENT_LINEAR && ret_layout->payload < ret_layout->packet_end;
}

int software_offload_begin(struct software_offload *work, const struct culvert_link *link,
                           struct culvert_frame *take_frame)
{
    *work = (struct software_offload){
        .frame = take_frame,
        .leave_checksums = link->offloads & CULVERT_LINK_CSUM,
    };
    if (is_gso(take_frame) ? can_segment(take_frame, &work->layout)
                           : checksum_place_is_linear(take_frame))
        return 0;
    software_offload_end(work);
    return -EINVAL;
}

/* Frames that lack their checksum alone. One that nobody else holds is completed where it is. */
static int next_whole(struct software_offload *work, struct pool *pool,
                      struct culvert_frame **ret_frame)
{
    struct culvert_frame *from = work->frame, *to = from;

    if (__atomic_load_n(&from->refs, __ATOMIC_ACQUIRE) == 1) {
        work->frame = NULL;
    } else {
        size_t headers = (size_t)from->offload.csum_start + from->offload.csum_offset + 2;
        to = headers <= SEGMENT_LINEAR
                 ? frame_of_part(pool, from, headers, headers, culvert_frame_len(from) - headers)
                 : copy_frame(from, headers, headers, culvert_frame_len(from) - headers);
        if (!to)
            return -ENOMEM;
        to->offload = from->offload;
        software_offload_end(work);
    }
    complete_checksum(to);
    *ret_frame = to;
    return 1;
}

static int next_segment(struct software_offload *work, struct pool *pool,
                        struct culvert_frame **ret_frame)
{
    const struct frame_layout *layout = &work->layout;
    size_t offset = layout->payload + work->done, left = layout->packet_end - offset;
    size_t len = work->frame->offload.gso_size < left ? work->frame->offload.gso_size : left;
    struct culvert_frame *segment = frame_of_part(pool, work->frame, layout->payload, offset, len);

    if (!segment)
        return -ENOMEM;
    write_headers(work, segment, len, len == left);
    work->done += len;
    work->index++;
    if (len == left)
        software_offload_end(work);
    *ret_frame = segment;
    return 1;
}

int software_offload_next(struct software_offload *work, struct pool *pool,
                          struct culvert_frame **ret_frame)
{
    if (!work->frame)
        return 0;
    return is_gso(work->frame) ? next_segment(work, pool, ret_frame)
                               : next_whole(work, pool, ret_frame);
}

void software_offload_end(struct software_offload *work)
{
    culvert_frame_unref(work->frame);
    work->frame = NULL;
}

/* ---- the sender ---- */

static bool sender_has_pool(struct software_sender *sender)
{
    const struct pool_config config = {
        .linear_capacity = SEGMENT_LINEAR,
        .segment_capacity = SEGMENT_PIECES,
        .max = SEGMENTS_MAX,
        .keep = SEGMENTS_KEPT,
    };

    if (!sender->pool)
        sender->pool = pool_new(&config);
    return sender->pool;
}

int software_sender_resume(struct software_sender *sender)
{
    int r;

    for (;;) {
        if (!sender->held) {
            r = software_offload_next(&sender->work, sender->pool, &sender->held);
            if (r == 0)
                return 0;
            if (r < 0) {
                count(sender->counters, COUNTER_netdev_no_memory);
                software_offload_end(&sender->work);
                return 0;
            }
        }
        r = sender->put(sender->ctx, sender->held);
        if (r == -EAGAIN)
            return r;
        sender->held = NULL;
    }
}

int software_sender_send(struct software_sender *sender, const struct culvert_link *link,
                         struct culvert_frame *frame)
{
    if ((sender->held || sender->work.frame) && software_sender_resume(sender) < 0)
        return -EAGAIN;
    if (software_offload_unneeded(link, &frame->offload))
        return sender->put(sender->ctx, frame);
    if (!sender_has_pool(sender)) {
        count(sender->counters, COUNTER_netdev_no_memory);
        culvert_frame_unref(frame);
        return 0;
    }
    if (software_offload_begin(&sender->work, link, frame) < 0) {
        count(sender->counters, COUNTER_netdev_write_error);
        return 0;
    }
    (void)software_sender_resume(sender); /* -EAGAIN: taken all the same, and goes on later */
    return 0;
}

void software_sender_end(struct software_sender *sender)
{
    sender->held = culvert_frame_unref(sender->held);
    software_offload_end(&sender->work);
    sender->pool = pool_free(sender->pool);
}
