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
 * Machines that run two kinds of programs have two tables of numbers. The old way to a socket of
 * 32-bit x86, socketcall(2), has its arguments in memory, where a filter cannot look: it makes no
 * sockets here. Programs that know socket(2) of 2015 have one all the same. */

#include "host/syscalls.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What does not fit into "load a word, compare, return" is nowhere here. Arguments that matter are
 * 32 bits wide, and the low half comes first on all machines below. */
#define LOAD(field)         BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF(value, then, or) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, or)
#define ANSWER(error)       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
#define ALLOW               BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* Each is skipped by another call's number. */
#define REFUSE(number, error) IF(number, 0, 1), ANSWER(error)
#define IOCTL(number)                                                                              \
    IF(number, 0, 5), LOAD(args[1]), IF(TIOCSTI, 1, 0), IF(TIOCLINUX, 0, 1), ANSWER(EPERM), ALLOW
#define SOCKET(number)                                                                             \
    IF(number, 0, 9), LOAD(args[0]), IF(AF_UNIX, 6, 0), IF(AF_INET, 5, 0), IF(AF_INET6, 4, 0),     \
        IF(AF_NETLINK, 3, 0), IF(AF_PACKET, 2, 0), IF(AF_ALG, 1, 0), ANSWER(EAFNOSUPPORT), ALLOW
#define SOCKETCALL(number)                                                                         \
    IF(number, 0, 4), LOAD(args[0]), IF(1 /* SYS_SOCKET */, 0, 1), ANSWER(ENOSYS), ALLOW

#define IO_URING_SETUP 425 /* everywhere */

struct table {
    uint32_t machine;
    const struct sock_filter *code;
    unsigned char len;
};

#define TABLE(machine, code)                                                                       \
    {                                                                                              \
        machine, code, sizeof(code) / sizeof(code)[0]                                              \
    }

#if defined(__x86_64__)

/* x32 has the same numbers with a bit set, but for ioctl(2). */
static const struct sock_filter amd64[] = {
    LOAD(nr),
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x3fffffff),
    IOCTL(16),
    IOCTL(514),
    SOCKET(41),
    REFUSE(249, ENOSYS),
    REFUSE(IO_URING_SETUP, ENOSYS),
    ALLOW,
};
static const struct sock_filter i386[] = {
    LOAD(nr),        IOCTL(54),           SOCKET(359),
    SOCKETCALL(102), REFUSE(287, ENOSYS), REFUSE(IO_URING_SETUP, ENOSYS),
    ALLOW,
};
static const struct table tables[] = {TABLE(AUDIT_ARCH_X86_64, amd64),
                                      TABLE(AUDIT_ARCH_I386, i386)};

#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

static const struct sock_filter arm64[] = {
    LOAD(nr), IOCTL(29), SOCKET(198), REFUSE(218, ENOSYS), REFUSE(IO_URING_SETUP, ENOSYS), ALLOW,
};
static const struct sock_filter arm[] = {
    LOAD(nr),        IOCTL(54),           SOCKET(281),
    SOCKETCALL(102), REFUSE(310, ENOSYS), REFUSE(IO_URING_SETUP, ENOSYS),
    ALLOW,
};
static const struct table tables[] = {TABLE(AUDIT_ARCH_AARCH64, arm64), TABLE(AUDIT_ARCH_ARM, arm)};

#elif defined(__riscv) && __riscv_xlen == 64

static const struct sock_filter riscv64[] = {
    LOAD(nr), IOCTL(29), SOCKET(198), REFUSE(218, ENOSYS), REFUSE(IO_URING_SETUP, ENOSYS), ALLOW,
};
static const struct table tables[] = {TABLE(AUDIT_ARCH_RISCV64, riscv64)};

#else
#error "the numbers of this machine's system calls are to be added here"
#endif

#define CODE_MAX 128

int syscalls_restrict(void)
{
    struct sock_filter code[CODE_MAX] = {LOAD(arch)};
    struct sock_fprog program = {.len = 1, .filter = code};

    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        code[program.len++] = (struct sock_filter)IF(tables[i].machine, 0, tables[i].len);
        memcpy(code + program.len, tables[i].code, tables[i].len * sizeof code[0]);
        program.len = (unsigned short)(program.len + tables[i].len);
    }
    code[program.len++] = (struct sock_filter)ANSWER(ENOSYS); /* a machine nobody knows */
    /* SPEC_ALLOW: the filter keeps no secrets, and must not slow down what runs under it. */
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) <
                   0
               ? -errno
               : 0;
}
