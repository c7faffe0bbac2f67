#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`culvert serve --interface` and `--tap`: a guest behind a veth or a TAP.

The guest is a Linux network namespace at the other end. With AF_PACKET the host's own stack must not
see its frames: these tests let it forward, and look whether it does."""

import json
import os
import signal
import socket
import subprocess
import tempfile

from lab import (CULVERT, DEADLINE, GATEWAY4, GATEWAY6, GUEST4, GUEST6, HOST4, INTERNET4, SANITIZED,
                 Network, check, equal, main, test, wait_until)
from serving import Serve, Server, download, repeated, upload
from vm import VM

GUEST_TSO4, HOST_TSO4 = 7, 11  # virtio 1.2, 5.1.3
VOLUME = (8 if SANITIZED else 64) << 20


class Veth:
    """A guest behind a veth whose host side is "vmtap"."""

    def __init__(self, lab, host=None, configure=True):
        self.host = host or lab.host
        self.net = Network.new()
        self.host.ip("link add vmtap type veth peer name eth0")
        path = f"/proc/{os.getpid()}/fd/{self.net.fd}"
        self.host.call("ip", "link", "set", "eth0", "netns", path)
        self.host.ip("link set vmtap up")
        if configure:
            set_up_guest(self.net)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.host.run("ip", "link", "del", "vmtap")
        self.net.close()


def set_up_guest(net):
    net.sysctl("net.ipv6.conf.all.accept_dad", 0)
    net.sysctl("net.ipv6.conf.eth0.accept_dad", 0)
    net.ip("link set lo up", "link set eth0 up", f"addr add {GUEST4}/24 dev eth0",
           f"addr add {GUEST6}/64 dev eth0 nodad", f"route add default via {GATEWAY4}",
           "-6 route replace default via fe80::2 dev eth0")


def wait_for(net):
    wait_until(lambda: net.run("ping", "-c", "1", "-W", "1", GATEWAY4)[0] == 0, "an answered ping")


def move(net, server, address, total):
    """Both ways, checked by digest; through the kernel's own TCP in the guest."""
    connection = net.connect(address, server.port)
    connection.sendall(f"GET /{total}\r\n\r\n".encode())
    with connection.makefile("rb") as file:
        while file.readline() not in (b"\r\n", b""):
            pass
        for piece in repeated(total):
            equal(file.read(len(piece)) == piece, True, "downloaded bytes are right")
        equal(file.read(1), b"")
    connection.close()
    connection = net.connect(address, server.port)
    for piece in repeated(total):
        connection.sendall(piece)
    connection.shutdown(1)
    count = connection.recv(100).split()[0]
    connection.close()
    equal(int(count), total)


@test
def what_the_kernel_drops_for_want_of_room_is_counted(lab):
    with Veth(lab) as guest, Serve(lab, "--interface", "vmtap") as serve:
        wait_for(guest.net)
        check("netdev_lost" not in serve.counters(), "nothing was lost yet")
        serve.process.send_signal(signal.SIGSTOP)
        with guest.net.socket(kind=socket.SOCK_DGRAM) as sender:
            for _ in range(60000):  # more than the socket's buffer holds
                sender.sendto(b"x" * 1400, (GATEWAY4, 9))
        serve.process.send_signal(signal.SIGCONT)
        lost = serve.counters()["netdev_lost"]
        check(0 < lost < 60000, f"{lost} lost")
        wait_for(guest.net)


@test
def bytes_pass_both_ways_through_a_veth(lab):
    with Veth(lab) as guest, Server(lab) as server, Serve(lab, "--interface", "vmtap"):
        wait_for(guest.net)
        move(guest.net, server, GATEWAY4, VOLUME)


@test
def ipv6_passes_through_a_veth(lab):
    with Veth(lab) as guest, Server(lab, "::1") as server, Serve(lab, "--interface", "vmtap"):
        wait_for(guest.net)
        move(guest.net, server, GATEWAY6, VOLUME // 4)


@test
def super_segments_pass_whole(lab):
    with Veth(lab) as guest, Server(lab) as server, Serve(lab, "--interface", "vmtap") as serve:
        wait_for(guest.net)
        move(guest.net, server, GATEWAY4, VOLUME)
        seen = serve.counters()
        check(seen["netdev_bytes_in"] / seen["netdev_frames_in"] > 3000, f"large frames in: {seen}")
        check(seen["netdev_bytes_out"] / seen["netdev_frames_out"] > 3000,
              f"large frames out: {seen}")


def forwarded(lab, guest):
    """Does the host's own stack route what the guest sends to the host's side of the veth?"""
    mac = json.loads(guest.host.call("ip", "-j", "link", "show", "vmtap"))[0]["address"]
    guest.net.ip(f"neigh replace {GATEWAY4} lladdr {mac} dev eth0 nud permanent")
    lab.internet.filter(f"ip saddr {GUEST4} counter")
    for _ in range(3):
        guest.net.run("ping", "-c", "1", "-W", "0.2", INTERNET4)
    seen = lab.internet.filtered()
    guest.net.ip(f"neigh del {GATEWAY4} dev eth0")
    return seen > 0


@test
def the_hosts_own_stack_never_sees_the_guest(lab):
    lab.host.sysctl("net.ipv4.ip_forward", 1)
    try:
        with Veth(lab) as guest:
            lab.host.ip("addr add 10.0.2.1/24 dev vmtap")
            check(forwarded(lab, guest), "without culvert it is forwarded")
            with Serve(lab, "--interface", "vmtap", rules=()):
                check(not forwarded(lab, guest), "with culvert it is not")
                status, _, _ = guest.net.run("ping", "-c", "1", "-W", "0.3", "10.0.2.1")
                check(status != 0, "the host's own address on the interface is silent")
    finally:
        lab.host.sysctl("net.ipv4.ip_forward", 0)


@test
def the_seal_is_removed_at_the_end_and_replaced_after_a_kill(lab):
    tables = lambda: lab.host.call("nft", "list", "tables")
    with Veth(lab):
        with Serve(lab, "--interface", "vmtap") as serve:
            check("culvert_vmtap" in tables(), "sealed")
            serve.kill()
            check("culvert_vmtap" in tables(), "still sealed after a kill")
            serve.start()
        check("culvert_vmtap" not in tables(), "not sealed any more")


def serve_without_net_admin(network, *options):
    """Exit status and stderr of a serve that may have packet sockets and nothing else; ended as soon
    as it is ready."""
    with network:
        process = subprocess.Popen(
            ["setpriv", "--bounding-set", "-all,+net_raw", CULVERT, "serve", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if process.stdout.readline() == "ready\n":
        process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=DEADLINE)
    return process.returncode, errors


@test
def without_nftables_it_refuses_to_start_among_other_interfaces(lab):
    with Veth(lab):
        status, errors = serve_without_net_admin(lab.host, "--interface", "vmtap")
        equal(status, 1)
        check("namespace of its own" in errors and errors.count("\n") == 1, errors)


@test
def without_nftables_a_namespace_with_no_other_interface_will_do(lab):
    alone = Network.new()
    with Veth(lab, alone):
        status, errors = serve_without_net_admin(alone, "--interface", "vmtap")
        equal((status, errors), (0, ""))
    alone.close()


@test
def an_interface_in_another_namespace_is_served(lab):
    other = Network.new()
    path = f"/proc/{os.getpid()}/fd/{other.fd}"
    with Veth(lab, other) as guest, Server(lab) as server:
        with Serve(lab, "--interface", "vmtap", "--netns", path):
            wait_for(guest.net)
            move(guest.net, server, GATEWAY4, 1 << 20)
            check("culvert_vmtap" in other.call("nft", "list", "tables"), "sealed there")
        equal(other.call("nft", "list", "tables"), "")
    other.close()


@test
def a_deleted_interface_ends_it_with_a_reason(lab):
    with Veth(lab) as guest, Serve(lab, "--interface", "vmtap") as serve:
        guest.host.call("ip", "link", "del", "vmtap")
        equal(serve.process.wait(DEADLINE), 1)
        check("the interface is gone" in serve.stderr(), serve.stderr())
        serve.kill()


@test
def an_interface_that_was_down_is_brought_up_and_survives_going_down(lab):
    with Veth(lab) as guest:
        lab.host.ip("link set vmtap down")
        with Serve(lab, "--interface", "vmtap"):
            wait_for(guest.net)
            lab.host.ip("link set vmtap down")
            guest.net.run("ping", "-c", "1", "-W", "0.2", GATEWAY4)
            lab.host.ip("link set vmtap up")
            wait_for(guest.net)


@test
def a_virtual_machine_with_a_tap_of_its_own_moves_super_segments(lab):
    """QEMU opens a TAP by its name, as Firecracker does."""
    lab.host.call("ip", "tuntap", "add", "mode", "tap", "vnet_hdr", "name", "vmtap")
    arguments = ["-netdev", "tap,id=net,ifname=vmtap,script=no,downscript=no"]
    try:
        with Server(lab) as server, VM(arguments, network=lab.host) as vm, \
                Serve(lab, "--interface", "vmtap") as serve:
            vm.configure()
            check({HOST_TSO4, GUEST_TSO4} <= vm.features(), "segmentation offload is on")
            for move_bytes in (download, upload):
                before = serve.cpu_seconds()
                seconds = move_bytes(vm, GATEWAY4, server, 4 * VOLUME)
                print(f"# {move_bytes.__name__}: {4 * VOLUME * 8 / seconds / 1e9:.2f} Gbit/s, "
                      f"{(serve.cpu_seconds() - before) * (1 << 28) / VOLUME:.2f} CPU s/GiB")
            seen = serve.counters()
            check(seen["netdev_bytes_in"] / seen["netdev_frames_in"] > 3000, f"in: {seen}")
            check(seen["netdev_bytes_out"] / seen["netdev_frames_out"] > 3000, f"out: {seen}")
            serve.kill()
            serve.start()
            download(vm, GATEWAY4, server, 1 << 20)
    finally:
        lab.host.call("ip", "link", "del", "vmtap")


class Tap:
    """A guest whose eth0 is a TAP that culvert makes in its namespace."""

    def __init__(self):
        self.net = Network.new()
        self.path = f"/proc/{os.getpid()}/fd/{self.net.fd}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.net.close()


@test
def a_tap_is_made_in_another_namespace(lab):
    with Tap() as guest, Server(lab) as server:
        with Serve(lab, "--tap", "eth0", "--netns", guest.path, "--mtu", "1400"):
            check("mtu 1400" in guest.net.call("ip", "link", "show", "eth0"), "the MTU is set")
            check("UP" in guest.net.call("ip", "link", "show", "eth0"), "it is up")
            set_up_guest(guest.net)
            move(guest.net, server, GATEWAY4, VOLUME)
        check(guest.net.run("ip", "link", "show", "eth0")[0] != 0, "it is gone with culvert")


@test
def a_tap_that_exists_is_used(lab):
    with Server(lab) as server:
        lab.host.call("ip", "tuntap", "add", "mode", "tap", "vnet_hdr", "name", "kept0")
        try:
            for _ in range(2):
                with Serve(lab, "--tap", "kept0"):
                    pass
            check(lab.host.run("ip", "link", "show", "kept0")[0] == 0, "it is still there")
        finally:
            lab.host.call("ip", "link", "del", "kept0")
        check(server.port, "")


def give_everyone_tun():
    """/dev/net/tun as most systems have it, in this test's mount namespace."""
    place = tempfile.mkdtemp() + "/tun"
    subprocess.run(["mknod", "-m", "666", place, "c", "10", "200"], check=True)
    subprocess.run(["mount", "--bind", place, "/dev/net/tun"], check=True)


@test
def an_ordinary_user_serves_a_namespace_of_theirs(lab):
    give_everyone_tun()
    with lab.host:
        sleeper = subprocess.Popen(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
             "unshare", "-Urn", "sh", "-c", "echo made; exec sleep 1000"], stdout=subprocess.PIPE)
    try:
        check(sleeper.stdout.readline() == b"made\n", "a user namespace")
        with lab.host:
            process = subprocess.Popen(
                ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                 CULVERT, "serve", "--tap", "eth0", "--netns", str(sleeper.pid),
                 "--rule", "allow any to host"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = process.stdout.readline()
        if line != b"ready\n":
            raise AssertionError(process.communicate(timeout=DEADLINE)[1].decode())
        net = Network(os.open(f"/proc/{sleeper.pid}/ns/net", os.O_RDONLY))
        set_up_guest(net)
        with Server(lab) as server:
            move(net, server, GATEWAY4, 1 << 20)
        net.close()
        process.send_signal(signal.SIGTERM)
        equal(process.wait(DEADLINE), 0)
    finally:
        sleeper.kill()
        sleeper.wait()


if __name__ == "__main__":
    main()
