/* SPDX-License-Identifier: Apache-2.0 */
/* What the policy makes of questions and answers. */
#include "harness.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "wire/bytes.h"

#define RECORDS_MAX 24

/* What the one name server answers, whatever it is asked. */
static struct {
    struct {
        enum dns_section section;
        const char *owner;
        uint16_t type, rclass;
        uint32_t ttl;
        uint8_t data[64];
        size_t len;
    } records[RECORDS_MAX];
    size_t count;
    uint16_t flags;
} plan;

static struct {
    struct policy *policy;
    struct policy_world world;
    struct pins *pins;
    unsigned reports;
    char reported[DNS_TEXT_MAX];
    uint32_t rule;
    enum counter reason;
    struct ip_address address;
    bool passes;
} guard;

/* ---- the server ---- */

static void add_data(enum dns_section section, const char *owner, uint16_t type, const void *data,
                     size_t len)
{
    size_t i = plan.count++;

    assert_true(i < RECORDS_MAX && len <= sizeof plan.records[i].data);
    plan.records[i].section = section;
    plan.records[i].owner = owner;
    plan.records[i].type = type;
    plan.records[i].rclass = DNS_CLASS_IN;
    plan.records[i].ttl = 300;
    plan.records[i].len = len;
    memcpy(plan.records[i].data, data, len);
}

static void add_address(enum dns_section section, const char *owner, const char *text)
{
    struct ip_address address;
    bool v4;

    assert_true(ip_address_parse(text, &address));
    v4 = ip_address_is_v4(&address);
    add_data(section, owner, v4 ? DNS_TYPE_A : DNS_TYPE_AAAA, address.bytes + (v4 ? 12 : 0),
             v4 ? 4 : 16);
}

static void add_name(enum dns_section section, const char *owner, uint16_t type, const char *text)
{
    struct dns_name name;

    assert_int_equal(dns_name_parse(text, &name), 0);
    add_data(section, owner, type, name.bytes, name.len);
}

static void answer_as_planned(struct server *server, const struct asked *asked)
{
    uint8_t bytes[2048];
    struct dns_builder b = {.data = bytes, .capacity = sizeof bytes};
    struct dns_header header = {
        .id = asked->m.header.id,
        .flags = (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RA | DNS_FLAG_RD | plan.flags),
        .question_count = 1,
        .record_count = {[DNS_ADDITIONAL] = asked->m.edns.present},
    };

    for (size_t i = 0; i < plan.count; i++)
        header.record_count[plan.records[i].section]++;
    dns_build_header(&b, &header);
    dns_build_question(&b, &asked->m.question);
    for (size_t i = 0; i < plan.count; i++) {
        struct dns_name owner;

        assert_int_equal(dns_name_parse(plan.records[i].owner, &owner), 0);
        dns_build_bytes(&b, owner.bytes, owner.len);
        dns_build_be16(&b, plan.records[i].type);
        dns_build_be16(&b, plan.records[i].rclass);
        dns_build_be32(&b, plan.records[i].ttl);
        dns_build_be16(&b, (uint16_t)plan.records[i].len);
        dns_build_bytes(&b, plan.records[i].data, plan.records[i].len);
    }
    dns_build_opt(&b, &(struct dns_edns){.present = asked->m.edns.present, .size = 1400});
    assert_false(b.overflow);
    server_send(server, asked, bytes, b.len);
}

/* ---- the world ---- */

static int setup(void **state)
{
    memset(&plan, 0, sizeof plan);
    memset(&guard, 0, sizeof guard);
    *state = world_new();
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    policy_free(guard.policy);
    pins_free(guard.pins);
    return 0;
}

static void take_report(void *ctx, const struct dns_refusal *refusal)
{
    (void)ctx;
    guard.reports++;
    guard.rule = refusal->rule;
    guard.reason = refusal->reason;
    guard.passes = refusal->passes;
    if (refusal->address)
        guard.address = *refusal->address;
    dns_name_format(&refusal->question->name, guard.reported);
}

/* A resolver under these rules (one a line). */
static void start(struct world *w, enum dns_denied denied, const char *rules)
{
    static const uint64_t key[2] = {1, 2};
    struct policy_builder *builder = policy_builder_new();
    char message[256], line[256];

    while (*rules != '\0') {
        size_t len = strcspn(rules, "\n");

        snprintf(line, sizeof line, "%.*s", (int)len, rules);
        if (policy_builder_add(builder, line, NULL, message, sizeof message) < 0)
            fail_msg("%s: %s", line, message);
        rules += len + (rules[len] == '\n');
    }
    guard.policy = policy_build(builder, 1);
    guard.pins = pins_new(NULL, key);
    assert_non_null(guard.policy);
    assert_non_null(guard.pins);
    policy_builder_free(builder);
    world_add_server(w, answer_as_planned);
    world_start(w);
    dns_set_guard(w->dns, &(struct dns_guard){.policy = guard.policy,
                                              .world = &guard.world,
                                              .pins = guard.pins,
                                              .denied = denied,
                                              .refused = take_report});
}

static struct dns_message ask(struct world *w, const char *name, uint16_t type)
{
    static uint16_t port = 4000;
    size_t before = w->reply_count;

    guest_asks(w, port++, &(struct question){.id = 7, .name = name, .type = type, .edns = 1232});
    world_run_replies(w, before + 1);
    return reply_read(w, before);
}

static unsigned rcode_of(const struct dns_message *m)
{
    return m->header.flags & DNS_RCODE_MASK;
}

/* The Extended DNS Error of the last reply, or 0. */
static unsigned error_of(const struct world *w, const struct dns_message *m)
{
    const uint8_t *opt = w->replies[w->reply_count - 1].bytes + m->opt_start;

    if (m->opt_end - m->opt_start < DNS_OPT_LEN + 6)
        return 0;
    assert_int_equal(load_be16(opt + 11), 15);
    return load_be16(opt + 15);
}

/* The addresses of the last reply's answer, in order, and its other records' types. */
static const char *shown(const struct world *w, const struct dns_message *m)
{
    static char text[1024];
    const uint8_t *bytes = w->replies[w->reply_count - 1].bytes;
    struct dns_walk walk = dns_walk_of(bytes, m->end, &m->header, m->records);
    struct dns_record record;
    size_t len = 0;

    text[0] = '\0';
    while (dns_walk_next(&walk, &record) > 0) {
        char address[64];

        if (record.type == DNS_TYPE_OPT)
            continue;
        if (record.type == DNS_TYPE_A || record.type == DNS_TYPE_AAAA)
            inet_ntop(record.type == DNS_TYPE_A ? AF_INET : AF_INET6, bytes + record.data, address,
                      sizeof address);
        else
            snprintf(address, sizeof address, "%u", record.type);
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", len ? " " : "", address);
    }
    return text;
}

/* 'q': pinned as the queried name, 'c': as another owner, '-': not. */
static char pinned(const struct world *w, const char *name, const char *address)
{
    struct ip_address parsed;
    struct dns_name n;
    const struct pin *pin;

    assert_int_equal(dns_name_parse(name, &n), 0);
    assert_true(ip_address_parse(address, &parsed));
    pin = pins_find(guard.pins, &n, &parsed, world_now(w));
    return !pin ? '-' : pin_role(pin, world_now(w)) == PIN_QUERIED ? 'q' : 'c';
}

#define ALLOW_WWW "allow tcp to www.example.com port 443"

/* ---- questions ---- */

static void a_name_that_no_rule_allows_is_never_asked_upstream(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "secret.tunnel.example.net", DNS_TYPE_A);
    assert_int_equal(rcode_of(&m), DNS_NXDOMAIN);
    assert_int_equal(error_of(w, &m), DNS_ERROR_BLOCKED);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 0);
    world_settle(w);
    assert_int_equal(w->servers[0].asked_udp + w->servers[0].asked_tcp, 0);
    assert_int_equal(COUNTED(w, denied), 1);
    assert_int_equal(guard.reports, 1);
    assert_string_equal(guard.reported, "secret.tunnel.example.net");
}

static void denied_names_are_refused_or_zero_where_asked_for(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    start(w, DNS_DENIED_ZERO, ALLOW_WWW);
    m = ask(w, "x.example", DNS_TYPE_A);
    assert_int_equal(rcode_of(&m), DNS_NOERROR);
    assert_string_equal(shown(w, &m), "0.0.0.0");
    m = ask(w, "x.example", DNS_TYPE_AAAA);
    assert_string_equal(shown(w, &m), "::");
    m = ask(w, "x.example", 16);
    assert_int_equal(rcode_of(&m), DNS_NOERROR);
    assert_string_equal(shown(w, &m), "");
    dns_set_guard(w->dns, &(struct dns_guard){.policy = guard.policy,
                                              .world = &guard.world,
                                              .denied = DNS_DENIED_REFUSED});
    m = ask(w, "x.example", DNS_TYPE_A);
    assert_int_equal(rcode_of(&m), DNS_REFUSED);
    assert_int_equal(error_of(w, &m), DNS_ERROR_BLOCKED);
}

static void an_allowed_name_is_answered_and_pinned(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "www.example.com", "93.184.216.34");
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "WWW.example.com", DNS_TYPE_A);
    assert_int_equal(rcode_of(&m), DNS_NOERROR);
    assert_string_equal(shown(w, &m), "93.184.216.34");
    assert_int_equal(error_of(w, &m), 0);
    assert_int_equal(pinned(w, "www.example.com", "93.184.216.34"), 'q');
}

static void without_rules_by_name_nothing_is_filtered(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "anything.example", "10.0.0.1");
    start(w, DNS_DENIED_NXDOMAIN, "allow tcp to public");
    m = ask(w, "anything.example", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "10.0.0.1");
    m = ask(w, "anything.example", DNS_TYPE_HTTPS);
    assert_int_equal(w->servers[0].asked_udp, 2);
    assert_int_equal(pinned(w, "anything.example", "10.0.0.1"), '-');
}

static void svcb_and_https_get_no_data_under_rules_by_name(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    for (uint16_t type = DNS_TYPE_SVCB; type <= DNS_TYPE_HTTPS; type++) {
        m = ask(w, "www.example.com", type);
        assert_int_equal(rcode_of(&m), DNS_NOERROR);
        assert_int_equal(m.header.record_count[DNS_ANSWER], 0);
        assert_int_equal(error_of(w, &m), DNS_ERROR_FILTERED);
    }
    assert_int_equal(w->servers[0].asked_udp, 0);
    assert_int_equal(COUNTED(w, hidden_type), 2);
}

static void names_of_private_addresses_are_not_asked_upstream(void **state)
{
    static const char *const names[] = {"1.0.0.10.in-addr.arpa", "1.1.0.127.in-addr.arpa",
                                        "9.1.168.192.in-addr.arpa"};
    struct world *w = *state;
    struct dns_message m;

    add_name(DNS_ANSWER, "x", DNS_TYPE_PTR, "leak.example");
    start(w, DNS_DENIED_NXDOMAIN, "allow any to public\nallow tcp to 192.168.1.0/24");
    for (size_t i = 0; i < 2; i++) {
        m = ask(w, names[i], DNS_TYPE_PTR);
        assert_int_equal(rcode_of(&m), DNS_NXDOMAIN);
    }
    assert_int_equal(w->servers[0].asked_udp, 0);
    m = ask(w, names[2], DNS_TYPE_PTR); /* the guest may go there */
    assert_int_equal(rcode_of(&m), DNS_NOERROR);
    m = ask(w, "34.216.184.93.in-addr.arpa", DNS_TYPE_PTR);
    assert_int_equal(rcode_of(&m), DNS_NOERROR);
    assert_int_equal(COUNTED(w, private_address), 2);
}

static void nothing_else_about_private_addresses_is_asked_upstream_either(void **state)
{
    static const struct {
        const char *name;
        uint16_t type;
    } asked[] = {{"1.0.0.10.in-addr.arpa", DNS_TYPE_ANY},
                 {"1.0.0.10.in-addr.arpa", 16 /* TXT */},
                 {"10.in-addr.arpa", DNS_TYPE_SOA},
                 {"lb._dns-sd._udp.0.2.0.10.in-addr.arpa", DNS_TYPE_PTR},
                 {"d.f.ip6.arpa", DNS_TYPE_NS}};
    struct world *w = *state;
    struct dns_message m;

    add_name(DNS_ANSWER, "x", DNS_TYPE_PTR, "leak.example");
    start(w, DNS_DENIED_NXDOMAIN, "allow any to public");
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        m = ask(w, asked[i].name, asked[i].type);
        assert_int_equal(rcode_of(&m), DNS_NXDOMAIN);
    }
    assert_int_equal(w->servers[0].asked_udp, 0);
    m = ask(w, "192.in-addr.arpa", 43 /* DS */); /* public for the most part */
    assert_int_equal(rcode_of(&m), DNS_NOERROR);
    m = ask(w, "in-addr.arpa", DNS_TYPE_NS);
    assert_int_equal(rcode_of(&m), DNS_NOERROR);
    assert_int_equal(w->servers[0].asked_udp, 2);
}

/* ---- answers ---- */

static void private_addresses_are_taken_out_of_answers(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    plan.flags = DNS_FLAG_AD;
    add_address(DNS_ANSWER, "www.example.com", "93.184.216.34");
    add_address(DNS_ANSWER, "www.example.com", "10.0.0.1");
    add_address(DNS_ANSWER, "www.example.com", "169.254.169.254");
    add_address(DNS_ANSWER, "www.example.com", "127.0.0.1");
    add_data(DNS_ANSWER, "www.example.com", DNS_TYPE_RRSIG, "\0\1 signature", 13);
    add_address(DNS_ANSWER, "www.example.com", "93.184.216.35");
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_A);
    assert_int_equal(rcode_of(&m), DNS_NOERROR);
    assert_string_equal(shown(w, &m), "93.184.216.34 93.184.216.35");
    assert_int_equal(m.header.flags & DNS_FLAG_AD, 0);
    assert_int_equal(error_of(w, &m), DNS_ERROR_FILTERED);
    assert_int_equal(pinned(w, "www.example.com", "93.184.216.35"), 'q');
    assert_int_equal(pinned(w, "www.example.com", "10.0.0.1"), '-');
    assert_int_equal(COUNTED(w, rebinding), 3);
    assert_int_equal(guard.reports, 3);
    assert_int_equal(guard.reason, COUNTER_dns_rebinding);
    assert_false(guard.passes);
    assert_string_equal(guard.reported, "www.example.com");
}

static void an_unchanged_answer_keeps_ad_and_signatures(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    plan.flags = DNS_FLAG_AD;
    add_address(DNS_ANSWER, "www.example.com", "93.184.216.34");
    add_data(DNS_ANSWER, "www.example.com", DNS_TYPE_RRSIG, "\0\1 signature", 13);
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "93.184.216.34 46");
    assert_true(m.header.flags & DNS_FLAG_AD);
}

static void a_widened_rule_lets_its_addresses_stand(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "git.corp.example", "10.1.2.3");
    add_address(DNS_ANSWER, "git.corp.example", "192.168.0.1");
    start(w, DNS_DENIED_NXDOMAIN, "allow tcp to git.corp.example in 10.0.0.0/8");
    m = ask(w, "git.corp.example", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "10.1.2.3");
    assert_int_equal(pinned(w, "git.corp.example", "10.1.2.3"), 'q');
}

static void addresses_in_disguise_are_taken_out(void **state)
{
    static const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff, 93, 184, 216, 34};
    struct world *w = *state;
    struct dns_message m;

    add_data(DNS_ANSWER, "www.example.com", DNS_TYPE_AAAA, mapped, 16);
    add_address(DNS_ANSWER, "www.example.com", "2606:2800:220:1::1");
    add_address(DNS_ANSWER, "www.example.com", "64:ff9b::a00:1"); /* NAT64 of 10.0.0.1 */
    add_data(DNS_ANSWER, "www.example.com", DNS_TYPE_AAAA, mapped, 4);
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_AAAA);
    assert_string_equal(shown(w, &m), "2606:2800:220:1::1");
}

static void records_of_other_classes_are_taken_out(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "www.example.com", "93.184.216.34");
    add_address(DNS_ANSWER, "www.example.com", "10.0.0.1");
    add_address(DNS_ANSWER, "www.example.com", "93.184.216.35");
    plan.records[1].rclass = plan.records[2].rclass = 3; /* CH */
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "93.184.216.34");
    assert_int_equal(COUNTED(w, rebinding), 2);
    assert_int_equal(pinned(w, "www.example.com", "93.184.216.35"), '-');
}

static void the_chain_of_cnames_is_followed_whatever_its_order(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "c.cdn.example", "93.184.216.34");
    add_name(DNS_ANSWER, "b.cdn.example", DNS_TYPE_CNAME, "C.cdn.example");
    add_name(DNS_ANSWER, "www.example.com", DNS_TYPE_CNAME, "b.cdn.example");
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "93.184.216.34 5 5");
    assert_int_equal(pinned(w, "www.example.com", "93.184.216.34"), 'q');
    assert_int_equal(pinned(w, "b.cdn.example", "93.184.216.34"), 'c');
    assert_int_equal(pinned(w, "c.cdn.example", "93.184.216.34"), 'c');
}

static void records_that_belong_to_no_owner_of_the_chain_are_taken_out(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_name(DNS_ANSWER, "www.example.com", DNS_TYPE_CNAME, "b.example.com");
    add_address(DNS_ANSWER, "b.example.com", "93.184.216.34");
    add_address(DNS_ANSWER, "other.example.com", "93.184.216.66");
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "5 93.184.216.34");
    assert_int_equal(pinned(w, "other.example.com", "93.184.216.66"), '-');
}

static void a_cname_to_a_denied_name_is_refused(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_name(DNS_ANSWER, "www.example.com", DNS_TYPE_CNAME, "tracker.example.net");
    add_address(DNS_ANSWER, "tracker.example.net", "93.184.216.34");
    start(w, DNS_DENIED_NXDOMAIN, "deny to *.example.net\nallow to any");
    m = ask(w, "www.example.com", DNS_TYPE_A);
    assert_int_equal(rcode_of(&m), DNS_NXDOMAIN);
    assert_int_equal(m.header.record_count[DNS_ANSWER], 0);
    assert_int_equal(COUNTED(w, denied_owner), 1);
    assert_string_equal(guard.reported, "tracker.example.net");
    assert_int_equal(pinned(w, "www.example.com", "93.184.216.34"), '-');
}

static void a_loop_of_cnames_is_an_error(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_name(DNS_ANSWER, "www.example.com", DNS_TYPE_CNAME, "b.example.com");
    add_name(DNS_ANSWER, "b.example.com", DNS_TYPE_CNAME, "www.example.com");
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_A);
    assert_int_equal(rcode_of(&m), DNS_SERVFAIL);
}

static void what_stays_beside_removed_addresses_can_still_be_read(void **state)
{
    struct world *w = *state;
    const uint8_t *bytes;
    struct dns_message m;
    struct dns_walk walk;
    struct dns_record record;
    struct dns_name name;
    size_t at;

    add_address(DNS_ANSWER, "www.example.com", "10.0.0.1");
    add_data(DNS_ANSWER, "www.example.com", 15, "\0\5\4mail\xc0\x10", 9); /* MX, compressed */
    add_data(DNS_AUTHORITY, "example.com", DNS_TYPE_SOA,
             "\2ns\xc0\x10\4root\xc0\x10\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5", 32);
    add_address(DNS_ADDITIONAL, "mail.example.com", "192.168.7.7");
    add_address(DNS_ADDITIONAL, "mail.example.com", "93.184.216.40");
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_ANY);
    assert_string_equal(shown(w, &m), "15 6 93.184.216.40");
    bytes = w->replies[w->reply_count - 1].bytes;
    walk = dns_walk_of(bytes, m.end, &m.header, m.records);
    assert_int_equal(dns_walk_next(&walk, &record), 1);
    at = record.data + 2;
    assert_int_equal(dns_name_read(bytes, m.end, &at, &name), 0);
    assert_string_equal(dns_name_format(&name, (char[DNS_TEXT_MAX]){0}), "mail.example.com");
    assert_int_equal(dns_walk_next(&walk, &record), 1);
    at = record.data;
    assert_int_equal(dns_name_read(bytes, m.end, &at, &name), 0);
    assert_string_equal(dns_name_format(&name, (char[DNS_TEXT_MAX]){0}), "ns.example.com");
    assert_int_equal(load_be32(bytes + record.data + record.data_len - 4), 5);
}

static void svcb_records_are_taken_out_of_other_answers(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "www.example.com", "93.184.216.34");
    add_data(DNS_ANSWER, "www.example.com", DNS_TYPE_HTTPS, "\0\1\0", 3);
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    m = ask(w, "www.example.com", DNS_TYPE_ANY);
    assert_string_equal(shown(w, &m), "93.184.216.34");
}

static void names_of_the_users_own_are_pinned_too(void **state)
{
    struct world *w = *state;
    struct ip_address address;

    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    assert_true(ip_address_parse("10.9.8.7", &address));
    assert_int_equal(dns_add_host(w->dns, "www.example.com", &address), 0);
    (void)ask(w, "www.example.com", DNS_TYPE_A);
    assert_int_equal(pinned(w, "www.example.com", "10.9.8.7"), 'q');
}

/* ---- lenient, and without rules by name ---- */

static void be_lenient(struct world *w)
{
    dns_set_guard(w->dns, &(struct dns_guard){.policy = guard.policy,
                                              .world = &guard.world,
                                              .pins = guard.pins,
                                              .lenient = true,
                                              .by_name = true,
                                              .refused = take_report});
}

static void a_lenient_guard_asks_denied_names_and_tells_of_them(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "other.example.com", "93.184.216.34");
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    be_lenient(w);
    m = ask(w, "other.example.com", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "93.184.216.34");
    assert_int_equal(pinned(w, "other.example.com", "93.184.216.34"), 'q');
    assert_int_equal(COUNTED(w, denied), 0);
    assert_int_equal(COUNTED(w, would_deny), 1);
    assert_int_equal(guard.reports, 1);
    assert_true(guard.passes);
    assert_int_equal(guard.reason, COUNTER_dns_denied);
    assert_string_equal(guard.reported, "other.example.com");
}

static void a_lenient_guard_takes_out_only_addresses_under_the_floor(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "www.example.com", "10.0.0.1");
    add_address(DNS_ANSWER, "www.example.com", "169.254.169.254");
    start(w, DNS_DENIED_NXDOMAIN, ALLOW_WWW);
    be_lenient(w);
    m = ask(w, "www.example.com", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "10.0.0.1");
    assert_int_equal(pinned(w, "www.example.com", "10.0.0.1"), 'q');
    assert_int_equal(COUNTED(w, rebinding), 1);
    assert_int_equal(COUNTED(w, would_deny), 1);
    assert_int_equal(guard.reports, 2);
    assert_false(guard.passes);
    assert_int_equal(guard.reason, COUNTER_dns_rebinding);
    assert_int_equal(guard.address.bytes[12], 169);
}

static void a_guard_that_looks_at_names_pins_them_without_a_rule_by_name(void **state)
{
    struct world *w = *state;
    struct dns_message m;

    add_address(DNS_ANSWER, "anything.example", "93.184.216.34");
    start(w, DNS_DENIED_NXDOMAIN, "allow tcp to public");
    be_lenient(w);
    m = ask(w, "anything.example", DNS_TYPE_A);
    assert_string_equal(shown(w, &m), "93.184.216.34");
    assert_int_equal(pinned(w, "anything.example", "93.184.216.34"), 'q');
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_name_that_no_rule_allows_is_never_asked_upstream),
        TEST(denied_names_are_refused_or_zero_where_asked_for),
        TEST(an_allowed_name_is_answered_and_pinned),
        TEST(without_rules_by_name_nothing_is_filtered),
        TEST(svcb_and_https_get_no_data_under_rules_by_name),
        TEST(names_of_private_addresses_are_not_asked_upstream),
        TEST(nothing_else_about_private_addresses_is_asked_upstream_either),
        TEST(private_addresses_are_taken_out_of_answers),
        TEST(an_unchanged_answer_keeps_ad_and_signatures),
        TEST(a_widened_rule_lets_its_addresses_stand),
        TEST(addresses_in_disguise_are_taken_out),
        TEST(records_of_other_classes_are_taken_out),
        TEST(the_chain_of_cnames_is_followed_whatever_its_order),
        TEST(records_that_belong_to_no_owner_of_the_chain_are_taken_out),
        TEST(a_cname_to_a_denied_name_is_refused),
        TEST(a_loop_of_cnames_is_an_error),
        TEST(what_stays_beside_removed_addresses_can_still_be_read),
        TEST(svcb_records_are_taken_out_of_other_answers),
        TEST(names_of_the_users_own_are_pinned_too),
        TEST(a_lenient_guard_asks_denied_names_and_tells_of_them),
        TEST(a_lenient_guard_takes_out_only_addresses_under_the_floor),
        TEST(a_guard_that_looks_at_names_pins_them_without_a_rule_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
