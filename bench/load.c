/* SPDX-License-Identifier: Apache-2.0 */
/* The load generator of the benchmarks: one program, server and clients, blocking sockets, 128 KiB
 * reads and writes.
 *
 *     load serve [-p PORT]           on 127.0.0.1; commands on stdin: reset, udp, tcp
 *     load tcp-up|tcp-down HOST      -p PORT -t SECONDS -s STREAMS
 *     load rr|crr HOST               -p PORT -t SECONDS -n COUNT
 *     load http HOST                 -p PORT: waits for the first byte of an answer
 *     load udp-up|udp-down HOST      -p PORT -t SECONDS -g DATAGRAMS_PER_SEND
 *     load idle HOST                 -p PORT -t SECONDS -n FLOWS: opened within that time, and held
 *                                    until a line comes on stdin
 *     load spawn -n COUNT COMMAND... wall time of COMMAND from exec to exit
 *
 * Every client prints one line of JSON. PORT is the first of a few consecutive ones, see `service`.
 * What counts is what arrived: throughput is measured by whoever receives. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define CHUNK       (128 * 1024)
#define DATAGRAM    1400
#define MAX_STREAMS 64
#define MAX_SAMPLES 1000000
#define UDP_BATCH   64

enum service {
    SERVICE_SINK,       /* TCP: reads to EOF and counts */
    SERVICE_SOURCE,     /* TCP: writes until the peer goes */
    SERVICE_ECHO,       /* TCP: a byte for a byte */
    SERVICE_ECHO_ONCE,  /* the same for short connections, served one after the other */
    SERVICE_HOLD,       /* TCP: accepts, and nothing more */
    SERVICE_HTTP,       /* TCP: answers a request */
    SERVICE_UDP_SINK,   /* UDP: counts */
    SERVICE_UDP_SOURCE, /* UDP: floods whoever asks with struct flood */
    SERVICE_COUNT
};

/* What a receiver saw. */
struct received {
    uint64_t bytes, datagrams, first_ns, last_ns;
};

struct flood {
    uint32_t ms, per_send;
};

struct options {
    const char *host;
    uint16_t port;
    double seconds;
    unsigned streams, count, per_send;
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_in address_of(const char *host, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die(host);
    return address;
}

static void set_int(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

static void set_timeout(int fd, int which, double seconds)
{
    struct timeval timeout = {(time_t)seconds,
                              (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
    setsockopt(fd, SOL_SOCKET, which, &timeout, sizeof timeout);
}

static int connected(const struct options *o, enum service service, int type)
{
    struct sockaddr_in address = address_of(o->host, (uint16_t)(o->port + service));
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        set_timeout(fd, SO_SNDTIMEO, 5); /* bounds connect() too */
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int saved = errno;
        if (fd >= 0)
            close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int must_connect(const struct options *o, enum service service, int type)
{
    int fd = connected(o, service, type);
    if (fd < 0)
        die("connect");
    return fd;
}

static void count_arrival(struct received *got, uint64_t bytes, uint64_t datagrams)
{
    got->last_ns = now_ns();
    if (got->bytes == 0)
        got->first_ns = got->last_ns;
    got->bytes += bytes;
    got->datagrams += datagrams;
}

/* Reads to the end, or until `deadline`. */
static void read_all(int fd, uint64_t deadline, struct received *got)
{
    char *buffer = malloc(CHUNK);
    ssize_t n;
    while ((n = read(fd, buffer, CHUNK)) > 0) {
        count_arrival(got, (uint64_t)n, 0);
        if (got->last_ns >= deadline)
            break;
    }
    free(buffer);
}

static void write_until(int fd, uint64_t deadline)
{
    char *buffer = calloc(1, CHUNK);
    while (write(fd, buffer, CHUNK) > 0 && now_ns() < deadline)
        ;
    free(buffer);
}

/* ---- server */

struct connection {
    int fd;
    enum service service;
};

/* What the latest TCP sinks received; those from `first` on belong to the present measurement. */
#define SINK_RECORDS 4096
static struct {
    struct received records[SINK_RECORDS];
    unsigned first, next;
} sinks;

static void echo(int fd)
{
    char byte;
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
        ;
}

static void answer_request(int fd)
{
    static const char answer[] = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    char request[4096];
    size_t have = 0;
    ssize_t n;
    set_timeout(fd, SO_RCVTIMEO, 5);
    while ((n = read(fd, request + have, sizeof request - 1 - have)) > 0) {
        have += (size_t)n;
        request[have] = 0;
        if (strstr(request, "\r\n\r\n")) {
            (void)!write(fd, answer, sizeof answer - 1);
            return;
        }
    }
}

static void *serve_connection(void *arg)
{
    struct connection connection = *(struct connection *)arg;
    free(arg);
    if (connection.service == SERVICE_SINK) {
        unsigned record = __atomic_fetch_add(&sinks.next, 1, __ATOMIC_RELAXED) % SINK_RECORDS;
        sinks.records[record] = (struct received){0};
        read_all(connection.fd, UINT64_MAX, &sinks.records[record]);
    } else if (connection.service == SERVICE_SOURCE) {
        write_until(connection.fd, UINT64_MAX);
    } else if (connection.service == SERVICE_HTTP) {
        answer_request(connection.fd);
    } else {
        echo(connection.fd);
    }
    close(connection.fd);
    return NULL;
}

static void start_thread(void *(*run)(void *), void *arg)
{
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 * 1024);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    errno = pthread_create(&thread, &attr, run, arg);
    if (errno)
        die("thread");
    pthread_attr_destroy(&attr);
}

/* Held connections are closed once the peer has gone: looked for now and then. */
static void *close_gone(void *arg)
{
    int *held = arg;
    for (;; sleep(1)) {
        for (int fd = 0; fd < 65536; fd++) {
            char byte;
            if (__atomic_load_n(&held[fd], __ATOMIC_ACQUIRE) &&
                recv(fd, &byte, 1, MSG_DONTWAIT) == 0) {
                __atomic_store_n(&held[fd], 0, __ATOMIC_RELEASE);
                close(fd);
            }
        }
    }
    return NULL;
}

static void *accept_loop(void *arg)
{
    struct connection *listener = arg;
    int *held = NULL;
    if (listener->service == SERVICE_HOLD) {
        held = calloc(65536, sizeof *held);
        start_thread(close_gone, held);
    }
    for (;;) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            usleep(1000);
        } else if (listener->service == SERVICE_ECHO_ONCE) {
            set_timeout(fd, SO_RCVTIMEO, 1);
            echo(fd);
            close(fd);
        } else if (held) {
            __atomic_store_n(&held[fd], 1, __ATOMIC_RELEASE);
        } else {
            struct connection *connection = malloc(sizeof *connection);
            *connection = (struct connection){fd, listener->service};
            start_thread(serve_connection, connection);
        }
    }
    return NULL;
}

/* Unpaced; `per_send` datagrams in each call (UDP_SEGMENT) if more than one. */
static void flood(int fd, uint64_t deadline, unsigned per_send)
{
    static const char payload[DATAGRAM * UDP_BATCH];
    set_int(fd, IPPROTO_UDP, UDP_SEGMENT, per_send > 1 ? DATAGRAM : 0);
    while (now_ns() < deadline) {
        for (int i = 0; i < 16; i++)
            (void)!write(fd, payload, (size_t)DATAGRAM * per_send);
    }
}

static void *udp_source_loop(void *arg)
{
    int fd = *(int *)arg;
    for (;;) {
        struct flood order;
        struct sockaddr_in peer;
        socklen_t len = sizeof peer;
        if (recvfrom(fd, &order, sizeof order, 0, (struct sockaddr *)&peer, &len) !=
            (ssize_t)sizeof order)
            continue;
        if (order.per_send < 1 || order.per_send > UDP_BATCH ||
            connect(fd, (struct sockaddr *)&peer, sizeof peer) < 0)
            continue;
        flood(fd, now_ns() + (uint64_t)order.ms * 1000000, order.per_send);
        connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr));
        /* what was asked meanwhile is the same question repeated */
        while (recv(fd, &order, sizeof order, MSG_DONTWAIT) > 0)
            ;
    }
    return NULL;
}

struct batch {
    struct mmsghdr messages[UDP_BATCH];
    struct iovec iov[UDP_BATCH];
    char bytes[UDP_BATCH][2048];
};

static struct batch *batch_new(void)
{
    struct batch *batch = calloc(1, sizeof *batch);
    for (int i = 0; i < UDP_BATCH; i++) {
        batch->iov[i] = (struct iovec){batch->bytes[i], sizeof batch->bytes[i]};
        batch->messages[i].msg_hdr.msg_iov = &batch->iov[i];
        batch->messages[i].msg_hdr.msg_iovlen = 1;
    }
    return batch;
}

/* One batch; false at the socket's timeout. Datagrams of another length are not ours. */
static bool receive_batch(int fd, struct batch *batch, struct received *got)
{
    int n = recvmmsg(fd, batch->messages, UDP_BATCH, MSG_WAITFORONE, NULL);
    uint64_t datagrams = 0;
    for (int i = 0; i < n; i++)
        datagrams += batch->messages[i].msg_len == DATAGRAM;
    if (datagrams)
        count_arrival(got, datagrams * DATAGRAM, datagrams);
    return n > 0;
}

struct udp_sink {
    int fd;
    pthread_mutex_t lock;
    struct received got;
};

static void *udp_sink_loop(void *arg)
{
    struct udp_sink *sink = arg;
    struct batch *batch = batch_new();
    for (;;) {
        struct received got = {0};
        receive_batch(sink->fd, batch, &got);
        pthread_mutex_lock(&sink->lock);
        if (sink->got.datagrams == 0)
            sink->got.first_ns = got.first_ns;
        if (got.datagrams)
            sink->got.last_ns = got.last_ns;
        sink->got.datagrams += got.datagrams;
        sink->got.bytes += got.bytes;
        pthread_mutex_unlock(&sink->lock);
    }
    return NULL;
}

static int bound(const struct options *o, enum service service, int type)
{
    struct sockaddr_in address = address_of(o->host, (uint16_t)(o->port + service));
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    if (type == SOCK_STREAM && listen(fd, 4096) < 0)
        die("listen");
    return fd;
}

static void large_receive_buffer(int fd)
{
    set_int(fd, SOL_SOCKET, SO_RCVBUF, 4 << 20);
    set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20);
}

static void print_datagrams(const struct received *got)
{
    uint64_t ns = got->last_ns - got->first_ns;
    printf("{\"datagrams\": %llu, \"per_second\": %.0f}\n", (unsigned long long)got->datagrams,
           ns ? (double)got->datagrams * 1e9 / (double)ns : 0.0);
    fflush(stdout);
}

static void print_stream(const struct received *got, bool first)
{
    printf("%s[%llu, %llu]", first ? "" : ", ", (unsigned long long)got->bytes,
           (unsigned long long)(got->last_ns - got->first_ns));
}

static void print_sinks(void)
{
    unsigned next = __atomic_load_n(&sinks.next, __ATOMIC_RELAXED);
    printf("{\"streams\": [");
    for (unsigned i = sinks.first; i != next; i++)
        print_stream(&sinks.records[i % SINK_RECORDS], i == sinks.first);
    printf("]}\n");
    fflush(stdout);
}

static int serve(const struct options *o)
{
    static struct connection listeners[SERVICE_UDP_SINK];
    static struct udp_sink sink = {.lock = PTHREAD_MUTEX_INITIALIZER};
    static int source;
    for (enum service s = SERVICE_SINK; s < SERVICE_UDP_SINK; s++) {
        listeners[s] = (struct connection){bound(o, s, SOCK_STREAM), s};
        start_thread(accept_loop, &listeners[s]);
    }
    sink.fd = bound(o, SERVICE_UDP_SINK, SOCK_DGRAM);
    large_receive_buffer(sink.fd);
    start_thread(udp_sink_loop, &sink);
    source = bound(o, SERVICE_UDP_SOURCE, SOCK_DGRAM);
    start_thread(udp_source_loop, &source);
    printf("{\"ready\": true}\n");
    fflush(stdout);

    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        pthread_mutex_lock(&sink.lock);
        struct received got = sink.got;
        if (strcmp(line, "reset\n") == 0) {
            sink.got = (struct received){0};
            sinks.first = __atomic_load_n(&sinks.next, __ATOMIC_RELAXED);
        }
        pthread_mutex_unlock(&sink.lock);
        if (strcmp(line, "tcp\n") == 0)
            print_sinks();
        else
            print_datagrams(&got);
    }
    return 0;
}

/* ---- TCP throughput */

struct stream {
    const struct options *options;
    bool up;
    pthread_barrier_t *start;
    struct received got;
};

/* The sink closes when it has read everything. What has not arrived a second after the end is given
 * up, by a RST, so that it does not disturb whoever is measured next. */
static void send_stream(int fd, double seconds)
{
    char byte;
    set_timeout(fd, SO_SNDTIMEO, seconds);
    write_until(fd, now_ns() + (uint64_t)(seconds * 1e9));
    shutdown(fd, SHUT_WR);
    set_timeout(fd, SO_RCVTIMEO, 1);
    if (read(fd, &byte, 1) < 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
                   sizeof(struct linger));
}

static void *run_stream(void *arg)
{
    struct stream *stream = arg;
    double seconds = stream->options->seconds;
    int fd = must_connect(stream->options, stream->up ? SERVICE_SINK : SERVICE_SOURCE, SOCK_STREAM);
    pthread_barrier_wait(stream->start);
    if (stream->up) {
        send_stream(fd, seconds);
    } else {
        set_timeout(fd, SO_RCVTIMEO, seconds);
        read_all(fd, now_ns() + (uint64_t)(seconds * 1e9), &stream->got);
    }
    close(fd);
    return NULL;
}

static int tcp(const struct options *o, bool up)
{
    static struct stream streams[MAX_STREAMS];
    pthread_t threads[MAX_STREAMS];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, o->streams);
    for (unsigned i = 0; i < o->streams; i++) {
        streams[i] = (struct stream){.options = o, .up = up, .start = &start};
        if (pthread_create(&threads[i], NULL, run_stream, &streams[i]) != 0)
            die("thread");
    }
    for (unsigned i = 0; i < o->streams; i++)
        pthread_join(threads[i], NULL);
    printf("{\"streams\": [");
    for (unsigned i = 0; !up && i < o->streams; i++)
        print_stream(&streams[i].got, i == 0);
    printf("]}\n");
    return 0;
}

/* ---- latency */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_latencies(double *us, size_t n)
{
    if (n == 0) {
        errno = ENODATA;
        die("no exchange completed");
    }
    qsort(us, n, sizeof *us, by_value);
    printf("{\"median_us\": %.2f, \"p99_us\": %.2f, \"count\": %zu}\n", us[n / 2], us[n * 99 / 100],
           n);
}

static bool exchange(int fd)
{
    char byte = 'x';
    return write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1;
}

/* Until `seconds` have passed or `count` samples are there; `fd` -1: a connection for each. */
static int latencies(const struct options *o, int fd)
{
    double *us = malloc(MAX_SAMPLES * sizeof *us);
    size_t limit = o->count && o->count < MAX_SAMPLES ? o->count : MAX_SAMPLES, n = 0;
    uint64_t end = now_ns() + (uint64_t)(o->seconds * 1e9);
    for (uint64_t start; n < limit && (start = now_ns()) < end; n++) {
        int s = fd >= 0 ? fd : must_connect(o, SERVICE_ECHO_ONCE, SOCK_STREAM);
        if (!exchange(s))
            die("exchange");
        us[n] = (double)(now_ns() - start) / 1e3;
        if (fd < 0)
            close(s);
    }
    print_latencies(us, n);
    free(us);
    return 0;
}

static int rr(const struct options *o)
{
    int fd = must_connect(o, SERVICE_ECHO, SOCK_STREAM);
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    exchange(fd);
    return latencies(o, fd);
}

static int http(const struct options *o)
{
    static const char request[] = "GET / HTTP/1.0\r\n\r\n";
    char byte;
    int fd = must_connect(o, SERVICE_HTTP, SOCK_STREAM);
    if (write(fd, request, sizeof request - 1) < 0 || read(fd, &byte, 1) != 1)
        die("request");
    printf("{\"answered\": true}\n");
    return 0;
}

/* ---- UDP */

static int udp_up(const struct options *o)
{
    int fd = must_connect(o, SERVICE_UDP_SINK, SOCK_DGRAM);
    flood(fd, now_ns() + (uint64_t)(o->seconds * 1e9), o->per_send);
    close(fd);
    printf("{\"sent\": true}\n");
    return 0;
}

static int udp_down(const struct options *o)
{
    int fd = must_connect(o, SERVICE_UDP_SOURCE, SOCK_DGRAM);
    struct flood order = {(uint32_t)(o->seconds * 1e3), o->per_send};
    struct received got = {0};
    struct batch *batch = batch_new();
    large_receive_buffer(fd);
    set_timeout(fd, SO_RCVTIMEO, 0.3);
    for (int tries = 0; tries < 10 && got.datagrams == 0; tries++) {
        if (write(fd, &order, sizeof order) < 0)
            die("request");
        while (receive_batch(fd, batch, &got))
            ;
    }
    print_datagrams(&got);
    free(batch);
    close(fd);
    return 0;
}

/* ---- idle flows, and starting a command */

static int idle(const struct options *o)
{
    unsigned open = 0;
    uint64_t deadline = now_ns() + (uint64_t)(o->seconds * 1e9);
    while (open < o->count && now_ns() < deadline && connected(o, SERVICE_HOLD, SOCK_STREAM) >= 0)
        open++;
    printf("{\"flows\": %u}\n", open);
    fflush(stdout);
    char line[8];
    return fgets(line, sizeof line, stdin) ? 0 : 1;
}

static int spawn(const struct options *o, char **command)
{
    extern char **environ;
    double *us = malloc(MAX_SAMPLES * sizeof *us);
    unsigned n = o->count ? o->count : 10;
    for (unsigned i = 0; i < n; i++) {
        uint64_t start = now_ns();
        pid_t pid;
        int status = 0;
        errno = posix_spawnp(&pid, command[0], NULL, NULL, command, environ);
        if (errno || waitpid(pid, &status, 0) != pid)
            die(command[0]);
        us[i] = (double)(now_ns() - start) / 1e3;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fprintf(stderr, "load: %s failed with wait status %d\n", command[0], status);
            return 1;
        }
    }
    print_latencies(us, n);
    free(us);
    return 0;
}

/* ---- the command line */

static void usage(void)
{
    fprintf(stderr, "usage: load serve|tcp-up|tcp-down|rr|crr|http|udp-up|udp-down|idle|spawn "
                    "[-p PORT] [-t SECONDS] [-s STREAMS] [-n COUNT] [-g PER_SEND] "
                    "[HOST | COMMAND...]\n");
    exit(2);
}

static struct options parse(int argc, char **argv)
{
    struct options o = {
        .host = "127.0.0.1", .port = 27100, .seconds = 2, .streams = 1, .per_send = 1};
    for (int c; (c = getopt(argc, argv, "+p:t:s:n:g:")) != -1;) {
        switch (c) {
        case 'p':
            o.port = (uint16_t)atoi(optarg);
            break;
        case 't':
            o.seconds = atof(optarg);
            break;
        case 's':
            o.streams = (unsigned)atoi(optarg);
            break;
        case 'n':
            o.count = (unsigned)atoi(optarg);
            break;
        case 'g':
            o.per_send = (unsigned)atoi(optarg);
            break;
        default:
            usage();
        }
    }
    if (o.streams < 1 || o.streams > MAX_STREAMS || o.per_send < 1 || o.per_send > UDP_BATCH ||
        o.count > MAX_SAMPLES)
        usage();
    return o;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        usage();
    const char *what = argv[1];
    struct options o = parse(argc - 1, argv + 1);
    char **rest = argv + 1 + optind;
    if (strcmp(what, "spawn") == 0)
        return *rest ? spawn(&o, rest) : (usage(), 2);
    if (*rest)
        o.host = *rest;
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    if (strcmp(what, "serve") == 0)
        return serve(&o);
    if (strcmp(what, "tcp-up") == 0 || strcmp(what, "tcp-down") == 0)
        return tcp(&o, strcmp(what, "tcp-up") == 0);
    if (strcmp(what, "rr") == 0)
        return rr(&o);
    if (strcmp(what, "crr") == 0)
        return latencies(&o, -1);
    if (strcmp(what, "http") == 0)
        return http(&o);
    if (strcmp(what, "udp-up") == 0)
        return udp_up(&o);
    if (strcmp(what, "udp-down") == 0)
        return udp_down(&o);
    if (strcmp(what, "idle") == 0)
        return idle(&o);
    usage();
}
