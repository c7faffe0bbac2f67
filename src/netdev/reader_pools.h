/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_READER_POOLS_H
#define NETDEV_READER_POOLS_H

/* Memory for frames from the guest, as all readers of descriptors have it: a small frame, and one
 * buffer that becomes its segment if there is more. */

#include "base/pool.h"

/* A full frame at the usual MTU lies in the linear part alone. */
#define READER_LINEAR_LEN 2048u

/* 0 or -ENOMEM: then both are NULL. */
int reader_pools_new(const struct pool_config *buffers, struct pool **ret_frames,
                     struct pool **ret_buffers);

#endif
