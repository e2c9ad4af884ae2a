#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What lies at a server is not what a command takes it for: an object that is overwritten while it is read."""
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


def main():
    with folder() as tmp:
        overwritten()
        imported(tmp)


main()
