#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What lies at a server is not what a command takes it for: an older object where an upload was to be completed, an object that is
overwritten while it is read, an upload that was begun for another content of the file."""
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import threading
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import aws_standins as aws  # noqa: E402
from orrery_run import ORRERY, check, environment, folder  # noqa: E402

MIB = 1 << 20
PART = 8 * MIB  # of an object of less than 64 MiB
SUM = "x-amz-meta-orrery-crc32c"


def tag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


class Bucket:
    """Objects and multipart uploads as S3 has them. `before(h, path)` is called with every request, the lock held; one that returns
    True has answered it."""

    def __init__(self, before=lambda h, path: False):
        self.objects, self.uploads, self.before, self.sent = {}, {}, before, 0
        self.lock = threading.RLock()
        self.server = aws.Server(self.answer)

    def put(self, key, data, sum=None):
        self.objects[key] = (data, tag(data), sum)

    def begin(self, key, sum=None):
        name = f"u{len(self.uploads)}"
        self.uploads[name] = (key, sum, {})
        return name

    def complete(self, name):
        key, sum, parts = self.uploads.pop(name)
        data = [parts[n] for n in sorted(parts)]
        md5s = hashlib.md5(b"".join(hashlib.md5(d).digest() for d in data)).hexdigest()
        self.objects[key] = (b"".join(data), f'"{md5s}-{len(data)}"', sum)

    def answer(self, h):
        data = h.body()
        path, _, query = h.path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        key = path.removeprefix("/bucket/")
        with self.lock:
            if not self.before(h, path):
                self.answer_one(h, key, asked, data)

    def answer_one(self, h, key, asked, data):
        if "uploads" in asked and h.command == "POST":
            return h.send(200, f"<InitiateMultipartUploadResult><UploadId>{self.begin(key, h.headers[SUM])}</UploadId>"
                               "</InitiateMultipartUploadResult>")
        if "uploads" in asked:
            found = "".join(f"<Upload><Key>{k}</Key><UploadId>{u}</UploadId><Initiated>2026-01-01T00:00:0{u[1:]}Z</Initiated></Upload>"
                            for u, (k, _, _) in self.uploads.items())
            return h.send(200, f"<ListMultipartUploadsResult>{found}</ListMultipartUploadsResult>")
        if "uploadId" in asked:
            return self.answer_upload(h, asked, data)
        if h.command == "PUT":
            self.put(key, data, h.headers[SUM])
            return h.send(200, ETag=tag(data))
        if key not in self.objects:
            return h.send(404, "<Error><Code>NoSuchKey</Code></Error>")
        content, etag, sum = self.objects[key]
        more = {"ETag": etag, **({SUM: sum} if sum else {})}
        if not h.headers["range"]:
            return h.send(200, content, **more)
        first, last = (int(n) for n in h.headers["range"].removeprefix("bytes=").split("-"))
        last = min(last, len(content) - 1)
        h.send(206, content[first:last + 1], Content_Range=f"bytes {first}-{last}/{len(content)}", **more)

    def answer_upload(self, h, asked, data):
        name = asked["uploadId"]
        if name not in self.uploads:
            return h.send(404, "<Error><Code>NoSuchUpload</Code></Error>")
        _, _, parts = self.uploads[name]
        if h.command == "PUT":
            parts[int(asked["partNumber"])] = data
            self.sent += len(data)
            return h.send(200, ETag=tag(data))
        if h.command == "POST":
            self.complete(name)
            return h.send(200, "<CompleteMultipartUploadResult/>")
        if h.command == "DELETE":
            self.uploads.pop(name)
            return h.send(204)
        found = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{tag(d)}</ETag><Size>{len(d)}</Size></Part>" for n, d in parts.items())
        h.send(200, f"<ListPartsResult>{found}</ListPartsResult>")

    def run(self, *args):
        env = environment(AWS_ENDPOINT_URL=self.server.url, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="secret")
        return subprocess.run([ORRERY, *map(str, args)], env=env, capture_output=True, text=True, timeout=240)

    def cp(self, *args):
        return self.run("store", "cp", "--json", *args)


# ---- an upload whose completion is in doubt.

def doubtful(tmp, what, source, done, rc):
    """The first completion is answered 500, all that follow with "no such upload". `done`: it was carried out. An older object of that
    size lies there."""
    state = {"asked": 0}

    def before(h, path):
        if h.command != "POST" or "uploadId" not in h.path or not path.endswith("/key"):
            return False
        state["asked"] += 1
        if state["asked"] > 1:
            return h.send(404, "<Error><Code>NoSuchUpload</Code></Error>") or True
        name = h.path.partition("uploadId=")[2]
        if done:
            bucket.complete(name)
        else:
            bucket.uploads.pop(name)
        return h.send(500, "<Error><Code>InternalError</Code></Error>") or True

    bucket = Bucket(before)
    old, new = os.urandom(20 * MIB), os.urandom(20 * MIB)
    (tmp / "new").write_bytes(new)
    bucket.put("from", new)
    bucket.put("key", old)
    copied = bucket.cp(tmp / "new" if source == "file" else "s3://bucket/from", "s3://bucket/key")
    check(copied.returncode == rc, f"{what}, from a {source}: {copied.returncode} {copied.stdout}{copied.stderr.strip()[-200:]}")
    check(bucket.objects["key"][0] == (new if done else old), f"{what}, from a {source}: what lies there is what was said")


# ---- objects that are overwritten while they are read.

def overwritten():
    """Its second half is of another version: no copy of such an object is made."""
    asked = []

    def before(h, path):
        if h.command == "GET" and path.endswith("/from"):
            asked.append(path)
            if len(asked) == 2:
                bucket.put("from", os.urandom(20 * MIB))
        return False

    bucket = Bucket(before)
    bucket.put("from", os.urandom(20 * MIB))
    done = bucket.cp("s3://bucket/from", "s3://bucket/to")
    check(done.returncode == 65 and "changed while it was read" in done.stderr, f"a copy of two versions: {done.returncode} {done.stderr.strip()}")
    check("to" not in bucket.objects and not bucket.uploads, "nothing of it is left")


def tensors(value):
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<4f", *[value] * 4)


def imported(tmp):
    """Between its header and its numbers."""
    state = {"asked": 0, "change": True}

    def before(h, path):
        if h.command == "GET" and path.endswith("/weights"):
            state["asked"] += 1
            if state["asked"] == 3 and state["change"]:
                bucket.put("weights", tensors(2.0))
        return False

    bucket = Bucket(before)
    bucket.put("weights", tensors(1.0))
    (tmp / "run.yaml").write_text(f"run:\n  dir: {tmp}/imported\n")
    done = bucket.run("ckpt", "import", tmp / "run.yaml", "s3://bucket/weights")
    check(state["asked"] == 3, f"header and numbers are read: {state} {done.stderr}")
    check(done.returncode == 65 and "changed while it was read" in done.stderr, f"an import of two versions: {done.returncode} {done.stderr.strip()}")
    state["change"] = False
    done = bucket.run("ckpt", "import", tmp / "run.yaml", "s3://bucket/weights")
    check(done.returncode == 0, f"an import of one: {done.stderr.strip()}")


# ---- an upload that broke off.

def sum_of(tmp, content):
    bucket = Bucket()
    (tmp / "x").write_bytes(content)
    check(bucket.cp(tmp / "x", "s3://bucket/x").returncode == 0, "a sum is left")
    return bucket.objects["x"][2]


def adopted(tmp, what, begun, sent, *options, moved):
    """An upload of `begun` was broken off after its first part; the file is now `sent`. Then it is read with its sum checked."""
    bucket = Bucket()
    (tmp / "x").write_bytes(sent)
    name = bucket.begin("x", sum_of(tmp, begun) if begun else None)
    (tmp / "x").write_bytes(sent)
    bucket.uploads[name][2][1] = (begun or sent)[:PART]
    done = bucket.cp(*options, tmp / "x", "s3://bucket/x")
    check(done.returncode == 0 and bucket.objects["x"][0] == sent, f"{what}: every byte is there {done.stderr.strip()}")
    check(bucket.sent == moved, f"{what}: {bucket.sent} bytes were sent, of {len(sent)}")
    back = bucket.cp("s3://bucket/x", tmp / "back")
    check(back.returncode == 0 and (tmp / "back").read_bytes() == sent, f"{what}: and they can be read {back.stderr.strip()}")
    if not options:
        check(json.loads(back.stdout)["verified"] == 1 and bucket.objects["x"][2] is not None, f"{what}: with their sum")


def main():
    with folder() as tmp:
        for source in ("file", "store"):
            doubtful(tmp, "a completion that was not done", source, False, 66)
            doubtful(tmp, "one that was done", source, True, 0)
        overwritten()
        imported(tmp)
        one, two = os.urandom(20 * MIB), os.urandom(20 * MIB)
        adopted(tmp, "the same content", one, one, moved=12 * MIB)
        adopted(tmp, "the same content, unverified", one, one, "--no-verify", moved=12 * MIB)
        adopted(tmp, "another content", one, two, moved=40 * MIB)
        adopted(tmp, "another content, unverified", one, two, "--no-verify", moved=40 * MIB)
        adopted(tmp, "begun without a sum", None, two, moved=32 * MIB)


main()
