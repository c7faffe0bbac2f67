/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/learning.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/config.h"
#include "engine/event_text.h"
#include "engine/flow_naming.h"
#include "engine/internal.h"
#include "engine/learn.h"

/* ---- what is noted ---- */

void learn_subject(struct culvert_engine *engine, const struct subject *subject)
{
    const struct ip_address *address = &subject->key.remote;
    struct flow_naming naming;
    struct learn_flow flow = {
        .protocol = subject->key.protocol,
        .port = subject->key.remote_port,
        .address = *address,
        .is_public = policy_groups_of(engine->policy, &engine->world, address) == POLICY_PUBLIC,
    };
    char target[RULE_NAME_MAX];

    flow_naming_of(engine->pins, subject, flow.port, engine->now, &naming);
    if (naming.admits && rule_name_write(&naming.name, target) &&
        !policy_is_protected(engine->policy, &engine->world, address))
        flow.name = &naming.name;
    else if (naming.source != CULVERT_EVENT_NAME_NONE)
        flow.seen = &naming.name;
    learn_flow(engine->learn, &flow);
}

static const char *protocol_name(const struct culvert_event *event)
{
    return event->protocol == IPPROTO_TCP ? "tcp" : event->protocol == IPPROTO_UDP ? "udp" : "icmp";
}

void learn_refused(struct culvert_engine *engine, const struct event *event)
{
    struct event_texts texts;
    struct culvert_event told;
    char what[NAME_SHOWN_MAX + 128];

    event_describe(event, 1, engine->policy, &engine->world, &texts, &told);
    if (told.protocol != 0 && told.remote_port != 0)
        snprintf(what, sizeof what, "%s to %s port %u", protocol_name(&told), told.remote_address,
                 told.remote_port);
    else if (told.protocol != 0)
        snprintf(what, sizeof what, "%s to %s", protocol_name(&told), told.remote_address);
    else
        snprintf(what, sizeof what, "%s in answers for %s",
                 told.remote_address ? told.remote_address : "private names",
                 told.name ? told.name : "");
    learn_refusal(engine->learn, told.remedy, what);
}

/* ---- the file ---- */

static int path_error(struct culvert_error *error, const char *path, int r)
{
    if (error)
        snprintf(error->message, sizeof error->message,
                 "learn %.300s: cannot be written: %s; name a file in a folder that you may write "
                 "to",
                 path, strerror(-r));
    return r;
}

/* A new file beside `path`, whose name is by malloc(). A descriptor or negative errno. */
static int open_beside(const char *path, char **ret_name)
{
    char *name = NULL;
    int fd;

    if (asprintf(&name, "%s.%d.new", path, (int)getpid()) < 0)
        return -ENOMEM;
    fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) {
        fd = -errno;
        free(name);
        return fd;
    }
    *ret_name = name;
    return fd;
}

static int write_whole(int fd, const char *text)
{
    size_t len = strlen(text);

    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        text += n;
        len -= (size_t)n;
    }
    return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

/* The old file is there until the new one is whole. */
static int replace_file(const char *path, const char *text)
{
    _cleanup_free_ char *name = NULL;
    _cleanup_close_ int fd = open_beside(path, &name);
    int r = fd < 0 ? fd : write_whole(fd, text);

    if (r == 0 && rename(name, path) < 0)
        r = -errno;
    if (r < 0 && name)
        unlink(name);
    return r;
}

/* Better at the start than at the end. */
static int try_file(const char *path)
{
    _cleanup_free_ char *name = NULL;
    struct stat status;

    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return S_ISDIR(status.st_mode) ? -EISDIR : -EEXIST;
    int fd = open_beside(path, &name);

    if (fd < 0)
        return fd;
    close_fd(fd);
    return name && unlink(name) == 0 ? 0 : -errno;
}

int learning_begin(struct culvert_engine *engine, const struct culvert_config *config,
                   struct culvert_error *error)
{
    int r;

    if (config->learn[0] == '\0')
        return 0;
    r = try_file(config->learn);
    if (r < 0)
        return path_error(error, config->learn, r);
    engine->learn = learn_new(&engine->counters, engine->addresses.hash_key);
    engine->learn_path = realpath(config->learn, NULL); /* through symbolic links */
    if (!engine->learn_path)
        engine->learn_path = strdup(config->learn);
    engine->learn_wildcards = config->learn_wildcards;
    return engine->learn && engine->learn_path ? 0 : -ENOMEM;
}

void learning_end(struct culvert_engine *engine)
{
    engine->learn = learn_free(engine->learn);
    free(engine->learn_path);
    engine->learn_path = NULL;
}

int culvert_engine_write_learnt(struct culvert_engine *engine, struct culvert_error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t rules = 0;
    int r;

    if (!engine->learn)
        return 0;
    if (engine->running) {
        if (error)
            snprintf(error->message, sizeof error->message,
                     "learn: the engine is running; stop it first");
        return -EBUSY;
    }
    if (counter_value(&engine->counters, COUNTER_dns_udp_messages) > 0 ||
        counter_value(&engine->counters, COUNTER_dns_tcp_messages) > 0)
        learn_lookup(engine->learn);
    text = learn_document(engine->learn, engine->learn_wildcards, &rules);
    r = text ? replace_file(engine->learn_path, text) : -ENOMEM;
    return r < 0 ? path_error(error, engine->learn_path, r) : (int)rules;
}
