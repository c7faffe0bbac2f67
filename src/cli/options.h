/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <culvert/engine.h>
#include <stddef.h>
#include <stdio.h>

/* Reads a command's options from argv (of argc entries) into `config`, by the table of
 * engine/config.h: "--name value", "--name=value", "--switch", "-v", "-p value". Stops behind "--"
 * or before the first word that is no option and returns its index; OPTIONS_HELP when help was
 * asked for; or -EINVAL with `error` filled ("--mtu 100: …"). */
#define OPTIONS_HELP (-1000)
int options_parse(int argc, const char *const *argv, unsigned command,
                  struct culvert_config *config, struct culvert_error *error);

/* The options of `command` (enum config_command) that are available, a line each. */
void options_print(FILE *file, unsigned command);

#endif
