/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INSPECT_QUIC_OPENER_H
#define INSPECT_QUIC_OPENER_H

/* Decrypts a QUIC client's Initial packets (RFC 9001, section 5; version 2: RFC 9369). Their keys
 * follow from what stands in the clear, so they protect against accidents, not against readers. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/quic_initial.h"

struct quic_opener; /* ciphers made ready, and room for one packet; one thread */

/* NULL: ENOMEM, or ENOSYS where the TLS library has no AES-128-GCM. */
struct quic_opener *quic_opener_new(void);
struct quic_opener *quic_opener_free(struct quic_opener *opener);

/* Opens the Initial `packet` at `bytes` with the keys that follow from `origin`: the destination
 * connection id of the client's first Initial (after a Retry: of the first one after it).
 * `*largest` is the largest packet number seen so far under this origin, -1: none; it is raised.
 * 0, the payload being valid until the call after the next; -EBADMSG: not sealed with these keys.
 */
int quic_opener_open(struct quic_opener *opener, const struct quic_cid *origin,
                     const uint8_t *bytes, const struct quic_packet *packet, int64_t *largest,
                     const uint8_t **ret_payload, size_t *ret_len);

#endif
