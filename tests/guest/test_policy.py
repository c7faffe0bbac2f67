#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""What may pass: by default the public internet and nothing else, and what the guest sees of a
denial. The internet of these tests has servers at every address that must not be reached."""

import errno
import select
import socket
import time

from lab import (DEADLINE, GATEWAY4, GATEWAY6, GUEST4, HOST4, HOST6, INTERNET4, INTERNET6, SLOWNESS,
                 check, counters_in, equal, fails_with, for_each, main, test, wait_until)

AT_ONCE = 0.1 * SLOWNESS
PORT = 8080

PRIVATE = ["10.9.9.9", "192.168.5.5", "172.16.7.7", "100.64.3.3", "fd12:3456::1", "fc00::9"]
METADATA = ["169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"]
LINK_LOCAL = ["169.254.9.9"]
SPECIAL = ["198.18.0.1", "203.0.113.1", "192.0.0.9", "192.0.2.1", "2001:db8::1", "2002:808:808::1",
           "2001:0:1::1", "5f00::1"]
NAT64 = ["64:ff9b::10.9.9.9", "64:ff9b::169.254.169.254", "64:ff9b::127.0.0.1"]
PUBLIC = [INTERNET4, INTERNET6, "8.8.8.8", "2001:4860:4860::8888"]
HOST = [GATEWAY4, GATEWAY6, HOST4, HOST6]


class Servers:
    """At PORT of every address of the host and the internet."""

    def __init__(self, lab):
        self.lab = lab
        lab.has(*(a + ("/128" if ":" in a else "/32") for a in
                  PRIVATE + METADATA + LINK_LOCAL + SPECIAL + NAT64 + PUBLIC[2:]))

    def __enter__(self):
        self.all = [network.listen(address, PORT) for network in (self.lab.internet, self.lab.host)
                    for address in ("0.0.0.0", "::")]
        return self

    def __exit__(self, *_):
        for listener in self.all:
            listener.close()

    def untouched(self):
        return select.select(self.all, [], [], 0)[0] == []

    def accept(self):
        ready = select.select(self.all, [], [], DEADLINE)[0]
        check(ready, "no connection arrived")
        ready[0].accept()[0].close()


def reaches(guest, servers, *addresses):
    for address in addresses:
        try:
            guest.connect(address, PORT).close()
            servers.accept()
        except Exception as error:
            raise AssertionError(f"{address}: {error!r}") from error


def is_denied(guest, servers, *addresses):
    for address in addresses:
        try:
            seconds = fails_with(errno.ECONNREFUSED, guest.connect, address, PORT)
        except AssertionError as error:
            raise AssertionError(f"{address}: {error}") from error
        check(seconds < AT_ONCE, f"{address}: denied after {seconds} s")
    check(servers.untouched(), "a server was reached all the same")


# ---- the default ----


@test
def by_default_the_public_internet_is_open(lab):
    with Servers(lab) as servers, lab.guest(rules=()) as guest:
        reaches(guest, servers, *PUBLIC)


@test
def by_default_all_that_is_not_public_is_denied_at_once(lab):
    with Servers(lab) as servers, lab.guest(rules=()) as guest:
        is_denied(guest, servers, *PRIVATE, *METADATA, *LINK_LOCAL, *SPECIAL, *NAT64, *HOST)
        seen = guest.counters()
        denied = sum(v for k, v in seen.items() if k.startswith("policy_denied"))
        equal(denied, len(PRIVATE + METADATA + LINK_LOCAL + SPECIAL + NAT64 + HOST))


@test
def an_address_the_host_gains_is_denied_from_then_on(lab):
    """Not only those that it had at the start."""
    with Servers(lab) as servers, lab.guest(rules=()) as guest:
        reaches(guest, servers, "8.8.8.8")
        lab.host.ip("addr add 8.8.8.8/32 dev lo")
        try:
            wait_until(lambda: denied_now(guest, servers, "8.8.8.8"), "it is the host's now")
        finally:
            lab.host.ip("addr del 8.8.8.8/32 dev lo")
        wait_until(lambda: not denied_now(guest, servers, "8.8.8.8"), "it is the internet's again")


def denied_now(guest, servers, address):
    try:
        guest.connect(address, PORT).close()
        servers.accept()
        return False
    except ConnectionRefusedError:
        return True


@test
def an_address_named_as_the_hosts_is_denied(lab):
    with Servers(lab) as servers, lab.guest("--host-address", "8.8.8.8", rules=()) as guest:
        is_denied(guest, servers, "8.8.8.8")
        reaches(guest, servers, INTERNET4)


@test
def the_resolver_has_no_other_ports(lab):
    with lab.guest(rules=()) as guest:
        for address in "10.0.2.3", "fd63:756c:7665::3":
            check(fails_with(errno.ECONNREFUSED, guest.connect, address, 80) < AT_ONCE, address)


# ---- rules ----


@test
def an_allow_rule_opens_what_it_names_and_no_more(lab):
    rules = [f"allow tcp to 10.9.9.9, fd12:3456::/64 port {PORT}-{PORT + 1}",
             f"allow tcp to 192.168.0.0/16 port {PORT + 1}"]
    with Servers(lab) as servers, lab.guest(rules=rules) as guest:
        reaches(guest, servers, "10.9.9.9", "fd12:3456::1", *PUBLIC)
        is_denied(guest, servers, "192.168.5.5", "fc00::9", *METADATA, *HOST)
        check(fails_with(errno.ECONNREFUSED, guest.connect, "10.9.9.9", PORT + 2) < AT_ONCE, "port")


@test
def the_first_rule_that_matches_decides(lab):
    rules = ["deny to 8.8.8.8", "allow to 8.0.0.0/8", f"deny tcp to any port {PORT}"]
    with Servers(lab) as servers, lab.guest(rules=rules) as guest:
        is_denied(guest, servers, "8.8.8.8", INTERNET4, INTERNET6)
        equal(guest.counters()["policy_denied_rule"], 3)


@test
def the_floor_opens_only_to_who_names_it(lab):
    floor = [*METADATA, *LINK_LOCAL, *HOST]
    with Servers(lab) as servers:
        with lab.guest(rules=["allow any to any"]) as guest:
            reaches(guest, servers, *PRIVATE, *PUBLIC)
            is_denied(guest, servers, *floor)
            equal(guest.counters()["policy_denied_floor"], len(floor))
        with lab.guest(rules=["allow to metadata, link-local", "allow to host"]) as guest:
            reaches(guest, servers, *floor)


@test
def the_profiles_none_and_all_are_what_they_say(lab):
    with Servers(lab) as servers:
        with lab.guest("--profile", "none", rules=()) as guest:
            is_denied(guest, servers, *PUBLIC, *PRIVATE, *HOST)
        with lab.guest("--profile", "all", rules=()) as guest:
            reaches(guest, servers, *PUBLIC, *PRIVATE, *LINK_LOCAL, *HOST)
            is_denied(guest, servers, *METADATA)


@test
def a_rule_for_one_protocol_says_nothing_of_others(lab):
    rules = ["allow udp to 10.9.9.9", "allow icmp to 10.9.9.9"]
    with Servers(lab) as servers, lab.guest(rules=rules) as guest:
        is_denied(guest, servers, "10.9.9.9")
        with lab.internet.socket(kind=socket.SOCK_DGRAM) as server:
            server.bind(("10.9.9.9", 0))
            client = guest.socket(kind=socket.SOCK_DGRAM)
            client.sendto(b"hello", server.getsockname())
            equal(server.recv(100), b"hello")
        equal(guest.run("ping", "-qc1", "-W5", "10.9.9.9")[0], 0)


# ---- what the guest sees of it ----


@for_each(address=[INTERNET4, INTERNET6])
def a_drop_is_silence(lab, address):
    with Servers(lab) as servers, lab.guest(rules=[f"drop to {address}"]) as guest:
        fails_with(errno.ETIMEDOUT, lambda: guest.connect(address, PORT, timeout=0.3))
        client = guest.socket(socket.AF_INET6 if ":" in address else socket.AF_INET,
                              socket.SOCK_DGRAM)
        client.connect((address, PORT))
        client.send(b"x")
        equal(select.select([client], [], [], 0.2)[0], [])
        status, out, _ = guest.run("ping", "-c1", "-W0.2", address)
        equal((status, "100% packet loss" in out, "errors" in out), (1, True, False))
        check(servers.untouched(), "a server was reached all the same")
        check(guest.counters()["policy_dropped_rule"] >= 3, "counted")


@for_each(address=["10.9.9.9", "fc00::9"])
def denied_datagrams_and_pings_fail_at_once(lab, address):
    with Servers(lab), lab.guest(rules=()) as guest:
        client = guest.socket(socket.AF_INET6 if ":" in address else socket.AF_INET,
                              socket.SOCK_DGRAM)
        client.connect((address, PORT))
        client.send(b"x")
        # What Linux makes of "administratively prohibited".
        seconds = fails_with(errno.EACCES if ":" in address else errno.EHOSTUNREACH, client.recv, 1)
        check(seconds < AT_ONCE, f"it took {seconds} s")
        begun = time.monotonic()
        status, out, _ = guest.run("ping", "-c1", "-W5", address)
        equal(status, 1)
        check("Packet filtered" in out or "prohibited" in out, out)
        check(time.monotonic() - begun < 1 * SLOWNESS, "the ping waited")
        equal(guest.counters()["policy_denied_default"], 2)


@test
def unreachable_by_policy_is_not_answered_in_the_destinations_name_with_data(lab):
    """The RST of a denial carries no byte and opens nothing: curl says so."""
    with Servers(lab), lab.guest(rules=()) as guest:
        status, out, err = guest.run("curl", "-sS", f"http://10.9.9.9:{PORT}/")
        equal((status, out), (7, ""))


# ---- what the user sees of it ----


@test
def reasons_are_named_on_usr1_and_at_the_end(lab):
    guest = lab.guest("-v", rules=["drop tcp to 8.8.8.8"])
    with Servers(lab) as servers:
        is_denied(guest, servers, "10.9.9.9", GATEWAY4)
        fails_with(errno.ETIMEDOUT, lambda: guest.connect("8.8.8.8", PORT, timeout=0.1))
    wanted = {"policy_denied_default": 2, "policy_dropped_rule": 1}
    seen = guest.counters()
    equal({name: seen.get(name) for name in wanted}, wanted)
    text = guest.close()
    check(f"guest {GUEST4}/24" in text, text)
    last = counters_in(text[text.rindex("culvert: netdev_frames_in"):])
    equal({name: last.get(name) for name in wanted}, wanted)
    check("flows dropped by a rule, in silence" in text, "each counter has its sentence")


main()
