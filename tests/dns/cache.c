/* SPDX-License-Identifier: Apache-2.0 */
/* What is answered again without asking. */
#include "harness.h"

#include <stdio.h>

#include "wire/bytes.h"

/* What the one name server answers, whatever it is asked. */
static struct {
    unsigned rcode;
    uint16_t flags;
    bool has_address, has_soa;
    uint32_t ttl, soa_ttl, soa_minimum;
    size_t filler; /* bytes of a TXT record beside it */
} plan;

static int setup(void **state)
{
    memset(&plan, 0, sizeof plan);
    plan.has_address = true;
    plan.ttl = 300;
    *state = world_new();
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    return 0;
}

static void add_soa(struct dns_builder *b)
{
    uint8_t data[22] = {0};

    store_be32(data + 18, plan.soa_minimum);
    dns_build_record(b, DNS_TYPE_SOA, DNS_CLASS_IN, plan.soa_ttl, data, sizeof data);
}

static void answer_as_planned(struct server *server, const struct asked *asked)
{
    static const uint8_t filler[3000];
    uint8_t bytes[4096];
    struct dns_builder b = {.data = bytes, .capacity = sizeof bytes};

    dns_build_header(&b, &(struct dns_header){
                             .id = asked->m.header.id,
                             .flags = (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RA | DNS_FLAG_AA |
                                                 DNS_FLAG_RD | plan.flags | plan.rcode),
                             .question_count = 1,
                             .record_count = {plan.has_address, plan.has_soa, plan.filler != 0},
                         });
    dns_build_question(&b, &asked->m.question);
    if (plan.has_address)
        dns_build_record(&b, DNS_TYPE_A, DNS_CLASS_IN, plan.ttl, "\xc0\0\2\1", 4);
    if (plan.has_soa)
        add_soa(&b);
    if (plan.filler != 0)
        dns_build_record(&b, 16, DNS_CLASS_IN, plan.ttl, filler, plan.filler);
    server_send(server, asked, bytes, b.len);
}

static struct server *start(struct world *w, size_t entries, size_t bytes)
{
    struct server *server = world_add_server(w, answer_as_planned);

    world_start_cached(w, entries, bytes);
    return server;
}

static struct dns_message ask_as(struct world *w, const struct question *question)
{
    static uint16_t port = 4000;
    size_t before = w->reply_count;

    guest_asks(w, port++, question);
    world_run_replies(w, before + 1);
    return reply_read(w, before);
}

static struct dns_message ask(struct world *w, const char *name)
{
    return ask_as(w, &(struct question){.id = 9, .name = name, .type = DNS_TYPE_A});
}

/* The TTL of the last reply's first record. */
static uint32_t ttl_of(const struct world *w, const struct dns_message *m)
{
    return load_be32(w->replies[w->reply_count - 1].bytes + m->records + 6);
}

static void an_answer_is_given_again_with_lower_ttls(void **state)
{
    struct world *w = *state;
    struct server *server = start(w, 0, 0);
    struct dns_message m;

    m = ask(w, "www.example.com");
    assert_int_equal(ttl_of(w, &m), 300);
    assert_true(m.header.flags & DNS_FLAG_AA);
    world_skip(w, 100500);
    m = ask(w, "WWW.example.com");
    assert_int_equal(server->asked_udp, 1);
    assert_int_equal(ttl_of(w, &m), 200);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 1);
    assert_int_equal(m.header.id, 9);
    assert_false(m.header.flags & DNS_FLAG_AA);
    assert_int_equal(COUNTED(w, cache_hits), 1);
    assert_string_equal(dns_name_format(&m.question.name, (char[DNS_TEXT_MAX]){0}),
                        "WWW.example.com");
}

static void an_answer_whose_time_is_over_is_asked_for_again(void **state)
{
    struct world *w = *state;
    struct server *server = start(w, 0, 0);

    plan.filler = 10;
    (void)ask(w, "www.example.com");
    world_skip(w, 299000);
    (void)ask(w, "www.example.com");
    assert_int_equal(server->asked_udp, 1);
    world_skip(w, 1100);
    (void)ask(w, "www.example.com");
    assert_int_equal(server->asked_udp, 2);
}

static void what_says_it_has_no_time_is_not_kept(void **state)
{
    static const uint32_t ttls[] = {0, 0x80000000u, UINT32_MAX};
    struct world *w = *state;
    struct server *server = start(w, 0, 0);

    for (unsigned i = 0; i < 3; i++) {
        plan.ttl = ttls[i];
        (void)ask(w, "www.example.com");
        (void)ask(w, "www.example.com");
        assert_int_equal(server->asked_udp, 2 * i + 2);
    }
}

static void a_ttl_of_years_is_a_day(void **state)
{
    struct world *w = *state;
    struct server *server = start(w, 0, 0);

    plan.ttl = 100000000;
    (void)ask(w, "www.example.com");
    world_skip(w, 86399000);
    (void)ask(w, "www.example.com");
    assert_int_equal(server->asked_udp, 1);
    world_skip(w, 2000);
    (void)ask(w, "www.example.com");
    assert_int_equal(server->asked_udp, 2);
}

static void check_negative(struct world *w, unsigned rcode)
{
    struct server *server = start(w, 0, 0);

    plan.rcode = rcode;
    plan.has_address = false;
    plan.has_soa = true;
    plan.soa_ttl = 3600;
    plan.soa_minimum = 60;
    (void)ask(w, "nothing.example");
    world_skip(w, 59000);
    (void)ask(w, "nothing.example");
    assert_int_equal(reply_rcode(w, w->reply_count - 1), rcode);
    assert_int_equal(server->asked_udp, 1);
    world_skip(w, 2000);
    (void)ask(w, "nothing.example");
    assert_int_equal(server->asked_udp, 2);
}

static void that_there_is_no_name_is_kept_as_long_as_the_soa_grants(void **state)
{
    check_negative(*state, DNS_NXDOMAIN);
}

static void that_there_is_no_data_is_kept_as_long_as_the_soa_grants(void **state)
{
    check_negative(*state, DNS_NOERROR);
}

static void without_a_soa_nothing_is_not_kept(void **state)
{
    struct world *w = *state;
    struct server *server = start(w, 0, 0);

    plan.has_address = false;
    plan.rcode = DNS_NXDOMAIN;
    (void)ask(w, "nobody.example");
    (void)ask(w, "nobody.example");
    assert_int_equal(server->asked_udp, 2);
}

static void failures_are_not_kept(void **state)
{
    struct world *w = *state;
    struct server *server = start(w, 0, 0);
    unsigned asked;

    plan.rcode = DNS_SERVFAIL;
    (void)ask(w, "www.example.com");
    asked = server->asked_udp;
    plan.rcode = DNS_NOERROR;
    (void)ask(w, "www.example.com");
    assert_int_equal(server->asked_udp, asked + 1);
}

static void questions_that_differ_have_answers_of_their_own(void **state)
{
    static const struct question questions[] = {
        {.id = 1, .name = "www.example.com", .type = DNS_TYPE_A},
        {.id = 1, .name = "www.example.com", .type = DNS_TYPE_AAAA},
        {.id = 1, .name = "xwww.example.com", .type = DNS_TYPE_A},
        {.id = 1, .name = "www.example.com", .type = DNS_TYPE_A, .flags = DNS_FLAG_CD},
        {.id = 1,
         .name = "www.example.com",
         .type = DNS_TYPE_A,
         .flags = DNS_FLAG_RD | DNS_FLAG_AD},
    };
    struct world *w = *state;
    struct server *server = start(w, 0, 0);

    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < sizeof questions / sizeof *questions; i++) {
            (void)ask_as(w, &questions[i]);
            /* an answer without an AAAA record is one that there is none, without a SOA */
            assert_int_equal(server->asked_udp, round == 0 ? i + 1 : i < 1 ? 5 : 6);
        }
}

static void entries_are_bounded_and_the_longest_unused_goes(void **state)
{
    static const char *const names[] = {"a.example", "b.example", "c.example"};
    struct world *w = *state;
    struct server *server = start(w, 3, 0);

    for (unsigned i = 0; i < 3; i++)
        (void)ask(w, names[i]);
    (void)ask(w, "a.example"); /* used: b is next to go */
    (void)ask(w, "d.example");
    assert_int_equal(server->asked_udp, 4);
    assert_int_equal(COUNTED(w, cache_evicted), 1);
    (void)ask(w, "a.example");
    (void)ask(w, "c.example");
    assert_int_equal(server->asked_udp, 4);
    (void)ask(w, "b.example");
    assert_int_equal(server->asked_udp, 5);
}

static void bytes_are_bounded_too(void **state)
{
    struct world *w = *state;
    struct server *server = start(w, 0, 20000);
    char name[32];

    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "n%u.example", i);
        plan.filler = i % 2 ? 400 : 10;
        (void)ask(w, name);
        assert_true(w->dns->cache.bytes <= 20000);
    }
    assert_true(w->dns->cache.entries > 20);
    (void)ask(w, "n99.example");
    assert_int_equal(server->asked_udp, 100);
    plan.filler = 1000; /* more than a sixteenth of it all */
    (void)ask(w, "big.example");
    (void)ask(w, "big.example");
    assert_int_equal(server->asked_udp, 102);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_answer_is_given_again_with_lower_ttls),
        TEST(an_answer_whose_time_is_over_is_asked_for_again),
        TEST(what_says_it_has_no_time_is_not_kept),
        TEST(a_ttl_of_years_is_a_day),
        TEST(that_there_is_no_name_is_kept_as_long_as_the_soa_grants),
        TEST(that_there_is_no_data_is_kept_as_long_as_the_soa_grants),
        TEST(without_a_soa_nothing_is_not_kept),
        TEST(failures_are_not_kept),
        TEST(questions_that_differ_have_answers_of_their_own),
        TEST(entries_are_bounded_and_the_longest_unused_goes),
        TEST(bytes_are_bounded_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
