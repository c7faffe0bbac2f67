/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest that asks by UDP gets. */
#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "wire/bytes.h"

static const struct question WWW = {.id = 7, .name = "www.Example.com", .type = DNS_TYPE_A};
static const struct question WWW_EDNS = {
    .id = 8, .name = "www.Example.com", .type = DNS_TYPE_A, .edns = 1232};

static int setup(void **state)
{
    *state = world_new();
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    return 0;
}

static void assert_name(const struct dns_name *name, const char *text)
{
    char formatted[DNS_TEXT_MAX];

    assert_string_equal(dns_name_format(name, formatted), text);
}

/* The rcode of the reply to one more question. */
static unsigned ask(struct world *w, const struct question *question)
{
    size_t before = w->reply_count;

    guest_asks(w, 4000, question);
    world_run_replies(w, before + 1);
    return reply_rcode(w, before);
}

/* ---- plain forwarding ---- */

static void a_question_is_forwarded_and_its_answer_comes_back(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    world_add_server(w, answer_one);
    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_replies(w, 1);
    m = reply_read(w, 0);
    assert_int_equal(m.header.id, 7);
    assert_int_equal(m.header.flags, DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 1);
    assert_name(&m.question.name, "www.Example.com");
    assert_false(m.edns.present);
    assert_int_equal(w->replies[0].key.guest_port, 4000);
    assert_int_equal(w->replies[0].key.remote_port, 53);
    assert_int_equal(timers_next(w->timers), TIMERS_NEVER);
}

static void ids_ports_and_letters_are_random(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_one);
    unsigned same_id = 0, same_port = 0, same_case = 0;
    struct asked before;

    world_start(w);
    for (uint16_t i = 0; i < 20; i++) {
        before = server->last;
        guest_asks(w, 4000, &WWW);
        world_run_replies(w, i + 1u);
        same_id += server->last.m.header.id == before.m.header.id;
        same_port += server->last.from.sin_port == before.from.sin_port;
        same_case += memcmp(server->last.m.question.name.bytes, before.m.question.name.bytes,
                            before.m.question.name.len) == 0;
    }
    assert_in_range(same_id, 0, 2);
    assert_in_range(same_port, 0, 2);
    assert_in_range(same_case, 0, 3);
}

static void flags_and_dnssec_ok_are_asked_as_the_guest_did(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_one);
    uint8_t bytes[512];
    size_t len = question_build(&WWW_EDNS, bytes);

    world_start(w);
    store_be16(bytes + 2, DNS_FLAG_CD | DNS_FLAG_AD);
    bytes[len - 4] = 0x80; /* DO */
    guest_sends(w, 4000, bytes, len);
    world_run_replies(w, 1);
    assert_int_equal(server->last.m.header.flags, DNS_FLAG_CD | DNS_FLAG_AD);
    assert_true(server->last.m.edns.dnssec_ok);
    assert_true(reply_read(w, 0).edns.dnssec_ok);
}

static void answer_of_unknown_type(struct server *server, const struct asked *asked)
{
    struct asked no_edns = *asked;
    uint8_t bytes[512];
    struct dns_builder b = {.data = bytes, .capacity = sizeof bytes};

    no_edns.m.edns.present = false;
    b.len = answer_build(&no_edns, DNS_NOERROR, 0, bytes, sizeof bytes);
    bytes[7] = 1;
    dns_build_record(&b, 65280, DNS_CLASS_IN, 5, "\xc0\x0c\x00 any bytes \xff", 16);
    server_send(server, asked, bytes, b.len);
}

static void records_of_unknown_types_pass_intact(void **state)
{
    struct world *w = *state;

    world_add_server(w, answer_of_unknown_type);
    world_start(w);
    guest_asks(w, 4000, &(struct question){.id = 1, .name = "x.example", .type = 65280});
    world_run_replies(w, 1);
    assert_int_equal(reply_read(w, 0).header.record_count[DNS_ANSWER], 1);
    assert_memory_equal(w->replies[0].bytes + w->replies[0].len - 16, "\xc0\x0c\x00 any bytes \xff",
                        16);
}

/* ---- forgeries ---- */

static void answer_after_forgeries(struct server *server, const struct asked *asked)
{
    uint8_t bytes[512];
    size_t len = answer_build(asked, DNS_NOERROR, 3, bytes, sizeof bytes);

    bytes[0] ^= 1; /* another id */
    server_send(server, asked, bytes, len);
    bytes[0] ^= 1;
    bytes[13] ^= 3; /* another name */
    server_send(server, asked, bytes, len);
    bytes[13] ^= 3;
    bytes[asked->m.records - 3] ^= 4; /* another type */
    server_send(server, asked, bytes, len);
    bytes[asked->m.records - 3] ^= 4;
    bytes[2] ^= 0x80; /* a question */
    server_send(server, asked, bytes, len);
    server_send(server, asked, bytes, 7);
    answer_one(server, asked);
}

static void answers_with_a_wrong_id_or_question_are_passed_over(void **state)
{
    struct world *w = *state;

    world_add_server(w, answer_after_forgeries);
    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_replies(w, 1);
    assert_int_equal(reply_read(w, 0).header.record_count[DNS_ANSWER], 1);
    assert_int_equal(COUNTED(w, answer_mismatch), 5);
}

static void answer_from_elsewhere(struct server *server, const struct asked *asked)
{
    uint8_t bytes[512];

    server_send(&server->world->servers[1], asked, bytes,
                answer_build(asked, DNS_NOERROR, 3, bytes, sizeof bytes));
}

static void answers_from_another_source_are_not_heard(void **state)
{
    struct world *w = *state;

    world_add_server(w, answer_from_elsewhere);
    world_add_server(w, NULL);
    w->server_count = 1;
    world_start(w);
    w->server_count = 2;
    guest_asks(w, 4000, &WWW);
    world_run_asked(w, &w->servers[0], 1);
    world_settle(w);
    assert_int_equal(w->reply_count, 0);
}

static void answer_in_lower_case(struct server *server, const struct asked *asked)
{
    struct asked lower = *asked;
    uint8_t bytes[512];

    dns_name_lower(&lower.m.question.name);
    server_send(server, asked, bytes, answer_build(&lower, DNS_NOERROR, 1, bytes, sizeof bytes));
}

static void a_server_that_loses_the_case_is_asked_again_and_then_known(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_in_lower_case);

    world_start(w);
    guest_asks(w, 4000,
               &(struct question){.id = 1, .name = "a-name-of-many-letters.example", .type = 1});
    world_run_replies(w, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_NOERROR);
    assert_int_equal(COUNTED(w, answer_folded), 1);
    assert_int_equal(server->asked_udp, 2);
    guest_asks(w, 4001, &WWW);
    world_run_replies(w, 2);
    assert_int_equal(server->asked_udp, 3);
}

/* ---- names answered here ---- */

static void add_hosts(struct world *w)
{
    struct ip_address a;

    assert_true(ip_address_parse("10.0.2.2", &a));
    assert_int_equal(dns_add_host(w->dns, "host.culvert.internal", &a), 0);
    assert_true(ip_address_parse("fd63:756c:7665::2", &a));
    assert_int_equal(dns_add_host(w->dns, "host.culvert.internal.", &a), 0);
    assert_int_equal(dns_add_host(w->dns, "bad..name", &a), -EINVAL);
}

static void host_names_are_answered_here_and_never_asked(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_one);
    struct dns_message m;

    world_start(w);
    add_hosts(w);
    guest_asks(w, 4000, &(struct question){1, "HOST.culvert.internal", DNS_TYPE_A, 1232, 0});
    m = reply_read(w, 0);
    assert_int_equal(m.header.flags & DNS_RCODE_MASK, DNS_NOERROR);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 1);
    assert_true(m.edns.present);
    assert_memory_equal(w->replies[0].bytes + m.opt_start - 4, "\x0a\x00\x02\x02", 4);
    guest_asks(w, 4000, &(struct question){2, "host.culvert.internal", DNS_TYPE_AAAA, 0, 0});
    m = reply_read(w, 1);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 1);
    assert_memory_equal(w->replies[1].bytes + m.end - 16, "\xfd\x63\x75\x6c\x76\x65", 6);
    guest_asks(w, 4000, &(struct question){3, "host.culvert.internal", DNS_TYPE_ANY, 0, 0});
    assert_int_equal(reply_read(w, 2).header.record_count[DNS_ANSWER], 2);
    world_settle(w);
    assert_int_equal(server->asked_udp, 0);
    assert_int_equal(COUNTED(w, local_answers), 3);
}

static void host_addresses_have_names(void **state)
{
    struct world *w = *state;
    struct dns_message m;
    struct dns_name name;
    size_t at;

    world_start(w);
    add_hosts(w);
    guest_asks(w, 4000, &(struct question){1, "2.2.0.10.in-addr.arpa", DNS_TYPE_PTR, 0, 0});
    m = reply_read(w, 0);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 1);
    at = m.end - 23;
    assert_int_equal(dns_name_read(w->replies[0].bytes, m.end, &at, &name), 0);
    assert_name(&name, "host.culvert.internal");
}

static void host_names_have_no_data_of_other_types_and_their_zone_no_others(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    world_start(w);
    add_hosts(w);
    guest_asks(w, 4000, &(struct question){1, "host.culvert.internal", 15, 0, 0});
    m = reply_read(w, 0);
    assert_int_equal(m.header.flags & DNS_RCODE_MASK, DNS_NOERROR);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 0);
    guest_asks(w, 4000, &(struct question){2, "other.culvert.internal", DNS_TYPE_A, 0, 0});
    assert_int_equal(reply_rcode(w, 1), DNS_NXDOMAIN);
}

/* ---- what is no plain query ---- */

static void malformed_questions_get_formerr(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_one);
    uint8_t bytes[513] = {0};
    size_t len = question_build(&WWW_EDNS, bytes);

    world_start(w);
    for (size_t cut = 0; cut < len; cut++) {
        size_t before = w->reply_count;

        guest_sends(w, 4000, bytes, cut);
        assert_int_equal(w->reply_count, before + (cut >= 4));
        if (cut >= 4) {
            assert_int_equal(load_be16(w->replies[before].bytes), 8);
            assert_int_equal(reply_rcode(w, before), DNS_FORMERR);
        }
    }
    guest_sends(w, 4000, bytes, len + 1); /* a byte too many */
    assert_int_equal(reply_rcode(w, w->reply_count - 1), DNS_FORMERR);
    assert_int_equal(COUNTED(w, no_query), 4);
    assert_int_equal(COUNTED(w, malformed), len - 4 + 1);
    world_settle(w);
    assert_int_equal(server->asked_udp, 0);
}

static void responses_of_the_guest_get_nothing(void **state)
{
    struct world *w = *state;
    uint8_t bytes[512];
    size_t len = question_build(&WWW, bytes);

    world_start(w);
    bytes[2] |= 0x80;
    guest_sends(w, 4000, bytes, len);
    assert_int_equal(w->reply_count, 0);
    assert_int_equal(COUNTED(w, no_query), 1);
}

static void other_opcodes_get_notimp_transfers_refused_and_edns_1_badvers(void **state)
{
    struct world *w = *state;
    uint8_t bytes[512];
    size_t len;
    struct dns_message m;

    world_start(w);
    guest_asks(w, 4000, &(struct question){1, "example.com", 6, 0, 5 << DNS_OPCODE_SHIFT});
    assert_int_equal(reply_rcode(w, 0), DNS_NOTIMP);
    guest_asks(w, 4000, &(struct question){2, "example.com", DNS_TYPE_AXFR, 0, 0});
    assert_int_equal(reply_rcode(w, 1), DNS_REFUSED);
    len = question_build(&WWW_EDNS, bytes);
    bytes[len - 5] = 1; /* the version */
    guest_sends(w, 4000, bytes, len);
    m = reply_read(w, 2);
    assert_int_equal(m.header.flags & DNS_RCODE_MASK, 0);
    assert_int_equal(m.edns.rcode_high, 1);
    assert_int_equal(m.edns.version, 0);
}

static void a_segmented_super_datagram_is_many_questions(void **state)
{
    struct world *w = *state;
    uint8_t bytes[1024];
    size_t len = question_build(&WWW, bytes);
    struct culvert_frame *frame = culvert_frame_new(3 * len);
    struct udp_datagram datagram = {.key = {.guest_port = 1},
                                    .frame = frame,
                                    .payload_len = 3 * len,
                                    .gso_size = (uint16_t)len};

    world_start(w);
    for (size_t i = 0; i < 3; i++) {
        bytes[1] = (uint8_t)i;
        memcpy(frame->data + i * len, bytes, len);
    }
    frame->len = 3 * len;
    dns_udp_input(w->dns, &datagram, world_now(w));
    culvert_frame_unref(frame);
    assert_int_equal(w->reply_count, 3); /* SERVFAIL: there is no server */
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(w->replies[i].bytes[1], i);
}

/* ---- sizes ---- */

static void answer_forty(struct server *server, const struct asked *asked)
{
    uint8_t bytes[4096];

    server_send(server, asked, bytes, answer_build(asked, DNS_NOERROR, 40, bytes, sizeof bytes));
}

static void answers_are_cut_between_records_at_the_guests_size(void **state)
{
    static const uint16_t sizes[] = {0, 100, 512, 513, 600, 700, 1232, 4096, 65535};
    struct world *w = *state;

    world_add_server(w, answer_forty); /* of about 700 bytes */
    world_start(w);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct dns_message m;
        size_t limit = sizes[i] < 512 ? 512 : sizes[i];

        guest_asks(w, 4000, &(struct question){1, "example.com", DNS_TYPE_A, sizes[i], 0});
        world_run_replies(w, i + 1);
        m = reply_read(w, i);
        assert_true(w->replies[i].len <= limit);
        assert_int_equal(m.edns.present, sizes[i] != 0);
        if (limit < 700) {
            assert_true(m.header.flags & DNS_FLAG_TC);
            assert_in_range(m.header.record_count[DNS_ANSWER], 20, 39);
            assert_true(w->replies[i].len + 16 > limit);
        } else {
            assert_false(m.header.flags & DNS_FLAG_TC);
            assert_int_equal(m.header.record_count[DNS_ANSWER], 40);
        }
    }
    assert_int_equal(COUNTED(w, truncated), 5);
}

/* Additional records around OPT: A, OPT, A, and an MX with a compressed name. */
static void answer_with_opt_in_the_middle(struct server *server, const struct asked *asked)
{
    struct asked no_edns = *asked;
    uint8_t bytes[512];
    struct dns_builder b = {.data = bytes, .capacity = sizeof bytes};

    no_edns.m.edns.present = false;
    b.len = answer_build(&no_edns, DNS_NOERROR, 1, bytes, sizeof bytes);
    bytes[11] = 4;
    dns_build_record(&b, DNS_TYPE_A, DNS_CLASS_IN, 1, "\1\1\1\1", 4);
    dns_build_opt(&b, &(struct dns_edns){.present = true, .size = 4096});
    dns_build_record(&b, DNS_TYPE_A, DNS_CLASS_IN, 1, "\2\2\2\2", 4);
    dns_build_record(&b, 15, DNS_CLASS_IN, 1, "\0\1\xc0\x0c", 4);
    server_send(server, asked, bytes, b.len);
}

static void opt_is_never_passed_on_wherever_it_stands(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    world_add_server(w, answer_with_opt_in_the_middle);
    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_replies(w, 1);
    m = reply_read(w, 0);
    assert_false(m.edns.present);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 1);
    assert_int_equal(m.header.record_count[DNS_ADDITIONAL], 2); /* the MX cannot be moved */
    assert_memory_equal(w->replies[0].bytes + m.end - 4, "\2\2\2\2", 4);
    guest_asks(w, 4000, &WWW_EDNS);
    world_run_replies(w, 2);
    m = reply_read(w, 1);
    assert_true(m.edns.present);
    assert_int_equal(m.opt_end, m.end);
    assert_int_equal(m.header.record_count[DNS_ADDITIONAL], 3);
}

/* Over UDP a truncated answer, over TCP 200 records. */
static void answer_truncated(struct server *server, const struct asked *asked)
{
    uint8_t bytes[4096];
    unsigned records = asked->tcp_fd < 0 ? 5 : 200;
    size_t len = answer_build(asked, DNS_NOERROR, records, bytes, sizeof bytes);

    if (asked->tcp_fd < 0)
        bytes[2] |= DNS_FLAG_TC >> 8;
    server_send(server, asked, bytes, len);
}

static void a_truncated_answer_serves_a_guest_that_takes_no_more(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_truncated);

    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_replies(w, 1);
    assert_true(reply_read(w, 0).header.flags & DNS_FLAG_TC);
    assert_int_equal(server->asked_tcp, 0);
}

static void a_truncated_answer_is_asked_for_over_tcp_for_a_guest_that_takes_more(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_truncated);
    struct dns_message m;

    world_start(w);
    guest_asks(w, 4000, &(struct question){1, "example.com", DNS_TYPE_A, 4096, 0});
    world_run_replies(w, 1);
    m = reply_read(w, 0);
    assert_false(m.header.flags & DNS_FLAG_TC);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 200);
    assert_int_equal(server->asked_tcp, 1);
}

static void answer_cut_within_a_record(struct server *server, const struct asked *asked)
{
    uint8_t bytes[512];
    size_t len = answer_build(asked, DNS_NOERROR, 5, bytes, sizeof bytes);

    bytes[2] |= DNS_FLAG_TC >> 8;
    server_send(server, asked, bytes, len - DNS_OPT_LEN - 6);
}

static void a_truncated_answer_cut_within_a_record_is_passed_on_without_any(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    world_add_server(w, answer_cut_within_a_record);
    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_replies(w, 1);
    m = reply_read(w, 0);
    assert_true(m.header.flags & DNS_FLAG_TC);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 0);
}

/* ---- several guests, one question ---- */

static void equal_questions_are_asked_once_and_answered_each(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_one);
    struct dns_message m;

    world_start(w);
    guest_asks(w, 4000, &(struct question){1, "WWW.example.com", DNS_TYPE_A, 0, 0});
    guest_asks(w, 4001, &(struct question){2, "www.EXAMPLE.com", DNS_TYPE_A, 1232, 0});
    guest_asks(w, 4001, &(struct question){2, "www.EXAMPLE.com", DNS_TYPE_A, 1232, 0});
    guest_asks(w, 4001, &(struct question){3, "www.example.com", DNS_TYPE_AAAA, 0, 0});
    world_run_replies(w, 3);
    world_settle(w);
    assert_int_equal(w->reply_count, 3);
    assert_int_equal(server->asked_udp, 2);
    assert_int_equal(COUNTED(w, coalesced), 2);
    assert_int_equal(COUNTED(w, duplicate), 1);
    assert_int_equal(w->replies[0].key.guest_port, 4000);
    m = reply_read(w, 0);
    assert_name(&m.question.name, "WWW.example.com");
    m = reply_read(w, 1);
    assert_name(&m.question.name, "www.EXAMPLE.com");
    assert_true(m.edns.present);
}

static void too_many_questions_get_servfail_and_the_rest_an_answer(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, NULL);
    char name[32];

    world_start(w);
    for (uint16_t i = 0; i < DNS_QUERIES_MAX + 10; i++) {
        snprintf(name, sizeof name, "n%u.example.com", i);
        guest_asks(w, 4000, &(struct question){i, name, DNS_TYPE_A, 0, 0});
    }
    assert_int_equal(w->reply_count, 10);
    assert_int_equal(reply_rcode(w, 0), DNS_SERVFAIL);
    assert_int_equal(COUNTED(w, query_limit), 10);
    world_skip(w, 5000);
    assert_int_equal(w->reply_count, DNS_QUERIES_MAX + 10);
    server->script = answer_one;
    assert_int_equal(ask(w, &WWW), DNS_NOERROR);
}

static void one_question_of_too_many_guests_gets_servfail(void **state)
{
    struct world *w = *state;

    world_add_server(w, NULL);
    world_start(w);
    for (uint16_t i = 0; i < DNS_QUERY_CLIENTS_MAX + 1; i++)
        guest_asks(w, i, &WWW);
    assert_int_equal(w->reply_count, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_SERVFAIL);
}

/* ---- servers that fail ---- */

/* Questions to it come back as ICMP errors. */
static void server_closes_udp(struct server *server)
{
    loop_remove(&server->world->loop, server->udp);
    close(server->udp);
    server->udp = -1;
}

static void a_silent_server_is_passed_over_and_remembered(void **state)
{
    struct world *w = *state;
    struct server *first = world_add_server(w, NULL), *second = world_add_server(w, answer_one);

    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_asked(w, first, 1);
    assert_int_equal(second->asked_udp, 0);
    world_skip(w, 300);
    world_run_replies(w, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_NOERROR);
    assert_int_equal(COUNTED(w, failovers), 1);
    assert_int_equal(ask(w, &WWW), DNS_NOERROR);
    assert_int_equal(first->asked_udp, 1);
    assert_int_equal(second->asked_udp, 2);
}

static void a_late_answer_still_counts(void **state)
{
    struct world *w = *state;
    struct server *first = world_add_server(w, NULL);

    world_add_server(w, NULL);
    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_asked(w, first, 1);
    world_skip(w, 300);
    answer_one(first, &first->last);
    world_run_replies(w, 1);
    assert_int_equal(COUNTED(w, failovers), 0);
}

static void an_unreachable_server_is_passed_over_at_once(void **state)
{
    struct world *w = *state;
    struct server *first = world_add_server(w, NULL);

    world_add_server(w, answer_one);
    server_closes_udp(first);
    world_start(w);
    assert_int_equal(ask(w, &WWW), DNS_NOERROR);
    assert_int_equal(COUNTED(w, retries), 0);
    assert_int_equal(COUNTED(w, failovers), 1);
}

static void where_no_server_can_be_reached_servfail_comes_at_once(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, NULL);

    server_closes_udp(server);
    world_start(w);
    assert_int_equal(ask(w, &WWW), DNS_SERVFAIL);
    assert_int_equal(COUNTED(w, unanswered), 1);
    assert_int_equal(COUNTED(w, retries), 0);
}

static void where_all_servers_are_silent_servfail_comes_in_time(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, NULL);

    world_start(w);
    guest_asks(w, 4000, &WWW);
    for (int ms = 0; ms < 4400; ms += 100)
        world_skip(w, 100);
    world_settle(w);
    assert_int_equal(server->asked_udp, 4); /* at 0, 300, 900 and 2100 ms */
    assert_int_equal(w->reply_count, 0);
    world_skip(w, 100);
    assert_int_equal(w->reply_count, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_SERVFAIL);
    assert_int_equal(timers_next(w->timers), TIMERS_NEVER);
}

static void without_servers_servfail_comes_at_once(void **state)
{
    struct world *w = *state;

    world_start_resolv_conf(w, "/nonexistent/resolv.conf");
    assert_int_equal(ask(w, &WWW), DNS_SERVFAIL);
    assert_int_equal(COUNTED(w, no_upstream), 1);
}

static void answer_refused(struct server *server, const struct asked *asked)
{
    uint8_t bytes[512];

    server_send(server, asked, bytes, answer_build(asked, DNS_REFUSED, 0, bytes, sizeof bytes));
}

static void another_server_is_asked_where_one_refuses(void **state)
{
    struct world *w = *state;
    struct server *first = world_add_server(w, answer_refused);

    world_add_server(w, answer_one);
    world_start(w);
    for (size_t i = 1; i <= 2; i++) {
        assert_int_equal(ask(w, &WWW), DNS_NOERROR);
        assert_int_equal(first->asked_udp, i); /* it is not dead */
    }
}

static void a_refusal_is_passed_on_where_nobody_knows_better(void **state)
{
    struct world *w = *state;

    world_add_server(w, answer_refused);
    world_add_server(w, NULL);
    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_asked(w, &w->servers[1], 1);
    assert_int_equal(w->reply_count, 0);
    for (int ms = 0; ms < 1000; ms += 100)
        world_skip(w, 100);
    assert_int_equal(w->reply_count, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_REFUSED);
}

static void answer_formerr_to_edns(struct server *server, const struct asked *asked)
{
    uint8_t bytes[512];

    if (!asked->m.edns.present) {
        answer_one(server, asked);
        return;
    }
    memcpy(bytes, asked->bytes, DNS_HEADER_LEN);
    memset(bytes + 4, 0, 8);
    store_be16(bytes + 2, DNS_FLAG_QR | DNS_FORMERR);
    server_send(server, asked, bytes, DNS_HEADER_LEN); /* the header alone, as old servers do */
}

static void a_server_without_edns_is_asked_without_it(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_formerr_to_edns);

    world_start(w);
    assert_int_equal(ask(w, &WWW_EDNS), DNS_NOERROR);
    assert_true(reply_read(w, 0).edns.present);
    assert_int_equal(server->asked_udp, 2);
    assert_int_equal(ask(w, &WWW_EDNS), DNS_NOERROR);
    assert_int_equal(server->asked_udp, 3);
}

static void answer_garbage(struct server *server, const struct asked *asked)
{
    uint8_t bytes[512];
    size_t len = answer_build(asked, DNS_NOERROR, 1, bytes, sizeof bytes);

    bytes[6] = 0xff; /* records that are not there */
    server_send(server, asked, bytes, len);
}

static void a_malformed_answer_is_not_passed_on(void **state)
{
    struct world *w = *state;

    world_add_server(w, answer_garbage);
    world_start(w);
    assert_int_equal(ask(w, &WWW), DNS_SERVFAIL);
    assert_int_equal(COUNTED(w, answer_malformed), 1);
}

static void a_tcp_server_is_asked_by_tcp(void **state)
{
    struct world *w = *state;
    struct server *server = world_add_server(w, answer_one);

    server->where.tcp_only = true;
    world_start(w);
    assert_int_equal(ask(w, &WWW), DNS_NOERROR);
    assert_int_equal(server->asked_tcp, 1);
    assert_int_equal(server->asked_udp, 0);
}

static void answer_nothing_by_tcp(struct server *server, const struct asked *asked)
{
    (void)server;
    send(asked->tcp_fd, "\1", 1, 0); /* and the connection is closed */
}

static void a_tcp_server_that_hangs_up_is_a_failure(void **state)
{
    struct world *w = *state;

    world_add_server(w, answer_nothing_by_tcp)->where.tcp_only = true;
    world_start(w);
    assert_int_equal(ask(w, &WWW), DNS_SERVFAIL);
}

static void the_resolver_can_be_freed_with_questions_under_way(void **state)
{
    struct world *w = *state;

    world_add_server(w, NULL);
    world_start(w);
    guest_asks(w, 4000, &WWW);
    world_run_asked(w, &w->servers[0], 1);
    assert_int_not_equal(timers_next(w->timers), TIMERS_NEVER);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_question_is_forwarded_and_its_answer_comes_back),
        CASE(ids_ports_and_letters_are_random),
        CASE(flags_and_dnssec_ok_are_asked_as_the_guest_did),
        CASE(records_of_unknown_types_pass_intact),
        CASE(answers_with_a_wrong_id_or_question_are_passed_over),
        CASE(answers_from_another_source_are_not_heard),
        CASE(a_server_that_loses_the_case_is_asked_again_and_then_known),
        CASE(host_names_are_answered_here_and_never_asked),
        CASE(host_addresses_have_names),
        CASE(host_names_have_no_data_of_other_types_and_their_zone_no_others),
        CASE(malformed_questions_get_formerr),
        CASE(responses_of_the_guest_get_nothing),
        CASE(other_opcodes_get_notimp_transfers_refused_and_edns_1_badvers),
        CASE(a_segmented_super_datagram_is_many_questions),
        CASE(answers_are_cut_between_records_at_the_guests_size),
        CASE(opt_is_never_passed_on_wherever_it_stands),
        CASE(a_truncated_answer_serves_a_guest_that_takes_no_more),
        CASE(a_truncated_answer_is_asked_for_over_tcp_for_a_guest_that_takes_more),
        CASE(a_truncated_answer_cut_within_a_record_is_passed_on_without_any),
        CASE(equal_questions_are_asked_once_and_answered_each),
        CASE(too_many_questions_get_servfail_and_the_rest_an_answer),
        CASE(one_question_of_too_many_guests_gets_servfail),
        CASE(a_silent_server_is_passed_over_and_remembered),
        CASE(a_late_answer_still_counts),
        CASE(an_unreachable_server_is_passed_over_at_once),
        CASE(where_no_server_can_be_reached_servfail_comes_at_once),
        CASE(where_all_servers_are_silent_servfail_comes_in_time),
        CASE(without_servers_servfail_comes_at_once),
        CASE(another_server_is_asked_where_one_refuses),
        CASE(a_refusal_is_passed_on_where_nobody_knows_better),
        CASE(a_server_without_edns_is_asked_without_it),
        CASE(a_malformed_answer_is_not_passed_on),
        CASE(a_tcp_server_is_asked_by_tcp),
        CASE(a_tcp_server_that_hangs_up_is_a_failure),
        CASE(the_resolver_can_be_freed_with_questions_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
