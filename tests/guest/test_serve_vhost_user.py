#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
"""culvert serve --vhost-user: a machine in QEMU, and a namespace behind virtqueues at full speed."""

import contextlib
import glob
import os
import re
import socket
import struct
import subprocess
import tempfile
import time

from lab import CULVERT, DEADLINE, GATEWAY4, GATEWAY6, SLOWNESS, Network, Skip, check, equal, \
    for_each, in_thread, main, test, unpacked, wait_until
from serving import Serve, Server, download, upload
from vm import VM

LARGE = (256 << 20) // SLOWNESS
MEDIUM = (32 << 20) // SLOWNESS

# Feature bits of virtio-net and virtio.
CSUM, GUEST_CSUM, MTU = 0, 1, 3
GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6, MRG_RXBUF = 7, 8, 11, 12, 15
INDIRECT_DESC, EVENT_IDX, VERSION_1 = 28, 29, 32


@contextlib.contextmanager
def serving(lab, *options, **keywords):
    with tempfile.TemporaryDirectory(prefix="culvert-test-") as directory:
        path = directory + "/vhost.sock"
        with Serve(lab, *options, "-v", "--vhost-user", path, **keywords) as serve:
            serve.path = path
            yield serve


# ---- a machine ----


def machine(serve, queues=1, device="", **options):
    arguments = ["-object", "memory-backend-memfd,id=memory,share=on,size=192M",
                 "-chardev", f"socket,id=chardev,path={serve.path},reconnect=1",
                 "-netdev", "vhost-user,id=net,chardev=chardev" +
                 (f",queues={queues}" if queues > 1 else "")]
    return VM(arguments, machine="pc,memory-backend=memory",
              device="romfile=,vectors=0,disable-legacy=on" + device, **options)


@test
def a_machine_comes_up_alone_with_every_offload(lab):
    with serving(lab) as serve, Server(lab) as server, Server(lab, "::1") as server6, \
            machine(serve) as vm:
        vm.configure()
        missing = {CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6, MRG_RXBUF,
                   INDIRECT_DESC, EVENT_IDX, VERSION_1} - vm.features()
        equal(missing, set(), "feature bits that were not negotiated")
        vm.call(f"ping -c 1 {GATEWAY4} && ping -c 1 {GATEWAY6}")
        before = serve.counters()
        upload(vm, GATEWAY4, server, LARGE)
        middle = serve.counters()
        download(vm, GATEWAY4, server, LARGE)
        after = serve.counters()
        upload(vm, GATEWAY6, server6, MEDIUM)
        download(vm, GATEWAY6, server6, MEDIUM)
        for direction, begin, end in (("in", before, middle), ("out", middle, after)):
            frames = end[f"netdev_frames_{direction}"] - begin[f"netdev_frames_{direction}"]
            check(LARGE / frames > 8 << 10, f"{frames} frames {direction} for {LARGE} bytes")


@test
def a_machine_of_two_processors_uses_two_pairs(lab):
    with serving(lab) as serve, Server(lab) as server, \
            machine(serve, queues=2, device=",mq=on", qemu=["-smp", "2"]) as vm:
        vm.configure()
        equal(vm.call("ls /sys/class/net/eth0/queues").split(), ["rx-0", "rx-1", "tx-0", "tx-1"])
        for cpu in (1, 2):
            vm.call(f"taskset {cpu} vm_client put {GATEWAY4} {server.port} {MEDIUM}", 60)
            vm.call(f"taskset {cpu} vm_client get {GATEWAY4} {server.port} {MEDIUM}", 60)


@test
def a_machine_reboots_and_is_served_again(lab):
    with serving(lab) as serve, Server(lab) as server, machine(serve) as vm:
        vm.configure()
        download(vm, GATEWAY4, server, 1 << 20)
        vm.reboot()
        vm.configure()
        download(vm, GATEWAY4, server, 1 << 20)
        upload(vm, GATEWAY4, server, 1 << 20)
        equal(serve.counters().get("netdev_guests"), 1, "connections")


@test
def a_machine_is_killed_and_the_next_one_served(lab):
    with serving(lab) as serve, Server(lab) as server, machine(serve) as vm:
        vm.configure()
        vm.send(f"vm_client get {GATEWAY4} {server.port} {LARGE}")
        wait_until(lambda: serve.counters().get("netdev_bytes_out", 0) > 1 << 20, "the download")
        vm.restart()
        vm.configure()
        upload(vm, GATEWAY4, server, MEDIUM)
        download(vm, GATEWAY4, server, MEDIUM)


@test
def culvert_is_killed_and_the_machine_recovers_in_a_round_trip(lab):
    with serving(lab) as serve, Server(lab) as server, machine(serve) as vm:
        vm.configure()
        vm.send(f"vm_client put {GATEWAY4} {server.port} {1 << 40}")
        wait_until(lambda: serve.counters().get("netdev_bytes_in", 0) > 1 << 20, "the upload")
        serve.kill()
        serve.start()
        status, _ = vm.finish(DEADLINE, "the upload that lost its other end")
        check(status != 0, "the upload cannot have ended well")
        check(serve.counters().get("tcp_no_flow"), "no segment was answered by RST")
        upload(vm, GATEWAY4, server, MEDIUM)
        download(vm, GATEWAY4, server, MEDIUM)


# ---- a namespace behind virtqueues ----


def _built(name):
    """A program of the build directory that CULVERT lies in."""
    directory = os.path.dirname(CULVERT)
    for root in (directory, directory + "/../.."):
        path = f"{root}/tests/vhost_frontend/{name}"
        if os.path.exists(path):
            return path
    raise Skip(f"{name} is not built (meson configure -Dtests=true)")


def _client():
    """The directory of vm_client, built for the host."""
    if not hasattr(_client, "directory"):
        _client.directory = tempfile.TemporaryDirectory(prefix="culvert-client-")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vm_client.c")
        subprocess.run(["cc", "-O2", "-o", _client.directory.name + "/vm_client", source],
                       check=True)
    return _client.directory.name


class Pump:
    """A namespace whose eth0 is put through virtqueues by tests/vhost_frontend/pump.c."""

    def __init__(self, serve, *options):
        self.errors = tempfile.TemporaryFile()
        with serve.lab.host:
            self.process = subprocess.Popen(
                [_built("vhost-pump"), *options, serve.path, "--", "sh", "-c",
                 "echo ready; exec cat"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        if self.process.stdout.readline() != b"ready\n":
            self.process.wait(DEADLINE)
            raise AssertionError("vhost-pump: " + self.stderr())
        pid = self.process.pid
        child = open(f"/proc/{pid}/task/{pid}/children").read().split()[0]
        self.net = Network(os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process.stdout.close()
        self.net.close()

    def stderr(self):
        return os.pread(self.errors.fileno(), 1 << 24, 0).decode(errors="replace")

    def call(self, line, timeout=60):
        return self.net.call("env", f"PATH={_client()}:{os.environ['PATH']}", "sh", "-c", line,
                             timeout=timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()


def moves_both_ways(lab, options, total=MEDIUM, too_large=0):
    """At most `too_large` frames may be lost until they are known to be."""
    with serving(lab) as serve, Server(lab) as server, Pump(serve, *options) as pump:
        upload(pump, GATEWAY4, server, total)
        download(pump, GATEWAY4, server, total)
        upload(pump, GATEWAY4, server, 1)
        counters = serve.counters()
        check(counters.pop("vhost_user_small_buffers", 0) <= too_large, "too many frames were lost")
        bad = [name for name in counters if name.startswith("vhost_user_") or
               name in ("netdev_bad_offload", "tcp_bad_checksum", "netdev_runt")]
        equal(bad, [], "counters that should be zero")


@for_each(feature=["mrg", "event-idx", "indirect", "csum", "tso", "guest-csum", "guest-tso"])
def bytes_arrive_without_the_feature(lab, feature):
    moves_both_ways(lab, ["--without", feature])


@test
def bytes_arrive_with_every_feature(lab):
    moves_both_ways(lab, [], LARGE)


@test
def bytes_arrive_through_tiny_rings(lab):
    moves_both_ways(lab, ["--queue-size", "8", "--rx-buffer", "2048"], MEDIUM // 8, too_large=4)


@test
def bytes_arrive_in_small_buffers(lab):
    moves_both_ways(lab, ["--queue-size", "1024", "--rx-buffer", "1526"])


@test
def bytes_arrive_through_the_largest_rings(lab):
    moves_both_ways(lab, ["--queue-size", "4096", "--without", "event-idx", "--without", "mrg",
                          "--without", "guest-tso"])


@test
def many_connections_share_the_queues(lab):
    with serving(lab) as serve, Server(lab) as server, Pump(serve) as pump:
        many, each = 12, MEDIUM // 8
        joins = [in_thread(way, pump, GATEWAY4, server, each)
                 for way in (upload, download) for _ in range(many // 2)]
        for join in joins:
            join()


@test
def a_receiver_that_pauses_stalls_nobody(lab):
    """Bytes that the host does not take are copied out of the rings."""
    with serving(lab) as serve, Server(lab) as server, lab.host.listen("127.0.0.1") as slow, \
            Pump(serve, "--queue-size", "16") as pump:
        senders = []
        for _ in range(4):
            sender = pump.net.connect(GATEWAY4, slow.getsockname()[1])
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(bytes(1 << 20))
            senders.append(sender)
        download(pump, GATEWAY4, server, 1 << 20)
        upload(pump, GATEWAY4, server, 1 << 20)
        for sender in senders:
            sender.close()


@test
def datagrams_go_and_come(lab):
    with serving(lab) as serve, lab.host.socket(kind=socket.SOCK_DGRAM) as server, \
            Pump(serve) as pump:
        server.bind(("127.0.0.1", 0))
        with pump.net.socket(kind=socket.SOCK_DGRAM) as client:
            client.connect((GATEWAY4, server.getsockname()[1]))
            for size in (0, 1, 1472, 1473, 9000, 65507):
                client.send(bytes(i & 0xff for i in range(size)))
                data, peer = server.recvfrom(1 << 16)
                equal(len(data), size, "bytes at the server")
                server.sendto(data, peer)
                equal(client.recv(1 << 16), data, f"the echo of {size} bytes")


@test
def culvert_is_killed_and_the_rings_go_on(lab):
    """In the middle of traffic: no buffer is lost or used twice, so all of them are passed again."""
    with serving(lab) as serve, Server(lab) as server, Pump(serve, "--queue-size", "64") as pump:
        for _ in range(3):
            before = serve.counters().get("netdev_bytes_in", 0)
            sender = subprocess.Popen(
                ["nsenter", f"--net=/proc/{os.getpid()}/fd/{pump.net.fd}", _client() + "/vm_client",
                 "put", GATEWAY4, str(server.port), str(1 << 40)], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, pass_fds=[pump.net.fd])
            wait_until(lambda: serve.counters().get("netdev_bytes_in", 0) - before > 4 << 20,
                       "the upload")
            serve.kill()
            serve.start()
            check(sender.wait(DEADLINE) != 0, "the upload cannot have ended well")
            upload(pump, GATEWAY4, server, 16 << 20)
            download(pump, GATEWAY4, server, 16 << 20)
        equal(pump.stderr(), "", "what the front end complained of")


@test
def a_front_end_is_killed_and_the_next_one_served(lab):
    with serving(lab) as serve, Server(lab) as server:
        for _ in range(3):
            with Pump(serve) as pump:
                upload(pump, GATEWAY4, server, 1 << 20)
                pump.kill()
        equal(serve.counters()["netdev_guests"], 3, "front ends")


@test
def a_second_front_end_is_turned_away(lab):
    with serving(lab) as serve, Server(lab) as server, Pump(serve) as first:
        with socket.socket(socket.AF_UNIX) as second:
            second.connect(serve.path)
            second.settimeout(DEADLINE)
            equal(second.recv(1), b"", "what the second gets")
        upload(first, GATEWAY4, server, 1 << 20)
        equal(serve.counters()["netdev_guest_refused"], 1, "front ends turned away")


@test
def once_ends_with_its_front_end(lab):
    with serving(lab, "--once") as serve, Server(lab) as server:
        with Pump(serve) as pump:
            download(pump, GATEWAY4, server, 1 << 20)
        equal(serve.process.wait(DEADLINE), 0, "exit status")


@test
def what_makes_no_sense_ends_the_connection_and_is_counted(lab):
    with serving(lab) as serve, Server(lab) as server:
        for message in (b"GET / HTTP/1.0\r\n\r\n", struct.pack("=III", 2, 1, 3) + b"abc",
                        struct.pack("=III", 1, 0, 0), struct.pack("=III", 5, 1, 0xffffffff)):
            with socket.socket(socket.AF_UNIX) as front:
                front.connect(serve.path)
                front.settimeout(DEADLINE)
                front.sendall(message)
                with contextlib.suppress(ConnectionResetError):
                    equal(front.recv(1), b"", f"the answer to {message!r}")
        equal(serve.counters()["vhost_user_bad_message"], 4, "bad messages")
        with Pump(serve) as pump:
            download(pump, GATEWAY4, server, 1 << 20)


@test
def idle_means_idle(lab):
    with serving(lab) as serve, Server(lab) as server, Pump(serve) as pump:
        download(pump, GATEWAY4, server, 1 << 20)
        time.sleep(1.5)  # whatever the namespace's kernel still sends
        pump.net.ip("link set eth0 arp off")

        def switches():
            total = 0
            for path in glob.glob(f"/proc/{serve.process.pid}/task/*/status"):
                with open(path) as file:
                    total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(),
                                           re.M)[1])
            return total

        before, frames = switches(), serve.counters()["netdev_frames_in"]
        time.sleep(2)
        frames = serve.counters()["netdev_frames_in"] - frames
        check(switches() - before <= frames + 8, f"{switches() - before} wakeups, {frames} frames")


# ---- DPDK's driver ----

RING = 256  # descriptors, testpmd's default


@test
def dpdk_transmits_and_receives(lab):
    program = unpacked("dpdk", "dpdk-testpmd")
    if not program:
        raise Skip("there is no dpdk-testpmd (packaging/install-deps.sh test)")
    path, environment = program
    drivers = []  # which an installed one finds by itself
    for libraries in environment.values():
        for driver in "net_virtio", "mempool_ring", "bus_vdev":
            drivers += ["-d", glob.glob(f"{libraries}/dpdk/pmds-*/librte_{driver}.so.*")[0]]
    with lab.host.socket(kind=socket.SOCK_DGRAM) as sender, \
            lab.host.socket(kind=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        with serving(lab, "-p", f"127.0.0.1:{port}:7/udp") as serve:
            testpmd = subprocess.Popen(
                [path, *drivers, "--no-huge", "-m", "256", "--no-pci", "--no-telemetry",
                 f"--file-prefix=culvert-{os.getpid()}",
                 f"--vdev=net_virtio_user0,path={serve.path}", "--", "-i",
                 "--total-num-mbufs=4096", "--forward-mode=icmpecho", "--auto-start"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, **environment})
            wait_until(lambda: serve.counters().get("netdev_guests"), "testpmd")
            time.sleep(1)

            def sent():
                for _ in range(50):
                    sender.sendto(b"x" * 1000, ("127.0.0.1", port))
                    time.sleep(0.001)
                return serve.counters().get("netdev_frames_out", 0) > 2 * RING + 100

            wait_until(sent, "testpmd to take more than a ring holds", seconds=30 * SLOWNESS)
            time.sleep(0.5)
            out, _ = testpmd.communicate(b"stop\nquit\n", 30)
            received = max(map(int, re.findall(rb"RX-packets: (\d+)", out)), default=0)
            counters = serve.counters()
            check(received > RING, f"testpmd received {received}: {out[-1500:]!r}")
            left = counters["netdev_frames_out"] - received
            check(0 <= left <= RING, f"{left} frames were lost on the way to testpmd")
            check(counters["netdev_frames_in"] >= 1, "testpmd's ARP reply did not come")


if __name__ == "__main__":
    main()
