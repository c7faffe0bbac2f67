#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""`culvert serve --dgram`: guests that connect to it and guests that do not, and QEMU's -netdev
dgram."""

import os
import tempfile
import time

from lab import (DEADLINE, GATEWAY4, GATEWAY6, INTERNET4, SANITIZED, check, equal, for_each, main,
                 test, wait_until)
from serving import Serve, Server, download, upload
from vm import VM
from wires import DatagramWire, arp_request, is_arp_reply, is_ping_reply, ping

PLACE = tempfile.mkdtemp(prefix="culvert-dgram-")
PATH, GUEST = PLACE + "/s", PLACE + "/guest"
VOLUME = (16 if SANITIZED else 256) << 20
LIKE = dict(like=["libkrun", "qemu"])


def wire(like, path=GUEST):
    """libkrun's guests are connected to culvert, QEMU's are not."""
    if os.path.exists(path):
        os.unlink(path)
    return DatagramWire(PATH, path, connected=like == "libkrun")


# ---- the wire ----


@for_each(**LIKE)
def frames_pass_for_a_guest_like(lab, like):
    with Serve(lab, "--dgram", PATH), wire(like) as guest:
        check(guest.lives(), "ARP is answered")
        for i in range(300):
            guest.send(ping(i, 1400))
            check(guest.receive_until(is_ping_reply), "the ping is answered")


@for_each(**LIKE)
def a_greeting_may_come_first_from_a_guest_like(lab, like):
    with Serve(lab, "--dgram", PATH) as serve, wire(like) as guest:
        guest.send(b"VFKT")
        check(guest.lives(), "served")
        equal(serve.counters().get("netdev_runt"), None)


@for_each(**LIKE)
def large_frames_pass_for_a_guest_like(lab, like):
    with Serve(lab, "--dgram", PATH, "--mtu", "65520"), wire(like) as guest:
        check(guest.lives(), "served")
        for size in (1, 2006, 2007, 30000, 65000):
            guest.send(ping(7, size))
            reply = guest.receive_until(is_ping_reply)
            equal(reply[42:], b"p" * size, "the echo")


@for_each(**LIKE)
def a_guest_that_does_not_read_is_waited_for_without_spinning(lab, like):
    with Serve(lab, "--dgram", PATH) as serve, wire(like) as guest:
        check(guest.lives(), "served")
        guest.socket.settimeout(0.3)
        sent = 0
        try:
            for sent in range(3000):
                guest.send(ping(sent, 1400))
        except (TimeoutError, BlockingIOError):
            pass
        check(serve.counters()["netdev_full"] > 0, "it was full")
        before = serve.cpu_seconds()
        time.sleep(0.5)
        check(serve.cpu_seconds() - before < 0.1, "waiting costs nothing")
        guest.socket.settimeout(DEADLINE)
        while guest.receive(0.3) is not None:
            pass
        check(guest.lives(), "and it goes on")


@for_each(**LIKE)
def a_guest_is_killed_and_another_comes_like(lab, like):
    with Serve(lab, "--dgram", PATH):
        for i in range(5):
            with wire(like) as guest:  # the same name, another socket
                check(guest.lives(), f"guest {i} is served")
        for i in range(5):
            with wire(like, f"{GUEST}{i}") as guest:
                check(guest.lives(), f"guest {i} with its own name is served")


@test
def a_stranger_is_not_answered_while_the_guest_is_there(lab):
    with Serve(lab, "--dgram", PATH) as serve, wire("libkrun") as guest:
        check(guest.lives(), "served")
        with wire("qemu", GUEST + "2") as stranger:
            stranger.send(arp_request())
            check(stranger.receive_until(is_arp_reply, 0.3) is None, "no answer")
        check(guest.lives(), "still served")
        equal(serve.counters()["netdev_stranger"], 1)


@test
def frames_from_a_socket_without_a_name_are_counted(lab):
    with Serve(lab, "--dgram", PATH) as serve:
        with DatagramWire(PATH) as nobody:
            nobody.send(arp_request())
        wait_until(lambda: serve.counters().get("netdev_unnamed") == 1, "the counter")


@test
def a_guest_that_connects_late_is_still_answered(lab):
    with Serve(lab, "--dgram", PATH), wire("qemu") as guest:
        check(guest.lives(), "served")
        guest.socket.connect(PATH)
        check(guest.lives(), "served once it is connected")


@test
def with_once_it_ends_when_the_guest_is_found_gone(lab):
    serve = Serve(lab, "--dgram", PATH, "--once")
    with wire("qemu") as guest:
        check(guest.lives(), "served")
    with wire("qemu", GUEST + "2") as other:
        other.send(arp_request())
        equal(serve.process.wait(DEADLINE), 0)
    serve.kill()
    check(not os.path.exists(PATH), "the path is gone")


# ---- QEMU ----


def qemu():
    return VM(["-netdev", f"dgram,id=net,local.type=unix,local.path={GUEST},"
                          f"remote.type=unix,remote.path={PATH}"])


@test
def a_virtual_machine_comes_up_by_itself_and_moves_bytes(lab):
    with Server(lab) as server, \
            Serve(lab, "--dgram", PATH, rules=("allow any to host", "allow any to any")) as serve, \
            qemu() as vm:
        vm.configure()
        for move in (download, upload):
            before = serve.cpu_seconds()
            seconds = move(vm, GATEWAY4, server, VOLUME)
            print(f"# {move.__name__}: {VOLUME * 8 / seconds / 1e9:.2f} Gbit/s, "
                  f"{(serve.cpu_seconds() - before) * (1 << 30) / VOLUME:.1f} CPU s/GiB")
        for target in (GATEWAY4, GATEWAY6, INTERNET4):
            vm.call(f"ping -c 2 -W 5 {target}")
        check("10.0.2.2" in vm.call("nslookup host.culvert.internal"), "DNS")


@test
def guest_machine_and_culvert_each_start_again(lab):
    with Server(lab) as server, Serve(lab, "--dgram", PATH) as serve, qemu() as vm:
        vm.configure()
        vm.reboot()
        vm.configure()
        download(vm, GATEWAY4, server, 1 << 20)
        serve.kill()
        serve.start()
        wait_until(lambda: vm.run(f"ping -c 1 -W 1 {GATEWAY4}")[0] == 0, "an answered ping")
        download(vm, GATEWAY4, server, 1 << 20)
        vm.restart()
        vm.configure()
        download(vm, GATEWAY4, server, 1 << 20)


if __name__ == "__main__":
    main()
