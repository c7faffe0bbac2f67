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
 * first's. */
#include "inspect/quic_hello.h"

#include <string.h>

#define ORIGIN_MIN 8 /* RFC 9000, 7.2: of an id that a client makes up */

static bool is_decided(enum flow_name_result result)
{
    return result == FLOW_NAME_NAMED || result == FLOW_NAME_HIDDEN;
}

/* Reads on in the handshake. The first hello decides, those behind it must agree. */
static enum flow_name_result read_messages(struct quic_hello *h)
{
    while (h->crypto.contiguous > h->message) {
        enum flow_name_result result = tls_hello_parse_message(
            &h->hello, h->crypto.bytes + h->message, h->crypto.contiguous - h->message);

        if (result == FLOW_NAME_NEED_MORE || !is_decided(result))
            return result;
        if (h->message > 0 &&
            (result != h->result || strcmp(h->name.text, h->hello.name.text) != 0))
            return FLOW_NAME_MALFORMED;
        h->name = h->hello.name;
        h->has_ech = h->hello.has_ech;
        h->result = result;
        h->message += h->hello.length;
        h->hello = (struct tls_hello){.length = 0};
    }
    return h->result;
}

static void begin(struct quic_hello *h, const struct quic_cid *origin, int64_t largest)
{
    h->origin = *origin;
    h->has_origin = true;
    h->largest = largest;
    h->result = FLOW_NAME_NEED_MORE;
    h->message = 0;
    h->name = (struct flow_name){.len = 0};
    h->hello = (struct tls_hello){.length = 0};
    memset(&h->crypto, 0, sizeof h->crypto);
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
        return quic_initial_read_frames(payload, len, &h->crypto);
    }
    if (fresh) {
        begin(h, &packet->dcid, fresh_largest);
        return quic_initial_read_frames(fresh_payload, fresh_len, &h->crypto);
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
        if (packet.kind == QUIC_UNKNOWN_VERSION)
            return at == 0 ? FLOW_NAME_UNKNOWN_VERSION : FLOW_NAME_MALFORMED;
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

    if (len == 0)
        return is_decided(hello->result) ? FLOW_NAME_UNREADABLE : FLOW_NAME_NOT_THIS_PROTOCOL;
    result = take_packets(hello, opener, datagram, len);
    if (result == FLOW_NAME_NEED_MORE)
        result = read_messages(hello);
    if (is_decided(result))
        hello->datagrams = 0;
    else if (result == FLOW_NAME_NEED_MORE && ++hello->datagrams > QUIC_HELLO_DATAGRAMS_MAX)
        return FLOW_NAME_TOO_LARGE;
    return result;
}
