/* SPDX-License-Identifier: Apache-2.0 */

/* culvert check: reads a policy as `run` and `serve` would, and says what it comes to. */

#include "cli/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/explain.h"
#include "engine/config.h"
#include "engine/policy_file.h"
#include "policy/review.h"

#define EXIT_FAULTY 1
#define EXIT_USAGE  2
#define EXPLAIN_MAX 64

struct check {
    const char *file, *profile;
    const char *explain[EXPLAIN_MAX];
    size_t explain_count;
    struct policy_builder *builder;
    struct policy *policy;
    time_t now;
    size_t remarks;
};

/* ---- the command line ---- */

static int print_help(void)
{
    printf("usage: culvert check [--explain 'tcp NAME|IP:PORT']... [--profile public|none|all] "
           "FILE.json\n\n"
           "Reads a policy, prints its rules in the order in which they are tried, and says which "
           "never\ndecide. --explain says which rule decides about a flow, and why; it may be "
           "repeated.\nExit status: 0, 1 if the policy is faulty, 2 for bad usage.\n");
    return 0;
}

static int refuse_usage(const char *what)
{
    fprintf(stderr,
            "culvert: check: %s; write culvert check [--explain 'tcp NAME|IP:PORT'] "
            "FILE.json\n",
            what);
    return EXIT_USAGE;
}

/* Is argv[*i] the option `name`? Then *ret is its value ("--name value" or "--name=value"), or NULL
 * where that is missing, and *i stands at the last word used. */
static bool is_option(const char *name, int argc, char **argv, int *i, const char **ret)
{
    size_t len = strlen(name);
    const char *word = argv[*i];

    if (strncmp(word, name, len) != 0 || (word[len] != '=' && word[len] != '\0'))
        return false;
    *ret = NULL;
    if (word[len] == '=')
        *ret = word + len + 1;
    else if (*i + 1 < argc)
        *ret = argv[++*i];
    return true;
}

/* 0, or the exit status. */
static int parse_options(struct check *check, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        const char *value;
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            if (check->file)
                return refuse_usage("more than one file");
            check->file = argv[i];
        } else if (is_option("--explain", argc, argv, &i, &value)) {
            if (!value || check->explain_count == EXPLAIN_MAX)
                return refuse_usage(value ? "too many --explain" : "--explain lacks its value");
            check->explain[check->explain_count++] = value;
        } else if (is_option("--profile", argc, argv, &i, &check->profile)) {
            if (!check->profile)
                return refuse_usage("--profile lacks its value");
        } else {
            return refuse_usage("no such option");
        }
    }
    return check->file ? 0 : refuse_usage("the file is missing");
}

/* ---- reading ---- */

static int fail(const char *file, const char *message)
{
    fprintf(stderr, "culvert: %s%s%s\n", file ? file : "", file ? ": " : "", message);
    return EXIT_FAULTY;
}

static int load(struct check *check)
{
    char message[600];
    const char *profile;

    check->builder = policy_builder_new();
    if (!check->builder)
        return fail(NULL, "out of memory");
    policy_builder_files(check->builder, policy_file_read, NULL);
    int r = policy_file_load(check->builder, check->file, message, sizeof message);
    if (r < 0)
        /* Faults within the file begin with its name. */
        return fail(strncmp(message, check->file, strlen(check->file)) == 0 ? NULL : check->file,
                    r == -EINVAL ? message : "out of memory");
    profile = policy_builder_document_profile(check->builder);
    profile = check->profile ? check->profile : profile ? profile : "public";
    if (policy_builder_profile(check->builder, profile, message, sizeof message) < 0) {
        fail("--profile", message);
        return EXIT_USAGE;
    }
    r = policy_builder_check(check->builder, message, sizeof message);
    if (r < 0)
        return fail(NULL, r == -EINVAL ? message : "out of memory");
    check->policy = policy_build_at(check->builder, 1, check->now);
    return check->policy ? 0 : fail(NULL, "out of memory");
}

/* ---- the rules ---- */

static void print_expiry(const struct check *check, int64_t expires)
{
    time_t when = (time_t)expires;
    struct tm utc;
    char text[32];
    if (expires == RULE_NEVER_EXPIRES || !gmtime_r(&when, &utc))
        return;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    printf("  [%s %s]", expires > check->now ? "expires" : "expired", text);
}

static void print_rule(const struct check *check, const struct rule *rule, uint32_t number)
{
    char shown[300];
    size_t len;

    const char *text = rule->text + strspn(rule->text, " \t");
    for (len = strcspn(text, "#"); len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t');)
        len--;
    printf("%5u  %-50s", number + 1, text_show(text, len, shown, sizeof shown));
    if (rule->where)
        printf("  %s", text_show(rule->where, strlen(rule->where), shown, sizeof shown));
    if (rule->id)
        printf("  \"%s\"", text_show(rule->id, strlen(rule->id), shown, sizeof shown));
    print_expiry(check, rule->expires);
    printf("\n");
    for (size_t i = 0; i < rule->target_count; i++) {
        const struct target_set *set = NULL;
        if (rule->targets[i].kind == RULE_TARGET_SET)
            set = builder_find_set(check->builder, rule->targets[i].set);
        if (set)
            printf("         @%s: %zu names, %zu addresses and CIDRs%s%s\n",
                   text_show(set->name, strlen(set->name), shown, sizeof shown), set->name_count,
                   set->prefix_count, set->groups ? ", groups" : "", set->any ? ", any" : "");
    }
}

static int print_rules(const struct check *check)
{
    uint32_t count;
    bool ingress = false;
    struct rule *rules = builder_rules(check->builder, &count);

    if (!rules)
        return fail(NULL, "out of memory");
    printf("Rules, the first match decides:\n");
    for (uint32_t i = 0; i < count; i++) {
        print_rule(check, &rules[i], i);
        ingress |= rules[i].direction == POLICY_INGRESS;
    }
    printf("       otherwise: deny; published ports: %s\n", ingress ? "deny" : "allow");
    free(rules);
    return 0;
}

/* ---- remarks ---- */

static void print_remark(void *ctx, const struct review_finding *finding)
{
    struct check *check = ctx;
    const struct policy *policy = check->policy;
    char shown[64];

    printf(check->remarks++ ? "  " : "\nRemarks:\n  ");
    if (finding->kind != REVIEW_UNUSED_SET)
        explain_rule(policy, finding->rule);
    switch (finding->kind) {
    case REVIEW_EXPIRED:
        printf(" has expired: take it out, or give it a later \"expires\"");
        break;
    case REVIEW_NEVER_DECIDES:
        printf(" never decides: ");
        explain_rule(policy, finding->by);
        printf(" matches all of it already");
        break;
    case REVIEW_CONTRADICTED:
        printf(" never decides: ");
        explain_rule(policy, finding->by);
        printf(" comes first and says the opposite; swap them if this one is meant");
        break;
    case REVIEW_TOO_LATE:
        printf(" comes too late for flows that bear the name: ");
        explain_rule(policy, finding->by);
        printf(" allows them first; swap them if this one is meant");
        break;
    case REVIEW_PUBLIC_ALLOWED:
        printf(" refuses names at addresses that are not public only: ");
        explain_rule(policy, finding->by);
        printf(" comes first; put it behind");
        break;
    case REVIEW_OVERTAKEN:
        printf(" comes too late for some of its protocols or ports: ");
        explain_rule(policy, finding->by);
        printf(" allows them before; put this one first");
        break;
    case REVIEW_UNUSED_SET:
        printf("no rule names the set \"%s\": write @%s in one, or take it out",
               text_show(finding->text, strlen(finding->text), shown, sizeof shown), shown);
        break;
    case REVIEW_PRIVATE_SUFFIX:
        printf(": %s spans everybody's names at one service", finding->text);
        break;
    case REVIEW_LOOKUPS_OPEN:
        printf(" lets every name be looked up, whatever names the other rules allow; name "
               "addresses instead to close DNS");
        break;
    }
    printf("\n");
}

static void print_limits(const struct check *check)
{
    if (!policy_has_names(check->policy))
        return;
    printf(
        "\nLimits of rules by name:\n"
        "  TLS hides the request: a server that an allowed name shares with another may be asked\n"
        "  for the other within the connection (domain fronting, coalesced HTTP/2), as it may by\n"
        "  a hello encrypted under an allowed outer name. Interception closes this.\n"
        "  A connection of plaintext HTTP is judged by its first request.\n"
        "  A flow that bears no name is not bound by a deny of a name whose address the guest\n"
        "  learnt elsewhere: an allow-list is the right tool.\n");
}

/* ---- explanations ---- */

/* The world of a guest with default addresses; what the host's own addresses are is not asked. */
static struct policy_world default_world(void)
{
    struct culvert_config *config = culvert_config_new();
    struct policy_world world = {0};
    if (config)
        world = (struct policy_world){.gateway4 = config->ipv4.gateway,
                                      .gateway6 = config->ipv6.gateway,
                                      .dns4 = config->ipv4.dns,
                                      .dns6 = config->ipv6.dns};
    culvert_config_free(config);
    return world;
}

static int print_explanations(const struct check *check)
{
    struct policy_world world = default_world();
    char message[300];

    for (size_t i = 0; i < check->explain_count; i++) {
        int r = explain(check->builder, check->policy, &world, check->explain[i], message,
                        sizeof message);
        if (r < 0) {
            fail("--explain", r == -EINVAL ? message : "out of memory");
            return EXIT_USAGE;
        }
    }
    return 0;
}

static int run_check(struct check *check)
{
    int status = load(check);
    if (status == 0)
        status = print_rules(check);
    if (status == 0 && policy_review(check->builder, check->now, print_remark, check) < 0)
        status = fail(NULL, "out of memory");
    if (status)
        return status;
    print_limits(check);
    return print_explanations(check);
}

int cli_check(int argc, char **argv)
{
    struct check check = {.now = time(NULL)};
    int status;

    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0))
        return print_help();
    status = parse_options(&check, argc, argv);
    if (status == 0)
        status = run_check(&check);
    policy_free(check.policy);
    policy_builder_free(check.builder);
    return status;
}
