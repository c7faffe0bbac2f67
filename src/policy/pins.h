/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_PINS_H
#define POLICY_PINS_H

/* Pins: which names an address was answered for (DESIGN §6). Learnt only from answers that culvert
 * itself obtained, or gave from --dns-host.
 *
 * For each address of an answer, and each name N that was the query's or owned a record of its
 * CNAME chain, there is a pin (N, address). Only the queried name's pin counts for rules that
 * allow; every one counts for rules that refuse. Pins are additive across lookups: none is replaced
 * by a newer answer. One lives as long as its TTL (held between a minute and a day) plus an hour,
 * longer while used. There are at most so many pins and bytes, and so many names an address: the
 * one longest not learnt or used goes first.
 *
 * Addresses are kept as they were answered, so A and AAAA stand apart. Times are clock_now()'s
 * nanoseconds. One thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/address.h"
#include "wire/dns.h"

struct pins;

#define PINS_ENTRIES_DEFAULT 16384
#define PINS_BYTES_DEFAULT   ((size_t)4 << 20)
#define PINS_PER_ADDRESS     256

struct pins_limits {
    size_t entries, bytes; /* 0: the default */
};

/* `key` is secret and random: the guest chooses what is hashed. NULL: ENOMEM. */
struct pins *pins_new(const struct pins_limits *limits, const uint64_t key[2]);
struct pins *pins_free(struct pins *pins);

enum pin_role {
    PIN_CHAIN,   /* an owner in the CNAME chain, the queried name excepted */
    PIN_QUERIED, /* the name that was asked for */
};

/* An answer for `name` holds `address`; `ttl` (seconds) is the smallest along the chain. To be
 * called once for the queried name and once for each further owner, for each address the guest was
 * given. 0 or -ENOMEM (then there is no pin, and the flow will be judged without). */
int pins_learn(struct pins *pins, const struct dns_name *name, const struct ip_address *address,
               enum pin_role role, uint32_t ttl, uint64_t now);

/* One pin, valid until the next call that is not const. */
struct pin;
void pin_name(const struct pin *pin, struct dns_name *ret);
const struct ip_address *pin_address(const struct pin *pin);
enum pin_role pin_role(const struct pin *pin, uint64_t now);

/* The pin (name, address) if it is there and has not expired. */
const struct pin *pins_find(const struct pins *pins, const struct dns_name *name,
                            const struct ip_address *address, uint64_t now);
/* The names of one address, newest first: for (pin = pins_first(…); pin; pin = pins_next(pin,
 * now)).
 */
const struct pin *pins_first(const struct pins *pins, const struct ip_address *address,
                             uint64_t now);
const struct pin *pins_next(const struct pin *pin, uint64_t now);

/* A flow was admitted by, or still lives on, this pin: it will not expire within the hour. Nothing
 * if there is none any more. */
void pins_use(struct pins *pins, const struct dns_name *name, const struct ip_address *address,
              uint64_t now);

struct pins_figures {
    size_t entries, bytes;
    uint64_t learnt, evicted, expired; /* since the beginning */
};
struct pins_figures pins_figures(const struct pins *pins);

#endif
