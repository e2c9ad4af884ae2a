#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The S3 store against each script of tests/testbed/proxy: it ends with the right bytes, or with a precise error and its
exit code, in time and in little memory. `s3_hostile.py PART`: only the scripts whose names hold PART."""
import concurrent.futures
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/testbed/proxy"))
sys.dont_write_bytecode = True
import proxy  # noqa: E402

PROGRAM = os.path.join(os.environ.get("ORRERY_BUILD", "build"), "tests", "s3_once")
SLACK_S = 20.0  # what a loaded machine may add to a deadline
MEMORY_KIB = 64 << 10  # 17 MiB are the operation's own
EXITS = {"ok": 0, "bad data": 65, "missing input": 66, "unavailable": 69, "peer lost": 73, "input/output": 74,
         "deadline passed": 76, "permission": 77, "bad config": 78, "exists already": 79}


def openssl(*args, folder):
    subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)


def make_certificate(folder, name, host):
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext",
            f"subjectAltName={host}", "-keyout", f"{name}.key", "-out", f"{name}.pem", folder=folder)


def make_expired(folder):
    """Self-signed, for the right host, valid through the first day of 2020."""
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
        "x509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:TRUE\n")
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("01\n")
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", "expired.key", "-out",
            "expired.csr", folder=folder)
    openssl("ca", "-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", "expired.key", "-in", "expired.csr",
            "-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-notext", "-out", "expired.pem",
            folder=folder)


def certificates(folder):
    """{kind of a script's tls: (server's context, environment of the client)}"""
    make_certificate(folder, "here", "IP:127.0.0.1")
    make_certificate(folder, "there", "DNS:elsewhere.example")
    make_expired(folder)
    out = {}
    for kind, name, trusted in (("self-signed", "here", False), ("trusted", "here", True),
                                ("other-host", "there", True), ("expired", "expired", True)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        out[kind] = context, {"AWS_CA_BUNDLE": str(folder / f"{name}.pem")} if trusted else {}
    return out


def call(case, server, env):
    """(exit code, outcome in words, message, stderr, seconds, peak memory in KiB)"""
    scheme = "https" if case["tls"] else "http"
    env = dict(os.environ, AWS_ENDPOINT_URL=f"{scheme}://{case['host']}:{server.port}", S3_BUCKET="hostile",
               AWS_ACCESS_KEY_ID="AK", AWS_SECRET_ACCESS_KEY="the-secret", AWS_REGION="us-east-1", **env)
    key = "" if case["operation"] == "list" else "key"
    begin = time.monotonic()
    done = subprocess.run([PROGRAM, case["operation"], key, str(case["deadline"] * 1000)], env=env, text=True,
                          errors="replace", capture_output=True, timeout=300, check=False)
    took = time.monotonic() - begin
    words, memory, text = ((done.stdout.splitlines() or ["crashed|0|"])[-1] + "||").split("|", 2)
    return done.returncode, words, text.removesuffix("||"), done.stderr, took, int(memory)


def judge(case, server, result):
    code, words, text, stderr, took, memory = result
    allowed = case["ends"].split("|")
    if words not in allowed:
        yield f"ended as '{words}', not '{case['ends']}'"
    if code != EXITS.get(words):
        yield f"exit code {code}"
    if stderr:
        yield f"wrote to stderr: {stderr[-500:]}"
    if not re.search(case["says"], text):
        yield f"does not say '{case['says']}'"
    if len(server.requests) > case["most"]:
        yield f"{len(server.requests)} requests, at most {case['most']}"
    if took > case["deadline"] + SLACK_S:
        yield f"took {took:.1f} s, deadline {case['deadline']} s"
    if not 0 < memory <= MEMORY_KIB:
        yield f"{memory} KiB of memory, at most {MEMORY_KIB}"
    if re.search("the-secret|the-token", text + stderr):
        yield "prints a secret"
    wrong = case["after"](server) if case["after"] else None
    if wrong:
        yield wrong


def run(name, tls):
    case = proxy.load(name)
    context, env = tls[case["tls"]] if case["tls"] else (None, {})
    server = proxy.Server(case["answer"], context)
    result = call(case, server, {**env, **case["env"]})
    server.close()
    problems = list(judge(case, server, result))
    lines = [f"{'FAIL' if problems else 'ok  '} {name}: {result[4]:.2f} s, {result[5] >> 10} MiB, "
             f"{len(server.requests)} requests: {result[1]}: {result[2][:200]}"]
    return not problems, "\n".join(lines + ["       " + p for p in problems])


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    names = sorted(p.stem for p in proxy.SCRIPTS.glob("*.py") if wanted in p.stem)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="orrery-s3-"))
    try:
        tls = {}
        if shutil.which("openssl"):
            tls = certificates(folder)
        else:
            names = [n for n in names if not n.startswith("tls-")]
            print("no openssl: scripts tls-* are left out")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda n: run(n, tls), names))
    finally:
        shutil.rmtree(folder)
    print("\n".join(text for _, text in results))
    good = sum(1 for fine, _ in results if fine)
    print(f"{good} of {len(results)} scripts ended as they should")
    return 0 if results and good == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
