/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation.
 *
 * `state` holds two bits. SIGNALLED: somebody signalled since the consumer last looked. AWAKE: the
 * consumer will look again by itself. A signal sets SIGNALLED, and only the one that finds both
 * bits clear writes the eventfd. It is always a read-modify-write, even when the bit is seen to be
 * set already: that orders it against the consumer's clearing of the bit, so either the consumer's
 * next look sees what was published before the signal, or the signal finds the bit clear and
 * writes.
 *
 * A drain reads the eventfd first and clears SIGNALLED second. In the other order a signal between
 * the two would have its write swallowed while the bit stays set, and no later signal would write.
 * In this order a signaller that has set the bit but not yet written costs one needless wake-up.
 *
 * | consumer              | state            | eventfd                           |
 * |-----------------------|------------------|-----------------------------------|
 * | may sleep             | 0                | unreadable (or a late write)      |
 * | was signalled         | SIGNALLED        | readable, or about to be          |
 * | awake                 | AWAKE            | untouched                         |
 * | awake, was signalled  | AWAKE, SIGNALLED | untouched: will_sleep() tells     | */

#include "base/wake.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum wake_state {
    WAKE_STATE_SIGNALLED = 1,
    WAKE_STATE_AWAKE = 2,
};

int wake_init(struct culvert_wake *wake)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    *wake = (struct culvert_wake){.fd = fd};
    return 0;
}

void wake_fini(struct culvert_wake *wake)
{
    if (wake->fd >= 0)
        close(wake->fd);
    *wake = (struct culvert_wake){.fd = -1};
}

int culvert_wake_fd(const struct culvert_wake *wake)
{
    return wake->fd;
}

void culvert_wake_signal(struct culvert_wake *wake)
{
    if (__atomic_fetch_or(&wake->state, WAKE_STATE_SIGNALLED, __ATOMIC_SEQ_CST))
        return;
    int saved = errno;
    /* Fails only with EAGAIN, when the counter is at its end: then it is readable all the same. */
    eventfd_write(wake->fd, 1);
    errno = saved;
}

void culvert_wake_drain(struct culvert_wake *wake)
{
    int saved = errno;
    eventfd_t ignored;
    eventfd_read(wake->fd, &ignored); /* EAGAIN: nothing was pending */
    errno = saved;
    __atomic_fetch_and(&wake->state, ~(uint32_t)WAKE_STATE_SIGNALLED, __ATOMIC_SEQ_CST);
}

void culvert_wake_awake(struct culvert_wake *wake)
{
    __atomic_fetch_or(&wake->state, WAKE_STATE_AWAKE, __ATOMIC_SEQ_CST);
}

int culvert_wake_will_sleep(struct culvert_wake *wake)
{
    uint32_t awake = WAKE_STATE_AWAKE;
    if (__atomic_compare_exchange_n(&wake->state, &awake, 0, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST))
        return 0;
    /* Only the consumer clears bits, so what the exchange stumbled over is still there. */
    uint32_t before =
        __atomic_fetch_and(&wake->state, ~(uint32_t)WAKE_STATE_SIGNALLED, __ATOMIC_SEQ_CST);
    return (before & WAKE_STATE_SIGNALLED) != 0;
}
