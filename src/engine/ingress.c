/* SPDX-License-Identifier: Apache-2.0 */
/* The way in: who may come to a published port, and which ports there are.
 *
 * Those of the configuration are opened with the engine, so that one which is taken fails the
 * start. Those that follow what the guest listens on are found out by another thread, which hands
 * over a list; the poll thread opens and closes what has changed, and hands back why a port could
 * not be opened. Both go by exchanging one pointer, and whoever gets it owns it: the latest list
 * replaces one that nobody has looked at, messages queue up (there is one a port at most). */

#include "engine/ingress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/config.h"
#include "engine/internal.h"

#define PORTS 65536u

/* ---- who may come ---- */

bool ingress_admits(struct culvert_engine *engine, uint8_t protocol,
                    const struct ip_address *client, uint16_t port)
{
    const struct subject subject = {
        .direction = POLICY_INGRESS,
        .key = {.remote = *client, .guest_port = port, .protocol = protocol},
    };

    return judge(engine, &subject).action == POLICY_ALLOW;
}

static bool admit(void *ctx, uint8_t protocol, const struct ip_address *client, uint16_t port)
{
    return ingress_admits(ctx, protocol, client, port);
}

static bool is_local(void *ctx, const struct ip_address *address)
{
    struct culvert_engine *engine = ctx;

    return host_addresses_is_local(engine->host_addresses, address);
}

/* ---- ports of the configuration ---- */

int ingress_open(struct culvert_engine *engine, const struct culvert_config *config,
                 struct culvert_error *error)
{
    const struct publish_ops ops = {.admit = admit, .is_local = is_local};
    struct culvert_error unused;
    int r = 0;

    if (config->publish_count == 0 && !config->publish_auto)
        return 0;
    engine->publish = publish_new(engine->relay, &engine->addresses, &ops, engine);
    if (!engine->publish)
        return -ENOMEM;
    error = error ? error : &unused;
    for (size_t i = 0; r == 0 && i < config->publish_count; i++)
        r = publish_open(engine->publish, &config->publish[i], error->message,
                         sizeof error->message);
    return r;
}

void ingress_link_changed(struct culvert_engine *engine)
{
    if (engine->publish)
        publish_set_link(engine->publish, engine->netdev->link.up);
}

/* ---- ports that follow the guest ---- */

struct listeners {
    size_t count;
    struct ingress_listener listener[];
};

struct failure {
    struct failure *next;
    char message[256];
};

/* A bit for each port, those of UDP behind those of TCP. */
struct port_set {
    uint8_t bits[2 * PORTS / 8];
};

struct ingress {
    struct port_set open; /* published because the guest listens */
    struct port_set told; /* could not be, and it was said */
};

static size_t bit_of(const struct ingress_listener *listener)
{
    return listener->port + (listener->protocol == IPPROTO_UDP ? PORTS : 0);
}

static bool is_in(const struct port_set *set, size_t bit)
{
    return set->bits[bit / 8] >> (bit % 8) & 1;
}

static void put_in(struct port_set *set, size_t bit)
{
    set->bits[bit / 8] |= (uint8_t)(1u << (bit % 8));
}

static void take_out(struct port_set *set, size_t bit)
{
    set->bits[bit / 8] &= (uint8_t) ~(1u << (bit % 8));
}

static struct publish_spec spec_of(size_t bit)
{
    return (struct publish_spec){
        .address = ip_address_v4(htonl(INADDR_LOOPBACK)),
        .host = (uint16_t)(bit % PORTS),
        .guest = (uint16_t)(bit % PORTS),
        .count = 1,
        .protocol = bit >= PORTS ? IPPROTO_UDP : IPPROTO_TCP,
    };
}

static void tell(struct culvert_engine *engine, size_t bit, const char *message)
{
    struct failure *failure = is_in(&engine->ingress->told, bit) ? NULL : malloc(sizeof *failure);

    if (!failure)
        return;
    put_in(&engine->ingress->told, bit);
    snprintf(failure->message, sizeof failure->message, "%s", message);
    failure->next = __atomic_load_n(&engine->ingress_failures, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&engine->ingress_failures, &failure->next, failure, true,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ;
}

static void open_one(struct culvert_engine *engine, size_t bit)
{
    const struct publish_spec spec = spec_of(bit);
    char message[256];

    if (publish_leads_to(engine->publish, spec.protocol, spec.guest))
        return;
    if (publish_open(engine->publish, &spec, message, sizeof message) < 0) {
        tell(engine, bit, message);
        return;
    }
    put_in(&engine->ingress->open, bit);
    take_out(&engine->ingress->told, bit);
}

static void close_others(struct culvert_engine *engine, const struct port_set *wanted)
{
    for (size_t bit = 0; bit < 2 * PORTS; bit++) {
        if (engine->ingress->open.bits[bit / 8] == 0) {
            bit |= 7; /* none of these eight */
            continue;
        }
        if (is_in(&engine->ingress->open, bit) && !is_in(wanted, bit)) {
            const struct publish_spec spec = spec_of(bit);

            publish_close(engine->publish, &spec);
            take_out(&engine->ingress->open, bit);
        }
    }
}

void ingress_apply(struct culvert_engine *engine)
{
    struct listeners *listeners =
        __atomic_exchange_n(&engine->ingress_wanted, NULL, __ATOMIC_ACQUIRE);
    struct port_set wanted = {{0}};

    if (!listeners)
        return;
    if (!engine->ingress)
        engine->ingress = calloc(1, sizeof *engine->ingress);
    if (engine->ingress && engine->publish) {
        for (size_t i = 0; i < listeners->count; i++)
            put_in(&wanted, bit_of(&listeners->listener[i]));
        close_others(engine, &wanted);
        for (size_t i = 0; i < listeners->count; i++)
            open_one(engine, bit_of(&listeners->listener[i]));
    }
    free(listeners);
}

int ingress_follow(struct culvert_engine *engine, const struct ingress_listener *listeners,
                   size_t count)
{
    struct listeners *list;

    if (count > INGRESS_LISTENERS_MAX)
        count = INGRESS_LISTENERS_MAX;
    list = malloc(sizeof *list + count * sizeof *listeners);
    if (!list)
        return -ENOMEM;
    list->count = count;
    memcpy(list->listener, listeners, count * sizeof *listeners);
    free(__atomic_exchange_n(&engine->ingress_wanted, list, __ATOMIC_ACQ_REL));
    culvert_wake_signal(&engine->state->proxy_wake);
    return 0;
}

void ingress_failures(struct culvert_engine *engine, void (*visit)(void *arg, const char *message),
                      void *arg)
{
    struct failure *failure =
        __atomic_exchange_n(&engine->ingress_failures, NULL, __ATOMIC_ACQUIRE);

    while (failure) {
        struct failure *next = failure->next;

        visit(arg, failure->message);
        free(failure);
        failure = next;
    }
}

static void forget(void *arg, const char *message)
{
    (void)arg, (void)message;
}

/* The relay ends the ports themselves. */
void ingress_free(struct culvert_engine *engine)
{
    ingress_failures(engine, forget, NULL);
    free(engine->ingress_wanted);
    free(engine->ingress);
}
