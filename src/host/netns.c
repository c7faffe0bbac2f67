/* SPDX-License-Identifier: Apache-2.0 */
/* A child does the work: entering a user namespace is not for processes with threads, and whoever
 * called stays where it is. Its result and message come back on a socket pair, a descriptor with
 * them. */
#include "host/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

struct report {
    int result;
    char message[384];
};

int netns_open(const char *where, char *message, size_t size)
{
    char path[64];
    bool is_pid = where[strspn(where, "0123456789")] == '\0' && strlen(where) < 16;
    int fd, r;

    snprintf(path, sizeof path, "/proc/%.16s/ns/net", where);
    fd = open(is_pid ? path : where, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        r = -errno;
        snprintf(message, size,
                 "the namespace %.100s cannot be opened: %s; give the number of a "
                 "process in it, or a path such as /run/netns/NAME",
                 where, strerror(-r));
        return r;
    }
    if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET) {
        close(fd);
        snprintf(message, size,
                 "%.100s is not a network namespace; give the number of a process "
                 "in it, or a path such as /run/netns/NAME",
                 where);
        return -EINVAL;
    }
    return fd;
}

/* Root enters at once; whoever made the namespace in a user namespace of theirs, through that. */
static int enter(int netns)
{
    _cleanup_close_ int user = -1;

    if (setns(netns, CLONE_NEWNET) == 0)
        return 0;
    if (errno != EPERM)
        return -errno;
    user = ioctl(netns, NS_GET_USERNS);
    if (user < 0 || setns(user, CLONE_NEWUSER) < 0 || setns(netns, CLONE_NEWNET) < 0)
        return -EPERM;
    return 0;
}

static void send_report(int peer, struct report *report)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {report, sizeof *report};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    if (report->result > 0) {
        struct cmsghdr *cmsg;

        message.msg_control = &control;
        message.msg_controllen = sizeof control.bytes;
        cmsg = CMSG_FIRSTHDR(&message);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &report->result, sizeof(int));
    }
    (void)sendmsg(peer, &message, MSG_NOSIGNAL);
}

static int receive_report(int peer, struct report *report)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {report, sizeof *report};
    struct msghdr message = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control.bytes,
    };
    struct cmsghdr *cmsg;

    if (recvmsg(peer, &message, MSG_CMSG_CLOEXEC) != sizeof *report)
        return -EIO;
    report->message[sizeof report->message - 1] = '\0';
    cmsg = CMSG_FIRSTHDR(&message);
    if (report->result > 0 && cmsg && cmsg->cmsg_type == SCM_RIGHTS)
        memcpy(&report->result, CMSG_DATA(cmsg), sizeof(int));
    else if (report->result > 0)
        return -EIO;
    return 0;
}

static void run_child(int peer, int netns, int (*body)(const void *arg, char *message, size_t size),
                      const void *arg)
{
    struct report report = {.result = enter(netns)};

    if (report.result < 0)
        snprintf(report.message, sizeof report.message,
                 "the namespace cannot be entered: %s; run as root, or as whoever made it",
                 strerror(-report.result));
    else
        report.result = body(arg, report.message, sizeof report.message);
    send_report(peer, &report);
}

int netns_call(int netns, int (*body)(const void *arg, char *message, size_t size), const void *arg,
               char *message, size_t size)
{
    struct report report = {.result = 0};
    int pair[2], r;
    pid_t child;

    if (netns < 0)
        return body(arg, message, size);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    child = fork();
    if (child == 0) {
        run_child(pair[1], netns, body, arg);
        _exit(0);
    }
    r = child < 0 ? -errno : 0;
    close(pair[1]);
    if (r == 0)
        r = receive_report(pair[0], &report);
    close(pair[0]);
    if (child > 0)
        waitpid(child, NULL, 0);
    if (r < 0)
        return r;
    snprintf(message, size, "%s", report.message);
    return report.result;
}
