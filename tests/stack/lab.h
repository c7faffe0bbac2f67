/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_STACK_LAB_H
#define TESTS_STACK_LAB_H

/* A stack on a bench: packets are built and fed by hand, what it says is caught and checked. TCP is
 * replaced by a counter, so that only what stands below it is tested.
 *
 * Every frame the stack sends is checked as it is caught: lengths, IP header checksum, and the
 * transport checksum, completed first as a device would where it was left to it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "stack/network.h"

#define LAB_SENT_MAX 256

#define GUEST4     0x0a000264u
#define GATEWAY4   0x0a000202u
#define DNS4       0x0a000203u
#define REMOTE4    0x08080808u
#define BROADCAST4 0xffffffffu

extern const uint8_t LAB_GATEWAY_MAC[6], LAB_GUEST_MAC[6], LAB_BROADCAST_MAC[6];
#define GUEST6      "fd63:756c:7665::64"
#define GATEWAY6    "fd63:756c:7665::2"
#define DNS6        "fd63:756c:7665::3"
#define LINK_LOCAL6 "fe80::2"
#define REMOTE6     "2001:4860::8888"

/* A frame the stack sent, linear. */
struct sent {
    uint8_t *data;
    size_t len;
    struct culvert_offload offload;
    size_t ip_offset, offset; /* of the IP header, and behind it (IPv6: the fixed one) */
    struct ip_address source, destination;
    uint8_t protocol, ttl;
    bool v6, fragment;
};

struct lab {
    struct stack *stack;
    struct timers *timers;
    struct counters counters;
    uint64_t now;
    bool link_full;
    unsigned sent_count;
    struct sent sent[LAB_SENT_MAX];
    unsigned udp_count, echo_count, tcp_count, away_count;
    struct ip_address away;  /* whose flows were told to end last */
    struct udp_datagram udp; /* the last; payload below, frame NULL */
    struct echo_request echo;
    uint8_t payload[65536]; /* of the last datagram or echo */
    bool refuse_udp;        /* answer each datagram by a port unreachable */
};

struct ip_address lab_ip(const char *text);
struct stack_config lab_config(void);
struct lab *lab_new(void);
struct lab *lab_new_with(const struct stack_config *config);
void lab_free(struct lab *lab);
void lab_forget(struct lab *lab); /* what was sent */
void lab_advance(struct lab *lab, uint64_t ns);

/* Feeds a frame: one with `linear` linear bytes, the rest in segments (SIZE_MAX: all linear). */
void lab_input(struct lab *lab, const uint8_t *bytes, size_t len);
void lab_input_split(struct lab *lab, const uint8_t *bytes, size_t len, size_t linear,
                     struct culvert_offload offload);
/* Feeds every truncation of the frame, and the frame with every byte changed in turn. */
void lab_torture(struct lab *lab, const uint8_t *bytes, size_t len);

/* A packet being built, as the guest would send it; all are functions of what stands before. */
struct build {
    uint8_t data[66000];
    size_t len;
    size_t ip, transport;
    bool v6;
};

/* Ethernet and IPv4 headers, ready for a payload. */
void build_ip4(struct build *b, uint32_t source, uint32_t destination, uint8_t protocol);
void build_ip6(struct build *b, const char *source, const char *destination, uint8_t protocol);
void build_bytes(struct build *b, const void *bytes, size_t len);
void build_pattern(struct build *b, size_t len, unsigned seed); /* payload that can be recognized */
void build_udp(struct build *b, uint16_t source_port, uint16_t destination_port);
void build_icmp(struct build *b, uint8_t type, uint8_t code, uint32_t rest);
/* Fills in lengths and checksums of all headers. */
void build_finish(struct build *b);
/* Makes IP header changes valid again. */
void build_ip4_checksum(struct build *b);

uint8_t lab_pattern(size_t at, unsigned seed);
void lab_assert_pattern(const uint8_t *bytes, size_t len, unsigned seed);
uint64_t lab_counter(const struct lab *lab, enum counter which);
/* The only frame sent since lab_forget(). */
const struct sent *lab_only(struct lab *lab);
void lab_assert_silent(struct lab *lab);

#define RUN_TESTS(tests) cmocka_run_group_tests(tests, NULL, NULL)

#endif
