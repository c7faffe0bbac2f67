/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/loop.h"

struct item {
    struct slot slot;
    int value;
};

static void name_outlived_by_its_item_finds_nothing(void **state)
{
    struct slots slots;
    struct item *item;
    uint32_t index, generation;

    (void)state;
    slots_init(&slots, sizeof *item);
    assert_null(slots_find(&slots, 0, 1));
    item = slots_take(&slots);
    item->value = 7;
    index = item->slot.index;
    generation = item->slot.generation;
    assert_ptr_equal(slots_find(&slots, index, generation), item);
    slots_give_back(&slots, item);
    assert_null(slots_find(&slots, index, generation));
    item = slots_take(&slots);
    assert_int_equal(item->slot.index, index);
    assert_int_equal(item->value, 0);
    assert_null(slots_find(&slots, index, generation));
    slots_fini(&slots);
}

static void items_keep_their_place_while_the_table_grows(void **state)
{
    struct slots slots;
    struct item *items[1000];

    (void)state;
    slots_init(&slots, sizeof *items[0]);
    for (int i = 0; i < 1000; i++) {
        items[i] = slots_take(&slots);
        items[i]->value = i;
    }
    assert_int_equal(slots.taken, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_ptr_equal(slots_at(&slots, items[i]->slot.index), items[i]);
        assert_int_equal(items[i]->value, i);
    }
    assert_null(slots_at(&slots, slots_limit(&slots)));
    for (int i = 0; i < 1000; i++)
        slots_give_back(&slots, items[i]);
    assert_int_equal(slots.taken, 0);
    slots_fini(&slots);
}

static void generations_fit_an_epoll_name_and_are_never_zero(void **state)
{
    struct slots slots;
    struct item *item;

    (void)state;
    slots_init(&slots, sizeof *item);
    item = slots_take(&slots);
    item->slot.generation = LOOP_GENERATION_MAX;
    slots_give_back(&slots, item);
    item = slots_take(&slots);
    assert_int_equal(item->slot.generation, 1);
    slots_fini(&slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_outlived_by_its_item_finds_nothing),
        cmocka_unit_test(items_keep_their_place_while_the_table_grows),
        cmocka_unit_test(generations_fit_an_epoll_name_and_are_never_zero),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
