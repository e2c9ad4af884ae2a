#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Starting, stopping, going on: with the stand-in rank under real mpirun."""
import json
import os
import pathlib
import shutil
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import (alive, box_folders, check_ledger, config, events, fake_environment, family, output,  # noqa: E402
                      settings, wait_dead, wait_for, wait_step)
from orrery_run import check, descendants, folder, orrery, start  # noqa: E402


def running(tmp, ranks=2, env=None, **keys):
    keys = {"steps": 100000, **keys}
    child = start("run", config(tmp), "-n", ranks, *settings(tmp, **keys), env=env or fake_environment())
    check(wait_step(f"{tmp}/run", 5), "it runs")
    return child


def record(tmp):
    return json.loads((pathlib.Path(tmp) / "run" / "run.json").read_text())


def a_run_and_its_folder(tmp):
    done = orrery("run", config(tmp), "-n", 3, *settings(tmp), env=fake_environment())
    lines = done.stderr.splitlines()
    check(lines[0].startswith("fresh start: ") and "3 ranks" in lines[0], lines[0])
    check(lines[-1].startswith("done: "), lines[-1])
    check(done.stdout == "", "stdout is for data")
    run = pathlib.Path(tmp) / "run"
    for name in ("config.yaml", "run.json", "events.jsonl", "logs/attempt-1/rank-2.log", "logs/attempt-1/launch.log",
                 "blackbox/rank-1.box"):
        check((run / name).is_file(), f"the folder has {name}")
    check("command line" in (run / "config.yaml").read_text(), "config.yaml names origins")
    check(record(tmp)["state"] == "done", "the record says done")
    check(not box_folders(run), "nothing stays in /dev/shm")
    check(orrery("logs", run, "--rank", 1).stdout.startswith("rank 1 step 1\n"), "orrery logs shows the rank's output")
    check_ledger(run)
    # The same command once more: a new attempt from where the ranks know they are.
    done = orrery("run", config(tmp), "-n", 2, *settings(tmp, steps=70), env=fake_environment())
    check("rank 0 step 61\n" == orrery("logs", run, "--rank", 0).stdout[:15], "it went on at step 61")
    check((run / "logs/attempt-2").is_dir(), "as attempt 2")


def first_signal_saves(tmp, number):
    child = running(tmp)
    os.kill(child.pid, number)
    code = child.wait(20)
    text = output(child)
    check(code == 75, f"{signal.Signals(number).name}: exit {code}")
    check("asking all ranks to save" in text and "saved; the same command goes on" in text, "and says so")
    check(record(tmp)["state"] == "saved", "the record says saved")
    saved = int((pathlib.Path(tmp) / "run" / "fake-ckpt").read_text())
    done = orrery("run", config(tmp), "-n", 2, *settings(tmp, steps=saved + 5), env=fake_environment())
    check(done.returncode == 0, f"goes on from step {saved}")
    child.output.close()


def a_signal_before_the_ranks_is_not_lost(tmp):
    """Guards that come after the wish to stop hear of it too: the run does not go on to its end."""
    run = pathlib.Path(tmp) / "run"
    for after_ms in (0, 5, 20, 60):
        shutil.rmtree(run, ignore_errors=True)
        child = start("run", config(tmp), "-n", 2, *settings(tmp, steps=100000), env=fake_environment())
        check(wait_for(lambda: (run / "logs" / "attempt-1" / "launch.log").exists(), 20, 0.001), "mpirun is being started")
        time.sleep(after_ms / 1000)
        os.kill(child.pid, signal.SIGINT)
        code = child.wait(20)
        check(code in (75, 130), f"SIGINT {after_ms} ms after the start: exit {code}")
        check(record(tmp)["state"] in ("saved", "failed"), f"the record says {record(tmp)['state']}")
        child.output.close()


def second_interrupt_stops_at_once(tmp):
    child = running(tmp, env=fake_environment(FAKE_IGNORE_TERM=1))
    everybody = [p for p, _ in descendants(child.pid)]
    os.kill(child.pid, signal.SIGINT)
    check(wait_for(lambda: events(f"{tmp}/run", "stop-asked"), 10), "it is asked to stop")
    check(child.poll() is None, "ranks that do not listen are waited for")
    os.kill(child.pid, signal.SIGINT)
    code = child.wait(10)
    check(code == 130, f"exit {code}")
    check("stopped without saving" in output(child), "and says so")
    check(wait_dead(everybody) is not None, "nobody is left")
    child.output.close()


def a_signal_at_one_rank_saves_all(tmp):
    child = running(tmp, ranks=3)
    os.kill(family(child.pid)["rank"][2], signal.SIGTERM)
    code = child.wait(20)
    check(code == 75, f"SIGTERM at one rank: exit {code}")
    child.output.close()


def second_supervisor_is_refused(tmp):
    child = running(tmp)
    done = orrery("run", config(tmp), "-n", 2, *settings(tmp), env=fake_environment(), check=False)
    check(done.returncode == 79 and f"process {child.pid} on host" in done.stderr, done.stderr.strip())
    jobs = json.loads(orrery("ps", "--json").stdout)
    check(any(j["pid"] == child.pid and j["ranks"] == 2 for j in jobs), "orrery ps shows it")
    why = json.loads(orrery("why", f"{tmp}/run", "--json").stdout)
    check(why["live"] and len(why["ranks"]) == 2 and why["ranks"][0]["step"] > 0, "orrery why reads it live")
    os.kill(child.pid, signal.SIGTERM)
    check(child.wait(20) == 75, "the first is unharmed")
    child.output.close()


def whose_parent_ignores_its_children(tmp):
    """SIGCHLD comes ignored from some containers' first process and from 'trap "" CHLD': the ends of ranks are seen all the same."""
    import subprocess
    from orrery_run import ORRERY, ROOT

    def run(ranks, *more):
        return subprocess.run([ORRERY, "run", str(config(tmp)), "-n", str(ranks), *settings(tmp, steps=10), *more], cwd=ROOT, env=fake_environment(),
                              capture_output=True, text=True, timeout=60, preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    for ranks in (1, 2):
        done = run(ranks, f"train.steps={10 * ranks}")
        check(done.returncode == 0, f"it runs to its end: {done.stderr.strip()[-300:]}")
    done = run(1, "train.steps=100", "launch.attempts=1", "fault.inject=nan:rank=0,step=30,attempt=any")
    check(done.returncode == 65 and "rank 0" in done.stderr, f"a failure has its exit code: {done.returncode} {done.stderr.strip()[-300:]}")


def strangers_are_turned_away(tmp):
    """Wrong token, version or protocol at the control connection: one clear line, and the run goes on."""
    import socket
    child = running(tmp)
    guard = family(child.pid)["guard"][0]
    env = pathlib.Path(f"/proc/{guard}/environ").read_bytes().split(b"\0")
    address = next(v for v in env if v.startswith(b"ORRERY_CONTROL=")).decode().split("=")[1]
    host, port = address.split(":")

    def hello(version, token):
        body = (1).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(12) + bytes(8) + token + bytes(64) + bytes(4)
        return len(body).to_bytes(4, "little") + version.to_bytes(2, "little") + (1).to_bytes(2, "little") + body
    for data in (hello(2, b"0" * 32), hello(9, b"0" * 32), b"GET / HTTP/1.1\r\n\r\n", b"\0" * 300):
        with socket.create_connection((host, int(port))) as s:
            s.sendall(data)
            s.settimeout(20)
            try:
                left = s.recv(1)
            except ConnectionResetError:
                left = b""
            check(left == b"", "the stranger is hung up on")
    refused = wait_for(lambda: events(f"{tmp}/run", "connection-refused"), 10)
    check(refused and "wrong token (from 127.0.0.1)" in refused[0]["text"], f"and it is told why: {refused}")
    check("was refused: wrong token" in output(child) and output(child).count("was refused") == 1, "in one line")
    os.kill(child.pid, signal.SIGTERM)
    check(child.wait(20) == 75, "the run is unharmed")
    child.output.close()


def a_guard_knocks_again(tmp):
    """The kernel turns a connection away when too many come at once; then the guard comes back."""
    import socket
    import subprocess
    from orrery_run import ORRERY
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        env = fake_environment(ORRERY_CONTROL=f"127.0.0.1:{s.getsockname()[1]}", ORRERY_TOKEN="0" * 32, ORRERY_WORLD=1, ORRERY_LOGS=tmp)
        guard = subprocess.Popen([ORRERY, "guard", "sleep", "60"], env=env)
        time.sleep(0.3)
        check(guard.poll() is None, "a guard that was refused is still there")
        s.listen()
        s.settimeout(20)
        with s.accept()[0] as heard:
            heard.settimeout(20)
            check(b"0" * 32 in heard.recv(4096), "and says HELLO later")
        check(guard.wait(20) is not None, "it goes with its supervisor")


def logs_are_bounded(tmp):
    env = fake_environment(FAKE_SPAM=400000, ORRERY_LOG_MB=1, FAKE_STEP_MS=1)
    orrery("run", config(tmp), "-n", 2, *settings(tmp, steps=20), env=env)
    logs = pathlib.Path(tmp) / "run" / "logs" / "attempt-1"
    for rank in range(2):
        sizes = [(logs / name).stat().st_size for name in (f"rank-{rank}.log", f"rank-{rank}.log.1")]
        check(max(sizes) <= 1 << 20 and sizes[1] > 0, f"rank {rank} wrote 8 MB, its logs have {sizes} bytes")


def a_terminal_gets_one_line(tmp):
    import fcntl
    import pty
    import re
    import struct
    import termios
    parent, child_fd = pty.openpty()
    fcntl.ioctl(child_fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 12, 0, 0))
    import subprocess
    from orrery_run import ORRERY
    child = subprocess.Popen([ORRERY, "run", str(config(tmp)), "-n", "2", *settings(tmp, steps=150)],
                             env=fake_environment(), stderr=child_fd, stdout=subprocess.DEVNULL)
    os.close(child_fd)
    text = b""
    try:
        while True:
            piece = os.read(parent, 4096)
            if not piece:
                break
            text += piece
    except OSError:
        pass
    check(child.wait() == 0, "it ran on a terminal")
    check(text.count(b"\r\x1b[K") + text.count(b"\x1b[K") > 1 and b"step " in text, "the progress line is rewritten")
    lines = re.findall(rb"\r([^\r\n\x1b]+)\x1b\[K", text)
    check(lines and max(map(len, lines)) < 12, f"and fits where it is narrow, for one that wraps cannot be rewritten: {lines[-1:]}")


def logs_are_folded_and_followed(tmp):
    import subprocess
    from orrery_run import ORRERY
    child = running(tmp, ranks=3, env=fake_environment(FAKE_STEP_MS=30))
    run = pathlib.Path(tmp) / "run"
    follow = subprocess.Popen([ORRERY, "logs", str(run), "-f", "--rank", "1"], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        check(follow.stdout.readline().startswith("rank 1 step "), "orrery logs -f shows lines as they come")
    left = subprocess.Popen([ORRERY, "logs", str(run), "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    left.stdout.readline()
    left.stdout.close()
    check(left.wait(10) == 0 and left.stderr.read() == b"" and child.poll() is None, "orrery logs -f | head ends with its reader")
    os.kill(child.pid, signal.SIGTERM)
    check(child.wait(20) == 75, "the run ends")
    follow.communicate(timeout=20)
    check(follow.returncode == 0, "and with it orrery logs -f")
    logs = run / "logs" / "attempt-1"
    for rank, text in ((0, "hello\nroot only\nsame\nbye\n"), (1, "hello\nsame\nbye\n"), (2, "hello\nsame\nodd\nbye\n")):
        (logs / f"rank-{rank}.log").write_text("".join(f"rank {rank}: {line}\n" for line in text.splitlines()))
    folded = orrery("logs", run, "--fold").stdout
    check(folded == "ranks 0-2: hello\nrank 0: root only\nranks 0-2: same\nrank 2: odd\nranks 0-2: bye\n", f"folded: {folded!r}")
    (logs / "rank-0.log").write_bytes(b"hello\nno \0 text \xff\nbye\n")
    folded = orrery("logs", run, "--fold", raw=True).stdout
    check(folded == b"ranks 0-2: hello\nranks 1, 2: same\nrank 2: odd\nrank 0: no   text \xff\nranks 0-2: bye\n", f"bytes that are no text hide nothing: {folded!r}")
    child.output.close()


def a_restart_is_followed(tmp):
    """orrery logs -f goes on with the next attempt, where none was named."""
    import subprocess
    from orrery_run import ORRERY
    run = pathlib.Path(tmp) / "run"
    child = start("run", config(tmp), "-n", 2, *settings(tmp, steps=100000, fault__inject="kill:rank=1,step=60"), env=fake_environment(FAKE_STEP_MS=20))
    check(wait_step(run, 5), "it runs")
    follow = [subprocess.Popen([ORRERY, "logs", str(run), "-f", "--rank", "0", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
              for more in ((), ("--attempt", "1"))]
    check(wait_for(lambda: (run / "logs/attempt-2/rank-0.log").exists(), 60), "it is tried again")
    steps = len((run / "logs/attempt-1/rank-0.log").read_text().splitlines())
    check(wait_for(lambda: len((run / "logs/attempt-2/rank-0.log").read_text().splitlines()) > 5, 60), "and goes on")
    os.kill(child.pid, signal.SIGTERM)
    check(child.wait(20) == 75, "it ends")
    (both, told), (one, _) = [f.communicate(timeout=20) for f in follow]
    check(len(one.splitlines()) == steps, f"--attempt 1 shows that one: {len(one.splitlines())} lines of {steps}")
    check(both.startswith(one) and len(both.splitlines()) > steps + 5 and "logs/attempt-2 <==" in told, f"else the next one follows: {told}")
    child.output.close()


def a_folder_that_is_removed(tmp):
    """... beneath its run: the run says so, and who follows it ends."""
    import subprocess
    from orrery_run import ORRERY
    child = running(tmp, checkpoint__every=0)
    follow = subprocess.Popen([ORRERY, "logs", f"{tmp}/run", "-f"], stdout=subprocess.PIPE, text=True)
    check(follow.stdout.readline(), "orrery logs -f shows lines")
    everybody = [p for p, _ in descendants(child.pid)]
    boxes = box_folders(f"{tmp}/run")
    shutil.rmtree(f"{tmp}/run")
    follow.communicate(timeout=20)
    check(follow.returncode == 0, "orrery logs -f ends")
    check(wait_for(lambda: "was removed or replaced" in output(child), 60), f"it is told: {output(child)[-300:]}")
    os.kill(child.pid, signal.SIGTERM)
    code = wait_for(child.poll, 60)
    check(code and output(child).count("was removed or replaced") == 1, f"once, and what cannot be saved is no success: exit {code}: {output(child)[-300:]}")
    check(wait_dead(everybody) is not None and not [b for b in boxes if os.path.exists(b)], "and leaves nobody and nothing")
    child.output.close()


def following_ends_when_the_supervisor_is_killed(tmp):
    import subprocess
    from orrery_run import ORRERY
    child = running(tmp)
    follow = subprocess.Popen([ORRERY, "logs", f"{tmp}/run", "-f"], stdout=subprocess.PIPE, text=True)
    check(follow.stdout.readline(), "orrery logs -f shows lines")
    os.kill(child.pid, signal.SIGKILL)
    child.wait(20)
    follow.communicate(timeout=20)
    check(follow.returncode == 0 and record(tmp)["state"] == "running", "and ends, though the record still says running")
    child.output.close()


def logs_without_a_run_folder(tmp):
    """orrery simulate: after a failure its logs stay where the message says, but not those of ever more failures."""
    scratch = pathlib.Path(tmp) / "scratch"
    scratch.mkdir()
    env = fake_environment(TMPDIR=scratch)
    words = ["simulate", "table", "--out", f"{tmp}/data", "--episodes", 2, "-n", 1, "train.steps=3"]

    def left():
        return sorted(scratch.glob("orrery-logs-*"))
    orrery(*words, env=env)
    check(not left(), f"after success nothing stays: {left()}")
    for i in range(10):
        done = orrery(*words, "fault.inject=nan:rank=0,step=2", env=env, check=False)
        newest = [p for p in left() if f"the ranks' logs stay in {p} " in done.stderr]
        check(done.returncode == 65 and newest and list(newest[0].glob("logs/simulate-1/rank-0.log")),
              f"after failure {i + 1} they do, and it is told: {done.stderr.strip()[-200:]}")
    check(len(left()) == 8, f"of ten failures the last eight: {len(left())}")


def hostile_folders(tmp):
    run = pathlib.Path(tmp) / "run"
    victim = pathlib.Path(tmp) / "victim"
    for name in ("logs", "events.jsonl", "lock", "blackbox"):
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        victim.write_text("precious")
        (run / name).symlink_to(victim)
        done = orrery("run", config(tmp), *settings(tmp), env=fake_environment(), check=False)
        check(done.returncode in (65, 74) and "symbolic link" in done.stderr, f"{name} is a link: {done.stderr.strip()}")
        check(victim.read_text() == "precious", "what it points to is untouched")
    shutil.rmtree(run)
    run.mkdir()
    (run / "config.yaml").symlink_to(victim)
    done = orrery("run", config(tmp), *settings(tmp), env=fake_environment(), check=False)
    check(victim.read_text() == "precious", "nor through config.yaml")
    plain = pathlib.Path(tmp) / "plain"
    plain.write_text("x")
    done = orrery("run", config(tmp), f"run.dir={plain}", env=fake_environment(), check=False)
    check(done.returncode == 65 or done.returncode == 74, f"a file as run.dir: {done.stderr.strip()}")


def main():
    tests = [a_run_and_its_folder, a_signal_before_the_ranks_is_not_lost, second_interrupt_stops_at_once, a_signal_at_one_rank_saves_all,
             second_supervisor_is_refused, whose_parent_ignores_its_children, strangers_are_turned_away, a_guard_knocks_again, logs_are_bounded, logs_are_folded_and_followed, a_restart_is_followed, a_folder_that_is_removed,
             following_ends_when_the_supervisor_is_killed, a_terminal_gets_one_line,
             logs_without_a_run_folder, hostile_folders]
    tests += [lambda tmp, n=n: first_signal_saves(tmp, n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    for test in tests:
        with folder() as tmp:
            print("--", getattr(test, "__name__", "test"))
            test(tmp)


main()
