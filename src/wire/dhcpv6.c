/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/dhcpv6.h"

#include <string.h>

#include "wire/reader.h"
#include "wire/writer.h"

enum dhcpv6_option {
    DHCPV6_OPTION_CLIENT_ID = 1,
    DHCPV6_OPTION_SERVER_ID = 2,
    DHCPV6_OPTION_IA_NA = 3,
    DHCPV6_OPTION_IA_ADDRESS = 5,
    DHCPV6_OPTION_STATUS = 13,
    DHCPV6_OPTION_RAPID_COMMIT = 14,
    DHCPV6_OPTION_DNS = 23,
};

/* The next option's code and a reader of its value. */
static uint16_t next_option(struct reader *r, struct reader *ret_value)
{
    uint16_t code = reader_be16(r);

    *ret_value = reader_sub(r, reader_be16(r));
    return code;
}

static void read_duid(struct reader *value, struct dhcpv6_duid *ret)
{
    if (value->left == 0 || value->left > sizeof ret->bytes) {
        reader_fail(value);
        return;
    }
    ret->len = (uint16_t)value->left;
    reader_copy(value, ret->bytes, value->left);
}

static void read_ia(struct reader *value, struct dhcpv6_ia *ret)
{
    ret->id = reader_be32(value);
    reader_skip(value, 8); /* T1 and T2: the server decides */
    while (reader_ok(value) && !reader_at_end(value)) {
        struct reader inner;

        if (next_option(value, &inner) != DHCPV6_OPTION_IA_ADDRESS ||
            ret->address_count == DHCPV6_ADDRESSES_MAX)
            continue;
        reader_copy(&inner, ret->addresses[ret->address_count++].bytes, 16);
        if (!reader_ok(&inner))
            reader_fail(value);
    }
}

static void read_option(uint16_t code, struct reader *value, struct dhcpv6_request *ret)
{
    switch (code) {
    case DHCPV6_OPTION_CLIENT_ID:
        read_duid(value, &ret->client);
        break;
    case DHCPV6_OPTION_SERVER_ID:
        read_duid(value, &ret->server);
        break;
    case DHCPV6_OPTION_RAPID_COMMIT:
        ret->rapid_commit = true;
        break;
    case DHCPV6_OPTION_IA_NA:
        if (ret->ia_count < DHCPV6_IA_MAX)
            read_ia(value, &ret->ias[ret->ia_count++]);
        break;
    default:
        break;
    }
}

bool dhcpv6_parse(const uint8_t *data, size_t len, struct dhcpv6_request *ret)
{
    struct reader r = reader_of(data, len);
    uint32_t first = reader_be32(&r);

    memset(ret, 0, sizeof *ret);
    ret->type = (uint8_t)(first >> 24);
    ret->transaction = first & 0xffffff;
    while (reader_ok(&r) && !reader_at_end(&r)) {
        struct reader value;
        uint16_t code = next_option(&r, &value);

        read_option(code, &value, ret);
        if (!reader_ok(&value))
            return false;
    }
    return reader_ok(&r);
}

static void write_option(struct writer *w, enum dhcpv6_option code, const void *value, size_t len)
{
    writer_be16(w, (uint16_t)code);
    writer_be16(w, (uint16_t)len);
    writer_bytes(w, value, len);
}

static void write_status(struct writer *w, uint16_t status)
{
    uint8_t number[2];

    if (status == DHCPV6_STATUS_NONE)
        return;
    store_be16(number, status);
    write_option(w, DHCPV6_OPTION_STATUS, number, sizeof number);
}

static void write_ia(struct writer *w, const struct dhcpv6_reply_ia *ia)
{
    size_t len = 12 + ia->lease_count * 28u + (ia->status == DHCPV6_STATUS_NONE ? 0 : 6);

    writer_be16(w, DHCPV6_OPTION_IA_NA);
    writer_be16(w, (uint16_t)len);
    writer_be32(w, ia->id);
    writer_be32(w, ia->t1);
    writer_be32(w, ia->t2);
    for (unsigned i = 0; i < ia->lease_count; i++) {
        writer_be16(w, DHCPV6_OPTION_IA_ADDRESS);
        writer_be16(w, 24);
        writer_bytes(w, ia->leases[i].address.bytes, 16);
        writer_be32(w, ia->leases[i].preferred);
        writer_be32(w, ia->leases[i].valid);
    }
    write_status(w, ia->status);
}

size_t dhcpv6_write(uint8_t to[DHCPV6_REPLY_MAX], const struct dhcpv6_reply *reply)
{
    struct writer w = writer_of(to, DHCPV6_REPLY_MAX);

    writer_be32(&w, (uint32_t)reply->type << 24 | (reply->transaction & 0xffffff));
    if (reply->client->len != 0)
        write_option(&w, DHCPV6_OPTION_CLIENT_ID, reply->client->bytes, reply->client->len);
    write_option(&w, DHCPV6_OPTION_SERVER_ID, reply->server->bytes, reply->server->len);
    if (reply->rapid_commit)
        write_option(&w, DHCPV6_OPTION_RAPID_COMMIT, NULL, 0);
    write_status(&w, reply->status);
    for (unsigned i = 0; i < reply->ia_count; i++)
        write_ia(&w, &reply->ias[i]);
    if (reply->dns)
        write_option(&w, DHCPV6_OPTION_DNS, reply->dns->bytes, 16);
    return writer_ok(&w) ? w.len : 0;
}

struct dhcpv6_duid dhcpv6_duid_of_mac(const uint8_t mac[6])
{
    struct dhcpv6_duid duid = {.len = 10, .bytes = {0, 3, 0, 1}};

    memcpy(duid.bytes + 4, mac, 6);
    return duid;
}
