/* SPDX-License-Identifier: Apache-2.0 */
/* Echo of both families, and the errors the guest is told. */

#include <netinet/in.h>
#include <string.h>

#include "lab.h"
#include "wire/bytes.h"
#include "wire/icmp.h"
#include "wire/ip.h"

static void echo(struct build *b, bool v6, const char *to6, uint32_t to4, size_t len)
{
    if (v6)
        build_ip6(b, GUEST6, to6, IPPROTO_ICMPV6);
    else
        build_ip4(b, GUEST4, to4, IPPROTO_ICMP);
    build_icmp(b, v6 ? ICMP6_ECHO_REQUEST : ICMP4_ECHO_REQUEST, 0, 0x12340007);
    build_pattern(b, len, 2);
    build_finish(b);
}

static void gateway_and_resolver_answer_pings(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        static const char *const to6[] = {GATEWAY6, DNS6, LINK_LOCAL6};
        bool v6 = i < 3;
        const struct sent *s;

        echo(&b, v6, v6 ? to6[i] : NULL, i == 3 ? GATEWAY4 : DNS4, 56);
        lab_input(lab, b.data, b.len);
        s = lab_only(lab);
        assert_int_equal(s->data[s->offset], v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY);
        assert_int_equal(load_be32(s->data + s->offset + 4), 0x12340007);
        lab_assert_pattern(s->data + s->offset + 8, 56, 2);
        assert_int_equal(s->len, b.len);
        lab_forget(lab);
    }
    assert_int_equal(lab->echo_count, 0);
    assert_int_equal(lab_counter(lab, COUNTER_icmp_echo_answered), 5);
    lab_free(lab);
}

static void big_pings_are_answered_in_fragments(void **state)
{
    struct lab *lab = lab_new();
    struct build b;
    const struct culvert_link small = {.mtu = 1280, .up = true};
    const struct culvert_link big = {.mtu = 9000, .up = true};

    (void)state;
    stack_set_link(lab->stack, &big);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        stack_set_link(lab->stack, &small);
        echo(&b, v6, GATEWAY6, GATEWAY4, 4000);
        lab_input_split(lab, b.data, b.len, 100, (struct culvert_offload){0});
        assert_int_equal(lab->sent_count, 4);
        assert_true(lab->sent[3].fragment);
        lab_forget(lab);
    }
    lab_free(lab);
}

static void other_pings_go_up_and_come_back(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct echo_reply reply;
        const struct sent *s;

        echo(&b, v6, REMOTE6, REMOTE4, 300);
        lab_input(lab, b.data, b.len);
        lab_assert_silent(lab);
        assert_int_equal(lab->echo_count, v6 + 1);
        assert_int_equal(lab->echo.key.guest_port, 0x1234);
        assert_int_equal(lab->echo.sequence, 7);
        assert_int_equal(lab->echo.ttl, 63);
        assert_int_equal(lab->echo.payload_len, 300);
        lab_assert_pattern(lab->payload, 300, 2);
        reply = (struct echo_reply){
            .key = lab->echo.key, .sequence = 7, .payload = lab->payload, .len = 300, .ttl = 51};
        assert_int_equal(stack_echo_output(lab->stack, &reply), 0);
        s = lab_only(lab);
        assert_int_equal(s->ttl, 51);
        assert_int_equal(s->data[s->offset], v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY);
        assert_int_equal(load_be32(s->data + s->offset + 4), 0x12340007);
        lab_assert_pattern(s->data + s->offset + 8, 300, 2);
        lab_forget(lab);
    }
    lab_free(lab);
}

static void broken_messages_are_counted(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        echo(&b, v6, GATEWAY6, GATEWAY4, 56);
        b.data[b.len - 1] ^= 1;
        lab_input(lab, b.data, b.len);
    }
    assert_int_equal(lab_counter(lab, COUNTER_icmp_bad_checksum), 2);
    build_ip4(&b, GUEST4, GATEWAY4, IPPROTO_ICMP);
    build_pattern(&b, 7, 0);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_icmp_malformed), 1);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void errors_and_requests_nobody_answers_are_counted(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    build_ip4(&b, GUEST4, REMOTE4, IPPROTO_ICMP);
    build_icmp(&b, ICMP4_UNREACHABLE, ICMP4_CODE_PORT, 0);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    build_ip6(&b, GUEST6, REMOTE6, IPPROTO_ICMPV6);
    build_icmp(&b, ICMP6_TOO_BIG, 0, 1280);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_icmp_errors_from_guest), 2);
    build_ip4(&b, GUEST4, REMOTE4, IPPROTO_ICMP);
    build_icmp(&b, 13, 0, 0);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_icmp_unsupported), 1);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void error_is_not_answered_by_an_error(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    build_ip4(&b, GUEST4, REMOTE4, IPPROTO_ICMP);
    build_icmp(&b, ICMP4_UNREACHABLE, ICMP4_CODE_PORT, 0);
    b.data[14 + 8] = 1;
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_ip_ttl_expired), 1);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void refusal_quotes_the_packet(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    lab->refuse_udp = true;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        const struct sent *s;

        if (v6)
            build_ip6(&b, GUEST6, DNS6, IPPROTO_UDP);
        else
            build_ip4(&b, GUEST4, DNS4, IPPROTO_UDP);
        build_udp(&b, 4000, 99);
        build_pattern(&b, 1400, 1);
        build_finish(&b);
        lab_input_split(lab, b.data, b.len, 100, (struct culvert_offload){0});
        s = lab_only(lab);
        assert_int_equal(s->data[s->offset], v6 ? ICMP6_UNREACHABLE : ICMP4_UNREACHABLE);
        assert_int_equal(s->data[s->offset + 1], v6 ? ICMP6_CODE_PORT : ICMP4_CODE_PORT);
        assert_int_equal(s->len, 14 + (v6 ? 1280 : 576));
        assert_memory_equal(s->data + s->offset + 8, b.data + 14, s->len - s->offset - 8);
        /* the resolver speaks for itself */
        assert_memory_equal(s->source.bytes, (v6 ? lab_ip(DNS6) : ip_address_v4(htonl(DNS4))).bytes,
                            16);
        lab_forget(lab);
    }
    lab_free(lab);
}

static struct icmp_report report_of(bool v6, uint8_t protocol)
{
    return (struct icmp_report){
        .key =
            {
                .guest = v6 ? lab_ip(GUEST6) : ip_address_v4(htonl(GUEST4)),
                .remote = v6 ? lab_ip(REMOTE6) : ip_address_v4(htonl(REMOTE4)),
                .guest_port = 4000,
                .remote_port = 33434,
                .protocol = protocol,
            },
        .payload = (const uint8_t *)"known",
        .payload_len = 5,
        .original_len = 1400,
        .sequence = 9,
    };
}

static void guest_known(struct lab *lab)
{
    const struct culvert_link link = {.mtu = 1500, .mac = {2, 0, 0, 0, 0, 0x64}, .up = true};

    stack_set_link(lab->stack, &link);
}

static void report_quotes_a_packet_made_again(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    guest_known(lab);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct icmp_report report = report_of(v6, IPPROTO_UDP);
        const struct sent *s;
        const uint8_t *quote;

        report.problem = ICMP_PROBLEM_TIME_EXCEEDED;
        report.reporter = v6 ? lab_ip("2001:db8::1") : ip_address_v4(htonl(0xc0000201));
        stack_icmp_report(lab->stack, &report);
        s = lab_only(lab);
        assert_memory_equal(s->source.bytes, report.reporter.bytes, 16);
        assert_int_equal(s->data[s->offset], v6 ? ICMP6_TIME_EXCEEDED : ICMP4_TIME_EXCEEDED);
        quote = s->data + s->offset + 8;
        assert_int_equal(load_be16(quote + (v6 ? 4 : 2)), v6 ? 1408 : 1428);
        quote += ip_header_len(v6);
        assert_int_equal(load_be16(quote), 4000);
        assert_int_equal(load_be16(quote + 2), 33434);
        assert_int_equal(load_be16(quote + 4), 1408);
        assert_memory_equal(quote + 8, "known", 5);
        lab_forget(lab);
    }
    lab_free(lab);
}

static void report_of_an_echo_quotes_identifier_and_sequence(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    guest_known(lab);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct icmp_report report = report_of(v6, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
        const struct sent *s;
        const uint8_t *quote;

        report.problem = ICMP_PROBLEM_HOST_UNREACHABLE;
        stack_icmp_report(lab->stack, &report);
        s = lab_only(lab);
        assert_memory_equal(s->source.bytes,
                            (v6 ? lab_ip(GATEWAY6) : ip_address_v4(htonl(GATEWAY4))).bytes, 16);
        quote = s->data + s->offset + 8 + ip_header_len(v6);
        assert_int_equal(quote[0], v6 ? ICMP6_ECHO_REQUEST : ICMP4_ECHO_REQUEST);
        assert_int_equal(load_be32(quote + 4), 4000u << 16 | 9);
        lab_forget(lab);
    }
    lab_free(lab);
}

static void every_problem_has_its_message(void **state)
{
    static const struct {
        enum icmp_problem problem;
        uint8_t type4, code4, type6, code6;
    } expected[] = {
        {ICMP_PROBLEM_NET_UNREACHABLE, 3, 0, 1, 0},
        {ICMP_PROBLEM_HOST_UNREACHABLE, 3, 1, 1, 3},
        {ICMP_PROBLEM_PROTOCOL_UNREACHABLE, 3, 2, 4, 1},
        {ICMP_PROBLEM_PORT_UNREACHABLE, 3, 3, 1, 4},
        {ICMP_PROBLEM_PROHIBITED, 3, 13, 1, 1},
        {ICMP_PROBLEM_TOO_BIG, 3, 4, 2, 0},
        {ICMP_PROBLEM_TIME_EXCEEDED, 11, 0, 3, 0},
    };
    struct lab *lab = lab_new();

    (void)state;
    guest_known(lab);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        for (unsigned v6 = 0; v6 < 2; v6++) {
            struct icmp_report report = report_of(v6, IPPROTO_UDP);
            const struct sent *s;

            report.problem = expected[i].problem;
            report.mtu = 1400;
            stack_icmp_report(lab->stack, &report);
            s = lab_only(lab);
            assert_int_equal(s->data[s->offset], v6 ? expected[i].type6 : expected[i].type4);
            assert_int_equal(s->data[s->offset + 1], v6 ? expected[i].code6 : expected[i].code4);
            if (expected[i].problem == ICMP_PROBLEM_TOO_BIG)
                assert_int_equal(load_be32(s->data + s->offset + 4), 1400);
            lab_forget(lab);
        }
    }
    lab_free(lab);
}

static void report_with_a_payload_beyond_the_quote_is_cut(void **state)
{
    static const uint8_t payload[4000];
    struct lab *lab = lab_new();

    (void)state;
    guest_known(lab);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        struct icmp_report report = report_of(v6, IPPROTO_UDP);

        report.payload = payload;
        report.payload_len = sizeof payload;
        report.original_len = 0;
        stack_icmp_report(lab->stack, &report);
        assert_int_equal(lab_only(lab)->len, 14 + (v6 ? 1280 : 576));
        lab_forget(lab);
    }
    lab_free(lab);
}

static void refused_syn_is_quoted_with_its_sequence_number(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    guest_known(lab);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        const struct icmp_report like = report_of(v6, IPPROTO_TCP);
        const struct sent *s;
        const uint8_t *tcp;

        icmp_refuse_syn(lab->stack, &like.key, 0xfedcba98, ICMP_PROBLEM_PROHIBITED);
        s = lab_only(lab);
        tcp = s->data + s->offset + 8 + ip_header_len(v6);
        assert_int_equal(tcp - s->data + 20, s->len);
        assert_int_equal(load_be16(tcp), 4000);
        assert_int_equal(load_be16(tcp + 2), 33434);
        assert_int_equal(load_be32(tcp + 4), 0xfedcba98);
        assert_int_equal(tcp[13], 2);
        lab_forget(lab);
    }
    lab_free(lab);
}

static void errors_are_bounded_in_rate(void **state)
{
    struct lab *lab = lab_new();
    struct icmp_report report = report_of(false, IPPROTO_UDP);

    (void)state;
    guest_known(lab);
    for (unsigned i = 0; i < 150; i++)
        stack_icmp_report(lab->stack, &report);
    assert_int_equal(lab->sent_count, 100);
    assert_int_equal(lab_counter(lab, COUNTER_icmp_rate_limited), 50);
    lab_advance(lab, 10 * MS_NS);
    for (unsigned i = 0; i < 50; i++)
        stack_icmp_report(lab->stack, &report);
    assert_int_equal(lab->sent_count, 110);
    lab_free(lab);
}

static void no_change_or_truncation_does_harm(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        echo(&b, v6, GATEWAY6, GATEWAY4, 20);
        lab_torture(lab, b.data, b.len);
        echo(&b, v6, REMOTE6, REMOTE4, 20);
        lab_torture(lab, b.data, b.len);
    }
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gateway_and_resolver_answer_pings),
        cmocka_unit_test(big_pings_are_answered_in_fragments),
        cmocka_unit_test(other_pings_go_up_and_come_back),
        cmocka_unit_test(broken_messages_are_counted),
        cmocka_unit_test(errors_and_requests_nobody_answers_are_counted),
        cmocka_unit_test(error_is_not_answered_by_an_error),
        cmocka_unit_test(refusal_quotes_the_packet),
        cmocka_unit_test(report_quotes_a_packet_made_again),
        cmocka_unit_test(report_of_an_echo_quotes_identifier_and_sequence),
        cmocka_unit_test(every_problem_has_its_message),
        cmocka_unit_test(report_with_a_payload_beyond_the_quote_is_cut),
        cmocka_unit_test(refused_syn_is_quoted_with_its_sequence_number),
        cmocka_unit_test(errors_are_bounded_in_rate),
        cmocka_unit_test(no_change_or_truncation_does_harm),
    };

    return RUN_TESTS(tests);
}
