"""Checkpoints of other programs: recognised by their tensors, and renamed to this program's names.

A naming also says what its tensors do not show: stem, batch norm, preprocessing. Does not import
torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.catalog import Shapes, mid_planes

if TYPE_CHECKING:
    from torch import Tensor

Rules = Sequence[tuple[str, str]]  # pattern and replacement of a name; the first match counts


@dataclass(frozen=True)
class Inflation:
    """How 2D kernels become 3D ones (I3D, Carreau and Zisserman, arXiv:1705.07750): repeated over
    time and divided by their number of frames, so that a clip of one repeated frame has the
    features of that frame.

    The first convolution gets `t_size` frames, those of 1x1 and of the last `n_2d_layers` layers
    one, all others three.
    """

    t_size: int = 7
    n_2d_layers: int = 0

    def frames_of(self, name: str, kernel: tuple[int, ...]) -> int:
        """Return the frames of the 3D kernel that a 2D `kernel`, (O, I, h, w), becomes."""
        if name == "conv1.weight":
            return self.t_size
        is_2d = any(name.startswith(f"layer{4 - i}.") for i in range(self.n_2d_layers))
        return 1 if is_2d or kernel[2:] == (1, 1) else 3


@dataclass(frozen=True)
class Naming:
    """The files of one program. `options`, by the names of the flags, are what the tensors do not
    show."""

    title: str
    recognise: Callable[[Shapes], bool]
    options: Mapping[str, Any] = field(default_factory=dict)
    rules: Rules = ()
    is_2d: bool = False

    def translate(
        self, weights: "Mapping[str, Tensor]", inflation: Inflation
    ) -> "dict[str, Tensor]":
        """Return the weights under this program's names, 2D kernels as 3D ones."""
        translated: dict[str, Tensor] = {}
        for name, tensor in weights.items():
            if self.is_2d and tensor.dim() == 4:
                n_frames = inflation.frames_of(name, tuple(tensor.shape))
                tensor = tensor.unsqueeze(2).repeat(1, 1, n_frames, 1, 1) / n_frames
            translated[self.renamed(name)] = tensor
        return translated

    def renamed(self, name: str) -> str:
        """Return this program's name of a tensor; names that the program does not use stay."""
        for pattern, replacement in self.rules:
            if match := re.fullmatch(pattern, name):
                return match.expand(replacement)
        return name


def find_naming(shapes: Shapes) -> Naming | None:
    """Return the entry of NAMINGS that a state dict is of, or None. Takes any names and shapes."""
    for naming in NAMINGS.values():
        try:
            if naming.recognise(shapes):
                return naming
        except (KeyError, IndexError, ValueError, ZeroDivisionError):
            continue
    return None


def _is_video(shapes: Shapes) -> bool:
    return "stem.3.weight" not in shapes and len(shapes["stem.0.weight"]) == 5


def _is_r2plus1d(shapes: Shapes) -> bool:
    return len(shapes["stem.3.weight"]) == 5 and "layer2.0.conv2.0.3.weight" in shapes


def _is_vmz(shapes: Shapes) -> bool:
    """Return whether the second pair of a block has channels of its own inside, other than in
    torchvision, or the file is a trunk without a head, which torchvision does not publish."""
    planes, inside = shapes["layer2.0.conv2.0.3.weight"][:2]
    is_own = inside == mid_planes(planes, planes, 3, 3)
    return _is_r2plus1d(shapes) and (is_own or "fc.weight" not in shapes)


def _is_2d(shapes: Shapes) -> bool:
    return len(shapes["conv1.weight"]) == len(shapes["layer1.0.conv1.weight"]) == 4


VIDEO_RULES = (
    (r"stem\.0\.(.+)", r"conv1.\1"),
    (r"stem\.1\.(.+)", r"bn1.\1"),
    (r"(layer\d\.\d+)\.conv(\d)\.0\.(\w+)", r"\1.conv\2.\3"),
    (r"(layer\d\.\d+)\.conv(\d)\.1\.(\w+)", r"\1.bn\2.\3"),
)
R2PLUS1D_RULES = (
    (r"stem\.0\.(.+)", r"conv1_s.\1"),
    (r"stem\.1\.(.+)", r"bn1_s.\1"),
    (r"stem\.3\.(.+)", r"conv1_t.\1"),
    (r"stem\.4\.(.+)", r"bn1_t.\1"),
    (r"(layer\d\.\d+)\.conv(\d)\.0\.0\.(\w+)", r"\1.conv\2_s.\3"),
    (r"(layer\d\.\d+)\.conv(\d)\.0\.1\.(\w+)", r"\1.bn\2_s.\3"),
    (r"(layer\d\.\d+)\.conv(\d)\.0\.3\.(\w+)", r"\1.conv\2_t.\3"),
    (r"(layer\d\.\d+)\.conv(\d)\.1\.(\w+)", r"\1.bn\2_t.\3"),
)
# torchvision.transforms._presets.VideoClassification; clips as in the metadata of its weights.
TORCHVISION_CLIPS = {
    "mean_dataset": "torchvision",
    "eval_resize": (128, 171),
    "no_antialias": True,
    "frame_rate": 15.0,
    "sample_size": 112,
    "sample_duration": 16,
}
NAMINGS: dict[str, Naming] = {
    "torchvision_video": Naming(
        title="torchvision's r3d or mc3",
        recognise=_is_video,
        options=TORCHVISION_CLIPS | {"no_max_pool": True},
        rules=VIDEO_RULES,
    ),
    # Converted from Caffe2 (github.com/facebookresearch/VMZ) by github.com/moabitcoin/ig65m-pytorch
    # or github.com/HumamAlwassel/XDC, in torchvision's naming.
    "vmz_r2plus1d": Naming(
        title="R(2+1)D of VMZ, such as IG-65M or XDC",
        recognise=_is_vmz,
        options={
            "mean_dataset": "torchvision",
            "eval_resize": (128, 171),
            "sample_size": 112,
            "no_max_pool": True,
            "bn_eps": 1e-3,
        },
        rules=R2PLUS1D_RULES,
    ),
    "torchvision_r2plus1d": Naming(
        title="torchvision's r2plus1d",
        recognise=_is_r2plus1d,
        options=TORCHVISION_CLIPS | {"no_max_pool": True},
        rules=R2PLUS1D_RULES,
    ),
    "torchvision_2d": Naming(
        title="a 2D ResNet of torchvision, inflated",
        recognise=_is_2d,
        options={"mean_dataset": "imagenet"},
        is_2d=True,
    ),
}
