/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/config.h"

#define fault(...)                                                                                 \
    ((error ? (void)snprintf(error->message, sizeof error->message, __VA_ARGS__) : (void)0),       \
     -EINVAL)

/* Loopback, multicast, the unspecified and the broadcast address are nobody's to have. */
static bool is_usable(const struct ip_address *a)
{
    static const struct ip_address loopback6 = {.bytes = {[15] = 1}}, any6;

    if (ip_address_is_v4(a))
        return a->bytes[12] != 0 && a->bytes[12] != 127 && a->bytes[12] < 224;
    return a->bytes[0] != 0xff && !(a->bytes[0] == 0xfe && (a->bytes[1] & 0xc0) == 0x80) &&
           !ip_address_equal(a, &loopback6) && !ip_address_equal(a, &any6);
}

/* All host bits zero (the network itself, in IPv6 the subnet-router anycast address) or, for IPv4,
 * all one (broadcast). */
static bool is_edge(const struct ip_address *a, unsigned prefix)
{
    bool zeros = true, ones = true;

    for (unsigned bit = prefix; bit < 128; bit++) {
        if (a->bytes[bit / 8] & (0x80u >> (bit % 8)))
            zeros = false;
        else
            ones = false;
    }
    return zeros || (ones && ip_address_is_v4(a));
}

static int check_subnet(const struct config_subnet *subnet, char family,
                        struct culvert_error *error)
{
    struct {
        const char *name;
        const struct ip_address *address;
    } members[] = {{"guest", &subnet->guest}, {"gateway", &subnet->gateway}, {"dns", &subnet->dns}};
    unsigned length = (family == '4' ? 96u : 0u) + subnet->prefix;
    struct ip_prefix prefix = {.address = subnet->guest, .length = (uint8_t)length};
    char text[IP_ADDRESS_TEXT_MAX], guest[IP_ADDRESS_TEXT_MAX];

    ip_address_format(&subnet->guest, guest);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        ip_address_format(members[i].address, text);
        if (!is_usable(members[i].address))
            return fault("%s-ipv%c %s: an address no device may have; choose a private one",
                         members[i].name, family, text);
        if (!ip_prefix_contains(&prefix, members[i].address))
            return fault("%s-ipv%c %s: outside the guest's subnet %s/%u; choose one inside",
                         members[i].name, family, text, guest, subnet->prefix);
        if (is_edge(members[i].address, length))
            return fault("%s-ipv%c %s: the first or last address of its subnet, which no device "
                         "may have; choose another",
                         members[i].name, family, text);
        for (size_t j = 0; j < i; j++)
            if (ip_address_equal(members[i].address, members[j].address))
                return fault("%s-ipv%c %s: the same as %s-ipv%c; give another for one of them",
                             members[i].name, family, text, members[j].name, family);
    }
    return 0;
}

int config_check_policy(const struct culvert_config *config, struct culvert_error *error)
{
    char message[400];
    int r = policy_builder_check(config->policy, message, sizeof message);

    if (r != -EINVAL)
        return r;
    /* "rule …" stands for the option of that name; else it begins with the file's name. */
    return fault("%s%s", strncmp(message, "rule ", 5) == 0 ? "" : "policy ", message);
}

int config_finish(const struct culvert_config *config, struct culvert_error *error)
{
    int r = check_subnet(&config->ipv4, '4', error);

    if (r == 0 && config->ipv6_mode != CONFIG_IPV6_OFF)
        r = check_subnet(&config->ipv6, '6', error);
    if (r < 0)
        return r;
    if (config->ipv6_mode == CONFIG_IPV6_ON && config->mtu < CONFIG_MTU_MIN_IPV6)
        return fault("mtu %u: IPv6 needs at least %u; raise it or give ipv6=off", config->mtu,
                     CONFIG_MTU_MIN_IPV6);
    if (config->verbose && config->quiet)
        return fault("quiet: contradicts verbose; leave one out");
    if (config->audit && config->learn[0])
        return fault("audit: contradicts learn, which refuses as little; leave one out");
    if (config->learn_wildcards && !config->learn[0])
        return fault("learn-wildcards: there is nothing to learn; give learn a file too");
    return config_check_policy(config, error);
}

/* Connecting a datagram socket sends nothing, but fails without a route. The address is a public
 * one of no consequence (2000::1). */
static bool host_has_ipv6_route(void)
{
    struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool has_route;

    if (fd < 0)
        return false;
    sa.sin6_addr.s6_addr[0] = 0x20;
    sa.sin6_addr.s6_addr[15] = 1;
    has_route = connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
    close(fd);
    return has_route;
}

bool config_ipv6_offered(const struct culvert_config *config)
{
    if (config->ipv6_mode != CONFIG_IPV6_AUTO)
        return config->ipv6_mode == CONFIG_IPV6_ON;
    return config->mtu >= CONFIG_MTU_MIN_IPV6 && host_has_ipv6_route();
}
