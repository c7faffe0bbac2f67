/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/reader_pools.h"

#include <errno.h>

/* Frames are held by the stack while their payload waits for the host. The bound is far above the
 * budget of all upload queues together; what is over `kept` goes back to the system. */
#define FRAMES_MAX  32768u
#define FRAMES_KEPT 256u

int reader_pools_new(const struct pool_config *buffers, struct pool **ret_frames,
                     struct pool **ret_buffers)
{
    const struct pool_config frames = {
        .linear_capacity = READER_LINEAR_LEN,
        .segment_capacity = 1,
        .max = FRAMES_MAX,
        .keep = FRAMES_KEPT,
    };

    *ret_frames = pool_new(&frames);
    *ret_buffers = pool_new(buffers);
    if (*ret_frames && *ret_buffers)
        return 0;
    *ret_frames = pool_free(*ret_frames);
    *ret_buffers = pool_free(*ret_buffers);
    return -ENOMEM;
}
