/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CULVERT_WAKE_H
#define CULVERT_WAKE_H

/** @file
 * A wake-up call between threads: a file descriptor that is readable from the first signal until it
 * is drained. Signals coalesce, never block and are never lost.
 *
 * A consumer drains its wake, handles everything there is to handle, and only then sleeps on the
 * descriptor; in any other order wake-ups are lost.
 */

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** Treat the members as private. */
struct culvert_wake {
    int fd; /**< eventfd, nonblocking */
    uint32_t
        state; /**< whether a signal is pending, and whether the consumer is known to be awake */
};

/** The descriptor to poll for reading; owned by the wake. Any thread. */
int culvert_wake_fd(const struct culvert_wake *wake);
/** Makes the descriptor readable. No system call when a signal is pending already, or when the
 * consumer has said that it is awake (culvert_wake_awake) and will look again before it sleeps. Any
 * thread. */
void culvert_wake_signal(struct culvert_wake *wake);
/** Makes the descriptor unreadable until the next signal. The consumer's thread. */
void culvert_wake_drain(struct culvert_wake *wake);
/** The consumer is awake and promises culvert_wake_will_sleep() before it sleeps: until then
 * signals cost no system call. Optional. The consumer's thread. */
void culvert_wake_awake(struct culvert_wake *wake);
/** The consumer is about to sleep. Nonzero: a signal came since culvert_wake_awake(), so look again
 * instead. The consumer's thread. */
int culvert_wake_will_sleep(struct culvert_wake *wake);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
