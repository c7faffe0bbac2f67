/* SPDX-License-Identifier: Apache-2.0 */
#include "script.h"

#include <errno.h>
#include <stdlib.h>

#define GUEST_KEY 11u
#define HOST_KEY  22u

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 0x64};
static const uint8_t gateway_mac[6] = {2, 0x63, 0x75, 0x6c, 0x76, 2};

static struct ip_address address(const char *text)
{
    struct ip_address a;
    assert_true(ip_address_parse(text, &a));
    return a;
}

static struct ip_address guest_address(const struct script *s)
{
    return address(s->v6 ? "fd63:756c:7665::64" : "10.0.2.100");
}

static struct ip_address remote_address(const struct script *s)
{
    return address(s->v6 ? "2606:4700::1111" : "93.184.216.34");
}

/* ---- the host side ---- */

static ssize_t takes_bytes(void *ctx, uint64_t token, const struct iovec *iov, int count)
{
    struct script *s = ctx;
    size_t taken = 0;
    assert_int_equal(token, 77);
    s->writes++;
    for (int i = 0; i < count && s->take > 0; i++) {
        size_t n = iov[i].iov_len < s->take ? iov[i].iov_len : s->take;
        assert_int_equal(stream_matches(GUEST_KEY, s->written, iov[i].iov_base, n), n);
        s->written += n;
        taken += n;
        if (s->take != SIZE_MAX)
            s->take -= n;
    }
    return (ssize_t)taken;
}

static void is_shut(void *ctx, uint64_t token)
{
    (void)token;
    ((struct script *)ctx)->shuts++;
}

static void may_resume(void *ctx, uint64_t token)
{
    (void)token;
    ((struct script *)ctx)->resumes++;
}

static void is_probed(void *ctx, uint64_t token)
{
    (void)token;
    ((struct script *)ctx)->keepalives++;
}

static void is_closed(void *ctx, uint64_t token, enum tcp_close how)
{
    struct script *s = ctx;
    (void)token;
    s->closes++;
    s->how = how;
}

const struct tcp_upstream script_upstream = {
    .write = takes_bytes,
    .shut_write = is_shut,
    .resume = may_resume,
    .keepalive = is_probed,
    .close = is_closed,
};

size_t host_sends(struct script *s, size_t n)
{
    size_t done = 0;
    stack_set_now(s->stack, s->now);
    while (done < n) {
        struct iovec iov[TCP_RESERVE_IOV];
        int count = tcp_rx_reserve(s->stack, s->flow, iov);
        size_t turn = 0;
        if (count == 0)
            break;
        for (int i = 0; i < count && done + turn < n; i++) {
            size_t piece = iov[i].iov_len < n - done - turn ? iov[i].iov_len : n - done - turn;
            stream_fill(HOST_KEY, s->host_total + turn, iov[i].iov_base, piece);
            turn += piece;
        }
        s->host_total += turn;
        done += turn;
        tcp_rx_commit(s->stack, s->flow, turn);
    }
    if (!s->batch_open)
        stack_batch_end(s->stack, STACK_ACKS_NOW);
    return done;
}

void host_eof(struct script *s)
{
    stack_set_now(s->stack, s->now);
    tcp_rx_eof(s->stack, s->flow);
    stack_batch_end(s->stack, STACK_ACKS_NOW);
}

void host_resets(struct script *s)
{
    stack_set_now(s->stack, s->now);
    tcp_host_reset(s->stack, s->flow);
    stack_batch_end(s->stack, STACK_ACKS_NOW);
}

void host_takes(struct script *s, size_t bytes)
{
    s->take = bytes;
    stack_set_now(s->stack, s->now);
    tcp_writable(s->stack, s->flow);
    stack_batch_end(s->stack, STACK_ACKS_NOW);
}

/* ---- the stack's operations ---- */

static int gets_frame(void *ctx, struct culvert_frame *frame)
{
    struct script *s = ctx;
    if (s->link_full)
        return -EAGAIN;
    if (s->sent_next == s->sent_count)
        s->sent_next = s->sent_count = 0;
    assert_true(s->sent_count < SENT_MAX);
    s->sent[s->sent_count++] = packet_of_frame(frame);
    return 0;
}

static void opens(void *ctx, struct flow_handle flow, const struct flow_key *key)
{
    struct script *s = ctx;
    assert_int_equal(key->remote_port, REMOTE_PORT);
    s->flow = flow;
    s->opens++;
}

static void no_datagram(void *ctx, const struct udp_datagram *datagram)
{
    (void)ctx;
    (void)datagram;
    fail();
}

static void no_echo(void *ctx, const struct echo_request *request)
{
    (void)ctx;
    (void)request;
    fail();
}

static struct script *script_make(uint32_t mtu, uint32_t max_flows, size_t queue_budget)
{
    static const struct stack_ops ops = {
        .send = gets_frame, .tcp_open = opens, .udp_input = no_datagram, .echo_input = no_echo};
    struct script *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    struct stack_config config = {
        .mtu = mtu,
        .guest4 = address("10.0.2.100"),
        .gateway4 = address("10.0.2.2"),
        .dns4 = address("10.0.2.3"),
        .prefix4 = 24,
        .ipv6 = mtu >= 1280,
        .guest6 = address("fd63:756c:7665::64"),
        .gateway6 = address("fd63:756c:7665::2"),
        .dns6 = address("fd63:756c:7665::3"),
        .link_local6 = address("fe80::2"),
        .prefix6 = 64,
        .max_flows = max_flows,
        .queue_budget = queue_budget,
        .hash_key = {1, 2},
        .verify_checksums = true,
    };
    memcpy(config.gateway_mac, gateway_mac, 6);
    s->now = 1000 * MSEC;
    s->mtu = mtu;
    s->guest_iss = GUEST_ISS;
    s->guest_port = GUEST_PORT;
    s->take = SIZE_MAX;
    s->tsval = 5000;
    s->timers = timers_new(s, s->now);
    s->stack = stack_new(&config, &ops, s, s->timers, &s->counters, s->now);
    assert_non_null(s->stack);
    struct culvert_link link = {.offloads =
                                    CULVERT_LINK_CSUM | CULVERT_LINK_TSO4 | CULVERT_LINK_TSO6,
                                .mtu = mtu,
                                .up = true,
                                .generation = 1};
    memcpy(link.mac, guest_mac, 6);
    stack_set_link(s->stack, &link);
    return s;
}

struct script *script_new_with(uint32_t mtu, uint32_t max_flows)
{
    return script_make(mtu, max_flows, 0);
}

struct script *script_new_within(size_t queue_budget)
{
    return script_make(1500, 100, queue_budget);
}

struct script *script_new(void)
{
    return script_new_with(1500, 100);
}

void forget(struct script *s)
{
    while (s->sent_next < s->sent_count)
        packet_free(s->sent[s->sent_next++]);
    s->sent_next = s->sent_count = 0;
}

void script_free(struct script *s)
{
    forget(s);
    stack_free(s->stack);
    timers_free(s->timers);
    free(s);
}

/* ---- the guest ---- */

void batch_begin(struct script *s)
{
    stack_set_now(s->stack, s->now);
    s->batch_open = true;
}

void batch_end(struct script *s)
{
    s->batch_open = false;
    stack_batch_end(s->stack, STACK_ACKS_NOW);
}

void guest_segment(struct script *s, struct segment segment, const struct packet_style *style)
{
    static const struct packet_style plain = {{0}};
    struct packet_style complete = style ? *style : plain;
    uint8_t bytes[65536];
    memcpy(complete.source_mac, guest_mac, 6);
    memcpy(complete.destination_mac, gateway_mac, 6);
    segment.source = guest_address(s);
    segment.destination = remote_address(s);
    segment.source_port = s->guest_port;
    segment.destination_port = REMOTE_PORT;
    if (segment.len && !segment.payload) {
        stream_fill(GUEST_KEY, (uint64_t)segment.seq - 1, bytes, segment.len);
        segment.payload = bytes;
    }
    segment.seq += s->guest_iss;
    if (segment.flags & TCP_ACK)
        segment.ack += s->irs;
    for (unsigned i = 0; i < segment.sack_count; i++) {
        segment.sack[i].from += s->irs;
        segment.sack[i].to += s->irs;
    }
    struct packet *packet = packet_build(&segment, &complete);
    struct culvert_frame *frame = packet_to_frame(packet, NULL);
    stack_set_now(s->stack, s->now);
    stack_input(s->stack, frame);
    culvert_frame_unref(frame);
    packet_free(packet);
    if (!s->batch_open)
        stack_batch_end(s->stack, STACK_ACKS_NOW);
}

void guest(struct script *s, uint8_t flags, uint32_t seq, uint32_t ack, uint16_t window, size_t len)
{
    struct segment segment = {.flags = flags, .seq = seq, .ack = ack, .window = window, .len = len};
    if (s->timestamps) {
        segment.has_timestamps = true;
        segment.tsval = s->tsval;
    }
    guest_segment(s, segment, NULL);
}

void wait_ms(struct script *s, uint64_t ms)
{
    uint64_t until = s->now + ms * MSEC;
    while (timers_next(s->timers) <= until) {
        uint64_t next = timers_next(s->timers);
        s->now = next > s->now ? next : s->now;
        stack_set_now(s->stack, s->now);
        timers_expire(s->timers, s->now);
        stack_batch_end(s->stack, STACK_ACKS_NOW);
    }
    s->now = until;
}

/* ---- expectations ---- */

static enum packet_kind next_frame(struct script *s, struct segment *segment,
                                   struct icmp_error *error)
{
    const char *wrong = NULL;
    /* Router advertisements and the like are no concern of these tests. */
    while (s->sent_next < s->sent_count) {
        struct packet *packet = s->sent[s->sent_next];
        enum packet_kind kind = packet_parse(packet, segment, error, &wrong);
        if (kind == PACKET_BAD || (kind == PACKET_TCP && segment->options_wrong))
            fail_msg("a bad frame: %s", wrong ? wrong : segment->options_wrong);
        if (kind != PACKET_OTHER)
            return kind;
        s->sent_next++;
        packet_free(packet);
    }
    return PACKET_OTHER;
}

struct segment expect_segment(struct script *s)
{
    struct segment segment;
    struct icmp_error error;
    if (next_frame(s, &segment, &error) != PACKET_TCP)
        fail_msg("nothing was sent");
    if (segment.flags & TCP_SYN)
        s->irs = segment.seq;
    if (segment.len) {
        uint64_t offset = segment.seq - s->irs - 1;
        assert_int_equal(stream_matches(HOST_KEY, offset, segment.payload, segment.len),
                         segment.len);
    }
    segment.payload = NULL;
    segment.seq -= s->irs;
    segment.ack -= s->guest_iss;
    packet_free(s->sent[s->sent_next++]);
    return segment;
}

struct segment expect(struct script *s, uint8_t flags, uint32_t seq, uint32_t ack, size_t len)
{
    struct segment got = expect_segment(s);
    uint8_t compared = (uint8_t) ~(unsigned)(flags & TCP_PSH ? 0 : TCP_PSH);
    bool same = (got.flags & compared) == (flags & compared) && got.seq == seq && got.len == len;
    if (!same || ((flags & TCP_ACK) && got.ack != ack))
        fail_msg("got flags %x seq %u ack %u len %zu, expected flags %x seq %u ack %u len %zu",
                 got.flags, got.seq, got.ack, got.len, flags, seq, ack, len);
    return got;
}

struct icmp_error expect_icmp(struct script *s)
{
    struct segment segment;
    struct icmp_error error;
    if (next_frame(s, &segment, &error) != PACKET_ICMP_ERROR)
        fail_msg("no ICMP error was sent");
    packet_free(s->sent[s->sent_next++]);
    return error;
}

void expect_nothing(struct script *s)
{
    struct segment segment;
    struct icmp_error error;
    enum packet_kind kind = next_frame(s, &segment, &error);
    if (kind == PACKET_TCP)
        fail_msg("unexpected: flags %x seq %u ack %u len %zu", segment.flags, segment.seq - s->irs,
                 segment.ack - s->guest_iss, segment.len);
    if (kind == PACKET_ICMP_ERROR)
        fail_msg("unexpected ICMP error %u/%u", error.type, error.code);
}

/* ---- handshakes ---- */

struct segment plain_syn(void)
{
    return (struct segment){.flags = TCP_SYN, .window = 65535, .has_mss = true, .mss = 1460};
}

struct segment modern_syn(void)
{
    struct segment syn = plain_syn();
    syn.has_wscale = syn.sack_permitted = syn.has_timestamps = true;
    syn.wscale = 7;
    syn.tsval = 5000;
    return syn;
}

void open_flow(struct script *s, struct segment syn)
{
    syn.seq = 0;
    s->timestamps = syn.has_timestamps;
    if (s->v6 && syn.mss > s->mtu - 60)
        syn.mss = (uint16_t)(s->mtu - 60);
    guest_segment(s, syn, NULL);
    assert_int_equal(s->opens, 1);
    expect_nothing(s);
    assert_true(tcp_set_upstream(s->stack, s->flow, &script_upstream, s, 77));
    tcp_connected(s->stack, s->flow);
    expect(s, TCP_SYN | TCP_ACK, 0, 1, 0);
    guest(s, TCP_ACK, 1, 1, syn.window, 0);
    expect_nothing(s);
}
