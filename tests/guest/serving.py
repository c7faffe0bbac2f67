# SPDX-License-Identifier: Apache-2.0
"""A `culvert serve` for guest tests, and servers on the host that check what they get."""

import hashlib
import os
import signal
import subprocess
import tempfile
import threading

from lab import CULVERT, DEADLINE, counters_in, wait_until


class Serve:
    """`culvert serve OPTIONS` in the lab's host network; ready when made. Ends with `with`, or
    close()."""

    def __init__(self, lab, *options, rules=("allow any to host",), ipv6=True, pass_fds=()):
        self.lab, self.pass_fds = lab, pass_fds
        self.words = [CULVERT, "serve", "--ipv6", "on" if ipv6 else "off"]
        for rule in rules:
            self.words += ["--rule", rule]
        self.words += options
        self.process = None
        self.start()

    def start(self):
        self.errors = tempfile.TemporaryFile()
        with self.lab.host:
            self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=self.errors,
                                            pass_fds=self.pass_fds)
        line = self.process.stdout.readline()
        if line != b"ready\n":
            self.process.wait(DEADLINE)
            raise AssertionError(f"culvert serve: {line!r} {self.stderr()}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.close()
        except Exception:
            if kind is None:
                raise

    def stderr(self):
        # Not by seek(): the place in the file is culvert's too.
        return os.pread(self.errors.fileno(), 1 << 24, 0).decode(errors="replace")

    def counters(self):
        """By name, asked for by SIGUSR1."""
        before = len(self.stderr())
        self.process.send_signal(signal.SIGUSR1)
        return counters_in(wait_until(lambda: self.stderr()[before:], "the counters of SIGUSR1"))

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None

    def close(self, expected=0):
        """SIGTERM; it must end well."""
        if not self.process:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("culvert serve does not end: " + self.stderr()) from None
        self.process.stdout.close()
        self.process = None
        if status != expected:
            raise AssertionError(f"culvert serve's exit status: {status}\n{self.stderr()[-4000:]}")


# ---- bytes that can be checked at the other end ----

BLOCK = bytes((i * 7919 + (i >> 8) * 104729) & 0xff for i in range(65521))  # a prime: no alignment


def repeated(total):
    """The same bytes over and over, in pieces."""
    while total > 0:
        yield BLOCK[:total]
        total -= len(BLOCK)


def digest_of(total):
    md5 = hashlib.md5()
    for piece in repeated(total):
        md5.update(piece)
    return md5.hexdigest()


class Server:
    """On the host's loopback: "GET /N" is answered with N bytes; anything else is an upload, whose
    length and MD5 come back when it has ended."""

    def __init__(self, lab, address="127.0.0.1"):
        self.listener = lab.host.listen(address)
        self.listener.settimeout(None)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _serve(connection):
        with connection:
            connection.settimeout(120)
            try:
                data = connection.recv(1 << 16)
                if data.startswith(b"GET /"):
                    total = int(data.split()[1][1:])
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
                    for piece in repeated(total):
                        connection.sendall(piece)
                    return
                md5, total = hashlib.md5(), 0
                while data:
                    md5.update(data)
                    total += len(data)
                    data = connection.recv(1 << 18)
                connection.sendall(f"{total} {md5.hexdigest()}\n".encode())
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


# ---- what a guest does with it ----


def download(vm, host, server, total):
    """`total` bytes come to the guest, and are right. Seconds it took."""
    return float(vm.call(f"vm_client get {host} {server.port} {total}", 120))


def upload(vm, host, server, total):
    """`total` bytes go from the guest to the server, and are right. Seconds it took."""
    count, digest, seconds = vm.call(f"vm_client put {host} {server.port} {total}", 120).split()
    if [count, digest] != [str(total), digest_of(total)]:
        raise AssertionError(f"of {total} bytes uploaded {count} came, or not the right ones")
    return float(seconds)
