#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The `culvert serve` command as a service: what it says, when it is ready, how it ends."""

import os
import signal
import socket
import stat
import subprocess
import tempfile

from lab import CULVERT, DEADLINE, GATEWAY4, check, equal, main, test, wait_until
from serving import Serve
from wires import DatagramWire, StreamWire, is_ping_reply, ping

PLACE = tempfile.mkdtemp(prefix="culvert-serve-")


def path(name):
    return f"{PLACE}/{name}"


def serve(lab, *options, environment=None, pass_fds=()):
    """Exit status, stdout and stderr of a serve that ends by itself."""
    with lab.host:
        done = subprocess.run([CULVERT, "serve", *options], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE,
                              env=dict(os.environ, **(environment or {})), pass_fds=pass_fds)
    return done.returncode, done.stdout, done.stderr


def refused(lab, status, word, *options, **keywords):
    seen, out, err = serve(lab, *options, **keywords)
    equal((seen, out), (status, ""), f"{options}: {err}")
    check(err.startswith("culvert: ") and err.count("\n") == 1 and word in err, f"{options}: {err}")


@test
def bad_usage_is_one_line_and_status_2(lab):
    refused(lab, 2, "front end is missing")
    refused(lab, 2, "value is missing", "--stream")
    refused(lab, 2, "given already", "--stream", path("a"), "--dgram", path("b"))
    refused(lab, 2, "did you mean --stream", "--steam", path("a"))
    refused(lab, 2, "takes options only", "--stream", path("a"), "word")
    refused(lab, 2, "in no namespace", "--stream", path("a"), "--netns", "1")
    refused(lab, 2, "no such descriptor", "--stream", path("a"), "--ready-fd", "99")
    refused(lab, 2, "number from", "--stream", path("a"), "--ready-fd", "x")
    refused(lab, 2, "fd:3", "--stream", "fd:x")
    refused(lab, 2, "path is empty", "--stream", "connect:")
    refused(lab, 2, "whoever sends", "--dgram", "connect:" + path("a"))
    refused(lab, 2, "no such option", "--stream", path("a"), "--net-worker", "direct")
    refused(lab, 2, "IPv6 needs", "--stream", path("a"), "--ipv6", "on", "--mtu", "1000")
    refused(lab, 2, "name the ports", "--stream", path("a"), "-p", "auto")
    equal(os.listdir(PLACE), [])


@test
def what_cannot_be_served_is_one_line_and_status_1(lab):
    open(path("file"), "w").close()
    refused(lab, 1, "no socket is there; remove it", "--stream", path("file"))
    refused(lab, 1, "no socket is there; remove it", "--dgram", path("file"))
    refused(lab, 2, "own loopback, which would be cut off", "--interface", "lo")
    refused(lab, 2, "another kind of interface has the name", "--tap", "lo")
    refused(lab, 2, "no interface can have it", "--tap", "a/b")
    os.unlink(path("file"))
    refused(lab, 1, "directory does not exist", "--stream", path("no/where"))
    refused(lab, 1, "shorter", "--stream", "/tmp/" + 120 * "x")
    refused(lab, 1, "no such descriptor", "--stream", "fd:99")
    refused(lab, 1, "no such interface", "--interface", "nowhere0")
    refused(lab, 1, "namespace nowhere cannot be opened", "--tap", "t0", "--netns", "nowhere")
    refused(lab, 2, "not a network namespace", "--tap", "t0", "--netns", "/proc/self/ns/mnt")
    refused(lab, 2, "at most 15 bytes", "--tap", "a-name-that-is-too-long")
    refused(lab, 1, "start the VMM first", "--stream", "connect:" + path("nobody"), "--once")


@test
def help_lists_the_front_ends(lab):
    status, out, err = serve(lab, "--help")
    equal((status, err), (0, ""))
    for word in ("--stream", "--dgram", "--vhost-user", "--tap", "--interface", "--once", "--rule"):
        check(word in out, word)


@test
def it_says_ready_when_a_guest_can_connect(lab):
    with Serve(lab, "--stream", path("s")), StreamWire(path("s")) as wire:
        check(wire.lives(), "ARP is answered")


@test
def frames_go_to_the_mac_address_that_was_given(lab):
    given = "02:aa:bb:cc:dd:ee"
    with Serve(lab, "--stream", path("s"), "--mac", given) as _, StreamWire(path("s")) as wire:
        wire.send(ping(1))
        equal(wire.receive_until(is_ping_reply)[:6], bytes.fromhex(given.replace(":", "")))


@test
def ready_goes_to_a_descriptor_too(lab):
    reading, writing = os.pipe()
    with Serve(lab, "--stream", path("s"), "--ready-fd", str(writing), pass_fds=[writing]):
        os.close(writing)
        with os.fdopen(reading) as file:
            equal(file.read(), "ready\n")


@test
def the_service_manager_is_told(lab):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(path("notify"))
    manager.settimeout(DEADLINE)
    os.environ["NOTIFY_SOCKET"] = path("notify")
    try:
        with Serve(lab, "--stream", path("s")):
            equal(manager.recv(100), b"READY=1")
    finally:
        del os.environ["NOTIFY_SOCKET"]
        manager.close()
        os.unlink(path("notify"))


@test
def term_ends_it_and_removes_what_it_made(lab):
    for end in (signal.SIGTERM, signal.SIGINT):
        serving = Serve(lab, "--stream", path("s"), "--pid-file", path("pid"))
        with open(path("pid")) as file:
            equal(int(file.read()), serving.process.pid)
        check(stat.S_ISSOCK(os.stat(path("s")).st_mode), "a socket")
        serving.process.send_signal(end)
        equal(serving.process.wait(DEADLINE), 0)
        equal(os.listdir(PLACE), [])
        serving.kill()


@test
def hup_and_usr1_do_not_end_it(lab):
    with Serve(lab, "--stream", path("s")) as serving, StreamWire(path("s")) as wire:
        serving.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "in force" in serving.stderr(), "the policy to be read again")
        check(wire.lives(), "it lives")
        check(serving.counters()["netdev_frames_in"] >= 1, "counters")
        check(wire.lives(), "it lives")


@test
def a_stale_socket_is_replaced_and_a_live_one_is_not(lab):
    for kind in ("--stream", "--dgram"):
        with Serve(lab, kind, path("s")) as serving:
            refused(lab, 1, "lives is there already", kind, path("s"))
            serving.kill()
            check(os.path.exists(path("s")), "a kill leaves the path")
            serving.start()
        equal(os.listdir(PLACE), [])


@test
def a_path_that_somebody_else_bound_meanwhile_is_left_alone(lab):
    with Serve(lab, "--stream", path("s")):
        os.unlink(path("s"))
        other = socket.socket(socket.AF_UNIX)
        other.bind(path("s"))
    check(os.path.exists(path("s")), "the other's path is there")
    other.close()
    os.unlink(path("s"))


@test
def with_once_it_ends_with_the_first_guest(lab):
    serving = Serve(lab, "--stream", path("s"), "--once")
    with StreamWire(path("s")) as wire:
        check(wire.lives(), "served")
    equal(serving.process.wait(DEADLINE), 0)
    equal(os.listdir(PLACE), [])
    serving.kill()


@test
def without_once_guests_follow_each_other(lab):
    with Serve(lab, "--stream", path("s")) as serving:
        for _ in range(20):
            with StreamWire(path("s")) as wire:
                check(wire.lives(), "served")
        equal(serving.counters()["netdev_guests"], 20)


@test
def an_inherited_connection_is_served_to_its_end(lab):
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    serving = Serve(lab, "--stream", f"fd:{theirs.fileno()}", pass_fds=[theirs.fileno()])
    theirs.close()
    with StreamWire(ours) as wire:
        check(wire.lives(), "served")
    equal(serving.process.wait(DEADLINE), 0)
    serving.kill()


@test
def an_inherited_pair_of_datagram_sockets_is_served(lab):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with Serve(lab, "--dgram", f"fd:{theirs.fileno()}", pass_fds=[theirs.fileno()]):
        theirs.close()
        with DatagramWire(ours) as wire:
            check(wire.lives(), "served")


@test
def systemd_passes_listening_sockets(lab):
    """LISTEN_PID has to be culvert's own, so a shell becomes culvert."""
    for kind, socket_type, wire_of in (("stream", socket.SOCK_STREAM, StreamWire),
                                       ("dgram", socket.SOCK_DGRAM, None)):
        listener = socket.socket(socket.AF_UNIX, socket_type)
        listener.bind(path("unit"))
        if wire_of:
            listener.listen()
        passed = listener.fileno()
        script = (f'exec 3<&{passed}; export LISTEN_PID=$$ LISTEN_FDS=1; '
                  f'exec "{CULVERT}" serve --{kind} fd:$1')
        words = ["sh", "-c", script, "sh"]
        with lab.host:
            process = subprocess.Popen([*words, "3"], stdout=subprocess.PIPE, pass_fds=[passed])
            equal(process.stdout.readline(), b"ready\n")
            with wire_of(path("unit")) if wire_of else DatagramWire(path("unit"), path("me")) as wire:
                check(wire.lives(), "served")
            process.send_signal(signal.SIGTERM)
            equal(process.wait(DEADLINE), 0)
            process.stdout.close()
            done = subprocess.run([*words, "4"], stderr=subprocess.PIPE, text=True, pass_fds=[passed])
        equal(done.returncode, 2)
        check("from fd:3 on" in done.stderr, done.stderr)
        listener.close()
        check(os.path.exists(path("unit")), "the path is the service manager's")
        for name in os.listdir(PLACE):
            os.unlink(path(name))


@test
def it_connects_and_connects_again(lab):
    def listen():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path("vmm"))
        listener.listen()
        listener.settimeout(DEADLINE)
        return listener

    with Serve(lab, "--stream", "connect:" + path("vmm")) as serving:
        for _ in range(3):
            with listen() as listener, StreamWire(listener.accept()[0]) as wire:
                check(wire.lives(), "served")
            os.unlink(path("vmm"))
        check(serving.counters()["netdev_connect_failed"] < 40, "it does not hurry")


@test
def an_idle_serve_makes_no_wakeups(lab):
    with Serve(lab, "--stream", path("s")) as serving, StreamWire(path("s")) as wire:
        check(wire.lives(), "served")

        def switches():
            total = 0
            for task in os.listdir(f"/proc/{serving.process.pid}/task"):
                with open(f"/proc/{serving.process.pid}/task/{task}/status") as file:
                    total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
            return total

        wire.receive_until(lambda frame: False, 1)
        before = switches()
        wire.receive_until(lambda frame: False, 1)
        check(switches() - before <= 2, f"{switches() - before} context switches in a second")


@test
def it_runs_for_an_ordinary_user(lab):
    place = tempfile.mkdtemp()
    os.chmod(place, 0o777)
    with lab.host:
        process = subprocess.Popen(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
             CULVERT, "serve", "--stream", place + "/s", "--rule", "allow any to host"],
            stdout=subprocess.PIPE)
        equal(process.stdout.readline(), b"ready\n")
        with StreamWire(place + "/s") as wire:
            wire.send(ping(1, destination=GATEWAY4))
            check(wire.receive_until(is_ping_reply), "an answered ping")
        process.send_signal(signal.SIGTERM)
        equal(process.wait(DEADLINE), 0)
        process.stdout.close()
    wait_until(lambda: not os.listdir(place), "the path is gone")


if __name__ == "__main__":
    main()
