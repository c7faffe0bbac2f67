#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Culvert beside its peers: every engine, every measurement, in one interleaved run.

Round by round and measurement by measurement all engines take their turn, in rotating order, so that
whatever else the machine does falls on all of them alike; what counts is the median over the rounds.
See README.md for how to read the results."""

import argparse
import fnmatch
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import dns
import machines
from engines import (Culvert, Failed, Loopback, Pasta, Slirp4netns, cpu_ns, raise_descriptor_limit,
                     resident_kib, Session)
from report import cpu_table, plot, summary, tables
from vhost_user import CulvertVhostUser

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


class Measurement:
    """One row of the table. `measure` returns {"value": …, and whatever else is worth keeping}."""

    def __init__(self, name, title, unit, measure, mtu=1500, targets=(), once=False, fresh=False,
                 published=False, group="network"):
        self.name = name
        self.title = title
        self.unit = unit
        self.measure = measure  # (bench, engine, session) → dict
        self.mtu = mtu
        self.targets = targets  # (engine measured, op, factor, engine compared with or None, key)
        self.once = once  # exact: one round says it all
        self.fresh = fresh  # in a session of its own
        self.published = published  # the server is in the guest, the client on the host
        self.group = group  # "network", "machines", "names" or "policy": a table each


# ---- how each is measured

def client(bench, engine, arguments):
    what, *rest = arguments.split()
    return f"{bench.load} {what} -p {bench.port} {' '.join(rest)} {engine.server}"


def throughput(streams, seconds):
    """From [bytes, ns] of each stream, as its receiver saw it. A stream that stalls at the end is
    charged the whole time."""
    rates = [8 * count / max(ns, seconds * 1e9) for count, ns in streams]
    if sum(rates) == 0:
        raise Failed("nothing arrived")
    return {"value": sum(rates), "bytes": sum(count for count, _ in streams),
            "slowest_share": min(rates) * len(rates) / sum(rates)}


def tcp_up(streams):
    def measure(bench, engine, session):
        bench.ask_server("reset")
        session.ask(client(bench, engine, f"tcp-up -s {streams} -t {bench.seconds}"),
                    bench.seconds + 30)
        return throughput(bench.ask_server("tcp")["streams"], bench.seconds)
    return measure


def tcp_down(streams):
    def measure(bench, engine, session):
        answer = session.ask(client(bench, engine, f"tcp-down -s {streams} -t {bench.seconds}"),
                             bench.seconds + 30)
        return throughput(answer["streams"], bench.seconds)
    return measure


def latency(arguments):
    def measure(bench, engine, session):
        answer = session.ask(client(bench, engine, f"{arguments} -t {bench.seconds}"),
                             bench.seconds + 30)
        return {"value": answer["median_us"], "p99": answer["p99_us"], "count": answer["count"]}
    return measure


def udp_up(per_send):
    def measure(bench, engine, session):
        bench.ask_server("reset")
        session.ask(client(bench, engine, f"udp-up -t {bench.seconds} -g {per_send}"),
                    bench.seconds + 30)
        time.sleep(0.3)
        answer = bench.ask_server("udp")
        return {"value": answer["per_second"] / 1e3, "bytes": answer["datagrams"] * 1400}
    return measure


def udp_down(per_send):
    def measure(bench, engine, session):
        answer = session.ask(client(bench, engine, f"udp-down -t {bench.seconds} -g {per_send}"),
                             bench.seconds + 30)
        return {"value": answer["per_second"] / 1e3, "bytes": answer["datagrams"] * 1400}
    return measure


def host_client(bench, engine, arguments):
    """The client on the host, at the ports that the engine publishes."""
    what, *rest = arguments.split()
    done = subprocess.run([bench.load, what, "-p", str(bench.published_port(engine)), *rest,
                           "127.0.0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=bench.seconds + 30, check=False)
    if done.returncode != 0:
        raise Failed(f"the client failed: {done.stderr.decode(errors='replace').strip()}")
    return json.loads(done.stdout)


def server_says(session, line):
    session.send(line)
    return session.receive(5)


def published_in(bench, engine, session):
    server_says(session, "reset")
    host_client(bench, engine, f"tcp-up -t {bench.seconds}")
    return throughput(server_says(session, "tcp")["streams"], bench.seconds)


def published_out(bench, engine, _session):
    answer = host_client(bench, engine, f"tcp-down -t {bench.seconds}")
    return throughput(answer["streams"], bench.seconds)


def published_latency(bench, engine, _session):
    answer = host_client(bench, engine, f"crr -n 1000 -t {bench.seconds}")
    return {"value": answer["median_us"], "p99": answer["p99_us"], "count": answer["count"]}


def calls_since(log, begin):
    """Calls begun after `begin`: attaching interrupts every sleeper once, which does not count."""
    calls = 0
    with open(log, encoding="utf-8", errors="replace") as f:
        for line in f:
            _pid, when, what = line.split(None, 2)
            calls += float(when) >= begin and not what.startswith(("+++", "---", "<..."))
    return calls


def idle(flows):
    def measure(bench, engine, session):
        if not engine.executables:
            return None
        if flows and bench.hold_flows(engine, session, flows) < flows:
            raise Failed(f"{flows} flows could not be opened")
        time.sleep(3)
        with tempfile.TemporaryDirectory() as directory:
            log = os.path.join(directory, "calls")
            attach = [word for pid in session.engine_pids() for word in ("-p", str(pid))]
            if not attach:
                raise Failed("the engine's processes were not found")
            tracer = subprocess.Popen(["strace", "-f", "-q", "-ttt", "-o", log] + attach,
                                      stderr=subprocess.DEVNULL)
            time.sleep(1)
            begin = time.time()
            time.sleep(bench.idle_seconds)
            if tracer.poll() is not None:
                raise Failed("strace may not attach here")
            tracer.terminate()
            tracer.wait()
            return {"value": calls_since(log, begin)}
    return measure


def memory_at_start(_bench, engine, session):
    if not engine.executables:
        return None
    time.sleep(0.3)
    return {"value": max(map(resident_kib, session.engine_pids()), default=0) / 1024}


def memory_per_flow(bench, engine, session):
    if not engine.executables:
        return None
    pids = session.engine_pids()
    before = sum(map(resident_kib, pids))
    got = bench.hold_flows(engine, session, bench.flows)
    if got < 100:
        raise Failed(f"only {got} flows could be opened")
    if got < bench.flows:
        bench.notes["memory-flow", engine.name] = f"{got} of {bench.flows} flows opened in 30 s"
    time.sleep(1)
    after = sum(map(resident_kib, pids))
    return {"value": (after - before) / got, "flows": got}


def start(bench, engine, _session):
    command = engine.spawn_command()
    if not command:
        return None
    out = subprocess.run(f"{bench.load} spawn -n 20 {command}", shell=True, check=False, text=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if out.returncode != 0:
        raise Failed(f"`{command}` failed: {out.stderr.strip()}")
    return {"value": json.loads(out.stdout)["median_us"] / 1e3}


def verdict(rules, key=None):
    """From policy code alone: the slowest of a flow's states, or one figure."""
    def measure(bench, _engine, _session):
        out = subprocess.run([bench.verdict, "--json", str(rules)], check=False, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if out.returncode != 0:
            raise Failed(f"bench-verdict failed: {out.stderr.strip()}")
        answer = json.loads(out.stdout)
        states = ("pending", "named", "hidden", "nameless")
        return {"value": answer[key] if key else max(answer[state] for state in states), **answer}
    return measure


def names(name, title, unit, measure, target):
    return Measurement(name, title, unit, measure, group="names", targets=[
        ("culvert", target, 1, "dnsmasq", "value"), ("culvert", target, 1, "dnsmasq-behind", "value")])


def over(factor, other, key="value", engine="culvert"):
    return (engine, "≥", factor, other, key)


def under(factor, other, engine="culvert"):
    return (engine, "≤", factor, other, "value")


# Virtqueues beside the direct TAP: throughput, and what a byte costs.
VHOST_USER = [("culvert-vhost", "≥", 0.65, "culvert", "value"),
              ("culvert-vhost", "≤", 1.25, "culvert", "cpu_s_per_gib")]


# A machine behind virtqueues beside one behind passt: what a byte costs.
CHEAPER = ("qemu-vhost", "≤", 1, "qemu-passt", "cpu_s_per_gib")


MEASUREMENTS = [
    Measurement("tcp-up", "TCP up, 1 stream, MTU 1500", "Gbit/s", tcp_up(1),
                targets=[over(0.60, "loopback"), over(7, "slirp4netns"), *VHOST_USER]),
    Measurement("tcp-down", "TCP down, 1 stream, MTU 1500", "Gbit/s", tcp_down(1),
                targets=[over(0.95, "loopback"), over(4.5, "slirp4netns"), *VHOST_USER]),
    Measurement("tcp-up-65520", "TCP up, 1 stream, MTU 65520", "Gbit/s", tcp_up(1), mtu=65520,
                targets=[over(0.70, "loopback")]),
    Measurement("tcp-down-65520", "TCP down, 1 stream, MTU 65520", "Gbit/s", tcp_down(1),
                mtu=65520, targets=[over(1.0, "loopback")]),
    Measurement("tcp-up-8", "TCP up, 8 streams, MTU 1500", "Gbit/s", tcp_up(8),
                targets=[over(0.55, "loopback"), over(0.5, None, "slowest_share")]),
    Measurement("tcp-down-8", "TCP down, 8 streams, MTU 1500", "Gbit/s", tcp_down(8),
                targets=[over(0.35, "loopback"), over(0.5, None, "slowest_share")]),
    Measurement("rr", "request/response, 1 byte", "µs", latency("rr"),
                targets=[under(1.1, "loopback"), under(1.25, "loopback", "culvert-nospin")]),
    Measurement("crr", "connect + request/response", "µs", latency("crr -n 1000"),
                targets=[under(0.65, "slirp4netns")]),
    Measurement("udp-up", "UDP up, 1400 bytes", "thousand/s", udp_up(1),
                targets=[over(2, "slirp4netns"), over(1.2, "pasta")]),
    Measurement("udp-down", "UDP down, 1400 bytes", "thousand/s", udp_down(1),
                targets=[over(2, "slirp4netns"), over(1.2, "pasta")]),
    Measurement("udp-up-uso", "UDP up, 1400 bytes, UDP_SEGMENT", "thousand/s", udp_up(44),
                targets=[over(0.5, "loopback")]),
    Measurement("udp-down-uso", "UDP down, 1400 bytes, UDP_SEGMENT", "thousand/s", udp_down(44),
                targets=[over(0.5, "loopback")]),
    Measurement("published-in", "TCP to a published port, 1 stream", "Gbit/s", published_in,
                published=True, targets=[over(0.50, "loopback"), over(4, "slirp4netns")]),
    Measurement("published-out", "TCP from a published port, 1 stream", "Gbit/s", published_out,
                published=True, targets=[over(0.35, "loopback"), over(4, "slirp4netns")]),
    Measurement("published-crr", "connect + request/response, published", "µs", published_latency,
                published=True, targets=[under(0.8, "slirp4netns")]),
    Measurement("start", "run `true`, from exec to exit", "ms", start,
                targets=[under(15, None)]),
    Measurement("memory", "resident at start", "MiB", memory_at_start, once=True, fresh=True,
                targets=[under(8, None)]),
    Measurement("memory-flow", "resident per idle flow", "KiB", memory_per_flow, once=True,
                fresh=True, targets=[under(1, None)]),
    Measurement("idle", "system calls while idle", "calls", idle(0), once=True, fresh=True,
                targets=[under(0, None)]),
    Measurement("idle-1000", "the same with 1,000 idle flows", "calls", idle(1000), once=True,
                fresh=True, targets=[under(0, None)]),
    Measurement("machine-up", "TCP up from a virtual machine, MTU 1500", "Gbit/s",
                machines.tcp_up(throughput), group="machines",
                targets=[over(1.15, "qemu-passt", engine="qemu-vhost"), CHEAPER]),
    Measurement("machine-down", "TCP down to a virtual machine, MTU 1500", "Gbit/s",
                machines.tcp_down(throughput), group="machines",
                targets=[over(1.5, "qemu-passt", engine="qemu-vhost"), CHEAPER]),
    Measurement("machine-boot", "from exec of QEMU to the first byte of an HTTP answer", "s",
                machines.first_byte, group="machines", fresh=True,
                targets=[under(1.05, "qemu-passt", engine="qemu-vhost")]),
    names("dns-known", "questions of 1,000 names", "thousand/s", dns.rate(known=True), "≥"),
    names("dns-new", "questions of new names", "thousand/s", dns.rate(known=False), "≥"),
    names("dns-known-latency", "1,000 questions a second, known names", "µs",
          dns.latency(known=True), "≤"),
    names("dns-new-latency", "1,000 questions a second, new names", "µs",
          dns.latency(known=False), "≤"),
    *(Measurement(f"verdict-{rules}", f"a verdict under {rules:,} rules", "ns", verdict(rules),
                  targets=[under(1000, None)], group="policy")
      for rules in (10, 100, 1000, 10000)),
    Measurement("policy-load", "loading 10,000 rules", "ms", verdict(10000, "load_ms"),
                targets=[under(250, None)], group="policy"),
]


class Bench:
    """Sessions, the server, and the samples so far."""

    def __init__(self, options, engines):
        self.seconds = options.seconds
        self.idle_seconds = options.idle_seconds
        self.flows = options.flows
        self.port = options.port
        self.engines = engines
        self.sessions = {}
        self.samples = {}  # (measurement, engine) → [dict]
        self.cannot_open = {}  # engine → [why, …]; after two the engine is given up
        self.notes = {}  # (measurement, engine) → why there is no figure
        self.directory = tempfile.mkdtemp(prefix="culvert-bench-")
        self.build_directory = options.build_dir
        self.load = build_load(options.build_dir)
        self.verdict = build_verdict(options.build_dir)
        self.dns_program = dns.build_upstream(options.build_dir)
        self.dns_port = self.port + 8  # and the next
        self.dns_runs = 0
        self.dns_upstream = dns.start_upstream(self.dns_program, self.dns_port)
        self.server = Session([self.load, "serve", "-p", str(self.port)], ())
        self.server.receive(5)

    def open(self, engine, mtu):
        reasons = self.cannot_open.setdefault(engine.name, [])
        if len(reasons) >= 2:
            raise Failed(reasons[-1])
        session = None
        try:
            session = engine.open(mtu)
            session.ask(client(self, engine, "rr -t 0.2"), 10)
        except Failed as failure:
            if session:
                session.close()
            reasons.append(f"cannot be used: {failure}")
            raise
        return session

    def published_port(self, engine):
        """The first of six; each engine has its own, as all are up at once."""
        return self.port + 10 * (1 + self.engines.index(engine))

    def session_published(self, engine, mtu):
        key = (engine.name, mtu, "published")
        if key not in self.sessions:
            first = self.published_port(engine)
            session = engine.open_published(mtu, first, first + 5)
            try:
                session.send(f"exec {self.load} serve -p {first} 0.0.0.0")
                session.receive(10)
                host_client(self, engine, "rr -t 0.2")
            except Failed:
                session.close()
                raise
            self.sessions[key] = session
        return self.sessions[key]

    def session(self, engine, mtu):
        key = (engine.name, mtu)
        if key not in self.sessions:
            self.sessions[key] = self.open(engine, mtu)
        return self.sessions[key]

    def session_of_names(self, engine):
        key = (engine.name, "names")
        if key not in self.sessions:
            self.sessions[key] = dns.open_names(self, engine)
        return self.sessions[key]

    def open_machine(self, engine, mtu):
        reasons = self.cannot_open.setdefault(engine.name, [])
        if len(reasons) >= 2:
            raise Failed(reasons[-1])
        try:
            return engine.open_machine(self, mtu)
        except Failed as failure:
            reasons.append(f"cannot be used: {failure}")
            raise

    def session_of_machines(self, engine, mtu):
        key = (engine.name, "machines")
        if key not in self.sessions:
            self.sessions[key] = self.open_machine(engine, mtu)
        return self.sessions[key]

    def forget(self, engine, which):
        for key in [key for key in self.sessions if key[:2] == (engine.name, which)]:
            self.sessions.pop(key).close()

    def hold_flows(self, engine, session, flows):
        """Opens idle connections that stay until the session ends. How many it came to."""
        session.send(client(self, engine, f"idle -n {flows} -t 30"))
        return session.receive(60)["flows"]

    def ask_server(self, line):
        self.server.send(line)
        return self.server.receive(5)

    def sample(self, measurement, engine):
        if measurement.group == "policy":
            return measurement.measure(self, engine, None)
        if measurement.group == "names":
            session = self.session_of_names(engine)
        elif measurement.group == "machines":
            session = (self.open_machine if measurement.fresh else
                       self.session_of_machines)(engine, measurement.mtu)
        elif measurement.published:
            session = self.session_published(engine, measurement.mtu)
        elif measurement.fresh:
            session = self.open(engine, measurement.mtu)
        else:
            session = self.session(engine, measurement.mtu)
        try:
            pids = session.engine_pids()
            cpu, wall = cpu_ns(pids), time.monotonic()
            result = measurement.measure(self, engine, session)
            if result and "bytes" in result and pids and result["bytes"]:
                result["cpu_s_per_gib"] = (cpu_ns(pids) - cpu) / 1e9 / (result["bytes"] / 2**30)
            elif result and pids:
                result["cpu_share"] = (cpu_ns(pids) - cpu) / 1e9 / (time.monotonic() - wall)
            return result
        finally:
            if measurement.fresh:
                session.close()

    def take(self, measurement, engine):
        key = (measurement.name, engine.name)
        try:
            result = self.sample(measurement, engine)
            if result:
                self.samples.setdefault(key, []).append(result)
                return f"{result['value']:.4g}"
            return "–"
        except Failed as failure:
            self.notes[key] = str(failure)
            self.forget(engine, measurement.group if measurement.group in ("names", "machines")
                        else measurement.mtu)
            return f"({failure})"

    def close(self):
        for session in self.sessions.values():
            session.close()
        self.server.close()
        self.dns_upstream.close()
        shutil.rmtree(self.directory)


def build_load(directory):
    source = os.path.join(HERE, "load.c")
    program = os.path.join(directory, "bench-load")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        os.makedirs(directory, exist_ok=True)
        subprocess.run(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", source, "-o",
                        program, "-pthread"], check=True)
    return program


def build_verdict(directory):
    """By ninja, like culvert itself."""
    subprocess.run(["ninja", "-C", directory, "bench/bench-verdict"], check=True,
                   stdout=subprocess.DEVNULL)
    return os.path.join(directory, "bench", "bench-verdict")


def all_engines(options):
    def culvert(name, extra):
        return Culvert(name, options.culvert, extra + options.culvert_arg)
    return [Loopback(), Slirp4netns(), Pasta(), culvert("culvert", []),
            culvert("culvert-nospin", ["--spin-us=0"]),
            CulvertVhostUser("culvert-vhost", options.culvert, options.culvert_arg,
                             options.build_dir),
            culvert("culvert-thread", ["--net-worker=thread"]), dns.Dnsmasq(),
            dns.DnsmasqBehind("dnsmasq-behind", options.culvert, options.culvert_arg),
            *machines.engines(options.culvert, options.culvert_arg)]


DEFAULT_ENGINES = ("loopback,slirp4netns,pasta,culvert,culvert-nospin,culvert-vhost,"
                   "dnsmasq,dnsmasq-behind,qemu-slirp,qemu-passt,qemu-stream,qemu-vhost")
NAMES_ENGINES = ("loopback", "culvert", "dnsmasq", "dnsmasq-behind")


def parse():
    parser = argparse.ArgumentParser(description="Measures culvert beside its peers.")
    parser.add_argument("--only", default="*", metavar="NAMES",
                        help="measurements, comma-separated, * allowed: tcp-up,rr,udp-*")
    parser.add_argument("--engines", default=DEFAULT_ENGINES,
                        help=f"comma-separated; default {DEFAULT_ENGINES}; also culvert-thread")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--idle-seconds", type=float, default=10)
    parser.add_argument("--flows", type=int, default=15000, help="for memory-flow")
    parser.add_argument("--culvert", metavar="PROGRAM",
                        default=os.environ.get("CULVERT", os.path.join(ROOT, "build", "culvert")))
    parser.add_argument("--culvert-arg", action="append", default=[], metavar="ARG",
                        help="one more argument of `culvert run`, repeatable")
    parser.add_argument("--build-dir", default=os.path.join(ROOT, "build"))
    parser.add_argument("--results", metavar="DIR",
                        help="write latest.md, .json and .svg there (default bench/results, "
                        "unless --only or --engines make it a partial run)")
    parser.add_argument("--port", type=int, default=27100, help="first of a few on 127.0.0.1")
    parser.add_argument("--list", action="store_true", help="list the measurements and exit")
    return parser.parse_args()


def choose(options):
    patterns = options.only.split(",")
    chosen = [m for m in MEASUREMENTS if any(fnmatch.fnmatch(m.name, p) for p in patterns)]
    if not chosen:
        sys.exit(f"bench: --only {options.only} names no measurement; see --list")
    known = {engine.name: engine for engine in all_engines(options)}
    engines = []
    for name in options.engines.split(","):
        if name not in known:
            sys.exit(f"bench: --engines: {name} is not one of {', '.join(known)}")
        why = known[name].missing()
        if why:
            say(f"{name}: skipped, {why}")
        else:
            engines.append(known[name])
    if not engines:
        sys.exit("bench: no engine is left to measure; packaging/install-deps.sh bench installs them")
    return chosen, engines


def say(text):
    print(text, file=sys.stderr, flush=True)


def applies(measurement, engine):
    """The variant that never spins is there for what the spin gains, and costs; the one behind
    virtqueues for what they cost; dnsmasq for names; QEMU for machines. Policy's code knows
    no engine."""
    if measurement.group == "policy":
        return engine.name == "culvert"
    if measurement.group == "names":
        return engine.name in NAMES_ENGINES
    if measurement.group == "machines" or isinstance(engine, machines.Machine):
        return measurement.group == "machines" and isinstance(engine, machines.Machine)
    if isinstance(engine, (dns.Dnsmasq, dns.DnsmasqBehind)):
        return False
    if engine.name == "culvert-nospin":
        return measurement.name in ("rr", "crr", "idle")
    if engine.name == "culvert-vhost":
        return measurement.name in ("tcp-up", "tcp-down", "tcp-up-8", "tcp-down-8", "rr", "crr",
                                    "udp-up", "udp-down", "idle")
    return True


def run_rounds(bench, chosen, engines, rounds):
    began = time.monotonic()
    for number in range(rounds):
        for measurement in chosen:
            if measurement.once and number > 0:
                continue
            turn = number % len(engines)
            figures = []
            for engine in engines[turn:] + engines[:turn]:
                if applies(measurement, engine):
                    figures.append(f"{engine.name} {bench.take(measurement, engine)}")
            say(f"[{time.monotonic() - began:4.0f} s, round {number + 1}/{rounds}] "
                f"{measurement.name} ({measurement.unit}): {', '.join(figures)}")


def machine():
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "load_average_before": os.getloadavg()[0]}


def write_results(directory, data, chosen):
    os.makedirs(directory, exist_ok=True)
    text = summary(data) + "\n" + tables(data, chosen) + "\n" + cpu_table(data, chosen)
    for name, content in (("latest.md", text), ("latest.svg", plot(data, chosen)),
                          ("latest.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
            f.write(content)
    say(f"bench: wrote latest.md, latest.json and latest.svg in {directory}")


def main():
    options = parse()
    if options.list:
        for measurement in MEASUREMENTS:
            print(f"{measurement.name:18} {measurement.title} ({measurement.unit})")
        return
    raise_descriptor_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))  # by way of close()
    chosen, engines = choose(options)
    data = {"machine": machine(), "rounds": options.rounds, "seconds": options.seconds,
            "engines": {engine.name: engine.version() for engine in engines}}
    bench = Bench(options, engines)
    try:
        run_rounds(bench, chosen, engines, options.rounds)
    except KeyboardInterrupt:
        say("bench: interrupted; what is there so far:")
    finally:
        bench.close()
    data["samples"] = {m.name: {e.name: bench.samples[m.name, e.name] for e in engines
                                if (m.name, e.name) in bench.samples} for m in chosen}
    data["notes"] = [f"{m}, {e}: {why}" for (m, e), why in bench.notes.items()]
    print(summary(data))
    print(tables(data, chosen))
    print(cpu_table(data, chosen))
    partial = options.only != "*" or options.engines != DEFAULT_ENGINES
    directory = options.results or (None if partial else os.path.join(HERE, "results"))
    if directory:
        write_results(directory, data, chosen)


if __name__ == "__main__":
    main()
