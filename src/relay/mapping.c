/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A mapping is one host socket for one (guest address, port) of UDP, or (guest address, identifier)
 * of echo: whatever the guest sends from there leaves from the same host port, to whomever it is
 * (endpoint-independent mapping, RFC 4787). What comes back is let through only from the peers the
 * mapping has sent to; a peer also remembers under which name the guest knows it, for the gateway's
 * address stands for the host's loopback, and under which policy it was allowed. When the policy is
 * replaced, peers are judged again as they are met: by what the guest sends, or by what they send.
 *
 * Mappings are found by a keyed hash, named by slot and generation across epoll, and kept in order
 * of last use, to the second, so that a new one can take the place of the least useful. They end 30
 * s after the last datagram, 120 s once traffic has gone both ways; the timer is not moved for each
 * datagram but looks at the time of the last one when it fires. */

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "relay/internal.h"

#include <netinet/udp.h>

#define IDLE_ONE_WAY      (30 * SECOND_NS)
#define IDLE_BOTH_WAYS    (120 * SECOND_NS)
#define MAPPINGS_MAX      8192u
#define MAPPINGS_MIN      16u
#define ECHO_MAPPINGS_MAX 256u
#define BUCKETS_FIRST     64u
#define RECEIVE_BUFFER    (1024 * 1024) /* as far as net.core.rmem_max allows */
#define TURNS_A_RUN       64

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* ---- finding ---- */

static bool is_echo(const struct mapping *mapping)
{
    return mapping->protocol != IPPROTO_UDP;
}

static size_t bucket_of(const struct relay *relay, const struct ip_address *guest, uint16_t port,
                        uint8_t protocol)
{
    struct {
        struct ip_address guest;
        uint16_t port;
        uint8_t protocol, pad[5];
    } key = {*guest, port, protocol, {0}};

    return hash_bytes(relay->hash_key, &key, sizeof key) & (relay->bucket_count - 1);
}

static bool mapping_is(const struct mapping *mapping, const struct flow_key *key)
{
    return mapping->guest_port == key->guest_port && mapping->protocol == key->protocol &&
           ip_address_equal(&mapping->guest, &key->guest);
}

struct mapping *mapping_find(struct relay *relay, const struct flow_key *key)
{
    struct mapping *mapping = relay->last_mapping;

    if (mapping && mapping_is(mapping, key))
        return mapping;
    if (!relay->bucket_count)
        return NULL;
    mapping = relay->buckets[bucket_of(relay, &key->guest, key->guest_port, key->protocol)];
    while (mapping && !mapping_is(mapping, key))
        mapping = mapping->next_in_bucket;
    if (mapping)
        relay->last_mapping = mapping;
    return mapping;
}

static struct mapping **bucket_for(struct relay *relay, const struct mapping *mapping)
{
    return &relay->buckets[bucket_of(relay, &mapping->guest, mapping->guest_port,
                                     mapping->protocol)];
}

static void bucket_insert(struct relay *relay, struct mapping *mapping)
{
    struct mapping **head = bucket_for(relay, mapping);

    mapping->next_in_bucket = *head;
    *head = mapping;
}

static void bucket_remove(struct relay *relay, struct mapping *mapping)
{
    struct mapping **at = bucket_for(relay, mapping);

    while (*at != mapping)
        at = &(*at)->next_in_bucket;
    *at = mapping->next_in_bucket;
}

/* As many buckets as mappings; a table that could not grow is merely slower. */
static int buckets_grow(struct relay *relay)
{
    const size_t old_count = relay->bucket_count;
    size_t bucket_count = old_count ? old_count * 2 : BUCKETS_FIRST;
    struct mapping **old = relay->buckets, **buckets;

    if (relay->udp_count + relay->echo_count < old_count)
        return 0;
    buckets = calloc(bucket_count, sizeof(*buckets));
    if (!buckets)
        return old_count ? 0 : -ENOMEM;
    relay->buckets = buckets;
    relay->bucket_count = bucket_count;
    for (size_t i = 0; i < old_count; i++) {
        for (struct mapping *mapping = old[i], *next; mapping; mapping = next) {
            next = mapping->next_in_bucket;
            bucket_insert(relay, mapping);
        }
    }
    free(old);
    return 0;
}

/* ---- life and death ---- */

static void leave_table(struct mapping *mapping)
{
    struct relay *relay = mapping->relay;

    bucket_remove(relay, mapping);
    list_remove(&mapping->by_use);
    timer_cancel(relay->timers, &mapping->idle);
    if (is_echo(mapping))
        relay->echo_count--;
    else
        relay->udp_count--;
}

static void report_gone(const struct mapping *mapping, const struct peer *peer)
{
    const struct relay *relay = mapping->relay;
    struct flow_key key;

    if (!peer->watched || !relay->udp_peer_gone)
        return;
    key = mapping_key(mapping, peer);
    relay->udp_peer_gone(relay->udp_peer_gone_ctx, &key);
}

void mapping_close(struct mapping *mapping)
{
    struct relay *relay = mapping->relay;

    for (uint8_t i = 0; i < mapping->peer_count; i++)
        report_gone(mapping, &mapping->peers[i]);
    if (mapping->first_message)
        udp_flush_mapping(mapping);
    if (relay->last_mapping == mapping)
        relay->last_mapping = NULL;
    if (!mapping->published)
        leave_table(mapping);
    list_remove(&mapping->ready);
    close(mapping->fd);
    free(mapping->peers);
    slots_give_back(&relay->mappings, mapping);
    relay_descriptor_freed(relay);
}

static uint64_t idle_limit(const struct mapping *mapping)
{
    return mapping->answered && !is_echo(mapping) ? IDLE_BOTH_WAYS : IDLE_ONE_WAY;
}

static void mapping_idle(void *arg, struct timer *timer, uint64_t now)
{
    struct mapping *mapping = list_entry(timer, struct mapping, idle);
    const uint64_t end = mapping->last_used + idle_limit(mapping);

    (void)arg;
    if (now < end)
        timer_arm(mapping->relay->timers, timer, end);
    else
        mapping_close(mapping);
}

void mapping_touch(struct mapping *mapping, bool answered)
{
    struct relay *relay = mapping->relay;

    if (mapping->published)
        return;
    mapping->last_used = relay->now;
    mapping->answered |= answered;
    if (relay->now - mapping->listed_at < SECOND_NS)
        return;
    mapping->listed_at = relay->now;
    list_remove(&mapping->by_use);
    list_push_back(&relay->mappings_by_use, &mapping->by_use);
}

/* The least recently used mapping goes, of `protocol` (UDP, or either echo) if one is asked for.
 * True: a descriptor is free. */
static bool evict(struct relay *relay, bool any, bool echo)
{
    list_for_each (link, &relay->mappings_by_use) {
        struct mapping *mapping = list_entry(link, struct mapping, by_use);

        if (!any && is_echo(mapping) != echo)
            continue;
        count(relay->counters, COUNTER_relay_mapping_evicted);
        mapping_close(mapping);
        return true;
    }
    return false;
}

static int udp_socket(bool v6)
{
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (v6)
        relay_set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    relay_set_option(fd, SOL_UDP, UDP_GRO, 1);
    relay_set_option(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
    return fd;
}

static int mapping_socket(struct relay *relay, bool echo, bool v6)
{
    int fd = echo ? echo_socket(relay, v6) : udp_socket(v6);

    if (fd < 0)
        return fd;
    if (v6) {
        relay_set_option(fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
        relay_set_option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    } else {
        relay_set_option(fd, IPPROTO_IP, IP_RECVERR, 1);
        relay_set_option(fd, IPPROTO_IP, IP_RECVTOS, 1);
    }
    return fd;
}

static int mapping_socket_or_evict(struct relay *relay, bool echo, bool v6)
{
    int fd = mapping_socket(relay, echo, v6);

    if ((fd == -EMFILE || fd == -ENFILE) && evict(relay, true, false))
        fd = mapping_socket(relay, echo, v6);
    return fd;
}

static void mapping_setup(struct relay *relay, struct mapping *mapping, const struct flow_key *key,
                          int fd)
{
    mapping->relay = relay;
    mapping->guest = key->guest;
    mapping->guest_port = key->guest_port;
    mapping->protocol = key->protocol;
    mapping->v6 = !ip_address_is_v4(&key->guest);
    mapping->fd = fd;
    mapping->dont_fragment = -1;
    mapping->segment_max = UINT16_MAX;
    if (is_echo(mapping)) {
        mapping->raw = (mapping->v6 ? relay->echo6 : relay->echo4) == ECHO_MODE_RAW;
        mapping->identifier = (uint16_t)(relay->echo_identifier_base + mapping->slot.index);
    }
    list_init(&mapping->ready);
    list_init(&mapping->by_use);
    timer_init(&mapping->idle, mapping_idle);
}

/* On failure the mapping is given back, and its socket closed. */
static int mapping_register(struct mapping *mapping)
{
    struct relay *relay = mapping->relay;
    int r = loop_add(relay->loop, mapping->fd, EPOLLIN | EPOLLET, relay->mapping_handler,
                     mapping->slot.index, mapping->slot.generation);

    if (r < 0) {
        close(mapping->fd);
        slots_give_back(&relay->mappings, mapping);
    }
    return r;
}

static struct mapping *mapping_new(struct relay *relay, const struct flow_key *key)
{
    const bool echo = key->protocol != IPPROTO_UDP;
    struct mapping *mapping;
    int fd;

    if (buckets_grow(relay) < 0 || !(mapping = slots_take(&relay->mappings))) {
        count(relay->counters, COUNTER_relay_mapping_no_memory);
        return NULL;
    }
    fd = mapping_socket_or_evict(relay, echo, !ip_address_is_v4(&key->guest));
    if (fd < 0) {
        slots_give_back(&relay->mappings, mapping);
        count(relay->counters, fd == -EMFILE || fd == -ENFILE ? COUNTER_relay_mapping_no_descriptor
                                                              : COUNTER_relay_mapping_no_socket);
        return NULL;
    }
    mapping_setup(relay, mapping, key, fd);
    if (mapping_register(mapping) < 0) {
        count(relay->counters, COUNTER_relay_mapping_no_memory);
        return NULL;
    }
    bucket_insert(relay, mapping);
    return mapping;
}

struct mapping *mapping_obtain(struct relay *relay, const struct flow_key *key)
{
    const bool echo = key->protocol != IPPROTO_UDP;
    struct mapping *mapping = mapping_find(relay, key);

    if (mapping)
        return mapping;
    if (echo ? relay->echo_count >= relay->echo_max : relay->udp_count >= relay->udp_max)
        evict(relay, false, echo);
    mapping = mapping_new(relay, key);
    if (!mapping)
        return NULL;
    if (echo)
        relay->echo_count++;
    else
        relay->udp_count++;
    mapping->last_used = mapping->listed_at = relay->now;
    list_push_back(&relay->mappings_by_use, &mapping->by_use);
    timer_arm(relay->timers, &mapping->idle, relay->now + idle_limit(mapping));
    return mapping;
}

int mapping_publish(struct relay *relay, const struct flow_key *key, bool v6, struct port *port,
                    struct mapping **ret)
{
    struct mapping *mapping = slots_take(&relay->mappings);
    int fd, r;

    if (!mapping)
        return -ENOMEM;
    fd = mapping_socket(relay, false, v6);
    if (fd < 0) {
        slots_give_back(&relay->mappings, mapping);
        return fd;
    }
    mapping_setup(relay, mapping, key, fd);
    mapping->v6 = v6;
    mapping->published = port;
    r = mapping_register(mapping);
    if (r == 0)
        *ret = mapping;
    return r;
}

/* ---- peers ---- */

static bool endpoint_is(const struct ip_endpoint *endpoint, const struct ip_address *address,
                        uint16_t port)
{
    return endpoint->port == port && ip_address_equal(&endpoint->address, address);
}

static struct peer *peer_used(struct mapping *mapping, uint8_t index)
{
    if (mapping->last_peer != index || !mapping->use_clock) {
        mapping->last_peer = index;
        mapping->use_clock++;
    }
    mapping->peers[index].used = mapping->use_clock;
    return &mapping->peers[index];
}

struct peer *mapping_peer_of_remote(struct mapping *mapping, const struct ip_address *address,
                                    uint16_t port)
{
    if (!mapping->peer_count)
        return NULL;
    if (endpoint_is(&mapping->peers[mapping->last_peer].remote, address, port))
        return peer_used(mapping, mapping->last_peer);
    for (uint8_t i = 0; i < mapping->peer_count; i++) {
        if (endpoint_is(&mapping->peers[i].remote, address, port))
            return peer_used(mapping, i);
    }
    return NULL;
}

/* Two names the guest uses may lead to one real peer: the one used last is meant. */
struct peer *mapping_peer_of_real(struct mapping *mapping, const struct ip_address *address,
                                  uint16_t port)
{
    int found = -1;

    if (mapping->published)
        return publish_udp_peer(mapping, address, port);
    if (!mapping->peer_count)
        return NULL;
    if (endpoint_is(&mapping->peers[mapping->last_peer].real, address, port))
        return &mapping->peers[mapping->last_peer];
    for (uint8_t i = 0; i < mapping->peer_count; i++) {
        if (endpoint_is(&mapping->peers[i].real, address, port) &&
            (found < 0 || mapping->peers[i].used > mapping->peers[found].used))
            found = i;
    }
    return found < 0 ? NULL : peer_used(mapping, (uint8_t)found);
}

static int peers_grow(struct mapping *mapping)
{
    uint8_t capacity = mapping->peer_capacity ? (uint8_t)(mapping->peer_capacity * 4) : 1;
    struct peer *peers = realloc(mapping->peers, capacity * sizeof *peers);

    if (!peers)
        return -ENOMEM;
    mapping->peers = peers;
    mapping->peer_capacity = capacity;
    return 0;
}

static uint8_t oldest_peer(const struct mapping *mapping)
{
    uint8_t oldest = 0;

    for (uint8_t i = 1; i < mapping->peer_count; i++) {
        if (mapping->peers[i].used < mapping->peers[oldest].used)
            oldest = i;
    }
    return oldest;
}

struct peer *mapping_peer_obtain(struct mapping *mapping, const struct flow_key *key,
                                 const struct ip_endpoint *real)
{
    struct peer *peer = mapping_peer_of_remote(mapping, &key->remote, key->remote_port);
    uint8_t index;

    if (peer) {
        peer->real = *real;
        peer->answers_checked = mapping->relay->policies;
        peer->answers_denied = false;
        return peer;
    }
    if (mapping->peer_count == PEERS_MAX) {
        index = oldest_peer(mapping);
        count(mapping->relay->counters, COUNTER_relay_peer_evicted);
        report_gone(mapping, &mapping->peers[index]);
    } else {
        if (mapping->peer_count == mapping->peer_capacity && peers_grow(mapping) < 0) {
            count(mapping->relay->counters, COUNTER_relay_mapping_no_memory);
            return NULL;
        }
        index = mapping->peer_count++;
    }
    mapping->peers[index] = (struct peer){
        .remote = {key->remote, key->remote_port},
        .real = *real,
        .answers_checked = mapping->relay->policies,
    };
    mapping->use_clock++;
    mapping->last_peer = index;
    return peer_used(mapping, index);
}

bool mapping_peer_may_answer(struct mapping *mapping, struct peer *peer)
{
    const struct relay *relay = mapping->relay;
    struct flow_key key;

    if (mapping->published) /* judged as a client, by publish_udp.c */
        return true;
    if (__builtin_expect(peer->answers_checked != relay->policies, false)) {
        key = mapping_key(mapping, peer);
        peer->answers_checked = relay->policies;
        peer->answers_denied = relay->judge && !relay->judge(relay->judge_ctx, &key);
    }
    return !peer->answers_denied;
}

void mapping_peer_remove(struct mapping *mapping, const struct peer *peer)
{
    mapping->peers[peer - mapping->peers] = mapping->peers[--mapping->peer_count];
    mapping->last_peer = 0;
}

struct flow_key mapping_key(const struct mapping *mapping, const struct peer *peer)
{
    return (struct flow_key){
        .guest = mapping->published ? publish_udp_guest(peer) : mapping->guest,
        .remote = peer->remote.address,
        .guest_port = mapping->guest_port,
        .remote_port = peer->remote.port,
        .protocol = mapping->protocol,
    };
}

/* ---- sending ---- */

void mapping_set_header(struct mapping *mapping, uint8_t ttl, uint8_t tos, bool dont_fragment)
{
    const int level = mapping->v6 ? IPPROTO_IPV6 : IPPROTO_IP;

    if (ttl && ttl != mapping->ttl) {
        relay_set_option(mapping->fd, level, mapping->v6 ? IPV6_UNICAST_HOPS : IP_TTL, ttl);
        mapping->ttl = ttl;
    }
    if (tos != mapping->tos) {
        relay_set_option(mapping->fd, level, mapping->v6 ? IPV6_TCLASS : IP_TOS, tos);
        mapping->tos = tos;
    }
    if (dont_fragment != mapping->dont_fragment) {
        int value = dont_fragment ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT; /* the same for IPv6 */

        relay_set_option(mapping->fd, level, mapping->v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER,
                         value);
        mapping->dont_fragment = dont_fragment;
    }
}

bool mapping_error_is_borrowed(int error)
{
    switch (error) {
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENONET:
    case EPROTO:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case EMSGSIZE:
    case EACCES:
        return true;
    default:
        return false;
    }
}

static void refuse(struct mapping *mapping, struct culvert_frame *frame, enum counter why,
                   enum icmp_problem problem, uint32_t mtu)
{
    count(mapping->relay->counters, why);
    if (frame)
        stack_icmp_refuse(mapping->relay->stack, frame, problem, mtu);
}

void mapping_send_failed(struct mapping *mapping, int error, struct culvert_frame *frame,
                         uint32_t mtu)
{
    switch (error) {
    case EMSGSIZE:
        refuse(mapping, frame, COUNTER_relay_send_too_big, ICMP_PROBLEM_TOO_BIG, mtu);
        break;
    case ENETUNREACH:
    case ENETDOWN:
        refuse(mapping, frame, COUNTER_relay_send_unreachable, ICMP_PROBLEM_NET_UNREACHABLE, 0);
        break;
    case EHOSTUNREACH:
    case EHOSTDOWN:
        refuse(mapping, frame, COUNTER_relay_send_unreachable, ICMP_PROBLEM_HOST_UNREACHABLE, 0);
        break;
    case EACCES:
    case EPERM:
        refuse(mapping, frame, COUNTER_relay_send_prohibited, ICMP_PROBLEM_PROHIBITED, 0);
        break;
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
        count(mapping->relay->counters, COUNTER_relay_send_full);
        break;
    default:
        count(mapping->relay->counters, COUNTER_relay_send_failed);
    }
}

/* ---- events ---- */

static void mapping_event(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct relay *relay = ctx;
    struct mapping *mapping = slots_find(&relay->mappings, index, generation);

    if (!mapping)
        return;
    if (events & EPOLLERR)
        mapping->error_pending = true;
    if (list_empty(&mapping->ready))
        list_push_back(&relay->ready_mappings, &mapping->ready);
}

static bool mapping_turn(struct mapping *mapping)
{
    if (mapping->error_pending)
        mapping_drain_errors(mapping, NULL);
    return is_echo(mapping) ? echo_receive(mapping) : udp_receive(mapping);
}

bool mapping_run(struct relay *relay)
{
    struct list turn, *link; /* as relay_tcp_run() */

    list_init(&turn);
    list_splice_back(&turn, &relay->ready_mappings);
    for (int turns = 0; turns < TURNS_A_RUN && (link = list_pop_front(&turn)); turns++) {
        struct mapping *mapping = list_entry(link, struct mapping, ready);

        if (mapping_turn(mapping) && list_empty(&mapping->ready))
            list_push_back(&relay->ready_mappings, &mapping->ready);
    }
    list_splice_back(&turn, &relay->ready_mappings);
    list_splice_back(&relay->ready_mappings, &turn);
    return !list_empty(&relay->ready_mappings);
}

/* ---- the whole ---- */

/* A quarter of the descriptors at most: TCP needs the most of them. */
static uint32_t mappings_limit(void)
{
    struct rlimit limit;
    rlim_t quarter;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return MAPPINGS_MIN;
    quarter = limit.rlim_cur / 4;
    if (quarter > MAPPINGS_MAX)
        return MAPPINGS_MAX;
    return quarter < MAPPINGS_MIN ? MAPPINGS_MIN : (uint32_t)quarter;
}

int mapping_init(struct relay *relay)
{
    if (getrandom(relay->hash_key, sizeof relay->hash_key, 0) != sizeof relay->hash_key)
        return -EIO;
    slots_init(&relay->mappings, sizeof(struct mapping));
    list_init(&relay->ready_mappings);
    list_init(&relay->mappings_by_use);
    relay->udp_max = mappings_limit();
    relay->echo_max = relay->udp_max < ECHO_MAPPINGS_MAX ? relay->udp_max : ECHO_MAPPINGS_MAX;
    relay->mapping_handler = loop_add_handler(relay->loop, mapping_event, relay);
    return 0;
}

void mapping_fini(struct relay *relay)
{
    struct list *link;

    while ((link = list_first(&relay->mappings_by_use)))
        mapping_close(list_entry(link, struct mapping, by_use));
    slots_fini(&relay->mappings);
    free(relay->buckets);
}
