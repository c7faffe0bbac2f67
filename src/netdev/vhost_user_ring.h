/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_VHOST_USER_RING_H
#define NETDEV_VHOST_USER_RING_H

/* A split virtqueue in the guest's memory (virtio 1.2, 2.7), seen from the device's side.
 *
 * Everything in it may change at any time and may lie. What is read is read once into private
 * memory, checked, and then used; every walk is bounded. What does not hold is a fault:
 *
 *     -ERANGE   the available index moved by more than the ring holds
 *     -EBADMSG  a descriptor chain is impossible: an index outside its table, a loop, an indirect
 *               table of a wrong length or within another, a flag of the wrong direction
 *     -EFAULT   a descriptor points outside the guest's memory
 *
 * After a fault the ring cannot be trusted to mean anything; its owner stops using it.
 *
 * Positions count chains since the ring was made, modulo 2^16; a chain has the same position in the
 * available and the used ring, as chains are given back in the order they were taken. So a ring
 * that is taken over (after either side's death) goes on at the used index, and nothing is lost. */

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "netdev/vhost_user_memory.h"

#define VHOST_RING_SIZE_MAX 32768u

/* A queue's share of the memory that outlives this process (VHOST_USER_*_INFLIGHT_FD). */
struct vhost_inflight_entry {
    uint8_t inflight, padding[5];
    uint16_t next;
    uint64_t counter;
};

struct vhost_inflight_queue {
    uint64_t features;
    uint16_t version, size, last_batch_head, used_index;
    struct vhost_inflight_entry entries[];
};

#define VHOST_INFLIGHT_VERSION 1u

struct vhost_ring {
    struct vring_desc *descriptors; /* the guest's, as are the next two */
    struct vring_avail *available;
    struct vring_used *used;
    struct guest_memory *memory; /* borrowed */
    uint16_t size;
    bool event_index, indirect;            /* as negotiated */
    uint16_t taken;                        /* position of the next chain to take */
    uint16_t seen;                         /* available index read last */
    uint16_t written;                      /* position behind the last used element written */
    uint16_t published;                    /* used index the guest has been told */
    struct vhost_inflight_queue *inflight; /* borrowed, or NULL */
    uint16_t *resubmit;                    /* heads to be taken before those in the ring */
    uint16_t resubmit_count, resubmit_at;  /* the position of the first */
};

/* Where the front end says the ring lies; false: not in the memory, or not aligned. */
bool vhost_ring_place(struct vhost_ring *ring, struct guest_memory *memory, uint64_t descriptors,
                      uint64_t available, uint64_t used);
/* Begins at position `base`. A front end whose back end died without a word says where its own used
 * index stands. 0 or -ENOMEM. */
int vhost_ring_begin(struct vhost_ring *ring, uint16_t base);
void vhost_ring_end(struct vhost_ring *ring);

/* Looks how many chains may be taken: 0 to size, or -ERANGE. */
int vhost_ring_look(struct vhost_ring *ring);
/* The same without a look if some are known already. */
static inline int vhost_ring_available(struct vhost_ring *ring)
{
    uint16_t known = (uint16_t)(ring->seen - ring->taken);

    return known != 0 ? known : vhost_ring_look(ring);
}

/* Which descriptors a queue's chains may have; where both, the readable ones come first. */
enum vhost_direction {
    VHOST_READABLE = 1, /* by the device: the guest transmits */
    VHOST_WRITABLE = 2,
    VHOST_BOTH = 3,
};

struct vhost_chain {
    uint16_t head;
    size_t len;        /* bytes of all its descriptors */
    unsigned pieces;   /* of contiguous memory */
    unsigned readable; /* how many of them are */
};

/* Reads the chain `ahead` of the next one to take (which must be available) into `iov`. 0;
 * -EMSGSIZE: more than `max` pieces (`ret` is complete all the same, but for the pieces); or a
 * fault. */
int vhost_ring_chain(struct vhost_ring *ring, uint16_t ahead, enum vhost_direction direction,
                     struct iovec *iov, unsigned max, struct vhost_chain *ret);
static inline void vhost_ring_take(struct vhost_ring *ring, uint16_t count)
{
    ring->taken = (uint16_t)(ring->taken + count);
}

/* Writes the next used element: the chain taken first of those not given back yet. */
void vhost_ring_give_back(struct vhost_ring *ring, uint16_t head, uint32_t len);
/* Tells the guest of the elements written. True: it wants to be called. */
bool vhost_ring_publish(struct vhost_ring *ring);

/* Asks to be kicked when a chain is added to those seen. True: it has been already. */
bool vhost_ring_arm(struct vhost_ring *ring);
/* Asks not to be kicked. */
void vhost_ring_disarm(struct vhost_ring *ring);

#endif
