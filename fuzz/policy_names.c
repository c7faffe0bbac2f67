/* SPDX-License-Identifier: Apache-2.0 */
/* Lines: the first is a name as a guest may send it, the others patterns. The index finds exactly
 * the patterns that match, one by one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/name_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATTERNS_MAX 16

static void check(bool holds)
{
    if (!holds)
        abort();
}

struct patterns {
    struct name_pattern list[PATTERNS_MAX];
    uint32_t numbers[PATTERNS_MAX]; /* equal ones share one */
    size_t count;
    bool seen[PATTERNS_MAX + 1]; /* by number */
};

static void visit(void *ctx, uint32_t number)
{
    struct patterns *patterns = ctx;
    check(number >= 1 && number <= patterns->count);
    patterns->seen[number] = true;
}

static void add(struct name_index *index, struct patterns *patterns, const char *line, size_t len)
{
    struct name_pattern *pattern = &patterns->list[patterns->count];
    char message[200] = "", shown[NAME_SHOWN_MAX + 2];
    uint32_t *number;

    int r = name_pattern_parse(line, len, pattern, message, sizeof message);
    check(r == 0 || r == -EINVAL || r == -ENOENT);
    if (r < 0)
        return;
    (void)name_pattern_breadth(pattern);
    (void)name_pattern_show(pattern, shown);
    check(name_index_add(index, pattern, &number) == 0);
    if (*number == 0)
        *number = (uint32_t)patterns->count + 1;
    patterns->numbers[patterns->count++] = *number;
}

static void compare(const struct name_index *index, struct patterns *patterns,
                    const struct dns_name *name)
{
    name_index_match(index, name, visit, patterns);
    for (size_t i = 0; i < patterns->count; i++) {
        if (name_pattern_matches(&patterns->list[i], name) != patterns->seen[patterns->numbers[i]])
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *end = text + size;
    const char *newline = size ? memchr(text, '\n', size) : NULL;
    struct patterns patterns = {.count = 0};
    struct name_index index = {.slots = NULL};
    struct dns_name name;
    char shown[64];

    size_t name_len = newline ? (size_t)(newline - text) : size;
    bool named = name_from_guest(size ? text : "", name_len, &name) == 0;
    (void)text_show(size ? text : "", name_len, shown, sizeof shown);
    while (newline && patterns.count < PATTERNS_MAX) {
        const char *line = newline + 1;
        newline = memchr(line, '\n', (size_t)(end - line));
        add(&index, &patterns, line, (size_t)((newline ? newline : end) - line));
    }
    if (named)
        compare(&index, &patterns, &name);
    name_index_finish(&index);
    memset(patterns.seen, 0, sizeof patterns.seen);
    if (named)
        compare(&index, &patterns, &name);
    name_index_clear(&index);
    return 0;
}
