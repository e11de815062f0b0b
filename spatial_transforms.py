"""Spatial transforms of whole clips: crop, resize, flip, colour jitter, RandAugment, erasing.

Random parameters are drawn once per clip and apply to all its frames. Frames stay uint8; the
arithmetic is torchvision's (bilinear and antialiased, as in Pillow).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import ColorJitter, InterpolationMode, RandomErasing, RandomResizedCrop
from torchvision.transforms.v2 import RandAugment
from torchvision.transforms.v2 import functional as F

# Per-channel pixel statistics of the training sets, in [0, 1].
MEAN = {
    "kinetics": (0.4345, 0.4051, 0.3775),
    "activitynet": (0.4477, 0.4209, 0.3906),
    "0.5": (0.5, 0.5, 0.5),
    "torchvision": (0.43216, 0.394666, 0.37645),  # Kinetics-400
    "imagenet": (0.485, 0.456, 0.406),
}
STD = {
    "kinetics": (0.2768, 0.2713, 0.2737),
    "activitynet": (0.2767, 0.2695, 0.2714),
    "0.5": (0.5, 0.5, 0.5),
    "torchvision": (0.22803, 0.22145, 0.216989),
    "imagenet": (0.229, 0.224, 0.225),
}

FLIP_PROBABILITY = 0.5
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
ERASED_AREA = (0.02, 0.33)  # as fractions of the view
ERASED_RATIO = (0.3, 3.3)  # height to width
GREY = 128  # fills what is erased or uncovered; as optical flow it is no motion
CORNER_SCALES = tuple(2 ** (-i / 4) for i in range(5))
CORNERS = ("center", "top_left", "top_right", "bottom_left", "bottom_right")
PLACES = ("center", "start", "end")  # of a square along the longer side


class Box(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Jitter(NamedTuple):
    """The drawn parameters of a colour jitter."""

    order: tuple[int, ...]  # indices into JITTER_STEPS
    strengths: tuple[float, ...]  # brightness, contrast, saturation, hue


class RandAugmentDraw(NamedTuple):
    """One drawn use of RandAugment; `seed` determines operations and signs."""

    n_operations: int
    magnitude: int
    seed: int


@dataclass(frozen=True)
class View:
    """The drawn parameters for one clip, in the order of their application.

    `resize` is (height, width), or one number for the shorter side; `crop` is the side of a square
    at `place`, one of PLACES, or None.
    """

    box: Box
    resize: tuple[int, ...]
    crop: int | None = None
    place: str = "center"
    flip: bool = False
    jitter: Jitter | None = None
    rand_augment: RandAugmentDraw | None = None
    erase: Box | None = None  # of the transformed clip
    antialias: bool = True
    is_flow: bool = False  # channel 0 is horizontal motion around 128, which a flip inverts


@dataclass(frozen=True)
class EvalView:
    """Resize the shorter side to `size`, or the frame as `resize` says; with `crop` take the
    centre square of `size`.

    With 3 `crops`, clips have two more views, the squares at both ends of the longer side; with
    `flip`, each view is followed by its mirror image.
    """

    size: int
    crop: bool = True
    crops: int = 1
    flip: bool = False
    is_flow: bool = False
    resize: tuple[int, ...] = ()  # the shorter side, or height and width
    antialias: bool = True

    @property
    def n_views(self) -> int:
        return self.crops * (1 + self.flip)

    def draw(self, height: int, width: int, rng: Random) -> View:
        return self.views(height, width, rng)[0]

    def views(self, height: int, width: int, rng: Random) -> list[View]:
        """Return the views of a clip, first that of the centre; `rng` is unused."""
        box, side = Box(0, 0, height, width), self.size if self.crop else None
        return [
            View(
                box,
                self.resize or (self.size,),
                side,
                place=place,
                flip=flip,
                is_flow=self.is_flow,
                antialias=self.antialias,
            )
            for place in PLACES[: self.crops]
            for flip in (False, True)[: 1 + self.flip]
        ]


@dataclass(frozen=True)
class TrainView:
    """Random crop, flip and further augmentation for training.

    `crop` is a key of CROPS, `rand_augment` the number of operations and their magnitude, 0 to 30,
    `erasing` the probability of erasing a box, `resize` that of EvalView for the crop "center".
    """

    size: int
    crop: str = "random"
    min_scale: float = 0.25
    min_ratio: float = 0.75
    hflip: bool = True
    jitter: bool = False
    rand_augment: tuple[int, ...] = (0, 0)
    erasing: float = 0.0
    is_flow: bool = False
    resize: tuple[int, ...] = ()
    antialias: bool = True

    def draw(self, height: int, width: int, rng: Random) -> View:
        view = CROPS[self.crop](self, height, width, rng)
        flip = self.hflip and rng.random() < FLIP_PROBABILITY
        jitter = _draw_jitter(rng) if self.jitter else None
        n_operations, magnitude = self.rand_augment
        rand_augment = None
        if n_operations:
            rand_augment = RandAugmentDraw(n_operations, magnitude, rng.getrandbits(63))
        erases = self.erasing > 0 and rng.random() < self.erasing
        return replace(
            view,
            flip=flip,
            jitter=jitter,
            rand_augment=rand_augment,
            erase=_draw_erased_box(self.size, rng) if erases else None,
            is_flow=self.is_flow,
            antialias=self.antialias,
        )

    def views(self, height: int, width: int, rng: Random) -> list[View]:
        return [self.draw(height, width, rng)]


def _random_crop(transform: TrainView, height: int, width: int, rng: Random) -> View:
    with torch_seeded(rng.getrandbits(63)):
        box = RandomResizedCrop.get_params(
            torch.empty(0, height, width),
            scale=[transform.min_scale, 1.0],
            ratio=[transform.min_ratio, 1.0 / transform.min_ratio],
        )
    return View(Box(*box), (transform.size, transform.size))


def _corner_crop(transform: TrainView, height: int, width: int, rng: Random) -> View:
    """Crop a square of one of 5 scales in a corner or the centre (arXiv:1507.02159)."""
    side = int(min(height, width) * rng.choice(CORNER_SCALES))
    corner = rng.choice(CORNERS)
    if corner == "center":
        box = Box((height - side) // 2, (width - side) // 2, side, side)
    else:
        top = height - side if corner.startswith("bottom") else 0
        left = width - side if corner.endswith("right") else 0
        box = Box(top, left, side, side)
    return View(box, (transform.size, transform.size))


def _center_crop(transform: TrainView, height: int, width: int, rng: Random) -> View:
    return EvalView(transform.size, resize=transform.resize).draw(height, width, rng)


CROPS = {"random": _random_crop, "corner": _corner_crop, "center": _center_crop}


def _draw_jitter(rng: Random) -> Jitter:
    ranges = ColorJitter(**JITTER)
    with torch_seeded(rng.getrandbits(63)):
        order, *strengths = ColorJitter.get_params(
            ranges.brightness, ranges.contrast, ranges.saturation, ranges.hue
        )
    return Jitter(tuple(order.tolist()), tuple(strengths))


def _draw_erased_box(size: int, rng: Random) -> Box | None:
    """Draw a box of a square view; None if no box of its area and ratio fits."""
    with torch_seeded(rng.getrandbits(63)):
        *box, _ = RandomErasing.get_params(
            torch.empty(1, size, size), scale=ERASED_AREA, ratio=ERASED_RATIO, value=[0.0]
        )
    drawn = Box(*box)
    return None if (drawn.height, drawn.width) == (size, size) else drawn


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, the only one torchvision draws from, and restore it after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def apply_view(frames: Sequence[Tensor], view: View) -> Tensor:
    """Transform frames of one size, each uint8 (C, H, W), -> uint8 (T, C, h, w)."""
    return apply_views(frames, [view])[0]


def apply_views(frames: Sequence[Tensor], views: Sequence[View]) -> list[Tensor]:
    """Transform frames like apply_view, once for each view. The views have the same box and
    `resize`, so that frames are resized once."""
    pixels = _resized(frames, views[0].box, views[0].resize, antialias=views[0].antialias)
    return [_finished(pixels, view) for view in views]


def _resized(frames: Sequence[Tensor], box: Box, size: Sequence[int], *, antialias: bool) -> Tensor:
    # Decoded JPEGs are (H, W, C) in memory; keeping that layout makes resizing several
    # times faster.
    clip = torch.empty((len(frames), box.height, box.width, frames[0].shape[0]), dtype=torch.uint8)
    for target, frame in zip(clip, frames, strict=True):
        cropped = frame[:, box.top : box.top + box.height, box.left : box.left + box.width]
        target.copy_(cropped.permute(1, 2, 0))
    pixels = clip.permute(0, 3, 1, 2)  # (T, h, w, C) -> (T, C, h, w)
    if antialias:
        return F.resize(pixels, list(size), antialias=True)
    # In float, as in torchvision's own preprocessing; its kernel for uint8 rounds differently.
    return F.resize(pixels.float(), list(size), antialias=False).round_().to(torch.uint8)


def _finished(pixels: Tensor, view: View) -> Tensor:
    """Crop, flip and jitter resized frames (T, C, H, W)."""
    if view.crop is not None:
        pixels = _square(pixels, view.crop, view.place)
    if view.flip:
        pixels = F.horizontal_flip(pixels)
        if view.is_flow:
            pixels = torch.cat([255 - pixels[:, :1], pixels[:, 1:]], dim=1)
    if view.jitter is not None:
        pixels = _jittered(pixels, view.jitter)
    if view.rand_augment is not None:
        pixels = _rand_augmented(pixels, view.rand_augment)
    if view.erase is not None:
        pixels = F.erase(pixels, *view.erase, v=torch.tensor(GREY, dtype=torch.uint8))
    return pixels


def _square(pixels: Tensor, side: int, place: str) -> Tensor:
    if place == "center":
        return F.center_crop(pixels, [side])
    height, width = pixels.shape[-2:]
    last_top, last_left = height - side, width - side
    top, left = round(last_top / 2), round(last_left / 2)
    at_end = place == "end"
    if width > height:
        left = last_left if at_end else 0
    else:
        top = last_top if at_end else 0
    return F.crop(pixels, top, left, side, side)


JITTER_STEPS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def _jittered(pixels: Tensor, jitter: Jitter) -> Tensor:
    for step in jitter.order:
        pixels = JITTER_STEPS[step](pixels, jitter.strengths[step])
    return pixels


def _rand_augmented(pixels: Tensor, draw: RandAugmentDraw) -> Tensor:
    """Apply RandAugment (Cubuk et al., arXiv:1909.13719), the same operations to all frames."""
    augment = RandAugment(
        draw.n_operations,
        draw.magnitude,
        interpolation=InterpolationMode.BILINEAR,
        fill=GREY,
    )
    with torch_seeded(draw.seed):
        return augment(pixels)
