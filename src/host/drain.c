/* SPDX-License-Identifier: Apache-2.0 */
#include "host/drain.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define GIVE_UP_MS   2000
#define SLEEP_MAX_MS 50

/* How many TCP sockets of this namespace are hashed: "TCP: inuse N …" in /proc/net/sockstat. Unlike
 * the list of sockets, which walks the hash table of the whole machine for milliseconds, it costs
 * nothing. */
static unsigned sockets_in_use(void)
{
    static const struct {
        const char *path, *prefix;
    } files[] = {{"/proc/net/sockstat", "TCP: inuse "}, {"/proc/net/sockstat6", "TCP6: inuse "}};
    unsigned sum = 0;

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        FILE *file = fopen(files[i].path, "re");
        char line[256];
        size_t prefix = strlen(files[i].prefix);

        while (file && fgets(line, sizeof line, file))
            if (strncmp(line, files[i].prefix, prefix) == 0)
                sum += (unsigned)strtoul(line + prefix, NULL, 10);
        if (file)
            fclose(file);
    }
    return sum;
}

bool drain_line_pending(const char *line, uint64_t *ret_bytes)
{
    unsigned state, unacknowledged;

    /* "sl: local remote state tx_queue:rx_queue …", in hexadecimal */
    if (sscanf(line, " %*u: %*s %*s %x %x:", &state, &unacknowledged) != 2)
        return false;
    if (state != TCP_FIN_WAIT1 && state != TCP_CLOSING && state != TCP_LAST_ACK)
        return false;
    *ret_bytes = unacknowledged;
    return true;
}

struct pending {
    unsigned sockets;
    uint64_t bytes;
};

static void add_pending(const char *path, struct pending *sum)
{
    FILE *file = fopen(path, "re");
    char line[512];
    uint64_t bytes;

    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        if (drain_line_pending(line, &bytes)) {
            sum->sockets++;
            sum->bytes += bytes;
        }
    }
    fclose(file);
}

/* True when a signal asks to stop waiting. */
static bool sleep_or_signal(long ms)
{
    struct timespec time = {.tv_nsec = ms * 1000000};
    sigset_t awaited;

    sigemptyset(&awaited);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGHUP);
    return sigtimedwait(&awaited, NULL, &time) > 0;
}

/* Listing the sockets tells whether anything moves; it comes late, when the usual case, an engine
 * that acknowledges within a millisecond, has not ended the matter. */
void drain_tcp(void)
{
    struct pending before = {0, 0};
    long idle_ms = 0, sleep_ms = 1;

    while (sockets_in_use() > 0 && idle_ms < GIVE_UP_MS) {
        struct pending now = {0, 0};

        if (sleep_or_signal(sleep_ms))
            return;
        idle_ms += sleep_ms;
        if (sleep_ms < SLEEP_MAX_MS) {
            sleep_ms *= 2;
            continue;
        }
        add_pending("/proc/net/tcp", &now);
        add_pending("/proc/net/tcp6", &now);
        if (now.sockets == 0)
            return;
        if (now.sockets != before.sockets || now.bytes != before.bytes)
            idle_ms = 0;
        before = now;
    }
}
