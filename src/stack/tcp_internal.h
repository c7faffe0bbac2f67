/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STACK_TCP_INTERNAL_H
#define STACK_TCP_INTERNAL_H

/* What the TCP engine's files share. Theory of operation: tcp.c.
 *
 * "Send" is towards the guest, "receive" is from the guest, as the engine is the guest's TCP peer;
 * names of variables are RFC 9293's. */

#include <sys/queue.h>

#include "stack/internal.h"
#include "wire/tcp.h"

/* ---- bounds
 * ------------------------------------------------------------------------------------------ */

#define TCP_FLOW_QUEUE_BYTES  (1024u << 10) /* receive window and queue for the host, a flow */
#define TCP_FLOW_QUEUE_LOW    (64u << 10)   /* the same at first, whatever the engine's budget */
#define TCP_QUEUE_BUDGET      (64u << 20)   /* default of stack_config.queue_budget */
#define TCP_SEND_CAP          (1024u << 10) /* unacknowledged bytes towards the guest, a flow */
#define TCP_FLUSH_BYTES       (60u << 10)   /* an upload gathers this much before it is written */
#define TCP_OUTPUT_BYTES      (512u << 10)  /* a download gathers this much before it is sent */
#define TCP_RESERVE_FRAMES    4             /* of payload, that are read at a time */
#define TCP_OUT_OF_ORDER_MAX  96            /* chunks kept, a flow */
#define TCP_SACKED_MAX        16            /* ranges remembered of the guest's SACKs */
#define TCP_SMALL_BUFFER      2048 /* what is smaller than this is copied rather than referenced */
#define TCP_LARGE_BUFFER      65536
#define TCP_LARGE_BUFFERS_MAX 4096  /* 256 MiB */
#define TCP_SMALL_BUFFERS_MAX 65536 /* 128 MiB */
#define TCP_MSS_DEFAULT       536
#define TCP_MSS_MIN           88 /* a guest that says less still gets this */
#define TCP_WINDOW_SHIFT      7

#define TCP_RTO_INITIAL      (1000 * MS_NS)
#define TCP_RTO_MIN          (200 * MS_NS)
#define TCP_RTO_MAX          (120 * SECOND_NS)
#define TCP_PERSIST_MAX      (60 * SECOND_NS)
#define TCP_TRIES_MAX        15
#define TCP_SYN_TRIES_MAX    6
#define TCP_CONNECT_LIFETIME (150 * SECOND_NS) /* longer than the host kernel tries */
#define TCP_CONNECT_YIELDS   (3 * SECOND_NS)   /* after so long, where room is wanted */
#define TCP_RESET_LINGER     (2 * SECOND_NS)
#define TCP_TIME_WAIT_LENGTH (60 * SECOND_NS)
#define TCP_FAREWELL         (600 * SECOND_NS) /* a guest's last bytes, if the host takes none */
#define TCP_IDLE_PROBE       (7200 * SECOND_NS)
#define TCP_IDLE_PROBE_EVERY (75 * SECOND_NS)
#define TCP_IDLE_PROBES      9

/* ---- queues
 * ------------------------------------------------------------------------------------------ */

/* A piece of a byte stream in memory that somebody owns: a buffer (ours) or a frame (the guest's,
 * by reference). */
struct tcp_chunk {
    struct tcp_chunk *next;
    uint8_t *base;
    uint32_t seq, len;
    struct culvert_buffer *buffer; /* one of these two holds a reference */
    struct culvert_frame *frame;
};

/* Chunks in order of their sequence numbers; contiguous, except out of order (where `tail` is not
 * used). */
struct tcp_queue {
    struct tcp_chunk *head, *tail;
    uint32_t bytes;
};

/* ---- flows
 * ------------------------------------------------------------------------------------------- */

enum tcp_state {
    TCP_FREE,
    TCP_CONNECTING,   /* the guest's SYN waits for the host's connect: tcp_connected, tcp_refuse */
    TCP_SYN_RECEIVED, /* SYN-ACK sent: the host side may already end, data waits */
    TCP_SYN_SENT,     /* towards the guest (published ports) */
    TCP_OPEN,         /* data both ways; the half-closes are flags */
    TCP_RESETTING,  /* the host side died: what was committed is delivered, then RST; no upstream */
    TCP_RESET_OWED, /* nothing but a RST that the link has no room for yet; no upstream */
    TCP_DRAINING,   /* the guest reset: what it was ACKed is written, then close(RESET); not in the
                       table */
    TCP_TIME_WAIT,  /* no upstream; yields to a new SYN and to memory pressure */
    TCP_STATE_COUNT
};

/* Ranges above snd_una that the guest has SACKed, ascending and apart. Exists while there are any.
 */
struct tcp_scoreboard {
    uint32_t count;
    uint32_t bytes;
    struct tcp_sack_block range[TCP_SACKED_MAX];
};

struct tcp_flow {
    struct flow_key key;
    struct tcp *tcp;
    struct tcp_flow *hash_next;
    uint32_t index, generation;
    TAILQ_ENTRY(tcp_flow) batch_link; /* touched in this batch */
    TAILQ_ENTRY(tcp_flow)
    waiting_link; /* for the link, or for memory; or CONNECTING, or in TIME-WAIT: oldest first */
    const struct tcp_upstream *upstream;
    void *upstream_ctx;
    uint64_t token;
    struct timer timer;

    uint8_t state; /* enum tcp_state */
    bool in_batch, in_table;
    bool waits_for_link, waits_for_memory;

    /* towards the guest */
    bool host_eof; /* FIN follows the last byte of `unacked` */
    bool fin_sent, fin_acked;
    bool rx_paused; /* tcp_rx_reserve() returned 0: resume() is owed */
    bool in_recovery;
    bool tail_probe; /* the running timer is a probe's, not the RTO's */
    bool tail_probe_used;
    bool rtt_timing;
    /* from the guest */
    bool fin_pending; /* FIN seen at fin_seq, bytes before it are missing */
    bool guest_fin, shut_write_done;
    bool time_wait_due; /* the host closed first, so TIME-WAIT is ours */
    bool ack_owed;
    bool write_blocked; /* the upstream took less than offered: tcp_writable() follows */
    bool keepalive_seen;
    /* agreed at the handshake */
    bool sack_ok, timestamps;
    uint8_t snd_shift, rcv_shift;
    uint8_t duplicate_acks;
    uint8_t tries; /* timeouts since the guest was last heard */
    uint8_t backoff;

    uint16_t peer_mss; /* the guest's option */
    uint16_t mss;      /* payload bytes of a segment towards the guest */

    uint32_t iss, snd_una, snd_nxt, snd_max;
    uint32_t snd_end; /* behind the last byte committed; where FIN will stand */
    uint32_t snd_wnd, snd_wnd_max, snd_wl1, snd_wl2;
    uint32_t cwnd, ssthresh;
    uint32_t recovery_point, retransmit_next;
    uint32_t irs, rcv_nxt;
    uint32_t rcv_adv;       /* right edge advertised: never moves left */
    uint32_t rcv_acked;     /* rcv_nxt of the last segment sent */
    uint32_t rcv_allowance; /* what the window and the queue for the host may hold together */
    uint32_t rcv_grown_at;  /* rcv_nxt when the allowance last grew */
    uint32_t rcv_promised;  /* part of tcp.promised */
    uint32_t fin_seq;
    uint32_t last_sack; /* where the newest out-of-order piece lies */
    uint32_t ts_recent, ts_offset;
    uint32_t rtt_seq;
    uint32_t srtt_us, rttvar_us;
    uint64_t rtt_start;
    uint64_t recovery_at; /* when retransmit_next last started at snd_una */
    uint64_t rto;
    uint64_t retransmit_at; /* RTO, tail probe or persist; TIMERS_NEVER */
    uint64_t lifetime_at;   /* end of the state's lifetime; TIMERS_NEVER */
    uint64_t heard_at; /* last acceptable segment from the guest; its farewell's last progress */
    uint64_t window_ack_at; /* last ACK that answered an unacceptable segment without data */

    struct tcp_queue unacked;      /* committed by the host side: [max(snd_una, iss + 1), …) */
    struct tcp_chunk *send_cursor; /* chunk of `unacked` that holds snd_nxt, or NULL: search */
    struct tcp_queue for_host;     /* in order, not yet taken by the upstream */
    struct tcp_queue out_of_order;
    uint32_t out_of_order_count;
    struct tcp_scoreboard *sacked; /* NULL: none */
};

TAILQ_HEAD(tcp_flow_list, tcp_flow);

#define TCP_FLOWS_PER_BLOCK 64
#define TCP_LANDING_MORE    (TCP_RESERVE_IOV - 1)

struct tcp {
    struct stack *stack;
    struct pool *small, *large;     /* buffers towards the guest, and copies of uploads */
    struct culvert_buffer *landing; /* where the next bytes from the host go */
    size_t landing_used;
    struct culvert_buffer *landing_next[TCP_LANDING_MORE]; /* for what does not fit */
    struct tcp_chunk *free_chunks;
    void **chunk_slabs;
    size_t chunk_slab_count;

    struct tcp_flow **blocks; /* of TCP_FLOWS_PER_BLOCK; flows never move */
    uint32_t block_count;
    struct tcp_flow *free_first, *free_last; /* by hash_next, reused in order of freeing */
    struct tcp_flow **table;
    uint32_t table_mask;
    uint32_t flow_count; /* all but free */
    struct tcp_flow_list batch, waiting_for_link, waiting_for_memory, connecting, time_wait;
    bool time_wait_owes_ack; /* to a flow of `time_wait`: the link was full */

    size_t queued;   /* bytes of all for_host and out_of_order queues */
    size_t promised; /* what windows exceed TCP_FLOW_QUEUE_LOW by, all flows */
    size_t queue_budget;
    uint64_t challenge_window;
    uint32_t challenges;
};

/* A segment from the guest, after parsing. `payload` is an offset into the frame. */
struct tcp_segment {
    const struct ip_packet *packet;
    struct tcp_header header;
    struct tcp_options options;
    uint32_t seq, len; /* len: payload bytes */
    size_t payload;
    bool fin;
};

/* tcp_flows.c: the table */
int tcp_flows_init(struct tcp *tcp);
void tcp_flows_fini(struct tcp *tcp);
struct tcp_flow *tcp_flow_new(struct tcp *tcp,
                              const struct flow_key *key); /* NULL: limit or memory, counted */
void tcp_flow_free(struct tcp *tcp,
                   struct tcp_flow *flow); /* queues, lists, timer; says nothing to anybody */
struct tcp_flow *tcp_flow_find(struct tcp *tcp, const struct flow_key *key);
struct tcp_flow *tcp_flow_of(struct stack *stack, struct flow_handle handle); /* NULL: stale */
struct flow_handle tcp_flow_handle(const struct tcp_flow *flow);
/* CONNECTING: from its SYN until the host has answered. */
void tcp_flow_connect_begins(struct tcp *tcp, struct tcp_flow *flow);
void tcp_flow_connect_ends(struct tcp *tcp, struct tcp_flow *flow);
void tcp_flow_leave_table(struct tcp *tcp, struct tcp_flow *flow);
void tcp_flow_touch(struct tcp *tcp, struct tcp_flow *flow); /* look at it when the batch ends */
void tcp_flow_wait_for_link(struct tcp *tcp, struct tcp_flow *flow);
void tcp_flow_wait_for_memory(struct tcp *tcp, struct tcp_flow *flow);
void tcp_flow_stop_waiting(struct tcp *tcp, struct tcp_flow *flow);

/* tcp_queue.c: bytes in memory */
struct tcp_chunk *tcp_chunk_new(struct tcp *tcp);
/* Makes sure that the next `n` calls of tcp_chunk_new() succeed. */
bool tcp_chunks_ensure(struct tcp *tcp, unsigned n);
void tcp_queue_clear(struct tcp *tcp, struct tcp_queue *queue);
/* Drops the bytes before sequence number `seq`. */
void tcp_queue_drop_until(struct tcp *tcp, struct tcp_queue *queue, uint32_t seq);
/* Appends [base, base + len) of the buffer, with a new reference. False: no memory. */
bool tcp_queue_append_buffer(struct tcp *tcp, struct tcp_queue *queue, uint32_t seq,
                             struct culvert_buffer *buffer, uint8_t *base, uint32_t len);
/* Appends a copy, packed into small buffers. Returns the bytes that were stored: fewer when memory
 * ran out. */
uint32_t tcp_queue_append_copy(struct tcp *tcp, struct tcp_queue *queue, uint32_t seq,
                               const uint8_t *from, uint32_t len);
/* Appends `len` payload bytes at `offset` of the guest's frame by reference. False: no memory,
 * nothing appended. */
bool tcp_queue_append_frame(struct tcp *tcp, struct tcp_queue *queue, uint32_t seq,
                            struct culvert_frame *frame, size_t offset, uint32_t len);
/* Chunks that fill less than half of the memory they pin are copied and packed. */
void tcp_queue_compact(struct tcp *tcp, struct tcp_queue *queue);
/* Copies what the guest could still change. False: there is no memory for that. */
bool tcp_queue_make_private(struct tcp *tcp, struct tcp_queue *queue);
/* Keeps a segment that is not the next one. */
void tcp_out_of_order_keep(struct tcp *tcp, struct tcp_flow *flow,
                           const struct tcp_segment *segment);
/* Moves what has become the next to for_host; advances rcv_nxt. */
void tcp_out_of_order_release(struct tcp *tcp, struct tcp_flow *flow);
/* The ranges kept out of order, the newest first. */
void tcp_out_of_order_sacks(const struct tcp_flow *flow, struct tcp_options *ret);

/* tcp_output.c: segments towards the guest */
/* Sends what the windows allow: new data, FIN. */
void tcp_output(struct tcp *tcp, struct tcp_flow *flow);
/* Sends [seq, seq + len) again. False: the link is full. */
bool tcp_send_range(struct tcp *tcp, struct tcp_flow *flow, uint32_t seq, uint32_t len);
bool tcp_send_syn(struct tcp *tcp, struct tcp_flow *flow); /* SYN or SYN-ACK, by state */
void tcp_send_ack(struct tcp *tcp, struct tcp_flow *flow);
void tcp_send_window_probe(struct tcp *tcp, struct tcp_flow *flow);
bool tcp_send_reset(struct tcp *tcp, struct tcp_flow *flow); /* false: the link is full */
/* A RST for a segment that belongs to no flow (RFC 9293, 3.10.7.1). */
void tcp_answer_reset(struct stack *stack, const struct flow_key *key,
                      const struct tcp_segment *segment);
/* Bytes that may be sent beyond snd_una now. */
uint32_t tcp_send_window(const struct tcp_flow *flow);
uint32_t tcp_frame_payload_max(const struct tcp *tcp, const struct tcp_flow *flow);
void tcp_update_mss(struct tcp *tcp, struct tcp_flow *flow);
uint32_t tcp_receive_window(const struct tcp_flow *flow);
/* The guest's view of the window is so much too small that it must be told. */
bool tcp_window_update_due(const struct tcp_flow *flow);

/* tcp_recovery.c: what was lost, and when to find out */
void tcp_rtt_sample(struct tcp_flow *flow, uint64_t rtt_ns);
void tcp_sack_received(struct tcp *tcp, struct tcp_flow *flow, const struct tcp_options *options);
/* After an ACK: `acked` new bytes, or a duplicate. */
void tcp_recovery_ack(struct tcp *tcp, struct tcp_flow *flow, uint32_t acked, bool duplicate);
void tcp_recovery_timeout(struct tcp *tcp, struct tcp_flow *flow);
void tcp_recovery_continue(struct tcp *tcp,
                           struct tcp_flow *flow); /* retransmit what the window allows */
void tcp_scoreboard_clear(struct tcp_flow *flow);

/* tcp_timer.c */
void tcp_timer_expired(void *arg, struct timer *timer, uint64_t now);
/* The running timer must fire no later than the flow's deadlines. */
void tcp_timer_update(struct tcp *tcp, struct tcp_flow *flow);
/* Starts or stops the retransmission timer after the send state changed; `restart`: progress was
 * made. */
void tcp_timer_retransmit(struct tcp *tcp, struct tcp_flow *flow, bool restart);

/* tcp_input.c: initial sequence number and what follows from it */
void tcp_send_state_init(struct tcp *tcp, struct tcp_flow *flow);

/* tcp.c: lives of flows */
void tcp_flush_to_host(struct tcp *tcp, struct tcp_flow *flow);
/* Both directions have ended for the guest: what it sent is only still on its way to the host. */
static inline bool tcp_guest_is_done(const struct tcp_flow *flow)
{
    return flow->state == TCP_OPEN && flow->guest_fin && flow->fin_acked;
}
/* Both directions done? Then TIME-WAIT or the end. True: the flow is gone or out of the upstream's
 * hands. */
bool tcp_maybe_finish(struct tcp *tcp, struct tcp_flow *flow);
void tcp_guest_reset(struct tcp *tcp, struct tcp_flow *flow);
void tcp_vanished(struct tcp *tcp, struct tcp_flow *flow);
/* Gives the flow back after telling the upstream. */
void tcp_end(struct tcp *tcp, struct tcp_flow *flow, enum tcp_close how);
void tcp_maybe_resume(struct tcp *tcp, struct tcp_flow *flow);
/* RST to the guest, at once or when the link has room, and the end of a flow without upstream.
 * False: it waits. */
bool tcp_reset_guest(struct tcp *tcp, struct tcp_flow *flow);
/* tcp_guest_is_done() has become true. */
void tcp_farewell_begins(struct tcp *tcp, struct tcp_flow *flow);

#endif
