#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""Much TCP at once: a GiB each way at both MTUs, however the device is driven and whatever the
guest's kernel can; hundreds of connections side by side, thousands one after the other."""

import os
import random
import resource
import select
import socket
import threading
import time
import zlib

from lab import (DEADLINE, GATEWAY4, INTERNET4, INTERNET6, LOOPBACK, SANITIZED, Pair, check, equal,
                 for_each, in_thread, main, receive_exactly, test, wait_until)

MIB = 1 << 20
TOTAL = (64 if SANITIZED else 1024) * MIB
PATTERN = random.Random(2).randbytes(8 * MIB + 4099)  # no piece of a power of two comes again


def sums_of(totals):
    """CRC of the first bytes of the endless pattern, for each total."""
    crc, done, sums = 0, 0, {}
    view = memoryview(PATTERN)
    for total in sorted(totals):
        while done < total:
            at = done % len(PATTERN)
            piece = view[at:at + min(total - done, MIB)]
            crc = zlib.crc32(piece, crc)
            done += len(piece)
        sums[total] = crc
    return sums


SUMS = sums_of([TOTAL, TOTAL // 8, TOTAL // 16])


def send_pattern(connection, total):
    view = memoryview(PATTERN)
    done = 0
    while done < total:
        at = done % len(PATTERN)
        piece = view[at:at + min(total - done, MIB)]
        connection.sendall(piece)
        done += len(piece)
    connection.shutdown(socket.SHUT_WR)


def receive_pattern(connection, total):
    buffer = memoryview(bytearray(MIB))
    crc = done = 0
    while n := connection.recv_into(buffer):
        crc = zlib.crc32(buffer[:n], crc)
        done += n
    equal(done, total, "bytes until FIN")
    equal(crc, SUMS[total], "CRC")


def transfer(sender, receiver, total):
    sending = in_thread(send_pattern, sender, total)
    receive_pattern(receiver, total)
    sending()


def both_ways(pair, total):
    receiving = in_thread(receive_pattern, pair.guest, total)
    sending = in_thread(send_pattern, pair.peer, total)
    transfer(pair.guest, pair.peer, total)
    sending()
    receiving()


def pair_at_host(lab, guest):
    with lab.host.listen(LOOPBACK[GATEWAY4]) as listener:
        return Pair(listener, guest.connect, GATEWAY4, listener.getsockname()[1])


def pair_at(lab, guest, address):
    with lab.internet.listen(address) as listener:
        return Pair(listener, guest.connect, address, listener.getsockname()[1])


# ---- volume ----


@for_each(how=["direct_at_mtu_1500", "direct_at_mtu_65520", "thread_at_mtu_1500",
               "thread_at_mtu_65520"])
def a_gib_up_and_a_gib_down_arrive_whole(lab, how):
    worker, _, _, mtu = how.split("_")
    with lab.guest("--net-worker", worker, "--mtu", mtu) as guest:
        with pair_at_host(lab, guest) as pair:
            transfer(pair.guest, pair.peer, TOTAL)
            transfer(pair.peer, pair.guest, TOTAL)
        if worker == "direct":
            check(guest.counters().get("tcp_retransmits", 0) == 0, "nothing is lost on a TAP")


@for_each(mtu=["576", "1280", "9000"])
def both_families_carry_at_mtu(lab, mtu):
    with lab.guest("--mtu", mtu, ipv6=mtu != "576") as guest:
        for address in [INTERNET4] + [INTERNET6] * (mtu != "576"):
            with pair_at(lab, guest, address) as pair:
                both_ways(pair, TOTAL // 16)


@for_each(worker=["direct", "thread"])
def ipv6_carries_both_ways_at_once(lab, worker):
    with lab.guest("--net-worker", worker) as guest, pair_at(lab, guest, INTERNET6) as pair:
        both_ways(pair, TOTAL // 8)


@for_each(worker=["direct", "thread"])
def a_guest_without_offloads_is_served_correctly(lab, worker):
    """Its kernel then computes checksums and cuts segments itself."""
    with lab.guest("--net-worker", worker) as guest:
        guest.net.call("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off",
                       "gro", "off")
        for address in INTERNET4, INTERNET6:
            with pair_at(lab, guest, address) as pair:
                both_ways(pair, TOTAL // 16)
        seen = guest.counters()
        check(not any("bad_checksum" in name or "bad_offload" in name for name in seen), seen)


@for_each(option=["tcp_timestamps", "tcp_sack", "tcp_window_scaling"])
def a_guest_is_served_correctly_without(lab, option):
    with lab.guest() as guest:
        guest.net.sysctl("net.ipv4." + option, 0)
        for address in INTERNET4, INTERNET6:
            with pair_at(lab, guest, address) as pair:
                both_ways(pair, TOTAL // 16)


@for_each(how=["input_with_sack", "input_without_sack", "output_with_sack",
               "output_without_sack"])
def losses_are_made_good_at_the_guests(lab, how):
    """One frame of twenty; most are super-segments."""
    hook, with_, _ = how.split("_")
    with lab.guest() as guest:
        guest.net.sysctl("net.ipv4.tcp_sack", int(with_ == "with"))
        guest.net.filter("meta length > 100 numgen inc mod 20 == 10 counter drop", hook=hook)
        with pair_at(lab, guest, INTERNET4) as pair:
            both_ways(pair, TOTAL // 16)
        check(guest.net.filtered() > 0, "nothing was lost")


@test
def offloads_that_come_and_go_disturb_no_transfer(lab):
    features = ["tso", "gso", "gro", "sg", "tx"]
    enough = threading.Event()

    def transfers(guest):
        while not enough.is_set():
            with pair_at(lab, guest, INTERNET4) as pair:
                both_ways(pair, TOTAL // 16)

    with lab.guest() as guest:
        transferring = in_thread(transfers, guest)
        for _ in range(3):
            for feature in features:
                guest.net.call("ethtool", "-K", "eth0", feature, "off")
            for feature in reversed(features):
                guest.net.call("ethtool", "-K", "eth0", feature, "on")
        enough.set()
        transferring()


# ---- numbers ----


def echo_server(listener, stop):
    """Echoes every connection until its FIN, by epoll in one thread."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections = {}
    while not stop.is_set():
        for fd, _ in poll.poll(0.1):
            if fd == listener.fileno():
                connection = listener.accept()[0]
                connection.settimeout(DEADLINE)
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            connection = connections[fd]
            data = connection.recv(MIB)
            if data:
                connection.sendall(data)
            else:
                poll.unregister(fd)
                connections.pop(fd).close()


class EchoServer:
    def __init__(self, network, address):
        self.listener = network.listen(address, backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.stop = threading.Event()
        self.join = in_thread(echo_server, self.listener, self.stop)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join()
        self.listener.close()


@for_each(address=[INTERNET4, INTERNET6])
def five_hundred_connections_work_side_by_side(lab, address):
    with lab.guest() as guest, EchoServer(lab.internet, address) as server:
        before = guest.descriptors()
        connections = [guest.connect(address, server.port) for _ in range(500)]
        for round_ in range(3):
            for i, connection in enumerate(connections):
                connection.sendall(b"%d.%d" % (round_, i) + PATTERN[i:i + 2000])
            for i, connection in enumerate(connections):
                message = b"%d.%d" % (round_, i) + PATTERN[i:i + 2000]
                equal(receive_exactly(connection, len(message)) == message, True)
        equal(guest.descriptors(), before + 500)
        for connection in connections:
            connection.close()
        wait_until(lambda: guest.descriptors() == before, "the ends of all flows")


@test
def five_hundred_connections_opened_at_once_all_succeed(lab):
    with lab.guest() as guest, EchoServer(lab.internet, INTERNET4) as server:
        connections = []
        for _ in range(500):
            connection = guest.socket()
            connection.setblocking(False)
            connection.connect_ex((INTERNET4, server.port))
            connections.append(connection)
        for connection in connections:
            connection.settimeout(DEADLINE)
            connection.sendall(b"hello")
        for connection in connections:
            equal(receive_exactly(connection, 5), b"hello")
        for connection in connections:
            connection.close()


def short_connection(guest, port):
    with guest.net.connect(GATEWAY4, port) as connection:
        connection.sendall(b"ping")
        equal(receive_exactly(connection, 4), b"ping")
        connection.shutdown(socket.SHUT_WR)
        equal(connection.recv(1), b"")


@test
def ten_thousand_short_connections_leak_nothing(lab):
    count = 1000 if SANITIZED else 10000
    with lab.guest() as guest, EchoServer(lab.host, LOOPBACK[GATEWAY4]) as server:
        def some(number):
            with guest.net:
                for _ in range(number):
                    short_connection(guest, server.port)
        before = guest.descriptors()
        some(200)
        memory = guest.resident()
        joins = [in_thread(some, count // 4) for _ in range(4)]
        for join in joins:
            join()
        wait_until(lambda: guest.descriptors() == before, "the ends of all flows")
        grown = guest.resident() - memory
        # TIME-WAITs of ours (none here: the guest closes first), heap and pools at their height.
        check(SANITIZED or grown < MIB, f"{grown} bytes more are resident")
        equal(guest.counters()["tcp_flows_established"], count + 200)


@test
def connections_closed_by_the_server_first_leak_nothing(lab):
    """These leave TIME-WAITs in the engine, which yield to new connections."""
    count = 500 if SANITIZED else 3000
    with lab.guest("--max-flows", "100") as guest, \
            lab.host.listen(LOOPBACK[GATEWAY4]) as listener:
        def serve():
            for _ in range(count):
                listener.accept()[0].close()
        serving = in_thread(serve)
        before = guest.descriptors()
        for _ in range(count):
            with guest.net.connect(GATEWAY4, listener.getsockname()[1]) as connection:
                equal(connection.recv(1), b"")
        serving()
        wait_until(lambda: guest.descriptors() == before, "the ends of all flows")
        equal(guest.counters().get("tcp_flow_limit", 0), 0)


def turns_on_a_cpu(guest):
    place = f"/proc/{guest.pid}/task"
    return [open(f"{place}/{task}/schedstat").read().split()[2] for task in os.listdir(place)]


def sleeps_for(guest, seconds):
    before = turns_on_a_cpu(guest)
    time.sleep(seconds)
    return turns_on_a_cpu(guest) == before


@test
def idle_connections_cost_little_and_stay(lab):
    count = 200 if SANITIZED else 2000
    resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
    with lab.guest() as guest, EchoServer(lab.host, LOOPBACK[GATEWAY4]) as server:
        memory = guest.resident()
        connections = [guest.connect(GATEWAY4, server.port) for _ in range(count)]
        for connection in connections:
            connection.sendall(b"x")
        for connection in connections:
            equal(connection.recv(1), b"x")
        grown = (guest.resident() - memory) / count
        check(SANITIZED or grown < 2048, f"{grown} bytes a flow are resident")
        wait_until(lambda: sleeps_for(guest, 0.5), "the last timers")
        check(sleeps_for(guest, 1), "culvert woke up while all was idle")
        for connection in connections[::50]:
            connection.sendall(b"y")
            equal(connection.recv(1), b"y")


main()
