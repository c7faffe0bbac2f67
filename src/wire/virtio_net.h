/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_VIRTIO_NET_H
#define WIRE_VIRTIO_NET_H

/* The header that a virtio-net device puts before each frame (virtio 1.2, 5.1.6), little-endian:
 * 10 bytes, or 12 with num_buffers. The values of flags and gso_type are those of struct
 * culvert_offload; they are taken over as they are and judged elsewhere. */

#include <culvert/frame.h>
#include <stdint.h>

#include "wire/bytes.h"

#define VIRTIO_NET_HEADER_LEN       12u
#define VIRTIO_NET_HEADER_LEN_SHORT 10u /* AF_PACKET's PACKET_VNET_HDR */

/* Reads the first 10 bytes. */
static inline void virtio_net_read(const uint8_t *from, struct culvert_offload *ret)
{
    ret->flags = from[0];
    ret->gso_type = from[1];
    ret->hdr_len = load_le16(from + 2);
    ret->gso_size = load_le16(from + 4);
    ret->csum_start = load_le16(from + 6);
    ret->csum_offset = load_le16(from + 8);
}

/* Writes 10 bytes. */
static inline void virtio_net_write_short(uint8_t *to, const struct culvert_offload *offload)
{
    to[0] = offload->flags;
    to[1] = offload->gso_type;
    store_le16(to + 2, offload->hdr_len);
    store_le16(to + 4, offload->gso_size);
    store_le16(to + 6, offload->csum_start);
    store_le16(to + 8, offload->csum_offset);
}

/* Writes 12 bytes; num_buffers is 1 for a guest's receive queue and ignored by a TAP. */
static inline void virtio_net_write(uint8_t *to, const struct culvert_offload *offload,
                                    uint16_t num_buffers)
{
    virtio_net_write_short(to, offload);
    store_le16(to + 10, num_buffers);
}

#endif
