/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

/* Pools of frames and buffers. One thread (the pool's owner) takes; any thread gives back (by the
 * last _unref). Taking and giving back in the owner's thread are a few instructions and no atomic
 * read-modify-write; from elsewhere it is one atomic push that the owner collects. Steady-state
 * forwarding allocates nothing.
 *
 * The most that may exist is fixed at creation. Free objects above `keep` are given back to the
 * system. A pool lives until its last object has come home, also after pool_free().
 *
 * Test modes (environment CULVERT_POOL=poison,fail=N or pool_set_test_mode()): freed memory is
 * filled with a pattern and checked; the Nth and every later take fails. */

#include <culvert/frame.h>
#include <stdbool.h>
#include <stddef.h>

struct pool;

struct pool_config {
    size_t linear_capacity;  /* of each frame; 0 for a buffer pool */
    size_t segment_capacity; /* of each frame */
    size_t buffer_capacity;  /* of each buffer; 0 for a frame pool */
    size_t max;              /* objects that may exist */
    size_t keep;             /* free objects kept for reuse */
};

/* NULL with errno ENOMEM. The owner is the thread of the first take. (It may be another thread
 * later if what they do is ordered, by a join say.) */
struct pool *pool_new(const struct pool_config *config);
/* Accepts NULL; returns NULL. No take may follow; objects still in use may come back at any time.
 */
struct pool *pool_free(struct pool *pool);
/* `fail_at` N: the Nth take from now and every later one fail; 0: none. Before the first take. */
void pool_set_test_mode(struct pool *pool, bool poison, size_t fail_at);
/* NULL: the bound is reached or memory ran out. Owner's thread. refs 1, len 0, no segments, offload
 * all zero. */
struct culvert_frame *pool_take_frame(struct pool *pool);
struct culvert_buffer *pool_take_buffer(struct pool *pool);
size_t pool_in_use(const struct pool *pool);

#endif
