#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""`culvert run` as whoever types it sees it: statuses, signals, terminal, descriptors, files,
capabilities, and nothing left behind. Everything is tried as root and as an ordinary user.

Works in a mount namespace of its own, where /etc, /run and /dev/net/tun are copies, so that files
can be replaced under culvert's feet without the machine noticing."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

CULVERT = os.environ.get("CULVERT", "build/src/cli/culvert")
NOBODY = 65534
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TESTS = []


def test(function):
    TESTS.append(function)
    return function


# ---- the machine we pretend to be ----


def enter_mount_namespace():
    if os.environ.get("CULVERT_TEST_INSIDE"):
        return
    os.environ["CULVERT_TEST_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable,
                          os.path.abspath(__file__)])


def call(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def pretend_machine():
    """Copies of what the tests change; returns a directory that everybody may use."""
    place = tempfile.mkdtemp(prefix="culvert-test-")
    os.chmod(place, 0o755)
    call("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place)
    call("cp", "-a", "/etc", place + "/etc")
    call("mount", "--bind", place + "/etc", "/etc")
    call("mknod", "-m", "666", place + "/tun", "c", "10", "200")
    call("mount", "--bind", place + "/tun", "/dev/net/tun")
    call("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    os.makedirs("/run/systemd/resolve")
    with open("/run/systemd/resolve/io.systemd.Resolve", "w") as file:
        file.write("here\n")
    shutil.copy(CULVERT, place + "/culvert")
    os.chmod(place + "/culvert", 0o755)
    os.mkdir(place + "/work")
    os.chmod(place + "/work", 0o1777)
    return place


class Caller:
    """Who runs culvert."""

    def __init__(self, name, uid, place):
        self.name, self.uid, self.place = name, uid, place

    def become(self):
        if self.uid != 0:
            os.setgroups([])
            os.setgid(self.uid)
            os.setuid(self.uid)

    def start(self, *words, options=(), **popen):
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", subprocess.PIPE)
        popen.setdefault("cwd", self.place + "/work")
        popen.setdefault("env", {"PATH": PATH, "LC_ALL": "C.UTF-8"})
        return subprocess.Popen([self.place + "/culvert", "run", *options, *words], text=True,
                                preexec_fn=self.become, **popen)

    def run(self, *words, input=None, **popen):
        if input is not None:
            popen["stdin"] = subprocess.PIPE
        process = self.start(*words, **popen)
        out, err = process.communicate(input, timeout=20)
        return process.returncode, out, err

    def shell(self, script, **popen):
        return self.run("sh", "-c", script, **popen)


def equal(seen, expected):
    if seen != expected:
        raise AssertionError(f"{seen!r} is not {expected!r}")


def contains(text, part):
    if part not in text:
        raise AssertionError(f"{part!r} is not in {text!r}")


def wait_until(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.01)


def processes_with(token):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if token.encode() in file.read() and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            pass
    return found


# ---- exit statuses ----


@test
def the_commands_status_is_culverts(caller):
    equal(caller.run("true")[0], 0)
    equal(caller.shell("exit 3")[0], 3)
    equal(caller.shell("exit 255")[0], 255)
    equal(caller.shell("kill -TERM $$")[0], 128 + 15)
    equal(caller.shell("kill -KILL $$")[0], 128 + 9)


@test
def a_command_that_cannot_start_is_126_or_127(caller):
    status, out, err = caller.run("no-such-command-anywhere")
    equal((status, out), (127, ""))
    contains(err, "no-such-command-anywhere: command not found")
    equal(caller.run("/etc/passwd")[0], 126)
    equal(caller.run("/")[0], 126)


@test
def culverts_own_failures_are_125_and_one_line(caller):
    for options, part in ((["--mut", "1500"], "did you mean --mtu?"),
                          (["--mtu", "1"], "--mtu 1: "),
                          (["--rule", "alow to any"], "--rule "),
                          (["--gateway-ipv4", "10.9.9.9", "x"], "--gateway-ipv4 10.9.9.9: outside"),
                          (["--capture", "x.pcapng"], "not available yet"),
                          (["--ipv6=on", "--mtu=600", "x"], "--mtu 600: IPv6 needs"),
                          ([], "the command is missing")):
        status, out, err = caller.run(*options)
        equal((status, out, err.count("\n")), (125, "", 1))
        contains(err, part)


# ---- signals and the terminal ----


@test
def term_and_hup_are_passed_on(caller):
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = caller.start("sh", "-c", f"trap 'echo got; exit 9' {int(number)}; echo ready; "
                               "while :; do sleep 0.01; done")
        process.stdout.readline()
        process.send_signal(number)
        equal(process.communicate(timeout=10)[0], "got\n")
        equal(process.returncode, 9)


@test
def an_untrapped_term_ends_command_and_culvert(caller):
    process = caller.start("sh", "-c", "echo ready; exec sleep 1000")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    equal(process.wait(10), 128 + 15)


@test
def int_and_quit_are_left_to_the_command(caller):
    process = caller.start("sh", "-c", "echo ready; read line; echo $line; exit 4",
                           stdin=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGQUIT)
    equal(process.communicate("still here\n", timeout=10)[0], "still here\n")
    equal(process.returncode, 4)


@test
def ignored_signals_stay_ignored_for_the_command(caller):
    status, out, _ = caller.run("grep", "-E", "SigIgn|SigBlk", "/proc/self/status",
                                restore_signals=False)
    ignored = int(re.search(r"SigIgn:\s*(\w+)", out).group(1), 16)
    equal(bool(ignored & 1 << (signal.SIGPIPE - 1)), True)  # python ignores SIGPIPE
    equal(int(re.search(r"SigBlk:\s*(\w+)", out).group(1), 16), 0)


@test
def a_caller_that_ignores_sigchld_is_answered(caller):
    status = subprocess.run(["sh", "-c", f"trap '' CHLD; exec {caller.place}/culvert run sh -c "
                             "'exit 6'"], preexec_fn=caller.become, env={"PATH": PATH},
                            timeout=10).returncode
    equal(status, 6)


@test
def usr1_prints_the_counters(caller):
    process = caller.start("sh", "-c", "ping -c1 10.0.2.2 >/dev/null; echo ready; read line",
                           stdin=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGUSR1)
    contains(process.stderr.readline(), "culvert: netdev_frames_in")
    process.communicate("\n", timeout=10)
    equal(process.returncode, 0)


def on_terminal(caller, script, typed):
    """Status and output of a script whose stdin, stdout and stderr are a terminal. `typed` is
    typed when it says "ready"."""
    pid, terminal = pty.fork()
    if pid == 0:
        caller.become()
        os.chdir("/")
        os.execve(caller.place + "/culvert", ["culvert", "run", "sh", "-c", script],
                  {"PATH": PATH})
    seen = b""
    while True:
        try:
            chunk = os.read(terminal, 1000)
        except OSError:  # EIO: the other side is closed
            break
        seen += chunk
        if b"ready" in seen and typed:
            os.write(terminal, typed)
            typed = b""
        if not chunk:
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


@test
def the_terminal_is_the_commands(caller):
    status, seen = on_terminal(caller, "tty -s && test -t 1 && test -t 2 && stty size", b"")
    equal(status, 0)
    status, seen = on_terminal(caller, "echo ready; read x; echo read:$x", b"hello\n")
    contains(seen, "read:hello")


@test
def ctrl_c_reaches_the_command(caller):
    equal(on_terminal(caller, "echo ready; exec sleep 1000", b"\x03")[0], 128 + 2)
    status, seen = on_terminal(caller, "trap 'echo caught; exit 5' INT; echo ready; read x",
                               b"\x03")
    contains(seen, "caught")
    equal(status, 5)


def on_shell_with_jobs(caller, script, shell):
    """What `shell(culvert)`, a session's leader on a terminal, returns, the script being run in the
    background."""
    report, result = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        culvert = os.fork()
        if culvert == 0:
            os.setpgid(0, 0)
            caller.become()
            os.chdir("/")
            os.execve(caller.place + "/culvert", ["culvert", "run", "sh", "-c", script],
                      {"PATH": PATH})
        os.write(result, repr(shell(culvert)).encode())
        os._exit(0)
    os.close(result)
    seen = os.read(report, 1000).decode()
    os.close(report)
    os.close(terminal)
    os.waitpid(pid, 0)
    return seen


@test
def a_job_in_the_background_leaves_the_foreground_alone(caller):
    def shell(culvert):
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            time.sleep(10)
            os._exit(0)
        time.sleep(0.2)  # culvert has seen whose the terminal was
        os.tcsetpgrp(0, job)
        os.waitpid(culvert, 0)
        seen = os.tcgetpgrp(0) == job
        os.kill(job, signal.SIGKILL)
        return seen

    equal(on_shell_with_jobs(caller, "sleep 0.5", shell), "True")


@test
def a_shell_inside_gives_the_foreground_back(caller):
    def shell(culvert):
        os.setpgid(culvert, culvert)
        os.tcsetpgrp(0, culvert)
        status = os.waitstatus_to_exitcode(os.waitpid(culvert, 0)[1])
        return status, os.tcgetpgrp(0) == culvert

    # What a shell does first: a group of its own, in front.
    equal(on_shell_with_jobs(caller, "sleep 0.2; exec python3 -c 'import os, signal; "
                             "signal.signal(signal.SIGTTOU, signal.SIG_IGN); os.setpgid(0, 0); "
                             "os.tcsetpgrp(2, os.getpgrp())'", shell), "(0, True)")


@test
def stdin_and_stdout_are_pipes_through(caller):
    data = "".join(f"line {i}\n" for i in range(50000))
    status, out, err = caller.run("cat", input=data)
    equal((status, err), (0, ""))
    equal(out == data, True)


@test
def end_of_file_is_seen_when_the_command_closes_its_output(caller):
    process = caller.start("sh", "-c", "echo x; exec >&- 2>&-; read line", stdin=subprocess.PIPE)
    equal(process.stdout.read(), "x\n")
    equal(process.poll(), None)
    process.stdin.close()
    process.wait(10)


# ---- what the command is given ----


@test
def only_three_descriptors_are_open(caller):
    with open("/etc/passwd") as one, open("/dev/null", "w") as other:
        status, out, _ = caller.run("ls", "/proc/self/fd", pass_fds=[one.fileno(), other.fileno()])
    equal(out.split(), ["0", "1", "2", "3"])  # 3 is the directory that ls reads


@test
def closed_descriptors_are_not_culverts_own(caller):
    shell = f"exec {caller.place}/culvert run ls -l /proc/self/fd <&- 2>&-"
    out = subprocess.run(["sh", "-c", shell], stdout=subprocess.PIPE, text=True, timeout=10,
                         preexec_fn=caller.become, env={"PATH": PATH}).stdout
    for line in out.splitlines():
        if "->" in line:
            equal(re.search(r" (\d+) -> ", line).group(1) in "0123", True)
            equal(any(word in line for word in ("socket:", "anon_inode", "/net/tun")), False)


@test
def no_capability_is_held_or_can_be_had(caller):
    _, out, _ = caller.run("cat", "/proc/self/status")
    for line in out.splitlines():
        if line.startswith("Cap"):
            equal((line.split(":")[0], int(line.split()[1], 16)), (line.split(":")[0], 0))
    contains(out, "NoNewPrivs:\t1")
    equal(caller.run("ip", "link", "set", "eth0", "down")[0] != 0, True)
    equal(caller.run("umount", "/etc")[0] != 0, True)
    equal(caller.shell("kill -KILL 1; sleep 0.05")[0], 0)


WAYS_AROUND = """
import ctypes, errno, fcntl, platform, socket, sys, termios
libc = ctypes.CDLL(None, use_errno=True)
request_key = {"x86_64": 249}.get(platform.machine(), 218)

def result(call):
    ctypes.set_errno(0)
    try:
        return errno.errorcode.get(ctypes.get_errno(), "done") if call() == -1 else "done"
    except OSError as error:
        return errno.errorcode[error.errno]

print("vsock", result(lambda: socket.socket(40, socket.SOCK_STREAM)))
print("io_uring", result(lambda: libc.syscall(425, 1, ctypes.create_string_buffer(120))))
print("request_key", result(lambda: libc.syscall(request_key, b"user", b"x", b"x", 0)))
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        socket.socket(family, kind).close()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
if sys.stdin.isatty():
    for request in (termios.TIOCSTI, 0xdead00000000 | termios.TIOCSTI, 0x541c):
        print("ioctl", result(lambda: libc.ioctl(0, ctypes.c_ulong(request), b"x")))
    print("window", result(lambda: fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)) and 0))
"""


@test
def there_are_no_ways_around_the_network(caller):
    status, out, err = caller.run("python3", "-c", WAYS_AROUND)
    equal((status, err), (0, ""))
    equal(out.splitlines(), ["vsock EAFNOSUPPORT", "io_uring ENOSYS", "request_key ENOSYS"])


@test
def nothing_can_be_typed_at_the_callers_terminal(caller):
    with open(f"{caller.place}/ways.py", "w") as file:
        file.write(WAYS_AROUND)
    status, seen = on_terminal(caller, f"exec python3 {caller.place}/ways.py", b"")
    equal(status, 0)
    equal(seen.splitlines()[-4:], ["ioctl EPERM"] * 3 + ["window done"])


@test
def uid_gid_directory_and_environment_are_the_callers(caller):
    status, out, _ = caller.shell("id -u; id -g; pwd; echo $FOO; umask; ulimit -n",
                                  env={"PATH": PATH, "FOO": "bar baz"})
    limit = subprocess.run(["sh", "-c", "ulimit -n"], stdout=subprocess.PIPE, text=True).stdout
    equal(out.splitlines(), [str(caller.uid), str(caller.uid), caller.place + "/work", "bar baz",
                             "0022", limit.strip()])
    _, out, _ = caller.run("env")
    equal(sorted(out.split()), sorted(["PATH=" + PATH, "LC_ALL=C.UTF-8"]))
    equal(caller.run("pwd", cwd="/etc/alternatives")[1], "/etc/alternatives\n")


@test
def the_interface_is_up_before_the_command_starts(caller):
    status, out, _ = caller.run("ip", "-br", "address", options=["--ipv6=on", "--mtu", "9000"])
    contains(out, "10.0.2.100/24 fd63:756c:7665::64/64")
    contains(out, "127.0.0.1/8 ::1/128")
    addresses = caller.shell("grep eth0 /proc/net/if_inet6 | cut -c1-32",
                             options=["--ipv6=on"])[1]
    equal(sorted(addresses.split()),
          ["fd63756c766500000000000000000064", "fe80" + "0" * 26 + "64"])
    equal("tentative" in caller.run("ip", "address", options=["--ipv6=on"])[1], False)
    contains(caller.run("ip", "link", options=["--mtu", "9000", "--mac=02:00:00:00:00:64"])[1],
             "mtu 9000")
    equal("inet6 f" in caller.run("ip", "address", "show", "eth0", options=["--ipv6=off"])[1],
          False)
    contains(caller.run("ip", "-4", "address", options=["--guest-ipv4", "192.168.9.9/20"])[1],
             "192.168.9.9/20")


@test
def ping_and_low_ports_need_no_privilege(caller):
    equal(caller.run("ping", "-c1", "-W5", "127.0.0.1")[0], 0)
    equal(caller.run("ping", "-c1", "-W5", "10.0.2.2")[0], 0)
    equal(caller.run("python3", "-c", "import socket; socket.socket().bind(('', 80))")[0], 0)


@test
def the_process_list_is_the_commands_own(caller):
    status, out, _ = caller.shell("echo /proc/[0-9]*; cat /proc/1/comm; echo $$")
    equal(out.splitlines()[1:], ["culvert-init", "2"])
    equal(len(out.splitlines()[0].split()) <= 3, True)


@test
def a_container_that_masks_proc_is_good_enough(caller):
    call("mount", "--bind", "/proc/sys", "/proc/sys")
    call("mount", "-o", "remount,ro,bind", "/proc/sys")
    try:
        status, out, err = caller.run("ip", "-br", "address", options=["--ipv6=on"])
        equal(status, 0)
        contains(err, "note: /proc stays the host's")
        contains(out, "fd63:756c:7665::64/64")
        equal(caller.run("true", options=["--quiet"]), (0, "", ""))
    finally:
        call("umount", "/proc/sys")


@test
def culvert_runs_inside_culvert(caller):
    if caller.uid == 0:
        return  # uid 0 without CAP_SETFCAP may not map itself: user_namespaces(7)
    status, out, err = caller.run(caller.place + "/culvert", "run", "cat", "/etc/resolv.conf",
                                  options=["--ipv6=off"])
    equal((status, out.splitlines()[0], err), (0, "nameserver 10.0.2.3", ""))


@test
def the_host_name_is_the_callers_or_the_given_one(caller):
    equal(caller.run("hostname")[1].strip(), socket.gethostname())
    _, out, _ = caller.shell("hostname; grep box /etc/hosts",
                             options=["--hostname", "box", "--ipv6=off"])
    equal(out, "box\n10.0.2.100 box\n")
    equal(socket.gethostname() == "box", False)


# ---- names ----


def set_host_file(path, content, kind="file"):
    """Replaces a file of the (pretended) host by rename, as daemons do."""
    fresh = path + ".new"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    if kind == "missing":
        if os.path.lexists(path):
            os.unlink(path)
        return
    if kind == "file":
        with open(fresh, "w") as file:
            file.write(content)
        os.chmod(fresh, 0o644)
    else:
        os.symlink(content, fresh)
    os.rename(fresh, path)


def check_names(caller):
    status, out, err = caller.shell("cat /etc/resolv.conf; echo --; cat /etc/hosts; echo --; "
                                    "grep -c . /etc/passwd", options=["--ipv6=off"])
    equal((status, err), (0, ""))
    resolv_conf, hosts, count = out.split("--\n")
    equal(resolv_conf.splitlines()[0], "nameserver 10.0.2.3")
    equal("1.2.3.4" in resolv_conf, False)
    contains(hosts, "10.0.2.2 host.culvert.internal\n")
    contains(hosts, "127.0.0.1 localhost\n")
    equal("intranet" in hosts, False)
    equal(int(count) > 0, True)


HOST_STATES = {
    "files": ("file", "nameserver 1.2.3.4\n"),
    "missing": ("missing", ""),
    "dangling links": ("link", "/nonexistent/place/file"),
    "links into /run": ("link", "/run/systemd/resolve/stub-resolv.conf"),
}


@test
def resolv_conf_and_hosts_are_right_whatever_the_hosts_are(caller):
    with open("/run/systemd/resolve/stub-resolv.conf", "w") as file:
        file.write("nameserver 1.2.3.4\nsearch lan.example\n")
    for kind, content in HOST_STATES.values():
        set_host_file("/etc/resolv.conf", content, kind)
        set_host_file("/etc/hosts", "127.0.0.1 localhost\n10.9.8.7 intranet\n"
                      if kind == "file" else content, kind)
        check_names(caller)
    contains(caller.run("cat", "/etc/resolv.conf")[1], "search lan.example")


def replace_meanwhile(caller):
    set_host_file("/etc/resolv.conf", "nameserver 1.2.3.4\n")
    set_host_file("/etc/hosts", "127.0.0.1 localhost\n")
    process = caller.start("sh", "-c", "echo ready; read line; cat /etc/resolv.conf /etc/hosts",
                           options=["--ipv6=off"], stdin=subprocess.PIPE)
    process.stdout.readline()
    set_host_file("/etc/resolv.conf", "nameserver 5.6.7.8\n")
    set_host_file("/etc/hosts", "5.6.7.8 intruder\n")
    out = process.communicate("\n", timeout=10)[0]
    equal(out.splitlines()[0], "nameserver 10.0.2.3")
    contains(out, "host.culvert.internal")
    equal("5.6.7.8" in out, False)


@test
def they_stay_right_when_the_host_replaces_its_own(caller):
    replace_meanwhile(caller)


@test
def the_same_where_a_container_has_mounted_files_into_etc(caller):
    call("mount", "--bind", caller.place + "/culvert", "/etc/hostname")
    try:
        set_host_file("/etc/resolv.conf", "nameserver 1.2.3.4\n")
        check_names(caller)
        replace_meanwhile(caller)
        equal(caller.run("sh", "-c", "readlink /etc/mtab; ls -A /etc | wc -l")[1],
              f"{os.readlink('/etc/mtab')}\n{len(os.listdir('/etc'))}\n")
    finally:
        call("umount", "/etc/hostname")


@test
def what_is_written_to_etc_stays_inside(caller):
    equal(caller.shell("echo x >/etc/culvert-test && cat /etc/culvert-test")[0:2], (0, "x\n"))
    equal(os.path.exists("/etc/culvert-test"), False)


@test
def sockets_of_the_hosts_resolver_are_masked(caller):
    equal(caller.run("ls", "-A", "/run/systemd/resolve")[0:2], (0, ""))
    equal(os.listdir("/run/systemd/resolve") != [], True)


# ---- the end ----


@test
def nothing_outlives_the_command(caller):
    token = f"1000.{os.getpid()}{caller.uid}"
    equal(caller.shell(f"setsid sleep {token} & sleep {token} & exit 0")[0], 0)
    equal(processes_with(token), [])


@test
def nothing_outlives_a_killed_culvert(caller):
    token = f"2000.{os.getpid()}{caller.uid}"
    process = caller.start("sh", "-c", f"setsid sleep {token} & echo ready; sleep {token}")
    process.stdout.readline()
    wait_until(lambda: len(processes_with(token)) >= 4, "culvert, its init, the shell, a sleep")
    process.kill()
    process.wait()
    wait_until(lambda: processes_with(token) == [], "everything ends")
    process.communicate()


@test
def the_last_bytes_written_before_the_exit_arrive(caller):
    server = socket.create_server(("127.0.0.1", 0))
    received = []

    def serve():
        connection, _ = server.accept()
        time.sleep(0.2)  # the command is long gone when the reading begins
        with connection:
            while chunk := connection.recv(65536):
                received.append(len(chunk))

    thread = threading.Thread(target=serve)
    thread.start()
    script = ("import socket; s = socket.create_connection(('10.0.2.2', %d)); "
              "s.setblocking(False); print(s.send(bytes(1 << 20)))" % server.getsockname()[1])
    status, out, err = caller.run("python3", "-c", script, options=["--rule", "allow to host"])
    equal((status, err), (0, ""))
    thread.join(10)
    equal(sum(received), int(out))


@test
def a_datagram_sent_as_the_last_act_arrives(caller):
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(5)
    script = ("import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'bye', "
              "('10.0.2.2', %d))" % server.getsockname()[1])
    equal(caller.run("python3", "-c", script, options=["--rule", "allow to host"])[0], 0)
    equal(server.recv(100), b"bye")


@test
def verbose_says_what_was_set_up_and_nothing_on_stdout(caller):
    status, out, err = caller.run("ping", "-qc1", "10.0.2.2", options=["-v"],
                                  stdout=subprocess.DEVNULL)
    equal(status, 0)
    contains(err, "guest 10.0.2.100/24")
    contains(err, "netdev_frames_in")
    equal(all(line.startswith("culvert: ") for line in err.splitlines()), True)
    equal(caller.run("true", options=["-v"])[1], "")
    equal(caller.run("true")[1:], ("", ""))


@test
def both_ways_to_drive_the_device_work(caller):
    for how in ("direct", "thread"):
        equal(caller.run("ping", "-qc1", "-W5", "10.0.2.2", options=["--net-worker", how])[0], 0)


def main():
    if os.geteuid() != 0:
        print("skip run_command needs root, to try it as somebody else too")
        return
    enter_mount_namespace()
    place = pretend_machine()
    failed = False
    for caller in (Caller("root", 0, place), Caller("user", NOBODY, place)):
        for function in TESTS:
            name = f"{function.__name__}_as_{caller.name}"
            try:
                function(caller)
                print(f"ok {name}", flush=True)
            except Exception as error:  # a test that breaks has failed
                failed = True
                print(f"not ok {name}", flush=True)
                print(f"# {type(error).__name__}: {error}", flush=True)
    call("umount", "-l", place)
    os.rmdir(place)
    sys.exit(failed)


main()
