#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`orrery store cp` from a server whose replies break off, change, or are no answer to what was asked: a request goes on at the piece
where the one before broke off, and a killed copy at the pieces that were there. ORRERY_SEED: where they break."""
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import aws_standins as aws  # noqa: E402
from orrery_run import ORRERY, check, folder  # noqa: E402

MIB = 1 << 20
FIRST, PIECE = 8 * MIB, 2 * MIB  # of an object of this size
RUN = 2 * PIECE                  # what is asked for at once, of a server that is not near
CONTENT = random.Random(3).randbytes(48 * MIB + 12345)


class Bucket:
    """One object. `spoil(first, nth)`: how the nth reply to a request that begins at `first` is spoilt, or None. `far`: the server
    is slow to begin, so that a client knows it for one that is not near, on a machine with any load."""

    def __init__(self, spoil=lambda first, nth: None, sum=None, far=True):
        self.spoil, self.sum, self.far = spoil, sum, far
        self.lock, self.sent, self.asked = threading.Lock(), 0, []
        self.server = aws.Server(self.answer)

    def answer(self, h):
        more = {"x_amz_meta_orrery_crc32c": self.sum} if self.sum else {}
        if h.command == "HEAD":
            return h.send(200, CONTENT, ETag='"x-1"', **more)
        first, last = (int(n) for n in h.headers["range"].removeprefix("bytes=").split("-"))
        last = min(last, len(CONTENT) - 1)
        with self.lock:
            nth = len(self.asked)
            self.asked.append(first)
        how = self.spoil(first, nth) or {}
        if self.far and first < FIRST:
            time.sleep(0.05)
        body = how.get("body", CONTENT[first:last + 1])
        headers = {"ETag": how.get("etag", '"x-1"'), "Content_Length": len(body),
                   "Content_Range": how.get("range", f"bytes {first}-{last}/{len(CONTENT)}")}
        body = body[:how.get("upto")]
        with self.lock:
            self.sent += len(body)
        h.send(how.get("status", 206), body, **headers, **more)
        if len(body) < headers["Content_Length"]:
            h.wfile.flush()
            h.connection.shutdown(socket.SHUT_RDWR)
            h.close_connection = True

    def command(self, *args):
        env = dict(os.environ, AWS_ENDPOINT_URL=self.server.url, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="secret")
        return {"args": [ORRERY, "store", "cp", "--json", *map(str, args)], "env": env}

    def copy(self, tmp, *args):
        return subprocess.run(**self.command(*args, "s3://bucket/key", tmp / "out"), capture_output=True, text=True, timeout=240)


def sum_of(tmp):
    """The CRC32C that goes with the content: what orrery says as it begins to send it."""
    seen = []

    def answer(h):
        h.body()
        seen.append(h.headers["x-amz-meta-orrery-crc32c"])
        h.send(403, "<Error><Code>AccessDenied</Code></Error>")

    server = Bucket()
    server.server.answer = answer
    (tmp / "content").write_bytes(CONTENT)
    subprocess.run(**server.command(tmp / "content", "s3://bucket/key"), capture_output=True)
    found = [s for s in seen if s]
    check(len(found) == 1 and len(found[0]) == 8, f"a sum is sent: {seen}")
    return found[0]


def broken(tmp, rng, content_sum):
    """Every reply but the last few breaks off somewhere."""
    breaks = {}

    def spoil(first, nth):
        if first < FIRST or nth > 16:
            return None
        breaks[nth] = rng.randrange(5 * MIB)
        return {"upto": breaks[nth]}

    bucket = Bucket(spoil, content_sum, far=False)
    done = bucket.copy(tmp)
    said = json.loads(done.stdout or "{}")
    check(done.returncode == 0 and (tmp / "out").read_bytes() == CONTENT, f"{len(breaks)} replies broke off, every byte came {done.stderr[-300:]}")
    check(said["verified"] == 1 and said["resumed_bytes"] == 0, f"and the sum fits: {said}")
    most = len(CONTENT) + len(breaks) * (PIECE + MIB)  # and what was under way as it broke off
    check(bucket.sent < most, f"{bucket.sent} bytes were sent for {len(CONTENT)}, less than {most}")
    check(all((a - FIRST) % PIECE == 0 or a == 0 for a in bucket.asked), "requests begin at pieces")


def once(what, tmp, spoilt, rc, words):
    """A reply breaks off, and its hedge's too; what then goes on from there is `spoilt`: the first time, or whenever the copy is to fail."""
    state = {"done": 0}

    def spoil(first, nth):
        if first == FIRST and not state["done"]:
            return {"upto": PIECE + MIB}
        if first == FIRST + PIECE and (rc or not state["done"]):
            state["done"] = 1
            return spoilt(first)
        return None

    done = Bucket(spoil).copy(tmp, "--no-verify")
    check(state["done"] == 1, f"{what}: a request went on where one had broken off")
    check(done.returncode == rc and words in done.stderr, f"{what}: exit {done.returncode} {done.stderr.strip()[-200:]}")
    if rc == 0:
        check((tmp / "out").read_bytes() == CONTENT, f"{what}: every byte is right")
    (tmp / "out").unlink(missing_ok=True)
    (tmp / "out.orrery-part").unlink(missing_ok=True)


def killed(tmp, content_sum):
    """kill -9 while long requests are under way: their whole pieces count."""
    reached, go_on = threading.Event(), threading.Event()

    def spoil(first, nth):
        if first < FIRST:
            return None
        if nth > 2:
            reached.set()
        return {"upto": PIECE + MIB} if nth <= 3 else go_on.wait(60) and {"upto": 0}

    bucket = Bucket(spoil, content_sum)
    with subprocess.Popen(**bucket.command("s3://bucket/key", tmp / "half"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        reached.wait(60)
        while child.poll() is None and sum((first - FIRST) % RUN == PIECE for first in list(bucket.asked)) < 2:
            time.sleep(0.01)
        child.kill()
    go_on.set()
    bucket = Bucket(sum=content_sum)
    done = subprocess.run(**bucket.command("s3://bucket/key", tmp / "half"), capture_output=True, text=True, timeout=240)
    said = json.loads(done.stdout or "{}")
    check(done.returncode == 0 and (tmp / "half").read_bytes() == CONTENT and said["verified"] == 1, f"after a kill every byte is right: {said} {done.stderr}")
    check(said["resumed_bytes"] >= FIRST + 2 * PIECE, f"{said['resumed_bytes']} bytes were there already")
    check(bucket.sent == len(CONTENT) - said["resumed_bytes"], f"{bucket.sent} more were asked for")


def slow(tmp):
    """As long as pieces come, a request may take longer than its deadline. It is long enough for that when the server's first answer was
    quick, which a machine under load may miss."""
    def spoil(first, nth):
        if first < FIRST:
            return None
        time.sleep(0.7)
        return {"upto": PIECE + 1000}

    for _ in range(5):
        begin = time.monotonic()
        done = Bucket(spoil, far=False).copy(tmp, "--no-verify", "--deadline", 3)
        took = time.monotonic() - begin
        check(done.returncode == 0 and (tmp / "out").read_bytes() == CONTENT, f"a slow server: every byte came in {took:.1f} s {done.stderr.strip()}")
        (tmp / "out").unlink()
        if took > 3:
            return
    check(False, "requests were never longer than their deadline")


def gone(tmp):
    """A server that goes away in the middle is given up after the deadline of a piece, not of a whole request."""
    def spoil(first, nth):
        if first < FIRST:
            return None
        return {"upto": PIECE + MIB} if nth < 5 else {"status": 503, "body": b"", "range": ""}

    bucket = Bucket(spoil)
    begin = time.monotonic()
    done = bucket.copy(tmp, "--deadline", 3)
    took = time.monotonic() - begin
    check(done.returncode == 69 and "HTTP 503" in done.stderr, f"a server that is gone: {done.stderr.strip()}")
    check(took < 9, f"after {took:.1f} s: a request of {10 * MIB} bytes has no longer than one of {PIECE}")
    check((tmp / "out.orrery-part").exists(), "and what came of it is kept")


def main():
    rng = random.Random(int(os.environ.get("ORRERY_SEED", "1")))
    with folder() as tmp:
        content_sum = sum_of(tmp)
        broken(tmp, rng, content_sum)
        (tmp / "out").unlink()
        once("replaced meanwhile", tmp, lambda first: {"etag": '"x-2"', "body": b"z" * PIECE, "upto": MIB}, 65, "changed while it was read")
        once("the whole object instead", tmp, lambda first: {"status": 200, "body": CONTENT, "upto": MIB}, 0, "")
        once("another part instead", tmp, lambda first: {"range": f"bytes 0-{PIECE - 1}/{len(CONTENT)}", "body": b"z" * PIECE}, 0, "")
        once("no Content-Range", tmp, lambda first: {"range": "", "body": b"z" * PIECE}, 0, "")
        killed(tmp, content_sum)
        slow(tmp)
        gone(tmp)


main()
