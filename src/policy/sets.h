/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_SETS_H
#define POLICY_SETS_H

/* Sets of targets: those a document defines, and lists in files. A list may have a million names;
 * they are kept packed. */

#include "policy/rule.h"

struct target_set {
    uint32_t refs;
    char *name; /* "web", "file:/etc/list" */
    bool any;
    unsigned groups; /* enum policy_group bits */
    struct ip_prefix *prefixes;
    size_t prefix_count, prefix_capacity;
    uint8_t *names; /* packed: kind, length, bytes */
    size_t names_len, names_capacity, name_count;
    /* The first pattern that spans a public suffix, and where; an allow must not name this set. */
    char *too_broad;
};

struct target_set *target_set_new(const char *name);
/* Gives up a reference; the last one frees. */
struct target_set *target_set_free(struct target_set *set);
/* Another reference to a set that nobody changes any more. Any thread. Returns `set`. */
struct target_set *target_set_ref(struct target_set *set);
/* One target as text, at `where` ("FILE:12", for messages). 0;
 * -EINVAL with `message` filled; -ENOMEM. */
int target_set_add(struct target_set *set, const char *text, size_t len, const char *where,
                   char *message, size_t size);
/* A whole list: one target a line; '#' begins a comment, blank lines do not count. `path` is for
 * messages, and fit to be shown. */
int target_set_add_list(struct target_set *set, const char *text, size_t len, const char *path,
                        char *message, size_t size);
/* Adds everything in `from`. 0 or -ENOMEM. */
int target_set_merge(struct target_set *set, const struct target_set *from);

/* Goes through the names: *at is 0 at first; false: that was all. */
bool target_set_next_name(const struct target_set *set, size_t *at, struct name_pattern *ret);

struct target_sets {
    struct target_set **list;
    size_t count;
};

/* NULL: there is none of this name. */
struct target_set *target_sets_find(const struct target_sets *sets, const char *name);
/* Takes `set` over, also on failure. 0 or -ENOMEM. */
int target_sets_add(struct target_sets *sets, struct target_set *take_set);
void target_sets_clear(struct target_sets *sets);

#endif
