# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for AWS on loopback that speak the real protocols: S3 that checks signatures (GET and HEAD of ranges), STS
AssumeRoleWithWebIdentity, the container credentials endpoint, IMDSv2."""
import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
import urllib.parse


class Keys:
    """Credentials that were handed out: access key -> (secret, token, end of validity). Thread-safe by the GIL."""

    def __init__(self):
        self.issued, self.used, self.refused, self.serial = {}, [], [], 0

    def issue(self, seconds, canary="CANARY", token=True):
        self.serial += 1
        access = f"ASIA{canary}{self.serial:04d}"
        secret = f"{canary}-secret/{self.serial}"
        session = f"{canary}-token=={self.serial}" if token else ""
        self.issued[access] = (secret, session, time.time() + seconds)
        return access, secret, session


def iso(t):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send(self, status, body=b"", **headers):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def handle_any(self):
        try:
            self.server.answer(self)
        except (BrokenPipeError, ConnectionResetError):
            pass

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


DIALECTS = {"AWS4": ("AWS4-HMAC-SHA256", "x-amz-"), "GOOG4": ("GOOG4-HMAC-SHA256", "x-goog-")}


def signature(h, secret, access, scope, signed, dialect="AWS4"):
    """SigV4 by the book, from the request as it came."""
    algorithm, prefix = DIALECTS[dialect]
    path, _, query = h.path.partition("?")
    pairs = sorted(tuple(p.partition("=")[::2]) for p in query.split("&") if p)
    headers = "".join(f"{name}:{' '.join((h.headers[name] or '').split())}\n" for name in signed.split(";"))
    canonical = "\n".join([h.command, path, "&".join(f"{k}={v}" for k, v in pairs), headers, signed,
                           h.headers[prefix + "content-sha256"]])
    text = "\n".join([algorithm, h.headers[prefix + "date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = (dialect + secret).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def s3(keys, content, delay=0.0, static=()):
    """One object under every key. Refuses as AWS does."""
    def error(h, status, code):
        keys.refused.append(code)
        h.send(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>")

    def answer(h):
        h.body()
        arrived = time.time()
        time.sleep(delay)
        try:
            fields = dict(f.strip().split("=", 1) for f in h.headers["authorization"].split(" ", 1)[1].split(","))
            access, scope = fields["Credential"].split("/", 1)
        except (KeyError, AttributeError, IndexError, ValueError):
            return error(h, 403, "AccessDenied")
        known = {**keys.issued, **{a: (s, t, 1e12) for a, s, t in static}}
        if access not in known:
            return error(h, 403, "InvalidAccessKeyId")
        secret, token, end = known[access]
        if (h.headers["x-amz-security-token"] or "") != token:
            return error(h, 403, "InvalidToken")
        if signature(h, secret, access, scope, fields["SignedHeaders"]) != fields["Signature"]:
            return error(h, 403, "SignatureDoesNotMatch")
        if arrived > end:
            return error(h, 400, "ExpiredToken")
        keys.used.append(access)
        wanted = h.headers["range"]
        if not wanted:
            return h.send(200, content, ETag='"x-1"')
        first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
        last = min(last, len(content) - 1)
        h.send(206, content[first:last + 1], ETag='"x-1"', Content_Range=f"bytes {first}-{last}/{len(content)}")
    return Server(answer)


def sts(keys, token_file, seconds, told=None):
    """told: the lifetime that it claims, when that is another than the real one."""
    def answer(h):
        form = {k: v[0] for k, v in urllib.parse.parse_qs(h.body().decode()).items()}
        good = (h.command == "POST" and form.get("Action") == "AssumeRoleWithWebIdentity" and form.get("Version") == "2011-06-15"
                and form.get("RoleArn") == "arn:aws:iam::1:role/train" and form.get("RoleSessionName")
                and h.headers["Content-Type"] == "application/x-www-form-urlencoded")
        if not good or form.get("WebIdentityToken") != open(token_file, encoding="ascii").read().strip():
            return h.send(403, "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>"
                               "<Message>the token does not fit</Message></Error></ErrorResponse>")
        access, secret, token = keys.issue(seconds)
        h.send(200, f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{access}</AccessKeyId>
  <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>
  <Expiration>{iso(time.time() + (told or seconds))}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>""")
    return Server(answer)


def role_json(keys, seconds, **more):
    access, secret, token = keys.issue(seconds)
    return json.dumps({"AccessKeyId": access, "SecretAccessKey": secret, "Token": token,
                       "Expiration": iso(time.time() + seconds), **more}, indent=1)


def container(keys, authorization, seconds):
    def answer(h):
        if h.command != "GET" or h.path != "/v2/credentials/abc" or (h.headers["Authorization"] or "") != authorization:
            return h.send(403, '{"code": "AccessDenied", "message": "no"}')
        h.send(200, role_json(keys, seconds, RoleArn="arn:x"))
    return Server(answer)


def imds(keys, seconds):
    token = "imds-token-CANARY"

    def answer(h):
        base = "/latest/meta-data/iam/security-credentials/"
        if h.command == "PUT" and h.path == "/latest/api/token":
            lifetime = h.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            return h.send(200, token) if lifetime and 1 <= int(lifetime) <= 21600 else h.send(400)
        if h.headers["X-aws-ec2-metadata-token"] != token:
            return h.send(401)
        if h.path == base:
            return h.send(200, "train-role")
        if h.path == base + "train-role":
            return h.send(200, role_json(keys, seconds, Code="Success", Type="AWS-HMAC", LastUpdated=iso(time.time())))
        h.send(404)
    return Server(answer)


def bucket(vendor, access="AK", secret="secret", md5_tags=True, on_body=lambda: None):
    """A small store with one vendor's ways: aws, oss, gcs, or careless (which honours no condition). Everything under one key
    space; .problems says what it was asked in the wrong way; .bodies has of each PUT its query, hash as signed, and SHA-256;
    on_body is called after each."""
    objects, problems, bodies, lock = {}, [], [], threading.Lock()
    dialect = "GOOG4" if vendor == "gcs" else "AWS4"
    conditions = {"aws": ("if-none-match", "*"), "oss": ("x-oss-forbid-overwrite", "true"),
                  "gcs": ("x-goog-if-generation-match", "0"), "careless": ("if-none-match", "never")}
    name, value = conditions[vendor]
    refusal = (409, "FileAlreadyExists") if vendor == "oss" else (412, "PreconditionFailed")

    def error(h, status, code):
        h.send(status, f"<Error><Code>{code}</Code></Error>")

    def check(h):
        algorithm, _, rest = (h.headers["authorization"] or "").partition(" ")
        fields = dict(f.strip().split("=", 1) for f in rest.split(","))
        scope = fields["Credential"].split("/", 1)[1]
        if algorithm != DIALECTS[dialect][0]:
            problems.append(f"algorithm {algorithm}")
        if signature(h, secret, access, scope, fields["SignedHeaders"], dialect) != fields["Signature"]:
            problems.append("signature")
        if vendor == "gcs" and (any(k.lower().startswith("x-amz-") for k in h.headers) or not scope.endswith("/auto/storage/goog4_request")):
            problems.append(f"x-amz- headers, or scope {scope}")
        if vendor == "oss" and not h.headers["host"].startswith("bucket."):
            problems.append(f"host {h.headers['host']}")

    def answer(h):
        data = h.body()
        check(h)
        path, _, query = h.path.partition("?")
        with lock:
            taken = h.headers[name] == value and path in objects
            if h.command == "PUT":
                told = h.headers["x-amz-content-sha256"] or h.headers["x-goog-content-sha256"]
                bodies.append((query, told, hashlib.sha256(data).hexdigest()))
                on_body()
            if h.command == "POST" and "uploads" in query:
                return h.send(200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
            if "uploadId" in query and h.command == "PUT":
                return h.send(200, ETag=f'"{hashlib.md5(data if md5_tags else b"-" + data).hexdigest()}"')
            if "uploadId" in query and h.command == "POST":
                return error(h, *refusal) if taken else h.send(200, "<CompleteMultipartUploadResult/>")
            if "uploadId" in query:
                return h.send(204)
            if h.command == "PUT":
                sum_ = h.headers["x-amz-checksum-crc32c"] or (h.headers["x-goog-hash"] or "").removeprefix("crc32c=")
                if taken:
                    return error(h, *refusal)
                if sum_ and vendor != "careless" and vendor != "oss" and sum_ != crc32c(data):
                    return error(h, 400, "BadDigest")
                objects[path] = data
                return h.send(200, ETag=f'"{hashlib.md5(data).hexdigest()}"' if md5_tags else '"x"')
            if h.command == "DELETE":
                objects.pop(path, None)
                return h.send(204)
            if path not in objects:
                return error(h, 404, "NoSuchKey")
            content, wanted = objects[path], h.headers["range"]
            if not wanted:
                return h.send(200, content, ETag='"x"')
            first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
            last = min(last, len(content) - 1)
            h.send(206, content[first:last + 1], ETag='"x"', Content_Range=f"bytes {first}-{last}/{len(content)}")

    server = Server(answer)
    server.objects, server.problems, server.bodies = objects, problems, bodies
    return server


def crc32c(data):
    """In base64, as headers have it."""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return base64.b64encode((crc ^ 0xffffffff).to_bytes(4, "big")).decode()
