/* SPDX-License-Identifier: Apache-2.0 */
/* The policy at work in the resolver.
 *
 * Questions, under any rule by name: those for names that the policy denies never leave; SVCB and
 * HTTPS get no data, because they would hand out keys for encrypted hellos and addresses that
 * nobody looked at. With or without such rules: addresses that are not public have no names
 * upstream.
 *
 * Answers, under any rule by name: one that leads through a denied name (CNAME) is refused as its
 * question would have been. Addresses where the name may not lead are taken out (rebinding), with
 * those that belong to no owner of the chain and those that hide an IPv4 address; with them go AD
 * and all signatures, which would no longer hold. What stays is pinned: each address to the queried
 * name, and to every further owner of the chain.
 *
 * Answers are judged whenever they are given, from the cache too, so that a new policy holds at
 * once. */
#include <string.h>

#include "dns/internal.h"

#define CHAIN_MAX 16 /* names in a row of CNAMEs; resolvers follow fewer */

static bool by_name(const struct dns *dns)
{
    return dns->guard.policy && (dns->guard.by_name || policy_has_names(dns->guard.policy));
}

/* ---- refusals ---- */

static const struct dns_error BLOCKED = {DNS_ERROR_BLOCKED, "denied by the sandbox's policy"};
static const struct dns_error HIDDEN_TYPE = {DNS_ERROR_FILTERED, "not given under rules by name"};
static const struct dns_error PRIVATE = {DNS_ERROR_FILTERED, "the address is not public"};
static const struct dns_error REBINDING = {DNS_ERROR_FILTERED, "the name may not lead there"};

static void reply_refusal(struct dns *dns, const struct dns_asker *asker, unsigned rcode,
                          const struct dns_error *error)
{
    dns_reply(dns, asker, reply_build_rcode(asker, rcode, error, dns_reply_space(dns)));
}

static void reply_denied(struct dns *dns, const struct dns_asker *asker)
{
    switch (dns->guard.denied) {
    case DNS_DENIED_NXDOMAIN:
        reply_refusal(dns, asker, DNS_NXDOMAIN, &BLOCKED);
        break;
    case DNS_DENIED_REFUSED:
        reply_refusal(dns, asker, DNS_REFUSED, &BLOCKED);
        break;
    case DNS_DENIED_ZERO:
        dns_reply(dns, asker, reply_build_zero(asker, &BLOCKED, dns_reply_space(dns)));
        break;
    }
}

/* True: it is refused. False: the guard is lenient. */
static bool refuse(struct dns *dns, const struct dns_question *question, enum counter reason,
                   const struct policy_verdict *verdict)
{
    const struct dns_refusal refusal = {
        .question = question,
        .reason = reason,
        .rule = verdict ? verdict->rule : UINT32_MAX,
        .passes = dns->guard.lenient && verdict,
    };

    count(dns->counters, refusal.passes ? COUNTER_dns_would_deny : reason);
    if (dns->guard.refused)
        dns->guard.refused(dns->guard.ctx, &refusal);
    return !refusal.passes;
}

/* ---- questions ---- */

static bool is_admitted(const struct dns *dns, const struct dns_question *question,
                        const struct ip_address *address)
{
    return policy_admits_answer(dns->guard.policy, dns->guard.world, &question->name, address);
}

/* Is this about the name of an address, or of a network of them, that the guest could not reach
 * anyway? Whatever the type: ANY would tell the same, and service discovery asks below a network's
 * name. A network with a public end is somebody's. */
static bool is_private_reverse(const struct dns *dns, const struct dns_question *question)
{
    struct ip_address first, last;

    return dns_name_to_reverse_range(&question->name, &first, &last) &&
           !is_admitted(dns, question, &first) && !is_admitted(dns, question, &last);
}

static bool is_hidden(const struct dns_question *question)
{
    return question->type == DNS_TYPE_SVCB || question->type == DNS_TYPE_HTTPS;
}

static bool filter_by_name(struct dns *dns, const struct dns_asker *asker)
{
    const struct dns_question *question = &asker->question;
    struct policy_verdict verdict = policy_judge_query(dns->guard.policy, &question->name);

    if (verdict.action != POLICY_ALLOW && refuse(dns, question, COUNTER_dns_denied, &verdict)) {
        reply_denied(dns, asker);
        return true;
    }
    if (question->qclass != DNS_CLASS_IN) { /* others tell about the servers themselves */
        refuse(dns, question, COUNTER_dns_denied, NULL);
        reply_refusal(dns, asker, DNS_REFUSED, &BLOCKED);
        return true;
    }
    if (is_hidden(question)) {
        count(dns->counters, COUNTER_dns_hidden_type);
        reply_refusal(dns, asker, DNS_NOERROR, &HIDDEN_TYPE);
        return true;
    }
    return false;
}

bool filter_question(struct dns *dns, const struct dns_asker *asker)
{
    if (!dns->guard.policy)
        return false;
    if (is_private_reverse(dns, &asker->question)) {
        refuse(dns, &asker->question, COUNTER_dns_private_address, NULL);
        reply_refusal(dns, asker, DNS_NXDOMAIN, &PRIVATE);
        return true;
    }
    return by_name(dns) && filter_by_name(dns, asker);
}

/* ---- pins ---- */

static void learn(struct dns *dns, const struct dns_name *name, const struct ip_address *address,
                  enum pin_role role, uint32_t ttl, uint64_t now)
{
    if (pins_learn(dns->guard.pins, name, address, role, ttl, now) < 0)
        count(dns->counters, COUNTER_dns_no_pin);
}

void filter_local_answer(struct dns *dns, const struct dns_question *question, uint64_t now)
{
    if (!by_name(dns) || !dns->guard.pins)
        return;
    for (size_t i = 0; i < dns->host_count; i++)
        if (dns_name_equal(&dns->hosts[i].name, &question->name))
            learn(dns, &question->name, &dns->hosts[i].address, PIN_QUERIED, DNS_LOCAL_TTL, now);
}

/* ---- answers ---- */

/* The names from the question to the last CNAME's target. */
struct chain {
    struct dns_name owners[CHAIN_MAX];
    size_t count;
    uint32_t ttl; /* the least of its CNAMEs' */
};

struct judging {
    struct dns *dns;
    const struct dns_question *question;
    const uint8_t *answer;
    const struct dns_message *m;
    struct chain chain;
    unsigned removed;
};

static bool owner_of(const struct judging *j, const struct dns_record *record, struct dns_name *ret)
{
    size_t at = record->start;

    return dns_name_read(j->answer, j->m->end, &at, ret) == 0;
}

/* Finds the CNAME of `owner`. False: there is none, or it is broken. */
static bool find_cname(const struct judging *j, const struct dns_name *owner,
                       struct dns_name *ret_target, uint32_t *ret_ttl)
{
    struct dns_walk walk = dns_walk_of(j->answer, j->m->end, &j->m->header, j->m->records);
    struct dns_record record;
    struct dns_name name;

    while (dns_walk_next(&walk, &record) > 0 && record.section == DNS_ANSWER) {
        size_t at = record.data;

        if (record.type != DNS_TYPE_CNAME || !owner_of(j, &record, &name) ||
            !dns_name_equal(&name, owner))
            continue;
        *ret_ttl = record.ttl;
        return dns_name_read(j->answer, j->m->end, &at, ret_target) == 0;
    }
    return false;
}

/* False: more names than any honest answer has. */
static bool read_chain(struct judging *j)
{
    struct chain *chain = &j->chain;
    uint32_t ttl = 0;

    chain->owners[0] = j->question->name;
    chain->count = 1;
    chain->ttl = UINT32_MAX;
    while (chain->count < CHAIN_MAX &&
           find_cname(j, &chain->owners[chain->count - 1], &chain->owners[chain->count], &ttl)) {
        chain->count++;
        if (ttl < chain->ttl)
            chain->ttl = ttl;
    }
    return chain->count < CHAIN_MAX;
}

static bool chain_is_denied(const struct judging *j)
{
    const struct policy *policy = j->dns->guard.policy;
    struct policy_verdict query = policy_judge_query(policy, &j->question->name);
    struct dns_question target = *j->question;

    if (query.action != POLICY_ALLOW) /* the policy was replaced meanwhile, or the guard lets go */
        return !j->dns->guard.lenient;
    for (size_t i = 1; i < j->chain.count; i++) {
        struct policy_verdict verdict = policy_judge_owner(policy, &j->chain.owners[i], &query);

        if (verdict.action == POLICY_ALLOW)
            continue;
        target.name = j->chain.owners[i];
        if (refuse(j->dns, &target, COUNTER_dns_denied_owner, &verdict))
            return true;
    }
    return false;
}

static bool is_address(const struct dns_record *record)
{
    return record->type == DNS_TYPE_A || record->type == DNS_TYPE_AAAA;
}

/* False: data of another length, or an IPv4 address in disguise, which no honest server gives. */
static bool read_address(const struct judging *j, const struct dns_record *record,
                         struct ip_address *ret)
{
    uint32_t v4;

    if (record->type == DNS_TYPE_A && record->data_len == 4) {
        memcpy(&v4, j->answer + record->data, 4);
        *ret = ip_address_v4(v4);
        return true;
    }
    if (record->type != DNS_TYPE_AAAA || record->data_len != 16)
        return false;
    *ret = ip_address_v6(j->answer + record->data);
    return !ip_address_is_v4(ret);
}

static bool is_in_chain(const struct judging *j, const struct dns_record *record)
{
    struct dns_name owner;

    if (!owner_of(j, record, &owner))
        return false;
    for (size_t i = 0; i < j->chain.count; i++)
        if (dns_name_equal(&j->chain.owners[i], &owner))
            return true;
    return false;
}

static bool passes(const struct dns *dns, const struct ip_address *address)
{
    return dns->guard.lenient && !policy_is_protected(dns->guard.policy, dns->guard.world, address);
}

static bool may_see_address(const struct judging *j, const struct dns_record *record)
{
    struct ip_address address;

    return read_address(j, record, &address) &&
           (record->section != DNS_ANSWER || is_in_chain(j, record)) &&
           (is_admitted(j->dns, j->question, &address) || passes(j->dns, &address));
}

/* Nothing was asked about in another class than the Internet's; not every stub looks at it. */
static bool may_see(const struct judging *j, const struct dns_record *record)
{
    if (record->rclass != DNS_CLASS_IN && record->type != DNS_TYPE_OPT)
        return false;
    if (is_address(record))
        return may_see_address(j, record);
    return record->type != DNS_TYPE_SVCB && record->type != DNS_TYPE_HTTPS;
}

/* For the new message: signatures went with what they sign. */
static bool keep(void *ctx, const struct dns_record *record)
{
    const struct judging *j = ctx;

    return record->type != DNS_TYPE_RRSIG && record->type != DNS_TYPE_SIG &&
           record->type != DNS_TYPE_NXT && may_see(j, record);
}

static void learn_record(const struct judging *j, const struct dns_record *record, uint64_t now)
{
    uint32_t ttl = record->ttl < j->chain.ttl ? record->ttl : j->chain.ttl;
    struct ip_address address;

    if (!read_address(j, record, &address))
        return;
    for (size_t i = 0; i < j->chain.count; i++)
        learn(j->dns, &j->chain.owners[i], &address, i == 0 ? PIN_QUERIED : PIN_CHAIN, ttl, now);
}

/* Tells of an address where the name may not lead, whether or not it passes all the same. */
static void judge_address(const struct judging *j, const struct dns_record *record)
{
    struct dns *dns = j->dns;
    struct ip_address address;
    bool readable = read_address(j, record, &address);
    const struct dns_refusal refusal = {
        .question = j->question,
        .reason = COUNTER_dns_rebinding,
        .rule = UINT32_MAX,
        .address = readable ? &address : NULL,
        .passes = may_see(j, record),
    };

    if (refusal.passes && is_admitted(dns, j->question, &address))
        return;
    count(dns->counters, refusal.passes ? COUNTER_dns_would_deny : COUNTER_dns_rebinding);
    if (dns->guard.refused && readable)
        dns->guard.refused(dns->guard.ctx, &refusal);
}

/* Tells what must go, and pins the addresses that may stay. False: not all could be looked at. */
static bool look_at_records(struct judging *j, uint64_t now)
{
    struct dns_walk walk = dns_walk_of(j->answer, j->m->end, &j->m->header, j->m->records);
    struct dns_record record;
    int more;

    while ((more = dns_walk_next(&walk, &record)) > 0) {
        if (is_address(&record))
            judge_address(j, &record);
        if (!may_see(j, &record)) {
            j->removed++;
        } else if (is_address(&record) && record.section == DNS_ANSWER && j->dns->guard.pins) {
            learn_record(j, &record, now);
        }
    }
    return more == 0;
}

static void rewrite(struct judging *j, struct filtered *ret)
{
    struct dns_edns edns = j->m->edns;
    size_t len = rewrite_answer(j->answer, j->m, DNS_FLAG_AD, keep, j, j->dns->filtered);

    if (len == 0 || dns_message_read(j->dns->filtered, len, &ret->m) < 0) {
        count(j->dns->counters, COUNTER_dns_answer_malformed);
        ret->outcome = FILTERED_BROKEN;
        return;
    }
    ret->m.edns = edns; /* for the upper bits of the rcode */
    ret->answer = j->dns->filtered;
    ret->error = REBINDING;
}

void filter_answer(struct dns *dns, const struct dns_question *question, const uint8_t *answer,
                   const struct dns_message *m, uint64_t now, struct filtered *ret)
{
    struct judging j = {.dns = dns, .question = question, .answer = answer, .m = m};

    *ret = (struct filtered){.outcome = FILTERED_PASSED, .answer = answer, .m = *m};
    if (!by_name(dns))
        return;
    if (!read_chain(&j)) {
        count(dns->counters, COUNTER_dns_answer_malformed);
        ret->outcome = FILTERED_BROKEN;
    } else if (chain_is_denied(&j)) {
        ret->outcome = FILTERED_DENIED;
    } else if (!look_at_records(&j, now)) {
        count(dns->counters, COUNTER_dns_answer_malformed);
        ret->outcome = FILTERED_BROKEN;
    } else if (j.removed > 0) {
        rewrite(&j, ret);
    }
}

void filter_reply(struct dns *dns, const struct dns_asker *asker, const struct filtered *filtered)
{
    bool truncated;
    size_t len;

    if (filtered->outcome == FILTERED_DENIED) {
        reply_denied(dns, asker);
        return;
    }
    if (filtered->outcome == FILTERED_BROKEN) {
        dns_reply_rcode(dns, asker, DNS_SERVFAIL);
        return;
    }
    len = reply_build_answer(asker, filtered->answer, &filtered->m, &filtered->error,
                             dns_reply_space(dns), &truncated);
    if (truncated)
        count(dns->counters, COUNTER_dns_truncated);
    dns_reply(dns, asker, len);
}
