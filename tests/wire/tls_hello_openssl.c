/* SPDX-License-Identifier: Apache-2.0 */
/* OpenSSL as the oracle of our ClientHello reader: whatever its clients say first, we read the name
 * they were given, however the bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "wire/tls_hello.h"

#define HELLO_MAX 60000

struct options {
    const char *name; /* NULL: none */
    int min, max;     /* versions, 0: the library's */
    const char *groups, *suites, *ciphers;
    unsigned alpn; /* bytes of protocol names offered */
    long fragment; /* of records, 0: the library's */
    uint64_t options;
    bool status;
};

static const struct options VARIANTS[] = {
    {.name = "www.example.com"},
    {.name = NULL},
    {.name = "a.b.c.d.e.f.example.co.uk", .alpn = 12},
    {.name = "www.example.com", .max = TLS1_2_VERSION},
    {.name = "www.example.com", .max = TLS1_2_VERSION, .alpn = 300, .status = true},
    {.name = "www.example.com", .min = TLS1_3_VERSION},
    {.name = "x.example", .min = TLS1_3_VERSION, .groups = "X25519"},
    {.name = "x.example", .groups = "P-521:P-384:P-256:X25519:X448"},
    {.name = "x.example", .groups = "ffdhe8192"}, /* a key share of 1 KiB */
    {.name = "x.example", .groups = "ffdhe8192", .fragment = 512},
    {.name = "x.example", .suites = "TLS_AES_128_GCM_SHA256"},
    {.name = "x.example", .ciphers = "ALL:@SECLEVEL=0", .max = TLS1_2_VERSION},
    {.name = "pad.example", .options = SSL_OP_TLSEXT_PADDING, .alpn = 20},
    {.name = "no-ticket.example", .options = SSL_OP_NO_TICKET, .status = true},
    {.name = "no-etm.example", .options = SSL_OP_NO_ENCRYPT_THEN_MAC | SSL_OP_NO_TICKET},
    {.name = "legacy.example", .options = SSL_OP_LEGACY_SERVER_CONNECT, .max = TLS1_2_VERSION},
    {.name = "middlebox.example", .options = SSL_OP_ENABLE_MIDDLEBOX_COMPAT},
    {.name = "big.example", .alpn = 3000, .fragment = 512},
    {.name = "huge.example", .alpn = 20000, .fragment = 16384},
    {.name = NULL, .alpn = 3000, .fragment = 512},
    {.name = "192.0.2.1"}, /* clients should not, and do */
};

/* Protocol names of 100 bytes each, `len` bytes of them in all. */
static void offer_protocols(SSL *ssl, unsigned len)
{
    unsigned char *names = malloc(len);

    assert_non_null(names);
    memset(names, 'p', len);
    for (unsigned at = 0; at < len; at += names[at] + 1u)
        names[at] = (unsigned char)(len - at < 101 ? len - at - 1 : 100);
    assert_int_equal(SSL_set_alpn_protos(ssl, names, len), 0);
    free(names);
}

static SSL_CTX *context_of(const struct options *o)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    assert_non_null(ctx);
    SSL_CTX_set_options(ctx, o->options);
    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, o->min), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, o->max), 1);
    if (o->groups)
        assert_int_equal(SSL_CTX_set1_groups_list(ctx, o->groups), 1);
    if (o->suites)
        assert_int_equal(SSL_CTX_set_ciphersuites(ctx, o->suites), 1);
    if (o->ciphers)
        assert_int_equal(SSL_CTX_set_cipher_list(ctx, o->ciphers), 1);
    return ctx;
}

/* What a client says first. */
static size_t hello_of(const struct options *o, uint8_t *to)
{
    SSL_CTX *ctx = context_of(o);
    SSL *ssl = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    int len;

    SSL_set_bio(ssl, in, out);
    SSL_set_connect_state(ssl);
    if (o->name)
        assert_int_equal(SSL_set_tlsext_host_name(ssl, o->name), 1);
    if (o->alpn)
        offer_protocols(ssl, o->alpn);
    if (o->status)
        SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp);
    if (o->fragment)
        assert_int_equal(SSL_set_max_send_fragment(ssl, o->fragment), 1);
    assert_int_equal(SSL_do_handshake(ssl), -1);
    len = BIO_read(out, to, HELLO_MAX);
    assert_true(len > 0 && BIO_pending(out) == 0);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    ERR_clear_error();
    return (size_t)len;
}

static enum flow_name_result expected(const struct options *o)
{
    return o->name && o->name[0] > '9' ? FLOW_NAME_NAMED : FLOW_NAME_HIDDEN;
}

static void assert_reads(const struct options *o, const struct iovec *iov, size_t count)
{
    struct tls_hello hello = {.length = 0};

    assert_int_equal(tls_hello_parse(&hello, iov, count), expected(o));
    assert_string_equal(hello.name.text, expected(o) == FLOW_NAME_NAMED ? o->name : "");
    assert_false(hello.has_ech);
}

static void every_hello_of_openssl_is_read(void **state)
{
    static uint8_t bytes[HELLO_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof VARIANTS / sizeof *VARIANTS; i++) {
        size_t len = hello_of(&VARIANTS[i], bytes);

        assert_reads(&VARIANTS[i], &(struct iovec){bytes, len}, 1);
    }
}

static void every_truncation_of_them_asks_for_more(void **state)
{
    static uint8_t bytes[HELLO_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof VARIANTS / sizeof *VARIANTS; i++) {
        size_t len = hello_of(&VARIANTS[i], bytes);

        for (size_t cut = 0; cut < len; cut++) {
            struct tls_hello hello = {.length = 0};
            struct iovec iov = {bytes, cut};

            assert_int_equal(tls_hello_parse(&hello, &iov, 1), FLOW_NAME_NEED_MORE);
            assert_true(hello.wanted > cut && hello.wanted <= len);
        }
    }
}

static void every_split_of_them_reads_the_same(void **state)
{
    static uint8_t bytes[HELLO_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof VARIANTS / sizeof *VARIANTS; i++) {
        size_t len = hello_of(&VARIANTS[i], bytes);

        for (size_t cut = 0; cut <= len; cut++) {
            struct iovec iov[2] = {{bytes, cut}, {bytes + cut, len - cut}};

            assert_reads(&VARIANTS[i], iov, 2);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_hello_of_openssl_is_read),
        cmocka_unit_test(every_truncation_of_them_asks_for_more),
        cmocka_unit_test(every_split_of_them_reads_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
