/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETDEV_OFFLOAD_CHECK_H
#define NETDEV_OFFLOAD_CHECK_H

/* Whether the facts of a frame from the guest can be true of it. Behind this check the stack may
 * believe that lengths are possible, that a GSO type fits the packet and its gso_size is not zero,
 * that hdr_len is right for GSO frames, and that CULVERT_GSO_UDP does not occur: it means no more
 * than one large datagram, which the frame holds already. */

#include <culvert/frame.h>
#include <stdbool.h>

#include "base/counters.h"

/* Datagrams in one CULVERT_GSO_UDP_L4 frame; what Linux sends at most. */
#define OFFLOAD_CHECK_DATAGRAMS_MAX 128u

/* True: the facts hold (and were put in order). False: counted, and the caller drops the frame. The
 * frame must be the caller's alone. */
bool offload_check(struct culvert_frame *frame, struct counters *counters);

#endif
