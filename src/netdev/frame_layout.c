/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/frame_layout.h"

#include <netinet/in.h>

#include "wire/bytes.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/udp.h"

#define TCP_HEADER_LEN_MIN 20u

static bool find_transport4(const uint8_t *ip, size_t linear, size_t available,
                            struct frame_layout *layout)
{
    struct ipv4_header h;

    if (ipv4_parse(ip, linear, available, &h) != IP_OK || ipv4_is_fragment(&h))
        return false;
    layout->protocol = h.protocol;
    layout->transport = layout->ip + h.header_len;
    layout->packet_end = layout->ip + h.total_len;
    return true;
}

static bool find_transport6(const uint8_t *ip, size_t linear, size_t available,
                            struct frame_layout *layout)
{
    struct ipv6_header h;
    struct ipv6_chain chain;
    size_t packet;

    if (ipv6_parse(ip, linear, available, &h) != IP_OK)
        return false;
    packet = IPV6_HEADER_LEN + (size_t)h.payload_len;
    if (linear > packet)
        linear = packet;
    if (ipv6_walk(ip, linear, IPV6_HEADER_LEN, h.next_header, 6, &chain) != IP_OK)
        return false;
    layout->v6 = true;
    layout->protocol = chain.protocol;
    layout->transport = layout->ip + chain.offset;
    layout->packet_end = layout->ip + packet;
    return true;
}

static bool find_payload(const struct culvert_frame *frame, struct frame_layout *layout)
{
    size_t header_len = UDP_HEADER_LEN;
    size_t end = layout->packet_end < frame->len ? layout->packet_end : frame->len;

    if (layout->protocol == IPPROTO_TCP) {
        if (layout->transport + TCP_HEADER_LEN_MIN > end)
            return false;
        header_len = (size_t)(frame->data[layout->transport + 12] >> 4) * 4;
        if (header_len < TCP_HEADER_LEN_MIN)
            return false;
    } else if (layout->protocol != IPPROTO_UDP) {
        return false;
    }
    layout->payload = layout->transport + header_len;
    return layout->payload <= end;
}

bool frame_layout_find(const struct culvert_frame *frame, struct frame_layout *ret)
{
    struct frame_layout layout = {.ip = ETHERNET_HEADER_LEN};
    size_t linear, available;
    const uint8_t *ip;
    bool found;

    if (frame->len < ETHERNET_HEADER_LEN)
        return false;
    ip = frame->data + ETHERNET_HEADER_LEN;
    linear = frame->len - ETHERNET_HEADER_LEN;
    available = culvert_frame_len(frame) - ETHERNET_HEADER_LEN;
    switch (load_be16(frame->data + 12)) {
    case ETHERNET_IPV4:
        found = find_transport4(ip, linear, available, &layout);
        break;
    case ETHERNET_IPV6:
        found = find_transport6(ip, linear, available, &layout);
        break;
    default:
        return false;
    }
    if (!found || !find_payload(frame, &layout))
        return false;
    *ret = layout;
    return true;
}
