#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""Every MTU of the guest's link, and links on the way that are narrower than it."""

import errno
import random
import socket

from lab import (CULVERT, DEADLINE, GATEWAY4, GATEWAY6, INTERNET4, INTERNET6, LOOPBACK, check,
                 equal, fails_with, family_of, for_each, in_thread, main, receive_all, test,
                 wait_until)
from routers import FAR4, FAR6, Path

IP_MTU_DISCOVER, IP_MTU, IP_PMTUDISC_DO = 10, 14, 2
IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_DONTFRAG = 23, 24, 62
MTUS = [576, 1280, 1500, 9000, 65520]
BYTES = random.Random(5).randbytes(4 << 20)

_cache = {}


def path_of(lab):
    if "path" not in _cache:
        _cache["path"] = Path(lab)
    return _cache["path"]


def guest_of(lab, mtu):
    return lab.guest("--mtu", str(mtu), ipv6=mtu >= 1280)


def families(mtu, *pairs):
    """The addresses of both families that a guest of this MTU has."""
    return [address for pair in pairs for address in pair if mtu >= 1280 or ":" not in address]


def headers(address):
    return 40 if ":" in address else 20


def exchange(client, peer, size):
    """There and back, whole. The first may be spent on learning a narrow path's MTU: IPv6 packets
    are cut by nobody but their sender."""
    def there_and_back():
        try:
            client.send(BYTES[:size])
            data, back = peer.recvfrom(65536)
            peer.sendto(data, back)
            return client.recv(65536) if len(data) == size else None  # one that came late
        except (TimeoutError, OSError):
            return None

    for end in (client, peer):
        end.settimeout(0.2)
        end.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
    check(wait_until(there_and_back, f"{size} bytes") == BYTES[:size], f"{size} bytes changed")


# ---- the guest's link ----


@for_each(mtu=MTUS)
def the_interface_has_the_mtu(lab, mtu):
    with guest_of(lab, mtu) as guest:
        check(f" mtu {mtu} " in guest.net.call("ip", "link", "show", "eth0"), "eth0's MTU")


@for_each(mtu=MTUS)
def pings_fill_the_link_and_exceed_it(lab, mtu):
    with guest_of(lab, mtu) as guest:
        for address in families(mtu, (GATEWAY4, GATEWAY6)):
            full = mtu - headers(address) - 8
            for size, flags in ((full, ["-M", "do"]), (full + 1, ["-M", "dont"]),
                                (min(3 * mtu, 65507), ["-M", "dont"])):
                if size > 65507:
                    continue
                status, out, err = guest.run("ping", "-n", "-c", "2", "-i", "0.01", "-W", "3",
                                             *flags, "-s", str(size), address)
                check(status == 0 and "2 received" in out, f"{size} bytes: {out} {err}")
            status, out, err = guest.run("ping", "-n", "-c", "1", "-W", "0.1", "-M", "do",
                                         "-s", str(min(full + 1, 65507)), address)
            if full + 1 <= 65507:
                check(status != 0 and "mtu" in out + err, f"above the MTU: {out} {err}")


@for_each(mtu=MTUS)
def udp_fills_the_link_and_exceeds_it(lab, mtu):
    with guest_of(lab, mtu) as guest:
        for address in families(mtu, (GATEWAY4, GATEWAY6), (INTERNET4, INTERNET6)):
            network = lab.host if address in LOOPBACK else lab.internet
            full = mtu - headers(address) - 8
            with network.socket(family_of(address), socket.SOCK_DGRAM) as peer:
                peer.bind((LOOPBACK.get(address, address), 0))
                client = guest.socket(family_of(address), socket.SOCK_DGRAM)
                client.connect((address, peer.getsockname()[1]))
                for size in (full - 1, full, full + 1, 2 * full, 65507):
                    exchange(client, peer, min(size, 65507))


def transfer(lab, guest, address):
    """All of BYTES each way, one after the other."""
    network = lab.host if address in LOOPBACK else lab.internet
    check_transfer(guest, network, address, LOOPBACK.get(address, address))


def check_transfer(guest, network, address, bound):
    with network.listen(bound) as listener:
        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(DEADLINE)
                received = receive_all(connection)
                connection.sendall(received)
                return received
        served = in_thread(serve)
        with guest.connect(address, listener.getsockname()[1]) as client:
            client.sendall(BYTES)
            client.shutdown(socket.SHUT_WR)
            check(receive_all(client) == BYTES, f"down from {address}")
        check(served() == BYTES, f"up to {address}")


@for_each(mtu=MTUS)
def tcp_passes_both_ways(lab, mtu):
    with guest_of(lab, mtu) as guest:
        for address in families(mtu, (GATEWAY4, GATEWAY6), (INTERNET4, INTERNET6)):
            transfer(lab, guest, address)


@for_each(worker=["direct", "thread"])
def tcp_passes_at_all_mtus_whoever_drives_the_device(lab, worker):
    for mtu in (576, 65520):
        with lab.guest("--mtu", str(mtu), f"--net-worker={worker}", ipv6=mtu >= 1280) as guest:
            transfer(lab, guest, GATEWAY4)


@for_each(mtu=["575", "1279-with-ipv6", "65521"])
def an_mtu_that_cannot_be_is_refused(lab, mtu):
    number, *ipv6 = mtu.split("-")
    status, out, err = lab.host.run(CULVERT, "run", "--mtu", number,
                                    "--ipv6=on" if ipv6 else "--ipv6=off", "--", "true")
    equal(status, 125)
    check("mtu" in err and err.count("\n") == 1, err)


# ---- narrower links on the way ----


def mtu_of(connection):
    if connection.family == socket.AF_INET6:
        return connection.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
    return connection.getsockopt(socket.IPPROTO_IP, IP_MTU)


def unfragmented(guest, address, port):
    """A connected datagram socket that never lets its datagrams be fragmented."""
    made = guest.socket(family_of(address), socket.SOCK_DGRAM)
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    made.connect((address, port))
    return made


@for_each(far=[FAR4, FAR6])
def the_guest_learns_the_mtu_of_a_narrow_link(lab, far):
    path = path_of(lab)
    path.narrow(1340)
    try:
        with lab.guest() as guest, path.far.socket(family_of(far), socket.SOCK_DGRAM) as peer:
            peer.bind((far, 0))
            client = unfragmented(guest, far, peer.getsockname()[1])
            equal(mtu_of(client), 1500, "before")
            client.send(bytes(1500 - headers(far) - 8))  # the last that the guest's link takes
            wait_until(lambda: mtu_of(client) == 1340, "the guest knows")
            equal(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.EMSGSIZE)
            fits = 1340 - headers(far) - 8
            fails_with(errno.EMSGSIZE, client.send, bytes(fits + 1))
            client.send(bytes(fits))
            equal(len(peer.recv(2000)), fits)
    finally:
        path.narrow(1500)


@for_each(address=[INTERNET4, INTERNET6])
def the_guest_learns_the_mtu_of_the_hosts_own_link(lab, address):
    """A guest of a large MTU: the host's kernel itself refuses the datagram."""
    with lab.guest("--mtu", "9000") as guest, \
            lab.internet.socket(family_of(address), socket.SOCK_DGRAM) as peer:
        peer.bind((address, 0))
        client = unfragmented(guest, address, peer.getsockname()[1])
        equal(mtu_of(client), 9000, "before")
        client.send(bytes(8000))
        wait_until(lambda: mtu_of(client) == 1500, "the guest knows")
        equal(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.EMSGSIZE)
        fails_with(errno.EMSGSIZE, client.send, bytes(1500 - headers(address) - 7))
        client.send(bytes(1500 - headers(address) - 8))
        equal(len(peer.recv(2000)), 1500 - headers(address) - 8)


@for_each(far=[FAR4, FAR6])
def datagrams_that_may_be_fragmented_pass_a_narrow_link(lab, far):
    path = path_of(lab)
    path.narrow(1300)
    try:
        with lab.guest() as guest, path.far.socket(family_of(far), socket.SOCK_DGRAM) as peer:
            peer.bind((far, 0))
            client = guest.socket(family_of(far), socket.SOCK_DGRAM)
            client.connect((far, peer.getsockname()[1]))
            for size in (1400, 1472, 3000, 65000):
                exchange(client, peer, size)
    finally:
        path.narrow(1500)


@for_each(far=[FAR4, FAR6])
def tcp_passes_a_narrow_link(lab, far):
    path = path_of(lab)
    path.narrow(1320)
    try:
        for mtu in ("1500", "65520"):
            with lab.guest("--mtu", mtu) as guest:
                check_transfer(guest, path.far, far, far)
    finally:
        path.narrow(1500)


@test
def a_ping_that_must_not_be_fragmented_hears_the_mtu(lab):
    path = path_of(lab)
    path.narrow(1320)
    try:
        with lab.guest() as guest:
            for far in (FAR4, FAR6):
                status, out, _ = guest.run("ping", "-n", "-c", "2", "-i", "0.01", "-W", "3", "-M",
                                           "do", "-s", "1400", far)
                check(status == 1 and "1320" in out, out)
                status, out, _ = guest.run("ping", "-n", "-c", "2", "-i", "0.01", "-W", "3", "-M",
                                           "do", "-s", str(1320 - headers(far) - 8), far)
                check(status == 0 and "2 received" in out, out)
    finally:
        path.narrow(1500)


# ---- without IPv6 ----


@test
def a_guest_without_ipv6_has_none_and_gets_none(lab):
    with lab.guest(ipv6=False) as guest:
        check("inet6" not in guest.net.call("ip", "addr", "show", "eth0"), "an IPv6 address")
        fails_with((errno.ENETUNREACH, errno.EADDRNOTAVAIL), guest.connect, INTERNET6, 80)
        before = guest.counters().get("ip_family_off", 0)
        guest.wire().send(bytes.fromhex("333300000002") + guest.mac() + b"\x86\xdd" +
                          bytes.fromhex("6000000000083aff") +
                          socket.inet_pton(socket.AF_INET6, "fe80::64") +
                          socket.inet_pton(socket.AF_INET6, "ff02::2") +
                          bytes.fromhex("8500000000000000"))
        wait_until(lambda: guest.counters().get("ip_family_off", 0) > before, "it is counted")
        transfer(lab, guest, INTERNET4)


main()
