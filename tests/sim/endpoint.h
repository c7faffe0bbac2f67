/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_ENDPOINT_H
#define SIM_ENDPOINT_H

/* One end of a TCP connection: the guest's. A TCP of the simulator's own, made to be awkward: what
 * it negotiates, how it cuts its segments, when it acknowledges, how slowly it reads, when it
 * closes and what nonsense it puts between good segments is configured by the scenario.
 *
 * Streams are known by position (rng.h), so nothing is stored: what is sent is made, what is
 * received is compared on arrival. Offsets are 64-bit positions in a stream; sequence number =
 * initial + 1 + offset; the FIN stands at offset `total`. */

#include "packet.h"
#include "schedule.h"

struct endpoint_config {
    bool passive; /* listens */
    struct ip_address address, peer_address;
    uint16_t port, peer_port;
    uint32_t iss, ts_offset;

    uint16_t mss; /* 0: no option */
    int wscale;   /* -1: no option */
    bool sack, dsack, timestamps;

    uint64_t tx_total, tx_key, rx_key;
    uint16_t mtu;
    size_t gso_max;    /* payload of the largest super-frame; 0: none */
    bool random_sizes; /* segments of any size up to the largest */
    size_t cwnd;       /* most bytes in flight */
    bool syn_data;     /* put the first bytes on the SYN */
    bool offload_checksum;

    uint64_t write_chunk, write_interval; /* interval 0: everything at once */
    size_t rcvbuf;
    uint64_t read_chunk, read_interval; /* interval 0: at once */
    unsigned stall;                     /* permille of reads followed by a pause of stall_time */
    uint64_t stall_time;
    uint64_t delayed_ack; /* ns; 0: ACK at once */
    unsigned ack_every;
    bool silly_updates; /* announces every byte read */

    bool close_after_peer; /* FIN only once the peer's FIN is here */
    uint64_t close_delay;
    uint64_t abort_time, abort_at_tx, abort_at_rx; /* NEVER, or: RST then */
    uint64_t vanish_time;                          /* NEVER, or: silent from then on */
    bool vanish_answers_nothing;

    uint64_t min_rto;
    unsigned syn_tries, tries;
    bool probe_with_data; /* zero-window probes carry a byte */
    uint64_t keepalive;   /* ns of idleness; 0: off */
    uint64_t time_wait;
    unsigned junk;   /* permille of segments followed by nonsense */
    unsigned renege; /* permille of out-of-order segments after which all are forgotten */
};

enum endpoint_state {
    ENDPOINT_IDLE,
    ENDPOINT_LISTEN,
    ENDPOINT_SYN_SENT,
    ENDPOINT_SYN_RECEIVED,
    ENDPOINT_OPEN,
    ENDPOINT_TIME_WAIT,
    ENDPOINT_GONE,
};

enum endpoint_result {
    RESULT_NONE,
    RESULT_DONE,    /* both directions ended in order */
    RESULT_REFUSED, /* RST for the SYN */
    RESULT_UNREACHABLE,
    RESULT_RESET, /* by the peer */
    RESULT_ABORTED,
    RESULT_TIMED_OUT,
    RESULT_VANISHED,
};

struct span {
    uint64_t from, to;
};

#define SPANS 32

struct endpoint {
    struct endpoint_config config;
    struct schedule *schedule;
    struct rng rng;
    uint8_t *scratch; /* 64 KiB, shared */
    void (*emit)(void *ctx, const struct segment *segment, const struct packet_style *style);
    void (*wrong)(void *ctx, const char *what);
    void (*changed)(void *ctx); /* the result is known */
    void *ctx;

    enum endpoint_state state;
    enum endpoint_result result;
    uint16_t icmp; /* type << 8 | code of the error that ended it */

    /* sending */
    uint32_t iss;
    uint64_t tx_ready, una, nxt, max; /* max counts the FIN when it was sent */
    uint64_t snd_wnd, wl_seq, wl_ack;
    uint16_t peer_mss;
    uint8_t snd_wscale, rcv_wscale;
    bool sack_on, ts_on;
    bool may_close, fin_sent, fin_acked;
    size_t cwnd;
    unsigned dupacks, tries, backoff;
    uint64_t srtt, rttvar, rtt_offset, rtt_start; /* rtt_start 0: not measuring */
    unsigned retransmits, timeouts;
    struct span sacked[SPANS]; /* by the peer */
    unsigned sacked_count;

    /* receiving */
    uint32_t irs;
    uint64_t rcv_nxt, edge, read_pos, fin_at; /* fin_at NEVER: not seen */
    bool fin_received;
    struct span kept[SPANS]; /* out of order */
    unsigned kept_count;
    struct span duplicate; /* for D-SACK */
    uint64_t latest;       /* offset of the out-of-order segment last received */
    unsigned ack_owed;
    uint32_t ts_recent;
    uint64_t last_heard;
    unsigned keepalives_unanswered;

    struct alarm rto, persist, delack, writer, reader, closer, abort_alarm, keepalive, linger;
};

void endpoint_init(struct endpoint *endpoint, const struct endpoint_config *config,
                   struct schedule *schedule, struct rng rng);
void endpoint_start(struct endpoint *endpoint); /* connects or listens */
void endpoint_input(struct endpoint *endpoint, const struct segment *segment);
void endpoint_icmp(struct endpoint *endpoint, const struct icmp_error *error);
void endpoint_abort(struct endpoint *endpoint);
const char *endpoint_result_name(enum endpoint_result result);

static inline uint32_t endpoint_seq(const struct endpoint *e, uint64_t offset)
{
    return e->iss + 1 + (uint32_t)offset;
}

static inline uint32_t endpoint_peer_seq(const struct endpoint *e, uint64_t offset)
{
    return e->irs + 1 + (uint32_t)offset;
}

#endif
