"""A copy of a video with the running prediction drawn on it: label, score, bar."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from errors import UserError
from media.ffmpeg import Ffmpeg, Stream
from media.sources import VideoInput
from predict.scoring import FrameReader
from predict.windows import Frame
from predict.writers import ScoredWindow, VideoResult
from utils.files import written_whole
from utils.outputs import OVERLAY_MARK
from utils.plotting import font_for
from utils.reading import shown_name

# Square pixels, or text would be as wide as they are.
AS_SHOWN = "scale=w='max(1,trunc(iw*sar+0.5))':h=ih,setsar=1,format=rgb24"
# H.264 wants even sides; BT.709 is what players assume of what is untagged, and we tag it too.
ENCODED = "pad=w='ceil(iw/2)*2':h='ceil(ih/2)*2',scale=out_color_matrix=bt709:out_range=tv"
TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
MARKED = ("-metadata", f"comment={OVERLAY_MARK}")
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20")
CODERS = {".mp4": H264, ".m4v": H264, ".mov": H264, ".mkv": H264}  # elsewhere the format's own

TEXT_SHARE, SMALLEST_TEXT = 0.042, 13  # of the shorter side; pixels
SHADE, TRACK = (0, 0, 0, 165), (96, 96, 96, 255)
TEXT, BAR, ALERT = (255, 255, 255, 255), (79, 195, 247, 255), (255, 82, 82, 255)


class Shown(NamedTuple):
    """What is drawn while a window runs: its middle in frame numbers, label, score."""

    middle: float
    label: str
    score: float


class Captions:
    """A sink that keeps what is to be drawn on one video: about 100 bytes a window."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self.shown: list[Shown] = []
        self.n_frames = 0

    def begin(self, name: str) -> None:
        pass

    def window(self, window: ScoredWindow) -> None:
        best = int(window.scores.argmax())
        first, end = window.segment
        score = float(window.scores[best])
        self.shown.append(Shown((first + end - 1) / 2, self._labels[best], score))

    def end(self, result: VideoResult) -> None:
        self.n_frames = result.frames


def running(shown: Sequence[Shown], frames: Iterator[Frame]) -> Iterator[tuple[Frame, Shown]]:
    """Each frame with the window whose middle is nearest."""
    now = 0
    for frame in frames:
        while now + 1 < len(shown):
            here, after = (abs(shown[i].middle - frame.number) for i in (now, now + 1))
            if after > here:
                break
            now += 1
        yield frame, shown[now]


@dataclass(frozen=True)
class Artist:
    """Draws captions on frames. Those of `alerts` are red from `threshold` on."""

    alerts: frozenset[str] = frozenset()
    threshold: float = 1.0
    font: Path | None = None

    def draw(self, image: Image.Image, shown: Shown) -> None:
        """Draw at the foot of the image, over its full width."""
        is_alert = shown.label in self.alerts and shown.score >= self.threshold
        panel = _panel(image.size, shown.label, shown.score, is_alert, self.font)
        image.paste(panel, (0, image.height - panel.height), panel)


@lru_cache(maxsize=4)  # a window's frames share one
def _panel(
    size: tuple[int, int], label: str, score: float, is_alert: bool, font_path: Path | None
) -> Image.Image:
    """RGBA, as wide as the frame: label on the left, score on the right, bar below."""
    width, height = size
    text_size = max(SMALLEST_TEXT, round(TEXT_SHARE * min(size)))
    margin, bar_height = text_size // 2, max(3, text_size // 3)
    panel_height = min(height, round(1.4 * text_size) + bar_height + 2 * margin)
    panel = Image.new("RGBA", (width, panel_height), SHADE)
    draw, font = ImageDraw.Draw(panel), load_font(text_size, font_path)
    number = f"{score:.2f}"
    room = width - 3 * margin - draw.textlength(number, font=font)
    baseline = margin + text_size
    draw.text(
        (margin, baseline), _fitted(shown_name(label), room, draw, font), TEXT, font, anchor="ls"
    )
    draw.text((width - margin, baseline), number, TEXT, font, anchor="rs")
    bar = (margin, panel_height - margin - bar_height, width - margin, panel_height - margin)
    if bar[2] > bar[0] and bar[1] > 0:
        draw.rectangle(bar, TRACK)
        reached = bar[0] + round((bar[2] - bar[0]) * score)
        draw.rectangle((bar[0], bar[1], reached, bar[3]), ALERT if is_alert else BAR)
    return panel


def _fitted(text: str, room: float, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont) -> str:
    """The text, shortened to `room` pixels."""
    if draw.textlength(text, font=font) <= room:
        return text
    while text and draw.textlength(f"{text}…", font=font) > room:
        text = text[:-1]
    return f"{text}…" if text else ""


def choose_font(labels: Sequence[str]) -> Path | None:
    """An installed font that has all characters of the labels; None where there is none."""
    font = font_for([shown_name(label) for label in labels])
    return None if font is None else Path(font.path)


@lru_cache(maxsize=4)
def load_font(size: int, path: Path | None = None) -> ImageFont.FreeTypeFont:
    """The font of `path`, else DejaVu Sans, which rides along with matplotlib: it has Latin, Greek
    and Cyrillic letters, but no Chinese. Raises UserError."""
    if path is None:
        spec = find_spec("matplotlib")
        assert spec is not None and spec.submodule_search_locations
        path = Path(spec.submodule_search_locations[0], "mpl-data/fonts/ttf/DejaVuSans.ttf")
    try:
        return ImageFont.truetype(str(path), size)
    except OSError as error:
        raise UserError(f"--font {path}: can't be used: {error}") from None


def write_overlay(
    ffmpeg: Ffmpeg, source: VideoInput, target: Path, captions: Captions, artist: Artist
) -> None:
    """Decode the video again, draw on its frames in their own size, and encode them with its sound.

    The target is there whole or not at all. Raises UserError where it can't be written.
    """
    with written_whole(target) as part:
        _encode(ffmpeg, source, part, target, captions, artist)


def _encode(
    ffmpeg: Ffmpeg,
    source: VideoInput,
    part: Path,
    target: Path,
    captions: Captions,
    artist: Artist,
) -> None:
    reader = FrameReader(ffmpeg, source, AS_SHOWN)
    coder: Stream | None = None
    bar = tqdm(
        reader, total=captions.n_frames, unit="frame", desc="overlay", leave=False, disable=None
    )
    try:
        images = _drawn(running(captions.shown, iter(bar)), artist)
        for image in _at_constant_rate(images, reader):
            if coder is None:
                coder = ffmpeg.feed(_coding(source, image.size, reader.rate, part))
            coder.pipe.write(image.tobytes())
        assert coder is not None  # there were windows, so there are frames
        _finish(coder, target)
    except BrokenPipeError:
        assert coder is not None
        _finish(coder, target)
    finally:
        reader.stop()
        if coder is not None:
            coder.kill()


def _drawn(
    frames: Iterator[tuple[Frame, Shown]], artist: Artist
) -> Iterator[tuple[Frame, Image.Image]]:
    """Frames with their captions, all of the first one's size."""
    size: tuple[int, int] | None = None
    for frame, shown in frames:
        # (3, H, W) -> (H, W, 3)
        image = Image.fromarray(np.ascontiguousarray(frame.pixels.permute(1, 2, 0).numpy()))
        size = size or image.size
        image = image if image.size == size else image.resize(size)
        artist.draw(image, shown)
        yield frame, image


def _at_constant_rate(
    images: Iterator[tuple[Frame, Image.Image]], reader: FrameReader
) -> Iterator[Image.Image]:
    """Each image until the next one's time, so that a varying rate stays with its sound."""
    n_written, previous = 0, None
    for frame, image in images:
        if previous is not None:
            due = round(frame.start * reader.rate)
            for _ in range(due - n_written):
                yield previous
            n_written = max(n_written, due)
        previous = image
    if previous is not None:
        for _ in range(max(round(reader.seconds * reader.rate) - n_written, 0 if n_written else 1)):
            yield previous


def _coding(source: VideoInput, size: tuple[int, int], rate: float, target: Path) -> list[str]:
    """Arguments that encode raw pictures from the pipe, with the sound of the source."""
    width, height = size
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate)]
    maps = ["-i", "-", *source.arguments, "-map", "0:v", "-map", "1:a:0?"]
    coder = CODERS.get(target.suffix.lower(), ())
    output = ["-vf", f"{ENCODED},format=yuv420p", *TAGS, *coder, *MARKED]
    return ["-y", *raw, *maps, *output, f"file:{target.absolute()}"]


def _finish(coder: Stream, target: Path) -> None:
    ran = coder.finish()
    if ran.returncode:
        reason = ran.complaints[0] if ran.complaints else f"ffmpeg's status {ran.returncode}"
        raise UserError(f"--overlay {target}: {reason}")
