/* SPDX-License-Identifier: Apache-2.0 */
#include "base/counters.h"

#include <assert.h>

static const char *const names[] = {
#define COUNTER(name, sentence) [COUNTER_##name] = #name,
#include "base/counters.def.h"
#undef COUNTER
};

static const char *const sentences[] = {
#define COUNTER(name, sentence) [COUNTER_##name] = sentence,
#include "base/counters.def.h"
#undef COUNTER
};

static_assert(sizeof names / sizeof names[0] == COUNTER_COUNT, "a name for every counter");

const char *counter_name(enum counter which)
{
    assert(which < COUNTER_COUNT && "counters come from the table");
    return names[which];
}

const char *counter_sentence(enum counter which)
{
    assert(which < COUNTER_COUNT && "counters come from the table");
    return sentences[which];
}
