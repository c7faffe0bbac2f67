/* SPDX-License-Identifier: Apache-2.0 */

/* The compiled policy against the definition: rules tried in order, one by one. Rules and questions
 * are drawn from small pools, so that prefixes nest, ports overlap and rules repeat. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/policy.h"
#include "policy/rule.h"

static uint32_t draw(uint64_t *seed, uint32_t below)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33) % below;
}

static const char *const TARGETS[] = {
    "any",
    "public",
    "private",
    "link-local",
    "metadata",
    "multicast",
    "host",
    "dns",
    "0.0.0.0/0",
    "1.0.0.0/8",
    "1.2.0.0/16",
    "1.2.3.0/24",
    "1.2.3.4",
    "1.2.3.128/25",
    "1.128.0.0/9",
    "10.0.0.0/8",
    "10.0.2.0/24",
    "169.254.0.0/16",
    "128.0.0.0/1",
    "255.255.255.255",
    "169.254.169.254",
    "::/0",
    "2000::/3",
    "2001:db8::/32",
    "2001:4860::/32",
    "2001:4860::1",
    "fd00::/8",
    "64:ff9b::/96",
    "::/1",
    "8000::/1",
    "64:ff9b::102:304",
    "64::/16",
    "ff00::/8",
    "fe80::/10",
    "2001:4860:8000::/33",
};

static const char *const ADDRESSES[] = {
    "0.0.0.0",
    "1.0.0.0",
    "1.2.3.4",
    "1.2.3.5",
    "1.2.3.127",
    "1.2.3.128",
    "1.2.3.255",
    "1.2.4.0",
    "1.127.255.255",
    "1.128.0.0",
    "1.255.255.255",
    "2.0.0.0",
    "10.0.2.2",
    "10.0.2.3",
    "10.0.3.0",
    "9.255.255.255",
    "127.0.0.1",
    "169.254.169.254",
    "169.254.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "255.255.255.254",
    "::",
    "::1",
    "2001:4860::1",
    "2001:4860::2",
    "2001:db8::1",
    "2001:4860:8000::",
    "2001:4861::",
    "fd00::1",
    "fe80::1",
    "ff02::1",
    "64:ff9b::1.2.3.4",
    "64:ff9b::8.8.8.8",
    "64:ff9b::10.0.2.3",
    "64:ff9a::1",
    "8000::",
    "7fff::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void draw_rule(uint64_t *seed, char *text, size_t size)
{
    static const char *const actions[] = {"allow", "allow", "deny", "drop"};
    static const char *const protocols[] = {"", "", "any ", "tcp ", "udp ", "icmp "};
    const char *protocol = protocols[draw(seed, COUNT(protocols))];
    size_t used =
        (size_t)snprintf(text, size, "%s %s%s %s", actions[draw(seed, COUNT(actions))], protocol,
                         draw(seed, 4) ? "to" : "from", TARGETS[draw(seed, COUNT(TARGETS))]);
    for (uint32_t more = draw(seed, 3); more > 0; more--)
        used +=
            (size_t)snprintf(text + used, size - used, ",%s", TARGETS[draw(seed, COUNT(TARGETS))]);
    if (protocol[0] != 'i' && draw(seed, 2)) {
        uint32_t low = 1 + draw(seed, 8), high = low + draw(seed, 4);
        used += (size_t)snprintf(text + used, size - used, " port %u-%u,%u", low, high,
                                 1 + draw(seed, 12));
    }
}

/* ---- the definition ---- */

static const struct ip_address *carried_by(const struct ip_address *address,
                                           struct ip_address *carried)
{
    struct ip_prefix nat64;
    assert_true(ip_prefix_parse("64:ff9b::/96", true, &nat64));
    if (!ip_prefix_contains(&nat64, address))
        return NULL;
    *carried = ip_address_v4(address->be32[3]);
    return carried;
}

static unsigned strongest(unsigned groups)
{
    static const unsigned order[] = {POLICY_METADATA,   POLICY_HOST,   POLICY_MULTICAST,
                                     POLICY_LINK_LOCAL, POLICY_DNS,    POLICY_PRIVATE,
                                     POLICY_PUBLIC,     POLICY_SPECIAL};
    for (size_t i = 0; i < COUNT(order); i++) {
        if (groups & order[i])
            return order[i];
    }
    return 0;
}

static bool target_matches(const struct rule *rule, const struct rule_target *target,
                           const struct policy_query *query, unsigned groups)
{
    bool floor_counts = rule->action == POLICY_ALLOW && query->direction == POLICY_EGRESS;
    struct ip_address buffer;
    const struct ip_address *carried = carried_by(&query->address, &buffer);

    if (target->kind == RULE_TARGET_GROUP)
        return (floor_counts ? strongest(groups) : groups) & target->group;
    if (target->kind == RULE_TARGET_ANY)
        return !floor_counts || !(groups & (POLICY_METADATA | POLICY_HOST | POLICY_MULTICAST |
                                            POLICY_LINK_LOCAL | POLICY_SPECIAL));
    if (carried && ip_prefix_contains(&target->prefix, carried))
        return true;
    return ip_prefix_contains(&target->prefix, &query->address) &&
           !(carried && rule->action == POLICY_ALLOW && target->prefix.length < 96);
}

static bool rule_matches(const struct rule *rule, const struct policy_query *query, unsigned groups)
{
    bool port = rule->port_count == 0, target = false;
    if (rule->direction != query->direction || !(rule->protocols & query->protocol))
        return false;
    for (size_t i = 0; i < rule->port_count; i++)
        port |= rule->ports[i].low <= query->port && query->port <= rule->ports[i].high;
    for (size_t i = 0; i < rule->target_count; i++)
        target |= target_matches(rule, &rule->targets[i], query, groups);
    return port && target;
}

/* ---- the comparison ---- */

static void compare(const struct policy *policy, const struct rule *rules, uint32_t count,
                    const struct policy_query *query, const char *address)
{
    struct policy_world world = {.is_host_address = NULL};
    assert_true(ip_address_parse("10.0.2.2", &world.gateway4));
    assert_true(ip_address_parse("10.0.2.3", &world.dns4));
    unsigned groups = policy_groups_of(policy, &world, &query->address);
    if (query->direction == POLICY_INGRESS &&
        (strcmp(address, "127.0.0.1") == 0 || strcmp(address, "0.0.0.0") == 0 ||
         strcmp(address, "::") == 0 || strcmp(address, "::1") == 0))
        groups = POLICY_HOST;

    uint32_t expected = 0;
    while (expected < count && !rule_matches(&rules[expected], query, groups))
        expected++;
    struct policy_verdict verdict = policy_judge(policy, &world, query);
    uint32_t decided = verdict.reason == POLICY_REASON_RULE ? verdict.rule : count;
    if (decided != expected)
        fail_msg("%s port %u: rule %u (%s), expected %u (%s)", address, query->port, decided,
                 policy_rule_text(policy, decided), expected, policy_rule_text(policy, expected));
    if (expected < count)
        assert_int_equal(verdict.action, rules[expected].action);
}

static void compare_all_addresses(const struct policy *policy, const struct rule *rules,
                                  uint32_t count, uint64_t *seed)
{
    static const enum policy_protocol protocols[] = {POLICY_TCP, POLICY_UDP, POLICY_ICMP};
    for (size_t i = 0; i < COUNT(ADDRESSES); i++) {
        for (size_t j = 0; j < COUNT(protocols); j++) {
            struct policy_query query = {.protocol = protocols[j],
                                         .direction =
                                             draw(seed, 4) ? POLICY_EGRESS : POLICY_INGRESS};
            query.port = query.protocol == POLICY_ICMP ? 0 : (uint16_t)(1 + draw(seed, 14));
            assert_true(ip_address_parse(ADDRESSES[i], &query.address));
            compare(policy, rules, count, &query, ADDRESSES[i]);
        }
    }
}

static void one_random_policy(uint64_t seed, uint32_t count)
{
    struct rule *rules = calloc(count + 1, sizeof *rules);
    struct policy_builder *builder = policy_builder_new();
    char text[256], message[256];
    for (uint32_t i = 0; i < count; i++) {
        draw_rule(&seed, text, sizeof text);
        if (rule_parse(text, &rules[i], message, sizeof message) != 0)
            fail_msg("%s: %s", text, message);
        assert_int_equal(policy_builder_add(builder, text, NULL, message, sizeof message), 0);
    }
    struct policy *policy = policy_build(builder, 1);
    policy_builder_free(builder);
    assert_non_null(policy);
    compare_all_addresses(policy, rules, count, &seed);
    policy_free(policy);
    for (uint32_t i = 0; i < count; i++)
        rule_clear(&rules[i]);
    free(rules);
}

static void compiled_verdicts_equal_those_of_a_walk_through_the_rules(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 400; seed++)
        one_random_policy(seed, (uint32_t)(seed % 12));
}

static void long_policies_too(void **state)
{
    (void)state;
    for (uint64_t seed = 1000; seed < 1010; seed++)
        one_random_policy(seed, 300);
}

static void ten_thousand_rules_each_decide_their_own(void **state)
{
    struct policy_builder *builder = policy_builder_new();
    struct policy_world world = {.is_host_address = NULL};
    char text[128], message[128];
    (void)state;
    for (uint32_t i = 0; i < 10000; i++) {
        snprintf(text, sizeof text, "%s tcp to 20.%u.%u.0/24 port %u", i % 2 ? "deny" : "allow",
                 i / 256, i % 256, 1 + i);
        assert_int_equal(policy_builder_add(builder, text, NULL, message, sizeof message), 0);
    }
    struct policy *policy = policy_build(builder, 1);
    policy_builder_free(builder);
    for (uint32_t i = 0; i < 10000; i++) {
        struct policy_query query = {.protocol = POLICY_TCP, .port = (uint16_t)(1 + i)};
        snprintf(text, sizeof text, "20.%u.%u.77", i / 256, i % 256);
        assert_true(ip_address_parse(text, &query.address));
        struct policy_verdict verdict = policy_judge(policy, &world, &query);
        assert_int_equal(verdict.rule, i);
        query.port = 60000;
        assert_int_equal(policy_judge(policy, &world, &query).reason, POLICY_REASON_DEFAULT);
    }
    policy_free(policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compiled_verdicts_equal_those_of_a_walk_through_the_rules),
        cmocka_unit_test(long_policies_too),
        cmocka_unit_test(ten_thousand_rules_each_decide_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
