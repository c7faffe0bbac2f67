#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""`culvert serve --stream`: the wire byte by byte, and QEMU's -netdev stream on it."""

import struct
import tempfile
import threading
import time

from frames import ACK, PSH, SYN
from lab import (DEADLINE, GATEWAY4, GATEWAY6, INTERNET4, SANITIZED, check, equal, main, test,
                 wait_until)
from serving import Serve, Server, download, upload
from vm import VM
from wires import (StreamWire, arp_request, is_arp_reply, is_ping_reply, ping, tcp_parts,
                   undone_tcp)

PLACE = tempfile.mkdtemp(prefix="culvert-stream-")
PATH = PLACE + "/s"
VOLUME = (16 if SANITIZED else 256) << 20


# ---- the wire ----


def prefixed(*frames):
    return b"".join(struct.pack("!I", len(frame)) + frame for frame in frames)


@test
def frames_may_come_byte_by_byte(lab):
    with Serve(lab, "--stream", PATH), StreamWire(PATH) as wire:
        for byte in prefixed(arp_request(), ping(1)):
            wire.socket.send(bytes([byte]))
        check(wire.receive_until(is_arp_reply), "ARP is answered")
        check(wire.receive_until(is_ping_reply), "the ping is answered")


@test
def many_frames_may_come_in_one_write(lab):
    count = 2000
    with Serve(lab, "--stream", PATH), StreamWire(PATH) as wire:
        wire.send(arp_request())
        whole = prefixed(*(ping(i) for i in range(count)))
        sender = threading.Thread(target=wire.socket.sendall, args=(whole,))
        sender.start()
        for _ in range(count):
            check(wire.receive_until(is_ping_reply), "every ping is answered")
        sender.join()


@test
def frames_of_all_sizes_pass_in_any_mixture(lab):
    with Serve(lab, "--stream", PATH, "--mtu", "65520") as serve, StreamWire(PATH) as wire:
        wire.send(arp_request())
        sizes = [size for i in range(120) for size in (1, 1400 + i, 2000 + i, 65000 + i, 30000)]
        window = threading.Semaphore(8)  # a reader far behind would lose answers, as on any link

        def send_all():
            for i, size in enumerate(sizes):
                window.acquire()
                wire.send(ping(i, size))
        sender = threading.Thread(target=send_all, daemon=True)
        sender.start()
        for i, size in enumerate(sizes):
            reply = wire.receive_until(is_ping_reply)
            check(reply is not None, f"ping {i} of {size} bytes is answered")
            window.release()
            equal((reply[40:42], reply[42:]), (struct.pack("!H", i), b"p" * size), "the echo")
        sender.join()
        equal(serve.counters().get("netdev_bad_length"), None)


@test
def an_impossible_length_ends_the_connection_and_not_the_service(lab):
    with Serve(lab, "--stream", PATH) as serve:
        for length in (65594, 1 << 31, 0xffffffff):
            with StreamWire(PATH) as wire:
                check(wire.lives(), "served")
                wire.socket.send(prefixed(arp_request()) + struct.pack("!I", length) + b"rest")
                check(wire.receive_until(is_arp_reply), "what came before is answered")
                check(wire.is_closed(), f"closed for a length of {length}")
        equal(serve.counters()["netdev_bad_length"], 3)
        with StreamWire(PATH) as wire:
            check(wire.lives(), "the next is served")


@test
def frames_shorter_than_a_header_are_passed_over(lab):
    with Serve(lab, "--stream", PATH) as serve, StreamWire(PATH) as wire:
        wire.send(b"", b"x", b"x" * 13)
        check(wire.lives(), "served")
        equal(serve.counters()["netdev_runt"], 3)


@test
def a_peer_that_does_not_read_is_waited_for(lab):
    with Serve(lab, "--stream", PATH) as serve, StreamWire(PATH) as wire:
        check(wire.lives(), "served")
        wire.socket.setblocking(False)
        whole = prefixed(*(ping(i, 1000) for i in range(64)))
        at, end = 0, time.monotonic() + 1
        while time.monotonic() < end:  # culvert goes on reading, and drops what finds no room
            try:
                at = (at + wire.socket.send(whole[at:])) % len(whole)
            except BlockingIOError:
                pass
        check(serve.counters()["netdev_full"] > 0, "it was full")
        before = serve.cpu_seconds()
        time.sleep(0.5)
        check(serve.cpu_seconds() - before < 0.1, "waiting costs nothing")
        wire.socket.settimeout(DEADLINE)
        while wire.receive(0.3) is not None:
            pass
        wire.socket.sendall(whole[at:] if at else b"")
        check(wire.lives(), "and it goes on")


@test
def a_second_guest_is_turned_away_and_a_successor_is_not(lab):
    with Serve(lab, "--stream", PATH) as serve:
        with StreamWire(PATH) as first:
            check(first.lives(), "served")
            with StreamWire(PATH) as second:
                check(second.is_closed(), "turned away")
            check(first.lives(), "still served")
        for _ in range(50):
            with StreamWire(PATH) as successor:
                check(successor.lives(), "served")
        equal(serve.counters()["netdev_guest_refused"], 1)


@test
def segments_above_the_mtu_with_undone_checksums_are_taken(lab):
    """As libkrun's guests send them: TSO without its facts."""
    listener = lab.host.listen("127.0.0.1")
    port = listener.getsockname()[1]
    with Serve(lab, "--stream", PATH), StreamWire(PATH) as wire:
        check(wire.lives(), "served")
        wire.send(undone_tcp(SYN, 4000, port, 100, 0))
        flags, sequence, _, _ = tcp_parts(wire.receive_until(tcp_parts))
        equal(flags, SYN | ACK)
        connection, _ = listener.accept()
        data = bytes(range(256)) * 234
        wire.send(undone_tcp(ACK | PSH, 4000, port, 101, sequence + 1, data))
        connection.settimeout(DEADLINE)
        seen = b""
        while len(seen) < len(data):
            seen += connection.recv(1 << 17)
        equal(seen == data, True, "the bytes are right")
        connection.sendall(data)
        parts = tcp_parts(wire.receive_until(lambda f: tcp_parts(f) and tcp_parts(f)[3]))
        check(len(parts[3]) <= 1460, "towards the guest segments have the MTU's size")
        connection.close()
    listener.close()


# ---- QEMU ----


PUBLISHED = 18080


def published(lab, address="127.0.0.1"):
    """What the guest says at its published port; None: it refuses."""
    try:
        connection = lab.host.connect(address, PUBLISHED)
        with connection:
            connection.shutdown(1)
            return connection.recv(100)
    except ConnectionResetError:
        return None


def qemu():
    return VM(["-netdev", f"stream,id=net,server=off,addr.type=unix,addr.path={PATH}"])


@test
def a_virtual_machine_comes_up_by_itself_and_moves_bytes(lab):
    with Server(lab) as server, Server(lab, "::1") as server6, \
            Serve(lab, "--stream", PATH, "-p", f"{PUBLISHED}:7000",
                  "-p", f"[::1]:{PUBLISHED}:7000",
                  rules=("allow any to host", "allow any to any")) as serve, qemu() as vm:
        configured = vm.configure()
        print(f"# booted in {vm.boot_seconds:.1f} s, configured in {configured:.1f} s")
        equal(vm.call("cat /sys/class/net/eth0/mtu").strip(), "1500")
        for host, serving, total in ((GATEWAY4, server, VOLUME), (GATEWAY6, server6, VOLUME // 8)):
            for move in (download, upload):
                before = serve.cpu_seconds()
                seconds = move(vm, host, serving, total)
                print(f"# {move.__name__} by {host}: {total * 8 / seconds / 1e9:.2f} Gbit/s, "
                      f"{(serve.cpu_seconds() - before) * (1 << 30) / total:.1f} CPU s/GiB")
        for target in (GATEWAY4, GATEWAY6, INTERNET4):
            vm.call(f"ping -c 2 -W 5 {target}")
        check("10.0.2.2" in vm.call("nslookup host.culvert.internal"), "DNS")
        for address in "127.0.0.1", "::1":  # in IPv6 it has the address that SLAAC gave it alone
            vm.send("echo from the guest | nc -l -p 7000")
            wait_until(lambda: published(lab, address) == b"from the guest\n",
                       f"the guest's answer at {address}", pause=0.2)
            vm.finish()


@test
def while_nobody_is_connected_clients_are_reset_at_once(lab):
    with Serve(lab, "--stream", PATH, "-p", f"{PUBLISHED}:7000") as serve:
        begun = time.monotonic()
        equal(published(lab), None)
        check(time.monotonic() - begun < 0.5, "it took its time")
        equal(serve.counters()["publish_link_down"], 1)
        with StreamWire(PATH):  # somebody comes, and goes
            wait_until(lambda: serve.counters().get("netdev_guests"), "the guest")
        wait_until(lambda: not published(lab) and serve.counters()["publish_link_down"] > 1,
                   "the link to go down")


@test
def a_guest_reboots_and_a_virtual_machine_is_restarted(lab):
    with Server(lab) as server, Serve(lab, "--stream", PATH) as serve, qemu() as vm:
        vm.configure()
        download(vm, GATEWAY4, server, 1 << 20)
        vm.reboot()
        vm.configure()
        download(vm, GATEWAY4, server, 1 << 20)
        vm.restart()
        vm.configure()
        download(vm, GATEWAY4, server, 1 << 20)
        equal(serve.counters()["netdev_guests"], 2)


@test
def culvert_is_killed_under_a_running_guest_which_listens_to_it(lab):
    """QEMU 7.2 connects once; so here it listens, and culvert connects, and connects again."""
    arguments = ["-netdev", f"stream,id=net,server=on,addr.type=unix,addr.path={PATH}"]
    with Server(lab) as server, Serve(lab, "--stream", "connect:" + PATH) as serve:
        with VM(arguments) as vm:
            vm.configure()
            download(vm, GATEWAY4, server, 1 << 20)
            serve.kill()
            time.sleep(0.5)
            serve.start()
            wait_until(lambda: vm.run(f"ping -c 1 -W 1 {GATEWAY4}")[0] == 0, "an answered ping")
            download(vm, GATEWAY4, server, 1 << 20)


if __name__ == "__main__":
    main()
