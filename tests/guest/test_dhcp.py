#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""A guest that configures itself, as an unmodified image does: DHCPv4 by dhclient and udhcpc, DHCPv6
by dhclient, router advertisements by the kernel and as rdisc6 sees them.

What `run` has set on eth0 is taken away first. The clients' scripts only write down what they were
given; the test applies it, and then a connection must work."""

import os
import re
import shutil
import socket
import tempfile

from lab import (GATEWAY4, GATEWAY6, GUEST4, GUEST6, INTERNET4, INTERNET6, SLOWNESS, Skip, check,
                 equal, family_of, main, test, wait_until)

DNS4, DNS6 = "10.0.2.3", "fd63:756c:7665::3"
PREFIX6 = "fd63:756c:7665:"


class Client:
    """Directory and script of a DHCP client: `given` is its environment, state by state."""

    def __init__(self, program):
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")
        self.place = tempfile.mkdtemp(prefix="culvert-test-")
        os.chmod(self.place, 0o755)
        self.script = self.write("script", "#!/bin/sh\n"
                                 f'env > {self.place}/state.${{reason:-$1}}\n', 0o755)

    def write(self, name, text, mode=0o644):
        path = f"{self.place}/{name}"
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def given(self, state):
        path = f"{self.place}/state.{state}"
        check(os.path.exists(path), f"no {state}: {os.listdir(self.place)}")
        with open(path) as file:
            return dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.place)


def bare(guest):
    """eth0 as a fresh guest has it: up, without addresses and routes."""
    guest.net.ip("addr flush dev eth0 scope global", "route flush dev eth0",
                 "-6 addr flush dev eth0 scope global", "-6 route flush dev eth0",
                 "-6 route add fe80::/64 dev eth0")


def echoes(lab, guest, address):
    """A TCP connection and a datagram reach the internet and come back."""
    family = family_of(address)
    with lab.internet.listen(address) as listener:
        with guest.connect(address, listener.getsockname()[1]) as client:
            server, _ = listener.accept()
            with server:
                client.send(b"hello")
                equal(server.recv(10), b"hello")
    with lab.internet.socket(family, socket.SOCK_DGRAM) as peer:
        peer.bind((address, 0))
        client = guest.socket(family, socket.SOCK_DGRAM)
        client.connect((address, peer.getsockname()[1]))
        client.send(b"hello")
        data, back = peer.recvfrom(10)
        peer.sendto(data, back)
        equal(client.recv(10), b"hello")


def apply4(guest, address, router):
    guest.net.ip(f"addr add {address}/24 dev eth0", f"route add default via {router}")


# ---- DHCPv4 ----


def dhclient(guest, client, *words):
    configuration = client.write("conf", "request subnet-mask, routers, domain-name-servers, "
                                 "interface-mtu, broadcast-address, host-name;\n"
                                 "timeout 20;\ninitial-interval 1;\n")
    status, out, err = guest.run("dhclient", "-1", "-v", "-cf", configuration, "-sf",
                                 client.script, "-lf", client.place + "/lease", "-pf",
                                 client.place + "/pid", *words, "eth0", timeout=30 * SLOWNESS)
    check(status == 0, f"dhclient: {status} {out} {err}")
    await_background(client)


def await_background(client):
    """It goes on in the background, and writes its number down there."""
    wait_until(lambda: os.path.exists(client.place + "/pid") and
               os.path.getsize(client.place + "/pid") > 0, "dhclient's pid file")


def end_dhclient(guest, client, *words):
    """-r: gives the lease back and ends the one in the background."""
    guest.run("dhclient", *words, "-r", "-sf", client.script, "-lf", client.place + "/lease", "-pf",
              client.place + "/pid", "eth0")


@test
def dhclient_is_given_everything(lab):
    with Client("dhclient") as client, lab.guest("--mtu", "1400", "--hostname", "box") as guest:
        bare(guest)
        dhclient(guest, client, "-4")
        try:
            given = client.given("BOUND")
            equal({name: given.get("new_" + name) for name in
                   ("ip_address", "subnet_mask", "routers", "domain_name_servers", "interface_mtu",
                    "host_name", "dhcp_server_identifier")},
                  {"ip_address": GUEST4, "subnet_mask": "255.255.255.0", "routers": GATEWAY4,
                   "domain_name_servers": DNS4, "interface_mtu": "1400", "host_name": "box",
                   "dhcp_server_identifier": GATEWAY4})
            check(int(given["new_dhcp_lease_time"]) >= 3600, "a lease of at least an hour")
            apply4(guest, given["new_ip_address"], given["new_routers"])
            echoes(lab, guest, INTERNET4)
        finally:
            end_dhclient(guest, client, "-4")
        check(guest.counters()["dhcp_acks"] >= 1, "the lease is counted")


@test
def dhclient_has_its_old_lease_confirmed(lab):
    """A reboot: REQUEST without DISCOVER."""
    with Client("dhclient") as client, lab.guest() as guest:
        bare(guest)
        dhclient(guest, client, "-4")
        with open(client.place + "/pid") as file:
            os.kill(int(file.read()), 9)
        dhclient(guest, client, "-4")
        try:
            equal(client.given("REBOOT")["new_ip_address"], GUEST4)
        finally:
            end_dhclient(guest, client, "-4")


@test
def dhclient_with_a_lease_from_elsewhere_is_refused_and_given_the_right_one(lab):
    with Client("dhclient") as client, lab.guest() as guest:
        bare(guest)
        client.write("lease", 'lease {\n  interface "eth0";\n  fixed-address 192.168.7.7;\n'
                     "  option subnet-mask 255.255.255.0;\n  option dhcp-lease-time 86400;\n"
                     "  option dhcp-message-type 5;\n"
                     "  option dhcp-server-identifier 192.168.7.1;\n"
                     "  renew 5 2037/01/01 00:00:00;\n  rebind 5 2037/01/02 00:00:00;\n"
                     "  expire 5 2037/01/03 00:00:00;\n}\n")
        dhclient(guest, client, "-4")
        try:
            equal(client.given("BOUND")["new_ip_address"], GUEST4)
            check(guest.counters().get("dhcp_naks", 0) >= 1, "a NAK")
        finally:
            end_dhclient(guest, client, "-4")


@test
def udhcpc_is_given_everything(lab):
    with Client("udhcpc") as client, lab.guest("--mtu", "9000") as guest:
        bare(guest)
        status, out, err = guest.run("udhcpc", "-f", "-q", "-n", "-t", "5", "-T", "1", "-i", "eth0",
                                     "-O", "mtu", "-s", client.script, timeout=30 * SLOWNESS)
        check(status == 0, f"udhcpc: {status} {out} {err}")
        given = client.given("bound")
        equal({name: given.get(name) for name in
               ("ip", "subnet", "router", "dns", "mtu", "serverid")},
              {"ip": GUEST4, "subnet": "255.255.255.0", "router": GATEWAY4, "dns": DNS4,
               "mtu": "9000", "serverid": GATEWAY4})
        apply4(guest, given["ip"], given["router"])
        echoes(lab, guest, INTERNET4)


@test
def udhcpc_is_given_the_addresses_of_options(lab):
    options = ["--guest-ipv4", "192.168.77.20/26", "--gateway-ipv4", "192.168.77.1"]
    with Client("udhcpc") as client, lab.guest(*options) as guest:
        bare(guest)
        status, out, err = guest.run("udhcpc", "-f", "-q", "-n", "-t", "5", "-T", "1", "-i", "eth0",
                                     "-s", client.script, timeout=30 * SLOWNESS)
        check(status == 0, f"udhcpc: {status} {out} {err}")
        given = client.given("bound")
        equal((given["ip"], given["subnet"], given["router"], given["dns"]),
              ("192.168.77.20", "255.255.255.192", "192.168.77.1", "192.168.77.3"))


@test
def busybox_finds_the_address_free(lab):
    """Its ARP probe of the address it is offered must not be answered."""
    with Client("udhcpc") as client, lab.guest() as guest:
        bare(guest)
        status, out, err = guest.run("udhcpc", "-f", "-q", "-n", "-t", "5", "-T", "1", "-a",
                                     "-i", "eth0", "-s", client.script, timeout=30 * SLOWNESS)
        check(status == 0, f"udhcpc: {status} {out} {err}")
        equal(client.given("bound")["ip"], GUEST4)
        equal(guest.counters().get("dhcp_declined", 0), 0)


# ---- DHCPv6 ----


@test
def dhclient_is_given_its_ipv6_address(lab):
    with Client("dhclient") as client, lab.guest() as guest:
        bare(guest)
        configuration = client.write("conf", "also request dhcp6.name-servers;\n")
        status, out, err = guest.run("dhclient", "-6", "-1", "-v", "-cf", configuration, "-sf",
                                     client.script, "-lf", client.place + "/lease", "-pf",
                                     client.place + "/pid", "eth0", timeout=30 * SLOWNESS)
        check(status == 0, f"dhclient: {status} {out} {err}")
        await_background(client)
        try:
            given = client.given("BOUND6")
            equal(given["new_ip6_address"], GUEST6)
            equal(given["new_dhcp6_name_servers"], DNS6)
            check(int(given["new_max_life"]) >= 3600, "lifetimes")
            guest.net.ip(f"-6 addr add {given['new_ip6_address']}/64 dev eth0 nodad",
                         "-6 route add default via fe80::2 dev eth0")
            echoes(lab, guest, INTERNET6)
        finally:
            end_dhclient(guest, client, "-6")


@test
def dhclient_is_given_the_rest_without_an_address(lab):
    with Client("dhclient") as client, lab.guest() as guest:
        bare(guest)
        configuration = client.write("conf", "also request dhcp6.name-servers;\n")
        status, out, err = guest.run("dhclient", "-6", "-S", "-1", "-v", "-cf", configuration,
                                     "-sf", client.script, "-lf", client.place + "/lease", "-pf",
                                     client.place + "/pid", "eth0", timeout=30 * SLOWNESS)
        check(status == 0, f"dhclient: {status} {out} {err}")
        given = client.given("RENEW6" if os.path.exists(client.place + "/state.RENEW6")
                             else "BOUND6")
        equal(given["new_dhcp6_name_servers"], DNS6)
        guest.run("dhclient", "-6", "-x", "-sf", client.script, "-lf", client.place + "/lease",
                  "-pf", client.place + "/pid", "eth0")


# ---- router advertisements ----


@test
def the_kernel_configures_itself_by_router_advertisement(lab):
    with lab.guest("--mtu", "1420") as guest:
        guest.net.ip("link set eth0 down", "link set eth0 mtu 1500")
        guest.net.sysctl("net.ipv6.conf.eth0.addr_gen_mode", 0)
        guest.net.sysctl("net.ipv6.conf.eth0.accept_ra", 1)
        guest.net.sysctl("net.ipv6.conf.eth0.accept_dad", 0)
        guest.net.sysctl("net.ipv6.conf.eth0.router_solicitation_delay", 0)
        guest.net.ip("link set eth0 up")
        shown = wait_until(lambda: re.search(rf"inet6 ({PREFIX6}\S+)/64 scope global.*dynamic",
                                             guest.net.call("ip", "addr", "show", "eth0")),
                           "an address of the prefix")
        check(shown[1] != GUEST6, "an address of its own")
        route = guest.net.call("ip", "-6", "route", "show", "default")
        check("via fe80::2" in route and "proto ra" in route, route)
        check("mtu 1420" in guest.net.call("ip", "-6", "route", "show", "default") or
              open_sysctl(guest, "net/ipv6/conf/eth0/mtu") == "1420", "the MTU")
        echoes(lab, guest, INTERNET6)
        status, out, _ = guest.run("ping", "-n", "-c", "1", "-W", "3", GATEWAY6)
        check(status == 0, out)


def open_sysctl(guest, path):
    with guest.net, open("/proc/sys/" + path) as file:
        return file.read().strip()


@test
def a_guest_that_probes_its_address_finds_it_free(lab):
    """Duplicate address detection: nobody answers for the guest's own address."""
    with lab.guest() as guest:
        bare(guest)
        guest.net.sysctl("net.ipv6.conf.eth0.accept_dad", 1)
        guest.net.ip(f"-6 addr add {GUEST6}/64 dev eth0", "-6 addr add fe80::1234/64 dev eth0",
                     "-6 route add default via fe80::2 dev eth0")
        shown = wait_until(lambda: (lambda text: "tentative" not in text and text)(
            guest.net.call("ip", "-6", "addr", "show", "eth0")), "the probe ends")
        check("dadfailed" not in shown and GUEST6 in shown, shown)
        echoes(lab, guest, INTERNET6)


@test
def an_address_of_culverts_own_is_found_taken(lab):
    with lab.guest() as guest:
        guest.net.sysctl("net.ipv6.conf.eth0.accept_dad", 1)
        guest.net.ip(f"-6 addr add {GATEWAY6}/64 dev eth0")
        wait_until(lambda: "dadfailed" in guest.net.call("ip", "-6", "addr", "show", "eth0"),
                   "the duplicate is noticed")


@test
def rdisc6_shows_what_is_advertised(lab):
    if not shutil.which("rdisc6"):
        raise Skip("rdisc6 is not installed")
    with lab.guest("--mtu", "1400") as guest:
        status, out, err = guest.run("rdisc6", "-1", "-w", "3000", "eth0")
        check(status == 0, f"rdisc6: {status} {out} {err}")
        for expected in (r"Prefix\s*: fd63:756c:7665::/64", r"MTU\s*:\s*1400 bytes",
                         rf"Recursive DNS server\s*: {DNS6}", r"from fe80::2",
                         r"Stateful address conf\.\s*:\s*Yes",
                         r"Source link-layer address: 02:63:75:6C:76:02"):
            check(re.search(expected, out), f"{expected} in {out}")


@test
def ndisc6_finds_only_the_addresses_of_culvert(lab):
    if not shutil.which("ndisc6"):
        raise Skip("ndisc6 is not installed")
    with lab.guest() as guest:
        for address in (GATEWAY6, DNS6, "fe80::2"):
            status, out, _ = guest.run("ndisc6", "-1", "-w", "3000", address, "eth0")
            check(status == 0 and "02:63:75:6C:76:02" in out, out)
        status, out, _ = guest.run("ndisc6", "-1", "-r", "1", "-w", "200",
                                   "fd63:756c:7665::77", "eth0")
        check(status != 0, out)


main()
