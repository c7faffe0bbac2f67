/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_READER_H
#define WIRE_READER_H

/* The one checked way through bytes of varying format.
 *
 * A reader never leaves its bytes. A read beyond them yields zeros (or NULL), marks the reader
 * failed and leaves nothing to read, so that a parser may read on and ask reader_ok() once, before
 * it believes anything. Failure is final. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/bytes.h"

struct reader {
    const uint8_t *at;
    size_t left;
    bool failed;
};

static inline struct reader reader_of(const void *data, size_t len)
{
    return (struct reader){.at = data, .left = len};
}

static inline bool reader_ok(const struct reader *r)
{
    return !r->failed;
}

static inline bool reader_at_end(const struct reader *r)
{
    return r->left == 0;
}

/* For the parser's own reasons: the format is broken here. */
static inline void reader_fail(struct reader *r)
{
    r->failed = true;
    r->left = 0;
}

/* The next `len` bytes, in place, or NULL. */
static inline const uint8_t *reader_bytes(struct reader *r, size_t len)
{
    const uint8_t *here = r->at;

    if (r->failed || len > r->left) {
        reader_fail(r);
        return NULL;
    }
    if (len != 0) {
        r->at += len;
        r->left -= len;
    }
    return here;
}

static inline void reader_skip(struct reader *r, size_t len)
{
    (void)reader_bytes(r, len);
}

/* Copies the next `len` bytes; zeros on failure. */
static inline void reader_copy(struct reader *r, void *to, size_t len)
{
    const uint8_t *from = reader_bytes(r, len);

    if (len == 0)
        return;
    if (from)
        memcpy(to, from, len);
    else
        memset(to, 0, len);
}

/* A reader of the next `len` bytes alone; failed if they are not there. */
static inline struct reader reader_sub(struct reader *r, size_t len)
{
    const uint8_t *from = reader_bytes(r, len);

    return (struct reader){.at = from, .left = r->failed ? 0 : len, .failed = r->failed};
}

static inline uint8_t reader_u8(struct reader *r)
{
    const uint8_t *from = reader_bytes(r, 1);
    return from ? *from : 0;
}

static inline uint16_t reader_be16(struct reader *r)
{
    const uint8_t *from = reader_bytes(r, 2);
    return from ? load_be16(from) : 0;
}

static inline uint32_t reader_be32(struct reader *r)
{
    const uint8_t *from = reader_bytes(r, 4);
    return from ? load_be32(from) : 0;
}

static inline uint64_t reader_be64(struct reader *r)
{
    const uint8_t *from = reader_bytes(r, 8);
    return from ? load_be64(from) : 0;
}

#endif
