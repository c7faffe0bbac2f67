/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest gets to see of an answer.
 *
 * Its header, question and OPT are made here; its records are the upstream's bytes, in place: the
 * question has the same length in both messages, so compression pointers stay right as long as
 * nothing in front of them moves. OPT is left out, and normally it is the last record; what stands
 * behind it moves, and is written with its names in full. */
#include <string.h>

#include "dns/internal.h"

size_t dns_asker_limit(const struct dns_asker *asker)
{
    if (asker->is_tcp)
        return DNS_MESSAGE_MAX;
    if (!asker->edns.present || asker->edns.size < DNS_UDP_MIN)
        return DNS_UDP_MIN;
    return asker->edns.size < DNS_REPLY_UDP_MAX ? asker->edns.size : DNS_REPLY_UDP_MAX;
}

static struct dns_edns reply_edns(const struct dns_asker *asker, unsigned rcode)
{
    return (struct dns_edns){
        .present = asker->edns.present,
        .dnssec_ok = asker->edns.dnssec_ok,
        .rcode_high = (uint8_t)(rcode >> 4),
        .size = DNS_REPLY_UDP_MAX,
    };
}

size_t reply_build_rcode(const struct dns_asker *asker, unsigned rcode,
                         const struct dns_error *error, uint8_t *to)
{
    struct dns_builder b = {.data = to, .capacity = DNS_MESSAGE_MAX};
    struct dns_edns edns = reply_edns(asker, rcode);
    struct dns_header header = {
        .id = asker->id,
        .flags = (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RA |
                            (asker->flags & (DNS_OPCODE_MASK | DNS_FLAG_RD | DNS_FLAG_CD)) |
                            (rcode & DNS_RCODE_MASK)),
        .question_count = asker->question.name.len != 0,
        .record_count = {[DNS_ADDITIONAL] = edns.present},
    };

    dns_build_header(&b, &header);
    if (header.question_count != 0)
        dns_build_question(&b, &asker->question);
    dns_build_opt_error(&b, &edns, error);
    return b.len;
}

size_t reply_build_zero(const struct dns_asker *asker, const struct dns_error *error, uint8_t *to)
{
    static const uint8_t zeros[16];
    bool v4 = asker->question.type == DNS_TYPE_A, v6 = asker->question.type == DNS_TYPE_AAAA;
    struct dns_builder b = {.data = to, .capacity = DNS_MESSAGE_MAX};
    struct dns_edns edns = reply_edns(asker, DNS_NOERROR);

    if (!v4 && !v6)
        return reply_build_rcode(asker, DNS_NOERROR, error, to);
    dns_build_header(&b, &(struct dns_header){
                             .id = asker->id,
                             .flags = (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RA |
                                                 (asker->flags & (DNS_FLAG_RD | DNS_FLAG_CD))),
                             .question_count = 1,
                             .record_count = {1, 0, edns.present},
                         });
    dns_build_question(&b, &asker->question);
    dns_build_record(&b, asker->question.type, DNS_CLASS_IN, DNS_LOCAL_TTL, zeros, v4 ? 4 : 16);
    dns_build_opt_error(&b, &edns, error);
    return b.len;
}

/* May the data of a record of this type hold compressed names (RFC 3597, section 4)? */
static bool data_may_be_compressed(uint16_t type)
{
    static const uint64_t types =
        1ull << 2 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 7 | 1ull << 8 |
        1ull << 9 | 1ull << 12 | 1ull << 14 | 1ull << 15 | 1ull << 17 | 1ull << 18 | 1ull << 21 |
        1ull << 24 | 1ull << 26 | 1ull << 30 | 1ull << 33 | 1ull << 35 | 1ull << 36 | 1ull << 39;

    return type < 64 && (types >> type & 1) != 0;
}

/* A record behind OPT. One whose data could not be moved is left out: it is in the additional
 * section, which nobody may rely on. */
static bool copy_moved_record(struct dns_builder *b, const uint8_t *answer, size_t end,
                              const struct dns_record *record)
{
    struct dns_name owner;
    size_t at = record->start;

    if (data_may_be_compressed(record->type) || dns_name_read(answer, end, &at, &owner) < 0)
        return false;
    dns_build_bytes(b, owner.bytes, owner.len);
    dns_build_bytes(b, answer + at, record->end - at);
    return true;
}

/* Record by record, as far as there is room; true: something the guest needs did not fit. */
static bool copy_records_that_fit(struct dns_builder *b, struct dns_header *header,
                                  const uint8_t *answer, const struct dns_message *m)
{
    struct dns_walk walk = dns_walk_of(answer, m->end, &m->header, m->records);
    struct dns_record record;
    bool behind_opt = false;

    memset(header->record_count, 0, sizeof header->record_count);
    while (dns_walk_next(&walk, &record) > 0) {
        struct dns_builder before = *b;

        if (record.type == DNS_TYPE_OPT) {
            behind_opt = true;
            continue;
        }
        if (behind_opt) {
            if (!copy_moved_record(b, answer, m->end, &record))
                continue;
        } else {
            dns_build_bytes(b, answer + record.start, record.end - record.start);
        }
        if (b->overflow) {
            *b = before;
            /* RFC 2181, section 9: additional records may be missing without TC */
            return record.section != DNS_ADDITIONAL;
        }
        header->record_count[record.section]++;
    }
    return false;
}

/* All records, if they fit and nothing but OPT has to be left out at the end. */
static bool copy_records_at_once(struct dns_builder *b, struct dns_header *header,
                                 const uint8_t *answer, const struct dns_message *m)
{
    bool has_opt = m->opt_end != m->opt_start;
    size_t end = has_opt ? m->opt_start : m->end;

    if ((has_opt && m->opt_end != m->end) || end - m->records > b->capacity - b->len)
        return false;
    dns_build_bytes(b, answer + m->records, end - m->records);
    memcpy(header->record_count, m->header.record_count, sizeof header->record_count);
    if (has_opt)
        header->record_count[DNS_ADDITIONAL]--;
    return true;
}

/* The answer's rcode; one that needs EDNS becomes SERVFAIL for those who do not speak it. */
static unsigned answer_rcode(const struct dns_asker *asker, const struct dns_message *m)
{
    unsigned rcode = (m->header.flags & DNS_RCODE_MASK) | (unsigned)m->edns.rcode_high << 4;

    return rcode > DNS_RCODE_MASK && !asker->edns.present ? DNS_SERVFAIL : rcode;
}

size_t reply_build_answer(const struct dns_asker *asker, const uint8_t *answer,
                          const struct dns_message *m, const struct dns_error *error, uint8_t *to,
                          bool *ret_truncated)
{
    unsigned rcode = answer_rcode(asker, m);
    struct dns_edns edns = reply_edns(asker, rcode);
    size_t limit = dns_asker_limit(asker);
    struct dns_builder start = {.data = to, .capacity = limit};
    struct dns_builder b = {.data = to,
                            .capacity = edns.present ? limit - dns_opt_error_len(error) : limit};
    struct dns_header header = {
        .id = asker->id,
        .flags =
            (uint16_t)(DNS_FLAG_QR |
                       (m->header.flags & (DNS_FLAG_AA | DNS_FLAG_TC | DNS_FLAG_RA | DNS_FLAG_AD)) |
                       (asker->flags & (DNS_FLAG_RD | DNS_FLAG_CD)) | (rcode & DNS_RCODE_MASK)),
        .question_count = 1,
    };

    dns_build_header(&b, &header);
    dns_build_question(&b, &asker->question);
    if (!copy_records_at_once(&b, &header, answer, m) &&
        copy_records_that_fit(&b, &header, answer, m))
        header.flags |= DNS_FLAG_TC;
    header.record_count[DNS_ADDITIONAL] =
        (uint16_t)(header.record_count[DNS_ADDITIONAL] + edns.present);
    dns_build_header(&start, &header); /* again: the counts are known now */
    b.capacity = limit;
    dns_build_opt_error(&b, &edns, error);
    *ret_truncated = (header.flags & DNS_FLAG_TC) != 0;
    return b.len;
}
