/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_HTTP_REQUEST_H
#define WIRE_HTTP_REQUEST_H

/* The authority of a plaintext HTTP/1 request (RFC 9112, 3.2): of an absolute target, else of the
 * Host field.
 *
 * Stricter than any server, because servers differ in what they make of the rest: bare CR or LF,
 * folded lines, blanks in front of a colon or around the request line's parts, two Host fields, a
 * target and a Host that contradict each other are all malformed. What only resembles HTTP so much
 * that some server may take it for a request is malformed too, and not another protocol.
 *
 * The name is told when the head is whole. A connection's later requests are not looked at. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire/flow_name.h"

#define HTTP_AUTHORITY_MAX 300 /* bytes of "host:port" that are looked at */
#define HTTP_METHOD_MAX    24

enum http_request_phase {
    HTTP_START, /* of the connection */
    HTTP_METHOD,
    HTTP_TARGET,
    HTTP_VERSION,
    HTTP_LINE_LF,
    HTTP_DOUBTFUL_LINE, /* the first line is no request line: does it look like one? */
    HTTP_FIELD_START,
    HTTP_FIELD_NAME,
    HTTP_FIELD_VALUE,
    HTTP_FIELD_LF,
    HTTP_END_LF,
    HTTP_PREFACE, /* of HTTP/2, behind its first line */
    HTTP_DECIDED,
};

/* All zero but what is told below: a connection's beginning. */
struct http_request {
    struct flow_name name; /* the result; before it, the name that the target told */

    /* the parser's own */
    enum http_request_phase phase;
    enum flow_name_result result;
    size_t scanned; /* bytes of the connection that were looked at */
    char method[HTTP_METHOD_MAX], version[8];
    uint8_t method_len, version_len;
    uint8_t matched;      /* characters of "host" or the preface */
    uint8_t http_matched; /* characters of "HTTP/" on the first line, in any case */
    bool after_blanks, is_host, has_host, has_target_authority;
    enum flow_name_result target_result;
    uint16_t text_len; /* of the target's beginning or of Host's value */
    char text[HTTP_AUTHORITY_MAX];
};

/* All bytes the client sent so far, in as many pieces as they are in; each is looked at once, so
 * that `request` must be the same, and what came before must be in front, in all calls.
 *
 * NAMED; HIDDEN: HTTP with an IP address or nothing where the name would stand; HTTP2: HTTP/2's
 * preface, with prior knowledge: the authorities of its requests stand behind HPACK; MALFORMED;
 * NOT_THIS_PROTOCOL; TOO_LARGE; NEED_MORE. */
enum flow_name_result http_request_parse(struct http_request *request, const struct iovec *iov,
                                         size_t count);

/* After NEED_MORE, where no more will come: NOT_THIS_PROTOCOL (a line of text without "HTTP/"), or
 * MALFORMED (a request that is cut short). */
enum flow_name_result http_request_end(const struct http_request *request);

#endif
