/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_NAME_READER_H
#define ENGINE_NAME_READER_H

/* The name in the first bytes of a TCP flow, whichever protocol it turns out to be: TLS, else
 * HTTP. */

#include <stdbool.h>

#include "wire/http_request.h"
#include "wire/tls_hello.h"

/* All zero at first. */
struct name_reader {
    bool not_tls;
    struct tls_hello tls;
    struct http_request http;
};

/* All bytes that the guest sent so far. `*ret_name` is the reader's; for FLOW_NAME_NAMED. */
enum flow_name_result name_reader_read(struct name_reader *reader, const struct iovec *iov,
                                       size_t count, const struct flow_name **ret_name);
/* What was read last needs more, but no more will come: NOT_THIS_PROTOCOL (what might have become a
 * request was none), or MALFORMED (it is cut short). */
enum flow_name_result name_reader_end(const struct name_reader *reader);

#endif
