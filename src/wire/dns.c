/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/dns.h"

#include <errno.h>
#include <string.h>

#include "wire/bytes.h"
#include "wire/reader.h"

/* A name of 255 bytes has at most 127 labels, and an honest encoder spends at least one on each
 * pointer. */
#define POINTERS_MAX 127

#define POINTER_BITS 0xc0u

#define OPTION_EXTENDED_ERROR 15 /* RFC 8914 */

/* ---- reading ---- */

int dns_header_read(const uint8_t *message, size_t len, struct dns_header *ret)
{
    if (len < DNS_HEADER_LEN)
        return -EBADMSG;
    *ret = (struct dns_header){
        .id = load_be16(message),
        .flags = load_be16(message + 2),
        .question_count = load_be16(message + 4),
        .record_count = {load_be16(message + 6), load_be16(message + 8), load_be16(message + 10)},
    };
    return 0;
}

/* A run of labels: where it is read, where it started, and what it must not reach. */
struct run {
    size_t at, start, end;
};

/* Follows the pointer at `run->at`. It leads to a name that was written before: in front of the
 * run that it ends, where all of that name lies. So each jump goes further back, none can loop, and
 * no name runs on into the record that bears it or beyond the message. */
static int follow_pointer(const uint8_t *message, struct run *run)
{
    size_t target;

    if (run->end - run->at < 2)
        return -EBADMSG;
    target = load_be16(message + run->at) & 0x3fffu;
    if (target < DNS_HEADER_LEN || target >= run->start)
        return -EBADMSG;
    *run = (struct run){.at = target, .start = target, .end = run->start};
    return 0;
}

int dns_name_read(const uint8_t *message, size_t len, size_t *offset, struct dns_name *ret)
{
    struct run run = {.at = *offset, .start = *offset, .end = len};
    struct dns_name name = {.len = 0};
    size_t behind = 0, pointers = 0;

    for (;;) {
        size_t label;

        if (run.at >= run.end)
            return -EBADMSG;
        label = message[run.at];
        if ((label & POINTER_BITS) == POINTER_BITS) {
            if (behind == 0)
                behind = run.at + 2;
            if (++pointers > POINTERS_MAX || follow_pointer(message, &run) < 0)
                return -EBADMSG;
            continue;
        }
        if (label > DNS_LABEL_MAX || label >= run.end - run.at ||
            name.len + label + 1 > DNS_NAME_MAX)
            return -EBADMSG;
        memcpy(name.bytes + name.len, message + run.at, label + 1);
        name.len = (uint8_t)(name.len + label + 1);
        run.at += label + 1;
        if (label == 0)
            break;
    }
    *offset = behind ? behind : run.at;
    if (ret) {
        ret->len = name.len;
        memcpy(ret->bytes, name.bytes, name.len);
    }
    return 0;
}

int dns_question_read(const uint8_t *message, size_t len, size_t *offset, struct dns_question *ret)
{
    size_t at = *offset;

    if (dns_name_read(message, len, &at, &ret->name) < 0)
        return -EBADMSG;
    if (len - at < 4) {
        ret->name.len = 0;
        return -EBADMSG;
    }
    ret->type = load_be16(message + at);
    ret->qclass = load_be16(message + at + 2);
    *offset = at + 4;
    return 0;
}

struct dns_walk dns_walk_of(const uint8_t *message, size_t len, const struct dns_header *header,
                            size_t records)
{
    struct dns_walk walk = {.message = message, .len = len, .offset = records};

    memcpy(walk.left, header->record_count, sizeof walk.left);
    return walk;
}

/* The part of a record behind its owner's name: type, class, TTL, length, data. */
static int record_read_rest(const struct dns_walk *walk, size_t at, struct dns_record *ret)
{
    struct reader r = reader_of(walk->message + at, walk->len - at);
    size_t data_len;

    ret->type = reader_be16(&r);
    ret->rclass = reader_be16(&r);
    ret->ttl = reader_be32(&r);
    data_len = reader_be16(&r);
    reader_skip(&r, data_len);
    if (!reader_ok(&r))
        return -EBADMSG;
    ret->data = at + 10;
    ret->data_len = data_len;
    ret->end = ret->data + data_len;
    return 0;
}

int dns_walk_next(struct dns_walk *walk, struct dns_record *ret)
{
    size_t at = walk->offset;

    while (walk->section < DNS_SECTIONS && walk->left[walk->section] == 0)
        walk->section++;
    if (walk->section == DNS_SECTIONS)
        return 0;
    ret->section = walk->section;
    ret->start = at;
    if (dns_name_read(walk->message, walk->len, &at, NULL) < 0 ||
        record_read_rest(walk, at, ret) < 0)
        return -EBADMSG;
    walk->left[walk->section]--;
    walk->offset = ret->end;
    return 1;
}

static struct dns_edns edns_of(const struct dns_record *opt)
{
    return (struct dns_edns){
        .present = true,
        .dnssec_ok = (opt->ttl & 0x8000u) != 0,
        .version = (uint8_t)(opt->ttl >> 16),
        .rcode_high = (uint8_t)(opt->ttl >> 24),
        .size = opt->rclass,
    };
}

/* RFC 6891, 6.1.1: one OPT at most, its name the root's, in the additional section. */
static int message_take_opt(struct dns_message *m, const uint8_t *message,
                            const struct dns_record *record)
{
    if (m->edns.present || record->section != DNS_ADDITIONAL || message[record->start] != 0)
        return -EBADMSG;
    m->edns = edns_of(record);
    m->opt_start = record->start;
    m->opt_end = record->end;
    return 0;
}

int dns_message_read(const uint8_t *message, size_t len, struct dns_message *ret)
{
    size_t offset = DNS_HEADER_LEN;
    struct dns_record record;
    struct dns_walk walk;
    int more;

    ret->edns = (struct dns_edns){.present = false};
    ret->opt_start = ret->opt_end = 0;
    ret->question.name.len = 0;
    if (dns_header_read(message, len, &ret->header) < 0 || ret->header.question_count != 1 ||
        dns_question_read(message, len, &offset, &ret->question) < 0)
        return -EBADMSG;
    ret->records = offset;
    walk = dns_walk_of(message, len, &ret->header, offset);
    while ((more = dns_walk_next(&walk, &record)) > 0)
        if (record.type == DNS_TYPE_OPT && message_take_opt(ret, message, &record) < 0)
            return -EBADMSG;
    ret->end = walk.offset;
    return more;
}

/* ---- names ---- */

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* Lengths of labels are below 'A', so that whole names can be folded bytewise. */
static bool equal_folded(const uint8_t *a, const uint8_t *b, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (lower(a[i]) != lower(b[i]))
            return false;
    return true;
}

bool dns_name_equal(const struct dns_name *a, const struct dns_name *b)
{
    return a->len == b->len && equal_folded(a->bytes, b->bytes, a->len);
}

bool dns_name_is_below(const struct dns_name *name, const struct dns_name *zone)
{
    size_t at = 0;

    while (name->len - at > zone->len)
        at += name->bytes[at] + 1u;
    return name->len - at == zone->len && equal_folded(name->bytes + at, zone->bytes, zone->len);
}

void dns_name_lower(struct dns_name *name)
{
    for (size_t i = 0; i < name->len; i++)
        name->bytes[i] = lower(name->bytes[i]);
}

/* One character of a label, escapes undone. Returns what it takes of `text`, or -EINVAL. */
static int parse_character(const char *text, uint8_t *ret)
{
    unsigned value = 0;

    if (text[0] != '\\') {
        *ret = (uint8_t)text[0];
        return 1;
    }
    if (text[1] < '0' || text[1] > '9') {
        *ret = (uint8_t)text[1];
        return text[1] == '\0' ? -EINVAL : 2;
    }
    for (int i = 1; i <= 3; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -EINVAL;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    if (value > 255)
        return -EINVAL;
    *ret = (uint8_t)value;
    return 4;
}

/* One label, up to a dot or the end of the text, into `to`. Returns what it takes of `text`. */
static int parse_label(const char *text, uint8_t *to, size_t room)
{
    size_t len = 0;
    int taken = 0;

    while (text[taken] != '\0' && text[taken] != '.') {
        uint8_t c;
        int n = parse_character(text + taken, &c);

        if (n < 0 || len >= DNS_LABEL_MAX || len + 1 >= room)
            return -EINVAL;
        to[++len] = c;
        taken += n;
    }
    if (len == 0)
        return -EINVAL;
    to[0] = (uint8_t)len;
    return taken;
}

int dns_name_parse(const char *text, struct dns_name *ret)
{
    struct dns_name name = {.len = 0};

    if (strcmp(text, ".") == 0)
        text++;
    while (*text != '\0') {
        /* one byte is kept for the root */
        int taken = parse_label(text, name.bytes + name.len, (size_t)(DNS_NAME_MAX - 1 - name.len));

        if (taken < 0)
            return -EINVAL;
        name.len = (uint8_t)(name.len + name.bytes[name.len] + 1);
        text += taken;
        if (*text == '.')
            text++;
    }
    name.bytes[name.len++] = 0;
    *ret = name;
    return 0;
}

static char *format_character(uint8_t c, char *to)
{
    if (c == '.' || c == '\\') {
        *to++ = '\\';
        *to++ = (char)c;
    } else if (c > 0x20 && c < 0x7f) {
        *to++ = (char)c;
    } else {
        *to++ = '\\';
        *to++ = (char)('0' + c / 100);
        *to++ = (char)('0' + c / 10 % 10);
        *to++ = (char)('0' + c % 10);
    }
    return to;
}

const char *dns_name_format(const struct dns_name *name, char text[DNS_TEXT_MAX])
{
    char *to = text;
    size_t at = 0;

    while (at < name->len && name->bytes[at] != 0) {
        size_t label = name->bytes[at++];

        if (to != text)
            *to++ = '.';
        for (size_t i = 0; i < label; i++)
            to = format_character(name->bytes[at + i], to);
        at += label;
    }
    if (to == text && name->len != 0)
        *to++ = '.';
    *to = '\0';
    return text;
}

/* Where a name's first `max` labels start; returns how many labels there are in all, the root not
 * counted. */
static size_t name_labels(const struct dns_name *name, const uint8_t *starts[], size_t max)
{
    size_t count = 0;

    for (size_t at = 0; at < name->len && name->bytes[at] != 0; at += name->bytes[at] + 1u) {
        if (count < max)
            starts[count] = name->bytes + at;
        count++;
    }
    return count;
}

/* "0" to "255", no leading zeros; -1 otherwise. */
static int decimal_label(const uint8_t *label)
{
    int value = 0;

    if (label[0] == 0 || label[0] > 3 || (label[0] > 1 && label[1] == '0'))
        return -1;
    for (unsigned i = 1; i <= label[0]; i++) {
        if (label[i] < '0' || label[i] > '9')
            return -1;
        value = value * 10 + (label[i] - '0');
    }
    return value <= 255 ? value : -1;
}

static int nibble_label(const uint8_t *label)
{
    uint8_t c = label[0] == 1 ? lower(label[1]) : 0;

    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool reverse_v4(const uint8_t *const labels[], struct ip_address *ret)
{
    struct ip_address a = ip_address_v4(0);

    for (int i = 0; i < 4; i++) {
        int value = decimal_label(labels[i]);

        if (value < 0)
            return false;
        a.bytes[15 - i] = (uint8_t)value;
    }
    *ret = a;
    return true;
}

static bool reverse_v6(const uint8_t *const labels[], struct ip_address *ret)
{
    struct ip_address a;

    for (int i = 0; i < 16; i++) {
        int low = nibble_label(labels[2 * i]), high = nibble_label(labels[2 * i + 1]);

        if (low < 0 || high < 0)
            return false;
        a.bytes[15 - i] = (uint8_t)(high << 4 | low);
    }
    if (ip_address_is_v4(&a)) /* would be taken for an IPv4 address */
        return false;
    *ret = a;
    return true;
}

static const struct dns_name REVERSE_V4 = {14, "\7in-addr\4arpa"}, REVERSE_V6 = {10, "\3ip6\4arpa"};

bool dns_name_to_reverse_address(const struct dns_name *name, struct ip_address *ret)
{
    const uint8_t *labels[34];
    size_t count = name_labels(name, labels, 34);

    if (count == 6 && dns_name_is_below(name, &REVERSE_V4))
        return reverse_v4(labels, ret);
    return count == 34 && dns_name_is_below(name, &REVERSE_V6) && reverse_v6(labels, ret);
}

/* The label that has `behind` others behind it, the root not counted. NULL: there are too few. */
static const uint8_t *label_before(const struct dns_name *name, size_t behind)
{
    const uint8_t *label = NULL;
    size_t count = name_labels(name, &label, 1);

    if (count <= behind)
        return NULL;
    for (size_t skip = count - behind - 1; skip > 0; skip--)
        label += *label + 1u;
    return label;
}

static void set_bits(struct ip_address *address, size_t at, unsigned bits, unsigned value)
{
    unsigned shift = 8 - bits - at % 8, mask = ((1u << bits) - 1) << shift;
    uint8_t *byte = &address->bytes[at / 8];

    *byte = (uint8_t)((*byte & ~mask) | value << shift);
}

/* From the zone's two labels downwards, as far as labels are an address's: each sets so many bits
 * of both addresses, from bit `at` on. What else there is does not count. False: none is. */
static bool narrow_range(const struct dns_name *name, size_t at, unsigned bits,
                         int (*value_of)(const uint8_t *label), struct ip_address *first,
                         struct ip_address *last)
{
    const size_t start = at;

    for (size_t behind = 2; at < 128; behind++, at += bits) {
        const uint8_t *label = label_before(name, behind);
        int value = label ? value_of(label) : -1;

        if (value < 0)
            break;
        set_bits(first, at, bits, (unsigned)value);
        set_bits(last, at, bits, (unsigned)value);
    }
    return at > start;
}

bool dns_name_to_reverse_range(const struct dns_name *name, struct ip_address *ret_first,
                               struct ip_address *ret_last)
{
    if (dns_name_is_below(name, &REVERSE_V4)) {
        *ret_first = ip_address_v4(0);
        *ret_last = ip_address_v4(UINT32_MAX);
        return narrow_range(name, 96, 8, decimal_label, ret_first, ret_last);
    }
    if (!dns_name_is_below(name, &REVERSE_V6))
        return false;
    memset(ret_first->bytes, 0, sizeof ret_first->bytes);
    memset(ret_last->bytes, 0xff, sizeof ret_last->bytes);
    return narrow_range(name, 0, 4, nibble_label, ret_first, ret_last);
}

/* ---- building ---- */

void dns_build_bytes(struct dns_builder *b, const void *bytes, size_t len)
{
    if (b->overflow || len > b->capacity - b->len) {
        b->overflow = true;
        return;
    }
    if (len != 0)
        memcpy(b->data + b->len, bytes, len);
    b->len += len;
}

void dns_build_be16(struct dns_builder *b, uint16_t value)
{
    uint8_t bytes[2];

    store_be16(bytes, value);
    dns_build_bytes(b, bytes, sizeof bytes);
}

void dns_build_be32(struct dns_builder *b, uint32_t value)
{
    uint8_t bytes[4];

    store_be32(bytes, value);
    dns_build_bytes(b, bytes, sizeof bytes);
}

void dns_build_header(struct dns_builder *b, const struct dns_header *header)
{
    dns_build_be16(b, header->id);
    dns_build_be16(b, header->flags);
    dns_build_be16(b, header->question_count);
    for (int i = 0; i < DNS_SECTIONS; i++)
        dns_build_be16(b, header->record_count[i]);
}

void dns_build_question(struct dns_builder *b, const struct dns_question *question)
{
    dns_build_bytes(b, question->name.bytes, question->name.len);
    dns_build_be16(b, question->type);
    dns_build_be16(b, question->qclass);
}

static void build_record_rest(struct dns_builder *b, uint16_t type, uint16_t rclass, uint32_t ttl)
{
    dns_build_be16(b, type);
    dns_build_be16(b, rclass);
    dns_build_be32(b, ttl);
}

void dns_build_record(struct dns_builder *b, uint16_t type, uint16_t rclass, uint32_t ttl,
                      const void *data, size_t len)
{
    dns_build_be16(b, POINTER_BITS << 8 | DNS_HEADER_LEN);
    build_record_rest(b, type, rclass, ttl);
    dns_build_be16(b, (uint16_t)len);
    dns_build_bytes(b, data, len);
}

static void build_opt(struct dns_builder *b, const struct dns_edns *edns, size_t options_len)
{
    uint32_t ttl = (uint32_t)edns->rcode_high << 24 | (uint32_t)edns->version << 16 |
                   (edns->dnssec_ok ? 0x8000u : 0);

    dns_build_bytes(b, "", 1);
    build_record_rest(b, DNS_TYPE_OPT, edns->size, ttl);
    dns_build_be16(b, (uint16_t)options_len);
}

void dns_build_opt(struct dns_builder *b, const struct dns_edns *edns)
{
    if (edns->present)
        build_opt(b, edns, 0);
}

/* Code and length of the option; code and text of the error. */
size_t dns_opt_error_len(const struct dns_error *error)
{
    return DNS_OPT_LEN + (error->text ? 4 + 2 + strlen(error->text) : 0);
}

void dns_build_opt_error(struct dns_builder *b, const struct dns_edns *edns,
                         const struct dns_error *error)
{
    size_t options_len = dns_opt_error_len(error) - DNS_OPT_LEN;

    if (!edns->present)
        return;
    build_opt(b, edns, options_len);
    if (options_len == 0)
        return;
    dns_build_be16(b, OPTION_EXTENDED_ERROR);
    dns_build_be16(b, (uint16_t)(options_len - 4));
    dns_build_be16(b, error->code);
    dns_build_bytes(b, error->text, options_len - 6);
}
