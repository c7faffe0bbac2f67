/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WATCH_TCP_H
#define ENGINE_WATCH_TCP_H

/* Finding out for whom a TCP flow is meant, while it goes on (--learn). */

#include "stack/stack.h"

struct culvert_engine;

/* Puts a watch between the stack and the upstream of `flow`, which was let through. It holds
 * nothing back and goes away as soon as it knows. */
void watch_tcp(struct culvert_engine *engine, struct flow_handle flow, const struct flow_key *key);

#endif
