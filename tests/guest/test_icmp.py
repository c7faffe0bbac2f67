#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""ping and traceroute, as root and as an ordinary user, through real routers."""

import os
import re
import shutil
import subprocess

from lab import (CULVERT, DEADLINE, GATEWAY4, GATEWAY6, INTERNET4, INTERNET6, Skip, check,
                 counters_in, equal, for_each, main, test)
from routers import FAR4, FAR6, FIRST4, FIRST6, SECOND4, SECOND6, Path

NOBODY = 65534
_cache = {}


def path_of(lab):
    if "path" not in _cache:
        _cache["path"] = Path(lab)
    return _cache["path"]


def place_for_users():
    """A directory with a culvert and a /dev/net/tun that an ordinary user may use."""
    if "place" not in _cache:
        place = "/mnt"  # of this mount namespace, so that nothing is left behind
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place], check=True)
        subprocess.run(["mknod", "-m", "666", place + "/tun", "c", "10", "200"], check=True)
        subprocess.run(["mount", "--bind", place + "/tun", "/dev/net/tun"], check=True)
        shutil.copy(CULVERT, place + "/culvert")
        os.chmod(place + "/culvert", 0o755)
        _cache["place"] = place
    return _cache["place"]


def become_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def run(lab, caller, *words, rules=("allow any to host",), options=()):
    """(status, stdout, stderr) of a command inside, culvert being run by root or by a user."""
    culvert, extra = CULVERT, {}
    if caller == "user":
        culvert = place_for_users() + "/culvert"
        extra = {"preexec_fn": become_nobody, "cwd": "/"}
    arguments = [word for rule in rules for word in ("--rule", rule)]
    return lab.host.run(culvert, "run", "--ipv6=on", *arguments, *options, "--", *words,
                        timeout=3 * DEADLINE, **extra)


def allow_ping_sockets(lab, low=0, high=2147483647):
    lab.host.sysctl("net.ipv4.ping_group_range", f"{low} {high}")


def answered(outcome, count):
    status, out, err = outcome
    check(status == 0 and f" {count} received" in out, f"status {status}: {out} {err}")
    check("wrong data" not in out and "DUP" not in out and "BAD" not in out, out)


WHERE = [GATEWAY4, GATEWAY6, INTERNET4, INTERNET6]


def pings_of_all_sizes(target):
    return " && ".join(f"ping -n -c 2 -i 0.01 -W 3 -s {size} {target}"
                       for size in (0, 16, 56, 1452, 1453, 1472, 1473, 4000, 8000))


def check_pings(outcome):
    status, out, err = outcome
    check(status == 0, f"status {status}: {out} {err}")
    equal(out.count(" 2 received"), 9, out)


@for_each(target=WHERE)
def root_pings_with_every_size(lab, target):
    check_pings(run(lab, "root", "sh", "-c", pings_of_all_sizes(target)))


@for_each(target=WHERE)
def a_user_pings_with_every_size(lab, target):
    allow_ping_sockets(lab)
    check_pings(run(lab, "user", "sh", "-c", pings_of_all_sizes(target)))


@for_each(target=WHERE)
def root_pings_with_ping_sockets_too(lab, target):
    allow_ping_sockets(lab)
    check_pings(run(lab, "root", "sh", "-c", pings_of_all_sizes(target)))


@for_each(target=[INTERNET4, INTERNET6])
def a_user_whom_the_host_lets_no_ping_is_refused_and_told(lab, target):
    allow_ping_sockets(lab, 1, 0)
    status, out, err = run(lab, "user", "ping", "-n", "-c", "1", "-W", "3", target,
                           options=["-v"])
    equal(status, 1)
    check(re.search("filtered|prohibited", out), f"what ping says: {out}")
    check(counters_in(err).get("relay_echo_unavailable", 0) >= 1, f"counted: {err}")
    check("ping_group_range" in err, f"the note at start: {err}")


@for_each(target=[GATEWAY4, GATEWAY6, "10.0.2.3", "fd63:756c:7665::3"])
def culverts_own_addresses_answer_whatever_the_rules(lab, target):
    answered(run(lab, "root", "ping", "-n", "-c", "1", "-W", "3", target,
                 rules=["deny icmp to any"]), 1)


@for_each(target=[INTERNET4, INTERNET6])
def two_pings_at_a_time_do_not_mix(lab, target):
    with lab.guest() as guest, guest.net:
        both = [subprocess.Popen(["ping", "-n", "-c", "20", "-i", "0.01", "-W", "3", "-p", pad,
                                  target], stdout=subprocess.PIPE, text=True)
                for pad in ("11", "ee", "55")]
        for process in both:
            out, _ = process.communicate(timeout=DEADLINE)
            answered((process.returncode, out, ""), 20)


@for_each(target=[INTERNET4, INTERNET6])
def a_denied_ping_is_told_so_and_a_dropped_one_is_not(lab, target):
    status, out, _ = run(lab, "root", "ping", "-n", "-c", "1", "-W", "3", target,
                         rules=[f"deny icmp to {target}"])
    check(status == 1 and re.search("filtered|prohibited", out), out)
    status, out, err = run(lab, "root", "ping", "-n", "-c", "1", "-W", "0.2", target,
                           rules=[f"drop icmp to {target}"], options=["-v"])
    check(status == 1 and "From" not in out, out)
    equal(counters_in(err)["policy_dropped_rule"], 1)


@for_each(target=["45.33.7.7", "2600:3c00::7"])
def a_ping_to_nowhere_is_unreachable(lab, target):
    family = ["-6"] if ":" in target else []
    lab.host.call("ip", *family, "route", "replace", "unreachable", target)
    status, out, _ = run(lab, "root", "ping", "-n", "-c", "1", "-W", "3", target)
    lab.host.call("ip", *family, "route", "del", "unreachable", target)
    check(status == 1 and re.search("Host Unreachable|Address unreachable", out), out)


# ---- routers ----


@for_each(far=[FAR4, FAR6])
def a_ping_whose_hops_end_hears_from_the_router_where_they_do(lab, far):
    path_of(lab)
    v6 = far == FAR6
    hops = [GATEWAY6, FIRST6, SECOND6] if v6 else [GATEWAY4, FIRST4, SECOND4]
    for caller in ("root", "user"):
        allow_ping_sockets(lab)
        for ttl, router in enumerate(hops, 1):
            status, out, _ = run(lab, caller, "ping", "-n", "-c", "1", "-W", "3", "-t", str(ttl),
                                 far)
            check(status == 1 and re.search("Time to live exceeded|Hop limit", out), out)
            equal(re.search(r"From (\S+) ", out)[1], router)
        answered(run(lab, caller, "ping", "-n", "-c", "1", "-W", "3", "-t", "4", far), 1)


def hops_in(text):
    return re.findall(r"^ *\d+ +(\S+)", text, re.M)


@for_each(how=["-U", "-I", "--mtu"])
def traceroute_shows_every_hop(lab, how):
    path_of(lab)
    for far, hops in ((FAR4, [GATEWAY4, FIRST4, SECOND4, FAR4]),
                      (FAR6, [GATEWAY6, FIRST6, SECOND6, FAR6])):
        with lab.guest() as guest:
            status, out, err = guest.run("traceroute", how, "-n", "-q", "2",
                                         "-w", "3", far)
            check(status == 0, f"{out} {err}")
            equal(hops_in(out), hops, out)
            equal(out.count(" ms"), 8, out)


@for_each(caller=["root", "user"])
def traceroute_of_the_command_itself_shows_every_hop(lab, caller):
    """Without a capability: plain UDP and error queues."""
    path_of(lab)
    status, out, err = run(lab, caller, "traceroute", "-n", "-q", "1", "-w", "3", FAR4)
    check(status == 0, f"{out} {err}")
    equal(hops_in(out), [GATEWAY4, FIRST4, SECOND4, FAR4], out)


@test
def tracepath_finds_the_narrow_link(lab):
    if not shutil.which("tracepath"):
        raise Skip("tracepath is not installed")
    path = path_of(lab)
    path.narrow(1300)
    try:
        with lab.guest() as guest:
            for far in (FAR4, FAR6):
                status, out, err = guest.run("tracepath", "-n", "-m", "8", far,
                                             timeout=3 * DEADLINE)
                check(status == 0 and "pmtu 1300" in out and "reached" in out, f"{out} {err}")
    finally:
        path.narrow(1500)


@for_each(target=["208.80.154.1", "2620:0:861::1"])
def an_address_that_a_router_has_no_way_to_is_unreachable(lab, target):
    path = path_of(lab)
    family = ["-6"] if ":" in target else []
    path.second.call("ip", *family, "route", "replace", "unreachable", target)
    lab.internet.call("ip", *family, "route", "replace", target, "via",
                      SECOND6 if family else SECOND4)
    status, out, _ = run(lab, "root", "ping", "-n", "-c", "1", "-W", "3", target)
    check(status == 1 and re.search("Host Unreachable|No route", out), out)
    equal(re.search(r"From (\S+) ", out)[1], SECOND6 if family else SECOND4)


@test
def pings_cost_a_descriptor_each_at_most(lab):
    with lab.guest() as guest:
        before = guest.descriptors()
        for _ in range(20):
            answered(guest.run("ping", "-n", "-c", "3", "-i", "0.01", "-W", "3", INTERNET4), 3)
        check(guest.descriptors() <= before + 20, "one a ping")


main()
