#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Data sets that other libraries wrote train as they are: Python's tarfile with pax and GNU names, and the webdataset
package where it is at hand (ORRERY_TORCH_PYTHON). The samples do not describe themselves: `data index --schema` does."""
import io
import json
import math
import os
import pathlib
import re
import struct
import sys
import tarfile
import wave
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orrery_run import check, folder, orrery  # noqa: E402

try:
    import webdataset
except ImportError:
    other = os.environ.get("ORRERY_TORCH_PYTHON")
    if other and other != sys.executable:
        os.execv(other, [other, *sys.argv])
    webdataset = None

FRAMES, SIZE = 30, 32
SCHEMA = {"rate_hz": 10, "frames_from": "action.npy", "streams": [
    {"modality": "action", "name": "command", "member": "action.npy", "dtype": "f32", "shape": [2], "rate_hz": 10},
    {"modality": "touch", "name": "skin", "member": "touch.npy", "dtype": "f64", "shape": [2], "rate_hz": 100,
     "scale": 0.5},
    {"modality": "audio", "name": "mic", "member": "sound.wav", "dtype": "i16", "shape": [], "rate_hz": 16000},
    {"modality": "video", "name": "cam", "member": "frames.npy", "dtype": "u8", "shape": [SIZE, SIZE, 2], "rate_hz": 10}]}


def npy(descr, shape, data):
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
    head += " " * (64 - (10 + len(head) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def wav(samples):
    out = io.BytesIO()
    with wave.open(out, "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(16000)
        w.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return out.getvalue()


def episode(number):
    frames = FRAMES + number % 3
    angle = [0.3 * number + 0.2 * f for f in range(frames)]
    action = [x for a in angle for x in (math.cos(a), math.sin(a))]
    touch = [math.sin(0.01 * i + number) for i in range(frames * 20)]
    video = bytearray()
    for a in angle:
        x, y = int(16 + 10 * math.cos(a)), int(16 + 10 * math.sin(a))
        video += bytes(200 if abs(i % SIZE - x) < 3 and abs(i // SIZE - y) < 3 else 0
                       for i in range(SIZE * SIZE) for _ in range(2))
    return {"action.npy": npy("<f4", (frames, 2), struct.pack(f"<{len(action)}f", *action)),
            "frames.npy": npy("|u1", (frames, SIZE, SIZE, 2), bytes(video)),
            "json": json.dumps({"robot": "arm", "caption": "grüße", "n": number}).encode(),
            "sound.wav": wav([int(8000 * math.sin(0.05 * i * (1 + number % 4))) for i in range(frames * 1600)]),
            "touch.npy": npy("<f8", (frames * 10, 2), struct.pack(f"<{len(touch)}d", *touch))}


def with_tarfile(path, fmt, first, count):
    with tarfile.open(path, "w", format=fmt) as tar:
        for i in range(first, first + count):
            stem = f"clips/{'a long folder name/' * 8}ep{i:04d}" if i % 2 else f"clips/ep{i:04d}"
            for name, data in episode(i).items():
                info = tarfile.TarInfo(f"{stem}.{name}")
                info.size, info.mtime = len(data), 1234567890.25
                tar.addfile(info, io.BytesIO(data))


def with_numbers(path, change):
    """Four episodes whose commands went through change(number, command, place)."""
    with tarfile.open(path, "w") as tar:
        for i in range(4):
            members = episode(i)
            n = (FRAMES + i % 3) * 2
            action = struct.unpack(f"<{n}f", members["action.npy"][-4 * n:])
            members["action.npy"] = npy("<f4", (n // 2, 2), struct.pack(f"<{n}f", *(change(i, x, k) for k, x in enumerate(action))))
            for name, data in members.items():
                info = tarfile.TarInfo(f"ep{i:04d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def with_webdataset(path, first, count):
    with webdataset.TarWriter(str(path), encoder=False) as sink:
        for i in range(first, first + count):
            sink.write({"__key__": f"ep{i:04d}", **episode(i)})


def train(tmp, name, digests):
    where = tmp / name
    (tmp / "schema.json").write_text(json.dumps(SCHEMA))
    done = orrery("data", "index", where, "--schema", tmp / "schema.json")
    check("samples" in done.stderr, done.stderr)
    orrery("data", "check", where)
    stat = json.loads(orrery("data", "stat", where, "--json").stdout)
    check(stat["frames"] == sum(FRAMES + i % 3 for i in range(8)), f"frames follow from action.npy: {stat['frames']}")
    orrery("run", "configs/tiny.yaml", "-n", 2, f"run.dir={tmp}/run-{name}", f"data.train={where}", f"data.eval={where}",
           "train.steps=3", "data.rate_hz=10")
    digests[name] = orrery("ckpt", "digest", tmp / f"run-{name}").stdout.strip()
    print(f"ok: {name} trains: {digests[name][:16]}")


def cached(tmp, digest):
    """The same weights out of the node's cache, filled or damaged."""
    cache = tmp / "cache"
    for turn in ("fill", "use", "damage"):
        orrery("run", "configs/tiny.yaml", "-n", 2, f"run.dir={tmp}/cached-{turn}", f"data.train={tmp}/pax",
               f"data.eval={tmp}/pax", "train.steps=3", f"data.cache_dir={cache}", "data.cache_mb=64")
        got = orrery("ckpt", "digest", tmp / f"cached-{turn}").stdout.strip()
        check(got == digest, f"cache, {turn}: the same weights")
        files = [p for p in cache.iterdir() if p.name[0] != "."]
        check(4 <= len(files) <= 8 and not [p for p in cache.iterdir() if p.name.startswith(".temp")], "every sample is kept once")
        if turn != "use":
            continue
        for path in files:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 4
            path.write_bytes(data)


def mixed(tmp):
    """Two data sets by weight: the same weights on any number of ranks."""
    digests = set()
    for ranks in (1, 2):
        run = tmp / f"mixed-{ranks}"
        orrery("run", "configs/tiny.yaml", "-n", ranks, f"run.dir={run}", f"data.train={tmp}/pax 3, {tmp}/gnu 1",
               f"data.eval={tmp}/pax", "train.steps=3")
        digests.add(orrery("ckpt", "digest", run).stdout.strip())
    check(len(digests) == 1, f"a mixture gives the same weights on 1 and 2 ranks: {digests}")


def drawn(tmp):
    """One sample as pictures and curves."""
    out = tmp / "drawn"
    done = orrery("data", "show", tmp / "pax", 2, "--out", out)
    names = sorted(p.name for p in out.iterdir())
    frames = [n for n in names if n.startswith("cam-")]
    check(len(frames) == FRAMES + 2 and frames[-1] == "cam-0031.png", f"a PNG per frame: {frames[-1]}")
    for name in frames:
        data = (out / name).read_bytes()
        check(data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (SIZE, SIZE), name)
    for name, curves in (("command.svg", 2), ("skin.svg", 2), ("mic.svg", 1)):
        root = xml.etree.ElementTree.parse(out / name).getroot()
        paths = [p.get("d") for p in root if p.tag.endswith("path")]
        check(len(paths) == curves and all(len(d) > 200 for d in paths), f"{name}: {curves} curves")
        check(str(out / name) in done.stdout, done.stdout)
    done = orrery("data", "show", tmp / "pax", 99, "--out", out, check=False)
    check(done.returncode == 64 and "99" in done.stderr, done.stderr)


def refusals(tmp):
    bare = orrery("data", "index", tmp / "pax", "--again")
    done = orrery("run", "configs/tiny.yaml", "-n", 1, f"run.dir={tmp}/none", f"data.train={tmp}/pax", "train.steps=1",
                  check=False)
    check(done.returncode in (65, 78), f"a set without a schema is refused: {bare.stderr} {done.stderr[-300:]}")
    wrong = dict(SCHEMA, frames_from="sound.wav")
    (tmp / "wrong.json").write_text(json.dumps(wrong))
    done = orrery("data", "index", tmp / "pax", "--schema", tmp / "wrong.json", check=False)
    check(done.returncode == 65 and "'frames_from'" in done.stderr, done.stderr)
    wrong = dict(SCHEMA, streams=SCHEMA["streams"] + [dict(SCHEMA["streams"][0], name="x", member="lidar.npy")])
    (tmp / "wrong.json").write_text(json.dumps(wrong))
    done = orrery("data", "index", tmp / "pax", "--schema", tmp / "wrong.json", check=False)
    check(done.returncode == 65 and "lidar.npy" in done.stderr and "ep0000" in done.stderr, done.stderr)
    for stream, shape in ((3, [16, 16, 3]), (0, [3])):
        wrong = dict(SCHEMA, streams=[dict(s, shape=shape) if i == stream else s for i, s in enumerate(SCHEMA["streams"])])
        (tmp / "wrong.json").write_text(json.dumps(wrong))
        done = orrery("data", "index", tmp / "pax", "--schema", tmp / "wrong.json", check=False)
        check(done.returncode == 65 and SCHEMA["streams"][stream]["member"] in done.stderr and "its stream says [steps, " in done.stderr,
              done.stderr)
    orrery("data", "index", tmp / "pax", "--schema", tmp / "schema.json")
    done = orrery("run", "configs/tiny.yaml", "-n", 1, f"run.dir={tmp}/rate", f"data.train={tmp}/pax", "train.steps=1",
                  "data.rate_hz=5", check=False)
    check(done.returncode == 78 and "10 Hz" in done.stderr, f"another rate is refused: {done.stderr[-300:]}")


def numbers(tmp):
    """A number that is none is bad data, for check and for training; loud commands are told."""
    for name, change in (("nan", lambda i, x, k: math.nan if (i, k) == (2, 15) else x), ("loud", lambda i, x, k: 500 * (i + 1) * x)):
        (tmp / name).mkdir()
        with_numbers(tmp / name / "a.tar", change)
        orrery("data", "index", tmp / name, "--schema", tmp / "schema.json")
    done = orrery("data", "check", tmp / "nan", check=False)
    check(done.returncode == 65 and "member 'ep0002.action.npy'" in done.stdout + done.stderr and "row 7 holds a number that is not finite"
          in done.stdout + done.stderr, f"check names a NaN's place: {done.stdout}")
    words = ["run", "configs/tiny.yaml", "train.steps=4", "eval.sequences=4", "rollout.sequences=1", "-n"]
    data = [f"data.train={tmp}/nan", f"data.eval={tmp}/nan"]
    done = orrery(*words, 1, *data, f"run.dir={tmp}/nan-stop", check=False)
    check(done.returncode == 65 and "ep0002.action.npy" in done.stderr and "row 7 holds nan" in done.stderr, "so does training")
    orrery(*words, 1, *data, f"run.dir={tmp}/nan-skip", "data.on_error=skip")
    check(json.loads((tmp / "nan-skip" / "eval.json").read_text())["skipped"][0]["episodes"] == [2], "or it passes the sample over")
    told = set()
    for ranks in (1, 2):
        orrery(*words, ranks, f"data.train={tmp}/loud", f"run.dir={tmp}/loud-{ranks}", "data.eval=")
        log = (tmp / f"loud-{ranks}" / "logs" / "attempt-1" / "rank-0.log").read_text()
        check("have an rms of" in log and "\"scale\"" in log, "commands of hundreds are told, with the cure")
        told.update(re.findall(r"have an rms of (\S+),", log))
    check(len(told) == 1, f"of the whole batch, on any number of ranks: {told}")


def main():
    digests = {}
    with folder() as tmp:
        for name in ("pax", "gnu", "web"):
            (tmp / name).mkdir()
        for name, fmt in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT)):
            for shard in range(2):
                with_tarfile(tmp / name / f"part-{shard}.tar", fmt, 4 * shard, 4)
            train(tmp, name, digests)
        if webdataset:
            for shard in range(2):
                with_webdataset(tmp / "web" / f"part-{shard}.tar", 4 * shard, 4)
            train(tmp, "web", digests)
        else:
            print("no webdataset package: its shards are not tried (ORRERY_TORCH_PYTHON)")
        check(len(set(digests.values())) == 1, f"the same data give the same weights, whoever wrote the tar: {digests}")
        cached(tmp, digests["pax"])
        mixed(tmp)
        drawn(tmp)
        refusals(tmp)
        numbers(tmp)


if __name__ == "__main__":
    main()
