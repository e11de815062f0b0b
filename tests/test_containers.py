"""Containers and damages, one by one: how many frames extraction makes of each, and its verdict.

Whatever decodes is compared with what ffmpeg itself decodes, frame for frame.
"""

import json
import random
from pathlib import Path

import pytest

from tests.videos import SHARED, draw, draw_sound
from util_scripts.ffmpeg import Ffmpeg, input_of
from util_scripts.generate_video_jpgs import main

FRAMES = 20  # of the video that the others are made of


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A short h264 clip with sound."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    sound = ["-f", "lavfi", "-i", "sine=d=2", "-c:v", "libx264", "-g", "10", "-shortest"]
    return draw(path, seconds=2, rate=10, extra=sound)


def convert(plain, name, *arguments, inputs=()):
    def make(folder):
        target = folder / name
        given = [*inputs, *input_of(plain)]
        ran = Ffmpeg().run(["-y", *given, *arguments, f"file:{target.absolute()}"])
        assert target.exists(), ran.complaints
        return target

    return make


COPY = ("-c", "copy")
CONTAINERS = {
    "a.mkv": COPY,
    "a.mov": COPY,
    "a.flv": COPY,
    "a.ts": COPY,
    "a.h264": ("-c:v", "copy", "-an"),
    "UPPER.MP4": COPY,
    "vp9.webm": ("-c:v", "libvpx-vp9", "-an", "-deadline", "realtime"),
    "old.avi": ("-c:v", "mpeg4", "-an"),
    "no_index.avi": ("-c:v", "mpeg4", "-an", "-flags", "+bitexact"),
    "a.wmv": ("-c:v", "wmv2", "-an"),
    "a.3gp": ("-c:v", "mpeg4", "-an"),
}


def extract_one(path, root):
    """(frames, status) of one video."""
    videos = root / "v"
    videos.mkdir(exist_ok=True)
    path.rename(videos / path.name)
    main([str(videos), str(root / "jpg"), "test"])
    (row,) = map(json.loads, (root / "jpg/manifest.jsonl").read_text().splitlines())
    folder = root / "jpg" / Path(path.name).with_suffix("").name
    n_frames = len(list(folder.iterdir())) if folder.exists() else 0
    assert n_frames == row["frames"]
    assert sorted(p.name for p in (root / "jpg").iterdir()) == sorted(
        ["manifest.jsonl", *([folder.name] if n_frames else [])]
    )
    return n_frames, row["status"]


def decoded(path):
    """How many frames ffmpeg itself decodes."""
    sums = path.with_name("sums")
    output = ["-map", "0:V:0", "-fps_mode", "passthrough", "-f", "framecrc", str(sums)]
    Ffmpeg().run(["-y", *input_of(path), *output])
    lines = sums.read_text().splitlines() if sums.exists() else []
    sums.unlink(missing_ok=True)
    return sum(not line.startswith("#") for line in lines)


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(plain, tmp_path, name):
    path = convert(plain, name, *CONTAINERS[name])(tmp_path)
    if name == "no_index.avi":
        data = path.read_bytes()
        path.write_bytes(data[: data.rindex(b"idx1")])
    assert extract_one(path, tmp_path) in ((FRAMES, "done"), (FRAMES, "partial"))


def test_no_extension(plain, tmp_path):
    path = convert(plain, "a.mkv", *COPY)(tmp_path)
    assert extract_one(path.rename(tmp_path / "bare"), tmp_path) == (FRAMES, "done")


def test_sound_alone(tmp_path):
    draw_sound(tmp_path / "a.wav")
    assert extract_one(tmp_path / "a.wav", tmp_path) == (0, "failed")


def test_subtitles(plain, tmp_path):
    lines = tmp_path / "lines.srt"
    lines.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    extra = ["-i", f"file:{lines}", "-map", "0", "-map", "1", "-c", "copy"]
    path = convert(plain, "a.mkv", *extra)(tmp_path)
    lines.unlink()
    assert extract_one(path, tmp_path) == (FRAMES, "done")


def test_a_cover_picture_as_first_video_stream(plain, tmp_path):
    cover = draw(tmp_path / "cover.png", extra=["-frames:v", "1"])
    maps = ["-i", f"file:{cover}", "-map", "1", "-map", "0:v", "-c", "copy"]
    path = convert(plain, "a.mp4", *maps, "-disposition:v:0", "attached_pic")(tmp_path)
    cover.unlink()
    assert extract_one(path, tmp_path) == (FRAMES, "done")


def test_rotation_is_applied(plain, tmp_path):
    from PIL import Image

    path = convert(plain, "a.mp4", *COPY, inputs=["-display_rotation:v:0", "90"])(tmp_path)
    assert extract_one(path, tmp_path) == (FRAMES, "done")
    width, height = Image.open(tmp_path / "jpg/a/image_00001.jpg").size
    assert width < height


def test_a_changing_resolution(tmp_path):
    """Two streams one behind the other, as broadcasts change size: all frames, of one size."""
    from PIL import Image

    parts = [draw(tmp_path / f"{s}.ts", size=s, rate=10) for s in ("64x48", "96x72")]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    expected = decoded(path)
    n_frames, status = extract_one(path, tmp_path)
    assert n_frames == expected >= 19  # the join may cost ffmpeg a frame
    assert status in ("done", "partial")
    sizes = {Image.open(frame).size for frame in (tmp_path / "jpg/a").iterdir()}
    assert len(sizes) == 1


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damage_gives_what_ffmpeg_decodes(plain, tmp_path, damage, seed):
    draw_from = random.Random(seed)
    path = convert(plain, "a.ts" if seed % 2 else "a.mkv", *COPY)(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: draw_from.randrange(1, len(data))]
    else:
        for place in draw_from.sample(range(len(data)), len(data) // 20):
            data[place] ^= 1 << draw_from.randrange(8)
    path.write_bytes(data)
    expected = decoded(path)
    n_frames, status = extract_one(path, tmp_path)
    assert n_frames == expected
    assert status in (("done", "partial") if n_frames else ("failed", "left_out"))


@pytest.mark.skipif(not SHARED.exists(), reason="the fight clips are not here")
@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "a.flv", "a.ts", "vp9.webm"])
def test_real_clips_in_other_containers(tmp_path, name):
    clip = sorted((SHARED / "fight/val/fight").iterdir())[0]
    path = convert(clip, name, *CONTAINERS[name])(tmp_path)
    expected = decoded(path)
    assert expected > 10
    assert extract_one(path, tmp_path)[0] == expected
