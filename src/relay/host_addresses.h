/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_HOST_ADDRESSES_H
#define RELAY_HOST_ADDRESSES_H

/* Which addresses are the host's own: asked of its routing, not of a list of interfaces, so that
 * whatever route makes an address local counts. Poll thread only. */

#include "base/loop.h"
#include "wire/address.h"

struct host_addresses;

/* Registers in `loop` for the changes that netlink reports. NULL, errno. */
struct host_addresses *host_addresses_new(struct loop *loop);
struct host_addresses *host_addresses_free(struct host_addresses *addresses);
/* Does the host route `address` as local, broadcast or anycast? The first question about an address
 * asks the kernel (some µs), later ones a bounded cache that is dropped when addresses or routes
 * change. True also when the kernel cannot be asked: what may be the host must not be taken for the
 * internet. `ctx` is the struct host_addresses: the signature is a callback's. */
bool host_addresses_is_local(void *ctx, const struct ip_address *address);

/* Has the host a default route for IPv6, or one to global addresses? For --ipv6=auto. */
bool host_has_ipv6_route(void);

#endif
