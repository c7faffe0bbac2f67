/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_ADDRESS_H
#define WIRE_ADDRESS_H

/* IP addresses of both families in one form: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d (RFC
 * 4291, 2.5.5.2). A v4-mapped address on an IPv6 wire is never let in, so the form is unambiguous.
 */

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

struct ip_address {
    union {
        uint8_t bytes[16];
        uint32_t be32[4];
        uint64_t be64[2];
    };
};

#define IP_ADDRESS_TEXT_MAX 46

static inline struct ip_address ip_address_v4(uint32_t be_address)
{
    struct ip_address a = {.bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}};
    a.be32[3] = be_address;
    return a;
}

static inline struct ip_address ip_address_v6(const void *bytes)
{
    struct ip_address a;
    memcpy(a.bytes, bytes, 16);
    return a;
}

static inline bool ip_address_is_v4(const struct ip_address *a)
{
    return a->be64[0] == 0 && a->be32[2] == htonl(0xffff);
}

static inline bool ip_address_equal(const struct ip_address *a, const struct ip_address *b)
{
    return a->be64[0] == b->be64[0] && a->be64[1] == b->be64[1];
}

struct ip_prefix {
    struct ip_address address;
    uint8_t length; /* of the 128-bit form: 96 + n for IPv4 */
};

bool ip_prefix_contains(const struct ip_prefix *prefix, const struct ip_address *address);
/* "10.0.2.2" or "fd00::2"; no brackets, no scope. False and *ret untouched on anything else. */
bool ip_address_parse(const char *text, struct ip_address *ret);
/* "10.0.0.0/8", "fd00::/8", or a bare address (/32, /128). Host bits must be zero only if `strict`.
 */
bool ip_prefix_parse(const char *text, bool strict, struct ip_prefix *ret);
/* Returns `text`. */
const char *ip_address_format(const struct ip_address *a, char text[IP_ADDRESS_TEXT_MAX]);

struct ip_endpoint {
    struct ip_address address;
    uint16_t port; /* host order */
};

/* The endpoint as a socket address of its own family; returns its length. */
socklen_t ip_endpoint_to_sockaddr(const struct ip_endpoint *endpoint, struct sockaddr_storage *ret);
bool ip_endpoint_from_sockaddr(const struct sockaddr *sa, struct ip_endpoint *ret);

/* A flow as the guest sees it. */
struct flow_key {
    struct ip_address guest, remote;
    uint16_t guest_port,
        remote_port;  /* host order; ICMP echo: guest_port is the identifier, remote_port 0 */
    uint8_t protocol; /* IPPROTO_TCP, _UDP, _ICMP, _ICMPV6 */
    uint8_t pad[3];   /* zero: keys are hashed and compared as bytes */
};

#endif
