/* SPDX-License-Identifier: Apache-2.0 */
/* Questions over connections, and the servers of zones. */
#include "harness.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/bytes.h"

static struct {
    struct asked asked[80];
    size_t count;
} kept; /* questions that wait for the test */

static int setup(void **state)
{
    kept.count = 0;
    *state = world_new();
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    return 0;
}

static void keep(struct server *server, const struct asked *asked)
{
    (void)server;
    assert_true(kept.count < 80);
    kept.asked[kept.count++] = *asked;
}

static struct server *add_tcp(struct world *w,
                              void (*script)(struct server *, const struct asked *))
{
    struct server *server = world_add_server(w, script);

    server->where.tcp_only = server->keeps_open = true;
    return server;
}

static void ask(struct world *w, unsigned number)
{
    char name[32];

    snprintf(name, sizeof name, "n%u.example", number);
    guest_asks(w, (uint16_t)(4000 + number),
               &(struct question){.id = (uint16_t)number, .name = name, .type = DNS_TYPE_A});
}

/* ---- connections ---- */

static void questions_share_a_connection(void **state)
{
    struct world *w = *state;
    struct server *server = add_tcp(w, answer_one);

    world_start(w);
    for (unsigned i = 0; i < 3; i++) {
        ask(w, i);
        world_run_replies(w, i + 1);
    }
    for (unsigned i = 3; i < 20; i++)
        ask(w, i);
    world_run_replies(w, 20);
    assert_int_equal(server->accepted, 1);
    assert_int_equal(server->asked_tcp, 20);
    assert_int_equal(COUNTED(w, streams), 1);
}

static void answers_find_their_questions_in_any_order(void **state)
{
    struct world *w = *state;
    struct server *server = add_tcp(w, keep);

    world_start(w);
    for (unsigned i = 0; i < 10; i++)
        ask(w, i);
    world_run_asked(w, server, 10);
    for (size_t i = 10; i-- > 0;)
        answer_one(server, &kept.asked[i]);
    world_run_replies(w, 10);
    for (unsigned i = 0; i < 10; i++) {
        struct dns_message m = reply_read(w, i);
        char name[32];

        snprintf(name, sizeof name, "n%u.example", 9 - i);
        assert_int_equal(m.header.id, 9 - i);
        assert_string_equal(dns_name_format(&m.question.name, (char[DNS_TEXT_MAX]){0}), name);
        assert_int_equal(reply_rcode(w, i), DNS_NOERROR);
    }
}

static bool a_connection_ended(const struct world *w)
{
    return w->servers[0].ended == 1;
}

static void a_connection_without_questions_is_closed_after_a_while(void **state)
{
    struct world *w = *state;
    struct server *server = add_tcp(w, answer_one);

    world_start(w);
    ask(w, 1);
    world_run_replies(w, 1);
    world_skip(w, 9500);
    world_settle(w);
    assert_int_equal(server->ended, 0);
    world_skip(w, 1000);
    world_run_until(w, a_connection_ended);
    assert_int_equal(timers_next(w->timers), TIMERS_NEVER);
    ask(w, 2);
    world_run_replies(w, 2);
    assert_int_equal(server->accepted, 2);
}

static void answer_the_first_and_hang_up_on_the_second(struct server *server,
                                                       const struct asked *asked)
{
    if (server->asked_tcp == 2)
        shutdown(asked->tcp_fd, SHUT_RDWR);
    else
        answer_one(server, asked);
}

static void what_was_asked_on_a_connection_that_ends_is_asked_again(void **state)
{
    struct world *w = *state;
    struct server *server = add_tcp(w, answer_the_first_and_hang_up_on_the_second);

    world_start(w);
    ask(w, 1);
    world_run_replies(w, 1);
    ask(w, 2);
    world_run_replies(w, 2);
    assert_int_equal(reply_rcode(w, 1), DNS_NOERROR);
    assert_int_equal(server->accepted, 2);
    assert_int_equal(server->asked_tcp, 3);
}

static void hang_up(struct server *server, const struct asked *asked)
{
    (void)server;
    shutdown(asked->tcp_fd, SHUT_RDWR);
}

static void a_server_that_always_hangs_up_is_given_up(void **state)
{
    struct world *w = *state;
    struct server *server = add_tcp(w, hang_up);

    world_start(w);
    ask(w, 1);
    world_run_replies(w, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_SERVFAIL);
    assert_int_equal(server->accepted, 1);
}

static void a_server_that_refuses_connections_is_passed_over(void **state)
{
    struct world *w = *state;
    struct server *closed = add_tcp(w, NULL), *server = add_tcp(w, answer_one);

    loop_remove(&w->loop, closed->tcp);
    close(closed->tcp);
    closed->tcp = dup(closed->udp);
    world_start(w);
    ask(w, 1);
    world_run_replies(w, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_NOERROR);
    assert_int_equal(server->asked_tcp, 1);
}

static void answer_the_first_only(struct server *server, const struct asked *asked)
{
    if (server->asked_tcp == 1 || asked->tcp_fd != kept.asked[0].tcp_fd)
        answer_one(server, asked);
    if (server->asked_tcp == 1)
        keep(server, asked);
}

static void a_connection_gone_silent_is_replaced(void **state)
{
    struct world *w = *state;
    struct server *server = add_tcp(w, answer_the_first_only);

    world_start(w);
    ask(w, 1);
    world_run_replies(w, 1);
    ask(w, 2);
    world_run_asked(w, server, 2);
    world_skip(w, 1100);
    world_run_replies(w, 2);
    assert_int_equal(reply_rcode(w, 1), DNS_NOERROR);
    assert_int_equal(server->accepted, 2);
    ask(w, 3);
    world_run_replies(w, 3);
    assert_int_equal(server->accepted, 2);
}

static void too_many_questions_for_one_connection_get_a_second(void **state)
{
    struct world *w = *state;
    struct server *server = add_tcp(w, keep);

    world_start(w);
    for (unsigned i = 0; i < DNS_STREAM_PIPELINE + 10; i++)
        ask(w, i);
    world_run_asked(w, server, DNS_STREAM_PIPELINE + 10);
    assert_int_equal(server->accepted, 2);
    for (size_t i = 0; i < kept.count; i++)
        answer_one(server, &kept.asked[i]);
    world_run_replies(w, DNS_STREAM_PIPELINE + 10);
}

static void answer_in_crumbs(struct server *server, const struct asked *asked)
{
    uint8_t bytes[514];
    size_t len = answer_build(asked, DNS_NOERROR, 1, bytes + 2, 512);

    (void)server;
    store_be16(bytes, (uint16_t)len);
    for (size_t i = 0; i < len + 2; i++)
        assert_int_equal(send(asked->tcp_fd, bytes + i, 1, 0), 1);
}

static void answers_that_come_in_crumbs_are_put_together(void **state)
{
    struct world *w = *state;

    add_tcp(w, answer_in_crumbs);
    world_start(w);
    for (unsigned i = 0; i < 5; i++)
        ask(w, i);
    world_run_replies(w, 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(reply_rcode(w, i), DNS_NOERROR);
}

static void answer_something_else(struct server *server, const struct asked *asked)
{
    struct asked other = *asked;

    other.m.question.name.bytes[1] ^= 1;
    answer_one(server, &other);
}

static void an_answer_to_another_question_is_a_failure(void **state)
{
    struct world *w = *state;

    add_tcp(w, answer_something_else);
    world_start(w);
    ask(w, 1);
    world_run_replies(w, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_SERVFAIL);
    assert_int_equal(COUNTED(w, answer_mismatch), 1);
}

static void the_resolver_can_be_freed_with_connections_open(void **state)
{
    struct world *w = *state;
    struct server *server = add_tcp(w, keep);

    world_start(w);
    ask(w, 1);
    world_run_asked(w, server, 1);
}

/* ---- zones ---- */

static void set_zone(struct server *server, const char *zone)
{
    assert_int_equal(dns_name_parse(zone, &server->where.zone), 0);
}

static void ask_name(struct world *w, const char *name)
{
    size_t before = w->reply_count;

    guest_asks(w, 4000, &(struct question){.id = 1, .name = name, .type = DNS_TYPE_A});
    world_run_replies(w, before + 1);
}

static void names_of_a_zone_are_asked_of_its_servers_only(void **state)
{
    struct world *w = *state;
    struct server *all = world_add_server(w, answer_one);
    struct server *corp = world_add_server(w, answer_one);
    struct server *lab = world_add_server(w, answer_one);

    set_zone(corp, "corp.example");
    set_zone(lab, "lab.corp.example");
    world_start(w);
    ask_name(w, "www.example");
    ask_name(w, "xcorp.example");
    ask_name(w, "example");
    assert_int_equal(all->asked_udp, 3);
    ask_name(w, "corp.example");
    ask_name(w, "www.Corp.Example");
    ask_name(w, "xlab.corp.example");
    assert_int_equal(corp->asked_udp, 3);
    ask_name(w, "a.b.lab.corp.example");
    assert_int_equal(lab->asked_udp, 1);
    assert_int_equal(all->asked_udp + corp->asked_udp + lab->asked_udp, 7);
}

static void a_zone_whose_server_is_silent_is_asked_of_nobody_else(void **state)
{
    struct world *w = *state;
    struct server *all = world_add_server(w, answer_one);
    struct server *corp = world_add_server(w, NULL);

    set_zone(corp, "corp.example");
    world_start(w);
    guest_asks(w, 4000, &(struct question){.id = 1, .name = "a.corp.example", .type = DNS_TYPE_A});
    world_run_asked(w, corp, 1);
    for (unsigned i = 0; i < 12; i++)
        world_skip(w, 500);
    world_run_replies(w, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_SERVFAIL);
    assert_int_equal(all->asked_udp, 0);
}

static void without_servers_for_the_rest_resolv_conf_is_followed(void **state)
{
    struct world *w = *state;
    struct server *corp = world_add_server(w, answer_one);

    set_zone(corp, "corp.example");
    world_start(w); /* its resolv.conf does not exist */
    ask_name(w, "a.corp.example");
    assert_int_equal(reply_rcode(w, 0), DNS_NOERROR);
    ask_name(w, "www.example");
    assert_int_equal(reply_rcode(w, 1), DNS_SERVFAIL);
    assert_int_equal(COUNTED(w, no_upstream), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(questions_share_a_connection),
        TEST(answers_find_their_questions_in_any_order),
        TEST(a_connection_without_questions_is_closed_after_a_while),
        TEST(what_was_asked_on_a_connection_that_ends_is_asked_again),
        TEST(a_server_that_always_hangs_up_is_given_up),
        TEST(a_server_that_refuses_connections_is_passed_over),
        TEST(a_connection_gone_silent_is_replaced),
        TEST(too_many_questions_for_one_connection_get_a_second),
        TEST(answers_that_come_in_crumbs_are_put_together),
        TEST(an_answer_to_another_question_is_a_failure),
        TEST(the_resolver_can_be_freed_with_connections_open),
        TEST(names_of_a_zone_are_asked_of_its_servers_only),
        TEST(a_zone_whose_server_is_silent_is_asked_of_nobody_else),
        TEST(without_servers_for_the_rest_resolv_conf_is_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
