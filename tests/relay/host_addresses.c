/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/host_addresses.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "namespace.h"

static bool is_local(struct host_addresses *addresses, uint32_t address)
{
    struct ip_address a = ip_address_v4(htonl(address));

    return host_addresses_is_local(addresses, &a);
}

static struct host_addresses *addresses_in_a_namespace(struct loop *loop)
{
    struct host_addresses *addresses;

    if (!namespace_of_its_own())
        skip();
    assert_int_equal(loop_init(loop), 0);
    addresses = host_addresses_new(loop);
    assert_non_null(addresses);
    return addresses;
}

static void loopback_is_local_and_the_internet_is_not(void **state)
{
    struct loop loop;
    struct host_addresses *addresses = addresses_in_a_namespace(&loop);
    struct ip_address loopback6 = ip_address_v6(&in6addr_loopback);
    struct ip_address internet6 = {.bytes = {0x26, 0x06, [15] = 1}};

    (void)state;
    for (int again = 0; again < 2; again++) {
        assert_true(is_local(addresses, 0x7f000001));
        assert_true(is_local(addresses, 0x7f010203));
        assert_true(is_local(addresses, 0xffffffff));
        assert_false(is_local(addresses, 0x01010101));
        assert_true(host_addresses_is_local(addresses, &loopback6));
        assert_false(host_addresses_is_local(addresses, &internet6));
    }
    host_addresses_free(addresses);
    loop_fini(&loop);
}

static void new_address_becomes_local_once_netlink_says_so(void **state)
{
    struct loop loop;
    struct host_addresses *addresses = addresses_in_a_namespace(&loop);

    (void)state;
    assert_false(is_local(addresses, 0xc6336405)); /* 198.51.100.5 */
    assert_int_equal(namespace_add_address("lo", htonl(0xc6336405)), 0);
    assert_false(is_local(addresses, 0xc6336405)); /* remembered */
    assert_true(loop_wait(&loop, 0, 1000000000) > 0);
    assert_true(is_local(addresses, 0xc6336405));
    host_addresses_free(addresses);
    loop_fini(&loop);
}

static void namespace_without_routes_has_no_ipv6(void **state)
{
    (void)state;
    if (!namespace_of_its_own())
        skip();
    assert_false(host_has_ipv6_route());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loopback_is_local_and_the_internet_is_not),
        cmocka_unit_test(new_address_becomes_local_once_netlink_says_so),
        cmocka_unit_test(namespace_without_routes_has_no_ipv6),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
