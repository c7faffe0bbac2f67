/* SPDX-License-Identifier: Apache-2.0 */
/* ldns as the oracle of our codec: what it writes we read alike, what we write it reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <ldns/ldns.h>

#include "wire/dns.h"

static const char *const RECORDS[] = {
    "www.example.com. 60 IN CNAME web.example.com.",
    "web.example.com. 60 IN A 192.0.2.1",
    "web.example.com. 60 IN AAAA 2001:db8::1",
    "example.com. 3600 IN MX 10 mail.example.com.",
    "example.com. 3600 IN TXT \"v=spf1 -all\" \"second\"",
    "example.com. 3600 IN SOA ns.example.com. root.example.com. 1 2 3 4 5",
    "_sip._tcp.example.com. 60 IN SRV 1 2 5060 sip.example.com.",
    "example.com. 60 IN CAA 0 issue \"ca.example.net\"",
    "a\\.b\\032c.example.com. 60 IN TYPE65280 \\# 4 01020304",
    "example.com. 60 IN DS 60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118",
};
#define RECORD_COUNT (sizeof RECORDS / sizeof *RECORDS)

static ldns_pkt *oracle_packet(void)
{
    ldns_pkt *packet = ldns_pkt_new();
    ldns_rr *question = NULL;

    assert_int_equal(ldns_rr_new_question_frm_str(&question, "www.example.com. IN A", NULL, NULL),
                     LDNS_STATUS_OK);
    ldns_pkt_set_id(packet, 4711);
    ldns_pkt_set_qr(packet, true);
    ldns_pkt_set_rd(packet, true);
    assert_true(ldns_pkt_push_rr(packet, LDNS_SECTION_QUESTION, question));
    for (size_t i = 0; i < RECORD_COUNT; i++) {
        ldns_rr *rr = NULL;

        assert_int_equal(ldns_rr_new_frm_str(&rr, RECORDS[i], 0, NULL, NULL), LDNS_STATUS_OK);
        assert_true(ldns_pkt_push_rr(packet,
                                     i < 4   ? LDNS_SECTION_ANSWER
                                     : i < 7 ? LDNS_SECTION_AUTHORITY
                                             : LDNS_SECTION_ADDITIONAL,
                                     rr));
    }
    ldns_pkt_set_edns_udp_size(packet, 1400);
    ldns_pkt_set_edns_do(packet, true);
    return packet;
}

static void what_ldns_writes_we_read_alike(void **state)
{
    ldns_pkt *packet = oracle_packet();
    uint8_t *wire = NULL;
    size_t len = 0, records = 0;
    struct dns_message m;
    struct dns_walk walk;
    struct dns_record record;

    (void)state;
    assert_int_equal(ldns_pkt2wire(&wire, packet, &len), LDNS_STATUS_OK);
    assert_int_equal(dns_message_read(wire, len, &m), 0);
    assert_int_equal(m.header.id, 4711);
    assert_int_equal(m.header.flags, DNS_FLAG_QR | DNS_FLAG_RD);
    assert_int_equal(m.end, len);
    assert_true(m.edns.present && m.edns.dnssec_ok);
    assert_int_equal(m.edns.size, 1400);
    walk = dns_walk_of(wire, len, &m.header, m.records);
    while (dns_walk_next(&walk, &record) == 1 && record.type != DNS_TYPE_OPT) {
        ldns_rr *rr = NULL;
        struct dns_name owner;
        size_t at = record.start;

        assert_int_equal(ldns_rr_new_frm_str(&rr, RECORDS[records++], 0, NULL, NULL),
                         LDNS_STATUS_OK);
        assert_int_equal(dns_name_read(wire, len, &at, &owner), 0);
        assert_int_equal(owner.len, ldns_rdf_size(ldns_rr_owner(rr)));
        assert_memory_equal(owner.bytes, ldns_rdf_data(ldns_rr_owner(rr)), owner.len);
        assert_int_equal(record.type, ldns_rr_get_type(rr));
        assert_int_equal(record.ttl, ldns_rr_ttl(rr));
        ldns_rr_free(rr);
    }
    assert_int_equal(records, RECORD_COUNT);
    free(wire);
    ldns_pkt_free(packet);
}

static void no_truncation_of_what_ldns_writes_is_taken(void **state)
{
    ldns_pkt *packet = oracle_packet();
    uint8_t *wire = NULL;
    size_t len = 0;
    struct dns_message m;

    (void)state;
    assert_int_equal(ldns_pkt2wire(&wire, packet, &len), LDNS_STATUS_OK);
    for (size_t cut = 0; cut < len; cut++)
        assert_true(dns_message_read(wire, cut, &m) < 0);
    free(wire);
    ldns_pkt_free(packet);
}

static void what_we_write_ldns_reads(void **state)
{
    uint8_t bytes[512];
    struct dns_builder b = {.data = bytes, .capacity = sizeof bytes};
    struct dns_question question = {.type = DNS_TYPE_A, .qclass = DNS_CLASS_IN};
    ldns_pkt *packet = NULL;
    char *text;

    (void)state;
    assert_int_equal(dns_name_parse("host.Culvert.internal", &question.name), 0);
    dns_build_header(&b, &(struct dns_header){.id = 99,
                                              .flags = DNS_FLAG_QR | DNS_FLAG_AA | DNS_FLAG_RA,
                                              .question_count = 1,
                                              .record_count = {1, 0, 1}});
    dns_build_question(&b, &question);
    dns_build_record(&b, DNS_TYPE_A, DNS_CLASS_IN, 60, "\x0a\x00\x02\x02", 4);
    dns_build_opt(&b, &(struct dns_edns){.present = true, .size = 1232, .dnssec_ok = true});
    assert_false(b.overflow);
    assert_int_equal(ldns_wire2pkt(&packet, bytes, b.len), LDNS_STATUS_OK);
    assert_int_equal(ldns_pkt_id(packet), 99);
    assert_true(ldns_pkt_aa(packet) && ldns_pkt_ra(packet) && !ldns_pkt_rd(packet));
    assert_true(ldns_pkt_edns_do(packet));
    assert_int_equal(ldns_pkt_edns_udp_size(packet), 1232);
    text = ldns_rr2str(ldns_rr_list_rr(ldns_pkt_answer(packet), 0));
    assert_string_equal(text, "host.Culvert.internal.\t60\tIN\tA\t10.0.2.2\n");
    free(text);
    ldns_pkt_free(packet);
}

static void names_are_parsed_as_ldns_parses_them(void **state)
{
    static const char *const texts[] = {"www.example.com", "a\\.b.c", "x\\032y.z", "\\000.q",
                                        "_dmarc.example.org."};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        ldns_rdf *theirs = ldns_dname_new_frm_str(texts[i]);
        struct dns_name ours;

        assert_non_null(theirs);
        assert_int_equal(dns_name_parse(texts[i], &ours), 0);
        assert_int_equal(ours.len, ldns_rdf_size(theirs));
        assert_memory_equal(ours.bytes, ldns_rdf_data(theirs), ours.len);
        ldns_rdf_deep_free(theirs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_ldns_writes_we_read_alike),
        cmocka_unit_test(no_truncation_of_what_ldns_writes_is_taken),
        cmocka_unit_test(what_we_write_ldns_reads),
        cmocka_unit_test(names_are_parsed_as_ldns_parses_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
