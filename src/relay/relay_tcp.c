/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A flow is a nonblocking socket and the stack's handle. It is CONNECTING until connect() has an
 * answer, then OPEN, until the stack closes it; an ORPHAN is a socket whose guest has reset while
 * bytes acknowledged to the guest were still in the send buffer. A connection that a published port
 * accepted is OPEN from the beginning, but OFFERED and PAUSED until the guest has answered:
 * whatever ends it before that is a RST for the client, and so is a silence of OFFER_LIFE.
 *
 * Registration. One edge-triggered registration per socket, made after connect() (before it a
 * socket reports a spurious event). A connection that stands at once, as on loopback, is registered
 * without EPOLLOUT, which would report an edge nobody waits for; it is added when a write first
 * falls short.
 *
 * Reading. An edge puts the flow on the ready list; relay_tcp_run() gives each flow on it a quantum
 * in turn. `READABLE` is the edge remembered: it stays until a read came back short, which proves
 * the socket empty, because whatever arrives after it makes a new edge. That proof does not hold
 * once the end (RDHUP, HUP, ERR) or urgent data has been seen: then reading goes on until recv says
 * 0, an error or EAGAIN. While the stack has no room the flow is PAUSED and keeps its edge.
 *
 * Endings. recv() hands out what preceded a RST, then an error, or 0 if something else has already
 * consumed the error. So any error seen anywhere latches RESET, and 0 means FIN only without it.
 * Bytes before a RST still go to the guest while it takes them; a guest that takes nothing for
 * RESET_GRACE is not waited for.
 *
 * A guest's RST. SO_LINGER 0 makes close() send a RST but throws unsent bytes away, so the socket
 * is kept (an orphan) until SIOCOUTQ says that everything was acknowledged, for at most 2 s. */

#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "relay/internal.h"

#define QUANTUM          (128u * 1024)  /* bytes a flow may read in its turn */
#define QUANTUM_ALONE    (512u * 1024)  /* the same, when nobody waits for it */
#define RUN_BYTES        (1024u * 1024) /* bytes all flows may read in one relay_run() */
#define RESET_GRACE      (200 * MS_NS)
#define RETRY_DELAY      (10 * MS_NS) /* after ENOMEM and its kin */
#define ORPHAN_LIFE      (2 * SECOND_NS)
#define OFFER_LIFE       (5 * SECOND_NS) /* the SYN and two repetitions */
#define ORPHAN_POLL_MIN  (1 * MS_NS)
#define ORPHAN_POLL_MAX  (64 * MS_NS)
#define KEEPALIVE_IDLE_S 60
#define KEEPALIVE_GAP_S  15

enum flow_state {
    FLOW_CONNECTING = 1,
    FLOW_OPEN,
    FLOW_ORPHAN,
};

enum flow_flag {
    FLOW_READABLE = 1,       /* an edge whose bytes are not all read */
    FLOW_PAUSED = 2,         /* the stack had no room; resume() ends it */
    FLOW_TO_THE_END = 4,     /* a short read proves nothing any more */
    FLOW_RESET = 8,          /* an error was seen: the end is a reset */
    FLOW_EOF_SENT = 16,      /* tcp_rx_eof() was called */
    FLOW_WRITE_BLOCKED = 32, /* the stack waits for tcp_writable() */
    FLOW_OUT_ARMED = 64,     /* registered with EPOLLOUT */
    FLOW_KEEPALIVE = 128,
    FLOW_SHUT = 256,      /* the guest sent all it had, and FIN */
    FLOW_OFFERED = 512,   /* accepted for the guest, who has not answered yet */
    FLOW_ACCEPTED = 1024, /* a client's, by a published port */
    FLOW_WRITTEN = 2048,
    FLOW_NODELAY = 4096, /* TCP_NODELAY is set, or was inherited */
};

struct flow {
    struct slot slot;
    int fd;
    uint8_t state, orphan_tries;
    uint16_t flags;
    struct flow_handle handle;
    struct relay *relay;
    struct list link; /* ready_flows, or orphans */
    struct timer timer;
    uint64_t orphaned_at;
};
_Static_assert(sizeof(struct flow) <= 128, "an idle flow is small");

static const struct tcp_upstream upstream;

void relay_set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

bool relay_address_unspecified(const struct ip_address *address)
{
    return address->be64[0] == 0 && address->be32[3] == 0 &&
           (address->be32[2] == 0 || address->be32[2] == htonl(0xffff));
}

/* ---- life and death ---- */

static uint64_t flow_token(const struct flow *flow)
{
    return (uint64_t)flow->slot.generation << 32 | flow->slot.index;
}

static struct flow *flow_of(struct relay *relay, uint64_t token)
{
    return slots_find(&relay->flows, (uint32_t)token, (uint32_t)(token >> 32));
}

static void flow_schedule(struct flow *flow)
{
    if (list_empty(&flow->link))
        list_push_back(&flow->relay->ready_flows, &flow->link);
}

static void flow_free(struct flow *flow)
{
    struct relay *relay = flow->relay;

    list_remove(&flow->link);
    timer_cancel(relay->timers, &flow->timer);
    if (flow->fd >= 0)
        close(flow->fd); /* the last reference: this ends the registration too */
    slots_give_back(&relay->flows, flow);
    relay_descriptor_freed(relay);
}

/* From now on close() sends a RST and discards what is unsent. */
static void flow_arm_abort(const struct flow *flow)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(flow->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static void flow_abort(struct flow *flow)
{
    flow_arm_abort(flow);
    flow_free(flow);
}

/* Bytes written that the peer has not acknowledged. */
static int flow_unsent(const struct flow *flow)
{
    int bytes = 0;

    return ioctl(flow->fd, SIOCOUTQ, &bytes) < 0 ? 0 : bytes;
}

static void orphan_wait(struct flow *flow, uint64_t now)
{
    uint64_t wait = ORPHAN_POLL_MIN << flow->orphan_tries;

    if (wait < ORPHAN_POLL_MAX)
        flow->orphan_tries++;
    timer_arm(flow->relay->timers, &flow->timer, now + wait);
}

static void orphan_expired(struct flow *flow, uint64_t now)
{
    if (flow_unsent(flow) == 0) {
        flow_abort(flow);
    } else if (now - flow->orphaned_at >= ORPHAN_LIFE) {
        count(flow->relay->counters, COUNTER_tcp_lingering_lost);
        flow_abort(flow);
    } else {
        orphan_wait(flow, now);
    }
}

static void flow_make_orphan(struct flow *flow)
{
    list_remove(&flow->link);
    list_push_back(&flow->relay->orphans, &flow->link);
    flow->state = FLOW_ORPHAN;
    flow->orphaned_at = clock_now();
    orphan_wait(flow, flow->orphaned_at);
}

/* True: a descriptor was freed at the expense of the oldest orphan's last bytes. */
static bool give_up_an_orphan(struct relay *relay)
{
    struct list *oldest = list_first(&relay->orphans);

    if (!oldest)
        return false;
    count(relay->counters, COUNTER_tcp_lingering_lost);
    flow_abort(list_entry(oldest, struct flow, link));
    return true;
}

/* The guest has answered: from now on the flow is like one that was connected. */
static void offer_taken(struct flow *flow)
{
    if (!(flow->flags & FLOW_OFFERED))
        return;
    flow->flags &= (uint16_t)~FLOW_OFFERED;
    timer_cancel(flow->relay->timers, &flow->timer);
}

/* It has not, and will not be waited for. */
static void offer_lapsed(struct flow *flow)
{
    count(flow->relay->counters, COUNTER_publish_unanswered);
    flow->flags &= (uint16_t)~FLOW_OFFERED;
    flow_arm_abort(flow);
    tcp_host_reset(flow->relay->stack, flow->handle);
}

static void flow_expired(void *arg, struct timer *timer, uint64_t now)
{
    struct flow *flow = list_entry(timer, struct flow, timer);
    struct relay *relay = flow->relay;

    (void)arg;
    if (flow->state == FLOW_ORPHAN) {
        orphan_expired(flow, now);
        return;
    }
    if (flow->state != FLOW_OPEN)
        return;
    if ((flow->flags & FLOW_RESET) && (flow->flags & FLOW_PAUSED)) {
        tcp_host_reset(relay->stack, flow->handle);
        return;
    }
    if (flow->flags & FLOW_OFFERED) {
        offer_lapsed(flow);
        return;
    }
    if ((flow->flags & FLOW_READABLE) && !(flow->flags & FLOW_PAUSED))
        flow_schedule(flow);
    if (flow->flags & FLOW_WRITE_BLOCKED) {
        flow->flags &= (uint16_t)~FLOW_WRITE_BLOCKED;
        tcp_writable(relay->stack, flow->handle);
    }
}

static struct flow *flow_new(struct relay *relay, int fd, struct flow_handle handle)
{
    struct flow *flow = slots_take(&relay->flows);

    if (!flow)
        return NULL;
    flow->fd = fd;
    flow->state = FLOW_CONNECTING;
    flow->handle = handle;
    flow->relay = relay;
    list_init(&flow->link);
    timer_init(&flow->timer, flow_expired);
    return flow;
}

static int flow_register(struct flow *flow, bool out)
{
    uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET | (out ? EPOLLOUT : 0);

    if (out)
        flow->flags |= FLOW_OUT_ARMED;
    return loop_add(flow->relay->loop, flow->fd, events, flow->relay->tcp_handler, flow->slot.index,
                    flow->slot.generation);
}

/* ---- connecting ---- */

/* What the guest learns from a connect() that failed, and what is counted. */
static enum tcp_refusal refusal_of(struct relay *relay, int error)
{
    switch (error) {
    case ECONNREFUSED:
        return TCP_REFUSE_RESET;
    case ENETUNREACH:
    case ENETDOWN:
    case EAFNOSUPPORT:
    case EINVAL: /* a link-local address without a scope, say */
        return TCP_REFUSE_NET;
    case EHOSTUNREACH:
    case EHOSTDOWN:
        return TCP_REFUSE_HOST;
    case EACCES:
    case EPERM:
        return TCP_REFUSE_PROHIBITED;
    case ETIMEDOUT:
        count(relay->counters, COUNTER_relay_tcp_timed_out);
        return TCP_REFUSE_SILENT;
    case EMFILE:
    case ENFILE:
        count(relay->counters, COUNTER_relay_tcp_no_descriptor);
        return TCP_REFUSE_SILENT;
    case EADDRNOTAVAIL:
        count(relay->counters, COUNTER_relay_tcp_no_port);
        return TCP_REFUSE_SILENT;
    case ENOBUFS:
    case ENOMEM:
    case ENOSPC: /* too many epoll registrations */
        count(relay->counters, COUNTER_relay_tcp_no_memory);
        return TCP_REFUSE_SILENT;
    default:
        count(relay->counters, COUNTER_relay_tcp_other_error);
        return TCP_REFUSE_SILENT;
    }
}

static void flow_refuse(struct flow *flow, int error)
{
    struct relay *relay = flow->relay;
    struct flow_handle handle = flow->handle;

    flow_free(flow);
    tcp_refuse(relay->stack, handle, refusal_of(relay, error));
}

static void flow_connected(struct flow *flow)
{
    flow->state = FLOW_OPEN;
    tcp_connected(flow->relay->stack, flow->handle);
}

/* A connection that stood, and was reset before anybody looked: unlike ECONNREFUSED, which answers
 * a SYN. The peer's bytes come first here too. */
static bool connected_then_reset(int error)
{
    return error == ECONNRESET || error == EPIPE;
}

static void flow_latch_reset(struct flow *flow)
{
    flow->flags |= FLOW_RESET | FLOW_TO_THE_END | FLOW_READABLE;
    flow_schedule(flow);
}

/* The kernel may pick the destination's own port for a socket that connects to loopback, and a
 * simultaneous open with itself then succeeds. Nobody listens there. */
static bool connected_to_itself(const struct relay *relay, int fd, const struct ip_endpoint *to)
{
    struct sockaddr_storage own;
    socklen_t len = sizeof own;
    struct ip_endpoint local;

    if (to->port < relay->own_port_low || to->port > relay->own_port_high)
        return false;
    return getsockname(fd, (struct sockaddr *)&own, &len) == 0 &&
           ip_endpoint_from_sockaddr((struct sockaddr *)&own, &local) && local.port == to->port &&
           ip_address_equal(&local.address, &to->address);
}

static int tcp_socket(struct relay *relay, bool v6)
{
    int domain = v6 ? AF_INET6 : AF_INET;
    int fd = socket(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && give_up_an_orphan(relay))
        fd = socket(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (v6)
        relay_set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    relay_set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    return fd;
}

/* 0: connected; EINPROGRESS; or why not. */
static int tcp_connect(const struct relay *relay, int fd, const struct ip_endpoint *to)
{
    struct sockaddr_storage sa;
    socklen_t len = ip_endpoint_to_sockaddr(to, &sa);

    if (connect(fd, (struct sockaddr *)&sa, len) < 0) {
        if (errno != EINPROGRESS)
            return errno;
        /* On loopback the handshake is over by now, but only a second call says so; asking here
         * saves a turn of the loop. */
        if (connect(fd, (struct sockaddr *)&sa, len) < 0 && errno != EISCONN)
            return errno == EALREADY ? EINPROGRESS : errno;
    }
    return connected_to_itself(relay, fd, to) ? ECONNREFUSED : 0;
}

static void flow_begin(struct flow *flow, const struct ip_endpoint *to)
{
    int error = tcp_connect(flow->relay, flow->fd, to), r;

    if (error && error != EINPROGRESS && !connected_then_reset(error)) {
        flow_refuse(flow, error);
        return;
    }
    r = flow_register(flow, error == EINPROGRESS);
    if (r < 0) {
        flow_refuse(flow, -r);
        return;
    }
    if (!tcp_set_upstream(flow->relay->stack, flow->handle, &upstream, flow->relay,
                          flow_token(flow))) {
        flow_free(flow);
        return;
    }
    if (error == EINPROGRESS)
        return;
    if (error)
        flow_latch_reset(flow);
    flow_connected(flow);
}

void relay_tcp_connect(struct relay *relay, struct flow_handle handle, const struct ip_endpoint *to,
                       uint64_t now)
{
    struct flow *flow;
    int fd;

    relay->now = now;
    if (relay_address_unspecified(&to->address)) {
        count(relay->counters, COUNTER_relay_unspecified_address);
        tcp_refuse(relay->stack, handle, TCP_REFUSE_PROHIBITED);
        return;
    }
    fd = tcp_socket(relay, !ip_address_is_v4(&to->address));
    if (fd < 0) {
        tcp_refuse(relay->stack, handle, refusal_of(relay, -fd));
        return;
    }
    flow = flow_new(relay, fd, handle);
    if (!flow) {
        close(fd);
        tcp_refuse(relay->stack, handle, refusal_of(relay, ENOMEM));
        return;
    }
    flow_begin(flow, to);
}

/* ---- accepted ---- */

void relay_tcp_abort(int take_fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(take_fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(take_fd);
}

void relay_tcp_accepted(struct relay *relay, int take_fd, const struct flow_key *key)
{
    struct flow *flow = flow_new(relay, take_fd, (struct flow_handle){0, 0});

    if (!flow) {
        relay_tcp_abort(take_fd);
        return;
    }
    flow->state = FLOW_OPEN;
    flow->flags = FLOW_ACCEPTED | FLOW_OFFERED | FLOW_PAUSED | FLOW_NODELAY;
    if (flow_register(flow, false) < 0 ||
        !tcp_open_to_guest(relay->stack, key, &upstream, relay, flow_token(flow), &flow->handle)) {
        count(relay->counters, COUNTER_publish_no_flow);
        flow_abort(flow);
        return;
    }
    timer_arm(relay->timers, &flow->timer, clock_now() + OFFER_LIFE);
}

void relay_tcp_link_down(struct relay *relay)
{
    for (uint32_t i = 0; i < slots_limit(&relay->flows); i++) {
        struct flow *flow = slots_at(&relay->flows, i);

        if (flow && (flow->flags & FLOW_OFFERED))
            offer_lapsed(flow);
    }
}

/* ---- judged again ---- */

/* False: the connection is dead already, and its end on the way. */
static bool client_of(const struct flow *flow, struct ip_address *ret)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    struct ip_endpoint client;

    if (getpeername(flow->fd, (struct sockaddr *)&sa, &len) < 0 ||
        !ip_endpoint_from_sockaddr((struct sockaddr *)&sa, &client))
        return false;
    *ret = client.address;
    return true;
}

static void flow_review(struct flow *flow, relay_tcp_keep *keep, void *ctx)
{
    struct relay *relay = flow->relay;
    const uint64_t token = flow_token(flow);
    const bool accepted = flow->flags & FLOW_ACCEPTED;
    struct ip_address client;

    if (accepted && !client_of(flow, &client))
        return;
    if (keep(ctx, flow->handle, accepted ? &client : NULL) || !(flow = flow_of(relay, token)))
        return;
    flow->flags &= (uint16_t)~FLOW_OFFERED; /* neither the guest nor the client is to blame */
    tcp_abort(relay->stack, flow->handle);
}

bool relay_tcp_review(struct relay *relay, uint32_t *at, uint32_t max, relay_tcp_keep *keep,
                      void *ctx)
{
    for (; *at < slots_limit(&relay->flows) && max > 0; (*at)++, max--) {
        struct flow *flow = slots_at(&relay->flows, *at);

        if (flow && flow->state != FLOW_ORPHAN)
            flow_review(flow, keep, ctx);
    }
    return *at < slots_limit(&relay->flows);
}

/* ---- events ---- */

static void connecting_event(struct flow *flow, uint32_t events)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
        return;
    if (getsockopt(flow->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error && !connected_then_reset(error)) {
        flow_refuse(flow, error);
        return;
    }
    if (error)
        flow_latch_reset(flow);
    flow_connected(flow);
}

static void open_event(struct flow *flow, uint32_t events)
{
    if (events & EPOLLERR)
        flow_latch_reset(flow);
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLPRI))
        flow->flags |= FLOW_TO_THE_END;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLPRI)) {
        flow->flags |= FLOW_READABLE;
        if (!(flow->flags & (FLOW_PAUSED | FLOW_EOF_SENT)))
            flow_schedule(flow);
    }
    if ((events & EPOLLOUT) && (flow->flags & FLOW_WRITE_BLOCKED)) {
        flow->flags &= (uint16_t)~FLOW_WRITE_BLOCKED;
        tcp_writable(flow->relay->stack, flow->handle);
    }
}

static void flow_event(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct relay *relay = ctx;
    struct flow *flow = slots_find(&relay->flows, index, generation);

    if (!flow)
        return;
    if (flow->state == FLOW_CONNECTING) {
        connecting_event(flow, events);
        flow = slots_find(&relay->flows, index, generation);
        if (!flow)
            return;
    }
    if (flow->state == FLOW_OPEN)
        open_event(flow, events);
    else if (flow->state == FLOW_ORPHAN && (events & (EPOLLERR | EPOLLHUP)))
        flow_abort(flow); /* the peer is gone: nobody to tell */
}

/* ---- reading ---- */

static ssize_t flow_receive(const struct flow *flow, struct iovec *iov, int count)
{
    if (count == 1)
        return recv(flow->fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT);

    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};

    return recvmsg(flow->fd, &msg, MSG_DONTWAIT);
}

static void flow_ended(struct flow *flow)
{
    flow->flags &= (uint16_t)~FLOW_READABLE;
    if (flow->flags & FLOW_RESET) {
        tcp_host_reset(flow->relay->stack, flow->handle);
    } else {
        flow->flags |= FLOW_EOF_SENT;
        tcp_rx_eof(flow->relay->stack, flow->handle);
    }
}

static void flow_read_failed(struct flow *flow, int error)
{
    switch (error) {
    case EINTR:
        break;
    case EAGAIN:
        flow->flags &= (uint16_t)~FLOW_READABLE;
        if (flow->flags & FLOW_RESET)
            flow_ended(flow);
        break;
    case ENOMEM:
    case ENOBUFS:
        count(flow->relay->counters, COUNTER_relay_tcp_no_memory);
        timer_arm(flow->relay->timers, &flow->timer, clock_now() + RETRY_DELAY);
        break;
    default:
        flow->flags |= FLOW_RESET;
        flow_ended(flow);
    }
}

static bool flow_has_unread(const struct flow *flow)
{
    int bytes = 0;

    return ioctl(flow->fd, SIOCINQ, &bytes) == 0 && bytes > 0;
}

/* The stack has no room. When the peer has reset, the guest gets RESET_GRACE to make some for what
 * is left, if anything is. */
static void flow_pause(struct flow *flow)
{
    flow->flags |= FLOW_PAUSED;
    if (!(flow->flags & FLOW_RESET))
        return;
    if (flow_has_unread(flow))
        timer_arm(flow->relay->timers, &flow->timer, clock_now() + RESET_GRACE);
    else
        tcp_host_reset(flow->relay->stack, flow->handle);
}

/* One read; *left is what remains of the quantum. True: go on. */
static bool flow_read(struct flow *flow, size_t *left)
{
    struct relay *relay = flow->relay;
    const uint64_t token = flow_token(flow);
    struct iovec iov[TCP_RESERVE_IOV];
    size_t room = 0;
    ssize_t got;
    int n = tcp_rx_reserve(relay->stack, flow->handle, iov), error;

    if (n <= 0) {
        flow_pause(flow);
        return false;
    }
    for (int i = 0; i < n; i++)
        room += iov[i].iov_len;
    got = flow_receive(flow, iov, n);
    error = errno;
    tcp_rx_commit(relay->stack, flow->handle, got > 0 ? (size_t)got : 0);
    if (!flow_of(relay, token))
        return false;
    if (got < 0) {
        flow_read_failed(flow, error);
        return error == EINTR;
    }
    if (got == 0) {
        flow_ended(flow);
        return false;
    }
    if ((size_t)got < room && !(flow->flags & FLOW_TO_THE_END)) {
        flow->flags &= (uint16_t)~FLOW_READABLE;
        return false;
    }
    *left -= (size_t)got < *left ? (size_t)got : *left;
    return *left > 0;
}

/* Bytes of the run that the turn used. */
static size_t flow_turn(struct flow *flow, size_t quantum)
{
    struct relay *relay = flow->relay;
    const uint64_t token = flow_token(flow);
    size_t left = quantum;

    if (flow->flags & FLOW_EOF_SENT) {
        if (flow->flags & FLOW_RESET)
            tcp_host_reset(relay->stack, flow->handle);
        return 0;
    }
    if (flow->flags & FLOW_PAUSED) {
        flow_pause(flow);
        return 0;
    }
    while (flow_read(flow, &left))
        ;
    if (left == 0 && (flow = flow_of(relay, token)) && flow->state == FLOW_OPEN &&
        (flow->flags & FLOW_READABLE))
        flow_schedule(flow);
    return quantum - left;
}

bool relay_tcp_run(struct relay *relay)
{
    struct list turn; /* who is ready now; whoever becomes ready meanwhile waits for the next run */
    size_t bytes = 0;
    struct list *link;

    list_init(&turn);
    list_splice_back(&turn, &relay->ready_flows);
    const size_t quantum = list_single(&turn) ? QUANTUM_ALONE : QUANTUM;

    while (bytes < RUN_BYTES && (link = list_pop_front(&turn)))
        bytes += flow_turn(list_entry(link, struct flow, link), quantum);

    /* Those who had no turn go first next time. */
    list_splice_back(&turn, &relay->ready_flows);
    list_splice_back(&relay->ready_flows, &turn);
    return !list_empty(&relay->ready_flows);
}

/* ---- what the stack calls ---- */

static void flow_blocked(struct flow *flow)
{
    flow->flags |= FLOW_WRITE_BLOCKED;
    if (flow->flags & FLOW_OUT_ARMED)
        return;
    flow->flags |= FLOW_OUT_ARMED;
    /* Reports EPOLLOUT at once if there is room again by now: no edge is lost. */
    if (loop_modify(flow->relay->loop, flow->fd,
                    EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLOUT | EPOLLET, flow->relay->tcp_handler,
                    flow->slot.index, flow->slot.generation) < 0)
        flow_latch_reset(flow);
}

static ssize_t write_failed(struct flow *flow, int error)
{
    switch (error) {
    case EAGAIN:
        flow_blocked(flow);
        return 0;
    case ENOMEM:
    case ENOBUFS:
        count(flow->relay->counters, COUNTER_relay_tcp_no_memory);
        flow->flags |= FLOW_WRITE_BLOCKED;
        timer_arm(flow->relay->timers, &flow->timer, clock_now() + RETRY_DELAY);
        return 0;
    default:
        flow_latch_reset(flow);
        return -error;
    }
}

static size_t iov_bytes(const struct iovec *iov, int count)
{
    size_t bytes = 0;

    for (int i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

/* Nagle's algorithm holds back what is small only behind something small that is not acknowledged
 * yet: the first write leaves at once as it is, and many a connection makes no second one. */
static void flow_will_write(struct flow *flow)
{
    if ((flow->flags & (FLOW_WRITTEN | FLOW_NODELAY)) == FLOW_WRITTEN) {
        relay_set_option(flow->fd, IPPROTO_TCP, TCP_NODELAY, 1);
        flow->flags |= FLOW_NODELAY;
    }
    flow->flags |= FLOW_WRITTEN;
}

static ssize_t upstream_write(void *ctx, uint64_t token, const struct iovec *iov, int count)
{
    struct flow *flow = flow_of(ctx, token);
    ssize_t total = 0;

    if (!flow)
        return -EPIPE;
    offer_taken(flow);
    while (count > 0) {
        const int some = count < IOV_MAX ? count : IOV_MAX;
        struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)some};
        ssize_t sent;

        flow_will_write(flow);
        sent = sendmsg(flow->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0) {
            if (errno == EINTR)
                continue;
            sent = write_failed(flow, errno);
            return total > 0 ? total : sent;
        }
        total += sent;
        if ((size_t)sent < iov_bytes(iov, some)) {
            flow_blocked(flow);
            break;
        }
        iov += some;
        count -= some;
    }
    return total;
}

static void upstream_shut_write(void *ctx, uint64_t token)
{
    struct flow *flow = flow_of(ctx, token);

    if (!flow)
        return;
    offer_taken(flow);
    flow->flags |= FLOW_SHUT;
    /* Fails only when the connection is dead already, which has its own event. */
    (void)shutdown(flow->fd, SHUT_WR);
}

static void upstream_resume(void *ctx, uint64_t token)
{
    struct flow *flow = flow_of(ctx, token);

    if (!flow)
        return;
    offer_taken(flow);
    flow->flags &= (uint16_t)~FLOW_PAUSED;
    if (flow->state == FLOW_OPEN && (flow->flags & FLOW_READABLE) && !(flow->flags & FLOW_EOF_SENT))
        flow_schedule(flow);
}

static void upstream_keepalive(void *ctx, uint64_t token)
{
    struct flow *flow = flow_of(ctx, token);

    if (!flow || (flow->flags & FLOW_KEEPALIVE))
        return;
    flow->flags |= FLOW_KEEPALIVE;
    relay_set_option(flow->fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    relay_set_option(flow->fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_GAP_S);
    relay_set_option(flow->fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

/* Ended before the guest had answered: by its RST, by its silence, or because the client is gone.
 */
static void offer_refused(struct flow *flow, enum tcp_close how)
{
    if (how == TCP_CLOSE_RESET)
        count(flow->relay->counters, COUNTER_publish_refused_by_guest);
    else if (how == TCP_CLOSE_VANISHED)
        count(flow->relay->counters, COUNTER_publish_guest_away);
    flow_abort(flow);
}

static void upstream_close(void *ctx, uint64_t token, enum tcp_close how)
{
    struct flow *flow = flow_of(ctx, token);

    if (!flow)
        return;
    if (flow->flags & FLOW_OFFERED)
        offer_refused(flow, how);
    else if (how == TCP_CLOSE_FINISHED)
        flow_free(flow);
    else if (how == TCP_CLOSE_RESET && flow->state == FLOW_OPEN && flow_unsent(flow) > 0)
        flow_make_orphan(flow);
    else
        flow_abort(flow);
}

static const struct tcp_upstream upstream = {
    .write = upstream_write,
    .shut_write = upstream_shut_write,
    .resume = upstream_resume,
    .keepalive = upstream_keepalive,
    .close = upstream_close,
};

/* ---- the whole ---- */

/* The ports that the kernel gives to sockets of its own accord, as they are now. */
static void read_own_ports(struct relay *relay)
{
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    unsigned low, high;

    relay->own_port_low = 0;
    relay->own_port_high = UINT16_MAX;
    if (!f)
        return;
    if (fscanf(f, "%u %u", &low, &high) == 2 && low <= high && high <= UINT16_MAX) {
        relay->own_port_low = (uint16_t)low;
        relay->own_port_high = (uint16_t)high;
    }
    fclose(f);
}

void relay_tcp_init(struct relay *relay)
{
    read_own_ports(relay);
    slots_init(&relay->flows, sizeof(struct flow));
    list_init(&relay->ready_flows);
    list_init(&relay->orphans);
    relay->tcp_handler = loop_add_handler(relay->loop, flow_event, relay);
}

/* The stack may outlive the relay: no flow of its may keep us as its upstream. */
void relay_tcp_fini(struct relay *relay)
{
    for (uint32_t i = 0; i < slots_limit(&relay->flows); i++) {
        struct flow *flow = slots_at(&relay->flows, i);

        if (!flow)
            continue;
        /* Who has sent everything leaves in order: the kernel delivers what it still holds. */
        if (!(flow->flags & FLOW_SHUT))
            flow_arm_abort(flow);
        if (flow->state == FLOW_CONNECTING)
            tcp_refuse(relay->stack, flow->handle, TCP_REFUSE_SILENT);
        else if (flow->state == FLOW_OPEN)
            tcp_host_reset(relay->stack, flow->handle);
        flow = slots_at(&relay->flows, i);
        if (flow)
            flow_free(flow);
    }
    slots_fini(&relay->flows);
}
