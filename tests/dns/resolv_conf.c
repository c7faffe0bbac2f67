/* SPDX-License-Identifier: Apache-2.0 */
/* Following the host's list of resolvers. Each test has a directory of its own. */
#include "harness.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
    struct world *w;
    char dir[64];
};

static char *path_of(const struct place *p, const char *name)
{
    static char paths[4][128];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", p->dir, name);
    return path;
}

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);

    p->w = world_new();
    strcpy(p->dir, "/tmp/culvert-dns-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[128];

    world_free(p->w);
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static const struct dns_servers *servers(const struct place *p)
{
    return &p->w->dns->servers;
}

/* As a question does. */
static void look_again(const struct place *p)
{
    world_settle(p->w);
    resolv_conf_recheck(p->w->dns);
}

static void assert_first(const struct place *p, const char *address)
{
    char text[IP_ADDRESS_TEXT_MAX];

    look_again(p);
    assert_true(servers(p)->count >= 1);
    assert_string_equal(ip_address_format(&servers(p)->list[0].where.endpoint.address, text),
                        address);
}

static void nameserver_lines_are_read_and_others_passed_over(void **state)
{
    static const char text[] = "# nameserver 9.9.9.9\n"
                               "search example.com\n"
                               "nameserver 127.0.0.53\n"
                               "nameserver\t2001:db8::1 # comment\r\n"
                               "  nameserver 1.1.1.1\n"
                               "nameserverx 1.1.1.1\n"
                               "nameserver\n"
                               "nameserver   \n"
                               "nameserver dns.example\n"
                               "nameserver fe80::1%lo\n"
                               "nameserver 192.0.2.1";
    struct dns_server list[DNS_UPSTREAMS_MAX];
    char address[IP_ADDRESS_TEXT_MAX];

    (void)state;
    assert_int_equal(resolv_conf_parse(text, strlen(text), list), 4);
    assert_string_equal(ip_address_format(&list[0].where.endpoint.address, address), "127.0.0.53");
    assert_string_equal(ip_address_format(&list[1].where.endpoint.address, address), "2001:db8::1");
    assert_string_equal(ip_address_format(&list[2].where.endpoint.address, address), "fe80::1");
    assert_int_equal(list[2].scope_id, 1);
    assert_string_equal(ip_address_format(&list[3].where.endpoint.address, address), "192.0.2.1");
    assert_int_equal(list[3].where.endpoint.port, 53);
}

static void at_most_sixteen_are_taken(void **state)
{
    struct dns_server list[DNS_UPSTREAMS_MAX];
    char text[2000] = "";

    (void)state;
    for (int i = 0; i < 40; i++)
        strcat(text, "nameserver 192.0.2.1\n");
    assert_int_equal(resolv_conf_parse(text, strlen(text), list), DNS_UPSTREAMS_MAX);
}

static void a_file_written_in_place_is_read_again(void **state)
{
    struct place *p = *state;

    write_file(path_of(p, "resolv.conf"), "nameserver 192.0.2.1\n");
    world_start_resolv_conf(p->w, path_of(p, "resolv.conf"));
    assert_first(p, "192.0.2.1");
    write_file(path_of(p, "resolv.conf"), "nameserver 192.0.2.2\nnameserver 192.0.2.3\n");
    assert_first(p, "192.0.2.2");
    assert_int_equal(servers(p)->count, 2);
}

static void a_file_replaced_by_rename_is_read_again(void **state)
{
    struct place *p = *state;

    write_file(path_of(p, "resolv.conf"), "nameserver 192.0.2.1\n");
    world_start_resolv_conf(p->w, path_of(p, "resolv.conf"));
    for (int i = 2; i < 5; i++) {
        char text[64], address[32];

        snprintf(address, sizeof address, "192.0.2.%d", i);
        snprintf(text, sizeof text, "nameserver %s\n", address);
        write_file(path_of(p, "new"), text);
        assert_int_equal(rename(path_of(p, "new"), path_of(p, "resolv.conf")), 0);
        assert_first(p, address);
    }
}

static void the_target_of_a_link_is_followed_and_so_is_the_link(void **state)
{
    struct place *p = *state;

    mkdir(path_of(p, "run"), 0755);
    mkdir(path_of(p, "etc"), 0755);
    write_file(path_of(p, "run/stub.conf"), "nameserver 192.0.2.1\n");
    write_file(path_of(p, "run/other.conf"), "nameserver 192.0.2.9\n");
    assert_int_equal(symlink("../run/stub.conf", path_of(p, "etc/resolv.conf")), 0);
    world_start_resolv_conf(p->w, path_of(p, "etc/resolv.conf"));
    assert_first(p, "192.0.2.1");
    write_file(path_of(p, "run/stub.conf"), "nameserver 192.0.2.2\n");
    assert_first(p, "192.0.2.2");
    assert_int_equal(symlink("../run/other.conf", path_of(p, "etc/new")), 0);
    assert_int_equal(rename(path_of(p, "etc/new"), path_of(p, "etc/resolv.conf")), 0);
    assert_first(p, "192.0.2.9");
    write_file(path_of(p, "run/other.conf"), "nameserver 192.0.2.8\n");
    assert_first(p, "192.0.2.8");
}

static void a_target_whose_directory_comes_later_is_found(void **state)
{
    struct place *p = *state;

    assert_int_equal(symlink("run/systemd/stub.conf", path_of(p, "resolv.conf")), 0);
    world_start_resolv_conf(p->w, path_of(p, "resolv.conf"));
    assert_int_equal(servers(p)->count, 0);
    mkdir(path_of(p, "run"), 0755);
    look_again(p);
    mkdir(path_of(p, "run/systemd"), 0755);
    look_again(p);
    write_file(path_of(p, "run/systemd/stub.conf"), "nameserver 192.0.2.1\n");
    assert_first(p, "192.0.2.1");
}

static void a_missing_or_empty_file_changes_nothing_and_one_without_servers_does(void **state)
{
    struct place *p = *state;

    write_file(path_of(p, "resolv.conf"), "nameserver 192.0.2.1\n");
    world_start_resolv_conf(p->w, path_of(p, "resolv.conf"));
    unlink(path_of(p, "resolv.conf"));
    assert_first(p, "192.0.2.1");
    write_file(path_of(p, "resolv.conf"), "");
    assert_first(p, "192.0.2.1");
    write_file(path_of(p, "resolv.conf"), "search example.com\n");
    look_again(p);
    assert_int_equal(servers(p)->count, 0);
    write_file(path_of(p, "resolv.conf"), "nameserver 192.0.2.4\n");
    assert_first(p, "192.0.2.4");
}

static void other_files_in_the_directory_do_not_matter(void **state)
{
    struct place *p = *state;
    uint32_t generation;

    write_file(path_of(p, "resolv.conf"), "nameserver 192.0.2.1\n");
    world_start_resolv_conf(p->w, path_of(p, "resolv.conf"));
    generation = servers(p)->generation;
    write_file(path_of(p, "hosts"), "127.0.0.1 localhost\n");
    write_file(path_of(p, "resolv.conf"), "nameserver 192.0.2.1\n"); /* the same again */
    assert_first(p, "192.0.2.1");
    assert_int_equal(servers(p)->generation, generation);
}

static void a_fifo_in_place_of_the_file_does_not_block(void **state)
{
    struct place *p = *state;

    assert_int_equal(mkfifo(path_of(p, "resolv.conf"), 0600), 0);
    world_start_resolv_conf(p->w, path_of(p, "resolv.conf"));
    assert_int_equal(servers(p)->count, 0);
}

static void links_in_a_circle_end(void **state)
{
    struct place *p = *state;

    assert_int_equal(symlink("b", path_of(p, "a")), 0);
    assert_int_equal(symlink("a", path_of(p, "b")), 0);
    world_start_resolv_conf(p->w, path_of(p, "a"));
    assert_int_equal(servers(p)->count, 0);
}

static void questions_go_to_the_new_server_after_a_change(void **state)
{
    struct place *p = *state;
    struct question www = {.id = 7, .name = "www.example.com", .type = DNS_TYPE_A};

    write_file(path_of(p, "resolv.conf"), "search example.com\n");
    world_start_resolv_conf(p->w, path_of(p, "resolv.conf"));
    guest_asks(p->w, 4000, &www);
    assert_int_equal(reply_rcode(p->w, 0), DNS_SERVFAIL);
    write_file(path_of(p, "resolv.conf"), "nameserver 127.0.0.1\n");
    assert_first(p, "127.0.0.1");
    /* no port can be given there: lead it to the test's own */
    p->w->dns->servers.list[0].where = world_add_server(p->w, answer_one)->where;
    guest_asks(p->w, 4000, &www);
    world_run_replies(p->w, 2);
    assert_int_equal(reply_rcode(p->w, 1), DNS_NOERROR);
}

static void a_list_that_shrinks_with_questions_under_way_is_survived(void **state)
{
    struct place *p = *state;
    struct question www = {.id = 7, .name = "www.example.com", .type = DNS_TYPE_A};

    write_file(path_of(p, "resolv.conf"),
               "nameserver 127.0.0.1\nnameserver 127.0.0.1\nnameserver 127.0.0.1\n");
    world_start_resolv_conf(p->w, path_of(p, "resolv.conf"));
    for (int i = 0; i < 3; i++)
        p->w->dns->servers.list[i].where = world_add_server(p->w, NULL)->where;
    guest_asks(p->w, 4000, &www);
    for (int i = 0; i < 10; i++)
        world_skip(p->w, 100);
    write_file(path_of(p, "resolv.conf"), "search none\n");
    look_again(p);
    assert_int_equal(servers(p)->count, 0);
    answer_one(&p->w->servers[2], &p->w->servers[2].last);
    world_run_replies(p->w, 1);
    assert_int_equal(reply_rcode(p->w, 0), DNS_NOERROR);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nameserver_lines_are_read_and_others_passed_over),
        cmocka_unit_test(at_most_sixteen_are_taken),
        CASE(a_file_written_in_place_is_read_again),
        CASE(a_file_replaced_by_rename_is_read_again),
        CASE(the_target_of_a_link_is_followed_and_so_is_the_link),
        CASE(a_target_whose_directory_comes_later_is_found),
        CASE(a_missing_or_empty_file_changes_nothing_and_one_without_servers_does),
        CASE(other_files_in_the_directory_do_not_matter),
        CASE(a_fifo_in_place_of_the_file_does_not_block),
        CASE(links_in_a_circle_end),
        CASE(questions_go_to_the_new_server_after_a_change),
        CASE(a_list_that_shrinks_with_questions_under_way_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
