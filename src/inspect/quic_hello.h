/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INSPECT_QUIC_HELLO_H
#define INSPECT_QUIC_HELLO_H

/* The server's name in the Initials of a QUIC client, datagram by datagram. Theory of operation:
 * quic_hello.c. */

#include "inspect/quic_opener.h"
#include "wire/tls_hello.h"

#define QUIC_HELLO_DATAGRAMS_MAX 10 /* with Initials, until a name is known */

struct quic_reading; /* what is wanted while a hello is being read: some 18 KiB */

/* One guest port's conversation with one server. All zero: its beginning. Between hellos it holds
 * no more than what the last one said. */
struct quic_hello {
    struct flow_name name;
    bool has_ech;
    bool had_initial; /* did the last datagram hold an Initial that opened? */

    /* the reader's own */
    bool has_origin;
    enum flow_name_result result; /* of the connection as it stands */
    struct quic_cid origin;
    int64_t largest;    /* packet number */
    unsigned datagrams; /* since the last decision */
    size_t message;     /* where the next handshake message begins */
    uint8_t *said;      /* the handshake as far as it was read, if nothing is being read */
    size_t said_len;
    struct quic_reading *reading; /* NULL: nothing is */
};

/* Back to the beginning; frees what it holds. */
void quic_hello_reset(struct quic_hello *hello);
/* Bytes that it holds. */
size_t quic_hello_bytes(const struct quic_hello *hello);

/* A datagram of the client's, in order of arrival. The result is what is to be done with this one:
 *
 * NEED_MORE           to be held until another says more
 * NAMED, HIDDEN       to be judged, with those held, by hello->name: it may be another name than
 *                     before, since a port may carry several connections
 * UNREADABLE          to be dropped: an Initial that no server could read either
 * UNKNOWN_VERSION, NOT_THIS_PROTOCOL (a short header before any hello, or no QUIC at all),
 * MALFORMED, TOO_LARGE, NO_MEMORY
 *
 * Once a hello was named, datagrams with a short header change nothing and need not be shown. */
enum flow_name_result quic_hello_datagram(struct quic_hello *hello, struct quic_opener *opener,
                                          const uint8_t *datagram, size_t len);

#endif
