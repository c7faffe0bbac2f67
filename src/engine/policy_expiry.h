/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_POLICY_EXPIRY_H
#define ENGINE_POLICY_EXPIRY_H

/* The thread that ends rules at their time. */

#include <stdint.h>

struct culvert_engine;
struct policy_expiry;

/* Under the swap's lock. Makes the thread if there is none. 0 or negative errno. */
int policy_expiry_ensure(struct culvert_engine *engine);
/* Another policy is in force. Any thread, under the swap's lock. */
void policy_expiry_notice(struct culvert_engine *engine);
/* Ends the thread; not under the lock. Accepts NULL; returns NULL. */
struct policy_expiry *policy_expiry_free(struct policy_expiry *expiry);

/* ---- for tests: the same without the thread, by a clock of theirs ---- */

struct policy_expiry *policy_expiry_new(struct culvert_engine *engine);
#define POLICY_EXPIRY_NEVER INT64_MAX
/* Does what is due at `now` (ns since 1970). When to be called again: at this time, when another
 * policy is in force, or when the clock was set. */
int64_t policy_expiry_step(struct policy_expiry *expiry, int64_t now);

#endif
