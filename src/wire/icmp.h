/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_ICMP_H
#define WIRE_ICMP_H

/* ICMP (RFC 792) and ICMPv6 (RFC 4443): numbers, and the 8 bytes that all messages used here begin
 * with. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/bytes.h"

#define ICMP_HEADER_LEN      8u
#define ICMP_CHECKSUM_OFFSET 2u

enum icmp4_type {
    ICMP4_ECHO_REPLY = 0,
    ICMP4_UNREACHABLE = 3,
    ICMP4_REDIRECT = 5,
    ICMP4_ECHO_REQUEST = 8,
    ICMP4_TIME_EXCEEDED = 11,
    ICMP4_PARAMETER_PROBLEM = 12,
};

enum icmp4_unreachable_code {
    ICMP4_CODE_NET = 0,
    ICMP4_CODE_HOST = 1,
    ICMP4_CODE_PROTOCOL = 2,
    ICMP4_CODE_PORT = 3,
    ICMP4_CODE_TOO_BIG = 4, /* fragmentation needed and DF set; RFC 1191 */
    ICMP4_CODE_PROHIBITED = 13,
};

enum icmp6_type {
    ICMP6_UNREACHABLE = 1,
    ICMP6_TOO_BIG = 2,
    ICMP6_TIME_EXCEEDED = 3,
    ICMP6_PARAMETER_PROBLEM = 4,
    ICMP6_INFORMATIONAL = 128, /* types from here on are no errors */
    ICMP6_ECHO_REQUEST = 128,
    ICMP6_ECHO_REPLY = 129,
    ICMP6_MLD_QUERY = 130,
    ICMP6_MLD_REPORT = 131,
    ICMP6_MLD_DONE = 132,
    ICMP6_ROUTER_SOLICITATION = 133,
    ICMP6_ROUTER_ADVERTISEMENT = 134,
    ICMP6_NEIGHBOUR_SOLICITATION = 135,
    ICMP6_NEIGHBOUR_ADVERTISEMENT = 136,
    ICMP6_REDIRECT = 137,
    ICMP6_MLD2_REPORT = 143,
};

enum icmp6_unreachable_code {
    ICMP6_CODE_NO_ROUTE = 0,
    ICMP6_CODE_PROHIBITED = 1,
    ICMP6_CODE_ADDRESS = 3,
    ICMP6_CODE_PORT = 4,
};

enum icmp6_parameter_code {
    ICMP6_CODE_NEXT_HEADER = 1,
};

struct icmp_header {
    uint8_t type, code;
    uint32_t
        rest; /* host order: echo's identifier << 16 | sequence, an MTU, a pointer, or unused */
};

static inline bool icmp_parse(const uint8_t *data, size_t len, struct icmp_header *ret)
{
    if (len < ICMP_HEADER_LEN)
        return false;
    ret->type = data[0];
    ret->code = data[1];
    ret->rest = load_be32(data + 4);
    return true;
}

/* Writes ICMP_HEADER_LEN bytes; the checksum field is zero and the caller's to fill. */
static inline void icmp_write(uint8_t *to, const struct icmp_header *header)
{
    to[0] = header->type;
    to[1] = header->code;
    store_be16(to + 2, 0);
    store_be32(to + 4, header->rest);
}

/* Errors must never be answered by errors (RFC 1122 3.2.2, RFC 4443 2.4 e). */
static inline bool icmp4_is_error(uint8_t type)
{
    return type == ICMP4_UNREACHABLE || type == ICMP4_TIME_EXCEEDED ||
           type == ICMP4_PARAMETER_PROBLEM || type == ICMP4_REDIRECT || type == 4;
}

static inline bool icmp6_is_error(uint8_t type)
{
    return type < ICMP6_INFORMATIONAL || type == ICMP6_REDIRECT;
}

#endif
