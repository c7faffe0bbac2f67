/* SPDX-License-Identifier: Apache-2.0 */
/* culvert_engine_set_policy(): from any thread, at any time; and rules that end, by a clock of this
 * test's. */

#include "paper_guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <culvert/events.h>

#include "engine/internal.h"
#include "engine/policy_expiry.h"

#define SECOND INT64_C(1000000000)
#define HOUR   INT64_C(3600)

#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16

static struct culvert_config *config_with(const char *rule)
{
    struct culvert_config *config = culvert_config_new();
    struct culvert_error error;

    assert_non_null(config);
    if (culvert_config_set(config, "rule", rule, &error) < 0)
        fail_msg("%s", error.message);
    return config;
}

static void replace(struct culvert_engine *engine, const char *rule)
{
    struct culvert_config *config = config_with(rule);
    struct culvert_error error = {""};

    if (culvert_engine_set_policy(engine, config, &error) < 0)
        fail_msg("%s", error.message);
    culvert_config_free(config);
}

static uint32_t generation(struct guest *guest)
{
    return policy_swap_facts(guest->engine).generation;
}

/* ---- connections ---- */

struct connection {
    uint16_t from, to;
    uint32_t ack; /* behind the SYN of the other side's */
    int peer;     /* the host's end */
};

static uint8_t flags_of(const struct culvert_frame *frame)
{
    return frame->data[47];
}

static void syn_gets(struct guest *guest, uint16_t from, uint16_t to, uint8_t flags,
                     uint32_t *ret_seq)
{
    struct culvert_frame *frame;

    send_segment(guest, from, to, SYN, 7, 0);
    frame = await_frame(guest, 0x0800);
    assert_int_equal(flags_of(frame), flags);
    memcpy(ret_seq, frame->data + 38, 4);
    *ret_seq = ntohl(*ret_seq);
    culvert_frame_unref(frame);
}

static void is_refused(struct guest *guest, uint16_t to)
{
    uint32_t seq;

    syn_gets(guest, 999, to, RST | ACK, &seq);
}

static struct connection connected(struct guest *guest, int listener, uint16_t from, uint16_t to)
{
    struct connection connection = {.from = from, .to = to};

    syn_gets(guest, from, to, SYN | ACK, &connection.ack);
    connection.ack++;
    send_segment(guest, from, to, ACK, 8, connection.ack);
    gateway_answers(guest); /* so the ACK was seen */
    connection.peer = accept(listener, NULL, NULL);
    assert_true(connection.peer >= 0);
    return connection;
}

static void was_reset(struct guest *guest, const struct connection *connection)
{
    struct culvert_frame *frame = await_frame(guest, 0x0800);
    char byte;

    assert_true(flags_of(frame) & RST);
    assert_int_equal(frame->data[36] << 8 | frame->data[37], connection->from);
    culvert_frame_unref(frame);
    assert_int_equal(recv(connection->peer, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(connection->peer);
}

/* The guest's FIN arrives. */
static void lives(struct guest *guest, const struct connection *connection)
{
    char byte;

    send_segment(guest, connection->from, connection->to, FIN | ACK, 8, connection->ack);
    assert_int_equal(recv(connection->peer, &byte, 1, 0), 0);
    close(connection->peer);
}

/* ---- replacing ---- */

static void before_the_start_it_takes_the_place_of_the_first(void **state)
{
    struct guest guest;
    uint16_t port;
    int listener = listen_on_loopback(8, &port);

    (void)state;
    guest_begin(&guest, 0, NULL);
    replace(guest.engine, "deny to any");
    assert_int_equal(generation(&guest), 2);
    guest_plug(&guest);
    assert_int_equal(culvert_engine_start(guest.engine), 0);
    gateway_answers(&guest);
    is_refused(&guest, port);
    stops_promptly(&guest);
    close(listener);
}

static void while_it_runs_the_denied_are_reset_and_others_live(void **state)
{
    struct guest guest;
    struct connection denied, allowed;
    uint16_t ports[2];
    int listeners[] = {listen_on_loopback(8, &ports[0]), listen_on_loopback(8, &ports[1])};
    char rule[64];

    (void)state;
    guest_start(&guest, 0, NULL);
    gateway_answers(&guest);
    denied = connected(&guest, listeners[0], 1000, ports[0]);
    allowed = connected(&guest, listeners[1], 1001, ports[1]);
    snprintf(rule, sizeof rule, "allow tcp to host port %u", ports[1]);
    replace(guest.engine, rule);
    assert_int_equal(policy_swap_facts(guest.engine).flows_reset, 1);
    was_reset(&guest, &denied);
    is_refused(&guest, ports[0]);
    lives(&guest, &allowed);
    stops_promptly(&guest);
    close(listeners[0]);
    close(listeners[1]);
}

static void after_the_stop_what_is_open_is_judged_again_too(void **state)
{
    struct guest guest;
    struct connection connection;
    uint16_t port;
    int listener = listen_on_loopback(8, &port);

    (void)state;
    guest_start(&guest, 0, NULL);
    gateway_answers(&guest);
    connection = connected(&guest, listener, 1000, port);
    assert_int_equal(culvert_engine_stop(guest.engine), 0);
    replace(guest.engine, "deny to any");
    assert_int_equal(policy_swap_facts(guest.engine).flows_reset, 1);
    assert_int_equal(culvert_engine_start(guest.engine), 0);
    was_reset(&guest, &connection);
    is_refused(&guest, port);
    stops_promptly(&guest);
    close(listener);
}

static void a_fault_is_told_and_leaves_everything_as_it_was(void **state)
{
    struct guest guest;
    struct connection connection;
    uint16_t port;
    int listener = listen_on_loopback(8, &port);
    struct culvert_config *config = config_with("deny to @nowhere");
    struct culvert_error error = {""};

    (void)state;
    guest_start(&guest, 0, NULL);
    gateway_answers(&guest);
    connection = connected(&guest, listener, 1000, port);
    assert_int_equal(culvert_engine_set_policy(guest.engine, config, &error), -EINVAL);
    assert_non_null(strstr(error.message, "there is no set \"nowhere\": define it"));
    assert_int_equal(culvert_engine_set_policy(guest.engine, config, NULL), -EINVAL);
    assert_int_equal(generation(&guest), 1);
    lives(&guest, &connection);
    stops_promptly(&guest);
    culvert_config_free(config);
    close(listener);
}

static void a_configuration_may_grow_and_be_set_again(void **state)
{
    struct guest guest;
    struct culvert_config *config = config_with("allow tcp to host port 1");
    uint32_t before;

    (void)state;
    guest_start(&guest, 0, NULL);
    assert_int_equal(culvert_engine_set_policy(guest.engine, config, NULL), 0);
    before = policy_swap_facts(guest.engine).rule_count;
    assert_int_equal(culvert_config_set(config, "rule", "allow tcp to host port 2", NULL), 0);
    assert_int_equal(culvert_engine_set_policy(guest.engine, config, NULL), 0);
    culvert_config_free(config);
    assert_int_equal(policy_swap_facts(guest.engine).rule_count, before + 1);
    stops_promptly(&guest);
}

/* ---- threads ---- */

#define THREADS 4
#define TIMES   25

static void *replaces(void *arg)
{
    for (int i = 0; i < TIMES; i++)
        replace(arg, i % 2 ? "deny tcp to a.test" : "allow tcp to host");
    return NULL;
}

static void many_threads_take_turns(void **state)
{
    struct guest guest;
    pthread_t threads[THREADS];

    (void)state;
    guest_start(&guest, 0, NULL);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, replaces, guest.engine), 0);
    for (int i = 0; i < 20; i++)
        gateway_answers(&guest);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(generation(&guest), 1 + THREADS * TIMES);
    stops_promptly(&guest);
}

static void it_may_be_stopped_and_started_meanwhile(void **state)
{
    struct guest guest;
    pthread_t threads[THREADS];

    (void)state;
    guest_start(&guest, 0, NULL);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, replaces, guest.engine), 0);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(culvert_engine_stop(guest.engine), 0);
        assert_int_equal(culvert_engine_start(guest.engine), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(generation(&guest), 1 + THREADS * TIMES);
    gateway_answers(&guest);
    stops_promptly(&guest);
}

struct callback {
    struct culvert_engine *engine;
    struct culvert_error error;
    int result, calls;
    uint32_t generation; /* of the last replacement that was told */
};

static void replace_from_within(void *arg, const struct culvert_event *event)
{
    struct callback *callback = arg;
    struct culvert_config *config = culvert_config_new();

    if (event->kind == CULVERT_EVENT_POLICY_REPLACED)
        callback->generation = event->generation;
    callback->result = culvert_engine_set_policy(callback->engine, config, &callback->error);
    culvert_config_free(config);
    callback->calls++;
}

static void from_the_engines_own_callback_it_is_refused_with_the_mend(void **state)
{
    struct guest guest;
    struct callback callback = {.result = 0};
    uint16_t port;
    int listener = listen_on_loopback(8, &port);

    (void)state;
    guest_begin(&guest, 0, NULL);
    callback.engine = guest.engine;
    assert_int_equal(
        culvert_engine_set_event_callback(guest.engine, replace_from_within, &callback), 0);
    replace(guest.engine, "deny to any"); /* told here, as there is no other thread yet */
    assert_int_equal(callback.calls, 1);
    assert_int_equal(callback.result, -EDEADLK);
    callback.result = 0;
    guest_plug(&guest);
    assert_int_equal(culvert_engine_start(guest.engine), 0);
    gateway_answers(&guest);
    is_refused(&guest, port);
    replace(guest.engine, "deny to any");
    assert_int_equal(culvert_engine_stop(guest.engine), 0);
    assert_int_equal(callback.calls, 3);
    assert_int_equal(callback.generation, 3);
    assert_int_equal(callback.result, -EDEADLK);
    assert_non_null(strstr(callback.error.message, "let another thread"));
    assert_int_equal(generation(&guest), 3);
    stops_promptly(&guest);
    close(listener);
}

/* ---- rules that end ---- */

/* "allow" of each of two ports ends at a moment of its own. */
static void guest_with_two_ends(struct guest *guest, int64_t first, int64_t second)
{
    char path[] = "/tmp/culvert-policy-XXXXXX", ends[2][32];
    struct culvert_config *config = culvert_config_new();
    struct culvert_error error;
    int fd = mkstemp(path);

    assert_true(fd >= 0 && config);
    for (int i = 0; i < 2; i++) {
        time_t end = (time_t)(i == 0 ? first : second);
        struct tm tm;

        assert_non_null(gmtime_r(&end, &tm));
        strftime(ends[i], sizeof ends[i], "%Y-%m-%dT%H:%M:%SZ", &tm);
    }
    dprintf(fd,
            "{\"version\":1,\"profile\":\"none\",\"rules\":["
            "{\"rule\":\"allow tcp to host port 1\",\"expires\":\"%s\"},"
            "{\"rule\":\"allow tcp to host port 2\",\"expires\":\"%s\"}]}",
            ends[0], ends[1]);
    close(fd);
    guest_begin(guest, 0, NULL);
    if (culvert_config_set(config, "policy", path, &error) < 0 ||
        culvert_engine_set_policy(guest->engine, config, &error) < 0)
        fail_msg("%s", error.message);
    culvert_config_free(config);
    unlink(path);
}

static bool allows(struct guest *guest, uint16_t port)
{
    const struct policy_query query = {
        .protocol = POLICY_TCP, .address = guest->engine->addresses.gateway4, .port = port};

    return policy_judge(guest->engine->policy, &guest->engine->world, &query).action ==
           POLICY_ALLOW;
}

static void each_rule_ends_at_its_second_and_not_before(void **state)
{
    const int64_t first = time(NULL) + HOUR, second = first + HOUR;
    struct guest guest;
    struct policy_expiry *expiry;
    int64_t again;

    (void)state;
    guest_with_two_ends(&guest, first, second);
    expiry = policy_expiry_new(guest.engine);
    assert_non_null(expiry);
    again = policy_expiry_step(expiry, (first - HOUR) * SECOND);
    assert_true(again < first * SECOND && again > (first - 10) * SECOND); /* to build ahead */
    assert_int_equal(policy_expiry_step(expiry, again), first * SECOND);
    assert_int_equal(policy_expiry_step(expiry, first * SECOND - 1), first * SECOND);
    assert_true(allows(&guest, 1));
    policy_expiry_step(expiry, first * SECOND);
    assert_false(allows(&guest, 1));
    assert_true(allows(&guest, 2));
    assert_int_equal(generation(&guest), 3);
    again = policy_expiry_step(expiry, first * SECOND);
    assert_true(again < second * SECOND && again > (second - 10) * SECOND);
    policy_expiry_step(expiry, second * SECOND + 1);
    assert_false(allows(&guest, 2));
    assert_int_equal(policy_expiry_step(expiry, second * SECOND + 2), POLICY_EXPIRY_NEVER);
    assert_int_equal(generation(&guest), 4);
    policy_expiry_free(expiry);
    stops_promptly(&guest);
}

static void a_clock_that_is_set_ends_rules_and_lets_them_live_again(void **state)
{
    const int64_t first = time(NULL) + HOUR, second = first + HOUR;
    struct guest guest;
    struct policy_expiry *expiry;

    (void)state;
    guest_with_two_ends(&guest, first, second);
    expiry = policy_expiry_new(guest.engine);
    policy_expiry_step(expiry, (second + HOUR) * SECOND); /* over both */
    assert_false(allows(&guest, 1) || allows(&guest, 2));
    assert_int_equal(policy_expiry_step(expiry, (second + HOUR) * SECOND), POLICY_EXPIRY_NEVER);
    policy_expiry_step(expiry, (first + 1) * SECOND); /* back between the two */
    assert_false(allows(&guest, 1));
    assert_true(allows(&guest, 2));
    policy_expiry_step(expiry, (first - 1) * SECOND);
    assert_true(allows(&guest, 1) && allows(&guest, 2));
    policy_expiry_step(expiry, first * SECOND);
    assert_false(allows(&guest, 1));
    policy_expiry_free(expiry);
    stops_promptly(&guest);
}

static void what_was_built_ahead_is_dropped_when_another_policy_comes(void **state)
{
    const int64_t first = time(NULL) + HOUR;
    struct guest guest;
    struct policy_expiry *expiry;

    (void)state;
    guest_with_two_ends(&guest, first, first + HOUR);
    expiry = policy_expiry_new(guest.engine);
    assert_int_equal(policy_expiry_step(expiry, first * SECOND - 1), first * SECOND);
    replace(guest.engine, "allow tcp to host port 1");
    assert_int_equal(policy_expiry_step(expiry, first * SECOND), POLICY_EXPIRY_NEVER);
    assert_true(allows(&guest, 1));
    assert_int_equal(generation(&guest), 3);
    policy_expiry_free(expiry);
    stops_promptly(&guest);
}

static void what_has_ended_before_the_start_is_never_in_force(void **state)
{
    const int64_t first = time(NULL) + 1;
    struct guest guest;

    (void)state;
    guest_with_two_ends(&guest, first, first + HOUR);
    while (time(NULL) < first)
        usleep(10000);
    guest_plug(&guest);
    assert_int_equal(culvert_engine_start(guest.engine), 0);
    assert_int_equal(generation(&guest), 3);
    gateway_answers(&guest);
    is_refused(&guest, 1);
    stops_promptly(&guest);
}

static void an_engine_ends_promptly_whatever_is_still_to_end(void **state)
{
    struct guest guest;

    (void)state;
    for (int i = 0; i < 10; i++) {
        guest_with_two_ends(&guest, time(NULL) + i % 2, time(NULL) + HOUR);
        assert_int_equal(culvert_engine_start(guest.engine), 0);
        stops_promptly(&guest);
    }
}

/* What libraries and sanitizers keep for good, they have from here on. */
static int warm_up(void **state)
{
    struct guest guest;

    (void)state;
    guest_with_two_ends(&guest, time(NULL) + HOUR, time(NULL) + HOUR);
    assert_int_equal(culvert_engine_start(guest.engine), 0);
    stops_promptly(&guest);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, count_what_there_is, nothing_is_left)
        TEST(before_the_start_it_takes_the_place_of_the_first),
        TEST(while_it_runs_the_denied_are_reset_and_others_live),
        TEST(after_the_stop_what_is_open_is_judged_again_too),
        TEST(a_fault_is_told_and_leaves_everything_as_it_was),
        TEST(a_configuration_may_grow_and_be_set_again),
        TEST(many_threads_take_turns),
        TEST(it_may_be_stopped_and_started_meanwhile),
        TEST(from_the_engines_own_callback_it_is_refused_with_the_mend),
        TEST(each_rule_ends_at_its_second_and_not_before),
        TEST(a_clock_that_is_set_ends_rules_and_lets_them_live_again),
        TEST(what_was_built_ahead_is_dropped_when_another_policy_comes),
        TEST(what_has_ended_before_the_start_is_never_in_force),
        TEST(an_engine_ends_promptly_whatever_is_still_to_end),
    };

    return cmocka_run_group_tests(tests, warm_up, NULL);
}
