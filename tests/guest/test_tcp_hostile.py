#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""Guests that mean harm, and resources that run out: everyone else is served on, what is dropped is
counted with its reason, and it passes when the pressure ends."""

import contextlib
import errno
import random
import select
import socket
import struct
import threading
import time

from frames import (ACK, FIN, PSH, RST, SYN, RawTcp, ethernet, internet_checksum, ipv4, ipv6,
                    packed, pseudo, tcp)
from lab import (DEADLINE, GATEWAY4, GATEWAY_MAC, GUEST4, GUEST6, INTERNET4, INTERNET6, LOOPBACK,
                 SANITIZED, Pair, check, equal, fails_with, for_each, in_thread, main,
                 receive_all, receive_exactly, test, wait_until)

RANDOM = random.Random(3).randbytes(1 << 20)
BROADCAST = b"\xff" * 6


def listen_pair(lab, guest, address=INTERNET4):
    with lab.internet.listen(address) as listener:
        return Pair(listener, guest.connect, address, listener.getsockname()[1])


class Transfer:
    """Bytes go both ways over one connection, checked, for as long as the `with` lasts."""

    def __init__(self, lab, guest, address=INTERNET4):
        self.pair = listen_pair(lab, guest, address)
        self.stop = threading.Event()
        self.moved = [0, 0]
        self.joins = [in_thread(self.send, self.pair.guest), in_thread(self.send, self.pair.peer),
                      in_thread(self.receive, self.pair.guest, 0),
                      in_thread(self.receive, self.pair.peer, 1)]

    def send(self, connection):
        while not self.stop.is_set():
            connection.sendall(RANDOM)
        connection.shutdown(socket.SHUT_WR)

    def receive(self, connection, which):
        """Whole copies of RANDOM."""
        reference, at = memoryview(RANDOM), 0
        while chunk := connection.recv(1 << 16):
            n = min(len(chunk), len(RANDOM) - at)
            check(bytearray(chunk[:n]) == reference[at:at + n], "a byte of the transfer is wrong")
            check(bytearray(chunk[n:]) == reference[:len(chunk) - n], "a byte is wrong")
            at = (at + len(chunk)) % len(RANDOM)
            self.moved[which] += len(chunk)
        equal(at, 0, "the transfer is cut off")

    def goes_on(self):
        """Waits until a MiB more has gone each way."""
        goal = [moved + (1 << 20) for moved in self.moved]
        wait_until(lambda: self.moved[0] >= goal[0] and self.moved[1] >= goal[1],
                   "the transfer goes on")

    def __enter__(self):
        self.goes_on()
        return self

    def __exit__(self, kind, *_):
        self.stop.set()
        if kind is None:
            for join in self.joins:
                join()
        self.pair.__exit__()


def works(lab, guest, address=INTERNET4):
    with listen_pair(lab, guest, address) as pair:
        pair.guest.sendall(b"hello")
        equal(receive_exactly(pair.peer, 5), b"hello")


# ---- frames that should not be ----


def bad_frames(mac):
    """(frame, the counter that must name its reason)."""
    syn = tcp(1234, 80)
    syn6 = tcp(1234, 80, source=GUEST6, destination=INTERNET6)

    def syn_with(options):
        return ethernet(ipv4(tcp(1234, 80, options=options)), mac)

    def from4(source, destination=INTERNET4, **fields):
        return ethernet(ipv4(tcp(1234, 80, source=source, destination=destination), source,
                             destination, **fields), mac)

    def from6(source, destination=INTERNET6):
        return ethernet(ipv6(tcp(1234, 80, source=source, destination=destination), source,
                             destination), mac)

    yield ethernet(b"", mac, 0x0800), None
    yield ethernet(b"\x45", mac, 0x0800), "ip_malformed"
    yield ethernet(ipv4(syn), mac, destination=b"\x02\0\0\0\0\x99"), "link_not_for_us"
    yield ethernet(ipv4(syn), GATEWAY_MAC), "link_bad_source"
    yield ethernet(ipv4(syn), BROADCAST), "link_bad_source"
    yield ethernet(ipv4(syn), bytes(6)), "link_bad_source"
    yield ethernet(struct.pack("!HH", 5, 0x0800) + ipv4(syn), mac, 0x8100), "link_vlan"
    yield ethernet(b"x" * 60, mac, 0x88cc), "link_unknown_protocol"
    yield ethernet(b"\0\1\x08\0\6\4\0\1" + b"\0" * 5, mac, 0x0806), "arp_malformed"
    yield ethernet(ipv4(syn, version=5), mac, 0x0800), "ip_malformed"
    yield ethernet(ipv4(syn, words=4), mac), "ip_malformed"
    yield ethernet(ipv4(syn, words=15), mac), "ip_malformed"
    yield ethernet(ipv4(syn, length=19), mac), "ip_malformed"
    yield ethernet(ipv4(syn, length=2000), mac), "ip_malformed"
    yield ethernet(ipv4(syn, checksum=0x1234), mac), "ip_bad_checksum"
    yield ethernet(ipv4(syn, options=b"\x83\x07\x04" + packed(INTERNET4) + b"\0"), mac), \
        "ip_source_route"
    for source in ("8.8.8.8", "10.0.2.101", GATEWAY4, "127.0.0.1", "255.255.255.255", "224.0.0.1"):
        yield from4(source), "ip_spoofed_source"
    for destination in ("127.0.0.1", "0.0.0.0"):
        yield from4(GUEST4, destination), "ip_bad_destination"
    yield from4(GUEST4, "255.255.255.255"), "ip_broadcast"
    yield from4(GUEST4, "224.0.0.251"), "ip_multicast"
    yield ethernet(ipv4(b"x" * 40, protocol=47), mac), "ip_unsupported_protocol"
    yield ethernet(ipv4(b"x" * 40, protocol=132), mac), "ip_unsupported_protocol"
    for source in ("::1", "2001:4860:4860::8888", "::", "ff02::1", "::ffff:10.0.2.100",
                   "fd63:756c:7665::2"):
        yield from6(source), "ip_spoofed_source"
    for destination in ("::1", "::"):
        yield from6(GUEST6, destination), "ip_bad_destination"
    yield ethernet(ipv6(syn6, length=4000), mac), "ip_malformed"
    yield ethernet(ipv6(b"\x06\x09" + b"\0" * 6 + syn6, protocol=0), mac), "ip_malformed"
    chain = b"".join(b"\x3c\0\x01\x04\0\0\0\0" for _ in range(150))
    yield ethernet(ipv6(chain, protocol=0), mac), "ip_too_many_headers"
    yield ethernet(ipv4(b"\0\1", length=22), mac), "tcp_malformed"
    yield ethernet(ipv4(tcp(1234, 80, words=4)), mac), "tcp_malformed"
    yield ethernet(ipv4(tcp(1234, 80, words=15)), mac), "tcp_malformed"
    yield ethernet(ipv4(tcp(1234, 80, checksum=0xbeef)), mac), "tcp_bad_checksum"
    yield ethernet(ipv6(tcp(1234, 80, source=GUEST6, destination=INTERNET6, checksum=1)), mac), \
        "tcp_bad_checksum"
    yield ethernet(ipv4(tcp(0, 80)), mac), None
    yield ethernet(ipv4(tcp(1234, 0)), mac), None
    for flags in (0, SYN | FIN, SYN | RST, 0xff, FIN, FIN | PSH | 32):
        yield ethernet(ipv4(tcp(1234, 80, flags=flags)), mac), None
    yield ethernet(ipv4(tcp(4321, 80, 5, 5, ACK, payload=b"x" * 100)), mac), "tcp_no_flow"
    for options in (b"\2\0\1\1", b"\2\1\1\1", b"\2\xff\0\0", b"\3\3\xff\0", b"\2\4\0\0",
                    b"\5\xff\0\0", b"\xfe\0\0\0", b"\x08\x0a\0\0", b"\2\4\xff\xff" * 10):
        yield syn_with(options), None
    for fragment in (0x2000, 0x1fff, 0x3fff, 0x2001):
        yield ethernet(ipv4(syn * 20, fragment=fragment, ident=fragment), mac), None
    # Neighbour advertisements and redirects from a guest that wants to be the gateway.
    for kind in (134, 136, 137):
        body = struct.pack("!BBHI", kind, 0, 0, 0xe0000000) + packed("fe80::2") + b"\2\1" + mac
        check_sum = internet_checksum(pseudo(GUEST6, "fe80::2", 58, len(body)) + body)
        body = body[:2] + struct.pack("!H", check_sum) + body[4:]
        yield ethernet(ipv6(body, GUEST6, "fe80::2", 58, hops=255), mac), None


@test
def bad_frames_are_counted_and_harm_nobody(lab):
    lab.internet.filter("tcp dport 80 drop")
    with lab.guest() as guest, Transfer(lab, guest) as transfer:
        wire, mac = guest.wire(), guest.mac()
        for frame, reason in bad_frames(mac):
            before = guest.counters()
            wire.send(frame)
            if reason:
                wait_until(lambda: guest.counters().get(reason, 0) > before.get(reason, 0),
                           f"{reason} for {frame.hex()}", 2 + DEADLINE / 10, 0.001)
        transfer.goes_on()


@for_each(address=[INTERNET4, INTERNET6])
def mutated_frames_harm_nobody(lab, address):
    """Seeded changes of the guest's own frames, most of them with checksums that fit."""
    pick = random.Random(4)
    with lab.guest() as guest, Transfer(lab, guest, address) as transfer:
        wire, mac = guest.wire(), guest.mac()
        v6 = ":" in address
        source = GUEST6 if v6 else GUEST4
        lab.internet.filter("tcp dport 1-1000 reject with tcp reset")
        for i in range(3000):
            payload = pick.randbytes(pick.choice([0, 1, 40, 1400]))
            segment = bytearray(tcp(pick.randrange(1, 1024), pick.randrange(1, 1000),
                                    pick.getrandbits(32), pick.getrandbits(32), pick.getrandbits(8),
                                    pick.getrandbits(16), payload, source=source,
                                    destination=address,
                                    options=pick.randbytes(4 * pick.randrange(0, 11))))
            packet = bytearray((ipv6 if v6 else ipv4)(bytes(segment), source, address))
            if i % 3 == 0:
                for _ in range(pick.randrange(1, 4)):
                    at = pick.randrange(min(len(packet), 60))
                    packet[at] ^= 1 << pick.randrange(8)
                if not v6 and i % 2:
                    packet[10:12] = b"\0\0"
                    words = max(5, packet[0] & 15)
                    packet[10:12] = struct.pack("!H", internet_checksum(bytes(packet[:4 * words])))
            if i % 7 == 0:
                del packet[pick.randrange(1, len(packet)):]
            wire.send(ethernet(bytes(packet), mac, 0x86dd if v6 else 0x0800))
        transfer.goes_on()


# ---- attacks on a connection ----


def connection_of(pair):
    return pair.guest.getsockname()[1], pair.guest.getpeername()[1]


@test
def blind_segments_do_not_end_or_pollute_a_connection(lab):
    """RFC 5961: in the window is not enough for RST and SYN; data must be in the window at all."""
    with lab.guest() as guest, listen_pair(lab, guest) as pair:
        pair.guest.sendall(b"before")
        equal(receive_exactly(pair.peer, 6), b"before")
        wire, mac = guest.wire(), guest.mac()
        here, there = connection_of(pair)
        pick = random.Random(5)
        for _ in range(300):
            for flags in (RST, SYN, ACK, RST | ACK, FIN | ACK):
                wire.send(ethernet(ipv4(tcp(here, there, pick.getrandbits(32),
                                            pick.getrandbits(32), flags,
                                            payload=b"evil" if flags == ACK else b"")), mac))
        pair.guest.sendall(b"after")
        equal(receive_exactly(pair.peer, 5), b"after")
        pair.peer.sendall(b"and back")
        equal(receive_exactly(pair.guest, 8), b"and back")


def raw_pair(lab, guest, address=INTERNET4, **options):
    """A connection whose guest's end is ours down to the bits."""
    with lab.internet.listen(address) as listener:
        raw = RawTcp(guest, address, listener.getsockname()[1])
        raw.connect(**options)
        peer = listener.accept()[0]
        peer.settimeout(DEADLINE)
    return raw, peer


@for_each(address=[INTERNET4, INTERNET6])
def a_guest_that_overruns_its_window_corrupts_nothing(lab, address):
    """What was acknowledged, and nothing else, is what the peer reads."""
    with lab.guest() as guest:
        raw, peer = raw_pair(lab, guest, address)
        first, acknowledged = raw.seq, 0
        for at in range(0, 6 << 20, 1400):
            at_random = at % (len(RANDOM) - 1400)
            raw.send(ACK | PSH, RANDOM[at_random:at_random + 1400], seq=first + at)
        while segment := raw.receive(0.3):
            acknowledged = max(acknowledged, (segment[2] - first) & 0xffffffff)
        check(acknowledged >= 65535, f"only {acknowledged} bytes were acknowledged")
        raw.send(RST, seq=first + acknowledged)
        data = bytearray()
        try:
            while chunk := peer.recv(1 << 20):
                data += chunk
        except ConnectionResetError:
            pass
        expected = bytearray()
        for at in range(0, acknowledged, 1400):
            at_random = at % (len(RANDOM) - 1400)
            expected += RANDOM[at_random:at_random + 1400]
        equal(len(data), acknowledged)
        equal(data == expected[:acknowledged], True)


@test
def a_guest_that_never_acknowledges_holds_up_only_itself(lab):
    with lab.guest() as guest, Transfer(lab, guest) as transfer:
        raw, peer = raw_pair(lab, guest)
        peer.setblocking(False)
        while select.select([], [peer], [], 0.2)[1]:
            peer.send(RANDOM)
        sent_first = 0
        while sent_first < 2:  # the bytes that are not acknowledged are sent again
            segment = raw.receive()
            check(segment, "nothing is sent again")
            sent_first += segment[1] == raw.ack & 0xffffffff and len(segment[4]) > 0
        transfer.goes_on()


@for_each(window=["1", "7", "100"])
def a_guest_with_a_tiny_window_of_bytes_gets_all(lab, window):
    total = 40 * int(window)
    with lab.guest() as guest:
        raw, peer = raw_pair(lab, guest, window=int(window))
        peer.sendall(RANDOM[:total])
        peer.shutdown(socket.SHUT_WR)
        data = b""
        while True:
            segment = raw.receive()
            check(segment, f"silence after {len(data)} of {total} bytes")
            flags, seq, _, _, payload = segment
            check(len(payload) <= int(window), "a segment is larger than the window")
            if seq == raw.ack & 0xffffffff:
                data += payload
                raw.ack = seq + len(payload) + bool(flags & FIN)
            raw.send(ACK, window=int(window))
            if flags & FIN and len(data) == total:
                break
        equal(data == RANDOM[:total], True)


@test
def a_window_that_opens_late_is_noticed(lab):
    """Shut at first; the update is lost, so that only a probe can find it open."""
    with lab.guest() as guest:
        raw, peer = raw_pair(lab, guest, window=0)
        peer.sendall(b"hello")
        segment = wait_until(raw.receive, "a probe")
        equal(segment[4] in (b"", b"h"), True)
        data, next_ = segment[4], raw.ack
        deadline = time.monotonic() + DEADLINE
        while len(data) < 5 and time.monotonic() < deadline:
            raw.ack = next_ + len(data)
            raw.send(ACK, window=1000)
            segment = raw.receive()
            if segment and segment[1] == raw.ack & 0xffffffff:
                data += segment[4]
        equal(data, b"hello")


@test
def segments_in_any_order_with_overlaps_make_the_same_stream(lab):
    pick = random.Random(6)
    with lab.guest() as guest:
        raw, peer = raw_pair(lab, guest)
        first, total = raw.seq, 60000
        pieces = [(at, min(at + pick.randrange(1, 1400), total)) for at in range(0, total, 600)]
        pieces += [(at, at + 600) for at in range(0, total, 600)]
        pick.shuffle(pieces)
        acknowledged = 0
        for _ in range(20):  # what is kept out of order is bounded, so some must be sent again
            for start, end in pieces:
                raw.send(ACK, RANDOM[start:end], seq=first + start)
            while acknowledged < total and (segment := raw.receive(0.02)):
                acknowledged = max(acknowledged, (segment[2] - first) & 0xffffffff)
        equal(acknowledged, total)
        equal(receive_exactly(peer, total) == RANDOM[:total], True)
        raw.send(FIN | ACK, seq=first + total)
        equal(peer.recv(1), b"")


@test
def data_on_a_syn_is_neither_accepted_nor_lost(lab):
    with lab.guest() as guest, lab.internet.listen(INTERNET4) as listener:
        raw = RawTcp(guest, INTERNET4, listener.getsockname()[1])
        raw.send(SYN, b"early", ack=0)
        raw.seq += 1
        segment = raw.receive()
        equal((segment[0], segment[2]), (SYN | ACK, raw.seq & 0xffffffff))
        raw.ack = segment[1] + 1
        raw.send(ACK, b"early")
        equal(receive_exactly(listener.accept()[0], 5), b"early")
        equal(guest.counters()["tcp_syn_data"], 1)


# ---- floods ----


@test
def a_flood_of_syns_to_silence_leaves_the_established_alone_and_passes(lab):
    lab.internet.filter("tcp dport 81 drop")
    with lab.guest("--max-flows", "300") as guest, Transfer(lab, guest) as transfer:
        before = guest.descriptors()
        wire, mac = guest.wire(), guest.mac()

        def flood():
            for port in range(1000, 4000):
                wire.send(ethernet(ipv4(tcp(port, 81, seq=port)), mac))
            return guest.counters().get("tcp_flow_limit", 0) >= 2000
        wait_until(flood, "the limit is met")
        check(guest.descriptors() <= before + 300, "more descriptors than flows")
        transfer.goes_on()
        # The hosts' SYNs come again and are refused now: room for others.
        lab.internet.filter("tcp dport 81 reject with tcp reset")
        works(lab, guest)


@test
def a_flood_of_syns_to_an_open_port_harms_nobody(lab):
    """The handshakes are never completed; here the guest's kernel answers with RSTs."""
    with lab.guest() as guest, Transfer(lab, guest) as transfer, \
            lab.host.listen(LOOPBACK[GATEWAY4], backlog=4096) as listener:
        before = guest.descriptors()
        wire, mac = guest.wire(), guest.mac()
        port = listener.getsockname()[1]
        for i in range(3000):
            wire.send(ethernet(ipv4(tcp(1000 + i, port, i, destination=GATEWAY4), GUEST4,
                                    GATEWAY4), mac))
        transfer.goes_on()
        wait_until(lambda: guest.descriptors() <= before + 5, "the ends of the flows")
        works(lab, guest)


@test
def the_same_connection_asked_for_again_and_again_is_one_flow(lab):
    lab.internet.filter("tcp dport 81 drop")
    with lab.guest() as guest:
        before = guest.descriptors()
        wire, mac = guest.wire(), guest.mac()

        def ask():
            for _ in range(100):
                wire.send(ethernet(ipv4(tcp(1000, 81, seq=7)), mac))
            return guest.counters().get("netdev_frames_in", 0) >= 500
        wait_until(ask, "the SYNs")
        equal(guest.descriptors(), before + 1)


# ---- what runs out ----


@test
def descriptors_that_run_out_are_silence_and_come_back(lab):
    with lab.guest("--max-flows", "1000", nofile=100) as guest, \
            lab.host.listen(LOOPBACK[GATEWAY4], backlog=500) as listener:
        port = listener.getsockname()[1]
        connections = []
        for _ in range(150):
            connection = guest.socket()
            connection.setblocking(False)
            connection.connect_ex((GATEWAY4, port))
            connections.append(connection)
        wait_until(lambda: guest.counters().get("relay_tcp_no_descriptor", 0) > 0, "the limit")
        wait_until(lambda: len(select.select([], connections, [], 0)[1]) > 50, "connections")
        open_, waiting = [], []
        for connection in connections:
            writable = select.select([], [connection], [], 0)[1]
            (open_ if writable else waiting).append(connection)
        check(waiting, "all connected in spite of the limit")
        for connection in open_:  # those who are in are served
            equal(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
            connection.sendall(b"x")
        accepted = [listener.accept()[0] for _ in open_]
        for peer in accepted:
            equal(receive_exactly(peer, 1), b"x")
        for connection in open_ + accepted:  # and those who wait, when these have gone
            connection.close()
        late = waiting[:]
        end = time.monotonic() + DEADLINE
        while late and time.monotonic() < end:
            for connection in select.select([], late, [], 0.1)[1]:
                equal(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
                late.remove(connection)
        equal(late, [], "connections that were never made")
        for connection in waiting:
            connection.close()


@test
def a_small_descriptor_limit_alone_is_lived_with(lab):
    """Without --max-flows: some descriptors are left for everything else."""
    with lab.guest(nofile=64) as guest, \
            lab.host.listen(LOOPBACK[GATEWAY4], backlog=500) as listener:
        connections = []
        for _ in range(100):
            connection = guest.socket()
            connection.setblocking(False)
            connection.connect_ex((GATEWAY4, listener.getsockname()[1]))
            connections.append(connection)
        wait_until(lambda: guest.counters().get("tcp_flow_limit", 0) > 0, "the limit")
        check(guest.descriptors() < 64, "every descriptor is in use")
        equal(guest.counters().get("relay_tcp_no_descriptor", 0), 0)
        listener.close()  # which resets those that it has not accepted
        for connection in connections:
            connection.close()
        wait_until(lambda: guest.descriptors() < 30, "the ends of the flows")
        works(lab, guest)


@contextlib.contextmanager
def small_buffers(network):
    with network, open("/proc/sys/net/ipv4/tcp_wmem") as file:
        before = file.read()
    network.sysctl("net.ipv4.tcp_wmem", "4096 65536 131072")
    try:
        yield
    finally:
        network.sysctl("net.ipv4.tcp_wmem", before)


def fill(pairs):
    """Uploads through each as much as is taken while nobody reads; bytes by pair."""
    sent = dict.fromkeys(pairs, 0)
    by_socket = {pair.guest: pair for pair in pairs}
    for pair in pairs:
        pair.guest.setblocking(False)
    while ready := select.select([], by_socket, [], 0.3)[1]:
        for connection in ready:
            at = sent[by_socket[connection]] % len(RANDOM)
            sent[by_socket[connection]] += connection.send(RANDOM[at:at + 65536])
    for pair in pairs:
        pair.guest.settimeout(DEADLINE)
    return sent


@test
def uploads_that_nobody_reads_share_a_bounded_memory(lab):
    """Each has shown that it can use a large window. All together they could then queue 150 MiB, but
    windows promise no more than may be queued: so nothing is dropped, and nothing has to wait for
    the guest's RTO when the peers read again. (The kernels' own buffers are kept small.)"""
    with lab.guest() as guest, lab.internet.listen(INTERNET4, backlog=500) as listener, \
            small_buffers(lab.host), small_buffers(guest.net):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        before = guest.resident()
        port = listener.getsockname()[1]
        pairs = [Pair(listener, guest.connect, INTERNET4, port) for _ in range(150)]
        for pair in pairs:
            sending = in_thread(pair.guest.sendall, RANDOM)
            equal(receive_exactly(pair.peer, len(RANDOM)) == RANDOM, True)
            sending()
        sent = fill(pairs)
        if not SANITIZED:
            grown = guest.resident() - before
            check(10 << 20 < grown < 100 << 20, f"{grown} bytes more are resident")
        works(lab, guest)
        begun = time.monotonic()
        for pair in pairs:
            pair.guest.shutdown(socket.SHUT_WR)
            copies = RANDOM * (sent[pair] // len(RANDOM) + 1)
            equal(receive_all(pair.peer) == copies[:sent[pair]], True)
            pair.__exit__()
        check(time.monotonic() - begun < DEADLINE, "it went on at the pace of RTOs")
        equal(guest.counters().get("tcp_no_memory", 0), 0)


@test
def a_link_that_goes_down_for_a_while_loses_nothing(lab):
    with lab.guest(ipv6=False) as guest, Transfer(lab, guest) as transfer:
        for pause in (0, 0.1, 0.3):
            guest.net.ip("link set eth0 down")
            time.sleep(pause)
            guest.net.ip("link set eth0 up", f"route add default via {GATEWAY4}")
            transfer.goes_on()


@for_each(worker=["direct", "thread"])
def a_guest_killed_in_the_middle_resets_its_peers(lab, worker):
    guest = lab.guest("--net-worker", worker)
    pair = listen_pair(lab, guest)
    sending = in_thread(fails_with, (errno.ECONNRESET, errno.EPIPE),
                        lambda: [pair.peer.sendall(RANDOM) for _ in range(10000)])
    receive_exactly(pair.guest, 1 << 20)
    guest.process.kill()
    sending()
    guest.process.wait()


main()
