/* SPDX-License-Identifier: Apache-2.0 */
/* A hello is read the same in one piece, in many, and as it trickles in. */
#include "wire/tls_hello.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PIECES 8

static void check(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls_hello whole = {.length = 0}, pieces = {.length = 0}, grown = {.length = 0};
    struct iovec iov[PIECES];
    enum flow_name_result result, early;

    iov[0] = (struct iovec){(void *)(uintptr_t)data, size};
    result = tls_hello_parse(&whole, iov, 1);
    check((result == FLOW_NAME_NAMED) == (whole.name.len != 0));
    check(strlen(whole.name.text) == whole.name.len);
    for (size_t i = 0; i < PIECES; i++)
        iov[i] = (struct iovec){(void *)(uintptr_t)(data + size * i / PIECES),
                                size * (i + 1) / PIECES - size * i / PIECES};
    check(tls_hello_parse(&pieces, iov, PIECES) == result);
    check(strcmp(pieces.name.text, whole.name.text) == 0);
    iov[0] = (struct iovec){(void *)(uintptr_t)data, 0};
    for (size_t len = 0; len <= size; len += 1 + len / 16) {
        iov[0].iov_len = len;
        early = tls_hello_parse(&grown, iov, 1);
        if (early != FLOW_NAME_NEED_MORE) {
            check(early == result || result == FLOW_NAME_MALFORMED);
            break;
        }
    }
    memset(&whole, 0, sizeof whole);
    (void)tls_hello_parse_message(&whole, data, size);
    return 0;
}
