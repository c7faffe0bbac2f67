/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

/* One thread's epoll. What a descriptor stands for is named by (handler, index, generation), never
 * by a pointer: a handler finds its object by index and ignores events of an earlier generation. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOOP_HANDLERS       16
#define LOOP_GENERATION_MAX 0xffffffu /* generations are 24 bits */

struct loop_handler {
    /* `events`: EPOLLIN | EPOLLOUT | … as reported. */
    void (*ready)(void *ctx, uint32_t index, uint32_t generation, uint32_t events);
    void *ctx;
};

struct loop {
    int epoll_fd;
    bool only_ms; /* the kernel has no epoll_pwait2() */
    unsigned handler_count;
    struct loop_handler handlers[LOOP_HANDLERS];
    /* Called when a wait has brought events, before their handlers: time has passed. May be NULL.
     */
    void (*woken)(void *ctx);
    void *woken_ctx;
};

int loop_init(struct loop *loop); /* 0 or negative errno */
void loop_fini(struct loop *loop);
/* The handler's number for loop_add(); at most LOOP_HANDLERS (asserted: handlers are fixed at build
 * time). */
unsigned loop_add_handler(struct loop *loop, void (*ready)(void *, uint32_t, uint32_t, uint32_t),
                          void *ctx);
/* `events` include EPOLLET where wanted. 0 or negative errno. */
int loop_add(struct loop *loop, int fd, uint32_t events, unsigned handler, uint32_t index,
             uint32_t generation);
int loop_modify(struct loop *loop, int fd, uint32_t events, unsigned handler, uint32_t index,
                uint32_t generation);
void loop_remove(struct loop *loop, int fd);
/* Waits until `deadline` at the latest (ns of CLOCK_MONOTONIC; 0: do not wait; UINT64_MAX: for
 * ever), given that it is `now`, and calls the handlers. Returns the number of events, or negative
 * errno (-EINTR is returned as 0). */
int loop_wait(struct loop *loop, uint64_t now, uint64_t deadline);

#endif
