/* SPDX-License-Identifier: Apache-2.0 */
/* The text by which an upstream is named: --dns. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dns/dns.h"
#include "wire/flow_name.h"

#define DNS_PORT 53
#define TLS_PORT 853

#define FORMS                                                                                      \
    "give an address, A:P, udp://A:P, tcp://A:P or tls://NAME@A:P, or ZONE= and one of them"

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

static int parse_endpoint(const char *text, uint16_t default_port, struct ip_endpoint *ret,
                          char *message, size_t size)
{
    char copy[80], *address;
    const char *port;

    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy ||
        !split_port(copy, &address, &port) || !ip_address_parse(address, &ret->address)) {
        snprintf(message, size, "\"%.80s\" is no IP address: " FORMS, text);
        return -EINVAL;
    }
    ret->port = port ? parse_port(port) : default_port;
    if (ret->port == 0) {
        snprintf(message, size, "\"%.16s\" is no port: give 1 to 65535", port);
        return -EINVAL;
    }
    return 0;
}

/* The scheme, taken off. False: one that there is not. */
static bool parse_scheme(const char **text, struct dns_upstream *ret)
{
    if (skip_prefix(text, "tls://")) {
        ret->tls = ret->tcp_only = true;
        return true;
    }
    if (skip_prefix(text, "tcp://")) {
        ret->tcp_only = true;
        return true;
    }
    return skip_prefix(text, "udp://") || !strstr(*text, "://");
}

/* "NAME@", taken off: a host's name, as certificates have them. */
static bool parse_tls_name(const char **text, struct dns_upstream *ret)
{
    const char *at = strchr(*text, '@');
    size_t len = at ? (size_t)(at - *text) : 0;
    struct flow_name name;

    if (!at)
        return true;
    if (!ret->tls || flow_name_read(*text, len, &name) != FLOW_NAME_NAMED)
        return false;
    memcpy(ret->tls_name, name.text, sizeof name.text);
    *text = at + 1;
    return true;
}

/* "ZONE=", taken off. */
static bool parse_zone(const char **text, struct dns_upstream *ret)
{
    const char *equals = strchr(*text, '=');
    char zone[DNS_TEXT_MAX];

    if (!equals)
        return true;
    if (equals == *text ||
        snprintf(zone, sizeof zone, "%.*s", (int)(equals - *text), *text) >= (int)sizeof zone)
        return false;
    *text = equals + 1;
    return dns_name_parse(zone, &ret->zone) == 0 && ret->zone.len > 1;
}

int dns_upstream_parse(const char *text, struct dns_upstream *ret, char *message, size_t size)
{
    struct dns_upstream upstream = {.tcp_only = false};
    const char *rest = text;

    if (!parse_zone(&rest, &upstream)) {
        snprintf(message, size, "\"%.80s\": no domain before the '=': " FORMS, text);
        return -EINVAL;
    }
    if (!parse_scheme(&rest, &upstream)) {
        snprintf(message, size, "\"%.80s\": no such kind of resolver: " FORMS, text);
        return -EINVAL;
    }
    if (!parse_tls_name(&rest, &upstream)) {
        snprintf(message, size, "\"%.80s\": only tls:// has a host's name before '@': " FORMS,
                 text);
        return -EINVAL;
    }
    if (parse_endpoint(rest, upstream.tls ? TLS_PORT : DNS_PORT, &upstream.endpoint, message,
                       size) < 0)
        return -EINVAL;
    *ret = upstream;
    return 0;
}
