#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shape of the code: function length, file length, banned calls, licence lines, unfinished marks, scripts that run."""
import os
import re
import statistics
import subprocess
import sys

MAX_FUNCTION = 80
MAX_FILE = 800
MEDIAN_FUNCTION = 14
BANNED = re.compile(r"\b(atoi|atol|atof|sprintf|vsprintf|strcpy|strcat|strtok|alloca|system|popen|gets)\s*\(")
EXIT = re.compile(r"(?<![\w_])exit\s*\(")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")
MAINS = {"launcher/main.c", "trainer/main.c"}


def git_files(*patterns):
    return subprocess.run(["git", "ls-files", *patterns], check=True, text=True, capture_output=True).stdout.split()


def functions(files):
    """(lines, name, path) of every function, by universal-ctags."""
    out = subprocess.run(["ctags", "-x", "--c-kinds=f", "--CUDA-kinds=f", "--_xformat=%e %n %N %F", *files], check=True, text=True,
                         capture_output=True).stdout
    for row in out.splitlines():
        end, start, name, path = row.split(" ", 3)
        if end:  # ctags loses its way in launch bounds
            yield int(end) - int(start) + 1, name, path


def check_file(path, code):
    problems = []
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines()
    if not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:3]):
        problems.append(f"{path}:1: no SPDX line")
    if len(lines) > MAX_FILE:
        problems.append(f"{path}: {len(lines)} lines, at most {MAX_FILE}")
    if lines and lines[0].startswith("#!") and not os.access(path, os.X_OK):
        problems.append(f"{path}: a script without the right to be run: chmod +x")
    if not code:
        return problems
    for number, line in enumerate(lines, 1):
        bare = re.sub(r'"(\\.|[^"\\])*"', '""', line).split("//")[0]
        if BANNED.search(bare):
            problems.append(f"{path}:{number}: banned function")
        if EXIT.search(bare) and path not in MAINS and not path.startswith("tests/"):
            problems.append(f"{path}:{number}: exit() below main")
        if UNFINISHED.search(line):
            problems.append(f"{path}:{number}: unfinished mark")
    return problems


def main():
    code = git_files("*.c", "*.h", "*.cu", "*.cuh")
    others = git_files("*.py", "*.sh", "*.cmake", "*CMakeLists.txt", "*.cc", "*.def")
    problems = [p for path in code for p in check_file(path, True)]
    problems += [p for path in others if path != "tests/lint/shape.py" for p in check_file(path, False)]
    sizes = []
    for size, name, path in functions(code):
        sizes.append(size)
        if size > MAX_FUNCTION and not path.startswith("kernels/"):
            problems.append(f"{path}: {name} has {size} lines, at most {MAX_FUNCTION}")
    median = statistics.median(sizes) if sizes else 0
    if median > MEDIAN_FUNCTION:
        problems.append(f"median function has {median} lines, at most {MEDIAN_FUNCTION}")
    print("\n".join(problems))
    print(f"{len(code)} files, {len(sizes)} functions, median {median} lines, {len(problems)} problems")
    return 1 if problems or not sizes else 0


sys.exit(main())
