/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/vhost_user_ring.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Descriptors of an indirect table. The specification allows no more than the ring's size; drivers
 * for small rings are known to exceed that. */
#define INDIRECT_MAX 1024u

/* ---- the guest's memory ---- */

/* Fields are little-endian (VERSION_1, or a legacy guest of a little-endian machine). */
static uint16_t load16(const __virtio16 *from)
{
    return le16toh(__atomic_load_n(from, __ATOMIC_RELAXED));
}

static void store16(__virtio16 *to, uint16_t value)
{
    __atomic_store_n(to, htole16(value), __ATOMIC_RELAXED);
}

/* A private copy, and one that the compiler cannot read from its source again. */
static struct vring_desc descriptor_at(const struct vring_desc *table, uint16_t index)
{
    struct vring_desc d;

    memcpy(&d, (const uint8_t *)table + index * sizeof d, sizeof d);
    __asm__ volatile("" : "+m"(d));
    return (struct vring_desc){
        .addr = le64toh(d.addr),
        .len = le32toh(d.len),
        .flags = le16toh(d.flags),
        .next = le16toh(d.next),
    };
}

static __virtio16 *used_event(const struct vhost_ring *ring)
{
    return &ring->available->ring[ring->size];
}

static __virtio16 *available_event(const struct vhost_ring *ring)
{
    return (__virtio16 *)&ring->used->ring[ring->size];
}

/* ---- life ---- */

static bool is_aligned(const void *pointer, size_t to)
{
    return (uintptr_t)pointer % to == 0;
}

bool vhost_ring_place(struct vhost_ring *ring, struct guest_memory *memory, uint64_t descriptors,
                      uint64_t available, uint64_t used)
{
    size_t size = ring->size, event = ring->event_index ? sizeof(__virtio16) : 0;
    void *d = guest_memory_find_user(memory, descriptors, size * sizeof(struct vring_desc));
    void *a = guest_memory_find_user(
        memory, available, sizeof(struct vring_avail) + size * sizeof(__virtio16) + event);
    void *u = guest_memory_find_user(
        memory, used, sizeof(struct vring_used) + size * sizeof(struct vring_used_elem) + event);

    if (!d || !a || !u || !is_aligned(d, VRING_DESC_ALIGN_SIZE) ||
        !is_aligned(a, VRING_AVAIL_ALIGN_SIZE) || !is_aligned(u, VRING_USED_ALIGN_SIZE))
        return false;
    ring->memory = memory;
    ring->descriptors = d;
    ring->available = a;
    ring->used = u;
    return true;
}

/* A back end that gives chains back out of order may have died between the used index and its own
 * record of it: what it gave back last is in flight no more. */
static void settle_last_batch(struct vhost_inflight_queue *inflight, uint16_t size, uint16_t used)
{
    uint16_t head = __atomic_load_n(&inflight->last_batch_head, __ATOMIC_RELAXED);

    for (uint16_t n = (uint16_t)(used - inflight->used_index); n != 0 && n <= size; n--) {
        if (head >= size)
            break;
        inflight->entries[head].inflight = 0;
        head = __atomic_load_n(&inflight->entries[head].next, __ATOMIC_RELAXED);
    }
    inflight->used_index = used;
}

struct ordered_head {
    uint64_t counter;
    uint16_t head;
};

static int compare_counters(const void *left, const void *right)
{
    const struct ordered_head *a = left, *b = right;

    return a->counter < b->counter ? -1 : a->counter > b->counter;
}

/* Finds the chains that an earlier back end took and did not give back, oldest first. */
static int find_unfinished(struct vhost_ring *ring)
{
    struct ordered_head *heads = calloc(ring->size, sizeof *heads);
    uint16_t count = 0;

    ring->resubmit = calloc(ring->size, sizeof *ring->resubmit);
    if (!heads || !ring->resubmit) {
        free(heads);
        return -ENOMEM;
    }
    for (uint16_t i = 0; i < ring->size; i++)
        if (ring->inflight->entries[i].inflight == 1)
            heads[count++] = (struct ordered_head){ring->inflight->entries[i].counter, i};
    qsort(heads, count, sizeof *heads, compare_counters);
    for (uint16_t i = 0; i < count; i++)
        ring->resubmit[i] = heads[i].head;
    free(heads);
    ring->resubmit_count = count;
    return 0;
}

/* Chains are given back in order here, so none of ours is ever marked: those after the used index
 * are simply taken again. The marks are those of another program. */
static int resume_inflight(struct vhost_ring *ring, uint16_t used)
{
    struct vhost_inflight_queue *inflight = ring->inflight;

    if (inflight->version != VHOST_INFLIGHT_VERSION || inflight->size != ring->size) {
        memset(inflight->entries, 0, ring->size * sizeof inflight->entries[0]);
        inflight->version = VHOST_INFLIGHT_VERSION;
        inflight->size = ring->size;
        inflight->used_index = used;
        return 0;
    }
    if (inflight->used_index != used)
        settle_last_batch(inflight, ring->size, used);
    return find_unfinished(ring);
}

int vhost_ring_begin(struct vhost_ring *ring, uint16_t base)
{
    uint16_t used = load16(&ring->used->idx);

    vhost_ring_end(ring);
    if (ring->inflight) {
        int r = resume_inflight(ring, used);
        if (r < 0)
            return r;
        base = used;
    }
    ring->resubmit_at = base;
    ring->taken = base;
    ring->seen = (uint16_t)(base + ring->resubmit_count);
    ring->written = ring->published = used;
    return 0;
}

void vhost_ring_end(struct vhost_ring *ring)
{
    free(ring->resubmit);
    ring->resubmit = NULL;
    ring->resubmit_count = 0;
}

/* ---- what the guest makes available ---- */

int vhost_ring_look(struct vhost_ring *ring)
{
    uint16_t index = load16(&ring->available->idx), count;

    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    count = (uint16_t)(index - ring->taken);
    if (count > ring->size)
        return -ERANGE;
    if ((uint16_t)(index - ring->seen) <= ring->size)
        ring->seen = index;
    return (uint16_t)(ring->seen - ring->taken);
}

static uint16_t head_at(const struct vhost_ring *ring, uint16_t position)
{
    uint16_t resubmitted = (uint16_t)(position - ring->resubmit_at);

    if (__builtin_expect(resubmitted < ring->resubmit_count, false))
        return ring->resubmit[resubmitted];
    return load16(&ring->available->ring[position & (ring->size - 1)]);
}

/* A walk along a chain. */
struct walk {
    struct vhost_ring *ring;
    const struct vring_desc *table;
    uint32_t table_len;
    uint32_t left; /* descriptors that this table may still give */
    enum vhost_direction direction;
    bool in_indirect;
    bool writing; /* a writable descriptor was seen: no readable one may follow */
    struct iovec *iov;
    unsigned max;
    struct vhost_chain chain;
};

static int enter_indirect(struct walk *walk, const struct vring_desc *d)
{
    uint64_t len;
    uint8_t *table;

    if (walk->in_indirect || !walk->ring->indirect || (d->flags & VRING_DESC_F_NEXT) ||
        d->len == 0 || d->len % sizeof *d != 0 || d->len / sizeof *d > INDIRECT_MAX)
        return -EBADMSG;
    table = guest_memory_find(walk->ring->memory, d->addr, d->len, &len);
    if (!table || len != d->len)
        return -EFAULT;
    walk->table = (const struct vring_desc *)table;
    walk->table_len = d->len / (uint32_t)sizeof *d;
    walk->left = walk->table_len;
    walk->in_indirect = true;
    return 0;
}

static void add_piece(struct walk *walk, uint8_t *base, size_t len)
{
    struct vhost_chain *chain = &walk->chain;

    if (chain->pieces > (walk->writing ? chain->readable : 0) && chain->pieces <= walk->max) {
        struct iovec *last = &walk->iov[chain->pieces - 1];

        if ((uint8_t *)last->iov_base + last->iov_len == base) {
            last->iov_len += len;
            return;
        }
    }
    if (chain->pieces < walk->max)
        walk->iov[chain->pieces] = (struct iovec){base, len};
    chain->pieces++;
    if (!walk->writing)
        chain->readable++;
}

/* A buffer may reach from one region into the next. */
static int add_buffer(struct walk *walk, uint64_t guest, uint64_t len)
{
    walk->chain.len += len;
    while (len != 0) {
        uint64_t here;
        uint8_t *base = guest_memory_find(walk->ring->memory, guest, len, &here);

        if (!base)
            return -EFAULT;
        add_piece(walk, base, (size_t)here);
        guest += here;
        len -= here;
    }
    return 0;
}

static bool direction_fits(struct walk *walk, const struct vring_desc *d)
{
    if (d->flags & VRING_DESC_F_WRITE) {
        walk->writing = true;
        return walk->direction & VHOST_WRITABLE;
    }
    return !walk->writing && (walk->direction & VHOST_READABLE);
}

static int walk_from(struct walk *walk, uint16_t index)
{
    for (;;) {
        struct vring_desc d;
        int r;

        if (index >= walk->table_len || walk->left-- == 0)
            return -EBADMSG;
        d = descriptor_at(walk->table, index);
        if (d.flags & VRING_DESC_F_INDIRECT) {
            r = enter_indirect(walk, &d);
            if (r < 0)
                return r;
            index = 0;
            continue;
        }
        if (!direction_fits(walk, &d))
            return -EBADMSG;
        r = add_buffer(walk, d.addr, d.len);
        if (r < 0)
            return r;
        if (!(d.flags & VRING_DESC_F_NEXT))
            return 0;
        index = d.next;
    }
}

int vhost_ring_chain(struct vhost_ring *ring, uint16_t ahead, enum vhost_direction direction,
                     struct iovec *iov, unsigned max, struct vhost_chain *ret)
{
    struct walk walk = {
        .ring = ring,
        .table = ring->descriptors,
        .table_len = ring->size,
        .left = ring->size,
        .direction = direction,
        .iov = iov,
        .max = max,
        .chain.head = head_at(ring, (uint16_t)(ring->taken + ahead)),
    };
    int r = walk_from(&walk, walk.chain.head);

    *ret = walk.chain;
    if (r == 0 && walk.chain.pieces > max)
        return -EMSGSIZE;
    return r;
}

/* ---- what it gets back ---- */

void vhost_ring_give_back(struct vhost_ring *ring, uint16_t head, uint32_t len)
{
    struct vring_used_elem *element = &ring->used->ring[ring->written & (ring->size - 1)];

    element->id = htole32(head);
    element->len = htole32(len);
    ring->written++;
    if (__builtin_expect(ring->resubmit_count != 0, false) && ring->inflight)
        ring->inflight->entries[head].inflight = 0;
}

bool vhost_ring_publish(struct vhost_ring *ring)
{
    uint16_t before = ring->published;

    if (before == ring->written)
        return false;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    store16(&ring->used->idx, ring->written);
    ring->published = ring->written;
    if (ring->inflight)
        ring->inflight->used_index = ring->written;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the index before what the guest wishes for */
    if (ring->event_index)
        return vring_need_event(load16(used_event(ring)), ring->written, before);
    return !(load16(&ring->available->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

bool vhost_ring_arm(struct vhost_ring *ring)
{
    if (ring->event_index)
        store16(available_event(ring), ring->seen);
    else
        store16(&ring->used->flags, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the wish before the look */
    return load16(&ring->available->idx) != ring->seen;
}

void vhost_ring_disarm(struct vhost_ring *ring)
{
    if (!ring->event_index)
        store16(&ring->used->flags, VRING_USED_F_NO_NOTIFY);
}
