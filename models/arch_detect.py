"""What a state dict is, read from its names and shapes alone. Free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

# (bottleneck, blocks per layer) -> depth
RESNET_DEPTH_OF: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (1, 1, 1, 1)): 10,
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
    (True, (3, 24, 36, 3)): 200,
}
DENSENET_DEPTH_OF: dict[tuple[int, ...], int] = {
    (6, 12, 24, 16): 121,
    (6, 12, 32, 32): 169,
    (6, 12, 48, 32): 201,
    (6, 12, 64, 48): 264,
}


@dataclass(frozen=True)
class Identity:
    """The architecture of a state dict. `None` where its tensors leave no trace of a thing."""

    model: str
    model_depth: int
    n_classes: int
    n_input_channels: int
    conv1_t_size: int
    resnet_shortcut: str | None = None
    resnet_widen_factor: float | None = None
    wide_resnet_k: int | None = None
    resnext_cardinality: int | None = None

    @property
    def arch(self) -> str:
        return f"{self.model}-{self.model_depth}"


def identify(shapes: Shapes) -> Identity | None:
    """Read the architecture from {name: shape}; None if it is none of the known families.

    Any names and shapes will do: a model of the identity may still have other tensors.
    """
    try:
        if "features.conv1.weight" in shapes:
            return _identify_densenet(shapes)
        return _identify_resnet(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None


def _identify_densenet(shapes: Shapes) -> Identity:
    blocks = tuple(_count(shapes, f"features.denseblock{i}.denselayer", 1) for i in (1, 2, 3, 4))
    _, n_channels, t_size, _, _ = shapes["features.conv1.weight"]
    n_classes, _ = shapes["classifier.weight"]
    return Identity("densenet", DENSENET_DEPTH_OF[blocks], n_classes, n_channels, t_size)


def _identify_resnet(shapes: Shapes) -> Identity:
    two_plus_one = "conv1_s.weight" in shapes
    _, n_channels, *_ = shapes["conv1_s.weight" if two_plus_one else "conv1.weight"]
    stem_planes, _, t_size, _, _ = shapes["conv1_t.weight" if two_plus_one else "conv1.weight"]
    n_classes, _ = shapes["fc.weight"]
    bottleneck = "layer1.0.conv3.weight" in shapes
    blocks = tuple(_count(shapes, f"layer{i}.", 0) for i in (1, 2, 3, 4))
    family, options = _family_of(shapes, two_plus_one, bottleneck, stem_planes)
    return Identity(
        family,
        RESNET_DEPTH_OF[bottleneck, blocks],
        n_classes,
        n_channels,
        t_size,
        resnet_shortcut="B" if "layer2.0.downsample.0.weight" in shapes else "A",
        **options,
    )


def _family_of(
    shapes: Shapes, two_plus_one: bool, bottleneck: bool, stem_planes: int
) -> tuple[str, dict[str, Any]]:
    """The family and the options that only it has."""
    widen = {"resnet_widen_factor": stem_planes / 64}
    if two_plus_one:
        return "resnet2p1d", widen
    if shapes["layer2.0.bn1.weight"][0] != shapes["layer2.0.conv1.weight"][0]:
        return "preresnet", {}  # its batch norm comes before the convolution
    if bottleneck:
        planes, planes_per_group = shapes["layer1.0.conv2.weight"][:2]
        if planes_per_group < planes:
            return "resnext", {"resnext_cardinality": planes // planes_per_group}
        if shapes["layer1.0.conv3.weight"][0] == 2 * planes:
            return "wideresnet", {"wide_resnet_k": planes // 64}
    return "resnet", widen


def _count(shapes: Shapes, prefix: str, first: int) -> int:
    """How many numbered modules there are under a prefix, counted from `first` without gaps."""
    parts = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    count = 0
    while str(first + count) in parts:
        count += 1
    return count
