/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

/* The host-facing half: real sockets for the guest's flows. Poll thread only. */

#include "base/counters.h"
#include "base/loop.h"
#include "base/timers.h"
#include "stack/stack.h"

struct relay;

struct relay *relay_new(struct stack *stack, struct loop *loop, struct timers *timers,
                        struct counters *counters);
/* Connections still open are reset on both sides (the stack is told), so that the stack and the
 * relay may be freed in either order. */
struct relay *relay_free(struct relay *relay);
/* The MTU of the guest's link (1500 until told): datagrams are put together only if they fit it. */
void relay_set_mtu(struct relay *relay, uint32_t mtu);

/* Connects `flow` to `to` (already translated: the gateway's address has become loopback) and makes
 * itself its upstream. Whatever comes of it, now or later, reaches the stack by tcp_connected() or
 * tcp_refuse(). */
void relay_tcp_connect(struct relay *relay, struct flow_handle flow, const struct ip_endpoint *to,
                       uint64_t now);

/* May the connection of `flow` stay? `client` (NULL: the guest began it) came to a published port.
 */
typedef bool relay_tcp_keep(void *ctx, struct flow_handle flow, const struct ip_address *client);
/* Asks `keep` about at most `max` connections, from *at (0 at first) on, and resets the others on
 * both sides. Not from within a call of the stack's. True: there are more. */
bool relay_tcp_review(struct relay *relay, uint32_t *at, uint32_t max, relay_tcp_keep *keep,
                      void *ctx);

/* Sends the guest's datagram from the socket of its (address, port), made if missing, to `to`. */
void relay_udp_send(struct relay *relay, const struct udp_datagram *datagram,
                    const struct ip_endpoint *to, uint64_t now);
/* Is `datagram`'s destination among the peers of its mapping, judged allowed under policy
 * `generation`? Then relay_udp_send() may be called with no new verdict. */
bool relay_udp_peer_known(struct relay *relay, const struct flow_key *key, uint32_t generation,
                          struct ip_endpoint *ret_to);
/* Is it a watched one? Only of a peer that was just found known. */
bool relay_udp_peer_watched(struct relay *relay, const struct flow_key *key);
/* `watched`: whoever allowed it goes on looking at its datagrams, and wants to hear of its end.
 * False: no memory or socket, counted. */
bool relay_udp_peer_allow(struct relay *relay, const struct flow_key *key, uint32_t generation,
                          const struct ip_endpoint *to, bool watched, uint64_t now);
/* What it sends from now on is no longer let through. */
void relay_udp_peer_forget(struct relay *relay, const struct flow_key *key);
/* `gone` is called when a watched peer is no longer known, but by relay_udp_peer_forget(). */
void relay_on_udp_peer_gone(struct relay *relay,
                            void (*gone)(void *ctx, const struct flow_key *key), void *ctx);

void relay_echo_send(struct relay *relay, const struct echo_request *request,
                     const struct ip_address *to, uint64_t now);
/* May the guest still send under `key`? */
typedef bool relay_judge(void *ctx, const struct flow_key *key);
/* To be asked about whoever sends datagrams or echo replies to the guest, once after each
 * relay_policy_changed(). Without it all may. */
void relay_set_judge(struct relay *relay, relay_judge *judge, void *ctx);
void relay_policy_changed(struct relay *relay);

/* 0: ping sockets or raw sockets may be used; negative errno: neither (said in a note at start). */
int relay_echo_available(const struct relay *relay, bool v6);

/* Reads ready sockets in turn, each a quantum. True: some are still ready, so do not sleep. */
bool relay_run(struct relay *relay, uint64_t now);
/* Has anything become ready since (a resumed flow, a failed write)? Asked before a sleep. */
bool relay_pending(const struct relay *relay);
/* The end of a batch: gathered datagrams leave (sendmmsg, UDP_SEGMENT). */
void relay_batch_end(struct relay *relay);

#endif
