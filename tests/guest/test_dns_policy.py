#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""Names under rules by name, as stubs inside see them and as the resolver outside (dnsmasq) does;
DNS over TLS, split DNS and the cache."""

import errno
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading

from lab import (DEADLINE, INTERNET4, INTERNET6, Skip, check, equal, fails_with, for_each,
                 main, test, wait_until)
from stubs import DNS4, DNS6, dig

OTHER4, OTHER6 = "93.184.216.35", "2606:2800:220:1::35"
CORP4 = "93.184.216.36"
RULES = ("deny to *.denied.test", "allow tcp to *.ok.test port 80",
         "allow tcp to git.corp.test in 10.0.0.0/8")

_cache = {}


# ---- the machine ----


def start_dnsmasq(lab, log, address, *words):
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
             "--no-hosts", "--user=root", "--pid-file=", "--cache-size=0", "--log-queries",
             "--log-facility=" + log, "--bind-interfaces", "--local=/test/", "--local-ttl=60",
             *(f"--listen-address={a}" for a in address), *words]
    with lab.internet:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(lambda: process.poll() is not None or lab.host.run(
        "dig", "+short", "+time=1", "+tries=1", "@" + address[0], "up.test")[0] == 0, "dnsmasq")
    check(process.poll() is None, "dnsmasq ended")


def prepare(lab):
    if not _cache:
        if not shutil.which("dnsmasq") or not shutil.which("dig"):
            raise Skip("dnsmasq and dig are needed")
        folder = tempfile.mkdtemp()
        _cache["log"], _cache["folder"] = folder + "/log", folder
        lab.has(OTHER4 + "/32", CORP4 + "/32")
        start_dnsmasq(lab, _cache["log"], (INTERNET4, INTERNET6),
                      "--host-record=www.ok.test,93.184.216.80,2606:2800:220:1::80",
                      "--host-record=mixed.ok.test,93.184.216.81",
                      "--host-record=mixed.ok.test,10.0.0.1",
                      "--host-record=inside.ok.test,192.168.1.1",
                      "--host-record=git.corp.test,10.1.2.3",
                      "--host-record=target.denied.test,93.184.216.82",
                      "--cname=fine.ok.test,www.ok.test",
                      "--cname=led.ok.test,target.denied.test",
                      "--host-record=secret.other.test,93.184.216.83",
                      "--ptr-record=1.0.0.10.in-addr.arpa,leak.test",
                      "--dns-rr=www.ok.test,65,000100")
        start_dnsmasq(lab, folder + "/corp", (CORP4,), "--host-record=git.corp.test,10.9.9.9",
                      "--host-record=www.ok.test,93.184.216.99")


def asked(name):
    """How often the resolver outside was asked about this name."""
    with open(_cache["log"]) as file:
        return len(re.findall(rf"query\[\w+\] {re.escape(name)} ", file.read(), re.I))


def sandbox(lab, *options, rules=RULES, **keywords):
    prepare(lab)
    return lab.guest("--profile", "none", "--dns", INTERNET4, *options, rules=rules, **keywords)


# ---- questions ----


@for_each(transport=["+notcp", "+tcp"])
def a_name_that_a_rule_allows_resolves(lab, transport):
    with sandbox(lab) as guest:
        equal(dig(guest, transport, "www.ok.test", "A")[1], ["93.184.216.80"])
        equal(dig(guest, transport, "WWW.ok.test", "AAAA")[1], ["2606:2800:220:1::80"])
        equal(dig(guest, transport, "fine.ok.test", "A")[1], ["www.ok.test.", "93.184.216.80"])


@for_each(transport=["+notcp", "+tcp"])
def a_name_that_no_rule_allows_is_never_asked_outside(lab, transport):
    with sandbox(lab) as guest:
        rcode, data, out = dig(guest, transport, "secret.other.test", "A")
        equal((rcode, data), ("NXDOMAIN", []))
        check("EDE: 15" in out, out)
        equal(dig(guest, transport, "x.denied.test", "TXT")[0], "NXDOMAIN")
        equal((asked("secret.other.test"), asked("x.denied.test")), (0, 0))


@test
def data_does_not_tunnel_out_in_names(lab):
    with sandbox(lab) as guest:
        for i in range(20):
            equal(dig(guest, f"{i:060d}.{i:060d}.tunnel.example", "TXT")[0], "NXDOMAIN")
        with open(_cache["log"]) as file:
            check("tunnel" not in file.read(), "a name with data got out")
        equal(guest.counters()["dns_denied"], 20)


# The first rule that applies to a name decides; those about addresses do not apply to any.
DECISIONS = {
    "an_allow_of_everything": (["allow any to any"], "asked"),
    "an_allow_of_a_group": (["allow tcp to public"], "asked"),
    "an_allow_of_private_addresses": (["allow tcp to private"], "asked"),
    "an_allow_of_the_host": (["allow any to host"], "refused"),
    "an_allow_of_its_domain_with_a_port": (["allow udp to www.ok.test port 123"], "asked"),
    "a_wildcard_above_it": (["allow any to *.test"], "asked"),
    "an_allow_of_another_name": (["allow any to only.ok.test"], "refused"),
    "an_allow_of_names_below_it": (["allow any to *.www.ok.test"], "asked"),
    "an_allow_of_its_address": (["allow tcp to 93.184.216.80"], "refused"),
    "an_allow_of_the_resolver": (["allow any to dns"], "refused"),
    "a_deny_of_its_domain": (["deny to www.ok.test", "allow any to any"], "refused"),
    "a_drop_of_its_domain": (["drop to *.ok.test", "allow any to any"], "refused"),
    "a_deny_of_everything": (["deny to any", "allow any to *.ok.test"], "refused"),
    "a_deny_of_its_domain_that_has_a_port":
        (["deny to www.ok.test port 80", "allow any to any"], "asked"),
    "a_deny_of_its_domain_that_has_a_protocol":
        (["deny udp to www.ok.test", "allow any to any"], "asked"),
    "a_deny_of_a_group": (["deny to public", "allow any to *.ok.test"], "asked"),
    "a_deny_of_addresses": (["deny to 0.0.0.0/0", "allow any to *.ok.test"], "asked"),
    "a_deny_behind_the_allow": (["allow any to *.ok.test", "deny to www.ok.test"], "asked"),
    "no_rule": ([], "refused"),
}


@for_each(rule=list(DECISIONS))
def a_question_under(lab, rule):
    rules, outcome = DECISIONS[rule]
    asked_outside = outcome != "refused"
    with sandbox(lab, rules=["allow any to elsewhere.example", *rules]) as guest:
        before = asked("www.ok.test")
        rcode, data, _ = dig(guest, "www.ok.test", "A")
        equal((rcode, data), ("NOERROR", ["93.184.216.80"]) if asked_outside else ("NXDOMAIN", []))
        equal(asked("www.ok.test") > before, asked_outside)


@test
def every_client_sees_a_denied_name_as_one_that_does_not_exist(lab):
    with sandbox(lab) as guest:
        for words in (["drill", "@" + DNS4], ["drill", "-t", "@" + DNS6], ["kdig", "@" + DNS4],
                      ["kdig", "+tcp", "@" + DNS6], ["host", "-v"], ["nslookup"]):
            if shutil.which(words[0]):
                name = ["secret.other.test"] + ([DNS4] if words[0] in ("host", "nslookup") else [])
                _, out, err = guest.run(*words, *name)
                check("NXDOMAIN" in out, f"{words} {out} {err}")
    equal(asked("secret.other.test"), 0)


@test
def servers_are_not_asked_about_themselves(lab):
    with sandbox(lab) as guest:
        equal(dig(guest, "www.ok.test", "CH", "TXT")[0], "REFUSED")


@test
def denied_names_can_be_refused_or_zero(lab):
    with sandbox(lab, "--dns-denied", "refused") as guest:
        equal(dig(guest, "secret.other.test", "A")[0], "REFUSED")
    with sandbox(lab, "--dns-denied=zero") as guest:
        equal(dig(guest, "secret.other.test", "A")[:2], ("NOERROR", ["0.0.0.0"]))
        equal(dig(guest, "secret.other.test", "AAAA")[:2], ("NOERROR", ["::"]))


@for_each(server=[OTHER4, OTHER6, "45.33.7.7", "10.0.2.2", "fd63:756c:7665::2", "192.168.1.1",
                  "169.254.169.254"])
def another_resolver_is_answered_for_by_ours(lab, server):
    with sandbox(lab) as guest:
        for transport in ("+notcp", "+tcp"):
            equal(dig(guest, transport, "www.ok.test", "A", server=server)[1], ["93.184.216.80"])
            equal(dig(guest, transport, "secret.other.test", "A", server=server)[0], "NXDOMAIN")


@test
def dns_over_tls_from_inside_is_refused(lab):
    with sandbox(lab, rules=RULES + ("allow any to any",)) as guest:
        lab.internet.listen(OTHER4, 853)
        for server in (OTHER4, DNS4):
            fails_with(errno.ECONNREFUSED, guest.connect, server, 853)
            quic = guest.socket(socket.AF_INET, socket.SOCK_DGRAM)
            quic.connect((server, 853))
            quic.send(b"x" * 1200)
            fails_with((errno.EACCES, errno.ECONNREFUSED, errno.EHOSTUNREACH), quic.recv, 100)
        equal(guest.counters()["policy_denied_dns_tls"], 4)


@test
def https_and_svcb_records_are_not_given(lab):
    with sandbox(lab) as guest:
        for kind in ("HTTPS", "SVCB"):
            equal(dig(guest, "www.ok.test", kind)[:2], ("NOERROR", []))


@test
def names_of_private_addresses_stay_here(lab):
    with sandbox(lab, rules=("allow to dns", "allow any to public")) as guest:
        for address in ("10.0.0.1", "192.168.1.1", "127.0.1.1", "169.254.169.254", "fd00::1"):
            equal(dig(guest, "-x", address)[0], "NXDOMAIN", address)
        for words in (["1.0.0.10.in-addr.arpa", "ANY"], ["10.in-addr.arpa", "SOA"],
                      ["lb._dns-sd._udp.0.0.0.10.in-addr.arpa", "PTR"]):
            equal(dig(guest, *words)[0], "NXDOMAIN", words[0])
            equal(asked(words[0]), 0)
        dig(guest, "-x", "93.184.216.80")
        check(asked("80.216.184.93.in-addr.arpa") > 0, "the name of a public address")


# ---- answers ----


@test
def private_addresses_are_taken_out_of_answers(lab):
    with sandbox(lab) as guest:
        rcode, data, out = dig(guest, "mixed.ok.test", "A")
        equal((rcode, data), ("NOERROR", ["93.184.216.81"]))
        check("EDE: 17" in out, out)
        equal(dig(guest, "inside.ok.test", "A")[:2], ("NOERROR", []))


@test
def a_widened_name_may_lead_inside(lab):
    with sandbox(lab) as guest:
        equal(dig(guest, "git.corp.test", "A")[1], ["10.1.2.3"])


@test
def a_cname_to_a_denied_name_is_refused(lab):
    with sandbox(lab) as guest:
        equal(dig(guest, "led.ok.test", "A")[:2], ("NXDOMAIN", []))


# ---- resolvers ----


@test
def an_answer_is_kept_for_its_time(lab):
    with sandbox(lab) as guest:
        before = asked("www.ok.test")
        for transport in ("+notcp", "+tcp", "+notcp"):
            _, data, out = dig(guest, transport, "www.ok.test", "A")
            equal(data, ["93.184.216.80"])
            check(0 < int(re.search(r"ok\.test\.\s+(\d+)", out)[1]) <= 60, out)
        equal(asked("www.ok.test"), before + 1)


@test
def names_of_a_zone_are_asked_of_its_resolver(lab):
    with sandbox(lab, "--dns", f"corp.test={CORP4}") as guest:
        equal(dig(guest, "git.corp.test", "A")[1], ["10.9.9.9"])
        equal(dig(guest, "www.ok.test", "A")[1], ["93.184.216.80"])
    with sandbox(lab, "--dns", f"test={CORP4}", "--dns", f"ok.test={INTERNET4}") as guest:
        equal(dig(guest, "git.corp.test", "A")[1], ["10.9.9.9"])
        equal(dig(guest, "www.ok.test", "A")[1], ["93.184.216.80"], "the longest zone")


@test
def a_name_of_an_option_leads_where_the_option_says(lab):
    with sandbox(lab, "--dns-host", "db.ok.test=10.1.2.3", "--dns-host", "www.ok.test=10.1.2.4",
                 "--dns-host", "unlisted.example=10.1.2.5") as guest:
        before = asked("www.ok.test")
        for name, address in (("db.ok.test", "10.1.2.3"), ("www.ok.test", "10.1.2.4"),
                              ("unlisted.example", "10.1.2.5")):
            equal(dig(guest, name, "A")[1], [address])
            equal(dig(guest, "-x", address)[1][0].lower(), name + ".")
        equal(dig(guest, "host.culvert.internal", "A")[1], ["10.0.2.2"])
        equal((asked("db.ok.test"), asked("www.ok.test")), (0, before))


def make_certificate(name):
    path = _cache["folder"] + "/" + name
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=" + name,
                    "-addext", "subjectAltName=DNS:" + name, "-keyout", path + ".key", "-out",
                    path + ".pem"], check=True, capture_output=True)
    return path


def relay_messages(connection):
    """Whole messages to dnsmasq, and back."""
    stream = connection.makefile("rb")
    while len(length := stream.read(2)) == 2:
        message = length + stream.read(*struct.unpack("!H", length))
        with socket.create_connection((INTERNET4, 53), timeout=DEADLINE) as upstream:
            upstream.sendall(message)
            answer = upstream.makefile("rb")
            length = answer.read(2)
            connection.sendall(length + answer.read(*struct.unpack("!H", length)))


def serve_tls(lab, path):
    """A resolver by TLS; returns its connections, counted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path + ".pem", path + ".key")
    listener = lab.internet.listen(OTHER4)
    listener.settimeout(None)
    seen = []

    def serve():
        with lab.internet:
            while True:
                plain, _ = listener.accept()
                seen.append(plain)
                try:
                    relay_messages(context.wrap_socket(plain, server_side=True))
                except (OSError, struct.error):
                    pass
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], seen


@test
def a_resolver_by_tls_is_asked_over_one_connection(lab):
    prepare(lab)
    path = make_certificate("dns.example")
    port, seen = serve_tls(lab, path)
    os.environ["SSL_CERT_FILE"] = path + ".pem"
    try:
        with lab.guest("--dns", f"tls://dns.example@{OTHER4}:{port}", rules=()) as guest:
            for name in ("www.ok.test", "mixed.ok.test", "nobody.test", "inside.ok.test"):
                check(dig(guest, name, "A")[0] in ("NOERROR", "NXDOMAIN"), name)
            equal(len(seen), 1)
        with lab.guest("--dns", f"tls://other.example@{OTHER4}:{port}", rules=()) as guest:
            equal(dig(guest, "www.ok.test", "A")[0], "SERVFAIL")
            check(guest.counters()["dns_tls_untrusted"] > 0, "the certificate is for another name")
    finally:
        del os.environ["SSL_CERT_FILE"]
    with lab.guest("--dns", f"tls://dns.example@{OTHER4}:{port}", rules=()) as guest:
        equal(dig(guest, "www.ok.test", "A")[0], "SERVFAIL")
        counters = guest.counters()
        check(counters["dns_tls_untrusted"] > 0, "nobody vouches for the certificate")
        check("dns_upstream_udp" not in counters, "asked in the clear instead")


if __name__ == "__main__":
    main()
