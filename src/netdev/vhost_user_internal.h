/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_VHOST_USER_INTERNAL_H
#define NETDEV_VHOST_USER_INTERNAL_H

/* What the vhost-user netdev's files share. Theory of operation: vhost_user.c. */

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/pool.h"
#include "netdev/netdev.h"
#include "netdev/software_offload.h"
#include "netdev/unix_socket.h"
#include "netdev/vhost_user_memory.h"
#include "netdev/vhost_user_message.h"
#include "netdev/vhost_user_ring.h"

/* Pairs offered to a guest. Front ends differ on whether GET_QUEUE_NUM counts queues or pairs, so
 * as many pairs as we have queues may be set up, in vain for the most part. */
#define VHOST_PAIRS      8u
#define VHOST_QUEUES     (2 * VHOST_PAIRS + 1)
#define VHOST_QUEUES_MAX (2 * VHOST_QUEUES + 2)

#define VHOST_STEERING 256u /* buckets of flows, each with the pair the guest uses for it */

#ifndef VIRTIO_NET_F_HOST_USO /* newer than Debian 12's headers */
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO   56
#endif

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* A chain of the guest's that a frame points into. The buffer stands for all of it: its last
 * reference gives the chain back. */
struct vhost_flight {
    struct culvert_buffer buffer;
    struct vhost_flights *owner;
    struct guest_memory *memory; /* one reference while in use */
    uint16_t head;
    bool done;
};

/* The chains taken from a transmit queue and not given back yet, in the order they were taken.
 * Outlives the queue while frames hold chains. */
struct vhost_flights {
    uint32_t refs;
    uint16_t mask;
    uint16_t first, next; /* positions of the oldest and behind the newest */
    struct vhost_flight flight[];
};

struct vhost_queue {
    struct vhost_ring ring;
    struct vhost_vring_addr address;
    uint16_t size, base;
    int kick, call, error;
    bool placed; /* `address` was given */
    bool started, enabled;
    bool starved;                  /* receive queue: a frame found too little room… */
    uint16_t starved_seen;         /* …in the chains up to here */
    uint16_t most_posted;          /* chains that were ever available at once */
    struct vhost_flights *flights; /* transmit queue, while started */
};

struct vhost_user {
    struct netdev netdev; /* first: ops are given this */
    struct loop *loop;
    unsigned handler;
    int listener;   /* -1: one guest only, by a descriptor that was handed in */
    int connection; /* -1: nobody is there */
    uint32_t session;
    struct unix_name name; /* of the listener, if we bound it */
    bool once, ended, end_reported, listening;

    struct vhost_user_message message; /* on its way in */
    uint64_t features, protocol_features;
    uint16_t mtu;       /* the configured one */
    uint16_t asked_mtu; /* the front end's; 0: none */
    struct guest_memory *memory;
    void *inflight;
    size_t inflight_len, inflight_stride;

    struct vhost_queue queues[VHOST_QUEUES_MAX];
    unsigned queue_count; /* behind the last one in use */
    unsigned next_transmit;
    unsigned pairs; /* that the guest uses */
    size_t header_len;
    size_t frame_max; /* the largest frame that the guest's buffers are known to hold */
    bool awake;
    int fault; /* the connection is to be closed: enum counter, or -1 */
    uint8_t steering[VHOST_STEERING];

    struct pool *frames, *copies;
    struct software_sender sender;
};

static inline struct vhost_user *vhost_user_of(struct netdev *netdev)
{
    return (struct vhost_user *)netdev;
}

static inline bool vhost_user_has(const struct vhost_user *device, unsigned feature)
{
    return device->features & FEATURE(feature);
}

static inline bool vhost_queue_usable(const struct vhost_queue *queue)
{
    return queue->started && queue->enabled;
}

static inline bool vhost_queue_is_receive(const struct vhost_user *device,
                                          const struct vhost_queue *queue)
{
    return (queue - device->queues) % 2 == 0;
}

/* vhost_user.c: nothing of this guest's can be believed any more; the connection is closed when the
 * batch has ended. */
void vhost_user_fail(struct vhost_user *device, enum counter reason);
/* The reason that a fault of a ring is counted under. */
enum counter vhost_ring_reason(int fault);

/* vhost_user_protocol.c: takes care of a whole message. What cannot be done or replied to ends in
 * vhost_user_fail(). */
void vhost_user_handle(struct vhost_user *device, struct vhost_user_message *message);
/* Everything a front end has set up is undone. */
void vhost_user_reset(struct vhost_user *device);

/* vhost_user_queue.c: rings that start and stop */
void vhost_queue_init(struct vhost_queue *queue);
/* The descriptor that the guest's kicks come by, which starts a stopped queue. 0 or negative errno.
 */
int vhost_queue_kick_by(struct vhost_user *device, struct vhost_queue *queue, int take_fd);
/* The position to go on from is in `base`. */
void vhost_queue_stop(struct vhost_user *device, struct vhost_queue *queue);
/* Forgets everything. */
void vhost_queue_reset(struct vhost_user *device, struct vhost_queue *queue);
/* The features, the memory or its addresses have changed under a running ring. 0, or -EFAULT: it
 * has lost its place, and the connection ends whatever the front end is answered. */
int vhost_queue_refresh(struct vhost_user *device, struct vhost_queue *queue);
/* Publishes what was given back, and calls the guest if it wants to be. */
void vhost_queue_flush(struct vhost_queue *queue);
bool vhost_queue_is_control(const struct vhost_user *device, const struct vhost_queue *queue);

/* The next flight, for a chain that was just taken; NULL: the guest made more available than the
 * ring holds. One reference on its buffer is the caller's. */
struct vhost_flight *vhost_flight_begin(struct vhost_user *device, struct vhost_queue *queue,
                                        uint16_t head);

/* vhost_user_transmit.c: frames from the guest. The number taken, of `max` chains looked at. */
int vhost_transmit(struct vhost_user *device, struct vhost_queue *queue,
                   struct culvert_frame **ret_frames, int max, uint64_t *bytes);

/* vhost_user_deliver.c: a frame to the guest, as software_sender.put. */
int vhost_deliver(void *device, struct culvert_frame *frame);
/* There is room again, perhaps: the queue a frame waits for has more, or is used no longer. */
bool vhost_deliver_has_room(struct vhost_user *device);

/* vhost_user_steering.c: which pair of queues a flow of the guest's uses */
void vhost_steering_learn(struct vhost_user *device, const struct culvert_frame *frame,
                          unsigned pair);
unsigned vhost_steering_find(const struct vhost_user *device, const struct culvert_frame *frame);

/* vhost_user_control.c: the control queue's commands, those of this driver's that are waiting. */
void vhost_control(struct vhost_user *device, struct vhost_queue *queue);

#endif
