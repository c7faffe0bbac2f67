/* SPDX-License-Identifier: Apache-2.0 */
/* sim: runs scenarios of the stack under seeds.
 *
 *     sim --seeds 1-1000                         every scenario under each of these seeds
 *     sim --scenario NAME --seed 17 -v -w x.pcap one run, with a trace of its packets
 *     sim --list
 */

#include <getopt.h>
#include <stdlib.h>

#include "scenarios.h"

struct arguments {
    const struct scenario *scenario; /* NULL: all */
    uint64_t first, last;
    bool verbose, all;
    const char *pcap;
    unsigned failures_most;
};

static void usage(void)
{
    fputs("usage: sim [--scenario NAME] [--seeds FROM-TO | --seed N] [--all] [--failures N] [-v] "
          "[-w FILE.pcap]\n       sim --list\n",
          stderr);
    exit(2);
}

static void list(void)
{
    for (size_t i = 0; i < scenario_count; i++)
        puts(scenarios[i].name);
    exit(0);
}

static void parse_seeds(struct arguments *a, const char *text)
{
    char *end;
    a->first = a->last = strtoull(text, &end, 10);
    if (*end == '-')
        a->last = strtoull(end + 1, &end, 10);
    if (end == text || *end || a->last < a->first)
        usage();
}

static struct arguments parse(int argc, char **argv)
{
    static const struct option options[] = {{"scenario", required_argument, NULL, 's'},
                                            {"seeds", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 'n'},
                                            {"list", no_argument, NULL, 'l'},
                                            {"failures", required_argument, NULL, 'f'},
                                            {"all", no_argument, NULL, 'a'},
                                            {NULL, 0, NULL, 0}};
    struct arguments a = {.first = 1, .last = 100, .failures_most = 20};
    for (int c; (c = getopt_long(argc, argv, "s:n:lvw:f:a", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            a.scenario = scenario_find(optarg);
            if (!a.scenario) {
                fprintf(stderr, "sim: --scenario %s: no such scenario; see sim --list\n", optarg);
                exit(2);
            }
            break;
        case 'n':
            parse_seeds(&a, optarg);
            break;
        case 'l':
            list();
            break;
        case 'v':
            a.verbose = true;
            break;
        case 'w':
            a.pcap = optarg;
            break;
        case 'f':
            a.failures_most = (unsigned)atoi(optarg);
            break;
        case 'a':
            a.all = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc)
        usage();
    return a;
}

static void print_counters(const struct counters *counters)
{
    for (int i = 0; i < COUNTER_COUNT; i++)
        if (counters->value[i])
            printf("%10llu %s\n", (unsigned long long)counters->value[i],
                   counter_name((enum counter)i));
}

static bool run_one(const struct arguments *a, const struct scenario *scenario, uint64_t seed)
{
    static struct flow_plan flows[SCENARIO_FLOWS_MAX];
    struct plan plan;
    scenario_make(scenario, seed, &plan, flows);
    struct world_options options = {.verbose = a->verbose, .trace = stdout};
    if (a->pcap)
        options.pcap = fopen(a->pcap, "wb");
    struct world_result result;
    world_run(&plan, flows, &options, &result);
    if (options.pcap)
        fclose(options.pcap);
    if (a->verbose) {
        printf("seed %llu %s: ended at %.6f s; up %llu bytes in %llu frames, down %llu in %llu\n",
               (unsigned long long)seed, scenario->name, (double)result.ended_at / 1e9,
               (unsigned long long)result.bytes_up, (unsigned long long)result.frames_up,
               (unsigned long long)result.bytes_down, (unsigned long long)result.frames_down);
        print_counters(&result.counters);
    }
    if (result.failed)
        printf("FAILED: sim --seed %llu --scenario %s -v\n        %s\n", (unsigned long long)seed,
               scenario->name, result.what);
    fflush(stdout);
    return !result.failed;
}

int main(int argc, char **argv)
{
    struct arguments a = parse(argc, argv);
    unsigned long runs = 0, failures = 0;
    for (uint64_t seed = a.first; seed <= a.last && failures < a.failures_most; seed++) {
        for (size_t i = 0; i < scenario_count; i++) {
            if (a.scenario && a.scenario != &scenarios[i])
                continue;
            if (!a.scenario && !a.all && seed % scenarios[i].every != 0)
                continue;
            runs++;
            failures += !run_one(&a, &scenarios[i], seed);
        }
    }
    printf("%lu runs, %lu failed\n", runs, failures);
    return failures != 0;
}
