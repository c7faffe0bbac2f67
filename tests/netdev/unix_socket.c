/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h> /* needs the headers above */

struct place {
    char directory[64];
    struct unix_where where; /* of a path inside */
    char message[256];
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    char path[96];

    assert_non_null(place);
    snprintf(place->directory, sizeof place->directory, "/tmp/culvert-unix-XXXXXX");
    assert_non_null(mkdtemp(place->directory));
    snprintf(path, sizeof path, "%s/s", place->directory);
    assert_int_equal(unix_where_parse(path, &place->where, place->message, sizeof place->message),
                     0);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;

    (void)unlink(place->where.address.sun_path);
    assert_int_equal(rmdir(place->directory), 0);
    free(place);
    return 0;
}

static int parse(struct place *place, const char *text, struct unix_where *ret)
{
    place->message[0] = '\0';
    return unix_where_parse(text, ret, place->message, sizeof place->message);
}

static void the_three_forms_of_a_place_are_told_apart(void **state)
{
    struct place *place = *state;
    struct unix_where where;

    assert_int_equal(parse(place, "/run/a", &where), 0);
    assert_int_equal(where.how, UNIX_LISTEN);
    assert_string_equal(where.address.sun_path, "/run/a");
    assert_int_equal(parse(place, "connect:/run/b", &where), 0);
    assert_int_equal(where.how, UNIX_CONNECT);
    assert_string_equal(where.address.sun_path, "/run/b");
    assert_int_equal(parse(place, "fd:12", &where), 0);
    assert_int_equal(where.how, UNIX_FD);
    assert_int_equal(where.fd, 12);
}

static void places_that_are_none_are_refused_with_a_sentence(void **state)
{
    static const char *const wrong[] = {
        "",
        "connect:",
        "fd:",
        "fd:-1",
        "fd:+3",
        "fd: 3",
        "fd:3x",
        "fd:99999999999999999999",
        "fd:2147483648",
    };
    struct place *place = *state;
    struct unix_where where;

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(parse(place, wrong[i], &where), -EINVAL);
        assert_true(strlen(place->message) > 20);
    }
}

static void a_path_may_fill_a_sockets_address_and_no_more(void **state)
{
    struct place *place = *state;
    struct unix_where where;
    char path[sizeof where.address.sun_path + 1];

    memset(path, 'x', sizeof path);
    path[sizeof path - 2] = '\0';
    assert_int_equal(parse(place, path, &where), 0);
    path[sizeof path - 2] = 'x';
    path[sizeof path - 1] = '\0';
    assert_int_equal(parse(place, path, &where), -ENAMETOOLONG);
}

static int bind_here(struct place *place, int type, struct unix_name *ret)
{
    return unix_socket_bind(&place->where.address, type, ret, place->message,
                            sizeof place->message);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
    struct place *place = *state;
    struct unix_name name, other;

    for (size_t i = 0; i < 2; i++) {
        int fd = bind_here(place, types[i], &name);

        assert_true(fd >= 0);
        assert_int_equal(bind_here(place, types[i], &other), -EADDRINUSE);
        assert_int_equal(bind_here(place, types[1 - i], &other), -EADDRINUSE);
        close(fd); /* as a killed process leaves it */
        fd = bind_here(place, types[i], &name);
        assert_true(fd >= 0);
        unix_socket_unbind(&name);
        assert_int_equal(access(place->where.address.sun_path, F_OK), -1);
        close(fd);
    }
}

static void a_file_that_is_no_socket_is_never_replaced(void **state)
{
    struct place *place = *state;
    struct unix_name name;
    int file = open(place->where.address.sun_path, O_CREAT | O_WRONLY, 0600);

    assert_true(file >= 0);
    close(file);
    assert_int_equal(bind_here(place, SOCK_STREAM, &name), -EADDRINUSE);
    assert_int_equal(access(place->where.address.sun_path, F_OK), 0);
}

static void the_end_removes_our_own_path_only(void **state)
{
    struct place *place = *state;
    struct unix_name name;
    int fd = bind_here(place, SOCK_STREAM, &name), file;

    assert_true(fd >= 0);
    file = open(place->where.address.sun_path, O_WRONLY);
    assert_int_equal(file, -1);
    assert_int_equal(unlink(place->where.address.sun_path), 0);
    file = open(place->where.address.sun_path, O_CREAT | O_WRONLY, 0600);
    assert_true(file >= 0);
    unix_socket_unbind(&name);
    assert_int_equal(access(place->where.address.sun_path, F_OK), 0);
    close(file);
    close(fd);
}

static void only_a_socket_of_the_right_type_is_inherited(void **state)
{
    struct place *place = *state;
    int pair[2], file = open("/dev/null", O_RDWR);
    char *message = place->message;

    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    assert_int_equal(unix_socket_inherit(pair[0], SOCK_STREAM, message, 256), -EPROTOTYPE);
    assert_int_equal(unix_socket_inherit(file, SOCK_STREAM, message, 256), -ENOTSOCK);
    assert_int_equal(unix_socket_inherit(1000, SOCK_STREAM, message, 256), -EBADF);
    assert_int_equal(unix_socket_inherit(pair[0], SOCK_DGRAM, message, 256), pair[0]);
    assert_true(fcntl(pair[0], F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(pair[0], F_GETFD) & FD_CLOEXEC);
    close(pair[0]);
    close(pair[1]);
    close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(the_three_forms_of_a_place_are_told_apart),
        TEST(places_that_are_none_are_refused_with_a_sentence),
        TEST(a_path_may_fill_a_sockets_address_and_no_more),
        TEST(a_stale_socket_is_replaced_and_a_live_one_is_not),
        TEST(a_file_that_is_no_socket_is_never_replaced),
        TEST(the_end_removes_our_own_path_only),
        TEST(only_a_socket_of_the_right_type_is_inherited),
#undef TEST
    };

    return cmocka_run_group_tests_name("unix_socket", tests, NULL, NULL);
}
