/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_VHOST_USER_MEMORY_H
#define NETDEV_VHOST_USER_MEMORY_H

/* The guest's memory as the front end shares it: regions, each with its address in the guest, its
 * address in the front end, and a mapping here.
 *
 * A table never changes once it is in use: a new one replaces it, sharing the mappings of regions
 * that stay. Tables have references, and mappings live as long as a table with them does, so memory
 * that a frame still points into stays mapped whatever the front end says meanwhile. Built and
 * searched by one thread; the last reference may be dropped by any. */

#include <stddef.h>
#include <stdint.h>

#define GUEST_MEMORY_SLOTS 64u

/* As in VHOST_USER_SET_MEM_TABLE and _ADD_MEM_REG. */
struct guest_region {
    uint64_t guest; /* address in the guest */
    uint64_t size;
    uint64_t user;   /* address in the front end */
    uint64_t offset; /* of its first byte in the descriptor */
};

struct guest_mapping;

struct guest_slot {
    struct guest_region region;
    uint8_t *base;
    struct guest_mapping *mapping;
    unsigned times; /* it was added, and has to be removed */
};

struct guest_memory {
    uint32_t refs;
    unsigned count;
    unsigned recent; /* the slot found last */
    struct guest_slot slots[GUEST_MEMORY_SLOTS];
};

/* A table with the regions of `from` (NULL: none). NULL, errno. */
struct guest_memory *guest_memory_new(const struct guest_memory *from);
struct guest_memory *guest_memory_ref(struct guest_memory *memory);
/* Accepts NULL; returns NULL. Any thread. */
struct guest_memory *guest_memory_unref(struct guest_memory *memory);
/* Maps a region of `fd` (borrowed) into a table that is not in use yet. A region that is there
 * already is only counted: QEMU adds each once for every pair of queues. 0; -EINVAL: impossible, it
 * overlaps another, or the file is shorter; -ENOSPC: too many; or mmap's negative errno. */
int guest_memory_add(struct guest_memory *memory, const struct guest_region *region, int fd);
/* Takes the region out of a table that is not in use yet. 0 or -ENOENT. */
int guest_memory_remove(struct guest_memory *memory, const struct guest_region *region);

/* Where the guest's address lies; *ret_len: how many of the `len` bytes follow there without a gap.
 * NULL: nowhere. */
static inline uint8_t *guest_memory_find(struct guest_memory *memory, uint64_t guest, uint64_t len,
                                         uint64_t *ret_len)
{
    for (unsigned i = 0; i < memory->count; i++) {
        unsigned at = i == 0 ? memory->recent : i <= memory->recent ? i - 1 : i;
        const struct guest_slot *slot = &memory->slots[at];
        uint64_t offset = guest - slot->region.guest; /* below the region: far above its size */

        if (offset < slot->region.size) {
            uint64_t left = slot->region.size - offset;

            memory->recent = at;
            *ret_len = len < left ? len : left;
            return slot->base + offset;
        }
    }
    return NULL;
}

/* Where `len` bytes at an address of the front end's lie. NULL: not all in one region. */
uint8_t *guest_memory_find_user(const struct guest_memory *memory, uint64_t user, uint64_t len);

#endif
