/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/dns.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* An answer with compression, a CNAME, an A record, an authority record and OPT (DO, 1232). */
static const uint8_t ANSWER[] = {
    0x12, 0x34, 0x81, 0xa0, 0,    1,   0,   2,    0,   1,   0,   1, /* header */
    3,    'w',  'W',  'w',  7,    'e', 'x', 'a',  'm', 'p', 'l', 'e',
    3,    'c',  'o',  'm',     /* question */
    0,    0,    1,    0,    1, /* A IN */
    0xc0, 12,   0,    5,    0,    1,   0,   0,    0,   60,  0,   4,
    1,    'x',  0xc0, 16, /* CNAME x.example */
    0xc0, 45,   0,    1,    0,    1,   0,   0,    0,   60,  0,   4,
    192,  0,    2,    7, /* A 192.0.2.7 */
    0xc0, 16,   0,    2,    0,    1,   0,   0,    0,   60,  0,   5,
    2,    'n',  's',  0xc0, 16,                                /* NS */
    0,    0,    41,   4,    0xd0, 0,   0,   0x80, 0,   0,   0, /* OPT */
};

static int read_name(const uint8_t *message, size_t len, size_t offset, struct dns_name *ret)
{
    return dns_name_read(message, len, &offset, ret);
}

static struct dns_name name_of(const char *text)
{
    struct dns_name name;

    assert_int_equal(dns_name_parse(text, &name), 0);
    return name;
}

static void assert_name_is(const struct dns_name *name, const char *text)
{
    char formatted[DNS_TEXT_MAX];

    assert_string_equal(dns_name_format(name, formatted), text);
}

static void an_answer_is_read_whole(void **state)
{
    struct dns_message m;

    (void)state;
    assert_int_equal(dns_message_read(ANSWER, sizeof ANSWER, &m), 0);
    assert_int_equal(m.header.id, 0x1234);
    assert_int_equal(m.header.flags, 0x81a0);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 2);
    assert_name_is(&m.question.name, "wWw.example.com");
    assert_int_equal(m.question.type, DNS_TYPE_A);
    assert_int_equal(m.question.qclass, DNS_CLASS_IN);
    assert_int_equal(m.records, 33);
    assert_true(m.edns.present && m.edns.dnssec_ok);
    assert_int_equal(m.edns.size, 1232);
    assert_int_equal(m.opt_end - m.opt_start, DNS_OPT_LEN);
    assert_int_equal(m.end, sizeof ANSWER);
}

static void records_are_walked_in_order_with_their_owners(void **state)
{
    static const struct {
        enum dns_section section;
        uint16_t type;
        const char *owner;
    } expected[] = {
        {DNS_ANSWER, DNS_TYPE_CNAME, "wWw.example.com"},
        {DNS_ANSWER, DNS_TYPE_A, "x.example.com"},
        {DNS_AUTHORITY, DNS_TYPE_NS, "example.com"},
        {DNS_ADDITIONAL, DNS_TYPE_OPT, "."},
    };
    struct dns_message m;
    struct dns_walk walk;
    struct dns_record record;
    struct dns_name owner;

    (void)state;
    assert_int_equal(dns_message_read(ANSWER, sizeof ANSWER, &m), 0);
    walk = dns_walk_of(ANSWER, sizeof ANSWER, &m.header, m.records);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(dns_walk_next(&walk, &record), 1);
        assert_int_equal(record.section, expected[i].section);
        assert_int_equal(record.type, expected[i].type);
        assert_int_equal(read_name(ANSWER, sizeof ANSWER, record.start, &owner), 0);
        assert_name_is(&owner, expected[i].owner);
    }
    assert_int_equal(record.end, sizeof ANSWER);
    assert_int_equal(dns_walk_next(&walk, &record), 0);
    assert_int_equal(dns_walk_next(&walk, &record), 0);
}

static void every_truncation_of_an_answer_is_refused(void **state)
{
    struct dns_message m;

    (void)state;
    for (size_t len = 0; len < sizeof ANSWER; len++) {
        uint8_t *exact = malloc(len ? len : 1); /* so that a sanitizer sees a step beyond */

        assert_non_null(exact);
        memcpy(exact, ANSWER, len);
        assert_int_equal(dns_message_read(exact, len, &m), -EBADMSG);
        free(exact);
    }
}

static void every_flipped_byte_is_survived(void **state)
{
    uint8_t bytes[sizeof ANSWER];
    struct dns_message m;

    (void)state;
    for (size_t i = 0; i < sizeof ANSWER; i++) {
        for (unsigned value = 0; value < 256; value++) {
            memcpy(bytes, ANSWER, sizeof bytes);
            bytes[i] = (uint8_t)value;
            if (dns_message_read(bytes, sizeof bytes, &m) == 0)
                assert_true(m.end <= sizeof bytes && m.opt_end <= m.end);
        }
    }
}

static void counts_that_lie_are_found(void **state)
{
    uint8_t bytes[sizeof ANSWER];
    struct dns_message m;

    (void)state;
    for (size_t at = 4; at < 12; at += 2) {
        memcpy(bytes, ANSWER, sizeof bytes);
        bytes[at] = 0xff; /* far more than there are */
        assert_int_equal(dns_message_read(bytes, sizeof bytes, &m), -EBADMSG);
    }
    memcpy(bytes, ANSWER, sizeof bytes);
    bytes[11] = 0; /* OPT is not counted: it stands behind the message's end */
    assert_int_equal(dns_message_read(bytes, sizeof bytes, &m), 0);
    assert_false(m.edns.present);
    assert_int_equal(m.end, sizeof bytes - DNS_OPT_LEN);
}

static void no_question_or_two_are_refused(void **state)
{
    uint8_t bytes[sizeof ANSWER];
    struct dns_message m;

    (void)state;
    memcpy(bytes, ANSWER, sizeof bytes);
    bytes[5] = 0;
    assert_int_equal(dns_message_read(bytes, sizeof bytes, &m), -EBADMSG);
    bytes[5] = 2;
    assert_int_equal(dns_message_read(bytes, sizeof bytes, &m), -EBADMSG);
    assert_int_equal(m.header.id, 0x1234);
}

static void a_second_opt_or_one_elsewhere_is_refused(void **state)
{
    uint8_t twice[sizeof ANSWER + DNS_OPT_LEN];
    struct dns_message m;

    (void)state;
    memcpy(twice, ANSWER, sizeof ANSWER);
    memcpy(twice + sizeof ANSWER, ANSWER + sizeof ANSWER - DNS_OPT_LEN, DNS_OPT_LEN);
    twice[11] = 2;
    assert_int_equal(dns_message_read(twice, sizeof twice, &m), -EBADMSG);
    memcpy(twice, ANSWER, sizeof ANSWER);
    twice[9] = 2; /* counted as authority */
    twice[11] = 0;
    assert_int_equal(dns_message_read(twice, sizeof ANSWER, &m), -EBADMSG);
}

static void pointers_to_themselves_forwards_or_in_circles_are_refused(void **state)
{
    uint8_t self[] = {[12] = 0xc0, 12}, forward[] = {[12] = 0xc0, 14, 1, 'a', 0};
    uint8_t circle[] = {[12] = 1, 'a', 0xc0, 16, 1, 'b', 0xc0, 12};
    uint8_t into_own_labels[] = {[12] = 1, 'a', 0xc0, 12};
    uint8_t header[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0, 4};
    uint8_t beyond[] = {[12] = 0xff, 0xff};
    struct dns_name name;

    (void)state;
    assert_int_equal(read_name(self, sizeof self, 12, &name), -EBADMSG);
    assert_int_equal(read_name(forward, sizeof forward, 12, &name), -EBADMSG);
    assert_int_equal(read_name(circle, sizeof circle, 12, &name), -EBADMSG);
    assert_int_equal(read_name(circle, sizeof circle, 16, &name), -EBADMSG);
    assert_int_equal(read_name(into_own_labels, sizeof into_own_labels, 12, &name), -EBADMSG);
    assert_int_equal(read_name(header, sizeof header, 12, &name), -EBADMSG);
    assert_int_equal(read_name(beyond, sizeof beyond, 12, &name), -EBADMSG);
}

static void a_name_that_runs_on_behind_the_pointer_to_it_is_refused(void **state)
{
    /* "2.a", and a pointer to the 2, which is a label of 50 bytes from there */
    uint8_t message[100] = {[12] = 1, '2', 1, 'a', 0, 0, 1, 0, 1, [21] = 0xc0, 13};
    /* "a", whose end lies behind the pointer to it; and that pointer in front of its end */
    uint8_t unended[] = {[12] = 1, 'a', 1, 'b', 0xc0, 12, 0};
    struct dns_name name;

    (void)state;
    assert_int_equal(read_name(message, sizeof message, 21, &name), -EBADMSG);
    assert_int_equal(read_name(unended, sizeof unended, 14, &name), -EBADMSG);
    assert_int_equal(read_name(message, sizeof message, 12, &name), 0);
}

static void long_chains_of_pointers_are_refused(void **state)
{
    uint8_t chain[12 + 1 + 2 * 200] = {0};
    struct dns_name name;

    (void)state;
    for (size_t i = 0; i < 200; i++) {
        size_t at = 13 + 2 * i, target = i == 0 ? 12 : at - 2;

        chain[at] = (uint8_t)(0xc0 | target >> 8);
        chain[at + 1] = (uint8_t)target;
    }
    assert_int_equal(read_name(chain, sizeof chain, 13 + 2 * 126, &name), 0);
    assert_int_equal(name.len, 1);
    assert_int_equal(read_name(chain, sizeof chain, 13 + 2 * 127, &name), -EBADMSG);
    assert_int_equal(read_name(chain, sizeof chain, sizeof chain - 2, &name), -EBADMSG);
}

static void reserved_label_types_are_refused(void **state)
{
    uint8_t bytes[80] = {0};
    struct dns_name name;

    (void)state;
    bytes[0] = 0x40;
    assert_int_equal(read_name(bytes, sizeof bytes, 0, &name), -EBADMSG);
    bytes[0] = 0x80;
    assert_int_equal(read_name(bytes, sizeof bytes, 0, &name), -EBADMSG);
}

/* Four labels of 63, 63, 63 and `last` bytes. */
static size_t long_name(uint8_t *to, size_t last)
{
    size_t len = 0;

    for (int i = 0; i < 4; i++) {
        size_t label = i < 3 ? 63 : last;

        to[len] = (uint8_t)label;
        memset(to + len + 1, 'a', label);
        len += label + 1;
    }
    to[len] = 0;
    return len + 1;
}

static void names_of_255_bytes_are_read_and_of_256_are_not(void **state)
{
    uint8_t bytes[300];
    struct dns_name name;

    (void)state;
    assert_int_equal(long_name(bytes, 61), 255);
    assert_int_equal(read_name(bytes, 255, 0, &name), 0);
    assert_int_equal(name.len, 255);
    assert_int_equal(long_name(bytes, 62), 256);
    assert_int_equal(read_name(bytes, 256, 0, &name), -EBADMSG);
}

static void names_grown_beyond_255_by_a_pointer_are_refused(void **state)
{
    uint8_t bytes[300];
    struct dns_name name;
    size_t len = 12 + long_name(bytes + 12, 61);

    (void)state;
    memcpy(bytes + len, (uint8_t[]){1, 'b', 0xc0, 12}, 4);
    assert_int_equal(read_name(bytes, len + 4, len, &name), -EBADMSG);
    memcpy(bytes + len, (uint8_t[]){1, 'b', 0xc0, 12 + 64}, 4);
    assert_int_equal(read_name(bytes, len + 4, len, &name), 0);
    assert_int_equal(name.len, 255 - 64 + 2);
}

static void names_of_text_are_parsed_and_formatted_back(void **state)
{
    static const char *const same[] = {
        ".",           "a",          "www.example.com", "a\\.b.c", "\\000\\255.x",
        "_sip._tcp.x", "sp\\032ace", "back\\\\slash"};

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct dns_name name = name_of(same[i]);

        assert_name_is(&name, same[i]);
    }
    assert_true(dns_name_equal(&(struct dns_name){.len = 1}, &(struct dns_name){.len = 1}));
    assert_int_equal(name_of("").len, 1);
    assert_int_equal(name_of("example.com.").len, name_of("example.com").len);
}

static void texts_that_are_no_names_are_refused(void **state)
{
    char long_label[70], long_text[300];
    struct dns_name name = {.len = 7};

    (void)state;
    memset(long_label, 'a', 64);
    long_label[64] = '\0';
    memset(long_text, 0, sizeof long_text);
    for (size_t i = 0; i < 254; i++)
        long_text[i] = i % 2 ? '.' : 'a';
    assert_int_equal(dns_name_parse(long_text, &name), 0); /* 127 labels: 255 bytes */
    assert_int_equal(name.len, 255);
    strcat(long_text, "a");
    for (const char *const *bad = (const char *const[]){"..", ".a", "a..b", "a\\", "a\\25", "\\256",
                                                        long_label, long_text, NULL};
         *bad; bad++)
        assert_int_equal(dns_name_parse(*bad, &name), -EINVAL);
}

static void a_name_of_escapes_fits_its_text(void **state)
{
    uint8_t bytes[300];
    struct dns_name name;
    char text[DNS_TEXT_MAX];

    (void)state;
    assert_int_equal(long_name(bytes, 61), 255);
    for (size_t i = 0; i < 254; i++)
        if (bytes[i] == 'a')
            bytes[i] = 0xff;
    assert_int_equal(read_name(bytes, 255, 0, &name), 0);
    assert_in_range(strlen(dns_name_format(&name, text)), 1000, DNS_TEXT_MAX - 1);
}

static void names_are_compared_in_any_case(void **state)
{
    struct dns_name a = name_of("WWW.Example.com"), b = name_of("www.eXAMPLE.com"), c;

    (void)state;
    assert_true(dns_name_equal(&a, &b));
    c = name_of("www.example.co");
    assert_false(dns_name_equal(&a, &c));
    c = name_of("wwwxexample.com");
    assert_false(dns_name_equal(&a, &c));
    dns_name_lower(&a);
    assert_memory_equal(a.bytes, name_of("www.example.com").bytes, a.len);
}

static void below_is_judged_on_label_borders(void **state)
{
    struct dns_name zone = name_of("example.com"), root = name_of("."), name;

    (void)state;
    name = name_of("A.EXAMPLE.com");
    assert_true(dns_name_is_below(&name, &zone));
    assert_true(dns_name_is_below(&zone, &zone));
    assert_true(dns_name_is_below(&zone, &root));
    assert_true(dns_name_is_below(&root, &root));
    assert_false(dns_name_is_below(&root, &zone));
    name = name_of("badexample.com");
    assert_false(dns_name_is_below(&name, &zone));
    name = name_of("com");
    assert_false(dns_name_is_below(&name, &zone));
    name = name_of("x\\007example.com"); /* the zone's bytes, not at a border */
    assert_false(dns_name_is_below(&name, &zone));
}

static void reverse_names_are_addresses(void **state)
{
    struct ip_address a, expected;
    struct dns_name name = name_of("2.2.0.10.IN-addr.arpa");

    (void)state;
    assert_true(dns_name_to_reverse_address(&name, &a));
    expected = ip_address_v4(htonl(0x0a000202));
    assert_true(ip_address_equal(&a, &expected));
    name = name_of("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.6.6.7.3.6.5.7.3.6.D.f.ip6.arpa");
    assert_true(dns_name_to_reverse_address(&name, &a));
    assert_int_equal(a.bytes[0], 0xfd);
    assert_int_equal(a.bytes[1], 0x63);
    assert_int_equal(a.bytes[15], 2);
}

static void other_names_are_no_addresses(void **state)
{
    static const char *const names[] = {
        "2.2.0.10.example.arpa", "2.0.10.in-addr.arpa", "1.2.2.0.10.in-addr.arpa",
        "256.2.0.10.in-addr.arpa", "02.2.0.10.in-addr.arpa", "x.2.0.10.in-addr.arpa",
        "2.0.0.ip6.arpa", "in-addr.arpa", ".",
        /* a v4-mapped address would pass for IPv4 */
        "2.0.2.0.0.0.a.0.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
        "g.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.6.6.7.3.6.5.7.3.6.d.f.ip6.arpa"};
    struct ip_address a;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct dns_name name = name_of(names[i]);

        assert_false(dns_name_to_reverse_address(&name, &a));
    }
}

static void reverse_names_above_and_below_an_address_are_ranges(void **state)
{
    static const struct {
        const char *name, *first, *last;
    } cases[] = {
        {"2.2.0.10.in-addr.arpa", "10.0.2.2", "10.0.2.2"},
        {"0.10.in-addr.arpa", "10.0.0.0", "10.0.255.255"},
        {"10.IN-addr.arpa", "10.0.0.0", "10.255.255.255"},
        {"lb._dns-sd._udp.0.2.0.10.in-addr.arpa", "10.0.2.0", "10.0.2.0"},
        {"9.2.2.0.10.in-addr.arpa", "10.0.2.2", "10.0.2.2"},
        {"1.0/25.2.0.192.in-addr.arpa", "192.0.2.0", "192.0.2.255"},
        {"256.10.in-addr.arpa", "10.0.0.0", "10.255.255.255"},
        {"d.F.ip6.arpa", "fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"f.ip6.arpa", "f000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"x.5.6.d.f.ip6.arpa", "fd65::", "fd65:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.6.6.7.3.6.5.7.3.6.d.f.ip6.arpa",
         "fd63:7563:7665::2", "fd63:7563:7665::2"},
    };
    static const char *const others[] = {"in-addr.arpa",    "ip6.arpa", "x.in-addr.arpa",
                                         "10.example.arpa", "d.f.ip6",  "."};
    struct ip_address first, last, expected;
    struct dns_name name;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        name = name_of(cases[i].name);
        assert_true(dns_name_to_reverse_range(&name, &first, &last));
        assert_true(ip_address_parse(cases[i].first, &expected));
        assert_true(ip_address_equal(&first, &expected));
        assert_true(ip_address_parse(cases[i].last, &expected));
        assert_true(ip_address_equal(&last, &expected));
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        name = name_of(others[i]);
        assert_false(dns_name_to_reverse_range(&name, &first, &last));
    }
}

static size_t build_answer(uint8_t *to, size_t capacity, bool *ret_overflow)
{
    struct dns_builder b = {.data = to, .capacity = capacity};
    struct dns_question question = {.type = DNS_TYPE_A, .qclass = DNS_CLASS_IN};

    question.name = name_of("host.culvert.internal");
    dns_build_header(
        &b, &(struct dns_header){
                .id = 7, .flags = DNS_FLAG_QR, .question_count = 1, .record_count = {1, 0, 1}});
    dns_build_question(&b, &question);
    dns_build_record(&b, DNS_TYPE_A, DNS_CLASS_IN, 60, "\x0a\x00\x02\x02", 4);
    dns_build_opt(&b, &(struct dns_edns){.present = true, .size = 1232, .dnssec_ok = true});
    *ret_overflow = b.overflow;
    return b.len;
}

static void what_is_built_is_read_back(void **state)
{
    uint8_t bytes[128];
    struct dns_message m;
    bool overflow;
    size_t len = build_answer(bytes, sizeof bytes, &overflow);

    (void)state;
    assert_false(overflow);
    assert_int_equal(dns_message_read(bytes, len, &m), 0);
    assert_int_equal(m.end, len);
    assert_name_is(&m.question.name, "host.culvert.internal");
    assert_true(m.edns.present && m.edns.dnssec_ok);
    assert_int_equal(m.edns.size, 1232);
}

static void a_builder_stops_at_its_capacity(void **state)
{
    uint8_t bytes[128];
    bool overflow;
    size_t whole = build_answer(bytes, sizeof bytes, &overflow);

    (void)state;
    for (size_t capacity = 0; capacity < whole; capacity++) {
        memset(bytes, 0xee, sizeof bytes);
        assert_true(build_answer(bytes, capacity, &overflow) <= capacity);
        assert_true(overflow);
        for (size_t i = capacity; i < sizeof bytes; i++)
            assert_int_equal(bytes[i], 0xee);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_read_whole),
        cmocka_unit_test(records_are_walked_in_order_with_their_owners),
        cmocka_unit_test(every_truncation_of_an_answer_is_refused),
        cmocka_unit_test(every_flipped_byte_is_survived),
        cmocka_unit_test(counts_that_lie_are_found),
        cmocka_unit_test(no_question_or_two_are_refused),
        cmocka_unit_test(a_second_opt_or_one_elsewhere_is_refused),
        cmocka_unit_test(pointers_to_themselves_forwards_or_in_circles_are_refused),
        cmocka_unit_test(a_name_that_runs_on_behind_the_pointer_to_it_is_refused),
        cmocka_unit_test(long_chains_of_pointers_are_refused),
        cmocka_unit_test(reserved_label_types_are_refused),
        cmocka_unit_test(names_of_255_bytes_are_read_and_of_256_are_not),
        cmocka_unit_test(names_grown_beyond_255_by_a_pointer_are_refused),
        cmocka_unit_test(names_of_text_are_parsed_and_formatted_back),
        cmocka_unit_test(texts_that_are_no_names_are_refused),
        cmocka_unit_test(a_name_of_escapes_fits_its_text),
        cmocka_unit_test(names_are_compared_in_any_case),
        cmocka_unit_test(below_is_judged_on_label_borders),
        cmocka_unit_test(reverse_names_are_addresses),
        cmocka_unit_test(reverse_names_above_and_below_an_address_are_ranges),
        cmocka_unit_test(other_names_are_no_addresses),
        cmocka_unit_test(what_is_built_is_read_back),
        cmocka_unit_test(a_builder_stops_at_its_capacity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
