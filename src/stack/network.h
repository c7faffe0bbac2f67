/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STACK_NETWORK_H
#define STACK_NETWORK_H

/* What the files below the transports share: link, ip, reassembly, icmp, ndp, dhcp. */

#include "stack/internal.h"
#include "wire/ip.h"

/* ---- packet.c: a frame's bytes, wherever they lie; a packet's headers ---- */

/* The contiguous bytes at `offset`; 0: the frame ends there. */
size_t frame_chunk(const struct culvert_frame *frame, size_t offset, const uint8_t **ret_bytes);
/* Copies [offset, offset + len); false: the frame is shorter (some bytes may have been copied). */
bool frame_copy(const struct culvert_frame *frame, size_t offset, size_t len, uint8_t *to);

/* Reads the headers of an IPv4 packet; whether its addresses are acceptable, and its transport
 * checksum known, is for ip.c to say. */
enum ip_fault ip4_read(struct culvert_frame *frame, struct ipv4_header *ret_header,
                       struct ip_packet *ret);

/* What lies behind the fixed header, up to the transport or a fragment that is really one. */
struct ip6_packet {
    struct ip_packet packet;
    struct ipv6_fragment fragment;
    bool fragmented;
};

/* The same for IPv6. */
enum ip_fault ip6_read(struct culvert_frame *frame, struct ip6_packet *ret);
/* Reads the headers of a packet that was accepted earlier, to quote it. */
bool ip_packet_of_frame(struct culvert_frame *frame, struct ip_packet *ret);

/* ---- link.c ---- */

/* neighbour.c: the guest as one address of a family, whom published ports lead to. */
struct neighbour {
    struct stack *stack;
    struct timer timer; /* armed: something is expected from it */
    struct ip_address address;
    uint64_t asked_at;
    uint8_t asks;
    bool v6;
    bool known;     /* the guest uses the address, or claims it */
    bool away;      /* asked, and no answer */
    bool attentive; /* neighbour_heard() makes a difference */
};

struct link_layer {
    struct neighbour neighbour4, neighbour6;
    uint8_t ethernet4[ETHERNET_LEN], ethernet6[ETHERNET_LEN]; /* headers towards the guest */
    bool guest_known;        /* guest_mac is the guest's, not broadcast */
    bool guest_given;        /* by the link's facts: not learnt, never changed by a frame */
    uint64_t next_solicited; /* when an unknown guest may be looked for again */
};

struct link_layer *link_new(struct stack *stack);
struct link_layer *link_free(struct link_layer *link);
/* The device's facts have changed. */
void link_changed(struct stack *stack);
void link_input(struct stack *stack, struct culvert_frame *frame);
/* Asks who has the guest's IPv4 address. */
void link_ask_guest4(struct stack *stack);
/* Asks who the guest is, at most once a second. */
void link_solicit_guest(struct stack *stack, bool v6);
/* Sends a small frame that nobody waits for, or drops and counts it. Takes `frame`. */
void link_send(struct stack *stack, struct culvert_frame *take_frame);

/* ---- neighbour.c ---- */

void neighbour_init(struct neighbour *neighbour, struct stack *stack, bool v6);
void neighbour_fini(struct neighbour *neighbour);
void neighbour_link_changed(struct neighbour *neighbour);
/* The guest says that the address is its own. */
void neighbour_claimed(struct neighbour *neighbour, const struct ip_address *address);
void neighbour_heard_attentively(struct neighbour *neighbour, const struct ip_address *source);
/* A packet came from `source`. */
static inline void neighbour_heard(struct neighbour *neighbour, const struct ip_address *source)
{
    if (__builtin_expect(neighbour->attentive || !ip_address_equal(source, &neighbour->address),
                         false))
        neighbour_heard_attentively(neighbour, source);
}

/* ---- ip.c, output.c, fragment.c, reassembly.c ---- */

struct ndp {
    struct stack *stack;
    struct timer refresh; /* the next unsolicited advertisement; armed once the guest has asked */
};

/* A token bucket over generated ICMP errors (RFC 1812 4.3.2.8, RFC 4443 2.4 f). */
struct error_bucket {
    uint32_t tokens;
    uint64_t filled; /* when the last whole token was added */
};

struct ip {
    struct reassembly *reassembly;
    struct pool *payloads; /* buffers of 64 KiB for what the stack itself has to say */
    struct ip_prefix prefix6;
    uint32_t be_broadcast4; /* of the guest's subnet */
    uint32_t next_id;       /* of fragments */
    bool has_v4, verify;
    struct error_bucket errors;
    struct ndp ndp;
};

struct ip *ip_new(struct stack *stack);
struct ip *ip_free(struct ip *ip);
void ip_link_changed(struct stack *stack);
void ip4_input(struct stack *stack, struct culvert_frame *frame);
void ip6_input(struct stack *stack, struct culvert_frame *frame);
/* Is it an address culvert answers for: gateway, resolver, fe80::2? */
bool ip_address_owned(const struct stack *stack, const struct ip_address *address);
bool ip_address_is_multicast(const struct ip_address *address);
/* Limited broadcast, or that of the guest's subnet. */
bool ip_address_is_broadcast(const struct stack *stack, const struct ip_address *address);

static inline size_t ip_header_len(bool v6)
{
    return v6 ? 40 : 20;
}

/* A transport's header and its payload by reference. */
struct ip_payload {
    const uint8_t *header;
    size_t header_len; /* at most 20 */
    const struct culvert_segment *segments;
    unsigned segment_count;
    size_t len; /* of the segments together */
};

/* Sends the packet, in fragments if it exceeds the MTU; checksums are complete. 0, -EAGAIN (the
 * rest is dropped), -ENOMEM, -ENOSPC (more segments in a frame than it can hold), -EMSGSIZE. */
int ip_output(struct stack *stack, const struct ip_header *header,
              const struct ip_payload *payload);
/* Appends bytes to a frame of ip_frame_new()'s: in place if they fit, else in a buffer. */
bool ip_frame_append_copy(struct stack *stack, struct culvert_frame *frame, const uint8_t *bytes,
                          size_t len);
/* Room of `len` bytes (at most 65,536) to build a payload in; the caller holds one reference. */
struct culvert_buffer *ip_payload_buffer(struct stack *stack);

/* One fragment of an accepted packet. */
struct fragment {
    struct ip_address source, destination;
    uint32_t id;
    bool v6, more, checksum_known;
    uint8_t protocol; /* IPv4: part of the identity. IPv6: what the fragment header names */
    uint8_t tos, ttl;
    size_t offset, len; /* in the datagram; bytes */
    struct culvert_frame *frame;
    size_t frame_offset; /* where its bytes begin */
};

struct reassembly *reassembly_new(struct stack *stack);
struct reassembly *reassembly_free(struct reassembly *reassembly);
/* Takes the fragment's bytes. If it was the last one missing: true, and the whole packet with one
 * reference on its frame for the caller. */
bool reassembly_input(struct reassembly *reassembly, const struct fragment *fragment,
                      struct ip_packet *ret_packet);

/* ---- icmp.c, icmp_error.c, icmpv6.c, ndp.c ---- */

/* An echo request to one of our own addresses, or for upstream. Behind all checks. */
void icmp_echo_request(struct stack *stack, const struct ip_packet *packet, uint32_t rest);
/* Stores the checksum of an ICMP message whose header ends the linear bytes of `frame`, and sends
 * it. Takes `frame`. */
void icmp_finish(struct stack *stack, const struct ip_header *header, size_t message_offset,
                 struct culvert_frame *take_frame);

void icmp_errors_init(struct error_bucket *bucket, uint64_t now);
void ndp_init(struct ndp *ndp, struct stack *stack);
void ndp_fini(struct ndp *ndp);
void ndp_link_changed(struct ndp *ndp);
void ndp_router_solicitation(struct stack *stack, const struct ip_packet *packet);
void ndp_neighbour_solicitation(struct stack *stack, const struct ip_packet *packet);
void ndp_solicit(struct stack *stack, const struct ip_address *target);

/* ---- udp.c, dhcp.c, dhcpv6.c ---- */

/* A datagram of the stack's own, payload copied. */
void udp_send_copy(struct stack *stack, const struct flow_key *key, const uint8_t *payload,
                   size_t len, const uint8_t destination_mac[6]);
void dhcp_input(struct stack *stack, const struct ip_packet *packet, size_t offset, size_t len);
void dhcpv6_input(struct stack *stack, const struct ip_packet *packet, size_t offset, size_t len);

#endif
