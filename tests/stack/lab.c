/* SPDX-License-Identifier: Apache-2.0 */
#include "lab.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/udp.h"

const uint8_t LAB_GATEWAY_MAC[6] = {0x02, 0x63, 0x75, 0x6c, 0x76, 0x02};
const uint8_t LAB_GUEST_MAC[6] = {0x02, 0, 0, 0, 0, 0x64};
const uint8_t LAB_BROADCAST_MAC[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* ---- TCP's stand-in ---- */

struct tcp *tcp_new(struct stack *stack)
{
    return (struct tcp *)stack;
}

struct tcp *tcp_free(struct tcp *tcp)
{
    (void)tcp;
    return NULL;
}

void tcp_input(struct stack *stack, const struct ip_packet *packet)
{
    struct lab *lab = stack->ctx;
    uint8_t scratch[IP_SCRATCH_LEN];

    (void)ip_packet_linear(packet, packet->offset, 20, scratch);
    (void)ip_packet_checksum_ok(packet);
    lab->tcp_count++;
}

void tcp_batch_end(struct stack *stack, enum stack_acks acks)
{
    (void)stack;
    (void)acks;
}

void tcp_link_writable(struct stack *stack)
{
    (void)stack;
}

void tcp_link_changed(struct stack *stack)
{
    (void)stack;
}

void tcp_neighbour_away(struct stack *stack, const struct ip_address *address)
{
    struct lab *lab = stack->ctx;

    lab->away_count++;
    lab->away = *address;
}

void tcp_guest_found(struct stack *stack)
{
    (void)stack;
}

/* ---- what the stack asks for ---- */

static void check_transport(struct sent *s)
{
    uint8_t *transport = s->data + s->offset;
    size_t len = s->len - s->offset;
    uint64_t sum = 0;

    if (s->fragment || (s->offload.gso_type != CULVERT_GSO_NONE))
        return;
    if (s->protocol != IPPROTO_ICMP)
        sum = checksum_pseudo(&s->source, &s->destination, s->protocol, (uint32_t)len);
    if (s->offload.flags & CULVERT_OFFLOAD_NEEDS_CSUM) {
        uint8_t *field = s->data + s->offload.csum_start + s->offload.csum_offset;

        assert_int_equal(s->offload.csum_start, s->offset);
        assert_int_equal(checksum_load(field), checksum_fold(sum));
        checksum_store(field, checksum_finish(checksum_add(0, transport, len)));
    }
    assert_int_equal(checksum_fold(checksum_add(sum, transport, len)), 0xffff);
}

static void check_sent(struct lab *lab, struct sent *s)
{
    const uint8_t *ip = s->data + ETHERNET_LEN;
    struct ipv4_header h4;
    struct ipv6_header h6;

    s->ip_offset = ETHERNET_LEN;
    if (load_be16(s->data + 12) == ETHERNET_IPV4) {
        assert_int_equal(ipv4_parse(ip, s->len - ETHERNET_LEN, s->len - ETHERNET_LEN, &h4), IP_OK);
        assert_int_equal(h4.total_len, s->len - ETHERNET_LEN);
        s->source = h4.source;
        s->destination = h4.destination;
        s->protocol = h4.protocol;
        s->ttl = h4.ttl;
        s->offset = ETHERNET_LEN + h4.header_len;
        s->fragment = ipv4_is_fragment(&h4);
    } else if (load_be16(s->data + 12) == ETHERNET_IPV6) {
        assert_int_equal(ipv6_parse(ip, s->len - ETHERNET_LEN, s->len - ETHERNET_LEN, &h6), IP_OK);
        assert_int_equal(h6.payload_len, s->len - ETHERNET_LEN - 40);
        s->source = h6.source;
        s->destination = h6.destination;
        s->protocol = h6.next_header;
        s->ttl = h6.hop_limit;
        s->offset = ETHERNET_LEN + 40;
        s->v6 = true;
        s->fragment = h6.next_header == IPPROTO_FRAGMENT;
    } else {
        return;
    }
    if (s->offload.gso_type == CULVERT_GSO_NONE)
        assert_true(s->len <= ETHERNET_LEN + lab->stack->link.mtu);
    check_transport(s);
}

static int lab_send(void *ctx, struct culvert_frame *frame)
{
    struct lab *lab = ctx;
    struct sent *s = &lab->sent[lab->sent_count];
    struct iovec iov[FRAME_SEGMENTS + 1];
    size_t pieces;

    if (lab->link_full)
        return -EAGAIN;
    assert_true(lab->sent_count < LAB_SENT_MAX);
    *s = (struct sent){.len = culvert_frame_len(frame), .offload = frame->offload};
    s->data = malloc(s->len);
    assert_non_null(s->data);
    pieces = culvert_frame_iov(frame, iov, FRAME_SEGMENTS + 1);
    for (size_t i = 0, at = 0; i < pieces; at += iov[i++].iov_len)
        memcpy(s->data + at, iov[i].iov_base, iov[i].iov_len);
    culvert_frame_unref(frame);
    lab->sent_count++;
    check_sent(lab, s);
    return 0;
}

static void lab_tcp_open(void *ctx, struct flow_handle flow, const struct flow_key *key)
{
    (void)ctx;
    (void)flow;
    (void)key;
}

static void keep_payload(struct lab *lab, const struct culvert_frame *frame, size_t offset,
                         size_t len)
{
    struct iovec iov[64];
    size_t pieces = culvert_frame_slice(frame, offset, len, iov, 64), at = 0;

    assert_true(pieces <= 64);
    for (size_t i = 0; i < pieces; at += iov[i++].iov_len)
        memcpy(lab->payload + at, iov[i].iov_base, iov[i].iov_len);
    assert_int_equal(at, len);
}

static void lab_udp_input(void *ctx, const struct udp_datagram *datagram)
{
    struct lab *lab = ctx;

    lab->udp_count++;
    lab->udp = *datagram;
    keep_payload(lab, datagram->frame, datagram->payload_offset, datagram->payload_len);
    if (lab->refuse_udp)
        stack_icmp_refuse(lab->stack, datagram->frame, ICMP_PROBLEM_PORT_UNREACHABLE, 0);
    lab->udp.frame = NULL;
}

static void lab_echo_input(void *ctx, const struct echo_request *request)
{
    struct lab *lab = ctx;

    lab->echo_count++;
    lab->echo = *request;
    keep_payload(lab, request->frame, request->payload_offset, request->payload_len);
    lab->echo.frame = NULL;
}

/* ---- life ---- */

struct ip_address lab_ip(const char *text)
{
    struct ip_address a;

    assert_true(ip_address_parse(text, &a));
    return a;
}

struct stack_config lab_config(void)
{
    struct stack_config config = {
        .mtu = 1500,
        .guest4 = ip_address_v4(htonl(GUEST4)),
        .gateway4 = ip_address_v4(htonl(GATEWAY4)),
        .dns4 = ip_address_v4(htonl(DNS4)),
        .prefix4 = 24,
        .ipv6 = true,
        .guest6 = lab_ip(GUEST6),
        .gateway6 = lab_ip(GATEWAY6),
        .dns6 = lab_ip(DNS6),
        .link_local6 = lab_ip(LINK_LOCAL6),
        .prefix6 = 64,
        .hostname = "sandbox",
        .max_flows = 16,
        .hash_key = {1, 2},
        .verify_checksums = true,
    };

    memcpy(config.gateway_mac, LAB_GATEWAY_MAC, 6);
    return config;
}

struct lab *lab_new_with(const struct stack_config *config)
{
    static const struct stack_ops ops = {
        .send = lab_send,
        .tcp_open = lab_tcp_open,
        .udp_input = lab_udp_input,
        .echo_input = lab_echo_input,
    };
    struct lab *lab = calloc(1, sizeof *lab);

    assert_non_null(lab);
    lab->now = 1000 * SECOND_NS;
    lab->timers = timers_new(lab, lab->now);
    assert_non_null(lab->timers);
    lab->stack = stack_new(config, &ops, lab, lab->timers, &lab->counters, lab->now);
    assert_non_null(lab->stack);
    return lab;
}

struct lab *lab_new(void)
{
    const struct stack_config config = lab_config();

    return lab_new_with(&config);
}

void lab_forget(struct lab *lab)
{
    while (lab->sent_count > 0)
        free(lab->sent[--lab->sent_count].data);
}

void lab_free(struct lab *lab)
{
    lab_forget(lab);
    stack_free(lab->stack);
    assert_int_equal(timers_next(lab->timers), TIMERS_NEVER);
    timers_free(lab->timers);
    free(lab);
}

void lab_advance(struct lab *lab, uint64_t ns)
{
    uint64_t end = lab->now + ns;

    while (timers_next(lab->timers) <= end) {
        lab->now = timers_next(lab->timers) > lab->now ? timers_next(lab->timers) : lab->now + 1;
        stack_set_now(lab->stack, lab->now);
        timers_expire(lab->timers, lab->now);
    }
    lab->now = end;
    stack_set_now(lab->stack, end);
}

/* ---- frames in ---- */

void lab_input_split(struct lab *lab, const uint8_t *bytes, size_t len, size_t linear,
                     struct culvert_offload offload)
{
    struct culvert_frame *frame;
    size_t rest;

    if (linear > len)
        linear = len;
    rest = len - linear;
    frame = culvert_frame_new(linear);
    assert_non_null(frame);
    memcpy(frame->data, bytes, linear);
    frame->len = linear;
    frame->offload = offload;
    for (size_t half = rest / 2, at = linear; at < len; at += half, half = len - at) {
        struct culvert_buffer *buffer;

        if (half == 0)
            half = len - at;
        buffer = culvert_buffer_new(half);
        assert_non_null(buffer);
        memcpy(buffer->data, bytes + at, half);
        assert_int_equal(culvert_frame_append(frame, buffer, buffer->data, half), 0);
        culvert_buffer_unref(buffer);
    }
    stack_input(lab->stack, frame);
    culvert_frame_unref(frame);
    stack_batch_end(lab->stack, STACK_ACKS_NOW);
}

void lab_input(struct lab *lab, const uint8_t *bytes, size_t len)
{
    lab_input_split(lab, bytes, len, SIZE_MAX, (struct culvert_offload){0});
}

void lab_torture(struct lab *lab, const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len);
    static const uint8_t changes[] = {0x01, 0x80, 0xff};

    assert_non_null(copy);
    memcpy(copy, bytes, len);
    for (size_t n = 0; n <= len; n++) {
        lab_input(lab, bytes, n);
        lab_input_split(lab, bytes, n, ETHERNET_LEN, (struct culvert_offload){0});
        lab_forget(lab);
    }
    for (size_t i = 0; i < len; i++) {
        for (size_t c = 0; c < sizeof changes; c++) {
            copy[i] ^= changes[c];
            lab_input_split(lab, copy, len, SIZE_MAX,
                            (struct culvert_offload){.flags = CULVERT_OFFLOAD_DATA_VALID});
            if (i >= ETHERNET_LEN && load_be16(copy + 12) == ETHERNET_IPV4) {
                checksum_store(copy + 24, 0);
                checksum_store(copy + 24, checksum_finish(checksum_add(0, copy + 14, 20)));
                lab_input_split(lab, copy, len, 16,
                                (struct culvert_offload){.flags = CULVERT_OFFLOAD_DATA_VALID});
            }
            memcpy(copy, bytes, len);
            lab_forget(lab);
        }
    }
    free(copy);
}

/* ---- building ---- */

static void build_ethernet(struct build *b, uint16_t type)
{
    ethernet_write(b->data, LAB_GATEWAY_MAC, LAB_GUEST_MAC, type);
    b->ip = ETHERNET_LEN;
}

void build_ip4(struct build *b, uint32_t source, uint32_t destination, uint8_t protocol)
{
    build_ethernet(b, ETHERNET_IPV4);
    b->v6 = false;
    ipv4_write(b->data + b->ip, &(struct ipv4_header){
                                    .source = ip_address_v4(htonl(source)),
                                    .destination = ip_address_v4(htonl(destination)),
                                    .id = 7,
                                    .total_len = 20,
                                    .ttl = 64,
                                    .protocol = protocol,
                                });
    b->len = b->transport = b->ip + 20;
}

void build_ip6(struct build *b, const char *source, const char *destination, uint8_t protocol)
{
    build_ethernet(b, ETHERNET_IPV6);
    b->v6 = true;
    ipv6_write(b->data + b->ip, &(struct ipv6_header){
                                    .source = lab_ip(source),
                                    .destination = lab_ip(destination),
                                    .next_header = protocol,
                                    .hop_limit = 64,
                                });
    b->len = b->transport = b->ip + 40;
}

void build_bytes(struct build *b, const void *bytes, size_t len)
{
    if (len != 0)
        memcpy(b->data + b->len, bytes, len);
    b->len += len;
}

uint8_t lab_pattern(size_t at, unsigned seed)
{
    return (uint8_t)(at * 7 + (at >> 8) * 13 + seed);
}

void build_pattern(struct build *b, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        b->data[b->len++] = lab_pattern(i, seed);
}

void lab_assert_pattern(const uint8_t *bytes, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != lab_pattern(i, seed))
            fail_msg("byte %zu of %zu differs", i, len);
}

void build_udp(struct build *b, uint16_t source_port, uint16_t destination_port)
{
    b->transport = b->len;
    udp_write(b->data + b->len, source_port, destination_port, 8);
    b->len += 8;
}

void build_icmp(struct build *b, uint8_t type, uint8_t code, uint32_t rest)
{
    b->transport = b->len;
    b->data[b->len] = type;
    b->data[b->len + 1] = code;
    store_be16(b->data + b->len + 2, 0);
    store_be32(b->data + b->len + 4, rest);
    b->len += 8;
}

void build_ip4_checksum(struct build *b)
{
    uint8_t *ip = b->data + b->ip;

    checksum_store(ip + 10, 0);
    checksum_store(ip + 10, checksum_finish(checksum_add(0, ip, (size_t)(ip[0] & 15) * 4)));
}

static uint64_t pseudo(const struct build *b, uint8_t protocol, size_t len)
{
    const uint8_t *ip = b->data + b->ip;

    if (b->v6)
        return checksum_pseudo6(ip + 8, ip + 24, protocol, (uint32_t)len);
    return checksum_pseudo4(ip + 12, ip + 16, protocol, (uint32_t)len);
}

void build_finish(struct build *b)
{
    uint8_t *ip = b->data + b->ip, *transport = b->data + b->transport;
    uint8_t protocol = b->v6 ? ip[6] : ip[9];
    size_t len = b->len - b->transport;

    if (b->v6) {
        store_be16(ip + 4, (uint16_t)(b->len - b->ip - 40));
    } else {
        store_be16(ip + 2, (uint16_t)(b->len - b->ip));
        build_ip4_checksum(b);
    }
    if (protocol == IPPROTO_UDP) {
        store_be16(transport + 4, (uint16_t)len);
        checksum_store(transport + 6, 0);
        checksum_store(transport + 6, checksum_finish_udp(checksum_add(pseudo(b, IPPROTO_UDP, len),
                                                                       transport, len)));
    } else if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
        checksum_store(transport + 2, 0);
        checksum_store(transport + 2,
                       checksum_finish(checksum_add(b->v6 ? pseudo(b, IPPROTO_ICMPV6, len) : 0,
                                                    transport, len)));
    }
}

/* ---- looking ---- */

uint64_t lab_counter(const struct lab *lab, enum counter which)
{
    return counter_value(&lab->counters, which);
}

const struct sent *lab_only(struct lab *lab)
{
    assert_int_equal(lab->sent_count, 1);
    return &lab->sent[0];
}

void lab_assert_silent(struct lab *lab)
{
    assert_int_equal(lab->sent_count, 0);
}
