/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_INTAKE_H
#define NETDEV_INTAKE_H

/* What one receive() of a netdev has taken so far. */

#include "netdev/netdev.h"
#include "netdev/offload_check.h"

struct intake {
    struct culvert_frame **frames; /* the caller's array */
    int taken;
    uint64_t bytes;
};

static inline void intake_take(struct intake *intake, struct culvert_frame *take_frame)
{
    intake->bytes += culvert_frame_len(take_frame);
    intake->frames[intake->taken++] = take_frame;
}

/* Drops the frame if its facts cannot be true; that is counted. */
static inline void intake_check(struct intake *intake, struct netdev *netdev,
                                struct culvert_frame *take_frame)
{
    if (offload_check(take_frame, netdev->counters))
        intake_take(intake, take_frame);
    else
        culvert_frame_unref(take_frame);
}

/* Counts what was taken; the number of frames. */
static inline int intake_end(const struct intake *intake, struct netdev *netdev)
{
    if (intake->taken > 0) {
        count_n(netdev->counters, COUNTER_netdev_frames_in, (uint64_t)intake->taken);
        count_n(netdev->counters, COUNTER_netdev_bytes_in, intake->bytes);
    }
    return intake->taken;
}

#endif
