/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation.
 *
 * Every object is one piece of memory: `struct object` (which begins with the frame or buffer),
 * segments, bytes. Large objects are mapped one by one and unmapped when they are not kept, so a
 * burst leaves nothing behind in the process; small ones come from malloc. Where an object begins
 * within its page moves on by an odd number of cache lines from object to object: 64 KiB buffers
 * that all began at the same offset would compete for the same few sets of the first-level cache.
 *
 * An object is in use, on the owner's list `free` (last in, first out: still in the cache), or on
 * the stack `returned`, where other threads push and from which the owner takes everything at once
 * when `free` is empty; taking all leaves no room for the ABA problem.
 *
 * End of life: pool_free() swaps `returned` for CLOSED. Who finds that mark when pushing frees its
 * object itself and counts `outstanding` down; whoever reaches zero frees the pool. Up to the swap,
 * an object is home with its push, and the pusher touches the pool no more. */

#include "base/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#define HIDE(memory, len)   ASAN_POISON_MEMORY_REGION(memory, len)
#define REVEAL(memory, len) ASAN_UNPOISON_MEMORY_REGION(memory, len)
#else
#define HIDE(memory, len)   ((void)(memory), (void)(len))
#define REVEAL(memory, len) ((void)(memory), (void)(len))
#endif

#define CACHE_LINE 64
#define PAGE       4096
#define MAP_FROM   32768 /* objects of this size are mapped, smaller ones malloc'd */
#define POISON     0xdb
#define CLOSED     ((struct object *)1)

struct object {
    union {
        struct culvert_frame frame;
        struct culvert_buffer buffer;
    };
    struct object *next;
    uint8_t *bytes; /* frame.data and buffer.data begin here */
    void *memory;   /* what the object was cut from */
};

struct pool {
    struct pool_config config;
    size_t object_size;  /* header, segments, bytes */
    size_t memory_size;  /* with room for moving the beginning */
    struct object *free; /* the owner's */
    size_t free_count;
    size_t exists;
    size_t taken, given_back; /* by the owner; written by it, read by any */
    size_t colour;
    uintptr_t owner; /* the thread of the last take; 0: nobody */
    bool poison;
    size_t fail_at, takes; /* fail_at 0: never */

    struct object *returned __attribute__((aligned(CACHE_LINE)));
    size_t given_back_elsewhere;
    size_t outstanding; /* once closed */
};

static uintptr_t this_thread(void)
{
    return (uintptr_t)pthread_self();
}

static size_t linear_size(const struct pool *pool)
{
    return pool->config.buffer_capacity ? pool->config.buffer_capacity
                                        : pool->config.linear_capacity;
}

static bool is_mapped(const struct pool *pool)
{
    return pool->object_size >= MAP_FROM;
}

/* CULVERT_POOL=poison,fail=N */
static void read_test_mode(struct pool *pool)
{
    const char *mode = secure_getenv("CULVERT_POOL");
    if (!mode)
        return;
    const char *fail = strstr(mode, "fail=");
    pool_set_test_mode(pool, strstr(mode, "poison") != NULL,
                       fail ? strtoul(fail + strlen("fail="), NULL, 10) : 0);
}

struct pool *pool_new(const struct pool_config *config)
{
    assert(!config->buffer_capacity != !(config->linear_capacity + config->segment_capacity) &&
           "a pool is of frames or of buffers");
    assert(config->segment_capacity <= UINT16_MAX && config->max > 0);
    struct pool *pool = aligned_alloc(CACHE_LINE, sizeof *pool);
    if (!pool) {
        errno = ENOMEM;
        return NULL;
    }
    memset(pool, 0, sizeof *pool);
    pool->config = *config;
    size_t size = sizeof(struct object) +
                  config->segment_capacity * sizeof(struct culvert_segment) + linear_size(pool);
    pool->object_size = (size + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
    pool->memory_size = pool->object_size;
    if (is_mapped(pool))
        pool->memory_size += PAGE;
    else if (pool->object_size / CACHE_LINE % 2 == 0)
        pool->memory_size += CACHE_LINE; /* neighbours an odd number of lines apart */
    read_test_mode(pool);
    return pool;
}

void pool_set_test_mode(struct pool *pool, bool poison, size_t fail_at)
{
    pool->poison = poison;
    pool->fail_at = fail_at;
    pool->takes = 0;
}

/* ---- memory */

static void *get_memory(struct pool *pool, size_t *ret_offset)
{
    if (!is_mapped(pool)) {
        *ret_offset = 0;
        return aligned_alloc(CACHE_LINE, pool->memory_size);
    }
    void *memory =
        mmap(NULL, pool->memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *ret_offset = pool->colour;
    pool->colour = (pool->colour + 11 * CACHE_LINE) % PAGE;
    return memory == MAP_FAILED ? NULL : memory;
}

static void destroy(const struct pool *pool, struct object *object)
{
    REVEAL(object->bytes, linear_size(pool));
    if (is_mapped(pool))
        munmap(object->memory, pool->memory_size);
    else
        free(object->memory);
}

static void check_poison(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert(bytes[i] == POISON && "written to after it was given back");
}

/* ---- giving back */

/* The object rests: its bytes are nobody's. In whichever thread gives back. */
static void lay_down(const struct pool *pool, struct object *object)
{
    if (pool->poison)
        memset(object->bytes, POISON, linear_size(pool));
    HIDE(object->bytes, linear_size(pool));
}

static void keep_or_destroy(struct pool *pool, struct object *object)
{
    if (pool->free_count >= pool->config.keep) {
        destroy(pool, object);
        pool->exists--;
        return;
    }
    object->next = pool->free;
    pool->free = object;
    pool->free_count++;
}

static void free_pool_after(struct pool *pool, size_t came_home)
{
    if (__atomic_sub_fetch(&pool->outstanding, came_home, __ATOMIC_ACQ_REL) == 0)
        free(pool);
}

static void give_back_elsewhere(struct pool *pool, struct object *object)
{
    __atomic_fetch_add(&pool->given_back_elsewhere, 1, __ATOMIC_RELAXED);
    struct object *top = __atomic_load_n(&pool->returned, __ATOMIC_ACQUIRE);
    do {
        if (top == CLOSED) {
            destroy(pool, object);
            free_pool_after(pool, 1);
            return;
        }
        object->next = top;
    } while (!__atomic_compare_exchange_n(&pool->returned, &top, object, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
}

static void give_back(struct pool *pool, struct object *object)
{
    lay_down(pool, object);
    if (__atomic_load_n(&pool->owner, __ATOMIC_RELAXED) != this_thread()) {
        give_back_elsewhere(pool, object);
        return;
    }
    __atomic_store_n(&pool->given_back, pool->given_back + 1, __ATOMIC_RELAXED);
    keep_or_destroy(pool, object);
}

static void release_frame(struct culvert_frame *frame, void *arg)
{
    give_back(arg, (struct object *)frame);
}

static void release_buffer(struct culvert_buffer *buffer, void *arg)
{
    give_back(arg, (struct object *)buffer);
}

/* ---- taking */

static struct object *create(struct pool *pool)
{
    size_t offset;
    uint8_t *memory = get_memory(pool, &offset);
    if (!memory)
        return NULL;
    struct object *object = (struct object *)(memory + offset);
    object->memory = memory;
    object->bytes =
        (uint8_t *)(object + 1) + pool->config.segment_capacity * sizeof(struct culvert_segment);
    pool->exists++;
    return object;
}

static void collect_returned(struct pool *pool)
{
    struct object *object = __atomic_exchange_n(&pool->returned, NULL, __ATOMIC_ACQUIRE);
    while (object) {
        struct object *next = object->next;
        keep_or_destroy(pool, object);
        object = next;
    }
}

static struct object *take(struct pool *pool)
{
    if (pool->owner != this_thread())
        __atomic_store_n(&pool->owner, this_thread(), __ATOMIC_RELAXED);
    if (pool->fail_at && ++pool->takes >= pool->fail_at)
        return NULL;
    if (!pool->free && __atomic_load_n(&pool->returned, __ATOMIC_RELAXED))
        collect_returned(pool);
    struct object *object = pool->free;
    if (object) {
        pool->free = object->next;
        pool->free_count--;
        REVEAL(object->bytes, linear_size(pool));
        if (pool->poison)
            check_poison(object->bytes, linear_size(pool));
    } else if (pool->exists >= pool->config.max || !(object = create(pool))) {
        return NULL;
    }
    __atomic_store_n(&pool->taken, pool->taken + 1, __ATOMIC_RELAXED);
    return object;
}

struct culvert_frame *pool_take_frame(struct pool *pool)
{
    assert(!pool->config.buffer_capacity && "a pool of frames");
    struct object *object = take(pool);
    if (!object)
        return NULL;
    object->frame = (struct culvert_frame){
        .data = object->bytes,
        .capacity = pool->config.linear_capacity,
        .segments = (struct culvert_segment *)(object + 1),
        .segment_capacity = (uint16_t)pool->config.segment_capacity,
        .refs = 1,
        .release = release_frame,
        .release_arg = pool,
    };
    return &object->frame;
}

struct culvert_buffer *pool_take_buffer(struct pool *pool)
{
    assert(pool->config.buffer_capacity && "a pool of buffers");
    struct object *object = take(pool);
    if (!object)
        return NULL;
    object->buffer = (struct culvert_buffer){
        .data = object->bytes,
        .capacity = pool->config.buffer_capacity,
        .refs = 1,
        .release = release_buffer,
        .release_arg = pool,
    };
    return &object->buffer;
}

size_t pool_in_use(const struct pool *pool)
{
    size_t home = __atomic_load_n(&pool->given_back, __ATOMIC_RELAXED) +
                  __atomic_load_n(&pool->given_back_elsewhere, __ATOMIC_RELAXED);
    size_t taken = __atomic_load_n(&pool->taken, __ATOMIC_RELAXED);
    return taken > home ? taken - home : 0;
}

struct pool *pool_free(struct pool *pool)
{
    if (!pool)
        return NULL;
    size_t came_home = 1; /* this call's own share keeps the pool until the end */
    __atomic_store_n(&pool->outstanding, pool->exists + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->owner, 0, __ATOMIC_RELAXED);
    struct object *lists[] = {pool->free,
                              __atomic_exchange_n(&pool->returned, CLOSED, __ATOMIC_ACQ_REL)};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        while (lists[i]) {
            struct object *object = lists[i];
            lists[i] = object->next;
            destroy(pool, object);
            came_home++;
        }
    }
    free_pool_after(pool, came_home);
    return NULL;
}
