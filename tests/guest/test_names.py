#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""Rules by name, end to end: what an allow-list of names lets through and what it does not,
whatever a guest tries."""

import contextlib
import errno
import fcntl
import glob
import os
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time

import quic
from frames import ACK, PSH, RST, SYN, RawTcp
from lab import (CULVERT, DEADLINE, GATEWAY4, GUEST4, INTERNET4, SANITIZED, SLOWNESS, Network, Skip,
                 check, equal, fails_with, for_each, main, receive_all, receive_exactly, test)
from outside import (API4, CORP4, MANY4, NOTOK4, WWW4, WWW6, client_hello, curl, dig, outside_of,
                     sandboxed)
from serving import Serve
from wires import StreamWire

RULES = ("deny to *.denied.test", "allow tcp to *.ok.test",
         "allow tcp to front.other.test port 443",
         "allow tcp to git.corp.test port 80 in 10.0.0.0/8")
CLOSED = (errno.ECONNRESET, errno.EPIPE)


def sandbox(lab, *options, rules=RULES, **keywords):
    return sandboxed(lab, *options, rules=rules, **keywords)


def resolve(guest, name, kind="A"):
    """Has the guest learn where the name leads."""
    rcode, data = dig(guest, name, kind)
    equal(rcode, "NOERROR", name)
    return [address for address in data if not address.endswith(".")]


def tls(guest, address, name, port=443, version=None):
    """A whole handshake, unverified; returns the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.maximum_version = version
    return context.wrap_socket(guest.connect(address, port), server_hostname=name)


def request(connection, host):
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    return receive_all(connection).decode()


def is_refused(connection):
    """The guest's end is reset, and nothing came before."""
    fails_with(CLOSED, lambda: equal(connection.recv(1), b"never"))


def tls_is_refused(guest, address, name, port=443):
    try:
        tls(guest, address, name, port).close()
    except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLSyscallError, BrokenPipeError):
        return
    raise AssertionError(f"{name} at {address} was let through")


# ---- what is allowed works ----


@for_each(version=["http1.1", "http2"])
def an_allowed_name_is_served_by_https(lab, version):
    outside, guest = sandbox(lab)
    with guest:
        status, out = curl(outside, guest, "https://www.ok.test/", "--" + version)
        equal(status, 0, out)
        check("sni=www.ok.test" in out, out)
        check(("HTTP/2" if version == "http2" else "HTTP/1.1") in out, out)


@test
def an_allowed_name_is_served_over_ipv6(lab):
    outside, guest = sandbox(lab)
    with guest:
        equal(resolve(guest, "www.ok.test", "AAAA"), [WWW6])
        status, out = curl(outside, guest, "https://www.ok.test/", "-6")
        equal(status, 0, out)
        resolve(guest, "api.ok.test", "AAAA")
        tls_is_refused(guest, WWW6, "shared.denied.test")
        tls_is_refused(guest, WWW6, "api.ok.test")
        tls_is_refused(guest, WWW6, None)


@test
def an_allowed_name_is_served_by_plain_http(lab):
    outside, guest = sandbox(lab)
    with guest:
        status, out = curl(outside, guest, "http://www.ok.test/")
        equal(status, 0, out)
        check("host=www.ok.test" in out, out)


@test
def the_command_itself_finds_names_without_a_rule_for_the_resolver(lab):
    outside = outside_of(lab)
    words = [CULVERT, "run", "--profile", "none", "--rule", "allow tcp to *.ok.test port 443",
             "--dns", INTERNET4, "--"]
    curl_words = ["curl", "-sS", "--max-time", str(DEADLINE), "--cacert", outside.ca]
    with lab.host:
        equal(subprocess.run([*words, *curl_words, "https://www.ok.test/"], timeout=3 * DEADLINE,
                             capture_output=True).returncode, 0)
        denied = subprocess.run([*words, *curl_words, "https://front.other.test/"],
                                timeout=3 * DEADLINE, capture_output=True)
    equal(denied.returncode, 6, "curl: the name could not be resolved")


@test
def an_alias_counts_as_the_name_that_was_asked_for(lab):
    outside, guest = sandbox(lab)
    with guest:
        status, out = curl(outside, guest, "https://alias.ok.test/")
        equal(status, 0, out)


@test
def wildcards_reach_down_and_not_sideways(lab):
    outside, guest = sandbox(lab)
    with guest:
        equal(curl(outside, guest, "https://deep.api.ok.test/")[0], 0)
        equal(dig(guest, "notok.test")[0], "NXDOMAIN")
        fails_with(errno.ECONNREFUSED, guest.connect, NOTOK4, 443)


@test
def a_name_leads_inside_only_where_its_rule_says(lab):
    outside, guest = sandbox(lab)
    lab.host.ip(f"route replace {CORP4}/32 via {INTERNET4}",
                f"route replace 192.168.7.7/32 via {INTERNET4}")
    with guest:
        status, out = curl(outside, guest, "http://git.corp.test/")
        equal(status, 0, out)
        equal(dig(guest, "inside.ok.test"), ("NOERROR", []))
        fails_with(errno.ECONNREFUSED, guest.connect, "192.168.7.7", 80)
        resolve(guest, "www.ok.test")
        with guest.connect(CORP4, 80) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: www.ok.test\r\n\r\n")
            is_refused(connection)


@test
def a_name_given_by_dns_host_leads_there(lab):
    outside, guest = sandbox(lab, "--dns-host", f"db.ok.test={CORP4}")
    lab.host.ip(f"route replace {CORP4}/32 via {INTERNET4}")
    with guest:
        equal(resolve(guest, "db.ok.test"), [CORP4])
        with guest.connect(CORP4, 80) as connection:
            check("200 OK" in request(connection, "db.ok.test"), "served")
        equal(outside.asked("db.ok.test"), 0)


# ---- names that do not belong to the address ----


@test
def another_name_at_an_allowed_address_is_refused(lab):
    _, guest = sandbox(lab)
    with guest:
        equal(resolve(guest, "www.ok.test"), [WWW4])
        tls(guest, WWW4, "www.ok.test").close()
        for name in ("shared.denied.test", "front.other.test", "www.ok.test.evil.test"):
            tls_is_refused(guest, WWW4, name)


@test
def an_allowed_name_at_another_address_is_refused(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "api.ok.test")
        resolve(guest, "www.ok.test")
        tls_is_refused(guest, API4, "www.ok.test")
        fails_with(errno.ECONNREFUSED, guest.connect, NOTOK4, 443)  # pinned to nothing at all
        equal(guest.counters()["policy_denied_unpinned"], 1)


@test
def an_address_shared_with_a_denied_name_serves_the_allowed_one_alone(lab):
    _, guest = sandbox(lab)
    with guest:
        for name in ("www.ok.test", "front.other.test"):
            equal(resolve(guest, name), [WWW4])
            tls(guest, WWW4, name).close()
        equal(dig(guest, "shared.denied.test")[0], "NXDOMAIN")
        tls_is_refused(guest, WWW4, "shared.denied.test")


@for_each(version=["TLSv1_2", "TLSv1_3"])
def a_hello_without_a_name_is_refused(lab, version):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        try:
            tls(guest, WWW4, None, 443, ssl.TLSVersion[version]).close()
        except (ConnectionResetError, ssl.SSLError, BrokenPipeError):
            equal(guest.counters()["policy_denied_unnamed"], 1)
            return
        raise AssertionError("it was let through")


@test
def a_hello_that_names_an_address_is_refused(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 443) as connection:
            hello = client_hello("WWWWWWWWWWWWW").replace(b"WWWWWWWWWWWWW", WWW4.encode())
            connection.sendall(hello)
            is_refused(connection)


@test
def a_literal_address_is_refused_until_a_name_leads_there(lab):
    _, guest = sandbox(lab)
    with guest:
        begun = time.monotonic()
        fails_with(errno.ECONNREFUSED, guest.connect, WWW4, 443)
        check(time.monotonic() - begun < 1, "at once")
        resolve(guest, "www.ok.test")
        tls(guest, WWW4, "www.ok.test").close()
        with guest.connect(WWW4, 80) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {WWW4}\r\n\r\n".encode())
            is_refused(connection)


@test
def plain_http_for_another_host_is_refused(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        for head in ("GET / HTTP/1.1\r\nHost: shared.denied.test\r\n\r\n",
                     "GET http://shared.denied.test/ HTTP/1.1\r\nHost: shared.denied.test\r\n\r\n",
                     "GET http://shared.denied.test/ HTTP/1.1\r\nHost: www.ok.test\r\n\r\n",
                     "CONNECT shared.denied.test:443 HTTP/1.1\r\nHost: shared.denied.test\r\n\r\n",
                     "GET / HTTP/1.0\r\n\r\n",
                     "GET / HTTP/1.1\r\nHost: www.ok.test\r\nHost: shared.denied.test\r\n\r\n",
                     "GET / HTTP/1.1\r\nHost : www.ok.test\r\n\r\n"):
            with guest.connect(WWW4, 80) as connection:
                connection.sendall(head.encode())
                is_refused(connection)
        with guest.connect(WWW4, 80) as connection:
            connection.sendall(b"GET http://www.ok.test/ HTTP/1.1\r\nHost: WWW.ok.test.:80\r\n"
                               b"Connection: close\r\n\r\n")
            check(b"200 OK" in receive_all(connection), "in absolute form it is allowed")


@test
def http2_without_tls_hides_its_names_and_is_refused(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 80) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            is_refused(connection)


@test
def an_outer_name_is_judged_where_the_hello_is_encrypted(lab):
    """A documented limit: the inner name is not seen."""
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        ech = struct.pack("!HH", 0xfe0d, 8) + b"\0\0\1\0\1\7\0\0"
        for name, allowed in (("www.ok.test", True), ("cover.other.test", False)):
            with guest.connect(WWW4, 443) as connection:
                connection.sendall(with_extension(client_hello(name), ech))
                if allowed:
                    check(connection.recv(1), "the server answers")
                else:
                    is_refused(connection)


def with_extension(record, extension):
    """The ClientHello with one more extension in front."""
    hello = bytearray(record[9:])
    at = 34 + 1 + hello[34]
    at += 2 + int.from_bytes(hello[at:at + 2], "big")
    at += 1 + hello[at]
    length = int.from_bytes(hello[at:at + 2], "big") + len(extension)
    hello[at:at + 2] = struct.pack("!H", length) + extension
    message = b"\1" + len(hello).to_bytes(3, "big") + bytes(hello)
    return b"\x16\3\1" + struct.pack("!H", len(message)) + message


# ---- how a hello comes ----


def answer_to(guest, pieces, pause=0.0):
    """What the server says first to a hello that comes in these pieces."""
    with guest.connect(WWW4, 443) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            if pause:
                time.sleep(pause)
        return connection.recv(3)


def split_records(record, size):
    message = record[5:]
    return b"".join(record[:3] + struct.pack("!H", len(message[i:i + size])) + message[i:i + size]
                    for i in range(0, len(message), size))


@test
def a_hello_byte_by_byte_is_read(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        hello = client_hello("www.ok.test")
        equal(answer_to(guest, [hello[i:i + 1] for i in range(len(hello))], 0.001), b"\x16\3\3")
        bad = client_hello("shared.denied.test")
        fails_with(CLOSED, answer_to, guest, [bad[i:i + 1] for i in range(len(bad))], 0.001)


@test
def a_hello_in_many_records_is_read(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        for size in (1, 7, 100):
            equal(answer_to(guest, [split_records(client_hello("www.ok.test"), size)])[:1], b"\x16")
            fails_with(CLOSED, answer_to, guest,
                       [split_records(client_hello("shared.denied.test"), size)])


@test
def unknown_extensions_and_grease_are_passed_over(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        grease = struct.pack("!HH", 0x1a1a, 0) + struct.pack("!HH", 0xeaea, 1) + b"\0"
        equal(answer_to(guest, [with_extension(client_hello("www.ok.test"), grease)]), b"\x16\3\3")


@test
def a_slow_hello_that_comes_in_time_is_read(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        hello = client_hello("www.ok.test")
        third = len(hello) // 3
        equal(answer_to(guest, [hello[:third], hello[third:2 * third], hello[2 * third:]], 1),
              b"\x16\3\3")


@test
def a_hello_that_comes_too_slowly_is_refused(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 443) as connection:
            connection.settimeout(30)
            time.sleep(1)  # time before the first byte does not count
            begun = time.monotonic()
            connection.sendall(client_hello("www.ok.test")[:-1])
            is_refused(connection)
            check(9.9 < time.monotonic() - begun < 12 * SLOWNESS, "after ten seconds")
        equal(guest.counters()["policy_hello_late"], 1)


@test
def a_hello_without_end_is_refused(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 80) as connection:
            try:
                connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 70000)
            except OSError:
                pass
            is_refused(connection)
        equal(guest.counters()["policy_hello_too_large"], 1)


@test
def a_broken_hello_is_refused_even_where_all_else_is_allowed(lab):
    _, guest = sandbox(lab, rules=("deny to *.denied.test", "allow to any"))
    with guest:
        hello = bytearray(client_hello("www.ok.test"))
        hello[9 + 34] = 255  # a session id beyond all bounds
        with guest.connect(WWW4, 443) as connection:
            connection.sendall(hello)
            is_refused(connection)
        equal(guest.counters()["policy_hello_malformed"], 1)
        tls(guest, WWW4, "www.ok.test").close()
        tls_is_refused(guest, WWW4, "shared.denied.test")


@test
def a_late_refusal_resets_the_server_too(lab):
    _, guest = sandbox(lab)
    with guest, lab.internet.listen(WWW4, 4430) as listener:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 4430) as connection:
            server, _ = listener.accept()
            server.settimeout(DEADLINE)
            connection.sendall(client_hello("shared.denied.test"))
            is_refused(connection)
            with server:
                fails_with(errno.ECONNRESET, server.recv, 1)


@test
def a_hello_may_come_with_the_last_of_the_handshake(lab):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        for name, expected in (("www.ok.test", b"\x16\3\3"), ("shared.denied.test", None)):
            raw = RawTcp(guest, WWW4, 443)
            raw.send(SYN, ack=0)
            raw.seq += 1
            raw.ack = raw.receive()[1] + 1
            raw.send(ACK | PSH, client_hello(name))
            segment = raw.receive()
            while segment and not segment[0] & RST and not segment[4]:
                segment = raw.receive()
            if expected:
                equal(segment[4][:3], expected)
            else:
                check(segment[0] & RST, "it is refused")
            raw.send(RST | ACK)


@test
def bytes_behind_the_hello_come_through_in_order(lab):
    _, guest = sandbox(lab)
    hello = client_hello("www.ok.test")
    data = hello + bytes(range(256)) * 1024
    with guest, lab.internet.listen(WWW4, 4430) as listener:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 4430) as connection:
            server, _ = listener.accept()
            server.settimeout(DEADLINE)
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with server:
                equal(receive_all(server), data)
                server.sendall(b"and back")
                server.shutdown(socket.SHUT_WR)
            equal(receive_all(connection), b"and back")


@test
def half_a_close_during_the_hold_is_passed_on(lab):
    _, guest = sandbox(lab)
    with guest, lab.internet.listen(WWW4, 4430) as listener:
        resolve(guest, "www.ok.test")
        for data in (b"", b"QUIT\r\n", b"word", b"two words"):
            with guest.connect(WWW4, 4430) as connection:
                server, _ = listener.accept()
                server.settimeout(DEADLINE)
                if data:
                    connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                with server:
                    equal(receive_all(server), data)
                    server.sendall(b"bye")
                equal(receive_all(connection), b"bye")
        with guest.connect(WWW4, 443) as connection:  # where a name is due it is refused
            connection.shutdown(socket.SHUT_WR)
            is_refused(connection)


@test
def a_hello_that_is_cut_short_is_refused_at_once(lab):
    _, guest = sandbox(lab)
    with guest, lab.internet.listen(WWW4, 4430) as listener:
        resolve(guest, "www.ok.test")
        for data in (client_hello("www.ok.test")[:-1], b"GET / HTTP/1.1\r\nHost: www.ok"):
            with guest.connect(WWW4, 4430) as connection:
                server, _ = listener.accept()
                begun = time.monotonic()
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                is_refused(connection)
                check(time.monotonic() - begun < 2 * SLOWNESS, "at once")
                with server:
                    fails_with(errno.ECONNRESET, server.recv, 1)
        equal(guest.counters()["policy_hello_malformed"], 2)


# ---- protocols that bear no name ----


@test
def a_server_that_speaks_first_is_heard_at_once(lab):
    _, guest = sandbox(lab)
    with guest, lab.internet.listen(WWW4, 25) as listener:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 25) as connection:
            server, _ = listener.accept()
            server.settimeout(DEADLINE)
            with server:
                begun = time.monotonic()
                server.sendall(b"220 mail ESMTP\r\n")
                equal(receive_exactly(connection, 16), b"220 mail ESMTP\r\n")
                check(time.monotonic() - begun < 1, "at once")
                connection.sendall(b"EHLO me\r\n")
                equal(receive_exactly(server, 9), b"EHLO me\r\n")


@test
def ssh_passes_by_the_pin_alone(lab):
    _, guest = sandbox(lab)
    with guest, lab.internet.listen(WWW4, 22) as listener:
        fails_with(errno.ECONNREFUSED, guest.connect, WWW4, 22)
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 22) as connection:
            server, _ = listener.accept()
            server.settimeout(DEADLINE)
            with server:
                server.sendall(b"SSH-2.0-x\r\n")
                equal(receive_exactly(connection, 11), b"SSH-2.0-x\r\n")
                connection.sendall(b"SSH-2.0-y\r\n")
                equal(receive_exactly(server, 11), b"SSH-2.0-y\r\n")


@for_each(port=[443, 80])
def what_bears_no_name_is_refused_where_one_is_due(lab, port):
    _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, port) as connection:
            connection.sendall(b"SSH-2.0-y\r\n")
            is_refused(connection)


@test
def a_flow_that_every_rule_allows_is_never_held(lab):
    _, guest = sandbox(lab, rules=("allow tcp to *.ok.test port 4430", "allow tcp to public"))
    with guest, lab.internet.listen(WWW4, 4430) as listener:
        resolve(guest, "www.ok.test")
        with guest.connect(WWW4, 4430) as connection:
            server, _ = listener.accept()
            server.settimeout(DEADLINE)
            with server:
                connection.sendall(b"\x16\3\1")  # a hello's first bytes, and no more
                equal(receive_exactly(server, 3), b"\x16\3\1")


# ---- names and time ----


@test
def every_address_that_was_answered_stays_allowed(lab):
    _, guest = sandbox(lab)
    with guest:
        seen = set()
        for _ in range(20):
            seen.update(resolve(guest, "many.ok.test"))
        equal(seen, set(MANY4))
        for address in MANY4:
            tls(guest, address, "many.ok.test").close()


@test
def a_resumed_session_is_judged_like_a_new_one(lab):
    outside, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        context = ssl.create_default_context(cafile=outside.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with context.wrap_socket(guest.connect(WWW4, 443), server_hostname="www.ok.test") as first:
            check("reused=." in request(first, "www.ok.test"), "a new session")
            session = first.session
        with context.wrap_socket(guest.connect(WWW4, 443), server_hostname="www.ok.test",
                                 session=session) as again:
            check(again.session_reused, "it is resumed")
            check("reused=r" in request(again, "www.ok.test"), "for the server, too")
        context.check_hostname = False
        try:
            context.wrap_socket(guest.connect(WWW4, 443), server_hostname="shared.denied.test",
                                session=session)
        except (ConnectionResetError, ssl.SSLError):
            return
        raise AssertionError("a session took another name in")


class Clock:
    """A time that the test may move, for guests begun within."""

    def __enter__(self):
        library = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if SANITIZED or not library:
            raise Skip("libfaketime is missing, or cannot be loaded in front of a sanitizer")
        self.file = tempfile.NamedTemporaryFile("w", suffix=".time")
        self.words = {"LD_PRELOAD": library[0], "FAKETIME_TIMESTAMP_FILE": self.file.name,
                      "FAKETIME_NO_CACHE": "1"}
        self.move("+0")
        os.environ.update(self.words)
        return self

    def move(self, offset):
        with open(self.file.name, "w") as file:
            file.write(offset + "\n")

    def __exit__(self, *_):
        for word in self.words:
            os.environ.pop(word, None)


@test
def a_live_flow_outlives_its_pin_and_a_new_one_needs_another_lookup(lab):
    outside_of(lab)
    with Clock() as clock:
        _, guest = sandbox(lab)
    with guest:
        resolve(guest, "www.ok.test")
        live = tls(guest, WWW4, "www.ok.test")
        clock.move("+70m")
        check("200 OK" in request(live, "www.ok.test"), "it lives")
        fails_with(errno.ECONNREFUSED, guest.connect, WWW4, 443)
        resolve(guest, "www.ok.test")
        tls(guest, WWW4, "www.ok.test").close()
        clock.move("+120m")  # within an hour of its last use
        tls(guest, WWW4, "www.ok.test").close()
        clock.move("+170m")
        tls(guest, WWW4, "www.ok.test").close()


@test
def an_address_within_nat64_counts_as_the_one_it_carries(lab):
    _, guest = sandbox(lab)
    carried = "64:ff9b::" + socket.inet_pton(socket.AF_INET, WWW4).hex(":", 2)
    lab.has(carried + "/128")
    with guest:
        fails_with(errno.ECONNREFUSED, guest.connect, carried, 443)
        resolve(guest, "www.ok.test")
        tls(guest, carried, "www.ok.test").close()
        tls_is_refused(guest, carried, "shared.denied.test")
        tls_is_refused(guest, carried, "api.ok.test")


# ---- the resolver ----


@test
def data_does_not_leave_in_names(lab):
    outside, guest = sandbox(lab)
    with guest:
        for i in range(5):
            equal(dig(guest, f"{'x' * 60}.{i}.leak.test", "TXT")[0], "NXDOMAIN")
            equal(dig(guest, f"{'x' * 60}.{i}.leak.test", server="8.8.8.8")[0], "NXDOMAIN")
        equal(outside.asked_below("leak.test"), 0)


@test
def other_resolvers_are_answered_for_and_their_answers_count(lab):
    outside, guest = sandbox(lab)
    with guest:
        equal(dig(guest, "www.ok.test", server="8.8.8.8"), ("NOERROR", [WWW4]))
        tls(guest, WWW4, "www.ok.test").close()
        fails_with(errno.ECONNREFUSED, guest.connect, "8.8.8.8", 853)
        datagrams = guest.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.connect(("8.8.8.8", 853))
        datagrams.send(b"\xc0\0\0\0\1 by QUIC")
        fails_with((errno.EACCES, errno.EHOSTUNREACH), datagrams.recv, 10)
        equal(guest.counters()["policy_denied_dns_tls"], 2)


@test
def a_name_that_leads_through_a_denied_one_is_refused(lab):
    _, guest = sandbox(lab)
    with guest:
        equal(dig(guest, "led.ok.test")[0], "NXDOMAIN")
        fails_with(errno.ECONNREFUSED, guest.connect, WWW4, 443)


@test
def records_that_would_hide_names_are_not_given(lab):
    _, guest = sandbox(lab)
    with guest:
        for kind in ("HTTPS", "SVCB"):
            equal(dig(guest, "www.ok.test", kind), ("NOERROR", []))


# ---- another front end ----


class StreamGuest:
    """A guest of `culvert serve --stream`: a network of its own behind a TAP, whose frames are
    carried to the socket and back."""

    def __init__(self, lab, *options):
        self.place = tempfile.mkdtemp()
        self.serve = Serve(lab, "--stream", self.place + "/s", *options, rules=())
        self.net = Network.new()
        self.net.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        with self.net:
            self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self.tap, 0x400454ca, struct.pack("16sH22x", b"eth0", 0x1002))  # TAP, NO_PI
        self.net.ip("link set lo up", "link set eth0 up", f"addr add {GUEST4}/24 dev eth0",
                    f"route add default via {GATEWAY4}")
        self.wire = StreamWire(self.place + "/s")
        threading.Thread(target=self._out, daemon=True).start()
        threading.Thread(target=self._back, daemon=True).start()

    def _out(self):
        with contextlib.suppress(OSError):
            while True:
                self.wire.send(os.read(self.tap, 1 << 16))

    def _back(self):
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                frame = self.wire.receive()
                if frame:
                    os.write(self.tap, frame)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.serve.close()
        self.wire.close()

    def run(self, *words, **options):
        return self.net.run(*words, **options)

    def connect(self, *arguments, **options):
        return self.net.connect(*arguments, **options)


@test
def the_same_holds_for_a_guest_of_serve(lab):
    outside = outside_of(lab)
    rules = [word for rule in RULES for word in ("--rule", rule)]
    with StreamGuest(lab, "--profile", "none", "--dns", INTERNET4, *rules) as guest:
        fails_with(errno.ECONNREFUSED, guest.connect, WWW4, 443)
        status, out = curl(outside, guest, "https://www.ok.test/")
        equal(status, 0, out)
        tls_is_refused(guest, WWW4, "shared.denied.test")
        tls_is_refused(guest, WWW4, None)
        equal(dig(guest, "secret.leak.test", server="8.8.8.8")[0], "NXDOMAIN")
        equal(outside.asked("secret.leak.test"), 0)
        datagrams = guest.net.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.connect((WWW4, 443))
        for hello in quic.Client(b"first id").hello("shared.denied.test"):
            datagrams.send(hello)
        fails_with((errno.EHOSTUNREACH, errno.EACCES), datagrams.recv, 100)
        datagrams.close()


if __name__ == "__main__":
    main()
