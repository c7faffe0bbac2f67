/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_INTERNAL_H
#define ENGINE_INTERNAL_H

/* What the engine's files share: the engine of one guest. */

#include <culvert/engine.h>
#include <culvert/events.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "base/loop.h"
#include "base/timers.h"
#include "dns/dns.h"
#include "engine/event_file.h"
#include "engine/events.h"
#include "engine/flow_records.h"
#include "engine/learn.h"
#include "engine/policy_swap.h"
#include "engine/spin.h"
#include "netdev/netdev.h"
#include "policy/policy.h"
#include "relay/host_addresses.h"
#include "relay/publish.h"
#include "relay/relay.h"
#include "stack/stack.h"

struct culvert_engine {
    struct culvert_shared_state *state;
    struct counters counters;
    struct loop loop;
    struct timers *timers;
    struct netdev *netdev; /* NULL until attached or started */
    struct stack *stack;
    struct relay *relay;
    struct dns *dns;
    struct host_addresses *host_addresses;
    struct policy *policy; /* in force */
    struct policy_swap swap;
    enum dns_denied dns_denied;
    struct policy_world world;
    struct pins *pins;           /* names learnt from answers; NULL: no rule goes by names */
    struct flow_records records; /* what admitted the open TCP flows */
    struct peek_udp *peek_udp;   /* NULL before the first UDP flow that is looked into */

    bool audit;          /* what the rules refuse passes, the floor excepted */
    struct learn *learn; /* passes all but the floor and notes it; NULL: it does not */
    char *learn_path;
    bool learn_wildcards;
    struct events *events;         /* NULL: nobody wants to know */
    struct event_file *event_file; /* where the lines of --events go; NULL: nowhere */
    void (*event_callback)(void *arg, const struct culvert_event *event);
    void *event_callback_arg;

    struct stack_config addresses; /* the guest's network */
    uint64_t now;

    char netns[256]; /* for culvert_engine_attach(), as configured */
    bool once;
    uint8_t mac[6];                /* the guest's; all zero: learnt from its frames */
    struct attachment *attachment; /* attach.c; NULL: nothing to undo */

    struct publish *publish;          /* the relay's; NULL: no port is, or will be, published */
    struct ingress *ingress;          /* ingress.c; NULL before the first list of listeners */
    struct listeners *ingress_wanted; /* handed over by another thread */
    struct failure *ingress_failures; /* and to it */

    bool netdev_readable;
    bool netdev_gone;
    uint64_t acks_until; /* ACKs wait for the guest's next frames until then; 0: none does */
    struct spin spin;

    size_t queued_bytes; /* tcp_queued_bytes(), for other threads */

    pthread_t thread;
    bool running;
    uint32_t
        stop; /* set by culvert_engine_stop(), read by the poll thread; wake: state->proxy_wake */
};

/* attach.c: undoes what culvert_engine_attach() did to the machine, when the netdev is gone. */
void attachment_end(struct culvert_engine *engine);

/* poll.c: the poll thread's body. */
void *engine_poll_thread(void *engine);
/* Registers what the poll thread sleeps on. 0 or negative errno. */
int engine_poll_init(struct culvert_engine *engine);
/* Gives the netdev (taken over) its callbacks. */
void engine_take_netdev(struct culvert_engine *engine, struct netdev *netdev);

/* engine.c: the resolver judges by the policy that is in force now. */
void engine_guard_dns(struct culvert_engine *engine);

/* Does the engine look at names: because rules go by them, or to learn them? */
static inline bool engine_goes_by_names(const struct culvert_engine *engine)
{
    return engine->learn || policy_has_names(engine->policy);
}

/* admission.c: where a new flow goes. The stack's operations; ctx is the engine. */
void admit_tcp(void *ctx, struct flow_handle flow, const struct flow_key *key);
void admit_udp(void *ctx, const struct udp_datagram *datagram);
void admit_echo(void *ctx, const struct echo_request *request);
void admitted_tcp_closed(void *ctx, struct flow_handle flow);
/* event_tell.c. Opens what the configuration asks for: 0, or negative errno with `error` (may be
 * NULL) filled unless it is -ENOMEM. */
int events_open(struct culvert_engine *engine, const struct culvert_config *config,
                struct culvert_error *error);
void events_close(struct culvert_engine *engine);
/* Tells of `event`, whose time is filled in, if anybody listens. */
void tell_event(struct culvert_engine *engine, struct event *event);
/* dns_judgement.c: dns_guard's `refused`. ctx is the engine. */
void tell_dns_refusal(void *ctx, const struct dns_refusal *refusal);
/* Is a flow under this key kept from going where the guest means it to, whatever the rules say,
 * because names must come from the resolver here? *ret_reason: what it counts as if it goes there
 * already. */
bool admission_diverts(const struct culvert_engine *engine, const struct flow_key *key,
                       enum counter *ret_reason);
/* Where the guest's flow leads: the host's address behind the one that the guest uses. */
struct ip_endpoint real_destination(const struct culvert_engine *engine,
                                    const struct flow_key *key);
/* ingress.c: published ports. Opens those of the configuration: 0, or negative errno with `error`
 * (may be NULL) filled unless it is -ENOMEM. */
int ingress_open(struct culvert_engine *engine, const struct culvert_config *config,
                 struct culvert_error *error);
void ingress_free(struct culvert_engine *engine);
/* May `client` reach the guest's `port`? */
bool ingress_admits(struct culvert_engine *engine, uint8_t protocol,
                    const struct ip_address *client, uint16_t port);
void ingress_link_changed(struct culvert_engine *engine);
/* Takes over what ingress_follow() has handed in. */
void ingress_apply(struct culvert_engine *engine);

#endif
