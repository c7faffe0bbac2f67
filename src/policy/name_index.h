/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_NAME_INDEX_H
#define POLICY_NAME_INDEX_H

/* The compiled form of every name that rules and sets mention: from a name to the patterns that
 * match it, each with a number of the owner's. A lookup costs one hash of the name and one probe
 * for each of its suffixes (and each shape of glob there), however many patterns there are. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/names.h"

struct name_slot {
    uint32_t tag;    /* of the hash, and its place */
    uint32_t record; /* where in the arena; 0: free */
};

/* How a glob's label looks. */
struct name_shape {
    uint8_t prefix, suffix; /* bytes before and behind the '*' */
    uint32_t next;          /* of the same suffix; 0: none */
};

struct name_index {
    struct name_slot *slots;
    uint32_t slot_count, record_count;
    uint8_t *arena; /* records: number, kind, length, name */
    size_t arena_len, arena_capacity;
    struct name_shape *shapes; /* the first is not used */
    uint32_t shape_count;
    unsigned deepest; /* labels of the longest suffix worth a probe */
};

/* All zero: empty. The number of `pattern`, 0 if it is new; to be set, not 0, by *ret, which is
 * valid as long as nothing is added. 0 or -ENOMEM (also for more than 4 GiB of names). */
int name_index_add(struct name_index *index, const struct name_pattern *pattern, uint32_t **ret);
/* Gives back what growing reserved. */
void name_index_finish(struct name_index *index);
void name_index_clear(struct name_index *index);

/* Calls `visit` with the number of each pattern that matches. */
void name_index_match(const struct name_index *index, const struct dns_name *name,
                      void (*visit)(void *ctx, uint32_t number), void *ctx);
/* Calls `visit` with each pattern's number, for it to change. */
void name_index_each(struct name_index *index, void (*visit)(void *ctx, uint32_t *number),
                     void *ctx);

#endif
