/* SPDX-License-Identifier: Apache-2.0 */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define LOOP_BATCH 64

/* An event's 64 bits: handler 8, generation 24, index 32. */
static uint64_t pack(unsigned handler, uint32_t index, uint32_t generation)
{
    return (uint64_t)handler << 56 | (uint64_t)(generation & LOOP_GENERATION_MAX) << 32 | index;
}

int loop_init(struct loop *loop)
{
    *loop = (struct loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    return loop->epoll_fd < 0 ? -errno : 0;
}

void loop_fini(struct loop *loop)
{
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    loop->epoll_fd = -1;
}

unsigned loop_add_handler(struct loop *loop, void (*ready)(void *, uint32_t, uint32_t, uint32_t),
                          void *ctx)
{
    assert(loop->handler_count < LOOP_HANDLERS && "handlers are fixed at build time");
    loop->handlers[loop->handler_count] = (struct loop_handler){ready, ctx};
    return loop->handler_count++;
}

static int control(struct loop *loop, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(loop->epoll_fd, op, fd, &event) < 0 ? -errno : 0;
}

int loop_add(struct loop *loop, int fd, uint32_t events, unsigned handler, uint32_t index,
             uint32_t generation)
{
    assert(handler < loop->handler_count && "handlers come from loop_add_handler()");
    return control(loop, EPOLL_CTL_ADD, fd, events, pack(handler, index, generation));
}

int loop_modify(struct loop *loop, int fd, uint32_t events, unsigned handler, uint32_t index,
                uint32_t generation)
{
    assert(handler < loop->handler_count && "handlers come from loop_add_handler()");
    return control(loop, EPOLL_CTL_MOD, fd, events, pack(handler, index, generation));
}

void loop_remove(struct loop *loop, int fd)
{
    control(loop, EPOLL_CTL_DEL, fd, 0, 0);
}

/* Before Linux 5.11: milliseconds, rounded up so that a sleep never ends before its deadline. */
static int wait_in_ms(struct loop *loop, struct epoll_event *events, uint64_t timeout)
{
    int ms = -1;
    if (timeout != UINT64_MAX) {
        uint64_t rounded = timeout / 1000000 + (timeout % 1000000 != 0);
        ms = rounded > 3600000 ? 3600000 : (int)rounded;
    }
    return epoll_wait(loop->epoll_fd, events, LOOP_BATCH, ms);
}

/* `timeout` in ns, UINT64_MAX for none. */
static int wait_events(struct loop *loop, struct epoll_event *events, uint64_t timeout)
{
    if (timeout == 0) /* the cheaper call: no timespec to copy in */
        return epoll_wait(loop->epoll_fd, events, LOOP_BATCH, 0);
    if (!loop->only_ms) {
        struct timespec ts = {(time_t)(timeout / 1000000000), (long)(timeout % 1000000000)};
        int n = epoll_pwait2(loop->epoll_fd, events, LOOP_BATCH, timeout == UINT64_MAX ? NULL : &ts,
                             NULL);
        /* EPERM: a seccomp filter older than the call */
        if (n >= 0 || (errno != ENOSYS && errno != EPERM))
            return n;
        loop->only_ms = true;
    }
    return wait_in_ms(loop, events, timeout);
}

int loop_wait(struct loop *loop, uint64_t now, uint64_t deadline)
{
    struct epoll_event events[LOOP_BATCH];
    uint64_t timeout = deadline == UINT64_MAX ? UINT64_MAX : deadline > now ? deadline - now : 0;
    int n = wait_events(loop, events, timeout);

    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    if (n > 0 && loop->woken)
        loop->woken(loop->woken_ctx);
    for (int i = 0; i < n; i++) {
        uint64_t data = events[i].data.u64;
        const struct loop_handler *handler = &loop->handlers[data >> 56];
        handler->ready(handler->ctx, (uint32_t)data, (uint32_t)(data >> 32) & LOOP_GENERATION_MAX,
                       events[i].events);
    }
    return n;
}
