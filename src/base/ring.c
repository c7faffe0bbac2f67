/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation.
 *
 * A position is a lap and a cell's index in one word (`lap << shift | index`), so that any capacity
 * works without a division. head is the next position to push, tail the next to pop; both only
 * advance, by compare-and-exchange. Each cell has a `turn`:
 *
 *     2 * lap        empty, waiting for the push of this lap
 *     2 * lap + 1    full, waiting for the pop of this lap
 *
 * A push that finds turn 2 * lap at head claims the position by advancing head, stores the frame,
 * and hands the cell on by storing 2 * lap + 1; a pop likewise, ending with 2 * (lap + 1). Whoever
 * finds a smaller turn has caught up with the other side: the ring is full, or empty. Whoever finds
 * a greater one read head or tail too early and reads it again. Because the two states of each lap
 * have numbers of their own, a full cell of one lap never looks like an empty one of the next: the
 * usual scheme, sequence numbers in which "full" is position + 1 and "empty again" is position +
 * capacity, confuses them when the capacity is 1.
 *
 * A cell that was claimed and not yet handed on makes the ring look full to pushes or empty to
 * pops. That is harmless: its owner has yet to signal.
 *
 * Starvation. A producer that finds the ring full sets `starved` and tries once more; a consumer
 * hands the cell on and then looks at `starved`. These are four sequentially consistent accesses,
 * store then load on either side, so at least one side sees the other: the producer finds the cell
 * free, or the consumer finds the mark and signals. */

#include "base/ring.h"

#include <culvert/wake.h>
#include <errno.h>
#include <stdlib.h>

struct culvert_ring_cell {
    size_t turn;
    struct culvert_frame *frame;
};

static inline size_t lap_of(const struct culvert_ring *ring, size_t position)
{
    return position >> ring->shift;
}

static inline size_t index_of(const struct culvert_ring *ring, size_t position)
{
    return position & (((size_t)1 << ring->shift) - 1);
}

static inline struct culvert_ring_cell *cell_at(const struct culvert_ring *ring, size_t position)
{
    return &ring->cells[index_of(ring, position)];
}

static inline size_t position_after(const struct culvert_ring *ring, size_t position)
{
    if (index_of(ring, position) + 1 < ring->capacity)
        return position + 1;
    return (lap_of(ring, position) + 1) << ring->shift;
}

int ring_init(struct culvert_ring *ring, size_t capacity, struct culvert_wake *space_wake)
{
    if (capacity == 0)
        return -EINVAL;
    struct culvert_ring_cell *cells = calloc(capacity, sizeof *cells);
    if (!cells)
        return -ENOMEM;
    *ring = (struct culvert_ring){.cells = cells, .capacity = capacity, .space_wake = space_wake};
    while (((size_t)1 << ring->shift) < capacity)
        ring->shift++;
    return 0;
}

void ring_fini(struct culvert_ring *ring)
{
    if (!ring->cells)
        return;
    ring->space_wake = NULL;
    for (struct culvert_frame *frame; (frame = culvert_ring_pop(ring));)
        culvert_frame_unref(frame);
    free(ring->cells);
    *ring = (struct culvert_ring){0};
}

static bool try_push(struct culvert_ring *ring, struct culvert_frame *frame)
{
    size_t position = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
    for (;;) {
        struct culvert_ring_cell *cell = cell_at(ring, position);
        size_t empty = 2 * lap_of(ring, position);
        size_t turn = __atomic_load_n(&cell->turn, __ATOMIC_SEQ_CST);
        if (turn < empty)
            return false;
        if (turn > empty) {
            position = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
        } else if (__atomic_compare_exchange_n(&ring->head, &position,
                                               position_after(ring, position), true,
                                               __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            cell->frame = frame;
            __atomic_store_n(&cell->turn, empty + 1, __ATOMIC_RELEASE);
            return true;
        }
    }
}

bool culvert_ring_push(struct culvert_ring *ring, struct culvert_frame *frame)
{
    if (try_push(ring, frame))
        return true;
    __atomic_store_n(&ring->starved, 1, __ATOMIC_SEQ_CST);
    return try_push(ring, frame); /* succeeding leaves the mark: it may be another producer's too */
}

struct culvert_frame *culvert_ring_pop(struct culvert_ring *ring)
{
    size_t position = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);
    for (;;) {
        struct culvert_ring_cell *cell = cell_at(ring, position);
        size_t full = 2 * lap_of(ring, position) + 1;
        size_t turn = __atomic_load_n(&cell->turn, __ATOMIC_ACQUIRE);
        if (turn < full)
            return NULL;
        if (turn > full) {
            position = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);
        } else if (__atomic_compare_exchange_n(&ring->tail, &position,
                                               position_after(ring, position), true,
                                               __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            struct culvert_frame *frame = cell->frame;
            __atomic_store_n(&cell->turn, full + 1, __ATOMIC_SEQ_CST);
            if (__atomic_load_n(&ring->starved, __ATOMIC_SEQ_CST) &&
                __atomic_exchange_n(&ring->starved, 0, __ATOMIC_SEQ_CST) && ring->space_wake)
                culvert_wake_signal(ring->space_wake);
            return frame;
        }
    }
}

static size_t ordinal(const struct culvert_ring *ring, size_t position)
{
    return lap_of(ring, position) * ring->capacity + index_of(ring, position);
}

size_t culvert_ring_len(const struct culvert_ring *ring)
{
    /* Tail first: head cannot be behind it then, but may have run ahead by more than the ring. */
    size_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
    size_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
    size_t len = ordinal(ring, head) - ordinal(ring, tail);
    return len < ring->capacity ? len : ring->capacity;
}

size_t culvert_ring_capacity(const struct culvert_ring *ring)
{
    return ring->capacity;
}
