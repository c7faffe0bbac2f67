/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "cli/options.h"
#include "engine/config.h"

static int setup(void **state)
{
    *state = culvert_config_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    culvert_config_free(*state);
    return 0;
}

#define parse(config, error, ...)                                                                  \
    parse_words((config), (error), (const char *const[]){__VA_ARGS__, NULL})

static int parse_words(struct culvert_config *config, struct culvert_error *error,
                       const char *const *words)
{
    int count = 0;

    while (words[count])
        count++;
    return options_parse(count, words, CONFIG_RUN, config, error);
}

static void assert_refused(void **state, const char *message, const char *const *words)
{
    struct culvert_error error = {""};

    assert_int_equal(parse_words(*state, &error, words), -EINVAL);
    assert_string_equal(error.message, message);
}

static void values_stand_in_the_next_word_or_behind_an_equals_sign(void **state)
{
    struct culvert_config *config = *state;
    struct culvert_error error;

    assert_int_equal(parse(config, &error, "--mtu", "9000", "true"), 2);
    assert_int_equal(config->mtu, 9000);
    assert_int_equal(parse(config, &error, "--mtu=1400", "true"), 1);
    assert_int_equal(config->mtu, 1400);
}

static void options_end_at_two_dashes_or_at_the_first_other_word(void **state)
{
    struct culvert_config *config = *state;
    struct culvert_error error;

    assert_int_equal(parse(config, &error, "--", "--mtu"), 1);
    assert_int_equal(parse(config, &error, "ls", "--mtu"), 0);
    assert_int_equal(parse(config, &error, "-", "--mtu"), 0);
    assert_int_equal(config->mtu, 1500);
}

static void switches_stand_alone_or_take_on_and_off(void **state)
{
    struct culvert_config *config = *state;
    struct culvert_error error;

    assert_int_equal(parse(config, &error, "-v", "ls"), 1);
    assert_true(config->verbose);
    assert_int_equal(parse(config, &error, "--verbose=off", "ls"), 1);
    assert_false(config->verbose);
    assert_int_equal(parse(config, &error, "--verbose", "ls"), 1);
    assert_true(config->verbose);
    assert_refused(state, "--verbose maybe: must be on or off",
                   (const char *const[]){"--verbose=maybe", NULL});
}

static void help_is_reported_wherever_it_stands(void **state)
{
    struct culvert_error error;

    assert_int_equal(parse(*state, &error, "--mtu", "1400", "--help"), OPTIONS_HELP);
    assert_int_equal(parse(*state, &error, "-h"), OPTIONS_HELP);
}

static void a_missing_value_is_named_with_its_form(void **state)
{
    assert_refused(state, "--mtu: the value is missing; write --mtu N",
                   (const char *const[]){"--mtu", NULL});
}

static void a_mistyped_option_is_answered_by_the_nearest_one(void **state)
{
    assert_refused(state, "--mut: no such option; did you mean --mtu?",
                   (const char *const[]){"--mut", "1", NULL});
    assert_refused(state, "--hostnmae: no such option; did you mean --hostname?",
                   (const char *const[]){"--hostnmae=x", NULL});
    assert_refused(state, "--colour: no such option; culvert --help lists them",
                   (const char *const[]){"--colour", NULL});
    assert_refused(state, "-x: no such option; culvert --help lists them",
                   (const char *const[]){"-x", NULL});
}

static void an_overlong_option_is_refused_whole(void **state)
{
    char word[4096] = "--";
    struct culvert_error error;

    memset(word + 2, 'm', sizeof word - 3);
    word[sizeof word - 1] = '\0';
    assert_int_equal(parse(*state, &error, word), -EINVAL);
}

static void a_bad_value_is_reported_with_option_fault_and_mend(void **state)
{
    assert_refused(state, "--mtu 100: not a number of bytes from 576 to 65520; the default is 1500",
                   (const char *const[]){"--mtu", "100", NULL});
}

static void what_is_not_there_yet_says_so(void **state)
{
    static const char *const names[] = {"control", "capture", "tls-intercept", "rate-up"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char word[64], message[128];

        snprintf(word, sizeof word, "--%s", names[i]);
        snprintf(message, sizeof message, "--%s: not available yet; leave it out", names[i]);
        assert_refused(state, message, (const char *const[]){word, "x", NULL});
        assert_refused(state, message, (const char *const[]){word, NULL});
    }
}

static void ports_are_published_by_a_letter_too(void **state)
{
    static const char *const words[] = {"-p", "8080:80", "-p[::1]:53:53/udp", "--publish=1:1"};
    struct culvert_config *config = *state;
    struct culvert_error error;

    assert_int_equal(options_parse(4, words, CONFIG_RUN, config, &error), 4);
    assert_int_equal(config->publish_count, 3);
    assert_int_equal(config->publish[1].protocol, IPPROTO_UDP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(values_stand_in_the_next_word_or_behind_an_equals_sign),
        TEST(options_end_at_two_dashes_or_at_the_first_other_word),
        TEST(switches_stand_alone_or_take_on_and_off),
        TEST(help_is_reported_wherever_it_stands),
        TEST(a_missing_value_is_named_with_its_form),
        TEST(a_mistyped_option_is_answered_by_the_nearest_one),
        TEST(an_overlong_option_is_refused_whole),
        TEST(a_bad_value_is_reported_with_option_fault_and_mend),
        TEST(what_is_not_there_yet_says_so),
        TEST(ports_are_published_by_a_letter_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
