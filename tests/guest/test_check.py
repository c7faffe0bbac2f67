#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`culvert check`, and --policy given to `run`: what a policy comes to, and what is wrong with it."""

import errno
import json
import os
import re
import subprocess
import tempfile

from lab import CULVERT, DEADLINE, INTERNET4, check, equal, fails_with, main, test

PLACE = tempfile.mkdtemp(prefix="culvert-check-")

ALLOW_LIST = {
    "version": 1, "profile": "none",
    "sets": {"code": ["github.com", "*.githubusercontent.com"]},
    "rules": [
        {"rule": "deny tcp to raw.githubusercontent.com", "id": "no-raw"},
        "allow tcp to @code port 443",
        "allow tcp to git.corp.example port 22 in 10.0.0.0/8",
    ],
}


def write(content, name="policy.json"):
    path = f"{PLACE}/{name}"
    with open(path, "w") as file:
        file.write(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def culvert(*words):
    done = subprocess.run([CULVERT, *words], stdin=subprocess.DEVNULL, text=True, timeout=DEADLINE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.returncode, done.stdout, done.stderr


def explained(policy, flow):
    """The lines about one flow as a dictionary: state -> verdict."""
    status, out, err = culvert("check", "--explain", flow, write(policy))
    equal((status, err), (0, ""))
    lines = out[out.index("\n" + flow + "\n"):].splitlines()[2:]
    found = (re.match(r"  (\S.*?) +((?:allowed|denied|dropped|waits|public|link-local).*)", line)
             for line in lines)
    return {match[1]: match[2] for match in found if match}


def says(text, *pieces):
    for piece in pieces:
        check(piece in text, f"{piece!r} is not in {text!r}")


def faulty(content, *pieces):
    status, out, err = culvert("check", write(content))
    equal((status, out), (1, ""), err)
    check(err.startswith("culvert: ") and err.count("\n") == 1, err)
    says(err, *pieces)


@test
def the_rules_are_listed_in_order_with_the_profile_last(lab):
    path = write(dict(ALLOW_LIST, profile="public"))
    status, out, err = culvert("check", path)
    equal((status, err), (0, ""))
    lines = [line.split() for line in out.splitlines()]
    equal([line[0] for line in lines if line and line[0].isdigit()], ["1", "2", "3", "4", "5"])
    says(out, '"no-raw"', "@code: 2 names", "profile public", "otherwise: deny")


@test
def an_allow_list_is_explained_in_every_state_of_the_name(lab):
    seen = explained(ALLOW_LIST, "tcp github.com:443")
    says(seen["looking it up"], "allowed by rule 2")
    says(seen["when it begins"], "waits for the name")
    says(seen["named github.com"], "allowed by rule 2 (allow tcp to @code port 443)")
    says(seen["named otherwise"], "denied", "rule 2")
    says(seen["its name hidden"], "denied", "wants to see the name")
    says(seen["its payload nameless"], "denied")


@test
def a_refusal_by_name_is_explained_with_its_id(lab):
    seen = explained(ALLOW_LIST, "tcp raw.githubusercontent.com:443")
    says(seen["looking it up"], "allowed by rule 2")  # the deny has a protocol: lookups pass
    says(seen["named raw.githubusercontent.com"], 'denied by rule 1 "no-raw"')


@test
def an_address_is_explained_with_its_groups(lab):
    seen = explained(dict(ALLOW_LIST, profile="all"), "tcp 169.254.169.254:80")
    says(seen["the address is"], "link-local metadata")
    says(seen["its payload nameless"], "denied", "does not name an address of this kind")
    seen = explained({"version": 1, "profile": "public"}, "udp [2606:4700::1111]:53")
    says(seen["the flow is"], "allowed by rule 2 (allow to public)")


@test
def rules_that_never_decide_are_named(lab):
    status, out, _ = culvert("check", write({"version": 1, "rules": [
        "deny to 10.0.0.0/8", "allow tcp to 10.1.0.0/16 port 80", "deny to 10.2.0.0/16",
        "allow to public", "deny to evil.example", "allow to *.s3.amazonaws.com in private",
        {"rule": "allow to any", "expires": "2020-01-01T00:00:00Z"}]}))
    equal(status, 0)
    says(out, "rule 2 (allow tcp to 10.1.0.0/16 port 80) never decides: rule 1",
         "says the opposite", "rule 3 (deny to 10.2.0.0/16) never decides: rule 1",
         "rule 5 (deny to evil.example) refuses names at addresses that are not public only: rule 4",
         "*.s3.amazonaws.com spans", "rule 7 (allow to any) has expired")


@test
def exceptions_that_come_too_late_for_some_ports_are_named(lab):
    status, out, _ = culvert("check", write({"version": 1, "profile": "none", "sets": {
        "code": ["*.github.com"], "spare": ["a.test"]}, "rules": [
            "allow tcp to @code port 443,8000-8100", "deny tcp to api.github.com",
            "deny udp to api.github.com", "allow tcp to any port 80", "deny to evil.example",
            "deny tcp to any port 25"]}))
    equal(status, 0)
    says(out, "rule 2 (deny tcp to api.github.com) comes too late for some of its protocols or "
         "ports: rule 1 ", "rule 5 (deny to evil.example) comes too late for some of its",
         'no rule names the set "spare"')
    check("rule 3 (deny udp to api.github.com) comes" not in out, out)  # another protocol
    check("rule 6 (deny tcp to any port 25) comes" not in out, out)  # the rest behind exceptions


@test
def lookups_are_explained_as_answered_here(lab):
    says(culvert("check", "--explain", "udp 8.8.8.8:53", write(ALLOW_LIST))[1],
         "answered by culvert's own resolver")
    says(culvert("check", "--explain", "tcp dns.example:853", write(ALLOW_LIST))[1],
         "denied: names must come from culvert's own resolver")
    seen = explained({"version": 1, "profile": "none"}, "udp 8.8.8.8:53")
    says(seen["the flow is"], "denied: no rule matches")


@test
def the_limits_are_said_where_there_are_names(lab):
    says(culvert("check", write(ALLOW_LIST))[1], "domain fronting", "allow-list")
    check("Limits" not in culvert("check", write({"version": 1}))[1], "no names, no limits")


@test
def a_fault_names_file_line_rule_and_the_mend(lab):
    faulty('{"version": 1,\n "rules": ["allow to any",\n "alow to any"]}',
           "policy.json:3: rule 2: column 1:", 'did you mean "allow"?')
    faulty('{"version": 1,\n "rules": ["allow to *.co.uk"]}', "policy.json:2: rule 1: column 10:",
           "one owner's names")
    faulty('{"version": 1,\n "rules": ["allow to @nowhere"]}', "policy.json:2:", "no set")
    faulty('{"version": 1, "rules": [}', "policy.json:1:", "no JSON")
    faulty('{"version": 1, "rules": ["deny to @file:nowhere"]}', "nowhere: the list cannot be read")
    status, _, err = culvert("check", f"{PLACE}/none.json")
    equal(status, 1)
    says(err, "none.json", "No such file")


@test
def bad_usage_is_one_line_and_status_2(lab):
    for words in [[], ["--explian", "x", "y"], ["a", "b"], ["--explain"], ["--profile"],
                  ["--explain", "tpc a.test:1", write(ALLOW_LIST)],
                  ["--explain", "tcp a.test", write(ALLOW_LIST)],
                  ["--profile", "pubic", write(ALLOW_LIST)]]:
        status, _, err = culvert("check", *words)
        equal(status, 2, f"{words}: {err}")
        check(err.startswith("culvert: ") and err.count("\n") == 1, err)


@test
def a_million_names_are_read_in_moments(lab):
    write("".join(f"host{i}.ads.example\n" for i in range(1_000_000)), "million")
    seen = explained({"version": 1, "profile": "public", "rules": ["deny to @file:million"]},
                     "tcp host999999.ads.example:443")
    says(seen["looking it up"], "denied by rule 1")
    os.unlink(f"{PLACE}/million")


@test
def a_policy_file_holds_for_a_guest(lab):
    path = write({"version": 1, "profile": "none", "sets": {"here": ["@file:addresses"]},
                  "rules": ["allow tcp to @here port 4000"]})
    write(f"{INTERNET4}\n# the other end\n", "addresses")
    with lab.internet.listen(INTERNET4, 4000), lab.internet.listen(INTERNET4, 4001), \
            lab.guest("--policy", path, rules=()) as guest:
        guest.connect(INTERNET4, 4000).close()
        fails_with(errno.ECONNREFUSED, guest.connect, INTERNET4, 4001)


main()
