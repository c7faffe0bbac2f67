/* SPDX-License-Identifier: Apache-2.0 */

/* A copy of a builder, for whoever has to build its policy again later: when a rule expires, while
 * the original may have been added to or freed. Rules are copied; sets, which nobody changes once
 * they are read, are shared. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/builder.h"
#include "policy/copies.h"

/* ---- pieces: 0 or -ENOMEM; what was copied so far stands in the copy ---- */

static int copy_target(const struct rule_target *from, struct rule_target *to)
{
    *to = *from;
    to->set = NULL;
    to->pattern = NULL;
    if (from->kind == RULE_TARGET_NAME &&
        copy_array(from->pattern, 1, sizeof *from->pattern, &to->pattern) < 0)
        return -ENOMEM;
    return from->kind == RULE_TARGET_SET ? copy_text(from->set, &to->set) : 0;
}

static int copy_targets(const struct rule_target *from, size_t count, struct rule_target **ret,
                        size_t *ret_count)
{
    *ret = calloc(count ? count : 1, sizeof **ret);
    if (!*ret)
        return -ENOMEM;
    for (; *ret_count < count; (*ret_count)++) {
        if (copy_target(&from[*ret_count], &(*ret)[*ret_count]) < 0) {
            (*ret_count)++; /* half of it is there */
            return -ENOMEM;
        }
    }
    return 0;
}

static int copy_rule(const struct rule *from, struct rule *to)
{
    *to = (struct rule){
        .action = from->action,
        .direction = from->direction,
        .protocols = from->protocols,
        .port_count = from->port_count,
        .expires = from->expires,
    };
    if (copy_targets(from->targets, from->target_count, &to->targets, &to->target_count) < 0 ||
        copy_targets(from->widening, from->widening_count, &to->widening, &to->widening_count) <
            0 ||
        copy_array(from->ports, from->port_count, sizeof *from->ports, &to->ports) < 0 ||
        copy_text(from->text, &to->text) < 0 || copy_text(from->where, &to->where) < 0 ||
        copy_text(from->id, &to->id) < 0)
        return -ENOMEM;
    return copy_text(from->comment, &to->comment);
}

static int share_sets(const struct target_sets *from, struct target_sets *to)
{
    for (size_t i = 0; i < from->count; i++) {
        if (target_sets_add(to, target_set_ref(from->list[i])) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int copy_source(const struct rule_source *from, struct rule_source *to)
{
    struct rule_list *rules = &to->rules;

    rules->rules = calloc(from->rules.count + 1, sizeof *rules->rules);
    if (!rules->rules)
        return -ENOMEM;
    rules->capacity = from->rules.count + 1;
    while (rules->count < from->rules.count) {
        const size_t number = rules->count++;

        if (copy_rule(&from->rules.rules[number], &rules->rules[number]) < 0)
            return -ENOMEM;
    }
    return share_sets(&from->sets, &to->sets) < 0 ? -ENOMEM : share_sets(&from->lists, &to->lists);
}

/* ---- the whole ---- */

static int copy_facts(const struct policy_builder *from, struct policy_builder *to)
{
    if (copy_text(from->document_profile, &to->document_profile) < 0 ||
        copy_array(from->nat64, from->nat64_count, sizeof *from->nat64, &to->nat64) < 0 ||
        copy_array(from->host_addresses, from->host_address_count, sizeof *from->host_addresses,
                   &to->host_addresses) < 0 ||
        copy_array(from->hosts, from->host_count, sizeof *from->hosts, &to->hosts) < 0)
        return -ENOMEM;
    to->nat64_count = from->nat64_count;
    to->host_address_count = from->host_address_count;
    to->host_count = from->host_count;
    to->read = from->read;
    to->read_ctx = from->read_ctx;
    return 0;
}

struct policy_builder *policy_builder_copy(const struct policy_builder *builder)
{
    struct policy_builder *copy = calloc(1, sizeof *copy);

    if (copy && copy_facts(builder, copy) == 0 && copy_source(&builder->own, &copy->own) == 0 &&
        copy_source(&builder->document, &copy->document) == 0 &&
        copy_source(&builder->profile, &copy->profile) == 0)
        return copy;
    return policy_builder_free(copy);
}

static bool source_expires(const struct rule_source *source)
{
    for (size_t i = 0; i < source->rules.count; i++) {
        if (source->rules.rules[i].expires != RULE_NEVER_EXPIRES)
            return true;
    }
    return false;
}

bool policy_builder_expires(const struct policy_builder *builder)
{
    return source_expires(&builder->own) || source_expires(&builder->document);
}
