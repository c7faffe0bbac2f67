/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_NETDEV_H
#define NETDEV_NETDEV_H

/* A way for the guest's frames to come in and go out, driven by the poll thread.
 *
 * Frames towards the guest come complete with their facts (GSO, NEEDS_CSUM with the pseudo header's
 * sum in place). A netdev whose guest does not accept them (link.offloads) segments and sums in
 * software (software_offload.h) before they leave. Frames from the guest have their facts checked
 * against their lengths (offload_check.h); wrong ones are counted and never reach the stack. */

#include <culvert/frame.h>
#include <culvert/shared_state.h>

#include "base/counters.h"
#include "base/loop.h"

struct netdev;

struct netdev_ops {
    /* Takes up to `max` frames from the guest, each with one reference for the caller. The number
     * taken; 0: none now; negative errno: the device is gone (-ENODEV, -EPIPE …). */
    int (*receive)(struct netdev *netdev, struct culvert_frame **ret_frames, int max);
    /* Sends. 0: taken (one reference), or dropped and counted. -EAGAIN: no room, the caller keeps
     * its reference and tries again after `writable`. */
    int (*send)(struct netdev *netdev, struct culvert_frame *frame);
    /* The end of a batch of sends: whatever was gathered goes out now. May be NULL. */
    void (*flush)(struct netdev *netdev);
    /* The poll thread is about to sleep. True: there is something to do after all. May be NULL. */
    bool (*will_sleep)(struct netdev *netdev);
    /* Somebody looks at the counters: those that are kept elsewhere are fetched. Any thread. May be
     * NULL. */
    void (*refresh_counters)(struct netdev *netdev);
    void (*free)(struct netdev *netdev);
};

struct netdev {
    const struct netdev_ops *ops;
    struct counters *counters;
    struct culvert_link link; /* the current facts */
    /* Called by the netdev from its event handler, on the poll thread: */
    void (*readable)(void *ctx); /* receive() has something */
    void (*writable)(void *ctx); /* send() has room again after -EAGAIN */
    void (*link_changed)(void *ctx);
    void *ctx;
};

/* The rings of a SharedState (borrowed), whose NetWorker is somebody else's thread. */
struct netdev *netdev_ring_new(struct culvert_shared_state *state, struct loop *loop,
                               struct counters *counters);
/* A TAP descriptor (taken over) with virtio headers, read and written by the poll thread itself.
 * NULL, errno. */
struct netdev *netdev_tap_new(int take_fd, uint32_t mtu, struct loop *loop,
                              struct counters *counters);

/* A packet socket of packet_open()'s (taken over), read and written by the poll thread. NULL,
 * errno.
 */
struct netdev *netdev_packet_new(int take_fd, uint32_t mtu, struct loop *loop,
                                 struct counters *counters);

/* The front ends of `culvert serve` that are sockets. `where` is what the option takes; each
 * listens or connects by itself, takes one guest at a time, and survives its going: the link goes
 * down (link_changed), and up again with the next one. */
struct netdev_config {
    const char *where; /* PATH, "connect:PATH", "fd:N": as the front end says */
    uint32_t mtu;
    bool once; /* the guest's going is the end: receive() returns -EPIPE */
};

/* Each: NULL with errno and `message` (one sentence: what, why, the mend). */
struct netdev *netdev_stream_new(const struct netdev_config *config, struct loop *loop,
                                 struct counters *counters, char *message, size_t size);
struct netdev *netdev_dgram_new(const struct netdev_config *config, struct loop *loop,
                                struct counters *counters, char *message, size_t size);
struct netdev *netdev_vhost_user_new(const struct netdev_config *config, struct loop *loop,
                                     struct counters *counters, char *message, size_t size);

#endif
