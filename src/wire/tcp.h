/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_TCP_H
#define WIRE_TCP_H

/* TCP headers: RFC 9293 (3.1), options of RFC 7323 (window scale, timestamps) and RFC 2018 (SACK).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TCP_HEADER_MIN       20
#define TCP_HEADER_MAX       60
#define TCP_TIMESTAMP_LEN    12 /* the option with its two NOPs */
#define TCP_SACK_MAX         4
#define TCP_WINDOW_SHIFT_MAX 14

enum tcp_flag {
    TCP_FIN = 0x01,
    TCP_SYN = 0x02,
    TCP_RST = 0x04,
    TCP_PSH = 0x08,
    TCP_ACK = 0x10,
    TCP_URG = 0x20,
    TCP_ECE = 0x40,
    TCP_CWR = 0x80,
};

/* All in host order. */
struct tcp_header {
    uint16_t source_port, destination_port;
    uint32_t seq, ack;
    uint16_t window; /* unscaled */
    uint8_t flags;
    uint8_t header_len; /* options included */
};

struct tcp_sack_block {
    uint32_t start, end; /* [start, end) */
};

struct tcp_options {
    uint16_t mss;        /* 0: absent */
    int8_t window_shift; /* -1: absent; values above 14 read as 14 (RFC 7323, 2.3) */
    bool sack_permitted;
    bool timestamp;
    uint32_t ts_value, ts_echo;
    uint8_t sack_count;
    struct tcp_sack_block sack[TCP_SACK_MAX];
};

/* Sequence numbers are compared modulo 2^32 (RFC 9293, 3.4). */
static inline bool seq_lt(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}
static inline bool seq_leq(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) <= 0;
}
static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? b : a;
}
static inline uint32_t seq_min(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? a : b;
}

/* `p` holds at least TCP_HEADER_MIN bytes; `len` is the whole segment's. False: impossible data
 * offset. */
bool tcp_header_parse(const uint8_t *p, size_t len, struct tcp_header *ret);
/* The option bytes behind the fixed header. Unknown options are skipped. False: a length that
 * cannot be; what was read until then is in *ret. */
bool tcp_options_parse(const uint8_t *p, size_t len, struct tcp_options *ret);

/* Writes the fixed header with options (from *options; sack_permitted, mss and window_shift as
 * present) and checksum field `checksum`; returns the header's length, a multiple of 4, at most
 * TCP_HEADER_MAX. SACK blocks that do not fit are left out. */
size_t tcp_header_write(uint8_t *p, const struct tcp_header *header,
                        const struct tcp_options *options, uint16_t checksum);
/* What tcp_header_write() will return. */
size_t tcp_header_size(const struct tcp_options *options);

#endif
