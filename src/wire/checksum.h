/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_CHECKSUM_H
#define WIRE_CHECKSUM_H

/* The internet checksum (RFC 1071).
 *
 * Running sums are 64-bit one's-complement sums of the words as they lie in memory: such a sum does
 * not depend on the byte order, so a folded result is stored with memcpy (checksum_store) and never
 * swapped. Zero is the sum of nothing.
 *
 *     uint64_t sum = checksum_pseudo(&source, &destination, IPPROTO_TCP, len);
 *     checksum_store(&header[16], checksum_finish(checksum_add(sum, header, len)));
 *
 * Received data is right when checksum_fold() of the sum over it, the checksum field and the pseudo
 * header included, is 0xffff. */

#include <culvert/frame.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include "wire/address.h"

/* Adds `len` bytes that begin at an even offset of what is summed. */
uint64_t checksum_add(uint64_t sum, const void *data, size_t len);
/* Adds the bytes of all iovecs as one run; a piece of odd length shifts the bytes behind it. */
uint64_t checksum_add_iov(uint64_t sum, const struct iovec *iov, size_t count);
/* Adds the bytes [offset, offset + len) of a frame as one run; what lies beyond the frame is cut.
 */
uint64_t checksum_add_frame(uint64_t sum, const struct culvert_frame *frame, size_t offset,
                            size_t len);

/* Adds two running sums, of runs that both begin at even offsets. */
static inline uint64_t checksum_combine(uint64_t a, uint64_t b)
{
    uint64_t sum = a + b;
    return sum + (sum < a);
}

/* The 16-bit sum; not inverted. */
static inline uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* The value of a checksum field. */
static inline uint16_t checksum_finish(uint64_t sum)
{
    return (uint16_t)~checksum_fold(sum);
}

/* The same for UDP, where 0 means "none" and is sent as 0xffff (RFC 768). */
static inline uint16_t checksum_finish_udp(uint64_t sum)
{
    uint16_t value = checksum_finish(sum);
    return value ? value : 0xffff;
}

static inline uint16_t checksum_load(const void *field)
{
    uint16_t value;
    memcpy(&value, field, sizeof value);
    return value;
}

static inline void checksum_store(void *field, uint16_t value)
{
    memcpy(field, &value, sizeof value);
}

/* The sum of one 16-bit number in host order. */
static inline uint64_t checksum_word(uint16_t host_order)
{
    return htons(host_order);
}

/* Pseudo headers (RFC 9293 3.1, RFC 8200 8.1); `len` in bytes of transport header and payload.
 * Addresses in network order, at any alignment. */
static inline uint64_t checksum_pseudo4(const void *source, const void *destination,
                                        uint8_t protocol, uint32_t len)
{
    uint32_t s, d;
    memcpy(&s, source, sizeof s);
    memcpy(&d, destination, sizeof d);
    return (uint64_t)s + d + htonl(len) + htons(protocol);
}

uint64_t checksum_pseudo6(const void *source, const void *destination, uint8_t protocol,
                          uint32_t len);

/* Whichever the source's family asks for. */
static inline uint64_t checksum_pseudo(const struct ip_address *source,
                                       const struct ip_address *destination, uint8_t protocol,
                                       uint32_t len)
{
    if (ip_address_is_v4(source))
        return checksum_pseudo4(source->bytes + 12, destination->bytes + 12, protocol, len);
    return checksum_pseudo6(source->bytes, destination->bytes, protocol, len);
}

/* The generic sum, which checksum_add() uses on machines without vectors; for tests and benchmarks.
 */
uint64_t checksum_add_generic(uint64_t sum, const void *data, size_t len);

#endif
