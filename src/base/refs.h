/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_REFS_H
#define BASE_REFS_H

/* Reference counts that several threads may hold on to. */

#include <stdbool.h>
#include <stdint.h>

static inline void refs_take(uint32_t *refs)
{
    __atomic_fetch_add(refs, 1, __ATOMIC_RELAXED);
}

/* True: that was the last one, and everything other holders did is visible. When the count reads 1
 * the only reference is the caller's, so nobody can change it meanwhile and no atomic
 * read-modify-write is needed: the usual case on the data path. */
static inline bool refs_drop(uint32_t *refs)
{
    return __atomic_load_n(refs, __ATOMIC_ACQUIRE) == 1 ||
           __atomic_fetch_sub(refs, 1, __ATOMIC_ACQ_REL) == 1;
}

/* The caller's reference is the only one, and what other holders did is visible. */
static inline bool refs_is_only(const uint32_t *refs)
{
    return __atomic_load_n(refs, __ATOMIC_ACQUIRE) == 1;
}

#endif
