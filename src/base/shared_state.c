/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation.
 *
 * The link's facts are words behind a sequence lock: odd while a writer is at it, so a reader
 * copies and tries again if the sequence was odd or moved. Each word is stored with release and
 * loaded with acquire, so a reader that sees any word of a writer also sees the sequence that
 * writer set first. Writers take turns by a mutex; readers take none.
 *
 * The termination hook is a pair under the same mutex; triggering copies it and calls it with the
 * mutex released, so that the hook may call anything here. */

#include <assert.h>
#include <culvert/shared_state.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/ring.h"
#include "base/wake.h"

#define LINK_WORDS (sizeof(struct culvert_link) / sizeof(uint32_t))

static_assert(sizeof(struct culvert_link) % sizeof(uint32_t) == 0, "the link is whole words");

struct culvert_shared_state_private {
    uint64_t tx_bytes __attribute__((aligned(64)));
    uint64_t rx_bytes __attribute__((aligned(64)));
    uint32_t link_sequence __attribute__((aligned(64)));
    uint32_t link[LINK_WORDS];
    pthread_mutex_t lock; /* writers of the link; the hook */
    void (*hook)(void *);
    void *hook_arg;
};

static int init(struct culvert_shared_state *state, size_t capacity)
{
    state->rx_wake.fd = state->tx_wake.fd = state->proxy_wake.fd = -1;
    state->priv = aligned_alloc(64, sizeof *state->priv);
    if (!state->priv)
        return -ENOMEM;
    memset(state->priv, 0, sizeof *state->priv);
    pthread_mutex_init(&state->priv->lock, NULL);
    int r = wake_init(&state->rx_wake);
    if (r == 0)
        r = wake_init(&state->tx_wake);
    if (r == 0)
        r = wake_init(&state->proxy_wake);
    /* What waits for room in a ring is that ring's producer. */
    if (r == 0)
        r = ring_init(&state->tx_ring, capacity, &state->rx_wake);
    if (r == 0)
        r = ring_init(&state->rx_ring, capacity, &state->tx_wake);
    return r;
}

struct culvert_shared_state *culvert_shared_state_new(size_t queue_capacity)
{
    struct culvert_shared_state *state = calloc(1, sizeof *state);
    if (!state)
        return NULL;
    int r = init(state, queue_capacity);
    if (r < 0) {
        culvert_shared_state_free(state);
        errno = -r;
        return NULL;
    }
    return state;
}

void culvert_shared_state_free(struct culvert_shared_state *state)
{
    if (!state)
        return;
    ring_fini(&state->tx_ring);
    ring_fini(&state->rx_ring);
    wake_fini(&state->rx_wake);
    wake_fini(&state->tx_wake);
    wake_fini(&state->proxy_wake);
    if (state->priv)
        pthread_mutex_destroy(&state->priv->lock);
    free(state->priv);
    free(state);
}

void culvert_shared_state_set_link(struct culvert_shared_state *state,
                                   const struct culvert_link *link)
{
    struct culvert_shared_state_private *priv = state->priv;
    struct culvert_link next;
    uint32_t words[LINK_WORDS];

    memset(&next, 0, sizeof next); /* padding too */
    next.offloads = link->offloads;
    next.mtu = link->mtu;
    memcpy(next.mac, link->mac, sizeof next.mac);
    next.up = link->up;

    pthread_mutex_lock(&priv->lock);
    uint32_t sequence = priv->link_sequence;
    next.generation = sequence / 2 + 1;
    memcpy(words, &next, sizeof words);
    __atomic_store_n(&priv->link_sequence, sequence + 1, __ATOMIC_RELAXED);
    for (size_t i = 0; i < LINK_WORDS; i++)
        __atomic_store_n(&priv->link[i], words[i], __ATOMIC_RELEASE);
    __atomic_store_n(&priv->link_sequence, sequence + 2, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&priv->lock);
    culvert_wake_signal(&state->tx_wake);
}

void culvert_shared_state_link(const struct culvert_shared_state *state,
                               struct culvert_link *ret_link)
{
    const struct culvert_shared_state_private *priv = state->priv;
    uint32_t words[LINK_WORDS];
    uint32_t before, after;
    do {
        before = __atomic_load_n(&priv->link_sequence, __ATOMIC_ACQUIRE);
        for (size_t i = 0; i < LINK_WORDS; i++)
            words[i] = __atomic_load_n(&priv->link[i], __ATOMIC_ACQUIRE);
        after = __atomic_load_n(&priv->link_sequence, __ATOMIC_RELAXED);
    } while (before != after || before % 2 != 0);
    memcpy(ret_link, words, sizeof words);
}

void culvert_shared_state_set_termination_hook(struct culvert_shared_state *state,
                                               void (*hook)(void *), void *arg)
{
    struct culvert_shared_state_private *priv = state->priv;
    pthread_mutex_lock(&priv->lock);
    priv->hook = hook;
    priv->hook_arg = arg;
    pthread_mutex_unlock(&priv->lock);
}

void culvert_shared_state_trigger_termination(struct culvert_shared_state *state)
{
    struct culvert_shared_state_private *priv = state->priv;
    pthread_mutex_lock(&priv->lock);
    void (*hook)(void *) = priv->hook;
    void *arg = priv->hook_arg;
    pthread_mutex_unlock(&priv->lock);
    if (hook)
        hook(arg);
}

void culvert_shared_state_add_tx_bytes(struct culvert_shared_state *state, size_t bytes)
{
    __atomic_fetch_add(&state->priv->tx_bytes, bytes, __ATOMIC_RELAXED);
}

void culvert_shared_state_add_rx_bytes(struct culvert_shared_state *state, size_t bytes)
{
    __atomic_fetch_add(&state->priv->rx_bytes, bytes, __ATOMIC_RELAXED);
}

uint64_t culvert_shared_state_tx_bytes(const struct culvert_shared_state *state)
{
    return __atomic_load_n(&state->priv->tx_bytes, __ATOMIC_RELAXED);
}

uint64_t culvert_shared_state_rx_bytes(const struct culvert_shared_state *state)
{
    return __atomic_load_n(&state->priv->rx_bytes, __ATOMIC_RELAXED);
}
