/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/vhost_user_message.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#define HEADER_LEN sizeof(struct vhost_user_header)

union descriptors {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(VHOST_USER_FDS_MAX * sizeof(int))];
};

/* Keeps the descriptors that came with a read. False: there were more than a message has. */
static bool keep_fds(struct vhost_user_message *message, struct msghdr *from)
{
    bool whole = !(from->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *c = CMSG_FIRSTHDR(from); c; c = CMSG_NXTHDR(from, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (message->fd_count < VHOST_USER_FDS_MAX) {
                message->fds[message->fd_count++] = fd;
            } else {
                close_fd(fd);
                whole = false;
            }
        }
    }
    return whole;
}

/* Reads towards `end` bytes of header and payload. 1: they are there. */
static int read_until(int fd, struct vhost_user_message *message, size_t end)
{
    while (message->have < end) {
        bool in_header = message->have < HEADER_LEN;
        uint8_t *to = in_header ? (uint8_t *)&message->header + message->have
                                : (uint8_t *)&message->payload + (message->have - HEADER_LEN);
        struct iovec iov = {to, end - message->have};
        union descriptors control;
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
        ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (!keep_fds(message, &msg))
            return -EPROTO;
        if (n == 0)
            return -EPIPE;
        message->have += (size_t)n;
    }
    return 1;
}

int vhost_user_message_read(int fd, struct vhost_user_message *message)
{
    int r = read_until(fd, message, HEADER_LEN);

    if (r <= 0)
        return r;
    if ((message->header.flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION ||
        message->header.size > sizeof message->payload)
        return -EPROTO;
    return read_until(fd, message, HEADER_LEN + message->header.size);
}

void vhost_user_message_clear(struct vhost_user_message *message)
{
    for (unsigned i = 0; i < message->fd_count; i++)
        close_fd(message->fds[i]);
    *message = (struct vhost_user_message){0};
}

int vhost_user_message_take_fd(struct vhost_user_message *message)
{
    if (message->fd_count == 0)
        return -1;
    int fd = message->fds[0];
    message->fd_count--;
    memmove(message->fds, message->fds + 1, message->fd_count * sizeof message->fds[0]);
    return fd;
}

static void attach_fd(struct msghdr *msg, union descriptors *control, int fd)
{
    msg->msg_control = control->bytes;
    msg->msg_controllen = CMSG_SPACE(sizeof fd);

    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
}

int vhost_user_message_reply(int fd, const struct vhost_user_message *message, uint32_t size,
                             int passed_fd)
{
    struct vhost_user_header header = {.request = message->header.request,
                                       .flags = VHOST_USER_VERSION | VHOST_USER_REPLY,
                                       .size = size};
    union vhost_user_payload payload = message->payload;
    struct iovec iov[] = {{&header, sizeof header}, {&payload, size}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    union descriptors control = {0};

    if (passed_fd >= 0)
        attach_fd(&msg, &control, passed_fd);
    ssize_t n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return -errno;
    return (size_t)n == sizeof header + size ? 0 : -EAGAIN;
}
