/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_PACKET_H
#define SIM_PACKET_H

/* Frames as the simulated wire carries them, and the simulator's own reading and writing of
 * Ethernet, IP, TCP and ICMP. On purpose nothing of src/wire is used: a misunderstanding must not
 * stand on both sides. */

#include <culvert/frame.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "rng.h"
#include "wire/address.h"

enum {
    TCP_FIN = 1,
    TCP_SYN = 2,
    TCP_RST = 4,
    TCP_PSH = 8,
    TCP_ACK = 16,
    TCP_URG = 32,
};

struct sack_range {
    uint32_t from, to;
};

struct segment {
    struct ip_address source, destination;
    uint16_t source_port, destination_port;
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t window; /* as on the wire */
    uint16_t urgent;
    bool has_mss, has_wscale, sack_permitted, has_timestamps;
    uint16_t mss;
    uint8_t wscale;
    uint32_t tsval, tsecr;
    unsigned sack_count;
    struct sack_range sack[4];
    size_t options_len;
    const uint8_t *payload;
    size_t len;
    uint16_t gso_size;         /* 0: one segment */
    const char *options_wrong; /* what packet_parse() thinks of the options; NULL: nothing */
};

/* How packet_build() puts a segment into a frame. */
struct packet_style {
    uint8_t source_mac[6], destination_mac[6];
    bool offload_checksum; /* leave it to the device */
    bool wrong_checksum;
    enum { OPTIONS_GOOD, OPTIONS_ZERO_LENGTH, OPTIONS_TOO_LONG, OPTIONS_UNKNOWN } options;
};

struct packet {
    struct packet *next;
    uint8_t *bytes;
    size_t len;
    struct culvert_offload offload;
    struct culvert_frame *frame; /* the engine's own, held until delivery; may be NULL */
    unsigned number;             /* in order of sending, per direction */
};

struct packet *packet_new(size_t len);
void packet_free(struct packet *packet);
struct packet *packet_copy(const struct packet *packet);
struct packet *packet_build(const struct segment *segment, const struct packet_style *style);
/* Copies the frame's bytes and keeps a reference on it. */
struct packet *packet_of_frame(struct culvert_frame *frame);
/* False if the frame's bytes are not what they were when packet_of_frame() saw them. */
bool packet_frame_unchanged(const struct packet *packet);
/* A frame as a device would hand it in: the headers linear, or (by `rng`) cut up among segments.
 * NULL rng: all linear. */
struct culvert_frame *packet_to_frame(const struct packet *packet, struct rng *rng);

enum packet_kind {
    PACKET_TCP,
    PACKET_ICMP_ERROR, /* see struct icmp_error */
    PACKET_OTHER,      /* ARP, router advertisements, … */
    PACKET_BAD,        /* something is wrong with it: see the sentence */
};

struct icmp_error {
    uint8_t type, code;
    uint32_t mtu;
    struct ip_address source, destination;               /* of the ICMP packet */
    struct ip_address quoted_source, quoted_destination; /* of the packet it quotes */
    uint8_t quoted_protocol;
    uint16_t quoted_source_port, quoted_destination_port;
    uint32_t quoted_seq;
};

/* Checks everything that can be checked: lengths, header and transport checksums (or the facts that
 * stand for them), GSO facts. Bad options do not make a bad packet: receivers skip them. `segment`
 * points into the packet. */
enum packet_kind packet_parse(const struct packet *packet, struct segment *segment,
                              struct icmp_error *error, const char **ret_wrong);

/* What a device without TSO does: cuts a GSO frame into its segments, linked by `next`; frees it.
 */
struct packet *packet_split(struct packet *packet);

void packet_print(FILE *out, const struct segment *segment, uint32_t seq_base, uint32_t ack_base);
void pcap_begin(FILE *out);
void pcap_add(FILE *out, const struct packet *packet, uint64_t now);

#endif
