/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/config.h"

static int setup(void **state)
{
    *state = culvert_config_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    culvert_config_free(*state);
    return 0;
}

static void set(void **state, const char *name, const char *value)
{
    struct culvert_error error = {""};

    if (culvert_config_set(*state, name, value, &error) != 0)
        fail_msg("%s", error.message);
}

/* The message must name the option and contain `part`. */
static void refused(void **state, const char *name, const char *value, const char *part)
{
    struct culvert_error error = {""};

    assert_int_equal(culvert_config_set(*state, name, value, &error), -EINVAL);
    assert_int_equal(strncmp(error.message, name, strlen(name)), 0);
    if (!strstr(error.message, part))
        fail_msg("\"%s\" does not say \"%s\"", error.message, part);
    assert_null(strchr(error.message, '\n'));
}

static void finish_refuses(void **state, const char *part)
{
    struct culvert_error error = {""};

    assert_int_equal(config_finish(*state, &error), -EINVAL);
    if (!strstr(error.message, part))
        fail_msg("\"%s\" does not say \"%s\"", error.message, part);
    assert_int_equal(config_finish(*state, NULL), -EINVAL);
}

static const char *text(const struct ip_address *address)
{
    static char buffer[IP_ADDRESS_TEXT_MAX];

    return ip_address_format(address, buffer);
}

static void the_defaults_are_the_documented_ones(void **state)
{
    const struct culvert_config *config = *state;

    assert_int_equal(config->mtu, 1500);
    assert_string_equal(text(&config->ipv4.guest), "10.0.2.100");
    assert_int_equal(config->ipv4.prefix, 24);
    assert_string_equal(text(&config->ipv4.gateway), "10.0.2.2");
    assert_string_equal(text(&config->ipv4.dns), "10.0.2.3");
    assert_string_equal(text(&config->ipv6.guest), "fd63:756c:7665::64");
    assert_int_equal(config->ipv6.prefix, 64);
    assert_string_equal(text(&config->ipv6.gateway), "fd63:756c:7665::2");
    assert_string_equal(text(&config->ipv6.dns), "fd63:756c:7665::3");
    assert_int_equal(config->ipv6_mode, CONFIG_IPV6_AUTO);
    assert_int_equal(config_finish(config, NULL), 0);
}

static void an_mtu_lies_between_576_and_65520(void **state)
{
    set(state, "mtu", "576");
    set(state, "mtu", "65520");
    assert_int_equal(((struct culvert_config *)*state)->mtu, 65520);
    for (const char *const *bad = (const char *const[]){"575", "65521", "", "1500x", "-1", "0x600",
                                                        " 1500", "99999999999999999999", NULL};
         *bad; bad++)
        refused(state, "mtu", *bad, "576 to 65520");
}

static void a_small_mtu_excludes_ipv6(void **state)
{
    set(state, "mtu", "1279");
    assert_int_equal(config_finish(*state, NULL), 0);
    assert_false(config_ipv6_offered(*state));
    set(state, "ipv6", "on");
    finish_refuses(state, "mtu 1279: IPv6 needs at least 1280");
    set(state, "mtu", "1280");
    assert_int_equal(config_finish(*state, NULL), 0);
    assert_true(config_ipv6_offered(*state));
    set(state, "ipv6", "off");
    assert_false(config_ipv6_offered(*state));
    refused(state, "ipv6", "yes", "on, off or auto");
}

static void gateway_and_resolver_follow_the_guests_subnet(void **state)
{
    const struct culvert_config *config = *state;

    set(state, "guest-ipv4", "192.168.7.77/20");
    assert_string_equal(text(&config->ipv4.gateway), "192.168.0.2");
    assert_string_equal(text(&config->ipv4.dns), "192.168.0.3");
    set(state, "guest-ipv6", "2001:db8:1:2:3::9/64");
    assert_string_equal(text(&config->ipv6.gateway), "2001:db8:1:2::2");
    assert_string_equal(text(&config->ipv6.dns), "2001:db8:1:2::3");
    assert_int_equal(config_finish(config, NULL), 0);
}

static void addresses_that_were_given_stay_in_whatever_order(void **state)
{
    const struct culvert_config *config = *state;

    set(state, "gateway-ipv4", "192.168.7.1");
    set(state, "guest-ipv4", "192.168.7.77/24");
    set(state, "dns-ipv4", "192.168.7.9");
    assert_string_equal(text(&config->ipv4.gateway), "192.168.7.1");
    assert_string_equal(text(&config->ipv4.dns), "192.168.7.9");
    assert_int_equal(config_finish(config, NULL), 0);
}

static void an_address_that_cannot_be_one_is_refused_at_once(void **state)
{
    refused(state, "guest-ipv4", "10.0.2.100", "prefix length is missing");
    refused(state, "guest-ipv4", "10.0.2.100/30", "from 1 to 29");
    refused(state, "guest-ipv4", "10.0.2.100/", "prefix length");
    refused(state, "guest-ipv4", "10.0.2/24", "not an IPv4 address");
    refused(state, "guest-ipv4", "fd00::1/64", "prefix length");
    refused(state, "guest-ipv6", "10.0.2.100/24", "not an IPv6 address");
    refused(state, "gateway-ipv4", "10.0.2.2/24", "without a prefix length");
    refused(state, "gateway-ipv6", "fe80::1%eth0", "not an IPv6 address");
    refused(state, "host-address", "example.com", "not an IP address");
}

static void a_gateway_outside_the_subnet_is_refused(void **state)
{
    set(state, "gateway-ipv4", "10.0.3.2");
    finish_refuses(state, "gateway-ipv4 10.0.3.2: outside the guest's subnet 10.0.2.100/24");
}

static void no_two_parties_share_an_address(void **state)
{
    set(state, "guest-ipv4", "10.0.2.2/24");
    finish_refuses(state, "gateway-ipv4 10.0.2.2: the same as guest-ipv4");
    set(state, "gateway-ipv4", "10.0.2.1");
    assert_int_equal(config_finish(*state, NULL), 0);
    set(state, "dns-ipv4", "10.0.2.1");
    finish_refuses(state, "dns-ipv4 10.0.2.1: the same as gateway-ipv4");
}

static void the_edges_of_a_subnet_are_nobodys(void **state)
{
    set(state, "guest-ipv4", "10.0.2.255/24");
    finish_refuses(state, "first or last");
    set(state, "guest-ipv4", "10.0.2.0/24");
    finish_refuses(state, "first or last");
    set(state, "guest-ipv4", "127.0.0.5/24");
    finish_refuses(state, "no device may have");
    set(state, "guest-ipv4", "10.0.2.9/24");
    set(state, "guest-ipv6", "fe80::9/64");
    finish_refuses(state, "no device may have");
    set(state, "ipv6", "off");
    assert_int_equal(config_finish(*state, NULL), 0);
}

static void a_mac_address_is_that_of_one_device(void **state)
{
    static const uint8_t expected[] = {2, 0, 0, 0xab, 0xCD, 0x64};

    set(state, "mac", "02:00:00:ab:CD:64");
    assert_memory_equal(((struct culvert_config *)*state)->mac, expected, 6);
    refused(state, "mac", "03:00:00:00:00:64", "multicast");
    refused(state, "mac", "00:00:00:00:00:00", "all zero");
    refused(state, "mac", "2:0:0:0:0:64", "not a MAC address");
    refused(state, "mac", "02:00:00:00:00:64:65", "not a MAC address");
    refused(state, "mac", "02:00:00:00:00:+4", "not a MAC address");
}

static void a_host_name_is_a_name(void **state)
{
    set(state, "hostname", "Box-1.example");
    assert_string_equal(((struct culvert_config *)*state)->hostname, "box-1.example");
    refused(state, "hostname", "", "not a host name");
    refused(state, "hostname", "-x", "not a host name");
    refused(state, "hostname", "a..b", "not a host name");
    refused(state, "hostname", "a b", "not a host name");
    refused(state, "hostname",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "not a host name");
}

static void rules_are_checked_when_they_are_given(void **state)
{
    struct culvert_config *config = *state;
    struct policy *policy;

    set(state, "rule", "allow tcp to 10.1.2.3 port 80");
    refused(state, "rule", "alow tcp to any", "");
    refused(state, "rule", "allow tcp to *.com", "");
    set(state, "rule", "deny to any");
    set(state, "profile", "none");
    refused(state, "profile", "some", "none");
    assert_int_equal(config->rule_count, 2);
    policy = policy_build(config->policy, 1);
    assert_non_null(policy);
    assert_string_equal(policy_rule_text(policy, 0), "allow tcp to 10.1.2.3 port 80");
    assert_string_equal(policy_rule_text(policy, 1), "deny to any");
    assert_null(policy_rule_text(policy, 2));
    policy_free(policy);
}

static void resolvers_are_kept_in_order_up_to_a_bound(void **state)
{
    struct culvert_config *config = *state;

    set(state, "dns", "192.0.2.1");
    set(state, "dns", "tcp://192.0.2.2:5353");
    assert_int_equal(config->dns_count, 2);
    assert_int_equal(config->dns[0].endpoint.port, 53);
    assert_int_equal(config->dns[1].endpoint.port, 5353);
    assert_true(config->dns[1].tcp_only);
    refused(state, "dns", "dns.example", "");
    for (int i = 2; i < DNS_UPSTREAMS_MAX; i++)
        set(state, "dns", "192.0.2.3");
    refused(state, "dns", "192.0.2.4", "at most");
}

static void names_of_dns_hosts_are_normalised(void **state)
{
    struct culvert_config *config = *state;

    set(state, "dns-host", "DB.Test.=10.1.2.3");
    set(state, "dns-host", "_x.test=fd00::1");
    assert_int_equal(config->dns_host_count, 2);
    assert_string_equal(config->dns_hosts[0].name, "db.test");
    refused(state, "dns-host", "db.test", "address is missing");
    refused(state, "dns-host", "=10.1.2.3", "not a domain name");
    refused(state, "dns-host", "a b=10.1.2.3", "not a domain name");
    refused(state, "dns-host", "db.test=here", "not an IP address");
    for (int i = 2; i < CONFIG_DNS_HOSTS_MAX; i++)
        set(state, "dns-host", "x.test=10.0.0.1");
    refused(state, "dns-host", "x.test=10.0.0.1", "at most 64");
}

static void numbers_have_bounds(void **state)
{
    struct culvert_config *config = *state;

    set(state, "max-flows", "15000");
    assert_int_equal(config->max_flows, 15000);
    refused(state, "max-flows", "0", "from 1 to");
    refused(state, "max-flows", "4294967297", "from 1 to");
    assert_false(config->spin_given);
    set(state, "spin-us", "0");
    assert_true(config->spin_given);
    refused(state, "spin-us", "1001", "0 (never spin) to 1000");
    set(state, "net-worker", "thread");
    assert_int_equal(config->net_worker, CONFIG_NET_WORKER_THREAD);
    refused(state, "net-worker", "threads", "direct, thread or auto");
}

static void verbose_and_quiet_contradict_each_other(void **state)
{
    set(state, "verbose", NULL);
    assert_int_equal(config_finish(*state, NULL), 0);
    set(state, "quiet", "on");
    finish_refuses(state, "contradicts verbose");
}

static void unknown_and_unavailable_options_say_so(void **state)
{
    refused(state, "mtuu", "1500", "did you mean mtu?");
    refused(state, "zzzzzzzzzzzz", "1", "no such option");
    refused(state, "control", "x.sock", "not available yet");
    refused(state, "mtu", NULL, "576");
    assert_int_equal(culvert_config_set(*state, "mtu", "1", NULL), -EINVAL);
}

static void an_endless_value_makes_a_bounded_message(void **state)
{
    char value[5000];

    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    for (const struct config_option *option = config_options(); option->name; option++) {
        struct culvert_error error = {""};

        if (!option->set)
            continue;
        assert_int_equal(culvert_config_set(*state, option->name, value, &error), -EINVAL);
        assert_true(strlen(error.message) > strlen(option->name));
    }
}

static void what_is_refused_is_watched_audited_and_learnt_from(void **state)
{
    set(state, "events", "/tmp/culvert-events");
    refused(state, "events", "", "name a file");
    set(state, "audit", "on");
    refused(state, "audit", "maybe", "on or off");
    set(state, "learn", "learnt.json");
    refused(state, "learn", "", "name a file");
    finish_refuses(state, "audit: contradicts learn");
    set(state, "audit", "off");
    set(state, "learn-wildcards", "on");
    assert_int_equal(config_finish(*state, NULL), 0);
}

static void wildcards_without_learning_are_a_mistake(void **state)
{
    set(state, "learn-wildcards", "on");
    finish_refuses(state, "give learn a file too");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(the_defaults_are_the_documented_ones),
        TEST(an_mtu_lies_between_576_and_65520),
        TEST(a_small_mtu_excludes_ipv6),
        TEST(gateway_and_resolver_follow_the_guests_subnet),
        TEST(addresses_that_were_given_stay_in_whatever_order),
        TEST(an_address_that_cannot_be_one_is_refused_at_once),
        TEST(a_gateway_outside_the_subnet_is_refused),
        TEST(no_two_parties_share_an_address),
        TEST(the_edges_of_a_subnet_are_nobodys),
        TEST(a_mac_address_is_that_of_one_device),
        TEST(a_host_name_is_a_name),
        TEST(rules_are_checked_when_they_are_given),
        TEST(resolvers_are_kept_in_order_up_to_a_bound),
        TEST(names_of_dns_hosts_are_normalised),
        TEST(numbers_have_bounds),
        TEST(verbose_and_quiet_contradict_each_other),
        TEST(unknown_and_unavailable_options_say_so),
        TEST(what_is_refused_is_watched_audited_and_learnt_from),
        TEST(wildcards_without_learning_are_a_mistake),
        TEST(an_endless_value_makes_a_bounded_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
