#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery run --debug: the rank waits for gdb (in tmux, on a port, by hand) while nothing is timed; tools that stand before it."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import output, wait_dead, wait_for  # noqa: E402
from orrery_run import BIN, check, descendants, digest, environment, folder, orrery, refused, start  # noqa: E402

PATH = os.environ["PATH"]


def words(tmp, run, *more):
    return ["run", "configs/tiny.yaml", "-n", 2, f"run.dir={tmp}/{run}", f"data.train={tmp}/data", "data.eval=", "train.steps=20",
            "checkpoint.every=1000", *more]


def tools_without(tmp, *names):
    """A PATH that has what runs need, but not these."""
    folder_ = pathlib.Path(tmp) / f"without-{'-'.join(names)}"
    folder_.mkdir(exist_ok=True)
    for place in PATH.split(":"):
        for tool in pathlib.Path(place).glob("*") if os.path.isdir(place) else []:
            if tool.name not in names and not (folder_ / tool.name).exists():
                (folder_ / tool.name).symlink_to(tool)
    return str(folder_)


def may_attach():
    if not shutil.which("gdb"):
        return False
    child = subprocess.Popen(["sleep", "60"])
    done = subprocess.run(["gdb", "-q", "-batch", "-p", str(child.pid), "-ex", "info inferiors"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=120)
    child.kill()
    child.wait()
    return f"process {child.pid}" in done.stdout


def waiting(child, pattern):
    def seen():
        return re.search(pattern, output(child))
    found = wait_for(seen, 60)
    check(found, f"it says: {found.group(0) if found else output(child)}")
    return found


def by_hand(tmp):
    """No tmux and no gdbserver: the line to type is told, and gdb lets the rank go on."""
    child = start(*words(tmp, "hand", "--debug", "1"), env=environment(PATH=tools_without(tmp, "tmux", "gdbserver")))
    pid = waiting(child, r"rank 1 .* waits for gdb.* gdb -p (\d+)").group(1)
    config = (pathlib.Path(tmp) / "hand" / "config.yaml").read_text()
    check("hang_s: 0 " in config and "deadline_s: 86400 " in config, "nothing is timed while it waits")
    done = subprocess.run(["gdb", "-q", "-batch", "-p", pid, "-ex", "info symbol task_train", "-ex", "continue"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=120)
    check("task_train in section .text" in done.stdout, f"gdb sees the rank's program: {done.stdout[-200:]} {done.stderr[-200:]}")
    check(child.wait(120) == 0, f"and the run ends well: {output(child)[-300:]}")
    check(digest(f"{tmp}/hand") == digest(f"{tmp}/plain"), "with the same bits")


def on_a_port(tmp):
    if not shutil.which("gdbserver"):
        print("not tried: no gdbserver")
        return
    child = start(*words(tmp, "port", "--debug", "0=gdb"), env=environment(PATH=tools_without(tmp, "tmux")))
    target = waiting(child, r"on a port: gdb -ex 'target remote (127.0.0.1:\d+)'").group(1)
    done = subprocess.run(["gdb", "-q", "-batch", "-ex", f"target remote {target}", "-ex", "info inferiors", "-ex", "continue"], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=120)
    check("Remote target" in done.stdout + done.stderr or "process" in done.stdout, f"gdb reaches it: {done.stdout[-300:]} {done.stderr[-300:]}")
    check(child.wait(120) == 0, f"the run ends well: {output(child)[-300:]}")


def in_tmux(tmp):
    if not shutil.which("tmux"):
        print("not tried: no tmux")
        return
    env = environment(TMUX_TMPDIR=str(tmp))
    env.pop("TMUX", None)
    child = start(*words(tmp, "tmux", "--debug", "1=gdb"), env=env)
    name = waiting(child, r"tmux attach -t (\S+)").group(1)
    try:
        def prompt():
            done = subprocess.run(["tmux", "capture-pane", "-p", "-t", name], env=env, capture_output=True, text=True)
            return "(gdb)" in done.stdout
        check(wait_for(prompt, 60, 0.2), "gdb stands in the tmux window")
        subprocess.run(["tmux", "send-keys", "-t", name, "continue", "Enter"], env=env, check=True)
        check(child.wait(120) == 0, f"'continue' lets the run go on to its end: {output(child)[-300:]}")
    finally:
        subprocess.run(["tmux", "kill-server"], env=env, capture_output=True)


def one_signal_ends_all(tmp):
    """SIGTERM or Ctrl-C, while the rank stands still in gdb or goes on under it: nothing is left, tmux's session included."""
    if not shutil.which("tmux"):
        print("not tried: no tmux")
        return
    own = pathlib.Path(tmp) / "own"  # the server of the test before may still be ending
    own.mkdir()
    env = environment(TMUX_TMPDIR=str(own))
    env.pop("TMUX", None)
    # The person's own session, which is none of orrery's business.
    subprocess.run(["tmux", "new-session", "-d", "-s", "own", "sleep", "600"], env=env, check=True)

    def shown(name):
        return subprocess.run(["tmux", "capture-pane", "-p", "-t", name], env=env, capture_output=True, text=True).stdout
    try:
        for number, goes_on in ((signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True)):
            run = f"one-{number}-{goes_on}"
            child = start(*words(tmp, run, "--debug", "1", "train.steps=1000000"), env=env)
            name = waiting(child, r"tmux attach -t (\S+)").group(1)
            check(wait_for(lambda: "(gdb)" in shown(name), 60, 0.2), "gdb is there")
            if goes_on:
                subprocess.run(["tmux", "send-keys", "-t", name, "continue", "Enter"], env=env, check=True)
                check(wait_for(lambda: re.search(r"step \d+/1000000", output(child)), 60, 0.2), "the rank goes on under gdb")
            everybody = [pid for pid, _ in descendants(child.pid)]
            os.kill(child.pid, number)
            check(wait_for(lambda: child.poll() is not None, 60) and child.returncode == 128 + number,
                  f"one {number.name} ends it: {child.poll()} {output(child)[-300:]}")
            check("rank 1 is in gdb and cannot save" in output(child), "and says why nothing was saved")
            check(wait_dead(everybody, 20) is not None, "nobody is left")
            left = subprocess.run(["tmux", "list-sessions", "-F", "#{session_name}"], env=env, capture_output=True, text=True).stdout.split()
            check(left == ["own"], f"the session is gone, another's is not: {left}")
            child.output.close()
    finally:
        subprocess.run(["tmux", "kill-server"], env=env, capture_output=True)


def wrapped(tmp):
    """A tool that stands before the rank: a stand-in for valgrind that says so and becomes the program."""
    tools = pathlib.Path(tmp) / "tools"
    tools.mkdir()
    (tools / "valgrind").write_text("#!/bin/sh\necho \"wrapped: $1\" >&2\nexec \"$@\"\n")
    (tools / "valgrind").chmod(0o755)
    done = orrery(*words(tmp, "wrap", "--debug", "1=valgrind"), env=environment(PATH=f"{tools}:{PATH}"))
    check("rank 1" in done.stderr and "runs under valgrind" in done.stderr, "it says so")
    logs = [orrery("logs", f"{tmp}/wrap", "--rank", r).stdout for r in (0, 1)]
    check(f"wrapped: {BIN}/orrery-rank" in logs[1] and "wrapped" not in logs[0], "that rank and no other")
    check(digest(f"{tmp}/wrap") == digest(f"{tmp}/plain"), "the same bits")


def bad_words(tmp):
    for spec, status, text in (("x", 64, "1=valgrind"), ("1=strace", 64, "compute-sanitizer"), ("-1", 64, "write a rank"), ("7", 64, "ranks 0 to 1"),
                               ("1=cuda-gdb", 66, "CUDA toolkit")):
        if spec.endswith("cuda-gdb") and shutil.which("cuda-gdb"):
            continue
        refused(words(tmp, "bad", "--debug", spec), status, text)


with folder() as scratch:
    orrery("simulate", "table", "--out", f"{scratch}/data", "--episodes", 4, "--frames", 20)
    orrery(*words(scratch, "plain"))
    wrapped(scratch)
    bad_words(scratch)
    if may_attach():
        for test in (by_hand, on_a_port, in_tmux, one_signal_ends_all):
            print("--", test.__name__, flush=True)
            test(scratch)
    else:
        print("not tried: no gdb, or this machine lets nobody attach to a process")
