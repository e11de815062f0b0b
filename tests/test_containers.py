"""Extraction of every container and many kinds of damage: frames and status.

Every row is made of a drawn clip and, where it is at hand, of a real one. What decodes is compared
with what ffmpeg itself decodes, picture by picture.
"""

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from tests.videos import draw, shared
from util_scripts.generate_video_jpgs import main

NEAR = 8  # of 255, mean difference: the loss of JPEG on small pictures
SMALL = (32, 24)


def small_behind(data):
    """Append a transport stream of another size, as happens in broadcasts."""
    return data + Path("small.ts").read_bytes()


def small_first(data):
    return Path("small.ts").read_bytes() + data


class Given(NamedTuple):
    """A video that ffmpeg makes of a clip, and the expected result of its extraction."""

    name: str
    arguments: str = "-c copy"
    before: str = ""  # the arguments that make the clip
    edit: Callable[[bytes], bytes] = bytes
    status: str = "done"
    frames: str = "those of the clip"


TABLE = {
    "Matroska": Given("a.mkv"),
    "QuickTime": Given("a.mov"),
    "Flash": Given("a.flv"),
    "transport stream": Given("a.ts"),
    "raw H.264": Given("a.h264", "-c:v copy -an"),
    "AVI": Given("a.avi", "-c:v mpeg4 -an"),
    "AVI without its index": Given(
        "a.avi", "-c:v mpeg4 -an", edit=lambda data: data[: data.rindex(b"idx1")]
    ),
    "WebM of VP9": Given("a.webm", "-c:v libvpx-vp9 -an -deadline realtime -cpu-used 8"),
    "Windows Media": Given("a.wmv", "-c:v wmv2 -an"),
    "3GP": Given("a.3gp", "-c:v mpeg4 -an"),
    "upper-case extension": Given("A.MP4"),
    "no extension": Given("bare", "-c copy -f matroska"),
    "extension of another container": Given("a.avi", "-c copy -f matroska"),
    "sound only": Given("a.mp4", "-vn -c:a aac", "-f lavfi -i sine=d=1", bytes, "failed", "none"),
    "subtitles": Given("a.mkv", "-map 1:v -map 0 -c copy", "-i lines.srt"),
    "cover picture as first video stream": Given(
        "a.mp4", "-map 0 -map 1:v -c copy -disposition:v:0 attached_pic", "-i cover.png"
    ),
    "rotated": Given("a.mp4", before="-display_rotation:v:0 90"),
    # ffmpeg may lose a frame at the join, and log an error.
    "another resolution in mid-stream": Given(
        "a.ts", "-c:v copy -an", edit=small_behind, status="done or partial", frames="of both parts"
    ),
    "a higher rate in mid-stream": Given(
        "a.ts", "-c:v copy -an", edit=small_first, status="done or partial", frames="of both parts"
    ),
}


@pytest.fixture(scope="module", params=["drawn", "real"])
def clip(request, tmp_path_factory):
    """A short h264 clip with sound."""
    if request.param == "real":
        return sorted(shared("data/fight/val/fight").iterdir())[0]
    path = tmp_path_factory.mktemp("drawn") / "drawn.mp4"
    sound = ["-f", "lavfi", "-i", "sine=d=2", "-c:v", "libx264", "-g", "10", "-shortest"]
    return draw(path, seconds=2, rate=10, extra=sound)


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Files that rows of the table refer to."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "lines.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    draw(folder / "cover.png", extra=["-frames:v", "1"])
    draw(folder / "small.ts", size="96x72", rate=5, seconds=2, extra=["-c:v", "libx264"])
    return folder


def make(folder, clip, given, beside):
    target = folder / given.name
    arguments = [*given.before.split(), *input_of(clip), *given.arguments.split()]
    ran = Ffmpeg().run(["-y", *arguments, f"file:{target.absolute()}"], cwd=beside)
    assert ran.returncode == 0, ran.errors
    target.write_bytes(given.edit(target.read_bytes()))
    return target


def extract_one(path, root):
    """Extract one video; return (folder of frames, status)."""
    videos = root / "v"
    videos.mkdir()
    path.rename(videos / path.name)
    main([str(videos), str(root / "jpg"), "test"])
    (row,) = map(json.loads, (root / "jpg/manifest.jsonl").read_text().splitlines())
    folder = root / "jpg" / path.stem
    left = sorted(path.name for path in (root / "jpg").iterdir())
    assert left == sorted(["manifest.jsonl", *([folder.name] if row["frames"] else [])])
    assert row["frames"] == (len(list(folder.iterdir())) if row["frames"] else 0)
    return folder, row["status"]


def decoded(path):
    """Decode with ffmpeg alone: the luma of all frames, scaled down, uint8 (N, H, W)."""
    width, height = SMALL
    small = f"scale={width}:{height}:flags=area:out_range=full,format=yuv444p,extractplanes=y"
    output = ["-map", "0:V:0", "-vf", small, "-fps_mode", "passthrough", "-f", "rawvideo"]
    with tempfile.TemporaryDirectory() as folder:  # the clip's folder may be shared
        raw = Path(folder, "raw")
        Ffmpeg().run([*input_of(path), *output, str(raw)])
        pixels = np.frombuffer(raw.read_bytes() if raw.exists() else b"", np.uint8)
    return pixels.reshape(-1, height, width)


def pictures(folder):
    """Read the same from a folder of frames of one size."""
    images = [Image.open(path) for path in sorted(folder.glob("*"))]
    assert len({image.size for image in images}) <= 1
    for image in images:
        image.draft("L", image.size)  # the JPEG's luma: damage creates colours outside RGB
    small = [np.asarray(image.resize(SMALL, Image.Resampling.BOX)) for image in images]
    return np.array(small, np.uint8).reshape(-1, *reversed(SMALL))


def check(path, root):
    """Extract a video and compare; return the pictures and the status."""
    expected = decoded(path)
    folder, status = extract_one(path, root)
    found = pictures(folder)
    assert len(found) == len(expected)
    differences = np.abs(found.astype(float) - expected).mean(axis=(1, 2))
    assert not len(found) or differences.max() < NEAR
    return found, status


@pytest.mark.parametrize("row", TABLE)
def test_extraction_of_container(clip, beside, tmp_path, monkeypatch, row):
    monkeypatch.chdir(beside)
    given = TABLE[row]
    frames, status = check(make(tmp_path, clip, given, beside), tmp_path)
    assert status in given.status.split(" or ")
    n_frames = len(decoded(clip))
    expected = {
        "those of the clip": [n_frames],
        "none": [0],
        "of both parts": [n_frames + 9, n_frames + 10],
    }
    assert len(frames) in expected[given.frames]
    if row == "rotated":
        width, height = Image.open(next((tmp_path / "jpg/a").iterdir())).size
        assert width < height


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("damage", ["cut", "5% of bytes", "0.1% of bytes"])
def test_damaged_video_gives_the_frames_ffmpeg_decodes(clip, beside, tmp_path, damage, seed):
    draw_from = random.Random(seed)

    def harm(whole):
        data = bytearray(whole)
        if damage == "cut":
            return bytes(data[: draw_from.randrange(1, len(data))])
        share = float(damage.split("%")[0]) / 100
        for place in draw_from.sample(range(len(data)), int(len(data) * share)):
            data[place] = draw_from.randrange(256)
        return bytes(data)

    given = Given("a.ts" if seed % 2 else "a.mkv", edit=harm)
    frames, status = check(make(tmp_path, clip, given, beside), tmp_path)
    assert status in (("done", "partial") if len(frames) else ("failed", "left_out"))


AWKWARD = {  # frames and status; all others fail and leave nothing
    "LICENSE.decord.txt": (0, "left_out"),
    "LICENSE.mp4parse.txt": (0, "left_out"),
    "av1_video.mkv": (125, "done"),
    "bbb_sunflower_QCIF_30fps_h263_noaudio_1f.3gp": (1, "done"),
    "bbb_sunflower_QCIF_30fps_mp4v_noaudio_1f.mp4": (1, "done"),
    "bt709_full_range.mp4": (30, "done"),
    "corrupted.mp4": (49, "partial"),
    "flipping_a_pancake.mkv": (310, "done"),
    "h264_10bits.mp4": (30, "done"),
    "h264_white_frame_sar_16_9.mp4": (1, "done"),
    "h265_10bits.mp4": (30, "done"),
    "h265_video.mp4": (10, "done"),
    "hevc_white_frame.mp4": (1, "done"),
    "metadata.mp4": (1, "done"),
    "metadata_gnre.mp4": (1, "done"),
    "minimal.mp4": (1, "done"),
    "nasa_13013.mp4": (325, "done"),
    "tiny_av1.mp4": (1, "done"),
    "unordered.mov": (4, "done"),
    "video_0.mov": (3, "done"),
    "video_180.mov": (3, "done"),
    "video_270.mov": (3, "done"),
    "video_90.mov": (3, "done"),
    "video_colr_nclx_and_icc.mp4": (3, "done"),
    "video_colr_nclx_two_colr.mp4": (3, "done"),
}


def test_awkward_videos(tmp_path):
    videos = shared("data/awkward")
    assert main([str(videos), str(tmp_path / "jpg"), "test"]) == 1
    rows = [json.loads(line) for line in (tmp_path / "jpg/manifest.jsonl").open()]
    found = {row["source"]: (row["frames"], row["status"]) for row in rows}
    assert found == dict.fromkeys(found, (0, "failed")) | AWKWARD
    assert len(found) == len(AWKWARD) + 9
    for name, (n_frames, status) in found.items():
        (tmp_path / name).symlink_to(videos / name)
        assert status == "left_out" or len(decoded(tmp_path / name)) == n_frames, name
        folder = tmp_path / "jpg" / Path(name).stem
        assert len(list(folder.iterdir()) if folder.exists() else []) == n_frames
    turned = Image.open(tmp_path / "jpg/video_90/image_00001.jpg").size
    upright = Image.open(tmp_path / "jpg/video_0/image_00001.jpg").size
    assert (turned[0] < turned[1]) != (upright[0] < upright[1])
