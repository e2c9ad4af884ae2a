# SPDX-License-Identifier: Apache-2.0
"""A real Slurm of four nodes, for as long as a test needs it."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from orrery_run import ROOT, SKIP, environment, skip

SCRIPT = ROOT / "tests" / "testbed" / "slurm"


def own_address():
    """An address of this machine that is not loopback; Open MPI wants one between nodes. None: there is none."""
    for word in subprocess.run(["hostname", "-I"], text=True, capture_output=True).stdout.split():
        if "." in word and not word.startswith("127."):
            return word
    return None


class Slurm:
    def __init__(self, path):
        self.path = path
        self.address = own_address()
        lines = (pathlib.Path(path) / "env").read_text().splitlines()
        self.env = environment(**dict(line.removeprefix("export ").split("=", 1) for line in lines))

    def testbed(self, *args):
        return subprocess.run([SCRIPT, args[0], self.path, *args[1:]], check=True, text=True, capture_output=True, timeout=120).stdout

    def call(self, *words, check=True, **env):
        """A command of Slurm's; what it says."""
        done = subprocess.run([str(w) for w in words], env={**self.env, **env}, text=True, capture_output=True, timeout=120)
        if check and done.returncode:
            print("$", *words, "->", done.returncode, done.stdout, done.stderr)
            raise SystemExit(1)
        return done.stdout.strip()

    def state(self, job):
        return self.call("squeue", "--noheader", "--format=%T", "--jobs", job, check=False) or "GONE"

    def pids(self, *node):
        return [int(p) for p in self.testbed("pids", *node).split()]


@contextlib.contextmanager
def slurm():
    path = tempfile.mkdtemp(prefix="orrery-slurm-")
    try:
        up = subprocess.run([SCRIPT, "up", path, str(os.getpid())], text=True, capture_output=True, timeout=300)
        if up.returncode == SKIP:
            skip(up.stderr.strip())
        if up.returncode:
            print(up.stdout, up.stderr)
            raise SystemExit(1)
        bed = Slurm(path)
        if not bed.address:
            skip("this machine has no address but loopback; nodes could not talk to each other")
        yield bed
    finally:
        subprocess.run([SCRIPT, "down", path], capture_output=True, timeout=120)
        shutil.rmtree(path, ignore_errors=True)
