# SPDX-License-Identifier: Apache-2.0
"""Real stubs inside, and what they say."""

import re
import shutil

from lab import DEADLINE, Skip, check

DNS4, DNS6 = "10.0.2.3", "fd63:756c:7665::3"


def dig(guest, *words, server=DNS4):
    """(status word, answer section's data, text)"""
    if not shutil.which("dig"):
        raise Skip("dig is not installed")
    status, out, err = guest.run("dig", "+nocookie", "+time=8", "+tries=1", "@" + server, *words,
                                 timeout=DEADLINE * 2)
    check(status == 0, f"dig: {status} {out} {err}")
    rcode = re.search(r"status: (\w+)", out)
    section = re.search(r";; ANSWER SECTION:\n(.*?)\n\n", out + "\n\n", re.S)
    data = [line.split(None, 4)[4] for line in section[1].splitlines()] if section else []
    return rcode[1] if rcode else None, data, out
