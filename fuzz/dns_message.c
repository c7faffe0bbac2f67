/* SPDX-License-Identifier: Apache-2.0 */
/* A DNS message, and a name at every place of it: what is read lies within, what is cut short is
 * not read, and names are themselves again when they have been text. */
#include "wire/dns.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAMES_MAX 600

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_reverse(const struct dns_name *name)
{
    struct ip_address address, first, last;

    if (dns_name_to_reverse_range(name, &first, &last))
        check(memcmp(first.bytes, last.bytes, sizeof first.bytes) <= 0);
    if (dns_name_to_reverse_address(name, &address))
        check(ip_address_equal(&address, &first) && ip_address_equal(&address, &last));
}

static void check_name(const struct dns_name *name)
{
    struct dns_name again, lower = *name;
    char text[DNS_TEXT_MAX];

    check(name->len > 0 && name->bytes[name->len - 1] == 0);
    check(dns_name_parse(dns_name_format(name, text), &again) == 0);
    check(again.len == name->len && memcmp(again.bytes, name->bytes, name->len) == 0);
    dns_name_lower(&lower);
    check(dns_name_equal(name, &lower) && dns_name_is_below(name, &lower));
    check_reverse(name);
}

static void check_records(const uint8_t *data, const struct dns_message *m)
{
    struct dns_walk walk = dns_walk_of(data, m->end, &m->header, m->records);
    size_t records = 0, behind = m->records;
    struct dns_record record;
    int r;

    while ((r = dns_walk_next(&walk, &record)) > 0) {
        check(record.start == behind && record.data > record.start);
        check(record.end == record.data + record.data_len && record.end <= m->end);
        behind = record.end;
        records++;
    }
    check(r == 0 && behind == m->end);
    for (int i = 0; i < DNS_SECTIONS; i++)
        records -= m->header.record_count[i];
    check(records == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns_message m, cut;
    struct dns_name name;

    for (size_t at = 0; at < size && at < NAMES_MAX; at++) {
        size_t behind = at;

        if (dns_name_read(data, size, &behind, &name) < 0)
            continue;
        check(behind > at && behind <= size);
        check_name(&name);
    }
    if (dns_message_read(data, size, &m) < 0)
        return 0;
    check(m.end <= size && m.records <= m.end);
    check(m.edns.present == (m.opt_end > m.opt_start) && m.opt_end <= m.end);
    check_name(&m.question.name);
    check_records(data, &m);
    for (size_t len = 0; len < m.end; len += 1 + len / 16)
        check(dns_message_read(data, len, &cut) < 0);
    return 0;
}
