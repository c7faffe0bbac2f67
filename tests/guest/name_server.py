# SPDX-License-Identifier: Apache-2.0
"""A resolver outside whose every answer is the test's own, by UDP and TCP, and that remembers what
it was asked to the byte.

    with NameServer(lab, "93.184.216.37", lambda query: query.reply([address("1.2.3.4")])) as server:
        ...; server.seen[0].message

Every query is answered in a thread of its own, so an answer may wait for whatever the test likes.
What the function returns is sent: bytes, several (a list), or nothing (None)."""

import os
import socket
import struct
import subprocess
import threading

A, NS, SOA, TXT, AAAA, OPT, RRSIG, NSEC = 1, 2, 6, 16, 28, 41, 46, 47
NOERROR, FORMERR, SERVFAIL, NXDOMAIN = 0, 1, 2, 3
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010


def wire_name(text):
    """Plain names only."""
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + \
        b"\0"


def question(number, name, kind=A, flags=RD, extra=b""):
    """A message that asks; `name` as text or in wire form."""
    name = name if isinstance(name, bytes) else wire_name(name)
    return struct.pack("!6H", number, flags, 1, 0, 0, 1 if extra else 0) + name + \
        struct.pack("!2H", kind, 1) + extra


def record(kind, data, ttl=60, name=b"\xc0\x0c"):
    """Of the question's name, unless told."""
    return name + struct.pack("!2HIH", kind, 1, ttl, len(data)) + data


def address(text, **options):
    if ":" in text:
        return record(AAAA, socket.inet_pton(socket.AF_INET6, text), **options)
    return record(A, socket.inet_aton(text), **options)


def soa(name, ttl=60, minimum=60):
    return record(SOA, b"\0\0" + struct.pack("!5I", 1, 60, 60, 600, minimum), ttl, name)


def opt(options=b"", size=1232, do=False):
    return b"\0" + struct.pack("!2HIH", OPT, size, 0x8000 if do else 0, len(options)) + options


class Query:
    """As it came, and what is in it."""

    def __init__(self, message, source, transport):
        self.message, self.source, self.transport = message, source, transport
        self.id, self.flags, *self.counts = struct.unpack("!6H", message[:12])
        end = 12
        while message[end]:
            end += message[end] + 1
        self.name = message[12:end + 1]  # in wire form, its case as it came
        self.kind, self.qclass = struct.unpack("!2H", message[end + 1:end + 5])
        self.question = message[12:end + 5]
        self.rest = message[end + 5:]  # OPT
        self.do = bool(self.rest) and bool(struct.unpack("!H", self.rest[7:9])[0] & 0x8000)

    @property
    def text(self):
        """The name in lower case."""
        labels, at = [], 0
        while self.name[at]:
            labels.append(self.name[at + 1:at + 1 + self.name[at]].decode("latin-1").lower())
            at += self.name[at] + 1
        return ".".join(labels)

    def reply(self, answer=(), authority=(), additional=(), flags=RA, rcode=NOERROR,
              number=None, asked=None):
        """A response with these records; `number` and `asked` forge its id and question."""
        sections = (answer, authority, additional)
        return struct.pack("!6H", self.id if number is None else number,
                           QR | flags | self.flags & RD | rcode, 1, *map(len, sections)) + \
            (self.question if asked is None else asked) + b"".join(b"".join(s) for s in sections)


class NameServer:
    def __init__(self, lab, where, answer, port=53):
        self.lab, self.answer, self.where, self.seen = lab, answer, where, []
        self.closed = False
        self.lock = threading.Lock()
        lab.has(where + "/32")
        self.udp = lab.internet.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.settimeout(None)
        self.udp.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        self.udp.bind((where, port))
        self.tcp = lab.internet.listen(where, port)
        self.tcp.settimeout(None)
        self.threads = [threading.Thread(target=serve, daemon=True)
                        for serve in (self._serve_udp, self._serve_tcp)]
        for thread in self.threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True
        with self.lab.internet.socket(socket.AF_INET, socket.SOCK_DGRAM) as bell:
            bell.sendto(b"", self.udp.getsockname())  # wakes whoever waits
        self.tcp.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()

    def asked(self, name):
        """The queries for it so far."""
        with self.lock:
            return [query for query in self.seen if query.text == name]

    def _answer(self, query, send):
        with self.lock:
            self.seen.append(query)

        def body():
            replies = self.answer(query)
            try:
                for reply in replies if isinstance(replies, list) else [replies]:
                    if reply is not None:
                        send(reply)
            except OSError:
                pass  # whoever asked is gone
        threading.Thread(target=body, daemon=True).start()

    def _serve_udp(self):
        while not self.closed:
            message, source = self.udp.recvfrom(65536)
            if message:
                self._answer(Query(message, source, "udp"),
                             lambda reply, to=source: self.udp.sendto(reply, to))

    def _serve_tcp(self):
        while True:
            try:
                connection, source = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_connection, args=(connection, source),
                             daemon=True).start()

    def _serve_connection(self, connection, source):
        def send(reply):
            with self.lock:
                connection.sendall(struct.pack("!H", len(reply)) + reply)
        try:
            with connection, connection.makefile("rb") as stream:
                while len(length := stream.read(2)) == 2:
                    message = stream.read(*struct.unpack("!H", length))
                    self._answer(Query(message, source, "tcp"), send)
        except OSError:
            pass


# ---- a signed zone ----


def sign_zone(folder, origin, lines):
    """Signs a zone of these lines; returns (its records, the path of its key)."""
    def ldns(*words):
        return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout
    key = ldns("ldns-keygen", "-a", "ECDSAP256SHA256", origin).strip()
    with open(os.path.join(folder, "zone"), "w", encoding="ascii") as file:
        file.write(f"$ORIGIN {origin}.\n$TTL 60\n" + "\n".join(lines) + "\n")
    ldns("ldns-signzone", "-e", "20360101", "zone", key)
    # all types but one that is not there in the form of RFC 3597: bytes
    text = ldns("ldns-read-zone", "-U", "HINFO", "zone.signed")
    return [zone_record(line) for line in text.splitlines()], os.path.join(folder, key + ".key")


def zone_record(line):
    """(name, type, record in wire form)"""
    name, ttl, _, kind, _, _, *data = line.split()
    number = int(kind.removeprefix("TYPE"))
    name = name.rstrip(".").lower()
    return name, number, record(number, bytes.fromhex("".join(data)), int(ttl), wire_name(name))


def zone_answer(records):
    """A function that answers from a signed zone, like a validating resolver: with AD, and with
    signatures for those who ask for them."""
    def covers(name, kind, wanted):
        return name == wanted[0] and kind == wanted[1]

    def with_signatures(wanted, do):
        found = [wire for name, kind, wire in records if covers(name, kind, wanted)]
        covered = struct.pack("!H", wanted[1])
        signatures = [wire for name, kind, wire in records if do and name == wanted[0] and
                      kind == RRSIG and wire[len(wire_name(name)) + 10:][:2] == covered]
        return found + signatures

    def answer(query):
        flags = RA | (AD if query.do or query.flags & AD else 0)
        extra = [opt(do=query.do)] if query.rest else []
        found = with_signatures((query.text, query.kind), query.do)
        if found:
            return query.reply(found, additional=extra, flags=flags)
        exists = any(name == query.text for name, _, _ in records)
        origin = next(name for name, kind, _ in records if kind == SOA)
        denial = with_signatures((origin, SOA), query.do)
        for name in dict.fromkeys(name for name, _, _ in records) if query.do else ():
            denial += with_signatures((name, NSEC), True)
        return query.reply(authority=denial, additional=extra, flags=flags,
                           rcode=NOERROR if exists else NXDOMAIN)
    return answer
