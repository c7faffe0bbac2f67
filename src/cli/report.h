/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

/* What `run` and `serve` say on stderr, and what both do first. */

#include <culvert/engine.h>

#include "engine/config.h"

/* The counters that are not zero, in one write, so that lines of others do not come between. */
void report_counters(const struct culvert_engine *engine);
/* The guest's addresses, MTU and rules. */
void report_facts(const struct culvert_config *config);
/* A note on what the host does not let the guest have. */
void report_withheld(const struct culvert_engine *engine);

struct summary;
/* What was refused, in one write; nothing if that is nothing. `summary` may be NULL. */
void report_summary(struct summary *summary);
/* Writes what was learnt, if that was asked for, and says so; the engine is stopped. 0 or negative
 * errno. */
int report_learnt(struct culvert_engine *engine, const struct culvert_config *config);

/* Descriptors 0, 1 and 2 exist: otherwise the first ones opened would take their places. */
void ensure_stdio(void);
/* Each flow needs a descriptor: raises the soft limit to the hard one. */
void raise_descriptor_limit(void);

#endif
