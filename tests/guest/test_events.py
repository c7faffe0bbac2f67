#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""What is refused is told: as events, in a summary at the end; and what --audit lets through."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import tempfile
import time

import quic
from lab import (CULVERT, DEADLINE, GATEWAY4, GATEWAY6, GUEST4, GUEST6, HOST4, INTERNET4, INTERNET6,
                 SLOWNESS, check, equal, fails_with, family_of, for_each, main, receive_exactly, test, wait_until)
from outside import API4, WWW4, Outside, client_hello, dig
from serving import Serve

NAMES = ("deny to *.denied.test", "allow tcp to *.ok.test", "allow udp to *.ok.test")
METADATA = "169.254.169.254"

_cache = {}


def outside_of(lab):
    if "outside" not in _cache:
        _cache["outside"] = Outside(lab)
    return _cache["outside"]


class Watched(contextlib.AbstractContextManager):
    """A guest and the file of its events."""

    def __init__(self, lab, *options, rules=(), **keywords):
        self.folder = tempfile.TemporaryDirectory()
        self.path = self.folder.name + "/events"
        self.guest = lab.guest("--events", self.path, *options, rules=rules, **keywords)

    def __exit__(self, kind, *_):
        try:
            self.guest.__exit__(kind)
        finally:
            self.folder.cleanup()

    def events(self):
        with open(self.path, encoding="ascii") as file:
            return [json.loads(line) for line in file]

    def wait(self, **wanted):
        """The event with these members."""
        def find():
            for event in self.events():
                if all(event.get(key) == value for key, value in wanted.items()):
                    return event
            return None
        try:
            return wait_until(find, "an event")
        except AssertionError:
            raise AssertionError(f"no event {wanted}, but {self.events()}") from None


def by_names(lab, *options, rules=NAMES):
    outside = outside_of(lab)
    return outside, Watched(lab, "--profile", "none", "--dns", INTERNET4, *options, rules=rules)


def udp_socket(guest, address):
    return guest.socket(family_of(address), socket.SOCK_DGRAM)


# ---- each kind of refusal ----


@for_each(address=[INTERNET4, INTERNET6])
def a_denied_connection_is_told_with_its_ends_the_reason_and_what_would_allow_it(lab, address):
    with Watched(lab, "--profile", "none") as watched:
        before = time.time()
        fails_with(errno.ECONNREFUSED, watched.guest.connect, address, 4433)
        event = watched.wait(event="denied")
        equal(event["remote"], address)
        equal(event["remote_port"], 4433)
        equal(event["guest"], GUEST6 if ":" in address else GUEST4)
        check(event["guest_port"] > 1023, event)
        equal((event["direction"], event["protocol"], event["count"]), ("egress", "tcp", 1))
        equal(event["reason"], "policy_denied_default")
        check("no rule" in event["sentence"], event)
        equal(event["generation"], 1)
        equal(event["allow"], f"allow tcp to {address} port 4433")
        check("rule" not in event and "name" not in event, event)
        told = time.strptime(event["time"][:19], "%Y-%m-%dT%H:%M:%S")
        check(-2 < time.mktime(told) - time.timezone - before < DEADLINE, event["time"])


@test
def the_rule_that_refused_is_told_by_number_and_text(lab):
    rule = "drop udp to 93.184.216.0/24 port 5000-6000 # not \"there\""
    with Watched(lab, rules=("allow tcp to any port 1", rule)) as watched:
        udp_socket(watched.guest, INTERNET4).sendto(b"x", (INTERNET4, 5353))
        event = watched.wait(event="dropped")
        equal(event["rule"], 1)
        equal(event["rule_text"], rule)
        equal((event["protocol"], event["reason"]), ("udp", "policy_dropped_rule"))


@test
def the_id_and_place_of_a_policy_files_rule_are_told(lab):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"version": 1, "rules": [{"rule": "deny to any", "id": "tail"}]}, file)
        file.flush()
        with Watched(lab, "--policy", file.name) as watched:
            fails_with(errno.ECONNREFUSED, watched.guest.connect, INTERNET4, 80)
            event = watched.wait(event="denied")
            equal(event["rule_id"], "tail")
            check(file.name in event["rule_where"], event)


@for_each(address=[INTERNET4, INTERNET6])
def a_denied_ping_is_told_without_ports(lab, address):
    with Watched(lab, "--profile", "none") as watched:
        watched.guest.run("ping", "-c", "1", "-W", "1", address)
        event = watched.wait(event="denied", protocol="icmp")
        equal(event["remote"], address)
        check("remote_port" not in event and "guest_port" not in event, event)
        equal(event["allow"], "allow icmp to " + address)


@test
def what_the_floor_keeps_out_is_told_with_what_must_be_named(lab):
    with Watched(lab, "--profile", "none", rules=("allow to any",)) as watched:
        for address, remedy in ((GATEWAY4, "allow tcp to host port 22"),
                                (GATEWAY6, "allow tcp to host port 22"),
                                (METADATA, f"allow tcp to {METADATA} port 22"),
                                (HOST4, f"allow tcp to {HOST4} port 22")):
            fails_with(errno.ECONNREFUSED, watched.guest.connect, address, 22)
            event = watched.wait(event="denied", remote=address)
            equal((event["reason"], event["allow"]), ("policy_denied_floor", remedy))
            equal(event["rule_text"], "allow to any")


@test
def a_denied_name_is_told_where_it_is_asked_for(lab):
    _, watched = by_names(lab)
    with watched:
        equal(dig(watched.guest, "secret.other.test")[0], "NXDOMAIN")
        event = watched.wait(event="dns_denied", name="secret.other.test")
        equal((event["name_from"], event["question_type"]), ("question", 1))
        equal(event["reason"], "dns_denied")
        equal(event["allow"], "allow tcp to secret.other.test port 443")
        check("remote" not in event and "protocol" not in event, event)
        equal(dig(watched.guest, "led.ok.test")[0], "NXDOMAIN")  # a CNAME
        event = watched.wait(event="dns_denied", name="shared.denied.test")
        equal((event["reason"], event["rule"]), ("dns_denied_owner", 0))


@test
def an_address_that_is_taken_out_of_an_answer_is_told(lab):
    _, watched = by_names(lab)
    with watched:
        equal(dig(watched.guest, "inside.ok.test"), ("NOERROR", []))
        event = watched.wait(event="dns_removed")
        equal((event["name"], event["remote"]), ("inside.ok.test", "192.168.7.7"))
        equal(event["allow"], "allow tcp to inside.ok.test port 443 in 192.168.7.7")


@test
def a_flow_that_bears_another_name_is_told_with_that_name(lab):
    _, watched = by_names(lab)
    with watched:
        guest = watched.guest
        dig(guest, "www.ok.test")
        with guest.connect(WWW4, 443) as connection:
            connection.sendall(client_hello("front.other.test"))
            fails_with(errno.ECONNRESET, connection.recv, 1)
        event = watched.wait(event="denied", name="front.other.test")
        equal((event["name_from"], event["remote"], event["remote_port"]), ("flow", WWW4, 443))
        equal(event["allow"], f"allow tcp to {WWW4} port 443")  # the address was not answered for it
        with guest.connect(WWW4, 80) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: api.ok.test\r\n\r\n")
            fails_with(errno.ECONNRESET, connection.recv, 1)
        watched.wait(event="denied", name="api.ok.test", reason="policy_denied_unpinned")
        with guest.connect(WWW4, 443) as connection:
            connection.sendall(client_hello(None))
            fails_with(errno.ECONNRESET, connection.recv, 1)
        event = watched.wait(event="denied", reason="policy_denied_unnamed", name="www.ok.test")
        equal(event["name_from"], "answer")


@test
def a_malformed_hello_and_dns_over_tls_are_told_and_no_rule_by_name_helps(lab):
    _, watched = by_names(lab)
    with watched:
        dig(watched.guest, "www.ok.test")
        with watched.guest.connect(WWW4, 443) as connection:
            connection.sendall(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff")
            fails_with(errno.ECONNRESET, connection.recv, 1)
        watched.wait(event="denied", reason="policy_hello_malformed", remote=WWW4)
        fails_with(errno.ECONNREFUSED, watched.guest.connect, WWW4, 853)
        event = watched.wait(event="denied", reason="policy_denied_dns_tls")
        check("allow" not in event, event)


@test
def a_flow_to_be_looked_into_that_is_never_connected_is_no_denial_and_leaves_nothing(lab):
    """That nothing is left, sanitizers see. Nobody has the address, which is noticed after a while."""
    lab.host.sysctl("net.ipv4.neigh.h0.retrans_time_ms", 50)
    _, watched = by_names(lab, "--dns-host", "nobody.ok.test=93.184.216.200")
    with watched:
        fails_with(errno.EHOSTUNREACH, watched.guest.connect, "93.184.216.200", 443)
        equal(watched.events(), [])


@test
def a_quic_hello_for_another_name_is_told(lab):
    _, watched = by_names(lab)
    with watched:
        dig(watched.guest, "www.ok.test")
        made = udp_socket(watched.guest, WWW4)
        for datagram in quic.Client(os.urandom(8)).hello("front.other.test"):
            made.sendto(datagram, (WWW4, 443))
        event = watched.wait(event="denied", protocol="udp", name="front.other.test")
        equal((event["name_from"], event["remote"]), ("flow", WWW4))


@test
def a_client_that_may_not_come_in_is_told(lab):
    with Watched(lab, "-p", f"{HOST4}:8080:80", rules=("allow tcp from 10.9.9.9",)) as watched:
        with contextlib.suppress(OSError), lab.internet.connect(HOST4, 8080) as client:
            client.recv(1)
        event = watched.wait(event="denied", direction="ingress")
        equal((event["remote"], event["guest"], event["guest_port"]), (INTERNET4, GUEST4, 80))
        equal(event["allow"], f"allow tcp from {INTERNET4} port 80")


@test
def names_with_quotes_and_control_characters_are_escaped(lab):
    _, watched = by_names(lab)
    with watched:
        labels = (b"a\"b\\", b"\x1b[31m\n\x00\x7f\xff", b"other", b"test")
        message = b"\0\1\1\0\0\1\0\0\0\0\0\0" + b"".join(
            bytes([len(label)]) + label for label in labels) + b"\0\0\1\0\1"
        udp_socket(watched.guest, GATEWAY4).sendto(message, ("10.0.2.3", 53))
        event = watched.wait(event="dns_denied")
        check(all("!" <= c <= "~" for c in event["name"]), event["name"])
        check(event["name"].endswith(".other.test"), event["name"])
        check("allow" not in event, event)


# ---- floods, and readers that do not read ----


@test
def a_flood_to_one_destination_is_folded_and_counted_in_full(lab):
    with Watched(lab, "--profile", "none") as watched:
        for _ in range(500):
            fails_with(errno.ECONNREFUSED, watched.guest.connect, INTERNET4, 81)
        wait_until(lambda: sum(e["count"] for e in watched.events()) == 500, "all to be told")
        check(len(watched.events()) <= 6 * SLOWNESS, len(watched.events()))
        equal(watched.events()[0]["count"], 1)


def scan(guest, first, last):
    """A datagram to each port: as many denials."""
    made = udp_socket(guest, INTERNET4)
    for port in range(first, last):
        with contextlib.suppress(OSError):  # the ICMP for an earlier one
            made.sendto(b"x", (INTERNET4, port))
    made.close()


@test
def a_flood_to_many_destinations_is_bounded_and_the_rest_is_told_as_lost(lab):
    with Watched(lab, "--profile", "none") as watched:
        scan(watched.guest, 10000, 14000)

        def told():
            counters = watched.guest.counters()
            return sum(e["count"] for e in watched.events()) == counters["policy_denied_default"]
        wait_until(told, "all to be told", pause=0.2)
        lost = sum(e["count"] for e in watched.events() if e["event"] == "lost")
        if watched.guest.counters().get("events_lost", 0) == 0:
            equal(lost, 0)  # a slow machine took longer than a second
        equal(lost, watched.guest.counters().get("events_lost", 0))


@test
def a_reader_that_does_not_read_loses_events_and_never_holds_up_the_guest(lab):
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/fifo"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        listener = lab.internet.listen(INTERNET4)
        rules = (f"allow tcp to {INTERNET4} port {listener.getsockname()[1]}",)
        with lab.guest("--profile", "none", "--events", path, rules=rules) as guest:
            with guest.connect(*listener.getsockname()) as connection:
                peer, _ = listener.accept()
                peer.settimeout(DEADLINE)

                def lost():
                    nonlocal first
                    scan(guest, first, first + 1500)
                    first = first % 30000 + 1500
                    connection.sendall(b"ping")
                    equal(receive_exactly(peer, 4), b"ping")
                    return guest.counters().get("events_lost", 0) > 3000
                first = 1
                wait_until(lost, "lost events", seconds=4 * DEADLINE, pause=0.3)
                peer.close()
            text = bytearray()

            def told():
                with contextlib.suppress(BlockingIOError):
                    text.extend(os.read(reader, 1 << 20))
                return any(json.loads(line)["event"] == "lost" and line.find(b"}") > 0
                           for line in bytes(text).split(b"\n")[:-1])
            wait_until(told, "the event that says how many were lost")
            for line in bytes(text).split(b"\n")[:-1]:
                json.loads(line)
        listener.close()
        os.close(reader)


@test
def a_reader_that_ends_is_no_harm(lab):
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/fifo"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with lab.guest("--profile", "none", "--events", path, rules=()) as guest:
            os.close(reader)
            fails_with(errno.ECONNREFUSED, guest.connect, INTERNET4, 80)
            wait_until(lambda: guest.counters().get("events_lost"), "the loss to be counted")


# ---- files and descriptors ----


def run(lab, *words, **options):
    with lab.host:
        return subprocess.run([CULVERT, "run", *words], capture_output=True, text=True,
                              timeout=3 * DEADLINE, **options)


def try_ports(*ends):
    """A command that tries to connect and says how that went."""
    body = "import socket\nfor end in %r:\n  try: socket.create_connection(end, 5); print('open')\n" \
           "  except OSError as e: print(e.errno)\n" % (ends,)
    return ["--", "python3", "-c", body]


@test
def events_go_to_stdout_beside_what_the_command_writes(lab):
    done = run(lab, "--profile", "none", "--events", "-", "--quiet", *try_ports((INTERNET4, 80)))
    equal(done.returncode, 0, done.stderr)
    lines = done.stdout.splitlines()
    check(str(errno.ECONNREFUSED) in lines, lines)
    event, = [json.loads(line) for line in lines if line.startswith("{")]
    equal(event["remote"], INTERNET4)
    equal(done.stderr, "")


@test
def a_file_is_appended_to_and_is_the_users_alone(lab):
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/events"
        for _ in range(2):
            run(lab, "--profile", "none", "--events", path, *try_ports((INTERNET4, 80)))
        with open(path) as file:
            equal(len(file.readlines()), 2)
        equal(os.stat(path).st_mode & 0o777, 0o600)


@test
def what_cannot_be_opened_is_said_at_the_start(lab):
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(folder + "/fifo")
        for path, mend in ((folder + "/none/x", "a folder that you may write to"),
                           (folder, "a folder"), (folder + "/fifo", "start what reads the pipe"),
                           ("", "name a file")):
            done = run(lab, "--events", path, "--", "echo", "never")
            equal((done.returncode, done.stdout), (125, ""))
            check("events" in done.stderr and mend in done.stderr, done.stderr)
            equal(done.stderr.count("\n"), 1, done.stderr)


@test
def hup_opens_the_file_anew_for_who_rotates_it(lab):
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/events"
        with Serve(lab, "--stream", folder + "/socket", "--events", path) as served:
            os.rename(path, path + ".1")
            served.process.send_signal(signal.SIGHUP)
            wait_until(lambda: os.path.exists(path) and os.path.getsize(path), "a new file")
            with open(path) as file:
                equal(json.loads(file.readline())["event"], "policy_replaced")
            equal(os.path.getsize(path + ".1"), 0)


# ---- the summary ----


@test
def when_the_command_has_ended_a_summary_says_what_would_have_allowed_it(lab):
    done = run(lab, "--", "sh", "-c", "for i in 1 2 3; do nc -z -w2 10.9.9.9 443; done; "
               f"nc -z -w2 {GATEWAY4} 22; nc -z -w2 {METADATA} 80; echo out; exit 7")
    equal((done.returncode, done.stdout), (7, "out\n"))
    lines = [" ".join(line.split()) for line in done.stderr.splitlines()]
    equal(lines, ["culvert: denied, and what would allow it:",
                  "culvert: 3 tcp to 10.9.9.9 port 443 --rule 'allow tcp to 10.9.9.9 port 443'",
                  "culvert: 1 tcp to 10.0.2.2 port 22 --rule 'allow tcp to host port 22'",
                  f"culvert: 1 tcp to {METADATA} port 80 --rule 'allow tcp to {METADATA} port 80'"])


@test
def what_the_summary_says_is_so(lab):
    done = run(lab, *try_ports((GATEWAY4, 9)))
    rule = done.stderr.split("--rule '")[1].split("'")[0]
    with lab.host.listen("127.0.0.1", 9):
        equal(run(lab, "--rule", rule, *try_ports((GATEWAY4, 9))).stdout, "open\n")


@test
def the_summary_is_short_and_counts_the_others(lab):
    ends = tuple((f"10.9.9.{i}", 80) for i in range(1, 26))
    lines = run(lab, *try_ports(*ends)).stderr.splitlines()
    equal(len(lines), 12, lines)
    equal(lines[-1], "culvert: and 15 more; --events FILE records them all")


@test
def nothing_is_said_where_nothing_was_denied_or_quiet_was_asked_for(lab):
    equal(run(lab, "--", "true").stderr, "")
    equal(run(lab, "--quiet", *try_ports((GATEWAY4, 22))).stderr, "")


# ---- audit ----


@for_each(address=[INTERNET4, INTERNET6])
def audit_lets_through_and_tells_what_would_be_denied(lab, address):
    with Watched(lab, "--profile", "none", "--audit") as watched, \
            lab.internet.listen(address) as listener:
        port = listener.getsockname()[1]
        watched.guest.connect(address, port).close()
        event = watched.wait(event="would_deny", protocol="tcp")
        equal((event["remote"], event["reason"]), (address, "policy_denied_default"))
        equal(event["allow"], f"allow tcp to {address} port {port}")
        counters = watched.guest.counters()
        equal(counters["policy_would_deny"], 1)
        check("policy_denied_default" not in counters, counters)
        status, _, _ = watched.guest.run("ping", "-c", "1", "-W", "5", address)
        equal(status, 0)
        watched.wait(event="would_deny", protocol="icmp")


@test
def audit_does_not_lift_the_floor(lab):
    with Watched(lab, "--profile", "all", "--audit", rules=("deny to host",)) as watched:
        fails_with(errno.ECONNREFUSED, watched.guest.connect, GATEWAY4, 22)
        fails_with(errno.ECONNREFUSED, watched.guest.connect, METADATA, 80)
        watched.wait(event="denied", remote=GATEWAY4)
        watched.wait(event="denied", remote=METADATA)


@test
def audit_has_denied_names_resolved_and_served(lab):
    _, watched = by_names(lab, "--audit")
    with watched:
        guest = watched.guest
        equal(dig(guest, "front.other.test"), ("NOERROR", [WWW4]))
        event = watched.wait(event="would_deny", name="front.other.test", reason="dns_denied")
        equal(event["name_from"], "question")
        equal(dig(guest, "inside.ok.test"), ("NOERROR", ["192.168.7.7"]))
        watched.wait(event="would_deny", reason="dns_rebinding", remote="192.168.7.7")
        with guest.connect(WWW4, 80) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: front.other.test\r\n\r\n")
            check(b"host=front.other.test" in connection.recv(4096), "no answer")
        dig(guest, "api.ok.test")
        with guest.connect(API4, 80) as connection:  # looked into, and still let through
            connection.sendall(b"GET / HTTP/1.0\r\nHost: front.other.test\r\n\r\n")
            check(b"host=front.other.test" in connection.recv(4096), "no answer")
        watched.wait(event="would_deny", name="front.other.test", remote=API4)
        with guest.connect(API4, 443) as connection:
            connection.sendall(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff")
            check(connection.recv(1) == b"\x15", "the server's own alert")
        watched.wait(event="would_deny", reason="policy_hello_malformed")


@test
def audit_passes_on_what_was_held_for_a_hello_that_comes_too_late(lab):
    _, watched = by_names(lab, "--audit")
    with watched, lab.internet.listen(WWW4, 8081) as listener:
        dig(watched.guest, "www.ok.test")
        with watched.guest.connect(WWW4, 8081) as connection:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(2 * DEADLINE)
                connection.sendall(b"G")
                begun = time.monotonic()
                equal(peer.recv(2), b"G")
                check(time.monotonic() - begun > 9, "it was not held")
                connection.sendall(b"ET")
                equal(peer.recv(3), b"ET")
                peer.sendall(b"and back")
                equal(receive_exactly(connection, 8), b"and back")
        event = watched.wait(event="would_deny", reason="policy_hello_late")
        equal((event["remote"], event["remote_port"]), (WWW4, 8081))


@test
def the_summary_of_an_audit_says_that_it_would_have_been_denied(lab):
    with lab.internet.listen(INTERNET4) as listener:
        end = listener.getsockname()
        done = run(lab, "--profile", "none", "--audit", *try_ports(end))
    equal(done.stdout, "open\n")
    check("would have been denied" in done.stderr, done.stderr)
    check(f"--rule 'allow tcp to {end[0]} port {end[1]}'" in done.stderr, done.stderr)


main()
