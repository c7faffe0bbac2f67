# SPDX-License-Identifier: Apache-2.0
"""A laboratory for guest tests: a host and an internet of the test's own, and guests of culvert's.

    test program (root, re-executed in network, mount and PID namespaces of its own)

      host 93.184.216.2 ────veth──── internet 93.184.216.34   public-looking, joined to nothing else
        │
      culvert run ──TAP── guest 10.0.2.100

All three are network namespaces and the test program is in all of them: `with lab.internet:` or
`with guest.net:` moves the calling thread there, and a socket stays where it was made. So a test
holds both ends of a connection, and what one does is seen at the other without a helper program.
Real clients are run the same way (`guest.run("curl", ...)`).

A test is a function decorated with @test, named as a sentence; main() runs those whose names hold
one of the program's arguments (all without any) and prints "ok NAME", "not ok NAME reason" or "skip
NAME reason". $CULVERT_OPTIONS are given to every guest, to try all of it in another way. Nothing
here sleeps for luck: wait_until() polls. Every socket has a deadline.
"""

import contextlib
import ctypes
import errno
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

CULVERT = os.path.abspath(os.environ.get("CULVERT", "build/src/cli/culvert"))
SANITIZED = bool(os.environ.get("CULVERT_SANITIZED"))
SLOWNESS = 3 if SANITIZED else 1
DEADLINE = 10 * SLOWNESS

HOST4, HOST6 = "93.184.216.2", "2606:2800:220:1::2"
INTERNET4, INTERNET6 = "93.184.216.34", "2606:2800:220:1::34"
GUEST4, GUEST6 = "10.0.2.100", "fd63:756c:7665::64"
GATEWAY4, GATEWAY6 = "10.0.2.2", "fd63:756c:7665::2"
GATEWAY_MAC = bytes.fromhex("0263756c7602")
LOOPBACK = {GATEWAY4: "127.0.0.1", GATEWAY6: "::1"}

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


# ---- expectations ----


class Skip(Exception):
    """Raised by a test that cannot be made here."""


def equal(seen, expected, what=""):
    if seen != expected:
        raise AssertionError(f"{what + ': ' if what else ''}{seen!r} is not {expected!r}")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def wait_until(condition, what, seconds=DEADLINE, pause=0.005):
    """Polls until `condition()` is true, and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(pause)


def fails_with(number, call, *arguments):
    """The call fails with this errno (or one of these); returns the seconds it took."""
    numbers = number if isinstance(number, tuple) else (number,)
    begun = time.monotonic()
    try:
        call(*arguments)
    except OSError as error:
        seen = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno
        if seen not in numbers:
            names = "/".join(errno.errorcode[n] for n in numbers)
            raise AssertionError(f"{error!r}, not {names}") from error
        return time.monotonic() - begun
    raise AssertionError("it succeeded")


# ---- programs that packaging/install-deps.sh has unpacked and not installed ----

UNPACKED = "/var/cache/culvert"


def unpacked(package, program):
    """(path of the program, what its environment must have), or None: it is not there."""
    installed = shutil.which(program)
    if installed:
        return installed, {}
    root = f"{UNPACKED}/{package}"
    for directory in "bin", "sbin":
        path = f"{root}/usr/{directory}/{program}"
        if os.access(path, os.X_OK):
            return path, {"LD_LIBRARY_PATH": f"{root}/usr/lib/x86_64-linux-gnu"}
    return None


# ---- network namespaces ----


def _setns(fd):
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, "setns: " + os.strerror(number))


def _own_namespace():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Network:
    """A network namespace; `with` moves the calling thread into it and back."""

    def __init__(self, fd):
        self.fd = fd
        self._before = threading.local()

    @classmethod
    def new(cls):
        before = _own_namespace()
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        network = cls(_own_namespace())
        _setns(before)
        os.close(before)
        return network

    def __enter__(self):
        stack = self._before.__dict__.setdefault("stack", [])
        stack.append(_own_namespace())
        _setns(self.fd)
        return self

    def __exit__(self, *_):
        before = self._before.stack.pop()
        _setns(before)
        os.close(before)

    def close(self):
        os.close(self.fd)

    def run(self, *words, timeout=DEADLINE, **options):
        """(status, stdout, stderr) of a program that runs in this network."""
        with self:
            if "input" not in options:
                options.setdefault("stdin", subprocess.DEVNULL)
            options.setdefault("text", True)
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=timeout, **options)
        return done.returncode, done.stdout, done.stderr

    def call(self, *words, **options):
        """stdout of a program that must succeed."""
        status, out, err = self.run(*words, **options)
        if status != 0:
            raise AssertionError(f"{' '.join(words)}: status {status}: {err.strip()}")
        return out

    def ip(self, *lines):
        """Lines of `ip`, each with or without "-6" in front."""
        for family in ("", "-6"):
            batch = [line[3:] if family else line for line in lines
                     if line.startswith("-6 ") == bool(family)]
            if batch:
                self.call("ip", *([family] if family else []), "-batch", "-",
                          input="\n".join(batch) + "\n")

    def filter(self, *rules, hook="input"):
        """What comes in is filtered by these rules of nftables, and by no others."""
        rules = "\n".join(rules)
        self.call("nft", "-f", "-", input="flush ruleset\n" + (
            f"table inet filter {{\nchain {hook} {{\ntype filter hook {hook} priority 0\n"
            f"{rules}\n}}\n}}\n" if rules else ""))

    def filter_output(self, *rules):
        self.filter(*rules, hook="output")

    def filtered(self):
        """Packets that a rule with "counter" has counted."""
        return sum(map(int, re.findall(r"packets (\d+)", self.call("nft", "list", "ruleset"))))

    def sysctl(self, name, value):
        with self, open("/proc/sys/" + name.replace(".", "/"), "w") as file:
            file.write(str(value))

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
        with self:
            made = socket.socket(family, kind, protocol)
        made.settimeout(DEADLINE)
        return made

    def listen(self, address="", port=0, backlog=128):
        """A listening socket."""
        listener = self.socket(family_of(address))
        if family_of(address) == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(backlog)
        return listener

    def connect(self, address, port, timeout=DEADLINE, receive_buffer=None):
        made = self.socket(family_of(address))
        try:
            made.settimeout(timeout)
            if receive_buffer:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            made.connect((address, port))
            made.settimeout(DEADLINE)
            return made
        except BaseException:
            made.close()
            raise


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


# ---- the machine ----


class Lab:
    """The host's and the internet's network."""

    def __init__(self):
        self.host = Network(_own_namespace())
        self.internet = Network.new()
        for network in (self.host, self.internet):
            network.sysctl("net.ipv6.conf.default.accept_dad", 0)
            network.sysctl("net.ipv6.conf.all.accept_dad", 0)
            network.ip("link set lo up")
        self.host.ip("link add h0 type veth peer name i0")
        self._move("i0", self.internet)
        self.internet.ip("link set i0 up", f"addr add {INTERNET4}/24 dev i0",
                         f"addr add {INTERNET6}/64 dev i0 nodad")
        self.host.ip("link set h0 up", f"addr add {HOST4}/24 dev h0",
                     f"addr add {HOST6}/64 dev h0 nodad",
                     f"route add default via {INTERNET4}", f"-6 route add default via {INTERNET6}")
        self.internet.ip(f"route add default via {HOST4}", f"-6 route add default via {HOST6}")
        wait_until(lambda: "tentative" not in self.internet.call("ip", "addr") and
                   "LOWER_UP" in self.internet.call("ip", "link", "show", "i0"), "addresses")

    def _move(self, interface, network):
        path = f"/proc/{os.getpid()}/fd/{network.fd}"
        self.host.call("ip", "link", "set", interface, "netns", path)

    def has(self, *addresses):
        """More addresses in the internet."""
        self.internet.ip(*(f"addr replace {a} dev lo" + (" nodad" if ":" in a else "")
                           for a in addresses))

    def guest(self, *options, **keywords):
        return Guest(self, *options, **keywords)


class Guest:
    """A `culvert run` whose command waits. Ends with `with`, or close()."""

    def __init__(self, lab, *options, rules=("allow any to host",), nofile=None, ipv6=True):
        words = [CULVERT, "run", "--ipv6", "on" if ipv6 else "off",
                 *os.environ.get("CULVERT_OPTIONS", "").split()]
        for rule in rules:
            words += ["--rule", rule]
        self.errors = tempfile.TemporaryFile("ab+")
        self.sockets = []
        with lab.host:
            self.process = subprocess.Popen(
                [*words, *options, "--", "sh", "-c", "echo ready; exec cat"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile)))
                if nofile else None)
        self.pid = self.process.pid
        if self.process.stdout.readline() != b"ready\n":
            self.process.wait(DEADLINE)
            raise AssertionError("culvert run: " + self.stderr())
        init = open(f"/proc/{self.pid}/task/{self.pid}/children").read().split()[0]
        self.net = Network(os.open(f"/proc/{init}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        self.counters()  # an answer means that all has been set up

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.close()
        except Exception:
            if kind is None:
                raise

    def close(self):
        """Ends the command; culvert must have lived and must end well."""
        for made in self.sockets:
            made.close()
        self.process.stdin.close()
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = "killed: it did not end"
        self.process.stdout.close()
        self.net.close()
        text = self.stderr()
        self.errors.close()
        if status != 0:
            raise AssertionError(f"culvert's exit status: {status}\n{text[-4000:]}")
        return text

    # -- inside --

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
        made = self.net.socket(family, kind, protocol)
        self.sockets.append(made)
        return made

    def connect(self, address, port, **options):
        made = self.net.connect(address, port, **options)
        self.sockets.append(made)
        return made

    def run(self, *words, **options):
        return self.net.run(*words, **options)

    def wire(self):
        """A raw socket on eth0: puts frames in as if the guest had sent them, and sees all."""
        made = self.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        made.bind(("eth0", 0))
        return made

    def mac(self):
        with self.wire() as wire:
            return wire.getsockname()[4]

    # -- outside --

    def stderr(self):
        # pread: culvert writes at the same file position.
        return os.pread(self.errors.fileno(), 1 << 24, 0).decode(errors="replace")

    def counters(self):
        """The counters by name, asked for by SIGUSR1."""
        before = len(self.stderr())
        self.process.send_signal(signal.SIGUSR1)
        text = wait_until(lambda: self.stderr()[before:], "the counters of SIGUSR1",
                          pause=0.001)
        return counters_in(text)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self):
        """Bytes of memory resident."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * 4096


def counters_in(text):
    return {name: int(value) for name, value in
            re.findall(r"^culvert: (\w+) +(\d+)  ", text, re.M)}


# ---- connections ----


class Pair(contextlib.AbstractContextManager):
    """Both ends of a connection: `guest` and `peer`."""

    def __init__(self, listener, connect, *arguments, **options):
        self.guest = connect(*arguments, **options)
        self.peer, self.peer_address = listener.accept()
        self.peer.settimeout(DEADLINE)

    def __exit__(self, *_):
        self.guest.close()
        self.peer.close()


def reset(connection):
    """Closes with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def receive_all(connection, limit=None):
    """Bytes until FIN."""
    chunks = []
    size = 0
    while chunk := connection.recv(1 << 20):
        chunks.append(chunk)
        size += len(chunk)
        if limit and size > limit:
            break
    return b"".join(chunks)


def receive_exactly(connection, count):
    data = bytearray(count)
    view = memoryview(data)
    done = 0
    while done < count:
        n = connection.recv_into(view[done:])
        if n == 0:
            raise AssertionError(f"FIN after {done} of {count} bytes")
        done += n
    return bytes(data)


def in_thread(function, *arguments):
    """Starts it at once; the returned function waits, and gives its result or raises its error."""
    outcome = {}

    def body():
        try:
            outcome["result"] = function(*arguments)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=body, daemon=True)
    thread.start()

    def join(seconds=6 * DEADLINE):
        thread.join(seconds)
        if thread.is_alive():
            raise AssertionError(f"{function.__name__} does not end")
        if "error" in outcome:
            raise outcome["error"]
        return outcome["result"]

    return join


# ---- running ----

_TESTS = []


def test(function):
    _TESTS.append(function)
    return function


def for_each(**choices):
    """Registers the test once for each value: @for_each(worker=["direct", "thread"])."""
    (name, values), = choices.items()

    def register(function):
        for value in values:
            label = value if isinstance(value, str) else str(value)

            def one(lab, value=value):
                return function(lab, **{name: value})
            one.__name__ = f"{function.__name__}_{_LABELS.get(label, label)}"
            _TESTS.append(one)
        return function

    return register


_LABELS = {INTERNET4: "over_ipv4", INTERNET6: "over_ipv6", GATEWAY4: "to_the_host_over_ipv4",
           GATEWAY6: "to_the_host_over_ipv6", "direct": "driven_directly",
           "thread": "driven_by_a_net_worker"}


def _enter_namespaces():
    """A PID namespace too: whatever a test leaves behind ends with it."""
    if os.environ.get("CULVERT_LAB"):
        return
    os.environ["CULVERT_LAB"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child",
                          "--mount-proc", "--propagation", "private", sys.executable,
                          os.path.abspath(sys.argv[0]), *sys.argv[1:]])


def _run_one(function, lab):
    """True: it did not fail."""
    begun = time.monotonic()
    try:
        function(lab)
        print(f"ok {function.__name__} ({time.monotonic() - begun:.2f} s)", flush=True)
    except Skip as reason:
        print(f"skip {function.__name__} {reason}", flush=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".replace("\n", " | ")
        print(f"not ok {function.__name__} {reason}", flush=True)
        for line in traceback.format_exc().splitlines():
            print("#   " + line, flush=True)
        return False
    finally:
        lab.internet.filter()
        lab.host.filter()
    return True


def main():
    program = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    if os.geteuid() != 0:
        print(f"skip {program} needs root, to make networks")
        return
    if not os.access(CULVERT, os.X_OK):
        sys.exit(f"{CULVERT} is missing: build it, or say in $CULVERT where it is")
    _enter_namespaces()
    lab = Lab()
    wanted = [t for t in _TESTS if not sys.argv[1:] or
              any(word in t.__name__ for word in sys.argv[1:])]
    results = [_run_one(function, lab) for function in wanted]
    sys.stdout.flush()
    os._exit(0 if all(results) else 1)
