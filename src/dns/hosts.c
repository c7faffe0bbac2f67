/* SPDX-License-Identifier: Apache-2.0 */
/* Names that are answered here and never asked upstream: host.culvert.internal and --dns-host, both
 * ways (A, AAAA and PTR). A name that exists has no data of other types; names below
 * culvert.internal that were not added do not exist. */
#include <errno.h>
#include <stdlib.h>

#include "dns/internal.h"

static const struct dns_name OWN_ZONE = {18, "\7culvert\10internal"};

int dns_add_host(struct dns *dns, const char *name, const struct ip_address *address)
{
    struct dns_host host = {.address = *address}, *grown;
    int r = dns_name_parse(name, &host.name);

    if (r < 0)
        return r;
    grown = reallocarray(dns->hosts, dns->host_count + 1, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    dns->hosts = grown;
    dns->hosts[dns->host_count++] = host;
    return 0;
}

struct answer {
    struct dns_builder builder;
    struct dns_header header;
    bool name_known;
};

static void answer_add(struct answer *answer, uint16_t type, const void *data, size_t len)
{
    struct dns_builder before = answer->builder;

    dns_build_record(&answer->builder, type, DNS_CLASS_IN, DNS_LOCAL_TTL, data, len);
    if (answer->builder.overflow) {
        answer->builder = before;
        answer->header.flags |= DNS_FLAG_TC;
    } else {
        answer->header.record_count[DNS_ANSWER]++;
    }
}

static bool wants(const struct dns_question *question, uint16_t type)
{
    return question->type == type || question->type == DNS_TYPE_ANY;
}

static void answer_addresses(struct answer *answer, const struct dns *dns,
                             const struct dns_question *question)
{
    for (size_t i = 0; i < dns->host_count; i++) {
        const struct dns_host *host = &dns->hosts[i];
        bool v4 = ip_address_is_v4(&host->address);

        if (!dns_name_equal(&host->name, &question->name))
            continue;
        answer->name_known = true;
        if (wants(question, v4 ? DNS_TYPE_A : DNS_TYPE_AAAA))
            answer_add(answer, v4 ? DNS_TYPE_A : DNS_TYPE_AAAA, host->address.bytes + (v4 ? 12 : 0),
                       v4 ? 4 : 16);
    }
}

static void answer_names(struct answer *answer, const struct dns *dns,
                         const struct dns_question *question)
{
    struct ip_address address;

    if (!dns_name_to_reverse_address(&question->name, &address))
        return;
    for (size_t i = 0; i < dns->host_count; i++) {
        const struct dns_host *host = &dns->hosts[i];

        if (!ip_address_equal(&host->address, &address))
            continue;
        answer->name_known = true;
        if (wants(question, DNS_TYPE_PTR))
            answer_add(answer, DNS_TYPE_PTR, host->name.bytes, host->name.len);
    }
}

size_t hosts_answer(const struct dns *dns, const struct dns_asker *asker, uint8_t *to)
{
    const struct dns_question *question = &asker->question;
    size_t opt_len = asker->edns.present ? DNS_OPT_LEN : 0;
    struct dns_builder start = {.data = to, .capacity = dns_asker_limit(asker)};
    struct answer answer = {.builder = {.data = to, .capacity = start.capacity - opt_len}};

    if (question->qclass != DNS_CLASS_IN && question->qclass != DNS_CLASS_ANY)
        return 0;
    answer.header = (struct dns_header){
        .id = asker->id,
        .flags =
            DNS_FLAG_QR | DNS_FLAG_AA | DNS_FLAG_RA | (asker->flags & (DNS_FLAG_RD | DNS_FLAG_CD)),
        .question_count = 1,
        .record_count = {[DNS_ADDITIONAL] = asker->edns.present},
    };
    dns_build_header(&answer.builder, &answer.header);
    dns_build_question(&answer.builder, question);
    answer_addresses(&answer, dns, question);
    answer_names(&answer, dns, question);
    if (!answer.name_known) {
        if (!dns_name_is_below(&question->name, &OWN_ZONE))
            return 0;
        if (!dns_name_equal(&question->name, &OWN_ZONE))
            answer.header.flags |= DNS_NXDOMAIN;
    }
    dns_build_header(&start, &answer.header); /* again: the counts are known now */
    answer.builder.capacity += opt_len;
    dns_build_opt(&answer.builder, &(struct dns_edns){.present = asker->edns.present,
                                                      .dnssec_ok = asker->edns.dnssec_ok,
                                                      .size = DNS_REPLY_UDP_MAX});
    return answer.builder.len;
}
