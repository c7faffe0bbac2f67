/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SUMMARY_H
#define CLI_SUMMARY_H

/* What was refused while the command ran, in a few lines on stderr when it has ended, each with the
 * rule that would allow it. */

#include <culvert/engine.h>
#include <culvert/events.h>

struct summary;

struct summary *summary_new(void); /* NULL: ENOMEM */
/* Accepts NULL; returns NULL. */
struct summary *summary_free(struct summary *summary);
/* An engine's event callback; `arg` is the summary. */
void summary_note(void *arg, const struct culvert_event *event);
/* The text by malloc(), "" if nothing was refused; NULL: ENOMEM. The engine is stopped. */
char *summary_text(struct summary *summary);

#endif
