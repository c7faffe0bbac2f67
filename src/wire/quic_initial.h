/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_QUIC_INITIAL_H
#define WIRE_QUIC_INITIAL_H

/* What can be read of QUIC's first packets without keys (RFC 9000, 17.2; version 2: RFC 9369), and
 * what stands in an Initial's payload once it has been decrypted. The keys are
 * inspect/quic_opener.h's business. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/flow_name.h"

#define QUIC_VERSION_1  0x00000001u
#define QUIC_VERSION_2  0x6b3343cfu
#define QUIC_CID_MAX    20
#define QUIC_CRYPTO_MAX 16384 /* bytes of a CRYPTO stream that are kept */

struct quic_cid {
    uint8_t len;
    uint8_t bytes[QUIC_CID_MAX];
};

enum quic_packet_kind {
    QUIC_SHORT, /* a short header, or not QUIC at all */
    QUIC_UNKNOWN_VERSION,
    QUIC_INITIAL,
    QUIC_0RTT,
    QUIC_HANDSHAKE,
    QUIC_RETRY,
    QUIC_NEGOTIATION, /* version 0 */
    QUIC_BROKEN,      /* a version we know, but not its format */
};

struct quic_packet {
    enum quic_packet_kind kind;
    uint32_t version;
    struct quic_cid dcid, scid;
    size_t token_len; /* Initial */
    /* Initial, 0-RTT, Handshake: where the (protected) packet number begins, and the packet's
     * whole length; another may follow in the same datagram. Others: the whole datagram. */
    size_t pn_offset, length;
};

/* The packet at the beginning of `bytes`. Connection ids, lengths and offsets are told only for the
 * kinds that have them. */
struct quic_packet quic_packet_read(const uint8_t *bytes, size_t len);

bool quic_cid_equal(const struct quic_cid *a, const struct quic_cid *b);

/* The CRYPTO stream of one connection's Initials. All zero: empty. */
struct quic_crypto {
    size_t contiguous; /* bytes from the beginning on without a gap */
    uint64_t have[QUIC_CRYPTO_MAX / 64];
    uint8_t bytes[QUIC_CRYPTO_MAX];
};

/* Takes the CRYPTO frames out of a client's Initial. NEED_MORE: done; MALFORMED: a frame that is
 * broken or has no place in an Initial, or bytes that contradict those that came before; TOO_LARGE:
 * beyond QUIC_CRYPTO_MAX. */
enum flow_name_result quic_initial_read_frames(const uint8_t *payload, size_t len,
                                               struct quic_crypto *crypto);

#endif
