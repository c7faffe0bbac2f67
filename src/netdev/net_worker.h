/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_NET_WORKER_H
#define NETDEV_NET_WORKER_H

/* A NetWorker for TAP devices: a thread that moves frames between a TAP and a SharedState by the
 * public API alone, as a VMM's own thread would. It is the other end of netdev_ring_new(). */

#include <culvert/shared_state.h>
#include <stdint.h>

struct net_worker;

/* Configures the TAP descriptor (taken over on success), describes the link in the SharedState
 * (borrowed; must outlive the worker) and starts the thread. NULL with errno. */
struct net_worker *net_worker_start(struct culvert_shared_state *state, int take_fd, uint32_t mtu);
/* Ends the thread, takes the link down and closes the TAP. Accepts NULL; returns NULL. */
struct net_worker *net_worker_stop(struct net_worker *worker);

#endif
