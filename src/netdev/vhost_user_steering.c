/* SPDX-License-Identifier: Apache-2.0 */
/* With several pairs of queues, frames of a flow go to the receive queue beside the transmit queue
 * that the guest used for it last (virtio 1.2, 5.1.6.5.5.1). Flows are told apart by a sum that is
 * the same in both directions; a collision costs the guest no more than another processor's cache.
 */
#include <netinet/in.h>

#include "netdev/vhost_user_internal.h"
#include "wire/bytes.h"
#include "wire/ethernet.h"
#include "wire/ip.h"

static uint32_t ports_at(const struct culvert_frame *frame, size_t offset, uint8_t protocol)
{
    if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || frame->len < offset + 4)
        return 0;
    return (uint32_t)load_be16(frame->data + offset) ^ load_be16(frame->data + offset + 2);
}

static unsigned bucket_of(const struct culvert_frame *frame)
{
    const uint8_t *ip = frame->data + ETHERNET_HEADER_LEN;
    uint32_t sum = 0;

    if (frame->len < ETHERNET_HEADER_LEN + IPV6_HEADER_LEN)
        return 0;
    if (load_be16(frame->data + 12) == ETHERNET_IPV6) {
        for (unsigned i = 8; i < IPV6_HEADER_LEN; i += 4)
            sum ^= load_be32(ip + i);
        sum ^= ports_at(frame, ETHERNET_HEADER_LEN + IPV6_HEADER_LEN, ip[6]);
    } else if (load_be16(frame->data + 12) == ETHERNET_IPV4) {
        sum = load_be32(ip + 12) ^ load_be32(ip + 16);
        sum ^= ports_at(frame, ETHERNET_HEADER_LEN + (size_t)(ip[0] & 15) * 4, ip[9]);
    }
    return (sum * 0x9e3779b1u >> 24) % VHOST_STEERING;
}

void vhost_steering_learn(struct vhost_user *device, const struct culvert_frame *frame,
                          unsigned pair)
{
    device->steering[bucket_of(frame)] = (uint8_t)pair;
}

unsigned vhost_steering_find(const struct vhost_user *device, const struct culvert_frame *frame)
{
    return device->steering[bucket_of(frame)];
}
