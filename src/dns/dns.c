/* SPDX-License-Identifier: Apache-2.0 */
/* The resolver the guest sees.
 *
 * Theory of operation. A question passes these stations, each a file:
 *
 *     dns.c, guest_tcp.c   a message of the guest's, by datagram or TCP, becomes a `dns_asker`
 *     dns.c                what is no plain query is answered at once: FORMERR, NOTIMP, …
 *     hosts.c              names that are known here are answered at once
 *     filter.c             names that the policy denies are refused
 *     cache.c              questions that were answered a while ago are answered again
 *     query.c              others join the outstanding query of the same question, or begin one
 *     attempt.c            a query asks servers, one after the other, each time from a new socket
 *     stream.c, tls.c      or over a connection that stays for a while
 *     query.c              what comes back is checked, and handed to all who wait
 *     filter.c             without the addresses that the policy keeps from the guest
 *     reply.c              each gets it with its own id, in its own case, at the size it takes
 *
 * Against forged answers: every attempt has its own socket, thus its own random port, connected, so
 * that the kernel checks the source; a random id; and the question in a random case that must come
 * back. Equal questions share one query, so that asking often does not multiply the chances.
 *
 * Every message that can be answered is answered: SERVFAIL at the latest when DNS_DEADLINE has
 * passed or when there is no room for another question.
 *
 * Queries, attempts, waiting messages and guest flows live in tables of fixed size and address, of
 * which only what was ever used takes memory. The stack may call the resolver from within a call
 * of the resolver's; guest_tcp.c says how that stays harmless. Nothing is armed and nothing wakes
 * while no question is outstanding and the guest has no TCP flow open. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"
#include "dns/internal.h"
#include "wire/bytes.h"

/* Up to 256 bytes from getrandom(2) are never interrupted nor cut short. It works at dns_new(); if
 * it is taken away later (a seccomp filter that forgot it), a keyed hash of a counter goes on. */
static void refill_random(struct dns *dns)
{
    if (getrandom(dns->random, sizeof dns->random, 0) != (ssize_t)sizeof dns->random)
        for (size_t i = 0; i < sizeof dns->random; i += sizeof(uint64_t)) {
            uint64_t value =
                hash_bytes(dns->random_key, &dns->random_counter, sizeof dns->random_counter);

            dns->random_counter++;
            memcpy(dns->random + i, &value, sizeof value);
        }
    dns->random_used = 0;
}

void dns_random(struct dns *dns, void *to, size_t len)
{
    if (len > sizeof dns->random - dns->random_used)
        refill_random(dns);
    memcpy(to, dns->random + dns->random_used, len);
    explicit_bzero(dns->random + dns->random_used, len);
    dns->random_used += len;
}

static int init_random(struct dns *dns)
{
    uint64_t keys[4];

    if (getrandom(keys, sizeof keys, 0) != (ssize_t)sizeof keys)
        return -errno;
    memcpy(dns->hash_key, keys, sizeof dns->hash_key);
    memcpy(dns->random_key, keys + 2, sizeof dns->random_key);
    dns->random_used = sizeof dns->random;
    return 0;
}

/* ---- replies ---- */

static void reply_udp(struct dns *dns, const struct dns_asker *asker, size_t len)
{
    struct culvert_segment segment = {.len = len};
    struct udp_output output = {
        .key = asker->key, .segments = &segment, .segment_count = 1, .len = len};
    int r = -ENOMEM;

    segment.buffer = pool_take_buffer(dns->buffers);
    if (segment.buffer) {
        segment.base = segment.buffer->data;
        memcpy(segment.base, dns_reply_space(dns), len);
        r = stack_udp_output(dns->stack, &output);
        culvert_buffer_unref(segment.buffer);
    }
    if (r < 0)
        count(dns->counters, COUNTER_dns_reply_lost);
}

void dns_reply(struct dns *dns, const struct dns_asker *asker, size_t len)
{
    if (!asker->is_tcp) {
        reply_udp(dns, asker, len);
        return;
    }
    store_be16(dns->reply, (uint16_t)len);
    guest_reply(dns, asker->guest, dns->reply, len + 2);
}

void dns_reply_rcode(struct dns *dns, const struct dns_asker *asker, unsigned rcode)
{
    static const struct dns_error none;

    dns_reply(dns, asker, reply_build_rcode(asker, rcode, &none, dns_reply_space(dns)));
}

/* ---- questions ---- */

/* The rcode for what will not be asked, or NOERROR. Counts. */
static unsigned refuse(struct dns *dns, const struct dns_asker *asker)
{
    if (asker->edns.version != 0) {
        count(dns->counters, COUNTER_dns_edns_version);
        return DNS_BADVERS;
    }
    if (asker->question.type == DNS_TYPE_AXFR || asker->question.type == DNS_TYPE_IXFR) {
        count(dns->counters, COUNTER_dns_transfer);
        return DNS_REFUSED;
    }
    return DNS_NOERROR;
}

static void question_input(struct dns *dns, const struct dns_asker *asker, uint64_t now)
{
    unsigned rcode = refuse(dns, asker);
    size_t len;

    if (rcode != DNS_NOERROR) {
        dns_reply_rcode(dns, asker, rcode);
        return;
    }
    len = hosts_answer(dns, asker, dns_reply_space(dns));
    if (len != 0) {
        count(dns->counters, COUNTER_dns_local_answers);
        filter_local_answer(dns, &asker->question, now);
        dns_reply(dns, asker, len);
        return;
    }
    if (!filter_question(dns, asker))
        query_ask(dns, asker, now);
}

bool dns_message_input(struct dns *dns, struct dns_asker *asker, const uint8_t *message, size_t len,
                       uint64_t now)
{
    struct dns_message m;

    /* Whatever shows an id and is no response gets a reply. */
    if (len < 4 || (message[2] & (DNS_FLAG_QR >> 8))) {
        count(dns->counters, COUNTER_dns_no_query);
        return false;
    }
    asker->id = load_be16(message);
    asker->flags =
        load_be16(message + 2) & (DNS_OPCODE_MASK | DNS_FLAG_RD | DNS_FLAG_CD | DNS_FLAG_AD);
    if (asker->flags & DNS_OPCODE_MASK) {
        count(dns->counters, COUNTER_dns_opcode);
        dns_reply_rcode(dns, asker, DNS_NOTIMP);
        return true;
    }
    if (dns_message_read(message, len, &m) < 0 || m.end != len) {
        count(dns->counters, COUNTER_dns_malformed);
        asker->question.name.len = 0;
        dns_reply_rcode(dns, asker, DNS_FORMERR);
        return true;
    }
    asker->question = m.question;
    asker->edns = m.edns;
    question_input(dns, asker, now);
    return true;
}

static void datagram_input(struct dns *dns, const struct udp_datagram *datagram, size_t offset,
                           size_t len, uint64_t now)
{
    uint8_t message[DNS_GUEST_MESSAGE_MAX];
    struct iovec iov[16];
    struct dns_asker asker = {.key = datagram->key};
    size_t taken = 0, pieces;

    if (len > sizeof message) /* cut short, it will be found malformed */
        len = sizeof message;
    pieces = culvert_frame_slice(datagram->frame, datagram->payload_offset + offset, len, iov, 16);
    for (size_t i = 0; i < pieces && i < 16; i++) {
        memcpy(message + taken, iov[i].iov_base, iov[i].iov_len);
        taken += iov[i].iov_len;
    }
    count(dns->counters, COUNTER_dns_udp_messages);
    dns_message_input(dns, &asker, message, taken, now);
}

void dns_udp_input(struct dns *dns, const struct udp_datagram *datagram, uint64_t now)
{
    size_t step = datagram->gso_size ? datagram->gso_size : datagram->payload_len;
    size_t offset = 0;

    do {
        size_t left = datagram->payload_len - offset;
        size_t len = left < step ? left : step;

        datagram_input(dns, datagram, offset, len, now);
        offset += len;
    } while (offset < datagram->payload_len);
}

/* ---- beginning and end ---- */

void dns_set_guard(struct dns *dns, const struct dns_guard *guard)
{
    dns->guard = *guard;
}

static int allocate_tables(struct dns *dns)
{
    static const struct pool_config replies = {
        .buffer_capacity = DNS_REPLY_UDP_MAX, .max = 4096, .keep = 32};

    dns->queries = calloc(DNS_QUERIES_MAX, sizeof *dns->queries);
    dns->clients = calloc(DNS_CLIENTS_MAX, sizeof *dns->clients);
    dns->attempts = calloc(DNS_ATTEMPTS_MAX, sizeof *dns->attempts);
    dns->guests = calloc(DNS_GUEST_FLOWS_MAX, sizeof *dns->guests);
    dns->streams = calloc(DNS_STREAMS_MAX, sizeof *dns->streams);
    dns->buffers = pool_new(&replies);
    return dns->queries && dns->clients && dns->attempts && dns->guests && dns->streams &&
                   dns->buffers
               ? 0
               : -ENOMEM;
}

/* The servers of this zone; a new list if it was not named before. */
static struct dns_servers *servers_of_zone(struct dns *dns, const struct dns_name *zone)
{
    size_t i = 0;

    if (zone->len == 0)
        return &dns->servers;
    while (i < dns->zone_count && !dns_name_equal(&dns->zones[i].zone, zone))
        i++;
    if (i == dns->zone_count)
        dns->zones[dns->zone_count++].zone = *zone;
    return &dns->zones[i];
}

static int choose_servers(struct dns *dns, const struct dns_config *config)
{
    if (config->upstream_count > DNS_UPSTREAMS_MAX)
        return -EINVAL;
    dns->zones = calloc(DNS_UPSTREAMS_MAX, sizeof *dns->zones);
    if (!dns->zones)
        return -ENOMEM;
    for (size_t i = 0; i < config->upstream_count; i++) {
        struct dns_servers *servers = servers_of_zone(dns, &config->upstreams[i].zone);

        servers->list[servers->count++].where = config->upstreams[i];
        if (config->upstreams[i].tls && !dns->tls && !(dns->tls = tls_context_new()))
            return -errno;
    }
    if (dns->servers.count > 0)
        return 0;
    return resolv_conf_start(dns, config->resolv_conf ? config->resolv_conf : "/etc/resolv.conf");
}

static void init_lists(struct dns *dns)
{
    list_init(&dns->free_queries);
    list_init(&dns->free_clients);
    list_init(&dns->free_attempts);
    list_init(&dns->free_guests);
    list_init(&dns->free_streams);
    list_init(&dns->open_streams);
    list_init(&dns->unsettled);
    for (size_t i = 0; i < DNS_BUCKETS; i++)
        list_init(&dns->buckets[i]);
}

struct dns *dns_new(const struct dns_config *config, struct stack *stack, struct loop *loop,
                    struct timers *timers, struct counters *counters)
{
    struct dns *dns = calloc(1, sizeof *dns);
    int r;

    if (!dns)
        return NULL;
    dns->stack = stack;
    dns->loop = loop;
    dns->timers = timers;
    dns->counters = counters;
    init_lists(dns);
    cache_init(&dns->cache, config->cache_entries ? config->cache_entries : DNS_CACHE_ENTRIES_MAX,
               config->cache_bytes ? config->cache_bytes : DNS_CACHE_BYTES_MAX);
    timer_init(&dns->settle, guest_settle_expired);
    r = init_random(dns);
    if (r == 0)
        r = allocate_tables(dns);
    if (r == 0) {
        dns->attempt_handler = loop_add_handler(loop, attempt_ready, dns);
        dns->stream_handler = loop_add_handler(loop, stream_ready, dns);
        r = choose_servers(dns, config);
    }
    if (r < 0) {
        dns_free(dns);
        errno = -r;
        return NULL;
    }
    return dns;
}

struct dns *dns_free(struct dns *dns)
{
    if (!dns)
        return NULL;
    for (size_t i = 0; i < DNS_BUCKETS; i++)
        list_for_each_safe (link, &dns->buckets[i])
            query_free(list_entry(link, struct dns_query, link));
    stream_close_all(dns);
    tls_context_free(dns->tls);
    guest_close_all(dns);
    timer_cancel(dns->timers, &dns->settle);
    resolv_conf_stop(dns);
    cache_clear(&dns->cache);
    pool_free(dns->buffers);
    free(dns->queries);
    free(dns->clients);
    free(dns->attempts);
    free(dns->guests);
    free(dns->streams);
    free(dns->zones);
    free(dns->hosts);
    free(dns);
    return NULL;
}
