/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_POLICY_FILE_H
#define ENGINE_POLICY_FILE_H

/* The files that a policy is in. */

#include "policy/policy.h"

/* The whole file (a pipe will do), at most POLICY_FILE_MAX bytes, else -EFBIG; a policy_read_file.
 * May block: not for the poll thread. */
#define POLICY_FILE_MAX ((size_t)256 << 20)
policy_read_file policy_file_read;

/* Reads `path` into the builder (policy_builder_document()). As that; -EINVAL also when it cannot
 * be read. */
int policy_file_load(struct policy_builder *builder, const char *path, char *message, size_t size);

#endif
