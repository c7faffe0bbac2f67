/* SPDX-License-Identifier: Apache-2.0 */
/* The client inside virtual machines, where every instruction is emulated: it moves much and checks
 * cheaply. serving.py has the server.
 *
 *     vm_client get ADDRESS PORT BYTES    downloads, and compares with the pattern
 *     vm_client put ADDRESS PORT BYTES    uploads the pattern; prints what the server has counted
 *
 * The pattern is a block of 65521 bytes (a prime, so that it aligns with nothing) over and over.
 * Exit status 0: every byte was right. Prints the seconds it took. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 65521u
#define CHUNK 65536u

static uint8_t pattern[BLOCK + CHUNK]; /* CHUNK bytes from any position */
static uint8_t received[CHUNK];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void fill_pattern(void)
{
    for (uint32_t i = 0; i < sizeof pattern; i++) {
        uint32_t at = i % BLOCK;
        pattern[i] = (uint8_t)(at * 7919u + (at >> 8) * 104729u);
    }
}

static int connect_to(const char *address, const char *port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = six.sin6_port};
    int is_six = inet_pton(AF_INET6, address, &six.sin6_addr);
    int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM, 0);

    if (!is_six && inet_pton(AF_INET, address, &four.sin_addr) != 1)
        fail("address");
    if (connect(fd, is_six ? (struct sockaddr *)&six : (struct sockaddr *)&four,
                is_six ? sizeof six : sizeof four) < 0)
        fail("connect");
    return fd;
}

/* Bytes of the answer's body that came with its header, moved to the front of `received`. */
static size_t skip_header(int fd)
{
    size_t have = 0;

    for (;;) {
        ssize_t n = read(fd, received + have, sizeof received - 1 - have);
        if (n <= 0)
            fail("header");
        have += (size_t)n;
        received[have] = 0;
        char *end = strstr((char *)received, "\r\n\r\n");
        if (end) {
            size_t header = (size_t)(end - (char *)received) + 4;
            memmove(received, received + header, have - header);
            return have - header;
        }
    }
}

static void get(int fd, uint64_t total)
{
    char request[64];
    uint64_t done = 0;
    ssize_t n;

    if (write(fd, request,
              (size_t)sprintf(request, "GET /%llu\r\n\r\n", (unsigned long long)total)) < 0)
        fail("request");
    for (n = (ssize_t)skip_header(fd); n >= 0; n = read(fd, received, sizeof received)) {
        if (n == 0 && done != 0)
            break;
        if (memcmp(received, pattern + done % BLOCK, (size_t)n) != 0) {
            fprintf(stderr, "wrong bytes behind %llu\n", (unsigned long long)done);
            exit(1);
        }
        done += (uint64_t)n;
    }
    if (n < 0)
        fail("read");
    if (done != total) {
        fprintf(stderr, "FIN after %llu bytes\n", (unsigned long long)done);
        exit(1);
    }
}

static void put(int fd, uint64_t total)
{
    for (uint64_t done = 0; done < total;) {
        size_t len = total - done < CHUNK ? (size_t)(total - done) : CHUNK;
        ssize_t n = write(fd, pattern + done % BLOCK, len);
        if (n < 0)
            fail("write");
        done += (uint64_t)n;
    }
    shutdown(fd, SHUT_WR);
    ssize_t n = read(fd, received, sizeof received);
    if (n <= 0)
        fail("answer");
    fwrite(received, 1, (size_t)n, stdout);
}

int main(int argc, char **argv)
{
    struct timespec begin, end;

    if (argc != 5)
        return 2;
    fill_pattern();
    clock_gettime(CLOCK_MONOTONIC, &begin);
    int fd = connect_to(argv[2], argv[3]);
    if (strcmp(argv[1], "get") == 0)
        get(fd, strtoull(argv[4], NULL, 10));
    else
        put(fd, strtoull(argv[4], NULL, 10));
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.3f\n",
           (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    return 0;
}
