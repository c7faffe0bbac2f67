/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_PEEK_H
#define ENGINE_PEEK_H

/* Holding a TCP flow's first bytes until they tell the name it is meant for. */

#include "stack/stack.h"

struct culvert_engine;

/* Puts a peek between the stack and the upstream of `flow`, whose verdict is POLICY_NEED_NAME. If
 * there is no memory for it the flow is reset. A flow that is gone already is let be. */
void peek_tcp(struct culvert_engine *engine, struct flow_handle flow, const struct flow_key *key);
/* Does one stand there? */
bool peek_is_on(const struct culvert_engine *engine, struct flow_handle flow);

#endif
