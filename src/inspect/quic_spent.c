/* SPDX-License-Identifier: Apache-2.0 */
/* Two tables of hashes, open addressing, never more than half full. Each minute the young one
 * becomes the old one, whose place is emptied. A hash in place of the id may take one connection in
 * 2^50 for another, which then has to try again. */
#include "inspect/quic_spent.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/timers.h"

#define PLACES   (2 * QUIC_SPENT_MAX) /* a power of two */
#define INTERVAL (60 * SECOND_NS)

static uint64_t hash_of(const struct quic_spent *spent, const struct quic_cid *origin)
{
    const uint64_t hash = hash_bytes(spent->key, origin->bytes, origin->len);

    return hash ? hash : 1; /* 0: an empty place */
}

/* Where the hash is, or would be put. */
static uint64_t *place_of(uint64_t *table, uint64_t hash)
{
    size_t at = hash % PLACES;

    while (table[at] && table[at] != hash)
        at = (at + 1) % PLACES;
    return &table[at];
}

static void turn(struct quic_spent *spent, uint64_t now)
{
    const bool long_ago = now - spent->turned >= 2 * INTERVAL;
    uint64_t *emptied = spent->old;

    if (now - spent->turned < INTERVAL)
        return;
    spent->old = spent->young;
    spent->young = emptied;
    spent->young_count = 0;
    spent->turned = now;
    if (spent->young)
        memset(spent->young, 0, PLACES * sizeof *spent->young);
    if (long_ago && spent->old)
        memset(spent->old, 0, PLACES * sizeof *spent->old);
}

static bool is_in(uint64_t *table, uint64_t hash)
{
    return table && *place_of(table, hash) == hash;
}

bool quic_spent_has(struct quic_spent *spent, const struct quic_cid *origin, uint64_t now)
{
    const uint64_t hash = hash_of(spent, origin);

    turn(spent, now);
    return is_in(spent->young, hash) || is_in(spent->old, hash);
}

bool quic_spent_add(struct quic_spent *spent, const struct quic_cid *origin, uint64_t now)
{
    const uint64_t hash = hash_of(spent, origin);

    turn(spent, now);
    if (is_in(spent->young, hash))
        return true;
    if (!spent->young)
        spent->young = calloc(PLACES, sizeof *spent->young);
    if (!spent->young || spent->young_count == QUIC_SPENT_MAX)
        return false;
    *place_of(spent->young, hash) = hash;
    spent->young_count++;
    return true;
}

void quic_spent_fini(struct quic_spent *spent)
{
    free(spent->young);
    free(spent->old);
    spent->young = spent->old = NULL;
}
