/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

/* What a scope owns is given back when the scope is left, whichever way:
 *
 *     _cleanup_free_ char *text = NULL;
 *     _cleanup_close_ int fd = -1;
 *     _cleanup_(engine_freep) struct engine *engine = engine_new();
 *
 * TAKE_PTR and TAKE_FD hand the thing on and leave nothing behind. */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(function) __attribute__((cleanup(function)))
#define _cleanup_free_      _cleanup_(freep)
#define _cleanup_close_     _cleanup_(closep)

/* Defines destroyp() for _cleanup_(), for a destroy() that accepts NULL. No semicolon behind it. */
#define DEFINE_CLEANUP(type, destroy)                                                              \
    static inline __attribute__((unused)) void destroy##p(type **object)                           \
    {                                                                                              \
        destroy(*object);                                                                          \
    }

#define TAKE_PTR(pointer)                                                                          \
    ({                                                                                             \
        __typeof__(pointer) *from_ = &(pointer);                                                   \
        __typeof__(pointer) taken_ = *from_;                                                       \
        *from_ = NULL;                                                                             \
        taken_;                                                                                    \
    })

#define TAKE_FD(fd)                                                                                \
    ({                                                                                             \
        int *from_ = &(fd);                                                                        \
        int taken_ = *from_;                                                                       \
        *from_ = -1;                                                                               \
        taken_;                                                                                    \
    })

static inline void freep(void *pointer)
{
    free(*(void **)pointer);
}

/* Closes unless negative, keeps errno; returns -1. */
static inline int close_fd(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return -1;
}

static inline void closep(int *fd)
{
    close_fd(*fd);
}

#endif
