/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_FLOW_NAME_H
#define WIRE_FLOW_NAME_H

/* What the first bytes of a flow may tell about the name it is meant for: the common terms of
 * tls_hello.h, http_request.h and quic_initial.h. */

#include <stddef.h>
#include <stdint.h>

#define FLOW_NAME_TEXT_MAX  253
#define FLOW_NAME_BYTES_MAX 65536 /* of a flow's first bytes; what needs more is too large */

enum flow_name_result {
    FLOW_NAME_NEED_MORE, /* nothing is decided yet */
    FLOW_NAME_NAMED,     /* the name is there, and all that could contradict it was read */
    FLOW_NAME_HIDDEN,    /* this protocol, but no name that can be used */
    FLOW_NAME_NOT_THIS_PROTOCOL,
    FLOW_NAME_MALFORMED, /* this protocol, but broken or ambiguous: two servers might differ */
    FLOW_NAME_TOO_LARGE, /* a bound was reached before anything was decided */
    FLOW_NAME_HTTP2,     /* http_request.h: HTTP/2 without TLS, whose names are not read */
    FLOW_NAME_UNKNOWN_VERSION, /* quic_initial.h: QUIC, but of a version we cannot read */
    FLOW_NAME_UNREADABLE,      /* quic_initial.h: a datagram to be dropped; nothing else changes */
    FLOW_NAME_NO_MEMORY,       /* quic_hello.h: to read on */
};

/* A host's name as policies compare it: lower case, no final dot, letters, digits, '-', '_' and
 * dots between labels of 1 to 63. */
struct flow_name {
    uint8_t len; /* 0: none */
    char text[FLOW_NAME_TEXT_MAX + 1];
};

/* Normalises what a peer sent. FLOW_NAME_NAMED; FLOW_NAME_HIDDEN: nothing, or an IP address in any
 * way of writing it ("127.1" too); FLOW_NAME_MALFORMED: no host's name. `ret` is a name or empty.
 */
enum flow_name_result flow_name_read(const void *bytes, size_t len, struct flow_name *ret);

#endif
