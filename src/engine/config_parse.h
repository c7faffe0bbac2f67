/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_CONFIG_PARSE_H
#define ENGINE_CONFIG_PARSE_H

/* The values of the options: each checks one value and stores it, or says in `message` what is
 * wrong and the mend. 0, -EINVAL or -ENOMEM. Used by the table in config.c only. */

#include "engine/config.h"

#define CONFIG_PARSER(name)                                                                        \
    int config_parse_##name(struct culvert_config *config, const char *value, char *message,       \
                            size_t size)

CONFIG_PARSER(mtu);
CONFIG_PARSER(guest_ipv4);
CONFIG_PARSER(gateway_ipv4);
CONFIG_PARSER(dns_ipv4);
CONFIG_PARSER(guest_ipv6);
CONFIG_PARSER(gateway_ipv6);
CONFIG_PARSER(dns_ipv6);
CONFIG_PARSER(ipv6);
CONFIG_PARSER(mac);
CONFIG_PARSER(hostname);
CONFIG_PARSER(rule);
CONFIG_PARSER(profile);
CONFIG_PARSER(policy);
CONFIG_PARSER(host_address);
CONFIG_PARSER(max_flows);
CONFIG_PARSER(dns);
CONFIG_PARSER(dns_denied);
CONFIG_PARSER(dns_host);
CONFIG_PARSER(events);
CONFIG_PARSER(audit);
CONFIG_PARSER(learn);
CONFIG_PARSER(learn_wildcards);
CONFIG_PARSER(publish);
CONFIG_PARSER(spin_us);
CONFIG_PARSER(net_worker);
CONFIG_PARSER(verbose);
CONFIG_PARSER(quiet);
CONFIG_PARSER(stream);
CONFIG_PARSER(dgram);
CONFIG_PARSER(vhost_user);
CONFIG_PARSER(tap);
CONFIG_PARSER(interface);
CONFIG_PARSER(netns);
CONFIG_PARSER(once);
CONFIG_PARSER(ready_fd);
CONFIG_PARSER(pid_file);

/* Sets gateway and resolver of a subnet, as far as they were not given, to its second and third
 * address. */
void config_subnet_derive(struct config_subnet *subnet, bool is_v4);

/* Digits only, from `min` to `max`. */
bool config_number_parse(const char *text, uint32_t min, uint32_t max, uint32_t *ret);
/* "on" or "off". 0, or -EINVAL with the message. */
int config_switch_parse(bool *ret, const char *value, char *message, size_t size);

#endif
