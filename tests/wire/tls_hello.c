/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/tls_hello.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/writer.h"

#define HELLO_MAX 70000

/* ---- hellos to order ---- */

struct hello {
    uint8_t bytes[HELLO_MAX];
    size_t len;
};

/* A place for a length of `width` bytes, to be filled by close_length(). */
static size_t open_length(struct writer *w, size_t width)
{
    writer_zeros(w, width);
    return w->len;
}

static void close_length(struct writer *w, size_t at, size_t width)
{
    size_t len = w->len - at;

    assert_true(writer_ok(w));
    for (size_t i = 0; i < width; i++)
        w->data[at - 1 - i] = (uint8_t)(len >> (8 * i));
}

static void add_extension(struct writer *w, uint16_t type, const void *bytes, size_t len)
{
    writer_be16(w, type);
    writer_be16(w, (uint16_t)len);
    writer_bytes(w, bytes, len);
}

static void add_server_name(struct writer *w, const char *name, size_t len)
{
    writer_be16(w, 0);
    writer_be16(w, (uint16_t)(len + 5));
    writer_be16(w, (uint16_t)(len + 3));
    writer_u8(w, 0);
    writer_be16(w, (uint16_t)len);
    writer_bytes(w, name, len);
}

/* The message up to where extensions go; returns the two places for close_message(). */
static void open_message(struct writer *w, size_t at[2])
{
    writer_u8(w, 1);
    at[0] = open_length(w, 3);
    writer_be16(w, 0x0303);
    writer_zeros(w, 32);
    writer_u8(w, 32);
    writer_zeros(w, 32);
    writer_be16(w, 4);
    writer_be16(w, 0x1a1a); /* GREASE */
    writer_be16(w, 0x1301);
    writer_be16(w, 0x0100);
    at[1] = open_length(w, 2);
    add_extension(w, 0x2a2a, NULL, 0); /* GREASE */
}

static void close_message(struct writer *w, const size_t at[2])
{
    add_extension(w, 0x3a3a, "\0", 1);
    close_length(w, at[1], 2);
    close_length(w, at[0], 3);
}

static size_t message_build(uint8_t *to, const char *name)
{
    struct writer w = writer_of(to, HELLO_MAX);
    size_t at[2];

    open_message(&w, at);
    if (name)
        add_server_name(&w, name, strlen(name));
    close_message(&w, at);
    return w.len;
}

/* The message in records of `piece` bytes each. */
static void in_records(struct hello *hello, const uint8_t *message, size_t len, size_t piece)
{
    struct writer w = writer_of(hello->bytes, sizeof hello->bytes);

    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;

        writer_be16(&w, 0x1603);
        writer_u8(&w, 1);
        writer_be16(&w, (uint16_t)n);
        writer_bytes(&w, message + at, n);
    }
    assert_true(writer_ok(&w));
    hello->len = w.len;
}

static void hello_build(struct hello *hello, const char *name)
{
    uint8_t message[HELLO_MAX];
    size_t len = message_build(message, name);

    in_records(hello, message, len, 16384);
}

/* A copy of exactly this length, so that a sanitizer sees a step beyond. */
static enum flow_name_result parse_once(const uint8_t *bytes, size_t len, struct tls_hello *ret)
{
    uint8_t *exact = malloc(len ? len : 1);
    struct iovec iov = {exact, len};
    enum flow_name_result result;

    assert_non_null(exact);
    memcpy(exact, bytes, len);
    *ret = (struct tls_hello){.length = 0};
    result = tls_hello_parse(ret, &iov, 1);
    free(exact);
    return result;
}

static void assert_result(const struct hello *hello, enum flow_name_result expected,
                          const char *name)
{
    struct tls_hello parsed;

    assert_int_equal(parse_once(hello->bytes, hello->len, &parsed), expected);
    assert_string_equal(parsed.name.text, name);
    assert_int_equal(parsed.name.len, strlen(name));
}

/* ---- what is read ---- */

static void the_server_name_is_read_in_lower_case_without_its_final_dot(void **state)
{
    struct hello hello;

    (void)state;
    hello_build(&hello, "WWW.Example_1.com.");
    assert_result(&hello, FLOW_NAME_NAMED, "www.example_1.com");
}

static void a_hello_without_a_server_name_is_hidden(void **state)
{
    struct hello hello;

    (void)state;
    hello_build(&hello, NULL);
    assert_result(&hello, FLOW_NAME_HIDDEN, "");
}

static void names_that_cannot_be_used_are_hidden(void **state)
{
    static const char *const names[] = {
        "",          "192.0.2.1",         "127.1",         "0x7f000001", "2130706433",
        "1.2.3.0xA", "2001:db8::1",       "a..b",          ".",          ".a",
        "a b",       "b\xc3\xbc.example", "*.example.com", "a/b",        "a@b",
    };
    struct hello hello;
    char overlong[257];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        hello_build(&hello, names[i]);
        assert_result(&hello, FLOW_NAME_HIDDEN, "");
    }
    for (size_t i = 0; i < sizeof overlong; i++)
        overlong[i] = i % 2 ? '.' : 'a';
    overlong[256] = '\0';
    hello_build(&hello, overlong);
    assert_result(&hello, FLOW_NAME_HIDDEN, "");
    overlong[253] = '\0';
    hello_build(&hello, overlong);
    assert_result(&hello, FLOW_NAME_NAMED, overlong);
    memset(overlong, 'a', 64);
    overlong[64] = '\0';
    hello_build(&hello, overlong);
    assert_result(&hello, FLOW_NAME_HIDDEN, "");
}

static void a_name_with_a_nul_is_hidden(void **state)
{
    uint8_t message[HELLO_MAX];
    struct writer w = writer_of(message, sizeof message);
    struct hello hello;
    size_t at[2];

    (void)state;
    open_message(&w, at);
    add_server_name(&w, "evil.example\0.example.com", 25);
    close_message(&w, at);
    in_records(&hello, message, w.len, 16384);
    assert_result(&hello, FLOW_NAME_HIDDEN, "");
}

static void two_names_in_one_list_are_hidden(void **state)
{
    static const uint8_t list[] = {0,   16, 0, 0, 5,   'a', '.', 'c', 'o',
                                   'm', 0,  0, 5, 'b', '.', 'c', 'o', 'm'};
    uint8_t message[HELLO_MAX];
    struct writer w = writer_of(message, sizeof message);
    struct hello hello;
    size_t at[2];

    (void)state;
    open_message(&w, at);
    add_extension(&w, 0, list, sizeof list);
    close_message(&w, at);
    in_records(&hello, message, w.len, 16384);
    assert_result(&hello, FLOW_NAME_HIDDEN, "");
}

static void a_name_of_another_type_is_hidden(void **state)
{
    static const uint8_t list[] = {0, 8, 1, 0, 5, 'a', '.', 'c', 'o', 'm'};
    uint8_t message[HELLO_MAX];
    struct writer w = writer_of(message, sizeof message);
    struct hello hello;
    size_t at[2];

    (void)state;
    open_message(&w, at);
    add_extension(&w, 0, list, sizeof list);
    close_message(&w, at);
    in_records(&hello, message, w.len, 16384);
    assert_result(&hello, FLOW_NAME_HIDDEN, "");
}

static void two_server_name_extensions_are_malformed(void **state)
{
    uint8_t message[HELLO_MAX];
    struct writer w = writer_of(message, sizeof message);
    struct hello hello;
    size_t at[2];

    (void)state;
    open_message(&w, at);
    add_server_name(&w, "a.example", 9);
    add_server_name(&w, "a.example", 9);
    close_message(&w, at);
    in_records(&hello, message, w.len, 16384);
    assert_result(&hello, FLOW_NAME_MALFORMED, "");
}

static void an_encrypted_hello_is_reported_beside_the_outer_name(void **state)
{
    uint8_t message[HELLO_MAX];
    struct writer w = writer_of(message, sizeof message);
    struct tls_hello parsed;
    struct hello hello;
    size_t at[2];

    (void)state;
    hello_build(&hello, "plain.example");
    assert_int_equal(parse_once(hello.bytes, hello.len, &parsed), FLOW_NAME_NAMED);
    assert_false(parsed.has_ech);
    open_message(&w, at);
    add_server_name(&w, "outer.example", 13);
    add_extension(&w, 0xfe0d, "\0\0\1\0\1\7\0\0\0\0", 10);
    close_message(&w, at);
    in_records(&hello, message, w.len, 16384);
    assert_int_equal(parse_once(hello.bytes, hello.len, &parsed), FLOW_NAME_NAMED);
    assert_true(parsed.has_ech);
    assert_string_equal(parsed.name.text, "outer.example");
}

static void a_hello_of_old_without_extensions_is_hidden(void **state)
{
    uint8_t message[64] = {1, 0, 0, 2 + 32 + 1 + 4 + 2, 3, 1};
    struct hello hello;

    (void)state;
    memcpy(message + 4 + 2 + 32, "\0\0\2\0\x2f\1\0", 7);
    in_records(&hello, message, 4 + 41, 16384);
    assert_result(&hello, FLOW_NAME_HIDDEN, "");
}

static void a_hello_in_the_format_of_ssl_2_is_hidden(void **state)
{
    struct hello hello = {.len = 2 + 9 + 3 + 16};

    (void)state;
    memcpy(hello.bytes, "\x80\x1c\1\3\1\0\3\0\0\0\x10\0\0\x2f", 14);
    assert_result(&hello, FLOW_NAME_HIDDEN, "");
    hello.bytes[1]++; /* lengths that do not add up: something else */
    assert_result(&hello, FLOW_NAME_NOT_THIS_PROTOCOL, "");
    hello.bytes[1]--;
    for (hello.len = 1; hello.len < 11; hello.len++)
        assert_result(&hello, FLOW_NAME_NEED_MORE, "");
}

/* ---- what is no hello ---- */

static void other_protocols_are_told_by_their_first_bytes(void **state)
{
    static const char *const starts[] = {
        "GET / HTTP/1.1\r\n",   "SSH-2.0-x\r\n", "\x16\x02", "\x05\x01",
        "\x80\x61\x01\x03\x09", "\xff\xff\xff",  "\x17\x01", "EHLO x\r\n",
    };
    struct hello hello;

    (void)state;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        hello.len = strlen(starts[i]);
        memcpy(hello.bytes, starts[i], hello.len);
        assert_result(&hello, FLOW_NAME_NOT_THIS_PROTOCOL, "");
    }
    memset(hello.bytes, 0, 8); /* PostgreSQL's SSLRequest begins like this */
    hello.len = 8;
    assert_result(&hello, FLOW_NAME_NOT_THIS_PROTOCOL, "");
}

static void an_alert_in_front_of_a_hello_is_malformed(void **state)
{
    struct hello hello;

    (void)state;
    hello_build(&hello, "a.example");
    memmove(hello.bytes + 7, hello.bytes, hello.len);
    memcpy(hello.bytes, "\x15\x03\x01\0\2\1\0", 7);
    hello.len += 7;
    assert_result(&hello, FLOW_NAME_MALFORMED, "");
}

static void broken_records_are_malformed(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
    } faults[] = {
        {3, 0x40},                /* above 16 KiB */
        {5, 2},                   /* a ServerHello */
        {5 + 4, 2},               /* version 2.x */
        {5 + 4 + 2 + 32, 33},     /* session id too long */
        {5 + 4 + 2 + 32 + 34, 3}, /* an odd number of bytes of suites */
    };
    struct hello hello;

    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        hello_build(&hello, "a.example");
        hello.bytes[faults[i].at] = faults[i].value;
        assert_result(&hello, FLOW_NAME_MALFORMED, "");
    }
    hello_build(&hello, "a.example");
    hello.bytes[3] = hello.bytes[4] = 0; /* an empty record */
    assert_result(&hello, FLOW_NAME_MALFORMED, "");
}

static void another_record_within_the_hello_is_malformed(void **state)
{
    uint8_t message[HELLO_MAX];
    size_t len = message_build(message, "a.example");
    struct hello hello;

    (void)state;
    in_records(&hello, message, len, 40);
    hello.bytes[45] = 21;
    assert_result(&hello, FLOW_NAME_MALFORMED, "");
}

static void more_handshake_behind_the_hello_is_malformed(void **state)
{
    uint8_t message[HELLO_MAX];
    size_t len = message_build(message, "a.example");
    struct hello hello;

    (void)state;
    memset(message + len, 0, 10);
    in_records(&hello, message, len + 10, 16384);
    assert_result(&hello, FLOW_NAME_MALFORMED, "");
}

static void early_data_behind_the_hello_is_let_alone(void **state)
{
    struct hello hello;

    (void)state;
    hello_build(&hello, "a.example");
    memcpy(hello.bytes + hello.len, "\x14\3\3\0\1\1\x17\3\3\0\x20", 11);
    hello.len += 11;
    assert_result(&hello, FLOW_NAME_NAMED, "a.example");
}

static void a_hello_that_declares_more_than_is_held_is_too_large(void **state)
{
    struct hello hello;

    (void)state;
    hello_build(&hello, "a.example");
    hello.bytes[6] = 1; /* 64 KiB and more */
    assert_result(&hello, FLOW_NAME_TOO_LARGE, "");
}

static void a_hello_of_60000_bytes_is_read(void **state)
{
    static uint8_t message[HELLO_MAX];
    static struct hello hello;
    struct writer w = writer_of(message, sizeof message);
    static const uint8_t padding[60000];
    size_t at[2];

    (void)state;
    open_message(&w, at);
    add_extension(&w, 21, padding, sizeof padding);
    add_server_name(&w, "far.example", 11);
    close_message(&w, at);
    in_records(&hello, message, w.len, 16384);
    assert_result(&hello, FLOW_NAME_NAMED, "far.example");
    hello.len--;
    assert_result(&hello, FLOW_NAME_NEED_MORE, "");
}

/* ---- however it is cut ---- */

static void every_truncation_asks_for_more(void **state)
{
    struct hello hello;
    size_t whole;

    (void)state;
    hello_build(&hello, "www.example.com");
    whole = hello.len;
    for (hello.len = 0; hello.len < whole; hello.len++)
        assert_result(&hello, FLOW_NAME_NEED_MORE, "");
}

static void every_cut_into_two_pieces_reads_the_same(void **state)
{
    struct hello hello;

    (void)state;
    hello_build(&hello, "www.example.com");
    for (size_t cut = 0; cut <= hello.len; cut++) {
        struct iovec iov[3] = {{hello.bytes, cut}, {NULL, 0}, {hello.bytes + cut, hello.len - cut}};
        struct tls_hello parsed = {.length = 0};

        assert_int_equal(tls_hello_parse(&parsed, iov, 3), FLOW_NAME_NAMED);
        assert_string_equal(parsed.name.text, "www.example.com");
    }
}

static void every_size_of_records_reads_the_same(void **state)
{
    uint8_t message[HELLO_MAX];
    size_t len = message_build(message, "www.example.com");
    struct hello hello;

    (void)state;
    for (size_t piece = 1; piece <= len; piece++) {
        size_t whole;

        in_records(&hello, message, len, piece);
        assert_result(&hello, FLOW_NAME_NAMED, "www.example.com");
        whole = hello.len;
        for (hello.len = whole - 1; hello.len > 0; hello.len -= hello.len > 13 ? 13 : 1)
            assert_result(&hello, FLOW_NAME_NEED_MORE, "");
    }
}

static void a_hello_that_trickles_in_is_looked_at_seldom(void **state)
{
    static uint8_t message[HELLO_MAX];
    static struct hello hello;
    struct tls_hello parsed = {.length = 0};
    struct writer w = writer_of(message, sizeof message);
    static const uint8_t padding[8000];
    unsigned looks = 0;
    size_t at[2];

    (void)state;
    open_message(&w, at);
    add_extension(&w, 21, padding, sizeof padding);
    add_server_name(&w, "slow.example", 12);
    close_message(&w, at);
    in_records(&hello, message, w.len, 1);
    for (size_t len = 1; len <= hello.len; len++) {
        struct iovec iov = {hello.bytes, len};
        size_t wanted = parsed.wanted;
        enum flow_name_result result = tls_hello_parse(&parsed, &iov, 1);

        looks += parsed.wanted != wanted;
        assert_int_equal(result, len < hello.len ? FLOW_NAME_NEED_MORE : FLOW_NAME_NAMED);
    }
    assert_true(looks < 150);
    assert_string_equal(parsed.name.text, "slow.example");
}

static void every_flipped_byte_is_survived(void **state)
{
    struct hello hello;
    struct tls_hello parsed;

    (void)state;
    hello_build(&hello, "a.example");
    for (size_t i = 0; i < hello.len; i++) {
        uint8_t was = hello.bytes[i];

        for (unsigned value = 0; value < 256; value++) {
            hello.bytes[i] = (uint8_t)value;
            if (parse_once(hello.bytes, hello.len, &parsed) != FLOW_NAME_NAMED)
                assert_int_equal(parsed.name.len, 0);
        }
        hello.bytes[i] = was;
    }
}

/* ---- without records ---- */

static void a_message_alone_is_read_and_its_length_told(void **state)
{
    uint8_t message[HELLO_MAX];
    size_t len = message_build(message, "quic.example");
    struct tls_hello parsed = {.length = 0};

    (void)state;
    for (size_t n = 0; n < len; n++)
        assert_int_equal(tls_hello_parse_message(&parsed, message, n), FLOW_NAME_NEED_MORE);
    assert_int_equal(tls_hello_parse_message(&parsed, message, len + 5), FLOW_NAME_NAMED);
    assert_string_equal(parsed.name.text, "quic.example");
    assert_int_equal(parsed.length, len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_server_name_is_read_in_lower_case_without_its_final_dot),
        cmocka_unit_test(a_hello_without_a_server_name_is_hidden),
        cmocka_unit_test(names_that_cannot_be_used_are_hidden),
        cmocka_unit_test(a_name_with_a_nul_is_hidden),
        cmocka_unit_test(two_names_in_one_list_are_hidden),
        cmocka_unit_test(a_name_of_another_type_is_hidden),
        cmocka_unit_test(two_server_name_extensions_are_malformed),
        cmocka_unit_test(an_encrypted_hello_is_reported_beside_the_outer_name),
        cmocka_unit_test(a_hello_of_old_without_extensions_is_hidden),
        cmocka_unit_test(a_hello_in_the_format_of_ssl_2_is_hidden),
        cmocka_unit_test(other_protocols_are_told_by_their_first_bytes),
        cmocka_unit_test(an_alert_in_front_of_a_hello_is_malformed),
        cmocka_unit_test(broken_records_are_malformed),
        cmocka_unit_test(another_record_within_the_hello_is_malformed),
        cmocka_unit_test(more_handshake_behind_the_hello_is_malformed),
        cmocka_unit_test(early_data_behind_the_hello_is_let_alone),
        cmocka_unit_test(a_hello_that_declares_more_than_is_held_is_too_large),
        cmocka_unit_test(a_hello_of_60000_bytes_is_read),
        cmocka_unit_test(every_truncation_asks_for_more),
        cmocka_unit_test(every_cut_into_two_pieces_reads_the_same),
        cmocka_unit_test(every_size_of_records_reads_the_same),
        cmocka_unit_test(a_hello_that_trickles_in_is_looked_at_seldom),
        cmocka_unit_test(every_flipped_byte_is_survived),
        cmocka_unit_test(a_message_alone_is_read_and_its_length_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
