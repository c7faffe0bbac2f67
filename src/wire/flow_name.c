/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/flow_name.h"

#include <stdbool.h>
#include <string.h>

#define LABEL_MAX 63

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

/* In lower case, or 0: not of a host's name. */
static char fold(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c | 0x20);
    if ((c >= 'a' && c <= 'z') || is_digit((char)c) || c == '-' || c == '_' || c == '.')
        return (char)c;
    return 0;
}

/* Resolvers and URL parsers take what ends in a number for an IPv4 address, in one to four parts,
 * decimal, octal or hexadecimal. No top-level domain is a number. */
static bool ends_in_number(const char *text, size_t len)
{
    const char *last = text + len;
    size_t digits = 0;

    while (last > text && last[-1] != '.')
        last--;
    len -= (size_t)(last - text);
    if (len >= 2 && last[0] == '0' && last[1] == 'x') {
        for (digits = 2; digits < len && is_hex(last[digits]);)
            digits++;
    } else {
        while (digits < len && is_digit(last[digits]))
            digits++;
    }
    return digits == len;
}

static bool fold_labels(const uint8_t *bytes, size_t len, char *to)
{
    size_t label = 0;

    for (size_t i = 0; i < len; i++) {
        char c = fold(bytes[i]);

        if (c == 0 || (c == '.' && label == 0) || (c != '.' && label == LABEL_MAX))
            return false;
        label = c == '.' ? 0 : label + 1;
        to[i] = c;
    }
    return label != 0;
}

enum flow_name_result flow_name_read(const void *bytes, size_t len, struct flow_name *ret)
{
    struct flow_name name = {.len = 0};

    *ret = name;
    if (len == 0)
        return FLOW_NAME_HIDDEN;
    if (((const uint8_t *)bytes)[len - 1] == '.')
        len--;
    if (len > FLOW_NAME_TEXT_MAX || !fold_labels(bytes, len, name.text))
        return FLOW_NAME_MALFORMED;
    if (ends_in_number(name.text, len))
        return FLOW_NAME_HIDDEN;
    name.len = (uint8_t)len;
    *ret = name;
    return FLOW_NAME_NAMED;
}
