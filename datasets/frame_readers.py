"""Read frames from folders of JPGs, HDF5 files of JPEG bytes, or video files."""

import io
import os
import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets import hdf5
from datasets.jpeg_header import PictureError, jpeg_size
from datasets.video_files import OpenVideo, VideoError, read_jpegs
from errors import UserError
from media.frame_names import count_frames, is_picture_name, why_no_frames
from utils.reading import OPEN_FLAGS

MAX_BYTES = 1 << 28  # per frame: four times jpeg_header.MAX_PIXELS
# What decoders, mostly Pillow, raise for a damaged file.
DAMAGED = (OSError, ValueError, SyntaxError, struct.error, EOFError, RuntimeError, MemoryError)
Decoder = Callable[[bytes], Tensor]  # JPEG bytes -> uint8 (3, H, W)


class FrameError(UserError):
    """A frame that can't be read; the message names the file and the cause."""


def frame_path(folder: str, number: int) -> str:
    return f"{folder}/image_{number:05d}.jpg"


class FrameSource(Protocol):
    """Reads the frames of videos as uint8 (C, H, W); C depends on the source."""

    @property
    def remedy(self) -> str:
        """Advice for a video whose frames can't be read; {} stands for its id."""

    def read(self, path: Path, numbers: Sequence[int]) -> list[Tensor]:
        """Read frames by number, in the order given. Raises FrameError."""


@dataclass(frozen=True)
class JpgFolder:
    """A folder per video with image_00001.jpg …, numbered from 1."""

    decode: Decoder
    remedy: ClassVar[str] = "extract {} again"

    def read(self, path: Path, numbers: Sequence[int]) -> list[Tensor]:
        folder = str(path)  # a Path per frame would cost 10% of the decoding time
        return [self._read_one(frame_path(folder, number)) for number in numbers]

    def _read_one(self, path: str) -> Tensor:
        try:
            with os.fdopen(os.open(path, OPEN_FLAGS), "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise FrameError(f"{path}: not a regular file")
                if status.st_size > MAX_BYTES:
                    raise FrameError(f"{path}: {status.st_size} bytes are too many for a frame")
                data = file.read()
        except FileNotFoundError:
            raise FrameError(f"{path}: {_why_absent(path)}") from None
        except OSError as error:
            raise FrameError(f"{path}: {error.strerror or error}") from None
        return decode_frame(data, self.decode, path)


def _why_absent(path: str) -> str:
    """Explain from its folder why the frame `path` does not exist."""
    folder, name = os.path.split(path)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if not count_frames(names).n_frames and any(map(is_picture_name, names)):
        return why_no_frames(names)
    hint = " (it counts from 0, as for HDF5 files)" if name == "image_00000.jpg" else ""
    return f"no such frame, but it is in the index{hint}"


@dataclass(frozen=True)
class Hdf5Videos:
    """An HDF5 file per video with JPEG bytes, numbered from 0.

    Decodes a frame from each dataset in `datasets`, and concatenates the first `channels` of each:
    ("video",) and 3 for pictures, ("video_u", "video_v") and 1 for optical flow.
    """

    decode: Decoder
    datasets: tuple[str, ...] = ("video",)
    channels: int = 3
    remedy: ClassVar[str] = (
        "write an index for these files (JPGs are counted from 1), or extract {} again"
    )

    def read(self, path: Path, numbers: Sequence[int]) -> list[Tensor]:
        try:
            jpegs = hdf5.read_jpegs(path, self.datasets, numbers)
        except UserError as error:
            raise FrameError(str(error)) from None
        planes = [
            [
                decode_frame(data, self.decode, f"{path}, {name} {number}")
                for number, data in zip(numbers, frames, strict=True)
            ]
            for name, frames in zip(self.datasets, jpegs, strict=True)
        ]
        return [
            self._joined(parts, number, path)
            for number, parts in zip(numbers, zip(*planes, strict=True), strict=True)
        ]

    def _joined(self, planes: Sequence[Tensor], number: int, path: Path) -> Tensor:
        if len(planes) == 1:
            return planes[0][: self.channels]
        if any(plane.shape != planes[0].shape for plane in planes):
            raise FrameError(f"{path}: frame {number}: the two directions of flow differ in size")
        return torch.cat([plane[: self.channels] for plane in planes])


@dataclass
class VideoFiles:
    """The video files themselves, numbered from 1: the frames that extraction with --quality 2
    writes.

    With `is_sequential`, ffmpeg stays at the last frame it read, for windows of a long video in
    order; otherwise each call decodes from the beginning of the file.
    """

    decode: Decoder
    is_sequential: bool = False
    remedy: ClassVar[str] = "replace that file, or write a new index of the videos"
    _open: OpenVideo | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}  # each process starts its own ffmpeg

    def read(self, path: Path, numbers: Sequence[int]) -> list[Tensor]:
        if min(numbers) < 1:
            raise FrameError(
                f"{path}: frame {min(numbers)}: the frames of a video file count from 1"
            )
        try:
            jpegs = (self._read_sequential if self.is_sequential else read_jpegs)(path, numbers)
        except VideoError as error:
            raise FrameError(f"{path}: {error}") from None
        return [
            decode_frame(jpegs[number], self.decode, f"{path}: frame {number}")
            for number in numbers
        ]

    def _read_sequential(self, path: Path, numbers: Sequence[int]) -> dict[int, bytes]:
        video = self._open
        if video is None or not video.can_read(path, numbers):
            if video is not None:
                video.close()
            video = self._open = OpenVideo(path, min(numbers))
        return video.read(numbers)


def decode_frame(data: bytes, decode: Decoder, place: Path | str) -> Tensor:
    """Decode JPEG bytes to uint8 (3, H, W). Raises FrameError, which begins with `place`."""
    try:
        jpeg_size(data)
        return decode(data)
    except PictureError as error:
        raise FrameError(f"{place}: {error}") from None
    except DAMAGED as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FrameError(f"{place}: can't be decoded: {cause}") from None


def default_decoder() -> Decoder:
    """Return simplejpeg's decoder, or if it is not installed Pillow's: same pixels, but slower."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        return decode_with_pillow
    return decode_with_simplejpeg


def decode_with_simplejpeg(data: bytes, *, min_size: int = 0) -> Tensor:
    """Decode JPEG bytes to uint8 (3, H, W). Raises OSError for a damaged file.

    With `min_size`, decode at 1/2, 1/4 or 1/8 of the size as long as both sides keep `min_size`
    pixels. Measured on the fight dataset, 240 pixels to 112: frames load 1.3 times as fast, and
    pixels differ by 2.9/255 on average, 66/255 at most.
    """
    import simplejpeg

    sides = {"min_height": min_size, "min_width": min_size, "min_factor": 2} if min_size else {}
    try:
        return torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB", **sides)).permute(2, 0, 1)
    except ValueError:
        return decode_with_pillow(data)  # also reads CMYK, and has better error messages


def decode_with_pillow(data: bytes) -> Tensor:
    """Decode with Pillow. Raises OSError for a damaged file."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def decode_with_accimage(data: bytes) -> Tensor:
    """Decode with accimage (github.com/pytorch/accimage), an optional package."""
    import accimage

    image = accimage.Image(data)
    pixels = torch.empty((3, image.height, image.width), dtype=torch.uint8)
    image.copyto(pixels.numpy())
    return pixels


def require_accimage() -> None:
    """Raise UserError if the package is missing."""
    try:
        import accimage  # noqa: F401
    except ImportError:
        raise UserError(
            "--accimage: the package accimage is not installed; omit the flag"
        ) from None
