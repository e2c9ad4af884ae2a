#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom: checks every #include against the arrows of the house. Exit 1 names each breach."""
import re
import subprocess
import sys

# room -> what its files may include, besides itself and the C library
ARROWS = {
    "base": ["configs/schema.def", "configs/presets.def"],
    "kernels": ["base/err.h", "base/machine.h", "base/rng.h"],
    "comm": ["base/", "kernels/device.h"],
    "storage": ["base/"],
    "trainer": ["base/", "kernels/", "comm/", "storage/"],
    "launcher": ["base/", "comm/grid.h", "storage/"],
}
# library header -> the only files (or folders) that may know it
LIBRARIES = {
    "mpi.h": ["comm/coll_mpi.c"],
    "yaml.h": ["base/config"],
    "jansson.h": ["base/json.c"],
    "curl/curl.h": ["storage/http.c"],
    "openssl/": ["storage/"],
    "expat.h": ["storage/"],
    "chipmunk/": ["trainer/worlds/"],
    "png.h": ["trainer/", "launcher/"],
    "sndfile.h": ["trainer/media"],
    "cblas.h": ["kernels/cpu/"],
    "omp.h": ["kernels/cpu/"],
    "cuda": ["kernels/cuda/"],
    "nccl.h": ["comm/coll_nccl.c"],
    "libav": ["trainer/ffmpeg/"],
    "libsw": ["trainer/ffmpeg/"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')


def tracked():
    names = subprocess.run(["git", "ls-files", "*.c", "*.h", "*.cu", "*.cuh", "*.def"], check=True, text=True,
                           capture_output=True).stdout.split()
    return [n for n in names if n.split("/")[0] in ARROWS]


def breach(path, kind, target):
    room = path.split("/")[0]
    if kind == "<":
        for library, homes in LIBRARIES.items():
            if target.startswith(library) and not any(path.startswith(h) for h in homes):
                return f"<{target}> may be included by {', '.join(homes)} only"
        return None
    if target.startswith(room + "/") or any(target.startswith(a) for a in ARROWS[room]):
        return None
    return f'"{target}" is outside what {room}/ may lean on ({", ".join(ARROWS[room])})'


def main():
    bad = 0
    files = tracked()
    for path in files:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                m = INCLUDE.match(line)
                why = m and breach(path, m.group(1), m.group(2))
                if why:
                    print(f"{path}:{number}: {why}")
                    bad += 1
    print(f"{len(files)} files, {bad} breaches")
    return 1 if bad or not files else 0


sys.exit(main())
