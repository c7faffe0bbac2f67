/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A published TCP port is a listening socket. Whoever connects is judged, given a name for the
 * guest to see, and becomes a flow of relay_tcp.c's: the guest is asked (SYN), and until it has
 * answered no byte is read. The host's kernel has completed the client's handshake by then, so a
 * guest that refuses, is silent or away can only be shown as a RST, never as a refused connect.
 *
 * Names. The guest sees the client's own address where its answers would come back to us: not
 * loopback, not an address of the host's (which the guest knows as the gateway), nothing that lies
 * in the guest's own network or cannot be routed. All these, and clients of a family that the guest
 * lacks, appear as the gateway. The client's port is kept unless the name is taken already.
 *
 * Without descriptors accept() fails and leaves the client in the queue, where it would be reported
 * again at once and for ever. So all listeners rest until a descriptor has been given back, or for
 * REST_TIME: others may have used them up. */

#include "relay/publish.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "relay/publish_internal.h"

#define BACKLOG        4096                  /* as far as net.core.somaxconn allows */
#define ACCEPTS_A_TURN 64                    /* at most */
#define CROWD_GAP      (50 * UINT64_C(1000)) /* ns for each of them, until the next are reported */
#define REST_TIME      (100 * MS_NS)
#define NAME_TRIES     256
#define NAME_STRIDE    24593u /* prime: visits every port before it repeats one */
#define NAME_PORT_MIN  1024u

#define fault(...) (snprintf(message, size, __VA_ARGS__), -errno)

/* ---- names ---- */

static bool is_zero(const struct ip_address *address)
{
    return address->be64[0] == 0 && address->be64[1] == 0;
}

static bool has_family(const struct publish *publish, bool v4)
{
    return v4 ? !is_zero(&publish->guest.guest4) : publish->guest.ipv6;
}

static bool is_in_guests_network(const struct publish *publish, const struct ip_address *address)
{
    const struct ip_prefix own4 = {publish->guest.guest4, (uint8_t)(96 + publish->guest.prefix4)};
    const struct ip_prefix own6 = {publish->guest.guest6, publish->guest.prefix6};

    return (has_family(publish, true) && ip_prefix_contains(&own4, address)) ||
           (has_family(publish, false) && ip_prefix_contains(&own6, address));
}

/* Loopback, link-local, multicast, and what is no address at all. */
static bool is_unroutable(const struct ip_address *address)
{
    const uint8_t *bytes = address->bytes;

    if (ip_address_is_v4(address))
        return bytes[12] == 0 || bytes[12] == 127 || bytes[12] >= 224 ||
               (bytes[12] == 169 && bytes[13] == 254);
    return (address->be64[0] == 0 && address->be32[2] == 0) || bytes[0] == 0xff ||
           (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80);
}

static bool keeps_its_address(const struct publish *publish, const struct ip_address *client)
{
    return has_family(publish, ip_address_is_v4(client)) && !is_unroutable(client) &&
           !is_in_guests_network(publish, client) &&
           !(publish->ops.is_local && publish->ops.is_local(publish->ctx, client));
}

static uint16_t next_name_port(struct publish *publish)
{
    publish->next_name = (publish->next_name + NAME_STRIDE) % (65536u - NAME_PORT_MIN);
    return (uint16_t)(NAME_PORT_MIN + publish->next_name);
}

struct ip_address publish_guest_address(const struct publish *publish, bool v4)
{
    return stack_guest_address(publish->relay->stack, v4 != has_family(publish, v4));
}

static struct ip_address name_of(const struct publish *publish, const struct ip_address *client,
                                 const struct ip_address *guest)
{
    if (keeps_its_address(publish, client))
        return *client;
    return ip_address_is_v4(guest) ? publish->guest.gateway4 : publish->guest.gateway6;
}

bool publish_name(struct publish *publish, const struct port *port,
                  const struct ip_endpoint *client,
                  bool (*is_free)(struct publish *publish, const struct flow_key *key),
                  struct flow_key *ret)
{
    const struct ip_address guest =
        publish_guest_address(publish, ip_address_is_v4(&client->address));

    *ret = (struct flow_key){
        .guest = guest,
        .remote = name_of(publish, &client->address, &guest),
        .guest_port = port->guest_port,
        .remote_port = client->port,
        .protocol = port->protocol,
    };
    for (int tries = 0; tries < NAME_TRIES; tries++) {
        if (is_free(publish, ret))
            return true;
        ret->remote_port = next_name_port(publish);
    }
    count(publish->relay->counters, COUNTER_publish_no_name);
    return false;
}

/* ---- accepting ---- */

static bool is_free_for_tcp(struct publish *publish, const struct flow_key *key)
{
    return !tcp_key_in_use(publish->relay->stack, key);
}

/* Who may come, under which name? */
static bool admit_client(struct port *port, const struct sockaddr *from, struct flow_key *ret)
{
    struct publish *publish = port->publish;
    struct ip_endpoint client;

    if (!publish->link_up) {
        count(publish->relay->counters, COUNTER_publish_link_down);
        return false;
    }
    if (!ip_endpoint_from_sockaddr(from, &client) ||
        !publish->ops.admit(publish->ctx, port->protocol, &client.address, port->guest_port) ||
        !publish_name(publish, port, &client, is_free_for_tcp, ret))
        return false;
    if (stack_guest_is_away(publish->relay->stack, !ip_address_is_v4(&ret->guest))) {
        count(publish->relay->counters, COUNTER_publish_guest_away);
        return false;
    }
    return true;
}

static void listen_for(struct port *port, uint32_t events)
{
    /* Cannot fail: the registration is there and stays. */
    (void)loop_modify(port->publish->relay->loop, port->fd, events, port->publish->handler,
                      port->slot.index, port->slot.generation);
}

static void set_listening(struct publish *publish, uint32_t events)
{
    for (uint32_t i = 0; i < slots_limit(&publish->ports); i++) {
        struct port *port = slots_at(&publish->ports, i);

        if (port && port->protocol == IPPROTO_TCP)
            listen_for(port, events);
    }
}

static void rest(struct publish *publish)
{
    count(publish->relay->counters, COUNTER_publish_no_descriptor);
    publish->resting = true;
    set_listening(publish, 0);
    timer_arm(publish->relay->timers, &publish->rest, clock_now() + REST_TIME);
}

static void rest_over(void *arg, struct timer *timer, uint64_t now)
{
    struct publish *publish = list_entry(timer, struct publish, rest);

    (void)arg, (void)now;
    publish->resting = false;
    set_listening(publish, EPOLLIN);
}

void publish_descriptor_freed(struct publish *publish)
{
    if (publish->resting)
        timer_arm(publish->relay->timers, &publish->rest, publish->relay->now);
}

/* True: there may be others in the queue. */
static bool accept_failed(struct publish *publish, int error)
{
    switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        rest(publish);
        return false;
    case EAGAIN:
        return false;
    default: /* ECONNABORTED, EINTR, and errors of the connection that accept() passes on */
        return true;
    }
}

static bool accept_one(struct port *port)
{
    struct publish *publish = port->publish;
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    struct flow_key key;
    int fd = accept4(port->fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return accept_failed(publish, errno);
    count(publish->relay->counters, COUNTER_publish_accepted);
    if (admit_client(port, (struct sockaddr *)&from, &key))
        relay_tcp_accepted(publish->relay, fd, &key);
    else
        relay_tcp_abort(fd);
    return true;
}

/* Those who come in crowds are taken so: when the queue was not emptied, and soon is reported
 * again.
 */
static void note_taken(struct port *port, int taken)
{
    const uint64_t now = clock_now();

    if (taken < port->appetite) {
        port->appetite = taken > 0 ? (uint8_t)taken : 1;
        return;
    }
    if (now - port->filled_at < port->appetite * CROWD_GAP)
        port->appetite = port->appetite < ACCEPTS_A_TURN / 2 ? port->appetite * 2 : ACCEPTS_A_TURN;
    port->filled_at = now;
}

/* Level-triggered: what a turn leaves in the queue is reported again. So a client that comes alone
 * costs one accept(), without another that finds nothing. */
static void listener_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct publish *publish = ctx;
    struct port *port = slots_find(&publish->ports, index, generation);
    int taken = 0;

    (void)events;
    if (!port)
        return;
    while (taken < port->appetite && !publish->resting && accept_one(port))
        taken++;
    note_taken(port, taken);
}

/* ---- opening and closing ---- */

static int bind_to(int fd, const struct ip_endpoint *at)
{
    struct sockaddr_storage sa;
    socklen_t len = ip_endpoint_to_sockaddr(at, &sa);

    return bind(fd, (struct sockaddr *)&sa, len) < 0 ? -errno : 0;
}

/* What accepted sockets are to have, the listener hands down. */
static int tcp_open(struct port *port)
{
    const bool v6 = !ip_address_is_v4(&port->at.address);
    struct publish *publish = port->publish;
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

    if (fd < 0)
        return -errno;
    if (v6)
        relay_set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    relay_set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    relay_set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    relay_set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    r = bind_to(fd, &port->at);
    if (r == 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    if (r == 0)
        r = loop_add(publish->relay->loop, fd, EPOLLIN, publish->handler, port->slot.index,
                     port->slot.generation);
    if (r < 0)
        close(fd);
    else
        port->fd = fd;
    return r;
}

static int udp_open(struct port *port)
{
    int r = publish_udp_open(port);

    if (r < 0)
        return r;
    r = bind_to(port->mapping->fd, &port->at);
    if (r < 0)
        publish_udp_close(port);
    return r;
}

static void port_close(struct port *port)
{
    struct publish *publish = port->publish;

    if (port->protocol == IPPROTO_UDP)
        publish_udp_close(port);
    else
        close(port->fd);
    slots_give_back(&publish->ports, port);
}

static int port_open(struct publish *publish, const struct publish_spec *spec, uint16_t offset)
{
    struct port *port = slots_take(&publish->ports);
    int r;

    if (!port)
        return -ENOMEM;
    port->publish = publish;
    port->at = (struct ip_endpoint){spec->address, (uint16_t)(spec->host + offset)};
    port->guest_port = (uint16_t)(spec->guest + offset);
    port->protocol = spec->protocol;
    port->appetite = 1;
    r = spec->protocol == IPPROTO_UDP ? udp_open(port) : tcp_open(port);
    if (r < 0)
        slots_give_back(&publish->ports, port);
    return r;
}

static const char *mend_of(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "another program listens there; choose another port";
    case EADDRNOTAVAIL:
        return "not an address of this host; choose one of its own, or 0.0.0.0 or [::] for all";
    case EACCES:
        return "ports below net.ipv4.ip_unprivileged_port_start (1024) are root's; choose a higher "
               "one";
    case EMFILE:
    case ENFILE:
        return "each port takes a descriptor; publish fewer, or raise the limit (ulimit -n)";
    case EAFNOSUPPORT:
        return "this host has no IPv6; leave it out";
    case EINVAL:
        return "link-local addresses cannot be told apart here; choose another";
    default:
        return "try another port or address";
    }
}

static int open_failed(const struct publish_spec *spec, uint16_t offset, int error, char *message,
                       size_t size)
{
    const bool v4 = ip_address_is_v4(&spec->address);
    char text[IP_ADDRESS_TEXT_MAX];

    errno = error;
    return fault("publish %s%s%s:%d/%s: %s: %s", v4 ? "" : "[",
                 ip_address_format(&spec->address, text), v4 ? "" : "]", spec->host + offset,
                 spec->protocol == IPPROTO_UDP ? "udp" : "tcp", strerror(error), mend_of(error));
}

int publish_open(struct publish *publish, const struct publish_spec *spec, char *message,
                 size_t size)
{
    for (uint16_t i = 0; i < spec->count; i++) {
        int r = port_open(publish, spec, i);

        if (r < 0) {
            struct publish_spec opened = *spec;

            opened.count = i;
            publish_close(publish, &opened);
            return open_failed(spec, i, -r, message, size);
        }
    }
    return 0;
}

static bool is_of_spec(const struct port *port, const struct publish_spec *spec)
{
    return port->protocol == spec->protocol && port->at.port >= spec->host &&
           port->at.port - spec->host < spec->count &&
           ip_address_equal(&port->at.address, &spec->address);
}

void publish_close(struct publish *publish, const struct publish_spec *spec)
{
    for (uint32_t i = 0; i < slots_limit(&publish->ports); i++) {
        struct port *port = slots_at(&publish->ports, i);

        if (port && is_of_spec(port, spec))
            port_close(port);
    }
}

bool publish_leads_to(const struct publish *publish, uint8_t protocol, uint16_t guest_port)
{
    for (uint32_t i = 0; i < slots_limit(&publish->ports); i++) {
        const struct port *port = slots_at(&publish->ports, i);

        if (port && port->protocol == protocol && port->guest_port == guest_port)
            return true;
    }
    return false;
}

/* ---- the whole ---- */

struct publish *publish_new(struct relay *relay, const struct stack_config *guest,
                            const struct publish_ops *ops, void *ctx)
{
    struct publish *publish = calloc(1, sizeof *publish);

    if (!publish)
        return NULL;
    publish->relay = relay;
    publish->guest = *guest;
    publish->ops = *ops;
    publish->ctx = ctx;
    publish->link_up = true;
    publish->generation = 1;
    slots_init(&publish->ports, sizeof(struct port));
    timer_init(&publish->rest, rest_over);
    publish->handler = loop_add_handler(relay->loop, listener_ready, publish);
    relay->publish = publish;
    return publish;
}

struct publish *publish_free(struct publish *publish)
{
    if (!publish)
        return NULL;
    for (uint32_t i = 0; i < slots_limit(&publish->ports); i++) {
        struct port *port = slots_at(&publish->ports, i);

        if (port)
            port_close(port);
    }
    publish_udp_fini(publish);
    slots_fini(&publish->ports);
    timer_cancel(publish->relay->timers, &publish->rest);
    publish->relay->publish = NULL;
    free(publish);
    return NULL;
}

void publish_set_link(struct publish *publish, bool up)
{
    publish->link_up = up;
    if (!up)
        relay_tcp_link_down(publish->relay);
}

void publish_policy_changed(struct publish *publish)
{
    publish->generation++;
}
