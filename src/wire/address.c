/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/address.h"

#include <arpa/inet.h>

/* The families are kept apart although they share a form: ::/0 is all of IPv6 and nothing of IPv4,
 * and nothing but an IPv4 prefix contains an IPv4 address. */
bool ip_prefix_contains(const struct ip_prefix *prefix, const struct ip_address *address)
{
    unsigned whole = prefix->length / 8u, rest = prefix->length % 8u;
    bool v4_prefix = prefix->length >= 96 && ip_address_is_v4(&prefix->address);

    if (prefix->length > 128 || ip_address_is_v4(address) != v4_prefix)
        return false;
    if (memcmp(prefix->address.bytes, address->bytes, whole) != 0)
        return false;
    if (rest == 0)
        return true;
    return ((prefix->address.bytes[whole] ^ address->bytes[whole]) >> (8 - rest)) == 0;
}

bool ip_address_parse(const char *text, struct ip_address *ret)
{
    uint8_t bytes[16];
    struct ip_address parsed;

    if (inet_pton(AF_INET, text, bytes) == 1) {
        uint32_t be;
        memcpy(&be, bytes, sizeof be);
        *ret = ip_address_v4(be);
        return true;
    }
    if (inet_pton(AF_INET6, text, bytes) != 1)
        return false;
    parsed = ip_address_v6(bytes);
    if (ip_address_is_v4(&parsed)) /* ::ffff:a.b.c.d would silently become IPv4 */
        return false;
    *ret = parsed;
    return true;
}

/* One to three digits without a needless leading zero, at most `max`; -1 otherwise. */
static int prefix_length_parse(const char *text, int max)
{
    int value = 0;

    if (text[0] == '\0' || strlen(text) > 3 || (text[0] == '0' && text[1] != '\0'))
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        value = value * 10 + (*text - '0');
    }
    return value <= max ? value : -1;
}

static bool host_bits_are_zero(const struct ip_prefix *prefix)
{
    for (unsigned bit = prefix->length; bit < 128; bit++)
        if (prefix->address.bytes[bit / 8] & (0x80u >> (bit % 8)))
            return false;
    return true;
}

bool ip_prefix_parse(const char *text, bool strict, struct ip_prefix *ret)
{
    char address[IP_ADDRESS_TEXT_MAX];
    const char *slash = strchr(text, '/');
    size_t address_len = slash ? (size_t)(slash - text) : strlen(text);
    struct ip_prefix prefix = {.length = 128};

    if (address_len >= sizeof address)
        return false;
    memcpy(address, text, address_len);
    address[address_len] = '\0';
    if (!ip_address_parse(address, &prefix.address))
        return false;

    if (slash) {
        bool v4 = ip_address_is_v4(&prefix.address);
        int length = prefix_length_parse(slash + 1, v4 ? 32 : 128);
        if (length < 0)
            return false;
        prefix.length = (uint8_t)(length + (v4 ? 96 : 0));
    }
    if (strict && !host_bits_are_zero(&prefix))
        return false;
    *ret = prefix;
    return true;
}

const char *ip_address_format(const struct ip_address *a, char text[IP_ADDRESS_TEXT_MAX])
{
    if (ip_address_is_v4(a))
        inet_ntop(AF_INET, a->bytes + 12, text, IP_ADDRESS_TEXT_MAX);
    else
        inet_ntop(AF_INET6, a->bytes, text, IP_ADDRESS_TEXT_MAX);
    return text;
}

socklen_t ip_endpoint_to_sockaddr(const struct ip_endpoint *endpoint, struct sockaddr_storage *ret)
{
    if (ip_address_is_v4(&endpoint->address)) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(endpoint->port)};
        in.sin_addr.s_addr = endpoint->address.be32[3];
        memcpy(ret, &in, sizeof in);
        return sizeof in;
    }
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(endpoint->port)};
    memcpy(&in6.sin6_addr, endpoint->address.bytes, 16);
    memcpy(ret, &in6, sizeof in6);
    return sizeof in6;
}

bool ip_endpoint_from_sockaddr(const struct sockaddr *sa, struct ip_endpoint *ret)
{
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        ret->address = ip_address_v4(in.sin_addr.s_addr);
        ret->port = ntohs(in.sin_port);
        return true;
    }
    if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        struct ip_address address = ip_address_v6(&in6.sin6_addr);
        if (ip_address_is_v4(&address)) /* our sockets are V6ONLY: nobody means this */
            return false;
        ret->address = address;
        ret->port = ntohs(in6.sin6_port);
        return true;
    }
    return false;
}
