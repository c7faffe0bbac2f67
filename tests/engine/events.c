/* SPDX-License-Identifier: Apache-2.0 */
/* Events: what is folded, what is lost, and what they say. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/timers.h"
#include "engine/event_text.h"
#include "engine/events.h"

#define MS    MS_NS
#define SHARP (SECOND_NS + TIMERS_SLACK)

/* ---- a table of events and who is told ---- */

#define TOLD_MAX 4096

struct stage {
    struct timers *timers;
    struct counters counters;
    struct events *events;
    uint64_t now;
    struct event told[TOLD_MAX];
    uint64_t counts[TOLD_MAX];
    size_t told_count;
};

static void take(void *ctx, const struct event *event, uint64_t count)
{
    struct stage *stage = ctx;

    assert_true(stage->told_count < TOLD_MAX);
    stage->told[stage->told_count] = *event;
    stage->counts[stage->told_count++] = count;
}

static int setup(void **state)
{
    static const uint64_t key[2] = {3, 4};
    struct stage *stage = calloc(1, sizeof *stage);

    stage->now = SECOND_NS;
    stage->timers = timers_new(stage, stage->now);
    stage->events = events_new(stage->timers, &stage->counters, key, take, stage);
    assert_non_null(stage->events);
    *state = stage;
    return 0;
}

static int teardown(void **state)
{
    struct stage *stage = *state;

    assert_null(events_free(stage->events));
    timers_free(stage->timers);
    free(stage);
    return 0;
}

static void pass(struct stage *stage, uint64_t ns)
{
    stage->now += ns;
    timers_expire(stage->timers, stage->now);
}

static struct event denial(uint16_t port)
{
    struct event event = {
        .kind = CULVERT_EVENT_DENIED,
        .reason = COUNTER_policy_denied_default,
        .rule = UINT32_MAX,
        .generation = 1,
        .key = {.protocol = IPPROTO_TCP, .remote_port = port, .guest_port = 40000},
    };

    ip_address_parse("10.0.2.100", &event.key.guest);
    ip_address_parse("192.0.2.1", &event.key.remote);
    return event;
}

static void note(struct stage *stage, const struct event *event)
{
    events_note(stage->events, event, stage->now);
}

/* ---- folding ---- */

static void the_first_is_told_at_once_and_repeats_once_a_second_with_their_count(void **state)
{
    struct stage *stage = *state;
    struct event event = denial(80);

    note(stage, &event);
    assert_int_equal(stage->told_count, 1);
    assert_int_equal(stage->counts[0], 1);
    for (int i = 0; i < 5; i++) {
        event.key.guest_port++; /* it tries again from another port */
        note(stage, &event);
    }
    assert_int_equal(stage->told_count, 1);
    pass(stage, SHARP);
    assert_int_equal(stage->told_count, 2);
    assert_int_equal(stage->counts[1], 5);
    assert_int_equal(stage->told[1].key.guest_port, 40005);
}

static void nothing_is_armed_while_nothing_is_folded(void **state)
{
    struct stage *stage = *state;
    struct event event = denial(80);

    note(stage, &event);
    assert_int_equal(timers_next(stage->timers), TIMERS_NEVER);
    note(stage, &event);
    assert_int_not_equal(timers_next(stage->timers), TIMERS_NEVER);
    pass(stage, SHARP);
    assert_int_equal(stage->told_count, 2);
    assert_int_equal(timers_next(stage->timers), TIMERS_NEVER);
}

static void after_a_quiet_second_the_next_is_told_at_once_again(void **state)
{
    struct stage *stage = *state;
    struct event event = denial(80);

    note(stage, &event);
    pass(stage, SHARP);
    note(stage, &event);
    assert_int_equal(stage->told_count, 2);
    assert_int_equal(stage->counts[1], 1);
}

static void a_steady_flood_is_told_about_once_a_second(void **state)
{
    struct stage *stage = *state;
    struct event event = denial(80);
    uint64_t sum = 0;

    for (int i = 0; i < 10000; i++) {
        note(stage, &event);
        pass(stage, MS);
    }
    assert_in_range(stage->told_count, 5, 11);
    events_flush(stage->events, stage->now);
    for (size_t i = 0; i < stage->told_count; i++)
        sum += stage->counts[i];
    assert_int_equal(sum, 10000);
}

static void what_differs_in_kind_reason_destination_rule_or_name_is_told_apart(void **state)
{
    struct stage *stage = *state;
    struct event event = denial(80);

    note(stage, &event);
    event.kind = CULVERT_EVENT_DROPPED;
    note(stage, &event);
    event.reason = COUNTER_policy_denied_floor;
    note(stage, &event);
    event.key.remote_port = 81;
    note(stage, &event);
    event.key.remote.bytes[15]++;
    note(stage, &event);
    event.key.protocol = IPPROTO_UDP;
    note(stage, &event);
    event.rule = 3;
    note(stage, &event);
    event.generation = 2;
    note(stage, &event);
    assert_int_equal(dns_name_parse("a.example", &event.name), 0);
    note(stage, &event);
    assert_int_equal(stage->told_count, 9);
    assert_int_equal(dns_name_parse("A.example", &event.name), 0); /* the same name */
    note(stage, &event);
    assert_int_equal(stage->told_count, 9);
}

static void clients_of_a_published_port_are_told_apart_by_address_not_by_port(void **state)
{
    struct stage *stage = *state;
    struct event event = denial(5000);

    event.direction = POLICY_INGRESS;
    note(stage, &event);
    event.key.remote_port = 5001;
    note(stage, &event);
    assert_int_equal(stage->told_count, 1);
    event.key.guest_port = 81;
    note(stage, &event);
    assert_int_equal(stage->told_count, 2);
}

static void a_flood_of_different_ones_is_bounded_and_what_is_lost_is_told(void **state)
{
    struct stage *stage = *state;
    uint64_t sum = 0, lost = 0;

    for (uint16_t port = 1; port <= 3000; port++) {
        struct event event = denial(port);

        note(stage, &event);
    }
    assert_in_range(stage->told_count, 500, 1024);
    pass(stage, SHARP);
    for (size_t i = 0; i < stage->told_count; i++) {
        if (stage->told[i].kind == CULVERT_EVENT_LOST)
            lost += stage->counts[i];
        else
            sum += stage->counts[i];
    }
    assert_true(lost > 0);
    assert_int_equal(sum + lost, 3000);
    assert_int_equal(counter_value(&stage->counters, COUNTER_events_lost), lost);
}

static void a_flush_tells_what_was_only_counted(void **state)
{
    struct stage *stage = *state;
    struct event event = denial(80);

    note(stage, &event);
    note(stage, &event);
    note(stage, &event);
    events_flush(stage->events, stage->now);
    assert_int_equal(stage->told_count, 2);
    assert_int_equal(stage->counts[1], 2);
    assert_int_equal(timers_next(stage->timers), TIMERS_NEVER);
    events_flush(stage->events, stage->now);
    assert_int_equal(stage->told_count, 2);
}

/* ---- in words ---- */

struct words {
    struct policy *policy;
    struct policy_world world;
    struct event_texts texts;
    struct culvert_event told;
    json_t *json;
};

static int words_setup(void **state)
{
    struct words *words = calloc(1, sizeof *words);
    struct policy_builder *builder = policy_builder_new();
    char message[256];

    assert_int_equal(policy_builder_add(builder, "deny to 192.0.2.0/24 # no \"lab\"", "--rule",
                                        message, sizeof message),
                     0);
    assert_int_equal(policy_builder_add(builder, "allow tcp to b\303\274cher.example port 443\t",
                                        NULL, message, sizeof message),
                     0);
    words->policy = policy_build(builder, 1);
    policy_builder_free(builder);
    ip_address_parse("10.0.2.2", &words->world.gateway4);
    ip_address_parse("10.0.2.3", &words->world.dns4);
    *state = words;
    return 0;
}

static int words_teardown(void **state)
{
    struct words *words = *state;

    json_decref(words->json);
    policy_free(words->policy);
    free(words);
    return 0;
}

/* Also as JSON, which must be one line and valid. */
static const struct culvert_event *describe(struct words *words, const struct event *event)
{
    event_describe(event, 1, words->policy, &words->world, &words->texts, &words->told);
    char *line = event_json(&words->told);

    assert_non_null(line);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    json_decref(words->json);
    words->json = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(words->json);
    free(line);
    return &words->told;
}

static const char *key_of(const struct words *words, const char *key)
{
    return json_string_value(json_object_get(words->json, key));
}

static void a_denial_says_where_why_by_which_rule_and_what_would_allow_it(void **state)
{
    struct words *words = *state;
    struct event event = denial(443);

    event.rule = 0;
    event.reason = COUNTER_policy_denied_rule;
    event.time = UINT64_C(1700000000123456789);
    const struct culvert_event *told = describe(words, &event);

    assert_int_equal(told->size, sizeof *told);
    assert_int_equal(told->kind, CULVERT_EVENT_DENIED);
    assert_int_equal(told->direction, CULVERT_EVENT_EGRESS);
    assert_string_equal(told->remote_address, "192.0.2.1");
    assert_int_equal(told->remote_port, 443);
    assert_string_equal(told->reason, "policy_denied_rule");
    assert_string_equal(told->rule_text, "deny to 192.0.2.0/24 # no \"lab\"");
    assert_string_equal(told->rule_where, "--rule");
    assert_null(told->rule_id);
    assert_string_equal(told->remedy, "allow tcp to 192.0.2.1 port 443");
    assert_string_equal(key_of(words, "time"), "2023-11-14T22:13:20.123456Z");
    assert_string_equal(key_of(words, "event"), "denied");
    assert_string_equal(key_of(words, "protocol"), "tcp");
    assert_string_equal(key_of(words, "rule_text"), "deny to 192.0.2.0/24 # no \"lab\"");
    assert_string_equal(key_of(words, "allow"), "allow tcp to 192.0.2.1 port 443");
}

static void a_rule_of_another_generation_is_not_named(void **state)
{
    struct words *words = *state;
    struct event event = denial(443);

    event.rule = 0;
    event.generation = 7;
    assert_int_equal(describe(words, &event)->rule, UINT32_MAX);
    assert_null(key_of(words, "rule_text"));
}

static void international_rules_are_shown_as_written_and_control_characters_are_not(void **state)
{
    struct words *words = *state;
    struct event event = denial(443);

    event.rule = 1;
    assert_string_equal(describe(words, &event)->rule_text,
                        "allow tcp to b\\xc3\\xbccher.example port 443\\x09");
}

static void names_of_the_guest_are_escaped(void **state)
{
    static const uint8_t wild[] = "\x0a\"\\\n\x1b[31m\xff\0\x07"
                                  "example";
    struct words *words = *state;
    struct event event = {
        .kind = CULVERT_EVENT_DNS_DENIED,
        .reason = COUNTER_dns_denied,
        .rule = UINT32_MAX,
        .name_source = CULVERT_EVENT_NAME_QUESTION,
        .question_type = 1,
    };

    memcpy(event.name.bytes, wild, sizeof wild);
    event.name.bytes[11] = 7;
    event.name.len = sizeof wild;
    const struct culvert_event *told = describe(words, &event);

    for (const char *c = told->name; *c; c++)
        assert_in_range(*c, '!', '~');
    assert_non_null(strstr(told->name, "example"));
    assert_string_equal(key_of(words, "name"), told->name);
    assert_string_equal(key_of(words, "name_from"), "question");
    assert_null(told->remedy); /* no rule can say that */
}

static void random_names_never_break_the_json(void **state)
{
    struct words *words = *state;
    struct event event = {.kind = CULVERT_EVENT_DNS_DENIED,
                          .reason = COUNTER_dns_denied,
                          .rule = UINT32_MAX,
                          .name_source = CULVERT_EVENT_NAME_QUESTION};

    srand(1);
    for (int round = 0; round < 2000; round++) {
        uint8_t at = 0;

        while (at < 180) {
            uint8_t len = (uint8_t)(1 + rand() % 63);

            event.name.bytes[at++] = len;
            for (uint8_t i = 0; i < len; i++)
                event.name.bytes[at++] = (uint8_t)rand();
        }
        event.name.bytes[at++] = 0;
        event.name.len = at;
        describe(words, &event);
    }
}

static void remedy_is(struct words *words, const struct event *event, const char *expected)
{
    const struct culvert_event *told = describe(words, event);

    if (!expected) {
        assert_null(told->remedy);
        return;
    }
    assert_non_null(told->remedy);
    assert_string_equal(told->remedy, expected);
}

static void the_remedy_is_the_narrowest_rule(void **state)
{
    struct words *words = *state;
    struct event event = denial(443);

    assert_int_equal(dns_name_parse("www.example.com", &event.name), 0);
    event.name_source = CULVERT_EVENT_NAME_FLOW;
    ip_address_parse("93.184.216.34", &event.key.remote);
    remedy_is(words, &event, "allow tcp to 93.184.216.34 port 443");
    event.name_admits = true;
    remedy_is(words, &event, "allow tcp to www.example.com port 443");
    ip_address_parse("10.1.2.3", &event.key.remote);
    remedy_is(words, &event, "allow tcp to www.example.com port 443 in 10.1.2.3");
    ip_address_parse("169.254.169.254", &event.key.remote); /* the floor: no name leads there */
    remedy_is(words, &event, "allow tcp to 169.254.169.254 port 443");
    event.key.remote = words->world.gateway4;
    remedy_is(words, &event, "allow tcp to host port 443");
    event.key.remote = words->world.dns4;
    remedy_is(words, &event, "allow to dns");
    event.name_admits = false;
    event.key.protocol = IPPROTO_ICMP;
    ip_address_parse("2001:db8::1", &event.key.remote);
    remedy_is(words, &event, "allow icmp to 2001:db8::1");
    event.key.protocol = IPPROTO_UDP;
    event.direction = POLICY_INGRESS;
    event.key.guest_port = 53;
    remedy_is(words, &event, "allow udp from 2001:db8::1 port 53");
    event = denial(853);
    event.reason = COUNTER_policy_denied_dns_tls;
    remedy_is(words, &event, NULL);
}

static void a_lookups_remedy_names_the_name(void **state)
{
    struct words *words = *state;
    struct event event = {.kind = CULVERT_EVENT_DNS_DENIED,
                          .reason = COUNTER_dns_denied,
                          .rule = UINT32_MAX,
                          .name_source = CULVERT_EVENT_NAME_QUESTION};

    assert_int_equal(dns_name_parse("www.example.com", &event.name), 0);
    remedy_is(words, &event, "allow tcp to www.example.com port 443");
    assert_int_equal(dns_name_parse("intranet", &event.name), 0);
    remedy_is(words, &event, "allow tcp to intranet. port 443");
    assert_int_equal(dns_name_parse("*.example.com", &event.name), 0);
    remedy_is(words, &event, NULL);
    assert_int_equal(dns_name_parse("git.example.com", &event.name), 0);
    event.kind = CULVERT_EVENT_DNS_REMOVED;
    event.reason = COUNTER_dns_rebinding;
    ip_address_parse("10.0.0.1", &event.key.remote);
    remedy_is(words, &event, "allow tcp to git.example.com port 443 in 10.0.0.1");
    assert_string_equal(key_of(words, "remote"), "10.0.0.1");
    ip_address_parse("127.0.0.1", &event.key.remote);
    remedy_is(words, &event, NULL);
}

static void every_kind_has_a_name(void **state)
{
    (void)state;
    for (int kind = CULVERT_EVENT_DENIED; kind <= CULVERT_EVENT_LOST; kind++)
        assert_non_null(culvert_event_kind_name((enum culvert_event_kind)kind));
    assert_null(culvert_event_kind_name((enum culvert_event_kind)0));
    assert_null(culvert_event_kind_name((enum culvert_event_kind)(CULVERT_EVENT_LOST + 1)));
    assert_null(culvert_event_kind_name((enum culvert_event_kind) - 1));
}

#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)
#define WORDS(name) cmocka_unit_test_setup_teardown(name, words_setup, words_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_first_is_told_at_once_and_repeats_once_a_second_with_their_count),
        TEST(nothing_is_armed_while_nothing_is_folded),
        TEST(after_a_quiet_second_the_next_is_told_at_once_again),
        TEST(a_steady_flood_is_told_about_once_a_second),
        TEST(what_differs_in_kind_reason_destination_rule_or_name_is_told_apart),
        TEST(clients_of_a_published_port_are_told_apart_by_address_not_by_port),
        TEST(a_flood_of_different_ones_is_bounded_and_what_is_lost_is_told),
        TEST(a_flush_tells_what_was_only_counted),
        WORDS(a_denial_says_where_why_by_which_rule_and_what_would_allow_it),
        WORDS(a_rule_of_another_generation_is_not_named),
        WORDS(international_rules_are_shown_as_written_and_control_characters_are_not),
        WORDS(names_of_the_guest_are_escaped),
        WORDS(random_names_never_break_the_json),
        WORDS(the_remedy_is_the_narrowest_rule),
        WORDS(a_lookups_remedy_names_the_name),
        cmocka_unit_test(every_kind_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
