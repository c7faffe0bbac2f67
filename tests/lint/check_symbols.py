#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shared library exports every function of the public headers, and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent.parent


def declared():
    names = set()
    for header in (SOURCE / "include/culvert").glob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
        names.update(re.findall(r"^[a-z].*?\b(culvert_\w+)\(", text, re.M))
    return names


def exported(library):
    output = subprocess.run(
        ["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True
    ).stdout
    symbols = {line.split()[2].split("@")[0] for line in output.splitlines() if len(line.split()) == 3}
    return symbols - {"CULVERT_0"}  # the version itself


def main():
    library = Path(sys.argv[1]) / "src/libculvert.so"
    if not library.exists():
        print(f"there is no {library}: build it first")
        sys.exit(1)
    want, have = declared(), exported(library)
    for name in sorted(want - have):
        print(f"{name} is declared in a public header, but not exported")
    for name in sorted(have - want):
        print(f"{name} is exported, but in no public header")
    print(f"{len(want)} functions declared, {len(have)} exported")
    sys.exit(0 if want == have and want else 1)


if __name__ == "__main__":
    main()
