/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A policy is immutable. Another is built on the thread of whoever asks for it, a million names or
 * not, and handed to the poll thread by exchanging one pointer. Between two turns the poll thread
 * puts it in force: from then on everything new is judged by it, and so is what is open already:
 *
 *     DNS             each answer is judged when it is given, also from the cache
 *     TCP             all connections are gone through, some a turn (rejudge.c); the denied are
 *                     reset on both sides; what is still being looked into waits for its name
 *     UDP, echo       a mapping's peers are judged as they are met again, by what the guest sends
 *                     or by what they send: nobody has to go through all of them (mapping.c)
 *     published UDP   likewise (publish_udp.c)
 *
 * When all connections have been judged, the old policy is handed back to the thread that waits for
 * it, to be freed there: the poll thread neither builds nor frees.
 *
 * One at a time replaces, under a lock that starting and stopping take too. So the poll thread
 * either runs for as long as somebody waits for it, or does not run at all; then whoever holds the
 * lock does its part. The poll thread itself cannot wait for itself, and is refused. */

#include "engine/policy_swap.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/refs.h"
#include "engine/config.h"
#include "engine/internal.h"
#include "engine/policy_expiry.h"
#include "engine/rejudge.h"
#include "policy/pins.h"

/* Judging takes 0.1 us a connection, and a reset up to 0.1 ms: the kernel delivers it on the spot.
 */
#define CONNECTIONS_AT_ONCE 16
#define TURN_TIME           MS_NS

/* Lives on the stack of the thread that waits for it. */
struct policy_replacement {
    struct policy *policy; /* the new one; when it is done, the old one */
    struct pins *pins;     /* for an engine that has none; NULL: it has, or needs none */
    enum dns_denied denied;
    uint64_t flows_reset;
    sem_t done;
};

/* ---- sources ---- */

struct policy_source *policy_source_ref(struct policy_source *source)
{
    if (source)
        refs_take(&source->refs);
    return source;
}

struct policy_source *policy_source_unref(struct policy_source *source)
{
    if (source && refs_drop(&source->refs)) {
        policy_builder_free(source->builder);
        free(source);
    }
    return NULL;
}

/* *ret is NULL if no rule ends. 0 or -ENOMEM. */
static int source_of(const struct policy_builder *builder, struct policy_source **ret)
{
    struct policy_source *source;

    *ret = NULL;
    if (!policy_builder_expires(builder))
        return 0;
    source = calloc(1, sizeof *source);
    if (!source)
        return -ENOMEM;
    source->refs = 1;
    source->builder = policy_builder_copy(builder);
    if (!source->builder) {
        policy_source_unref(source);
        return -ENOMEM;
    }
    *ret = source;
    return 0;
}

/* ---- on the poll thread, or in its place ---- */

void policy_swap_polling(struct culvert_engine *engine, bool polling)
{
    __atomic_store_n(&engine->swap.poll_thread, polling ? (uintptr_t)pthread_self() : 0,
                     __ATOMIC_RELAXED);
}

bool policy_swap_is_polling(const struct culvert_engine *engine)
{
    return __atomic_load_n(&engine->swap.poll_thread, __ATOMIC_RELAXED) ==
           (uintptr_t)pthread_self();
}

static void tell_replaced(struct culvert_engine *engine)
{
    struct event event = {
        .kind = CULVERT_EVENT_POLICY_REPLACED,
        .rule = UINT32_MAX,
        .generation = policy_generation(engine->policy),
    };

    count(&engine->counters, COUNTER_policy_replaced);
    tell_event(engine, &event);
}

static void begin(struct culvert_engine *engine, struct policy_replacement *replacement)
{
    struct policy_swap *swap = &engine->swap;
    struct policy *old = engine->policy;

    if (engine->events)
        events_flush(engine->events, engine->now); /* they name the old one's rules */
    engine->policy = replacement->policy;
    replacement->policy = old;
    engine->dns_denied = replacement->denied;
    if (replacement->pins) {
        engine->pins = replacement->pins;
        replacement->pins = NULL;
    }
    engine_guard_dns(engine);
    relay_policy_changed(engine->relay);
    if (engine->publish)
        publish_policy_changed(engine->publish);
    tell_replaced(engine);
    swap->current = replacement;
    swap->at = 0;
}

void policy_swap_take(struct culvert_engine *engine)
{
    struct policy_replacement *replacement =
        __atomic_exchange_n(&engine->swap.wanted, NULL, __ATOMIC_ACQUIRE);

    if (replacement)
        begin(engine, replacement);
}

bool policy_swap_run(struct culvert_engine *engine)
{
    struct policy_swap *swap = &engine->swap;
    struct policy_replacement *replacement = swap->current;

    if (!replacement)
        return false;
    const uint64_t until = clock_now() + TURN_TIME;

    while (rejudge_connections(engine, &swap->at, CONNECTIONS_AT_ONCE, &replacement->flows_reset)) {
        if (clock_now() >= until)
            return true;
    }
    swap->current = NULL;
    sem_post(&replacement->done); /* it is gone from here on */
    return false;
}

/* ---- replacing, under the lock ---- */

static void apply_by_poll_thread(struct culvert_engine *engine,
                                 struct policy_replacement *replacement)
{
    __atomic_store_n(&engine->swap.wanted, replacement, __ATOMIC_RELEASE);
    culvert_wake_signal(&engine->state->proxy_wake);
    while (sem_wait(&replacement->done) < 0)
        ; /* EINTR: a signal of the program's */
}

static void apply_here(struct culvert_engine *engine, struct policy_replacement *replacement)
{
    engine->now = clock_now();
    stack_set_now(engine->stack, engine->now);
    policy_swap_polling(engine, true); /* events are told from here, and their callbacks know it */
    begin(engine, replacement);
    while (policy_swap_run(engine))
        ;
    if (engine->events)
        events_flush(engine->events, engine->now);
    policy_swap_polling(engine, false);
}

/* 0, or negative errno: nothing has changed. */
static int prepare(struct culvert_engine *engine, struct policy_replacement *replacement,
                   const struct policy_source *source)
{
    int r = 0;

    policy_set_generation(replacement->policy, engine->swap.facts.generation + 1);
    if (source && engine->running)
        r = policy_expiry_ensure(engine);
    if (r == 0 && policy_has_names(replacement->policy) && !engine->pins) {
        replacement->pins = pins_new(NULL, engine->addresses.hash_key);
        r = replacement->pins ? 0 : -ENOMEM;
    }
    if (r == 0 && sem_init(&replacement->done, 0, 0) < 0)
        r = -errno;
    return r;
}

/* The old policy is in the replacement afterwards. 0, or negative errno: nothing has changed. */
static int put_in_force(struct culvert_engine *engine, struct policy_replacement *replacement,
                        const struct policy_source *source)
{
    struct policy_facts *facts = &engine->swap.facts;
    int r = prepare(engine, replacement, source);

    if (r < 0) {
        pins_free(replacement->pins);
        return r;
    }
    facts->generation++;
    facts->rule_count = policy_rule_count(replacement->policy);
    if (engine->running)
        apply_by_poll_thread(engine, replacement);
    else
        apply_here(engine, replacement);
    facts->flows_reset = replacement->flows_reset;
    sem_destroy(&replacement->done);
    policy_expiry_notice(engine);
    return 0;
}

int policy_swap_follow(struct culvert_engine *engine, struct policy *take_policy,
                       uint32_t generation, int64_t built_at)
{
    struct policy_replacement replacement = {.policy = take_policy};
    struct policy_swap *swap = &engine->swap;
    int r = -ESTALE;

    pthread_mutex_lock(&swap->lock);
    replacement.denied = engine->dns_denied;
    if (swap->facts.generation == generation)
        r = put_in_force(engine, &replacement, swap->source);
    if (r == 0)
        swap->built_at = built_at;
    pthread_mutex_unlock(&swap->lock);
    policy_free(replacement.policy);
    return r;
}

/* ---- the API ---- */

static int fail(struct culvert_error *error, int r)
{
    const char *message = "out of memory";

    if (r == -EDEADLK)
        message = "policy: the engine's own thread cannot wait for itself; let another thread than "
                  "the one of its callbacks replace the policy";
    else if (r != -ENOMEM)
        message = strerror(-r);
    if (error)
        snprintf(error->message, sizeof error->message, "%s", message);
    return r;
}

/* What is built before the lock is taken. */
struct draft {
    struct policy *policy;
    struct policy_source *source;
    int64_t built_at;
    uint64_t build_time;
};

static void draft_clear(struct draft *draft)
{
    policy_free(draft->policy);
    policy_source_unref(draft->source);
}

static int draft_build(const struct policy_builder *builder, struct draft *ret)
{
    const uint64_t begun = clock_now();
    int r = source_of(builder, &ret->source);

    if (r < 0)
        return r;
    ret->built_at = time(NULL);
    ret->policy = policy_build_at(builder, 1, ret->built_at);
    ret->build_time = clock_now() - begun;
    return ret->policy ? 0 : -errno;
}

/* The draft's place is the old one's afterwards, to be freed without the lock. */
static int draft_put_in_force(struct culvert_engine *engine, struct draft *draft,
                              enum dns_denied denied)
{
    struct policy_replacement replacement = {.policy = draft->policy, .denied = denied};
    struct policy_source *old = engine->swap.source;
    int r = put_in_force(engine, &replacement, draft->source);

    if (r < 0)
        return r;
    engine->swap.source = draft->source;
    engine->swap.built_at = draft->built_at;
    engine->swap.build_time = draft->build_time;
    draft->source = old;
    draft->policy = replacement.policy;
    return 0;
}

int culvert_engine_set_policy(struct culvert_engine *engine, const struct culvert_config *config,
                              struct culvert_error *error)
{
    struct draft draft = {NULL};
    int r;

    if (policy_swap_is_polling(engine))
        return fail(error, -EDEADLK);
    r = config_check_policy(config, error);
    if (r == -EINVAL)
        return r;
    if (r == 0)
        r = draft_build(config->policy, &draft);
    if (r == 0) {
        pthread_mutex_lock(&engine->swap.lock);
        r = draft_put_in_force(engine, &draft, config->dns_denied);
        pthread_mutex_unlock(&engine->swap.lock);
    }
    draft_clear(&draft);
    return r < 0 ? fail(error, r) : 0;
}

struct policy_facts policy_swap_facts(struct culvert_engine *engine)
{
    struct policy_facts facts;

    pthread_mutex_lock(&engine->swap.lock);
    facts = engine->swap.facts;
    pthread_mutex_unlock(&engine->swap.lock);
    return facts;
}

/* ---- beginning and end ---- */

int policy_swap_init(struct culvert_engine *engine, const struct culvert_config *config)
{
    struct policy_swap *swap = &engine->swap;
    struct draft draft = {NULL};
    int r = draft_build(config->policy, &draft);

    if (r < 0) {
        draft_clear(&draft);
        return r;
    }
    engine->policy = draft.policy;
    engine->dns_denied = config->dns_denied;
    swap->source = draft.source;
    swap->built_at = draft.built_at;
    swap->build_time = draft.build_time;
    swap->facts = (struct policy_facts){
        .generation = policy_generation(engine->policy),
        .rule_count = policy_rule_count(engine->policy),
    };
    if (engine_goes_by_names(engine) &&
        !(engine->pins = pins_new(NULL, engine->addresses.hash_key)))
        return -ENOMEM;
    return 0;
}

int policy_swap_start(struct culvert_engine *engine)
{
    struct policy_swap *swap = &engine->swap;
    struct policy_replacement replacement = {.denied = engine->dns_denied};
    const int64_t now = time(NULL);
    int r;

    if (!swap->source)
        return 0;
    if (policy_expires(engine->policy) <= now) {
        replacement.policy = policy_build_at(swap->source->builder, 1, now);
        if (!replacement.policy)
            return -errno;
        r = put_in_force(engine, &replacement, swap->source);
        policy_free(replacement.policy);
        if (r < 0)
            return r;
        swap->built_at = now;
    }
    return policy_expiry_ensure(engine);
}

void policy_swap_end(struct culvert_engine *engine)
{
    engine->swap.expiry = policy_expiry_free(engine->swap.expiry);
}

void policy_swap_fini(struct culvert_engine *engine)
{
    policy_free(engine->policy);
    policy_source_unref(engine->swap.source);
    pthread_mutex_destroy(&engine->swap.lock);
}
