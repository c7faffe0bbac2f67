/* SPDX-License-Identifier: Apache-2.0 */

/* The rule parser.
 *
 * A line is cut into words; a comma is a word of its own, a `#` begins a comment. The grammar has
 * no ambiguity, so one pass with one word of look-ahead does. Every message says where (the column
 * of the word, from 1), what is wrong, and the mend. */

#include "policy/rule.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "policy/suggest.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define WORD_MAX 255 /* bytes; the longest domain name has 253 */

struct keyword {
    const char *word;
    unsigned value;
};

static const struct keyword ACTIONS[] = {
    {"allow", POLICY_ALLOW},
    {"deny", POLICY_DENY},
    {"reject", POLICY_DENY},
    {"drop", POLICY_DROP},
};

#define EVERY_PROTOCOL (POLICY_TCP | POLICY_UDP | POLICY_ICMP)

static const struct keyword PROTOCOLS[] = {
    {"tcp", POLICY_TCP},
    {"udp", POLICY_UDP},
    {"icmp", POLICY_ICMP},
    {"any", EVERY_PROTOCOL},
};

static const struct keyword DIRECTIONS[] = {
    {"to", POLICY_EGRESS},
    {"from", POLICY_INGRESS},
};

static const struct keyword GROUPS[] = {
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

struct word {
    size_t column; /* from 1 */
    size_t len;
    char text[WORD_MAX + 1]; /* "" at the end of the line */
};

struct parser {
    const char *text;
    size_t at;
    struct word next; /* looked at, not yet taken */
    char *message;
    size_t message_size;
};

/* ---- messages ---- */

__attribute__((format(printf, 3, 4))) static int fail_at(struct parser *parser, size_t column,
                                                         const char *format, ...)
{
    if (parser->message_size == 0)
        return -EINVAL;
    int used = snprintf(parser->message, parser->message_size, "column %zu: ", column);
    if (used < 0 || (size_t)used >= parser->message_size)
        return -EINVAL;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(parser->message + used, parser->message_size - (size_t)used, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* A word as it may be shown: short, and nothing in it that a terminal would obey. */
struct shown {
    char text[48];
};

static struct shown show(const char *word)
{
    struct shown shown;
    size_t i = 0;
    for (; i < sizeof shown.text - 4 && word[i]; i++)
        shown.text[i] = word[i] >= ' ' && word[i] <= '~' ? word[i] : '?';
    memcpy(shown.text + i, word[i] ? "..." : "", word[i] ? 4 : 1);
    return shown;
}

/* "expected WHAT, not "WORD"", with the nearest of `words` suggested. */
static int fail_expected(struct parser *parser, const char *what, const char *const *words,
                         size_t count)
{
    const struct word *word = &parser->next;
    if (word->len == 0)
        return fail_at(parser, word->column, "the rule ends where %s is expected", what);
    const char *near = suggest_word(word->text, words, count);
    if (near)
        return fail_at(parser, word->column, "unknown word \"%s\"; did you mean \"%s\"?",
                       show(word->text).text, near);
    return fail_at(parser, word->column, "expected %s, not \"%s\"", what, show(word->text).text);
}

/* ---- words ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool ends_word(char c)
{
    return c == '\0' || c == '#' || c == ',' || is_blank(c);
}

static int advance(struct parser *parser)
{
    const char *text = parser->text;
    while (is_blank(text[parser->at]))
        parser->at++;
    size_t begin = parser->at, end = begin;
    while (!ends_word(text[end]))
        end++;
    if (end == begin && text[begin] == ',')
        end++;
    parser->next.column = begin + 1;
    if (end - begin > WORD_MAX)
        return fail_at(parser, begin + 1, "this word is too long: %zu bytes, at most %d",
                       end - begin, WORD_MAX);
    parser->next.len = end - begin;
    memcpy(parser->next.text, text + begin, end - begin);
    parser->next.text[end - begin] = '\0';
    parser->at = end;
    return 0;
}

static const struct keyword *keyword_find(const struct keyword *keywords, size_t count,
                                          const char *word)
{
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(keywords[i].word, word) == 0)
            return &keywords[i];
    }
    return NULL;
}

static bool next_is(const struct parser *parser, const char *word)
{
    return strcasecmp(parser->next.text, word) == 0;
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

/* Why is `word`, which looks like an address, none? */
static int fail_address(struct parser *parser, const struct word *word)
{
    const char *text = word->text;
    struct shown shown = show(text);
    char bare[WORD_MAX + 1];
    struct ip_address address;

    if (strstr(text, "://"))
        return fail_at(parser, word->column,
                       "\"%s\" is a URL: name the address alone, and the port behind \"port\"",
                       shown.text);
    if (strchr(text, '%'))
        return fail_at(parser, word->column, "\"%s\" has a zone: name the address without it",
                       shown.text);
    if (strncasecmp(text, "::ffff:", 7) == 0)
        return fail_at(parser, word->column,
                       "\"%s\" is an IPv4 address in IPv6 form: name it as a.b.c.d", shown.text);
    if (strchr(text, '-'))
        return fail_at(parser, word->column,
                       "\"%s\": addresses have no ranges; write CIDRs, as in 10.0.0.0/8",
                       shown.text);
    const char *colon = strrchr(text, ':');
    if (colon && colon[1] && contains_only(colon + 1, "0123456789")) {
        memcpy(bare, text, (size_t)(colon - text));
        bare[colon - text] = '\0';
        bool bracketed = bare[0] == '[' && strip_brackets(bare);
        if ((bracketed || !strchr(bare, ':')) && ip_address_parse(bare, &address))
            return fail_at(parser, word->column,
                           "\"%s\": a port stands behind \"port\": write \"%s port %s\"",
                           shown.text, show(bare).text, show(colon + 1).text);
    }
    return fail_at(parser, word->column,
                   "\"%s\" is no IP address or CIDR; they look like 10.0.0.1, 10.0.0.0/8, fd00::1, "
                   "fd00::/8",
                   shown.text);
}

static int parse_address(struct parser *parser, const struct word *word, struct ip_prefix *ret)
{
    char text[WORD_MAX + 1];
    memcpy(text, word->text, word->len + 1);
    bool bracketed = text[0] == '[';
    struct ip_prefix prefix;

    if (bracketed && !strip_brackets(text))
        return fail_address(parser, word);
    if (!ip_prefix_parse(text, false, &prefix) || (bracketed && ip_address_is_v4(&prefix.address)))
        return fail_address(parser, word);

    struct ip_prefix network = prefix;
    clear_host_bits(&network);
    if (!ip_address_equal(&network.address, &prefix.address)) {
        char network_text[IP_ADDRESS_TEXT_MAX], address_text[IP_ADDRESS_TEXT_MAX];
        unsigned length = shown_length(&prefix);
        return fail_at(parser, word->column,
                       "\"%s\" has bits behind its /%u: write %s/%u for the network, or %s for the "
                       "address",
                       show(word->text).text, length,
                       ip_address_format(&network.address, network_text), length,
                       ip_address_format(&prefix.address, address_text));
    }
    *ret = prefix;
    return 0;
}

/* ---- targets ---- */

/* The word is neither "any", nor a group, nor an address. */
static int fail_target(struct parser *parser, const struct word *word)
{
    static const char *const known[] = {"any",      "public",    "private", "link-local",
                                        "metadata", "multicast", "host",    "dns"};
    struct shown shown = show(word->text);

    for (size_t i = 0; i < COUNT(HINTS); i++) {
        if (strcasecmp(HINTS[i].word, word->text) == 0)
            return fail_at(parser, word->column, "unknown target \"%s\": %s", shown.text,
                           HINTS[i].mend);
    }
    if (word->text[0] == '@')
        return fail_at(parser, word->column,
                       "\"%s\": sets do not exist yet; name the addresses, CIDRs or groups",
                       shown.text);
    const char *near = suggest_word(word->text, known, COUNT(known));
    if (near)
        return fail_at(parser, word->column, "unknown target \"%s\"; did you mean \"%s\"?",
                       shown.text, near);
    if (strchr(word->text, '.') || strchr(word->text, '*'))
        return fail_at(parser, word->column,
                       "\"%s\": domain targets do not exist yet; name addresses, CIDRs or groups",
                       shown.text);
    return fail_at(parser, word->column,
                   "unknown target \"%s\": write any, public, private, link-local, metadata, "
                   "multicast, host, dns, an IP address or a CIDR",
                   shown.text);
}

static int parse_target(struct parser *parser, struct rule_target *ret)
{
    const struct word *word = &parser->next;
    const struct keyword *group;
    int r = 0;

    if (next_is(parser, "any")) {
        *ret = (struct rule_target){.kind = RULE_TARGET_ANY};
    } else if ((group = keyword_find(GROUPS, COUNT(GROUPS), word->text))) {
        *ret = (struct rule_target){.kind = RULE_TARGET_GROUP,
                                    .group = (enum policy_group)group->value};
    } else if (looks_like_address(word->text)) {
        *ret = (struct rule_target){.kind = RULE_TARGET_PREFIX};
        r = parse_address(parser, word, &ret->prefix);
    } else {
        r = fail_target(parser, word);
    }
    return r < 0 ? r : advance(parser);
}

/* ---- ports ---- */

/* Digits only, 1 to 65535; 0: not so. */
static uint16_t port_number(const char *text, size_t len)
{
    unsigned value = 0;
    if (len == 0 || len > 5)
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    return value <= UINT16_MAX ? (uint16_t)value : 0;
}

static int parse_ports(struct parser *parser, struct rule_ports *ret)
{
    const struct word *word = &parser->next;
    const char *dash = strchr(word->text, '-');
    size_t low_len = dash ? (size_t)(dash - word->text) : word->len;
    uint16_t low = port_number(word->text, low_len);
    uint16_t high = dash ? port_number(dash + 1, word->len - low_len - 1) : low;

    if (low == 0 || high == 0)
        return fail_at(parser, word->column,
                       "\"%s\" is no port: write a number from 1 to 65535, or a range as in "
                       "8000-8100",
                       show(word->text).text);
    if (low > high)
        return fail_at(parser, word->column, "the range \"%s\" is upside down: write %u-%u",
                       show(word->text).text, high, low);
    *ret = (struct rule_ports){low, high};
    return advance(parser);
}

/* ---- lists ---- */

/* Room for one more in an array whose capacity is the next power of two. */
static int grow(void **array, size_t count, size_t element)
{
    if (count & (count - 1) || count == 1)
        return 0;
    size_t capacity = count == 0 ? 2 : count * 2;
    void *larger = reallocarray(*array, capacity, element);
    if (!larger)
        return -ENOMEM;
    *array = larger;
    return 0;
}

/* After an item: 1 if a comma was taken and another item must follow, 0 at the list's end. */
static int list_goes_on(struct parser *parser)
{
    if (!next_is(parser, ","))
        return 0;
    int r = advance(parser);
    return r < 0 ? r : 1;
}

static bool item_is_missing(const struct parser *parser)
{
    return parser->next.len == 0 || next_is(parser, ",") || next_is(parser, "port") ||
           next_is(parser, "in");
}

static int parse_target_list(struct parser *parser, struct rule *rule)
{
    int r;
    do {
        if (item_is_missing(parser))
            return fail_at(parser, parser->next.column,
                           "a target is missing here: any, a group, an IP address or a CIDR");
        if ((r = grow((void **)&rule->targets, rule->target_count, sizeof *rule->targets)) < 0)
            return r;
        if ((r = parse_target(parser, &rule->targets[rule->target_count])) < 0)
            return r;
        rule->target_count++;
    } while ((r = list_goes_on(parser)) > 0);
    return r;
}

static int parse_port_list(struct parser *parser, struct rule *rule)
{
    int r;
    do {
        if (item_is_missing(parser))
            return fail_at(parser, parser->next.column,
                           "a port is missing here: a number or a range as in 8000-8100");
        if ((r = grow((void **)&rule->ports, rule->port_count, sizeof *rule->ports)) < 0)
            return r;
        if ((r = parse_ports(parser, &rule->ports[rule->port_count])) < 0)
            return r;
        rule->port_count++;
    } while ((r = list_goes_on(parser)) > 0);
    return r;
}

/* ---- the rule ---- */

static int parse_action(struct parser *parser, struct rule *rule)
{
    static const char *const words[] = {"allow", "deny", "reject", "drop"};
    const struct keyword *action = keyword_find(ACTIONS, COUNT(ACTIONS), parser->next.text);
    if (!action)
        return fail_expected(parser, "an action (allow, deny or drop)", words, COUNT(words));
    rule->action = (enum policy_action)action->value;
    return advance(parser);
}

static int parse_protocol(struct parser *parser, struct rule *rule)
{
    const struct keyword *protocol = keyword_find(PROTOCOLS, COUNT(PROTOCOLS), parser->next.text);
    rule->protocols = protocol ? protocol->value : EVERY_PROTOCOL;
    return protocol ? advance(parser) : 0;
}

static int parse_direction(struct parser *parser, struct rule *rule, bool had_protocol)
{
    static const char *const words[] = {"to", "from", "tcp", "udp", "icmp", "any"};
    const struct keyword *direction =
        keyword_find(DIRECTIONS, COUNT(DIRECTIONS), parser->next.text);
    if (!direction)
        return fail_expected(parser,
                             had_protocol ? "\"to\" or \"from\""
                                          : "\"to\", \"from\" or a protocol (tcp, udp, icmp)",
                             words, had_protocol ? 2 : COUNT(words));
    rule->direction = (enum policy_direction)direction->value;
    return advance(parser);
}

static int parse_port_clause(struct parser *parser, struct rule *rule)
{
    if (!next_is(parser, "port"))
        return 0;
    if (rule->protocols == POLICY_ICMP)
        return fail_at(parser, parser->next.column,
                       "icmp has no ports: leave \"port\" away, or write tcp or udp");
    rule->protocols &= ~(unsigned)POLICY_ICMP;
    int r = advance(parser);
    return r < 0 ? r : parse_port_list(parser, rule);
}

static int parse_end(struct parser *parser, const struct rule *rule)
{
    static const char *const words[] = {"port", "in"};
    const struct word *word = &parser->next;
    if (word->len == 0)
        return 0;
    if (next_is(parser, "in"))
        return fail_at(parser, word->column,
                       "\"in\" widens a domain target, and those do not exist yet: leave it away");
    if (next_is(parser, "port"))
        return fail_at(parser, word->column, "a rule has one \"port\": separate ports by commas");
    if (contains_only(word->text, "0123456789-") || looks_like_address(word->text) ||
        keyword_find(GROUPS, COUNT(GROUPS), word->text) || next_is(parser, "any"))
        return fail_at(parser, word->column, "unexpected \"%s\": separate %s by commas%s",
                       show(word->text).text, rule->port_count ? "ports" : "targets",
                       rule->port_count ? "" : ", and write \"port\" in front of ports");
    return fail_expected(parser, rule->port_count ? "the end of the rule" : "\"port\"", words,
                         rule->port_count ? 0 : COUNT(words));
}

static int parse_rule(struct parser *parser, struct rule *rule)
{
    int r;
    if ((r = parse_action(parser, rule)) < 0 || (r = parse_protocol(parser, rule)) < 0)
        return r;
    bool had_protocol = rule->protocols != EVERY_PROTOCOL;
    if ((r = parse_direction(parser, rule, had_protocol)) < 0 ||
        (r = parse_target_list(parser, rule)) < 0 || (r = parse_port_clause(parser, rule)) < 0)
        return r;
    return parse_end(parser, rule);
}

static int check_one_line(struct parser *parser)
{
    size_t blank = strspn(parser->text, " \t");
    if (parser->text[blank] == '\0')
        return fail_at(parser, 1,
                       "the rule is empty: write one as in \"allow tcp to public port "
                       "443\"");
    size_t end = strcspn(parser->text, "\r\n");
    if (parser->text[end] != '\0')
        return fail_at(parser, end + 1, "a rule is one line: take the line break out");
    return parser->text[blank] == '#' ? -ENODATA : 0;
}

int rule_parse(const char *text, struct rule *ret, char *message, size_t size)
{
    struct parser parser = {.text = text, .message = message, .message_size = size};
    struct rule rule = {0};

    int r = check_one_line(&parser);
    if (r == 0)
        r = advance(&parser);
    if (r == 0)
        r = parse_rule(&parser, &rule);
    if (r == 0 && !(rule.text = strdup(text)))
        r = -ENOMEM;
    if (r < 0) {
        rule_clear(&rule);
        return r;
    }
    *ret = rule;
    return 0;
}

void rule_clear(struct rule *rule)
{
    free(rule->targets);
    free(rule->ports);
    free(rule->text);
    *rule = (struct rule){0};
}

const char *rule_group_name(enum policy_group group)
{
    if (group == POLICY_SPECIAL)
        return "special";
    for (size_t i = 0; i < COUNT(GROUPS); i++) {
        if (GROUPS[i].value == (unsigned)group)
            return GROUPS[i].word;
    }
    return NULL;
}
