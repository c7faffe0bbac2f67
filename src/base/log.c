/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

void log_write(const struct log *log, enum log_level level, const char *format, ...)
{
    if (!log || !log->write || level > log->level)
        return;
    int saved = errno;
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    log->write(log->ctx, level, message);
    errno = saved;
}
