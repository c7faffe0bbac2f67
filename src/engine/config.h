/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_CONFIG_H
#define ENGINE_CONFIG_H

/* What one engine is to do, and the one table of the options that say so: the C API
 * (culvert_config_set), the command line and `--config` documents all go through it.
 *
 * Each option is checked when it is set; what concerns several options (a gateway inside the
 * guest's subnet) is checked by config_finish(), which the command calls before it starts anything
 * and culvert_engine_new() again. Messages begin with the option's name and say the fault and the
 * mend; the command puts "--" in front. */

#include <culvert/engine.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dns/dns.h"
#include "policy/policy.h"
#include "relay/publish.h"
#include "wire/address.h"

#define CONFIG_DNS_HOSTS_MAX 64
#define CONFIG_PUBLISH_MAX   256
#define CONFIG_MTU_MIN       576u
#define CONFIG_MTU_MIN_IPV6  1280u
#define CONFIG_MTU_MAX       65520u

enum config_ipv6 {
    CONFIG_IPV6_AUTO, /* where the host has a route */
    CONFIG_IPV6_OFF,
    CONFIG_IPV6_ON,
};

enum config_net_worker {
    CONFIG_NET_WORKER_AUTO, /* the better one as measured: see docs/performance.md */
    CONFIG_NET_WORKER_DIRECT,
    CONFIG_NET_WORKER_THREAD,
};

/* One family's addresses. The gateway and the resolver follow the guest's subnet (its second and
 * third address) until they are set themselves. */
struct config_subnet {
    struct ip_address guest, gateway, dns;
    uint8_t prefix; /* length in the family's own terms: 24, 64 */
    bool gateway_given, dns_given;
};

struct config_dns_host {
    char name[254]; /* lower case, no trailing dot */
    struct ip_address address;
};

/* What `culvert serve` serves; see culvert_engine_attach(). */
struct config_frontend {
    const char *kind; /* NULL: not given */
    char where[256];
    char netns[256]; /* tap, interface; empty: ours */
    bool once;
};

struct culvert_config {
    uint32_t mtu;
    struct config_subnet ipv4, ipv6;
    enum config_ipv6 ipv6_mode; /* use config_ipv6_offered() */
    uint8_t mac[6];             /* the guest's; all zero: any */
    char hostname[64];          /* empty: not given */

    struct policy_builder *policy; /* rules, profile and host addresses: ready for policy_build() */
    bool profile_given;            /* by option, so that it wins over the policy file's */
    unsigned rule_count;
    uint32_t max_flows; /* 0: what the descriptor limit allows */

    struct dns_upstream dns[DNS_UPSTREAMS_MAX];
    size_t dns_count; /* 0: follow the host's /etc/resolv.conf */
    enum dns_denied dns_denied;
    struct config_dns_host dns_hosts[CONFIG_DNS_HOSTS_MAX];
    size_t dns_host_count;

    bool audit;
    char learn[256]; /* path; empty: do not */
    bool learn_wildcards;
    char events[256]; /* path; empty: none, or the descriptor */
    int events_fd;    /* `--events -`: a copy of stdout, as `run` lets go of its own; -1: none */

    struct publish_spec publish[CONFIG_PUBLISH_MAX];
    size_t publish_count;
    bool publish_auto; /* what the command listens on as well; `run` alone knows that */

    uint32_t spin_us;
    bool spin_given; /* false: the engine's own default */
    enum config_net_worker net_worker;
    bool verbose, quiet;

    struct config_frontend frontend; /* of serve, as all that follows */
    int ready_fd;                    /* 0: none */
    char pid_file[256];              /* empty: none */
};

/* Which commands an option belongs to. */
enum config_command {
    CONFIG_RUN = 1,
    CONFIG_SERVE = 2,
    CONFIG_ENGINE = CONFIG_RUN | CONFIG_SERVE,
};

struct config_option {
    const char *name;
    char letter;          /* short form, 0: none */
    const char *argument; /* "N", "A/P"; NULL: a switch that takes on|off and may stand alone */
    const char *help;     /* a line without a full stop */
    unsigned commands;    /* enum config_command, or-ed */
    bool repeatable;      /* appends */
    /* Stores the value. 0, or -EINVAL / -ENOMEM with `message` (culvert_error's) telling the fault
     * and the mend, without the option's name. NULL: not available yet. */
    int (*set)(struct culvert_config *config, const char *value, char *message, size_t size);
};

/* The table, ended by an entry without a name. */
const struct config_option *config_options(void);
/* By long name, or NULL. */
const struct config_option *config_option_find(const char *name);
/* The option whose name is nearest to a mistyped one, or NULL if none is near. */
const struct config_option *config_option_nearest(const char *name, unsigned commands);

/* Do rules and sets fit together? 0; -EINVAL and `error` (may be NULL) filled; or -ENOMEM. */
int config_check_policy(const struct culvert_config *config, struct culvert_error *error);
/* Is everything consistent? 0, or -EINVAL and `error` (may be NULL) filled. */
int config_finish(const struct culvert_config *config, struct culvert_error *error);
/* Shall the guest have IPv6? For `auto` asks the host's routing table, so ask once and keep the
 * answer (with culvert_config_set "ipv6"). */
bool config_ipv6_offered(const struct culvert_config *config);

#endif
