#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The signer against two other implementations on random requests: 30 lines of our own, and botocore where it is."""
import datetime
import hashlib
import hmac
import os
import random
import subprocess
import sys
import urllib.parse

ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HOST, DATE = "examplebucket.s3.amazonaws.com", "20130524T000000Z"
EMPTY = hashlib.sha256(b"").hexdigest()
ALPHABET = [bytes([b]) for b in range(1, 256)] + [s.encode() for s in
            ["=", "+", "%", "/", "~", "//", "..", "/../", "/./", "é", "日本", "\U0001f680", " ", "%2F", "&", "?", "#", "*", "'"] * 12]


def quote(raw, safe):
    return urllib.parse.quote_from_bytes(raw, safe=safe + "-._~")


def draw(r):
    key = b"".join(r.choice(ALPHABET) for _ in range(r.randrange(1, 60)))
    prefix = b"".join(r.choice(ALPHABET) for _ in range(r.randrange(0, 20)))
    name = r.choice([b"prefix", b"a-name", b"zz", b"x%y/z", b""])
    return r.choice(["GET", "PUT", "DELETE"]), b"/bucket/" + key, name, prefix, r.choice(["", "tok/en+=="])


def plain(method, path, name, value, token):
    """SigV4 as the documentation tells it."""
    pairs = sorted((quote(a, ""), quote(b, "")) for a, b in ([(name, value), (b"list-type", b"2")] if name else []))
    query = "&".join(f"{a}={b}" for a, b in pairs)
    headers = {"host": HOST, "x-amz-content-sha256": EMPTY, "x-amz-date": DATE}
    if method == "GET":
        headers["range"] = "bytes=7-11"
    if token:
        headers["x-amz-security-token"] = token
    names = ";".join(sorted(headers))
    lines = "".join(f"{h}:{headers[h]}\n" for h in sorted(headers))
    canonical = "\n".join([method, quote(path, "/"), query, lines, names, EMPTY])
    scope = "20130524/us-east-1/s3/aws4_request"
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = "\n".join(["AWS4-HMAC-SHA256", DATE, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    target = quote(path, "/") + ("?" + query if query else "")
    return target, f"AWS4-HMAC-SHA256 Credential={ACCESS}/{scope},SignedHeaders={names},Signature={signature}"


def botocore_signer():
    try:
        from botocore import auth, awsrequest, credentials
    except ImportError:
        return None

    class Fixed(auth.S3SigV4Auth):
        """Signs at DATE, whatever the clock says."""

        def _inject_signature_to_request(self, request, signature):
            auth_str = [f"AWS4-HMAC-SHA256 Credential={self.scope(request)}"]
            headers = self.headers_to_sign(request)
            auth_str.append(f"SignedHeaders={self.signed_headers(headers)}")
            auth_str.append(f"Signature={signature}")
            request.headers["Authorization"] = ",".join(auth_str)
            return request

        def add_auth(self, request):
            request.context["timestamp"] = DATE
            self._modify_request_before_signing(request)
            text = self.string_to_sign(request, self.canonical_request(request))
            self._inject_signature_to_request(request, self.signature(text, request))

    def sign(method, path, name, value, token):
        target, _ = plain(method, path, name, value, token)
        request = awsrequest.AWSRequest(method=method, url=f"https://{HOST}{target}", data=b"")
        request.context["timestamp"] = DATE
        if method == "GET":
            request.headers["Range"] = "bytes=7-11"
        request.headers["X-Amz-Content-SHA256"] = EMPTY
        Fixed(credentials.Credentials(ACCESS, SECRET, token or None), "s3", "us-east-1").add_auth(request)
        return target, request.headers["Authorization"]

    return sign


def main():
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    program = os.path.join(os.environ.get("ORRERY_BUILD", "build"), "tests", "test_sigv4")
    r = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    cases = [draw(r) for _ in range(count)]
    lines = "".join(f"{m}\t{p.hex()}\t{n.hex()}\t{v.hex()}\t{t}\n" for m, p, n, v, t in cases)
    got = subprocess.run([program, "--sign"], input=lines, text=True, capture_output=True, check=True).stdout.splitlines()
    assert len(got) == count, f"{len(got)} answers to {count} requests"
    peers = [("the documentation", plain), ("botocore", botocore_signer())]
    wrong = 0
    for peer, sign in peers:
        if not sign:
            print(f"{peer}: not installed, not compared")
            continue
        bad = [(c, g, w) for c, g in zip(cases, got) if (w := " ".join(sign(*c))) != g]
        print(f"{peer}: {count - len(bad)} of {count} requests equal")
        for case, ours, theirs in bad[:3]:
            print(f"  {case}\n    ours   {ours}\n    theirs {theirs}")
        wrong += len(bad)
    return 1 if wrong else 0


sys.exit(main())
