/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WIRE_DNS_H
#define WIRE_DNS_H

/* DNS messages (RFC 1035, EDNS: RFC 6891) as pure functions over bytes: names, records, whole
 * messages, and building them. Nothing here allocates; whatever is read was checked.
 *
 * Functions that read return 0 or -EBADMSG; after a failure their outputs are not to be used,
 * unless they say otherwise. Integers are in host order. Offsets are from the message's first byte.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/address.h"

#define DNS_HEADER_LEN  12
#define DNS_NAME_MAX    255 /* bytes of a name on the wire, its root label included */
#define DNS_LABEL_MAX   63
#define DNS_TEXT_MAX    1016 /* of a name as text: every byte escaped, and the final 0 */
#define DNS_MESSAGE_MAX 65535
#define DNS_OPT_LEN     11  /* of an OPT record without options */
#define DNS_UDP_MIN     512 /* every requester takes answers of this size (RFC 6891, 6.2.3) */

enum dns_type {
    DNS_TYPE_A = 1,
    DNS_TYPE_NS = 2,
    DNS_TYPE_CNAME = 5,
    DNS_TYPE_SOA = 6,
    DNS_TYPE_PTR = 12,
    DNS_TYPE_AAAA = 28,
    DNS_TYPE_SIG = 24,
    DNS_TYPE_NXT = 30,
    DNS_TYPE_OPT = 41,
    DNS_TYPE_RRSIG = 46,
    DNS_TYPE_SVCB = 64,
    DNS_TYPE_HTTPS = 65,
    DNS_TYPE_IXFR = 251,
    DNS_TYPE_AXFR = 252,
    DNS_TYPE_ANY = 255,
};

enum dns_class { DNS_CLASS_IN = 1, DNS_CLASS_ANY = 255 };

enum dns_rcode {
    DNS_NOERROR = 0,
    DNS_FORMERR = 1,
    DNS_SERVFAIL = 2,
    DNS_NXDOMAIN = 3,
    DNS_NOTIMP = 4,
    DNS_REFUSED = 5,
    DNS_BADVERS = 16, /* needs EDNS, as all above 15 */
};

/* Of the header's second word. */
#define DNS_FLAG_QR      0x8000u
#define DNS_FLAG_AA      0x0400u
#define DNS_FLAG_TC      0x0200u
#define DNS_FLAG_RD      0x0100u
#define DNS_FLAG_RA      0x0080u
#define DNS_FLAG_AD      0x0020u
#define DNS_FLAG_CD      0x0010u
#define DNS_OPCODE_SHIFT 11
#define DNS_OPCODE_MASK  0x7800u
#define DNS_RCODE_MASK   0x000fu

enum dns_section { DNS_ANSWER, DNS_AUTHORITY, DNS_ADDITIONAL, DNS_SECTIONS };

struct dns_header {
    uint16_t id, flags;
    uint16_t question_count;
    uint16_t record_count[DNS_SECTIONS];
};

/* A name as it stands on the wire, uncompressed: length-prefixed labels, the root label last. Its
 * labels may hold any byte, NUL and dots among them. len 0: no name. */
struct dns_name {
    uint8_t len;
    uint8_t bytes[DNS_NAME_MAX];
};

struct dns_question {
    struct dns_name name;
    uint16_t type, qclass;
};

/* What a requester says by OPT. `present` false: all else is zero. */
struct dns_edns {
    bool present, dnssec_ok;
    uint8_t version;
    uint8_t rcode_high; /* the upper eight bits of the extended rcode */
    uint16_t size;      /* the largest UDP answer it takes */
};

/* An Extended DNS Error (RFC 8914), for those who speak EDNS. text NULL: none. */
struct dns_error {
    uint16_t code;
    const char *text; /* a few words of ASCII */
};

enum dns_error_code {
    DNS_ERROR_BLOCKED = 15,
    DNS_ERROR_FILTERED = 17,
    DNS_ERROR_NOT_READY = 14,
    DNS_ERROR_NETWORK = 23,
};

/* A record's place. */
struct dns_record {
    enum dns_section section;
    uint16_t type, rclass;
    uint32_t ttl;
    size_t start;          /* of its owner's name, for dns_name_read() */
    size_t data, data_len; /* its RDATA */
    size_t end;            /* behind it */
};

/* A message with exactly one question whose records were all walked. */
struct dns_message {
    struct dns_header header;
    struct dns_question question;
    struct dns_edns edns;
    size_t records;            /* where the first record stands: behind the question */
    size_t opt_start, opt_end; /* equal: no OPT */
    size_t end;                /* behind the last record; what follows is no part of the message */
};

/* ---- reading ---- */

int dns_header_read(const uint8_t *message, size_t len, struct dns_header *ret);
/* The name at `*offset`, compression undone; `*offset` moves behind it. Pointers must point
 * strictly backwards, at most 127 times, never into the header, and to labels that end before the
 * ones that point there begin. `ret` may be NULL. */
int dns_name_read(const uint8_t *message, size_t len, size_t *offset, struct dns_name *ret);
int dns_question_read(const uint8_t *message, size_t len, size_t *offset, struct dns_question *ret);

/* Goes through a message's records, as many as its header promises. */
struct dns_walk {
    const uint8_t *message;
    size_t len, offset;
    uint16_t left[DNS_SECTIONS];
    enum dns_section section;
};

struct dns_walk dns_walk_of(const uint8_t *message, size_t len, const struct dns_header *header,
                            size_t records);
/* 1: a record; 0: that was all; -EBADMSG. */
int dns_walk_next(struct dns_walk *walk, struct dns_record *ret);

/* The whole message: one question, every record in bounds, at most one OPT, owned by the root, in
 * the additional section. -EBADMSG also for other numbers of questions; ret->header is then good if
 * there is a whole header, and ret->question if its name has a length. */
int dns_message_read(const uint8_t *message, size_t len, struct dns_message *ret);

/* ---- names ---- */

bool dns_name_equal(const struct dns_name *a, const struct dns_name *b); /* in any case */
bool dns_name_is_below(const struct dns_name *name,
                       const struct dns_name *zone); /* or equal; on label borders */
void dns_name_lower(struct dns_name *name);
/* "www.example.com", with or without a final dot; \. and \DDD escape. -EINVAL: empty or overlong
 * labels, overlong names, broken escapes. "" and "." are the root. */
int dns_name_parse(const char *text, struct dns_name *ret);
/* Without a final dot (the root: "."); whatever is not printable is escaped. Returns `text`. */
const char *dns_name_format(const struct dns_name *name, char text[DNS_TEXT_MAX]);
/* The address that a name below in-addr.arpa or ip6.arpa stands for. False: it stands for none. */
bool dns_name_to_reverse_address(const struct dns_name *name, struct ip_address *ret);
/* The same of names that stand for a network ("0.10.in-addr.arpa") or lie below an address or a
 * network: its first address and its last. False: it is no such name. */
bool dns_name_to_reverse_range(const struct dns_name *name, struct ip_address *ret_first,
                               struct ip_address *ret_last);

/* ---- building ---- */

/* Writes a message into memory of the caller's. What does not fit sets `overflow` and is not
 * written, nor is anything after it. All zero but data and capacity: empty. */
struct dns_builder {
    uint8_t *data;
    size_t capacity, len;
    bool overflow;
};

void dns_build_bytes(struct dns_builder *b, const void *bytes, size_t len);
void dns_build_be16(struct dns_builder *b, uint16_t value);
void dns_build_be32(struct dns_builder *b, uint32_t value);
void dns_build_header(struct dns_builder *b, const struct dns_header *header);
void dns_build_question(struct dns_builder *b, const struct dns_question *question);
/* A record whose owner is the question's name (a pointer to it). */
void dns_build_record(struct dns_builder *b, uint16_t type, uint16_t rclass, uint32_t ttl,
                      const void *data, size_t len);
/* OPT without options. Nothing if `edns` is not present. */
void dns_build_opt(struct dns_builder *b, const struct dns_edns *edns);
/* The same with an Extended DNS Error, and the length that it will have. */
void dns_build_opt_error(struct dns_builder *b, const struct dns_edns *edns,
                         const struct dns_error *error);
size_t dns_opt_error_len(const struct dns_error *error);

#endif
