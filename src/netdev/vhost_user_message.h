/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_VHOST_USER_MESSAGE_H
#define NETDEV_VHOST_USER_MESSAGE_H

/* Messages of the vhost-user protocol: numbers, layouts, and how they are read from a socket with
 * their descriptors. All integers are in the machine's own order, as the specification has it. */

#include <linux/vhost_types.h>
#include <stddef.h>
#include <stdint.h>

#include "netdev/vhost_user_memory.h"

/* Requests of the front end ("Front-end message types"). */
enum vhost_user_request {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES = 2,
    VHOST_USER_SET_OWNER = 3,
    VHOST_USER_RESET_OWNER = 4,
    VHOST_USER_SET_MEM_TABLE = 5,
    VHOST_USER_SET_VRING_NUM = 8,
    VHOST_USER_SET_VRING_ADDR = 9,
    VHOST_USER_SET_VRING_BASE = 10,
    VHOST_USER_GET_VRING_BASE = 11,
    VHOST_USER_SET_VRING_KICK = 12,
    VHOST_USER_SET_VRING_CALL = 13,
    VHOST_USER_SET_VRING_ERR = 14,
    VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    VHOST_USER_GET_QUEUE_NUM = 17,
    VHOST_USER_SET_VRING_ENABLE = 18,
    VHOST_USER_SEND_RARP = 19,
    VHOST_USER_NET_SET_MTU = 20,
    VHOST_USER_GET_CONFIG = 24,
    VHOST_USER_SET_CONFIG = 25,
    VHOST_USER_GET_INFLIGHT_FD = 31,
    VHOST_USER_SET_INFLIGHT_FD = 32,
    VHOST_USER_RESET_DEVICE = 34,
    VHOST_USER_GET_MAX_MEM_SLOTS = 36,
    VHOST_USER_ADD_MEM_REG = 37,
    VHOST_USER_REM_MEM_REG = 38,
    VHOST_USER_REQUESTS
};

enum vhost_user_protocol_feature {
    VHOST_USER_PROTOCOL_F_MQ = 0,
    VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
    VHOST_USER_PROTOCOL_F_MTU = 4,
    VHOST_USER_PROTOCOL_F_CONFIG = 9,
    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
    VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
    VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
};

/* The feature bit that says there are protocol features. */
#define VHOST_USER_F_PROTOCOL_FEATURES 30

#define VHOST_USER_VERSION      1u
#define VHOST_USER_VERSION_MASK 3u
#define VHOST_USER_REPLY        4u /* flags */
#define VHOST_USER_NEED_REPLY   8u

/* SET_VRING_KICK, _CALL, _ERR. */
#define VHOST_USER_VRING_INDEX 0xffu
#define VHOST_USER_VRING_NO_FD 0x100u

#define VHOST_USER_FDS_MAX     8u
#define VHOST_USER_REGIONS_MAX 8u /* of SET_MEM_TABLE */
#define VHOST_USER_CONFIG_MAX  256u

struct vhost_user_header {
    uint32_t request, flags, size; /* size: of the payload */
};

struct vhost_user_memory_table {
    uint32_t count, padding;
    struct guest_region regions[VHOST_USER_REGIONS_MAX];
};

struct vhost_user_memory_slot {
    uint64_t padding;
    struct guest_region region;
};

struct vhost_user_config {
    uint32_t offset, size, flags;
    uint8_t bytes[VHOST_USER_CONFIG_MAX];
};

struct vhost_user_inflight {
    uint64_t size, offset; /* of the mapping */
    uint16_t queues, queue_size;
};

/* The last four bytes of the struct are padding, which some front ends send and some do not. */
#define VHOST_USER_INFLIGHT_LEN 20u

union vhost_user_payload {
    uint64_t u64;
    struct vhost_vring_state state;
    struct vhost_vring_addr address;
    struct vhost_user_memory_table memory;
    struct vhost_user_memory_slot slot;
    struct vhost_user_config config;
    struct vhost_user_inflight inflight;
};

/* A message, whole or on its way in. The descriptors are the message's until taken
 * (vhost_user_message_take_fd). */
struct vhost_user_message {
    struct vhost_user_header header;
    union vhost_user_payload payload;
    size_t have; /* bytes read of header and payload */
    int fds[VHOST_USER_FDS_MAX];
    unsigned fd_count;
};

/* Reads on, never beyond this message. 1: it is whole. 0: the rest has not come. -EPIPE: the peer
 * has gone. -EPROTO: not a message of this protocol. Other negative errno: the socket failed. */
int vhost_user_message_read(int fd, struct vhost_user_message *message);
/* Closes the descriptors that were not taken; ready for the next message. */
void vhost_user_message_clear(struct vhost_user_message *message);
/* The first descriptor, now the caller's; -1: there is none. */
int vhost_user_message_take_fd(struct vhost_user_message *message);
/* Sends `size` payload bytes as the reply to the message, with a descriptor (borrowed) unless it is
 * -1. 0 or negative errno: a front end that lets the socket fill up is not waited for. */
int vhost_user_message_reply(int fd, const struct vhost_user_message *message, uint32_t size,
                             int passed_fd);

#endif
