/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/address.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct ip_address address(const char *text)
{
    struct ip_address a;
    assert_true(ip_address_parse(text, &a));
    return a;
}

static bool contains(const char *prefix_text, const char *address_text)
{
    struct ip_prefix prefix;
    struct ip_address a = address(address_text);

    assert_true(ip_prefix_parse(prefix_text, true, &prefix));
    return ip_prefix_contains(&prefix, &a);
}

static void what_is_parsed_is_formatted_the_same(void **state)
{
    static const char *const texts[] = {"10.0.2.2", "0.0.0.0",       "255.255.255.255",
                                        "::",       "::1",           "fd63:756c:7665::64",
                                        "fe80::2",  "2001:db8::a:b", "64:ff9b::102:304"};
    char text[IP_ADDRESS_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct ip_address a = address(texts[i]);
        assert_string_equal(ip_address_format(&a, text), texts[i]);
    }
}

static void what_is_no_address_is_refused_and_leaves_the_output_alone(void **state)
{
    static const char *const texts[] = {"",
                                        "1",
                                        "1.2.3",
                                        "1.2.3.256",
                                        "1.2.3.4 ",
                                        " 1.2.3.4",
                                        "1.2.3.4/8",
                                        "::1%lo",
                                        "[::1]",
                                        "::ffff:1.2.3.4",
                                        "::ffff:0102:0304",
                                        "fd00::2::",
                                        "12345::",
                                        "host.example.",
                                        "1.2.3.4.5"};
    struct ip_address a;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        memset(&a, 0x5a, sizeof a);
        assert_false(ip_address_parse(texts[i], &a));
        for (size_t b = 0; b < 16; b++)
            assert_int_equal(a.bytes[b], 0x5a);
    }
}

static void prefixes_contain_what_they_should(void **state)
{
    (void)state;
    assert_true(contains("10.0.0.0/8", "10.255.255.255"));
    assert_false(contains("10.0.0.0/8", "11.0.0.0"));
    assert_true(contains("172.16.0.0/12", "172.31.255.255"));
    assert_false(contains("172.16.0.0/12", "172.32.0.0"));
    assert_true(contains("10.0.2.2", "10.0.2.2"));
    assert_false(contains("10.0.2.2", "10.0.2.3"));
    assert_true(contains("0.0.0.0/0", "203.0.113.9"));
    assert_true(contains("10.0.2.2/31", "10.0.2.3"));
    assert_true(contains("fd00::/8", "fdff::1"));
    assert_false(contains("fd00::/8", "fe00::1"));
    assert_true(contains("::1", "::1"));
    assert_true(contains("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(contains("2001:db8::/33", "2001:db8:8000::1"));
}

static void families_do_not_contain_each_other(void **state)
{
    (void)state;
    assert_true(contains("::/0", "2001:db8::1"));
    assert_false(contains("::/0", "10.0.0.1"));
    assert_false(contains("::/64", "10.0.0.1"));
    assert_false(contains("0.0.0.0/0", "::1"));
    assert_false(contains("0.0.0.0/0", "::"));
}

static void prefix_lengths_are_read_exactly(void **state)
{
    static const char *const wrong[] = {
        "10.0.0.0/33", "10.0.0.0/",   "10.0.0.0/08",  "10.0.0.0/-1",   "10.0.0.0/8 ",  "fd00::/129",
        "/8",          "10.0.0.0//8", "10.0.0.0/0x8", "::ffff:0:0/96", "10.0.0.0/1000"};
    struct ip_prefix prefix;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(ip_prefix_parse(wrong[i], false, &prefix));
    assert_true(ip_prefix_parse("10.0.0.0/8", true, &prefix));
    assert_int_equal(prefix.length, 104);
    assert_true(ip_prefix_parse("fd00::1", true, &prefix));
    assert_int_equal(prefix.length, 128);
}

static void strict_prefixes_have_no_host_bits(void **state)
{
    struct ip_prefix prefix;

    (void)state;
    assert_false(ip_prefix_parse("10.0.2.100/24", true, &prefix));
    assert_true(ip_prefix_parse("10.0.2.100/24", false, &prefix));
    assert_false(ip_prefix_parse("10.0.2.1/31", true, &prefix));
    assert_false(ip_prefix_parse("fd00::1/64", true, &prefix));
}

static void endpoints_survive_the_socket_form(void **state)
{
    static const char *const texts[] = {"192.0.2.7", "2001:db8::7"};
    struct sockaddr_storage ss;
    struct ip_endpoint back;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ip_endpoint e = {.address = address(texts[i]), .port = 8443};
        socklen_t len = ip_endpoint_to_sockaddr(&e, &ss);
        assert_int_equal(ss.ss_family, i == 0 ? AF_INET : AF_INET6);
        assert_int_equal(len, i == 0 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        assert_true(ip_endpoint_from_sockaddr((struct sockaddr *)&ss, &back));
        assert_true(ip_address_equal(&back.address, &e.address));
        assert_int_equal(back.port, 8443);
    }
}

static void other_socket_addresses_are_no_endpoints(void **state)
{
    struct sockaddr_storage ss = {.ss_family = AF_UNIX};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct ip_endpoint e;

    (void)state;
    assert_false(ip_endpoint_from_sockaddr((struct sockaddr *)&ss, &e));
    assert_int_equal(inet_pton(AF_INET6, "::ffff:127.0.0.1", &in6.sin6_addr), 1);
    memcpy(&ss, &in6, sizeof in6);
    assert_false(ip_endpoint_from_sockaddr((struct sockaddr *)&ss, &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_parsed_is_formatted_the_same),
        cmocka_unit_test(what_is_no_address_is_refused_and_leaves_the_output_alone),
        cmocka_unit_test(prefixes_contain_what_they_should),
        cmocka_unit_test(families_do_not_contain_each_other),
        cmocka_unit_test(prefix_lengths_are_read_exactly),
        cmocka_unit_test(strict_prefixes_have_no_host_bits),
        cmocka_unit_test(endpoints_survive_the_socket_form),
        cmocka_unit_test(other_socket_addresses_are_no_endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
