/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_SUGGEST_H
#define POLICY_SUGGEST_H

#include <stddef.h>

/* The word among `words` that `typed` was probably meant to be, case ignored; NULL: none is near.
 */
const char *suggest_word(const char *typed, const char *const *words, size_t count);

#endif
