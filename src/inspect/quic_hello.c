/* SPDX-License-Identifier: Apache-2.0 */
/* Follows a QUIC client's Initials as its server would.
 *
 * Keys. All Initials of a connection are sealed with keys that follow from one connection id, its
 * origin: the destination of the client's first Initial. A Retry makes the client begin anew, with
 * the origin the server gave. So an Initial opens with the origin we know, or else with the one it
 * carries itself, which then becomes the connection's, and everything is read afresh; the server's
 * packets need not be seen. An Initial that opens with both is a forgery made for us: AES-GCM does
 * not commit to its key, so that one ciphertext can mean two things. It is refused.
 *
 * Handshake. CRYPTO bytes are put in order, whatever their datagrams; a byte that comes again must
 * be the same. The first message is the ClientHello. After a HelloRetryRequest a second one
 * follows, which must name the same server; until it is whole, its datagrams are held like the
 * first's.
 *
 * Memory. The bytes of a handshake are kept for as long as their connection may be read on, for a
 * client sends again what was lost, and whoever made us pass one hello must not have another one
 * taken for it. While messages are incomplete there is room for any order of them; between messages
 * there is exactly what they said. */
#include "inspect/quic_hello.h"

#include <stdlib.h>
#include <string.h>

#define ORIGIN_MIN 8 /* RFC 9000, 7.2: of an id that a client makes up */

/* RFC 9000, 14.1: a server answers to no smaller datagram, in whatever version. */
#define DATAGRAM_MIN 1200

struct quic_reading {
    struct tls_hello hello;
    struct quic_crypto crypto;
};

static bool is_decided(enum flow_name_result result)
{
    return result == FLOW_NAME_NAMED || result == FLOW_NAME_HIDDEN;
}

/* ---- memory ---- */

static void forget_reading(struct quic_hello *h)
{
    free(h->reading);
    free(h->said);
    h->reading = NULL;
    h->said = NULL;
    h->said_len = 0;
}

void quic_hello_reset(struct quic_hello *hello)
{
    forget_reading(hello);
    *hello = (struct quic_hello){.has_origin = false};
}

size_t quic_hello_bytes(const struct quic_hello *hello)
{
    return hello->said_len + (hello->reading ? sizeof *hello->reading : 0);
}

/* Room to read on behind what was said. */
static bool open_reading(struct quic_hello *h)
{
    struct quic_crypto *crypto;

    if (h->reading)
        return true;
    h->reading = calloc(1, sizeof *h->reading);
    if (!h->reading)
        return false;
    crypto = &h->reading->crypto;
    for (size_t i = 0; i < h->said_len; i++)
        crypto->have[i / 64] |= 1ull << (i % 64);
    if (h->said_len != 0)
        memcpy(crypto->bytes, h->said, h->said_len);
    crypto->contiguous = h->said_len;
    return true;
}

static bool has_bytes_from(const struct quic_crypto *crypto, size_t at)
{
    for (; at < QUIC_CRYPTO_MAX; at++) {
        if (at % 64 == 0 && !crypto->have[at / 64])
            at += 63;
        else if (crypto->have[at / 64] >> (at % 64) & 1)
            return true;
    }
    return false;
}

/* Nothing is being read any more: keeps what was said. If there is no memory for that the large
 * room stays. */
static void close_reading(struct quic_hello *h)
{
    uint8_t *said;

    if (!h->reading || !is_decided(h->result) || h->message == 0 ||
        has_bytes_from(&h->reading->crypto, h->message))
        return;
    if (h->said_len != h->message) {
        said = realloc(h->said, h->message);
        if (!said)
            return;
        memcpy(said, h->reading->crypto.bytes, h->message);
        h->said = said;
        h->said_len = h->message;
    }
    free(h->reading);
    h->reading = NULL;
}

/* ---- reading ---- */

/* Reads on in the handshake. The first hello decides, those behind it must agree. */
static enum flow_name_result read_messages(struct quic_hello *h)
{
    struct quic_reading *reading = h->reading;

    while (reading && reading->crypto.contiguous > h->message) {
        enum flow_name_result result =
            tls_hello_parse_message(&reading->hello, reading->crypto.bytes + h->message,
                                    reading->crypto.contiguous - h->message);

        if (result == FLOW_NAME_NEED_MORE || !is_decided(result))
            return result;
        if (h->message > 0 &&
            (result != h->result || strcmp(h->name.text, reading->hello.name.text) != 0))
            return FLOW_NAME_MALFORMED;
        h->name = reading->hello.name;
        h->has_ech = reading->hello.has_ech;
        h->result = result;
        h->message += reading->hello.length;
        reading->hello = (struct tls_hello){.length = 0};
    }
    return h->result;
}

static void begin(struct quic_hello *h, const struct quic_cid *origin, int64_t largest)
{
    forget_reading(h);
    h->origin = *origin;
    h->has_origin = true;
    h->largest = largest;
    h->result = FLOW_NAME_NEED_MORE;
    h->message = 0;
    h->name = (struct flow_name){.len = 0};
}

static enum flow_name_result read_payload(struct quic_hello *h, const uint8_t *payload, size_t len)
{
    h->had_initial = true;
    if (!open_reading(h))
        return FLOW_NAME_NO_MEMORY;
    return quic_initial_read_frames(payload, len, &h->reading->crypto);
}

/* May a server that does not know this packet's connection take it for a new one? */
static bool may_begin(const struct quic_hello *h, const struct quic_packet *packet)
{
    return (packet->dcid.len >= ORIGIN_MIN || packet->token_len > 0) &&
           !(h->has_origin && quic_cid_equal(&h->origin, &packet->dcid));
}

static enum flow_name_result take_initial(struct quic_hello *h, struct quic_opener *opener,
                                          const uint8_t *bytes, const struct quic_packet *packet)
{
    int64_t largest = h->largest, fresh_largest = -1;
    const uint8_t *payload, *fresh_payload;
    size_t len, fresh_len;
    bool known, fresh;

    known = h->has_origin &&
            quic_opener_open(opener, &h->origin, bytes, packet, &largest, &payload, &len) == 0;
    fresh =
        may_begin(h, packet) && quic_opener_open(opener, &packet->dcid, bytes, packet,
                                                 &fresh_largest, &fresh_payload, &fresh_len) == 0;
    if (known && fresh)
        return FLOW_NAME_MALFORMED;
    if (known) {
        h->largest = largest;
        return read_payload(h, payload, len);
    }
    if (fresh) {
        begin(h, &packet->dcid, fresh_largest);
        return read_payload(h, fresh_payload, fresh_len);
    }
    return FLOW_NAME_UNREADABLE;
}

/* All packets of a datagram. NEED_MORE: none was at fault. */
static enum flow_name_result take_packets(struct quic_hello *h, struct quic_opener *opener,
                                          const uint8_t *bytes, size_t len)
{
    struct quic_cid first = {.len = 0};

    for (size_t at = 0; at < len;) {
        struct quic_packet packet = quic_packet_read(bytes + at, len - at);
        enum flow_name_result result = FLOW_NAME_NEED_MORE;

        if (packet.kind == QUIC_SHORT) /* behind others: of no interest before the handshake */
            return at == 0 && !is_decided(h->result) ? FLOW_NAME_NOT_THIS_PROTOCOL
                                                     : FLOW_NAME_NEED_MORE;
        if (packet.kind == QUIC_UNKNOWN_VERSION && at == 0)
            return len < DATAGRAM_MIN && !is_decided(h->result) ? FLOW_NAME_NOT_THIS_PROTOCOL
                                                                : FLOW_NAME_UNKNOWN_VERSION;
        if (packet.kind == QUIC_UNKNOWN_VERSION)
            return FLOW_NAME_MALFORMED;
        if (packet.kind == QUIC_BROKEN || packet.kind == QUIC_RETRY ||
            packet.kind == QUIC_NEGOTIATION)
            return FLOW_NAME_MALFORMED;
        if (at == 0)
            first = packet.dcid;
        else if (!quic_cid_equal(&first, &packet.dcid)) /* RFC 9000, 12.2 */
            return FLOW_NAME_MALFORMED;
        if (packet.kind == QUIC_INITIAL)
            result = take_initial(h, opener, bytes + at, &packet);
        if (result != FLOW_NAME_NEED_MORE)
            return result;
        at += packet.length;
    }
    return FLOW_NAME_NEED_MORE;
}

enum flow_name_result quic_hello_datagram(struct quic_hello *hello, struct quic_opener *opener,
                                          const uint8_t *datagram, size_t len)
{
    enum flow_name_result result;

    hello->had_initial = false;
    if (len == 0)
        return is_decided(hello->result) ? FLOW_NAME_UNREADABLE : FLOW_NAME_NOT_THIS_PROTOCOL;
    result = take_packets(hello, opener, datagram, len);
    if (result == FLOW_NAME_NEED_MORE)
        result = read_messages(hello);
    if (is_decided(result))
        hello->datagrams = 0;
    else if (result == FLOW_NAME_NEED_MORE && hello->had_initial &&
             ++hello->datagrams > QUIC_HELLO_DATAGRAMS_MAX)
        return FLOW_NAME_TOO_LARGE;
    close_reading(hello);
    return result;
}
