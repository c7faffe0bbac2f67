/* SPDX-License-Identifier: Apache-2.0 */
/* A state machine that takes one byte after the other: how the bytes were cut makes no difference,
 * and none is looked at twice.
 *
 * The first line decides whether this is HTTP at all. As long as it keeps to the form METHOD SP
 * TARGET SP HTTP/1.x CRLF it is followed; where it leaves that form, the rest of the line is only
 * searched for "HTTP/": what has it is a request to some lenient server, thus malformed, what has
 * it not is another protocol (or HTTP/0.9, which has no names). From the second line on, whatever
 * is not strictly right is malformed. */
#include "wire/http_request.h"

#include <string.h>
#include <strings.h>

/* Field values and targets may hold bytes beyond ASCII (obs-text), names may not. */
static bool is_text(uint8_t c)
{
    return c > 0x20 && c != 0x7f;
}

/* RFC 9110, 5.6.2 */
static bool is_token_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

static void append_text(struct http_request *r, uint8_t c)
{
    if (r->text_len < sizeof r->text)
        r->text[r->text_len++] = (char)c;
}

/* ---- authorities ---- */

/* RFC 3986, 3.2.3: digits, or nothing. */
static bool is_port(const char *text, size_t len)
{
    unsigned port = 0;

    if (len > 5)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(text[i]))
            return false;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    return port <= UINT16_MAX;
}

/* "[IPv6]" with or without a port: no name. */
static enum flow_name_result read_literal(const char *text, size_t len)
{
    const char *bracket = memchr(text, ']', len);
    size_t inside = bracket ? (size_t)(bracket - text) : 0;

    if (inside < 2)
        return FLOW_NAME_MALFORMED;
    for (size_t i = 1; i < inside; i++)
        if (!strchr("0123456789abcdefABCDEF:.", text[i]) || text[i] == '\0')
            return FLOW_NAME_MALFORMED;
    if (inside + 1 == len)
        return FLOW_NAME_HIDDEN;
    return text[inside + 1] == ':' && is_port(text + inside + 2, len - inside - 2)
               ? FLOW_NAME_HIDDEN
               : FLOW_NAME_MALFORMED;
}

/* "host" or "host:port"; user information is not allowed. */
static enum flow_name_result read_authority(const char *text, size_t len, struct flow_name *ret)
{
    const char *colon = memchr(text, ':', len);
    size_t host = colon ? (size_t)(colon - text) : len;

    *ret = (struct flow_name){.len = 0};
    if (len > 0 && text[0] == '[')
        return read_literal(text, len);
    if (colon && !is_port(colon + 1, len - host - 1))
        return FLOW_NAME_MALFORMED;
    return flow_name_read(text, host, ret);
}

/* The authority within "scheme://authority/…", or NULL. One that runs beyond what was kept of the
 * target is too long for any name. */
static const char *find_authority(const char *text, size_t len, size_t *ret_len)
{
    const char *colon = memchr(text, ':', len), *authority;
    size_t left, n = 0;

    if (!colon || colon == text || len - (size_t)(colon - text) < 3 || colon[1] != '/' ||
        colon[2] != '/')
        return NULL;
    for (const char *at = text; at < colon; at++)
        if (!is_token_char((uint8_t)*at))
            return NULL;
    authority = colon + 3;
    left = len - (size_t)(authority - text);
    while (n < left && !strchr("/?#", authority[n]))
        n++;
    if (n == left && len == HTTP_AUTHORITY_MAX)
        return NULL;
    *ret_len = n;
    return authority;
}

/* ---- the first line ---- */

static bool method_is(const struct http_request *r, const char *method)
{
    return r->method_len == strlen(method) && memcmp(r->method, method, r->method_len) == 0;
}

/* RFC 9112, 3.2: the four forms. NEED_MORE: go on. */
static enum flow_name_result read_target(struct http_request *r)
{
    const char *authority = r->text;
    size_t len = r->text_len;

    if (method_is(r, "CONNECT")) {
        if (len == HTTP_AUTHORITY_MAX)
            return FLOW_NAME_MALFORMED;
    } else if (r->text[0] == '/') {
        return FLOW_NAME_NEED_MORE;
    } else if (len == 1 && r->text[0] == '*') {
        return method_is(r, "OPTIONS") ? FLOW_NAME_NEED_MORE : FLOW_NAME_MALFORMED;
    } else {
        authority = find_authority(r->text, len, &len);
        if (!authority)
            return FLOW_NAME_MALFORMED;
    }
    r->has_target_authority = true;
    r->target_result = read_authority(authority, len, &r->name);
    return r->target_result == FLOW_NAME_MALFORMED ? FLOW_NAME_MALFORMED : FLOW_NAME_NEED_MORE;
}

/* The line left the form of a request line. */
static enum flow_name_result doubt(struct http_request *r, uint8_t c)
{
    if (r->http_matched == 5)
        return FLOW_NAME_MALFORMED;
    if (c == '\n' || (c < 0x20 && c != '\r' && c != '\t'))
        return FLOW_NAME_NOT_THIS_PROTOCOL;
    r->phase = HTTP_DOUBTFUL_LINE;
    return FLOW_NAME_NEED_MORE;
}

static enum flow_name_result on_start(struct http_request *r, uint8_t c)
{
    if (c == '\r' || c == '\n' || c == ' ' || c == '\t') {
        r->after_blanks = true; /* there are servers that pass over them */
        return FLOW_NAME_NEED_MORE;
    }
    if (!is_token_char(c))
        return FLOW_NAME_NOT_THIS_PROTOCOL;
    r->method[r->method_len++] = (char)c;
    r->phase = HTTP_METHOD;
    return FLOW_NAME_NEED_MORE;
}

static enum flow_name_result on_method(struct http_request *r, uint8_t c)
{
    if (is_token_char(c) && r->method_len < sizeof r->method) {
        r->method[r->method_len++] = (char)c;
        return FLOW_NAME_NEED_MORE;
    }
    if (c == ' ') {
        r->phase = HTTP_TARGET;
        return FLOW_NAME_NEED_MORE;
    }
    if (!is_token_char(c) && is_text(c)) /* nobody takes that for a method */
        return FLOW_NAME_NOT_THIS_PROTOCOL;
    return doubt(r, c);
}

static enum flow_name_result on_target(struct http_request *r, uint8_t c)
{
    if (is_text(c)) {
        append_text(r, c);
        return FLOW_NAME_NEED_MORE;
    }
    if (c != ' ' || r->text_len == 0)
        return doubt(r, c);
    r->phase = HTTP_VERSION;
    return FLOW_NAME_NEED_MORE;
}

static bool version_is(const struct http_request *r, const char *version, size_t len)
{
    return r->version_len == sizeof r->version && memcmp(r->version, version, len) == 0;
}

static enum flow_name_result on_version(struct http_request *r, uint8_t c)
{
    if (is_text(c) && r->version_len < sizeof r->version) {
        r->version[r->version_len++] = (char)c;
        return FLOW_NAME_NEED_MORE;
    }
    if (c != '\r' || r->after_blanks)
        return doubt(r, c);
    if (version_is(r, "HTTP/2.0", 8) && method_is(r, "PRI") && r->text_len == 1 &&
        r->text[0] == '*') {
        r->phase = HTTP_PREFACE;
        r->matched = 1;
        return FLOW_NAME_NEED_MORE;
    }
    if (!version_is(r, "HTTP/1.", 7) || !is_digit(r->version[7]))
        return doubt(r, c);
    r->phase = HTTP_LINE_LF;
    return read_target(r);
}

/* RFC 9113, 3.4: what follows "PRI * HTTP/2.0". */
static enum flow_name_result on_preface(struct http_request *r, uint8_t c)
{
    static const char rest[] = "\r\n\r\nSM\r\n\r\n";

    if (c != (uint8_t)rest[r->matched++])
        return FLOW_NAME_MALFORMED;
    return rest[r->matched] == '\0' ? FLOW_NAME_HTTP2 : FLOW_NAME_NEED_MORE;
}

/* ---- fields ---- */

static enum flow_name_result on_field_start(struct http_request *r, uint8_t c)
{
    if (c == '\r') {
        r->phase = HTTP_END_LF;
        return FLOW_NAME_NEED_MORE;
    }
    if (!is_token_char(c)) /* a blank would fold the line */
        return FLOW_NAME_MALFORMED;
    r->matched = lower(c) == 'h';
    r->phase = HTTP_FIELD_NAME;
    return FLOW_NAME_NEED_MORE;
}

static enum flow_name_result on_field_name(struct http_request *r, uint8_t c)
{
    static const char host[] = "host";

    if (c != ':') {
        r->matched = r->matched > 0 && r->matched < 4 && lower(c) == (uint8_t)host[r->matched]
                         ? (uint8_t)(r->matched + 1)
                         : 0;
        return is_token_char(c) ? FLOW_NAME_NEED_MORE : FLOW_NAME_MALFORMED;
    }
    r->is_host = r->matched == 4;
    if (r->is_host && r->has_host)
        return FLOW_NAME_MALFORMED;
    r->has_host = r->has_host || r->is_host;
    r->text_len = 0;
    r->phase = HTTP_FIELD_VALUE;
    return FLOW_NAME_NEED_MORE;
}

/* Host's value, blanks around it left out, must be what the target told. */
static enum flow_name_result read_host(struct http_request *r)
{
    struct flow_name name;
    enum flow_name_result result;

    while (r->text_len > 0 && r->text[r->text_len - 1] == ' ')
        r->text_len--;
    if (r->text_len == sizeof r->text)
        return FLOW_NAME_MALFORMED;
    result = read_authority(r->text, r->text_len, &name);
    if (result == FLOW_NAME_MALFORMED)
        return FLOW_NAME_MALFORMED;
    if (r->has_target_authority &&
        (result != r->target_result || strcmp(name.text, r->name.text) != 0))
        return FLOW_NAME_MALFORMED;
    r->target_result = result;
    r->name = name;
    return FLOW_NAME_NEED_MORE;
}

static enum flow_name_result on_field_value(struct http_request *r, uint8_t c)
{
    if (c == '\r') {
        r->phase = HTTP_FIELD_LF;
        return r->is_host ? read_host(r) : FLOW_NAME_NEED_MORE;
    }
    if (!is_text(c) && c != ' ' && c != '\t')
        return FLOW_NAME_MALFORMED;
    if (r->is_host && (is_text(c) || r->text_len > 0))
        append_text(r, c == '\t' ? ' ' : c);
    return FLOW_NAME_NEED_MORE;
}

static enum flow_name_result on_line_feed(struct http_request *r, uint8_t c)
{
    r->phase = HTTP_FIELD_START;
    return c == '\n' ? FLOW_NAME_NEED_MORE : FLOW_NAME_MALFORMED;
}

/* RFC 9112, 3.2: from HTTP/1.1 on, Host is not optional. */
static enum flow_name_result on_end(struct http_request *r, uint8_t c)
{
    if (c != '\n' || (!r->has_host && r->version[7] != '0'))
        return FLOW_NAME_MALFORMED;
    if (!r->has_host && !r->has_target_authority)
        return FLOW_NAME_HIDDEN;
    return r->target_result;
}

/* ---- all together ---- */

/* Looks for "HTTP/", in any case, on the first line. */
static void match_http(struct http_request *r, uint8_t c)
{
    static const char http[] = "http/";

    if (r->http_matched == 5)
        return;
    if (lower(c) == (uint8_t)http[r->http_matched])
        r->http_matched++;
    else
        r->http_matched = lower(c) == 'h';
}

static enum flow_name_result step(struct http_request *r, uint8_t c)
{
    if (r->phase <= HTTP_VERSION || r->phase == HTTP_DOUBTFUL_LINE)
        match_http(r, c);
    switch (r->phase) {
    case HTTP_START:
        return on_start(r, c);
    case HTTP_METHOD:
        return on_method(r, c);
    case HTTP_TARGET:
        return on_target(r, c);
    case HTTP_VERSION:
        return on_version(r, c);
    case HTTP_DOUBTFUL_LINE:
        return doubt(r, c);
    case HTTP_PREFACE:
        return on_preface(r, c);
    case HTTP_FIELD_START:
        return on_field_start(r, c);
    case HTTP_FIELD_NAME:
        return on_field_name(r, c);
    case HTTP_FIELD_VALUE:
        return on_field_value(r, c);
    case HTTP_LINE_LF:
    case HTTP_FIELD_LF:
        return on_line_feed(r, c);
    case HTTP_END_LF:
        return on_end(r, c);
    case HTTP_DECIDED:
        break;
    }
    return r->result;
}

static enum flow_name_result decide(struct http_request *r, enum flow_name_result result)
{
    r->phase = HTTP_DECIDED;
    r->result = result;
    if (result != FLOW_NAME_NAMED)
        r->name = (struct flow_name){.len = 0};
    return result;
}

static enum flow_name_result feed(struct http_request *r, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        enum flow_name_result result = step(r, bytes[i]);

        if (result != FLOW_NAME_NEED_MORE)
            return decide(r, result);
        if (++r->scanned == FLOW_NAME_BYTES_MAX)
            return decide(r, FLOW_NAME_TOO_LARGE);
    }
    return FLOW_NAME_NEED_MORE;
}

enum flow_name_result http_request_parse(struct http_request *request, const struct iovec *iov,
                                         size_t count)
{
    size_t skip = request->scanned;

    if (request->phase == HTTP_DECIDED)
        return request->result;
    for (size_t i = 0; i < count; i++) {
        size_t len = iov[i].iov_len, passed = skip < len ? skip : len;
        enum flow_name_result result =
            feed(request, (const uint8_t *)iov[i].iov_base + passed, len - passed);

        if (result != FLOW_NAME_NEED_MORE)
            return result;
        skip -= passed;
    }
    return FLOW_NAME_NEED_MORE;
}

enum flow_name_result http_request_end(const struct http_request *request)
{
    const bool on_first_line =
        request->phase <= HTTP_VERSION || request->phase == HTTP_DOUBTFUL_LINE;

    return on_first_line && request->http_matched < 5 ? FLOW_NAME_NOT_THIS_PROTOCOL
                                                      : FLOW_NAME_MALFORMED;
}
