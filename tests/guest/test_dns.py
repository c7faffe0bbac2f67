#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""Names: real stubs inside, a real resolver (dnsmasq) outside, and what happens when the resolver
is silent, absent or replaced.

/etc is a copy of the test's own, so that /etc/resolv.conf can be replaced under culvert's feet."""

import os
import re
import shutil
import socket
import struct
import subprocess
import time

from lab import (CULVERT, GATEWAY4, GATEWAY6, INTERNET4, INTERNET6, SLOWNESS, Skip, check, equal,
                 for_each, in_thread, main, test, wait_until)
from name_server import question
from stubs import DNS4, DNS6, dig

SILENT4, SILENT6 = "93.184.216.66", "2606:2800:220:1::66"
OTHER4 = "93.184.216.35"
TXT_1000 = [f"{i:03d}" + "x" * 197 for i in range(5)]
TXT_3000 = [f"{i:03d}" + "y" * 197 for i in range(15)]

_cache = {}


# ---- the machine ----


def own_etc():
    """A copy of /etc that may be written to, in the mount namespace of this test."""
    for words in (["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"],
                  ["cp", "-a", "/etc", "/mnt/etc"],
                  ["mount", "--bind", "/mnt/etc", "/etc"]):
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def write_resolv_conf(*servers, rename=True):
    text = "".join(f"nameserver {server}\n" for server in servers)
    if rename:
        with open("/etc/resolv.conf.new", "w") as file:
            file.write(text)
        os.rename("/etc/resolv.conf.new", "/etc/resolv.conf")
    else:
        with open("/etc/resolv.conf", "w") as file:
            file.write(text)


def start_dnsmasq(lab):
    lab.has(OTHER4 + "/32", SILENT4 + "/32", SILENT6 + "/128")
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
             "--no-hosts", "--user=root", "--pid-file=", "--cache-size=0",
             "--log-facility=/mnt/dnsmasq.log", "--bind-interfaces", "--edns-packet-max=1232",
             "--local=/test/", "--local-ttl=60"]
    words += [f"--listen-address={a}" for a in (INTERNET4, INTERNET6, OTHER4)]
    words += ["--host-record=www.test,93.184.216.80,2606:2800:220:1::80",
              "--host-record=only4.test,93.184.216.81", "--cname=alias.test,www.test",
              "--mx-host=mail.test,www.test,10",
              "--txt-record=big.test," + ",".join(TXT_1000),
              "--txt-record=huge.test," + ",".join(TXT_3000)]
    with lab.internet:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(lambda: lab.host.run("dig", "+short", "+time=1", "+tries=1", "@" + INTERNET4,
                                    "only4.test")[1] == "93.184.216.81\n" or
               process.poll() is not None, "dnsmasq answers")
    check(process.poll() is None, "dnsmasq: " + (process.stderr.read().decode()
                                                 if process.poll() is not None else ""))


def prepare(lab):
    """Once; and the usual resolver each time."""
    if not _cache:
        if not shutil.which("dnsmasq") or not shutil.which("dig"):
            raise Skip("dnsmasq and dig are needed")
        lab.internet.sysctl("net.ipv4.icmp_ratemask", 0)  # a closed port always says so
        own_etc()
        start_dnsmasq(lab)
        _cache["prepared"] = True
    write_resolv_conf(INTERNET4)


def silence(lab):
    """Some addresses where questions vanish."""
    lab.internet.filter(f"ip daddr {SILENT4} drop", f"ip6 daddr {SILENT6} drop")


def txt(strings):
    return [" ".join(f'"{s}"' for s in strings)]


# ---- answers ----


def both_ways(function):
    """For each of the resolver's two addresses, by UDP and by TCP."""
    for server, family in ((DNS4, "ipv4"), (DNS6, "ipv6")):
        for transport in ("udp", "tcp"):
            def one(lab, server=server, transport=transport):
                prepare(lab)
                with lab.guest() as guest:
                    def ask(*words):
                        return dig(guest, "+tcp" if transport == "tcp" else "+notcp", *words,
                                   server=server)
                    return function(lab, ask)
            one.__name__ = f"{function.__name__}_by_{transport}_over_{family}"
            test(one)
    return function


@both_ways
def names_resolve(lab, ask):
    equal(ask("www.test", "A")[1], ["93.184.216.80"])
    equal(ask("www.test", "AAAA")[1], ["2606:2800:220:1::80"])
    equal(ask("alias.test", "A")[1], ["www.test.", "93.184.216.80"])
    equal(ask("mail.test", "MX")[1], ["10 www.test."])
    equal(ask("WwW.TeSt", "A")[1], ["93.184.216.80"])
    rcode, data, _ = ask("only4.test", "AAAA")
    equal((rcode, data), ("NOERROR", []))


@both_ways
def what_does_not_exist_is_nxdomain(lab, ask):
    equal(ask("nobody.test", "A")[0], "NXDOMAIN")


@both_ways
def the_host_has_a_name(lab, ask):
    equal(ask("host.culvert.internal", "A")[1], [GATEWAY4])
    equal(ask("host.culvert.internal", "AAAA")[1], [GATEWAY6])
    equal(ask("other.culvert.internal", "A")[0], "NXDOMAIN")


@test
def names_of_the_hosts_own_file_are_not_known_inside(lab):
    prepare(lab)
    with open("/etc/hosts", "a") as file:
        file.write("93.184.216.99 intranet intranet.corp.test\n10.9.8.7 www.test\n")
    equal(lab.host.run("getent", "ahostsv4", "intranet")[1].split()[0], "93.184.216.99")
    with lab.guest() as guest:
        for name in ("intranet", "intranet.corp.test"):
            check(dig(guest, name, "A")[0] in ("NXDOMAIN", "REFUSED", "SERVFAIL"), name)
        equal(dig(guest, "www.test", "A")[1], ["93.184.216.80"])
        equal(dig(guest, "-x", "93.184.216.99")[1], [])
    for name in ("intranet", "intranet.corp.test"):
        equal(culvert_run(lab, "getent", "ahostsv4", name)[0], 2)


# ---- sizes ----


@for_each(server=[DNS4, DNS6])
def an_answer_that_exceeds_what_the_guest_takes_is_truncated_and_had_by_tcp(lab, server):
    prepare(lab)
    with lab.guest() as guest:
        for size, flags, name in ((512, ["+noedns"], "big.test"),
                                  (1232, ["+bufsize=1232"], "huge.test"),
                                  (600, ["+bufsize=600"], "big.test")):
            _, data, out = dig(guest, "+ignore", *flags, name, "TXT", server=server)
            check(" tc " in out or " tc;" in out, f"the TC flag: {out}")
            check(int(re.search(r"MSG SIZE  rcvd: (\d+)", out)[1]) <= size, out)
            _, data, out = dig(guest, *flags, name, "TXT", server=server)
            equal(data, txt(TXT_1000 if name == "big.test" else TXT_3000))
            check("TCP" in out, "asked again by TCP")


@for_each(server=[DNS4, DNS6])
def an_answer_within_what_the_guest_takes_comes_whole(lab, server):
    prepare(lab)
    with lab.guest() as guest:
        _, data, out = dig(guest, "+bufsize=1232", "+notcp", "+ignore", "big.test", "TXT",
                           server=server)
        equal(data, txt(TXT_1000))
        check(" tc" not in re.search(r"flags:([^;]*);", out)[1], out)


@test
def an_answer_that_the_upstream_truncates_comes_whole_to_a_guest_that_takes_it(lab):
    prepare(lab)
    with lab.guest() as guest:
        _, data, out = dig(guest, "+bufsize=4096", "+notcp", "+ignore", "huge.test", "TXT")
        equal(data, txt(TXT_3000), out)


@test
def drill_resolves_too(lab):
    prepare(lab)
    if not shutil.which("drill"):
        raise Skip("drill is not installed")
    with lab.guest() as guest:
        for words in (["-t"], ["-b", "1232"]):
            out = guest.net.call("drill", *words, "@" + DNS4, "big.test", "TXT")
            check(all(string in out for string in TXT_1000), out)


# ---- many ----


@test
def hundreds_of_questions_at_a_time_are_answered(lab):
    prepare(lab)
    with lab.guest() as guest:
        client = guest.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        client.connect((DNS4, 53))
        for i in range(400):
            client.send(question(i, "www.test" if i % 2 else f"name{i}.test"))
        seen = {}
        while len(seen) < 400:
            answer = client.recv(2000)
            seen[struct.unpack("!H", answer[:2])[0]] = answer[3] & 15
        wrong = {i: rcode for i, rcode in seen.items() if rcode != (0 if i % 2 else 3)}
        check(not wrong, f"rcodes {wrong} {guest.counters()}")


@test
def questions_on_one_tcp_connection_are_pipelined(lab):
    prepare(lab)
    with lab.guest() as guest, guest.connect(DNS4, 53) as client:
        message = b"".join(struct.pack("!H", len(q)) + q for q in
                           (question(i, "www.test" if i % 3 else f"n{i}.test") for i in range(60)))
        for i in range(0, len(message), 97):  # in pieces that respect no border
            client.send(message[i:i + 97])
        stream, seen = client.makefile("rb"), set()
        while len(seen) < 60:
            length, = struct.unpack("!H", stream.read(2))
            seen.add(struct.unpack("!H", stream.read(length)[:2])[0])
        stream.close()


# ---- resolvers that fail ----


def seconds_for(guest, *words, server=DNS4):
    begun = time.monotonic()
    outcome = dig(guest, *words, server=server)
    return time.monotonic() - begun, outcome


@for_each(dead=["silent", "closed", "unreachable", "silent-ipv6"])
def a_dead_first_resolver_costs_well_under_a_second(lab, dead):
    prepare(lab)
    silence(lab)
    first = {"silent": SILENT4, "closed": SILENT4, "unreachable": "45.33.7.7",
             "silent-ipv6": SILENT6}[dead]
    if dead == "closed":
        lab.internet.filter()
    if dead == "unreachable":
        lab.host.ip("route replace unreachable 45.33.7.7")
    write_resolv_conf(first, INTERNET4)
    with lab.guest() as guest:
        for i in range(3):
            for words in (["+notcp"], ["+tcp"]):
                took, (_, data, _) = seconds_for(guest, *words, "www.test", "A")
                equal(data, ["93.184.216.80"])
                check(took < 0.8 * SLOWNESS, f"question {i} {words} took {took:.2f} s")


@for_each(scheme=["udp", "tcp", "tls"])
def a_dead_first_resolver_of_an_option_costs_well_under_a_second(lab, scheme):
    prepare(lab)
    silence(lab)
    first = f"{scheme}://{'dead.example@' if scheme == 'tls' else ''}{SILENT4}"
    second = INTERNET4 if scheme == "udp" else f"tcp://{INTERNET4}"
    with lab.guest("--dns", first, "--dns", second) as guest:
        for name in ("www.test", "only4.test", "alias.test"):
            took, (rcode, _, _) = seconds_for(guest, name, "A")
            equal(rcode, "NOERROR")
            check(took < 0.95 * SLOWNESS, f"{name} took {took:.2f} s")
        equal(guest.counters()["dns_failovers"], 1)


@test
def a_resolver_that_dies_costs_well_under_a_second_too(lab):
    prepare(lab)
    for scheme in ("udp", "tcp"):  # by TCP with a connection that is open
        lab.internet.filter()
        with lab.guest("--dns", f"{scheme}://{OTHER4}", "--dns", f"{scheme}://{INTERNET4}") as guest:
            equal(dig(guest, "www.test", "A")[1], ["93.184.216.80"])
            lab.internet.filter(f"ip daddr {OTHER4} drop")
            for name in ("only4.test", "alias.test"):
                took, (rcode, _, _) = seconds_for(guest, name, "A")
                equal(rcode, "NOERROR")
                check(took < 0.95 * SLOWNESS, f"{scheme} {name} took {took:.2f} s")


@test
def a_resolver_that_refuses_is_passed_over(lab):
    prepare(lab)
    with lab.internet.socket(socket.AF_INET, socket.SOCK_DGRAM) as refusing:
        refusing.bind((SILENT4, 53))

        def refuse_one():
            data, back = refusing.recvfrom(2000)
            refusing.sendto(data[:2] + bytes([data[2] | 0x80, 0x85]) + data[4:], back)
        refused = in_thread(refuse_one)
        write_resolv_conf(SILENT4, INTERNET4)
        with lab.guest() as guest:
            took, (rcode, data, _) = seconds_for(guest, "www.test", "A")
            equal((rcode, data), ("NOERROR", ["93.184.216.80"]))
            check(took < 0.5 * SLOWNESS, f"{took:.2f} s")
            refused()


@test
def without_an_answer_there_is_servfail_in_time(lab):
    prepare(lab)
    silence(lab)
    write_resolv_conf(SILENT4)
    with lab.guest() as guest:
        took, (rcode, _, _) = seconds_for(guest, "+time=8", "www.test", "A")
        equal(rcode, "SERVFAIL")
        check(took < 5 * SLOWNESS, f"{took:.2f} s: stubs give up after 5")


@for_each(servers=["none", "closed"])
def without_a_resolver_there_is_servfail_at_once(lab, servers):
    prepare(lab)
    write_resolv_conf(*([] if servers == "none" else [SILENT4]))
    with lab.guest() as guest:
        for words in (["+notcp"], ["+tcp"]):
            took, (rcode, _, _) = seconds_for(guest, *words, "www.test", "A")
            equal(rcode, "SERVFAIL")
            check(took < 1 * SLOWNESS, f"{took:.2f} s")
        equal(dig(guest, "host.culvert.internal", "A")[1], [GATEWAY4])


@test
def a_resolver_by_udp_only_and_one_by_tcp_only_are_both_of_use(lab):
    prepare(lab)
    lab.internet.filter("tcp dport 53 reject with tcp reset")
    with lab.guest() as guest:
        equal(dig(guest, "+tcp", "www.test", "A")[1], ["93.184.216.80"])
    lab.internet.filter("udp dport 53 drop")
    with lab.guest("--dns", f"tcp://{INTERNET4}") as guest:
        equal(dig(guest, "+notcp", "www.test", "A")[1], ["93.184.216.80"])


# ---- resolv.conf ----


@for_each(how=["renamed", "rewritten", "removed-and-made"])
def a_replaced_resolv_conf_is_followed(lab, how):
    prepare(lab)
    write_resolv_conf(SILENT4)  # nobody listens there: SERVFAIL at once
    with lab.guest() as guest:
        equal(dig(guest, "www.test", "A")[0], "SERVFAIL")
        for _ in range(3):
            if how == "removed-and-made":
                os.unlink("/etc/resolv.conf")
            write_resolv_conf(INTERNET4, rename=how == "renamed")
            wait_until(lambda: dig(guest, "www.test", "A")[1] == ["93.184.216.80"],
                       "the new resolver is asked")
            write_resolv_conf(SILENT4, rename=how == "renamed")
            wait_until(lambda: dig(guest, "www.test", "A")[0] == "SERVFAIL", "and the old again")


@test
def a_resolv_conf_that_is_a_link_is_followed_to_its_target(lab):
    prepare(lab)
    os.makedirs("/etc/elsewhere", exist_ok=True)
    with open("/etc/elsewhere/stub.conf", "w") as file:
        file.write(f"nameserver {SILENT4}\n")
    os.unlink("/etc/resolv.conf")
    os.symlink("elsewhere/stub.conf", "/etc/resolv.conf")
    with lab.guest() as guest:
        equal(dig(guest, "www.test", "A")[0], "SERVFAIL")
        with open("/etc/elsewhere/new.conf", "w") as file:
            file.write(f"nameserver {INTERNET4}\n")
        os.rename("/etc/elsewhere/new.conf", "/etc/elsewhere/stub.conf")
        wait_until(lambda: dig(guest, "www.test", "A")[1] == ["93.184.216.80"],
                   "the target's new content")


@test
def a_local_resolver_of_the_host_is_asked(lab):
    """As systemd-resolved's 127.0.0.53, which the guest itself may not reach."""
    prepare(lab)
    with lab.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as stub:
        stub.bind(("127.0.0.53", 53))

        def answer_one():
            data, back = stub.recvfrom(2000)
            end = data.index(b"\0", 12) + 5
            stub.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:end] +
                        b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4", back)
        write_resolv_conf("127.0.0.53")
        with lab.guest(rules=()) as guest:
            answered = in_thread(answer_one)
            equal(dig(guest, "some.example", "A")[1], ["1.2.3.4"])
            answered()


# ---- options ----


@for_each(dns=[INTERNET4, INTERNET4 + ":53", f"udp://{INTERNET4}:53", f"tcp://{INTERNET4}",
               INTERNET6, f"udp://[{INTERNET6}]:53"])
def the_resolver_of_an_option_is_asked(lab, dns):
    prepare(lab)
    write_resolv_conf(SILENT4)
    with lab.guest("--dns", dns) as guest:
        equal(dig(guest, "www.test", "A")[1], ["93.184.216.80"])


@test
def names_of_options_are_answered(lab):
    prepare(lab)
    with lab.guest("--dns-host", "db.corp.example=10.20.30.40",
                   "--dns-host", "db.corp.example=2606:2800:220:1::99") as guest:
        for server in (DNS4, DNS6):
            equal(dig(guest, "db.corp.example", "A", server=server)[1], ["10.20.30.40"])
            equal(dig(guest, "DB.corp.example", "AAAA", server=server)[1],
                  ["2606:2800:220:1::99"])
        equal(dig(guest, "www.test", "A")[1], ["93.184.216.80"])


# ---- the command's own stub ----


def culvert_run(lab, *words, options=()):
    return lab.host.run(CULVERT, "run", "--ipv6=on", *options, "--", *words)


@test
def getent_resolves_inside(lab):
    prepare(lab)
    status, out, err = culvert_run(lab, "getent", "ahostsv4", "www.test")
    check(status == 0 and out.startswith("93.184.216.80"), f"{status} {out} {err}")
    status, out, err = culvert_run(lab, "getent", "ahostsv6", "www.test")
    check(status == 0 and out.startswith("2606:2800:220:1::80"), f"{status} {out} {err}")
    status, out, err = culvert_run(lab, "getent", "hosts", "only4.test")
    equal((status, out.split()), (0, ["93.184.216.81", "only4.test"]))
    equal(culvert_run(lab, "getent", "hosts", "nobody.test")[0], 2)


@test
def getent_knows_the_host_and_the_names_of_options(lab):
    prepare(lab)
    status, out, _ = culvert_run(lab, "getent", "ahostsv4", "host.culvert.internal")
    check(status == 0 and out.startswith(GATEWAY4), out)
    status, out, _ = culvert_run(lab, "getent", "ahostsv4", "db.corp.example",
                                 options=["--dns-host", "db.corp.example=10.20.30.40"])
    check(status == 0 and out.startswith("10.20.30.40"), out)


@test
def resolv_conf_inside_names_both_resolvers(lab):
    prepare(lab)
    _, out, _ = culvert_run(lab, "cat", "/etc/resolv.conf")
    equal(re.findall(r"^nameserver (\S+)", out, re.M), [DNS4, DNS6])


@test
def a_lookup_after_the_hosts_resolv_conf_was_replaced_still_works_inside(lab):
    prepare(lab)
    begun = in_thread(culvert_run, lab, "sh", "-c",
                      "until test -e /etc/go; do sleep 0.02; done; getent ahostsv4 www.test")
    write_resolv_conf(OTHER4)
    with open("/etc/go", "w"):
        pass
    try:
        status, out, err = begun()
        check(status == 0 and out.startswith("93.184.216.80"), f"{status} {out} {err}")
    finally:
        os.unlink("/etc/go")


main()
