/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_TARGET_H
#define POLICY_TARGET_H

/* One target of a rule, of a set or of a list file, as text. */

#include "policy/rule.h"

#define TARGET_TEXT_MAX 255 /* bytes of a word; the longest domain name has 253 */

/* The word `text` (no blanks, at most TARGET_TEXT_MAX bytes). Nothing is allocated: a name goes to
 * *scratch and ret->pattern points there, ret->set points into `text`. 0; -EINVAL with `message`
 * filled: the fault and the mend, without a place; -ENOMEM. */
int target_parse(char *text, struct name_pattern *scratch, struct rule_target *ret, char *message,
                 size_t size);

/* Is it "any", a group, or something that means to be an address? */
bool target_is_plain(const char *text);
/* A word as it may be shown: short, and nothing in it that a terminal would obey. */
struct target_shown {
    char text[48];
};
struct target_shown target_show(const char *text);

#endif
