/* SPDX-License-Identifier: Apache-2.0 */
/* What was learnt, as a policy document: a rule for each name, or bare address, and protocol.
 *
 * Every target becomes a line, "*.PARENT" for those that a wildcard takes in. Lines are brought in
 * order, and those of one target and protocol become one rule, or several where the ports would
 * make it too long. */
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/flow_naming.h"
#include "engine/learn_table.h"
#include "policy/names.h"

#define SIBLINGS   3u  /* names of one parent that make a wildcard */
#define RANGES_MAX 32u /* of ports, in one rule */
#define TARGET_MAX (RULE_NAME_MAX + 2)
#define PORTS_TEXT (RANGES_MAX * 12)
#define INSIDE_MAX (LEARN_ADDRESSES_MAX * (IP_ADDRESS_TEXT_MAX + 1))

struct parent {
    uint8_t protocol;
    struct dns_name name;
};

struct line {
    char target[TARGET_MAX];
    const struct learnt *learnt;
};

struct writing {
    const struct learn *learn;
    struct line *lines;
    size_t line_count;
    struct parent *parents; /* those that become wildcards, shorter ones first */
    size_t parent_count;
    json_t *rules;
};

/* ---- wildcards ---- */

/* The name without its first label. False: nothing but the root is left. */
static bool parent_of(const struct learnt *learnt, struct parent *ret)
{
    uint8_t skip = (uint8_t)(learnt->name.bytes[0] + 1);

    if (learnt->name.len == 0 || skip + 1 >= learnt->name.len)
        return false;
    memset(ret, 0, sizeof *ret);
    ret->protocol = learnt->protocol;
    ret->name.len = (uint8_t)(learnt->name.len - skip);
    memcpy(ret->name.bytes, learnt->name.bytes + skip, ret->name.len);
    return true;
}

static int compare_parents(const void *a, const void *b)
{
    const struct parent *x = a, *y = b;

    if (x->protocol != y->protocol)
        return x->protocol - y->protocol;
    if (x->name.len != y->name.len)
        return x->name.len - y->name.len;
    return memcmp(x->name.bytes, y->name.bytes, x->name.len);
}

static bool has_one_owner(const struct parent *parent)
{
    const struct name_pattern pattern = {.kind = NAME_PATTERN_BELOW, .name = parent->name};

    return name_pattern_breadth(&pattern) == NAME_BREADTH_OWNER;
}

/* Of all parents, in order, those that have enough children stay. */
static void choose_parents(struct writing *w)
{
    size_t kept = 0, end;

    for (size_t i = 0; i < w->parent_count; i = end) {
        for (end = i + 1;
             end < w->parent_count && compare_parents(&w->parents[i], &w->parents[end]) == 0;)
            end++;
        if (end - i >= SIBLINGS && has_one_owner(&w->parents[i]))
            w->parents[kept++] = w->parents[i];
    }
    w->parent_count = kept;
}

static int find_parents(struct writing *w)
{
    w->parents = calloc(w->learn->count + 1, sizeof *w->parents);
    if (!w->parents)
        return -ENOMEM;
    for (size_t i = 0; i < LEARN_BUCKETS; i++)
        for (const struct learnt *learnt = w->learn->buckets[i]; learnt; learnt = learnt->next)
            w->parent_count += parent_of(learnt, &w->parents[w->parent_count]);
    qsort(w->parents, w->parent_count, sizeof *w->parents, compare_parents);
    choose_parents(w);
    return 0;
}

/* The widest wildcard that takes the name in, or NULL. */
static const struct parent *wildcard_of(const struct writing *w, const struct learnt *learnt)
{
    for (size_t i = 0; i < w->parent_count; i++)
        if (w->parents[i].protocol == learnt->protocol &&
            dns_name_is_below(&learnt->name, &w->parents[i].name))
            return &w->parents[i];
    return NULL;
}

/* ---- lines ---- */

/* False: no rule can say that. */
static bool write_target(const struct writing *w, const struct learnt *learnt,
                         char target[TARGET_MAX])
{
    const struct parent *wildcard;

    if (learnt->name.len == 0) {
        ip_address_format(&learnt->address, target);
        return true;
    }
    wildcard = wildcard_of(w, learnt);
    if (!wildcard)
        return rule_name_write(&learnt->name, target);
    target[0] = '*';
    target[1] = '.';
    return rule_name_write(&wildcard->name, target + 2);
}

/* Names before addresses. */
static int compare_lines(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    bool x_by_address = x->learnt->name.len == 0, y_by_address = y->learnt->name.len == 0;
    int r = strcmp(x->target, y->target);

    if (x_by_address != y_by_address)
        return x_by_address ? 1 : -1;
    return r ? r : x->learnt->protocol - y->learnt->protocol;
}

static int make_lines(struct writing *w)
{
    w->lines = calloc(w->learn->count + 1, sizeof *w->lines);
    if (!w->lines)
        return -ENOMEM;
    for (size_t i = 0; i < LEARN_BUCKETS; i++) {
        for (const struct learnt *learnt = w->learn->buckets[i]; learnt; learnt = learnt->next) {
            struct line *line = &w->lines[w->line_count];

            line->learnt = learnt;
            w->line_count += write_target(w, learnt, line->target);
        }
    }
    qsort(w->lines, w->line_count, sizeof *w->lines, compare_lines);
    return 0;
}

/* ---- rules ---- */

static const char *protocol_name(uint8_t protocol)
{
    return protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : "icmp";
}

/* " port 80,443,8000-8010" of the ports from `*at` on, which moves behind those that fit. */
static void write_ports(const struct learnt *all, size_t *at, char text[PORTS_TEXT])
{
    size_t used = 0;

    text[0] = '\0';
    for (unsigned ranges = 0; *at < all->port_count && ranges < RANGES_MAX; ranges++) {
        uint16_t low = all->ports[(*at)++], high = low;

        while (*at < all->port_count && all->ports[*at] == high + 1)
            high = all->ports[(*at)++];
        used +=
            (size_t)snprintf(text + used, PORTS_TEXT - used, "%s%u", ranges == 0 ? "" : ",", low);
        if (high > low)
            used += (size_t)snprintf(text + used, PORTS_TEXT - used, "-%u", high);
    }
}

/* " in 10.0.0.1,10.0.0.2" */
static void write_inside(const struct learnt *all, char text[INSIDE_MAX])
{
    char address[IP_ADDRESS_TEXT_MAX];
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < all->inside_count; i++)
        used += (size_t)snprintf(text + used, INSIDE_MAX - used, "%s%s", i == 0 ? "" : ",",
                                 ip_address_format(&all->inside[i], address));
}

/* An address's rule says for whom it stands, as far as that is known. */
static json_t *with_comment(const char *rule, const struct dns_name *seen)
{
    char name[NAME_SHOWN_MAX], comment[NAME_SHOWN_MAX + 64];

    if (seen->len == 0)
        return json_string(rule);
    snprintf(comment, sizeof comment, "seen as %s, but a rule by that name would not allow it",
             name_show(seen, name));
    return json_pack("{s:s, s:s}", "rule", rule, "comment", comment);
}

static int write_rules(struct writing *w, const char *target, const struct learnt *all)
{
    char ports[PORTS_TEXT], inside[INSIDE_MAX];
    size_t at = 0;

    write_inside(all, inside);
    do {
        _cleanup_free_ char *rule = NULL;

        write_ports(all, &at, ports);
        if (asprintf(&rule, "allow %s to %s%s%s%s%s", protocol_name(all->protocol), target,
                     ports[0] ? " port " : "", ports, inside[0] ? " in " : "", inside) < 0) {
            rule = NULL;
            return -ENOMEM;
        }
        if (json_array_append_new(w->rules, with_comment(rule, &all->seen)) < 0)
            return -ENOMEM;
    } while (at < all->port_count);
    return 0;
}

static int take_in(const struct writing *w, struct learnt *all, const struct learnt *one)
{
    for (size_t i = 0; i < one->port_count; i++)
        if (!learnt_add_port(all, one->ports[i]))
            return -ENOMEM;
    for (size_t i = 0; i < one->inside_count; i++)
        if (!learnt_add_address(all, &one->inside[i])) /* a wildcard leads to too many */
            count(w->learn->counters, COUNTER_learn_full);
    return 0;
}

/* Lines from `begin` on that make one rule; `*ret_end` is behind them. */
static int write_group(struct writing *w, size_t begin, size_t *ret_end)
{
    struct learnt all = *w->lines[begin].learnt;
    size_t end = begin;
    int r = 0;

    all.ports = NULL;
    all.inside = NULL;
    all.port_count = all.inside_count = 0;
    while (r == 0 && end < w->line_count && compare_lines(&w->lines[begin], &w->lines[end]) == 0)
        r = take_in(w, &all, w->lines[end++].learnt);
    if (r == 0)
        r = write_rules(w, w->lines[begin].target, &all);
    free(all.ports);
    free(all.inside);
    *ret_end = end;
    return r;
}

static int write_all_rules(struct writing *w)
{
    bool by_name = w->line_count > 0 && w->lines[0].learnt->name.len > 0;
    int r = 0;

    /* Where rules go by name each question is judged by them. */
    if (w->learn->looked_up && !by_name &&
        json_array_append_new(w->rules, json_string("allow to dns")) < 0)
        return -ENOMEM;
    for (size_t at = 0; r == 0 && at < w->line_count;)
        r = write_group(w, at, &at);
    return r;
}

/* ---- the document ---- */

static json_t *write_refusals(const struct learn *learn)
{
    json_t *list = json_array();

    for (size_t i = 0; i < learn->refusal_count; i++) {
        const struct learnt_refusal *refusal = &learn->refusals[i];
        json_t *entry =
            json_pack("{s:s, s:I}", "what", refusal->what, "count", (json_int_t)refusal->count);

        if (refusal->remedy)
            json_object_set_new(entry, "allow", json_string(refusal->remedy));
        json_array_append_new(list, entry);
    }
    return list;
}

static char *write_document(struct writing *w)
{
    json_t *root = json_pack("{s:i, s:s, s:s, s:O}", "version", 1, "comment",
                             "what was used while culvert learnt; what is under \"refused\" was "
                             "refused even then",
                             "profile", "none", "rules", w->rules);
    char *text = NULL;

    if (root && w->learn->refusal_count > 0)
        json_object_set_new(root, "refused", write_refusals(w->learn));
    if (root)
        text = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    json_decref(root);
    return text;
}

char *learn_document(const struct learn *learn, bool wildcards, size_t *ret_rules)
{
    struct writing w = {.learn = learn, .rules = json_array()};
    int r = w.rules ? 0 : -ENOMEM;
    char *text = NULL;

    if (r == 0 && wildcards)
        r = find_parents(&w);
    if (r == 0)
        r = make_lines(&w);
    if (r == 0)
        r = write_all_rules(&w);
    if (r == 0) {
        *ret_rules = json_array_size(w.rules);
        text = write_document(&w);
    }
    json_decref(w.rules);
    free(w.lines);
    free(w.parents);
    return text;
}
