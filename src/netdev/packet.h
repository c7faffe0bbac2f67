/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_PACKET_H
#define NETDEV_PACKET_H

#include <stddef.h>

/* A packet socket that sees and sends the frames of interface `name` in the caller's network
 * namespace, with virtio headers. It only copies: the host's own stack sees them too, unless
 * somebody keeps them from it. The descriptor, nonblocking and close-on-exec, or negative errno
 * with `message`. */
int packet_open(const char *name, char *message, size_t size);

#endif
