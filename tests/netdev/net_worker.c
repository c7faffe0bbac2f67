/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/net_worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tap_guest.h"

struct fixture {
    char name[IF_NAMESIZE];
    struct culvert_shared_state *state;
    struct net_worker *worker;
    int guest;
};

static bool allowed;

static struct fixture *fixture_new(size_t capacity)
{
    struct fixture *f;
    int fd;

    if (!allowed)
        skip();
    f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->state = culvert_shared_state_new(capacity);
    assert_non_null(f->state);
    fd = tap_open("", 0, f->name);
    assert_true(fd >= 0);
    set_up(f->name, true, 1500);
    f->guest = guest_open(f->name);
    f->worker = net_worker_start(f->state, fd, 1500);
    assert_non_null(f->worker);
    return f;
}

static void fixture_free(struct fixture *f)
{
    net_worker_stop(f->worker);
    culvert_shared_state_free(f->state);
    close(f->guest);
    free(f);
}

/* The next transmitted frame, or NULL after a second. */
static struct culvert_frame *next_frame(struct fixture *f)
{
    struct pollfd fd = {.fd = culvert_wake_fd(&f->state->tx_wake), .events = POLLIN};

    for (;;) {
        struct culvert_frame *frame = culvert_ring_pop(&f->state->tx_ring);
        if (frame)
            return frame;
        if (poll(&fd, 1, 1000) <= 0)
            return NULL;
        culvert_wake_drain(&f->state->tx_wake);
    }
}

static void guest_sends(struct fixture *f, uint32_t first, uint32_t count)
{
    const struct culvert_offload plain = {0};
    uint8_t bytes[100];

    for (uint32_t i = first; i < first + count; i++)
        guest_send(f->guest, &plain, bytes, numbered(bytes, sizeof bytes, i));
}

static void expect_frames(struct fixture *f, uint32_t first, uint32_t count)
{
    uint8_t bytes[100];

    for (uint32_t i = first; i < first + count; i++) {
        struct culvert_frame *frame = next_frame(f);
        assert_non_null(frame);
        numbered(bytes, sizeof bytes, i);
        assert_int_equal(frame->len, sizeof bytes);
        assert_memory_equal(frame->data, bytes, sizeof bytes);
        culvert_frame_unref(frame);
    }
}

static void the_link_is_described_before_the_first_frame(void **state)
{
    struct fixture *f = fixture_new(16);
    struct culvert_link link;

    (void)state;
    culvert_shared_state_link(f->state, &link);
    assert_true(link.up);
    assert_int_equal(link.mtu, 1500);
    assert_true(link.offloads & CULVERT_LINK_TSO4);
    assert_true(link.generation > 0);
    fixture_free(f);
}

static void the_guests_frames_come_out_in_order(void **state)
{
    struct fixture *f = fixture_new(64);

    (void)state;
    for (uint32_t i = 0; i < 50; i++) {
        guest_sends(f, i * 20, 20);
        expect_frames(f, i * 20, 20);
    }
    assert_int_equal(culvert_shared_state_tx_bytes(f->state), 50 * 20 * 100);
    fixture_free(f);
}

static void a_full_ring_of_one_loses_nothing(void **state)
{
    struct fixture *f = fixture_new(1);

    (void)state;
    guest_sends(f, 0, 200); /* the device's own queue holds them */
    expect_frames(f, 0, 200);
    guest_sends(f, 200, 200);
    expect_frames(f, 200, 200);
    fixture_free(f);
}

static void push(struct fixture *f, uint32_t number)
{
    struct culvert_frame *frame = culvert_frame_new(100);
    struct pollfd fd = {.fd = culvert_wake_fd(&f->state->tx_wake), .events = POLLIN};

    assert_non_null(frame);
    frame->len = numbered(frame->data, 100, number);
    while (!culvert_ring_push(&f->state->rx_ring, frame)) {
        culvert_wake_signal(&f->state->rx_wake);
        assert_true(poll(&fd, 1, 1000) > 0);
        culvert_wake_drain(&f->state->tx_wake);
    }
    culvert_wake_signal(&f->state->rx_wake);
}

static void frames_for_the_guest_arrive_in_order(void **state)
{
    for (size_t capacity = 1; capacity <= 32; capacity += 31) {
        struct fixture *f = fixture_new(capacity);
        struct culvert_offload offload;
        uint8_t got[200], want[100];

        (void)state;
        for (uint32_t i = 0; i < 500; i++)
            push(f, i);
        for (uint32_t i = 0; i < 500; i++) {
            assert_int_equal(guest_receive(f->guest, 1000, &offload, got, sizeof got), 100);
            numbered(want, 100, i);
            assert_memory_equal(got, want, 100);
        }
        fixture_free(f);
    }
}

static void both_directions_at_once_lose_nothing(void **state)
{
    struct fixture *f = fixture_new(7);
    struct culvert_offload offload;
    uint8_t got[200];

    (void)state;
    for (uint32_t round = 0; round < 300; round++) {
        guest_sends(f, round * 5, 5);
        for (uint32_t i = 0; i < 5; i++) {
            struct culvert_frame *frame = next_frame(f);
            assert_non_null(frame);
            assert_int_equal(load_be32(frame->data + 14), round * 5 + i);
            assert_true(culvert_ring_push(&f->state->rx_ring, frame));
            culvert_wake_signal(&f->state->rx_wake);
        }
        for (uint32_t i = 0; i < 5; i++) {
            assert_int_equal(guest_receive(f->guest, 1000, &offload, got, sizeof got), 100);
            assert_int_equal(load_be32(got + 14), round * 5 + i);
        }
    }
    fixture_free(f);
}

static void a_worker_with_its_hands_full_stops_at_once(void **state)
{
    struct fixture *f = fixture_new(1);

    (void)state;
    guest_sends(f, 0, 100);
    assert_non_null(f->worker);
    fixture_free(f);
}

static void a_stopped_worker_leaves_the_link_down(void **state)
{
    struct fixture *f = fixture_new(4);
    struct culvert_link link;

    (void)state;
    f->worker = net_worker_stop(f->worker);
    assert_null(f->worker);
    culvert_shared_state_link(f->state, &link);
    assert_false(link.up);
    fixture_free(f);
}

static void a_device_that_disappears_takes_the_link_down(void **state)
{
    struct fixture *f = fixture_new(4);
    struct pollfd fd = {.fd = culvert_wake_fd(&f->state->tx_wake), .events = POLLIN};
    struct culvert_link link = {.up = true};

    (void)state;
    delete_device(f->name);
    while (link.up) {
        assert_true(poll(&fd, 1, 1000) > 0);
        culvert_wake_drain(&f->state->tx_wake);
        culvert_shared_state_link(f->state, &link);
    }
    push(f, 0); /* nobody's any more, but taken */
    fixture_free(f);
}

static void a_descriptor_that_is_no_tap_is_refused(void **state)
{
    struct culvert_shared_state *s = culvert_shared_state_new(4);
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)state;
    assert_null(net_worker_start(s, fd, 1500));
    assert_int_equal(close(fd), 0); /* still ours */
    culvert_shared_state_free(s);
    assert_null(net_worker_stop(NULL));
}

static int enter(void **state)
{
    (void)state;
    allowed = enter_namespace();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_link_is_described_before_the_first_frame),
        cmocka_unit_test(the_guests_frames_come_out_in_order),
        cmocka_unit_test(a_full_ring_of_one_loses_nothing),
        cmocka_unit_test(frames_for_the_guest_arrive_in_order),
        cmocka_unit_test(both_directions_at_once_lose_nothing),
        cmocka_unit_test(a_worker_with_its_hands_full_stops_at_once),
        cmocka_unit_test(a_stopped_worker_leaves_the_link_down),
        cmocka_unit_test(a_device_that_disappears_takes_the_link_down),
        cmocka_unit_test(a_descriptor_that_is_no_tap_is_refused),
    };
    return cmocka_run_group_tests(tests, enter, NULL);
}
