/* SPDX-License-Identifier: Apache-2.0 */
/* Gives an engine its front end: by kind and place, as `culvert serve` names them.
 *
 * Sockets are the netdevs' own affair. Interfaces are opened, and set up, in the namespace they are
 * in; where the host's own stack could see the guest's frames too, they are kept from it, and that
 * is undone when the engine ends. */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/internal.h"
#include "host/interface.h"
#include "host/netns.h"
#include "netdev/packet.h"
#include "netdev/tap.h"

#define MESSAGE_MAX 384

/* What is to be undone in the end. */
struct attachment {
    int netns; /* -1: ours */
    char sealed[IFNAMSIZ];
};

/* A front end to be made. */
struct request {
    struct culvert_engine *engine;
    const char *where;
    struct netdev_config config; /* the same for sockets */
    char *message;
    size_t size;
};

/* ---- sockets ---- */

typedef struct netdev *netdev_new(const struct netdev_config *config, struct loop *loop,
                                  struct counters *counters, char *message, size_t size);

static struct netdev *attach_socket(const struct request *request, netdev_new *create)
{
    struct culvert_engine *engine = request->engine;

    return create(&request->config, &engine->loop, &engine->counters, request->message,
                  request->size);
}

static struct netdev *attach_stream(const struct request *request)
{
    return attach_socket(request, netdev_stream_new);
}

static struct netdev *attach_dgram(const struct request *request)
{
    return attach_socket(request, netdev_dgram_new);
}

static struct netdev *attach_vhost_user(const struct request *request)
{
    return attach_socket(request, netdev_vhost_user_new);
}

/* ---- interfaces ---- */

struct interface {
    char name[IFNAMSIZ];
    uint32_t mtu;
};

typedef int interface_work(const void *interface, char *message, size_t size);

/* In the interface's namespace; a descriptor. */
static int open_tap(const void *arg, char *message, size_t size)
{
    const struct interface *interface = arg;
    _cleanup_close_ int fd = tap_open(interface->name, 0, NULL);
    int r;

    if (fd >= 0) {
        r = interface_prepare(interface->name, interface->mtu, true, message, size);
        return r < 0 ? r : TAKE_FD(fd);
    }
    if (fd == -EBUSY)
        snprintf(message, size, "somebody else has it open; if that is the VMM, use --interface");
    else if (fd == -EPERM)
        snprintf(message, size,
                 "it may not be made or opened; run as root, have it made for you "
                 "(ip tuntap add mode tap vnet_hdr user NAME), or name a namespace "
                 "of your own with --netns");
    else if (fd == -EINVAL)
        snprintf(message, size,
                 "it cannot be opened as a TAP: another kind of interface has the name, or no "
                 "interface can have it; give one such as tap0");
    else if (fd == -EACCES)
        snprintf(message, size, "/dev/net/tun may not be opened; have its group or mode changed");
    else
        snprintf(message, size, "it cannot be opened: %s", strerror(-fd));
    return fd;
}

static int open_interface(const void *arg, char *message, size_t size)
{
    const struct interface *interface = arg;
    _cleanup_close_ int fd = packet_open(interface->name, message, size);
    int r = fd < 0 ? fd : interface_seal(interface->name, message, size);

    if (r < 0)
        return r;
    r = interface_prepare(interface->name, interface->mtu, false, message, size);
    if (r < 0) {
        char ignored[MESSAGE_MAX];

        (void)interface_unseal(interface->name, ignored, sizeof ignored);
        return r;
    }
    return TAKE_FD(fd);
}

static int unseal_interface(const void *arg, char *message, size_t size)
{
    const struct interface *interface = arg;

    return interface_unseal(interface->name, message, size);
}

static int open_in_netns(const struct request *request, int netns, struct interface *ret,
                         interface_work *open_device)
{
    *ret = (struct interface){.mtu = request->engine->addresses.mtu};
    if (strlen(request->where) >= sizeof ret->name) {
        snprintf(request->message, request->size, "an interface's name has at most %zu bytes",
                 sizeof ret->name - 1);
        return -EINVAL;
    }
    snprintf(ret->name, sizeof ret->name, "%s", request->where);
    return netns_call(netns, open_device, ret, request->message, request->size);
}

/* -1 is our own namespace; -2: none, with errno. */
static int request_netns(const struct request *request)
{
    int fd;

    if (request->engine->netns[0] == '\0')
        return -1;
    fd = netns_open(request->engine->netns, request->message, request->size);
    if (fd >= 0)
        return fd;
    errno = -fd;
    return -2;
}

static struct netdev *attach_tap(const struct request *request)
{
    struct culvert_engine *engine = request->engine;
    _cleanup_close_ int netns = request_netns(request);
    struct interface interface;
    struct netdev *netdev;
    int fd;

    if (netns < -1)
        return NULL;
    fd = open_in_netns(request, netns, &interface, open_tap);
    if (fd < 0) {
        errno = -fd;
        return NULL;
    }
    netdev = netdev_tap_new(fd, interface.mtu, &engine->loop, &engine->counters);
    if (!netdev)
        close_fd(fd);
    return netdev;
}

static struct netdev *attach_interface(const struct request *request)
{
    struct culvert_engine *engine = request->engine;
    struct attachment *attachment = calloc(1, sizeof *attachment);
    struct interface interface;
    struct netdev *netdev;
    int fd;

    if (!attachment)
        return NULL;
    engine->attachment = attachment; /* whatever happens below, attachment_end() sees to it */
    attachment->netns = request_netns(request);
    if (attachment->netns < -1)
        return NULL;
    fd = open_in_netns(request, attachment->netns, &interface, open_interface);
    if (fd < 0) {
        errno = -fd;
        return NULL;
    }
    snprintf(attachment->sealed, sizeof attachment->sealed, "%s", interface.name);
    netdev = netdev_packet_new(fd, interface.mtu, &engine->loop, &engine->counters);
    if (!netdev)
        close_fd(fd);
    return netdev;
}

void attachment_end(struct culvert_engine *engine)
{
    struct attachment *attachment = engine->attachment;
    struct interface interface = {.mtu = 0};
    char message[MESSAGE_MAX];

    if (!attachment)
        return;
    if (attachment->sealed[0] != '\0') {
        memcpy(interface.name, attachment->sealed, sizeof interface.name);
        (void)netns_call(attachment->netns, unseal_interface, &interface, message, sizeof message);
    }
    close_fd(attachment->netns);
    free(attachment);
    engine->attachment = NULL;
}

/* ---- any of them ---- */

static const struct kind {
    const char *name;
    struct netdev *(*attach)(const struct request *request);
} kinds[] = {
    {"stream", attach_stream}, {"dgram", attach_dgram},         {"vhost-user", attach_vhost_user},
    {"tap", attach_tap},       {"interface", attach_interface},
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
    static const uint8_t nobody[6];
    char message[MESSAGE_MAX] = "";
    const struct request request = {
        .engine = engine,
        .where = where,
        .config = {.where = where, .mtu = engine->addresses.mtu, .once = engine->once},
        .message = message,
        .size = sizeof message,
    };
    const struct kind *found = kind_find(kind);
    struct netdev *netdev;

    if (engine->netdev || engine->running)
        return set_error(error, -EBUSY, kind, where, "the engine has its front end already");
    if (!found)
        return set_error(error, -EINVAL, kind, where,
                         "no such front end; there are stream, dgram, vhost-user, tap, interface");
    errno = 0;
    netdev = found->attach(&request);
    if (!netdev) {
        int r = errno ? -errno : -EINVAL;

        attachment_end(engine);
        return set_error(error, r, kind, where, message[0] ? message : strerror(-r));
    }
    if (memcmp(engine->mac, nobody, sizeof nobody) != 0)
        memcpy(netdev->link.mac, engine->mac, sizeof netdev->link.mac);
    engine_take_netdev(engine, netdev);
    return 0;
}
