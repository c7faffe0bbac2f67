/* SPDX-License-Identifier: Apache-2.0 */

/* A target is told by its looks: a keyword, an address (digits and dots, or a colon), a set ('@'),
 * else a name. A word that is none of these gets the nearest keyword suggested, which is why a name
 * of one label must end in a dot. */

#include "policy/target.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "policy/suggest.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *word;
    enum policy_group group;
} GROUPS[] = {
    {"public", POLICY_PUBLIC},
    {"private", POLICY_PRIVATE},
    {"link-local", POLICY_LINK_LOCAL},
    {"metadata", POLICY_METADATA},
    {"multicast", POLICY_MULTICAST},
    {"host", POLICY_HOST},
    {"dns", POLICY_DNS},
};

/* What people write for a group, or expect to be one. */
static const struct {
    const char *word, *mend;
} HINTS[] = {
    {"*", "for every address write \"any\""},
    {"*.", "for every address write \"any\""},
    {"*.*", "for every address write \"any\""},
    {"all", "for every address write \"any\""},
    {"everything", "for every address write \"any\""},
    {"internet", "the public internet is group \"public\""},
    {"lan", "private networks are group \"private\""},
    {"localhost", "the host's own addresses are group \"host\""},
    {"loopback", "the host's own addresses are group \"host\""},
    {"gateway", "the gateway stands for the host: group \"host\""},
    {"resolver", "culvert's resolver is group \"dns\""},
    {"broadcast", "name the address: 255.255.255.255, say"},
};

/* ---- messages ---- */

struct fault {
    char *message;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static int fail(const struct fault *fault, const char *format,
                                                      ...)
{
    if (fault->size == 0)
        return -EINVAL;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->message, fault->size, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

struct target_shown target_show(const char *text)
{
    struct target_shown shown;
    size_t i = 0;
    for (; i < sizeof shown.text - 4 && text[i]; i++)
        shown.text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    memcpy(shown.text + i, text[i] ? "..." : "", text[i] ? 4 : 1);
    return shown;
}

/* ---- addresses ---- */

static bool contains_only(const char *text, const char *characters)
{
    return text[strspn(text, characters)] == '\0';
}

static bool looks_like_address(const char *word)
{
    return word[0] == '[' || (word[0] != '@' && strchr(word, ':')) ||
           (strpbrk(word, "0123456789") && contains_only(word, "0123456789./-"));
}

/* Takes the brackets off "[fd00::1]", "[fd00::]/8" and "[fd00::/8]". False: none, or something
 * else stands behind them. */
static bool strip_brackets(char *word)
{
    char *close = strchr(word, ']');
    if (word[0] != '[' || !close || (close[1] != '\0' && close[1] != '/'))
        return false;
    if (close[1] == '/' && memchr(word, '/', (size_t)(close - word)))
        return false;
    memmove(close, close + 1, strlen(close + 1) + 1);
    memmove(word, word + 1, strlen(word + 1) + 1);
    return true;
}

static void clear_host_bits(struct ip_prefix *prefix)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = prefix->length > 8 * i ? prefix->length - 8 * i : 0;
        if (keep < 8)
            prefix->address.bytes[i] &= (uint8_t)(0xff00u >> keep);
    }
}

static unsigned shown_length(const struct ip_prefix *prefix)
{
    return ip_address_is_v4(&prefix->address) ? prefix->length - 96u : prefix->length;
}

static bool is_name(const char *text)
{
    struct name_pattern pattern;
    char ignored[8];
    return name_pattern_parse(text, strlen(text), &pattern, ignored, sizeof ignored) == 0;
}

/* Why is `text`, which looks like an address, none? */
static int fail_address(const char *text, const struct fault *fault)
{
    struct target_shown shown = target_show(text);
    char bare[TARGET_TEXT_MAX + 1];
    struct ip_address address;

    if (strstr(text, "://"))
        return fail(fault, "\"%s\" is a URL: name the address alone, and the port behind \"port\"",
                    shown.text);
    if (strchr(text, '%'))
        return fail(fault, "\"%s\" has a zone: name the address without it", shown.text);
    if (strncasecmp(text, "::ffff:", 7) == 0)
        return fail(fault, "\"%s\" is an IPv4 address in IPv6 form: name it as a.b.c.d",
                    shown.text);
    if (strchr(text, '-'))
        return fail(fault, "\"%s\": addresses have no ranges; write CIDRs, as in 10.0.0.0/8",
                    shown.text);
    const char *colon = strrchr(text, ':');
    if (colon && colon[1] && contains_only(colon + 1, "0123456789")) {
        memcpy(bare, text, (size_t)(colon - text));
        bare[colon - text] = '\0';
        bool bracketed = bare[0] == '[' && strip_brackets(bare);
        if ((bracketed || !strchr(bare, ':')) &&
            (ip_address_parse(bare, &address) || is_name(bare)))
            return fail(fault, "\"%s\": a port stands behind \"port\": write \"%s port %s\"",
                        shown.text, target_show(bare).text, target_show(colon + 1).text);
    }
    return fail(fault,
                "\"%s\" is no IP address or CIDR; they look like 10.0.0.1, 10.0.0.0/8, fd00::1, "
                "fd00::/8",
                shown.text);
}

static int parse_address(const char *word, struct ip_prefix *ret, const struct fault *fault)
{
    char text[TARGET_TEXT_MAX + 1];
    memcpy(text, word, strlen(word) + 1);
    bool bracketed = text[0] == '[';
    struct ip_prefix prefix;

    if (bracketed && !strip_brackets(text))
        return fail_address(word, fault);
    if (!ip_prefix_parse(text, false, &prefix) || (bracketed && ip_address_is_v4(&prefix.address)))
        return fail_address(word, fault);

    struct ip_prefix network = prefix;
    clear_host_bits(&network);
    if (!ip_address_equal(&network.address, &prefix.address)) {
        char network_text[IP_ADDRESS_TEXT_MAX], address_text[IP_ADDRESS_TEXT_MAX];
        unsigned length = shown_length(&prefix);
        return fail(fault,
                    "\"%s\" has bits behind its /%u: write %s/%u for the network, or %s for the "
                    "address",
                    target_show(word).text, length,
                    ip_address_format(&network.address, network_text), length,
                    ip_address_format(&prefix.address, address_text));
    }
    *ret = prefix;
    return 0;
}

/* ---- targets ---- */

/* The word is neither "any", nor a group, nor an address, nor a name. */
static int fail_target(const char *text, const struct fault *fault)
{
    static const char *const known[] = {"any",      "public",    "private", "link-local",
                                        "metadata", "multicast", "host",    "dns"};
    struct target_shown shown = target_show(text);

    const char *near = suggest_word(text, known, COUNT(known));
    if (near)
        return fail(fault, "unknown target \"%s\"; did you mean \"%s\"?", shown.text, near);
    return fail(fault,
                "unknown target \"%s\": write any, public, private, link-local, metadata, "
                "multicast, host, dns, an IP address, a CIDR, @SET or a domain name (one without "
                "a dot in it ends in one: \"%s.\")",
                shown.text, shown.text);
}

/* "web" or "file:PATH", behind the '@'. */
static int parse_set(char *text, struct rule_target *ret, const struct fault *fault)
{
    struct target_shown shown = target_show(text);
    bool file = strncmp(text, "file:", 5) == 0;

    if (file && text[5] == '\0')
        return fail(fault, "\"@%s\": the path is missing: write @file:PATH", shown.text);
    if (!file && (text[0] == '\0' ||
                  !contains_only(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789-_.")))
        return fail(fault,
                    "\"@%s\" is no set: write @NAME (letters, digits, '-', '_', '.') or "
                    "@file:PATH",
                    shown.text);
    *ret = (struct rule_target){.kind = RULE_TARGET_SET, .set = text};
    return 0;
}

static int parse_name(const char *text, struct name_pattern *scratch, struct rule_target *ret,
                      const struct fault *fault)
{
    for (size_t i = 0; i < COUNT(HINTS); i++) {
        if (strcasecmp(HINTS[i].word, text) == 0)
            return fail(fault, "unknown target \"%s\": %s", target_show(text).text, HINTS[i].mend);
    }
    int r = name_pattern_parse(text, strlen(text), scratch, fault->message, fault->size);
    if (r == -ENOENT)
        return fail_target(text, fault);
    if (r == 0)
        *ret = (struct rule_target){.kind = RULE_TARGET_NAME, .pattern = scratch};
    return r;
}

static enum policy_group group_of(const char *text)
{
    for (size_t i = 0; i < COUNT(GROUPS); i++) {
        if (strcasecmp(GROUPS[i].word, text) == 0)
            return GROUPS[i].group;
    }
    return 0;
}

bool target_is_plain(const char *text)
{
    return strcasecmp(text, "any") == 0 || group_of(text) || looks_like_address(text);
}

int target_parse(char *text, struct name_pattern *scratch, struct rule_target *ret, char *message,
                 size_t size)
{
    struct fault fault = {message, size};
    enum policy_group group = group_of(text);

    if (text[0] == '@')
        return parse_set(text + 1, ret, &fault);
    if (looks_like_address(text)) {
        struct rule_target target = {.kind = RULE_TARGET_PREFIX};
        int r = parse_address(text, &target.prefix, &fault);
        if (r == 0)
            *ret = target;
        return r;
    }
    if (strcasecmp(text, "any") == 0)
        *ret = (struct rule_target){.kind = RULE_TARGET_ANY};
    else if (group)
        *ret = (struct rule_target){.kind = RULE_TARGET_GROUP, .group = group};
    else
        return parse_name(text, scratch, ret, &fault);
    return 0;
}

const char *rule_group_name(enum policy_group group)
{
    if (group == POLICY_SPECIAL)
        return "special";
    for (size_t i = 0; i < COUNT(GROUPS); i++) {
        if (GROUPS[i].group == group)
            return GROUPS[i].word;
    }
    return NULL;
}
