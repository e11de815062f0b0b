"""Recognise the architecture of a state dict from its names and shapes. Does not import torch."""

from dataclasses import dataclass
from typing import Any

from models.catalog import FAMILIES, Family, Layout, Shapes


@dataclass(frozen=True)
class Identity:
    """The architecture of a state dict. `options` holds those that leave a trace in its tensors;
    `n_classes` is 0 for a trunk without a head."""

    model: str
    model_depth: int
    n_classes: int
    n_input_channels: int
    options: dict[str, Any]

    @property
    def arch(self) -> str:
        return f"{self.model}-{self.model_depth}"

    @property
    def values(self) -> dict[str, Any]:
        """All of it, by the names of the flags."""
        values = vars(self) | self.options
        del values["options"]
        return values


def identify(shapes: Shapes) -> Identity | None:
    """Return the architecture of {name: shape}, or None if it belongs to no known family.

    Any names and shapes are accepted: a recognised state dict may still have other tensors than
    the model.
    """
    # resnet, which has no distinguishing mark, is the first family and is tried last.
    for name, family in reversed(FAMILIES.items()):
        try:
            identity = _identify_as(name, family, shapes)
        except (KeyError, IndexError, ValueError, ZeroDivisionError):
            continue
        if identity is not None:
            return identity
    return None


def _identify_as(name: str, family: Family, shapes: Shapes) -> Identity | None:
    options = family.recognise(shapes)
    if options is None:
        return None
    stages = [f"{family.prefix}{stage}." for stage in family.stages]
    n_blocks = tuple(_count_blocks(shapes, stage, family.first_block) for stage in stages)
    bottleneck = f"{stages[0]}{family.first_block}.conv3.weight" in shapes
    depth_of = {layout: depth for depth, layout in family.depths.items()}
    _, n_channels, *_ = shapes[f"{family.prefix}{family.modules[0]}.weight"]
    n_classes, _ = shapes.get(f"{family.head}.weight", (0, 0))
    return Identity(name, depth_of[Layout(n_blocks, bottleneck)], n_classes, n_channels, options)


def _count_blocks(shapes: Shapes, stage: str, first: str) -> int:
    """Count the numbered children of a stage from `first` up to the first gap."""
    children = {name[len(stage) :].split(".")[0] for name in shapes if name.startswith(stage)}
    prefix = first.rstrip("0123456789")
    number = int(first.removeprefix(prefix))
    count = 0
    while f"{prefix}{number + count}" in children:
        count += 1
    return count
