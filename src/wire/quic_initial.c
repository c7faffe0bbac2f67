/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/quic_initial.h"

#include <string.h>

#include "wire/reader.h"

#define FORM_LONG 0x80u
#define FIXED_BIT 0x40u

/* RFC 9000, 16: the first two bits are the logarithm of the length. */
static uint64_t read_varint(struct reader *r)
{
    uint8_t first = reader_u8(r);
    unsigned more = (1u << (first >> 6)) - 1;
    uint64_t value = first & 0x3fu;

    for (unsigned i = 0; i < more; i++)
        value = value << 8 | reader_u8(r);
    return value;
}

/* ---- headers ---- */

static void read_cid(struct reader *r, struct quic_cid *ret)
{
    ret->len = reader_u8(r);
    if (ret->len > QUIC_CID_MAX) { /* RFC 9000, 17.2 */
        reader_fail(r);
        return;
    }
    reader_copy(r, ret->bytes, ret->len);
}

/* RFC 9369, 3.2: version 2 numbers its types anew. */
static enum quic_packet_kind kind_of(uint8_t first, uint32_t version)
{
    static const enum quic_packet_kind kinds[2][4] = {
        {QUIC_INITIAL, QUIC_0RTT, QUIC_HANDSHAKE, QUIC_RETRY},
        {QUIC_RETRY, QUIC_INITIAL, QUIC_0RTT, QUIC_HANDSHAKE},
    };

    return kinds[version == QUIC_VERSION_2][first >> 4 & 3];
}

/* RTP and others set the first bit too, but none the second with it. */
static enum quic_packet_kind kind_of_other_version(uint8_t first, uint32_t version)
{
    if (version == 0)
        return QUIC_NEGOTIATION;
    return first & FIXED_BIT ? QUIC_UNKNOWN_VERSION : QUIC_SHORT;
}

/* Behind the connection ids: token and length. */
static void read_lengths(struct reader *r, size_t len, struct quic_packet *p)
{
    uint64_t length, token = 0;

    if (p->kind == QUIC_INITIAL) {
        token = read_varint(r);
        reader_skip(r, token < len ? (size_t)token : len);
    }
    length = read_varint(r);
    p->token_len = (size_t)token;
    p->pn_offset = len - r->left;
    if (length > r->left)
        reader_fail(r);
    else
        p->length = p->pn_offset + (size_t)length;
}

struct quic_packet quic_packet_read(const uint8_t *bytes, size_t len)
{
    struct quic_packet p = {.kind = QUIC_SHORT, .length = len};
    struct reader r = reader_of(bytes, len);
    uint8_t first = reader_u8(&r);

    if (!(first & FORM_LONG))
        return p;
    p.version = reader_be32(&r);
    if (!reader_ok(&r))
        return p;
    if (p.version != QUIC_VERSION_1 && p.version != QUIC_VERSION_2) {
        p.kind = kind_of_other_version(first, p.version);
        return p;
    }
    p.kind = kind_of(first, p.version);
    read_cid(&r, &p.dcid);
    read_cid(&r, &p.scid);
    if (p.kind != QUIC_RETRY)
        read_lengths(&r, len, &p);
    /* The fixed bit need not be set: peers may agree upon that (RFC 9287). */
    if (!reader_ok(&r))
        p.kind = QUIC_BROKEN;
    return p;
}

bool quic_cid_equal(const struct quic_cid *a, const struct quic_cid *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* ---- frames ---- */

enum frame { /* RFC 9000, 12.4: those that an Initial may hold */
             FRAME_PADDING = 0,
             FRAME_PING = 1,
             FRAME_ACK = 2,
             FRAME_ACK_ECN = 3,
             FRAME_CRYPTO = 6,
             FRAME_CLOSE = 0x1c,
};

static bool has_byte(const struct quic_crypto *crypto, size_t at)
{
    return (crypto->have[at / 64] >> (at % 64) & 1) != 0;
}

/* Bytes that come twice must be the same: a server keeps the first it sees or the last. */
static bool keep_bytes(struct quic_crypto *crypto, size_t at, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++, at++) {
        if (has_byte(crypto, at) && crypto->bytes[at] != bytes[i])
            return false;
        crypto->bytes[at] = bytes[i];
        crypto->have[at / 64] |= 1ull << (at % 64);
    }
    while (crypto->contiguous < QUIC_CRYPTO_MAX && has_byte(crypto, crypto->contiguous))
        crypto->contiguous++;
    return true;
}

static enum flow_name_result read_crypto(struct reader *r, struct quic_crypto *crypto)
{
    uint64_t offset = read_varint(r), len = read_varint(r);
    const uint8_t *bytes;

    if (len > r->left)
        return FLOW_NAME_MALFORMED;
    bytes = reader_bytes(r, (size_t)len);
    if (!bytes)
        return FLOW_NAME_MALFORMED;
    if (offset > QUIC_CRYPTO_MAX || len > QUIC_CRYPTO_MAX - offset)
        return FLOW_NAME_TOO_LARGE;
    return keep_bytes(crypto, (size_t)offset, bytes, (size_t)len) ? FLOW_NAME_NEED_MORE
                                                                  : FLOW_NAME_MALFORMED;
}

/* Largest, delay, count of ranges, first range; ranges; three counts of ECN. */
static void skip_ack(struct reader *r, bool ecn)
{
    uint64_t ranges;

    read_varint(r);
    read_varint(r);
    ranges = read_varint(r);
    read_varint(r);
    for (; ranges > 0 && reader_ok(r); ranges--) {
        read_varint(r);
        read_varint(r);
    }
    for (unsigned i = 0; ecn && i < 3; i++)
        read_varint(r);
}

/* Error code, the frame's type it is about, a reason in words. */
static void skip_close(struct reader *r)
{
    uint64_t reason;

    read_varint(r);
    read_varint(r);
    reason = read_varint(r);
    if (reason > r->left)
        reader_fail(r);
    else
        reader_skip(r, (size_t)reason);
}

enum flow_name_result quic_initial_read_frames(const uint8_t *payload, size_t len,
                                               struct quic_crypto *crypto)
{
    struct reader r = reader_of(payload, len);
    enum flow_name_result result = FLOW_NAME_NEED_MORE;

    if (len == 0) /* RFC 9000, 12.4 */
        return FLOW_NAME_MALFORMED;
    while (!reader_at_end(&r) && result == FLOW_NAME_NEED_MORE) {
        uint64_t type = read_varint(&r);

        if (type == FRAME_CRYPTO)
            result = read_crypto(&r, crypto);
        else if (type == FRAME_ACK || type == FRAME_ACK_ECN)
            skip_ack(&r, type == FRAME_ACK_ECN);
        else if (type == FRAME_CLOSE)
            skip_close(&r);
        else if (type != FRAME_PADDING && type != FRAME_PING)
            return FLOW_NAME_MALFORMED;
    }
    return reader_ok(&r) ? result : FLOW_NAME_MALFORMED;
}
