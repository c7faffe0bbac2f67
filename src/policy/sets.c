/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/sets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/refs.h"
#include "policy/target.h"

struct target_set *target_set_new(const char *name)
{
    struct target_set *set = calloc(1, sizeof *set);
    if (!set)
        return NULL;
    set->refs = 1;
    set->name = strdup(name);
    if (!set->name)
        return target_set_free(set);
    return set;
}

struct target_set *target_set_free(struct target_set *set)
{
    if (!set || !refs_drop(&set->refs))
        return NULL;
    free(set->name);
    free(set->prefixes);
    free(set->names);
    free(set->too_broad);
    free(set);
    return NULL;
}

struct target_set *target_set_ref(struct target_set *set)
{
    refs_take(&set->refs);
    return set;
}

/* ---- adding ---- */

static int add_prefix(struct target_set *set, const struct ip_prefix *prefix)
{
    if (set->prefix_count == set->prefix_capacity) {
        size_t capacity = set->prefix_capacity ? set->prefix_capacity * 2 : 16;
        void *larger = reallocarray(set->prefixes, capacity, sizeof *set->prefixes);
        if (!larger)
            return -ENOMEM;
        set->prefixes = larger;
        set->prefix_capacity = capacity;
    }
    set->prefixes[set->prefix_count++] = *prefix;
    return 0;
}

static int reserve_names(struct target_set *set, size_t more)
{
    size_t capacity = set->names_capacity ? set->names_capacity : 256;
    if (set->names_capacity - set->names_len >= more)
        return 0;
    while (capacity - set->names_len < more)
        capacity += capacity / 2;
    void *larger = realloc(set->names, capacity);
    if (!larger)
        return -ENOMEM;
    set->names = larger;
    set->names_capacity = capacity;
    return 0;
}

static int add_name(struct target_set *set, const struct name_pattern *pattern)
{
    size_t len = pattern->name.len;
    if (reserve_names(set, 2 + len) < 0)
        return -ENOMEM;
    uint8_t *to = set->names + set->names_len;
    to[0] = (uint8_t)pattern->kind;
    to[1] = (uint8_t)len;
    memcpy(to + 2, pattern->name.bytes, len);
    set->names_len += 2 + len;
    set->name_count++;
    return 0;
}

static int note_breadth(struct target_set *set, const struct name_pattern *pattern,
                        const char *where)
{
    char shown[NAME_SHOWN_MAX + 2];
    if (pattern->kind == NAME_PATTERN_EXACT || set->too_broad ||
        name_pattern_breadth(pattern) != NAME_BREADTH_PUBLIC)
        return 0;
    return asprintf(&set->too_broad, "%s: \"%s\"", where, name_pattern_show(pattern, shown)) < 0
               ? -ENOMEM
               : 0;
}

static int add_target(struct target_set *set, const struct rule_target *target, const char *where,
                      char *message, size_t size)
{
    int r;
    switch (target->kind) {
    case RULE_TARGET_ANY:
        set->any = true;
        return 0;
    case RULE_TARGET_GROUP:
        set->groups |= (unsigned)target->group;
        return 0;
    case RULE_TARGET_PREFIX:
        return add_prefix(set, &target->prefix);
    case RULE_TARGET_NAME:
        r = note_breadth(set, target->pattern, where);
        return r < 0 ? r : add_name(set, target->pattern);
    case RULE_TARGET_SET:
        break;
    }
    if (size > 0)
        snprintf(message, size, "%s: \"@%s\": a set holds no sets, but lists (@file:PATH)", where,
                 target_show(target->set).text);
    return -EINVAL;
}

static int fail_text(const char *text, size_t len, const char *where, char *message, size_t size)
{
    char shown[64];
    text_show(text, len, shown, sizeof shown);
    if (size == 0)
        return -EINVAL;
    if (len > TARGET_TEXT_MAX)
        snprintf(message, size, "%s: \"%s\" is too long: %zu bytes, at most %d", where, shown, len,
                 TARGET_TEXT_MAX);
    else
        snprintf(message, size,
                 "%s: \"%s\" is more than a target: one a line (of a hosts file, the names alone)",
                 where, shown);
    return -EINVAL;
}

int target_set_add(struct target_set *set, const char *text, size_t len, const char *where,
                   char *message, size_t size)
{
    char word[TARGET_TEXT_MAX + 1], fault[400];
    struct name_pattern pattern;
    struct rule_target target;

    if (len > TARGET_TEXT_MAX || memchr(text, ' ', len) || memchr(text, '\t', len) ||
        memchr(text, ',', len) || memchr(text, '\0', len))
        return fail_text(text, len, where, message, size);
    memcpy(word, text, len);
    word[len] = '\0';
    int r = target_parse(word, &pattern, &target, fault, sizeof fault);
    if (r == 0)
        return add_target(set, &target, where, message, size);
    if (r == -EINVAL && size > 0)
        snprintf(message, size, "%s: %s", where, fault);
    return r;
}

int target_set_merge(struct target_set *set, const struct target_set *from)
{
    set->any |= from->any;
    set->groups |= from->groups;
    for (size_t i = 0; i < from->prefix_count; i++) {
        if (add_prefix(set, &from->prefixes[i]) < 0)
            return -ENOMEM;
    }
    if (reserve_names(set, from->names_len) < 0)
        return -ENOMEM;
    if (from->names_len > 0)
        memcpy(set->names + set->names_len, from->names, from->names_len);
    set->names_len += from->names_len;
    set->name_count += from->name_count;
    if (from->too_broad && !set->too_broad && !(set->too_broad = strdup(from->too_broad)))
        return -ENOMEM;
    return 0;
}

/* ---- lists ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A line as far as its comment, blanks at both ends taken off. */
static size_t trim(const char **line, size_t len)
{
    const char *comment = memchr(*line, '#', len);
    if (comment)
        len = (size_t)(comment - *line);
    while (len > 0 && is_blank((*line)[len - 1]))
        len--;
    while (len > 0 && is_blank((*line)[0])) {
        (*line)++;
        len--;
    }
    return len;
}

int target_set_add_list(struct target_set *set, const char *text, size_t len, const char *path,
                        char *message, size_t size)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    const char *end = text + len;
    char where[300];

    if (len >= 3 && memcmp(text, byte_order_mark, 3) == 0)
        text += 3;
    for (size_t number = 1; text < end; number++) {
        const char *line = text, *newline = memchr(text, '\n', (size_t)(end - text));
        const char *line_end = newline ? newline : end;
        size_t line_len = trim(&line, (size_t)(line_end - line));
        text = line_end + 1;
        if (line_len == 0)
            continue;
        /* The place is only needed for a fault or a wildcard. */
        bool may_speak = memchr(line, '*', line_len) != NULL;
        if (may_speak)
            snprintf(where, sizeof where, "%.250s:%zu", path, number);
        int r = target_set_add(set, line, line_len, may_speak ? where : "", message, size);
        if (r == -EINVAL && !may_speak) {
            snprintf(where, sizeof where, "%.250s:%zu", path, number);
            r = target_set_add(set, line, line_len, where, message, size);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

bool target_set_next_name(const struct target_set *set, size_t *at, struct name_pattern *ret)
{
    if (*at >= set->names_len)
        return false;
    const uint8_t *from = set->names + *at;
    ret->kind = (enum name_pattern_kind)from[0];
    ret->name.len = from[1];
    memcpy(ret->name.bytes, from + 2, from[1]);
    *at += 2u + from[1];
    return true;
}

/* ---- many sets ---- */

struct target_set *target_sets_find(const struct target_sets *sets, const char *name)
{
    for (size_t i = 0; i < sets->count; i++) {
        if (strcmp(sets->list[i]->name, name) == 0)
            return sets->list[i];
    }
    return NULL;
}

int target_sets_add(struct target_sets *sets, struct target_set *take_set)
{
    struct target_set **larger = reallocarray(sets->list, sets->count + 1, sizeof(*larger));
    if (!larger) {
        target_set_free(take_set);
        return -ENOMEM;
    }
    larger[sets->count++] = take_set;
    sets->list = larger;
    return 0;
}

void target_sets_clear(struct target_sets *sets)
{
    for (size_t i = 0; i < sets->count; i++)
        target_set_free(sets->list[i]);
    free(sets->list);
    *sets = (struct target_sets){0};
}
