/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CULVERT_SHARED_STATE_H
#define CULVERT_SHARED_STATE_H

/** @file
 * Where the three parties of an engine meet: the NetWorker at the guest's virtio-net device, the
 * poll thread with the TCP/IP stack, and the proxy workers. Names are from the guest's side:
 * `tx_ring` carries what the guest transmitted, `rx_ring` what it is to receive.
 *
 *     NetWorker:   push to tx_ring, signal tx_wake;   woken by rx_wake, pop rx_ring
 *     poll thread: woken by tx_wake, pop tx_ring;     push to rx_ring, signal rx_wake
 *     proxies:     hand results to the poll thread and signal proxy_wake
 */

#include <culvert/frame.h>
#include <culvert/ring.h>
#include <culvert/wake.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** What the guest's device accepts in received frames (culvert_link.offloads). */
enum culvert_link_offload {
    CULVERT_LINK_CSUM = 1, /**< frames with CULVERT_OFFLOAD_NEEDS_CSUM */
    CULVERT_LINK_TSO4 = 2,
    CULVERT_LINK_TSO6 = 4,
    CULVERT_LINK_USO = 8, /**< CULVERT_GSO_UDP_L4, both families */
    CULVERT_LINK_ECN = 16,
    /** Frames of this device may carry checksums the guest left undone without saying so: never
       verify. */
    CULVERT_LINK_CSUM_UNKNOWN = 32,
};

/** The link's facts. */
struct culvert_link {
    uint32_t offloads; /**< enum culvert_link_offload */
    uint32_t mtu;      /**< bytes of IP packet; 576 to 65520 */
    uint8_t mac[6];    /**< the guest's; all zero: learnt from its frames */
    bool up;
    uint32_t generation; /**< changes with every culvert_shared_state_set_link() */
};

struct culvert_shared_state {
    struct culvert_ring tx_ring;    /**< transmitted by the guest */
    struct culvert_ring rx_ring;    /**< to be received by the guest */
    struct culvert_wake rx_wake;    /**< wakes the NetWorker */
    struct culvert_wake tx_wake;    /**< wakes the poll thread */
    struct culvert_wake proxy_wake; /**< wakes the poll thread: a proxy has something for it */
    struct culvert_shared_state_private *priv;
};

/** Both rings hold `queue_capacity` frames. NULL with errno EINVAL (capacity 0), ENOMEM, EMFILE, …
 */
struct culvert_shared_state *culvert_shared_state_new(size_t queue_capacity);
/** Frames still queued are released. Accepts NULL. No other thread may use it any more. */
void culvert_shared_state_free(struct culvert_shared_state *state);

/** Replaces the link's facts (generation is set by the call, the member given is ignored) and
 * signals tx_wake. A guest may reset its device at any time, so this may be called at any time. Any
 * thread. */
void culvert_shared_state_set_link(struct culvert_shared_state *state,
                                   const struct culvert_link *link);
/** A consistent copy of the link's facts. Any thread. */
void culvert_shared_state_link(const struct culvert_shared_state *state,
                               struct culvert_link *ret_link);

/** The hook that ends the guest (NULL: none). Replaces the earlier one; once this has returned, an
 * earlier hook may still be running in another thread but is not begun again. Any thread. */
void culvert_shared_state_set_termination_hook(struct culvert_shared_state *state,
                                               void (*hook)(void *), void *arg);
/** Calls the hook, if there is one, in this thread and under no lock: the hook may call anything
 * here. */
void culvert_shared_state_trigger_termination(struct culvert_shared_state *state);

/** Bytes guest → runtime that were really queued. Any thread. */
void culvert_shared_state_add_tx_bytes(struct culvert_shared_state *state, size_t bytes);
/** Bytes runtime → guest that were really queued. Any thread. */
void culvert_shared_state_add_rx_bytes(struct culvert_shared_state *state, size_t bytes);
uint64_t culvert_shared_state_tx_bytes(const struct culvert_shared_state *state);
uint64_t culvert_shared_state_rx_bytes(const struct culvert_shared_state *state);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
