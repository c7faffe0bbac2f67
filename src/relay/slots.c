/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/slots.h"

#include <stdlib.h>
#include <string.h>

#include "base/loop.h"

#define CHUNK_ITEMS 64u

void slots_init(struct slots *slots, size_t item_size)
{
    *slots = (struct slots){.item_size = item_size};
}

void slots_fini(struct slots *slots)
{
    for (uint32_t i = 0; i < slots->chunk_count; i++)
        free(slots->chunks[i]);
    free(slots->chunks);
    *slots = (struct slots){.item_size = slots->item_size};
}

static struct slot *slot_at(const struct slots *slots, uint32_t index)
{
    return (struct slot *)(void *)(slots->chunks[index / CHUNK_ITEMS] +
                                   (index % CHUNK_ITEMS) * slots->item_size);
}

static int slots_grow(struct slots *slots)
{
    if (slots->chunk_count == slots->chunk_capacity) {
        uint32_t capacity = slots->chunk_capacity ? slots->chunk_capacity * 2 : 8;
        unsigned char **chunks = realloc(slots->chunks, capacity * sizeof *chunks);

        if (!chunks)
            return -1;
        slots->chunks = chunks;
        slots->chunk_capacity = capacity;
    }

    unsigned char *chunk = calloc(CHUNK_ITEMS, slots->item_size);
    uint32_t base = slots->chunk_count * CHUNK_ITEMS;

    if (!chunk)
        return -1;
    slots->chunks[slots->chunk_count++] = chunk;
    for (uint32_t i = CHUNK_ITEMS; i-- > 0;) { /* so that low indices are taken first */
        struct slot *slot = slot_at(slots, base + i);

        slot->index = base + i;
        slot->generation = 1;
        slot->next_free = slots->first_free;
        slots->first_free = base + i + 1;
    }
    return 0;
}

void *slots_take(struct slots *slots)
{
    if (!slots->first_free && slots_grow(slots) < 0)
        return NULL;

    struct slot *slot = slot_at(slots, slots->first_free - 1);

    slots->first_free = slot->next_free;
    slot->taken = 1;
    slots->taken++;
    return slot;
}

void slots_give_back(struct slots *slots, void *item)
{
    struct slot *slot = item;
    uint32_t index = slot->index, generation = slot->generation;

    memset(item, 0, slots->item_size);
    slot->index = index;
    slot->generation = generation == LOOP_GENERATION_MAX ? 1 : generation + 1;
    slot->next_free = slots->first_free;
    slots->first_free = index + 1;
    slots->taken--;
}

uint32_t slots_limit(const struct slots *slots)
{
    return slots->chunk_count * CHUNK_ITEMS;
}

void *slots_at(const struct slots *slots, uint32_t index)
{
    if (index >= slots_limit(slots))
        return NULL;

    struct slot *slot = slot_at(slots, index);

    return slot->taken ? slot : NULL;
}

void *slots_find(const struct slots *slots, uint32_t index, uint32_t generation)
{
    struct slot *slot = slots_at(slots, index);

    return slot && slot->generation == generation ? slot : NULL;
}
