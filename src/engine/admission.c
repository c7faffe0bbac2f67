/* SPDX-License-Identifier: Apache-2.0 */
/* Where a flow goes: to the resolver, to a socket of the relay's, or nowhere.
 *
 * The policy judges the destination as the guest wrote it. What it allows is then translated: the
 * gateway's address stands for the host's loopback. What answers a client of a published port was
 * admitted with the client (ingress.c). A datagram's verdict is kept with its peer in
 * the relay's mapping, so that only the first of a conversation is judged. Where the verdict
 * depends on the flow's name, what it sends first is held back until that is known: peek.c,
 * peek_udp.c.
 *
 * Under rules by name, names must come from culvert's own resolver: whatever goes to port 53 goes
 * there, whichever server the guest meant and whether or not a rule allows it, since it is each
 * question that is judged; and DNS over TLS or QUIC is refused. */

#include "engine/internal.h"
#include "engine/peek.h"
#include "engine/peek_udp.h"
#include "engine/watch_tcp.h"
#include "wire/dns.h"

#define DNS_PORT     53
#define DNS_TLS_PORT 853

static bool is_resolver(const struct culvert_engine *engine, const struct ip_address *address)
{
    return ip_address_equal(address, &engine->addresses.dns4) ||
           (engine->addresses.ipv6 && ip_address_equal(address, &engine->addresses.dns6));
}

/* Is this for the resolver, by whichever address? */
static bool is_lookup(const struct culvert_engine *engine, const struct flow_key *key)
{
    return key->remote_port == DNS_PORT && engine_goes_by_names(engine);
}

static bool evades_resolver(const struct culvert_engine *engine, const struct flow_key *key)
{
    return key->remote_port == DNS_TLS_PORT && engine_goes_by_names(engine);
}

bool admission_diverts(const struct culvert_engine *engine, const struct flow_key *key,
                       enum counter *ret_reason)
{
    if (evades_resolver(engine, key))
        *ret_reason = COUNTER_policy_denied_dns_tls;
    else if (is_lookup(engine, key))
        *ret_reason = COUNTER_policy_denied_dns_elsewhere;
    else
        return false;
    return true;
}

struct ip_endpoint real_destination(const struct culvert_engine *engine, const struct flow_key *key)
{
    struct ip_endpoint to = {.address = key->remote, .port = key->remote_port};

    if (ip_address_equal(&key->remote, &engine->addresses.gateway4))
        to.address = ip_address_v4(htonl(INADDR_LOOPBACK));
    else if (engine->addresses.ipv6 && ip_address_equal(&key->remote, &engine->addresses.gateway6))
        to.address = ip_address_v6(&in6addr_loopback);
    return to;
}

/* Before anything of the flow's payload is known. */
static enum policy_action judge_first(struct culvert_engine *engine, const struct flow_key *key,
                                      enum policy_name_state state)
{
    struct subject subject = subject_of(key, state);

    if (evades_resolver(engine, key) && refuse(engine, &subject, COUNTER_policy_denied_dns_tls))
        return POLICY_DENY;
    return judge(engine, &subject).action;
}

void admit_tcp(void *ctx, struct flow_handle flow, const struct flow_key *key)
{
    struct culvert_engine *engine = ctx;
    enum policy_action action;

    if (is_lookup(engine, key)) {
        dns_tcp_open(engine->dns, flow, key, engine->now);
        return;
    }
    action = judge_first(engine, key, POLICY_NAME_PENDING);
    if (action == POLICY_DROP) {
        tcp_refuse(engine->stack, flow, TCP_REFUSE_SILENT);
    } else if (action == POLICY_DENY) {
        tcp_refuse(engine->stack, flow, TCP_REFUSE_RESET);
    } else if (!is_resolver(engine, &key->remote)) {
        struct ip_endpoint to = real_destination(engine, key);

        relay_tcp_connect(engine->relay, flow, &to, engine->now);
        if (action == POLICY_NEED_NAME)
            peek_tcp(engine, flow, key);
        else if (engine->learn)
            watch_tcp(engine, flow, key);
    } else if (key->remote_port == DNS_PORT) {
        dns_tcp_open(engine->dns, flow, key, engine->now);
    } else {
        tcp_refuse(engine->stack, flow, TCP_REFUSE_RESET); /* nothing else listens there */
    }
}

static void send_udp(struct culvert_engine *engine, const struct udp_datagram *datagram)
{
    const struct ip_endpoint to = real_destination(engine, &datagram->key);

    relay_udp_peer_allow(engine->relay, &datagram->key, policy_generation(engine->policy), &to,
                         false, engine->now);
    relay_udp_send(engine->relay, datagram, &to, engine->now);
}

static void look_into_udp(struct culvert_engine *engine, const struct udp_datagram *datagram)
{
    if (!engine->peek_udp)
        engine->peek_udp = peek_udp_new(engine);
    if (engine->peek_udp) {
        peek_udp_begin(engine->peek_udp, datagram);
    } else {
        const struct subject subject = subject_of(&datagram->key, POLICY_NAME_PENDING);

        refuse(engine, &subject, COUNTER_policy_no_memory);
    }
}

/* The first of a conversation. */
static void admit_udp_flow(struct culvert_engine *engine, const struct udp_datagram *datagram)
{
    const struct flow_key *key = &datagram->key;
    enum policy_action action = judge_first(engine, key, POLICY_NAME_PENDING);

    if (action == POLICY_DROP)
        return;
    if (action == POLICY_DENY)
        stack_icmp_refuse(engine->stack, datagram->frame, ICMP_PROBLEM_PROHIBITED, 0);
    else if (is_resolver(engine, &key->remote) && key->remote_port == DNS_PORT)
        dns_udp_input(engine->dns, datagram, engine->now);
    else if (is_resolver(engine, &key->remote)) /* nothing else listens there */
        stack_icmp_refuse(engine->stack, datagram->frame, ICMP_PROBLEM_PORT_UNREACHABLE, 0);
    else if (action == POLICY_NEED_NAME)
        look_into_udp(engine, datagram);
    else
        send_udp(engine, datagram);
}

void admit_udp(void *ctx, const struct udp_datagram *datagram)
{
    struct culvert_engine *engine = ctx;
    const struct flow_key *key = &datagram->key;
    struct ip_endpoint to;

    if (engine->publish && publish_udp_reply(engine->publish, datagram, engine->now))
        return;
    if (relay_udp_peer_known(engine->relay, key, policy_generation(engine->policy), &to) &&
        !(engine->peek_udp && relay_udp_peer_watched(engine->relay, key)))
        relay_udp_send(engine->relay, datagram, &to, engine->now);
    else if (is_lookup(engine, key))
        dns_udp_input(engine->dns, datagram, engine->now);
    else if (!engine->peek_udp || !peek_udp_input(engine->peek_udp, datagram))
        admit_udp_flow(engine, datagram);
}

void admit_echo(void *ctx, const struct echo_request *request)
{
    struct culvert_engine *engine = ctx;
    enum policy_action action = judge_first(engine, &request->key, POLICY_NAME_NAMELESS);

    if (action == POLICY_ALLOW) {
        struct ip_endpoint to = real_destination(engine, &request->key);

        relay_echo_send(engine->relay, request, &to.address, engine->now);
    } else if (action == POLICY_DENY) {
        stack_icmp_refuse(engine->stack, request->frame, ICMP_PROBLEM_PROHIBITED, 0);
    }
}

void admitted_tcp_closed(void *ctx, struct flow_handle flow)
{
    struct culvert_engine *engine = ctx;

    flow_records_forget(&engine->records, flow);
}
