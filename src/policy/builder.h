/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_BUILDER_H
#define POLICY_BUILDER_H

/* What a policy is built from: the builder, to those who fill and compile it. */

#include "policy/name_rules.h"
#include "policy/policy.h"
#include "policy/rule.h"
#include "policy/sets.h"

struct rule_list {
    struct rule *rules;
    size_t count, capacity;
};

/* Rules that come and go together, with the sets they bring. */
struct rule_source {
    struct rule_list rules;
    struct target_sets sets;  /* by the names the source gives them */
    struct target_sets lists; /* files that its rules name: "file:PATH" */
};

struct policy_builder {
    struct rule_source own, document, profile; /* in this order */
    char *document_profile;
    struct ip_prefix *nat64;
    size_t nat64_count;
    struct ip_address *host_addresses;
    size_t host_address_count;
    struct name_host *hosts;
    size_t host_count;
    policy_read_file *read;
    void *read_ctx;
};

/* What a rule of a source has beside its text; all may be NULL. */
struct rule_facts {
    const char *where, *id, *comment;
    const char *folder; /* relative lists begin there; ends in '/' */
    int64_t expires;
};

/* Parses `text` to the end of `source`, reading the lists it names. As rule_parse(). */
int rule_source_add(const struct policy_builder *builder, struct rule_source *source,
                    const char *text, const struct rule_facts *facts, char *message, size_t size);
void rule_source_clear(struct rule_source *source);
/* Reads a list into `set`: `name` is "file:PATH". As policy_builder_add(). */
int builder_read_list(const struct policy_builder *builder, struct target_set *set,
                      const char *name, char *message, size_t size);
/* "file:PATH" with `folder` in front of a relative path, by malloc(). NULL: no memory. */
char *builder_list_name(const char *name, const char *folder);

/* The set of this name, of whatever source; NULL: there is none. */
const struct target_set *builder_find_set(const struct policy_builder *builder, const char *name);
/* All rules in order, as a borrowed view, by malloc(): the rules stay the builder's. NULL: no
 * memory. */
struct rule *builder_rules(const struct policy_builder *builder, uint32_t *ret_count);

#endif
