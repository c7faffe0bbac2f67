/* SPDX-License-Identifier: Apache-2.0 */
/* Answers, kept as they came from upstream for as long as they say.
 *
 * An entry is found by all that makes two questions equal: name, type, class, flags and DO. It
 * lives for the least TTL of its records; an answer that there is nothing, for the TTL that its SOA
 * grants (RFC 2308, section 5), and not at all without one. Each time it is given, its TTLs are
 * lowered by its age.
 *
 * Entries and bytes are bounded: the one longest not asked for goes first. Nothing is armed for
 * their end; an expired entry goes when it is asked for or when room is needed. */
#include <stdlib.h>
#include <string.h>

#include "dns/internal.h"
#include "wire/bytes.h"

struct cache_entry {
    struct list bucket, age; /* of its bucket; by last use */
    struct cache_key key;
    uint64_t stored, expires;
    size_t len;
    uint8_t answer[];
};

void cache_init(struct dns_cache *cache, size_t entries_max, size_t bytes_max)
{
    cache->entries_max = entries_max;
    cache->bytes_max = bytes_max;
    list_init(&cache->by_age);
    for (size_t i = 0; i < DNS_CACHE_BUCKETS; i++)
        list_init(&cache->buckets[i]);
}

static size_t entry_size(size_t len)
{
    return sizeof(struct cache_entry) + len;
}

static void entry_drop(struct dns_cache *cache, struct cache_entry *entry)
{
    list_remove(&entry->bucket);
    list_remove(&entry->age);
    cache->entries--;
    cache->bytes -= entry_size(entry->len);
    free(entry);
}

void cache_clear(struct dns_cache *cache)
{
    list_for_each_safe (link, &cache->by_age)
        entry_drop(cache, list_entry(link, struct cache_entry, age));
}

bool cache_key_equal(const struct cache_key *a, const struct cache_key *b)
{
    return a->hash == b->hash && a->question.type == b->question.type &&
           a->question.qclass == b->question.qclass && a->flags == b->flags &&
           a->dnssec_ok == b->dnssec_ok && dns_name_equal(&a->question.name, &b->question.name);
}

static struct cache_entry *find(const struct dns_cache *cache, const struct cache_key *key)
{
    list_for_each (link, &cache->buckets[key->hash % DNS_CACHE_BUCKETS]) {
        struct cache_entry *entry = list_entry(link, struct cache_entry, bucket);

        if (cache_key_equal(&entry->key, key))
            return entry;
    }
    return NULL;
}

/* ---- how long ---- */

/* RFC 2181, section 8: with the upper bit set, a TTL is zero. */
static uint32_t ttl_of(const struct dns_record *record)
{
    return record->ttl > INT32_MAX ? 0 : record->ttl;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The last four bytes of a SOA's data: what it grants to an answer that there is nothing. */
static uint32_t soa_minimum(const uint8_t *answer, const struct dns_record *soa)
{
    return soa->data_len < 22 ? 0 : load_be32(answer + soa->data + soa->data_len - 4);
}

/* What an answer says about its life, in seconds; 0: not to be kept. */
static uint32_t lifetime(const uint8_t *answer, const struct dns_message *m)
{
    struct dns_walk walk = dns_walk_of(answer, m->end, &m->header, m->records);
    unsigned rcode = m->header.flags & DNS_RCODE_MASK;
    uint32_t ttl = DNS_CACHE_TTL_MAX, negative = 0;
    bool has_data = false;
    struct dns_record record;

    if ((m->header.flags & DNS_FLAG_TC) || m->edns.rcode_high != 0 ||
        (rcode != DNS_NOERROR && rcode != DNS_NXDOMAIN))
        return 0;
    while (dns_walk_next(&walk, &record) > 0) {
        if (record.type == DNS_TYPE_OPT)
            continue;
        ttl = least(ttl, ttl_of(&record));
        if (record.section == DNS_ANSWER &&
            (record.type == m->question.type || m->question.type == DNS_TYPE_ANY))
            has_data = true;
        if (record.section == DNS_AUTHORITY && record.type == DNS_TYPE_SOA)
            negative = least(least(ttl_of(&record), soa_minimum(answer, &record)),
                             DNS_CACHE_NEGATIVE_TTL_MAX);
    }
    return rcode == DNS_NOERROR && has_data ? ttl : least(ttl, negative);
}

/* ---- in ---- */

static void make_room(struct dns_cache *cache, struct counters *counters, size_t size)
{
    while (cache->entries > 0 &&
           (cache->entries >= cache->entries_max || cache->bytes + size > cache->bytes_max)) {
        count(counters, COUNTER_dns_cache_evicted);
        entry_drop(cache, list_entry(list_first(&cache->by_age), struct cache_entry, age));
    }
}

void cache_put(struct dns *dns, const struct cache_key *key, const uint8_t *answer,
               const struct dns_message *m, uint64_t now)
{
    struct dns_cache *cache = &dns->cache;
    uint32_t ttl = lifetime(answer, m);
    struct cache_entry *entry = find(cache, key);

    if (entry)
        entry_drop(cache, entry);
    if (ttl == 0 || entry_size(m->end) > cache->bytes_max / DNS_CACHE_SHARE)
        return;
    make_room(cache, dns->counters, entry_size(m->end));
    entry = malloc(entry_size(m->end));
    if (!entry)
        return;
    entry->key = *key;
    entry->stored = now;
    entry->expires = now + ttl * SECOND_NS;
    entry->len = m->end;
    memcpy(entry->answer, answer, m->end);
    list_push_back(&cache->buckets[key->hash % DNS_CACHE_BUCKETS], &entry->bucket);
    list_push_back(&cache->by_age, &entry->age);
    cache->entries++;
    cache->bytes += entry_size(m->end);
}

/* ---- out ---- */

/* Lowers the TTLs of a copy. What is kept was read before, so that it can be walked again. */
static void lower_ttls(uint8_t *answer, const struct dns_message *m, uint32_t age)
{
    struct dns_walk walk = dns_walk_of(answer, m->end, &m->header, m->records);
    struct dns_record record;

    while (dns_walk_next(&walk, &record) > 0) {
        uint32_t ttl = ttl_of(&record);

        if (record.type != DNS_TYPE_OPT)
            store_be32(answer + record.data - 6, ttl > age ? ttl - age : 0);
    }
}

const uint8_t *cache_get(struct dns *dns, const struct cache_key *key, uint64_t now,
                         struct dns_message *ret)
{
    struct dns_cache *cache = &dns->cache;
    struct cache_entry *entry = find(cache, key);

    if (!entry)
        return NULL;
    if (now >= entry->expires) {
        entry_drop(cache, entry);
        return NULL;
    }
    list_remove(&entry->age);
    list_push_back(&cache->by_age, &entry->age);
    memcpy(dns->cached, entry->answer, entry->len);
    if (dns_message_read(dns->cached, entry->len, ret) < 0)
        return NULL;                             /* not to be: it was read when it came */
    ret->header.flags &= (uint16_t)~DNS_FLAG_AA; /* whoever keeps it has no authority */
    lower_ttls(dns->cached, ret, (uint32_t)((now - entry->stored) / SECOND_NS));
    return dns->cached;
}
