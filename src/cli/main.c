/* SPDX-License-Identifier: Apache-2.0 */

/* The culvert command: picks the subcommand. */

#include <stdio.h>
#include <string.h>

#include "cli/check.h"
#include "cli/options.h"
#include "cli/run.h"
#include "cli/serve.h"
#include "engine/config.h"

#define USAGE_STATUS 2

static int print_usage(void)
{
    printf("usage: culvert run [OPTIONS] [--] COMMAND [ARG...]\n"
           "       culvert serve [OPTIONS] FRONTEND\n"
           "       culvert check [--explain 'tcp NAME|IP:PORT'] FILE.json\n"
           "       culvert ctl ...   not available yet\n"
           "       culvert --help | --version\n\n"
           "Options of run:\n");
    options_print(stdout, CONFIG_RUN);
    printf("\nOptions of serve: the same but --net-worker, and those of culvert serve --help.\n");
    return 0;
}

static int refuse(const char *word)
{
    static const char *const planned[] = {"ctl"};

    for (size_t i = 0; i < sizeof planned / sizeof planned[0]; i++) {
        if (strcmp(word, planned[i]) == 0) {
            fprintf(stderr, "culvert: %s: not available yet; culvert run and serve are\n", word);
            return USAGE_STATUS;
        }
    }
    fprintf(stderr, "culvert: %s: no such command; write culvert run [OPTIONS] -- COMMAND\n", word);
    return USAGE_STATUS;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "culvert: the command is missing; write culvert run [OPTIONS] -- COMMAND, "
                        "or culvert --help\n");
        return USAGE_STATUS;
    }
    if (strcmp(argv[1], "run") == 0)
        return cli_run(argc - 2, argv + 2);
    if (strcmp(argv[1], "serve") == 0)
        return cli_serve(argc - 2, argv + 2);
    if (strcmp(argv[1], "check") == 0)
        return cli_check(argc - 2, argv + 2);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return print_usage();
    if (strcmp(argv[1], "--version") == 0) {
        printf("culvert %s\n", CULVERT_VERSION);
        return 0;
    }
    return refuse(argv[1]);
}
