/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_TAP_H
#define NETDEV_TAP_H

/* TAP devices: how they are opened, set up, read and written. Needs nothing but a descriptor;
 * netdev_tap_new() and struct net_worker stand on it. */

#include <culvert/frame.h>
#include <net/if.h>
#include <stdint.h>

#include "base/pool.h"

/* Opens the TAP device `name` (NULL or "": a new one, named by the kernel) in the caller's network
 * namespace, making it if it does not exist, and configures it. `flags`: further IFF_ flags of
 * TUNSETIFF, such as IFF_TUN_EXCL; 0 usually. `ret_name` may be NULL. The descriptor, nonblocking
 * and close-on-exec, or negative errno. */
int tap_open(const char *name, unsigned flags, char ret_name[IF_NAMESIZE]);

/* Makes a TAP descriptor speak 12-byte little-endian virtio headers, nonblocking, with every
 * offload the kernel has; *ret_offloads (enum culvert_link_offload) are those it takes from us. 0,
 * -EINVAL (not a TAP with IFF_NO_PI | IFF_VNET_HDR) or another negative errno. */
int tap_configure(int fd, uint32_t *ret_offloads);

/* The frames a TAP gives, read with one readv() each: the first bytes go to a small frame, the rest
 * of a large one to a buffer that becomes its segment. A buffer that was not touched serves the
 * next read, so that small frames occupy little memory and large ones are not copied. One thread.
 */
struct tap_reader {
    int fd;
    struct pool *frames, *buffers;
    struct culvert_frame *frame;     /* for the next read */
    struct culvert_buffer *overflow; /* for the next read */
};

int tap_reader_init(struct tap_reader *reader, int fd); /* 0 or -ENOMEM */
void tap_reader_fini(struct tap_reader *reader);
/* 1: *ret_frame, facts unchecked. 0: nothing is there now. -ENOMEM: a frame was dropped for lack of
 * memory. -EMSGSIZE, -EBADMSG: one was dropped because it was too large or had no whole header. Any
 * other negative errno: the device is gone. */
int tap_reader_next(struct tap_reader *reader, struct culvert_frame **ret_frame);

/* Writes a frame with its facts; the reference stays the caller's. 0, -EAGAIN (full), or another
 * negative errno: the device refused this frame (-EIO while it is down). */
int tap_write(int fd, const struct culvert_frame *frame);

#endif
