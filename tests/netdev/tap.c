/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev/tap.h"

#include <linux/if_tun.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "netdev/netdev.h"
#include "packets.h"
#include "tap_guest.h"

#define ALL_TCP (CULVERT_LINK_CSUM | CULVERT_LINK_TSO4 | CULVERT_LINK_TSO6 | CULVERT_LINK_ECN)

struct fixture {
    char name[IF_NAMESIZE];
    struct loop loop;
    struct counters counters;
    struct netdev *netdev;
    int guest;
    int readable, writable;
};

static bool allowed;

static void note_readable(void *ctx)
{
    ((struct fixture *)ctx)->readable++;
}

static void note_writable(void *ctx)
{
    ((struct fixture *)ctx)->writable++;
}

static struct fixture *fixture_new(int mtu)
{
    struct fixture *f;
    int fd;

    if (!allowed)
        skip();
    f = calloc(1, sizeof *f);
    assert_non_null(f);
    fd = tap_open("", 0, f->name);
    assert_true(fd >= 0);
    assert_int_equal(loop_init(&f->loop), 0);
    f->netdev = netdev_tap_new(fd, (uint32_t)mtu, &f->loop, &f->counters);
    assert_non_null(f->netdev);
    f->netdev->ctx = f;
    f->netdev->readable = note_readable;
    f->netdev->writable = note_writable;
    set_up(f->name, true, mtu);
    f->guest = guest_open(f->name);
    return f;
}

static void fixture_free(struct fixture *f)
{
    f->netdev->ops->free(f->netdev);
    loop_fini(&f->loop);
    close(f->guest);
    free(f);
}

static int receive(struct fixture *f, struct culvert_frame **frames, int max)
{
    return f->netdev->ops->receive(f->netdev, frames, max);
}

static void send_frame(struct fixture *f, struct culvert_frame *frame)
{
    assert_int_equal(f->netdev->ops->send(f->netdev, frame), 0);
}

static void a_tap_is_opened_with_the_name_that_is_asked_for(void **state)
{
    char name[IF_NAMESIZE];
    int fd;

    (void)state;
    if (!allowed)
        skip();
    fd = tap_open("wanted0", 0, name);
    assert_true(fd >= 0);
    assert_string_equal(name, "wanted0");
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(tap_open("wanted0", 0, NULL), -EBUSY);
    assert_int_equal(tap_open("a-name-much-too-long", 0, NULL), -ENAMETOOLONG);
    close(fd);
}

static void descriptors_that_are_no_tap_are_refused(void **state)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    struct counters counters = {0};
    struct loop loop;
    uint32_t offloads;
    int fd;

    (void)state;
    if (!allowed)
        skip();
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(tap_configure(fd, &offloads) < 0);
    assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
    assert_int_equal(tap_configure(fd, &offloads), -EINVAL);
    assert_int_equal(loop_init(&loop), 0);
    assert_null(netdev_tap_new(fd, 1500, &loop, &counters));
    assert_int_equal(errno, EINVAL);
    loop_fini(&loop);
    close(fd); /* still ours */
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(tap_configure(fd, &offloads) < 0);
    close(fd);
}

static void the_link_takes_every_tcp_offload(void **state)
{
    struct fixture *f = fixture_new(1500);

    (void)state;
    assert_int_equal(f->netdev->link.offloads & ALL_TCP, ALL_TCP);
    assert_true(f->netdev->link.up);
    assert_int_equal(f->netdev->link.mtu, 1500);
    fixture_free(f);
}

static void small_frames_are_received_in_order_and_linear(void **state)
{
    const struct culvert_offload plain = {0};
    struct culvert_frame *frames[64];
    struct fixture *f = fixture_new(1500);
    uint8_t bytes[1514];

    (void)state;
    assert_int_equal(receive(f, frames, 64), 0);
    for (uint32_t i = 0; i < 100; i++)
        guest_send(f->guest, &plain, bytes, numbered(bytes, 60 + 14 * i, i));
    assert_int_equal(loop_wait(&f->loop, 0, 0), 1);
    assert_int_equal(f->readable, 1);
    assert_int_equal(receive(f, frames, 64), 64);
    for (uint32_t i = 0; i < 100; i++) {
        if (i == 64)
            assert_int_equal(receive(f, frames, 64), 36);
        struct culvert_frame *frame = frames[i % 64];
        assert_int_equal(frame->segment_count, 0);
        assert_int_equal(frame->len, 60 + 14 * i);
        numbered(bytes, frame->len, i);
        assert_memory_equal(frame->data, bytes, frame->len);
        culvert_frame_unref(frame);
    }
    assert_int_equal(receive(f, frames, 64), 0);
    assert_int_equal(loop_wait(&f->loop, 0, 0), 0);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_frames_in), 100);
    fixture_free(f);
}

static void check_super_segment_from_guest(struct fixture *f, bool v6)
{
    static uint8_t sent[CULVERT_FRAME_MAX], got[CULVERT_FRAME_MAX];
    const struct shape s = {.v6 = v6,
                            .protocol = IPPROTO_TCP,
                            .tcp_options = 12,
                            .payload = 40000,
                            .linear = 40000,
                            .gso_size = 1400,
                            .tcp_flags = 0x10};
    struct culvert_frame *made = frame_of_shape(&s), *frame;
    size_t len = frame_flatten(made, sent, sizeof sent);

    guest_send(f->guest, &made->offload, sent, len);
    assert_int_equal(receive(f, &frame, 1), 1);
    assert_int_equal(frame->segment_count, 1);
    assert_int_equal(frame_flatten(frame, got, sizeof got), len);
    assert_memory_equal(got, sent, len);
    assert_int_equal(frame->offload.gso_type, made->offload.gso_type);
    assert_int_equal(frame->offload.gso_size, 1400);
    assert_int_equal(frame->offload.flags, CULVERT_OFFLOAD_NEEDS_CSUM);
    assert_int_equal(frame->offload.csum_start, shape_transport(&s));
    assert_int_equal(frame->offload.csum_offset, 16);
    assert_int_equal(frame->offload.hdr_len, shape_header(&s));
    culvert_frame_unref(frame);
    culvert_frame_unref(made);
}

static void super_segments_come_whole_from_the_guest(void **state)
{
    struct fixture *f = fixture_new(1500);

    (void)state;
    for (int i = 0; i < 3; i++) {
        check_super_segment_from_guest(f, false);
        check_super_segment_from_guest(f, true);
    }
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_bad_offload), 0);
    fixture_free(f);
}

static void the_largest_mtu_passes_both_ways(void **state)
{
    static uint8_t sent[65534], got[CULVERT_FRAME_MAX];
    const struct culvert_offload plain = {0};
    struct culvert_offload offload;
    struct fixture *f = fixture_new(65520);
    struct culvert_frame *frame;

    (void)state;
    guest_send(f->guest, &plain, sent, numbered(sent, 65534, 1));
    assert_int_equal(receive(f, &frame, 1), 1);
    assert_int_equal(frame_flatten(frame, got, sizeof got), 65534);
    assert_memory_equal(got, sent, 65534);
    send_frame(f, frame); /* back as it is, from our buffers */
    assert_int_equal(guest_receive(f->guest, 1000, &offload, got, sizeof got), 65534);
    assert_memory_equal(got, sent, 65534);
    fixture_free(f);
}

static void super_segments_go_whole_to_the_guest(void **state)
{
    static uint8_t want[CULVERT_FRAME_MAX], got[CULVERT_FRAME_MAX];
    struct fixture *f = fixture_new(1500);
    struct culvert_offload offload;

    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        const struct shape s = {.v6 = v6,
                                .protocol = IPPROTO_TCP,
                                .payload = 60000,
                                .piece = 16384,
                                .gso_size = 1448,
                                .tcp_flags = 0x10};
        struct culvert_frame *frame = frame_of_shape(&s);
        size_t len = frame_flatten(frame, want, sizeof want);

        send_frame(f, frame);
        assert_int_equal(guest_receive(f->guest, 1000, &offload, got, sizeof got), len);
        assert_memory_equal(got, want, len);
        assert_int_equal(offload.gso_size, 1448);
        assert_int_equal(offload.flags & CULVERT_OFFLOAD_NEEDS_CSUM, 1);
    }
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_frames_out), 2);
    fixture_free(f);
}

static void a_link_without_offloads_gets_segments_with_checksums(void **state)
{
    static uint8_t got[CULVERT_FRAME_MAX];
    const struct shape s = {.protocol = IPPROTO_TCP,
                            .payload = 30000,
                            .piece = 30000,
                            .gso_size = 1448,
                            .tcp_flags = 0x10};
    struct fixture *f = fixture_new(1500);
    struct culvert_offload offload;
    size_t done = 0, header = shape_header(&s), transport = shape_transport(&s), len;

    (void)state;
    f->netdev->link.offloads = 0;
    send_frame(f, frame_of_shape(&s));
    while (done < s.payload) {
        len = guest_receive(f->guest, 1000, &offload, got, sizeof got);
        assert_true(len > header && len <= 1514);
        assert_int_equal(offload.flags & CULVERT_OFFLOAD_NEEDS_CSUM, 0);
        assert_int_equal(offload.gso_type, CULVERT_GSO_NONE);
        assert_int_equal(
            checksum_fold(checksum_add(packet_pseudo(got + 14, false, IPPROTO_TCP, len - transport),
                                       got + transport, len - transport)),
            0xffff);
        for (size_t i = header; i < len; i++, done++)
            assert_int_equal(got[i], payload_byte(done));
    }
    fixture_free(f);
}

static void udp_super_frames_pass_where_the_kernel_has_them(void **state)
{
    static uint8_t want[CULVERT_FRAME_MAX], got[CULVERT_FRAME_MAX];
    const struct shape s = {
        .protocol = IPPROTO_UDP, .payload = 28000, .linear = 20, .piece = 7001, .gso_size = 1400};
    struct fixture *f = fixture_new(1500);
    struct culvert_offload offload;
    struct culvert_frame *made = frame_of_shape(&s), *frame;
    size_t len = frame_flatten(made, want, sizeof want);

    (void)state;
    if (f->netdev->link.offloads & CULVERT_LINK_USO) {
        send_frame(f, culvert_frame_ref(made));
        assert_int_equal(guest_receive(f->guest, 1000, &offload, got, sizeof got), len);
        assert_memory_equal(got, want, len);
        assert_int_equal(offload.gso_type, CULVERT_GSO_UDP_L4);
        guest_send(f->guest, &made->offload, want, len);
        assert_int_equal(receive(f, &frame, 1), 1);
        assert_int_equal(frame->offload.gso_type, CULVERT_GSO_UDP_L4);
        assert_int_equal(frame->offload.gso_size, 1400);
        culvert_frame_unref(frame);
    }
    culvert_frame_unref(made);
    fixture_free(f);
}

static struct culvert_frame *small_frame(void)
{
    struct culvert_frame *frame = culvert_frame_new(60);

    assert_non_null(frame);
    frame->len = numbered(frame->data, 60, 0);
    return frame;
}

static void a_device_that_is_down_refuses_frames_and_recovers(void **state)
{
    struct fixture *f = fixture_new(1500);
    struct culvert_frame *frames[4];
    struct culvert_offload offload;
    uint8_t got[100];

    (void)state;
    set_up(f->name, false, 1500);
    send_frame(f, small_frame());
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_write_error), 1);
    assert_int_equal(receive(f, frames, 4), 0);
    set_up(f->name, true, 1500);
    close(f->guest);
    f->guest = guest_open(f->name);
    send_frame(f, small_frame());
    assert_int_equal(guest_receive(f->guest, 1000, &offload, got, sizeof got), 60);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_write_error), 1);
    fixture_free(f);
}

static void a_frame_the_device_cannot_take_is_dropped_and_counted(void **state)
{
    struct fixture *f = fixture_new(1500);
    struct culvert_frame *frame = small_frame();

    (void)state;
    frame->len = 5; /* no Ethernet header */
    send_frame(f, frame);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_write_error), 1);
    fixture_free(f);
}

static void a_device_that_disappears_is_reported_once(void **state)
{
    struct fixture *f = fixture_new(1500);
    struct culvert_frame *frames[4];

    (void)state;
    delete_device(f->name);
    assert_int_equal(loop_wait(&f->loop, 0, UINT64_C(1000000000)), 1);
    assert_int_equal(f->readable, 1);
    assert_int_equal(receive(f, frames, 4), -ENODEV);
    assert_int_equal(receive(f, frames, 4), 0);
    assert_int_equal(loop_wait(&f->loop, 0, 0), 0);
    send_frame(f, small_frame());
    fixture_free(f);
}

static void without_memory_frames_are_dropped_and_counted(void **state)
{
    const struct culvert_offload plain = {0};
    struct culvert_frame *frames[16];
    uint8_t bytes[60];
    struct fixture *f;

    (void)state;
    setenv("CULVERT_POOL", "poison,fail=4", 1);
    f = fixture_new(1500);
    unsetenv("CULVERT_POOL");
    for (uint32_t i = 0; i < 10; i++)
        guest_send(f->guest, &plain, bytes, numbered(bytes, 60, i));
    assert_int_equal(receive(f, frames, 16), 3);
    assert_int_equal(counter_value(&f->counters, COUNTER_netdev_no_memory), 7);
    assert_int_equal(receive(f, frames + 3, 13), 0);
    assert_int_equal(loop_wait(&f->loop, 0, 0), 0); /* no event that nobody serves */
    for (int i = 0; i < 3; i++)
        culvert_frame_unref(frames[i]);
    fixture_free(f);
}

static void frames_outlive_their_device(void **state)
{
    const struct culvert_offload plain = {0};
    struct culvert_frame *frame;
    uint8_t bytes[60];
    struct fixture *f = fixture_new(1500);

    (void)state;
    guest_send(f->guest, &plain, bytes, numbered(bytes, 60, 7));
    assert_int_equal(receive(f, &frame, 1), 1);
    fixture_free(f);
    assert_memory_equal(frame->data, bytes, 60);
    culvert_frame_unref(frame);
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
        cmocka_unit_test(a_tap_is_opened_with_the_name_that_is_asked_for),
        cmocka_unit_test(descriptors_that_are_no_tap_are_refused),
        cmocka_unit_test(the_link_takes_every_tcp_offload),
        cmocka_unit_test(small_frames_are_received_in_order_and_linear),
        cmocka_unit_test(super_segments_come_whole_from_the_guest),
        cmocka_unit_test(the_largest_mtu_passes_both_ways),
        cmocka_unit_test(super_segments_go_whole_to_the_guest),
        cmocka_unit_test(a_link_without_offloads_gets_segments_with_checksums),
        cmocka_unit_test(udp_super_frames_pass_where_the_kernel_has_them),
        cmocka_unit_test(a_device_that_is_down_refuses_frames_and_recovers),
        cmocka_unit_test(a_frame_the_device_cannot_take_is_dropped_and_counted),
        cmocka_unit_test(a_device_that_disappears_is_reported_once),
        cmocka_unit_test(without_memory_frames_are_dropped_and_counted),
        cmocka_unit_test(frames_outlive_their_device),
    };
    return cmocka_run_group_tests(tests, enter, NULL);
}
