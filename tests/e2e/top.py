#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery top: one look as text and JSON, and the live view on a pseudo-terminal, while ranks run, hang and have ended."""
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import config, fake_environment, family, settings, wait_for, wait_step  # noqa: E402
from orrery_run import ORRERY, check, children_seconds, environment, folder, orrery, refused, start  # noqa: E402

FAKE_NVML = pathlib.Path(os.environ.get("ORRERY_BUILD", "build")).resolve() / "tests" / "fake_nvml"


class Terminal:
    """A child on a pseudo-terminal of its own, and all that it wrote."""

    def __init__(self, *argv, rows=24, columns=100, **env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, {**environment(**env), "TERM": env.get("TERM", "xterm")})
        self.size(rows, columns)
        self.raw = b""

    def size(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys):
        os.write(self.fd, keys)

    def take(self, seconds=0.1):
        while select.select([self.fd], [], [], seconds)[0]:
            try:
                piece = os.read(self.fd, 65536)
            except OSError:
                return
            if not piece:
                return
            self.raw += piece
            seconds = 0.05

    def text(self):
        """What was written since clear(), without the terminal's commands."""
        plain = re.sub(rb"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>78])", b" ", self.raw)
        return plain.decode(errors="replace")

    def clear(self):
        self.take()
        self.raw = b""

    def shows(self, words, seconds=20):
        def seen():
            self.take()
            return re.search(words, self.text())
        return wait_for(seen, seconds)

    def wait(self, seconds=20):
        def ended():
            self.take()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return (os.waitstatus_to_exitcode(status),) if pid else None
        found = wait_for(ended, seconds)
        if not found:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
        return found[0] if found else None


def one_look(tmp):
    t = json.loads(orrery("top", f"{tmp}/run", "--json", env=fake_environment(LD_LIBRARY_PATH=FAKE_NVML, FAKE_GPUS="Fake A:81920:37")).stdout)
    check(t["state"] == "running" and len(t["ranks"]) == 3 and t["step"] >= 5, f"three ranks at step {t['step']}")
    check([r["rank"] for r in t["ranks"]] == [0, 1, 2] and all(r["pid"] > 0 for r in t["ranks"]), "in order, with pids")
    check(t["gpus"] == [{"gpu": 0, "name": "Fake A", "busy_percent": 37, "memory_used_bytes": 20 << 30, "memory_total_bytes": 80 << 30}], "the GPU")
    text = orrery("top", f"{tmp}/run", "--once", env=fake_environment(LD_LIBRARY_PATH=FAKE_NVML, FAKE_GPUS="Fake A:81920:37")).stdout
    check("RANK" in text and "GPU 0 Fake A: 37 % busy, 20.0 of 80.0 GiB" in text and len(re.findall(r"^.\s+[012] ", text, re.M)) == 3, "as text")
    check(orrery("top", f"{tmp}/run").stdout.startswith(f"{tmp}/run"), "without a terminal: one look")


def live_view(tmp):
    t = Terminal(ORRERY, "top", f"{tmp}/run")
    check(t.shows("RANK +HOST +STEP") and t.shows("q quits"), "the screen comes up")
    steps = set()
    def moves():
        t.clear()
        t.take(1.5)
        steps.update(re.findall(r"\d{2,}", t.text()))
        return len(steps) > 3
    check(wait_for(moves, 30), "the numbers move")
    for rows, columns in ((10, 60), (40, 150), (3, 20), (24, 100)):
        t.clear()
        t.size(rows, columns)
        check(t.shows("RANK|q quits" if rows > 3 else "."), f"repainted for {rows} x {columns}")
    t.clear()
    t.type(b"s")
    check(t.shows("."), "sorted by lateness")
    t.type(b"\x1b[B\x1b[A\x1b[6~\x1b[5~")
    t.type(b"q")
    check(t.wait() == 0 and b"\x1b[?1049l" in t.raw, "q ends it and gives the screen back")
    t = Terminal(ORRERY, "top", f"{tmp}/run")
    check(t.shows("RANK"), "again")
    t.type(b"\x03")
    check(t.wait() == 0, "Ctrl-C ends it too")


def while_a_rank_hangs(tmp, child):
    rank = family(child.pid)["rank"]
    pids = {r["pid"]: r["rank"] for r in json.loads(orrery("top", f"{tmp}/run", "--json").stdout)["ranks"]}
    victim = next(p for p in rank if pids.get(p) == 1)
    os.kill(victim, signal.SIGSTOP)
    try:
        seen_while_stopped(tmp)
    finally:
        os.kill(victim, signal.SIGCONT)


def seen_while_stopped(tmp):
    def noticed():
        ranks = json.loads(orrery("top", f"{tmp}/run", "--json").stdout)["ranks"]
        return ranks if ranks[1]["seconds_silent"] > 5 and ranks[1]["wanted"] else None
    ranks = wait_for(noticed, 30, 0.3)
    check(ranks, "the stopped rank is worth a look")
    check(not ranks[0]["wanted"] and not ranks[2]["wanted"] or ranks[0]["waits"], "those who wait for it are not")
    t = Terminal(ORRERY, "top", f"{tmp}/run")
    check(t.shows("silent for"), "on the screen too")
    t.type(b"q")
    check(t.wait() == 0, "which works while it hangs")


def after_the_end(tmp):
    text = orrery("top", f"{tmp}/run", "--once").stdout
    check("stopped" in text or "saved" in text or "done" in text or "failed" in text, text.splitlines()[0])


def bad_words(tmp):
    refused(["top"], 64, "RUN")
    refused(["top", f"{tmp}/none"], 66, "no run folder")
    refused(["top", tmp], 66, "no run.json")
    t = Terminal(ORRERY, "top", f"{tmp}/run", TERM="no-such-terminal")
    check(t.shows("--once") and t.wait() == 69, "a terminal that nobody knows")


def the_late_one(tmp):
    """Real ranks, one of which is 60 ms slower a step: the others wait for it, and it is named."""
    orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 4, "--frames", 20)
    child = start("run", "configs/tiny.yaml", "-n", 3, f"run.dir={tmp}/late", f"data.train={tmp}/data", "data.eval=", "train.steps=1000000",
                  "checkpoint.every=1000000", "fault.inject=slow=60ms:rank=1", "launch.hang_s=120")
    try:
        def found():
            done = orrery("top", f"{tmp}/late", "--json", check=False)
            t = json.loads(done.stdout) if done.returncode == 0 else {"ranks": []}
            late = [r["rank"] for r in t["ranks"] if r["wanted"]]
            return t["ranks"] if len(t["ranks"]) == 3 and late == [1] and t["step"] > 30 else None
        ranks = wait_for(found, 60, 0.3)
        check(ranks, "the slowed rank is the one that others wait for")
        told = [(r["rank"], round(r["late_ms"], 1), round(r["wait_share"], 2), round(r["data_share"], 2)) for r in ranks]
        check(ranks[1]["late_ms"] > max(ranks[0]["late_ms"], ranks[2]["late_ms"]) and ranks[1]["wait_share"] < ranks[0]["wait_share"],
              f"rank, late ms a step, share of waiting, of data: {told}")
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(60)


def quick_help():
    times, used = [], []
    for _ in range(15):
        begin, before = time.monotonic(), children_seconds()
        orrery("--help")
        times.append(time.monotonic() - begin)
        used.append(children_seconds() - before)
    print(f"orrery --help: {1e3 * sorted(times)[len(times) // 2]:.1f} ms median, {1e3 * min(times):.1f} ms least (bar 20 ms)")
    check(min(used) < 0.5, f"help loads no screen library: {1e3 * min(used):.1f} ms of processor time")


with folder() as scratch:
    run = start("run", config(scratch), "-n", 3, *settings(scratch, steps=100000000, checkpoint__every=100000, launch__hang_s=120), env=fake_environment())
    try:
        check(wait_step(f"{scratch}/run", 5), "three ranks run")
        one_look(scratch)
        live_view(scratch)
        while_a_rank_hangs(scratch, run)
    finally:
        run.send_signal(signal.SIGINT)
        run.wait(60)
    after_the_end(scratch)
    bad_words(scratch)
    the_late_one(scratch)
    quick_help()
