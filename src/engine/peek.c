/* SPDX-License-Identifier: Apache-2.0 */
/* Holding a TCP flow's first bytes until they tell the name it is meant for.
 *
 * A peek is an upstream that stands in front of the relay's. The host connection is made and the
 * guest's SYN answered as ever, and what the server says first passes untouched (SSH, SMTP). The
 * guest's bytes stay in the stack's queue, not taken: each time more has come the peek looks at all
 * of them and answers TCP_WRITE_MORE, until they tell a name or that there is none. Then the policy
 * is asked again. An allow takes the peek out of the way for good and gives the bytes on; anything
 * else resets both sides.
 *
 * Bounds: 64 KiB (FLOW_NAME_BYTES_MAX) and 10 s from the first byte. What is malformed, too large
 * or too late is refused whatever the default says. */

#include "engine/peek.h"

#include <stdlib.h>

#include "engine/internal.h"
#include "engine/name_reader.h"
#include "policy/names.h"

#define PEEK_PATIENCE (10 * SECOND_NS)

struct peek {
    struct culvert_engine *engine;
    struct flow_handle flow;
    struct flow_key key;
    struct tcp_upstream_ref inner;
    struct timer timer; /* from the first byte on, or the end of a flow refused in shut_write */
    struct name_reader reader;
};

static struct peek *peek_of(uint64_t token)
{
    return (struct peek *)(uintptr_t)token;
}

static void peek_free(struct peek *peek)
{
    timer_cancel(peek->engine->timers, &peek->timer);
    free(peek);
}

/* The relay takes over: the peek is no more. */
static void step_aside(struct peek *peek)
{
    const struct tcp_upstream_ref *inner = &peek->inner;

    tcp_set_upstream(peek->engine->stack, peek->flow, inner->upstream, inner->ctx, inner->token);
    peek_free(peek);
}

/* ---- the name
 * ---------------------------------------------------------------------------------------- */

static bool judge_state(struct peek *peek, enum policy_name_state state,
                        const struct dns_name *name)
{
    const struct subject subject = {
        .direction = POLICY_EGRESS, .key = peek->key, .name_state = state, .name = name};
    const struct policy_verdict verdict = judge(peek->engine, &subject);

    if (verdict.action != POLICY_ALLOW)
        return false;
    if (flow_records_keep(&peek->engine->records, peek->flow, &subject, &verdict) == 0)
        return true;
    return !refuse(peek->engine, &subject, COUNTER_policy_no_memory);
}

/* What is known is all that will be. True: allowed. */
static bool judge_result(struct peek *peek, enum flow_name_result result,
                         const struct flow_name *text)
{
    const struct subject subject = subject_of(&peek->key, POLICY_NAME_HIDDEN);
    struct dns_name name;

    switch (result) {
    case FLOW_NAME_NAMED:
        if (name_from_guest(text->text, text->len, &name) < 0)
            return judge_state(peek, POLICY_NAME_HIDDEN, NULL);
        return judge_state(peek, POLICY_NAME_NAMED, &name);
    case FLOW_NAME_HIDDEN:
    case FLOW_NAME_HTTP2:
        return judge_state(peek, POLICY_NAME_HIDDEN, NULL);
    case FLOW_NAME_NOT_THIS_PROTOCOL:
        return judge_state(peek, POLICY_NAME_NAMELESS, NULL);
    case FLOW_NAME_TOO_LARGE:
        return !refuse(peek->engine, &subject, COUNTER_policy_hello_too_large);
    default:
        return !refuse(peek->engine, &subject, COUNTER_policy_hello_malformed);
    }
}

/* ---- as an upstream
 * ---------------------------------------------------------------------------------- */

static void peek_expired(void *arg, struct timer *timer, uint64_t now)
{
    struct peek *peek = (struct peek *)((char *)timer - offsetof(struct peek, timer));

    (void)arg, (void)now;
    tcp_abort(peek->engine->stack, peek->flow); /* ends in peek_close() */
}

static void late_expired(void *arg, struct timer *timer, uint64_t now)
{
    struct peek *peek = (struct peek *)((char *)timer - offsetof(struct peek, timer));
    const struct subject subject = subject_of(&peek->key, POLICY_NAME_HIDDEN);
    struct stack *stack = peek->engine->stack;
    struct flow_handle flow = peek->flow;

    if (refuse(peek->engine, &subject, COUNTER_policy_hello_late)) {
        peek_expired(arg, timer, now);
        return;
    }
    step_aside(peek);
    tcp_offer(stack, flow); /* what was held back goes on */
}

static ssize_t peek_write(void *ctx, uint64_t token, const struct iovec *iov, int n)
{
    struct peek *peek = peek_of(token);
    const struct tcp_upstream_ref inner = peek->inner;
    const struct flow_name *name = NULL;
    enum flow_name_result result = name_reader_read(&peek->reader, iov, (size_t)n, &name);

    (void)ctx;
    if (result == FLOW_NAME_NEED_MORE && tcp_guest_has_finished(peek->engine->stack, peek->flow))
        result = name_reader_end(&peek->reader);
    if (result == FLOW_NAME_NEED_MORE) {
        if (!timer_armed(&peek->timer))
            timer_arm(peek->engine->timers, &peek->timer, peek->engine->now + PEEK_PATIENCE);
        return TCP_WRITE_MORE;
    }
    if (!judge_result(peek, result, name))
        return TCP_WRITE_REFUSED;
    step_aside(peek);
    return inner.upstream->write(inner.ctx, inner.token, iov, n);
}

/* FIN came first: there will be no name. */
static void peek_shut_write(void *ctx, uint64_t token)
{
    struct peek *peek = peek_of(token);
    const struct tcp_upstream_ref inner = peek->inner;

    (void)ctx;
    if (judge_state(peek, POLICY_NAME_NAMELESS, NULL)) {
        step_aside(peek);
        inner.upstream->shut_write(inner.ctx, inner.token);
    } else {
        timer_init(&peek->timer, peek_expired); /* not from within the stack's call */
        timer_arm(peek->engine->timers, &peek->timer, peek->engine->now);
    }
}

static void peek_resume(void *ctx, uint64_t token)
{
    const struct tcp_upstream_ref *inner = &peek_of(token)->inner;

    (void)ctx;
    inner->upstream->resume(inner->ctx, inner->token);
}

static void peek_keepalive(void *ctx, uint64_t token)
{
    const struct tcp_upstream_ref *inner = &peek_of(token)->inner;

    (void)ctx;
    if (inner->upstream->keepalive)
        inner->upstream->keepalive(inner->ctx, inner->token);
}

static void peek_refused(void *ctx, uint64_t token)
{
    (void)ctx;
    peek_free(peek_of(token));
}

static void peek_close(void *ctx, uint64_t token, enum tcp_close how)
{
    struct peek *peek = peek_of(token);
    const struct tcp_upstream_ref inner = peek->inner;

    (void)ctx;
    peek_free(peek);
    inner.upstream->close(inner.ctx, inner.token, how);
}

static const struct tcp_upstream peek_upstream = {
    .reads = true,
    .write = peek_write,
    .shut_write = peek_shut_write,
    .resume = peek_resume,
    .keepalive = peek_keepalive,
    .refused = peek_refused,
    .close = peek_close,
};

void peek_tcp(struct culvert_engine *engine, struct flow_handle flow, const struct flow_key *key)
{
    struct peek *peek = calloc(1, sizeof *peek);

    if (!peek) {
        const struct subject subject = subject_of(key, POLICY_NAME_PENDING);

        refuse(engine, &subject, COUNTER_policy_no_memory);
        tcp_abort(engine->stack, flow);
        return;
    }
    peek->engine = engine;
    peek->flow = flow;
    peek->key = *key;
    timer_init(&peek->timer, late_expired);
    if (!tcp_wrap_upstream(
            engine->stack, flow,
            &(struct tcp_upstream_ref){&peek_upstream, engine, (uint64_t)(uintptr_t)peek},
            &peek->inner))
        free(peek);
}

bool peek_is_on(const struct culvert_engine *engine, struct flow_handle flow)
{
    struct tcp_upstream_ref ref;

    return tcp_upstream_of(engine->stack, flow, &ref) && ref.upstream == &peek_upstream;
}
