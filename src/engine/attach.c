/* SPDX-License-Identifier: Apache-2.0 */
/* Gives an engine its front end: by kind and place, as `culvert serve` names them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/internal.h"

#define MESSAGE_MAX 384

typedef struct netdev *netdev_new(const struct netdev_config *config, struct loop *loop,
                                  struct counters *counters, char *message, size_t size);

static const struct kind {
    const char *name;
    netdev_new *create; /* NULL: not available yet */
} kinds[] = {
    {"stream", netdev_stream_new},
    {"dgram", NULL},
    {"vhost-user", netdev_vhost_user_new},
    {"tap", NULL},
    {"interface", NULL},
};

static int set_error(struct culvert_error *error, int r, const char *kind, const char *where,
                     const char *message)
{
    if (error)
        snprintf(error->message, sizeof error->message, "%s %.100s: %s", kind, where, message);
    return r;
}

static const struct kind *kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

int culvert_engine_attach(struct culvert_engine *engine, const char *kind, const char *where,
                          struct culvert_error *error)
{
    const struct kind *found = kind_find(kind);
    const struct netdev_config config = {
        .where = where,
        .netns = engine->netns[0] ? engine->netns : NULL,
        .mtu = engine->addresses.mtu,
        .once = engine->once,
    };
    char message[MESSAGE_MAX] = "";
    struct netdev *netdev;

    if (engine->netdev || engine->running)
        return set_error(error, -EBUSY, kind, where, "the engine has its front end already");
    if (!found)
        return set_error(error, -EINVAL, kind, where,
                         "no such front end; there are stream, dgram, vhost-user, tap, interface");
    if (!found->create)
        return set_error(error, -EOPNOTSUPP, kind, where, "not available yet; use stream");
    netdev = found->create(&config, &engine->loop, &engine->counters, message, sizeof message);
    if (!netdev) {
        int r = errno ? -errno : -EINVAL;

        return set_error(error, r, kind, where, message[0] ? message : strerror(-r));
    }
    engine_take_netdev(engine, netdev);
    return 0;
}
