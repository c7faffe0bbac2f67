/* SPDX-License-Identifier: Apache-2.0 */
/* The upstream of the DNS benchmarks: answers every question over UDP with one A record that lives
 * for an hour, as fast as a single thread can, many at a time.
 *
 *     dns-upstream -p PORT [ADDRESS]      on 127.0.0.1 unless told; prints "{}" when it is ready
 *
 * It keeps the question as it came (forwarders check its case) and leaves everything behind it out,
 * OPT too, as a server may that does not speak EDNS. What is not a question is not answered. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH       64
#define MESSAGE_MAX 1024
#define HEADER_LEN  12

static const uint8_t RECORD[] = {
    0xc0, HEADER_LEN, /* the question's name */
    0,    1,          0, 1 /* A, IN */, 0, 0, 0x0e, 0x10 /* 3600 s */, 0, 4, 93, 184, 216, 80,
};

struct batch {
    struct mmsghdr messages[BATCH];
    struct iovec iov[BATCH];
    struct sockaddr_in from[BATCH];
    uint8_t bytes[BATCH][MESSAGE_MAX];
};

static void die(const char *what)
{
    fprintf(stderr, "dns-upstream: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Where the question ends, or 0. */
static size_t question_end(const uint8_t *message, size_t len)
{
    size_t at = HEADER_LEN;

    if (len < HEADER_LEN || (message[2] & 0x80) || message[4] != 0 || message[5] != 1)
        return 0;
    while (at < len && message[at] != 0) {
        if (message[at] > 63)
            return 0;
        at += message[at] + 1u;
    }
    return at + 5 <= len ? at + 5 : 0;
}

/* The answer's length, made in place; 0: none. */
static size_t answer(uint8_t *message, size_t len)
{
    static const uint8_t counts[] = {0, 1, 0, 1, 0, 0, 0, 0};
    size_t end = question_end(message, len);

    if (end == 0 || end + sizeof RECORD > MESSAGE_MAX)
        return 0;
    message[2] = 0x84 | (message[2] & 1); /* a response, authoritative; RD as it was */
    message[3] = 0x80;
    memcpy(message + 4, counts, sizeof counts);
    memcpy(message + end, RECORD, sizeof RECORD);
    return end + sizeof RECORD;
}

static void prepare(struct batch *batch)
{
    for (int i = 0; i < BATCH; i++) {
        batch->iov[i] = (struct iovec){batch->bytes[i], MESSAGE_MAX};
        batch->messages[i].msg_hdr = (struct msghdr){.msg_name = &batch->from[i],
                                                     .msg_namelen = sizeof batch->from[i],
                                                     .msg_iov = &batch->iov[i],
                                                     .msg_iovlen = 1};
    }
}

/* Those that get an answer move to the front; how many. */
static int answer_all(struct batch *batch, int count)
{
    int answered = 0;

    for (int i = 0; i < count; i++) {
        size_t len = answer(batch->bytes[i], batch->messages[i].msg_len);

        if (len == 0)
            continue;
        batch->messages[answered].msg_hdr.msg_name = &batch->from[i];
        batch->iov[answered++] = (struct iovec){batch->bytes[i], len};
    }
    return answered;
}

static void serve(int fd)
{
    static struct batch batch;

    for (;;) {
        int count, answered, sent = 0;

        prepare(&batch);
        count = recvmmsg(fd, batch.messages, BATCH, MSG_WAITFORONE, NULL);
        if (count < 0 && errno != EINTR && errno != ECONNREFUSED)
            die("recvmmsg");
        answered = answer_all(&batch, count);
        while (sent < answered) {
            int n = sendmmsg(fd, batch.messages + sent, (unsigned)(answered - sent), 0);

            sent += n > 0 ? n : 1; /* one that cannot be sent is lost, as datagrams may be */
        }
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int room = 4 << 20;
    int fd, option;

    while ((option = getopt(argc, argv, "p:")) != -1) {
        if (option != 'p')
            return 2;
        address.sin_port = htons((uint16_t)atoi(optarg));
    }
    if (optind < argc && inet_pton(AF_INET, argv[optind], &address.sin_addr) != 1) {
        fprintf(stderr, "dns-upstream: %s is no IPv4 address\n", argv[optind]);
        return 2;
    }
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    printf("{}\n");
    fflush(stdout);
    serve(fd);
}
