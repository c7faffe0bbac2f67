/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/dhcp.h"

#include <string.h>

#include "wire/reader.h"
#include "wire/writer.h"

#define BOOTP_REQUEST   1
#define BOOTP_REPLY     2
#define BOOTP_ETHERNET  1
#define BOOTP_BROADCAST 0x8000
#define BOOTP_MIN_LEN   300u /* some clients refuse less (RFC 1542 2.1) */
#define DHCP_COOKIE     0x63825363u

enum dhcp_option {
    DHCP_OPTION_PAD = 0,
    DHCP_OPTION_MASK = 1,
    DHCP_OPTION_ROUTER = 3,
    DHCP_OPTION_DNS = 6,
    DHCP_OPTION_HOSTNAME = 12,
    DHCP_OPTION_MTU = 26,
    DHCP_OPTION_BROADCAST = 28,
    DHCP_OPTION_REQUESTED = 50,
    DHCP_OPTION_LEASE = 51,
    DHCP_OPTION_TYPE = 53,
    DHCP_OPTION_SERVER = 54,
    DHCP_OPTION_CLIENT_ID = 61,
    DHCP_OPTION_END = 255,
};

static uint32_t read_address(struct reader *r)
{
    uint32_t be = 0;

    reader_copy(r, &be, sizeof be);
    return be;
}

static void read_option(uint8_t code, struct reader *value, struct dhcp_request *ret)
{
    switch (code) {
    case DHCP_OPTION_TYPE:
        ret->type = reader_u8(value);
        break;
    case DHCP_OPTION_REQUESTED:
        ret->be_requested = read_address(value);
        break;
    case DHCP_OPTION_SERVER:
        ret->be_server = read_address(value);
        break;
    case DHCP_OPTION_CLIENT_ID:
        ret->client_id_len = (uint8_t)value->left;
        reader_copy(value, ret->client_id, value->left);
        break;
    default:
        break;
    }
}

/* False if an option overruns the message or is shorter than its meaning. */
static bool read_options(struct reader *r, struct dhcp_request *ret)
{
    while (!reader_at_end(r)) {
        uint8_t code = reader_u8(r);
        struct reader value;

        if (code == DHCP_OPTION_PAD)
            continue;
        if (code == DHCP_OPTION_END)
            return true;
        value = reader_sub(r, reader_u8(r));
        read_option(code, &value, ret);
        if (!reader_ok(r) || !reader_ok(&value))
            return false;
    }
    return true; /* the end option missing: forgiven */
}

bool dhcp_parse(const uint8_t *data, size_t len, struct dhcp_request *ret)
{
    struct reader r = reader_of(data, len);
    struct dhcp_request parsed = {0};

    if (reader_u8(&r) != BOOTP_REQUEST || reader_u8(&r) != BOOTP_ETHERNET || reader_u8(&r) != 6)
        return false;
    reader_skip(&r, 1); /* hops */
    parsed.transaction = reader_be32(&r);
    reader_skip(&r, 2); /* seconds */
    parsed.broadcast = reader_be16(&r) & BOOTP_BROADCAST;
    parsed.be_client = read_address(&r);
    reader_skip(&r, 8); /* yiaddr, siaddr */
    parsed.be_relay = read_address(&r);
    reader_copy(&r, parsed.mac, 6);
    reader_skip(&r, 10 + 64 + 128); /* the rest of chaddr, sname, file */
    if (reader_be32(&r) != DHCP_COOKIE || !read_options(&r, &parsed) || !reader_ok(&r))
        return false;
    *ret = parsed;
    return true;
}

static void write_option(struct writer *w, enum dhcp_option code, const void *value, size_t len)
{
    writer_u8(w, (uint8_t)code);
    writer_u8(w, (uint8_t)len);
    writer_bytes(w, value, len);
}

static void write_address(struct writer *w, enum dhcp_option code, uint32_t be_address)
{
    if (be_address != 0)
        write_option(w, code, &be_address, sizeof be_address);
}

static void write_fixed(struct writer *w, const struct dhcp_reply *reply)
{
    writer_u8(w, BOOTP_REPLY);
    writer_u8(w, BOOTP_ETHERNET);
    writer_u8(w, 6);
    writer_u8(w, 0);
    writer_be32(w, reply->transaction);
    writer_be16(w, 0);
    writer_be16(w, reply->broadcast ? BOOTP_BROADCAST : 0);
    writer_bytes(w, &reply->be_client, 4);
    writer_bytes(w, &reply->be_yours, 4);
    writer_zeros(w, 8); /* siaddr: there is nothing to boot from; giaddr */
    writer_bytes(w, reply->mac, 6);
    writer_zeros(w, 10 + 64 + 128);
    writer_be32(w, DHCP_COOKIE);
}

static void write_facts(struct writer *w, const struct dhcp_reply *reply)
{
    uint8_t number[4];
    size_t hostname_len = strnlen(reply->hostname ? reply->hostname : "", 63);

    if (reply->lease != 0) {
        store_be32(number, reply->lease);
        write_option(w, DHCP_OPTION_LEASE, number, 4);
    }
    write_address(w, DHCP_OPTION_MASK, reply->be_mask);
    write_address(w, DHCP_OPTION_ROUTER, reply->be_router);
    write_address(w, DHCP_OPTION_DNS, reply->be_dns);
    write_address(w, DHCP_OPTION_BROADCAST, reply->be_broadcast);
    store_be16(number, reply->mtu);
    write_option(w, DHCP_OPTION_MTU, number, 2);
    if (hostname_len != 0)
        write_option(w, DHCP_OPTION_HOSTNAME, reply->hostname, hostname_len);
}

size_t dhcp_write(uint8_t to[DHCP_REPLY_MAX], const struct dhcp_reply *reply)
{
    struct writer w = writer_of(to, DHCP_REPLY_MAX);

    write_fixed(&w, reply);
    write_option(&w, DHCP_OPTION_TYPE, &reply->type, 1);
    write_address(&w, DHCP_OPTION_SERVER, reply->be_server);
    if (reply->type != DHCP_NAK)
        write_facts(&w, reply);
    /* Last of all, and only as long as it leaves room: 240 + 59 + 65 bytes are taken at most. */
    if (reply->client_id_len != 0 && w.capacity - w.len >= reply->client_id_len + 3u)
        write_option(&w, DHCP_OPTION_CLIENT_ID, reply->client_id, reply->client_id_len);
    writer_u8(&w, DHCP_OPTION_END);
    if (w.len < BOOTP_MIN_LEN)
        writer_zeros(&w, BOOTP_MIN_LEN - w.len);
    return w.len;
}
