/* SPDX-License-Identifier: Apache-2.0 */
/* The poll thread: the one that owns the stack, the flows, the timers and the relayed sockets.
 *
 * A turn takes a batch of the guest's frames, lets the ready sockets have their quanta, fires
 * timers, ends the batch (gathered uploads are written, ACKs and datagrams leave) and waits for
 * events. A batch is bounded in frames and bytes, so that neither side starves the other and what
 * was just read is still in the cache when it is written.
 *
 * Waiting comes in two kinds. When nothing has happened for a while the thread sleeps until the
 * next event or timer: an idle engine makes no system call. Right after activity it may look again
 * a few times first: spin.h. */

#include <sched.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "engine/internal.h"

#define RECEIVE_AT_ONCE 8
#define BATCH_FRAMES    64
#define BATCH_BYTES     (256u << 10)
#define ACKS_WAIT       (1 * MS_NS) /* at most, for frames that are at hand */

/* ---- events
 * ------------------------------------------------------------------------------------------ */

static void netdev_readable(void *ctx)
{
    struct culvert_engine *engine = ctx;

    engine->netdev_readable = true;
}

static void netdev_writable(void *ctx)
{
    struct culvert_engine *engine = ctx;

    stack_link_writable(engine->stack);
}

static void netdev_link_changed(void *ctx)
{
    struct culvert_engine *engine = ctx;

    stack_set_link(engine->stack, &engine->netdev->link);
    relay_set_mtu(engine->relay, engine->netdev->link.mtu);
    ingress_link_changed(engine);
}

static void proxy_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct culvert_engine *engine = ctx;

    (void)index, (void)generation, (void)events;
    culvert_wake_drain(&engine->state->proxy_wake);
    ingress_apply(engine);
    policy_swap_take(engine);
}

static void tick(struct culvert_engine *engine)
{
    engine->now = clock_now();
    stack_set_now(engine->stack, engine->now);
}

/* What handlers begin is timed from now, not from when the thread went to sleep. */
static void woken(void *ctx)
{
    tick(ctx);
}

int engine_poll_init(struct culvert_engine *engine)
{
    unsigned handler = loop_add_handler(&engine->loop, proxy_ready, engine);

    engine->loop.woken = woken;
    engine->loop.woken_ctx = engine;
    return loop_add(&engine->loop, culvert_wake_fd(&engine->state->proxy_wake), EPOLLIN, handler, 0,
                    0);
}

void engine_take_netdev(struct culvert_engine *engine, struct netdev *netdev)
{
    engine->netdev = netdev;
    netdev->ctx = engine;
    netdev->readable = netdev_readable;
    netdev->writable = netdev_writable;
    netdev->link_changed = netdev_link_changed;
}

/* ---- a turn
 * ------------------------------------------------------------------------------------------ */

/* One batch of the guest's frames. The number taken. */
static int receive_batch(struct culvert_engine *engine)
{
    struct culvert_frame *frames[RECEIVE_AT_ONCE];
    size_t bytes = 0;
    int total = 0;

    while (engine->netdev_readable && total < BATCH_FRAMES && bytes < BATCH_BYTES) {
        int n = engine->netdev->ops->receive(engine->netdev, frames, RECEIVE_AT_ONCE);

        if (n < RECEIVE_AT_ONCE)
            engine->netdev_readable = false;
        if (n < 0) {
            engine->netdev_gone = true;
            culvert_shared_state_trigger_termination(engine->state);
            break;
        }
        for (int i = 0; i < n; i++) {
            bytes += culvert_frame_len(frames[i]);
            stack_input(engine->stack, frames[i]);
            culvert_frame_unref(frames[i]);
        }
        total += n;
    }
    return total;
}

/* While more of the guest's frames are at hand, an ACK of the next batch does for this one too.
 * With several uploads at a time, a batch holds hardly more than a frame of each. */
static enum stack_acks acks_of_batch(struct culvert_engine *engine, bool spinning)
{
    if (!engine->netdev_readable) {
        engine->acks_until = 0;
        return spinning ? STACK_ACKS_OF_LITTLE_WAIT : STACK_ACKS_NOW;
    }
    if (engine->acks_until == 0)
        engine->acks_until = engine->now + ACKS_WAIT;
    if (engine->now < engine->acks_until)
        return STACK_ACKS_WAIT;
    engine->acks_until = 0;
    return STACK_ACKS_NOW;
}

static void end_batch(struct culvert_engine *engine, bool spinning)
{
    enum stack_acks acks = acks_of_batch(engine, spinning);

    relay_batch_end(engine->relay);
    stack_batch_end(engine->stack, acks);
    if (engine->netdev->ops->flush)
        engine->netdev->ops->flush(engine->netdev);
    __atomic_store_n(&engine->queued_bytes, tcp_queued_bytes(engine->stack), __ATOMIC_RELEASE);
}

/* When to stop waiting for events: at once while the thread is awake. A netdev that has to be told
 * of sleep says nothing while we are awake, so it is asked again. */
static uint64_t wait_until(struct culvert_engine *engine, bool awake)
{
    const struct netdev_ops *ops = engine->netdev->ops;

    if (!awake && !(ops->will_sleep && ops->will_sleep(engine->netdev)))
        return timers_next(engine->timers);
    if (ops->will_sleep)
        engine->netdev_readable = true;
    return 0;
}

static uint64_t bytes_moved(const struct culvert_engine *engine)
{
    return counter_value(&engine->counters, COUNTER_netdev_bytes_in) +
           counter_value(&engine->counters, COUNTER_netdev_bytes_out);
}

/* Out of work: sleeps, or looks once and lets others go first. */
static void wait_for_work(struct culvert_engine *engine, bool spinning)
{
    struct spin *spin = &engine->spin;
    uint64_t until = wait_until(engine, spinning);

    if (spin->length == 0) {
        loop_wait(&engine->loop, engine->now, until);
        return;
    }
    spin_idle(spin, clock_now());
    if (loop_wait(&engine->loop, engine->now, until) > 0) {
        spin_met(spin, clock_now());
    } else if (spinning) {
        uint64_t before = clock_now();

        sched_yield();
        spin_yielded(spin, before, clock_now());
    }
}

static void turn(struct culvert_engine *engine)
{
    tick(engine);
    if (!engine->netdev_gone && receive_batch(engine) > 0)
        spin_met(&engine->spin, engine->now); /* a netdev that we ask tells by no event */
    bool judging = policy_swap_run(engine);
    relay_run(engine->relay, engine->now);
    timers_expire(engine->timers, engine->now);
    bool spinning = spin_due(&engine->spin, engine->now, bytes_moved(engine));
    end_batch(engine, spinning);

    if (judging || engine->netdev_readable || relay_pending(engine->relay))
        loop_wait(&engine->loop, engine->now, wait_until(engine, true));
    else
        wait_for_work(engine, spinning);
}

void *engine_poll_thread(void *arg)
{
    struct culvert_engine *engine = arg;

    policy_swap_polling(engine, true);
    tick(engine);
    netdev_link_changed(engine);
    while (!__atomic_load_n(&engine->stop, __ATOMIC_ACQUIRE))
        turn(engine);
    if (engine->events)
        events_flush(engine->events, engine->now);
    policy_swap_polling(engine, false);
    return NULL;
}
