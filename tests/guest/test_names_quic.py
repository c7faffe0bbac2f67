#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""QUIC under rules by name: a real client and server (ngtcp2's), and datagrams that no real client
would send, with a plain socket for a server that shows what got out."""

import errno
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from lab import (DEADLINE, INTERNET4, SANITIZED, SLOWNESS, Skip, check, equal, fails_with, for_each,
                 main, test, wait_until)
from outside import API4, API6, WWW4, WWW6, dig, outside_of, sandboxed
from quic import V1, V2, Client, crypto_frame, hello

RULES = ("deny to *.denied.test", "allow udp to *.ok.test",
         "allow udp to front.other.test port 443")
PROHIBITED = (errno.EHOSTUNREACH, errno.EACCES)  # as Linux reports code 13, and ICMPv6's code 1


def sandbox(lab, *options, rules=RULES, **keywords):
    return sandboxed(lab, *options, rules=rules, **keywords)


class Wire:
    """A guest's UDP socket and a server's, at an address that the guest has learnt from `name`."""

    def __init__(self, lab, guest, name="www.ok.test", address=WWW4, port=443):
        if name:
            equal(dig(guest, name, "AAAA" if ":" in address else "A"), ("NOERROR", [address]))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.server = lab.internet.socket(family, socket.SOCK_DGRAM)
        self.server.bind((address, port))
        self.guest = guest.socket(family, socket.SOCK_DGRAM)
        self.guest.connect((address, port))
        self.peer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.guest.close()
        self.server.close()

    def send(self, *datagrams):
        for datagram in datagrams:
            self.guest.send(datagram)

    def arrives(self, *datagrams):
        for datagram in datagrams:
            seen, self.peer = self.server.recvfrom(65536)
            equal(len(seen), len(datagram))
            check(seen == datagram, "the datagram that was sent")

    def nothing_arrives(self):
        self.server.settimeout(0.2)
        fails_with(errno.ETIMEDOUT, self.server.recv, 65536)
        self.server.settimeout(DEADLINE)

    def is_refused(self):
        """An ICMP has come, and nothing has left."""
        fails_with(PROHIBITED, self.guest.recv, 65536)
        self.server.settimeout(0.05)
        fails_with(errno.ETIMEDOUT, self.server.recv, 65536)
        self.server.settimeout(DEADLINE)

    def answers(self):
        """The server's datagrams reach the guest."""
        self.server.sendto(b"answer", self.peer)
        equal(self.guest.recv(100), b"answer")


# ---- a real client and server ----


def start_server(lab, address, *options):
    outside = outside_of(lab)
    if not shutil.which("gtlsserver"):
        raise Skip("gtlsserver (ngtcp2-server) is missing")
    htdocs = outside.folder + "/htdocs"
    os.makedirs(htdocs, exist_ok=True)
    with open(htdocs + "/index.html", "w") as file:
        file.write("by QUIC\n" * 2000)
    with lab.internet:
        server = subprocess.Popen(["gtlsserver", "-q", *options, "-d", htdocs, address, "443",
                                   outside.folder + "/key", outside.ca],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
    host = f"[{address}]" if ":" in address else address
    wait_until(lambda: f" {host}:443 " in lab.internet.call("ss", "-Hlun"), "gtlsserver")
    return server


def fetch(guest, host, *options, seconds=DEADLINE):
    """Did a client get the page?"""
    with tempfile.TemporaryDirectory() as folder:
        try:
            guest.run("gtlsclient", "-q", "--exit-on-all-streams-close",
                      "--download", folder, *options, host, "443", f"https://{host}/index.html",
                      timeout=seconds)
        except subprocess.TimeoutExpired:
            pass
        path = folder + "/index.html"
        return os.path.exists(path) and os.path.getsize(path) == 16000


@for_each(start=["at_once", "after_a_retry"])
def a_page_comes_by_http3_from_an_allowed_name(lab, start):
    _, guest = sandbox(lab)
    server = start_server(lab, API4, *(["--validate-addr"] if start == "after_a_retry" else []))
    try:
        with guest:
            check(not fetch(guest, API4, seconds=2), "nothing leads there yet")
            check(fetch(guest, "api.ok.test"), "the page")
        _, guest = sandbox(lab, rules=("deny udp to *.api.ok.test", *RULES))
        with guest:
            check(not fetch(guest, "api.ok.test", seconds=2), "a denied name")
            equal(guest.counters().get("policy_denied_rule", 0) > 0, True)
    finally:
        server.kill()
        server.wait()


@test
def a_page_comes_by_http3_over_ipv6(lab):
    _, guest = sandbox(lab)
    server = start_server(lab, API6)
    try:
        with guest:
            check(fetch(guest, "six.ok.test"), "the page")
    finally:
        server.kill()
        server.wait()


@test
def packets_that_the_client_loses_are_sent_again_and_pass(lab):
    _, guest = sandbox(lab)
    server = start_server(lab, API4)
    try:
        with guest:
            for _ in range(3):
                check(fetch(guest, "api.ok.test", "--tx-loss=0.2", "--rx-loss=0.2",
                            seconds=3 * DEADLINE), "the page")
    finally:
        server.kill()
        server.wait()


# ---- hellos ----


@for_each(version=["1", "2"])
def an_allowed_hello_passes_and_is_answered(lab, version):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        client = Client(b"first id", V1 if version == "1" else V2)
        datagrams = client.hello("www.ok.test")
        wire.send(*datagrams)
        wire.arrives(*datagrams)
        wire.answers()
        wire.send(b"\x40 a short header")
        wire.arrives(b"\x40 a short header")


@test
def an_allowed_hello_passes_over_ipv6(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest, address=WWW6) as wire:
        datagrams = Client(b"first id").hello("www.ok.test", extra=2000, pieces=3)
        wire.send(*datagrams)
        wire.arrives(*datagrams)
        wire.answers()
        wire.send(*Client(b"other id").hello("shared.denied.test"))
        wire.is_refused()


@for_each(version=["1", "2"])
def a_hello_that_names_another_is_refused_at_once(lab, version):
    _, guest = sandbox(lab)
    with guest:
        for name in ("shared.denied.test", "front.other.test", "other.test"):
            with Wire(lab, guest) as wire:
                begun = time.monotonic()
                wire.send(*Client(b"first id", V1 if version == "1" else V2).hello(name))
                wire.is_refused()
                check(time.monotonic() - begun < 1, "at once")


@test
def a_drop_rule_refuses_in_silence(lab):
    _, guest = sandbox(lab, rules=("drop to *.denied.test", *RULES))
    with guest, Wire(lab, guest) as wire:
        wire.send(*Client(b"first id").hello("shared.denied.test"))
        wire.nothing_arrives()
        wire.guest.settimeout(0.1)
        fails_with(errno.ETIMEDOUT, wire.guest.recv, 100)
        equal(guest.counters()["policy_dropped_rule"], 1)


@test
def a_hello_without_a_name_is_refused(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        wire.send(*Client(b"first id").hello(None))
        wire.is_refused()
        equal(guest.counters()["policy_denied_unnamed"], 1)


@test
def a_hello_in_several_datagrams_is_held_until_it_is_whole(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        datagrams = Client(b"first id").hello("www.ok.test", extra=3000, pieces=4)
        wire.send(*datagrams[:3])
        wire.nothing_arrives()
        wire.send(datagrams[3])
        wire.arrives(*datagrams)
        wire.answers()


@test
def a_hello_in_disorder_is_put_together_and_leaves_as_it_came(lab):
    _, guest = sandbox(lab)
    with guest:
        for name, allowed in (("www.ok.test", True), ("shared.denied.test", False)):
            with Wire(lab, guest) as wire:
                one, two, three = Client(name.encode()).hello(name, extra=2000, pieces=3)
                wire.send(three, one)
                wire.nothing_arrives()
                wire.send(two)
                if allowed:
                    wire.arrives(three, one, two)
                else:
                    wire.is_refused()


@test
def initials_in_one_datagram_are_all_read(lab):
    _, guest = sandbox(lab)
    with guest:
        for name, allowed in (("www.ok.test", True), ("shared.denied.test", False)):
            with Wire(lab, guest) as wire:
                client, message = Client(name.encode()), hello(name)
                datagram = client.initial(crypto_frame(50, message[50:]), 0) + \
                    client.initial(crypto_frame(0, message[:50]), 0)
                wire.send(datagram)
                if allowed:
                    wire.arrives(datagram)
                else:
                    wire.is_refused()


@test
def after_a_retry_the_new_keys_are_followed(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        client = Client(b"first id")
        datagrams = client.hello("www.ok.test")
        wire.send(*datagrams)
        wire.arrives(*datagrams)
        client.retry(b"srv", b"a token")
        datagrams = client.hello("www.ok.test")
        wire.send(*datagrams)
        wire.arrives(*datagrams)
        client.retry(b"srv2", b"a token")
        wire.send(*client.hello("shared.denied.test"))
        wire.is_refused()


@test
def a_second_connection_of_a_port_is_judged_by_its_own_name(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        datagrams = Client(b"first id").hello("www.ok.test")
        wire.send(*datagrams)
        wire.arrives(*datagrams)
        wire.send(*Client(b"second id").hello("shared.denied.test", extra=1500, pieces=2))
        wire.is_refused()
        wire.send(b"\x40 the first goes on")
        wire.arrives(b"\x40 the first goes on")
        wire.answers()
        equal(dig(guest, "front.other.test"), ("NOERROR", [WWW4]))
        datagrams = Client(b"third id").hello("front.other.test")
        wire.send(*datagrams)
        wire.arrives(*datagrams)


@test
def a_hello_that_is_sent_again_must_say_the_same(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        client = Client(b"first id")
        message = hello("www.ok.test")
        datagram = client.initial(crypto_frame(0, message))
        wire.send(datagram)
        wire.arrives(datagram)
        again = client.initial(crypto_frame(20, message[20:60]))
        wire.send(again)
        wire.arrives(again)
        at = message.index(b"www.ok.test")
        wire.send(client.initial(crypto_frame(at, b"evil.denied")))
        wire.is_refused()
        equal(guest.counters()["policy_hello_malformed"], 1)
        wire.server.sendto(b"late", wire.peer)  # the flow has ended
        wire.guest.settimeout(0.2)
        fails_with(errno.ETIMEDOUT, wire.guest.recv, 100)


@test
def a_name_may_be_hidden_only_where_no_name_matters(lab):
    _, guest = sandbox(lab, rules=("deny to *.denied.test", "allow any to any"))
    with guest, Wire(lab, guest) as wire:
        datagrams = Client(b"first id").hello(None)
        wire.send(*datagrams)
        wire.arrives(*datagrams)
        wire.answers()
    with sandbox(lab, rules=("allow any to public", "deny to *.denied.test"))[1] as guest, \
            Wire(lab, guest) as wire:
        wire.send(b"\xc0 is never looked at")
        wire.arrives(b"\xc0 is never looked at")


# ---- what is no hello ----


@test
def what_is_no_quic_is_refused_at_once_where_a_name_is_due(lab):
    _, guest = sandbox(lab)
    with guest:
        version = struct.pack("!BI", 0xc0, 0xff00001d)
        for datagram in (b"\x40 a short header", b"", version + bytes(1195), version + b"small"):
            with Wire(lab, guest) as wire:
                begun = time.monotonic()
                wire.send(datagram)
                wire.is_refused()
                check(time.monotonic() - begun < 1, "at once")


@test
def what_bears_no_name_passes_by_the_pin_on_other_ports(lab):
    _, guest = sandbox(lab)
    with guest:
        with Wire(lab, guest, port=3478) as wire:
            for datagram in (b"\0\1 STUN", b"\x80\x60 RTP", b"\xc0\1\2\3\4 not QUIC", b"",
                             b"x" * 1400):
                wire.send(datagram)
                wire.arrives(datagram)
            wire.answers()
            denied = Client(b"first id").hello("shared.denied.test")
            wire.send(*denied)
            wire.is_refused()
            allowed = Client(b"first id").hello("www.ok.test")
            wire.send(*allowed)
            wire.arrives(*allowed)
        with Wire(lab, guest, name="front.other.test", port=3479) as wire:
            wire.send(struct.pack("!BI", 0xc0, 0xff00001d) + bytes(1195))  # a draft hides its name
            wire.is_refused()


@test
def initials_that_nobody_can_read_are_dropped(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        client = Client(b"first id")
        broken = bytearray(client.hello("www.ok.test")[0])
        broken[-1] ^= 1
        wire.send(bytes(broken))
        wire.nothing_arrives()
        datagrams = client.hello("www.ok.test")
        wire.send(*datagrams)
        wire.arrives(*datagrams)
        wire.send(bytes(broken))
        wire.nothing_arrives()
        equal(guest.counters()["policy_quic_unreadable"], 2)


# ---- bounds ----


@test
def a_hello_that_is_not_whole_in_time_is_refused(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        one, two = Client(b"first id").hello("www.ok.test", extra=1000, pieces=2)
        begun = time.monotonic()
        wire.send(one)
        wire.is_refused()
        check(2.9 < time.monotonic() - begun < 4 * SLOWNESS, "after three seconds")
        equal(guest.counters()["policy_hello_late"], 1)
        wire.send(one, two)
        wire.arrives(one, two)


@test
def a_hello_in_too_many_datagrams_is_refused(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        wire.send(*Client(b"first id").hello("www.ok.test", extra=3000, pieces=12)[:11])
        wire.is_refused()
        equal(guest.counters()["policy_hello_too_large"], 1)


@test
def many_halves_of_hellos_share_a_bounded_memory(lab):
    _, guest = sandbox(lab)
    with guest:
        with Wire(lab, guest) as wire:  # the guest knows its gateway then, and drops nothing
            datagrams = Client(b"first id").hello("www.ok.test")
            wire.send(*datagrams)
            wire.arrives(*datagrams)
        half = Client(b"their id").hello("www.ok.test", extra=1000, pieces=2)[0]
        sockets = []
        for _ in range(400):
            made = guest.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect((WWW4, 443))
            sockets.append(made)
        for made in sockets:
            made.send(half)
        wait_until(lambda: guest.counters().get("policy_udp_hold_full", 0) > 0, "bounds")
        with Wire(lab, guest) as wire:
            datagrams = Client(b"second id").hello("www.ok.test")
            wire.send(*datagrams)
            wire.arrives(*datagrams)
        wait_until(lambda: sum(guest.counters().get(name, 0) for name in (
            "policy_udp_hold_full", "policy_hello_late")) == 400, "patience ends")


@test
def a_port_bears_a_bounded_number_of_names(lab):
    names = [f"n{i}.ok.test" for i in range(12)]
    hosts = [word for name in names for word in ("--dns-host", f"{name}={WWW4}")]
    _, guest = sandbox(lab, *hosts)
    with guest, Wire(lab, guest) as wire:
        for i, name in enumerate(names[:8]):
            datagrams = Client(b"conn %4d" % i).hello(name)
            wire.send(*datagrams)
            wire.arrives(*datagrams)
        for i, name in enumerate(names[8:]):
            wire.send(*Client(b"last %4d" % i).hello(name))
            wire.is_refused()
        equal(guest.counters()["policy_udp_names"], 4)
        wire.answers()


@test
def many_flows_with_names_share_a_bounded_memory(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        first = Client(b"first id").hello("www.ok.test")
        wire.send(*first)
        wire.arrives(*first)
        before = guest.resident()
        for _ in range(5000):
            with guest.net.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
                made.connect((WWW4, 443))
                made.send(first[0])
        check(SANITIZED or guest.resident() - before < 32 << 20, "memory")
        while select.select([wire.server], [], [], 0.3)[0]:
            wire.server.recv(65536)  # more than its buffer holds: the next may not be lost
        datagrams = Client(b"last one").hello("www.ok.test")
        wire.send(*datagrams)
        while wire.server.recv(65536) != datagrams[-1]:
            pass


@test
def an_audit_lets_pass_what_would_be_refused(lab):
    _, guest = sandbox(lab, "--audit", rules=("deny to *.denied.test", "allow udp to *.ok.test"))
    with guest, Wire(lab, guest) as wire:
        datagrams = Client(b"first id").hello("shared.denied.test", extra=1500, pieces=2)
        wire.send(*datagrams)
        wire.arrives(*datagrams)
        wire.answers()
        half = Client(b"second id").hello("www.ok.test", extra=1500, pieces=2)[0]
        wire.send(half)
        wire.nothing_arrives()
        wire.arrives(half)  # late
        equal(guest.counters()["policy_would_deny"], 2)


# ---- another policy ----


def policy_file(outside, *rules):
    path = outside.folder + "/policy.json"
    with open(path + ".new", "w") as file:
        json.dump({"version": 1, "profile": "none", "rules": rules}, file)
    os.rename(path + ".new", path)
    return path


def put_in_force(outside, guest, *rules):
    policy_file(outside, *rules)
    before = guest.stderr().count("is in force")
    guest.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: guest.stderr().count("is in force") > before, "the other policy")


@test
def a_flow_is_judged_again_by_the_names_that_admitted_it(lab):
    outside = outside_of(lab)
    path = policy_file(outside, *RULES)
    with lab.guest("--policy", path, "--dns", INTERNET4, rules=()) as guest, \
            Wire(lab, guest) as wire, Wire(lab, guest, name="api.ok.test", address=API4) as other:
        for at, name in ((wire, "www.ok.test"), (other, "api.ok.test")):
            datagrams = Client(name.encode()).hello(name)
            at.send(*datagrams)
            at.arrives(*datagrams)
        put_in_force(outside, guest, "deny udp to api.ok.test", *RULES)
        wire.answers()
        wire.send(b"\x40 goes on")
        wire.arrives(b"\x40 goes on")
        other.server.sendto(b"not heard", other.peer)
        other.send(b"\x40 does not")
        other.is_refused()
        put_in_force(outside, guest, *RULES)
        wire.send(b"\x40 goes on still")
        wire.arrives(b"\x40 goes on still")


@test
def every_name_of_a_flow_must_be_allowed_by_the_new_policy(lab):
    outside = outside_of(lab)
    path = policy_file(outside, *RULES)
    with lab.guest("--policy", path, "--dns", INTERNET4, rules=()) as guest, \
            Wire(lab, guest) as wire:
        equal(dig(guest, "front.other.test"), ("NOERROR", [WWW4]))
        for name in ("front.other.test", "www.ok.test"):
            datagrams = Client(name.encode()[:8]).hello(name)
            wire.send(*datagrams)
            wire.arrives(*datagrams)
        put_in_force(outside, guest, "deny to front.other.test", *RULES)
        wire.send(b"\x40 whose is this?")
        wire.is_refused()


# ---- super-datagrams ----


@test
def each_datagram_of_a_super_datagram_is_looked_at(lab):
    _, guest = sandbox(lab)
    with guest, Wire(lab, guest) as wire:
        wire.guest.setsockopt(socket.IPPROTO_UDP, 103, 1200)  # UDP_SEGMENT
        hellos = Client(b"first id").hello("www.ok.test", extra=1000, pieces=2)
        wire.send(b"".join(hellos) + b"\x40 and data")
        wire.arrives(*hellos, b"\x40 and data")
        data = [b"\x40" + bytes([i]) * 1199 for i in range(5)]
        evil = Client(b"second id").hello("shared.denied.test")[0]
        wire.send(b"".join([*data[:2], evil, *data[2:]]))
        wire.arrives(*data)
        fails_with(PROHIBITED, wire.guest.recv, 100)


if __name__ == "__main__":
    main()
