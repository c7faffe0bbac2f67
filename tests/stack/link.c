/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <string.h>

#include "lab.h"
#include "wire/arp.h"
#include "wire/bytes.h"
#include "wire/ethernet.h"

static size_t arp_request(uint8_t frame[42], uint32_t sender, uint32_t target)
{
    struct arp request = {
        .operation = ARP_REQUEST,
        .be_sender = htonl(sender),
        .be_target = htonl(target),
    };

    memcpy(request.sender_mac, LAB_GUEST_MAC, 6);
    ethernet_write(frame, LAB_BROADCAST_MAC, LAB_GUEST_MAC, ETHERNET_ARP);
    arp_write(frame + 14, &request);
    return 42;
}

static void arp_is_answered_for(struct lab *lab, uint32_t sender, uint32_t target)
{
    uint8_t frame[42];
    struct arp reply;
    const struct sent *s;

    lab_forget(lab);
    lab_input(lab, frame, arp_request(frame, sender, target));
    s = lab_only(lab);
    assert_memory_equal(s->data, LAB_GUEST_MAC, 6);
    assert_memory_equal(s->data + 6, LAB_GATEWAY_MAC, 6);
    assert_true(arp_parse(s->data + 14, s->len - 14, &reply));
    assert_int_equal(reply.operation, ARP_REPLY);
    assert_memory_equal(reply.sender_mac, LAB_GATEWAY_MAC, 6);
    assert_int_equal(ntohl(reply.be_sender), target);
    assert_int_equal(ntohl(reply.be_target), sender);
}

static void arp_is_answered_for_gateway_and_resolver(void **state)
{
    struct lab *lab = lab_new();

    (void)state;
    arp_is_answered_for(lab, GUEST4, GATEWAY4);
    arp_is_answered_for(lab, GUEST4, DNS4);
    arp_is_answered_for(lab, 0, GATEWAY4); /* a probe for an address that is ours */
    lab_free(lab);
}

static void arp_is_silent_for_all_others(void **state)
{
    struct lab *lab = lab_new();
    uint8_t frame[42];

    (void)state;
    lab_input(lab, frame, arp_request(frame, 0, GUEST4));
    lab_input(lab, frame, arp_request(frame, GUEST4, GUEST4));
    lab_input(lab, frame, arp_request(frame, GUEST4, 0x0a000205));
    assert_int_equal(lab_counter(lab, COUNTER_arp_not_ours), 3);
    lab_input(lab, frame, arp_request(frame, 0x0a000207, GATEWAY4));
    assert_int_equal(lab_counter(lab, COUNTER_arp_spoofed), 1);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void broken_arp_is_counted(void **state)
{
    struct lab *lab = lab_new();
    uint8_t frame[42];
    size_t len = arp_request(frame, GUEST4, GATEWAY4);

    (void)state;
    lab_torture(lab, frame, len);
    lab_input(lab, frame, len - 1);
    assert_true(lab_counter(lab, COUNTER_arp_malformed) > 27);
    lab_free(lab);
}

static void frames_for_others_are_not_taken(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    build_ip4(&b, GUEST4, GATEWAY4, IPPROTO_ICMP);
    build_icmp(&b, 8, 0, 1);
    build_finish(&b);
    b.data[5] ^= 1;
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_link_not_for_us), 1);
    b.data[5] ^= 1;
    memcpy(b.data + 6, LAB_GATEWAY_MAC, 6);
    lab_input(lab, b.data, b.len);
    memcpy(b.data + 6, LAB_BROADCAST_MAC, 6);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_link_bad_source), 2);
    lab_assert_silent(lab);
    lab_free(lab);
}

static void vlan_and_unknown_types_are_counted(void **state)
{
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    build_ip4(&b, GUEST4, GATEWAY4, IPPROTO_UDP);
    store_be16(b.data + 12, 0x8100);
    lab_input(lab, b.data, b.len);
    store_be16(b.data + 12, 0x88a8);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_link_vlan), 2);
    store_be16(b.data + 12, 0x88cc);
    lab_input(lab, b.data, b.len);
    assert_int_equal(lab_counter(lab, COUNTER_link_unknown_protocol), 1);
    lab_input(lab, b.data, 13);
    assert_int_equal(lab_counter(lab, COUNTER_link_runt), 1);
    lab_free(lab);
}

static void guest_mac_is_learnt_and_followed(void **state)
{
    static const uint8_t other[6] = {2, 9, 9, 9, 9, 9};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    build_ip4(&b, GUEST4, GATEWAY4, IPPROTO_ICMP);
    build_icmp(&b, 8, 0, 1);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    assert_memory_equal(lab_only(lab)->data, LAB_GUEST_MAC, 6);
    lab_forget(lab);
    memcpy(b.data + 6, other, 6);
    lab_input(lab, b.data, b.len);
    assert_memory_equal(lab_only(lab)->data, other, 6);
    lab_free(lab);
}

static void guest_mac_of_the_link_is_kept(void **state)
{
    struct culvert_link link = {.mtu = 1500, .mac = {2, 1, 1, 1, 1, 1}, .up = true};
    struct lab *lab = lab_new();
    struct build b;

    (void)state;
    stack_set_link(lab->stack, &link);
    build_ip4(&b, GUEST4, GATEWAY4, IPPROTO_ICMP);
    build_icmp(&b, 8, 0, 1);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
    assert_memory_equal(lab_only(lab)->data, link.mac, 6);
    lab_free(lab);
}

static void unknown_guest_is_looked_for_once_a_second(void **state)
{
    struct lab *lab = lab_new();
    const struct icmp_report report = {
        .key = {.guest = ip_address_v4(htonl(GUEST4)),
                .remote = ip_address_v4(htonl(REMOTE4)),
                .protocol = IPPROTO_UDP},
        .problem = ICMP_PROBLEM_PORT_UNREACHABLE,
    };

    (void)state;
    for (int i = 0; i < 3; i++)
        stack_icmp_report(lab->stack, &report);
    assert_int_equal(lab->sent_count, 4);
    assert_int_equal(load_be16(lab->sent[0].data + 12), ETHERNET_ARP);
    assert_memory_equal(lab->sent[0].data, LAB_BROADCAST_MAC, 6);
    lab_advance(lab, SECOND_NS);
    stack_icmp_report(lab->stack, &report);
    assert_int_equal(lab->sent_count, 6);
    lab_free(lab);
}

static void link_that_is_down_gets_nothing(void **state)
{
    const struct culvert_link link = {.mtu = 1500, .up = false};
    struct lab *lab = lab_new();
    uint8_t frame[42];

    (void)state;
    stack_set_link(lab->stack, &link);
    lab_input(lab, frame, arp_request(frame, GUEST4, GATEWAY4));
    lab_assert_silent(lab);
    assert_int_equal(lab_counter(lab, COUNTER_link_down), 1);
    lab_free(lab);
}

static void full_link_drops_small_packets_and_counts_them(void **state)
{
    struct lab *lab = lab_new();
    uint8_t frame[42];

    (void)state;
    lab->link_full = true;
    lab_input(lab, frame, arp_request(frame, GUEST4, GATEWAY4));
    assert_int_equal(lab_counter(lab, COUNTER_link_full), 1);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arp_is_answered_for_gateway_and_resolver),
        cmocka_unit_test(arp_is_silent_for_all_others),
        cmocka_unit_test(broken_arp_is_counted),
        cmocka_unit_test(frames_for_others_are_not_taken),
        cmocka_unit_test(vlan_and_unknown_types_are_counted),
        cmocka_unit_test(guest_mac_is_learnt_and_followed),
        cmocka_unit_test(guest_mac_of_the_link_is_kept),
        cmocka_unit_test(unknown_guest_is_looked_for_once_a_second),
        cmocka_unit_test(link_that_is_down_gets_nothing),
        cmocka_unit_test(full_link_drops_small_packets_and_counts_them),
    };

    return RUN_TESTS(tests);
}
