/* SPDX-License-Identifier: Apache-2.0 */
/* Holding a UDP flow's first datagrams until they tell the name it is meant for.
 *
 * A flow whose verdict depends on its name is not yet made known to the relay. Its datagrams are
 * shown to the reader of QUIC hellos (quic_hello.h), and held until that tells a name or that there
 * is none; then the policy is asked again. An allow makes the peer known, and those held leave in
 * order. Anything else drops them, and (unless the policy says `drop`) tells the guest by one ICMP.
 *
 *     pending    admitted     datagrams
 *     yes        no           each is shown; held until there is a verdict
 *     no         yes          those that begin like a hello are shown; the others pass
 *     yes        yes          the same: another connection of the same port is being read
 *
 * A port may carry several connections, so an Initial is looked at whenever it comes, and a hello
 * that names something else is judged. If it is refused, what was admitted before goes on: the
 * refused connection never reached its server. But what is malformed, or too large, ends the flow
 * with all that it had.
 *
 * What leaves must mean to the server what it meant to the reader, who begins anew with each
 * connection. So whatever another connection begins finds held is dropped, and a connection whose
 * hello has left is not read from its beginning again (quic_spent.h).
 *
 * A flow that was admitted although it bears no name (any protocol but QUIC) passes as long as it
 * does not turn out to be QUIC of a version that we can read after all.
 *
 * What is shown is a private copy, made once, and the copy is what is sent: the guest cannot change
 * it in between, nor does a held datagram keep the device waiting for its buffers. Bounds: 10
 * datagrams, 16 KiB of handshake, 3 s from the first; and those of udp_flows.h for all together.
 *
 * Each name that admitted a flow is remembered with the pin it lived on. When the policy has been
 * replaced, the flow's next datagram has it judged again by all of them. */

#include "engine/peek_udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/internal.h"
#include "engine/udp_flows.h"
#include "inspect/quic_spent.h"
#include "policy/names.h"

#define PATIENCE  (3 * SECOND_NS)
#define LONG_FORM 0x80u

struct peek_udp {
    struct culvert_engine *engine;
    struct udp_flows flows;
    struct quic_opener *opener;
    struct quic_spent spent;
};

/* ---- refusals ---- */

static void tell_guest(struct peek_udp *peek, const struct udp_datagram *datagram)
{
    struct iovec payload = {.iov_len = 0};
    struct icmp_report report = {.key = datagram->key, .problem = ICMP_PROBLEM_PROHIBITED};

    culvert_frame_slice(datagram->frame, datagram->payload_offset, datagram->payload_len, &payload,
                        1);
    report.payload = payload.iov_base;
    report.payload_len = payload.iov_len;
    report.original_len = datagram->payload_len;
    stack_icmp_report(peek->engine->stack, &report);
}

/* As refuse(): false: it passes all the same. */
static bool refuse_flow(struct peek_udp *peek, const struct flow_key *key, enum counter reason)
{
    const struct subject subject = subject_of(key, POLICY_NAME_PENDING);

    return refuse(peek->engine, &subject, reason);
}

static void drop_held(struct peek_udp *peek, struct udp_flow *flow)
{
    for (struct udp_held *held = udp_flow_take_held(&peek->flows, flow); held;)
        held = udp_held_free(held);
}

static void end_flow(struct peek_udp *peek, struct udp_flow *flow)
{
    if (flow->admitted)
        relay_udp_peer_forget(peek->engine->relay, &flow->key);
    udp_flows_remove(&peek->flows, flow);
}

/* What is being read is refused; what was admitted stays. False: nothing was, the flow is gone. */
static bool end_connection(struct peek_udp *peek, struct udp_flow *flow)
{
    if (!flow->admitted) {
        end_flow(peek, flow);
        return false;
    }
    drop_held(peek, flow);
    quic_hello_reset(&flow->hello);
    udp_flows_touch(&peek->flows, flow);
    return true;
}

/* ---- verdicts ---- */

static bool is_same_name(const struct dns_name *a, const struct dns_name *b)
{
    return a && b ? dns_name_equal(a, b) : a == b;
}

/* Did this, too, admit the flow? */
static bool is_remembered(const struct udp_flow *flow, const struct subject *subject)
{
    struct flow_names names;
    struct subject known;

    for (unsigned i = 0; i < flow->record_count; i++) {
        flow_record_read(flow->records[i], &names, &known);
        if (known.name_state == subject->name_state && is_same_name(known.name, subject->name))
            return true;
    }
    return false;
}

static bool remember(struct udp_flow *flow, const struct subject *subject,
                     const struct policy_verdict *verdict)
{
    struct flow_record *record = flow_record_new(subject, verdict);

    if (record)
        flow->records[flow->record_count++] = record;
    return record != NULL;
}

static enum policy_action judge_state(struct peek_udp *peek, struct udp_flow *flow,
                                      enum policy_name_state state, const struct dns_name *name)
{
    struct subject subject = subject_of(&flow->key, state);
    struct policy_verdict verdict;

    subject.name = name;
    if (is_remembered(flow, &subject))
        return POLICY_ALLOW;
    if (flow->record_count == UDP_FLOW_RECORDS)
        return refuse(peek->engine, &subject, COUNTER_policy_udp_names) ? POLICY_DENY
                                                                        : POLICY_ALLOW;
    verdict = judge(peek->engine, &subject);
    if (verdict.action == POLICY_ALLOW && !remember(flow, &subject, &verdict) &&
        refuse(peek->engine, &subject, COUNTER_policy_no_memory))
        return POLICY_DENY;
    return verdict.action;
}

/* The policy was replaced: do all of its names still admit the flow? If so they are those of the
 * new policy. */
static enum policy_action judge_again(struct peek_udp *peek, struct udp_flow *flow)
{
    for (unsigned i = 0; i < flow->record_count; i++) {
        struct subject subject = subject_of(&flow->key, POLICY_NAME_NAMELESS);
        struct flow_names names;
        struct flow_record *record;
        struct policy_verdict verdict;

        flow_record_read(flow->records[i], &names, &subject);
        verdict = judge(peek->engine, &subject);
        if (verdict.action != POLICY_ALLOW)
            return verdict.action;
        record = flow_record_new(&subject, &verdict);
        if (record) {
            free(flow->records[i]);
            flow->records[i] = record;
        }
    }
    return POLICY_ALLOW;
}

/* ---- sending ---- */

static void send_datagram(struct peek_udp *peek, const struct udp_datagram *datagram)
{
    struct culvert_engine *engine = peek->engine;
    const struct ip_endpoint to = real_destination(engine, &datagram->key);

    relay_udp_send(engine->relay, datagram, &to, engine->now);
}

/* Makes the peer known under the policy of now. False: the relay cannot, which is counted; the flow
 * is gone. */
static bool admit(struct peek_udp *peek, struct udp_flow *flow)
{
    struct culvert_engine *engine = peek->engine;
    const struct ip_endpoint to = real_destination(engine, &flow->key);
    const uint32_t generation = policy_generation(engine->policy);

    if (flow->admitted && flow->generation == generation)
        return true;
    if (!relay_udp_peer_allow(engine->relay, &flow->key, generation, &to, true, engine->now)) {
        end_flow(peek, flow);
        return false;
    }
    flow->admitted = true;
    flow->generation = generation;
    return true;
}

/* The verdict is an allow: what was held leaves. False: the flow is gone. */
static bool release_held(struct peek_udp *peek, struct udp_flow *flow)
{
    if (!admit(peek, flow))
        return false;
    for (struct udp_held *held = udp_flow_take_held(&peek->flows, flow); held;) {
        send_datagram(peek, &held->datagram);
        held = udp_held_free(held);
    }
    return true;
}

/* And this one behind it. */
static bool release(struct peek_udp *peek, struct udp_flow *flow, const struct udp_datagram *last)
{
    if (!release_held(peek, flow))
        return false;
    send_datagram(peek, last);
    return true;
}

/* ---- bounds ---- */

/* What the flow holds is given up for a reason that is no rule's. */
static void give_up(struct peek_udp *peek, struct udp_flow *flow, enum counter reason)
{
    if (refuse_flow(peek, &flow->key, reason)) {
        tell_guest(peek, &flow->first_held->datagram);
        end_connection(peek, flow);
    } else {
        release_held(peek, flow);
    }
}

static void patience_ended(void *arg, struct timer *timer, uint64_t now)
{
    struct culvert_engine *engine = arg;

    (void)now;
    give_up(engine->peek_udp, list_entry(timer, struct udp_flow, patience),
            COUNTER_policy_hello_late);
}

/* Other flows give way to this one. */
static void keep_bounds(struct peek_udp *peek, const struct udp_flow *flow)
{
    struct udp_flow *other;

    while ((other = udp_flows_excess(&peek->flows, flow))) {
        if (other->first_held) {
            give_up(peek, other, COUNTER_policy_udp_hold_full);
        } else {
            count(&peek->engine->counters, COUNTER_policy_udp_forgotten);
            end_flow(peek, other);
        }
    }
}

/* ---- one datagram ----
 *
 * All of these return false if the flow is gone. */

static bool hold(struct peek_udp *peek, struct udp_flow *flow, const struct udp_datagram *datagram)
{
    const uint64_t until = peek->engine->now + PATIENCE;
    enum counter reason = COUNTER_policy_hello_too_large;

    if (flow->held_count < QUIC_HELLO_DATAGRAMS_MAX) {
        culvert_frame_ref(datagram->frame);
        if (udp_flow_hold(&peek->flows, flow, datagram, until) == 0)
            return true;
        culvert_frame_unref(datagram->frame);
        reason = COUNTER_policy_no_memory;
    }
    if (!refuse_flow(peek, &flow->key, reason))
        return release(peek, flow, datagram);
    tell_guest(peek, datagram);
    return end_connection(peek, flow);
}

/* The server is about to see the hello. */
static bool spend_origin(struct peek_udp *peek, const struct udp_flow *flow)
{
    return !flow->hello.has_origin ||
           quic_spent_add(&peek->spent, &flow->hello.origin, peek->engine->now) ||
           !refuse_flow(peek, &flow->key, COUNTER_policy_quic_many);
}

static bool conclude(struct peek_udp *peek, struct udp_flow *flow,
                     const struct udp_datagram *datagram, enum policy_name_state state,
                     const struct dns_name *name)
{
    enum policy_action action = judge_state(peek, flow, state, name);

    if (action == POLICY_ALLOW && !spend_origin(peek, flow))
        action = POLICY_DENY;
    if (action == POLICY_ALLOW) {
        flow->bears_none |= state == POLICY_NAME_NAMELESS;
        return release(peek, flow, datagram);
    }
    if (action == POLICY_DENY)
        tell_guest(peek, datagram);
    return end_connection(peek, flow);
}

static bool fail(struct peek_udp *peek, struct udp_flow *flow, const struct udp_datagram *datagram,
                 enum counter reason)
{
    if (!refuse_flow(peek, &flow->key, reason)) {
        quic_hello_reset(&flow->hello);
        return release(peek, flow, datagram);
    }
    tell_guest(peek, datagram);
    end_flow(peek, flow);
    return false;
}

/* Another may still be readable. */
static bool skip_unreadable(struct peek_udp *peek, struct udp_flow *flow)
{
    count(&peek->engine->counters, COUNTER_policy_quic_unreadable);
    if (flow->admitted || flow->first_held)
        return true;
    end_flow(peek, flow);
    return false;
}

static bool act(struct peek_udp *peek, struct udp_flow *flow, const struct udp_datagram *datagram,
                enum flow_name_result result)
{
    struct dns_name name;

    switch (result) {
    case FLOW_NAME_NEED_MORE:
        if (flow->hello.had_initial || !flow->admitted)
            return hold(peek, flow, datagram);
        send_datagram(peek, datagram); /* of the connection that was admitted */
        return true;
    case FLOW_NAME_NAMED:
        if (name_from_guest(flow->hello.name.text, flow->hello.name.len, &name) == 0)
            return conclude(peek, flow, datagram, POLICY_NAME_NAMED, &name);
        return conclude(peek, flow, datagram, POLICY_NAME_HIDDEN, NULL);
    case FLOW_NAME_HIDDEN:
    case FLOW_NAME_UNKNOWN_VERSION:
        return conclude(peek, flow, datagram, POLICY_NAME_HIDDEN, NULL);
    case FLOW_NAME_NOT_THIS_PROTOCOL:
        return conclude(peek, flow, datagram, POLICY_NAME_NAMELESS, NULL);
    case FLOW_NAME_UNREADABLE:
        return skip_unreadable(peek, flow);
    case FLOW_NAME_TOO_LARGE:
        return fail(peek, flow, datagram, COUNTER_policy_hello_too_large);
    case FLOW_NAME_NO_MEMORY:
        return fail(peek, flow, datagram, COUNTER_policy_no_memory);
    default:
        return fail(peek, flow, datagram, COUNTER_policy_hello_malformed);
    }
}

/* [offset, offset + len) of the payload as a datagram with a frame of its own, in one piece. Its
 * headers are the frame's. False: no memory, counted. */
static bool copy_part(struct peek_udp *peek, const struct udp_datagram *datagram, size_t offset,
                      size_t len, struct udp_datagram *ret)
{
    const size_t headers = datagram->payload_offset;
    struct culvert_frame *frame = culvert_frame_new(headers + len);
    struct iovec iov[64];

    if (!frame) {
        refuse_flow(peek, &datagram->key, COUNTER_policy_no_memory);
        return false;
    }
    for (size_t at = 0; at < headers + len;) {
        const size_t from = at < headers ? at : at + offset;
        const size_t want = at < headers ? headers - at : headers + len - at;
        size_t n = culvert_frame_slice(datagram->frame, from, want, iov, 64);

        for (size_t i = 0; i < n && i < 64; at += iov[i++].iov_len)
            memcpy(frame->data + at, iov[i].iov_base, iov[i].iov_len);
        if (n == 0)
            break; /* cannot be: the stack checked the lengths */
    }
    frame->len = headers + len;
    *ret = *datagram;
    ret->frame = frame;
    ret->payload_len = len;
    if (len <= ret->gso_size)
        ret->gso_size = 0;
    return true;
}

static bool is_known_version(const uint8_t begin[5])
{
    const uint32_t version =
        (uint32_t)begin[1] << 24 | (uint32_t)begin[2] << 16 | (uint32_t)begin[3] << 8 | begin[4];

    return version == QUIC_VERSION_1 || version == QUIC_VERSION_2;
}

/* Could the part at `offset`, `len` bytes long, tell a name that the admitted flow has not told? */
static bool concerns(const struct udp_flow *flow, const struct udp_datagram *datagram,
                     size_t offset, size_t len)
{
    struct iovec iov[5];
    uint8_t begin[5] = {0};
    size_t n, at = 0;

    if (!flow->admitted)
        return true;
    n = culvert_frame_slice(datagram->frame, datagram->payload_offset + offset, len < 5 ? len : 5,
                            iov, 5);
    for (size_t i = 0; i < n; at += iov[i++].iov_len)
        memcpy(begin + at, iov[i].iov_base, iov[i].iov_len);
    return (begin[0] & LONG_FORM) && (!flow->bears_none || is_known_version(begin));
}

/* Did the hello's reader begin another connection than that of `before`? Then what is held was read
 * as part of that one. */
static enum flow_name_result look_at_origin(struct peek_udp *peek, struct udp_flow *flow,
                                            const struct quic_hello *before,
                                            enum flow_name_result result)
{
    const struct quic_hello *hello = &flow->hello;

    if (!hello->has_origin ||
        (before->has_origin && quic_cid_equal(&before->origin, &hello->origin)))
        return result;
    if (before->has_origin)
        drop_held(peek, flow);
    if (!quic_spent_has(&peek->spent, &hello->origin, peek->engine->now))
        return result;
    count(&peek->engine->counters, COUNTER_policy_quic_spent);
    quic_hello_reset(&flow->hello);
    return FLOW_NAME_UNREADABLE;
}

/* The part that concerns. */
static bool show(struct peek_udp *peek, struct udp_flow *flow, const struct udp_datagram *datagram,
                 size_t offset, size_t len)
{
    struct udp_datagram own;
    const struct quic_hello before = {.has_origin = flow->hello.has_origin,
                                      .origin = flow->hello.origin};
    enum flow_name_result result;
    bool alive;

    if (!copy_part(peek, datagram, offset, len, &own))
        return true;
    result = quic_hello_datagram(&flow->hello, peek->opener, own.frame->data + own.payload_offset,
                                 own.payload_len);
    result = look_at_origin(peek, flow, &before, result);
    alive = act(peek, flow, &own, result);
    culvert_frame_unref(own.frame);
    return alive;
}

/* ---- datagrams and super-datagrams ---- */

static void pass_part(struct peek_udp *peek, const struct udp_datagram *datagram, size_t offset,
                      size_t len)
{
    struct udp_datagram own;

    if (!copy_part(peek, datagram, offset, len, &own))
        return;
    send_datagram(peek, &own);
    culvert_frame_unref(own.frame);
}

static size_t part_len(const struct udp_datagram *datagram, size_t offset)
{
    const size_t left = datagram->payload_len - offset;

    return datagram->gso_size && datagram->gso_size < left ? datagram->gso_size : left;
}

static bool any_concerns(const struct udp_flow *flow, const struct udp_datagram *datagram)
{
    size_t offset = 0;

    do {
        const size_t len = part_len(datagram, offset);

        if (concerns(flow, datagram, offset, len))
            return true;
        offset += len;
    } while (offset < datagram->payload_len);
    return false;
}

/* Datagram by datagram. False: the flow is gone. */
static bool take_parts(struct peek_udp *peek, struct udp_flow *flow,
                       const struct udp_datagram *datagram)
{
    size_t offset = 0;

    do {
        const size_t len = part_len(datagram, offset);

        if (!concerns(flow, datagram, offset, len))
            pass_part(peek, datagram, offset, len);
        else if (!show(peek, flow, datagram, offset, len))
            return false;
        offset += len;
    } while (offset < datagram->payload_len);
    return true;
}

/* `datagram` cannot be changed by the guest any more. */
static void take_private(struct peek_udp *peek, struct udp_flow *flow,
                         const struct udp_datagram *datagram)
{
    if (!any_concerns(flow, datagram)) {
        send_datagram(peek, datagram);
    } else if (take_parts(peek, flow, datagram)) {
        udp_flows_touch(&peek->flows, flow);
        keep_bounds(peek, flow);
    }
}

/* True: under the policy of now the flow is admitted, or has yet to be. */
static bool is_current(struct peek_udp *peek, struct udp_flow *flow,
                       const struct udp_datagram *datagram)
{
    enum policy_action action;

    if (!flow->admitted || flow->generation == policy_generation(peek->engine->policy))
        return true;
    action = judge_again(peek, flow);
    if (action == POLICY_ALLOW)
        return admit(peek, flow);
    if (action == POLICY_DENY)
        tell_guest(peek, datagram);
    end_flow(peek, flow);
    return false;
}

static void take(struct peek_udp *peek, struct udp_flow *flow, const struct udp_datagram *datagram)
{
    struct udp_datagram own;

    if (!is_current(peek, flow, datagram))
        return;
    if (!datagram->frame->borrowed) {
        take_private(peek, flow, datagram);
    } else if (copy_part(peek, datagram, 0, datagram->payload_len, &own)) {
        take_private(peek, flow, &own);
        culvert_frame_unref(own.frame);
    }
}

bool peek_udp_input(struct peek_udp *peek, const struct udp_datagram *datagram)
{
    struct udp_flow *flow = udp_flows_find(&peek->flows, &datagram->key);

    if (flow)
        take(peek, flow, datagram);
    return flow != NULL;
}

bool peek_udp_rejudge(struct peek_udp *peek, const struct flow_key *key, bool *ret_allowed)
{
    struct udp_flow *flow = udp_flows_find(&peek->flows, key);

    if (!flow || !flow->admitted)
        return false;
    *ret_allowed = judge_again(peek, flow) == POLICY_ALLOW;
    return true;
}

void peek_udp_begin(struct peek_udp *peek, const struct udp_datagram *datagram)
{
    struct udp_flow *flow = udp_flows_add(&peek->flows, &datagram->key, patience_ended);

    if (flow)
        take(peek, flow, datagram);
    else
        refuse_flow(peek, &datagram->key, COUNTER_policy_no_memory);
}

/* ---- life and death ---- */

/* The relay has forgotten a peer: what admitted it is of no more use. */
static void peer_gone(void *ctx, const struct flow_key *key)
{
    struct peek_udp *peek = ctx;
    struct udp_flow *flow = udp_flows_find(&peek->flows, key);

    if (!flow)
        return;
    flow->admitted = flow->bears_none = false;
    udp_flow_forget_records(flow);
    if (!flow->first_held)
        udp_flows_remove(&peek->flows, flow);
}

struct peek_udp *peek_udp_new(struct culvert_engine *engine)
{
    struct peek_udp *peek = calloc(1, sizeof *peek);

    if (!peek)
        return NULL;
    peek->engine = engine;
    memcpy(peek->spent.key, engine->addresses.hash_key, sizeof peek->spent.key);
    peek->opener = quic_opener_new();
    if (!peek->opener ||
        udp_flows_init(&peek->flows, engine->timers, engine->addresses.hash_key) < 0) {
        const int error = peek->opener ? ENOMEM : errno;

        peek_udp_free(peek);
        errno = error;
        return NULL;
    }
    relay_on_udp_peer_gone(engine->relay, peer_gone, peek);
    return peek;
}

struct peek_udp *peek_udp_free(struct peek_udp *peek)
{
    if (!peek)
        return NULL;
    udp_flows_fini(&peek->flows);
    quic_opener_free(peek->opener);
    quic_spent_fini(&peek->spent);
    free(peek);
    return NULL;
}
