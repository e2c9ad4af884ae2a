#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a client asks of a slow, a busy and a failing server: hedged GETs, fewer requests at once, a budget of retries."""
import os
import pathlib
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import aws_standins as aws  # noqa: E402
from orrery_run import ORRERY, check, folder  # noqa: E402

PART = 4 << 20


def store(server, *args):
    env = dict(os.environ, AWS_ENDPOINT_URL=server.url, AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="secret")
    begin = time.monotonic()
    done = subprocess.run([ORRERY, "store", *map(str, args)], env=env, capture_output=True, timeout=240)
    return done, time.monotonic() - begin


def part(h, content, upto=None):
    first, last = (int(n) for n in h.headers["range"].removeprefix("bytes=").split("-"))
    last = min(last, len(content) - 1)
    h.send(206, content[first:last + 1][:upto], ETag='"x-1"', Content_Range=f"bytes {first}-{last}/{len(content)}",
           Content_Length=last + 1 - first)
    return first


def hedges(content, upto):
    """The first request of every part stands still, after `upto` bytes; the second is answered at once."""
    seen, ports = set(), set()

    def answer(h):
        if h.command == "HEAD":
            return h.send(200, content, ETag='"x-1"')
        ports.add(h.client_address[1])
        if h.headers["range"] in seen:
            return part(h, content)
        seen.add(h.headers["range"])
        if upto:
            part(h, content, upto)
            h.wfile.flush()
        time.sleep(14)
        h.close_connection = True

    done, took = store(aws.Server(answer), "cat", "s3://bucket/key", "--deadline", 60)
    check(done.stdout == content, f"every byte came, {took:.1f} s, {len(ports)} connections {done.stderr[-200:]}")
    # Two stalled connections and at least one fresh one, which both second requests may share one after the other.
    check(took < 11 and len(ports) >= 3, "second requests went out on connections of their own, long before the stall's end")


def busy_server():
    """Answers 503 beyond three requests at once: most requests must learn to wait."""
    content, lock, state = bytes(PART * 40), threading.Lock(), {"now": 0, "good": 0, "refused": []}

    def answer(h):
        if h.command == "HEAD":
            return h.send(200, content, ETag='"x-1"')
        with lock:
            state["now"] += 1
            crowded = state["now"] > 3
            state["refused"].append(crowded)
        time.sleep(0.05)
        if crowded:
            h.send(503, "<Error><Code>SlowDown</Code><Message>slow down</Message></Error>")
        else:
            part(h, content)
        with lock:
            state["now"] -= 1

    with folder() as tmp:
        done, took = store(aws.Server(answer), "cp", "--no-verify", "s3://bucket/key", tmp / "out", "--connections", 16)
        check(done.returncode == 0 and (tmp / "out").read_bytes() == content, f"a busy server gives every byte in {took:.1f} s")
    late = state["refused"][len(state["refused"]) // 2:]
    check(sum(late) < len(late) / 2, f"{sum(late)} of the last {len(late)} requests were refused")


def budget():
    """64 requests against a server that is down for good: the attempts are bounded, not 64 times ten."""
    lock, count = threading.Lock(), [0]

    def answer(h):
        h.body()
        with lock:
            count[0] += 1
        h.send(503, "")

    with folder() as tmp:
        for i in range(64):
            (tmp / f"f{i}").write_bytes(b"x")
        done, took = store(aws.Server(answer), "cp", "-r", tmp, "s3://bucket/t", "--connections", 64, "--deadline", 6)
    check(done.returncode == 69 and b"HTTP 503" in done.stderr, "a server that is down ends with 69")
    check(count[0] <= 64 + 100 + 16 * (took + 2), f"{count[0]} attempts of 64 requests in {took:.1f} s")


hedges(os.urandom(2 * PART), 0)
hedges(os.urandom(2 * PART), 1 << 20)
busy_server()
budget()
