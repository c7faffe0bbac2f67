/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel tells nobody when a socket begins to listen; its tables must be read again and again.
 * A line of theirs is, in hexadecimal,
 *
 *     sl: LOCAL:PORT REMOTE:PORT STATE …
 *
 * where an address is one 32-bit word or four, each as the machine stores it. */

#include "cli/listeners.h"

#include <string.h>

#define STATE_LISTEN  0x0a /* of TCP */
#define STATE_UNBOUND 0x07 /* of UDP: connected to nobody */

/* net.ipv4.ip_local_port_range of a new namespace. A service on such a port cannot be told from a
 * client. */
#define CLIENT_PORT_FIRST 32768
#define CLIENT_PORT_LAST  60999

struct line {
    struct ip_address local;
    unsigned port, state;
};

/* "0100007F" or four times as much. */
static bool address_parse(const char *text, struct ip_address *ret)
{
    uint32_t words[4];
    size_t len = strlen(text);

    if (len != 8 && len != 32)
        return false;
    for (size_t i = 0; i < len / 8; i++)
        if (sscanf(text + 8 * i, "%8x", &words[i]) != 1)
            return false;
    *ret = len == 8 ? ip_address_v4(words[0]) : ip_address_v6(words);
    return true;
}

static bool line_parse(const char *text, struct line *ret)
{
    char local[33];

    return sscanf(text, " %*u: %32[0-9A-Fa-f]:%x %*s %x", local, &ret->port, &ret->state) == 3 &&
           ret->port > 0 && ret->port <= UINT16_MAX && address_parse(local, &ret->local);
}

static bool is_unspecified(const struct ip_address *address)
{
    return address->be64[0] == 0 && address->be32[3] == 0 &&
           (address->be32[2] == 0 || ip_address_is_v4(address));
}

static bool is_service(const struct line *line, uint8_t protocol, const struct ip_address guests[2])
{
    if (line->state != (protocol == IPPROTO_UDP ? STATE_UNBOUND : STATE_LISTEN))
        return false;
    if (protocol == IPPROTO_UDP && line->port >= CLIENT_PORT_FIRST &&
        line->port <= CLIENT_PORT_LAST)
        return false;
    return is_unspecified(&line->local) || ip_address_equal(&line->local, &guests[0]) ||
           ip_address_equal(&line->local, &guests[1]);
}

static void append(struct ingress_listener *ret, size_t *count, uint8_t protocol, uint16_t port)
{
    for (size_t i = 0; i < *count; i++)
        if (ret[i].protocol == protocol && ret[i].port == port)
            return;
    if (*count < INGRESS_LISTENERS_MAX)
        ret[(*count)++] = (struct ingress_listener){protocol, port};
}

void listeners_scan(FILE *table, uint8_t protocol, const struct ip_address guests[2],
                    struct ingress_listener *ret, size_t *count)
{
    char text[512];
    struct line line;

    while (fgets(text, sizeof text, table))
        if (line_parse(text, &line) && is_service(&line, protocol, guests))
            append(ret, count, protocol, (uint16_t)line.port);
}

size_t listeners_of(pid_t pid, const struct culvert_config *config, struct ingress_listener *ret)
{
    static const struct {
        const char *name;
        uint8_t protocol;
    } tables[] = {
        {"tcp", IPPROTO_TCP}, {"tcp6", IPPROTO_TCP}, {"udp", IPPROTO_UDP}, {"udp6", IPPROTO_UDP}};
    const struct ip_address guests[2] = {config->ipv4.guest, config->ipv6.guest};
    size_t count = 0;

    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        char path[64];
        FILE *table;

        snprintf(path, sizeof path, "/proc/%d/net/%s", (int)pid, tables[i].name);
        table = fopen(path, "re");
        if (!table)
            continue;
        listeners_scan(table, tables[i].protocol, guests, ret, &count);
        fclose(table);
    }
    return count;
}
