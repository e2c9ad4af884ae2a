#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The S3 store against servers that break the protocol: each case ends in success, or in a precise error in time."""
import calendar
import email.utils
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM = os.path.join(os.environ.get("ORRERY_BUILD", "build"), "tests", "test_store_s3")
DATA = bytes(range(33, 127)) * 20
SLACK_S = 6.0 # what a loaded machine may add to a deadline


class Server:
    """Answers each request with what the case's function makes of it; that function may also misuse the socket."""

    def __init__(self, answer, tls=None):
        self.answer, self.requests, self.tls = answer, [], tls
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
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
    pass


def read_request(connection):
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = connection.recv(65536)
        if not piece:
            return None
        raw += piece
    head, body = raw.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    r = Request()
    r.method, target, _ = lines[0].split(" ")
    r.path, _, r.query = target.partition("?")
    r.headers = dict((k.lower(), v) for k, v in (line.split(": ", 1) for line in lines[1:]))
    left = int(r.headers.get("content-length", 0)) - len(body)
    while left > 0:
        piece = connection.recv(1 << 20)
        if not piece:
            return None
        left -= len(piece)
        body += piece if left < 1 << 16 else b""
    r.body = body
    return r


def reply(connection, status, body=b"", headers=(), length=None, head=False):
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body) if length is None else length}",
             "Connection: close", *headers]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head else body))


def error(connection, status, code, headers=(), extra=""):
    reply(connection, status, f"<Error><Code>{code}</Code><Message>words of\nthe server</Message>{extra}</Error>".encode(),
          headers)


def good(connection, request):
    first, last = re.match(r"bytes=(\d+)-(\d+)", request.headers["range"]).groups()
    first, last = int(first), min(int(last), len(DATA) - 1)
    reply(connection, 206, DATA[first:last + 1], [f"Content-Range: bytes {first}-{last}/{len(DATA)}", 'ETag: "1"'])


def times(n, bad):
    """The first n requests end badly, the next well."""
    return lambda s, c, r: bad(s, c, r) if len(s.requests) <= n else good(c, r)


def busy(s, c, r):
    error(c, 503, "SlowDown")


def reset(s, c, r):
    reply(c, 206, DATA[100:150], [f"Content-Range: bytes 100-199/{len(DATA)}"], length=100)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def truncated(s, c, r):
    reply(c, 206, DATA[100:150], [f"Content-Range: bytes 100-199/{len(DATA)}"], length=100)


def ranged(text, body):
    return lambda s, c, r: reply(c, 206, body, [f"Content-Range: {text}"] if text else [])


def stall(s, c, r):
    c.sendall(b"HTTP/1.1 206 OK\r\nContent-Length: 100\r\n")
    time.sleep(30)


def drip(s, c, r):
    c.sendall(b"HTTP/1.1 206 OK\r\nContent-Length: 100\r\nContent-Range: bytes 100-199/2000\r\n\r\n")
    for _ in range(100):
        c.sendall(b"x")
        time.sleep(0.5)


def endless(first, piece):
    def run(s, c, r):
        c.sendall(first)
        for _ in range(100000):
            c.sendall(piece)
    return run


def skewed(once):
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
        reply(c, 200, f"{before}<ListBucketResult><EncodingType>url</EncodingType>{inside}{tail}</ListBucketResult>".encode())
    return run


def item(key, size="1"):
    return f"<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"


def upload(complete, part_tag='ETag: "1"', upload_id="u1", head=None):
    """A multipart upload whose completion is the case's own."""
    def run(s, c, r):
        if r.method == "POST" and r.query == "uploads=":
            reply(c, 200, f"<InitiateMultipartUploadResult><UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>".encode())
        elif r.method == "PUT":
            reply(c, 200, b"", [part_tag] if part_tag else [])
        elif r.method == "POST":
            complete(s, c, r)
        elif r.method == "HEAD" and head is not None:
            reply(c, 200, b"", length=head, head=True)
        elif r.method == "DELETE":
            reply(c, 204)
        else:
            error(c, 404, "NoSuchKey")
    return run


def hidden_error(code, n):
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


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
GOT = re.escape(DATA[100:200].decode())
BIG = 17 << 20
# name, operation, answers, how it ends, what the message says, most requests, deadline in seconds
CASES = [
    ("503 twice", "get", times(2, busy), "ok", GOT, 3, 10),
    ("429", "get", times(1, lambda s, c, r: error(c, 429, "TooMany")), "ok", GOT, 2, 10),
    ("500 without a body", "get", times(1, lambda s, c, r: reply(c, 500)), "ok", GOT, 2, 10),
    ("Retry-After", "get", times(1, lambda s, c, r: error(c, 503, "SlowDown", ["Retry-After: 1"])), "ok", GOT, 2, 10),
    ("503 for ever", "get", busy, "unavailable", r"HTTP 503 SlowDown: words of the server; \d+ attempts in", 40, 2),
    ("reset in the body", "get", times(2, reset), "ok", GOT, 3, 10),
    ("truncated body", "get", times(2, truncated), "ok", GOT, 3, 10),
    ("truncated for ever", "get", truncated, "unavailable", r"bytes=100-199.*\d+ attempts", 40, 2),
    ("closed without a word", "get", times(2, lambda s, c, r: None), "ok", GOT, 3, 10),
    ("wrong range", "get", ranged("bytes 0-99/2000", DATA[:100]), "bad data", "another range", 3, 10),
    ("shifted end", "get", ranged("bytes 100-198/2000", DATA[100:199]), "bad data", "another range", 3, 10),
    ("absurd range", "get", ranged("bytes 100-199/99999999999999999999", DATA[:100]), "bad data", "Content-Range", 3, 10),
    ("no range", "get", ranged(None, DATA[:100]), "bad data", "without a proper Content-Range", 3, 10),
    ("200 to a range, same size", "get", lambda s, c, r: reply(c, 200, DATA[:100]), "bad data", "whole object", 3, 10),
    ("200 to a range, longer", "get", lambda s, c, r: reply(c, 200, DATA), "bad data", "longer body", 3, 10),
    ("object ends early", "get", ranged("bytes 100-149/150", DATA[100:150]), "bad data", "50 of 100 bytes", 1, 10),
    ("416", "get", lambda s, c, r: error(c, 416, "InvalidRange"), "bad data", "at the end or behind", 1, 10),
    ("redirect", "get", lambda s, c, r: reply(c, 302, b"", [f"Location: http://127.0.0.1:{s.port}/other"]),
     "bad config", "redirects elsewhere", 1, 10),
    ("other region", "get", lambda s, c, r: reply(c, 301, b"", ["x-amz-bucket-region: eu-west-9"]),
     "bad config", "region 'eu-west-9'", 1, 10),
    ("malformed for the region", "get",
     lambda s, c, r: error(c, 400, "AuthorizationHeaderMalformed", extra="<Region>eu-west-9</Region>"),
     "bad config", "region 'eu-west-9'", 1, 10),
    ("header of 1 MiB", "get", lambda s, c, r: reply(c, 206, DATA[:100], ["X-A: " + "a" * (1 << 20)]), "bad data",
     "header|Too long|too long|large", 3, 10),
    ("1 MiB of headers", "get", lambda s, c, r: reply(c, 206, DATA[:100], [f"X-{i}: " + "a" * 1000 for i in range(1000)]),
     "bad data", "65536 bytes of headers", 3, 10),
    ("endless interim replies", "get", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "bad data",
     "65536 bytes of headers", 3, 10),
    ("endless error body", "get", endless(b"HTTP/1.1 404 No\r\n\r\n", b"x" * 65536), "bad data", "longer body", 3, 10),
    ("no HTTP", "get", lambda s, c, r: c.sendall(b"SSH-2.0-hello\r\n\r\n"), "bad data", "attempts", 3, 10),
    ("stall in the headers", "get", stall, "deadline passed", "attempt", 9, 3),
    ("drip", "get", drip, "deadline passed", "attempt", 9, 3),
    ("clock is off", "get", skewed(True), "ok", GOT, 2, 10),
    ("clock stays off", "get", skewed(False), "permission", "clock is wrong", 2, 10),
    ("quota", "put", lambda s, c, r: error(c, 403, "QuotaExceeded"), "input/output", "quota is used up", 1, 10),
    ("body broken on its way", "put", lambda s, c, r: error(c, 400, "BadDigest") if len(s.requests) < 2 else reply(c, 200),
     "ok", "", 2, 10),
    ("HEAD without a length", "head", lambda s, c, r: c.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), "bad data", "Content-Length", 3, 10),
    ("HEAD 403", "head", lambda s, c, r: reply(c, 403, head=True), "permission", "the environment", 1, 10),
    ("DELETE of nothing", "delete", lambda s, c, r: error(c, 404, "NoSuchKey"), "ok", "", 1, 10),
    ("DELETE without a bucket", "delete", lambda s, c, r: error(c, 404, "NoSuchBucket"), "missing input", "no such bucket", 1, 10),
    ("lost reply to a create", "create", lost_create(b"mine"), "ok", "", 4, 10),
    ("lost reply, but theirs", "create", lost_create(b"them"), "exists already", "412", 4, 10),
    ("conflict at once", "create", lambda s, c, r: error(c, 412, "PreconditionFailed"), "exists already", "412", 1, 10),
    ("listing", "list", listing(item("pre/x%2Ba+b%25")), "ok", "", 1, 10),
    ("DOCTYPE", "list", listing("<Contents><Key>pre/&b;</Key></Contents>", LAUGHS), "bad data", "DOCTYPE", 3, 10),
    ("foreign key", "list", listing(item("other/x")), "bad data", "not asked for", 3, 10),
    ("key with a NUL", "list", listing(item("pre/x%00y")), "bad data", "not asked for", 3, 10),
    ("bad escape", "list", listing(item("pre/x%2")), "bad data", "not asked for", 3, 10),
    ("negative size", "list", listing(item("pre/x", "-1")), "bad data", "no size", 3, 10),
    ("huge size", "list", listing(item("pre/x", "9" * 30)), "bad data", "a size", 3, 10),
    ("nested XML", "list", listing("<a>" * 100000 + "</a>" * 100000), "bad data", "too deep", 3, 10),
    ("long text", "list", listing("<Contents><Key>" + "k" * 100000 + "</Key></Contents>"), "bad data", "8192 bytes of text", 3, 10),
    ("no XML", "list", lambda s, c, r: reply(c, 200, b"hello"), "bad data", "no XML", 3, 10),
    ("no listing", "list", lambda s, c, r: reply(c, 200, b"<a/>"), "bad data", "no listing", 3, 10),
    ("endless listing", "list", endless(b"HTTP/1.1 200 OK\r\n\r\n", b"<a></a>" * 10000), "bad data", "longer body", 3, 20),
    ("listing in circles", "list", listing(item("pre/x"), times_truncated=99), "bad data", "round in circles", 3, 10),
    ("error in a 200, twice", "large", upload(hidden_error("InternalError", 2)), "ok", "", 9, 20),
    ("denied in a 200", "large", upload(hidden_error("AccessDenied", 9)), "permission", "COMPLETE UPLOAD .*AccessDenied", 9, 20),
    ("lost completion", "large", upload(lost_completion, head=BIG), "ok", "", 9, 20),
    ("lost upload", "large", upload(lost_completion, head=5), "missing input", "NoSuchUpload", 17, 20),
    ("part without a tag", "large", upload(None, part_tag=None), "bad data", "ETag", 15, 20),
    ("tag with XML in it", "large", upload(None, part_tag='ETag: "<a>"'), "bad data", "ETag", 15, 20),
    ("upload without an id", "large", upload(None, upload_id=""), "bad data", "without an id", 3, 20),
    ("long upload id", "large", upload(None, upload_id="u" * 5000), "bad data", "an upload id of", 3, 20),
]


def virtual_host(s, c, r):
    fits = r.headers["host"] == f"hostile.localhost:{s.port}" and r.path == "/pre/key"
    good(c, r) if fits else error(c, 404, "NoSuchKey")


def tls_cases(folder):
    """A certificate of our own: refused, unless it is named as trusted; and one for another host."""
    def certificate(name, host):
        pair = [os.path.join(folder, name + end) for end in (".key", ".pem")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
                        "-addext", f"subjectAltName={host}", "-keyout", pair[0], "-out", pair[1]],
                       check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair[1], pair[0])
        return context, pair[1]

    def answer(s, c, r):
        good(c, r)

    here, here_file = certificate("here", "IP:127.0.0.1")
    there, there_file = certificate("there", "DNS:elsewhere.example")
    cases = [("TLS, unknown certificate", "get", answer, "bad config", "AWS_CA_BUNDLE", 0, 10),
             ("TLS, trusted certificate", "get", answer, "ok", GOT, 1, 10),
             ("TLS, another host's certificate", "get", answer, "bad config", "AWS_CA_BUNDLE", 0, 10)]
    extras = [dict(tls=here), dict(tls=here, env={"AWS_CA_BUNDLE": here_file}),
              dict(tls=there, env={"AWS_CA_BUNDLE": there_file})]
    return list(zip(cases, extras))


def run(case, tls=None, env=None, host="127.0.0.1"):
    name, operation, answer, words, says, most, deadline = case
    server = Server(answer, tls)
    env = dict(os.environ, AWS_ENDPOINT_URL=f"{'https' if tls else 'http'}://{host}:{server.port}", S3_BUCKET="hostile",
               AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="the-secret", AWS_REGION="us-east-1", **(env or {}))
    begin = time.monotonic()
    key = "" if operation == "list" else "key"
    done = subprocess.run([PROGRAM, "once", operation, key, str(deadline * 1000)], env=env, text=True,
                          errors="replace", capture_output=True, timeout=120, check=False)
    took = time.monotonic() - begin
    server.close()
    got, _, text = (done.stdout.splitlines() or ["crashed|"])[-1].partition("|")
    problems = []
    if done.returncode not in (0, 1) or done.stderr:
        problems.append(f"exit code {done.returncode}: {done.stderr[-500:]}")
    if got != words:
        problems.append(f"ended as '{got}', not '{words}'")
    if not re.search(says, text):
        problems.append(f"does not say '{says}'")
    if len(server.requests) > most:
        problems.append(f"{len(server.requests)} requests, at most {most}")
    if took > deadline + SLACK_S:
        problems.append(f"took {took:.1f} s, deadline {deadline} s")
    if "the-secret" in done.stdout + done.stderr:
        problems.append("prints the secret key")
    if "denied in a 200" == name and not server.count("DELETE"):
        problems.append("the upload was not aborted")
    mark = "FAIL" if problems else "ok  "
    print(f"{mark} {name}: {took:.2f} s, {len(server.requests)} requests: {got}: {text[:200]}")
    for p in problems:
        print(f"       {p}")
    return not problems


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    folder = tempfile.mkdtemp(prefix="orrery-s3-")
    cases = [(case, {}) for case in CASES]
    cases.append((("virtual host", "get", virtual_host, "ok", GOT, 1, 10),
                  dict(host="localhost", env={"S3_VIRTUAL_HOST": "1"})))
    if shutil.which("openssl"):
        cases += tls_cases(folder)
    results = [run(case, **extra) for case, extra in cases if wanted in case[0]]
    shutil.rmtree(folder)
    print(f"{sum(results)} of {len(results)} cases")
    return 0 if all(results) and results else 1


sys.exit(main())
