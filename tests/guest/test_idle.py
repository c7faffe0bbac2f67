#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""What culvert costs while nothing happens: no system call, and little memory."""

import os
import re
import resource
import select
import signal
import socket
import subprocess
import tempfile
import time

from lab import (DEADLINE, INTERNET4, INTERNET6, SANITIZED, Skip, check, equal, main, test,
                 wait_until)

WATCHED = 10  # seconds
FLOWS = 15000
PORTS = 3  # of the server, as a guest has 28,000 ports towards one


def allow_descriptors(count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if count > hard:
        raise Skip(f"{count} descriptors are needed, {hard} may be had: ulimit -Hn {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


# ---- many flows ----


class EchoServer:
    """A process that echoes on every connection, so that each side has descriptors of its own."""

    def __init__(self, lab):
        self.listeners = [lab.internet.listen(INTERNET4, backlog=4096) for _ in range(PORTS)]
        self.ports = [listener.getsockname()[1] for listener in self.listeners]
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._serve()
            finally:
                os._exit(1)
        for listener in self.listeners:
            listener.close()

    def _serve(self):
        epoll, connections = select.epoll(), {}
        accepting = {listener.fileno(): listener for listener in self.listeners}
        for number in accepting:
            epoll.register(number, select.EPOLLIN)
        while True:
            for number, _ in epoll.poll():
                if number in accepting:
                    connection, _ = accepting[number].accept()
                    connections[connection.fileno()] = connection
                    epoll.register(connection, select.EPOLLIN)
                    continue
                data = connections[number].recv(100)
                if data:
                    connections[number].send(data)
                else:
                    connections.pop(number).close()

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Flows:
    """Idle connections from the guest to an echo server."""

    def __init__(self, guest, server, count):
        self.clients = []
        while len(self.clients) < count:
            self._open(guest, server, min(200, count - len(self.clients)))

    def _open(self, guest, server, count):
        with guest.net:
            new = [socket.socket() for _ in range(count)]
        for i, client in enumerate(new):
            client.setblocking(False)
            client.connect_ex((INTERNET4, server.ports[i % PORTS]))
        for client in new:
            wait_until(lambda: select_writable(client), "connected", pause=0.001)
            client.settimeout(DEADLINE)
        self.clients += new

    def exchange(self):
        """A byte each way on every one, 200 at a time: what many bytes at once take is not an idle flow's."""
        for at in range(0, len(self.clients), 200):
            some = self.clients[at:at + 200]
            for client in some:
                client.send(b"?")
            for client in some:
                equal(client.recv(10), b"?")

    def close(self):
        for client in self.clients:
            client.close()


def select_writable(connection):
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    return poll.poll(0)


# ---- silence ----


def be_active(lab, guest):
    """A little of everything that could leave a timer behind."""
    for address in (INTERNET4, INTERNET6):
        status, out, _ = guest.run("ping", "-n", "-c", "1", "-W", "3", address)
        check(status == 0, out)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with lab.internet.socket(family, socket.SOCK_DGRAM) as peer:
            peer.bind((address, 0))
            client = guest.socket(family, socket.SOCK_DGRAM)
            client.connect((address, peer.getsockname()[1]))
            client.send(b"?")
            data, back = peer.recvfrom(10)
            peer.sendto(data, back)
            equal(client.recv(10), b"?")
        with lab.internet.listen(address) as listener:
            with guest.connect(address, listener.getsockname()[1]) as client:
                server, _ = listener.accept()
                with server:
                    server.send(bytes(1 << 16))
                    client.sendall(bytes(1 << 16))


def switches(pid):
    """How often culvert's threads have gone to sleep: no more while all of them sleep."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as file:
            total += sum(map(int, re.findall(r"ctxt_switches:\s*(\d+)", file.read())))
    return total


def await_rest(guests):
    """Until all have slept for a second: delayed ACKs, TIME-WAIT and the guests' kernels are done
    with what went before."""
    state = {"seen": None, "since": time.monotonic()}

    def at_rest():
        seen = [switches(guest.pid) for guest in guests]
        if seen != state["seen"]:
            state["seen"], state["since"] = seen, time.monotonic()
        return time.monotonic() - state["since"] > 1
    wait_until(at_rest, "culvert comes to rest", seconds=60, pause=0.05)


def calls_in(trace):
    """Completed system calls, less the waits that strace's own arrival has interrupted."""
    trace.seek(0)
    return [line for line in trace.read().splitlines()
            if " = " in line and "EINTR" not in line and "resumed" not in line]


def watch(guest):
    trace = tempfile.NamedTemporaryFile("r", suffix=".strace")
    process = subprocess.Popen(["strace", "-f", "-qq", "-o", trace.name, "-p", str(guest.pid)],
                               stderr=subprocess.PIPE)
    threads = len(os.listdir(f"/proc/{guest.pid}/task"))

    def attached():
        if process.poll() is not None:
            raise Skip("strace: " + process.stderr.read().decode().strip())
        traced = 0
        for task in os.listdir(f"/proc/{guest.pid}/task"):
            with open(f"/proc/{guest.pid}/task/{task}/status") as file:
                traced += "TracerPid:\t0\n" not in file.read()
        return traced == threads
    wait_until(attached, "strace has attached")
    return process, trace


def end(process):
    process.send_signal(signal.SIGINT)
    process.wait(DEADLINE)


@test
def an_idle_engine_makes_no_system_call(lab):
    """Three at a time: after activity; with 1,000 idle flows; the same driven by a NetWorker."""
    allow_descriptors(4000)
    server, flows = EchoServer(lab), []
    names = ["after activity", "with 1,000 flows", "with 1,000 flows and a NetWorker"]
    guests = [lab.guest(nofile=4000), lab.guest(nofile=4000),
              lab.guest("--net-worker=thread", nofile=4000)]
    try:
        for guest in guests:
            be_active(lab, guest)
        for guest in guests[1:]:
            flows.append(Flows(guest, server, 1000))
            flows[-1].exchange()
        await_rest(guests)
        traces = [watch(guest) for guest in guests]
        await_rest(guests)
        before = [(len(calls_in(trace)), switches(guest.pid))
                  for guest, (_, trace) in zip(guests, traces)]
        time.sleep(WATCHED)  # this is what is measured
        after = [(len(calls_in(trace)), switches(guest.pid))
                 for guest, (_, trace) in zip(guests, traces)]
        for (process, _) in traces:
            end(process)
        for name, old, new, (_, trace) in zip(names, before, after, traces):
            equal(new, old, f"system calls and context switches {name}: {calls_in(trace)[old[0]:]}")
        for made in flows:
            made.exchange()  # and all are still alive
    finally:
        for made in flows:
            made.close()
        for guest in guests:
            guest.close()
        server.close()


# ---- memory ----


@test
def memory_at_the_start_is_below_8_mib(lab):
    if SANITIZED:
        raise Skip("sanitizers need memory of their own")
    for options in ((), ("--net-worker=thread",)):
        with lab.guest(*options) as guest:
            check(guest.resident() <= 8 << 20, f"{guest.resident()} bytes {options}")


@test
def an_idle_flow_costs_less_than_a_kibibyte(lab):
    if SANITIZED:
        raise Skip("sanitizers need memory of their own")
    allow_descriptors(FLOWS + 2000)
    server = EchoServer(lab)
    with lab.guest() as guest:
        warm = Flows(guest, server, 10)
        warm.exchange()
        before = guest.resident()
        flows = Flows(guest, server, FLOWS)
        flows.exchange()
        per_flow = (guest.resident() - before) / FLOWS
        descriptors = guest.descriptors()
        for made in (flows, warm):
            made.close()
        check(descriptors >= FLOWS, f"{descriptors} descriptors: one a flow")
        check(per_flow <= 1024, f"{per_flow:.0f} bytes a flow")
        wait_until(lambda: guest.descriptors() < 200, "the flows end", seconds=60)
        print(f"# {per_flow:.0f} bytes a flow")
    server.close()


main()
