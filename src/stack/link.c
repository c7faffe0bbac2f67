/* SPDX-License-Identifier: Apache-2.0 */
/* The Ethernet between the guest and the gateway: a cable with two ends.
 *
 * Frames are taken if they are for the gateway or a group; whoever sends them is the guest, and its
 * address is learnt from every frame unless the link's facts name it. ARP is answered for the
 * addresses culvert owns and for no other: an answer for the guest's own would look like a
 * duplicate, and one for the rest of the subnet would make hosts appear that are not there. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stack/network.h"
#include "wire/arp.h"
#include "wire/ethernet.h"

#define ETHERNET_QINQ 0x88a8

static const uint8_t BROADCAST[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct link_layer *link_new(struct stack *stack)
{
    struct link_layer *link = calloc(1, sizeof *link);

    if (!link)
        return NULL;
    memcpy(stack->guest_mac, BROADCAST, 6);
    neighbour_init(&link->neighbour4, stack, false);
    neighbour_init(&link->neighbour6, stack, true);
    return link;
}

struct link_layer *link_free(struct link_layer *link)
{
    if (!link)
        return NULL;
    neighbour_fini(&link->neighbour4);
    neighbour_fini(&link->neighbour6);
    free(link);
    return NULL;
}

static void write_templates(struct stack *stack)
{
    struct link_layer *link = stack->link_layer;

    ethernet_write(link->ethernet4, stack->guest_mac, stack->config.gateway_mac, ETHERNET_IPV4);
    ethernet_write(link->ethernet6, stack->guest_mac, stack->config.gateway_mac, ETHERNET_IPV6);
}

void link_changed(struct stack *stack)
{
    struct link_layer *link = stack->link_layer;

    link->guest_given =
        !ethernet_is_zero(stack->link.mac) && !ethernet_is_multicast(stack->link.mac);
    if (link->guest_given) {
        memcpy(stack->guest_mac, stack->link.mac, 6);
        link->guest_known = true;
    }
    write_templates(stack);
    neighbour_link_changed(&link->neighbour4);
    neighbour_link_changed(&link->neighbour6);
}

static void learn_guest(struct stack *stack, const uint8_t mac[6])
{
    struct link_layer *link = stack->link_layer;
    const bool found = !link->guest_known;

    if (link->guest_given || memcmp(stack->guest_mac, mac, 6) == 0)
        return;
    memcpy(stack->guest_mac, mac, 6);
    link->guest_known = true;
    write_templates(stack);
    if (found)
        tcp_guest_found(stack);
}

void link_send(struct stack *stack, struct culvert_frame *take_frame)
{
    if (stack_send_frame(stack, take_frame) == 0)
        return;
    count(stack->counters, COUNTER_link_full);
    culvert_frame_unref(take_frame);
}

static void send_arp(struct stack *stack, const uint8_t to[6], const struct arp *arp)
{
    struct culvert_frame *frame = pool_take_frame(stack->frames);

    if (!frame) {
        count(stack->counters, COUNTER_link_no_memory);
        return;
    }
    ethernet_write(frame->data, to, stack->config.gateway_mac, ETHERNET_ARP);
    arp_write(frame->data + ETHERNET_LEN, arp);
    frame->len = ETHERNET_LEN + ARP_LEN;
    link_send(stack, frame);
}

static bool arp_target_owned(const struct stack *stack, uint32_t be_target)
{
    const struct ip_address target = ip_address_v4(be_target);

    return stack->ip->has_v4 && (ip_address_equal(&target, &stack->config.gateway4) ||
                                 ip_address_equal(&target, &stack->config.dns4));
}

static void arp_input(struct stack *stack, const struct culvert_frame *frame)
{
    uint8_t scratch[ARP_LEN];
    struct arp request, reply = {.operation = ARP_REPLY};

    if (!frame_copy(frame, ETHERNET_LEN, ARP_LEN, scratch) ||
        !arp_parse(scratch, ARP_LEN, &request) || ethernet_is_multicast(request.sender_mac)) {
        count(stack->counters, COUNTER_arp_malformed);
        return;
    }
    if (request.be_sender == stack->config.guest4.be32[3])
        neighbour_heard(&stack->link_layer->neighbour4, &stack->config.guest4);
    if (request.operation != ARP_REQUEST)
        return; /* the answer to link_ask_guest4(): learnt already */
    if (request.be_sender != 0 && request.be_sender != stack->config.guest4.be32[3]) {
        count(stack->counters, COUNTER_arp_spoofed);
        return;
    }
    if (!arp_target_owned(stack, request.be_target)) {
        count(stack->counters, COUNTER_arp_not_ours);
        return;
    }
    memcpy(reply.sender_mac, stack->config.gateway_mac, 6);
    memcpy(reply.target_mac, request.sender_mac, 6);
    reply.be_sender = request.be_target;
    reply.be_target = request.be_sender;
    send_arp(stack, request.sender_mac, &reply);
}

void link_ask_guest4(struct stack *stack)
{
    struct arp request = {
        .operation = ARP_REQUEST,
        .be_sender = stack->config.gateway4.be32[3],
        .be_target = stack->config.guest4.be32[3],
    };

    memcpy(request.sender_mac, stack->config.gateway_mac, 6);
    send_arp(stack, BROADCAST, &request);
}

void link_solicit_guest(struct stack *stack, bool v6)
{
    struct link_layer *link = stack->link_layer;

    if (link->guest_known || stack->now < link->next_solicited)
        return;
    link->next_solicited = stack->now + SECOND_NS;
    if (v6)
        ndp_solicit(stack, &link->neighbour6.address);
    else
        link_ask_guest4(stack);
}

static bool accept_addresses(struct stack *stack, const struct ethernet_header *header)
{
    if (memcmp(header->destination, stack->config.gateway_mac, 6) != 0 &&
        !ethernet_is_multicast(header->destination)) {
        count(stack->counters, COUNTER_link_not_for_us);
        return false;
    }
    if (ethernet_is_multicast(header->source) || ethernet_is_zero(header->source) ||
        memcmp(header->source, stack->config.gateway_mac, 6) == 0) {
        count(stack->counters, COUNTER_link_bad_source);
        return false;
    }
    return true;
}

void link_input(struct stack *stack, struct culvert_frame *frame)
{
    struct ethernet_header header;

    if (!ethernet_parse(frame->data, frame->len, &header)) {
        count(stack->counters, COUNTER_link_runt);
        return;
    }
    if (!accept_addresses(stack, &header))
        return;
    learn_guest(stack, header.source);
    switch (header.type) {
    case ETHERNET_IPV4:
        ip4_input(stack, frame);
        break;
    case ETHERNET_IPV6:
        ip6_input(stack, frame);
        break;
    case ETHERNET_ARP:
        arp_input(stack, frame);
        break;
    case ETHERNET_VLAN:
    case ETHERNET_QINQ:
        count(stack->counters, COUNTER_link_vlan);
        break;
    default:
        count(stack->counters, COUNTER_link_unknown_protocol);
        break;
    }
}
