/* SPDX-License-Identifier: Apache-2.0 */

/* One hash table of records, with open addressing. A record is a kind and a name:
 *
 *   EXACT   a whole name, or a glob as it is written, '*' and all
 *   BELOW   a suffix: every name that ends in it, on a label's border, and it itself
 *   SHAPES  what stands to the right of a glob's label; its number begins the list of the shapes
 *           (bytes before and behind the '*') of the globs there
 *
 * Hashes are made label by label from the right, so one pass over a name gives the hash of every
 * suffix. To find globs, the label is rewritten to each shape that exists there ("api-7" with shape
 * 4+0 becomes "api-*"), and the result looked up as it stands.
 *
 * The hash has no key: only the policy's author puts names in. Bytes are compared in lower case;
 * lengths of labels are below 'A', so folding whole names is safe. */

#include "policy/name_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum record_kind { RECORD_EXACT, RECORD_BELOW, RECORD_SHAPES };

#define RECORD_HEADER 8 /* number (4), kind, length, padding that keeps numbers aligned */
#define FIRST_SLOTS   64
#define LABELS_MAX    128

static inline uint8_t fold(uint8_t c)
{
    return (uint8_t)(c + ((uint8_t)(c - 'A') < 26 ? 32 : 0));
}

/* ---- hashes ---- */

/* A name cut at its labels, the root not counted; hashes[i] is that of the suffix from label i on,
 * hashes[count] that of the root. */
struct cut_name {
    const uint8_t *bytes;
    size_t len, count;
    uint8_t starts[LABELS_MAX + 1];
    uint64_t hashes[LABELS_MAX + 1];
};

static inline uint64_t hash_label(uint64_t hash, const uint8_t *label)
{
    for (size_t i = 0; i <= label[0]; i++)
        hash = (hash ^ fold(label[i])) * UINT64_C(0x100000001b3);
    return hash;
}

static void cut(struct cut_name *ret, const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    ret->bytes = bytes;
    ret->len = len;
    ret->count = 0;
    while (at < len && bytes[at] != 0 && ret->count < LABELS_MAX) {
        ret->starts[ret->count++] = (uint8_t)at;
        at += bytes[at] + 1u;
    }
    ret->starts[ret->count] = (uint8_t)at;
    ret->hashes[ret->count] = UINT64_C(0xcbf29ce484222325);
    for (size_t i = ret->count; i-- > 0;)
        ret->hashes[i] = hash_label(ret->hashes[i + 1], bytes + ret->starts[i]);
}

static inline uint32_t tag_of(uint64_t hash, enum record_kind kind)
{
    hash = (hash ^ (uint64_t)kind << 32) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 29;
    hash *= UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(hash >> 32);
}

/* ---- records ---- */

static bool record_is(const struct name_index *index, uint32_t record, enum record_kind kind,
                      const uint8_t *bytes, size_t len)
{
    const uint8_t *at = index->arena + record;
    if (at[4] != kind || at[5] != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (at[RECORD_HEADER + i] != fold(bytes[i]))
            return false;
    }
    return true;
}

static uint32_t *number_of(const struct name_index *index, uint32_t record)
{
    return (uint32_t *)(void *)(index->arena + record); /* records are aligned */
}

static uint32_t slot_of(const struct name_index *index, uint32_t tag)
{
    return (uint32_t)((uint64_t)tag * index->slot_count >> 32);
}

/* The record, or 0 and where it would stand. */
static uint32_t find(const struct name_index *index, uint32_t tag, enum record_kind kind,
                     const uint8_t *bytes, size_t len, uint32_t *ret_slot)
{
    uint32_t slot = slot_of(index, tag);
    for (; index->slots[slot].record; slot = slot + 1 == index->slot_count ? 0 : slot + 1) {
        const struct name_slot *found = &index->slots[slot];
        if (found->tag == tag && record_is(index, found->record, kind, bytes, len))
            return found->record;
    }
    if (ret_slot)
        *ret_slot = slot;
    return 0;
}

/* The suffix of `name` from label `label` on. */
static uint32_t find_suffix(const struct name_index *index, const struct cut_name *name,
                            size_t label, enum record_kind kind)
{
    return find(index, tag_of(name->hashes[label], kind), kind, name->bytes + name->starts[label],
                name->len - name->starts[label], NULL);
}

static int resize(struct name_index *index, uint32_t slot_count)
{
    struct name_slot *old = index->slots;
    uint32_t old_count = index->slot_count;
    struct name_slot *slots = calloc(slot_count, sizeof *slots);
    if (!slots)
        return -ENOMEM;
    index->slots = slots;
    index->slot_count = slot_count;
    for (uint32_t i = 0; i < old_count; i++) {
        uint32_t slot = slot_of(index, old[i].tag);
        if (!old[i].record)
            continue;
        while (slots[slot].record)
            slot = slot + 1 == slot_count ? 0 : slot + 1;
        slots[slot] = old[i];
    }
    free(old);
    return 0;
}

static int reserve_arena(struct name_index *index, size_t more)
{
    if (index->arena_capacity - index->arena_len >= more)
        return 0;
    size_t capacity = index->arena_capacity + index->arena_capacity / 2 + 4096;
    if (capacity > UINT32_MAX)
        return -ENOMEM;
    void *larger = realloc(index->arena, capacity);
    if (!larger)
        return -ENOMEM;
    index->arena = larger;
    index->arena_capacity = capacity;
    return 0;
}

static int reserve(struct name_index *index, size_t len)
{
    if (index->arena_len == 0) {
        int r = reserve_arena(index, RECORD_HEADER);
        if (r < 0)
            return r;
        index->arena_len = RECORD_HEADER; /* no record is at 0 */
    }
    if (index->record_count >= index->slot_count / 4 * 3) {
        if (index->slot_count > UINT32_MAX / 2)
            return -ENOMEM;
        int r = resize(index, index->slot_count ? index->slot_count * 2 : FIRST_SLOTS);
        if (r < 0)
            return r;
    }
    return reserve_arena(index, RECORD_HEADER + len + 3);
}

/* Finds or makes the record of the suffix from `label` on. */
static int intern(struct name_index *index, const struct cut_name *name, size_t label,
                  enum record_kind kind, uint32_t *ret_record)
{
    const uint8_t *bytes = name->bytes + name->starts[label];
    size_t len = name->len - name->starts[label];
    uint32_t tag = tag_of(name->hashes[label], kind), slot;

    if (reserve(index, len) < 0)
        return -ENOMEM;
    if ((*ret_record = find(index, tag, kind, bytes, len, &slot)))
        return 0;
    uint32_t record = (uint32_t)index->arena_len;
    uint8_t *at = index->arena + record;
    memset(at, 0, RECORD_HEADER);
    at[4] = (uint8_t)kind;
    at[5] = (uint8_t)len;
    for (size_t i = 0; i < len; i++)
        at[RECORD_HEADER + i] = fold(bytes[i]);
    index->arena_len += (RECORD_HEADER + len + 3) / 4 * 4;
    index->slots[slot] = (struct name_slot){tag, record};
    index->record_count++;
    *ret_record = record;
    return 0;
}

/* ---- adding ---- */

/* The label of `name` that has the '*'. */
static size_t star_label(const struct cut_name *name, struct name_shape *ret)
{
    size_t label = 0;
    const uint8_t *bytes, *star;
    for (;; label++) {
        bytes = name->bytes + name->starts[label];
        if ((star = memchr(bytes + 1, '*', bytes[0])))
            break;
    }
    ret->prefix = (uint8_t)(star - bytes - 1);
    ret->suffix = (uint8_t)(bytes[0] - ret->prefix - 1);
    return label;
}

static void note_depth(struct name_index *index, const struct cut_name *name, size_t label)
{
    unsigned depth = (unsigned)(name->count - label);
    if (index->deepest < depth)
        index->deepest = depth;
}

static int add_shape(struct name_index *index, const struct cut_name *name)
{
    struct name_shape shape;
    uint32_t record;
    size_t label = star_label(name, &shape) + 1;

    if (intern(index, name, label, RECORD_SHAPES, &record) < 0)
        return -ENOMEM;
    note_depth(index, name, label);
    for (uint32_t i = *number_of(index, record); i; i = index->shapes[i].next) {
        if (index->shapes[i].prefix == shape.prefix && index->shapes[i].suffix == shape.suffix)
            return 0;
    }
    uint32_t number = index->shape_count ? index->shape_count : 1;
    struct name_shape *larger = index->shapes;
    if ((number & (number - 1)) == 0) /* capacities are powers of two */
        larger = reallocarray(index->shapes, (size_t)number * 2, sizeof *larger);
    if (!larger)
        return -ENOMEM;
    index->shapes = larger;
    shape.next = *number_of(index, record);
    index->shapes[number] = shape;
    index->shape_count = number + 1;
    *number_of(index, record) = number;
    return 0;
}

int name_index_add(struct name_index *index, const struct name_pattern *pattern, uint32_t **ret)
{
    struct cut_name name;
    uint32_t record;

    cut(&name, pattern->name.bytes, pattern->name.len);
    if (pattern->kind == NAME_PATTERN_GLOB && add_shape(index, &name) < 0)
        return -ENOMEM;
    if (pattern->kind == NAME_PATTERN_BELOW)
        note_depth(index, &name, 0);
    if (intern(index, &name, 0, pattern->kind == NAME_PATTERN_BELOW ? RECORD_BELOW : RECORD_EXACT,
               &record) < 0)
        return -ENOMEM;
    *ret = number_of(index, record);
    return 0;
}

void name_index_finish(struct name_index *index)
{
    uint8_t *exact = index->arena_len ? realloc(index->arena, index->arena_len) : NULL;
    if (exact) {
        index->arena = exact;
        index->arena_capacity = index->arena_len;
    }
    if (index->record_count > FIRST_SLOTS)
        (void)resize(index, index->record_count + index->record_count / 3); /* 3/4 full */
}

void name_index_clear(struct name_index *index)
{
    free(index->slots);
    free(index->arena);
    free(index->shapes);
    *index = (struct name_index){0};
}

/* ---- matching ---- */

static void match_shape(const struct name_index *index, const struct cut_name *name, size_t label,
                        const struct name_shape *shape, void (*visit)(void *ctx, uint32_t number),
                        void *ctx)
{
    const uint8_t *from = name->bytes + name->starts[label];
    size_t before = name->starts[label], behind = name->starts[label + 1];
    size_t label_len = shape->prefix + 1u + shape->suffix;
    uint8_t bytes[DNS_NAME_MAX + 1];
    struct cut_name rewritten;

    if (from[0] < shape->prefix + shape->suffix ||
        before + 1 + label_len + (name->len - behind) > DNS_NAME_MAX)
        return;
    uint8_t *to = bytes;
    to = mempcpy(to, name->bytes, before);
    *to++ = (uint8_t)label_len;
    to = mempcpy(to, from + 1, shape->prefix);
    *to++ = '*';
    to = mempcpy(to, from + 1 + from[0] - shape->suffix, shape->suffix);
    to = mempcpy(to, name->bytes + behind, name->len - behind);
    cut(&rewritten, bytes, (size_t)(to - bytes));
    uint32_t record = find_suffix(index, &rewritten, 0, RECORD_EXACT);
    if (record)
        visit(ctx, *number_of(index, record));
}

void name_index_match(const struct name_index *index, const struct dns_name *name,
                      void (*visit)(void *ctx, uint32_t number), void *ctx)
{
    struct cut_name parts;
    uint32_t record;

    if (index->record_count == 0)
        return;
    cut(&parts, name->bytes, name->len);
    if ((record = find_suffix(index, &parts, 0, RECORD_EXACT)))
        visit(ctx, *number_of(index, record));
    size_t first = parts.count > index->deepest ? parts.count - index->deepest : 0;
    for (size_t label = first; label <= parts.count; label++) {
        if ((record = find_suffix(index, &parts, label, RECORD_BELOW)))
            visit(ctx, *number_of(index, record));
        if (label == 0 || index->shape_count == 0 ||
            !(record = find_suffix(index, &parts, label, RECORD_SHAPES)))
            continue;
        for (uint32_t i = *number_of(index, record); i; i = index->shapes[i].next)
            match_shape(index, &parts, label - 1, &index->shapes[i], visit, ctx);
    }
}

void name_index_each(struct name_index *index, void (*visit)(void *ctx, uint32_t *number),
                     void *ctx)
{
    for (uint32_t i = 0; i < index->slot_count; i++) {
        uint32_t record = index->slots[i].record;
        if (record && index->arena[record + 4] != RECORD_SHAPES)
            visit(ctx, number_of(index, record));
    }
}
