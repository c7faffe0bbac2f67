/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CULVERT_ENGINE_H
#define CULVERT_ENGINE_H

/** @file
 * One guest's network: configure, start, stop.
 *
 * Configuration is by name and text, the same names as the command's long options and the keys of
 * `--config` documents ("mtu", "guest-ipv4", "rule", …), so that all three have one manual:
 * culvert(1).
 */

#include <culvert/shared_state.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct culvert_engine;
struct culvert_config;

/** Where a call that can be mended by its user says what was wrong, where, and the mend. */
struct culvert_error {
    char message[512]; /**< one sentence, no newline; UTF-8 */
};

/** The defaults of DESIGN §5: 10.0.2.0/24, MTU 1500, profile `public`. NULL with errno ENOMEM. */
struct culvert_config *culvert_config_new(void);
/** Accepts NULL; returns NULL. */
struct culvert_config *culvert_config_free(struct culvert_config *config);
/** Sets `name` to `value`; repeatable names (rule, dns, …) append. 0, or -EINVAL and `error` filled
 * (may be NULL). Not thread-safe. */
int culvert_config_set(struct culvert_config *config, const char *name, const char *value,
                       struct culvert_error *error);

/** Builds an engine from `config` (borrowed, may be freed afterwards). NULL with errno, and `error`
 * filled. Does not start a thread. */
struct culvert_engine *culvert_engine_new(const struct culvert_config *config,
                                          struct culvert_error *error);
/** The rings, wakes and hook by which the guest's device is driven. Valid until
 * culvert_engine_free(). */
struct culvert_shared_state *culvert_engine_shared_state(struct culvert_engine *engine);
/** Gives the engine a TAP descriptor (IFF_NO_PI | IFF_VNET_HDR, taken over on success) to drive by
 * itself, in place of a NetWorker. Before _start. 0 or negative errno. */
int culvert_engine_attach_tap(struct culvert_engine *engine, int take_fd);
/** Gives the engine a front end to drive by itself: `kind` and `where` as culvert-serve(1) has them
 * ("stream", "dgram", "vhost-user", "tap", "interface"). It is ready for a guest when this has
 * returned. Before _start. 0, or negative errno and `error` filled (may be NULL). */
int culvert_engine_attach(struct culvert_engine *engine, const char *kind, const char *where,
                          struct culvert_error *error);
/** Starts the poll thread. 0 or negative errno; -EDEADLK from a callback on the engine's own
 * thread. */
int culvert_engine_start(struct culvert_engine *engine);
/** Waits, at most `ms`, until host connections have taken every byte that was acknowledged to the
 * guest: for a guest that has ended, before _stop. 0 or -ETIMEDOUT. Not the poll thread's. */
int culvert_engine_drain(const struct culvert_engine *engine, unsigned ms);
/** Ends the poll thread, promptly from any state. 0, also when it was not running; -EDEADLK from a
 * callback on the engine's own thread (of events, or the termination hook), which cannot wait for
 * itself: tell another one. May be followed by _start; open flows are reset by _free. */
int culvert_engine_stop(struct culvert_engine *engine);
/** Stops if needed; resets open flows. Accepts NULL; returns NULL, or `engine` as it was where
 * _stop cannot be called. */
struct culvert_engine *culvert_engine_free(struct culvert_engine *engine);

/** Replaces the policy by that of `config`: its rules, profile, policy file with its sets and
 * lists, host addresses, what `dns-host` names may lead to, and `dns-denied`; nothing else of
 * `config` is looked at. Any thread but the engine's own, before start, while it runs, and after;
 * several threads take turns.
 *
 * When it returns, the new policy is in force: everything new has been judged by it since one
 * moment between two frames, and everything open has been judged again, with the name and the
 * lookup that admitted it. Connections that it denies were reset on both sides, others were not
 * disturbed; denied datagrams and echoes pass no more, in either direction. It takes as long as
 * building the policy does (half a second for a million names), on the calling thread; the guest's
 * traffic does not wait for that. Rules with an end (`expires`) are replaced likewise, by
 * themselves.
 *
 * 0, or negative errno and `error` filled (may be NULL), and the policy stays as it was: -EINVAL,
 * what is wrong with `config`; -EDEADLK, called from a callback on the engine's own thread;
 * -ENOMEM.
 */
int culvert_engine_set_policy(struct culvert_engine *engine, const struct culvert_config *config,
                              struct culvert_error *error);

/** An engine with the option "learn": writes the policy of what the guest has used to the option's
 * file, which is replaced as a whole. Not while it runs. The number of rules, 0 also where nothing
 * was to be learnt; or negative errno and `error` filled (may be NULL). */
int culvert_engine_write_learnt(struct culvert_engine *engine, struct culvert_error *error);

/** Can the guest ping beyond the gateway? 0, or the negative errno with which the host forbade both
 * ping sockets (net.ipv4.ping_group_range) and raw ones. Any thread. */
int culvert_engine_ping_error(const struct culvert_engine *engine, bool ipv6);

/** Calls `visit` for each counter that is not zero, in a fixed order; `sentence` says what it
 * counts. Any thread. */
void culvert_engine_counters(const struct culvert_engine *engine,
                             void (*visit)(void *arg, const char *name, const char *sentence,
                                           uint64_t value),
                             void *arg);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
