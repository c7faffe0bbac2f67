/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CULVERT_RING_H
#define CULVERT_RING_H

/** @file
 * A bounded lock-free queue of frames: many producers, many consumers, any capacity of 1 or more,
 * first in first out per producer.
 */

#include <culvert/frame.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct culvert_wake;
struct culvert_ring_cell;

/** Treat the members as private. */
struct culvert_ring {
    struct culvert_ring_cell *cells;
    size_t capacity;
    struct culvert_wake *space_wake; /**< signalled by the pop that makes room in a starved ring */
    unsigned shift;                  /**< bits of an index within a position */
    uint8_t pad0[36];
    size_t head; /**< next position to push */
    uint8_t pad1[56];
    size_t tail; /**< next position to pop */
    uint8_t pad2[56];
    uint32_t starved; /**< a producer found the ring full and waits for room */
    uint8_t pad3[60];
};

/** Puts `frame` at the end and takes the caller's reference. False: the ring is full and the caller
 * keeps the frame; the ring is then marked starved, and the pop that makes room signals the
 * producer's wake (of a SharedState: rx_ring → tx_wake, tx_ring → rx_wake). Never blocks. Any
 * thread. */
bool culvert_ring_push(struct culvert_ring *ring, struct culvert_frame *frame);
/** Takes the first frame, with its reference, or NULL when the ring is empty. Never blocks. Any
 * thread. */
struct culvert_frame *culvert_ring_pop(struct culvert_ring *ring);
/** Frames inside; a snapshot that may be stale when it is read. Any thread. */
size_t culvert_ring_len(const struct culvert_ring *ring);
size_t culvert_ring_capacity(const struct culvert_ring *ring);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
