/* SPDX-License-Identifier: Apache-2.0 */
/* Where the lines of events go: files, pipes that nobody reads, and what is lost there. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/timers.h"
#include "engine/event_file.h"

struct place {
    char folder[64], path[96], other[96];
    struct counters counters;
};

static int setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);

    snprintf(place->folder, sizeof place->folder, "/tmp/culvert-events-XXXXXX");
    assert_non_null(mkdtemp(place->folder));
    snprintf(place->path, sizeof place->path, "%s/events", place->folder);
    snprintf(place->other, sizeof place->other, "%s/renamed", place->folder);
    *state = place;
    return 0;
}

static int teardown(void **state)
{
    struct place *place = *state;

    unlink(place->path);
    unlink(place->other);
    rmdir(place->folder);
    free(place);
    return 0;
}

static struct event_file *open_started(struct place *place, const char *path, int fd)
{
    struct event_file *file = event_file_new(path, fd, &place->counters);

    assert_non_null(file);
    assert_int_equal(event_file_start(file), 0);
    return file;
}

/* {"n":N,"x":"xxx…"} */
static bool put(struct event_file *file, unsigned n, size_t size)
{
    char line[9000];
    int len = snprintf(line, sizeof line, "{\"n\":%u,\"x\":\"%0*d\"}\n", n, (int)size, 0);

    return event_file_put(file, line, (size_t)len);
}

static size_t read_all(const char *path, char *text, size_t size)
{
    FILE *stream = fopen(path, "r");
    size_t len;

    assert_non_null(stream);
    len = fread(text, 1, size - 1, stream);
    text[len] = '\0';
    fclose(stream);
    return len;
}

struct seen {
    unsigned lines, invalid;
    uint64_t lost;
};

static struct seen look_at(char *text)
{
    struct seen seen = {0};

    for (char *rest = text, *line; (line = strsep(&rest, "\n")) && rest;) {
        json_t *object = json_loads(line, 0, NULL);

        if (!object)
            seen.invalid++;
        else if (json_object_get(object, "n"))
            seen.lines++;
        else
            seen.lost += (uint64_t)json_integer_value(json_object_get(object, "count"));
        json_decref(object);
    }
    return seen;
}

static void lines_are_appended_to_a_file_of_our_own(void **state)
{
    struct place *place = *state;
    struct event_file *file = open_started(place, place->path, -1);
    char text[256];
    struct stat status;

    assert_true(put(file, 1, 1));
    assert_null(event_file_free(file));
    assert_int_equal(stat(place->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    file = open_started(place, place->path, -1);
    assert_true(put(file, 2, 1));
    event_file_stop(file);
    event_file_stop(file);
    assert_int_equal(event_file_start(file), 0); /* an engine may be started again */
    assert_true(put(file, 3, 1));
    event_file_free(file);
    read_all(place->path, text, sizeof text);
    assert_string_equal(text,
                        "{\"n\":1,\"x\":\"0\"}\n{\"n\":2,\"x\":\"0\"}\n{\"n\":3,\"x\":\"0\"}\n");
}

static void what_cannot_be_opened_is_an_error(void **state)
{
    struct place *place = *state;

    errno = 0;
    assert_null(event_file_new("/no/such/folder/file", -1, &place->counters));
    assert_int_equal(errno, ENOENT);
    assert_null(event_file_new(place->folder, -1, &place->counters));
    assert_int_equal(errno, EISDIR);
    assert_int_equal(mkfifo(place->path, 0600), 0);
    assert_null(event_file_new(place->path, -1, &place->counters)); /* and does not hang */
    assert_int_equal(errno, ENXIO);
}

static void after_a_rename_a_reopened_file_gets_the_lines(void **state)
{
    struct place *place = *state;
    struct event_file *file = open_started(place, place->path, -1);
    char text[256];

    put(file, 1, 1);
    event_file_stop(file);
    assert_int_equal(rename(place->path, place->other), 0);
    assert_int_equal(event_file_reopen(file), 0);
    assert_int_equal(event_file_reopen(file), 0); /* twice does no harm */
    assert_int_equal(event_file_start(file), 0);
    put(file, 2, 1);
    event_file_free(file);
    read_all(place->other, text, sizeof text);
    assert_string_equal(text, "{\"n\":1,\"x\":\"0\"}\n");
    read_all(place->path, text, sizeof text);
    assert_string_equal(text, "{\"n\":2,\"x\":\"0\"}\n");
}

static void a_pipe_that_nobody_reads_loses_lines_and_never_holds_up(void **state)
{
    struct place *place = *state;
    struct event_file *file;
    static char text[4 << 20];
    unsigned kept = 0;
    size_t len = 0;
    int fds[2];

    assert_int_equal(pipe(fds), 0); /* it blocks, and stays so */
    file = open_started(place, NULL, fds[1]);
    for (unsigned i = 0; i < 5000; i++)
        kept += put(file, i, 200);
    assert_true(kept < 5000);
    assert_false(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
    close(fds[1]);

    /* The reader wakes up: all that was kept comes, and the number of those that were not. */
    struct pollfd comes = {.fd = fds[0], .events = POLLIN};
    while (poll(&comes, 1, 300) > 0) {
        ssize_t n = read(fds[0], text + len, sizeof text - 1 - len);

        assert_true(n > 0);
        len += (size_t)n;
    }
    text[len] = '\0';
    struct seen seen = look_at(text);
    assert_int_equal(seen.invalid, 0);
    assert_int_equal(seen.lines, kept);
    assert_int_equal(seen.lost, 5000 - kept);
    assert_int_equal(counter_value(&place->counters, COUNTER_events_lost), 5000 - kept);
    event_file_free(file);
    close(fds[0]);
}

static void the_end_does_not_wait_for_a_reader_for_ever(void **state)
{
    struct place *place = *state;
    struct event_file *file;
    uint64_t begun;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    file = open_started(place, NULL, fds[1]);
    for (unsigned i = 0; i < 1000; i++)
        put(file, i, 200);
    begun = clock_now();
    event_file_free(file);
    assert_true(clock_now() - begun < 5 * SECOND_NS);
    assert_true(counter_value(&place->counters, COUNTER_events_lost) > 0);
    close(fds[0]);
    close(fds[1]);
}

static void a_reader_that_goes_away_loses_lines_and_is_no_signal(void **state)
{
    struct place *place = *state;
    struct event_file *file;
    int fds[2];

    assert_int_equal(signal(SIGPIPE, SIG_DFL) == SIG_ERR, 0);
    assert_int_equal(pipe(fds), 0);
    file = open_started(place, NULL, fds[1]);
    close(fds[0]);
    assert_true(put(file, 1, 1));
    event_file_stop(file);
    assert_int_equal(counter_value(&place->counters, COUNTER_events_lost), 1);
    event_file_free(file);
    close(fds[1]);
}

static void lines_longer_than_a_pipe_takes_at_once_arrive_whole(void **state)
{
    struct place *place = *state;
    struct event_file *file = open_started(place, place->path, -1);
    static char text[1 << 20];

    for (unsigned i = 0; i < 20; i++)
        assert_true(put(file, i, 8000));
    event_file_free(file);
    read_all(place->path, text, sizeof text);
    struct seen seen = look_at(text);
    assert_int_equal(seen.lines, 20);
    assert_int_equal(seen.invalid, 0);
}

static void the_ring_goes_round(void **state)
{
    struct place *place = *state;
    struct event_file *file = open_started(place, place->path, -1);
    static char text[8 << 20];
    unsigned kept = 0;

    for (unsigned i = 0; i < 20000; i++) {
        kept += put(file, i, 100);
        if (i % 500 == 0)
            usleep(2000);
    }
    event_file_free(file);
    read_all(place->path, text, sizeof text);
    struct seen seen = look_at(text);
    assert_int_equal(seen.invalid, 0);
    assert_int_equal(seen.lines, kept);
    assert_int_equal(seen.lost, 20000 - kept);
}

static void a_socket_will_do(void **state)
{
    struct place *place = *state;
    struct event_file *file;
    char text[256] = "";
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    file = open_started(place, NULL, fds[1]);
    assert_true(put(file, 1, 1));
    event_file_stop(file);
    assert_true(read(fds[0], text, sizeof text) > 0);
    assert_string_equal(text, "{\"n\":1,\"x\":\"0\"}\n");
    for (unsigned i = 0; i < 4000; i++)
        put(file, i, 1000);
    event_file_free(file); /* nobody reads */
    close(fds[0]);
    close(fds[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lines_are_appended_to_a_file_of_our_own),
        TEST(what_cannot_be_opened_is_an_error),
        TEST(after_a_rename_a_reopened_file_gets_the_lines),
        TEST(a_pipe_that_nobody_reads_loses_lines_and_never_holds_up),
        TEST(the_end_does_not_wait_for_a_reader_for_ever),
        TEST(a_reader_that_goes_away_loses_lines_and_is_no_signal),
        TEST(lines_longer_than_a_pipe_takes_at_once_arrive_whole),
        TEST(the_ring_goes_round),
        TEST(a_socket_will_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
