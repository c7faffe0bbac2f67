/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_STACK_SCRIPT_H
#define TESTS_STACK_SCRIPT_H

/* TCP by script: a test says what the guest sends and what it must get, segment by segment, and
 * what the host side does and sees. The packets are built and read by the simulator's codec
 * (tests/sim/packet.h), which shares nothing with the stack's.
 *
 * Sequence numbers in a script are relative: 0 is the SYN, 1 the first byte. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../sim/packet.h"
#include "stack/internal.h"

#define GUEST_ISS   1000u
#define GUEST_PORT  40000
#define REMOTE_PORT 80
#define SENT_MAX    512
#define MSEC        UINT64_C(1000000)

struct script {
    struct stack *stack;
    struct timers *timers;
    struct counters counters;
    uint64_t now;
    uint32_t mtu;
    bool v6, link_full, batch_open;

    struct packet *sent[SENT_MAX]; /* not yet expected */
    unsigned sent_count, sent_next;

    struct flow_handle flow;
    uint32_t guest_iss, irs; /* irs: the stack's */
    uint16_t guest_port;
    uint32_t tsval;
    bool timestamps;
    unsigned opens, shuts, closes, resumes, keepalives, writes;
    enum tcp_close how;
    size_t take;         /* bytes write() still takes; SIZE_MAX: all */
    uint64_t written;    /* bytes taken, each checked against the guest's stream */
    uint64_t host_total; /* bytes committed */
};

struct script *script_new(void);
struct script *script_new_with(uint32_t mtu, uint32_t max_flows);
struct script *script_new_within(size_t queue_budget); /* bytes queued for the host, all flows */
extern const struct tcp_upstream script_upstream;
void script_free(struct script *s);

/* One segment from the guest, by itself a batch unless inside batch_begin … batch_end. */
void guest(struct script *s, uint8_t flags, uint32_t seq, uint32_t ack, uint16_t window,
           size_t len);
/* The same with everything else as given; seq and ack of `segment` are relative. */
void guest_segment(struct script *s, struct segment segment, const struct packet_style *style);
void batch_begin(struct script *s);
void batch_end(struct script *s);
/* Lets time pass; timers fire when they are due. */
void wait_ms(struct script *s, uint64_t ms);

/* The next frame the guest got; fails if it is none, or another. `ack` relative. */
struct segment expect(struct script *s, uint8_t flags, uint32_t seq, uint32_t ack, size_t len);
struct segment expect_segment(struct script *s);
struct icmp_error expect_icmp(struct script *s);
void expect_nothing(struct script *s);
void forget(struct script *s);

/* Handshakes. The SYN's options are those of `syn` (relative numbers are ignored). */
void open_flow(struct script *s, struct segment syn);
struct segment plain_syn(void);  /* MSS 1460, nothing else, window 65535 */
struct segment modern_syn(void); /* and window scale 7, SACK, timestamps */

/* The host has n bytes: reserve and commit, in as many turns as it takes. Returns the bytes the
 * stack took. */
size_t host_sends(struct script *s, size_t n);
void host_eof(struct script *s);
void host_resets(struct script *s);
void host_takes(struct script *s, size_t bytes); /* write() takes this much more; writable */

static inline uint64_t counted(const struct script *s, enum counter which)
{
    return counter_value(&s->counters, which);
}

#endif
