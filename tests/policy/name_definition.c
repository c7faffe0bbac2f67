/* SPDX-License-Identifier: Apache-2.0 */

/* The compiled policy against DESIGN §6 as it is written: rules walked in order, each saying yes,
 * no or maybe. Rules, pins and questions are drawn from small pools, so that names nest, rules
 * repeat and addresses bear several names. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/names.h"
#include "policy/pins.h"
#include "policy/policy.h"
#include "policy/rule.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NOW          UINT64_C(1000000000000)

static uint32_t draw(uint64_t *seed, size_t below)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*seed >> 33) % below);
}

static const char *const TARGETS[] = {
    "any",          "public",    "private",    "host",         "dns",
    "1.1.1.1",      "1.0.0.0/8", "10.0.0.0/8", "2000::/3",     "a.test",
    "b.test",       "x.a.test",  "*.a.test",   "*.test",       "*.x.a.test",
    "api-*.a.test", "*-eu.test", "a*.test",    "x.*.test",     "deep.er.x.a.test",
    "*.b.test",     "0.0.0.0/0", "metadata",   "y*z.x.a.test", "a.test.",
};

static const char *const WIDENINGS[] = {"",
                                        "",
                                        "",
                                        " in 10.0.0.0/8",
                                        " in private",
                                        " in any",
                                        " in host,10.1.1.1",
                                        " in fd00::/8,metadata"};

static const char *const NAMES[] = {
    "a.test",       "b.test",   "x.a.test", "y.x.a.test",    "api-1.a.test",     "api-.a.test",
    "q-eu.test",    "abc.test", "test",     "other.example", "deep.er.x.a.test", "yz.x.a.test",
    "y1z.x.a.test", "x.b.test", "X.Q.TEST", "aa.test",
};

static const char *const ADDRESSES[] = {
    "1.1.1.1", "1.2.3.4", "2.2.2.2",         "10.1.1.1",  "10.0.2.2",         "10.0.2.3",
    "2a00::1", "fd00::1", "169.254.169.254", "127.0.0.1", "64:ff9b::1.1.1.1",
};

static const uint16_t PORTS[] = {80, 443, 22, 8000};

static void draw_rule(uint64_t *seed, char *text, size_t size)
{
    static const char *const actions[] = {"allow", "allow", "deny", "drop"};
    static const char *const protocols[] = {"", "tcp ", "udp ", "any "};
    const char *action = actions[draw(seed, COUNT(actions))];
    bool named = false;
    size_t used =
        (size_t)snprintf(text, size, "%s %sto ", action, protocols[draw(seed, COUNT(protocols))]);
    for (uint32_t i = 0, count = 1 + draw(seed, 3); i < count; i++) {
        const char *target = TARGETS[draw(seed, COUNT(TARGETS))];
        named |= strstr(target, "test") != NULL;
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? "," : "", target);
    }
    if (draw(seed, 3) == 0)
        used += (size_t)snprintf(text + used, size - used, " port %u", PORTS[draw(seed, 4)]);
    if (named && action[0] == 'a')
        snprintf(text + used, size - used, "%s", WIDENINGS[draw(seed, COUNT(WIDENINGS))]);
}

/* ---- the definition ---- */

enum answer { NO, MAYBE, YES };

struct question {
    const struct policy *policy;
    const struct policy_world *world;
    const struct policy_query *query;
    unsigned groups;
    struct ip_address addresses[2]; /* NAT64: the one carried, too */
    size_t address_count;
};

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

/* Does an address target match? `allow`: as an allow's. */
static bool address_matches(const struct question *q, const struct rule_target *target, bool allow)
{
    unsigned floor =
        POLICY_METADATA | POLICY_HOST | POLICY_MULTICAST | POLICY_LINK_LOCAL | POLICY_SPECIAL;
    bool carried = q->address_count > 1;
    if (target->kind == RULE_TARGET_ANY)
        return !allow || !(q->groups & floor);
    if (target->kind == RULE_TARGET_GROUP)
        return ((allow ? strongest(q->groups) : q->groups) & (unsigned)target->group) != 0;
    if (target->kind != RULE_TARGET_PREFIX)
        return false;
    if (carried && ip_prefix_contains(&target->prefix, &q->addresses[1]))
        return true;
    return ip_prefix_contains(&target->prefix, &q->addresses[0]) &&
           !(ip_address_is_v4(&q->addresses[0]) && target->prefix.length < 96) &&
           !(carried && allow && target->prefix.length < 96);
}

static bool leads_there(const struct question *q, const struct rule *rule)
{
    if (strongest(q->groups) == POLICY_PUBLIC)
        return true;
    for (size_t i = 0; i < rule->widening_count; i++) {
        if (address_matches(q, &rule->widening[i], true))
            return true;
    }
    return false;
}

/* Is the address pinned to a name that matches? */
static bool is_pinned_to(const struct question *q, const struct name_pattern *pattern, bool allow)
{
    for (size_t i = 0; i < q->address_count; i++) {
        for (const struct pin *pin = pins_first(q->query->pins, &q->addresses[i], NOW); pin;
             pin = pins_next(pin, NOW)) {
            struct dns_name name;
            pin_name(pin, &name);
            if ((!allow || pin_role(pin, NOW) == PIN_QUERIED) &&
                name_pattern_matches(pattern, &name))
                return true;
        }
    }
    return false;
}

static bool is_pinned_to_itself(const struct question *q)
{
    for (size_t i = 0; i < q->address_count; i++) {
        const struct pin *pin = pins_find(q->query->pins, q->query->name, &q->addresses[i], NOW);
        if (pin && pin_role(pin, NOW) == PIN_QUERIED)
            return true;
    }
    return false;
}

static enum answer allow_by_name(const struct question *q, const struct rule *rule,
                                 const struct name_pattern *pattern)
{
    const struct policy_query *query = q->query;
    bool due = query->port == 443 || (query->protocol == POLICY_TCP && query->port == 80);
    if (!leads_there(q, rule))
        return NO;
    switch (query->name_state) {
    case POLICY_NAME_PENDING:
        return is_pinned_to(q, pattern, true) ? MAYBE : NO;
    case POLICY_NAME_NAMED:
        return name_pattern_matches(pattern, query->name) && is_pinned_to_itself(q) ? YES : NO;
    case POLICY_NAME_HIDDEN:
        return NO;
    case POLICY_NAME_NAMELESS:
        break;
    }
    return !due && is_pinned_to(q, pattern, true) ? YES : NO;
}

static enum answer refuse_by_name(const struct question *q, const struct name_pattern *pattern)
{
    if (q->query->name_state == POLICY_NAME_PENDING)
        return MAYBE;
    if (q->query->name_state == POLICY_NAME_NAMED)
        return name_pattern_matches(pattern, q->query->name) ? YES : NO;
    return is_pinned_to(q, pattern, false) ? YES : NO;
}

static enum answer answer_of(const struct question *q, const struct rule *rule)
{
    bool allow = rule->action == POLICY_ALLOW, port = rule->port_count == 0;
    enum answer best = NO;

    for (size_t i = 0; i < rule->port_count; i++)
        port |= rule->ports[i].low <= q->query->port && q->query->port <= rule->ports[i].high;
    if (!(rule->protocols & q->query->protocol) || !port)
        return NO;
    for (size_t i = 0; i < rule->target_count; i++) {
        const struct rule_target *target = &rule->targets[i];
        enum answer one = target->kind == RULE_TARGET_NAME
                              ? (allow ? allow_by_name(q, rule, target->pattern)
                                       : refuse_by_name(q, target->pattern))
                              : (address_matches(q, target, allow) ? YES : NO);
        best = one > best ? one : best;
    }
    return best;
}

struct expected {
    enum policy_action action;
    uint32_t rule; /* the first candidate that decides; count: the default */
};

static struct expected by_definition(const struct question *q, const struct rule *rules,
                                     uint32_t count)
{
    uint32_t first = count, end = count;
    bool allows = false, refuses = false;
    for (uint32_t i = 0; i < count && end == count; i++) {
        enum answer answer = answer_of(q, &rules[i]);
        if (answer == NO)
            continue;
        first = i < first ? i : first;
        *(rules[i].action == POLICY_ALLOW ? &allows : &refuses) = true;
        if (answer == YES)
            end = i;
    }
    if (end == count)
        refuses = true; /* the default */
    if (!refuses)
        return (struct expected){POLICY_ALLOW, end};
    if (allows)
        return (struct expected){POLICY_NEED_NAME, first};
    return (struct expected){first < count ? rules[first].action : POLICY_DENY, first};
}

/* ---- the comparison ---- */

struct drawn {
    struct policy *policy;
    struct rule *rules;
    char (*texts)[200];
    uint32_t count;
    struct pins *pins;
};

static struct drawn draw_policy(uint64_t *seed)
{
    static const uint64_t key[2] = {3, 4};
    struct drawn drawn = {.count = 1 + draw(seed, 7)};
    struct policy_builder *builder = policy_builder_new();
    char message[300];

    drawn.rules = calloc(drawn.count, sizeof *drawn.rules);
    drawn.texts = calloc(drawn.count, sizeof *drawn.texts);
    drawn.pins = pins_new(NULL, key);
    for (uint32_t i = 0; i < drawn.count; i++) {
        draw_rule(seed, drawn.texts[i], sizeof drawn.texts[i]);
        if (policy_builder_add(builder, drawn.texts[i], NULL, message, sizeof message) < 0)
            fail_msg("%s: %s", drawn.texts[i], message);
        assert_int_equal(rule_parse(drawn.texts[i], &drawn.rules[i], message, sizeof message), 0);
    }
    drawn.policy = policy_build(builder, 1);
    assert_non_null(drawn.policy);
    policy_builder_free(builder);
    for (uint32_t i = 0, count = draw(seed, 14); i < count; i++) {
        struct dns_name name;
        struct ip_address address;
        assert_int_equal(dns_name_parse(NAMES[draw(seed, COUNT(NAMES))], &name), 0);
        assert_true(ip_address_parse(ADDRESSES[draw(seed, COUNT(ADDRESSES))], &address));
        assert_int_equal(pins_learn(drawn.pins, &name, &address,
                                    draw(seed, 4) ? PIN_QUERIED : PIN_CHAIN, 60, NOW),
                         0);
    }
    return drawn;
}

static void drawn_free(struct drawn *drawn)
{
    for (uint32_t i = 0; i < drawn->count; i++)
        rule_clear(&drawn->rules[i]);
    free(drawn->rules);
    free(drawn->texts);
    pins_free(drawn->pins);
    policy_free(drawn->policy);
}

static void compare(const struct drawn *drawn, const struct policy_query *query,
                    const char *address, const char *name)
{
    static const char *const states[] = {"nameless", "pending", "named", "hidden"};
    struct policy_world world = {0};
    struct question q = {.policy = drawn->policy, .world = &world, .query = query};
    struct ip_prefix nat64;

    assert_true(ip_address_parse("10.0.2.2", &world.gateway4));
    assert_true(ip_address_parse("10.0.2.3", &world.dns4));
    assert_true(ip_prefix_parse("64:ff9b::/96", true, &nat64));
    q.groups = policy_groups_of(drawn->policy, &world, &query->address);
    q.addresses[q.address_count++] = query->address;
    if (ip_prefix_contains(&nat64, &query->address))
        q.addresses[q.address_count++] = ip_address_v4(query->address.be32[3]);

    struct expected expected = by_definition(&q, drawn->rules, drawn->count);
    struct policy_verdict verdict = policy_judge(drawn->policy, &world, query);
    uint32_t rule = verdict.reason == POLICY_REASON_RULE ? verdict.rule : drawn->count;
    /* Which of the candidates a waiting flow is told to wait for does not matter. */
    if (verdict.action == expected.action &&
        (rule == expected.rule || verdict.action == POLICY_NEED_NAME))
        return;
    for (uint32_t i = 0; i < drawn->count; i++)
        print_error("%u: %s\n", i, drawn->texts[i]);
    fail_msg("%s %s, %s, protocol %u port %u: action %u rule %u, expected %u rule %u",
             states[query->name_state], name, address, query->protocol, query->port, verdict.action,
             rule, expected.action, expected.rule);
}

static void compare_all(const struct drawn *drawn, uint64_t *seed)
{
    for (size_t i = 0; i < COUNT(ADDRESSES); i++) {
        for (unsigned state = 0; state < 4; state++) {
            const char *text = NAMES[draw(seed, COUNT(NAMES))];
            struct dns_name name;
            struct policy_query query = {
                .direction = POLICY_EGRESS,
                .protocol = draw(seed, 3) ? POLICY_TCP : POLICY_UDP,
                .port = PORTS[draw(seed, COUNT(PORTS))],
                .name_state = (enum policy_name_state)state,
                .name = &name,
                .pins = drawn->pins,
                .now = NOW,
            };
            assert_int_equal(dns_name_parse(text, &name), 0);
            assert_true(ip_address_parse(ADDRESSES[i], &query.address));
            compare(drawn, &query, ADDRESSES[i], text);
        }
    }
}

static void random_policies_judge_as_their_definition_says(void **state)
{
    unsigned rounds = getenv("CULVERT_SANITIZED") ? 500 : 3000;
    (void)state;
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t seed = round * 7919 + 1;
        struct drawn drawn = draw_policy(&seed);
        compare_all(&drawn, &seed);
        drawn_free(&drawn);
    }
}

/* ---- DNS ---- */

static bool names_everything(const struct rule_target *target, bool groups_too)
{
    return target->kind == RULE_TARGET_ANY ||
           (groups_too && target->kind == RULE_TARGET_GROUP &&
            (target->group == POLICY_PUBLIC || target->group == POLICY_PRIVATE));
}

static uint32_t query_by_definition(const struct rule *rules, uint32_t count,
                                    const struct dns_name *name)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct rule *rule = &rules[i];
        bool allow = rule->action == POLICY_ALLOW;
        if (!allow && (rule->port_count || rule->protocols != 7))
            continue;
        for (size_t j = 0; j < rule->target_count; j++) {
            const struct rule_target *target = &rule->targets[j];
            if (names_everything(target, allow) ||
                (target->kind == RULE_TARGET_NAME && name_pattern_matches(target->pattern, name)))
                return i;
        }
    }
    return UINT32_MAX;
}

static void random_policies_answer_queries_as_their_definition_says(void **state)
{
    unsigned rounds = getenv("CULVERT_SANITIZED") ? 500 : 3000;
    (void)state;
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t seed = round * 104729 + 5;
        struct drawn drawn = draw_policy(&seed);
        for (size_t i = 0; i < COUNT(NAMES); i++) {
            struct dns_name name;
            assert_int_equal(dns_name_parse(NAMES[i], &name), 0);
            struct policy_verdict verdict = policy_judge_query(drawn.policy, &name);
            uint32_t expected = query_by_definition(drawn.rules, drawn.count, &name);
            if (verdict.rule != expected)
                fail_msg("seed %llu, %s: rule %u, expected %u", (unsigned long long)round, NAMES[i],
                         verdict.rule, expected);
        }
        drawn_free(&drawn);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_policies_judge_as_their_definition_says),
        cmocka_unit_test(random_policies_answer_queries_as_their_definition_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
