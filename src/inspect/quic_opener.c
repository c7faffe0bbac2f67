/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/quic_opener.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "wire/bytes.h"

#define SECRET_LEN 32 /* SHA-256 */
#define KEY_LEN    16
#define IV_LEN     12
#define TAG_LEN    16
#define SAMPLE_LEN 16
#define PN_MAX     4
#define BYTES_MAX  65536

struct quic_opener {
    EVP_CIPHER *gcm, *ecb;
    EVP_CIPHER_CTX *packet_ctx, *mask_ctx;
    EVP_MAC_CTX *hmac;
    uint8_t payloads[2][BYTES_MAX], *payload; /* used in turn */
};

struct keys {
    uint8_t key[KEY_LEN], iv[IV_LEN], header[KEY_LEN];
};

/* RFC 9001, 5.2; RFC 9369, 3.3 */
static const struct version {
    uint8_t salt[20];
    const char *key_label, *iv_label, *header_label;
} VERSION_1 = {{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
                0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a},
               "quic key",
               "quic iv",
               "quic hp"},
  VERSION_2 = {{0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93,
                0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9},
               "quicv2 key",
               "quicv2 iv",
               "quicv2 hp"};

/* ---- beginning and end ---- */

static EVP_MAC_CTX *hmac_new(void)
{
    EVP_MAC *mac = EVP_MAC_fetch(NULL, OSSL_MAC_NAME_HMAC, NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    EVP_MAC_free(mac); /* the context holds it */
    if (ctx && EVP_MAC_CTX_set_params(ctx, params) != 1) {
        EVP_MAC_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

struct quic_opener *quic_opener_new(void)
{
    struct quic_opener *opener = calloc(1, sizeof *opener);

    if (!opener)
        return NULL;
    opener->gcm = EVP_CIPHER_fetch(NULL, "AES-128-GCM", NULL);
    opener->ecb = EVP_CIPHER_fetch(NULL, "AES-128-ECB", NULL);
    opener->packet_ctx = EVP_CIPHER_CTX_new();
    opener->mask_ctx = EVP_CIPHER_CTX_new();
    opener->hmac = hmac_new();
    if (!opener->gcm || !opener->ecb || !opener->packet_ctx || !opener->mask_ctx || !opener->hmac) {
        quic_opener_free(opener);
        errno = ENOSYS;
        return NULL;
    }
    return opener;
}

struct quic_opener *quic_opener_free(struct quic_opener *opener)
{
    if (!opener)
        return NULL;
    EVP_CIPHER_free(opener->gcm);
    EVP_CIPHER_free(opener->ecb);
    EVP_CIPHER_CTX_free(opener->packet_ctx);
    EVP_CIPHER_CTX_free(opener->mask_ctx);
    EVP_MAC_CTX_free(opener->hmac);
    free(opener);
    return NULL;
}

/* ---- keys ---- */

static bool hmac(struct quic_opener *opener, const uint8_t *key, size_t key_len, const void *bytes,
                 size_t len, uint8_t to[SECRET_LEN])
{
    size_t written;

    return EVP_MAC_init(opener->hmac, key, key_len, NULL) == 1 &&
           EVP_MAC_update(opener->hmac, bytes, len) == 1 &&
           EVP_MAC_final(opener->hmac, to, &written, SECRET_LEN) == 1;
}

/* HKDF-Expand-Label with an empty context (RFC 8446, 7.1; RFC 5869, 2.3): what is asked for never
 * exceeds the first block. */
static bool expand_label(struct quic_opener *opener, const uint8_t secret[SECRET_LEN],
                         const char *label, uint8_t *to, size_t len)
{
    static const char prefix[] = "tls13 ";
    uint8_t info[64], block[SECRET_LEN];
    size_t label_len = strlen(label), prefix_len = sizeof prefix - 1, n = 0;

    store_be16(info, (uint16_t)len);
    info[2] = (uint8_t)(prefix_len + label_len);
    memcpy(info + 3, prefix, prefix_len);
    n = 3 + prefix_len;
    memcpy(info + n, label, label_len);
    n += label_len;
    info[n++] = 0; /* the context's length */
    info[n++] = 1; /* the block's number */
    if (!hmac(opener, secret, SECRET_LEN, info, n, block))
        return false;
    memcpy(to, block, len);
    return true;
}

static bool derive_keys(struct quic_opener *opener, uint32_t version, const struct quic_cid *origin,
                        struct keys *ret)
{
    const struct version *v = version == QUIC_VERSION_2 ? &VERSION_2 : &VERSION_1;
    uint8_t initial[SECRET_LEN], client[SECRET_LEN];

    return hmac(opener, v->salt, sizeof v->salt, origin->bytes, origin->len, initial) &&
           expand_label(opener, initial, "client in", client, sizeof client) &&
           expand_label(opener, client, v->key_label, ret->key, sizeof ret->key) &&
           expand_label(opener, client, v->iv_label, ret->iv, sizeof ret->iv) &&
           expand_label(opener, client, v->header_label, ret->header, sizeof ret->header);
}

/* ---- packets ---- */

/* RFC 9001, 5.4: the mask of the header is the sample's encryption. */
static bool make_mask(struct quic_opener *opener, const struct keys *keys, const uint8_t *sample,
                      uint8_t mask[SAMPLE_LEN])
{
    int len;

    return EVP_EncryptInit_ex2(opener->mask_ctx, opener->ecb, keys->header, NULL, NULL) == 1 &&
           EVP_EncryptUpdate(opener->mask_ctx, mask, &len, sample, SAMPLE_LEN) == 1 &&
           len == SAMPLE_LEN;
}

/* RFC 9000, A.3: the number nearest to the next expected one that ends in these bytes. */
static uint64_t whole_number(int64_t largest, uint32_t truncated, size_t pn_len)
{
    uint64_t expected = (uint64_t)(largest + 1), window = 1ull << (8 * pn_len);
    uint64_t candidate = (expected & ~(window - 1)) | truncated;

    if (candidate + window / 2 <= expected && candidate < (1ull << 62) - window)
        return candidate + window;
    if (candidate > expected + window / 2 && candidate >= window)
        return candidate - window;
    return candidate;
}

struct header {
    uint8_t first;
    uint8_t pn[PN_MAX];
    size_t pn_len;
    uint64_t number;
};

static void unmask_header(const uint8_t *bytes, const struct quic_packet *packet,
                          const uint8_t *mask, int64_t largest, struct header *ret)
{
    uint32_t truncated = 0;

    ret->first = (uint8_t)(bytes[0] ^ (mask[0] & 0x0f));
    ret->pn_len = (ret->first & 3u) + 1;
    for (size_t i = 0; i < ret->pn_len; i++) {
        ret->pn[i] = (uint8_t)(bytes[packet->pn_offset + i] ^ mask[1 + i]);
        truncated = truncated << 8 | ret->pn[i];
    }
    ret->number = whole_number(largest, truncated, ret->pn_len);
}

/* RFC 9001, 5.3: AEAD over header and payload; the nonce is the number over the IV. */
static bool open_payload(struct quic_opener *opener, const struct keys *keys, const uint8_t *bytes,
                         const struct quic_packet *packet, const struct header *header, size_t len)
{
    EVP_CIPHER_CTX *ctx = opener->packet_ctx;
    const uint8_t *sealed = bytes + packet->pn_offset + header->pn_len;
    uint8_t nonce[IV_LEN], tag[TAG_LEN];
    int n;

    memcpy(nonce, keys->iv, sizeof nonce);
    for (size_t i = 0; i < 8; i++)
        nonce[IV_LEN - 1 - i] ^= (uint8_t)(header->number >> (8 * i));
    memcpy(tag, sealed + len, sizeof tag);
    return EVP_DecryptInit_ex2(ctx, opener->gcm, keys->key, nonce, NULL) == 1 &&
           EVP_DecryptUpdate(ctx, NULL, &n, &header->first, 1) == 1 &&
           EVP_DecryptUpdate(ctx, NULL, &n, bytes + 1, (int)packet->pn_offset - 1) == 1 &&
           EVP_DecryptUpdate(ctx, NULL, &n, header->pn, (int)header->pn_len) == 1 &&
           EVP_DecryptUpdate(ctx, opener->payload, &n, sealed, (int)len) == 1 &&
           EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) == 1 &&
           EVP_DecryptFinal_ex(ctx, opener->payload + n, &n) == 1;
}

int quic_opener_open(struct quic_opener *opener, const struct quic_cid *origin,
                     const uint8_t *bytes, const struct quic_packet *packet, int64_t *largest,
                     const uint8_t **ret_payload, size_t *ret_len)
{
    size_t rest = packet->length - packet->pn_offset, len;
    uint8_t mask[SAMPLE_LEN];
    struct header header;
    struct keys keys;

    if (rest < PN_MAX + SAMPLE_LEN || packet->length > BYTES_MAX ||
        !derive_keys(opener, packet->version, origin, &keys) ||
        !make_mask(opener, &keys, bytes + packet->pn_offset + PN_MAX, mask))
        return -EBADMSG;
    unmask_header(bytes, packet, mask, *largest, &header);
    opener->payload = opener->payloads[opener->payload == opener->payloads[0]];
    len = rest - header.pn_len - TAG_LEN;
    if (!open_payload(opener, &keys, bytes, packet, &header, len))
        return -EBADMSG;
    if ((int64_t)header.number > *largest)
        *largest = (int64_t)header.number;
    *ret_payload = opener->payload;
    *ret_len = len;
    return 0;
}
