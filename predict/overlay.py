"""Copy a video with the current prediction drawn on it: label, score, bar."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
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
from predict.predictions import ScoredWindow, VideoResult
from predict.video_reader import Frame, VideoReader
from utils.files import atomic_write
from utils.outputs import OVERLAY_MARK
from utils.plotting import font_for
from utils.reading import shown_name

# Make pixels square, or the text would be stretched.
SQUARE_PIXELS = "scale=w='max(1,trunc(iw*sar+0.5))':h=ih,setsar=1,format=rgb24"
# H.264 needs even sides; players assume BT.709 for untagged video, and the output is tagged too.
ENCODER_FILTERS = "pad=w='ceil(iw/2)*2':h='ceil(ih/2)*2',scale=out_color_matrix=bt709:out_range=tv"
TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
METADATA = ("-metadata", f"comment={OVERLAY_MARK}")
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20")
CODECS = {".mp4": H264, ".m4v": H264, ".mov": H264, ".mkv": H264}  # else ffmpeg's default

TEXT_SHARE, SMALLEST_TEXT = 0.042, 13  # of the shorter side; pixels
SHADE, TRACK = (0, 0, 0, 165), (96, 96, 96, 255)
TEXT, BAR, ALERT = (255, 255, 255, 255), (79, 195, 247, 255), (255, 82, 82, 255)


class Caption(NamedTuple):
    """The top label of one window and the frame number of the window's centre."""

    centre: float
    label: str
    score: float


class CaptionCollector:
    """A sink that collects the captions of one video, about 100 bytes per window; `last` is the
    last frame that they cover, if scoring was stopped there."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self.captions: list[Caption] = []
        self.n_frames = 0
        self.last: int | None = None

    def begin(self, name: str) -> None:
        pass

    def window(self, window: ScoredWindow) -> None:
        best = int(window.scores.argmax())
        first, end = window.segment
        score = float(window.scores[best])
        self.captions.append(Caption((first + end - 1) / 2, self._labels[best], score))

    def end(self, result: VideoResult) -> None:
        self.n_frames = result.frames
        self.last = result.frames if result.is_cut else None


def with_captions(
    captions: Sequence[Caption], frames: Iterator[Frame], last: int | None = None
) -> Iterator[tuple[Frame, Caption | None]]:
    """Pair each frame with the caption of the window whose centre is nearest; frames after `last`
    have none."""
    now = 0
    for frame in frames:
        while now + 1 < len(captions):
            here, after = (abs(captions[i].centre - frame.number) for i in (now, now + 1))
            if after > here:
                break
            now += 1
        yield frame, captions[now] if last is None or frame.number <= last else None


@dataclass(frozen=True)
class Painter:
    """Draws captions on frames; bars of labels in `alerts` are red from `threshold` on."""

    alerts: frozenset[str] = frozenset()
    threshold: float = 1.0
    font: Path | None = None

    def draw(self, image: Image.Image, caption: Caption) -> None:
        """Draw a panel at the bottom of the image, over its full width."""
        is_alert = caption.label in self.alerts and caption.score >= self.threshold
        panel = _panel(image.size, caption.label, caption.score, is_alert, self.font)
        image.paste(panel, (0, image.height - panel.height), panel)


@lru_cache(maxsize=4)  # all frames of a window share one panel
def _panel(
    size: tuple[int, int], label: str, score: float, is_alert: bool, font_path: Path | None
) -> Image.Image:
    """Draw an RGBA panel as wide as the frame: label left, score right, bar below."""
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
    """Shorten the text to `room` pixels."""
    if draw.textlength(text, font=font) <= room:
        return text
    while text and draw.textlength(f"{text}…", font=font) > room:
        text = text[:-1]
    return f"{text}…" if text else ""


def choose_font(labels: Sequence[str]) -> Path | None:
    """Find an installed font that has all characters of the labels, or return None."""
    font = font_for([shown_name(label) for label in labels])
    return None if font is None else Path(font.path)


@lru_cache(maxsize=4)
def load_font(size: int, path: Path | None = None) -> ImageFont.FreeTypeFont:
    """Load a font file, or else DejaVu Sans, which comes with matplotlib and has Latin, Greek and
    Cyrillic letters, but no Chinese. Raises UserError."""
    if path is None:
        spec = find_spec("matplotlib")
        assert spec is not None
        assert spec.submodule_search_locations
        path = Path(spec.submodule_search_locations[0], "mpl-data/fonts/ttf/DejaVuSans.ttf")
    try:
        return ImageFont.truetype(str(path), size)
    except OSError as error:
        raise UserError(f"--font {path}: can't be used: {error}") from None


def write_overlay(
    ffmpeg: Ffmpeg, source: VideoInput, target: Path, collected: CaptionCollector, painter: Painter
) -> None:
    """Decode the video again, draw on its frames in original size, and encode them with its sound.

    The target is written whole or not at all. Raises UserError if it can't be written.
    """
    with atomic_write(target) as part:
        try:
            _encode(ffmpeg, source, part, collected, painter)
        except EncoderFailed as error:
            raise UserError(f"--overlay {target}: {error}") from None


class EncoderFailed(Exception):
    """ffmpeg could not encode the output; the message is its own."""


def _encode(
    ffmpeg: Ffmpeg, source: VideoInput, part: Path, collected: CaptionCollector, painter: Painter
) -> None:
    reader = VideoReader(ffmpeg, source, SQUARE_PIXELS)
    encoder: Stream | None = None
    n_frames = collected.n_frames if collected.last is None else None
    bar = tqdm(reader, total=n_frames, unit="frame", desc="overlay", leave=False, disable=None)
    try:
        frames = with_captions(collected.captions, iter(bar), collected.last)
        images = _painted(frames, painter)
        with suppress(BrokenPipeError):  # the encoder has ended early; _finish raises its reason
            for image in _at_constant_rate(images, reader):
                if encoder is None:
                    arguments = _encoder_arguments(source, image.size, reader.rate, part)
                    encoder = ffmpeg.feed(arguments)
                encoder.pipe.write(image.tobytes())
        assert encoder is not None  # there were windows, so there are frames
        _finish(encoder)
    finally:
        reader.stop()
        if encoder is not None:
            encoder.kill()


def _painted(
    frames: Iterator[tuple[Frame, Caption | None]], painter: Painter
) -> Iterator[tuple[Frame, Image.Image]]:
    """Draw the captions on the frames, all in the size of the first one."""
    size: tuple[int, int] | None = None
    for frame, caption in frames:
        # (3, H, W) -> (H, W, 3)
        image = Image.fromarray(np.ascontiguousarray(frame.pixels.permute(1, 2, 0).numpy()))
        size = size or image.size
        image = image if image.size == size else image.resize(size)
        if caption is not None:
            painter.draw(image, caption)
        yield frame, image


def _at_constant_rate(
    images: Iterator[tuple[Frame, Image.Image]], reader: VideoReader
) -> Iterator[Image.Image]:
    """Repeat each image until the next one is due: keeps variable rates in sync with the sound."""
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


def _encoder_arguments(
    source: VideoInput, size: tuple[int, int], rate: float, target: Path
) -> list[str]:
    """Return ffmpeg arguments that encode raw frames from stdin with the sound of the source."""
    width, height = size
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate)]
    maps = ["-i", "-", *source.arguments, "-map", "0:v", "-map", "1:a:0?"]
    codec = CODECS.get(target.suffix.lower(), ())
    output = ["-vf", f"{ENCODER_FILTERS},format=yuv420p", *TAGS, *codec, *METADATA]
    return ["-y", *raw, *maps, *output, f"file:{target.absolute()}"]


def _finish(encoder: Stream) -> None:
    ran = encoder.finish()
    if ran.returncode:
        status = f"ffmpeg ended with status {ran.returncode}"
        raise EncoderFailed(ran.errors[0] if ran.errors else status)
