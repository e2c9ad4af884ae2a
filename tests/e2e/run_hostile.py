#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery run among hostile things, real ranks: links, pipes and folders where its files go, a second supervisor, a disk that
is full or read-only, strangers at its port, forged black boxes. One line says what is wrong; nothing else is touched."""
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import box_folders, config, events, fake_environment, family, output, settings, wait_step  # noqa: E402
from orrery_run import ORRERY, ROOT, check, environment, folder, orrery, start  # noqa: E402

DATA = None


def words(run, steps=12, **more):
    keys = {"run.dir": run, "data.train": DATA, "data.eval": "", "train.steps": steps, "checkpoint.every": 5, **more}
    return ["run", "configs/tiny.yaml", "-n", 2, *(f"{k}={v}" for k, v in keys.items())]


def refused(title, run, code, *texts, **more):
    done = orrery(*words(run, **more), check=False, timeout=60)
    told = done.stderr.strip().splitlines()[-1]
    check(done.returncode == code and all(t in done.stderr for t in texts) and "\x1b" not in done.stderr,
          f"{title}: exit {done.returncode}: {told[:200]}")


def planted_files(tmp):
    victim = pathlib.Path(tmp) / "victim"
    victim.write_text("precious\n")
    for part in ("lock", "events.jsonl", "metrics.jsonl", "logs", "blackbox"):
        run = pathlib.Path(tmp) / f"link-{part}"
        run.mkdir()
        (run / part).symlink_to(victim)
        refused(f"a link at {part}", run, 65, "symbolic link", str(run / part))
    url = "s3://bucket/run"
    refused("a URL as run.dir", url, 78, f"checkpoint.url={url}")
    check(not (ROOT / "s3:").exists(), "and no folder is called s3:")
    for part in ("run.json", "config.yaml"):
        run = pathlib.Path(tmp) / f"link-{part}"
        run.mkdir()
        (run / part).symlink_to(victim)
        done = orrery(*words(run))
        check(done.returncode == 0 and not (run / part).is_symlink(), f"a link at {part}: replaced by a file")
    check(victim.read_text() == "precious\n", "and what they pointed to is as before")
    for part, code in (("lock", 74), ("events.jsonl", 74), ("run.json", 74), ("logs", 65), ("blackbox", 65)):
        run = pathlib.Path(tmp) / f"kind-{part}"
        run.mkdir()
        if code == 74:
            (run / part).mkdir()
        else:
            (run / part).write_text("")
        refused(f"another kind of thing at {part}", run, code, str(run / part))
    run = pathlib.Path(tmp) / "pipe"
    run.mkdir()
    os.mkfifo(run / "run.json")
    done = orrery("why", run, check=False, timeout=20)
    check(done.returncode == 65 and "run.json" in done.stderr, f"a pipe at run.json: why says {done.stderr.strip()[:160]}")
    done = orrery(*words(run), timeout=60)
    check((run / "run.json").is_file(), "and run replaces it")


def second_supervisor(tmp):
    run = f"{tmp}/shared"
    child = start("run", config(tmp), "-n", 2, *settings(tmp, steps=100000, run__dir=run), env=fake_environment(FAKE_STEP_MS=10))
    check(wait_step(run, 3), "it runs")
    refused("a second supervisor", run, 79, f"in use by process {child.pid} on host {socket.gethostname()}", f"kill {child.pid}")
    os.symlink(run, f"{tmp}/alias")
    refused("... by another name", f"{tmp}/alias", 79, f"process {child.pid}")
    pathlib.Path(run, "lock").write_text("hi\n")
    refused("... with a lock that says nothing", run, 79, "fuser -v")
    child.send_signal(signal.SIGINT)
    check(child.wait(60) == 75, "the first one is not disturbed")


def strangers(tmp):
    run = f"{tmp}/strangers"
    child = start("run", config(tmp), "-n", 2, *settings(tmp, steps=400, run__dir=run), env=fake_environment(FAKE_STEP_MS=10))
    check(wait_step(run, 3), "it runs")
    guard = family(child.pid)["guard"][0]
    env = dict(v.split("=", 1) for v in pathlib.Path(f"/proc/{guard}/environ").read_text().split("\0") if "=" in v)
    host, port = env["ORRERY_CONTROL"].rsplit(":", 1)
    for data in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(5000), b"\0" * 300, b"\xff" * 300):
        with socket.create_connection((host, int(port)), timeout=20) as s:
            try:
                s.sendall(data)
                check(s.recv(100) == b"", f"{len(data)} bytes of nonsense: the connection is closed without a word")
            except ConnectionError:
                print("ok: closed at once")
    many = [socket.create_connection((host, int(port)), timeout=20) for _ in range(200)]
    check(child.wait(120) == 0, "the run ends well")
    check(output(child).count("was refused") == 1 and len(events(run, "connection-refused")) == 1, "one line says so")
    check(env["ORRERY_TOKEN"] not in output(child) + "".join(map(str, events(run))), "the token stands nowhere")
    for s in many:
        s.close()


def forged_boxes(tmp):
    """What others put where boxes are is named; the other ranks are shown, and the run is not disturbed by what is no box."""
    def link(box):
        box.unlink()
        box.symlink_to("/etc/passwd")

    def pipe(box):
        box.unlink()
        os.mkfifo(box)

    def foreign(box):
        data = (box.parent / "rank-0.box").read_bytes()
        box.unlink()
        box.write_bytes(data)

    for title, forge, text in (("a link", link, "symbolic link"), ("a pipe", pipe, "no black box"), ("another rank's", foreign, "of rank 0")):
        run = f"{tmp}/forged-{forge.__name__}"
        child = start("run", config(tmp), "-n", 2, *settings(tmp, steps=200, run__dir=run), env=fake_environment(FAKE_STEP_MS=10))
        check(wait_step(run, 3), "it runs")
        boxes = pathlib.Path(box_folders(run)[0])
        forge(boxes / "rank-1.box")
        live = json.loads(orrery("why", run, "--json").stdout)
        check([r["rank"] for r in live["ranks"]] == [0] and text in live["unread"], f"{title}: {live['unread']}")
        check("not read" in orrery("why", run).stdout and "not read" in orrery("top", run, "--once").stdout, "in words too")
        check(child.wait(60) == 0, "the run goes on to its end")
        check((pathlib.Path(run) / "blackbox" / "rank-0.box").is_file(), "the sound one is kept")
        check(pathlib.Path("/etc/passwd").read_text().startswith("root"), "nothing else is touched")


def forged_job(tmp):
    run = f"{tmp}/job"
    child = start("run", config(tmp), "-n", 2, *settings(tmp, steps=200, run__dir=run), env=fake_environment(FAKE_STEP_MS=10))
    check(wait_step(run, 3), "it runs")
    (pathlib.Path(box_folders(run)[0]) / "job.json").write_text('{"pid": 7, "task": "\\u001b]0;x\\u0007", "run": "a\\nb"}')
    shown = orrery("ps").stdout
    check("?]0;x?" in shown and "a?b" in shown and "\x1b" not in shown, "ps shows no control characters")
    check(child.wait(60) == 0, "the run goes on to its end")


def disks(tmp):
    place = pathlib.Path(tmp) / "disk"
    place.mkdir()

    def mount(*options):
        return subprocess.run(["mount", *options, place], capture_output=True).returncode == 0
    if not mount("-t", "tmpfs", "-o", "size=1m", "none"):
        return print("not tried: this machine lets us mount nothing")
    try:
        refused("a disk that fills up", place / "run", 74, "No space left on device", "checkpoint", steps=2000)
        verdict = orrery("why", place / "run").stdout
        check("No space left" in verdict, "why tells it although the disk is full")
        fill(place / "fill")
        refused("a full disk", place / "other", 74, "No space left on device", str(place / "other"))
        check(mount("-o", "remount,ro"), "read-only now")
        refused("a read-only folder", place / "run", 74, "Read-only file system", str(place / "run"))
        check(orrery("why", place / "run").stdout == verdict, "why reads it all the same")
    finally:
        subprocess.run(["umount", place], check=True)


def nothing_may_be_deleted(tmp):
    """A store that lets nobody delete keeps all checkpoints; the run goes on, and says so once."""
    run = pathlib.Path(tmp) / "undeleted"
    more = {"checkpoint.keep": 1, "fault.inject": "store=nodelete:100%"}
    orrery(*words(run, steps=20, **more))
    kept = json.loads(orrery("ckpt", "list", run, "--json").stdout)
    told = [line for line in (run / "logs/attempt-1/rank-0.log").read_text().splitlines() if "stay, and take space" in line]
    check([k["step"] for k in kept] == [20, 15, 10, 5] and len(told) == 1 and "not allowed" in told[0], f"checkpoints that stay: {told}")


def a_limit_of_file_size(tmp):
    """ulimit -f: the checkpoint that is too large is named; nobody dies of a signal. One rank: MPI's own files need more."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, 100 << 10))
    run = pathlib.Path(tmp) / "limited"
    done = subprocess.run([ORRERY, *map(str, words(run)), "-n", "1"], cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=60,
                          preexec_fn=limit)
    told = [line for line in done.stderr.splitlines() if line.startswith("cause: ")]
    check(done.returncode == 74 and len(told) == 1 and "File too large" in told[0] and "safetensors" in told[0], f"ulimit -f: exit {done.returncode}: {told}")


def no_room_for_boxes(tmp):
    """A /dev/shm of a container that was started with too little of it: the cause is told, not only an exit code."""
    command = f"mount -t tmpfs -o size=100k none /dev/shm && exec {ORRERY} {' '.join(map(str, words(f'{tmp}/small')))}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=60)
    if "attempt 1" not in done.stderr:
        return print("not tried: this machine lets us mount nothing")
    told = [line for line in done.stderr.splitlines() if line.startswith("cause: ")]
    check(done.returncode == 74 and len(told) == 1 and "no room for the black box /dev/shm/" in told[0] and "No space left" in told[0],
          f"a small /dev/shm: exit {done.returncode}: {told}")


def fill(path):
    try:
        with open(path, "wb", buffering=0) as f:
            while f.write(b"\0" * 4096):
                pass
    except OSError:
        pass


def main():
    global DATA
    with folder() as tmp:
        tmp = os.path.realpath(tmp)
        DATA = f"{tmp}/data"
        orrery("simulate", "table", "--out", DATA, "--episodes", 8, "--frames", 30)
        for test in (planted_files, second_supervisor, strangers, forged_boxes, forged_job, a_limit_of_file_size, nothing_may_be_deleted,
                     no_room_for_boxes, disks):
            print("--", test.__name__, flush=True)
            test(tmp)


main()
