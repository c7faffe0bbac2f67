# SPDX-License-Identifier: Apache-2.0
"""Frames made by hand, right ones and wrong ones, and a TCP that obeys nobody (RawTcp)."""

import os
import random
import select
import socket
import struct
import time

from lab import GATEWAY_MAC, GUEST4, GUEST6, check

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


def internet_checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def ethernet(payload, source, kind=None, destination=GATEWAY_MAC):
    if kind is None:
        kind = 0x86dd if payload[0] >> 4 == 6 else 0x0800
    return destination + source + struct.pack("!H", kind) + payload


def ipv4(payload, source=GUEST4, destination="93.184.216.34", protocol=6, *, version=4, options=b"",
         words=None, length=None, ident=0, fragment=0x4000, ttl=64, checksum=None):
    words = 5 + len(options) // 4 if words is None else words
    length = 20 + len(options) + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH", version << 4 | words, 0, length, ident, fragment, ttl, protocol,
                       0) + packed(source) + packed(destination) + options
    value = internet_checksum(head) if checksum is None else checksum
    return head[:10] + struct.pack("!H", value) + head[12:] + payload


def ipv6(payload, source=GUEST6, destination="2606:2800:220:1::34", protocol=6, *, version=6,
         length=None, hops=64):
    return struct.pack("!IHBB", version << 28, len(payload) if length is None else length, protocol,
                       hops) + packed(source) + packed(destination) + payload


def pseudo(source, destination, protocol, length):
    if ":" in source:
        return packed(source) + packed(destination) + struct.pack("!II", length, protocol)
    return packed(source) + packed(destination) + struct.pack("!HH", protocol, length)


def tcp(source_port, destination_port, seq=0, ack=0, flags=SYN, window=65535, payload=b"", *,
        options=b"", words=None, checksum=None, urgent=0, source=GUEST4,
        destination="93.184.216.34"):
    words = 5 + len(options) // 4 if words is None else words
    head = struct.pack("!HHIIBBHHH", source_port, destination_port, seq & 0xffffffff,
                       ack & 0xffffffff, words << 4, flags, window, 0, urgent) + options
    whole = head + payload
    if checksum is None:
        checksum = internet_checksum(pseudo(source, destination, 6, len(whole)) + whole)
    return whole[:16] + struct.pack("!H", checksum) + whole[18:]


class RawTcp:
    """A TCP client in the guest that sends what the test says. The guest's kernel, which knows
    nothing of it, is kept from answering."""

    def __init__(self, guest, remote, port, local_port=None):
        self.guest, self.remote, self.port = guest, remote, port
        self.local = GUEST6 if ":" in remote else GUEST4
        self.local_port = local_port or random.randrange(1024, 30000)
        self.mac = guest.mac()
        guest.net.filter_output(f"tcp sport {self.local_port} drop")
        self.wire = guest.wire()
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.seq = int.from_bytes(os.urandom(4), "big")
        self.ack = 0

    def send(self, flags=ACK, payload=b"", *, seq=None, ack=None, **fields):
        segment = tcp(self.local_port, self.port, self.seq if seq is None else seq,
                      self.ack if ack is None else ack, flags, payload=payload, source=self.local,
                      destination=self.remote, **fields)
        make = ipv6 if ":" in self.remote else ipv4
        self.wire.send(ethernet(make(segment, self.local, self.remote), self.mac))

    def receive(self, seconds=5.0):
        """(flags, seq, ack, window, payload) of the next segment of this connection; None: none."""
        end = time.monotonic() + seconds
        while select.select([self.wire], [], [], max(0, end - time.monotonic()))[0]:
            frame, sender = self.wire.recvfrom(70000)
            segment = None if sender[2] == socket.PACKET_OUTGOING else self.parse(frame)
            if segment:
                return segment
        return None

    def parse(self, frame):
        packet = frame[14:]
        if packet[0] >> 4 == 4:
            payload, protocol = packet[(packet[0] & 15) * 4:], packet[9]
            payload = payload[:struct.unpack("!H", packet[2:4])[0] - (packet[0] & 15) * 4]
        else:
            payload, protocol = packet[40:40 + struct.unpack("!H", packet[4:6])[0]], packet[6]
        if protocol != 6:
            return None
        source, destination, seq, ack, words, flags, window = struct.unpack("!HHIIBBH",
                                                                            payload[:16])
        if (source, destination) != (self.port, self.local_port):
            return None
        return flags, seq, ack, window, payload[(words >> 4) * 4:]

    def connect(self, window=65535, options=b""):
        self.send(SYN, ack=0, window=window, options=options)
        self.seq += 1
        segment = self.receive()
        check(segment and segment[0] == SYN | ACK, f"no SYN-ACK but {segment}")
        self.ack = segment[1] + 1
        self.send(ACK, window=window)
        return segment
