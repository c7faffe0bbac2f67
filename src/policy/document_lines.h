/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_DOCUMENT_LINES_H
#define POLICY_DOCUMENT_LINES_H

/* Where things stand in a JSON document: the parser tells only what they are. A walk goes along
 * with the reader, element by element, through text that has been found to be valid JSON. */

#include <stdbool.h>
#include <stddef.h>

struct line_walk {
    const char *text;
    size_t len;
    size_t at;            /* where the current value begins */
    size_t key;           /* in an object: where its key does, at the '"' */
    size_t counted, line; /* lines are counted up to `counted` */
    bool object, fresh;
};

/* At the document's own value. */
struct line_walk line_walk_of(const char *text, size_t len);
/* A walk through the object or array that `walk` is at, before its first value. */
struct line_walk line_walk_into(const struct line_walk *walk);
/* To the next value. False: that was the last. */
bool line_walk_next(struct line_walk *walk);
/* In an object: on to the value of `key` (as it is written). False: there is none from here on. */
bool line_walk_find(struct line_walk *walk, const char *key);
/* The number of the line, from 1. */
size_t line_walk_line(struct line_walk *walk);

#endif
