/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <string.h>

#include "lab.h"
#include "wire/bytes.h"
#include "wire/icmp.h"
#include "wire/ndp.h"

static void neighbour_solicitation(struct build *b, const char *source, const char *destination,
                                   const char *target, bool with_mac)
{
    uint8_t option[8] = {1, 1, 2, 0, 0, 0, 0, 0x64};

    build_ip6(b, source, destination, IPPROTO_ICMPV6);
    b->data[14 + 7] = 255;
    build_icmp(b, ICMP6_NEIGHBOUR_SOLICITATION, 0, 0);
    build_bytes(b, lab_ip(target).bytes, 16);
    if (with_mac)
        build_bytes(b, option, 8);
    build_finish(b);
}

static void router_solicitation(struct build *b, const char *source)
{
    build_ip6(b, source, "ff02::2", IPPROTO_ICMPV6);
    b->data[14 + 7] = 255;
    build_icmp(b, ICMP6_ROUTER_SOLICITATION, 0, 0);
    build_finish(b);
}

static void neighbours_are_answered_for_owned_addresses(void **state)
{
    static const char *const owned[] = {GATEWAY6, DNS6, LINK_LOCAL6};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct ip_address target = lab_ip(owned[i]);
        const struct sent *s;
        const uint8_t *message;

        neighbour_solicitation(&b, GUEST6, i == 0 ? "ff02::1:ff00:2" : owned[i], owned[i], true);
        lab_input(lab, b.data, b.len);
        s = lab_only(lab);
        message = s->data + s->offset;
        assert_int_equal(s->ttl, 255);
        assert_int_equal(message[0], ICMP6_NEIGHBOUR_ADVERTISEMENT);
        assert_int_equal(message[4], 0xe0); /* router, solicited, override */
        assert_memory_equal(message + 8, target.bytes, 16);
        assert_memory_equal(s->source.bytes, target.bytes, 16);
        assert_int_equal(message[24], 2);
        assert_memory_equal(message + 26, LAB_GATEWAY_MAC, 6);
        assert_memory_equal(s->data, LAB_GUEST_MAC, 6);
        lab_forget(lab);
    }
    lab_free(lab);
}

static void probes_of_the_guest_for_its_own_address_meet_silence(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    neighbour_solicitation(&b, "::", "ff02::1:ff00:64", GUEST6, false);
    lab_input(lab, b.data, b.len);
    neighbour_solicitation(&b, "::", "ff02::1:ff00:7", "fe80::7", false);
    lab_input(lab, b.data, b.len);
    neighbour_solicitation(&b, GUEST6, "ff02::1:ff00:9", "fd63:756c:7665::9", true);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_ndp_not_ours), 3);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void probe_for_an_owned_address_is_defended(void **state)
{
    static const uint8_t all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;

    (void)state;
    neighbour_solicitation(&b, "::", "ff02::1:ff00:2", GATEWAY6, false);
    lab_input(lab, b.data, b.len);
    s = lab_only(lab);
    assert_memory_equal(s->destination.bytes, lab_ip("ff02::1").bytes, 16);
    assert_memory_equal(s->data, all_nodes_mac, 6);
    assert_int_equal(s->data[s->offset + 4], 0xa0); /* router, override */
    lab_free(lab);
}

static void messages_that_may_have_been_forwarded_are_refused(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    neighbour_solicitation(&b, GUEST6, GATEWAY6, GATEWAY6, true);
    b.data[14 + 7] = 254;
    lab_input(lab, b.data, b.len);
    router_solicitation(&b, "fe80::5");
    b.data[14 + 7] = 64;
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_ndp_malformed), 2);
    neighbour_solicitation(&b, "::", "ff02::1:ff00:2", GATEWAY6, true); /* a MAC of nobody */
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_ndp_malformed), 3);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void router_solicitation_gets_everything(void **state)
{
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;
    const uint8_t *m;

    (void)state;
    router_solicitation(&b, "fe80::5");
    lab_input(lab, b.data, b.len);
    s = lab_only(lab);
    m = s->data + s->offset;
    assert_memory_equal(s->source.bytes, lab_ip(LINK_LOCAL6).bytes, 16);
    assert_memory_equal(s->destination.bytes, lab_ip("fe80::5").bytes, 16);
    assert_int_equal(s->ttl, 255);
    assert_int_equal(s->len - s->offset, NDP_ROUTER_ADVERTISEMENT_LEN);
    assert_int_equal(m[0], ICMP6_ROUTER_ADVERTISEMENT);
    assert_int_equal(m[4], 64);
    assert_int_equal(m[5], 0xc0);
    assert_int_equal(load_be16(m + 6), 9000);
    assert_memory_equal(m + 18, LAB_GATEWAY_MAC, 6);
    assert_int_equal(load_be32(m + 28), 1500);
    assert_int_equal(m[34], 64);
    assert_int_equal(m[35], 0xc0);
    assert_memory_equal(m + 48, lab_ip("fd63:756c:7665::").bytes, 16);
    assert_memory_equal(m + 72, lab_ip(DNS6).bytes, 16);
    lab_forget(lab);

    router_solicitation(&b, "::");
    lab_input(lab, b.data, b.len);
    assert_memory_equal(lab_only(lab)->destination.bytes, lab_ip("ff02::1").bytes, 16);
    lab_free(lab);
}

static void advertisements_are_refreshed_rarely_and_only_if_asked_for(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    lab_advance(lab, 10000 * SECOND_NS);
    lab_assert_silent(lab);
    router_solicitation(&b, "fe80::5");
    lab_input(lab, b.data, b.len);
    lab_forget(lab);
    lab_advance(lab, 2800 * SECOND_NS);
    lab_assert_silent(lab);
    lab_advance(lab, 200 * SECOND_NS);
    assert_memory_equal(lab_only(lab)->destination.bytes, lab_ip("ff02::1").bytes, 16);
    lab_forget(lab);
    lab_advance(lab, 86400 * SECOND_NS);
    assert_true(lab->sent_count >= 28 && lab->sent_count <= 30);
    lab_free(lab);
}

static void new_mtu_is_advertised_to_a_guest_that_listens(void **state)
{
    const struct culvert_link link = {.mtu = 9000, .up = true};
    struct lab *lab = lab_new();
    struct build b;
    const struct sent *s;

    (void)state;
    stack_set_link(lab->stack, &link);
    lab_assert_silent(lab);
    router_solicitation(&b, "fe80::5");
    lab_input(lab, b.data, b.len);
    lab_forget(lab);
    stack_set_link(lab->stack, &link);
    s = lab_only(lab);
    assert_int_equal(load_be32(s->data + s->offset + 28), 9000);
    lab_free(lab);
}

static void listener_reports_and_advertisements_are_quietly_taken(void **state)
{
    static const uint8_t types[] = {131, 132, 136, 143};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    for (size_t i = 0; i < sizeof types; i++) {
        build_ip6(&b, "fe80::5", "ff02::16", IPPROTO_ICMPV6);
        build_icmp(&b, types[i], 0, 0);
        build_pattern(&b, 20, 0);
        build_finish(&b);
        lab_input(lab, b.data, b.len);
    }
    lab_assert_silent(lab);
    assert_int_equal(lab_counter(lab, COUNTER_icmp_unsupported), 0);
    lab_free(lab);
}

static void no_change_or_truncation_does_harm(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    neighbour_solicitation(&b, GUEST6, "ff02::1:ff00:2", GATEWAY6, true);
    lab_torture(lab, b.data, b.len);
    router_solicitation(&b, "fe80::5");
    lab_torture(lab, b.data, b.len);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_are_answered_for_owned_addresses),
        cmocka_unit_test(probes_of_the_guest_for_its_own_address_meet_silence),
        cmocka_unit_test(probe_for_an_owned_address_is_defended),
        cmocka_unit_test(messages_that_may_have_been_forwarded_are_refused),
        cmocka_unit_test(router_solicitation_gets_everything),
        cmocka_unit_test(advertisements_are_refreshed_rarely_and_only_if_asked_for),
        cmocka_unit_test(new_mtu_is_advertised_to_a_guest_that_listens),
        cmocka_unit_test(listener_reports_and_advertisements_are_quietly_taken),
        cmocka_unit_test(no_change_or_truncation_does_harm),
    };

    return RUN_TESTS(tests);
}
