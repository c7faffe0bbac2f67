/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STACK_STACK_H
#define STACK_STACK_H

/* The guest-facing TCP/IP stack of one guest. Sans-I/O: frames and a clock come in; frames, timers
 * and calls on the operations below come out. One thread. It knows no socket and no file
 * descriptor.
 *
 * The clock is `now` in ns, given by stack_set_now() before each batch of calls; timers live in the
 * caller's `struct timers`. A batch is: stack_set_now, any number of stack_input / tcp_* / udp_*
 * calls, stack_batch_end. */

#include <culvert/frame.h>
#include <culvert/shared_state.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/counters.h"
#include "base/timers.h"
#include "wire/address.h"

struct stack;

/* A TCP flow: slot and generation. A stale handle is harmless: every call on it does nothing. */
struct flow_handle {
    uint32_t index, generation;
};

struct stack_config {
    uint8_t gateway_mac[6];
    uint32_t mtu;
    struct ip_address guest4, gateway4, dns4; /* guest4 all zero: no IPv4 */
    uint8_t prefix4;                          /* length in IPv4 terms: 24 */
    bool ipv6;
    struct ip_address guest6, gateway6, dns6, link_local6; /* link_local6: the router's, fe80::2 */
    uint8_t prefix6;                                       /* 64 */
    char hostname[64];
    uint32_t max_flows;    /* TCP */
    size_t queue_budget;   /* bytes queued for the host, all flows; 0: default */
    uint64_t hash_key[2];  /* secret: flow table, initial sequence numbers */
    bool verify_checksums; /* false for devices that lose the facts */
};

/* A datagram from the guest. Everything is borrowed until the callback returns; take a reference on
 * `frame` to keep the payload. `frame` may be a reassembled one. */
struct udp_datagram {
    struct flow_key key;
    struct culvert_frame *frame;
    size_t payload_offset; /* from the frame's first byte; see culvert_frame_slice() */
    size_t payload_len;
    uint16_t
        gso_size; /* 0: one datagram; else datagrams of this many bytes, the last may be shorter */
    uint8_t ttl, tos;
    bool dont_fragment;
};

struct echo_request {
    struct flow_key key; /* guest_port: identifier */
    uint16_t sequence;
    struct culvert_frame *frame;
    size_t payload_offset, payload_len; /* behind the 8 bytes of header */
    uint8_t ttl, tos;
    bool dont_fragment;
};

/* What the stack asks of whoever drives it. All are called on the poll thread, within a batch. */
struct stack_ops {
    /* A frame for the guest. 0: taken, with its reference. -EAGAIN: full; the caller keeps it, and
     * stack_link_writable() is called when there is room. */
    int (*send)(void *ctx, struct culvert_frame *frame);
    /* The guest's SYN for `key`: answer with tcp_set_upstream() and later tcp_connected(), or with
     * tcp_refuse(); at once or later. */
    void (*tcp_open)(void *ctx, struct flow_handle flow, const struct flow_key *key);
    void (*udp_input)(void *ctx, const struct udp_datagram *datagram);
    void (*echo_input)(void *ctx, const struct echo_request *request);
    /* A flow, whoever began it, is gone; its handle is stale after the call. May be NULL. */
    void (*tcp_closed)(void *ctx, struct flow_handle flow);
};

struct stack *stack_new(const struct stack_config *config, const struct stack_ops *ops, void *ctx,
                        struct timers *timers, struct counters *counters, uint64_t now);
struct stack *stack_free(struct stack *stack); /* flows are closed without a packet */
void stack_set_now(struct stack *stack, uint64_t now);
/* The guest's device changed what it accepts, or came up: MTU and MAC follow. */
void stack_set_link(struct stack *stack, const struct culvert_link *link);
/* One frame from the guest; borrowed (the stack takes its own references on what it keeps). */
void stack_input(struct stack *stack, struct culvert_frame *frame);
/* The link has room again after -EAGAIN. */
void stack_link_writable(struct stack *stack);
/* Which of the ACKs that are owed may wait. Whoever lets any wait calls again within microseconds.
 */
enum stack_acks {
    STACK_ACKS_NOW,            /* none */
    STACK_ACKS_OF_LITTLE_WAIT, /* a small message's: its answer may come and take it along */
    STACK_ACKS_WAIT, /* all that the guest does not need: more of its frames are at hand, and one
                        ACK answers several */
};
/* Ends a batch: gathered uploads are written, owed ACKs sent. */
void stack_batch_end(struct stack *stack, enum stack_acks acks);

/* ---- TCP, towards the host
 * -------------------------------------------------------------------------- The upstream of a
 * flow: what the stack calls. `token` is whatever tcp_set_upstream() was given. None of these may
 * free the flow under the stack: answers that end a flow (tcp_refuse, tcp_host_reset …) are allowed
 * inside only `tcp_open`. */
enum tcp_close {
    TCP_CLOSE_FINISHED, /* both directions ended in order, or the upstream refused or reset first */
    TCP_CLOSE_RESET, /* the guest reset: the peer is owed a RST once the bytes written have left (at
                        most 2 s) */
    TCP_CLOSE_VANISHED, /* the guest stopped answering, or the engine ends: RST now */
};

/* Two further answers of `write`: nothing is taken now, and it is asked again with all that is
 * there once more has come; and: this flow ends here, with a RST to both sides. */
#define TCP_WRITE_MORE    ((ssize_t)-EINPROGRESS)
#define TCP_WRITE_REFUSED ((ssize_t)-EACCES)

struct tcp_upstream {
    /* write() acts on what the bytes say, rather than passing them on: they are private then, and
     * cannot become others between two looks (culvert_frame.borrowed). */
    bool reads;
    /* Bytes taken (0: none now; fewer than offered: the rest is offered after tcp_writable()), or
     * negative errno (the connection is dead; tcp_host_reset() follows from the caller's own
     * event). */
    ssize_t (*write)(void *ctx, uint64_t token, const struct iovec *iov, int count);
    void (*shut_write)(void *ctx, uint64_t token); /* all bytes were written; FIN */
    void (*resume)(void *ctx,
                   uint64_t token); /* tcp_rx_reserve() has room again after it returned 0 */
    void (*keepalive)(void *ctx, uint64_t token); /* the guest probes with keepalives: do so too */
    /* tcp_refuse() ended the flow: in place of `close`, which the one that refused does not need.
     * For those that stand in front of another (tcp_wrap_upstream()); may be NULL. */
    void (*refused)(void *ctx, uint64_t token);
    /* The flow is gone from the stack; the token is not used again. */
    void (*close)(void *ctx, uint64_t token, enum tcp_close how);
};

enum tcp_refusal {
    TCP_REFUSE_RESET,      /* RST */
    TCP_REFUSE_SILENT,     /* nothing: the guest's SYN retransmission is the retry */
    TCP_REFUSE_NET,        /* ICMP network unreachable / no route */
    TCP_REFUSE_HOST,       /* ICMP host unreachable / address unreachable */
    TCP_REFUSE_PROHIBITED, /* ICMP administratively prohibited */
};

/* Who relays the flow. Before tcp_connected(). False: the flow is gone. */
bool tcp_set_upstream(struct stack *stack, struct flow_handle flow,
                      const struct tcp_upstream *upstream, void *ctx, uint64_t token);
/* An upstream as it was set. */
struct tcp_upstream_ref {
    const struct tcp_upstream *upstream;
    void *ctx;
    uint64_t token;
};
/* Puts another upstream in front of the flow's own, which is returned for it to call on. False: the
 * flow is gone, or has none. */
bool tcp_wrap_upstream(struct stack *stack, struct flow_handle flow,
                       const struct tcp_upstream_ref *wrapper, struct tcp_upstream_ref *ret_inner);
/* The host connection stands: answers the SYN. */
void tcp_connected(struct stack *stack, struct flow_handle flow);
/* It does not: the flow ends, `close` is not called. */
void tcp_refuse(struct stack *stack, struct flow_handle flow, enum tcp_refusal how);
/* Begins a flow towards the guest (published ports); the upstream's resume() is called once the
 * guest has answered, close() if it refuses. False: no flow or memory left, or the key is in use.
 */
bool tcp_open_to_guest(struct stack *stack, const struct flow_key *key,
                       const struct tcp_upstream *upstream, void *ctx, uint64_t token,
                       struct flow_handle *ret_flow);
/* Where flows towards the guest lead: its IPv4 address; of its IPv6 addresses the configured one,
 * or, if the guest does not use that, another it was heard from. */
struct ip_address stack_guest_address(struct stack *stack, bool v6);
/* Nobody answered for that address (and it is asked for again): a flow would lead nowhere. */
bool stack_guest_is_away(struct stack *stack, bool v6);
/* The upstream as it is now, a wrapper perhaps. False: the flow is gone, or has none. */
bool tcp_upstream_of(struct stack *stack, struct flow_handle flow, struct tcp_upstream_ref *ret);
/* False: the flow is gone. */
bool tcp_key_of(struct stack *stack, struct flow_handle flow, struct flow_key *ret_key);
/* Has nothing come from the guest yet, neither bytes nor FIN? What does will pass any upstream that
 * is put in front now. */
bool tcp_is_unheard(struct stack *stack, struct flow_handle flow);
/* Has the guest's FIN come? Then nothing follows what write() is offered. */
bool tcp_guest_has_finished(struct stack *stack, struct flow_handle flow);
/* Is there a live flow under this key? */
bool tcp_key_in_use(struct stack *stack, const struct flow_key *key);
/* Room for bytes from the host: fills iov (TCP_RESERVE_IOV entries at most) and returns their
 * number; 0: the guest's window or the budget is full, wait for resume(). Must be followed by
 * tcp_rx_commit() before any other reserve. */
#define TCP_RESERVE_IOV 5
int tcp_rx_reserve(struct stack *stack, struct flow_handle flow, struct iovec *iov);
/* `n` bytes were stored (0 allowed: nothing was there) and are sent when the batch ends, or much
 * has come. */
void tcp_rx_commit(struct stack *stack, struct flow_handle flow, size_t n);
/* The host side sent FIN. */
void tcp_rx_eof(struct stack *stack, struct flow_handle flow);
/* The host side is dead (RST, any error): what was committed goes out first, then RST. close()
 * follows at once, from within this call. */
void tcp_host_reset(struct stack *stack, struct flow_handle flow);
/* The policy ends the flow: RST to both sides, now. Not from within an upstream's call. */
void tcp_abort(struct stack *stack, struct flow_handle flow);
/* The upstream takes bytes again. */
void tcp_writable(struct stack *stack, struct flow_handle flow);
/* Another upstream has taken the place of one that answered TCP_WRITE_MORE: it is offered what
 * there is, without waiting for more. Not from within an upstream's call. */
void tcp_offer(struct stack *stack, struct flow_handle flow);
/* The guest's packets were too big on the host's path: not needed for TCP (the host kernel
 * segments). */

uint32_t tcp_flow_count(const struct stack *stack);
/* Bytes acknowledged to the guest that no upstream has taken yet. */
size_t tcp_queued_bytes(const struct stack *stack);
/* Every flow, for listings and tests. */
void tcp_for_each(struct stack *stack,
                  void (*visit)(void *arg, struct flow_handle flow, const struct flow_key *key,
                                const char *state),
                  void *arg);

/* ---- UDP and ICMP, towards the guest
 * ---------------------------------------------------------------- */

struct udp_output {
    struct flow_key key; /* as the guest sees it: from remote to guest */
    struct culvert_segment
        *segments; /* payload; the stack takes its own references on the buffers */
    uint16_t segment_count;
    size_t len;
    uint16_t gso_size; /* 0, or payload bytes per datagram (segments must fit the MTU) */
    uint8_t tos;
    uint8_t ttl; /* 0: 64 */
};
/* Fragments what exceeds the MTU. 0, or -EAGAIN (link full, counted), -ENOMEM. */
int stack_udp_output(struct stack *stack, const struct udp_output *output);

struct echo_reply {
    struct flow_key key;
    uint16_t sequence;
    const uint8_t *payload;
    size_t len;
    uint8_t ttl, tos;
};
int stack_echo_output(struct stack *stack, const struct echo_reply *reply);

/* What the host's error queue reports for a datagram or echo of the guest's, to be sent as an ICMP
 * that quotes it. */
enum icmp_problem {
    ICMP_PROBLEM_NET_UNREACHABLE,
    ICMP_PROBLEM_HOST_UNREACHABLE,
    ICMP_PROBLEM_PROTOCOL_UNREACHABLE,
    ICMP_PROBLEM_PORT_UNREACHABLE,
    ICMP_PROBLEM_PROHIBITED,
    ICMP_PROBLEM_TOO_BIG, /* with mtu */
    ICMP_PROBLEM_TIME_EXCEEDED,
};
struct icmp_report {
    struct flow_key key; /* of the guest's packet */
    enum icmp_problem problem;
    uint32_t mtu;
    struct ip_address
        reporter; /* who says so: a router (traceroute), the remote, or all zero: the gateway */
    const uint8_t
        *payload; /* of the guest's packet behind the UDP or echo header, as much as is known */
    size_t payload_len;  /* of the part that is known */
    size_t original_len; /* of the guest's whole payload; 0: unknown, payload_len */
    uint16_t sequence;   /* echo */
};
void stack_icmp_report(struct stack *stack, const struct icmp_report *report);
/* The same, quoting the packet in `frame` (a policy denial, EMSGSIZE at once). */
void stack_icmp_refuse(struct stack *stack, struct culvert_frame *frame, enum icmp_problem problem,
                       uint32_t mtu);

#endif
