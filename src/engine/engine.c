/* SPDX-License-Identifier: Apache-2.0 */
/* Puts one guest's engine together from the rooms below, starts and stops it: the public API of
 * engine.h. */

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/config.h"
#include "engine/internal.h"
#include "engine/learning.h"
#include "engine/peek_udp.h"
#include "engine/rejudge.h"
#include "policy/pins.h"

#define QUEUE_CAPACITY     1024
#define DESCRIPTORS_SPARED 1000 /* of the limit, for everything but TCP flows */
#define SPIN_NS_DEFAULT    UINT64_C(50000)

static const uint8_t gateway_mac[6] = {0x02, 0x63, 0x75, 0x6c, 0x76, 0x02};

__attribute__((format(printf, 2, 3))) static void explain(struct culvert_error *error,
                                                          const char *format, ...)
{
    va_list args;

    if (!error)
        return;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
}

/* ---- from configuration to what the rooms want
 * ------------------------------------------------------- */

static uint32_t default_max_flows(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return 1u << 20;
    if (limit.rlim_cur <= 2 * DESCRIPTORS_SPARED)
        return (uint32_t)(limit.rlim_cur / 2);
    return limit.rlim_cur > 1u << 20 ? 1u << 20 : (uint32_t)limit.rlim_cur - DESCRIPTORS_SPARED;
}

static int stack_config_fill(const struct culvert_config *config, struct stack_config *ret)
{
    *ret = (struct stack_config){
        .mtu = config->mtu,
        .guest4 = config->ipv4.guest,
        .gateway4 = config->ipv4.gateway,
        .dns4 = config->ipv4.dns,
        .prefix4 = config->ipv4.prefix,
        .ipv6 = config_ipv6_offered(config),
        .guest6 = config->ipv6.guest,
        .gateway6 = config->ipv6.gateway,
        .dns6 = config->ipv6.dns,
        .prefix6 = config->ipv6.prefix,
        .max_flows = config->max_flows ? config->max_flows : default_max_flows(),
        .verify_checksums = true,
    };
    memcpy(ret->gateway_mac, gateway_mac, sizeof gateway_mac);
    ip_address_parse("fe80::2", &ret->link_local6);
    snprintf(ret->hostname, sizeof ret->hostname, "%s", config->hostname);
    if (getrandom(ret->hash_key, sizeof ret->hash_key, 0) != sizeof ret->hash_key)
        return -errno;
    return 0;
}

void engine_guard_dns(struct culvert_engine *engine)
{
    dns_set_guard(engine->dns, &(struct dns_guard){.policy = engine->policy,
                                                   .world = &engine->world,
                                                   .pins = engine->pins,
                                                   .denied = engine->dns_denied,
                                                   .lenient = engine->audit || engine->learn,
                                                   .by_name = engine->learn,
                                                   .refused = tell_dns_refusal,
                                                   .ctx = engine});
}

static int dns_fill(struct culvert_engine *engine, const struct culvert_config *config)
{
    struct dns_config dns_config = {.upstream_count = config->dns_count};
    int r;

    memcpy(dns_config.upstreams, config->dns, sizeof dns_config.upstreams);
    engine->dns =
        dns_new(&dns_config, engine->stack, &engine->loop, engine->timers, &engine->counters);
    if (!engine->dns)
        return -errno;
    engine_guard_dns(engine);
    r = dns_add_host(engine->dns, "host.culvert.internal", &engine->addresses.gateway4);
    if (r == 0 && engine->addresses.ipv6)
        r = dns_add_host(engine->dns, "host.culvert.internal", &engine->addresses.gateway6);
    for (size_t i = 0; r == 0 && i < config->dns_host_count; i++)
        r = dns_add_host(engine->dns, config->dns_hosts[i].name, &config->dns_hosts[i].address);
    return r;
}

/* ---- building
 * ---------------------------------------------------------------------------------------- */

static int build_base(struct culvert_engine *engine)
{
    int r = loop_init(&engine->loop);

    if (r < 0)
        return r;
    engine->now = clock_now();
    engine->state = culvert_shared_state_new(QUEUE_CAPACITY);
    if (!engine->state)
        return -errno;
    engine->timers = timers_new(engine, engine->now);
    if (!engine->timers)
        return -ENOMEM;
    return engine_poll_init(engine);
}

static int build_policy(struct culvert_engine *engine, const struct culvert_config *config)
{
    const struct stack_config *addresses = &engine->addresses;

    int r = policy_swap_init(engine, config);

    if (r < 0)
        return r;
    engine->host_addresses = host_addresses_new(&engine->loop);
    if (!engine->host_addresses)
        return -errno;
    engine->world = (struct policy_world){
        .gateway4 = addresses->gateway4,
        .gateway6 = addresses->gateway6,
        .dns4 = addresses->dns4,
        .dns6 = addresses->dns6,
        .is_host_address = host_addresses_is_local,
        .ctx = engine->host_addresses,
    };
    return 0;
}

static int send_frame(void *ctx, struct culvert_frame *frame)
{
    struct culvert_engine *engine = ctx;

    return engine->netdev->ops->send(engine->netdev, frame);
}

static const struct stack_ops *stack_operations(void)
{
    static const struct stack_ops ops = {
        .send = send_frame,
        .tcp_open = admit_tcp,
        .udp_input = admit_udp,
        .echo_input = admit_echo,
        .tcp_closed = admitted_tcp_closed,
    };

    return &ops;
}

static int build_network(struct culvert_engine *engine, const struct culvert_config *config)
{
    engine->stack = stack_new(&engine->addresses, stack_operations(), engine, engine->timers,
                              &engine->counters, engine->now);
    if (!engine->stack)
        return -ENOMEM;
    engine->relay = relay_new(engine->stack, &engine->loop, engine->timers, &engine->counters);
    if (!engine->relay)
        return -errno;
    relay_set_judge(engine->relay, rejudge_peer, engine);
    return dns_fill(engine, config);
}

static int build(struct culvert_engine *engine, const struct culvert_config *config,
                 struct culvert_error *error)
{
    int r = stack_config_fill(config, &engine->addresses);

    if (r == 0)
        r = build_base(engine);
    if (r == 0)
        r = learning_begin(engine, config, error);
    if (r == 0)
        r = build_policy(engine, config);
    if (r == 0)
        r = events_open(engine, config, error);
    if (r == 0)
        r = build_network(engine, config);
    if (r == 0)
        r = ingress_open(engine, config, error);
    spin_init(&engine->spin,
              config->spin_given ? config->spin_us * UINT64_C(1000) : SPIN_NS_DEFAULT);
    return r;
}

struct culvert_engine *culvert_engine_new(const struct culvert_config *config,
                                          struct culvert_error *error)
{
    struct culvert_engine *engine;
    int r = config_finish(config, error);

    if (r < 0) {
        errno = -r;
        return NULL;
    }
    engine = calloc(1, sizeof *engine);
    if (!engine) {
        explain(error, "no memory for an engine");
        return NULL;
    }
    pthread_mutex_init(&engine->swap.lock, NULL);
    engine->loop.epoll_fd = -1;
    engine->once = config->frontend.once;
    engine->audit = config->audit;
    memcpy(engine->mac, config->mac, sizeof engine->mac);
    snprintf(engine->netns, sizeof engine->netns, "%s", config->frontend.netns);
    if (error)
        error->message[0] = '\0';
    r = build(engine, config, error);
    if (r < 0) {
        if (error && error->message[0] == '\0')
            explain(error, "the engine cannot be set up: %s", strerror(-r));
        culvert_engine_free(engine);
        errno = -r;
        return NULL;
    }
    return engine;
}

struct culvert_shared_state *culvert_engine_shared_state(struct culvert_engine *engine)
{
    return engine->state;
}

int culvert_engine_attach_tap(struct culvert_engine *engine, int take_fd)
{
    if (engine->netdev || engine->running)
        return -EBUSY;
    struct netdev *netdev =
        netdev_tap_new(take_fd, engine->addresses.mtu, &engine->loop, &engine->counters);
    if (!netdev)
        return -errno;
    engine_take_netdev(engine, netdev);
    return 0;
}

/* ---- running
 * ----------------------------------------------------------------------------------------- */

/* The thread takes no signal: they are the program's. */
static int thread_start(struct culvert_engine *engine)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&engine->thread, NULL, engine_poll_thread, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        pthread_setname_np(engine->thread, "culvert-poll");
    return -r;
}

static int start(struct culvert_engine *engine)
{
    int r;

    if (engine->running)
        return -EALREADY;
    if (!engine->netdev) {
        struct netdev *netdev = netdev_ring_new(engine->state, &engine->loop, &engine->counters);

        if (!netdev)
            return -errno;
        engine_take_netdev(engine, netdev);
    }
    __atomic_store_n(&engine->stop, 0, __ATOMIC_RELEASE);
    r = policy_swap_start(engine);
    if (r == 0 && engine->event_file)
        r = event_file_start(engine->event_file);
    if (r == 0)
        r = thread_start(engine);
    engine->running = r == 0;
    if (r < 0 && engine->event_file)
        event_file_stop(engine->event_file);
    return r;
}

int culvert_engine_start(struct culvert_engine *engine)
{
    int r;

    if (policy_swap_is_polling(engine))
        return -EDEADLK;
    pthread_mutex_lock(&engine->swap.lock); /* who replaces the policy sees it run, or not */
    r = start(engine);
    pthread_mutex_unlock(&engine->swap.lock);
    return r;
}

int culvert_engine_drain(const struct culvert_engine *engine, unsigned ms)
{
    uint64_t until = clock_now() + ms * MS_NS;

    while (__atomic_load_n(&engine->queued_bytes, __ATOMIC_ACQUIRE) > 0) {
        if (!engine->running || clock_now() >= until)
            return -ETIMEDOUT;
        usleep(1000);
    }
    return 0;
}

int culvert_engine_ping_error(const struct culvert_engine *engine, bool ipv6)
{
    return relay_echo_available(engine->relay, ipv6);
}

int culvert_engine_stop(struct culvert_engine *engine)
{
    if (policy_swap_is_polling(engine))
        return -EDEADLK;
    pthread_mutex_lock(&engine->swap.lock); /* nobody waits for the thread any more */
    if (engine->running) {
        __atomic_store_n(&engine->stop, 1, __ATOMIC_RELEASE);
        culvert_wake_signal(&engine->state->proxy_wake);
        pthread_join(engine->thread, NULL);
        engine->running = false;
        if (engine->event_file)
            event_file_stop(engine->event_file);
    }
    pthread_mutex_unlock(&engine->swap.lock);
    return 0;
}

struct culvert_engine *culvert_engine_free(struct culvert_engine *engine)
{
    if (!engine)
        return NULL;
    if (culvert_engine_stop(engine) < 0)
        return engine;
    policy_swap_end(engine);
    events_close(engine);
    relay_free(engine->relay);
    peek_udp_free(engine->peek_udp);
    dns_free(engine->dns);
    stack_free(engine->stack);
    if (engine->netdev)
        engine->netdev->ops->free(engine->netdev);
    attachment_end(engine);
    host_addresses_free(engine->host_addresses);
    ingress_free(engine);
    policy_swap_fini(engine);
    pins_free(engine->pins);
    flow_records_free(&engine->records);
    learning_end(engine);
    timers_free(engine->timers);
    culvert_shared_state_free(engine->state);
    loop_fini(&engine->loop);
    free(engine);
    return NULL;
}

void culvert_engine_counters(const struct culvert_engine *engine,
                             void (*visit)(void *arg, const char *name, const char *sentence,
                                           uint64_t value),
                             void *arg)
{
    if (engine->netdev && engine->netdev->ops->refresh_counters)
        engine->netdev->ops->refresh_counters(engine->netdev);
    for (int i = 0; i < COUNTER_COUNT; i++) {
        uint64_t value = counter_value(&engine->counters, (enum counter)i);

        if (value != 0)
            visit(arg, counter_name((enum counter)i), counter_sentence((enum counter)i), value);
    }
}
