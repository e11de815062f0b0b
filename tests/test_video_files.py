"""Reading any kind of video file gives the frames of extraction bit for bit, or the same error."""

import pickle
import random
from pathlib import Path

import pytest
import torch

from datasets import video_files
from datasets.frame_readers import FrameError, JpgFolder, VideoFiles, default_decoder
from datasets.records import VideoRecord
from datasets.samplers import MAX_WINDOWS, WindowBatches
from datasets.video_dataset import ClipLoader, InferenceWindows, VideoDataset
from datasets.video_files import count_video
from errors import UserError
from media.ffmpeg import Ffmpeg
from media.ffmpeg_inputs import input_of
from spatial_transforms import EvalView
from tests.commands import run_command
from tests.runs import small_run
from tests.videos import draw, draw_sound, shared
from util_scripts.folder_json import main as folder_json
from util_scripts.generate_video_jpgs import main as generate_video_jpgs

MATRIX = "-c copy"
KINDS = {  # file name, input options, output options
    "turned by 90 degrees": ("a.mp4", "-display_rotation:v:0 90", MATRIX),
    "turned by 180 degrees": ("a.mov", "-display_rotation:v:0 180", MATRIX),
    "turned by 270 degrees": ("a.mkv", "-display_rotation:v:0 270", MATRIX),
    "mirrored left to right": ("a.mp4", "-display_hflip:v:0", MATRIX),
    "mirrored upside down": ("a.mov", "-display_vflip:v:0", MATRIX),
    "mirrored and turned": ("a.mp4", "-display_rotation:v:0 90 -display_hflip:v:0", MATRIX),
    "MPEG-1 program stream": ("a.mpg", "", "-c:v mpeg1video -r 25 -bf 2"),
    "MPEG-2 program stream": ("a.vob", "", "-c:v mpeg2video -r 25 -bf 2"),
    "interlaced MPEG-2": ("a.mpg", "", "-c:v mpeg2video -r 25 -flags +ilme+ildct"),
    "transport stream": ("a.ts", "", "-c:v libx264 -bf 2"),
    "raw H.264": ("a.h264", "", "-c:v libx264"),
    "AVI with a palette": ("a.avi", "", "-c:v rawvideo -pix_fmt pal8"),
    "AVI without colour": ("a.avi", "", "-c:v ffv1 -pix_fmt gray"),
    "AVI of RGB": ("a.avi", "", "-c:v rawvideo -pix_fmt bgr24"),
    "AVI of JPEGs": ("a.avi", "", "-c:v mjpeg"),
    "QuickTime animation": ("a.mov", "", "-c:v qtrle"),
    "GIF": ("a.gif", "", ""),
    "WebM": ("a.webm", "", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
    "transparent": ("a.webm", "", "-c:v libvpx -pix_fmt yuva420p -auto-alt-ref 0"),
    "BT.709": ("a.mp4", "", "-c:v libx264 -vf scale=out_color_matrix=bt709 -colorspace bt709"),
    "BT.2020 of 10 bits": (
        "a.mp4",
        "",
        "-c:v libx264 -vf scale=out_color_matrix=bt2020,format=yuv420p10 -colorspace bt2020nc "
        "-color_primaries bt2020 -color_trc smpte2084",
    ),
    "full range": ("a.mp4", "", "-c:v libx264 -vf scale=out_range=pc -color_range pc"),
    "10 bits": ("a.mkv", "", "-c:v libx264 -pix_fmt yuv422p10"),
    "whole colours": ("a.mp4", "", "-c:v libx264 -pix_fmt yuv444p"),
    "pixels that are not square": ("a.mp4", "", "-c:v libx264 -vf setsar=16/11"),
    "odd sides": ("a.mkv", "", "-c:v ffv1 -s 65x49"),
    "upright": ("a.avi", "", "-c:v mpeg4 -s 48x110"),
    "uneven rate": ("a.mkv", "", "-c:v libx264 -vf select=mod(n*n\\,3) -fps_mode passthrough"),
    "begins before a key frame": ("a.mp4", "-ss 0.55", "-c copy"),
    "two streams": ("a.mkv", "-f lavfi -i testsrc=s=96x96:d=1", "-c:v mpeg4 -map 0 -map 1"),
    "no suffix": ("bare", "", "-c:v mpeg4 -f matroska"),
}
SIZES = ("96x72", "96x48")  # of the second part of a broadcast: the same aspect ratio, and another


def extract(path, root):
    """Extract; return (folder of frames, number of frames)."""
    root.mkdir()
    (root / path.name).symlink_to(path)
    generate_video_jpgs([str(root), str(root / "jpg"), "own", "--quality", "2"])
    folder = root / "jpg" / Path(path.name).with_suffix("").name
    return folder, len(list(folder.iterdir())) if folder.is_dir() else 0


def check(path, root, *, seed=0):
    """Compare counts, whole videos, random clips and sparse frames; return the count."""
    folder, n = extract(path, root)
    if not n:
        with pytest.raises(UserError, match=path.name):
            count_video(path)
        with pytest.raises(FrameError, match=path.name):
            VideoFiles(default_decoder()).read(path, [1])
        return 0
    assert count_video(path) == n
    draw_from = random.Random(seed)
    start = draw_from.randrange(1, n + 1)
    clip, whole = range(start, min(n, start + 4) + 1), range(1, n + 1)
    expected = JpgFolder(default_decoder()).read(folder, whole)
    for is_sequential, wanted in ((False, [whole, clip, [n, 1]]), (True, [clip, clip, whole])):
        source = VideoFiles(default_decoder(), is_sequential)
        for numbers in wanted:
            for number, frame in zip(numbers, source.read(path, numbers), strict=True):
                assert frame.equal(expected[number - 1]), f"frame {number} of {numbers}"
        with pytest.raises(FrameError, match=f"frame {n + 1}"):
            source.read(path, [n, n + 1])
    return n


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_extraction(tmp_path, kind):
    name, before, after = KINDS[kind]
    coded = ["-c:v", "libx264", "-g", "4", "-pix_fmt", "yuv420p"]
    source = draw(tmp_path / "drawn.mp4", seconds=2, extra=coded)
    inputs, _, more = before.partition("-f lavfi")
    arguments = [*inputs.split(), *input_of(source), *(f"-f lavfi{more}".split() if more else [])]
    ran = Ffmpeg().run([*arguments, *after.split(), str(tmp_path / name)])
    assert ran.returncode == 0, ran.errors
    assert check(tmp_path / name, tmp_path / "extracted") >= 10


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_first", [True, False])
def test_size_change_in_mid_stream(tmp_path, size, is_first):
    """ffmpeg's filters restart counting frames there."""
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
    parts = [draw(tmp_path / "a.ts", extra=coded), draw(tmp_path / "b.ts", size=size, extra=coded)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts[:: 1 if is_first else -1]))
    assert check(path, tmp_path / "extracted") >= 18


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("container", ["ts", "mkv", "avi", "mp4"])
def test_damage(tmp_path, container, seed):
    """A truncated file, and one with wrong bytes."""
    draw_from = random.Random(seed)
    path = draw(tmp_path / f"a.{container}", seconds=2, extra=["-c:v", "mpeg4", "-g", "5"])
    data = bytearray(path.read_bytes())
    if seed % 2:
        del data[draw_from.randrange(1, len(data)) :]
    else:
        for place in draw_from.sample(range(len(data)), len(data) // 500):
            data[place] = draw_from.randrange(256)
    path.write_bytes(data)
    check(path, tmp_path / "extracted", seed=seed)


@pytest.mark.parametrize(
    ("name", "most"), [("awkward", 99), ("ucf101_samples", 99), ("fight/val/fight", 3)]
)
def test_real_files(tmp_path, name, most):
    for path in sorted(shared(f"data/{name}").iterdir())[:most]:
        check(path, tmp_path / path.name)


def test_non_videos_are_refused(tmp_path):
    draw_sound(tmp_path / "sound.mp4")
    (tmp_path / "noise.mp4").write_bytes(b"\x00\x01" * 5000)
    draw(tmp_path / "picture.png", extra=("-frames:v", "1"))
    for name in ("sound.mp4", "noise.mp4", "picture.png", "gone.mp4"):
        with pytest.raises(UserError, match=name):
            count_video(tmp_path / name)
    draw(tmp_path / "good.mp4")
    for numbers in ([0], [11], [5, 400]):
        with pytest.raises(FrameError, match=r"good.mp4: frame"):
            VideoFiles(default_decoder()).read(tmp_path / "good.mp4", numbers)


def test_a_long_video_is_decoded_once(tmp_path, monkeypatch):
    """Overlapping windows are read without restarting ffmpeg; going far back restarts it."""
    path = draw(tmp_path / "a.mkv", seconds=40, extra=["-c:v", "mpeg4"])
    folder, n = extract(path, tmp_path / "extracted")
    started = []
    start = video_files._start
    monkeypatch.setattr(video_files, "_start", lambda *a: started.append(a) or start(*a))
    source, jpgs = VideoFiles(default_decoder(), True), JpgFolder(default_decoder())

    def check_read(numbers):
        frames, expected = source.read(path, numbers), jpgs.read(folder, numbers)
        assert all(map(torch.equal, frames, expected))

    for first in range(1, n - 40, 32):
        check_read(range(first, first + 40, 2))
    assert len(started) == 1
    check_read([2, 3])
    assert len(started) == 2
    check_read([n])
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(path, [1])[0].equal(jpgs.read(folder, [1])[0])
    assert len(started) == 3


def test_windows_past_the_end_are_skipped_one_by_one(tmp_path):
    """An index with more frames than the video: the other windows and videos are still read."""
    paths = [draw(tmp_path / name) for name in ("a.mp4", "b.mp4")]  # 10 frames each
    records = [
        VideoRecord(path.stem, path, 1, last, 0) for path, last in zip(paths, (30, 10), strict=True)
    ]
    windows = InferenceWindows(size=5, stride=5)
    source = VideoFiles(default_decoder(), True)
    dataset = VideoDataset(records, source, windows, EvalView(16))
    batches = WindowBatches({0: 6, 1: 2}, 1, clips_per_window=MAX_WINDOWS)  # of one window each
    loader = ClipLoader(dataset, batches, n_workers=0, skip_bad=True)
    assert [video for batch in loader for video in batch.videos.tolist()] == [0, 0, 1, 1]
    assert len(loader.skipped) == 4


def test_all_frames_after_an_error_have_the_same_cause(tmp_path):
    source, path = VideoFiles(default_decoder(), True), draw(tmp_path / "a.mp4")
    for numbers, missing in (([9, 12], 12), ([11, 14], 11), ([13], 13)):
        with pytest.raises(FrameError, match=f"frame {missing} .*: the file ends before it"):
            source.read(path, numbers)
    assert len(source.read(path, [1, 10])) == 2


@pytest.mark.parametrize("is_sequential", [False, True])
def test_the_cause_of_frames_past_the_end(tmp_path, is_sequential):
    draw(tmp_path / "a.mp4")
    draw(tmp_path / "picture.png", extra=("-frames:v", "1"))
    draw_sound(tmp_path / "sound.mp4")
    causes = {"a.mp4": "ends before it", "picture.png": "a picture", "sound.mp4": "no video stream"}
    for name, cause in causes.items():
        with pytest.raises(FrameError, match=f"frame 11 can't be read: .*{cause}"):
            VideoFiles(default_decoder(), is_sequential).read(tmp_path / name, [11, 14])


def test_scattered_numbers_become_few_runs():
    assert video_files._runs([3]) == [(3, 3)]
    assert video_files._runs([1, 2, 5, 10, 11]) == [(1, 5), (10, 11)]
    runs = video_files._runs(range(1, 10_000, 9))
    assert len(runs) <= video_files.MAX_RUNS
    assert runs[0][0] == 1
    assert runs[-1][1] == 9_991


def test_message_for_a_damaged_or_replaced_video(tmp_path, monkeypatch, capsys):
    """The advice is not to extract it again, because nothing was extracted."""
    for name in ("a/1", "a/2", "b/3"):
        draw(tmp_path / f"videos/{name}.avi")
    monkeypatch.chdir(tmp_path)
    assert folder_json(["videos", "index.json"]) == 0
    draw(tmp_path / "videos/a/1.avi", rate=3)
    assert small_run(tmp_path, "--file_type", "video", "--video_path", "videos", "--no_val") == 2
    message = capsys.readouterr().err
    assert "1.avi: frame 10 can't be read: the file ends before it; replace that file" in message
    assert "extract" not in message


def test_missing_ffmpeg_is_reported_at_the_start(tmp_path):
    draw(tmp_path / "videos/a/1.avi")
    draw(tmp_path / "videos/a/2.avi")
    assert folder_json([str(tmp_path / "videos"), str(tmp_path / "index.json")]) == 0
    arguments = ["--video_path", tmp_path / "videos", "--annotation_path", tmp_path / "index.json"]
    arguments += ["--result_path", tmp_path / "results", "--dataset", "folder", "--n_classes", 1]
    arguments += ["--file_type", "video", "--no_cuda", "--n_threads", 2]
    finished = run_command("main.py", *arguments, environ={"FFMPEG": "no-such-program"})
    assert finished.status == 2
    assert finished.stderr == "error: $FFMPEG is 'no-such-program': no such program\n"
