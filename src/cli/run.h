/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

/* `culvert run [OPTIONS] [--] COMMAND [ARG...]`; argv begins behind "run". Returns the exit status.
 */
int cli_run(int argc, char **argv);

#endif
