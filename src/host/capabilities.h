/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_CAPABILITIES_H
#define HOST_CAPABILITIES_H

/* Gives up every capability of the calling thread, for good: none is held, none is left in the
 * bounding set, and being or becoming uid 0 brings none back. 0 or negative errno. */
int capabilities_drop_all(void);

#endif
