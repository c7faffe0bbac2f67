/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_FLOW_NAMING_H
#define ENGINE_FLOW_NAMING_H

/* Which name goes with a flow, and how a rule would name it: for those who tell of it, not for the
 * verdict. */

#include <culvert/events.h>
#include <stdbool.h>

#include "engine/judgement.h"
#include "wire/dns.h"

struct pins;

struct flow_naming {
    struct dns_name name;
    enum culvert_event_name_source source;
    bool admits; /* a rule that allows this name would admit the flow */
};

/* The name it bears; else the one for which the address was answered last. `pins` may be NULL. */
void flow_naming_of(const struct pins *pins, const struct subject *subject, uint16_t port,
                    uint64_t now, struct flow_naming *ret);

#define RULE_NAME_MAX 256
/* The name as a rule is to have it. False: no rule can name it. */
bool rule_name_write(const struct dns_name *name, char text[RULE_NAME_MAX]);

#endif
