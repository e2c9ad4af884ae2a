#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Job files of `orrery submit`: readable, parseable, and deaf to hostile values. Each value either is refused, or the
script that holds it passes `bash -n`, has the same lines as one with harmless values, and hands orrery that very value
when bash runs it. ORRERY_SEED and ORRERY_ROUNDS: random values besides the listed ones."""
import contextlib
import json
import os
import pathlib
import random
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import ORRERY, ROOT, check, environment, folder, orrery  # noqa: E402

HOSTILE = ["-x", "--wrap=id", "a b", "a;touch CANARY", "$(touch CANARY)", "`touch CANARY`", "a'b", "a\"b", "a\nb",
           "a\n#SBATCH --wrap=touch CANARY", "a\n'; touch CANARY; '", "&& touch CANARY", "| touch CANARY", "> CANARY", "\\", "a\\",
           "*", "~root", "{a,b}", "#", "!!", "%s%n", "a: b", "- a", "{}", "[x", "\x1b[31m", "\x7f", "é", "'", "''", "$IFS",
           "a\tb", "x]", "(", "<(touch CANARY)", "@/etc/passwd", "0" * 300]
# Keys whose values stand in the file, by scheduler, and a harmless value of each.
SLURM = {"partition": "low", "account": "lab", "qos": "long", "time": "1:00:00", "memory": "4G", "modules": "m/1",
         "setup": "./s.sh", "options": "--exclusive"}
K8S = {"image": "x/y:1", "namespace": "lab", "claim": "work", "mount": "/work", "cpu": "2", "memory": "1Gi"}
# What the script is run with: stand-ins that write down what they are called with, one NUL-ended word each.
STUB = """#!/bin/bash
printf '%s\\0' "$@" >"$RECORD"
exit "${STUB_EXIT:-0}"
"""


def random_value(rng):
    return "".join(rng.choice("ab-$`'\"\\;&|<>(){}[]*?~#!%= \n\t/.,:@") for _ in range(rng.randint(1, 12)))


def dry_run(tmp, kind, *words):
    done = orrery("submit", f"{tmp}/c.yaml", f"--{kind}", "--dry-run", *words, check=False)
    check_quiet(done.returncode in (0, 64, 78), f"{words}: exit {done.returncode}: {done.stderr}")
    if done.returncode:
        check_quiet(done.stdout == "" and done.stderr.count("\n") == 1, f"refused in one line: {done.stderr!r}")
    return done.stdout if done.returncode == 0 else None


def check_quiet(condition, text):
    if not condition:
        check(False, text)


def run_script(tmp, text, env=None):
    """What orrery was called with when bash runs the script; its exit status."""
    stubs = pathlib.Path(tmp) / "stubs"
    script, record = pathlib.Path(tmp) / "script.sh", pathlib.Path(tmp) / "record"
    script.write_text(text.replace(ORRERY, str(stubs / "orrery")))
    check_quiet(subprocess.run(["bash", "-n", script]).returncode == 0, "bash -n")
    record.unlink(missing_ok=True)
    done = subprocess.run(["bash", script], cwd=tmp, env={**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}", "RECORD": str(record),
                                                          "SLURM_JOB_ID": "7", **(env or {})}, capture_output=True, text=True, timeout=60)
    words = record.read_bytes().decode().split("\0")[:-1] if record.exists() else None
    return words, done


def make_stubs(tmp):
    stubs = pathlib.Path(tmp) / "stubs"
    stubs.mkdir()
    for name, text in (("orrery", STUB), ("module", "#!/bin/bash\nexit 0\n"),
                       ("scontrol", "#!/bin/bash\necho \"$@\" >>\"$RECORD.scontrol\"\nexit 1\n")):
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)


def shape(text):
    """The lines with what may differ taken out."""
    return [line.split("=")[0] if line.startswith("#SBATCH") else line.split(" ")[0] for line in text.splitlines()]


def no_canary(tmp):
    found = [p for p in pathlib.Path(tmp).rglob("CANARY")] + [p for p in pathlib.Path(".").glob("CANARY")]
    check_quiet(not found, f"nothing was run: {found}")


def hostile_slurm(tmp, values):
    kept = 0
    (pathlib.Path(tmp) / "s.sh").write_text("")
    for key, harmless in SLURM.items():
        normal = dry_run(tmp, "slurm", f"slurm.{key}={harmless}")
        check_quiet(normal is not None, f"slurm.{key}={harmless} is fine")
        for value in values:
            text = dry_run(tmp, "slurm", f"slurm.{key}={value}")
            if text is None or (key == "modules" and "," in value) or (key == "options" and " " in value):
                continue
            kept += 1
            check_quiet(value == "" or shape(text) == shape(normal), f"slurm.{key}={value!r}: the same lines")
            words, done = run_script(tmp, text)
            # A setup script of such a name is not there: then nothing is run at all.
            check_quiet(words is None and key == "setup" or words[2:] == [f"slurm.{key}={value}"], f"slurm.{key}={value!r}: {words}")
            no_canary(tmp)
    return kept


def hostile_words(tmp, values):
    """The config's path and overrides: every one without control characters must arrive as it was typed."""
    kept = 0
    for i, value in enumerate(values):
        text = dry_run(tmp, "slurm", f"data.train={value}")
        control = any(ord(c) < 32 or ord(c) == 127 for c in value)
        check_quiet((text is None) == control, f"data.train={value!r} {'refused' if control else 'kept'}")
        if text:
            words, _ = run_script(tmp, text)
            check_quiet(words == ["run", f"{tmp}/c.yaml", f"data.train={value}"], f"{value!r} arrives: {words}")
            kept += 1
        name = "".join(c for c in value if c not in "/\0")[:100]
        if not name or name in (".", ".."):
            continue
        (pathlib.Path(tmp) / f"{i}").mkdir()
        path = pathlib.Path(tmp) / f"{i}" / name
        path.write_text("train:\n  steps: 3\n")
        done = orrery("submit", str(path), "--slurm", "--dry-run", check=False)
        check_quiet((done.returncode != 0) == any(ord(c) < 32 or ord(c) == 127 for c in name), f"path {name!r}: {done.stderr}")
        if not done.returncode:
            check_quiet(run_script(tmp, done.stdout)[0] == ["run", str(path)], f"path {name!r} arrives")
        no_canary(tmp)
    return kept


def hostile_k8s(tmp, values):
    try:
        import yaml
    except ImportError:
        print("no python3-yaml: the MPIJob is not parsed")
        return 0
    kept = 0
    base = ["k8s.image=x/y:1", "k8s.claim=work"]
    normal = yaml.safe_load(dry_run(tmp, "k8s", *base))
    keys = lambda v: {k: keys(x) for k, x in v.items()} if isinstance(v, dict) else [keys(x) for x in v] if isinstance(v, list) else None
    for key in [*K8S, "override"]:
        for value in values:
            word = f"data.train={value}" if key == "override" else f"k8s.{key}={value}"
            text = dry_run(tmp, "k8s", *base, word)
            if text is None:
                continue
            kept += 1
            job = yaml.safe_load(text)
            replicas = job["spec"]["mpiReplicaSpecs"]
            check_quiet(set(job) == set(normal) and set(replicas) == set(normal["spec"]["mpiReplicaSpecs"]), f"{word!r}: the same keys")
            launcher = replicas["Launcher"]["template"]["spec"]
            check_quiet(launcher["containers"][0]["command"] == ["orrery", "run", f"{tmp}/c.yaml", *base, word.replace("$", "$$")],
                        f"{word!r} arrives, and Kubernetes sees no variable in it")
            check_quiet(keys(launcher) | {"containers": 0} == keys(normal["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]) | {"containers": 0},
                        f"{word!r}: no key more")
    return kept


def k8s_names(tmp):
    """What Kubernetes itself would refuse is refused here."""
    for key, bad in (("namespace", ("Lab", "-a", "a-", "a.b", "a" * 64)), ("claim", ("Work", "a_b", ".a", "a" * 254)),
                     ("cpu", ("abc", "-1", "4.", ".", "4 cores", "4x")), ("memory", ("16GB", "Gi", "1e", "1.5.2Gi"))):
        for value in bad:
            done = orrery("submit", f"{tmp}/c.yaml", "--k8s", "--dry-run", "k8s.image=x/y:1", f"k8s.{key}={value}", check=False)
            check_quiet(done.returncode == 78 and f"k8s.{key}" in done.stderr and not done.stdout, f"k8s.{key}={value}: {done.stderr}")
    for word in ("namespace=lab-2", "claim=work.a-b", "cpu=500m", "cpu=0.5", "memory=16Gi", "memory=1000M"):
        check_quiet(dry_run(tmp, "k8s", "k8s.image=x/y:1", f"k8s.{word}") is not None, f"k8s.{word} is fine")
    long = dry_run(tmp, "k8s", "k8s.image=x/y:1", "k8s.workers=4096", f"run.dir={tmp}/{'A.' * 60}")
    name = next(line for line in long.splitlines() if line.startswith("  name: ")).split('"')[1]
    check(re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(f"{name}-worker-4095") <= 63, f"a long run's name: {name}")


def k8s_farewell(tmp):
    """A pod that must go asks its ranks to stop, and no other process; it waits for them."""
    try:
        import yaml
    except ImportError:
        return print("no python3-yaml: the farewell is not tried")
    if subprocess.run(["unshare", "-pf", "--mount-proc", "true"], capture_output=True).returncode:
        return print("not tried: this machine allows no namespaces")
    spec = yaml.safe_load(dry_run(tmp, "k8s", "k8s.image=x/y:1", "k8s.grace_s=300"))["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]
    command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    check(spec["terminationGracePeriodSeconds"] == 300 and command[:2] == ["sh", "-c"], "the pod has its time")
    rank = pathlib.Path(tmp) / "orrery-rank"
    rank.write_text("#!/bin/sh\ntrap 'sleep 1; echo saved >>\"$0.saved\"; exit 75' TERM\nwhile :; do sleep 0.1; done\n")
    rank.chmod(0o755)
    pod = f'{rank} & {rank} & sleep 600 & other=$!; sleep 0.5; "$@"; cat {rank}.saved; kill -0 $other && echo other lives; kill $other'
    done = subprocess.run(["unshare", "-pf", "--mount-proc", "sh", "-c", pod, "sh", *command], text=True, capture_output=True, timeout=60)
    check(done.stdout.split("\n")[:3] == ["saved", "saved", "other lives"], f"both ranks have saved: {done.stdout!r} {done.stderr[-200:]}")


def the_script(tmp):
    text = dry_run(tmp, "slurm", "slurm.nodes=4", "slurm.gpus_per_node=8", "slurm.partition=gpu", "slurm.time=4:00:00", f"run.dir={tmp}/r")
    for line in ("#SBATCH --nodes=4", "#SBATCH --ntasks-per-node=8", "#SBATCH --gpus-per-node=8", "#SBATCH --partition=gpu",
                 "#SBATCH --time=4:00:00", "#SBATCH --requeue", "#SBATCH --no-kill", "#SBATCH --signal=B:USR1@120",
                 f"#SBATCH --output={tmp}/r/slurm-%j.out"):
        check(line in text.splitlines(), line)
    record = pathlib.Path(tmp) / "record.scontrol"
    for code, requeues in ((0, 0), (75, 1), (78, 0), (137, 0)):
        record.unlink(missing_ok=True)
        _, done = run_script(tmp, text, {"STUB_EXIT": str(code)})
        asked = record.read_text().split() if record.exists() else []
        check(done.returncode == code and asked == ["requeue", "7"] * requeues, f"orrery ends with {code}: exit {done.returncode}, {asked}")
    check(not pathlib.Path(f"{tmp}/r").exists(), "--dry-run makes no run folder")
    for words in (["slurm.ranks_per_node=2", "-n", "3"], ["slurm.nodes=4", "-n", "3"]):
        done = orrery("submit", f"{tmp}/c.yaml", "--slurm", "--dry-run", *words, check=False)
        check(done.returncode == 78 and "ranks" in done.stderr, done.stderr.strip())
    for limit, good in (("90", 1), ("1:30", 1), ("2-12", 1), ("2-12:30:00", 1), ("abc", 0), ("4:", 0), ("2-", 0), ("1:2:3:4", 0)):
        done = orrery("submit", f"{tmp}/c.yaml", "--slurm", "--dry-run", f"slurm.time={limit}", check=False)
        said = f"#SBATCH --time={limit}" in done.stdout.splitlines() if good else "slurm.time" in done.stderr
        check(said and done.returncode == (0 if good else 78), f"slurm.time={limit}: exit {done.returncode}")
    env = environment(PATH="/nonexistent")
    done = orrery("submit", f"{tmp}/c.yaml", "--slurm", f"run.dir={tmp}/none", env=env, check=False)
    check(done.returncode == 69 and "--dry-run" in done.stderr, done.stderr.strip())
    done = orrery("submit", f"{tmp}/c.yaml", check=False)
    check(done.returncode == 64, done.stderr.strip())
    done = orrery("submit", f"{tmp}/c.yaml", "--k8s", "--dry-run", check=False)
    check(done.returncode == 78 and "k8s.image" in done.stderr, done.stderr.strip())


@contextlib.contextmanager
def in_a_group(*words, **more):
    """All of it ends with the test: what is left would hold the test's output open."""
    child = subprocess.Popen(*words, start_new_session=True, **more)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 9)
        child.wait()


def signals(tmp):
    """USR1: passed on, then again. USR2 and TERM: passed on, and not again. The exit status is orrery's own."""
    stub = pathlib.Path(tmp) / "stubs" / "orrery"
    stub.write_text("#!/bin/bash\ntrap 'echo USR1 >>$RECORD; got=1' USR1\ntrap 'echo TERM >>$RECORD; got=1' TERM\n"
                    "touch $RECORD.up\nwhile [ -z \"$got\" ]; do sleep 0.05; done\nsleep 0.3\nexit 75\n")
    script = pathlib.Path(tmp) / "script.sh"
    ready = f"source deploy/slurm/go.sh\ngo {stub}\n"
    made = dry_run(tmp, "slurm").replace(ORRERY, str(stub))
    scripts = [made, ready]
    for start in ('"${command[@]}" &', "run=$!"):  # the signal comes before either of them is done
        check_quiet(made.count(f"{start}\n") == 1, start)
        scripts.append(made.replace(start, f"touch $RECORD.up; sleep 0.3; {start}"))
    cases = [(text, *case) for text in scripts for case in (("USR1", "USR1", 1), ("USR2", "USR1", 0), ("TERM", "TERM", 0))]
    for text, number, passed, asked in cases:
        record = pathlib.Path(tmp) / f"record-{number}-{scripts.index(text)}"
        env = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}", "RECORD": str(record), "SLURM_JOB_ID": "7"}
        script.write_text(text)
        with in_a_group(["bash", script], cwd=ROOT, env=env) as child:
            while not pathlib.Path(f"{record}.up").exists():
                check_quiet(child.poll() is None, "the script runs")
            subprocess.run(["bash", "-c", f"kill -{number} {child.pid}"], check=True)
            code = child.wait(30)
        again = pathlib.Path(f"{record}.scontrol").exists()
        check(code == 75 and record.read_text().split() == [passed] and again == bool(asked),
              f"{number}: orrery gets {passed}, exit {code}, {'requeued' if again else 'not requeued'}")


def array(tmp):
    """An element runs its own line; without one it runs nothing."""
    stub = pathlib.Path(tmp) / "stubs" / "orrery-array"
    stub.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    stub.chmod(0o755)
    runs = pathlib.Path(tmp) / "runs.txt"
    runs.write_text("run.seed=1\n\noptim.lr=0.1 run.seed=2\n")
    plain = {k: v for k, v in os.environ.items() if k != "RUNS"}
    for number, where, want in ((1, runs, ["run.seed=1"]), (3, runs, ["optim.lr=0.1", "run.seed=2"]), (2, runs, None), (4, runs, None),
                                (1, f"{tmp}/none", None), (1, None, None)):
        env = {**plain, "ORRERY": str(stub), "ORRERY_DEPLOY": str(ROOT / "deploy/slurm"), "SLURM_ARRAY_TASK_ID": str(number),
               **({"RUNS": str(where)} if where else {})}
        done = subprocess.run(["bash", ROOT / "deploy/slurm/array.sh"], env=env, text=True, capture_output=True)
        ran = done.stdout.splitlines()[3:] if done.stdout else None
        check(ran == want and (done.returncode == 0) == bool(want) and (want or "RUNS" in done.stderr or "no line" in done.stderr),
              f"line {number} of {where}: {ran}, exit {done.returncode} {done.stderr.strip()}")


def ready_scripts():
    for script in sorted(pathlib.Path("deploy/slurm").glob("*.sh")):
        check(subprocess.run(["bash", "-n", script]).returncode == 0, f"bash -n {script}")


def main():
    rng = random.Random(int(os.environ.get("ORRERY_SEED", "1")))
    values = HOSTILE + [random_value(rng) for _ in range(int(os.environ.get("ORRERY_ROUNDS", "10")))]
    with folder() as tmp:
        tmp = os.path.realpath(tmp)
        pathlib.Path(tmp, "c.yaml").write_text("train:\n  steps: 3\n")
        make_stubs(tmp)
        the_script(tmp)
        print(f"ok: {len(values)} hostile values, {hostile_slurm(tmp, values)} kept for Slurm's keys")
        print(f"ok: {hostile_words(tmp, values)} kept as overrides")
        print(f"ok: {hostile_k8s(tmp, values)} kept in MPIJobs")
        k8s_names(tmp)
        k8s_farewell(tmp)
        signals(tmp)
        array(tmp)
    ready_scripts()


main()
