/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_INGRESS_H
#define ENGINE_INGRESS_H

/* The way in, for ports that follow what the guest listens on (-p auto). */

#include <culvert/engine.h>
#include <stddef.h>
#include <stdint.h>

#define INGRESS_LISTENERS_MAX 256

struct ingress_listener {
    uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
    uint16_t port;
};

/* What the guest listens on now, no more than INGRESS_LISTENERS_MAX: each is published at the same
 * port of 127.0.0.1, unless some port leads to it already; what it no longer listens on is closed.
 * Takes effect soon after. Any thread. 0, or -ENOMEM: nothing changes. */
int ingress_follow(struct culvert_engine *engine, const struct ingress_listener *listeners,
                   size_t count);
/* Why ports could not be published, each told once. Any one thread. */
void ingress_failures(struct culvert_engine *engine, void (*visit)(void *arg, const char *message),
                      void *arg);

#endif
