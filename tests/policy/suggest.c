/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const char *const WORDS[] = {"allow",   "deny",       "drop", "public",
                                    "private", "link-local", "to"};

static const char *suggested(const char *typed)
{
    return suggest_word(typed, WORDS, sizeof WORDS / sizeof WORDS[0]);
}

static void a_slip_of_the_finger_finds_its_word(void **state)
{
    (void)state;
    assert_string_equal(suggested("alow"), "allow");
    assert_string_equal(suggested("allwo"), "allow");
    assert_string_equal(suggested("dney"), "deny");
    assert_string_equal(suggested("pubilc"), "public");
    assert_string_equal(suggested("PUBLC"), "public");
    assert_string_equal(suggested("linklocal"), "link-local");
    assert_string_equal(suggested("ot"), "to");
}

static void the_nearest_of_two_wins(void **state)
{
    (void)state;
    assert_string_equal(suggested("drp"), "drop");
    assert_string_equal(suggested("privat"), "private");
}

static void nothing_near_is_nothing(void **state)
{
    (void)state;
    assert_null(suggested(""));
    assert_null(suggested("x"));
    assert_null(suggested("banana"));
    assert_null(suggested("xyz"));
    assert_null(suggested("averyveryverylongwordindeed"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slip_of_the_finger_finds_its_word),
        cmocka_unit_test(the_nearest_of_two_wins),
        cmocka_unit_test(nothing_near_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
