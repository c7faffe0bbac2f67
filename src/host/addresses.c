/* SPDX-License-Identifier: Apache-2.0 */
#include "host/addresses.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

struct rtnetlink {
    struct mnl_socket *socket;
    unsigned sequence;
    char buffer[1024];
};

static struct nlmsghdr *request_begin(struct rtnetlink *link, uint16_t type, uint16_t flags)
{
    struct nlmsghdr *request = mnl_nlmsg_put_header(link->buffer);

    request->nlmsg_type = type;
    request->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    request->nlmsg_seq = ++link->sequence;
    return request;
}

/* Sends and waits for the answer: 0 or negative errno. */
static int request_end(struct rtnetlink *link, struct nlmsghdr *request)
{
    ssize_t n;

    if (mnl_socket_sendto(link->socket, request, request->nlmsg_len) < 0)
        return -errno;
    n = mnl_socket_recvfrom(link->socket, link->buffer, sizeof link->buffer);
    if (n < 0)
        return -errno;
    if (mnl_cb_run(link->buffer, (size_t)n, link->sequence, mnl_socket_get_portid(link->socket),
                   NULL, NULL) < 0)
        return -errno;
    return 0;
}

/* `mtu` 0 and `mac` all zero: as they are. */
static int set_up(struct rtnetlink *link, unsigned index, uint32_t mtu, const uint8_t mac[6])
{
    static const uint8_t zero[6];
    struct nlmsghdr *request = request_begin(link, RTM_NEWLINK, 0);
    struct ifinfomsg *info = mnl_nlmsg_put_extra_header(request, sizeof *info);

    info->ifi_family = AF_UNSPEC;
    info->ifi_index = (int)index;
    info->ifi_flags = IFF_UP;
    info->ifi_change = IFF_UP;
    if (mtu > 0)
        mnl_attr_put_u32(request, IFLA_MTU, mtu);
    if (memcmp(mac, zero, sizeof zero) != 0)
        mnl_attr_put(request, IFLA_ADDRESS, sizeof zero, mac);
    return request_end(link, request);
}

static int add_address(struct rtnetlink *link, unsigned index, int family, const void *address,
                       size_t len, uint8_t prefix)
{
    struct nlmsghdr *request = request_begin(link, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    struct ifaddrmsg *info = mnl_nlmsg_put_extra_header(request, sizeof *info);

    info->ifa_family = (uint8_t)family;
    info->ifa_prefixlen = prefix;
    info->ifa_index = index;
    info->ifa_scope = RT_SCOPE_UNIVERSE; /* IPv6: the kernel knows better */
    if (family == AF_INET6)
        info->ifa_flags = IFA_F_NODAD | IFA_F_PERMANENT;
    mnl_attr_put(request, IFA_LOCAL, len, address);
    mnl_attr_put(request, IFA_ADDRESS, len, address);
    return request_end(link, request);
}

/* The kernel delivers to an IPv6 address only once it has a local route, which it adds in its own
 * time, after an address without DAD is already used as a source: the gateway's first answer to a
 * neighbour solicitation would be lost, and a second with it. So we add the route ourselves; the
 * kernel's, of a better metric, comes beside it. */
static int add_local_route(struct rtnetlink *link, unsigned index, const struct in6_addr *address)
{
    struct nlmsghdr *request = request_begin(link, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
    struct rtmsg *route = mnl_nlmsg_put_extra_header(request, sizeof *route);

    route->rtm_family = AF_INET6;
    route->rtm_dst_len = 128;
    route->rtm_table = RT_TABLE_LOCAL;
    route->rtm_protocol = RTPROT_STATIC;
    route->rtm_scope = RT_SCOPE_UNIVERSE;
    route->rtm_type = RTN_LOCAL;
    mnl_attr_put(request, RTA_DST, sizeof *address, address);
    mnl_attr_put_u32(request, RTA_OIF, index);
    return request_end(link, request);
}

static int add_address6(struct rtnetlink *link, unsigned index, const struct in6_addr *address,
                        uint8_t prefix)
{
    int r = add_address(link, index, AF_INET6, address, sizeof *address, prefix);

    return r < 0 ? r : add_local_route(link, index, address);
}

static int add_default_route(struct rtnetlink *link, unsigned index, int family,
                             const void *gateway, size_t len)
{
    struct nlmsghdr *request = request_begin(link, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
    struct rtmsg *route = mnl_nlmsg_put_extra_header(request, sizeof *route);

    route->rtm_family = (uint8_t)family;
    route->rtm_table = RT_TABLE_MAIN;
    route->rtm_protocol = RTPROT_STATIC;
    route->rtm_scope = RT_SCOPE_UNIVERSE;
    route->rtm_type = RTN_UNICAST;
    mnl_attr_put(request, RTA_GATEWAY, len, gateway);
    mnl_attr_put_u32(request, RTA_OIF, index);
    return request_end(link, request);
}

static void write_sysctl(const char *path, const char *value)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd >= 0)
        (void)!write(fd, value, strlen(value));
}

/* Before the interface is up: what would add addresses on its own, among them the link-local one,
 * which would stay tentative for a while (addr_gen_mode 1: none). Not to be had where a surrounding
 * container has made /proc/sys read-only, and not worth failing for. */
static void prepare_ipv6(const struct host_network *network)
{
    static const struct {
        const char *name, *on, *off;
    } settings[] = {
        {"accept_ra", "0", NULL}, {"addr_gen_mode", "1", NULL}, {"disable_ipv6", "0", "1"}};
    char path[128];

    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const char *value = network->ipv6 ? settings[i].on : settings[i].off;

        snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/%s", network->interface,
                 settings[i].name);
        if (value)
            write_sysctl(path, value);
    }
}

/* What the command could do with capabilities, it can do here without: ping, and bind ports below
 * 1024. Failing is no reason not to start. */
static void permit(gid_t ping_gid)
{
    char range[32];

    snprintf(range, sizeof range, "%u %u", ping_gid, ping_gid);
    write_sysctl("/proc/sys/net/ipv4/ping_group_range", range);
    write_sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
}

static int configure(struct rtnetlink *link, const struct host_network *network,
                     const char **ret_step)
{
    static const struct in6_addr link_local = {{{0xfe, 0x80, [15] = 0x64}}}; /* fe80::64 */
    static const uint8_t as_it_is[6];
    unsigned index = if_nametoindex(network->interface);
    int r;

    *ret_step = "find the interface";
    if (index == 0)
        return -errno;
    *ret_step = "bring up lo";
    if ((r = set_up(link, 1 /* always lo */, 0, as_it_is)) < 0)
        return r;
    prepare_ipv6(network);
    *ret_step = "bring up the interface";
    if ((r = set_up(link, index, network->mtu, network->mac)) < 0)
        return r;
    *ret_step = "set the IPv4 address";
    if ((r = add_address(link, index, AF_INET, &network->address4, 4, network->prefix4)) < 0)
        return r;
    *ret_step = "set the IPv4 route";
    if ((r = add_default_route(link, index, AF_INET, &network->gateway4, 4)) < 0 || !network->ipv6)
        return r;
    *ret_step = "set the IPv6 addresses (if this kernel has no IPv6: --ipv6=off)";
    if ((r = add_address6(link, index, &link_local, 64)) < 0 ||
        (r = add_address6(link, index, &network->address6, network->prefix6)) < 0)
        return r;
    *ret_step = "set the IPv6 route";
    return add_default_route(link, index, AF_INET6, &network->gateway6, 16);
}

int addresses_configure(const struct host_network *network, char *message, size_t size)
{
    struct rtnetlink link = {.socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)};
    const char *step = "open rtnetlink";
    int r;

    if (!link.socket || mnl_socket_bind(link.socket, 0, MNL_SOCKET_AUTOPID) < 0)
        r = -errno;
    else
        r = configure(&link, network, &step);
    if (link.socket)
        mnl_socket_close(link.socket);
    if (r < 0)
        snprintf(message, size, "%s: cannot %s: %s", network->interface, step, strerror(-r));
    permit(network->ping_gid);
    return r;
}
