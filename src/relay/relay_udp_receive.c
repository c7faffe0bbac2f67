/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * recvmmsg() takes many datagrams at once, and with UDP_GRO each may be a run of equal ones that
 * the kernel had put together. Any of them may have 64 KiB, but most have less than two: so each is
 * received into a small place followed by a big one. The small places of one call lie in one
 * buffer, which serves further calls, of whichever mapping, until its places are used up: so a
 * datagram on its way to a slow guest holds a place and not a buffer. The big buffers are touched,
 * and replaced, only when something did not fit the small.
 *
 * Consecutive datagrams from one peer with equal sizes go to the stack together, as segments of one
 * output with gso_size (the last may be shorter), without being copied. A run that the kernel made
 * goes as it is, unless its datagrams exceed the guest's MTU: those go singly and are fragmented
 * there. */

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/refs.h"
#include "relay/internal.h"

#include <netinet/udp.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define PLACES       64   /* datagrams or runs in one recvmmsg(), at most */
#define PLACES_FEW   4    /* at first, and when they are big: 256 KiB are enough for a turn */
#define SMALL        2048 /* bytes of a small place */
#define BIG          65536
#define SMALL_MAX    64 /* buffers that may wait for the guest */
#define BIG_MAX      512
#define SEGMENTS_MAX 64
#define RUN_MAX      65487u /* payload of one output: fits an IPv6 packet and an IPv4 packet */
#define UDP_HEADER   8

union receive_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int)) * 2 + CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

struct udp_receiver {
    struct pool *small_pool, *big_pool;
    struct culvert_buffer *small; /* NULL: none begun */
    unsigned small_used;          /* its places that datagrams lie in */
    struct culvert_buffer *big[PLACES];
    struct mmsghdr headers[PLACES];
    struct iovec iov[PLACES][2];
    struct sockaddr_in6 from[PLACES]; /* holds a sockaddr_in too */
    union receive_control controls[PLACES];
};

/* What came in one place. */
struct arrival {
    struct culvert_segment segments[2];
    uint16_t segment_count;
    size_t len;
    uint16_t run_size; /* 0: one datagram; else of each datagram of a run */
    uint8_t tos;
    struct ip_address local; /* it was sent to; all zero: not asked for */
};

/* What goes to the stack together. */
struct run {
    const struct peer *peer; /* NULL: empty */
    uint16_t size, datagrams;
    uint8_t tos;
    bool closed;
    uint16_t segment_count;
    size_t len;
    struct culvert_segment segments[SEGMENTS_MAX + 2];
};

/* ---- buffers ---- */

void udp_receiver_free(struct relay *relay)
{
    struct udp_receiver *receiver = relay->receiver;

    if (!receiver)
        return;
    for (size_t i = 0; i < PLACES; i++)
        culvert_buffer_unref(receiver->big[i]);
    culvert_buffer_unref(receiver->small);
    pool_free(receiver->small_pool);
    pool_free(receiver->big_pool);
    free(receiver);
    relay->receiver = NULL;
}

static struct udp_receiver *receiver_of(struct relay *relay)
{
    const struct pool_config small = {
        .buffer_capacity = (size_t)SMALL * PLACES, .max = SMALL_MAX, .keep = 4};
    const struct pool_config big = {.buffer_capacity = BIG, .max = BIG_MAX, .keep = 8};

    if (relay->receiver)
        return relay->receiver;
    relay->receiver = calloc(1, sizeof *relay->receiver);
    if (!relay->receiver)
        return NULL;
    relay->receiver->small_pool = pool_new(&small);
    relay->receiver->big_pool = pool_new(&big);
    if (!relay->receiver->small_pool || !relay->receiver->big_pool) {
        udp_receiver_free(relay);
        return NULL;
    }
    return relay->receiver;
}

/* The small place of the i-th message of a call. */
static uint8_t *small_place(const struct udp_receiver *receiver, unsigned i)
{
    return receiver->small->data + (size_t)(receiver->small_used + i) * SMALL;
}

static void prepare_place(struct udp_receiver *receiver, unsigned i)
{
    receiver->iov[i][0] = (struct iovec){small_place(receiver, i), SMALL};
    receiver->iov[i][1] = (struct iovec){receiver->big[i]->data, BIG};
    receiver->headers[i].msg_hdr = (struct msghdr){
        .msg_name = &receiver->from[i],
        .msg_namelen = sizeof receiver->from[i],
        .msg_iov = receiver->iov[i],
        .msg_iovlen = 2,
        .msg_control = &receiver->controls[i],
        .msg_controllen = sizeof receiver->controls[i].bytes,
    };
}

/* `want` small places. A buffer that nobody looks into any more begins anew, so that with a quick
 * guest it is the same few places each time, and they are in the cache. */
static bool reserve_small(struct udp_receiver *receiver, unsigned want)
{
    if (receiver->small && refs_is_only(&receiver->small->refs))
        receiver->small_used = 0;
    if (receiver->small && PLACES - receiver->small_used < want)
        receiver->small = culvert_buffer_unref(receiver->small);
    if (!receiver->small) {
        receiver->small = pool_take_buffer(receiver->small_pool);
        receiver->small_used = 0;
    }
    return receiver->small != NULL;
}

/* Up to `want` places with buffers; 0: none to be had. */
static unsigned prepare_places(struct udp_receiver *receiver, unsigned want)
{
    unsigned n;

    if (!reserve_small(receiver, want))
        return 0;
    for (n = 0; n < want; n++) {
        if (!receiver->big[n])
            receiver->big[n] = pool_take_buffer(receiver->big_pool);
        if (!receiver->big[n])
            break;
        prepare_place(receiver, n);
    }
    return n;
}

/* Buffers that went on to the stack are its references' now; the next call takes new ones. */
static void finish_places(struct udp_receiver *receiver, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (receiver->headers[i].msg_len > SMALL)
            receiver->big[i] = culvert_buffer_unref(receiver->big[i]);
    }
    receiver->small_used += n;
}

/* ---- to the stack ---- */

static void run_output(struct mapping *mapping, struct run *run)
{
    struct udp_output output = {
        .segments = run->segments,
        .segment_count = run->segment_count,
        .len = run->len,
        .gso_size = run->datagrams > 1 ? run->size : 0,
        .tos = run->tos,
    };

    if (!run->peer)
        return;
    output.key = mapping_key(mapping, run->peer);
    /* What the link has no room for is lost, as on any link; the stack counts it. */
    (void)stack_udp_output(mapping->relay->stack, &output);
    run->peer = NULL;
}

static bool datagram_fits(const struct mapping *mapping, size_t len)
{
    const size_t headers = UDP_HEADER + (mapping->v6 ? 40u : 20u);

    return len + headers <= mapping->relay->mtu;
}

static void run_begin(struct run *run, const struct peer *peer, uint16_t size, uint8_t tos)
{
    run->peer = peer;
    run->size = size;
    run->tos = tos;
    run->closed = false;
    run->datagrams = 0;
    run->segment_count = 0;
    run->len = 0;
}

static bool run_accepts(const struct mapping *mapping, const struct run *run,
                        const struct peer *peer, const struct arrival *arrival)
{
    return run->peer == peer && !run->closed && arrival->len && arrival->len <= run->size &&
           run->tos == arrival->tos && run->datagrams < SEGMENTS_MAX &&
           run->segment_count + arrival->segment_count <= SEGMENTS_MAX &&
           run->len + arrival->len <= RUN_MAX && datagram_fits(mapping, run->size);
}

static void run_add(struct run *run, const struct arrival *arrival)
{
    for (uint16_t i = 0; i < arrival->segment_count; i++)
        run->segments[run->segment_count++] = arrival->segments[i];
    run->len += arrival->len;
    run->datagrams++;
    run->closed = arrival->len < run->size;
}

static void output_datagram(struct mapping *mapping, struct run *run, const struct peer *peer,
                            const struct arrival *arrival)
{
    if (!run_accepts(mapping, run, peer, arrival)) {
        run_output(mapping, run);
        run_begin(run, peer, (uint16_t)arrival->len, arrival->tos);
    }
    run_add(run, arrival);
}

/* The part [offset, offset + len) of an arrival. */
static struct arrival arrival_cut(const struct arrival *arrival, size_t offset, size_t len)
{
    struct arrival cut = {.len = len, .tos = arrival->tos};

    for (uint16_t i = 0; i < arrival->segment_count && len; i++) {
        const struct culvert_segment *segment = &arrival->segments[i];
        size_t part;

        if (offset >= segment->len) {
            offset -= segment->len;
            continue;
        }
        part = segment->len - offset < len ? segment->len - offset : len;
        cut.segments[cut.segment_count++] =
            (struct culvert_segment){segment->buffer, segment->base + offset, part};
        len -= part;
        offset = 0;
    }
    return cut;
}

/* A run of the kernel's, in parts of at most 64 datagrams; singly where they exceed the MTU. */
static void output_run(struct mapping *mapping, struct run *run, const struct peer *peer,
                       const struct arrival *arrival)
{
    const size_t size = arrival->run_size;
    size_t fit = 1;

    run_output(mapping, run);
    if (datagram_fits(mapping, size)) {
        fit = RUN_MAX / size;
        if (fit > SEGMENTS_MAX)
            fit = SEGMENTS_MAX;
    }
    for (size_t done = 0; done < arrival->len;) {
        const size_t left = arrival->len - done;
        struct arrival part = arrival_cut(arrival, done, left < fit * size ? left : fit * size);

        run_begin(run, peer, (uint16_t)size, arrival->tos);
        run_add(run, &part);
        run->datagrams = (uint16_t)((part.len + size - 1) / size);
        run_output(mapping, run);
        done += part.len;
    }
}

/* ---- from the kernel ---- */

/* Where the answer is to come from: not an address that only one interface knows, nor a group's. */
static void parse_local(struct cmsghdr *c, struct ip_address *ret)
{
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO &&
        c->cmsg_len >= CMSG_LEN(sizeof(struct in_pktinfo))) {
        struct in_pktinfo info;

        memcpy(&info, CMSG_DATA(c), sizeof info);
        if (info.ipi_spec_dst.s_addr != 0)
            *ret = ip_address_v4(info.ipi_spec_dst.s_addr);
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO &&
               c->cmsg_len >= CMSG_LEN(sizeof(struct in6_pktinfo))) {
        struct in6_pktinfo info;

        memcpy(&info, CMSG_DATA(c), sizeof info);
        if (!IN6_IS_ADDR_MULTICAST(&info.ipi6_addr) && !IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
            memcpy(ret->bytes, &info.ipi6_addr, sizeof info.ipi6_addr);
    }
}

static void parse_control(struct msghdr *msg, struct arrival *arrival)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        int value = 0;

        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO &&
            c->cmsg_len >= CMSG_LEN(sizeof value)) {
            memcpy(&value, CMSG_DATA(c), sizeof value);
            if (value > 0 && (size_t)value < arrival->len)
                arrival->run_size = (uint16_t)value;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS &&
                   c->cmsg_len >= CMSG_LEN(1)) {
            arrival->tos = *CMSG_DATA(c);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS &&
                   c->cmsg_len >= CMSG_LEN(sizeof value)) {
            memcpy(&value, CMSG_DATA(c), sizeof value);
            arrival->tos = (uint8_t)value;
        } else {
            parse_local(c, &arrival->local);
        }
    }
}

static struct arrival arrival_at(struct udp_receiver *receiver, unsigned i)
{
    struct mmsghdr *header = &receiver->headers[i];
    struct arrival arrival = {.len = header->msg_len};
    const size_t small = arrival.len < SMALL ? arrival.len : SMALL;

    if (small)
        arrival.segments[arrival.segment_count++] =
            (struct culvert_segment){receiver->small, small_place(receiver, i), small};
    if (arrival.len > small)
        arrival.segments[arrival.segment_count++] =
            (struct culvert_segment){receiver->big[i], receiver->big[i]->data, arrival.len - small};
    parse_control(&header->msg_hdr, &arrival);
    return arrival;
}

/* NULL: counted. */
static struct peer *sender_of(struct mapping *mapping, const struct sockaddr_in6 *from,
                              const struct arrival *arrival)
{
    struct ip_endpoint real = {.port = 0};
    struct peer *peer;

    (void)ip_endpoint_from_sockaddr((const struct sockaddr *)from, &real);
    if (mapping->published)
        return publish_udp_sender(mapping, &real, &arrival->local);
    peer = mapping_peer_of_real(mapping, &real.address, real.port);
    if (peer && mapping_peer_may_answer(mapping, peer))
        return peer;
    count(mapping->relay->counters,
          peer ? COUNTER_relay_answer_denied : COUNTER_relay_udp_unknown_peer);
    return NULL;
}

static void take_in(struct mapping *mapping, struct udp_receiver *receiver, unsigned n)
{
    struct run run = {.peer = NULL};
    bool known = false;

    for (unsigned i = 0; i < n; i++) {
        const struct arrival arrival = arrival_at(receiver, i);
        struct peer *peer = sender_of(mapping, &receiver->from[i], &arrival);

        if (!peer)
            continue;
        known = true;
        if (arrival.run_size)
            output_run(mapping, &run, peer, &arrival);
        else
            output_datagram(mapping, &run, peer, &arrival);
    }
    run_output(mapping, &run);
    if (known)
        mapping_touch(mapping, true);
}

/* Places cost a little each, whether anything comes or not: as many as what came asks for. */
static uint8_t appetite_after(const struct udp_receiver *receiver, unsigned places, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (receiver->headers[i].msg_len > 4 * SMALL)
            return PLACES_FEW;
    }
    if (n == places)
        return places * 4 < PLACES ? (uint8_t)(places * 4) : PLACES;
    return n * 4 < places && places > PLACES_FEW ? (uint8_t)(places / 4) : (uint8_t)places;
}

/* No buffers: the guest takes nothing. The kernel's queue is emptied all the same, or its edge
 * would be lost with the memory's shortage. */
static bool discard(struct mapping *mapping)
{
    for (int i = 0; i < PLACES; i++) {
        char nothing;

        if (recv(mapping->fd, &nothing, 0, MSG_TRUNC | MSG_DONTWAIT) < 0)
            return false;
        count(mapping->relay->counters, COUNTER_relay_udp_no_buffer);
    }
    return true;
}

/* True: try again in the next turn. */
static bool receive_failed(struct mapping *mapping, int error)
{
    if (error == EINTR)
        return true;
    if (!mapping_error_is_borrowed(error))
        return false;
    mapping_drain_errors(mapping, NULL);
    return true;
}

bool udp_receive(struct mapping *mapping)
{
    struct udp_receiver *receiver = receiver_of(mapping->relay);
    const unsigned want = mapping->appetite ? mapping->appetite : PLACES_FEW;
    const unsigned places = receiver ? prepare_places(receiver, want) : 0;
    int n, error;

    if (!places)
        return discard(mapping);
    n = recvmmsg(mapping->fd, receiver->headers, places, MSG_DONTWAIT, NULL);
    error = errno;
    if (n > 0) {
        take_in(mapping, receiver, (unsigned)n);
        mapping->appetite = appetite_after(receiver, places, (unsigned)n);
    }
    finish_places(receiver, n > 0 ? (unsigned)n : 0);
    if (n < 0)
        return receive_failed(mapping, error);
    return (unsigned)n == places;
}
