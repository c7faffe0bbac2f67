#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""Published ports: clients on the host and outside, servers in the guest, both in this program
(lab.py)."""

import errno
import os
import random
import select
import socket
import time

from lab import (CULVERT, DEADLINE, GATEWAY4, GATEWAY6, GUEST4, GUEST6, HOST4, HOST6, INTERNET4,
                 INTERNET6, SLOWNESS, check, equal, fails_with, for_each, in_thread, main,
                 receive_all, receive_exactly, reset, test, wait_until)

RANDOM = random.Random(2).randbytes(1 << 20)
PORT = 8080  # of the host
A_ROUND_TRIP = 0.2 * SLOWNESS
FAMILIES = ["ipv4", "ipv6"]
LOOPBACKS = {"ipv4": "127.0.0.1", "ipv6": "::1"}
ANYWHERE = {"ipv4": "0.0.0.0", "ipv6": "[::]"}
HOSTS = {"ipv4": HOST4, "ipv6": HOST6}
INTERNETS = {"ipv4": INTERNET4, "ipv6": INTERNET6}
GATEWAYS = {"ipv4": GATEWAY4, "ipv6": GATEWAY6}
GUESTS = {"ipv4": GUEST4, "ipv6": GUEST6}


def bracketed(address):
    return f"[{address}]" if ":" in address else address


class Served:
    """A client's connection and the guest's, through a published port."""

    def __init__(self, network, address, listener, port=PORT):
        self.client = network.connect(address, port)
        listener.settimeout(DEADLINE)
        self.guest, self.seen = listener.accept()
        self.guest.settimeout(DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.guest.close()


def is_reset(network, address, port=PORT, say=b""):
    """The host's kernel accepts, then comes a RST and nothing before it; how long that took."""
    begun = time.monotonic()

    def attempt():  # the RST may be quicker than any of these calls
        with network.connect(address, port) as client:
            client.sendall(say)
            client.recv(1)

    fails_with((errno.ECONNRESET, errno.EPIPE), attempt)
    return time.monotonic() - begun


# ---- who the guest sees ----


@test
def a_client_after_a_long_silence_is_offered_to_the_guest_once(lab):
    """The time is what it is when the client comes, not when the engine went to sleep."""
    with lab.guest("-p", f"{PORT}:80") as guest, guest.net.listen(GUEST4, 80) as listener:
        for _ in range(2):
            time.sleep(1.5)
            with Served(lab.host, "127.0.0.1", listener) as served:
                served.guest.sendall(b"x")
                equal(receive_exactly(served.client, 1), b"x")
        equal(guest.counters().get("tcp_timeouts", 0), 0)


@for_each(family=FAMILIES)
def a_client_on_the_host_appears_as_the_gateway(lab, family):
    loopback = LOOPBACKS[family]
    with lab.guest("-p", f"{bracketed(loopback)}:{PORT}:80") as guest, \
            guest.net.listen(GUESTS[family], 80) as listener, \
            Served(lab.host, loopback, listener) as served:
        equal(served.seen[:2], (GATEWAYS[family], served.client.getsockname()[1]))
        served.client.sendall(b"hello")
        equal(receive_exactly(served.guest, 5), b"hello")
        served.guest.sendall(b"and hello")
        equal(receive_exactly(served.client, 9), b"and hello")


@for_each(family=FAMILIES)
def a_client_outside_appears_with_its_own_address_and_port(lab, family):
    with lab.guest("-p", f"{ANYWHERE[family]}:{PORT}:80") as guest, \
            guest.net.listen(GUESTS[family], 80) as listener, \
            Served(lab.internet, HOSTS[family], listener) as served:
        equal(served.seen[:2], (INTERNETS[family], served.client.getsockname()[1]))
        served.guest.sendall(b"hello")
        equal(receive_exactly(served.client, 5), b"hello")


@test
def an_address_of_the_hosts_own_appears_as_the_gateway(lab):
    with lab.guest("-p", f"0.0.0.0:{PORT}:80") as guest, \
            guest.net.listen(GUEST4, 80) as listener, \
            Served(lab.host, HOST4, listener) as served:
        equal(served.seen[0], GATEWAY4)


@test
def a_client_that_bears_an_address_of_the_guests_network_appears_as_the_gateway(lab):
    lab.has("10.0.2.50/32")
    lab.host.ip(f"route replace 10.0.2.50 via {INTERNET4}")
    try:
        with lab.guest("-p", f"0.0.0.0:{PORT}:80") as guest, \
                guest.net.listen(GUEST4, 80) as listener:
            client = lab.internet.socket()
            client.bind(("10.0.2.50", 0))
            client.connect((HOST4, PORT))
            listener.settimeout(DEADLINE)
            served, seen = listener.accept()
            equal(seen, (GATEWAY4, client.getsockname()[1]))
            client.close()
            served.close()
    finally:
        lab.host.ip("route del 10.0.2.50")


@test
def a_guest_that_has_said_nothing_yet_is_found_at_once(lab):
    with lab.guest("-p", f"{PORT}:80", ipv6=False) as guest, guest.net.listen("", 80) as listener:
        begun = time.monotonic()
        with Served(lab.host, "127.0.0.1", listener):
            seconds = time.monotonic() - begun
            check(seconds < A_ROUND_TRIP, f"it took {seconds} s")


@test
def a_family_that_the_guest_lacks_is_bridged(lab):
    with lab.guest("-p", f"[::]:{PORT}:80", "-p", f"[::]:{PORT}:80/udp", ipv6=False) as guest, \
            guest.net.listen("", 80) as listener:
        for network, address in (lab.host, "::1"), (lab.internet, HOST6):
            with Served(network, address, listener) as served:
                equal(served.seen[0], GATEWAY4)
                sending = in_thread(served.client.sendall, RANDOM)
                equal(receive_exactly(served.guest, len(RANDOM)) == RANDOM, True)
                sending()
        with guest.net.socket(kind=socket.SOCK_DGRAM) as server, \
                lab.internet.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            server.bind(("", 80))
            client.sendto(b"question", (HOST6, PORT))
            question, seen = server.recvfrom(100)
            equal((question, seen[0]), (b"question", GATEWAY4))
            server.sendto(b"answer", seen)
            equal(client.recvfrom(100)[0], b"answer")


@test
def clients_that_would_share_a_name_are_told_apart(lab):
    """One port of a client's, two published ports, one port of the guest's."""
    with lab.guest("-p", f"{PORT}:80", "-p", f"{PORT + 1}:80") as guest, \
            guest.net.listen("", 80) as listener:
        listener.settimeout(DEADLINE)
        clients, seen = [], set()
        for port in PORT, PORT + 1:
            client = lab.host.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("127.0.0.1", 40001))
            client.connect(("127.0.0.1", port))
            clients.append(client)
            served, name = listener.accept()
            seen.add(name)
            served.sendall(str(port).encode())
            equal(receive_exactly(client, 4), str(port).encode())
            served.close()
        equal(len(seen), 2)
        for client in clients:
            client.close()


# ---- a guest that does not answer ----


def reached(network, address, listener):
    """The guest's address at which a client arrived; None: it did not."""
    try:
        with network.connect(address, PORT):
            if not select.select([listener], [], [], 0.2)[0]:
                return None
            with listener.accept()[0] as served:
                return served.getsockname()[0]
    except ConnectionResetError:  # quicker than connect()
        return None


@for_each(family=FAMILIES)
def a_refused_port_is_a_reset_at_once_and_no_clean_close(lab, family):
    loopback = LOOPBACKS[family]
    with lab.guest("-p", f"{bracketed(loopback)}:{PORT}:80") as guest:
        seconds = is_reset(lab.host, loopback)
        check(seconds < A_ROUND_TRIP, f"it took {seconds} s")
        equal(guest.counters()["publish_refused_by_guest"], 1)


@test
def a_client_that_wrote_to_a_refused_port_is_reset_too(lab):
    with lab.guest("-p", f"{PORT}:80"):
        is_reset(lab.host, "127.0.0.1", say=b"x" * 1000)


@test
def a_guest_that_is_silent_is_a_reset_within_seconds(lab):
    with lab.guest("-p", f"{PORT}:80") as guest:
        guest.net.filter("tcp dport 80 counter drop")
        seconds = is_reset(lab.host, "127.0.0.1", say=b"anybody?")
        check(3 < seconds < 7, f"it took {seconds} s")
        check(guest.net.filtered() > 1, "the SYN was not repeated")
        equal(guest.counters()["publish_unanswered"], 1)
        guest.net.filter()


@for_each(family=FAMILIES)
def a_guest_that_is_away_is_a_reset_within_a_second_then_at_once_and_found_again(lab, family):
    loopback = LOOPBACKS[family]
    with lab.guest("-p", f"{bracketed(loopback)}:{PORT}:80") as guest, \
            guest.net.listen("" if family == "ipv4" else "::", 80) as listener:
        Served(lab.host, loopback, listener).__exit__()
        guest.net.ip("link set eth0 down")  # no frame passes; culvert's end stays as it was
        seconds = is_reset(lab.host, loopback, say=b"anybody?")
        check(seconds < 2 * SLOWNESS, f"it took {seconds} s")
        seconds = is_reset(lab.host, loopback)
        check(seconds < A_ROUND_TRIP, f"now that it is known, it took {seconds} s")
        equal(guest.counters()["publish_guest_away"], 2)
        guest.net.ip("link set eth0 up")
        if family == "ipv6":  # an interface that goes down loses these
            guest.net.ip(f"addr replace {GUEST6}/64 dev eth0 nodad")
        wait_until(lambda: reached(lab.host, loopback, listener), "the guest to be found again")


@test
def a_guest_that_has_made_up_its_own_address_is_found_there(lab):
    own = GUEST6.rsplit(":", 1)[0] + ":1234"
    with lab.guest("-p", f"[::1]:{PORT}:80", "-p", f"[::1]:{PORT}:80/udp") as guest:
        guest.net.ip(f"addr del {GUEST6}/64 dev eth0")
        guest.net.ip(f"addr add {own}/64 dev eth0")  # it makes sure that nobody has it
        with guest.net.listen("::", 80) as listener, lab.host.socket(
                socket.AF_INET6, socket.SOCK_DGRAM) as client, guest.net.socket(
                socket.AF_INET6, socket.SOCK_DGRAM) as server:
            server.bind(("::", 80))
            wait_until(lambda: "tentative" not in guest.net.call("ip", "addr"), "the address")
            wait_until(lambda: reached(lab.host, "::1", listener) == own, "the guest to be found")
            client.sendto(b"question", ("::1", PORT))
            question, peer = server.recvfrom(100)
            server.sendto(question[::-1], peer)
            equal(client.recvfrom(100)[0], b"noitseuq")


@test
def what_was_sent_before_the_guest_answered_waits_for_it(lab):
    with lab.guest("-p", f"{PORT}:80") as guest:
        guest.net.filter("tcp dport 80 counter drop")
        with guest.net.listen("", 80) as listener:
            client = lab.host.connect("127.0.0.1", PORT)
            client.sendall(b"early")
            client.shutdown(socket.SHUT_WR)
            wait_until(guest.net.filtered, "the SYN")
            guest.net.filter()
            listener.settimeout(DEADLINE)
            served, _ = listener.accept()
            equal(receive_all(served), b"early")
            served.sendall(b"late")
            served.close()
            equal(receive_all(client), b"late")
            client.close()


# ---- as on any connection ----


@test
def a_server_may_speak_first(lab):
    with lab.guest("-p", f"{PORT}:80") as guest, guest.net.listen("", 80) as listener, \
            Served(lab.host, "127.0.0.1", listener) as served:
        served.guest.sendall(b"220 ready\r\n")
        equal(receive_exactly(served.client, 11), b"220 ready\r\n")


@for_each(family=FAMILIES)
def each_direction_ends_by_itself(lab, family):
    with lab.guest("-p", f"{ANYWHERE[family]}:{PORT}:80") as guest, \
            guest.net.listen(GUESTS[family], 80) as listener:
        with Served(lab.internet, HOSTS[family], listener) as served:
            served.client.sendall(b"request")
            served.client.shutdown(socket.SHUT_WR)
            equal(receive_all(served.guest), b"request")
            sending = in_thread(lambda: (served.guest.sendall(RANDOM * 8), served.guest.close()))
            equal(receive_all(served.client) == RANDOM * 8, True)
            sending()
        with Served(lab.internet, HOSTS[family], listener) as served:
            served.guest.sendall(b"banner")
            served.guest.shutdown(socket.SHUT_WR)
            equal(receive_all(served.client), b"banner")
            sending = in_thread(lambda: (served.client.sendall(RANDOM * 8), served.client.close()))
            equal(receive_all(served.guest) == RANDOM * 8, True)
            sending()


@test
def resets_go_both_ways_behind_the_bytes(lab):
    with lab.guest("-p", f"{PORT}:80") as guest, guest.net.listen("", 80) as listener:
        with Served(lab.host, "127.0.0.1", listener) as served:
            served.client.sendall(b"last words")
            equal(receive_exactly(served.guest, 10), b"last words")
            reset(served.client)
            fails_with(errno.ECONNRESET, served.guest.recv, 1)
        with Served(lab.host, "127.0.0.1", listener) as served:
            served.guest.sendall(b"last words")
            equal(receive_exactly(served.client, 10), b"last words")
            reset(served.guest)
            fails_with(errno.ECONNRESET, served.client.recv, 1)


@test
def two_hundred_connections_at_once(lab):
    with lab.guest("-p", f"0.0.0.0:{PORT}:80") as guest, \
            guest.net.listen("", 80, backlog=512) as listener:
        before = guest.descriptors()
        clients = []
        for i in range(200):
            clients.append(lab.host.connect("127.0.0.1", PORT) if i % 2 else
                           lab.internet.connect(HOST4, PORT))
        listener.settimeout(DEADLINE)
        served = dict(reversed(listener.accept()) for _ in clients)
        equal(len(served), 200)
        for i, client in enumerate(clients):
            name = GATEWAY4 if i % 2 else INTERNET4
            peer = served[name, client.getsockname()[1]]
            client.sendall(RANDOM[i:i + 5000])
            equal(receive_exactly(peer, 5000), RANDOM[i:i + 5000])
            peer.sendall(b"%d" % i)
            peer.close()
            equal(receive_all(client), b"%d" % i)
            client.close()
        wait_until(lambda: guest.descriptors() == before, "the end of all flows")


@test
def without_descriptors_clients_wait_and_culvert_does_not_spin(lab):
    with lab.guest("-p", f"{PORT}:80", "--max-flows", "1000", nofile=40) as guest, \
            guest.net.listen("", 80, backlog=512) as listener:
        clients = [lab.host.connect("127.0.0.1", PORT) for _ in range(60)]
        wait_until(lambda: guest.counters().get("publish_no_descriptor"), "descriptors to run out")
        cpu = cpu_seconds(guest)
        time.sleep(0.5)
        check(cpu_seconds(guest) - cpu < 0.1, "it spins")
        listener.settimeout(DEADLINE)
        for i, client in enumerate(clients):
            served, _ = listener.accept()
            served.sendall(b"next")
            served.close()
            equal(receive_all(client), b"next", f"client {i}")
            client.close()


def cpu_seconds(guest):
    with open(f"/proc/{guest.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- rules ----


@test
def rules_say_who_may_come_and_judge_the_real_client(lab):
    rules = [f"allow tcp from {INTERNET4} port 80", "allow udp from host"]
    with lab.guest("-p", f"0.0.0.0:{PORT}:80", "-p", f"0.0.0.0:{PORT + 1}:81",
                   "-p", f"0.0.0.0:{PORT}:80/udp", rules=rules) as guest, \
            guest.net.listen("", 80) as listener, guest.net.listen("", 81):
        Served(lab.internet, HOST4, listener).__exit__()
        is_reset(lab.host, "127.0.0.1")
        is_reset(lab.internet, HOST4, PORT + 1)
        equal(guest.counters()["policy_denied_default"], 2)
        with guest.net.socket(kind=socket.SOCK_DGRAM) as server, \
                lab.internet.socket(kind=socket.SOCK_DGRAM) as stranger, \
                lab.host.socket(kind=socket.SOCK_DGRAM) as friend:
            server.bind(("", 80))
            stranger.sendto(b"no", (HOST4, PORT))
            friend.sendto(b"yes", ("127.0.0.1", PORT))
            equal(server.recvfrom(10)[0], b"yes")


@test
def a_rule_may_deny_one_client(lab):
    with lab.guest("-p", f"0.0.0.0:{PORT}:80",
                   rules=[f"deny from {INTERNET4}", "allow from any"]) as guest, \
            guest.net.listen("", 80) as listener:
        is_reset(lab.internet, HOST4)
        Served(lab.host, "127.0.0.1", listener).__exit__()
        equal(guest.counters()["policy_denied_rule"], 1)


# ---- ranges, and ports that cannot be had ----


@test
def ranges_lead_to_ranges(lab):
    with lab.guest("-p", "9000-9009:7000-7009", "-p", "9000-9001:7000-7001/udp") as guest:
        for port in 7000, 7004, 7009:
            with guest.net.listen("", port) as listener, \
                    Served(lab.host, "127.0.0.1", listener, port + 2000):
                pass
        is_reset(lab.host, "127.0.0.1", 9005)
        fails_with(errno.ECONNREFUSED, lab.host.connect, "127.0.0.1", 9010)


def fails_to_start(lab, *options):
    status, _, err = lab.host.run(CULVERT, "run", *options, "--", "true")
    equal(status, 125)
    equal(err.count("\n"), 1, err)
    return err


@test
def a_port_that_cannot_be_had_fails_the_start_with_the_mend(lab):
    with lab.host.listen("127.0.0.1", PORT):
        err = fails_to_start(lab, "-p", f"{PORT}:80")
        check(f"publish 127.0.0.1:{PORT}/tcp" in err and "choose another port" in err, err)
        err = fails_to_start(lab, "-p", f"{PORT - 3}-{PORT + 3}:80-86")
        check(f"publish 127.0.0.1:{PORT}/tcp" in err, err)
    err = fails_to_start(lab, "-p", f"203.0.113.1:{PORT}:80/udp")
    check(f"publish 203.0.113.1:{PORT}/udp" in err and "not an address of this host" in err, err)
    err = fails_to_start(lab, "-p", "80")
    check("--publish 80: the guest's port is missing; write it as in" in err, err)


# ---- UDP ----


def ask(client, address, port, question):
    client.sendto(question, (address, port))
    return client.recvfrom(65536)[0]


@for_each(family=FAMILIES)
def datagrams_are_answered_from_the_published_port(lab, family):
    kind = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    places = [(lab.host, LOOPBACKS[family], GATEWAYS[family]),
              (lab.internet, HOSTS[family], INTERNETS[family])]
    with lab.guest("-p", f"{ANYWHERE[family]}:5353:53/udp") as guest, \
            guest.net.socket(kind, socket.SOCK_DGRAM) as server:
        server.bind((GUESTS[family], 53))
        for network, address, name in places:
            with network.socket(kind, socket.SOCK_DGRAM) as client:
                client.connect((address, 5353))  # so that another source is not heard
                for question in b"", b"question", RANDOM[:1472], RANDOM[:9000], RANDOM[:60000]:
                    client.send(question)
                    seen, peer = server.recvfrom(65536)
                    equal(seen == question, True)
                    equal(peer[:2], (name, client.getsockname()[1]))
                    server.sendto(question[::-1], peer)
                    equal(client.recv(65536) == question[::-1], True)


@for_each(family=FAMILIES)
def answers_leave_from_the_address_that_the_client_sent_to(lab, family):
    kind = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    second = {"ipv4": HOST4.rsplit(".", 1)[0] + ".77", "ipv6": HOST6.rsplit(":", 1)[0] + ":77"}[family]
    second += "/64" if family == "ipv6" else "/24"
    lab.host.ip(f"addr add {second} dev h0" + (" nodad" if family == "ipv6" else ""))
    try:
        with lab.guest("-p", f"{ANYWHERE[family]}:5353:53/udp") as guest, \
                guest.net.socket(kind, socket.SOCK_DGRAM) as server:
            server.bind((GUESTS[family], 53))
            for address in HOSTS[family], second.split("/")[0], HOSTS[family]:
                with lab.internet.socket(kind, socket.SOCK_DGRAM) as client:
                    client.connect((address, 5353))  # so that another source is not heard
                    for question in b"question", RANDOM[:9000]:
                        client.send(question)
                        seen, peer = server.recvfrom(65536)
                        for _ in range(3):
                            server.sendto(seen, peer)
                        for _ in range(3):
                            equal(client.recv(65536) == question, True)
    finally:
        lab.host.ip(f"addr del {second} dev h0")


@test
def each_client_of_many_gets_its_own_answers(lab):
    with lab.guest("-p", "0.0.0.0:5353:53/udp") as guest, \
            guest.net.socket(kind=socket.SOCK_DGRAM) as server:
        server.bind(("", 53))
        clients = [(lab.host if i % 2 else lab.internet).socket(kind=socket.SOCK_DGRAM)
                   for i in range(300)]
        for i, client in enumerate(clients):
            client.sendto(b"%d" % i, ("127.0.0.1" if i % 2 else HOST4, 5353))
        peers = [server.recvfrom(10) for _ in clients]
        equal(len(set(peer for _, peer in peers)), 300)
        for number, peer in peers:
            server.sendto(b"re " + number, peer)
        for i, client in enumerate(clients):
            equal(client.recvfrom(10)[0], b"re %d" % i)
            client.close()
        equal(guest.counters()["publish_udp_clients"], 300)


@test
def what_the_guest_says_to_others_does_not_leave_from_the_published_port(lab):
    with lab.guest("-p", f"0.0.0.0:5353:53/udp", rules=["allow any to any"]) as guest, \
            guest.net.socket(kind=socket.SOCK_DGRAM) as server, \
            lab.internet.socket(kind=socket.SOCK_DGRAM) as client, \
            lab.internet.socket(kind=socket.SOCK_DGRAM) as other:
        server.bind(("", 53))
        other.bind((INTERNET4, 0))
        client.sendto(b"x", (HOST4, 5353))
        peer = server.recvfrom(10)[1]
        server.sendto(b"to another", other.getsockname())
        check(other.recvfrom(20)[1] != (HOST4, 5353), "it left from the published port")
        server.sendto(b"answer", peer)
        equal(client.recvfrom(20), (b"answer", (HOST4, 5353)))


# ---- following the guest ----


def is_open(lab, port):
    try:
        lab.host.connect("127.0.0.1", port).close()
        return True
    except ConnectionResetError:  # it was closed with this connection in its queue
        return False
    except ConnectionRefusedError:
        return False


@test
def auto_publishes_what_the_command_listens_on_while_it_does(lab):
    with lab.guest("-p", "auto", "-p", "9999:9997") as guest:
        with guest.net.listen("", 9998) as listener, guest.net.listen("127.0.0.1", 9996), \
                guest.net.listen("", 9997), guest.net.socket(kind=socket.SOCK_DGRAM) as server:
            server.bind(("", 5354))
            wait_until(lambda: is_open(lab, 9998), "the port")
            while select.select([listener], [], [], 0.1)[0]:
                listener.accept()[0].close()
            with Served(lab.host, "127.0.0.1", listener, 9998) as served:
                equal(served.seen[0], GATEWAY4)
            check(not is_open(lab, 9996), "loopback inside is not to be reached")
            check(not is_open(lab, 9997), "what is published already was published again")
            with lab.host.socket(kind=socket.SOCK_DGRAM) as client:
                client.sendto(b"x", ("127.0.0.1", 5354))
                equal(server.recvfrom(10)[0], b"x")
        wait_until(lambda: not is_open(lab, 9998), "the port's end")


@test
def auto_says_once_which_port_it_could_not_publish(lab):
    with lab.host.listen("127.0.0.1", 9998), lab.guest("-p", "auto") as guest, \
            guest.net.listen("", 9998), guest.net.listen("", 9995):
        wait_until(lambda: is_open(lab, 9995), "the other port")
        wait_until(lambda: "note:" in guest.stderr(), "a note")
        time.sleep(1.2)
        equal(guest.stderr().count("note: publish 127.0.0.1:9998/tcp"), 1)


if __name__ == "__main__":
    main()
