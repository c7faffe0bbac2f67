# SPDX-License-Identifier: Apache-2.0
"""A QUIC client's Initials, byte by byte (RFC 9000, 9001, 9369), for what no real client would
send. Ciphers are libcrypto's."""

import ctypes
import ctypes.util
import hashlib
import hmac
import struct

from outside import client_hello

V1, V2 = 1, 0x6b3343cf
_SALTS = {V1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
          V2: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9")}
_crypto = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
for _name in ("EVP_CIPHER_CTX_new", "EVP_aes_128_gcm", "EVP_aes_128_ecb"):
    getattr(_crypto, _name).restype = ctypes.c_void_p
_GCM_GET_TAG = 16


def _encrypt(cipher, key, nonce, text, associated=b"", tag=0):
    context = ctypes.c_void_p(_crypto.EVP_CIPHER_CTX_new())
    out, n = ctypes.create_string_buffer(len(text) + 32), ctypes.c_int()
    try:
        assert _crypto.EVP_EncryptInit_ex(context, ctypes.c_void_p(cipher), None, key, nonce) == 1
        if associated:
            assert _crypto.EVP_EncryptUpdate(context, None, ctypes.byref(n), associated,
                                             len(associated)) == 1
        assert _crypto.EVP_EncryptUpdate(context, out, ctypes.byref(n), text, len(text)) == 1
        sealed = out.raw[:n.value]
        if tag:
            assert _crypto.EVP_EncryptFinal_ex(context, out, ctypes.byref(n)) == 1
            assert _crypto.EVP_CIPHER_CTX_ctrl(context, _GCM_GET_TAG, tag, out) == 1
            sealed += out.raw[:tag]
        return sealed
    finally:
        _crypto.EVP_CIPHER_CTX_free(context)


def _expand(secret, label, length):
    label = b"tls13 " + label
    info = struct.pack("!HB", length, len(label)) + label + b"\0"
    return hmac.new(secret, info + b"\1", hashlib.sha256).digest()[:length]


def _varint(value):
    return struct.pack("!I", 0x80000000 | value)


def crypto_frame(offset, data):
    return b"\6" + _varint(offset) + _varint(len(data)) + data


def hello(name, extra=0):
    """A ClientHello's message without its record; `extra` bytes longer."""
    message = client_hello(name)[5:]
    if not extra:
        return message
    padding = struct.pack("!HH", 21, extra) + bytes(extra)
    body = bytearray(message[4:])
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at:at + 2], "big")
    at += 1 + body[at]
    size = int.from_bytes(body[at:at + 2], "big") + len(padding)
    body[at:at + 2] = struct.pack("!H", size)
    body += padding
    return message[:1] + len(body).to_bytes(3, "big") + bytes(body)


class Client:
    """One connection's client."""

    def __init__(self, origin, version=V1):
        self.version, self.number, self.token = version, 0, b""
        self.dcid = self.origin = origin
        self._keys()

    def retry(self, origin, token):
        """As a server's Retry makes it begin anew."""
        self.dcid = self.origin = origin
        self.token = token
        self._keys()

    def _keys(self):
        initial = hmac.new(_SALTS[self.version], self.origin, hashlib.sha256).digest()
        secret = _expand(initial, b"client in", 32)
        prefix = b"quicv2 " if self.version == V2 else b"quic "
        self.key = _expand(secret, prefix + b"key", 16)
        self.iv = _expand(secret, prefix + b"iv", 12)
        self.header_key = _expand(secret, prefix + b"hp", 16)

    def initial(self, payload, size=1200):
        """A packet with this payload, padded so that a datagram of it alone has `size` bytes."""
        first = 0xc0 | (0x10 if self.version == V2 else 0) | 3
        head = bytes([first]) + struct.pack("!IB", self.version, len(self.dcid)) + self.dcid + \
            b"\4mine" + _varint(len(self.token)) + self.token
        payload += bytes(max(0, size - len(head) - 4 - 4 - 16 - len(payload)))
        head += _varint(4 + len(payload) + 16)
        pn = struct.pack("!I", self.number)
        nonce = (int.from_bytes(self.iv, "big") ^ self.number).to_bytes(12, "big")
        self.number += 1
        sealed = _encrypt(_crypto.EVP_aes_128_gcm(), self.key, nonce, payload, head + pn, 16)
        mask = _encrypt(_crypto.EVP_aes_128_ecb(), self.header_key, None, sealed[:16])
        return bytes([head[0] ^ mask[0] & 15]) + head[1:] + \
            bytes(a ^ b for a, b in zip(pn, mask[1:5])) + sealed

    def hello(self, name, extra=0, pieces=1):
        """The datagrams that carry a hello for `name`."""
        message = hello(name, extra)
        size = -(-len(message) // pieces)
        return [self.initial(crypto_frame(i, message[i:i + size]))
                for i in range(0, len(message), size)]
