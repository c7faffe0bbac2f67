/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_VHOST_FRONTEND_FRONTEND_H
#define TESTS_VHOST_FRONTEND_FRONTEND_H

/* The front end of a vhost-user device without a machine behind it: memory in a memfd that is the
 * "guest's", virtqueues in it, and the messages that hand both to a back end. The guest's driver is
 * whoever uses this: the pump beside this file, or a test that writes into the rings what no driver
 * would. One thread. */

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "netdev/vhost_user_message.h"

/* Where the memory lies in the guest's eyes. */
#define FRONTEND_GUEST_BASE UINT64_C(0x40000000)
#define FRONTEND_QUEUES_MAX 8u

struct frontend_queue {
    uint16_t size;
    struct vring_desc *descriptors;
    struct vring_avail *available;
    struct vring_used *used;
    int kick, call;
    uint16_t added;  /* available index, not necessarily told yet */
    uint16_t told;   /* the same, as the device sees it */
    uint16_t reaped; /* used elements seen */
};

struct frontend {
    int socket;
    int memory_fd;
    uint8_t *memory;
    size_t size, allocated;
    uint64_t features; /* negotiated */
    uint64_t protocol_features;
    unsigned queue_count;
    struct frontend_queue queues[FRONTEND_QUEUES_MAX];
    /* Called while an answer is waited for, if the back end is in this thread; returns false to
     * give up. NULL: reads block. */
    bool (*wait)(void *ctx);
    void *wait_ctx;
};

/* Memory and queues of `queue_size`, all zero. 0 or negative errno. */
int frontend_init(struct frontend *frontend, size_t memory_size, unsigned queues,
                  uint16_t queue_size);
void frontend_fini(struct frontend *frontend);
/* `len` bytes of the guest's memory that nobody else uses, aligned; NULL: none is left. */
void *frontend_allocate(struct frontend *frontend, size_t len, size_t align);
/* The guest's address of a place in the memory. */
uint64_t frontend_address(const struct frontend *frontend, const void *at);

int frontend_connect(struct frontend *frontend, const char *path);
/* Sends a message with descriptors (borrowed). 0 or negative errno. */
int frontend_send(struct frontend *frontend, uint32_t request, uint32_t flags, const void *payload,
                  uint32_t size, const int *fds, unsigned fd_count);
/* Waits for the answer; its descriptors are the caller's. 0 or negative errno. */
int frontend_receive(struct frontend *frontend, struct vhost_user_message *ret);
/* A message whose success is acknowledged (REPLY_ACK): 0, or -EREMOTEIO if it failed there. */
int frontend_request(struct frontend *frontend, uint32_t request, const void *payload,
                     uint32_t size, const int *fds, unsigned fd_count);
int frontend_get_u64(struct frontend *frontend, uint32_t request, uint64_t *ret);

/* The steps of frontend_start(). */
int frontend_negotiate(struct frontend *frontend, uint64_t wanted);
int frontend_share_memory(struct frontend *frontend);
int frontend_start_queue(struct frontend *frontend, unsigned index, uint16_t base);
int frontend_enable_queue(struct frontend *frontend, unsigned index, bool enable);
/* Everything from features (those wanted that the back end has) to enabled queues, which go on
 * where their used index stands. */
int frontend_start(struct frontend *frontend, uint64_t wanted);

/* ---- what a driver does with a queue ---- */

/* Makes the chain at `head` available; the device learns of it by frontend_tell(). */
void frontend_add(struct frontend_queue *queue, uint16_t head);
/* Tells the device, and kicks it if it wants that. */
void frontend_tell(struct frontend *frontend, struct frontend_queue *queue);
/* The next used element. False: there is none. */
bool frontend_reap(struct frontend_queue *queue, struct vring_used_elem *ret);
/* Asks for a call at the next used element. True: there is one already. */
bool frontend_want_call(struct frontend *frontend, struct frontend_queue *queue);
void frontend_want_no_call(struct frontend *frontend, struct frontend_queue *queue);

#endif
