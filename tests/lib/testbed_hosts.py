# SPDX-License-Identifier: Apache-2.0
"""Hosts in network namespaces (tests/testbed/hosts) for tests: up, down, faults, and orrery run from the first of them."""
import contextlib
import os
import pathlib
import subprocess
import tempfile

from orrery_run import ORRERY, ROOT, SKIP, environment, folder, skip

SCRIPT = str(ROOT / "tests" / "testbed" / "hosts")


class Hosts:
    def __init__(self, path):
        self.path = str(path)

    def do(self, verb, *words):
        """cut, join, freeze, thaw, off, boot HOST; delay HOST MS."""
        subprocess.run([SCRIPT, verb, self.path, *map(str, words)], check=True)

    def start(self, *words, env=None):
        """orrery on h1 in the background, its output in a file."""
        out = tempfile.TemporaryFile("w+")
        child = subprocess.Popen([SCRIPT, "exec", self.path, "h1", ORRERY, *map(str, words)], cwd=ROOT, stdout=out,
                                 stderr=subprocess.STDOUT, env=env or environment(), text=True)
        child.output = out
        return child

    def processes(self, host):
        """Command lines by pid of what runs there, the namespace's keeper and passing commands aside."""
        pid = (pathlib.Path(self.path) / f"{host}.pid").read_text().split()[0]
        namespace = os.readlink(f"/proc/{pid}/ns/net")
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "ns" / "net") == namespace and entry.name != pid:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        return found


@contextlib.contextmanager
def hosts():
    with folder() as tmp:
        path = tmp / "hosts"
        done = subprocess.run([SCRIPT, "up", path, str(os.getpid())], capture_output=True, text=True)
        if done.returncode == SKIP:
            skip(done.stderr.strip())
        if done.returncode:
            raise SystemExit(f"hosts up: {done.stderr}")
        try:
            yield Hosts(path)
        finally:
            subprocess.run([SCRIPT, "down", path], check=False)
