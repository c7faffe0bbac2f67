/* SPDX-License-Identifier: Apache-2.0 */

/* Verdicts where names matter: DESIGN §6, domain rules and DNS.
 *
 * A rule by name says yes, no or maybe. The walk through the rules ends at the first yes, so only
 * three numbers are wanted: the first yes, and before it the first maybe that allows and the first
 * maybe that refuses. A maybe exists only while the flow is pending. What is known decides which
 * names are asked about:
 *
 *              rules that refuse                rules that allow
 *   pending    maybe: every one                 maybe: names the address is pinned to
 *   named N    yes: N                           yes: N, if the address is pinned to it
 *   hidden     yes: names it is pinned to       no
 *   nameless   yes: names it is pinned to       yes: names it is pinned to; on 443 and TCP 80 no
 *
 * Pins of a CNAME chain's owners count in the left column only. */

#include "policy/judging.h"

#include "policy/pins.h"

#define HTTPS_PORT 443
#define HTTP_PORT  80

/* ---- where an allow by name leads ---- */

static bool widening_covers(const struct judging *judging, uint32_t number)
{
    const struct widening *widening = &judging->policy->names.widenings[number];
    const struct service_pool *pool = &judging->policy->pool;
    if ((widening->groups & judging->group) || (widening->any && !judging->is_protected))
        return true;
    return prefix_index_first(&widening->prefixes, pool, &judging->query->address, 0, NO_RULE) !=
               NO_RULE ||
           (judging->nat64 && prefix_index_first(&widening->prefixes, pool, &judging->carried, 0,
                                                 NO_RULE) != NO_RULE);
}

/* Was this address given to this name by --dns-host? */
static bool is_name_host(const struct judging *judging, const struct dns_name *name)
{
    const struct name_rules *names = &judging->policy->names;
    for (size_t i = 0; i < names->host_count; i++) {
        if (ip_address_equal(&names->hosts[i].address, &judging->query->address) &&
            dns_name_equal(&names->hosts[i].name, name))
            return true;
    }
    return false;
}

/* ---- the first rules for names ---- */

/* What is found about one name, or about several: the first rule of each kind, NO_RULE where there
 * is none. All of it comes from one look at the index. */
struct found {
    uint32_t refuse;
    uint32_t allow;          /* that leads to the address */
    uint32_t allow_anywhere; /* wherever it leads */
    const struct pin *pin;   /* of the name for which `allow` was found; NULL: the held name, or one
                                of --dns-host */
};

static const struct found NOTHING_FOUND = {NO_RULE, NO_RULE, NO_RULE, NULL};

struct asking {
    const struct judging *judging;
    bool everywhere; /* every allow leads to the address */
    bool allows;     /* are rules that allow asked for? */
    struct found *found;
};

static uint32_t first_in(const struct asking *asking, const struct service_table *table,
                         uint32_t best)
{
    return service_table_first(&asking->judging->policy->pool, table, asking->judging->service,
                               best);
}

static void visit_bag(void *ctx, uint32_t number)
{
    const struct asking *asking = ctx;
    const struct name_rules *names = &asking->judging->policy->names;
    const struct name_bag *bag = &names->bags[number];
    struct found *found = asking->found;

    found->refuse = first_in(asking, &bag->refuse, found->refuse);
    for (uint32_t i = 0; i < bag->allow_count && asking->allows; i++) {
        const struct bag_allow *allow = &names->allows[bag->allow_begin + i];
        if (allow->services.lowest >= found->allow)
            return;
        uint32_t rule = first_in(asking, &allow->services, NO_RULE);
        if (rule < found->allow_anywhere)
            found->allow_anywhere = rule;
        if (rule < found->allow &&
            (asking->everywhere || widening_covers(asking->judging, allow->widening)))
            found->allow = rule;
    }
}

static void look_up(const struct judging *judging, const struct dns_name *name, bool allows,
                    struct found *found)
{
    struct asking asking = {
        .judging = judging,
        .everywhere = judging->group == POLICY_PUBLIC || is_name_host(judging, name),
        .allows = allows,
        .found = found,
    };
    name_index_match(&judging->policy->names.index, name, visit_bag, &asking);
}

/* ---- the names an address is pinned to ---- */

/* A name of --dns-host is pinned without being asked for: it stands in the guest's /etc/hosts. */
struct pin_walk {
    const struct judging *judging;
    enum { WALK_HELD, WALK_HOSTS, WALK_ADDRESS, WALK_CARRIED, WALK_END } stage;
    size_t host;           /* WALK_HOSTS: the next */
    const struct pin *pin; /* the current one; NULL: the held name, or one of --dns-host */
    bool queried;          /* it was the name asked for, not another owner of the chain */
    struct dns_name name;
};

static const struct pin *first_pin(const struct pin_walk *walk)
{
    const struct policy_query *query = walk->judging->query;
    if (!query->pins || (walk->stage == WALK_CARRIED && !walk->judging->nat64))
        return NULL;
    return pins_first(query->pins,
                      walk->stage == WALK_CARRIED ? &walk->judging->carried : &query->address,
                      query->now);
}

static bool next_host(struct pin_walk *walk)
{
    const struct name_rules *names = &walk->judging->policy->names;
    while (walk->host < names->host_count) {
        const struct name_host *host = &names->hosts[walk->host++];
        if (!ip_address_equal(&host->address, &walk->judging->query->address))
            continue;
        walk->name = host->name;
        return true;
    }
    return false;
}

/* False: that was all. An address within NAT64 counts as the one it carries, too. */
static bool pin_walk_next(struct pin_walk *walk)
{
    const struct policy_query *query = walk->judging->query;
    walk->queried = true;
    if (walk->stage == WALK_HELD) {
        walk->stage = WALK_HOSTS;
        if (query->held) {
            walk->name = *query->held;
            return true;
        }
    }
    if (walk->stage == WALK_HOSTS) {
        if (next_host(walk))
            return true;
        walk->stage = WALK_ADDRESS;
    }
    const struct pin *next = walk->pin ? pins_next(walk->pin, query->now) : first_pin(walk);
    while (!next && ++walk->stage < WALK_END)
        next = first_pin(walk);
    walk->pin = next;
    if (!next)
        return false;
    walk->queried = pin_role(next, query->now) == PIN_QUERIED;
    pin_name(next, &walk->name);
    return true;
}

/* About all names that the address is pinned to. */
static struct found look_up_pins(const struct judging *judging)
{
    struct pin_walk walk = {.judging = judging, .stage = WALK_HELD};
    struct found found = NOTHING_FOUND;
    while (pin_walk_next(&walk)) {
        uint32_t allow = found.allow;
        look_up(judging, &walk.name, walk.queried, &found);
        if (found.allow < allow)
            found.pin = walk.pin;
    }
    return found;
}

/* Is the address pinned to `name` itself? *ret_pin: by which pin; NULL: by the held one, or
 * by --dns-host. */
static bool is_pinned(const struct judging *judging, const struct dns_name *name,
                      const struct pin **ret_pin)
{
    const struct policy_query *query = judging->query;
    const struct pin *pin = NULL;

    if (query->pins)
        pin = pins_find(query->pins, name, &query->address, query->now);
    if (query->pins && judging->nat64 && !(pin && pin_role(pin, query->now) == PIN_QUERIED))
        pin = pins_find(query->pins, name, &judging->carried, query->now);
    if (pin && pin_role(pin, query->now) == PIN_QUERIED) {
        *ret_pin = pin;
        return true;
    }
    *ret_pin = NULL;
    return is_name_host(judging, name) || (query->held && dns_name_equal(query->held, name));
}

/* ---- the verdict ---- */

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static struct policy_verdict default_because(const struct judging *judging,
                                             enum policy_reason reason, uint32_t rule)
{
    struct policy_verdict verdict = judging_verdict(judging, NO_RULE);
    if (verdict.reason == POLICY_REASON_DEFAULT && rule != NO_RULE) {
        verdict.reason = reason;
        verdict.rule = rule;
    }
    return verdict;
}

/* No rule matched. Would one have, had the flow borne a name that it was pinned to? */
static struct policy_verdict default_of_pins(const struct judging *judging,
                                             const struct found *pinned)
{
    if (pinned->allow != NO_RULE)
        return default_because(judging, POLICY_REASON_UNNAMED, pinned->allow);
    return default_because(judging, POLICY_REASON_FLOOR, pinned->allow_anywhere);
}

static struct policy_verdict judge_named(const struct judging *judging, uint32_t rule)
{
    const struct dns_name *name = judging->query->name;
    const struct pin *pin = NULL;
    struct found found = NOTHING_FOUND;

    look_up(judging, name, true, &found);
    bool pinned = found.allow_anywhere != NO_RULE && is_pinned(judging, name, &pin);
    rule = smaller(rule, found.refuse);
    if (pinned && found.allow < rule) {
        struct policy_verdict verdict = judging_verdict(judging, found.allow);
        verdict.pin = pin;
        return verdict;
    }
    if (rule != NO_RULE)
        return judging_verdict(judging, rule);
    if (found.allow_anywhere != NO_RULE)
        return default_because(judging, pinned ? POLICY_REASON_FLOOR : POLICY_REASON_UNPINNED,
                               found.allow_anywhere);
    found = look_up_pins(judging);
    return default_of_pins(judging, &found);
}

static struct policy_verdict judge_hidden(const struct judging *judging, uint32_t rule)
{
    if (rule != NO_RULE && judging->policy->names.refuse.lowest >= rule)
        return judging_verdict(judging, rule); /* no rule by name comes before it */
    struct found pinned = look_up_pins(judging);
    rule = smaller(rule, pinned.refuse);
    return rule == NO_RULE ? default_of_pins(judging, &pinned) : judging_verdict(judging, rule);
}

bool policy_name_is_due(enum policy_protocol protocol, uint16_t port)
{
    return port == HTTPS_PORT || (protocol == POLICY_TCP && port == HTTP_PORT);
}

static struct policy_verdict judge_nameless(const struct judging *judging, uint32_t rule)
{
    if (policy_name_is_due(judging->query->protocol, judging->query->port))
        return judge_hidden(judging, rule);
    if (rule != NO_RULE && judging->policy->names.lowest >= rule)
        return judging_verdict(judging, rule);
    struct found pinned = look_up_pins(judging);
    rule = smaller(rule, pinned.refuse);
    if (pinned.allow < rule) {
        struct policy_verdict verdict = judging_verdict(judging, pinned.allow);
        verdict.pin = pinned.pin;
        return verdict;
    }
    return rule == NO_RULE ? default_of_pins(judging, &pinned) : judging_verdict(judging, rule);
}

/* `certain`: the first yes. */
static struct policy_verdict judge_pending(const struct judging *judging, uint32_t certain)
{
    const struct policy *policy = judging->policy;
    bool allowed = certain != NO_RULE && policy->rules[certain].action == POLICY_ALLOW;
    uint32_t may_refuse =
        service_table_first(&policy->pool, &policy->names.refuse, judging->service, certain);
    uint32_t may_allow = certain;

    if (allowed && may_refuse == certain)
        return judging_verdict(judging, certain); /* all candidates allow */
    if (!allowed && policy->names.lowest < certain) {
        struct found pinned = look_up_pins(judging);
        may_allow = smaller(certain, pinned.allow);
        if (may_allow == certain && may_refuse == NO_RULE)
            return default_of_pins(judging, &pinned);
    }
    if (!allowed && may_allow == certain)
        return judging_verdict(judging, may_refuse); /* none allows: the first decides */
    return (struct policy_verdict){.action = POLICY_NEED_NAME,
                                   .reason = POLICY_REASON_RULE,
                                   .rule = smaller(may_refuse, may_allow)};
}

struct policy_verdict judge_by_name(const struct judging *judging, uint32_t rule)
{
    switch (judging->query->name_state) {
    case POLICY_NAME_PENDING:
        return judge_pending(judging, rule);
    case POLICY_NAME_NAMED:
        return judge_named(judging, rule);
    case POLICY_NAME_HIDDEN:
        return judge_hidden(judging, rule);
    case POLICY_NAME_NAMELESS:
        break;
    }
    return judge_nameless(judging, rule);
}

/* ---- DNS ---- */

struct asking_query {
    const struct name_rules *names;
    uint32_t allow, refuse;
};

static void visit_query(void *ctx, uint32_t number)
{
    struct asking_query *asking = ctx;
    const struct name_bag *bag = &asking->names->bags[number];
    if (bag->query_allow < asking->allow)
        asking->allow = bag->query_allow;
    if (bag->query_refuse < asking->refuse)
        asking->refuse = bag->query_refuse;
}

struct policy_verdict policy_judge_query(const struct policy *policy, const struct dns_name *name)
{
    struct asking_query asking = {&policy->names, policy->query_allow, policy->query_refuse};
    name_index_match(&policy->names.index, name, visit_query, &asking);
    uint32_t first = asking.allow < asking.refuse ? asking.allow : asking.refuse;
    if (first == NO_RULE)
        return (struct policy_verdict){
            .action = POLICY_DENY, .reason = POLICY_REASON_DEFAULT, .rule = NO_RULE};
    return (struct policy_verdict){
        .action = policy->rules[first].action, .reason = POLICY_REASON_RULE, .rule = first};
}

struct policy_verdict policy_judge_owner(const struct policy *policy, const struct dns_name *owner,
                                         const struct policy_verdict *query)
{
    struct asking_query asking = {&policy->names, NO_RULE, NO_RULE};
    name_index_match(&policy->names.index, owner, visit_query, &asking);
    if (asking.refuse >= query->rule || asking.refuse > asking.allow)
        return *query;
    return (struct policy_verdict){.action = policy->rules[asking.refuse].action,
                                   .reason = POLICY_REASON_RULE,
                                   .rule = asking.refuse};
}

/* ---- which addresses may stand in an answer ---- */

struct asking_answer {
    const struct judging *judging;
    bool widened;
};

static void visit_answer(void *ctx, uint32_t number)
{
    struct asking_answer *asking = ctx;
    const struct name_rules *names = &asking->judging->policy->names;
    const struct name_bag *bag = &names->bags[number];
    for (uint32_t i = 0; i < bag->allow_count && !asking->widened; i++)
        asking->widened =
            widening_covers(asking->judging, names->allows[bag->allow_begin + i].widening);
}

static bool is_allow(const void *ctx, uint32_t rule)
{
    const struct policy *policy = ctx;
    return policy->rules[rule].action == POLICY_ALLOW;
}

/* Is there an allow that names the address, for whatever service? */
static bool is_allowed_by_address(const struct judging *judging)
{
    const struct direction *direction = judging->direction;
    const struct service_pool *pool = &judging->policy->pool;
    unsigned kind = (unsigned)__builtin_ctz(judging->group);
    return direction->allow[kind].count > 0 ||
           (!judging->is_protected && direction->allow[TARGET_KIND_ANY].count > 0) ||
           prefix_index_any(&direction->prefixes, pool, &judging->query->address, is_allow,
                            judging->policy) ||
           (judging->nat64 && prefix_index_any(&direction->prefixes, pool, &judging->carried,
                                               is_allow, judging->policy));
}

bool policy_admits_answer(const struct policy *policy, const struct policy_world *world,
                          const struct dns_name *name, const struct ip_address *address)
{
    struct policy_query query = {
        .direction = POLICY_EGRESS, .protocol = POLICY_TCP, .address = *address};
    struct judging judging = judging_of(policy, world, &query);
    struct asking_answer asking = {.judging = &judging};

    if (judging.group == POLICY_PUBLIC || is_name_host(&judging, name) ||
        is_allowed_by_address(&judging))
        return true;
    name_index_match(&policy->names.index, name, visit_answer, &asking);
    return asking.widened;
}
