"""The names of frame files: image_00001.jpg, image_00002.jpg …"""

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

JPEG_SUFFIXES = (".jpg", ".jpeg")
PICTURE_SUFFIXES = (*JPEG_SUFFIXES, ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
FRAME_NAME = re.compile(r"image_(\d{5,})\.jpg", re.ASCII)
NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.ASCII | re.DOTALL)  # splits at the last number


class FrameCount(NamedTuple):
    """The number of frames from 1 on; `missing` is the number of the first gap."""

    n_frames: int
    missing: int | None


def count_frames(names: Iterable[str]) -> FrameCount:
    """Count image_00001.jpg … among file names; frames after a gap are not counted."""
    numbers = {name: int(match[1]) for name in names if (match := FRAME_NAME.fullmatch(name))}
    n_frames = 0
    while f"image_{n_frames + 1:05d}.jpg" in numbers:
        n_frames += 1
    is_whole = max(numbers.values(), default=0) <= n_frames
    return FrameCount(n_frames, None if is_whole else n_frames + 1)


def is_picture_name(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


def why_no_frames(names: Iterable[str]) -> str:
    """Explain why these files are no frames; pictures of other names come with the command that
    renames them."""
    pictures = [name for name in names if is_picture_name(name)]
    if not pictures:
        return "no frames"
    first = min(pictures, key=lambda name: (len(name), name))  # img_2.jpg sorts before img_10.jpg
    return (
        f"no frames, but {len(pictures)} pictures such as {first}; frames are JPEG files named "
        f"image_00001.jpg, image_00002.jpg …: in that folder, run  {_renaming(first, pictures)}"
    )


def _renaming(first: str, pictures: Iterable[str]) -> str:
    """Return the command that gives pictures the names of frames; JPEGs are copied unchanged."""
    suffix = PurePath(first).suffix
    how = "-c copy" if suffix.lower() in JPEG_SUFFIXES else "-q:v 2"
    match = NUMBERED.fullmatch(first)
    if match is None:
        pattern = f"-pattern_type glob -i '*{suffix}'"
    else:
        begin, digits, end = match.groups()
        is_padded = len({len(name) for name in pictures}) == 1
        number = f"%0{len(digits)}d" if is_padded else "%d"
        pattern = f"-start_number {int(digits)} -i '{_escaped(begin)}{number}{_escaped(end)}'"
    return f"ffmpeg {pattern} {how} image_%05d.jpg"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
