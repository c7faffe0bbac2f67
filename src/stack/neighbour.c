/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * Is the guest there, and under which address? Only connections that come from outside ask: all
 * others begin with a packet of the guest's own. For each family there is one address of the
 * guest's that they lead to.
 *
 *     FOUND ──expect──▶ EXPECTED ──WAIT──▶ ASKED ──three questions──▶ AWAY
 *       ▲                  │                 │                         │
 *       └───── heard ──────┴─────────────────┴─────────────────────────┘
 *
 * A SYN that was sent is the first question. If nothing at all has come from the address within
 * WAIT, the guest is asked who has it (ARP, or a neighbour solicitation), a few times; whoever is
 * there answers that, whatever its firewall does to SYNs. One that does not is away: connections
 * that wait for it end, and new ones end at once, each asking again, so that a guest which came
 * back is found by the next. A guest that answers costs neither a packet nor a wake-up.
 *
 * IPv4 addresses are handed out, and no other is accepted. Of IPv6 addresses the guest may have
 * made up its own (SLAAC) and never asked for the configured one. So what it uses, or claims by
 * duplicate address detection, is taken instead: the first of them, which is the lasting one, until
 * the configured one shows itself, or the one that was taken turns out to be gone. */

#include "stack/network.h"

#define WAIT    (100 * MS_NS)
#define ASK_GAP (300 * MS_NS)
#define ASKS    3

static bool same(const struct ip_address *a, const struct ip_address *b)
{
    return ip_address_equal(a, b);
}

static const struct ip_address *configured(const struct neighbour *neighbour)
{
    const struct stack_config *config = &neighbour->stack->config;

    return neighbour->v6 ? &config->guest6 : &config->guest4;
}

static void forget_questions(struct neighbour *neighbour)
{
    timer_cancel(neighbour->stack->timers, &neighbour->timer);
    neighbour->asks = 0;
    neighbour->away = false;
}

static void ask(struct neighbour *neighbour)
{
    struct stack *stack = neighbour->stack;

    neighbour->asked_at = stack->now;
    stack->link_layer->next_solicited = stack->now + SECOND_NS; /* this is the question */
    if (neighbour->v6)
        ndp_solicit(stack, &neighbour->address);
    else
        link_ask_guest4(stack);
}

static void silence(void *arg, struct timer *timer, uint64_t now)
{
    struct neighbour *neighbour =
        (struct neighbour *)((char *)timer - offsetof(struct neighbour, timer));
    struct stack *stack = neighbour->stack;

    (void)arg;
    stack_set_now(stack, now);
    if (neighbour->asks++ < ASKS) {
        ask(neighbour);
        timer_arm(stack->timers, timer, now + ASK_GAP);
        return;
    }
    neighbour->away = true;
    neighbour->known = false;
    neighbour->attentive = true;
    tcp_neighbour_away(stack, &neighbour->address);
}

void neighbour_init(struct neighbour *neighbour, struct stack *stack, bool v6)
{
    neighbour->stack = stack;
    neighbour->v6 = v6;
    neighbour->address = *configured(neighbour);
    neighbour->attentive = true;
    timer_init(&neighbour->timer, silence);
}

void neighbour_fini(struct neighbour *neighbour)
{
    if (neighbour->stack)
        timer_cancel(neighbour->stack->timers, &neighbour->timer);
}

void neighbour_link_changed(struct neighbour *neighbour)
{
    if (neighbour->stack->link.up)
        return;
    forget_questions(neighbour); /* another guest may come */
    neighbour->known = false;
    neighbour->attentive = true;
    neighbour->address = *configured(neighbour);
}

static bool may_be_taken(const struct neighbour *neighbour, const struct ip_address *address)
{
    const struct stack *stack = neighbour->stack;

    return neighbour->v6 && ip_prefix_contains(&stack->ip->prefix6, address) &&
           !ip_address_owned(stack, address);
}

void neighbour_claimed(struct neighbour *neighbour, const struct ip_address *address)
{
    if (same(address, &neighbour->address)) {
        neighbour->known = true;
        return;
    }
    if (!may_be_taken(neighbour, address) ||
        (neighbour->known && !same(address, configured(neighbour))))
        return;
    forget_questions(neighbour);
    neighbour->address = *address;
    neighbour->known = true;
    neighbour->attentive = true;
}

void neighbour_heard_attentively(struct neighbour *neighbour, const struct ip_address *source)
{
    neighbour_claimed(neighbour, source);
    if (!same(source, &neighbour->address))
        return;
    forget_questions(neighbour);
    neighbour->attentive = false;
}

/* ---- who asks from above ---- */

static struct neighbour *neighbour_of(struct stack *stack, bool v6)
{
    return v6 ? &stack->link_layer->neighbour6 : &stack->link_layer->neighbour4;
}

void neighbour_expect(struct stack *stack, const struct ip_address *guest)
{
    struct neighbour *neighbour = neighbour_of(stack, !ip_address_is_v4(guest));

    if (neighbour->away || timer_armed(&neighbour->timer) || !same(guest, &neighbour->address))
        return;
    neighbour->asks = 0;
    neighbour->attentive = true;
    timer_arm(stack->timers, &neighbour->timer, stack->now + WAIT);
}

struct ip_address stack_guest_address(struct stack *stack, bool v6)
{
    return neighbour_of(stack, v6)->address;
}

bool stack_guest_is_away(struct stack *stack, bool v6)
{
    struct neighbour *neighbour = neighbour_of(stack, v6);

    if (neighbour->away && stack->now - neighbour->asked_at >= ASK_GAP)
        ask(neighbour);
    return neighbour->away;
}
