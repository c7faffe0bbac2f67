/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * Two rtnetlink sockets: one asks (RTM_GETROUTE for one address: the kernel has answered when send
 * returns, so nothing waits), one listens for changes. The answers lie in a table with one place an
 * address, chosen by a hash; a place carries the generation it was written in, and any change of
 * addresses or routes (or a lost notice of one) begins a new generation. */

#include "relay/host_addresses.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "base/hash.h"

#define PLACES        1024u /* a power of two */
#define NETLINK_BYTES 8192
#define DUMP_BYTES    32768
#define DUMP_MAX      100000 /* routes looked at by host_has_ipv6_route() */

struct place {
    struct ip_address address;
    uint32_t generation; /* 0: empty */
    bool local;
};

struct host_addresses {
    struct loop *loop;
    struct mnl_socket *query, *changes;
    uint32_t generation, sequence;
    uint64_t hash_key[2];
    struct place places[PLACES];
};

/* ---- asking ---- */

static struct mnl_socket *netlink_open(unsigned groups, int flags)
{
    struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, flags | SOCK_CLOEXEC);

    if (!socket)
        return NULL;
    if (mnl_socket_bind(socket, groups, MNL_SOCKET_AUTOPID) < 0) {
        int error = errno;

        mnl_socket_close(socket);
        errno = error;
        return NULL;
    }
    return socket;
}

static struct nlmsghdr *route_question(void *buffer, const struct ip_address *address,
                                       uint32_t sequence)
{
    const bool v4 = ip_address_is_v4(address);
    struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);

    header->nlmsg_type = RTM_GETROUTE;
    header->nlmsg_flags = NLM_F_REQUEST;
    header->nlmsg_seq = sequence;

    struct rtmsg *route = mnl_nlmsg_put_extra_header(header, sizeof *route);

    route->rtm_family = v4 ? AF_INET : AF_INET6;
    route->rtm_dst_len = v4 ? 32 : 128;
    mnl_attr_put(header, RTA_DST, v4 ? 4 : 16, address->bytes + (v4 ? 12 : 0));
    return header;
}

static bool type_is_local(uint8_t type)
{
    return type == RTN_LOCAL || type == RTN_BROADCAST || type == RTN_ANYCAST;
}

/* 1 or 0: the answer; negative errno: there is none yet (-EAGAIN) or will be none. */
static int route_answer(const void *buffer, size_t len, uint32_t sequence)
{
    const struct nlmsghdr *header = buffer;
    int rest = (int)len;

    for (; mnl_nlmsg_ok(header, rest); header = mnl_nlmsg_next(header, &rest)) {
        if (header->nlmsg_seq != sequence)
            continue;
        if (header->nlmsg_type == NLMSG_ERROR) {
            const struct nlmsgerr *error = mnl_nlmsg_get_payload(header);

            if (mnl_nlmsg_get_payload_len(header) < sizeof error->error)
                return -EBADMSG;
            switch (-error->error) {
            case ENETUNREACH:
            case EHOSTUNREACH:
            case EACCES: /* a prohibit route */
            case EINVAL: /* a blackhole route */
                return 0;
            default:
                return -EIO;
            }
        }
        if (header->nlmsg_type == RTM_NEWROUTE) {
            const struct rtmsg *route = mnl_nlmsg_get_payload(header);

            if (mnl_nlmsg_get_payload_len(header) < sizeof *route)
                return -EBADMSG;
            return type_is_local(route->rtm_type);
        }
    }
    return -EAGAIN;
}

static int ask_kernel(struct host_addresses *addresses, const struct ip_address *address)
{
    _Alignas(struct nlmsghdr) char buffer[NETLINK_BYTES];
    const uint32_t sequence = ++addresses->sequence;
    struct nlmsghdr *question = route_question(buffer, address, sequence);

    if (mnl_socket_sendto(addresses->query, question, question->nlmsg_len) < 0)
        return -errno;
    for (int tries = 0; tries < 8; tries++) { /* earlier answers nobody read come first */
        ssize_t got = mnl_socket_recvfrom(addresses->query, buffer, sizeof buffer);
        int r;

        if (got < 0 && errno != EINTR)
            return -errno;
        if (got < 0)
            continue;
        r = route_answer(buffer, (size_t)got, sequence);
        if (r != -EAGAIN)
            return r;
    }
    return -EIO;
}

bool host_addresses_is_local(void *ctx, const struct ip_address *address)
{
    struct host_addresses *addresses = ctx;
    struct place *place =
        &addresses->places[hash_bytes(addresses->hash_key, address, sizeof *address) % PLACES];
    int r;

    if (ip_address_is_v4(address) && address->be32[3] == htonl(INADDR_BROADCAST))
        return true; /* whatever routes there are */
    if (place->generation == addresses->generation && ip_address_equal(&place->address, address))
        return place->local;
    r = ask_kernel(addresses, address);
    if (r < 0)
        return true;
    *place = (struct place){*address, addresses->generation, r > 0};
    return place->local;
}

/* ---- changes ---- */

static void new_generation(struct host_addresses *addresses)
{
    if (++addresses->generation == 0) { /* 0 means empty */
        memset(addresses->places, 0, sizeof addresses->places);
        addresses->generation = 1;
    }
}

/* What changed does not matter, and a notice the kernel had to drop (ENOBUFS) is one too. */
static void changed(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct host_addresses *addresses = ctx;
    char buffer[NETLINK_BYTES];

    (void)index, (void)generation, (void)events;
    new_generation(addresses);
    for (;;) {
        if (recv(mnl_socket_get_fd(addresses->changes), buffer, sizeof buffer,
                 MSG_DONTWAIT | MSG_TRUNC) < 0 &&
            errno != EINTR && errno != ENOBUFS)
            return;
    }
}

struct host_addresses *host_addresses_new(struct loop *loop)
{
    struct host_addresses *addresses = calloc(1, sizeof *addresses);
    int r;

    if (!addresses)
        return NULL;
    addresses->loop = loop;
    addresses->generation = 1;
    if (getrandom(addresses->hash_key, sizeof addresses->hash_key, 0) < 0)
        goto failed;
    addresses->query = netlink_open(0, SOCK_NONBLOCK);
    addresses->changes = netlink_open(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                                          RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_RULE,
                                      SOCK_NONBLOCK);
    if (!addresses->query || !addresses->changes)
        goto failed;
    r = loop_add(loop, mnl_socket_get_fd(addresses->changes), EPOLLIN | EPOLLET,
                 loop_add_handler(loop, changed, addresses), 0, 1);
    if (r < 0) {
        errno = -r;
        goto failed;
    }
    return addresses;

failed:
    r = errno;
    host_addresses_free(addresses);
    errno = r;
    return NULL;
}

struct host_addresses *host_addresses_free(struct host_addresses *addresses)
{
    if (!addresses)
        return NULL;
    if (addresses->query)
        mnl_socket_close(addresses->query);
    if (addresses->changes) {
        loop_remove(addresses->loop, mnl_socket_get_fd(addresses->changes));
        mnl_socket_close(addresses->changes);
    }
    free(addresses);
    return NULL;
}

/* ---- IPv6 at all? ---- */

/* Into 2000::/3, all global unicast there is (RFC 4291 2.4)? */
static int note_global_destination(const struct nlattr *attribute, void *arg)
{
    bool *global = arg;

    if (mnl_attr_get_type(attribute) == RTA_DST && mnl_attr_get_payload_len(attribute) == 16)
        *global = (*(const uint8_t *)mnl_attr_get_payload(attribute) & 0xe0) == 0x20;
    return MNL_CB_OK;
}

static bool route_is_global(const struct nlmsghdr *header)
{
    const struct rtmsg *route = mnl_nlmsg_get_payload(header);
    bool global = false;

    if (header->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(header) < sizeof *route ||
        route->rtm_family != AF_INET6 || route->rtm_type != RTN_UNICAST)
        return false;
    if (route->rtm_dst_len == 0)
        return true;
    (void)mnl_attr_parse(header, sizeof *route, note_global_destination, &global);
    return global;
}

/* 1: found; 0: the dump ended without; -EAGAIN: it goes on. */
static int dump_part(const void *buffer, size_t len, int *seen)
{
    const struct nlmsghdr *header = buffer;
    int rest = (int)len;

    for (; mnl_nlmsg_ok(header, rest); header = mnl_nlmsg_next(header, &rest)) {
        if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
            return 0;
        if (route_is_global(header))
            return 1;
        if (++*seen >= DUMP_MAX)
            return 0;
    }
    return -EAGAIN;
}

static bool dump_has_global(struct mnl_socket *socket)
{
    _Alignas(struct nlmsghdr) char buffer[DUMP_BYTES];
    struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
    int seen = 0, r = -EAGAIN;

    header->nlmsg_type = RTM_GETROUTE;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    header->nlmsg_seq = 1;

    struct rtmsg *route = mnl_nlmsg_put_extra_header(header, sizeof *route);

    route->rtm_family = AF_INET6;
    if (mnl_socket_sendto(socket, header, header->nlmsg_len) < 0)
        return false;
    while (r == -EAGAIN) {
        ssize_t got = mnl_socket_recvfrom(socket, buffer, sizeof buffer);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        r = dump_part(buffer, (size_t)got, &seen);
    }
    return r > 0;
}

bool host_has_ipv6_route(void)
{
    struct mnl_socket *socket = netlink_open(0, 0);
    bool found;

    if (!socket)
        return false;
    found = dump_has_global(socket);
    mnl_socket_close(socket);
    return found;
}
