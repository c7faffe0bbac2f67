# SPDX-License-Identifier: Apache-2.0
"""Names: culvert's resolver beside dnsmasq as a forwarder, asked by dnsperf in the guest's network.

All forward to the same upstream (dns_upstream.c), which answers faster than any of them asks; the
column `loopback` is dnsperf asking it directly. dnsmasq is met in two ways, both as it is used:
`dnsmasq` in a network that a veth joins to the guest's, as beside containers; `dnsmasq-behind` on
the host's loopback behind a culvert that lets port 53's datagrams out to it, as it would be if
culvert had no resolver of its own."""

import os
import shutil
import subprocess

from engines import Culvert, Engine, Failed, Session, first_line

HERE = os.path.dirname(os.path.abspath(__file__))
READY_SECONDS = 5
ATTEMPTS = 5  # until it is ready
KNOWN_NAMES = 1000
NEW_NAMES_PER_SECOND = 150_000  # more than anybody here can ask
PACE = 1000  # questions a second when latency counts: nobody is busy

# dnsperf's summary as one line of JSON.
SUMMARY = ("awk '/Queries sent/ {sent = $3} /Queries lost/ {lost = $3} /per second/ {rate = $4}"
           " /Average Latency/ {latency = $4} END {printf \"{\\\"sent\\\": %d, \\\"lost\\\": %d,"
           " \\\"rate\\\": %f, \\\"latency\\\": %f}\\n\", sent, lost, rate, latency}'")


# ---- the upstream


def build_upstream(directory):
    """Its path; built anew if the source is newer."""
    source = os.path.join(HERE, "dns_upstream.c")
    program = os.path.join(directory, "bench-dns-upstream")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        os.makedirs(directory, exist_ok=True)
        subprocess.run(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", source,
                        "-o", program], check=True)
    return program


def start_upstream(program, port):
    session = Session([program, "-p", str(port)], ())
    session.receive(READY_SECONDS)
    return session


def dnsmasq_words(address, port, upstream_port):
    """A forwarder and nothing else, with its limits out of the way: a cache and a number of
    questions under way as large as culvert's."""
    return ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
            "--user=", "--group=", "--pid-file=", f"--listen-address={address}", "--bind-interfaces",
            f"--port={port}", f"--server=127.0.0.1#{upstream_port}", "--cache-size=8192",
            "--dns-forward-max=1024"]


# ---- those who answer


class Dnsmasq(Engine):
    """In a network of its own with its upstream; the guest's is joined to it by a veth."""

    name = "dnsmasq"
    executables = ("dnsmasq",)
    resolver = ("10.0.2.3", 53)

    def missing(self):
        return None if shutil.which("dnsmasq") else "not installed (apt install dnsmasq-base)"

    def version(self):
        return first_line(["dnsmasq", "--version"]).split("Copyright")[0].strip()

    def open_names(self, bench):
        user = [] if os.geteuid() == 0 else ["-r"]
        session = Session(["unshare", "-n", *user, "sh"], self.executables)
        address, port = self.resolver
        dnsmasq = " ".join(dnsmasq_words(address, port, bench.dns_port))
        lines = [f"ip link set lo up; {bench.dns_program} -p {bench.dns_port} >/dev/null &",
                 "unshare -n sleep 1000000 & guest=$!",
                 "while [ $(readlink /proc/$guest/ns/net) = $(readlink /proc/$$/ns/net) ]; do "
                 "sleep 0.01; done",
                 "ip link add up0 type veth peer name eth0 netns $guest",
                 f"ip addr add {address}/24 dev up0; ip link set up0 up",
                 "inside=\"nsenter --net=/proc/$guest/ns/net\"",
                 "$inside ip addr add 10.0.2.100/24 dev eth0; $inside ip link set eth0 up",
                 f"{dnsmasq} >/dev/null &"]
        for line in lines:
            session.send(line)
        return session

    def asking(self, command):
        return "$inside " + command


class DnsmasqBehind(Culvert):
    """On the host; the guest reaches it through culvert, whose CPU counts with its own."""

    executables = ("culvert", "dnsmasq")

    def missing(self):
        return Dnsmasq().missing() or super().missing()

    def version(self):
        return ""

    def open_names(self, bench):
        self.resolver = ("10.0.2.2", bench.dns_port + 1)
        dnsmasq = subprocess.Popen(
            dnsmasq_words("127.0.0.1", bench.dns_port + 1, bench.dns_port),
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        session = super().open(1500)
        session.helper = dnsmasq  # ends with the session
        return session


def open_names(bench, engine):
    """A session in which the engine's resolver answers."""
    if not shutil.which("dnsperf"):
        raise Failed("dnsperf is not installed (apt install dnsperf)")
    session = engine.open_names(bench)
    try:
        for _ in range(ATTEMPTS):
            answer = session.ask(dnsperf(engine, known_names(bench), "-n 1 -t 1 -q 10"), 30)
            if answer["sent"] > 0 and answer["lost"] == 0:
                return session
        raise Failed("its resolver does not answer")
    except Failed:
        session.close()
        raise


# ---- the questions


def known_names(bench):
    path = os.path.join(bench.directory, "known-names")
    if not os.path.exists(path):
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f"host{i}.known.example A\n" for i in range(KNOWN_NAMES))
    return path


def new_names(bench, count):
    """Names that nobody was asked before."""
    bench.dns_runs += 1
    path = os.path.join(bench.directory, "new-names")
    with open(path, "w", encoding="ascii") as file:
        file.writelines(f"host{i}.run{bench.dns_runs}.new.example A\n" for i in range(count))
    return path


def dnsperf(engine, names, options):
    address, port = engine.resolver
    command = f"dnsperf -s {address} -p {port} -d {names} -T 1 {options}"
    return f"{engine.asking(command)} 2>/dev/null | {SUMMARY}"


def ask(bench, engine, session, names, options):
    answer = session.ask(dnsperf(engine, names, f"-l {bench.seconds} {options}"),
                         bench.seconds + 30)
    if answer["sent"] == 0 or answer["lost"] > answer["sent"] / 100:
        raise Failed(f"{answer['lost']} of {answer['sent']} questions were lost")
    return answer


def rate(known):
    def measure(bench, engine, session):
        names = known_names(bench) if known else new_names(
            bench, int(NEW_NAMES_PER_SECOND * bench.seconds))
        answer = ask(bench, engine, session, names, "-c 20 -q 100")
        return {"value": answer["rate"] / 1e3, "lost": answer["lost"]}
    return measure


def latency(known):
    def measure(bench, engine, session):
        names = known_names(bench) if known else new_names(bench, int(2 * PACE * bench.seconds))
        answer = ask(bench, engine, session, names, f"-c 1 -q 100 -Q {PACE}")
        return {"value": answer["latency"] * 1e6, "lost": answer["lost"]}
    return measure
