/* SPDX-License-Identifier: Apache-2.0 */
#include <culvert/frame.h>
#include <errno.h>
#include <stdlib.h>

#include "base/refs.h"

#define FRAME_SEGMENTS 4

static void free_frame(struct culvert_frame *frame, void *arg)
{
    (void)arg;
    free(frame);
}

static void free_buffer(struct culvert_buffer *buffer, void *arg)
{
    (void)arg;
    free(buffer);
}

struct culvert_frame *culvert_frame_new(size_t capacity)
{
    struct whole {
        struct culvert_frame frame;
        struct culvert_segment segments[FRAME_SEGMENTS];
        uint8_t bytes[];
    } * whole;
    if (capacity > SIZE_MAX - sizeof *whole) {
        errno = ENOMEM;
        return NULL;
    }
    whole = malloc(sizeof *whole + capacity);
    if (!whole)
        return NULL;
    whole->frame = (struct culvert_frame){
        .data = whole->bytes,
        .capacity = capacity,
        .segment_capacity = FRAME_SEGMENTS,
        .refs = 1,
        .segments = whole->segments,
        .release = free_frame,
    };
    return &whole->frame;
}

struct culvert_frame *culvert_frame_ref(struct culvert_frame *frame)
{
    refs_take(&frame->refs);
    return frame;
}

struct culvert_frame *culvert_frame_unref(struct culvert_frame *frame)
{
    if (!frame || !refs_drop(&frame->refs))
        return NULL;
    for (size_t i = 0; i < frame->segment_count; i++)
        culvert_buffer_unref(frame->segments[i].buffer);
    frame->segment_count = 0;
    frame->release(frame, frame->release_arg);
    return NULL;
}

struct culvert_frame *culvert_frame_free(struct culvert_frame *frame)
{
    return culvert_frame_unref(frame);
}

size_t culvert_frame_len(const struct culvert_frame *frame)
{
    size_t len = frame->len;
    for (size_t i = 0; i < frame->segment_count; i++)
        len += frame->segments[i].len;
    return len;
}

/* The part of a view that falls into one piece of the frame. */
struct view {
    size_t offset, len; /* what is still to be found, from the next piece's first byte */
    struct iovec *iov;
    size_t max, needed;
};

static void view_piece(struct view *view, uint8_t *base, size_t piece)
{
    if (view->offset >= piece) {
        view->offset -= piece;
        return;
    }
    size_t n = piece - view->offset;
    if (n > view->len)
        n = view->len;
    if (n == 0)
        return;
    if (view->needed < view->max)
        view->iov[view->needed] = (struct iovec){base + view->offset, n};
    view->needed++;
    view->len -= n;
    view->offset = 0;
}

size_t culvert_frame_slice(const struct culvert_frame *frame, size_t offset, size_t len,
                           struct iovec *iov, size_t max)
{
    struct view view = {.offset = offset, .len = len, .iov = iov, .max = max};
    view_piece(&view, frame->data, frame->len);
    for (size_t i = 0; i < frame->segment_count && view.len > 0; i++)
        view_piece(&view, frame->segments[i].base, frame->segments[i].len);
    return view.needed;
}

size_t culvert_frame_iov(const struct culvert_frame *frame, struct iovec *iov, size_t max)
{
    return culvert_frame_slice(frame, 0, SIZE_MAX, iov, max);
}

int culvert_frame_append(struct culvert_frame *frame, struct culvert_buffer *buffer, uint8_t *base,
                         size_t len)
{
    if (frame->segment_count == frame->segment_capacity)
        return -ENOSPC;
    frame->segments[frame->segment_count++] =
        (struct culvert_segment){culvert_buffer_ref(buffer), base, len};
    return 0;
}

struct culvert_buffer *culvert_buffer_new(size_t capacity)
{
    struct culvert_buffer *buffer;
    if (capacity > SIZE_MAX - sizeof *buffer) {
        errno = ENOMEM;
        return NULL;
    }
    buffer = malloc(sizeof *buffer + capacity);
    if (!buffer)
        return NULL;
    *buffer = (struct culvert_buffer){
        .data = (uint8_t *)(buffer + 1),
        .capacity = capacity,
        .refs = 1,
        .release = free_buffer,
    };
    return buffer;
}

struct culvert_buffer *culvert_buffer_ref(struct culvert_buffer *buffer)
{
    refs_take(&buffer->refs);
    return buffer;
}

struct culvert_buffer *culvert_buffer_unref(struct culvert_buffer *buffer)
{
    if (buffer && refs_drop(&buffer->refs))
        buffer->release(buffer, buffer->release_arg);
    return NULL;
}
