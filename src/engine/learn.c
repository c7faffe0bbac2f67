/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/learn.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "engine/learn_table.h"

#define PORTS_MAX 131072u /* of all targets together */

/* ---- life ---- */

struct learn *learn_new(struct counters *counters, const uint64_t key[2])
{
    struct learn *learn = calloc(1, sizeof *learn);

    if (!learn)
        return NULL;
    learn->counters = counters;
    memcpy(learn->key, key, sizeof learn->key);
    return learn;
}

static void free_bucket(struct learnt *learnt)
{
    while (learnt) {
        struct learnt *next = learnt->next;

        free(learnt->ports);
        free(learnt->inside);
        free(learnt);
        learnt = next;
    }
}

struct learn *learn_free(struct learn *learn)
{
    if (!learn)
        return NULL;
    for (size_t i = 0; i < LEARN_BUCKETS; i++)
        free_bucket(learn->buckets[i]);
    for (size_t i = 0; i < learn->refusal_count; i++) {
        free(learn->refusals[i].remedy);
        free(learn->refusals[i].what);
    }
    free(learn);
    return NULL;
}

/* ---- ports and addresses ---- */

/* Room for one more behind `count` items: capacities are powers of two. */
static void *grow(void *items, size_t count, size_t size)
{
    if ((count & (count - 1)) != 0)
        return items;
    return realloc(items, (count ? 2 * count : 1) * size);
}

bool learnt_add_port(struct learnt *learnt, uint16_t port)
{
    size_t at = learnt->port_count;
    uint16_t *ports;

    while (at > 0 && learnt->ports[at - 1] > port)
        at--;
    if (at > 0 && learnt->ports[at - 1] == port)
        return true;
    ports = grow(learnt->ports, learnt->port_count, sizeof *ports);
    if (!ports)
        return false;
    memmove(ports + at + 1, ports + at, (learnt->port_count - at) * sizeof *ports);
    ports[at] = port;
    learnt->ports = ports;
    learnt->port_count++;
    return true;
}

bool learnt_add_address(struct learnt *learnt, const struct ip_address *address)
{
    struct ip_address *inside;

    for (size_t i = 0; i < learnt->inside_count; i++)
        if (ip_address_equal(&learnt->inside[i], address))
            return true;
    if (learnt->inside_count == LEARN_ADDRESSES_MAX)
        return false;
    inside = grow(learnt->inside, learnt->inside_count, sizeof *inside);
    if (!inside)
        return false;
    inside[learnt->inside_count++] = *address;
    learnt->inside = inside;
    return true;
}

/* ---- flows ---- */

static uint8_t protocol_of(const struct learn_flow *flow)
{
    return flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP ? flow->protocol
                                                                          : IPPROTO_ICMP;
}

/* What the flow goes to, as an entry without ports. */
static void fill_target(const struct learn_flow *flow, struct learnt *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->protocol = protocol_of(flow);
    if (flow->name) {
        ret->name = *flow->name;
        dns_name_lower(&ret->name);
        return;
    }
    ret->address = flow->address;
    if (flow->seen)
        ret->seen = *flow->seen;
}

static struct learnt **bucket_of(struct learn *learn, const struct learnt *target)
{
    uint8_t key[1 + 16 + DNS_NAME_MAX];

    key[0] = target->protocol;
    memcpy(key + 1, target->address.bytes, 16);
    memcpy(key + 17, target->name.bytes, target->name.len);
    return &learn->buckets[hash_bytes(learn->key, key, 17u + target->name.len) % LEARN_BUCKETS];
}

static bool is_same(const struct learnt *a, const struct learnt *b)
{
    return a->protocol == b->protocol && a->name.len == b->name.len &&
           memcmp(a->name.bytes, b->name.bytes, a->name.len) == 0 &&
           ip_address_equal(&a->address, &b->address);
}

static struct learnt *find_or_add(struct learn *learn, const struct learnt *target)
{
    struct learnt **bucket = bucket_of(learn, target), *learnt = *bucket;

    while (learnt && !is_same(learnt, target))
        learnt = learnt->next;
    if (learnt || learn->count == LEARN_TARGETS_MAX)
        return learnt;
    learnt = malloc(sizeof *learnt);
    if (!learnt)
        return NULL;
    *learnt = *target;
    learnt->next = *bucket;
    *bucket = learnt;
    learn->count++;
    return learnt;
}

static bool add_port(struct learn *learn, struct learnt *learnt, uint16_t port)
{
    size_t before = learnt->port_count;

    if (learnt->protocol == IPPROTO_ICMP)
        return true;
    if (learn->port_count == PORTS_MAX || !learnt_add_port(learnt, port))
        return false;
    learn->port_count += learnt->port_count - before;
    return true;
}

void learn_flow(struct learn *learn, const struct learn_flow *flow)
{
    struct learnt target, *learnt;

    fill_target(flow, &target);
    learnt = find_or_add(learn, &target);
    if (!learnt || !add_port(learn, learnt, flow->port) ||
        (flow->name && !flow->is_public && !learnt_add_address(learnt, &flow->address)))
        count(learn->counters, COUNTER_learn_full);
}

void learn_lookup(struct learn *learn)
{
    learn->looked_up = true;
}

/* ---- refusals ---- */

static bool is_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

void learn_refusal(struct learn *learn, const char *remedy, const char *what)
{
    struct learnt_refusal refusal = {.count = 1};

    for (size_t i = 0; i < learn->refusal_count; i++) {
        if (is_text(learn->refusals[i].remedy, remedy) && is_text(learn->refusals[i].what, what)) {
            learn->refusals[i].count++;
            return;
        }
    }
    if (learn->refusal_count < LEARN_REFUSALS_MAX) {
        refusal.what = strdup(what);
        refusal.remedy = remedy ? strdup(remedy) : NULL;
    }
    if (!refusal.what || (remedy && !refusal.remedy)) {
        free(refusal.what);
        free(refusal.remedy);
        count(learn->counters, COUNTER_learn_full);
        return;
    }
    learn->refusals[learn->refusal_count++] = refusal;
}
