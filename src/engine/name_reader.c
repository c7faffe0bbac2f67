/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/name_reader.h"

enum flow_name_result name_reader_read(struct name_reader *reader, const struct iovec *iov,
                                       size_t count, const struct flow_name **ret_name)
{
    enum flow_name_result result = FLOW_NAME_NOT_THIS_PROTOCOL;

    if (!reader->not_tls) {
        result = tls_hello_parse(&reader->tls, iov, count);
        *ret_name = &reader->tls.name;
    }
    if (result == FLOW_NAME_NOT_THIS_PROTOCOL) {
        reader->not_tls = true;
        result = http_request_parse(&reader->http, iov, count);
        *ret_name = &reader->http.name;
    }
    return result;
}

enum flow_name_result name_reader_end(const struct name_reader *reader)
{
    return reader->not_tls ? http_request_end(&reader->http) : FLOW_NAME_MALFORMED;
}
