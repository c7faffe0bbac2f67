#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""The policy replaced while it is in force: USR2 in `run`, HUP in `serve`, and rules that expire.
What is denied now is reset or silent at once; all else goes on as if nothing had been."""

import contextlib
import datetime
import errno
import hashlib
import itertools
import json
import os
import re
import select
import signal
import socket
import struct
import tempfile
import threading
import time

from lab import (DEADLINE, GATEWAY4, GUEST4, HOST4, INTERNET4, INTERNET6, SLOWNESS, Network, Pair,
                 check, equal, fails_with, family_of, for_each, in_thread, main, receive_exactly,
                 test, wait_until)
from serving import Serve, repeated

AT_ONCE = 1 * SLOWNESS
PLACE = tempfile.mkdtemp(prefix="culvert-swap-")
_number = itertools.count()


class Policy:
    """A policy file."""

    def __init__(self, *rules, **more):
        self.path = f"{PLACE}/policy-{next(_number)}.json"
        self.write(*rules, **more)

    def write(self, *rules, profile="none", **more):
        """Replaces it by rename, as editors do."""
        self.write_text(json.dumps({"version": 1, "profile": profile, "rules": rules, **more},
                                   indent=1))

    def write_text(self, text):
        replace(self.path, text)


def replace(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def guest_under(lab, policy, *options, **keywords):
    return lab.guest("--policy", policy.path, *options, rules=(), **keywords)


def told(process, number, stderr):
    """What is said after this signal."""
    before = len(stderr())
    process.send_signal(number)
    return wait_until(lambda: stderr()[before:].endswith("\n") and stderr()[before:],
                      "a word about the policy", pause=0.001)


def reload(guest):
    return told(guest.process, signal.SIGUSR2, guest.stderr)


def in_force(text):
    """(generation, rules, connections reset) of what a reload says."""
    found = re.search(r"^culvert: policy (\d+) is in force: (\d+) rules; (\d+) open ", text)
    check(found, f"no policy is in force: {text!r}")
    return tuple(map(int, found.groups()))


def is_reset(*connections, within=AT_ONCE):
    begun = time.monotonic()
    for connection in connections:
        connection.settimeout(DEADLINE)
        fails_with(errno.ECONNRESET, connection.recv, 1)
    seconds = time.monotonic() - begun
    check(seconds < within, f"it was reset after {seconds} s")


def is_alive(pair):
    for one, other in ((pair.guest, pair.peer), (pair.peer, pair.guest)):
        one.sendall(b"alive")
        equal(receive_exactly(other, 5), b"alive")


class DatagramServer:
    """Answers each datagram with what `reply` makes of it."""

    def __init__(self, network, address, port=0):
        self.socket = network.socket(family_of(address), socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        self.socket.settimeout(0.02)
        self.port = self.socket.getsockname()[1]
        self.clients = []  # in the order of what they sent
        self.ending = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while not self.ending:
            with contextlib.suppress(TimeoutError):
                data, client = self.socket.recvfrom(2000)
                self.clients.append(client)
                self.socket.sendto(self.reply(data), client)

    def reply(self, data):
        return data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ending = True
        self.thread.join()
        self.socket.close()


def answered(client, data=b"x"):
    client.send(data)
    return client.recv(2000) == data


# ---- connections ----


@for_each(address=[INTERNET4, INTERNET6])
def a_denied_connection_is_reset_on_both_sides_and_an_allowed_one_goes_on(lab, address):
    stays, goes = lab.internet.listen(address), lab.internet.listen(address)
    ports = stays.getsockname()[1], goes.getsockname()[1]
    policy = Policy("allow tcp to public")
    with guest_under(lab, policy) as guest, \
            Pair(stays, guest.connect, address, ports[0]) as allowed, \
            Pair(goes, guest.connect, address, ports[1]) as denied:
        is_alive(denied)
        policy.write(f"deny tcp to public port {ports[1]}", "allow tcp to public")
        equal(in_force(reload(guest)), (2, 2, 1))
        is_reset(denied.guest, denied.peer)
        is_alive(allowed)
        fails_with(errno.ECONNREFUSED, guest.connect, address, ports[1])
        equal(guest.counters()["policy_flows_reset"], 1)
        policy.write("allow tcp to public")
        equal(in_force(reload(guest)), (3, 1, 0))
        guest.connect(address, ports[1])


@test
def bytes_on_their_way_arrive_in_full_while_the_policy_is_replaced(lab):
    policy = Policy("allow tcp to public")
    listener = lab.internet.listen(INTERNET4)
    total = 200_000_000 // SLOWNESS
    with guest_under(lab, policy) as guest, \
            Pair(listener, guest.connect, INTERNET4, listener.getsockname()[1]) as up, \
            Pair(listener, guest.connect, INTERNET4, listener.getsockname()[1]) as down:
        done = [in_thread(send_all, up.guest, total), in_thread(digest_of, up.peer),
                in_thread(send_all, down.peer, total), in_thread(digest_of, down.guest)]
        for _ in range(20):
            equal(in_force(reload(guest))[2], 0)
        for sender, receiver in (done[:2], done[2:]):
            equal(receiver(), sender())


def send_all(connection, total):
    md5 = hashlib.md5()
    for piece in repeated(total):
        connection.sendall(piece)
        md5.update(piece)
    connection.shutdown(socket.SHUT_WR)
    return total, md5.hexdigest()


def digest_of(connection):
    md5, total = hashlib.md5(), 0
    while data := connection.recv(1 << 18):
        md5.update(data)
        total += len(data)
    return total, md5.hexdigest()


@test
def a_connection_that_is_being_made_is_reset_when_it_is_denied(lab):
    lab.internet.filter("tcp dport 7777 drop")
    policy = Policy("allow tcp to public")
    with guest_under(lab, policy) as guest:
        connecting = in_thread(fails_with, errno.ECONNREFUSED, guest.connect, INTERNET4, 7777)
        wait_until(lambda: guest.run("ss", "-tnH", "state", "syn-sent")[1], "a SYN")
        time.sleep(0.05)
        policy.write("deny to public")
        equal(in_force(reload(guest))[2], 1)
        check(connecting() < AT_ONCE, "it was not reset at once")


@test
def the_hosts_own_services_are_judged_again_by_the_name_the_guest_has_for_them(lab):
    policy = Policy("allow tcp to host")
    listener = lab.host.listen("127.0.0.1")
    with guest_under(lab, policy) as guest, \
            Pair(listener, guest.connect, GATEWAY4, listener.getsockname()[1]) as pair:
        policy.write("allow tcp to host", "deny to any")
        reload(guest)
        is_alive(pair)
        policy.write("allow tcp to public, 127.0.0.0/8")
        reload(guest)
        is_reset(pair.guest, pair.peer)


# ---- datagrams and echoes ----


@for_each(address=[INTERNET4, INTERNET6])
def datagrams_stop_both_ways_and_go_on_from_the_same_port(lab, address):
    policy = Policy("allow udp to public")
    with DatagramServer(lab.internet, address) as server, \
            DatagramServer(lab.internet, address) as other, guest_under(lab, policy) as guest:
        client, neighbour = (guest.socket(family_of(address), socket.SOCK_DGRAM) for _ in range(2))
        client.connect((address, server.port))
        neighbour.connect((address, other.port))
        check(answered(client) and answered(neighbour), "no echo")
        policy.write(f"deny udp to public port {server.port}", "allow udp to public")
        equal(in_force(reload(guest))[2], 0)

        for _ in range(10):  # what comes unasked is not let in either
            server.socket.sendto(b"unasked", server.clients[-1])
        wait_until(lambda: guest.counters().get("relay_answer_denied") == 10, "ten to be dropped")
        equal(select.select([client], [], [], 0)[0], [])
        client.send(b"x")
        fails_with((errno.EHOSTUNREACH, errno.EACCES, errno.ECONNREFUSED), client.recv, 10)
        equal(len(server.clients), 1)
        check(answered(neighbour), "the other was disturbed")

        policy.write("allow udp to public")
        reload(guest)
        check(answered(client), "no echo after it was allowed again")
        equal(server.clients[0], server.clients[1])


@test
def a_stream_that_only_comes_in_goes_on_if_it_is_still_allowed(lab):
    policy = Policy("allow udp to public")
    with DatagramServer(lab.internet, INTERNET4) as server, guest_under(lab, policy) as guest:
        client = guest.socket(kind=socket.SOCK_DGRAM)
        client.connect((INTERNET4, server.port))
        check(answered(client), "no echo")
        for i in range(5):
            policy.write(f"allow udp to public port {server.port}", f"deny tcp to any port {i + 1}")
            reload(guest)
            server.socket.sendto(b"%d" % i, server.clients[0])
            equal(client.recv(10), b"%d" % i)


@test
def pings_stop_and_go_on(lab):
    policy = Policy("allow icmp to public")
    with guest_under(lab, policy) as guest:
        def pings():
            return guest.run("ping", "-c1", "-W5", INTERNET4)[0] == 0
        check(pings(), "no ping")
        policy.write("allow tcp to public")
        reload(guest)
        check(not pings(), "it pings all the same")
        policy.write("allow icmp to public")
        reload(guest)
        check(pings(), "no ping after it was allowed again")


# ---- the way in ----


@test
def clients_of_a_published_port_are_judged_again_by_their_own_address(lab):
    policy = Policy("allow tcp to host")
    with guest_under(lab, policy, "-p", f"{HOST4}:9090:80") as guest:
        listener = guest.net.listen("", 80)
        with Pair(listener, lab.internet.connect, HOST4, 9090) as outside, \
                Pair(listener, lab.host.connect, HOST4, 9090) as own:
            policy.write("allow from host")  # who came from the host appears as the gateway inside
            equal(in_force(reload(guest))[2], 1)
            is_reset(outside.guest, outside.peer)
            is_alive(own)
            policy.write(f"allow from {INTERNET4}")
            equal(in_force(reload(guest))[2], 1)
            is_reset(own.guest, own.peer)
            Pair(listener, lab.internet.connect, HOST4, 9090).__exit__()


@test
def clients_of_a_published_udp_port_are_judged_again(lab):
    policy = Policy("allow tcp to host")
    with guest_under(lab, policy, "-p", f"{HOST4}:9090:80/udp") as guest, \
            lab.internet.socket(kind=socket.SOCK_DGRAM) as client:
        inside = guest.socket(kind=socket.SOCK_DGRAM)
        inside.bind(("", 80))
        client.connect((HOST4, 9090))
        client.send(b"hello")
        data, name = inside.recvfrom(10)
        inside.sendto(data, name)
        equal(client.recv(10), b"hello")
        policy.write("deny from public")
        reload(guest)
        inside.sendto(b"late", name)
        client.send(b"again")
        wait_until(lambda: guest.counters().get("policy_denied_rule"), "a client to be denied")
        equal(select.select([client, inside], [], [], 0.2)[0], [])


# ---- names ----


class Resolver(DatagramServer):
    """In the internet: every name has this address."""

    def __init__(self, lab, answer):
        self.answer = socket.inet_aton(answer)
        super().__init__(lab.internet, INTERNET4, 53)

    def reply(self, data):
        end = data.index(b"\0", 12) + 5
        is_a = data[end - 4:end - 2] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1" + struct.pack("!IH", 60, 4) + self.answer
        return (data[:2] + b"\x81\x80\0\1" + struct.pack("!H", is_a) + b"\0\0\0\0" +
                data[12:end] + (answer if is_a else b""))


def question(name, number=1):
    labels = b"".join(bytes([len(part)]) + part for part in name.encode().split(b"."))
    return struct.pack("!HHHHHH", number, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def look_up(guest, *names):
    """Each of them, through the resolver of culvert's; a few at a time."""
    client = guest.socket(kind=socket.SOCK_DGRAM)
    client.connect(("10.0.2.3", 53))
    for start in range(0, len(names), 50):
        some = names[start:start + 50]
        for i, name in enumerate(some):
            client.send(question(name, i + 1))
        for _ in some:
            equal(client.recv(600)[3] & 15, 0, "rcode")


def request(pair, name):
    pair.guest.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    check(receive_exactly(pair.peer, 5) == b"GET /", "the request")
    while not pair.peer.recv(4096).endswith(b"\r\n\r\n"):
        pass


@test
def a_connection_admitted_by_name_is_judged_by_it_even_when_the_lookup_is_forgotten(lab):
    policy = Policy("allow tcp to *.ok.test port 80")
    listener = lab.internet.listen(INTERNET4, 80)
    with Resolver(lab, INTERNET4), guest_under(lab, policy, "--dns", INTERNET4) as guest:
        look_up(guest, "www.ok.test", "other.ok.test")
        with Pair(listener, guest.connect, INTERNET4, 80) as www, \
                Pair(listener, guest.connect, INTERNET4, 80) as other:
            request(www, "www.ok.test")
            request(other, "other.ok.test")
            # As many names as are remembered: those two are not among them any more.
            look_up(guest, *(f"n{i}.ok.test" for i in range(17000)))
            with Pair(listener, guest.connect, INTERNET4, 80) as late:
                late.guest.sendall(b"GET / HTTP/1.1\r\nHost: www.ok.test\r\n\r\n")
                is_reset(late.guest)
            policy.write("allow tcp to www.ok.test port 80")
            equal(in_force(reload(guest))[2], 1)
            is_alive(www)
            is_reset(other.guest, other.peer)


@test
def a_connection_of_unknown_name_ends_where_names_decide_unless_it_may_still_tell(lab):
    policy = Policy("allow tcp to nobody.test", "allow any to public")  # nothing is looked into
    listener = lab.internet.listen(INTERNET4, 80)
    with Resolver(lab, INTERNET4), guest_under(lab, policy, "--dns", INTERNET4) as guest:
        look_up(guest, "www.ok.test", "www.bad.test")
        with Pair(listener, guest.connect, INTERNET4, 80) as spoken, \
                Pair(listener, guest.connect, INTERNET4, 80) as ok, \
                Pair(listener, guest.connect, INTERNET4, 80) as bad:
            request(spoken, "www.ok.test")
            policy.write("allow tcp to *.ok.test port 80")
            equal(in_force(reload(guest))[2], 1)
            is_reset(spoken.guest, spoken.peer)
            ok.peer.sendall(b"220 hello\r\n")  # it is not held up either
            equal(receive_exactly(ok.guest, 11), b"220 hello\r\n")
            request(ok, "www.ok.test")
            is_alive(ok)
            bad.guest.sendall(b"GET / HTTP/1.1\r\nHost: www.bad.test\r\n\r\n")
            is_reset(bad.guest, bad.peer)


@test
def a_connection_that_is_being_looked_into_is_judged_by_the_new_policy(lab):
    policy = Policy("allow tcp to *.ok.test port 80")
    listener = lab.internet.listen(INTERNET4, 80)
    with Resolver(lab, INTERNET4), guest_under(lab, policy, "--dns", INTERNET4) as guest:
        look_up(guest, "www.ok.test", "old.ok.test")
        with Pair(listener, guest.connect, INTERNET4, 80) as www, \
                Pair(listener, guest.connect, INTERNET4, 80) as old:
            for pair in (www, old):
                pair.guest.sendall(b"GET / HTTP/1.1\r\nHo")
            policy.write("allow tcp to www.ok.test port 80")
            equal(in_force(reload(guest))[2], 0)
            www.guest.sendall(b"st: www.ok.test\r\n\r\n")
            old.guest.sendall(b"st: old.ok.test\r\n\r\n")
            equal(receive_exactly(www.peer, 4), b"GET ")
            is_reset(old.guest, old.peer)


@test
def other_resolvers_are_left_when_rules_go_by_names(lab):
    policy = Policy("allow any to public")
    with Resolver(lab, INTERNET4), guest_under(lab, policy, "--dns", INTERNET4) as guest:
        listener = lab.internet.listen(INTERNET4, 53)
        tls = lab.internet.listen(INTERNET4, 853)
        with Pair(listener, guest.connect, INTERNET4, 53) as plain, \
                Pair(tls, guest.connect, INTERNET4, 853) as secret:
            policy.write("allow any to public", "deny to bad.test")
            equal(in_force(reload(guest))[2], 2)
            is_reset(plain.guest, plain.peer, secret.guest, secret.peer)
            seen = guest.counters()
            equal((seen["policy_denied_dns_elsewhere"], seen["policy_denied_dns_tls"]), (1, 1))


@test
def answers_that_are_kept_are_judged_by_the_new_policy(lab):
    policy = Policy("allow tcp to *.ok.test")
    with Resolver(lab, INTERNET4), guest_under(lab, policy, "--dns", INTERNET4) as guest:
        look_up(guest, "www.ok.test")
        policy.write("allow tcp to other.test")
        reload(guest)
        client = guest.socket(kind=socket.SOCK_DGRAM)
        client.connect(("10.0.2.3", 53))
        client.send(question("www.ok.test"))
        equal(client.recv(600)[3] & 15, 3, "NXDOMAIN")


# ---- files ----


@test
def a_list_that_was_renamed_into_place_is_read_again(lab):
    listed = f"{PLACE}/list"
    replace(listed, f"{INTERNET4}\n")
    listener = lab.internet.listen(INTERNET4)
    port = listener.getsockname()[1]
    with lab.guest("--profile", "none", rules=(f"allow tcp to @file:{listed}",)) as guest, \
            Pair(listener, guest.connect, INTERNET4, port) as pair:
        reload(guest)
        is_alive(pair)
        replace(listed, "# nobody\n")
        equal(in_force(reload(guest)), (3, 1, 1))
        is_reset(pair.guest)


@test
def a_fault_leaves_everything_as_it_was_and_is_told_with_its_place_and_mend(lab):
    policy = Policy("allow tcp to public")
    listener = lab.internet.listen(INTERNET4)
    port = listener.getsockname()[1]
    with guest_under(lab, policy) as guest, \
            Pair(listener, guest.connect, INTERNET4, port) as pair:
        for text, *pieces in (
                ('{"version": 1,\n"rules": [\n"deny tcp to any",\n"alow to any"]}',
                 ":4: rule 2: ", 'did you mean "allow"'),
                ('{"version": 1,\n"rules": ["allow to @wbe"],\n"sets": {"web": ["a.test"]}}',
                 ":2: ", 'did you mean "@web"'),
                ('{"version": 1', ":1: ", "this is no JSON")):
            policy.write_text(text)
            said = reload(guest)
            check(said.count("\n") == 1 and said.startswith(f"culvert: --policy {policy.path}"),
                  said)
            for piece in (*pieces, "; the policy in force stays"):
                check(piece in said, f"{piece!r} is not in {said!r}")
        os.unlink(policy.path)
        check("No such file" in reload(guest), "a file that is gone")
        is_alive(pair)
        policy.write("allow tcp to public")
        equal(in_force(reload(guest)), (2, 1, 0))


@test
def with_quiet_only_faults_are_told(lab):
    policy = Policy("allow tcp to public")
    with guest_under(lab, policy, "--quiet") as guest:
        policy.write("deny to public")
        guest.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: guest.counters().get("policy_replaced") == 1, "it to be replaced")
        check("in force" not in guest.stderr(), guest.stderr())
        policy.write_text("{")
        check("stays" in reload(guest), "a fault")


# ---- events ----


def events_of(path):
    with open(path) as file:
        return [json.loads(line) for line in file.read().splitlines()]


@test
def a_replacement_and_what_it_ends_are_told(lab):
    policy, path = Policy("allow tcp to public"), f"{PLACE}/events"
    listener = lab.internet.listen(INTERNET4)
    port = listener.getsockname()[1]
    with guest_under(lab, policy, "--events", path) as guest, \
            Pair(listener, guest.connect, INTERNET4, port) as pair:
        policy.write({"rule": "deny to public", "id": "lockdown"})
        reload(guest)
        is_reset(pair.guest)
        replaced, denied = wait_until(lambda: len(events_of(path)) == 2 and events_of(path),
                                      "two events")
        equal((replaced["event"], replaced["generation"]), ("policy_replaced", 2))
        equal((denied["event"], denied["generation"]), ("denied", 2))
        check("lockdown" in json.dumps(denied) and str(port) in json.dumps(denied), denied)


@test
def an_audit_resets_nothing(lab):
    policy = Policy("allow tcp to public")
    listener = lab.internet.listen(INTERNET4)
    port = listener.getsockname()[1]
    with guest_under(lab, policy, "--audit") as guest, \
            Pair(listener, guest.connect, INTERNET4, port) as pair:
        policy.write("deny to public")
        equal(in_force(reload(guest))[2], 0)
        is_alive(pair)
        equal(guest.counters()["policy_would_deny"], 1)


# ---- a service ----


@test
def a_service_reads_its_policy_again_on_hup(lab):
    policy = Policy("allow tcp to public")
    listener = lab.internet.listen(INTERNET4)
    guest = Network.new()
    with Serve(lab, "--policy", policy.path, "--tap", "eth0", "--netns",
               f"/proc/{os.getpid()}/fd/{guest.fd}", rules=()) as serve:
        guest.ip("link set lo up", f"addr add {GUEST4}/24 dev eth0",
                 f"route add default via {GATEWAY4}")
        with Pair(listener, guest.connect, INTERNET4, listener.getsockname()[1]) as pair:
            def hup():
                return told(serve.process, signal.SIGHUP, serve.stderr)
            equal(in_force(hup()), (2, 1, 0))
            is_alive(pair)
            policy.write_text("[]")
            check("; the policy in force stays" in hup(), "a fault")
            policy.write("deny to public")
            equal(in_force(hup()), (3, 1, 1))
            is_reset(pair.guest, pair.peer)
    guest.close()


# ---- rules that end ----


def after(seconds):
    """A whole second from now, at least so many away, and as it is written."""
    moment = int(time.time() + seconds) + 1
    return moment, datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%SZ")


@test
def a_rule_ends_at_its_time_and_what_it_admitted_is_reset(lab):
    stays, goes = lab.internet.listen(INTERNET4), lab.internet.listen(INTERNET4)
    ports = stays.getsockname()[1], goes.getsockname()[1]
    moment, text = after(1)
    later, later_text = after(2)
    policy = Policy({"rule": f"allow tcp to public port {ports[1]}", "expires": text},
                    f"allow tcp to public port {ports[0]}",
                    {"rule": f"deny icmp to {INTERNET4}", "expires": later_text},
                    "allow icmp to public")
    with guest_under(lab, policy) as guest, \
            Pair(stays, guest.connect, INTERNET4, ports[0]) as allowed, \
            Pair(goes, guest.connect, INTERNET4, ports[1]) as denied:
        is_alive(denied)
        before = cpu_switches(guest)
        fails_with(errno.ECONNRESET, denied.guest.recv, 1)
        late = time.time() - moment
        check(-0.01 < late < 0.5 * SLOWNESS, f"it ended {late} s late")
        fails_with(errno.ECONNREFUSED, guest.connect, INTERNET4, ports[1])
        is_alive(allowed)
        check(cpu_switches(guest) - before < 60, "it was awake in the meantime")
        check(guest.run("ping", "-c1", "-W1", INTERNET4)[0] != 0, "a refusal ended too early")
        wait_until(lambda: time.time() > later, "the end of the other")
        wait_until(lambda: guest.run("ping", "-c1", "-W1", INTERNET4)[0] == 0,
                   "the refusal to end", seconds=2 * SLOWNESS)
        is_alive(allowed)
        equal(guest.counters()["policy_replaced"], 2)


def cpu_switches(guest):
    """How often its threads have slept."""
    total = 0
    for task in os.listdir(f"/proc/{guest.pid}/task"):
        with open(f"/proc/{guest.pid}/task/{task}/status") as file:
            total += int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", file.read())[1])
    return total


@test
def a_rule_that_comes_by_reload_ends_too_and_one_that_is_gone_does_not(lab):
    listener = lab.internet.listen(INTERNET4)
    port = listener.getsockname()[1]
    policy = Policy("allow tcp to public")
    with guest_under(lab, policy) as guest, \
            Pair(listener, guest.connect, INTERNET4, port) as pair:
        moment, text = after(1)
        policy.write({"rule": "allow tcp to public", "expires": text})
        reload(guest)
        policy.write({"rule": "allow tcp to public", "expires": after(3600)[1]})
        reload(guest)
        wait_until(lambda: time.time() > moment + 0.2, "the end of the rule that is gone")
        is_alive(pair)
        moment, text = after(0)
        policy.write({"rule": "allow tcp to public", "expires": text})
        reload(guest)
        is_reset(pair.guest, pair.peer, within=2 * SLOWNESS)


# ---- under load ----


@test
def a_hundred_replacements_under_five_hundred_connections_break_and_leak_nothing(lab):
    policy = Policy("allow tcp to public")
    listener = lab.internet.listen(INTERNET4, backlog=1000)
    port = listener.getsockname()[1]
    listener.settimeout(None)
    threading.Thread(target=echo_all, args=(listener,), daemon=True).start()
    with guest_under(lab, policy) as guest:
        connections = [guest.connect(INTERNET4, port) for _ in range(500)]
        ending = threading.Event()
        talk = [in_thread(talks, connections[i::4], ending) for i in range(4)]
        for i in range(10):
            reload(guest)
        before = guest.descriptors(), guest.resident()
        for i in range(100):
            policy.write(f"deny tcp to public port {i + 1}", "allow tcp to public",
                         *(f"allow tcp to n{n}.test" for n in range(i % 3 * 50)))
            equal(in_force(reload(guest))[2], 0)
        ending.set()
        check(min(join() for join in talk) > 0, "nothing was said")
        equal(guest.descriptors(), before[0])
        grown = guest.resident() - before[1]
        check(grown < 8 << 20 or SLOWNESS > 1, f"it grew by {grown} bytes")
        policy.write("deny to public")
        equal(in_force(reload(guest))[2], 500)
        is_reset(*connections)
        wait_until(lambda: guest.descriptors() <= before[0] - 500, "their descriptors to be free")


def echo_all(listener):
    poller = select.epoll()
    peers = {listener.fileno(): listener}
    poller.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in poller.poll():
            if peers[fd] is listener:
                peer, _ = listener.accept()
                peers[peer.fileno()] = peer
                poller.register(peer, select.EPOLLIN)
                continue
            try:
                data = peers[fd].recv(1 << 16)
            except OSError:
                data = b""
            if data:
                peers[fd].sendall(data)
            else:
                poller.unregister(fd)
                peers.pop(fd).close()


def talks(connections, ending):
    """Rounds of requests and answers, which must be right."""
    rounds = 0
    while not ending.is_set():
        for i, connection in enumerate(connections):
            connection.sendall(b"%06d-%06d" % (i, rounds) * 50)
        for i, connection in enumerate(connections):
            expected = b"%06d-%06d" % (i, rounds) * 50
            equal(receive_exactly(connection, len(expected)), expected)
        rounds += 1
    return rounds


if __name__ == "__main__":
    main()
