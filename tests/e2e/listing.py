#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Listings of 200,000 objects take no more memory than listings of a few hundred: `orrery store ls`, `cp -r` and `rm`, `orrery data
index` and `check`, `orrery ckpt clean`, of a stand-in for S3 that makes its LIST replies up, and of a folder. What is told does not depend on
which of several shards was done first."""
import hashlib
import http.server
import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import ORRERY, check, folder  # noqa: E402

FEW, MANY, PAGE = 300, 200_000, 1000
ROOM_KIB = 4096  # what may differ: allocators, not keys
SHARDS = 12


def shard(number):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(f"ep{number:06d}.note.txt")
        data = hashlib.sha256(str(number).encode()).digest() * (1 + number % 50)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    """A bucket of `count` objects "set/NNNNNNN.bin" and SHARDS tars among them; what is put lies in `put`."""
    protocol_version = "HTTP/1.1"
    count, put, deleted = 0, {}, 0
    uploads = None  # keys of begun ones; None: this server knows no list of them
    lock = threading.Lock()

    def log_message(self, *args):
        pass

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @classmethod
    def key(cls, i):
        step = max(cls.count // SHARDS, 1)
        return f"set/{i:07d}.{'tar' if i % step == step // 2 else 'bin'}"

    # Other buckets, and the i-th key of each: marks of empty folders behind a few objects, keys as long as they may be,
    # and names that are nearly those of manifests.
    others = {"marks": lambda i: f"set/{i:07d}/" + "x" * (i < FEW),
              "long": lambda i: "set/" + f"{'n' * 200}/" * 4 + f"{i:07d}",
              "saves": lambda i: f"manifest-{i:012d}.json.old"}

    @classmethod
    def content(cls, key):
        if key in cls.put:
            return cls.put[key]
        if key.endswith("/x") or "/nnn" in key:
            return b"7 bytes"
        number = int(re.sub(r"\D", "", key) or 0)
        return shard(number) if number < cls.count and cls.key(number) == key else None

    def listing(self, bucket, query):
        prefix = query.get("prefix", [""])[0]
        first = int(query.get("continuation-token", ["0"])[0])
        of = self.others.get(bucket, self.key)
        last = min(first + PAGE, self.count) if of(0).startswith(prefix[:5]) or prefix.startswith("set/") else first
        keys = [k for k in map(of, range(first, last)) if k.startswith(prefix)]
        rows = "".join(f"<Contents><Key>{k}</Key><ETag>&quot;{'0' * 32}&quot;</ETag><Size>{len(shard(int(k[4:11]))) if k.endswith('tar') else 7}"
                       "</Size></Contents>" for k in keys)
        if query.get("delimiter") and prefix == "set":
            rows, last = "<CommonPrefixes><Prefix>set/</Prefix></CommonPrefixes>", self.count
        more = last < self.count
        token = f"<NextContinuationToken>{last}</NextContinuationToken>" if more else ""
        self.answer(200, f'<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>'.encode())

    def list_uploads(self, query):
        if self.uploads is None:
            return self.answer(501, b"<Error><Code>NotImplemented</Code><Message>no uploads here</Message></Error>")
        marker = (query.get("key-marker", [""])[0], query.get("upload-id-marker", [""])[0])
        with self.lock:
            rest = sorted((k, i) for k, i in self.uploads if (k, i) > marker)
        page = rest[:PAGE]
        rows = "".join(f"<Upload><Key>{urllib.parse.quote(k)}</Key><UploadId>{i}</UploadId></Upload>" for k, i in page)
        more = f"<NextKeyMarker>{urllib.parse.quote(page[-1][0])}</NextKeyMarker><NextUploadIdMarker>{page[-1][1]}</NextUploadIdMarker>" if page else ""
        self.answer(200, f"<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>{str(len(rest) > PAGE).lower()}</IsTruncated>"
                    f"{more}{rows}</ListMultipartUploadsResult>".encode())

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
        if "list-type" in query:
            return self.listing(url.path.split("/")[1], query)
        if "uploads" in query:
            return self.list_uploads(query)
        data = self.content(urllib.parse.unquote(url.path).split("/", 2)[2])
        if data is None:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.answer(200, data, ETag='"x"')
        lo, hi = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        # The later the shard, the faster: the order of what is told must not follow.
        time.sleep(0.02 * (1 - int(re.sub(r"\D", "", url.path) or 0) / self.count) if url.path.endswith(".tar") else 0)
        return self.answer(206, data[lo:hi + 1], ETag='"x"', Content_Range=f"bytes {lo}-{hi}/{len(data)}")

    do_HEAD = do_GET

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            self.put[urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).split("/", 2)[2]] = body
        self.answer(200, ETag='"x"')

    def do_DELETE(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        with self.lock:
            Server.deleted += 1
            if "uploadId" in query:
                self.uploads.remove((urllib.parse.unquote(url.path).split("/", 2)[2], query["uploadId"][0]))
        self.answer(204)


# In a small process of its own: a child's peak begins with what its parent held when it was made.
MEASURE = """import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
sys.stderr.write(f"peak {usage.ru_maxrss}")
os._exit(os.waitstatus_to_exitcode(status))"""


def peak(*args, env=None):
    """(peak RSS in KiB, stdout's lines or JSON keys, stderr) of one command."""
    done = subprocess.run([sys.executable, "-S", "-c", MEASURE, ORRERY, *map(str, args)], capture_output=True, text=True, env=env)
    told, _, kib = done.stderr.rpartition("peak ")
    check(done.returncode == 0, f"orrery {' '.join(map(str, args[:2]))}{told[-300:] if done.returncode else ''}")
    return int(kib), done.stdout.count("\n") + done.stdout.count('"key"'), told


def same_memory(what, few, many, room=ROOM_KIB):
    check(many - few < room, f"{what}: {few} KiB for few, {many} KiB for many")


def far(env):
    """Over HTTP: a listing that is made up, so that the objects cost nothing."""
    seen = {}
    for count in (FEW, MANY):
        Server.count, Server.put = count, {}
        ls, lines, _ = peak("store", "ls", "-r", "s3://made-up/set/", env=env)
        check(lines == count, f"{lines} keys are listed")
        js, keys, _ = peak("store", "ls", "-r", "--json", "s3://made-up/set/", env=env)
        check(keys == count + 1, f"{keys - 1} keys are listed as JSON")
        index, _, told = peak("data", "index", "s3://made-up/set/", env=env)
        names = re.findall(r"indexed (\S+):", told)
        check(len(names) >= SHARDS and names == sorted(names), f"{len(names)} shards are told in their order")
        kept, _, told = peak("data", "index", "s3://made-up/set/", env=env)
        check(told.count("kept") == len(names), "and kept the second time")
        checked, _, _ = peak("data", "check", "s3://made-up/set/", env=env)
        seen[count] = {"store ls": ls, "store ls --json": js, "data index": index, "data index again": kept, "data check": checked}
    for what, few in seen[FEW].items():
        same_memory(f"S3, {FEW} and {MANY} objects, {what}", few, seen[MANY][what])
    seen = {}
    for count in (FEW, MANY // 20):  # each costs a request of its own
        Server.count, Server.deleted = count, 0
        seen[count], _, _ = peak("store", "rm", "-r", "s3://made-up/set/", env=env)
        check(Server.deleted == count, f"{Server.deleted} objects are removed")
    same_memory(f"S3, {FEW} and {MANY // 20} objects, store rm", seen[FEW], seen[MANY // 20])


def copied(env):
    """Copies of what lies behind a long listing, whose workers are slower than the lister; and what is no manifest."""
    seen = {}
    for count in (FEW, MANY):
        Server.count = count
        with folder() as tmp:
            marks, _, told = peak("store", "cp", "-r", "s3://marks/set", tmp, env=env)
            check(f"{FEW} objects" in told and len(list(tmp.glob("*/x"))) == FEW, f"{FEW} objects are copied, no marks: {told}")
        clean, _, _ = peak("ckpt", "clean", "s3://saves", env=env)
        seen[count] = {"store cp -r": marks, "ckpt clean": clean}
    for what, few in seen[FEW].items():
        same_memory(f"S3, {FEW} and {MANY} keys, {what}", few, seen[MANY][what])
    seen, few = {}, MANY // 40
    for count in (few, 3 * few):
        Server.count = count
        with folder() as tmp:
            seen[count], _, told = peak("store", "cp", "-r", "s3://long/set", tmp, env=env)
            check(f"{count} objects" in told, f"{count} objects of long names are copied")
    # The keys that are more would be 8 MB; 64 workers' allocators take their time to have what they keep.
    same_memory(f"S3, {few} and {3 * few} objects of long names, store cp -r", seen[few], seen[3 * few], 6144)


def itself(tmp):
    """A folder is not copied into itself, under no name; beside itself it is."""
    (tmp / "a" / "b").mkdir(parents=True)
    (tmp / "a" / "one").write_bytes(b"1")
    (tmp / "way").symlink_to(tmp / "a")
    for target in ("a", "a/", "a/b", "a/new", "way/b"):
        done = subprocess.run([ORRERY, "store", "cp", "-r", tmp / "a", f"{tmp}/{target}"], capture_output=True, text=True)
        check(done.returncode == 64 and "into itself" in done.stderr, f"not into {target}: {done.stderr}")
    done = subprocess.run([ORRERY, "store", "cp", "-r", tmp / "a", tmp / "ab"], capture_output=True, text=True)
    check(done.returncode == 0 and (tmp / "ab" / "one").read_bytes() == b"1", f"beside itself: {done.stderr}")


def begun(env):
    """Uploads that were begun: ended over several pages, of one folder alone; and a server that does not list them."""
    Server.count, Server.uploads = 0, [(f"run/a b+{i % 700}/é", f"id{i}") for i in range(2500)] + [("run2/x", "other")]
    done = subprocess.run([ORRERY, "store", "rm", "--uploads", "--json", "s3://made-up/run"], capture_output=True, text=True, env=env)
    check(done.stdout == '{"uploads_removed": 2500}\n', f"2500 uploads are ended: {done.stdout}{done.stderr}")
    check(Server.uploads == [("run2/x", "other")], "and the one beside them is not")
    Server.uploads = None
    done = subprocess.run([ORRERY, "store", "rm", "--uploads", "s3://made-up/run"], capture_output=True, text=True, env=env)
    check(done.returncode == 69 and "AbortIncompleteMultipartUpload" in done.stderr and "NotImplemented" in done.stderr,
          f"a server without such a list: {done.returncode} {done.stderr}")
    whole = subprocess.run([ORRERY, "store", "rm", "--uploads", "s3://made-up"], capture_output=True, text=True, env=env)
    check(whole.returncode == 64 and "--everything" in whole.stderr, "not those of a whole bucket by mistake")


def near(tmp):
    """A folder of as many files, and one of as many shards as one second allows."""
    seen = {}
    for count in (FEW, MANY):
        where = tmp / f"files-{count}"
        where.mkdir()
        for i in range(count):
            os.close(os.open(where / f"{i * 7919 % count:06d}.bin", os.O_CREAT | os.O_WRONLY))
        seen[count], lines, _ = peak("store", "ls", "-r", where)
        check(lines == count, f"{lines} files are listed")
    same_memory(f"a folder of {FEW} and {MANY} files, store ls", seen[FEW], seen[MANY])
    seen = {}
    for count in (50, 1000):
        where = tmp / f"shards-{count}"
        where.mkdir()
        for i in range(count):
            (where / f"{i:06d}.tar").write_bytes(shard(i))
        seen[count] = [peak("data", "index", where)[0], peak("data", "index", where)[0]]
    for turn, what in enumerate(("data index", "data index again")):
        same_memory(f"50 and 1000 shards, {what}", seen[50][turn], seen[1000][turn])


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = dict(os.environ, AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}")
    env.pop("AWS_SESSION_TOKEN", None)
    begun(env)
    far(env)
    copied(env)
    with folder() as tmp:
        itself(tmp)
        near(tmp)


if __name__ == "__main__":
    main()
