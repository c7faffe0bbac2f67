/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BACKLOG 8

#define refuse(error, ...)                                                                         \
    ({                                                                                             \
        int refused_ = (error); /* errno, before it is overwritten */                              \
        snprintf(message, size, __VA_ARGS__);                                                      \
        -refused_;                                                                                 \
    })

/* ---- what `where` means ---- */

static int parse_descriptor(const char *text, struct unix_where *ret, char *message, size_t size)
{
    char *end;
    long fd;

    errno = 0;
    fd = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || fd > INT_MAX)
        return refuse(EINVAL, "not a descriptor's number behind fd:; write it as in fd:3");
    ret->how = UNIX_FD;
    ret->fd = (int)fd;
    return 0;
}

int unix_where_parse(const char *where, struct unix_where *ret, char *message, size_t size)
{
    *ret = (struct unix_where){.how = UNIX_LISTEN, .fd = -1, .address.sun_family = AF_UNIX};
    if (strncmp(where, "fd:", 3) == 0)
        return parse_descriptor(where + 3, ret, message, size);
    if (strncmp(where, "connect:", 8) == 0) {
        ret->how = UNIX_CONNECT;
        where += 8;
    }
    if (where[0] == '\0')
        return refuse(EINVAL, "the path is empty; write it as in /run/user/1000/net.sock");
    if (strlen(where) >= sizeof ret->address.sun_path)
        return refuse(ENAMETOOLONG,
                      "the path has %zu bytes and a socket's may have %zu; choose a shorter one",
                      strlen(where), sizeof ret->address.sun_path - 1);
    memcpy(ret->address.sun_path, where, strlen(where) + 1);
    return 0;
}

/* ---- a path of ours ---- */

int unix_socket_connect(const struct sockaddr_un *address, socklen_t len, int type)
{
    _cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)address, len) < 0)
        return -errno;
    return TAKE_FD(fd);
}

static int bind_socket(int fd, const struct sockaddr_un *address)
{
    return bind(fd, (const struct sockaddr *)address, sizeof *address) < 0 ? -errno : 0;
}

/* Is there a socket file that nobody serves? Only a refused connect says so: -EAGAIN is a full
 * backlog, -EPERM a datagram socket that is connected to another, -EPROTOTYPE one of another type:
 * all of them live. */
static bool is_stale(const struct sockaddr_un *address, int type)
{
    struct stat file;
    int r;

    if (lstat(address->sun_path, &file) < 0 || !S_ISSOCK(file.st_mode))
        return false;
    r = unix_socket_connect(address, sizeof *address, type);
    close_fd(r);
    return r == -ECONNREFUSED;
}

/* The file's identity, so that the end removes this one and no other. */
static void remember(const struct sockaddr_un *address, struct unix_name *ret)
{
    struct stat file;

    *ret = (struct unix_name){0};
    if (lstat(address->sun_path, &file) < 0)
        return;
    memcpy(ret->path, address->sun_path, sizeof ret->path);
    ret->device = file.st_dev;
    ret->inode = file.st_ino;
}

static int explain_bind(int r, const char *path, char *message, size_t size)
{
    struct stat file;

    if (r == -EADDRINUSE && lstat(path, &file) == 0 && !S_ISSOCK(file.st_mode))
        return refuse(EADDRINUSE,
                      "a file that is no socket is there; remove it or choose another path");
    if (r == -EADDRINUSE)
        return refuse(EADDRINUSE,
                      "something that lives is there already; end it or choose another path");
    if (r == -ENOENT || r == -ENOTDIR)
        return refuse(-r, "its directory does not exist; make it first");
    return refuse(-r, "no socket can be made there: %s%s", strerror(-r),
                  path[0] == '/' ? "" : "; give an absolute path");
}

int unix_socket_bind(const struct sockaddr_un *address, int type, struct unix_name *ret_name,
                     char *message, size_t size)
{
    _cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r;

    if (fd < 0)
        return refuse(errno, "no socket can be made: %s", strerror(errno));
    r = bind_socket(fd, address);
    if (r == -EADDRINUSE && is_stale(address, type) && unlink(address->sun_path) == 0)
        r = bind_socket(fd, address);
    if (r < 0)
        return explain_bind(r, address->sun_path, message, size);
    remember(address, ret_name);
    if (type == SOCK_STREAM && listen(fd, BACKLOG) < 0) {
        r = -errno;
        unix_socket_unbind(ret_name);
        return refuse(-r, "it cannot be listened on: %s", strerror(-r));
    }
    return TAKE_FD(fd);
}

void unix_socket_unbind(struct unix_name *name)
{
    struct stat file;

    if (name->path[0] != '\0' && lstat(name->path, &file) == 0 && file.st_dev == name->device &&
        file.st_ino == name->inode)
        unlink(name->path);
    *name = (struct unix_name){0};
}

/* ---- a descriptor of somebody else's ---- */

int unix_socket_inherit(int fd, int type, char *message, size_t size)
{
    int seen, flags;
    socklen_t len = sizeof seen;

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &seen, &len) < 0)
        return refuse(errno, "%s; whoever starts culvert must pass the socket",
                      errno == EBADF ? "no such descriptor is open" : "it is no socket");
    if (seen != type)
        return refuse(EPROTOTYPE, "it is a socket of another type; a %s socket is needed",
                      type == SOCK_STREAM ? "stream" : "datagram");
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return refuse(errno, "it cannot be set up: %s", strerror(errno));
    return fd;
}
