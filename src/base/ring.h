/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <culvert/ring.h>
#include <culvert/wake.h>

/* `space_wake` (borrowed, may be NULL) is signalled by the pop that makes room in a starved ring.
 * 0, -EINVAL (capacity 0) or -ENOMEM. */
int ring_init(struct culvert_ring *ring, size_t capacity, struct culvert_wake *space_wake);
/* Releases what is still queued. Of a ring that is all zero: no effect. */
void ring_fini(struct culvert_ring *ring);

#endif
