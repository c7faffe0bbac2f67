/* SPDX-License-Identifier: Apache-2.0 */
/* The stack as a whole: made, told the time and the link's facts, fed, and taken apart. What it
 * does with a frame is told in link.c, ip.c and the transports' files. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stack/network.h"

#define MTU_MIN4   576u
#define MTU_MIN6   1280u
#define MTU_MAX    65520u
#define FRAMES_MAX 16384u /* bounds what a link that is full can make the stack hold */

static uint32_t clamp_mtu(const struct stack *stack, uint32_t mtu)
{
    uint32_t min = stack->config.ipv6 ? MTU_MIN6 : MTU_MIN4;

    if (mtu < min)
        return min;
    return mtu > MTU_MAX ? MTU_MAX : mtu;
}

static bool make_parts(struct stack *stack)
{
    const struct pool_config frames = {
        .linear_capacity = FRAME_HEADROOM,
        .segment_capacity = FRAME_SEGMENTS,
        .max = FRAMES_MAX,
        .keep = 512,
    };

    stack->frames = pool_new(&frames);
    stack->link_layer = link_new(stack);
    if (!stack->frames || !stack->link_layer)
        return false;
    stack->ip = ip_new(stack);
    if (!stack->ip)
        return false;
    link_changed(stack);
    stack->tcp = tcp_new(stack);
    return stack->tcp != NULL;
}

struct stack *stack_new(const struct stack_config *config, const struct stack_ops *ops, void *ctx,
                        struct timers *timers, struct counters *counters, uint64_t now)
{
    struct stack *stack = calloc(1, sizeof *stack);

    if (!stack) {
        errno = ENOMEM;
        return NULL;
    }
    stack->config = *config;
    stack->ops = *ops;
    stack->ctx = ctx;
    stack->timers = timers;
    stack->counters = counters;
    stack->now = now;
    stack->link = (struct culvert_link){.mtu = clamp_mtu(stack, config->mtu), .up = true};
    if (!make_parts(stack)) {
        stack_free(stack);
        errno = ENOMEM;
        return NULL;
    }
    return stack;
}

struct stack *stack_free(struct stack *stack)
{
    if (!stack)
        return NULL;
    if (stack->tcp)
        tcp_free(stack->tcp);
    ip_free(stack->ip);
    link_free(stack->link_layer);
    if (stack->frames)
        pool_free(stack->frames);
    free(stack);
    return NULL;
}

void stack_set_now(struct stack *stack, uint64_t now)
{
    stack->now = now;
}

void stack_set_link(struct stack *stack, const struct culvert_link *link)
{
    stack->link = *link;
    stack->link.mtu = clamp_mtu(stack, link->mtu ? link->mtu : stack->config.mtu);
    link_changed(stack);
    ip_link_changed(stack);
    tcp_link_changed(stack);
}

void stack_input(struct stack *stack, struct culvert_frame *frame)
{
    link_input(stack, frame);
}

void stack_link_writable(struct stack *stack)
{
    tcp_link_writable(stack);
}

void stack_batch_end(struct stack *stack, enum stack_acks acks)
{
    tcp_batch_end(stack, acks);
}
