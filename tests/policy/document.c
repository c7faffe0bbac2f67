/* SPDX-License-Identifier: Apache-2.0 */

/* Policy documents, sets and lists. Files are of this test's making: `read_file` has a few. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/builder.h"
#include "policy/names.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int read_file(void *ctx, const char *path, char **ret, size_t *ret_len)
{
    static const struct {
        const char *path, *text;
    } files[] = {
        {"/etc/list", "# names\n\na.test\n  *.b.test  # and below\r\n10.0.0.0/8\n\tpublic\n"},
        {"/etc/policies/near", "near.test\n"},
        {"near", "here.test\n"},
        {"/etc/bad", "a.test\n\nb..test\n"},
        {"/etc/hosts-like", "0.0.0.0 ads.test\n"},
        {"/etc/broad", "a.test\n*.com\n"},
        {"/etc/nested", "@web\n"},
        {"/etc/empty", ""},
        {"/etc/no-newline", "a.test\nb.test"},
        {"/etc/bom", "\xef\xbb\xbf"
                     "a.test\n"},
    };
    const char *text = NULL;
    (void)ctx;
    for (size_t i = 0; i < COUNT(files) && !text; i++) {
        if (strcmp(files[i].path, path) == 0)
            text = files[i].text;
    }
    if (!text)
        return -ENOENT;
    *ret_len = strlen(text);
    *ret = strndup(text, *ret_len);
    return *ret ? 0 : -ENOMEM;
}

static struct policy_builder *builder_new(void)
{
    struct policy_builder *builder = policy_builder_new();
    assert_non_null(builder);
    policy_builder_files(builder, read_file, NULL);
    return builder;
}

static int load(struct policy_builder *builder, const char *text, char *message, size_t size)
{
    int r =
        policy_builder_document(builder, text, strlen(text), "/etc/policies/p.json", message, size);
    return r < 0 ? r : policy_builder_check(builder, message, size);
}

static void loads(struct policy_builder *builder, const char *text)
{
    char message[512];
    if (load(builder, text, message, sizeof message) < 0)
        fail_msg("%s: %s", text, message);
}

/* "allow 0": the verdict on a DNS query. */
static void query_gives(const struct policy_builder *builder, const char *name,
                        enum policy_action action, uint32_t rule)
{
    struct policy *policy = policy_build(builder, 7);
    struct dns_name n;
    assert_non_null(policy);
    assert_int_equal(dns_name_parse(name, &n), 0);
    struct policy_verdict verdict = policy_judge_query(policy, &n);
    if (verdict.action != action || verdict.rule != rule)
        fail_msg("%s: action %u rule %u", name, verdict.action, verdict.rule);
    policy_free(policy);
}

static void a_document_has_sets_rules_ids_and_a_profile(void **state)
{
    struct policy_builder *builder = builder_new();
    (void)state;
    loads(builder, "{\"version\":1,\"profile\":\"none\",\n"
                   "\"sets\":{\"web\":[\"*.a.test\",\"b.test\"],\"none\":[]},\n"
                   "\"rules\":[\"allow tcp to @web port 443\",\n"
                   "{\"rule\":\"deny to c.test,@none\",\"id\":\"tail\",\"comment\":\"why\"},\n"
                   "\"# a comment\"]}");
    assert_string_equal(policy_builder_document_profile(builder), "none");
    query_gives(builder, "x.a.test", POLICY_ALLOW, 0);
    query_gives(builder, "b.test", POLICY_ALLOW, 0);
    query_gives(builder, "c.test", POLICY_DENY, 1);
    query_gives(builder, "d.test", POLICY_DENY, UINT32_MAX);
    struct policy *policy = policy_build(builder, 7);
    assert_int_equal(policy_generation(policy), 7);
    assert_int_equal(policy_rule_count(policy), 2);
    assert_string_equal(policy_rule_id(policy, 1), "tail");
    assert_null(policy_rule_id(policy, 0));
    assert_string_equal(policy_rule_where(policy, 1), "/etc/policies/p.json:4");
    assert_string_equal(policy_rule_text(policy, 0), "allow tcp to @web port 443");
    assert_null(policy_rule_text(policy, 2));
    policy_free(policy);
    policy_builder_free(builder);
}

static void rules_by_flag_come_first_and_the_profile_last(void **state)
{
    struct policy_builder *builder = builder_new();
    char message[256];
    (void)state;
    assert_int_equal(policy_builder_profile(builder, "public", message, sizeof message), 0);
    loads(builder, "{\"version\":1,\"rules\":[\"deny to a.test,b.test\"]}");
    assert_null(policy_builder_document_profile(builder));
    assert_int_equal(policy_builder_add(builder, "allow to a.test", "--rule", message, 256), 0);
    query_gives(builder, "a.test", POLICY_ALLOW, 0);
    query_gives(builder, "b.test", POLICY_DENY, 1);
    query_gives(builder, "c.test", POLICY_ALLOW, 3);
    policy_builder_free(builder);
}

static void a_flag_may_name_a_set_of_the_document(void **state)
{
    struct policy_builder *builder = builder_new();
    char message[256];
    (void)state;
    assert_int_equal(policy_builder_add(builder, "allow to @web", NULL, message, 256), 0);
    assert_int_equal(policy_builder_check(builder, message, sizeof message), -EINVAL);
    assert_string_equal(message,
                        "rule \"allow to @web\": there is no set \"web\": define it in the "
                        "policy file's \"sets\"");
    assert_null(policy_build(builder, 1));
    assert_int_equal(errno, EINVAL);
    loads(builder, "{\"version\":1,\"sets\":{\"web\":[\"a.test\"]}}");
    query_gives(builder, "a.test", POLICY_ALLOW, 0);
    policy_builder_free(builder);
}

static void a_later_document_takes_the_place_of_the_earlier(void **state)
{
    struct policy_builder *builder = builder_new();
    char message[256];
    (void)state;
    loads(builder, "{\"version\":1,\"profile\":\"all\",\"sets\":{\"x\":[\"a.test\"]},"
                   "\"rules\":[\"allow to @x\"]}");
    assert_int_equal(load(builder, "{\"version\":1,\"rules\":[\"alow to any\"]}", message, 256),
                     -EINVAL);
    query_gives(builder, "a.test", POLICY_ALLOW, 0); /* as it was */
    loads(builder, "{\"version\":1,\"rules\":[\"allow to b.test\"]}");
    assert_null(policy_builder_document_profile(builder));
    query_gives(builder, "a.test", POLICY_DENY, UINT32_MAX);
    query_gives(builder, "b.test", POLICY_ALLOW, 0);
    policy_builder_free(builder);
}

static void a_rule_matches_nothing_once_it_has_expired(void **state)
{
    static const struct {
        const char *expires;
        int64_t seconds;
    } rows[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2027-01-01T00:00:00Z", 1798761600},
        {"2000-02-29T12:30:45Z", 951827445},
        {"2027-01-01T02:00:00+02:00", 1798761600},
        {"2026-12-31T18:30:00-05:30", 1798761600},
        {"2100-03-01t00:00:00z", 4107542400},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy_builder *builder = builder_new();
        char text[300];
        struct dns_name name;
        assert_int_equal(dns_name_parse("a.test", &name), 0);
        snprintf(text, sizeof text,
                 "{\"version\":1,\"rules\":[{\"rule\":\"allow to a.test\",\"expires\":\"%s\"},"
                 "\"deny to a.test\"]}",
                 rows[i].expires);
        loads(builder, text);
        struct policy *before = policy_build_at(builder, 1, rows[i].seconds - 1);
        struct policy *after = policy_build_at(builder, 1, rows[i].seconds);
        assert_int_equal(policy_expires(before), rows[i].seconds);
        assert_true(policy_expires(after) == INT64_MAX);
        assert_int_equal(policy_judge_query(before, &name).rule, 0);
        assert_int_equal(policy_judge_query(after, &name).rule, 1);
        assert_int_equal(policy_rule_count(after), 2);
        policy_free(before);
        policy_free(after);
        policy_builder_free(builder);
    }
}

static void an_expired_ingress_rule_opens_nothing(void **state)
{
    struct policy_builder *builder = builder_new();
    struct policy_world world = {.is_host_address = NULL};
    struct policy_query query = {.direction = POLICY_INGRESS, .protocol = POLICY_TCP, .port = 80};
    (void)state;
    assert_true(ip_address_parse("1.1.1.1", &query.address));
    loads(builder, "{\"version\":1,\"rules\":[{\"rule\":\"allow from 10.0.0.0/8\",\"expires\":"
                   "\"2020-01-01T00:00:00Z\"}]}");
    struct policy *policy = policy_build_at(builder, 1, 1798761600);
    assert_int_equal(policy_judge(policy, &world, &query).action, POLICY_DENY);
    policy_free(policy);
    policy_builder_free(builder);
}

static void lists_hold_one_target_a_line(void **state)
{
    struct policy_builder *builder = builder_new();
    char message[256];
    (void)state;
    assert_int_equal(policy_builder_add(builder, "deny to @file:/etc/list", NULL, message, 256), 0);
    const struct target_set *set = builder_find_set(builder, "file:/etc/list");
    assert_non_null(set);
    assert_int_equal(set->name_count, 2);
    assert_int_equal(set->prefix_count, 1);
    assert_int_equal(set->groups, POLICY_PUBLIC);
    query_gives(builder, "x.b.test", POLICY_DENY, 0);
    assert_int_equal(policy_builder_add(builder, "deny to @file:/etc/empty", NULL, message, 256),
                     0);
    assert_int_equal(
        policy_builder_add(builder, "deny to @file:/etc/no-newline", NULL, message, 256), 0);
    assert_int_equal(builder_find_set(builder, "file:/etc/no-newline")->name_count, 2);
    assert_int_equal(policy_builder_add(builder, "deny to @file:/etc/bom", NULL, message, 256), 0);
    assert_int_equal(builder_find_set(builder, "file:/etc/bom")->name_count, 1);
    policy_builder_free(builder);
}

static void lists_of_a_document_are_found_beside_it(void **state)
{
    struct policy_builder *builder = builder_new();
    char message[256];
    (void)state;
    loads(builder, "{\"version\":1,\"sets\":{\"s\":[\"@file:near\",\"t.test\"]},"
                   "\"rules\":[\"allow to @file:near\",\"drop to @s\"]}");
    query_gives(builder, "near.test", POLICY_ALLOW, 0);
    query_gives(builder, "t.test", POLICY_DROP, 1);
    assert_int_equal(policy_builder_add(builder, "deny to @file:near", NULL, message, 256), 0);
    query_gives(builder, "here.test", POLICY_DENY, 0);
    policy_builder_free(builder);
}

static void a_copy_builds_the_same_when_the_original_is_gone(void **state)
{
    static const struct dns_name name = {5, "\3git"};
    const struct ip_address inside = ip_address_v4(htonl(0x0a010203));
    struct policy_builder *builder = builder_new(), *copy;
    char message[256];
    (void)state;
    loads(builder, "{\"version\":1,\"sets\":{\"s\":[\"@file:near\",\"t.test\"]},"
                   "\"rules\":[{\"rule\":\"allow tcp to x.test,@s port 1,5-9 in 10.0.0.0/8\","
                   "\"id\":\"i\",\"expires\":\"2027-01-01T00:00:00Z\"}]}");
    assert_int_equal(policy_builder_add(builder, "deny to z.test", "w", message, 256), 0);
    assert_int_equal(policy_builder_host_address(builder, &inside), 0);
    assert_int_equal(policy_builder_dns_host(builder, &name, &inside), 0);
    assert_true(policy_builder_expires(builder));
    copy = policy_builder_copy(builder);
    assert_non_null(copy);
    policy_builder_free(builder);
    assert_true(policy_builder_expires(copy));
    query_gives(copy, "z.test", POLICY_DENY, 0);
    query_gives(copy, "near.test", POLICY_ALLOW, 1);
    query_gives(copy, "x.test", POLICY_ALLOW, 1);
    assert_int_equal(copy->host_address_count + copy->host_count, 2);
    assert_int_equal(policy_builder_add(copy, "allow to y.test", NULL, message, 256), 0);
    query_gives(copy, "y.test", POLICY_ALLOW, 1);
    policy_builder_free(copy);
}

static void a_builder_without_an_end_says_so(void **state)
{
    struct policy_builder *builder = builder_new();
    (void)state;
    loads(builder, "{\"version\":1,\"rules\":[\"allow to public\"]}");
    assert_false(policy_builder_expires(builder));
    policy_builder_free(builder);
}

static const struct {
    const char *text, *says; /* a piece of the message */
} FAULTS[] = {
    {"", "p.json:1: column 0: this is no JSON"},
    {"{\"version\":1,\n\"rules\":[\n\"allow to any\",]}", "p.json:3: column"},
    {"{\"version\":1,\"version\":1}", "this is no JSON: duplicate"},
    {"[]", "p.json:1: a policy is an object"},
    {"{}", "p.json:1: the version is missing"},
    {"{\n\"version\":2}", "p.json:2: \"version\" must be 1"},
    {"{\"version\":\"1\"}", "p.json:1: \"version\" must be 1"},
    {"{\"version\":1,\n\n\"profil\":\"none\"}",
     "p.json:3: a policy has no \"profil\"; did you mean \"profile\"?"},
    {"{\"version\":1,\n\"xyzzy\":1}", "p.json:2: a policy has no \"xyzzy\": take it out"},
    {"{\"version\":1,\n\"profile\":\"nnone\"}", "p.json:2: \"profile\" must be"},
    {"{\"version\":1,\n\"profile\":\"nnone\"}", "did you mean \"none\"?"},
    {"{\"version\":1,\n\"profile\":1}", "p.json:2: \"profile\" must be"},
    {"{\"version\":1,\n\"sets\":[]}", "p.json:2: \"sets\" must be an object"},
    {"{\"version\":1,\"sets\":{\n\"a\":\"b.test\"}}", "p.json:2: set \"a\" must be a list"},
    {"{\"version\":1,\"sets\":{\n\"a b\":[]}}", "p.json:2: \"a b\" is no name for a set"},
    {"{\"version\":1,\"sets\":{\n\"a\":[\"x.test\",\n1]}}",
     "p.json:3: set \"a\": a target is a string"},
    {"{\"version\":1,\"sets\":{\"a\":[],\n\"b\":[\"x.test\",\n\n\"x..test\"]}}",
     "p.json:4: set \"b\": \"x..test\" has an empty label"},
    {"{\"version\":1,\"sets\":{\"a\":[\"@b\"]}}", "a set holds no sets"},
    {"{\"version\":1,\"sets\":{\"a\":[\"x.test,y.test\"]}}", "is more than a target"},
    {"{\"version\":1,\"sets\":{\"a\":[\n\"@file:/etc/bad\"]}}",
     "p.json:2: set \"a\": /etc/bad:3: \"b..test\" has an empty label"},
    {"{\"version\":1,\"sets\":{\"a\":[\"@file:/etc/none\"]}}",
     "/etc/none: the list cannot be read: No such file"},
    {"{\"version\":1,\n\"rules\":{}}", "p.json:2: \"rules\" must be a list"},
    {"{\"version\":1,\"rules\":[\n1]}", "p.json:2: rule 1 must be a string or an object"},
    {"{\"version\":1,\"rules\":[\n{}]}", "p.json:2: rule 1 has no \"rule\""},
    {"{\"version\":1,\"rules\":[\n{\"rule\":7}]}", "p.json:2: rule 1: \"rule\" must be a string"},
    {"{\"version\":1,\"rules\":[{\"rule\":\"allow to any\",\n\"expire\":\"x\"}]}",
     "p.json:2: a rule has no \"expire\"; did you mean \"expires\"?"},
    {"{\"version\":1,\"rules\":[\"allow to any\",\n\"alow to any\"]}",
     "p.json:2: rule 2: column 1: unknown word \"alow\"; did you mean \"allow\"?"},
    {"{\"version\":1,\"rules\":[\n{\"id\":\"tail\",\"rule\":\"deny any\"}]}",
     "p.json:2: rule 1 (\"tail\"): column 9: "},
    {"{\"version\":1,\"rules\":[\n\"allow to \xc3\xa4*.test\"]}", "p.json:2: rule 1: column 10: "},
    {"{\"version\":1,\"rules\":[\"allow to any\\nport 1\"]}", "a rule is one line"},
    {"{\"version\":1,\"rules\":[\"allow to @file:/etc/hosts-like\"]}",
     "/etc/hosts-like:1: \"0.0.0.0 ads.test\" is more than a target"},
    {"{\"version\":1,\"rules\":[\"allow to @file:/etc/nested\"]}",
     "/etc/nested:1: \"@web\": a set"},
    {"{\"version\":1,\"sets\":{\"web\":[]},\"rules\":[\n\"allow to @wbe\"]}",
     "p.json:2: there is no set \"wbe\"; did you mean \"@web\"?"},
    {"{\"version\":1,\"rules\":[\n\"allow to @file:/etc/broad\"]}",
     "p.json:2: /etc/broad:2: \"*.com\" in \"@file:/etc/broad\" reaches beyond one owner's names"},
    {"{\"version\":1,\"sets\":{\"s\":[\"a.test\"]},\"rules\":[\n\"allow from @s\"]}",
     "p.json:2: \"@s\" holds names, but who comes from outside has none"},
    {"{\"version\":1,\"sets\":{\"s\":[\"a.test\"]},\"rules\":[\n\"allow to b.test in @s\"]}",
     "p.json:2: \"@s\" holds names; behind \"in\" stand addresses only"},
    {"{\"version\":1,\"sets\":{\"s\":[\"1.1.1.1\"]},\"rules\":[\n\"allow to @s in private\"]}",
     "p.json:2: \"in\" widens names, and the rule has none"},
};

static void faults_say_file_line_rule_and_the_mend(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(FAULTS); i++) {
        struct policy_builder *builder = builder_new();
        char message[512] = "";
        int r = load(builder, FAULTS[i].text, message, sizeof message);
        if (r != -EINVAL || !strstr(message, FAULTS[i].says) || strchr(message, '\n'))
            fail_msg("%s: %d \"%s\", expected \"%s\"", FAULTS[i].text, r, message, FAULTS[i].says);
        for (const char *at = message; *at; at++)
            assert_true(*at >= ' ' && *at <= '~');
        policy_builder_free(builder);
    }
}

static void times_that_do_not_exist_are_refused(void **state)
{
    static const char *const rows[] = {
        "tomorrow",
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-13-01T00:00:00Z",
        "2027-00-01T00:00:00Z",
        "2027-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2027-01-32T00:00:00Z",
        "2027-01-01T24:00:00Z",
        "2027-01-01T00:60:00Z",
        "2027-01-01T00:00:61Z",
        "2027-01-01 00:00:00Z",
        "2027-01-01T00:00:00+2:00",
        "2027-01-01T00:00:00+24:00",
        "2027-01-01T00:00:00+02",
        "2027-01-01T00:00:00Zx",
        "1969-12-31T23:59:59Z",
        "",
        "2027",
        "2027-01-01T00:00:00.5Z",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy_builder *builder = builder_new();
        char text[200], message[256];
        snprintf(text, sizeof text,
                 "{\"version\":1,\"rules\":[{\"rule\":\"allow to any\",\"expires\":\"%s\"}]}",
                 rows[i]);
        if (load(builder, text, message, sizeof message) != -EINVAL ||
            !strstr(message, "\"expires\" is no time"))
            fail_msg("%s", rows[i]);
        policy_builder_free(builder);
    }
}

static void every_truncation_of_a_document_says_why(void **state)
{
    static const char whole[] =
        "{\"version\":1,\"profile\":\"none\",\"sets\":{\"w\":[\"*.a.test\"]},"
        "\"rules\":[\"allow to @w # \\\"x\\\"\",{\"rule\":\"deny to any\",\"id\":\"a\"}]}";
    (void)state;
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        struct policy_builder *builder = builder_new();
        char *text = strndup(whole, len), message[256] = "";
        assert_int_equal(policy_builder_document(builder, text, len, NULL, message, 256), -EINVAL);
        assert_true(strncmp(message, "policy:1: ", 10) == 0);
        free(text);
        policy_builder_free(builder);
    }
}

static void lists_need_someone_to_read_them(void **state)
{
    struct policy_builder *builder = policy_builder_new();
    char message[256];
    (void)state;
    assert_int_equal(policy_builder_add(builder, "allow to @file:/etc/list", NULL, message, 256),
                     -EINVAL);
    assert_non_null(strstr(message, "cannot be read here"));
    policy_builder_free(builder);
}

static void sets_count_as_their_content(void **state)
{
    struct policy_builder *builder = builder_new();
    struct policy_world world = {.is_host_address = NULL};
    static const struct {
        const char *address;
        uint32_t rule;
    } rows[] = {
        {"10.1.1.1", 0}, {"192.168.1.1", 1}, {"fd00::1", 1}, {"1.1.1.1", 2}, {"2.2.2.2", 3}};
    (void)state;
    loads(builder,
          "{\"version\":1,\"sets\":{\"p\":[\"10.0.0.0/8\",\"10.0.0.0/8\"],\"q\":[\"private\"],"
          "\"r\":[\"1.1.1.1\",\"host\"],\"all\":[\"any\"]},"
          "\"rules\":[\"allow to @p\",\"deny to @q\",\"drop to @r\",\"allow to @all\"]}");
    struct policy *policy = policy_build(builder, 1);
    assert_false(policy_has_names(policy));
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy_query query = {.protocol = POLICY_TCP, .port = 80};
        assert_true(ip_address_parse(rows[i].address, &query.address));
        assert_int_equal(policy_judge(policy, &world, &query).rule, rows[i].rule);
    }
    policy_free(policy);
    policy_builder_free(builder);
}

/* Names that are in several sets and rules at once find the rules of all of them. */
static void names_in_many_sets_find_all_their_rules(void **state)
{
    struct policy_builder *builder = builder_new();
    (void)state;
    loads(builder, "{\"version\":1,\"sets\":{\"s\":[\"a.test\",\"b.test\",\"*.c.test\"],"
                   "\"t\":[\"b.test\",\"b.test\",\"a.test\",\"x.c.test\"],\"u\":[\"a.test\"]},"
                   "\"rules\":[\"deny to b.test\",\"allow to @t port 1\",\"deny to @u\","
                   "\"allow to @s port 2\",\"allow to @u,@s,@t\"]}");
    query_gives(builder, "a.test", POLICY_ALLOW, 1);
    query_gives(builder, "b.test", POLICY_DENY, 0);
    query_gives(builder, "x.c.test", POLICY_ALLOW, 1);
    query_gives(builder, "y.c.test", POLICY_ALLOW, 3);
    query_gives(builder, "d.test", POLICY_DENY, UINT32_MAX);
    policy_builder_free(builder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_has_sets_rules_ids_and_a_profile),
        cmocka_unit_test(rules_by_flag_come_first_and_the_profile_last),
        cmocka_unit_test(a_flag_may_name_a_set_of_the_document),
        cmocka_unit_test(a_later_document_takes_the_place_of_the_earlier),
        cmocka_unit_test(a_rule_matches_nothing_once_it_has_expired),
        cmocka_unit_test(an_expired_ingress_rule_opens_nothing),
        cmocka_unit_test(lists_hold_one_target_a_line),
        cmocka_unit_test(lists_of_a_document_are_found_beside_it),
        cmocka_unit_test(a_copy_builds_the_same_when_the_original_is_gone),
        cmocka_unit_test(a_builder_without_an_end_says_so),
        cmocka_unit_test(faults_say_file_line_rule_and_the_mend),
        cmocka_unit_test(times_that_do_not_exist_are_refused),
        cmocka_unit_test(every_truncation_of_a_document_says_why),
        cmocka_unit_test(lists_need_someone_to_read_them),
        cmocka_unit_test(sets_count_as_their_content),
        cmocka_unit_test(names_in_many_sets_find_all_their_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
