#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery ckpt on saved checkpoints; the exported file as the safetensors library reads it, where it is at hand."""
import fcntl
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

try:
    from safetensors.numpy import load_file
except ImportError:
    other = os.environ.get("ORRERY_TORCH_PYTHON")
    if other and other != sys.executable:
        os.execv(other, [other, *sys.argv])
    load_file = None

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import orrery  # noqa: E402

MAKE = os.path.join(os.environ["ORRERY_BUILD"], "tests", "ckpt_make")


def make(*args, expect=0):
    done = subprocess.run([MAKE, *args], capture_output=True, text=True, timeout=60)
    if done.returncode != expect:
        sys.exit(f"ckpt_make {' '.join(args)}: exit {done.returncode}, not {expect}\n{done.stdout}{done.stderr}")
    return done


def ckpt(*args, expect=0):
    return orrery("ckpt", *args, status=expect, timeout=60)


def read_plain(path):
    """{name: (shape, bytes)}, by the format's own words."""
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        data = f.read()
    header.pop("__metadata__")
    return {k: (v["shape"], data[slice(*v["data_offsets"])]) for k, v in header.items()}


def check_digests(folder):
    """One digest for any layout; RUN may be a run folder, its ckpt/ or a URL."""
    digests = set()
    for writers in (1, 2, 3, 5):
        where = f"{folder}/n{writers}"
        make(f"{where}/ckpt", "40", str(writers))
        for name in (where, f"{where}/ckpt", f"file://{where}/ckpt", f"{where}@40"):
            digests.add(ckpt("digest", name).stdout.strip())
        assert f"step 40" in ckpt("verify", where).stdout
    assert len(digests) == 1 and len(digests.copy().pop()) == 64, digests
    same = ckpt("diff", f"{folder}/n1", f"{folder}/n5")
    assert "the same" in same.stdout, same.stdout
    return digests.pop()


def check_list(folder, digest):
    where = f"{folder}/n2"
    make(f"{where}/ckpt", "41", "3")
    rows = json.loads(ckpt("list", where, "--json").stdout)
    assert [row["step"] for row in rows] == [41, 40] and not any(row["broken"] for row in rows), rows
    assert ckpt("list", where).stdout.count("\n") == 3
    assert ckpt("digest", where).stdout.strip() != digest
    assert ckpt("digest", where, "--step", "40").stdout.strip() == digest
    assert json.loads(ckpt("digest", f"{where}@40", "--json").stdout)["digest"] == digest
    differ = ckpt("diff", f"{where}@40", f"{where}@41", expect=1)
    assert differ.stdout.count("elements differ") == 5, differ.stdout
    rows = json.loads(ckpt("diff", f"{where}@40", f"{where}@41", "--json", expect=1).stdout)
    assert all(0 < row["largest"] <= 1 for row in rows), rows
    assert "already saved" in make(f"{where}/ckpt", "41", "1", expect=79).stderr


def check_export(folder):
    out = f"{folder}/out"
    ckpt("export", f"{folder}/n3", "--out", out)
    plain = read_plain(f"{out}/model.safetensors")
    assert plain["blocks.0.w"][0] == [96, 257] and plain["scale"][0] == [], plain.keys()
    with open(f"{out}/config.json", encoding="utf-8") as f:
        config = json.load(f)
    assert config["step"] == 40 and config["config"]["train"]["steps"] == 40, config
    assert config["config"]["device"] == "auto", config
    assert "is a URL" in ckpt("export", f"{folder}/n3", "--out", "s3://bucket/model", expect=64).stderr
    ckpt("export", f"{folder}/n3", "--out", f"{folder}/few", "--prefix", "blocks.")
    assert sorted(read_plain(f"{folder}/few/model.safetensors")) == ["blocks.0.w", "blocks.1.w"]
    ckpt("export", f"{folder}/n3", "--out", f"{folder}/bare", "--weights")
    bare = sorted(read_plain(f"{folder}/bare/model.safetensors"))
    assert bare == sorted(name for name in plain if not name.startswith("optim.")) and len(bare) < len(plain), bare
    if not load_file:
        print("no safetensors library (set ORRERY_TORCH_PYTHON): its reading of our files is skipped")
        return
    paths = [f"{out}/model.safetensors"]
    for root, _, names in os.walk(f"{folder}/n3/ckpt"):
        paths += [os.path.join(root, name) for name in names if name.endswith(".safetensors")]
    assert len(paths) >= 4, paths
    for path in paths:
        ours = read_plain(path)
        theirs = load_file(path)
        assert ours.keys() == theirs.keys(), path
        for name, (shape, data) in ours.items():
            assert list(theirs[name].shape) == shape and theirs[name].tobytes() == data, (path, name)
    print(f"{len(paths)} files read alike by the safetensors library")


def write_plain(path, tensors):
    """tensors: [(name, dtype, shape, bytes)]"""
    header, at = {}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[3] for t in tensors))


def check_import(folder, digest):
    """The exported file under other names comes back to the same bits; other number types by value."""
    with open(f"{folder}/run.yaml", "w", encoding="utf-8") as f:
        f.write(f"run:\n  dir: {folder}/imported\n")
    plain = read_plain(f"{folder}/out/model.safetensors")
    write_plain(f"{folder}/theirs.safetensors",
                [("x." + k, "F32", shape, data) for k, (shape, data) in plain.items()] + [("extra", "U8", [2], b"ab")])
    names = {"x." + k: k for k in plain} | {"extra": None}
    with open(f"{folder}/names.json", "w", encoding="utf-8") as f:
        json.dump(names, f)
    ckpt("import", f"{folder}/run.yaml", f"{folder}/theirs.safetensors", "--names", f"{folder}/names.json")
    assert ckpt("digest", f"{folder}/imported").stdout.strip() == digest
    ckpt("verify", f"{folder}/imported@0")
    again = ckpt("import", f"{folder}/run.yaml", f"{folder}/theirs.safetensors", "--names", f"{folder}/names.json",
                 expect=79)
    assert "has checkpoints, the newest of step 0" in again.stderr and "--force" in again.stderr, again.stderr
    values = [0.0, -0.0, 1.5, -2.25, 65504.0, 2.0 ** -24, -(2.0 ** -15), float("inf")]
    n = len(values)
    write_plain(f"{folder}/types.safetensors",
                [("half", "F16", [n], struct.pack(f"<{n}e", *values)),
                 ("brain", "BF16", [2, n // 2], b"".join(struct.pack("<f", v)[2:] for v in values)),
                 ("wide", "F64", [n], struct.pack(f"<{n}d", *values))])
    ckpt("import", f"{folder}/run.yaml", f"{folder}/types.safetensors", "--step", "3", expect=79)
    ckpt("import", f"{folder}/run.yaml", f"{folder}/types.safetensors", "--step", "3", "--force")
    ckpt("export", f"{folder}/imported@3", "--out", f"{folder}/types")
    got = read_plain(f"{folder}/types/model.safetensors")
    want = struct.pack(f"<{n}f", *values)
    assert got["half"] == ([n], want) and got["wide"] == ([n], want), got
    cut = [struct.unpack("<f", b"\0\0" + struct.pack("<f", v)[2:])[0] for v in values]
    assert got["brain"] == ([2, n // 2], struct.pack(f"<{n}f", *cut)), got
    for tensors, words in (([("a", "I32", [1], b"1234")], "only F32, F16, BF16 and F64"),
                           ([("a", "F32", [0], b"")], "is empty")):
        write_plain(f"{folder}/bad.safetensors", tensors)
        done = ckpt("import", f"{folder}/run.yaml", f"{folder}/bad.safetensors", f"run.dir={folder}/bad", expect=65)
        assert words in done.stderr, done.stderr
    with open(f"{folder}/names.json", "w", encoding="utf-8") as f:
        json.dump({"hlaf": "half"}, f)
    done = ckpt("import", f"{folder}/run.yaml", f"{folder}/types.safetensors", "--names", f"{folder}/names.json",
                f"run.dir={folder}/bad", expect=65)
    assert "has no tensor 'hlaf'" in done.stderr, done.stderr


def check_import_where(folder):
    """Overrides say where; a folder that is in use is left alone; the run's record of its config is there."""
    words = ["import", f"{folder}/run.yaml", f"{folder}/out/model.safetensors", f"run.dir={folder}/other"]
    ckpt(*words, "train.steps=7")
    with open(f"{folder}/other/config.yaml", encoding="utf-8") as f:
        assert "steps: 7" in f.read()
    ckpt("verify", f"{folder}/other@0")
    with open(f"{folder}/other/lock", "r+", encoding="utf-8") as f:
        f.truncate()
        f.write(json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "since": "now"}))
        f.flush()
        fcntl.flock(f, fcntl.LOCK_EX)
        done = ckpt(*words, "--step", "900", "--force", expect=79)
        assert f"is in use by process {os.getpid()}" in done.stderr, done.stderr
    assert [row["step"] for row in json.loads(ckpt("list", f"{folder}/other", "--json").stdout)] == [0]
    ckpt(*words, "run.dri=x", expect=78)
    done = ckpt("list", f"{folder}/other", "train.steps=7", expect=64)
    assert "takes no key" in done.stderr, done.stderr


def flip(path, place):
    with open(path, "r+b") as f:
        f.seek(place)
        byte = f.read(1)[0]
        f.seek(place)
        f.write(bytes([byte ^ 8]))


def check_damage(folder):
    where = f"{folder}/n2"
    save = json.loads(ckpt("list", where, "--json").stdout)[0]["id"]
    part = f"{where}/ckpt/{save}/rank-1.safetensors"
    flip(part, os.path.getsize(part) - 1000)
    for verb in ("verify", "digest"):
        done = ckpt(verb, where, expect=65)
        assert "rank-1.safetensors: tensor '" in done.stderr and "bytes " in done.stderr, done.stderr
        assert done.stderr.count("orrery ckpt remove RUN --step 41") == 1, done.stderr
    os.rename(part, part + ".gone")
    for verb in ("verify", "digest"):
        done = ckpt(verb, where, expect=65)
        assert "lacks a file" in done.stderr and "rank-1.safetensors" in done.stderr and "remove RUN --step 41" in done.stderr, done.stderr
    with open(part, "wb") as short:
        short.write(b"x" * 100)
    for verb in ("verify", "digest"):
        assert "is damaged ('orrery ckpt remove RUN --step 41'" in ckpt(verb, where, expect=65).stderr
    ckpt("verify", where, "--step", "40")
    ckpt("remove", where, expect=64)
    ckpt("remove", where, "--step", "41")
    ckpt("remove", where, "--step", "41", expect=66)
    ckpt("verify", where)
    flip(f"{where}/ckpt/manifest-000000000040.json", 300)
    assert "damaged" in ckpt("list", where).stdout
    assert "no complete checkpoint" in ckpt("digest", where, expect=66).stderr
    assert "CRC32C" in ckpt("verify", where, "--step", "40", expect=65).stderr
    ckpt("list", f"{folder}/nowhere", expect=66)
    ckpt("verify", f"{folder}/n1", "--step", "99", expect=66)
    ckpt("diff", f"{folder}/n1", expect=64)


def main():
    with tempfile.TemporaryDirectory() as folder:
        digest = check_digests(folder)
        check_list(folder, digest)
        check_export(folder)
        check_import(folder, digest)
        check_import_where(folder)
        check_damage(folder)
    print("list, verify, digest, diff, export, import, remove")


main()
