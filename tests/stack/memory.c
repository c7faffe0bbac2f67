/* SPDX-License-Identifier: Apache-2.0 */
/* When memory runs out, packets are lost, counted, and nothing else happens. */

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "wire/arp.h"
#include "wire/bytes.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/ip.h"

static void ping(struct lab *lab, bool v6)
{
    struct build b;

    if (v6)
        build_ip6(&b, GUEST6, GATEWAY6, IPPROTO_ICMPV6);
    else
        build_ip4(&b, GUEST4, GATEWAY4, IPPROTO_ICMP);
    build_icmp(&b, v6 ? ICMP6_ECHO_REQUEST : ICMP4_ECHO_REQUEST, 0, 1);
    build_pattern(&b, 3000, 0);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
}

static void ask_who_has(struct lab *lab)
{
    struct arp request = {
        .operation = ARP_REQUEST, .be_sender = htonl(GUEST4), .be_target = htonl(GATEWAY4)};
    uint8_t frame[14 + ARP_LEN];

    ethernet_write(frame, LAB_BROADCAST_MAC, LAB_GUEST_MAC, ETHERNET_ARP);
    arp_write(frame + 14, &request);
    lab_input(lab, frame, sizeof frame);
}

static void solicit_router(struct lab *lab)
{
    struct build b;

    build_ip6(&b, "fe80::5", "ff02::2", IPPROTO_ICMPV6);
    b.data[14 + 7] = 255;
    build_icmp(&b, ICMP6_ROUTER_SOLICITATION, 0, 0);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
}

static void discover(struct lab *lab)
{
    uint8_t message[244] = {1, 1, 6};
    struct build b;

    store_be32(message + 236, 0x63825363);
    memcpy(message + 240, "\x35\1\1\xff", 4);
    build_ip4(&b, 0, BROADCAST4, IPPROTO_UDP);
    build_udp(&b, 68, 67);
    build_bytes(&b, message, sizeof message);
    build_finish(&b);
    lab_input(lab, b.data, b.len);
}

/* Datagrams in two fragments each, refused above. */
static void send_fragments(struct lab *lab)
{
    struct build b;

    build_ip4(&b, GUEST4, REMOTE4, IPPROTO_UDP);
    build_udp(&b, 1, 2);
    build_pattern(&b, 792, 0);
    build_finish(&b);
    for (unsigned half = 0; half < 2; half++) {
        struct build piece = b;

        memcpy(piece.data + 34, b.data + 34 + half * 400, 400);
        piece.len = 34 + 400;
        store_be16(piece.data + 16, 420);
        store_be16(piece.data + 20, half ? 50 : 0x2000);
        build_ip4_checksum(&piece);
        lab_input(lab, piece.data, piece.len);
    }
}

static void output_udp(struct lab *lab)
{
    struct culvert_buffer *buffer = culvert_buffer_new(4000);
    struct culvert_segment segment = {buffer, buffer->data, 4000};
    const struct udp_output output = {
        .key = {.guest = ip_address_v4(htonl(GUEST4)), .remote = ip_address_v4(htonl(REMOTE4))},
        .segments = &segment,
        .segment_count = 1,
        .len = 4000,
    };

    assert_non_null(buffer);
    memset(buffer->data, 0, 4000);
    (void)stack_udp_output(lab->stack, &output);
    culvert_buffer_unref(buffer);
}

static void nth_and_later_objects_missing(unsigned n, uint64_t *ret_losses)
{
    char mode[32];
    struct lab *lab;

    snprintf(mode, sizeof mode, "poison,fail=%u", n);
    setenv("CULVERT_POOL", mode, 1);
    lab = lab_new();
    unsetenv("CULVERT_POOL");
    lab->refuse_udp = true;
    for (unsigned round = 0; round < 2; round++) {
        ask_who_has(lab);
        ping(lab, false);
        ping(lab, true);
        solicit_router(lab);
        discover(lab);
        send_fragments(lab);
        output_udp(lab);
        lab_forget(lab);
    }
    *ret_losses =
        lab_counter(lab, COUNTER_link_no_memory) + lab_counter(lab, COUNTER_icmp_no_memory) +
        lab_counter(lab, COUNTER_udp_no_memory) + lab_counter(lab, COUNTER_reassembly_no_memory);
    assert_int_equal(pool_in_use(lab->stack->frames), 0);
    lab_free(lab);
}

static void every_missing_object_costs_its_packet_alone(void **state)
{
    uint64_t before = UINT64_MAX, losses = 0;

    (void)state;
    for (unsigned n = 1; n <= 40; n++) {
        nth_and_later_objects_missing(n, &losses);
        assert_true(losses <= before);
        before = losses;
    }
    assert_int_equal(losses, 0);
    nth_and_later_objects_missing(1, &losses);
    assert_int_equal(losses, 16); /* two rounds of eight frames */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_missing_object_costs_its_packet_alone),
    };

    return RUN_TESTS(tests);
}
