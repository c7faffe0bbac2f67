/* SPDX-License-Identifier: Apache-2.0 */
#include "harness.h"

#include <errno.h>

static void assert_parses(const char *text, const char *address, uint16_t port, bool tcp_only)
{
    char message[256], formatted[IP_ADDRESS_TEXT_MAX];
    struct dns_upstream upstream;

    assert_int_equal(dns_upstream_parse(text, &upstream, message, sizeof message), 0);
    assert_string_equal(ip_address_format(&upstream.endpoint.address, formatted), address);
    assert_int_equal(upstream.endpoint.port, port);
    assert_int_equal(upstream.tcp_only, tcp_only);
}

static void addresses_ports_and_schemes_are_understood(void **state)
{
    (void)state;
    assert_parses("1.1.1.1", "1.1.1.1", 53, false);
    assert_parses("127.0.0.1:5353", "127.0.0.1", 5353, false);
    assert_parses("2606:4700::1111", "2606:4700::1111", 53, false);
    assert_parses("[2606:4700::1111]", "2606:4700::1111", 53, false);
    assert_parses("[::1]:5353", "::1", 5353, false);
    assert_parses("udp://9.9.9.9:53", "9.9.9.9", 53, false);
    assert_parses("udp://[::1]:1", "::1", 1, false);
    assert_parses("tcp://9.9.9.9", "9.9.9.9", 53, true);
    assert_parses("tcp://[::1]:65535", "::1", 65535, true);
}

static void tls_has_a_name_for_the_certificate_or_none(void **state)
{
    char message[256];
    struct dns_upstream upstream;

    (void)state;
    assert_parses("tls://9.9.9.9", "9.9.9.9", 853, true);
    assert_parses("tls://Dns.Example.@[::1]:8853", "::1", 8853, true);
    assert_int_equal(
        dns_upstream_parse("tls://Dns.Example.@9.9.9.9", &upstream, message, sizeof message), 0);
    assert_true(upstream.tls);
    assert_string_equal(upstream.tls_name, "dns.example");
}

static void a_zone_may_stand_before_each_of_them(void **state)
{
    char message[256], text[DNS_TEXT_MAX];
    struct dns_upstream upstream;

    (void)state;
    assert_parses("corp.example=10.0.0.1", "10.0.0.1", 53, false);
    assert_parses("10.in-addr.arpa.=tcp://[::1]:5353", "::1", 5353, true);
    assert_int_equal(dns_upstream_parse("Corp.example=tls://dns.corp.example@10.0.0.1", &upstream,
                                        message, sizeof message),
                     0);
    assert_string_equal(dns_name_format(&upstream.zone, text), "Corp.example");
}

static void everything_else_is_refused_with_the_mend(void **state)
{
    static const char *const texts[] = {
        "",
        "dns.example",
        "1.1.1",
        "1.1.1.1:",
        "1.1.1.1:0",
        "1.1.1.1:65536",
        "1.1.1.1:53x",
        "[::1",
        "[::1]x",
        "[::1]:",
        "::1:::2",
        "tls://dns.example@",
        "tls://@1.1.1.1",
        "tls://1.2.3.4@1.1.1.1",
        "tls://a b@1.1.1.1",
        "dns.example@1.1.1.1",
        "tcp://dns.example@1.1.1.1",
        "https://1.1.1.1",
        "=10.0.0.1",
        ".=10.0.0.1",
        "a..b=10.0.0.1",
        "corp.example=",
        "a.example=b.example=10.0.0.1",
        "tcp://",
        "1.1.1.1 ",
        "11111111111111111111111111111111111111111111111111111111111111111111111111111111111111"};
    struct dns_upstream upstream;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char message[256] = "";

        assert_int_equal(dns_upstream_parse(texts[i], &upstream, message, sizeof message), -EINVAL);
        assert_non_null(strstr(message, "give "));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_ports_and_schemes_are_understood),
        cmocka_unit_test(tls_has_a_name_for_the_certificate_or_none),
        cmocka_unit_test(a_zone_may_stand_before_each_of_them),
        cmocka_unit_test(everything_else_is_refused_with_the_mend),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
