/* SPDX-License-Identifier: Apache-2.0 */
/* Neighbour discovery, from the router's side of a link with one neighbour (RFC 4861).
 *
 * Solicitations for the addresses culvert owns are answered, all others are met with silence: a
 * guest that probes its own address hears nothing and keeps it. A router solicitation is answered
 * by an advertisement with everything the guest needs. Advertisements that nobody asked for are
 * sent only to a guest that has once asked, and just often enough for the lifetimes below to hold,
 * so that an idle engine sleeps for the better part of an hour. */

#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#include "stack/network.h"
#include "wire/icmp.h"
#include "wire/ndp.h"

#define ROUTER_LIFETIME    9000u              /* s; the most there is (RFC 4861 6.2.1) */
#define REFRESH_PERIOD     (2900 * SECOND_NS) /* two may be lost */
#define VALID_LIFETIME     2592000u           /* s; RFC 4861's defaults */
#define PREFERRED_LIFETIME 604800u
#define SOLICITATION_MAX   256u /* bytes of a solicitation that are looked at */

static const struct ip_address ALL_NODES = {.bytes = {0xff, 2, [15] = 1}};

static bool is_unspecified(const struct ip_address *address)
{
    return address->be64[0] == 0 && address->be64[1] == 0;
}

/* RFC 2464 7 */
static void set_multicast_mac(struct culvert_frame *frame, const struct ip_address *group)
{
    frame->data[0] = frame->data[1] = 0x33;
    memcpy(frame->data + 2, group->bytes + 12, 4);
}

/* A frame for `len` bytes of message at *ret_message. */
static struct culvert_frame *message_new(struct stack *stack, const struct ip_header *header,
                                         size_t len, uint8_t **ret_message)
{
    struct culvert_frame *frame = ip_frame_new(stack, header, len);

    if (!frame) {
        count(stack->counters, COUNTER_icmp_no_memory);
        return NULL;
    }
    if (header->destination.bytes[0] == 0xff)
        set_multicast_mac(frame, &header->destination);
    *ret_message = frame->data + frame->len;
    frame->len += len;
    return frame;
}

static void send_message(struct stack *stack, const struct ip_header *header, uint8_t *message,
                         struct culvert_frame *take_frame)
{
    icmp_finish(stack, header, (size_t)(message - take_frame->data), take_frame);
}

static struct ip_header header_to(const struct ip_address *source,
                                  const struct ip_address *destination)
{
    return (struct ip_header){
        .source = *source,
        .destination = *destination,
        .protocol = IPPROTO_ICMPV6,
        .ttl = NDP_HOP_LIMIT,
    };
}

/* ---- router advertisements ---- */

/* The bits behind the prefix are sent as zero (RFC 4861 4.6.2). */
static struct ip_address masked(const struct ip_address *address, unsigned length)
{
    struct ip_address prefix = *address;

    for (unsigned i = 0; i < 16; i++)
        if (length < 8 * (i + 1))
            prefix.bytes[i] &= (uint8_t)(length > 8 * i ? 0xff00u >> (length - 8 * i) : 0);
    return prefix;
}

static void advertise_router(struct stack *stack, const struct ip_address *destination)
{
    const struct stack_config *config = &stack->config;
    struct ip_header header = header_to(&config->link_local6, destination);
    struct ndp_router_advertisement advertisement = {
        .hop_limit = 64,
        .managed = true,
        .other_configuration = true,
        .router_lifetime = ROUTER_LIFETIME,
        .mtu = stack->link.mtu,
        .prefix = masked(&config->guest6, config->prefix6),
        .prefix_length = config->prefix6,
        .valid_lifetime = VALID_LIFETIME,
        .preferred_lifetime = PREFERRED_LIFETIME,
        .dns = config->dns6,
        .dns_lifetime = ROUTER_LIFETIME,
    };
    uint8_t *message;
    struct culvert_frame *frame =
        message_new(stack, &header, NDP_ROUTER_ADVERTISEMENT_LEN, &message);

    if (!frame)
        return;
    memcpy(advertisement.source_mac, config->gateway_mac, 6);
    ndp_router_advertisement_write(message, &advertisement);
    send_message(stack, &header, message, frame);
    timer_arm(stack->timers, &stack->ip->ndp.refresh, stack->now + REFRESH_PERIOD);
}

static void refresh_expired(void *arg, struct timer *timer, uint64_t now)
{
    struct ndp *ndp = (struct ndp *)((char *)timer - offsetof(struct ndp, refresh));

    (void)arg;
    stack_set_now(ndp->stack, now);
    timer_arm(ndp->stack->timers, timer, now + REFRESH_PERIOD); /* even if no frame can be had */
    advertise_router(ndp->stack, &ALL_NODES);
}

void ndp_init(struct ndp *ndp, struct stack *stack)
{
    ndp->stack = stack;
    timer_init(&ndp->refresh, refresh_expired);
}

void ndp_fini(struct ndp *ndp)
{
    if (ndp->stack)
        timer_cancel(ndp->stack->timers, &ndp->refresh);
}

void ndp_link_changed(struct ndp *ndp)
{
    if (timer_armed(&ndp->refresh) && ndp->stack->link.up)
        advertise_router(ndp->stack, &ALL_NODES);
}

/* The message, linear. NULL: too short, or longer than any that is meant. */
static const uint8_t *read_message(const struct ip_packet *packet, uint8_t *scratch)
{
    if (packet->len > SOLICITATION_MAX ||
        !frame_copy(packet->frame, packet->offset, packet->len, scratch))
        return NULL;
    return scratch;
}

void ndp_router_solicitation(struct stack *stack, const struct ip_packet *packet)
{
    uint8_t scratch[SOLICITATION_MAX];
    const uint8_t *bytes = read_message(packet, scratch);
    struct ndp_solicitation solicitation;
    bool anonymous = is_unspecified(&packet->source);

    if (!bytes || !ndp_router_solicitation_parse(bytes, packet->len, &solicitation) ||
        (anonymous && solicitation.has_source_mac)) {
        count(stack->counters, COUNTER_ndp_malformed);
        return;
    }
    advertise_router(stack, anonymous ? &ALL_NODES : &packet->source);
}

/* ---- neighbours ---- */

static void advertise_neighbour(struct stack *stack, const struct ip_address *target,
                                const struct ip_address *asker)
{
    const bool probe = is_unspecified(asker);
    struct ip_header header = header_to(target, probe ? &ALL_NODES : asker);
    struct ndp_neighbour_advertisement advertisement = {
        .router = true,
        .solicited = !probe,
        .override = true,
        .target = *target,
    };
    uint8_t *message;
    struct culvert_frame *frame =
        message_new(stack, &header, NDP_NEIGHBOUR_ADVERTISEMENT_LEN, &message);

    if (!frame)
        return;
    memcpy(advertisement.target_mac, stack->config.gateway_mac, 6);
    ndp_neighbour_advertisement_write(message, &advertisement);
    send_message(stack, &header, message, frame);
}

void ndp_neighbour_solicitation(struct stack *stack, const struct ip_packet *packet)
{
    uint8_t scratch[SOLICITATION_MAX];
    const uint8_t *bytes = read_message(packet, scratch);
    struct ndp_solicitation solicitation;

    if (!bytes || !ndp_neighbour_solicitation_parse(bytes, packet->len, &solicitation) ||
        (is_unspecified(&packet->source) && solicitation.has_source_mac)) {
        count(stack->counters, COUNTER_ndp_malformed);
        return;
    }
    if (is_unspecified(&packet->source)) /* the guest makes sure that it is alone with it */
        neighbour_claimed(&stack->link_layer->neighbour6, &solicitation.target);
    if (!ip_address_owned(stack, &solicitation.target)) {
        count(stack->counters, COUNTER_ndp_not_ours);
        return;
    }
    advertise_neighbour(stack, &solicitation.target, &packet->source);
}

void ndp_solicit(struct stack *stack, const struct ip_address *target)
{
    const struct ip_address group = ndp_solicited_node(target);
    struct ip_header header = header_to(&stack->config.link_local6, &group);
    uint8_t *message;
    struct culvert_frame *frame =
        message_new(stack, &header, NDP_NEIGHBOUR_SOLICITATION_LEN, &message);

    if (!frame)
        return;
    ndp_neighbour_solicitation_write(message, target, stack->config.gateway_mac);
    send_message(stack, &header, message, frame);
}
