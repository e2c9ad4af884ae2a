#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the table of storage bars with figures seen here: tests/bench/storage/bars.py [--quick] [ROW...]
Rows: signer throughput noop memory faults wire outage resume crash steps corruption stall reshard race (all, when none is named).
--quick: fewer rounds and objects. BUILD (default build) is the build folder. The peers are those of awscli, s3cmd and rclone
that are installed. Ratios are of interleaved rounds on one machine; nothing is gated but wrong results."""
import contextlib
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
TESTS = BUILD / "tests"
TESTBED = ROOT / "tests/testbed/radosgw"
PART = 8 << 20
BUCKET = "orrery-bars"


def say(*words):
    print(*words, flush=True)


def row(bar, *figures):
    say(f"{bar:12}", " ".join(figures))


def call(*args, env=None, check=True, cwd=ROOT, timeout=7200):
    done = subprocess.run([str(a) for a in args], env=env, cwd=cwd, text=True, capture_output=True, timeout=timeout)
    if check and done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, args))} -> {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def last_line(text, pattern="."):
    lines = [line for line in text.splitlines() if re.search(pattern, line)]
    return lines[-1].strip() if lines else "no result"


class Bench:
    """A radosgw with one bucket, and a folder in memory for the files that are moved."""

    def __init__(self, stack, quick):
        self.quick, self.stack, self.started = quick, stack, None
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="orrery-bars-", dir=memory))
        stack.callback(shutil.rmtree, self.dir, True)

    def server(self):
        """Its environment; started when first asked for."""
        if self.started:
            return self.started
        folder = pathlib.Path(tempfile.mkdtemp(prefix="orrery-bars-rgw-"))
        env = dict(os.environ, ORRERY_RGW_BYTES=str(48 << 30), NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
        env.pop("AWS_CA_BUNDLE", None)  # plain HTTP; rclone refuses to start with it
        self.stack.callback(lambda: call(TESTBED, "down", folder, check=False))
        self.rgw = folder
        call(TESTBED, "up", folder, str(os.getpid()), env=env)
        call(TESTBED, "bucket", folder, BUCKET)
        for line in (folder / "env").read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            env[name] = shlex.split(value)[0]
        env.update(S3_BUCKET=BUCKET, ORRERY_BUILD=str(BUILD), ORRERY_BIN=str(BUILD / "bin"), NO_COLOR="1")
        self.started = env
        return env

    def server_cpu(self):
        """Core-seconds that gateway and OSD have used."""
        ticks = 0
        for name in ("gateway", "osd"):
            pid = (self.rgw / f"{name}.pid").read_text().split()[0]
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def object_bytes(self, key):
        listed = call(BUILD / "bin/orrery", "store", "ls", "--json", f"s3://{BUCKET}/{key}", env=self.started)
        return json.loads(listed.stdout)["objects"][0]["bytes"]

    def remove(self, key):
        call(BUILD / "bin/orrery", "store", "rm", "-q", f"s3://{BUCKET}/{key}", env=self.started)


# ---- throughput

CLOSE = ("one curl", "orrery", "unverified")


class Tool:
    """A program that moves one file. `put` and `get` make its command line from a file and a key."""

    def __init__(self, name, put, get, env):
        self.name, self.put, self.get, self.env = name, put, get, env
        self.seconds = {"GET": [], "PUT": []}
        self.cpu = {"GET": [], "PUT": []}
        self.server_cpu = {"GET": [], "PUT": []}

    def move(self, b, way, command):
        before, begin, server = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), b.server_cpu()
        call(*command, env=self.env)
        self.seconds[way].append(time.monotonic() - begin)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu[way].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        self.server_cpu[way].append(b.server_cpu() - server)

    def median(self, way):
        return statistics.median(self.seconds[way])


def tools(b, env):
    url, key, secret = env["AWS_ENDPOINT_URL"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
    # curl reads its secret from a file: nothing of it stands in the process list.
    (b.dir / "curlrc").write_text(f'user = "{key}:{secret}"\naws-sigv4 = "aws:amz:us-east-1:s3"\nsilent\nshow-error\nfail\n'
                                  'header = "x-amz-content-sha256: UNSIGNED-PAYLOAD"\n')
    curl = ["curl", "-K", b.dir / "curlrc"]
    yield Tool("one curl", lambda f, k: [*curl, "-T", f, f"{url}/{BUCKET}/{k}"],
               lambda k, f: [*curl, "-o", f, f"{url}/{BUCKET}/{k}"], env)
    orrery = [BUILD / "bin/orrery", "store", "cp", "-q"]
    yield Tool("orrery", lambda f, k: [*orrery, f, f"s3://{BUCKET}/{k}"],
               lambda k, f: [*orrery, f"s3://{BUCKET}/{k}", f], env)
    bare = [*orrery, "--no-verify"]
    yield Tool("unverified", lambda f, k: [*bare, f, f"s3://{BUCKET}/{k}"],
               lambda k, f: [*bare, f"s3://{BUCKET}/{k}", f], env)
    yield from peers(b, url, key, secret, env)


def peers(b, url, key, secret, env):
    aws = "/usr/bin/aws" if os.path.exists("/usr/bin/aws") else shutil.which("aws")
    if aws:
        (b.dir / "aws").write_text("[default]\ns3 =\n  max_concurrent_requests = 16\n  multipart_threshold = 8MB\n"
                                   "  multipart_chunksize = 8MB\n  addressing_style = path\n")
        cp = [aws, "--endpoint-url", url, "s3", "cp", "--no-progress"]
        yield Tool("awscli", lambda f, k: [*cp, f, f"s3://{BUCKET}/{k}"], lambda k, f: [*cp, f"s3://{BUCKET}/{k}", f],
                   {**env, "AWS_CONFIG_FILE": str(b.dir / "aws")})
    if shutil.which("s3cmd"):
        host = url.split("//")[1]
        (b.dir / "s3cfg").write_text(f"[default]\naccess_key = {key}\nsecret_key = {secret}\nhost_base = {host}\n"
                                     f"host_bucket = {host}\nuse_https = False\n")
        s3cmd = ["s3cmd", "-c", b.dir / "s3cfg", "-q", "--no-progress", "--multipart-chunk-size-mb=8", "--force"]
        yield Tool("s3cmd", lambda f, k: [*s3cmd, "put", f, f"s3://{BUCKET}/{k}"],
                   lambda k, f: [*s3cmd, "get", f"s3://{BUCKET}/{k}", f], env)
    if shutil.which("rclone"):
        # It asks for what is there before it copies, and skips what it takes for the same: not to be asked.
        rclone = ["rclone", "copyto", "-q", "--ignore-times", "--no-check-dest", "--s3-chunk-size", "8M",
                  "--s3-upload-cutoff", "8M", "--s3-upload-concurrency", "16", "--multi-thread-streams", "16",
                  "--multi-thread-cutoff", "8M", "--s3-no-check-bucket"]
        yield Tool("rclone", lambda f, k: [*rclone, f, f"r:{BUCKET}/{k}"], lambda k, f: [*rclone, f"r:{BUCKET}/{k}", f],
                   {**env, "RCLONE_CONFIG": str(b.dir / "rclone"), "RCLONE_CONFIG_R_TYPE": "s3",
                    "RCLONE_CONFIG_R_PROVIDER": "Ceph", "RCLONE_CONFIG_R_ENDPOINT": url,
                    "RCLONE_CONFIG_R_ACCESS_KEY_ID": key, "RCLONE_CONFIG_R_SECRET_ACCESS_KEY": secret})


def get_round(b, some, source, parts, turn):
    """Each tool gets our object, beginning with another one in every round."""
    for i in range(len(some)):
        t = some[(i + turn) % len(some)]
        back = b.dir / "back"
        t.move(b, "GET", t.get(f"get-{parts}", back))
        if back.stat().st_size != parts * PART or (turn == 0 and back.read_bytes() != source.read_bytes()):
            raise RuntimeError(f"{t.name} brought back other bytes")
        back.unlink()


def put_round(b, some, source, parts, turn):
    """Each tool puts the file under a fresh key."""
    for i in range(len(some)):
        t = some[(i + turn) % len(some)]
        key = f"put-{parts}-{turn}-{t.name.replace(' ', '-')}"
        t.move(b, "PUT", t.put(source, key))
        sent = b.object_bytes(key)
        if sent != parts * PART:
            raise RuntimeError(f"{t.name} put {sent} bytes of {parts * PART}")
        b.remove(key)


def report(way, parts, all_tools):
    gb = parts * PART / 1e9
    curl, ours, bare = (next(t for t in all_tools if t.name == name) for name in CLOSE)
    others = [t for t in all_tools if t.name not in CLOSE]
    say(f"  {way} {parts:2} x 8 MiB")
    for t in all_tools:
        cpu, server = statistics.median(t.cpu[way]) / gb, statistics.median(t.server_cpu[way]) / gb
        say(f"    {t.name:11} {1e3 * gb / t.median(way):6.0f} MB/s   core-s/GB: {cpu:6.2f} its own, {server:5.2f} the server's, "
            f"{cpu + server:6.2f} together")
    line = (f"    orrery is {curl.median(way) / bare.median(way):.2f} times as fast as one curl where it checks as little, "
            f"{curl.median(way) / ours.median(way):.2f} with its checks")
    if others:
        best = min(others, key=lambda t: t.median(way))
        line += f", {best.median(way) / ours.median(way):.2f} times as fast as the best peer, {best.name}"
    say(line + "; bar 1.00")


def throughput(b):
    env = b.server()
    source = b.dir / "source"
    say("throughput   whole programs, start to end, file in memory <-> radosgw; medians of interleaved rounds. Where all cores are\n"
        "             busy, nobody is faster than cores / (core-s/GB together).")
    # Those that lie close together need many rounds; the peers are far behind, and slow.
    for parts, rounds in ((1, 21), (16, 15), (64, 11)):
        all_tools = list(tools(b, env))
        source.write_bytes(os.urandom(parts * PART))
        call(*next(t for t in all_tools if t.name == "orrery").put(source, f"get-{parts}"), env=env)
        # What a PUT and its removal leave the server to do must not be paid by whoever comes next with a GET.
        for one_round in get_round, put_round:
            for turn in range(3 if b.quick else rounds):
                one_round(b, all_tools if turn < 3 else [t for t in all_tools if t.name in CLOSE], source, parts, turn)
        for way in ("GET", "PUT"):
            report(way, parts, all_tools)


# ---- against a server that does nothing

@contextlib.contextmanager
def noop():
    server = subprocess.Popen([TESTS / "noop_http"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        yield dict(os.environ, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    finally:
        server.stdin.close()
        server.wait()


def bench_store(way, total, part, width, env):
    return json.loads(call(TESTS / "bench_store", way, f"s3://{BUCKET}/bars", total, part, width, env=env).stdout)


def medians(runs):
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


def noop_rate(b):
    total = (2 if b.quick else 4) * 10 ** 9
    shapes = [("get", 1 << 20, 16), ("get", PART, 16), ("get", 256 << 10, 64), ("put", PART, 16)]
    runs = {s: [] for s in shapes}
    with noop() as env:
        for _ in range(3):
            for s in shapes:
                runs[s].append(bench_store(s[0], total, s[1], s[2], env))
    for (way, part, width), found in runs.items():
        m = medians(found)
        best = max(r["gb_per_s"] for r in found)
        row("noop", f"{way.upper()} {width} x {part >> 10} KiB: {m['gb_per_s']:.2f} GB/s (best {best:.2f}), "
            f"{m['cpu_s_per_gb']:.2f} core-s/GB, CRC32C of every byte read; bar 1 GB/s, 1 core-s/GB")


def memory(b):
    """The client alone, and the loader over it: 64 requests in flight, the memory that they fill included."""
    env = b.server()
    total = (256 if b.quick else 512) << 20
    for part in (64 << 10, 256 << 10):
        bench_store("put", total, part, 64, env)
        m = bench_store("get", total, part, 64, env)
        row("memory", f"client, 64 requests of {part >> 10} KiB in flight: {m['peak_mib']:.0f} MiB, "
            f"{m['cpu_s_per_gb']:.2f} core-s/GB on radosgw; bar 64 MiB, 1 core-s/GB")
        loader = [TESTS / "bench_loader", "make", f"s3://{BUCKET}/loader-{part}", total // part, part, 64]
        call(*loader, env=env)
        loader[1] = "read"
        m = medians([json.loads(call(*loader, env=env).stdout) for _ in range(3)])
        row("memory", f"client + loader, 64 samples of {part >> 10} KiB in flight: {m['peak_mib']:.0f} MiB, "
            f"{m['cpu_s_per_gb']:.2f} core-s/GB, {m['gb_per_s']:.2f} GB/s on radosgw; bar 64 MiB, 1 core-s/GB")


# ---- campaigns

def signer(b):
    env = b.server()
    vectors = call(TESTS / "test_sigv4", check=False)
    keys = 1000 if b.quick else 10000
    done = call(TESTS / "test_store_s3", "keys", env={**env, "S3_KEYS": str(keys)}, check=False)
    row("signer", f"AWS vectors {'pass' if not vectors.returncode else 'FAIL'}; {'' if not done.returncode else 'FAILED '}"
        f"{last_line(done.stdout, 'keys:')}")


def faults(b):
    env = b.server()
    out = call(TESTS / "store_faults", f"s3://{BUCKET}/faults", 1000 if b.quick else 10000, env=env, check=False)
    say("faults       bar: ratio at most 2, nothing wrong, lost or doubled\n" + out.stdout.rstrip())


def wire(b):
    """The same faults on the wire, between our HTTP client and radosgw."""
    env = b.server()
    n = 300 if b.quick else 3000
    say("wire         through a relay before radosgw; ratio to the relay alone")
    clean = None
    for kind in ("none", "503=5%", "500=5%", "reset=5%", "truncate=5%", "lost=5%", "delay=5%", "stall=5%"):
        args = [] if kind == "none" else [kind]
        relay = subprocess.Popen([sys.executable, ROOT / "tests/testbed/proxy/proxy.py", "weather", env["AWS_ENDPOINT_URL"],
                                  *args], stdout=subprocess.PIPE, text=True)
        try:
            url = relay.stdout.readline().strip()
            out = call(TESTS / "store_faults", f"s3://{BUCKET}/wire-{kind.split('=')[0]}", n, "none",
                       env={**env, "AWS_ENDPOINT_URL": url}, check=False)
        finally:
            relay.kill()
            relay.wait()
        line = last_line(out.stdout, "none")
        if "FAILED" in line or out.returncode:
            row("wire", f"{kind}: {line}")
            continue
        seconds = float(line.split()[2])
        clean = clean or seconds
        row("wire", f"{kind}: {n} objects and samples in {seconds:.1f} s, {seconds / clean:.2f} times; nothing wrong")


def script(name, *command, pattern=".", full=None, env=None):
    def run(b):
        e = {**os.environ, "ORRERY_BUILD": str(BUILD), "ORRERY_BIN": str(BUILD / "bin"), **(env or {})}
        if not b.quick:
            e.update(full or {})
        begin = time.monotonic()
        done = call(*command, env=e, check=False)
        line = last_line(done.stdout, pattern)
        row(name, f"{'' if not done.returncode else 'FAILED '}{line} ({time.monotonic() - begin:.0f} s)")
    return run


def corruption(b):
    found = []
    for program in ("test_dataset", "test_ckpt"):
        done = call(TESTS / program, check=False)
        both = done.stdout + done.stderr
        found.append(f"{program[5:]}: every flipped bit {'found' if '[       OK ] every_flipped' in both else 'NOT found'}")
    row("corruption", "; ".join(found))


def stall(b):
    folder = b.dir / "stall"
    done = call(TESTS / "bench_stall", folder)
    shutil.rmtree(folder)
    row("stall", last_line(done.stdout), "; bar 5 ms")


def race(b):
    env = b.server()
    done = call(TESTS / "test_ckpt_race", f"s3://{BUCKET}/race", env=env, check=False)
    row("race", f"{'' if not done.returncode else 'FAILED '}on radosgw: {last_line(done.stdout, 'winner')}")


FULL = {"ORRERY_FAULT_FULL": "1"}
ROWS = {
    "signer": signer,
    "throughput": throughput,
    "noop": noop_rate,
    "memory": memory,
    "faults": faults,
    "wire": wire,
    "outage": script("outage", sys.executable, ROOT / "tests/e2e/stream.py", pattern="survives", full=FULL),
    "resume": script("resume", TESTS / "test_resume_order", pattern="kills", full={"ORRERY_KILLS": "1000"}),
    "crash": script("crash", TESTS / "test_ckpt_kill", pattern="kills", full=FULL),
    "steps": script("steps", TESTS / "test_ckpt_steps", pattern="points", full=FULL),
    "corruption": corruption,
    "stall": stall,
    "reshard": script("reshard", TESTS / "test_ckpt_reshard", pattern="worst"),
    "race": race,
}


def main():
    args = sys.argv[1:]
    quick = "--quick" in args
    wanted = [a for a in args if a != "--quick"] or list(ROWS)
    unknown = [a for a in wanted if a not in ROWS]
    if unknown or "--help" in args:
        print(__doc__, "\nrows:", " ".join(ROWS))
        return 64
    say(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    failed = 0
    with contextlib.ExitStack() as stack:
        b = Bench(stack, quick)
        for name in wanted:
            try:
                ROWS[name](b)
            except (RuntimeError, subprocess.TimeoutExpired) as problem:
                row(name, f"FAILED {problem}")
                failed = 1
    return failed


sys.exit(main())
