/* SPDX-License-Identifier: Apache-2.0 */
#include "host/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Uid 0 is a uid like others. SECBIT_KEEP_CAPS keeps nothing where nothing is held, and ping
 * insists on setting it, so it is not locked. */
#define SECUREBITS                                                                                 \
    (SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |                               \
     SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |                                 \
     SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

/* The order matters: the securebits and the bounding set need CAP_SETPCAP, which goes last. */
int capabilities_drop_all(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};

    if (prctl(PR_SET_SECUREBITS, SECUREBITS) < 0)
        return -errno;
    for (unsigned long capability = 0;; capability++) {
        int held = prctl(PR_CAPBSET_READ, capability);

        if (held < 0)
            break; /* beyond the last one this kernel has */
        if (held && prctl(PR_CAPBSET_DROP, capability) < 0)
            return -errno;
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -errno;
    if (syscall(SYS_capset, &header, none) < 0)
        return -errno;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}
