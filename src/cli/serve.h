/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SERVE_H
#define CLI_SERVE_H

/* `culvert serve [OPTIONS] FRONTEND`; argv begins behind "serve". Returns the exit status. */
int cli_serve(int argc, char **argv);

#endif
