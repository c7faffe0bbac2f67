/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/tcp.h"

#include <assert.h>
#include <string.h>

#include "wire/bytes.h"

enum tcp_option {
    TCP_OPTION_END = 0,
    TCP_OPTION_NOP = 1,
    TCP_OPTION_MSS = 2,
    TCP_OPTION_WINDOW_SHIFT = 3,
    TCP_OPTION_SACK_PERMITTED = 4,
    TCP_OPTION_SACK = 5,
    TCP_OPTION_TIMESTAMP = 8,
};

bool tcp_header_parse(const uint8_t *p, size_t len, struct tcp_header *ret)
{
    size_t header_len = (size_t)(p[12] >> 4) * 4;

    if (header_len < TCP_HEADER_MIN || header_len > len)
        return false;
    *ret = (struct tcp_header){
        .source_port = load_be16(p),
        .destination_port = load_be16(p + 2),
        .seq = load_be32(p + 4),
        .ack = load_be32(p + 8),
        .window = load_be16(p + 14),
        .flags = p[13],
        .header_len = (uint8_t)header_len,
    };
    return true;
}

/* One option of `len` bytes, kind and length included. */
static void option_read(const uint8_t *p, size_t len, struct tcp_options *options)
{
    switch (p[0]) {
    case TCP_OPTION_MSS:
        if (len == 4)
            options->mss = load_be16(p + 2);
        break;
    case TCP_OPTION_WINDOW_SHIFT:
        if (len == 3)
            options->window_shift =
                (int8_t)(p[2] > TCP_WINDOW_SHIFT_MAX ? TCP_WINDOW_SHIFT_MAX : p[2]);
        break;
    case TCP_OPTION_SACK_PERMITTED:
        if (len == 2)
            options->sack_permitted = true;
        break;
    case TCP_OPTION_TIMESTAMP:
        if (len == 10) {
            options->timestamp = true;
            options->ts_value = load_be32(p + 2);
            options->ts_echo = load_be32(p + 6);
        }
        break;
    case TCP_OPTION_SACK:
        if ((len - 2) % 8 != 0)
            break;
        for (size_t i = 2; i < len && options->sack_count < TCP_SACK_MAX; i += 8)
            options->sack[options->sack_count++] =
                (struct tcp_sack_block){load_be32(p + i), load_be32(p + i + 4)};
        break;
    default:
        break;
    }
}

bool tcp_options_parse(const uint8_t *p, size_t len, struct tcp_options *ret)
{
    ret->mss = 0;
    ret->window_shift = -1;
    ret->sack_permitted = false;
    ret->timestamp = false;
    ret->sack_count = 0;
    /* What nearly every segment carries: NOP NOP timestamp and nothing else. */
    if (len == TCP_TIMESTAMP_LEN && load_be32(p) == 0x0101080a) {
        ret->timestamp = true;
        ret->ts_value = load_be32(p + 4);
        ret->ts_echo = load_be32(p + 8);
        return true;
    }
    while (len > 0 && p[0] != TCP_OPTION_END) {
        size_t option_len = 1;
        if (p[0] != TCP_OPTION_NOP) {
            if (len < 2 || p[1] < 2 || p[1] > len)
                return false;
            option_len = p[1];
            option_read(p, option_len, ret);
        }
        p += option_len;
        len -= option_len;
    }
    return true;
}

/* SACK blocks that fit beside `used` bytes of other options. */
static size_t sack_blocks(const struct tcp_options *options, size_t used)
{
    size_t room = TCP_HEADER_MAX - TCP_HEADER_MIN - used;
    size_t most = room < 12 ? 0 : (room - 4) / 8;

    return options->sack_count < most ? options->sack_count : most;
}

size_t tcp_header_size(const struct tcp_options *options)
{
    size_t n = 0;

    if (options->mss)
        n += 4;
    if (options->window_shift >= 0)
        n += 4;
    if (options->timestamp)
        n += TCP_TIMESTAMP_LEN;
    if (options->sack_permitted)
        n += 4;
    size_t blocks = sack_blocks(options, n);
    if (blocks > 0)
        n += 4 + 8 * blocks;
    return TCP_HEADER_MIN + n;
}

static uint8_t *sack_write(uint8_t *p, const struct tcp_options *options, size_t blocks)
{
    store_be32(p, (uint32_t)(0x01010500 | (2 + 8 * blocks)));
    p += 4;
    for (size_t i = 0; i < blocks; i++, p += 8) {
        store_be32(p, options->sack[i].start);
        store_be32(p + 4, options->sack[i].end);
    }
    return p;
}

size_t tcp_header_write(uint8_t *p, const struct tcp_header *header,
                        const struct tcp_options *options, uint16_t checksum)
{
    uint8_t *o = p + TCP_HEADER_MIN;

    if (options->mss) {
        store_be32(o, 0x02040000u | options->mss);
        o += 4;
    }
    if (options->window_shift >= 0) {
        store_be32(o, 0x01030300u | (uint8_t)options->window_shift);
        o += 4;
    }
    if (options->timestamp) {
        store_be32(o, 0x0101080a);
        store_be32(o + 4, options->ts_value);
        store_be32(o + 8, options->ts_echo);
        o += TCP_TIMESTAMP_LEN;
    }
    if (options->sack_permitted) {
        store_be32(o, 0x01010402);
        o += 4;
    }
    size_t blocks = sack_blocks(options, (size_t)(o - p) - TCP_HEADER_MIN);
    if (blocks > 0)
        o = sack_write(o, options, blocks);

    size_t header_len = (size_t)(o - p);
    assert(header_len <= TCP_HEADER_MAX && header_len % 4 == 0);
    store_be16(p, header->source_port);
    store_be16(p + 2, header->destination_port);
    store_be32(p + 4, header->seq);
    store_be32(p + 8, header->ack);
    p[12] = (uint8_t)(header_len / 4 << 4);
    p[13] = header->flags;
    store_be16(p + 14, header->window);
    memcpy(p + 16, &checksum, 2); /* already in the order it is stored in */
    store_be16(p + 18, 0);
    return header_len;
}
