/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/report.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/summary.h"

static void print_counter(void *arg, const char *name, const char *sentence, uint64_t value)
{
    fprintf(arg, "culvert: %-28s %12llu  %s\n", name, (unsigned long long)value, sentence);
}

void report_counters(const struct culvert_engine *engine)
{
    char *text = NULL;
    size_t len = 0;
    FILE *file = open_memstream(&text, &len);

    if (!file)
        return;
    culvert_engine_counters(engine, print_counter, file);
    if (ftell(file) == 0) /* whoever asks is answered */
        fprintf(file, "culvert: nothing has been counted yet\n");
    if (fclose(file) == 0 && len > 0)
        (void)!write(STDERR_FILENO, text, len);
    free(text);
}

void report_facts(const struct culvert_config *config)
{
    char guest[IP_ADDRESS_TEXT_MAX], gateway[IP_ADDRESS_TEXT_MAX], dns[IP_ADDRESS_TEXT_MAX];
    const struct config_subnet *subnets[] = {&config->ipv4, &config->ipv6};
    size_t count = config->ipv6_mode == CONFIG_IPV6_ON ? 2 : 1;

    for (size_t i = 0; i < count; i++)
        dprintf(STDERR_FILENO, "culvert: IPv%c: guest %s/%u, gateway and host %s, DNS %s\n",
                i == 0 ? '4' : '6', ip_address_format(&subnets[i]->guest, guest),
                subnets[i]->prefix, ip_address_format(&subnets[i]->gateway, gateway),
                ip_address_format(&subnets[i]->dns, dns));
    if (count == 1)
        dprintf(STDERR_FILENO, "culvert: IPv6: off%s\n",
                config->mtu < CONFIG_MTU_MIN_IPV6 ? " (the MTU is below 1280)"
                                                  : " (--ipv6=on offers it)");
    dprintf(STDERR_FILENO, "culvert: MTU %u, %u rule%s before the profile\n", config->mtu,
            config->rule_count, config->rule_count == 1 ? "" : "s");
}

void report_withheld(const struct culvert_engine *engine)
{
    int r = culvert_engine_ping_error(engine, false);

    if (r < 0)
        dprintf(STDERR_FILENO,
                "culvert: note: the host lets nobody ping (%s); allow it: "
                "sysctl net.ipv4.ping_group_range=\"0 2147483647\"\n",
                strerror(-r));
}

void report_summary(struct summary *summary)
{
    _cleanup_free_ char *text = summary ? summary_text(summary) : NULL;

    if (text && text[0] != '\0')
        (void)!write(STDERR_FILENO, text, strlen(text));
}

int report_learnt(struct culvert_engine *engine, const struct culvert_config *config)
{
    struct culvert_error error;
    int rules;

    if (config->learn[0] == '\0')
        return 0;
    rules = culvert_engine_write_learnt(engine, &error);
    if (rules < 0) {
        dprintf(STDERR_FILENO, "culvert: --%s\n", error.message);
        return rules;
    }
    if (!config->quiet)
        dprintf(STDERR_FILENO, "culvert: learnt %d rule%s; try them: --policy %s\n", rules,
                rules == 1 ? "" : "s", config->learn);
    return 0;
}

void ensure_stdio(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR); /* stays open in a command, so not O_CLOEXEC */
    while (fd >= 0 && fd <= STDERR_FILENO);
    close_fd(fd);
}

void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}
