/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/http_request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct row {
    const char *text;
    enum flow_name_result result;
    const char *name; /* NULL: none */
};

/* A copy of exactly this length, so that a sanitizer sees a step beyond. */
static enum flow_name_result parse_once(const char *bytes, size_t len, struct http_request *ret)
{
    char *exact = malloc(len ? len : 1);
    struct iovec iov = {exact, len};
    enum flow_name_result result;

    assert_non_null(exact);
    memcpy(exact, bytes, len);
    *ret = (struct http_request){.scanned = 0};
    result = http_request_parse(ret, &iov, 1);
    free(exact);
    return result;
}

/* Whole, cut at every byte, byte by byte: the result is the same, and none comes too early if it
 * is a name. */
static void check(const struct row *row)
{
    size_t len = strlen(row->text);
    struct http_request r, slow = {.scanned = 0};
    enum flow_name_result result = parse_once(row->text, len, &r), slow_result;

    if (result != row->result)
        print_error("%s\n", row->text);
    assert_int_equal(result, row->result);
    assert_string_equal(r.name.text, row->name && result == FLOW_NAME_NAMED ? row->name : "");
    for (size_t cut = 0; cut < len; cut++) {
        struct iovec iov[2] = {{(void *)(uintptr_t)row->text, cut},
                               {(void *)(uintptr_t)(row->text + cut), len - cut}};
        struct http_request two = {.scanned = 0};

        assert_int_equal(http_request_parse(&two, iov, 2), result);
        slow_result = http_request_parse(&slow, iov, 1);
        assert_true(slow_result == FLOW_NAME_NEED_MORE || slow_result == result);
        if (result == FLOW_NAME_NAMED || result == FLOW_NAME_HIDDEN)
            assert_int_equal(slow_result, FLOW_NAME_NEED_MORE);
    }
}

#define CHECK_ALL(rows)                                                                            \
    do {                                                                                           \
        for (size_t i_ = 0; i_ < sizeof(rows) / sizeof *(rows); i_++)                              \
            check(&(rows)[i_]);                                                                    \
    } while (0)

#define NAMED      FLOW_NAME_NAMED
#define HIDDEN     FLOW_NAME_HIDDEN
#define MALFORMED  FLOW_NAME_MALFORMED
#define NOT_HTTP   FLOW_NAME_NOT_THIS_PROTOCOL
#define MORE       FLOW_NAME_NEED_MORE
#define GET        "GET / HTTP/1.1\r\n"
#define HOST(name) "Host: " name "\r\n"

static void the_authority_of_a_request_is_its_host(void **state)
{
    static const struct row rows[] = {
        {GET HOST("Example.COM") "\r\n", NAMED, "example.com"},
        {GET "host:a.example:8080\r\n\r\n", NAMED, "a.example"},
        {GET "hOST:\t a.example. \t\r\nX: y\r\n\r\n", NAMED, "a.example"},
        {GET "Accept: */*\r\nX-Host: evil\r\nHosts: evil\r\n" HOST("a.example:") "\r\n", NAMED,
         "a.example"},
        {"OPTIONS * HTTP/1.1\r\n" HOST("a.example") "\r\n", NAMED, "a.example"},
        {"FOO-bar /\xc3\xbc?q=http://x HTTP/1.0\r\n" HOST("a.example") "\r\n", NAMED, "a.example"},
        {GET "X: caf\xe9\r\nEmpty:\r\n" HOST("a") "\r\n", NAMED, "a"},
    };

    (void)state;
    CHECK_ALL(rows);
}

static void the_authority_of_an_absolute_target_must_agree_with_host(void **state)
{
    static const struct row rows[] = {
        {"GET http://a.example/x HTTP/1.1\r\n" HOST("a.example") "\r\n", NAMED, "a.example"},
        {"GET HTTP://A.example?x HTTP/1.1\r\n" HOST("a.example.") "\r\n", NAMED, "a.example"},
        {"GET http://a.example:80 HTTP/1.1\r\n" HOST("a.example") "\r\n", NAMED, "a.example"},
        {"GET http://a.example/ HTTP/1.0\r\n\r\n", NAMED, "a.example"},
        {"CONNECT a.example:443 HTTP/1.1\r\n" HOST("a.example:443") "\r\n", NAMED, "a.example"},
        {"GET http://192.0.2.1/ HTTP/1.1\r\n" HOST("192.0.2.1") "\r\n", HIDDEN, NULL},
        {"GET http://a.example/ HTTP/1.1\r\n" HOST("b.example") "\r\n", MALFORMED, NULL},
        {"GET http://a.example/ HTTP/1.1\r\n" HOST("192.0.2.1") "\r\n", MALFORMED, NULL},
        {"GET http://a.example/ HTTP/1.1\r\n\r\n", MALFORMED, NULL},
        {"GET http://u@a.example/ HTTP/1.1\r\n" HOST("a.example") "\r\n", MALFORMED, NULL},
        {"GET http:/a.example/ HTTP/1.1\r\n" HOST("a.example") "\r\n", MALFORMED, NULL},
        {"GET a.example HTTP/1.1\r\n" HOST("a.example") "\r\n", MALFORMED, NULL},
        {"GET * HTTP/1.1\r\n" HOST("a.example") "\r\n", MALFORMED, NULL},
        {"CONNECT a.example:443 HTTP/1.1\r\n" HOST("b.example") "\r\n", MALFORMED, NULL},
    };

    (void)state;
    CHECK_ALL(rows);
}

static void a_request_without_a_name_is_hidden(void **state)
{
    static const struct row rows[] = {
        {"GET / HTTP/1.0\r\n\r\n", HIDDEN, NULL},
        {GET "Host:\r\n\r\n", HIDDEN, NULL},
        {GET HOST("192.0.2.1:80") "\r\n", HIDDEN, NULL},
        {GET HOST("[2001:db8::1]") "\r\n", HIDDEN, NULL},
        {GET HOST("[2001:db8::1]:80") "\r\n", HIDDEN, NULL},
        {GET HOST("0x7f.1") "\r\n", HIDDEN, NULL},
    };

    (void)state;
    CHECK_ALL(rows);
}

static void whatever_servers_might_read_differently_is_malformed(void **state)
{
    static const struct row rows[] = {
        {GET "\r\n", MALFORMED, NULL}, /* no Host */
        {GET HOST("a.example") HOST("a.example") "\r\n", MALFORMED, NULL},
        {GET HOST("a.example") "hOsT: b.example\r\n\r\n", MALFORMED, NULL},
        {GET HOST("a.example, b.example") "\r\n", MALFORMED, NULL},
        {GET HOST("a.example b.example") "\r\n", MALFORMED, NULL},
        {GET HOST("a.example/x") "\r\n", MALFORMED, NULL},
        {GET HOST("u@a.example") "\r\n", MALFORMED, NULL},
        {GET HOST("a%2eexample") "\r\n", MALFORMED, NULL},
        {GET HOST("a.example:99999") "\r\n", MALFORMED, NULL},
        {GET HOST("a.example:8o") "\r\n", MALFORMED, NULL},
        {GET HOST("a.example:1:2") "\r\n", MALFORMED, NULL},
        {GET HOST("[2001:db8::1") "\r\n", MALFORMED, NULL},
        {GET HOST("[a.example]") "\r\n", MALFORMED, NULL},
        {GET HOST("[]") "\r\n", MALFORMED, NULL},
        {GET HOST("[::1]x") "\r\n", MALFORMED, NULL},
        {GET "Host : a.example\r\n\r\n", MALFORMED, NULL},
        {GET " Host: a.example\r\n\r\n", MALFORMED, NULL},
        {GET HOST("a.example") "X: y\r\n z\r\n\r\n", MALFORMED, NULL},
        {GET "Host: a\r\n\t.example\r\n\r\n", MALFORMED, NULL},
        {GET "Host: a.example\n\r\n", MALFORMED, NULL},
        {GET "Host: a.example\r\r\n\r\n", MALFORMED, NULL},
        {GET "X: a\rHost: b\r\n\r\n", MALFORMED, NULL},
        {GET "X: a\001\r\n\r\n", MALFORMED, NULL},
        {GET HOST("a.example") "\rX", MALFORMED, NULL},
        {GET ": x\r\n\r\n", MALFORMED, NULL},
        {GET "X\r\n\r\n", MALFORMED, NULL},
        {"GET / HTTP/1.1\n", MALFORMED, NULL},
        {"GET / HTTP/1.1 \r\n", MALFORMED, NULL},
        {"GET  / HTTP/1.1\r\n", MALFORMED, NULL},
        {"GET\t/ HTTP/1.1\r\n", MALFORMED, NULL},
        {"GET / x HTTP/1.1\r\n", MALFORMED, NULL},
        {"GET / HTTP/1.10\r\n", MALFORMED, NULL},
        {"GET / HTTP/1.x\r\n", MALFORMED, NULL},
        {"GET / HTTP/3.0\r\n", MALFORMED, NULL},
        {"GET / http/1.1\r\n", MALFORMED, NULL},
        {"\r\n" GET, MALFORMED, NULL},
        {" " GET, MALFORMED, NULL},
        {"AVERYLONGMETHODWHICHNOBODYUSES / HTTP/1.1\r\n", MALFORMED, NULL},
    };

    (void)state;
    CHECK_ALL(rows);
}

static void other_protocols_are_left_alone(void **state)
{
    static const struct row rows[] = {
        {"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", NOT_HTTP, NULL},
        {"EHLO client.example\r\n", NOT_HTTP, NULL},
        {"NICK x\r\nUSER a b c d\r\n", NOT_HTTP, NULL},
        {"*1\r\n$4\r\nPING\r\n", NOT_HTTP, NULL},
        {"OPTIONS rtsp://a.example/ RTSP/1.0\r\n", NOT_HTTP, NULL},
        {"INVITE sip:x@a.example SIP/2.0\r\n", NOT_HTTP, NULL},
        {"GET /\r\n", NOT_HTTP, NULL}, /* HTTP/0.9 knows no names */
        {"{\"jsonrpc\":\"2.0\"}\n", NOT_HTTP, NULL},
        {"\x16\x03\x01", NOT_HTTP, NULL},
        {"\x05\x01", NOT_HTTP, NULL},
        {"\r\nquit\r\n", NOT_HTTP, NULL},
        {"get key\r\n", NOT_HTTP, NULL},
    };

    (void)state;
    CHECK_ALL(rows);
}

static void http_2_with_prior_knowledge_is_told_apart(void **state)
{
    static const struct row rows[] = {
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FLOW_NAME_HTTP2, NULL},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", MORE, NULL},
        {"PRI * HTTP/2.0\r\n" HOST("a.example") "\r\n", MALFORMED, NULL},
        {"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", MALFORMED, NULL},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\nx", MALFORMED, NULL},
    };

    (void)state;
    CHECK_ALL(rows);
}

static void every_truncation_asks_for_more(void **state)
{
    static const char text[] =
        "POST http://a.example/p HTTP/1.1\r\nA: b\r\nHost: a.example\r\n\r\n";
    struct http_request r;

    (void)state;
    for (size_t len = 0; len < sizeof text - 1; len++)
        assert_int_equal(parse_once(text, len, &r), MORE);
    assert_int_equal(parse_once(text, sizeof text - 1, &r), NAMED);
}

static void overlong_parts_are_refused(void **state)
{
    static char text[70000];
    struct http_request r;

    (void)state;
    memset(text, 'a', sizeof text);
    memcpy(text, "GET http://", 11);
    memcpy(text + 400, " HTTP/1.1\r\n", 11);
    assert_int_equal(parse_once(text, 411, &r), MALFORMED);
    memcpy(text, GET "Host: a", 23);
    memcpy(text + 400, "\r\n\r\n", 4);
    assert_int_equal(parse_once(text, 404, &r), MALFORMED);
    memset(text + 23, 'a', sizeof text - 23);
    memcpy(text, GET "Cook: a", 23);
    assert_int_equal(parse_once(text, FLOW_NAME_BYTES_MAX - 1, &r), MORE);
    assert_int_equal(parse_once(text, FLOW_NAME_BYTES_MAX, &r), FLOW_NAME_TOO_LARGE);
    memset(text, 'a', sizeof text);
    assert_int_equal(parse_once(text, sizeof text, &r), FLOW_NAME_TOO_LARGE);
}

static void what_ends_too_early_is_malformed_where_it_looks_like_a_request(void **state)
{
    static const struct row rows[] = {
        {"word", NOT_HTTP, NULL},
        {"two words", NOT_HTTP, NULL},
        {"GET / and more", NOT_HTTP, NULL},
        {"GET / HTTP/", MALFORMED, NULL},
        {GET, MALFORMED, NULL},
        {GET "Host: a.example\r\n", MALFORMED, NULL},
        {"PRI * HTTP/2.0\r\n", MALFORMED, NULL},
    };
    struct http_request r;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(parse_once(rows[i].text, strlen(rows[i].text), &r), MORE);
        assert_int_equal(http_request_end(&r), rows[i].result);
    }
}

static void a_nul_anywhere_is_no_name(void **state)
{
    static const char text[] = GET HOST("a.example") "\r\n";
    char copy[sizeof text];
    struct http_request r;

    (void)state;
    for (size_t i = 0; i < sizeof text - 1; i++) {
        memcpy(copy, text, sizeof text);
        copy[i] = '\0';
        assert_int_not_equal(parse_once(copy, sizeof text - 1, &r), NAMED);
    }
}

static void every_flipped_byte_is_survived(void **state)
{
    static const char text[] = "GET http://a.example/ HTTP/1.1\r\nHost: a.example:80\r\n\r\n";
    char copy[sizeof text];
    struct http_request r;

    (void)state;
    for (size_t i = 0; i < sizeof text - 1; i++) {
        memcpy(copy, text, sizeof text);
        for (unsigned value = 0; value < 256; value++) {
            copy[i] = (char)value;
            if (parse_once(copy, sizeof text - 1, &r) != NAMED)
                assert_int_equal(r.name.len, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_authority_of_a_request_is_its_host),
        cmocka_unit_test(the_authority_of_an_absolute_target_must_agree_with_host),
        cmocka_unit_test(a_request_without_a_name_is_hidden),
        cmocka_unit_test(whatever_servers_might_read_differently_is_malformed),
        cmocka_unit_test(what_ends_too_early_is_malformed_where_it_looks_like_a_request),
        cmocka_unit_test(other_protocols_are_left_alone),
        cmocka_unit_test(http_2_with_prior_knowledge_is_told_apart),
        cmocka_unit_test(every_truncation_asks_for_more),
        cmocka_unit_test(overlong_parts_are_refused),
        cmocka_unit_test(a_nul_anywhere_is_no_name),
        cmocka_unit_test(every_flipped_byte_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
