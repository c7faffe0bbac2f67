# SPDX-License-Identifier: Apache-2.0
"""Virtual machines for guest tests: a Debian cloud kernel and busybox in QEMU, without KVM.

    with VM(["-netdev", "stream,id=net,server=off,addr.type=unix,addr.path=" + path]) as vm:
        vm.configure()                       # DHCP and SLAAC
        vm.call("ping -c 1 10.0.2.2")

The machine has one virtio-net-pci device on the netdev with id=net. Commands go to a shell on its
serial port, one at a time, and come back with their status and output. It boots in about 2 s.

CARRY names further programs of the host's (static ones) that are put into the guest's /bin.

unavailable() says why there can be no machine here, or None. The kernel lies where
packaging/install-deps.sh puts it (or CULVERT_GUEST_KERNEL says: a directory that `dpkg -x
linux-image-*-cloud-amd64.deb` filled), or is the one that is installed.
"""

import glob
import gzip
import os
import re
import select
import shutil
import subprocess
import tempfile
import time

from lab import SLOWNESS, Skip

QEMU = "qemu-system-x86_64"
KERNELS = [os.environ.get("CULVERT_GUEST_KERNEL", ""), "/var/cache/culvert/guest-kernel", "/"]
CARRY = {}  # name in the guest → path here; before the first machine
BOOT_SECONDS = 60  # 2 on a quiet machine
COMMAND_SECONDS = 30 * SLOWNESS

# In the order in which they need each other.
MODULES = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci",
           "failover", "net_failover", "virtio_net"]

INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
echo 3 > /proc/sys/kernel/printk
for module in MODULES; do insmod /modules/$module.ko || echo "insmod $module failed"; done
ip link set lo up
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty -echo
echo guest-is-ready
while read -r line; do
    eval "$line" < /dev/null
    echo "guest-is-done $?"
done
poweroff -f
"""

UDHCPC = r"""#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip link set dev $interface mtu ${mtu:-1500}
ip addr replace $ip/$mask dev $interface
ip route replace default via $router dev $interface
for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
"""


def _kernel():
    """(image, directory of its modules) or None."""
    for root in filter(None, KERNELS):
        for image in sorted(glob.glob(root + "/boot/vmlinuz-*-cloud-amd64"), reverse=True):
            version = os.path.basename(image)[len("vmlinuz-"):]
            modules = f"{root}/lib/modules/{version}/kernel"
            if os.path.isdir(modules):
                return image, modules
    return None


def unavailable():
    """Why there can be no virtual machine here; None: there can."""
    if not shutil.which(QEMU):
        return f"{QEMU} is not installed (packaging/install-deps.sh test)"
    if not shutil.which("busybox"):
        return "busybox-static is not installed (packaging/install-deps.sh test)"
    if not _kernel():
        return "there is no Debian cloud kernel (packaging/install-deps.sh test, or bench, fetches one)"
    return None


def need():
    """Raises Skip where there can be no virtual machine."""
    reason = unavailable()
    if reason:
        raise Skip(reason)


# ---- the initial file system ----


def _cpio_entry(name, mode, data=b""):
    """One file of the "newc" format."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _modules(directory):
    for name in MODULES:
        found = glob.glob(f"{directory}/**/{name}.ko*", recursive=True)
        if not found:
            continue  # built in
        path = found[0]
        if path.endswith(".xz"):
            data = subprocess.run(["xz", "-dc", path], stdout=subprocess.PIPE, check=True).stdout
        else:
            with open(path, "rb") as file:
                data = file.read()
        yield name, data


def _client():
    """vm_client.c, static."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vm_client.c")
    with tempfile.NamedTemporaryFile(prefix="culvert-vm-client-") as out:
        subprocess.run(["cc", "-static", "-O2", "-o", out.name, source], check=True)
        with open(out.name, "rb") as file:
            return file.read()


def _make_initrd(path, modules):
    present = list(_modules(modules))
    init = INIT.replace("MODULES", " ".join(name for name, _ in present)).encode()
    with open(shutil.which("busybox"), "rb") as file:
        busybox = file.read()
    with gzip.open(path, "wb", compresslevel=1) as out:
        for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "modules"):
            out.write(_cpio_entry(name, 0o040755))
        out.write(_cpio_entry("bin/busybox", 0o100755, busybox))
        out.write(_cpio_entry("init", 0o100755, init))
        out.write(_cpio_entry("bin/configure", 0o100755, UDHCPC.encode()))
        out.write(_cpio_entry("bin/vm_client", 0o100755, _client()))
        for name, carried in CARRY.items():
            with open(carried, "rb") as file:
                out.write(_cpio_entry(f"bin/{name}", 0o100755, file.read()))
        for name, data in present:
            out.write(_cpio_entry(f"modules/{name}.ko", 0o100644, data))
        out.write(_cpio_entry("TRAILER!!!", 0))


# ---- the machine ----


class VM:
    """`arguments` make a netdev named "net". Boots at once; ends with `with`, or close()."""

    _initrd = None

    def __init__(self, arguments, device="romfile=,vectors=0,disable-legacy=on", memory=192,
                 machine="pc", network=None, pass_fds=(), qemu=()):
        need()
        self.image, modules = _kernel()
        if not VM._initrd:
            VM._initrd = tempfile.NamedTemporaryFile(prefix="culvert-initrd-")
            _make_initrd(VM._initrd.name, modules)
        self.words = [
            QEMU, "-accel", "tcg", "-machine", machine, "-cpu", "max", "-m", str(memory),
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
            "-kernel", self.image, "-initrd", VM._initrd.name,
            "-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on tsc=unstable mitigations=off",
            *arguments, "-device", "virtio-net-pci,netdev=net," + device, *qemu]
        self.network, self.pass_fds = network, pass_fds
        self.process = None
        try:
            self.boot_seconds = self._start()
        except BaseException:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def _start(self):
        self.begun = begun = time.monotonic()
        self.errors = tempfile.TemporaryFile()
        self.output = b""

        def launch():
            self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=self.errors,
                                            pass_fds=self.pass_fds)
        if self.network:
            with self.network:
                launch()
        else:
            launch()
        self._await_boot()
        return time.monotonic() - begun

    def _await_boot(self):
        self._read_until(rb"guest-is-ready\r?\n", BOOT_SECONDS, "the boot")

    def _read_until(self, pattern, seconds, what):
        """The output before `pattern`, and the match."""
        end = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.output)
            if match:
                before, self.output = self.output[:match.start()], self.output[match.end():]
                return before.decode(errors="replace").replace("\r", ""), match
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise AssertionError(f"{what} took more than {seconds} s: "
                                     f"{self.output[-2000:].decode(errors='replace')}")
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                self.errors.seek(0)
                raise AssertionError(f"QEMU ended during {what}: "
                                     f"{self.errors.read().decode(errors='replace')[-2000:]}"
                                     f"{self.output[-2000:].decode(errors='replace')}")
            self.output += chunk

    # -- commands inside --

    def send(self, command):
        """Begins a command; finish() waits for it."""
        assert "\n" not in command
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def finish(self, timeout=COMMAND_SECONDS, what="the command"):
        out, match = self._read_until(rb"guest-is-done (\d+)\r?\n", timeout, what)
        return int(match[1]), out

    def run(self, command, timeout=COMMAND_SECONDS):
        """(status, output) of a line of shell."""
        self.send(command)
        return self.finish(timeout, command)

    def call(self, command, timeout=COMMAND_SECONDS):
        """Output of a line of shell that must succeed."""
        status, out = self.run(command, timeout)
        if status != 0:
            raise AssertionError(f"in the guest: {command}: status {status}: {out.strip()}")
        return out

    def configure(self):
        """IPv4 by DHCP and IPv6 by SLAAC, as an unmodified image does it. Seconds it took."""
        begun = time.monotonic()
        self.call("ip link set eth0 up")
        self.call("udhcpc -s /bin/configure -i eth0 -n -q -t 20 -T 1")
        self.call("for i in $(seq 100); do ip -6 addr show dev eth0 scope global | grep inet6 | "
                  "grep -vq tentative && ip -6 route | grep -q ^default && break; sleep 0.1; done; "
                  "[ $i -lt 100 ]")
        return time.monotonic() - begun

    def features(self):
        """The bits of virtio that were negotiated."""
        text = self.call("cat /sys/bus/virtio/devices/virtio0/features").strip()
        return {bit for bit, set_ in enumerate(text) if set_ == "1"}

    # -- life --

    def reboot(self):
        """The guest starts again; QEMU goes on."""
        self.send("reboot -f")
        self._await_boot()

    def restart(self):
        """QEMU is killed and started again."""
        self.kill()
        return self._start()

    def kill(self):
        if not self.process:
            return
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()
        self.process = None
