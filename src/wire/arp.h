/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_ARP_H
#define WIRE_ARP_H

/* ARP for IPv4 over Ethernet (RFC 826). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARP_LEN 28u

enum arp_operation {
    ARP_REQUEST = 1,
    ARP_REPLY = 2,
};

struct arp {
    uint16_t operation;
    uint8_t sender_mac[6], target_mac[6];
    uint32_t be_sender, be_target; /* IPv4 addresses, network order */
};

/* False: too short, or not IPv4 over Ethernet. */
bool arp_parse(const uint8_t *data, size_t len, struct arp *ret);
/* Writes ARP_LEN bytes. */
void arp_write(uint8_t *to, const struct arp *arp);

#endif
