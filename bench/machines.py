# SPDX-License-Identifier: Apache-2.0
"""A Linux guest in QEMU, without KVM, behind each engine: what a virtual machine gets of it.

The guest is that of the tests (tests/guest/vm.py): a Debian cloud kernel, busybox, and bench-load. The
emulated processor is the bottleneck, so the figures say how much of it an engine leaves to the guest:
with segmentation offload there is one packet to emulate where there are forty without.

Each machine takes its address by DHCP from its engine, and reaches the servers on the host's loopback
at 10.0.2.2. All stay up, idle, while the others are measured."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

from engines import Engine, Failed, cpu_ns, executable, family, first_line, raise_descriptor_limit

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import vm  # noqa: E402  (the tests' machine)
from lab import Skip  # noqa: E402

MEMORY = 192  # MiB
READY_SECONDS = 5
DHCP = "ip link set lo up; ip link set eth0 up; udhcpc -s /bin/configure -i eth0 -n -q -t 20 -T 1"


def build_guest_program(directory):
    """bench-load for the guest: static."""
    program = os.path.join(directory, "bench-load-static")
    source = os.path.join(ROOT, "bench", "load.c")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        os.makedirs(directory, exist_ok=True)
        subprocess.run(["cc", "-static", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", source, "-o",
                        program, "-pthread"], check=True)
    return program


class MachineSession:
    """A machine that is up and has fetched something, and its engine."""

    def __init__(self, engine, bench, mtu):
        self.engine = engine
        self.helper = self.machine = None
        self.directory = tempfile.mkdtemp(prefix="culvert-machine-")
        vm.CARRY["load"] = build_guest_program(bench.build_directory)
        try:
            path = os.path.join(self.directory, "net")
            self.helper = engine.start(path, mtu)
            self.machine = vm.VM(engine.netdev(path), memory=MEMORY, **engine.options)
            self._fetch(bench)
        except (AssertionError, Skip, OSError) as problem:
            self.close()
            raise Failed(str(problem).splitlines()[0]) from None
        except BaseException:
            self.close()
            raise

    def _fetch(self, bench):
        self.machine.call(DHCP)
        self.ask(f"load http -p {bench.port} {self.engine.server}", 30)
        self.first_byte_seconds = time.monotonic() - self.machine.begun

    def engine_pids(self):
        roots = [self.helper.pid] if self.helper else []
        return [pid for root in roots for pid in family(root)
                if any(executable(pid).startswith(name) for name in self.engine.executables)]

    def everything_ns(self):
        """CPU of the engine and of the machine."""
        return cpu_ns(self.engine_pids() + [self.machine.process.pid])

    def ask(self, line, timeout):
        """The JSON that a command in the guest prints."""
        try:
            status, out = self.machine.run(line, timeout)
        except (AssertionError, OSError) as problem:
            raise Failed(str(problem).splitlines()[0]) from None
        answers = [text for text in out.splitlines() if text.startswith("{")]
        if status != 0 or not answers:
            raise Failed(f"the client in the guest failed: {out.strip()[-200:]}")
        return json.loads(answers[-1])

    def close(self):
        if self.machine:
            self.machine.kill()
        if self.helper:
            self.helper.terminate()
            try:
                self.helper.wait(3)
            except subprocess.TimeoutExpired:
                self.helper.kill()
                self.helper.wait()
            if self.helper.stdout:
                self.helper.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class Machine(Engine):
    """A machine's network."""
    options = {}  # of vm.VM

    def missing(self):
        return vm.unavailable()

    def version(self):
        return first_line([vm.QEMU, "--version"]).replace("emulator ", "")

    def start(self, path, mtu):
        """The engine's process, which serves at `path`; None: there is none."""
        raise NotImplementedError

    def netdev(self, path):
        raise NotImplementedError

    def open_machine(self, bench, mtu):
        return MachineSession(self, bench, mtu)


def stream_netdev(path):
    return ["-netdev", f"stream,id=net,server=off,addr.type=unix,addr.path={path}"]


class Slirp(Machine):
    """What QEMU brings along: a part of its main thread, so that its own CPU cannot be told."""
    name = "qemu-slirp"

    def start(self, path, mtu):
        return None

    def netdev(self, path):
        return ["-netdev", "user,id=net"]


class Passt(Machine):
    name = "qemu-passt"
    executables = ("passt",)

    def missing(self):
        if not shutil.which("passt"):
            return "passt is not installed (apt install passt)"
        return super().missing()

    def version(self):
        return first_line(["dpkg-query", "-W", "-f", "passt ${Version}", "passt"])

    def start(self, path, mtu):
        words = ["passt", "-q", "-f", "-s", path, "-m", str(mtu), "-a", "10.0.2.100", "-n", "24", "-g",
                 "10.0.2.2", "-t", "none", "-u", "none"]
        words += ["--runas", "0"] if os.geteuid() == 0 else []
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, preexec_fn=raise_descriptor_limit)
        deadline = time.monotonic() + READY_SECONDS
        while not os.path.exists(path):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise Failed("passt did not become ready")
            time.sleep(0.01)
        return process

    def netdev(self, path):
        return stream_netdev(path)


class CulvertMachine(Machine):
    executables = ("culvert",)

    def __init__(self, program, extra):
        self.program = program
        self.extra = extra

    def missing(self):
        if not os.access(self.program, os.X_OK):
            return f"{self.program} is not built yet"
        return super().missing()

    def version(self):
        return first_line([self.program, "--version"])

    def start(self, path, mtu):
        process = subprocess.Popen(
            [self.program, "serve", "--mtu", str(mtu), "--rule", "allow any to host", *self.extra,
             self.front_end, path],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            preexec_fn=raise_descriptor_limit)
        if not select.select([process.stdout], [], [], READY_SECONDS)[0] or \
                process.stdout.readline() != b"ready\n":
            process.kill()
            process.wait()
            raise Failed("culvert serve did not become ready")
        return process


class CulvertStream(CulvertMachine):
    name = "qemu-stream"
    front_end = "--stream"

    def netdev(self, path):
        return stream_netdev(path)


class CulvertVhost(CulvertMachine):
    name = "qemu-vhost"
    front_end = "--vhost-user"
    options = {"machine": "pc,memory-backend=memory"}

    def netdev(self, path):
        return ["-object", f"memory-backend-memfd,id=memory,share=on,size={MEMORY}M",
                "-chardev", f"socket,id=chardev,path={path}", "-netdev",
                "vhost-user,id=net,chardev=chardev"]


def engines(program, extra):
    return [Slirp(), Passt(), CulvertStream(program, extra), CulvertVhost(program, extra)]


# ---- how each is measured


def _with_all_cpu(session, before, result):
    """Beside the engine's CPU that of both parties: what one saves the other may have to spend."""
    if result["bytes"]:
        result["all_cpu_s_per_gib"] = \
            (session.everything_ns() - before) / 1e9 / (result["bytes"] / 2**30)
    return result


def tcp_up(throughput):
    def measure(bench, engine, session):
        bench.ask_server("reset")
        before = session.everything_ns()
        session.ask(f"load tcp-up -p {bench.port} -t {bench.seconds} {engine.server}",
                    bench.seconds + 30)
        result = throughput(bench.ask_server("tcp")["streams"], bench.seconds)
        return _with_all_cpu(session, before, result)
    return measure


def tcp_down(throughput):
    def measure(bench, engine, session):
        before = session.everything_ns()
        answer = session.ask(f"load tcp-down -p {bench.port} -t {bench.seconds} {engine.server}",
                             bench.seconds + 30)
        return _with_all_cpu(session, before, throughput(answer["streams"], bench.seconds))
    return measure


def first_byte(_bench, _engine, session):
    return {"value": session.first_byte_seconds}
