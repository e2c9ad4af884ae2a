#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A data set whose video is MP4: indexed, checked, shown, and trained on; the same weights on one rank and on two; one line
with the cure where the decoder is not there."""
import http.server
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import listing  # noqa: E402
from foreign import npy  # noqa: E402
from orrery_run import BIN, check, environment, folder, orrery, skip  # noqa: E402

MAKE = pathlib.Path(os.environ.get("ORRERY_BUILD", "build")) / "tests" / "make_mp4"
FRAMES, SIDE = 24, 32
SCHEMA = {"rate_hz": 10, "frames_from": "action.npy", "streams": [
    {"modality": "action", "name": "command", "member": "action.npy", "dtype": "f32", "shape": [2], "rate_hz": 10},
    {"modality": "video", "name": "cam", "member": "cam.mp4", "dtype": "u8", "shape": [SIDE, SIDE, 3], "rate_hz": 10}]}
SENSES = ["model.modalities=action,video", "video.channels=3"]


def film(tmp, encoder, width, height, pictures=FRAMES):
    path = tmp / "film.mp4"
    done = subprocess.run([MAKE, path, encoder, str(width), str(height), str(pictures), "100"], stderr=subprocess.DEVNULL)
    check(done.returncode == 0, f"a film by {encoder}")
    return path.read_bytes()


def make(tmp, where, short=None):
    """Two shards of two samples; the film of one of them, (shard, number), may lack pictures."""
    where.mkdir()
    for shard, (encoder, width, height) in enumerate((("mpeg4", 64, 64), ("mjpeg", 100, 60))):
        with tarfile.open(where / f"part-{shard}.tar", "w") as tar:
            for i in range(2):
                action = npy("<f4", (FRAMES, 2), bytes(FRAMES * 8))
                for name, data in (("action.npy", action), ("cam.mp4", film(tmp, encoder, width, height, FRAMES - 5 * (short == (shard, i))))):
                    info = tarfile.TarInfo(f"ep{shard}{i}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def tables(tmp, data):
    """The index tells of the films without a decoder: in stat, in show, and as what counts a sample's frames."""
    films = json.loads(orrery("data", "stat", data, "--json").stdout)["films"]
    check(films == [{"member": "cam.mp4", "films": 4, "left_out": 0, "frames": 4 * FRAMES, "width": [64, 100],
                     "height": [60, 64], "rate_hz": [10, 10]}], films)
    check("64 .. 100" in orrery("data", "stat", data).stdout, "stat tells of the films' width")
    members = json.loads(orrery("data", "show", data, 3, "--json").stdout)["members"]
    film = next(m["film"] for m in members if m["name"] == "cam.mp4")
    check((film["frames"], film["width"], film["height"], film["key_step"]) == (FRAMES, 100, 60, 1), film)
    check(film["step"] * 10 == film["timescale"], film)
    check(f"60 x 100 (height x width), {FRAMES} pictures in 2.4 s, one every 0.1 s" in orrery("data", "show", data, 3).stdout,
          "show tells of the film")
    frames = orrery("data", "stat", data, "--json").stdout
    (tmp / "counted.json").write_text(json.dumps(dict(SCHEMA, frames_from="cam.mp4")))
    orrery("data", "index", data, "--schema", tmp / "counted.json")
    check(orrery("data", "stat", data, "--json").stdout == frames, "as many frames by the film as by the commands")


def short_film(tmp):
    """A film that ends before its sample does stops the run, or is skipped and told of."""
    data = tmp / "short"
    make(tmp, data, short=(1, 0))
    orrery("data", "index", data, "--schema", tmp / "schema.json")
    words = ("part-1.tar: ep10.cam.mp4 at byte", f"announces {FRAMES} frames", f"film's {FRAMES - 5} pictures")
    for policy, code in (("stop", 65), ("skip", 0)):
        done = orrery("run", "configs/tiny.yaml", "-n", 1, f"run.dir={tmp}/{policy}", f"data.train={data}", "data.eval=",
                      f"data.on_error={policy}", "train.steps=3", *SENSES, check=False)
        told = done.stderr + "".join(p.read_text() for p in (tmp / policy).glob("logs/*/rank-0.log"))
        line = next((text for text in told.splitlines() if all(w in text for w in words)), "")
        check(done.returncode == code and line, f"{policy}: {done.returncode}, {line or told[-2000:]}")


class Files(listing.Server):
    """A bucket that is a folder, and counts the bytes of tars that it gives away."""
    root, given, count = None, 0, 1

    @classmethod
    def content(cls, key):
        return (cls.root / key).read_bytes() if (cls.root / key).is_file() else None

    def answer(self, code, body=b"", **headers):
        with self.lock:
            Files.given += len(body) if self.command == "GET" and self.path.endswith(".tar") else 0
        super().answer(code, body, **headers)


def long_films(tmp):
    """Films that do not fit into data.memory_mb are read and decoded by windows: the same weights, far fewer bytes. So with an
    index from before there were parts, of which all is read."""
    pictures, data = 1000, tmp / "long"
    data.mkdir()
    with tarfile.open(data / "long.tar", "w") as tar:
        for i, encoder in enumerate(("mpeg4", "mjpeg", "mpeg4", "mpeg4")):
            path = tmp / "long.mp4"
            done = subprocess.run([MAKE, path, encoder, "96", "64", str(pictures), "100", "noisy"], stderr=subprocess.DEVNULL)
            check(done.returncode == 0, f"a long film by {encoder}")
            for name, content in (("action.npy", npy("<f4", (pictures, 2), bytes(pictures * 8))), ("cam.mp4", path.read_bytes())):
                info = tarfile.TarInfo(f"ep{i}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    orrery("data", "index", data, "--schema", tmp / "schema.json")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Files.root = tmp
    env = environment(AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}")
    size, digests, given = (data / "long.tar").stat().st_size, set(), {}

    def train(name, *more):
        Files.given = 0
        orrery("run", "configs/tiny.yaml", "-n", 1, f"run.dir={tmp}/{name}", "data.train=s3://files/long", "data.eval=", "train.steps=3",
               *SENSES, *more, env=env)
        digests.add(orrery("ckpt", "digest", tmp / name).stdout.strip())
        given[name] = Files.given

    train("windows", "data.memory_mb=8")
    train("whole", "data.memory_mb=512")
    index = data / "long.tar.index.json"
    told = json.loads(index.read_text())
    told["samples"][0]["films"]["cam.mp4"]["crc32c"][1] ^= 1
    index.write_text(json.dumps(told))
    orrery("data", "index", data)
    done = orrery("data", "check", data, check=False)
    check(done.returncode == 65 and "ep0.cam.mp4" in done.stderr + done.stdout, f"a wrong CRC of a block: {done.stderr}{done.stdout}")
    for sample in told["samples"]:
        for table in sample["films"].values():
            check(table.pop("block") == 65536 and table.pop("crc32c"), "the index has the CRCs of blocks")
    index.write_text(json.dumps(told))
    check("kept" in orrery("data", "index", data).stderr, "an index without them is kept")
    train("before", "data.memory_mb=8")
    check(len(digests) == 1, f"the same weights from windows, from whole films, by an old index: {digests}")
    check(given["windows"] < size / 2 and given["whole"] >= 0.99 * size and given["before"] >= 0.99 * size, f"of {size} bytes: {given}")
    done = orrery("data", "check", data)
    check("0 problems" in done.stdout, "an old index has no problem")


def main():
    if not MAKE.exists() or not (BIN / "liborrery_ffmpeg.so").exists():
        skip("a build without FFmpeg's libraries")
    with folder() as tmp:
        data = tmp / "data"
        make(tmp, data)
        (tmp / "schema.json").write_text(json.dumps(SCHEMA))
        orrery("data", "index", data, "--schema", tmp / "schema.json")
        done = orrery("data", "check", data)
        check("4 samples" in done.stdout and "0 problems" in done.stdout, done.stdout)
        check("cam.mp4" in orrery("data", "stat", data).stdout, "stat names the member")
        check("cam.mp4" in orrery("data", "show", data, 3).stdout, "show names the member")
        tables(tmp, data)
        short_film(tmp)
        long_films(tmp)
        orrery("data", "show", data, 3, "--out", tmp / "drawn")
        frames = sorted(p.name for p in (tmp / "drawn").glob("cam-*.png"))
        check(len(frames) == FRAMES and frames[-1] == f"cam-{FRAMES - 1:04d}.png", f"{len(frames)} frames drawn")
        digests = set()
        for ranks in (1, 2):
            run = tmp / f"run-{ranks}"
            orrery("run", "configs/tiny.yaml", "-n", ranks, f"run.dir={run}", f"data.train={data}", f"data.eval={data}",
                   "train.steps=3", *SENSES)
            digests.add(orrery("ckpt", "digest", run).stdout.strip())
        check(len(digests) == 1, f"the same weights on 1 and 2 ranks: {digests}")
        done = orrery("run", "configs/tiny.yaml", "-n", 1, f"run.dir={tmp}/without", f"data.train={data}", "data.eval=",
                      "train.steps=1", *SENSES, check=False, env=environment(ORRERY_FFMPEG_PLUGIN=tmp / "nothing.so"))
        line = next((text for text in done.stderr.splitlines() if "nothing.so" in text), "")
        check(done.returncode == 69 and "cam.mp4" in line and "-DORRERY_FFMPEG=ON" in line,
              f"without the decoder: {done.returncode}, {line or done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
