/* SPDX-License-Identifier: Apache-2.0 */
/* A guest, its device and a host that do whatever the input says to a stack, in any order that the
 * interface allows. A step is a byte that chooses and what belongs to it:
 *
 *      0 port flags options seq ack window16 len16   a segment; seq relative to what the stack was
 *                                                    last seen to expect, ack see ack_of()
 *      1 flow len16                                  the host has bytes
 *      2 flow                                        the host's FIN
 *      3 flow                                        the host's RST
 *      4 flow how                                    connected, or (how != 0) refused
 *      5 flow mood                                   what write() says; writable
 *      6 flow                                        the policy ends it
 *      7 log                                         time passes, 2^log µs
 *      8 full                                        the link is full, or has room
 *      9 defer                                       the batch ends
 *     10 port                                        a flow begins at the host
 *     11 which mtu16                                 the link's facts
 *     12 len bytes…                                  a frame of these bytes, behind the MACs
 *     13 protocol more offset len16                  a fragment
 *     14 gso16 len16                                 datagrams in one frame
 *     15 flow len16                                  a datagram of the host's
 *
 * Whatever happened, ending the stack gives everything back. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "stack/stack.h"
#include "wire/ethernet.h"
#include "wire/ip.h"
#include "wire/reader.h"
#include "wire/tcp.h"
#include "wire/udp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLOWS      4u
#define GUEST_PORT 40000u
#define TIME_MAX   (UINT64_C(3) * 3600 * 1000000000)

static const uint8_t GUEST_MAC[6] = {2, 0, 0, 0, 0, 1}, GATEWAY_MAC[6] = {2, 0, 0, 0, 0, 2};

struct target;

/* What the stack knows under one of the guest's ports, and what the guest has seen of it. */
struct flow {
    struct target *target;
    struct flow_handle handle;
    bool live;     /* there is a handle */
    bool asks;     /* its SYN waits for the host */
    bool answered; /* its upstream stands */
    bool eof, blocked;
    uint8_t mood;           /* what write() says */
    uint32_t expects, sent; /* sequence numbers: the stack's ACK, and the end of what it sent */
    uint32_t acked;         /* by the guest */
};

struct target {
    struct timers *timers;
    struct counters counters;
    struct stack *stack;
    uint64_t now;
    bool full;
    struct flow flows[FLOWS];
    uint64_t sum; /* of what was sent, for the sake of reading it */
};

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* ---- the host side ---- */

static ssize_t host_write(void *ctx, uint64_t token, const struct iovec *iov, int count)
{
    struct flow *flow = &((struct target *)ctx)->flows[token];
    ssize_t bytes = 0;

    check(flow->live && flow->answered && count > 0);
    for (int i = 0; i < count; i++) {
        check(iov[i].iov_len > 0);
        bytes += (ssize_t)iov[i].iov_len;
    }
    switch (flow->mood % 8) {
    case 0:
        return TCP_WRITE_MORE;
    case 1:
        return TCP_WRITE_REFUSED;
    case 2:
        flow->blocked = true;
        return -EPIPE;
    case 3:
        flow->blocked = true;
        return 0;
    case 4:
        flow->blocked = true;
        return bytes / 2;
    default:
        return bytes;
    }
}

static void host_nothing(void *ctx, uint64_t token)
{
    check(((struct target *)ctx)->flows[token].answered);
}

static void host_close(void *ctx, uint64_t token, enum tcp_close how)
{
    struct flow *flow = &((struct target *)ctx)->flows[token];

    (void)how;
    check(flow->live && flow->answered);
    flow->answered = false;
}

static const struct tcp_upstream host = {.reads = true,
                                         .write = host_write,
                                         .shut_write = host_nothing,
                                         .resume = host_nothing,
                                         .keepalive = host_nothing,
                                         .close = host_close};

/* ---- what the stack asks ---- */

static struct flow *flow_of_port(struct target *t, uint16_t port)
{
    return &t->flows[(uint16_t)(port - GUEST_PORT) % FLOWS];
}

static void opened(void *ctx, struct flow_handle handle, const struct flow_key *key)
{
    struct flow *flow = flow_of_port(ctx, key->guest_port);

    /* An earlier one of this port may still have bytes to deliver: that is left alone. */
    if (flow->answered)
        tcp_refuse(flow->target->stack, handle, TCP_REFUSE_SILENT);
    else
        *flow =
            (struct flow){.target = ctx, .handle = handle, .live = true, .asks = true, .mood = 7};
}

static void closed(void *ctx, struct flow_handle handle)
{
    struct target *t = ctx;

    for (unsigned i = 0; i < FLOWS; i++)
        if (t->flows[i].live && t->flows[i].handle.index == handle.index &&
            t->flows[i].handle.generation == handle.generation) {
            check(!t->flows[i].answered);
            t->flows[i].live = t->flows[i].asks = false;
        }
}

static void note_segment(struct target *t, const struct culvert_frame *frame)
{
    const uint8_t *ip = frame->data + ETHERNET_HEADER_LEN, *tcp = ip + IPV4_HEADER_LEN;
    struct tcp_header header;
    struct flow *flow;
    size_t len = culvert_frame_len(frame) - ETHERNET_HEADER_LEN - IPV4_HEADER_LEN;

    if (load_be16(frame->data + 12) != ETHERNET_IPV4 || ip[9] != IPPROTO_TCP ||
        !tcp_header_parse(tcp, len, &header))
        return;
    flow = flow_of_port(t, header.destination_port);
    if (header.flags & TCP_ACK)
        flow->expects = header.ack;
    flow->sent = header.seq + (uint32_t)(len - header.header_len) + !!(header.flags & TCP_SYN) +
                 !!(header.flags & TCP_FIN);
}

static int sent(void *ctx, struct culvert_frame *frame)
{
    struct target *t = ctx;
    uint8_t sum = 0;

    if (t->full)
        return -EAGAIN;
    for (size_t i = 0; i < frame->segment_count; i++)
        for (size_t at = 0; at < frame->segments[i].len; at++)
            sum ^= frame->segments[i].base[at];
    check(culvert_frame_len(frame) >= ETHERNET_HEADER_LEN && frame->len >= ETHERNET_HEADER_LEN);
    t->sum += sum;
    note_segment(t, frame);
    culvert_frame_unref(frame);
    return 0;
}

static void datagram(void *ctx, const struct udp_datagram *d)
{
    struct target *t = ctx;

    check(d->payload_offset + d->payload_len <= culvert_frame_len(d->frame));
    stack_icmp_refuse(t->stack, d->frame, ICMP_PROBLEM_PORT_UNREACHABLE, 0);
}

static void echo(void *ctx, const struct echo_request *e)
{
    (void)ctx;
    check(e->payload_offset + e->payload_len <= culvert_frame_len(e->frame));
}

/* ---- frames of the guest's ---- */

/* `len` bytes behind an IPv4 header, the first of them given. */
static void guest_packet(struct target *t, const struct ipv4_header *ip, const uint8_t *head,
                         size_t head_len, size_t len, const struct culvert_offload *offload)
{
    struct culvert_frame *frame = culvert_frame_new(ETHERNET_HEADER_LEN + IPV4_HEADER_LEN + len);
    struct ipv4_header header = *ip;
    uint8_t *at;

    check(frame && head_len <= len);
    header.source = ip_address_v4(htonl(0x0a000264));
    header.destination = ip_address_v4(htonl(0x5db8d822));
    header.total_len = (uint16_t)(IPV4_HEADER_LEN + len);
    header.ttl = 64;
    ethernet_write(frame->data, GATEWAY_MAC, GUEST_MAC, ETHERNET_IPV4);
    ipv4_write(frame->data + ETHERNET_HEADER_LEN, &header);
    at = frame->data + ETHERNET_HEADER_LEN + IPV4_HEADER_LEN;
    memset(at, 0, len);
    if (head_len)
        memcpy(at, head, head_len);
    frame->len = ETHERNET_HEADER_LEN + IPV4_HEADER_LEN + len;
    if (offload)
        frame->offload = *offload;
    stack_input(t->stack, frame);
    culvert_frame_unref(frame);
}

/* Small numbers mean a little before, up to 15 bytes; others a little or much behind. */
static uint32_t near(uint32_t base, uint8_t delta)
{
    if (delta < 16)
        return base - delta;
    return base + (delta < 128 ? delta - 16u : (delta - 127u) << 9);
}

/* From 64 on, what was sent, a little more or less; below, the last ACK and so many times 1,000. */
static uint32_t ack_of(struct flow *flow, uint8_t delta)
{
    flow->acked = delta < 64 ? flow->acked + delta * 1000u : flow->sent + delta - 80u;
    return flow->acked;
}

static void guest_segment(struct target *t, struct reader *r)
{
    uint8_t port = reader_u8(r) % FLOWS, flags = reader_u8(r), choice = reader_u8(r);
    struct flow *flow = &t->flows[port];
    uint32_t expects = near(flow->expects, reader_u8(r)), acked = ack_of(flow, reader_u8(r));
    struct tcp_header header = {.source_port = (uint16_t)(GUEST_PORT + port),
                                .destination_port = 80,
                                .seq = expects,
                                .ack = acked,
                                .flags = flags,
                                .window = reader_be16(r)};
    struct tcp_options options = {.mss = choice & 1 ? 1460 : 0,
                                  .window_shift = choice & 2 ? 7 : -1,
                                  .sack_permitted = choice & 4,
                                  .timestamp = choice & 8,
                                  .ts_value = (uint32_t)(t->now >> 20)};
    size_t len = reader_be16(r) % 20000, header_len;
    uint8_t head[TCP_HEADER_MAX];

    if (choice & 16)
        options.sack[options.sack_count++] =
            (struct tcp_sack_block){acked + 100, acked + 100 + (uint32_t)(choice >> 5) * 500};
    header_len = tcp_header_write(head, &header, &options, 0);
    guest_packet(t, &(struct ipv4_header){.protocol = IPPROTO_TCP}, head, header_len,
                 header_len + len, NULL);
}

static void guest_bytes(struct target *t, struct reader *r)
{
    size_t len = reader_u8(r);
    struct culvert_frame *frame;
    const uint8_t *bytes;

    if (len > r->left)
        len = r->left;
    bytes = reader_bytes(r, len);
    frame = culvert_frame_new(12 + len);
    check(frame != NULL);
    memcpy(frame->data, GATEWAY_MAC, 6);
    memcpy(frame->data + 6, GUEST_MAC, 6);
    if (len)
        memcpy(frame->data + 12, bytes, len);
    frame->len = 12 + len;
    stack_input(t->stack, frame);
    culvert_frame_unref(frame);
}

static void guest_fragment(struct target *t, struct reader *r)
{
    static const uint8_t protocols[] = {IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_TCP};
    struct ipv4_header ip = {.protocol = protocols[reader_u8(r) % 3], .id = 1};
    uint8_t head[8] = {0x9c, 0x40, 0, 53, 0, 0, 0, 0};
    size_t len;

    ip.more_fragments = reader_u8(r) & 1;
    ip.fragment_offset = (uint16_t)(reader_u8(r) * 8u);
    len = 8 + reader_be16(r) % 1400;
    if (ip.more_fragments)
        len &= ~(size_t)7;
    store_be16(head + 4, (uint16_t)(len + reader_u8(r)));
    guest_packet(t, &ip, head, sizeof head, len, NULL);
}

static void guest_datagrams(struct target *t, struct reader *r)
{
    struct culvert_offload offload = {.gso_type = CULVERT_GSO_UDP_L4, .gso_size = reader_be16(r)};
    size_t len = UDP_HEADER_LEN + reader_be16(r) % 60000;
    uint8_t head[UDP_HEADER_LEN];

    udp_write(head, GUEST_PORT, 53, (uint16_t)len);
    guest_packet(t, &(struct ipv4_header){.protocol = IPPROTO_UDP}, head, sizeof head, len,
                 &offload);
}

/* ---- what the host does ---- */

static struct flow *flow_read(struct target *t, struct reader *r)
{
    return &t->flows[reader_u8(r) % FLOWS];
}

static void host_sends(struct target *t, struct flow *flow, size_t len)
{
    struct iovec iov[TCP_RESERVE_IOV];
    int n;

    if (!flow->answered || flow->eof)
        return;
    while ((n = tcp_rx_reserve(t->stack, flow->handle, iov)) > 0) {
        size_t room = 0;

        for (int i = 0; i < n; i++) {
            memset(iov[i].iov_base, 0x55, iov[i].iov_len);
            room += iov[i].iov_len;
        }
        if (room > len)
            room = len;
        len -= room;
        tcp_rx_commit(t->stack, flow->handle, room);
        if (len == 0)
            break;
    }
}

static void host_eof(struct target *t, struct flow *flow)
{
    if (!flow->answered || flow->eof)
        return;
    flow->eof = true;
    tcp_rx_eof(t->stack, flow->handle);
}

static void host_answers(struct target *t, struct flow *flow, uint8_t how)
{
    if (!flow->asks)
        return;
    flow->asks = false;
    if (how % 8 != 0) {
        tcp_refuse(t->stack, flow->handle, (enum tcp_refusal)(how % 5));
        return;
    }
    if (!tcp_set_upstream(t->stack, flow->handle, &host, t, (uint64_t)(flow - t->flows)))
        return;
    flow->answered = true;
    tcp_connected(t->stack, flow->handle);
}

static void host_mood(struct target *t, struct flow *flow, uint8_t mood)
{
    flow->mood = mood;
    if (flow->live && flow->blocked) {
        flow->blocked = false;
        tcp_writable(t->stack, flow->handle);
    }
}

static void host_begins(struct target *t, uint8_t port)
{
    struct flow *flow = &t->flows[port % FLOWS], begun = {.target = t, .live = true, .mood = 7};
    const struct flow_key key = {.guest = ip_address_v4(htonl(0x0a000264)),
                                 .remote = ip_address_v4(htonl(0x5db8d822)),
                                 .guest_port = (uint16_t)(GUEST_PORT + port % FLOWS),
                                 .remote_port = 80,
                                 .protocol = IPPROTO_TCP};

    if (flow->live || flow->answered)
        return;
    begun.answered = true;
    if (tcp_open_to_guest(t->stack, &key, &host, t, (uint64_t)(flow - t->flows), &begun.handle)) {
        begun.expects = flow->expects;
        begun.sent = flow->sent;
        *flow = begun;
    }
}

static void host_datagram(struct target *t, uint8_t port, size_t len)
{
    struct culvert_buffer *buffer = culvert_buffer_new(len ? len : 1);
    struct culvert_segment segment = {buffer, buffer ? buffer->data : NULL, len};
    const struct udp_output output = {
        .key = {.guest = ip_address_v4(htonl(0x0a000264)),
                .remote = ip_address_v4(htonl(0x5db8d822)),
                .guest_port = (uint16_t)(GUEST_PORT + port),
                .remote_port = 53,
                .protocol = IPPROTO_UDP},
        .segments = &segment,
        .segment_count = 1,
        .len = len,
        .gso_size = port & 1 ? (uint16_t)(len / 3) : 0,
    };

    check(buffer != NULL);
    memset(buffer->data, 0, len);
    (void)stack_udp_output(t->stack, &output);
    culvert_buffer_unref(buffer);
}

/* ---- time and link ---- */

static void time_passes(struct target *t, uint8_t log)
{
    uint64_t until = t->now + (UINT64_C(1000) << log % 34);

    /* From timer to timer, as the poll thread would wake. */
    for (int i = 0; i < 64 && timers_next(t->timers) <= until; i++) {
        if (timers_next(t->timers) > t->now)
            t->now = timers_next(t->timers);
        stack_set_now(t->stack, t->now);
        timers_expire(t->timers, t->now);
        stack_batch_end(t->stack, false);
    }
    t->now = until;
    stack_set_now(t->stack, t->now);
}

static void link_has_room(struct target *t, bool full)
{
    t->full = full;
    if (!full)
        stack_link_writable(t->stack);
}

static void set_link(struct target *t, uint8_t which, uint32_t mtu)
{
    const struct culvert_link link = {.offloads =
                                          CULVERT_LINK_CSUM | (which & 2 ? CULVERT_LINK_TSO4 : 0),
                                      .mtu = mtu,
                                      .mac = {2, 0, 0, 0, 0, 1},
                                      .up = which % 4 != 0};

    stack_set_link(t->stack, &link);
}

static void step(struct target *t, struct reader *r)
{
    struct flow *flow;

    switch (reader_u8(r) % 16) {
    case 0:
        guest_segment(t, r);
        break;
    case 1:
        flow = flow_read(t, r);
        host_sends(t, flow, reader_be16(r) * 4u);
        break;
    case 2:
        host_eof(t, flow_read(t, r));
        break;
    case 3:
        flow = flow_read(t, r);
        if (flow->answered)
            tcp_host_reset(t->stack, flow->handle);
        break;
    case 4:
        flow = flow_read(t, r);
        host_answers(t, flow, reader_u8(r));
        break;
    case 5:
        flow = flow_read(t, r);
        host_mood(t, flow, reader_u8(r));
        break;
    case 6:
        flow = flow_read(t, r);
        if (flow->live)
            tcp_abort(t->stack, flow->handle);
        break;
    case 7:
        time_passes(t, reader_u8(r));
        break;
    case 8:
        link_has_room(t, reader_u8(r) & 1);
        break;
    case 9:
        stack_batch_end(t->stack, reader_u8(r) & 1);
        break;
    case 10:
        host_begins(t, reader_u8(r));
        break;
    case 11: {
        uint8_t which = reader_u8(r);

        set_link(t, which, reader_be16(r));
        break;
    }
    case 12:
        guest_bytes(t, r);
        break;
    case 13:
        guest_fragment(t, r);
        break;
    case 14:
        guest_datagrams(t, r);
        break;
    default: {
        uint8_t port = reader_u8(r);

        host_datagram(t, port, reader_be16(r) % 60000u);
    }
    }
}

/* ---- beginning and end ---- */

static void start(struct target *t)
{
    static const struct stack_ops ops = {.send = sent,
                                         .tcp_open = opened,
                                         .udp_input = datagram,
                                         .echo_input = echo,
                                         .tcp_closed = closed};
    struct stack_config config = {.mtu = 1500,
                                  .guest4 = ip_address_v4(htonl(0x0a000264)),
                                  .gateway4 = ip_address_v4(htonl(0x0a000202)),
                                  .dns4 = ip_address_v4(htonl(0x0a000203)),
                                  .prefix4 = 24,
                                  .ipv6 = true,
                                  .guest6 = {.bytes = {0xfd, [15] = 100}},
                                  .gateway6 = {.bytes = {0xfd, [15] = 2}},
                                  .dns6 = {.bytes = {0xfd, [15] = 3}},
                                  .link_local6 = {.bytes = {0xfe, 0x80, [15] = 2}},
                                  .prefix6 = 64,
                                  .max_flows = FLOWS,
                                  .queue_budget = 20000,
                                  .hash_key = {1, 2}};

    *t = (struct target){.now = 1000000000};
    memcpy(config.gateway_mac, GATEWAY_MAC, 6);
    t->timers = timers_new(t, t->now);
    check(t->timers != NULL);
    t->stack = stack_new(&config, &ops, t, t->timers, &t->counters, t->now);
    check(t->stack != NULL);
    set_link(t, 3, 1500);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader r = reader_of(data, size);
    struct target t;

    start(&t);
    while (!reader_at_end(&r) && t.now < TIME_MAX)
        step(&t, &r);
    stack_batch_end(t.stack, false);
    stack_free(t.stack);
    for (unsigned i = 0; i < FLOWS; i++)
        check(!t.flows[i].live && !t.flows[i].answered);
    check(timers_next(t.timers) == TIMERS_NEVER);
    timers_free(t.timers);
    return 0;
}
