/* SPDX-License-Identifier: Apache-2.0 */
/* A request is read the same in one piece and byte by byte. */
#include "wire/http_request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_request whole = {.scanned = 0}, grown = {.scanned = 0};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    enum flow_name_result result = http_request_parse(&whole, &iov, 1), early;

    check((result == FLOW_NAME_NAMED) == (whole.name.len != 0) || result == FLOW_NAME_NEED_MORE);
    check(strlen(whole.name.text) == whole.name.len);
    for (iov.iov_len = 0; iov.iov_len <= size; iov.iov_len++) {
        early = http_request_parse(&grown, &iov, 1);
        if (early != FLOW_NAME_NEED_MORE) {
            check(early == result);
            check(strcmp(grown.name.text, whole.name.text) == 0);
            return 0;
        }
    }
    check(result == FLOW_NAME_NEED_MORE);
    return 0;
}
