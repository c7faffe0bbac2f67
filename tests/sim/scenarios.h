/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_SCENARIOS_H
#define SIM_SCENARIOS_H

#include "world.h"

#define SCENARIO_FLOWS_MAX 200

struct scenario {
    const char *name; /* a sentence with underscores */
    unsigned every;   /* runs for every Nth seed only: the heavy ones */
    void (*plan)(struct plan *plan, struct rng *rng);
    void (*flow)(const struct plan *plan, struct flow_plan *flow, struct rng *rng);
};

extern const struct scenario scenarios[];
extern const size_t scenario_count;

const struct scenario *scenario_find(const char *name);
/* Fills `plan` and `flows` (SCENARIO_FLOWS_MAX of them) for the seed. */
void scenario_make(const struct scenario *scenario, uint64_t seed, struct plan *plan,
                   struct flow_plan *flows);

#endif
