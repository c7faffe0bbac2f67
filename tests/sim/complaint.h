/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_COMPLAINT_H
#define SIM_COMPLAINT_H

/* How the simulated parties say what the stack did wrong. */

#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 3, 4))) static inline void
complain(void (*wrong)(void *ctx, const char *what), void *ctx, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wrong(ctx, text);
}

#endif
