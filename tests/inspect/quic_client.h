/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_INSPECT_QUIC_CLIENT_H
#define TESTS_INSPECT_QUIC_CLIENT_H

/* A QUIC client's packets to order, sealed by means of the TLS library's own HKDF. */

#include <stdbool.h>
#include <stdint.h>

#include "wire/quic_initial.h"

struct quic_client {
    uint32_t version;
    struct quic_cid origin, dcid; /* whence the keys follow; what is written */
    uint64_t number;              /* of the next packet */
    unsigned pn_len;
    size_t token_len;
    bool greased; /* without the fixed bit (RFC 9287) */
};

struct datagram {
    uint8_t bytes[4096];
    size_t len;
};

struct quic_cid cid_of(const char *text);
struct quic_client quic_client_of(uint32_t version, const char *dcid);

/* A ClientHello's message for `name` (NULL: none), `extra` bytes longer than need be. */
size_t client_hello(uint8_t *to, size_t capacity, const char *name, size_t extra);
/* A CRYPTO frame; returns its length. */
size_t crypto_frame(uint8_t *to, uint64_t offset, const uint8_t *bytes, size_t len);
/* Adds an Initial with this payload, padded to at least 20 bytes. */
void add_initial(struct datagram *d, struct quic_client *client, const uint8_t *payload,
                 size_t len);
/* Adds an Initial with one CRYPTO frame. */
void add_crypto(struct datagram *d, struct quic_client *client, uint64_t offset,
                const uint8_t *bytes, size_t len);
/* Adds a packet of another type, of version 1's numbering: 1 0-RTT, 2 Handshake, 3 Retry. */
void add_other(struct datagram *d, const struct quic_client *client, unsigned type, size_t len);

#endif
