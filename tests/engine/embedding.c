/* SPDX-License-Identifier: Apache-2.0 */
/* The library in somebody else's process: through the public API alone, with a guest that writes
 * its frames by hand. */

#include "paper_guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void an_engine_that_never_started_is_stopped_and_freed(void **state)
{
    struct guest guest;

    (void)state;
    guest_begin(&guest, 0, NULL);
    stops_promptly(&guest);
    assert_null(culvert_engine_free(NULL));
}

static void an_idle_engine_stops_promptly(void **state)
{
    struct guest guest;

    (void)state;
    guest_start(&guest, 0, NULL);
    gateway_answers(&guest);
    usleep(50000);
    stops_promptly(&guest);
}

static void an_engine_may_be_started_again(void **state)
{
    struct guest guest;

    (void)state;
    guest_start(&guest, 0, NULL);
    assert_int_equal(culvert_engine_start(guest.engine), -EALREADY);
    gateway_answers(&guest);
    assert_int_equal(culvert_engine_stop(guest.engine), 0);
    assert_int_equal(culvert_engine_stop(guest.engine), 0);
    assert_int_equal(culvert_engine_start(guest.engine), 0);
    gateway_answers(&guest);
    stops_promptly(&guest);
}

static void an_engine_whose_guest_reads_nothing_stops_promptly(void **state)
{
    struct guest guest;

    (void)state;
    guest_start(&guest, 0, NULL);
    for (uint64_t limit = now_ms() + 5000; now_ms() < limit;) {
        ask_for_gateway(&guest); /* until the rings are full both ways */
        if (culvert_ring_len(&guest.state->rx_ring) == culvert_ring_capacity(&guest.state->rx_ring))
            break;
    }
    assert_int_equal(culvert_ring_len(&guest.state->rx_ring),
                     culvert_ring_capacity(&guest.state->rx_ring));
    stops_promptly(&guest);
}

/* A listener whose queue is full answers no SYN. */
static void an_engine_that_is_connecting_stops_promptly(void **state)
{
    uint16_t port;
    int listener = listen_on_loopback(0, &port), full[4];
    struct guest guest;

    (void)state;
    for (int i = 0; i < 4; i++)
        full[i] = connect_to_loopback(port, SOCK_NONBLOCK);
    guest_start(&guest, 0, NULL);
    gateway_answers(&guest);
    send_segment(&guest, 1000, port, 2, 7, 0);
    usleep(20000);
    assert_null(culvert_ring_pop(&guest.state->rx_ring));
    stops_promptly(&guest);
    for (int i = 0; i < 4; i++)
        close(full[i]);
    close(listener);
}

static void connections_are_reset_when_the_engine_ends(void **state)
{
    struct culvert_frame *frame;
    struct guest guest;
    uint16_t port;
    int listener = listen_on_loopback(8, &port), peer;
    uint32_t their_seq;
    char byte;

    (void)state;
    guest_start(&guest, 0, NULL);
    gateway_answers(&guest);
    send_segment(&guest, 1000, port, 2, 7, 0); /* SYN */
    frame = await_frame(&guest, 0x0800);
    assert_int_equal(frame->data[47], 0x12); /* SYN, ACK */
    memcpy(&their_seq, frame->data + 38, 4);
    culvert_frame_unref(frame);
    send_segment(&guest, 1000, port, 0x10, 8, ntohl(their_seq) + 1);
    peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    assert_int_equal(send(peer, "unread", 6, 0), 6);
    stops_promptly(&guest);
    assert_int_equal(recv(peer, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(peer);
    close(listener);
}

static void clients_of_published_ports_are_reset_when_the_engine_ends(void **state)
{
    const uint16_t port = free_port();
    struct culvert_frame *frame;
    struct guest guest;
    char text[32], byte;
    int client;

    (void)state;
    snprintf(text, sizeof text, "%d:80", port);
    guest_start(&guest, 0, text);
    client = connect_to_loopback(port, 0);
    frame = await_frame(&guest, 0x0800);
    assert_int_equal(frame->data[47], 2); /* the SYN for the guest, who does not answer */
    culvert_frame_unref(frame);
    stops_promptly(&guest);
    assert_int_equal(recv(client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
}

static void a_guest_that_is_not_plugged_in_yet_resets_its_clients(void **state)
{
    const uint16_t port = free_port();
    struct guest guest;
    char text[32], byte;
    int client;

    (void)state;
    snprintf(text, sizeof text, "%d:80", port);
    guest_begin(&guest, 0, text);
    assert_int_equal(culvert_engine_start(guest.engine), 0);
    client = connect_to_loopback(port, 0);
    assert_int_equal(recv(client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
    guest_plug(&guest);
    gateway_answers(&guest);
    client = connect_to_loopback(port, 0);
    culvert_frame_unref(await_frame(&guest, 0x0800));
    close(client);
    stops_promptly(&guest);
}

static void a_port_that_is_taken_is_told_when_the_engine_is_made(void **state)
{
    struct culvert_config *config = culvert_config_new();
    struct culvert_error error = {""};
    uint16_t port;
    int listener = listen_on_loopback(1, &port);
    char text[32];

    (void)state;
    snprintf(text, sizeof text, "%d:80", port);
    assert_int_equal(culvert_config_set(config, "publish", text, &error), 0);
    assert_null(culvert_engine_new(config, &error));
    assert_int_equal(errno, EADDRINUSE);
    assert_non_null(strstr(error.message, "choose another port"));
    assert_null(culvert_engine_new(config, NULL));
    culvert_config_free(config);
    close(listener);
}

static void count_arp(void *arg, const char *name, const char *sentence, uint64_t value)
{
    uint64_t *frames = arg;

    assert_true(strlen(sentence) > 0);
    if (strcmp(name, "netdev_frames_in") == 0)
        *frames = value;
}

static void two_engines_live_in_one_process(void **state)
{
    struct guest guests[2];
    uint64_t frames[2] = {0, 0};

    (void)state;
    guest_start(&guests[0], 10, NULL);
    guest_start(&guests[1], 11, NULL);
    for (int i = 0; i < 3; i++)
        gateway_answers(&guests[0]);
    gateway_answers(&guests[1]);
    for (int i = 0; i < 2; i++)
        culvert_engine_counters(guests[i].engine, count_arp, &frames[i]);
    assert_int_equal(frames[0], 3);
    assert_int_equal(frames[1], 1);
    stops_promptly(&guests[0]);
    gateway_answers(&guests[1]); /* one's end is not the other's */
    stops_promptly(&guests[1]);
}

static void engines_come_and_go_and_leave_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct guest guest;

        guest_start(&guest, (uint8_t)i, NULL);
        for (int j = 0; j < i; j++)
            ask_for_gateway(&guest);
        stops_promptly(&guest);
    }
}

/* What libraries and sanitizers keep for good, they have from here on. */
static int warm_up(void **state)
{
    struct guest guest;

    (void)state;
    guest_start(&guest, 0, NULL);
    stops_promptly(&guest);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, count_what_there_is, nothing_is_left)
        TEST(an_engine_that_never_started_is_stopped_and_freed),
        TEST(an_idle_engine_stops_promptly),
        TEST(an_engine_may_be_started_again),
        TEST(an_engine_whose_guest_reads_nothing_stops_promptly),
        TEST(an_engine_that_is_connecting_stops_promptly),
        TEST(connections_are_reset_when_the_engine_ends),
        TEST(clients_of_published_ports_are_reset_when_the_engine_ends),
        TEST(a_guest_that_is_not_plugged_in_yet_resets_its_clients),
        TEST(a_port_that_is_taken_is_told_when_the_engine_is_made),
        TEST(two_engines_live_in_one_process),
        TEST(engines_come_and_go_and_leave_nothing),
    };

    return cmocka_run_group_tests(tests, warm_up, NULL);
}
