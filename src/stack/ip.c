/* SPDX-License-Identifier: Apache-2.0 */
/* Packets from the guest: everything that is decided before a transport protocol sees them.
 *
 * The guest is hostile, so the order is: headers are read with every check of wire/ip.c; the source
 * must be one the guest may use, the destination one that can be meant (DESIGN §5); fragments wait
 * in reassembly.c and come back whole; what would go beyond the gateway has its hop counted; and
 * only then a transport gets the packet. Whatever fails is counted by its reason and gone.
 */

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "stack/network.h"

#define PAYLOADS_MAX 64u

static void count_fault(struct stack *stack, enum ip_fault fault)
{
    static const enum counter reasons[] = {
        [IP_OK] = COUNTER_ip_malformed,
        [IP_FAULT_TRUNCATED] = COUNTER_ip_malformed,
        [IP_FAULT_VERSION] = COUNTER_ip_malformed,
        [IP_FAULT_HEADER_LENGTH] = COUNTER_ip_malformed,
        [IP_FAULT_LENGTH] = COUNTER_ip_malformed,
        [IP_FAULT_CHECKSUM] = COUNTER_ip_bad_checksum,
        [IP_FAULT_OPTION] = COUNTER_ip_bad_option,
        [IP_FAULT_UNKNOWN_OPTION] = COUNTER_ip_bad_option,
        [IP_FAULT_DISCARD_OPTION] = COUNTER_ip_bad_option,
        [IP_FAULT_ADDRESS] = COUNTER_ip_spoofed_source,
        [IP_FAULT_FRAGMENT] = COUNTER_reassembly_bad_fragment,
        [IP_FAULT_SOURCE_ROUTE] = COUNTER_ip_source_route,
        [IP_FAULT_TOO_MANY] = COUNTER_ip_too_many_headers,
    };

    count(stack->counters, reasons[fault]);
}

/* ---- addresses ---- */

bool ip_address_owned(const struct stack *stack, const struct ip_address *address)
{
    const struct stack_config *c = &stack->config;

    if (ip_address_is_v4(address))
        return ip_address_equal(address, &c->gateway4) || ip_address_equal(address, &c->dns4);
    return ip_address_equal(address, &c->gateway6) || ip_address_equal(address, &c->dns6) ||
           ip_address_equal(address, &c->link_local6);
}

bool ip_address_is_multicast(const struct ip_address *address)
{
    if (ip_address_is_v4(address))
        return (address->bytes[12] & 0xf0) == 0xe0;
    return address->bytes[0] == 0xff;
}

bool ip_address_is_broadcast(const struct stack *stack, const struct ip_address *address)
{
    return ip_address_is_v4(address) && (address->be32[3] == htonl(INADDR_BROADCAST) ||
                                         address->be32[3] == stack->ip->be_broadcast4);
}

static bool is_link_local6(const struct ip_address *address)
{
    return address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

static bool is_unspecified6(const struct ip_address *address)
{
    return address->be64[0] == 0 && address->be64[1] == 0;
}

/* 0.0.0.0 is a source only of a client that asks for its address. */
static bool source_ok4(const struct stack *stack, const struct ip_packet *packet)
{
    if (__builtin_expect(packet->source.be32[3] == stack->config.guest4.be32[3], true))
        return true;
    return packet->source.be32[3] == 0 && packet->protocol == IPPROTO_UDP &&
           ip_address_is_broadcast(stack, &packet->destination);
}

static bool source_ok6(const struct stack *stack, const struct ip_packet *packet)
{
    const struct ip_address *source = &packet->source;

    if (__builtin_expect(ip_address_equal(source, &stack->config.guest6), true))
        return true;
    if (ip_address_owned(stack, source))
        return false;
    if (is_unspecified6(source)) /* duplicate address detection, solicitations, MLD */
        return packet->protocol == IPPROTO_ICMPV6 && ip_address_is_multicast(&packet->destination);
    return is_link_local6(source) || ip_prefix_contains(&stack->ip->prefix6, source);
}

enum destination {
    DESTINATION_REMOTE, /* beyond the gateway */
    DESTINATION_OWNED,
    DESTINATION_GROUP, /* broadcast or multicast */
    DESTINATION_NONE,  /* nobody can be meant */
};

static enum destination classify4(const struct stack *stack, const struct ip_address *address)
{
    uint8_t first = address->bytes[12];

    if (ip_address_owned(stack, address))
        return DESTINATION_OWNED;
    if (ip_address_is_multicast(address) || ip_address_is_broadcast(stack, address))
        return DESTINATION_GROUP;
    if (first == 0 || first == 127 || ip_address_equal(address, &stack->config.guest4))
        return DESTINATION_NONE;
    return DESTINATION_REMOTE;
}

/* ::1, :: and all of ::/96 but nothing else of low order: v4-mapped ones end in wire/ip.c. A packet
 * of link-local scope on either side goes no further than this link (RFC 4291 2.5.6). */
static enum destination classify6(const struct stack *stack, const struct ip_packet *packet)
{
    const struct ip_address *address = &packet->destination;

    if (ip_address_owned(stack, address))
        return DESTINATION_OWNED;
    if (address->bytes[0] == 0xff)
        return DESTINATION_GROUP;
    if ((address->be64[0] == 0 && address->be32[2] == 0) || is_link_local6(address) ||
        is_link_local6(&packet->source) || ip_address_equal(address, &stack->config.guest6))
        return DESTINATION_NONE;
    return DESTINATION_REMOTE;
}

static enum destination classify(const struct stack *stack, const struct ip_packet *packet)
{
    return packet->v6 ? classify6(stack, packet) : classify4(stack, &packet->destination);
}

/* ---- delivery ---- */

static void deliver_group(struct stack *stack, const struct ip_packet *packet)
{
    if (packet->protocol == IPPROTO_UDP)
        udp_input(stack, packet); /* takes DHCP alone */
    else if (packet->v6 && packet->protocol == IPPROTO_ICMPV6)
        icmpv6_input(stack, packet);
    else if (ip_address_is_multicast(&packet->destination))
        count(stack->counters, COUNTER_ip_multicast);
    else
        count(stack->counters, COUNTER_ip_broadcast);
}

static void deliver_unicast(struct stack *stack, const struct ip_packet *packet)
{
    if (packet->protocol == IPPROTO_TCP)
        tcp_input(stack, packet);
    else if (packet->protocol == IPPROTO_UDP)
        udp_input(stack, packet);
    else if (!packet->v6 && packet->protocol == IPPROTO_ICMP)
        icmp_input(stack, packet);
    else if (packet->v6 && packet->protocol == IPPROTO_ICMPV6)
        icmpv6_input(stack, packet);
    else
        count(stack->counters, COUNTER_ip_unsupported_protocol);
}

/* The gateway is a hop: what goes beyond it has its TTL lowered, and ends here when that was the
 * last (RFC 1812 5.3.1). */
static void deliver(struct stack *stack, struct ip_packet *packet)
{
    switch (classify(stack, packet)) {
    case DESTINATION_REMOTE:
        if (packet->ttl <= 1) {
            count(stack->counters, COUNTER_ip_ttl_expired);
            icmp_refuse_packet(stack, packet, ICMP_PROBLEM_TIME_EXCEEDED, 0);
            return;
        }
        packet->ttl--;
        deliver_unicast(stack, packet);
        break;
    case DESTINATION_OWNED:
        deliver_unicast(stack, packet);
        break;
    case DESTINATION_GROUP:
        deliver_group(stack, packet);
        break;
    case DESTINATION_NONE:
        count(stack->counters, COUNTER_ip_bad_destination);
        break;
    }
}

static bool checksum_known(const struct stack *stack, const struct culvert_frame *frame)
{
    return !stack->ip->verify ||
           (frame->offload.flags & (CULVERT_OFFLOAD_NEEDS_CSUM | CULVERT_OFFLOAD_DATA_VALID));
}

/* ---- IPv4 ---- */

/* A fragment of a super-segment is a contradiction: the device would have cut it. */
static bool fragment_plausible(struct stack *stack, const struct ip_packet *packet)
{
    if (packet->len != 0 && packet->frame->offload.gso_type == CULVERT_GSO_NONE)
        return true;
    count(stack->counters, COUNTER_reassembly_bad_fragment);
    return false;
}

/* `place` says where in its datagram the packet's payload stands. True: the datagram is whole, and
 * *ret_whole holds a reference on its frame. */
static bool reassemble(struct stack *stack, const struct ip_packet *packet,
                       const struct fragment *place, struct ip_packet *ret_whole)
{
    struct fragment fragment = *place;

    fragment.source = packet->source;
    fragment.destination = packet->destination;
    fragment.checksum_known = packet->checksum_known;
    fragment.protocol = packet->protocol;
    fragment.tos = packet->tos;
    fragment.ttl = packet->ttl;
    fragment.len = packet->len;
    fragment.frame = packet->frame;
    fragment.frame_offset = packet->offset;
    return fragment_plausible(stack, packet) &&
           reassembly_input(stack->ip->reassembly, &fragment, ret_whole);
}

static void reassemble4(struct stack *stack, const struct ip_packet *packet,
                        const struct ipv4_header *header)
{
    const struct fragment place = {
        .id = header->id, .more = header->more_fragments, .offset = header->fragment_offset};
    struct ip_packet whole;

    if (!reassemble(stack, packet, &place, &whole))
        return;
    deliver(stack, &whole);
    culvert_frame_unref(whole.frame);
}

void ip4_input(struct stack *stack, struct culvert_frame *frame)
{
    struct ipv4_header header;
    struct ip_packet packet;
    enum ip_fault fault;

    if (!stack->ip->has_v4) {
        count(stack->counters, COUNTER_ip_family_off);
        return;
    }
    fault = ip4_read(frame, &header, &packet);
    if (__builtin_expect(fault != IP_OK, false)) {
        count_fault(stack, fault);
        return;
    }
    packet.checksum_known = checksum_known(stack, frame);
    if (__builtin_expect(!source_ok4(stack, &packet), false)) {
        count(stack->counters, COUNTER_ip_spoofed_source);
        return;
    }
    neighbour_heard(&stack->link_layer->neighbour4, &packet.source);
    if (__builtin_expect(ipv4_is_fragment(&header), false))
        reassemble4(stack, &packet, &header);
    else
        deliver(stack, &packet);
}

/* ---- IPv6 ---- */

/* The datagram comes back under a bare IPv6 header; the headers that were inside the fragmented
 * part are read now. */
static void deliver_reassembled6(struct stack *stack, struct ip_packet *whole)
{
    struct ip6_packet inner;
    enum ip_fault fault = ip6_read(whole->frame, &inner);

    if (fault == IP_OK && inner.packet.reassembled)
        fault = IP_FAULT_FRAGMENT; /* a fragment within a fragment */
    if (fault != IP_OK) {
        count_fault(stack, fault);
        return;
    }
    inner.packet.checksum_known = whole->checksum_known;
    inner.packet.reassembled = true;
    inner.packet.dont_fragment = false;
    deliver(stack, &inner.packet);
}

static void reassemble6(struct stack *stack, const struct ip6_packet *in)
{
    const struct ip_packet *packet = &in->packet;
    const struct fragment place = {.v6 = true,
                                   .id = in->fragment.id,
                                   .more = in->fragment.more,
                                   .offset = in->fragment.offset};
    struct ip_packet whole;

    if (!reassemble(stack, packet, &place, &whole))
        return;
    deliver_reassembled6(stack, &whole);
    culvert_frame_unref(whole.frame);
}

void ip6_input(struct stack *stack, struct culvert_frame *frame)
{
    struct ip6_packet in;
    enum ip_fault fault;

    if (!stack->config.ipv6) {
        count(stack->counters, COUNTER_ip_family_off);
        return;
    }
    fault = ip6_read(frame, &in);
    if (__builtin_expect(fault != IP_OK, false)) {
        count_fault(stack, fault);
        return;
    }
    in.packet.checksum_known = checksum_known(stack, frame);
    if (__builtin_expect(!source_ok6(stack, &in.packet), false)) {
        count(stack->counters, COUNTER_ip_spoofed_source);
        return;
    }
    neighbour_heard(&stack->link_layer->neighbour6, &in.packet.source);
    if (__builtin_expect(in.fragmented, false))
        reassemble6(stack, &in);
    else
        deliver(stack, &in.packet);
}

/* ---- life ---- */

static void read_config(struct stack *stack, struct ip *ip)
{
    const struct stack_config *config = &stack->config;
    uint32_t mask = config->prefix4 ? htonl(UINT32_MAX << (32 - config->prefix4)) : 0;

    ip->has_v4 = ip_address_is_v4(&config->guest4) && config->guest4.be32[3] != 0;
    /* A /31 or /32 has no broadcast address (RFC 3021). */
    ip->be_broadcast4 =
        config->prefix4 < 31 ? config->guest4.be32[3] | ~mask : htonl(INADDR_BROADCAST);
    ip->prefix6 = (struct ip_prefix){.address = config->guest6, .length = config->prefix6};
    ip->verify = config->verify_checksums;
}

struct ip *ip_new(struct stack *stack)
{
    const struct pool_config payloads = {
        .buffer_capacity = 65536,
        .max = PAYLOADS_MAX,
        .keep = 2,
    };
    struct ip *ip = calloc(1, sizeof *ip);

    if (!ip)
        return NULL;
    read_config(stack, ip);
    ip->next_id = (uint32_t)stack->config.hash_key[0];
    icmp_errors_init(&ip->errors, stack->now);
    ndp_init(&ip->ndp, stack);
    ip->payloads = pool_new(&payloads);
    ip->reassembly = reassembly_new(stack);
    if (!ip->payloads || !ip->reassembly)
        return ip_free(ip);
    return ip;
}

struct ip *ip_free(struct ip *ip)
{
    if (!ip)
        return NULL;
    ndp_fini(&ip->ndp);
    reassembly_free(ip->reassembly);
    if (ip->payloads)
        pool_free(ip->payloads);
    free(ip);
    return NULL;
}

void ip_link_changed(struct stack *stack)
{
    stack->ip->verify =
        stack->config.verify_checksums && !(stack->link.offloads & CULVERT_LINK_CSUM_UNKNOWN);
    ndp_link_changed(&stack->ip->ndp);
}
