/* SPDX-License-Identifier: Apache-2.0 */
/* What a front end asks for ("Vhost-user Protocol", front-end message types).
 *
 * A request has a row in a table: the sizes its payload may have, whether the protocol has an
 * answer to it, and what its failure is counted as. A request that fails is answered with a failure
 * where the front end wants to know (REPLY_ACK); otherwise, the two sides would now differ in what
 * they believe, so the connection ends. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "netdev/vhost_user_internal.h"
#include "wire/bytes.h"

#define FEATURES                                                                                   \
    (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_ANY_LAYOUT) |                                  \
     FEATURE(VIRTIO_RING_F_INDIRECT_DESC) | FEATURE(VIRTIO_RING_F_EVENT_IDX) |                     \
     FEATURE(VHOST_USER_F_PROTOCOL_FEATURES) | FEATURE(VIRTIO_NET_F_MRG_RXBUF) |                   \
     FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_CSUM) |                               \
     FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_HOST_TSO6) |                           \
     FEATURE(VIRTIO_NET_F_HOST_ECN) | FEATURE(VIRTIO_NET_F_HOST_USO) |                             \
     FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO6) |                         \
     FEATURE(VIRTIO_NET_F_GUEST_ECN) | FEATURE(VIRTIO_NET_F_GUEST_USO4) |                          \
     FEATURE(VIRTIO_NET_F_GUEST_USO6) | FEATURE(VIRTIO_NET_F_MTU) | FEATURE(VIRTIO_NET_F_MAC) |    \
     FEATURE(VIRTIO_NET_F_STATUS) | FEATURE(VIRTIO_NET_F_CTRL_VQ) |                                \
     FEATURE(VIRTIO_NET_F_CTRL_RX) | FEATURE(VIRTIO_NET_F_CTRL_MAC_ADDR) |                         \
     FEATURE(VIRTIO_NET_F_MQ))

#define PROTOCOL_FEATURES                                                                          \
    (FEATURE(VHOST_USER_PROTOCOL_F_MQ) | FEATURE(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                \
     FEATURE(VHOST_USER_PROTOCOL_F_MTU) | FEATURE(VHOST_USER_PROTOCOL_F_CONFIG) |                  \
     FEATURE(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | FEATURE(VHOST_USER_PROTOCOL_F_RESET_DEVICE) | \
     FEATURE(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))

#define INFLIGHT_ALIGNMENT 64u

/* For front ends that let the back end choose; a link has one guest. */
static const uint8_t suggested_mac[6] = {0x02, 0x63, 0x75, 0x6c, 0x76, 0x64};

static int reply(struct vhost_user *device, const struct vhost_user_message *message, size_t size)
{
    return vhost_user_message_reply(device->connection, message, (uint32_t)size, -1);
}

static int reply_u64(struct vhost_user *device, struct vhost_user_message *message, uint64_t value)
{
    message->payload.u64 = value;
    return reply(device, message, sizeof value);
}

/* The queue of an index, or NULL. */
static struct vhost_queue *queue_at(struct vhost_user *device, uint64_t index)
{
    if (index >= VHOST_QUEUES_MAX)
        return NULL;
    if (index >= device->queue_count)
        device->queue_count = (unsigned)index + 1;
    return &device->queues[index];
}

/* ---- features ---- */

static int get_features(struct vhost_user *device, struct vhost_user_message *message)
{
    return reply_u64(device, message, FEATURES);
}

static int refresh_queues(struct vhost_user *device)
{
    int r = 0;

    for (unsigned i = 0; i < device->queue_count && r == 0; i++)
        r = vhost_queue_refresh(device, &device->queues[i]);
    return r;
}

static int set_features(struct vhost_user *device, struct vhost_user_message *message)
{
    if (message->payload.u64 & ~FEATURES)
        return -EINVAL;
    device->features = message->payload.u64;
    return refresh_queues(device);
}

static int get_protocol_features(struct vhost_user *device, struct vhost_user_message *message)
{
    return reply_u64(device, message, PROTOCOL_FEATURES);
}

static int set_protocol_features(struct vhost_user *device, struct vhost_user_message *message)
{
    if (message->payload.u64 & ~PROTOCOL_FEATURES)
        return -EINVAL;
    device->protocol_features = message->payload.u64;
    return 0;
}

static int get_queue_num(struct vhost_user *device, struct vhost_user_message *message)
{
    return reply_u64(device, message, VHOST_QUEUES);
}

static int nothing_to_do(struct vhost_user *device, struct vhost_user_message *message)
{
    (void)device;
    (void)message;
    return 0;
}

/* ---- memory ---- */

static int use_memory(struct vhost_user *device, struct guest_memory *take_memory)
{
    struct guest_memory *before = device->memory;
    int r;

    device->memory = take_memory;
    r = refresh_queues(device);
    guest_memory_unref(before);
    return r;
}

static int set_memory_table(struct vhost_user *device, struct vhost_user_message *message)
{
    const struct vhost_user_memory_table *table = &message->payload.memory;
    struct guest_memory *memory;
    int r = 0;

    if (table->count > VHOST_USER_REGIONS_MAX || message->fd_count < table->count ||
        message->header.size < offsetof(struct vhost_user_memory_table, regions[table->count]))
        return -EINVAL;
    memory = guest_memory_new(NULL);
    if (!memory)
        return -ENOMEM;
    for (unsigned i = 0; i < table->count && r == 0; i++)
        r = guest_memory_add(memory, &table->regions[i], message->fds[i]);
    if (r < 0) {
        guest_memory_unref(memory);
        return r;
    }
    return use_memory(device, memory);
}

static int get_max_memory_slots(struct vhost_user *device, struct vhost_user_message *message)
{
    return reply_u64(device, message, GUEST_MEMORY_SLOTS);
}

static int change_memory(struct vhost_user *device, const struct guest_region *region, int add_fd)
{
    struct guest_memory *memory = guest_memory_new(device->memory);
    int r;

    if (!memory)
        return -ENOMEM;
    r = add_fd >= 0 ? guest_memory_add(memory, region, add_fd)
                    : guest_memory_remove(memory, region);
    if (r < 0) {
        guest_memory_unref(memory);
        return r;
    }
    return use_memory(device, memory);
}

static int add_memory_region(struct vhost_user *device, struct vhost_user_message *message)
{
    if (message->fd_count != 1)
        return -EINVAL;
    return change_memory(device, &message->payload.slot.region, message->fds[0]);
}

static int remove_memory_region(struct vhost_user *device, struct vhost_user_message *message)
{
    return change_memory(device, &message->payload.slot.region, -1);
}

/* ---- rings ---- */

static int set_vring_num(struct vhost_user *device, struct vhost_user_message *message)
{
    const struct vhost_vring_state *state = &message->payload.state;
    struct vhost_queue *queue = queue_at(device, state->index);

    if (!queue || queue->started || state->num == 0 || state->num > VHOST_RING_SIZE_MAX ||
        (state->num & (state->num - 1)) != 0)
        return -EINVAL;
    queue->size = (uint16_t)state->num;
    return 0;
}

static int set_vring_address(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_queue *queue = queue_at(device, message->payload.address.index);

    if (!queue || (message->payload.address.flags & (1u << VHOST_VRING_F_LOG)))
        return -EINVAL;
    queue->address = message->payload.address;
    queue->placed = true;
    return vhost_queue_refresh(device, queue);
}

static int set_vring_base(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_queue *queue = queue_at(device, message->payload.state.index);

    if (!queue || queue->started || message->payload.state.num > UINT16_MAX)
        return -EINVAL;
    queue->base = (uint16_t)message->payload.state.num;
    return 0;
}

static int get_vring_base(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_queue *queue = queue_at(device, message->payload.state.index);

    if (!queue)
        return -EINVAL;
    vhost_queue_stop(device, queue);
    message->payload.state.num = queue->base;
    return reply(device, message, sizeof message->payload.state);
}

/* The queue and the descriptor of SET_VRING_KICK, _CALL and _ERR; -1 if it says there is none. */
static int take_vring_fd(struct vhost_user *device, struct vhost_user_message *message,
                         struct vhost_queue **ret_queue)
{
    uint64_t value = message->payload.u64;

    *ret_queue = queue_at(device, value & VHOST_USER_VRING_INDEX);
    if (!*ret_queue || (value & ~(uint64_t)(VHOST_USER_VRING_INDEX | VHOST_USER_VRING_NO_FD)))
        return -EINVAL;
    if (value & VHOST_USER_VRING_NO_FD)
        return -1;

    int fd = vhost_user_message_take_fd(message);
    return fd >= 0 ? fd : -EINVAL;
}

/* Without a descriptor, it would have to be polled for ever: that is refused. */
static int set_vring_kick(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_queue *queue;
    int fd = take_vring_fd(device, message, &queue);

    if (fd < 0)
        return -EINVAL;
    if (!queue->started && !vhost_user_has(device, VHOST_USER_F_PROTOCOL_FEATURES))
        queue->enabled = true;
    return vhost_queue_kick_by(device, queue, fd);
}

/* A descriptor that we write to must never make us wait. */
static int replace_event(int *event, int take_fd)
{
    close_fd(*event);
    *event = take_fd;
    if (take_fd >= 0 && fcntl(take_fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

static int set_vring_call(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_queue *queue;
    int fd = take_vring_fd(device, message, &queue);

    return fd < -1 ? fd : replace_event(&queue->call, fd);
}

static int set_vring_error(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_queue *queue;
    int fd = take_vring_fd(device, message, &queue);

    return fd < -1 ? fd : replace_event(&queue->error, fd);
}

static int set_vring_enable(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_queue *queue = queue_at(device, message->payload.state.index);

    if (!queue || message->payload.state.num > 1)
        return -EINVAL;
    queue->enabled = message->payload.state.num == 1;
    return 0;
}

/* ---- the device ---- */

static int reset_device(struct vhost_user *device, struct vhost_user_message *message)
{
    (void)message;
    for (unsigned i = 0; i < device->queue_count; i++) {
        vhost_queue_stop(device, &device->queues[i]);
        device->queues[i].enabled = false;
        device->queues[i].base = 0;
    }
    return 0;
}

static int set_mtu(struct vhost_user *device, struct vhost_user_message *message)
{
    uint64_t mtu = message->payload.u64;

    if (mtu < 576 || mtu > 65535)
        return -EINVAL;
    device->asked_mtu = (uint16_t)mtu;
    return 0;
}

static int get_config(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_user_config *config = &message->payload.config;
    uint8_t all[VHOST_USER_CONFIG_MAX] = {0};

    if (message->header.size != offsetof(struct vhost_user_config, bytes[config->size]) ||
        config->size > sizeof all || config->offset > sizeof all - config->size)
        return -EINVAL;
    memcpy(all + offsetof(struct virtio_net_config, mac), suggested_mac, sizeof suggested_mac);
    store_le16(all + offsetof(struct virtio_net_config, status), VIRTIO_NET_S_LINK_UP);
    store_le16(all + offsetof(struct virtio_net_config, max_virtqueue_pairs), VHOST_PAIRS);
    store_le16(all + offsetof(struct virtio_net_config, mtu), device->mtu);
    memcpy(config->bytes, all + config->offset, config->size);
    return reply(device, message, message->header.size);
}

/* ---- memory that outlives us ---- */

static size_t inflight_stride(const struct vhost_user_inflight *inflight)
{
    size_t len = sizeof(struct vhost_inflight_queue) +
                 inflight->queue_size * sizeof(struct vhost_inflight_entry);

    return (len + INFLIGHT_ALIGNMENT - 1) / INFLIGHT_ALIGNMENT * INFLIGHT_ALIGNMENT;
}

static bool inflight_is_possible(const struct vhost_user_inflight *inflight)
{
    return inflight->queues >= 1 && inflight->queues <= VHOST_QUEUES_MAX &&
           inflight->queue_size >= 1 && inflight->queue_size <= VHOST_RING_SIZE_MAX;
}

static int get_inflight(struct vhost_user *device, struct vhost_user_message *message)
{
    struct vhost_user_inflight *inflight = &message->payload.inflight;

    if (!inflight_is_possible(inflight))
        return -EINVAL;
    inflight->size = inflight->queues * inflight_stride(inflight);
    inflight->offset = 0;
    _cleanup_close_ int fd = memfd_create("culvert-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)inflight->size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return -errno;
    return vhost_user_message_reply(device->connection, message, message->header.size, fd);
}

static void forget_inflight(struct vhost_user *device)
{
    if (device->inflight)
        munmap(device->inflight, device->inflight_len);
    device->inflight = NULL;
    for (unsigned i = 0; i < device->queue_count; i++)
        device->queues[i].ring.inflight = NULL;
}

static int set_inflight(struct vhost_user *device, struct vhost_user_message *message)
{
    const struct vhost_user_inflight *inflight = &message->payload.inflight;
    struct stat info;
    void *at;

    if (message->fd_count != 1 || !inflight_is_possible(inflight) ||
        inflight->size < inflight->queues * inflight_stride(inflight) ||
        inflight->size > INT64_MAX / 2 || inflight->offset > INT64_MAX / 2)
        return -EINVAL;
    if (fstat(message->fds[0], &info) < 0)
        return -errno;
    if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size < inflight->offset + inflight->size)
        return -EINVAL;
    at = mmap(NULL, inflight->size, PROT_READ | PROT_WRITE, MAP_SHARED, message->fds[0],
              (off_t)inflight->offset);
    if (at == MAP_FAILED)
        return -errno;
    forget_inflight(device);
    device->inflight = at;
    device->inflight_len = inflight->size;
    device->inflight_stride = inflight_stride(inflight);
    return 0;
}

/* ---- the table ---- */

struct rule {
    int (*handle)(struct vhost_user *device, struct vhost_user_message *message);
    enum counter reason; /* of failure */
    uint16_t min, max;   /* payload bytes */
    bool answers;        /* handle() has sent the reply */
};

#define MESSAGE COUNTER_vhost_user_bad_message
#define MEMORY  COUNTER_vhost_user_bad_memory
#define RING    COUNTER_vhost_user_bad_ring

static const struct rule *rule_of(uint32_t request)
{
    static const struct rule rules[VHOST_USER_REQUESTS] = {
        [VHOST_USER_GET_FEATURES] = {get_features, MESSAGE, 0, 8, true},
        [VHOST_USER_SET_FEATURES] = {set_features, MESSAGE, 8, 8},
        [VHOST_USER_SET_OWNER] = {nothing_to_do, MESSAGE, 0, 8},
        [VHOST_USER_RESET_OWNER] = {reset_device, MESSAGE, 0, 8},
        [VHOST_USER_SET_MEM_TABLE] = {set_memory_table, MEMORY, 8, 8 + 8 * 32},
        [VHOST_USER_SET_VRING_NUM] = {set_vring_num, RING, 8, 8},
        [VHOST_USER_SET_VRING_ADDR] = {set_vring_address, RING, 40, 40},
        [VHOST_USER_SET_VRING_BASE] = {set_vring_base, RING, 8, 8},
        [VHOST_USER_GET_VRING_BASE] = {get_vring_base, MESSAGE, 8, 8, true},
        [VHOST_USER_SET_VRING_KICK] = {set_vring_kick, RING, 8, 8},
        [VHOST_USER_SET_VRING_CALL] = {set_vring_call, RING, 8, 8},
        [VHOST_USER_SET_VRING_ERR] = {set_vring_error, RING, 8, 8},
        [VHOST_USER_GET_PROTOCOL_FEATURES] = {get_protocol_features, MESSAGE, 0, 8, true},
        [VHOST_USER_SET_PROTOCOL_FEATURES] = {set_protocol_features, MESSAGE, 8, 8},
        [VHOST_USER_GET_QUEUE_NUM] = {get_queue_num, MESSAGE, 0, 8, true},
        [VHOST_USER_SET_VRING_ENABLE] = {set_vring_enable, RING, 8, 8},
        [VHOST_USER_SEND_RARP] = {nothing_to_do, MESSAGE, 8, 8},
        [VHOST_USER_NET_SET_MTU] = {set_mtu, MESSAGE, 8, 8},
        [VHOST_USER_GET_CONFIG] = {get_config, MESSAGE, 12, 12 + VHOST_USER_CONFIG_MAX, true},
        [VHOST_USER_SET_CONFIG] = {nothing_to_do, MESSAGE, 12, 12 + VHOST_USER_CONFIG_MAX},
        [VHOST_USER_GET_INFLIGHT_FD] = {get_inflight, MEMORY, VHOST_USER_INFLIGHT_LEN, 24, true},
        [VHOST_USER_SET_INFLIGHT_FD] = {set_inflight, MEMORY, VHOST_USER_INFLIGHT_LEN, 24},
        [VHOST_USER_RESET_DEVICE] = {reset_device, MESSAGE, 0, 8},
        [VHOST_USER_GET_MAX_MEM_SLOTS] = {get_max_memory_slots, MESSAGE, 0, 8, true},
        [VHOST_USER_ADD_MEM_REG] = {add_memory_region, MEMORY, 40, 40},
        [VHOST_USER_REM_MEM_REG] = {remove_memory_region, MEMORY, 40, 40},
    };

    return request < VHOST_USER_REQUESTS && rules[request].handle ? &rules[request] : NULL;
}

static bool wants_ack(const struct vhost_user *device, const struct vhost_user_message *message)
{
    return (message->header.flags & VHOST_USER_NEED_REPLY) &&
           (device->protocol_features & FEATURE(VHOST_USER_PROTOCOL_F_REPLY_ACK));
}

static void acknowledge(struct vhost_user *device, struct vhost_user_message *message, bool done)
{
    if (wants_ack(device, message) && reply_u64(device, message, done ? 0 : 1) < 0)
        vhost_user_fail(device, COUNTER_vhost_user_bad_message);
}

void vhost_user_handle(struct vhost_user *device, struct vhost_user_message *message)
{
    const struct rule *rule = rule_of(message->header.request);
    int r;

    if (!rule) {
        count(device->netdev.counters, COUNTER_vhost_user_unsupported);
        acknowledge(device, message, false);
        return;
    }
    if (message->header.size < rule->min || message->header.size > rule->max) {
        vhost_user_fail(device, COUNTER_vhost_user_bad_message);
        return;
    }
    r = rule->handle(device, message);
    if (r < 0 && (rule->answers || !wants_ack(device, message)))
        vhost_user_fail(device, rule->reason);
    else if (r < 0 && device->fault < 0)
        count(device->netdev.counters, rule->reason);
    if (!rule->answers)
        acknowledge(device, message, r == 0);
}

void vhost_user_reset(struct vhost_user *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        vhost_queue_reset(device, &device->queues[i]);
    device->queue_count = 0;
    forget_inflight(device);
    device->memory = guest_memory_unref(device->memory);
    device->features = device->protocol_features = 0;
    device->asked_mtu = 0;
}
