/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_POLICY_SWAP_H
#define ENGINE_POLICY_SWAP_H

/* The policy in force, and how another takes its place while the engine runs. */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dns/dns.h"
#include "policy/policy.h"

struct culvert_config;
struct culvert_engine;
struct policy_expiry;
struct policy_replacement;

/* What a policy is built from again when one of its rules expires. */
struct policy_source {
    uint32_t refs;
    struct policy_builder *builder;
};

struct policy_facts {
    uint32_t generation;  /* 1: the one the engine was made with */
    uint32_t rule_count;  /* the profile's included */
    uint64_t flows_reset; /* open TCP flows that it denied when it came into force */
};

/* The lock is for those who replace the policy, start or stop. The poll thread never takes it; so
 * whoever holds it may wait for the poll thread. What is not said to be somebody else's is read and
 * written under the lock. */
struct policy_swap {
    pthread_mutex_t lock;
    uintptr_t poll_thread; /* its pthread_self(), for itself to know; 0: it does not run */

    struct policy_replacement *wanted;  /* handed to the poll thread */
    struct policy_replacement *current; /* the poll thread's: flows are being judged again … */
    uint32_t at;                        /* … from here on */

    struct policy_source *source; /* NULL: no rule ends */
    int64_t built_at;             /* seconds since 1970: what had expired then is left out */
    uint64_t build_time;          /* ns that it took */
    struct policy_facts facts;
    struct policy_expiry *expiry; /* NULL: no thread looks after rules that end */
};

/* The engine's first policy. 0 or negative errno. */
int policy_swap_init(struct culvert_engine *engine, const struct culvert_config *config);
/* Nothing is replaced any more; to be said before anything of the engine is freed. */
void policy_swap_end(struct culvert_engine *engine);
void policy_swap_fini(struct culvert_engine *engine);

/* Under the lock, before the poll thread is started: what has expired meanwhile ends now, what will
 * is looked after. 0 or negative errno. */
int policy_swap_start(struct culvert_engine *engine);

/* The poll thread's: it begins and ends; takes over what has been handed to it; judges some of the
 * open flows again. True: there are more. */
void policy_swap_polling(struct culvert_engine *engine, bool polling);
void policy_swap_take(struct culvert_engine *engine);
bool policy_swap_run(struct culvert_engine *engine);

/* Is the caller the poll thread, or in its place? Then it cannot take the lock. Any thread. */
bool policy_swap_is_polling(const struct culvert_engine *engine);

/* Any thread but the poll thread. */
struct policy_facts policy_swap_facts(struct culvert_engine *engine);

/* ---- for policy_expiry.c ---- */

struct policy_source *policy_source_ref(struct policy_source *source);
struct policy_source *policy_source_unref(struct policy_source *source);
/* Puts `take_policy` in force if that of `generation` still is: it leaves out what had expired at
 * `built_at`. 0, -ESTALE: another came between; or negative errno. */
int policy_swap_follow(struct culvert_engine *engine, struct policy *take_policy,
                       uint32_t generation, int64_t built_at);

#endif
