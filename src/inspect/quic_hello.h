/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INSPECT_QUIC_HELLO_H
#define INSPECT_QUIC_HELLO_H

/* The server's name in the Initials of a QUIC client, datagram by datagram. Theory of operation:
 * quic_hello.c. */

#include "inspect/quic_opener.h"
#include "wire/tls_hello.h"

#define QUIC_HELLO_DATAGRAMS_MAX 10 /* until a name is known */

/* One guest port's conversation with one server. All zero: its beginning. */
struct quic_hello {
    struct flow_name name;
    bool has_ech;

    /* the reader's own */
    bool has_origin;
    enum flow_name_result result; /* of the connection as it stands */
    struct quic_cid origin;
    int64_t largest;    /* packet number */
    unsigned datagrams; /* since the last decision */
    size_t message;     /* where the next handshake message begins */
    struct tls_hello hello;
    struct quic_crypto crypto;
};

/* A datagram of the client's, in order of arrival. The result is what is to be done with this one:
 *
 * NEED_MORE           to be held until another says more
 * NAMED, HIDDEN       to be judged, with those held, by hello->name: it may be another name than
 *                     before, since a port may carry several connections
 * UNREADABLE          to be dropped: an Initial that no server could read either
 * UNKNOWN_VERSION, NOT_THIS_PROTOCOL (a short header before any hello, or no QUIC at all),
 * MALFORMED, TOO_LARGE
 *
 * Once a hello was named, datagrams with a short header change nothing and need not be shown. */
enum flow_name_result quic_hello_datagram(struct quic_hello *hello, struct quic_opener *opener,
                                          const uint8_t *datagram, size_t len);

#endif
