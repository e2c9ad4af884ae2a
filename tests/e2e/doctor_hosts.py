#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery doctor --hosts on three hosts (network namespaces): sound ones, and planted defects that each are named."""
import json
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import ORRERY, ROOT, check, environment, folder, orrery, refused  # noqa: E402
from testbed_hosts import SCRIPT, hosts  # noqa: E402

VERSION = orrery("version").stdout.split()[-1]


def ask(h, names="h1,h2", agent=None, words=(), as_json=True):
    begin = time.monotonic()
    done = subprocess.run([SCRIPT, "exec", h.path, "h1", ORRERY, "doctor", "--hosts", names, "--agent", str(agent or f"{h.path}/agent"),
                           *(["--json"] if as_json else []), *words], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    took = time.monotonic() - begin
    if not as_json:
        return done.stdout, done.returncode, took
    check(done.stdout.startswith("["), f"doctor answers: {done.returncode} {done.stderr.strip()[-300:]}")
    rows = json.loads(done.stdout)
    check(all(r["cure"] for r in rows if r["grade"] != "good"), "whatever is not good has a cure")
    return rows, done.returncode, took


def named(title, rows, host, name, grade, text, cure):
    found = [r for r in rows if (r["host"], r["check"], r["grade"]) == (host, name, grade) and text in r["finding"] and cure in r["cure"]]
    told = [(r["host"], r["check"], r["grade"], r["finding"]) for r in rows if r["grade"] != "good"]
    check(found, f"{title}: {found[0]['finding'] if found else told}")


def summed(rows, n):
    """The sum is right. How fast it is, and whether that is slow, is the machine's affair: test_doctor.c has the verdict."""
    found = [r for r in rows if (r["host"], r["check"]) == ("", "ranks")]
    told = re.fullmatch(rf"{n} ranks sum right, ([0-9.]+) MB/s for ([0-9.]+) MB", found[0]["finding"]) if len(found) == 1 else None
    check(told and float(told.group(1)) > 0 and float(told.group(2)) > 0, f"ranks: {found}")


def agent(h, tmp, name, body):
    """An agent that spoils something on h2: body is shell; $host and \"$@\" are the host and the command."""
    path = pathlib.Path(tmp) / name
    path.write_text(f"#!/bin/sh\nhost=$1; shift\n[ $host = h2 ] || exec {h.path}/agent $host \"$@\"\n{body}\n")
    path.chmod(0o755)
    return path


def sound(h):
    times = []
    for names in ("h1,h2", "h1,h2,h3"):
        rows, code, took = ask(h, names)
        times.append(took)
        n = names.count("h")
        check(code == 0 and not [r for r in rows if r["grade"] == "bad"], f"{names} are fit: {[r for r in rows if r['grade'] == 'bad']}")
        named("alike", rows, "", "alike", "good", f"{n} hosts have the same orrery-rank", "")
        named("pairs", rows, "", "ports", "good", f"all {n * (n - 1)} pairs", "")
        named("interface", rows, "h2", "interface", "good", "eth0 leads", "")
        summed(rows, n)
        named("clocks", rows, "", "clock skew", "good", "clocks agree", "")
    print(f"2 hosts in {times[0]:.2f} s (bar 5 s), 3 hosts in {times[1]:.2f} s")
    text, code, _ = ask(h, as_json=False)
    check(code == 0 and "h2: calls itself h2" in text, "the same for people")


def nobody(h, tmp):
    rows, code, _ = ask(h, "h1,h2", agent(h, tmp, "deaf", "echo 'ssh: connect to host h2 port 22: Connection refused' >&2; exit 255"))
    named("no way in", rows, "h2", "answers", "bad", "Connection refused", "ssh-copy-id h2")
    check(code == 69, f"exit {code}")
    rows, code, _ = ask(h, "h1,h2", agent(h, tmp, "bare", "echo 'sh: 1: exec: orrery: not found' >&2; exit 127"))
    named("not installed", rows, "h2", "answers", "bad", "not found", "same path")
    rows, code, _ = ask(h, "h1,h2", agent(h, tmp, "chatty", f"echo Welcome to h2; exec {h.path}/agent $host \"$@\""))
    check(code == 0, "a greeting of the login shell does no harm")


def unlike(h, tmp):
    other = pathlib.Path(tmp) / "orrery-rank"
    other.write_text(f"#!/bin/sh\necho orrery-rank {VERSION}-beta\n")
    other.chmod(0o755)
    rows, code, _ = ask(h, "h1,h2", agent(h, tmp, "old", f"exec {h.path}/agent $host env ORRERY_RANK_PROGRAM={other} \"$@\""))
    named("another orrery-rank", rows, "h2", "alike", "bad", "orrery-rank differs", "same on every host")
    check(code == 69, f"exit {code}")
    named("and no sum is tried", rows, "", "ranks", "warn", "not tried", "mend")


def own_defects(h, tmp):
    rows, code, _ = ask(h, "h1,h2", agent(h, tmp, "poor", f"exec {h.path}/agent $host ulimit -n 256 ';' \"$@\""))
    named("limits of one host", rows, "h2", "limits", "warn", "256 open files", "ulimit -n")
    rows, code, _ = ask(h, "h1,h2", agent(h, tmp, "tiny", f"exec {h.path}/agent $host unshare -m sh -c \"'mount -t tmpfs -o size=1m none /dev/shm && $*'\""))
    named("/dev/shm of one host", rows, "h2", "shared memory", "bad", "0.00 GiB", "--shm-size")


def clocks(h, tmp):
    """No namespace has a wall clock of its own: what the probe says is shifted on its way."""
    shift = pathlib.Path(tmp) / "shift.py"
    shift.write_text("import json, sys\nfor line in sys.stdin:\n"
                     "    if line.startswith('{\"time_ns\"'):\n        line = json.dumps({'time_ns': json.loads(line)['time_ns'] + int(sys.argv[1])}) + '\\n'\n"
                     "    sys.stdout.write(line)\n    sys.stdout.flush()\n")
    for seconds, grade, text in ((2, "warn", "s ahead"), (-900, "bad", "s behind")):
        rows, code, _ = ask(h, "h1,h2", agent(h, tmp, "late", f"{h.path}/agent $host \"$@\" | python3 -u {shift} {seconds * 10**9}"))
        named(f"a clock {seconds} s off", rows, "h2", "clock skew", grade, text, "chrony")


def names(h, tmp):
    table = pathlib.Path(h.path) / "etc-hosts"
    kept = table.read_text()
    for title, text, kind, cure in (("a name that means oneself", kept.replace("10.77.0.2 h2", "127.0.1.1 h2"), "means this host itself", "take h2 off"),
                                    ("a name without address", kept.replace("10.77.0.2 h2\n", ""), "cannot reach h2", "add h2 to")):
        table.write_text(text)
        rows, code, _ = ask(h, "h1,h3,h2" if "oneself" in title else "h1,h2")
        named(title, rows, "h1", "ports", "bad", kind, cure)
        check(code in (69, 78), f"exit {code}")
    table.write_text(kept)


def blocked(h):
    """h2 answers the agent, but packets between h2 and h3 go nowhere."""
    subprocess.run([SCRIPT, "exec", h.path, "h2", "ip", "route", "add", "blackhole", "10.77.0.3"], check=True)
    rows, code, _ = ask(h, "h1,h2,h3")
    named("one way is shut", rows, "h2", "ports", "bad", "cannot reach h3", "h3")
    named("and the way back", rows, "h3", "ports", "bad", "cannot reach h2", "h2")
    check(not [r for r in rows if r["host"] == "h1" and r["check"] == "ports"], "the pairs that work are not blamed")
    subprocess.run([SCRIPT, "exec", h.path, "h2", "ip", "route", "del", "blackhole", "10.77.0.3"], check=True)


def bad_words(h):
    for layout, text in (("-oProxyCommand=x", "no host name"), ("h1,h1", "twice"), ("", "no host name")):
        refused(["doctor", "--hosts", layout], 78, text)
    done = subprocess.run([ORRERY, "doctor", "--probe"], input="config x\n", capture_output=True, text=True, timeout=60)
    check(done.returncode == 64, f"a probe that is told nonsense: {done.stderr.strip()}")
    done = subprocess.run([ORRERY, "doctor", "--probe"], input="peer ../x 1 y\n", capture_output=True, text=True, timeout=60)
    check(done.returncode == 64, f"a peer that is no host: {done.stderr.strip()}")


with hosts() as testbed, folder() as scratch:
    for test in (sound, nobody, unlike, own_defects, clocks, names, blocked, bad_words):
        print("--", test.__name__, flush=True)
        test(testbed, scratch) if test.__code__.co_argcount == 2 else test(testbed)
