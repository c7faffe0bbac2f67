/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A published UDP port is a mapping (mapping.c) whose socket is bound and whose peers come by
 * themselves: each client, an address and port outside, is a session. It is judged by its first
 * datagram and given a name for the guest to see (publish.c). What the guest sends to that name
 * from that port leaves from the published socket again, to that client; all else the guest sends
 * is none of ours.
 *
 * On a wildcard address the host has several addresses that a client may have sent to, and takes
 * answers only from the one it did: so that address belongs to the session, and the answers leave
 * from it (IP_PKTINFO). A guest that is found under another IPv6 address (stack/neighbour.c) takes
 * the sessions along that it has not answered yet.
 *
 * Sessions are found by client, for what comes in, and by the guest's flow key, for what goes out.
 * They are SESSIONS_MAX at most, on two lists, each in order of last use to the second: those the
 * guest has answered live twice as long as the others, and a new client takes the place of an
 * unanswered one first. A session that was used within the last second is never displaced: so a
 * peer found in this turn stays valid for all of it. */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "relay/publish_internal.h"

#define SESSIONS_MAX 4096u
#define BUCKETS      4096u /* a power of two */
#define IDLE_ONE_WAY (30 * SECOND_NS)
#define IDLE_ANSWERED                                                                              \
    (120 * SECOND_NS) /* as conntrack's, and as mappings that the guest begins                     \
                       */

struct session {
    struct slot slot;
    struct port *port;
    struct peer peer;               /* real: the client; remote: its name */
    struct ip_address local, guest; /* the client's destination; the guest's address it leads to */
    struct session *next_by_client, *next_by_key;
    struct list by_use;
    uint64_t last_used, listed_at;
    bool answered;
};

struct sessions {
    struct publish *publish;
    struct slots slots;
    struct list unanswered, answered;
    struct timer idle;
    struct session *by_client[BUCKETS], *by_key[BUCKETS];
};

/* ---- finding ---- */

static size_t bucket_of_client(const struct sessions *sessions, const struct port *port,
                               const struct ip_address *address, uint16_t udp_port)
{
    struct {
        struct ip_address address;
        uint32_t port_index;
        uint16_t udp_port, pad;
    } key = {*address, port->slot.index, udp_port, 0};

    return hash_bytes(sessions->publish->relay->hash_key, &key, sizeof key) & (BUCKETS - 1);
}

static size_t bucket_of_key(const struct sessions *sessions, const struct flow_key *key)
{
    return hash_bytes(sessions->publish->relay->hash_key, key, sizeof *key) & (BUCKETS - 1);
}

/* `local` NULL: whichever. */
static struct session *session_of_client(struct sessions *sessions, const struct port *port,
                                         const struct ip_address *address, uint16_t udp_port,
                                         const struct ip_address *local)
{
    struct session *session =
        sessions->by_client[bucket_of_client(sessions, port, address, udp_port)];

    while (session && (session->port != port || session->peer.real.port != udp_port ||
                       !ip_address_equal(&session->peer.real.address, address) ||
                       (local && !ip_address_equal(&session->local, local))))
        session = session->next_by_client;
    return session;
}

static struct flow_key key_of(const struct session *session)
{
    return mapping_key(session->port->mapping, &session->peer);
}

static struct session *session_of_key(struct sessions *sessions, const struct flow_key *key)
{
    struct session *session = sessions->by_key[bucket_of_key(sessions, key)];

    while (session && (session->peer.remote.port != key->remote_port ||
                       session->port->guest_port != key->guest_port ||
                       !ip_address_equal(&session->peer.remote.address, &key->remote) ||
                       !ip_address_equal(&session->guest, &key->guest)))
        session = session->next_by_key;
    return session;
}

/* ---- life and death ---- */

static struct session **place_by_client(struct sessions *sessions, const struct session *session)
{
    return &sessions->by_client[bucket_of_client(
        sessions, session->port, &session->peer.real.address, session->peer.real.port)];
}

static struct session **place_by_key(struct sessions *sessions, const struct session *session)
{
    const struct flow_key key = key_of(session);

    return &sessions->by_key[bucket_of_key(sessions, &key)];
}

static void leave_keys(struct sessions *sessions, struct session *session)
{
    struct session **at = place_by_key(sessions, session);

    while (*at != session)
        at = &(*at)->next_by_key;
    *at = session->next_by_key;
}

static void enter_keys(struct sessions *sessions, struct session *session)
{
    struct session **place = place_by_key(sessions, session);

    session->next_by_key = *place;
    *place = session;
}

static void session_free(struct sessions *sessions, struct session *session)
{
    struct session **at = place_by_client(sessions, session);

    while (*at != session)
        at = &(*at)->next_by_client;
    *at = session->next_by_client;
    leave_keys(sessions, session);
    list_remove(&session->by_use);
    slots_give_back(&sessions->slots, session);
}

static uint64_t session_end(const struct session *session)
{
    return session->last_used + (session->answered ? IDLE_ANSWERED : IDLE_ONE_WAY);
}

/* Frees what is over; when the next one is. */
static uint64_t list_expire(struct sessions *sessions, struct list *list, uint64_t now)
{
    for (struct list *link = list_first(list); link; link = list_first(list)) {
        struct session *session = list_entry(link, struct session, by_use);

        if (now < session_end(session))
            return session_end(session);
        session_free(sessions, session);
    }
    return TIMERS_NEVER;
}

static void sessions_idle(void *arg, struct timer *timer, uint64_t now)
{
    struct sessions *sessions = list_entry(timer, struct sessions, idle);
    uint64_t unanswered = list_expire(sessions, &sessions->unanswered, now);
    uint64_t answered = list_expire(sessions, &sessions->answered, now);
    uint64_t next = unanswered < answered ? unanswered : answered;

    (void)arg;
    if (next != TIMERS_NEVER)
        timer_arm(sessions->publish->relay->timers, timer, next);
}

static void session_touch(struct sessions *sessions, struct session *session, bool answered)
{
    const uint64_t now = sessions->publish->relay->now;
    const bool moves = answered && !session->answered;

    session->last_used = now;
    session->answered |= answered;
    if (!moves && now - session->listed_at < SECOND_NS)
        return;
    session->listed_at = now;
    list_remove(&session->by_use);
    list_push_back(session->answered ? &sessions->answered : &sessions->unanswered,
                   &session->by_use);
}

/* False: all are in use. */
static bool make_room(struct sessions *sessions)
{
    struct list *lists[] = {&sessions->unanswered, &sessions->answered};
    const uint64_t now = sessions->publish->relay->now;

    for (size_t i = 0; i < 2; i++) {
        struct list *link = list_first(lists[i]);
        struct session *session = link ? list_entry(link, struct session, by_use) : NULL;

        if (session && now - session->last_used >= SECOND_NS) {
            session_free(sessions, session);
            return true;
        }
    }
    return false;
}

static struct session *session_new(struct sessions *sessions)
{
    struct session *session = NULL;

    if (sessions->slots.taken < SESSIONS_MAX || make_room(sessions))
        session = slots_take(&sessions->slots);
    if (!session)
        count(sessions->publish->relay->counters, COUNTER_publish_client_limit);
    return session;
}

/* ---- clients ---- */

/* Nor may it be a name by which the guest already calls somebody outside from that port. */
static bool is_free_for_udp(struct publish *publish, const struct flow_key *key)
{
    struct mapping *mapping = mapping_find(publish->relay, key);

    return !session_of_key(publish->sessions, key) &&
           !(mapping && mapping_peer_of_remote(mapping, &key->remote, key->remote_port));
}

static bool is_admitted(const struct port *port, const struct ip_endpoint *client)
{
    struct publish *publish = port->publish;

    if (publish->link_up)
        return publish->ops.admit(publish->ctx, IPPROTO_UDP, &client->address, port->guest_port);
    count(publish->relay->counters, COUNTER_publish_link_down);
    return false;
}

static struct session *session_begin(struct port *port, const struct ip_endpoint *client,
                                     const struct ip_address *local)
{
    struct publish *publish = port->publish;
    struct sessions *sessions = publish->sessions;
    struct session *session, **place;
    struct flow_key key;

    if (!is_admitted(port, client) || !publish_name(publish, port, client, is_free_for_udp, &key))
        return NULL;
    session = session_new(sessions);
    if (!session)
        return NULL;
    count(publish->relay->counters, COUNTER_publish_udp_clients);
    session->port = port;
    session->peer.real = *client;
    session->peer.remote = (struct ip_endpoint){key.remote, key.remote_port};
    session->peer.generation = publish->generation;
    session->local = *local;
    session->guest = key.guest;
    place = place_by_client(sessions, session);
    session->next_by_client = *place;
    *place = session;
    enter_keys(sessions, session);
    list_init(&session->by_use);
    list_push_back(&sessions->unanswered, &session->by_use);
    session->listed_at = publish->relay->now;
    if (!timer_armed(&sessions->idle))
        timer_arm(publish->relay->timers, &sessions->idle, publish->relay->now + IDLE_ONE_WAY);
    return session;
}

/* The guest has not answered there: it may be because it has another address. */
static void follow_guest(struct session *session)
{
    struct publish *publish = session->port->publish;
    const struct ip_address now =
        stack_guest_address(publish->relay->stack, !ip_address_is_v4(&session->guest));
    struct flow_key key = key_of(session);

    if (ip_address_equal(&now, &session->guest))
        return;
    key.guest = now;
    if (!is_free_for_udp(publish, &key))
        return;
    leave_keys(publish->sessions, session);
    session->guest = now;
    enter_keys(publish->sessions, session);
}

/* Judged by the policy in force. False: the session is no more. */
static bool session_renew(struct sessions *sessions, struct session *session)
{
    if (session->peer.generation == sessions->publish->generation)
        return true;
    if (!is_admitted(session->port, &session->peer.real)) {
        session_free(sessions, session);
        return false;
    }
    session->peer.generation = sessions->publish->generation;
    return true;
}

struct peer *publish_udp_sender(struct mapping *mapping, const struct ip_endpoint *client,
                                const struct ip_address *local)
{
    struct port *port = mapping->published;
    struct publish *publish = port->publish;
    struct session *session =
        session_of_client(publish->sessions, port, &client->address, client->port, local);

    if (session && !session_renew(publish->sessions, session))
        return NULL;
    if (!session && !(session = session_begin(port, client, local)))
        return NULL;
    if (!session->answered)
        follow_guest(session);
    session_touch(publish->sessions, session, false);
    return &session->peer;
}

struct peer *publish_udp_peer(struct mapping *mapping, const struct ip_address *address,
                              uint16_t udp_port)
{
    struct port *port = mapping->published;
    struct sessions *sessions = port->publish->sessions;
    struct session *session = session_of_client(sessions, port, address, udp_port, NULL);

    return session && session_renew(sessions, session) ? &session->peer : NULL;
}

struct ip_address publish_udp_guest(const struct peer *peer)
{
    return list_entry(peer, const struct session, peer)->guest;
}

/* ---- the guest's answers ---- */

bool publish_udp_reply(struct publish *publish, const struct udp_datagram *datagram, uint64_t now)
{
    struct sessions *sessions = publish->sessions;
    struct session *session;

    if (!sessions || sessions->slots.taken == 0)
        return false;
    session = session_of_key(sessions, &datagram->key);
    publish->relay->now = now;
    if (!session || !session_renew(sessions, session))
        return false;
    session_touch(sessions, session, true);
    udp_send_from(session->port->mapping, datagram, &session->peer.real, &session->local);
    return true;
}

/* ---- ports ---- */

static struct sessions *sessions_new(struct publish *publish)
{
    struct sessions *sessions = calloc(1, sizeof *sessions);

    if (!sessions)
        return NULL;
    sessions->publish = publish;
    slots_init(&sessions->slots, sizeof(struct session));
    list_init(&sessions->unanswered);
    list_init(&sessions->answered);
    timer_init(&sessions->idle, sessions_idle);
    return sessions;
}

/* Its socket is made but not bound. */
int publish_udp_open(struct port *port)
{
    struct publish *publish = port->publish;
    const bool v6 = !ip_address_is_v4(&port->at.address);
    struct flow_key key;
    int r;

    if (!publish->sessions)
        publish->sessions = sessions_new(publish);
    if (!publish->sessions)
        return -ENOMEM;
    key = (struct flow_key){.guest_port = port->guest_port, .protocol = IPPROTO_UDP};
    key.guest = publish_guest_address(publish, !v6);
    r = mapping_publish(publish->relay, &key, v6, port, &port->mapping);
    if (r == 0 && relay_address_unspecified(&port->at.address))
        relay_set_option(port->mapping->fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
                         v6 ? IPV6_RECVPKTINFO : IP_PKTINFO, 1);
    return r;
}

static void list_forget(struct sessions *sessions, struct list *list, const struct port *port)
{
    list_for_each_safe (link, list) {
        struct session *session = list_entry(link, struct session, by_use);

        if (session->port == port)
            session_free(sessions, session);
    }
}

void publish_udp_close(struct port *port)
{
    struct sessions *sessions = port->publish->sessions;

    list_forget(sessions, &sessions->unanswered, port);
    list_forget(sessions, &sessions->answered, port);
    mapping_close(port->mapping);
    port->mapping = NULL;
}

void publish_udp_fini(struct publish *publish)
{
    struct sessions *sessions = publish->sessions;

    if (!sessions)
        return;
    timer_cancel(publish->relay->timers, &sessions->idle);
    slots_fini(&sessions->slots);
    free(sessions);
    publish->sessions = NULL;
}
