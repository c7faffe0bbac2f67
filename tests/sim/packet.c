/* SPDX-License-Identifier: Apache-2.0 */
#include "packet.h"

#include <stdlib.h>

#define ETHERNET 14

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value)
{
    put16(p, value >> 16);
    put16(p + 2, value & 0xffff);
}

/* Words in the machine's order, as RFC 1071 allows; `bytes` may be odd only at the very end. */
static uint64_t sum_add(uint64_t sum, const uint8_t *bytes, size_t len)
{
    for (; len >= 4; bytes += 4, len -= 4) {
        uint32_t word;
        memcpy(&word, bytes, 4);
        sum += word;
    }
    if (len >= 2) {
        uint16_t word;
        memcpy(&word, bytes, 2);
        sum += word;
        bytes += 2;
        len -= 2;
    }
    if (len) {
        const uint8_t last[2] = {bytes[0], 0};
        uint16_t word;
        memcpy(&word, last, 2);
        sum += word;
    }
    return sum;
}

static uint16_t sum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static uint64_t sum_pseudo(const struct ip_address *source, const struct ip_address *destination,
                           uint8_t protocol, size_t len)
{
    uint8_t pseudo[40] = {0};
    if (ip_address_is_v4(source)) {
        memcpy(pseudo, source->bytes + 12, 4);
        memcpy(pseudo + 4, destination->bytes + 12, 4);
        pseudo[9] = protocol;
        put16(pseudo + 10, (unsigned)len);
        return sum_add(0, pseudo, 12);
    }
    memcpy(pseudo, source->bytes, 16);
    memcpy(pseudo + 16, destination->bytes, 16);
    put32(pseudo + 32, (uint32_t)len);
    pseudo[39] = protocol;
    return sum_add(0, pseudo, 40);
}

struct packet *packet_new(size_t len)
{
    struct packet *packet = calloc(1, sizeof(*packet));
    if (!packet)
        abort();
    packet->bytes = malloc(len ? len : 1);
    if (!packet->bytes)
        abort();
    packet->len = len;
    return packet;
}

void packet_free(struct packet *packet)
{
    if (!packet)
        return;
    if (packet->frame)
        culvert_frame_unref(packet->frame);
    free(packet->bytes);
    free(packet);
}

struct packet *packet_copy(const struct packet *packet)
{
    struct packet *copy = packet_new(packet->len);
    memcpy(copy->bytes, packet->bytes, packet->len);
    copy->offload = packet->offload;
    copy->number = packet->number;
    return copy;
}

/* ---- building ---- */

static size_t put_timestamps(uint8_t *p, const struct segment *s)
{
    p[0] = 8;
    p[1] = 10;
    put32(p + 2, s->tsval);
    put32(p + 6, s->tsecr);
    return 10;
}

static size_t put_sack(uint8_t *p, size_t room, const struct segment *s)
{
    unsigned count = s->sack_count;
    while (count > 0 && 2 + 8 * (size_t)count > room)
        count--;
    if (count == 0)
        return 0;
    p[0] = 5;
    p[1] = (uint8_t)(2 + 8 * count);
    for (unsigned i = 0; i < count; i++) {
        put32(p + 2 + 8 * i, s->sack[i].from);
        put32(p + 6 + 8 * i, s->sack[i].to);
    }
    return p[1];
}

static size_t put_options(uint8_t p[40], const struct segment *s, const struct packet_style *style)
{
    size_t n = 0;
    memset(p, 1, 40); /* NOPs */
    if (s->has_mss) {
        p[n] = 2, p[n + 1] = 4;
        put16(p + n + 2, s->mss);
        n += 4;
    }
    if (s->sack_permitted) {
        p[n] = 4, p[n + 1] = 2;
        n += 2;
    }
    if (s->has_wscale) {
        p[n] = 3, p[n + 1] = 3, p[n + 2] = s->wscale;
        n += 3;
    }
    if (s->has_timestamps)
        n += put_timestamps(p + n, s);
    n = (n + 1) / 2 * 2;
    n += put_sack(p + n, 40 - n, s);
    if (style->options == OPTIONS_UNKNOWN && n + 6 <= 40) {
        static const uint8_t unknown[6] = {253, 6, 1, 2, 3, 4};
        memcpy(p + n, unknown, 6);
        n += 6;
    } else if (style->options == OPTIONS_ZERO_LENGTH && n + 2 <= 40) {
        p[n] = 30, p[n + 1] = 0;
        n += 2;
    } else if (style->options == OPTIONS_TOO_LONG && n + 2 <= 40) {
        p[n] = 30, p[n + 1] = 200;
        n += 2;
    }
    return (n + 3) / 4 * 4;
}

static uint8_t *put_ip(uint8_t *p, const struct segment *s, size_t transport_len)
{
    if (ip_address_is_v4(&s->source)) {
        memset(p, 0, 20);
        p[0] = 0x45;
        put16(p + 2, (unsigned)(20 + transport_len));
        put16(p + 4, s->seq & 0xffff);
        p[6] = 0x40;
        p[8] = 64;
        p[9] = 6;
        memcpy(p + 12, s->source.bytes + 12, 4);
        memcpy(p + 16, s->destination.bytes + 12, 4);
        uint16_t sum = (uint16_t)~sum_fold(sum_add(0, p, 20));
        memcpy(p + 10, &sum, 2);
        return p + 20;
    }
    memset(p, 0, 40);
    p[0] = 0x60;
    put16(p + 4, (unsigned)transport_len);
    p[6] = 6;
    p[7] = 64;
    memcpy(p + 8, s->source.bytes, 16);
    memcpy(p + 24, s->destination.bytes, 16);
    return p + 40;
}

static void put_tcp(uint8_t *t, const struct segment *s, const uint8_t *options, size_t options_len)
{
    memset(t, 0, 20);
    put16(t, s->source_port);
    put16(t + 2, s->destination_port);
    put32(t + 4, s->seq);
    put32(t + 8, s->ack);
    t[12] = (uint8_t)((20 + options_len) / 4 << 4);
    t[13] = s->flags;
    put16(t + 14, s->window);
    put16(t + 18, s->urgent);
    memcpy(t + 20, options, options_len);
}

struct packet *packet_build(const struct segment *s, const struct packet_style *style)
{
    bool v4 = ip_address_is_v4(&s->source);
    uint8_t options[40];
    size_t options_len = put_options(options, s, style);
    size_t ip_len = v4 ? 20 : 40, transport_len = 20 + options_len + s->len;
    struct packet *packet = packet_new(ETHERNET + ip_len + transport_len);
    uint8_t *p = packet->bytes;
    memcpy(p, style->destination_mac, 6);
    memcpy(p + 6, style->source_mac, 6);
    put16(p + 12, v4 ? 0x0800 : 0x86dd);
    uint8_t *t = put_ip(p + ETHERNET, s, transport_len);
    put_tcp(t, s, options, options_len);
    if (s->len)
        memcpy(t + 20 + options_len, s->payload, s->len);
    uint64_t sum = sum_pseudo(&s->source, &s->destination, 6, transport_len);
    if (style->offload_checksum || s->gso_size) {
        uint16_t folded = sum_fold(sum);
        memcpy(t + 16, &folded, 2);
        packet->offload.flags = CULVERT_OFFLOAD_NEEDS_CSUM;
        packet->offload.csum_start = (uint16_t)(t - p);
        packet->offload.csum_offset = 16;
        if (s->gso_size) {
            packet->offload.gso_type = v4 ? CULVERT_GSO_TCPV4 : CULVERT_GSO_TCPV6;
            packet->offload.gso_size = s->gso_size;
            packet->offload.hdr_len = (uint16_t)(t + 20 + options_len - p);
        }
        return packet;
    }
    uint16_t folded = (uint16_t)~sum_fold(sum_add(sum, t, transport_len));
    if (style->wrong_checksum)
        folded ^= 0x1040;
    memcpy(t + 16, &folded, 2);
    return packet;
}

/* ---- from and to the engine's frames ---- */

static size_t frame_gather(const struct culvert_frame *frame, uint8_t *to)
{
    size_t n = frame->len;
    memcpy(to, frame->data, n);
    for (unsigned i = 0; i < frame->segment_count; i++) {
        memcpy(to + n, frame->segments[i].base, frame->segments[i].len);
        n += frame->segments[i].len;
    }
    return n;
}

struct packet *packet_of_frame(struct culvert_frame *frame)
{
    struct packet *packet = packet_new(culvert_frame_len(frame));
    frame_gather(frame, packet->bytes);
    packet->offload = frame->offload;
    packet->frame = frame;
    return packet;
}

bool packet_frame_unchanged(const struct packet *packet)
{
    const struct culvert_frame *frame = packet->frame;
    if (!frame)
        return true;
    if (culvert_frame_len(frame) != packet->len ||
        memcmp(&frame->offload, &packet->offload, sizeof(packet->offload)) != 0 ||
        memcmp(frame->data, packet->bytes, frame->len) != 0)
        return false;
    size_t at = frame->len;
    for (unsigned i = 0; i < frame->segment_count; i++) {
        if (memcmp(frame->segments[i].base, packet->bytes + at, frame->segments[i].len) != 0)
            return false;
        at += frame->segments[i].len;
    }
    return true;
}

struct culvert_frame *packet_to_frame(const struct packet *packet, struct rng *rng)
{
    size_t linear = packet->len;
    if (rng && packet->len > 60 && rng_chance(rng, 600))
        linear = rng_chance(rng, 200) ? rng_between(rng, 14, packet->len - 1)
                                      : rng_between(rng, 60, packet->len - 1);
    struct culvert_frame *frame = culvert_frame_new(linear);
    if (!frame)
        abort();
    memcpy(frame->data, packet->bytes, linear);
    frame->len = linear;
    frame->offload = packet->offload;
    for (size_t at = linear, piece; at < packet->len; at += piece) {
        piece = packet->len - at;
        if (frame->segment_count < 3 && rng_chance(rng, 500))
            piece = rng_between(rng, 1, piece);
        struct culvert_buffer *buffer = culvert_buffer_new(piece);
        if (!buffer)
            abort();
        memcpy(buffer->data, packet->bytes + at, piece);
        if (culvert_frame_append(frame, buffer, buffer->data, piece) != 0)
            abort();
        culvert_buffer_unref(buffer);
    }
    return frame;
}

/* ---- reading ---- */

static const char *parse_options(const uint8_t *p, size_t len, struct segment *s)
{
    s->options_len = len;
    for (size_t i = 0; i < len;) {
        if (p[i] == 0)
            break;
        if (p[i] == 1) {
            i++;
            continue;
        }
        if (i + 1 >= len || p[i + 1] < 2 || i + p[i + 1] > len)
            return "TCP option with an impossible length";
        size_t n = p[i + 1];
        if (p[i] == 2 && n == 4) {
            s->has_mss = true;
            s->mss = get16(p + i + 2);
        } else if (p[i] == 3 && n == 3) {
            s->has_wscale = true;
            s->wscale = p[i + 2];
        } else if (p[i] == 4 && n == 2) {
            s->sack_permitted = true;
        } else if (p[i] == 8 && n == 10) {
            s->has_timestamps = true;
            s->tsval = get32(p + i + 2);
            s->tsecr = get32(p + i + 6);
        } else if (p[i] == 5 && n >= 10 && (n - 2) % 8 == 0 && n <= 34) {
            s->sack_count = (unsigned)((n - 2) / 8);
            for (unsigned k = 0; k < s->sack_count; k++)
                s->sack[k] =
                    (struct sack_range){get32(p + i + 2 + 8 * k), get32(p + i + 6 + 8 * k)};
        } else {
            return "TCP option of an unknown kind or wrong length";
        }
        i += n;
    }
    return NULL;
}

static const char *check_gso(const struct packet *packet, const struct segment *s, bool v4,
                             size_t transport)
{
    const struct culvert_offload *o = &packet->offload;
    if (o->gso_type == CULVERT_GSO_NONE)
        return o->gso_size == 0 ? NULL : "gso_size without a GSO type";
    if (o->gso_type != (v4 ? CULVERT_GSO_TCPV4 : CULVERT_GSO_TCPV6))
        return "GSO type does not fit the frame";
    if (!(o->flags & CULVERT_OFFLOAD_NEEDS_CSUM))
        return "GSO without NEEDS_CSUM";
    if (o->gso_size == 0)
        return "GSO type without gso_size";
    if (s->len <= o->gso_size)
        return "GSO facts on what is a single segment";
    if (o->hdr_len != transport + 20 + s->options_len)
        return "hdr_len is not the length of the headers";
    if (s->flags & (TCP_SYN | TCP_RST | TCP_URG))
        return "GSO frame with SYN, RST or URG";
    return NULL;
}

static const char *check_transport_sum(const struct packet *packet, const struct segment *s,
                                       size_t transport, size_t len)
{
    const uint8_t *t = packet->bytes + transport;
    uint64_t pseudo = sum_pseudo(&s->source, &s->destination, 6, len);
    if (packet->offload.flags & CULVERT_OFFLOAD_NEEDS_CSUM) {
        uint16_t stored;
        memcpy(&stored, t + 16, 2);
        if (packet->offload.csum_start != transport || packet->offload.csum_offset != 16)
            return "csum_start or csum_offset does not point at the TCP checksum";
        if (stored != sum_fold(pseudo))
            return "the checksum field does not hold the pseudo header's sum";
        return NULL;
    }
    return sum_fold(sum_add(pseudo, t, len)) == 0xffff ? NULL : "wrong TCP checksum";
}

static const char *parse_tcp(const struct packet *packet, size_t transport, size_t len, bool v4,
                             struct segment *s)
{
    const uint8_t *t = packet->bytes + transport;
    if (len < 20 || (size_t)(t[12] >> 4) * 4 < 20 || (size_t)(t[12] >> 4) * 4 > len)
        return "TCP header does not fit";
    size_t header = (size_t)(t[12] >> 4) * 4;
    s->source_port = get16(t);
    s->destination_port = get16(t + 2);
    s->seq = get32(t + 4);
    s->ack = get32(t + 8);
    s->flags = t[13];
    s->window = get16(t + 14);
    s->urgent = get16(t + 18);
    s->payload = t + header;
    s->len = len - header;
    s->gso_size = packet->offload.gso_size;
    s->options_wrong = parse_options(t + 20, header - 20, s);
    const char *wrong = check_transport_sum(packet, s, transport, len);
    if (!wrong)
        wrong = check_gso(packet, s, v4, transport);
    return wrong;
}

/* The IP header at `p`: addresses, protocol, and where the transport begins and how long it is. */
static const char *parse_ip(const uint8_t *p, size_t len, bool quoted, struct ip_address *source,
                            struct ip_address *destination, uint8_t *protocol, size_t *header,
                            size_t *transport_len)
{
    if (len >= 20 && p[0] >> 4 == 4) {
        *header = (size_t)(p[0] & 15) * 4;
        size_t total = get16(p + 2);
        if (*header < 20 || *header > len || total < *header || (!quoted && total != len))
            return "IPv4 lengths are wrong";
        if (sum_fold(sum_add(0, p, *header)) != 0xffff)
            return "wrong IPv4 header checksum";
        if (!quoted && (get16(p + 6) & 0x3fff))
            return "an IPv4 fragment";
        if (p[8] == 0)
            return "TTL 0";
        *protocol = p[9];
        memcpy(&source->be32[3], p + 12, 4);
        *source = ip_address_v4(source->be32[3]);
        memcpy(&destination->be32[3], p + 16, 4);
        *destination = ip_address_v4(destination->be32[3]);
        *transport_len = total - *header;
        return NULL;
    }
    if (len >= 40 && p[0] >> 4 == 6) {
        *header = 40;
        *transport_len = get16(p + 4);
        if (!quoted && *transport_len != len - 40)
            return "IPv6 payload length is wrong";
        *protocol = p[6];
        *source = ip_address_v6(p + 8);
        *destination = ip_address_v6(p + 24);
        return NULL;
    }
    return "neither IPv4 nor IPv6";
}

static bool is_icmp_error(const uint8_t *t, size_t len, bool v4)
{
    if (len < 8)
        return false;
    return v4 ? t[0] == 3 || t[0] == 11 || t[0] == 12 : t[0] < 128;
}

static const char *parse_icmp(const uint8_t *t, size_t len, bool v4, struct icmp_error *e)
{
    e->type = t[0];
    e->code = t[1];
    e->mtu = v4 ? get16(t + 6) : get32(t + 4);
    uint64_t sum = v4 ? 0 : sum_pseudo(&e->source, &e->destination, 58, len);
    if (sum_fold(sum_add(sum, t, len)) != 0xffff)
        return "wrong ICMP checksum";
    size_t header = 0, transport_len = 0;
    const char *wrong = parse_ip(t + 8, len - 8, true, &e->quoted_source, &e->quoted_destination,
                                 &e->quoted_protocol, &header, &transport_len);
    if (wrong)
        return wrong;
    if (len < 8 + header + 8)
        return "ICMP error quotes fewer than 8 bytes of the transport";
    const uint8_t *q = t + 8 + header;
    e->quoted_source_port = get16(q);
    e->quoted_destination_port = get16(q + 2);
    e->quoted_seq = get32(q + 4);
    return NULL;
}

enum packet_kind packet_parse(const struct packet *packet, struct segment *s,
                              struct icmp_error *error, const char **ret_wrong)
{
    *s = (struct segment){0};
    *error = (struct icmp_error){0};
    if (packet->len < ETHERNET) {
        *ret_wrong = "shorter than an Ethernet header";
        return PACKET_BAD;
    }
    uint16_t type = get16(packet->bytes + 12);
    if (type != 0x0800 && type != 0x86dd)
        return PACKET_OTHER;
    size_t header = 0, len = 0;
    uint8_t protocol = 0;
    *ret_wrong = parse_ip(packet->bytes + ETHERNET, packet->len - ETHERNET, false, &s->source,
                          &s->destination, &protocol, &header, &len);
    if (*ret_wrong)
        return PACKET_BAD;
    bool v4 = type == 0x0800;
    const uint8_t *t = packet->bytes + ETHERNET + header;
    if (protocol == 6) {
        *ret_wrong = parse_tcp(packet, ETHERNET + header, len, v4, s);
        return *ret_wrong ? PACKET_BAD : PACKET_TCP;
    }
    if (protocol == (v4 ? 1 : 58) && is_icmp_error(t, len, v4) &&
        !(packet->offload.flags & CULVERT_OFFLOAD_NEEDS_CSUM)) {
        error->source = s->source;
        error->destination = s->destination;
        *ret_wrong = parse_icmp(t, len, v4, error);
        return *ret_wrong ? PACKET_BAD : PACKET_ICMP_ERROR;
    }
    return PACKET_OTHER;
}

/* ---- segmentation ---- */

static struct packet *split_piece(const struct packet *packet, size_t header, size_t transport,
                                  size_t at, size_t n, bool last)
{
    struct packet *piece = packet_new(header + n);
    memcpy(piece->bytes, packet->bytes, header);
    memcpy(piece->bytes + header, packet->bytes + header + at, n);
    piece->number = packet->number;
    uint8_t *ip = piece->bytes + ETHERNET, *t = piece->bytes + transport;
    size_t transport_len = header - transport + n;
    struct ip_address source, destination;
    if (ip[0] >> 4 == 4) {
        put16(ip + 2, (unsigned)(transport - ETHERNET + transport_len));
        memset(ip + 10, 0, 2);
        uint16_t sum = (uint16_t)~sum_fold(sum_add(0, ip, transport - ETHERNET));
        memcpy(ip + 10, &sum, 2);
        uint32_t be;
        memcpy(&be, ip + 12, 4);
        source = ip_address_v4(be);
        memcpy(&be, ip + 16, 4);
        destination = ip_address_v4(be);
    } else {
        put16(ip + 4, (unsigned)transport_len);
        source = ip_address_v6(ip + 8);
        destination = ip_address_v6(ip + 24);
    }
    put32(t + 4, get32(t + 4) + (uint32_t)at);
    if (!last)
        t[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    memset(t + 16, 0, 2);
    uint64_t sum = sum_pseudo(&source, &destination, 6, transport_len);
    uint16_t folded = (uint16_t)~sum_fold(sum_add(sum, t, transport_len));
    memcpy(t + 16, &folded, 2);
    return piece;
}

struct packet *packet_split(struct packet *packet)
{
    if (packet->offload.gso_size == 0)
        return packet;
    size_t transport = packet->offload.csum_start;
    size_t header = transport + (size_t)(packet->bytes[transport + 12] >> 4) * 4;
    size_t len = packet->len - header;
    struct packet *first = NULL, **link = &first;
    for (size_t at = 0; at < len; at += packet->offload.gso_size) {
        size_t n = len - at < packet->offload.gso_size ? len - at : packet->offload.gso_size;
        *link = split_piece(packet, header, transport, at, n, at + n == len);
        link = &(*link)->next;
    }
    packet_free(packet);
    return first;
}

/* ---- for people ---- */

void packet_print(FILE *out, const struct segment *s, uint32_t seq_base, uint32_t ack_base)
{
    static const char letters[] = "FSRPAU";
    char flags[8], *f = flags;
    for (int i = 0; i < 6; i++)
        if (s->flags >> i & 1)
            *f++ = letters[i];
    *f = 0;
    fprintf(out, "%-4s seq %u", flags, s->seq - seq_base);
    if (s->len)
        fprintf(out, "..%u (%zu)", s->seq - seq_base + (uint32_t)s->len, s->len);
    if (s->flags & TCP_ACK)
        fprintf(out, " ack %u", s->ack - ack_base);
    fprintf(out, " win %u", s->window);
    if (s->gso_size)
        fprintf(out, " gso %u", s->gso_size);
    if (s->has_mss)
        fprintf(out, " mss %u", s->mss);
    if (s->has_wscale)
        fprintf(out, " wscale %u", s->wscale);
    if (s->sack_permitted)
        fprintf(out, " sackOK");
    if (s->has_timestamps)
        fprintf(out, " ts %u/%u", s->tsval, s->tsecr);
    for (unsigned i = 0; i < s->sack_count; i++)
        fprintf(out, " sack %u-%u", s->sack[i].from - ack_base, s->sack[i].to - ack_base);
}

void pcap_begin(FILE *out)
{
    const uint32_t header[6] = {0xa1b23c4d, 0x00040002, 0, 0, 262144, 1};
    fwrite(header, sizeof(header), 1, out);
}

void pcap_add(FILE *out, const struct packet *packet, uint64_t now)
{
    const uint32_t header[4] = {(uint32_t)(now / 1000000000), (uint32_t)(now % 1000000000),
                                (uint32_t)packet->len, (uint32_t)packet->len};
    fwrite(header, sizeof(header), 1, out);
    fwrite(packet->bytes, packet->len, 1, out);
}
