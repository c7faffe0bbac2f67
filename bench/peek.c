/* SPDX-License-Identifier: Apache-2.0 */
/* Would it pay to receive a download straight into the guest's buffers?
 *
 *     bench-peek [SECONDS]
 *
 * What a download's bytes go through now: recv() into memory of ours, where they wait for the
 * guest's ACK, and a copy from there into the guest's buffers. The alternative leaves the kernel to
 * keep them: recv(MSG_PEEK) behind what was peeked already (SO_PEEK_OFF, for TCP since Linux 6.9)
 * into the guest's buffers, and recv(MSG_TRUNC) to discard what the guest has acknowledged.
 *
 * Both read the same flood over loopback, in pieces of 64 KiB, with a given number of bytes under
 * way to the guest. Printed are throughput, and the reader's CPU time for a GiB. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE 65536u
#define KEPT  (1u << 20) /* unacknowledged bytes, at most */
#define RING  (2u << 20) /* the guest's buffers */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *flood(void *arg)
{
    const int fd = *(int *)arg;
    char *bytes = calloc(1, 2 * PIECE);

    while (bytes && send(fd, bytes, 2 * PIECE, MSG_NOSIGNAL) > 0)
        ;
    free(bytes);
    return NULL;
}

static void connect_pair(int ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(listener, (struct sockaddr *)&address, len) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) < 0)
        die("listen");
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(ends[0], (struct sockaddr *)&address, len) < 0)
        die("connect");
    ends[1] = accept(listener, NULL, NULL);
    close(listener);
}

static uint8_t *kept, *guest;
static size_t total; /* received */

/* Room for a piece. Memory is used again as soon as it may be, while it is in the cache. */
static void *place(uint8_t *memory, size_t size)
{
    return memory + total % size;
}

/* One piece; bytes of it. */
static size_t receive_and_copy(int fd, size_t under_way)
{
    ssize_t n = recv(fd, place(kept, under_way), PIECE, 0);

    if (n <= 0)
        die("recv");
    memcpy(place(guest, RING), place(kept, under_way), (size_t)n);
    return (size_t)n;
}

static size_t peeked; /* and not discarded */

/* The guest has acknowledged this much. */
static void discard(int fd, size_t n)
{
    ssize_t gone = recv(fd, NULL, n, MSG_TRUNC);

    if (gone <= 0)
        die("recv(MSG_TRUNC)");
    peeked -= (size_t)gone;
}

/* What is under way fills the kernel's own buffer: when that is full, nothing comes until the guest
 * has acknowledged something, whatever its window holds. */
static size_t peek_and_discard(int fd, size_t under_way)
{
    ssize_t n;

    while ((n = recv(fd, place(guest, RING), PIECE, MSG_PEEK | (peeked > 0 ? MSG_DONTWAIT : 0))) <
               0 &&
           errno == EAGAIN)
        discard(fd, (peeked + 1) / 2);
    if (n <= 0)
        die("recv(MSG_PEEK)");
    peeked += (size_t)n;
    if (peeked > under_way)
        discard(fd, peeked - under_way / 2);
    return (size_t)n;
}

static void measure(const char *name, size_t (*step)(int, size_t), bool peek, size_t under_way,
                    double seconds)
{
    const int from = 0;
    pthread_t sender;
    uint64_t begun, cpu, ns;
    int ends[2];

    connect_pair(ends);
    total = peeked = 0;
    if (peek && setsockopt(ends[1], SOL_SOCKET, SO_PEEK_OFF, &from, sizeof from) < 0)
        die("SO_PEEK_OFF");
    if (pthread_create(&sender, NULL, flood, &ends[0]) != 0)
        die("thread");
    begun = clock_ns(CLOCK_MONOTONIC);
    cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    do {
        total += step(ends[1], under_way);
        ns = clock_ns(CLOCK_MONOTONIC) - begun;
    } while ((double)ns < seconds * 1e9);
    cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    printf("%-17s %5zu KiB under way: %5.1f Gbit/s, %.3f CPU s/GiB\n", name, under_way / 1024,
           (double)total * 8 / (double)ns, (double)cpu / 1e9 / ((double)total / (1 << 30)));
    close(ends[1]);
    pthread_join(sender, NULL);
    close(ends[0]);
}

int main(int argc, char **argv)
{
    static const size_t under_way[] = {64 << 10, 256 << 10, 1 << 20};
    const double seconds = argc > 1 ? atof(argv[1]) : 1;

    setvbuf(stdout, NULL, _IOLBF, 0);
    kept = calloc(1, KEPT + PIECE);
    guest = calloc(1, RING + PIECE);
    if (!kept || !guest)
        die("memory");
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 3; i++) {
            measure("receive and copy", receive_and_copy, false, under_way[i], seconds);
            measure("peek and discard", peek_and_discard, true, under_way[i], seconds);
        }
    }
    free(kept);
    free(guest);
    return 0;
}
