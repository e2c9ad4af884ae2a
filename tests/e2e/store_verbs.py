#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery store: ls, cp, rm, cat and bench; on files, and on the S3 server that e2e/s3.sh started (S3_BUCKET)."""
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import ORRERY, ROOT, check, environment, folder, orrery  # noqa: E402


def store(*args, rc=0):
    done = orrery("store", *args, check=False)
    check(done.returncode == rc, f"store {' '.join(map(str, args))[:120]} ends with {rc}: {done.stderr.strip()[-300:]}")
    return done


def listed(url):
    return {o["key"]: o["bytes"] for o in json.loads(store("ls", "-r", url, "--json").stdout)["objects"]}


def tree(path):
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in path.rglob("*") if p.is_file()}


def make_tree(path):
    r = random.Random(1)
    sizes = {"a.bin": 5_000_000, "empty": 0, "sub/x y+z=%": 10, "sub/deep/é": 100_000, "big": 20_000_001}
    for name, size in sizes.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(r.randbytes(size))


def verbs(tmp, base):
    source = tmp / "tree"
    make_tree(source)
    shutil.rmtree(tmp / "back", ignore_errors=True)
    store("cp", "-r", source, f"{base}/t")
    check({k.removeprefix("verbs/").removeprefix("t/"): v for k, v in listed(f"{base}/t").items()} ==
          {str(p.relative_to(source)): p.stat().st_size for p in source.rglob("*") if p.is_file()}, "all is listed")
    done = store("cp", "-r", "--json", f"{base}/t", tmp / "back")
    check(tree(tmp / "back") == tree(source), "a tree comes back as it was")
    told = json.loads(done.stdout)
    check(told["objects"] == 5 and told["bytes"] == 25_100_011, "the summary counts")
    store("cp", f"{base}/t/a.bin", tmp / "named.bin")
    store("cp", f"{base}/t/a.bin", f"{base}/copies/")
    store("cp", f"{base}/t/big", f"{base}/copies/of-big")
    check((tmp / "named.bin").read_bytes() == (source / "a.bin").read_bytes(), "one object to a name")
    shown = subprocess.run([ORRERY, "store", "cat", f"{base}/copies/of-big"], capture_output=True, cwd=ROOT)
    check(shown.stdout == (source / "big").read_bytes(), "cat gives every byte")
    check("copies/" in store("ls", f"{base}/").stdout, "ls shows folders")
    store("ls", f"{base}/nothing", rc=66)
    store("cat", f"{base}/nothing", rc=66)
    store("cp", f"{base}/nothing", tmp / "x", rc=66)
    store("cp", f"{base}/t/", tmp / "x", rc=64)
    store("rm", f"{base}/t", rc=64)
    store("rm", f"{base}/copies/of-big")
    store("ls", f"{base}/copies/of-big", rc=66)
    store("rm", "-r", f"{base}/t")
    store("rm", "-r", f"{base}/copies/")


def home(tmp):
    """What a slip would remove, needs one word more."""
    own = tmp / "home"
    (own / "sub").mkdir(parents=True)
    (own / "kept").write_text("x")
    env = environment(HOME=own)
    for args in (["-r", own], ["-r", f"file://{own}/"], ["-r", tmp], ["--uploads", own]):
        done = orrery("store", "rm", *args, check=False, env=env)
        check(done.returncode == 64 and "--everything" in done.stderr and (own / "kept").exists(), f"rm {args}: {done.stderr.strip()}")
    orrery("store", "rm", "-r", "--everything", own, env=env)
    check(not (own / "kept").exists(), "with --everything it goes")


def killed(command, seconds):
    child = subprocess.Popen([ORRERY, "store", *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        child.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return True


def resumes(source, target, path_after, digest):
    """kill -9 in the middle; the same command then goes on, and the bytes are right."""
    seconds, resumed = 0.15, 0
    for _ in range(20):
        if killed(["cp", source, target], seconds):
            resumed = json.loads(store("cp", "--json", source, target).stdout)["resumed_bytes"]
            check(digest() == path_after, "after a kill and a second command every byte is right")
            if resumed:
                break
            seconds *= 1.6
        else:
            seconds *= 0.6
    check(resumed > 0, f"{resumed} bytes were not moved again")


def resume(tmp, bucket):
    big = tmp / "big"
    big.write_bytes(random.Random(2).randbytes(96 << 20))
    want = hashlib.sha256(big.read_bytes()).hexdigest()
    url = f"s3://{bucket}/resume/big"

    def remote():
        with subprocess.Popen([ORRERY, "store", "cat", url], stdout=subprocess.PIPE) as child:
            return hashlib.file_digest(child.stdout, "sha256").hexdigest()

    resumes(big, url, want, remote)
    slow = f"fault:delay=20ms@100%:s3://{bucket}/resume/big"
    back = tmp / "back.bin"
    resumes(slow, back, want, lambda: hashlib.sha256(back.read_bytes()).hexdigest())
    part = tmp / "again.bin.orrery-part"
    for _ in range(20):
        if killed(["cp", slow, tmp / "again.bin"], 0.3) and part.exists():
            break
    with open(part, "r+b") as f:
        f.write(b"damage")
    store("cp", slow, tmp / "again.bin")
    check(hashlib.sha256((tmp / "again.bin").read_bytes()).hexdigest() == want, "what was damaged since is fetched again")


def main():
    with folder() as tmp:
        (tmp / "files").mkdir()
        verbs(tmp, str(tmp / "files"))
        home(tmp)
        bucket = os.environ.get("S3_BUCKET")
        if not bucket:
            return
        verbs(tmp, f"s3://{bucket}/verbs")
        store("rm", "-r", f"s3://{bucket}", rc=64)
        resume(tmp, bucket)
        rows = json.loads(store("bench", f"s3://{bucket}/b", "--size", 16, "--requests", 20, "--json").stdout)
        check({r["width"] for r in rows["rows"]} == {1, 16, 64}, "bench measures at 1, 16 and 64")
        store("ls", f"s3://{bucket}/b", rc=66)


main()
