"""Where frames come from: folders of JPGs, HDF5 files of JPEG bytes, or video files."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.annotation import count_frames
from datasets.frame_names import is_picture_name, why_no_frames
from datasets.video_files import OpenVideo, VideoError, read_jpegs
from errors import UserError

JPEG_START = b"\xff\xd8\xff"
SPARSE = 8  # times as many frames in a run as are wanted: above it, they are read one by one
Decoder = Callable[[bytes], Tensor]  # JPEG bytes -> uint8 (3, H, W)


class FrameError(UserError):
    """A frame that can't be read; the message names its file and the cause."""


def frame_path(folder: str, number: int) -> str:
    return f"{folder}/image_{number:05d}.jpg"


class FrameSource(Protocol):
    """Reads frames of one video: uint8 (C, H, W) each, C the source's own."""

    @property
    def remedy(self) -> str:
        """What to do about a video whose frames can't be read; {} is its id."""
        ...

    def read(self, path: Path, numbers: Sequence[int]) -> list[Tensor]:
        """Frames by number, in the order given. Raises FrameError."""
        ...


@dataclass(frozen=True)
class JpgFolder:
    """Frames as files image_00001.jpg … in a folder per video, numbered from 1."""

    decode: Decoder
    remedy: ClassVar[str] = "extract {} again"

    def read(self, path: Path, numbers: Sequence[int]) -> list[Tensor]:
        folder = str(path)  # a Path per frame would cost a tenth of its decoding
        return [self._read_one(frame_path(folder, number)) for number in numbers]

    def _read_one(self, path: str) -> Tensor:
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read()
        except FileNotFoundError:
            raise FrameError(f"{path}: {_why_absent(path)}") from None
        except OSError as error:
            raise FrameError(f"{path}: {error.strerror or error}") from None
        return decode_frame(data, self.decode, path)


def _why_absent(path: str) -> str:
    """Why there is no frame `path`, as far as its folder tells."""
    folder, name = os.path.split(path)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if not count_frames(names).n_frames and any(map(is_picture_name, names)):
        return why_no_frames(names)
    first = ", from 0 as those of HDF5 files" if name == "image_00000.jpg" else ""
    return f"no such frame, though the index counts it{first}"


@dataclass(frozen=True)
class Hdf5Videos:
    """Frames as JPEG bytes in an HDF5 file per video, numbered from 0.

    Every name of `datasets` is one of the file's arrays of bytes; the first `channels` of each
    decoded frame are taken and stacked: ("video",) and 3 for pictures, ("video_u", "video_v") and
    1 for the two directions of optical flow.
    """

    decode: Decoder
    datasets: tuple[str, ...] = ("video",)
    channels: int = 3
    remedy: ClassVar[str] = "extract {} again"

    def read(self, path: Path, numbers: Sequence[int]) -> list[Tensor]:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                lacking = [name for name in self.datasets if name not in file]
                if lacking:
                    raise FrameError(f"{path}: has no dataset {lacking[0]!r}")
                planes = [self._planes(file[name], name, numbers, path) for name in self.datasets]
        except OSError as error:
            raise FrameError(f"{path}: can't be read: {error}") from None
        return [
            self._joined(parts, number, path)
            for number, parts in zip(numbers, zip(*planes, strict=True), strict=True)
        ]

    def _planes(self, dataset: Any, name: str, numbers: Sequence[int], path: Path) -> list[Tensor]:
        wrong = [number for number in numbers if not 0 <= number < len(dataset)]
        if wrong:
            raise FrameError(f"{path}: no frame {wrong[0]}, though the index counts it")
        first, end = min(numbers), max(numbers) + 1
        # One read of a run of frames costs what one frame costs.
        is_dense = end - first <= SPARSE * len(numbers)
        run = dataset[first:end] if is_dense else None
        planes = []
        for number in numbers:
            data = dataset[number] if run is None else run[number - first]
            planes.append(decode_frame(data.tobytes(), self.decode, f"{path}, {name} {number}"))
        return planes

    def _joined(self, planes: Sequence[Tensor], number: int, path: Path) -> Tensor:
        if len(planes) == 1:
            return planes[0][: self.channels]
        if any(plane.shape != planes[0].shape for plane in planes):
            raise FrameError(f"{path}: frame {number}: its planes differ in size")
        return torch.cat([plane[: self.channels] for plane in planes])


@dataclass
class VideoFiles:
    """Frames decoded from the video itself, numbered from 1: those that extraction with
    --quality 2 writes.

    With `is_sequential` ffmpeg waits at the last frame that was read for those after it, as the
    windows of a long video ask for them; else each call starts at the beginning of the file.
    """

    decode: Decoder
    is_sequential: bool = False
    remedy: ClassVar[str] = "replace that file, or write the index anew from the videos"
    _open: OpenVideo | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}  # each process starts its own ffmpeg

    def read(self, path: Path, numbers: Sequence[int]) -> list[Tensor]:
        if min(numbers) < 1:
            raise FrameError(f"{path}: frame {min(numbers)}: a video file's frames count from 1")
        try:
            jpegs = (self._read_on if self.is_sequential else read_jpegs)(path, numbers)
        except VideoError as error:
            raise FrameError(f"{path}: {error}") from None
        return [
            decode_frame(jpegs[number], self.decode, f"{path}: frame {number}")
            for number in numbers
        ]

    def _read_on(self, path: Path, numbers: Sequence[int]) -> dict[int, bytes]:
        video = self._open
        if video is None or not video.can_read(path, numbers):
            if video is not None:
                video.close()
            video = self._open = OpenVideo(path, min(numbers))
        return video.read(numbers)


def decode_frame(data: bytes, decode: Decoder, place: Path | str) -> Tensor:
    """JPEG bytes -> uint8 (3, H, W). Raises FrameError that names `place`."""
    if not data.startswith(JPEG_START):
        raise FrameError(f"{place}: {'not a JPEG' if data else 'an empty file'}")
    try:
        return decode(data)
    except OSError as error:
        raise FrameError(f"{place}: can't be decoded: {str(error).splitlines()[0]}") from None


def default_decoder() -> Decoder:
    """simplejpeg's decoder, or where that is not installed Pillow's: the same pixels, more time."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        return decode_with_pillow
    return decode_with_simplejpeg


def decode_with_simplejpeg(data: bytes, *, least: int = 0) -> Tensor:
    """JPEG bytes -> uint8 (3, H, W); raises OSError for a damaged file.

    With `least` at a half, a quarter or an eighth of its size, as long as both sides keep `least`
    pixels. Measured on the fight set, 240 pixels to 112: a frame loads 1.3 times as fast, and its
    pixels are 2.9/255 off on average, 66/255 at most.
    """
    import simplejpeg

    sides = {"min_height": least, "min_width": least, "min_factor": 2} if least else {}
    try:
        return torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB", **sides)).permute(2, 0, 1)
    except ValueError:
        return decode_with_pillow(data)  # which reads CMYK too, and says what is wrong


def decode_with_pillow(data: bytes) -> Tensor:
    """The same by Pillow; raises OSError for a damaged file."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def decode_with_accimage(data: bytes) -> Tensor:
    """The same through accimage (github.com/pytorch/accimage), an optional package."""
    import accimage

    image = accimage.Image(data)
    pixels = torch.empty((3, image.height, image.width), dtype=torch.uint8)
    image.copyto(pixels.numpy())
    return pixels


def require_accimage() -> None:
    """Raises UserError where the package is absent."""
    try:
        import accimage  # noqa: F401
    except ImportError:
        raise UserError(
            "--accimage: the package accimage is not installed; leave the flag out"
        ) from None
