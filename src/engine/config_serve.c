/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `culvert serve`: which front end, and how the command behaves as a service. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/config_parse.h"

#define fault(...) (snprintf(message, size, __VA_ARGS__), -EINVAL)

static int store_text(char *to, size_t capacity, const char *what, const char *value, char *message,
                      size_t size)
{
    if (value[0] == '\0')
        return fault("the %s is empty", what);
    if (strlen(value) >= capacity)
        return fault("the %s has more than %zu bytes; choose a shorter one", what, capacity - 1);
    memcpy(to, value, strlen(value) + 1);
    return 0;
}

static int set_frontend(struct culvert_config *config, const char *kind, const char *what,
                        const char *value, char *message, size_t size)
{
    struct config_frontend *frontend = &config->frontend;

    if (frontend->kind)
        return fault("a guest has one front end, and --%s was given already; leave one out",
                     frontend->kind);
    if (store_text(frontend->where, sizeof frontend->where, what, value, message, size) < 0)
        return -EINVAL;
    frontend->kind = kind;
    return 0;
}

CONFIG_PARSER(stream)
{
    return set_frontend(config, "stream", "path", value, message, size);
}

CONFIG_PARSER(dgram)
{
    return set_frontend(config, "dgram", "path", value, message, size);
}

CONFIG_PARSER(vhost_user)
{
    return set_frontend(config, "vhost-user", "path", value, message, size);
}

CONFIG_PARSER(tap)
{
    return set_frontend(config, "tap", "interface's name", value, message, size);
}

CONFIG_PARSER(interface)
{
    return set_frontend(config, "interface", "interface's name", value, message, size);
}

CONFIG_PARSER(netns)
{
    return store_text(config->frontend.netns, sizeof config->frontend.netns, "namespace", value,
                      message, size);
}

CONFIG_PARSER(once)
{
    return config_switch_parse(&config->frontend.once, value, message, size);
}

CONFIG_PARSER(ready_fd)
{
    uint32_t fd;

    if (!config_number_parse(value, 1, 1u << 20, &fd))
        return fault("not a descriptor's number from 1 to %u; write it as in 3", 1u << 20);
    config->ready_fd = (int)fd;
    return 0;
}

CONFIG_PARSER(pid_file)
{
    return store_text(config->pid_file, sizeof config->pid_file, "path", value, message, size);
}
