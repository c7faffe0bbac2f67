/* SPDX-License-Identifier: Apache-2.0 */
/* The host's resolvers, as its resolv.conf names them, now and whenever that changes.
 *
 * The file is usually replaced rather than written, often it is a symbolic link, and so may be what
 * it points at. So what is watched are directories: for each link of the chain, the directory it
 * stands in and its name there. Where a directory does not exist yet, its nearest ancestor is
 * watched for the name that is missing. On each change of one of those names, watches are set anew
 * first and the file read then, so that nothing is lost in between.
 *
 * A file that is missing or empty is one that is just being replaced: the last list stays. One that
 * is there and names no server means that there are none.
 *
 * Where inotify cannot be had (its instances are limited), the file is looked at before a query, at
 * most every DNS_RECHECK: still without a wakeup. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "dns/internal.h"

#define LINKS_MAX 8

static_assert(LINKS_MAX < RESOLV_WATCHES, "a watch for each link and for the file");

/* ---- the text ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* "A", "A6" or "A6%SCOPE". */
static bool parse_server(char *text, struct dns_server *ret)
{
    struct dns_server server = {.where.endpoint.port = 53};
    char *scope = strchr(text, '%');

    if (scope) {
        *scope++ = '\0';
        server.scope_id = if_nametoindex(scope);
        if (server.scope_id == 0)
            server.scope_id = (uint32_t)strtoul(scope, NULL, 10);
    }
    if (!ip_address_parse(text, &server.where.endpoint.address))
        return false;
    *ret = server;
    return true;
}

/* The server that a line names, if it is a `nameserver` line. */
static bool parse_line(const char *line, size_t len, struct dns_server *ret)
{
    static const char keyword[] = "nameserver";
    char word[128];
    size_t at = sizeof keyword - 1, end;

    if (len <= at || memcmp(line, keyword, at) != 0 || !is_blank(line[at]))
        return false;
    while (at < len && is_blank(line[at]))
        at++;
    for (end = at; end < len && !is_blank(line[end]) && line[end] != '#' && line[end] != ';';)
        end++;
    if (end - at >= sizeof word)
        return false;
    memcpy(word, line + at, end - at);
    word[end - at] = '\0';
    return parse_server(word, ret);
}

size_t resolv_conf_parse(const char *text, size_t len, struct dns_server *ret)
{
    size_t servers = 0;

    for (size_t at = 0; at < len && servers < DNS_UPSTREAMS_MAX;) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t line = newline ? (size_t)(newline - (text + at)) : len - at;

        servers += parse_line(text + at, line, &ret[servers]);
        at += line + 1;
    }
    return servers;
}

/* ---- the file ---- */

/* Reads at most `size` bytes; the number read, or negative errno. Anything but a file is refused:
 * a FIFO would block or never end. */
static ssize_t read_file(const char *path, char *to, size_t size)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    size_t total = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    while (total < size) {
        ssize_t n = read(fd, to + total, size - total);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            break;
        if (n > 0)
            total += (size_t)n;
    }
    return (ssize_t)total;
}

static bool same_servers(const struct dns_servers *servers, const struct dns_server *list, size_t n)
{
    if (servers->count != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct dns_server *a = &servers->list[i], *b = &list[i];

        if (!ip_address_equal(&a->where.endpoint.address, &b->where.endpoint.address) ||
            a->scope_id != b->scope_id)
            return false;
    }
    return true;
}

/* Never called while an answer is being looked at, so that the space for answers is free. */
static void read_servers(struct dns *dns)
{
    char *text = (char *)dns->received;
    struct dns_servers *servers = &dns->servers;
    struct dns_server list[DNS_UPSTREAMS_MAX];
    ssize_t len;
    size_t n;

    len = read_file(dns->resolv.path, text, sizeof dns->received);
    if (len <= 0)
        return;
    n = resolv_conf_parse(text, (size_t)len, list);
    if (same_servers(servers, list, n))
        return;
    memcpy(servers->list, list, n * sizeof *list);
    servers->count = n;
    servers->preferred = 0;
    servers->generation++;
    count(dns->counters, COUNTER_dns_upstreams_read);
}

/* ---- watching ---- */

static bool add_watch(struct resolv_conf *resolv, const char *directory, const char *name)
{
    static const uint32_t events = IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM |
                                   IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
    struct resolv_watch *watch = &resolv->watches[resolv->watch_count];

    watch->wd = inotify_add_watch(resolv->inotify_fd, directory, events);
    if (watch->wd < 0)
        return false;
    snprintf(watch->name, sizeof watch->name, "%s", name);
    resolv->watch_count++;
    return true;
}

/* Splits in place: "/a/b" → "/a", "b"; "/a" → "/", "a". Returns the name; NULL: nothing to split.
 * `path` is absolute. */
static const char *split_name(char *path, const char **ret_directory)
{
    char *slash = strrchr(path, '/');

    if (!slash || slash[1] == '\0')
        return NULL;
    *slash = '\0';
    *ret_directory = slash == path ? "/" : path;
    return slash + 1;
}

/* Watches for changes of `path` itself, or of the topmost part of it that is missing. */
static void watch_path(struct resolv_conf *resolv, const char *path)
{
    char copy[PATH_MAX];
    const char *directory, *name;

    snprintf(copy, sizeof copy, "%s", path);
    while ((name = split_name(copy, &directory)))
        if (add_watch(resolv, directory, name))
            return;
}

/* What the symbolic link `path` points at, absolute, replaces it. False: it is none. */
static bool follow_link(char path[PATH_MAX])
{
    char target[PATH_MAX], joined[2 * PATH_MAX];
    ssize_t n = readlink(path, target, sizeof target - 1);
    const char *slash = strrchr(path, '/');

    if (n <= 0)
        return false;
    target[n] = '\0';
    if (target[0] == '/')
        snprintf(joined, sizeof joined, "%s", target);
    else
        snprintf(joined, sizeof joined, "%.*s/%s", (int)(slash - path), path, target);
    if (strlen(joined) >= PATH_MAX)
        return false;
    memcpy(path, joined, strlen(joined) + 1);
    return true;
}

static bool is_watched(const struct resolv_conf *resolv, int wd)
{
    for (size_t i = 0; i < resolv->watch_count; i++)
        if (resolv->watches[i].wd == wd)
            return true;
    return false;
}

/* Sets the watches anew; the kernel keeps those that stay. */
static void set_watches(struct resolv_conf *resolv)
{
    struct resolv_conf before = *resolv;
    char path[PATH_MAX];

    resolv->watch_count = 0;
    snprintf(path, sizeof path, "%s", resolv->path);
    for (int i = 0; i <= LINKS_MAX; i++) {
        watch_path(resolv, path);
        if (!follow_link(path))
            break;
    }
    for (size_t i = 0; i < before.watch_count; i++)
        if (!is_watched(resolv, before.watches[i].wd))
            inotify_rm_watch(resolv->inotify_fd, before.watches[i].wd);
}

static bool concerns_us(const struct resolv_conf *resolv, const struct inotify_event *event)
{
    if (event->mask & IN_Q_OVERFLOW)
        return true;
    for (size_t i = 0; i < resolv->watch_count; i++)
        if (resolv->watches[i].wd == event->wd &&
            (event->len == 0 || strcmp(resolv->watches[i].name, event->name) == 0))
            return true;
    return false;
}

/* Takes all events there are; does any of them concern us? */
static bool drain_events(const struct resolv_conf *resolv)
{
    _Alignas(struct inotify_event) char events[4096];
    bool changed = false;

    for (;;) {
        ssize_t n = read(resolv->inotify_fd, events, sizeof events);

        if (n <= 0)
            return changed;
        for (char *at = events; at < events + n;) {
            const struct inotify_event *event = (const struct inotify_event *)(void *)at;

            changed |= concerns_us(resolv, event);
            at += sizeof *event + event->len;
        }
    }
}

void resolv_conf_ready(void *ctx, uint32_t index, uint32_t generation, uint32_t events)
{
    struct dns *dns = ctx;

    (void)index;
    (void)generation;
    (void)events;
    if (drain_events(&dns->resolv)) {
        set_watches(&dns->resolv);
        read_servers(dns);
    }
}

/* ---- without inotify ---- */

static uint64_t file_stamp(const struct dns *dns)
{
    struct stat st;
    uint64_t facts[5] = {0};

    if (stat(dns->resolv.path, &st) == 0) {
        facts[0] = st.st_dev;
        facts[1] = st.st_ino;
        facts[2] = (uint64_t)st.st_size;
        facts[3] = (uint64_t)st.st_mtim.tv_sec;
        facts[4] = (uint64_t)st.st_mtim.tv_nsec;
    }
    return hash_bytes(dns->hash_key, facts, sizeof facts);
}

void resolv_conf_recheck(struct dns *dns, uint64_t now)
{
    struct resolv_conf *resolv = &dns->resolv;
    uint64_t stamp;

    if (!resolv->path || resolv->inotify_fd >= 0 || now - resolv->checked < DNS_RECHECK)
        return;
    resolv->checked = now;
    stamp = file_stamp(dns);
    if (stamp != resolv->stamp) {
        resolv->stamp = stamp;
        read_servers(dns);
    }
}

/* ---- beginning and end ---- */

static void start_watching(struct dns *dns)
{
    struct resolv_conf *resolv = &dns->resolv;

    resolv->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (resolv->inotify_fd < 0)
        return;
    set_watches(resolv);
    if (resolv->watch_count == 0 ||
        loop_add(dns->loop, resolv->inotify_fd, EPOLLIN, dns->resolv_handler, 0, 0) < 0)
        resolv->inotify_fd = close_fd(resolv->inotify_fd);
}

int resolv_conf_start(struct dns *dns, const char *path)
{
    char *absolute = NULL;

    if (path[0] == '/') {
        absolute = strdup(path);
    } else {
        _cleanup_free_ char *here = getcwd(NULL, 0);

        if (!here || asprintf(&absolute, "%s/%s", here, path) < 0)
            return -ENOMEM;
    }
    if (!absolute)
        return -ENOMEM;
    dns->resolv.path = absolute;
    start_watching(dns);
    read_servers(dns);
    return 0;
}

void resolv_conf_stop(struct dns *dns)
{
    struct resolv_conf *resolv = &dns->resolv;

    if (resolv->inotify_fd >= 0) {
        loop_remove(dns->loop, resolv->inotify_fd);
        close(resolv->inotify_fd);
        resolv->inotify_fd = -1;
    }
    free(resolv->path);
    resolv->path = NULL;
}
