/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_COPIES_H
#define POLICY_COPIES_H

/* Copies by malloc(). 0 or -ENOMEM. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* NULL is copied as NULL; NULL is stored on failure, too. */
static inline int copy_text(const char *text, char **ret)
{
    *ret = text ? strdup(text) : NULL;
    return text && !*ret ? -ENOMEM : 0;
}

/* `count` elements of `element` bytes; never NULL. `ret` points to a pointer to such, which a
 * failure leaves alone. */
static inline int copy_array(const void *array, size_t count, size_t element, void *ret)
{
    void *copy = calloc(count ? count : 1, element);

    if (!copy)
        return -ENOMEM;
    if (count > 0)
        memcpy(copy, array, count * element);
    *(void **)ret = copy;
    return 0;
}

#endif
