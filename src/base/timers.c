/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation.
 *
 * Armed timers form a pairing heap: a tree in which no child is due before its parent, so that the
 * root is the earliest. `child` is a timer's first child, `next` its right sibling, and
 * `prev_next` the pointer that points at it: its parent's `child`, its left sibling's `next`, or
 * the heap's `root`.
 *
 * Why not a timing wheel: arming is as cheap here (one comparison, a few pointers), there is no
 * tick and no cascade, and the next deadline is exact at any distance, which is what lets an idle
 * engine sleep through. Cancelling a timer without children, the rule for a retransmission timer
 * that is moved at every ACK, is O(1), and so is moving a timer that became the earliest when it
 * was armed; otherwise it is O(log n), amortised. Nothing allocates, so arming cannot fail.
 *
 * timers_expire() first moves what is due to a list, then calls: what a callback arms is in the
 * heap and waits for the next call, what it cancels leaves the list. Each timer knows where it is
 * by `slot`. */

#include "base/timers.h"

#include <assert.h>
#include <stdlib.h>

enum timer_slot {
    TIMER_SLOT_NONE, /* not armed */
    TIMER_SLOT_HEAP,
    TIMER_SLOT_DUE, /* taken out of the heap, about to be called */
};

struct timers {
    struct timer *root;
    struct timer *due;
    void *arg;
    bool expiring;
};

static_assert((TIMERS_SLACK & (TIMERS_SLACK - 1)) == 0, "timers_next() rounds by masking");

struct timers *timers_new(void *arg, uint64_t now)
{
    (void)now;
    struct timers *timers = calloc(1, sizeof *timers);
    if (timers)
        timers->arg = arg;
    return timers;
}

struct timers *timers_free(struct timers *timers)
{
    free(timers);
    return NULL;
}

void timer_init(struct timer *timer, void (*expired)(void *, struct timer *, uint64_t))
{
    *timer = (struct timer){.expired = expired};
}

/* Puts `timer`, with whatever hangs below it, at `*where`, in front of `next`. */
static inline void link_at(struct timer **where, struct timer *timer, struct timer *next)
{
    timer->next = next;
    if (next)
        next->prev_next = &timer->next;
    timer->prev_next = where;
    *where = timer;
}

static inline void unlink_timer(struct timer *timer)
{
    *timer->prev_next = timer->next;
    if (timer->next)
        timer->next->prev_next = timer->prev_next;
}

/* Makes the later of two trees the first child of the other, which is returned, linked nowhere. */
static inline struct timer *meld(struct timer *a, struct timer *b)
{
    if (b->deadline < a->deadline) {
        struct timer *earlier = b;
        b = a;
        a = earlier;
    }
    link_at(&a->child, b, a->child);
    return a;
}

/* One tree out of a list of siblings: first in pairs from the left, then all pairs from the right;
 * it is this order that keeps the cost logarithmic. */
static struct timer *meld_siblings(struct timer *first)
{
    struct timer *pairs = NULL;
    while (first) {
        struct timer *tree = first;
        first = tree->next;
        if (first) {
            struct timer *second = first;
            first = second->next;
            tree = meld(tree, second);
        }
        tree->next = pairs;
        pairs = tree;
    }
    struct timer *root = pairs;
    if (root)
        pairs = root->next;
    while (pairs) {
        struct timer *tree = pairs;
        pairs = tree->next;
        root = meld(root, tree);
    }
    return root;
}

static void heap_insert(struct timers *timers, struct timer *timer)
{
    timer->child = NULL;
    timer->slot = TIMER_SLOT_HEAP;
    link_at(&timers->root, timers->root ? meld(timers->root, timer) : timer, NULL);
}

/* The children's tree takes the place of `timer`: none of them is due before its parent. */
static void heap_remove(struct timer *timer)
{
    if (timer->child)
        link_at(timer->prev_next, meld_siblings(timer->child), timer->next);
    else
        unlink_timer(timer);
}

void timer_arm(struct timers *timers, struct timer *timer, uint64_t deadline)
{
    if (timer->slot == TIMER_SLOT_HEAP && timer->deadline == deadline)
        return;
    timer_cancel(timers, timer);
    timer->deadline = deadline;
    heap_insert(timers, timer);
}

void timer_cancel(struct timers *timers, struct timer *timer)
{
    (void)timers;
    if (!timer_armed(timer))
        return;
    if (timer->slot == TIMER_SLOT_HEAP)
        heap_remove(timer);
    else
        unlink_timer(timer);
    timer->next = timer->child = NULL;
    timer->prev_next = NULL;
    timer->slot = TIMER_SLOT_NONE;
}

/* Rounded up: timers that are due within TIMERS_SLACK of each other cost one wake-up. */
uint64_t timers_next(const struct timers *timers)
{
    if (!timers->root)
        return TIMERS_NEVER;
    uint64_t deadline = timers->root->deadline;
    if (deadline > TIMERS_NEVER - TIMERS_SLACK)
        return deadline;
    return (deadline + TIMERS_SLACK - 1) & ~(TIMERS_SLACK - 1);
}

/* Moves everything due from the heap to the list `due`, earliest first. */
static void gather_due(struct timers *timers, uint64_t now)
{
    struct timer **end = &timers->due;
    while (timers->root && timers->root->deadline <= now) {
        struct timer *timer = timers->root;
        heap_remove(timer);
        timer->child = NULL;
        timer->slot = TIMER_SLOT_DUE;
        link_at(end, timer, NULL);
        end = &timer->next;
    }
}

void timers_expire(struct timers *timers, uint64_t now)
{
    assert(!timers->expiring && "no callback expires timers");
    timers->expiring = true;
    gather_due(timers, now);
    while (timers->due) {
        struct timer *timer = timers->due;
        timer_cancel(timers, timer);
        timer->expired(timers->arg, timer, now);
    }
    timers->expiring = false;
}
