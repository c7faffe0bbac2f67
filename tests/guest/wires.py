# SPDX-License-Identifier: Apache-2.0
"""A guest of a few lines: frames made by hand, on the sockets that VMMs use."""

import select
import socket
import struct
import time

from frames import ethernet, internet_checksum, ipv4, packed
from lab import DEADLINE, GATEWAY4, GUEST4

GUEST_MAC = bytes.fromhex("020000000064")
BROADCAST = b"\xff" * 6


def arp_request(target=GATEWAY4, source=GUEST4):
    return ethernet(struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, GUEST_MAC, packed(source),
                                bytes(6), packed(target)), GUEST_MAC, 0x0806, BROADCAST)


def is_arp_reply(frame):
    return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2"


def ping(sequence, size=32, destination=GATEWAY4):
    body = struct.pack("!BBHHH", 8, 0, 0, 77, sequence) + b"p" * size
    body = body[:2] + struct.pack("!H", internet_checksum(body)) + body[4:]
    return ethernet(ipv4(body, destination=destination, protocol=1), GUEST_MAC)


def is_ping_reply(frame):
    return frame[12:14] == b"\x08\0" and frame[23] == 1 and frame[34] == 0


def undone_tcp(flags, port, destination_port, sequence, acknowledged, data=b""):
    """A segment whose checksum is left undone, as guests do that leave it to their device."""
    return ethernet(ipv4(struct.pack("!HHIIBBHHH", port, destination_port, sequence, acknowledged,
                                     0x50, flags, 65535, 0xbeef, 0) + data, destination=GATEWAY4),
                    GUEST_MAC)


def tcp_parts(frame):
    """(flags, sequence, acknowledged, data) of a TCP segment over IPv4, or None."""
    if frame[12:14] != b"\x08\0" or frame[23] != 6:
        return None
    end = 14 + struct.unpack("!H", frame[16:18])[0]
    sequence, acknowledged, offset, flags = struct.unpack("!IIBB", frame[38:48])
    return flags, sequence, acknowledged, frame[34 + (offset >> 4) * 4:end]


class _Wire:
    """Sends and receives frames; ends with `with`."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def receive_until(self, wanted, seconds=DEADLINE):
        """The first frame that is wanted; others are passed over. None: the deadline."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            frame = self.receive(left) if left > 0 else None
            if frame is None or wanted(frame):
                return frame

    def lives(self):
        """ARP is answered."""
        self.send(arp_request())
        return self.receive_until(is_arp_reply) is not None


class StreamWire(_Wire):
    """Length-prefixed frames on a connected stream socket."""

    def __init__(self, where):
        if isinstance(where, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(where)
        else:
            self.socket = where
        self.socket.settimeout(DEADLINE)
        self.bytes = b""

    def send(self, *frames):
        self.socket.sendall(b"".join(struct.pack("!I", len(f)) + f for f in frames))

    def _take(self):
        if len(self.bytes) < 4:
            return None
        length = struct.unpack("!I", self.bytes[:4])[0]
        if len(self.bytes) < 4 + length:
            return None
        frame, self.bytes = self.bytes[4:4 + length], self.bytes[4 + length:]
        return frame

    def receive(self, seconds=DEADLINE):
        """A frame; None: the deadline. EOFError: the other side is gone."""
        end = time.monotonic() + seconds
        while True:
            frame = self._take()
            if frame is not None:
                return frame
            if not select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]:
                return None
            chunk = self.socket.recv(1 << 18)
            if not chunk:
                raise EOFError
            self.bytes += chunk

    def is_closed(self, seconds=DEADLINE):
        try:
            while self.receive(seconds) is not None:
                pass
        except (EOFError, ConnectionResetError):
            return True
        return False


class DatagramWire(_Wire):
    """A frame a datagram, from a socket bound to `path`; connected to the other one like libkrun's,
    or not like QEMU's."""

    def __init__(self, where, path=None, connected=False):
        self.where, self.connected = where, connected
        if isinstance(where, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            if path:
                self.socket.bind(path)
            if connected:
                self.socket.connect(where)
        else:
            self.socket, self.connected = where, True
        self.socket.settimeout(DEADLINE)

    def send(self, *frames):
        for frame in frames:
            if self.connected:
                self.socket.send(frame)
            else:
                self.socket.sendto(frame, self.where)

    def receive(self, seconds=DEADLINE):
        if not select.select([self.socket], [], [], max(0, seconds))[0]:
            return None
        return self.socket.recv(1 << 17)
