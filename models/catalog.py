"""Every fact about the model families: depths, stages, module names, options, and how the weights
of a family are recognised. Does not import torch, so that flags can be checked before it is loaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, NamedTuple

Shapes = Mapping[str, tuple[int, ...]]  # of a state dict, by name


class Layout(NamedTuple):
    """The blocks of one depth. Bottleneck blocks have three convolutions (conv1 to conv3), others
    two."""

    n_blocks: tuple[int, ...]  # per stage
    bottleneck: bool = False


BASIC = {
    10: Layout((1, 1, 1, 1)),
    18: Layout((2, 2, 2, 2)),
    34: Layout((3, 4, 6, 3)),
}
BOTTLENECK = {
    50: Layout((3, 4, 6, 3), bottleneck=True),
    101: Layout((3, 4, 23, 3), bottleneck=True),
    152: Layout((3, 8, 36, 3), bottleneck=True),
    200: Layout((3, 24, 36, 3), bottleneck=True),
}
DENSE = {
    121: Layout((6, 12, 24, 16)),
    169: Layout((6, 12, 32, 32)),
    201: Layout((6, 12, 48, 32)),
    264: Layout((6, 12, 64, 48)),
}
COMMON_OPTIONS = ("conv1_t_size", "conv1_t_stride", "no_max_pool", "bn_eps")
RESNET_OPTIONS = (*COMMON_OPTIONS, "resnet_shortcut")
RESNEXT_WIDTHS = (128, 256, 512, 1024)
RESNET_MODULES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
DENSENET_MODULES = (
    "conv1", "norm1", "denseblock1", "transition1", "denseblock2", "transition2", "denseblock3",
    "transition3", "denseblock4", "norm5", "classifier",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One model family. `models/<name>.py` builds it with its function `build`.

    `options` are the architecture flags that it supports. `recognise` reads those that leave a
    trace from the shapes of a state dict; if the state dict is not of this family it returns None
    or raises KeyError, IndexError, ValueError or ZeroDivisionError. `modules` are the top-level
    modules with parameters in forward order, head last: the values of --ft_begin_module.
    """

    depths: Mapping[int, Layout]
    options: tuple[str, ...]
    recognise: Callable[[Shapes], dict[str, Any] | None]
    modules: tuple[str, ...] = RESNET_MODULES
    stages: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")
    first_block: str = "0"  # of each stage; the number at its end counts up
    prefix: str = ""  # of all module names but the head's
    zero_head_bias: bool = False  # in a fresh head

    @property
    def head(self) -> str:
        return self.modules[-1]

    def module_of(self, parameter: str) -> str:
        """Return which of `modules` a parameter belongs to: 'layer4.0.conv1.weight' -> 'layer4'."""
        return parameter.removeprefix(self.prefix).split(".")[0]


def describe_depths() -> str:
    """Return one line with the depths of each family, for the help text."""
    groups = groupby(FAMILIES, key=lambda name: " ".join(map(str, FAMILIES[name].depths)))
    return "; ".join(f"{', '.join(names)}: {depths}" for depths, names in groups)


def mid_planes(in_planes: int, planes: int, t_size: int, side: int) -> int:
    """Return the channels between a `side` x `side` convolution and one of `t_size` in time, with
    which they have as many weights as a 3D convolution."""
    in_3d = in_planes * planes * t_size * side * side
    return in_3d // (in_planes * side * side + t_size * planes)


def _recognise_resnet(shapes: Shapes) -> dict[str, Any]:
    return _trunk_options(shapes) | {
        "resnet_widen_factor": _widen_factor(shapes, "conv2"),
        "resnet_2d_layers": _count_2d_layers(shapes),
    }


def _widen_factor(shapes: Shapes, conv: str) -> float:
    """Return the factor, as exactly as the widest layer shows it: every other layer's width follows
    from it by the same rounding down as from the factor itself."""
    return shapes[f"layer4.0.{conv}.weight"][0] / 512


def _count_2d_layers(shapes: Shapes) -> int:
    """Count the layers at the end whose kernels span one frame."""
    t_sizes = [shapes[f"layer{layer}.0.conv2.weight"][2] for layer in (4, 3, 2, 1)]
    return len(list(takewhile(lambda t_size: t_size == 1, t_sizes)))


def _recognise_resnet2p1d(shapes: Shapes) -> dict[str, Any]:
    stem = "conv1_t.weight"
    planes, _, t_size, _, _ = shapes[stem]
    in_stem = shapes["conv1_s.weight"][0]
    is_default = in_stem == mid_planes(3, planes, t_size, 7)
    # The first block of layer2, whose input has other channels than its output.
    planes_2, in_block = shapes["layer2.0.conv2_t.weight"][:2]
    return _trunk_options(shapes, stem) | {
        "resnet_widen_factor": _widen_factor(shapes, "conv2_t"),
        "conv1_mid_planes": 0 if is_default else in_stem,
        "shared_mid_planes": in_block != mid_planes(planes_2, planes_2, 3, 3),
    }


def _recognise_preresnet(shapes: Shapes) -> dict[str, Any] | None:
    # Its batch norm precedes the convolution, so it has the channels of the input.
    if shapes["layer2.0.bn1.weight"][0] == shapes["layer2.0.conv1.weight"][0]:
        return None
    return _trunk_options(shapes)


def _recognise_wideresnet(shapes: Shapes) -> dict[str, Any] | None:
    planes = shapes["layer1.0.conv2.weight"][0]
    if shapes["layer1.0.conv3.weight"][0] != 2 * planes:
        return None
    options = {"wide_resnet_k": planes // 64, "conv1_planes": _conv1_planes(shapes, planes)}
    return _trunk_options(shapes) | options


def _recognise_resnext(shapes: Shapes) -> dict[str, Any] | None:
    planes, planes_per_group = shapes["layer1.0.conv2.weight"][:2]
    # Of a single group, the block is told by its narrow middle.
    if planes_per_group >= planes and shapes["layer1.0.conv3.weight"][0] != 64 * planes:
        return None
    options = {
        "resnext_cardinality": planes // planes_per_group,
        "conv1_planes": _conv1_planes(shapes, RESNEXT_WIDTHS[0]),
    }
    return _trunk_options(shapes) | options


def _conv1_planes(shapes: Shapes, default: int) -> int:
    planes = shapes["conv1.weight"][0]
    return 0 if planes == default else planes


def _trunk_options(shapes: Shapes, stem: str = "conv1.weight") -> dict[str, Any]:
    _, _, t_size, _, _ = shapes[stem]
    shortcut = "B" if "layer2.0.downsample.0.weight" in shapes else "A"
    return {"conv1_t_size": t_size, "resnet_shortcut": shortcut}


def _recognise_densenet(shapes: Shapes) -> dict[str, Any]:
    _, _, t_size, _, _ = shapes["features.conv1.weight"]
    return {"conv1_t_size": t_size}


FAMILIES: dict[str, Family] = {
    "resnet": Family(
        depths=BASIC | BOTTLENECK,
        options=(*RESNET_OPTIONS, "resnet_widen_factor", "resnet_2d_layers"),
        recognise=_recognise_resnet,
    ),
    "resnet2p1d": Family(
        depths=BASIC | BOTTLENECK,
        options=(
            *RESNET_OPTIONS,
            "resnet_widen_factor",
            "conv1_mid_planes",
            "shared_mid_planes",
        ),
        recognise=_recognise_resnet2p1d,
        modules=("conv1_s", "bn1_s", "conv1_t", "bn1_t", *RESNET_MODULES[2:]),
    ),
    "preresnet": Family(
        depths=BASIC | BOTTLENECK, options=RESNET_OPTIONS, recognise=_recognise_preresnet
    ),
    "wideresnet": Family(
        depths=BOTTLENECK,
        options=(*RESNET_OPTIONS, "wide_resnet_k", "conv1_planes"),
        recognise=_recognise_wideresnet,
    ),
    "resnext": Family(
        depths=BOTTLENECK,
        options=(*RESNET_OPTIONS, "resnext_cardinality", "conv1_planes"),
        recognise=_recognise_resnext,
    ),
    "densenet": Family(
        depths=DENSE,
        options=COMMON_OPTIONS,
        recognise=_recognise_densenet,
        modules=DENSENET_MODULES,
        stages=("denseblock1", "denseblock2", "denseblock3", "denseblock4"),
        first_block="denselayer1",
        prefix="features.",
        zero_head_bias=True,
    ),
}
