/* SPDX-License-Identifier: Apache-2.0 */
/* The small conveniences: hash, list, cleanup, counters, log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/counters.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"

static void every_byte_and_the_length_change_the_hash(void **state)
{
    (void)state;
    const uint64_t key[2] = {1, 2}, other_key[2] = {1, 3};
    uint8_t bytes[48] = {0};
    for (size_t len = 0; len < sizeof bytes; len++) {
        uint64_t hash = hash_bytes(key, bytes, len);
        assert_true(hash == hash_bytes(key, bytes, len));
        assert_true(hash != hash_bytes(key, bytes, len + 1));
        assert_true(hash != hash_bytes(other_key, bytes, len));
        for (size_t i = 0; i < len; i++) {
            bytes[i] ^= 0x80;
            assert_true(hash != hash_bytes(key, bytes, len));
            bytes[i] ^= 0x80;
        }
    }
}

/* Key 00 01 … 0f, message 00 01 …: the arrangement of the SipHash paper's test vectors. */
static void the_hash_is_siphash_1_3(void **state)
{
    (void)state;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    uint8_t bytes[40];
    for (uint8_t i = 0; i < sizeof bytes; i++)
        bytes[i] = i;
    assert_true(hash_bytes(key, bytes, 0) == 0xabac0158050fc4dc);
    assert_true(hash_bytes(key, bytes, 7) == 0xd3927d989bb11140);
    assert_true(hash_bytes(key, bytes, 8) == 0x369095118d299a8e);
    assert_true(hash_bytes(key, bytes, 40) == 0xc1d2363299e41531);
#endif
}

static void low_bits_of_sequential_keys_spread_evenly(void **state)
{
    (void)state;
    const uint64_t key[2] = {0x0123456789abcdef, 0xfedcba9876543210};
    unsigned buckets[64] = {0};
    uint8_t bytes[40] = {0};
    for (uint32_t i = 0; i < 6400; i++) {
        memcpy(bytes + 36, &i, sizeof i);
        buckets[hash_bytes(key, bytes, sizeof bytes) % 64]++;
    }
    for (int i = 0; i < 64; i++)
        assert_in_range(buckets[i], 50, 150);
}

struct item {
    int number;
    struct list link;
};

static void a_list_keeps_order_and_forgets_what_is_removed(void **state)
{
    (void)state;
    struct list list, other;
    struct item items[4];
    int expected = 0;
    list_init(&list);
    list_init(&other);
    assert_true(list_empty(&list));
    assert_null(list_pop_front(&list));
    for (int i = 1; i < 4; i++) {
        items[i].number = i;
        list_push_back(i < 3 ? &list : &other, &items[i].link);
    }
    items[0].number = 0;
    list_push_front(&list, &items[0].link);
    list_splice_back(&list, &other);
    list_splice_back(&list, &other);
    assert_true(list_empty(&other));
    list_for_each (link, &list)
        assert_int_equal(list_entry(link, struct item, link)->number, expected++);
    assert_int_equal(expected, 4);
    list_remove(&items[1].link);
    list_remove(&items[1].link);
    list_for_each_safe (link, &list)
        list_remove(link);
    assert_true(list_empty(&list));
    assert_true(list_empty(&items[3].link));
}

static unsigned destroyed;

struct thing {
    int unused;
};

static void thing_free(struct thing *thing)
{
    destroyed += thing != NULL;
}
DEFINE_CLEANUP(struct thing, thing_free)

static void what_a_scope_owns_is_given_back_and_what_is_taken_is_not(void **state)
{
    (void)state;
    struct thing thing;
    int fd = -1;
    destroyed = 0;
    {
        _cleanup_(thing_freep)
        struct thing *kept = &thing, *given = &thing;
        _cleanup_free_ char *text = strdup("text");
        _cleanup_close_ int closed = open("/dev/null", O_RDONLY), taken = open("/dev/null", 0);
        assert_ptr_equal(TAKE_PTR(given), &thing);
        assert_null(given);
        assert_non_null(text);
        fd = TAKE_FD(taken);
        assert_int_equal(taken, -1);
        assert_true(closed >= 0 && kept);
    }
    assert_int_equal(destroyed, 1);
    assert_int_equal(close_fd(fd), -1);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void every_counter_has_a_name_and_a_sentence(void **state)
{
    (void)state;
    for (int i = 0; i < COUNTER_COUNT; i++) {
        assert_non_null(strchr(counter_name(i), '_'));
        assert_true(strlen(counter_sentence(i)) > 5);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(counter_name(i), counter_name(j));
    }
    struct counters counters = {0};
    count(&counters, COUNTER_netdev_runt);
    count_n(&counters, COUNTER_netdev_runt, UINT64_C(1) << 33);
    assert_true(counter_value(&counters, COUNTER_netdev_runt) == (UINT64_C(1) << 33) + 1);
}

static void keep_message(void *ctx, enum log_level level, const char *message)
{
    (void)level;
    strncpy(ctx, message, 511);
}

static void messages_reach_the_callback_up_to_its_level(void **state)
{
    (void)state;
    char got[512] = "";
    struct log log = {.write = keep_message, .ctx = got, .level = LOG_LEVEL_NOTE};
    log_debug(&log, "too much detail");
    assert_string_equal(got, "");
    errno = EAGAIN;
    log_warning(&log, "port %d", 80);
    assert_string_equal(got, "port 80");
    assert_int_equal(errno, EAGAIN);
    log_error(&log, "%0600d", 1);
    assert_int_equal(strlen(got), 511);
    log_error(NULL, "nobody listens");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_and_the_length_change_the_hash),
        cmocka_unit_test(the_hash_is_siphash_1_3),
        cmocka_unit_test(low_bits_of_sequential_keys_spread_evenly),
        cmocka_unit_test(a_list_keeps_order_and_forgets_what_is_removed),
        cmocka_unit_test(what_a_scope_owns_is_given_back_and_what_is_taken_is_not),
        cmocka_unit_test(every_counter_has_a_name_and_a_sentence),
        cmocka_unit_test(messages_reach_the_callback_up_to_its_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
