/* SPDX-License-Identifier: Apache-2.0 */

/* "Did you mean …?": the nearest keyword by edit distance, where an insertion, a deletion, a
 * substitution and a swap of neighbours each cost one. */

#include "policy/suggest.h"

#include <string.h>

#define LONGEST 16 /* longer words are no keywords of ours */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Both at most LONGEST characters. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t table[LONGEST + 1][LONGEST + 1];
    for (size_t i = 0; i <= a_len; i++)
        table[i][0] = i;
    for (size_t j = 0; j <= b_len; j++)
        table[0][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        for (size_t j = 1; j <= b_len; j++) {
            size_t substitute = table[i - 1][j - 1] + (lower(a[i - 1]) != lower(b[j - 1]));
            size_t best = smaller(substitute, smaller(table[i - 1][j], table[i][j - 1]) + 1);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                lower(a[i - 2]) == lower(b[j - 1]))
                best = smaller(best, table[i - 2][j - 2] + 1);
            table[i][j] = best;
        }
    }
    return table[a_len][b_len];
}

const char *suggest_word(const char *typed, const char *const *words, size_t count)
{
    size_t len = strlen(typed);
    if (len < 2 || len > LONGEST)
        return NULL;
    /* A short word is soon near to anything. */
    size_t nearest = len <= 3 ? 1 : 2;
    const char *found = NULL;
    for (size_t i = 0; i < count; i++) {
        size_t word_len = strlen(words[i]);
        if (word_len > LONGEST)
            continue;
        size_t far = distance(typed, len, words[i], word_len);
        if (far < nearest || (far == nearest && !found)) {
            nearest = far;
            found = words[i];
        }
    }
    return found;
}
