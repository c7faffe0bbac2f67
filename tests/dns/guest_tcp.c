/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest that asks by TCP gets. */
#include "harness.h"

#include <errno.h>
#include <stdio.h>

#include "wire/bytes.h"

static const struct question WWW = {.id = 7, .name = "www.Example.com", .type = DNS_TYPE_A};

static int setup(void **state)
{
    *state = world_new();
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    return 0;
}

static bool first_guest_got_one(const struct world *w)
{
    return guest_messages(&w->guests[0]) >= 1;
}

static bool first_guest_got_two(const struct world *w)
{
    return guest_messages(&w->guests[0]) >= 2;
}

static bool first_guest_has_eof(const struct world *w)
{
    return w->guests[0].eof;
}

static bool first_guest_is_offered_room(const struct world *w)
{
    return w->guests[0].offered;
}

static bool first_guest_is_closed(const struct world *w)
{
    return w->guests[0].closed;
}

static struct dns_message message_read(const struct guest *guest, size_t n)
{
    struct dns_message m;
    size_t len = 0;
    const uint8_t *bytes = guest_message(guest, n, &len);

    assert_non_null(bytes);
    assert_int_equal(dns_message_read(bytes, len, &m), 0);
    assert_int_equal(m.end, len);
    return m;
}

static void a_question_by_tcp_is_answered(void **state)
{
    struct world *w = *state;
    struct guest *guest;
    struct dns_message m;

    world_add_server(w, answer_one);
    world_start(w);
    guest = guest_connects(w);
    assert_true(guest->connected);
    assert_true(guest_asks_tcp(guest, &WWW) > 0);
    world_run_until(w, first_guest_got_one);
    m = message_read(guest, 0);
    assert_int_equal(m.header.id, 7);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 1);
}

static void a_question_may_come_byte_by_byte(void **state)
{
    struct world *w = *state;
    struct guest *guest;
    uint8_t bytes[1030];
    size_t len = question_build(&WWW, bytes + 2);

    world_add_server(w, answer_one);
    world_start(w);
    guest = guest_connects(w);
    store_be16(bytes, (uint16_t)len);
    memcpy(bytes + len + 2, bytes, len + 2);
    for (size_t i = 0; i < 2 * (len + 2); i++)
        assert_int_equal(guest_writes(guest, bytes + i, 1), 1);
    world_run_until(w, first_guest_got_two);
    assert_int_equal(message_read(guest, 1).header.id, 7);
}

static void every_split_of_two_questions_gives_two_replies(void **state)
{
    struct world *w = *state;
    uint8_t bytes[1030];
    size_t len = question_build(&(struct question){1, "x.culvert.internal", 1, 0, 0}, bytes + 2);
    struct guest *guest;

    world_start(w);
    guest = guest_connects(w);
    store_be16(bytes, (uint16_t)len);
    memcpy(bytes + len + 2, bytes, len + 2);
    for (size_t cut = 0; cut <= 2 * (len + 2); cut++) {
        struct iovec iov[2] = {{bytes, cut}, {bytes + cut, 2 * (len + 2) - cut}};

        guest->got_len = 0;
        guest->window = sizeof guest->got;
        assert_int_equal(guest->upstream.write(guest->ctx, guest->token, iov, 2), 2 * (len + 2));
        timers_expire(w->timers, world_now(w) + TIMERS_SLACK);
        assert_int_equal(guest_messages(guest), 2);
        assert_int_equal(message_read(guest, 1).header.flags & DNS_RCODE_MASK, DNS_NXDOMAIN);
    }
}

/* Names beginning with 's' are slow: they wait for release(). */
static struct asked slow;

static void answer_unless_slow(struct server *server, const struct asked *asked)
{
    if ((asked->m.question.name.bytes[1] | 0x20) == 's')
        slow = *asked;
    else
        answer_one(server, asked);
}

static void answers_come_in_the_order_they_are_known(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_unless_slow);
    struct guest *guest;

    world_start(w);
    guest = guest_connects(w);
    guest_asks_tcp(guest, &(struct question){1, "slow.example", DNS_TYPE_A, 0, 0});
    guest_asks_tcp(guest, &(struct question){2, "fast.example", DNS_TYPE_A, 0, 0});
    world_run_until(w, first_guest_got_one);
    world_run_asked(w, server, 2);
    answer_one(server, &slow);
    world_run_until(w, first_guest_got_two);
    assert_int_equal(message_read(guest, 0).header.id, 2);
    assert_int_equal(message_read(guest, 1).header.id, 1);
}

static void a_half_closed_guest_gets_its_answers_and_then_fin(void **state)
{
    struct world *w = *state;
    struct guest *guest;

    world_add_server(w, answer_one);
    world_start(w);
    guest = guest_connects(w);
    guest_asks_tcp(guest, &WWW);
    guest->upstream.shut_write(guest->ctx, guest->token);
    world_run_until(w, first_guest_has_eof);
    assert_int_equal(guest_messages(guest), 1);
}

static void a_guest_that_says_nothing_gets_fin_for_its_fin(void **state)
{
    struct world *w = *state;
    struct guest *guest;

    world_start(w);
    guest = guest_connects(w);
    guest->upstream.shut_write(guest->ctx, guest->token);
    assert_false(guest->eof); /* not from within the stack's call */
    world_run_until(w, first_guest_has_eof);
    guest->closed = true;
    guest->upstream.close(guest->ctx, guest->token, TCP_CLOSE_FINISHED);
    assert_int_equal(timers_next(w->timers), TIMERS_NEVER);
}

static void answers_wait_for_the_guests_window(void **state)
{
    struct world *w = *state;
    struct guest *guest;

    world_add_server(w, answer_one);
    world_start(w);
    guest = guest_connects(w);
    guest->window = 5;
    guest_asks_tcp(guest, &WWW);
    world_run_asked(w, &w->servers[0], 1);
    world_settle(w);
    assert_int_equal(guest->got_len, 5);
    guest->window = 10000;
    guest->upstream.resume(guest->ctx, guest->token);
    world_run_until(w, first_guest_got_one);
    assert_int_equal(message_read(guest, 0).header.id, 7);
}

/* Answers by TCP with as much as a message holds. */
static void answer_huge(struct server *server, const struct asked *asked)
{
    static uint8_t bytes[DNS_MESSAGE_MAX];

    if (asked->tcp_fd < 0) {
        bytes[0] = 0;
        answer_build(asked, DNS_NOERROR, 0, bytes, sizeof bytes);
        bytes[2] |= DNS_FLAG_TC >> 8;
        server_send(server, asked, bytes, asked->m.records + DNS_OPT_LEN);
        return;
    }
    server_send(server, asked, bytes, answer_build(asked, DNS_NOERROR, 4090, bytes, sizeof bytes));
}

static void an_answer_of_64_kib_arrives_whole(void **state)
{
    struct world *w = *state;
    struct guest *guest;
    struct dns_message m;

    world_add_server(w, answer_huge);
    world_start(w);
    guest = guest_connects(w);
    guest_asks_tcp(guest, &WWW);
    world_run_until(w, first_guest_got_one);
    m = message_read(guest, 0);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 4090);
    assert_false(m.header.flags & DNS_FLAG_TC);
}

static void too_many_questions_shut_the_window_until_answers_have_left(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, NULL);
    uint8_t bytes[128 * 64], *end = bytes;
    char name[32];
    struct guest *guest;
    ssize_t taken;

    world_start(w);
    guest = guest_connects(w);
    for (uint16_t i = 0; i < 100; i++) {
        uint8_t message[512];
        size_t len;

        snprintf(name, sizeof name, "n%u.example.com", i);
        len = question_build(&(struct question){i, name, DNS_TYPE_A, 0, 0}, message);
        store_be16(end, (uint16_t)len);
        memcpy(end + 2, message, len);
        end += len + 2;
    }
    taken = guest_writes(guest, bytes, (size_t)(end - bytes));
    assert_in_range(taken, 1, end - bytes - 1);
    assert_false(guest->offered);
    server->script = answer_one;
    while (taken < end - bytes) {
        world_run_until(w, first_guest_is_offered_room);
        guest->offered = false;
        taken += guest_writes(guest, bytes + taken, (size_t)(end - bytes - taken));
    }
    while (guest_messages(guest) < 100)
        world_settle(w);
    assert_int_equal(server->asked_udp, 100);
}

static void an_overlong_message_is_formerr_and_the_next_is_read(void **state)
{
    struct world *w = *state;
    static uint8_t bytes[2 + 65535];
    struct guest *guest;

    world_add_server(w, answer_one);
    world_start(w);
    guest = guest_connects(w);
    question_build(&WWW, bytes + 2);
    store_be16(bytes, 65535);
    for (size_t at = 0; at < sizeof bytes; at += 1460) {
        size_t left = sizeof bytes - at, len = left < 1460 ? left : 1460;

        assert_int_equal(guest_writes(guest, bytes + at, len), len);
    }
    guest_asks_tcp(guest, &WWW);
    world_run_until(w, first_guest_got_two);
    assert_int_equal(guest->got[2 + 3] & DNS_RCODE_MASK, DNS_FORMERR);
    assert_int_equal(message_read(guest, 1).header.record_count[DNS_ANSWER], 1);
}

static void empty_messages_and_responses_are_passed_over(void **state)
{
    struct world *w = *state;
    uint8_t response[514];
    size_t len = question_build(&WWW, response + 2);
    struct guest *guest;

    world_add_server(w, answer_one);
    world_start(w);
    guest = guest_connects(w);
    assert_int_equal(guest_writes(guest, (const uint8_t *)"\0\0\0\0", 4), 4);
    response[4] |= 0x80;
    store_be16(response, (uint16_t)len);
    assert_int_equal(guest_writes(guest, response, len + 2), len + 2);
    guest_asks_tcp(guest, &WWW);
    world_run_until(w, first_guest_got_one);
    assert_int_equal(COUNTED(w, no_query), 3);
}

static void an_idle_flow_is_closed_and_then_reset(void **state)
{
    struct world *w = *state;
    struct guest *guest;

    world_start(w);
    guest = guest_connects(w);
    world_skip(w, 9900);
    assert_false(guest->eof);
    world_skip(w, 200);
    assert_true(guest->eof);
    world_skip(w, 10100);
    assert_true(guest->reset);
    assert_int_equal(timers_next(w->timers), TIMERS_NEVER);
}

static void a_guest_that_does_not_read_is_reset(void **state)
{
    struct world *w = *state;
    struct guest *guest;

    world_add_server(w, answer_one);
    world_start(w);
    guest = guest_connects(w);
    guest->window = 1;
    guest_asks_tcp(guest, &WWW);
    world_run_asked(w, &w->servers[0], 1);
    world_settle(w);
    world_skip(w, 10100);
    assert_true(guest->reset);
    assert_int_equal(COUNTED(w, tcp_stalled), 1);
    assert_int_equal(w->dns->guest_answer_bytes, 0);
}

static void queued_answers_are_bounded_over_all_flows(void **state)
{
    struct world *w = *state;
    struct guest *guest;

    world_add_server(w, answer_one);
    world_start(w);
    guest = guest_connects(w);
    w->dns->guest_answer_bytes = DNS_GUEST_ANSWERS_BYTES;
    guest_asks_tcp(guest, &WWW);
    world_run_until(w, first_guest_is_closed);
    assert_true(guest->reset);
    assert_int_equal(COUNTED(w, no_memory), 1);
    w->dns->guest_answer_bytes = 0;
}

static void an_answer_for_a_flow_that_is_gone_goes_nowhere(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, NULL);
    struct guest *first, *second;

    world_start(w);
    first = guest_connects(w);
    guest_asks_tcp(first, &WWW);
    world_run_asked(w, server, 1);
    first->closed = true;
    first->upstream.close(first->ctx, first->token, TCP_CLOSE_RESET);
    second = guest_connects(w); /* in the same place */
    answer_one(server, &server->last);
    world_settle(w);
    assert_int_equal(first->got_len, 0);
    assert_int_equal(second->got_len, 0);
    assert_int_equal(first->upstream.write(first->ctx, first->token, NULL, 0), -ECONNRESET);
}

static void flows_beyond_the_bound_are_refused(void **state)
{
    struct world *w = *state;

    world_start(w);
    w->dns->guests_touched = DNS_GUEST_FLOWS_MAX;
    assert_true(guest_connects(w)->refused);
    assert_int_equal(COUNTED(w, tcp_flow_limit), 1);
    w->dns->guests_touched = 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_question_by_tcp_is_answered),
        CASE(a_question_may_come_byte_by_byte),
        CASE(every_split_of_two_questions_gives_two_replies),
        CASE(answers_come_in_the_order_they_are_known),
        CASE(a_half_closed_guest_gets_its_answers_and_then_fin),
        CASE(a_guest_that_says_nothing_gets_fin_for_its_fin),
        CASE(answers_wait_for_the_guests_window),
        CASE(an_answer_of_64_kib_arrives_whole),
        CASE(too_many_questions_shut_the_window_until_answers_have_left),
        CASE(an_overlong_message_is_formerr_and_the_next_is_read),
        CASE(empty_messages_and_responses_are_passed_over),
        CASE(an_idle_flow_is_closed_and_then_reset),
        CASE(a_guest_that_does_not_read_is_reset),
        CASE(queued_answers_are_bounded_over_all_flows),
        CASE(an_answer_for_a_flow_that_is_gone_goes_nowhere),
        CASE(flows_beyond_the_bound_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
