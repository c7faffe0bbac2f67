/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "dns/internal.h"

struct dns_tls_context {
    SSL_CTX *ssl;
    BIO_METHOD *socket;
};

struct dns_tls {
    SSL *ssl;
    bool send_waits, recv_waits; /* until it can write; for either call, as TLS has its own ideas */
};

/* ---- the socket, without signals ---- */

/* The library's own socket BIO writes by write(2), which raises SIGPIPE. */
static int socket_fd(BIO *bio)
{
    return (int)(intptr_t)BIO_get_data(bio);
}

static int socket_write(BIO *bio, const char *bytes, int len)
{
    ssize_t n = send(socket_fd(bio), bytes, (size_t)len, MSG_NOSIGNAL);

    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int)n;
}

static int socket_read(BIO *bio, char *to, int len)
{
    ssize_t n = recv(socket_fd(bio), to, (size_t)len, 0);

    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    return (int)n;
}

static long socket_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *socket_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socket");

    if (method) {
        BIO_meth_set_write(method, socket_write);
        BIO_meth_set_read(method, socket_read);
        BIO_meth_set_ctrl(method, socket_control);
    }
    return method;
}

static BIO *socket_new(const struct dns_tls_context *context, int fd)
{
    BIO *bio = BIO_new(context->socket);

    if (bio) {
        BIO_set_data(bio, (void *)(intptr_t)fd);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* ---- contexts ---- */

struct dns_tls_context *tls_context_new(void)
{
    struct dns_tls_context *context = calloc(1, sizeof *context);

    if (!context)
        return NULL;
    context->ssl = SSL_CTX_new(TLS_client_method());
    context->socket = socket_method();
    if (!context->ssl || !context->socket ||
        SSL_CTX_set_min_proto_version(context->ssl, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_default_verify_paths(context->ssl) != 1) {
        ERR_clear_error();
        tls_context_free(context);
        errno = ENOMEM;
        return NULL;
    }
    SSL_CTX_set_verify(context->ssl, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context->ssl,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

struct dns_tls_context *tls_context_free(struct dns_tls_context *context)
{
    if (!context)
        return NULL;
    SSL_CTX_free(context->ssl);
    BIO_meth_free(context->socket);
    free(context);
    return NULL;
}

/* ---- connections ---- */

/* RFC 8310, 8.1: the certificate must be for the name; without one, for the address. */
static bool expect(SSL *ssl, const struct dns_upstream *where)
{
    static const unsigned char dot[] = "\3dot";
    char address[IP_ADDRESS_TEXT_MAX];

    if (SSL_set_alpn_protos(ssl, dot, sizeof dot - 1) != 0)
        return false;
    if (where->tls_name[0] != '\0') {
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        return SSL_set1_host(ssl, where->tls_name) == 1 &&
               SSL_set_tlsext_host_name(ssl, where->tls_name) == 1;
    }
    ip_address_format(&where->endpoint.address, address);
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), address) == 1;
}

struct dns_tls *tls_new(struct dns_tls_context *context, int fd, const struct dns_upstream *where)
{
    struct dns_tls *tls = calloc(1, sizeof *tls);
    BIO *bio = NULL;

    if (!tls)
        return NULL;
    tls->ssl = SSL_new(context->ssl);
    bio = tls->ssl ? socket_new(context, fd) : NULL;
    if (!bio || !expect(tls->ssl, where)) {
        BIO_free(bio);
        ERR_clear_error();
        return tls_free(tls);
    }
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_connect_state(tls->ssl);
    tls->send_waits = true; /* the hello */
    return tls;
}

struct dns_tls *tls_free(struct dns_tls *tls)
{
    if (!tls)
        return NULL;
    if (tls->ssl && SSL_is_init_finished(tls->ssl))
        (void)SSL_shutdown(tls->ssl);
    ERR_clear_error();
    SSL_free(tls->ssl);
    free(tls);
    return NULL;
}

/* What a call that did not work means. */
static ssize_t trouble(const struct dns_tls *tls, int result, bool *ret_waits)
{
    int error = SSL_get_error(tls->ssl, result);
    bool untrusted = SSL_get_verify_result(tls->ssl) != X509_V_OK;

    ERR_clear_error();
    *ret_waits = error == SSL_ERROR_WANT_WRITE;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return -EAGAIN;
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    return untrusted ? -EACCES : -EPROTO;
}

ssize_t tls_send(struct dns_tls *tls, const void *bytes, size_t len)
{
    size_t n = 0;
    int result;
    ssize_t r;

    ERR_clear_error();
    tls->send_waits = false;
    result = SSL_write_ex(tls->ssl, bytes, len, &n);
    if (result == 1)
        return (ssize_t)n;
    r = trouble(tls, result, &tls->send_waits);
    return r == 0 ? -EPIPE : r;
}

ssize_t tls_recv(struct dns_tls *tls, void *to, size_t len)
{
    size_t n = 0;
    int result;

    ERR_clear_error();
    tls->recv_waits = false;
    result = SSL_read_ex(tls->ssl, to, len, &n);
    return result == 1 ? (ssize_t)n : trouble(tls, result, &tls->recv_waits);
}

bool tls_wants_to_write(const struct dns_tls *tls)
{
    return tls->send_waits || tls->recv_waits;
}
