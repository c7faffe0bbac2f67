/* SPDX-License-Identifier: Apache-2.0 */
/* Finding out for whom a TCP flow is meant, while it goes on.
 *
 * A watch stands in front of the relay's upstream, as a peek does, but passes everything on at once
 * and looks at a copy of what was taken: nothing is delayed, whoever speaks first. When the bytes
 * tell a name, or that there is none, or when the flow ends, that is written down and the watch
 * takes itself out. A flow that the host side refuses was of no use to the guest, and is not
 * written down. */

#include "engine/watch_tcp.h"

#include <stdlib.h>
#include <string.h>

#include "engine/internal.h"
#include "engine/learning.h"
#include "engine/name_reader.h"
#include "policy/names.h"

struct watch {
    struct culvert_engine *engine;
    struct flow_handle flow;
    struct flow_key key;
    struct tcp_upstream_ref inner;
    struct name_reader reader;
    size_t len, capacity;
    uint8_t *bytes; /* the first of the flow's, as far as they were taken */
};

static struct watch *watch_of(uint64_t token)
{
    return (struct watch *)(uintptr_t)token;
}

static void watch_free(struct watch *watch)
{
    free(watch->bytes);
    free(watch);
}

static void step_aside(struct watch *watch)
{
    const struct tcp_upstream_ref *inner = &watch->inner;

    tcp_set_upstream(watch->engine->stack, watch->flow, inner->upstream, inner->ctx, inner->token);
    watch_free(watch);
}

/* ---- the name ---- */

static void write_down(const struct watch *watch, enum policy_name_state state,
                       const struct dns_name *name)
{
    const struct subject subject = {.direction = POLICY_EGRESS,
                                    .key = watch->key,
                                    .name_state = name ? POLICY_NAME_NAMED : state,
                                    .name = name};

    learn_subject(watch->engine, &subject);
}

/* True: all is known that will be, and was written down. */
static bool look(struct watch *watch)
{
    const struct iovec iov = {.iov_base = watch->bytes, .iov_len = watch->len};
    const struct flow_name *text = NULL;
    struct dns_name name;

    switch (name_reader_read(&watch->reader, &iov, 1, &text)) {
    case FLOW_NAME_NEED_MORE:
        return false;
    case FLOW_NAME_NOT_THIS_PROTOCOL:
        write_down(watch, POLICY_NAME_NAMELESS, NULL);
        return true;
    case FLOW_NAME_NAMED:
        if (name_from_guest(text->text, text->len, &name) == 0) {
            write_down(watch, POLICY_NAME_NAMED, &name);
            return true;
        }
        break;
    default:
        break;
    }
    write_down(watch, POLICY_NAME_HIDDEN, NULL);
    return true;
}

/* No more will come. What was cut short is refused where names decide: it takes the address. */
static void write_down_end(const struct watch *watch)
{
    bool cut_short = watch->len > 0 && name_reader_end(&watch->reader) == FLOW_NAME_MALFORMED;

    write_down(watch, cut_short ? POLICY_NAME_HIDDEN : POLICY_NAME_NAMELESS, NULL);
}

/* Keeps a copy of the first `n` bytes. False: there is no room for them. */
static bool keep(struct watch *watch, const struct iovec *iov, size_t n)
{
    if (n > FLOW_NAME_BYTES_MAX - watch->len)
        n = FLOW_NAME_BYTES_MAX - watch->len;
    if (watch->len + n > watch->capacity) {
        size_t capacity = watch->len + n < 2048 ? 2048 : FLOW_NAME_BYTES_MAX;
        uint8_t *bytes = realloc(watch->bytes, capacity);

        if (!bytes)
            return false;
        watch->bytes = bytes;
        watch->capacity = capacity;
    }
    for (; n > 0; iov++) {
        size_t piece = iov->iov_len < n ? iov->iov_len : n;

        memcpy(watch->bytes + watch->len, iov->iov_base, piece);
        watch->len += piece;
        n -= piece;
    }
    return true;
}

/* ---- as an upstream ---- */

static ssize_t watch_write(void *ctx, uint64_t token, const struct iovec *iov, int count)
{
    struct watch *watch = watch_of(token);
    const struct tcp_upstream_ref *inner = &watch->inner;
    ssize_t n = inner->upstream->write(inner->ctx, inner->token, iov, count);

    (void)ctx;
    if (n <= 0)
        return n;
    if (!keep(watch, iov, (size_t)n)) {
        write_down(watch, POLICY_NAME_HIDDEN, NULL);
        step_aside(watch);
    } else if (look(watch)) {
        step_aside(watch);
    }
    return n;
}

static void watch_shut_write(void *ctx, uint64_t token)
{
    struct watch *watch = watch_of(token);
    const struct tcp_upstream_ref inner = watch->inner;

    (void)ctx;
    write_down_end(watch);
    step_aside(watch);
    inner.upstream->shut_write(inner.ctx, inner.token);
}

static void watch_resume(void *ctx, uint64_t token)
{
    const struct tcp_upstream_ref *inner = &watch_of(token)->inner;

    (void)ctx;
    inner->upstream->resume(inner->ctx, inner->token);
}

static void watch_keepalive(void *ctx, uint64_t token)
{
    const struct tcp_upstream_ref *inner = &watch_of(token)->inner;

    (void)ctx;
    if (inner->upstream->keepalive)
        inner->upstream->keepalive(inner->ctx, inner->token);
}

static void watch_refused(void *ctx, uint64_t token)
{
    (void)ctx;
    watch_free(watch_of(token));
}

static void watch_close(void *ctx, uint64_t token, enum tcp_close how)
{
    struct watch *watch = watch_of(token);
    const struct tcp_upstream_ref inner = watch->inner;

    (void)ctx;
    if (how != TCP_CLOSE_VANISHED || watch->len > 0) /* else it may never have been connected */
        write_down_end(watch);
    watch_free(watch);
    inner.upstream->close(inner.ctx, inner.token, how);
}

static const struct tcp_upstream watch_upstream = {
    .write = watch_write,
    .shut_write = watch_shut_write,
    .resume = watch_resume,
    .keepalive = watch_keepalive,
    .refused = watch_refused,
    .close = watch_close,
};

void watch_tcp(struct culvert_engine *engine, struct flow_handle flow, const struct flow_key *key)
{
    struct watch *watch = calloc(1, sizeof *watch);
    const struct tcp_upstream_ref wrapper = {&watch_upstream, engine, (uint64_t)(uintptr_t)watch};

    if (!watch) {
        count(&engine->counters, COUNTER_learn_full);
        return;
    }
    watch->engine = engine;
    watch->flow = flow;
    watch->key = *key;
    if (!tcp_wrap_upstream(engine->stack, flow, &wrapper, &watch->inner))
        free(watch);
}
