/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_RNG_H
#define SIM_RNG_H

/* Seeded randomness (SplitMix64) and byte streams that are a function of (key, position), so that
 * any byte of any stream can be made and checked without storing it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline uint64_t rng_next(struct rng *rng)
{
    rng->state += UINT64_C(0x9e3779b97f4a7c15);
    return rng_mix(rng->state);
}

/* A generator of its own for one part of the world: what one part draws does not move another. */
static inline struct rng rng_fork(struct rng *rng)
{
    return (struct rng){.state = rng_next(rng)};
}

/* Uniform in [low, high]. */
static inline uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
    return high <= low ? low : low + rng_next(rng) % (high - low + 1);
}

/* Every order of magnitude between low and high is about as likely as any other. */
static inline uint64_t rng_scaled(struct rng *rng, uint64_t low, uint64_t high)
{
    if (high <= low)
        return low;
    unsigned bits = 64u - (unsigned)__builtin_clzll(high - low + 1);
    uint64_t span = UINT64_C(1) << rng_between(rng, 0, bits - 1);
    uint64_t value = low + rng_between(rng, span / 2, span);
    return value > high ? high : value;
}

static inline bool rng_chance(struct rng *rng, unsigned permille)
{
    return permille != 0 && rng_next(rng) % 1000 < permille;
}

static inline uint64_t stream_word(uint64_t key, uint64_t index)
{
    uint64_t x = (index + key) * UINT64_C(0x9e3779b97f4a7c15) ^ key;
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    return x ^ (x >> 29);
}

static inline uint8_t stream_byte(uint64_t key, uint64_t position)
{
    return (uint8_t)(stream_word(key, position >> 3) >> (8 * (position & 7)));
}

static inline void stream_fill(uint64_t key, uint64_t position, uint8_t *to, size_t len)
{
    while (len > 0 && (position & 7) != 0)
        *to++ = stream_byte(key, position++), len--;
    for (; len >= 8; to += 8, position += 8, len -= 8) {
        uint64_t word = stream_word(key, position >> 3);
        memcpy(to, &word, 8);
    }
    while (len > 0)
        *to++ = stream_byte(key, position++), len--;
}

/* How many of the bytes are those of the stream; len: all. */
static inline size_t stream_matches(uint64_t key, uint64_t position, const uint8_t *bytes,
                                    size_t len)
{
    size_t i = 0;
    for (; i < len && ((position + i) & 7) != 0; i++)
        if (bytes[i] != stream_byte(key, position + i))
            return i;
    for (; len - i >= 8; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, 8);
        if (word != stream_word(key, (position + i) >> 3))
            break;
    }
    while (i < len && bytes[i] == stream_byte(key, position + i))
        i++;
    return i;
}

#endif
