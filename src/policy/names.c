/* SPDX-License-Identifier: Apache-2.0 */

/* Text becomes labels in one place, labels_of(); whoever calls it says which bytes may stand there
 * beside letters, digits, '-' and '_', and whose fault it is when something else does. */

#include "policy/names.h"

#include <errno.h>
#include <idn2.h>
#include <libpsl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TEXT_MAX 253 /* bytes of a host name without its final dot */

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c - 'A' + 'a') : c;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex_digit(uint8_t c)
{
    return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'f');
}

static bool is_name_byte(uint8_t c)
{
    return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '-' || c == '_';
}

/* ---- text to labels ---- */

enum label_fault {
    LABELS_GOOD,
    LABELS_EMPTY, /* a label without a byte, or no label at all */
    LABELS_LABEL_TOO_LONG,
    LABELS_TOO_LONG,
    LABELS_BYTE, /* one that may not stand in a host name */
};

static enum label_fault labels_of(const char *text, size_t len, bool star, struct dns_name *ret)
{
    size_t at = 0, label = 0; /* ret->bytes[label] is the length of the label that ends at `at` */

    if (len > 0 && text[len - 1] == '.')
        len--;
    if (len == 0)
        return LABELS_EMPTY;
    if (len > TEXT_MAX)
        return LABELS_TOO_LONG;
    for (size_t i = 0; i <= len; i++) {
        uint8_t c = i < len ? (uint8_t)text[i] : '.';
        if (c != '.') {
            if (!is_name_byte(c) && !(star && c == '*'))
                return LABELS_BYTE;
            ret->bytes[++at] = lower(c);
            continue;
        }
        if (at == label)
            return LABELS_EMPTY;
        if (at - label > DNS_LABEL_MAX)
            return LABELS_LABEL_TOO_LONG;
        ret->bytes[label] = (uint8_t)(at - label);
        label = ++at;
    }
    ret->bytes[at] = 0;
    ret->len = (uint8_t)(at + 1);
    return LABELS_GOOD;
}

/* Would some parser of addresses take it? Only the last label matters (WHATWG URL, "ends in a
 * number"): decimal, or hexadecimal behind 0x. */
static bool ends_in_number(const struct dns_name *name)
{
    size_t at = 0;
    while (name->bytes[at + name->bytes[at] + 1u] != 0)
        at += name->bytes[at] + 1u;
    const uint8_t *label = name->bytes + at + 1;
    size_t len = name->bytes[at], i = 0;

    if (len >= 2 && label[0] == '0' && label[1] == 'x') {
        for (i = 2; i < len && is_hex_digit(label[i]);)
            i++;
        return i == len;
    }
    while (i < len && is_digit(label[i]))
        i++;
    return i == len;
}

int name_from_guest(const char *text, size_t len, struct dns_name *ret)
{
    struct dns_name name;
    if (labels_of(text, len, false, &name) != LABELS_GOOD || ends_in_number(&name))
        return -EINVAL;
    *ret = name;
    return 0;
}

/* ---- what may be shown ---- */

const char *name_show(const struct dns_name *name, char text[NAME_SHOWN_MAX])
{
    return dns_name_format(name, text);
}

static bool is_plain(uint8_t c)
{
    return c >= ' ' && c <= '~' && c != '\\';
}

static size_t shown_len(const uint8_t *bytes, size_t len)
{
    size_t shown = 0;
    for (size_t i = 0; i < len; i++)
        shown += is_plain(bytes[i]) ? 1 : 4;
    return shown;
}

const char *text_show(const void *bytes, size_t len, char *text, size_t size)
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *from = bytes;
    size_t used = 0;

    if (size == 0)
        return text;
    bool cut = shown_len(from, len) >= size;
    for (size_t i = 0; i < len; i++) {
        size_t more = is_plain(from[i]) ? 1 : 4;
        if (cut && used + more + sizeof "..." > size)
            break;
        if (more == 1) {
            text[used++] = (char)from[i];
            continue;
        }
        text[used++] = '\\';
        text[used++] = 'x';
        text[used++] = hex[from[i] >> 4];
        text[used++] = hex[from[i] & 15];
    }
    for (unsigned dots = 0; cut && dots < 3 && used + 1 < size; dots++)
        text[used++] = '.';
    text[used] = '\0';
    return text;
}

/* ---- patterns ---- */

__attribute__((format(printf, 3, 4))) static int fail(char *message, size_t size,
                                                      const char *format, ...)
{
    va_list arguments;
    if (size > 0) {
        va_start(arguments, format);
        vsnprintf(message, size, format, arguments);
        va_end(arguments);
    }
    return -EINVAL;
}

static int fail_labels(enum label_fault fault, const char *text, size_t len, char *message,
                       size_t size)
{
    char shown[64];
    text_show(text, len, shown, sizeof shown);
    switch (fault) {
    case LABELS_EMPTY:
        return fail(message, size, "\"%s\" has an empty label: take the dot out", shown);
    case LABELS_LABEL_TOO_LONG:
        return fail(message, size, "\"%s\" has a label above 63 bytes: no such name exists", shown);
    case LABELS_TOO_LONG:
        return fail(message, size, "\"%s\" is above 253 bytes: no such name exists", shown);
    default:
        break;
    }
    if (memchr(text, '/', len))
        return fail(message, size, "\"%s\": a rule knows no paths: name the host alone", shown);
    return fail(message, size,
                "\"%s\" is no domain name: letters, digits, '-', '_' and dots, as in "
                "www.example.com or *.example.com",
                shown);
}

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((uint8_t)text[i] > 0x7f)
            return false;
    }
    return true;
}

/* The A-labels of a name that is not ASCII (RFC 5891, UTS 46 non-transitional), by malloc(). A
 * wildcard in front stays. */
static int to_ascii(const char *text, size_t len, char **ret, char *message, size_t size)
{
    char shown[64], u_labels[4 * TEXT_MAX + 1], *a_labels = NULL;
    size_t skip = len > 2 && text[0] == '*' && text[1] == '.' ? 2 : 0;

    text_show(text, len, shown, sizeof shown);
    if (len - skip >= sizeof u_labels)
        return fail_labels(LABELS_TOO_LONG, text, len, message, size);
    if (memchr(text + skip, '*', len - skip))
        return fail(message, size,
                    "\"%s\": '*' stands among ASCII letters only: write the label with "
                    "\"xn--\", or \"*.\" and what is behind it",
                    shown);
    memcpy(u_labels, text + skip, len - skip);
    u_labels[len - skip] = '\0';
    int r = idn2_to_ascii_8z(u_labels, &a_labels, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (r == IDN2_MALLOC)
        return -ENOMEM;
    if (r != IDN2_OK)
        return fail(message, size, "\"%s\" is no international domain name: %s", shown,
                    idn2_strerror(r));
    r = asprintf(ret, "%s%s", skip ? "*." : "", a_labels) < 0 ? -ENOMEM : 0;
    idn2_free(a_labels);
    return r;
}

/* `text` is ASCII. */
static int pattern_of(const char *text, size_t len, struct name_pattern *ret, char *message,
                      size_t size)
{
    struct name_pattern pattern = {.kind = NAME_PATTERN_EXACT};
    const char *star = memchr(text, '*', len);
    char shown[64];

    if (star && memchr(star + 1, '*', len - (size_t)(star + 1 - text)))
        return fail(message, size, "\"%s\": one '*' is all a name may have",
                    text_show(text, len, shown, sizeof shown));
    if (len > 2 && text[0] == '*' && text[1] == '.') {
        pattern.kind = NAME_PATTERN_BELOW;
        text += 2;
        len -= 2;
    } else if (star) {
        pattern.kind = NAME_PATTERN_GLOB;
    }
    enum label_fault fault = labels_of(text, len, pattern.kind == NAME_PATTERN_GLOB, &pattern.name);
    if (fault != LABELS_GOOD)
        return fail_labels(fault, text, len, message, size);
    if (ends_in_number(&pattern.name))
        return fail(message, size, "\"%s\" ends in a number: it is neither an address nor a name",
                    text_show(text, len, shown, sizeof shown));
    *ret = pattern;
    return 0;
}

int name_pattern_parse(const char *text, size_t len, struct name_pattern *ret, char *message,
                       size_t size)
{
    if (len == 0 || !memchr(text, '.', len) || (len == 1 && text[0] == '.'))
        return -ENOENT;
    if (is_ascii(text, len))
        return pattern_of(text, len, ret, message, size);
    char *ascii = NULL;
    int r = to_ascii(text, len, &ascii, message, size);
    if (r == 0 && ascii)
        r = pattern_of(ascii, strlen(ascii), ret, message, size);
    free(ascii);
    return r;
}

static bool label_matches(const uint8_t *pattern, const uint8_t *label)
{
    const uint8_t *star = memchr(pattern + 1, '*', pattern[0]);
    if (!star)
        return pattern[0] == label[0] &&
               strncasecmp((const char *)pattern + 1, (const char *)label + 1, label[0]) == 0;
    size_t prefix = (size_t)(star - pattern - 1), suffix = pattern[0] - prefix - 1;
    return label[0] >= prefix + suffix &&
           strncasecmp((const char *)pattern + 1, (const char *)label + 1, prefix) == 0 &&
           strncasecmp((const char *)star + 1, (const char *)label + 1 + label[0] - suffix,
                       suffix) == 0;
}

static bool glob_matches(const struct dns_name *pattern, const struct dns_name *name)
{
    size_t p = 0, n = 0;
    while (pattern->bytes[p] != 0 && name->bytes[n] != 0) {
        if (!label_matches(pattern->bytes + p, name->bytes + n))
            return false;
        p += pattern->bytes[p] + 1u;
        n += name->bytes[n] + 1u;
    }
    return pattern->bytes[p] == 0 && name->bytes[n] == 0;
}

bool name_pattern_matches(const struct name_pattern *pattern, const struct dns_name *name)
{
    if (pattern->kind == NAME_PATTERN_EXACT)
        return dns_name_equal(&pattern->name, name);
    if (pattern->kind == NAME_PATTERN_BELOW)
        return dns_name_is_below(name, &pattern->name);
    return glob_matches(&pattern->name, name);
}

const char *name_pattern_show(const struct name_pattern *pattern, char text[NAME_SHOWN_MAX + 2])
{
    size_t prefix = pattern->kind == NAME_PATTERN_BELOW ? 2 : 0;
    memcpy(text, "*.", prefix);
    name_show(&pattern->name, text + prefix);
    return text;
}

/* ---- how far a wildcard reaches ---- */

/* Where the labels begin that are the same for every name that matches. */
static size_t fixed_labels(const struct name_pattern *pattern)
{
    const uint8_t *bytes = pattern->name.bytes;
    size_t at = 0;
    if (pattern->kind == NAME_PATTERN_BELOW)
        return 0;
    while (!memchr(bytes + at + 1, '*', bytes[at]))
        at += bytes[at] + 1u;
    return at + bytes[at] + 1u;
}

/* Is `suffix` a public suffix, or every name directly below it one (as for *.kobe.jp)? Names that
 * the list does not know are nobody's suffix. */
static bool is_suffix(const char *suffix, int type)
{
    char below[TEXT_MAX + 8];
    snprintf(below, sizeof below, "0.%s", suffix);
    const psl_ctx_t *list = psl_builtin();
    return list && (psl_is_public_suffix2(list, suffix, type | PSL_TYPE_NO_STAR_RULE) ||
                    psl_is_public_suffix2(list, below, type | PSL_TYPE_NO_STAR_RULE));
}

enum name_breadth name_pattern_breadth(const struct name_pattern *pattern)
{
    char suffix[TEXT_MAX + 1];
    size_t len = 0;

    if (pattern->kind == NAME_PATTERN_EXACT)
        return NAME_BREADTH_OWNER;
    for (size_t at = fixed_labels(pattern); pattern->name.bytes[at] != 0;) {
        size_t label = pattern->name.bytes[at++];
        if (len > 0)
            suffix[len++] = '.';
        memcpy(suffix + len, pattern->name.bytes + at, label);
        len += label;
        at += label;
    }
    suffix[len] = '\0';
    if (len == 0 || is_suffix(suffix, PSL_TYPE_ICANN))
        return NAME_BREADTH_PUBLIC;
    return is_suffix(suffix, PSL_TYPE_PRIVATE) ? NAME_BREADTH_PRIVATE : NAME_BREADTH_OWNER;
}
