/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "netdev/netdev.h"
#include "packets.h"

struct fixture {
    struct culvert_shared_state *state;
    struct loop loop;
    struct counters counters;
    struct netdev *netdev;
    int readable, writable, link_changed;
};

static void note_readable(void *ctx)
{
    ((struct fixture *)ctx)->readable++;
}

static void note_writable(void *ctx)
{
    ((struct fixture *)ctx)->writable++;
}

static void note_link_changed(void *ctx)
{
    ((struct fixture *)ctx)->link_changed++;
}

static struct fixture *fixture_new(size_t capacity)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->state = culvert_shared_state_new(capacity);
    assert_non_null(f->state);
    assert_int_equal(loop_init(&f->loop), 0);
    f->netdev = netdev_ring_new(f->state, &f->loop, &f->counters);
    assert_non_null(f->netdev);
    f->netdev->ctx = f;
    f->netdev->readable = note_readable;
    f->netdev->writable = note_writable;
    f->netdev->link_changed = note_link_changed;
    return f;
}

static void fixture_free(struct fixture *f)
{
    f->netdev->ops->free(f->netdev);
    loop_fini(&f->loop);
    culvert_shared_state_free(f->state);
    free(f);
}

static struct culvert_frame *frame_of_len(size_t len)
{
    struct culvert_frame *frame = culvert_frame_new(len);

    assert_non_null(frame);
    memset(frame->data, 0, len);
    frame->len = len;
    return frame;
}

static int send_len(struct fixture *f, size_t len)
{
    struct culvert_frame *frame = frame_of_len(len);
    int r = f->netdev->ops->send(f->netdev, frame);

    if (r == -EAGAIN)
        culvert_frame_unref(frame);
    return r;
}

static void transmit(struct fixture *f, size_t len)
{
    assert_true(culvert_ring_push(&f->state->tx_ring, frame_of_len(len)));
    culvert_wake_signal(&f->state->tx_wake);
}

static int receive_and_release(struct fixture *f)
{
    struct culvert_frame *frames[16];
    int n = f->netdev->ops->receive(f->netdev, frames, 16);

    for (int i = 0; i < n; i++)
        culvert_frame_unref(frames[i]);
    return n;
}

static int poll_once(struct fixture *f)
{
    return loop_wait(&f->loop, 0, 0);
}

static void set_link(struct fixture *f, uint32_t offloads, bool up)
{
    const struct culvert_link link = {.offloads = offloads, .mtu = 1500, .up = up};
    culvert_shared_state_set_link(f->state, &link);
}

static void a_transmitted_frame_wakes_the_loop_and_is_received(void **state)
{
    struct fixture *f = fixture_new(4);

    (void)state;
    assert_int_equal(poll_once(f), 0);
    transmit(f, 60);
    transmit(f, 70);
    assert_int_equal(poll_once(f), 1);
    assert_int_equal(f->readable, 1);
    assert_int_equal(receive_and_release(f), 2);
    assert_int_equal(receive_and_release(f), 0);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_frames_in), 2);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_bytes_in), 130);
    fixture_free(f);
}

static void a_frame_that_comes_before_sleep_is_noticed_without_a_descriptor(void **state)
{
    struct fixture *f = fixture_new(4);

    (void)state;
    assert_int_equal(receive_and_release(f), 0); /* awake now */
    transmit(f, 60);
    assert_int_equal(poll_once(f), 0);
    assert_true(f->netdev->ops->will_sleep(f->netdev));
    assert_int_equal(receive_and_release(f), 1);
    (void)f->netdev->ops->will_sleep(f->netdev); /* the signal itself may be left */
    assert_false(f->netdev->ops->will_sleep(f->netdev));
    transmit(f, 60);
    assert_int_equal(poll_once(f), 1);
    assert_int_equal(f->readable, 1);
    fixture_free(f);
}

static void an_idle_netdev_lets_the_loop_sleep(void **state)
{
    struct fixture *f = fixture_new(4);

    (void)state;
    assert_false(f->netdev->ops->will_sleep(f->netdev));
    assert_int_equal(receive_and_release(f), 0);
    assert_false(f->netdev->ops->will_sleep(f->netdev));
    assert_false(f->netdev->ops->will_sleep(f->netdev));
    assert_int_equal(poll_once(f), 0);
    fixture_free(f);
}

static void bad_frames_never_reach_the_stack(void **state)
{
    struct fixture *f = fixture_new(4);
    struct culvert_frame *frame = frame_of_len(60);

    (void)state;
    frame->offload.flags = CULVERT_OFFLOAD_NEEDS_CSUM;
    frame->offload.csum_start = 59;
    assert_true(culvert_ring_push(&f->state->tx_ring, frame));
    transmit(f, 3);
    transmit(f, 60);
    assert_int_equal(receive_and_release(f), 1);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_bad_offload), 1);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_runt), 1);
    fixture_free(f);
}

static bool is_signalled(struct culvert_wake *wake)
{
    uint64_t n;
    bool signalled = read(culvert_wake_fd(wake), &n, sizeof n) == sizeof n;

    culvert_wake_drain(wake);
    return signalled;
}

static void a_batch_is_announced_once_at_its_end(void **state)
{
    struct fixture *f = fixture_new(8);

    (void)state;
    set_link(f, 0, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(send_len(f, 100), 0);
    assert_false(is_signalled(&f->state->rx_wake));
    f->netdev->ops->flush(f->netdev);
    assert_true(is_signalled(&f->state->rx_wake));
    f->netdev->ops->flush(f->netdev);
    assert_false(is_signalled(&f->state->rx_wake));
    assert_int_equal(culvert_ring_len(&f->state->rx_ring), 3);
    assert_int_equal(culvert_shared_state_rx_bytes(f->state), 300);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_bytes_out), 300);
    fixture_free(f);
}

static void a_full_ring_holds_the_sender_until_there_is_room(void **state)
{
    for (size_t capacity = 1; capacity <= 3; capacity++) {
        struct fixture *f = fixture_new(capacity);

        (void)state;
        for (size_t i = 0; i < capacity; i++)
            assert_int_equal(send_len(f, 100), 0);
        assert_int_equal(send_len(f, 100), -EAGAIN);
        assert_true(is_signalled(&f->state->rx_wake)); /* at once, without a flush */
        assert_int_equal(culvert_shared_state_rx_bytes(f->state), 100 * capacity);
        assert_int_equal(counter_value(&f->counters, COUNTER_netdev_full), 1);
        assert_int_equal(poll_once(f), 0);
        assert_int_equal(f->writable, 0);

        culvert_frame_unref(culvert_ring_pop(&f->state->rx_ring));
        assert_int_equal(poll_once(f), 1);
        assert_int_equal(f->writable, 1);
        assert_int_equal(send_len(f, 100), 0);
        fixture_free(f);
    }
}

static void room_that_comes_while_awake_is_noticed_before_sleep(void **state)
{
    struct fixture *f = fixture_new(1);

    (void)state;
    assert_int_equal(receive_and_release(f), 0);
    assert_int_equal(send_len(f, 100), 0);
    assert_int_equal(send_len(f, 100), -EAGAIN);
    culvert_frame_unref(culvert_ring_pop(&f->state->rx_ring));
    assert_true(f->netdev->ops->will_sleep(f->netdev));
    assert_int_equal(receive_and_release(f), 0);
    assert_int_equal(f->writable, 1);
    fixture_free(f);
}

static void a_new_link_is_taken_over_at_any_time(void **state)
{
    struct fixture *f = fixture_new(4);

    (void)state;
    set_link(f, CULVERT_LINK_CSUM, true);
    assert_int_equal(poll_once(f), 1);
    assert_int_equal(f->link_changed, 1);
    assert_int_equal(f->netdev->link.offloads, CULVERT_LINK_CSUM);
    assert_int_equal(receive_and_release(f), 0);
    assert_int_equal(f->link_changed, 1);
    set_link(f, CULVERT_LINK_TSO4, true); /* while awake: no event */
    assert_int_equal(receive_and_release(f), 0);
    assert_int_equal(f->link_changed, 2);
    assert_int_equal(f->netdev->link.offloads, CULVERT_LINK_TSO4);
    fixture_free(f);
}

static void frames_for_a_link_that_is_down_are_dropped_and_counted(void **state)
{
    struct fixture *f = fixture_new(4);

    (void)state;
    assert_int_equal(send_len(f, 100), 0); /* nobody has said anything yet: it waits */
    assert_int_equal(culvert_ring_len(&f->state->rx_ring), 1);
    set_link(f, 0, false);
    assert_int_equal(poll_once(f), 1);
    assert_int_equal(send_len(f, 100), 0);
    assert_int_equal(culvert_ring_len(&f->state->rx_ring), 1);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_link_down), 1);
    fixture_free(f);
}

static const struct shape super = {
    .protocol = IPPROTO_TCP, .payload = 14480, .piece = 14480, .gso_size = 1448, .tcp_flags = 0x10};

static void super_segments_are_cut_for_a_link_that_does_not_take_them(void **state)
{
    struct fixture *f = fixture_new(32);

    (void)state;
    set_link(f, CULVERT_LINK_CSUM | CULVERT_LINK_TSO4, true);
    assert_int_equal(poll_once(f), 1);
    assert_int_equal(f->netdev->ops->send(f->netdev, frame_of_shape(&super)), 0);
    assert_int_equal(culvert_ring_len(&f->state->rx_ring), 1);
    set_link(f, 0, true);
    assert_int_equal(receive_and_release(f), 0); /* looks around */
    assert_int_equal(f->netdev->ops->send(f->netdev, frame_of_shape(&super)), 0);
    assert_int_equal(culvert_ring_len(&f->state->rx_ring), 11);
    assert_int_equal(culvert_shared_state_rx_bytes(f->state), 54 + 14480 + 10 * (54 + 1448));
    fixture_free(f);
}

static void segments_go_on_through_a_ring_of_one(void **state)
{
    struct fixture *f = fixture_new(1);
    int popped = 0;

    (void)state;
    set_link(f, 0, true);
    assert_int_equal(poll_once(f), 1);
    assert_int_equal(f->netdev->ops->send(f->netdev, frame_of_shape(&super)), 0);
    while (f->writable == 0) {
        struct culvert_frame *frame = culvert_ring_pop(&f->state->rx_ring);
        assert_non_null(frame);
        culvert_frame_unref(frame);
        popped++;
        if (!f->netdev->ops->will_sleep(f->netdev))
            (void)poll_once(f);
        (void)receive_and_release(f);
    }
    assert_int_equal(popped, 9);
    assert_int_equal(culvert_ring_len(&f->state->rx_ring), 1);
    fixture_free(f);
}

/* ---- with a NetWorker in a thread of its own ---- */

#define ECHOES 20000

struct echo {
    struct culvert_shared_state *state;
    unsigned seen;
};

/* Gives back what it receives. */
static void *echo_worker(void *arg)
{
    struct echo *echo = arg;
    struct culvert_shared_state *s = echo->state;

    while (echo->seen < ECHOES) {
        struct culvert_frame *frame;
        struct pollfd fd = {.fd = culvert_wake_fd(&s->rx_wake), .events = POLLIN};

        assert_true(poll(&fd, 1, 10000) > 0);
        culvert_wake_drain(&s->rx_wake);
        while ((frame = culvert_ring_pop(&s->rx_ring))) {
            while (!culvert_ring_push(&s->tx_ring, frame)) {
                culvert_wake_signal(&s->tx_wake);
                assert_true(poll(&fd, 1, 10000) > 0);
                culvert_wake_drain(&s->rx_wake);
            }
            echo->seen++;
        }
        culvert_wake_signal(&s->tx_wake);
    }
    return NULL;
}

static int receive_numbered(struct fixture *f, uint32_t *next)
{
    struct culvert_frame *frames[16];
    int n = f->netdev->ops->receive(f->netdev, frames, 16);

    for (int i = 0; i < n; i++) {
        assert_int_equal(load_be32(frames[i]->data), *next);
        (*next)++;
        culvert_frame_unref(frames[i]);
    }
    return n;
}

static void no_frame_and_no_wakeup_is_lost_between_threads(void **state)
{
    struct fixture *f = fixture_new(5);
    struct echo echo = {.state = f->state};
    struct culvert_frame *next = NULL;
    uint32_t sent = 0, received = 0;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, echo_worker, &echo), 0);
    while (received < ECHOES) {
        for (int i = 0; i < 7 && sent < ECHOES; i++) {
            if (!next) {
                next = frame_of_len(60);
                store_be32(next->data, sent);
            }
            if (f->netdev->ops->send(f->netdev, next) == -EAGAIN)
                break;
            next = NULL;
            sent++;
        }
        f->netdev->ops->flush(f->netdev);
        while (receive_numbered(f, &received) > 0)
            ;
        bool waiting = sent == ECHOES || next;
        if (!f->netdev->ops->will_sleep(f->netdev) && waiting && received < ECHOES)
            assert_true(loop_wait(&f->loop, 0, UINT64_C(10000000000)) > 0);
    }
    pthread_join(thread, NULL);
    assert_int_equal(echo.seen, ECHOES);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transmitted_frame_wakes_the_loop_and_is_received),
        cmocka_unit_test(a_frame_that_comes_before_sleep_is_noticed_without_a_descriptor),
        cmocka_unit_test(an_idle_netdev_lets_the_loop_sleep),
        cmocka_unit_test(bad_frames_never_reach_the_stack),
        cmocka_unit_test(a_batch_is_announced_once_at_its_end),
        cmocka_unit_test(a_full_ring_holds_the_sender_until_there_is_room),
        cmocka_unit_test(room_that_comes_while_awake_is_noticed_before_sleep),
        cmocka_unit_test(a_new_link_is_taken_over_at_any_time),
        cmocka_unit_test(frames_for_a_link_that_is_down_are_dropped_and_counted),
        cmocka_unit_test(super_segments_are_cut_for_a_link_that_does_not_take_them),
        cmocka_unit_test(segments_go_on_through_a_ring_of_one),
        cmocka_unit_test(no_frame_and_no_wakeup_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
