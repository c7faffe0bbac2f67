#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test there is and counts them: the last line is "N passed, N failed".

    tests/run.py [--build DIR] [PHASE...]

Phases, in this order (all of them by default):
    unit   build, then meson's tests: one per module, the simulator among them
    guest  tests/guest/test_*: real clients in namespaces, on the built command
    asan   both of these again, built with AddressSanitizer and UBSan
    lint   format, warnings of clang, clang-tidy, cppcheck, layers, headers, symbols

A guest test is an executable that prints one line per test and nothing else that begins so:
    ok NAME
    not ok NAME
    skip NAME REASON
Its environment has CULVERT (the command's path), CULVERT_SOURCE (the checkout) and, where the build
is sanitized and therefore slow, CULVERT_SANITIZED=1. It has 300 s, or as many as a comment line
"# timeout: N" among its first ten says. One that dies, hangs or prints no line counts as failed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
PHASES = ["unit", "guest", "asan", "lint"]
SANITIZERS = "address,undefined"
GUEST_TIMEOUT = 300


class Count:
    """What passed, failed and was skipped, shown as it happens."""

    def __init__(self):
        self.passed = 0
        self.skipped = 0
        self.failures = []
        self.phase = ""
        self.began = time.monotonic()

    def begin(self, phase):
        self.phase = phase
        print(f"== {phase}", flush=True)

    def _show(self, word, name, note):
        elapsed = time.monotonic() - self.began
        print(f"[{elapsed:6.1f} s] {word:<4} {self.phase}: {name}{note}", flush=True)

    def ok(self, name, number=1, note=""):
        self.passed += number
        self._show("ok", name, f" ({number} tests){note}" if number > 1 else note)

    def fail(self, name, output="", number=1):
        for _ in range(number):
            self.failures.append(f"{self.phase}: {name}")
        self._show("FAIL", name, f" ({number} tests)" if number > 1 else "")
        if output:
            print(indented(last_lines(output, 60)), flush=True)

    def skip(self, name, reason):
        self.skipped += 1
        self._show("skip", name, f" ({reason})")

    def summary(self):
        return f"{self.passed} passed, {len(self.failures)} failed"


def last_lines(text, count):
    lines = text.rstrip().splitlines()
    return "\n".join(lines[-count:])


def indented(text):
    return "\n".join("    | " + line for line in text.splitlines())


def run(command, timeout=None, each_line=None, **options):
    """Exit status and output, both streams in one; `each_line` is called as lines come. Killed with
    its process group after `timeout`."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        **options,
    )
    lines = []

    def read():
        for line in process.stdout:
            lines.append(line)
            if each_line:
                each_line(line)

    # A thread of its own, given up on in the end: a stray grandchild may hold the pipe for ever.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        status = 124
    reader.join(5)
    output = "".join(lines)
    return (status, output) if status != 124 else (status, f"{output}\nkilled after {timeout} s")


# ---- building ----


def build(count, directory, options=(), environment=None):
    """Configures if need be, and builds. False, and a failure counted, if that does not work."""
    env = dict(os.environ, **(environment or {}))
    if (directory / "build.ninja").exists():
        command = ["meson", "configure", directory, "-Dtests=true"]
    else:
        command = ["meson", "setup", directory, SOURCE, "-Dtests=true", *options]
    for step in (command, ["ninja", "-C", directory]):
        status, output = run(step, env=env, cwd=SOURCE)
        if status != 0:
            count.fail(f"{step[0]} {directory.name}", output)
            return False
    link = directory / "culvert"
    if (directory / "src/cli/culvert").exists():
        link.unlink(missing_ok=True)
        link.symlink_to("src/cli/culvert")
    count.ok(f"{directory.name} builds without a warning")
    return True


# ---- meson's tests ----


def cmocka_numbers(output):
    """(run, failed) of a cmocka program's groups, or None if it printed no such thing."""
    ran = [int(n) for n in re.findall(r"^\[==========\] .*?(\d+) test\(s\) run", output, re.M)]
    failed = [int(n) for n in re.findall(r"^\[  FAILED  \] .*?(\d+) test\(s\), listed", output, re.M)]
    return (sum(ran), sum(failed)) if ran else None


def count_meson_test(count, entry):
    name, result = entry["name"].split(" / ")[-1], entry["result"]
    output = (entry.get("stdout") or "") + (entry.get("stderr") or "")
    ran, failed = cmocka_numbers(output) or (1, 0)
    if result in ("SKIP",):
        count.skip(name, "skipped by itself")
    elif result in ("OK", "EXPECTEDFAIL"):
        count.ok(name, ran)
    else:
        failed = max(failed, 1)
        if ran > failed:
            count.passed += ran - failed
        count.fail(f"{name} ({result})", output, failed)


def follow(path, stop):
    """The entries of a log that is being written, as they come, until `stop` and its end."""
    rest, position = "", 0
    while True:
        ending = stop.wait(0.5)
        if path.exists():
            with open(path, errors="replace") as file:
                file.seek(position)
                rest += file.read()
                position = file.tell()
        *lines, rest = rest.split("\n")
        yield from (json.loads(line) for line in lines if line)
        if ending:
            return


def run_meson_tests(count, directory, multiplier, environment=None):
    log = directory / "meson-logs/testlog.json"
    log.unlink(missing_ok=True)
    env = dict(os.environ, **(environment or {}))
    command = ["meson", "test", "-C", directory, "--no-rebuild", "--timeout-multiplier", multiplier]
    stop, result = threading.Event(), []

    def work():
        try:
            result.append(run(command, env=env))
        finally:
            stop.set()

    worker = threading.Thread(target=work)
    worker.start()
    seen = failed = 0
    for entry in follow(log, stop):
        seen += 1
        failed += entry["result"] not in ("OK", "EXPECTEDFAIL", "SKIP")
        count_meson_test(count, entry)
    worker.join()
    status, output = result[0] if result else (1, "meson could not be run")
    if seen == 0 or (status != 0 and failed == 0):
        count.fail("meson test", output)


# ---- guest tests ----


def guest_timeout(path):
    with open(path, errors="replace") as file:
        for _, line in zip(range(10), file):
            match = re.match(r"#\s*timeout:\s*(\d+)", line)
            if match:
                return int(match[1])
    return GUEST_TIMEOUT


class GuestOutput:
    """Counts what a guest test prints, line by line."""

    def __init__(self, count, program):
        self.count, self.program = count, program
        self.seen = self.failed = 0

    def line(self, text):
        match = re.match(r"(ok|not ok|skip) (\S+)\s*(.*)", text)
        if not match:
            return
        word, name, rest = match.groups()
        name = f"{self.program}: {name}"
        self.seen += 1
        if word == "ok":
            self.count.ok(name, note=f" {rest}" if rest else "")
        elif word == "skip":
            self.count.skip(name, rest or "no reason given")
        else:
            self.failed += 1
            self.count.fail(name, rest)

    def end(self, status, output):
        if self.failed:
            print(indented(last_lines(output, 80)), flush=True)
        if status == 124 or (status != 0 and not self.failed):
            self.count.fail(f"{self.program} (exit status {status})", output)
        elif self.seen == 0:
            self.count.fail(f"{self.program} (said nothing)", output)


def run_guest_tests(count, directory, environment=None, slowness=1):
    programs = sorted((SOURCE / "tests/guest").glob("test_*"))
    programs = [p for p in programs if p.suffix in (".py", ".sh") and os.access(p, os.X_OK)]
    env = dict(os.environ, CULVERT=str(directory / "culvert"), CULVERT_SOURCE=str(SOURCE))
    env.update(environment or {})
    if programs and not (directory / "culvert").exists():
        count.fail(f"there is no {directory.name}/culvert to test")
        return
    for program in programs:
        timeout = guest_timeout(program) * slowness
        guest = GuestOutput(count, program.name)
        guest.end(*run([program], timeout, guest.line, env=env, cwd=SOURCE))


# ---- phases ----


def phase_unit(count, directory):
    if build(count, directory):
        run_meson_tests(count, directory, 1)


def phase_guest(count, directory):
    if (directory / "build.ninja").exists() or build(count, directory):
        run_guest_tests(count, directory)


def phase_asan(count, directory):
    directory = directory.with_name(directory.name + "-asan")
    environment = {
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "CULVERT_SANITIZED": "1",
    }
    if build(count, directory, [f"-Db_sanitize={SANITIZERS}", "-Db_lundef=false"]):
        run_meson_tests(count, directory, 5, environment)
        run_guest_tests(count, directory, environment, slowness=3)


def phase_lint(count, directory):
    clang = directory.with_name(directory.name + "-clang")
    built = build(count, clang, environment={"CC": "clang", "CXX": "clang++"})
    for check in sorted((SOURCE / "tests/lint").glob("check_*")):
        if not os.access(check, os.X_OK):
            continue
        status, output = run([check, clang], timeout=900, cwd=SOURCE)
        if status == 0:
            count.ok(check.stem)
        elif status == 77:
            count.skip(check.stem, last_lines(output, 1))
        else:
            count.fail(check.stem, output)
    if not built:
        print("    (some checks need the clang build)", flush=True)


def forget_ignored_signals():
    """What is ignored here, as under nohup or in the background of a shell, the tests would find
    ignored, too: commands could not trap it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def main():
    forget_ignored_signals()
    parser = argparse.ArgumentParser(description="run every test and count them")
    parser.add_argument("--build", default="build", help="the build directory (default: build)")
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=" ".join(PHASES))
    arguments = parser.parse_args()
    for phase in arguments.phases:
        if phase not in PHASES:
            parser.error(f"unknown phase '{phase}': write {', '.join(PHASES)}")

    sys.stdout.reconfigure(errors="replace")
    directory = (SOURCE / arguments.build).resolve()
    count = Count()
    for phase in PHASES:
        if phase in (arguments.phases or PHASES):
            count.begin(phase)
            globals()[f"phase_{phase}"](count, directory)

    elapsed = int(time.monotonic() - count.began)
    print(f"\ntook {elapsed // 60} min {elapsed % 60} s; {count.skipped} skipped")
    for failure in count.failures:
        print(f"failed: {failure}")
    directory.mkdir(exist_ok=True)
    (directory / "test-summary").write_text(count.summary() + "\n")
    print(count.summary(), flush=True)
    sys.exit(1 if count.failures or count.passed == 0 else 0)


if __name__ == "__main__":
    main()
