/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_INTERNAL_H
#define RELAY_INTERNAL_H

/* What the relay's files share. TCP flows live in relay_tcp.c alone; UDP and echo have in common
 * the mapping (mapping.c): a host socket for one guest (address, port or identifier). */

#include <linux/errqueue.h>

#include "base/list.h"
#include "base/pool.h"
#include "relay/relay.h"
#include "relay/slots.h"

struct mapping;
struct publish;
struct port;
struct udp_batch;
struct udp_receiver;
struct echo_buffer;

enum echo_mode {
    ECHO_MODE_NONE,
    ECHO_MODE_PING, /* SOCK_DGRAM: the kernel writes the identifier */
    ECHO_MODE_RAW,  /* SOCK_RAW, with CAP_NET_RAW: the identifier is ours to choose and to check */
};

struct relay {
    struct stack *stack;
    struct loop *loop;
    struct timers *timers;
    struct counters *counters;
    uint64_t now;
    uint32_t mtu; /* of the guest's link */

    relay_judge *judge; /* NULL: whom the guest has sent to may answer */
    void *judge_ctx;
    uint32_t policies; /* that came into force */

    /* relay_tcp.c */
    unsigned tcp_handler;
    uint16_t own_port_low, own_port_high; /* what the kernel may pick for a socket of ours */
    struct slots flows;
    struct list ready_flows;
    struct list orphans; /* oldest first */

    /* mapping.c */
    unsigned mapping_handler;
    struct slots mappings;
    struct mapping **buckets;
    size_t bucket_count; /* a power of two; 0 before the first mapping */
    uint64_t hash_key[2];
    struct list ready_mappings;
    struct list mappings_by_use; /* least recently used first, to the second */
    uint32_t udp_max, udp_count, echo_max, echo_count;
    struct mapping *last_mapping; /* the one found last: the guest sends in runs */

    struct udp_batch *batch;       /* relay_udp.c; NULL before the first datagram */
    struct udp_receiver *receiver; /* relay_udp_receive.c; likewise */
    struct echo_buffer *echo_buffer;
    void (*udp_peer_gone)(void *ctx, const struct flow_key *key); /* NULL: nobody asks */
    void *udp_peer_gone_ctx;
    enum echo_mode echo4, echo6; /* relay_echo.c */
    int echo4_error, echo6_error;
    uint16_t echo_identifier_base; /* raw mode */

    struct publish *publish; /* publish.c; NULL: no port is published */
};

/* relay_tcp.c */
void relay_tcp_init(struct relay *relay);
void relay_tcp_fini(struct relay *relay);
bool relay_tcp_run(struct relay *relay);
/* A connection (taken over) that a published port accepted: begins a flow to the guest under `key`.
 * The client learns by a RST if that comes to nothing. */
void relay_tcp_accepted(struct relay *relay, int take_fd, const struct flow_key *key);
/* Closes the connection by a RST. */
void relay_tcp_abort(int take_fd);
/* The guest is away: who waits for its answer is reset. */
void relay_tcp_link_down(struct relay *relay);

/* publish.c: a descriptor can be had again */
void publish_descriptor_freed(struct publish *publish);
static inline void relay_descriptor_freed(struct relay *relay)
{
    if (__builtin_expect(relay->publish != NULL, false))
        publish_descriptor_freed(relay->publish);
}

/* A socket option that cannot fail in a way that matters: what it would have improved is lost. */
void relay_set_option(int fd, int level, int option, int value);
/* Connecting or sending to the unspecified address would reach the host's loopback. */
bool relay_address_unspecified(const struct ip_address *address);

/* ---- mappings ---- */

/* Whom a mapping has sent to: only they may answer. */
struct peer {
    struct ip_endpoint remote; /* as the guest knows it */
    struct ip_endpoint real;   /* where it is sent */
    uint32_t generation;       /* of the policy that allowed it */
    uint32_t used;             /* the mapping's use_clock when it was last looked up */
    bool judged;
    uint32_t answers_checked; /* relay.policies when it was asked whether the peer may answer */
    bool answers_denied;
    bool watched; /* its end is of interest: relay_on_udp_peer_gone() */
};

#define PEERS_MAX 64

struct mapping {
    struct slot slot;
    struct relay *relay;
    struct ip_address guest;
    uint16_t guest_port; /* or identifier */
    uint8_t protocol;
    bool v6; /* the socket; a published one may lead to the guest's other family */
    int fd;

    bool error_pending;     /* EPOLLERR was seen: the error queue wants reading */
    uint8_t appetite;       /* places offered to the next recvmmsg(); 0: the first */
    bool answered;          /* traffic has gone both ways */
    uint8_t ttl, tos;       /* as the socket is set; 0: the host's default */
    int8_t dont_fragment;   /* as the socket is set; -1: as it was made */
    bool raw;               /* echo over a raw socket */
    uint16_t identifier;    /* of a raw socket's echoes */
    uint16_t segment_max;   /* UDP_SEGMENT works up to this many bytes a datagram; 0: not at all */
    struct port *published; /* its peers are clients, kept by publish_udp.c; NULL: they are here */

    struct mapping *next_in_bucket;
    struct list ready, by_use;
    uint64_t last_used, listed_at;
    struct timer idle;

    struct peer *peers;
    uint8_t peer_count, peer_capacity, last_peer;
    uint32_t use_clock;

    /* relay_udp.c: what waits for the end of the batch; message numbers + 1, 0: none */
    uint16_t first_message, last_message;
    struct mapping *next_pending;
};

int mapping_init(struct relay *relay);
void mapping_fini(struct relay *relay);
bool mapping_run(struct relay *relay);
struct mapping *mapping_find(struct relay *relay, const struct flow_key *key);
/* Made if missing, at the expense of the least recently used one when a bound is reached. NULL:
 * counted. */
struct mapping *mapping_obtain(struct relay *relay, const struct flow_key *key);
void mapping_close(struct mapping *mapping);
/* The mapping of a published port: not found by the guest's address, never evicted, not idle. Its
 * socket is still to be bound. 0 or negative errno. */
int mapping_publish(struct relay *relay, const struct flow_key *key, bool v6, struct port *port,
                    struct mapping **ret);
/* Traffic went to (or, `answered`, came from) a peer. */
void mapping_touch(struct mapping *mapping, bool answered);
/* NULL: none such. */
struct peer *mapping_peer_of_remote(struct mapping *mapping, const struct ip_address *address,
                                    uint16_t port);
struct peer *mapping_peer_of_real(struct mapping *mapping, const struct ip_address *address,
                                  uint16_t port);
/* The peer `key` names, made if missing (the oldest goes); NULL: no memory. */
struct peer *mapping_peer_obtain(struct mapping *mapping, const struct flow_key *key,
                                 const struct ip_endpoint *real);
/* May the peer (as found) answer, by the policy in force? */
bool mapping_peer_may_answer(struct mapping *mapping, struct peer *peer);
/* Takes the peer out of the list, in silence. */
void mapping_peer_remove(struct mapping *mapping, const struct peer *peer);
struct flow_key mapping_key(const struct mapping *mapping, const struct peer *peer);
/* Sets what differs from what the socket has. ttl 0: leave it. */
void mapping_set_header(struct mapping *mapping, uint8_t ttl, uint8_t tos, bool dont_fragment);
/* Reads the error queue and reports what concerns a peer to the stack. *ret_mtu (NULL allowed)
 * becomes the path's MTU if a message of ours was refused for its size. */
void mapping_drain_errors(struct mapping *mapping, uint32_t *ret_mtu);
/* sendmsg() failed with `error` for what `frame` (NULL: unknown) brought, pending errors put aside:
 * counts, and tells the guest. */
void mapping_send_failed(struct mapping *mapping, int error, struct culvert_frame *frame,
                         uint32_t mtu);

/* Errors that may belong to an earlier datagram, to another peer. */
bool mapping_error_is_borrowed(int error);

/* publish_udp.c: who sent to a published port, to which of the host's addresses (all zero: the one
 * it is bound to; new clients are judged; NULL: refused), and a client that is known */
struct peer *publish_udp_sender(struct mapping *mapping, const struct ip_endpoint *client,
                                const struct ip_address *local);
struct peer *publish_udp_peer(struct mapping *mapping, const struct ip_address *address,
                              uint16_t udp_port);
/* Which of the guest's addresses a client of a published port reaches. */
struct ip_address publish_udp_guest(const struct peer *peer);

/* relay_udp.c */
/* Sends the guest's datagram from the mapping's socket, when the batch ends; `from`: which of the
 * host's addresses, all zero: as its routes say. */
void udp_send_from(struct mapping *mapping, const struct udp_datagram *datagram,
                   const struct ip_endpoint *to, const struct ip_address *from);
void udp_flush_mapping(struct mapping *mapping);
void udp_batch_free(struct relay *relay);
/* relay_udp_receive.c: a turn; true: there may be more */
bool udp_receive(struct mapping *mapping);
void udp_receiver_free(struct relay *relay);
/* relay_echo.c */
void echo_probe(struct relay *relay);
int echo_socket(struct relay *relay, bool v6);
bool echo_receive(struct mapping *mapping);
/* Behind the ICMP header of an echo request that the error queue quotes: fills sequence, payload
 * and payload_len of `report`. False: not an echo of ours. */
bool echo_quoted(const struct mapping *mapping, const uint8_t *data, size_t len,
                 struct icmp_report *report);
void echo_buffer_free(struct relay *relay);

#endif
