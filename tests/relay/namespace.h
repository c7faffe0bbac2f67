/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_RELAY_NAMESPACE_H
#define TESTS_RELAY_NAMESPACE_H

#include <stdbool.h>
#include <stdint.h>

/* Moves the process into a network namespace (and, unprivileged, a user namespace) of its own with
 * `lo` up, where ping sockets are allowed; once, later calls do nothing. False: not allowed here.
 */
bool namespace_of_its_own(void);
int namespace_set_mtu(const char *interface, int mtu);
/* "Nobody may", and back. */
int namespace_allow_ping_sockets(bool allow);
int namespace_add_address(const char *interface, uint32_t be_address);

#endif
