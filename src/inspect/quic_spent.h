/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INSPECT_QUIC_SPENT_H
#define INSPECT_QUIC_SPENT_H

/* Connections whose Initials a server has seen. None of them may be read from its beginning again:
 * the server keeps the bytes that it got first, and would put them together with later ones into
 * another hello than the one we read. Whichever port the packets come from: servers go by the
 * connection id.
 *
 * An origin is remembered for one to two minutes, which is longer than a server waits for the rest
 * of a hello. */

#include <stdbool.h>
#include <stdint.h>

#include "wire/quic_initial.h"

#define QUIC_SPENT_MAX 16384u /* in a minute */

struct quic_spent {
    uint64_t key[2]; /* secret: the guest chooses what is hashed */
    uint64_t *young, *old;
    uint32_t young_count;
    uint64_t turned; /* when young became old */
};

bool quic_spent_has(struct quic_spent *spent, const struct quic_cid *origin, uint64_t now);
/* False: there were too many, or there is no memory. */
bool quic_spent_add(struct quic_spent *spent, const struct quic_cid *origin, uint64_t now);
void quic_spent_fini(struct quic_spent *spent);

#endif
