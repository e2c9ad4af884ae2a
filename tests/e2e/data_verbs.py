#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""orrery data on tars that another program wrote: Python's tarfile in its three formats, and hostile ones."""
import io
import json
import os
import pathlib
import random
import sys
import tarfile
import tempfile
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import orrery  # noqa: E402

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def verb(*args, expect=0):
    return orrery("data", *args, status=expect, timeout=60)


def member(tar, name, data, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def metadata(number, frames):
    stream = {"modality": "touch", "name": "tactile", "member": "touch.npy", "dtype": "f32", "shape": [2],
              "rate_hz": 20, "t0": 0, "unit": "N", "scale": 0.5}
    return json.dumps({"id": f"ep{number}", "embodiment": "arm", "split": "train", "licence": "CC0-1.0",
                       "frames": frames, "rate_hz": 10, "streams": [stream]}).encode()


def write_shard(path, fmt, first, count, rng):
    """Returns {(stem, name): bytes}."""
    truth = {}
    with tarfile.open(path, "w", format=FORMATS[fmt]) as tar:
        folder = tarfile.TarInfo("clips")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for i in range(first, first + count):
            stem = f"clips/ep{i:04d}"
            if fmt != "ustar" and i % 2:
                stem = "deep/" * 40 + "n" * 70 + f"{i:04d}"
            parts = {"json": metadata(i, 100 + i % 3), "touch.npy": rng.randbytes(rng.randrange(5000)),
                     "note.txt": "grüße".encode()}
            for name, data in parts.items():
                member(tar, f"{stem}.{name}", data, mtime=rng.random() * 1e9, uid=rng.randrange(10**6))
                truth[stem, name] = data
        member(tar, "README", b"no sample")
    return truth


def crc32c(data):
    table = crc32c.table
    crc = 0xffffffff
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xffffffff


crc32c.table = []
for entry in range(256):
    for _ in range(8):
        entry = entry >> 1 ^ (0x82f63b78 if entry & 1 else 0)
    crc32c.table.append(entry)


def check_good(folder, rng):
    truth = []
    for k, fmt in enumerate(FORMATS):
        truth += write_shard(f"{folder}/{k}-{fmt}.tar", fmt, 10 * k, 5, rng).items()
    verb("index", folder)
    verb("check", folder)
    stat = json.loads(verb("stat", folder, "--json").stdout)
    assert stat["samples"] == 15 and len(stat["shards"]) == 3, stat
    assert stat["streams"][0]["member"] == "touch.npy" and stat["streams"][0]["shape"] == [2], stat
    table = verb("stat", f"file://{os.path.abspath(folder)}").stdout
    assert "3 shards" in table and "f32[2]" in table and "2-ustar.tar" in table, table
    frames = 0
    for i in range(15):
        shown = json.loads(verb("show", folder, str(i), "--json").stdout)
        frames += shown["frames"]
        assert shown["metadata"]["licence"] == "CC0-1.0", shown
        with open(f"{folder}/{shown['shard']}", "rb") as f:
            shard = f.read()
        for m, ((stem, name), data) in zip(shown["members"], truth[3 * i:3 * i + 3]):
            assert (shown["stem"], m["name"]) == (stem, name), (shown, stem, name)
            assert shard[m["offset"]:m["offset"] + m["bytes"]] == data, (stem, name)
            assert int(m["crc32c"], 16) == crc32c(data), (stem, name)
    assert stat["frames"] == frames, (stat, frames)
    again = verb("index", folder)
    assert again.stderr.count("kept") == 3, again.stderr
    text = verb("show", folder, "3").stdout
    assert "touch.npy" in text and "crc32c" in text, text
    verb("show", folder, "15", expect=64)
    verb("show", folder, "-1", expect=64)


def check_damage(folder, rng):
    shard = f"{folder}/1-gnu.tar"
    shown = json.loads(verb("show", folder, "7", "--json").stdout)
    touch = next(m for m in shown["members"] if m["name"] == "touch.npy")
    place = touch["offset"] + touch["bytes"] // 2
    with open(shard, "r+b") as f:
        f.seek(place)
        byte = f.read(1)[0]
        f.seek(place)
        f.write(bytes([byte ^ 1]))
    done = verb("check", folder, expect=65)
    words = f"member '{shown['stem']}.touch.npy' at offset {touch['offset']}"
    assert words in done.stderr and "1-gnu.tar" in done.stderr, done.stderr
    assert "1 problem" in done.stdout, done.stdout
    done = verb("show", folder, "7", expect=65)
    assert words in done.stderr and f"orrery data check {folder}" in done.stderr, done.stderr
    verb("show", folder, "6")
    os.rename(shard, f"{shard}.away")
    done = verb("show", folder, "7", expect=66)
    assert "put it back" in done.stderr and "1-gnu.tar" in done.stderr, done.stderr
    os.rename(f"{shard}.away", shard)
    os.truncate(shard, os.path.getsize(shard) // 2)
    done = verb("check", folder, expect=65)
    assert "1-gnu.tar: has" in done.stderr, done.stderr
    done = verb("index", folder, expect=65)
    assert "1-gnu.tar: offset" in done.stderr, done.stderr
    os.remove(f"{folder}/dataset.json")
    done = verb("stat", folder, expect=66)
    assert "orrery data index" in done.stderr, done.stderr


def check_hostile(folder):
    def hostile(words, name="a.json", **fields):
        path = f"{folder}/x.tar"
        with tarfile.open(path, "w") as tar:
            member(tar, name, b"" if "type" in fields else b"{}", **fields)
        done = verb("index", folder, expect=65)
        assert words in done.stderr and "x.tar: offset" in done.stderr, (words, done.stderr)

    hostile("a symbolic link", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    hostile("a hard link", type=tarfile.LNKTYPE, linkname="a")
    hostile("a device", type=tarfile.CHRTYPE)
    hostile("a named pipe", type=tarfile.FIFOTYPE)
    hostile("is absolute", name="/etc/cron.d/x.json")
    hostile("'..'", name="../x.json")
    hostile("'..'", name="a/" + "b/" * 60 + "../x.json")
    path = f"{folder}/x.tar"
    with open(path, "wb") as f:
        f.write(b"<html>not a tar</html>" + b" " * 2000)
    assert "checksum is wrong" in verb("index", folder, expect=65).stderr
    with open(path, "wb") as f:
        f.write(zlib.compress(b"x") * 3)
    assert "too short" in verb("index", folder, expect=65).stderr
    os.remove(path)
    assert "ends in .tar" in verb("index", folder, expect=66).stderr
    assert "ends in .tar" in verb("index", f"file://{folder}/mistyped", expect=66).stderr
    assert f"there is no folder {folder}/mistyped" in verb("index", f"{folder}/mistyped", expect=66).stderr
    assert not os.listdir(folder), "a mistyped folder is not made"
    verb("stat", f"{folder}/nowhere", expect=66)
    verb("nonsense", folder, expect=64)


def main():
    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as folder:
        good, bad = f"{folder}/good", f"{folder}/bad"
        os.mkdir(good)
        os.mkdir(bad)
        check_good(good, rng)
        check_damage(good, rng)
        check_hostile(bad)
    print("tars of three formats indexed, read, damaged and refused")


main()
