/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_TLS_HELLO_H
#define WIRE_TLS_HELLO_H

/* The server's name in a TLS ClientHello (RFC 8446, 4.1.2; server_name: RFC 6066, section 3), over
 * TCP, or in QUIC's CRYPTO stream, where there are no records.
 *
 * A name is told only once the whole ClientHello is there, whatever its records and segments. What
 * is TLS from its first bytes on is never called another protocol later. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire/flow_name.h"

struct tls_hello {
    struct flow_name name;
    /* An encrypted ClientHello or server name is offered (or pretended: browsers always do). The
     * name is then the outer one. */
    bool has_ech;
    size_t length; /* of the ClientHello's message, once known; else 0 */
    /* With fewer bytes than these in all, asking again is to no purpose, and costs nothing. */
    size_t wanted;
};

/* All bytes the client sent so far, in as many pieces as they are in. `hello` is zero before the
 * first call and kept between calls.
 *
 * NAMED; HIDDEN: no server_name, one that is empty, an IP address or no host's name, several, or
 * a hello of SSL 2's format; NOT_THIS_PROTOCOL; MALFORMED; TOO_LARGE; NEED_MORE. */
enum flow_name_result tls_hello_parse(struct tls_hello *hello, const struct iovec *iov,
                                      size_t count);

/* The same for a handshake message without records; what follows the ClientHello is not looked at.
 * Never NOT_THIS_PROTOCOL. */
enum flow_name_result tls_hello_parse_message(struct tls_hello *hello, const uint8_t *bytes,
                                              size_t len);

#endif
