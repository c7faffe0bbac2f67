/* SPDX-License-Identifier: Apache-2.0 */
/* What to write, to have allowed what was refused: the narrowest rule that would do. */
#include <netinet/in.h>
#include <stdio.h>

#include "engine/event_text.h"
#include "engine/flow_naming.h"

const char *event_protocol(uint8_t protocol)
{
    switch (protocol) {
    case IPPROTO_TCP:
        return "tcp";
    case IPPROTO_UDP:
        return "udp";
    default:
        return "icmp";
    }
}

/* " port N" for what has ports. */
static const char *port_clause(const struct event *event, char text[16])
{
    uint16_t port =
        event->direction == POLICY_EGRESS ? event->key.remote_port : event->key.guest_port;

    text[0] = '\0';
    if (event->key.protocol == IPPROTO_TCP || event->key.protocol == IPPROTO_UDP)
        snprintf(text, 16, " port %u", port);
    return text;
}

/* What no rule can mend: it is not about where the flow goes. */
static bool is_beyond_rules(const struct event *event)
{
    return event->reason == COUNTER_policy_denied_dns_tls ||
           event->reason == COUNTER_policy_denied_dns_elsewhere ||
           event->reason == COUNTER_policy_no_memory ||
           event->reason == COUNTER_dns_private_address;
}

/* The address, or the group that stands for it whatever the guest's subnet. */
static void write_address(const struct event *event, const struct policy_world *world,
                          char text[IP_ADDRESS_TEXT_MAX])
{
    const struct ip_address *remote = &event->key.remote;

    if (ip_address_equal(remote, &world->gateway4) || ip_address_equal(remote, &world->gateway6))
        snprintf(text, IP_ADDRESS_TEXT_MAX, "host");
    else
        ip_address_format(remote, text);
}

static const char *remedy_of_client(const struct event *event, char text[EVENT_REMEDY_MAX])
{
    char address[IP_ADDRESS_TEXT_MAX], port[16];

    snprintf(text, EVENT_REMEDY_MAX, "allow %s from %s%s", event_protocol(event->key.protocol),
             ip_address_format(&event->key.remote, address), port_clause(event, port));
    return text;
}

static const char *remedy_of_flow(const struct event *event, const struct policy *policy,
                                  const struct policy_world *world, char text[EVENT_REMEDY_MAX])
{
    unsigned groups = policy_groups_of(policy, world, &event->key.remote);
    char target[RULE_NAME_MAX], address[IP_ADDRESS_TEXT_MAX], port[16];
    bool by_name = event->name_admits && !policy_is_protected(policy, world, &event->key.remote) &&
                   rule_name_write(&event->name, target);
    bool widened = by_name && groups != POLICY_PUBLIC;

    if (groups & POLICY_DNS)
        return "allow to dns";
    write_address(event, world, address);
    snprintf(text, EVENT_REMEDY_MAX, "allow %s to %s%s%s%s", event_protocol(event->key.protocol),
             by_name ? target : address, port_clause(event, port), widened ? " in " : "",
             widened ? address : "");
    return text;
}

static const char *remedy_of_name(const struct event *event, char text[EVENT_REMEDY_MAX])
{
    char target[RULE_NAME_MAX], address[IP_ADDRESS_TEXT_MAX];
    bool removed = event->reason == COUNTER_dns_rebinding;

    if (!rule_name_write(&event->name, target))
        return NULL;
    /* Which port it was to be is not known yet. */
    snprintf(text, EVENT_REMEDY_MAX, "allow tcp to %s port 443%s%s", target, removed ? " in " : "",
             removed ? ip_address_format(&event->key.remote, address) : "");
    return text;
}

const char *event_remedy(const struct event *event, const struct policy *policy,
                         const struct policy_world *world, char text[EVENT_REMEDY_MAX])
{
    if (is_beyond_rules(event))
        return NULL;
    if (event->key.protocol != 0 && event->direction == POLICY_INGRESS)
        return remedy_of_client(event, text);
    if (event->key.protocol != 0)
        return remedy_of_flow(event, policy, world, text);
    if (event->reason == COUNTER_dns_rebinding &&
        policy_is_protected(policy, world, &event->key.remote))
        return NULL; /* no name leads there */
    return remedy_of_name(event, text);
}
