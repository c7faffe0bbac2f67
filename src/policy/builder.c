/* SPDX-License-Identifier: Apache-2.0 */

/* Collecting what a policy is built from: rules by flag, a document's, a profile's; sets and lists.
 * Sets are looked up when everything is there (policy_builder_check()), for a flag may name a set
 * of a document that is read later. Compiling is compile.c's. */

#include "policy/builder.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "policy/suggest.h"
#include "policy/target.h"

static const struct ip_prefix NAT64_WELL_KNOWN = {.address = {.bytes = {0x00, 0x64, 0xff, 0x9b}},
                                                  .length = 96}; /* RFC 6052, 2.1 */

#define PATH_SHOWN_MAX    251 /* bytes of a path in a message, with the final 0 */
#define PROFILE_RULES_MAX 3

static const struct profile {
    const char *name;
    const char *rules[PROFILE_RULES_MAX]; /* NULL behind the last */
} PROFILES[] = {
    {"public", {"allow to dns", "allow to public"}},
    {"none", {NULL}},
    /* All of the floor but `metadata`; of the special ranges only what a rule names. */
    {"all", {"allow to any,host,link-local,multicast"}},
};

#define PROFILE_COUNT (sizeof PROFILES / sizeof PROFILES[0])

/* ---- the builder ---- */

struct policy_builder *policy_builder_new(void)
{
    struct policy_builder *builder = calloc(1, sizeof *builder);
    if (builder && policy_builder_nat64(builder, &NAT64_WELL_KNOWN) < 0)
        return policy_builder_free(builder);
    return builder;
}

static void rule_list_clear(struct rule_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        rule_clear(&list->rules[i]);
    free(list->rules);
    *list = (struct rule_list){0};
}

void rule_source_clear(struct rule_source *source)
{
    rule_list_clear(&source->rules);
    target_sets_clear(&source->sets);
    target_sets_clear(&source->lists);
}

struct policy_builder *policy_builder_free(struct policy_builder *builder)
{
    if (!builder)
        return NULL;
    rule_source_clear(&builder->own);
    rule_source_clear(&builder->document);
    rule_source_clear(&builder->profile);
    free(builder->document_profile);
    free(builder->nat64);
    free(builder->host_addresses);
    free(builder->hosts);
    free(builder);
    return NULL;
}

void policy_builder_files(struct policy_builder *builder, policy_read_file *read, void *ctx)
{
    builder->read = read;
    builder->read_ctx = ctx;
}

/* ---- lists ---- */

char *builder_list_name(const char *name, const char *folder)
{
    char *whole = NULL;
    if (strncmp(name, "file:", 5) != 0 || name[5] == '/' || !folder)
        return strdup(name);
    return asprintf(&whole, "file:%s%s", folder, name + 5) < 0 ? NULL : whole;
}

int builder_read_list(const struct policy_builder *builder, struct target_set *set,
                      const char *name, char *message, size_t size)
{
    const char *path = name + 5; /* behind "file:" */
    char shown[PATH_SHOWN_MAX];
    _cleanup_free_ char *text = NULL;
    size_t len;

    text_show(path, strlen(path), shown, sizeof shown);
    if (!builder->read) {
        if (size > 0)
            snprintf(message, size, "%s: lists in files cannot be read here: write a set", shown);
        return -EINVAL;
    }
    int r = builder->read(builder->read_ctx, path, &text, &len);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        if (size > 0)
            snprintf(message, size, "%s: the list cannot be read: %s", shown, strerror(-r));
        return -EINVAL;
    }
    return target_set_add_list(set, text, len, shown, message, size);
}

static int add_list(const struct policy_builder *builder, struct target_sets *lists,
                    const char *name, char *message, size_t size)
{
    if (target_sets_find(lists, name))
        return 0;
    struct target_set *set = target_set_new(name);
    if (!set)
        return -ENOMEM;
    int r = builder_read_list(builder, set, name, message, size);
    if (r < 0) {
        target_set_free(set);
        return r;
    }
    return target_sets_add(lists, set);
}

/* Finds what is a list among the targets, in its full name, and reads it. */
static int add_lists(const struct policy_builder *builder, struct target_sets *lists,
                     struct rule_target *targets, size_t count, const char *folder, char *message,
                     size_t size)
{
    for (size_t i = 0; i < count; i++) {
        if (targets[i].kind != RULE_TARGET_SET || strncmp(targets[i].set, "file:", 5) != 0)
            continue;
        char *name = builder_list_name(targets[i].set, folder);
        if (!name)
            return -ENOMEM;
        free(targets[i].set);
        targets[i].set = name;
        int r = add_list(builder, lists, name, message, size);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- rules ---- */

static int copy_text(char **to, const char *text)
{
    if (text && !(*to = strdup(text)))
        return -ENOMEM;
    return 0;
}

static int complete_rule(const struct policy_builder *builder, struct rule_source *source,
                         struct rule *rule, const struct rule_facts *facts, char *message,
                         size_t size)
{
    rule->expires = facts->expires;
    if (copy_text(&rule->where, facts->where) < 0 || copy_text(&rule->id, facts->id) < 0 ||
        copy_text(&rule->comment, facts->comment) < 0)
        return -ENOMEM;
    int r = add_lists(builder, &source->lists, rule->targets, rule->target_count, facts->folder,
                      message, size);
    return r < 0 ? r
                 : add_lists(builder, &source->lists, rule->widening, rule->widening_count,
                             facts->folder, message, size);
}

int rule_source_add(const struct policy_builder *builder, struct rule_source *source,
                    const char *text, const struct rule_facts *facts, char *message, size_t size)
{
    struct rule_list *list = &source->rules;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        struct rule *larger = reallocarray(list->rules, capacity, sizeof *larger);
        if (!larger)
            return -ENOMEM;
        list->rules = larger;
        list->capacity = capacity;
    }
    struct rule *rule = &list->rules[list->count];
    int r = rule_parse(text, rule, message, size);
    if (r < 0)
        return r;
    r = complete_rule(builder, source, rule, facts, message, size);
    if (r < 0)
        rule_clear(rule);
    else
        list->count++;
    return r;
}

int policy_builder_add(struct policy_builder *builder, const char *rule, const char *where,
                       char *message, size_t size)
{
    struct rule_facts facts = {.where = where, .expires = RULE_NEVER_EXPIRES};
    char fault[400];
    int r = rule_source_add(builder, &builder->own, rule, &facts, fault, sizeof fault);
    if (r == -EINVAL && size > 0)
        snprintf(message, size, "%s%s%s", where ? where : "", where ? ": " : "", fault);
    return r == -ENODATA ? 0 : r;
}

/* ---- the profile ---- */

static int fail_profile(const char *name, char *message, size_t size)
{
    const char *names[PROFILE_COUNT];
    for (size_t i = 0; i < PROFILE_COUNT; i++)
        names[i] = PROFILES[i].name;
    const char *near = suggest_word(name, names, PROFILE_COUNT);
    if (size > 0 && near)
        snprintf(message, size, "unknown profile; did you mean \"%s\"?", near);
    else if (size > 0)
        snprintf(message, size, "unknown profile: write public, none or all");
    return -EINVAL;
}

int policy_builder_profile(struct policy_builder *builder, const char *name, char *message,
                           size_t size)
{
    struct rule_source source = {0};
    const struct profile *profile = PROFILES;
    char where[32];

    while (profile < PROFILES + PROFILE_COUNT && strcmp(profile->name, name) != 0)
        profile++;
    if (profile == PROFILES + PROFILE_COUNT)
        return fail_profile(name, message, size);
    snprintf(where, sizeof where, "profile %s", profile->name);
    struct rule_facts facts = {.where = where, .expires = RULE_NEVER_EXPIRES};
    for (size_t i = 0; i < PROFILE_RULES_MAX && profile->rules[i]; i++) {
        int r = rule_source_add(builder, &source, profile->rules[i], &facts, message, size);
        if (r < 0) {
            rule_source_clear(&source);
            return r;
        }
    }
    rule_source_clear(&builder->profile);
    builder->profile = source;
    return 0;
}

const char *policy_builder_document_profile(const struct policy_builder *builder)
{
    return builder->document_profile;
}

/* ---- addresses ---- */

/* Room for one more at the end of *array; NULL: no memory. */
static void *append(void *array, size_t *count, size_t element)
{
    void **place = array;
    void *larger = reallocarray(*place, *count + 1, element);
    if (!larger)
        return NULL;
    *place = larger;
    return (char *)larger + (*count)++ * element;
}

int policy_builder_host_address(struct policy_builder *builder, const struct ip_address *address)
{
    struct ip_address *place =
        append(&builder->host_addresses, &builder->host_address_count, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = *address;
    return 0;
}

int policy_builder_nat64(struct policy_builder *builder, const struct ip_prefix *prefix)
{
    if (prefix->length != 96 || ip_address_is_v4(&prefix->address) || prefix->address.be32[3] != 0)
        return -EINVAL;
    struct ip_prefix *place = append(&builder->nat64, &builder->nat64_count, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = *prefix;
    return 0;
}

int policy_builder_dns_host(struct policy_builder *builder, const struct dns_name *name,
                            const struct ip_address *address)
{
    struct name_host *place = append(&builder->hosts, &builder->host_count, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = (struct name_host){.name = *name, .address = *address};
    return 0;
}

/* ---- does it fit together? ---- */

const struct target_set *builder_find_set(const struct policy_builder *builder, const char *name)
{
    const struct target_sets *places[] = {&builder->document.sets, &builder->own.lists,
                                          &builder->document.lists};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const struct target_set *set = target_sets_find(places[i], name);
        if (set)
            return set;
    }
    return NULL;
}

struct rule *builder_rules(const struct policy_builder *builder, uint32_t *ret_count)
{
    const struct rule_list *lists[] = {&builder->own.rules, &builder->document.rules,
                                       &builder->profile.rules};
    size_t count = 0;
    for (size_t i = 0; i < 3; i++)
        count += lists[i]->count;
    if (count >= NO_RULE)
        return NULL;
    struct rule *rules = calloc(count + 1, sizeof *rules), *to = rules;
    if (!rules)
        return NULL;
    for (size_t i = 0; i < 3; i++) {
        if (lists[i]->count > 0)
            memcpy(to, lists[i]->rules, lists[i]->count * sizeof *rules);
        to += lists[i]->count;
    }
    *ret_count = (uint32_t)count;
    return rules;
}

struct check {
    const struct policy_builder *builder;
    const struct rule *rule;
    char *message;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static int fail_check(const struct check *check,
                                                            const char *format, ...)
{
    char fault[300], shown[64];
    const char *text = check->rule->text;
    va_list arguments;

    if (check->size == 0)
        return -EINVAL;
    va_start(arguments, format);
    vsnprintf(fault, sizeof fault, format, arguments);
    va_end(arguments);
    if (check->rule->where)
        snprintf(check->message, check->size, "%s: %s", check->rule->where, fault);
    else
        snprintf(check->message, check->size, "rule \"%s\": %s",
                 text_show(text, strlen(text), shown, sizeof shown), fault);
    return -EINVAL;
}

static int fail_set(const struct check *check, const char *name)
{
    const struct target_sets *sets = &check->builder->document.sets;
    const char **names = calloc(sets->count + 1, sizeof *names), *near = NULL;
    int r;

    for (size_t i = 0; i < sets->count && names; i++)
        names[i] = sets->list[i]->name;
    if (names)
        near = suggest_word(name, names, sets->count);
    if (near)
        r = fail_check(check, "there is no set \"%s\"; did you mean \"@%s\"?",
                       target_show(name).text, near);
    else
        r = fail_check(check, "there is no set \"%s\": define it in the policy file's \"sets\"",
                       target_show(name).text);
    free(names);
    return r;
}

/* A set among the targets, or behind "in". */
static int check_set(const struct check *check, const char *name, bool widening, bool *ret_names)
{
    const struct target_set *set = builder_find_set(check->builder, name);
    struct target_shown shown = target_show(name);

    if (!set)
        return fail_set(check, name);
    if (set->name_count == 0)
        return 0;
    *ret_names = true;
    if (widening)
        return fail_check(check, "\"@%s\" holds names; behind \"in\" stand addresses only",
                          shown.text);
    if (check->rule->direction == POLICY_INGRESS)
        return fail_check(check, "\"@%s\" holds names, but who comes from outside has none",
                          shown.text);
    if (check->rule->action == POLICY_ALLOW && set->too_broad)
        return fail_check(check,
                          "%s in \"@%s\" reaches beyond one owner's names: write one more label",
                          set->too_broad, shown.text);
    return 0;
}

static int check_rule(const struct check *check)
{
    const struct rule *rule = check->rule;
    bool names = rule_has_name(rule), ignored = false;
    int r = 0;

    for (size_t i = 0; i < rule->target_count && r == 0; i++) {
        if (rule->targets[i].kind == RULE_TARGET_SET)
            r = check_set(check, rule->targets[i].set, false, &names);
    }
    for (size_t i = 0; i < rule->widening_count && r == 0; i++) {
        if (rule->widening[i].kind == RULE_TARGET_SET)
            r = check_set(check, rule->widening[i].set, true, &ignored);
    }
    if (r == 0 && rule->widening_count > 0 && !names)
        return fail_check(check, "\"in\" widens names, and the rule has none: leave it away");
    return r;
}

int policy_builder_check(const struct policy_builder *builder, char *message, size_t size)
{
    uint32_t count;
    int r = 0;
    struct rule *rules = builder_rules(builder, &count);
    if (!rules)
        return -ENOMEM;
    for (uint32_t i = 0; i < count && r == 0; i++) {
        struct check check = {builder, &rules[i], message, size};
        r = check_rule(&check);
    }
    free(rules);
    return r;
}
