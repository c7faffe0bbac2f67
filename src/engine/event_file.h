/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_EVENT_FILE_H
#define ENGINE_EVENT_FILE_H

/* Where the lines of --events go, by a thread of its own, so that no reader holds up the engine. */

#include <stdbool.h>
#include <stddef.h>

#include "base/counters.h"

struct event_file;

/* Appends to `path`, made with mode 0600 if it is missing; or, if that is NULL, writes to `fd`
 * (borrowed: a copy is made). NULL with errno; the thread is not started yet. */
struct event_file *event_file_new(const char *path, int fd, struct counters *counters);
/* Ends the thread, as event_file_stop(). Accepts NULL; returns NULL. */
struct event_file *event_file_free(struct event_file *file);

/* 0 or negative errno. */
int event_file_start(struct event_file *file);
/* Waits until what was put has been written, a second at most. Does nothing if it is stopped. */
void event_file_stop(struct event_file *file);

/* Poll thread only, never blocks: a whole line. False: there is no room, it is lost and counted,
 * and a later line says so. */
bool event_file_put(struct event_file *file, const char *line, size_t len);
/* Opens the path anew. Any thread. 0, or negative errno and the old file stays. */
int event_file_reopen(struct event_file *file);

#endif
