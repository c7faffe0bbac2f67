/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_ADDRESSES_H
#define HOST_ADDRESSES_H

/* The network interface of the calling thread's network namespace, set up so that it can be used at
 * once: no address is tentative, none beside those asked for appears. */

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host_network {
    const char *interface; /* exists: "eth0" */
    uint32_t mtu;
    uint8_t mac[6]; /* all zero: as it is */
    struct in_addr address4, gateway4;
    uint8_t prefix4;
    bool ipv6; /* false: switched off on the interface */
    struct in6_addr address6, gateway6;
    uint8_t prefix6;
    gid_t ping_gid; /* may ping without capabilities; as the namespace's user knows it */
};

/* 0, or negative errno with `message` filled. Needs CAP_NET_ADMIN; where /proc/sys
 * cannot be written, ping and low ports stay privileged. */
int addresses_configure(const struct host_network *network, char *message, size_t size);

#endif
