/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/names.h"

#define fault(...) (snprintf(message, size, __VA_ARGS__), -EINVAL)

/* ---- the kinds of values ---- */

/* Decimal digits only, within [min, max]. */
bool config_number_parse(const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
    uint64_t value = 0;

    if (*text == '\0' || strlen(text) > 10)
        return false;
    for (; *text; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    if (value < min || value > max)
        return false;
    *ret = (uint32_t)value;
    return true;
}

/* The position of `value` among `words` (ended by NULL), or -1. */
static int word_parse(const char *value, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(value, words[i]) == 0)
            return i;
    return -1;
}

int config_switch_parse(bool *ret, const char *value, char *message, size_t size)
{
    static const char *const words[] = {"off", "on", NULL};
    int word = word_parse(value, words);

    if (word < 0)
        return fault("must be on or off");
    *ret = word == 1;
    return 0;
}

static bool family_parse(const char *text, bool want_v4, struct ip_address *ret)
{
    struct ip_address parsed;

    if (!ip_address_parse(text, &parsed) || ip_address_is_v4(&parsed) != want_v4)
        return false;
    *ret = parsed;
    return true;
}

/* A name as DNS knows it: labels of letters, digits, '-' and '_', at most 253 bytes, stored in
 * lower case without a dot at the end. */
static bool domain_parse(const char *text, size_t len, char *ret, size_t size)
{
    size_t label = 0;

    if (len > 0 && text[len - 1] == '.')
        len--;
    if (len == 0 || len >= size)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
        } else if ((!isalnum(c) && c != '-' && c != '_') || ++label > 63) {
            return false;
        }
    }
    if (label == 0)
        return false;
    for (size_t i = 0; i < len; i++)
        ret[i] = (char)tolower((unsigned char)text[i]);
    ret[len] = '\0';
    return true;
}

/* ---- the link and its addresses ---- */

CONFIG_PARSER(mtu)
{
    if (!config_number_parse(value, CONFIG_MTU_MIN, CONFIG_MTU_MAX, &config->mtu))
        return fault("not a number of bytes from %u to %u; the default is 1500", CONFIG_MTU_MIN,
                     CONFIG_MTU_MAX);
    return 0;
}

/* The subnet's address number `host`. */
static struct ip_address subnet_address(const struct config_subnet *subnet, bool is_v4,
                                        uint8_t host)
{
    struct ip_address a = subnet->guest;
    unsigned first = (is_v4 ? 96u : 0u) + subnet->prefix;

    for (unsigned bit = first; bit < 128; bit++)
        a.bytes[bit / 8] &= (uint8_t) ~(0x80u >> (bit % 8));
    a.bytes[15] |= host;
    return a;
}

void config_subnet_derive(struct config_subnet *subnet, bool is_v4)
{
    if (!subnet->gateway_given)
        subnet->gateway = subnet_address(subnet, is_v4, 2);
    if (!subnet->dns_given)
        subnet->dns = subnet_address(subnet, is_v4, 3);
}

/* "A/P"; a guest, its gateway and its resolver need a subnet of at least four addresses. */
static int guest_parse(struct config_subnet *subnet, bool is_v4, const char *value, char *message,
                       size_t size)
{
    const char *slash = strchr(value, '/');
    const char *example = is_v4 ? "10.0.2.100/24" : "fd63:756c:7665::64/64";
    uint32_t prefix, longest = is_v4 ? 29 : 125;
    char text[IP_ADDRESS_TEXT_MAX];

    if (!slash)
        return fault("the prefix length is missing; write it as in %s", example);
    if ((size_t)(slash - value) >= sizeof text)
        return fault("not an IPv%c address; write it as in %s", is_v4 ? '4' : '6', example);
    memcpy(text, value, (size_t)(slash - value));
    text[slash - value] = '\0';
    if (!config_number_parse(slash + 1, 1, longest, &prefix))
        return fault("the prefix length must be from 1 to %u; write it as in %s", longest, example);
    if (!family_parse(text, is_v4, &subnet->guest))
        return fault("not an IPv%c address; write it as in %s", is_v4 ? '4' : '6', example);
    subnet->prefix = (uint8_t)prefix;
    config_subnet_derive(subnet, is_v4);
    return 0;
}

static int member_parse(struct ip_address *ret, bool *given, bool is_v4, const char *value,
                        char *message, size_t size)
{
    if (!family_parse(value, is_v4, ret))
        return fault("not an IPv%c address; write it as in %s, without a prefix length",
                     is_v4 ? '4' : '6', is_v4 ? "10.0.2.2" : "fd63:756c:7665::2");
    *given = true;
    return 0;
}

CONFIG_PARSER(guest_ipv4)
{
    return guest_parse(&config->ipv4, true, value, message, size);
}

CONFIG_PARSER(gateway_ipv4)
{
    return member_parse(&config->ipv4.gateway, &config->ipv4.gateway_given, true, value, message,
                        size);
}

CONFIG_PARSER(dns_ipv4)
{
    return member_parse(&config->ipv4.dns, &config->ipv4.dns_given, true, value, message, size);
}

CONFIG_PARSER(guest_ipv6)
{
    return guest_parse(&config->ipv6, false, value, message, size);
}

CONFIG_PARSER(gateway_ipv6)
{
    return member_parse(&config->ipv6.gateway, &config->ipv6.gateway_given, false, value, message,
                        size);
}

CONFIG_PARSER(dns_ipv6)
{
    return member_parse(&config->ipv6.dns, &config->ipv6.dns_given, false, value, message, size);
}

CONFIG_PARSER(ipv6)
{
    static const char *const words[] = {
        [CONFIG_IPV6_AUTO] = "auto", [CONFIG_IPV6_OFF] = "off", [CONFIG_IPV6_ON] = "on", NULL};
    int word = word_parse(value, words);

    if (word < 0)
        return fault("must be on, off or auto (where the host has an IPv6 route)");
    config->ipv6_mode = (enum config_ipv6)word;
    return 0;
}

/* "xx:xx:xx:xx:xx:xx" and nothing else. */
static bool mac_parse(const char *text, uint8_t ret[6])
{
    if (strlen(text) != 17)
        return false;
    for (int i = 0; i < 17; i++)
        if (i % 3 == 2 ? text[i] != ':' : !isxdigit((unsigned char)text[i]))
            return false;
    for (int i = 0; i < 6; i++)
        ret[i] = (uint8_t)strtoul(text + 3 * i, NULL, 16);
    return true;
}

CONFIG_PARSER(mac)
{
    static const uint8_t zero[6];
    uint8_t mac[6];

    if (!mac_parse(value, mac))
        return fault("not a MAC address; write it as in 02:00:00:00:00:64");
    if ((mac[0] & 1) || memcmp(mac, zero, sizeof mac) == 0)
        return fault("not the address of one device (%s); write it as in 02:00:00:00:00:64",
                     (mac[0] & 1) ? "the first byte is odd: multicast" : "all zero");
    memcpy(config->mac, mac, sizeof mac);
    return 0;
}

CONFIG_PARSER(hostname)
{
    char name[sizeof config->hostname];

    if (strchr(value, '_') || value[0] == '-' ||
        !domain_parse(value, strlen(value), name, sizeof name))
        return fault("not a host name: letters, digits, '-' and '.', at most 63 bytes");
    memcpy(config->hostname, name, sizeof name);
    return 0;
}

/* ---- policy ---- */

CONFIG_PARSER(rule)
{
    int r = policy_builder_add(config->policy, value, NULL, message, size);

    if (r == 0)
        config->rule_count++;
    return r;
}

CONFIG_PARSER(profile)
{
    int r = policy_builder_profile(config->policy, value, message, size);

    if (r == 0)
        config->profile_given = true;
    return r;
}

CONFIG_PARSER(host_address)
{
    struct ip_address address;

    if (!ip_address_parse(value, &address))
        return fault("not an IP address; write it as in 203.0.113.7 or 2001:db8::7");
    return policy_builder_host_address(config->policy, &address);
}

CONFIG_PARSER(max_flows)
{
    if (!config_number_parse(value, 1, 1u << 20, &config->max_flows))
        return fault("not a number from 1 to %u; left out, it is what the descriptor limit allows",
                     1u << 20);
    return 0;
}

/* ---- names ---- */

CONFIG_PARSER(dns)
{
    int r;

    if (config->dns_count == DNS_UPSTREAMS_MAX)
        return fault("at most %d may be given", DNS_UPSTREAMS_MAX);
    r = dns_upstream_parse(value, &config->dns[config->dns_count], message, size);
    if (r < 0)
        return r;
    config->dns_count++;
    return 0;
}

CONFIG_PARSER(dns_denied)
{
    if (strcmp(value, "nxdomain") == 0)
        config->dns_denied = DNS_DENIED_NXDOMAIN;
    else if (strcmp(value, "refused") == 0)
        config->dns_denied = DNS_DENIED_REFUSED;
    else if (strcmp(value, "zero") == 0)
        config->dns_denied = DNS_DENIED_ZERO;
    else
        return fault("not known; write nxdomain, refused or zero (0.0.0.0 and ::)");
    return 0;
}

CONFIG_PARSER(dns_host)
{
    struct config_dns_host *host = &config->dns_hosts[config->dns_host_count];
    const char *equals = strchr(value, '=');
    struct dns_name name;
    int r;

    if (config->dns_host_count == CONFIG_DNS_HOSTS_MAX)
        return fault("at most %d may be given", CONFIG_DNS_HOSTS_MAX);
    if (!equals)
        return fault("the address is missing; write it as in db.test=10.1.2.3");
    if (!domain_parse(value, (size_t)(equals - value), host->name, sizeof host->name))
        return fault("not a domain name before the '='; write it as in db.test=10.1.2.3");
    if (!ip_address_parse(equals + 1, &host->address))
        return fault("not an IP address behind the '='; write it as in db.test=10.1.2.3");
    if (name_from_guest(host->name, strlen(host->name), &name) < 0)
        return fault("the name ends in a number, so many programs take it for an address");
    r = policy_builder_dns_host(config->policy, &name, &host->address);
    if (r == 0)
        config->dns_host_count++;
    return r;
}

/* ---- how the engine runs ---- */

CONFIG_PARSER(spin_us)
{
    if (!config_number_parse(value, 0, 1000, &config->spin_us))
        return fault("not a number of microseconds from 0 (never spin) to 1000");
    config->spin_given = true;
    return 0;
}

CONFIG_PARSER(net_worker)
{
    static const char *const words[] = {"auto", "direct", "thread", NULL};
    int word = word_parse(value, words);

    if (word < 0)
        return fault("must be direct, thread or auto");
    config->net_worker = (enum config_net_worker)word;
    return 0;
}

CONFIG_PARSER(verbose)
{
    return config_switch_parse(&config->verbose, value, message, size);
}

CONFIG_PARSER(quiet)
{
    return config_switch_parse(&config->quiet, value, message, size);
}
