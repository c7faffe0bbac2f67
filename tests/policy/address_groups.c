/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/address_groups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy/policy.h"

#define PUBLIC     POLICY_PUBLIC
#define PRIVATE    POLICY_PRIVATE
#define LINK_LOCAL POLICY_LINK_LOCAL
#define METADATA   POLICY_METADATA
#define MULTICAST  POLICY_MULTICAST
#define SPECIAL    POLICY_SPECIAL

static const struct {
    const char *address;
    unsigned groups;
} ROWS[] = {
    /* IPv4: both ends of every range, and their neighbours. */
    {"0.0.0.0", SPECIAL},
    {"0.255.255.255", SPECIAL},
    {"1.0.0.0", PUBLIC},
    {"1.1.1.1", PUBLIC},
    {"8.8.8.8", PUBLIC},
    {"9.255.255.255", PUBLIC},
    {"10.0.0.0", PRIVATE},
    {"10.255.255.255", PRIVATE},
    {"11.0.0.0", PUBLIC},
    {"100.63.255.255", PUBLIC},
    {"100.64.0.0", PRIVATE},
    {"100.127.255.255", PRIVATE},
    {"100.128.0.0", PUBLIC},
    {"126.255.255.255", PUBLIC},
    {"127.0.0.0", SPECIAL},
    {"127.0.0.1", SPECIAL},
    {"127.255.255.255", SPECIAL},
    {"128.0.0.0", PUBLIC},
    {"168.63.129.15", PUBLIC},
    {"168.63.129.17", PUBLIC},
    {"169.253.255.255", PUBLIC},
    {"169.254.0.0", LINK_LOCAL},
    {"169.254.169.253", LINK_LOCAL},
    {"169.254.255.255", LINK_LOCAL},
    {"169.255.0.0", PUBLIC},
    {"172.15.255.255", PUBLIC},
    {"172.16.0.0", PRIVATE},
    {"172.31.255.255", PRIVATE},
    {"172.32.0.0", PUBLIC},
    {"191.255.255.255", PUBLIC},
    {"192.0.0.0", SPECIAL},
    {"192.0.0.8", SPECIAL},
    {"192.0.0.9", SPECIAL},
    {"192.0.0.170", SPECIAL},
    {"192.0.0.255", SPECIAL},
    {"192.0.1.0", PUBLIC},
    {"192.0.2.0", SPECIAL},
    {"192.0.2.255", SPECIAL},
    {"192.0.3.0", PUBLIC},
    {"192.31.195.255", PUBLIC},
    {"192.31.196.1", SPECIAL},
    {"192.31.197.0", PUBLIC},
    {"192.52.193.1", SPECIAL},
    {"192.52.194.0", PUBLIC},
    {"192.88.99.1", SPECIAL},
    {"192.88.99.2", SPECIAL},
    {"192.88.100.0", PUBLIC},
    {"192.167.255.255", PUBLIC},
    {"192.168.0.0", PRIVATE},
    {"192.168.255.255", PRIVATE},
    {"192.169.0.0", PUBLIC},
    {"192.175.48.1", SPECIAL},
    {"192.175.49.0", PUBLIC},
    {"198.17.255.255", PUBLIC},
    {"198.18.0.0", SPECIAL},
    {"198.19.255.255", SPECIAL},
    {"198.20.0.0", PUBLIC},
    {"198.51.99.255", PUBLIC},
    {"198.51.100.1", SPECIAL},
    {"198.51.101.0", PUBLIC},
    {"203.0.112.255", PUBLIC},
    {"203.0.113.1", SPECIAL},
    {"203.0.114.0", PUBLIC},
    {"223.255.255.255", PUBLIC},
    {"224.0.0.0", MULTICAST},
    {"239.255.255.255", MULTICAST},
    {"240.0.0.0", SPECIAL},
    {"255.255.255.254", SPECIAL},
    {"255.255.255.255", SPECIAL},

    /* Metadata services, wherever they stand. */
    {"169.254.169.254", METADATA | LINK_LOCAL},
    {"169.254.169.252", METADATA | LINK_LOCAL},
    {"169.254.169.250", METADATA | LINK_LOCAL},
    {"169.254.170.2", METADATA | LINK_LOCAL},
    {"169.254.170.23", METADATA | LINK_LOCAL},
    {"169.254.0.23", METADATA | LINK_LOCAL},
    {"169.254.10.10", METADATA | LINK_LOCAL},
    {"169.254.42.42", METADATA | LINK_LOCAL},
    {"168.63.129.16", METADATA},
    {"100.100.100.200", METADATA | PRIVATE},
    {"100.96.0.96", METADATA | PRIVATE},
    {"100.80.80.80", METADATA | PRIVATE},
    {"192.0.0.192", METADATA},
    {"fd00:ec2::254", METADATA | PRIVATE},
    {"fd00:ec2::23", METADATA | PRIVATE},
    {"fd00:ec1:ffff::254", PRIVATE},
    {"fd00:ec3::254", PRIVATE},
    {"fd20:ce::254", METADATA | PRIVATE},
    {"fd20:ce::253", PRIVATE},
    {"fd00:c1::a9fe:a9fe", METADATA | PRIVATE},
    {"fd00:42::42", METADATA | PRIVATE},
    {"fd00:a9fe:a9fe::1", METADATA | PRIVATE},
    {"fd00:100::100:200", METADATA | PRIVATE},
    {"fe80::a9fe:a9fe", METADATA | LINK_LOCAL},

    /* IPv6. */
    {"::", SPECIAL},
    {"::1", SPECIAL},
    {"::2", SPECIAL},
    {"::7f00:1", SPECIAL},
    {"::8.8.8.8", SPECIAL},
    {"::ffff:0:8.8.8.8", SPECIAL},
    {"64:ff9b:1::1", SPECIAL},
    {"100::1", SPECIAL},
    {"100:0:0:1::1", SPECIAL},
    {"200::1", SPECIAL},
    {"1fff:ffff::", SPECIAL},
    {"2000::", PUBLIC},
    {"2001::", SPECIAL},
    {"2001::1", SPECIAL},
    {"2001:1::1", SPECIAL},
    {"2001:2::1", SPECIAL},
    {"2001:3::1", SPECIAL},
    {"2001:4:112::1", SPECIAL},
    {"2001:10::1", SPECIAL},
    {"2001:20::1", SPECIAL},
    {"2001:30::1", SPECIAL},
    {"2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", SPECIAL},
    {"2001:200::", PUBLIC},
    {"2001:4860:4860::8888", PUBLIC},
    {"2001:db7:ffff::", PUBLIC},
    {"2001:db8::1", SPECIAL},
    {"2001:db9::", PUBLIC},
    {"2002::1", SPECIAL},
    {"2002:808:808::1", SPECIAL},
    {"2003::1", PUBLIC},
    {"2606:4700::1111", PUBLIC},
    {"2620:4f:7fff::", PUBLIC},
    {"2620:4f:8000::1", SPECIAL},
    {"2620:4f:8001::", PUBLIC},
    {"2a00:1450::1", PUBLIC},
    {"3ffe:ffff::", PUBLIC},
    {"3fff::1", SPECIAL},
    {"3fff:fff:ffff::1", SPECIAL},
    {"3fff:1000::", PUBLIC},
    {"3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", PUBLIC},
    {"4000::1", SPECIAL},
    {"5f00::1", SPECIAL},
    {"8000::1", SPECIAL},
    {"fbff::1", SPECIAL},
    {"fc00::1", PRIVATE},
    {"fd63:756c:7665::64", PRIVATE},
    {"fdff:ffff::1", PRIVATE},
    {"fe00::1", SPECIAL},
    {"fe7f:ffff::1", SPECIAL},
    {"fe80::1", LINK_LOCAL},
    {"febf:ffff::1", LINK_LOCAL},
    {"fec0::1", SPECIAL},
    {"feff::1", SPECIAL},
    {"ff00::", MULTICAST},
    {"ff02::1", MULTICAST},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", MULTICAST},
};

static void every_address_has_the_groups_of_the_registries(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        struct ip_address address;
        if (!ip_address_parse(ROWS[i].address, &address))
            fail_msg("%s does not parse", ROWS[i].address);
        unsigned groups = address_groups(&address);
        if (groups != ROWS[i].groups)
            fail_msg("%s: groups %u, expected %u", ROWS[i].address, groups, ROWS[i].groups);
    }
}

static void public_and_special_stand_alone(void **state)
{
    (void)state;
    assert_int_equal(address_groups_normalise(0), PUBLIC);
    assert_int_equal(address_groups_normalise(PUBLIC | POLICY_HOST), POLICY_HOST);
    assert_int_equal(address_groups_normalise(SPECIAL | METADATA), METADATA);
    assert_int_equal(address_groups_normalise(SPECIAL), SPECIAL);
    assert_int_equal(address_groups_normalise(PRIVATE | POLICY_DNS), PRIVATE | POLICY_DNS);
}

static void this_host_is_loopback_and_the_unspecified(void **state)
{
    static const struct {
        const char *address;
        bool expected;
    } rows[] = {
        {"127.0.0.1", true}, {"127.255.0.3", true}, {"0.0.0.0", true}, {"0.1.2.3", true},
        {"::", true},        {"::1", true},         {"::2", false},    {"128.0.0.1", false},
        {"1.0.0.0", false},  {"10.0.2.2", false},   {"1::", false},    {"::1:0:0", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ip_address address;
        assert_true(ip_address_parse(rows[i].address, &address));
        assert_int_equal(address_is_loopback_or_unspecified(&address), rows[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_address_has_the_groups_of_the_registries),
        cmocka_unit_test(public_and_special_stand_alone),
        cmocka_unit_test(this_host_is_loopback_and_the_unspecified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
