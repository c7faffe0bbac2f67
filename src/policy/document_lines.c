/* SPDX-License-Identifier: Apache-2.0 */

/* In valid JSON a value ends where its brackets are closed again and a comma, a bracket or the end
 * follows; what is within strings does not count. */

#include "policy/document_lines.h"

#include <string.h>

struct line_walk line_walk_of(const char *text, size_t len)
{
    return (struct line_walk){.text = text, .len = len, .line = 1};
}

static char here(const struct line_walk *walk)
{
    return walk->at < walk->len ? walk->text[walk->at] : '\0';
}

static void skip_blanks(struct line_walk *walk)
{
    while (walk->at < walk->len && strchr(" \t\r\n", here(walk)) && here(walk))
        walk->at++;
}

/* At a '"': behind the string. */
static void skip_string(struct line_walk *walk)
{
    for (walk->at++; walk->at < walk->len && here(walk) != '"'; walk->at++) {
        if (here(walk) == '\\')
            walk->at++;
    }
    walk->at++;
}

static void skip_value(struct line_walk *walk)
{
    size_t depth = 0;
    skip_blanks(walk);
    while (walk->at < walk->len) {
        char c = here(walk);
        if (c == '"') {
            skip_string(walk);
            continue;
        }
        if (depth == 0 && (c == ',' || c == ']' || c == '}'))
            return;
        if (c == '[' || c == '{')
            depth++;
        else if (c == ']' || c == '}')
            depth--;
        walk->at++;
    }
}

struct line_walk line_walk_into(const struct line_walk *walk)
{
    struct line_walk inner = *walk;
    skip_blanks(&inner);
    inner.object = here(&inner) == '{';
    inner.fresh = true;
    inner.at++;
    return inner;
}

bool line_walk_next(struct line_walk *walk)
{
    if (!walk->fresh)
        skip_value(walk);
    if (!walk->fresh && here(walk) == ',')
        walk->at++;
    walk->fresh = false;
    skip_blanks(walk);
    if (here(walk) == ']' || here(walk) == '}' || here(walk) == '\0')
        return false;
    walk->key = walk->at;
    if (walk->object) {
        skip_string(walk);
        skip_blanks(walk);
        walk->at++; /* ':' */
        skip_blanks(walk);
    }
    return true;
}

bool line_walk_find(struct line_walk *walk, const char *key)
{
    size_t len = strlen(key);
    while (line_walk_next(walk)) {
        const char *at = walk->text + walk->key;
        if (walk->len - walk->key > len + 1 && memcmp(at + 1, key, len) == 0 && at[len + 1] == '"')
            return true;
    }
    return false;
}

size_t line_walk_line(struct line_walk *walk)
{
    size_t end = walk->at < walk->len ? walk->at : walk->len;
    for (; walk->counted < end; walk->counted++)
        walk->line += walk->text[walk->counted] == '\n';
    return walk->line;
}
