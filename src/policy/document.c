/* SPDX-License-Identifier: Apache-2.0 */

/* Policy documents:
 *
 *   {"version": 1, "profile": "none",
 *    "sets": {"web": ["*.example.com", "@file:more.txt"]},
 *    "rules": ["allow tcp to @web port 443",
 *              {"rule": "deny to any", "id": "tail", "comment": "...", "expires":
 * "2027-01-01T00:00:00Z"}]}
 *
 * "comment" and "refused" may stand beside that and mean nothing: they are for people, and by
 * --learn.
 *
 * The whole is read into a rule_source of its own, which takes the place of the builder's when
 * nothing was wrong. */

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "policy/builder.h"
#include "policy/document_lines.h"
#include "policy/suggest.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct reading {
    const struct policy_builder *builder;
    const char *text, *path; /* the path as it may be shown */
    size_t len;
    char *folder; /* of `path`, '/' at the end; NULL: none */
    json_t *root;
    struct rule_source source;
    char *profile;
    char *message;
    size_t size;
};

/* ---- messages ---- */

/* "FILE:LINE: …" */
__attribute__((format(printf, 3, 4))) static int fail_at(const struct reading *reading, size_t line,
                                                         const char *format, ...)
{
    va_list arguments;
    if (reading->size == 0)
        return -EINVAL;
    int used = snprintf(reading->message, reading->size, "%.250s:%zu: ", reading->path, line);
    if (used < 0 || (size_t)used >= reading->size)
        return -EINVAL;
    va_start(arguments, format);
    vsnprintf(reading->message + used, reading->size - (size_t)used, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

struct shown {
    char text[64];
};

static struct shown show(const char *text)
{
    struct shown shown = {""};
    text_show(text, strlen(text), shown.text, sizeof shown.text);
    return shown;
}

static size_t line_of_member(const struct reading *reading, const char *key)
{
    struct line_walk root = line_walk_of(reading->text, reading->len);
    struct line_walk walk = line_walk_into(&root);
    return line_walk_find(&walk, key) ? line_walk_line(&walk) : 1;
}

/* All members of `object` must be among `known`; `what` says what the object is. */
static int check_members(const struct reading *reading, json_t *object, struct line_walk walk,
                         const char *what, const char *const *known, size_t count)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        (void)line_walk_next(&walk);
        while (i < count && strcmp(known[i], key) != 0)
            i++;
        if (i < count)
            continue;
        const char *near = suggest_word(key, known, count);
        return fail_at(reading, line_walk_line(&walk), "%s has no \"%s\"%s%s%s", what,
                       show(key).text, near ? "; did you mean \"" : ": take it out",
                       near ? near : "", near ? "\"?" : "");
    }
    return 0;
}

/* ---- version and profile ---- */

static int read_version(const struct reading *reading)
{
    json_t *version = json_object_get(reading->root, "version");
    if (!version)
        return fail_at(reading, 1, "the version is missing: write \"version\": 1");
    if (!json_is_integer(version) || json_integer_value(version) != 1)
        return fail_at(reading, line_of_member(reading, "version"),
                       "\"version\" must be 1, the only one there is");
    return 0;
}

static int read_profile(struct reading *reading)
{
    static const char *const names[] = {"public", "none", "all"};
    json_t *profile = json_object_get(reading->root, "profile");
    const char *name = json_string_value(profile);

    if (!profile)
        return 0;
    for (size_t i = 0; i < COUNT(names) && name; i++) {
        if (strcmp(name, names[i]) == 0)
            return (reading->profile = strdup(name)) ? 0 : -ENOMEM;
    }
    const char *near = name ? suggest_word(name, names, COUNT(names)) : NULL;
    return fail_at(reading, line_of_member(reading, "profile"),
                   "\"profile\" must be \"public\", \"none\" or \"all\"%s%s%s",
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

/* ---- sets ---- */

static int add_set_list(struct reading *reading, struct target_set *set, const char *target,
                        const char *where)
{
    _cleanup_free_ char *name = builder_list_name(target + 1, reading->folder);
    char fault[400];
    if (!name)
        return -ENOMEM;
    int r = builder_read_list(reading->builder, set, name, fault, sizeof fault);
    if (r == -EINVAL && reading->size > 0)
        snprintf(reading->message, reading->size, "%s: %s", where, fault);
    return r;
}

static int add_set_target(struct reading *reading, struct target_set *set, json_t *value,
                          struct line_walk *walk)
{
    const char *target = json_string_value(value);
    char where[400];

    if (!target)
        return fail_at(reading, line_walk_line(walk), "set \"%s\": a target is a string",
                       show(set->name).text);
    snprintf(where, sizeof where, "%.250s:%zu: set \"%s\"", reading->path, line_walk_line(walk),
             show(set->name).text);
    if (strncmp(target, "@file:", 6) == 0)
        return add_set_list(reading, set, target, where);
    return target_set_add(set, target, strlen(target), where, reading->message, reading->size);
}

static int read_set(struct reading *reading, const char *name, json_t *value,
                    const struct line_walk *at)
{
    struct line_walk walk = line_walk_into(at), here = *at;
    struct target_set *set;
    size_t index;
    json_t *element;
    int r = 0;

    if (name[0] == '\0' || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789-_.") != strlen(name))
        return fail_at(reading, line_walk_line(&here),
                       "\"%s\" is no name for a set: letters, digits, '-', '_' and '.'",
                       show(name).text);
    if (!json_is_array(value))
        return fail_at(reading, line_walk_line(&here),
                       "set \"%s\" must be a list of targets, as in [\"*.example.com\"]",
                       show(name).text);
    if (!(set = target_set_new(name)))
        return -ENOMEM;
    json_array_foreach(value, index, element)
    {
        (void)line_walk_next(&walk);
        if ((r = add_set_target(reading, set, element, &walk)) < 0) {
            target_set_free(set);
            return r;
        }
    }
    return target_sets_add(&reading->source.sets, set);
}

static int read_sets(struct reading *reading)
{
    struct line_walk root = line_walk_of(reading->text, reading->len);
    struct line_walk members = line_walk_into(&root), walk;
    json_t *sets = json_object_get(reading->root, "sets"), *value;
    const char *name;
    int r = 0;

    if (!sets)
        return 0;
    (void)line_walk_find(&members, "sets");
    if (!json_is_object(sets))
        return fail_at(reading, line_walk_line(&members),
                       "\"sets\" must be an object, as in {\"web\": [\"*.example.com\"]}");
    walk = line_walk_into(&members);
    json_object_foreach(sets, name, value)
    {
        (void)line_walk_next(&walk);
        if ((r = read_set(reading, name, value, &walk)) < 0)
            return r;
    }
    return 0;
}

/* ---- rules ---- */

/* `digits` decimal digits at *text, which moves on; -1: they are not there. */
static int number_at(const char **text, int digits)
{
    int value = 0;
    for (; digits > 0; digits--, (*text)++) {
        if (**text < '0' || **text > '9')
            return -1;
        value = value * 10 + (**text - '0');
    }
    return value;
}

/* Days from 1970-01-01 in the Gregorian calendar: years are counted from March, so that the leap
 * day is a year's last, in eras of 400 years. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400, of_era = y % 400;
    int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int days_in(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* "Z", "+02:00": seconds east of Greenwich. False: neither. */
static bool offset_at(const char *text, int *ret)
{
    int sign = *text == '-' ? -1 : 1;
    if ((*text == 'Z' || *text == 'z') && text[1] == '\0') {
        *ret = 0;
        return true;
    }
    if (*text != '+' && *text != '-')
        return false;
    text++;
    int hours = number_at(&text, 2), colon = hours < 0 ? 0 : *text++;
    int minutes = colon == ':' ? number_at(&text, 2) : -1;
    *ret = sign * (hours * 3600 + minutes * 60);
    return hours <= 23 && minutes >= 0 && minutes <= 59 && *text == '\0';
}

/* RFC 3339, whole seconds: "2027-01-01T00:00:00Z". */
static bool time_parse(const char *text, int64_t *ret)
{
    static const char separators[] = "--T::";
    int fields[6], offset;

    for (size_t i = 0; i < COUNT(fields); i++) {
        if ((fields[i] = number_at(&text, i == 0 ? 4 : 2)) < 0)
            return false;
        bool lower_t = i == 2 && *text == 't';
        if (i + 1 < COUNT(fields) && *text++ != separators[i] && !lower_t)
            return false;
    }
    if (fields[0] < 1970 || fields[1] < 1 || fields[1] > 12 || fields[2] < 1 ||
        fields[2] > days_in(fields[0], fields[1]) || fields[3] > 23 || fields[4] > 59 ||
        fields[5] > 60 || !offset_at(text, &offset))
        return false;
    *ret = days_of(fields[0], fields[1], fields[2]) * 86400 + fields[3] * 3600 + fields[4] * 60 +
           fields[5] - offset;
    return true;
}

/* A string member; *ret stays where it is absent. */
static int read_text(const struct reading *reading, json_t *rule, const char *key, size_t line,
                     size_t number, const char **ret)
{
    json_t *value = json_object_get(rule, key);
    if (value && !json_is_string(value))
        return fail_at(reading, line, "rule %zu: \"%s\" must be a string", number, key);
    if (value)
        *ret = json_string_value(value);
    return 0;
}

static int read_rule_object(const struct reading *reading, json_t *rule, struct line_walk *at,
                            size_t number, const char **ret_text, struct rule_facts *facts)
{
    static const char *const known[] = {"rule", "id", "comment", "expires"};
    const char *expires = NULL;
    size_t line = line_walk_line(at);
    int r = check_members(reading, rule, line_walk_into(at), "a rule", known, COUNT(known));

    if (r < 0 || (r = read_text(reading, rule, "rule", line, number, ret_text)) < 0 ||
        (r = read_text(reading, rule, "id", line, number, &facts->id)) < 0 ||
        (r = read_text(reading, rule, "comment", line, number, &facts->comment)) < 0 ||
        (r = read_text(reading, rule, "expires", line, number, &expires)) < 0)
        return r;
    if (!*ret_text)
        return fail_at(reading, line,
                       "rule %zu has no \"rule\": write {\"rule\": \"allow to public\"}", number);
    if (expires && !time_parse(expires, &facts->expires))
        return fail_at(reading, line,
                       "rule %zu: \"expires\" is no time: write it as in 2027-01-01T00:00:00Z",
                       number);
    return 0;
}

static int read_rule(struct reading *reading, json_t *rule, struct line_walk *at, size_t number)
{
    struct rule_facts facts = {.folder = reading->folder, .expires = RULE_NEVER_EXPIRES};
    const char *text = json_string_value(rule);
    char where[300], fault[400], id[80] = "";
    size_t line = line_walk_line(at);
    int r;

    if (!text && !json_is_object(rule))
        return fail_at(reading, line,
                       "rule %zu must be a string or an object, as in \"allow to public\"", number);
    if (!text && (r = read_rule_object(reading, rule, at, number, &text, &facts)) < 0)
        return r;
    snprintf(where, sizeof where, "%.250s:%zu", reading->path, line);
    facts.where = where;
    r = rule_source_add(reading->builder, &reading->source, text, &facts, fault, sizeof fault);
    if (r != -EINVAL)
        return r == -ENODATA ? 0 : r;
    if (facts.id)
        snprintf(id, sizeof id, " (\"%s\")", show(facts.id).text);
    return fail_at(reading, line, "rule %zu%s: %s", number, id, fault);
}

static int read_rules(struct reading *reading)
{
    struct line_walk root = line_walk_of(reading->text, reading->len);
    struct line_walk members = line_walk_into(&root), walk;
    json_t *rules = json_object_get(reading->root, "rules"), *rule;
    size_t index;
    int r = 0;

    if (!rules)
        return 0;
    (void)line_walk_find(&members, "rules");
    if (!json_is_array(rules))
        return fail_at(reading, line_walk_line(&members),
                       "\"rules\" must be a list, as in [\"allow to public\"]");
    walk = line_walk_into(&members);
    json_array_foreach(rules, index, rule)
    {
        (void)line_walk_next(&walk);
        if ((r = read_rule(reading, rule, &walk, index + 1)) < 0)
            return r;
    }
    return 0;
}

/* ---- the document ---- */

static int parse_json(struct reading *reading)
{
    json_error_t error;
    reading->root = json_loadb(reading->text, reading->len, JSON_REJECT_DUPLICATES, &error);
    if (reading->root)
        return 0;
    if (json_error_code(&error) == json_error_out_of_memory)
        return -ENOMEM;
    return fail_at(reading, error.line > 0 ? (size_t)error.line : 1,
                   "column %d: this is no JSON: %s", error.column, show(error.text).text);
}

static int read_document(struct reading *reading)
{
    static const char *const known[] = {"version", "comment", "profile",
                                        "sets",    "rules",   "refused"};
    struct line_walk root = line_walk_of(reading->text, reading->len);
    int r = parse_json(reading);

    if (r < 0)
        return r;
    if (!json_is_object(reading->root))
        return fail_at(reading, 1, "a policy is an object, as in {\"version\": 1, \"rules\": []}");
    r = check_members(reading, reading->root, line_walk_into(&root), "a policy", known,
                      COUNT(known));
    if (r < 0 || (r = read_version(reading)) < 0 || (r = read_profile(reading)) < 0 ||
        (r = read_sets(reading)) < 0)
        return r;
    return read_rules(reading);
}

static int find_folder(struct reading *reading, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash && !(reading->folder = strndup(path, (size_t)(slash - path) + 1)))
        return -ENOMEM;
    return 0;
}

int policy_builder_document(struct policy_builder *builder, const char *text, size_t len,
                            const char *path, char *message, size_t size)
{
    char shown[251];
    struct reading reading = {
        .builder = builder,
        .text = text,
        .len = len,
        .path = shown,
        .message = message,
        .size = size,
    };
    path = path ? path : "policy";
    text_show(path, strlen(path), shown, sizeof shown);
    int r = find_folder(&reading, path);
    if (r == 0)
        r = read_document(&reading);
    if (r == 0) {
        rule_source_clear(&builder->document);
        builder->document = reading.source;
        free(builder->document_profile);
        builder->document_profile = TAKE_PTR(reading.profile);
    } else {
        rule_source_clear(&reading.source);
    }
    free(reading.profile);
    free(reading.folder);
    json_decref(reading.root);
    return r;
}
