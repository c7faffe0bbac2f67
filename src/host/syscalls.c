/* SPDX-License-Identifier: Apache-2.0 */

/* Theory of operation
 *
 * A network namespace, and no capability in it, leave some ways out that any process may go. A
 * seccomp filter closes them; all else is as it was.
 *
 * | call                      | leads to                                   | is answered   |
 * |---------------------------|--------------------------------------------|---------------|
 * | socket(2), most families  | networks that no namespace divides: vsock, | EAFNOSUPPORT  |
 * |                           | by which a machine talks to its hypervisor |               |
 * | io_uring_setup(2)         | socket(2) without a system call to filter  | ENOSYS        |
 * | request_key(2)            | a helper of the host's, which asks the     | ENOSYS        |
 * |                           | host's DNS for a name of the caller's      |               |
 * | ioctl(2), TIOCSTI and     | the caller's shell, as if typed at the     | EPERM         |
 * | TIOCLINUX                 | terminal they share                        |               |
 *
 * Programs of the machine's other kinds (32 bits, x32) are under the same filter; those of a kind
 * that it does not know get ENOSYS from every call. The old way to a socket of 32-bit machines,
 * socketcall(2), has its arguments in memory, where a filter cannot look: it makes no sockets here.
 * Programs that know socket(2) of 2015 have one all the same. */

#include "host/syscalls.h"

#include <errno.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static bool is_allowed_family(int family)
{
    switch (family) {
    case AF_UNIX:
    case AF_INET:
    case AF_INET6:
    case AF_NETLINK:
    case AF_PACKET:
    case AF_ALG:
        return true;
    default:
        return false;
    }
}

/* Kinds of programs that this machine runs besides its own. What is none of its is refused by the
 * library, and no harm. */
static int add_other_kinds(scmp_filter_ctx filter)
{
    static const uint32_t others[][2] = {
        {SCMP_ARCH_X86_64, SCMP_ARCH_X86},
        {SCMP_ARCH_X86_64, SCMP_ARCH_X32},
        {SCMP_ARCH_AARCH64, SCMP_ARCH_ARM},
    };
    uint32_t own = seccomp_arch_native();
    int r = 0;

    for (size_t i = 0; i < sizeof others / sizeof others[0] && r == 0; i++)
        if (others[i][0] == own)
            r = seccomp_arch_add(filter, others[i][1]);
    return r;
}

/* The library adds socketcall(2) by itself. */
static int refuse_families(scmp_filter_ctx filter)
{
    int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                             SCMP_A0_32(SCMP_CMP_GE, AF_MAX));

    for (uint32_t family = 0; family < AF_MAX && r == 0; family++)
        if (!is_allowed_family((int)family))
            r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                 SCMP_A0_32(SCMP_CMP_EQ, family));
    return r;
}

/* The kernel looks at the request's lower half only. */
static int refuse_requests(scmp_filter_ctx filter)
{
    static const uint32_t requests[] = {TIOCSTI, TIOCLINUX};
    int r = 0;

    for (size_t i = 0; i < sizeof requests / sizeof requests[0] && r == 0; i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
                             SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, requests[i]));
    return r;
}

static int fill(scmp_filter_ctx filter)
{
    int r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));

    /* The filter keeps no secrets, and must not slow down what runs under it. */
    if (r == 0)
        r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
    if (r == 0)
        r = add_other_kinds(filter);
    if (r == 0)
        r = refuse_families(filter);
    if (r == 0)
        r = refuse_requests(filter);
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(io_uring_setup), 0);
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(request_key), 0);
    return r;
}

int syscalls_restrict(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int r = filter ? fill(filter) : -ENOMEM;

    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r;
}
