/* SPDX-License-Identifier: Apache-2.0 */
/* Leaves records out of an answer. What stands behind them moves, and pointers of compressed names
 * would lead astray: so every name of what stays is written in full, those within the data of the
 * types that may compress them too (RFC 1035; RFC 3597, section 4). */
#include <string.h>

#include "dns/internal.h"

/* Where names stand in a type's data: behind how many bytes, how many, and what follows. */
struct layout {
    uint16_t type;
    uint8_t before, names, behind;
};

static const struct layout *layout_of(uint16_t type)
{
    static const struct layout layouts[] = {
        {DNS_TYPE_NS, 0, 1, 0},    {3, 0, 1, 0} /* MD */,    {4, 0, 1, 0} /* MF */,
        {DNS_TYPE_CNAME, 0, 1, 0}, {DNS_TYPE_SOA, 0, 2, 20}, {7, 0, 1, 0} /* MB */,
        {8, 0, 1, 0} /* MG */,     {9, 0, 1, 0} /* MR */,    {DNS_TYPE_PTR, 0, 1, 0},
        {14, 0, 2, 0} /* MINFO */, {15, 2, 1, 0} /* MX */,   {17, 0, 2, 0} /* RP */,
        {18, 2, 1, 0} /* AFSDB */, {21, 2, 1, 0} /* RT */,   {26, 2, 2, 0} /* PX */,
        {33, 6, 1, 0} /* SRV */,   {36, 2, 1, 0} /* KX */,   {39, 0, 1, 0} /* DNAME */,
    };

    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i].type == type)
            return &layouts[i];
    return NULL;
}

/* The data's names in full. False: they are not where they should be. */
static bool build_names(struct dns_builder *b, const uint8_t *answer, size_t end,
                        const struct dns_record *record, const struct layout *layout)
{
    size_t at = record->data + layout->before, data_end = record->data + record->data_len;

    if (layout->before > record->data_len)
        return false;
    dns_build_bytes(b, answer + record->data, layout->before);
    for (unsigned i = 0; i < layout->names; i++) {
        struct dns_name name;

        if (dns_name_read(answer, end, &at, &name) < 0 || at > data_end)
            return false;
        dns_build_bytes(b, name.bytes, name.len);
    }
    if (data_end - at != layout->behind)
        return false;
    dns_build_bytes(b, answer + at, layout->behind);
    return true;
}

static bool build_record(struct dns_builder *b, const uint8_t *answer, const struct dns_message *m,
                         const struct dns_record *record)
{
    const struct layout *layout = layout_of(record->type);
    struct dns_builder length = *b;
    struct dns_name owner;
    size_t at = record->start;

    if (dns_name_read(answer, m->end, &at, &owner) < 0)
        return false;
    if (dns_name_equal(&owner, &m->question.name))
        dns_build_be16(b, 0xc000u | DNS_HEADER_LEN);
    else
        dns_build_bytes(b, owner.bytes, owner.len);
    dns_build_bytes(b, answer + at, 8); /* type, class, TTL */
    length.len = b->len;
    dns_build_be16(b, (uint16_t)record->data_len);
    if (!layout) {
        dns_build_bytes(b, answer + record->data, record->data_len);
        return true;
    }
    if (!build_names(b, answer, m->end, record, layout))
        return false;
    dns_build_be16(&length, (uint16_t)(b->len - length.len - 2)); /* again: it is known now */
    return true;
}

size_t rewrite_answer(const uint8_t *answer, const struct dns_message *m, uint16_t clear_flags,
                      bool (*keep)(void *ctx, const struct dns_record *record), void *ctx,
                      uint8_t *to)
{
    struct dns_walk walk = dns_walk_of(answer, m->end, &m->header, m->records);
    struct dns_builder b = {.data = to, .capacity = DNS_MESSAGE_MAX}, start = b;
    struct dns_header header = m->header;
    struct dns_record record;

    header.flags &= (uint16_t)~clear_flags;
    memset(header.record_count, 0, sizeof header.record_count);
    dns_build_header(&b, &header);
    dns_build_question(&b, &m->question);
    while (dns_walk_next(&walk, &record) > 0) {
        if (record.type == DNS_TYPE_OPT || !keep(ctx, &record))
            continue;
        if (!build_record(&b, answer, m, &record) || b.overflow)
            return 0;
        header.record_count[record.section]++;
    }
    dns_build_header(&start, &header); /* again: the counts are known now */
    return b.len;
}
