/* SPDX-License-Identifier: Apache-2.0 */
#include "quic_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "wire/writer.h"

struct quic_cid cid_of(const char *text)
{
    struct quic_cid cid = {.len = (uint8_t)strlen(text)};

    memcpy(cid.bytes, text, cid.len);
    return cid;
}

struct quic_client quic_client_of(uint32_t version, const char *dcid)
{
    return (struct quic_client){
        .version = version, .origin = cid_of(dcid), .dcid = cid_of(dcid), .pn_len = 2};
}

/* ---- keys ---- */

static void hkdf(int mode, const uint8_t *key, size_t key_len, const void *salt, size_t salt_len,
                 const void *info, size_t info_len, uint8_t *to, size_t len)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key, key_len),
        salt_len ? OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt,
                                                     salt_len)
                 : OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info,
                                                     info_len),
        OSSL_PARAM_construct_end(),
    };

    assert_int_equal(EVP_KDF_derive(ctx, to, len, params), 1);
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
}

static void expand(const uint8_t secret[32], const char *label, uint8_t *to, size_t len)
{
    uint8_t info[64] = {0, (uint8_t)len, (uint8_t)(6 + strlen(label))};

    memcpy(info + 3, "tls13 ", 6);
    memcpy(info + 9, label, strlen(label));
    hkdf(EVP_KDF_HKDF_MODE_EXPAND_ONLY, secret, 32, NULL, 0, info, 10 + strlen(label), to, len);
}

struct keys {
    uint8_t key[16], iv[12], header[16];
};

static struct keys keys_of(const struct quic_client *client)
{
    static const uint8_t salt_1[] = "\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c"
                                    "\xad\xcc\xbb\x7f\x0a";
    static const uint8_t salt_2[] = "\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d"
                                    "\xcb\xf9\xbd\x2e\xd9";
    bool v2 = client->version == QUIC_VERSION_2;
    uint8_t initial[32], secret[32];
    struct keys keys;

    hkdf(EVP_KDF_HKDF_MODE_EXTRACT_ONLY, client->origin.bytes, client->origin.len,
         v2 ? salt_2 : salt_1, 20, NULL, 0, initial, sizeof initial);
    expand(initial, "client in", secret, sizeof secret);
    expand(secret, v2 ? "quicv2 key" : "quic key", keys.key, sizeof keys.key);
    expand(secret, v2 ? "quicv2 iv" : "quic iv", keys.iv, sizeof keys.iv);
    expand(secret, v2 ? "quicv2 hp" : "quic hp", keys.header, sizeof keys.header);
    return keys;
}

/* ---- packets ---- */

static size_t write_header(struct datagram *d, const struct quic_client *client, unsigned type,
                           size_t pn_len, size_t body)
{
    struct writer w = writer_of(d->bytes + d->len, sizeof d->bytes - d->len);
    unsigned shift = client->version == QUIC_VERSION_2;

    writer_u8(&w, (uint8_t)((client->greased ? 0x80 : 0xc0) | ((type + shift) & 3) << 4 |
                            (pn_len ? pn_len - 1 : 0)));
    writer_be32(&w, client->version);
    writer_u8(&w, client->dcid.len);
    writer_bytes(&w, client->dcid.bytes, client->dcid.len);
    writer_u8(&w, 4);
    writer_be32(&w, 0x01020304);
    if (type == 0) {
        writer_be16(&w, (uint16_t)(0x4000 | client->token_len));
        writer_zeros(&w, client->token_len);
    }
    if (type != 3)
        writer_be16(&w, (uint16_t)(0x4000 | (pn_len + body)));
    assert_true(writer_ok(&w));
    return w.len;
}

void add_other(struct datagram *d, const struct quic_client *client, unsigned type, size_t len)
{
    d->len += write_header(d, client, type, 0, len);
    assert_true(len <= sizeof d->bytes - d->len);
    memset(d->bytes + d->len, 0x55, len);
    d->len += len;
}

static void seal(const struct keys *keys, uint64_t number, uint8_t *packet, size_t header_len,
                 const uint8_t *payload, size_t len)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t nonce[12];
    int n;

    memcpy(nonce, keys->iv, sizeof nonce);
    for (int i = 0; i < 8; i++)
        nonce[11 - i] ^= (uint8_t)(number >> (8 * i));
    assert_int_equal(EVP_EncryptInit_ex2(ctx, EVP_aes_128_gcm(), keys->key, nonce, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, packet, (int)header_len), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, packet + header_len, &n, payload, (int)len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, packet + header_len + n, &n), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, packet + header_len + len),
                     1);
    EVP_CIPHER_CTX_free(ctx);
}

static void mask(const struct keys *keys, uint8_t *packet, size_t pn_at, unsigned pn_len)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t bytes[32];
    int n;

    assert_int_equal(EVP_EncryptInit_ex2(ctx, EVP_aes_128_ecb(), keys->header, NULL, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, bytes, &n, packet + pn_at + 4, 16), 1);
    packet[0] ^= bytes[0] & 0x0f;
    for (unsigned i = 0; i < pn_len; i++)
        packet[pn_at + i] ^= bytes[1 + i];
    EVP_CIPHER_CTX_free(ctx);
}

void add_initial(struct datagram *d, struct quic_client *client, const uint8_t *payload, size_t len)
{
    uint8_t *packet = d->bytes + d->len, padded[2048] = {0};
    struct keys keys = keys_of(client);
    size_t pn_at, whole = len < 20 ? 20 : len;

    assert_true(len <= sizeof padded);
    if (len != 0)
        memcpy(padded, payload, len);
    pn_at = write_header(d, client, 0, client->pn_len, whole + 16);
    for (unsigned i = 0; i < client->pn_len; i++)
        packet[pn_at + i] = (uint8_t)(client->number >> (8 * (client->pn_len - 1 - i)));
    seal(&keys, client->number++, packet, pn_at + client->pn_len, padded, whole);
    mask(&keys, packet, pn_at, client->pn_len);
    d->len += pn_at + client->pn_len + whole + 16;
    assert_true(d->len <= sizeof d->bytes);
}

size_t crypto_frame(uint8_t *to, uint64_t offset, const uint8_t *bytes, size_t len)
{
    struct writer w = writer_of(to, 7 + len);

    writer_u8(&w, 6);
    writer_be32(&w, 0x80000000u | (uint32_t)offset);
    writer_be16(&w, (uint16_t)(0x4000 | len));
    writer_bytes(&w, bytes, len);
    assert_true(writer_ok(&w));
    return w.len;
}

void add_crypto(struct datagram *d, struct quic_client *client, uint64_t offset,
                const uint8_t *bytes, size_t len)
{
    uint8_t payload[2048];

    assert_true(len + 7 <= sizeof payload);
    add_initial(d, client, payload, crypto_frame(payload, offset, bytes, len));
}

/* ---- hellos ---- */

size_t client_hello(uint8_t *to, size_t capacity, const char *name, size_t extra)
{
    struct writer w = writer_of(to, capacity);
    size_t name_len = name ? strlen(name) : 0, extensions = (name ? 9 + name_len : 0) + 4 + extra;

    writer_u8(&w, 1);
    writer_u8(&w, 0);
    writer_be16(&w, (uint16_t)(2 + 32 + 1 + 4 + 2 + 2 + extensions));
    writer_be16(&w, 0x0303);
    writer_zeros(&w, 32 + 1);
    writer_be16(&w, 2);
    writer_be16(&w, 0x1301);
    writer_be16(&w, 0x0100);
    writer_be16(&w, (uint16_t)extensions);
    if (name) {
        writer_be16(&w, 0);
        writer_be16(&w, (uint16_t)(name_len + 5));
        writer_be16(&w, (uint16_t)(name_len + 3));
        writer_u8(&w, 0);
        writer_be16(&w, (uint16_t)name_len);
        writer_bytes(&w, name, name_len);
    }
    writer_be16(&w, 21);
    writer_be16(&w, (uint16_t)extra);
    writer_zeros(&w, extra);
    assert_true(writer_ok(&w));
    return w.len;
}
