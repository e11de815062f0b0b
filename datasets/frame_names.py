"""What to say of pictures that are not called as frames are."""

import re
from collections.abc import Iterable
from pathlib import PurePath

JPEG_SUFFIXES = (".jpg", ".jpeg")
PICTURE_SUFFIXES = (*JPEG_SUFFIXES, ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.ASCII | re.DOTALL)  # by the last number


def is_picture_name(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


def why_no_frames(names: Iterable[str]) -> str:
    """Why a folder of these files has no frames: none at all, or pictures of other names, with the
    command that makes frames of them."""
    pictures = [name for name in names if is_picture_name(name)]
    if not pictures:
        return "no frames"
    first = min(pictures, key=lambda name: (len(name), name))  # img_2.jpg before img_10.jpg
    return (
        f"no frames, but {len(pictures)} pictures such as {first}; frames are JPEG files called "
        f"image_00001.jpg, image_00002.jpg …: run there  {_renaming(first, pictures)}"
    )


def _renaming(first: str, pictures: Iterable[str]) -> str:
    """The command line that gives pictures the names of frames. JPEGs are copied as they are."""
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
