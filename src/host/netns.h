/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_NETNS_H
#define HOST_NETNS_H

/* Work in another network namespace: sockets and devices belong to the namespace they were opened
 * in, whoever holds them afterwards. */

#include <stddef.h>

/* The namespace that `where` names: a process's number, or a path such as /run/netns/NAME. A
 * descriptor, or negative errno with `message` (size bytes) saying the fault and the mend. */
int netns_open(const char *where, char *message, size_t size);

/* Runs `body` in the namespace (-1: the caller's own, in this process) and returns what it returns:
 * a descriptor, which becomes the caller's, 0, or negative errno with `message`. It is run in a
 * child that ends with it, and that enters the user namespace which owns the network namespace if
 * that is what its work there needs. */
int netns_call(int netns, int (*body)(const void *arg, char *message, size_t size), const void *arg,
               char *message, size_t size);

#endif
