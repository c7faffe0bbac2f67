#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The manual pages are what man(7) allows, have a name and a description, and say every option that
the documents say."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent.parent
PAGES = {"culvert": 1, "culvert-serve": 1, "libculvert": 3}


def faults_of(name, section, directory):
    document = SOURCE / "docs" / f"{name}.md"
    page = directory / f"{name}.{section}"
    with open(page, "w") as file:
        subprocess.run([SOURCE / "packaging/man_page.py", document, "0", "/usr/share/doc/culvert"],
                       stdout=file, check=True)
    lint = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True)
    yield from lint.stdout.splitlines()
    shown = subprocess.run(["mandoc", "-Tutf8", "-Owidth=1000", page], capture_output=True,
                           text=True).stdout
    shown = re.sub(".\x08", "", shown)  # overstrikes
    for heading in "NAME", "DESCRIPTION":
        if not re.search(f"^{heading}$", shown, re.M):
            yield f"{page.name}: no {heading}"
    for option in sorted(set(re.findall(r"--[a-z][a-z0-9-]+", document.read_text()))):
        if option not in shown:
            yield f"{page.name}: {option} is in the document and not in the page"


def main():
    if not shutil.which("mandoc"):
        print("mandoc is missing")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as place:
        faults = [fault for name, section in PAGES.items()
                  for fault in faults_of(name, section, Path(place))]
    print("\n".join(faults + [f"{len(PAGES)} pages, {len(faults)} faults"]))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
