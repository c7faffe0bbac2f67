/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STACK_INTERNAL_H
#define STACK_INTERNAL_H

/* What the stack's files share: the stack itself, the packet handed up to a transport protocol, and
 * the way down to the link. */

#include "base/pool.h"
#include "stack/stack.h"

struct tcp; /* tcp.c */
struct ip;  /* ip.c: reassembly */
struct link_layer;

struct stack {
    struct stack_config config;
    struct stack_ops ops;
    void *ctx;
    struct timers *timers;
    struct counters *counters;
    uint64_t now;             /* ns */
    struct culvert_link link; /* what the guest's device accepts now */
    uint8_t guest_mac[6];     /* given, or learnt from the guest's frames */
    struct pool *frames;      /* header frames towards the guest: FRAME_HEADROOM linear bytes */
    struct link_layer *link_layer;
    struct ip *ip;
    struct tcp *tcp;
};

#define FRAME_HEADROOM 160 /* Ethernet, IPv6, TCP with all its options, and some: 14 + 40 + 60 */
#define FRAME_SEGMENTS 68  /* of the pool `frames`: 64 datagrams of a USO frame, and some */
#define ETHERNET_LEN   14

/* A packet from the guest, checked: lengths are true, headers lie in the frame's linear bytes,
 * source and destination addresses are acceptable. Fragments have been reassembled. */
struct ip_packet {
    struct culvert_frame *frame; /* borrowed */
    size_t ip_offset;            /* of the IP header, from the frame's first byte */
    size_t offset, len;          /* transport header and payload; link padding excluded */
    struct ip_address source, destination;
    uint8_t protocol, ttl, tos;
    bool v6, dont_fragment;
    bool checksum_known; /* offloaded or verified by the device: the transport must not verify */
    bool reassembled;    /* came in fragments, or an IPv6 fragment header at least */
};

#define IP_SCRATCH_LEN 128

/* Makes `len` bytes from `offset` (from the frame's first byte, as all offsets here) linear, as
 * transports want for their headers. NULL: the packet is too short. Headers are nearly always
 * linear already; otherwise up to IP_SCRATCH_LEN bytes are gathered into `scratch`. */
const uint8_t *ip_packet_linear(const struct ip_packet *packet, size_t offset, size_t len,
                                uint8_t *scratch);
/* True if the transport checksum (at the pseudo header's rules) is right or need not be verified.
 */
bool ip_packet_checksum_ok(const struct ip_packet *packet);

/* The header of a packet for the guest. */
struct ip_header {
    struct ip_address source, destination;
    uint8_t protocol, ttl, tos;
    bool dont_fragment;
};

/* A frame from stack->frames with Ethernet and IP headers written for `transport_len` bytes behind
 * them (header and payload of the transport); len stands behind the IP header, where the caller
 * writes the transport's header (and moves len), then appends segments. NULL: no memory (counted by
 * the caller). For GSO frames transport_len is the whole super-segment's. */
struct culvert_frame *ip_frame_new(struct stack *stack, const struct ip_header *header,
                                   size_t transport_len);
/* The pseudo header's sum, folded, not inverted, in the byte order it is stored in: what NEEDS_CSUM
 * wants in the checksum field. */
uint16_t ip_pseudo_sum(const struct ip_header *header, size_t transport_len);
/* Sends a complete frame that fits the MTU or is GSO. 0: taken; -EAGAIN: the caller keeps it. */
int stack_send_frame(struct stack *stack, struct culvert_frame *frame);

/* Something was sent that whoever has the guest's address answers: if nobody does, it is away. */
void neighbour_expect(struct stack *stack, const struct ip_address *guest);

/* The transports. */
struct tcp *tcp_new(struct stack *stack);
struct tcp *tcp_free(struct tcp *tcp);
void tcp_input(struct stack *stack, const struct ip_packet *packet);
void tcp_batch_end(struct stack *stack, enum stack_acks acks);
void tcp_link_writable(struct stack *stack);
void tcp_link_changed(struct stack *stack); /* MTU or offloads */
void tcp_guest_found(struct stack *stack);  /* its MAC address is known now */
/* Nobody answers for the guest's address: flows that wait for it end. */
void tcp_neighbour_away(struct stack *stack, const struct ip_address *address);
void udp_input(struct stack *stack, const struct ip_packet *packet);
void icmp_input(struct stack *stack, const struct ip_packet *packet);   /* IPv4 */
void icmpv6_input(struct stack *stack, const struct ip_packet *packet); /* NDP included */
/* An ICMP error that quotes `packet`. */
void icmp_refuse_packet(struct stack *stack, const struct ip_packet *packet,
                        enum icmp_problem problem, uint32_t mtu);
/* The same for a TCP SYN seen earlier: quotes a header made again from the key and sequence number.
 */
void icmp_refuse_syn(struct stack *stack, const struct flow_key *key, uint32_t sequence,
                     enum icmp_problem problem);

#endif
