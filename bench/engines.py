# SPDX-License-Identifier: Apache-2.0
"""The engines under test: each gives a shell in a guest's network, and tells its own processes.

A session is that shell: commands go to its stdin, each answers with one line of JSON. The server of
the measurements listens on the host's loopback and is reached at `Engine.server`."""

import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time


class Failed(Exception):
    """A measurement that could not be made; says why in a sentence."""


def raise_descriptor_limit():
    """For every engine alike: some raise it by themselves, some do not."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
                found += [int(word) for word in f.read().split()]
    except OSError:
        pass
    return found


def family(pid):
    """The process and all its descendants."""
    members = [pid]
    for member in members:
        members += children(member)
    return members


def executable(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


def cpu_ns(pids):
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
                    total += int(f.read().split()[0])
        except OSError:
            pass
    return total


def resident_kib(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


class Session:
    """A shell in the guest's network. Ends its processes on close()."""

    def __init__(self, command, engine_names):
        self.engine_names = engine_names
        self.helper = None  # an engine that is a process beside the shell's
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            preexec_fn=raise_descriptor_limit, bufsize=0, start_new_session=True)

    def engine_pids(self):
        roots = [self.process.pid] + ([self.helper.pid] if self.helper else [])
        return [pid for root in roots for pid in family(root)
                if any(executable(pid).startswith(name) for name in self.engine_names)]

    def send(self, line):
        try:
            self.process.stdin.write(line.encode() + b"\n")
        except OSError:
            raise Failed(f"the session has ended: {self.last_error()}") from None

    def receive(self, timeout):
        line = b""
        deadline = time.monotonic() + timeout
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed(f"no answer within {timeout:.0f} s")
            piece = os.read(self.process.stdout.fileno(), 4096)
            if not piece:
                raise Failed(f"the session has ended: {self.last_error()}")
            line += piece
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(f"the client failed: {self.last_error()}")
        return answer

    def ask(self, line, timeout):
        self.send(line + " || echo '{\"failed\": true}'")
        return self.receive(timeout)

    def last_error(self):
        self.errors.seek(0)
        lines = [line for line in self.errors.read().decode(errors="replace").splitlines()
                 if "syslog" not in line]
        return lines[-1] if lines else "nothing was said on stderr"

    def close(self):
        for process in (self.process, self.helper):
            if not process:
                continue
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(2)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # what outlived the engine
        except ProcessLookupError:
            pass
        self.errors.close()


class Engine:
    name = ""
    server = "10.0.2.2"
    resolver = ("10.0.2.3", 53)
    executables = ()

    def missing(self):
        """Why it cannot be measured here, or None."""
        return None

    def open(self, mtu):
        raise NotImplementedError

    def open_published(self, mtu, first, last):
        """A session whose guest's TCP ports from first to last are 127.0.0.1's too."""
        raise Failed("it publishes no ports")

    def open_names(self, bench):
        """A session in which questions are answered at `resolver`, an address and a port."""
        raise Failed("it has no resolver of its own")

    def asking(self, command):
        """The command line that runs `command` in the guest's network of such a session."""
        return command

    def version(self):
        return ""

    def spawn_command(self):
        """A command line that runs `true` in a guest's network, or None."""
        return None


class Loopback(Engine):
    name = "loopback"
    server = "127.0.0.1"

    def open(self, mtu):
        return Session(["sh"], ())

    def open_published(self, mtu, first, last):
        return self.open(mtu)

    def open_names(self, bench):
        self.resolver = ("127.0.0.1", bench.dns_port)  # the upstream itself
        return self.open(1500)

    def spawn_command(self):
        return "true"


def first_line(command):
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                         text=True).stdout
    lines = [line for line in out.splitlines() if "syslog" not in line]
    return lines[0] if lines else ""


class Slirp4netns(Engine):
    name = "slirp4netns"
    executables = ("slirp4netns",)

    def missing(self):
        return None if shutil.which("slirp4netns") else "not installed (apt install slirp4netns)"

    def version(self):
        return first_line(["slirp4netns", "--version"])

    def open(self, mtu, extra=()):
        user = [] if os.geteuid() == 0 else ["-r"]
        session = Session(["unshare", "-n"] + user + ["sh"], self.executables)
        ready, ready_end = os.pipe()
        try:
            session.ask("echo '{}'", 5)  # the namespace stands
            session.helper = subprocess.Popen(
                ["slirp4netns", "--configure", f"--mtu={mtu}", f"--ready-fd={ready_end}",
                 *extra, str(session.process.pid), "tap0"],
                stdin=subprocess.PIPE, stdout=session.errors, stderr=session.errors,
                pass_fds=[ready_end], preexec_fn=raise_descriptor_limit)
            if not select.select([ready], [], [], 5)[0]:
                raise Failed("slirp4netns did not become ready")
        except Failed:
            session.close()
            raise
        finally:
            os.close(ready)
            os.close(ready_end)
        return session

    def open_published(self, mtu, first, last):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "api")
            session = self.open(mtu, ["--api-socket", path])
            for port in range(first, last + 1):
                request = {"execute": "add_hostfwd",
                           "arguments": {"proto": "tcp", "host_addr": "127.0.0.1",
                                         "host_port": port, "guest_addr": "10.0.2.100",
                                         "guest_port": port}}
                with socket.socket(socket.AF_UNIX) as api:
                    api.connect(path)
                    api.sendall(json.dumps(request).encode())
                    api.shutdown(socket.SHUT_WR)
                    answer = api.recv(4096).decode()
                if "error" in answer:
                    session.close()
                    raise Failed(f"slirp4netns does not publish: {answer.strip()}")
            return session


class Pasta(Engine):
    name = "pasta"
    executables = ("pasta", "passt")

    def missing(self):
        return None if shutil.which("pasta") else "not installed (apt install passt)"

    def version(self):
        return first_line(["dpkg-query", "-W", "-f", "passt ${Version}", "passt"])

    def options(self, mtu, published="none"):
        """The gateway stands for the host's loopback; nothing is spliced around the tap, except
        between a published port and its client on this host."""
        options = ["pasta", "-q", "-f", "--config-net", "-m", str(mtu), "-a", "10.0.2.100", "-n",
                   "24", "-g", "10.0.2.2", "-t", published, "-u", "none", "-T", "none", "-U", "none"]
        return options + (["--runas", "0"] if os.geteuid() == 0 else [])

    def open(self, mtu):
        return Session(self.options(mtu) + ["--", "sh"], self.executables)

    def open_published(self, mtu, first, last):
        return Session(self.options(mtu, f"{first}-{last}") + ["--", "sh"], self.executables)

    def spawn_command(self):
        return " ".join(self.options(1500) + ["--", "true"]) + " 2>/dev/null"


class Culvert(Engine):
    executables = ("culvert",)

    def __init__(self, name, program, extra):
        self.name = name
        self.program = program
        self.extra = extra

    def missing(self):
        return None if os.access(self.program, os.X_OK) else f"{self.program} is not built yet"

    def version(self):
        return first_line([self.program, "--version"])

    def open(self, mtu):
        return Session([self.program, "run", "--mtu", str(mtu), "--rule", "allow any to host"]
                       + self.extra + ["--", "sh"], self.executables)

    def open_published(self, mtu, first, last):
        return Session([self.program, "run", "--mtu", str(mtu), "-p",
                        f"{first}-{last}:{first}-{last}"] + self.extra + ["--", "sh"],
                       self.executables)

    def open_names(self, bench):
        return Session([self.program, "run", "--dns", f"127.0.0.1:{bench.dns_port}"] + self.extra
                       + ["--", "sh"], self.executables)

    def spawn_command(self):
        return " ".join([self.program, "run"] + self.extra + ["--", "true"])
