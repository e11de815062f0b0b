"""Where frames come from. A source reads one frame of one video: uint8 (C, H, W)."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from errors import UserError

JPEG_START = b"\xff\xd8\xff"


class FrameError(UserError):
    """A frame that can't be read; the message names its file and the cause."""


def frame_path(folder: Path, number: int) -> Path:
    return folder / f"image_{number:05d}.jpg"


@dataclass(frozen=True)
class JpgFolder:
    """Frames as files image_00001.jpg … in a folder per video."""

    decode: Callable[[bytes], Tensor]

    def read(self, folder: Path, number: int) -> Tensor:
        """Return frame `number`, counted from 1, as uint8 (3, H, W). Raises FrameError."""
        path = frame_path(folder, number)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise FrameError(f"{path}: no such frame, though the index counts it") from None
        except OSError as error:
            raise FrameError(f"{path}: {error.strerror or error}") from None
        if not data.startswith(JPEG_START):
            raise FrameError(f"{path}: {'not a JPEG' if data else 'an empty file'}")
        try:
            return self.decode(data)
        except (RuntimeError, OSError) as error:
            raise FrameError(f"{path}: can't be decoded: {str(error).splitlines()[0]}") from None


def default_decoder() -> Callable[[bytes], Tensor]:
    """torchvision's decoder, the faster one, or Pillow's where torchvision no longer has any."""
    try:
        from torchvision.io import decode_jpeg  # noqa: F401
    except ImportError:  # deprecated since torchvision 0.29
        return decode_with_pillow
    return decode_with_torchvision


def decode_with_torchvision(data: bytes) -> Tensor:
    """JPEG bytes -> uint8 (3, H, W); raises RuntimeError for a damaged file."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


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
