/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/vhost_user_memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/refs.h"

struct guest_mapping {
    uint32_t refs;
    void *address;
    size_t len;
};

static void mapping_unref(struct guest_mapping *mapping)
{
    if (!refs_drop(&mapping->refs))
        return;
    munmap(mapping->address, mapping->len);
    free(mapping);
}

struct guest_memory *guest_memory_new(const struct guest_memory *from)
{
    struct guest_memory *memory = calloc(1, sizeof *memory);

    if (!memory)
        return NULL;
    if (from)
        *memory = *from;
    memory->refs = 1;
    for (unsigned i = 0; i < memory->count; i++)
        refs_take(&memory->slots[i].mapping->refs);
    return memory;
}

struct guest_memory *guest_memory_ref(struct guest_memory *memory)
{
    refs_take(&memory->refs);
    return memory;
}

struct guest_memory *guest_memory_unref(struct guest_memory *memory)
{
    if (!memory || !refs_drop(&memory->refs))
        return NULL;
    for (unsigned i = 0; i < memory->count; i++)
        mapping_unref(memory->slots[i].mapping);
    free(memory);
    return NULL;
}

static bool ranges_overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a - b < b_len || b - a < a_len;
}

/* No sum of the region's numbers wraps around, and no address means two places. */
static bool region_is_possible(const struct guest_memory *memory, const struct guest_region *region)
{
    if (region->size == 0 || region->size > SIZE_MAX / 2 ||
        region->guest > UINT64_MAX - region->size || region->user > UINT64_MAX - region->size ||
        region->offset > INT64_MAX - region->size)
        return false;
    for (unsigned i = 0; i < memory->count; i++) {
        const struct guest_region *other = &memory->slots[i].region;

        if (ranges_overlap(region->guest, region->size, other->guest, other->size) ||
            ranges_overlap(region->user, region->size, other->user, other->size))
            return false;
    }
    return true;
}

/* Offsets of mappings are multiples of this: of the page size, which is larger in hugetlbfs. */
static uint64_t mapping_unit(const struct stat *info)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), block = (uint64_t)info->st_blksize;

    return block > page && (block & (block - 1)) == 0 ? block : page;
}

/* Maps [offset, offset + size) of the file. A file that is shorter would be a SIGBUS later. */
static struct guest_mapping *mapping_new(int fd, const struct guest_region *region,
                                         uint8_t **ret_base)
{
    struct guest_mapping *mapping;
    struct stat info;

    if (fstat(fd, &info) < 0)
        return NULL;
    if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size < region->offset + region->size) {
        errno = EINVAL;
        return NULL;
    }
    mapping = calloc(1, sizeof *mapping);
    if (!mapping)
        return NULL;

    uint64_t unit = mapping_unit(&info), before = region->offset % unit;
    mapping->refs = 1;
    /* Whole units: munmap() of a part of a huge page does nothing at all. */
    mapping->len = (size_t)((before + region->size + unit - 1) / unit * unit);
    mapping->address = mmap(NULL, mapping->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                            fd, (off_t)(region->offset - before));
    if (mapping->address == MAP_FAILED) {
        free(mapping);
        return NULL;
    }
    (void)madvise(mapping->address, mapping->len, MADV_DONTDUMP);
    *ret_base = (uint8_t *)mapping->address + before;
    return mapping;
}

static struct guest_slot *find_slot(struct guest_memory *memory, const struct guest_region *region)
{
    for (unsigned i = 0; i < memory->count; i++) {
        const struct guest_region *r = &memory->slots[i].region;

        if (r->guest == region->guest && r->size == region->size && r->user == region->user)
            return &memory->slots[i];
    }
    return NULL;
}

int guest_memory_add(struct guest_memory *memory, const struct guest_region *region, int fd)
{
    struct guest_slot *slot = find_slot(memory, region);

    if (slot) {
        slot->times++;
        return 0;
    }
    slot = &memory->slots[memory->count];
    if (memory->count == GUEST_MEMORY_SLOTS)
        return -ENOSPC;
    if (!region_is_possible(memory, region))
        return -EINVAL;
    slot->mapping = mapping_new(fd, region, &slot->base);
    if (!slot->mapping)
        return -errno;
    slot->region = *region;
    slot->times = 1;
    memory->count++;
    return 0;
}

int guest_memory_remove(struct guest_memory *memory, const struct guest_region *region)
{
    struct guest_slot *slot = find_slot(memory, region);

    if (!slot)
        return -ENOENT;
    if (--slot->times > 0)
        return 0;
    mapping_unref(slot->mapping);
    *slot = memory->slots[--memory->count];
    memory->recent = 0;
    return 0;
}

uint8_t *guest_memory_find_user(const struct guest_memory *memory, uint64_t user, uint64_t len)
{
    for (unsigned i = 0; i < memory->count; i++) {
        const struct guest_slot *slot = &memory->slots[i];
        uint64_t offset = user - slot->region.user;

        if (offset < slot->region.size && len <= slot->region.size - offset)
            return slot->base + offset;
    }
    return NULL;
}
