/* SPDX-License-Identifier: Apache-2.0 */
/* Is the guest there, and under which of its addresses? */

#include <netinet/in.h>
#include <string.h>

#include "lab.h"
#include "wire/arp.h"
#include "wire/bytes.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"

#define SLAAC6     "fd63:756c:7665::a8:1"
#define TEMPORARY6 "fd63:756c:7665::b9:2"

static const struct ip_address *guest4(void)
{
    static struct ip_address address;

    address = ip_address_v4(htonl(GUEST4));
    return &address;
}

static void heard_from4(struct lab *lab, uint32_t source)
{
    struct build b;

    build_ip4(&b, source, source ? GATEWAY4 : BROADCAST4, IPPROTO_UDP);
    build_udp(&b, 68, 67);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
}

static void heard_from6(struct lab *lab, const char *source)
{
    struct build b;

    build_ip6(&b, source, GATEWAY6, IPPROTO_UDP);
    build_udp(&b, 1, 1);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    lab_forget(lab);
}

/* Duplicate address detection. */
static void claims6(struct lab *lab, const char *target)
{
    struct build b;

    build_ip6(&b, "::", "ff02::1:ff00:1", IPPROTO_ICMPV6);
    b.data[14 + 7] = 255;
    build_icmp(&b, ICMP6_NEIGHBOUR_SOLICITATION, 0, 0);
    build_bytes(&b, lab_ip(target).bytes, 16);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    lab_assert_silent(lab);
}

static void answers_arp(struct lab *lab)
{
    uint8_t frame[ETHERNET_LEN + ARP_LEN];
    struct arp reply = {
        .operation = ARP_REPLY, .be_sender = htonl(GUEST4), .be_target = htonl(GATEWAY4)};

    memcpy(reply.sender_mac, LAB_GUEST_MAC, 6);
    memcpy(reply.target_mac, LAB_GATEWAY_MAC, 6);
    ethernet_write(frame, LAB_GATEWAY_MAC, LAB_GUEST_MAC, ETHERNET_ARP);
    arp_write(frame + ETHERNET_LEN, &reply);
    lab_input(lab, frame, sizeof frame);
}

static unsigned questions(const struct lab *lab, uint16_t type)
{
    unsigned n = 0;

    for (unsigned i = 0; i < lab->sent_count; i++)
        n += load_be16(lab->sent[i].data + 12) == type;
    return n;
}

static void expect(struct lab *lab, const struct ip_address *guest)
{
    neighbour_expect(lab->stack, guest);
}

/* As long as it takes to be given up. */
static void pass_a_second(struct lab *lab)
{
    for (int i = 0; i < 12; i++)
        lab_advance(lab, 100 * MS_NS);
}

static void assert_leads_to(struct lab *lab, const char *address)
{
    const struct ip_address expected = lab_ip(address);
    const struct ip_address found = stack_guest_address(lab->stack, true);

    assert_true(ip_address_equal(&found, &expected));
}

static void guest_that_answers_is_not_asked(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    heard_from4(lab, GUEST4);
    lab_forget(lab);
    expect(lab, guest4());
    lab_advance(lab, 50 * MS_NS);
    heard_from4(lab, GUEST4);
    lab_forget(lab);
    assert_int_equal(timers_next(lab->timers), TIMERS_NEVER); /* nor does anybody wake up for it */
    pass_a_second(lab);
    lab_assert_silent(lab);
    assert_int_equal(lab->away_count, 0);
    assert_false(stack_guest_is_away(lab->stack, false));
    lab_free(lab);
}

static void guest_that_is_silent_is_asked_three_times_and_then_away(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    heard_from4(lab, GUEST4);
    lab_forget(lab);
    expect(lab, guest4());
    lab_advance(lab, 900 * MS_NS);
    assert_int_equal(lab->away_count, 0);
    pass_a_second(lab);
    assert_int_equal(questions(lab, ETHERNET_ARP), 3);
    assert_int_equal(lab->away_count, 1);
    assert_true(ip_address_equal(&lab->away, guest4()));
    assert_true(stack_guest_is_away(lab->stack, false));
    assert_false(stack_guest_is_away(lab->stack, true));
    assert_int_equal(timers_next(lab->timers), TIMERS_NEVER);
    lab_free(lab);
}

static void guest_that_answers_arp_but_no_syn_is_there(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    expect(lab, guest4());
    lab_advance(lab, 150 * MS_NS);
    assert_int_equal(questions(lab, ETHERNET_ARP), 1);
    answers_arp(lab);
    pass_a_second(lab);
    assert_int_equal(questions(lab, ETHERNET_ARP), 1);
    assert_int_equal(lab->away_count, 0);
    lab_free(lab);
}

static void
guest_that_is_away_is_asked_again_by_each_who_comes_and_found_when_it_answers(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    expect(lab, guest4());
    pass_a_second(lab);
    lab_forget(lab);
    assert_true(stack_guest_is_away(lab->stack, false));
    assert_true(stack_guest_is_away(lab->stack, false)); /* not for each of a flood */
    assert_int_equal(questions(lab, ETHERNET_ARP), 1);
    heard_from4(lab, 0); /* it asks for an address: it has none yet */
    assert_true(stack_guest_is_away(lab->stack, false));
    answers_arp(lab);
    assert_false(stack_guest_is_away(lab->stack, false));
    lab_free(lab);
}

static void guest_whose_link_went_down_and_came_up_is_another(void **state)
{
    struct lab *lab = lab_new();
    struct culvert_link link = {.mtu = 1500};

    (void)state;
    heard_from6(lab, SLAAC6);
    expect(lab, guest4());
    pass_a_second(lab);
    stack_set_link(lab->stack, &link);
    link.up = true;
    stack_set_link(lab->stack, &link);
    assert_false(stack_guest_is_away(lab->stack, false));
    assert_leads_to(lab, GUEST6);
    lab_free(lab);
}

static void silence_over_ipv6_is_asked_about_by_neighbour_solicitations(void **state)
{
    struct lab *lab = lab_new();
    const struct ip_address guest = lab_ip(GUEST6);

    (void)state;
    expect(lab, &guest);
    pass_a_second(lab);
    assert_int_equal(questions(lab, ETHERNET_IPV6), 3);
    assert_int_equal(lab->sent[0].data[0], 0x33);
    assert_memory_equal(lab->sent[0].data + lab->sent[0].offset + 8, guest.bytes, 16);
    assert_int_equal(lab->away_count, 1);
    assert_true(stack_guest_is_away(lab->stack, true));
    assert_false(stack_guest_is_away(lab->stack, false));
    lab_free(lab);
}

static void address_the_guest_made_up_is_taken_and_kept(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    assert_leads_to(lab, GUEST6);
    heard_from6(lab, "fe80::1234"); /* of the link alone */
    assert_leads_to(lab, GUEST6);
    claims6(lab, SLAAC6);
    assert_leads_to(lab, SLAAC6);
    heard_from6(lab, TEMPORARY6); /* changes daily */
    assert_leads_to(lab, SLAAC6);
    lab_free(lab);
}

static void configured_address_is_preferred_as_soon_as_it_shows(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    heard_from6(lab, SLAAC6);
    assert_leads_to(lab, SLAAC6);
    claims6(lab, GUEST6); /* by DHCPv6 */
    assert_leads_to(lab, GUEST6);
    heard_from6(lab, TEMPORARY6);
    assert_leads_to(lab, GUEST6);
    lab_free(lab);
}

static void address_that_is_gone_is_replaced_by_the_next_that_is_heard(void **state)
{
    struct lab *lab = lab_new();
    const struct ip_address slaac = lab_ip(SLAAC6);

    (void)state;
    heard_from6(lab, SLAAC6);
    expect(lab, &slaac);
    pass_a_second(lab);
    assert_true(ip_address_equal(&lab->away, &slaac));
    heard_from6(lab, TEMPORARY6);
    assert_leads_to(lab, TEMPORARY6);
    assert_false(stack_guest_is_away(lab->stack, true));
    lab_free(lab);
}

static void what_is_not_of_the_guests_network_is_no_address_of_its(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    claims6(lab, REMOTE6);
    claims6(lab, "fe80::77");
    assert_leads_to(lab, GUEST6);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guest_that_answers_is_not_asked),
        cmocka_unit_test(guest_that_is_silent_is_asked_three_times_and_then_away),
        cmocka_unit_test(guest_that_answers_arp_but_no_syn_is_there),
        cmocka_unit_test(
            guest_that_is_away_is_asked_again_by_each_who_comes_and_found_when_it_answers),
        cmocka_unit_test(guest_whose_link_went_down_and_came_up_is_another),
        cmocka_unit_test(silence_over_ipv6_is_asked_about_by_neighbour_solicitations),
        cmocka_unit_test(address_the_guest_made_up_is_taken_and_kept),
        cmocka_unit_test(configured_address_is_preferred_as_soon_as_it_shows),
        cmocka_unit_test(address_that_is_gone_is_replaced_by_the_next_that_is_heard),
        cmocka_unit_test(what_is_not_of_the_guests_network_is_no_address_of_its),
    };

    return RUN_TESTS(tests);
}
