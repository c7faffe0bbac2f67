/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/listeners.h"

#include <string.h>
#include <unistd.h>

static size_t scan(const char *text, uint8_t protocol, struct ingress_listener *ret)
{
    struct ip_address guests[2];
    size_t count = 0;
    FILE *table = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

    assert_true(ip_address_parse("10.0.2.100", &guests[0]));
    assert_true(ip_address_parse("fd63:756c:7665::64", &guests[1]));
    assert_non_null(table);
    listeners_scan(table, protocol, guests, ret, &count);
    fclose(table);
    return count;
}

#define HEAD "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
#define REST " 00000000:00000000 00:00000000 00000000  1000        0 12 1 00 100 0 0 10 0\n"

static void listening_sockets_count_if_they_can_be_reached(void **state)
{
    struct ingress_listener found[INGRESS_LISTENERS_MAX];

    (void)state;
    assert_int_equal(scan(HEAD "   0: 00000000:1F90 00000000:0000 0A" REST
                               "   1: 0100007F:1F91 00000000:0000 0A" REST /* loopback */
                               "   2: 6402000A:0050 00000000:0000 0A" REST
                               "   3: 6402000A:0051 0101A8C0:0050 01" REST /* connected */
                               "   4: 00000000:1F90 00000000:0000 0A" REST /* again */,
                          IPPROTO_TCP, found),
                     2);
    assert_int_equal(found[0].port, 8080);
    assert_int_equal(found[0].protocol, IPPROTO_TCP);
    assert_int_equal(found[1].port, 80);
}

static void both_forms_of_addresses_are_read(void **state)
{
    struct ingress_listener found[INGRESS_LISTENERS_MAX];

    (void)state;
    assert_int_equal(
        scan(HEAD
             "   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 "
             "0A" REST
             "   1: 00000000000000000000000001000000:0017 00000000000000000000000000000000:0000 "
             "0A" REST
             "   2: 6C7563FD000065760000000064000000:0018 00000000000000000000000000000000:0000 "
             "0A" REST,
             IPPROTO_TCP, found),
        2);
    assert_int_equal(found[0].port, 22);
    assert_int_equal(found[1].port, 24);
}

static void clients_of_udp_are_no_services(void **state)
{
    struct ingress_listener found[INGRESS_LISTENERS_MAX];

    (void)state;
    assert_int_equal(
        scan("   0: 00000000:0035 00000000:0000 07" REST "   1: 00000000:0036 0302000A:0035 01" REST
             "   2: 00000000:8000 00000000:0000 07" REST "   3: 00000000:EE47 00000000:0000 07" REST
             "   4: 00000000:EE48 00000000:0000 07" REST,
             IPPROTO_UDP, found),
        2);
    assert_int_equal(found[0].port, 53);
    assert_int_equal(found[1].port, 61000);
}

static void what_is_no_line_is_passed_over(void **state)
{
    struct ingress_listener found[INGRESS_LISTENERS_MAX];

    (void)state;
    assert_int_equal(scan("\n0:\n0: X\n0: 00000000:0000 0:0 0A\n0: 00000000:10000 0:0 0A\n"
                          "0: 0000000:0050 0:0 0A\n0: 00000000:0050\n",
                          IPPROTO_TCP, found),
                     0);
}

static void more_listeners_than_fit_are_cut(void **state)
{
    struct ingress_listener found[INGRESS_LISTENERS_MAX];
    static char text[64 * 300];
    size_t len = 0;

    (void)state;
    for (unsigned i = 1; i <= 300; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "0: 00000000:%04X 0:0 0A\n", i);
    assert_int_equal(scan(text, IPPROTO_TCP, found), INGRESS_LISTENERS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listening_sockets_count_if_they_can_be_reached),
        cmocka_unit_test(both_forms_of_addresses_are_read),
        cmocka_unit_test(clients_of_udp_are_no_services),
        cmocka_unit_test(what_is_no_line_is_passed_over),
        cmocka_unit_test(more_listeners_than_fit_are_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
