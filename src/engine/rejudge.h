/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_REJUDGE_H
#define ENGINE_REJUDGE_H

/* What was admitted under an earlier policy, judged by the one in force. Poll thread. */

#include <stdbool.h>
#include <stdint.h>

#include "stack/stack.h"

struct culvert_engine;

/* At most `max` TCP connections, from *at (0 at first) on: the denied are reset on both sides, and
 * added to *flows_reset. True: there are more. */
bool rejudge_connections(struct culvert_engine *engine, uint32_t *at, uint32_t max,
                         uint64_t *flows_reset);
/* A peer of the guest's, who sends datagrams or echo replies: the relay's judge (ctx: the engine).
 */
bool rejudge_peer(void *ctx, const struct flow_key *key);

#endif
