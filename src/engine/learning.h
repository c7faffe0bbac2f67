/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_LEARNING_H
#define ENGINE_LEARNING_H

/* An engine that learns (--learn): what it notes, and the file it writes. engine->learn is not
 * NULL, unless said otherwise. */

#include "engine/events.h"
#include "engine/judgement.h"

struct culvert_config;
struct culvert_error;

/* Begins, if the configuration says so. 0; -ENOMEM; or negative errno with `error` (may be NULL)
 * filled: the file could not be written. */
int learning_begin(struct culvert_engine *engine, const struct culvert_config *config,
                   struct culvert_error *error);
void learning_end(struct culvert_engine *engine); /* also where it does not learn */

/* A flow passes, and all is known of it that will be. */
void learn_subject(struct culvert_engine *engine, const struct subject *subject);
/* `event` tells what was refused all the same. */
void learn_refused(struct culvert_engine *engine, const struct event *event);

#endif
