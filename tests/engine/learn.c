/* SPDX-License-Identifier: Apache-2.0 */
/* What was used becomes the rules that allow it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/learn.h"
#include "policy/policy.h"

struct lesson {
    struct counters counters;
    struct learn *learn;
    char *text;
    json_t *root;
    char rules[1 << 16]; /* one a line */
};

static int setup(void **state)
{
    static const uint64_t key[2] = {5, 6};
    struct lesson *lesson = calloc(1, sizeof *lesson);

    lesson->learn = learn_new(&lesson->counters, key);
    assert_non_null(lesson->learn);
    *state = lesson;
    return 0;
}

static int teardown(void **state)
{
    struct lesson *lesson = *state;

    assert_null(learn_free(lesson->learn));
    json_decref(lesson->root);
    free(lesson->text);
    free(lesson);
    return 0;
}

/* `name` or `seen` may be NULL. An address that begins with "10." is private. */
static void use(struct lesson *lesson, uint8_t protocol, const char *name, const char *address,
                uint16_t port, const char *seen)
{
    struct dns_name admits, other;
    struct learn_flow flow = {
        .protocol = protocol, .port = port, .is_public = strncmp(address, "10.", 3) != 0};

    assert_true(ip_address_parse(address, &flow.address));
    if (name) {
        assert_int_equal(dns_name_parse(name, &admits), 0);
        flow.name = &admits;
    }
    if (seen) {
        assert_int_equal(dns_name_parse(seen, &other), 0);
        flow.seen = &other;
    }
    learn_flow(lesson->learn, &flow);
}

static void tcp(struct lesson *lesson, const char *name, uint16_t port)
{
    use(lesson, IPPROTO_TCP, name, "93.184.216.34", port, NULL);
}

/* The document must be one that --policy takes. */
static void write_down(struct lesson *lesson, bool wildcards)
{
    struct policy_builder *builder = policy_builder_new();
    char message[400];
    size_t count, index;
    json_t *rule;

    lesson->text = learn_document(lesson->learn, wildcards, &count);
    assert_non_null(lesson->text);
    if (policy_builder_document(builder, lesson->text, strlen(lesson->text), "learnt.json", message,
                                sizeof message) < 0)
        fail_msg("%s", message);
    assert_string_equal(policy_builder_document_profile(builder), "none");
    policy_builder_free(builder);
    lesson->root = json_loads(lesson->text, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(lesson->root, "rules")), count);
    json_array_foreach(json_object_get(lesson->root, "rules"), index, rule)
    {
        strcat(lesson->rules, json_is_string(rule)
                                  ? json_string_value(rule)
                                  : json_string_value(json_object_get(rule, "rule")));
        strcat(lesson->rules, "\n");
    }
}

static void nothing_used_allows_nothing(void **state)
{
    struct lesson *lesson = *state;

    write_down(lesson, true);
    assert_string_equal(lesson->rules, "");
    assert_null(json_object_get(lesson->root, "refused"));
}

static void each_name_and_protocol_is_one_rule_with_its_ports_merged(void **state)
{
    struct lesson *lesson = *state;

    tcp(lesson, "www.example.com", 443);
    tcp(lesson, "WWW.Example.com", 80);
    tcp(lesson, "www.example.com", 443);
    use(lesson, IPPROTO_UDP, "www.example.com", "93.184.216.34", 443, NULL);
    use(lesson, IPPROTO_ICMP, "www.example.com", "93.184.216.34", 0, NULL);
    for (uint16_t port = 8000; port < 8010; port++)
        tcp(lesson, "api.example.com", port);
    write_down(lesson, false);
    assert_string_equal(lesson->rules, "allow tcp to api.example.com port 8000-8009\n"
                                       "allow icmp to www.example.com\n"
                                       "allow tcp to www.example.com port 80,443\n"
                                       "allow udp to www.example.com port 443\n");
}

static void bare_addresses_come_last_and_say_what_name_was_seen(void **state)
{
    struct lesson *lesson = *state;

    use(lesson, IPPROTO_TCP, NULL, "192.0.2.7", 443, "other.example");
    use(lesson, IPPROTO_TCP, NULL, "2001:db8::7", 22, NULL);
    tcp(lesson, "zzz.example", 443);
    write_down(lesson, false);
    assert_string_equal(lesson->rules, "allow tcp to zzz.example port 443\n"
                                       "allow tcp to 192.0.2.7 port 443\n"
                                       "allow tcp to 2001:db8::7 port 22\n");
    assert_non_null(strstr(lesson->text, "seen as other.example"));
}

static void a_name_that_leads_inside_is_widened_to_where_it_led(void **state)
{
    struct lesson *lesson = *state;

    use(lesson, IPPROTO_TCP, "git.corp.example", "10.1.2.3", 22, NULL);
    use(lesson, IPPROTO_TCP, "git.corp.example", "10.1.2.4", 22, NULL);
    use(lesson, IPPROTO_TCP, "git.corp.example", "10.1.2.3", 443, NULL);
    write_down(lesson, false);
    assert_string_equal(lesson->rules,
                        "allow tcp to git.corp.example port 22,443 in 10.1.2.3,10.1.2.4\n");
}

static void lookups_need_a_rule_only_where_none_goes_by_name(void **state)
{
    struct lesson *lesson = *state;

    learn_lookup(lesson->learn);
    use(lesson, IPPROTO_TCP, NULL, "192.0.2.7", 443, NULL);
    write_down(lesson, false);
    assert_string_equal(lesson->rules, "allow to dns\nallow tcp to 192.0.2.7 port 443\n");
}

static void single_labels_are_written_with_their_dot(void **state)
{
    struct lesson *lesson = *state;

    tcp(lesson, "intranet", 80);
    write_down(lesson, true);
    assert_string_equal(lesson->rules, "allow tcp to intranet. port 80\n");
}

static void many_ports_become_several_rules(void **state)
{
    struct lesson *lesson = *state;
    unsigned lines = 0;

    for (uint16_t port = 60000; port > 1000; port = (uint16_t)(port - 2)) /* downwards */
        use(lesson, IPPROTO_UDP, NULL, "192.0.2.7", port, NULL);
    lesson->text = NULL;
    size_t count;
    char *text = learn_document(lesson->learn, false, &count);

    for (const char *c = strstr(text, "allow udp"); c; c = strstr(c + 1, "allow udp"))
        lines++;
    free(text);
    assert_int_equal(lines, (29500 + 31) / 32);
    assert_int_equal(lines, count);
}

static void three_names_of_one_owner_become_a_wildcard_where_asked_for(void **state)
{
    struct lesson *lesson = *state;

    tcp(lesson, "a.example.com", 443);
    tcp(lesson, "b.example.com", 443);
    tcp(lesson, "c.example.com", 8443);
    tcp(lesson, "deep.down.example.com", 443); /* is taken in too */
    tcp(lesson, "example.com", 80);            /* and so is the parent */
    use(lesson, IPPROTO_UDP, "a.example.com", "93.184.216.34", 443, NULL);
    tcp(lesson, "a.example.net", 443);
    tcp(lesson, "b.example.net", 443);
    write_down(lesson, true);
    assert_string_equal(lesson->rules, "allow tcp to *.example.com port 80,443,8443\n"
                                       "allow udp to a.example.com port 443\n"
                                       "allow tcp to a.example.net port 443\n"
                                       "allow tcp to b.example.net port 443\n");
}

static void without_being_asked_there_are_no_wildcards(void **state)
{
    struct lesson *lesson = *state;

    tcp(lesson, "a.example.com", 443);
    tcp(lesson, "b.example.com", 443);
    tcp(lesson, "c.example.com", 443);
    write_down(lesson, false);
    assert_null(strchr(lesson->rules, '*'));
}

static void a_wildcard_never_spans_a_public_suffix_or_a_services_customers(void **state)
{
    struct lesson *lesson = *state;

    tcp(lesson, "one.com", 443);
    tcp(lesson, "two.com", 443);
    tcp(lesson, "three.com", 443);
    tcp(lesson, "one.co.uk", 443);
    tcp(lesson, "two.co.uk", 443);
    tcp(lesson, "three.co.uk", 443);
    tcp(lesson, "mine.github.io", 443);
    tcp(lesson, "yours.github.io", 443);
    tcp(lesson, "theirs.github.io", 443);
    write_down(lesson, true);
    assert_null(strchr(lesson->rules, '*'));
}

static void a_wildcard_takes_over_where_its_names_led(void **state)
{
    struct lesson *lesson = *state;

    use(lesson, IPPROTO_TCP, "a.corp.example", "10.0.0.1", 80, NULL);
    use(lesson, IPPROTO_TCP, "b.corp.example", "10.0.0.2", 80, NULL);
    use(lesson, IPPROTO_TCP, "c.corp.example", "93.184.216.34", 80, NULL);
    write_down(lesson, true);
    assert_true(strncmp(lesson->rules, "allow tcp to *.corp.example port 80 in 10.0.0.", 46) == 0);
    assert_non_null(strstr(lesson->rules, "10.0.0.1"));
    assert_non_null(strstr(lesson->rules, "10.0.0.2"));
}

static void what_was_refused_is_listed_and_allows_nothing(void **state)
{
    struct lesson *lesson = *state;
    json_t *refused;

    learn_refusal(lesson->learn, "allow tcp to host port 22", "tcp to 10.0.2.2 port 22");
    learn_refusal(lesson->learn, "allow tcp to host port 22", "tcp to 10.0.2.2 port 22");
    learn_refusal(lesson->learn, NULL, "tcp to 192.0.2.1 port 853");
    write_down(lesson, false);
    assert_string_equal(lesson->rules, "");
    refused = json_object_get(lesson->root, "refused");
    assert_int_equal(json_array_size(refused), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(refused, 0), "count")), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(refused, 0), "allow")),
                        "allow tcp to host port 22");
    assert_null(json_object_get(json_array_get(refused, 1), "allow"));
}

static void what_there_is_no_room_for_is_counted(void **state)
{
    struct lesson *lesson = *state;
    char text[64];

    for (unsigned i = 0; i < LEARN_TARGETS_MAX + 100; i++) {
        snprintf(text, sizeof text, "192.%u.%u.1", i / 250, i % 250);
        use(lesson, IPPROTO_TCP, NULL, text, 80, NULL);
    }
    for (unsigned i = 0; i < LEARN_REFUSALS_MAX + 10; i++) {
        snprintf(text, sizeof text, "tcp to 10.0.2.2 port %u", i);
        learn_refusal(lesson->learn, NULL, text);
    }
    assert_int_equal(counter_value(&lesson->counters, COUNTER_learn_full), 110);
}

static void thousands_of_names_are_written_in_no_time(void **state)
{
    struct lesson *lesson = *state;
    char text[64];
    size_t count;

    for (unsigned i = 0; i < LEARN_TARGETS_MAX; i++) {
        snprintf(text, sizeof text, "n%u.d%u.example.com", i, i / 3);
        tcp(lesson, text, 443);
    }
    lesson->text = learn_document(lesson->learn, true, &count);
    assert_non_null(lesson->text);
    assert_in_range(count, LEARN_TARGETS_MAX / 3, LEARN_TARGETS_MAX / 3 + 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_used_allows_nothing),
        TEST(each_name_and_protocol_is_one_rule_with_its_ports_merged),
        TEST(bare_addresses_come_last_and_say_what_name_was_seen),
        TEST(a_name_that_leads_inside_is_widened_to_where_it_led),
        TEST(lookups_need_a_rule_only_where_none_goes_by_name),
        TEST(single_labels_are_written_with_their_dot),
        TEST(many_ports_become_several_rules),
        TEST(three_names_of_one_owner_become_a_wildcard_where_asked_for),
        TEST(without_being_asked_there_are_no_wildcards),
        TEST(a_wildcard_never_spans_a_public_suffix_or_a_services_customers),
        TEST(a_wildcard_takes_over_where_its_names_led),
        TEST(what_was_refused_is_listed_and_allows_nothing),
        TEST(what_there_is_no_room_for_is_counted),
        TEST(thousands_of_names_are_written_in_no_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
