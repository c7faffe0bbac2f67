#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""What leaves for a resolver outside and what comes back from it, to the byte: the resolver is the
test's own (name_server.py), the stubs inside are real (dig, drill)."""

import re
import shutil
import socket
import struct
import tempfile
import threading

from lab import (DEADLINE, SANITIZED, Skip, check, equal, for_each, main, receive_exactly, test,
                 wait_until)
from name_server import (A, AAAA, AD, CD, FORMERR, NOERROR, NXDOMAIN, RA, RD, SERVFAIL, TC, TXT,
                         NameServer, address, opt, question, record, sign_zone, soa, wire_name,
                         zone_answer)
from stubs import DNS4, DNS6, dig

SERVER, OTHER = "93.184.216.37", "93.184.216.38"
GOOD, FORGED = "93.184.216.80", "45.33.99.99"
BY_NAME = ("allow tcp to *.ok.test port 443", "allow tcp to *.signed.test port 443")
ALL = ("allow any to any",)


_cache = {}


def sandbox(lab, rules=ALL):
    return lab.guest("--profile", "none", "--dns", SERVER, rules=rules)


def stub(guest):
    """A UDP socket inside that talks to the resolver."""
    client = guest.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    client.connect((DNS4, 53))
    return client


def good(query):
    return query.reply([address(GOOD)])


def held():
    """Answers that wait, and the event that releases them."""
    release = threading.Event()

    def answer(query):
        release.wait(DEADLINE)
        return good(query)
    return answer, release


def rcode_of(message):
    return message[3] & 15


# ---- what leaves ----


@for_each(transport=["+notcp", "+tcp"])
def nothing_but_the_question_leaves(lab, transport):
    """Not the stub's cookie, its client subnet, its padding, options or flags nobody knows."""
    with NameServer(lab, SERVER, good) as server, sandbox(lab) as guest:
        _, data, _ = dig(guest, transport, "+cookie", "+nsid", "+subnet=192.0.2.0/24",
                         "+padding=128", "+ednsopt=65001:5345435245540a", "+zflag",
                         "+ednsflags=0x55", "+bufsize=4000", "www.ok.test", "A")
        equal(data, [GOOD])
        query = server.seen[0]
        equal(query.flags & ~(RD | AD | CD), 0, "flags")
        equal((query.counts, query.rest), ([1, 0, 0, 1], opt()))
        check(b"SECRET" not in query.message, "an option got out")


@test
def dnssec_is_asked_for_if_the_guest_does(lab):
    with NameServer(lab, SERVER, good) as server, sandbox(lab) as guest:
        dig(guest, "+dnssec", "+cdflag", "with.ok.test")
        dig(guest, "+nodnssec", "+noadflag", "without.ok.test")
        equal({(query.text, query.do, query.flags) for query in server.seen},
              {("with.ok.test", True, RD | AD | CD), ("without.ok.test", False, RD)})


@test
def ids_ports_and_capitals_cannot_be_foreseen(lab):
    with NameServer(lab, SERVER, good) as server, sandbox(lab) as guest:
        client = stub(guest)
        for i in range(64):
            message = question(i, f"name-of-some-length-{i}.ok.test")
            client.send(message)
            answer = client.recv(2000)
            equal(answer[12:len(message)], message[12:], "the guest's own case")
        check(len({query.source[1] for query in server.seen}) > 56, "ports")
        check(len({query.id for query in server.seen}) > 56, "ids")
        ids = sorted(query.id for query in server.seen)
        check(ids[0] < 0x4000 and ids[-1] >= 0xc000, f"ids {ids}")
        for query in server.seen:
            letters = re.sub(rb"[^A-Za-z]", b"", query.name)
            check(not letters.islower() and not letters.isupper(), f"the case of {query.name}")


@test
def equal_questions_under_way_are_asked_once(lab):
    answer, release = held()
    with NameServer(lab, SERVER, answer) as server, sandbox(lab) as guest:
        client = stub(guest)
        for i in range(100):
            client.send(question(i, "WWW.ok.test" if i % 2 else "www.ok.TEST"))
        wait_until(lambda: guest.counters().get("dns_coalesced") == 99, "99 have joined the first")
        release.set()
        answers = [client.recv(2000) for _ in range(100)]
        equal(sorted(struct.unpack("!H", a[:2])[0] for a in answers), list(range(100)))
        # asked again where the answer took longer than the patience, but never a hundred times
        check(len(server.seen) <= 4, f"asked {len(server.seen)} times")


@test
def questions_beyond_the_bound_get_servfail_at_once_and_the_others_their_answer(lab):
    answer, release = held()
    with NameServer(lab, SERVER, answer), sandbox(lab) as guest:
        client = stub(guest)
        for i in range(1100):
            client.send(question(i, f"n{i}.ok.test"))
            if i % 100 == 99:  # not more at once than the device holds
                wait_until(lambda: guest.counters().get("dns_udp_messages") == i + 1, "questions")
        refused = [client.recv(2000) for _ in range(1100 - 1024)]
        equal({rcode_of(a) for a in refused}, {SERVFAIL})
        equal(guest.counters()["dns_query_limit"], 1100 - 1024)
        release.set()
        answers = [client.recv(2000) for _ in range(1024)]
        equal({rcode_of(a) for a in answers}, {NOERROR})
        client.send(question(7, "after.ok.test"))
        equal(rcode_of(client.recv(2000)), NOERROR)


@test
def answers_by_tcp_come_as_they_are_known(lab):
    release = threading.Event()

    def answer(query):
        if query.text.startswith("slow"):
            release.wait(DEADLINE)
        return good(query)
    with NameServer(lab, SERVER, answer), sandbox(lab) as guest, guest.connect(DNS4, 53) as client:
        for number, name in ((1, "slow.ok.test"), (2, "fast.ok.test"), (3, "other.ok.test")):
            message = question(number, name)
            client.sendall(struct.pack("!H", len(message)) + message)
        seen = set()
        for _ in range(2):
            length, = struct.unpack("!H", receive_exactly(client, 2))
            seen.add(struct.unpack("!H", receive_exactly(client, length)[:2])[0])
        equal(seen, {2, 3})
        release.set()
        length, = struct.unpack("!H", receive_exactly(client, 2))
        equal(receive_exactly(client, length)[:2], b"\0\1")


# ---- forged answers ----

FORGERIES = {
    "id": lambda q: q.reply([address(FORGED)], number=q.id ^ 1),
    "name": lambda q: q.reply([address(FORGED)], asked=wire_name("evil.test") + q.question[-4:]),
    "type": lambda q: q.reply([address(FORGED)], asked=q.name + struct.pack("!2H", AAAA, 1)),
    "class": lambda q: q.reply([address(FORGED)], asked=q.name + struct.pack("!2H", A, 3)),
    "direction": lambda q: question(q.id, q.name),
    "opcode": lambda q: q.reply([address(FORGED)], flags=RA | 0x2800),
    "question": lambda q: struct.pack("!6H", q.id, 0x8180, 0, 1, 0, 0) +
    address(FORGED, name=wire_name("www.ok.test")),
    "length": lambda q: q.reply()[:11],
}


@for_each(wrong=list(FORGERIES))
def an_answer_with_a_wrong(lab, wrong):
    """… is passed over, and the right one behind it taken."""
    def answer(query):
        return [FORGERIES[wrong](query), good(query)]
    with NameServer(lab, SERVER, answer), sandbox(lab) as guest:
        equal(dig(guest, "www.ok.test", "A")[1], [GOOD])
        check(guest.counters()["dns_answer_mismatch"] > 0, "it was counted")


@for_each(wrong=["address", "port"])
def an_answer_from_another(lab, wrong):
    """… is not heard."""
    lab.has(OTHER + "/32")
    with lab.internet.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((OTHER, 53) if wrong == "address" else (SERVER, 0))

        def answer(query):
            other.sendto(query.reply([address(FORGED)]), query.source)
            return good(query)
        with NameServer(lab, SERVER, answer), sandbox(lab) as guest:
            equal(dig(guest, "www.ok.test", "A")[1], [GOOD])


@test
def an_answer_in_another_case_is_asked_for_again(lab):
    """It may be a forger's who did not see the question; who always loses the case is believed."""
    def answer(query):
        lower = query.name.lower() + query.question[-4:]
        return query.reply([address(FORGED if len(server.seen) == 1 else GOOD)], asked=lower)
    with NameServer(lab, SERVER, answer) as server, sandbox(lab) as guest:
        equal(dig(guest, "www.long-enough-to-have-capitals.ok.test", "A")[1], [GOOD])
        check(guest.counters()["dns_answer_folded"] > 0, "it was counted")


HOSTILE = {
    "a_loop_of_pointers": lambda q: [record(A, b"\1\2\3\4", name=struct.pack(
        "!H", 0xc000 + 12 + len(q.question)))],
    "a_pointer_ahead": lambda q: [record(A, b"\1\2\3\4", name=b"\xc3\xff")],
    "a_name_of_257_bytes": lambda q: [record(A, b"\1\2\3\4",
                                             name=(b"\x3f" + b"x" * 63) * 4 + b"\0")],
    "a_reserved_label": lambda q: [record(A, b"\1\2\3\4", name=b"\x81x\0")],
    "data_beyond_the_end": lambda q: [b"\xc0\x0c" + struct.pack("!2HIH", A, 1, 60, 400) + b"\1\2"],
    "a_record_cut_short": lambda q: [b"\xc0\x0c\0\1"],
    "fewer_records_than_it_says": lambda q: [b"", b"", b""],
}


@for_each(what=list(HOSTILE))
def an_answer_with(lab, what):
    """… is counted and not passed on."""
    with NameServer(lab, SERVER, lambda query: query.reply(HOSTILE[what](query))), \
            sandbox(lab) as guest:
        for transport in ("+notcp", "+tcp"):
            equal(dig(guest, transport, f"{transport[1:]}.ok.test", "A")[:2], ("SERVFAIL", []))
        check(guest.counters()["dns_answer_malformed"] >= 2, "they were counted")


@test
def an_address_does_not_hide_behind_a_name_that_never_ends(lab):
    """A record's owner points into the question, where its letters make a label that runs on beyond
    the message: only there, or in what a reply has there, would it end. Whoever gives up at that
    record must not pass on the next."""
    def answer(query):
        if query.kind != A:
            return query.reply()
        endless = record(TXT, b"\x08" + b"x" * 8, name=b"\xc0\x11")  # "2", thus 50 bytes
        return query.reply([endless, address("10.0.0.1")]) + b"\0"
    with NameServer(lab, SERVER, answer), sandbox(lab, BY_NAME) as guest:
        client = stub(guest)
        client.send(question(1, "www.2.ok.test", extra=opt()))
        reply = client.recv(2000)
        equal(rcode_of(reply), SERVFAIL)
        check(socket.inet_aton("10.0.0.1") not in reply, "the address")
        check(guest.counters()["dns_answer_malformed"] > 0, "it was counted")


@test
def answers_cut_anywhere_harm_nobody(lab):
    """Each is followed by the whole one, for those that are too short to be one at all."""
    def answer(query):
        whole = query.reply([record(TXT, b"\7content"), record(2, wire_name("a.b.c"))],
                            [soa(b"\xc0\x0c")], [opt()])
        cut = int(query.text.split(".")[0][1:])
        return [whole[:cut], whole]
    with NameServer(lab, SERVER, answer), sandbox(lab) as guest:
        client = stub(guest)
        for i in range(130):
            client.send(question(i, f"c{i:03d}.ok.test", TXT))
            check(rcode_of(client.recv(2000)) in (NOERROR, SERVFAIL, FORMERR), f"cut at {i}")


# ---- what comes back ----


@for_each(transport=["+notcp", "+tcp"])
def types_that_nobody_knows_pass_intact(lab, transport):
    data = bytes(range(256)) + b"\xc0\x0c"  # no pointer, although it looks like one
    with NameServer(lab, SERVER, lambda query: query.reply([record(query.kind, data)])), \
            sandbox(lab, BY_NAME) as guest:
        for kind in (777, 4711, 65400):
            _, answer, out = dig(guest, transport, "+bufsize=1232", "+unknownformat", "www.ok.test",
                                 f"TYPE{kind}")
            equal("".join(answer[0].split()[2:]).lower(), data.hex(), out)


@test
def svcb_and_https_pass_intact_where_no_rule_is_by_name(lab):
    data = b"\0\1\0" + struct.pack("!2H", 4, 4) + b"\1\2\3\4"  # ipv4hint
    with NameServer(lab, SERVER, lambda query: query.reply([record(query.kind, data)])), \
            sandbox(lab) as guest:
        equal(dig(guest, "www.ok.test", "HTTPS")[1], ["1 . ipv4hint=1.2.3.4"])


@test
def options_of_the_resolver_are_not_passed_on(lab):
    cookie = struct.pack("!2H", 10, 24) + b"c" * 24
    ede = struct.pack("!3H", 15, 8, 3) + b"words!"
    nsid = struct.pack("!2H", 3, 6) + b"server"
    options = opt(cookie + ede + nsid, do=True)
    with NameServer(lab, SERVER, lambda query: query.reply(
            [address(GOOD)], additional=[options])), sandbox(lab) as guest:
        _, data, out = dig(guest, "+cookie", "+nsid", "www.ok.test", "A")
        equal(data, [GOOD])
        check("EDNS: version: 0, flags:; udp: 4096" in out, out)
        for word in ("63636363", "words", "NSID", "server)"):
            check(word not in out, f"{word} in {out}")
        check("OPT" not in dig(guest, "+noedns", "www.ok.test", "A")[2], "OPT for who has none")


NOT_PUBLIC = ["10.0.0.1", "10.0.2.2", "127.0.0.1", "0.0.0.0", "169.254.169.254", "100.100.100.200",
              "192.168.1.1", "172.16.0.1", "100.64.0.1", "224.0.0.1", "255.255.255.255",
              "192.0.0.8", "198.18.0.1", "93.184.216.2", "::1", "::", "::ffff:10.0.0.1", "::10.0.0.1",
              "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "fe80::1", "fd00:ec2::254",
              "fd63:756c:7665::2", "2002:a00:1::", "2001::1", "ff02::1"]


@test
def a_name_does_not_lead_to_an_address_that_is_not_public(lab):
    """Rebinding: the address goes, its neighbours stay."""
    def answer(query):
        hidden = NOT_PUBLIC[int(query.text.split(".")[0])]
        if (query.kind == AAAA) != (":" in hidden):
            return query.reply()
        stays = "2606:2800:220:1::80" if query.kind == AAAA else GOOD
        return query.reply([address(hidden), address(stays)])
    with NameServer(lab, SERVER, answer), sandbox(lab, BY_NAME) as guest:
        for i, hidden in enumerate(NOT_PUBLIC):
            stays = "2606:2800:220:1::80" if ":" in hidden else GOOD
            rcode, data, out = dig(guest, f"{i}.ok.test", "AAAA" if ":" in hidden else "A")
            equal((rcode, data), ("NOERROR", [stays]), hidden)
            check("EDE: 17" in out, out)
        equal(guest.counters()["dns_rebinding"], len(NOT_PUBLIC))


@for_each(server=[DNS4, DNS6])
def an_answer_of_64_kib_comes_whole_by_tcp(lab, server):
    text = b"".join(bytes([255]) + b"%03d" % i + b"z" * 252 for i in range(255))

    def answer(query):
        room = 65535 - len(query.reply()) - 12
        reply = query.reply([record(TXT, (text + b"\xff" + b"e" * 255)[:room])])
        return reply if query.transport == "tcp" else query.reply(flags=RA | TC)
    with NameServer(lab, SERVER, answer), sandbox(lab) as guest, \
            guest.connect(server, 53) as client:
        for number in (1, 2):  # the second comes from the cache or not, but as whole
            message = question(number, "huge.ok.test", TXT)
            client.sendall(struct.pack("!H", len(message)) + message)
            length, = struct.unpack("!H", receive_exactly(client, 2))
            equal(length, 65535)
            body = receive_exactly(client, length)
            equal((body[:2], rcode_of(body)), (struct.pack("!H", number), NOERROR))
            check(text[:60000] in body, "the text")


@test
def a_question_of_64_kib_is_formerr_and_the_next_is_answered(lab):
    with NameServer(lab, SERVER, good) as server, sandbox(lab) as guest, \
            guest.connect(DNS4, 53) as client:
        long = question(1, "www.ok.test", extra=opt(struct.pack("!2H", 12, 65000) + bytes(65000)))
        whole = question(2, "www.ok.test")
        for message in (long, whole):
            client.sendall(struct.pack("!H", len(message)) + message)
        for number, rcode in ((1, FORMERR), (2, NOERROR)):
            length, = struct.unpack("!H", receive_exactly(client, 2))
            body = receive_exactly(client, length)
            equal((body[:2], rcode_of(body)), (struct.pack("!H", number), rcode))
        equal({query.transport for query in server.seen}, {"udp"})


# ---- names ----


@test
def names_with_any_byte_in_them_pass_as_they_are(lab):
    names = [b"\3a\0b\2ok\4test\0", b"\5a.b.c\2ok\4test\0", b"\4\xff\x80\n\x07\2ok\4test\0",
             (b"\x3d" + b"y" * 61) * 3 + b"\x3a" + b"z" * 58 + b"\2ok\4test\0"]
    equal(len(names[-1]), 254)
    names.append((b"\x3e" + b"y" * 62) + names[-1][62:])
    equal(len(names[-1]), 255)
    with NameServer(lab, SERVER, good) as server, sandbox(lab, BY_NAME) as guest:
        client = stub(guest)
        for i, name in enumerate(names):
            client.send(question(i, name))
            answer = client.recv(2000)
            equal((rcode_of(answer), answer[12:12 + len(name)]), (NOERROR, name))
            equal(server.seen[-1].name.lower(), name.lower())


ALIKE = {
    "has_a_dot_in_a_label": b"\6www.ok\4test\0",
    "is_one_label_of_dots": b"\x0bwww.ok.test\0",
    "has_a_nul_behind_it": b"\3www\3ok\0\4test\0",
    "ends_in_a_nul": b"\3www\2ok\5test\0\0",
    "has_more_in_front": b"\3www\4xxok\4test\0",
    "goes_on": b"\3www\2ok\4test\4evil\0",
}


@for_each(how=list(ALIKE))
def an_allowed_name_it_is_not_if_it(lab, how):
    with NameServer(lab, SERVER, good) as server, sandbox(lab, BY_NAME) as guest:
        client = stub(guest)
        client.send(question(1, ALIKE[how]))
        equal(rcode_of(client.recv(2000)), NXDOMAIN)
        equal(server.seen, [])


# ---- the cache ----


@test
def that_there_is_nothing_is_kept_for_as_long_as_the_zone_says(lab):
    def answer(query):
        ttl = 1 if query.text.startswith("short") else 300
        return query.reply(authority=[soa(wire_name("ok.test"), ttl, ttl)], rcode=NXDOMAIN)
    with NameServer(lab, SERVER, answer) as server, sandbox(lab) as guest:
        for name in ("long.ok.test", "short.ok.test"):
            equal(dig(guest, name, "A")[0], "NXDOMAIN")
        long, short = len(server.asked("long.ok.test")), len(server.asked("short.ok.test"))
        wait_until(lambda: dig(guest, "short.ok.test", "A")[0] == "NXDOMAIN" and
                   len(server.asked("short.ok.test")) > short, "its second is over")
        equal(dig(guest, "long.ok.test", "A")[0], "NXDOMAIN")
        equal(len(server.asked("long.ok.test")), long)


@test
def an_answer_is_asked_for_again_when_its_time_is_over(lab):
    def answer(query):
        return query.reply([address(f"93.184.216.{len(server.seen)}", ttl=1)])
    with NameServer(lab, SERVER, answer) as server, sandbox(lab) as guest:
        first = dig(guest, "www.ok.test", "A")[1]
        wait_until(lambda: dig(guest, "www.ok.test", "A")[1] != first, "a new answer")


@test
def an_answer_without_time_is_asked_for_each_time(lab):
    with NameServer(lab, SERVER, lambda query: query.reply([address(GOOD, ttl=0)])) as server, \
            sandbox(lab) as guest:
        for _ in range(3):
            before = len(server.seen)
            equal(dig(guest, "www.ok.test", "A")[1], [GOOD])
            check(len(server.seen) > before, "it was asked for")


@test
def more_answers_than_the_cache_holds_make_the_oldest_go(lab):
    with NameServer(lab, SERVER, lambda q: q.reply([address(GOOD, ttl=3600)])) as server, \
            sandbox(lab) as guest:
        client = stub(guest)
        before = guest.resident()
        for start in range(0, 9000, 500):
            for i in range(start, start + 500):
                client.send(question(i, f"n{i}.ok.test"))
            for _ in range(500):
                equal(rcode_of(client.recv(2000)), NOERROR)
        equal(guest.counters()["dns_cache_evicted"], 9000 - 8192)
        check(SANITIZED or guest.resident() - before < 16 << 20, "memory")
        for number, is_kept in ((8999, True), (0, False)):
            asked = len(server.asked(f"n{number}.ok.test"))
            client.send(question(1, f"n{number}.ok.test"))
            client.recv(2000)
            equal(len(server.asked(f"n{number}.ok.test")) == asked, is_kept)


# ---- DNSSEC ----


def signed_zone():
    """(answers from a zone that is signed, its key)"""
    if not shutil.which("ldns-signzone") or not shutil.which("drill"):
        raise Skip("ldnsutils are needed")
    if "key" not in _cache:
        _cache["folder"] = tempfile.mkdtemp()
        records, _cache["key"] = sign_zone(_cache["folder"], "signed.test", [
            "@ SOA ns.signed.test. root.signed.test. 1 60 60 600 60", "@ NS ns.signed.test.",
            f"ns A {SERVER}", f"www A {GOOD}", "www AAAA 2606:2800:220:1::80", "www TXT \"words\"",
            f"mixed A {GOOD}", "mixed A 10.0.0.1"])
        _cache["answer"] = zone_answer(records)
    return _cache["answer"], _cache["key"]


def drill(guest, key, *words):
    """Validates the answer against the zone's key."""
    status, out, err = guest.run("drill", "-D", "-b", "1232", "-k", key, "@" + DNS4, *words)
    return status, out + err


@for_each(transport=["-u", "-t"])
def signatures_hold_inside(lab, transport):
    answer, key = signed_zone()
    with NameServer(lab, SERVER, answer), sandbox(lab, BY_NAME) as guest:
        for name, kind in (("www.signed.test", "A"), ("www.signed.test", "AAAA"),
                           ("WWW.Signed.test", "TXT"), ("signed.test", "DNSKEY"),
                           ("signed.test", "SOA")):
            for _ in range(2):  # from outside, then from the cache
                status, out = drill(guest, key, transport, name, kind)
                check(status == 0 and "Bad data" not in out, f"{name} {kind}: {status} {out}")
                check("RRSIG" in out, out)


@test
def a_forged_record_does_not_hold_inside(lab):
    """That drill would see it."""
    answer, key = signed_zone()

    def forge(query):
        return answer(query).replace(socket.inet_aton(GOOD), socket.inet_aton(FORGED))
    with NameServer(lab, SERVER, forge), sandbox(lab, BY_NAME) as guest:
        status, out = drill(guest, key, "www.signed.test", "A")
        check(status != 0 or "Bad data" in out, f"{status} {out}")


@for_each(name=["nobody.signed.test", "www.signed.test"])
def the_proof_that_there_is_nothing_holds_inside(lab, name):
    answer, key = signed_zone()
    with NameServer(lab, SERVER, answer), sandbox(lab, BY_NAME) as guest:
        for transport in ("+notcp", "+tcp"):
            rcode, data, out = dig(guest, "+dnssec", transport, name, "MX")
            equal((rcode, data), ("NXDOMAIN" if name.startswith("nobody") else "NOERROR", []))
            equal((len(re.findall(r"IN\s+NSEC\s", out)), len(re.findall(r"IN\s+RRSIG\s", out))),
                  (4, 5))
            check(" ad" in re.search(r"flags:([^;]*);", out)[1], out)
        status, out = drill(guest, key, name, "MX")
        check(status == 0 and "Bad data" not in out, f"{status} {out}")


@test
def an_unchanged_answer_keeps_what_it_says_about_itself(lab):
    answer, _ = signed_zone()
    with NameServer(lab, SERVER, answer), sandbox(lab, BY_NAME) as guest:
        _, data, out = dig(guest, "+dnssec", "www.signed.test", "A")
        equal(data[0], GOOD)
        check("RRSIG" in out and " ad" in re.search(r"flags:([^;]*);", out)[1], out)
        check("flags: do" in out, out)
        _, data, out = dig(guest, "+nodnssec", "www.signed.test", "A")
        equal(data, [GOOD])
        check("RRSIG" not in out and "flags: do" not in out, out)


@test
def a_changed_answer_says_so_and_has_no_signatures(lab):
    answer, _ = signed_zone()
    with NameServer(lab, SERVER, answer), sandbox(lab, BY_NAME) as guest:
        rcode, data, out = dig(guest, "+dnssec", "mixed.signed.test", "A")
        equal((rcode, data), ("NOERROR", [GOOD]))
        check("RRSIG" not in out and " ad" not in re.search(r"flags:([^;]*);", out)[1], out)
        check("EDE: 17" in out, out)
    with NameServer(lab, SERVER, answer), sandbox(lab, ALL) as guest:
        _, data, out = dig(guest, "+dnssec", "mixed.signed.test", "A")
        check({GOOD, "10.0.0.1"} <= set(data) and "RRSIG" in out, out)


if __name__ == "__main__":
    main()
