/* SPDX-License-Identifier: Apache-2.0 */
/* Events as whoever embeds the engine gets them. */

#include "paper_guest.h"

#include <culvert/events.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEEN_MAX 64

struct seen {
    enum culvert_event_kind kind;
    uint64_t count;
    uint32_t generation;
    uint16_t remote_port;
    char remote[64], remedy[64], reason[64];
    pthread_t thread;
};

struct audience {
    struct guest guest;
    pthread_mutex_t lock;
    struct seen seen[SEEN_MAX];
    size_t count;
};

static void take(void *arg, const struct culvert_event *event)
{
    struct audience *audience = arg;
    struct seen *seen = &audience->seen[audience->count];

    assert_int_equal(event->size, sizeof *event);
    pthread_mutex_lock(&audience->lock);
    seen->kind = event->kind;
    seen->count = event->count;
    seen->generation = event->generation;
    seen->remote_port = event->remote_port;
    seen->thread = pthread_self();
    snprintf(seen->remote, sizeof seen->remote, "%s",
             event->remote_address ? event->remote_address : "");
    snprintf(seen->remedy, sizeof seen->remedy, "%s", event->remedy ? event->remedy : "");
    snprintf(seen->reason, sizeof seen->reason, "%s", event->reason ? event->reason : "");
    if (audience->count + 1 < SEEN_MAX)
        audience->count++;
    pthread_mutex_unlock(&audience->lock);
}

static size_t count_of(struct audience *audience)
{
    pthread_mutex_lock(&audience->lock);
    size_t count = audience->count;
    pthread_mutex_unlock(&audience->lock);
    return count;
}

/* A policy without any rule. */
static void deny_all(struct guest *guest)
{
    struct culvert_config *config = culvert_config_new();
    struct culvert_error error = {""};

    assert_int_equal(culvert_config_set(config, "profile", "none", &error), 0);
    if (culvert_engine_set_policy(guest->engine, config, &error) < 0)
        fail_msg("%s", error.message);
    culvert_config_free(config);
}

static struct audience *begin(uint8_t subnet)
{
    struct audience *audience = calloc(1, sizeof *audience);

    assert_non_null(audience);
    pthread_mutex_init(&audience->lock, NULL);
    guest_begin(&audience->guest, subnet, NULL);
    assert_int_equal(culvert_engine_set_event_callback(audience->guest.engine, take, audience), 0);
    return audience;
}

static void start(struct audience *audience)
{
    guest_plug(&audience->guest);
    assert_int_equal(culvert_engine_start(audience->guest.engine), 0);
    assert_true(ask_for_gateway(&audience->guest));
    gateway_answers(&audience->guest);
}

static void end(struct audience *audience)
{
    pthread_mutex_destroy(&audience->lock);
    free(audience);
}

/* The guest hears the refusal: by then the event has been told or counted. */
static void be_refused(struct guest *guest, uint16_t from)
{
    send_segment(guest, from, 80, 0x02, 1000, 0);
    culvert_frame_unref(await_frame(guest, 0x0800));
}

static void refusals_come_to_the_callback_folded_and_all_of_them_before_stop_returns(void **state)
{
    struct audience *audience = begin(81);
    uint64_t sum = 0;

    (void)state;
    deny_all(&audience->guest);
    start(audience);
    for (uint16_t port = 4000; port < 4005; port++)
        be_refused(&audience->guest, port);
    assert_int_equal(count_of(audience), 2); /* the new policy, and the first refusal */
    assert_int_equal(audience->seen[0].kind, CULVERT_EVENT_POLICY_REPLACED);
    assert_int_equal(audience->seen[0].generation, 2);
    assert_int_equal(audience->seen[1].kind, CULVERT_EVENT_DENIED);
    assert_string_equal(audience->seen[1].remote, "10.81.2.2");
    assert_int_equal(audience->seen[1].remote_port, 80);
    assert_string_equal(audience->seen[1].reason, "policy_denied_default");
    assert_string_equal(audience->seen[1].remedy, "allow tcp to host port 80");
    assert_false(pthread_equal(audience->seen[1].thread, pthread_self()));
    stops_promptly(&audience->guest);
    for (size_t i = 1; i < audience->count; i++)
        sum += audience->seen[i].count;
    assert_int_equal(sum, 5);
    end(audience);
}

static void repeats_are_told_within_two_seconds_without_anything_else_happening(void **state)
{
    struct audience *audience = begin(82);
    uint64_t limit = now_ms() + 5000;

    (void)state;
    deny_all(&audience->guest);
    start(audience);
    for (uint16_t port = 4000; port < 4003; port++)
        be_refused(&audience->guest, port);
    while (count_of(audience) < 3 && now_ms() < limit)
        usleep(10000);
    assert_int_equal(count_of(audience), 3);
    assert_int_equal(audience->seen[2].count, 2);
    stops_promptly(&audience->guest);
    assert_int_equal(audience->count, 3);
    end(audience);
}

static void the_callback_is_not_changed_while_the_engine_runs(void **state)
{
    struct audience *audience = begin(83);

    (void)state;
    start(audience);
    assert_int_equal(culvert_engine_set_event_callback(audience->guest.engine, NULL, NULL), -EBUSY);
    assert_int_equal(culvert_engine_stop(audience->guest.engine), 0);
    assert_int_equal(culvert_engine_set_event_callback(audience->guest.engine, NULL, NULL), 0);
    deny_all(&audience->guest);
    assert_int_equal(audience->count, 0); /* nobody listens any more */
    assert_int_equal(culvert_engine_reopen_events(audience->guest.engine), 0); /* there is none */
    stops_promptly(&audience->guest);
    end(audience);
}

/* What the engine's own thread cannot wait for. */
static void try_what_would_wait(void *arg, const struct culvert_event *event)
{
    struct audience *audience = arg;

    (void)event;
    assert_int_equal(culvert_engine_stop(audience->guest.engine), -EDEADLK);
    assert_int_equal(culvert_engine_start(audience->guest.engine), -EDEADLK);
    assert_ptr_equal(culvert_engine_free(audience->guest.engine), audience->guest.engine);
    __atomic_add_fetch(&audience->count, 1, __ATOMIC_RELEASE);
}

static void a_callback_cannot_stop_its_own_engine(void **state)
{
    struct audience *audience = begin(84);
    struct guest *guest = &audience->guest;

    (void)state;
    assert_int_equal(
        culvert_engine_set_event_callback(guest->engine, try_what_would_wait, audience), 0);
    deny_all(guest); /* told on this thread */
    assert_int_equal(audience->count, 1);
    start(audience);
    be_refused(guest, 4000);
    be_refused(guest, 4001); /* the engine goes on */
    assert_true(__atomic_load_n(&audience->count, __ATOMIC_ACQUIRE) >= 2);
    stops_promptly(guest);
    end(audience);
}

static void what_was_learnt_is_written_when_the_engine_does_not_run(void **state)
{
    struct culvert_config *config = culvert_config_new();
    char path[] = "/tmp/culvert-learnt-XXXXXX";
    struct culvert_error error = {""};
    struct culvert_engine *engine;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(culvert_config_set(config, "learn", path, &error), 0);
    assert_int_equal(culvert_config_set(config, "ipv6", "off", &error), 0);
    engine = culvert_engine_new(config, &error);
    assert_non_null(engine);
    assert_int_equal(culvert_engine_start(engine), 0);
    assert_int_equal(culvert_engine_write_learnt(engine, &error), -EBUSY);
    assert_non_null(strstr(error.message, "stop"));
    assert_int_equal(culvert_engine_stop(engine), 0);
    assert_int_equal(culvert_engine_write_learnt(engine, NULL), 0);
    assert_int_equal(access(path, R_OK), 0);
    culvert_engine_free(engine);
    culvert_config_free(config);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            refusals_come_to_the_callback_folded_and_all_of_them_before_stop_returns,
            count_what_there_is, nothing_is_left),
        cmocka_unit_test_setup_teardown(
            repeats_are_told_within_two_seconds_without_anything_else_happening,
            count_what_there_is, nothing_is_left),
        cmocka_unit_test_setup_teardown(the_callback_is_not_changed_while_the_engine_runs,
                                        count_what_there_is, nothing_is_left),
        cmocka_unit_test_setup_teardown(a_callback_cannot_stop_its_own_engine, count_what_there_is,
                                        nothing_is_left),
        cmocka_unit_test_setup_teardown(what_was_learnt_is_written_when_the_engine_does_not_run,
                                        count_what_there_is, nothing_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
