/* SPDX-License-Identifier: Apache-2.0 */
/* The text by which an upstream is named: --dns. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dns/dns.h"

#define DNS_PORT 53

#define FORMS "give an address, A:P, [A6]:P, udp://A:P or tcp://A:P"

static bool skip_prefix(const char **text, const char *prefix)
{
    size_t len = strlen(prefix);

    if (strncmp(*text, prefix, len) != 0)
        return false;
    *text += len;
    return true;
}

/* 1 to 65535, digits only; 0 otherwise. */
static uint16_t parse_port(const char *text)
{
    unsigned port = 0;

    if (strlen(text) > 5)
        return 0;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return 0;
        port = port * 10 + (unsigned)(*text - '0');
    }
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* Splits "A", "A:P", "[A6]", "[A6]:P", "A6" into address and port text (NULL: none). */
static bool split_port(char *text, char **ret_address, const char **ret_port)
{
    char *colon = strchr(text, ':'), *bracket;

    *ret_address = text;
    *ret_port = NULL;
    if (text[0] == '[') {
        bracket = strchr(text, ']');
        if (!bracket || (bracket[1] != '\0' && bracket[1] != ':'))
            return false;
        *ret_address = text + 1;
        *ret_port = bracket[1] == ':' ? bracket + 2 : NULL;
        *bracket = '\0';
        return true;
    }
    if (colon && !strchr(colon + 1, ':')) { /* one colon: a port; more: an IPv6 address */
        *colon = '\0';
        *ret_port = colon + 1;
    }
    return true;
}

static int parse_endpoint(const char *text, struct ip_endpoint *ret, char *message, size_t size)
{
    char copy[80], *address;
    const char *port;

    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy ||
        !split_port(copy, &address, &port) || !ip_address_parse(address, &ret->address)) {
        snprintf(message, size, "\"%.80s\" is no IP address: " FORMS, text);
        return -EINVAL;
    }
    ret->port = port ? parse_port(port) : DNS_PORT;
    if (ret->port == 0) {
        snprintf(message, size, "\"%.16s\" is no port: give 1 to 65535", port);
        return -EINVAL;
    }
    return 0;
}

int dns_upstream_parse(const char *text, struct dns_upstream *ret, char *message, size_t size)
{
    struct dns_upstream upstream = {.tcp_only = false};
    const char *rest = text;

    if (skip_prefix(&rest, "tcp://")) {
        upstream.tcp_only = true;
    } else if (!skip_prefix(&rest, "udp://") && strstr(rest, "://")) {
        snprintf(message, size, "\"%.80s\": this kind of resolver is not supported yet: " FORMS,
                 text);
        return -EINVAL;
    } else if (strchr(rest, '=')) {
        snprintf(message, size, "\"%.80s\": resolvers for a zone are not supported yet: " FORMS,
                 text);
        return -EINVAL;
    }
    if (parse_endpoint(rest, &upstream.endpoint, message, size) < 0)
        return -EINVAL;
    *ret = upstream;
    return 0;
}
