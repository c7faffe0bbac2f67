/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_WAKE_H
#define BASE_WAKE_H

#include <culvert/wake.h>

int wake_init(struct culvert_wake *wake); /* 0 or negative errno */
/* Of a wake whose fd is -1: no effect. */
void wake_fini(struct culvert_wake *wake);

#endif
