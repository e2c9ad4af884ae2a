#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A thousand kills of rank, guard, mpirun and supervisor at random moments, one after another or several at once. Each
one's outcome is a line of a file; the same command goes on where it was stopped, and ends with the account.

  tests/fault/kill_campaign.py [--kills 1000] [--jobs 1] [--state out/kills.jsonl]"""
import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = ("rank", "guard", "mpirun", "supervisor")
SECONDS = 180  # for one kill, whatever the load


def kill(number):
    target = TARGETS[number % len(TARGETS)]
    words = [sys.executable, ROOT / "tests/fault/launch_kill.py", target, str(number)]
    try:
        done = subprocess.run(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS)
        lines, code = done.stdout.strip().splitlines() or [""], done.returncode
    except subprocess.TimeoutExpired as e:
        lines, code = [f"no end within {SECONDS} s"], -1
    return {"kill": number, "target": target, "seconds": None if code else float(lines[-1]), "failed": "\n".join(lines[-3:]) if code else ""}


def account(rows):
    good = sorted(r["seconds"] for r in rows if not r["failed"])
    survivors = [r for r in rows if "survivors" in r["failed"]]
    other = [r for r in rows if r["failed"] and r not in survivors]
    for target in TARGETS:
        times = sorted(r["seconds"] for r in rows if r["target"] == target and not r["failed"])
        if times:
            print(f"{target:<10} {len(times):>5} kills  all gone after {times[len(times) // 2]:.3f} s (median), {times[-1]:.3f} s (worst)")
    if good:
        late = sum(t > 1 for t in good)
        print(f"{'all':<10} {len(good):>5} kills  all gone after {good[len(good) // 2]:.3f} s (median), {good[-1]:.3f} s (worst), {late} after more than 1 s")
    print(f"kills with survivors: {len(survivors)}; kills with another defect: {len(other)}")
    for r in survivors + other:
        print(f"  kill {r['kill']} ({r['target']}): {r['failed']}")
    return 1 if survivors or other else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--state", type=pathlib.Path, default=ROOT / "out" / "kills.jsonl")
    a = parser.parse_args()
    a.state.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in a.state.read_text().splitlines()] if a.state.exists() else []
    known = {r["kill"] for r in rows}
    lock = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool, open(a.state, "a", encoding="utf-8") as f:
        def note(number):
            row = kill(number)
            with lock:
                rows.append(row)
                f.write(json.dumps(row) + "\n")
                f.flush()
                if row["failed"] or len(rows) % 25 == 0:
                    print(f"{len(rows)} of {a.kills}: {row['target']} {row['failed'] or row['seconds']}", flush=True)
        try:
            list(pool.map(note, [n for n in range(a.kills) if n not in known]))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print("stopped; the same command goes on")
    return account([r for r in rows if r["kill"] < a.kills])


sys.exit(main())
