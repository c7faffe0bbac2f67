/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include <errno.h>
#include <string.h>

#include "engine/config.h"

#define NAME_MAX_LEN 64

struct word {
    char name[NAME_MAX_LEN]; /* "mtu", as it was typed */
    const char *value;       /* behind '=' or a letter; NULL: the next word */
    const struct config_option *option;
};

static const struct config_option *by_letter(char letter)
{
    for (const struct config_option *option = config_options(); option->name; option++)
        if (option->letter == letter)
            return option;
    return NULL;
}

/* "--name", "--name=value", "-v", "-pvalue" */
static void split_word(const char *text, struct word *ret)
{
    memset(ret, 0, sizeof *ret);
    if (text[1] == '-') {
        size_t len = strcspn(text + 2, "=");

        if (text[2 + len] == '=')
            ret->value = text + 2 + len + 1;
        snprintf(ret->name, sizeof ret->name, "%.*s", (int)len, text + 2);
        if (len < sizeof ret->name)
            ret->option = config_option_find(ret->name);
        return;
    }
    ret->option = by_letter(text[1]);
    snprintf(ret->name, sizeof ret->name, "%s", ret->option ? ret->option->name : text + 1);
    if (text[2] != '\0')
        ret->value = text + 2;
}

static int refuse_unknown(const struct word *word, bool is_long, unsigned command,
                          struct culvert_error *error)
{
    const struct config_option *nearest =
        is_long ? config_option_nearest(word->name, command) : NULL;

    if (nearest)
        snprintf(error->message, sizeof error->message, "--%s: no such option; did you mean --%s?",
                 word->name, nearest->name);
    else
        snprintf(error->message, sizeof error->message,
                 "%s%s: no such option; culvert --help lists them", is_long ? "--" : "-",
                 word->name);
    return -EINVAL;
}

/* Sets what `word` names, taking `next` (NULL: there is none) where it needs a value. Returns how
 * many words were used. */
static int apply(const struct word *word, const char *next, struct culvert_config *config,
                 struct culvert_error *error)
{
    const struct config_option *option = word->option;
    const char *value = word->value;
    struct culvert_error fault;
    int used = 1;

    if (!value && option->argument) {
        if (!next && option->set) {
            snprintf(error->message, sizeof error->message,
                     "--%s: the value is missing; write --%s %s", option->name, option->name,
                     option->argument);
            return -EINVAL;
        }
        value = next;
        used = 2;
    }
    if (culvert_config_set(config, option->name, value, &fault) < 0) {
        snprintf(error->message, sizeof error->message, "--%.500s", fault.message);
        return -EINVAL;
    }
    return used;
}

int options_parse(int argc, const char *const *argv, unsigned command,
                  struct culvert_config *config, struct culvert_error *error)
{
    int i = 0;

    while (i < argc && argv[i][0] == '-' && argv[i][1] != '\0') {
        struct word word;
        int used;

        if (strcmp(argv[i], "--") == 0)
            return i + 1;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return OPTIONS_HELP;
        split_word(argv[i], &word);
        if (!word.option || !(word.option->commands & command))
            return refuse_unknown(&word, argv[i][1] == '-', command, error);
        used = apply(&word, i + 1 < argc ? argv[i + 1] : NULL, config, error);
        if (used < 0)
            return used;
        i += used;
    }
    return i;
}

void options_print(FILE *file, unsigned command)
{
    for (const struct config_option *option = config_options(); option->name; option++) {
        char usage[64], letter[8] = "";

        if (!option->set || !(option->commands & command))
            continue;
        if (option->letter)
            snprintf(letter, sizeof letter, "-%c, ", option->letter);
        snprintf(usage, sizeof usage, "%s--%s%s%s", letter, option->name,
                 option->argument ? " " : "", option->argument ? option->argument : "");
        fprintf(file, "  %-28s %s\n", usage, option->help);
    }
}
