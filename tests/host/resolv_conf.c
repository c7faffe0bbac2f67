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

static void check_hosts(const char *host, const char *expected)
{
    static const struct names_entry always[] = {{"10.0.2.2", "host.culvert.internal"}};
    static const struct names_entry missing[] = {{"127.0.0.1", "localhost"}, {"10.0.2.100", "box"}};
    char *text = hosts_text(host, always, 1, missing, 2);

    assert_string_equal(text, expected);
    free(text);
}

#define GATEWAY   "10.0.2.2 host.culvert.internal\n"
#define LOCALHOST "127.0.0.1 localhost\n"
#define BOX       "10.0.2.100 box\n"

static void a_missing_hosts_file_is_made_up(void **state)
{
    (void)state;
    check_hosts(NULL, GATEWAY LOCALHOST BOX);
    check_hosts("", GATEWAY LOCALHOST BOX);
}

static void names_that_the_host_gives_are_not_given_twice(void **state)
{
    (void)state;
    check_hosts("127.0.0.1\tlocalhost\n", GATEWAY BOX "127.0.0.1\tlocalhost\n");
    check_hosts("127.0.0.1 a LOCALHOST\n127.0.1.1 x box # y\n",
                GATEWAY "127.0.0.1 a LOCALHOST\n127.0.1.1 x box # y\n");
    check_hosts("1.2.3.4 y\n\n  5.6.7.8  box", GATEWAY LOCALHOST "1.2.3.4 y\n\n  5.6.7.8  box");
}

static void comments_and_addresses_are_not_names(void **state)
{
    (void)state;
    check_hosts("# localhost box\n1.2.3.4 y#box\nbox localhosts\n",
                GATEWAY LOCALHOST BOX "# localhost box\n1.2.3.4 y#box\nbox localhosts\n");
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
        cmocka_unit_test(a_missing_hosts_file_is_made_up),
        cmocka_unit_test(names_that_the_host_gives_are_not_given_twice),
        cmocka_unit_test(comments_and_addresses_are_not_names),
        cmocka_unit_test(a_file_is_read_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
