/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/drain.h"
#include "host/init.h"

static void a_closed_socket_with_bytes_to_send_is_pending(void **state)
{
    uint64_t bytes = 0;

    (void)state;
    assert_true(drain_line_pending("   0: 6402000A:B2A6 0202000A:1F90 04 000186A1:00000000 "
                                   "01:00000014 00000000     0        0 0 2 0000000000000000",
                                   &bytes));
    assert_int_equal(bytes, 0x186a1);
    assert_true(drain_line_pending("  12: 00000000000000000000000001000000:0050 "
                                   "00000000000000000000000001000000:1F90 09 00000001:00000000",
                                   &bytes));
    assert_int_equal(bytes, 1);
}

static void other_sockets_are_not(void **state)
{
    uint64_t bytes;

    (void)state;
    /* listening, established, FIN-WAIT-2, TIME-WAIT */
    assert_false(drain_line_pending("0: 00000000:0050 00000000:0000 0A 00000000:00000000", &bytes));
    assert_false(drain_line_pending("0: 6402000A:B2A6 0202000A:1F90 01 00000010:00000000", &bytes));
    assert_false(drain_line_pending("0: 6402000A:B2A6 0202000A:1F90 05 00000000:00000000", &bytes));
    assert_false(drain_line_pending("0: 6402000A:B2A6 0202000A:1F90 06 00000000:00000000", &bytes));
    assert_false(
        drain_line_pending("  sl  local_address rem_address   st tx_queue rx_queue tr", &bytes));
    assert_false(drain_line_pending("", &bytes));
}

static void exit_statuses_are_those_of_a_shell(void **state)
{
    (void)state;
    assert_int_equal(init_exit_status(0), 0);
    assert_int_equal(init_exit_status(7 << 8), 7);
    assert_int_equal(init_exit_status(15), 128 + 15);
    assert_int_equal(init_exit_status(0x80 | 11), 128 + 11); /* dumped core */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_socket_with_bytes_to_send_is_pending),
        cmocka_unit_test(other_sockets_are_not),
        cmocka_unit_test(exit_statuses_are_those_of_a_shell),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
