/* SPDX-License-Identifier: Apache-2.0 */

/* Theory of operation
 *
 * One clone() makes the namespaces and the child in them. The child may do nothing that depends on
 * its uid until its maps are written, which only the parent can do for more than one id; so it
 * waits for a byte on the socket pair. End of file instead of the byte means that the parent died
 * in between, which PR_SET_PDEATHSIG, set a moment too late, would have missed.
 *
 * Root's child maps every id to itself, so that files keep their owners; an ordinary user may map
 * one uid and one gid, and all others look like 65534.
 *
 * Mounts need no care: a mount namespace that belongs to a new user namespace receives the host's
 * later mounts and unmounts and gives nothing back (mount_namespaces(7)). */

#include "host/namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MAP_TEXT_MAX 4096

static int write_text(const char *path, const char *text, size_t len)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return write(fd, text, len) == (ssize_t)len ? 0 : -errno;
}

/* The caller's own map with each id mapped to itself; its length, 0 if it cannot be had. */
static size_t identity_map(const char *own_map, char text[MAP_TEXT_MAX])
{
    FILE *file = fopen(own_map, "re");
    unsigned inside, outside, count;
    size_t len = 0;

    if (!file)
        return 0;
    while (len < MAP_TEXT_MAX - 40 && fscanf(file, "%u %u %u", &inside, &outside, &count) == 3)
        len +=
            (size_t)snprintf(text + len, MAP_TEXT_MAX - len, "%u %u %u\n", inside, inside, count);
    fclose(file);
    return len;
}

static int write_map(pid_t child, const char *which, unsigned id)
{
    char path[64], own[64], text[MAP_TEXT_MAX];
    size_t len;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)child, which);
    snprintf(own, sizeof own, "/proc/self/%s", which);
    if (geteuid() == 0 && (len = identity_map(own, text)) > 0 && write_text(path, text, len) == 0)
        return 0;
    if (strcmp(which, "gid_map") == 0) {
        char setgroups[64];

        snprintf(setgroups, sizeof setgroups, "/proc/%d/setgroups", (int)child);
        write_text(setgroups, "deny", 4);
    }
    len = (size_t)snprintf(text, sizeof text, "%u %u 1\n", id, id);
    return write_text(path, text, len);
}

static int map_ids(pid_t child)
{
    int r = write_map(child, "uid_map", geteuid());

    return r < 0 ? r : write_map(child, "gid_map", getegid());
}

/* Never returns when the parent is gone. */
static void await_maps(int peer)
{
    char byte;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (recv(peer, &byte, 1, 0) != 1)
        _exit(125);
}

static int explain_clone(int error, char *message, size_t size)
{
    const char *mend = "";

    if (error == EPERM || error == EACCES || error == ENOSPC || error == EUSERS || error == EINVAL)
        mend =
            "; user namespaces must be allowed here (sysctl user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)";
    snprintf(message, size, "cannot make namespaces: %s%s", strerror(error), mend);
    return -error;
}

pid_t namespaces_clone(bool uts, int *ret_peer, char *message, size_t size)
{
    unsigned long flags = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID |
                          (uts ? CLONE_NEWUTS : 0) | SIGCHLD;
    int pair[2], r;
    long child;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return explain_clone(errno, message, size);
    child = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (child < 0) {
        r = errno;
        close(pair[0]);
        close(pair[1]);
        return explain_clone(r, message, size);
    }
    close(pair[child == 0 ? 0 : 1]);
    *ret_peer = pair[child == 0 ? 1 : 0];
    if (child == 0) {
        await_maps(*ret_peer);
        return 0;
    }
    r = map_ids((pid_t)child);
    if (r == 0 && send(*ret_peer, "", 1, MSG_NOSIGNAL) != 1)
        r = -errno;
    if (r < 0) {
        *ret_peer = close_fd(*ret_peer);
        waitpid((pid_t)child, NULL, 0);
        return explain_clone(-r, message, size);
    }
    return (pid_t)child;
}

int namespaces_mount_proc(void)
{
    return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ? -errno : 0;
}

int namespaces_ignore_setuid(void)
{
    struct {
        uint64_t attr_set, attr_clr, propagation, userns_fd;
    } attributes = {.attr_set = MS_NOSUID};

#ifdef SYS_mount_setattr
    return syscall(SYS_mount_setattr, AT_FDCWD, "/", 0x8000 /* AT_RECURSIVE */, &attributes,
                   sizeof attributes) < 0
               ? -errno
               : 0;
#else
    (void)attributes;
    return -ENOSYS;
#endif
}
