/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_FRAME_LAYOUT_H
#define NETDEV_FRAME_LAYOUT_H

/* Where the headers of a TCP or UDP frame lie. The netdevs look at headers for the offloads' sake
 * alone; what a packet means is the stack's business. */

#include <culvert/frame.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame_layout {
    bool v6;
    uint8_t protocol;  /* IPPROTO_TCP or IPPROTO_UDP */
    size_t ip;         /* offsets from the frame's first byte: of the IP header, */
    size_t transport;  /* of the transport's, */
    size_t payload;    /* of its payload, and */
    size_t packet_end; /* of the end of the packet; the link's padding follows */
};

/* False: not an unfragmented TCP or UDP packet over IP, or its headers are wrong or not linear. */
bool frame_layout_find(const struct culvert_frame *frame, struct frame_layout *ret);

#endif
