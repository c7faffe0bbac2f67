/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "host/resolv_conf.h"

static const char *const servers[] = {"10.0.2.3", "fd00::3", NULL};

static void check_resolv_conf(const char *host, const char *expected)
{
    char *text = resolv_conf_text(host, servers);

    assert_string_equal(text, expected);
    free(text);
}

#define SERVERS "nameserver 10.0.2.3\nnameserver fd00::3\n"

static void our_nameservers_stand_in_place_of_the_hosts(void **state)
{
    (void)state;
    check_resolv_conf(NULL, SERVERS);
    check_resolv_conf("", SERVERS);
    check_resolv_conf("nameserver 127.0.0.53\n# search not.this\n", SERVERS);
}

static void search_lists_and_options_are_the_hosts(void **state)
{
    (void)state;
    check_resolv_conf("nameserver 1.1.1.1\nsearch corp.example example.org\noptions ndots:2\n",
                      SERVERS "search corp.example example.org\noptions ndots:2\n");
    check_resolv_conf("searching for\ndomain\tx.example", SERVERS "domain\tx.example\n");
}

static void hosts_has_the_entries_it_is_given(void **state)
{
    static const struct names_entry entries[] = {{"10.0.2.2", "host.culvert.internal"},
                                                 {"::1", "localhost"}};
    char *text = hosts_text(entries, 2);

    (void)state;
    assert_string_equal(text, "10.0.2.2 host.culvert.internal\n::1 localhost\n");
    free(text);
}

static void a_file_is_read_whole_or_not_at_all(void **state)
{
    char *text = text_file_read("/proc/self/maps"); /* more than a page, size unknown */

    (void)state;
    assert_non_null(text);
    free(text);
    assert_null(text_file_read("/nonexistent/file"));
    assert_int_equal(errno, ENOENT);
    assert_null(text_file_read("/dev/zero"));
    assert_int_equal(errno, EFBIG);
    assert_null(text_file_read("/"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_nameservers_stand_in_place_of_the_hosts),
        cmocka_unit_test(search_lists_and_options_are_the_hosts),
        cmocka_unit_test(hosts_has_the_entries_it_is_given),
        cmocka_unit_test(a_file_is_read_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
