/* SPDX-License-Identifier: Apache-2.0 */
#ifndef POLICY_NAMES_H
#define POLICY_NAMES_H

/* Domain names, as rules, pins and verdicts see them.
 *
 * A name is wire/dns.h's struct dns_name: labels with their lengths, so that no byte in a label can
 * be mistaken for a border. Everything in src/policy that takes a name takes it in any case.
 *
 * Names that come from a guest (the SNI of a hello, the authority of a request) are text and
 * untrusted: name_from_guest() is the one way in, name_show() and text_show() the one way out. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/dns.h"

/* The host name `text` (`len` bytes, no final 0 needed): letters, digits, '-' and '_', labels of 1
 * to 63 bytes, at most 253 in all, with or without a final dot; *ret is in lower case. -EINVAL: it
 * is no host name. An IP address is none either, nor is whatever ends in a number, since many
 * parsers read that as one ("127.1", "0x7f.1"). No port: the caller takes that off. */
int name_from_guest(const char *text, size_t len, struct dns_name *ret);

#define NAME_SHOWN_MAX DNS_TEXT_MAX
/* Any name as it may be shown, logged or put into JSON: printable ASCII, no blank, all else
 * escaped. Returns `text`. */
const char *name_show(const struct dns_name *name, char text[NAME_SHOWN_MAX]);
/* Any bytes of a guest's as they may be shown: printable ASCII, all else and '\' as \xHH; cut to
 * `size` with "..." at the end. Returns `text`. */
const char *text_show(const void *bytes, size_t len, char *text, size_t size);

/* ---- patterns: what a rule may say about names ---- */

enum name_pattern_kind {
    NAME_PATTERN_EXACT, /* "example.com" */
    NAME_PATTERN_BELOW, /* "*.example.com": example.com and everything below */
    NAME_PATTERN_GLOB,  /* "api-*.example.com": one '*' within a label, for any run of bytes */
};

struct name_pattern {
    enum name_pattern_kind kind;
    struct dns_name name; /* lower case; NAME_PATTERN_BELOW: without the "*." */
};

/* Parses "example.com", "*.example.com.", "a-*.example.com", "Bücher.example" (converted to its
 * A-label, UTS 46). A name of a single label must end in a dot. 0; -ENOENT: this is no name at all
 * (a single label without a dot, say), nothing was written to `message`; -EINVAL with `message`
 * filled: fault and mend; -ENOMEM. `text` has no blanks. */
int name_pattern_parse(const char *text, size_t len, struct name_pattern *ret, char *message,
                       size_t size);
bool name_pattern_matches(const struct name_pattern *pattern, const struct dns_name *name);
/* As it is written in a rule. */
const char *name_pattern_show(const struct name_pattern *pattern, char text[NAME_SHOWN_MAX + 2]);

enum name_breadth {
    NAME_BREADTH_OWNER,   /* it stays within what one owner registered */
    NAME_BREADTH_PRIVATE, /* it spans customers of one service (*.s3.amazonaws.com) */
    NAME_BREADTH_PUBLIC,  /* it spans a public suffix (*.com, *.co.uk, ex*.com) */
};

/* How far the wildcard reaches, by the public suffix list. */
enum name_breadth name_pattern_breadth(const struct name_pattern *pattern);

#endif
