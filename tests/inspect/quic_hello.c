/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/quic_hello.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quic_client.h"
#include "rfc_packets.h"

static struct quic_opener *opener;
static struct quic_hello h;

static int make_opener(void **state)
{
    (void)state;
    opener = quic_opener_new();
    return opener ? 0 : -1;
}

static int drop_opener(void **state)
{
    quic_hello_reset(&h);
    (void)state;
    opener = quic_opener_free(opener);
    return 0;
}

static int forget(void **state)
{
    (void)state;
    quic_hello_reset(&h);
    return 0;
}

/* A copy of exactly this length, so that a sanitizer sees a step beyond. */
static enum flow_name_result show(const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);
    enum flow_name_result result;

    assert_non_null(exact);
    memcpy(exact, bytes, len);
    result = quic_hello_datagram(&h, opener, exact, len);
    free(exact);
    return result;
}

static void unhex(const char *text, uint8_t *to, size_t len)
{
    assert_int_equal(strlen(text), 2 * len);
    for (size_t i = 0; i < len; i++) {
        char digits[3] = {text[2 * i], text[2 * i + 1], '\0'};

        to[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
}

static void send_whole_hello(struct quic_client *client, const char *name,
                             enum flow_name_result expected)
{
    uint8_t message[512];
    size_t len = client_hello(message, sizeof message, name, 0);
    struct datagram d = {.len = 0};

    add_crypto(&d, client, 0, message, len);
    assert_int_equal(show(d.bytes, d.len), expected);
}

/* ---- samples ---- */

static void the_sample_packets_of_the_rfcs_name_example_com(void **state)
{
    static const char *const samples[] = {RFC_9001_INITIAL, RFC_9369_INITIAL};
    uint8_t bytes[RFC_PACKET_LEN];

    for (size_t i = 0; i < 2; i++) {
        forget(state);
        unhex(samples[i], bytes, sizeof bytes);
        assert_int_equal(show(bytes, sizeof bytes), FLOW_NAME_NAMED);
        assert_string_equal(h.name.text, "example.com");
        assert_false(h.has_ech);
    }
}

static void no_truncated_sample_is_read(void **state)
{
    static const char *const samples[] = {RFC_9001_INITIAL, RFC_9369_INITIAL};
    uint8_t bytes[RFC_PACKET_LEN];

    for (size_t i = 0; i < 2; i++) {
        unhex(samples[i], bytes, sizeof bytes);
        for (size_t len = 0; len < sizeof bytes; len++) {
            enum flow_name_result result;

            forget(state);
            result = show(bytes, len);
            assert_true(result == FLOW_NAME_NOT_THIS_PROTOCOL || result == FLOW_NAME_MALFORMED);
        }
    }
}

static void a_sample_with_any_bit_flipped_is_not_read(void **state)
{
    uint8_t bytes[RFC_PACKET_LEN];

    unhex(RFC_9001_INITIAL, bytes, sizeof bytes);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit += bit < 400 ? 1 : 61) {
        forget(state);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(show(bytes, sizeof bytes), FLOW_NAME_NAMED);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* ---- hellos in pieces ---- */

static void both_versions_and_every_length_of_packet_numbers_are_read(void **state)
{
    static const uint32_t versions[] = {QUIC_VERSION_1, QUIC_VERSION_2};

    for (unsigned i = 0; i < 8; i++) {
        struct quic_client client = quic_client_of(versions[i % 2], "somebody");

        forget(state);
        client.pn_len = i / 2 + 1;
        client.number = i; /* the first ones were lost */
        send_whole_hello(&client, "Www.Example.org", FLOW_NAME_NAMED);
        assert_string_equal(h.name.text, "www.example.org");
    }
}

static void the_fixed_bit_may_be_greased(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    struct datagram d = {.len = 0};

    (void)state;
    client.greased = true;
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
    add_other(&d, &client, 2, 60);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NAMED);
}

static void a_hello_without_a_name_is_hidden(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");

    (void)state;
    send_whole_hello(&client, NULL, FLOW_NAME_HIDDEN);
}

static void a_hello_over_several_datagrams_in_any_order_is_put_together(void **state)
{
    static const unsigned orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 3, 0, 2}};
    uint8_t message[4096];
    size_t len = client_hello(message, sizeof message, "big.example", 3300), piece = len / 4 + 1;

    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");

        forget(state);
        for (unsigned k = 0; k < 4; k++) {
            size_t at = orders[i][k] * piece, n = len - at < piece ? len - at : piece;
            struct datagram d = {.len = 0};

            client.number = orders[i][k];
            add_crypto(&d, &client, at, message + at, n);
            assert_int_equal(show(d.bytes, d.len), k < 3 ? FLOW_NAME_NEED_MORE : FLOW_NAME_NAMED);
        }
        assert_string_equal(h.name.text, "big.example");
    }
}

static void a_hello_in_coalesced_packets_and_scrambled_frames_is_read(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    uint8_t message[512], payload[600] = {1, 0, 0};
    size_t len = client_hello(message, sizeof message, "a.example", 0), at = 3;
    struct datagram d = {.len = 0};

    (void)state;
    at += crypto_frame(payload + at, 30, message + 30, 20);
    payload[at++] = 0;
    at += crypto_frame(payload + at, 0, message, 10);
    at += crypto_frame(payload + at, 5, message + 5, 15); /* some of it again */
    add_initial(&d, &client, payload, at);
    add_other(&d, &client, 1, 100);
    add_crypto(&d, &client, 20, message + 20, len - 20);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NAMED);
    assert_string_equal(h.name.text, "a.example");
}

static void early_data_in_front_of_the_hello_waits(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_2, "somebody");
    struct datagram d = {.len = 0};

    (void)state;
    add_other(&d, &client, 1, 100);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NEED_MORE);
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
}

static void bytes_that_contradict_earlier_ones_are_malformed(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    uint8_t message[512];
    size_t len = client_hello(message, sizeof message, "a.example", 0);
    struct datagram d = {.len = 0};

    (void)state;
    add_crypto(&d, &client, 20, message + 20, len - 20);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NEED_MORE);
    d.len = 0;
    message[20] ^= 1;
    add_crypto(&d, &client, 0, message, 21);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_MALFORMED);
}

static void bounds_of_bytes_and_datagrams_are_kept(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    uint8_t message[512];
    size_t len = client_hello(message, sizeof message, "a.example", 0);
    struct datagram d = {.len = 0};

    add_crypto(&d, &client, QUIC_CRYPTO_MAX - 9, message, 10);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_TOO_LARGE);
    forget(state);
    for (size_t i = 0; i <= QUIC_HELLO_DATAGRAMS_MAX; i++) {
        d.len = 0;
        add_crypto(&d, &client, i, message + i, 1);
        assert_int_equal(show(d.bytes, d.len),
                         i < QUIC_HELLO_DATAGRAMS_MAX ? FLOW_NAME_NEED_MORE : FLOW_NAME_TOO_LARGE);
    }
    forget(state);
    message[1] = 1; /* the hello says it has more than 64 KiB */
    d.len = 0;
    add_crypto(&d, &client, 0, message, len);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_TOO_LARGE);
}

/* ---- the connection goes on ---- */

static void later_initials_of_the_connection_stand_by_its_name(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    static const uint8_t ack[] = {2, 5, 0, 0, 1}, ecn[] = {3, 5, 0, 1, 1, 0, 1, 7, 7, 7};
    struct datagram d = {.len = 0};

    (void)state;
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
    client.dcid = cid_of("the server's own"); /* from now on */
    add_initial(&d, &client, ack, sizeof ack);
    add_other(&d, &client, 2, 60);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NAMED);
    d.len = 0;
    add_initial(&d, &client, ecn, sizeof ecn);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NAMED);
    client.version = QUIC_VERSION_2; /* RFC 9368: agreed upon meanwhile */
    d.len = 0;
    add_initial(&d, &client, ack, sizeof ack);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NAMED);
    assert_int_equal(show((const uint8_t *)"\x40 data", 6), FLOW_NAME_NAMED);
    assert_string_equal(h.name.text, "a.example");
}

static void after_a_retry_the_keys_follow_from_the_new_id(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");

    (void)state;
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
    client.origin = client.dcid = cid_of("new"); /* a server's may be short */
    client.token_len = 50;
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
    client.dcid = cid_of("the server's own");
    client.token_len = 0;
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED); /* once more */
}

static void another_connection_from_the_same_port_is_judged_anew(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    uint8_t message[512];
    size_t len = client_hello(message, sizeof message, "b.example", 0);
    struct datagram d = {.len = 0};

    (void)state;
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
    client = quic_client_of(QUIC_VERSION_1, "some other");
    add_crypto(&d, &client, 0, message, 40);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NEED_MORE);
    d.len = 0;
    add_crypto(&d, &client, 40, message + 40, len - 40);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NAMED);
    assert_string_equal(h.name.text, "b.example");
}

static void what_was_said_is_kept_and_no_more(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    uint8_t message[512];
    size_t len = client_hello(message, sizeof message, "a.example", 0);
    struct datagram d = {.len = 0};

    (void)state;
    add_crypto(&d, &client, 0, message, 40);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NEED_MORE);
    assert_true(quic_hello_bytes(&h) > QUIC_CRYPTO_MAX);
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
    assert_int_equal(quic_hello_bytes(&h), len);
    d.len = 0;
    add_crypto(&d, &client, 30, message + 30, 20); /* sent again */
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NAMED);
    assert_int_equal(quic_hello_bytes(&h), len);
    d.len = 0;
    message[len - 1] ^= 1;
    add_crypto(&d, &client, 30, message + 30, len - 30); /* not the same */
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_MALFORMED);
    quic_hello_reset(&h);
    assert_int_equal(quic_hello_bytes(&h), 0);
}

static void a_second_hello_must_name_the_same_server(void **state)
{
    static const char *const names[] = {"a.example", "b.example", NULL};
    uint8_t messages[1024];

    for (size_t i = 0; i < 3; i++) {
        struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
        size_t first = client_hello(messages, 512, "a.example", 0);
        size_t both = first + client_hello(messages + first, 512, names[i], 10);
        struct datagram d = {.len = 0};

        forget(state);
        send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
        add_crypto(&d, &client, first, messages + first, 40);
        assert_int_equal(show(d.bytes, d.len), FLOW_NAME_NEED_MORE);
        d.len = 0;
        add_crypto(&d, &client, first + 40, messages + first + 40, both - first - 40);
        assert_int_equal(show(d.bytes, d.len), i == 0 ? FLOW_NAME_NAMED : FLOW_NAME_MALFORMED);
    }
}

static void initials_that_do_not_open_are_unreadable_and_change_nothing(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    struct quic_client forger = quic_client_of(QUIC_VERSION_1, "a forger");

    (void)state;
    forger.dcid = client.dcid;
    send_whole_hello(&forger, "b.example", FLOW_NAME_UNREADABLE);
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
    send_whole_hello(&forger, "b.example", FLOW_NAME_UNREADABLE);
    assert_string_equal(h.name.text, "a.example");
    send_whole_hello(&client, "a.example", FLOW_NAME_NAMED);
}

static void a_short_id_of_a_client_begins_no_connection(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "seven77");

    (void)state;
    send_whole_hello(&client, "a.example", FLOW_NAME_UNREADABLE);
}

/* ---- what is no hello ---- */

static void what_is_not_an_initial_is_told_apart(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        enum flow_name_result result;
    } rows[] = {
        {"", 0, FLOW_NAME_NOT_THIS_PROTOCOL},
        {"\x40 short header", 14, FLOW_NAME_NOT_THIS_PROTOCOL},
        {"\x16\xfe\xff DTLS", 8, FLOW_NAME_NOT_THIS_PROTOCOL},
        {"\x80\x60\x12\x34 RTP", 8, FLOW_NAME_NOT_THIS_PROTOCOL},
        {"\xc0\x1a\x2a\x3a\x4a\x08 too small for QUIC", 22, FLOW_NAME_NOT_THIS_PROTOCOL},
        {"\xc0\0\0\0\0\0\0\0\0\0\1", 11, FLOW_NAME_MALFORMED}, /* version negotiation */
        {"\xc0\0\0\0\1\x15 id of 21 bytes id..", 25, FLOW_NAME_MALFORMED},
        {"\xc0\0\0\0\1\1x\0\0\x40\x64", 11, FLOW_NAME_MALFORMED}, /* lengths beyond the end */
        {"\xc0\0\0\0\1\1x\0\xff\xff\xff\xff\xff\xff\xff\xff\1", 17, FLOW_NAME_MALFORMED},
        {"\xc0\0\0\0\1\x8"
         "abcdefgh\0\0\1\0",
         18, FLOW_NAME_UNREADABLE}, /* too short to be sealed */
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        forget(state);
        assert_int_equal(show((const uint8_t *)rows[i].bytes, rows[i].len), rows[i].result);
    }
}

static void unknown_versions_are_told_by_datagrams_that_a_server_would_answer(void **state)
{
    static const char *const begins[] = {"\xc0\x1a\x2a\x3a\x4a\x08 grease",
                                         "\xc0\xff\1\1\x1d\x08 a draft"};
    uint8_t bytes[1200] = {0};

    for (size_t i = 0; i < 2; i++) {
        forget(state);
        memcpy(bytes, begins[i], strlen(begins[i]));
        assert_int_equal(show(bytes, sizeof bytes), FLOW_NAME_UNKNOWN_VERSION);
        assert_int_equal(show(bytes, sizeof bytes - 1), FLOW_NAME_NOT_THIS_PROTOCOL);
    }
}

static void frames_that_have_no_place_in_an_initial_are_malformed(void **state)
{
    static const struct {
        uint8_t bytes[12];
        size_t len;
    } payloads[] = {
        {{8, 0, 1, 'x'}, 4},           /* STREAM */
        {{0x1d, 0, 0}, 3},             /* CONNECTION_CLOSE of the application */
        {{6, 0, 0x40, 0x80}, 4},       /* CRYPTO beyond the end */
        {{6, 0x40}, 2},                /* half a CRYPTO */
        {{2, 0, 0, 0xff, 0, 0}, 6},    /* ranges without end */
        {{0x1c, 0, 0, 0x7f, 0xff}, 5}, /* a reason beyond the end */
        {{0x40, 0x3f}, 2},             /* a type of two bytes */
    };

    for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
        uint8_t payload[40];
        struct datagram d = {.len = 0};

        forget(state);
        memset(payload, 0, sizeof payload);
        memcpy(payload + 40 - payloads[i].len, payloads[i].bytes, payloads[i].len);
        add_initial(&d, &client, payload, sizeof payload);
        assert_int_equal(show(d.bytes, d.len), FLOW_NAME_MALFORMED);
    }
}

static void packets_of_two_connections_in_one_datagram_are_malformed(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    struct quic_client other = quic_client_of(QUIC_VERSION_1, "another1");
    struct datagram d = {.len = 0};

    (void)state;
    add_crypto(&d, &client, 0, (const uint8_t *)"\1", 1);
    add_crypto(&d, &other, 0, (const uint8_t *)"\1", 1);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_MALFORMED);
}

static void a_retry_from_a_client_is_malformed(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    struct datagram d = {.len = 0};

    (void)state;
    add_other(&d, &client, 3, 40);
    assert_int_equal(show(d.bytes, d.len), FLOW_NAME_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_sample_packets_of_the_rfcs_name_example_com, forget),
        cmocka_unit_test_setup(no_truncated_sample_is_read, forget),
        cmocka_unit_test_setup(a_sample_with_any_bit_flipped_is_not_read, forget),
        cmocka_unit_test_setup(both_versions_and_every_length_of_packet_numbers_are_read, forget),
        cmocka_unit_test_setup(the_fixed_bit_may_be_greased, forget),
        cmocka_unit_test_setup(a_hello_without_a_name_is_hidden, forget),
        cmocka_unit_test_setup(a_hello_over_several_datagrams_in_any_order_is_put_together, forget),
        cmocka_unit_test_setup(a_hello_in_coalesced_packets_and_scrambled_frames_is_read, forget),
        cmocka_unit_test_setup(early_data_in_front_of_the_hello_waits, forget),
        cmocka_unit_test_setup(bytes_that_contradict_earlier_ones_are_malformed, forget),
        cmocka_unit_test_setup(bounds_of_bytes_and_datagrams_are_kept, forget),
        cmocka_unit_test_setup(later_initials_of_the_connection_stand_by_its_name, forget),
        cmocka_unit_test_setup(after_a_retry_the_keys_follow_from_the_new_id, forget),
        cmocka_unit_test_setup(another_connection_from_the_same_port_is_judged_anew, forget),
        cmocka_unit_test_setup(what_was_said_is_kept_and_no_more, forget),
        cmocka_unit_test_setup(a_second_hello_must_name_the_same_server, forget),
        cmocka_unit_test_setup(initials_that_do_not_open_are_unreadable_and_change_nothing, forget),
        cmocka_unit_test_setup(a_short_id_of_a_client_begins_no_connection, forget),
        cmocka_unit_test_setup(what_is_not_an_initial_is_told_apart, forget),
        cmocka_unit_test_setup(unknown_versions_are_told_by_datagrams_that_a_server_would_answer,
                               forget),
        cmocka_unit_test_setup(frames_that_have_no_place_in_an_initial_are_malformed, forget),
        cmocka_unit_test_setup(packets_of_two_connections_in_one_datagram_are_malformed, forget),
        cmocka_unit_test_setup(a_retry_from_a_client_is_malformed, forget),
    };

    return cmocka_run_group_tests(tests, make_opener, drop_opener);
}
