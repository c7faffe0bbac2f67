/* SPDX-License-Identifier: Apache-2.0 */

/* What a verdict costs, and what it takes to load a policy: from 10 to 10,000 rules, and with a
 * list of a million names. Prints two tables; with --json and a number of rules, one line of JSON
 * about so many. Build with
 *
 *     ninja -C BUILD bench/bench-verdict && BUILD/bench/bench-verdict */

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "policy/names.h"
#include "policy/pins.h"
#include "policy/policy.h"

#define NOW      UINT64_C(1000000000)
#define LISTED   1000000
#define MEASURED 200000 /* verdicts per figure */

static void check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(-result));
        exit(1);
    }
}

static double milliseconds_since(uint64_t begin)
{
    return (double)(clock_now() - begin) / 1e6;
}

/* One of each kind in turn, each about something of its own. */
static void write_rule(unsigned i, char *text, size_t size)
{
    static const struct {
        const char *before, *behind;
    } forms[] = {
        {"allow tcp to www", ".site.test port 443"},
        {"allow tcp to *.zone", ".test port 443,8443"},
        {"deny to ads", ".evil.test"},
        {"allow tcp to api-*.s", ".test port 443"},
        {"allow udp to ntp", ".test port 123"},
        {"deny tcp to *.bad", ".test"},
        {"allow tcp to git", ".corp.test in 10.0.0.0/8"},
    };
    if (i % 8 == 7)
        snprintf(text, size, "allow tcp to 11.%u.%u.0/24 port 80-90", i / 256 % 256, i % 256);
    else
        snprintf(text, size, "%s%u%s", forms[i % 8].before, i, forms[i % 8].behind);
}

static struct policy *build(unsigned rules, double *ret_ms)
{
    char text[128], message[256];
    uint64_t begin = clock_now();
    struct policy_builder *builder = policy_builder_new();

    for (unsigned i = 0; i < rules; i++) {
        write_rule(i, text, sizeof text);
        check(policy_builder_add(builder, text, NULL, message, sizeof message), text);
    }
    struct policy *policy = policy_build(builder, 1);
    check(policy ? 0 : -ENOMEM, "build");
    policy_builder_free(builder);
    *ret_ms = milliseconds_since(begin);
    return policy;
}

static struct dns_name name_of(const char *text)
{
    struct dns_name name;
    check(name_from_guest(text, strlen(text), &name), text);
    return name;
}

/* Addresses with four names each, one of them allowed by some rule. */
#define ADDRESSES 256

struct flows {
    struct pins *pins;
    struct ip_address addresses[ADDRESSES];
    struct dns_name names[ADDRESSES];
};

static void prepare(struct flows *flows, unsigned rules)
{
    static const uint64_t key[2] = {1, 2};
    char text[64];

    flows->pins = pins_new(NULL, key);
    check(flows->pins ? 0 : -ENOMEM, "pins");
    for (unsigned i = 0; i < ADDRESSES; i++) {
        flows->addresses[i] = ip_address_v4(htonl(0x17000000u + i * 7919));
        for (unsigned j = 0; j < 4; j++) {
            if (j < 3)
                snprintf(text, sizeof text, "host%u-%u.cdn.example", i, j);
            else
                snprintf(text, sizeof text, "www%u.site.test", i * 8 % rules);
            flows->names[i] = name_of(text);
            check(pins_learn(flows->pins, &flows->names[i], &flows->addresses[i], PIN_QUERIED, 300,
                             NOW),
                  "learn");
        }
    }
}

/* Of this thread alone: other load on the machine does not count. */
static uint64_t cpu_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static double verdict_ns(const struct policy *policy, const struct flows *flows,
                         enum policy_name_state state, uint16_t port)
{
    struct policy_world world = {.gateway4 = ip_address_v4(htonl(0x0a000202)),
                                 .dns4 = ip_address_v4(htonl(0x0a000203))};
    volatile unsigned sink = 0;
    uint64_t begin = cpu_now();

    for (unsigned i = 0; i < MEASURED; i++) {
        struct policy_query query = {
            .direction = POLICY_EGRESS,
            .protocol = POLICY_TCP,
            .address = flows->addresses[i * 37 % ADDRESSES],
            .port = port,
            .name_state = state,
            .name = &flows->names[i * 37 % ADDRESSES],
            .pins = flows->pins,
            .now = NOW,
        };
        sink += policy_judge(policy, &world, &query).action;
    }
    (void)sink;
    return (double)(cpu_now() - begin) / MEASURED;
}

static double lookup_ns(const struct policy *policy, const struct flows *flows)
{
    volatile unsigned sink = 0;
    uint64_t begin = cpu_now();
    for (unsigned i = 0; i < MEASURED; i++)
        sink += policy_judge_query(policy, &flows->names[i * 37 % ADDRESSES]).action;
    (void)sink;
    return (double)(cpu_now() - begin) / MEASURED;
}

/* Milliseconds to load, and nanoseconds a verdict. */
struct figures {
    double load, pending, named, hidden, nameless, lookup;
};

static struct figures measure(unsigned rules)
{
    struct figures figures;
    struct flows flows;
    struct policy *policy = build(rules, &figures.load);

    prepare(&flows, rules);
    figures.pending = verdict_ns(policy, &flows, POLICY_NAME_PENDING, 443);
    figures.named = verdict_ns(policy, &flows, POLICY_NAME_NAMED, 443);
    figures.hidden = verdict_ns(policy, &flows, POLICY_NAME_HIDDEN, 443);
    figures.nameless = verdict_ns(policy, &flows, POLICY_NAME_NAMELESS, 22);
    figures.lookup = lookup_ns(policy, &flows);
    pins_free(flows.pins);
    policy_free(policy);
    return figures;
}

static void by_number_of_rules(void)
{
    printf("%8s %10s | %8s %8s %8s %8s | %8s   (ns a verdict)\n", "rules", "load (ms)", "pending",
           "named", "hidden", "nameless", "lookup");
    for (unsigned rules = 10; rules <= 10000; rules *= 10) {
        struct figures f = measure(rules);

        printf("%8u %10.2f | %8.0f %8.0f %8.0f %8.0f | %8.0f\n", rules, f.load, f.pending, f.named,
               f.hidden, f.nameless, f.lookup);
    }
}

static void as_json(unsigned rules)
{
    struct figures f = measure(rules);

    printf("{\"rules\": %u, \"load_ms\": %.3f, \"pending\": %.0f, \"named\": %.0f, "
           "\"hidden\": %.0f, \"nameless\": %.0f, \"lookup\": %.0f}\n",
           rules, f.load, f.pending, f.named, f.hidden, f.nameless, f.lookup);
}

/* A list as a file would hold it: a third wildcards; or CIDRs. */
static int read_list(void *ctx, const char *path, char **ret, size_t *ret_len)
{
    FILE *file = open_memstream(ret, ret_len);
    (void)ctx;
    if (!file)
        return -ENOMEM;
    for (unsigned i = 0; i < LISTED; i++) {
        if (strcmp(path, "cidrs") == 0)
            fprintf(file, "%u.%u.%u.%u/31\n", 23 + i % 7, i >> 14 & 255, i >> 6 & 255,
                    i << 2 & 252);
        else
            fprintf(file, "%s%u%s\n", i % 3 ? "tracker" : "*.zone", i,
                    i % 3 ? ".ads.example" : ".example.com");
    }
    return fclose(file) == 0 ? 0 : -ENOMEM;
}

static void one_list(const char *path, const char *what)
{
    char rule[64], message[256];
    struct flows flows;
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    uint64_t begin = clock_now();
    struct policy_builder *builder = policy_builder_new();

    policy_builder_files(builder, read_list, NULL);
    check(policy_builder_profile(builder, "public", message, sizeof message), "profile");
    snprintf(rule, sizeof rule, "deny to @file:%s", path);
    check(policy_builder_add(builder, rule, NULL, message, sizeof message), message);
    double read_ms = milliseconds_since(begin);
    size_t builder_bytes = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    begin = clock_now();
    struct policy *policy = policy_build(builder, 1);
    check(policy ? 0 : -ENOMEM, "build");
    double build_ms = milliseconds_since(begin);
    policy_builder_free(builder);
    size_t bytes = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    prepare(&flows, 8);
    printf("%8s %10.0f %10.0f %12.1f %12.1f | %8.0f %8.0f\n", what, read_ms, build_ms,
           (double)builder_bytes / (1 << 20), (double)bytes / (1 << 20),
           verdict_ns(policy, &flows, POLICY_NAME_NAMED, 443), lookup_ns(policy, &flows));
    pins_free(flows.pins);
    policy_free(policy);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--json") == 0 && atoi(argv[2]) >= 8) {
        as_json((unsigned)atoi(argv[2]));
        return 0;
    }
    if (argc > 1) {
        fprintf(stderr, "bench-verdict: write --json and a number of rules from 8, or nothing\n");
        return 2;
    }
    by_number_of_rules();
    printf("\na million %s %10s %12s %12s | %8s %8s\n", "read (ms)", "build (ms)", "builder MiB",
           "policy MiB", "named", "lookup");
    one_list("names", "names");
    one_list("cidrs", "CIDRs");
    return 0;
}
