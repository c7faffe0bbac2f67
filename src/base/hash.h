/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

/* A keyed hash for tables whose keys a guest chooses: SipHash-1-3 (Aumasson, Bernstein). With a
 * secret key nobody can aim for collisions. The value depends on the machine's byte order and is
 * never to be stored or sent. */

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const uint64_t key[2], const void *data, size_t len);

#endif
