/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_RELOAD_H
#define CLI_RELOAD_H

#include <culvert/engine.h>
#include <stdbool.h>

/* What the command was called with: the options' words, behind "run" or "serve". */
struct command_line {
    int argc;
    const char *const *argv;
    unsigned command; /* enum config_command */
};

/* Reads again the files that the command line names, and replaces the engine's policy by what it
 * comes to now. Says on stderr what is in force, unless `quiet`, or what is wrong: then the policy
 * stays. */
void reload_policy(struct culvert_engine *engine, const struct command_line *line, bool quiet);

/* The file of --events, which somebody may have renamed. */
void reopen_events(struct culvert_engine *engine);

#endif
