#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the compiler says of the attention kernels, without a GPU: they compile for sm_80, sm_90a and sm_100 without
warnings; nothing lies in local memory; wgmma is never serialised; the sm_90a code holds wgmma, bulk-tensor copies and
setmaxnreg, the sm_80 code mma.sync and cp.async. Where nvdisasm is too (`pip install nvidia-cuda-nvdisasm`): in the
machine code, exponentials come between the products they overlap with and the wait for those; nothing touches a
register that a product in flight uses; a product's descriptors cost few instructions; producers keep within what
setmaxnreg leaves them. Skipped (77) without nvcc."""
import concurrent.futures
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SM80, FORWARD, BACKWARD, HOST = (f"kernels/cuda/attention{x}.cu" for x in ("_sm80", "_sm90_forward", "_sm90_backward", ""))
WORK = [(SM80, "80"), (SM80, "100"), (FORWARD, "90a"), (BACKWARD, "90a"), (HOST, "90a")]
# Instructions that must be in the PTX, by (file, architecture).
MUST = {
    (SM80, "80"): ["mma.sync.aligned.m16n8k16", "cp.async.cg.shared.global", "ldmatrix"],
    (FORWARD, "90a"): ["wgmma.mma_async", "cp.async.bulk.tensor.3d.shared::cluster", "cp.async.bulk.tensor.3d.global",
                       "setmaxnreg.inc", "mbarrier.try_wait", ".multicast::cluster", "barrier.cluster"],
    (BACKWARD, "90a"): ["wgmma.mma_async", "cp.async.bulk.tensor.3d.shared::cluster", "cp.reduce.async.bulk.global",
                        "setmaxnreg.inc", "red.release.gpu"],
}
# Exponentials of one step: a consumer's logits over its threads, and two for the scale of what was summed.
EXPONENTIALS = {FORWARD: 66, BACKWARD: 32}
KEPT = {FORWARD: 40, BACKWARD: 24}  # registers of a thread of the producer's warpgroup
BETWEEN = 4  # instructions between two products in a row: two descriptors of two words
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


def find_nvdisasm():
    given = shutil.which("nvdisasm") or shutil.which("/usr/local/cuda/bin/nvdisasm")
    wheels = [os.path.join(d, "nvidia/cu13/bin/nvdisasm") for d in (sysconfig.get_paths()["purelib"], *sys.path)]
    return given or next((w for w in wheels if os.access(w, os.X_OK)), None)


def kernels_of(nvdisasm, cubin):
    """The instructions of each kernel that uses wgmma."""
    text = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True, check=True).stdout
    for section in text.split(".section")[1:]:
        lines = re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ )?([^;]*);", section)
        if any(line.startswith("HGMMA") for line in lines):
            yield lines


def overlapped(lines, exponentials):
    """Somewhere, after products began and before the next wait for them, lie a step's exponentials."""
    count = in_flight = 0
    for line in lines:
        in_flight = in_flight or line.startswith("HGMMA")
        count += bool(in_flight) and line.startswith("MUFU.EX2")
        if line.startswith("WARPGROUP.DEPBAR"):
            if count >= exponentials:
                return True
            count, in_flight = 0, not line.endswith("gsb0, 0x0 ")
    return False


def touched(lines):
    """Instructions between a product and the wait for it that name a register which it reads or writes."""
    groups, current, bad = [], set(), []
    for line in lines:
        product = re.match(r"HGMMA\.64x(\d+)x16\S* R(\d+), (?:R(\d+), )?gdesc", line)
        wait = re.match(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x(\d+)", line)
        if product:
            first = int(product[2])
            current |= set(range(first, first + int(product[1]) // 2))
            if product[3]:
                current |= set(range(int(product[3]), int(product[3]) + 4))
            if "gsb0" in line:
                groups, current = [*groups, current], set()
        elif wait:
            groups = groups[max(0, len(groups) - int(wait[1])):] if int(wait[1]) else []
        elif line.startswith("USETMAXREG"):
            groups, current = [], set()
        else:
            written = re.match(r"(?!ST|RED|BAR|SYNCS)[A-Z0-9_.]+ R(\d+),", line)
            if written and int(written[1]) in current.union(*groups):
                bad.append(line.strip())
    return bad


def between(lines):
    """The median of the instructions between two products that follow one another."""
    gaps, last = [], None
    for i, line in enumerate(lines):
        if line.startswith("WARPGROUP"):
            last = None
        elif line.startswith("HGMMA"):
            gaps += [i - last - 1] if last is not None else []
            last = i
    return statistics.median(gaps)


def judge_machine_code(nvdisasm, path, cubin):
    problems = []
    for lines in kernels_of(nvdisasm, cubin):
        if not overlapped(lines, EXPONENTIALS[path]):
            problems.append("no step's exponentials lie between its products and the wait for them")
        problems += [f"touches a product in flight: {line}" for line in touched(lines)]
        if between(lines) > BETWEEN:
            problems.append(f"{between(lines)} instructions between two products")
        give = next(i for i, line in enumerate(lines) if line.startswith("USETMAXREG.DEALLOC"))
        last = max(i for i, line in enumerate(lines) if line.startswith("EXIT"))
        most = max(int(n) for line in lines[give:last] for n in re.findall(r"\bR(\d+)\b", line))
        if most >= KEPT[path]:
            problems.append(f"the producer uses R{most} of {KEPT[path]} registers")
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
        nvdisasm, seen = find_nvdisasm(), {}
        for _, path, arch, own in jobs:
            cubins = [os.path.join(own, f) for f in os.listdir(own) if f.endswith(".cubin")]
            if nvdisasm and cubins and path in EXPONENTIALS:
                seen[path, arch] = judge_machine_code(nvdisasm, path, cubins[0])
    if not nvdisasm:
        print("the machine code is not looked at: no nvdisasm")
    bad = 0
    for path, arch, status, text, ptx in results:
        problems = judge(path, arch, status, text, ptx) + seen.get((path, arch), [])
        used = ", ".join(re.findall(r"Used (\d+) registers", text))
        print(f"{path} sm_{arch}: registers {used}: {'; '.join(problems) or 'good'}")
        bad += len(problems)
    return 1 if bad else 0


sys.exit(main())
