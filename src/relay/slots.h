/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SLOTS_H
#define RELAY_SLOTS_H

/* A growing table of equal items that are named by (index, generation) and never move. Taking,
 * giving back and looking up are O(1). A generation (24 bits, never 0) changes whenever an item is
 * given back, so that a name outlived by its item finds nothing. */

#include <stddef.h>
#include <stdint.h>

struct slot { /* the first member of every item */
    uint32_t index;
    uint32_t generation;
    uint32_t next_free; /* index + 1; meaningful while free */
    uint32_t taken;
};

struct slots {
    size_t item_size;
    unsigned char **chunks;
    uint32_t chunk_count, chunk_capacity;
    uint32_t first_free; /* index + 1; 0: none */
    uint32_t taken;
};

void slots_init(struct slots *slots, size_t item_size);
void slots_fini(struct slots *slots);
/* An item that is all zero but for its name; NULL: no memory. */
void *slots_take(struct slots *slots);
void slots_give_back(struct slots *slots, void *item);
/* NULL: no such item, or not of this generation any more. */
void *slots_find(const struct slots *slots, uint32_t index, uint32_t generation);
/* The item at `index` whatever its generation; NULL: free. For walks over 0 … slots_limit() - 1. */
void *slots_at(const struct slots *slots, uint32_t index);
uint32_t slots_limit(const struct slots *slots);

#endif
