/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/policy_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/config_parse.h"

/* What to begin with, so that a plain file is read in one go. */
static size_t expected_size(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0 || status.st_size <= 0 || (size_t)status.st_size > POLICY_FILE_MAX)
        return 4096;
    return (size_t)status.st_size + 1;
}

int policy_file_read(void *ctx, const char *path, char **ret, size_t *ret_len)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_free_ char *text = NULL;
    size_t capacity = 0, len = 0;

    (void)ctx;
    if (fd < 0)
        return -errno;
    for (;;) {
        if (len == capacity) {
            capacity = capacity ? capacity * 2 : expected_size(fd);
            char *larger = capacity > 2 * POLICY_FILE_MAX ? NULL : realloc(text, capacity);
            if (!larger)
                return capacity > 2 * POLICY_FILE_MAX ? -EFBIG : -ENOMEM;
            text = larger;
        }
        ssize_t got = read(fd, text + len, capacity - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        len += (size_t)got;
        if (len > POLICY_FILE_MAX)
            return -EFBIG;
    }
    *ret = TAKE_PTR(text);
    *ret_len = len;
    return 0;
}

int policy_file_load(struct policy_builder *builder, const char *path, char *message, size_t size)
{
    _cleanup_free_ char *text = NULL;
    size_t len = 0;
    int r = policy_file_read(NULL, path, &text, &len);

    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        snprintf(message, size, "the file cannot be read: %s", strerror(-r));
        return -EINVAL;
    }
    return policy_builder_document(builder, text, len, path, message, size);
}

CONFIG_PARSER(policy)
{
    int r = policy_file_load(config->policy, value, message, size);
    const char *profile = policy_builder_document_profile(config->policy);

    if (r < 0 || config->profile_given || !profile)
        return r;
    return policy_builder_profile(config->policy, profile, message, size);
}
