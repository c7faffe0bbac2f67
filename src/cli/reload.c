/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/reload.h"

#include <culvert/events.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/options.h"
#include "engine/config.h"
#include "engine/policy_swap.h"

/* 0, or negative errno and `error` filled. */
static int reload(struct culvert_engine *engine, const struct command_line *line,
                  struct culvert_error *error)
{
    struct culvert_config *config = culvert_config_new();
    struct culvert_error fault = {"out of memory"};
    int r = -1;

    if (config)
        r = options_parse(line->argc, line->argv, line->command, config, &fault);
    *error = fault;
    if (r >= 0) {
        r = culvert_engine_set_policy(engine, config, &fault);
        snprintf(error->message, sizeof error->message, "%s%.500s", r == -EINVAL ? "--" : "",
                 fault.message);
    }
    culvert_config_free(config);
    return r;
}

void reload_policy(struct culvert_engine *engine, const struct command_line *line, bool quiet)
{
    struct culvert_error error;
    struct policy_facts facts;

    if (reload(engine, line, &error) < 0) {
        dprintf(STDERR_FILENO, "culvert: %s; the policy in force stays\n", error.message);
        return;
    }
    facts = policy_swap_facts(engine);
    if (!quiet)
        dprintf(STDERR_FILENO,
                "culvert: policy %u is in force: %u rules; %llu open connections were reset\n",
                facts.generation, facts.rule_count, (unsigned long long)facts.flows_reset);
}

void reopen_events(struct culvert_engine *engine)
{
    int r = culvert_engine_reopen_events(engine);

    if (r < 0)
        dprintf(STDERR_FILENO,
                "culvert: --events: the file cannot be opened anew: %s; the old one stays\n",
                strerror(-r));
}
