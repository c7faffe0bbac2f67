/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of TCP flows in memory.
 *
 * A queue is a list of chunks; a chunk is a piece of memory somebody owns: one of our buffers, or a
 * frame of the guest's, kept by reference. Three queues a flow: `unacked` towards the guest,
 * `for_host` in order and `out_of_order` from the guest. What is small is copied into small buffers
 * and packed, so that a byte never pins 64 KiB; what is large is never copied, unless it is
 * borrowed (frame.h). */

#include <assert.h>
#include <stdlib.h>

#include "stack/tcp_internal.h"

#define CHUNKS_PER_SLAB  128
#define FRAME_PIECES_MAX 24 /* the linear part, and a guest's scattered pages (vhost-user) */

static bool chunk_slab_add(struct tcp *tcp)
{
    void **slabs = realloc(tcp->chunk_slabs, (tcp->chunk_slab_count + 1) * sizeof *slabs);

    if (!slabs)
        return false;
    tcp->chunk_slabs = slabs;
    struct tcp_chunk *slab = malloc(CHUNKS_PER_SLAB * sizeof *slab);
    if (!slab)
        return false;
    slabs[tcp->chunk_slab_count++] = slab;
    for (size_t i = 0; i < CHUNKS_PER_SLAB; i++) {
        slab[i].next = tcp->free_chunks;
        tcp->free_chunks = &slab[i];
    }
    return true;
}

struct tcp_chunk *tcp_chunk_new(struct tcp *tcp)
{
    if (!tcp->free_chunks && !chunk_slab_add(tcp))
        return NULL;
    struct tcp_chunk *chunk = tcp->free_chunks;
    tcp->free_chunks = chunk->next;
    return chunk;
}

bool tcp_chunks_ensure(struct tcp *tcp, unsigned n)
{
    const struct tcp_chunk *chunk = tcp->free_chunks;

    for (; chunk && n > 0; n--)
        chunk = chunk->next;
    return n == 0 || chunk_slab_add(tcp);
}

static void chunk_free(struct tcp *tcp, struct tcp_chunk *chunk)
{
    if (chunk->buffer)
        culvert_buffer_unref(chunk->buffer);
    if (chunk->frame)
        culvert_frame_unref(chunk->frame);
    chunk->next = tcp->free_chunks;
    tcp->free_chunks = chunk;
}

static void queue_push(struct tcp_queue *queue, struct tcp_chunk *chunk)
{
    chunk->next = NULL;
    if (queue->tail)
        queue->tail->next = chunk;
    else
        queue->head = chunk;
    queue->tail = chunk;
    queue->bytes += chunk->len;
}

void tcp_queue_clear(struct tcp *tcp, struct tcp_queue *queue)
{
    while (queue->head) {
        struct tcp_chunk *chunk = queue->head;

        queue->head = chunk->next;
        chunk_free(tcp, chunk);
    }
    *queue = (struct tcp_queue){0};
}

void tcp_queue_drop_until(struct tcp *tcp, struct tcp_queue *queue, uint32_t seq)
{
    struct tcp_chunk *chunk;

    while ((chunk = queue->head) && seq_lt(chunk->seq, seq)) {
        uint32_t n = seq - chunk->seq;

        if (n < chunk->len) {
            chunk->base += n;
            chunk->seq += n;
            chunk->len -= n;
            queue->bytes -= n;
            return;
        }
        queue->bytes -= chunk->len;
        queue->head = chunk->next;
        if (!queue->head)
            queue->tail = NULL;
        chunk_free(tcp, chunk);
    }
}

bool tcp_queue_append_buffer(struct tcp *tcp, struct tcp_queue *queue, uint32_t seq,
                             struct culvert_buffer *buffer, uint8_t *base, uint32_t len)
{
    struct tcp_chunk *chunk = tcp_chunk_new(tcp);

    if (!chunk)
        return false;
    *chunk = (struct tcp_chunk){
        .seq = seq, .len = len, .base = base, .buffer = culvert_buffer_ref(buffer)};
    queue_push(queue, chunk);
    return true;
}

/* Room behind the last chunk, if that is a small buffer of its own that `seq` continues. */
static uint32_t tail_room(const struct tcp_queue *queue, uint32_t seq)
{
    const struct tcp_chunk *tail = queue->tail;

    if (!tail || !tail->buffer || tail->buffer->capacity > TCP_SMALL_BUFFER ||
        tail->seq + tail->len != seq)
        return 0;
    return (uint32_t)(tail->buffer->data + tail->buffer->capacity - (tail->base + tail->len));
}

uint32_t tcp_queue_append_copy(struct tcp *tcp, struct tcp_queue *queue, uint32_t seq,
                               const uint8_t *from, uint32_t len)
{
    uint32_t done = 0;

    while (done < len) {
        uint32_t room = tail_room(queue, seq + done);

        if (room == 0) {
            struct culvert_buffer *buffer = pool_take_buffer(tcp->small);

            if (!buffer)
                break;
            bool ok = tcp_queue_append_buffer(tcp, queue, seq + done, buffer, buffer->data, 0);
            culvert_buffer_unref(buffer); /* the chunk has its own reference */
            if (!ok)
                break;
            room = (uint32_t)buffer->capacity;
        }
        uint32_t n = len - done < room ? len - done : room;
        struct tcp_chunk *tail = queue->tail;
        memcpy(tail->base + tail->len, from + done, n);
        tail->len += n;
        queue->bytes += n;
        done += n;
    }
    return done;
}

bool tcp_queue_append_frame(struct tcp *tcp, struct tcp_queue *queue, uint32_t seq,
                            struct culvert_frame *frame, size_t offset, uint32_t len)
{
    struct iovec iov[FRAME_PIECES_MAX];
    size_t n = culvert_frame_slice(frame, offset, len, iov, FRAME_PIECES_MAX);
    struct tcp_queue pieces = {0};

    if (n > FRAME_PIECES_MAX)
        return false; /* no netdev makes such frames; the guest will send it again */
    for (size_t i = 0; i < n; i++) {
        struct tcp_chunk *chunk = tcp_chunk_new(tcp);

        if (!chunk) {
            tcp_queue_clear(tcp, &pieces);
            return false;
        }
        *chunk = (struct tcp_chunk){.seq = seq + pieces.bytes,
                                    .len = (uint32_t)iov[i].iov_len,
                                    .base = iov[i].iov_base,
                                    .frame = culvert_frame_ref(frame)};
        queue_push(&pieces, chunk);
    }
    if (!pieces.head)
        return true;
    if (queue->tail)
        queue->tail->next = pieces.head;
    else
        queue->head = pieces.head;
    queue->tail = pieces.tail;
    queue->bytes += pieces.bytes;
    return true;
}

/* The memory that a chunk of a frame keeps from being reused. The guest's descriptors are few, and
 * what lies behind them is the guest's to change: it is never worth keeping. */
static size_t pinned_by(const struct tcp_chunk *chunk)
{
    size_t pinned = chunk->frame->capacity;

    if (chunk->frame->borrowed)
        return SIZE_MAX;

    for (size_t i = 0; i < chunk->frame->segment_count; i++)
        pinned += chunk->frame->segments[i].buffer->capacity;
    return pinned;
}

/* Bytes of consecutive chunks at `chunk` that belong to one frame. */
static size_t bytes_of_frame(const struct tcp_chunk *chunk)
{
    const struct culvert_frame *frame = chunk->frame;
    size_t bytes = 0;

    for (; chunk && chunk->frame == frame; chunk = chunk->next)
        bytes += chunk->len;
    return bytes;
}

void tcp_queue_compact(struct tcp *tcp, struct tcp_queue *queue)
{
    struct tcp_queue packed = {0};
    const struct culvert_frame *keep = NULL;

    while (queue->head) {
        struct tcp_chunk *chunk = queue->head;

        queue->head = chunk->next;
        if (chunk->frame && chunk->frame != keep) {
            chunk->next = queue->head; /* still linked, for bytes_of_frame() */
            size_t bytes = bytes_of_frame(chunk);

            /* Crumbs are packed even if they pin nothing: a write takes only so many pieces. */
            if (bytes * 2 >= pinned_by(chunk) && bytes * 2 >= TCP_SMALL_BUFFER)
                keep = chunk->frame;
        }
        if (!chunk->frame || chunk->frame == keep) {
            queue_push(&packed, chunk);
            continue;
        }
        uint32_t done = tcp_queue_append_copy(tcp, &packed, chunk->seq, chunk->base, chunk->len);
        if (done == chunk->len) {
            chunk_free(tcp, chunk);
            continue;
        }
        chunk->seq += done; /* no memory for a copy: keep the rest by reference after all */
        chunk->base += done;
        chunk->len -= done;
        queue_push(&packed, chunk);
    }
    *queue = packed;
}

static bool has_borrowed(const struct tcp_queue *queue)
{
    for (const struct tcp_chunk *chunk = queue->head; chunk; chunk = chunk->next)
        if (chunk->frame && chunk->frame->borrowed)
            return true;
    return false;
}

bool tcp_queue_make_private(struct tcp *tcp, struct tcp_queue *queue)
{
    if (!has_borrowed(queue))
        return true;
    tcp_queue_compact(tcp, queue);
    return !has_borrowed(queue);
}

/* ---- out of order
 * ------------------------------------------------------------------------------------ */

static uint32_t chunk_count(const struct tcp_queue *queue)
{
    uint32_t n = 0;

    for (const struct tcp_chunk *chunk = queue->head; chunk; chunk = chunk->next)
        n++;
    return n;
}

/* Stores [seq, seq + len) at `offset` of the frame where `link` points. */
static bool keep_piece(struct tcp *tcp, struct tcp_flow *flow, struct tcp_chunk **link,
                       uint32_t seq, uint32_t len, struct culvert_frame *frame, size_t offset)
{
    struct tcp_queue piece = {0};
    struct tcp_queue *queue = &flow->out_of_order;

    if (flow->out_of_order_count >= TCP_OUT_OF_ORDER_MAX || tcp->queued + len > tcp->queue_budget ||
        !tcp_queue_append_frame(tcp, &piece, seq, frame, offset, len)) {
        count(tcp->stack->counters, COUNTER_tcp_out_of_order_full);
        return false;
    }
    tcp_queue_compact(tcp, &piece);
    assert(piece.tail && "a gap is never empty");
    flow->out_of_order_count += chunk_count(&piece);
    piece.tail->next = *link;
    *link = piece.head;
    queue->bytes += piece.bytes;
    tcp->queued += piece.bytes;
    return true;
}

void tcp_out_of_order_keep(struct tcp *tcp, struct tcp_flow *flow,
                           const struct tcp_segment *segment)
{
    struct tcp_chunk **link = &flow->out_of_order.head;
    uint32_t seq = segment->seq, end = segment->seq + segment->len;
    size_t offset = segment->payload;

    count(tcp->stack->counters, COUNTER_tcp_out_of_order);
    flow->last_sack = seq;
    /* Fill the gaps that this segment covers; what is there already stays as it is. */
    while (seq_lt(seq, end)) {
        while (*link && seq_leq((*link)->seq + (*link)->len, seq))
            link = &(*link)->next;
        struct tcp_chunk *next = *link;
        if (next && seq_leq(next->seq, seq)) {
            uint32_t skip = next->seq + next->len - seq;

            seq += skip;
            offset += skip;
            continue;
        }
        uint32_t gap_end = next ? seq_min(next->seq, end) : end;
        if (!keep_piece(tcp, flow, link, seq, gap_end - seq, segment->packet->frame, offset))
            return;
        offset += gap_end - seq;
        seq = gap_end;
    }
}

void tcp_out_of_order_release(struct tcp *tcp, struct tcp_flow *flow)
{
    struct tcp_queue *queue = &flow->out_of_order;
    uint32_t before = queue->bytes;

    tcp_queue_drop_until(tcp, queue, flow->rcv_nxt); /* what arrived in order meanwhile */
    tcp->queued -= before - queue->bytes;
    while (queue->head && queue->head->seq == flow->rcv_nxt) {
        struct tcp_chunk *chunk = queue->head;

        queue->head = chunk->next;
        queue->bytes -= chunk->len;
        flow->rcv_nxt += chunk->len;
        queue_push(&flow->for_host, chunk);
    }
    if (queue->bytes != before)
        flow->out_of_order_count = chunk_count(queue);
}

void tcp_out_of_order_sacks(const struct tcp_flow *flow, struct tcp_options *ret)
{
    struct tcp_sack_block all[TCP_OUT_OF_ORDER_MAX], newest = {0, 0};
    uint32_t n = 0;

    for (const struct tcp_chunk *chunk = flow->out_of_order.head; chunk;) {
        struct tcp_sack_block range = {chunk->seq, chunk->seq + chunk->len};

        for (chunk = chunk->next; chunk && chunk->seq == range.end; chunk = chunk->next)
            range.end += chunk->len;
        if (seq_leq(range.start, flow->last_sack) && seq_lt(flow->last_sack, range.end))
            newest = range;
        else if (n < TCP_OUT_OF_ORDER_MAX)
            all[n++] = range;
    }
    ret->sack_count = 0;
    if (newest.start != newest.end)
        ret->sack[ret->sack_count++] = newest;
    for (uint32_t i = 0; i < n && ret->sack_count < TCP_SACK_MAX; i++)
        ret->sack[ret->sack_count++] = all[i];
}
