/* SPDX-License-Identifier: Apache-2.0 */

/* A pin is found by its pair (name, address) in one hash table; the addresses that have pins stand
 * in another, each with the list of its pins. A third order goes through all pins by age.
 *
 * Expired pins are invisible at once and freed when something is learnt: those at the old end of
 * the age list go then, the others when they get there or when room is needed. */

#include "policy/pins.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/list.h"

#define SECOND        UINT64_C(1000000000)
#define TTL_MIN       60u
#define TTL_MAX       86400u
#define GRACE         (3600 * SECOND)
#define FIRST_BUCKETS 64
#define SWEEP_MAX     4 /* expired pins that one learnt pin sweeps */

/* ---- a hash table of links ---- */

struct hash_link {
    struct hash_link *next;
    uint64_t hash;
};

struct hash_table {
    struct hash_link **buckets;
    size_t bucket_count, count; /* the former a power of two */
};

static int hash_table_init(struct hash_table *table)
{
    table->buckets = calloc(FIRST_BUCKETS, sizeof(struct hash_link *));
    table->bucket_count = FIRST_BUCKETS;
    return table->buckets ? 0 : -ENOMEM;
}

static struct hash_link **bucket_of(const struct hash_table *table, uint64_t hash)
{
    return &table->buckets[hash & (table->bucket_count - 1)];
}

/* Without memory the chains grow longer instead. */
static void hash_table_grow(struct hash_table *table)
{
    struct hash_table larger = {.bucket_count = table->bucket_count * 2, .count = table->count};
    larger.buckets = calloc(larger.bucket_count, sizeof(struct hash_link *));
    if (!larger.buckets)
        return;
    for (size_t i = 0; i < table->bucket_count; i++) {
        for (struct hash_link *link = table->buckets[i], *next; link; link = next) {
            struct hash_link **bucket = bucket_of(&larger, link->hash);
            next = link->next;
            link->next = *bucket;
            *bucket = link;
        }
    }
    free(table->buckets);
    *table = larger;
}

static void hash_table_insert(struct hash_table *table, struct hash_link *link, uint64_t hash)
{
    if (table->count >= table->bucket_count)
        hash_table_grow(table);
    struct hash_link **bucket = bucket_of(table, hash);
    link->hash = hash;
    link->next = *bucket;
    *bucket = link;
    table->count++;
}

static void hash_table_remove(struct hash_table *table, struct hash_link *link)
{
    struct hash_link **at = bucket_of(table, link->hash);
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    table->count--;
}

/* ---- pins and their addresses ---- */

struct pinned_address {
    struct hash_link link;
    struct ip_address address;
    struct list pins; /* newest first */
    uint32_t pin_count;
};

struct pin {
    struct hash_link link;
    struct list by_age;     /* in pins->by_age */
    struct list of_address; /* in its address's list */
    struct pinned_address *address;
    uint64_t expires;         /* in whatever role */
    uint64_t queried_expires; /* 0: it was never the queried name */
    uint8_t name_len;
    uint8_t name[]; /* lower case */
};

struct pins {
    struct pins_limits limits;
    uint64_t key[2];
    struct hash_table pairs, addresses;
    struct list by_age; /* oldest first */
    struct pins_figures figures;
};

static struct pin *pin_of(struct list *by_age)
{
    return list_entry(by_age, struct pin, by_age);
}

static size_t pin_size(const struct pin *pin)
{
    return sizeof *pin + pin->name_len;
}

struct pins *pins_new(const struct pins_limits *limits, const uint64_t key[2])
{
    struct pins *pins = calloc(1, sizeof *pins);
    if (!pins)
        return NULL;
    list_init(&pins->by_age);
    if (hash_table_init(&pins->pairs) < 0 || hash_table_init(&pins->addresses) < 0)
        return pins_free(pins);
    memcpy(pins->key, key, sizeof pins->key);
    pins->limits = limits ? *limits : (struct pins_limits){0};
    if (pins->limits.entries == 0)
        pins->limits.entries = PINS_ENTRIES_DEFAULT;
    if (pins->limits.bytes == 0)
        pins->limits.bytes = PINS_BYTES_DEFAULT;
    return pins;
}

static void pin_remove(struct pins *pins, struct pin *pin)
{
    struct pinned_address *address = pin->address;
    list_remove(&pin->by_age);
    list_remove(&pin->of_address);
    hash_table_remove(&pins->pairs, &pin->link);
    pins->figures.entries--;
    pins->figures.bytes -= pin_size(pin);
    free(pin);
    if (--address->pin_count > 0)
        return;
    hash_table_remove(&pins->addresses, &address->link);
    pins->figures.bytes -= sizeof *address;
    free(address);
}

struct pins *pins_free(struct pins *pins)
{
    if (!pins)
        return NULL;
    list_for_each_safe (link, &pins->by_age)
        pin_remove(pins, pin_of(link));
    free(pins->pairs.buckets);
    free(pins->addresses.buckets);
    free(pins);
    return NULL;
}

/* ---- finding ---- */

/* What a pair is hashed and compared by. */
struct pair {
    struct dns_name name; /* lower case */
    uint64_t hash;
};

static struct pair pair_of(const struct pins *pins, const struct dns_name *name,
                           const struct ip_address *address)
{
    struct pair pair = {.name = *name};
    uint8_t bytes[sizeof address->bytes + DNS_NAME_MAX];
    dns_name_lower(&pair.name);
    memcpy(bytes, address->bytes, sizeof address->bytes);
    memcpy(bytes + sizeof address->bytes, pair.name.bytes, pair.name.len);
    pair.hash = hash_bytes(pins->key, bytes, sizeof address->bytes + pair.name.len);
    return pair;
}

static struct pin *find_pair(const struct pins *pins, const struct pair *pair,
                             const struct ip_address *address)
{
    for (struct hash_link *link = *bucket_of(&pins->pairs, pair->hash); link; link = link->next) {
        struct pin *pin = (struct pin *)link;
        if (link->hash == pair->hash && ip_address_equal(&pin->address->address, address) &&
            pin->name_len == pair->name.len &&
            memcmp(pin->name, pair->name.bytes, pin->name_len) == 0)
            return pin;
    }
    return NULL;
}

static struct pinned_address *find_address(const struct pins *pins,
                                           const struct ip_address *address)
{
    uint64_t hash = hash_bytes(pins->key, address->bytes, sizeof address->bytes);
    for (struct hash_link *link = *bucket_of(&pins->addresses, hash); link; link = link->next) {
        struct pinned_address *found = (struct pinned_address *)link;
        if (ip_address_equal(&found->address, address))
            return found;
    }
    return NULL;
}

const struct pin *pins_find(const struct pins *pins, const struct dns_name *name,
                            const struct ip_address *address, uint64_t now)
{
    struct pair pair = pair_of(pins, name, address);
    const struct pin *pin = find_pair(pins, &pair, address);
    return pin && pin->expires > now ? pin : NULL;
}

/* The first that has not expired from `link` on. */
static const struct pin *first_alive(const struct list *link, const struct list *end, uint64_t now)
{
    for (; link != end; link = link->next) {
        const struct pin *pin = list_entry(link, struct pin, of_address);
        if (pin->expires > now)
            return pin;
    }
    return NULL;
}

const struct pin *pins_first(const struct pins *pins, const struct ip_address *address,
                             uint64_t now)
{
    const struct pinned_address *found = find_address(pins, address);
    return found ? first_alive(found->pins.next, &found->pins, now) : NULL;
}

const struct pin *pins_next(const struct pin *pin, uint64_t now)
{
    return first_alive(pin->of_address.next, &pin->address->pins, now);
}

void pin_name(const struct pin *pin, struct dns_name *ret)
{
    ret->len = pin->name_len;
    memcpy(ret->bytes, pin->name, pin->name_len);
}

const struct ip_address *pin_address(const struct pin *pin)
{
    return &pin->address->address;
}

enum pin_role pin_role(const struct pin *pin, uint64_t now)
{
    return pin->queried_expires > now ? PIN_QUERIED : PIN_CHAIN;
}

struct pins_figures pins_figures(const struct pins *pins)
{
    return pins->figures;
}

/* ---- learning ---- */

static void sweep(struct pins *pins, uint64_t now)
{
    for (unsigned i = 0; i < SWEEP_MAX && !list_empty(&pins->by_age); i++) {
        struct pin *pin = pin_of(pins->by_age.next);
        if (pin->expires > now)
            return;
        pin_remove(pins, pin);
        pins->figures.expired++;
    }
}

/* Room beside `keep` (just learnt, or NULL). */
static void make_room(struct pins *pins, const struct pin *keep)
{
    while (pins->figures.entries > pins->limits.entries ||
           pins->figures.bytes > pins->limits.bytes) {
        struct pin *oldest = pin_of(pins->by_age.next);
        if (oldest == keep)
            return;
        pin_remove(pins, oldest);
        pins->figures.evicted++;
    }
}

static struct pinned_address *address_intern(struct pins *pins, const struct ip_address *address)
{
    struct pinned_address *found = find_address(pins, address);
    if (found)
        return found;
    found = calloc(1, sizeof *found);
    if (!found)
        return NULL;
    found->address = *address;
    list_init(&found->pins);
    hash_table_insert(&pins->addresses, &found->link,
                      hash_bytes(pins->key, address->bytes, sizeof address->bytes));
    pins->figures.bytes += sizeof *found;
    return found;
}

static struct pin *pin_insert(struct pins *pins, const struct pair *pair,
                              const struct ip_address *address)
{
    struct pin *pin = calloc(1, sizeof *pin + pair->name.len);
    struct pinned_address *home = pin ? address_intern(pins, address) : NULL;
    if (!home) {
        free(pin);
        return NULL;
    }
    pin->address = home;
    pin->name_len = pair->name.len;
    memcpy(pin->name, pair->name.bytes, pair->name.len);
    list_push_back(&pins->by_age, &pin->by_age);
    list_push_front(&home->pins, &pin->of_address);
    hash_table_insert(&pins->pairs, &pin->link, pair->hash);
    home->pin_count++;
    pins->figures.entries++;
    pins->figures.bytes += pin_size(pin);
    if (home->pin_count > PINS_PER_ADDRESS) {
        pin_remove(pins, list_entry(home->pins.prev, struct pin, of_address));
        pins->figures.evicted++;
    }
    return pin;
}

static void make_newest(struct pins *pins, struct pin *pin)
{
    list_remove(&pin->by_age);
    list_push_back(&pins->by_age, &pin->by_age);
    list_remove(&pin->of_address);
    list_push_front(&pin->address->pins, &pin->of_address);
}

static void raise_to(uint64_t *value, uint64_t to)
{
    if (*value < to)
        *value = to;
}

int pins_learn(struct pins *pins, const struct dns_name *name, const struct ip_address *address,
               enum pin_role role, uint32_t ttl, uint64_t now)
{
    uint32_t held = ttl < TTL_MIN ? TTL_MIN : ttl > TTL_MAX ? TTL_MAX : ttl;
    uint64_t expires = now + held * SECOND + GRACE;
    struct pair pair = pair_of(pins, name, address);

    sweep(pins, now);
    struct pin *pin = find_pair(pins, &pair, address);
    if (pin)
        make_newest(pins, pin);
    else if (!(pin = pin_insert(pins, &pair, address)))
        return -ENOMEM;
    raise_to(&pin->expires, expires);
    if (role == PIN_QUERIED)
        raise_to(&pin->queried_expires, expires);
    pins->figures.learnt++;
    make_room(pins, pin);
    return 0;
}

void pins_use(struct pins *pins, const struct dns_name *name, const struct ip_address *address,
              uint64_t now)
{
    struct pair pair = pair_of(pins, name, address);
    struct pin *pin = find_pair(pins, &pair, address);
    if (!pin || pin->expires <= now)
        return;
    raise_to(&pin->expires, now + GRACE);
    if (pin->queried_expires > now)
        raise_to(&pin->queried_expires, now + GRACE);
    make_newest(pins, pin);
}
