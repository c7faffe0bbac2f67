/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of --events on their way to a file, a pipe or a terminal.
 *
 * A file may hang, a pipe's reader may sleep, and whether a descriptor that we were given blocks is
 * not ours to change: its flags belong to everybody who has it. So there is a thread which may
 * wait, and between it and the poll thread a ring of bytes with one writer and one reader, each of
 * which owns an index. A line that does not fit is lost; how many were is said by a line that goes
 * in when there is room again. A line that could not be written is lost as well.
 *
 * Lines are written whole as far as a pipe takes them whole (4096 bytes), so that they are not torn
 * where somebody else writes to the same one. To a descriptor that blocks nothing is written before
 * poll() has said that it takes as much. */

#include "engine/event_file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/timers.h"
#include "base/wake.h"
#include "engine/event_text.h"

#define RING_SIZE 262144u /* a power of two */
#define WRITE_MAX 4096u   /* what a pipe takes whole */
#define PATIENCE  SECOND_NS

struct event_file {
    char *path;   /* NULL: the descriptor was given */
    int fd;       /* the thread's, while it runs */
    int reopened; /* to take its place; -1: none */
    bool is_socket;
    bool cut;  /* what was written last ends within a line */
    bool torn; /* and the rest of that line will not come */
    struct culvert_wake wake;
    struct counters *counters;
    pthread_t thread;
    bool running;
    uint32_t stopping;   /* atomic */
    uint64_t lost;       /* atomic: lines, not yet told */
    uint32_t put, taken; /* atomic: bytes, ever */
    char ring[RING_SIZE];
};

/* ---- the poll thread's end ---- */

static void lose(struct event_file *file, uint64_t lines)
{
    __atomic_fetch_add(&file->lost, lines, __ATOMIC_RELAXED);
    count_shared(file->counters, COUNTER_events_lost, lines);
}

bool event_file_put(struct event_file *file, const char *line, size_t len)
{
    uint32_t put = __atomic_load_n(&file->put, __ATOMIC_RELAXED);
    uint32_t used = put - __atomic_load_n(&file->taken, __ATOMIC_ACQUIRE);
    uint32_t at = put % RING_SIZE;

    if (len > RING_SIZE - used) {
        lose(file, 1);
        return false;
    }
    size_t first = len < RING_SIZE - at ? len : RING_SIZE - at;
    memcpy(file->ring + at, line, first);
    memcpy(file->ring, line + first, len - first);
    __atomic_store_n(&file->put, put + (uint32_t)len, __ATOMIC_RELEASE);
    culvert_wake_signal(&file->wake);
    return true;
}

/* ---- the thread's end ---- */

/* Copies what comes next: whole lines if one fits, else a piece of it. */
static size_t peek_lines(const struct event_file *file, char chunk[WRITE_MAX])
{
    uint32_t taken = __atomic_load_n(&file->taken, __ATOMIC_RELAXED);
    size_t len = __atomic_load_n(&file->put, __ATOMIC_ACQUIRE) - taken;
    const char *end;

    if (len > WRITE_MAX)
        len = WRITE_MAX;
    size_t at = taken % RING_SIZE;
    size_t first = len < RING_SIZE - at ? len : RING_SIZE - at;
    memcpy(chunk, file->ring + at, first);
    memcpy(chunk + first, file->ring, len - first);
    end = memrchr(chunk, '\n', len);
    return end ? (size_t)(end - chunk) + 1 : len;
}

static void take(struct event_file *file, size_t len)
{
    __atomic_fetch_add(&file->taken, (uint32_t)len, __ATOMIC_RELEASE);
}

/* Bytes written, or negative errno; -EAGAIN: not now. */
static ssize_t write_some(const struct event_file *file, const char *bytes, size_t len)
{
    struct pollfd takes = {.fd = file->fd, .events = POLLOUT};

    if (poll(&takes, 1, 0) <= 0)
        return -EAGAIN;
    ssize_t n = file->is_socket ? send(file->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL)
                                : write(file->fd, bytes, len);
    if (n == 0)
        return -EAGAIN;
    return n < 0 ? -errno : n;
}

static bool is_later(ssize_t error)
{
    return error == -EAGAIN || error == -EINTR;
}

/* Nobody takes what is here now. */
static void discard(struct event_file *file)
{
    char chunk[WRITE_MAX];
    size_t len;

    file->torn = file->torn || file->cut;
    file->cut = false;
    while ((len = peek_lines(file, chunk)) > 0) {
        uint64_t lines = 0;

        for (size_t i = 0; i < len; i++)
            lines += chunk[i] == '\n';
        lose(file, lines);
        take(file, len);
    }
}

/* The rest of a line that was cut short does not come: what follows begins anew. */
static ssize_t mend_tear(struct event_file *file)
{
    ssize_t n = file->torn ? write_some(file, "\n", 1) : 1;

    if (n > 0)
        file->torn = false;
    return n;
}

static void tell_lost(struct event_file *file)
{
    uint64_t lost = __atomic_exchange_n(&file->lost, 0, __ATOMIC_RELAXED);
    struct timespec now;
    _cleanup_free_ char *line = NULL;

    if (lost == 0)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    line = event_json(&(struct culvert_event){
        .kind = CULVERT_EVENT_LOST,
        .time = (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec,
        .count = lost,
        .rule = UINT32_MAX,
        .reason = counter_name(COUNTER_events_lost),
        .sentence = counter_sentence(COUNTER_events_lost),
    });
    ssize_t n = line ? write_some(file, line, strlen(line)) : -ENOMEM;
    if (n < 0)
        __atomic_fetch_add(&file->lost, lost, __ATOMIC_RELAXED); /* another time */
    else
        file->torn = (size_t)n < strlen(line);
}

/* Writes as much as is taken now. 0: all; -EAGAIN: the rest later. */
static int write_lines(struct event_file *file)
{
    char chunk[WRITE_MAX];
    size_t len;

    while ((len = peek_lines(file, chunk)) > 0) {
        ssize_t n = mend_tear(file);

        if (n > 0)
            n = write_some(file, chunk, len);
        if (is_later(n))
            return -EAGAIN;
        if (n <= 0) {
            discard(file);
            return 0;
        }
        take(file, (size_t)n);
        file->cut = chunk[n - 1] != '\n';
        if (!file->cut)
            tell_lost(file);
    }
    return 0;
}

static void take_reopened(struct event_file *file)
{
    int fd = __atomic_exchange_n(&file->reopened, -1, __ATOMIC_ACQUIRE);

    if (fd < 0)
        return;
    close_fd(file->fd);
    file->fd = fd;
    file->torn = file->cut; /* half a line is in the old one */
    file->cut = false;
}

/* Waits for lines, and where some are left over also until they are taken, but not beyond
 * `limit`. */
static void await_work(struct event_file *file, bool left, uint64_t limit)
{
    struct pollfd fds[2] = {
        {.fd = culvert_wake_fd(&file->wake), .events = POLLIN},
        {.fd = left ? file->fd : -1, .events = POLLOUT},
    };
    uint64_t now = clock_now();
    int ms = -1;

    if (limit != UINT64_MAX)
        ms = limit > now ? (int)((limit - now) / MS_NS) + 1 : 0;
    (void)poll(fds, 2, ms);
    culvert_wake_drain(&file->wake);
}

static void *write_until_stopped(void *arg)
{
    struct event_file *file = arg;
    uint64_t limit = UINT64_MAX;

    for (;;) {
        bool stopping = __atomic_load_n(&file->stopping, __ATOMIC_ACQUIRE) != 0;
        bool left;

        take_reopened(file);
        left = write_lines(file) < 0;
        if (stopping && limit == UINT64_MAX)
            limit = clock_now() + PATIENCE;
        if (stopping && (!left || clock_now() >= limit))
            break;
        await_work(file, left, limit);
    }
    discard(file);
    return NULL;
}

/* ---- life ---- */

/* Without O_NONBLOCK a FIFO without a reader would hold up the start. */
static int open_path(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
}

struct event_file *event_file_new(const char *path, int fd, struct counters *counters)
{
    struct event_file *file = calloc(1, sizeof *file);
    struct stat status;
    int r;

    if (!file)
        return NULL;
    file->wake.fd = -1;
    file->counters = counters;
    file->reopened = -1;
    file->fd = path ? open_path(path) : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    r = file->fd < 0 ? -errno : wake_init(&file->wake);
    if (r == 0 && path && !(file->path = strdup(path)))
        r = -ENOMEM;
    if (r < 0) {
        event_file_free(file);
        errno = -r;
        return NULL;
    }
    file->is_socket = fstat(file->fd, &status) == 0 && S_ISSOCK(status.st_mode);
    return file;
}

/* The thread takes no signal; SIGPIPE neither. */
int event_file_start(struct event_file *file)
{
    sigset_t all, before;

    __atomic_store_n(&file->stopping, 0, __ATOMIC_RELEASE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&file->thread, NULL, write_until_stopped, file);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    file->running = r == 0;
    if (file->running)
        pthread_setname_np(file->thread, "culvert-events");
    return -r;
}

void event_file_stop(struct event_file *file)
{
    if (!file->running)
        return;
    __atomic_store_n(&file->stopping, 1, __ATOMIC_RELEASE);
    culvert_wake_signal(&file->wake);
    pthread_join(file->thread, NULL);
    file->running = false;
}

int event_file_reopen(struct event_file *file)
{
    int fd;

    if (!file->path)
        return 0;
    fd = open_path(file->path);
    if (fd < 0)
        return -errno;
    close_fd(__atomic_exchange_n(&file->reopened, fd, __ATOMIC_ACQ_REL));
    culvert_wake_signal(&file->wake);
    return 0;
}

struct event_file *event_file_free(struct event_file *file)
{
    if (!file)
        return NULL;
    event_file_stop(file);
    close_fd(file->fd);
    close_fd(file->reopened);
    wake_fini(&file->wake);
    free(file->path);
    free(file);
    return NULL;
}
