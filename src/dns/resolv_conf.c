/* SPDX-License-Identifier: Apache-2.0 */
/* The host's resolvers, as its resolv.conf names them, now and whenever that changes.
 *
 * The file is looked at before each query: a stat() through whatever links lead there costs a
 * microsecond, misses no way of replacing it, and wakes nobody. (An inotify watch would cost up to
 * 16 ms when it is closed, and sees neither mounts nor links switched further up.)
 *
 * A file that is missing or empty is one that is just being replaced: the last list stays. One that
 * is there and names no server means that there are none. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "dns/internal.h"

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
    cache_clear(&dns->cache); /* other servers may know other things */
    count(dns->counters, COUNTER_dns_upstreams_read);
}

/* ---- changes ---- */

/* A file's times are as coarse as the kernel's tick: one that changed only now may change again
 * unseen. */
static bool changed_just_now(const struct stat *st)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec - st->st_mtim.tv_sec <= 1;
}

/* Never 0 for a file that need not be read again. */
static uint64_t file_stamp(const struct dns *dns)
{
    struct stat st;
    uint64_t facts[5];

    if (stat(dns->resolv.path, &st) < 0 || changed_just_now(&st))
        return 0;
    facts[0] = st.st_dev;
    facts[1] = st.st_ino;
    facts[2] = (uint64_t)st.st_size;
    facts[3] = (uint64_t)st.st_mtim.tv_sec;
    facts[4] = (uint64_t)st.st_mtim.tv_nsec;
    return hash_bytes(dns->hash_key, facts, sizeof facts) | 1;
}

void resolv_conf_recheck(struct dns *dns)
{
    struct resolv_conf *resolv = &dns->resolv;
    uint64_t stamp;

    if (!resolv->path)
        return;
    stamp = file_stamp(dns);
    if (stamp == 0 || stamp != resolv->stamp) {
        resolv->stamp = stamp;
        read_servers(dns);
    }
}

/* ---- beginning and end ---- */

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
    resolv_conf_recheck(dns);
    return 0;
}

void resolv_conf_stop(struct dns *dns)
{
    struct resolv_conf *resolv = &dns->resolv;

    free(resolv->path);
    resolv->path = NULL;
}
