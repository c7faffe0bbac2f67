/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/config_parse.h"
#include "engine/policy_file.h"

/* The one table, in the order in which --help shows it. */
static const struct config_option options[] = {
    {"mtu", 0, "N", "largest IP packet of the guest's link, 576 to 65520 (1500)", CONFIG_ENGINE,
     false, config_parse_mtu},
    {"guest-ipv4", 0, "A/P", "the guest's address (10.0.2.100/24)", CONFIG_ENGINE, false,
     config_parse_guest_ipv4},
    {"gateway-ipv4", 0, "A", "its gateway (the subnet's .2)", CONFIG_ENGINE, false,
     config_parse_gateway_ipv4},
    {"dns-ipv4", 0, "A", "its resolver (the subnet's .3)", CONFIG_ENGINE, false,
     config_parse_dns_ipv4},
    {"guest-ipv6", 0, "A/P", "the guest's address (fd63:756c:7665::64/64)", CONFIG_ENGINE, false,
     config_parse_guest_ipv6},
    {"gateway-ipv6", 0, "A", "its gateway (the subnet's ::2)", CONFIG_ENGINE, false,
     config_parse_gateway_ipv6},
    {"dns-ipv6", 0, "A", "its resolver (the subnet's ::3)", CONFIG_ENGINE, false,
     config_parse_dns_ipv6},
    {"ipv6", 0, "on|off|auto", "offer IPv6; auto: where the host has a route", CONFIG_ENGINE, false,
     config_parse_ipv6},
    {"mac", 0, "M", "the guest's MAC address", CONFIG_ENGINE, false, config_parse_mac},
    {"hostname", 0, "H", "the guest's host name", CONFIG_ENGINE, false, config_parse_hostname},

    {"rule", 0, "RULE", "as in 'allow tcp to 10.0.0.0/8 port 443'; the first match decides",
     CONFIG_ENGINE, true, config_parse_rule},
    {"profile", 0, "public|none|all", "what is allowed behind the rules (public)", CONFIG_ENGINE,
     false, config_parse_profile},
    {"policy", 0, "FILE.json", "rules and sets from a file", CONFIG_ENGINE, false,
     config_parse_policy},
    {"learn", 0, "FILE", "allow all but the floor; write a policy of what was used there",
     CONFIG_ENGINE, false, config_parse_learn},
    {"learn-wildcards", 0, NULL, "there, write *.PARENT for three names of one owner",
     CONFIG_ENGINE, false, config_parse_learn_wildcards},
    {"max-flows", 0, "N", "TCP flows at a time (what the descriptor limit allows)", CONFIG_ENGINE,
     false, config_parse_max_flows},
    {"host-address", 0, "A", "another address that is the host's own", CONFIG_ENGINE, true,
     config_parse_host_address},

    {"dns", 0, "[ZONE=]URL", "ask it, about ZONE: A, A:P, tcp://A:P, tls://NAME@A:P (the host's)",
     CONFIG_ENGINE, true, config_parse_dns},
    {"dns-denied", 0, "HOW", "what a denied name gets: nxdomain (default), refused or zero",
     CONFIG_ENGINE, false, config_parse_dns_denied},
    {"dns-host", 0, "NAME=A", "answer NAME with this address", CONFIG_ENGINE, true,
     config_parse_dns_host},

    {"publish", 'p', "[A:]HOST:GUEST[/udp]", "let this host's port, or range, lead to the guest's",
     CONFIG_ENGINE, true, config_parse_publish},
    {"tls-intercept", 0, "HOSTS|all", "look into TLS", CONFIG_ENGINE, true, NULL},
    {"tls-bypass", 0, "HOSTS", "never look into these", CONFIG_ENGINE, true, NULL},
    {"secret", 0, "NAME@HOSTS=SOURCE", "a secret the guest never holds", CONFIG_ENGINE, true, NULL},

    {"control", 0, "PATH", "control socket", CONFIG_ENGINE, false, NULL},
    {"events", 0, "FILE|-", "write what is refused there, as lines of JSON", CONFIG_ENGINE, false,
     config_parse_events},
    {"audit", 0, NULL, "refuse nothing but what the floor keeps out; tell what would be",
     CONFIG_ENGINE, false, config_parse_audit},
    {"capture", 0, "FILE.pcapng", "write the guest's frames", CONFIG_ENGINE, false, NULL},
    {"metrics", 0, "A:P", "serve metrics", CONFIG_ENGINE, false, NULL},
    {"ui", 0, "A:P", "serve the dashboard", CONFIG_ENGINE, false, NULL},
    {"rate-up", 0, "BITS", "bits a second from the guest", CONFIG_ENGINE, false, NULL},
    {"rate-down", 0, "BITS", "bits a second to the guest", CONFIG_ENGINE, false, NULL},
    {"config", 0, "FILE.json", "all of it as one document", CONFIG_ENGINE, false, NULL},

    {"spin-us", 0, "N", "keep looking for N us after activity before sleeping", CONFIG_ENGINE,
     false, config_parse_spin_us},
    {"net-worker", 0, "direct|thread|auto", "who drives the guest's device", CONFIG_RUN, false,
     config_parse_net_worker},
    {"stream", 0, "PATH|fd:N|connect:PATH", "a guest by frames on a stream socket", CONFIG_SERVE,
     false, config_parse_stream},
    {"dgram", 0, "PATH|fd:N", "a guest by frames in datagrams", CONFIG_SERVE, false,
     config_parse_dgram},
    {"vhost-user", 0, "PATH|fd:N", "a guest by virtqueues in its memory", CONFIG_SERVE, false,
     config_parse_vhost_user},
    {"tap", 0, "NAME", "a guest behind a TAP device, made if it is missing", CONFIG_SERVE, false,
     config_parse_tap},
    {"interface", 0, "NAME", "a guest behind an interface: a VMM's TAP, a veth", CONFIG_SERVE,
     false, config_parse_interface},
    {"netns", 0, "PID|PATH", "the network namespace of the TAP or interface", CONFIG_SERVE, false,
     config_parse_netns},
    {"once", 0, NULL, "end when the first guest goes", CONFIG_SERVE, false, config_parse_once},
    {"ready-fd", 0, "N", "write \"ready\" to this descriptor too", CONFIG_SERVE, false,
     config_parse_ready_fd},
    {"pid-file", 0, "PATH", "write the process's number there while it serves", CONFIG_SERVE, false,
     config_parse_pid_file},

    {"verbose", 'v', NULL, "say on stderr what was set up, and the counters at the end",
     CONFIG_ENGINE, false, config_parse_verbose},
    {"quiet", 0, NULL, "say nothing but errors", CONFIG_ENGINE, false, config_parse_quiet},
    {NULL},
};

const struct config_option *config_options(void)
{
    return options;
}

const struct config_option *config_option_find(const char *name)
{
    for (const struct config_option *option = options; option->name; option++)
        if (strcmp(option->name, name) == 0)
            return option;
    return NULL;
}

/* Letters to insert, delete or replace to make `b` of `a` (Levenshtein); names are short. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[32], columns = strlen(b);

    if (columns >= 32)
        return SIZE_MAX;
    for (size_t j = 0; j <= columns; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= columns; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[columns];
}

const struct config_option *config_option_nearest(const char *name, unsigned commands)
{
    const struct config_option *nearest = NULL;
    size_t shortest = strlen(name) / 3 + 2; /* farther than this is another word, not a typo */

    if (strlen(name) >= 32)
        return NULL;
    for (const struct config_option *option = options; option->name; option++) {
        size_t distance;

        if (!(option->commands & commands))
            continue;
        distance = edit_distance(name, option->name);
        if (distance < shortest) {
            shortest = distance;
            nearest = option;
        }
    }
    return nearest;
}

static void subnet_init(struct config_subnet *subnet, const char *guest, uint8_t prefix)
{
    ip_address_parse(guest, &subnet->guest);
    subnet->prefix = prefix;
    config_subnet_derive(subnet, ip_address_is_v4(&subnet->guest));
}

struct culvert_config *culvert_config_new(void)
{
    struct culvert_config *config = calloc(1, sizeof *config);
    char message[128];

    if (config) {
        config->events_fd = -1;
        config->policy = policy_builder_new();
    }
    if (!config || !config->policy ||
        policy_builder_profile(config->policy, "public", message, sizeof message) < 0) {
        culvert_config_free(config);
        errno = ENOMEM;
        return NULL;
    }
    policy_builder_files(config->policy, policy_file_read, NULL);
    config->mtu = 1500;
    subnet_init(&config->ipv4, "10.0.2.100", 24);
    subnet_init(&config->ipv6, "fd63:756c:7665::64", 64);
    return config;
}

struct culvert_config *culvert_config_free(struct culvert_config *config)
{
    if (config) {
        policy_builder_free(config->policy);
        close_fd(config->events_fd);
        free(config);
    }
    return NULL;
}

static int set_error(struct culvert_error *error, int result, const char *name, const char *value,
                     const char *message)
{
    if (error)
        snprintf(error->message, sizeof error->message, "%.64s%s%.64s: %.350s", name,
                 value[0] ? " " : "", value, message);
    return result;
}

int culvert_config_set(struct culvert_config *config, const char *name, const char *value,
                       struct culvert_error *error)
{
    const struct config_option *option = config_option_find(name);
    char message[sizeof error->message] = "";
    int r;

    if (!option) {
        const struct config_option *nearest = config_option_nearest(name, CONFIG_ENGINE);

        snprintf(message, sizeof message, "no such option%s%s%s",
                 nearest ? "; did you mean " : "; culvert --help lists them",
                 nearest ? nearest->name : "", nearest ? "?" : "");
        return set_error(error, -EINVAL, name, "", message);
    }
    if (!option->set)
        return set_error(error, -EINVAL, name, "", "not available yet; leave it out");
    if (!value)
        value = option->argument ? "" : "on";
    r = option->set(config, value, message, sizeof message);
    if (r == -ENOMEM)
        return set_error(error, r, name, "", "out of memory");
    return r < 0 ? set_error(error, r, name, value, message) : 0;
}
