#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""--learn writes the policy that allows what was used, and nothing else."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import tempfile

import quic
from lab import (CULVERT, DEADLINE, GATEWAY4, INTERNET4, check, equal, fails_with, for_each, main,
                 receive_exactly, test)
from outside import (API6, CORP4, DEEP4, NOTOK4, WWW4, WWW6, Outside, client_hello, curl, dig)
from serving import Serve

_cache = {}


def outside_of(lab):
    if "outside" not in _cache:
        _cache["outside"] = Outside(lab)
    return _cache["outside"]


class Lesson(contextlib.AbstractContextManager):
    """A guest that is learnt from, and then one that has learnt."""

    def __init__(self, lab, *options, **keywords):
        self.lab, self.outside = lab, outside_of(lab)
        self.folder = tempfile.TemporaryDirectory()
        self.path = self.folder.name + "/learnt.json"
        self.options, self.keywords = options, keywords

    def __exit__(self, *_):
        self.folder.cleanup()

    def learn(self, use):
        """`use(guest)` under --learn; returns what the guest's culvert said."""
        guest = self.lab.guest("--dns", INTERNET4, "--learn", self.path, *self.options,
                               **{"rules": (), **self.keywords})
        try:
            use(guest)
        finally:
            text = guest.close()
        with open(self.path, encoding="ascii") as file:
            self.document = json.load(file)
        return text

    def rules(self):
        return [rule if isinstance(rule, str) else rule["rule"] for rule in self.document["rules"]]

    def learnt(self):
        """A guest under the policy that was written."""
        return self.lab.guest("--dns", INTERNET4, "--policy", self.path, rules=())


def http(guest, address, host, port=80):
    with guest.connect(address, port) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        return connection.recv(4096).decode()


def http_is_refused(guest, address, host, port=80):
    with contextlib.suppress(ConnectionError):
        check("200 OK" not in http(guest, address, host, port), "it was let through")


@test
def what_was_used_by_name_works_again_and_nothing_else_does(lab):
    def use(guest):
        for url in ("https://www.ok.test/", "https://www.ok.test:8443/", "http://www.ok.test/",
                    "https://front.other.test/", "http://git.corp.test/"):
            status, out = curl(lesson.outside, guest, url)
            equal(status, 0, url + " " + out)

    with Lesson(lab) as lesson:
        text = lesson.learn(use)
        equal(lesson.rules(), ["allow tcp to front.other.test port 443",
                               f"allow tcp to git.corp.test port 80 in {CORP4}",
                               "allow tcp to www.ok.test port 80,443,8443"])
        check(f"culvert: learnt 3 rules; try them: --policy {lesson.path}" in text, text)
        equal(lesson.document["profile"], "none")
        check("refused" not in lesson.document, lesson.document)
        with lesson.learnt() as guest:
            use(guest)
            equal(dig(guest, "deep.api.ok.test")[0], "NXDOMAIN")
            fails_with(errno.ECONNREFUSED, guest.connect, DEEP4, 80)
            fails_with(errno.ECONNREFUSED, guest.connect, WWW4, 81)
            http_is_refused(guest, WWW4, "shared.denied.test")


@test
def ipv6_is_learnt_by_name_and_by_address(lab):
    def use(guest):
        status, out = curl(lesson.outside, guest, "https://six.ok.test/")
        equal(status, 0, out)
        check("host=x" in http(guest, WWW6, "x"), "no answer")

    with Lesson(lab) as lesson:
        lesson.learn(use)
        equal(lesson.rules(), ["allow tcp to six.ok.test port 443", f"allow tcp to {WWW6} port 80"])
        with lesson.learnt() as guest:
            use(guest)
            fails_with(errno.ECONNREFUSED, guest.connect, API6, 80)


@test
def what_no_name_would_admit_is_learnt_by_address_with_the_name_beside_it(lab):
    """A literal address, a name that was not looked up, TLS without a name."""
    def use(guest):
        check("200 OK" in http(guest, NOTOK4, NOTOK4), "no answer")
        dig(guest, "www.ok.test")
        with guest.connect(WWW4, 443) as connection:
            connection.sendall(client_hello(None))
            check(connection.recv(1) == b"\x16", "no ServerHello")
        check("host=never.asked.test" in http(guest, DEEP4, "never.asked.test"), "no answer")

    with Lesson(lab) as lesson:
        lesson.learn(use)
        equal(lesson.rules(), ["allow to dns", f"allow tcp to {WWW4} port 443",
                               f"allow tcp to {DEEP4} port 80", f"allow tcp to {NOTOK4} port 80"])
        comments = {rule["rule"]: rule["comment"] for rule in lesson.document["rules"]
                    if not isinstance(rule, str)}
        check("www.ok.test" in comments[f"allow tcp to {WWW4} port 443"], comments)
        check("never.asked.test" in comments[f"allow tcp to {DEEP4} port 80"], comments)
        with lesson.learnt() as guest:
            use(guest)
            fails_with(errno.ECONNREFUSED, guest.connect, WWW4, 80)


@test
def pings_datagrams_and_quic_are_learnt(lab):
    echo = lab.internet.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind((WWW4, 4000))
    server = lab.internet.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((WWW4, 443))

    def use(guest):
        dig(guest, "www.ok.test")
        status, out, _ = guest.run("ping", "-c", "1", "-W", "5", WWW4)
        equal(status, 0, out)
        made = guest.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.sendto(b"echo", (WWW4, 4000))
        data, where = echo.recvfrom(100)
        echo.sendto(data, where)
        equal(made.recv(100), b"echo")
        for datagram in quic.Client(os.urandom(8)).hello("www.ok.test", extra=2000):
            made.sendto(datagram, (WWW4, 443))
        check(server.recv(2000), "no Initial")
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while server.recv(2000):
                pass
        server.settimeout(DEADLINE)

    with Lesson(lab) as lesson:
        lesson.learn(use)
        equal(lesson.rules(), ["allow icmp to www.ok.test",
                               "allow udp to www.ok.test port 443,4000"])
        with lesson.learnt() as guest:
            use(guest)
            made = guest.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect((WWW4, 4001))
            made.send(b"x")
            fails_with((errno.EHOSTUNREACH, errno.EACCES, errno.ECONNREFUSED), made.recv, 1)
    echo.close()
    server.close()


@for_each(first=["server", "client"])
def nothing_is_delayed_whoever_speaks_first(lab, first):
    """A client that stops after one letter, which might yet become a request's method."""
    def use(guest):
        with lab.internet.listen(INTERNET4, 2222) as listener:
            with guest.connect(INTERNET4, 2222) as connection:
                peer, _ = listener.accept()
                peer.settimeout(DEADLINE)
                for letter in b"GET":
                    ends = (connection, peer) if first == "client" else (peer, connection)
                    ends[0].sendall(bytes([letter]))
                    equal(receive_exactly(ends[1], 1), bytes([letter]))
                    ends[1].sendall(b"!")
                    equal(receive_exactly(ends[0], 1), b"!")
                peer.close()

    with Lesson(lab) as lesson:
        lesson.learn(use)
        equal(lesson.rules(), [f"allow tcp to {INTERNET4} port 2222"])
        with lesson.learnt() as guest:
            use(guest)


@test
def what_is_cut_short_is_learnt_by_address_as_no_name_would_admit_it(lab):
    def use(guest):
        dig(guest, "www.ok.test")
        with guest.connect(WWW4, 8443) as connection:
            connection.sendall(client_hello("www.ok.test")[:20])
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)

    with Lesson(lab) as lesson:
        lesson.learn(use)
        equal(lesson.rules(), ["allow to dns", f"allow tcp to {WWW4} port 8443"])
        with lesson.learnt() as guest:
            use(guest)


@test
def what_nobody_answered_is_not_written_down(lab):
    with Lesson(lab) as lesson:
        lesson.learn(lambda guest: fails_with(errno.ECONNREFUSED, guest.connect, INTERNET4, 9))
        equal(lesson.rules(), [])


@test
def the_floor_stays_shut_and_what_it_refused_is_listed_beside_the_rules(lab):
    def use(guest):
        fails_with(errno.ECONNREFUSED, guest.connect, GATEWAY4, 22)
        fails_with(errno.ECONNREFUSED, guest.connect, "169.254.169.254", 80)
        fails_with(errno.ECONNREFUSED, guest.connect, INTERNET4, 853)
        check("200 OK" in http(guest, NOTOK4, "x"), "no answer")

    with Lesson(lab) as lesson:
        text = lesson.learn(use)
        equal(lesson.rules(), [f"allow tcp to {NOTOK4} port 80"])
        refused = {entry["what"]: entry.get("allow") for entry in lesson.document["refused"]}
        equal(refused, {"tcp to 10.0.2.2 port 22": "allow tcp to host port 22",
                        "tcp to 169.254.169.254 port 80": "allow tcp to 169.254.169.254 port 80",
                        f"tcp to {INTERNET4} port 853": None})
        check("--rule 'allow tcp to host port 22'" in text, text)
        with lesson.learnt() as guest:
            fails_with(errno.ECONNREFUSED, guest.connect, GATEWAY4, 22)


@test
def what_a_rule_names_below_the_floor_is_learnt_too(lab):
    def use(guest):
        with lab.host.listen("127.0.0.1", 5432):
            guest.connect(GATEWAY4, 5432).close()

    with Lesson(lab, rules=("allow tcp to host port 5432",)) as lesson:
        lesson.learn(use)
        equal(lesson.rules(), [f"allow tcp to {GATEWAY4} port 5432"])
        with lesson.learnt() as guest:
            use(guest)


@test
def rules_that_refuse_do_not_keep_it_from_learning(lab):
    with Lesson(lab, rules=("deny to any", "deny to *.ok.test")) as lesson:
        def use(guest):
            status, out = curl(lesson.outside, guest, "https://www.ok.test/")
            equal(status, 0, out)
        lesson.learn(use)
        equal(lesson.rules(), ["allow tcp to www.ok.test port 443"])


@test
def wildcards_are_written_where_asked_for(lab):
    def use(guest):
        for name in ("www.ok.test", "api.ok.test", "alias.ok.test"):
            status, out = curl(lesson.outside, guest, f"https://{name}/")
            equal(status, 0, out)

    with Lesson(lab, "--learn-wildcards") as lesson:
        lesson.learn(use)
        equal(lesson.rules(), ["allow tcp to *.ok.test port 443"])
        with lesson.learnt() as guest:
            status, out = curl(lesson.outside, guest, "https://many.ok.test/")
            equal(status, 0, out)  # it was not used, but the wildcard covers it
            http_is_refused(guest, WWW4, "shared.denied.test", 443)


@test
def names_that_are_none_are_left_out(lab):
    def use(guest):
        dig(guest, "www.ok.test")
        answer = http(guest, WWW4, "\"quoted\\ name\x01\"")
        check("400" in answer, answer)

    with Lesson(lab) as lesson:
        lesson.learn(use)
        equal(lesson.rules(), ["allow to dns", f"allow tcp to {WWW4} port 80"])


@test
def the_file_is_whole_or_not_there(lab):
    with tempfile.TemporaryDirectory() as folder:
        def run(path, *words):
            with lab.host:
                done = subprocess.run([CULVERT, "run", "--learn", path, *words, "--", "true"],
                                      capture_output=True, text=True, timeout=2 * DEADLINE)
            return done.returncode, done.stderr

        for path in (folder + "/none/x", folder, "/dev/null"):
            status, text = run(path)
            equal(status, 125, text)
            check("learn" in text and "name a file in a folder" in text, text)
        equal(run(folder + "/x", "--audit")[0], 125)
        path = folder + "/real"
        with open(path, "w") as file:
            file.write("old")
        os.symlink(path, folder + "/link")
        equal(run(folder + "/link", "--quiet"), (0, ""))
        with open(path) as file:
            equal(json.load(file)["rules"], [])
        check(os.path.islink(folder + "/link"), "the link was replaced")
        equal(sorted(os.listdir(folder)), ["link", "real"])


@test
def serve_writes_what_it_learnt_when_it_is_ended(lab):
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/learnt.json"
        served = Serve(lab, "--stream", folder + "/socket", "--learn", path, rules=())
        check(not os.path.exists(path), "it is there already")
        served.close()
        with open(path) as file:
            equal(json.load(file)["version"], 1)
        check("learnt 0 rules" in served.stderr(), served.stderr())


main()
