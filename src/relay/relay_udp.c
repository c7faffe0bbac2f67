/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * The guest's datagrams are not sent one by one but gathered until relay_batch_end(), with
 * references on the frames they lie in. A message is what one sendmsg() will take: datagrams of one
 * mapping to one peer with equal headers, of equal size but for the last, which the kernel cuts
 * apart again (UDP_SEGMENT). A super-datagram from a guest with segmentation offload is a message
 * by itself, or several: the kernel cuts 64 segments and 65,507 bytes at most.
 *
 *     batch ─▶ mapping ─▶ mapping …     (first_pending, next_pending)
 *                │
 *                └─▶ message ─▶ message …      (numbers + 1; 0 ends)
 *                       │
 *                       └─▶ piece ─▶ piece …   a frame's reference and its payload's iovecs
 *
 * Where the kernel refuses to cut (no checksum offload on the way, a size above the path's MTU) the
 * message goes out datagram by datagram, and the mapping remembers the size that failed.
 *
 * An error waiting on the socket makes a send fail and belongs to another datagram, to another peer
 * perhaps. So it is drained first, and a send that fails is tried once more after draining: only
 * what fails twice has failed by itself. */

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "relay/internal.h"

#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define BATCH_MESSAGES 256
#define BATCH_PIECES   512
#define BATCH_IOV      2048
#define SEND_MESSAGES  64 /* in one sendmmsg() */
#define SEND_IOV       1024
#define MESSAGE_IOV    512 /* of one message */
#define SEGMENTS_MAX   64
#define PAYLOAD_MAX    65507u
#define GSO_BYTES_MAX  65487u /* leaves room for an IPv6 header too */

struct piece { /* one datagram, or a run of equal ones, in one frame */
    struct culvert_frame *frame;
    uint32_t len;
    uint16_t first_iov, iov_count;
    uint16_t next;
};

struct message {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } to;
    struct ip_endpoint endpoint;
    struct ip_address from; /* all zero: as the host's routes say */
    uint32_t len;
    uint16_t segment_size, segments;
    uint16_t first_piece, last_piece;
    uint16_t iov_count;
    uint16_t next; /* of the same mapping */
    uint8_t to_len;
    uint8_t ttl, tos;
    bool dont_fragment;
    bool closed; /* the last datagram was shorter: none may follow */
};

/* The size of segments, and the address to send from: of either family. */
union send_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

struct udp_batch {
    uint16_t message_count, piece_count, iov_count;
    struct mapping *first_pending, **last_pending;
    struct message messages[BATCH_MESSAGES];
    struct piece pieces[BATCH_PIECES];
    struct iovec iov[BATCH_IOV];

    /* of the sendmmsg() being prepared */
    struct mmsghdr headers[SEND_MESSAGES];
    union send_control controls[SEND_MESSAGES];
    struct iovec send_iov[SEND_IOV];

    /* of a message that is being sent datagram by datagram */
    struct iovec apart_iov[MESSAGE_IOV], datagram_iov[MESSAGE_IOV];
};

/* ---- sending what was gathered ---- */

static void control_add(struct msghdr *msg, union send_control *control, int level, int type,
                        const void *data, size_t len)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)(control->bytes + msg->msg_controllen);

    memset(c, 0, CMSG_SPACE(len));
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), data, len);
    msg->msg_control = control;
    msg->msg_controllen += CMSG_SPACE(len);
}

static void set_source(struct msghdr *msg, union send_control *control,
                       const struct ip_address *from)
{
    if (from->be64[0] == 0 && from->be64[1] == 0)
        return;
    if (ip_address_is_v4(from)) {
        const struct in_pktinfo info = {.ipi_spec_dst.s_addr = from->be32[3]};

        control_add(msg, control, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_ifindex = 0};

        memcpy(&info.ipi6_addr, from->bytes, sizeof info.ipi6_addr);
        control_add(msg, control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
}

static size_t gather_iov(const struct udp_batch *batch, const struct message *message,
                         struct iovec *iov)
{
    size_t n = 0;

    for (uint16_t p = message->first_piece; p; p = batch->pieces[p - 1].next) {
        const struct piece *piece = &batch->pieces[p - 1];

        memcpy(iov + n, batch->iov + piece->first_iov, piece->iov_count * sizeof *iov);
        n += piece->iov_count;
    }
    return n;
}

/* The part [offset, offset + len) of iov; returns the number of entries. */
static size_t cut_iov(const struct iovec *iov, size_t count, size_t offset, size_t len,
                      struct iovec *ret)
{
    size_t n = 0;

    for (size_t i = 0; i < count && len; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t part = iov[i].iov_len - offset < len ? iov[i].iov_len - offset : len;

        ret[n++] = (struct iovec){(char *)iov[i].iov_base + offset, part};
        len -= part;
        offset = 0;
    }
    return n;
}

/* Sends; on a borrowed error drains and sends again. 0 or the errno that is the message's own. */
static int send_one(struct mapping *mapping, const struct msghdr *msg, uint32_t *ret_mtu)
{
    for (int tries = 0;; tries++) {
        if (sendmsg(mapping->fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;

        const int error = errno;

        if (error == EINTR)
            continue;
        if (mapping_error_is_borrowed(error))
            mapping_drain_errors(mapping, ret_mtu);
        if (tries > 0 || !mapping_error_is_borrowed(error))
            return error;
    }
}

/* The frame that brought the byte at `offset` of the message. */
static struct culvert_frame *frame_at(const struct udp_batch *batch, const struct message *message,
                                      size_t offset)
{
    for (uint16_t p = message->first_piece; p; p = batch->pieces[p - 1].next) {
        if (offset < batch->pieces[p - 1].len || !batch->pieces[p - 1].next)
            return batch->pieces[p - 1].frame;
        offset -= batch->pieces[p - 1].len;
    }
    return NULL;
}

/* Datagram by datagram. */
static void send_apart(struct mapping *mapping, struct message *message)
{
    struct udp_batch *batch = mapping->relay->batch;
    struct msghdr msg = {
        .msg_name = &message->to, .msg_namelen = message->to_len, .msg_iov = batch->datagram_iov};
    union send_control control;
    const size_t count = gather_iov(batch, message, batch->apart_iov);
    struct culvert_frame *told = NULL;
    size_t offset = 0;

    set_source(&msg, &control, &message->from);
    do {
        size_t len = message->len - offset;
        uint32_t mtu = 0;
        int error;

        if (len > message->segment_size)
            len = message->segment_size;
        msg.msg_iovlen = cut_iov(batch->apart_iov, count, offset, len, batch->datagram_iov);
        error = send_one(mapping, &msg, &mtu);
        if (error) {
            struct culvert_frame *frame = frame_at(batch, message, offset);

            /* One ICMP for a super-datagram. */
            mapping_send_failed(mapping, error, frame == told ? NULL : frame, mtu);
            told = frame;
        }
        offset += len;
    } while (offset < message->len);
}

/* The kernel refused `msg`, which is `message`, with `error`. */
static void message_failed(struct mapping *mapping, struct message *message,
                           const struct msghdr *msg, int error)
{
    uint32_t mtu = 0;

    if (mapping_error_is_borrowed(error)) {
        mapping_drain_errors(mapping, &mtu);
        error = send_one(mapping, msg, &mtu);
        if (!error)
            return;
    }
    if (message->segments > 1 && (error == EIO || error == EINVAL || error == EMSGSIZE)) {
        count(mapping->relay->counters, COUNTER_relay_udp_segmentation_refused);
        mapping->segment_max = error == EIO ? 0 : (uint16_t)(message->segment_size - 1);
        send_apart(mapping, message);
        return;
    }
    mapping_send_failed(mapping, error, frame_at(mapping->relay->batch, message, 0), mtu);
}

static int send_headers(int fd, struct mmsghdr *headers, unsigned n)
{
    if (n == 1)
        return sendmsg(fd, &headers->msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 1;

    int sent = sendmmsg(fd, headers, n, MSG_DONTWAIT | MSG_NOSIGNAL);

    return sent < 0 ? -errno : sent;
}

/* `n` messages of equal headers, chained from `message`. */
static void send_run(struct mapping *mapping, struct message *message, unsigned n)
{
    struct udp_batch *batch = mapping->relay->batch;
    unsigned done = 0;

    mapping_set_header(mapping, message->ttl, message->tos, message->dont_fragment);
    if (mapping->error_pending)
        mapping_drain_errors(mapping, NULL);
    while (done < n) {
        int r = send_headers(mapping->fd, batch->headers + done, n - done);

        if (r == -EINTR)
            continue;
        if (r == -EAGAIN) { /* the send buffer is full: the rest would find it so too */
            count_n(mapping->relay->counters, COUNTER_relay_send_full, n - done);
            return;
        }
        for (int i = 0; i < r; i++)
            message = message->next ? &batch->messages[message->next - 1] : message;
        if (r > 0) {
            done += (unsigned)r;
            continue;
        }

        struct msghdr failed = batch->headers[done].msg_hdr;
        struct message *next = message->next ? &batch->messages[message->next - 1] : message;

        message_failed(mapping, message, &failed, -r);
        message = next;
        done++;
    }
}

/* Prepares the header of `message` behind `used` iovecs of the run; returns how many it took, 0:
 * no room. */
static size_t prepare(struct udp_batch *batch, struct message *message, unsigned number,
                      size_t used)
{
    struct msghdr *msg = &batch->headers[number].msg_hdr;

    if (used + message->iov_count > SEND_IOV)
        return 0;
    *msg = (struct msghdr){
        .msg_name = &message->to,
        .msg_namelen = message->to_len,
        .msg_iov = batch->send_iov + used,
        .msg_iovlen = gather_iov(batch, message, batch->send_iov + used),
    };
    set_source(msg, &batch->controls[number], &message->from);
    if (message->segments > 1)
        control_add(msg, &batch->controls[number], SOL_UDP, UDP_SEGMENT, &message->segment_size,
                    sizeof message->segment_size);
    return message->iov_count ? message->iov_count : 1;
}

static bool same_header(const struct message *a, const struct message *b)
{
    return a->ttl == b->ttl && a->tos == b->tos && a->dont_fragment == b->dont_fragment;
}

static void send_pending(struct mapping *mapping)
{
    struct udp_batch *batch = mapping->relay->batch;
    uint16_t at = mapping->first_message;

    while (at) {
        struct message *first = &batch->messages[at - 1];
        size_t used = 0;
        unsigned n = 0;

        while (at && n < SEND_MESSAGES) {
            struct message *message = &batch->messages[at - 1];
            size_t took;

            if (!same_header(first, message))
                break;
            took = prepare(batch, message, n, used);
            if (!took)
                break;
            used += took;
            n++;
            at = message->next;
        }
        send_run(mapping, first, n);
    }
}

void udp_flush_mapping(struct mapping *mapping)
{
    struct udp_batch *batch = mapping->relay->batch;

    send_pending(mapping);
    for (uint16_t m = mapping->first_message; m; m = batch->messages[m - 1].next) {
        for (uint16_t p = batch->messages[m - 1].first_piece; p; p = batch->pieces[p - 1].next)
            culvert_frame_unref(batch->pieces[p - 1].frame);
    }
    mapping->first_message = mapping->last_message = 0;

    struct mapping **link = &batch->first_pending;

    while (*link != mapping)
        link = &(*link)->next_pending;
    *link = mapping->next_pending;
    if (batch->last_pending == &mapping->next_pending)
        batch->last_pending = link;
    mapping->next_pending = NULL;
}

void relay_batch_end(struct relay *relay)
{
    struct udp_batch *batch = relay->batch;

    if (!batch || !batch->message_count)
        return;
    while (batch->first_pending)
        udp_flush_mapping(batch->first_pending);
    batch->message_count = batch->piece_count = batch->iov_count = 0;
}

/* ---- gathering ---- */

static struct udp_batch *batch_of(struct relay *relay)
{
    if (!relay->batch) {
        relay->batch = malloc(sizeof *relay->batch);
        if (!relay->batch)
            return NULL;
        relay->batch->message_count = relay->batch->piece_count = relay->batch->iov_count = 0;
        relay->batch->first_pending = NULL;
        relay->batch->last_pending = &relay->batch->first_pending;
    }
    return relay->batch;
}

void udp_batch_free(struct relay *relay)
{
    free(relay->batch); /* empty: closing a mapping flushes it */
    relay->batch = NULL;
}

/* Where a datagram goes, and from which of the host's addresses (all zero: as its routes say). */
struct path {
    struct ip_endpoint to;
    struct ip_address from;
};

/* What of a datagram goes into one message. */
struct part {
    size_t offset, len; /* in the frame */
    uint16_t segment_size, segments;
};

/* May the part be sent together with the message in front of it? */
static bool joins(const struct mapping *mapping, const struct message *message,
                  const struct udp_datagram *datagram, const struct path *path,
                  const struct part *part, size_t iov_count)
{
    const uint16_t size = message->segment_size;

    if (message->closed || !part->len || !size || size > mapping->segment_max)
        return false;
    if (part->segments > 1 ? part->segment_size != size : part->len > size)
        return false;
    return message->segments + part->segments <= SEGMENTS_MAX &&
           message->len + part->len <= GSO_BYTES_MAX &&
           message->iov_count + iov_count <= MESSAGE_IOV && message->ttl == datagram->ttl &&
           message->tos == datagram->tos && message->dont_fragment == datagram->dont_fragment &&
           message->endpoint.port == path->to.port &&
           ip_address_equal(&message->endpoint.address, &path->to.address) &&
           ip_address_equal(&message->from, &path->from);
}

static struct message *message_new(struct mapping *mapping, const struct udp_datagram *datagram,
                                   const struct path *path, const struct part *part)
{
    struct udp_batch *batch = mapping->relay->batch;
    struct message *message = &batch->messages[batch->message_count++];
    struct sockaddr_storage sa;
    socklen_t sa_len = ip_endpoint_to_sockaddr(&path->to, &sa);

    memset(message, 0, offsetof(struct message, to_len));
    memcpy(&message->to, &sa, sa_len < sizeof message->to ? sa_len : sizeof message->to);
    message->to_len = (uint8_t)sa_len;
    message->endpoint = path->to;
    message->from = path->from;
    message->segment_size = part->segment_size;
    message->ttl = datagram->ttl;
    message->tos = datagram->tos;
    message->dont_fragment = datagram->dont_fragment;
    message->closed = false;

    if (mapping->last_message) {
        batch->messages[mapping->last_message - 1].next = batch->message_count;
    } else {
        mapping->first_message = batch->message_count;
        mapping->next_pending = NULL;
        *batch->last_pending = mapping;
        batch->last_pending = &mapping->next_pending;
    }
    mapping->last_message = batch->message_count;
    return message;
}

static void piece_add(struct udp_batch *batch, struct message *message,
                      const struct udp_datagram *datagram, const struct part *part,
                      size_t iov_count)
{
    struct piece *piece = &batch->pieces[batch->piece_count++];

    *piece = (struct piece){
        .frame = culvert_frame_ref(datagram->frame),
        .len = (uint32_t)part->len,
        .first_iov = batch->iov_count,
        .iov_count = (uint16_t)iov_count,
    };
    batch->iov_count = (uint16_t)(batch->iov_count + iov_count);
    if (message->last_piece)
        batch->pieces[message->last_piece - 1].next = batch->piece_count;
    else
        message->first_piece = batch->piece_count;
    message->last_piece = batch->piece_count;
    message->len += (uint32_t)part->len;
    message->segments = (uint16_t)(message->segments + part->segments);
    message->iov_count = (uint16_t)(message->iov_count + iov_count);
    message->closed = part->len != (size_t)part->segments * message->segment_size;
}

static bool batch_full(const struct udp_batch *batch)
{
    return batch->message_count == BATCH_MESSAGES || batch->piece_count == BATCH_PIECES;
}

/* -ENOSPC: no room for its iovecs in this batch; -E2BIG: nor in any. */
static int gather(struct mapping *mapping, const struct udp_datagram *datagram,
                  const struct path *path, const struct part *part)
{
    struct udp_batch *batch = mapping->relay->batch;
    const size_t room = BATCH_IOV - batch->iov_count;
    struct message *message;
    size_t n;

    if (batch_full(batch))
        return -ENOSPC;
    n = culvert_frame_slice(datagram->frame, part->offset, part->len, batch->iov + batch->iov_count,
                            room);
    if (n > MESSAGE_IOV)
        return -E2BIG;
    if (n > room)
        return -ENOSPC;
    message = mapping->last_message ? &batch->messages[mapping->last_message - 1] : NULL;
    if (!message || !joins(mapping, message, datagram, path, part, n))
        message = message_new(mapping, datagram, path, part);
    piece_add(batch, message, datagram, part, n);
    return 0;
}

static void gather_or_flush(struct mapping *mapping, const struct udp_datagram *datagram,
                            const struct path *path, const struct part *part)
{
    int r = gather(mapping, datagram, path, part);

    if (r == -ENOSPC) {
        relay_batch_end(mapping->relay);
        r = gather(mapping, datagram, path, part);
    }
    if (r < 0)
        count(mapping->relay->counters, COUNTER_relay_send_failed);
}

/* A super-datagram in parts the kernel can cut: whole datagrams each, at most 64 of them. */
static void gather_super(struct mapping *mapping, const struct udp_datagram *datagram,
                         const struct path *path)
{
    const uint16_t size = datagram->gso_size;
    size_t fit = size > mapping->segment_max ? 1 : GSO_BYTES_MAX / size;

    if (fit > SEGMENTS_MAX)
        fit = SEGMENTS_MAX;
    if (!fit)
        fit = 1;
    for (size_t done = 0; done < datagram->payload_len;) {
        struct part part = {.offset = datagram->payload_offset + done,
                            .len = datagram->payload_len - done,
                            .segment_size = size};

        if (part.len > fit * size)
            part.len = fit * size;
        part.segments = (uint16_t)((part.len + size - 1) / size);
        gather_or_flush(mapping, datagram, path, &part);
        done += part.len;
    }
}

static void gather_single(struct mapping *mapping, const struct udp_datagram *datagram,
                          const struct path *path)
{
    struct part part = {.offset = datagram->payload_offset,
                        .len = datagram->payload_len,
                        .segment_size = (uint16_t)datagram->payload_len,
                        .segments = 1};

    gather_or_flush(mapping, datagram, path, &part);
}

static void gather_datagram(struct mapping *mapping, const struct udp_datagram *datagram,
                            const struct path *path)
{
    if (datagram->gso_size && datagram->gso_size < datagram->payload_len)
        gather_super(mapping, datagram, path);
    else
        gather_single(mapping, datagram, path);
}

static bool is_too_long(const struct udp_datagram *datagram)
{
    return !datagram->gso_size && datagram->payload_len > PAYLOAD_MAX + 20;
}

static bool may_be_sent(struct relay *relay, const struct udp_datagram *datagram,
                        const struct ip_endpoint *to)
{
    if (relay_address_unspecified(&to->address)) {
        count(relay->counters, COUNTER_relay_unspecified_address);
        stack_icmp_refuse(relay->stack, datagram->frame, ICMP_PROBLEM_PROHIBITED, 0);
        return false;
    }
    if (ip_address_is_v4(&to->address) != ip_address_is_v4(&datagram->key.guest)) {
        count(relay->counters, COUNTER_relay_send_failed);
        return false;
    }
    if (is_too_long(datagram)) {
        count(relay->counters, COUNTER_relay_send_failed);
        return false;
    }
    return true;
}

void relay_udp_send(struct relay *relay, const struct udp_datagram *datagram,
                    const struct ip_endpoint *to, uint64_t now)
{
    struct mapping *mapping;

    relay->now = now;
    if (!may_be_sent(relay, datagram, to))
        return;
    mapping = batch_of(relay) ? mapping_obtain(relay, &datagram->key) : NULL;
    if (!mapping || !mapping_peer_obtain(mapping, &datagram->key, to)) {
        count(relay->counters, COUNTER_relay_send_failed);
        return;
    }
    mapping_touch(mapping, false);
    gather_datagram(mapping, datagram, &(struct path){.to = *to});
}

void udp_send_from(struct mapping *mapping, const struct udp_datagram *datagram,
                   const struct ip_endpoint *to, const struct ip_address *from)
{
    if (!is_too_long(datagram) && batch_of(mapping->relay))
        gather_datagram(mapping, datagram, &(struct path){.to = *to, .from = *from});
    else
        count(mapping->relay->counters, COUNTER_relay_send_failed);
}

/* ---- verdicts ---- */

static struct peer *peer_of(struct relay *relay, const struct flow_key *key,
                            struct mapping **ret_mapping)
{
    struct mapping *mapping = mapping_find(relay, key);

    *ret_mapping = mapping;
    return mapping ? mapping_peer_of_remote(mapping, &key->remote, key->remote_port) : NULL;
}

bool relay_udp_peer_known(struct relay *relay, const struct flow_key *key, uint32_t generation,
                          struct ip_endpoint *ret_to)
{
    struct mapping *mapping;
    struct peer *peer = peer_of(relay, key, &mapping);

    if (!peer || !peer->judged || peer->generation != generation)
        return false;
    *ret_to = peer->real;
    return true;
}

bool relay_udp_peer_watched(struct relay *relay, const struct flow_key *key)
{
    struct mapping *mapping;
    struct peer *peer = peer_of(relay, key, &mapping);

    return peer && peer->watched;
}

bool relay_udp_peer_allow(struct relay *relay, const struct flow_key *key, uint32_t generation,
                          const struct ip_endpoint *to, bool watched, uint64_t now)
{
    struct mapping *mapping;
    struct peer *peer;

    relay->now = now;
    mapping = mapping_obtain(relay, key);
    peer = mapping ? mapping_peer_obtain(mapping, key, to) : NULL;
    if (!peer)
        return false;
    peer->judged = true;
    peer->watched = watched;
    peer->generation = generation;
    return true;
}

void relay_udp_peer_forget(struct relay *relay, const struct flow_key *key)
{
    struct mapping *mapping;
    struct peer *peer = peer_of(relay, key, &mapping);

    if (peer)
        mapping_peer_remove(mapping, peer);
}

void relay_on_udp_peer_gone(struct relay *relay,
                            void (*gone)(void *ctx, const struct flow_key *key), void *ctx)
{
    relay->udp_peer_gone = gone;
    relay->udp_peer_gone_ctx = ctx;
}
