/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A one's-complement sum of 16-bit words may be taken over wider words as long as carries come back
 * in at the bottom (RFC 1071, 2). The generic sum adds 64-bit words with end-around carry. The AVX2
 * sum splits each 64-bit lane into its 32-bit halves and adds these into 64-bit lanes, which cannot
 * overflow below 2^32 loads, so there is no carry to bring back inside the loop. */
#include "wire/checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Shorter runs are not worth the vectors. */
#define VECTOR_MIN 128

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The last 0 to 7 bytes, as if zeros followed. */
static inline uint64_t load_tail(const uint8_t *p, size_t len)
{
    uint64_t v = 0;
    memcpy(&v, p, len);
    return v;
}

uint64_t checksum_add_generic(uint64_t sum, const void *data, size_t len)
{
    const uint8_t *p = data;

    for (; len >= 32; p += 32, len -= 32) {
        sum = checksum_combine(sum, load64(p));
        sum = checksum_combine(sum, load64(p + 8));
        sum = checksum_combine(sum, load64(p + 16));
        sum = checksum_combine(sum, load64(p + 24));
    }
    for (; len >= 8; p += 8, len -= 8)
        sum = checksum_combine(sum, load64(p));
    if (len != 0)
        sum = checksum_combine(sum, load_tail(p, len));
    return sum;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t checksum_add_avx2(uint64_t sum, const uint8_t *p,
                                                                  size_t len)
{
    const __m256i low_half = _mm256_set1_epi64x(0xffffffff);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    uint64_t lanes[4];

    for (; len >= 64; p += 64, len -= 64) {
        __m256i v = _mm256_loadu_si256((const void *)p);
        __m256i w = _mm256_loadu_si256((const void *)(p + 32));
        a = _mm256_add_epi64(a, _mm256_and_si256(v, low_half));
        b = _mm256_add_epi64(b, _mm256_srli_epi64(v, 32));
        c = _mm256_add_epi64(c, _mm256_and_si256(w, low_half));
        d = _mm256_add_epi64(d, _mm256_srli_epi64(w, 32));
    }
    a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    _mm256_storeu_si256((void *)lanes, a);
    for (int i = 0; i < 4; i++)
        sum = checksum_combine(sum, lanes[i]);
    return checksum_add_generic(sum, p, len);
}
#endif

uint64_t checksum_add(uint64_t sum, const void *data, size_t len)
{
#if defined(__x86_64__)
    if (len >= VECTOR_MIN && __builtin_cpu_supports("avx2"))
        return checksum_add_avx2(sum, data, len);
#endif
    return checksum_add_generic(sum, data, len);
}

/* A run made of pieces: the sum so far and whether the next piece begins at an odd offset, where
 * its bytes change places in their words. */
struct run {
    uint64_t sum;
    bool odd;
};

static void run_add(struct run *run, const void *data, size_t len)
{
    uint64_t piece;

    if (!run->odd) {
        run->sum = checksum_add(run->sum, data, len);
    } else {
        piece = __builtin_bswap16(checksum_fold(checksum_add(0, data, len)));
        run->sum = checksum_combine(run->sum, piece);
    }
    run->odd ^= len & 1;
}

uint64_t checksum_add_iov(uint64_t sum, const struct iovec *iov, size_t count)
{
    struct run run = {.sum = sum};

    for (size_t i = 0; i < count; i++)
        run_add(&run, iov[i].iov_base, iov[i].iov_len);
    return run.sum;
}

/* Adds the part of one piece of the frame that lies in the wanted bytes: skips what is still to be
 * skipped, takes what is still to be taken. */
static void run_add_part(struct run *run, const uint8_t *base, size_t piece_len, size_t *skip,
                         size_t *take)
{
    size_t n;

    if (*skip >= piece_len) {
        *skip -= piece_len;
        return;
    }
    n = piece_len - *skip;
    if (n > *take)
        n = *take;
    run_add(run, base + *skip, n);
    *skip = 0;
    *take -= n;
}

uint64_t checksum_add_frame(uint64_t sum, const struct culvert_frame *frame, size_t offset,
                            size_t len)
{
    struct run run = {.sum = sum};

    run_add_part(&run, frame->data, frame->len, &offset, &len);
    for (size_t i = 0; i < frame->segment_count && len != 0; i++)
        run_add_part(&run, frame->segments[i].base, frame->segments[i].len, &offset, &len);
    return run.sum;
}

uint64_t checksum_pseudo6(const void *source, const void *destination, uint8_t protocol,
                          uint32_t len)
{
    uint64_t sum = (uint64_t)htonl(len) + htonl(protocol);

    sum = checksum_add_generic(sum, source, 16);
    return checksum_add_generic(sum, destination, 16);
}
