#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `meson install` puts on a machine is enough to embed culvert: into an empty directory it goes,
and everything below uses only what lies there.

    check_installed.py BUILD_DIR

Headers, library and culvert.pc are found by pkg-config; the example compiles against them without a
warning, in C, runs, and needs no library that is not named; a C++ program links too; the shared
library exports culvert_* only; the command says its version; manual pages are there, and the documents
that they refer to."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent.parent
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
CXX_PROGRAM = """
#include <culvert/engine.h>
#include <culvert/shared_state.h>

int main()
{
    culvert_config *config = culvert_config_new();
    culvert_error error;
    int wrong = culvert_config_set(config, "mtu", "12", &error);
    culvert_engine *engine = culvert_engine_new(config, &error);
    culvert_config_free(config);
    bool made = engine != nullptr;
    if (made) {
        culvert_link link = {};
        culvert_shared_state_set_link(culvert_engine_shared_state(engine), &link);
    }
    culvert_engine_free(engine);
    return wrong < 0 && made ? 0 : 1;
}
"""


def run(*words, **options):
    """stdout of a program that must succeed."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=120,
                          **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Installed:
    def __init__(self, build, root):
        run("meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", root)
        self.root = root
        [self.pc] = root.rglob("culvert.pc")
        [self.library] = [p for p in root.rglob("libculvert.so")]
        [self.command] = [p for p in root.rglob("culvert") if p.is_file() and os.access(p, os.X_OK)]
        self.environment = dict(
            os.environ,
            PKG_CONFIG_PATH=str(self.pc.parent),
            PKG_CONFIG_SYSROOT_DIR=str(root),
            LD_LIBRARY_PATH=str(self.library.parent),
        )

    def flags(self, *kinds):
        return run("pkg-config", *kinds, "culvert", env=self.environment).split()

    def compile(self, compiler, source, program, *flags):
        run(compiler, *flags, source, "-o", program, *self.flags("--cflags", "--libs"), "-pthread",
            env=self.environment)
        return run(program, env=self.environment)


def check_headers(installed):
    have = {p.name for p in installed.root.rglob("include/culvert/*.h")}
    want = {p.name for p in (SOURCE / "include/culvert").glob("*.h")}
    if have != want:
        sys.exit(f"headers installed: {sorted(have)}, in the checkout: {sorted(want)}")


def check_pkg_config(installed):
    version = run("pkg-config", "--modversion", "culvert", env=installed.environment).strip()
    said = run(installed.command, "--version").strip()
    if said != f"culvert {version}":
        sys.exit(f"culvert.pc says {version}, the command says {said!r}")
    for flag in installed.flags("--cflags", "--libs"):
        if flag.startswith(("-I/", "-L/")) and not flag[2:].startswith(str(installed.root)):
            sys.exit(f"culvert.pc leads out of the installation: {flag}")


def check_documents(installed):
    pages = {str(p.relative_to(p.parents[1])) for p in installed.root.rglob("man/man?/*")}
    if pages != {"man1/culvert.1", "man1/culvert-serve.1", "man3/libculvert.3"}:
        sys.exit(f"manual pages installed: {sorted(pages)}")
    for page in installed.root.rglob("man/man?/*"):
        for path in re.findall(r"(/\S+/doc/culvert/[\w\\./-]*)", page.read_text()):
            path = path.replace("\\-", "-").replace("\\fR", "").rstrip(".")
            if not (installed.root / path.lstrip("/")).exists():
                sys.exit(f"{page.name} refers to {path}, which is not installed")


def check_symbols(installed):
    output = run("nm", "-D", "--defined-only", installed.library)
    names = {line.split()[-1].split("@")[0] for line in output.splitlines()}
    strangers = {name for name in names if not re.fullmatch(r"culvert_\w+|CULVERT_\d+", name)}
    if strangers or not names:
        sys.exit(f"exported, but not culvert's: {sorted(strangers)}")


def check_programs(installed, directory):
    example = directory / "vmm-networker"
    out = installed.compile("cc", SOURCE / "examples/vmm-networker.c", example, "-std=gnu11", *STRICT)
    if "host.culvert.internal is 10.0.2.2" not in out:
        sys.exit(f"the example does not see what it should:\n{out}")
    source = directory / "embed.cc"
    source.write_text(CXX_PROGRAM)
    installed.compile("c++", source, directory / "embed", "-std=c++11", *STRICT)


def main():
    if os.environ.get("CULVERT_SANITIZED"):
        print("a sanitized library needs a sanitized program")
        sys.exit(77)
    for tool in "pkg-config", "cc", "c++", "nm", "meson":
        if not shutil.which(tool):
            print(f"{tool} is missing")
            sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        installed = Installed(Path(sys.argv[1]).resolve(), directory / "root")
        check_headers(installed)
        check_pkg_config(installed)
        check_symbols(installed)
        check_documents(installed)
        check_programs(installed, directory)
    print("installed, found, compiled, linked and run")


if __name__ == "__main__":
    main()
