/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_ADDRESS_GROUPS_H
#define POLICY_ADDRESS_GROUPS_H

/* What an address is by the public registries alone, whatever machine we run on. */

#include <stdbool.h>

#include "wire/address.h"

/* enum policy_group bits: public, private, link-local, metadata, multicast or special. `public` and
 * `special` never stand beside another bit. */
unsigned address_groups(const struct ip_address *address);

/* Addresses that mean "this host" to whoever uses them (0.0.0.0/8, 127/8, ::, ::1). A route lookup
 * calls them local, but they are nobody's address on the guest's network: they stay special. */
bool address_is_loopback_or_unspecified(const struct ip_address *address);

/* Removes `public` and `special` where a more telling group is there. */
unsigned address_groups_normalise(unsigned groups);

#endif
