#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""TCP as the guest sees it: what the peer did, and nothing else. Both ends of each connection are
in this program (lab.py)."""

import errno
import fcntl
import json
import os
import random
import select
import socket
import struct
import subprocess
import tempfile
import time

from lab import (DEADLINE, GATEWAY4, GATEWAY6, GUEST4, INTERNET4, INTERNET6, LOOPBACK, SANITIZED,
                 SLOWNESS, Pair, Skip, check, equal, fails_with, for_each, in_thread, main,
                 receive_all, receive_exactly, reset, test, unpacked, wait_until)

EVERYWHERE = [INTERNET4, INTERNET6, GATEWAY4, GATEWAY6]
INTERNET = [INTERNET4, INTERNET6]
A_ROUND_TRIP = 0.1 * SLOWNESS
RANDOM = random.Random(1).randbytes(1 << 20)


def listen(lab, address, **options):
    """A listening socket that the guest finds at `address`."""
    if address in LOOPBACK:
        return lab.host.listen(LOOPBACK[address], **options)
    return lab.internet.listen(address, **options)


def port_of(listener):
    return listener.getsockname()[1]


def pair_of(lab, guest, address, **options):
    with listen(lab, address) as listener:
        return Pair(listener, guest.connect, address, port_of(listener), **options)


def free_port(lab, address):
    with listen(lab, address) as listener:
        return port_of(listener)


SYN_SENT = 2


def state_of(connection):
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def begin_connect(guest, address, port):
    connection = guest.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    connection.setblocking(False)
    equal(connection.connect_ex((address, port)), errno.EINPROGRESS)
    return connection


# ---- connecting ----


@for_each(address=EVERYWHERE)
def a_connection_carries_bytes_both_ways(lab, address):
    with lab.guest() as guest, pair_of(lab, guest, address) as pair:
        pair.guest.sendall(b"hello")
        equal(receive_exactly(pair.peer, 5), b"hello")
        pair.peer.sendall(b"and hello")
        equal(receive_exactly(pair.guest, 9), b"and hello")


@for_each(address=EVERYWHERE)
def a_refused_port_is_refused_at_once(lab, address):
    port = free_port(lab, address)
    with lab.guest() as guest:
        seconds = fails_with(errno.ECONNREFUSED, guest.connect, address, port)
        check(seconds < A_ROUND_TRIP, f"it took {seconds} s")
        equal(guest.counters()["tcp_refused"], 1)


def add_route(lab, kind, address):
    lab.host.ip(("-6 " if ":" in address else "") + f"route replace {kind} {address}")


@for_each(destination=["1.1.1.1", "2600::1"])
def destinations_without_a_route_are_unreachable_as_on_the_host(lab, destination):
    """The host's own errno, or the one that ICMP can carry to the guest."""
    v6 = ":" in destination
    add_route(lab, "unreachable", destination)
    with lab.guest() as guest:
        seconds = fails_with(errno.EHOSTUNREACH, guest.connect, destination, 80)
        add_route(lab, "throw", destination)
        lab.host.ip(("-6 " if v6 else "") + "route del default")
        try:
            seconds += fails_with(errno.ENETUNREACH, guest.connect, destination, 80)
        finally:
            lab.host.ip(("-6 " if v6 else "") + "route add default via " +
                        (INTERNET6 if v6 else INTERNET4))
        add_route(lab, "prohibit", destination)
        # Linux makes "administratively prohibited" of ICMP an EHOSTUNREACH, of ICMPv6 an EACCES.
        seconds += fails_with(errno.EACCES if v6 else errno.EHOSTUNREACH, guest.connect,
                              destination, 80)
        check(seconds < 3 * A_ROUND_TRIP, f"it took {seconds} s")
    lab.host.ip(("-6 " if v6 else "") + f"route del prohibit {destination}")


def outcome_of(connect, *arguments):
    """(errno, seconds) of a connect that fails."""
    begun = time.monotonic()
    try:
        connect(*arguments).close()
        number = 0
    except OSError as error:
        number = error.errno
    return number, time.monotonic() - begun


@for_each(address=INTERNET)
def a_rejected_port_fails_as_and_when_it_does_on_the_host(lab, address):
    """(Over a veth a host may overlook the first ICMPv6, which comes from within connect().)"""
    lab.internet.filter("tcp dport 81 reject with icmpx admin-prohibited",
                        "tcp dport 82 reject with icmpx no-route",
                        "tcp dport 83 reject with tcp reset")
    with lab.guest() as guest:
        for port in 81, 82, 83:
            at_host = in_thread(outcome_of, lab.host.connect, address, port)
            number, seconds = outcome_of(guest.connect, address, port)
            equal(errno.errorcode[number], errno.errorcode[at_host()[0]], f"port {port}")
            check(seconds < at_host()[1] + A_ROUND_TRIP, f"port {port}: it took {seconds} s")


@for_each(address=INTERNET)
def a_filtered_port_is_silence_until_the_filter_opens(lab, address):
    """The SYN is answered only when the host has connected."""
    with lab.guest() as guest, listen(lab, address) as listener:
        lab.internet.filter(f"tcp dport {port_of(listener)} counter drop")
        connection = begin_connect(guest, address, port_of(listener))
        wait_until(lab.internet.filtered, "the host's SYN")
        equal(select.select([], [connection], [], 0.3)[1], [])
        equal(state_of(connection), SYN_SENT)
        lab.internet.filter()
        equal(select.select([], [connection], [], DEADLINE)[1], [connection])
        equal(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        listener.accept()[0].close()


@test
def a_guest_that_gives_up_connecting_leaves_nothing_behind(lab):
    """Its kernel says nothing, so the host's attempt goes on until that has its own answer."""
    lab.internet.filter("tcp dport 81 counter drop")
    with lab.guest() as guest:
        before = guest.descriptors()
        connection = begin_connect(guest, INTERNET4, 81)
        wait_until(lab.internet.filtered, "the host's SYN")
        connection.close()
        lab.internet.filter()
        wait_until(lambda: guest.descriptors() == before, "the end of the attempt")


@for_each(address=EVERYWHERE)
def the_peer_sees_no_more_than_the_guest_sent(lab, address):
    """No byte and no FIN of culvert's own making, however long the connection idles."""
    with lab.guest() as guest, pair_of(lab, guest, address) as pair:
        equal(select.select([pair.peer, pair.guest], [], [], 0.2)[0], [])
        pair.guest.close()
        equal(pair.peer.recv(1), b"")


# ---- half-close ----


@for_each(address=EVERYWHERE)
def a_server_may_answer_long_after_the_clients_fin(lab, address):
    with lab.guest() as guest, pair_of(lab, guest, address) as pair:
        pair.guest.sendall(b"request")
        pair.guest.shutdown(socket.SHUT_WR)
        equal(receive_all(pair.peer), b"request")
        equal(select.select([pair.guest], [], [], 0.5)[0], [])
        for part in range(4):
            pair.peer.sendall(RANDOM[part << 18:part + 1 << 18])
        pair.peer.close()
        equal(receive_all(pair.guest) == RANDOM, True)


@for_each(address=EVERYWHERE)
def a_client_may_send_long_after_the_servers_fin(lab, address):
    with lab.guest() as guest, pair_of(lab, guest, address) as pair:
        pair.peer.sendall(b"banner")
        pair.peer.shutdown(socket.SHUT_WR)
        equal(receive_all(pair.guest), b"banner")
        equal(select.select([pair.peer], [], [], 0.5)[0], [])
        sending = in_thread(lambda: (pair.guest.sendall(RANDOM), pair.guest.close()))
        equal(receive_all(pair.peer) == RANDOM, True)
        sending()


@test
def fins_that_cross_end_both_directions(lab):
    with lab.guest() as guest:
        before = guest.descriptors()
        for _ in range(20):
            with pair_of(lab, guest, INTERNET4) as pair:
                pair.guest.sendall(b"a")
                pair.peer.sendall(b"b")
                pair.guest.shutdown(socket.SHUT_WR)
                pair.peer.shutdown(socket.SHUT_WR)
                equal((receive_all(pair.guest), receive_all(pair.peer)), (b"b", b"a"))
        wait_until(lambda: guest.descriptors() == before, "the ends of all flows")


@test
def a_bare_fin_after_the_handshake_arrives_alone(lab):
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        pair.peer.shutdown(socket.SHUT_WR)
        equal(pair.guest.recv(1), b"")
        pair.guest.shutdown(socket.SHUT_WR)
        equal(pair.peer.recv(1), b"")


# ---- resets ----


@for_each(address=EVERYWHERE)
def a_peers_reset_arrives_behind_its_bytes(lab, address):
    with lab.guest() as guest, pair_of(lab, guest, address) as pair:
        pair.peer.sendall(RANDOM[:40000])
        wait_until(lambda: unsent(pair.peer) == 0, "the bytes leave the peer")
        reset(pair.peer)
        equal(receive_exactly(pair.guest, 40000) == RANDOM[:40000], True)
        fails_with(errno.ECONNRESET, pair.guest.recv, 1)


@for_each(address=EVERYWHERE)
def a_guests_reset_arrives_as_a_reset_behind_its_bytes(lab, address):
    with lab.guest() as guest, pair_of(lab, guest, address) as pair:
        pair.guest.sendall(RANDOM[:40000])
        wait_until(lambda: unsent(pair.guest) == 0, "the bytes leave the guest")
        reset(pair.guest)
        equal(receive_exactly(pair.peer, 40000) == RANDOM[:40000], True)
        fails_with(errno.ECONNRESET, pair.peer.recv, 1)
        equal(guest.counters()["tcp_reset_by_guest"], 1)


def unsent(connection):
    """Bytes that the other side has not acknowledged (SIOCOUTQ)."""
    return struct.unpack("i", fcntl.ioctl(connection.fileno(), 0x5411, bytes(4)))[0]


@test
def what_a_resetting_guest_was_acknowledged_reaches_a_peer_that_reads_late(lab):
    """Bytes that the guest's kernel saw acknowledged are culvert's to deliver."""
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        pair.guest.sendall(RANDOM[:300000])
        wait_until(lambda: unsent(pair.guest) == 0, "the bytes leave the guest")
        reset(pair.guest)
        time.sleep(0.1)
        data = bytearray()
        try:
            while chunk := pair.peer.recv(1 << 16):
                data += chunk
            raise AssertionError("FIN for a RST")
        except ConnectionResetError:
            pass
        equal(len(data), 300000)
        equal(bytes(data) == RANDOM[:300000], True)


@test
def closing_with_unread_bytes_resets_the_peer_as_without_culvert(lab):
    """Linux answers so on the guest's side, and on the peer's."""
    with lab.guest() as guest:
        with pair_of(lab, guest, INTERNET4) as pair:
            pair.peer.sendall(b"unread")
            wait_until(lambda: select.select([pair.guest], [], [], 0)[0], "the bytes")
            pair.guest.close()
            fails_with(errno.ECONNRESET, receive_all, pair.peer)
        with pair_of(lab, guest, INTERNET4) as pair:
            pair.guest.sendall(b"unread")
            wait_until(lambda: select.select([pair.peer], [], [], 0)[0], "the bytes")
            pair.peer.close()
            fails_with(errno.ECONNRESET, receive_all, pair.guest)


@test
def a_peer_that_resets_mid_upload_stops_the_guest(lab):
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        def upload():
            while True:
                pair.guest.sendall(RANDOM)
        uploading = in_thread(fails_with, (errno.ECONNRESET, errno.EPIPE), upload)
        receive_exactly(pair.peer, 3 << 20)
        reset(pair.peer)
        uploading()


@test
def a_peer_that_closes_after_the_guests_fin_ends_in_order(lab):
    """The peer resets although the guest has closed: its late bytes meet nobody."""
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        pair.guest.close()
        equal(pair.peer.recv(1), b"")
        fails_with((errno.ECONNRESET, errno.EPIPE), lambda: wait_until(
            lambda: pair.peer.sendall(RANDOM) and False, "a reset"))


@test
def a_connection_whose_peer_reset_at_once_is_not_refused(lab):
    """accept() and RST before the guest has seen the SYN-ACK: it connected, then it was reset."""
    with lab.guest() as guest, listen(lab, INTERNET4) as listener:
        def serve():
            for _ in range(20):
                reset(listener.accept()[0])
        serving = in_thread(serve)
        for _ in range(20):
            try:
                connection = guest.connect(INTERNET4, port_of(listener))
            except ConnectionResetError:
                continue  # the RST came before the program looked
            fails_with(errno.ECONNRESET, receive_all, connection)
        serving()


@test
def a_reset_does_not_wait_for_a_guest_that_does_not_read(lab):
    """Its window is shut: it gets what its kernel holds, in order, and the reset."""
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        sent = send_until_full(pair.peer)
        before = guest.descriptors()
        reset(pair.peer)
        wait_until(lambda: guest.descriptors() == before - 1, "the flow's end")
        data = bytearray()
        fails_with(errno.ECONNRESET, lambda: [data.extend(receive_some(pair.guest))
                                              for _ in range(100000)])
        check(0 < len(data) <= sent, len(data))
        equal(data == (RANDOM * (len(data) // len(RANDOM) + 1))[:len(data)], True)


def receive_some(connection):
    chunk = connection.recv(1 << 16)
    check(chunk, "FIN for a RST")
    return chunk


@test
def a_reset_behind_a_fin_is_passed_on_too(lab):
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        pair.peer.sendall(b"bye")
        pair.peer.shutdown(socket.SHUT_WR)
        equal(receive_all(pair.guest), b"bye")
        reset(pair.peer)
        fails_with((errno.EPIPE, errno.ECONNRESET), lambda: wait_until(
            lambda: pair.guest.send(b"x") and False, "the reset"))


def connects(connection, port):
    """False: the guest's kernel still waits for the last ACK of the same connection."""
    try:
        connection.connect((INTERNET4, port))
        return True
    except OSError as error:
        equal(error.errno, errno.EADDRNOTAVAIL)
        return False


@for_each(ending=["the_servers_fin", "the_guests_fin", "the_guests_reset", "the_servers_reset"])
def a_port_of_the_guests_is_its_own_again_after(lab, ending):
    """The next connection from the same port to the same place is a new one."""
    with lab.guest() as guest, listen(lab, INTERNET4) as listener:
        for i in range(20):
            connection = guest.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind((GUEST4, 5000))
            if ending == "the_guests_fin":  # whose TIME-WAIT is the guest's: it takes another port
                connection.close()
                connection = guest.socket()
            wait_until(lambda: connects(connection, port_of(listener)), "the last one's end")
            peer = listener.accept()[0]
            peer.settimeout(DEADLINE)
            connection.sendall(b"%d" % i)
            equal(receive_exactly(peer, len(str(i))), b"%d" % i)
            first, second = (connection, peer) if "guests" in ending else (peer, connection)
            if "reset" in ending:
                reset(first)
                fails_with(errno.ECONNRESET, second.recv, 1)
            else:
                first.shutdown(socket.SHUT_WR)
                equal(second.recv(1), b"")
            second.close()
            if "fin" in ending:
                equal(first.recv(1), b"")
            first.close()


# ---- pace ----


@for_each(address=EVERYWHERE)
def a_server_may_speak_first(lab, address):
    with lab.guest() as guest, listen(lab, address) as listener:
        def serve():
            connection = listener.accept()[0]
            connection.sendall(b"220 ready\r\n")
            return connection
        serving = in_thread(serve)
        connection = guest.connect(address, port_of(listener))
        equal(connection.recv(100), b"220 ready\r\n")
        serving().close()


@for_each(worker=["direct", "thread"])
def tiny_messages_go_to_and_fro(lab, worker):
    with lab.guest("--net-worker", worker) as guest, pair_of(lab, guest, INTERNET4) as pair:
        def echo():
            while data := pair.peer.recv(100):
                pair.peer.sendall(data)
        echoing = in_thread(echo)
        pair.guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(2000 // SLOWNESS):
            message = b"%d" % i
            pair.guest.sendall(message)
            equal(receive_exactly(pair.guest, len(message)), message)
        pair.guest.close()
        echoing()


@test
def bytes_written_one_by_one_stay_in_order(lab):
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        pair.guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def one_by_one(connection):
            for i in range(5000):
                connection.send(RANDOM[i:i + 1])
            connection.shutdown(socket.SHUT_WR)
        sending = [in_thread(one_by_one, pair.guest), in_thread(one_by_one, pair.peer)]
        equal(receive_all(pair.peer) == RANDOM[:5000], True)
        equal(receive_all(pair.guest) == RANDOM[:5000], True)
        for join in sending:
            join()


def read_slowly(connection, total):
    """In small pieces, with pauses long enough for windows to shut."""
    data = bytearray()
    while len(data) < total:
        chunk = connection.recv(random.Random(len(data)).choice([1, 1000, 5000, 60000, 200000]))
        check(chunk, f"FIN after {len(data)} of {total} bytes")
        data += chunk
        time.sleep(0.001)
    return bytes(data)


@for_each(address=INTERNET)
def a_slow_reader_in_the_guest_misses_nothing(lab, address):
    data = RANDOM * 4
    with lab.guest() as guest, pair_of(lab, guest, address, receive_buffer=8192) as pair:
        sending = in_thread(pair.peer.sendall, data)
        equal(read_slowly(pair.guest, len(data)) == data, True)
        sending()


@for_each(address=INTERNET)
def a_slow_reader_outside_misses_nothing(lab, address):
    data = RANDOM * 4
    with lab.guest() as guest, listen(lab, address) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        with Pair(listener, guest.connect, address, port_of(listener)) as pair:
            sending = in_thread(pair.guest.sendall, data)
            equal(read_slowly(pair.peer, len(data)) == data, True)
            sending()


@test
def slow_writers_on_both_sides_lose_nothing(lab):
    sizes = [1, 3, 1400, 1448, 1449, 5000, 65000, 70000, 2, 1]

    def write(connection):
        at = 0
        for size in sizes * 2:
            connection.sendall(RANDOM[at:at + size])
            at += size
            time.sleep(0.005)
        connection.shutdown(socket.SHUT_WR)
        return at
    with lab.guest() as guest, pair_of(lab, guest, INTERNET6) as pair:
        writing = [in_thread(write, pair.guest), in_thread(write, pair.peer)]
        equal(receive_all(pair.peer) == RANDOM[:2 * sum(sizes)], True)
        equal(receive_all(pair.guest) == RANDOM[:2 * sum(sizes)], True)
        equal([join() for join in writing], [2 * sum(sizes)] * 2)


def send_until_full(connection):
    """What the path takes while nobody reads."""
    sent = 0
    connection.setblocking(False)
    while select.select([], [connection], [], 0.3)[1]:
        try:
            sent += connection.send((RANDOM + RANDOM)[sent % len(RANDOM):][:len(RANDOM)])
        except BlockingIOError:
            pass
    connection.settimeout(DEADLINE)
    return sent


@test
def a_guest_that_does_not_read_holds_up_only_itself(lab):
    """The peer is stopped by the kernel's buffers; culvert keeps about the guest's window."""
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as stuck, \
            pair_of(lab, guest, INTERNET4) as lively:
        before = guest.resident()
        sent = send_until_full(stuck.peer)
        if not SANITIZED:
            check(guest.resident() - before < 4 << 20, "culvert buffers what the guest won't read")
        lively.peer.sendall(b"still here")
        equal(receive_exactly(lively.guest, 10), b"still here")
        stuck.peer.shutdown(socket.SHUT_WR)
        data = receive_all(stuck.guest)
        equal(len(data), sent)
        equal(data == (RANDOM * (sent // len(RANDOM) + 1))[:sent], True)


@test
def a_peer_that_does_not_read_holds_up_only_its_flow(lab):
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as stuck, \
            pair_of(lab, guest, INTERNET4) as lively:
        before = guest.resident()
        sent = send_until_full(stuck.guest)
        if not SANITIZED:
            check(guest.resident() - before < 4 << 20, "a flow's queue for the host is bounded")
        lively.guest.sendall(b"still here")
        equal(receive_exactly(lively.peer, 10), b"still here")
        stuck.guest.shutdown(socket.SHUT_WR)
        data = receive_all(stuck.peer)
        equal(len(data), sent)
        equal(data == (RANDOM * (sent // len(RANDOM) + 1))[:sent], True)


@test
def both_directions_full_at_once_do_not_deadlock(lab):
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        data = RANDOM * 8
        sending = [in_thread(pair.guest.sendall, data), in_thread(pair.peer.sendall, data)]
        time.sleep(0.1)
        reading = in_thread(receive_exactly, pair.guest, len(data))
        equal(receive_exactly(pair.peer, len(data)) == data, True)
        equal(reading() == data, True)
        for join in sending:
            join()


@test
def urgent_bytes_travel_in_band(lab):
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        pair.guest.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        for sender, receiver in ((pair.guest, pair.peer), (pair.peer, pair.guest)):
            sender.sendall(b"abc")
            sender.send(b"!", socket.MSG_OOB)
            sender.sendall(b"def")
            equal(receive_exactly(receiver, 7), b"abc!def")


@test
def a_guests_keepalive_probes_are_answered(lab):
    with lab.guest() as guest, pair_of(lab, guest, INTERNET4) as pair:
        for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1),
                              (socket.TCP_KEEPCNT, 1)):
            pair.guest.setsockopt(socket.IPPROTO_TCP, option, value)
        pair.guest.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        equal(select.select([pair.guest], [], [], 2.5)[0], [])  # a dead peer would show by then
        pair.peer.sendall(b"alive")
        equal(receive_exactly(pair.guest, 5), b"alive")


# ---- real clients ----


@for_each(address=INTERNET)
def curl_fetches_and_uploads_with_nginx(lab, address):
    program = unpacked("nginx", "nginx")
    if not program:
        raise Skip("there is no nginx (packaging/install-deps.sh test)")
    size = 64 << 20 if not SANITIZED else 8 << 20
    with tempfile.TemporaryDirectory(prefix="culvert-nginx-") as place, lab.guest() as guest:
        os.chmod(place, 0o777)
        with open(place + "/file", "wb") as file:
            file.write(RANDOM * (size >> 20))
        host = f"[{address}]" if ":" in address else address
        with open(place + "/conf", "w") as file:
            file.write(f"daemon off; master_process off; pid {place}/pid; error_log {place}/log;"
                       "user root; events {} http { access_log off; client_max_body_size 0;"
                       f"client_body_temp_path {place}/b; proxy_temp_path {place}/p;"
                       f"fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u;"
                       f"scgi_temp_path {place}/s; server {{ listen {host}:80; root {place};"
                       "location /put { dav_methods PUT; } } }")
        with lab.internet:
            nginx = subprocess.Popen([program[0], "-e", place + "/log", "-c", place + "/conf"],
                                     stderr=subprocess.DEVNULL, env={**os.environ, **program[1]})
        try:
            wait_until(lambda: os.path.exists(place + "/pid") and
                       os.path.getsize(place + "/pid"), "nginx")
            for _ in range(2):
                status, _, err = guest.run("curl", "-sSfo", place + "/got",
                                           f"http://{host}/file", timeout=6 * DEADLINE)
                equal((status, err), (0, ""))
                equal(open(place + "/got", "rb").read() == RANDOM * (size >> 20), True)
            status, _, err = guest.run("curl", "-sSfT", place + "/file", f"http://{host}/put",
                                       timeout=6 * DEADLINE)
            equal((status, err), (0, ""))
            equal(open(place + "/put", "rb").read() == RANDOM * (size >> 20), True)
        finally:
            nginx.terminate()
            nginx.wait()


@test
def curl_says_refused_and_returns_at_once(lab):
    port = free_port(lab, INTERNET4)
    with lab.guest() as guest:
        begun = time.monotonic()
        equal(guest.run("curl", "-s", f"http://{INTERNET4}:{port}/")[0], 7)
        check(time.monotonic() - begun < 1, "it took too long")


@test
def nc_pipes_through_and_half_closes(lab):
    with lab.guest() as guest, listen(lab, GATEWAY4) as listener:
        def serve():
            connection = listener.accept()[0]
            connection.settimeout(DEADLINE)
            data = receive_all(connection)
            connection.sendall(data[::-1])
            connection.close()
        serving = in_thread(serve)
        status, out, _ = guest.run("nc", "-N", GATEWAY4, str(port_of(listener)),
                                   input="x" * 100000 + "abc")
        equal((status, out[:3], len(out)), (0, "cba", 100003))
        serving()


@test
def iperf3_streams_share_the_way(lab):
    with lab.guest() as guest:
        with lab.internet:
            server = subprocess.Popen(["iperf3", "-s", "--forceflush"], stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL)
        try:
            while b"listening" not in server.stdout.readline():
                pass
            for way in ([], ["-R"]):
                out = guest.net.call("iperf3", "-J", "-c", INTERNET4, "-P", "8", "-t", "1", *way,
                                     timeout=6 * DEADLINE)
                result = json.loads(out)
                streams = [s["receiver"]["bytes"] for s in result["end"]["streams"]]
                equal(len(streams), 8)
                mean = sum(streams) / 8
                check(min(streams) > mean / 5, f"a stream starves: {streams}")
        finally:
            server.terminate()
            server.wait()


main()
