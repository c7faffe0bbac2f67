/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define FEATURE(bit)   (UINT64_C(1) << (bit))
#define PAGE           4096u
#define ANSWER_TIMEOUT 5000 /* ms */

/* ---- memory ---- */

static int queue_init(struct frontend *frontend, struct frontend_queue *queue, uint16_t size)
{
    *queue = (struct frontend_queue){.size = size, .kick = -1, .call = -1};
    queue->descriptors = frontend_allocate(frontend, size * sizeof(struct vring_desc), PAGE);
    queue->available =
        frontend_allocate(frontend, sizeof(struct vring_avail) + (size + 1u) * 2u, PAGE);
    queue->used =
        frontend_allocate(frontend, sizeof(struct vring_used) + size * 8u + sizeof(uint16_t), PAGE);
    if (!queue->descriptors || !queue->available || !queue->used)
        return -ENOMEM;
    queue->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return queue->kick < 0 || queue->call < 0 ? -errno : 0;
}

int frontend_init(struct frontend *frontend, size_t memory_size, unsigned queues,
                  uint16_t queue_size)
{
    int r = 0;

    *frontend = (struct frontend){.socket = -1, .size = memory_size, .queue_count = queues};
    frontend->memory_fd = memfd_create("guest", MFD_CLOEXEC);
    if (frontend->memory_fd < 0 || ftruncate(frontend->memory_fd, (off_t)memory_size) < 0)
        return -errno;
    frontend->memory =
        mmap(NULL, memory_size, PROT_READ | PROT_WRITE, MAP_SHARED, frontend->memory_fd, 0);
    if (frontend->memory == MAP_FAILED)
        return -errno;
    for (unsigned i = 0; i < queues && r == 0; i++)
        r = queue_init(frontend, &frontend->queues[i], queue_size);
    return r;
}

void frontend_fini(struct frontend *frontend)
{
    close_fd(frontend->socket);
    close_fd(frontend->memory_fd);
    munmap(frontend->memory, frontend->size);
    for (unsigned i = 0; i < frontend->queue_count; i++) {
        close_fd(frontend->queues[i].kick);
        close_fd(frontend->queues[i].call);
    }
}

void *frontend_allocate(struct frontend *frontend, size_t len, size_t align)
{
    size_t at = (frontend->allocated + align - 1) / align * align;

    if (at > frontend->size || len > frontend->size - at)
        return NULL;
    frontend->allocated = at + len;
    return frontend->memory + at;
}

uint64_t frontend_address(const struct frontend *frontend, const void *at)
{
    return FRONTEND_GUEST_BASE + (uint64_t)((const uint8_t *)at - frontend->memory);
}

/* ---- messages ---- */

int frontend_connect(struct frontend *frontend, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        return -EINVAL;
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int saved = errno;
        close(fd);
        return -saved;
    }
    frontend->socket = close_fd(frontend->socket);
    frontend->socket = fd;
    return 0;
}

int frontend_send(struct frontend *frontend, uint32_t request, uint32_t flags, const void *payload,
                  uint32_t size, const int *fds, unsigned fd_count)
{
    struct vhost_user_header header = {request, VHOST_USER_VERSION | flags, size};
    struct iovec iov[] = {{&header, sizeof header}, {(void *)payload, size}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

    if (fd_count > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    return sendmsg(frontend->socket, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int frontend_receive(struct frontend *frontend, struct vhost_user_message *ret)
{
    int r;

    *ret = (struct vhost_user_message){0};
    for (;;) {
        struct pollfd pollfd = {frontend->socket, POLLIN, 0};

        if (frontend->wait && !frontend->wait(frontend->wait_ctx))
            return -ETIMEDOUT;
        if (!frontend->wait && poll(&pollfd, 1, ANSWER_TIMEOUT) == 0)
            return -ETIMEDOUT;
        r = vhost_user_message_read(frontend->socket, ret);
        if (r != 0)
            return r < 0 ? r : 0;
    }
}

int frontend_request(struct frontend *frontend, uint32_t request, const void *payload,
                     uint32_t size, const int *fds, unsigned fd_count)
{
    bool ack = frontend->protocol_features & FEATURE(VHOST_USER_PROTOCOL_F_REPLY_ACK);
    struct vhost_user_message answer;
    int r = frontend_send(frontend, request, ack ? VHOST_USER_NEED_REPLY : 0, payload, size, fds,
                          fd_count);

    if (r < 0 || !ack)
        return r;
    r = frontend_receive(frontend, &answer);
    if (r < 0)
        return r;
    return answer.header.request == request && answer.payload.u64 == 0 ? 0 : -EREMOTEIO;
}

int frontend_get_u64(struct frontend *frontend, uint32_t request, uint64_t *ret)
{
    struct vhost_user_message answer;
    int r = frontend_send(frontend, request, 0, NULL, 0, NULL, 0);

    if (r == 0)
        r = frontend_receive(frontend, &answer);
    if (r < 0)
        return r;
    *ret = answer.payload.u64;
    return answer.header.request == request && answer.header.size == sizeof *ret ? 0 : -EPROTO;
}

/* ---- starting ---- */

static int set_u64(struct frontend *frontend, uint32_t request, uint64_t value)
{
    return frontend_request(frontend, request, &value, sizeof value, NULL, 0);
}

static int set_state(struct frontend *frontend, uint32_t request, unsigned index, unsigned number)
{
    struct vhost_vring_state state = {index, number};

    return frontend_request(frontend, request, &state, sizeof state, NULL, 0);
}

static int set_event(struct frontend *frontend, uint32_t request, unsigned index, int fd)
{
    uint64_t value = index;

    return frontend_request(frontend, request, &value, sizeof value, &fd, 1);
}

int frontend_negotiate(struct frontend *frontend, uint64_t wanted)
{
    uint64_t features, protocol;
    int r = frontend_get_u64(frontend, VHOST_USER_GET_FEATURES, &features);

    frontend->protocol_features = 0;
    if (r < 0)
        return r;
    wanted |= FEATURE(VHOST_USER_F_PROTOCOL_FEATURES);
    frontend->features = features & wanted;
    r = frontend_get_u64(frontend, VHOST_USER_GET_PROTOCOL_FEATURES, &protocol);
    if (r == 0)
        r = set_u64(frontend, VHOST_USER_SET_PROTOCOL_FEATURES, protocol);
    if (r < 0)
        return r;
    frontend->protocol_features = protocol;
    r = frontend_send(frontend, VHOST_USER_SET_OWNER, 0, NULL, 0, NULL, 0);
    if (r == 0)
        r = set_u64(frontend, VHOST_USER_SET_FEATURES, frontend->features);
    return r;
}

int frontend_share_memory(struct frontend *frontend)
{
    struct vhost_user_memory_table table = {
        .count = 1,
        .regions = {{.guest = FRONTEND_GUEST_BASE,
                     .size = frontend->size,
                     .user = (uint64_t)(uintptr_t)frontend->memory}},
    };

    return frontend_request(frontend, VHOST_USER_SET_MEM_TABLE, &table,
                            offsetof(struct vhost_user_memory_table, regions[1]),
                            &frontend->memory_fd, 1);
}

int frontend_start_queue(struct frontend *frontend, unsigned index, uint16_t base)
{
    struct frontend_queue *queue = &frontend->queues[index];
    struct vhost_vring_addr address = {
        .index = index,
        .desc_user_addr = (uint64_t)(uintptr_t)queue->descriptors,
        .used_user_addr = (uint64_t)(uintptr_t)queue->used,
        .avail_user_addr = (uint64_t)(uintptr_t)queue->available,
    };
    int r = set_state(frontend, VHOST_USER_SET_VRING_NUM, index, queue->size);

    if (r == 0)
        r = set_state(frontend, VHOST_USER_SET_VRING_BASE, index, base);
    if (r == 0)
        r = frontend_request(frontend, VHOST_USER_SET_VRING_ADDR, &address, sizeof address, NULL,
                             0);
    if (r == 0)
        r = set_event(frontend, VHOST_USER_SET_VRING_CALL, index, queue->call);
    if (r == 0)
        r = set_event(frontend, VHOST_USER_SET_VRING_KICK, index, queue->kick);
    return r;
}

int frontend_enable_queue(struct frontend *frontend, unsigned index, bool enable)
{
    return set_state(frontend, VHOST_USER_SET_VRING_ENABLE, index, enable);
}

int frontend_start(struct frontend *frontend, uint64_t wanted)
{
    int r = frontend_negotiate(frontend, wanted);

    if (r == 0)
        r = frontend_share_memory(frontend);
    for (unsigned i = 0; i < frontend->queue_count && r == 0; i++)
        r = frontend_start_queue(frontend, i, le16toh(frontend->queues[i].used->idx));
    for (unsigned i = 0; i < frontend->queue_count && r == 0; i++)
        r = frontend_enable_queue(frontend, i, true);
    return r;
}

/* ---- queues ---- */

void frontend_add(struct frontend_queue *queue, uint16_t head)
{
    queue->available->ring[queue->added & (queue->size - 1)] = htole16(head);
    queue->added++;
}

void frontend_tell(struct frontend *frontend, struct frontend_queue *queue)
{
    const uint64_t one = 1;
    uint16_t before = queue->told, event;
    bool kick;

    if (before == queue->added)
        return;
    __atomic_store_n(&queue->available->idx, htole16(queue->added), __ATOMIC_RELEASE);
    queue->told = queue->added;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (frontend->features & FEATURE(VIRTIO_RING_F_EVENT_IDX)) {
        event =
            le16toh(__atomic_load_n((uint16_t *)&queue->used->ring[queue->size], __ATOMIC_RELAXED));
        kick = vring_need_event(event, queue->added, before);
    } else {
        kick = !(le16toh(__atomic_load_n(&queue->used->flags, __ATOMIC_RELAXED)) &
                 VRING_USED_F_NO_NOTIFY);
    }
    if (kick && write(queue->kick, &one, sizeof one) < 0)
        errno = 0;
}

bool frontend_reap(struct frontend_queue *queue, struct vring_used_elem *ret)
{
    const struct vring_used_elem *element = &queue->used->ring[queue->reaped & (queue->size - 1)];

    if (le16toh(__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE)) == queue->reaped)
        return false;
    *ret = (struct vring_used_elem){.id = le32toh(element->id), .len = le32toh(element->len)};
    queue->reaped++;
    return true;
}

bool frontend_want_call(struct frontend *frontend, struct frontend_queue *queue)
{
    if (frontend->features & FEATURE(VIRTIO_RING_F_EVENT_IDX))
        __atomic_store_n(&queue->available->ring[queue->size], htole16(queue->reaped),
                         __ATOMIC_RELAXED);
    else
        __atomic_store_n(&queue->available->flags, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return le16toh(__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE)) != queue->reaped;
}

void frontend_want_no_call(struct frontend *frontend, struct frontend_queue *queue)
{
    if (!(frontend->features & FEATURE(VIRTIO_RING_F_EVENT_IDX)))
        __atomic_store_n(&queue->available->flags, htole16(VRING_AVAIL_F_NO_INTERRUPT),
                         __ATOMIC_RELAXED);
}
