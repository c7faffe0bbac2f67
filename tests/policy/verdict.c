/* SPDX-License-Identifier: Apache-2.0 */

/* Verdicts of the whole policy: rules as text, questions as text, one row each.
 *
 * The world of these tests: culvert's default addresses; the host owns 192.168.7.7 and 198.18.7.7
 * (as a route lookup would say) and 5.6.7.8 and 2a00:77::1 (as --host-address would say); NAT64 is
 * 64:ff9b::/96 and 2a00:64::/96. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/policy.h"

static struct ip_address address_of(const char *text)
{
    struct ip_address address;
    if (!ip_address_parse(text, &address))
        fail_msg("%s is no address", text);
    return address;
}

static bool host_owns(void *ctx, const struct ip_address *address)
{
    static const char *const own[] = {"192.168.7.7", "198.18.7.7", "169.254.7.7", "127.0.0.1",
                                      "0.0.0.0",     "::1",        "::"};
    (void)ctx;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        struct ip_address one = address_of(own[i]);
        if (ip_address_equal(&one, address))
            return true;
    }
    return false;
}

static struct policy_world the_world(void)
{
    return (struct policy_world){
        .gateway4 = address_of("10.0.2.2"),
        .gateway6 = address_of("fd63:756c:7665::2"),
        .dns4 = address_of("10.0.2.3"),
        .dns6 = address_of("fd63:756c:7665::3"),
        .is_host_address = host_owns,
    };
}

/* `rules` are separated by ';'. */
static struct policy *policy_of(const char *profile, const char *rules)
{
    struct policy_builder *builder = policy_builder_new();
    struct ip_prefix nat64;
    struct ip_address host4 = address_of("5.6.7.8"), host6 = address_of("2a00:77::1");
    char message[512], *copy = strdup(rules), *rest = copy;

    assert_non_null(builder);
    assert_true(ip_prefix_parse("2a00:64::/96", true, &nat64));
    assert_int_equal(policy_builder_nat64(builder, &nat64), 0);
    assert_int_equal(policy_builder_host_address(builder, &host4), 0);
    assert_int_equal(policy_builder_host_address(builder, &host6), 0);
    assert_int_equal(policy_builder_profile(builder, profile, message, sizeof message), 0);
    for (char *rule; (rule = strsep(&rest, ";")) != NULL;) {
        if (*rule && policy_builder_add(builder, rule, NULL, message, sizeof message) < 0)
            fail_msg("%s: %s", rule, message);
    }
    free(copy);
    struct policy *policy = policy_build(builder, 1);
    assert_non_null(policy);
    policy_builder_free(builder);
    return policy;
}

/* "tcp 1.2.3.4 443", "icmp ::1", and "from tcp 1.2.3.4 22" for ingress. */
static struct policy_query query_of(const char *text)
{
    struct policy_query query = {.direction = POLICY_EGRESS};
    char protocol[8], address[64];
    unsigned port = 0;
    if (strncmp(text, "from ", 5) == 0) {
        query.direction = POLICY_INGRESS;
        text += 5;
    }
    assert_true(sscanf(text, "%7s %63s %u", protocol, address, &port) >= 2);
    query.protocol = strcmp(protocol, "tcp") == 0   ? POLICY_TCP
                     : strcmp(protocol, "udp") == 0 ? POLICY_UDP
                                                    : POLICY_ICMP;
    query.address = address_of(address);
    query.port = (uint16_t)port;
    return query;
}

/* "allow 0", "deny 3", "deny default", "deny floor 2". */
static void describe(const struct policy_verdict *verdict, char *text, size_t size)
{
    static const char *const actions[] = {"allow", "deny", "drop"};
    if (verdict->reason == POLICY_REASON_DEFAULT)
        snprintf(text, size, "%s default", actions[verdict->action]);
    else
        snprintf(text, size, "%s %s%u", actions[verdict->action],
                 verdict->reason == POLICY_REASON_FLOOR ? "floor " : "", verdict->rule);
}

struct row {
    const char *query, *verdict;
};

static void check(const char *profile, const char *rules, const struct row *rows, size_t count)
{
    struct policy *policy = policy_of(profile, rules);
    struct policy_world world = the_world();
    for (size_t i = 0; i < count; i++) {
        struct policy_query query = query_of(rows[i].query);
        struct policy_verdict verdict = policy_judge(policy, &world, &query);
        char text[64];
        describe(&verdict, text, sizeof text);
        if (strcmp(text, rows[i].verdict) != 0)
            fail_msg("%s + \"%s\": %s gives \"%s\", expected \"%s\"", profile, rules, rows[i].query,
                     text, rows[i].verdict);
    }
    policy_free(policy);
}

#define CHECK(profile, rules, ...)                                                                 \
    do {                                                                                           \
        static const struct row rows[] = {__VA_ARGS__};                                            \
        check(profile, rules, rows, sizeof rows / sizeof rows[0]);                                 \
    } while (0)

static void profile_public_is_dns_and_the_public_internet(void **state)
{
    (void)state;
    CHECK("public", "", {"udp 10.0.2.3 53", "allow 0"}, /* resolver */
          {"tcp 10.0.2.3 53", "allow 0"}, {"icmp 10.0.2.3", "allow 0"},
          {"udp fd63:756c:7665::3 53", "allow 0"}, {"tcp 1.1.1.1 443", "allow 1"}, /* internet */
          {"udp 8.8.8.8 443", "allow 1"}, {"icmp 8.8.8.8", "allow 1"},
          {"tcp 2606:4700::1111 443", "allow 1"}, {"icmp 2606:4700::1111", "allow 1"},
          {"tcp 10.0.2.2 22", "deny default"}, /* the host */
          {"tcp fd63:756c:7665::2 22", "deny default"}, {"tcp 192.168.7.7 22", "deny default"},
          {"tcp 5.6.7.8 22", "deny default"}, {"tcp 2a00:77::1 22", "deny default"},
          {"tcp 198.18.7.7 22", "deny default"}, {"tcp 10.1.2.3 80", "deny default"}, /* private */
          {"tcp 172.20.1.1 80", "deny default"}, {"tcp 192.168.1.1 80", "deny default"},
          {"tcp 100.64.0.1 80", "deny default"}, {"tcp fd00::1 80", "deny default"},
          {"tcp 169.254.169.254 80", "deny default"}, /* metadata */
          {"tcp 168.63.129.16 80", "deny default"}, {"tcp 100.100.100.200 80", "deny default"},
          {"tcp 192.0.0.192 80", "deny default"}, {"tcp fd00:ec2::254 80", "deny default"},
          {"udp 224.0.0.251 5353", "deny default"}, /* multicast */
          {"udp ff02::fb 5353", "deny default"},
          {"tcp 169.254.1.1 80", "deny default"},                                   /* link-local */
          {"tcp fe80::1 80", "deny default"}, {"tcp 127.0.0.1 80", "deny default"}, /* loopback */
          {"tcp ::1 80", "deny default"}, {"tcp 0.0.0.0 80", "deny default"},
          {"tcp :: 80", "deny default"}, {"udp 255.255.255.255 67", "deny default"}, /* special */
          {"tcp 2002:7f00:1::1 80", "deny default"}, {"tcp 2001::1 80", "deny default"},
          {"tcp ::ffff:0:127.0.0.1 80", "deny default"}, {"tcp 192.0.2.1 80", "deny default"},
          {"tcp 240.0.0.1 80", "deny default"}, {"tcp 64:ff9b::1.1.1.1 443", "allow 1"}, /* NAT64 */
          {"tcp 64:ff9b::10.1.2.3 443", "deny default"},
          {"tcp 64:ff9b::127.0.0.1 443", "deny default"},
          {"tcp 64:ff9b::169.254.169.254 80", "deny default"},
          {"tcp 64:ff9b::168.63.129.16 80", "deny default"},
          {"tcp 64:ff9b::192.168.7.7 22", "deny default"},
          {"tcp 64:ff9b::5.6.7.8 22", "deny default"},
          {"tcp 64:ff9b::10.0.2.3 53", "deny default"},   /* not our resolver */
          {"tcp 64:ff9b:1::1.1.1.1 443", "deny default"}, /* not configured */
          {"tcp 2a00:64::8.8.8.8 443", "allow 1"},        /* configured */
          {"tcp 2a00:64::a00:1 443", "deny default"},
          {"tcp 2a00:64:0:0:0:1:808:808 443", "allow 1"}, /* beside the prefix */
          {"from tcp 8.8.8.8 22", "allow default"},       /* published ports */
          {"from tcp 127.0.0.1 22", "allow default"});
}

static void profile_none_allows_nothing(void **state)
{
    (void)state;
    CHECK("none", "", {"tcp 1.1.1.1 443", "deny default"}, {"udp 10.0.2.3 53", "deny default"},
          {"icmp ::1", "deny default"}, {"from tcp 1.2.3.4 22", "allow default"});
}

static void profile_all_lifts_the_floor_but_metadata(void **state)
{
    (void)state;
    CHECK("all", "", {"tcp 1.1.1.1 443", "allow 0"}, {"udp 10.0.2.3 53", "allow 0"},
          {"tcp 10.0.2.2 22", "allow 0"}, {"tcp 192.168.7.7 22", "allow 0"},
          {"tcp 198.18.7.7 22", "allow 0"}, {"tcp 5.6.7.8 22", "allow 0"},
          {"tcp 192.168.1.1 80", "allow 0"}, {"tcp 169.254.1.1 80", "allow 0"},
          {"tcp 169.254.7.7 80", "allow 0"}, {"udp 224.0.0.251 5353", "allow 0"},
          {"tcp fe80::1 80", "allow 0"}, {"udp ff02::1 80", "allow 0"},
          {"tcp 169.254.169.254 80", "deny floor 0"}, {"tcp 169.254.170.2 80", "deny floor 0"},
          {"tcp 168.63.129.16 80", "deny floor 0"}, {"tcp 100.100.100.200 80", "deny floor 0"},
          {"tcp fd00:ec2::254 80", "deny floor 0"}, {"tcp fe80::a9fe:a9fe 80", "deny floor 0"},
          {"tcp 64:ff9b::169.254.169.254 80", "deny floor 0"},
          {"tcp 127.0.0.1 80", "deny floor 0"}, /* special: named or nothing */
          {"tcp 0.0.0.0 80", "deny floor 0"}, {"tcp 192.0.2.1 80", "deny floor 0"});
}

static void an_allow_of_any_stays_above_the_floor(void **state)
{
    (void)state;
    CHECK("none", "allow to any", {"tcp 1.1.1.1 443", "allow 0"}, {"tcp 10.1.2.3 443", "allow 0"},
          {"tcp fd00::1 443", "allow 0"}, {"udp 10.0.2.3 53", "allow 0"},
          {"tcp 10.0.2.2 22", "deny floor 0"}, {"tcp 192.168.7.7 22", "deny floor 0"},
          {"tcp 5.6.7.8 22", "deny floor 0"}, {"tcp 169.254.169.254 80", "deny floor 0"},
          {"tcp 100.100.100.200 80", "deny floor 0"}, {"tcp 169.254.1.1 80", "deny floor 0"},
          {"udp 239.1.1.1 80", "deny floor 0"}, {"udp ff02::1 80", "deny floor 0"},
          {"tcp 127.0.0.1 80", "deny floor 0"}, {"tcp 240.0.0.1 80", "deny floor 0"});
}

static void a_refusal_of_any_matches_everything(void **state)
{
    (void)state;
    CHECK("all", "drop tcp to any;deny to any", {"tcp 1.1.1.1 443", "drop 0"},
          {"tcp 10.0.2.2 22", "drop 0"}, {"tcp 169.254.169.254 80", "drop 0"},
          {"tcp 127.0.0.1 80", "drop 0"}, {"tcp ff02::1 80", "drop 0"},
          {"tcp 64:ff9b::1.1.1.1 80", "drop 0"}, {"udp 240.0.0.1 80", "deny 1"},
          {"icmp 10.0.2.3", "deny 1"}, {"from tcp 1.1.1.1 443", "allow default"});
}

static void the_floor_opens_to_those_who_name_it(void **state)
{
    (void)state;
    CHECK("none", "allow to host", {"tcp 10.0.2.2 22", "allow 0"},
          {"tcp fd63:756c:7665::2 22", "allow 0"}, {"tcp 192.168.7.7 22", "allow 0"},
          {"tcp 198.18.7.7 22", "allow 0"}, {"tcp 169.254.7.7 22", "allow 0"},
          {"tcp 5.6.7.8 22", "allow 0"}, {"tcp 64:ff9b::5.6.7.8 22", "allow 0"},
          {"tcp 127.0.0.1 22", "deny default"}, {"tcp 0.0.0.0 22", "deny default"},
          {"tcp ::1 22", "deny default"}, {"tcp 192.168.7.8 22", "deny default"});
    CHECK("none", "allow to metadata", {"tcp 169.254.169.254 80", "allow 0"},
          {"tcp fd00:ec2::254 80", "allow 0"}, {"tcp 168.63.129.16 80", "allow 0"},
          {"tcp 169.254.169.251 80", "deny default"});
    CHECK("none", "allow to link-local", {"tcp 169.254.1.1 80", "allow 0"},
          {"tcp fe80::1 80", "allow 0"}, {"tcp 169.254.7.7 80", "deny floor 0"}, /* the host's */
          {"tcp 169.254.169.254 80", "deny floor 0"});                           /* metadata */
    CHECK("none", "allow to multicast", {"udp 224.0.0.251 5353", "allow 0"},
          {"udp ff02::fb 5353", "allow 0"}, {"udp 255.255.255.255 67", "deny default"});
    CHECK("none", "allow to 169.254.169.254,10.0.2.2,224.0.0.0/4,127.0.0.1,::1",
          {"tcp 169.254.169.254 80", "allow 0"}, {"tcp 10.0.2.2 80", "allow 0"},
          {"udp 239.0.0.1 80", "allow 0"}, {"tcp 127.0.0.1 80", "allow 0"},
          {"tcp ::1 80", "allow 0"}, {"tcp 169.254.170.2 80", "deny default"});
    CHECK("none", "allow to 169.254.0.0/16", {"tcp 169.254.169.254 80", "allow 0"},
          {"tcp 169.254.1.1 80", "allow 0"});
}

static void private_does_not_include_what_is_stronger(void **state)
{
    (void)state;
    CHECK("none", "allow to private", {"tcp 10.1.2.3 80", "allow 0"},
          {"tcp 172.16.0.1 80", "allow 0"}, {"tcp 192.168.1.1 80", "allow 0"},
          {"tcp 100.64.1.1 80", "allow 0"}, {"tcp fc00::1 80", "allow 0"},
          {"tcp 64:ff9b::10.1.2.3 80", "allow 0"}, {"tcp 10.0.2.2 80", "deny floor 0"},
          {"tcp 192.168.7.7 80", "deny floor 0"}, {"tcp 100.100.100.200 80", "deny floor 0"},
          {"tcp fd00:ec2::254 80", "deny floor 0"}, {"tcp 1.1.1.1 80", "deny default"});
}

static void a_refusal_by_group_counts_for_every_group_of_the_address(void **state)
{
    (void)state;
    CHECK("all", "deny to private;drop to link-local", {"tcp 10.1.2.3 80", "deny 0"},
          {"tcp 192.168.7.7 80", "deny 0"}, /* the host's, and private */
          {"tcp 10.0.2.2 80", "deny 0"}, {"udp 10.0.2.3 53", "deny 0"},
          {"tcp 100.100.100.200 80", "deny 0"}, {"tcp 169.254.169.254 80", "drop 1"},
          {"tcp 169.254.7.7 80", "drop 1"}, {"tcp 5.6.7.8 80", "allow 2"},
          {"tcp 1.1.1.1 80", "allow 2"});
}

static void special_ranges_are_reached_by_address_only(void **state)
{
    (void)state;
    CHECK("all", "allow to public,private,host,link-local,multicast,metadata,dns",
          {"tcp 192.0.2.1 80", "deny floor 1"}, {"tcp 127.0.0.1 80", "deny floor 1"},
          {"tcp 2002::1 80", "deny floor 1"}, {"tcp 169.254.169.254 80", "allow 0"});
    CHECK("public", "allow to 192.0.2.0/24,2001:db8::/32,198.18.0.0/15",
          {"tcp 192.0.2.1 80", "allow 0"}, {"tcp 198.19.1.1 80", "allow 0"},
          {"tcp 198.18.7.7 80", "allow 0"}, /* named by CIDR */
          {"tcp 2001:db8::1 80", "allow 0"}, {"tcp 192.0.3.1 80", "allow 2"},
          {"tcp 203.0.113.1 80", "deny default"});
}

static void the_first_match_decides(void **state)
{
    (void)state;
    CHECK("public", "deny tcp to 1.2.3.0/24 port 25;allow to 1.2.3.4;drop to 1.2.0.0/16",
          {"tcp 1.2.3.4 25", "deny 0"}, {"tcp 1.2.3.4 80", "allow 1"}, {"icmp 1.2.3.4", "allow 1"},
          {"tcp 1.2.3.5 80", "drop 2"}, {"tcp 1.2.3.5 25", "deny 0"}, {"udp 1.2.3.5 25", "drop 2"},
          {"tcp 1.2.4.1 25", "drop 2"}, {"tcp 1.3.0.1 25", "allow 4"});
    CHECK("public", "allow to 1.2.0.0/16;deny to 1.2.3.4", /* the larger first */
          {"tcp 1.2.3.4 25", "allow 0"}, {"tcp 1.2.9.9 25", "allow 0"});
    CHECK("public", "deny to 1.2.3.4;allow to 1.2.3.4", {"tcp 1.2.3.4 25", "deny 0"});
    CHECK("none", "allow tcp to any port 80;deny to private;allow to any",
          {"tcp 10.1.1.1 80", "allow 0"}, {"tcp 10.1.1.1 81", "deny 1"},
          {"udp 10.1.1.1 80", "deny 1"}, {"tcp 1.1.1.1 81", "allow 2"});
    CHECK("none", "allow to host port 22;deny to any;allow to host", {"tcp 10.0.2.2 22", "allow 0"},
          {"tcp 10.0.2.2 23", "deny 1"}, {"icmp 10.0.2.2", "deny 1"});
    /* An allow that the floor keeps out is passed over; a later rule may decide. */
    CHECK("none", "allow to any;allow to host;drop to metadata", {"tcp 10.0.2.2 22", "allow 1"},
          {"tcp 169.254.169.254 80", "drop 2"}, {"tcp 224.0.0.1 80", "deny floor 0"});
}

static void ports_bind_to_their_protocol(void **state)
{
    (void)state;
    CHECK("none",
          "allow tcp to any port 80,443,8000-8100;allow udp to any port 53;allow icmp to any",
          {"tcp 1.1.1.1 80", "allow 0"}, {"tcp 1.1.1.1 443", "allow 0"},
          {"tcp 1.1.1.1 7999", "deny default"}, {"tcp 1.1.1.1 8000", "allow 0"},
          {"tcp 1.1.1.1 8100", "allow 0"}, {"tcp 1.1.1.1 8101", "deny default"},
          {"udp 1.1.1.1 80", "deny default"}, {"udp 1.1.1.1 53", "allow 1"},
          {"tcp 1.1.1.1 53", "deny default"}, {"icmp 1.1.1.1", "allow 2"},
          {"tcp 1.1.1.1 65535", "deny default"});
}

static void a_rule_with_ports_never_matches_icmp(void **state)
{
    (void)state;
    CHECK("none", "allow to any port 1-65535", {"tcp 1.1.1.1 1", "allow 0"},
          {"udp 1.1.1.1 65535", "allow 0"}, {"tcp 1.1.1.1 0", "deny default"},
          {"icmp 1.1.1.1", "deny default"});
}

static void families_do_not_mix(void **state)
{
    (void)state;
    CHECK("none", "allow to ::/0", {"tcp 2606:4700::1 80", "allow 0"},
          {"tcp ff02::1 80", "allow 0"}, {"tcp ::1 80", "allow 0"},
          {"tcp 1.1.1.1 80", "deny default"}, {"tcp 0.0.0.0 80", "deny default"},
          {"tcp 255.255.255.255 80", "deny default"});
    CHECK("none", "allow to 0.0.0.0/0", {"tcp 1.1.1.1 80", "allow 0"},
          {"tcp 0.0.0.0 80", "allow 0"}, {"tcp 255.255.255.255 80", "allow 0"},
          {"tcp 2606:4700::1 80", "deny default"}, {"tcp :: 80", "deny default"},
          {"tcp ::fffe:ffff:ffff 80", "deny default"}, {"tcp ::1:0:0:0 80", "deny default"});
    CHECK("all", "deny to ::/64", {"tcp ::5 80", "deny 0"}, {"tcp 1.1.1.1 80", "allow 1"},
          {"tcp 2606:4700::1 80", "allow 1"});
}

static void nat64_is_judged_as_what_it_carries(void **state)
{
    (void)state;
    CHECK("none", "allow to 10.1.0.0/16,1.1.1.1", {"tcp 64:ff9b::10.1.2.3 80", "allow 0"},
          {"tcp 2a00:64::10.1.2.3 80", "allow 0"}, {"tcp 64:ff9b::1.1.1.1 80", "allow 0"},
          {"tcp 64:ff9b::10.2.2.3 80", "deny default"});
    CHECK("all", "deny to 1.1.1.1", {"tcp 64:ff9b::1.1.1.1 80", "deny 0"},
          {"tcp 64:ff9b::1.1.1.2 80", "allow 1"});
    /* All of IPv6 is not all that NAT64 leads to; but who refuses it refuses that too. */
    CHECK("none", "allow to ::/0", {"tcp 64:ff9b::1.1.1.1 80", "deny default"},
          {"tcp 64:ff9b::169.254.169.254 80", "deny default"},
          {"tcp 2a00:64::8.8.8.8 80", "deny default"}, {"tcp 2a00:64::1:0:0:0 80", "allow 0"});
    CHECK("all", "allow to 1.1.1.1;deny to ::/0", {"tcp 64:ff9b::1.1.1.1 80", "allow 0"},
          {"tcp 64:ff9b::1.1.1.2 80", "deny 1"}, {"tcp 1.1.1.2 80", "allow 2"});
    CHECK("none", "allow to 64:ff9b::808:0/112", /* named exactly */
          {"tcp 64:ff9b::8.8.8.8 80", "allow 0"}, {"tcp 8.8.8.8 80", "deny default"},
          {"tcp 64:ff9b::8.9.8.8 80", "deny default"});
    CHECK("all", "deny to 64:ff9b::/96", {"tcp 64:ff9b::1.1.1.1 80", "deny 0"},
          {"tcp 2a00:64::1.1.1.1 80", "allow 1"}, {"tcp 1.1.1.1 80", "allow 1"});
}

static void ingress_admits_everyone_until_there_is_a_from_rule(void **state)
{
    (void)state;
    CHECK("public", "deny to any", {"from tcp 8.8.8.8 22", "allow default"},
          {"from udp fe80::1 22", "allow default"});
    CHECK("public", "allow tcp from 10.0.0.0/8 port 22", {"from tcp 10.9.9.9 22", "allow 0"},
          {"from tcp 10.9.9.9 23", "deny default"}, {"from udp 10.9.9.9 22", "deny default"},
          {"from tcp 8.8.8.8 22", "deny default"},
          {"tcp 8.8.8.8 22", "allow 2"}, /* egress is another matter */
          {"tcp 10.9.9.9 22", "deny default"});
    CHECK("none", "drop from 1.2.3.4", {"from tcp 1.2.3.4 22", "drop 0"},
          {"from tcp 1.2.3.5 22", "deny default"});
}

static void the_floor_is_no_matter_of_ingress(void **state)
{
    (void)state;
    CHECK("none", "deny tcp from any port 25;allow from any", {"from tcp 127.0.0.1 80", "allow 1"},
          {"from tcp ::1 80", "allow 1"}, {"from tcp 192.168.7.7 80", "allow 1"},
          {"from tcp fe80::1 80", "allow 1"}, {"from tcp 192.0.2.1 80", "allow 1"},
          {"from tcp 127.0.0.1 25", "deny 0"});
    CHECK("none", "allow from host", {"from tcp 127.0.0.1 80", "allow 0"},
          {"from tcp ::1 80", "allow 0"}, {"from tcp 192.168.7.7 80", "allow 0"},
          {"from tcp 192.168.7.8 80", "deny default"});
    CHECK("none", "allow from private",
          {"from tcp 192.168.7.7 80", "allow 0"}, /* the host's, and private */
          {"from tcp 192.168.7.8 80", "allow 0"}, {"from tcp 127.0.0.1 80", "deny default"});
}

/* ---- the rest of the interface ---- */

static void groups_of_an_address_are_a_set(void **state)
{
    static const struct {
        const char *address;
        unsigned groups;
    } rows[] = {
        {"1.1.1.1", POLICY_PUBLIC},
        {"10.0.2.2", POLICY_HOST | POLICY_PRIVATE},
        {"10.0.2.3", POLICY_DNS | POLICY_PRIVATE},
        {"fd63:756c:7665::2", POLICY_HOST | POLICY_PRIVATE},
        {"fd63:756c:7665::3", POLICY_DNS | POLICY_PRIVATE},
        {"192.168.7.7", POLICY_HOST | POLICY_PRIVATE},
        {"198.18.7.7", POLICY_HOST},
        {"5.6.7.8", POLICY_HOST},
        {"2a00:77::1", POLICY_HOST},
        {"127.0.0.1", POLICY_SPECIAL},
        {"::1", POLICY_SPECIAL},
        {"0.0.0.0", POLICY_SPECIAL},
        {"::", POLICY_SPECIAL},
        {"64:ff9b::1.1.1.1", POLICY_PUBLIC},
        {"64:ff9b::10.0.2.2", POLICY_PRIVATE},
        {"64:ff9b::169.254.169.254", POLICY_METADATA | POLICY_LINK_LOCAL},
        {"64:ff9b::5.6.7.8", POLICY_HOST},
        {"64:ff9b::192.168.7.7", POLICY_HOST | POLICY_PRIVATE},
        {"64:ff9b::127.0.0.1", POLICY_SPECIAL},
    };
    struct policy *policy = policy_of("none", "");
    struct policy_world world = the_world();
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ip_address address = address_of(rows[i].address);
        unsigned groups = policy_groups_of(policy, &world, &address);
        if (groups != rows[i].groups)
            fail_msg("%s: %u, expected %u", rows[i].address, groups, rows[i].groups);
    }
    policy_free(policy);
}

static void an_empty_world_has_no_host_and_no_resolver(void **state)
{
    struct policy *policy = policy_of("none", "");
    struct policy_world world = {.is_host_address = NULL};
    struct ip_address zero = address_of("::"), private = address_of("10.0.2.2");
    (void)state;
    assert_int_equal(policy_groups_of(policy, &world, &zero), POLICY_SPECIAL);
    assert_int_equal(policy_groups_of(policy, &world, &private), POLICY_PRIVATE);
    policy_free(policy);
}

static void rules_keep_their_text_and_the_profiles_come_last(void **state)
{
    struct policy_builder *builder = policy_builder_new();
    char message[256];
    (void)state;
    assert_int_equal(policy_builder_profile(builder, "public", message, sizeof message), 0);
    assert_int_equal(
        policy_builder_add(builder, "deny  TO 1.2.3.4 # why", NULL, message, sizeof message), 0);
    assert_int_equal(policy_builder_add(builder, "# nothing", NULL, message, sizeof message), 0);
    struct policy *policy = policy_build(builder, 7);
    assert_int_equal(policy_builder_add(builder, "deny to 1.2.3.5", NULL, message, sizeof message),
                     0);
    assert_int_equal(policy_builder_profile(builder, "none", message, sizeof message), 0);
    struct policy *next = policy_build(builder, 8);
    policy_builder_free(builder);

    assert_int_equal(policy_generation(policy), 7);
    assert_string_equal(policy_rule_text(policy, 0), "deny  TO 1.2.3.4 # why");
    assert_string_equal(policy_rule_text(policy, 1), "allow to dns");
    assert_string_equal(policy_rule_text(policy, 2), "allow to public");
    assert_null(policy_rule_text(policy, 3));
    assert_null(policy_rule_text(policy, UINT32_MAX));
    assert_int_equal(policy_generation(next), 8);
    assert_string_equal(policy_rule_text(next, 1), "deny to 1.2.3.5");
    assert_null(policy_rule_text(next, 2));
    policy_free(policy);
    policy_free(next);
    assert_null(policy_free(NULL));
    assert_null(policy_builder_free(NULL));
}

static void faults_name_their_origin(void **state)
{
    struct policy_builder *builder = policy_builder_new();
    char message[256];
    (void)state;
    assert_int_equal(
        policy_builder_add(builder, "allow to pubic", "--rule 2", message, sizeof message),
        -EINVAL);
    assert_string_equal(message,
                        "--rule 2: column 10: unknown target \"pubic\"; did you mean \"public\"?");
    assert_int_equal(policy_builder_profile(builder, "pubilc", message, sizeof message), -EINVAL);
    assert_string_equal(message, "unknown profile; did you mean \"public\"?");
    assert_int_equal(policy_builder_profile(builder, "strict", message, sizeof message), -EINVAL);
    assert_string_equal(message, "unknown profile: write public, none or all");
    policy_builder_free(builder);
}

static void a_nat64_prefix_is_a_96_of_ipv6(void **state)
{
    static const struct {
        const char *prefix;
        int expected;
    } rows[] = {{"2a00:1::/96", 0},
                {"2a00:1::/64", -EINVAL},
                {"10.0.0.0/8", -EINVAL},
                {"0.0.0.0/0", -EINVAL}};
    struct policy_builder *builder = policy_builder_new();
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ip_prefix prefix;
        assert_true(ip_prefix_parse(rows[i].prefix, true, &prefix));
        assert_int_equal(policy_builder_nat64(builder, &prefix), rows[i].expected);
    }
    policy_builder_free(builder);
}

static void groups_have_names(void **state)
{
    (void)state;
    assert_string_equal(policy_group_name(POLICY_PUBLIC), "public");
    assert_string_equal(policy_group_name(POLICY_LINK_LOCAL), "link-local");
    assert_string_equal(policy_group_name(POLICY_DNS), "dns");
    assert_string_equal(policy_group_name(POLICY_SPECIAL), "special");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profile_public_is_dns_and_the_public_internet),
        cmocka_unit_test(profile_none_allows_nothing),
        cmocka_unit_test(profile_all_lifts_the_floor_but_metadata),
        cmocka_unit_test(an_allow_of_any_stays_above_the_floor),
        cmocka_unit_test(a_refusal_of_any_matches_everything),
        cmocka_unit_test(the_floor_opens_to_those_who_name_it),
        cmocka_unit_test(private_does_not_include_what_is_stronger),
        cmocka_unit_test(a_refusal_by_group_counts_for_every_group_of_the_address),
        cmocka_unit_test(special_ranges_are_reached_by_address_only),
        cmocka_unit_test(the_first_match_decides),
        cmocka_unit_test(ports_bind_to_their_protocol),
        cmocka_unit_test(a_rule_with_ports_never_matches_icmp),
        cmocka_unit_test(families_do_not_mix),
        cmocka_unit_test(nat64_is_judged_as_what_it_carries),
        cmocka_unit_test(ingress_admits_everyone_until_there_is_a_from_rule),
        cmocka_unit_test(the_floor_is_no_matter_of_ingress),
        cmocka_unit_test(groups_of_an_address_are_a_set),
        cmocka_unit_test(an_empty_world_has_no_host_and_no_resolver),
        cmocka_unit_test(rules_keep_their_text_and_the_profiles_come_last),
        cmocka_unit_test(faults_name_their_origin),
        cmocka_unit_test(a_nat64_prefix_is_a_96_of_ipv6),
        cmocka_unit_test(groups_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
