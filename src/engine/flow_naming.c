/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/flow_naming.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "policy/names.h"
#include "policy/pins.h"

/* Where a flow without a name is not admitted by the name of its address: it ought to bear one. */
static bool must_bear_name(const struct subject *subject, uint16_t port)
{
    switch (subject->name_state) {
    case POLICY_NAME_HIDDEN:
        return true;
    case POLICY_NAME_NAMELESS:
        return policy_name_is_due(subject->key.protocol == IPPROTO_TCP ? POLICY_TCP : POLICY_UDP,
                                  port);
    default:
        return false;
    }
}

/* The newest name that was asked for; owners in CNAME chains admit nothing. */
static const struct pin *newest_asked(const struct pins *pins, const struct ip_address *address,
                                      uint64_t now)
{
    const struct pin *pin = pins_first(pins, address, now);

    while (pin && pin_role(pin, now) != PIN_QUERIED)
        pin = pins_next(pin, now);
    return pin;
}

void flow_naming_of(const struct pins *pins, const struct subject *subject, uint16_t port,
                    uint64_t now, struct flow_naming *ret)
{
    const struct ip_address *address = &subject->key.remote;
    const struct pin *pin;

    *ret = (struct flow_naming){.source = CULVERT_EVENT_NAME_NONE};
    if (subject->name_state == POLICY_NAME_NAMED && subject->name) {
        ret->name = *subject->name;
        ret->source = CULVERT_EVENT_NAME_FLOW;
        pin = pins ? pins_find(pins, subject->name, address, now) : NULL;
        ret->admits = pin && pin_role(pin, now) == PIN_QUERIED;
        return;
    }
    pin = pins ? newest_asked(pins, address, now) : NULL;
    if (!pin)
        return;
    pin_name(pin, &ret->name);
    ret->source = CULVERT_EVENT_NAME_ANSWER;
    ret->admits = !must_bear_name(subject, port);
}

bool rule_name_write(const struct dns_name *name, char text[RULE_NAME_MAX])
{
    char shown[NAME_SHOWN_MAX + 2], message[8];
    struct name_pattern pattern;
    size_t len;

    name_show(name, shown);
    len = strlen(shown);
    if (len + 1 >= RULE_NAME_MAX)
        return false;
    int r = name_pattern_parse(shown, len, &pattern, message, sizeof message);
    if (r == -ENOENT) { /* a single label is written with its dot */
        shown[len++] = '.';
        r = name_pattern_parse(shown, len, &pattern, message, sizeof message);
    }
    if (r < 0 || pattern.kind != NAME_PATTERN_EXACT)
        return false;
    memcpy(text, shown, len);
    text[len] = '\0';
    return true;
}
