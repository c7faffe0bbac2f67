/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/offload_check.h"

#include <netinet/in.h>

#include "netdev/frame_layout.h"
#include "wire/ethernet.h"
#include "wire/udp.h"

#define TCP_CHECKSUM_OFFSET 16u

/* The place of the checksum lies behind the Ethernet header and in the frame. */
static bool checksum_place_is_possible(const struct culvert_offload *offload, size_t len)
{
    return offload->csum_start >= ETHERNET_HEADER_LEN && offload->csum_start < len &&
           (size_t)offload->csum_start + offload->csum_offset + 2 <= len;
}

static bool gso_type_fits(uint8_t type, const struct frame_layout *layout)
{
    switch (type) {
    case CULVERT_GSO_TCPV4:
    case CULVERT_GSO_TCPV4 | CULVERT_GSO_ECN:
        return layout->protocol == IPPROTO_TCP && !layout->v6;
    case CULVERT_GSO_TCPV6:
    case CULVERT_GSO_TCPV6 | CULVERT_GSO_ECN:
        return layout->protocol == IPPROTO_TCP && layout->v6;
    case CULVERT_GSO_UDP:
    case CULVERT_GSO_UDP_L4:
        return layout->protocol == IPPROTO_UDP;
    default:
        return false;
    }
}

/* Segments cannot all have the super-segment's checksum: it is to be made, or was verified. */
static bool gso_checksum_is_possible(const struct culvert_offload *offload,
                                     const struct frame_layout *layout)
{
    uint16_t place = layout->protocol == IPPROTO_TCP ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET;

    if (offload->flags & CULVERT_OFFLOAD_NEEDS_CSUM)
        return offload->csum_start == layout->transport && offload->csum_offset == place;
    return offload->flags & CULVERT_OFFLOAD_DATA_VALID;
}

static bool gso_size_is_possible(const struct culvert_offload *offload,
                                 const struct frame_layout *layout)
{
    size_t payload = layout->packet_end - layout->payload;

    if (offload->gso_size == 0 || payload == 0)
        return false;
    return offload->gso_type != CULVERT_GSO_UDP_L4 ||
           payload <= (size_t)offload->gso_size * OFFLOAD_CHECK_DATAGRAMS_MAX;
}

static bool check_gso(struct culvert_frame *frame)
{
    struct culvert_offload *offload = &frame->offload;
    struct frame_layout layout;

    if (!frame_layout_find(frame, &layout) || !gso_type_fits(offload->gso_type, &layout) ||
        !gso_checksum_is_possible(offload, &layout) || !gso_size_is_possible(offload, &layout))
        return false;
    offload->hdr_len = (uint16_t)layout.payload;
    if (offload->gso_type == CULVERT_GSO_UDP) {
        offload->gso_type = CULVERT_GSO_NONE;
        offload->gso_size = 0;
    }
    return true;
}

static bool refuse(struct counters *counters, enum counter reason)
{
    count(counters, reason);
    return false;
}

bool offload_check(struct culvert_frame *frame, struct counters *counters)
{
    const struct culvert_offload *offload = &frame->offload;
    size_t len = frame->segment_count == 0 ? frame->len : culvert_frame_len(frame);

    if (len < ETHERNET_HEADER_LEN || frame->len < ETHERNET_HEADER_LEN)
        return refuse(counters, COUNTER_netdev_runt);
    if (len > CULVERT_FRAME_MAX)
        return refuse(counters, COUNTER_netdev_oversize);
    if ((offload->flags & CULVERT_OFFLOAD_NEEDS_CSUM) && !checksum_place_is_possible(offload, len))
        return refuse(counters, COUNTER_netdev_bad_offload);
    if (offload->gso_type != CULVERT_GSO_NONE && !check_gso(frame))
        return refuse(counters, COUNTER_netdev_bad_offload);
    return true;
}
