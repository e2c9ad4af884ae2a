#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A hostile S3 server or proxy on loopback. What it does is a script: one file of scripts/ each.

    proxy.py SCRIPT                     answers by itself; prints its address and serves until it is killed
    proxy.py weather URL KIND=RATE%...  relays to the server at URL; each request meets each kind at its rate

A script sets what a client does and how that must end (read by tests/fault/s3_hostile.py):
    operation  of tests/fault/s3_once.c        ends, says  the outcome in words, a pattern of its message
    most       requests at most                deadline    seconds
    answer(server, connection, request)        writes the reply, and may misuse the socket
and may set tls, env, host and after(server), which returns what is wrong with what the client did."""
import calendar
import email.utils
import hashlib
import os
import pathlib
import random
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse

SCRIPTS = pathlib.Path(__file__).resolve().parent / "scripts"
DATA = bytes(range(33, 127)) * 20
GOT = re.escape(DATA[100:200].decode())
LARGE = 17 << 20  # of the operations "large" and "parts": three parts of a multipart transfer


def load(name):
    """A script's settings, with the defaults."""
    path = SCRIPTS / f"{name}.py"
    case = {"tls": None, "env": {}, "host": "127.0.0.1", "after": None}
    exec(compile(path.read_text(), path, "exec"), case)
    return case


class Server:
    """One connection, one request, one thread: each is answered by `answer`."""

    def __init__(self, answer, tls=None):
        self.answer, self.requests, self.tls = answer, [], tls
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(256)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            request = read_request(connection)
            if request:
                self.requests.append(request)
                self.answer(self, connection, request)
        except OSError:
            pass
        finally:
            connection.close()

    def close(self):
        self.socket.close()

    def count(self, method=None, query=""):
        return sum(1 for r in self.requests if (not method or r.method == method) and query in r.query)


class Request:
    """One request; `raw` is its head as it came."""


def read_head(connection):
    """(head, first bytes of the body), or None at the end of the stream."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = connection.recv(65536)
        if not piece:
            return None
        raw += piece
    return raw.split(b"\r\n\r\n", 1)


def fields(lines):
    return dict((k.lower(), v) for k, v in (line.split(": ", 1) for line in lines if ": " in line))


def read_request(connection, keep=False):
    """Reads a request; its body is kept when small, or when `keep` is set."""
    parts = read_head(connection)
    if not parts:
        return None
    head, body = parts
    lines = head.decode("latin-1").split("\r\n")
    r = Request()
    r.raw, body = head + b"\r\n\r\n", [body]
    r.method, target, _ = lines[0].split(" ")
    r.path, _, r.query = target.partition("?")
    r.headers = fields(lines[1:])
    left = int(r.headers.get("content-length", 0)) - len(body[0])
    while left > 0:
        piece = connection.recv(1 << 20)
        if not piece:
            return None
        left -= len(piece)
        if keep or left < 1 << 16:
            body.append(piece)
    r.body = b"".join(body)
    return r


# ---- replies.

def reply(connection, status, body=b"", headers=(), length=None, head=False):
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body) if length is None else length}",
             "Connection: close", *headers]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head else body))


def error(connection, status, code, headers=(), extra=""):
    body = f"<Error><Code>{code}</Code><Message>words of\nthe server</Message>{extra}</Error>"
    reply(connection, status, body.encode(), headers)


def span(request, total):
    first, last = re.match(r"bytes=(\d+)-(\d+)", request.headers["range"]).groups()
    return int(first), min(int(last), total - 1)


def part(connection, request, data, tag='"1"', cut=None):
    """The range that was asked for; `cut`: only so many bytes of it."""
    first, last = span(request, len(data))
    tags = [f"ETag: {tag}"] if tag else []
    body = data[first:last + 1]
    reply(connection, 206, body[:cut], [f"Content-Range: bytes {first}-{last}/{len(data)}", *tags], length=len(body))


def good(connection, request):
    part(connection, request, DATA)


def large():
    """The object of "parts"; no two of its blocks are alike."""
    return hashlib.shake_128(b"orrery").digest(LARGE)


def times(n, bad):
    """The first n requests end badly, the next well."""
    return lambda s, c, r: bad(s, c, r) if len(s.requests) <= n else good(c, r)


def always(status, code, headers=(), extra=""):
    return lambda s, c, r: error(c, status, code, headers, extra)


def ranged(text, body):
    return lambda s, c, r: reply(c, 206, body, [f"Content-Range: {text}"] if text else [])


def abort(connection):
    """Ends the connection with a reset instead of a proper close."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def truncated(s, c, r):
    part(c, r, DATA, cut=50)


def endless(first, piece):
    def run(s, c, r):
        c.sendall(first)
        for _ in range(100000):
            c.sendall(piece)
    return run


def skewed(once):
    """A server four hours ahead, which refuses what is signed with another time."""
    def run(s, c, r):
        ahead = time.time() + 4 * 3600
        sent = calendar.timegm(time.strptime(r.headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
        if once and abs(sent - ahead) < 60:
            good(c, r)
        else:
            error(c, 403, "RequestTimeTooSkewed", ["Date: " + email.utils.formatdate(ahead, usegmt=True)])
    return run


def listing(inside, before="", times_truncated=0):
    def run(s, c, r):
        more = times_truncated and len(s.requests) <= times_truncated
        tail = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" if more else ""
        body = f"{before}<ListBucketResult><EncodingType>url</EncodingType>{inside}{tail}</ListBucketResult>"
        reply(c, 200, body.encode())
    return run


def item(key, size="1"):
    return f"<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"


PART_MD5 = hashlib.md5(b"any part").digest()
PART_TAG = f'ETag: "{PART_MD5.hex()}"'
LARGE_TAG = f'ETag: "{hashlib.md5(3 * PART_MD5).hexdigest()}-3"'


def upload(complete, part_tag=PART_TAG, upload_id="u1", head=None, tag=LARGE_TAG):
    """A multipart upload whose completion is the script's own. `head`, `tag`: what lies there in the end, as if each part had the same
    content."""
    def run(s, c, r):
        if r.method == "POST" and r.query == "uploads=":
            body = f"<InitiateMultipartUploadResult><UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
            reply(c, 200, body.encode())
        elif r.method == "PUT":
            reply(c, 200, b"", [part_tag] if part_tag else [])
        elif r.method == "POST":
            complete(s, c, r)
        elif r.method == "HEAD" and head is not None:
            reply(c, 200, b"", [tag], length=head, head=True)
        elif r.method == "DELETE":
            reply(c, 204)
        else:
            error(c, 404, "NoSuchKey")
    return run


def hidden_error(code, n):
    """A 200 with an error in it n times, then the real thing."""
    def run(s, c, r):
        if s.count("POST", "uploadId") <= n:
            error(c, 200, code)
        else:
            reply(c, 200, b"  \n <?xml version='1.0'?><CompleteMultipartUploadResult/>")
    return run


def lost_completion(s, c, r):
    if s.count("POST", "uploadId") > 1:
        error(c, 404, "NoSuchUpload")


def lost_create(content):
    """The first PUT is carried out, its reply lost; the next finds the key there."""
    def run(s, c, r):
        if r.method == "PUT" and s.count("PUT") > 1:
            error(c, 412, "PreconditionFailed")
        elif r.method == "GET":
            reply(c, 206, content, [f"Content-Range: bytes 0-{len(content) - 1}/{len(content)}"])
    return run


# ---- the relay.

KINDS = ("503", "429", "500", "reset", "truncate", "lost", "delay", "stall")


class Weather:
    """Relays requests to a real server, each kind of fault at its own rate; counts what struck."""

    def __init__(self, url, rates, seed=1, delay_s=0.02, stall_s=60.0):
        self.upstream = urllib.parse.urlsplit(url)
        self.rates, self.random, self.lock = rates, random.Random(seed), threading.Lock()
        self.delay_s, self.stall_s, self.struck = delay_s, stall_s, dict.fromkeys(KINDS, 0)
        self.requests = 0
        self.server = Server(None)
        self.server.serve = self.serve

    def draw(self):
        with self.lock:
            self.requests += 1
            kinds = [k for k in KINDS if self.random.random() < self.rates.get(k, 0)]
            for k in kinds:
                self.struck[k] += 1
        return kinds

    def serve(self, client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = None
        try:
            server = socket.create_connection((self.upstream.hostname, self.upstream.port))
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                request = read_request(client, keep=True)
                if not request or not self.exchange(client, server, request):
                    break
        except OSError:
            pass
        finally:
            client.close()
            if server:
                server.close()

    def exchange(self, client, server, request):
        """False when the connection ends with this exchange."""
        kinds = self.draw()
        if "delay" in kinds:
            time.sleep(self.delay_s)
        for status in ("503", "429", "500"):
            if status in kinds:
                error(client, int(status), "SlowDown" if status == "503" else "Busy")
                return False
        server.sendall(request.raw + request.body)
        parts = read_head(server)
        if not parts:
            return False
        if "lost" in kinds:
            return False
        return self.relay(client, server, request, parts, kinds)

    def relay(self, client, server, request, parts, kinds):
        head, body = parts
        lines = head.decode("latin-1").split("\r\n")
        headers = fields(lines[1:])
        total = 0 if request.method == "HEAD" else int(headers.get("content-length", 0))
        chunked = "chunked" in headers.get("transfer-encoding", "") and request.method != "HEAD"
        stop = total // 2 if "reset" in kinds or "truncate" in kinds else total - 1 if "stall" in kinds else None
        client.sendall(head + b"\r\n\r\n")
        sent, tail = 0, b""
        while chunked or sent < total:
            if body:
                if stop is not None and not chunked and sent + len(body) > stop:
                    client.sendall(body[:max(0, stop - sent)])
                    return self.spoil(client, kinds)
                client.sendall(body)
                sent += len(body)
                tail = (tail + body)[-7:]
                if chunked and tail.endswith(b"\r\n0\r\n\r\n"):
                    return True
                if not chunked and sent >= total:
                    return True
            body = server.recv(1 << 20)
            if not body:
                return False
        return True

    def spoil(self, client, kinds):
        if "stall" in kinds:
            time.sleep(self.stall_s)
        elif "reset" in kinds:
            abort(client)
        return False


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "weather":
        rates = {k: float(v.rstrip("%")) / 100 for k, v in (a.split("=") for a in sys.argv[3:])}
        unknown = set(rates) - set(KINDS)
        if unknown:
            sys.exit(f"unknown kinds {unknown}; one of {KINDS}")
        weather = Weather(sys.argv[2], rates)
        print(f"http://127.0.0.1:{weather.server.port}", flush=True)
    elif len(sys.argv) == 2:
        server = Server(load(sys.argv[1])["answer"])
        print(f"http://127.0.0.1:{server.port}", flush=True)
    else:
        print(__doc__)
        return 64
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
