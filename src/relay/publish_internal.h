/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_PUBLISH_INTERNAL_H
#define RELAY_PUBLISH_INTERNAL_H

/* What the files of published ports share. */

#include "relay/internal.h"
#include "relay/publish.h"

struct sessions;

/* A port of the host's. */
struct port {
    struct slot slot;
    struct publish *publish;
    struct ip_endpoint at;
    uint16_t guest_port;
    uint8_t protocol;
    uint8_t appetite;        /* clients to accept at the next event */
    uint64_t filled_at;      /* when as many were last there */
    int fd;                  /* TCP: listens */
    struct mapping *mapping; /* UDP */
};

struct publish {
    struct relay *relay;
    struct stack_config guest;
    struct publish_ops ops;
    void *ctx;
    bool link_up;
    unsigned handler;
    struct slots ports;
    uint32_t next_name; /* where the search for a free port of the gateway's begins */

    bool resting; /* no descriptors: nothing is accepted until the timer says so */
    struct timer rest;

    uint32_t generation;       /* of the policy clients were judged by */
    struct sessions *sessions; /* publish_udp.c; NULL before the first UDP port */
};

/* How the guest sees `client` at `port`: fills the key, with a name that `is_free`. False: none is.
 */
bool publish_name(struct publish *publish, const struct port *port,
                  const struct ip_endpoint *client,
                  bool (*is_free)(struct publish *publish, const struct flow_key *key),
                  struct flow_key *ret);

/* The guest's address for clients of this family: of the other, if it lacks theirs. */
struct ip_address publish_guest_address(const struct publish *publish, bool v4);

/* publish_udp.c */
int publish_udp_open(struct port *port);
void publish_udp_close(struct port *port);
void publish_udp_fini(struct publish *publish);

#endif
