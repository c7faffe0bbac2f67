/* SPDX-License-Identifier: Apache-2.0 */
/* The first byte chooses: datagrams as they come from a client, or the payloads of Initials, which
 * no fuzzer could seal. Datagrams and payloads stand behind their lengths of two bytes. */
#include <stdlib.h>

#include "inspect/quic_hello.h"
#include "wire/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* The next datagram or payload, or what there is of it; NULL: no more. */
static const uint8_t *next_piece(struct reader *r, size_t *ret_len)
{
    size_t len = reader_be16(r);

    *ret_len = len <= r->left ? len : r->left;
    return reader_ok(r) ? reader_bytes(r, *ret_len) : NULL;
}

static void show_datagrams(struct reader *r)
{
    static struct quic_opener *opener;
    struct quic_hello hello = {.has_origin = false};
    const uint8_t *datagram;
    size_t len;

    if (!opener)
        opener = quic_opener_new();
    check(opener != NULL);
    while ((datagram = next_piece(r, &len)) != NULL) {
        struct quic_packet packet = quic_packet_read(datagram, len);

        check(packet.kind == QUIC_BROKEN ||
              (packet.length <= len && packet.pn_offset <= packet.length));
        (void)quic_hello_datagram(&hello, opener, datagram, len);
    }
    quic_hello_reset(&hello);
}

static void read_payloads(struct reader *r)
{
    struct quic_crypto *crypto = calloc(1, sizeof *crypto);
    struct tls_hello hello = {.length = 0};
    const uint8_t *payload;
    size_t len;

    check(crypto != NULL);
    while ((payload = next_piece(r, &len)) != NULL &&
           quic_initial_read_frames(payload, len, crypto) == FLOW_NAME_NEED_MORE) {
        check(crypto->contiguous <= QUIC_CRYPTO_MAX);
        (void)tls_hello_parse_message(&hello, crypto->bytes, crypto->contiguous);
    }
    free(crypto);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader r = reader_of(data, size);

    if (reader_u8(&r) & 1)
        read_payloads(&r);
    else
        show_datagrams(&r);
    return 0;
}
