/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_SOFTWARE_OFFLOAD_H
#define NETDEV_SOFTWARE_OFFLOAD_H

/* What a guest's device does not accept is done here before the frame leaves: checksums are
 * completed, super-segments cut into frames of the guest's MSS. Payload is not copied: the frames
 * made are new headers in front of views into the same buffers (bytes that lie in the
 * super-segment's linear part excepted).
 *
 * Work on a frame stops and goes on between any two of the frames made from it, so that a full
 * device needs no queue: a struct software_sender keeps at most one frame in progress and one
 * segment that found no room. */

#include <culvert/frame.h>
#include <culvert/shared_state.h>
#include <stdbool.h>

#include "base/counters.h"
#include "base/pool.h"
#include "netdev/frame_layout.h"

/* Whether frames with these facts may go to the link as they are. */
bool software_offload_unneeded(const struct culvert_link *link,
                               const struct culvert_offload *offload);

/* A frame in progress. All zero: none. */
struct software_offload {
    struct culvert_frame *frame; /* one reference */
    struct frame_layout layout;  /* of GSO frames */
    size_t done;                 /* payload bytes that are in segments already */
    uint16_t index;              /* segments made */
    bool leave_checksums;        /* the link takes partial checksums */
};

/* Begins work on a frame, taking the reference. 0, or -EINVAL: the facts contradict the frame
 * (which is released). */
int software_offload_begin(struct software_offload *work, const struct culvert_link *link,
                           struct culvert_frame *take_frame);
/* 1: *ret_frame is the next frame to send, with one reference. 0: that was all, the work is idle
 * again. -ENOMEM: no memory for the next one; call again, or give up with software_offload_end().
 * `pool` is of frames; what they cannot hold is allocated. */
int software_offload_next(struct software_offload *work, struct pool *pool,
                          struct culvert_frame **ret_frame);
void software_offload_end(struct software_offload *work);

/* The way of a netdev's send(): frames the link accepts are put as they are, others by way of
 * software_offload. */
struct software_sender {
    /* 0: taken, with its reference. -EAGAIN: no room, the caller keeps it. */
    int (*put)(void *ctx, struct culvert_frame *frame);
    void *ctx;
    struct counters *counters;
    struct pool *pool; /* NULL until it is needed */
    struct software_offload work;
    struct culvert_frame *held; /* made, but not put for lack of room */
};

/* As netdev_ops.send. */
int software_sender_send(struct software_sender *sender, const struct culvert_link *link,
                         struct culvert_frame *frame);
/* There is room again: goes on with what is in progress. 0: nothing is any more. -EAGAIN: full
 * again. */
int software_sender_resume(struct software_sender *sender);
/* Releases everything. */
void software_sender_end(struct software_sender *sender);

#endif
