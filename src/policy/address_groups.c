/* SPDX-License-Identifier: Apache-2.0 */

/* The registries behind the groups.
 *
 * Sources: IANA IPv4 Special-Purpose Address Registry and IANA IPv6 Special-Purpose Address
 * Registry (RFC 6890 and its updates), RFC 1918, RFC 6598 (CGNAT), RFC 4193 (ULA), RFC 3927 and RFC
 * 4291 (link-local), IANA IPv6 Address Space (only 2000::/3 is global unicast; all the rest that
 * has no use of its own is reserved, and overlay networks squat there), and each cloud's
 * documentation for its metadata service.
 *
 * An address collects the groups of every range that contains it; entries of the registries that
 * lie within another entry of the same group are left out. NAT64's well-known prefix is not here:
 * the policy judges such an address as the IPv4 address it carries. */

#include "policy/address_groups.h"

#include <stddef.h>

#include "policy/policy.h"

struct range4 {
    uint32_t base; /* host order */
    uint8_t length;
    uint8_t group;
};

#define V4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))

static const struct range4 RANGES4[] = {
    {V4(10, 0, 0, 0), 8, POLICY_PRIVATE},     /* RFC 1918 */
    {V4(100, 64, 0, 0), 10, POLICY_PRIVATE},  /* shared address space, RFC 6598 */
    {V4(172, 16, 0, 0), 12, POLICY_PRIVATE},  /* RFC 1918 */
    {V4(192, 168, 0, 0), 16, POLICY_PRIVATE}, /* RFC 1918 */
    {V4(169, 254, 0, 0), 16, POLICY_LINK_LOCAL},   {V4(224, 0, 0, 0), 4, POLICY_MULTICAST},

    {V4(0, 0, 0, 0), 8, POLICY_SPECIAL},       /* "this network" */
    {V4(127, 0, 0, 0), 8, POLICY_SPECIAL},     /* loopback */
    {V4(192, 0, 0, 0), 24, POLICY_SPECIAL},    /* IETF protocol assignments */
    {V4(192, 0, 2, 0), 24, POLICY_SPECIAL},    /* documentation */
    {V4(192, 31, 196, 0), 24, POLICY_SPECIAL}, /* AS112 */
    {V4(192, 52, 193, 0), 24, POLICY_SPECIAL}, /* AMT */
    {V4(192, 88, 99, 0), 24, POLICY_SPECIAL},  /* 6to4 relay anycast, deprecated */
    {V4(192, 175, 48, 0), 24, POLICY_SPECIAL}, /* AS112 direct delegation */
    {V4(198, 18, 0, 0), 15, POLICY_SPECIAL},   /* benchmarking */
    {V4(198, 51, 100, 0), 24, POLICY_SPECIAL}, /* documentation */
    {V4(203, 0, 113, 0), 24, POLICY_SPECIAL},  /* documentation */
    {V4(240, 0, 0, 0), 4, POLICY_SPECIAL},     /* reserved; limited broadcast */

    {V4(169, 254, 169, 254), 32, POLICY_METADATA}, /* AWS, Azure, Google, OpenStack, most others */
    {V4(169, 254, 169, 252), 32, POLICY_METADATA}, /* GKE metadata server */
    {V4(169, 254, 169, 250), 32, POLICY_METADATA}, /* Rancher */
    {V4(169, 254, 170, 2), 32, POLICY_METADATA},   /* AWS ECS task credentials */
    {V4(169, 254, 170, 23), 32, POLICY_METADATA},  /* AWS EKS Pod Identity */
    {V4(169, 254, 0, 23), 32, POLICY_METADATA},    /* Tencent Cloud */
    {V4(169, 254, 10, 10), 32, POLICY_METADATA},   /* Tencent Cloud */
    {V4(169, 254, 42, 42), 32, POLICY_METADATA},   /* Scaleway */
    {V4(168, 63, 129, 16), 32, POLICY_METADATA},   /* Azure WireServer */
    {V4(100, 100, 100, 200), 32, POLICY_METADATA}, /* Alibaba Cloud */
    {V4(100, 96, 0, 96), 32, POLICY_METADATA},     /* Volcano Engine */
    {V4(100, 80, 80, 80), 32, POLICY_METADATA},    /* UCloud */
    {V4(192, 0, 0, 192), 32, POLICY_METADATA},     /* Oracle Cloud Classic */
};

struct range6 {
    uint16_t base[8]; /* host order */
    uint8_t length;
    uint8_t group;
};

static const struct range6 RANGES6[] = {
    {{0xfc00}, 7, POLICY_PRIVATE}, /* ULA */
    {{0xfe80}, 10, POLICY_LINK_LOCAL},
    {{0xff00}, 8, POLICY_MULTICAST},

    /* Within 2000::/3; the rest of the registry lies outside of it. */
    {{0x2001}, 23, POLICY_SPECIAL},                 /* IETF protocol assignments: Teredo, … */
    {{0x2001, 0x0db8}, 32, POLICY_SPECIAL},         /* documentation */
    {{0x2002}, 16, POLICY_SPECIAL},                 /* 6to4 */
    {{0x2620, 0x004f, 0x8000}, 48, POLICY_SPECIAL}, /* AS112 direct delegation */
    {{0x3fff}, 20, POLICY_SPECIAL},                 /* documentation */

    {{0xfd00, 0x0ec2}, 32, POLICY_METADATA}, /* AWS: instance metadata, Pod Identity, … */
    {{0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254}, 128, POLICY_METADATA},      /* Google Cloud */
    {{0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe}, 128, POLICY_METADATA}, /* Oracle Cloud */
    {{0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042}, 128, POLICY_METADATA},      /* Scaleway */
    {{0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 0x0001}, 128, POLICY_METADATA}, /* Akamai, Linode */
    {{0xfd00, 0x0100, 0, 0, 0, 0, 0x0100, 0x0200}, 128, POLICY_METADATA}, /* Alibaba Cloud */
    {{0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe}, 128, POLICY_METADATA},      /* OpenStack */
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static unsigned groups4(uint32_t address)
{
    unsigned groups = 0;
    for (size_t i = 0; i < COUNT(RANGES4); i++) {
        /* Lengths are 4 to 32: the shift is defined. */
        if (((address ^ RANGES4[i].base) >> (32 - RANGES4[i].length)) == 0)
            groups |= RANGES4[i].group;
    }
    return groups;
}

static bool range6_contains(const struct range6 *range, const uint16_t hextets[8])
{
    size_t whole = range->length / 16, rest = range->length % 16;
    for (size_t i = 0; i < whole; i++) {
        if (hextets[i] != range->base[i])
            return false;
    }
    return rest == 0 || (hextets[whole] ^ range->base[whole]) >> (16 - rest) == 0;
}

static unsigned groups6(const struct ip_address *address)
{
    uint16_t hextets[8];
    for (size_t i = 0; i < 8; i++)
        hextets[i] = (uint16_t)(address->bytes[2 * i] << 8 | address->bytes[2 * i + 1]);

    unsigned groups = hextets[0] >> 13 == 1 ? 0 : POLICY_SPECIAL; /* outside 2000::/3: reserved */
    for (size_t i = 0; i < COUNT(RANGES6); i++) {
        if (range6_contains(&RANGES6[i], hextets))
            groups |= RANGES6[i].group;
    }
    return groups;
}

unsigned address_groups_normalise(unsigned groups)
{
    unsigned telling = groups & ~(unsigned)(POLICY_PUBLIC | POLICY_SPECIAL);
    if (telling)
        return telling;
    return groups & POLICY_SPECIAL ? POLICY_SPECIAL : POLICY_PUBLIC;
}

unsigned address_groups(const struct ip_address *address)
{
    unsigned groups =
        ip_address_is_v4(address) ? groups4(ntohl(address->be32[3])) : groups6(address);
    return address_groups_normalise(groups);
}

bool address_is_loopback_or_unspecified(const struct ip_address *address)
{
    if (ip_address_is_v4(address))
        return address->bytes[12] == 0 || address->bytes[12] == 127;
    return address->be64[0] == 0 && address->be32[2] == 0 && ntohl(address->be32[3]) <= 1;
}
