/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/names.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* 63 and 64 bytes. */
#define LABEL63 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"
#define LABEL64 LABEL63 "l"

static void what_a_guest_sends_is_normalised(void **state)
{
    static const struct {
        const char *sent, *name;
    } rows[] = {
        {"example.com", "example.com"},
        {"EXAMPLE.Com", "example.com"},
        {"example.com.", "example.com"},
        {"localhost", "localhost"},
        {"a", "a"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example"},
        {"_dmarc.example.com", "_dmarc.example.com"},
        {"-x-.example", "-x-.example"},
        {"1.2.3.4.example", "1.2.3.4.example"},
        {"0x7f.example", "0x7f.example"},
        {"example.0x", NULL}, /* a number to some parsers */
        {"example.0xg", "example.0xg"},
        {LABEL63 ".example", LABEL63 ".example"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct dns_name name;
        char shown[NAME_SHOWN_MAX];
        int r = name_from_guest(rows[i].sent, strlen(rows[i].sent), &name);
        if (r != (rows[i].name ? 0 : -EINVAL))
            fail_msg("%s: %d", rows[i].sent, r);
        if (r == 0)
            assert_string_equal(name_show(&name, shown), rows[i].name);
    }
}

static void what_is_no_host_name_is_refused(void **state)
{
    static const char *const rows[] = {
        "",
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "exa mple.com",
        "example.com/",
        "example.com:443",
        "user@example.com",
        "*.example.com",
        "b\xc3\xbc.example",
        "example\n.com",
        "1.2.3.4",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "example.1",
        "[::1]",
        "::1",
        "1.2.3.4.",
        LABEL64 ".example",
        "a\\.b.example",
        "\x7f.example",
    };
    struct dns_name name = {.len = 77};
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (name_from_guest(rows[i], strlen(rows[i]), &name) != -EINVAL)
            fail_msg("\"%s\" was taken", rows[i]);
        assert_int_equal(name.len, 77);
    }
    assert_int_equal(name_from_guest("exam\0ple.com", 12, &name), -EINVAL);
    assert_int_equal(name_from_guest("example.com\0", 12, &name), -EINVAL);
}

static void a_name_has_at_most_253_bytes(void **state)
{
    char text[300];
    struct dns_name name;
    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 2 ? '.' : 'a';
    assert_int_equal(name_from_guest(text, 253, &name), 0);
    assert_int_equal(name.len, 255);
    assert_int_equal(name_from_guest(text, 254, &name), 0); /* the last byte is the final dot */
    assert_int_equal(name_from_guest(text, 255, &name), -EINVAL);
    assert_int_equal(name_from_guest(text, 299, &name), -EINVAL);
}

static void whatever_is_shown_is_harmless(void **state)
{
    char text[32], all[256];
    (void)state;
    assert_string_equal(text_show("plain text", 10, text, sizeof text), "plain text");
    assert_string_equal(text_show("\x1b[31m", 5, text, sizeof text), "\\x1b[31m");
    assert_string_equal(text_show("a\\b\n\xff", 5, text, sizeof text), "a\\x5cb\\x0a\\xff");
    assert_string_equal(text_show("", 0, text, sizeof text), "");
    assert_string_equal(text_show("0123456789abcdef", 16, text, 10), "012345...");
    assert_string_equal(text_show("012345678", 9, text, 10), "012345678");
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)i;
    for (size_t size = 1; size < sizeof text; size++) {
        memset(text, 'Z', sizeof text);
        text_show(all, sizeof all, text, size);
        assert_true(memchr(text, '\0', size) != NULL);
        for (size_t i = size; i < sizeof text; i++)
            assert_int_equal(text[i], 'Z');
    }
    memset(text, 'Z', sizeof text);
    text_show("abc", 3, text, 0);
    assert_int_equal(text[0], 'Z');
}

static void names_with_any_bytes_are_shown_escaped(void **state)
{
    struct dns_name name = {.len = 8, .bytes = {4, 'a', '.', 0, '\n', 1, 'b', 0}};
    char shown[NAME_SHOWN_MAX];
    (void)state;
    assert_string_equal(name_show(&name, shown), "a\\.\\000\\010.b");
}

static struct name_pattern pattern_of(const char *text)
{
    struct name_pattern pattern;
    char message[256];
    if (name_pattern_parse(text, strlen(text), &pattern, message, sizeof message) < 0)
        fail_msg("%s: %s", text, message);
    return pattern;
}

static void patterns_match_what_they_say(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } rows[] = {
        {"example.com", "example.com", true},
        {"example.com", "EXAMPLE.COM", true},
        {"example.com", "www.example.com", false},
        {"*.example.com", "example.com", true},
        {"*.example.com", "a.b.c.example.com", true},
        {"*.example.com", "bexample.com", false},
        {"*.example.com", "example.com.au", false},
        {"*.example.com", "x\\.example.com", false},
        {"a*.example.com", "a.example.com", true},
        {"a*.example.com", "abc.example.com", true},
        {"a*.example.com", "ABC.example.com", true},
        {"a*.example.com", "bc.example.com", false},
        {"a*.example.com", "x.abc.example.com", false},
        {"a*.example.com", "abc.x.example.com", false},
        {"*a.example.com", "a.example.com", true},
        {"*a.example.com", "bca.example.com", true},
        {"*a.example.com", "x.a.example.com", false},
        {"a*a.example.com", "a.example.com", false},
        {"a*a.example.com", "aa.example.com", true},
        {"a*a.example.com", "aba.example.com", true},
        {"s3.*.example.com", "s3.eu.example.com", true},
        {"s3.*.example.com", "s3.example.com", false},
        {"s3.*.example.com", "s3.a.b.example.com", false},
        {"b\xc3\xbc"
         "cher.example",
         "xn--bcher-kva.example", true},
        {"*.b\xc3\xbc"
         "cher.example",
         "www.xn--bcher-kva.example", true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct name_pattern pattern = pattern_of(rows[i].pattern);
        struct dns_name name;
        assert_int_equal(dns_name_parse(rows[i].name, &name), 0);
        if (name_pattern_matches(&pattern, &name) != rows[i].matches)
            fail_msg("%s on %s", rows[i].pattern, rows[i].name);
    }
}

static void patterns_know_how_far_they_reach(void **state)
{
    static const struct {
        const char *pattern;
        enum name_breadth breadth;
    } rows[] = {
        {"com.", NAME_BREADTH_OWNER},
        {"co.uk", NAME_BREADTH_OWNER},
        {"*.com", NAME_BREADTH_PUBLIC},
        {"*.COM", NAME_BREADTH_PUBLIC},
        {"*.co.uk", NAME_BREADTH_PUBLIC},
        {"*.ck", NAME_BREADTH_PUBLIC},
        {"*.kobe.jp", NAME_BREADTH_PUBLIC},
        {"*.example.com", NAME_BREADTH_OWNER},
        {"*.example.co.uk", NAME_BREADTH_OWNER},
        {"git*.com", NAME_BREADTH_PUBLIC},
        {"www.*.com", NAME_BREADTH_PUBLIC},
        {"example.*", NAME_BREADTH_PUBLIC},
        {"a*.example.com", NAME_BREADTH_OWNER},
        {"*.s3.amazonaws.com", NAME_BREADTH_PRIVATE},
        {"*.github.io", NAME_BREADTH_PRIVATE},
        {"x*.github.io", NAME_BREADTH_PRIVATE},
        {"*.me.github.io", NAME_BREADTH_OWNER},
        {"*.internal", NAME_BREADTH_OWNER},
        {"*.corp.lan", NAME_BREADTH_OWNER},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct name_pattern pattern = pattern_of(rows[i].pattern);
        if (name_pattern_breadth(&pattern) != rows[i].breadth)
            fail_msg("%s: %d", rows[i].pattern, name_pattern_breadth(&pattern));
    }
}

static void what_has_no_dot_is_left_to_others(void **state)
{
    struct name_pattern pattern;
    char message[64] = "untouched";
    (void)state;
    assert_int_equal(name_pattern_parse("publc", 5, &pattern, message, sizeof message), -ENOENT);
    assert_int_equal(name_pattern_parse("", 0, &pattern, message, sizeof message), -ENOENT);
    assert_int_equal(name_pattern_parse(".", 1, &pattern, message, sizeof message), -ENOENT);
    assert_string_equal(message, "untouched");
    assert_int_equal(name_pattern_parse("a..b", 4, &pattern, message, 0), -EINVAL);
    assert_string_equal(message, "untouched");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_guest_sends_is_normalised),
        cmocka_unit_test(what_is_no_host_name_is_refused),
        cmocka_unit_test(a_name_has_at_most_253_bytes),
        cmocka_unit_test(whatever_is_shown_is_harmless),
        cmocka_unit_test(names_with_any_bytes_are_shown_escaped),
        cmocka_unit_test(patterns_match_what_they_say),
        cmocka_unit_test(patterns_know_how_far_they_reach),
        cmocka_unit_test(what_has_no_dot_is_left_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
