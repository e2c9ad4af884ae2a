#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the compiler says of the attention kernels, without a GPU: they compile for sm_80, sm_90a and sm_100 without
warnings; nothing lies in local memory; wgmma is never serialised; the sm_90a code holds wgmma, bulk-tensor copies and
setmaxnreg, the sm_80 code mma.sync and cp.async. Skipped (77) where nvcc is absent."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SM80, FORWARD, BACKWARD, HOST = (f"kernels/cuda/attention{x}.cu" for x in ("_sm80", "_sm90_forward", "_sm90_backward", ""))
WORK = [(SM80, "80"), (SM80, "100"), (FORWARD, "90a"), (BACKWARD, "90a"), (HOST, "90a")]
# Instructions that must be in the PTX, by (file, architecture).
MUST = {
    (SM80, "80"): ["mma.sync.aligned.m16n8k16", "cp.async.cg.shared.global", "ldmatrix"],
    (FORWARD, "90a"): ["wgmma.mma_async", "cp.async.bulk.tensor.3d.shared::cluster", "cp.async.bulk.tensor.3d.global",
                       "setmaxnreg.inc", "mbarrier.try_wait"],
    (BACKWARD, "90a"): ["wgmma.mma_async", "cp.async.bulk.tensor.3d.shared::cluster", "cp.reduce.async.bulk.global",
                        "setmaxnreg.inc", "red.release.gpu"],
}
SERIALISED = re.compile(r"wgmma\.mma_async instructions are serialized|\(C75(08|1[0-9])\)")


def compile_one(job):
    nvcc, path, arch, folder = job
    out = os.path.join(folder, f"{os.path.basename(path)}.{arch}")
    run = subprocess.run([nvcc, "-std=c++17", "-O3", "-I.", f"-gencode=arch=compute_{arch},code=sm_{arch}", "-Xptxas", "-v",
                          "-Werror", "all-warnings", "-diag-suppress=177", "--keep", "--keep-dir", folder, "-c", path, "-o",
                          out + ".o"], cwd=ROOT, capture_output=True, text=True, check=False)
    ptx = ""
    stem = os.path.splitext(os.path.basename(path))[0]
    for name in (f"{stem}.ptx", f"{stem}.compute_{arch}.ptx"):
        if os.path.exists(os.path.join(folder, name)):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                ptx = f.read()
    return path, arch, run.returncode, run.stdout + run.stderr, ptx


def judge(path, arch, status, text, ptx):
    if status != 0:
        return [f"does not compile:\n{text}"]
    problems = [line for line in text.splitlines() if SERIALISED.search(line)]
    stacks = [int(n) for n in re.findall(r"(\d+) bytes stack frame", text)]
    if not stacks:
        problems.append("the compiler reports no kernel")
    problems += [f"{n} bytes of local memory" for n in stacks if n > 0]
    problems += [f"no {word} in its PTX" for word in MUST.get((path, arch), []) if word not in ptx]
    return problems


def main():
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        print("skipped: no nvcc")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for path, arch in WORK:
            own = os.path.join(folder, f"{len(jobs)}")
            os.mkdir(own)
            jobs.append((nvcc, path, arch, own))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(compile_one, jobs))
    bad = 0
    for path, arch, status, text, ptx in results:
        problems = judge(path, arch, status, text, ptx)
        used = ", ".join(re.findall(r"Used (\d+) registers", text))
        print(f"{path} sm_{arch}: registers {used}: {'; '.join(problems) or 'good'}")
        bad += len(problems)
    return 1 if bad else 0


sys.exit(main())
