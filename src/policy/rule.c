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
#include "policy/target.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

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

#define WORD_MAX TARGET_TEXT_MAX

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
                       target_show(word->text).text, near);
    return fail_at(parser, word->column, "expected %s, not \"%s\"", what,
                   target_show(word->text).text);
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

static bool contains_only(const char *text, const char *characters)
{
    return text[strspn(text, characters)] == '\0';
}

/* ---- targets ---- */

/* The rule's own copies of what target_parse() borrowed. */
static int own_target(struct rule_target *target)
{
    if (target->kind == RULE_TARGET_NAME) {
        struct name_pattern *pattern = malloc(sizeof *pattern);
        if (pattern)
            *pattern = *target->pattern;
        target->pattern = pattern;
        return pattern ? 0 : -ENOMEM;
    }
    if (target->kind == RULE_TARGET_SET) {
        target->set = strdup(target->set);
        return target->set ? 0 : -ENOMEM;
    }
    return 0;
}

static int parse_target(struct parser *parser, struct rule_target *ret)
{
    struct word *word = &parser->next;
    struct name_pattern scratch;
    struct rule_target target;
    char fault[400];

    int r = target_parse(word->text, &scratch, &target, fault, sizeof fault);
    if (r == -EINVAL)
        return fail_at(parser, word->column, "%s", fault);
    if (r < 0 || (r = own_target(&target)) < 0)
        return r;
    *ret = target;
    return 0;
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
                       target_show(word->text).text);
    if (low > high)
        return fail_at(parser, word->column, "the range \"%s\" is upside down: write %u-%u",
                       target_show(word->text).text, high, low);
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

/* Reads targets, checking each with `check`, to the end of the list. */
static int parse_target_list(struct parser *parser, const struct rule *rule,
                             struct rule_target **targets, size_t *count,
                             int (*check)(struct parser *, const struct rule *,
                                          const struct rule_target *))
{
    int r;
    do {
        if (item_is_missing(parser))
            return fail_at(parser, parser->next.column,
                           "a target is missing here: any, a group, an IP address, a CIDR, a "
                           "domain name or @SET");
        if ((r = grow((void **)targets, *count, sizeof **targets)) < 0)
            return r;
        if ((r = parse_target(parser, &(*targets)[*count])) < 0)
            return r;
        if ((r = check(parser, rule, &(*targets)[(*count)++])) < 0)
            return r;
        if ((r = advance(parser)) < 0)
            return r;
    } while ((r = list_goes_on(parser)) > 0);
    return r;
}

static int check_target(struct parser *parser, const struct rule *rule,
                        const struct rule_target *target)
{
    if (target->kind != RULE_TARGET_NAME)
        return 0;
    if (rule->direction == POLICY_INGRESS)
        return fail_at(parser, parser->next.column,
                       "who comes from outside has an address and no name: write its address or "
                       "CIDR, or \"to\" for \"from\"");
    if (rule->action == POLICY_ALLOW &&
        name_pattern_breadth(target->pattern) == NAME_BREADTH_PUBLIC)
        return fail_at(parser, parser->next.column,
                       "\"%s\" reaches beyond one owner's names: write one more label, or "
                       "\"public\" for the whole internet",
                       target_show(parser->next.text).text);
    return 0;
}

static int check_widening(struct parser *parser, const struct rule *rule,
                          const struct rule_target *target)
{
    (void)rule;
    if (target->kind == RULE_TARGET_NAME)
        return fail_at(parser, parser->next.column,
                       "behind \"in\" stand addresses, CIDRs and groups, no names");
    return 0;
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

static int parse_widening_clause(struct parser *parser, struct rule *rule)
{
    bool names = false;
    if (!next_is(parser, "in"))
        return 0;
    for (size_t i = 0; i < rule->target_count; i++)
        names |=
            rule->targets[i].kind == RULE_TARGET_NAME || rule->targets[i].kind == RULE_TARGET_SET;
    if (!names)
        return fail_at(parser, parser->next.column,
                       "\"in\" widens a domain target, and there is none: leave it away");
    if (rule->action != POLICY_ALLOW)
        return fail_at(parser, parser->next.column,
                       "\"in\" widens an allow; a refusal by name holds for every address: leave "
                       "it away");
    int r = advance(parser);
    return r < 0 ? r
                 : parse_target_list(parser, rule, &rule->widening, &rule->widening_count,
                                     check_widening);
}

static int fail_unexpected(struct parser *parser, const char *what)
{
    const struct word *word = &parser->next;
    return fail_at(parser, word->column, "unexpected \"%s\": separate %s",
                   target_show(word->text).text, what);
}

static int parse_end(struct parser *parser, const struct rule *rule)
{
    static const char *const words[] = {"in", "port"};
    const struct word *word = &parser->next;
    bool plain = target_is_plain(word->text) || strchr(word->text, '.') || word->text[0] == '@' ||
                 contains_only(word->text, "0123456789-");
    if (word->len == 0)
        return 0;
    if (next_is(parser, "in"))
        return fail_at(parser, word->column, "a rule has one \"in\": separate targets by commas");
    if (next_is(parser, "port") && rule->widening_count > 0 && rule->port_count == 0)
        return fail_at(parser, word->column, "\"port\" stands before \"in\": swap the two");
    if (next_is(parser, "port"))
        return fail_at(parser, word->column, "a rule has one \"port\": separate ports by commas");
    if (plain && rule->widening_count > 0)
        return fail_unexpected(parser, "targets by commas");
    if (plain)
        return fail_unexpected(parser, rule->port_count ? "ports by commas"
                                                        : "targets by commas, and write \"port\" "
                                                          "in front of ports");
    if (rule->widening_count > 0)
        return fail_expected(parser, "the end of the rule", words, 0);
    return fail_expected(parser, rule->port_count ? "\"in\" or the end of the rule" : "\"port\"",
                         words, rule->port_count ? 1 : COUNT(words));
}

static int parse_rule(struct parser *parser, struct rule *rule)
{
    int r;
    if ((r = parse_action(parser, rule)) < 0 || (r = parse_protocol(parser, rule)) < 0)
        return r;
    bool had_protocol = rule->protocols != EVERY_PROTOCOL;
    if ((r = parse_direction(parser, rule, had_protocol)) < 0 ||
        (r = parse_target_list(parser, rule, &rule->targets, &rule->target_count, check_target)) <
            0 ||
        (r = parse_port_clause(parser, rule)) < 0 || (r = parse_widening_clause(parser, rule)) < 0)
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
    struct rule rule = {.expires = RULE_NEVER_EXPIRES};

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

static void clear_targets(struct rule_target *targets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (targets[i].kind == RULE_TARGET_NAME)
            free(targets[i].pattern);
        if (targets[i].kind == RULE_TARGET_SET)
            free(targets[i].set);
    }
    free(targets);
}

void rule_clear(struct rule *rule)
{
    clear_targets(rule->targets, rule->target_count);
    clear_targets(rule->widening, rule->widening_count);
    free(rule->ports);
    free(rule->text);
    free(rule->where);
    free(rule->id);
    free(rule->comment);
    *rule = (struct rule){0};
}

bool rule_has_name(const struct rule *rule)
{
    for (size_t i = 0; i < rule->target_count; i++) {
        if (rule->targets[i].kind == RULE_TARGET_NAME)
            return true;
    }
    return false;
}

bool rule_is_for_every_service(const struct rule *rule)
{
    return rule->protocols == EVERY_PROTOCOL && rule->port_count == 0;
}
