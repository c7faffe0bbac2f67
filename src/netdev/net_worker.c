/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * One thread, two directions, each of which stops by itself:
 *
 *     guest → engine   reads the TAP and pushes to tx_ring. A full tx_ring leaves one frame in hand
 *                      (`unpushed`); the TAP is then not read, so that the guest's device queue
 *                      fills and the guest slows down. The ring is starved: the pop that makes room
 *                      signals rx_wake.
 *     engine → guest   pops rx_ring and writes the TAP. A full TAP leaves one frame in hand
 *                      (`unwritten`) until it is writable.
 *
 * The thread is awake (signals to rx_wake cost the engine no system call) until it has nothing left
 * to do; then it says so and sleeps in poll(2) on rx_wake, the TAP and the stop event. tx_wake is
 * signalled once a batch. */
#include "netdev/net_worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netdev/tap.h"

/* Frames moved in one direction before the other has its turn. */
#define BATCH 64

struct net_worker {
    struct culvert_shared_state *state;
    int tap_fd, stop_fd;
    bool tap_gone;
    struct culvert_link link;
    struct tap_reader reader;
    struct culvert_frame *unpushed, *unwritten;
    pthread_t thread;
};

/* ---- guest → engine ---- */

static void lose_device(struct net_worker *worker)
{
    worker->tap_gone = true;
    worker->link.up = false;
    culvert_shared_state_set_link(worker->state, &worker->link);
}

/* The next frame to push, or NULL: none is there, or the device is gone. Frames that came broken
 * are gone, too, and the next one is tried: there is a bound, the caller's batch. */
static struct culvert_frame *next_frame(struct net_worker *worker)
{
    struct culvert_frame *frame = NULL;
    int r;

    if (worker->unpushed)
        return TAKE_PTR(worker->unpushed);
    for (int tries = 0; tries < BATCH; tries++) {
        r = tap_reader_next(&worker->reader, &frame);
        if (r == 1)
            return frame;
        if (r == 0)
            return NULL;
        if (r != -ENOMEM && r != -EMSGSIZE && r != -EBADMSG) {
            lose_device(worker);
            return NULL;
        }
    }
    return NULL;
}

static bool push_frame(struct net_worker *worker, struct culvert_frame *frame)
{
    size_t len = culvert_frame_len(frame); /* before the push: the frame is another's after it */

    if (!culvert_ring_push(&worker->state->tx_ring, frame)) {
        worker->unpushed = frame;
        return false;
    }
    culvert_shared_state_add_tx_bytes(worker->state, len);
    return true;
}

/* True: the batch was full, there may be more. */
static bool move_to_engine(struct net_worker *worker)
{
    int moved = 0;

    while (moved < BATCH && !worker->tap_gone) {
        struct culvert_frame *frame = next_frame(worker);

        if (!frame || !push_frame(worker, frame))
            break;
        moved++;
    }
    if (moved > 0 || worker->unpushed)
        culvert_wake_signal(&worker->state->tx_wake);
    return moved == BATCH;
}

/* ---- engine → guest ---- */

/* True: the batch was full, there may be more. */
static bool move_to_guest(struct net_worker *worker)
{
    for (int moved = 0; moved < BATCH; moved++) {
        struct culvert_frame *frame = worker->unwritten ? TAKE_PTR(worker->unwritten)
                                                        : culvert_ring_pop(&worker->state->rx_ring);

        if (!frame)
            return false;
        if (!worker->tap_gone && tap_write(worker->tap_fd, frame) == -EAGAIN) {
            worker->unwritten = frame;
            return false;
        }
        culvert_frame_unref(frame); /* written, or refused by a device that is down */
    }
    return true;
}

/* ---- the thread ---- */

/* Sleeps until something happens. False: the worker is to stop. */
static bool sleep_until_needed(struct net_worker *worker)
{
    struct pollfd fds[] = {
        {.fd = worker->stop_fd, .events = POLLIN},
        {.fd = culvert_wake_fd(&worker->state->rx_wake), .events = POLLIN},
        {.fd = worker->tap_gone ? -1 : worker->tap_fd},
    };

    if (!worker->unpushed)
        fds[2].events |= POLLIN;
    if (worker->unwritten)
        fds[2].events |= POLLOUT;
    if (fds[2].events == 0) /* else a device that is gone would keep us awake */
        fds[2].fd = -1;
    if (poll(fds, 3, -1) > 0 && fds[0].revents)
        return false;
    if (fds[1].revents) /* a signal that has not reached the descriptor yet is seen by will_sleep */
        culvert_wake_drain(&worker->state->rx_wake);
    culvert_wake_awake(&worker->state->rx_wake);
    return true;
}

static bool stop_requested(const struct net_worker *worker)
{
    struct pollfd fd = {.fd = worker->stop_fd, .events = POLLIN};
    return poll(&fd, 1, 0) > 0;
}

/* Between two polls at most this many batches, so that a flood cannot put off the end. */
#define ROUNDS 256

static void *run(void *arg)
{
    struct net_worker *worker = arg;

    culvert_wake_awake(&worker->state->rx_wake);
    for (;;) {
        bool more = true;

        for (int round = 0; more && round < ROUNDS; round++) {
            more = move_to_guest(worker);
            more |= move_to_engine(worker);
            if (!more && culvert_wake_will_sleep(&worker->state->rx_wake))
                more = true; /* a signal came meanwhile; still awake */
        }
        if (more ? stop_requested(worker) : !sleep_until_needed(worker))
            return NULL;
    }
}

/* The process's signals are for its other threads. */
static int start_thread(struct net_worker *worker)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&worker->thread, NULL, run, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static int start(struct net_worker *worker, uint32_t mtu)
{
    uint32_t offloads;
    int r = tap_configure(worker->tap_fd, &offloads);

    if (r < 0)
        return r;
    worker->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->stop_fd < 0)
        return -errno;
    r = tap_reader_init(&worker->reader, worker->tap_fd);
    if (r < 0)
        return r;
    worker->link = (struct culvert_link){.offloads = offloads, .mtu = mtu, .up = true};
    culvert_shared_state_set_link(worker->state, &worker->link);
    r = start_thread(worker);
    if (r < 0) {
        worker->link.up = false;
        culvert_shared_state_set_link(worker->state, &worker->link);
        tap_reader_fini(&worker->reader);
    }
    return r;
}

struct net_worker *net_worker_start(struct culvert_shared_state *state, int take_fd, uint32_t mtu)
{
    struct net_worker *worker = calloc(1, sizeof *worker);
    int r;

    if (!worker)
        return NULL;
    worker->state = state;
    worker->tap_fd = take_fd;
    worker->stop_fd = -1;
    r = start(worker, mtu);
    if (r < 0) {
        close_fd(worker->stop_fd);
        free(worker);
        errno = -r;
        return NULL;
    }
    return worker;
}

struct net_worker *net_worker_stop(struct net_worker *worker)
{
    if (!worker)
        return NULL;
    (void)eventfd_write(worker->stop_fd, 1);
    pthread_join(worker->thread, NULL);
    worker->link.up = false;
    culvert_shared_state_set_link(worker->state, &worker->link);
    culvert_frame_unref(worker->unpushed);
    culvert_frame_unref(worker->unwritten);
    tap_reader_fini(&worker->reader);
    close(worker->stop_fd);
    close(worker->tap_fd);
    free(worker);
    return NULL;
}
