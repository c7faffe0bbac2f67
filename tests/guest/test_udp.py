#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""UDP as a guest's programs see it: every size, many peers behind one port, strangers kept out,
errors that reach the socket they belong to, and segmentation offload that nobody notices."""

import errno
import hashlib
import random
import socket
import struct

from lab import (DEADLINE, GATEWAY4, GATEWAY6, GUEST4, HOST4, HOST6, INTERNET4, INTERNET6, LOOPBACK,
                 check, counters_in, equal, fails_with, family_of, for_each, main, test, wait_until)

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
IP_RECVERR, IPV6_RECVERR = 11, 25
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_DONT = 10, 2, 0
SO_RCVBUFFORCE = 33
EVERYWHERE = [INTERNET4, INTERNET6, GATEWAY4, GATEWAY6]
DGRAM = socket.SOCK_DGRAM


def pattern(count, seed=0):
    return random.Random(seed * 100000 + count).randbytes(count)


def peer_at(lab, address, port=0):
    """A socket whom the guest reaches as `address`. Errors about it are sent without limit."""
    network = lab.host if address in LOOPBACK else lab.internet
    network.sysctl("net.ipv4.icmp_ratemask", 0)
    network.sysctl("net.ipv6.icmp.ratelimit", 0)
    made = network.socket(family_of(address), DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    made.bind((LOOPBACK.get(address, address), port))
    return made


def guest_socket(guest, address):
    made = guest.socket(family_of(address), DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    return made


def connected(guest, address, port):
    made = guest_socket(guest, address)
    made.connect((address, port))
    return made


def recverr(connection):
    if connection.family == socket.AF_INET6:
        connection.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        connection.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def reported(connection):
    """(type, code, offender, payload) of the ICMP error that waits at the socket."""
    def take():
        try:
            return connection.recvmsg(65536, 512, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            return None
    connection.settimeout(0)
    payload, control, _, _ = wait_until(take, "an ICMP error")
    data = control[0][2]
    kind, code = data[5], data[6]
    if connection.family == socket.AF_INET6:
        offender = socket.inet_ntop(socket.AF_INET6, data[16 + 8:16 + 24])
    else:
        offender = socket.inet_ntop(socket.AF_INET, data[16 + 4:16 + 8])
    return kind, code, offender, payload


# ---- sizes ----


def sizes():
    yield from (0, 1, 2, 7, 8, 9, 511, 512)
    for fragments in (1, 2, 3, 7):
        for around in (1452, 1472):  # what an IPv6 and an IPv4 packet hold at MTU 1500
            yield from (around * fragments + i for i in (-9, -8, -7, -1, 0, 1, 7, 8, 9))
    chosen = random.Random(7)
    yield from (chosen.randrange(1, 65507) for _ in range(40))
    yield from (32767, 32768, 65000, 65506, 65507)


@for_each(address=EVERYWHERE)
def a_datagram_of_any_size_is_echoed_whole(lab, address):
    with lab.guest() as guest, peer_at(lab, address) as peer:
        client = connected(guest, address, peer.getsockname()[1])
        for size in sizes():
            sent, answer = pattern(size), pattern(size, 1)
            client.send(sent)
            seen, back = peer.recvfrom(65536)
            check(seen == sent, f"{size} bytes went up changed: {len(seen)} bytes")
            peer.sendto(answer, back)
            check(client.recv(65536) == answer, f"{size} bytes came down changed")


@test
def the_largest_ipv6_datagram_passes(lab):
    with lab.guest() as guest, peer_at(lab, INTERNET6) as peer:
        client = connected(guest, INTERNET6, peer.getsockname()[1])
        client.send(pattern(65527))
        seen, back = peer.recvfrom(65536)
        check(seen == pattern(65527), f"{len(seen)} bytes arrived")
        peer.sendto(seen, back)
        check(client.recv(65536) == seen, "changed on its way back")


@for_each(address=[INTERNET4, GATEWAY4])
def a_datagram_that_may_be_fragmented_is_though_the_guest_sends_it_in_one(lab, address):
    """The guest's MTU is the larger one here, the host's network has to cut."""
    with lab.guest("--mtu", "9000") as guest, peer_at(lab, address) as peer:
        client = connected(guest, address, peer.getsockname()[1])
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        for size in (1472, 1473, 8000, 30000):
            client.send(pattern(size))
            check(peer.recv(65536) == pattern(size), f"{size} bytes")


# ---- peers ----


@for_each(address=[INTERNET4, INTERNET6])
def many_peers_see_one_guest_port_as_one_port(lab, address):
    with lab.guest() as guest:
        peers = [peer_at(lab, address) for _ in range(200)]
        client = guest_socket(guest, address)
        sources = set()
        for i, peer in enumerate(peers):
            client.sendto(b"%d" % i, (address, peer.getsockname()[1]))
            data, source = peer.recvfrom(100)
            equal(data, b"%d" % i)
            sources.add(source[:2])
            peer.sendto(b"to you %d" % i, source)
        equal(len(sources), 1, "sources")
        equal(sources.pop()[0], HOST6 if ":" in address else HOST4)
        for i, peer in enumerate(peers):
            data, source = client.recvfrom(100)
            equal((data, source[:2]), (b"to you %d" % i, (address, peer.getsockname()[1])))
            peer.close()


@for_each(address=[INTERNET4, INTERNET6])
def guest_ports_do_not_share_an_outer_port(lab, address):
    with lab.guest() as guest, peer_at(lab, address) as peer:
        clients = [guest_socket(guest, address) for _ in range(300)]
        seen = {}
        for i, client in enumerate(clients):
            client.sendto(b"%d" % i, (address, peer.getsockname()[1]))
            data, source = peer.recvfrom(100)
            seen[source] = int(data)
        equal(len(seen), len(clients), "outer ports")
        for source, i in seen.items():
            peer.sendto(b"you are %d" % i, source)
        for i, client in enumerate(clients):
            equal(client.recv(100), b"you are %d" % i)


@for_each(worker=["direct", "thread"])
def a_burst_for_many_guest_ports_is_complete(lab, worker):
    """One small datagram for each: what waits for the guest costs little enough."""
    with lab.guest(f"--net-worker={worker}") as guest, peer_at(lab, INTERNET4) as peer:
        clients, sources = [guest_socket(guest, INTERNET4) for _ in range(300)], []
        for client in clients:
            client.sendto(b"?", (INTERNET4, peer.getsockname()[1]))
            sources.append(peer.recvfrom(10)[1])
        for i, source in enumerate(sources):
            peer.sendto(b"%d" % i, source)
        for i, client in enumerate(clients):
            equal(client.recv(10), b"%d" % i)


@for_each(address=[INTERNET4, INTERNET6])
def datagrams_from_strangers_are_not_let_in(lab, address):
    with lab.guest() as guest, peer_at(lab, address) as peer, peer_at(lab, address) as stranger:
        client = guest_socket(guest, address)
        client.sendto(b"hello", (address, peer.getsockname()[1]))
        _, source = peer.recvfrom(100)
        stranger.sendto(b"me too", source)
        peer.sendto(b"welcome", source)
        equal(client.recv(100), b"welcome")
        equal(guest.counters()["relay_udp_unknown_peer"], 1)

        client.sendto(b"hello", (address, stranger.getsockname()[1]))
        stranger.recv(100)
        stranger.sendto(b"now", source)
        equal(client.recv(100), b"now")


@test
def a_guest_socket_hears_only_the_peers_of_its_own_port(lab):
    with lab.guest() as guest, peer_at(lab, INTERNET4) as peer, peer_at(lab, INTERNET4) as other:
        first, second = guest_socket(guest, INTERNET4), guest_socket(guest, INTERNET4)
        first.sendto(b"1", (INTERNET4, peer.getsockname()[1]))
        second.sendto(b"2", (INTERNET4, other.getsockname()[1]))
        _, outer = peer.recvfrom(10)
        other.recv(10)
        other.sendto(b"not asked by this port", outer)
        peer.sendto(b"asked", outer)
        equal(first.recv(100), b"asked")


# ---- errors ----


@for_each(address=EVERYWHERE)
def a_closed_port_refuses_a_connected_socket(lab, address):
    with lab.guest() as guest:
        with peer_at(lab, address) as peer:
            port = peer.getsockname()[1]
        client = connected(guest, address, port)
        client.send(b"anyone?")
        check(fails_with(errno.ECONNREFUSED, client.recv, 10) < DEADLINE / 2, "in time")
        with peer_at(lab, address, port) as peer:  # and then somebody listens
            client.send(b"and now?")
            equal(peer.recvfrom(100)[0], b"and now?")


@for_each(address=[INTERNET4, INTERNET6])
def an_error_of_one_peer_costs_another_nothing(lab, address):
    with lab.guest() as guest, peer_at(lab, address) as peer:
        with peer_at(lab, address) as gone:
            closed = gone.getsockname()[1]
        client = guest_socket(guest, address)
        for i in range(50):
            client.sendto(b"nobody", (address, closed))
            client.sendto(b"%d" % i, (address, peer.getsockname()[1]))
            data, back = peer.recvfrom(100)
            equal(data, b"%d" % i)
            peer.sendto(data, back)
            equal(client.recv(100), b"%d" % i)


@for_each(address=EVERYWHERE)
def a_port_unreachable_names_its_sender_and_the_datagram(lab, address):
    with lab.guest() as guest:
        with peer_at(lab, address) as peer:
            port = peer.getsockname()[1]
        client = connected(guest, address, port)
        recverr(client)
        client.send(b"who is there")
        kind, code, offender, payload = reported(client)
        equal((kind, code), (1, 4) if ":" in address else (3, 3))
        equal(offender, address)
        equal(payload, b"who is there")


REJECTS4 = {"net-unreachable": 0, "host-unreachable": 1, "admin-prohibited": 13}
REJECTS6 = {"no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3}


@for_each(reject=list(REJECTS4))
def what_a_router_says_reaches_the_guest(lab, reject):
    lab.internet.filter(f"meta nfproto ipv4 udp dport 7777 reject with icmp {reject}")
    with lab.guest() as guest:
        client = connected(guest, INTERNET4, 7777)
        recverr(client)
        client.send(b"hello")
        equal(reported(client), (3, REJECTS4[reject], INTERNET4, b"hello"))


@for_each(reject=list(REJECTS6))
def what_a_router_says_reaches_the_guest_over_ipv6(lab, reject):
    lab.internet.filter(f"meta nfproto ipv6 udp dport 7777 reject with icmpv6 {reject}")
    with lab.guest() as guest:
        client = connected(guest, INTERNET6, 7777)
        recverr(client)
        client.send(b"hello")
        equal(reported(client), (1, REJECTS6[reject], INTERNET6, b"hello"))


# What the host's route gives the guest: the ICMP code, and what connect() fails with.
ROUTES4 = {"throw": (0, errno.ENETUNREACH), "unreachable": (1, errno.EHOSTUNREACH),
           "prohibit": (13, errno.EHOSTUNREACH)}
ROUTES6 = {"throw": (0, errno.ENETUNREACH), "unreachable": (3, errno.EHOSTUNREACH),
           "prohibit": (1, errno.EACCES)}


@for_each(route=list(ROUTES4))
def what_the_hosts_routes_say_reaches_the_guest(lab, route):
    code, number = ROUTES4[route]
    lab.host.ip(f"route replace {route} 45.33.7.7")
    with lab.guest() as guest:
        client = connected(guest, "45.33.7.7", 9)
        recverr(client)
        client.send(b"hello")
        equal(reported(client), (3, code, GATEWAY4, b"hello"))
        fails_with(number, guest.connect, "45.33.7.7", 9)
    lab.host.ip(f"route del {route} 45.33.7.7")


@for_each(route=list(ROUTES6))
def what_the_hosts_ipv6_routes_say_reaches_the_guest(lab, route):
    code, number = ROUTES6[route]
    lab.host.ip(f"-6 route replace {route} 2600:3c00::7")
    with lab.guest() as guest:
        client = connected(guest, "2600:3c00::7", 9)
        recverr(client)
        client.send(b"hello")
        equal(reported(client), (1, code, GATEWAY6, b"hello"))
        fails_with(number, guest.connect, "2600:3c00::7", 9)
    lab.host.ip(f"-6 route del {route} 2600:3c00::7")


# ---- policy ----


@for_each(address=[INTERNET4, INTERNET6])
def a_denied_datagram_is_refused_at_once_and_a_dropped_one_in_silence(lab, address):
    rules = [f"deny udp to {address} port 1000", f"drop udp to {address} port 1001"]
    with lab.guest(rules=rules) as guest, peer_at(lab, address) as peer:
        denied = connected(guest, address, 1000)
        recverr(denied)
        denied.send(b"x")
        kind, code, _, _ = reported(denied)
        equal((kind, code), (1, 1) if ":" in address else (3, 13))

        dropped = connected(guest, address, 1001)
        recverr(dropped)
        dropped.send(b"x")
        allowed = connected(guest, address, peer.getsockname()[1])  # behind it, so it was seen
        allowed.send(b"x")
        peer.recv(10)
        seen = guest.counters()
        equal((seen["policy_denied_rule"], seen["policy_dropped_rule"]), (1, 1))
        dropped.settimeout(0)
        fails_with(errno.EAGAIN, dropped.recv, 10)


@for_each(address=[GATEWAY4, GATEWAY6, "169.254.169.254", "10.1.2.3", "fd00:ec2::254"])
def the_default_policy_denies(lab, address):
    with lab.guest(rules=()) as guest:
        client = connected(guest, address, 9)
        recverr(client)
        client.send(b"x")
        kind, code, _, _ = reported(client)
        equal((kind, code), (1, 1) if ":" in address else (3, 13))


# ---- offloads ----


def cut(data, size):
    return [data[i:i + size] for i in range(0, len(data), size)]


@for_each(address=EVERYWHERE)
def a_super_datagram_of_the_guest_arrives_as_its_datagrams(lab, address):
    with lab.guest() as guest, peer_at(lab, address) as peer:
        client = connected(guest, address, peer.getsockname()[1])
        for size, total in ((1452, 60000), (1200, 1200), (1200, 1201), (1000, 64000), (500, 32000),
                            (100, 6350), (1, 40)):
            client.setsockopt(SOL_UDP, UDP_SEGMENT, size)
            data = pattern(total)
            client.send(data)
            for i, expected in enumerate(cut(data, size)):
                seen = peer.recv(65536)
                check(seen == expected, f"datagram {i} of {total} bytes by {size}: {len(seen)}")


@for_each(address=EVERYWHERE)
def a_super_datagram_of_the_peer_arrives_as_its_datagrams(lab, address):
    with lab.guest() as guest, peer_at(lab, address) as peer:
        client = connected(guest, address, peer.getsockname()[1])
        client.send(b"start")
        _, back = peer.recvfrom(10)
        for size, total in ((1452, 60000), (1000, 63500), (1200, 1201), (100, 6350), (1, 40)):
            peer.setsockopt(SOL_UDP, UDP_SEGMENT, size)
            data = pattern(total)
            peer.sendto(data, back)
            for i, expected in enumerate(cut(data, size)):
                seen = client.recv(65536)
                check(seen == expected, f"datagram {i} of {total} bytes by {size}: {len(seen)}")


def receive_gro(connection):
    """(data, segment size) of what the kernel kept together."""
    data, control, _, _ = connection.recvmsg(65536, 64)
    size = len(data)
    for level, kind, value in control:
        if (level, kind) == (SOL_UDP, UDP_GRO):
            size = struct.unpack("=i", value[:4])[0]
    return data, size


@for_each(address=[INTERNET4, INTERNET6])
def a_guest_that_asks_for_it_receives_super_datagrams(lab, address):
    with lab.guest() as guest, peer_at(lab, address) as peer:
        client = connected(guest, address, peer.getsockname()[1])
        client.setsockopt(SOL_UDP, UDP_GRO, 1)
        client.send(b"start")
        _, back = peer.recvfrom(10)
        peer.setsockopt(SOL_UDP, UDP_SEGMENT, 1200)
        data = pattern(48000)
        peer.sendto(data, back)
        received, calls = b"", 0
        while len(received) < len(data):
            piece, size = receive_gro(client)
            check(size == 1200 or len(piece) == size, f"cut at {size}")
            received += piece
            calls += 1
        check(received == data, "in order and unchanged")
        check(calls < 40, f"{calls} calls for 40 datagrams")


@test
def bursts_are_complete_and_in_order_both_ways(lab):
    count, size = 2000, 1400
    with lab.guest() as guest, peer_at(lab, INTERNET4) as peer:
        client = connected(guest, INTERNET4, peer.getsockname()[1])
        client.send(b"a first one alone: Linux reorders what waits for ARP")
        peer.recv(100)
        sums = [hashlib.sha256(), hashlib.sha256()]
        for i in range(count):
            data = struct.pack("!I", i) + pattern(size - 4, i)
            client.send(data)
            sums[0].update(data)
            if i % 50 == 49:
                for _ in range(50):
                    seen, back = peer.recvfrom(2000)
                    sums[1].update(seen)
                    peer.sendto(seen, back)
                for j in range(50):
                    equal(struct.unpack("!I", client.recv(2000)[:4])[0], i - 49 + j, "order")
        equal(sums[1].digest(), sums[0].digest())


# ---- headers ----


@for_each(address=[INTERNET4, INTERNET6])
def the_hop_limit_is_the_guests_less_one(lab, address):
    v6 = ":" in address
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    receive, send = (51, 16) if v6 else (12, 2)  # IPV6_RECVHOPLIMIT, IPV6_UNICAST_HOPS; IP_…TTL
    with lab.guest() as guest, peer_at(lab, address) as peer:
        peer.setsockopt(level, receive, 1)
        client = connected(guest, address, peer.getsockname()[1])
        for hops in (64, 9, 200, 2):
            client.setsockopt(level, send, hops)
            client.send(b"x")
            _, control, _, _ = peer.recvmsg(10, 64)
            equal(struct.unpack("=i", control[0][2])[0], hops - 1)


@test
def traffic_class_passes_in_both_families(lab):
    for address, level, receive, send in ((INTERNET4, socket.IPPROTO_IP, 13, 1),
                                          (INTERNET6, socket.IPPROTO_IPV6, 66, 67)):
        with lab.guest() as guest, peer_at(lab, address) as peer:
            peer.setsockopt(level, receive, 1)
            client = connected(guest, address, peer.getsockname()[1])
            client.setsockopt(level, send, 0xb8)
            client.send(b"x")
            _, control, _, _ = peer.recvmsg(10, 64)
            equal(control[0][2][0], 0xb8)


# ---- hostile guests ----


def ipv4_udp(source, destination, checksum=None, length=None, fragment=0):
    """An Ethernet frame to the gateway."""
    payload = b"hello"
    udp = struct.pack("!HHHH", 4000, 9, length or 8 + len(payload), 0) + payload
    if checksum is not None:
        udp = udp[:6] + struct.pack("!H", checksum) + udp[8:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, fragment, 64, 17, 0,
                         socket.inet_aton(source), socket.inet_aton(destination))
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xffff) + (total >> 16)
    total = (total & 0xffff) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~total & 0xffff) + header[12:]
    return header + udp


@test
def the_counters_of_verbose_name_the_reasons_of_drops(lab):
    guest = lab.guest("-v", rules=("deny udp to 8.8.8.8", "drop udp to 8.8.4.4"))
    wire, ethernet = guest.wire(), bytes.fromhex("0263756c7602") + guest.mac() + b"\x08\x00"
    for packet in (ipv4_udp("10.0.2.7", INTERNET4), ipv4_udp("127.0.0.1", INTERNET4),
                   ipv4_udp(GUEST4, INTERNET4, checksum=0x1234),
                   ipv4_udp(GUEST4, INTERNET4, length=4), ipv4_udp(GUEST4, INTERNET4, length=99),
                   ipv4_udp(GUEST4, "8.8.8.8"), ipv4_udp(GUEST4, "8.8.4.4"),
                   ipv4_udp(GUEST4, "10.9.9.9"), ipv4_udp(GUEST4, GATEWAY4),
                   ipv4_udp(GUEST4, "224.0.0.251"), ipv4_udp(GUEST4, "10.0.2.255"),
                   ipv4_udp(GUEST4, "127.0.0.1"), ipv4_udp(GUEST4, INTERNET4, fragment=0x3fff)):
        wire.send(ethernet + packet)
    wire.send(ethernet + b"\x45")
    wire.send(ethernet[:12] + b"\x88\xcc" + bytes(50))
    wire.send(ethernet[:12] + b"\x81\x00" + bytes(50))
    wire.send(bytes.fromhex("020000000099") + ethernet[6:] + ipv4_udp(GUEST4, INTERNET4))
    wait_until(lambda: guest.counters().get("link_not_for_us", 0) >= 1, "the last frame is counted")
    text = guest.close()
    for reason, least in {"ip_spoofed_source": 2, "udp_bad_checksum": 1, "udp_malformed": 2,
                          "policy_denied_rule": 1, "policy_dropped_rule": 1,
                          "policy_denied_default": 2, "ip_multicast": 1, "ip_broadcast": 1,
                          "ip_bad_destination": 1, "reassembly_bad_fragment": 1, "ip_malformed": 1,
                          "link_unknown_protocol": 1, "link_vlan": 1, "link_not_for_us": 1}.items():
        seen = counters_in(text).get(reason, 0)
        check(seen >= least, f"{reason} is {seen}, not {least}")


main()
