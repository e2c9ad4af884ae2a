#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery doctor on one machine: a sound one is called so, and every planted defect is named, graded and has a cure."""
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import BIN, ORRERY, ROOT, check, environment, folder, orrery  # noqa: E402

FAKE_NVML = pathlib.Path(os.environ.get("ORRERY_BUILD", "build")).resolve() / "tests" / "fake_nvml"
VERSION = orrery("version").stdout.split()[-1]


def ask(*words, before=(), limit=None, **env):
    """The findings by name, and the exit code."""
    done = subprocess.run([*before, ORRERY, "doctor", "--json", *map(str, words)], cwd=ROOT, env=environment(**env),
                          capture_output=True, text=True, timeout=120,
                          preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)))
    check(done.returncode < 126 and done.stdout.startswith("["), f"doctor answers: {done.returncode} {done.stderr.strip()[-200:]}")
    rows = json.loads(done.stdout)
    check(all(r["cure"] for r in rows if r["grade"] != "good"), "whatever is not good has a cure")
    return {r["check"]: r for r in rows}, done.returncode


def named(title, rows, code, name, grade, text, cure, exit_code=None):
    row = rows[name]
    check(row["grade"] == grade and text in row["finding"] and cure in row["cure"], f"{title}: {row['grade']}: {row['finding']} | {row['cure']}")
    if exit_code is not None:
        check(code == exit_code, f"{title}: exit {code}, wanted {exit_code}")


def sound():
    begin = time.monotonic()
    rows, code = ask()
    check(code == 0 and all(r["grade"] != "bad" for r in rows.values()), f"this machine is fit ({time.monotonic() - begin:.2f} s)")
    check("sum right" in rows["two ranks"]["finding"], rows["two ranks"]["finding"])
    check("linked with Open MPI" in rows["orrery-rank"]["finding"], "the rank's MPI is told")
    text = orrery("doctor").stdout
    check(all(name in text for name in rows), "the same for people")


def script(tmp, name, text):
    path = pathlib.Path(tmp) / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def programs(tmp):
    rows, code = ask(PATH="/nonexistent")
    named("no mpirun", rows, code, "mpirun", "bad", "no program 'mpirun'", "apt-get install openmpi-bin", 66)
    check(rows["two ranks"]["grade"] == "warn" and "not tried" in rows["two ranks"]["finding"], "and the sum is not tried")
    rows, code = ask(ORRERY_RANK_PROGRAM="/nonexistent")
    named("no orrery-rank", rows, code, "orrery-rank", "bad", "is no program", "build both", 66)
    other = script(tmp, "other", "echo orrery-rank 0.0.1")
    rows, code = ask(ORRERY_RANK_PROGRAM=other)
    named("another version", rows, code, "orrery-rank", "bad", "0.0.1", VERSION, 66)
    other = script(tmp, "mpi5", f"echo orrery-rank {VERSION}; echo 'Open MPI v9.0.2'")
    rows, code = ask(ORRERY_RANK_PROGRAM=other)
    named("another MPI inside", rows, code, "orrery-rank", "warn", "Open MPI v9.0.2", "is linked with 9.0.2")
    rows, code = ask(PMIX_RANK="0")
    named("inside another job", rows, code, "environment", "bad", "PMIX_RANK", "fresh shell", 78)
    mpirun = script(tmp, "mpirun", "echo 'HYDRA build details: Version 4.0'")
    rows, code = ask(PATH=f"{tmp}:/usr/bin:/bin")
    named("another mpirun", rows, code, "mpirun", "bad", "not Open MPI's", "", 66)
    mpirun.unlink()


def sums(tmp):
    answer = '{"ranks": %d, "wrong": %d, "bytes": 4194304, "seconds": %g}'
    for title, values, grade, text, cure in (
            ("wrong sums", (2, 3, 0.01), "bad", "3 of the sums", "test its memory"),
            ("two worlds of one", (1, 0, 0.01), "bad", "each sees 1", "do not know each other"),
            ("a slow network", (2, 0, 1.0), "warn", "4.2 MB/s", "slow")):
        rank = script(tmp, "rank", f"[ \"$1\" = --version ] && echo orrery-rank {VERSION} && exit\n"
                      f"[ \"$OMPI_COMM_WORLD_RANK\" = 0 ] && echo '{answer % values}'\nexit 0\n")
        rows, code = ask(ORRERY_RANK_PROGRAM=rank)
        named(title, rows, code, "two ranks", grade, text, cure)
    rank = script(tmp, "rank", f"[ \"$1\" = --version ] && echo orrery-rank {VERSION} && exit\necho 'error: no way' >&2; exit 73\n")
    rows, code = ask(ORRERY_RANK_PROGRAM=rank)
    named("ranks that fail", rows, code, "two ranks", "bad", "no way", "mpirun -np 2", 69)


def limits(tmp):
    rows, code = ask(limit=(256, 256))
    named("few open files", rows, code, "limits", "warn", "256 open files", "ulimit -n", 0)
    rows, code = ask(before=("prlimit", f"--fsize={100 << 20}"))
    named("small files", rows, code, "limits", "warn", "open files", f"more than {100 << 20} bytes", 0)
    rows, code = ask(TMPDIR=f"{tmp}/none")
    named("no temporary folder", rows, code, "temporary files", "bad", "not writable", "TMPDIR", 77)


def namespaces():
    """A machine of its own: needs root and namespaces."""
    if subprocess.run(["unshare", "-mn", "--uts", "true"], capture_output=True).returncode:
        print("not tried: this machine allows no namespaces")
        return
    inside = "mount -t tmpfs -o size=1m none /dev/shm && hostname nowhere.invalid && exec \"$@\""
    rows, code = ask(before=["unshare", "-mn", "--uts", "sh", "-c", inside, "sh"])
    named("a tiny /dev/shm", rows, code, "shared memory", "bad", "0.00 GiB", "--shm-size", 74)
    named("loopback down", rows, code, "loopback", "bad", "127.0.0.1", "ip link set lo up")
    named("a name without address", rows, code, "host name", "warn", "nowhere.invalid", "/etc/hosts")


def slurm():
    rows, code = ask(SLURM_JOB_ID="7", PATH="/nonexistent")
    named("a job without srun", rows, code, "Slurm", "bad", "in job 7", "module load slurm")


def gpus():
    rows, code = ask("device=cuda")
    if "no libnvidia-ml" in rows["GPUs"]["finding"]:
        named("no GPU where one is wanted", rows, code, "GPUs", "bad", "no GPU", "device=auto")
        check(rows["CUDA plug-in"]["grade"] == "bad" or "liborrery_cuda.so" in rows["CUDA plug-in"]["finding"], "and the plug-in")
        named("none where none is wanted", *ask(), "GPUs", "good", "no GPU", "")
    fake = {"LD_LIBRARY_PATH": FAKE_NVML}
    rows, code = ask(**fake, FAKE_NVML="no-driver")
    named("a library without driver", rows, code, "GPUs", "good", "no driver answers", "")
    rows, code = ask(**fake, FAKE_GPUS="Fake A:81920:37,Fake A:81920:12")
    named("two GPUs", rows, code, "GPUs", "good", "2 x Fake A (80.0 GiB, 20.0 used, 37 % busy), driver 555.42", "")
    named("and they reach each other", rows, code, "GPU peers", "good", "2 of 2 pairs", "")
    rows, code = ask(**fake, FAKE_NVML="no-peers", FAKE_GPUS="Fake A:81920:37,Fake B:40960:12")
    named("unequal GPUs", rows, code, "GPUs", "warn", "2 x Fake A", "1 of them are another model")
    named("no peer access", rows, code, "GPU peers", "warn", "0 of 2 pairs", "GPU 0 cannot read 1")


def stores(tmp):
    config = pathlib.Path(tmp) / "c.yaml"
    config.write_text("train:\n  batch: 12\n")
    orrery("simulate", "table", "--out", f"{tmp}/data", "--episodes", 4, "--frames", 20)
    good = [config, f"data.train={tmp}/data", f"run.dir={tmp}/run"]
    rows, code = ask(*good, f"checkpoint.url={tmp}/data")
    named("a sound store", rows, code, "checkpoints", "good", "created, read and deleted", "", 0)
    check(not [p for p in os.listdir(f"{tmp}/data") if "doctor" in p], "the probe is gone")
    named("readable data", rows, code, "training data", "good", "reachable and readable", "")
    rows, code = ask(*good)
    named("a run that is not there yet", rows, code, "checkpoints", "good", "not there yet", "", 0)
    check(not os.path.exists(f"{tmp}/run"), "nothing was made")
    for url in ("s3://bucket/run", f"file://{tmp}/run"):
        bad = [config, f"data.train={tmp}/data", f"run.dir={url}"]
        rows, code = ask(*bad)
        words = orrery("run", *bad, status=78).stderr
        named("a URL as run.dir", rows, code, "run folder", "bad", f"{url} is a URL, and a run is a folder", "run.dir=runs/first", 78)
        check(rows["run folder"]["finding"] in words, f"in the words of orrery run: {words}")
        named("so checkpoints have no place", rows, code, "checkpoints", "warn", "not tried", "checkpoint.url")
        rows, code = ask(*bad, f"checkpoint.url={tmp}/data")
        named("but one of their own", rows, code, "checkpoints", "good", "created, read and deleted", "", 78)
    for url in (f"file:{tmp}/ck", f"file://{tmp}/ck", f"file://localhost{tmp}/ck"):
        rows, code = ask(*good, f"checkpoint.url={url}")
        named("a folder as a URL", rows, code, "checkpoints", "good", f"{url}, which is not there yet; {tmp} is writable", "", 0)
    rows, code = ask(*good, "checkpoint.url=/proc/self")
    named("no right to write", rows, code, "checkpoints", "bad", "cannot create", "give the right")
    rows, code = ask(*good, f"data.eval={tmp}/none")
    named("no data", rows, code, "held-out data", "bad", "nothing there", "orrery simulate", 66)
    os.makedirs(f"{tmp}/bare")
    pathlib.Path(f"{tmp}/bare/a.tar").write_text("")
    rows, code = ask(*good, f"data.eval={tmp}/bare")
    named("data without an index", rows, code, "held-out data", "bad", "without dataset.json", "orrery data index", 66)
    rows, code = ask(config, "data.train=")
    named("no data set named", rows, code, "training data", "bad", "not set", "data.train=", 78)
    rows, code = ask(*good, "data.eval=s3://bucket/x", "store.endpoint=http://127.0.0.1:9", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    named("nobody at the endpoint", rows, code, "held-out data", "bad", "127.0.0.1", "check the address", 69)


with folder() as scratch:
    for test in (sound, programs, sums, limits, namespaces, slurm, gpus, stores):
        print("--", test.__name__, flush=True)
        test(scratch) if test.__code__.co_argcount else test()
