/* SPDX-License-Identifier: Apache-2.0 */
/* An upstream's answer on its way to the guest under rules by name: filtered, cut to the size that
 * the guest takes, kept, and given again. The first byte says who asks, the rest is the answer.
 * Whatever it is, the guest gets a message that can be read, of a size it takes, in which no
 * address leads where the policy does not. */
#include <stdlib.h>
#include <string.h>

#include "dns/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW UINT64_C(1000000000)
#define ID  4711

static const struct dns_question NOTHING;
static struct policy_world world;
static struct counters counters;
static struct dns *resolver;

static void check(bool holds)
{
    if (!holds)
        abort();
}

static const struct policy *make_policy(void)
{
    static const char *const rules[] = {"deny to *.denied.test",
                                        "allow tcp to git.test port 22 in 10.0.0.0/8",
                                        "allow any to public"};
    struct policy_builder *builder = policy_builder_new();
    const struct policy *policy;
    char message[256];

    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        check(policy_builder_add(builder, rules[i], NULL, message, sizeof message) == 0);
    policy = policy_build(builder, 1);
    policy_builder_free(builder);
    check(policy);
    return policy;
}

/* As much of a resolver as an answer meets. */
static struct dns *resolver_of_one(void)
{
    static const uint64_t key[2] = {1, 2};

    if (resolver)
        return resolver;
    resolver = calloc(1, sizeof *resolver);
    check(resolver);
    resolver->counters = &counters;
    resolver->guard.policy = make_policy();
    resolver->guard.world = &world;
    resolver->guard.pins = pins_new(NULL, key);
    check(resolver->guard.pins);
    cache_init(&resolver->cache, 16, 1u << 20);
    return resolver;
}

static struct dns_asker asker_of(uint8_t byte, const struct dns_question *question)
{
    static const uint16_t sizes[] = {0, 512, 1232, 4096};
    uint16_t size = sizes[byte & 3];

    return (struct dns_asker){.is_tcp = byte & 4,
                              .id = ID,
                              .flags = DNS_FLAG_RD,
                              .edns = {.present = size, .size = size, .dnssec_ok = byte & 8},
                              .question = *question};
}

static bool may_lead_there(const struct dns *dns, const struct dns_question *question,
                           const uint8_t *message, const struct dns_record *record)
{
    struct ip_address address;
    uint32_t v4;

    if (record->rclass != DNS_CLASS_IN)
        return record->type == DNS_TYPE_OPT;
    if (record->type == DNS_TYPE_A) {
        check(record->data_len == 4);
        memcpy(&v4, message + record->data, 4);
        address = ip_address_v4(v4);
    } else if (record->type == DNS_TYPE_AAAA) {
        check(record->data_len == 16);
        address = ip_address_v6(message + record->data);
    } else {
        return record->type != DNS_TYPE_SVCB && record->type != DNS_TYPE_HTTPS;
    }
    return policy_admits_answer(dns->guard.policy, dns->guard.world, &question->name, &address);
}

static void check_reply(const struct dns *dns, const struct dns_asker *asker, const uint8_t *reply,
                        size_t len)
{
    struct dns_message m;
    struct dns_walk walk;
    struct dns_record record;

    check(len <= dns_asker_limit(asker));
    check(dns_message_read(reply, len, &m) == 0 && m.end == len);
    check(m.header.id == ID && (m.header.flags & DNS_FLAG_QR));
    check(memcmp(&m.question.name.bytes, asker->question.name.bytes, m.question.name.len) == 0);
    check(m.edns.present == asker->edns.present);
    walk = dns_walk_of(reply, len, &m.header, m.records);
    while (dns_walk_next(&walk, &record) > 0)
        check(may_lead_there(dns, &asker->question, reply, &record));
}

static void give(struct dns *dns, const struct dns_asker *asker, const uint8_t *answer,
                 const struct dns_message *m)
{
    static uint8_t reply[DNS_MESSAGE_MAX + 2];
    struct dns_question question = asker->question;
    struct filtered filtered;
    bool truncated;

    dns_name_lower(&question.name);
    filter_answer(dns, &question, answer, m, NOW, &filtered);
    if (filtered.outcome == FILTERED_PASSED)
        check_reply(dns, asker, reply,
                    reply_build_answer(asker, filtered.answer, &filtered.m, &filtered.error, reply,
                                       &truncated));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns *dns = resolver_of_one();
    struct cache_key key = {.question = NOTHING};
    struct dns_asker asker;
    struct dns_message m;
    const uint8_t *kept;

    if (size == 0 || size > DNS_MESSAGE_MAX || dns_message_read(data + 1, size - 1, &m) < 0)
        return 0;
    asker = asker_of(data[0], &m.question);
    give(dns, &asker, data + 1, &m);
    key.question = m.question;
    dns_name_lower(&key.question.name);
    cache_put(dns, &key, data + 1, &m, NOW);
    kept = cache_get(dns, &key, NOW + SECOND_NS / 2, &m);
    if (kept)
        give(dns, &asker, kept, &m);
    check(dns->cache.bytes <= dns->cache.bytes_max);
    cache_clear(&dns->cache);
    return 0;
}
