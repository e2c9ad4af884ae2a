# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: a private folder, the programs under test, their process trees."""
import contextlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

BIN = pathlib.Path(os.environ.get("ORRERY_BIN", "build/bin")).resolve()
ORRERY = str(BIN / "orrery")
ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIP = 77


def environment(**extra):
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", NO_COLOR="1")
    env.update({k: str(v) for k, v in extra.items()})
    return env


@contextlib.contextmanager
def folder():
    """A private folder, kept when the test fails and ORRERY_KEEP is set."""
    path = tempfile.mkdtemp(prefix="orrery-test-")
    try:
        yield pathlib.Path(path)
    finally:
        if not os.environ.get("ORRERY_KEEP"):
            shutil.rmtree(path, ignore_errors=True)


def orrery(*args, check=True, status=0, timeout=300, env=None, raw=False):
    """Runs orrery to its end. Prints everything when it ends otherwise than with `status` and `check` is set. `raw`: bytes, not text."""
    done = subprocess.run([ORRERY, *map(str, args)], cwd=ROOT, env=env or environment(), timeout=timeout, text=not raw,
                          capture_output=True)
    if check and done.returncode != status:
        print("$ orrery", *args, "->", done.returncode, "not", status)
        print(done.stdout[-4000:], done.stderr[-8000:], sep="\n")
        raise SystemExit(1)
    return done


def digest(run, env=None):
    """Of the newest checkpoint: the SHA-256 of all tensors, that of the samples which were taken, the step."""
    found = json.loads(orrery("ckpt", "digest", run, "--json", env=env).stdout)
    return found["digest"], found["sample_sha256"], found["step"]


def refused(words, status, text, env=None):
    """orrery ends with this exit code and says this on stderr."""
    done = orrery(*words, check=False, env=env)
    check(done.returncode == status and text in done.stderr,
          f"{' '.join(map(str, words))}: {status} and '{text}' wanted, exit {done.returncode}: {done.stderr.strip()}")


def children_seconds():
    """Processor time of the children that have ended: a busy machine does not stretch it as it does the wall's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(*args, env=None):
    """Starts orrery in the background, its output in a pipe-free file that the caller may read."""
    out = tempfile.TemporaryFile("w+")
    child = subprocess.Popen([ORRERY, *map(str, args)], cwd=ROOT, env=env or environment(), stdout=out,
                             stderr=subprocess.STDOUT, text=True)
    child.output = out
    return child


def descendants(pid):
    """[(pid, command line)] of all living processes below `pid`, parents first."""
    parents, commands = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        state, parent = stat[stat.rindex(")") + 2:].split()[:2]
        if state != "Z":
            parents[int(entry.name)] = int(parent)
    found, front = [], [pid]
    while front:
        front = [p for p, parent in parents.items() if parent in front]
        found += front
    return [(p, commands[p]) for p in found]


def check(condition, text):
    if not condition:
        print("FAILED:", text)
        raise SystemExit(1)
    print("ok:", text)


def skip(text):
    print("skipped:", text)
    sys.exit(SKIP)
