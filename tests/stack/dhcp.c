/* SPDX-License-Identifier: Apache-2.0 */
/* Dialogues with DHCP and DHCPv6 clients. */

#include <netinet/in.h>
#include <string.h>

#include "lab.h"
#include "wire/bytes.h"
#include "wire/dhcp.h"
#include "wire/dhcpv6.h"

/* ---- DHCPv4 ---- */

struct ask {
    uint8_t type;
    uint32_t source, destination, client, requested, server;
    bool broadcast;
};

static void option(struct build *b, uint8_t code, const void *value, uint8_t len)
{
    build_bytes(b, &code, 1);
    build_bytes(b, &len, 1);
    build_bytes(b, value, len);
}

static void option_address(struct build *b, uint8_t code, uint32_t address)
{
    uint32_t be = htonl(address);

    if (address != 0)
        option(b, code, &be, 4);
}

static void ask4(struct build *b, const struct ask *ask)
{
    uint8_t fixed[240] = {1, 1, 6, 0, 0xaa, 0xbb, 0xcc, 0xdd};
    const uint8_t end = 255;

    if (ask->broadcast)
        fixed[10] = 0x80;
    store_be32(fixed + 12, ask->client);
    memcpy(fixed + 28, LAB_GUEST_MAC, 6);
    store_be32(fixed + 236, 0x63825363);
    build_ip4(b, ask->source, ask->destination ? ask->destination : BROADCAST4, IPPROTO_UDP);
    build_udp(b, 68, 67);
    build_bytes(b, fixed, sizeof fixed);
    option(b, 53, &ask->type, 1);
    option_address(b, 50, ask->requested);
    option_address(b, 54, ask->server);
    option(b, 61, "\1client", 7);
    build_bytes(b, &end, 1);
    build_finish(b);
}

/* The value of an option of the reply, or NULL; its length in *ret_len. */
static const uint8_t *find(const struct sent *s, uint8_t code, uint8_t *ret_len)
{
    size_t at = s->offset + 8 + 240;

    while (at < s->len && s->data[at] != 255) {
        if (s->data[at] == 0) {
            at++;
            continue;
        }
        assert_true(at + 2 <= s->len && at + 2 + s->data[at + 1] <= s->len);
        if (s->data[at] == code) {
            *ret_len = s->data[at + 1];
            return s->data + at + 2;
        }
        at += 2u + s->data[at + 1];
    }
    return NULL;
}

static uint32_t find32(const struct sent *s, uint8_t code)
{
    uint8_t len;
    const uint8_t *value = find(s, code, &len);

    assert_non_null(value);
    assert_int_equal(len, 4);
    return load_be32(value);
}

static uint8_t type_of(const struct sent *s)
{
    uint8_t len;
    const uint8_t *value = find(s, 53, &len);

    assert_non_null(value);
    return *value;
}

static const struct sent *dialogue(struct lab *lab, const struct ask *ask)
{
    struct build b;

    lab_forget(lab);
    ask4(&b, ask);
    lab_input(lab, b.data, b.len);
    return lab_only(lab);
}

static void assert_facts(const struct sent *s)
{
    uint8_t len;
    const uint8_t *value;

    assert_int_equal(find32(s, 54), GATEWAY4);
    assert_int_equal(find32(s, 1), 0xffffff00);
    assert_int_equal(find32(s, 3), GATEWAY4);
    assert_int_equal(find32(s, 6), DNS4);
    assert_int_equal(find32(s, 28), 0x0a0002ff);
    value = find(s, 26, &len);
    assert_non_null(value);
    assert_int_equal(load_be16(value), 1500);
    value = find(s, 12, &len);
    assert_non_null(value);
    assert_int_equal(len, 7);
    assert_memory_equal(value, "sandbox", 7);
    value = find(s, 61, &len);
    assert_non_null(value);
    assert_memory_equal(value, "\1client", 7);
}

static void new_client_gets_the_address(void **state)
{
    struct lab *lab = lab_new();
    const struct sent *s = dialogue(lab, &(struct ask){.type = DHCP_DISCOVER});

    (void)state;
    assert_int_equal(type_of(s), DHCP_OFFER);
    assert_int_equal(load_be16(s->data + s->offset), 67);
    assert_int_equal(load_be16(s->data + s->offset + 2), 68);
    assert_int_equal(load_be32(s->data + s->offset + 8 + 4), 0xaabbccdd);
    assert_int_equal(load_be32(s->data + s->offset + 8 + 16), GUEST4);
    assert_memory_equal(s->data + s->offset + 8 + 28, LAB_GUEST_MAC, 6);
    assert_int_equal(ntohl(s->destination.be32[3]), GUEST4);
    assert_memory_equal(s->data, LAB_GUEST_MAC, 6);
    assert_facts(s);

    s = dialogue(lab, &(struct ask){.type = DHCP_REQUEST, .requested = GUEST4, .server = GATEWAY4});
    assert_int_equal(type_of(s), DHCP_ACK);
    assert_int_equal(load_be32(s->data + s->offset + 8 + 16), GUEST4);
    assert_true(find32(s, 51) >= 86400);
    assert_facts(s);
    assert_int_equal(lab_counter(lab, COUNTER_dhcp_acks), 1);
    lab_free(lab);
}

static void client_that_asks_for_broadcast_gets_it(void **state)
{
    struct lab *lab = lab_new();
    const struct sent *s = dialogue(lab, &(struct ask){.type = DHCP_DISCOVER, .broadcast = true});

    (void)state;
    assert_int_equal(ntohl(s->destination.be32[3]), BROADCAST4);
    assert_memory_equal(s->data, LAB_BROADCAST_MAC, 6);
    lab_free(lab);
}

static void renewal_and_reboot_are_acknowledged(void **state)
{
    struct lab *lab = lab_new();
    const struct sent *s = dialogue(lab, &(struct ask){.type = DHCP_REQUEST,
                                                       .source = GUEST4,
                                                       .destination = GATEWAY4,
                                                       .client = GUEST4});

    (void)state;
    assert_int_equal(type_of(s), DHCP_ACK);
    assert_int_equal(ntohl(s->destination.be32[3]), GUEST4);
    s = dialogue(lab, &(struct ask){.type = DHCP_REQUEST, .source = GUEST4, .client = GUEST4});
    assert_int_equal(type_of(s), DHCP_ACK);
    s = dialogue(lab, &(struct ask){.type = DHCP_REQUEST, .requested = GUEST4});
    assert_int_equal(type_of(s), DHCP_ACK);
    lab_free(lab);
}

static void other_addresses_are_refused(void **state)
{
    struct lab *lab = lab_new();
    uint8_t len;
    const struct sent *s =
        dialogue(lab, &(struct ask){.type = DHCP_REQUEST, .requested = 0xc0a80105});

    (void)state;
    assert_int_equal(type_of(s), DHCP_NAK);
    assert_int_equal(ntohl(s->destination.be32[3]), BROADCAST4);
    assert_memory_equal(s->data, LAB_BROADCAST_MAC, 6);
    assert_null(find(s, 51, &len));
    assert_null(find(s, 3, &len));
    assert_int_equal(load_be32(s->data + s->offset + 8 + 16), 0);
    s = dialogue(lab, &(struct ask){.type = DHCP_REQUEST, .client = 0x0a000277});
    assert_int_equal(type_of(s), DHCP_NAK);
    assert_int_equal(lab_counter(lab, COUNTER_dhcp_naks), 2);
    lab_free(lab);
}

static void inform_gets_facts_without_a_lease(void **state)
{
    struct lab *lab = lab_new();
    uint8_t len;
    const struct sent *s =
        dialogue(lab, &(struct ask){.type = DHCP_INFORM, .source = GUEST4, .client = GUEST4});

    (void)state;
    assert_int_equal(type_of(s), DHCP_ACK);
    assert_null(find(s, 51, &len));
    assert_int_equal(load_be32(s->data + s->offset + 8 + 16), 0);
    assert_facts(s);
    lab_free(lab);
}

static void messages_for_others_and_farewells_meet_silence(void **state)
{
    static const struct ask asks[] = {
        {.type = DHCP_REQUEST, .requested = GUEST4, .server = 0xc0a80101},
        {.type = DHCP_DECLINE, .requested = GUEST4, .server = GATEWAY4},
        {.type = DHCP_RELEASE, .source = GUEST4, .destination = GATEWAY4, .client = GUEST4},
        {.type = DHCP_OFFER},
        {.type = 77},
    };
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        ask4(&b, &asks[i]);
        lab_input(lab, b.data, b.len);
    }
    lab_assert_silent(lab);
    assert_int_equal(lab_counter(lab, COUNTER_dhcp_ignored), 3);
    assert_int_equal(lab_counter(lab, COUNTER_dhcp_declined), 1);
    assert_int_equal(lab->udp_count, 0);
    lab_free(lab);
}

static void no_change_or_truncation_does_harm(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    ask4(&b, &(struct ask){.type = DHCP_REQUEST, .requested = GUEST4, .server = GATEWAY4});
    lab_torture(lab, b.data, b.len);
    lab_free(lab);
}

/* ---- DHCPv6 ---- */

static void option6(struct build *b, uint16_t code, const void *value, uint16_t len)
{
    uint8_t header[4];

    store_be16(header, code);
    store_be16(header + 2, len);
    build_bytes(b, header, 4);
    build_bytes(b, value, len);
}

static void begin6(struct build *b, uint8_t type)
{
    const uint8_t first[4] = {type, 1, 2, 3};

    build_ip6(b, "fe80::5", "ff02::1:2", IPPROTO_UDP);
    build_udp(b, 546, 547);
    build_bytes(b, first, 4);
}

static void identify(struct build *b, bool server)
{
    const struct dhcpv6_duid duid = dhcpv6_duid_of_mac(LAB_GATEWAY_MAC);

    option6(b, 1, "\0\3\0\1guest!", 10);
    if (server)
        option6(b, 2, duid.bytes, duid.len);
}

static void ask_ia(struct build *b, uint32_t id, const char *address)
{
    uint8_t ia[12 + 28] = {0};

    store_be32(ia, id);
    if (address) {
        store_be16(ia + 12, 5);
        store_be16(ia + 14, 24);
        memcpy(ia + 16, lab_ip(address).bytes, 16);
    }
    option6(b, 3, ia, address ? 40 : 12);
}

static const struct sent *answer6(struct lab *lab, struct build *b)
{
    lab_forget(lab);
    build_finish(b);
    lab_input(lab, b->data, b->len);
    return lab_only(lab);
}

/* The `nth` option of this code in [at, end). */
static const uint8_t *find6(const uint8_t *at, const uint8_t *end, uint16_t code, unsigned nth,
                            uint16_t *ret_len)
{
    while (at < end) {
        assert_true(end - at >= 4);
        *ret_len = load_be16(at + 2);
        assert_true(end - at >= 4 + *ret_len);
        if (load_be16(at) == code && nth-- == 0)
            return at + 4;
        at += 4 + *ret_len;
    }
    return NULL;
}

static const uint8_t *reply_option(const struct sent *s, uint16_t code, unsigned nth,
                                   uint16_t *ret_len)
{
    return find6(s->data + s->offset + 8 + 4, s->data + s->len, code, nth, ret_len);
}

static void assert_leased(const struct sent *s)
{
    uint16_t len, inner_len;
    const uint8_t *ia = reply_option(s, 3, 0, &len), *address;

    assert_non_null(ia);
    assert_int_equal(load_be32(ia), 77);
    address = find6(ia + 12, ia + len, 5, 0, &inner_len);
    assert_non_null(address);
    assert_memory_equal(address, lab_ip(GUEST6).bytes, 16);
    assert_true(load_be32(address + 16) > 0);
    assert_true(load_be32(address + 20) >= load_be32(address + 16));
    address = reply_option(s, 23, 0, &len);
    assert_non_null(address);
    assert_memory_equal(address, lab_ip(DNS6).bytes, 16);
    address = reply_option(s, 1, 0, &len);
    assert_non_null(address);
    assert_memory_equal(address, "\0\3\0\1guest!", 10);
    assert_non_null(reply_option(s, 2, 0, &len));
}

static void new_client_gets_the_address6(void **state)
{
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;

    (void)state;
    begin6(&b, DHCPV6_SOLICIT);
    identify(&b, false);
    ask_ia(&b, 77, NULL);
    s = answer6(lab, &b);
    assert_int_equal(load_be32(s->data + s->offset + 8), DHCPV6_ADVERTISE << 24 | 0x010203);
    assert_memory_equal(s->source.bytes, lab_ip(LINK_LOCAL6).bytes, 16);
    assert_memory_equal(s->destination.bytes, lab_ip("fe80::5").bytes, 16);
    assert_int_equal(load_be16(s->data + s->offset + 2), 546);
    assert_leased(s);
    for (unsigned i = 0; i < 3; i++) {
        static const uint8_t types[] = {DHCPV6_REQUEST, DHCPV6_RENEW, DHCPV6_REBIND};

        begin6(&b, types[i]);
        identify(&b, types[i] != DHCPV6_REBIND);
        ask_ia(&b, 77, GUEST6);
        s = answer6(lab, &b);
        assert_int_equal(s->data[s->offset + 8], DHCPV6_REPLY);
        assert_leased(s);
    }
    lab_free(lab);
}

static void rapid_commit_saves_a_round_trip(void **state)
{
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;
    uint16_t len;

    (void)state;
    begin6(&b, DHCPV6_SOLICIT);
    identify(&b, false);
    ask_ia(&b, 77, NULL);
    option6(&b, 14, NULL, 0);
    s = answer6(lab, &b);
    assert_int_equal(s->data[s->offset + 8], DHCPV6_REPLY);
    assert_non_null(reply_option(s, 14, 0, &len));
    assert_leased(s);
    lab_free(lab);
}

static void there_is_one_address_and_no_other(void **state)
{
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;
    const uint8_t *ia, *value;
    uint16_t len, inner;

    (void)state;
    begin6(&b, DHCPV6_REQUEST);
    identify(&b, true);
    ask_ia(&b, 77, "fd63:756c:7665::65");
    ask_ia(&b, 78, NULL);
    s = answer6(lab, &b);
    assert_leased(s);
    ia = reply_option(s, 3, 0, &len);
    value = find6(ia + 12, ia + len, 5, 1, &inner); /* what it named is taken away */
    assert_non_null(value);
    assert_memory_equal(value, lab_ip("fd63:756c:7665::65").bytes, 16);
    assert_int_equal(load_be32(value + 20), 0);
    ia = reply_option(s, 3, 1, &len);
    assert_non_null(ia);
    value = find6(ia + 12, ia + len, 13, 0, &inner);
    assert_non_null(value);
    assert_int_equal(load_be16(value), DHCPV6_STATUS_NO_ADDRESS);
    lab_free(lab);
}

static void confirm_tells_this_link_from_others(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    for (unsigned right = 0; right < 2; right++) {
        struct build b;
        const struct sent *s;
        const uint8_t *value;
        uint16_t len;

        begin6(&b, DHCPV6_CONFIRM);
        identify(&b, false);
        ask_ia(&b, 77, right ? GUEST6 : "2001:db8::9");
        s = answer6(lab, &b);
        value = reply_option(s, 13, 0, &len);
        assert_non_null(value);
        assert_int_equal(load_be16(value), right ? 0 : DHCPV6_STATUS_NOT_ON_LINK);
    }
    lab_free(lab);
}

static void information_and_release_are_answered(void **state)
{
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;
    uint16_t len;

    (void)state;
    begin6(&b, DHCPV6_INFORMATION_REQUEST);
    s = answer6(lab, &b);
    assert_non_null(reply_option(s, 23, 0, &len));
    assert_null(reply_option(s, 3, 0, &len));
    begin6(&b, DHCPV6_RELEASE);
    identify(&b, true);
    ask_ia(&b, 77, GUEST6);
    s = answer6(lab, &b);
    assert_non_null(reply_option(s, 13, 0, &len));
    lab_free(lab);
}

static void messages_addressed_wrong_meet_silence(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    begin6(&b, DHCPV6_SOLICIT); /* no client identifier */
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    begin6(&b, DHCPV6_REQUEST); /* no server identifier */
    identify(&b, false);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    begin6(&b, DHCPV6_REQUEST); /* another server's */
    identify(&b, false);
    option6(&b, 2, "other", 5);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    begin6(&b, DHCPV6_REPLY);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_dhcpv6_ignored), 4);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void no_change_or_truncation_does_harm6(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    begin6(&b, DHCPV6_REQUEST);
    identify(&b, true);
    ask_ia(&b, 77, "fd63:756c:7665::65");
    ask_ia(&b, 78, NULL);
    build_finish(&b);
    lab_torture(lab, b.data, b.len);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_client_gets_the_address),
        cmocka_unit_test(client_that_asks_for_broadcast_gets_it),
        cmocka_unit_test(renewal_and_reboot_are_acknowledged),
        cmocka_unit_test(other_addresses_are_refused),
        cmocka_unit_test(inform_gets_facts_without_a_lease),
        cmocka_unit_test(messages_for_others_and_farewells_meet_silence),
        cmocka_unit_test(no_change_or_truncation_does_harm),
        cmocka_unit_test(new_client_gets_the_address6),
        cmocka_unit_test(rapid_commit_saves_a_round_trip),
        cmocka_unit_test(there_is_one_address_and_no_other),
        cmocka_unit_test(confirm_tells_this_link_from_others),
        cmocka_unit_test(information_and_release_are_answered),
        cmocka_unit_test(messages_addressed_wrong_meet_silence),
        cmocka_unit_test(no_change_or_truncation_does_harm6),
    };

    return RUN_TESTS(tests);
}
