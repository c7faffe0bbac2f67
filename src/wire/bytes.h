/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_BYTES_H
#define WIRE_BYTES_H

/* Integers in network and little-endian order at any alignment. The caller knows that the bytes are
 * there; where lengths vary, read through reader.h. */

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t load_be16(const void *from)
{
    uint16_t v;
    memcpy(&v, from, sizeof v);
    return be16toh(v);
}

static inline uint32_t load_be32(const void *from)
{
    uint32_t v;
    memcpy(&v, from, sizeof v);
    return be32toh(v);
}

static inline uint64_t load_be64(const void *from)
{
    uint64_t v;
    memcpy(&v, from, sizeof v);
    return be64toh(v);
}

static inline uint16_t load_le16(const void *from)
{
    uint16_t v;
    memcpy(&v, from, sizeof v);
    return le16toh(v);
}

static inline void store_be16(void *to, uint16_t value)
{
    value = htobe16(value);
    memcpy(to, &value, sizeof value);
}

static inline void store_be32(void *to, uint32_t value)
{
    value = htobe32(value);
    memcpy(to, &value, sizeof value);
}

static inline void store_be64(void *to, uint64_t value)
{
    value = htobe64(value);
    memcpy(to, &value, sizeof value);
}

static inline void store_le16(void *to, uint16_t value)
{
    value = htole16(value);
    memcpy(to, &value, sizeof value);
}

#endif
