/* SPDX-License-Identifier: Apache-2.0 */
/* DNS over TLS against a server of the TLS library's, in a thread of its own. */
#include "harness.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire/bytes.h"

struct tls_server {
    int listener;
    uint16_t port;
    SSL_CTX *context;
    pthread_t thread;
    unsigned accepted, answered,
        trusted;            /* written by the thread, read after its end or atomically */
    bool in_crumbs;         /* a record for each byte */
    unsigned hang_up_after; /* so many answers; 0: never */
};

static struct tls_server server;
static char folder[] = "/tmp/culvert-dns-tls-XXXXXX", authority_path[64];
static EVP_PKEY *authority_key;
static X509 *authority;

/* ---- certificates ---- */

static void add_extension(X509 *certificate, int what, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, what, value);

    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

/* `names` (subjectAltName) NULL: an authority that signs itself. */
static X509 *certificate_new(EVP_PKEY *key, const char *names, EVP_PKEY *signer)
{
    X509 *certificate = X509_new();
    X509_NAME *name = X509_get_subject_name(certificate);

    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), names ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               (const unsigned char *)(names ? "server" : "authority"), -1, -1, 0);
    X509_set_issuer_name(certificate, names ? X509_get_subject_name(authority) : name);
    if (names)
        add_extension(certificate, NID_subject_alt_name, names);
    else
        add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(certificate, signer, EVP_sha256()) > 0);
    return certificate;
}

static int make_authority(void **state)
{
    FILE *file;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(authority_path, sizeof authority_path, "%s/authority.pem", folder);
    authority_key = EVP_EC_gen("P-256");
    authority = certificate_new(authority_key, NULL, authority_key);
    file = fopen(authority_path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, authority), 1);
    fclose(file);
    return 0;
}

static int drop_authority(void **state)
{
    (void)state;
    X509_free(authority);
    EVP_PKEY_free(authority_key);
    unlink(authority_path);
    rmdir(folder);
    return 0;
}

/* ---- the server ---- */

static bool read_whole(SSL *ssl, uint8_t *to, size_t len)
{
    size_t n = 0, got;

    while (n < len) {
        if (SSL_read_ex(ssl, to + n, len - n, &got) != 1)
            return false;
        n += got;
    }
    return true;
}

static bool write_whole(SSL *ssl, const uint8_t *bytes, size_t len)
{
    size_t n;

    if (!server.in_crumbs)
        return SSL_write_ex(ssl, bytes, len, &n) == 1;
    for (size_t i = 0; i < len; i++)
        if (SSL_write_ex(ssl, bytes + i, 1, &n) != 1)
            return false;
    return true;
}

static bool answer_question(SSL *ssl)
{
    struct asked asked = {.tcp_fd = 0};
    uint8_t length[2], bytes[514];
    size_t len;

    if (!read_whole(ssl, length, 2))
        return false;
    asked.len = load_be16(length);
    if (asked.len > sizeof asked.bytes || !read_whole(ssl, asked.bytes, asked.len) ||
        dns_message_read(asked.bytes, asked.len, &asked.m) < 0)
        return false;
    len = answer_build(&asked, DNS_NOERROR, 1, bytes + 2, 512);
    store_be16(bytes, (uint16_t)len);
    if (!write_whole(ssl, bytes, len + 2))
        return false;
    __atomic_add_fetch(&server.answered, 1, __ATOMIC_RELAXED);
    return true;
}

static void serve(int fd)
{
    SSL *ssl = SSL_new(server.context);
    unsigned answers = 0;

    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) {
        __atomic_add_fetch(&server.trusted, 1, __ATOMIC_RELAXED);
        while (answer_question(ssl) && ++answers != server.hang_up_after)
            ;
        if (answers == server.hang_up_after)
            SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    close(fd);
}

static void *serve_all(void *unused)
{
    int fd;

    (void)unused;
    while ((fd = accept(server.listener, NULL, NULL)) >= 0) {
        __atomic_add_fetch(&server.accepted, 1, __ATOMIC_RELAXED);
        serve(fd);
    }
    ERR_clear_error();
    return NULL;
}

static int select_dot(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                      const unsigned char *in, unsigned in_len, void *unused)
{
    (void)ssl;
    (void)unused;
    assert_int_equal(in_len, 4);
    assert_memory_equal(in, "\3dot", 4);
    *out = in + 1;
    *out_len = 3;
    return SSL_TLSEXT_ERR_OK;
}

static void start_server(const char *names, int max_version)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = certificate_new(key, names, authority_key);

    server.context = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(server.context, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(server.context, key), 1);
    SSL_CTX_set_max_proto_version(server.context, max_version);
    SSL_CTX_set_alpn_select_cb(server.context, select_dot, NULL);
    X509_free(certificate);
    EVP_PKEY_free(key);
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(server.listener, 8), 0);
    assert_int_equal(getsockname(server.listener, (struct sockaddr *)&address, &len), 0);
    server.port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&server.thread, NULL, serve_all, NULL), 0);
}

/* ---- the world ---- */

static int setup(void **state)
{
    memset(&server, 0, sizeof server);
    setenv("SSL_CERT_FILE", authority_path, 1);
    setenv("SSL_CERT_DIR", folder, 1);
    *state = world_new();
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    shutdown(server.listener, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.listener);
    SSL_CTX_free(server.context);
    return 0;
}

static void start(struct world *w, const char *name)
{
    struct dns_config config = {.upstream_count = 1, .cache_bytes = 1};
    struct dns_upstream *where = &config.upstreams[0];

    where->tls = where->tcp_only = true;
    where->endpoint = (struct ip_endpoint){ip_address_v4(htonl(INADDR_LOOPBACK)), server.port};
    snprintf(where->tls_name, sizeof where->tls_name, "%s", name);
    w->dns = dns_new(&config, (struct stack *)(void *)w, &w->loop, w->timers, &w->counters);
    assert_non_null(w->dns);
}

static void ask(struct world *w, unsigned number)
{
    char name[32];

    snprintf(name, sizeof name, "n%u.example", number);
    guest_asks(w, (uint16_t)(4000 + number),
               &(struct question){.id = (uint16_t)number, .name = name, .type = DNS_TYPE_A});
}

static void ask_all(struct world *w, unsigned first, unsigned count)
{
    size_t before = w->reply_count;

    for (unsigned i = 0; i < count; i++)
        ask(w, first + i);
    world_run_replies(w, before + count);
    for (size_t i = before; i < w->reply_count; i++)
        assert_int_equal(reply_rcode(w, i), DNS_NOERROR);
}

static void questions_are_answered_over_one_connection(void **state)
{
    struct world *w = *state;

    start_server("DNS:dns.example", 0);
    start(w, "dns.example");
    ask_all(w, 0, 1);
    ask_all(w, 1, 20);
    ask_all(w, 21, 1);
    assert_int_equal(__atomic_load_n(&server.accepted, __ATOMIC_RELAXED), 1);
    assert_int_equal(COUNTED(w, tls_untrusted), 0);
}

static void tls_1_2_will_do(void **state)
{
    start_server("DNS:dns.example", TLS1_2_VERSION);
    start(*state, "dns.example");
    ask_all(*state, 0, 3);
}

static void answers_in_crumbs_are_put_together(void **state)
{
    server.in_crumbs = true;
    start_server("DNS:dns.example", 0);
    start(*state, "dns.example");
    ask_all(*state, 0, 10);
}

static void without_a_name_the_certificate_is_for_the_address(void **state)
{
    start_server("IP:127.0.0.1", 0);
    start(*state, "");
    ask_all(*state, 0, 1);
}

static void check_untrusted(struct world *w)
{
    ask(w, 1);
    world_run_replies(w, 1);
    assert_int_equal(reply_rcode(w, 0), DNS_SERVFAIL);
    assert_true(COUNTED(w, tls_untrusted) > 0);
    assert_int_equal(__atomic_load_n(&server.answered, __ATOMIC_RELAXED), 0);
}

static void a_certificate_for_another_name_is_refused(void **state)
{
    start_server("DNS:evil.example,IP:127.0.0.1", 0);
    start(*state, "dns.example");
    check_untrusted(*state);
}

static void a_certificate_for_another_address_is_refused(void **state)
{
    start_server("DNS:dns.example,IP:127.0.0.2", 0);
    start(*state, "");
    check_untrusted(*state);
}

static void a_certificate_of_an_unknown_authority_is_refused(void **state)
{
    setenv("SSL_CERT_FILE", "/dev/null", 1);
    start_server("DNS:dns.example", 0);
    start(*state, "dns.example");
    check_untrusted(*state);
}

static void a_server_that_says_goodbye_is_connected_to_again(void **state)
{
    server.hang_up_after = 2;
    start_server("DNS:dns.example", 0);
    start(*state, "dns.example");
    for (unsigned i = 0; i < 6; i++)
        ask_all(*state, i, 1);
    assert_int_equal(__atomic_load_n(&server.accepted, __ATOMIC_RELAXED), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(questions_are_answered_over_one_connection),
        TEST(tls_1_2_will_do),
        TEST(answers_in_crumbs_are_put_together),
        TEST(without_a_name_the_certificate_is_for_the_address),
        TEST(a_certificate_for_another_name_is_refused),
        TEST(a_certificate_for_another_address_is_refused),
        TEST(a_certificate_of_an_unknown_authority_is_refused),
        TEST(a_server_that_says_goodbye_is_connected_to_again),
    };

    return cmocka_run_group_tests(tests, make_authority, drop_authority);
}
