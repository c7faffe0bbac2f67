/* SPDX-License-Identifier: Apache-2.0 */
/* The lines about what was refused. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/summary.h"

static int setup(void **state)
{
    *state = summary_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    assert_null(summary_free(*state));
    return 0;
}

static struct culvert_event denial(const char *address, uint16_t port, const char *remedy)
{
    return (struct culvert_event){
        .size = sizeof(struct culvert_event),
        .kind = CULVERT_EVENT_DENIED,
        .direction = CULVERT_EVENT_EGRESS,
        .count = 1,
        .protocol = IPPROTO_TCP,
        .remote_address = address,
        .remote_port = port,
        .reason = "policy_denied_default",
        .rule = UINT32_MAX,
        .remedy = remedy,
    };
}

static void text_is(struct summary *summary, const char *expected)
{
    char *text = summary_text(summary);

    assert_string_equal(text, expected);
    free(text);
}

static void nothing_refused_is_nothing_said(void **state)
{
    struct culvert_event event = denial("192.0.2.1", 80, NULL);

    text_is(*state, "");
    event.kind = CULVERT_EVENT_POLICY_REPLACED;
    summary_note(*state, &event);
    event.kind = CULVERT_EVENT_DNS_DENIED;
    event.reason = "dns_private_address";
    summary_note(*state, &event);
    text_is(*state, "");
}

static void the_most_frequent_comes_first_with_the_rule_that_would_allow_it(void **state)
{
    struct culvert_event event = denial("192.0.2.1", 80, "allow tcp to 192.0.2.1 port 80");

    summary_note(*state, &event);
    event = denial("10.0.2.2", 22, "allow tcp to host port 22");
    event.count = 41;
    summary_note(*state, &event);
    event.count = 1;
    summary_note(*state, &event);
    text_is(*state, "culvert: denied, and what would allow it:\n"
                    "culvert:      42  tcp to 10.0.2.2 port 22                     "
                    "--rule 'allow tcp to host port 22'\n"
                    "culvert:       1  tcp to 192.0.2.1 port 80                    "
                    "--rule 'allow tcp to 192.0.2.1 port 80'\n");
}

static void what_one_rule_would_allow_is_one_line(void **state)
{
    struct culvert_event event = denial("192.0.2.1", 443, "allow tcp to a.example port 443");

    event.name = "a.example";
    summary_note(*state, &event);
    event.remote_address = "2001:db8::1";
    summary_note(*state, &event);
    event.kind = CULVERT_EVENT_DNS_DENIED;
    event.protocol = 0;
    event.remote_address = NULL;
    event.reason = "dns_denied";
    summary_note(*state, &event);
    text_is(*state, "culvert: denied, and what would allow it:\n"
                    "culvert:       3  tcp to 192.0.2.1 port 443 (a.example)       "
                    "--rule 'allow tcp to a.example port 443'\n");
}

static void ten_lines_are_shown_and_the_number_of_others(void **state)
{
    char remedy[64], *text;
    unsigned lines = 0;

    for (uint16_t port = 1; port <= 1000; port++) {
        snprintf(remedy, sizeof remedy, "allow tcp to 192.0.2.1 port %u", port);
        struct culvert_event event = denial("192.0.2.1", port, remedy);

        summary_note(*state, &event);
    }
    struct culvert_event lost = {.kind = CULVERT_EVENT_LOST, .count = 7};
    summary_note(*state, &lost);
    text = summary_text(*state);
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, 1 + 10 + 1 + 1);
    assert_non_null(strstr(text, "culvert: and 246 more; "));
    assert_non_null(strstr(text, "culvert: 751 further refusals "));
    free(text);
}

static void a_rule_that_refuses_is_named_since_the_other_must_come_before_it(void **state)
{
    struct culvert_event event = denial("192.0.2.1", 80, "allow tcp to 192.0.2.1 port 80");

    event.reason = "policy_denied_rule";
    event.rule_text = "deny to any";
    summary_note(*state, &event);
    text_is(*state, "culvert: denied, and what would allow it:\n"
                    "culvert:       1  tcp to 192.0.2.1 port 80                    "
                    "--rule 'allow tcp to 192.0.2.1 port 80' before 'deny to any'\n");
}

static void what_audit_let_through_is_told_apart(void **state)
{
    struct culvert_event event = denial("192.0.2.1", 80, "allow tcp to 192.0.2.1 port 80");

    event.kind = CULVERT_EVENT_WOULD_DENY;
    summary_note(*state, &event);
    event = denial("192.0.2.1", 853, NULL);
    summary_note(*state, &event);
    text_is(*state,
            "culvert: denied, and what would allow it:\n"
            "culvert:       1  tcp to 192.0.2.1 port 853                   no rule can\n"
            "culvert: let through by --audit; without it this would have been denied, and what "
            "would allow it:\n"
            "culvert:       1  tcp to 192.0.2.1 port 80                    "
            "--rule 'allow tcp to 192.0.2.1 port 80'\n");
}

static void long_names_are_cut(void **state)
{
    struct culvert_event event = denial("2001:db8:1111:2222:3333:4444:5555:6666", 65535, NULL);
    char name[1000], *text;

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    event.name = name;
    summary_note(*state, &event);
    event.kind = CULVERT_EVENT_DNS_DENIED;
    event.reason = "dns_denied";
    event.protocol = 0;
    summary_note(*state, &event);
    event.remote_address = NULL;
    summary_note(*state, &event);
    text = summary_text(*state);
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));)
        assert_true(strlen(line) < 120);
    free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_refused_is_nothing_said),
        TEST(the_most_frequent_comes_first_with_the_rule_that_would_allow_it),
        TEST(what_one_rule_would_allow_is_one_line),
        TEST(ten_lines_are_shown_and_the_number_of_others),
        TEST(a_rule_that_refuses_is_named_since_the_other_must_come_before_it),
        TEST(what_audit_let_through_is_told_apart),
        TEST(long_names_are_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
