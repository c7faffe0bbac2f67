/* SPDX-License-Identifier: Apache-2.0 */

/* Explaining a verdict, without a guest: a name is pinned, in a pin table made for the purpose, to
 * a public address that no rule mentions, as if it had just been looked up. */

#include "cli/explain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "policy/pins.h"
#include "policy/suggest.h"

#define WIDTH        26
#define DNS_PORT     53
#define DNS_TLS_PORT 853

struct flow {
    enum policy_direction direction;
    enum policy_protocol protocol;
    bool by_name;
    struct dns_name name;
    struct ip_address address;
    uint16_t port;
};

#define fault(...) (snprintf(message, size, __VA_ARGS__), -EINVAL)

/* ---- reading the flow ---- */

static int parse_protocol(const char **text, struct flow *flow, char *message, size_t size)
{
    static const char *const words[] = {"tcp", "udp", "icmp"};
    static const enum policy_protocol protocols[] = {POLICY_TCP, POLICY_UDP, POLICY_ICMP};
    char word[16], shown[32];

    *text += strspn(*text, " ");
    if (strncmp(*text, "from ", 5) == 0) {
        flow->direction = POLICY_INGRESS;
        *text += 5;
    } else if (strncmp(*text, "to ", 3) == 0) {
        *text += 3;
    }
    size_t len = strcspn(*text, " ");
    snprintf(word, sizeof word, "%.*s", (int)(len < 15 ? len : 15), *text);
    *text += len + strspn(*text + len, " ");
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(word, words[i]) == 0) {
            flow->protocol = protocols[i];
            return 0;
        }
    }
    const char *near = suggest_word(word, words, 3);
    text_show(word, strlen(word), shown, sizeof shown);
    return near ? fault("\"%s\" is no protocol; did you mean \"%s\"?", shown, near)
                : fault("\"%s\" is no protocol; write it as in 'tcp github.com:443'", shown);
}

static bool parse_port(const char *text, uint16_t *ret)
{
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || port == 0 || port > UINT16_MAX)
        return false;
    *ret = (uint16_t)port;
    return true;
}

/* "github.com:443", "1.2.3.4:443", "[2a00::1]:443"; ICMP: without a port. */
static int parse_where(const char *text, struct flow *flow, char *message, size_t size)
{
    char host[300], shown[64];
    const char *colon = strrchr(text, ':');
    bool ported = flow->protocol != POLICY_ICMP;
    size_t len = ported && colon ? (size_t)(colon - text) : strlen(text);

    if (ported && (!colon || !parse_port(colon + 1, &flow->port)))
        return fault("the port is missing; write it as in 'tcp github.com:443'");
    if (text[0] == '[' && len > 1 && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    snprintf(host, sizeof host, "%.*s", (int)(len < 299 ? len : 299), text);
    if (ip_address_parse(host, &flow->address))
        return 0;
    flow->by_name = true;
    if (flow->direction == POLICY_INGRESS || name_from_guest(host, strlen(host), &flow->name) < 0)
        return fault("\"%s\" is %s; write it as in 'tcp github.com:443' or 'udp [2a00::1]:53'",
                     text_show(host, strlen(host), shown, sizeof shown),
                     flow->direction == POLICY_INGRESS ? "no address" : "neither name nor address");
    return 0;
}

/* ---- an address for a name ---- */

static bool is_mentioned(const struct policy_builder *builder, const struct rule_target *targets,
                         size_t count, const struct ip_address *address)
{
    for (size_t i = 0; i < count; i++) {
        const struct target_set *set = NULL;
        if (targets[i].kind == RULE_TARGET_PREFIX &&
            ip_prefix_contains(&targets[i].prefix, address))
            return true;
        if (targets[i].kind == RULE_TARGET_SET)
            set = builder_find_set(builder, targets[i].set);
        for (size_t j = 0; set && j < set->prefix_count; j++) {
            if (ip_prefix_contains(&set->prefixes[j], address))
                return true;
        }
    }
    return false;
}

/* A public one that rules say nothing about, if there is one among a few. */
static struct ip_address some_public_address(const struct policy_builder *builder)
{
    static const uint8_t first_bytes[] = {93, 23, 151, 62, 8};
    struct ip_address address = {0};
    uint32_t count;
    struct rule *rules = builder_rules(builder, &count);

    for (size_t i = 0; i < sizeof first_bytes; i++) {
        bool mentioned = false;
        address = ip_address_v4(htonl((uint32_t)first_bytes[i] << 24 | 0x0a141eu));
        for (uint32_t j = 0; rules && j < count && !mentioned; j++)
            mentioned = is_mentioned(builder, rules[j].targets, rules[j].target_count, &address);
        if (!mentioned)
            break;
    }
    free(rules);
    return address;
}

/* ---- the answers ---- */

void explain_rule(const struct policy *policy, uint32_t rule)
{
    const char *id = policy_rule_id(policy, rule), *text = policy_rule_text(policy, rule);
    char shown[200];
    size_t len;

    text += strspn(text, " \t");
    for (len = strcspn(text, "#"); len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t');)
        len--;
    printf("rule %u", rule + 1);
    if (id)
        printf(" \"%s\"", text_show(id, strlen(id), shown, sizeof shown));
    printf(" (%s)", text_show(text, len, shown, sizeof shown));
}

static void print_verdict(const struct policy *policy, const char *what,
                          const struct policy_verdict *verdict)
{
    static const char *const words[] = {"allowed", "denied", "dropped", "waits for the name"};

    printf("  %-*s %s", WIDTH, what, words[verdict->action]);
    switch (verdict->reason) {
    case POLICY_REASON_RULE:
        printf(verdict->action == POLICY_NEED_NAME ? ": " : " by ");
        explain_rule(policy, verdict->rule);
        printf(verdict->action == POLICY_NEED_NAME ? " may apply" : "");
        break;
    case POLICY_REASON_DEFAULT:
        printf(": no rule matches");
        break;
    case POLICY_REASON_FLOOR:
        printf(": ");
        explain_rule(policy, verdict->rule);
        printf(" does not name an address of this kind; write its group, or \"in\" behind a name");
        break;
    case POLICY_REASON_UNPINNED:
        printf(": ");
        explain_rule(policy, verdict->rule);
        printf(" holds for addresses that were answered for the name");
        break;
    case POLICY_REASON_UNNAMED:
        printf(": ");
        explain_rule(policy, verdict->rule);
        printf(" wants to see the name");
        break;
    }
    printf("\n");
}

static void explain_state(const struct policy *policy, const struct policy_world *world,
                          const struct policy_query *base, enum policy_name_state state,
                          const struct dns_name *name, const char *what)
{
    struct policy_query query = *base;
    query.name_state = state;
    query.name = name;
    struct policy_verdict verdict = policy_judge(policy, world, &query);
    print_verdict(policy, what, &verdict);
}

/* Under rules by name, names come from the resolver here, whatever the rules say about port 53. */
static bool explain_resolver(const struct flow *flow)
{
    if (flow->port == DNS_PORT)
        printf("  %-*s answered by culvert's own resolver: each name is judged by itself\n", WIDTH,
               "the flow is");
    else if (flow->port == DNS_TLS_PORT)
        printf("  %-*s denied: names must come from culvert's own resolver\n", WIDTH,
               "the flow is");
    return flow->port == DNS_PORT || flow->port == DNS_TLS_PORT;
}

static void explain_states(const struct policy *policy, const struct policy_world *world,
                           const struct policy_query *query, const struct flow *flow)
{
    struct dns_name other;
    char shown[NAME_SHOWN_MAX], what[NAME_SHOWN_MAX + 16];

    if (!policy_has_names(policy) || flow->protocol == POLICY_ICMP ||
        flow->direction == POLICY_INGRESS) {
        explain_state(policy, world, query, POLICY_NAME_NAMELESS, NULL, "the flow is");
        return;
    }
    if (explain_resolver(flow))
        return;
    explain_state(policy, world, query, POLICY_NAME_PENDING, NULL, "when it begins");
    if (flow->by_name) {
        snprintf(what, sizeof what, "named %s", name_show(&flow->name, shown));
        explain_state(policy, world, query, POLICY_NAME_NAMED, &flow->name, what);
    }
    if (dns_name_parse("name.invalid", &other) == 0)
        explain_state(policy, world, query, POLICY_NAME_NAMED, &other, "named otherwise");
    explain_state(policy, world, query, POLICY_NAME_HIDDEN, NULL, "its name hidden");
    explain_state(policy, world, query, POLICY_NAME_NAMELESS, NULL, "its payload nameless");
}

static int explain_name(const struct policy_builder *builder, const struct policy *policy,
                        const struct policy_world *world, const struct flow *flow,
                        struct policy_query *query)
{
    static const uint64_t key[2] = {0};
    char shown[NAME_SHOWN_MAX];
    struct policy_verdict lookup = policy_judge_query(policy, &flow->name);
    struct pins *pins = pins_new(NULL, key);

    if (!pins)
        return -ENOMEM;
    query->address = some_public_address(builder);
    query->pins = pins;
    if (pins_learn(pins, &flow->name, &query->address, PIN_QUERIED, 3600, 0) < 0) {
        pins_free(pins);
        return -ENOMEM;
    }
    print_verdict(policy, "looking it up", &lookup);
    printf("  then, at a public address that was answered for %s:\n",
           name_show(&flow->name, shown));
    explain_states(policy, world, query, flow);
    pins_free(pins);
    return 0;
}

static void print_groups(const struct policy *policy, const struct policy_world *world,
                         const struct ip_address *address)
{
    unsigned groups = policy_groups_of(policy, world, address);
    printf("  %-*s", WIDTH, "the address is");
    for (unsigned bit = 1; bit <= POLICY_SPECIAL; bit <<= 1) {
        if (groups & bit)
            printf(" %s", policy_group_name((enum policy_group)bit));
    }
    printf("\n");
}

int explain(const struct policy_builder *builder, const struct policy *policy,
            const struct policy_world *world, const char *text, char *message, size_t size)
{
    struct flow flow = {.direction = POLICY_EGRESS};
    const char *rest = text;
    char shown[300];
    int r = parse_protocol(&rest, &flow, message, size);

    if (r < 0 || (r = parse_where(rest, &flow, message, size)) < 0)
        return r;
    struct policy_query query = {.direction = flow.direction,
                                 .protocol = flow.protocol,
                                 .address = flow.address,
                                 .port = flow.port};
    printf("\n%s\n", text_show(text, strlen(text), shown, sizeof shown));
    if (flow.by_name)
        return explain_name(builder, policy, world, &flow, &query);
    print_groups(policy, world, &flow.address);
    explain_states(policy, world, &query, &flow);
    return 0;
}
