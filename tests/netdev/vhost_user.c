/* SPDX-License-Identifier: Apache-2.0 */
/* What a front end and a driver that keep to the specification see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
/* behind the above */
#include <cmocka.h>

#include "vhost_user_lab.h"

static struct frontend_queue *queue_of(struct lab *lab, unsigned index)
{
    return &lab->front.queues[index];
}

static void flush(struct lab *lab)
{
    lab->netdev->ops->flush(lab->netdev);
}

/* ---- the link ---- */

static void link_follows_the_features_and_the_rings(void **state)
{
    struct lab *lab = lab_new(2, false);
    struct vhost_vring_state stop = {.index = TX};
    struct vhost_user_message answer;

    (void)state;
    assert_false(lab->netdev->link.up);
    assert_int_equal(frontend_start(&lab->front, ALL_FEATURES & ~FEATURE(VIRTIO_NET_F_GUEST_TSO6)),
                     0);
    assert_true(lab->netdev->link.up);
    assert_int_equal(lab->netdev->link.offloads,
                     CULVERT_LINK_CSUM | CULVERT_LINK_TSO4 | CULVERT_LINK_ECN);
    assert_int_equal(lab->link_changes, 1);
    assert_int_equal(lab->writable, 1);
    assert_int_equal(
        frontend_send(&lab->front, VHOST_USER_GET_VRING_BASE, 0, &stop, sizeof stop, NULL, 0), 0);
    assert_int_equal(frontend_receive(&lab->front, &answer), 0);
    assert_false(lab->netdev->link.up);
    assert_int_equal(lab->link_changes, 2);
    lab_free(lab);
}

static void disabled_queue_discards(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct culvert_frame *frames[FRAMES];
    struct vring_used_elem element;

    (void)state;
    assert_int_equal(frontend_enable_queue(&lab->front, TX, false), 0);
    assert_false(lab->netdev->link.up);
    transmit(lab, 3, &small_shape);
    assert_int_equal(take(lab, frames), 0);
    flush(lab);
    assert_true(frontend_reap(queue_of(lab, TX), &element));
    assert_int_equal(element.id, 3);
    assert_int_equal(lab_count(lab, COUNTER_vhost_user_disabled), 1);
    lab_free(lab);
}

static void once_reports_the_end_once(void **state)
{
    struct lab *lab = lab_new(2, true);
    struct culvert_frame *frames[FRAMES];

    (void)state;
    assert_int_equal(frontend_start(&lab->front, ALL_FEATURES), 0);
    close(lab->front.socket);
    lab->front.socket = -1;
    lab->readable = 0;
    lab_run(lab);
    assert_false(lab->netdev->link.up);
    assert_true(lab->readable > 0);
    assert_int_equal(take(lab, frames), -EPIPE);
    assert_int_equal(take(lab, frames), 0);
    lab_free(lab);
}

/* ---- from the guest ---- */

static void small_frame_is_copied_and_its_chain_free_at_once(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    uint8_t *at = transmit(lab, 5, &small_shape);
    struct culvert_frame *frame = take_one(lab);
    struct vring_used_elem element;

    (void)state;
    assert_false(frame->borrowed);
    assert_int_equal(frame->segment_count, 0);
    assert_memory_equal(frame->data, at + VIRTIO_NET_HEADER_LEN, frame->len);
    assert_false(frontend_reap(queue_of(lab, TX), &element)); /* told at the batch's end */
    flush(lab);
    assert_true(frontend_reap(queue_of(lab, TX), &element));
    assert_int_equal(element.id, 5);
    culvert_frame_unref(frame);
    lab_free(lab);
}

static void large_frame_stays_in_the_guests_memory(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    uint8_t *at = transmit(lab, 5, &large_shape);
    struct culvert_frame *frame = take_one(lab);
    struct vring_used_elem element;

    (void)state;
    assert_true(frame->borrowed);
    assert_int_equal(frame->segment_count, 1);
    assert_int_equal(frame->offload.gso_size, 1448);
    /* What was checked is private; what is only passed on is not. */
    memset(at + VIRTIO_NET_HEADER_LEN, 0xee, 54);
    assert_int_equal(load_be16(frame->data + 12), ETHERNET_IPV4);
    assert_memory_equal(frame->segments[0].base, at + VIRTIO_NET_HEADER_LEN + frame->len,
                        frame->segments[0].len);
    flush(lab);
    assert_false(frontend_reap(queue_of(lab, TX), &element));
    culvert_frame_unref(frame);
    flush(lab);
    assert_true(frontend_reap(queue_of(lab, TX), &element));
    assert_int_equal(element.id, 5);
    lab_free(lab);
}

static void chains_go_back_in_the_order_they_came(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct culvert_frame *frames[FRAMES];
    struct vring_used_elem element;

    (void)state;
    transmit(lab, 7, &large_shape);
    transmit(lab, 2, &small_shape);
    transmit(lab, 9, &large_shape);
    assert_int_equal(take(lab, frames), 3);
    culvert_frame_unref(frames[2]);
    culvert_frame_unref(frames[1]);
    flush(lab);
    assert_false(frontend_reap(queue_of(lab, TX), &element));
    culvert_frame_unref(frames[0]);
    flush(lab);
    for (int i = 0; i < 3; i++) {
        assert_true(frontend_reap(queue_of(lab, TX), &element));
        assert_int_equal(element.id, ((int[]){7, 2, 9})[i]);
    }
    lab_free(lab);
}

/* A chain of `pieces` descriptors with the large frame in it. */
static void transmit_in_pieces(struct lab *lab, unsigned pieces, bool indirect)
{
    uint8_t *from = guest_bytes(lab, 1 << 17);
    struct vring_desc *table = indirect ? frontend_allocate(&lab->front, pieces * sizeof *table, 16)
                                        : lab->front.queues[TX].descriptors;
    size_t len = lay_out(&large_shape, from), step = len / pieces + 1, done = 0;

    for (unsigned i = 0; i < pieces; i++) {
        size_t n = len - done < step ? len - done : step;
        uint8_t *at = guest_bytes(lab, n + 8);

        memcpy(at, from + done, n);
        table[i] = (struct vring_desc){.addr = htole64(frontend_address(&lab->front, at)),
                                       .len = htole32((uint32_t)n),
                                       .flags = htole16(i + 1 < pieces ? VRING_DESC_F_NEXT : 0),
                                       .next = htole16((uint16_t)(i + 1))};
        done += n;
    }
    if (indirect)
        describe(lab, TX, 0, table, pieces * (uint32_t)sizeof *table, VRING_DESC_F_INDIRECT, 0);
    offer(lab, TX, 0);
}

static void assert_is_large_frame(const struct culvert_frame *frame)
{
    struct culvert_frame *expected = frame_of_shape(&large_shape);
    static uint8_t a[1 << 17], b[1 << 17];
    size_t len = frame_flatten(expected, a, sizeof a);

    assert_int_equal(frame_flatten(frame, b, sizeof b), len);
    assert_memory_equal(a, b, len);
    culvert_frame_unref(expected);
}

static void frame_in_any_number_of_pieces_is_the_same(void **state)
{
    const struct {
        unsigned pieces;
        bool indirect;
    } table[] = {{1, true},  {2, false}, {14, false}, {16, false},
                 {20, true}, {64, true}, {200, true}};

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct lab *lab = lab_started(2, ALL_FEATURES);

        transmit_in_pieces(lab, table[i].pieces, table[i].indirect);
        struct culvert_frame *frame = take_one(lab);
        assert_is_large_frame(frame);
        /* What does not fit into a frame's segments is copied. */
        assert_int_equal(frame->borrowed, table[i].pieces <= 20);
        culvert_frame_unref(frame);
        lab_free(lab);
    }
}

static void runts_and_giants_are_counted_and_given_back(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    uint8_t *at = guest_bytes(lab, 70000);
    struct culvert_frame *frames[FRAMES];
    struct vring_used_elem element;

    (void)state;
    describe(lab, TX, 0, at, 0, 0, 0);
    describe(lab, TX, 1, at, 11, 0, 0);
    describe(lab, TX, 2, at, 25, 0, 0);
    describe(lab, TX, 3, at, 12 + CULVERT_FRAME_MAX + 1, 0, 0);
    for (uint16_t i = 0; i < 4; i++)
        offer(lab, TX, i);
    assert_int_equal(take(lab, frames), 0);
    flush(lab);
    for (uint16_t i = 0; i < 4; i++) {
        assert_true(frontend_reap(queue_of(lab, TX), &element));
        assert_int_equal(element.id, i);
    }
    assert_int_equal(lab_count(lab, COUNTER_netdev_runt), 3);
    assert_int_equal(lab_count(lab, COUNTER_netdev_oversize), 1);
    assert_true(lab->netdev->link.up);
    lab_free(lab);
}

static void frame_outlives_its_ring_and_its_memory_table(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct vhost_vring_state stop = {.index = TX};
    struct vhost_user_message answer;
    struct culvert_frame *frames[FRAMES];

    (void)state;
    transmit(lab, 1, &small_shape);
    transmit(lab, 2, &large_shape);
    transmit(lab, 3, &small_shape);
    assert_int_equal(take(lab, frames), 3);
    assert_int_equal(
        frontend_send(&lab->front, VHOST_USER_GET_VRING_BASE, 0, &stop, sizeof stop, NULL, 0), 0);
    assert_int_equal(frontend_receive(&lab->front, &answer), 0);
    assert_int_equal(answer.payload.state.num,
                     1); /* the first is done, the next takes the others */
    assert_int_equal(queue_of(lab, TX)->used->idx, 1);
    assert_int_equal(frontend_share_memory(&lab->front), 0);
    close(lab->front.socket);
    lab->front.socket = -1;
    lab_run(lab);
    assert_is_large_frame(frames[1]);
    for (int i = 0; i < 3; i++)
        culvert_frame_unref(frames[i]);
    assert_int_equal(queue_of(lab, TX)->used->idx, 1); /* nobody writes to it any more */
    lab_free(lab);
}

static void legacy_header_is_short(void **state)
{
    struct lab *lab = lab_started(2, FEATURE(VIRTIO_NET_F_CSUM));
    uint8_t *at = guest_bytes(lab, 4096);
    size_t len = lay_out(&small_shape, at);

    (void)state;
    memmove(at + 10, at + 12, len - 12);
    describe(lab, TX, 0, at, (uint32_t)len - 2, 0, 0);
    offer(lab, TX, 0);
    struct culvert_frame *frame = take_one(lab);
    assert_int_equal(frame->len, len - 12);
    assert_int_equal(load_be16(frame->data + 12), ETHERNET_IPV4);
    culvert_frame_unref(frame);
    lab_free(lab);
}

/* ---- to the guest ---- */

static void frame_fills_as_many_buffers_as_it_needs(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct culvert_frame *frame = frame_of_shape(&large_shape);
    static uint8_t all[1 << 17], got[1 << 17];
    size_t len = frame_flatten(frame, all, sizeof all), done = 0;
    struct vring_used_elem element;

    (void)state;
    post(lab, 0, 16, 4096);
    assert_int_equal(lab->netdev->ops->send(lab->netdev, frame), 0);
    assert_false(frontend_reap(queue_of(lab, RX), &element));
    flush(lab);
    for (unsigned i = 0; i < 8; i++) {
        assert_true(frontend_reap(queue_of(lab, RX), &element));
        assert_int_equal(element.id, i);
        memcpy(got + done, descriptor_place(lab, RX, (uint16_t)i), element.len);
        done += element.len;
    }
    assert_false(frontend_reap(queue_of(lab, RX), &element));
    assert_int_equal(done, len + VIRTIO_NET_HEADER_LEN);
    assert_memory_equal(got + VIRTIO_NET_HEADER_LEN, all, len);
    assert_int_equal(load_le16(got + 10), 8);
    assert_int_equal(got[1], CULVERT_GSO_TCPV4);
    lab_free(lab);
}

static void frame_waits_for_buffers_and_is_not_cut(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct culvert_frame *frame = frame_of_shape(&small_shape);
    struct netdev *netdev = lab->netdev;
    struct vring_used_elem element;
    struct culvert_frame *frames[FRAMES];

    (void)state;
    lab->writable = 0;
    assert_int_equal(netdev->ops->send(netdev, frame), -EAGAIN);
    assert_int_equal(take(lab, frames), 0);
    assert_int_equal(lab->writable, 0);
    assert_false(netdev->ops->will_sleep(netdev));
    lab->readable = 0;
    post(lab, 0, 1, 2048);
    lab_run(lab);
    assert_true(lab->readable > 0); /* the guest has kicked, as it was asked to */
    assert_int_equal(take(lab, frames), 0);
    assert_int_equal(lab->writable, 1);
    assert_int_equal(netdev->ops->send(netdev, frame), 0);
    flush(lab);
    assert_true(frontend_reap(queue_of(lab, RX), &element));
    lab_free(lab);
}

static void frames_beyond_all_buffers_are_dropped_and_then_cut(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct vring_used_elem element;
    int frames = 0;

    (void)state;
    post(lab, 0, 16, 1600);
    assert_int_equal(lab->netdev->ops->send(lab->netdev, frame_of_shape(&large_shape)), 0);
    assert_int_equal(lab_count(lab, COUNTER_vhost_user_small_buffers), 1);
    assert_int_equal(lab->netdev->ops->send(lab->netdev, frame_of_shape(&large_shape)), 0);
    flush(lab);
    for (; frontend_reap(queue_of(lab, RX), &element); frames++)
        assert_true(element.len <= 12 + 54 + 1448);
    assert_int_equal(frames, 16); /* the others wait for buffers */
    assert_int_equal(lab_count(lab, COUNTER_vhost_user_small_buffers), 1);
    lab_free(lab);
}

/* ---- notifications ---- */

static void guest_is_called_when_it_wants_to_be(void **state)
{
    const uint64_t features[] = {ALL_FEATURES, ALL_FEATURES & ~FEATURE(VIRTIO_RING_F_EVENT_IDX)};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct lab *lab = lab_started(2, features[i]);
        struct frontend_queue *queue = queue_of(lab, RX);
        struct vring_used_elem element;

        post(lab, 0, 16, 2048);
        (void)event_taken(queue->call); /* of the start */
        frontend_want_no_call(&lab->front, queue);
        queue->available->ring[QUEUE_SIZE] = htole16(3); /* used_event: the fourth */
        for (int frame = 0; frame < 6; frame++) {
            if (frame == 3)
                queue->available->flags = 0;
            assert_int_equal(lab->netdev->ops->send(lab->netdev, frame_of_shape(&small_shape)), 0);
            flush(lab);
            bool wanted = i == 0 ? frame == 3 : frame >= 3;
            assert_int_equal(event_taken(queue->call), wanted);
        }
        while (frontend_reap(queue, &element))
            ;
        lab_free(lab);
    }
}

static void kicks_are_wanted_in_sleep_alone(void **state)
{
    const uint64_t features[] = {ALL_FEATURES, ALL_FEATURES & ~FEATURE(VIRTIO_RING_F_EVENT_IDX)};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct lab *lab = lab_started(2, features[i]);
        struct netdev *netdev = lab->netdev;
        struct culvert_frame *frames[FRAMES];
        int kick = queue_of(lab, TX)->kick;

        transmit(lab, 0, &small_shape); /* asleep from the beginning */
        assert_true(event_taken(kick));
        culvert_frame_unref(take_one(lab));
        transmit(lab, 1, &small_shape);
        assert_false(event_taken(kick));
        assert_true(netdev->ops->will_sleep(netdev)); /* there is something still */
        culvert_frame_unref(take_one(lab));
        assert_int_equal(take(lab, frames), 0);
        assert_false(netdev->ops->will_sleep(netdev));
        assert_false(netdev->ops->will_sleep(netdev));
        transmit(lab, 2, &small_shape);
        lab->readable = 0;
        lab_run(lab);
        assert_int_equal(lab->readable, 1);
        assert_true(event_taken(kick));
        lab_free(lab);
    }
}

/* ---- control ---- */

static uint8_t control(struct lab *lab, const uint8_t *command, uint32_t len)
{
    uint8_t *at = guest_bytes(lab, 64);
    struct culvert_frame *frames[FRAMES];
    struct vring_used_elem element;

    memcpy(at, command, len);
    at[40] = 0xff;
    describe(lab, CONTROL, 0, at, 2, VRING_DESC_F_NEXT, 1);
    describe(lab, CONTROL, 1, at + 2, len - 2, VRING_DESC_F_NEXT, 2);
    describe(lab, CONTROL, 2, at + 40, 1, VRING_DESC_F_WRITE, 0);
    offer(lab, CONTROL, 0);
    assert_int_equal(take(lab, frames), 0);
    flush(lab);
    assert_true(frontend_reap(queue_of(lab, CONTROL), &element));
    assert_int_equal(element.len, 1);
    return at[40];
}

static void control_commands_are_answered(void **state)
{
    struct lab *lab = lab_started(3, ALL_FEATURES);

    (void)state;
    assert_int_equal(control(lab, (uint8_t[]){VIRTIO_NET_CTRL_RX, 0, 1}, 3), VIRTIO_NET_OK);
    assert_int_equal(control(lab, (uint8_t[]){VIRTIO_NET_CTRL_MAC, 1, 2, 0, 0, 0, 0, 1}, 8),
                     VIRTIO_NET_OK);
    assert_int_equal(control(lab, (uint8_t[]){VIRTIO_NET_CTRL_MQ, 0, 2, 0}, 4), VIRTIO_NET_ERR);
    assert_int_equal(control(lab, (uint8_t[]){99, 0, 0}, 3), VIRTIO_NET_ERR);
    assert_true(lab->netdev->link.up);
    lab_free(lab);
}

/* ---- several pairs ---- */

static void move_flow_to_pair_1(struct lab *lab)
{
    uint8_t *at = guest_bytes(lab, 4096), *ip = at + 26;
    size_t len = lay_out(&small_shape, at);

    describe(lab, 3, 0, at, (uint32_t)len, 0, 0);
    /* The other direction of small_shape: what answers it. */
    memcpy(ip + 12, (uint8_t[]){10, 0, 2, 100, 192, 0, 2, 1}, 8);
    memcpy(ip + 20, (uint8_t[]){40000 >> 8, 40000 & 255, 443 >> 8, 443 & 255}, 4);
    offer(lab, 3, 0);
    culvert_frame_unref(take_one(lab));
}

static void flow_comes_back_on_the_pair_it_left_by(void **state)
{
    struct lab *lab = lab_started(4, ALL_FEATURES & ~FEATURE(VIRTIO_NET_F_CTRL_VQ));
    struct vring_used_elem element;
    struct culvert_frame *frame = frame_of_shape(&small_shape);

    (void)state;
    post(lab, 0, 4, 2048);
    for (uint16_t i = 0; i < 4; i++) {
        describe(lab, 2, i, guest_bytes(lab, 2048), 2048, VRING_DESC_F_WRITE, 0);
        offer(lab, 2, i);
    }
    move_flow_to_pair_1(lab);
    assert_int_equal(lab->netdev->ops->send(lab->netdev, frame), 0);
    flush(lab);
    assert_true(frontend_reap(queue_of(lab, 2), &element));
    assert_false(frontend_reap(queue_of(lab, RX), &element));
    lab_free(lab);
}

static void frame_that_waits_for_a_pair_goes_by_another_when_it_is_disabled(void **state)
{
    struct lab *lab = lab_started(4, ALL_FEATURES & ~FEATURE(VIRTIO_NET_F_CTRL_VQ));
    struct culvert_frame *frame = frame_of_shape(&small_shape);
    struct vring_used_elem element;

    (void)state;
    move_flow_to_pair_1(lab);
    post(lab, 0, 4, 2048);
    lab->writable = 0;
    assert_int_equal(lab->netdev->ops->send(lab->netdev, frame), -EAGAIN);
    assert_int_equal(frontend_enable_queue(&lab->front, 2, false), 0);
    assert_int_equal(frontend_enable_queue(&lab->front, 3, false), 0);
    assert_int_equal(lab->writable, 1);
    assert_int_equal(lab->netdev->ops->send(lab->netdev, frame), 0);
    flush(lab);
    assert_true(frontend_reap(queue_of(lab, RX), &element));
    lab_free(lab);
}

/* ---- what a front end asks ---- */

static void memory_comes_and_goes_slot_by_slot(void **state)
{
    struct lab *lab = lab_new(2, false);
    struct vhost_user_memory_slot slot = {
        .region = {.guest = FRONTEND_GUEST_BASE,
                   .size = MEMORY_SIZE / 2,
                   .user = (uint64_t)(uintptr_t)lab->front.memory}};
    struct vhost_user_memory_slot upper = slot;
    struct culvert_frame *frame;
    uint64_t slots;

    (void)state;
    upper.region.guest += MEMORY_SIZE / 2;
    upper.region.user += MEMORY_SIZE / 2;
    upper.region.offset = MEMORY_SIZE / 2;
    assert_int_equal(frontend_negotiate(&lab->front, ALL_FEATURES), 0);
    assert_int_equal(frontend_get_u64(&lab->front, VHOST_USER_GET_MAX_MEM_SLOTS, &slots), 0);
    assert_int_equal(slots, GUEST_MEMORY_SLOTS);
    assert_int_equal(frontend_request(&lab->front, VHOST_USER_ADD_MEM_REG, &slot, sizeof slot,
                                      &lab->front.memory_fd, 1),
                     0);
    assert_int_equal(frontend_request(&lab->front, VHOST_USER_ADD_MEM_REG, &upper, sizeof upper,
                                      &lab->front.memory_fd, 1),
                     0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(frontend_start_queue(&lab->front, i, 0), 0);
        assert_int_equal(frontend_enable_queue(&lab->front, i, true), 0);
    }
    /* A frame that crosses from one region into the next. */
    uint8_t *at = lab->front.memory + MEMORY_SIZE / 2 - 10000;
    size_t len = lay_out(&large_shape, at);
    describe(lab, TX, 0, at, (uint32_t)len, 0, 0);
    offer(lab, TX, 0);
    frame = take_one(lab);
    assert_is_large_frame(frame);
    assert_int_equal(frontend_request(&lab->front, VHOST_USER_REM_MEM_REG, &upper, sizeof upper,
                                      &lab->front.memory_fd, 1),
                     0);
    assert_is_large_frame(frame); /* still mapped */
    culvert_frame_unref(frame);
    assert_int_equal(
        frontend_request(&lab->front, VHOST_USER_REM_MEM_REG, &upper, sizeof upper, NULL, 0),
        -EREMOTEIO);
    assert_true(lab->netdev->link.up);
    lab_free(lab);
}

static void region_added_twice_is_removed_by_the_second_removal(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    const struct vhost_user_memory_slot slot = {
        .region = {.guest = 1 << 20, .size = 1 << 16, .user = 1 << 20}};
    const int results[] = {0, 0, -EREMOTEIO};

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(frontend_request(&lab->front, VHOST_USER_ADD_MEM_REG, &slot, sizeof slot,
                                          &lab->front.memory_fd, 1),
                         0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            frontend_request(&lab->front, VHOST_USER_REM_MEM_REG, &slot, sizeof slot, NULL, 0),
            results[i]);
    assert_true(lab->netdev->link.up);
    lab_free(lab);
}

static void configuration_space_can_be_read(void **state)
{
    struct lab *lab = lab_new(2, false);
    struct vhost_user_config config = {.offset = 0, .size = 12};
    struct vhost_user_message answer;

    (void)state;
    assert_int_equal(
        frontend_send(&lab->front, VHOST_USER_GET_CONFIG, 0, &config, 12 + 12, NULL, 0), 0);
    assert_int_equal(frontend_receive(&lab->front, &answer), 0);
    assert_int_equal(answer.header.size, 24);
    assert_int_equal(answer.payload.config.bytes[0] & 3, 2); /* a local station's address */
    assert_int_equal(load_le16(answer.payload.config.bytes + 6), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(load_le16(answer.payload.config.bytes + 10), 1500);
    lab_free(lab);
}

static void front_ends_mtu_bounds_ours(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);

    (void)state;
    assert_int_equal(
        frontend_request(&lab->front, VHOST_USER_NET_SET_MTU, &(uint64_t){1400}, 8, NULL, 0), 0);
    assert_int_equal(lab->netdev->link.mtu, 1400);
    assert_int_equal(
        frontend_request(&lab->front, VHOST_USER_NET_SET_MTU, &(uint64_t){9000}, 8, NULL, 0), 0);
    assert_int_equal(lab->netdev->link.mtu, 1500);
    lab_free(lab);
}

static void reset_takes_the_link_down_and_keeps_the_connection(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);

    (void)state;
    assert_int_equal(frontend_request(&lab->front, VHOST_USER_RESET_DEVICE, NULL, 0, NULL, 0), 0);
    assert_false(lab->netdev->link.up);
    memset(lab->front.queues[TX].used, 0, 4);
    memset(lab->front.queues[RX].used, 0, 4);
    assert_int_equal(frontend_start(&lab->front, ALL_FEATURES), 0);
    assert_true(lab->netdev->link.up);
    lab_free(lab);
}

static void unknown_request_is_refused_and_harmless(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);

    (void)state;
    assert_int_equal(frontend_request(&lab->front, 41, &(uint64_t){1}, 8, NULL, 0), -EREMOTEIO);
    assert_int_equal(lab_count(lab, COUNTER_vhost_user_unsupported), 1);
    assert_true(lab->netdev->link.up);
    lab_free(lab);
}

/* ---- memory that outlives the back end ---- */

static struct vhost_inflight_queue *share_inflight(struct lab *lab, size_t *ret_len)
{
    struct vhost_user_inflight ask = {.queues = 2, .queue_size = QUEUE_SIZE};
    struct vhost_user_message answer;

    assert_int_equal(
        frontend_send(&lab->front, VHOST_USER_GET_INFLIGHT_FD, 0, &ask, sizeof ask, NULL, 0), 0);
    assert_int_equal(frontend_receive(&lab->front, &answer), 0);
    assert_int_equal(answer.fd_count, 1);
    assert_int_equal(frontend_request(&lab->front, VHOST_USER_SET_INFLIGHT_FD,
                                      &answer.payload.inflight, VHOST_USER_INFLIGHT_LEN, answer.fds,
                                      1),
                     0);
    *ret_len = answer.payload.inflight.size;
    void *at = mmap(NULL, *ret_len, PROT_READ | PROT_WRITE, MAP_SHARED, answer.fds[0], 0);
    assert_true(at != MAP_FAILED);
    vhost_user_message_clear(&answer);
    return at;
}

static void what_another_back_end_left_is_taken_first(void **state)
{
    struct lab *lab = lab_new(2, false);
    struct culvert_frame *frames[FRAMES];
    struct vring_used_elem element;
    size_t len;

    (void)state;
    assert_int_equal(frontend_negotiate(&lab->front, ALL_FEATURES), 0);
    assert_int_equal(frontend_share_memory(&lab->front), 0);
    struct vhost_inflight_queue *rx = share_inflight(lab, &len);
    struct vhost_inflight_queue *tx = (void *)((uint8_t *)rx + len / 2);

    /* It took 4, 6, 5 and 9, gave 6 back, and died before it noted that. */
    tx->version = VHOST_INFLIGHT_VERSION;
    tx->size = QUEUE_SIZE;
    tx->last_batch_head = 6;
    for (unsigned i = 0; i < 4; i++)
        tx->entries[((int[]){4, 6, 5, 9})[i]] =
            (struct vhost_inflight_entry){.inflight = 1, .counter = 70 + i};
    queue_of(lab, TX)->used->idx = htole16(1);
    queue_of(lab, TX)->reaped = 1;
    const uint16_t heads[] = {4, 6, 5, 9, 1};
    for (unsigned i = 0; i < 5; i++) {
        struct shape shape = small_shape;

        shape.payload = shape.linear = 100 + heads[i];
        transmit(lab, heads[i], &shape);
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(frontend_start_queue(&lab->front, i, 0), 0);
        assert_int_equal(frontend_enable_queue(&lab->front, i, true), 0);
    }
    assert_int_equal(take(lab, frames), 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(frames[i]->len, 54 + 100 + ((int[]){4, 5, 9, 1})[i]);
        culvert_frame_unref(frames[i]);
    }
    flush(lab);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(frontend_reap(queue_of(lab, TX), &element));
        assert_int_equal(element.id, ((int[]){4, 5, 9, 1})[i]);
    }
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        assert_int_equal(tx->entries[i].inflight, 0);
    assert_int_equal(tx->used_index, 5);
    munmap(rx, len);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(link_follows_the_features_and_the_rings),
        cmocka_unit_test(disabled_queue_discards),
        cmocka_unit_test(once_reports_the_end_once),
        cmocka_unit_test(small_frame_is_copied_and_its_chain_free_at_once),
        cmocka_unit_test(large_frame_stays_in_the_guests_memory),
        cmocka_unit_test(chains_go_back_in_the_order_they_came),
        cmocka_unit_test(frame_in_any_number_of_pieces_is_the_same),
        cmocka_unit_test(runts_and_giants_are_counted_and_given_back),
        cmocka_unit_test(frame_outlives_its_ring_and_its_memory_table),
        cmocka_unit_test(legacy_header_is_short),
        cmocka_unit_test(frame_fills_as_many_buffers_as_it_needs),
        cmocka_unit_test(frame_waits_for_buffers_and_is_not_cut),
        cmocka_unit_test(frames_beyond_all_buffers_are_dropped_and_then_cut),
        cmocka_unit_test(guest_is_called_when_it_wants_to_be),
        cmocka_unit_test(kicks_are_wanted_in_sleep_alone),
        cmocka_unit_test(control_commands_are_answered),
        cmocka_unit_test(flow_comes_back_on_the_pair_it_left_by),
        cmocka_unit_test(frame_that_waits_for_a_pair_goes_by_another_when_it_is_disabled),
        cmocka_unit_test(memory_comes_and_goes_slot_by_slot),
        cmocka_unit_test(region_added_twice_is_removed_by_the_second_removal),
        cmocka_unit_test(configuration_space_can_be_read),
        cmocka_unit_test(front_ends_mtu_bounds_ours),
        cmocka_unit_test(reset_takes_the_link_down_and_keeps_the_connection),
        cmocka_unit_test(unknown_request_is_refused_and_harmless),
        cmocka_unit_test(what_another_back_end_left_is_taken_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
