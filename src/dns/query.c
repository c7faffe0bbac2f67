/* SPDX-License-Identifier: Apache-2.0 */
/* Questions under way.
 *
 * A query asks the preferred server first. Whenever one has been silent for DNS_PATIENCE, or says
 * by ICMP that nobody is there, the next is asked too, and the earlier attempts may still be
 * answered; after all were asked, a new round begins with twice the patience. The first good answer
 * ends it. The server that answered while the first one was silent is preferred from then on.
 *
 * SERVFAIL, REFUSED, NOTIMP and FORMERR are a server's own trouble: another may know better. They
 * are passed on if none does.
 *
 * An answer truncated by UDP is asked for again over TCP, unless all who wait take no more than
 * UDP's size anyway. */
#include <string.h>

#include "base/hash.h"
#include "dns/internal.h"
#include "wire/bytes.h"

/* ---- clients ---- */

static struct dns_client *client_take(struct dns *dns)
{
    struct list *link = list_pop_front(&dns->free_clients);
    struct dns_client *client;

    if (link)
        return list_entry(link, struct dns_client, link);
    if (dns->clients_touched == DNS_CLIENTS_MAX)
        return NULL;
    client = &dns->clients[dns->clients_touched++];
    list_init(&client->link);
    return client;
}

static void client_free(struct dns_query *query, struct dns_client *client)
{
    list_remove(&client->link);
    list_push_front(&query->dns->free_clients, &client->link);
    query->client_count--;
}

/* Has the same message been sent again, as stubs do that lose patience? */
static bool is_duplicate(const struct dns_query *query, const struct dns_asker *asker)
{
    if (asker->is_tcp)
        return false;
    list_for_each (link, &query->clients) {
        const struct dns_asker *other = &list_entry(link, struct dns_client, link)->asker;

        if (!other->is_tcp && other->id == asker->id &&
            memcmp(&other->key, &asker->key, sizeof other->key) == 0)
            return true;
    }
    return false;
}

static void fail(struct dns *dns, const struct dns_asker *asker, enum counter why)
{
    count(dns->counters, why);
    dns_reply_rcode(dns, asker, DNS_SERVFAIL);
}

static void query_join(struct dns_query *query, const struct dns_asker *asker)
{
    struct dns *dns = query->dns;
    struct dns_client *client;

    if (is_duplicate(query, asker)) {
        count(dns->counters, COUNTER_dns_duplicate);
        return;
    }
    client = query->client_count < DNS_QUERY_CLIENTS_MAX ? client_take(dns) : NULL;
    if (!client) {
        fail(dns, asker, COUNTER_dns_query_limit);
        return;
    }
    client->asker = *asker;
    list_push_back(&query->clients, &client->link);
    query->client_count++;
}

/* ---- queries ---- */

static void query_expired(void *arg, struct timer *timer, uint64_t now);

static struct dns_query *query_take(struct dns *dns)
{
    struct list *link = list_pop_front(&dns->free_queries);
    struct dns_query *query;

    if (link)
        return list_entry(link, struct dns_query, link);
    if (dns->queries_touched == DNS_QUERIES_MAX)
        return NULL;
    query = &dns->queries[dns->queries_touched++];
    query->dns = dns;
    list_init(&query->link);
    list_init(&query->clients);
    list_init(&query->attempts);
    timer_init(&query->timer, query_expired);
    return query;
}

static void query_drop_attempts(struct dns_query *query)
{
    list_for_each_safe (link, &query->attempts)
        attempt_free(list_entry(link, struct dns_attempt, link));
}

void query_free(struct dns_query *query)
{
    timer_cancel(query->dns->timers, &query->timer);
    query_drop_attempts(query);
    list_for_each_safe (link, &query->clients)
        client_free(query, list_entry(link, struct dns_client, link));
    list_remove(&query->link);
    list_push_front(&query->dns->free_queries, &query->link);
}

/* Everybody learns that nobody knows. */
static void query_fail(struct dns_query *query)
{
    struct dns *dns = query->dns;
    unsigned rcode = query->rcode >= 0 ? (unsigned)query->rcode : DNS_SERVFAIL;

    if (query->rcode < 0)
        count(dns->counters, COUNTER_dns_unanswered);
    list_for_each (link, &query->clients)
        dns_reply_rcode(dns, &list_entry(link, struct dns_client, link)->asker, rcode);
    query_free(query);
}

/* ---- asking ---- */

static struct dns_attempt *oldest_attempt(const struct dns_query *query)
{
    return list_entry(list_first(&query->attempts), struct dns_attempt, link);
}

static uint64_t patience(const struct dns_query *query, size_t server)
{
    const struct dns_servers *servers = query->servers;
    unsigned asked = (query->tries - 1) / (unsigned)servers->count;
    unsigned round = asked < DNS_ROUNDS ? asked : DNS_ROUNDS; /* the list may have shrunk */
    bool tcp = query->over_tcp || servers->list[server].where.tcp_only;

    return (tcp ? DNS_PATIENCE_TCP : DNS_PATIENCE) << round;
}

static void arm(struct dns_query *query, uint64_t when)
{
    timer_arm(query->dns->timers, &query->timer, when < query->deadline ? when : query->deadline);
}

/* Once all were asked, it is worth asking again only while somebody may still answer: where no
 * server can be reached at all, that is known now. */
static bool may_try(const struct dns_query *query)
{
    size_t servers = query->servers->count;

    return query->tries < servers ||
           (query->tries < servers * DNS_ROUNDS && !list_empty(&query->attempts));
}

/* Asks the next server that can be reached. The query may be gone afterwards. */
static void query_try(struct dns_query *query, uint64_t now)
{
    struct dns_servers *servers = query->servers;

    while (may_try(query)) {
        size_t server = (query->first + query->tries) % servers->count;

        query->tries++;
        if (query->attempt_count == DNS_QUERY_ATTEMPTS_MAX)
            attempt_free(oldest_attempt(query));
        if (attempt_start(query, server)) {
            arm(query, now + patience(query, server));
            return;
        }
        if (server == query->first)
            query->first_silent = true;
    }
    if (list_empty(&query->attempts))
        query_fail(query);
    else
        arm(query, query->deadline);
}

/* Asks the same server again, in another way. */
static void query_try_again(struct dns_query *query, size_t server, uint64_t now)
{
    if (server < query->servers->count && attempt_start(query, server))
        arm(query, now + patience(query, server));
    else
        query_try(query, now);
}

static void query_expired(void *arg, struct timer *timer, uint64_t now)
{
    struct dns_query *query = list_entry(timer, struct dns_query, timer);
    struct dns *dns = query->dns;

    (void)arg;
    if (query->tries == 1)
        query->first_silent = true;
    list_for_each (link, &query->attempts)
        stream_doubt(list_entry(link, struct dns_attempt, link));
    if (now >= query->deadline) {
        query_fail(query);
    } else {
        count(dns->counters, COUNTER_dns_retries);
        query_try(query, now);
    }
    guest_settle_all(dns, now);
}

/* One attempt less: the next server is asked at once if there is one that was not, else what is
 * under way goes on. */
static void query_next(struct dns_query *query, uint64_t now)
{
    if (query->tries < query->servers->count || list_empty(&query->attempts))
        query_try(query, now);
}

void query_attempt_failed(struct dns_attempt *attempt, uint64_t now)
{
    struct dns_query *query = attempt->query;

    if (attempt->server == query->first && attempt_server(attempt))
        query->first_silent = true;
    attempt_free(attempt);
    query_next(query, now);
}

/* A server may close a connection whenever it likes: what was asked on one that was good before is
 * asked again, once. */
void query_attempt_lost(struct dns_attempt *attempt, bool proved, uint64_t now)
{
    struct dns_query *query = attempt->query;
    size_t index = attempt_server(attempt) ? attempt->server : DNS_UPSTREAMS_MAX;

    if (!proved || query->reconnected) {
        query_attempt_failed(attempt, now);
        return;
    }
    query->reconnected = true;
    attempt_free(attempt);
    query_try_again(query, index, now);
}

static struct cache_key key_of(const struct dns *dns, const struct dns_asker *asker)
{
    struct cache_key key = {
        .question = asker->question, .flags = asker->flags, .dnssec_ok = asker->edns.dnssec_ok};
    uint8_t bytes[DNS_NAME_MAX + 7];
    size_t len = key.question.name.len;

    dns_name_lower(&key.question.name);
    memcpy(bytes, key.question.name.bytes, len);
    store_be16(bytes + len, key.question.type);
    store_be16(bytes + len + 2, key.question.qclass);
    store_be16(bytes + len + 4, key.flags);
    bytes[len + 6] = key.dnssec_ok;
    key.hash = hash_bytes(dns->hash_key, bytes, len + 7);
    return key;
}

static struct dns_query *query_find(const struct dns *dns, const struct cache_key *key)
{
    list_for_each (link, &dns->buckets[key->hash % DNS_BUCKETS]) {
        struct dns_query *query = list_entry(link, struct dns_query, link);

        if (cache_key_equal(&query->key, key))
            return query;
    }
    return NULL;
}

static void query_begin(struct dns_query *query, const struct cache_key *key,
                        struct dns_servers *servers, uint64_t now)
{
    struct dns *dns = query->dns;

    query->key = *key;
    query->servers = servers;
    query->over_tcp = query->without_edns = query->first_silent = query->reconnected = false;
    query->first = query->servers->preferred;
    query->tries = query->client_count = query->attempt_count = 0;
    query->deadline = now + DNS_DEADLINE;
    query->rcode = -1;
    list_push_back(&dns->buckets[key->hash % DNS_BUCKETS], &query->link);
}

static bool answer_from_cache(struct dns *dns, const struct cache_key *key,
                              const struct dns_asker *asker, uint64_t now)
{
    struct filtered filtered;
    struct dns_message m;
    const uint8_t *answer = cache_get(dns, key, now, &m);

    if (!answer)
        return false;
    count(dns->counters, COUNTER_dns_cache_hits);
    filter_answer(dns, &key->question, answer, &m, now, &filtered);
    filter_reply(dns, asker, &filtered);
    return true;
}

static void ask_upstream(struct dns *dns, const struct cache_key *key, struct dns_servers *servers,
                         const struct dns_asker *asker, uint64_t now)
{
    struct dns_query *query = query_take(dns);

    if (!query) {
        fail(dns, asker, COUNTER_dns_query_limit);
        return;
    }
    query_begin(query, key, servers, now);
    query_join(query, asker);
    if (query->client_count == 0)
        query_free(query);
    else
        query_try(query, now);
}

/* Those of the longest zone that the name is in. */
static struct dns_servers *servers_for(struct dns *dns, const struct dns_name *name)
{
    struct dns_servers *best = &dns->servers;

    for (size_t i = 0; i < dns->zone_count; i++) {
        struct dns_servers *zone = &dns->zones[i];

        if (zone->zone.len > best->zone.len && dns_name_is_below(name, &zone->zone))
            best = zone;
    }
    return best;
}

void query_ask(struct dns *dns, const struct dns_asker *asker, uint64_t now)
{
    struct dns_servers *servers = servers_for(dns, &asker->question.name);
    struct cache_key key;
    struct dns_query *query;

    resolv_conf_recheck(dns);
    if (servers->count == 0) {
        fail(dns, asker, COUNTER_dns_no_upstream);
        return;
    }
    key = key_of(dns, asker);
    if (answer_from_cache(dns, &key, asker, now))
        return;
    query = query_find(dns, &key);
    if (query) {
        count(dns->counters, COUNTER_dns_coalesced);
        query_join(query, asker);
        return;
    }
    ask_upstream(dns, &key, servers, asker, now);
}

/* ---- what comes back ---- */

enum judgement {
    FOREIGN,   /* no answer to this attempt's question: somebody else's, or forged */
    FOLDED,    /* the answer, but for the case of its question */
    BROKEN,    /* the answer, but not to be understood */
    UNHELPFUL, /* the server would not answer */
    TRUNCATED,
    GOOD,
};

static bool same_question(const struct dns_attempt *attempt, const struct dns_question *question)
{
    const struct dns_question *asked = &attempt->query->key.question;

    return question->type == asked->type && question->qclass == asked->qclass &&
           dns_name_equal(&question->name, &asked->name);
}

static bool same_case(const struct dns_attempt *attempt, const struct dns_question *question)
{
    const struct dns_server *server = attempt_server(attempt);

    return memcmp(question->name.bytes, attempt->name.bytes, attempt->name.len) == 0 ||
           (server && server->folds_case);
}

static bool is_unhelpful(unsigned rcode)
{
    return rcode == DNS_SERVFAIL || rcode == DNS_REFUSED || rcode == DNS_NOTIMP ||
           rcode == DNS_FORMERR;
}

static enum judgement judge(const struct dns_attempt *attempt, const uint8_t *answer, size_t len,
                            struct dns_message *m)
{
    bool whole = dns_message_read(answer, len, m) == 0;
    unsigned rcode;

    if (len < DNS_HEADER_LEN || m->header.id != attempt->id || !(m->header.flags & DNS_FLAG_QR) ||
        (m->header.flags & DNS_OPCODE_MASK))
        return FOREIGN;
    rcode = m->header.flags & DNS_RCODE_MASK;
    if (m->header.question_count == 0 && is_unhelpful(rcode))
        return UNHELPFUL;
    if (m->question.name.len == 0 || !same_question(attempt, &m->question))
        return FOREIGN;
    if (!same_case(attempt, &m->question))
        return FOLDED;
    if ((m->header.flags & DNS_FLAG_TC) && !attempt->tcp)
        return TRUNCATED;
    if (!whole)
        return BROKEN;
    return is_unhelpful(rcode) ? UNHELPFUL : GOOD;
}

/* The server that answered is the one to ask, if the one that was asked first did not. */
static void note_healthy(const struct dns_attempt *attempt)
{
    const struct dns_query *query = attempt->query;
    struct dns_servers *servers = query->servers;
    struct dns_server *server = attempt_server(attempt);

    if (!server)
        return;
    if (query->without_edns)
        server->no_edns = true;
    if (query->first_silent && !query->over_tcp && servers->preferred == query->first &&
        attempt->server != query->first) {
        servers->preferred = attempt->server;
        count(query->dns->counters, COUNTER_dns_failovers);
    }
}

static void deliver(struct dns_attempt *attempt, const uint8_t *answer, const struct dns_message *m,
                    uint64_t now)
{
    struct dns_query *query = attempt->query;
    struct filtered filtered;

    note_healthy(attempt);
    cache_put(query->dns, &query->key, answer, m, now);
    filter_answer(query->dns, &query->key.question, answer, m, now, &filtered);
    list_for_each (link, &query->clients)
        filter_reply(query->dns, &list_entry(link, struct dns_client, link)->asker, &filtered);
    query_free(query);
}

/* Those whom a truncated answer serves get it, the others have it asked for over TCP. */
static void answer_truncated(struct dns_attempt *attempt, const uint8_t *answer, size_t len,
                             struct dns_message *m, uint64_t now)
{
    struct dns_query *query = attempt->query;
    size_t server = attempt->server;
    struct filtered filtered;

    if (dns_message_read(answer, len, m) < 0) { /* cut within a record: none is passed on */
        memset(m->header.record_count, 0, sizeof m->header.record_count);
        m->edns.rcode_high = 0;
        m->opt_start = m->opt_end = 0;
        m->records = m->end = DNS_HEADER_LEN + m->question.name.len + 4u;
    }
    note_healthy(attempt);
    filter_answer(query->dns, &query->key.question, answer, m, now, &filtered);
    list_for_each_safe (link, &query->clients) {
        struct dns_client *client = list_entry(link, struct dns_client, link);

        if (dns_asker_limit(&client->asker) <= DNS_UPSTREAM_UDP_SIZE) {
            filter_reply(query->dns, &client->asker, &filtered);
            client_free(query, client);
        }
    }
    if (query->client_count == 0 || !attempt_server(attempt)) {
        if (query->client_count == 0)
            query_free(query);
        else
            query_attempt_failed(attempt, now);
        return;
    }
    query_drop_attempts(query);
    query->over_tcp = true;
    query->first = server;
    query->tries = 0;
    query->deadline = now + DNS_DEADLINE;
    query_try(query, now);
}

/* The server changes letters: its case tells nothing. That it does is known from an answer with the
 * right id to the right port, and the next will be one too. */
static void answer_folded(struct dns_attempt *attempt, uint64_t now)
{
    struct dns_query *query = attempt->query;
    struct dns_server *server = attempt_server(attempt);
    size_t index = server ? attempt->server : DNS_UPSTREAMS_MAX;

    if (server)
        server->folds_case = true;
    attempt_free(attempt);
    query_try_again(query, index, now);
}

static void answer_unhelpful(struct dns_attempt *attempt, const struct dns_message *m, uint64_t now)
{
    struct dns_query *query = attempt->query;
    int rcode = m->header.flags & DNS_RCODE_MASK;
    /* RFC 6891, section 7: servers that do not know OPT say so in these ways */
    bool retry = (rcode == DNS_FORMERR || rcode == DNS_NOTIMP) && attempt->edns &&
                 !m->edns.present && !query->without_edns;
    size_t index = attempt_server(attempt) ? attempt->server : DNS_UPSTREAMS_MAX;

    attempt_free(attempt);
    if (retry) {
        query->without_edns = true;
        query_try_again(query, index, now);
        return;
    }
    count(query->dns->counters, COUNTER_dns_upstream_refused);
    if (query->rcode < 0)
        query->rcode = rcode;
    if (query->deadline > now + DNS_SECOND_CHANCE) {
        query->deadline = now + DNS_SECOND_CHANCE;
        arm(query, query->timer.deadline);
    }
    query_next(query, now);
}

/* Takes the random case out of the question, to which other names of the answer may point. */
static void restore_case(const struct dns_query *query, uint8_t *answer, struct dns_message *m)
{
    m->question.name = query->key.question.name;
    memcpy(answer + DNS_HEADER_LEN, query->key.question.name.bytes, query->key.question.name.len);
}

bool query_answer(struct dns_attempt *attempt, uint8_t *answer, size_t len, uint64_t now)
{
    struct counters *counters = attempt->query->dns->counters;
    enum judgement judgement;
    struct dns_message m;

    judgement = judge(attempt, answer, len, &m);
    if (judgement == GOOD || judgement == TRUNCATED)
        restore_case(attempt->query, answer, &m);
    switch (judgement) {
    case FOREIGN:
        count(counters, COUNTER_dns_answer_mismatch);
        return true;
    case FOLDED:
        count(counters, COUNTER_dns_answer_folded);
        answer_folded(attempt, now);
        return false;
    case BROKEN:
        count(counters, COUNTER_dns_answer_malformed);
        query_attempt_failed(attempt, now);
        return false;
    case UNHELPFUL:
        answer_unhelpful(attempt, &m, now);
        return false;
    case TRUNCATED:
        answer_truncated(attempt, answer, len, &m, now);
        return false;
    case GOOD:
        deliver(attempt, answer, &m, now);
        return false;
    }
    return false;
}
