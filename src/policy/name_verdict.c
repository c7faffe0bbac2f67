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

/* ---- the first rule for a name ---- */

struct asking {
    const struct judging *judging;
    bool everywhere; /* every allow reaches the address */
    uint32_t best;
};

static void visit_refuse(void *ctx, uint32_t bag)
{
    struct asking *asking = ctx;
    const struct judging *judging = asking->judging;
    asking->best =
        service_table_first(&judging->policy->pool, &judging->policy->names.bags[bag].refuse,
                            judging->service, asking->best);
}

static uint32_t first_refuse(const struct judging *judging, const struct dns_name *name,
                             uint32_t best)
{
    struct asking asking = {.judging = judging, .best = best};
    name_index_match(&judging->policy->names.index, name, visit_refuse, &asking);
    return asking.best;
}

static void visit_allow(void *ctx, uint32_t number)
{
    struct asking *asking = ctx;
    const struct judging *judging = asking->judging;
    const struct name_rules *names = &judging->policy->names;
    const struct name_bag *bag = &names->bags[number];
    for (uint32_t i = 0; i < bag->allow_count; i++) {
        const struct bag_allow *allow = &names->allows[bag->allow_begin + i];
        if (allow->services.lowest >= asking->best)
            return;
        if (asking->everywhere || widening_covers(judging, allow->widening))
            asking->best = service_table_first(&judging->policy->pool, &allow->services,
                                               judging->service, asking->best);
    }
}

static uint32_t first_allow(const struct judging *judging, const struct dns_name *name,
                            uint32_t best)
{
    struct asking asking = {
        .judging = judging,
        .everywhere = judging->group == POLICY_PUBLIC || is_name_host(judging, name),
        .best = best,
    };
    name_index_match(&judging->policy->names.index, name, visit_allow, &asking);
    return asking.best;
}

/* As if every allow reached every address. */
static uint32_t first_allow_anywhere(const struct judging *judging, const struct dns_name *name)
{
    struct asking asking = {.judging = judging, .everywhere = true, .best = NO_RULE};
    name_index_match(&judging->policy->names.index, name, visit_allow, &asking);
    return asking.best;
}

/* ---- the names an address is pinned to ---- */

struct pin_walk {
    const struct judging *judging;
    enum { WALK_HELD, WALK_ADDRESS, WALK_CARRIED, WALK_END } stage;
    const struct pin *pin; /* the current one; NULL: the held name */
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

/* False: that was all. An address within NAT64 counts as the one it carries, too. */
static bool pin_walk_next(struct pin_walk *walk)
{
    const struct policy_query *query = walk->judging->query;
    if (walk->stage == WALK_HELD) {
        walk->stage = WALK_ADDRESS;
        walk->pin = NULL;
        if (query->held) {
            walk->queried = true;
            walk->name = *query->held;
            return true;
        }
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

static struct pin_walk pin_walk_of(const struct judging *judging)
{
    return (struct pin_walk){.judging = judging, .stage = WALK_HELD};
}

static uint32_t first_refuse_by_pins(const struct judging *judging, uint32_t best)
{
    struct pin_walk walk = pin_walk_of(judging);
    if (judging->policy->names.refuse.lowest >= best || judging->policy->names.refuse.count == 0)
        return best;
    while (pin_walk_next(&walk))
        best = first_refuse(judging, &walk.name, best);
    return best;
}

/* *ret_pin: the pin of the name that found a better rule; untouched otherwise. */
static uint32_t first_allow_by_pins(const struct judging *judging, uint32_t best,
                                    const struct pin **ret_pin)
{
    struct pin_walk walk = pin_walk_of(judging);
    while (pin_walk_next(&walk)) {
        uint32_t rule = walk.queried ? first_allow(judging, &walk.name, best) : best;
        if (rule < best) {
            best = rule;
            *ret_pin = walk.pin;
        }
    }
    return best;
}

/* Is the address pinned to `name` itself? *ret_pin: by which pin; NULL: by the held one. */
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
    return query->held && dns_name_equal(query->held, name);
}

/* ---- the verdict ---- */

/* As if every allow reached every address. */
static uint32_t first_allow_by_pins_anywhere(const struct judging *judging)
{
    struct pin_walk walk = pin_walk_of(judging);
    uint32_t best = NO_RULE;
    while (pin_walk_next(&walk)) {
        uint32_t rule = walk.queried ? first_allow_anywhere(judging, &walk.name) : NO_RULE;
        best = rule < best ? rule : best;
    }
    return best;
}

/* No rule matched. Which one would have, had the flow borne the right name or gone elsewhere? */
static struct policy_verdict explain_default(const struct judging *judging)
{
    struct policy_verdict verdict = judging_verdict(judging, NO_RULE);
    const struct policy_query *query = judging->query;
    const struct pin *pin;

    if (verdict.reason != POLICY_REASON_DEFAULT)
        return verdict;
    if (query->name_state == POLICY_NAME_NAMED) {
        verdict.rule = first_allow_anywhere(judging, query->name);
        verdict.reason =
            is_pinned(judging, query->name, &pin) ? POLICY_REASON_FLOOR : POLICY_REASON_UNPINNED;
    }
    if (verdict.rule == NO_RULE) {
        verdict.rule = first_allow_by_pins(judging, NO_RULE, &pin);
        verdict.reason = POLICY_REASON_UNNAMED;
    }
    if (verdict.rule == NO_RULE) {
        verdict.rule = first_allow_by_pins_anywhere(judging);
        verdict.reason = POLICY_REASON_FLOOR;
    }
    if (verdict.rule == NO_RULE)
        verdict.reason = POLICY_REASON_DEFAULT;
    return verdict;
}

static struct policy_verdict decided(const struct judging *judging, uint32_t rule,
                                     const struct pin *pin)
{
    if (rule == NO_RULE)
        return explain_default(judging);
    struct policy_verdict verdict = judging_verdict(judging, rule);
    verdict.pin = verdict.action == POLICY_ALLOW ? pin : NULL;
    return verdict;
}

static struct policy_verdict judge_named(const struct judging *judging, uint32_t best)
{
    const struct dns_name *name = judging->query->name;
    const struct pin *pin = NULL;

    best = first_refuse(judging, name, best);
    if (is_pinned(judging, name, &pin)) {
        uint32_t allow = first_allow(judging, name, best);
        if (allow < best)
            return decided(judging, allow, pin);
    }
    return decided(judging, best, NULL);
}

/* Would a client that is allowed by name have told it? */
static bool name_is_due(const struct policy_query *query)
{
    return query->port == HTTPS_PORT || (query->protocol == POLICY_TCP && query->port == HTTP_PORT);
}

static struct policy_verdict judge_nameless(const struct judging *judging, uint32_t best)
{
    const struct pin *pin = NULL;
    best = first_refuse_by_pins(judging, best);
    if (!name_is_due(judging->query))
        best = first_allow_by_pins(judging, best, &pin);
    return decided(judging, best, pin);
}

/* `certain`: the first yes. */
static struct policy_verdict judge_pending(const struct judging *judging, uint32_t certain)
{
    const struct policy *policy = judging->policy;
    const struct pin *pin = NULL;
    bool certainly_allowed = certain != NO_RULE && policy->rules[certain].action == POLICY_ALLOW;
    uint32_t may_refuse =
        service_table_first(&policy->pool, &policy->names.refuse, judging->service, certain);

    if (certainly_allowed && may_refuse == certain)
        return decided(judging, certain, NULL); /* all candidates allow */
    uint32_t may_allow = certainly_allowed ? certain : first_allow_by_pins(judging, certain, &pin);
    if (!certainly_allowed && may_allow == certain)
        return decided(judging, may_refuse, NULL); /* none allows: the first decides */
    return (struct policy_verdict){.action = POLICY_NEED_NAME,
                                   .reason = POLICY_REASON_RULE,
                                   .rule = may_refuse < may_allow ? may_refuse : may_allow};
}

struct policy_verdict judge_by_name(const struct judging *judging, uint32_t rule)
{
    switch (judging->query->name_state) {
    case POLICY_NAME_PENDING:
        return judge_pending(judging, rule);
    case POLICY_NAME_NAMED:
        return judge_named(judging, rule);
    case POLICY_NAME_HIDDEN:
        return decided(judging, first_refuse_by_pins(judging, rule), NULL);
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
