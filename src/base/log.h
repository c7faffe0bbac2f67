/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

/* The library never prints: whoever embeds it hands in a callback. A NULL log, or one without a
 * callback, swallows everything. */

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_NOTE,
    LOG_LEVEL_DEBUG,
};

struct log {
    /* `message`: one line, no newline, valid during the call; from whichever thread logs. */
    void (*write)(void *ctx, enum log_level level, const char *message);
    void *ctx;
    enum log_level level; /* the most verbose that is wanted */
};

/* Formats into a bounded buffer: what is too long is cut. errno is kept. */
__attribute__((format(printf, 3, 4))) void log_write(const struct log *log, enum log_level level,
                                                     const char *format, ...);

#define log_error(log, ...)   log_write(log, LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(log, ...) log_write(log, LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_note(log, ...)    log_write(log, LOG_LEVEL_NOTE, __VA_ARGS__)
#define log_debug(log, ...)   log_write(log, LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
