/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DNS_HARNESS_H
#define TESTS_DNS_HARNESS_H

/* A resolver under test between two fakes: a stack that records (the guest), and name servers on
 * the loopback that answer as the test says. One thread, one loop; time can be skipped. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dns/internal.h"

#define SERVERS_MAX 4
#define REPLIES_MAX 2048

struct world;
struct server;

/* A question as a fake name server received it. */
struct asked {
    uint8_t bytes[512];
    size_t len;
    struct dns_message m;
    struct sockaddr_in from;
    int tcp_fd; /* -1: by UDP */
};

struct server {
    struct world *world;
    unsigned index;
    int udp, tcp; /* tcp: listens */
    struct dns_upstream where;
    /* Answers, by server_send() or server_answer(), or stays silent. NULL: silence. */
    void (*script)(struct server *server, const struct asked *asked);
    unsigned asked_udp, asked_tcp;
    bool keeps_open; /* takes any number of questions on one connection */
    unsigned accepted, ended;
    struct asked last;
};

/* A UDP reply as the guest got it. */
struct reply {
    uint8_t *bytes;
    size_t len;
    struct flow_key key;
};

/* A TCP flow as the guest has it. */
struct guest {
    bool refused, connected, eof, reset, closed;
    struct tcp_upstream upstream;
    void *ctx;
    uint64_t token;
    size_t window; /* bytes the guest still takes */
    uint8_t got[1 << 17];
    size_t got_len, committed_from;
    bool offered; /* writable() was called */
};

struct world {
    struct loop loop;
    struct timers *timers;
    struct counters counters;
    struct dns *dns;
    uint64_t skipped;
    struct server servers[SERVERS_MAX];
    size_t server_count;
    unsigned server_handler;
    struct reply replies[REPLIES_MAX];
    size_t reply_count;
    struct guest guests[4];
    size_t guest_count;
};

struct world *world_new(void);
void world_free(struct world *w);
/* A name server with sockets on 127.0.0.1, UDP and TCP on one port. */
struct server *world_add_server(struct world *w,
                                void (*script)(struct server *, const struct asked *));
/* The resolver: with all the servers there are (`tcp_only`: by TCP), and no cache. */
void world_start(struct world *w);
/* With a cache of these bounds (0: the defaults). */
void world_start_cached(struct world *w, size_t entries, size_t bytes);
void world_start_resolv_conf(struct world *w, const char *path);
uint64_t world_now(const struct world *w);
void world_skip(struct world *w, uint64_t ms);
/* Runs until `done(w)`, at most 2 s of real time (asserted). */
void world_run_until(struct world *w, bool (*done)(const struct world *));
void world_run_replies(struct world *w, size_t replies);
void world_run_asked(struct world *w, const struct server *server, unsigned times);
/* Runs for a few ms: whatever was to come has come. */
void world_settle(struct world *w);

/* ---- the guest's side ---- */

struct question {
    uint16_t id;
    const char *name;
    uint16_t type;
    uint16_t edns; /* size; 0: no OPT */
    uint16_t flags;
};

size_t question_build(const struct question *question, uint8_t to[512]);
void guest_sends(struct world *w, uint16_t port, const uint8_t *bytes, size_t len);
void guest_asks(struct world *w, uint16_t port, const struct question *question);
/* The reply read; asserts that it can be and that it is one. */
struct dns_message reply_read(const struct world *w, size_t index);
unsigned reply_rcode(const struct world *w, size_t index);
struct guest *guest_connects(struct world *w);
ssize_t guest_writes(struct guest *guest, const uint8_t *bytes, size_t len);
ssize_t guest_asks_tcp(struct guest *guest, const struct question *question);
/* The `n`th message it got (from 0); NULL: not whole yet. */
const uint8_t *guest_message(const struct guest *guest, size_t n, size_t *ret_len);
size_t guest_messages(const struct guest *guest);

/* ---- the servers' side ---- */

void server_send(struct server *server, const struct asked *asked, const uint8_t *bytes,
                 size_t len);
/* An answer to `asked` with `records` A records, or with an rcode. */
size_t answer_build(const struct asked *asked, unsigned rcode, unsigned records, uint8_t *to,
                    size_t capacity);
void answer_one(struct server *server, const struct asked *asked);

#define COUNTED(w, name) counter_value(&(w)->counters, COUNTER_dns_##name)

#endif
