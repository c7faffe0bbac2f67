/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_WRITER_H
#define WIRE_WRITER_H

/* The checked way to write a format of varying length: the counterpart of reader.h.
 *
 * A write that does not fit writes nothing and marks the writer failed; failure is final, so that a
 * message may be written to its end before writer_ok() is asked once. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "wire/bytes.h"

struct writer {
    uint8_t *data;
    size_t len, capacity;
    bool failed;
};

static inline struct writer writer_of(void *data, size_t capacity)
{
    return (struct writer){.data = data, .capacity = capacity};
}

static inline bool writer_ok(const struct writer *w)
{
    return !w->failed;
}

/* Room for `len` bytes, which count as written, or NULL. */
static inline uint8_t *writer_room(struct writer *w, size_t len)
{
    uint8_t *here;

    if (w->failed || len > w->capacity - w->len) {
        w->failed = true;
        return NULL;
    }
    here = w->data + w->len;
    w->len += len;
    return here;
}

static inline void writer_bytes(struct writer *w, const void *from, size_t len)
{
    uint8_t *to = writer_room(w, len);

    if (to && len != 0)
        memcpy(to, from, len);
}

static inline void writer_zeros(struct writer *w, size_t len)
{
    uint8_t *to = writer_room(w, len);

    if (to && len != 0)
        memset(to, 0, len);
}

static inline void writer_u8(struct writer *w, uint8_t value)
{
    writer_bytes(w, &value, 1);
}

static inline void writer_be16(struct writer *w, uint16_t value)
{
    uint8_t *to = writer_room(w, 2);

    if (to)
        store_be16(to, value);
}

static inline void writer_be32(struct writer *w, uint32_t value)
{
    uint8_t *to = writer_room(w, 4);

    if (to)
        store_be32(to, value);
}

#endif
