/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/arp.h"

#include <string.h>

#include "wire/bytes.h"

#define ARP_ETHERNET 1
#define ARP_IPV4     0x0800

bool arp_parse(const uint8_t *data, size_t len, struct arp *ret)
{
    if (len < ARP_LEN)
        return false;
    if (load_be16(data) != ARP_ETHERNET || load_be16(data + 2) != ARP_IPV4 || data[4] != 6 ||
        data[5] != 4)
        return false;
    ret->operation = load_be16(data + 6);
    memcpy(ret->sender_mac, data + 8, 6);
    memcpy(&ret->be_sender, data + 14, 4);
    memcpy(ret->target_mac, data + 18, 6);
    memcpy(&ret->be_target, data + 24, 4);
    return true;
}

void arp_write(uint8_t *to, const struct arp *arp)
{
    store_be16(to, ARP_ETHERNET);
    store_be16(to + 2, ARP_IPV4);
    to[4] = 6;
    to[5] = 4;
    store_be16(to + 6, arp->operation);
    memcpy(to + 8, arp->sender_mac, 6);
    memcpy(to + 14, &arp->be_sender, 4);
    memcpy(to + 18, arp->target_mac, 6);
    memcpy(to + 24, &arp->be_target, 4);
}
