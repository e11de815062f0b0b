import numpy as np
import pytest
import torch
from PIL import Image

from errors import UserError
from media.ffmpeg import Ffmpeg
from media.sources import find_inputs
from predict.overlay import (
    BAR,
    SQUARE_PIXELS,
    Caption,
    CaptionCollector,
    Painter,
    load_font,
    with_captions,
    write_overlay,
)
from predict.predictions import ScoredWindow, VideoResult
from predict.video_reader import Frame, VideoReader
from tests.test_predict_video import MODEL, predict, write_checkpoint
from tests.videos import draw, names


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "best.pth"
    write_checkpoint(path, **MODEL)
    return path


def read(path):
    """Return (frames as uint8 (H, W, 3), the reader)."""
    reader = VideoReader(Ffmpeg(), find_inputs([str(path)])[0], SQUARE_PIXELS)
    return [frame.pixels.permute(1, 2, 0).numpy() for frame in reader], reader


def test_a_frame_shows_the_window_with_the_nearest_centre():
    captions = [Caption(centre, str(centre), 0.5) for centre in (8.5, 16.5, 30.0)]
    frames = [Frame(number, 0, 0, torch.zeros(3, 1, 1)) for number in range(1, 41)]
    labels = [window.label for _, window in with_captions(captions, iter(frames))]
    assert labels == ["8.5"] * 12 + ["16.5"] * 11 + ["30.0"] * 17
    cut = [caption for _, caption in with_captions(captions, iter(frames), last=35)]
    assert [caption.label for caption in cut[:35]] == labels[:35]
    assert cut[35:] == [None] * 5


@pytest.mark.parametrize("size", [(320, 240), (1920, 1080), (240, 426), (64, 48), (2, 2)])
@pytest.mark.parametrize(
    "label", ["walk", "a label of many words that no frame is wide enough for"]
)
def test_captions_are_at_the_bottom_in_every_size(size, label):
    image = Image.new("RGB", size, (200, 30, 30))
    Painter().draw(image, Caption(1, label, 0.5))
    pixels = np.asarray(image)
    assert (pixels[: size[1] // 2] == (200, 30, 30)).all() or size[1] < 60
    if size[1] > 60:
        bar = np.argwhere((pixels == BAR[:3]).all(axis=2))
        assert bar[:, 1].max() == pytest.approx(size[0] / 2, abs=2)  # half of the width
        white = (pixels > 220).all(axis=2)
        assert white[:, : size[0] // 2].any()
        assert white[:, -size[0] // 3 :].any()


def test_alerts_at_or_above_the_threshold_are_red():
    painter = Painter(frozenset({"fight"}), 0.6)
    colours = []
    for label, score in (("fight", 0.6), ("fight", 0.5), ("calm", 0.9)):
        image = Image.new("RGB", (320, 240))
        painter.draw(image, Caption(1, label, score))
        colours.append(image.getpixel((10, 232)))
    assert colours[0] != colours[1] == colours[2] == BAR[:3]


def test_an_unusable_font_is_one_line(tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    with pytest.raises(UserError, match=r"--font .*a.ttf: can't be used"):
        load_font(20, tmp_path / "a.ttf")


@pytest.mark.parametrize("extension", ["mp4", "avi"])
def test_the_copy_has_the_size_length_and_sound_of_the_video(checkpoint, tmp_path, extension):
    sound = ("-f", "lavfi", "-i", "sine=d=2", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    video = draw(tmp_path / "a.mkv", size="96x128", seconds=2, extra=sound)
    target = tmp_path / f"out.{extension}"
    assert predict(checkpoint, video, "--overlay", target) == 0
    assert names(tmp_path) == ["a.mkv", target.name]
    (theirs, _), (ours, reader) = read(video), read(target)
    assert len(ours) == len(theirs) == 20
    assert reader.seconds == pytest.approx(2, abs=0.15)
    for mine, original in zip(ours, theirs, strict=True):
        upper = np.abs(mine[:80].astype(int) - original[:80])
        assert mine.shape == original.shape
        assert upper.mean() < 8
        assert mine[-20:].mean() < original[-20:].mean()  # the panel is darker
    heard = Ffmpeg().run(["-i", str(target), "-map", "0:a:0", "-f", "null", "-"])
    assert heard.returncode == 0


def test_nothing_is_drawn_after_the_frames_that_were_scored(tmp_path):
    """As if scoring had been stopped: the copy is whole all the same."""
    video = draw(tmp_path / "a.mkv", size="96x128", seconds=2, extra=("-c:v", "libx264"))
    collector = CaptionCollector(("a", "b"))
    collector.window(ScoredWindow((1, 9), 0.0, 0.8, np.array([0.3, 0.7])))
    collector.end(VideoResult("a.mkv", frames=12, is_cut=True))
    [source] = find_inputs([str(video)])
    write_overlay(Ffmpeg(), source, tmp_path / "out.mkv", collector, Painter())
    (theirs, _), (ours, _) = read(video), read(tmp_path / "out.mkv")
    assert len(ours) == len(theirs) == 20
    is_darker = [m[-20:].mean() < 0.8 * o[-20:].mean() for m, o in zip(ours, theirs, strict=True)]
    assert is_darker == [True] * 12 + [False] * 8


def test_variable_rate_keeps_its_length_and_odd_sides_become_even(checkpoint, tmp_path):
    filters = "setpts=PTS+gt(N\\,9)*2/TB,format=yuv444p,pad=67:101"
    extra = ("-vf", filters, "-fps_mode", "passthrough", "-c:v", "libx264")
    video = draw(tmp_path / "a.mp4", size="66x100", seconds=2, extra=extra)
    assert predict(checkpoint, video, "--overlay", tmp_path / "out.mp4") == 0
    (original, _), (frames, reader) = read(video), read(tmp_path / "out.mp4")
    assert frames[0].shape == (102, 68, 3)
    assert reader.seconds == pytest.approx(4, abs=0.25)
    assert np.abs(frames[-1][:60, :67].astype(int) - original[-1][:60]).mean() < 12


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("out", "add an extension"),
        ("a.avi/out.mp4", "a.avi is not a folder"),
        ("a.avi", "is the input"),
        ("out.xyz", "out.xyz: .*format"),
    ],
)
def test_an_unwritable_target_is_one_line(checkpoint, tmp_path, target, complaint):
    video = draw(tmp_path / "a.avi")
    before = video.read_bytes()
    with pytest.raises(UserError, match=complaint):
        predict(checkpoint, video, "--overlay", tmp_path / target)
    assert names(tmp_path) == ["a.avi"]
    assert video.read_bytes() == before


def test_only_one_video_that_is_not_live_can_be_drawn_on(checkpoint, tmp_path):
    for name in ("a.avi", "b.avi"):
        draw(tmp_path / "v" / name)
    for inputs, complaint in (([tmp_path / "v"], "one video"), (["rtsp://a/b"], "live")):
        with pytest.raises(UserError, match=complaint):
            predict(checkpoint, *inputs, "--overlay", tmp_path / "out.mp4")
