/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_UNIX_SOCKET_H
#define NETDEV_UNIX_SOCKET_H

/* The sockets by which VMMs meet their network: what "PATH", "connect:PATH" and "fd:N" mean, and
 * how a path is taken and given back. Functions return a descriptor or 0, or negative errno with
 * `message` (size bytes) saying what was wrong and the mend. Descriptors are nonblocking and
 * close-on-exec. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

enum unix_how {
    UNIX_LISTEN,  /* the peer comes to PATH */
    UNIX_CONNECT, /* we go to PATH */
    UNIX_FD,      /* inherited, from systemd say */
};

struct unix_where {
    enum unix_how how;
    struct sockaddr_un address; /* UNIX_LISTEN, UNIX_CONNECT */
    int fd;                     /* UNIX_FD */
};

/* A path that we bound, to be removed in the end. All zero: none. */
struct unix_name {
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    dev_t device;
    ino_t inode;
};

int unix_where_parse(const char *where, struct unix_where *ret, char *message, size_t size);

/* A socket of `type` bound to a path. A socket file that nobody serves any more is replaced; one
 * that is served, or another kind of file, is not. A SOCK_STREAM socket listens. */
int unix_socket_bind(const struct sockaddr_un *address, int type, struct unix_name *ret_name,
                     char *message, size_t size);
/* Removes the path, unless somebody else has bound it meanwhile. */
void unix_socket_unbind(struct unix_name *name);

/* Makes an inherited descriptor ours: it must be a socket of `type`. */
int unix_socket_inherit(int fd, int type, char *message, size_t size);

/* A socket of `type` connected to the address, or negative errno; -EAGAIN: the backlog is full. */
int unix_socket_connect(const struct sockaddr_un *address, socklen_t len, int type);

#endif
