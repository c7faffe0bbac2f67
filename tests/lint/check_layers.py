#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads the #includes under src/ and refuses an upward arrow between rooms (DESIGN, section 2)."""

import re
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent.parent

# Each room and the rooms it stands on; what those stand on is open to it too.
STANDS_ON = {
    "base": [],
    "wire": ["base"],
    "policy": ["wire"],
    "stack": ["policy"],
    "relay": ["stack"],
    "dns": ["stack"],
    "inspect": ["stack"],
    "netdev": ["wire"],
    "host": ["base"],
    "engine": ["relay", "dns", "inspect", "netdev", "host"],
    "control": ["engine"],
    "cli": ["engine", "control"],
}

# What a room must not know, whoever declares it: the stack no socket, the netdevs no flow.
FORBIDDEN_SYSTEM = {
    "wire": [r"sys/epoll\.h", r"unistd\.h"],
    "policy": [r"sys/epoll\.h", r"unistd\.h"],
    "stack": [r"sys/epoll\.h", r"sys/socket\.h", r"unistd\.h"],
}


def reachable(room):
    found, open_rooms = {room}, [room]
    while open_rooms:
        for below in STANDS_ON[open_rooms.pop()]:
            if below not in found:
                found.add(below)
                open_rooms.append(below)
    return found


def faults_of(path):
    room = path.relative_to(SOURCE / "src").parts[0]
    if room not in STANDS_ON:
        yield 1, f"room '{room}' is not in the table of {Path(__file__).name}"
        return
    allowed = reachable(room)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        kind, target = match.groups()
        if kind == "<":
            for pattern in FORBIDDEN_SYSTEM.get(room, []):
                if re.fullmatch(pattern, target):
                    yield number, f"{room} does no I/O, so it must not include <{target}>"
            continue
        if "/" not in target:
            yield number, f'"{target}": name the room too, as in "{room}/{target}"'
        elif target.split("/")[0] not in allowed:
            yield number, f"{room} must not include {target}: the arrow points upward"
        elif not (SOURCE / "src" / target).exists():
            yield number, f"there is no src/{target}"


def main():
    files = sorted(p for p in (SOURCE / "src").rglob("*.[ch]"))
    faults = [(path, *fault) for path in files for fault in faults_of(path)]
    for path, number, text in faults:
        print(f"{path.relative_to(SOURCE)}:{number}: {text}")
    print(f"{len(files)} files, {len(faults)} faults")
    sys.exit(1 if faults or not files else 0)


if __name__ == "__main__":
    main()
