# SPDX-License-Identifier: Apache-2.0
"""culvert behind virtqueues: `culvert serve --vhost-user`, and a front end of ours that puts a
namespace's TAP through them, so that the path is measured at full speed without a machine.

The front end (tests/vhost_frontend/pump.c) does what a hypervisor and a guest's driver do, on the same
cores as everything else: four busy parties where `culvert run` has three. Its CPU is not culvert's."""

import os
import select
import subprocess
import tempfile

from engines import Culvert, Failed, Session, raise_descriptor_limit

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FRONT_END = ["tests/vhost_frontend/pump.c", "tests/vhost_frontend/frontend.c",
             "src/netdev/tap_open.c", "src/netdev/vhost_user_message.c"]
READY_SECONDS = 5


def build_front_end(directory):
    """Its path; built anew if a source is newer."""
    program = os.path.join(directory, "bench-vhost-pump")
    sources = [os.path.join(ROOT, name) for name in FRONT_END]
    if not os.path.exists(program) or os.path.getmtime(program) < max(map(os.path.getmtime, sources)):
        os.makedirs(directory, exist_ok=True)
        include = [f"-I{os.path.join(ROOT, name)}" for name in ("include", "src")]
        subprocess.run(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", *include, *sources,
                        "-o", program], check=True)
    return program


class CulvertVhostUser(Culvert):
    def __init__(self, name, program, extra, build_directory):
        super().__init__(name, program, extra)
        self.build_directory = build_directory

    def _serve(self, path, mtu):
        """The engine, ready for the front end."""
        engine = subprocess.Popen(
            [self.program, "serve", "--mtu", str(mtu), "--rule", "allow any to host", *self.extra,
             "--vhost-user", path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            preexec_fn=raise_descriptor_limit)
        if not select.select([engine.stdout], [], [], READY_SECONDS)[0] or \
                engine.stdout.readline() != b"ready\n":
            engine.kill()
            engine.wait()
            raise Failed("culvert serve did not become ready")
        return engine

    def open(self, mtu):
        front_end = build_front_end(self.build_directory)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "vhost.sock")
            engine = self._serve(path, mtu)
            session = Session([front_end, "--mtu", str(mtu), path, "--", "sh"], self.executables)
            session.helper = engine  # ends with the session
            try:
                session.ask("echo '{}'", READY_SECONDS)  # connected, before the path goes
            except Failed:
                session.close()
                raise
        return session

    def open_published(self, mtu, first, last):
        raise Failed("is measured from the inside alone")

    def spawn_command(self):
        return None
