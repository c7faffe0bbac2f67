/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_COUNTERS_H
#define BASE_COUNTERS_H

/* Every drop, refusal and repair has a name, a number and a sentence: the table is counters.def.h.
 */

#include <stdint.h>

enum counter {
#define COUNTER(name, sentence) COUNTER_##name,
#include "base/counters.def.h"
#undef COUNTER
    COUNTER_COUNT
};

struct counters {
    uint64_t value[COUNTER_COUNT];
};

/* Written by one thread at a time or several; read by any. */
static inline void count_n(struct counters *counters, enum counter which, uint64_t n)
{
    __atomic_store_n(&counters->value[which],
                     __atomic_load_n(&counters->value[which], __ATOMIC_RELAXED) + n,
                     __ATOMIC_RELAXED);
}

static inline void count(struct counters *counters, enum counter which)
{
    count_n(counters, which, 1);
}

/* For counters that several threads write at a time, all of them by this. */
static inline void count_shared(struct counters *counters, enum counter which, uint64_t n)
{
    __atomic_fetch_add(&counters->value[which], n, __ATOMIC_RELAXED);
}

static inline uint64_t counter_value(const struct counters *counters, enum counter which)
{
    return __atomic_load_n(&counters->value[which], __ATOMIC_RELAXED);
}

/* "tcp_syn_flow_limit" */
const char *counter_name(enum counter which);
/* "SYNs ignored because --max-flows flows are open" */
const char *counter_sentence(enum counter which);

#endif
