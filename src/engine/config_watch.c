/* SPDX-License-Identifier: Apache-2.0 */
/* The options of those who watch what a guest is refused. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/config_parse.h"

#define fault(...) (snprintf(message, size, __VA_ARGS__), -EINVAL)

static int store_path(char *to, size_t capacity, const char *value, char *message, size_t size)
{
    if (value[0] == '\0')
        return fault("the path is empty; name a file");
    if (strlen(value) >= capacity)
        return fault("the path has more than %zu bytes; choose a shorter one", capacity - 1);
    memcpy(to, value, strlen(value) + 1);
    return 0;
}

CONFIG_PARSER(events)
{
    int fd = -1;

    if (strcmp(value, "-") == 0) {
        fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return fault("stdout is closed; name a file");
        config->events[0] = '\0';
    } else if (store_path(config->events, sizeof config->events, value, message, size) < 0) {
        return -EINVAL;
    }
    close_fd(config->events_fd);
    config->events_fd = fd;
    return 0;
}

CONFIG_PARSER(audit)
{
    return config_switch_parse(&config->audit, value, message, size);
}

CONFIG_PARSER(learn)
{
    return store_path(config->learn, sizeof config->learn, value, message, size);
}

CONFIG_PARSER(learn_wildcards)
{
    return config_switch_parse(&config->learn_wildcards, value, message, size);
}
