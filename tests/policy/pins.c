/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/pins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)
#define HOUR   (3600 * SECOND)
#define START  (1000 * HOUR)

static const uint64_t KEY[2] = {11, 22};

static struct dns_name name_of(const char *text)
{
    struct dns_name name;
    assert_int_equal(dns_name_parse(text, &name), 0);
    return name;
}

static struct ip_address address_of(const char *text)
{
    struct ip_address address;
    assert_true(ip_address_parse(text, &address));
    return address;
}

static void learn(struct pins *pins, const char *name, const char *address, enum pin_role role,
                  uint32_t ttl, uint64_t now)
{
    struct dns_name n = name_of(name);
    struct ip_address a = address_of(address);
    assert_int_equal(pins_learn(pins, &n, &a, role, ttl, now), 0);
}

static const struct pin *find(const struct pins *pins, const char *name, const char *address,
                              uint64_t now)
{
    struct dns_name n = name_of(name);
    struct ip_address a = address_of(address);
    return pins_find(pins, &n, &a, now);
}

/* "b.test a.test", newest first. */
static const char *names_at(const struct pins *pins, const char *address, uint64_t now, char *text,
                            size_t size)
{
    struct ip_address a = address_of(address);
    size_t used = 0;
    text[0] = '\0';
    for (const struct pin *pin = pins_first(pins, &a, now); pin; pin = pins_next(pin, now)) {
        struct dns_name name;
        char shown[DNS_TEXT_MAX];
        pin_name(pin, &name);
        assert_true(ip_address_equal(pin_address(pin), &a));
        used += (size_t)snprintf(text + used, used < size ? size - used : 0, "%s%s",
                                 used ? " " : "", dns_name_format(&name, shown));
    }
    return text;
}

static void a_pin_is_found_by_name_and_address_in_any_case(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    char text[200];
    (void)state;
    learn(pins, "WWW.Example.com", "1.1.1.1", PIN_QUERIED, 300, START);
    assert_non_null(find(pins, "www.example.COM", "1.1.1.1", START));
    assert_null(find(pins, "example.com", "1.1.1.1", START));
    assert_null(find(pins, "www.example.com", "1.1.1.2", START));
    assert_null(find(pins, "www.example.com", "2a00::1", START));
    assert_string_equal(names_at(pins, "1.1.1.1", START, text, sizeof text), "www.example.com");
    assert_string_equal(names_at(pins, "1.1.1.2", START, text, sizeof text), "");
    pins_free(pins);
}

static void pins_are_additive(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    char text[200];
    (void)state;
    learn(pins, "a.test", "1.1.1.1", PIN_QUERIED, 300, START);
    learn(pins, "a.test", "1.1.1.2", PIN_QUERIED, 300, START + SECOND);
    learn(pins, "b.test", "1.1.1.1", PIN_QUERIED, 300, START + SECOND);
    learn(pins, "a.test", "2a00::1", PIN_QUERIED, 300, START + SECOND);
    assert_non_null(find(pins, "a.test", "1.1.1.1", START + 2 * SECOND));
    assert_non_null(find(pins, "a.test", "1.1.1.2", START + 2 * SECOND));
    assert_non_null(find(pins, "a.test", "2a00::1", START + 2 * SECOND));
    assert_string_equal(names_at(pins, "1.1.1.1", START, text, sizeof text), "b.test a.test");
    assert_int_equal(pins_figures(pins).entries, 4);
    learn(pins, "a.test", "1.1.1.1", PIN_QUERIED, 300, START + 3 * SECOND);
    assert_int_equal(pins_figures(pins).entries, 4);
    assert_string_equal(names_at(pins, "1.1.1.1", START, text, sizeof text), "a.test b.test");
    pins_free(pins);
}

static void a_ttl_is_held_between_a_minute_and_a_day_and_an_hour_is_added(void **state)
{
    static const struct {
        uint32_t ttl, seconds;
    } rows[] = {{0, 60},    {1, 60},        {60, 60},       {61, 61},
                {300, 300}, {86400, 86400}, {86401, 86400}, {UINT32_MAX, 86400}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pins *pins = pins_new(NULL, KEY);
        uint64_t end = START + rows[i].seconds * SECOND + HOUR;
        learn(pins, "a.test", "1.1.1.1", PIN_QUERIED, rows[i].ttl, START);
        assert_non_null(find(pins, "a.test", "1.1.1.1", end - 1));
        assert_null(find(pins, "a.test", "1.1.1.1", end));
        pins_free(pins);
    }
}

static void a_shorter_ttl_learnt_later_takes_nothing_away(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    (void)state;
    learn(pins, "a.test", "1.1.1.1", PIN_QUERIED, 86400, START);
    learn(pins, "a.test", "1.1.1.1", PIN_QUERIED, 60, START);
    assert_non_null(find(pins, "a.test", "1.1.1.1", START + 24 * HOUR));
    pins_free(pins);
}

static void a_pin_in_use_lives_on(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    struct dns_name a = name_of("a.test");
    struct ip_address one = address_of("1.1.1.1");
    uint64_t now = START;
    (void)state;
    learn(pins, "a.test", "1.1.1.1", PIN_QUERIED, 60, START);
    for (unsigned i = 0; i < 100; i++) {
        now += HOUR - SECOND;
        assert_non_null(find(pins, "a.test", "1.1.1.1", now));
        pins_use(pins, &a, &one, now);
    }
    assert_int_equal(pin_role(find(pins, "a.test", "1.1.1.1", now), now), PIN_QUERIED);
    now += HOUR;
    assert_null(find(pins, "a.test", "1.1.1.1", now));
    pins_use(pins, &a, &one, now); /* too late */
    assert_null(find(pins, "a.test", "1.1.1.1", now));
    pins_free(pins);
}

static void a_role_lasts_as_long_as_it_was_learnt_for(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    uint64_t later = START + 2 * HOUR;
    (void)state;
    learn(pins, "a.test", "1.1.1.1", PIN_CHAIN, 60, START);
    assert_int_equal(pin_role(find(pins, "a.test", "1.1.1.1", START), START), PIN_CHAIN);
    learn(pins, "a.test", "1.1.1.1", PIN_QUERIED, 60, START);
    assert_int_equal(pin_role(find(pins, "a.test", "1.1.1.1", START), START), PIN_QUERIED);
    learn(pins, "a.test", "1.1.1.1", PIN_CHAIN, 86400, START);
    assert_int_equal(pin_role(find(pins, "a.test", "1.1.1.1", START), START), PIN_QUERIED);
    assert_int_equal(pin_role(find(pins, "a.test", "1.1.1.1", later), later), PIN_CHAIN);
    pins_free(pins);
}

static void the_oldest_pin_goes_when_there_are_too_many(void **state)
{
    struct pins_limits limits = {.entries = 4};
    struct pins *pins = pins_new(&limits, KEY);
    struct dns_name a = name_of("a.test");
    struct ip_address one = address_of("1.1.1.1");
    (void)state;
    learn(pins, "a.test", "1.1.1.1", PIN_QUERIED, 300, START);
    learn(pins, "b.test", "1.1.1.2", PIN_QUERIED, 300, START);
    learn(pins, "c.test", "1.1.1.3", PIN_QUERIED, 300, START);
    learn(pins, "d.test", "1.1.1.4", PIN_QUERIED, 300, START);
    pins_use(pins, &a, &one, START);
    learn(pins, "e.test", "1.1.1.5", PIN_QUERIED, 300, START);
    assert_non_null(find(pins, "a.test", "1.1.1.1", START));
    assert_null(find(pins, "b.test", "1.1.1.2", START));
    assert_non_null(find(pins, "e.test", "1.1.1.5", START));
    assert_int_equal(pins_figures(pins).entries, 4);
    assert_int_equal(pins_figures(pins).evicted, 1);
    pins_free(pins);
}

static void the_bytes_are_bounded_too(void **state)
{
    struct pins_limits limits = {.bytes = 4096};
    struct pins *pins = pins_new(&limits, KEY);
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        char name[64], address[32];
        snprintf(name, sizeof name, "n%u.a-rather-long-name-of-a-host.test", i);
        snprintf(address, sizeof address, "1.1.%u.%u", i / 256, i % 256);
        learn(pins, name, address, PIN_QUERIED, 300, START);
        assert_true(pins_figures(pins).bytes <= 4096);
        assert_non_null(find(pins, name, address, START));
    }
    assert_true(pins_figures(pins).entries > 5);
    pins_free(pins);
}

static void one_address_bears_a_bounded_number_of_names(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    struct ip_address one = address_of("1.1.1.1");
    size_t count = 0;
    (void)state;
    for (unsigned i = 0; i < PINS_PER_ADDRESS + 50; i++) {
        char name[32];
        snprintf(name, sizeof name, "n%u.test", i);
        learn(pins, name, "1.1.1.1", PIN_QUERIED, 300, START);
    }
    for (const struct pin *pin = pins_first(pins, &one, START); pin; pin = pins_next(pin, START))
        count++;
    assert_int_equal(count, PINS_PER_ADDRESS);
    assert_null(find(pins, "n49.test", "1.1.1.1", START));
    assert_non_null(find(pins, "n50.test", "1.1.1.1", START));
    pins_free(pins);
}

static void expired_pins_are_swept_and_their_room_given_back(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        char name[32], address[32];
        snprintf(name, sizeof name, "n%u.test", i);
        snprintf(address, sizeof address, "1.1.%u.%u", i / 256, i % 256);
        learn(pins, name, address, PIN_QUERIED, 60, START);
    }
    for (unsigned i = 0; i < 300; i++)
        learn(pins, "z.test", "2.2.2.2", PIN_QUERIED, 60, START + 2 * HOUR);
    assert_int_equal(pins_figures(pins).entries, 1);
    assert_int_equal(pins_figures(pins).expired, 1000);
    assert_true(pins_figures(pins).bytes < 1000);
    pins_free(pins);
}

static void names_with_odd_bytes_are_told_apart(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    (void)state;
    learn(pins, "a\\.b.test", "1.1.1.1", PIN_QUERIED, 300, START);
    assert_null(find(pins, "a.b.test", "1.1.1.1", START));
    assert_non_null(find(pins, "A\\.b.test", "1.1.1.1", START));
    learn(pins, ".", "1.1.1.1", PIN_QUERIED, 300, START);
    assert_non_null(find(pins, ".", "1.1.1.1", START));
    pins_free(pins);
}

/* Many pins of all kinds against a plain table. */
static void a_random_history_agrees_with_a_plain_table(void **state)
{
    struct pins *pins = pins_new(NULL, KEY);
    uint64_t ends[20][20] = {{0}}, now = START, seed = 42;
    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1;
        unsigned n = (unsigned)(seed >> 33) % 20, a = (unsigned)(seed >> 40) % 20;
        uint32_t ttl = (uint32_t)(seed >> 45) % 7200;
        char name[32], address[32];
        snprintf(name, sizeof name, "n%u.test", n);
        snprintf(address, sizeof address, "1.1.1.%u", a);
        now += (seed >> 60) * 60 * SECOND;
        if ((seed >> 57) % 4 == 0) {
            uint64_t end = now + (ttl < 60 ? 60 : ttl) * SECOND + HOUR;
            learn(pins, name, address, PIN_QUERIED, ttl, now);
            ends[n][a] = end > ends[n][a] ? end : ends[n][a];
        } else {
            assert_int_equal(find(pins, name, address, now) != NULL, ends[n][a] > now);
        }
    }
    pins_free(pins);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pin_is_found_by_name_and_address_in_any_case),
        cmocka_unit_test(pins_are_additive),
        cmocka_unit_test(a_ttl_is_held_between_a_minute_and_a_day_and_an_hour_is_added),
        cmocka_unit_test(a_shorter_ttl_learnt_later_takes_nothing_away),
        cmocka_unit_test(a_pin_in_use_lives_on),
        cmocka_unit_test(a_role_lasts_as_long_as_it_was_learnt_for),
        cmocka_unit_test(the_oldest_pin_goes_when_there_are_too_many),
        cmocka_unit_test(the_bytes_are_bounded_too),
        cmocka_unit_test(one_address_bears_a_bounded_number_of_names),
        cmocka_unit_test(expired_pins_are_swept_and_their_room_given_back),
        cmocka_unit_test(names_with_odd_bytes_are_told_apart),
        cmocka_unit_test(a_random_history_agrees_with_a_plain_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
