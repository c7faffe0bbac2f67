/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors for the guest: each quotes the packet that caused it.
 *
 * The quote is the packet itself while it is at hand (a refusal), or one made again from what the
 * host's error queue or a flow still knows (a report): addresses, ports, and as much payload as is
 * there, which is all that a guest's sockets look at. No error answers an error, a group address or
 * a source that is nobody, and a token bucket bounds them all (RFC 1122 3.2.2, RFC 1812 4.3.2, RFC
 * 4443 2.4). */

#include <netinet/in.h>
#include <string.h>

#include "stack/network.h"
#include "wire/icmp.h"
#include "wire/ip.h"
#include "wire/udp.h"

#define ERRORS_BURST  100u
#define ERRORS_PERIOD MS_NS /* one more token */
#define ERROR4_MAX    576u  /* RFC 1812 4.3.2.3 */
#define ERROR6_MAX    1280u /* RFC 4443 2.4 c */
#define QUOTE_MAX     (ERROR6_MAX - 40u - ICMP_HEADER_LEN)
#define TCP_HEADER    20u
#define SYN_FLAG      0x02
#define DEFAULT_TTL   64

void icmp_errors_init(struct error_bucket *bucket, uint64_t now)
{
    *bucket = (struct error_bucket){.tokens = ERRORS_BURST, .filled = now};
}

static bool take_token(struct stack *stack)
{
    struct error_bucket *bucket = &stack->ip->errors;
    uint64_t periods = (stack->now - bucket->filled) / ERRORS_PERIOD;

    if (bucket->tokens + periods >= ERRORS_BURST) {
        bucket->tokens = ERRORS_BURST;
        bucket->filled = stack->now;
    } else {
        bucket->tokens += (uint32_t)periods;
        bucket->filled += periods * ERRORS_PERIOD;
    }
    if (bucket->tokens == 0) {
        count(stack->counters, COUNTER_icmp_rate_limited);
        return false;
    }
    bucket->tokens--;
    return true;
}

static struct icmp_header message4(enum icmp_problem problem, uint32_t mtu)
{
    static const uint8_t codes[] = {
        [ICMP_PROBLEM_NET_UNREACHABLE] = ICMP4_CODE_NET,
        [ICMP_PROBLEM_HOST_UNREACHABLE] = ICMP4_CODE_HOST,
        [ICMP_PROBLEM_PROTOCOL_UNREACHABLE] = ICMP4_CODE_PROTOCOL,
        [ICMP_PROBLEM_PORT_UNREACHABLE] = ICMP4_CODE_PORT,
        [ICMP_PROBLEM_PROHIBITED] = ICMP4_CODE_PROHIBITED,
        [ICMP_PROBLEM_TOO_BIG] = ICMP4_CODE_TOO_BIG,
        [ICMP_PROBLEM_TIME_EXCEEDED] = 0,
    };

    return (struct icmp_header){
        .type = problem == ICMP_PROBLEM_TIME_EXCEEDED ? ICMP4_TIME_EXCEEDED : ICMP4_UNREACHABLE,
        .code = codes[problem],
        .rest = problem == ICMP_PROBLEM_TOO_BIG ? (mtu < 0xffff ? mtu : 0xffff) : 0,
    };
}

static struct icmp_header message6(enum icmp_problem problem, uint32_t mtu)
{
    static const struct icmp_header messages[] = {
        [ICMP_PROBLEM_NET_UNREACHABLE] = {ICMP6_UNREACHABLE, ICMP6_CODE_NO_ROUTE, 0},
        [ICMP_PROBLEM_HOST_UNREACHABLE] = {ICMP6_UNREACHABLE, ICMP6_CODE_ADDRESS, 0},
        /* "unrecognized next header", pointing at the one in the fixed header */
        [ICMP_PROBLEM_PROTOCOL_UNREACHABLE] = {ICMP6_PARAMETER_PROBLEM, ICMP6_CODE_NEXT_HEADER, 6},
        [ICMP_PROBLEM_PORT_UNREACHABLE] = {ICMP6_UNREACHABLE, ICMP6_CODE_PORT, 0},
        [ICMP_PROBLEM_PROHIBITED] = {ICMP6_UNREACHABLE, ICMP6_CODE_PROHIBITED, 0},
        [ICMP_PROBLEM_TOO_BIG] = {ICMP6_TOO_BIG, 0, 0},
        [ICMP_PROBLEM_TIME_EXCEEDED] = {ICMP6_TIME_EXCEEDED, 0, 0},
    };
    struct icmp_header message = messages[problem];

    if (problem == ICMP_PROBLEM_TOO_BIG)
        message.rest = mtu;
    return message;
}

static size_t quote_limit(const struct stack *stack, bool v6)
{
    size_t limit = v6 ? ERROR6_MAX : ERROR4_MAX;

    if (limit > stack->link.mtu)
        limit = stack->link.mtu;
    return limit - ip_header_len(v6) - ICMP_HEADER_LEN;
}

/* `quote`: at most quote_limit() bytes. */
static void send_error(struct stack *stack, const struct ip_address *reporter,
                       const struct ip_address *guest, enum icmp_problem problem, uint32_t mtu,
                       const uint8_t *quote, size_t len)
{
    const bool v6 = !ip_address_is_v4(guest);
    const struct icmp_header message = v6 ? message6(problem, mtu) : message4(problem, mtu);
    const struct ip_header header = {
        .source = *reporter,
        .destination = *guest,
        .protocol = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
        .ttl = DEFAULT_TTL,
    };
    struct culvert_frame *frame = ip_frame_new(stack, &header, ICMP_HEADER_LEN + len);
    size_t message_offset;

    if (frame) {
        message_offset = frame->len;
        icmp_write(frame->data + frame->len, &message);
        frame->len += ICMP_HEADER_LEN;
        if (ip_frame_append_copy(stack, frame, quote, len)) {
            count(stack->counters, COUNTER_icmp_errors_sent);
            icmp_finish(stack, &header, message_offset, frame);
            return;
        }
    }
    count(stack->counters, COUNTER_icmp_no_memory);
    culvert_frame_unref(frame);
}

/* The address of ours that the guest was talking to, else the gateway. */
static const struct ip_address *own_reporter(const struct stack *stack,
                                             const struct ip_address *remote)
{
    if (ip_address_owned(stack, remote))
        return remote;
    return ip_address_is_v4(remote) ? &stack->config.gateway4 : &stack->config.gateway6;
}

/* ---- the packet is at hand ---- */

static bool is_icmp_error(const struct ip_packet *packet)
{
    uint8_t scratch[IP_SCRATCH_LEN];
    const uint8_t *type;

    if (packet->protocol != (packet->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
        return false;
    type = ip_packet_linear(packet, packet->offset, 1, scratch);
    if (!type)
        return true; /* cannot be told: silence is always allowed */
    return packet->v6 ? icmp6_is_error(*type) : icmp4_is_error(*type);
}

static bool is_answerable(const struct stack *stack, const struct ip_packet *packet)
{
    static const struct ip_address unspecified;

    return !ip_address_is_multicast(&packet->destination) &&
           !ip_address_is_broadcast(stack, &packet->destination) &&
           !ip_address_equal(&packet->source, &unspecified) &&
           !(ip_address_is_v4(&packet->source) && packet->source.be32[3] == 0) &&
           !is_icmp_error(packet);
}

void icmp_refuse_packet(struct stack *stack, const struct ip_packet *packet,
                        enum icmp_problem problem, uint32_t mtu)
{
    uint8_t quote[QUOTE_MAX];
    size_t limit = quote_limit(stack, packet->v6);
    size_t len = packet->offset + packet->len - packet->ip_offset;

    if (len > limit)
        len = limit;
    if (!is_answerable(stack, packet) || !take_token(stack) ||
        !frame_copy(packet->frame, packet->ip_offset, len, quote))
        return;
    send_error(stack, own_reporter(stack, &packet->destination), &packet->source, problem, mtu,
               quote, len);
}

void stack_icmp_refuse(struct stack *stack, struct culvert_frame *frame, enum icmp_problem problem,
                       uint32_t mtu)
{
    struct ip_packet packet;

    if (ip_packet_of_frame(frame, &packet))
        icmp_refuse_packet(stack, &packet, problem, mtu);
}

/* ---- the packet is made again ---- */

/* Writes the IP header of a packet from the guest; returns its length. */
static size_t quote_ip(uint8_t *to, const struct flow_key *key, size_t transport_len)
{
    const bool v6 = !ip_address_is_v4(&key->guest);
    const size_t most = v6 ? 65535 : 65535 - IPV4_HEADER_LEN;

    if (transport_len > most)
        transport_len = most;
    if (v6)
        ipv6_write(to, &(struct ipv6_header){
                           .source = key->guest,
                           .destination = key->remote,
                           .payload_len = (uint16_t)transport_len,
                           .next_header = key->protocol,
                           .hop_limit = 1,
                       });
    else
        ipv4_write(to, &(struct ipv4_header){
                           .source = key->guest,
                           .destination = key->remote,
                           .total_len = (uint16_t)(IPV4_HEADER_LEN + transport_len),
                           .dont_fragment = true,
                           .ttl = 1,
                           .protocol = key->protocol,
                       });
    return ip_header_len(v6);
}

/* UDP's or echo's header; the checksum is left out, as nobody can know it. */
static void quote_transport(uint8_t *to, const struct icmp_report *report, size_t payload_len)
{
    const struct flow_key *key = &report->key;

    if (key->protocol == IPPROTO_UDP) {
        size_t len = UDP_HEADER_LEN + payload_len;
        udp_write(to, key->guest_port, key->remote_port, (uint16_t)(len < 65535 ? len : 65535));
        return;
    }
    icmp_write(
        to, &(struct icmp_header){
                .type = key->protocol == IPPROTO_ICMPV6 ? ICMP6_ECHO_REQUEST : ICMP4_ECHO_REQUEST,
                .rest = (uint32_t)key->guest_port << 16 | report->sequence,
            });
}

void stack_icmp_report(struct stack *stack, const struct icmp_report *report)
{
    static const struct ip_address nobody;
    const struct ip_address *reporter = &report->reporter;
    const size_t original = report->original_len ? report->original_len : report->payload_len;
    uint8_t quote[QUOTE_MAX];
    size_t len, limit = quote_limit(stack, !ip_address_is_v4(&report->key.guest));
    size_t payload_len = report->payload_len;

    if (!take_token(stack))
        return;
    if (ip_address_equal(reporter, &nobody) ||
        ip_address_is_v4(reporter) != ip_address_is_v4(&report->key.guest))
        reporter = own_reporter(stack, &report->key.remote);
    len = quote_ip(quote, &report->key, 8 + original);
    quote_transport(quote + len, report, original);
    len += 8;
    if (payload_len > limit - len)
        payload_len = limit - len;
    if (payload_len != 0)
        memcpy(quote + len, report->payload, payload_len);
    send_error(stack, reporter, &report->key.guest, report->problem, report->mtu, quote,
               len + payload_len);
}

void icmp_refuse_syn(struct stack *stack, const struct flow_key *key, uint32_t sequence,
                     enum icmp_problem problem)
{
    uint8_t quote[IPV6_HEADER_LEN + TCP_HEADER];
    size_t len = quote_ip(quote, key, TCP_HEADER);
    uint8_t *tcp = quote + len;

    if (!take_token(stack))
        return;
    memset(tcp, 0, TCP_HEADER);
    store_be16(tcp, key->guest_port);
    store_be16(tcp + 2, key->remote_port);
    store_be32(tcp + 4, sequence);
    tcp[12] = TCP_HEADER / 4 << 4;
    tcp[13] = SYN_FLAG;
    send_error(stack, own_reporter(stack, &key->remote), &key->guest, problem, 0, quote,
               len + TCP_HEADER);
}
