/* SPDX-License-Identifier: Apache-2.0 */
/* The text of --publish. It is taken apart from both ends: "/PROTO" and an address go first, two
 * ranges of ports remain. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "relay/publish.h"

#define fault(...) (snprintf(message, size, __VA_ARGS__), -EINVAL)
#define TEXT_MAX   128

static const char example[] = "write it as in 8080:80, 127.0.0.1:8080-8089:80-89/tcp or "
                              "[::1]:5353:53/udp";

struct port_range {
    uint16_t first, last;
};

/* Digits from 1 to 65535, up to `end`; moves *text behind them. 0: none such. */
static uint16_t take_port(const char **text)
{
    uint32_t port = 0;

    while (**text >= '0' && **text <= '9' && port <= UINT16_MAX)
        port = port * 10 + (uint32_t)(*(*text)++ - '0');
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* "N" or "N-M", and nothing behind. */
static bool range_parse(const char *text, struct port_range *ret)
{
    ret->first = ret->last = take_port(&text);
    if (*text == '-') {
        text++;
        ret->last = take_port(&text);
    }
    return *text == '\0' && ret->first != 0 && ret->last >= ret->first;
}

/* Cuts "/tcp" or "/udp" off the end. */
static int take_protocol(char *text, uint8_t *ret, char *message, size_t size)
{
    char *slash = strchr(text, '/');

    *ret = IPPROTO_TCP;
    if (!slash)
        return 0;
    if (strcmp(slash, "/udp") == 0)
        *ret = IPPROTO_UDP;
    else if (strcmp(slash, "/tcp") != 0)
        return fault("the protocol behind the slash must be tcp or udp");
    *slash = '\0';
    return 0;
}

/* Finds the address in front of the ports: *ret_end is where it ends, *ret_rest where they begin.
 * False: there is none. */
static bool find_address(char *text, char **ret_end, char **ret_rest)
{
    char *colon;

    if (text[0] == '[') {
        *ret_end = strstr(text, "]:");
        *ret_rest = *ret_end ? *ret_end + 2 : NULL;
        return true;
    }
    colon = strchr(text, ':');
    if (!colon || !strchr(colon + 1, ':'))
        return false;
    *ret_end = colon;
    *ret_rest = colon + 1;
    return true;
}

/* Moves *text behind "ADDR:" or "[ADDR]:", if it begins so. */
static int take_address(char **text, struct ip_address *ret, char *message, size_t size)
{
    const bool bracketed = (*text)[0] == '[';
    char *address = *text + bracketed, *end, *rest;

    *ret = ip_address_v4(htonl(INADDR_LOOPBACK));
    if (!find_address(*text, &end, &rest))
        return 0;
    if (!end)
        return fault("the ']:' behind the IPv6 address is missing; %s", example);
    if (!bracketed && strchr(strchr(rest, ':') + 1, ':'))
        return fault("an IPv6 address must stand in brackets; %s", example);
    *end = '\0';
    if (!ip_address_parse(address, ret) || ip_address_is_v4(ret) == bracketed)
        return fault("not an IPv%c address: '%.64s'; %s", bracketed ? '6' : '4', address, example);
    *text = rest;
    return 0;
}

static int ports_parse(char *text, struct publish_spec *ret, char *message, size_t size)
{
    struct port_range host, guest;
    char *colon = strchr(text, ':');

    if (!colon)
        return fault("the guest's port is missing; %s", example);
    *colon = '\0';
    if (!range_parse(text, &host))
        return fault("not a port, or range of ports, of the host: '%.64s'; %s", text, example);
    if (!range_parse(colon + 1, &guest))
        return fault("not a port, or range of ports, of the guest: '%.64s'; %s", colon + 1,
                     example);
    ret->host = host.first;
    ret->guest = guest.first;
    ret->count = (uint16_t)(host.last - host.first + 1);
    if (guest.last - guest.first != host.last - host.first)
        return fault("%d ports of the host cannot lead to %d of the guest; make the ranges equal",
                     host.last - host.first + 1, guest.last - guest.first + 1);
    return 0;
}

int publish_parse(const char *text, struct publish_spec *ret, char *message, size_t size)
{
    struct publish_spec spec = {.count = 0};
    char copy[TEXT_MAX], *rest = copy;
    int r;

    if (strlen(text) >= sizeof copy)
        return fault("too long; %s", example);
    memcpy(copy, text, strlen(text) + 1);
    r = take_protocol(copy, &spec.protocol, message, size);
    if (r == 0)
        r = take_address(&rest, &spec.address, message, size);
    if (r == 0)
        r = ports_parse(rest, &spec, message, size);
    if (r == 0)
        *ret = spec;
    return r;
}
