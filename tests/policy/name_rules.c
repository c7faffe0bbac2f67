/* SPDX-License-Identifier: Apache-2.0 */

/* Verdicts by name, sentence by sentence of DESIGN §6.
 *
 * A row asks one question of one policy in all four states of knowledge. The world: culvert's
 * default addresses; the host owns 192.168.7.7; NAT64 is 64:ff9b::/96; --dns-host has
 * db.test=10.1.2.3 and meta.test=169.254.169.254. Verdicts read "allow 0", "deny 3", "deny
 * default", "deny floor 2", "deny unpinned 0", "deny unnamed 0", "need 1". */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/names.h"
#include "policy/pins.h"
#include "policy/policy.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define NOW UINT64_C(1000000000000)

static struct ip_address address_of(const char *text)
{
    struct ip_address address;
    if (!ip_address_parse(text, &address))
        fail_msg("%s is no address", text);
    return address;
}

static struct dns_name name_of(const char *text)
{
    struct dns_name name;
    if (dns_name_parse(text, &name) < 0)
        fail_msg("%s is no name", text);
    return name;
}

static bool host_owns(void *ctx, const struct ip_address *address)
{
    struct ip_address own = address_of("192.168.7.7");
    (void)ctx;
    return ip_address_equal(&own, address);
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

static void add_dns_host(struct policy_builder *builder, const char *name, const char *address)
{
    struct dns_name n = name_of(name);
    struct ip_address a = address_of(address);
    assert_int_equal(policy_builder_dns_host(builder, &n, &a), 0);
}

/* `rules` are separated by ';'. */
static struct policy *policy_of(const char *profile, const char *rules)
{
    struct policy_builder *builder = policy_builder_new();
    char message[512], *copy = strdup(rules), *rest = copy;

    assert_non_null(builder);
    add_dns_host(builder, "db.test", "10.1.2.3");
    add_dns_host(builder, "meta.test", "169.254.169.254");
    assert_int_equal(policy_builder_profile(builder, profile, message, sizeof message), 0);
    for (char *rule; (rule = strsep(&rest, ";")) != NULL;) {
        if (*rule && policy_builder_add(builder, rule, NULL, message, sizeof message) < 0)
            fail_msg("%s: %s", rule, message);
    }
    free(copy);
    if (policy_builder_check(builder, message, sizeof message) < 0)
        fail_msg("%s: %s", rules, message);
    struct policy *policy = policy_build(builder, 1);
    assert_non_null(policy);
    policy_builder_free(builder);
    return policy;
}

/* "a.test=1.2.3.4 ~cdn.test=1.2.3.4": the latter as an owner of the CNAME chain only. */
static struct pins *pins_of(const char *text)
{
    static const uint64_t key[2] = {1, 2};
    struct pins *pins = pins_new(NULL, key);
    char *copy = strdup(text), *rest = copy;
    assert_non_null(pins);
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        enum pin_role role = *word == '~' ? PIN_CHAIN : PIN_QUERIED;
        char *equals = strchr(word, '=');
        if (!equals)
            continue;
        *equals = '\0';
        struct dns_name name = name_of(word + (role == PIN_CHAIN));
        struct ip_address address = address_of(equals + 1);
        assert_int_equal(pins_learn(pins, &name, &address, role, 300, NOW), 0);
    }
    free(copy);
    return pins;
}

static struct policy_query query_of(const char *text)
{
    struct policy_query query = {.direction = POLICY_EGRESS, .now = NOW};
    char protocol[8], address[64];
    unsigned port = 0;
    assert_true(sscanf(text, "%7s %63s %u", protocol, address, &port) >= 2);
    query.protocol = strcmp(protocol, "tcp") == 0   ? POLICY_TCP
                     : strcmp(protocol, "udp") == 0 ? POLICY_UDP
                                                    : POLICY_ICMP;
    query.address = address_of(address);
    query.port = (uint16_t)port;
    return query;
}

static void describe(const struct policy_verdict *verdict, char *text, size_t size)
{
    static const char *const actions[] = {"allow", "deny", "drop", "need"};
    static const char *const reasons[] = {"", "default", "floor ", "unpinned ", "unnamed "};
    if (verdict->reason == POLICY_REASON_DEFAULT)
        snprintf(text, size, "%s default", actions[verdict->action]);
    else
        snprintf(text, size, "%s %s%u", actions[verdict->action], reasons[verdict->reason],
                 verdict->rule);
}

struct row {
    const char *query, *name; /* the name for the state `named`; NULL: that is not asked */
    const char *pending, *named, *hidden, *nameless; /* NULL: not asked */
};

struct policy_case {
    const char *profile, *rules, *pins;
};

static void ask(const struct policy_case *which, const struct policy *policy,
                const struct pins *pins, const struct row *row, enum policy_name_state state,
                const char *expected)
{
    static const char *const states[] = {"nameless", "pending", "named", "hidden"};
    struct policy_world world = the_world();
    struct policy_query query = query_of(row->query);
    struct dns_name name = name_of(row->name ? row->name : "none");
    char text[64];

    if (!expected)
        return;
    query.name_state = state;
    query.pins = pins;
    query.name = &name;
    struct policy_verdict verdict = policy_judge(policy, &world, &query);
    describe(&verdict, text, sizeof text);
    if (strcmp(text, expected) != 0)
        fail_msg("%s + \"%s\", pins \"%s\": %s %s %s gives \"%s\", expected \"%s\"", which->profile,
                 which->rules, which->pins, states[state],
                 state == POLICY_NAME_NAMED ? row->name : "", row->query, text, expected);
    if (verdict.action == POLICY_ALLOW || verdict.action == POLICY_NEED_NAME)
        return;
    assert_null(verdict.pin);
    (void)policy_verdict_counter(&verdict);
}

static void check(const struct policy_case *which, const struct row *rows, size_t count)
{
    struct policy *policy = policy_of(which->profile, which->rules);
    struct pins *pins = pins_of(which->pins);
    for (size_t i = 0; i < count; i++) {
        ask(which, policy, pins, &rows[i], POLICY_NAME_PENDING, rows[i].pending);
        if (rows[i].name)
            ask(which, policy, pins, &rows[i], POLICY_NAME_NAMED, rows[i].named);
        ask(which, policy, pins, &rows[i], POLICY_NAME_HIDDEN, rows[i].hidden);
        ask(which, policy, pins, &rows[i], POLICY_NAME_NAMELESS, rows[i].nameless);
    }
    pins_free(pins);
    policy_free(policy);
}

#define CHECK(profile, rules, pins, ...)                                                           \
    do {                                                                                           \
        static const struct policy_case which = {profile, rules, pins};                            \
        static const struct row rows[] = {__VA_ARGS__};                                            \
        check(&which, rows, COUNT(rows));                                                          \
    } while (0)

/* clang-format off */

static void an_allow_list_admits_names_on_the_addresses_they_are_pinned_to(void **state)
{
    (void)state;
    CHECK("none", "allow tcp to github.com,*.example.com port 443,22",
          "github.com=1.1.1.1 www.example.com=2.2.2.2 other.test=3.3.3.3 other.test=1.1.1.1",
          /*                                   pending          named             hidden             nameless */
          {"tcp 1.1.1.1 443", "github.com",    "need 0",       "allow 0",          "deny unnamed 0", "deny unnamed 0"},
          {"tcp 1.1.1.1 22", "github.com",     "need 0",       "allow 0",          "deny unnamed 0", "allow 0"},
          {"tcp 2.2.2.2 443", "www.example.com", "need 0",     "allow 0",          "deny unnamed 0", "deny unnamed 0"},
          {"tcp 2.2.2.2 22", "www.example.com", "need 0",      "allow 0",          "deny unnamed 0", "allow 0"},
          /* other names of the same address are no excuse, nor are other names' pins */
          {"tcp 1.1.1.1 443", "other.test",    "need 0",       "deny unnamed 0",   "deny unnamed 0", "deny unnamed 0"},
          {"tcp 1.1.1.1 443", "www.example.com", "need 0",     "deny unpinned 0",  "deny unnamed 0", "deny unnamed 0"},
          {"tcp 2.2.2.2 443", "github.com",    "need 0",       "deny unpinned 0",  "deny unnamed 0", "deny unnamed 0"},
          {"tcp 2.2.2.2 443", "example.com",   "need 0",       "deny unpinned 0",  "deny unnamed 0", "deny unnamed 0"},
          /* pinned to a name that is not allowed */
          {"tcp 3.3.3.3 443", "other.test",    "deny default",  "deny default",     "deny default",   "deny default"},
          {"tcp 3.3.3.3 443", "github.com",    "deny default",  "deny unpinned 0",  "deny default",   "deny default"},
          {"tcp 3.3.3.3 22", "github.com",     "deny default",  "deny unpinned 0",  "deny default",   "deny default"},
          /* a literal address: pinned to nothing */
          {"tcp 4.4.4.4 443", "github.com",    "deny default",  "deny unpinned 0",  "deny default",   "deny default"},
          {"tcp 4.4.4.4 22", NULL,             "deny default",  NULL,               "deny default",   "deny default"},
          /* protocol and ports are known at once */
          {"udp 1.1.1.1 443", "github.com",    "deny default",  "deny default",     "deny default",   "deny default"},
          {"tcp 1.1.1.1 80", "github.com",     "deny default",  "deny default",     "deny default",   "deny default"},
          {"icmp 1.1.1.1", NULL,               NULL,            NULL,               NULL,             "deny default"});
}

static void a_nameless_flow_may_not_pose_where_names_are_told(void **state)
{
    (void)state;
    CHECK("none", "allow to a.test", "a.test=1.1.1.1 a.test=2a00::1",
          {"tcp 1.1.1.1 443", "a.test", "need 0", "allow 0", "deny unnamed 0", "deny unnamed 0"},
          {"udp 1.1.1.1 443", "a.test", "need 0", "allow 0", "deny unnamed 0", "deny unnamed 0"},
          {"tcp 1.1.1.1 80", "a.test", "need 0", "allow 0", "deny unnamed 0", "deny unnamed 0"},
          {"udp 1.1.1.1 80", "a.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"tcp 1.1.1.1 8443", "a.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"tcp 1.1.1.1 22", "a.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"tcp 1.1.1.1 25", "a.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"udp 1.1.1.1 123", "a.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"icmp 1.1.1.1", NULL, NULL, NULL, NULL, "allow 0"},
          {"icmp 2a00::1", NULL, NULL, NULL, NULL, "allow 0"},
          {"icmp 2.2.2.2", NULL, NULL, NULL, NULL, "deny default"},
          {"tcp 2a00::1 443", "a.test", "need 0", "allow 0", "deny unnamed 0", "deny unnamed 0"},
          {"tcp 2a00::1 22", "a.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"tcp 2a00::2 22", "a.test", "deny default", "deny unpinned 0", "deny default", "deny default"});
}

static void a_deny_list_before_everything_public_needs_the_name(void **state)
{
    (void)state;
    CHECK("public", "deny tcp to *.evil.test", "www.evil.test=1.1.1.1 good.test=1.1.1.1 good.test=2.2.2.2",
          {"tcp 1.1.1.1 443", "www.evil.test", "need 0", "deny 0", "deny 0", "deny 0"},
          {"tcp 1.1.1.1 443", "good.test", "need 0", "allow 2", "deny 0", "deny 0"},
          {"tcp 1.1.1.1 25", "good.test", "need 0", "allow 2", "deny 0", "deny 0"},
          {"tcp 2.2.2.2 443", "evil.test", "need 0", "deny 0", "allow 2", "allow 2"},
          {"tcp 2.2.2.2 443", "good.test", "need 0", "allow 2", "allow 2", "allow 2"},
          {"tcp 2.2.2.2 443", "notevil.test", "need 0", "allow 2", "allow 2", "allow 2"},
          {"tcp 3.3.3.3 443", "a.b.evil.test", "need 0", "deny 0", "allow 2", "allow 2"},
          {"tcp 3.3.3.3 22", NULL, "need 0", NULL, "allow 2", "allow 2"},
          /* other protocols are not its business: no peeking */
          {"udp 1.1.1.1 443", "www.evil.test", "allow 2", "allow 2", "allow 2", "allow 2"},
          {"icmp 1.1.1.1", NULL, NULL, NULL, NULL, "allow 2"},
          /* where nothing allows, the first decides */
          {"tcp 10.1.1.1 443", "good.test", "deny 0", "deny default", "deny default", "deny default"},
          {"tcp 10.1.1.1 443", "evil.test", "deny 0", "deny 0", "deny default", "deny default"},
          /* the resolver is an address like others */
          {"tcp 10.0.2.3 53", "good.test", "need 0", "allow 1", "allow 1", "allow 1"});
}

static void a_drop_by_name_is_silent_when_it_decides(void **state)
{
    (void)state;
    CHECK("none", "drop to evil.test;allow to 1.0.0.0/8", "evil.test=2.2.2.2",
          {"tcp 1.1.1.1 443", "evil.test", "need 0", "drop 0", "allow 1", "allow 1"},
          {"tcp 1.1.1.1 443", "good.test", "need 0", "allow 1", "allow 1", "allow 1"},
          {"tcp 2.2.2.2 443", "evil.test", "drop 0", "drop 0", "drop 0", "drop 0"},
          {"tcp 2.2.2.2 443", "good.test", "drop 0", "deny default", "drop 0", "drop 0"},
          {"tcp 3.3.3.3 443", "good.test", "drop 0", "deny default", "deny default", "deny default"});
}

static void ports_of_a_refusal_by_name_spare_the_others_a_peek(void **state)
{
    (void)state;
    CHECK("public", "deny to evil.test port 443,8000-8100", "",
          {"tcp 1.1.1.1 443", "evil.test", "need 0", "deny 0", "allow 2", "allow 2"},
          {"udp 1.1.1.1 443", "evil.test", "need 0", "deny 0", "allow 2", "allow 2"},
          {"tcp 1.1.1.1 8000", "evil.test", "need 0", "deny 0", "allow 2", "allow 2"},
          {"tcp 1.1.1.1 8100", "evil.test", "need 0", "deny 0", "allow 2", "allow 2"},
          {"tcp 1.1.1.1 8101", "evil.test", "allow 2", "allow 2", "allow 2", "allow 2"},
          {"tcp 1.1.1.1 22", "evil.test", "allow 2", "allow 2", "allow 2", "allow 2"},
          {"tcp 1.1.1.1 80", "evil.test", "allow 2", "allow 2", "allow 2", "allow 2"},
          {"icmp 1.1.1.1", NULL, NULL, NULL, NULL, "allow 2"});
}

static void what_everybody_allows_is_never_peeked_at(void **state)
{
    (void)state;
    CHECK("public", "allow tcp to a.test", "a.test=1.1.1.1",
          {"tcp 1.1.1.1 443", "a.test", "allow 2", "allow 0", "allow 2", "allow 2"},
          {"tcp 1.1.1.1 443", "b.test", "allow 2", "allow 2", "allow 2", "allow 2"},
          {"tcp 2.2.2.2 443", "a.test", "allow 2", "allow 2", "allow 2", "allow 2"});
    CHECK("none", "allow to 1.1.1.1;deny to evil.test;allow to a.test", "a.test=1.1.1.1 a.test=2.2.2.2",
          {"tcp 1.1.1.1 443", "evil.test", "allow 0", "allow 0", "allow 0", "allow 0"},
          {"tcp 2.2.2.2 443", "a.test", "need 1", "allow 2", "deny unnamed 2", "deny unnamed 2"},
          {"tcp 2.2.2.2 443", "evil.test", "need 1", "deny 1", "deny unnamed 2", "deny unnamed 2"},
          {"tcp 3.3.3.3 443", "evil.test", "deny 1", "deny 1", "deny default", "deny default"});
}

static void the_first_match_decides_among_names_too(void **state)
{
    (void)state;
    CHECK("none", "allow to ok.evil.test;deny to *.evil.test;allow to *.test", "ok.evil.test=1.1.1.1 x.evil.test=1.1.1.1 y.test=1.1.1.1",
          {"tcp 1.1.1.1 443", "ok.evil.test", "need 0", "allow 0", "deny 1", "deny 1"},
          {"tcp 1.1.1.1 443", "x.evil.test", "need 0", "deny 1", "deny 1", "deny 1"},
          {"tcp 1.1.1.1 443", "y.test", "need 0", "allow 2", "deny 1", "deny 1"},
          {"tcp 1.1.1.1 443", "z.test", "need 0", "deny unpinned 2", "deny 1", "deny 1"},
          /* nameless: some pinned name is allowed before another is refused */
          {"tcp 1.1.1.1 22", "y.test", "need 0", "allow 2", "deny 1", "allow 0"},
          {"tcp 9.9.9.9 22", "y.test", "deny 1", "deny unpinned 2", "deny default", "deny default"});
    CHECK("none", "deny to 1.0.0.0/8;allow to a.test;deny to any", "a.test=1.1.1.1 a.test=2.2.2.2",
          {"tcp 1.1.1.1 443", "a.test", "deny 0", "deny 0", "deny 0", "deny 0"},
          {"tcp 2.2.2.2 443", "a.test", "need 1", "allow 1", "deny 2", "deny 2"},
          {"tcp 2.2.2.2 443", "b.test", "need 1", "deny 2", "deny 2", "deny 2"},
          {"tcp 3.3.3.3 443", "a.test", "deny 2", "deny 2", "deny 2", "deny 2"},
          {"tcp 2.2.2.2 22", NULL, "need 1", NULL, "deny 2", "allow 1"});
}

static void an_allow_by_name_before_a_silent_tail_waits_for_the_name(void **state)
{
    (void)state;
    CHECK("none", "allow tcp to a.test port 443;drop to any", "a.test=1.1.1.1",
          {"tcp 1.1.1.1 443", "a.test", "need 0", "allow 0", "drop 1", "drop 1"},
          {"tcp 1.1.1.1 443", "b.test", "need 0", "drop 1", "drop 1", "drop 1"},
          {"tcp 1.1.1.1 80", "a.test", "drop 1", "drop 1", "drop 1", "drop 1"},
          {"tcp 2.2.2.2 443", "a.test", "drop 1", "drop 1", "drop 1", "drop 1"});
}

/* With the default behind it: candidates are the maybe that allows and the default that denies. */
static void an_allow_by_name_alone_waits_for_the_name(void **state)
{
    (void)state;
    CHECK("none", "allow tcp to a.test port 443;allow udp to a.test", "a.test=1.1.1.1",
          {"udp 1.1.1.1 443", "a.test", "need 1", "allow 1", "deny unnamed 1", "deny unnamed 1"},
          {"udp 2.2.2.2 443", "a.test", "deny default", "deny unpinned 1", "deny default", "deny default"});
}

static void an_allow_by_name_leads_to_public_addresses_only(void **state)
{
    (void)state;
    CHECK("none", "allow to *.corp.test",
          "a.corp.test=10.1.1.1 a.corp.test=192.168.7.7 a.corp.test=169.254.169.254 a.corp.test=10.0.2.2 "
          "a.corp.test=10.0.2.3 a.corp.test=127.0.0.1 a.corp.test=224.0.0.1 a.corp.test=192.0.2.1 "
          "a.corp.test=fd00::1 a.corp.test=fe80::1 a.corp.test=1.1.1.1 a.corp.test=100.64.0.1 a.corp.test=0.0.0.0",
          {"tcp 1.1.1.1 22", "a.corp.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"tcp 10.1.1.1 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 192.168.7.7 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 169.254.169.254 80", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 10.0.2.2 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"udp 10.0.2.3 53", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 127.0.0.1 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"udp 224.0.0.1 5353", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 192.0.2.1 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp fd00::1 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp fe80::1 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 100.64.0.1 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 0.0.0.0 22", "a.corp.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 10.9.9.9 22", "a.corp.test", "deny default", "deny unpinned 0", "deny default", "deny default"});
}

static void in_widens_an_allow_by_name(void **state)
{
    (void)state;
    CHECK("none", "allow tcp to git.corp.test in 10.0.0.0/8;allow tcp to *.corp.test in private,169.254.1.1;"
                  "allow tcp to any.test in any;allow tcp to host.test in host,metadata,192.0.2.0/24",
          "git.corp.test=10.1.1.1 git.corp.test=192.168.1.1 git.corp.test=1.1.1.1 x.corp.test=10.1.1.1 x.corp.test=169.254.1.1 "
          "x.corp.test=169.254.1.2 any.test=10.1.1.1 any.test=10.0.2.2 any.test=169.254.169.254 any.test=192.0.2.1 any.test=1.1.1.1 "
          "host.test=10.0.2.2 host.test=192.168.7.7 host.test=169.254.169.254 host.test=10.1.1.1 host.test=192.0.2.1 host.test=1.1.1.1",
          {"tcp 10.1.1.1 443", "git.corp.test", "need 0", "allow 0", "deny unnamed 0", "deny unnamed 0"},
          {"tcp 192.168.1.1 443", "git.corp.test", "need 1", "allow 1", "deny unnamed 1", "deny unnamed 1"},
          {"tcp 1.1.1.1 443", "git.corp.test", "need 0", "allow 0", NULL, NULL},
          {"tcp 10.1.1.1 443", "x.corp.test", "need 0", "allow 1", NULL, NULL},
          {"tcp 169.254.1.1 443", "x.corp.test", "need 1", "allow 1", "deny unnamed 1", "deny unnamed 1"},
          {"tcp 169.254.1.2 443", "x.corp.test", "deny floor 1", "deny floor 1", "deny floor 1", "deny floor 1"},
          {"tcp 10.1.1.1 22", "any.test", "need 0", "allow 2", "deny unnamed 0", "allow 0"},
          {"tcp 10.0.2.2 22", "any.test", "need 3", "deny floor 2", NULL, "allow 3"},
          {"tcp 169.254.169.254 80", "any.test", "need 3", "deny floor 2", NULL, NULL},
          {"tcp 192.0.2.1 22", "any.test", "need 3", "deny floor 2", NULL, "allow 3"},
          {"tcp 10.0.2.2 22", "host.test", "need 3", "allow 3", NULL, "allow 3"},
          {"tcp 192.168.7.7 22", "host.test", "need 3", "allow 3", "deny unnamed 3", "allow 3"},
          {"tcp 169.254.169.254 80", "host.test", "need 3", "allow 3", NULL, NULL},
          {"tcp 10.1.1.1 22", "host.test", "need 0", "deny floor 3", NULL, "allow 0"},
          {"tcp 192.0.2.1 22", "host.test", "need 3", "allow 3", NULL, "allow 3"},
          {"udp 10.1.1.1 22", "git.corp.test", "deny default", "deny default", "deny default", "deny default"});
}

static void refusals_by_name_hold_wherever_the_name_leads(void **state)
{
    (void)state;
    CHECK("all", "deny to *.evil.test", "x.evil.test=10.1.1.1 x.evil.test=10.0.2.2 x.evil.test=169.254.1.1",
          {"tcp 10.1.1.1 443", "x.evil.test", "need 0", "deny 0", "deny 0", "deny 0"},
          {"tcp 10.0.2.2 443", "x.evil.test", "need 0", "deny 0", "deny 0", "deny 0"},
          {"tcp 169.254.1.1 443", "x.evil.test", "need 0", "deny 0", "deny 0", "deny 0"},
          {"tcp 10.1.1.2 443", "x.evil.test", "need 0", "deny 0", "allow 1", "allow 1"},
          {"tcp 169.254.169.254 80", "good.test", "deny 0", "deny floor 1", "deny floor 1", "deny floor 1"});
}

static void dns_hosts_count_as_widened_to_their_address(void **state)
{
    (void)state;
    CHECK("none", "allow to db.test,meta.test,*.test port 22",
          "db.test=10.1.2.3 meta.test=169.254.169.254 x.test=10.1.2.3 db.test=10.1.2.4",
          {"tcp 10.1.2.3 22", "db.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"tcp 169.254.169.254 22", "meta.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"tcp 10.1.2.3 22", "x.test", "need 0", "deny floor 0", NULL, NULL},
          {"tcp 10.1.2.4 22", "db.test", "deny floor 0", "deny floor 0", "deny floor 0", "deny floor 0"},
          {"tcp 10.1.2.3 23", "db.test", "deny default", "deny default", "deny default", "deny default"});
}

static void dns_hosts_are_pinned_without_being_asked_for(void **state)
{
    (void)state;
    CHECK("none", "allow to db.test port 22,443", "",
          {"tcp 10.1.2.3 22", "db.test", "need 0", "allow 0", "deny unnamed 0", "allow 0"},
          {"tcp 10.1.2.3 443", "db.test", "need 0", "allow 0", "deny unnamed 0", "deny unnamed 0"},
          {"tcp 10.1.2.3 22", "x.test", "need 0", "deny unnamed 0", NULL, NULL},
          {"tcp 10.1.2.4 22", "db.test", "deny default", "deny unpinned 0", "deny default", "deny default"});
    CHECK("all", "deny to db.test", "",
          {"tcp 10.1.2.3 22", "x.test", "need 0", "allow 1", "deny 0", "deny 0"});
}

static void owners_of_a_cname_chain_count_for_refusals_only(void **state)
{
    (void)state;
    CHECK("none", "allow to cdn.test;deny to evil.test;allow to *.site.test", "a.site.test=1.1.1.1 ~cdn.test=1.1.1.1 ~evil.test=1.1.1.1 b.site.test=2.2.2.2 ~cdn.test=2.2.2.2",
          {"tcp 1.1.1.1 22", "a.site.test", "need 1", "allow 2", "deny 1", "deny 1"},
          {"tcp 1.1.1.1 22", "cdn.test", "need 1", "deny unpinned 0", "deny 1", "deny 1"},
          {"tcp 2.2.2.2 22", "b.site.test", "need 1", "allow 2", "deny unnamed 2", "allow 2"},
          {"tcp 2.2.2.2 22", "cdn.test", "need 1", "deny unpinned 0", "deny unnamed 2", "allow 2"});
    CHECK("none", "allow to cdn.test", "a.site.test=1.1.1.1 ~cdn.test=1.1.1.1",
          {"tcp 1.1.1.1 22", "cdn.test", "deny default", "deny unpinned 0", "deny default", "deny default"});
}

static void wildcards_keep_to_label_borders(void **state)
{
    (void)state;
    CHECK("none", "allow to *.example.com",
          "example.com=1.1.1.1 a.example.com=1.1.1.1 a.b.example.com=1.1.1.1 badexample.com=1.1.1.1 example.com.evil.test=1.1.1.1 com=1.1.1.1",
          {"tcp 1.1.1.1 443", "example.com", "need 0", "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "a.example.com", "need 0", "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "A.B.Example.COM", "need 0", "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "badexample.com", "need 0", "deny unnamed 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "example.com.evil.test", "need 0", "deny unnamed 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "com", "need 0", "deny unnamed 0", NULL, NULL},
          /* a dot within a label is no border */
          {"tcp 1.1.1.1 443", "evil\\.example.com", "need 0", "deny unnamed 0", NULL, NULL});
    CHECK("none", "allow to api-*.example.com,*-eu.example.com,a*z.example.com,s3.*.example.net",
          "api-1.example.com=1.1.1.1 api-.example.com=1.1.1.1 api.example.com=1.1.1.1 x-eu.example.com=1.1.1.1 az.example.com=1.1.1.1 "
          "abcz.example.com=1.1.1.1 a.example.com=1.1.1.1 x.api-1.example.com=1.1.1.1 s3.eu.example.net=1.1.1.1 s3.a.b.example.net=1.1.1.1 s4.eu.example.net=1.1.1.1",
          {"tcp 1.1.1.1 443", "api-1.example.com", NULL, "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "API-1.Example.com", NULL, "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "api-.example.com", NULL, "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "api.example.com", NULL, "deny unnamed 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "x-eu.example.com", NULL, "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "az.example.com", NULL, "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "abcz.example.com", NULL, "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "a.example.com", NULL, "deny unnamed 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "x.api-1.example.com", NULL, "deny unnamed 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "s3.eu.example.net", NULL, "allow 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "s3.a.b.example.net", NULL, "deny unnamed 0", NULL, NULL},
          {"tcp 1.1.1.1 443", "s4.eu.example.net", NULL, "deny unnamed 0", NULL, NULL});
}

static void a_and_aaaa_are_pinned_apart(void **state)
{
    (void)state;
    CHECK("none", "allow to a.test", "a.test=1.1.1.1",
          {"tcp 1.1.1.1 22", "a.test", "need 0", "allow 0", NULL, "allow 0"},
          {"tcp 2a00::1 22", "a.test", "deny default", "deny unpinned 0", "deny default", "deny default"});
}

static void nat64_counts_as_the_address_it_carries(void **state)
{
    (void)state;
    CHECK("none", "deny to evil.test;allow to a.test", "a.test=1.1.1.1 evil.test=2.2.2.2 a.test=64:ff9b::3.3.3.3 a.test=10.1.1.1",
          {"tcp 64:ff9b::1.1.1.1 22", "a.test", "need 0", "allow 1", "deny unnamed 1", "allow 1"},
          {"tcp 64:ff9b::2.2.2.2 22", "x.test", "deny 0", "deny default", "deny 0", "deny 0"},
          {"tcp 64:ff9b::3.3.3.3 22", "a.test", "need 0", "allow 1", "deny unnamed 1", "allow 1"},
          {"tcp 3.3.3.3 22", "a.test", "deny 0", "deny unpinned 1", "deny default", "deny default"},
          {"tcp 64:ff9b::10.1.1.1 22", "a.test", "deny 0", "deny floor 1", "deny floor 1", "deny floor 1"});
}

static void a_rule_may_mix_names_and_addresses(void **state)
{
    (void)state;
    CHECK("none", "allow to a.test,10.0.0.0/8,public port 22;deny to b.test,2.0.0.0/8;allow to any", "a.test=3.3.3.3 b.test=3.3.3.3",
          {"tcp 10.1.1.1 22", "x.test", "allow 0", "allow 0", "allow 0", "allow 0"},
          {"tcp 3.3.3.3 22", "b.test", "allow 0", "allow 0", "allow 0", "allow 0"},
          {"tcp 3.3.3.3 80", "b.test", "need 1", "deny 1", "deny 1", "deny 1"},
          {"tcp 3.3.3.3 80", "c.test", "need 1", "allow 2", "deny 1", "deny 1"},
          {"tcp 2.1.1.1 80", "c.test", "deny 1", "deny 1", "deny 1", "deny 1"});
}

/* clang-format on */

/* ---- flows that are judged again ---- */

static void what_admitted_a_flow_still_holds_when_it_is_judged_again(void **state)
{
    struct policy *policy = policy_of("none", "deny to evil.test;allow tcp to a.test");
    struct policy *later = policy_of("none", "deny to a.test;allow tcp to any");
    struct policy_world world = the_world();
    struct dns_name a = name_of("a.test"), b = name_of("b.test");
    struct policy_query query = query_of("tcp 1.1.1.1 443");
    (void)state;

    query.name_state = POLICY_NAME_NAMED;
    query.name = &a;
    assert_int_equal(policy_judge(policy, &world, &query).reason, POLICY_REASON_UNPINNED);
    query.held = &a;
    assert_int_equal(policy_judge(policy, &world, &query).action, POLICY_ALLOW);
    assert_null(policy_judge(policy, &world, &query).pin);
    query.held = &b;
    assert_int_equal(policy_judge(policy, &world, &query).action, POLICY_DENY);

    query = query_of("tcp 1.1.1.1 22");
    query.held = &a;
    assert_int_equal(policy_judge(policy, &world, &query).action, POLICY_ALLOW);
    assert_int_equal(policy_judge(later, &world, &query).action, POLICY_DENY);
    query.name_state = POLICY_NAME_HIDDEN;
    assert_int_equal(policy_judge(policy, &world, &query).reason, POLICY_REASON_UNNAMED);
    assert_int_equal(policy_judge(later, &world, &query).action, POLICY_DENY);
    policy_free(policy);
    policy_free(later);
}

static void the_pin_that_admitted_a_flow_is_told(void **state)
{
    struct policy *policy = policy_of("none", "allow tcp to a.test,b.test");
    struct pins *pins = pins_of("c.test=1.1.1.1 a.test=1.1.1.1 d.test=1.1.1.1");
    struct policy_world world = the_world();
    struct policy_query query = query_of("tcp 1.1.1.1 22");
    struct dns_name name, a = name_of("a.test");
    (void)state;

    query.pins = pins;
    struct policy_verdict verdict = policy_judge(policy, &world, &query);
    assert_non_null(verdict.pin);
    pin_name(verdict.pin, &name);
    assert_true(dns_name_equal(&name, &a));
    query.name_state = POLICY_NAME_NAMED;
    query.name = &a;
    verdict = policy_judge(policy, &world, &query);
    assert_non_null(verdict.pin);
    query.now = NOW + UINT64_C(2) * 3600 * 1000000000;
    assert_int_equal(policy_judge(policy, &world, &query).reason, POLICY_REASON_UNPINNED);
    pins_free(pins);
    policy_free(policy);
}

/* ---- DNS ---- */

static const struct {
    const char *profile, *rules, *name, *verdict;
} QUERIES[] = {
    {"public", "", "example.com", "allow 1"},
    {"none", "", "example.com", "deny default"},
    {"all", "", "example.com", "allow 0"},
    {"none", "allow to a.test", "a.test", "allow 0"},
    {"none", "allow to a.test", "A.TEST", "allow 0"},
    {"none", "allow to a.test", "b.test", "deny default"},
    {"none", "allow to a.test", "x.a.test", "deny default"},
    {"none", "allow tcp to *.a.test port 443", "x.a.test", "allow 0"},
    {"none", "allow tcp to *.a.test port 443", "a.test", "allow 0"},
    {"none", "allow tcp to api-*.a.test port 443", "api-3.a.test", "allow 0"},
    {"none", "allow tcp to api-*.a.test port 443", "x.api-3.a.test", "deny default"},
    {"none", "allow icmp to any", "b.test", "allow 0"},
    {"none", "allow udp to public port 123", "b.test", "allow 0"},
    {"none", "allow to private", "b.test", "allow 0"},
    /* to be allowed to ask is not to be allowed an answer */
    {"none", "allow to dns", "b.test", "deny default"},
    {"none", "allow to dns;allow to a.test", "a.test", "allow 1"},
    {"none", "allow to dns;allow to a.test", "b.test", "deny default"},
    {"none", "allow to dns,private", "b.test", "allow 0"},
    {"none", "allow to host,metadata,link-local,multicast;allow to a.test", "b.test",
     "deny default"},
    /* address rules are skipped */
    {"none", "allow to 0.0.0.0/0,::/0", "b.test", "deny default"},
    {"none", "deny to 0.0.0.0/0,::/0;allow to a.test", "a.test", "allow 1"},
    {"none", "allow from any", "b.test", "deny default"},
    {"none", "deny from any;allow to any", "b.test", "allow 1"},
    /* refusals with protocol or ports do not concern the query */
    {"none", "deny to evil.test;allow to any", "evil.test", "deny 0"},
    {"none", "deny to evil.test;allow to any", "good.test", "allow 1"},
    {"none", "drop to *.evil.test;allow to any", "x.evil.test", "drop 0"},
    {"none", "deny tcp to evil.test;allow to any", "evil.test", "allow 1"},
    {"none", "deny to evil.test port 443;allow to any", "evil.test", "allow 1"},
    {"none", "deny any to evil.test;allow to any", "evil.test", "deny 0"},
    {"none", "deny udp to any;allow to a.test", "a.test", "allow 1"},
    {"none", "deny to any port 53;allow to a.test", "a.test", "allow 1"},
    {"none", "deny to any;allow to a.test", "a.test", "deny 0"},
    {"none", "deny to public;allow to a.test", "a.test", "allow 1"},
    {"none", "drop to any", "a.test", "drop 0"},
    /* the first applicable one decides */
    {"none", "allow to ok.evil.test;deny to *.evil.test;allow to any", "ok.evil.test", "allow 0"},
    {"none", "allow to ok.evil.test;deny to *.evil.test;allow to any", "no.evil.test", "deny 1"},
    {"none", "allow to a.test;deny to a.test", "a.test", "allow 0"},
    {"none", "deny to a.test;allow to a.test", "a.test", "deny 0"},
    {"none", "allow to 10.0.0.0/8,a.test", "a.test", "allow 0"},
    {"none", "deny to a.test,any;allow to b.test", "b.test", "deny 0"},
    {"none", "allow to a.test", ".", "deny default"},
    {"none", "allow to any", ".", "allow 0"},
    {"none", "allow to *.example.com", "evil\\.example.com", "deny default"},
    {"none", "allow to *.example.com", "a\\000b.example.com", "allow 0"},
};

static void queries_go_upstream_only_for_names_that_may_be_reached(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(QUERIES); i++) {
        struct policy *policy = policy_of(QUERIES[i].profile, QUERIES[i].rules);
        struct dns_name name = name_of(QUERIES[i].name);
        struct policy_verdict verdict = policy_judge_query(policy, &name);
        char text[64];
        describe(&verdict, text, sizeof text);
        if (strcmp(text, QUERIES[i].verdict) != 0)
            fail_msg("%s + \"%s\": %s gives \"%s\", expected \"%s\"", QUERIES[i].profile,
                     QUERIES[i].rules, QUERIES[i].name, text, QUERIES[i].verdict);
        policy_free(policy);
    }
}

static void a_cname_into_a_refused_name_is_refused_if_the_refusal_comes_first(void **state)
{
    static const struct {
        const char *rules, *queried, *owner;
        bool allowed;
    } rows[] = {
        {"deny to evil.test;allow to *.good.test", "a.good.test", "evil.test", false},
        {"allow to *.good.test;deny to evil.test", "a.good.test", "evil.test", true},
        {"allow to *.good.test;deny to any", "a.good.test", "cdn.test", true},
        {"deny tcp to evil.test;allow to any", "a.good.test", "evil.test", true},
        {"allow to ok.evil.test;deny to *.evil.test;allow to any", "a.test", "ok.evil.test", true},
        {"allow to ok.evil.test;deny to *.evil.test;allow to any", "a.test", "x.evil.test", false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy *policy = policy_of("none", rows[i].rules);
        struct dns_name queried = name_of(rows[i].queried), owner = name_of(rows[i].owner);
        struct policy_verdict query = policy_judge_query(policy, &queried);
        assert_int_equal(query.action, POLICY_ALLOW);
        struct policy_verdict verdict = policy_judge_owner(policy, &owner, &query);
        if ((verdict.action == POLICY_ALLOW) != rows[i].allowed)
            fail_msg("\"%s\": %s -> %s", rows[i].rules, rows[i].queried, rows[i].owner);
        policy_free(policy);
    }
}

static const struct {
    const char *profile, *rules, *name, *address;
    bool admitted;
} ANSWERS[] = {
    {"none", "allow to a.test", "a.test", "1.1.1.1", true},
    {"none", "allow to a.test", "a.test", "2a00::1", true},
    {"none", "allow to a.test", "a.test", "10.1.1.1", false},
    {"none", "allow to a.test", "a.test", "127.0.0.1", false},
    {"none", "allow to a.test", "a.test", "0.0.0.0", false},
    {"none", "allow to a.test", "a.test", "::", false},
    {"none", "allow to a.test", "a.test", "::1", false},
    {"none", "allow to a.test", "a.test", "fd00::1", false},
    {"none", "allow to a.test", "a.test", "169.254.169.254", false},
    {"none", "allow to a.test", "a.test", "192.168.7.7", false},
    {"none", "allow to a.test", "a.test", "10.0.2.2", false},
    {"none", "allow to a.test", "a.test", "10.0.2.3", false},
    {"none", "allow to a.test", "a.test", "224.0.0.1", false},
    {"none", "allow to a.test", "a.test", "192.0.2.1", false},
    {"none", "allow to a.test", "a.test", "64:ff9b::10.1.1.1", false},
    {"none", "allow to a.test", "a.test", "64:ff9b::1.1.1.1", true},
    {"none", "allow to a.test in 10.0.0.0/8", "a.test", "10.1.1.1", true},
    {"none", "allow to a.test in 10.0.0.0/8", "a.test", "64:ff9b::10.1.1.1", true},
    {"none", "allow to a.test in 10.0.0.0/8", "a.test", "10.0.2.2", true},
    {"none", "allow to a.test in private", "a.test", "10.0.2.2", false},
    {"none", "allow to a.test in private", "a.test", "192.168.1.1", true},
    {"none", "allow to a.test in private", "b.test", "192.168.1.1", false},
    {"none", "allow to *.a.test in host", "x.a.test", "192.168.7.7", true},
    {"none", "allow to a.test in any", "a.test", "10.1.1.1", true},
    {"none", "allow to a.test in any", "a.test", "169.254.1.1", false},
    {"none", "allow to a.test in any", "a.test", "::1", false},
    {"none", "allow to a.test;allow to 10.0.0.0/8 port 22", "a.test", "10.1.1.1", true},
    {"none", "allow to a.test;deny to 10.0.0.0/8", "a.test", "10.1.1.1", false},
    {"none", "allow to any", "a.test", "10.1.1.1", true},
    {"none", "allow to any", "a.test", "10.0.2.2", false},
    {"none", "allow to any", "a.test", "169.254.169.254", false},
    {"none", "allow to any,host", "a.test", "192.168.7.7", true},
    {"public", "", "a.test", "10.1.1.1", false},
    {"public", "", "a.test", "1.1.1.1", true},
    {"public", "", "a.test", "127.0.0.1", false},
    {"all", "", "a.test", "10.1.1.1", true},
    {"all", "", "a.test", "169.254.169.254", false},
    {"public", "", "db.test", "10.1.2.3", true},
    {"public", "", "meta.test", "169.254.169.254", true},
    {"public", "", "db.test", "10.1.2.4", false},
};

static void answers_keep_only_addresses_the_name_may_lead_to(void **state)
{
    struct policy_world world = the_world();
    (void)state;
    for (size_t i = 0; i < COUNT(ANSWERS); i++) {
        struct policy *policy = policy_of(ANSWERS[i].profile, ANSWERS[i].rules);
        struct dns_name name = name_of(ANSWERS[i].name);
        struct ip_address address = address_of(ANSWERS[i].address);
        if (policy_admits_answer(policy, &world, &name, &address) != ANSWERS[i].admitted)
            fail_msg("%s + \"%s\": %s %s: expected %d", ANSWERS[i].profile, ANSWERS[i].rules,
                     ANSWERS[i].name, ANSWERS[i].address, ANSWERS[i].admitted);
        policy_free(policy);
    }
}

static void a_policy_knows_whether_names_matter(void **state)
{
    static const struct {
        const char *rules;
        bool names;
    } rows[] = {
        {"", false},
        {"allow to 10.0.0.0/8;deny from any", false},
        {"allow to a.test", true},
        {"deny to a.test", true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy *policy = policy_of("public", rows[i].rules);
        assert_int_equal(policy_has_names(policy), rows[i].names);
        policy_free(policy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_allow_list_admits_names_on_the_addresses_they_are_pinned_to),
        cmocka_unit_test(a_nameless_flow_may_not_pose_where_names_are_told),
        cmocka_unit_test(a_deny_list_before_everything_public_needs_the_name),
        cmocka_unit_test(a_drop_by_name_is_silent_when_it_decides),
        cmocka_unit_test(ports_of_a_refusal_by_name_spare_the_others_a_peek),
        cmocka_unit_test(what_everybody_allows_is_never_peeked_at),
        cmocka_unit_test(the_first_match_decides_among_names_too),
        cmocka_unit_test(an_allow_by_name_before_a_silent_tail_waits_for_the_name),
        cmocka_unit_test(an_allow_by_name_alone_waits_for_the_name),
        cmocka_unit_test(an_allow_by_name_leads_to_public_addresses_only),
        cmocka_unit_test(in_widens_an_allow_by_name),
        cmocka_unit_test(refusals_by_name_hold_wherever_the_name_leads),
        cmocka_unit_test(dns_hosts_count_as_widened_to_their_address),
        cmocka_unit_test(dns_hosts_are_pinned_without_being_asked_for),
        cmocka_unit_test(owners_of_a_cname_chain_count_for_refusals_only),
        cmocka_unit_test(wildcards_keep_to_label_borders),
        cmocka_unit_test(a_and_aaaa_are_pinned_apart),
        cmocka_unit_test(nat64_counts_as_the_address_it_carries),
        cmocka_unit_test(a_rule_may_mix_names_and_addresses),
        cmocka_unit_test(what_admitted_a_flow_still_holds_when_it_is_judged_again),
        cmocka_unit_test(the_pin_that_admitted_a_flow_is_told),
        cmocka_unit_test(queries_go_upstream_only_for_names_that_may_be_reached),
        cmocka_unit_test(a_cname_into_a_refused_name_is_refused_if_the_refusal_comes_first),
        cmocka_unit_test(answers_keep_only_addresses_the_name_may_lead_to),
        cmocka_unit_test(a_policy_knows_whether_names_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
