/* SPDX-License-Identifier: Apache-2.0 */
/* ICMPv6 from the guest: echo as in icmp.c, neighbour discovery as in ndp.c. Multicast listener
 * reports are welcome and mean nothing: there is no group to join here. */

#include <netinet/in.h>

#include "stack/network.h"
#include "wire/icmp.h"
#include "wire/ndp.h"

/* What no router has forwarded, and nobody has fragmented (RFC 4861 6.1.1, RFC 6980). */
static bool is_from_neighbour(struct stack *stack, const struct ip_packet *packet)
{
    if (packet->ttl == NDP_HOP_LIMIT && !packet->reassembled)
        return true;
    count(stack->counters, COUNTER_ndp_malformed);
    return false;
}

static void dispatch(struct stack *stack, const struct ip_packet *packet,
                     const struct icmp_header *header)
{
    switch (header->type) {
    case ICMP6_ECHO_REQUEST:
        if (ip_address_is_multicast(&packet->destination))
            count(stack->counters, COUNTER_ip_multicast);
        else
            icmp_echo_request(stack, packet, header->rest);
        break;
    case ICMP6_ROUTER_SOLICITATION:
        if (is_from_neighbour(stack, packet))
            ndp_router_solicitation(stack, packet);
        break;
    case ICMP6_NEIGHBOUR_SOLICITATION:
        if (is_from_neighbour(stack, packet))
            ndp_neighbour_solicitation(stack, packet);
        break;
    case ICMP6_NEIGHBOUR_ADVERTISEMENT: /* the link has learnt what it says */
    case ICMP6_MLD_REPORT:
    case ICMP6_MLD_DONE:
    case ICMP6_MLD2_REPORT:
        break;
    default:
        count(stack->counters, icmp6_is_error(header->type) ? COUNTER_icmp_errors_from_guest
                                                            : COUNTER_icmp_unsupported);
        break;
    }
}

void icmpv6_input(struct stack *stack, const struct ip_packet *packet)
{
    uint8_t scratch[IP_SCRATCH_LEN];
    const uint8_t *bytes = ip_packet_linear(packet, packet->offset, ICMP_HEADER_LEN, scratch);
    struct icmp_header header;

    if (!bytes || !icmp_parse(bytes, packet->len, &header)) {
        count(stack->counters, COUNTER_icmp_malformed);
        return;
    }
    if (!ip_packet_checksum_ok(packet)) {
        count(stack->counters, COUNTER_icmp_bad_checksum);
        return;
    }
    dispatch(stack, packet, &header);
}
