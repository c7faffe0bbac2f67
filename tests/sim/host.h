/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_HOST_H
#define SIM_HOST_H

/* The other side of a flow: what the relay and the real peer behind it would be. It connects (or
 * not), takes the guest's bytes as fast as it likes, produces its own, closes, or resets. */

#include "rng.h"
#include "schedule.h"
#include "stack/stack.h"

struct host_config {
    enum { HOST_CONNECTS, HOST_REFUSES } connect;
    uint64_t connect_delay; /* 0: within tcp_open */
    enum tcp_refusal refusal;
    unsigned silent_first; /* refused silently this often before `connect` applies */
    bool early_upstream;   /* tcp_set_upstream() at once, tcp_connected() later */

    uint64_t tx_total, tx_key, rx_total, rx_key;
    size_t send_buffer;                       /* what write() takes before it is full */
    uint64_t drain_chunk, drain_interval;     /* interval 0: never full */
    unsigned short_write;                     /* permille of writes cut short for no reason */
    uint64_t produce_chunk, produce_interval; /* interval 0: everything at once */
    size_t read_most;                         /* bytes a commit */
    unsigned empty_read;                      /* permille of reserves followed by commit(0) */
    uint64_t resume_delay;
    bool eof_without_reserve;

    bool close_after_peer;
    uint64_t close_delay;
    uint64_t reset_time, reset_at_tx, reset_at_rx; /* NEVER, or: RST then */
    bool write_fails;                              /* write() says -EPIPE once the reset is due */
    size_t hold;      /* write() takes nothing until this much is offered (at the beginning) */
    bool denies;      /* what is due at the reset is a denial: both sides reset at once */
    uint64_t give_up; /* a peer whose guest has gone without a word resets at last */
};

struct host {
    struct host_config config;
    struct schedule *schedule;
    struct rng rng;
    struct stack *stack;
    void (*wrong)(void *ctx, const char *what);
    void (*changed)(void *ctx);
    void *ctx;

    struct flow_handle flow;
    unsigned attempts;
    bool opened, connected, refused, closed, paused, blocked;
    bool eof_sent, reset_sent, shut_seen, broken, may_close;
    enum tcp_close how;
    uint64_t tx_ready, tx_pos, rx_pos;
    size_t buffered; /* of what write() took, not yet drained */
    unsigned keepalives, writes, resumes, commits;
    uint64_t closed_at;

    struct alarm connecting, producer, reader, drainer, closer, resetter, giving_up;
};

void host_init(struct host *host, const struct host_config *config, struct schedule *schedule,
               struct rng rng, struct stack *stack);
/* From tcp_open. */
void host_open(struct host *host, struct flow_handle flow);
/* For published ports: calls tcp_open_to_guest(). */
bool host_open_to_guest(struct host *host, const struct flow_key *key);
/* Nothing more is to be expected of it. */
static inline bool host_is_over(const struct host *host)
{
    return host->closed || host->refused;
}

#endif
