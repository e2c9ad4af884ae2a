#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The vendors' ways, each against a stand-in that takes nothing else; and what the probe finds out."""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import aws_standins as aws  # noqa: E402
from orrery_run import ORRERY, check, folder  # noqa: E402


def store(server, vendor, *args):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    env |= {"AWS_ENDPOINT_URL": server.url.replace("127.0.0.1", "localhost"), "AWS_ACCESS_KEY_ID": "AK",
            "AWS_SECRET_ACCESS_KEY": "secret", "ORRERY_STORE_VENDOR": vendor}
    return subprocess.run([ORRERY, "store", *map(str, args)], env=env, capture_output=True, timeout=120, text=True)


def case(name, vendor, want, ends=0):
    server = aws.bucket(name)
    done = store(server, vendor, "probe", "s3://bucket/at", "--json")
    check(done.returncode == ends, f"{name}: probe ends with {ends} {done.stderr.strip()[-200:]}")
    found = json.loads(done.stdout)
    check([found[k] for k in ("create_only", "create_only_complete", "checksum")] == want, f"{name}: found {found}")
    check(not server.objects, "nothing of the probe is left")
    with folder() as tmp:
        (tmp / "x").write_text("the words")
        sent = store(server, vendor, "cp", "--no-verify", tmp / "x", "s3://bucket/at/x")
        read = store(server, vendor, "cat", "s3://bucket/at/x")
    check(sent.returncode == 0 and list(server.objects.values()) == [b"the words"], f"{name}: put {sent.stderr}")
    check(read.stdout == "the words", f"{name}: get")
    check(not server.problems, f"{name}: every request in its way: {server.problems}")


def verified(md5_tags, parts):
    """cp compares ETags with MD5s; where they are none, the server is given the SHA-256 of every body."""
    server = aws.bucket("careless", md5_tags=md5_tags)
    with folder() as tmp:
        content = os.urandom(parts * (8 << 20) - 4096 if parts > 1 else 100000)
        (tmp / "x").write_bytes(content)
        done = store(server, "other", "cp", "--json", tmp / "x", "s3://bucket/x")
        what = f"{parts} parts, ETags {'as' if md5_tags else 'not'} MD5"
        check(done.returncode == 0 and json.loads(done.stdout)["verified"] == 1, f"{what}: copied {done.stderr}")
    unhashed = [b for b in server.bodies if b[1] == "UNSIGNED-PAYLOAD"]
    last = dict((query, (told, true)) for query, told, true in server.bodies)
    check(len(last) == parts, f"{what}: {len(last)} bodies")
    if md5_tags:
        check(len(unhashed) == len(server.bodies) == parts, f"{what}: each was sent once, without a hash")
    else:
        check(unhashed and all(told == true for told, true in last.values()), f"{what}: each was sent with its hash in the end")


def changed(mebibytes, words, change):
    """A file that is written to, or cut, while it is sent is no copy: cp says so."""
    with folder() as tmp:
        path = tmp / "x"
        path.write_bytes(os.urandom(mebibytes << 20))
        server = aws.bucket("careless", on_body=lambda: change(path))
        done = store(server, "other", "cp", path, "s3://bucket/x")
        what = f"{mebibytes} MiB, {change.__name__}"
        check(done.returncode == 65 and words in done.stderr and done.stderr.count("the file") == 1, f"{what}: {done.returncode} {done.stderr}")
        check(mebibytes == 1 or not server.objects, f"{what}: a file in parts is not completed")


def write(path):
    with path.open("r+b") as f:
        f.seek(-1, os.SEEK_END)
        f.write(os.urandom(1))


def cut(path):
    os.truncate(path, 1000)


for change, words in ((write, "changed while it was sent"), (cut, "the file for 'x'")):
    changed(1, words, change)
    changed(80, words, change)
for tags in (True, False):
    verified(tags, 1)
    verified(tags, 4)
case("aws", "aws", [True, True, True])
case("oss", "oss", [True, True, False])
case("gcs", "gcs", [True, True, True])
case("careless", "other", [False, False, False], ends=78)
wrong = store(aws.bucket("oss"), "rgw", "probe", "s3://bucket/at")
check(wrong.returncode == 78 and "ORRERY_STORE_VENDOR" in wrong.stderr, "the wrong vendor's condition is found out")
check(store(aws.bucket("aws"), "ibm", "ls", "s3://bucket").returncode == 78, "no such vendor")
