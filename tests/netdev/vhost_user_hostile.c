/* SPDX-License-Identifier: Apache-2.0 */
/* Rings that lie and messages that cannot be: counted, the connection ended, and nothing else. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
/* behind the above */
#include <cmocka.h>

#include "vhost_user_lab.h"

/* ---- rings ---- */

static struct vring_desc *descriptor(struct lab *lab, unsigned queue, uint16_t index)
{
    return &lab->front.queues[queue].descriptors[index];
}

/* The connection has ended, with every resource of it, and was counted as that. */
static void assert_ended(struct lab *lab, enum counter reason)
{
    struct pollfd pollfd = {lab->front.socket, POLLIN, 0};
    struct culvert_frame *frames[FRAMES];
    char byte;

    lab->netdev->ops->flush(lab->netdev);
    lab_run(lab);
    assert_false(lab->netdev->link.up);
    assert_int_equal(lab_count(lab, reason), 1);
    assert_int_equal(poll(&pollfd, 1, 0), 1);
    assert_true(read(lab->front.socket, &byte, 1) <= 0);
    assert_int_equal(take(lab, frames), -EPIPE); /* there was no listener */
    assert_int_equal(lab->netdev->ops->send(lab->netdev, frame_of_shape(&small_shape)), 0);
    lab->netdev->ops->flush(lab->netdev);
    assert_false(lab->netdev->ops->will_sleep(lab->netdev));
}

/* Head 0 of the transmit queue is what `spoil` makes of a good frame. */
static void transmit_spoilt(void (*spoil)(struct lab *lab, struct vring_desc *d),
                            enum counter reason)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct culvert_frame *frames[FRAMES];

    transmit(lab, 0, &small_shape);
    spoil(lab, descriptor(lab, TX, 0));
    assert_int_equal(take(lab, frames), 0);
    assert_ended(lab, reason);
    lab_free(lab);
}

#define SPOILT(name, reason)                                                                       \
    static void spoil_##name(struct lab *lab, struct vring_desc *d);                               \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        transmit_spoilt(spoil_##name, COUNTER_vhost_user_##reason);                                \
    }                                                                                              \
    static void spoil_##name(struct lab *lab __attribute__((unused)), struct vring_desc *d)

SPOILT(head_outside_the_table, bad_chain)
{
    (void)d;
    lab->front.queues[TX].available->ring[0] = htole16(QUEUE_SIZE);
}

SPOILT(next_outside_the_table, bad_chain)
{
    d->flags = htole16(VRING_DESC_F_NEXT);
    d->next = htole16(QUEUE_SIZE);
}

SPOILT(chain_that_bites_its_tail, bad_chain)
{
    descriptor(lab, TX, 1)[0] = *d;
    d->flags = descriptor(lab, TX, 1)->flags = htole16(VRING_DESC_F_NEXT);
    d->next = htole16(1);
    descriptor(lab, TX, 1)->next = 0;
}

SPOILT(descriptor_that_is_its_own_next, bad_chain)
{
    d->len = 0;
    d->flags = htole16(VRING_DESC_F_NEXT);
    d->next = 0;
}

SPOILT(writable_descriptor_in_a_transmit_queue, bad_chain)
{
    d->flags = htole16(VRING_DESC_F_WRITE);
}

SPOILT(address_outside_the_memory, bad_address)
{
    d->addr = htole64(FRONTEND_GUEST_BASE - 8);
}

SPOILT(address_behind_the_memory, bad_address)
{
    d->addr = htole64(FRONTEND_GUEST_BASE + MEMORY_SIZE);
}

SPOILT(buffer_that_leaves_the_memory, bad_address)
{
    d->addr = htole64(FRONTEND_GUEST_BASE + MEMORY_SIZE - 100);
}

SPOILT(buffer_that_wraps_around_the_address_space, bad_address)
{
    d->addr = htole64(UINT64_MAX - 50);
}

SPOILT(buffer_of_four_gigabytes, bad_address)
{
    d->len = htole32(UINT32_MAX);
}

/* Indirect tables: `table` holds one good descriptor. */

static struct vring_desc *make_indirect(struct lab *lab, struct vring_desc *d, uint32_t len)
{
    struct vring_desc *table = (struct vring_desc *)guest_bytes(lab, 4096);

    table[0] = *d;
    d->addr = htole64(frontend_address(&lab->front, table));
    d->len = htole32(len);
    d->flags = htole16(VRING_DESC_F_INDIRECT);
    return table;
}

SPOILT(indirect_table_within_another, bad_chain)
{
    struct vring_desc *table = make_indirect(lab, d, 16);
    table->flags = htole16(VRING_DESC_F_INDIRECT);
}

SPOILT(indirect_table_that_is_itself, bad_chain)
{
    struct vring_desc *table = make_indirect(lab, d, 16);
    *table = *d;
}

SPOILT(indirect_table_with_a_successor, bad_chain)
{
    make_indirect(lab, d, 16);
    d->flags |= htole16(VRING_DESC_F_NEXT);
}

SPOILT(indirect_table_without_entries, bad_chain)
{
    make_indirect(lab, d, 0);
}

SPOILT(indirect_table_of_a_broken_length, bad_chain)
{
    make_indirect(lab, d, 24);
}

SPOILT(indirect_table_of_enormous_length, bad_chain)
{
    make_indirect(lab, d, 0xfffffff0);
}

SPOILT(indirect_table_outside_the_memory, bad_address)
{
    make_indirect(lab, d, 16);
    d->addr = htole64(FRONTEND_GUEST_BASE + MEMORY_SIZE - 8);
}

SPOILT(next_outside_the_indirect_table, bad_chain)
{
    struct vring_desc *table = make_indirect(lab, d, 32);
    table->flags = htole16(VRING_DESC_F_NEXT);
    table->next = htole16(2);
}

SPOILT(loop_within_an_indirect_table, bad_chain)
{
    struct vring_desc *table = make_indirect(lab, d, 64);

    for (int i = 0; i < 4; i++)
        table[i] = (struct vring_desc){.addr = table->addr,
                                       .len = 0,
                                       .flags = htole16(VRING_DESC_F_NEXT),
                                       .next = htole16((uint16_t)((i + 1) % 4))};
}

SPOILT(index_that_jumps, bad_index)
{
    (void)d;
    lab->front.queues[TX].available->idx = htole16(QUEUE_SIZE + 1);
}

SPOILT(index_that_goes_back, bad_index)
{
    (void)d;
    lab->front.queues[TX].available->idx = htole16(UINT16_MAX);
}

static void indirect_table_that_was_not_negotiated(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES & ~FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
    struct culvert_frame *frames[FRAMES];

    (void)state;
    transmit(lab, 0, &small_shape);
    make_indirect(lab, descriptor(lab, TX, 0), 16);
    assert_int_equal(take(lab, frames), 0);
    assert_ended(lab, COUNTER_vhost_user_bad_chain);
    lab_free(lab);
}

static void more_chains_than_the_ring_holds_are_in_flight(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct culvert_frame *frames[FRAMES];
    uint8_t *at = guest_bytes(lab, 1 << 17);
    uint32_t len = (uint32_t)lay_out(&large_shape, at);
    int n;

    (void)state;
    for (uint16_t i = 0; i < QUEUE_SIZE; i++) {
        describe(lab, TX, i, at, len, 0, 0);
        offer(lab, TX, i);
    }
    n = take(lab, frames);
    assert_int_equal(n, QUEUE_SIZE);
    offer(lab, TX, 3);
    assert_int_equal(take(lab, frames + n), 0);
    assert_ended(lab, COUNTER_vhost_user_bad_index);
    for (int i = 0; i < n; i++)
        culvert_frame_unref(frames[i]);
    lab_free(lab);
}

static void descriptor_changed_in_flight_changes_nothing(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct vring_used_elem element;
    struct culvert_frame *frame;

    (void)state;
    transmit(lab, 4, &large_shape);
    frame = take_one(lab);
    memset(lab->front.queues[TX].descriptors, 0xff, QUEUE_SIZE * sizeof(struct vring_desc));
    memset(lab->front.queues[TX].available->ring, 0xff, QUEUE_SIZE * sizeof(uint16_t));
    assert_true(culvert_frame_len(frame) == 54 + 30000);
    culvert_frame_unref(frame);
    lab->netdev->ops->flush(lab->netdev);
    assert_true(frontend_reap(&lab->front.queues[TX], &element));
    assert_int_equal(element.id, 4);
    assert_true(lab->netdev->link.up);
    lab_free(lab);
}

static void receive_spoilt(uint16_t flags, uint64_t address, uint16_t index, enum counter reason)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);

    post(lab, 0, 1, 2048);
    descriptor(lab, RX, 0)->flags = htole16(flags);
    if (address)
        descriptor(lab, RX, 0)->addr = htole64(address);
    lab->front.queues[RX].available->idx = htole16(index);
    assert_int_equal(lab->netdev->ops->send(lab->netdev, frame_of_shape(&small_shape)), 0);
    assert_ended(lab, reason);
    lab_free(lab);
}

static void spoilt_receive_queues(void **state)
{
    (void)state;
    receive_spoilt(0, 0, 1, COUNTER_vhost_user_bad_chain);
    receive_spoilt(VRING_DESC_F_WRITE, 4096, 1, COUNTER_vhost_user_bad_address);
    receive_spoilt(VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0, 1, COUNTER_vhost_user_bad_chain);
    receive_spoilt(VRING_DESC_F_WRITE, 0, 1000, COUNTER_vhost_user_bad_index);
}

static void empty_receive_buffers_hold_nothing_and_harm_nobody(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);

    (void)state;
    post(lab, 0, QUEUE_SIZE, 64);
    for (uint16_t i = 0; i < QUEUE_SIZE; i++)
        descriptor(lab, RX, i)->len = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(lab->netdev->ops->send(lab->netdev, frame_of_shape(&small_shape)), 0);
    assert_int_equal(lab_count(lab, COUNTER_vhost_user_small_buffers), 3);
    assert_true(lab->netdev->link.up);
    lab_free(lab);
}

static void control_command_without_room_for_an_answer(void **state)
{
    struct lab *lab = lab_started(3, ALL_FEATURES);
    struct culvert_frame *frames[FRAMES];

    (void)state;
    describe(lab, CONTROL, 0, guest_bytes(lab, 16), 16, 0, 0);
    offer(lab, CONTROL, 0);
    assert_int_equal(take(lab, frames), 0);
    assert_ended(lab, COUNTER_vhost_user_bad_chain);
    lab_free(lab);
}

/* ---- messages ---- */

static void send_raw(struct lab *lab, uint32_t request, const void *payload, uint32_t size,
                     const int *fds, unsigned fd_count)
{
    assert_int_equal(frontend_send(&lab->front, request, 0, payload, size, fds, fd_count), 0);
    lab_run(lab);
}

static void message_ends(uint32_t request, const void *payload, uint32_t size, const int *fds,
                         unsigned fd_count, enum counter reason)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);

    send_raw(lab, request, payload, size, fds, fd_count);
    assert_ended(lab, reason);
    lab_free(lab);
}

#define STATE(i, n) &(struct vhost_vring_state){i, n}, sizeof(struct vhost_vring_state), NULL, 0

static void impossible_messages(void **state)
{
    const enum counter message = COUNTER_vhost_user_bad_message, ring = COUNTER_vhost_user_bad_ring;
    const uint64_t wrong = 1;
    int fd = eventfd(0, EFD_CLOEXEC);

    (void)state;
    message_ends(VHOST_USER_SET_FEATURES, &(uint64_t){UINT64_MAX}, 8, NULL, 0, message);
    message_ends(VHOST_USER_SET_FEATURES, &wrong, 7, NULL, 0, message);
    message_ends(VHOST_USER_SET_PROTOCOL_FEATURES, &(uint64_t){UINT64_MAX}, 8, NULL, 0, message);
    message_ends(VHOST_USER_SET_VRING_NUM, STATE(0, 0), ring);
    message_ends(VHOST_USER_SET_VRING_NUM, STATE(4, 17), ring);
    message_ends(VHOST_USER_SET_VRING_NUM, STATE(4, 65536), ring);
    message_ends(VHOST_USER_SET_VRING_NUM, STATE(0, 16), ring); /* it runs */
    message_ends(VHOST_USER_SET_VRING_NUM, STATE(10000, 16), ring);
    message_ends(VHOST_USER_SET_VRING_BASE, STATE(4, 65536), ring);
    message_ends(VHOST_USER_SET_VRING_ENABLE, STATE(0, 2), ring);
    message_ends(VHOST_USER_GET_VRING_BASE, STATE(UINT32_MAX, 0), message);
    message_ends(VHOST_USER_SET_VRING_KICK, &(uint64_t){0}, 8, NULL, 0, ring);
    message_ends(VHOST_USER_SET_VRING_KICK, &(uint64_t){VHOST_USER_VRING_NO_FD}, 8, NULL, 0, ring);
    message_ends(VHOST_USER_SET_VRING_KICK, &(uint64_t){5}, 8, &fd, 1, ring); /* not set up */
    message_ends(VHOST_USER_SET_VRING_CALL, &(uint64_t){200}, 8, &fd, 1, ring);
    message_ends(VHOST_USER_NET_SET_MTU, &(uint64_t){60}, 8, NULL, 0, message);
    message_ends(VHOST_USER_GET_CONFIG, &(struct vhost_user_config){.size = 100}, 12, NULL, 0,
                 message);
    message_ends(VHOST_USER_GET_CONFIG,
                 &(struct vhost_user_config){.offset = UINT32_MAX, .size = 8}, 20, NULL, 0,
                 message);
    message_ends(VHOST_USER_GET_INFLIGHT_FD, &(struct vhost_user_inflight){.queues = 60000}, 24,
                 NULL, 0, COUNTER_vhost_user_bad_memory);
    close(fd);
}

static void address_ends(struct vhost_vring_addr address)
{
    message_ends(VHOST_USER_SET_VRING_ADDR, &address, sizeof address, NULL, 0,
                 COUNTER_vhost_user_bad_ring);
}

static void rings_that_do_not_lie_in_the_memory(void **state)
{
    struct lab *lab = lab_new(2, false);
    const uint64_t user = (uint64_t)(uintptr_t)lab->front.memory;

    (void)state;
    lab_free(lab);
    /* The next lab's memory may lie elsewhere; all of these are wrong wherever it does. */
    address_ends((struct vhost_vring_addr){.index = TX});
    address_ends((struct vhost_vring_addr){.index = TX,
                                           .desc_user_addr = UINT64_MAX - 15,
                                           .used_user_addr = UINT64_MAX - 3,
                                           .avail_user_addr = UINT64_MAX - 1});
    address_ends((struct vhost_vring_addr){.index = TX,
                                           .desc_user_addr = user + 8,
                                           .used_user_addr = user + 1,
                                           .avail_user_addr = user + 1});
    address_ends((struct vhost_vring_addr){.index = TX,
                                           .desc_user_addr = user + MEMORY_SIZE - 16,
                                           .used_user_addr = user + MEMORY_SIZE - 16,
                                           .avail_user_addr = user + MEMORY_SIZE - 16});
    address_ends((struct vhost_vring_addr){.index = 77777});
    address_ends((struct vhost_vring_addr){.index = TX, .flags = 1});
}

/* Regions are added to those of a running device. */
static void region_ends(struct guest_region region, const int *fds, unsigned count)
{
    message_ends(VHOST_USER_ADD_MEM_REG, &(struct vhost_user_memory_slot){.region = region}, 40,
                 fds, count, COUNTER_vhost_user_bad_memory);
}

static void memory_that_cannot_be(void **state)
{
    int fd = memfd_create("short", MFD_CLOEXEC), pair[2];
    const struct guest_region good = {1 << 20, 8192, 1 << 20, 0};
    struct guest_region r = good;

    (void)state;
    assert_int_equal(ftruncate(fd, 8192), 0);
    assert_int_equal(pipe(pair), 0);
    region_ends(r, NULL, 0);
    region_ends(r, pair, 1); /* no memory */
    region_ends(r, (int[]){fd, fd}, 2);
    r.size = 0;
    region_ends(r, &fd, 1);
    r.size = UINT64_MAX;
    region_ends(r, &fd, 1);
    r.size = 8193; /* beyond the file */
    region_ends(r, &fd, 1);
    r = good;
    r.offset = UINT64_MAX - 4095;
    region_ends(r, &fd, 1);
    r = good;
    r.guest = UINT64_MAX - 4095;
    region_ends(r, &fd, 1);
    r.guest = FRONTEND_GUEST_BASE + MEMORY_SIZE - 1; /* overlaps */
    region_ends(r, &fd, 1);
    r.guest = FRONTEND_GUEST_BASE - 8191;
    region_ends(r, &fd, 1);
    message_ends(VHOST_USER_REM_MEM_REG, &(struct vhost_user_memory_slot){.region = good}, 40, NULL,
                 0, COUNTER_vhost_user_bad_memory);
    close(fd);
    close(pair[0]);
    close(pair[1]);
}

static void tables_that_cannot_be(void **state)
{
    const enum counter memory = COUNTER_vhost_user_bad_memory;
    int fd = memfd_create("other", MFD_CLOEXEC);
    struct vhost_user_memory_table table = {.count = 9};
    const uint32_t one = offsetof(struct vhost_user_memory_table, regions[1]);

    (void)state;
    assert_int_equal(ftruncate(fd, 8192), 0);
    message_ends(VHOST_USER_SET_MEM_TABLE, &table, one, &fd, 1, memory);
    table.count = UINT32_MAX;
    message_ends(VHOST_USER_SET_MEM_TABLE, &table, one, &fd, 1, memory);
    table.count = 2;
    message_ends(VHOST_USER_SET_MEM_TABLE, &table, one, (int[]){fd, fd}, 2, memory);
    table.count = 1;
    table.regions[0] = (struct guest_region){0, 8192, 0, 0};
    message_ends(VHOST_USER_SET_MEM_TABLE, &table, one, NULL, 0, memory);
    /* A good table, but the running rings do not lie in it. */
    message_ends(VHOST_USER_SET_MEM_TABLE, &table, one, &fd, 1, COUNTER_vhost_user_bad_ring);
    close(fd);
}

static void table_is_not_replaced_by_one_that_fails(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    struct vhost_user_memory_slot slot = {
        .region = {FRONTEND_GUEST_BASE, 4096, 1 << 20, 0}}; /* overlaps */

    (void)state;
    assert_int_equal(frontend_request(&lab->front, VHOST_USER_ADD_MEM_REG, &slot, sizeof slot,
                                      &lab->front.memory_fd, 1),
                     -EREMOTEIO);
    assert_true(lab->netdev->link.up);
    transmit(lab, 0, &large_shape);
    culvert_frame_unref(take_one(lab));
    lab_free(lab);
}

/* With event indices a ring is two bytes longer, which this one's memory does not have. */
static void features_that_a_running_ring_has_no_room_for(void **state)
{
    struct lab *lab = lab_new(2, false);
    struct frontend_queue *queue = &lab->front.queues[TX];
    const size_t used_len = sizeof(struct vring_used) + QUEUE_SIZE * sizeof(struct vring_used_elem);
    uint64_t features = ALL_FEATURES & ~FEATURE(VIRTIO_RING_F_EVENT_IDX);

    (void)state;
    queue->used = (struct vring_used *)(lab->front.memory + MEMORY_SIZE - used_len);
    assert_int_equal(frontend_start(&lab->front, features), 0);
    assert_true(lab->netdev->link.up);
    features = lab->front.features | FEATURE(VIRTIO_RING_F_EVENT_IDX);
    assert_int_equal(
        frontend_request(&lab->front, VHOST_USER_SET_FEATURES, &features, sizeof features, NULL, 0),
        -EREMOTEIO);
    assert_ended(lab, COUNTER_vhost_user_bad_ring);
    lab_free(lab);
}

/* Is a file of this name mapped here? */
static bool is_mapped(const char *name)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    bool found = false;

    assert_non_null(maps);
    while (!found && fgets(line, sizeof line, maps))
        found = strstr(line, name);
    fclose(maps);
    return found;
}

/* Such regions exist: a PC has a hole at 640 KiB. */
static void part_of_a_huge_page_is_unmapped_in_the_end(void **state)
{
    int fd = memfd_create("huge-memory", MFD_CLOEXEC | MFD_HUGETLB);
    const struct guest_region region = {.size = 640 << 10, .offset = 64 << 10};
    struct guest_memory *memory = guest_memory_new(NULL);

    (void)state;
    if (fd < 0) { /* not in this kernel */
        guest_memory_unref(memory);
        skip();
    }
    assert_int_equal(ftruncate(fd, 1 << 30), 0);
    assert_non_null(memory);
    assert_int_equal(guest_memory_add(memory, &region, fd), 0);
    assert_true(is_mapped("huge-memory"));
    guest_memory_unref(memory);
    assert_false(is_mapped("huge-memory"));
    close(fd);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void descriptors_nobody_asked_for_are_closed(void **state)
{
    struct lab *lab = lab_started(2, ALL_FEATURES);
    int fds[12];
    unsigned before;

    (void)state;
    for (int i = 0; i < 12; i++)
        fds[i] = lab->front.memory_fd;
    before = open_descriptors();
    send_raw(lab, VHOST_USER_SET_OWNER, NULL, 0, fds, 8);
    assert_int_equal(open_descriptors(), before);
    assert_true(lab->netdev->link.up);
    send_raw(lab, VHOST_USER_SET_OWNER, NULL, 0, fds, 12); /* more than a message has */
    assert_ended(lab, COUNTER_vhost_user_bad_message);
    assert_true(open_descriptors() < before);
    lab_free(lab);
}

static void message_may_come_byte_by_byte(void **state)
{
    struct lab *lab = lab_new(2, false);
    const uint32_t words[] = {VHOST_USER_GET_FEATURES, 1, 0, VHOST_USER_GET_QUEUE_NUM, 1, 0};
    struct vhost_user_message answer;

    (void)state;
    for (size_t i = 0; i < sizeof words; i++) {
        assert_int_equal(write(lab->front.socket, (const char *)words + i, 1), 1);
        lab_run(lab);
    }
    assert_int_equal(frontend_receive(&lab->front, &answer), 0);
    assert_int_equal(answer.header.request, VHOST_USER_GET_FEATURES);
    assert_int_equal(frontend_receive(&lab->front, &answer), 0);
    assert_int_equal(answer.header.request, VHOST_USER_GET_QUEUE_NUM);
    lab_free(lab);
}

#define TEST(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(head_outside_the_table),
        TEST(next_outside_the_table),
        TEST(chain_that_bites_its_tail),
        TEST(descriptor_that_is_its_own_next),
        TEST(writable_descriptor_in_a_transmit_queue),
        TEST(address_outside_the_memory),
        TEST(address_behind_the_memory),
        TEST(buffer_that_leaves_the_memory),
        TEST(buffer_that_wraps_around_the_address_space),
        TEST(buffer_of_four_gigabytes),
        TEST(indirect_table_within_another),
        TEST(indirect_table_that_is_itself),
        TEST(indirect_table_with_a_successor),
        TEST(indirect_table_without_entries),
        TEST(indirect_table_of_a_broken_length),
        TEST(indirect_table_of_enormous_length),
        TEST(indirect_table_outside_the_memory),
        TEST(next_outside_the_indirect_table),
        TEST(loop_within_an_indirect_table),
        TEST(index_that_jumps),
        TEST(index_that_goes_back),
        TEST(indirect_table_that_was_not_negotiated),
        TEST(more_chains_than_the_ring_holds_are_in_flight),
        TEST(descriptor_changed_in_flight_changes_nothing),
        TEST(spoilt_receive_queues),
        TEST(empty_receive_buffers_hold_nothing_and_harm_nobody),
        TEST(control_command_without_room_for_an_answer),
        TEST(impossible_messages),
        TEST(rings_that_do_not_lie_in_the_memory),
        TEST(memory_that_cannot_be),
        TEST(tables_that_cannot_be),
        TEST(table_is_not_replaced_by_one_that_fails),
        TEST(features_that_a_running_ring_has_no_room_for),
        TEST(part_of_a_huge_page_is_unmapped_in_the_end),
        TEST(descriptors_nobody_asked_for_are_closed),
        TEST(message_may_come_byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
