/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/services.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct fixture {
    struct service_builder builder;
    struct service_pool pool;
    struct service_table table;
};

static int setup(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){0};
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    service_builder_clear(&f->builder);
    service_pool_clear(&f->pool);
    return 0;
}

static void add(struct fixture *f, uint32_t number, unsigned protocols, uint16_t low, uint16_t high)
{
    struct rule_ports ports = {low, high};
    struct rule rule = {.protocols = protocols, .ports = &ports, .port_count = low ? 1 : 0};
    assert_int_equal(service_builder_add(&f->builder, &rule, number), 0);
}

static void finish(struct fixture *f)
{
    assert_int_equal(service_builder_finish(&f->builder, &f->pool, &f->table), 0);
}

static uint32_t first(struct fixture *f, enum policy_protocol protocol, uint16_t port)
{
    return service_table_first(&f->pool, &f->table, service_number(protocol, port), NO_RULE);
}

static void an_empty_table_has_no_rule(void **state)
{
    struct fixture *f = *state;
    finish(f);
    assert_int_equal(first(f, POLICY_TCP, 0), NO_RULE);
    assert_int_equal(first(f, POLICY_ICMP, 0), NO_RULE);
}

static void a_rule_for_every_service_is_one_span(void **state)
{
    struct fixture *f = *state;
    add(f, 3, POLICY_TCP | POLICY_UDP | POLICY_ICMP, 0, 0);
    finish(f);
    assert_int_equal(f->table.count, 1);
    assert_int_equal(first(f, POLICY_TCP, 1), 3);
    assert_int_equal(first(f, POLICY_UDP, 65535), 3);
    assert_int_equal(first(f, POLICY_ICMP, 0), 3);
}

static void a_range_ends_at_its_ends(void **state)
{
    struct fixture *f = *state;
    add(f, 0, POLICY_TCP, 80, 90);
    add(f, 1, POLICY_UDP, 65535, 65535);
    finish(f);
    assert_int_equal(first(f, POLICY_TCP, 79), NO_RULE);
    assert_int_equal(first(f, POLICY_TCP, 80), 0);
    assert_int_equal(first(f, POLICY_TCP, 90), 0);
    assert_int_equal(first(f, POLICY_TCP, 91), NO_RULE);
    assert_int_equal(first(f, POLICY_UDP, 65534), NO_RULE);
    assert_int_equal(first(f, POLICY_UDP, 65535), 1);
    assert_int_equal(first(f, POLICY_ICMP, 0), NO_RULE);
}

static void where_ranges_overlap_the_first_rule_stands(void **state)
{
    struct fixture *f = *state;
    add(f, 1, POLICY_TCP, 100, 200);
    add(f, 2, POLICY_TCP, 50, 150);
    add(f, 3, POLICY_TCP, 0, 0);
    finish(f);
    assert_int_equal(first(f, POLICY_TCP, 49), 3);
    assert_int_equal(first(f, POLICY_TCP, 50), 2);
    assert_int_equal(first(f, POLICY_TCP, 99), 2);
    assert_int_equal(first(f, POLICY_TCP, 100), 1);
    assert_int_equal(first(f, POLICY_TCP, 150), 1);
    assert_int_equal(first(f, POLICY_TCP, 200), 1);
    assert_int_equal(first(f, POLICY_TCP, 201), 3);
}

static void a_better_rule_found_elsewhere_is_kept(void **state)
{
    struct fixture *f = *state;
    add(f, 5, POLICY_TCP, 0, 0);
    finish(f);
    uint32_t service = service_number(POLICY_TCP, 80);
    assert_int_equal(service_table_first(&f->pool, &f->table, service, 4), 4);
    assert_int_equal(service_table_first(&f->pool, &f->table, service, 6), 5);
}

static void many_random_ranges_agree_with_a_linear_search(void **state)
{
    struct fixture *f = *state;
    enum { RULES = 200 };
    uint16_t low[RULES], high[RULES];
    uint32_t seed = 1;
    for (uint32_t i = 0; i < RULES; i++) {
        seed = seed * 1664525 + 1013904223;
        low[i] = (uint16_t)(1 + (seed >> 8) % 2000);
        high[i] = (uint16_t)(low[i] + (seed >> 20) % 40);
        add(f, i, POLICY_UDP, low[i], high[i]);
    }
    finish(f);
    for (uint16_t port = 1; port < 2100; port++) {
        uint32_t expected = 0;
        while (expected < RULES && !(low[expected] <= port && port <= high[expected]))
            expected++;
        assert_int_equal(first(f, POLICY_UDP, port), expected < RULES ? expected : NO_RULE);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_table_has_no_rule),
        TEST(a_rule_for_every_service_is_one_span),
        TEST(a_range_ends_at_its_ends),
        TEST(where_ranges_overlap_the_first_rule_stands),
        TEST(a_better_rule_found_elsewhere_is_kept),
        TEST(many_random_ranges_agree_with_a_linear_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
