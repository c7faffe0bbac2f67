/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_INTERNAL_H
#define DNS_INTERNAL_H

/* What the resolver's files share. Theory of operation: dns.c. */

#include "base/list.h"
#include "base/pool.h"
#include "dns/dns.h"
#include "policy/pins.h"
#include "wire/dns.h"

/* ---- bounds ---- */

#define DNS_QUERIES_MAX         1024       /* outstanding questions */
#define DNS_CLIENTS_MAX         2048       /* guest's messages that wait for them */
#define DNS_QUERY_CLIENTS_MAX   512        /* the same, for one question */
#define DNS_ATTEMPTS_MAX        2048       /* sockets */
#define DNS_QUERY_ATTEMPTS_MAX  4          /* the same, for one question */
#define DNS_BUCKETS             1024       /* a power of two */
#define DNS_GUEST_FLOWS_MAX     256        /* TCP flows of the guest */
#define DNS_GUEST_PIPELINE      64         /* unanswered or unsent messages of one flow */
#define DNS_GUEST_MESSAGE_MAX   4096       /* longer messages of the guest are malformed */
#define DNS_GUEST_ANSWERS_BYTES (8u << 20) /* queued for all flows */
#define DNS_REPLY_UDP_MAX       4096       /* however much the guest says it takes */
#define DNS_UPSTREAM_UDP_SIZE   1232       /* passes every path in one piece */
#define DNS_UPSTREAM_LOCAL_SIZE 4096       /* the same, from a resolver on this machine */

#define DNS_PATIENCE     (300 * MS_NS) /* until the next upstream is asked; doubles each round */
#define DNS_PATIENCE_TCP (500 * MS_NS) /* the same over TCP and TLS, with their handshakes */
#define DNS_ROUNDS       4
#define DNS_DEADLINE     (4500 * MS_NS) /* SERVFAIL then; stubs give up after 5 s */
#define DNS_SECOND_CHANCE                                                                          \
    (1000 * MS_NS) /* for the other upstreams once one has answered SERVFAIL or the like */
#define DNS_STREAMS_MAX            64         /* connections to servers */
#define DNS_STREAM_PIPELINE        64         /* questions under way on one */
#define DNS_STREAM_OUT             (64 * 320) /* bytes of questions that wait to be sent on one */
#define DNS_STREAM_IDLE            (10 * SECOND_NS) /* a connection without a question */
#define DNS_GUEST_IDLE             (10 * SECOND_NS) /* a guest's TCP flow without a question */
#define DNS_LOCAL_TTL              60               /* s, of names answered here */
#define DNS_CACHE_ENTRIES_MAX      8192
#define DNS_CACHE_BYTES_MAX        (4u << 20)
#define DNS_CACHE_BUCKETS          2048  /* a power of two */
#define DNS_CACHE_SHARE            16    /* no answer takes more than this part of it all */
#define DNS_CACHE_TTL_MAX          86400 /* s */
#define DNS_CACHE_NEGATIVE_TTL_MAX 10800 /* s; RFC 2308, section 5 */
#define DNS_QUERY_BYTES            (DNS_HEADER_LEN + DNS_NAME_MAX + 4 + DNS_OPT_LEN)

/* ---- who asks ---- */

struct guest_handle {
    uint32_t index, generation;
};

/* One message of the guest's: what it asked, how, and where the reply goes. */
struct dns_asker {
    bool is_tcp;
    struct flow_key key;       /* UDP */
    struct guest_handle guest; /* TCP */
    uint16_t id;
    uint16_t flags;               /* RD, CD, AD and the opcode, as asked */
    struct dns_edns edns;         /* as asked */
    struct dns_question question; /* in the guest's own case; name.len 0: it could not be read */
};

/* The largest reply it takes. */
size_t dns_asker_limit(const struct dns_asker *asker);

struct dns_client {
    struct list link; /* of its query, or free */
    struct dns_asker asker;
};

/* ---- who is asked ---- */

struct dns_server {
    struct dns_upstream where;
    uint32_t scope_id; /* of a link-local IPv6 address */
    bool folds_case;   /* does not return questions in the case they were asked */
    bool no_edns;      /* answers FORMERR to an OPT record */
};

struct dns_servers {
    struct dns_name zone; /* whose names they are asked about; the root's: all others */
    struct dns_server list[DNS_UPSTREAMS_MAX];
    size_t count;
    size_t preferred;    /* the one that answered last; asked first */
    uint32_t generation; /* changes with the list */
};

/* ---- answers kept ---- */

/* All that makes two questions equal. */
struct cache_key {
    struct dns_question question; /* lower case */
    uint16_t flags;               /* RD, CD, AD */
    bool dnssec_ok;
    uint64_t hash;
};

struct dns_cache {
    struct list buckets[DNS_CACHE_BUCKETS], by_age; /* longest not asked for first */
    size_t entries, bytes, entries_max, bytes_max;
};

/* ---- questions under way ---- */

struct dns_query {
    struct list link; /* of its bucket, or free */
    struct dns *dns;
    struct dns_servers *servers; /* who is asked */
    struct timer timer;
    struct list clients, attempts;
    unsigned client_count, attempt_count;
    struct cache_key key;
    bool over_tcp;     /* a UDP answer was truncated */
    bool without_edns; /* a server did not understand it */
    bool reconnected;  /* a connection was lost, and another made to the same server */
    bool first_silent; /* the server asked first did not answer in time */
    size_t first;      /* index of the server asked first */
    unsigned tries;    /* servers asked so far, the same one counted again in later rounds */
    uint64_t deadline;
    int rcode; /* of a server that would not answer; -1: none so far */
};

/* One socket's worth of asking. */
struct dns_attempt {
    struct list link; /* of its query, or free */
    struct dns_query *query;
    uint32_t generation; /* for the loop; changes when it ends */
    size_t server;
    uint32_t servers_generation;
    int fd; /* UDP; else -1 */
    bool tcp, edns;
    uint16_t id;
    struct dns_name name;      /* the question's, in the case it was sent in */
    uint64_t asked;            /* when */
    struct dns_stream *stream; /* TCP: where the answer is waited for; else fd */
    struct list stream_link;
};

/* One connection to one server, by TCP or TLS, for any number of questions. */
struct dns_stream {
    struct list link; /* of dns->streams while it is open, else free */
    struct dns *dns;
    struct timer idle;
    uint32_t generation;       /* for the loop; changes when it ends */
    struct dns_upstream where; /* a copy: the list of servers may be replaced */
    uint32_t scope_id;
    int fd;
    struct dns_tls *tls; /* NULL: plain TCP */
    uint32_t events;     /* asked of the loop */
    bool stale;          /* gave no sign of life when it should have: no new questions */
    bool answered;
    uint64_t heard; /* the last sign of life */
    struct list attempts;
    unsigned attempt_count;
    uint8_t *out; /* DNS_STREAM_OUT bytes: messages with their lengths */
    size_t out_len, out_sent;
    uint8_t in_length[2], *in; /* an answer's length; the answer, allocated then */
    size_t in_len;             /* bytes received, the two of the length among them */
};

/* ---- the guest's TCP flows ---- */

struct guest_answer {
    struct guest_answer *next;
    size_t len, sent; /* of bytes */
    uint8_t bytes[];  /* length and message */
};

struct guest_flow {
    struct list link;        /* free */
    struct list settle_link; /* of dns.unsettled */
    struct dns *dns;
    struct timer idle;
    uint32_t generation; /* changes when it ends */
    bool open;
    struct flow_handle flow;
    struct flow_key key;
    uint8_t *in;         /* a message that arrived in part; NULL between messages */
    size_t in_len;       /* of length and message */
    size_t skip;         /* bytes of an overlong message still to be passed over */
    unsigned unanswered; /* messages without a reply so far */
    unsigned queued;     /* replies that wait for the guest's window */
    struct guest_answer *head, **tail;
    bool blocked;  /* took fewer bytes than it was offered */
    bool finished; /* the guest's FIN */
    bool eof;      /* ours */
    bool doomed;   /* to be reset */
};

/* ---- names answered here ---- */

struct dns_host {
    struct dns_name name;
    struct ip_address address;
};

/* ---- resolv.conf ---- */

struct resolv_conf {
    char *path;
    uint64_t stamp; /* what the file was like when it was read */
};

/* ---- the resolver ---- */

struct dns {
    struct stack *stack;
    struct loop *loop;
    struct timers *timers;
    struct counters *counters;
    unsigned attempt_handler, stream_handler;
    uint64_t hash_key[2];
    struct dns_servers servers;
    struct dns_servers *zones; /* split DNS */
    size_t zone_count;
    struct resolv_conf resolv; /* path NULL: servers are fixed */
    struct dns_tls_context *tls;
    struct dns_guard guard;
    struct dns_cache cache;
    struct dns_host *hosts;
    size_t host_count;

    /* Tables: entries beyond `…_touched` were never used, those given back are on a free list. */
    struct dns_query *queries;
    struct dns_client *clients;
    struct dns_attempt *attempts;
    struct guest_flow *guests;
    struct dns_stream *streams;
    size_t queries_touched, clients_touched, attempts_touched, guests_touched, streams_touched;
    struct list free_queries, free_clients, free_attempts, free_guests, free_streams;
    struct list open_streams;
    struct list buckets[DNS_BUCKETS]; /* of queries, by hash */

    struct list unsettled; /* guests with something to be done outside the stack's calls */
    struct timer settle;
    size_t guest_answer_bytes;
    struct pool *buffers; /* of UDP replies */

    uint64_t random_key[2], random_counter; /* for want of getrandom() */
    uint8_t random[256];                    /* fresh bytes from the kernel, used from the front */
    size_t random_used;
    uint8_t received[DNS_MESSAGE_MAX + 1];
    uint8_t cached[DNS_MESSAGE_MAX];    /* a copy of what is kept, with TTLs as they are now */
    uint8_t filtered[DNS_MESSAGE_MAX];  /* an answer without what the guest may not see */
    uint8_t reply[DNS_MESSAGE_MAX + 2]; /* built here; its length in front for TCP */
};

/* dns.c */
void dns_random(struct dns *dns, void *to, size_t len);
/* Every message of the guest's comes in here. False: it gets no reply. */
bool dns_message_input(struct dns *dns, struct dns_asker *asker, const uint8_t *message, size_t len,
                       uint64_t now);
/* Sends the `len` bytes at dns_reply_space() to who asked. */
void dns_reply(struct dns *dns, const struct dns_asker *asker, size_t len);
static inline uint8_t *dns_reply_space(struct dns *dns)
{
    return dns->reply + 2;
}
/* A reply of this rcode and no records. */
void dns_reply_rcode(struct dns *dns, const struct dns_asker *asker, unsigned rcode);

/* reply.c: all build into `to`, DNS_MESSAGE_MAX bytes, and return the length. */
size_t reply_build_rcode(const struct dns_asker *asker, unsigned rcode,
                         const struct dns_error *error, uint8_t *to);
/* 0.0.0.0 or ::, or no data. */
size_t reply_build_zero(const struct dns_asker *asker, const struct dns_error *error, uint8_t *to);
/* An upstream's answer for one asker: id, question and OPT are the asker's, records are cut at the
 * size it takes. `*ret_truncated`: TC is set. */
size_t reply_build_answer(const struct dns_asker *asker, const uint8_t *answer,
                          const struct dns_message *m, const struct dns_error *error, uint8_t *to,
                          bool *ret_truncated);

/* cache.c */
void cache_init(struct dns_cache *cache, size_t entries_max, size_t bytes_max);
bool cache_key_equal(const struct cache_key *a, const struct cache_key *b);
void cache_clear(struct dns_cache *cache);
void cache_put(struct dns *dns, const struct cache_key *key, const uint8_t *answer,
               const struct dns_message *m, uint64_t now);
/* An answer, valid until the next call, read into *ret; or NULL. */
const uint8_t *cache_get(struct dns *dns, const struct cache_key *key, uint64_t now,
                         struct dns_message *ret);

/* filter.c */
/* Judges a question. True: it was answered here. */
bool filter_question(struct dns *dns, const struct dns_asker *asker);
/* A name of hosts.c was answered: its addresses are pinned. */
void filter_local_answer(struct dns *dns, const struct dns_question *question, uint64_t now);

/* What the guest may see of an answer. */
struct filtered {
    enum { FILTERED_PASSED, FILTERED_DENIED, FILTERED_BROKEN } outcome;
    const uint8_t *answer; /* the upstream's, or dns->filtered */
    struct dns_message m;
    struct dns_error error;
};

/* Judges an answer and learns its pins. `question` is the one that was asked. Valid until the next
 * call. */
void filter_answer(struct dns *dns, const struct dns_question *question, const uint8_t *answer,
                   const struct dns_message *m, uint64_t now, struct filtered *ret);
void filter_reply(struct dns *dns, const struct dns_asker *asker, const struct filtered *filtered);

/* rewrite.c: the answer with only those records that `keep` wants, without OPT, names in full.
 * Returns its length, or 0: it cannot be done. */
size_t rewrite_answer(const uint8_t *answer, const struct dns_message *m, uint16_t clear_flags,
                      bool (*keep)(void *ctx, const struct dns_record *record), void *ctx,
                      uint8_t *to);

/* hosts.c: a reply to a question about a name that is answered here, or 0: it is not. */
size_t hosts_answer(const struct dns *dns, const struct dns_asker *asker, uint8_t *to);

/* query.c */
void query_ask(struct dns *dns, const struct dns_asker *asker, uint64_t now);
void query_free(struct dns_query *query); /* clients get nothing */
/* The attempt could not be made or broke. It is freed. */
void query_attempt_failed(struct dns_attempt *attempt, uint64_t now);
/* Its connection was lost, not before it had proved good if `proved`. It is freed. */
void query_attempt_lost(struct dns_attempt *attempt, bool proved, uint64_t now);
/* What came back; letters in it are changed. True: the attempt goes on, it was not an answer to its
 * question. */
bool query_answer(struct dns_attempt *attempt, uint8_t *answer, size_t len, uint64_t now);

/* attempt.c */
/* NULL: no socket; the server cannot be reached from here. */
struct dns_attempt *attempt_start(struct dns_query *query, size_t server);
void attempt_free(struct dns_attempt *attempt);
/* The server asked, or NULL if the list was replaced meanwhile. */
struct dns_server *attempt_server(const struct dns_attempt *attempt);
void attempt_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events);

/* stream.c */
/* Puts the attempt's message on a connection to `server`. 0 or negative errno. */
int stream_ask(struct dns_attempt *attempt, const struct dns_server *server, uint8_t *message,
               size_t len);
void stream_leave(struct dns_attempt *attempt);
/* The attempt waited in vain. */
void stream_doubt(struct dns_attempt *attempt);
void stream_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events);
void stream_close_all(struct dns *dns);
/* A nonblocking socket connected (TCP: connecting) to a server, or negative errno. */
int socket_open(const struct ip_endpoint *endpoint, uint32_t scope_id, bool tcp);

/* tls.c: TLS as a client over a nonblocking socket. Certificates are checked against the system's
 * authorities, or what SSL_CERT_FILE and SSL_CERT_DIR name. */
struct dns_tls_context *tls_context_new(void); /* NULL, errno */
struct dns_tls_context *tls_context_free(struct dns_tls_context *context);
/* Borrows `fd`. NULL: ENOMEM. */
struct dns_tls *tls_new(struct dns_tls_context *context, int fd, const struct dns_upstream *where);
struct dns_tls *tls_free(struct dns_tls *tls); /* says goodbye, as far as that needs no wait */
/* Bytes taken or given, 0 from tls_recv(): the peer is done; -EAGAIN; -EACCES: its certificate is
 * no good; -EPROTO and others: broken. */
ssize_t tls_send(struct dns_tls *tls, const void *bytes, size_t len);
ssize_t tls_recv(struct dns_tls *tls, void *to, size_t len);
/* After -EAGAIN: does it wait to write, rather than to read? */
bool tls_wants_to_write(const struct dns_tls *tls);

/* guest_tcp.c */
void guest_reply(struct dns *dns, struct guest_handle guest, uint8_t *bytes, size_t len);
void guest_settle_all(struct dns *dns, uint64_t now);
void guest_settle_expired(void *arg, struct timer *timer, uint64_t now);
void guest_close_all(struct dns *dns);

/* resolv_conf.c */
int resolv_conf_start(struct dns *dns, const char *path);
void resolv_conf_stop(struct dns *dns);
void resolv_conf_recheck(struct dns *dns); /* before a query */
/* The nameservers a resolv.conf names, at most DNS_UPSTREAMS_MAX. */
size_t resolv_conf_parse(const char *text, size_t len, struct dns_server *ret);

#endif
