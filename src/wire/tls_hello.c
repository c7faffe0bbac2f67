/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a ClientHello in two passes over the same bytes: the first goes from record to record until
 * the message is known to be whole, the second reads the message as if there were no records.
 *
 * The second pass is made once. The first says how many bytes are missing, and since each byte of a
 * record's header brings at least one of the message, the passes over a hello that trickles in grow
 * with the logarithm of its length only. */
#include "wire/tls_hello.h"

#include <string.h>

#include "wire/bytes.h"

#define RECORD_HEADER_LEN    5
#define RECORD_PAYLOAD_MAX   16384 /* RFC 8446, 5.1 */
#define RECORD_HANDSHAKE     22
#define RECORD_FIRST         20 /* change_cipher_spec … heartbeat */
#define RECORD_LAST          24
#define MESSAGE_HEADER_LEN   4
#define MESSAGE_CLIENT_HELLO 1
#define SSL2_HEAD_LEN        11

#define EXTENSION_SERVER_NAME 0
#define EXTENSION_ESNI        0xffce
#define EXTENSION_ECH         0xfe0d

#define NAME_TYPE_HOST 0

/* ---- bytes in pieces ---- */

struct cursor {
    const struct iovec *iov; /* the current piece */
    size_t pieces;           /* it and those behind it */
    size_t at;               /* in the current piece */
    bool has_records;
    size_t record_left; /* bytes of the current record that were not read */
    size_t left;        /* bytes of the structure being read that were not read */
    bool failed;
};

/* The next bytes, whatever they are; fewer if there are no more. `to` may be NULL. */
static size_t pull(struct cursor *c, uint8_t *to, size_t len)
{
    size_t taken = 0;

    while (taken < len && c->pieces > 0) {
        size_t here = c->iov->iov_len - c->at;
        size_t n = here < len - taken ? here : len - taken;

        if (to && n != 0)
            memcpy(to + taken, (const uint8_t *)c->iov->iov_base + c->at, n);
        taken += n;
        c->at += n;
        if (c->at == c->iov->iov_len) {
            c->iov++;
            c->pieces--;
            c->at = 0;
        }
    }
    return taken;
}

/* The next bytes of the message, record headers passed over. Zeros and `failed` if the structure
 * being read has no so many. */
static void take(struct cursor *c, uint8_t *to, size_t len)
{
    if (to)
        memset(to, 0, len);
    if (c->failed || len > c->left) {
        c->failed = true;
        return;
    }
    c->left -= len;
    while (len > 0) {
        uint8_t header[RECORD_HEADER_LEN];
        size_t n = len;

        if (c->has_records && c->record_left == 0) {
            if (pull(c, header, sizeof header) < sizeof header)
                break;
            c->record_left = load_be16(header + 3);
        }
        if (c->has_records && n > c->record_left)
            n = c->record_left;
        if (n == 0 || pull(c, to, n) < n)
            break;
        c->record_left -= c->has_records ? n : 0;
        to = to ? to + n : NULL;
        len -= n;
    }
    c->failed = len > 0; /* not to be: the first pass saw the whole message */
}

static uint8_t take_u8(struct cursor *c)
{
    uint8_t byte;

    take(c, &byte, 1);
    return byte;
}

static uint16_t take_be16(struct cursor *c)
{
    uint8_t bytes[2];

    take(c, bytes, 2);
    return load_be16(bytes);
}

/* Narrows what is read to a structure of `len` bytes; returns what leave() wants. */
static size_t enter(struct cursor *c, size_t len)
{
    size_t behind;

    if (c->failed || len > c->left) {
        c->failed = true;
        return 0;
    }
    behind = c->left - len;
    c->left = len;
    return behind;
}

/* Back to the structure around, behind this one. */
static void leave(struct cursor *c, size_t behind)
{
    take(c, NULL, c->left);
    c->left = behind;
}

/* ---- the second pass: the message ---- */

struct server_name {
    unsigned extensions, names;
    enum flow_name_result result; /* of the last name */
    struct flow_name name;
};

/* RFC 6066, section 3: a list of (type, name); nobody ever defined a second type. */
static void read_server_name(struct cursor *c, struct server_name *found)
{
    size_t list = take_be16(c);
    uint8_t text[FLOW_NAME_TEXT_MAX + 2];

    found->extensions++;
    if (list != c->left) /* the list is all there is to the extension */
        c->failed = true;
    while (!c->failed && c->left > 0) {
        uint8_t type = take_u8(c);
        size_t len = take_be16(c), behind = enter(c, len);

        if (c->failed)
            return;
        if (type != NAME_TYPE_HOST || len == 0 || len > sizeof text) {
            found->result = FLOW_NAME_HIDDEN;
        } else {
            take(c, text, len);
            found->result = flow_name_read(text, len, &found->name);
        }
        found->names++;
        leave(c, behind);
    }
}

static void read_extensions(struct cursor *c, struct tls_hello *hello, struct server_name *found)
{
    while (!c->failed && c->left > 0) {
        uint16_t type = take_be16(c);
        size_t behind = enter(c, take_be16(c));

        if (c->failed)
            return;
        if (type == EXTENSION_SERVER_NAME)
            read_server_name(c, found);
        else if (type == EXTENSION_ECH || type == EXTENSION_ESNI)
            hello->has_ech = true;
        leave(c, behind);
    }
}

/* RFC 8446, 4.1.2. Older versions may end in front of the extensions. */
static enum flow_name_result read_message(struct cursor *c, struct tls_hello *hello)
{
    struct server_name found = {.result = FLOW_NAME_HIDDEN};
    size_t session_id, suites, methods;

    take(c, NULL, MESSAGE_HEADER_LEN);
    if (take_u8(c) != 3) /* legacy_version: SSL 3.0 to TLS 1.3 */
        return FLOW_NAME_MALFORMED;
    take(c, NULL, 1 + 32); /* its minor part, random */
    session_id = take_u8(c);
    take(c, NULL, session_id);
    suites = take_be16(c);
    take(c, NULL, suites);
    methods = take_u8(c);
    take(c, NULL, methods);
    if (c->failed || session_id > 32 || suites < 2 || suites % 2 != 0 || methods == 0)
        return FLOW_NAME_MALFORMED;
    if (c->left > 0) {
        if (take_be16(c) != c->left)
            return FLOW_NAME_MALFORMED;
        read_extensions(c, hello, &found);
    }
    if (c->failed || found.extensions > 1)
        return FLOW_NAME_MALFORMED;
    if (found.names != 1 || found.result != FLOW_NAME_NAMED)
        return FLOW_NAME_HIDDEN;
    hello->name = found.name;
    return FLOW_NAME_NAMED;
}

/* ---- the first pass: is it all there? ---- */

struct message {
    uint8_t head[MESSAGE_HEADER_LEN];
    size_t head_len;
    size_t available; /* bytes of the message, its header among them */
    size_t declared;  /* the same with those that the last record has yet to bring */
};

static size_t message_length(const struct message *m)
{
    return MESSAGE_HEADER_LEN + (load_be32(m->head) & 0xffffffu);
}

/* NAMED: there is a whole ClientHello. */
static enum flow_name_result judge_message(const struct message *m, bool has_records)
{
    size_t length;

    if (m->head_len > 0 && m->head[0] != MESSAGE_CLIENT_HELLO)
        return FLOW_NAME_MALFORMED;
    if (m->head_len < MESSAGE_HEADER_LEN)
        return FLOW_NAME_NEED_MORE;
    length = message_length(m);
    if (length > FLOW_NAME_BYTES_MAX - RECORD_HEADER_LEN)
        return FLOW_NAME_TOO_LARGE;
    /* A client has nothing else to say in the clear, and a server would read on behind it. */
    if (has_records && m->declared > length)
        return FLOW_NAME_MALFORMED;
    return m->available < length ? FLOW_NAME_NEED_MORE : FLOW_NAME_NAMED;
}

/* As much as there is of the next `len` bytes of the message. True: all of them. */
static bool gather(struct cursor *c, struct message *m, size_t len)
{
    size_t want = MESSAGE_HEADER_LEN - m->head_len, got;

    if (want > len)
        want = len;
    got = pull(c, m->head + m->head_len, want);
    m->head_len += got;
    got += pull(c, NULL, len - want);
    m->available += got;
    m->declared += len;
    return got == len;
}

/* RFC 8446, 5.1: nothing may come between the records of one message, and none is empty. Looks at
 * the `len` bytes that there are of a header. */
static bool is_handshake_record(const uint8_t *header, size_t len)
{
    if ((len > 0 && header[0] != RECORD_HANDSHAKE) || (len > 1 && header[1] != 3))
        return false;
    return len < RECORD_HEADER_LEN ||
           (load_be16(header + 3) != 0 && load_be16(header + 3) <= RECORD_PAYLOAD_MAX);
}

static enum flow_name_result gather_records(struct cursor c, struct message *m)
{
    for (;;) {
        uint8_t header[RECORD_HEADER_LEN] = {0};
        size_t len = pull(&c, header, sizeof header);
        enum flow_name_result result;
        bool whole;

        if (!is_handshake_record(header, len))
            return FLOW_NAME_MALFORMED;
        if (len < sizeof header)
            return FLOW_NAME_NEED_MORE;
        whole = gather(&c, m, load_be16(header + 3));
        result = judge_message(m, true);
        if (result != FLOW_NAME_NEED_MORE || !whole)
            return result;
    }
}

/* ---- the first bytes ---- */

/* A hello in SSL 2's format (RFC 5246, E.2): length with the upper bit set, type 1, version, and
 * three lengths that add up. */
static bool is_ssl2_hello(const uint8_t *bytes, size_t len)
{
    size_t suites, session_id, challenge;

    if (!(bytes[0] & 0x80) || (len > 2 && bytes[2] != 1) ||
        (len > 3 && bytes[3] != 3 && bytes[3] != 0) ||
        (len > 4 && (bytes[3] == 0 ? bytes[4] != 2 : bytes[4] > 4)))
        return false;
    if (len < SSL2_HEAD_LEN)
        return true;
    suites = load_be16(bytes + 5);
    session_id = load_be16(bytes + 7);
    challenge = load_be16(bytes + 9);
    return suites % 3 == 0 && (session_id == 0 || session_id == 16) && challenge >= 16 &&
           challenge <= 32 &&
           (load_be16(bytes) & 0x7fffu) == SSL2_HEAD_LEN - 2 + suites + session_id + challenge;
}

/* NAMED: a handshake record begins here. Any other record of TLS in front of a hello is refused,
 * because there are servers that pass over alerts. */
static enum flow_name_result look_at_start(struct cursor c)
{
    uint8_t bytes[SSL2_HEAD_LEN] = {0};
    size_t len = pull(&c, bytes, sizeof bytes);

    if (len == 0)
        return FLOW_NAME_NEED_MORE;
    if (is_ssl2_hello(bytes, len))
        return len < sizeof bytes ? FLOW_NAME_NEED_MORE : FLOW_NAME_HIDDEN;
    if (bytes[0] < RECORD_FIRST || bytes[0] > RECORD_LAST)
        return FLOW_NAME_NOT_THIS_PROTOCOL;
    if (len == 1)
        return FLOW_NAME_NEED_MORE;
    if (bytes[1] != 3)
        return FLOW_NAME_NOT_THIS_PROTOCOL;
    return bytes[0] == RECORD_HANDSHAKE ? FLOW_NAME_NAMED : FLOW_NAME_MALFORMED;
}

static size_t total_length(const struct iovec *iov, size_t count)
{
    size_t total = 0;

    for (size_t i = 0; i < count; i++)
        total += iov[i].iov_len;
    return total;
}

/* More is needed: how much at least? As long as it might become another protocol, any byte may
 * tell. */
static void note_wanted(struct tls_hello *hello, const struct message *m, size_t total)
{
    size_t length = m->head_len == MESSAGE_HEADER_LEN ? message_length(m) : 0;

    hello->wanted = total + (length > m->available ? length - m->available : 1);
}

static enum flow_name_result parse(struct tls_hello *hello, struct cursor c, size_t total)
{
    struct message m = {.head_len = 0};
    enum flow_name_result result;

    if (total < hello->wanted)
        return FLOW_NAME_NEED_MORE;
    if (c.has_records) {
        result = look_at_start(c);
        if (result == FLOW_NAME_NAMED)
            result = gather_records(c, &m);
    } else {
        struct cursor look = c;

        gather(&look, &m, total);
        result = judge_message(&m, false);
    }
    if (m.head_len == MESSAGE_HEADER_LEN)
        hello->length = message_length(&m);
    if (result == FLOW_NAME_NAMED) {
        c.left = hello->length;
        return read_message(&c, hello);
    }
    if (result == FLOW_NAME_NEED_MORE && total >= FLOW_NAME_BYTES_MAX)
        return FLOW_NAME_TOO_LARGE;
    if (result == FLOW_NAME_NEED_MORE)
        note_wanted(hello, &m, total);
    return result;
}

enum flow_name_result tls_hello_parse(struct tls_hello *hello, const struct iovec *iov,
                                      size_t count)
{
    struct cursor c = {.iov = iov, .pieces = count, .has_records = true};

    return parse(hello, c, total_length(iov, count));
}

enum flow_name_result tls_hello_parse_message(struct tls_hello *hello, const uint8_t *bytes,
                                              size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    struct cursor c = {.iov = &iov, .pieces = 1};

    return parse(hello, c, len);
}
